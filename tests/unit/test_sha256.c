/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sha256.c - base/sha256 against FIPS 180-4's examples.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/sha256.h"

static void hashes(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } rows[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"}};
    uint8_t digest[SHA256_BYTES], again[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(rows[i].text);
        assert_int_equal(sha256_of(rows[i].text, n, digest, NULL), STATUS_OK);
        sha256_hex(digest, hex);
        assert_string_equal(hex, rows[i].hex);
        struct sha256 h = {0};
        assert_int_equal(sha256_open(&h, NULL), STATUS_OK);
        for (size_t at = 0; at < n; at++)
            assert_int_equal(sha256_add(&h, rows[i].text + at, 1, NULL), STATUS_OK);
        sha256_finish(&h, again);
        assert_memory_equal(again, digest, SHA256_BYTES);
        assert_int_equal(sha256_add(&h, rows[i].text, n, NULL), STATUS_OK);
        sha256_finish(&h, again); /* a finished hash starts anew */
        assert_memory_equal(again, digest, SHA256_BYTES);
        sha256_close(&h);
        sha256_close(&h);
        assert_true(sha256_from_hex(hex, 64, again));
        assert_true(sha256_equal(again, digest, SHA256_BYTES));
        hex[0] = hex[0] == '0' ? '1' : '0';
        assert_true(sha256_from_hex(hex, 64, again));
        assert_false(sha256_equal(again, digest, SHA256_BYTES));
    }
    sha256_close(NULL);
}

static void reads_hex(void **state) {
    (void)state;
    uint8_t digest[SHA256_BYTES];
    char hex[] = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";
    assert_true(sha256_from_hex(hex, 64, digest));
    assert_int_equal(digest[15], 0xFF);
    assert_false(sha256_from_hex(hex, 63, digest));
    static const char bad[] = {'g', 'G', '/', ':', '@', '`', ' ', '\0', '\x10', '\xB0'};
    for (size_t i = 0; i < sizeof bad; i++) {
        hex[40] = bad[i];
        assert_false(sha256_from_hex(hex, 64, digest));
    }
    assert_true(sha256_equal("", "", 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hashes),
                                       cmocka_unit_test(reads_hex)};
    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
