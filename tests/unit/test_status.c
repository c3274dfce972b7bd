/* SPDX-License-Identifier: Apache-2.0
 *
 * test_status.c - messages that are cut, prefixed and named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

static void test_set(void **state) {
    (void)state;
    struct error err;
    assert_int_equal(error_set(&err, STATUS_IO, "cannot open %s: %d", "x", 7),
                     STATUS_IO);
    assert_int_equal(err.status, STATUS_IO);
    assert_string_equal(err.message, "cannot open x: 7");
    assert_int_equal(error_set(NULL, STATUS_LIMIT, "x"), STATUS_LIMIT);
}

static void test_cut(void **state) {
    (void)state;
    struct error err;
    error_set(&err, STATUS_INVALID, "%0*d", ERROR_MESSAGE_BYTES + 50, 1);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
    assert_int_equal(error_prefix(&err, "file %d", 3), STATUS_INVALID);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
    assert_memory_equal(err.message, "file 3: 000", 11);
    assert_int_equal(error_prefix(&err, "%0*d", ERROR_MESSAGE_BYTES + 50, 2),
                     STATUS_INVALID);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
}

static void test_prefix(void **state) {
    (void)state;
    struct error err;
    error_set(&err, STATUS_NOT_FOUND, "no such key");
    error_prefix(&err, "line %d", 4);
    error_prefix(&err, "config.json");
    assert_string_equal(err.message, "config.json: line 4: no such key");
    assert_int_equal(error_prefix(NULL, "x"), STATUS_INTERNAL);
}

/* Names are stable words: scripts and dashboards match them. */
static void test_names(void **state) {
    (void)state;
    assert_string_equal(status_name(STATUS_OK), "ok");
    for (int i = STATUS_OK; i <= STATUS_DEVICE; i++) {
        const char *name = status_name((enum status)i);
        assert_string_not_equal(name, "unknown");
        for (int j = STATUS_OK; j < i; j++)
            assert_string_not_equal(name, status_name((enum status)j));
    }
    assert_string_equal(status_name((enum status)99), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
