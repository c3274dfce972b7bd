/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.c - a batch's launches, in their order; on a stream, or into a graph.
 *
 *   embed -> L x [ qkv -> attention -> out + residual -> LayerNorm
 *                  -> up, GELU -> down + residual -> LayerNorm ]
 *         -> tagger on every row  -> [CLS] rows: pre_classifier, ReLU, classifier
 *
 * In the last layer, when no tags are asked for, only the [CLS] rows go on behind the keys
 * and values: they are gathered, and all that follows runs on B rows instead of T. Exact.
 */
#include <math.h>

#include "kernels/cuda/cuda.h"

/* Up to so many tokens a product takes about as long as its launch and its weights do. */
enum { QUERIES_OF_ALL_ROWS = 128 };

/* A forward pass under way. The first failure ends it: what follows is not launched. */
struct pass {
    struct cuda_engine *e;
    const struct cuda_layout *l;
    const char *inputs;
    int32_t token_bucket, sequence_bucket;
    cudaError_t code;
};

static const struct cuda_counts *counts_of(const struct pass *p) {
    return (const void *)p->inputs;
}

static const int32_t *input(const struct pass *p, size_t at) {
    return (const void *)(p->inputs + at);
}

struct cuda_operation cuda_operation_of(struct cuda_engine *e,
                                        enum cuda_product product, int32_t layer) {
    const struct cuda_layer *w = &e->weights.layers[layer];
    const struct cuda_buffers *b = &e->buffers;
    struct cuda_operation o = {.product = product};
    switch (product) {
    case PRODUCT_QKV:
        o.linear = &w->qkv, o.in = b->x, o.out = b->qkv;
        break;
    case PRODUCT_KV:
        o.linear = &w->qkv, o.first = e->inner, o.in = b->x, o.out = b->qkv + e->inner;
        break;
    case PRODUCT_Q:
        o.linear = &w->qkv, o.in = b->first, o.out = b->hidden;
        break;
    case PRODUCT_OUT:
        o.linear = &w->out, o.in = b->context, o.residual = b->x, o.out = b->y;
        break;
    case PRODUCT_UP:
        o.linear = &w->up, o.in = b->x, o.out = b->hidden;
        break;
    case PRODUCT_DOWN:
        o.linear = &w->down, o.in = b->hidden, o.residual = b->x, o.out = b->y;
        break;
    default:
        o.linear = &e->weights.pre_classifier, o.in = b->first, o.out = b->y;
    }
    return o;
}

static void multiply(struct pass *p, const struct cuda_operation *o, int32_t bucket) {
    if (p->code == cudaSuccess)
        p->code = cuda_product_run(p->e, o, bucket);
}

static void embed(struct pass *p) {
    struct cuda_engine *e = p->e;
    const struct cuda_weights *w = &e->weights;
    const struct cuda_embed embed = {.counts = counts_of(p),
                                     .ids = input(p, p->l->ids),
                                     .positions = input(p, p->l->positions),
                                     .words = w->words,
                                     .position_rows = w->positions,
                                     .weight = w->embedding_norm.weight,
                                     .bias = w->embedding_norm.bias,
                                     .x = e->buffers.x,
                                     .dim = e->config.dim,
                                     .width = e->width};
    /* Behind a copy, not a kernel: nothing to overlap with. */
    struct cuda_launch launch = e->launch;
    launch.overlaps = false;
    p->code = cuda_embed(&launch, &embed, p->l->tokens);
}

static void normalize(struct pass *p, const struct cuda_norm *norm, f16 *out,
                      int32_t n_rows) {
    const struct cuda_layer_norm n = {.in = p->e->buffers.y,
                                      .out = out,
                                      .weight = norm->weight,
                                      .bias = norm->bias,
                                      .dim = p->e->config.dim,
                                      .width = p->e->width};
    if (p->code == cudaSuccess)
        p->code = cuda_layer_norm(&p->e->launch, &n, n_rows);
}

static void gather(struct pass *p) {
    struct cuda_engine *e = p->e;
    if (p->code == cudaSuccess)
        p->code =
            cuda_gather(&e->launch, counts_of(p), input(p, p->l->offsets), e->buffers.x,
                        e->buffers.first, e->width, p->l->sequences);
}

static struct cuda_attention attention_of(const struct pass *p) {
    const struct cuda_engine *e = p->e;
    const struct cuda_buffers *b = &e->buffers;
    return (struct cuda_attention){.counts = counts_of(p),
                                   .q = b->qkv,
                                   .k = b->qkv + e->inner,
                                   .v = b->qkv + 2 * e->inner,
                                   .out = b->context,
                                   .q_stride = 3 * e->inner,
                                   .kv_stride = 3 * e->inner,
                                   .out_stride = e->inner,
                                   .n_heads = e->config.n_heads,
                                   .head_width = e->head,
                                   .scale = 1.0f / sqrtf((float)e->config.head_dim)};
}

/* What follows attention: rows of `stream`, which context belongs to. */
static void finish_layer(struct pass *p, int32_t layer, f16 *stream, int32_t bucket) {
    const struct cuda_layer *w = &p->e->weights.layers[layer];
    int32_t n_rows = p->e->buckets.rows[bucket];
    struct cuda_operation out = cuda_operation_of(p->e, PRODUCT_OUT, layer);
    struct cuda_operation up = cuda_operation_of(p->e, PRODUCT_UP, layer);
    struct cuda_operation down = cuda_operation_of(p->e, PRODUCT_DOWN, layer);
    out.residual = up.in = down.residual = stream;
    multiply(p, &out, bucket);
    normalize(p, &w->attention_norm, stream, n_rows);
    multiply(p, &up, bucket);
    multiply(p, &down, bucket);
    normalize(p, &w->output_norm, stream, n_rows);
}

static void full_layer(struct pass *p, int32_t layer) {
    struct cuda_engine *e = p->e;
    struct cuda_operation qkv = cuda_operation_of(e, PRODUCT_QKV, layer);
    struct cuda_attention a = attention_of(p);
    multiply(p, &qkv, p->token_bucket);
    if (p->code == cudaSuccess)
        p->code =
            cuda_attention(&e->launch, &a, (const void *)(p->inputs + p->l->tiles),
                           p->l->max_tiles, p->l->warps);
    finish_layer(p, layer, e->buffers.x, p->token_bucket);
}

/* The last layer when only its [CLS] rows are asked for. In a small batch queries of all rows
 * cost less than a product of their own. */
static void first_rows_layer(struct pass *p, int32_t layer) {
    struct cuda_engine *e = p->e;
    struct cuda_operation kv = cuda_operation_of(e, PRODUCT_KV, layer);
    struct cuda_operation q = cuda_operation_of(e, PRODUCT_Q, layer);
    struct cuda_operation qkv = cuda_operation_of(e, PRODUCT_QKV, layer);
    struct cuda_attention a = attention_of(p);
    a.q_is_packed = p->l->tokens <= QUERIES_OF_ALL_ROWS;
    if (!a.q_is_packed) {
        a.q = q.out;
        a.q_stride = e->inner;
    }
    multiply(p, a.q_is_packed ? &qkv : &kv, p->token_bucket);
    gather(p);
    if (!a.q_is_packed)
        multiply(p, &q, p->sequence_bucket);
    if (p->code == cudaSuccess)
        p->code = cuda_attention_cls(&e->launch, &a, input(p, p->l->offsets),
                                     p->l->sequences);
    finish_layer(p, layer, e->buffers.first, p->sequence_bucket);
}

/* rows [n_rows, width] to n answers each. */
static void answer(struct pass *p, const f16 *rows, const f16 *weights,
                   const float *bias, int32_t n, int32_t n_rows, char *out) {
    const struct cuda_head h = {.in = rows,
                                .weights = weights,
                                .bias = bias,
                                .out = (float *)(void *)out,
                                .width = p->e->width,
                                .n = n};
    if (p->code == cudaSuccess)
        p->code = cuda_head(&p->e->launch, &h, n_rows);
}

cudaError_t cuda_forward(struct cuda_engine *e, const struct cuda_layout *l,
                         const char *inputs) {
    struct pass p = {.e = e,
                     .l = l,
                     .inputs = inputs,
                     .token_bucket = buckets_find(&e->buckets, l->tokens),
                     .sequence_bucket = buckets_find(&e->buckets, l->sequences)};
    const struct cuda_weights *w = &e->weights;
    int32_t last = e->config.n_layers - 1;
    embed(&p);
    for (int32_t i = 0; i < last; i++)
        full_layer(&p, i);
    if (l->wants_tags) {
        full_layer(&p, last);
        gather(&p);
        answer(&p, e->buffers.x, w->tagger, w->tagger_bias, e->config.n_tag_labels,
               l->tokens, e->buffers.outputs + l->tags);
    } else {
        first_rows_layer(&p, last);
    }
    struct cuda_operation pool = cuda_operation_of(e, PRODUCT_POOL, last);
    multiply(&p, &pool, p.sequence_bucket);
    answer(&p, e->buffers.y, w->classifier, w->classifier_bias, e->config.n_labels,
           l->sequences, e->buffers.outputs);
    return p.code;
}
