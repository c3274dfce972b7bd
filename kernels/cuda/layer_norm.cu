/* SPDX-License-Identifier: Apache-2.0
 *
 * layer_norm.cu - LayerNorm of every row. The residual is in the input already: it rode in
 * the product before (gemm, or cuBLASLt's beta).
 *
 * Design: a warp a row, the row in registers: one read, one write.
 * Limits: width a multiple of 64, up to CUDA_MAX_WIDTH.   Bound: memory.
 * CPU:    kernels/cpu/operators.inc.h, layer_norm.
 */
#include "kernels/cuda/layer_norm.cuh"

#define ROWS_A_BLOCK 4

template <int CHUNKS>
__global__ void __launch_bounds__(ROWS_A_BLOCK *WARP)
    layer_norm(struct cuda_layer_norm n, int n_rows) {
    grid_begin();
    int row = (int)(blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP);
    if (row >= n_rows)
        return;
    const f16 *in = n.in + (size_t)row * (size_t)n.width;
    int first = (int)(threadIdx.x % WARP) * 8;
    float x[CHUNKS][8];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        if (c * ROW_CHUNK + first < n.width)
            half8_to_float(in + c * ROW_CHUNK + first, x[c]);
    normalize_row<CHUNKS>(x, n.weight, n.bias, n.dim, n.width,
                          n.out + (size_t)row * (size_t)n.width);
}

template __global__ void layer_norm<1>(struct cuda_layer_norm, int);
template __global__ void layer_norm<2>(struct cuda_layer_norm, int);
template __global__ void layer_norm<3>(struct cuda_layer_norm, int);
template __global__ void layer_norm<4>(struct cuda_layer_norm, int);
template __global__ void layer_norm<8>(struct cuda_layer_norm, int);
template __global__ void layer_norm<16>(struct cuda_layer_norm, int);

#ifndef __CUDACC_RTC__
cudaError_t cuda_layer_norm(const struct cuda_launch *launch,
                            const struct cuda_layer_norm *n, int32_t n_rows) {
    dim3 grid((unsigned)((n_rows + ROWS_A_BLOCK - 1) / ROWS_A_BLOCK));
#define LAUNCH(CHUNKS)                                                                 \
    launch_kernel(launch, layer_norm<CHUNKS>, grid, ROWS_A_BLOCK *WARP, 0, *n,         \
                  (int)n_rows)
    return DISPATCH_CHUNKS(n->width, LAUNCH);
#undef LAUNCH
}
#endif
