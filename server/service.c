/* SPDX-License-Identifier: Apache-2.0 */
#include "server/service.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct service {
    struct service_options options;
    struct batcher *batcher;
    struct metrics *metrics;
    pthread_mutex_t lock; /* of served */
    struct served *served;
    atomic_bool is_draining;
    atomic_size_t n_memory_bytes;
};

enum status service_open(const struct service_options *options, struct service **out,
                         struct error *err) {
    *out = NULL;
    struct service *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the server");
    s->options = *options;
    pthread_mutex_init(&s->lock, NULL);
    enum status status = metrics_open(&s->metrics, err);
    if (status == STATUS_OK) {
        s->options.batcher.metrics = s->metrics;
        status = batcher_open(&s->options.batcher, &s->batcher, err);
    }
    if (status == STATUS_OK)
        *out = s;
    else
        service_close(s);
    return status;
}

void service_close(struct service *s) {
    if (!s)
        return;
    batcher_close(s->batcher);
    service_release(s->served);
    metrics_close(s->metrics);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const struct service_options *service_options(const struct service *s) {
    return &s->options;
}

struct batcher *service_batcher(struct service *s) {
    return s->batcher;
}

struct metrics *service_metrics(struct service *s) {
    return s->metrics;
}

/* ---- the model ---- */

enum status service_load(struct service *s, const char *model_dir,
                         const struct engine_options *engine, struct error *err) {
    struct served *served = calloc(1, sizeof *served);
    if (!served)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a model");
    enum status status = bundle_open(model_dir, engine, &served->bundle, err);
    if (status != STATUS_OK) {
        free(served);
        return status;
    }
    atomic_init(&served->n_references, 1);
    pthread_mutex_lock(&s->lock);
    struct served *before = s->served;
    s->served = served;
    pthread_mutex_unlock(&s->lock);
    service_release(before);
    return STATUS_OK;
}

struct served *service_acquire(struct service *s) {
    pthread_mutex_lock(&s->lock);
    struct served *served = s->served;
    if (served)
        atomic_fetch_add(&served->n_references, 1);
    pthread_mutex_unlock(&s->lock);
    return served;
}

void service_release(struct served *served) {
    if (!served || atomic_fetch_sub(&served->n_references, 1) != 1)
        return;
    bundle_close(served->bundle);
    free(served);
}

/* ---- state ---- */

bool service_is_draining(struct service *s) {
    return atomic_load(&s->is_draining);
}

void service_drain(struct service *s) {
    atomic_store(&s->is_draining, true);
}

bool service_is_ready(struct service *s) {
    if (service_is_draining(s) || batcher_state(s->batcher).has_failed)
        return false;
    pthread_mutex_lock(&s->lock);
    bool is_loaded = s->served != NULL;
    pthread_mutex_unlock(&s->lock);
    return is_loaded;
}

/* ---- memory ---- */

bool service_reserve(struct service *s, size_t n_bytes) {
    size_t before = atomic_fetch_add(&s->n_memory_bytes, n_bytes);
    if (n_bytes <= s->options.max_memory_bytes &&
        before <= s->options.max_memory_bytes - n_bytes)
        return true;
    atomic_fetch_sub(&s->n_memory_bytes, n_bytes);
    return false;
}

void service_give_back(struct service *s, size_t n_bytes) {
    atomic_fetch_sub(&s->n_memory_bytes, n_bytes);
}

enum status service_write_metrics(struct service *s, struct buffer *out,
                                  struct error *err) {
    struct batcher_state state = batcher_state(s->batcher);
    struct served *served = service_acquire(s);
    struct metrics_now now = {.bundle = served ? served->bundle : NULL,
                              .is_ready = service_is_ready(s),
                              .is_engine_up = served && !state.has_failed,
                              .n_jobs = state.n_jobs,
                              .n_tokens_waiting = state.n_tokens,
                              .n_memory_bytes = atomic_load(&s->n_memory_bytes),
                              .max_memory_bytes = s->options.max_memory_bytes};
    enum status status = metrics_write(s->metrics, &now, out, err);
    service_release(served);
    return status;
}
