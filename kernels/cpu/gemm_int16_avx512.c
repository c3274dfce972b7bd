/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_int16_avx512.c - 16-bit products on AVX-512 VNNI: what "bf16" runs on there.
 *
 * Math:    acc[r,c] = sum_k in[r,k] * w[c,k], exactly, in int32; both sides are int16 with
 *          a scale a row and a scale a column. |acc| <= |in row| * |w column| (Euclidean
 *          norms) and int16_norm_limit keeps that under 2^31, so no sum can wrap.
 * Why:     vpdpwssd multiplies as many pairs as vdpbf16ps, and the integers keep 3 to 8
 *          times more of both sides (relative error 1.2e-4 at k = 384, 3.5e-4 at 3072; of
 *          bf16 1e-3). It also needs no AVX-512 BF16.
 * Design:  the tile of gemm_avx512.inc.h.
 * Limits:  k_padded % 2 == 0; any number of rows.
 * Checked: tests/unit/test_kernels.c (on SIMDe where the machine has no VNNI).
 */
#include <math.h>

#include "kernels/cpu/dot16.h"
#include "kernels/cpu/kernels.h"

#define VALUE __m512i
#define ACCUMULATOR __m512i
#define ACCUMULATOR_ZERO _mm512_setzero_si512()
#define STEP_ROW_BYTES 4
#define STEP_PANEL_BYTES (COLUMNS * 4)
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define BROADCAST(p) dot16_broadcast(p)
#define MULTIPLY(acc, value, weights) acc = dot16(acc, value, weights)
#define IS_COARSE false
#define COLUMN_FACTORS struct column_factors
#define FINISH(acc, quantum, factors)                                                  \
    vf_fma(_mm512_cvtepi32_ps(acc), vf_mul(vf_set1((quantum).scale), (factors).scale), \
           (factors).bias)

struct column_factors {
    vf scale, bias;
};

SIMD struct column_factors column_factors(const struct packed_linear *w,
                                          int32_t column) {
    return (struct column_factors){vf_load(w->scale + column),
                                   vf_load(w->bias + column)};
}

#include "kernels/cpu/gemm_avx512.inc.h"

static void pack_panel(const float *values, int32_t k_padded, void *panel) {
    int16_t *out = panel;
    for (int32_t k = 0; k < k_padded; k += 2)
        for (int32_t column = 0; column < COLUMNS; column++)
            for (int32_t i = 0; i < 2; i++)
                *out++ = (int16_t)
                    values[(size_t)column * (size_t)k_padded + (size_t)(k + i)];
}

/* A row that holds a NaN or an infinity gets a scale that is none either. */
static void encode(const float *in, size_t in_stride, uint16_t *out, size_t out_stride,
                   struct row_quantum *quanta, int32_t n_rows, int32_t n_values) {
    float limit = int16_norm_limit(n_values);
    for (int32_t row = 0; row < n_rows; row++, in += in_stride, out += out_stride) {
        vf largest = vf_set1(0.0f), squares = vf_set1(0.0f);
        for (int32_t i = 0; i < n_values; i += VF_WIDTH) {
            vf v = vf_load(in + i);
            largest = vf_max(largest, vf_max(v, vf_sub(vf_set1(0.0f), v)));
            squares = vf_fma(v, v, squares);
        }
        float scale = int16_scale(vf_largest(largest), sqrtf(vf_sum(squares)), limit);
        vf inverse = vf_set1(scale != 0.0f ? 1.0f / scale : 0.0f);
        quanta[row] = (struct row_quantum){.scale = scale, .zero = 0.0f};
        for (int32_t i = 0; i < n_values; i += VF_WIDTH)
            vf_store_int16((int16_t *)out + i, vf_mul(vf_load(in + i), inverse));
    }
}

const struct cpu_gemm gemm_int16_avx512 = {.isa = "avx512-vnni",
                                           .dtype = "bf16",
                                           .format = ROWS_INT16,
                                           .panel_width = COLUMNS,
                                           .k_group = 2,
                                           .max_rows = ROWS,
                                           .weight_levels = INT16_LEVELS,
                                           .row_levels = INT16_LEVELS,
                                           .run = run,
                                           .pack_panel = pack_panel,
                                           .encode = encode,
                                           .attend = attend_int16_avx512};
