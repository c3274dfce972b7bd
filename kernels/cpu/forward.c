/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.c - a packed batch through the layers, phase by phase, on the pool's threads.
 *
 *   embed -> L x [ q, kv -> attend -> encode -> out + residual -> LayerNorm, encode
 *                  -> up, GELU -> encode -> down + residual -> LayerNorm, encode ]
 *         -> heads in fp32
 *
 * "encode" makes rows ready for the next product: integers, bf16, or nothing at all
 * (fp32). In the last layer, when no tags are asked for, only the [CLS] rows go on behind
 * keys and values: their rows are moved together (x and encoded, in place, downwards), and
 * all that follows runs on B rows instead of T. This is exact.
 */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum {
    TASKS_A_THREAD =
        6,           /* of a product: enough to even out a thread that lost its core */
    ROWS_A_TASK = 4, /* of row-wise phases, at least */
    SPLIT_ROWS_FROM = 64,  /* a product with few panels is split by rows too: */
    SPLIT_PANELS_BELOW = 2 /* a thread */
};

struct forward {
    struct cpu_engine *e;
    const struct batch *batch;
    int32_t n_tokens;
    const struct cpu_gemm *gemm; /* of the product under way */
    struct product product;
    int32_t rows, rows_a_task, panel_tasks; /* of the phase under way */
    bool is_cls_only;
    const struct cpu_norm *norm;
    const float *encode_from;
    size_t encode_stride;  /* floats */
    int32_t encode_values; /* a row, a multiple of ACTIVATION_ALIGN */
};

/* ---- row-wise phases -------------------------------------------------------------- */

static void rows_run(struct forward *f, pool_task *task, int32_t n_rows) {
    int32_t n_threads = pool_n_threads(f->e->pool);
    int32_t n_tasks = (n_rows + ROWS_A_TASK - 1) / ROWS_A_TASK;
    if (n_tasks > 4 * n_threads)
        n_tasks = 4 * n_threads;
    if (n_threads == 1)
        n_tasks = 1;
    f->rows = n_rows;
    f->rows_a_task = (n_rows + n_tasks - 1) / n_tasks;
    pool_run(f->e->pool, task, f, (n_rows + f->rows_a_task - 1) / f->rows_a_task);
}

static void rows_of_task(const struct forward *f, int32_t task, int32_t *begin,
                         int32_t *n_rows) {
    *begin = task * f->rows_a_task;
    *n_rows = f->rows - *begin < f->rows_a_task ? f->rows - *begin : f->rows_a_task;
}

static void encode_rows(const struct forward *f, int32_t begin, int32_t n_rows) {
    struct cpu_engine *e = f->e;
    const float *in = f->encode_from + (size_t)begin * f->encode_stride;
    char *out = (char *)e->encoded + (size_t)begin * e->encoded_stride;
    if (e->gemm->format == ROWS_INT8)
        e->operators->quantize(in, f->encode_stride, (uint8_t *)out, e->encoded_stride,
                               e->quanta + begin, n_rows, f->encode_values,
                               e->gemm->row_levels);
    else if (e->gemm->format != ROWS_F32)
        e->gemm->encode(in, f->encode_stride, (uint16_t *)(void *)out,
                        e->encoded_stride / sizeof(uint16_t), e->quanta + begin, n_rows,
                        f->encode_values);
}

static void encode_task(void *context, int32_t task, int32_t thread) {
    const struct forward *f = context;
    int32_t begin, n_rows;
    (void)thread;
    rows_of_task(f, task, &begin, &n_rows);
    encode_rows(f, begin, n_rows);
}

/* Makes from[0 .. n_rows) ready for a product; `rows` is what the product reads. */
static struct rows encode(struct forward *f, const float *from, size_t stride,
                          int32_t n_rows) {
    struct cpu_engine *e = f->e;
    if (e->gemm->format == ROWS_F32)
        return (struct rows){.data = from, .stride = stride * sizeof(float)};
    f->encode_from = from;
    f->encode_stride = stride;
    f->encode_values = (int32_t)stride;
    rows_run(f, encode_task, n_rows);
    return (struct rows){e->encoded, e->encoded_stride, e->quanta};
}

/* x = LayerNorm(q), and x encoded. */
static void norm_task(void *context, int32_t task, int32_t thread) {
    const struct forward *f = context;
    struct cpu_engine *e = f->e;
    int32_t begin, n_rows;
    (void)thread;
    rows_of_task(f, task, &begin, &n_rows);
    size_t at = (size_t)begin * e->dim_stride;
    e->operators->layer_norm(e->q + at, e->x + at, e->dim_stride, n_rows, e->config.dim,
                             f->norm->weight, f->norm->bias);
    encode_rows(f, begin, n_rows);
}

static void normalize(struct forward *f, const struct cpu_norm *norm, int32_t n_rows) {
    struct cpu_engine *e = f->e;
    f->norm = norm;
    f->encode_from = e->x;
    f->encode_stride = e->dim_stride;
    f->encode_values = (int32_t)e->dim_stride;
    rows_run(f, norm_task, n_rows);
}

static void embed_task(void *context, int32_t task, int32_t thread) {
    const struct forward *f = context;
    struct cpu_engine *e = f->e;
    int32_t begin, n_rows;
    (void)thread;
    rows_of_task(f, task, &begin, &n_rows);
    const int32_t *offsets = f->batch->offsets;
    int32_t b = 0;
    while (offsets[b + 1] <= begin)
        b++;
    for (int32_t t = begin; t < begin + n_rows; t++) {
        while (offsets[b + 1] <= t)
            b++;
        e->operators->embed(&e->embeddings, f->batch->ids[t], t - offsets[b],
                            e->x + (size_t)t * e->dim_stride);
    }
    encode_rows(f, begin, n_rows);
}

static void embed(struct forward *f) {
    f->encode_from = f->e->x;
    f->encode_stride = f->e->dim_stride;
    f->encode_values = (int32_t)f->e->dim_stride;
    rows_run(f, embed_task, f->n_tokens);
}

/* ---- products --------------------------------------------------------------------- */

/* Task t of n -> the t'th to be claimed when each of the threads goes through a stretch of
 * its own, from panel to panel: a kernel fetches the panel behind its last one. */
static int32_t stretch_order(int32_t task, int32_t n_tasks, int32_t n_threads) {
    if (n_tasks % n_threads != 0)
        return task;
    return task % n_threads * (n_tasks / n_threads) + task / n_threads;
}

static void product_task(void *context, int32_t task, int32_t thread) {
    const struct forward *f = context;
    const struct packed_linear *w = f->product.weights;
    int32_t n_panels = w->n_padded / w->panel_width;
    int32_t part = stretch_order(task % f->panel_tasks, f->panel_tasks,
                                 pool_n_threads(f->e->pool));
    int32_t row = task / f->panel_tasks * f->rows_a_task;
    int32_t row_end = row + f->rows_a_task;
    (void)thread;
    f->gemm->run(&f->product, row, row_end < f->rows ? row_end : f->rows,
                 part * n_panels / f->panel_tasks,
                 (part + 1) * n_panels / f->panel_tasks);
}

static void multiply_by(struct forward *f, const struct cpu_gemm *gemm,
                        const struct product *p, int32_t n_rows) {
    const struct packed_linear *w = p->weights;
    int32_t n_threads = pool_n_threads(f->e->pool);
    int32_t n_panels = w->n_padded / w->panel_width;
    int32_t wanted = n_threads == 1 ? 1 : n_threads * TASKS_A_THREAD;
    f->gemm = gemm;
    f->product = *p;
    f->panel_tasks = n_panels < wanted ? n_panels : wanted;
    f->rows = n_rows;
    f->rows_a_task = n_rows;
    if (f->panel_tasks < SPLIT_PANELS_BELOW * n_threads && n_rows >= SPLIT_ROWS_FROM) {
        int32_t parts = (wanted + f->panel_tasks - 1) / f->panel_tasks;
        int32_t tile_rows = gemm->max_rows;
        int32_t rows = (n_rows + parts - 1) / parts;
        f->rows_a_task = (rows + tile_rows - 1) / tile_rows * tile_rows;
    }
    int32_t row_tasks = (n_rows + f->rows_a_task - 1) / f->rows_a_task;
    pool_run(f->e->pool, product_task, f, f->panel_tasks * row_tasks);
}

/* out = epilogue(in * weights) for n_rows rows. */
static void multiply(struct forward *f, const struct packed_linear *w, struct rows in,
                     int32_t n_rows, float *out, size_t out_stride,
                     enum epilogue epilogue, const float *residual) {
    struct product p = {.weights = w,
                        .in = in,
                        .out = out,
                        .residual = residual,
                        .out_stride = out_stride,
                        .epilogue = epilogue};
    multiply_by(f, f->e->gemm, &p, n_rows);
}

/* The heads, in fp32. */
static void multiply_head(struct forward *f, const struct packed_linear *w,
                          const float *in, size_t in_stride, int32_t n_rows, float *out,
                          size_t out_stride, enum epilogue epilogue) {
    struct product p = {.weights = w,
                        .in = {.data = in, .stride = in_stride * sizeof(float)},
                        .out = out,
                        .out_stride = out_stride,
                        .epilogue = epilogue};
    multiply_by(f, f->e->float_gemm, &p, n_rows);
}

/* ---- attention -------------------------------------------------------------------- */

static void attend_task(void *context, int32_t task, int32_t thread) {
    const struct forward *f = context;
    struct cpu_engine *e = f->e;
    int32_t b = task / e->config.n_heads, head = task % e->config.n_heads;
    int32_t begin = f->batch->offsets[b], n = f->batch->offsets[b + 1] - begin;
    size_t column = (size_t)head * (size_t)e->config.head_dim;
    size_t query_row = f->is_cls_only ? (size_t)b : (size_t)begin;
    const float *kv = e->kv + (size_t)begin * e->kv_stride + column;
    const struct attention a = {
        .q = e->q + query_row * e->dim_stride + column,
        .k = kv,
        .v = kv + e->config.dim,
        .out = e->context + query_row * e->dim_stride + column,
        .q_stride = e->dim_stride,
        .kv_stride = e->kv_stride,
        .out_stride = e->dim_stride,
        .n_queries = f->is_cls_only ? 1 : n,
        .n_keys = n,
        .head_dim = e->config.head_dim,
        .scale = 1.0f / sqrtf((float)e->config.head_dim),
        .scratch = e->attention_scratch + (size_t)thread * e->attention_scratch_floats,
    };
    if (e->gemm->attend)
        e->gemm->attend(&a);
    else
        e->operators->attend(&a);
}

/* Moves the [CLS] rows of x and of what is encoded together, to rows 0 .. B. */
static void gather_cls(struct forward *f) {
    struct cpu_engine *e = f->e;
    for (int32_t b = 1; b < f->batch->n_sequences; b++) {
        size_t from = (size_t)f->batch->offsets[b], to = (size_t)b;
        if (from == to)
            continue;
        memmove(e->x + to * e->dim_stride, e->x + from * e->dim_stride,
                e->dim_stride * sizeof(float));
        if (!e->encoded)
            continue;
        memmove((char *)e->encoded + to * e->encoded_stride,
                (char *)e->encoded + from * e->encoded_stride, e->encoded_stride);
        e->quanta[to] = e->quanta[from];
    }
}

/* ---- the forward pass ------------------------------------------------------------- */

/* The residual stream as a product reads it. */
static struct rows stream(const struct cpu_engine *e) {
    if (e->encoded)
        return (struct rows){e->encoded, e->encoded_stride, e->quanta};
    return (struct rows){.data = e->x, .stride = e->dim_stride * sizeof(float)};
}

static void layer_run(struct forward *f, const struct cpu_layer *l) {
    struct cpu_engine *e = f->e;
    int32_t n_rows = f->n_tokens, n_heads = f->batch->n_sequences * e->config.n_heads;
    enum epilogue activation =
        e->config.has_relu_activation ? EPILOGUE_RELU : EPILOGUE_GELU;
    struct rows in = stream(e);
    multiply(f, &l->kv, in, n_rows, e->kv, e->kv_stride, EPILOGUE_BIAS, NULL);
    if (f->is_cls_only) {
        gather_cls(f);
        n_rows = f->batch->n_sequences;
    }
    multiply(f, &l->q, in, n_rows, e->q, e->dim_stride, EPILOGUE_BIAS, NULL);
    pool_run(e->pool, attend_task, f, n_heads);
    in = encode(f, e->context, e->dim_stride, n_rows);
    multiply(f, &l->out, in, n_rows, e->q, e->dim_stride, EPILOGUE_RESIDUAL, e->x);
    normalize(f, &l->attention_norm, n_rows);
    in = stream(e);
    multiply(f, &l->up, in, n_rows, e->hidden, e->hidden_stride, activation, NULL);
    in = encode(f, e->hidden, e->hidden_stride, n_rows);
    multiply(f, &l->down, in, n_rows, e->q, e->dim_stride, EPILOGUE_RESIDUAL, e->x);
    normalize(f, &l->output_norm, n_rows);
}

static void copy_columns(const float *in, size_t in_stride, float *out,
                         int32_t n_columns, int32_t n_rows) {
    for (int32_t row = 0; row < n_rows; row++)
        memcpy(out + (size_t)row * (size_t)n_columns, in + (size_t)row * in_stride,
               (size_t)n_columns * sizeof *out);
}

static void heads_run(struct forward *f, float *logits, float *tags) {
    struct cpu_engine *e = f->e;
    int32_t n_sequences = f->batch->n_sequences;
    if (f->batch->wants_tags && e->config.n_tag_labels > 0) {
        multiply_head(f, &e->tagger, e->x, e->dim_stride, f->n_tokens, e->head_out,
                      e->head_stride, EPILOGUE_BIAS);
        copy_columns(e->head_out, e->head_stride, tags, e->config.n_tag_labels,
                     f->n_tokens);
    }
    if (!f->is_cls_only)
        gather_cls(f);
    multiply_head(f, &e->pre_classifier, e->x, e->dim_stride, n_sequences, e->q,
                  e->dim_stride, EPILOGUE_RELU);
    multiply_head(f, &e->classifier, e->q, e->dim_stride, n_sequences, e->head_out,
                  e->head_stride, EPILOGUE_BIAS);
    copy_columns(e->head_out, e->head_stride, logits, e->config.n_labels, n_sequences);
}

enum status cpu_engine_run(struct engine *engine, const struct batch *batch,
                           float *logits, float *tags, struct error *err) {
    struct cpu_engine *e = (struct cpu_engine *)engine;
    enum status status = batch_check(batch, &e->config, err);
    if (status != STATUS_OK)
        return status;
    struct forward f = {.e = e, .batch = batch, .n_tokens = batch_n_tokens(batch)};
    if (f.n_tokens > engine->info.max_tokens)
        return error_set(err, STATUS_LIMIT,
                         "a batch of %d tokens is over the engine's limit of %d",
                         f.n_tokens, engine->info.max_tokens);
    embed(&f);
    for (int32_t i = 0; i < e->config.n_layers; i++) {
        f.is_cls_only = i == e->config.n_layers - 1 &&
                        !(batch->wants_tags && e->config.n_tag_labels > 0);
        layer_run(&f, &e->layers[i]);
    }
    heads_run(&f, logits, tags);
    if (!engine_is_finite(logits,
                          (size_t)batch->n_sequences * (size_t)e->config.n_labels))
        return error_set(err, STATUS_INTERNAL,
                         "the engine computed a value that is not a number");
    return STATUS_OK;
}
