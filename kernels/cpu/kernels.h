/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.h - what the CPU engine calls: one table of functions an instruction set.
 *
 * Layouts. Activations are rows of floats; a row's stride is a multiple of
 * ACTIVATION_ALIGN floats and what lies behind its last value is zero. A linear layer's
 * weights [n, k] are packed into panels of panel_width output columns:
 *   fp32, bf16   [n / width][k][width]
 *   16-bit pairs [n / width][k / 2][width][2]        (vpdpwssd, vdpbf16ps)
 *   int8 VNNI    [n / width][k / 4][width][4]        (vpdpbusd)
 *   int8 AVX2    [n / 8][k / 8][2][8][4]             (two vpmaddubsw, see gemm_int8_avx2.c)
 * with zeros behind n and k.
 *
 * Exactness. An output value is computed by the same operations in the same order whatever
 * the number of rows, tiles and threads, so packed and single results are equal bit for bit.
 */
#ifndef VIGIL_KERNELS_CPU_KERNELS_H
#define VIGIL_KERNELS_CPU_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/checkpoint.h"

#define ACTIVATION_ALIGN 48 /* floats; 16, 8 and the AVX-512 panel of 48 divide it */
#define VECTOR_SLACK 64     /* bytes that a vector's read may run over */
#define LAYER_NORM_EPS 1e-12f
#define INT16_LEVELS 32767
#define ATTENTION_PANEL 16     /* columns: one AVX-512 vector, two of AVX2 */
#define ATTENTION_QUERY_ROWS 6 /* queries a tile: 12 AVX2 accumulators */

/* What a product reads. int8: value = scale * (byte - zero); int16: scale * integer. */
enum row_format { ROWS_F32, ROWS_BF16, ROWS_INT16, ROWS_INT8 };

struct row_quantum {
    float scale;
    float zero; /* a whole number */
};

/* Rows made ready for a product: the floats themselves, or their encoded form. */
struct rows {
    const void *data;
    size_t stride;                    /* bytes */
    const struct row_quantum *quanta; /* integers: one a row */
};

struct packed_linear {
    void *panels;
    float *bias;       /* [n_padded] */
    float *scale;      /* [n_padded] integers only: of each output column */
    float *column_sum; /* [n_padded] int8 only: sum of a column's int8 weights */
    int32_t n, n_padded, k, k_padded, panel_width;
    size_t panel_bytes;
};

enum epilogue {
    EPILOGUE_BIAS,
    EPILOGUE_RELU,
    EPILOGUE_GELU,
    EPILOGUE_RESIDUAL /* adds the residual's row */
};

/* out[r, c] = epilogue(sum_k in[r, k] * w[c, k] + bias[c]) */
struct product {
    const struct packed_linear *weights;
    struct rows in;
    float *out;
    const float *residual; /* out's shape and stride */
    size_t out_stride;     /* floats */
    enum epilogue epilogue;
};

struct embedding_tables {
    struct tensor words, positions; /* own copies, VECTOR_SLACK bytes behind each */
    const float *norm_weight, *norm_bias;
};

/* One head's attention for the sequence of n_keys tokens. */
struct attention {
    const float *q; /* first query's first value of this head; rows q_stride apart */
    const float *k, *v;                     /* of token 0; rows kv_stride apart */
    float *out;                             /* rows out_stride apart */
    size_t q_stride, kv_stride, out_stride; /* floats */
    int32_t n_queries, n_keys, head_dim;
    float scale;    /* 1 / sqrt(head_dim) */
    float *scratch; /* attention_scratch(n_keys, head_dim) floats, 64-byte aligned */
};

struct cpu_operators {
    /* x = LayerNorm(words[id] + positions[position]): one row of dim values. */
    void (*embed)(const struct embedding_tables *tables, int32_t id, int32_t position,
                  float *x);
    void (*layer_norm)(const float *in, float *out, size_t stride, int32_t n_rows,
                       int32_t dim, const float *weight, const float *bias);
    /* Each row of floats -> bytes in [0, levels], levels 127 or 255; n_values % 16 == 0. */
    void (*quantize)(const float *in, size_t in_stride, uint8_t *out, size_t out_stride,
                     struct row_quantum *quanta, int32_t n_rows, int32_t n_values,
                     int32_t levels);
    void (*attend)(const struct attention *a);
};

typedef void product_rows(const struct product *p, int32_t row_begin, int32_t row_end,
                          int32_t panel_begin, int32_t panel_end);

/* A family of product kernels for one format of weights. */
struct cpu_gemm {
    const char *isa, *dtype;
    enum row_format format;
    int32_t panel_width;
    int32_t k_group;       /* k_padded is a multiple of this */
    int32_t max_rows;      /* of a register tile */
    int32_t weight_levels; /* integers: weights are in [-levels, levels] */
    int32_t row_levels;    /* int8: bytes are in [0, levels] */
    product_rows *run;
    /* Packs weights [n, k] (k_padded values a row, zeros behind k) of one panel.
     * Integers: values are whole numbers already. */
    void (*pack_panel)(const float *values, int32_t k_padded, void *panel);
    /* ROWS_BF16 and ROWS_INT16 (which alone sets quanta). n_values % 16 == 0. */
    void (*encode)(const float *in, size_t in_stride, uint16_t *out, size_t out_stride,
                   struct row_quantum *quanta, int32_t n_rows, int32_t n_values);
    /* Faster than the operators' and as exact as the products, or NULL. */
    void (*attend)(const struct attention *a);
};

/* int16: the largest norm that a row or column of n_values integers is scaled to.
 * Rounding adds up to half of sqrt(n) to it, fp32 arithmetic less than 40; the product of
 * two such norms is under 2^31. */
static inline float int16_norm_limit(int32_t n_values) {
    return 46300.0f - 0.5f * sqrtf((float)n_values);
}

/* The scale of a row or column from its largest magnitude and its norm; 0 for zeros. */
static inline float int16_scale(float largest, float norm, float norm_limit) {
    float by_norm = norm / norm_limit, by_largest = largest / (float)INT16_LEVELS;
    return by_norm < by_largest ? by_largest : by_norm;
}

/* Floats that attend() needs: keys, values and one tile of scores; or, in 16 bits, half of
 * that for keys and values, the scores of 32 queries, and these, twice. */
static inline size_t attention_scratch(int32_t n_keys, int32_t head_dim) {
    size_t n =
        ((size_t)n_keys + ATTENTION_PANEL - 1) / ATTENTION_PANEL * ATTENTION_PANEL;
    size_t d =
        ((size_t)head_dim + ATTENTION_PANEL - 1) / ATTENTION_PANEL * ATTENTION_PANEL;
    size_t floats =
        n * (size_t)head_dim + d * (size_t)n_keys + n * ATTENTION_QUERY_ROWS;
    size_t in_16_bits = n * d + n * 32 + 2 * d * 32;
    return floats > in_16_bits ? floats : in_16_bits;
}

extern const struct cpu_operators operators_portable;
extern const struct cpu_gemm gemm_f32_portable, gemm_bf16_portable, gemm_int8_portable;
#if defined __x86_64__
extern const struct cpu_operators operators_avx2, operators_avx512;
extern const struct cpu_gemm gemm_f32_avx2, gemm_bf16_avx2, gemm_int8_avx2;
void attend_int16_avx512(const struct attention *a);
extern const struct cpu_gemm gemm_f32_avx512, gemm_int8_avx512, gemm_int16_avx512,
    gemm_bf16_avx512;
#endif

#endif
