/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_int8_avx2.c - int8 products for machines without VNNI.
 *
 * Math:    acc[r,c] = sum_k byte[r,k] * weight[c,k], exactly, in int32.
 * Design:  vpmaddubsw multiplies 32 bytes by 32 weights and adds pairs to int16, which
 *          saturates for full-range operands. Both sides therefore have 7 bits: bytes in
 *          [0, 127], weights in [-63, 63]. Then four products fit: 4 * 127 * 63 = 32,004
 *          <= 32,767, so two vpmaddubsw are added in int16 before one vpmaddwd widens
 *          them: 5 instructions (3 on the multiply ports) for 64 products, where the usual
 *          8-bit scheme takes 6 (4). On Zen 3 that is 1.3 x its rate; what the two bits
 *          cost is in bench/README.md (0.1 % of labels).
 *          Tile: 8 rows x 8 columns: 8 accumulators, 2 weights, 2 bytes, 2 products, ones.
 * Limits:  k_padded % 8 == 0; any number of rows.  Bound: vpmadd ports.
 * Checked: tests/unit/test_kernels.c against plain integer arithmetic.
 */
#include "kernels/cpu/epilogue.h"

enum { ROWS = 8, COLUMNS = 8, K_STEP = 8, STEP_BYTES = COLUMNS * K_STEP };

SIMD __m256i broadcast(const uint8_t *bytes) {
    int32_t four;
    memcpy(&four, bytes, sizeof four);
    return _mm256_set1_epi32(four);
}

/* acc + the products of 8 values of k for one row and 8 columns. */
SIMD __m256i step(__m256i acc, const uint8_t *bytes, __m256i low, __m256i high) {
    __m256i products =
        _mm256_add_epi16(_mm256_maddubs_epi16(broadcast(bytes), low),
                         _mm256_maddubs_epi16(broadcast(bytes + 4), high));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
}

/* One tile of n_rows <= ROWS rows. n_rows is a constant where this is inlined, so that the
 * accumulators are registers. Rows are reached from every third one, to spare registers. */
SIMD void tile(const struct product *p, int32_t row, int32_t column,
               const int8_t *panel, const int n_rows) {
    size_t stride = p->in.stride;
    const uint8_t *a0 = (const uint8_t *)p->in.data + (size_t)row * stride;
    const uint8_t *a3 = a0 + 3 * stride, *a6 = a0 + 6 * stride;
    const int8_t *end = panel + (size_t)p->weights->k_padded * COLUMNS;
    __m256i acc0 = _mm256_setzero_si256(), acc1 = acc0, acc2 = acc0, acc3 = acc0,
            acc4 = acc0, acc5 = acc0, acc6 = acc0, acc7 = acc0;
    for (; panel < end; panel += STEP_BYTES, a0 += K_STEP, a3 += K_STEP, a6 += K_STEP) {
        __m256i low = _mm256_load_si256((const __m256i *)(const void *)panel);
        __m256i high = _mm256_load_si256((const __m256i *)(const void *)(panel + 32));
        acc0 = step(acc0, a0, low, high);
        if (n_rows > 1)
            acc1 = step(acc1, a0 + stride, low, high);
        if (n_rows > 2)
            acc2 = step(acc2, a0 + 2 * stride, low, high);
        if (n_rows > 3)
            acc3 = step(acc3, a3, low, high);
        if (n_rows > 4)
            acc4 = step(acc4, a3 + stride, low, high);
        if (n_rows > 5)
            acc5 = step(acc5, a3 + 2 * stride, low, high);
        if (n_rows > 6)
            acc6 = step(acc6, a6, low, high);
        if (n_rows > 7)
            acc7 = step(acc7, a6 + stride, low, high);
    }
    __m256i acc[ROWS] = {acc0, acc1, acc2, acc3, acc4, acc5, acc6, acc7};
    for (int r = 0; r < n_rows; r++) {
        vf value = epilogue_dequantize(p->weights, column, _mm256_cvtepi32_ps(acc[r]),
                                       p->in.quanta[row + r]);
        epilogue_store(p, row + r, column, value, true);
    }
}

static void tiles(const struct product *p, int32_t row, int32_t n_rows, int32_t column,
                  const int8_t *panel) {
    for (; n_rows >= ROWS; n_rows -= ROWS, row += ROWS)
        tile(p, row, column, panel, 8);
    switch (n_rows) {
    case 7:
        tile(p, row, column, panel, 7);
        break;
    case 6:
        tile(p, row, column, panel, 6);
        break;
    case 5:
        tile(p, row, column, panel, 5);
        break;
    case 4:
        tile(p, row, column, panel, 4);
        break;
    case 3:
        tile(p, row, column, panel, 3);
        break;
    case 2:
        tile(p, row, column, panel, 2);
        break;
    case 1:
        tile(p, row, column, panel, 1);
        break;
    }
}

static void run(const struct product *p, int32_t row_begin, int32_t row_end,
                int32_t panel_begin, int32_t panel_end) {
    const int8_t *panels = p->weights->panels;
    for (int32_t i = panel_begin; i < panel_end; i++)
        tiles(p, row_begin, row_end - row_begin, i * COLUMNS,
              panels + (size_t)i * p->weights->panel_bytes);
}

static void pack_panel(const float *values, int32_t k_padded, void *panel) {
    int8_t *out = panel;
    for (int32_t k = 0; k < k_padded; k += K_STEP)
        for (int32_t half = 0; half < 2; half++)
            for (int32_t column = 0; column < COLUMNS; column++)
                for (int32_t i = 0; i < 4; i++)
                    *out++ = (int8_t)values[(size_t)column * (size_t)k_padded +
                                            (size_t)(k + 4 * half + i)];
}

const struct cpu_gemm gemm_int8_avx2 = {.isa = "avx2",
                                        .dtype = "int8",
                                        .format = ROWS_INT8,
                                        .panel_width = COLUMNS,
                                        .k_group = K_STEP,
                                        .max_rows = ROWS,
                                        .weight_levels = 63,
                                        .row_levels = 127,
                                        .run = run,
                                        .pack_panel = pack_panel};
