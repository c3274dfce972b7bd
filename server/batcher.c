/* SPDX-License-Identifier: Apache-2.0
 *
 * batcher.c - a doubly linked queue under one lock; the lock is never held while the engine
 * runs or while on_done is called.
 */
#include "server/batcher.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* How much a batch moves the estimate of the engine's speed. */
#define SPEED_WEIGHT 0.1

/* A job's part of the batch that is being computed. */
struct share {
    struct job *job;
    int32_t first, n; /* sequences */
};

struct batcher {
    struct batcher_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t has_work;
    struct job *head, *tail;
    int32_t n_jobs,
        n_running;    /* that wait; that the running batch holds the last part of */
    int64_t n_tokens; /* that wait */
    int64_t n_tokens_ahead; /* of these, what a new job would have to wait for */
    double tokens_per_second;
    bool is_stopping, has_failed;
    enum fault_kind refusal;
    /* The batch: arrays grow to the largest engine that was seen. */
    struct bundle *bundle;
    struct share *shares;
    int32_t n_shares, cap_sequences, cap_tokens;
    int32_t *ids, *offsets;
    float *logits, *tags;
    size_t cap_logits, cap_tags;
    struct batch batch;
};

/* ---- queue, under the lock ---- */

static int32_t budget_of(const struct batcher *b, const struct bundle *bundle) {
    int32_t most = bundle->engine->info.max_tokens;
    int32_t wanted = b->options.batch_tokens;
    if (wanted < bundle->config.max_positions)
        wanted = wanted > 0 ? bundle->config.max_positions : most;
    return wanted < most ? wanted : most;
}

/* What a job that comes behind this one waits for: at most one batch of it. */
static int64_t tokens_ahead(const struct batcher *b, const struct job *job) {
    int32_t budget = budget_of(b, job->bundle);
    return job->n_tokens_left < budget ? job->n_tokens_left : budget;
}

static void enqueue(struct batcher *b, struct job *job) {
    job->next = NULL;
    job->previous = b->tail;
    *(b->tail ? &b->tail->next : &b->head) = job;
    b->tail = job;
    job->is_queued = true;
    b->n_jobs++;
    b->n_tokens += job->n_tokens_left;
    b->n_tokens_ahead += tokens_ahead(b, job);
}

static void dequeue(struct batcher *b, struct job *job) {
    *(job->previous ? &job->previous->next : &b->head) = job->next;
    *(job->next ? &job->next->previous : &b->tail) = job->previous;
    job->next = job->previous = NULL;
    job->is_queued = false;
    b->n_jobs--;
    b->n_tokens -= job->n_tokens_left;
    b->n_tokens_ahead -= tokens_ahead(b, job);
}

static bool is_full(const struct batcher *b) {
    if (b->n_jobs >= b->options.max_jobs)
        return true;
    if (b->options.max_wait_ns <= 0 || b->tokens_per_second <= 0)
        return false;
    double wait_ns = (double)b->n_tokens_ahead / b->tokens_per_second * 1e9;
    return wait_ns > (double)b->options.max_wait_ns;
}

/* Takes the job out of the queue. True when nothing of it is running: then it is done. */
static bool cancel(struct batcher *b, struct job *job, enum fault_kind outcome) {
    if (!job->is_queued)
        return false; /* its last part is running, or it is done */
    dequeue(b, job);
    job->outcome = outcome;
    int32_t n_untaken = job->n_sequences - job->n_taken;
    job->n_taken = job->n_sequences;
    job->n_left -= n_untaken;
    return job->n_left == 0;
}

static void finish(struct job *job) {
    job->finished_ns = clock_now_ns();
    job->on_done(job);
}

/* ---- batches ---- */

static bool has_room(const struct batcher *b, const struct sequence *s,
                     int32_t budget) {
    return b->batch.n_sequences < b->cap_sequences &&
           batch_n_tokens(&b->batch) + s->n_tokens <= budget;
}

/* Moves sequences of the job into the batch, as many as fit. */
static void take(struct batcher *b, struct job *job, int32_t budget, int64_t now) {
    struct share share = {.job = job, .first = job->n_taken};
    while (job->n_taken < job->n_sequences) {
        const struct sequence *s = &job->sequences[job->n_taken];
        if (!has_room(b, s, budget))
            break;
        int32_t at = batch_n_tokens(&b->batch);
        memcpy(b->ids + at, s->ids, (size_t)s->n_tokens * sizeof *b->ids);
        b->offsets[++b->batch.n_sequences] = at + s->n_tokens;
        job->n_taken++;
        job->n_tokens_left -= s->n_tokens;
        share.n++;
    }
    if (!job->started_ns) {
        job->started_ns = now;
        metrics_queue_wait(b->options.metrics, now - job->submitted_ns);
    }
    b->shares[b->n_shares++] = share;
}

/* Fills the batch from the queue's head. Jobs that still have sequences go to its tail. */
static void fill_batch(struct batcher *b) {
    struct job *first = b->head;
    int32_t budget = budget_of(b, first->bundle);
    int64_t now = clock_now_ns();
    b->bundle = first->bundle;
    b->batch = (struct batch){
        .ids = b->ids, .offsets = b->offsets, .wants_tags = first->wants_tags};
    b->offsets[0] = 0;
    b->n_shares = 0;
    struct job *last = b->tail;
    for (struct job *job = first, *next; job; job = next) {
        next = job == last ? NULL : job->next;
        if (job->bundle != b->bundle || job->wants_tags != b->batch.wants_tags)
            continue;
        /* What does not fit keeps its turn: shorter ones must not pass it for ever. */
        if (!has_room(b, &job->sequences[job->n_taken], budget))
            break;
        dequeue(b, job);
        take(b, job, budget, now);
        if (job->n_taken < job->n_sequences) {
            enqueue(b, job);
            break;
        }
    }
}

/* Room for the largest batch of the bundle's engine. */
static bool make_room(struct batcher *b, const struct bundle *bundle) {
    const struct engine_info *info = &bundle->engine->info;
    size_t n_sequences = (size_t)info->max_sequences,
           n_tokens = (size_t)info->max_tokens;
    size_t n_logits = n_sequences * (size_t)bundle->config.n_labels;
    size_t n_tags = n_tokens * (size_t)bundle->config.n_tag_labels;
    if (info->max_sequences > b->cap_sequences || info->max_tokens > b->cap_tokens) {
        free(b->ids);
        free(b->offsets);
        free(b->shares);
        b->ids = calloc(n_tokens, sizeof *b->ids);
        b->offsets = calloc(n_sequences + 1, sizeof *b->offsets);
        b->shares = calloc(n_sequences, sizeof *b->shares);
        b->cap_sequences = b->ids && b->offsets && b->shares ? info->max_sequences : 0;
        b->cap_tokens = b->cap_sequences ? info->max_tokens : 0;
    }
    if (n_logits > b->cap_logits) {
        free(b->logits);
        b->logits = calloc(n_logits, sizeof *b->logits);
        b->cap_logits = b->logits ? n_logits : 0;
    }
    if (n_tags > b->cap_tags) {
        free(b->tags);
        b->tags = calloc(n_tags, sizeof *b->tags);
        b->cap_tags = b->tags ? n_tags : 0;
    }
    return b->cap_sequences && b->cap_logits >= n_logits && b->cap_tags >= n_tags;
}

/* Copies what the engine wrote to where the jobs want it. */
static void scatter(struct batcher *b) {
    size_t n_labels = (size_t)b->bundle->config.n_labels;
    size_t n_tag_labels = (size_t)b->bundle->config.n_tag_labels;
    int32_t row = 0;
    for (int32_t i = 0; i < b->n_shares; i++) {
        const struct share *share = &b->shares[i];
        for (int32_t k = 0; k < share->n; k++, row++) {
            const struct sequence *s = &share->job->sequences[share->first + k];
            memcpy(s->logits, b->logits + (size_t)row * n_labels,
                   n_labels * sizeof *s->logits);
            if (s->tags)
                memcpy(s->tags, b->tags + (size_t)b->offsets[row] * n_tag_labels,
                       (size_t)s->n_tokens * n_tag_labels * sizeof *s->tags);
        }
    }
}

static void run_batch(struct batcher *b) {
    struct error err = {0};
    int32_t n_tokens = batch_n_tokens(&b->batch);
    int64_t start = clock_now_ns();
    enum status status = engine_run(b->bundle->engine, &b->batch, b->logits,
                                    b->batch.wants_tags ? b->tags : NULL, &err);
    int64_t spent_ns = clock_now_ns() - start;
    if (status == STATUS_OK) {
        scatter(b);
        metrics_batch(b->options.metrics, b->batch.n_sequences, n_tokens, spent_ns);
    } else {
        log_message(LOG_LEVEL_ERROR, "engine_failed", "%s", err.message);
    }

    pthread_mutex_lock(&b->lock);
    b->has_failed = status != STATUS_OK;
    double speed = n_tokens / ((double)spent_ns * 1e-9);
    b->tokens_per_second =
        b->tokens_per_second > 0
            ? b->tokens_per_second * (1 - SPEED_WEIGHT) + speed * SPEED_WEIGHT
            : speed;
    int32_t n_done = 0;
    for (int32_t i = 0; i < b->n_shares; i++) {
        struct job *job = b->shares[i].job;
        if (status != STATUS_OK) {
            job->n_left -= b->shares[i].n;
            (void)cancel(b, job, FAULT_ENGINE);
            job->outcome = FAULT_ENGINE;
        } else {
            job->n_left -= b->shares[i].n;
        }
        if (job->n_left == 0)
            b->shares[n_done++].job = job;
    }
    pthread_mutex_unlock(&b->lock);
    for (int32_t i = 0; i < n_done; i++)
        finish(b->shares[i].job);
}

static void *serve(void *argument) {
    struct batcher *b = argument;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->head && !b->is_stopping)
            pthread_cond_wait(&b->has_work, &b->lock);
        if (b->is_stopping)
            break;
        struct job *first = b->head;
        if (!make_room(b, first->bundle)) {
            bool is_done = cancel(b, first, FAULT_ENGINE);
            pthread_mutex_unlock(&b->lock);
            if (is_done)
                finish(first);
            pthread_mutex_lock(&b->lock);
            continue;
        }
        fill_batch(b);
        b->n_running = b->n_shares;
        pthread_mutex_unlock(&b->lock);
        run_batch(b);
        pthread_mutex_lock(&b->lock);
        b->n_running = 0; /* only now: on_done was called for all */
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* ---- for the other threads ---- */

enum status batcher_open(const struct batcher_options *options, struct batcher **out,
                         struct error *err) {
    *out = NULL;
    struct batcher *b = calloc(1, sizeof *b);
    if (!b)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a queue");
    b->options = *options;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->has_work, NULL);
    if (pthread_create(&b->thread, NULL, serve, b) != 0) {
        pthread_cond_destroy(&b->has_work);
        pthread_mutex_destroy(&b->lock);
        free(b);
        return error_set(err, STATUS_IO, "cannot start the batcher's thread");
    }
    pthread_setname_np(b->thread, "batcher");
    *out = b;
    return STATUS_OK;
}

void batcher_close(struct batcher *b) {
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->is_stopping = true;
    pthread_cond_signal(&b->has_work);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
    pthread_cond_destroy(&b->has_work);
    pthread_mutex_destroy(&b->lock);
    free(b->ids);
    free(b->offsets);
    free(b->shares);
    free(b->logits);
    free(b->tags);
    free(b);
}

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
    bool is_taken = !is_full(b) && b->refusal == FAULT_NONE;
    if (is_taken) {
        enqueue(b, job);
        pthread_cond_signal(&b->has_work);
    }
    pthread_mutex_unlock(&b->lock);
    return is_taken;
}

void batcher_cancel(struct batcher *b, struct job *job, enum fault_kind outcome) {
    pthread_mutex_lock(&b->lock);
    bool is_done = cancel(b, job, outcome);
    pthread_mutex_unlock(&b->lock);
    if (is_done)
        finish(job);
}

/* Takes the first job that `now_ns` or `everything` ends out of the queue; NULL: none. */
static struct job *end_one(struct batcher *b, int64_t now_ns, bool everything,
                           enum fault_kind outcome) {
    struct job *found = NULL;
    pthread_mutex_lock(&b->lock);
    for (struct job *job = b->head, *next; job && !found; job = next) {
        next = job->next;
        if ((everything || job->deadline_ns <= now_ns) && cancel(b, job, outcome))
            found = job;
    }
    pthread_mutex_unlock(&b->lock);
    return found;
}

void batcher_expire(struct batcher *b, int64_t now_ns) {
    struct job *job;
    while ((job = end_one(b, now_ns, false, FAULT_TIMEOUT)))
        finish(job);
}

void batcher_fail_all(struct batcher *b, enum fault_kind outcome) {
    pthread_mutex_lock(&b->lock);
    b->refusal = outcome;
    pthread_mutex_unlock(&b->lock);
    struct job *job;
    while ((job = end_one(b, 0, true, outcome)))
        finish(job);
}

struct batcher_state batcher_state(struct batcher *b) {
    pthread_mutex_lock(&b->lock);
    struct batcher_state state = {.n_jobs = b->n_jobs + b->n_running,
                                  .n_tokens = b->n_tokens,
                                  .tokens_per_second = b->tokens_per_second,
                                  .has_failed = b->has_failed};
    pthread_mutex_unlock(&b->lock);
    return state;
}
