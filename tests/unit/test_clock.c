/* SPDX-License-Identifier: Apache-2.0
 *
 * test_clock.c - dates against the C library's, and a clock that does not go back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

static void expect_date(int64_t second) {
    char expected[64], found[CLOCK_UTC_BYTES];
    time_t t = (time_t)second;
    struct tm parts;
    assert_non_null(gmtime_r(&t, &parts));
    size_t n = strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(expected + n, sizeof expected - n, ".042Z");
    clock_format_utc(second * CLOCK_NS_PER_SECOND + 42999999, found);
    assert_string_equal(found, expected);
}

/* Every day of 1970 to 2262 (the range of int64_t in ns), its first and last second. */
static void test_dates(void **state) {
    (void)state;
    for (int64_t day = 0; day < 106700; day++) {
        expect_date(day * 86400);
        expect_date(day * 86400 + 86399);
    }
    char found[CLOCK_UTC_BYTES];
    clock_format_utc(-1, found);
    assert_string_equal(found, "1970-01-01T00:00:00.000Z");
    clock_format_utc(INT64_MAX, found);
    assert_string_equal(found, "2262-04-11T23:47:16.854Z");
}

static void test_monotonic(void **state) {
    (void)state;
    int64_t last = clock_now_ns();
    for (int i = 0; i < 100000; i++) {
        int64_t now = clock_now_ns();
        assert_true(now >= last);
        last = now;
    }
    int64_t drift = clock_wall_ns() / CLOCK_NS_PER_SECOND - (int64_t)time(NULL);
    assert_in_range((uintmax_t)(drift + 2), 0, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_monotonic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
