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
 *          8-bit scheme takes 6 (4). What the two bits cost is in bench/README.md.
 *          Tile: 3 rows x 24 columns: 9 accumulators, 2 values, 2 products, ones; weights
 *          are memory operands. With 8 rows x 8 columns the broadcasts (16 for 24
 *          multiplications instead of 6 for 27) made the front end the bound.
 * Limits:  k_padded % 8 == 0; any number of rows.  Bound: vpmadd ports.
 * Checked: tests/unit/test_kernels.c against plain integer arithmetic.
 */
#include "kernels/cpu/epilogue.h"

enum { ROWS = 3, COLUMNS = 24, K_STEP = 8, STEP_BYTES = COLUMNS * K_STEP };

/* The inner loop is assembly: GCC 12 moves some accumulators to the stack, here and in
 * every form tried, which costs a tenth of the speed. PRODUCTS adds 8 values of k for one
 * row and 8 columns to acc; `low` and `high` are the weights of the first and the other four
 * k. ROW does so for a row's 24 columns. */
#define PRODUCTS(acc, low, high)                                                       \
    "vpmaddubsw " low "(%[panel]), %[first], %[p]\n\t"                                 \
    "vpmaddubsw " high "(%[panel]), %[second], %[q]\n\t"                               \
    "vpaddw %[q], %[p], %[p]\n\t"                                                      \
    "vpmaddwd %[ones], %[p], %[p]\n\t"                                                 \
    "vpaddd %[p], %[" acc "], %[" acc "]\n\t"
#define ROW(i, first_bytes, second_bytes)                                              \
    "vpbroadcastd " first_bytes ", %[first]\n\t"                                       \
    "vpbroadcastd " second_bytes ", %[second]\n\t" PRODUCTS("x" i, "0", "96")          \
        PRODUCTS("y" i, "32", "128") PRODUCTS("z" i, "64", "160")
#define ROW_0 ROW("0", "(%[a])", "4(%[a])")
#define ROW_1 ROW("1", "(%[a],%[stride])", "4(%[a],%[stride])")
#define ROW_2 ROW("2", "(%[a],%[stride],2)", "4(%[a],%[stride],2)")
#define LOOP(rows)                                                                     \
    __asm__ volatile(                                                                  \
        "1:\n\t"                                                                       \
        "prefetcht0 (%[panel],%[ahead])\n\t"                                           \
        "prefetcht0 64(%[panel],%[ahead])\n\t"                                         \
        "prefetcht0 128(%[panel],%[ahead])\n\t" rows "add $8, %[a]\n\t"                \
        "add $192, %[panel]\n\t"                                                       \
        "cmp %[end], %[panel]\n\t"                                                     \
        "jb 1b\n\t"                                                                    \
        : [x0] "+x"(x0), [x1] "+x"(x1), [x2] "+x"(x2), [y0] "+x"(y0), [y1] "+x"(y1),   \
          [y2] "+x"(y2), [z0] "+x"(z0), [z1] "+x"(z1), [z2] "+x"(z2), [a] "+r"(a),     \
          [panel] "+r"(panel), [first] "=&x"(first), [second] "=&x"(second),           \
          [p] "=&x"(low), [q] "=&x"(high)                                              \
        : [ones] "x"(ones), [stride] "r"(stride), [ahead] "r"(panel_bytes),            \
          [end] "r"(end)                                                               \
        : "memory", "cc")

/* One tile of n_rows <= ROWS rows. n_rows and epilogue are constants where this is inlined,
 * so that the accumulators are registers and what follows them has no branches. The next
 * panel is fetched meanwhile: at few rows a panel is used up before the processor's own
 * prefetching has begun. */
SIMD void tile(const struct product *p, int32_t row, int32_t column,
               const int8_t *panel, const int n_rows, const enum epilogue epilogue) {
    const size_t stride = p->in.stride, panel_bytes = p->weights->panel_bytes;
    const uint8_t *a = (const uint8_t *)p->in.data + (size_t)row * stride;
    const int8_t *end = panel + panel_bytes;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i x0 = _mm256_setzero_si256(), x1 = x0, x2 = x0;
    __m256i y0 = x0, y1 = x0, y2 = x0, z0 = x0, z1 = x0, z2 = x0;
    __m256i first, second, low, high;
    if (n_rows == 3)
        LOOP(ROW_0 ROW_1 ROW_2);
    else if (n_rows == 2)
        LOOP(ROW_0 ROW_1);
    else
        LOOP(ROW_0);
#define FINISH(i, column, acc)                                                         \
    if (n_rows > i)                                                                    \
    epilogue_store(p, row + i, column,                                                 \
                   epilogue_dequantize(p->weights, column, _mm256_cvtepi32_ps(acc),    \
                                       p->in.quanta[row + i]),                         \
                   epilogue, true)
    FINISH(0, column, x0);
    FINISH(1, column, x1);
    FINISH(2, column, x2);
    FINISH(0, column + 8, y0);
    FINISH(1, column + 8, y1);
    FINISH(2, column + 8, y2);
    FINISH(0, column + 16, z0);
    FINISH(1, column + 16, z1);
    FINISH(2, column + 16, z2);
#undef FINISH
}

SIMD void run_with(const struct product *p, int32_t row_begin, int32_t row_end,
                   int32_t panel_begin, int32_t panel_end,
                   const enum epilogue epilogue) {
    const int8_t *panel = (const int8_t *)p->weights->panels +
                          (size_t)panel_begin * p->weights->panel_bytes;
    for (int32_t i = panel_begin; i < panel_end;
         i++, panel += p->weights->panel_bytes) {
        int32_t row = row_begin, column = i * COLUMNS;
        for (; row + ROWS <= row_end; row += ROWS)
            tile(p, row, column, panel, 3, epilogue);
        if (row_end - row == 2)
            tile(p, row, column, panel, 2, epilogue);
        else if (row_end - row == 1)
            tile(p, row, column, panel, 1, epilogue);
    }
}

static void run(const struct product *p, int32_t row_begin, int32_t row_end,
                int32_t panel_begin, int32_t panel_end) {
    switch (p->epilogue) {
    case EPILOGUE_BIAS:
        run_with(p, row_begin, row_end, panel_begin, panel_end, EPILOGUE_BIAS);
        break;
    case EPILOGUE_RELU:
        run_with(p, row_begin, row_end, panel_begin, panel_end, EPILOGUE_RELU);
        break;
    case EPILOGUE_GELU:
        run_with(p, row_begin, row_end, panel_begin, panel_end, EPILOGUE_GELU);
        break;
    case EPILOGUE_RESIDUAL:
        run_with(p, row_begin, row_end, panel_begin, panel_end, EPILOGUE_RESIDUAL);
        break;
    }
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
