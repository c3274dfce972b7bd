/* SPDX-License-Identifier: Apache-2.0
 *
 * run.c - batches on their way: inputs over, launches, answers back, in up to two slots.
 *
 * A slot has its own inputs and pinned memory; the activations are shared, for the compute
 * stream runs one batch after the other. While it does, the copy stream brings the next
 * batch's inputs. A small batch is one graph instead, copies included: a graph was captured
 * when the engine opened for each slot and each pair of buckets below GRAPH_MAX_TOKENS,
 * where launches would take longer than the work.
 *
 * Nothing is allocated here, and the host waits once, in cuda_wait, with a deadline. After
 * any failure of CUDA the engine is dead: what such a device computes means nothing.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "kernels/cuda/cuda.h"

/* Waiting spins for so long, in which a batch is mostly done, and then sleeps so long at a
 * time. */
enum { SPIN_NS = 2000000, NAP_NS = 50000 };
enum { GRAPH_MAX_TOKENS = 2048, ALIGN = 16 };

/* ---- layouts ---------------------------------------------------------------------- */

static size_t aligned(size_t n_bytes) {
    return (n_bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* A layout for exactly these buckets and warps. */
static struct cuda_layout lay_out(const struct cuda_engine *e, int32_t tokens,
                                  int32_t sequences, int32_t warps, bool wants_tags) {
    struct cuda_layout l = {.tokens = tokens,
                            .sequences = sequences,
                            .warps = warps,
                            .max_tiles = tokens / (16 * warps) + sequences,
                            .wants_tags = wants_tags};
    l.offsets = aligned(sizeof(struct cuda_counts));
    l.ids = l.offsets + aligned(((size_t)sequences + 1) * sizeof(int32_t));
    l.positions = l.ids + aligned((size_t)tokens * sizeof(int32_t));
    l.tiles = l.positions + aligned((size_t)tokens * sizeof(int32_t));
    l.n_inputs = l.tiles + (size_t)l.max_tiles * sizeof(struct cuda_tile);
    l.tags = aligned((size_t)sequences * (size_t)e->config.n_labels * sizeof(float));
    l.n_outputs = l.tags;
    if (wants_tags)
        l.n_outputs += (size_t)tokens * (size_t)e->config.n_tag_labels * sizeof(float);
    return l;
}

/* Warps of an attention tile: a CTA a head for a sequence of up to 128 tokens. */
static int32_t warps_for(int32_t longest) {
    return longest <= 32 ? 2 : longest <= 64 ? 4 : 8;
}

struct cuda_layout cuda_layout_of(const struct cuda_engine *e, int32_t n_tokens,
                                  int32_t n_sequences, int32_t longest,
                                  bool wants_tags) {
    const struct buckets *b = &e->buckets;
    return lay_out(e, b->rows[buckets_find(b, n_tokens)],
                   b->rows[buckets_find(b, n_sequences)], warps_for(longest),
                   wants_tags);
}

/* ---- inputs ----------------------------------------------------------------------- */

static void fill_inputs(const struct cuda_layout *l, const struct batch *batch,
                        char *inputs) {
    struct cuda_counts *counts = (void *)inputs;
    int32_t *offsets = (void *)(inputs + l->offsets);
    int32_t *positions = (void *)(inputs + l->positions);
    struct cuda_tile *tiles = (void *)(inputs + l->tiles);
    int32_t n_tokens = batch_n_tokens(batch), n_tiles = 0;
    memcpy(offsets, batch->offsets, ((size_t)batch->n_sequences + 1) * sizeof *offsets);
    memcpy(inputs + l->ids, batch->ids, (size_t)n_tokens * sizeof(int32_t));
    for (int32_t b = 0; b < batch->n_sequences; b++) {
        int32_t begin = offsets[b], length = offsets[b + 1] - begin;
        for (int32_t i = 0; i < length; i++)
            positions[begin + i] = i;
        for (int32_t query = 0; query < length; query += 16 * l->warps)
            tiles[n_tiles++] = (struct cuda_tile){begin, length, query, 0};
    }
    *counts = (struct cuda_counts){n_tokens, batch->n_sequences, n_tiles, 0};
}

static cudaError_t copy_in(struct cuda_slot *s, const struct cuda_layout *l,
                           cudaStream_t stream) {
    return cudaMemcpyAsync(s->inputs, s->host_inputs, l->n_inputs,
                           cudaMemcpyHostToDevice, stream);
}

static cudaError_t copy_out(struct cuda_engine *e, struct cuda_slot *s,
                            const struct cuda_layout *l) {
    return cudaMemcpyAsync(s->host_outputs, e->buffers.outputs, l->n_outputs,
                           cudaMemcpyDeviceToHost, e->launch.stream);
}

/* ---- waiting ---------------------------------------------------------------------- */

cudaError_t cuda_await(struct cuda_engine *e, cudaEvent_t event) {
    int64_t start = clock_now_ns();
    for (;;) {
        cudaError_t code = cudaEventQuery(event);
        if (code != cudaErrorNotReady)
            return code;
        int64_t spent_ns = clock_now_ns() - start;
        if (spent_ns > e->deadline_ns) {
            e->is_hung = true;
            return cudaErrorTimeout;
        }
        if (spent_ns < SPIN_NS)
            (void)sched_yield();
        else
            (void)nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}

cudaError_t cuda_finish(struct cuda_engine *e) {
    cudaError_t code = cudaEventRecord(e->slots[0].done, e->launch.stream);
    return code == cudaSuccess ? cuda_await(e, e->slots[0].done) : code;
}

/* ---- graphs ----------------------------------------------------------------------- */

cudaError_t cuda_capture_begin(struct cuda_engine *e) {
    return cudaStreamBeginCapture(e->launch.stream, cudaStreamCaptureModeThreadLocal);
}

cudaError_t cuda_capture_end(struct cuda_engine *e, cudaError_t code,
                             cudaGraphExec_t *out) {
    cudaGraph_t graph = NULL;
    cudaError_t ended = cudaStreamEndCapture(e->launch.stream, &graph);
    if (code == cudaSuccess)
        code = ended;
    if (code == cudaSuccess)
        code = cudaGraphInstantiateWithFlags(out, graph, 0);
    if (graph)
        (void)cudaGraphDestroy(graph);
    return code;
}

/* A kernel that was never launched may be loaded then, which a capture does not allow: so
 * all of it runs once before; its inputs say that there are no tokens. */
static cudaError_t capture(struct cuda_engine *e, struct cuda_graph *g, int32_t slot) {
    struct cuda_slot *s = &e->slots[slot];
    cudaError_t code = slot == 0 ? cuda_forward(e, &g->layout, s->inputs) : cudaSuccess;
    if (code == cudaSuccess)
        code = cuda_capture_begin(e);
    if (code != cudaSuccess)
        return code;
    code = copy_in(s, &g->layout, e->launch.stream);
    if (code == cudaSuccess)
        code = cuda_forward(e, &g->layout, s->inputs);
    if (code == cudaSuccess)
        code = copy_out(e, s, &g->layout);
    code = cuda_capture_end(e, code, &g->runs[slot]);
    if (code == cudaSuccess)
        code = cudaGraphUpload(g->runs[slot], e->launch.stream);
    return code;
}

static enum status capture_slots(struct cuda_engine *e, struct cuda_graph *g,
                                 struct error *err) {
    enum status status = STATUS_OK;
    for (int32_t slot = 0; slot < ENGINE_MAX_IN_FLIGHT && status == STATUS_OK; slot++)
        status = cuda_check(e, capture(e, g, slot), "capturing a graph", err);
    return status;
}

static void destroy_graph(struct cuda_graph *g) {
    for (int32_t slot = 0; slot < ENGINE_MAX_IN_FLIGHT; slot++)
        if (g->runs[slot])
            (void)cudaGraphExecDestroy(g->runs[slot]);
}

/* No memory for more: what has no graph is launched kernel by kernel. */
static enum status drop_last_graph(struct cuda_engine *e) {
    destroy_graph(&e->graphs[--e->n_graphs]);
    return STATUS_OK;
}

/* Few numbers of sequences, since rows of the last layer are cheap up to a tile of them. */
enum status cuda_graphs_open(struct cuda_engine *e, struct error *err) {
    static const int32_t sequences[] = {16, 64, 256};
    enum { N_SEQUENCES = sizeof sequences / sizeof *sequences };
    const struct buckets *b = &e->buckets;
    if (e->has_no_graphs)
        return STATUS_OK;
    int n_kinds = e->config.n_tag_labels > 0 ? 2 : 1; /* without tags, with them */
    int32_t most_sequences = b->rows[buckets_find(b, e->engine.info.max_sequences)];
    e->graphs = calloc((size_t)b->n * N_SEQUENCES * 2, sizeof *e->graphs);
    if (!e->graphs)
        return error_set(err, STATUS_NO_MEMORY, "no memory for graphs");
    for (int32_t t = 0; t < b->n && b->rows[t] <= GRAPH_MAX_TOKENS; t++)
        for (int32_t i = 0; i < N_SEQUENCES; i++)
            for (int tags = 0; tags < n_kinds; tags++) {
                int32_t tokens = b->rows[t];
                if (sequences[i] > most_sequences ||
                    (i > 0 && sequences[i] / 2 > tokens))
                    continue;
                struct cuda_graph *g = &e->graphs[e->n_graphs++];
                g->layout = lay_out(e, tokens, sequences[i], warps_for(tokens), tags);
                enum status status = capture_slots(e, g, err);
                if (status == STATUS_NO_MEMORY)
                    return drop_last_graph(e);
                if (status != STATUS_OK)
                    return status;
            }
    return STATUS_OK;
}

/* The graph of the fewest rows that holds the batch, or NULL. Ordered by cuda_graphs_open. */
static struct cuda_graph *find_graph(struct cuda_engine *e, int32_t n_tokens,
                                     int32_t n_sequences, bool wants_tags) {
    for (int32_t i = 0; i < e->n_graphs; i++) {
        const struct cuda_layout *l = &e->graphs[i].layout;
        if (l->tokens >= n_tokens && l->sequences >= n_sequences &&
            l->wants_tags == wants_tags)
            return &e->graphs[i];
    }
    return NULL;
}

/* ---- opening ---------------------------------------------------------------------- */

static enum status slot_open(struct cuda_engine *e, struct cuda_slot *s,
                             size_t n_inputs, size_t n_outputs, struct error *err) {
    cudaError_t code = cudaMallocHost((void **)&s->host_inputs, n_inputs);
    if (code == cudaSuccess)
        code = cudaMallocHost((void **)&s->host_outputs, n_outputs);
    if (code == cudaErrorMemoryAllocation)
        return error_set(err, STATUS_NO_MEMORY, "%s: no %zu KB of pinned memory",
                         e->device_name, (n_inputs + n_outputs) >> 10);
    if (code == cudaSuccess)
        code = cudaEventCreate(&s->started);
    if (code == cudaSuccess)
        code = cudaEventCreate(&s->done);
    if (code == cudaSuccess)
        code = cudaEventCreateWithFlags(&s->copied, cudaEventDisableTiming);
    return cuda_check(e, code, "making a slot for batches", err);
}

enum status cuda_slots_open(struct cuda_engine *e, struct error *err) {
    const struct engine_info *info = &e->engine.info;
    struct cuda_layout most = cuda_layout_of(e, info->max_tokens, info->max_sequences,
                                             1, e->config.n_tag_labels > 0);
    enum status status = STATUS_OK;
    for (int32_t i = 0; i < ENGINE_MAX_IN_FLIGHT && status == STATUS_OK; i++)
        status = slot_open(e, &e->slots[i], most.n_inputs, most.n_outputs, err);
    return status;
}

void cuda_slots_close(struct cuda_engine *e) {
    for (int32_t i = 0; i < e->n_graphs; i++)
        destroy_graph(&e->graphs[i]);
    free(e->graphs);
    for (int32_t i = 0; i < ENGINE_MAX_IN_FLIGHT; i++) {
        struct cuda_slot *s = &e->slots[i];
        cudaEvent_t events[] = {s->started, s->copied, s->done};
        for (size_t k = 0; k < sizeof events / sizeof *events; k++)
            if (events[k])
                (void)cudaEventDestroy(events[k]);
        (void)cudaFreeHost(s->host_inputs);
        (void)cudaFreeHost(s->host_outputs);
    }
}

/* ---- submit ----------------------------------------------------------------------- */

/* Copy-in on its own stream, so that it overlaps the batch that runs. */
static cudaError_t launch_eager(struct cuda_engine *e, struct cuda_slot *s) {
    cudaError_t code = copy_in(s, s->layout, e->copies);
    if (code == cudaSuccess)
        code = cudaEventRecord(s->copied, e->copies);
    if (code == cudaSuccess)
        code = cudaStreamWaitEvent(e->launch.stream, s->copied, 0);
    if (code == cudaSuccess)
        code = cudaEventRecord(s->started, e->launch.stream);
    if (code == cudaSuccess)
        code = cuda_forward(e, s->layout, s->inputs);
    return code == cudaSuccess ? copy_out(e, s, s->layout) : code;
}

static cudaError_t launch(struct cuda_engine *e, int32_t slot, struct cuda_graph *g) {
    struct cuda_slot *s = &e->slots[slot];
    cudaError_t code;
    if (g) {
        code = cudaEventRecord(s->started, e->launch.stream);
        if (code == cudaSuccess)
            code = cudaGraphLaunch(g->runs[slot], e->launch.stream);
    } else {
        code = launch_eager(e, s);
    }
    return code == cudaSuccess ? cudaEventRecord(s->done, e->launch.stream) : code;
}

static enum status check_batch(const struct cuda_engine *e, const struct batch *batch,
                               struct error *err) {
    const struct engine_info *info = &e->engine.info;
    if (e->is_dead)
        return error_set(err, STATUS_DEVICE, "%s failed before and computes no more",
                         e->device_name);
    enum status status = batch_check(batch, &e->config, err);
    if (status != STATUS_OK)
        return status;
    if (batch_n_tokens(batch) > info->max_tokens)
        return error_set(err, STATUS_LIMIT,
                         "a batch of %d tokens is over the engine's limit of %d",
                         batch_n_tokens(batch), info->max_tokens);
    if (batch->n_sequences > info->max_sequences)
        return error_set(err, STATUS_LIMIT,
                         "a batch of %d sequences is over the engine's limit of %d",
                         batch->n_sequences, info->max_sequences);
    if (e->n_in_flight >= ENGINE_MAX_IN_FLIGHT)
        return error_set(err, STATUS_BUSY, "%d batches are in flight already",
                         e->n_in_flight);
    return STATUS_OK;
}

enum status cuda_submit(struct engine *engine, const struct batch *batch,
                        struct error *err) {
    struct cuda_engine *e = (struct cuda_engine *)engine;
    enum status status = check_batch(e, batch, err);
    if (status != STATUS_OK)
        return status;
    int32_t slot = (e->first_slot + e->n_in_flight) % ENGINE_MAX_IN_FLIGHT;
    struct cuda_slot *s = &e->slots[slot];
    bool wants_tags = batch->wants_tags && e->config.n_tag_labels > 0;
    s->n_tokens = batch_n_tokens(batch);
    s->n_sequences = batch->n_sequences;
    struct cuda_graph *g = find_graph(e, s->n_tokens, s->n_sequences, wants_tags);
    if (g) {
        s->layout = &g->layout;
    } else {
        int32_t longest = 0;
        for (int32_t b = 0; b < batch->n_sequences; b++)
            if (batch->offsets[b + 1] - batch->offsets[b] > longest)
                longest = batch->offsets[b + 1] - batch->offsets[b];
        e->eager[slot] =
            cuda_layout_of(e, s->n_tokens, s->n_sequences, longest, wants_tags);
        s->layout = &e->eager[slot];
    }
    fill_inputs(s->layout, batch, s->host_inputs);
    /* NaN: answers that do not come must not be those of the batch before. */
    memset(s->host_outputs, 0xff, s->layout->n_outputs);
    status = cuda_check(e, cudaSetDevice(e->device), "choosing the device", err);
    if (status == STATUS_OK)
        status = cuda_check(e, launch(e, slot, g), "starting a batch", err);
    if (status == STATUS_OK)
        e->n_in_flight++;
    else
        e->is_dead = true;
    return status;
}

/* ---- wait ------------------------------------------------------------------------- */

enum status cuda_wait(struct engine *engine, float *logits, float *tags,
                      struct error *err) {
    struct cuda_engine *e = (struct cuda_engine *)engine;
    if (e->is_dead || e->n_in_flight < 1)
        return error_set(err, e->is_dead ? STATUS_DEVICE : STATUS_INTERNAL, "%s: %s",
                         e->device_name,
                         e->is_dead ? "failed before and computes no more"
                                    : "no batch is in flight");
    struct cuda_slot *s = &e->slots[e->first_slot];
    enum status status =
        cuda_check(e, cudaSetDevice(e->device), "choosing the device", err);
    if (status == STATUS_OK)
        status = cuda_check(e, cuda_await(e, s->done), "computing a batch", err);
    float ms = 0;
    if (status == STATUS_OK)
        status = cuda_check(e, cudaEventElapsedTime(&ms, s->started, s->done),
                            "timing a batch", err);
    e->first_slot = (e->first_slot + 1) % ENGINE_MAX_IN_FLIGHT;
    e->n_in_flight--;
    if (status != STATUS_OK) {
        e->is_dead = true;
        return status;
    }
    e->device_ns = (int64_t)((double)ms * 1e6);
    size_t n_logits = (size_t)s->n_sequences * (size_t)e->config.n_labels;
    size_t n_tags = s->layout->wants_tags
                        ? (size_t)s->n_tokens * (size_t)e->config.n_tag_labels
                        : 0;
    const float *found_tags = (const void *)(s->host_outputs + s->layout->tags);
    memcpy(logits, s->host_outputs, n_logits * sizeof *logits);
    if (n_tags)
        memcpy(tags, found_tags, n_tags * sizeof *tags);
    if (!engine_is_finite(logits, n_logits) || !engine_is_finite(found_tags, n_tags))
        return error_set(err, STATUS_INTERNAL,
                         "%s computed a value that is not a number", e->device_name);
    return STATUS_OK;
}
