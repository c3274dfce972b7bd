/* SPDX-License-Identifier: Apache-2.0 */
#include "client/worker/breaker.h"

#include <string.h>

void breaker_init(struct breaker *b, int32_t n_calls, uint64_t seed) {
    *b = (struct breaker){.random.state = seed,
                          .n_spare = n_calls,
                          .calls.slice_ns = BREAKER_SLICE_NS,
                          .throttle.slice_ns = BREAKER_THROTTLE_SLICE_NS};
}

/* Empties the slices that time has passed over; returns where the newest lies. */
static int64_t window_move(struct breaker_window *w, int64_t now_ns) {
    int64_t slice = now_ns / w->slice_ns;
    int64_t first =
        slice - w->slice > BREAKER_WINDOW ? slice - BREAKER_WINDOW : w->slice;
    for (int64_t i = first + 1; i <= slice; i++)
        w->all[i % BREAKER_WINDOW] = w->good[i % BREAKER_WINDOW] = 0;
    if (slice > w->slice)
        w->slice = slice;
    return w->slice % BREAKER_WINDOW;
}

static void window_sum(const struct breaker_window *w, int64_t *all, int64_t *good) {
    *all = *good = 0;
    for (int i = 0; i < BREAKER_WINDOW; i++) {
        *all += w->all[i];
        *good += w->good[i];
    }
}

static void window_forget(struct breaker_window *w) {
    memset(w->all, 0, sizeof w->all);
    memset(w->good, 0, sizeof w->good);
}

static void open_now(struct breaker *b, int64_t now_ns) {
    b->n_opened += b->state == BREAKER_CLOSED;
    b->state = BREAKER_OPEN;
    b->probe_ns = now_ns + retry_random_between(&b->random, BREAKER_PROBE_MIN_NS,
                                                BREAKER_PROBE_MAX_NS);
}

bool breaker_admits(struct breaker *b, int64_t now_ns) {
    int64_t all, good;
    if (b->state != BREAKER_CLOSED)
        return false;
    int64_t at = window_move(&b->throttle, now_ns);
    window_sum(&b->throttle, &all, &good);
    double share = (double)(all - b->n_spare - 2 * good) / (double)(all + 1);
    b->throttle.all[at]++;
    return !(retry_random_share(&b->random) < share);
}

bool breaker_probes(struct breaker *b, int64_t now_ns) {
    if (b->state != BREAKER_OPEN || now_ns < b->probe_ns)
        return false;
    b->state = BREAKER_HALF_OPEN;
    return true;
}

static void count_accepted(struct breaker *b, int64_t now_ns) {
    b->throttle.good[window_move(&b->throttle, now_ns)]++;
}

void breaker_ended(struct breaker *b, enum breaker_end how, int64_t now_ns) {
    int64_t all, good;
    if (how == BREAKER_BUSY)
        return;
    int64_t at = window_move(&b->calls, now_ns);
    b->calls.all[at]++;
    if (how == BREAKER_TAKEN) {
        b->calls.good[at]++;
        b->n_in_a_row = 0;
        count_accepted(b, now_ns);
        return;
    }
    b->n_in_a_row++;
    window_sum(&b->calls, &all, &good);
    if (b->state == BREAKER_CLOSED &&
        (b->n_in_a_row >= BREAKER_FAILURES ||
         (all >= BREAKER_MIN_CALLS && 2 * (all - good) >= all)))
        open_now(b, now_ns);
}

void breaker_probed(struct breaker *b, bool is_good, int64_t now_ns) {
    if (!is_good) {
        open_now(b, now_ns);
        return;
    }
    b->state = BREAKER_CLOSED;
    b->n_in_a_row = 0;
    window_forget(&b->calls);
    b->throttle.all[window_move(&b->throttle, now_ns)]++;
    count_accepted(b, now_ns);
}

const char *breaker_state_name(enum breaker_state state) {
    static const char *const NAMES[] = {"closed", "open", "half_open"};
    return NAMES[state];
}
