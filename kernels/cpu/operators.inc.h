/* SPDX-License-Identifier: Apache-2.0
 *
 * operators.inc.h - what happens between the products: embedding, LayerNorm, quantising.
 * Attention is in attention.inc.h. Compiled once for each instruction set: operators_*.c
 * define OPERATORS and include this file.
 *
 * Math:    LayerNorm: y = (x - mean) / sqrt(variance + eps) * weight + bias, two passes in
 *          fp32 (one pass, E[x^2] - mean^2, cancels when |mean| >> deviation).
 *          quantize: byte = round(x / scale) + zero, scale = (max - min) / levels, with
 *          min <= 0 <= max so that 0 stays exact.
 * Limits:  any dim; a row's stride is a multiple of ACTIVATION_ALIGN and the values behind
 *          dim are zero, before and after.  Bound: memory.
 * Checked: tests/unit/test_kernels.c, every instruction set against plain loops.
 */
#include <math.h>

#include "kernels/cpu/attention.inc.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

static void normalize_row(const float *in, float *out, int32_t dim, const float *weight,
                          const float *bias) {
    int32_t whole = dim - dim % VF_WIDTH;
    vf sums = vf_set1(0.0f);
    for (int32_t i = 0; i < whole; i += VF_WIDTH)
        sums = vf_add(sums, vf_load(in + i));
    float sum = vf_sum(sums);
    for (int32_t i = whole; i < dim; i++)
        sum += in[i];
    float mean = sum / (float)dim;
    vf squares = vf_set1(0.0f), means = vf_set1(mean);
    for (int32_t i = 0; i < whole; i += VF_WIDTH) {
        vf d = vf_sub(vf_load(in + i), means);
        squares = vf_fma(d, d, squares);
    }
    float square = vf_sum(squares);
    for (int32_t i = whole; i < dim; i++)
        square += (in[i] - mean) * (in[i] - mean);
    float inverse = 1.0f / sqrtf(square / (float)dim + LAYER_NORM_EPS);
    vf inverses = vf_set1(inverse);
    for (int32_t i = 0; i < whole; i += VF_WIDTH) {
        vf d = vf_mul(vf_sub(vf_load(in + i), means), inverses);
        vf_store(out + i, vf_fma(d, vf_load(weight + i), vf_load(bias + i)));
    }
    for (int32_t i = whole; i < dim; i++)
        out[i] = (in[i] - mean) * inverse * weight[i] + bias[i];
}

static void layer_norm(const float *in, float *out, size_t stride, int32_t n_rows,
                       int32_t dim, const float *weight, const float *bias) {
    for (int32_t row = 0; row < n_rows; row++, in += stride, out += stride)
        normalize_row(in, out, dim, weight, bias);
}

/* x = row of t (add: x += row of t). Reads and writes up to the end of the last vector: the
 * table has VECTOR_SLACK bytes behind it, and x goes on to its stride. */
static void read_row(const struct tensor *t, int32_t row, bool add, float *x) {
    size_t at = (size_t)row * (size_t)t->n_cols;
    vf scale = vf_set1(t->dtype == DTYPE_I8 ? t->row_scale[row] : 1.0f);
    for (int32_t i = 0; i < t->n_cols; i += VF_WIDTH) {
        vf v = vf_set1(0.0f);
        switch (t->dtype) {
        case DTYPE_F32:
            v = vf_load((const float *)t->data + at + i);
            break;
        case DTYPE_F16:
            v = vf_from_half((const uint16_t *)t->data + at + i);
            break;
        case DTYPE_BF16:
            v = vf_from_bfloat((const uint16_t *)t->data + at + i);
            break;
        case DTYPE_I8:
            v = vf_mul(vf_from_int8((const int8_t *)t->data + at + i), scale);
            break;
        }
        vf_store(x + i, add ? vf_add(vf_load(x + i), v) : v);
    }
}

static void embed(const struct embedding_tables *tables, int32_t id, int32_t position,
                  float *x) {
    int32_t dim = tables->words.n_cols;
    read_row(&tables->words, id, false, x);
    read_row(&tables->positions, position, true, x);
    for (int32_t i = dim; i % VF_WIDTH; i++)
        x[i] = 0.0f;
    normalize_row(x, x, dim, tables->norm_weight, tables->norm_bias);
}

static void quantize(const float *in, size_t in_stride, uint8_t *out, size_t out_stride,
                     struct row_quantum *quanta, int32_t n_rows, int32_t n_values,
                     int32_t levels) {
    vf top = vf_set1((float)levels);
    for (int32_t row = 0; row < n_rows; row++, in += in_stride, out += out_stride) {
        vf lows = vf_set1(0.0f), highs = vf_set1(0.0f);
        for (int32_t i = 0; i < n_values; i += VF_WIDTH) {
            vf v = vf_load(in + i);
            lows = vf_min(lows, v);
            highs = vf_max(highs, v);
        }
        float low = -vf_largest(vf_sub(vf_set1(0.0f), lows)), high = vf_largest(highs);
        float range = high - low;
        float inverse = range > 0.0f ? (float)levels / range : 0.0f;
        float zero = rintf(-low * inverse);
        quanta[row] =
            (struct row_quantum){.scale = range / (float)levels, .zero = zero};
        vf inverses = vf_set1(inverse), zeros = vf_set1(zero);
        for (int32_t i = 0; i < n_values; i += VF_WIDTH) {
            vf v = vf_add(vf_round(vf_mul(vf_load(in + i), inverses)), zeros);
            vf_store_bytes(out + i, vf_min(vf_max(v, vf_set1(0.0f)), top));
        }
    }
}

const struct cpu_operators OPERATORS = {
    .embed = embed, .layer_norm = layer_norm, .quantize = quantize, .attend = attend};
