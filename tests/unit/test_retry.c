/* SPDX-License-Identifier: Apache-2.0
 *
 * test_retry.c - waits lie in their bounds and use them, and a budget is never overdrawn.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/worker/retry.h"

enum { N = 20000 };

static void waits_are_spread_over_all_of_their_bound(void **state) {
    (void)state;
    struct retry_random r = {.state = 7};
    const int64_t bounds[] = {100,  200,  400,   800,   1600,
                              3200, 6400, 12800, 20000, 20000};
    for (int32_t n = 0; n < 10; n++) {
        int64_t least = INT64_MAX, most = 0;
        double sum = 0;
        for (int i = 0; i < N; i++) {
            int64_t wait = retry_wait_ns(&r, n);
            assert_in_range(wait, 0, bounds[n] * 1000000 - 1);
            least = wait < least ? wait : least;
            most = wait > most ? wait : most;
            sum += (double)wait;
        }
        double bound = (double)bounds[n] * 1e6, mean = sum / N;
        assert_true(mean > 0.49 * bound && mean < 0.51 * bound);
        assert_true((double)least < 0.001 * bound && (double)most > 0.999 * bound);
    }
    for (int i = 0; i < 100; i++)
        assert_in_range(retry_wait_ns(&r, INT32_MAX), 0, RETRY_CAP_NS - 1);
}

static void between_stays_between(void **state) {
    (void)state;
    struct retry_random r = {.state = 1};
    for (int i = 0; i < N; i++) {
        int64_t x = retry_random_between(&r, -5, 5);
        assert_true(x >= -5 && x < 5);
    }
    assert_int_equal(retry_random_between(&r, 3, 3), 3);
    assert_int_equal(retry_random_between(&r, 3, 1), 3);
}

static void seeds_give_the_same_and_other_seeds_others(void **state) {
    (void)state;
    struct retry_random a = {.state = 1}, b = {.state = 1}, c = {.state = 2}, d, e;
    for (int i = 0; i < 100; i++) {
        uint64_t x = retry_random_next(&a);
        assert_true(x == retry_random_next(&b));
        assert_true(x != retry_random_next(&c));
    }
    retry_random_seed(&d);
    retry_random_seed(&e);
    assert_true(d.state != e.state);
}

/* Whatever the order of requests and wishes: at any moment at most a tenth. */
static void retries_are_a_tenth_at_most(void **state) {
    (void)state;
    struct retry_random r = {.state = 3};
    struct retry_budget b = {0};
    int64_t n_refused = 0;
    for (int i = 0; i < 100000; i++) {
        if (retry_random_share(&r) < 0.5)
            retry_budget_request(&b);
        else
            n_refused += !retry_budget_take(&b);
        assert_true(b.n_retries * 10 <= b.n_requests);
    }
    assert_true(n_refused > 0);
    assert_true(b.n_retries * 10 > b.n_requests - 10); /* and all that is allowed */
}

static void a_budget_saves_no_more_than_a_few(void **state) {
    (void)state;
    struct retry_budget b = {0};
    assert_false(retry_budget_take(&b));
    for (int i = 0; i < 10000; i++)
        retry_budget_request(&b);
    for (int i = 0; i < RETRY_MAX_TENTHS / RETRY_TENTHS; i++)
        assert_true(retry_budget_take(&b));
    assert_false(retry_budget_take(&b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_are_spread_over_all_of_their_bound),
        cmocka_unit_test(between_stays_between),
        cmocka_unit_test(seeds_give_the_same_and_other_seeds_others),
        cmocka_unit_test(retries_are_a_tenth_at_most),
        cmocka_unit_test(a_budget_saves_no_more_than_a_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
