/* SPDX-License-Identifier: Apache-2.0
 *
 * test_x_backoff.c - X's table of waits, step by step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/clock.h"
#include "client/sources/x_backoff.h"

#define MS INT64_C(1000000)
#define S CLOCK_NS_PER_SECOND

/* The wait is the step and at most a tenth more. */
static void check(int64_t wait_ns, int64_t step_ns) {
    assert_true(wait_ns >= step_ns);
    assert_true(wait_ns <= step_ns + step_ns / 10);
}

static int64_t next(struct x_backoff *b, enum x_failure failure) {
    return x_backoff_next(b, failure, 0, -1, 0);
}

static void the_network_adds_250_ms_up_to_16_s(void **state) {
    (void)state;
    struct x_backoff b = {.seed = 7};
    for (int i = 1; i <= 64; i++) {
        int64_t wait_ns = next(&b, X_NETWORK);
        check(wait_ns, i * 250 * MS);
        assert_true(wait_ns <= 16 * S);
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(next(&b, X_NETWORK), 16 * S);
}

static void http_errors_double_from_5_to_320_s(void **state) {
    (void)state;
    static const int64_t steps[] = {5, 10, 20, 40, 80, 160, 320, 320, 320};
    struct x_backoff b = {0};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        check(next(&b, X_HTTP_ERROR), steps[i] * S);
    b.n_failures[X_HTTP_ERROR] = UINT32_MAX;
    check(next(&b, X_HTTP_ERROR), 320 * S);
    check(next(&b, X_HTTP_ERROR), 320 * S);
}

static void too_many_requests_double_from_60_s(void **state) {
    (void)state;
    static const int64_t steps[] = {60, 120, 240, 480, 900, 900};
    struct x_backoff b = {0};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        check(next(&b, X_RATE_LIMIT), steps[i] * S);
    /* Each kind counts for itself. */
    check(next(&b, X_TOO_MANY_CONNECTIONS), 60 * S);
    check(next(&b, X_NETWORK), 250 * MS);
    check(next(&b, X_HTTP_ERROR), 5 * S);
    check(next(&b, X_TOO_MANY_CONNECTIONS), 120 * S);
}

static void a_steady_stream_is_asked_for_at_once(void **state) {
    (void)state;
    struct x_backoff b = {0};
    next(&b, X_NETWORK);
    next(&b, X_HTTP_ERROR);
    x_backoff_steady(&b);
    assert_int_equal(next(&b, X_NETWORK), 0);
    check(next(&b, X_NETWORK), 250 * MS);
    check(next(&b, X_NETWORK), 500 * MS);
    x_backoff_steady(&b);
    check(next(&b, X_HTTP_ERROR), 5 * S); /* only the network: the server has said no */
    check(next(&b, X_NETWORK), 250 * MS);
}

static void what_the_server_says_is_a_minimum(void **state) {
    (void)state;
    const int64_t wall_ns = 1700000000 * S;
    struct x_backoff b = {0};
    check(x_backoff_next(&b, X_RATE_LIMIT, 1700000500, -1, wall_ns), 500 * S);
    check(x_backoff_next(&b, X_RATE_LIMIT, 1700000010, -1, wall_ns), 120 * S);
    check(x_backoff_next(&b, X_RATE_LIMIT, 1600000000, -1, wall_ns), 240 * S);
    check(x_backoff_next(&b, X_RATE_LIMIT, INT64_C(999999999999999), -1, wall_ns),
          480 * S);
    b = (struct x_backoff){0};
    check(x_backoff_next(&b, X_HTTP_ERROR, 1700000500, -1, wall_ns), 5 * S);
    check(x_backoff_next(&b, X_HTTP_ERROR, 0, 77 * S, wall_ns), 77 * S);
    check(x_backoff_next(&b, X_HTTP_ERROR, 0, 86400 * S, wall_ns), 3600 * S);
    check(x_backoff_next(&b, X_TOO_MANY_CONNECTIONS, 1700000500, -1, wall_ns), 60 * S);
}

static void seeds_differ_and_repeat(void **state) {
    (void)state;
    struct x_backoff a = {.seed = 1}, b = {.seed = 1}, c = {.seed = 2};
    int64_t first = next(&a, X_HTTP_ERROR);
    assert_int_equal(next(&b, X_HTTP_ERROR), first);
    assert_int_not_equal(next(&c, X_HTTP_ERROR), first);
}

static void the_scale_is_for_tests(void **state) {
    (void)state;
    static const char *const bad[] = {"", "0", "-1", "2", "x", "0.5x", "nan", "inf"};
    unsetenv("VIGIL_TEST_TIME_SCALE");
    assert_true(x_backoff_time_scale() == 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("VIGIL_TEST_TIME_SCALE", bad[i], 1);
        assert_true(x_backoff_time_scale() == 1);
    }
    setenv("VIGIL_TEST_TIME_SCALE", "0.25", 1);
    assert_true(x_backoff_time_scale() == 0.25);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_network_adds_250_ms_up_to_16_s),
        cmocka_unit_test(http_errors_double_from_5_to_320_s),
        cmocka_unit_test(too_many_requests_double_from_60_s),
        cmocka_unit_test(a_steady_stream_is_asked_for_at_once),
        cmocka_unit_test(what_the_server_says_is_a_minimum),
        cmocka_unit_test(seeds_differ_and_repeat),
        cmocka_unit_test(the_scale_is_for_tests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
