/* SPDX-License-Identifier: Apache-2.0
 *
 * pack.c - a checkpoint's tensors -> the layouts that the products read (kernels.h).
 *
 * int8: a column's weights w become round(w / scale) with scale = max |w| / levels. A
 * checkpoint that is int8 already (levels 127) comes through unchanged where the kernel
 * takes 127 levels, and is rounded once more where it takes 63 (AVX2).
 * int16: the scale also keeps the column's norm under int16_norm_limit.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cpu/cpu.h"

static size_t round_up(size_t n, size_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* int16: quantises one column in place and returns its scale. */
static float quantize_column_int16(float *values, int32_t k) {
    float largest = 0.0f;
    double squares = 0.0;
    for (int32_t i = 0; i < k; i++) {
        largest = fmaxf(largest, fabsf(values[i]));
        squares += (double)values[i] * (double)values[i];
    }
    float scale = int16_scale(largest, (float)sqrt(squares), int16_norm_limit(k));
    float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int32_t i = 0; i < k; i++)
        values[i] =
            fminf(fmaxf(rintf(values[i] * inverse), -INT16_LEVELS), INT16_LEVELS);
    return scale;
}

/* int8: quantises one column in place; returns its scale, adds up its weights. */
static float quantize_column(float *values, int32_t k, int32_t levels, float *sum) {
    float largest = 0.0f, total = 0.0f;
    for (int32_t i = 0; i < k; i++)
        largest = fmaxf(largest, fabsf(values[i]));
    float inverse = largest > 0.0f ? (float)levels / largest : 0.0f;
    for (int32_t i = 0; i < k; i++) {
        values[i] = rintf(values[i] * inverse);
        total += values[i];
    }
    *sum = total;
    return largest / (float)levels;
}

/* Where row `row` of the stacked parts lies. */
static const struct linear_tensors *find_part(const struct linear_tensors *const *parts,
                                              int32_t n_parts, int32_t *row) {
    int32_t i = 0;
    while (i < n_parts - 1 && *row >= parts[i]->weight.n_rows)
        *row -= parts[i++]->weight.n_rows;
    return parts[i];
}

static bool linear_allocate(struct cpu_engine *e, const struct cpu_gemm *gemm,
                            struct packed_linear *w) {
    size_t n_panels = (size_t)w->n_padded / (size_t)gemm->panel_width;
    size_t value_bytes = gemm->format == ROWS_INT8          ? 1
                         : strcmp(gemm->dtype, "bf16") == 0 ? 2
                                                            : sizeof(float);
    size_t vector_bytes = (size_t)w->n_padded * sizeof(float);
    w->panel_bytes = (size_t)gemm->panel_width * (size_t)w->k_padded * value_bytes;
    w->panels = cpu_engine_block(e, n_panels * w->panel_bytes);
    w->bias = cpu_engine_block(e, vector_bytes);
    w->scale = cpu_engine_block(e, vector_bytes);
    w->column_sum = cpu_engine_block(e, vector_bytes);
    return w->panels && w->bias && w->scale && w->column_sum;
}

/* Packs the rows of the parts, one part under the other, as one layer. values is room for
 * panel_width * k_padded floats. */
static bool linear_pack(struct cpu_engine *e, const struct cpu_gemm *gemm,
                        const struct linear_tensors *const *parts, int32_t n_parts,
                        float *values, struct packed_linear *w) {
    int32_t n = 0, k = parts[0]->weight.n_cols, width = gemm->panel_width;
    for (int32_t i = 0; i < n_parts; i++)
        n += parts[i]->weight.n_rows;
    *w = (struct packed_linear){
        .n = n,
        .n_padded = (int32_t)round_up((size_t)n, (size_t)width),
        .k = k,
        .k_padded = (int32_t)round_up((size_t)k, (size_t)gemm->k_group),
        .panel_width = width,
    };
    if (!linear_allocate(e, gemm, w))
        return false;
    int32_t bias_at = 0;
    for (int32_t i = 0; i < n_parts; bias_at += parts[i++]->bias.n_cols)
        tensor_row_f32(&parts[i]->bias, 0, w->bias + bias_at);
    for (int32_t first = 0; first < w->n_padded; first += width) {
        memset(values, 0, (size_t)width * (size_t)w->k_padded * sizeof *values);
        for (int32_t c = first; c < first + width && c < n; c++) {
            float *column = values + (size_t)(c - first) * (size_t)w->k_padded;
            int32_t row = c;
            const struct linear_tensors *part = find_part(parts, n_parts, &row);
            tensor_row_f32(&part->weight, row, column);
            if (gemm->format == ROWS_INT8)
                w->scale[c] =
                    quantize_column(column, k, gemm->weight_levels, &w->column_sum[c]);
            else if (gemm->format == ROWS_INT16)
                w->scale[c] = quantize_column_int16(column, k);
        }
        gemm->pack_panel(values, w->k_padded,
                         (char *)w->panels + (size_t)(first / width) * w->panel_bytes);
    }
    return true;
}

static float *vector_copy(struct cpu_engine *e, const struct tensor *t) {
    float *v =
        cpu_engine_block(e, round_up((size_t)t->n_cols, ACTIVATION_ALIGN) * sizeof *v);
    if (v)
        tensor_row_f32(t, 0, v);
    return v;
}

static bool norm_copy(struct cpu_engine *e, struct cpu_norm *n,
                      const struct norm_tensors *t) {
    n->weight = vector_copy(e, &t->weight);
    n->bias = vector_copy(e, &t->bias);
    return n->weight && n->bias;
}

/* Embeddings stay in the file's dtype: one row is read a token. */
static bool table_copy(struct cpu_engine *e, const struct tensor *t,
                       struct tensor *out) {
    static const size_t value_bytes[] = {
        [DTYPE_F32] = 4, [DTYPE_F16] = 2, [DTYPE_BF16] = 2, [DTYPE_I8] = 1};
    size_t n_bytes = (size_t)t->n_rows * (size_t)t->n_cols * value_bytes[t->dtype];
    void *data = cpu_engine_block(e, n_bytes + VECTOR_SLACK);
    if (!data)
        return false;
    memcpy(data, t->data, n_bytes);
    *out = *t;
    out->data = data;
    if (t->row_scale) {
        float *scale = cpu_engine_block(e, (size_t)t->n_rows * sizeof *scale);
        if (!scale)
            return false;
        memcpy(scale, t->row_scale, (size_t)t->n_rows * sizeof *scale);
        out->row_scale = scale;
    }
    return true;
}

static bool embeddings_copy(struct cpu_engine *e, const struct checkpoint *c) {
    struct cpu_norm norm;
    if (!norm_copy(e, &norm, &c->embedding_norm))
        return false;
    e->embeddings.norm_weight = norm.weight;
    e->embeddings.norm_bias = norm.bias;
    return table_copy(e, &c->word_embeddings, &e->embeddings.words) &&
           table_copy(e, &c->position_embeddings, &e->embeddings.positions);
}

static bool one_pack(struct cpu_engine *e, const struct cpu_gemm *gemm,
                     const struct linear_tensors *t, float *values,
                     struct packed_linear *w) {
    return linear_pack(e, gemm, &t, 1, values, w);
}

static bool layer_pack(struct cpu_engine *e, const struct layer_tensors *t,
                       float *values, struct cpu_layer *l) {
    const struct linear_tensors *kv[] = {&t->k, &t->v};
    return one_pack(e, e->gemm, &t->q, values, &l->q) &&
           linear_pack(e, e->gemm, kv, 2, values, &l->kv) &&
           one_pack(e, e->gemm, &t->out, values, &l->out) &&
           one_pack(e, e->gemm, &t->up, values, &l->up) &&
           one_pack(e, e->gemm, &t->down, values, &l->down) &&
           norm_copy(e, &l->attention_norm, &t->attention_norm) &&
           norm_copy(e, &l->output_norm, &t->output_norm);
}

static bool weights_pack(struct cpu_engine *e, const struct checkpoint *c,
                         float *values) {
    if (!embeddings_copy(e, c))
        return false;
    for (int32_t i = 0; i < c->config.n_layers; i++)
        if (!layer_pack(e, &c->layers[i], values, &e->layers[i]))
            return false;
    if (c->tagger.weight.data &&
        !one_pack(e, e->float_gemm, &c->tagger, values, &e->tagger))
        return false;
    return one_pack(e, e->float_gemm, &c->pre_classifier, values, &e->pre_classifier) &&
           one_pack(e, e->float_gemm, &c->classifier, values, &e->classifier);
}

enum status cpu_engine_pack(struct cpu_engine *e, const struct checkpoint *c,
                            struct error *err) {
    int32_t k =
        c->config.dim > c->config.hidden_dim ? c->config.dim : c->config.hidden_dim;
    size_t n_values = ACTIVATION_ALIGN * round_up((size_t)k, ACTIVATION_ALIGN);
    float *values = memory_aligned(n_values * sizeof *values);
    bool is_done = values && weights_pack(e, c, values);
    free(values);
    return is_done ? STATUS_OK
                   : error_set(err, STATUS_NO_MEMORY,
                               "no memory for the model's weights (%zu bytes so far)",
                               e->engine.info.n_bytes);
}
