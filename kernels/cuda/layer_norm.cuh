/* SPDX-License-Identifier: Apache-2.0
 *
 * layer_norm.cuh - LayerNorm of one row that a warp holds in registers.
 *
 * Math:   out[c] = weight[c] * (x[c] - mean) / sqrt(variance + 1e-12) + bias[c], c < dim
 * Design: two passes over registers: the one-pass variance cancels when |mean| is large
 *         beside the deviation. Zeros are written behind dim.
 * Layout: lane l holds columns 256 i + 8 l .. + 8 of chunk i.
 */
#ifndef VIGIL_KERNELS_CUDA_LAYER_NORM_CUH
#define VIGIL_KERNELS_CUDA_LAYER_NORM_CUH

#include "kernels/cuda/device.cuh"

#define ROW_CHUNK (WARP * 8)
#define LAYER_NORM_EPS 1e-12f

__device__ __forceinline__ void load_eight(const float *from, float (&values)[8]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float4 four = ((const float4 *)from)[i];
        values[4 * i] = four.x;
        values[4 * i + 1] = four.y;
        values[4 * i + 2] = four.z;
        values[4 * i + 3] = four.w;
    }
}

template <int CHUNKS>
__device__ __forceinline__ void
normalize_row(float (&x)[CHUNKS][8], const float *__restrict__ weight,
              const float *__restrict__ bias, int dim, int width, f16 *out) {
    int first = (int)(threadIdx.x % WARP) * 8;
    float sum = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (c * ROW_CHUNK + first + i < dim)
                sum += x[c][i];
    float mean = warp_sum(sum) / (float)dim, squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (c * ROW_CHUNK + first + i < dim)
                squares += (x[c][i] - mean) * (x[c][i] - mean);
    float scale = rsqrtf(warp_sum(squares) / (float)dim + LAYER_NORM_EPS);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int column = c * ROW_CHUNK + first;
        if (column >= width)
            break;
        /* Weights and biases are zeros behind dim, and so is what is written there. */
        float w[8], b[8], y[8];
        load_eight(weight + column, w);
        load_eight(bias + column, b);
#pragma unroll
        for (int i = 0; i < 8; i++)
            y[i] = (x[c][i] - mean) * scale * w[i] + b[i];
        half8_from_float(y, out + column);
    }
}

/* launch(CHUNKS), a macro, with enough chunks for a row of width values. */
#define DISPATCH_CHUNKS(width, launch)                                                 \
    ((width) <= 1 * ROW_CHUNK   ? launch(1)                                            \
     : (width) <= 2 * ROW_CHUNK ? launch(2)                                            \
     : (width) <= 3 * ROW_CHUNK ? launch(3)                                            \
     : (width) <= 4 * ROW_CHUNK ? launch(4)                                            \
     : (width) <= 8 * ROW_CHUNK ? launch(8)                                            \
                                : launch(16))

#endif
