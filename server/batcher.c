/* SPDX-License-Identifier: Apache-2.0
 *
 * batcher.c - a doubly linked queue under one lock. What is done with it is in
 * batcher_worker.c.
 */
#include "server/batcher.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "server/batcher_queue.h"

/* ---- queue, under the lock ---- */

/* What a job that comes behind this one waits for: at most one batch of it. */
static int64_t tokens_ahead(const struct batcher *b, const struct job *job) {
    int32_t budget = batcher_worker_budget(b, job->bundle, 0);
    return job->n_tokens_left < budget ? job->n_tokens_left : budget;
}

void batcher_queue_add(struct batcher *b, struct job *job) {
    job->next = NULL;
    job->previous = b->tail;
    *(b->tail ? &b->tail->next : &b->head) = job;
    b->tail = job;
    job->is_queued = true;
    b->n_jobs++;
    b->n_tokens += job->n_tokens_left;
    b->n_tokens_ahead += tokens_ahead(b, job);
}

void batcher_queue_remove(struct batcher *b, struct job *job) {
    *(job->previous ? &job->previous->next : &b->head) = job->next;
    *(job->next ? &job->next->previous : &b->tail) = job->previous;
    job->next = job->previous = NULL;
    job->is_queued = false;
    b->n_jobs--;
    b->n_tokens -= job->n_tokens_left;
    b->n_tokens_ahead -= tokens_ahead(b, job);
}

void batcher_queue_wake(struct batcher *b, const struct job *job) {
    if (job->only_worker || job->bundle->n_engines < b->n_workers)
        pthread_cond_broadcast(&b->has_work);
    else
        pthread_cond_signal(&b->has_work);
}

static bool is_full(const struct batcher *b) {
    if (b->n_jobs >= b->options.max_jobs)
        return true;
    if (b->options.max_wait_ns <= 0 || b->tokens_per_second <= 0)
        return false;
    double wait_ns = (double)b->n_tokens_ahead / b->tokens_per_second * 1e9;
    return wait_ns > (double)b->options.max_wait_ns;
}

bool batcher_queue_cancel(struct batcher *b, struct job *job, enum fault_kind outcome) {
    if (!job->is_queued)
        return false; /* its last part is running, or it is done */
    batcher_queue_remove(b, job);
    job->outcome = outcome;
    int32_t n_untaken = job->n_sequences - job->n_taken;
    job->n_taken = job->n_sequences;
    job->n_left -= n_untaken;
    return job->n_left == 0;
}

void batcher_queue_finish(struct batcher *b, struct job *job) {
    job->finished_ns = clock_now_ns();
    job->on_done(job);
    atomic_fetch_sub(&b->n_live, 1);
}

/* ---- opening and closing ---- */

static void stop_workers(struct batcher *b, int32_t n) {
    pthread_mutex_lock(&b->lock);
    b->is_stopping = true;
    pthread_cond_broadcast(&b->has_work);
    pthread_mutex_unlock(&b->lock);
    for (int32_t i = 0; i < n; i++)
        pthread_join(b->workers[i].thread, NULL);
}

static bool start_worker(struct batcher *b, int32_t index) {
    char name[16];
    struct worker *w = &b->workers[index];
    w->batcher = b;
    w->index = index;
    if (pthread_create(&w->thread, NULL, batcher_worker_run, w) != 0)
        return false;
    snprintf(name, sizeof name, index ? "batcher-%d" : "batcher", index);
    pthread_setname_np(w->thread, name);
    return true;
}

static void destroy(struct batcher *b) {
    for (int32_t i = 0; i < b->n_workers; i++)
        batcher_worker_free(&b->workers[i]);
    pthread_cond_destroy(&b->has_work);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

enum status batcher_open(const struct batcher_options *options, struct batcher **out,
                         struct error *err) {
    *out = NULL;
    struct batcher *b = calloc(1, sizeof *b);
    if (!b)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a queue");
    b->options = *options;
    b->n_workers = options->n_workers > 0 ? options->n_workers : 1;
    if (b->n_workers > ENGINES_MAX)
        b->n_workers = ENGINES_MAX;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->has_work, NULL);
    for (int32_t i = 0; i < b->n_workers; i++)
        if (!start_worker(b, i)) {
            stop_workers(b, i);
            destroy(b);
            return error_set(err, STATUS_IO, "cannot start the batcher's thread");
        }
    *out = b;
    return STATUS_OK;
}

void batcher_close(struct batcher *b) {
    if (!b)
        return;
    stop_workers(b, b->n_workers);
    destroy(b);
}

/* ---- for the other threads ---- */

bool batcher_is_full(struct batcher *b) {
    pthread_mutex_lock(&b->lock);
    bool answer = is_full(b);
    pthread_mutex_unlock(&b->lock);
    return answer;
}

bool batcher_submit(struct batcher *b, struct job *job) {
    job->outcome = FAULT_NONE;
    job->n_taken = 0;
    job->n_left = job->n_sequences;
    job->n_tokens_left = job->n_tokens;
    job->submitted_ns = clock_now_ns();
    job->started_ns = job->finished_ns = 0;
    pthread_mutex_lock(&b->lock);
    enum fault_kind refusal = b->refusal;
    if (refusal == FAULT_NONE && !job->is_check && is_full(b))
        refusal = FAULT_OVERLOADED;
    if (refusal == FAULT_NONE) {
        atomic_fetch_add(&b->n_live, 1);
        batcher_queue_add(b, job);
        batcher_queue_wake(b, job);
    } else {
        job->outcome = refusal;
    }
    pthread_mutex_unlock(&b->lock);
    return refusal == FAULT_NONE;
}

void batcher_cancel(struct batcher *b, struct job *job, enum fault_kind outcome) {
    pthread_mutex_lock(&b->lock);
    bool is_done = batcher_queue_cancel(b, job, outcome);
    pthread_mutex_unlock(&b->lock);
    if (is_done)
        batcher_queue_finish(b, job);
}

/* Takes the first job that `now_ns` or `everything` ends out of the queue; NULL: none. */
static struct job *end_one(struct batcher *b, int64_t now_ns, bool everything,
                           enum fault_kind outcome) {
    struct job *found = NULL;
    pthread_mutex_lock(&b->lock);
    for (struct job *job = b->head, *next; job && !found; job = next) {
        next = job->next;
        if ((everything || job->deadline_ns <= now_ns) &&
            batcher_queue_cancel(b, job, outcome))
            found = job;
    }
    pthread_mutex_unlock(&b->lock);
    return found;
}

void batcher_expire(struct batcher *b, int64_t now_ns) {
    struct job *job;
    while ((job = end_one(b, now_ns, false, FAULT_TIMEOUT)))
        batcher_queue_finish(b, job);
}

void batcher_fail_all(struct batcher *b, enum fault_kind outcome) {
    pthread_mutex_lock(&b->lock);
    b->refusal = outcome;
    pthread_mutex_unlock(&b->lock);
    struct job *job;
    while ((job = end_one(b, 0, true, outcome)))
        batcher_queue_finish(b, job);
}

void batcher_die(struct batcher *b, const struct error *why) {
    pthread_mutex_lock(&b->lock);
    if (!atomic_load(&b->has_died))
        b->death = *why;
    atomic_store(&b->has_died, true);
    b->refusal = FAULT_ENGINE;
    pthread_mutex_unlock(&b->lock);
    batcher_fail_all(b, FAULT_ENGINE);
}

bool batcher_has_died(struct batcher *b, struct error *why) {
    if (!atomic_load(&b->has_died))
        return false;
    pthread_mutex_lock(&b->lock);
    if (why)
        *why = b->death;
    pthread_mutex_unlock(&b->lock);
    return true;
}

struct batcher_state batcher_state(struct batcher *b) {
    pthread_mutex_lock(&b->lock);
    struct batcher_state state = {.n_jobs = atomic_load(&b->n_live),
                                  .n_tokens = b->n_tokens,
                                  .tokens_per_second = b->tokens_per_second,
                                  .has_failed = atomic_load(&b->has_died)};
    for (int32_t i = 0; i < b->n_workers; i++)
        state.has_failed |= b->workers[i].has_failed;
    pthread_mutex_unlock(&b->lock);
    return state;
}
