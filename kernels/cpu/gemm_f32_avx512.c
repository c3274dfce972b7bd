/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_f32_avx512.c - fp32 products on AVX-512.
 *
 * Math:    out[r,c] = sum_k in[r,k] * weight[c,k], one FMA a term, k ascending.
 * Design:  the tile of gemm_avx512.inc.h.   Limits: any k, any number of rows.
 * Checked: tests/unit/test_kernels.c (on SIMDe where the machine has no AVX-512).
 */
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

#define VALUE vf
#define ACCUMULATOR vf
#define ACCUMULATOR_ZERO vf_set1(0.0f)
#define STEP_ROW_BYTES sizeof(float)
#define STEP_PANEL_BYTES (COLUMNS * sizeof(float))
#define LOAD(p) vf_load((const float *)(const void *)(p))
#define BROADCAST(p) vf_set1(*(const float *)(const void *)(p))
#define MULTIPLY(acc, value, weights) acc = vf_fma(value, weights, acc)
#define IS_COARSE false
#define COLUMN_FACTORS vf
#define FINISH(acc, quantum, bias) vf_add(acc, bias)

SIMD vf column_factors(const struct packed_linear *w, int32_t column) {
    return vf_load(w->bias + column);
}

#include "kernels/cpu/gemm_avx512.inc.h"

static void pack_panel(const float *values, int32_t k_padded, void *panel) {
    float *out = panel;
    for (int32_t k = 0; k < k_padded; k++)
        for (int32_t column = 0; column < COLUMNS; column++)
            *out++ = values[(size_t)column * (size_t)k_padded + (size_t)k];
}

const struct cpu_gemm gemm_f32_avx512 = {.isa = "avx512",
                                         .dtype = "fp32",
                                         .format = ROWS_F32,
                                         .panel_width = COLUMNS,
                                         .k_group = 1,
                                         .max_rows = ROWS,
                                         .run = run,
                                         .pack_panel = pack_panel};
