/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tensor.h"

#include <stddef.h>
#include <string.h>

#include "base/half.h"

void tensor_row_f32(const struct tensor *t, int32_t row, float *out) {
    size_t n = (size_t)t->n_cols, from = (size_t)row * n;
    switch (t->dtype) {
    case DTYPE_F32:
        memcpy(out, (const float *)t->data + from, n * sizeof *out);
        return;
    case DTYPE_F16: {
        const uint16_t *in = (const uint16_t *)t->data + from;
        for (size_t i = 0; i < n; i++)
            out[i] = half_to_float(in[i]);
        return;
    }
    case DTYPE_BF16: {
        const uint16_t *in = (const uint16_t *)t->data + from;
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_to_float(in[i]);
        return;
    }
    case DTYPE_I8: {
        const int8_t *in = (const int8_t *)t->data + from;
        float scale = t->row_scale[row];
        for (size_t i = 0; i < n; i++)
            out[i] = (float)in[i] * scale;
        return;
    }
    }
}

const char *dtype_name(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F32:
        return "fp32";
    case DTYPE_F16:
        return "fp16";
    case DTYPE_BF16:
        return "bf16";
    case DTYPE_I8:
        return "int8";
    }
    return "unknown";
}
