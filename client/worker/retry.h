/* SPDX-License-Identifier: Apache-2.0
 *
 * retry.h - when to try again, and how often at most.
 *
 * A wait is random between nothing and a bound that doubles with each try (full jitter), so
 * that many clients that failed together do not come back together. A budget holds what is
 * sent again to a tenth of what is sent: each request earns a tenth of a token, each retry
 * costs a whole one, and none are given at the start; so however long a server is down, the
 * retries of all time are at most a tenth of all requests.
 *
 * Threads: one at a time.
 */
#ifndef VIGIL_CLIENT_WORKER_RETRY_H
#define VIGIL_CLIENT_WORKER_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#define RETRY_BASE_NS INT64_C(100000000)    /* the bound of the first wait */
#define RETRY_CAP_NS INT64_C(20000000000)   /* of all later ones */
#define RETRY_MAX_ATTEMPTS 3                /* of a request, the first included */
#define RETRY_TENTHS 10                     /* of a token: what a retry costs */
#define RETRY_MAX_TENTHS (5 * RETRY_TENTHS) /* no more are saved up */

/* A generator of its own for whoever needs chance; any seed will do. */
struct retry_random {
    uint64_t state;
};
/* A seed that no other process has. */
void retry_random_seed(struct retry_random *r);
uint64_t retry_random_next(struct retry_random *r);
/* In [low, high); low when that is empty. */
int64_t retry_random_between(struct retry_random *r, int64_t low, int64_t high);
/* In [0, 1). */
double retry_random_share(struct retry_random *r);

/* How long to wait after the n-th failure in a row (from 0). */
int64_t retry_wait_ns(struct retry_random *r, int32_t n);

/* Zero-initialise. */
struct retry_budget {
    int64_t tenths;
    int64_t n_requests, n_retries; /* for metrics */
};
/* A request is sent for the first time. */
void retry_budget_request(struct retry_budget *b);
/* Whether one may be sent again; if so, that is paid for. */
bool retry_budget_take(struct retry_budget *b);

#endif
