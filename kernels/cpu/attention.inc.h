/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.inc.h - one head of one sequence: softmax(q k^T * scale) v.
 *
 * Math:    scores[i,j] = sum_d q[i,d] k[j,d]; p[i,j] = e^(scale * (scores[i,j] - max_j));
 *          out[i,d] = sum_j p[i,j] v[j,d] / sum_j p[i,j].
 * Design:  keys are transposed and values copied into panels of 16 columns once a head;
 *          then tiles of a few queries run both products from registers. A tile's scores
 *          (rows x keys) stay in the first-level cache; nothing of size n x n is stored.
 * Limits:  any head_dim, n_keys up to the model's positions.  Bound: FMA ports.
 * Exact:   depends on the one sequence only, so packing changes nothing.
 * Checked: tests/unit/test_kernels.c, every instruction set against plain loops in double.
 */
#ifndef VIGIL_KERNELS_CPU_ATTENTION_INC_H
#define VIGIL_KERNELS_CPU_ATTENTION_INC_H

#include <math.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

enum {
    PANEL = ATTENTION_PANEL,
    VECTORS = PANEL / VF_WIDTH,       /* of a panel's row */
    QUERY_ROWS = ATTENTION_QUERY_ROWS /* of a tile: 6 x 2 AVX2 accumulators */
};

/* Rows of [n, head_dim] -> panels [n / 16][head_dim][16]; zeros behind n. Squares of 8 x 8
 * as far as they go, then what is left one by one. */
static void transpose_keys(const struct attention *a, float *panels) {
    int32_t squares = a->head_dim / 8 * 8;
    for (int32_t first = 0; first < a->n_keys; first += 8) {
        int32_t n = a->n_keys - first < 8 ? a->n_keys - first : 8;
        float *panel = panels + (size_t)(first / PANEL * PANEL) * (size_t)a->head_dim +
                       first % PANEL;
        const float *keys = a->k + (size_t)first * a->kv_stride;
        int32_t d = 0;
        for (; n == 8 && d < squares; d += 8)
            transpose_8x8(keys + d, a->kv_stride, panel + (size_t)d * PANEL, PANEL);
        for (; d < a->head_dim; d++)
            for (int32_t j = 0; j < 8; j++)
                panel[(size_t)d * PANEL + (size_t)j] =
                    j < n ? keys[(size_t)j * a->kv_stride + (size_t)d] : 0.0f;
    }
    int32_t end = (a->n_keys + 7) / 8 * 8;
    if (end % PANEL) { /* the second half of the last panel */
        float *panel = panels + (size_t)(end / PANEL * PANEL) * (size_t)a->head_dim + 8;
        for (int32_t d = 0; d < a->head_dim; d++)
            memset(panel + (size_t)d * PANEL, 0, 8 * sizeof *panel);
    }
}

/* Rows of [n, head_dim] -> panels [head_dim / 16][n][16]; zeros behind head_dim. */
static void copy_values(const struct attention *a, float *panels) {
    for (int32_t first = 0; first < a->head_dim; first += PANEL) {
        int32_t n = a->head_dim - first < PANEL ? a->head_dim - first : PANEL;
        for (int32_t j = 0; j < a->n_keys; j++, panels += PANEL) {
            const float *value = a->v + (size_t)j * a->kv_stride + first;
            if (n == PANEL) {
                for (int i = 0; i < VECTORS; i++)
                    vf_store(panels + i * VF_WIDTH, vf_load(value + i * VF_WIDTH));
                continue;
            }
            memset(panels, 0, PANEL * sizeof *panels);
            memcpy(panels, value, (size_t)n * sizeof *panels);
        }
    }
}

/* out[r, 0..16) = sum_k in[r, k] * panel[k, 0..16), times factor[r] when given. Every loop
 * over accumulators is unrolled, or GCC 12 keeps them in memory. */
SIMD void small_tile(const float *in, size_t in_stride, const float *panel, int32_t k,
                     float *out, size_t out_stride, const float *factor,
                     const int n_rows, int32_t n_columns) {
    vf acc[QUERY_ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < QUERY_ROWS; r++)
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++)
            acc[r][i] = vf_set1(0.0f);
    for (int32_t at = 0; at < k; at++, panel += PANEL) {
        vf b[VECTORS];
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++)
            b[i] = vf_load(panel + i * VF_WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < QUERY_ROWS; r++) {
            if (r >= n_rows)
                continue;
            vf value = vf_set1(in[(size_t)r * in_stride + (size_t)at]);
#pragma GCC unroll 4
            for (int i = 0; i < VECTORS; i++)
                acc[r][i] = vf_fma(value, b[i], acc[r][i]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < QUERY_ROWS; r++) {
        if (r >= n_rows)
            continue;
        float row[PANEL];
        float *to = n_columns == PANEL ? out + (size_t)r * out_stride : row;
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++)
            vf_store(to + i * VF_WIDTH,
                     factor ? vf_mul(acc[r][i], vf_set1(factor[r])) : acc[r][i]);
        if (n_columns < PANEL)
            memcpy(out + (size_t)r * out_stride, row, (size_t)n_columns * sizeof *row);
    }
}

static void small_product(const float *in, size_t in_stride, const float *panel,
                          int32_t k, float *out, size_t out_stride, const float *factor,
                          int32_t n_rows, int32_t n_columns) {
    switch (n_rows) {
    case 6:
        small_tile(in, in_stride, panel, k, out, out_stride, factor, 6, n_columns);
        break;
    case 5:
        small_tile(in, in_stride, panel, k, out, out_stride, factor, 5, n_columns);
        break;
    case 4:
        small_tile(in, in_stride, panel, k, out, out_stride, factor, 4, n_columns);
        break;
    case 3:
        small_tile(in, in_stride, panel, k, out, out_stride, factor, 3, n_columns);
        break;
    case 2:
        small_tile(in, in_stride, panel, k, out, out_stride, factor, 2, n_columns);
        break;
    default:
        small_tile(in, in_stride, panel, k, out, out_stride, factor, 1, n_columns);
        break;
    }
}

/* Scores of one query -> e^(scale * (score - max)); returns 1 / their sum. n_padded is a
 * multiple of PANEL; what lies behind n_keys becomes 0 in effect. */
static float soften_row(float *scores, int32_t n_keys, int32_t n_padded, float scale) {
    for (int32_t j = n_keys; j < n_padded; j++)
        scores[j] = -INFINITY;
    vf largest = vf_load(scores);
    for (int32_t j = VF_WIDTH; j < n_padded; j += VF_WIDTH)
        largest = vf_max(largest, vf_load(scores + j));
    vf top = vf_set1(vf_largest(largest)), scales = vf_set1(scale);
    vf sum = vf_set1(0.0f);
    for (int32_t j = 0; j < n_padded; j += VF_WIDTH) {
        vf p = vf_exp(vf_mul(vf_sub(vf_load(scores + j), top), scales));
        vf_store(scores + j, p);
        sum = vf_add(sum, p);
    }
    return 1.0f / vf_sum(sum);
}

static void attend(const struct attention *a) {
    size_t n_padded = ((size_t)a->n_keys + PANEL - 1) / PANEL * PANEL;
    size_t width_padded = ((size_t)a->head_dim + PANEL - 1) / PANEL * PANEL;
    float *keys = a->scratch;
    float *values = keys + n_padded * (size_t)a->head_dim;
    float *scores = values + width_padded * (size_t)a->n_keys;
    transpose_keys(a, keys);
    copy_values(a, values);
    int32_t n_tiles = (a->n_queries + QUERY_ROWS - 1) / QUERY_ROWS;
    for (int32_t query = 0, rows; query < a->n_queries; query += rows, n_tiles--) {
        rows = (a->n_queries - query + n_tiles - 1) / n_tiles;
        const float *q = a->q + (size_t)query * a->q_stride;
        float *out = a->out + (size_t)query * a->out_stride;
        float inverse_sums[QUERY_ROWS];
        for (size_t j = 0; j < n_padded; j += PANEL)
            small_product(q, a->q_stride, keys + j * (size_t)a->head_dim, a->head_dim,
                          scores + j, n_padded, NULL, rows, PANEL);
        for (int32_t r = 0; r < rows; r++)
            inverse_sums[r] = soften_row(scores + (size_t)r * n_padded, a->n_keys,
                                         (int32_t)n_padded, a->scale);
        for (int32_t d = 0; d < a->head_dim; d += PANEL)
            small_product(scores, n_padded, values + (size_t)d * (size_t)a->n_keys,
                          a->n_keys, out + d, a->out_stride, inverse_sums, rows,
                          a->head_dim - d < PANEL ? a->head_dim - d : PANEL);
    }
}

#endif
