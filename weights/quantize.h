/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize.h - int8 weights from a model directory, as another model directory.
 *
 * The large matrices become int8 with one factor a row: `NAME` I8 [rows, cols] and
 * `NAME_scale` F32 [rows], value = int8 * scale; symmetric, scale = max|row| / 127. The
 * heads stay as they are, biases and norms become F32. config.json gets a
 * quantization_config; vocab.txt and the tokenizer's files are copied.
 */
#ifndef VIGIL_WEIGHTS_QUANTIZE_H
#define VIGIL_WEIGHTS_QUANTIZE_H

#include <stddef.h>

#include "base/sha256.h"
#include "base/status.h"

struct quantize_report {
    size_t n_int8;         /* matrices that became int8 */
    size_t n_kept;         /* matrices that stayed because of a pattern */
    size_t n_bytes_before; /* of tensor data */
    size_t n_bytes_after;
    double
        worst_error; /* largest root mean square error of a matrix, relative to its own
                           root mean square */
    char worst_name[257];
    char sha256[SHA256_HEX_BYTES]; /* of the file written */
};

/* Quantises src_dir into dst_dir (made when missing). keep [n_keep]: shell patterns (*, ?)
 * of tensors that stay as they are. Files are moved into place only when all of them are
 * written. The same input gives the same bytes. The source is taken as checked
 * (checkpoint_open). */
enum status quantize_model(const char *src_dir, const char *dst_dir,
                           const char *const *keep, size_t n_keep,
                           struct quantize_report *report, struct error *err);

/* One row: out[n] and the factor. A row of zeros has the factor 1. */
float quantize_row(const float *row, size_t n, signed char *out);

#endif
