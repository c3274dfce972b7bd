/* SPDX-License-Identifier: Apache-2.0
 *
 * test_breaker.c - when it opens, when it lets a probe go, when it closes; how much the
 * throttle holds back. Time is made up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/worker/breaker.h"

#define S CLOCK_NS_PER_SECOND

static struct breaker b;

static int set_up(void **state) {
    (void)state;
    breaker_init(&b, 1, 11);
    return 0;
}

static void ended(enum breaker_end how, int n, int64_t at_ns) {
    for (int i = 0; i < n; i++)
        breaker_ended(&b, how, at_ns);
}

static void five_in_a_row_open_it(void **state) {
    (void)state;
    int64_t t = 1000 * S;
    for (int round = 0; round < 3; round++) {
        ended(BREAKER_FAILED, 4, t);
        assert_int_equal(b.state, BREAKER_CLOSED);
        ended(BREAKER_TAKEN, 1, t);
        t += 60 * S;
    }
    ended(BREAKER_FAILED, 4, t);
    ended(BREAKER_BUSY, 100, t); /* neither here nor there */
    assert_int_equal(b.state, BREAKER_CLOSED);
    assert_true(breaker_admits(&b, t) || b.state == BREAKER_CLOSED);
    ended(BREAKER_FAILED, 1, t);
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_false(breaker_admits(&b, t));
    assert_int_equal(b.n_opened, 1);
}

static void half_of_twenty_open_it(void **state) {
    (void)state;
    int64_t t = 1000 * S;
    for (int i = 0; i < 9; i++) {
        ended(BREAKER_TAKEN, 1, t);
        ended(BREAKER_FAILED, 1, t);
    }
    assert_int_equal(b.state, BREAKER_CLOSED); /* 18 calls */
    ended(BREAKER_TAKEN, 1, t);
    assert_int_equal(b.state, BREAKER_CLOSED);
    ended(BREAKER_FAILED, 1, t); /* 10 of 20 */
    assert_int_equal(b.state, BREAKER_OPEN);
}

static void less_than_half_do_not(void **state) {
    (void)state;
    for (int i = 0; i < 1000; i++) {
        ended(BREAKER_TAKEN, 11, i * S);
        for (int k = 0; k < 2; k++) {
            ended(BREAKER_FAILED, 4, i * S);
            ended(BREAKER_TAKEN, 1, i * S);
        }
        assert_int_equal(b.state, BREAKER_CLOSED);
    }
}

static void what_is_ten_seconds_old_is_forgotten(void **state) {
    (void)state;
    int64_t t = 1000 * S;
    for (int i = 0; i < 9; i++) {
        ended(BREAKER_FAILED, 1, t);
        ended(BREAKER_TAKEN, 1, t);
    }
    t += 11 * S;
    ended(BREAKER_TAKEN, 1, t);
    ended(BREAKER_FAILED, 3, t);
    assert_int_equal(b.state, BREAKER_CLOSED);
    t -= 2 * S; /* as if it had come nine seconds after */
    breaker_init(&b, 1, 11);
    for (int i = 0; i < 9; i++) {
        ended(BREAKER_FAILED, 1, t - 7 * S);
        ended(BREAKER_TAKEN, 1, t - 7 * S);
    }
    ended(BREAKER_TAKEN, 1, t);
    ended(BREAKER_FAILED, 1, t);
    assert_int_equal(b.state, BREAKER_OPEN);
}

static void one_probe_after_one_to_thirty_seconds(void **state) {
    (void)state;
    int64_t least = INT64_MAX, most = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        int64_t t = 1000 * S;
        breaker_init(&b, 1, seed);
        assert_false(breaker_probes(&b, t)); /* closed: no need */
        ended(BREAKER_FAILED, 5, t);
        int64_t wait = b.probe_ns - t;
        assert_in_range(wait, S, 30 * S);
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
        assert_false(breaker_probes(&b, b.probe_ns - 1));
        t = b.probe_ns;
        assert_true(breaker_probes(&b, t));
        assert_int_equal(b.state, BREAKER_HALF_OPEN);
        assert_false(breaker_probes(&b, t));
        assert_false(breaker_probes(&b, t + 100 * S));
        assert_false(breaker_admits(&b, t));
        breaker_probed(&b, false, t);
        assert_int_equal(b.state, BREAKER_OPEN);
        assert_in_range(b.probe_ns - t, S, 30 * S);
        assert_true(breaker_probes(&b, b.probe_ns));
        breaker_probed(&b, true, b.probe_ns);
        assert_int_equal(b.state, BREAKER_CLOSED);
        assert_int_equal(b.n_opened, 1);
        /* What was before does not count any more. */
        ended(BREAKER_FAILED, 4, b.probe_ns);
        assert_int_equal(b.state, BREAKER_CLOSED);
    }
    assert_true(least < 1.2 * S && most > 29.8 * S);
}

/* Sends 50 a second to a server that takes so many a second and refuses the rest; the share
 * that was sent, once that is steady. */
static double share_sent(int64_t capacity) {
    int64_t n_sent = 0, n_all = 0, n_taken = 0;
    breaker_init(&b, 1, 5);
    for (int64_t t = S; t < 600 * S; t += S / 50) {
        bool counts = t > 200 * S;
        n_all += counts;
        if (t % S == 0)
            n_taken = 0;
        if (!breaker_admits(&b, t))
            continue;
        n_sent += counts;
        bool is_taken = n_taken < capacity;
        n_taken += is_taken;
        breaker_ended(&b, is_taken ? BREAKER_TAKEN : BREAKER_BUSY, t);
    }
    return (double)n_sent / (double)n_all;
}

static void the_throttle_sends_twice_what_is_taken(void **state) {
    (void)state;
    assert_true(share_sent(50) == 1);
    assert_true(share_sent(30) > 0.99);
    double tenth = share_sent(5);
    assert_true(tenth > 0.16 && tenth < 0.26);
}

static void a_server_that_hangs_is_seen_while_it_hangs(void **state) {
    (void)state;
    int n_sent = 0;
    /* No answer at all: sending alone closes the door. */
    for (int i = 0; i < 1000; i++)
        n_sent += breaker_admits(&b, 1000 * S);
    assert_in_range(n_sent, 1, 40);
    /* After two minutes nothing of it is left. */
    assert_true(breaker_admits(&b, 1130 * S));
    /* As many as may be under way are let go at once. */
    breaker_init(&b, 64, 3);
    for (int i = 0; i < 64; i++)
        assert_true(breaker_admits(&b, 1000 * S));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(five_in_a_row_open_it, set_up),
        cmocka_unit_test_setup(half_of_twenty_open_it, set_up),
        cmocka_unit_test_setup(less_than_half_do_not, set_up),
        cmocka_unit_test_setup(what_is_ten_seconds_old_is_forgotten, set_up),
        cmocka_unit_test_setup(one_probe_after_one_to_thirty_seconds, set_up),
        cmocka_unit_test_setup(the_throttle_sends_twice_what_is_taken, set_up),
        cmocka_unit_test_setup(a_server_that_hangs_is_seen_while_it_hangs, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
