/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_int8_avx512.c - int8 products on AVX-512 VNNI.
 *
 * Math:    acc[r,c] = sum_k byte[r,k] * weight[c,k], exactly, in int32; bytes in [0, 255],
 *          weights in [-127, 127].
 * Design:  the tile of gemm_avx512.inc.h over vpdpbusd (four products a lane). In inline
 *          assembly: through the intrinsic GCC 12 moves accumulators to the stack.
 * Limits:  k_padded % 4 == 0; any number of rows.
 * Checked: tests/unit/test_kernels.c (on SIMDe where the machine has no VNNI).
 */
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

#define VALUE __m512i
#define ACCUMULATOR __m512i
#define ACCUMULATOR_ZERO _mm512_setzero_si512()
#define STEP_ROW_BYTES 4
#define STEP_PANEL_BYTES (COLUMNS * 4)
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define BROADCAST(p) broadcast(p)
#ifdef VIGIL_EMULATE_AVX512
#define MULTIPLY(acc, value, weights) acc = _mm512_dpbusd_epi32(acc, value, weights)
#else
#define MULTIPLY(acc, value, weights)                                                  \
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(value), "v"(weights))
#endif
#define IS_COARSE true
#define COLUMN_FACTORS struct column_factors
#define FINISH(acc, quantum, factors)                                                  \
    vf_fma(vf_fma(vf_set1(-(quantum).zero), (factors).sum, _mm512_cvtepi32_ps(acc)),   \
           vf_mul(vf_set1((quantum).scale), (factors).scale), (factors).bias)

struct column_factors {
    vf sum, scale, bias;
};

SIMD struct column_factors column_factors(const struct packed_linear *w,
                                          int32_t column) {
    return (struct column_factors){vf_load(w->column_sum + column),
                                   vf_load(w->scale + column),
                                   vf_load(w->bias + column)};
}

SIMD __m512i broadcast(const char *bytes) {
    int32_t four;
    memcpy(&four, bytes, sizeof four);
    return _mm512_set1_epi32(four);
}

#include "kernels/cpu/gemm_avx512.inc.h"

static void pack_panel(const float *values, int32_t k_padded, void *panel) {
    int8_t *out = panel;
    for (int32_t k = 0; k < k_padded; k += 4)
        for (int32_t column = 0; column < COLUMNS; column++)
            for (int32_t i = 0; i < 4; i++)
                *out++ =
                    (int8_t)values[(size_t)column * (size_t)k_padded + (size_t)(k + i)];
}

const struct cpu_gemm gemm_int8_avx512 = {.isa = "avx512-vnni",
                                          .dtype = "int8",
                                          .format = ROWS_INT8,
                                          .panel_width = COLUMNS,
                                          .k_group = 4,
                                          .max_rows = ROWS,
                                          .weight_levels = 127,
                                          .row_levels = 255,
                                          .run = run,
                                          .pack_panel = pack_panel,
                                          .attend = attend_int16_avx512};
