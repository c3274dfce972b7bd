/* SPDX-License-Identifier: Apache-2.0
 *
 * reference.c - DistilBERT's forward pass in plain C, one sequence at a time.
 *
 *   ids -> embeddings + positions -> LayerNorm -> L x [ attention -> + -> LayerNorm
 *       -> up, GELU, down -> + -> LayerNorm ] -> tagger on every token
 *                                             -> row 0: pre_classifier, ReLU, classifier
 *
 * Math:    softmax(q k^T / sqrt(D)) v a head; GELU in its erf form; LayerNorm with two-pass
 *          statistics and eps 1e-12 (transformers' DistilBERT).
 * Design:  no tiling, no SIMD, no threads, nothing skipped: every row of every layer.
 *          Products accumulate in fp32, or in fp64 when asked for.
 * Checked: tests/unit/test_reference.c against logits and tags that PyTorch wrote.
 */
#include "model/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define LAYER_NORM_EPS 1e-12

struct linear {
    float *weight; /* [n_out, n_in] */
    float *bias;   /* [n_out] */
    int32_t n_in, n_out;
};

struct norm {
    float *weight, *bias; /* [C] */
};

struct layer {
    struct linear q, k, v, out, up, down;
    struct norm attention_norm, output_norm;
};

struct reference {
    struct engine engine;
    int32_t n_layers, n_heads, dim, head_dim, hidden_dim;
    bool is_wide; /* accumulate in fp64 */
    bool has_relu;
    struct model_config bounds; /* sizes only, for batch_check; its labels are NULL */
    float *word_embeddings, *position_embeddings;
    struct norm embedding_norm;
    struct layer *layers; /* [L] */
    struct linear pre_classifier, classifier, tagger;
    float *x, *q, *k, *v, *context; /* [P,C] each */
    float *hidden;                  /* [P,F] */
    float *scores;                  /* [P] */
};

/* ---- loading ---------------------------------------------------------------------- */

static float *matrix_copy(struct reference *r, const struct tensor *t) {
    size_t n_values = (size_t)t->n_rows * (size_t)t->n_cols;
    float *m = memory_aligned(n_values * sizeof *m);
    if (!m)
        return NULL;
    for (int32_t row = 0; row < t->n_rows; row++)
        tensor_row_f32(t, row, m + (size_t)row * (size_t)t->n_cols);
    r->engine.info.n_bytes += n_values * sizeof *m;
    return m;
}

static bool linear_load(struct reference *r, struct linear *l,
                        const struct linear_tensors *t) {
    if (!t->weight.data)
        return true;
    l->n_out = t->weight.n_rows;
    l->n_in = t->weight.n_cols;
    l->weight = matrix_copy(r, &t->weight);
    l->bias = matrix_copy(r, &t->bias);
    return l->weight && l->bias;
}

static bool norm_load(struct reference *r, struct norm *n,
                      const struct norm_tensors *t) {
    n->weight = matrix_copy(r, &t->weight);
    n->bias = matrix_copy(r, &t->bias);
    return n->weight && n->bias;
}

static bool layer_load(struct reference *r, struct layer *l,
                       const struct layer_tensors *t) {
    return linear_load(r, &l->q, &t->q) && linear_load(r, &l->k, &t->k) &&
           linear_load(r, &l->v, &t->v) && linear_load(r, &l->out, &t->out) &&
           linear_load(r, &l->up, &t->up) && linear_load(r, &l->down, &t->down) &&
           norm_load(r, &l->attention_norm, &t->attention_norm) &&
           norm_load(r, &l->output_norm, &t->output_norm);
}

static bool scratch_make(struct reference *r) {
    size_t rows = (size_t)r->bounds.max_positions;
    size_t row_bytes = (size_t)r->dim * sizeof(float);
    float **blocks[] = {&r->x, &r->q, &r->k, &r->v, &r->context};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (!(*blocks[i] = memory_aligned(rows * row_bytes)))
            return false;
    r->hidden = memory_aligned(rows * (size_t)r->hidden_dim * sizeof(float));
    r->scores = memory_aligned(rows * sizeof(float));
    return r->hidden && r->scores;
}

static bool weights_load(struct reference *r, const struct checkpoint *c) {
    r->word_embeddings = matrix_copy(r, &c->word_embeddings);
    r->position_embeddings = matrix_copy(r, &c->position_embeddings);
    if (!r->word_embeddings || !r->position_embeddings ||
        !norm_load(r, &r->embedding_norm, &c->embedding_norm))
        return false;
    for (int32_t i = 0; i < r->n_layers; i++)
        if (!layer_load(r, &r->layers[i], &c->layers[i]))
            return false;
    return linear_load(r, &r->pre_classifier, &c->pre_classifier) &&
           linear_load(r, &r->classifier, &c->classifier) &&
           linear_load(r, &r->tagger, &c->tagger);
}

static void linear_free(struct linear *l) {
    free(l->weight);
    free(l->bias);
}

static void norm_free(struct norm *n) {
    free(n->weight);
    free(n->bias);
}

static void reference_close(struct engine *engine) {
    struct reference *r = (struct reference *)engine;
    for (int32_t i = 0; r->layers && i < r->n_layers; i++) {
        struct layer *l = &r->layers[i];
        struct linear *linears[] = {&l->q, &l->k, &l->v, &l->out, &l->up, &l->down};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++)
            linear_free(linears[j]);
        norm_free(&l->attention_norm);
        norm_free(&l->output_norm);
    }
    linear_free(&r->pre_classifier);
    linear_free(&r->classifier);
    linear_free(&r->tagger);
    norm_free(&r->embedding_norm);
    float *blocks[] = {r->word_embeddings,
                       r->position_embeddings,
                       r->x,
                       r->q,
                       r->k,
                       r->v,
                       r->context,
                       r->hidden,
                       r->scores};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    free(r->layers);
    free(r);
}

/* ---- operators -------------------------------------------------------------------- */

static float dot(const struct reference *r, const float *a, const float *b, int32_t n) {
    if (r->is_wide) {
        double sum = 0;
        for (int32_t i = 0; i < n; i++)
            sum += (double)a[i] * (double)b[i];
        return (float)sum;
    }
    float sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* y[r] = W x[r] + b for n_rows rows. */
static void linear_apply(const struct reference *r, const struct linear *l,
                         const float *x, int32_t n_rows, float *y) {
    for (int32_t row = 0; row < n_rows; row++)
        for (int32_t o = 0; o < l->n_out; o++)
            y[(size_t)row * (size_t)l->n_out + (size_t)o] =
                l->bias[o] + dot(r, x + (size_t)row * (size_t)l->n_in,
                                 l->weight + (size_t)o * (size_t)l->n_in, l->n_in);
}

static void norm_apply(const struct norm *n, float *x, int32_t n_rows, int32_t dim) {
    for (int32_t row = 0; row < n_rows; row++, x += dim) {
        double mean = 0, variance = 0;
        for (int32_t i = 0; i < dim; i++)
            mean += (double)x[i];
        mean /= dim;
        for (int32_t i = 0; i < dim; i++)
            variance += ((double)x[i] - mean) * ((double)x[i] - mean);
        double inverse = 1.0 / sqrt(variance / dim + LAYER_NORM_EPS);
        for (int32_t i = 0; i < dim; i++)
            x[i] = (float)(((double)x[i] - mean) * inverse * (double)n->weight[i] +
                           (double)n->bias[i]);
    }
}

static void activation_apply(const struct reference *r, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i];
        x[i] = r->has_relu ? (v > 0 ? x[i] : 0.0f)
                           : (float)(0.5 * v * (1.0 + erf(v * 0.70710678118654752440)));
    }
}

static void add_rows(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* context[t] = sum over s of softmax(q[t] k[s] / sqrt(D)) v[s], head by head. */
static void attention_apply(const struct reference *r, int32_t n_tokens) {
    int32_t dim = r->dim, width = r->head_dim;
    float scale = (float)(1.0 / sqrt((double)width));
    for (int32_t head = 0; head < r->n_heads; head++) {
        size_t at = (size_t)head * (size_t)width;
        for (int32_t t = 0; t < n_tokens; t++) {
            const float *q = r->q + (size_t)t * (size_t)dim + at;
            float *context = r->context + (size_t)t * (size_t)dim + at;
            double max = -INFINITY, sum = 0;
            for (int32_t s = 0; s < n_tokens; s++) {
                r->scores[s] =
                    scale * dot(r, q, r->k + (size_t)s * (size_t)dim + at, width);
                max = fmax(max, (double)r->scores[s]);
            }
            for (int32_t s = 0; s < n_tokens; s++) {
                r->scores[s] = (float)exp((double)r->scores[s] - max);
                sum += (double)r->scores[s];
            }
            for (int32_t d = 0; d < width; d++) {
                double value = 0;
                for (int32_t s = 0; s < n_tokens; s++)
                    value += (double)r->scores[s] *
                             (double)r->v[(size_t)s * (size_t)dim + at + (size_t)d];
                context[d] = (float)(value / sum);
            }
        }
    }
}

static void layer_apply(struct reference *r, const struct layer *l, int32_t n_tokens) {
    size_t n_values = (size_t)n_tokens * (size_t)r->dim;
    linear_apply(r, &l->q, r->x, n_tokens, r->q);
    linear_apply(r, &l->k, r->x, n_tokens, r->k);
    linear_apply(r, &l->v, r->x, n_tokens, r->v);
    attention_apply(r, n_tokens);
    linear_apply(r, &l->out, r->context, n_tokens, r->q);
    add_rows(r->x, r->q, n_values);
    norm_apply(&l->attention_norm, r->x, n_tokens, r->dim);
    linear_apply(r, &l->up, r->x, n_tokens, r->hidden);
    activation_apply(r, r->hidden, (size_t)n_tokens * (size_t)r->hidden_dim);
    linear_apply(r, &l->down, r->hidden, n_tokens, r->q);
    add_rows(r->x, r->q, n_values);
    norm_apply(&l->output_norm, r->x, n_tokens, r->dim);
}

static void embed(const struct reference *r, const int32_t *ids, int32_t n_tokens) {
    size_t dim = (size_t)r->dim;
    for (int32_t t = 0; t < n_tokens; t++) {
        const float *word = r->word_embeddings + (size_t)ids[t] * dim;
        const float *position = r->position_embeddings + (size_t)t * dim;
        for (size_t i = 0; i < dim; i++)
            r->x[(size_t)t * dim + i] = word[i] + position[i];
    }
    norm_apply(&r->embedding_norm, r->x, n_tokens, r->dim);
}

/* ---- the engine ------------------------------------------------------------------- */

static enum status reference_run(struct engine *engine, const struct batch *batch,
                                 float *logits, float *tags, struct error *err) {
    struct reference *r = (struct reference *)engine;
    enum status status = batch_check(batch, &r->bounds, err);
    if (status != STATUS_OK)
        return status;
    for (int32_t b = 0; b < batch->n_sequences; b++) {
        int32_t begin = batch->offsets[b];
        int32_t n_tokens = batch->offsets[b + 1] - begin;
        embed(r, batch->ids + begin, n_tokens);
        for (int32_t i = 0; i < r->n_layers; i++)
            layer_apply(r, &r->layers[i], n_tokens);
        if (batch->wants_tags && r->tagger.weight)
            linear_apply(r, &r->tagger, r->x, n_tokens,
                         tags + (size_t)begin * (size_t)r->tagger.n_out);
        linear_apply(r, &r->pre_classifier, r->x, 1, r->q);
        for (int32_t i = 0; i < r->dim; i++)
            r->q[i] = r->q[i] > 0 ? r->q[i] : 0;
        linear_apply(r, &r->classifier, r->q, 1,
                     logits + (size_t)b * (size_t)r->classifier.n_out);
    }
    return STATUS_OK;
}

enum status reference_open(const struct engine_options *options,
                           const struct checkpoint *c, struct engine **out,
                           struct error *err) {
    static const struct engine_ops ops = {.run = reference_run,
                                          .close = reference_close};
    const char *dtype = options->dtype ? options->dtype : "auto";
    bool is_wide = strcmp(dtype, "fp64") == 0;
    if (!is_wide && strcmp(dtype, "auto") != 0 && strcmp(dtype, "fp32") != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the reference engine computes in fp32 or fp64, not in %s",
                         dtype);
    struct reference *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the reference engine");
    r->engine.ops = &ops;
    r->is_wide = is_wide;
    r->has_relu = c->config.has_relu_activation;
    r->n_layers = c->config.n_layers;
    r->n_heads = c->config.n_heads;
    r->dim = c->config.dim;
    r->head_dim = c->config.head_dim;
    r->hidden_dim = c->config.hidden_dim;
    r->bounds = c->config;
    r->bounds.labels = r->bounds.tag_labels = NULL;
    int32_t max_tokens = options->max_tokens ? options->max_tokens : 1024;
    if (max_tokens < r->bounds.max_positions)
        max_tokens = r->bounds.max_positions;
    r->engine.info = (struct engine_info){.device = "reference",
                                          .isa = "",
                                          .dtype = is_wide ? "fp64" : "fp32",
                                          .n_threads = 1,
                                          .max_tokens = max_tokens,
                                          .max_sequences = max_tokens,
                                          .n_in_flight = 1};
    r->layers = calloc((size_t)r->n_layers, sizeof *r->layers);
    if (!r->layers || !scratch_make(r) || !weights_load(r, c)) {
        reference_close(&r->engine);
        return error_set(err, STATUS_NO_MEMORY, "no memory for the model's weights");
    }
    *out = &r->engine;
    return STATUS_OK;
}
