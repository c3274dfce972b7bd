/* SPDX-License-Identifier: Apache-2.0 */
#include "server/watch.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/log.h"

/* One engine, in one round. */
struct check {
    struct job job;
    struct sequence sequence;
    struct watch *watch;
    int32_t index; /* of the engine */
    float *values; /* as in canary.h */
};

struct watch {
    struct service *service;
    int64_t interval_ns, next_ns;
    struct served *served; /* the model of the round; NULL: there is none */
    struct check checks[ENGINES_MAX];
    float *values; /* of all checks */
    size_t cap_values;
    atomic_int n_running;
};

enum status watch_open(struct service *s, int64_t interval_ns, struct watch **out,
                       struct error *err) {
    *out = calloc(1, sizeof **out);
    if (!*out)
        return error_set(err, STATUS_NO_MEMORY, "no memory to watch the engines");
    (*out)->service = s;
    (*out)->interval_ns = interval_ns;
    return STATUS_OK;
}

void watch_close(struct watch *w) {
    if (!w)
        return;
    service_release(w->served);
    free(w->values);
    free(w);
}

/* By a worker. What it says of the round it says last. */
static void on_done(struct job *job) {
    struct check *c = (struct check *)((char *)job - offsetof(struct check, job));
    struct watch *w = c->watch;
    struct metrics *metrics = service_metrics(w->service);
    const struct bundle *bundle = job->bundle;
    struct error err = {0};
    if (job->outcome == FAULT_TIMEOUT) {
        metrics_canary(metrics, METRICS_CANARY_LATE);
    } else if (job->outcome == FAULT_ENGINE) {
        metrics_canary(metrics, METRICS_CANARY_FAILED);
    } else if (job->outcome == FAULT_NONE) {
        bool is_same =
            canary_check(bundle->canary, c->index, c->values, &err) == STATUS_OK;
        metrics_canary(metrics, is_same ? METRICS_CANARY_OK : METRICS_CANARY_FAILED);
        if (!is_same) {
            error_prefix(&err, "%s", bundle->engines[c->index]->info.device);
            batcher_die(service_batcher(w->service), &err);
        }
    }
    atomic_fetch_sub(&w->n_running, 1);
}

static bool make_room(struct watch *w, const struct bundle *b) {
    size_t n = (size_t)b->n_engines * b->canary->n_values;
    if (n <= w->cap_values)
        return true;
    free(w->values);
    w->values = calloc(n, sizeof *w->values);
    w->cap_values = w->values ? n : 0;
    return w->values != NULL;
}

static void begin(struct watch *w, int64_t now_ns) {
    struct bundle *b = w->served->bundle;
    const struct canary *canary = b->canary;
    if (!make_room(w, b))
        return;
    /* All of them, before the first can be done. */
    atomic_store(&w->n_running, b->n_engines);
    for (int32_t i = 0; i < b->n_engines; i++) {
        struct check *c = &w->checks[i];
        float *values = w->values + (size_t)i * canary->n_values;
        *c = (struct check){
            .watch = w,
            .index = i,
            .values = values,
            .sequence = {.ids = canary->ids,
                         .n_tokens = canary->n_tokens,
                         .logits = values,
                         .tags =
                             canary->n_tag_labels ? values + canary->n_labels : NULL},
            .job = {.bundle = b,
                    .sequences = &c->sequence,
                    .n_sequences = 1,
                    .n_tokens = canary->n_tokens,
                    .wants_tags = canary->n_tag_labels > 0,
                    .is_check = true,
                    .only_worker = i + 1,
                    .deadline_ns = now_ns + service_options(w->service)->timeout_ns,
                    .on_done = on_done}};
        if (!batcher_submit(service_batcher(w->service), &c->job))
            atomic_fetch_sub(&w->n_running, 1);
    }
}

void watch_tick(struct watch *w, int64_t now_ns) {
    if (!w->interval_ns || atomic_load(&w->n_running) > 0)
        return;
    service_release(w->served);
    w->served = NULL;
    if (now_ns < w->next_ns)
        return;
    /* The first round is an interval behind the load, which has just asked. */
    bool is_first = w->next_ns == 0;
    w->served = service_acquire(w->service);
    if (!w->served)
        return;
    w->next_ns = now_ns + w->interval_ns;
    if (!is_first)
        begin(w, now_ns);
}
