/* SPDX-License-Identifier: Apache-2.0
 *
 * batcher_worker.c - fills batches from the queue, gives them to an engine, fetches what it
 * says, ends the jobs. One worker a device.
 *
 *   fill ─► submit ─► [fill ─► submit] ─► wait for the oldest ─► [fill ─► submit] ─► finish
 *
 * An engine that computes on the calling thread (info.n_in_flight is 1) does so in wait, and
 * what is in brackets does not happen. A device is never left without work while there is
 * some: the next batch is on it before the answers of the last are handed out.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/batcher_queue.h"

/* How much a batch moves the estimate of the engine's speed. */
#define SPEED_WEIGHT 0.1

static struct engine *engine_of(const struct worker *w, const struct bundle *bundle) {
    return bundle->engines[w->index];
}

int32_t batcher_worker_budget(const struct batcher *b, const struct bundle *bundle,
                              int32_t index) {
    int32_t most = bundle->engines[index]->info.max_tokens;
    int32_t wanted = b->options.batch_tokens;
    if (wanted < bundle->config.max_positions)
        wanted = wanted > 0 ? bundle->config.max_positions : most;
    return wanted < most ? wanted : most;
}

/* ---- filling, under the lock ---- */

static bool may_take(const struct worker *w, const struct job *job) {
    return w->index < job->bundle->n_engines &&
           (!job->only_worker || job->only_worker == w->index + 1);
}

/* The first job that this worker can take; NULL: none. */
static struct job *first_job(const struct worker *w) {
    struct job *job = w->batcher->head;
    while (job && !may_take(w, job))
        job = job->next;
    return job;
}

static bool has_room(const struct slot *slot, const struct sequence *s) {
    return slot->batch.n_sequences < slot->max_sequences &&
           batch_n_tokens(&slot->batch) + s->n_tokens <= slot->budget;
}

/* Moves sequences of the job into the batch, as many as fit. */
static void take(const struct batcher *b, struct slot *slot, struct job *job,
                 int64_t now) {
    struct share share = {.job = job, .first = job->n_taken};
    while (job->n_taken < job->n_sequences) {
        const struct sequence *s = &job->sequences[job->n_taken];
        if (!has_room(slot, s))
            break;
        int32_t at = batch_n_tokens(&slot->batch);
        memcpy(slot->ids + at, s->ids, (size_t)s->n_tokens * sizeof *slot->ids);
        slot->offsets[++slot->batch.n_sequences] = at + s->n_tokens;
        job->n_taken++;
        job->n_tokens_left -= s->n_tokens;
        share.n++;
    }
    if (!job->started_ns) {
        job->started_ns = now;
        if (!job->is_check)
            metrics_queue_wait(b->options.metrics, now - job->submitted_ns);
    }
    slot->shares[slot->n_shares++] = share;
}

/* Fills the batch from `first` on. A job that still has sequences goes to the tail. */
static void fill_slot(struct worker *w, struct slot *slot, struct job *first) {
    struct batcher *b = w->batcher;
    int64_t now = clock_now_ns();
    slot->bundle = first->bundle;
    slot->budget = batcher_worker_budget(b, first->bundle, w->index);
    slot->max_sequences = engine_of(w, first->bundle)->info.max_sequences;
    slot->is_check = first->is_check;
    slot->batch = (struct batch){
        .ids = slot->ids, .offsets = slot->offsets, .wants_tags = first->wants_tags};
    slot->offsets[0] = 0;
    slot->n_shares = 0;
    struct job *last = slot->is_check ? first : b->tail;
    for (struct job *job = first, *next; job; job = next) {
        next = job == last ? NULL : job->next;
        if (job->bundle != slot->bundle || job->wants_tags != slot->batch.wants_tags ||
            job->is_check != slot->is_check || !may_take(w, job))
            continue;
        /* What does not fit keeps its turn: shorter ones must not pass it for ever. */
        if (!has_room(slot, &job->sequences[job->n_taken]))
            break;
        batcher_queue_remove(b, job);
        take(b, slot, job, now);
        if (job->n_taken < job->n_sequences) {
            batcher_queue_add(b, job);
            break;
        }
    }
}

/* Room for the largest batch of the bundle's engine. */
static bool make_room(const struct worker *w, struct slot *slot,
                      const struct bundle *bundle) {
    const struct engine_info *info = &engine_of(w, bundle)->info;
    size_t n_sequences = (size_t)info->max_sequences,
           n_tokens = (size_t)info->max_tokens;
    size_t n_logits = n_sequences * (size_t)bundle->config.n_labels;
    size_t n_tags = n_tokens * (size_t)bundle->config.n_tag_labels;
    if (info->max_sequences > slot->cap_sequences ||
        info->max_tokens > slot->cap_tokens) {
        free(slot->ids);
        free(slot->offsets);
        free(slot->shares);
        slot->ids = calloc(n_tokens, sizeof *slot->ids);
        slot->offsets = calloc(n_sequences + 1, sizeof *slot->offsets);
        slot->shares = calloc(n_sequences, sizeof *slot->shares);
        slot->cap_sequences =
            slot->ids && slot->offsets && slot->shares ? info->max_sequences : 0;
        slot->cap_tokens = slot->cap_sequences ? info->max_tokens : 0;
    }
    if (n_logits > slot->cap_logits) {
        free(slot->logits);
        slot->logits = calloc(n_logits, sizeof *slot->logits);
        slot->cap_logits = slot->logits ? n_logits : 0;
    }
    if (n_tags > slot->cap_tags) {
        free(slot->tags);
        slot->tags = calloc(n_tags, sizeof *slot->tags);
        slot->cap_tags = slot->tags ? n_tags : 0;
    }
    return slot->cap_sequences && slot->cap_logits >= n_logits &&
           slot->cap_tags >= n_tags;
}

/* Where the next batch goes. */
static struct slot *free_slot(struct worker *w) {
    return &w->slots[(w->oldest + w->n_in_flight) % ENGINE_MAX_IN_FLIGHT];
}

/* Fills the next slot, having waited for work or not. NULL: there is nothing that the engine
 * could be given now, or the batcher is stopping. Takes the lock. */
static struct slot *next_batch(struct worker *w, bool waits) {
    struct batcher *b = w->batcher;
    struct slot *slot = free_slot(w);
    pthread_mutex_lock(&b->lock);
    for (;;) {
        struct job *first = first_job(w);
        while (!first && waits && !b->is_stopping) {
            pthread_cond_wait(&b->has_work, &b->lock);
            first = first_job(w);
        }
        if (!first || b->is_stopping || w->has_died) {
            slot = NULL;
            break;
        }
        if (make_room(w, slot, first->bundle)) {
            fill_slot(w, slot, first);
            /* What is left over is for who has nothing to do. */
            if (b->head && b->n_workers > 1)
                batcher_queue_wake(b, b->head);
            break;
        }
        bool is_done = batcher_queue_cancel(b, first, FAULT_ENGINE);
        pthread_mutex_unlock(&b->lock);
        if (is_done)
            batcher_queue_finish(b, first);
        pthread_mutex_lock(&b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return slot;
}

/* ---- running ---- */

/* After STATUS_DEVICE nobody is answered any more, and the engine is left alone. */
static void note_status(struct worker *w, struct slot *slot, enum status status) {
    slot->status = status;
    if (status != STATUS_DEVICE)
        return;
    w->has_died = true;
    batcher_die(w->batcher, &slot->err);
}

/* Gives the engine its next batch, if there is one. */
static bool start(struct worker *w, bool waits) {
    struct slot *slot = next_batch(w, waits);
    if (!slot)
        return false;
    w->n_in_flight++;
    slot->err = (struct error){0};
    slot->submitted_ns = clock_now_ns();
    note_status(w, slot,
                engine_submit(engine_of(w, slot->bundle), &slot->batch, &slot->err));
    return true;
}

/* Waits for the oldest batch. */
static struct slot *complete(struct worker *w) {
    struct slot *slot = &w->slots[w->oldest];
    w->oldest = (w->oldest + 1) % ENGINE_MAX_IN_FLIGHT;
    w->n_in_flight--;
    if (w->has_died)
        slot->status = STATUS_DEVICE;
    if (slot->status == STATUS_OK)
        note_status(w, slot,
                    engine_wait(engine_of(w, slot->bundle), slot->logits,
                                slot->batch.wants_tags ? slot->tags : NULL,
                                &slot->err));
    /* While one batch was ahead of it, this one was not being computed. */
    int64_t now = clock_now_ns(), began = slot->submitted_ns;
    if (w->completed_ns > began)
        began = w->completed_ns;
    slot->spent_ns = now > began ? now - began : 1;
    w->completed_ns = now;
    return slot;
}

/* ---- finishing ---- */

/* Copies what the engine wrote to where the jobs want it. */
static void scatter(const struct slot *slot) {
    size_t n_labels = (size_t)slot->bundle->config.n_labels;
    size_t n_tag_labels = (size_t)slot->bundle->config.n_tag_labels;
    int32_t row = 0;
    for (int32_t i = 0; i < slot->n_shares; i++) {
        const struct share *share = &slot->shares[i];
        for (int32_t k = 0; k < share->n; k++, row++) {
            const struct sequence *s = &share->job->sequences[share->first + k];
            memcpy(s->logits, slot->logits + (size_t)row * n_labels,
                   n_labels * sizeof *s->logits);
            if (s->tags)
                memcpy(s->tags, slot->tags + (size_t)slot->offsets[row] * n_tag_labels,
                       (size_t)s->n_tokens * n_tag_labels * sizeof *s->tags);
        }
    }
}

/* Under the lock. What is asked is how fast the engine is when it is loaded: a batch that was
 * quick counts in full, one that was slow as much as it was full, since a device takes the
 * same time for one token and for hundreds. */
static void note_speed(struct worker *w, const struct slot *slot) {
    struct batcher *b = w->batcher;
    int32_t n_tokens = batch_n_tokens(&slot->batch);
    double speed = n_tokens / ((double)slot->spent_ns * 1e-9);
    double weight = SPEED_WEIGHT;
    if (speed < w->tokens_per_second)
        weight *= (double)n_tokens / slot->budget;
    if (w->tokens_per_second > 0)
        w->tokens_per_second += (speed - w->tokens_per_second) * weight;
    else
        w->tokens_per_second = speed > slot->bundle->tokens_per_second
                                   ? speed
                                   : slot->bundle->tokens_per_second;
    b->tokens_per_second = 0;
    for (int32_t i = 0; i < b->n_workers; i++)
        b->tokens_per_second += b->workers[i].tokens_per_second;
}

/* Under the lock: takes the batch out of what its jobs wait for. Those that are done are the
 * first shares then. */
static int32_t settle(struct batcher *b, struct slot *slot, bool is_good) {
    int32_t n_done = 0;
    for (int32_t i = 0; i < slot->n_shares; i++) {
        struct job *job = slot->shares[i].job;
        job->n_left -= slot->shares[i].n;
        if (!is_good) {
            (void)batcher_queue_cancel(b, job, FAULT_ENGINE);
            job->outcome = FAULT_ENGINE;
        }
        if (job->n_left == 0)
            slot->shares[n_done++].job = job;
    }
    return n_done;
}

/* Hands out the answers, or that there are none. From then on the bundle may be gone. */
static void finish(struct worker *w, struct slot *slot) {
    struct batcher *b = w->batcher;
    if (slot->status == STATUS_OK) {
        scatter(slot);
        if (!slot->is_check)
            metrics_batch(b->options.metrics, w->index, slot->batch.n_sequences,
                          batch_n_tokens(&slot->batch), slot->spent_ns,
                          engine_device_ns(engine_of(w, slot->bundle)));
    } else if (slot->status != STATUS_DEVICE) {
        log_message(LOG_LEVEL_ERROR, "engine_failed", "%s", slot->err.message);
    }
    pthread_mutex_lock(&b->lock);
    w->has_failed = slot->status != STATUS_OK;
    if (slot->status == STATUS_OK)
        note_speed(w, slot);
    /* Another engine of this process may have shown that nothing here is to be trusted. */
    int32_t n_done =
        settle(b, slot, slot->status == STATUS_OK && !atomic_load(&b->has_died));
    pthread_mutex_unlock(&b->lock);
    for (int32_t i = 0; i < n_done; i++)
        batcher_queue_finish(b, slot->shares[i].job);
}

void *batcher_worker_run(void *argument) {
    struct worker *w = argument;
    static_assert(ENGINE_MAX_IN_FLIGHT == 2, "the loop has one batch ahead");
    while (start(w, true)) {
        while (w->n_in_flight > 0) {
            const struct bundle *bundle = w->slots[w->oldest].bundle;
            bool is_device = engine_of(w, bundle)->info.n_in_flight > 1;
            if (is_device) /* one is in flight: a second */
                (void)start(w, false);
            struct slot *slot = complete(w);
            if (is_device && w->n_in_flight == 0)
                (void)start(w, false);
            finish(w, slot);
        }
    }
    return NULL;
}

void batcher_worker_free(struct worker *w) {
    for (size_t i = 0; i < ENGINE_MAX_IN_FLIGHT; i++) {
        struct slot *slot = &w->slots[i];
        free(slot->ids);
        free(slot->offsets);
        free(slot->shares);
        free(slot->logits);
        free(slot->tags);
    }
}
