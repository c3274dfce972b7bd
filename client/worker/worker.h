/* SPDX-License-Identifier: Apache-2.0
 *
 * worker.h - the loop of `vigil enrich`: claims posts, has them classified, settles them.
 *
 * One thread (the caller of worker_run) has the work: it settles all that has ended in one
 * transaction, claims as much as keeps the callers busy, and extends what lasts long. Each
 * caller is a thread with a connection of its own that sends what schedule.h gives it. So the
 * store's transactions run beside the calls, and their number falls as the load rises.
 *
 * A store or queue that fails for a while (locked, full, away) is tried again until it works;
 * meanwhile nothing new is claimed, and what was answered is kept.
 */
#ifndef VIGIL_CLIENT_WORKER_WORKER_H
#define VIGIL_CLIENT_WORKER_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/enrich_metrics.h"
#include "client/worker/outcome.h"
#include "client/worker/schedule.h"
#include "client/worker/work.h"

/* Asks the server: classifier_ask, or a test's own. */
struct worker_caller {
    void *context;
    void (*ask)(void *context, const struct view *texts, size_t n, int64_t timeout_ns,
                struct arena *arena, struct classifier_answer *answer);
};

struct worker_options {
    struct work *work;
    const struct worker_caller *callers;
    int32_t n_callers;  /* 1 to SCHEDULE_MAX_CALLERS */
    size_t batch;       /* posts of a request, 1 to CLASSIFIER_MAX_TEXTS */
    size_t batch_bytes; /* of its texts, unless one alone is longer */
    int64_t timeout_ns; /* of a request */
    int64_t lease_ns;
    struct outcome_rules rules;
    bool is_once;  /* end when the queue is empty */
    int stop_fd;   /* readable: stop; -1 */
    uint64_t seed; /* of all that is random */
    struct enrich_metrics *metrics;
    /* Now and then, on worker_run's thread; NULL. */
    void (*on_progress)(void *context, int64_t n_settled);
    void *progress_context;
};

struct worker_summary {
    int64_t n_done, n_positive, n_review, n_negative;
    int64_t n_retried, n_given_up, n_released, n_lost;
    int64_t n_requests, n_retries;
};

/* Runs until stop_fd or, with is_once, the end of the queue. STATUS_OK then; otherwise what
 * ended it: the server denies us, or the store is broken. *out is filled in any case. */
enum status worker_run(const struct worker_options *options, struct worker_summary *out,
                       struct error *err);

#endif
