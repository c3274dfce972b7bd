/* SPDX-License-Identifier: Apache-2.0
 *
 * tuning.c - how each product is computed at each number of rows, found by timing.
 *
 * Candidates are cuBLASLt's proposals and our own tiles, with k cut or not. Each runs with
 * the weights of one layer after the other, behind a write that is larger than the L2 cache,
 * so that they come from memory as they do in a forward pass; the best of a few rounds
 * counts. Above ANCHOR_FROM not every number of rows is timed; the others take the next
 * one's choice. What was found is kept (plans.c).
 */
#include <stdlib.h>

#include "base/half.h"
#include "kernels/cuda/cuda.h"

/* Above ANCHOR_FROM rows a bucket is timed that is smaller by a quarter than the last. */
enum { ANCHOR_FROM = 2048, ANCHORS_APART = 4 };
/* Above so many rows cuBLASLt's larger tiles are ahead of ours; but see tries_own. */
enum { OWN_MAX_ROWS = 4096 };
enum { ROUNDS = 3, MAX_PROPOSALS = 8 };

/* Into how many parts k is cut, as far as the buffers for parts hold them. */
static const int32_t SPLITS[] = {1, 2, 3, 4, 6, 8, 12, 16};

/* The products whose rows are sequences have buckets for as many as a batch may have. */
int32_t cuda_n_buckets(const struct cuda_engine *e, enum cuda_product product) {
    return product == PRODUCT_Q || product == PRODUCT_POOL
               ? buckets_find(&e->buckets, e->engine.info.max_sequences) + 1
               : e->buckets.n;
}

struct cuda_plan *cuda_plan_at(struct cuda_engine *e, enum cuda_product product,
                               int32_t bucket) {
    return &e->plans[product * e->buckets.n + bucket];
}

size_t cuda_plans_bytes(const struct cuda_engine *e) {
    return (size_t)(PRODUCT_COUNT * e->buckets.n) * sizeof(struct cuda_plan);
}

/* ---- candidates ------------------------------------------------------------------- */

/* Whether an own variant is worth a try: splits only where tiles leave processors idle. */
bool cuda_is_candidate(const struct cuda_engine *e, struct cuda_gemm_variant v,
                       int32_t m, const struct cuda_product_shape *s) {
    enum cuda_path path = e->launch.path;
    if (!cuda_gemm_fits(path, v, m, s->n, s->k))
        return false;
    if (v.n_splits == 1)
        return true;
    int32_t n_tiles = cuda_gemm_n_counters(path, v, m, s->n);
    return n_tiles <= e->n_counters && n_tiles < e->n_multiprocessors &&
           n_tiles * v.n_splits <= 4 * e->n_multiprocessors &&
           cuda_gemm_partial_bytes(path, v, m, s->n) <= e->n_partial_bytes;
}

/* The product with the weights of one layer after the other. */
static cudaError_t launch_layers(struct cuda_engine *e, enum cuda_product product,
                                 int32_t n_rows, const struct cuda_plan *plan) {
    cudaError_t code = cudaSuccess;
    for (int32_t i = 0; i < e->config.n_layers && code == cudaSuccess; i++) {
        struct cuda_operation o = cuda_operation_of(e, product, i);
        code = cuda_product_run_plan(e, &o, n_rows, plan);
    }
    return code;
}

/* The same as a graph: launches one by one would take longer than small products. */
static cudaError_t capture_layers(struct cuda_engine *e, enum cuda_product product,
                                  int32_t n_rows, const struct cuda_plan *plan,
                                  cudaGraphExec_t *out) {
    cudaError_t code = cuda_capture_begin(e);
    if (code != cudaSuccess)
        return code;
    return cuda_capture_end(e, launch_layers(e, product, n_rows, plan), out);
}

/* qkv is only ever an output here: writing it over clears the L2 cache, and keeps the
 * device busy while the host launches what is timed. */
static cudaError_t clear_cache(struct cuda_engine *e) {
    size_t n_bytes =
        (size_t)e->buckets.rows[e->buckets.n - 1] * 3 * (size_t)e->inner * sizeof(f16);
    if (n_bytes > 2 * e->l2_bytes)
        n_bytes = 2 * e->l2_bytes;
    return cudaMemsetAsync(e->buffers.qkv, 0, n_bytes, e->launch.stream);
}

static cudaError_t time_graph(struct cuda_engine *e, cudaGraphExec_t graph, float *ms) {
    cudaEvent_t begin = e->slots[0].started, end = e->slots[0].done;
    cudaError_t code = clear_cache(e);
    if (code == cudaSuccess)
        code = cudaEventRecord(begin, e->launch.stream);
    if (code == cudaSuccess)
        code = cudaGraphLaunch(graph, e->launch.stream);
    if (code == cudaSuccess)
        code = cudaEventRecord(end, e->launch.stream);
    if (code == cudaSuccess)
        code = cuda_await(e, end);
    return code == cudaSuccess ? cudaEventElapsedTime(ms, begin, end) : code;
}

/* Milliseconds that the product takes in all layers: the best of a few. Not supported: there
 * is no such algorithm here after all; any other failure is the device's. */
static cudaError_t time_plan(struct cuda_engine *e, enum cuda_product product,
                             int32_t n_rows, const struct cuda_plan *plan,
                             float *best_ms) {
    cudaGraphExec_t graph = NULL;
    cudaError_t code = launch_layers(e, product, n_rows, plan); /* loads the kernels */
    if (code == cudaSuccess)
        code = capture_layers(e, product, n_rows, plan, &graph);
    *best_ms = -1;
    for (int round = 0; round <= ROUNDS && code == cudaSuccess; round++) {
        float ms = 0;
        code = time_graph(e, graph, &ms);
        if (round > 0 && (*best_ms < 0 || ms < *best_ms)) /* the first one warms up */
            *best_ms = ms;
    }
    if (graph)
        (void)cudaGraphExecDestroy(graph);
    return code;
}

struct contest {
    struct cuda_engine *e;
    enum cuda_product product;
    int32_t n_rows;
    struct cuda_plan *best;
    float best_ms;     /* below 0: none yet */
    cudaError_t fatal; /* of the device */
};

static void consider(struct contest *c, const struct cuda_plan *candidate) {
    float ms = 0;
    if (c->fatal != cudaSuccess || (c->e->has_no_tuning && c->best_ms >= 0))
        return;
    if (!c->e->has_no_tuning) {
        cudaError_t code = time_plan(c->e, c->product, c->n_rows, candidate, &ms);
        if (code != cudaSuccess) {
            /* One that cannot be is no candidate; one that broke the device ends it all. */
            (void)cudaGetLastError();
            c->fatal = code == cudaErrorTimeout ? code : cuda_finish(c->e);
            return;
        }
    }
    if (c->best_ms < 0 || ms < c->best_ms) {
        *c->best = *candidate;
        c->best_ms = ms;
    }
}

/* Times all candidates for n_rows; or takes the first that can be. */
static enum status choose(struct cuda_engine *e, enum cuda_product product,
                          int32_t n_rows, struct cuda_plan *best, struct error *err) {
    const struct cuda_product_shape *s = &e->shapes[product];
    cublasLtMatmulAlgo_t proposals[MAX_PROPOSALS];
    struct contest c = {e, product, n_rows, best, -1, cudaSuccess};
    int32_t n = cuda_product_proposals(e, product, n_rows, proposals, MAX_PROPOSALS);
    for (int32_t i = 0; i < n; i++) {
        struct cuda_plan plan = {.algorithm = proposals[i]};
        consider(&c, &plan);
    }
    /* Behind cuBLASLt's, a kernel for GELU follows; in ours it is part of the product. */
    bool tries_own =
        !e->has_no_own && (n_rows <= OWN_MAX_ROWS || s->epilogue == CUDA_EPILOGUE_GELU);
    for (int32_t tile = 0; tile < cuda_gemm_n_tiles(e->launch.path); tile++)
        for (size_t i = 0; i < sizeof SPLITS / sizeof *SPLITS; i++) {
            struct cuda_plan plan = {.is_own = true, .variant = {tile, SPLITS[i]}};
            if ((tries_own || c.best_ms < 0) &&
                cuda_is_candidate(e, plan.variant, n_rows, s))
                consider(&c, &plan);
        }
    if (c.fatal != cudaSuccess)
        return cuda_check(e, c.fatal, "timing products", err);
    if (c.best_ms < 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: no kernel computes a product of %d x %d x %d",
                         e->device_name, n_rows, s->n, s->k);
    return STATUS_OK;
}

/* ---- all numbers of rows ----------------------------------------------------------- */

/* Going down from the largest: `above` is the last bucket that was timed, or -1. */
static bool is_anchor(const struct cuda_engine *e, int32_t bucket, int32_t above) {
    int32_t rows = e->buckets.rows[bucket];
    return above < 0 || rows <= ANCHOR_FROM ||
           e->buckets.rows[above] - rows >= rows / ANCHORS_APART;
}

/* A plan that was found for more rows, where it can compute fewer. */
static void adopt(struct cuda_engine *e, enum cuda_product product, int32_t bucket) {
    struct cuda_plan *plan = cuda_plan_at(e, product, bucket);
    int32_t n_rows = e->buckets.rows[bucket];
    *plan = *cuda_plan_at(e, product, bucket + 1);
    if (plan->is_own || cuda_product_takes(e, product, n_rows, &plan->algorithm))
        return;
    if (cuda_product_proposals(e, product, n_rows, &plan->algorithm, 1) > 0)
        return;
    *plan = (struct cuda_plan){.is_own = true, .variant = {0, 1}};
    for (int32_t tile = cuda_gemm_n_tiles(e->launch.path) - 1; tile >= 0; tile--) {
        struct cuda_gemm_variant v = {tile, 1};
        const struct cuda_product_shape *s = &e->shapes[product];
        if (cuda_gemm_fits(e->launch.path, v, n_rows, s->n, s->k)) {
            plan->variant = v;
            return;
        }
    }
}

/* Numbers as in a forward pass: products of zeros draw less power and run faster. */
static enum status fill_with_noise(struct cuda_engine *e, struct error *err) {
    enum { N = 1 << 18 };
    const struct cuda_buffers *b = &e->buffers;
    size_t n_rows = (size_t)e->buckets.rows[e->buckets.n - 1];
    size_t n_sequences =
        (size_t)
            e->buckets.rows[buckets_find(&e->buckets, e->engine.info.max_sequences)];
    const struct {
        f16 *to;
        size_t n;
    } targets[] = {{b->x, n_rows * (size_t)e->width},
                   {b->context, n_rows * (size_t)e->inner},
                   {b->hidden, n_rows * (size_t)e->hidden},
                   {b->first, n_sequences * (size_t)e->width}};
    f16 *noise = malloc(N * sizeof *noise);
    if (!noise)
        return error_set(err, STATUS_NO_MEMORY, "no memory to time products");
    uint32_t state = 1;
    for (int i = 0; i < N; i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = half_from_float((float)(int32_t)state * 0x1p-31f);
    }
    cudaError_t code = cudaSuccess;
    for (size_t t = 0; t < sizeof targets / sizeof *targets; t++)
        for (size_t at = 0; at < targets[t].n && code == cudaSuccess; at += N) {
            size_t n = targets[t].n - at < N ? targets[t].n - at : N;
            code = cudaMemcpyAsync(targets[t].to + at, noise, n * sizeof *noise,
                                   cudaMemcpyHostToDevice, e->launch.stream);
        }
    if (code == cudaSuccess)
        code = cuda_finish(e);
    free(noise);
    return cuda_check(e, code, "preparing to time products", err);
}

static enum status tune_product(struct cuda_engine *e, enum cuda_product product,
                                struct error *err) {
    int32_t above = -1;
    for (int32_t bucket = cuda_n_buckets(e, product) - 1; bucket >= 0; bucket--) {
        if (!is_anchor(e, bucket, above)) {
            adopt(e, product, bucket);
            continue;
        }
        above = bucket;
        enum status status = choose(e, product, e->buckets.rows[bucket],
                                    cuda_plan_at(e, product, bucket), err);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

enum status cuda_tune(struct cuda_engine *e, struct error *err) {
    e->plans = calloc(1, cuda_plans_bytes(e));
    if (!e->plans)
        return error_set(err, STATUS_NO_MEMORY, "no memory for plans");
    if (cuda_plans_find(e))
        return STATUS_OK;
    enum status status = fill_with_noise(e, err);
    for (int p = 0; p < PRODUCT_COUNT && status == STATUS_OK; p++)
        status = tune_product(e, (enum cuda_product)p, err);
    if (status == STATUS_OK)
        cuda_plans_keep(e);
    return status;
}
