/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_portable.c - products in plain C, for machines that have none of the others.
 *
 * Math:    as the others: fp32 and bf16 weights with one multiply-add a term, k ascending;
 *          int8 exactly, bytes in [0, 255], weights in [-127, 127].
 * Design:  four rows by sixteen columns, for the compiler to turn into what vectors it has.
 * Checked: tests/unit/test_kernels.c against plain loops.
 */
#include "kernels/cpu/epilogue.h"

enum { ROWS = 4, COLUMNS = 16 };

enum weight_format { WEIGHT_F32, WEIGHT_BF16, WEIGHT_INT8 };

static void widen(const void *panel, enum weight_format format, size_t k, float *out) {
    for (int c = 0; c < COLUMNS; c++) {
        size_t at = k * COLUMNS + (size_t)c;
        if (format == WEIGHT_F32) {
            out[c] = ((const float *)panel)[at];
        } else {
            uint32_t bits = (uint32_t)((const uint16_t *)panel)[at] << 16;
            memcpy(&out[c], &bits, sizeof bits);
        }
    }
}

static void tile_float(const struct product *p, int32_t row, int32_t column,
                       const void *panel, int n_rows, enum weight_format format) {
    float acc[ROWS][COLUMNS] = {{0}};
    for (size_t k = 0; k < (size_t)p->weights->k; k++) {
        float weights[COLUMNS];
        widen(panel, format, k, weights);
        for (int r = 0; r < n_rows; r++) {
            float value = ((const float *)((const char *)p->in.data +
                                           (size_t)(row + r) * p->in.stride))[k];
            for (int c = 0; c < COLUMNS; c++)
                acc[r][c] += value * weights[c];
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < COLUMNS; c += VF_WIDTH)
            epilogue_store(
                p, row + r, column + c,
                vf_add(vf_load(acc[r] + c), vf_load(p->weights->bias + column + c)),
                p->epilogue, false);
}

static void tile_int8(const struct product *p, int32_t row, int32_t column,
                      const int8_t *panel, int n_rows) {
    int32_t acc[ROWS][COLUMNS] = {{0}};
    for (size_t k = 0; k < (size_t)p->weights->k; k++)
        for (int r = 0; r < n_rows; r++) {
            int32_t value =
                ((const uint8_t *)p->in.data + (size_t)(row + r) * p->in.stride)[k];
            for (int c = 0; c < COLUMNS; c++)
                acc[r][c] += value * panel[k * COLUMNS + (size_t)c];
        }
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < COLUMNS; c += VF_WIDTH)
            epilogue_store(p, row + r, column + c,
                           epilogue_dequantize(p->weights, column + c,
                                               vf_from_int32(acc[r] + c),
                                               p->in.quanta[row + r]),
                           p->epilogue, true);
}

static void run(const struct product *p, int32_t row_begin, int32_t row_end,
                int32_t panel_begin, int32_t panel_end, enum weight_format format) {
    for (int32_t i = panel_begin; i < panel_end; i++) {
        const char *panel =
            (const char *)p->weights->panels + (size_t)i * p->weights->panel_bytes;
        for (int32_t row = row_begin; row < row_end; row += ROWS) {
            int n_rows = row_end - row < ROWS ? row_end - row : ROWS;
            if (format == WEIGHT_INT8)
                tile_int8(p, row, i * COLUMNS, (const int8_t *)panel, n_rows);
            else
                tile_float(p, row, i * COLUMNS, panel, n_rows, format);
        }
    }
}

static void run_f32(const struct product *p, int32_t row_begin, int32_t row_end,
                    int32_t panel_begin, int32_t panel_end) {
    run(p, row_begin, row_end, panel_begin, panel_end, WEIGHT_F32);
}

static void run_bf16(const struct product *p, int32_t row_begin, int32_t row_end,
                     int32_t panel_begin, int32_t panel_end) {
    run(p, row_begin, row_end, panel_begin, panel_end, WEIGHT_BF16);
}

static void run_int8(const struct product *p, int32_t row_begin, int32_t row_end,
                     int32_t panel_begin, int32_t panel_end) {
    run(p, row_begin, row_end, panel_begin, panel_end, WEIGHT_INT8);
}

static void pack(const float *values, int32_t k_padded, void *panel,
                 enum weight_format format) {
    for (size_t k = 0; k < (size_t)k_padded; k++)
        for (size_t c = 0; c < COLUMNS; c++) {
            float value = values[c * (size_t)k_padded + k];
            size_t at = k * COLUMNS + c;
            if (format == WEIGHT_F32)
                ((float *)panel)[at] = value;
            else if (format == WEIGHT_BF16)
                ((uint16_t *)panel)[at] = bfloat_from_float(value);
            else
                ((int8_t *)panel)[at] = (int8_t)value;
        }
}

static void pack_f32(const float *values, int32_t k_padded, void *panel) {
    pack(values, k_padded, panel, WEIGHT_F32);
}

static void pack_bf16(const float *values, int32_t k_padded, void *panel) {
    pack(values, k_padded, panel, WEIGHT_BF16);
}

static void pack_int8(const float *values, int32_t k_padded, void *panel) {
    pack(values, k_padded, panel, WEIGHT_INT8);
}

const struct cpu_gemm gemm_f32_portable = {.isa = "portable",
                                           .dtype = "fp32",
                                           .format = ROWS_F32,
                                           .panel_width = COLUMNS,
                                           .k_group = 1,
                                           .max_rows = ROWS,
                                           .run = run_f32,
                                           .pack_panel = pack_f32};

const struct cpu_gemm gemm_bf16_portable = {.isa = "portable",
                                            .dtype = "bf16",
                                            .format = ROWS_F32,
                                            .panel_width = COLUMNS,
                                            .k_group = 1,
                                            .max_rows = ROWS,
                                            .run = run_bf16,
                                            .pack_panel = pack_bf16};

const struct cpu_gemm gemm_int8_portable = {.isa = "portable",
                                            .dtype = "int8",
                                            .format = ROWS_INT8,
                                            .panel_width = COLUMNS,
                                            .k_group = 1,
                                            .max_rows = ROWS,
                                            .weight_levels = 127,
                                            .row_levels = 255,
                                            .run = run_int8,
                                            .pack_panel = pack_int8};
