/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor.h - one tensor of a checkpoint, as it lies in memory.
 *
 * Apart from checkpoint.h, so that the CUDA engine's shared object reads weights without
 * the parsers.
 */
#ifndef VIGIL_MODEL_TENSOR_H
#define VIGIL_MODEL_TENSOR_H

#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8 };

/* A matrix [n_rows, n_cols] (a vector has n_rows == 1), row-major, in the file's own dtype.
 * Weights of linear layers are [out, in], as PyTorch stores them. */
struct tensor {
    const void *data;       /* NULL when the model does not have it */
    const float *row_scale; /* DTYPE_I8 only: [n_rows]; value = data * row_scale[row] */
    int32_t n_rows, n_cols;
    enum dtype dtype;
};

/* One row of a tensor as fp32 into out[n_cols]. Exact for every dtype (an int8 row times its
 * scale). */
void tensor_row_f32(const struct tensor *t, int32_t row, float *out);

const char *dtype_name(enum dtype dtype); /* "fp32", "fp16", "bf16", "int8" */

#endif
