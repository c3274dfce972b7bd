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
 *   COLUMN_FACTORS, column_factors(w, column)   what FINISH needs of 16 columns
 *   FINISH(acc, quantum, factors)  an accumulator of 16 columns -> values, bias added
 */
#include "kernels/cpu/epilogue.h"

enum { ROWS = 8, VECTORS = 3, COLUMNS = 48, LINE = 64, BLOCK_BYTES = 512 << 10 };

#define ROW(i, address)                                                                \
    if (n_rows > i) {                                                                  \
        VALUE value = BROADCAST(address);                                              \
        MULTIPLY(x##i, value, first);                                                  \
        MULTIPLY(y##i, value, second);                                                 \
        MULTIPLY(z##i, value, third);                                                  \
    }

/* The next panel, which the tiles of one panel fetch into the second-level cache: each
 * tile a part of `step` bytes (1 or 3 lines) at every step of the loop over k. */
struct ahead {
    const char *at;
    size_t step;
};

SIMD void finish_as(const struct product *p, int32_t row, int32_t column,
                    const ACCUMULATOR sums[ROWS][VECTORS], int32_t n_rows,
                    const enum epilogue epilogue) {
    COLUMN_FACTORS factors[VECTORS];
    for (int i = 0; i < VECTORS; i++)
        factors[i] = column_factors(p->weights, column + 16 * i);
    for (int32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 3
        for (int i = 0; i < VECTORS; i++)
            epilogue_store(p, row + r, column + 16 * i,
                           FINISH(sums[r][i], p->in.quanta[row + r], factors[i]),
                           epilogue, IS_COARSE);
}

/* One copy for all sizes of tiles; the choice of epilogue is made once a tile. */
static __attribute__((noinline)) void finish(const struct product *p, int32_t row,
                                             int32_t column,
                                             const ACCUMULATOR sums[ROWS][VECTORS],
                                             int32_t n_rows) {
    switch (p->epilogue) {
    case EPILOGUE_BIAS:
        finish_as(p, row, column, sums, n_rows, EPILOGUE_BIAS);
        break;
    case EPILOGUE_RELU:
        finish_as(p, row, column, sums, n_rows, EPILOGUE_RELU);
        break;
    case EPILOGUE_GELU:
        finish_as(p, row, column, sums, n_rows, EPILOGUE_GELU);
        break;
    case EPILOGUE_RESIDUAL:
        finish_as(p, row, column, sums, n_rows, EPILOGUE_RESIDUAL);
        break;
    }
}

/* What the end of a tile will touch comes closer while its sums are made. */
SIMD void fetch_ends(const struct product *p, int32_t row, int32_t column,
                     const int n_rows) {
    for (int r = 0; r < n_rows; r++) {
        size_t at = (size_t)(row + r) * p->out_stride + (size_t)column;
        for (int i = 0; i < VECTORS; i++)
            __builtin_prefetch(p->out + at + 16 * i, 1);
        for (int i = 0; p->epilogue == EPILOGUE_RESIDUAL && i < VECTORS; i++)
            __builtin_prefetch(p->residual + at + 16 * i);
    }
}

SIMD void tile(const struct product *p, int32_t row, int32_t column, const char *panel,
               struct ahead ahead, const int n_rows) {
    const size_t stride = p->in.stride;
    const char *a0 = (const char *)p->in.data + (size_t)row * stride;
    const char *a3 = a0 + 3 * stride, *a6 = a0 + 6 * stride;
    const char *end = panel + p->weights->panel_bytes;
    fetch_ends(p, row, column, n_rows);
    ACCUMULATOR x0 = ACCUMULATOR_ZERO, x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0,
                x6 = x0, x7 = x0;
    ACCUMULATOR y0 = x0, y1 = x0, y2 = x0, y3 = x0, y4 = x0, y5 = x0, y6 = x0, y7 = x0;
    ACCUMULATOR z0 = x0, z1 = x0, z2 = x0, z3 = x0, z4 = x0, z5 = x0, z6 = x0, z7 = x0;
    for (; panel < end; panel += STEP_PANEL_BYTES) {
        __builtin_prefetch(ahead.at, 0, 2);
        if (ahead.step > LINE) {
            __builtin_prefetch(ahead.at + LINE, 0, 2);
            __builtin_prefetch(ahead.at + 2 * LINE, 0, 2);
        }
        ahead.at += ahead.step;
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
    const ACCUMULATOR sums[ROWS][VECTORS] = {{x0, y0, z0}, {x1, y1, z1}, {x2, y2, z2},
                                             {x3, y3, z3}, {x4, y4, z4}, {x5, y5, z5},
                                             {x6, y6, z6}, {x7, y7, z7}};
    finish(p, row, column, sums, n_rows);
}
#undef ROW

static void tile_of(const struct product *p, int32_t row, int32_t n_rows,
                    int32_t column, const char *panel, struct ahead ahead) {
    switch (n_rows) {
    case 8:
        tile(p, row, column, panel, ahead, 8);
        break;
    case 7:
        tile(p, row, column, panel, ahead, 7);
        break;
    case 6:
        tile(p, row, column, panel, ahead, 6);
        break;
    case 5:
        tile(p, row, column, panel, ahead, 5);
        break;
    case 4:
        tile(p, row, column, panel, ahead, 4);
        break;
    case 3:
        tile(p, row, column, panel, ahead, 3);
        break;
    case 2:
        tile(p, row, column, panel, ahead, 2);
        break;
    default:
        tile(p, row, column, panel, ahead, 1);
        break;
    }
}

/* One panel by all rows. With three tiles or more, the first three fetch a third of the
 * next panel each; the others look at what is there already. */
static void tiles(const struct product *p, int32_t row, int32_t n_rows, int32_t column,
                  const char *panel) {
    const size_t n_bytes = p->weights->panel_bytes, third = n_bytes / 3 / LINE * LINE;
    int32_t n_tiles = (n_rows + ROWS - 1) / ROWS;
    const bool is_shared = n_tiles >= 3;
    for (int32_t i = 0; n_tiles > 0; i++, n_tiles--) {
        int32_t rows = (n_rows + n_tiles - 1) / n_tiles;
        struct ahead ahead = {panel + n_bytes, 3 * LINE};
        if (is_shared)
            ahead = (struct ahead){i < 3 ? panel + n_bytes + (size_t)i * third : panel,
                                   LINE};
        tile_of(p, row, rows, column, panel, ahead);
        row += rows;
        n_rows -= rows;
    }
}

/* Rows go in blocks that stay in the second-level cache while the panels pass by. */
static void run(const struct product *p, int32_t row_begin, int32_t row_end,
                int32_t panel_begin, int32_t panel_end) {
    const char *panels = p->weights->panels;
    size_t row_bytes = p->weights->panel_bytes / COLUMNS; /* of what is read of it */
    size_t fit = BLOCK_BYTES / row_bytes / ROWS * ROWS;
    int32_t block = fit < ROWS            ? ROWS
                    : fit > INT32_MAX / 2 ? INT32_MAX / 2
                                          : (int32_t)fit;
    int32_t n_blocks = (row_end - row_begin + block - 1) / block;
    for (int32_t row = row_begin, n_rows; row < row_end; row += n_rows, n_blocks--) {
        n_rows = ((row_end - row + n_blocks - 1) / n_blocks + ROWS - 1) / ROWS * ROWS;
        if (n_rows > row_end - row)
            n_rows = row_end - row;
        for (int32_t i = panel_begin; i < panel_end; i++)
            tiles(p, row, n_rows, i * COLUMNS,
                  panels + (size_t)i * p->weights->panel_bytes);
    }
}
