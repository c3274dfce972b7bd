/* SPDX-License-Identifier: Apache-2.0
 *
 * batcher_queue.h - what batcher.c (the queue) and batcher_worker.c (the batches) share.
 * Private to these two.
 *
 * The lock is never held while an engine works or while on_done is called. What is marked
 * with a worker is that worker's alone.
 */
#ifndef VIGIL_SERVER_BATCHER_QUEUE_H
#define VIGIL_SERVER_BATCHER_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>

#include "kernels/engines.h"
#include "server/batcher.h"

/* A job's part of a batch. */
struct share {
    struct job *job;
    int32_t first, n; /* sequences */
};

/* A batch from its filling to its end. The arrays grow to the largest engine that was seen,
 * logits and tags by what a bundle's labels need. */
struct slot {
    struct bundle *bundle;
    struct batch batch;
    struct share *shares;
    int32_t n_shares, cap_sequences, cap_tokens;
    int32_t *ids, *offsets;
    float *logits, *tags;
    size_t cap_logits, cap_tags;
    int32_t budget, max_sequences; /* tokens and sequences that may be in it */
    bool is_check;
    int64_t submitted_ns, spent_ns;
    enum status status; /* of submit, then of wait */
    struct error err;
};

struct worker {
    struct batcher *batcher;
    int32_t index; /* of its engine in a bundle */
    pthread_t thread;
    /* The worker's: a ring of batches that were submitted, the oldest first. */
    struct slot slots[ENGINE_MAX_IN_FLIGHT];
    int32_t oldest, n_in_flight;
    int64_t completed_ns; /* the last one */
    bool has_died;        /* its engine is not called any more */
    /* Under the lock: */
    double tokens_per_second;
    bool has_failed;
};

struct batcher {
    struct batcher_options options;
    atomic_int n_live; /* jobs that on_done was not called for */
    atomic_bool has_died;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t has_work;
    struct job *head, *tail;
    int32_t n_jobs;         /* that wait */
    int64_t n_tokens;       /* that wait */
    int64_t n_tokens_ahead; /* of these, what a new job would have to wait for */
    double tokens_per_second;
    bool is_stopping;
    enum fault_kind refusal;
    struct error death;
    int32_t n_workers;
    struct worker workers[ENGINES_MAX];
};

/* ---- batcher.c: the queue, under the lock ---- */

void batcher_queue_add(struct batcher *b, struct job *job);
void batcher_queue_remove(struct batcher *b, struct job *job);
/* Wakes who can take the job. */
void batcher_queue_wake(struct batcher *b, const struct job *job);
/* Takes a job out of the queue. True when nothing of it is running: then it is done. */
bool batcher_queue_cancel(struct batcher *b, struct job *job, enum fault_kind outcome);

/* Without the lock: the job is done. */
void batcher_queue_finish(struct batcher *b, struct job *job);

/* ---- batcher_worker.c ---- */

/* A thread's function: fills batches and runs them until the batcher is stopping. */
void *batcher_worker_run(void *worker);
void batcher_worker_free(struct worker *w);
/* Tokens of a batch on that engine of the bundle. */
int32_t batcher_worker_budget(const struct batcher *b, const struct bundle *bundle,
                              int32_t index);

#endif
