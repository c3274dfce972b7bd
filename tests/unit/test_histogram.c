/* SPDX-License-Identifier: Apache-2.0
 *
 * test_histogram.c - quantiles against sorted values, merging, coordinated omission.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/histogram.h"

#define N_VALUES 20000

static struct histogram a, b, c;
static uint64_t values[N_VALUES];

static int clear(void **state) {
    (void)state;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    memset(&c, 0, sizeof c);
    return 0;
}

static int by_value(const void *x, const void *y) {
    uint64_t p = *(const uint64_t *)x, q = *(const uint64_t *)y;
    return (p > q) - (p < q);
}

/* From 1 ns to about an hour, evenly over the orders of magnitude. */
static void fill(void) {
    uint64_t random = 42;
    for (size_t i = 0; i < N_VALUES; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        values[i] = (uint64_t)exp2((double)(random >> 11) / 9007199254740992.0 * 41.0);
    }
}

static void empty(void **state) {
    (void)state;
    assert_int_equal(histogram_quantile(&a, 0.5), 0);
    assert_true(histogram_mean(&a) == 0.0);
    histogram_merge(&a, &b);
    histogram_add_corrected(&a, &b, 7);
    assert_int_equal(a.n, 0);
}

static void small_values_are_exact(void **state) {
    (void)state;
    for (uint64_t v = 0; v < 256; v++) {
        memset(&a, 0, sizeof a);
        histogram_add(&a, v);
        histogram_add(&a, 100000);
        assert_int_equal(histogram_quantile(&a, 0.5), v);
    }
}

static void quantiles_are_within_a_bucket(void **state) {
    (void)state;
    const double quantiles[] = {0.0001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999};
    fill();
    for (size_t i = 0; i < N_VALUES; i++)
        histogram_add(&a, values[i]);
    qsort(values, N_VALUES, sizeof *values, by_value);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        size_t rank = (size_t)ceil(quantiles[i] * N_VALUES);
        uint64_t exact = values[rank ? rank - 1 : 0];
        uint64_t found = histogram_quantile(&a, quantiles[i]);
        assert_true(found >= exact);
        assert_true((double)found <= (double)exact * (1 + 1.0 / 128));
    }
    assert_int_equal(histogram_quantile(&a, 1), values[N_VALUES - 1]);
    assert_int_equal(a.smallest, values[0]);
    assert_int_equal(a.largest, values[N_VALUES - 1]);
}

static void bucket_edges_keep_order(void **state) {
    (void)state;
    for (int bits = 8; bits < 42; bits++)
        for (int step = -1; step <= 1; step++) {
            uint64_t v = (UINT64_C(1) << bits) + (uint64_t)(int64_t)step;
            memset(&a, 0, sizeof a);
            histogram_add(&a, v);
            histogram_add(&a, HISTOGRAM_MAX);
            uint64_t found = histogram_quantile(&a, 0.5);
            assert_true(found >= v && found <= v + v / 128);
        }
}

static void too_large_is_the_largest(void **state) {
    (void)state;
    histogram_add(&a, UINT64_MAX);
    assert_int_equal(histogram_quantile(&a, 0.5), HISTOGRAM_MAX);
    assert_int_equal(a.largest, HISTOGRAM_MAX);
}

static void merged_is_as_if_added_to_one(void **state) {
    (void)state;
    fill();
    for (size_t i = 0; i < N_VALUES; i++) {
        histogram_add(i % 3 ? &a : &b, values[i]);
        histogram_add(&c, values[i]);
    }
    histogram_merge(&a, &b);
    assert_memory_equal(a.counts, c.counts, sizeof a.counts);
    assert_int_equal(a.n, c.n);
    assert_int_equal(a.smallest, c.smallest);
    assert_int_equal(a.largest, c.largest);
    assert_true(fabs(a.sum - c.sum) <= 1e-9 * c.sum);
    memset(&b, 0, sizeof b);
    histogram_merge(&b, &a); /* into an empty one */
    assert_int_equal(b.smallest, a.smallest);
    assert_int_equal(b.n, a.n);
}

/* Ten values of 1 and a stall of 100, sent once a 10: the stall hid 9 requests, which
 * would have waited 90, 80, ... 10. */
static void missing_requests_are_added(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++)
        histogram_add(&a, 1);
    histogram_add(&a, 100);
    histogram_add_corrected(&b, &a, 10);
    assert_int_equal(b.n, 20);
    for (uint64_t v = 10; v <= 100; v += 10)
        assert_int_equal(b.counts[v], 1);
    assert_int_equal(b.counts[1], 10);
    assert_int_equal(histogram_quantile(&b, 0.75), 50);
    assert_true(fabs(histogram_mean(&b) - (10 + 550) / 20.0) < 1e-9);
    histogram_add_corrected(&c, &a, 0);
    assert_int_equal(c.n, 11);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(empty, clear),
        cmocka_unit_test_setup(small_values_are_exact, clear),
        cmocka_unit_test_setup(quantiles_are_within_a_bucket, clear),
        cmocka_unit_test_setup(bucket_edges_keep_order, clear),
        cmocka_unit_test_setup(too_large_is_the_largest, clear),
        cmocka_unit_test_setup(merged_is_as_if_added_to_one, clear),
        cmocka_unit_test_setup(missing_requests_are_added, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
