/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_avx512.c - one head of one sequence in 16-bit integers, on AVX-512 VNNI, for
 * engines whose products are in 16 or 8 bits.
 *
 * Math:    attention.inc.h's. Queries are int16 with a scale each, keys and values int16
 *          with a scale a head, probabilities int16 with a factor a query; softmax is fp32.
 * Sums:    cannot wrap. scores: |q|, |k| <= sqrt((2^31 - 1) / head_dim). context:
 *          |v| <= 8191 and a query's probabilities add up to 261,000 + n_keys / 2 at most,
 *          so under 2^31 up to 2,000 keys.
 * Design:  a lane is a query: softmax then needs no sums or maxima across lanes. 16 or 32
 *          queries are transposed into [head_dim / 2][queries][2]; keys [n][head_dim] and
 *          value pairs [n / 2][head_dim][2] are broadcast; tiles are 8 x 32. A block's
 *          scores are [n][32].
 * Limits:  head_dim % 16 == 0, n_keys <= 2,000; the fp32 way otherwise.
 * Exact:   depends on the one sequence only, and a query's result on no other query.
 * Checked: tests/unit/test_kernels.c.
 */
#include "kernels/cpu/dot16.h"
#include "kernels/cpu/kernels.h"

#define LOG2_E 1.44269504f

enum {
    LANES = 16,
    QUERIES = 32,  /* of a block: two vectors */
    TILE_ROWS = 8, /* keys, or dimensions */
    VALUE_LEVELS = 8191,
    SUM_LEVELS = 261000,
    MAX_KEYS = 2000,
    MAX_DIM = 256
};

/* A head, ready; a block of queries under way. */
struct head {
    const struct attention *a;
    int32_t n_padded; /* keys, to a multiple of TILE_ROWS */
    float levels;     /* of queries and keys */
    float key_scale, value_scale;
    int16_t *keys;   /* [n_padded][head_dim] */
    int32_t *values; /* [n_padded / 2][head_dim] pairs */
    float *scores;   /* [n_padded][QUERIES], then pairs of probabilities in place */
};

SIMD vf magnitude(vf v) {
    return vf_max(v, vf_sub(vf_set1(0.0f), v));
}

static float largest_of(const float *rows, size_t stride, int32_t n_rows, int32_t n) {
    vf largest = vf_set1(0.0f);
    for (int32_t j = 0; j < n_rows; j++, rows += stride)
        for (int32_t d = 0; d < n; d += LANES)
            largest = vf_max(largest, magnitude(vf_load(rows + d)));
    return vf_largest(largest);
}

static float inverse_of(float largest, float levels) {
    return largest > 0.0f ? levels / largest : 0.0f;
}

static void pack_keys(struct head *h) {
    const struct attention *a = h->a;
    float largest = largest_of(a->k, a->kv_stride, a->n_keys, a->head_dim);
    vf inverse = vf_set1(inverse_of(largest, h->levels));
    int16_t *out = h->keys;
    for (int32_t j = 0; j < a->n_keys; j++)
        for (int32_t d = 0; d < a->head_dim; d += LANES, out += LANES)
            vf_store_int16(
                out, vf_mul(vf_load(a->k + (size_t)j * a->kv_stride + d), inverse));
    memset(out, 0, (size_t)((h->n_padded - a->n_keys) * a->head_dim) * sizeof *out);
    h->key_scale = largest / h->levels;
}

static void pack_values(struct head *h) {
    const struct attention *a = h->a;
    float largest = largest_of(a->v, a->kv_stride, a->n_keys, a->head_dim);
    vf inverse = vf_set1(inverse_of(largest, VALUE_LEVELS));
    int32_t *out = h->values;
    for (int32_t j = 0; j < a->n_keys; j += 2) {
        const float *even = a->v + (size_t)j * a->kv_stride;
        bool has_odd = j + 1 < a->n_keys;
        const float *odd = has_odd ? even + a->kv_stride : even;
        vf odd_inverse = has_odd ? inverse : vf_set1(0.0f);
        for (int32_t d = 0; d < a->head_dim; d += LANES, out += LANES)
            dot16_store_pairs(out, vf_mul(vf_load(even + d), inverse),
                              vf_mul(vf_load(odd + d), odd_inverse));
    }
    h->value_scale = largest / (float)VALUE_LEVELS;
}

/* n rows of head_dim values -> [head_dim][QUERIES]; lanes behind n are zero. */
static void transpose_queries(const float *rows, size_t stride, int32_t n,
                              int32_t head_dim, float *out) {
    float rest[8][MAX_DIM];
    for (int32_t first = 0; first < QUERIES; first += 8, rows += 8 * stride, out += 8) {
        const float *from = rows;
        size_t from_stride = stride;
        if (n - first < 8) {
            for (int32_t j = 0; j < 8; j++) {
                if (j < n - first)
                    memcpy(rest[j], rows + (size_t)j * stride,
                           (size_t)head_dim * sizeof *rows);
                else
                    memset(rest[j], 0, (size_t)head_dim * sizeof *rows);
            }
            from = rest[0];
            from_stride = MAX_DIM;
        }
        for (int32_t d = 0; d < head_dim; d += 8)
            transpose_8x8(from + d, from_stride, out + d * QUERIES, QUERIES);
        if (first + 8 >= n && first % LANES)
            return; /* the second vector is not looked at */
    }
}

/* [head_dim][QUERIES] floats -> pairs [head_dim / 2][QUERIES]; scales of the lanes. */
SIMD void quantize_queries(const struct head *h, const float *in, int32_t *out,
                           vf *scales, const int n_vectors) {
    int32_t head_dim = h->a->head_dim;
    for (int i = 0; i < n_vectors; i++, in += LANES, out += LANES) {
        vf largest = vf_set1(0.0f);
        for (int32_t d = 0; d < head_dim; d++)
            largest = vf_max(largest, magnitude(vf_load(in + d * QUERIES)));
        scales[i] = vf_mul(largest, vf_set1(1.0f / h->levels));
        vf inverse = vf_divide(vf_set1(h->levels), vf_max(largest, vf_set1(1e-30f)));
        for (int32_t d = 0; d < head_dim; d += 2)
            dot16_store_pairs(out + d / 2 * QUERIES,
                              vf_mul(vf_load(in + d * QUERIES), inverse),
                              vf_mul(vf_load(in + (d + 1) * QUERIES), inverse));
    }
}

/* out[r][lane] = factor[lane] * sum over pairs of rows[r][pair] . lanes[pair][lane] for 8
 * rows; the pairs of a row lie pair_step apart, the rows row_step. */
SIMD void lane_tile(const int32_t *rows, size_t row_step, size_t pair_step,
                    const int32_t *lanes, int32_t n_pairs, const vf *factors,
                    float *out, const int n_vectors) {
    __m512i acc[TILE_ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
        acc[r][0] = acc[r][1] = _mm512_setzero_si512();
    for (int32_t at = 0; at < n_pairs; at++, lanes += QUERIES, rows += pair_step) {
        __m512i first = _mm512_loadu_si512((const void *)lanes), second = first;
        if (n_vectors > 1)
            second = _mm512_loadu_si512((const void *)(lanes + LANES));
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
            __m512i pair = dot16_broadcast(rows + (size_t)r * row_step);
            acc[r][0] = dot16(acc[r][0], pair, first);
            if (n_vectors > 1)
                acc[r][1] = dot16(acc[r][1], pair, second);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < n_vectors; i++)
            vf_store(out + r * QUERIES + i * LANES,
                     vf_mul(_mm512_cvtepi32_ps(acc[r][i]), factors[i]));
}

/* 2^v for v <= 0, relative error 3e-6 (a minimax polynomial on [-1/2, 1/2]). */
SIMD vf power_of_two(vf v) {
#ifdef VIGIL_EMULATE_AVX512
    return vf_exp(vf_mul(v, vf_set1(6.93147181e-01f)));
#else
    vf whole = _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vf f = vf_sub(v, whole);
    vf p = vf_fma(vf_set1(9.570109559e-03f), f, vf_set1(5.591789882e-02f));
    p = vf_fma(p, f, vf_set1(2.402474499e-01f));
    p = vf_fma(p, f, vf_set1(6.931218101e-01f));
    p = vf_fma(p, f, vf_set1(9.999992613e-01f));
    return _mm512_scalef_ps(p, whole);
#endif
}

/* Scores in powers of two -> pairs of probabilities as integers, in place; returns 1 / their sums. The row
 * behind an odd n_keys counts as zero. */
SIMD vf soften(float *scores, int32_t n_keys) {
    vf top = vf_load(scores), sum = vf_set1(0.0f);
    for (int32_t j = 1; j < n_keys; j++)
        top = vf_max(top, vf_load(scores + j * QUERIES));
    for (int32_t j = 0; j < n_keys; j++) {
        vf p = power_of_two(vf_sub(vf_load(scores + j * QUERIES), top));
        vf_store(scores + j * QUERIES, p);
        sum = vf_add(sum, p);
    }
    vf factor = vf_min(vf_divide(vf_set1((float)SUM_LEVELS), sum),
                       vf_set1((float)INT16_LEVELS));
    int32_t *pairs = (int32_t *)(void *)scores;
    sum = vf_set1(0.0f);
    for (int32_t j = 0; j < n_keys; j += 2) {
        vf even = vf_round(vf_mul(vf_load(scores + j * QUERIES), factor));
        vf odd = vf_set1(0.0f);
        if (j + 1 < n_keys)
            odd = vf_round(vf_mul(vf_load(scores + (j + 1) * QUERIES), factor));
        dot16_store_pairs(pairs + j / 2 * QUERIES, even, odd);
        sum = vf_add(sum, vf_add(even, odd));
    }
    return vf_divide(vf_set1(1.0f), sum);
}

/* One block: queries in [head_dim][QUERIES] -> context in its place. */
SIMD void block(const struct head *h, float *queries, int32_t *pairs,
                const int n_vectors) {
    const struct attention *a = h->a;
    int32_t dim_pairs = a->head_dim / 2;
    const int32_t *keys = (const int32_t *)(const void *)h->keys;
    vf factors[2];
    quantize_queries(h, queries, pairs, factors, n_vectors);
    for (int i = 0; i < n_vectors; i++)
        factors[i] = vf_mul(factors[i], vf_set1(h->key_scale * a->scale * LOG2_E));
    for (int32_t j = 0; j < a->n_keys; j += TILE_ROWS)
        lane_tile(keys + j * dim_pairs, (size_t)dim_pairs, 1, pairs, dim_pairs, factors,
                  h->scores + j * QUERIES, n_vectors);
    for (int i = 0; i < n_vectors; i++)
        factors[i] =
            vf_mul(soften(h->scores + i * LANES, a->n_keys), vf_set1(h->value_scale));
    for (int32_t d = 0; d < a->head_dim; d += TILE_ROWS)
        lane_tile(h->values + d, 1, (size_t)a->head_dim,
                  (const int32_t *)(const void *)h->scores, (a->n_keys + 1) / 2,
                  factors, queries + d * QUERIES, n_vectors);
}

/* [head_dim][QUERIES] -> n rows */
static void transpose_back(const float *in, int32_t n, int32_t head_dim, float *rows,
                           size_t stride) {
    for (int32_t first = 0; first < n; first += 8, rows += 8 * stride)
        for (int32_t d = 0; d < head_dim; d += 8) {
            float square[64];
            if (n - first >= 8) {
                transpose_8x8(in + d * QUERIES + first, QUERIES, rows + d, stride);
                continue;
            }
            transpose_8x8(in + d * QUERIES + first, QUERIES, square, 8);
            for (int32_t j = 0; j < n - first; j++)
                memcpy(rows + (size_t)j * stride + d, square + 8 * j, 8 * sizeof *rows);
        }
}

void attend_int16_avx512(const struct attention *a) {
    if (a->head_dim % LANES != 0 || a->head_dim > MAX_DIM || a->n_keys > MAX_KEYS) {
        operators_avx512.attend(a);
        return;
    }
    float levels = floorf(sqrtf(2147483000.0f / (float)a->head_dim));
    struct head h = {.a = a,
                     .n_padded = (a->n_keys + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS,
                     .levels = levels < INT16_LEVELS ? levels : INT16_LEVELS,
                     .keys = (int16_t *)(void *)a->scratch};
    h.values = (int32_t *)(void *)(a->scratch + h.n_padded * a->head_dim / 2);
    h.scores = a->scratch + h.n_padded * a->head_dim;
    float *queries = h.scores + h.n_padded * QUERIES;
    int32_t *pairs = (int32_t *)(void *)(queries + a->head_dim * QUERIES);
    pack_keys(&h);
    pack_values(&h);
    for (int32_t query = 0; query < a->n_queries; query += QUERIES) {
        int32_t n = a->n_queries - query < QUERIES ? a->n_queries - query : QUERIES;
        transpose_queries(a->q + (size_t)query * a->q_stride, a->q_stride, n,
                          a->head_dim, queries);
        if (n > LANES)
            block(&h, queries, pairs, 2);
        else
            block(&h, queries, pairs, 1);
        transpose_back(queries, n, a->head_dim, a->out + (size_t)query * a->out_stride,
                       a->out_stride);
    }
}
