/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/passes.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

static double ms_since(int64_t start_ns) {
    return 1e-6 * (double)(clock_now_ns() - start_ns);
}

/* ---- batches ---------------------------------------------------------------------- */

/* How many sequences from first on fit into one batch; at least 1. */
static int32_t batch_size(const struct engine_info *info, const int32_t *starts,
                          int32_t first, int32_t n, int32_t cap) {
    int32_t size = 1;
    while (first + size < n && size < cap &&
           starts[first + size + 1] - starts[first] <= info->max_tokens)
        size++;
    return size;
}

static enum status cut(struct passes *p, const int32_t *ids, const int32_t *starts,
                       int32_t n, int32_t cap, struct error *err) {
    const struct engine_info *info = &p->engine->info;
    int32_t *offsets = p->offsets, largest = 1;
    size_t n_logits;
    for (int32_t first = 0, size; first < n; first += size) {
        size = batch_size(info, starts, first, n, cap);
        for (int32_t i = 0; i <= size; i++)
            offsets[i] = starts[first + i] - starts[first];
        if (offsets[size] > info->max_tokens)
            return error_set(err, STATUS_LIMIT,
                             "a sequence of %d tokens is over the engine's %d",
                             offsets[size], info->max_tokens);
        p->batches[p->n_batches++] = (struct batch){
            .ids = ids + starts[first], .offsets = offsets, .n_sequences = size};
        offsets += size + 1;
        if (size > largest)
            largest = size;
    }
    if (!size_multiply((size_t)largest, (size_t)p->n_labels, &n_logits) ||
        !(p->logits = calloc(n_logits, sizeof *p->logits)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for the logits");
    return STATUS_OK;
}

enum status passes_make(struct engine *engine, const struct model_config *config,
                        const int32_t *ids, const int32_t *starts, int32_t n,
                        int32_t max_texts, struct passes *out, struct error *err) {
    int32_t cap = engine->info.max_sequences;
    *out = (struct passes){
        .engine = engine, .n_sequences = n, .n_labels = config->n_labels};
    out->batches = calloc((size_t)n, sizeof *out->batches);
    out->offsets = calloc((size_t)n * 2, sizeof *out->offsets);
    enum status status = STATUS_OK;
    if (!out->batches || !out->offsets)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for %d sequences", n);
    if (!status)
        status = cut(out, ids, starts, n,
                     max_texts && max_texts < cap ? max_texts : cap, err);
    if (status)
        passes_free(out);
    return status;
}

void passes_free(struct passes *p) {
    free(p->batches);
    free(p->offsets);
    free(p->logits);
    *p = (struct passes){0};
}

/* ---- runs ------------------------------------------------------------------------- */

static void add_device(const struct passes *p, double *sum_ms) {
    int64_t ns = engine_device_ns(p->engine);
    *sum_ms = ns < 0 ? -1 : *sum_ms + 1e-6 * (double)ns;
}

enum status passes_run(const struct passes *p, float *logits, struct pass_time *time,
                       struct error *err) {
    int64_t start_ns = clock_now_ns();
    enum status status = STATUS_OK;
    *time = (struct pass_time){0};
    for (int32_t i = 0; i < p->n_batches && !status; i++) {
        const struct batch *b = &p->batches[i];
        status = engine_run(p->engine, b, logits ? logits : p->logits, NULL, err);
        add_device(p, &time->device_ms);
        if (logits)
            logits += (size_t)b->n_sequences * (size_t)p->n_labels;
    }
    time->ms = ms_since(start_ns);
    return status;
}

enum status passes_stream(const struct passes *p, int32_t n, double *device_ms,
                          struct pass_time *time, struct error *err) {
    struct engine *e = p->engine;
    int64_t n_all = (int64_t)n * p->n_batches, n_sent = 0, n_done = 0;
    int64_t start_ns = clock_now_ns();
    enum status status = STATUS_OK;
    *time = (struct pass_time){0};
    while (n_done < n_all && !status) {
        while (!status && n_sent < n_all &&
               (n_sent == n_done || n_sent - n_done < e->info.n_in_flight)) {
            status = engine_submit(e, &p->batches[n_sent % p->n_batches], err);
            n_sent += !status;
        }
        if (status)
            break;
        status = engine_wait(e, p->logits, NULL, err);
        add_device(p, &time->device_ms);
        if (device_ms) {
            double *of_pass = &device_ms[n_done / p->n_batches];
            *of_pass = n_done % p->n_batches ? *of_pass : 0;
            add_device(p, of_pass);
        }
        n_done++;
    }
    time->ms = ms_since(start_ns);
    /* What a failure left in flight: an engine is closed with nothing under way. */
    for (; n_done < n_sent; n_done++)
        (void)engine_wait(e, p->logits, NULL, NULL);
    return status;
}
