/* SPDX-License-Identifier: Apache-2.0
 *
 * retry.c - the generator is SplitMix64: a step is an addition, and every seed is good.
 */
#include "client/worker/retry.h"

#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"

void retry_random_seed(struct retry_random *r) {
    if (getrandom(&r->state, sizeof r->state, GRND_NONBLOCK) != sizeof r->state)
        r->state = (uint64_t)clock_wall_ns() ^ ((uint64_t)getpid() << 40);
}

uint64_t retry_random_next(struct retry_random *r) {
    uint64_t x = r->state += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

double retry_random_share(struct retry_random *r) {
    return (double)(retry_random_next(r) >> 11) * 0x1p-53;
}

int64_t retry_random_between(struct retry_random *r, int64_t low, int64_t high) {
    if (high <= low)
        return low;
    return low + (int64_t)(retry_random_share(r) * (double)(high - low));
}

int64_t retry_wait_ns(struct retry_random *r, int32_t n) {
    int64_t bound = RETRY_BASE_NS;
    for (int32_t i = 0; i < n && bound < RETRY_CAP_NS; i++)
        bound *= 2;
    return retry_random_between(r, 0, bound < RETRY_CAP_NS ? bound : RETRY_CAP_NS);
}

void retry_budget_request(struct retry_budget *b) {
    b->n_requests++;
    if (b->tenths < RETRY_MAX_TENTHS)
        b->tenths++;
}

bool retry_budget_take(struct retry_budget *b) {
    if (b->tenths < RETRY_TENTHS)
        return false;
    b->tenths -= RETRY_TENTHS;
    b->n_retries++;
    return true;
}
