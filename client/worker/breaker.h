/* SPDX-License-Identifier: Apache-2.0
 *
 * breaker.h - leaves a server alone that does not answer.
 *
 * Closed, all calls go. It opens when five in a row have failed, or half of at least twenty
 * within ten seconds. Open, none go; after random(1 s, 30 s) it is half open: one probe may
 * go, and its end closes the breaker or opens it anew.
 *
 * Beside it the adaptive throttle: of what a client wants to send, a share of
 * max(0, (requests - 2 accepts) / (requests + 1)) over two minutes is not sent, so that a
 * server that refuses most is asked for about twice what it takes, and no more. A request
 * counts at the moment it is sent, and not when its answer comes: a server that hangs is
 * seen at once. As many as may be under way at the same time are no sign of anything, and
 * are taken off the requests.
 *
 * Time is the caller's, so that tests can have theirs.
 *
 * Threads: one at a time.
 */
#ifndef VIGIL_CLIENT_WORKER_BREAKER_H
#define VIGIL_CLIENT_WORKER_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "client/worker/retry.h"

#define BREAKER_FAILURES 5 /* in a row */
#define BREAKER_MIN_CALLS 20
#define BREAKER_WINDOW 10 /* slices of time that are looked back on */
#define BREAKER_SLICE_NS INT64_C(1000000000)
#define BREAKER_PROBE_MIN_NS INT64_C(1000000000)
#define BREAKER_PROBE_MAX_NS INT64_C(30000000000)
#define BREAKER_THROTTLE_SLICE_NS INT64_C(12000000000)

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

/* Two counts over the newest BREAKER_WINDOW slices. */
struct breaker_window {
    int64_t slice_ns, slice; /* the newest slice's number */
    int64_t all[BREAKER_WINDOW], good[BREAKER_WINDOW];
};

struct breaker {
    enum breaker_state state;
    struct retry_random random;
    struct breaker_window calls, throttle;
    int32_t n_spare; /* requests that are taken off */
    int32_t n_in_a_row;
    int64_t probe_ns; /* when open: from when on a probe may go */
    int64_t n_opened; /* for metrics */
};

/* n_calls: how many may be under way at once. */
void breaker_init(struct breaker *b, int32_t n_calls, uint64_t seed);

/* Whether a call may go now; if so it counts as sent. False with the breaker closed: the
 * throttle held it back. */
bool breaker_admits(struct breaker *b, int64_t now_ns);
/* Whether a probe may go now; it is under way then (half open), and another may not. */
bool breaker_probes(struct breaker *b, int64_t now_ns);
/* A call has ended: the server took it (whatever it said), or refused it for being busy,
 * which is nobody's failure, or failed. */
enum breaker_end { BREAKER_TAKEN, BREAKER_BUSY, BREAKER_FAILED };
void breaker_ended(struct breaker *b, enum breaker_end how, int64_t now_ns);
/* The probe has ended. */
void breaker_probed(struct breaker *b, bool is_good, int64_t now_ns);

/* "closed", "open", "half_open" */
const char *breaker_state_name(enum breaker_state state);

#endif
