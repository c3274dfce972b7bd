/* SPDX-License-Identifier: Apache-2.0
 *
 * x_backoff.c - X's table of waits.
 */
#include "client/sources/x_backoff.h"

#include <stdlib.h>

#include "base/clock.h"

#define MS INT64_C(1000000)
#define NETWORK_STEP_NS (250 * MS)
#define NETWORK_MAX_NS (16 * CLOCK_NS_PER_SECOND)
#define HTTP_FIRST_NS (5 * CLOCK_NS_PER_SECOND)
#define HTTP_MAX_NS (320 * CLOCK_NS_PER_SECOND)
#define RATE_FIRST_NS (60 * CLOCK_NS_PER_SECOND)
#define RATE_MAX_NS (900 * CLOCK_NS_PER_SECOND)
/* A reset further away than this is a wrong clock, ours or theirs. */
#define RESET_MAX_NS (3600 * CLOCK_NS_PER_SECOND)

void x_backoff_steady(struct x_backoff *b) {
    for (int i = 0; i < N_X_FAILURES; i++)
        b->n_failures[i] = 0;
    b->may_go_at_once = 1;
}

/* first_ns, doubled n times, at most max_ns. */
static int64_t doubled(int64_t first_ns, uint32_t n, int64_t max_ns) {
    int64_t wait_ns = first_ns;
    while (n-- > 0 && wait_ns < max_ns)
        wait_ns *= 2;
    return wait_ns < max_ns ? wait_ns : max_ns;
}

/* splitmix64: between 0 and below - 1. */
static int64_t jitter_ns(struct x_backoff *b, int64_t below) {
    uint64_t z = (b->seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return below > 0 ? (int64_t)(z % (uint64_t)below) : 0;
}

int64_t x_backoff_next(struct x_backoff *b, enum x_failure failure, int64_t reset_s,
                       int64_t retry_after_ns, int64_t wall_ns) {
    uint32_t n = b->n_failures[failure]++;
    int64_t wait_ns = 0;
    int at_once = b->may_go_at_once;
    b->may_go_at_once = 0;
    if (n == UINT32_MAX)
        b->n_failures[failure] = n;
    switch (failure) {
    case X_NETWORK:
        if (at_once) {
            b->n_failures[failure] = 0; /* the steps begin behind this one */
            return 0;
        }
        wait_ns = n < 64 ? NETWORK_STEP_NS * (n + 1) : NETWORK_MAX_NS;
        break;
    case X_HTTP_ERROR:
        wait_ns = doubled(HTTP_FIRST_NS, n, HTTP_MAX_NS);
        break;
    default:
        wait_ns = doubled(RATE_FIRST_NS, n, RATE_MAX_NS);
        break;
    }
    if (failure == X_RATE_LIMIT && reset_s > 0) {
        int64_t until_ns =
            (reset_s - wall_ns / CLOCK_NS_PER_SECOND) * CLOCK_NS_PER_SECOND;
        if (until_ns > wait_ns && until_ns <= RESET_MAX_NS)
            wait_ns = until_ns;
    }
    if (failure != X_NETWORK && retry_after_ns > wait_ns)
        wait_ns = retry_after_ns < RESET_MAX_NS ? retry_after_ns : RESET_MAX_NS;
    wait_ns += jitter_ns(b, wait_ns / 10);
    if (failure == X_NETWORK && wait_ns > NETWORK_MAX_NS)
        wait_ns = NETWORK_MAX_NS;
    return wait_ns;
}

double x_backoff_time_scale(void) {
    const char *text = getenv("VIGIL_TEST_TIME_SCALE");
    char *end = NULL;
    double scale = text ? strtod(text, &end) : 1;
    return text && end != text && *end == 0 && scale > 0 && scale <= 1 ? scale : 1;
}
