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

/* RFC 4231, cases 1, 2 and 6. */
static void keyed(void **state) {
    (void)state;
    uint8_t digest[SHA256_BYTES], key[131];
    char hex[SHA256_HEX_BYTES];
    memset(key, 0x0B, 20);
    struct view hi = VIEW("Hi There");
    assert_int_equal(sha256_hmac(key, 20, &hi, 1, digest, NULL), STATUS_OK);
    sha256_hex(digest, hex);
    assert_string_equal(
        hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    struct view parts[] = {VIEW("what do "), VIEW(""), VIEW("ya want for nothing?")};
    assert_int_equal(sha256_hmac("Jefe", 4, parts, 3, digest, NULL), STATUS_OK);
    sha256_hex(digest, hex);
    assert_string_equal(
        hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xAA, sizeof key);
    struct view large = VIEW("Test Using Larger Than Block-Size Key - Hash Key First");
    assert_int_equal(sha256_hmac(key, sizeof key, &large, 1, digest, NULL), STATUS_OK);
    sha256_hex(digest, hex);
    assert_string_equal(
        hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes), cmocka_unit_test(reads_hex), cmocka_unit_test(keyed)};
    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
