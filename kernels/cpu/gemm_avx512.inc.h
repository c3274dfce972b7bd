/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_avx512.inc.h - the 8 x 48 register tile of the AVX-512 products.
 *
 * Design:  24 accumulators, 3 weights, 1 broadcast: 28 of 32 registers. The value is
 *          broadcast into a register once and reused for the three vectors of columns (11
 *          loads for 24 products; as a memory operand it would be 27, and the load ports
 *          would be the bound). The accumulators are variables of their own: GCC 12 keeps
 *          an array of them in memory, at half the speed.
 *
 * The file that includes this defines
 *   VALUE            type of a broadcast value
 *   ACCUMULATOR      type of an accumulator; ACCUMULATOR_ZERO
 *   STEP_ROW_BYTES   of a row that one step consumes; STEP_PANEL_BYTES of the panel
 *   BROADCAST(p)     the row's bytes at p in every lane
 *   MULTIPLY(acc, value, weights)  acc += …
 *   FINISH(p, row, column, acc)    an accumulator of 16 columns -> out
 */
#include "kernels/cpu/epilogue.h"

enum { ROWS = 8, COLUMNS = 48, STEPS_AHEAD_BYTES = 4096 };

#define ROW(i, address)                                                                \
    if (n_rows > i) {                                                                  \
        VALUE value = BROADCAST(address);                                              \
        MULTIPLY(x##i, value, first);                                                  \
        MULTIPLY(y##i, value, second);                                                 \
        MULTIPLY(z##i, value, third);                                                  \
    }

SIMD void tile(const struct product *p, int32_t row, int32_t column, const char *panel,
               const int n_rows) {
    const size_t stride = p->in.stride;
    const char *a0 = (const char *)p->in.data + (size_t)row * stride;
    const char *a3 = a0 + 3 * stride, *a6 = a0 + 6 * stride;
    const char *end = panel + p->weights->panel_bytes;
    ACCUMULATOR x0 = ACCUMULATOR_ZERO, x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0,
                x6 = x0, x7 = x0;
    ACCUMULATOR y0 = x0, y1 = x0, y2 = x0, y3 = x0, y4 = x0, y5 = x0, y6 = x0, y7 = x0;
    ACCUMULATOR z0 = x0, z1 = x0, z2 = x0, z3 = x0, z4 = x0, z5 = x0, z6 = x0, z7 = x0;
    for (; panel < end; panel += STEP_PANEL_BYTES) {
        __builtin_prefetch(panel + STEPS_AHEAD_BYTES);
        __builtin_prefetch(panel + STEPS_AHEAD_BYTES + 64);
        __builtin_prefetch(panel + STEPS_AHEAD_BYTES + 128);
        VALUE first = LOAD(panel), second = LOAD(panel + 64), third = LOAD(panel + 128);
        ROW(0, a0)
        ROW(1, a0 + stride)
        ROW(2, a0 + 2 * stride)
        ROW(3, a3)
        ROW(4, a3 + stride)
        ROW(5, a3 + 2 * stride)
        ROW(6, a6)
        ROW(7, a6 + stride)
        a0 += STEP_ROW_BYTES;
        a3 += STEP_ROW_BYTES;
        a6 += STEP_ROW_BYTES;
    }
    const ACCUMULATOR x[ROWS] = {x0, x1, x2, x3, x4, x5, x6, x7};
    const ACCUMULATOR y[ROWS] = {y0, y1, y2, y3, y4, y5, y6, y7};
    const ACCUMULATOR z[ROWS] = {z0, z1, z2, z3, z4, z5, z6, z7};
    for (int r = 0; r < n_rows; r++) {
        FINISH(p, row + r, column, x[r]);
        FINISH(p, row + r, column + 16, y[r]);
        FINISH(p, row + r, column + 32, z[r]);
    }
}
#undef ROW

static void tiles(const struct product *p, int32_t row, int32_t n_rows, int32_t column,
                  const char *panel) {
    for (int32_t n_tiles = (n_rows + ROWS - 1) / ROWS; n_tiles > 0; n_tiles--) {
        int32_t rows = (n_rows + n_tiles - 1) / n_tiles;
        switch (rows) {
        case 8:
            tile(p, row, column, panel, 8);
            break;
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
        default:
            tile(p, row, column, panel, 1);
            break;
        }
        row += rows;
        n_rows -= rows;
    }
}

static void run(const struct product *p, int32_t row_begin, int32_t row_end,
                int32_t panel_begin, int32_t panel_end) {
    const char *panels = p->weights->panels;
    for (int32_t i = panel_begin; i < panel_end; i++)
        tiles(p, row_begin, row_end - row_begin, i * COLUMNS,
              panels + (size_t)i * p->weights->panel_bytes);
}
