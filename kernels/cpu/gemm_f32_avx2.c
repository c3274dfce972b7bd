/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_f32_avx2.c - fp32 products with fp32 or bf16 weights, on AVX2 and FMA.
 *
 * Math:    out[r,c] = sum_k in[r,k] * weight[c,k], one FMA a term, k ascending.
 * Design:  tile of 6 rows x 16 columns: 12 accumulators, 2 weights, 1 broadcast; 8 loads
 *          for 12 FMAs, so the FMA ports are the bound. bf16 weights are widened as they
 *          are loaded (a bf16 is the upper half of a float): half the memory traffic, the
 *          same arithmetic; activations stay fp32, for AVX2 has no bf16 products.
 *          Rows are shared out evenly (32 = 6+6+5+5+5+5): a tile of fewer than 4 rows
 *          cannot hide the FMA's latency.
 * Limits:  any k, any number of rows.  Bound: FMA ports.
 * Checked: tests/unit/test_kernels.c against plain loops.
 */
#include "kernels/cpu/epilogue.h"

enum { ROWS = 6, COLUMNS = 16 };

SIMD void load_f32(const void *panel, vf *first, vf *second) {
    *first = _mm256_load_ps(panel);
    *second = _mm256_load_ps((const float *)panel + 8);
}

/* Columns 0-7 are the even elements and 8-15 the odd ones (pack_panel_bf16), so that a
 * shift and a mask widen them. */
SIMD void load_bf16(const void *panel, vf *first, vf *second) {
    __m256i pairs = _mm256_load_si256(panel);
    *first = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *second = _mm256_castsi256_ps(
        _mm256_and_si256(pairs, _mm256_set1_epi32((int32_t)0xffff0000)));
}

/* The accumulators are variables of their own: GCC 12 keeps an array of them in memory,
 * at a third of the speed. */
SIMD void tile(const struct product *p, int32_t row, int32_t column, const char *panel,
               const int n_rows, const bool is_bf16) {
    const size_t stride = p->in.stride / sizeof(float);
    const float *a0 = (const float *)p->in.data + (size_t)row * stride;
    const float *a3 = a0 + 3 * stride;
    const size_t step = COLUMNS * (is_bf16 ? sizeof(uint16_t) : sizeof(float));
    const char *end = panel + (size_t)p->weights->k_padded * step;
    vf x0 = vf_set1(0.0f), x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0;
    vf y0 = x0, y1 = x0, y2 = x0, y3 = x0, y4 = x0, y5 = x0;
#define ROW(i, address)                                                                \
    if (n_rows > i) {                                                                  \
        vf value = _mm256_broadcast_ss(address);                                       \
        x##i = vf_fma(value, first, x##i);                                             \
        y##i = vf_fma(value, second, y##i);                                            \
    }
    for (; panel < end; panel += step, a0++, a3++) {
        vf first, second;
        if (is_bf16)
            load_bf16(panel, &first, &second);
        else
            load_f32(panel, &first, &second);
        ROW(0, a0)
        ROW(1, a0 + stride)
        ROW(2, a0 + 2 * stride)
        ROW(3, a3)
        ROW(4, a3 + stride)
        ROW(5, a3 + 2 * stride)
    }
#undef ROW
    const vf left[ROWS] = {x0, x1, x2, x3, x4, x5};
    const vf right[ROWS] = {y0, y1, y2, y3, y4, y5};
    const float *bias = p->weights->bias + column;
    for (int r = 0; r < n_rows; r++) {
        epilogue_store(p, row + r, column, vf_add(left[r], vf_load(bias)), p->epilogue,
                       false);
        epilogue_store(p, row + r, column + 8, vf_add(right[r], vf_load(bias + 8)),
                       p->epilogue, false);
    }
}

SIMD void tiles(const struct product *p, int32_t row, int32_t n_rows, int32_t column,
                const char *panel, const bool is_bf16) {
    for (int32_t n_tiles = (n_rows + ROWS - 1) / ROWS; n_tiles > 0; n_tiles--) {
        int32_t rows = (n_rows + n_tiles - 1) / n_tiles;
        switch (rows) {
        case 6:
            tile(p, row, column, panel, 6, is_bf16);
            break;
        case 5:
            tile(p, row, column, panel, 5, is_bf16);
            break;
        case 4:
            tile(p, row, column, panel, 4, is_bf16);
            break;
        case 3:
            tile(p, row, column, panel, 3, is_bf16);
            break;
        case 2:
            tile(p, row, column, panel, 2, is_bf16);
            break;
        default:
            tile(p, row, column, panel, 1, is_bf16);
            break;
        }
        row += rows;
        n_rows -= rows;
    }
}

static void run_f32(const struct product *p, int32_t row_begin, int32_t row_end,
                    int32_t panel_begin, int32_t panel_end) {
    const char *panels = p->weights->panels;
    for (int32_t i = panel_begin; i < panel_end; i++)
        tiles(p, row_begin, row_end - row_begin, i * COLUMNS,
              panels + (size_t)i * p->weights->panel_bytes, false);
}

static void run_bf16(const struct product *p, int32_t row_begin, int32_t row_end,
                     int32_t panel_begin, int32_t panel_end) {
    const char *panels = p->weights->panels;
    for (int32_t i = panel_begin; i < panel_end; i++)
        tiles(p, row_begin, row_end - row_begin, i * COLUMNS,
              panels + (size_t)i * p->weights->panel_bytes, true);
}

static void pack_panel_f32(const float *values, int32_t k_padded, void *panel) {
    float *out = panel;
    for (int32_t k = 0; k < k_padded; k++)
        for (int32_t column = 0; column < COLUMNS; column++)
            *out++ = values[(size_t)column * (size_t)k_padded + (size_t)k];
}

static void pack_panel_bf16(const float *values, int32_t k_padded, void *panel) {
    uint16_t *out = panel;
    for (int32_t k = 0; k < k_padded; k++)
        for (int32_t column = 0; column < COLUMNS; column++) {
            int32_t from = column / 2 + (column % 2) * (COLUMNS / 2);
            *out++ =
                bfloat_from_float(values[(size_t)from * (size_t)k_padded + (size_t)k]);
        }
}

const struct cpu_gemm gemm_f32_avx2 = {.isa = "avx2",
                                       .dtype = "fp32",
                                       .format = ROWS_F32,
                                       .panel_width = COLUMNS,
                                       .k_group = 1,
                                       .max_rows = ROWS,
                                       .run = run_f32,
                                       .pack_panel = pack_panel_f32};

const struct cpu_gemm gemm_bf16_avx2 = {.isa = "avx2",
                                        .dtype = "bf16",
                                        .format = ROWS_F32,
                                        .panel_width = COLUMNS,
                                        .k_group = 1,
                                        .max_rows = ROWS,
                                        .run = run_bf16,
                                        .pack_panel = pack_panel_bf16};
