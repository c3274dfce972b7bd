/* SPDX-License-Identifier: Apache-2.0
 *
 * embed.cu - a token's row: its word's embedding, its position's, and their LayerNorm.
 *
 * Design: a warp a token. Rows of words are read once, 16 bytes a lane.
 * Limits: width a multiple of 64, up to CUDA_MAX_WIDTH.   Bound: memory.
 * CPU:    kernels/cpu/operators.inc.h, embed.
 */
#include "kernels/cuda/layer_norm.cuh"

#define ROWS_A_BLOCK 4

template <int CHUNKS>
__global__ void __launch_bounds__(ROWS_A_BLOCK *WARP) embed(struct cuda_embed e) {
    grid_begin();
    int row = (int)(blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP);
    if (row >= e.counts->n_tokens)
        return;
    const f16 *word = e.words + (size_t)e.ids[row] * (size_t)e.width;
    const f16 *position = e.position_rows + (size_t)e.positions[row] * (size_t)e.width;
    int first = (int)(threadIdx.x % WARP) * 8;
    float x[CHUNKS][8];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int column = c * ROW_CHUNK + first;
        if (column >= e.width)
            break;
        float p[8];
        half8_to_float(word + column, x[c]);
        half8_to_float(position + column, p);
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[c][i] += p[i];
    }
    normalize_row<CHUNKS>(x, e.weight, e.bias, e.dim, e.width,
                          e.x + (size_t)row * (size_t)e.width);
}

template __global__ void embed<1>(struct cuda_embed);
template __global__ void embed<2>(struct cuda_embed);
template __global__ void embed<3>(struct cuda_embed);
template __global__ void embed<4>(struct cuda_embed);
template __global__ void embed<8>(struct cuda_embed);
template __global__ void embed<16>(struct cuda_embed);

#ifndef __CUDACC_RTC__
cudaError_t cuda_embed(const struct cuda_launch *launch, const struct cuda_embed *e,
                       int32_t max_tokens) {
    dim3 grid((unsigned)((max_tokens + ROWS_A_BLOCK - 1) / ROWS_A_BLOCK));
#define LAUNCH(CHUNKS)                                                                 \
    launch_kernel(launch, embed<CHUNKS>, grid, ROWS_A_BLOCK *WARP, 0, *e)
    return DISPATCH_CHUNKS(e->width, LAUNCH);
#undef LAUNCH
}
#endif
