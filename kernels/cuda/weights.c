/* SPDX-License-Identifier: Apache-2.0
 *
 * weights.c - a checkpoint's tensors, whatever their dtype, to padded fp16 on a device.
 *
 * The block is laid out by one function that runs twice: to measure, and to place. Values
 * are converted on the host, into a copy of the block, and go over in one piece. LayerNorm's
 * weights and the heads' biases stay fp32.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/memory.h"
#include "kernels/cuda/cuda.h"

#define ALIGN 256
#define F16_LARGEST 65504.0f

struct loader {
    struct cuda_engine *e;
    const struct checkpoint *c;
    char *device, *host; /* the blocks; NULL while measuring */
    size_t used;
    float *row; /* one row of the widest tensor */
    struct error *err;
    enum status status;
};

/* Room in the block; NULL while measuring. */
static void *place(struct loader *l, size_t n_values, size_t value_bytes) {
    void *at = l->device ? l->device + l->used : NULL;
    l->used += (n_values * value_bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

static void *host_of(const struct loader *l, const void *device) {
    return l->host + ((const char *)device - l->device);
}

/* Converts n values; false, and says which tensor, when one is out of range. */
static bool convert(struct loader *l, const float *from, f16 *to, int32_t n,
                    const char *name, int32_t layer) {
    for (int32_t i = 0; i < n; i++) {
        if (!(fabsf(from[i]) <= F16_LARGEST)) {
            char where[32] = "";
            if (layer >= 0)
                snprintf(where, sizeof where, "layer %d, ", layer);
            l->status = error_set(l->err, STATUS_INVALID,
                                  "%s%s: fp16 cannot hold the value %g (65504 at most)",
                                  where, name, (double)from[i]);
            return false;
        }
        to[i] = half_from_float(from[i]);
    }
    return true;
}

/* Whether a matrix's rows or columns are those of heads, which are padded one by one. */
struct spread {
    bool rows_by_head, columns_by_head;
};

/* Row i of a matrix -> its row when every head takes `head` rows. */
static int32_t spread_row(const struct cuda_engine *e, int32_t i, bool by_head) {
    int32_t d = e->config.head_dim;
    return by_head ? i / d * e->head + i % d : i;
}

static void fill_matrix(struct loader *l, f16 *device, const struct tensor *t,
                        int32_t stride, struct spread s, const char *name,
                        int32_t layer) {
    if (!l->host || l->status != STATUS_OK)
        return;
    f16 *base = host_of(l, device);
    int32_t n_parts = s.columns_by_head ? l->e->config.n_heads : 1;
    int32_t part = t->n_cols / n_parts;
    for (int32_t r = 0; r < t->n_rows; r++) {
        f16 *to = base + (size_t)spread_row(l->e, r, s.rows_by_head) * (size_t)stride;
        tensor_row_f32(t, r, l->row);
        for (int32_t i = 0; i < n_parts; i++)
            if (!convert(l, l->row + i * part, to + i * l->e->head, part, name, layer))
                return;
    }
}

/* A bias; by_head spreads it as the rows of its matrix. */
static void fill_vector(struct loader *l, f16 *device, const struct tensor *t,
                        bool by_head, const char *name, int32_t layer) {
    if (!l->host || l->status != STATUS_OK)
        return;
    f16 *to = host_of(l, device);
    tensor_row_f32(t, 0, l->row);
    for (int32_t i = 0; i < t->n_cols; i++)
        if (!convert(l, l->row + i, to + spread_row(l->e, i, by_head), 1, name, layer))
            return;
}

static float *vector_f32(struct loader *l, const struct tensor *t, int32_t width) {
    float *device = place(l, (size_t)width, sizeof(float));
    if (l->host && l->status == STATUS_OK)
        tensor_row_f32(t, 0, host_of(l, device));
    return device;
}

static void add_norm(struct loader *l, struct cuda_norm *n,
                     const struct norm_tensors *t) {
    n->weight = vector_f32(l, &t->weight, l->e->width);
    n->bias = vector_f32(l, &t->bias, l->e->width);
}

static f16 *add_table(struct loader *l, const struct tensor *t, const char *name) {
    f16 *device = place(l, (size_t)t->n_rows * (size_t)l->e->width, sizeof(f16));
    fill_matrix(l, device, t, l->e->width, (struct spread){0}, name, -1);
    return device;
}

static void place_linear(struct loader *l, struct cuda_linear *to, int32_t n,
                         int32_t k) {
    to->n = n;
    to->k = k;
    to->weights = place(l, (size_t)n * (size_t)k, sizeof(f16));
    to->bias = place(l, (size_t)n, sizeof(f16));
}

static void add_linear(struct loader *l, struct cuda_linear *to, int32_t n, int32_t k,
                       const struct linear_tensors *t, struct spread s,
                       const char *name, int32_t layer) {
    place_linear(l, to, n, k);
    fill_matrix(l, to->weights, &t->weight, k, s, name, layer);
    fill_vector(l, to->bias, &t->bias, s.rows_by_head, name, layer);
}

static void add_layer(struct loader *l, struct cuda_layer *to, int32_t layer) {
    const struct layer_tensors *t = &l->c->layers[layer];
    const struct cuda_engine *e = l->e;
    const struct linear_tensors *parts[] = {&t->q, &t->k, &t->v};
    static const char *const names[] = {"queries", "keys", "values"};
    const struct spread by_rows = {.rows_by_head = true}, none = {0};
    place_linear(l, &to->qkv, 3 * e->inner, e->width);
    for (int32_t i = 0; i < 3 && l->host; i++) {
        size_t first = (size_t)(i * e->inner);
        fill_matrix(l, to->qkv.weights + first * (size_t)e->width, &parts[i]->weight,
                    e->width, by_rows, names[i], layer);
        fill_vector(l, to->qkv.bias + first, &parts[i]->bias, true, names[i], layer);
    }
    add_linear(l, &to->out, e->width, e->inner, &t->out,
               (struct spread){.columns_by_head = true}, "attention output", layer);
    add_linear(l, &to->up, e->hidden, e->width, &t->up, none, "ffn.lin1", layer);
    add_linear(l, &to->down, e->width, e->hidden, &t->down, none, "ffn.lin2", layer);
    add_norm(l, &to->attention_norm, &t->attention_norm);
    add_norm(l, &to->output_norm, &t->output_norm);
}

/* Everything, in the order of its use. */
static void lay_out(struct loader *l) {
    struct cuda_engine *e = l->e;
    struct cuda_weights *w = &e->weights;
    const struct checkpoint *c = l->c;
    w->words = add_table(l, &c->word_embeddings, "word embeddings");
    w->positions = add_table(l, &c->position_embeddings, "position embeddings");
    add_norm(l, &w->embedding_norm, &c->embedding_norm);
    for (int32_t i = 0; i < e->config.n_layers; i++)
        add_layer(l, &w->layers[i], i);
    add_linear(l, &w->pre_classifier, e->width, e->width, &c->pre_classifier,
               (struct spread){0}, "pre_classifier", -1);
    w->classifier = add_table(l, &c->classifier.weight, "classifier");
    w->classifier_bias = vector_f32(l, &c->classifier.bias, e->config.n_labels);
    if (e->config.n_tag_labels > 0) {
        w->tagger = add_table(l, &c->tagger.weight, "token_classifier");
        w->tagger_bias = vector_f32(l, &c->tagger.bias, e->config.n_tag_labels);
    }
}

size_t cuda_weights_bytes(struct cuda_engine *e, const struct checkpoint *c) {
    struct loader l = {.e = e, .c = c};
    lay_out(&l);
    return l.used;
}

enum status cuda_weights_load(struct cuda_engine *e, const struct checkpoint *c,
                              struct error *err) {
    size_t n_bytes = cuda_weights_bytes(e, c);
    int32_t widest = e->hidden > e->width ? e->hidden : e->width;
    struct loader l = {.e = e, .c = c, .device = e->weight_block, .err = err};
    l.host = memory_aligned(n_bytes);
    l.row = memory_aligned((size_t)widest * sizeof *l.row);
    if (!l.host || !l.row)
        l.status = error_set(err, STATUS_NO_MEMORY,
                             "no memory to convert %zu MB of weights", n_bytes >> 20);
    else
        lay_out(&l);
    if (l.status == STATUS_OK)
        l.status = cuda_check(e,
                              cudaMemcpyAsync(e->weight_block, l.host, n_bytes,
                                              cudaMemcpyHostToDevice, e->launch.stream),
                              "copying the weights", err);
    if (l.status == STATUS_OK)
        l.status = cuda_check(e, cudaStreamSynchronize(e->launch.stream),
                              "copying the weights", err);
    free(l.host);
    free(l.row);
    return l.status;
}
