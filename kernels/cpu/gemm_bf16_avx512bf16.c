/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_bf16_avx512bf16.c - bf16 products on AVX-512 BF16.
 *
 * Math:    acc[r,c] += in[r,2k] * w[c,2k] + in[r,2k+1] * w[c,2k+1] in fp32; both sides bf16.
 * Design:  the tile of gemm_avx512.inc.h over vdpbf16ps (two products a lane).
 * Use:     by name only (--isa avx512-bf16): rounding both sides costs more digits than
 *          gemm_int16_avx512.c does at the same speed.
 * Limits:  k_padded % 2 == 0; any number of rows.
 * Checked: tests/unit/test_kernels.c (on SIMDe where the machine has no AVX-512 BF16).
 */
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

#define VALUE __m512i
#define ACCUMULATOR vf
#define ACCUMULATOR_ZERO vf_set1(0.0f)
#define STEP_ROW_BYTES 4
#define STEP_PANEL_BYTES (COLUMNS * 4)
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define BROADCAST(p) broadcast(p)
#ifdef VIGIL_EMULATE_AVX512
#define MULTIPLY(acc, value, weights) acc = multiply_pairs(acc, value, weights)
#else
#define MULTIPLY(acc, value, weights)                                                  \
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(value), "v"(weights))
#endif
#define IS_COARSE false
#define COLUMN_FACTORS vf
#define FINISH(acc, quantum, bias) vf_add(acc, bias)

SIMD vf column_factors(const struct packed_linear *w, int32_t column) {
    return vf_load(w->bias + column);
}

SIMD __m512i broadcast(const char *bytes) {
    int32_t pair;
    memcpy(&pair, bytes, sizeof pair);
    return _mm512_set1_epi32(pair);
}

#ifdef VIGIL_EMULATE_AVX512
/* vdpbf16ps: each lane's odd product is added first, then its even one. */
SIMD vf multiply_pairs(vf acc, __m512i a, __m512i b) {
    __m512i odd = _mm512_set1_epi32((int32_t)0xffff0000);
    acc = vf_fma(_mm512_castsi512_ps(_mm512_and_si512(a, odd)),
                 _mm512_castsi512_ps(_mm512_and_si512(b, odd)), acc);
    return vf_fma(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                  _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), acc);
}
#endif

#include "kernels/cpu/gemm_avx512.inc.h"

static void pack_panel(const float *values, int32_t k_padded, void *panel) {
    uint16_t *out = panel;
    for (int32_t k = 0; k < k_padded; k += 2)
        for (int32_t column = 0; column < COLUMNS; column++)
            for (int32_t i = 0; i < 2; i++)
                *out++ = bfloat_from_float(
                    values[(size_t)column * (size_t)k_padded + (size_t)(k + i)]);
}

static void encode(const float *in, size_t in_stride, uint16_t *out, size_t out_stride,
                   struct row_quantum *quanta, int32_t n_rows, int32_t n_values) {
    (void)quanta;
    for (int32_t row = 0; row < n_rows; row++, in += in_stride, out += out_stride)
        for (int32_t i = 0; i < n_values; i++)
            out[i] = bfloat_from_float(in[i]);
}

const struct cpu_gemm gemm_bf16_avx512 = {.isa = "avx512-bf16",
                                          .dtype = "bf16",
                                          .format = ROWS_BF16,
                                          .panel_width = COLUMNS,
                                          .k_group = 2,
                                          .max_rows = ROWS,
                                          .run = run,
                                          .pack_panel = pack_panel,
                                          .encode = encode};
