/* SPDX-License-Identifier: Apache-2.0
 *
 * test_auth.c - key files, good and bad, and who is let in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auth.h"
#include "base/file.h"

static char path[] = "/tmp/vigil-test-auth-XXXXXX";

static enum status open_text(const char *text, mode_t mode, struct auth **out,
                             struct error *err) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
    return auth_open(path, out, err);
}

static void test_keys(void **state) {
    (void)state;
    struct auth *a = NULL;
    /* The second is the hash of nothing that is tried. */
    assert_int_equal(
        open_text(
            "# keys\n\nplain-key-0123456789  team one\r\n"
            "sha256:"
            "C49D8CA1A96A8BC04B6C4E9D3E2F6AD6D2B1C5D3C6B9F8B5B3C3A0E8A8D9F0A1 hashed\n",
            0600, &a, NULL),
        STATUS_OK);
    assert_int_equal(auth_count(a), 2);
    assert_true(auth_allows(a, "Bearer plain-key-0123456789", NULL));
    assert_true(auth_allows(a, "bearer plain-key-0123456789", NULL));
    assert_true(auth_allows(a, NULL, "plain-key-0123456789"));
    assert_true(auth_allows(a, "Basic x", "plain-key-0123456789"));
    static const char *const WRONG[] = {
        "",
        "Bearer ",
        "Bearer plain-key-012345678",
        "Bearer plain-key-01234567890",
        "Bearer",
        "plain-key-0123456789",
        "Bearer  plain-key-0123456789",
        "Bearer C49D8CA1A96A8BC04B6C4E9D3E2F6AD6D2B1C5D3C6B9F8B5B3C3A0E8A8D9F0A1"};
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++)
        assert_false(auth_allows(a, WRONG[i], NULL));
    assert_false(auth_allows(a, NULL, NULL));
    assert_false(auth_allows(a, NULL, ""));
    auth_close(a);
}

/* echo -n vigil-secret-of-16 | sha256sum */
static void test_hashed_key(void **state) {
    (void)state;
    struct auth *a = NULL;
    assert_int_equal(
        open_text("sha256:"
                  "13788f947ba3cb29549e98def57683e0eace4af8bfdf5c8ffd6413ae572f8cb9\n",
                  0640, &a, NULL),
        STATUS_OK);
    assert_true(auth_allows(a, "Bearer vigil-secret-of-16", NULL));
    assert_false(auth_allows(a, "Bearer vigil-secret-of-17", NULL));
    auth_close(a);
}

static void test_bad_files(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
        mode_t mode;
    } FILES[] = {
        {"", "no key", 0600},
        {"# only this\n", "no key", 0600},
        {"short\n", "line 1: a key of 5 bytes", 0600},
        {"plain-key-0123456789\nsha256:12\n", "line 2: expected 64 hex digits", 0600},
        {"plain-key-0123456789\n", "others may read it", 0644},
    };
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        struct auth *a = NULL;
        struct error err = {0};
        assert_int_equal(open_text(FILES[i].text, FILES[i].mode, &a, &err),
                         STATUS_INVALID);
        assert_null(a);
        assert_non_null(strstr(err.message, FILES[i].expected));
        assert_null(strstr(err.message, "plain-key"));
    }
    struct auth *a = NULL;
    assert_int_equal(auth_open("/nonexistent/keys", &a, NULL), STATUS_NOT_FOUND);
    auth_close(NULL);
    assert_int_equal(auth_count(NULL), 0);
}

int main(void) {
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_hashed_key),
        cmocka_unit_test(test_bad_files),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
