/* SPDX-License-Identifier: Apache-2.0
 *
 * gather.cu - the first row of each sequence, one behind the other: in the last layer only
 * these go on behind the keys and values, when no tags are asked for.
 *
 * Design: a warp a row, 16 bytes a lane.   Bound: launch.
 * CPU:    kernels/cpu/forward.c, gather_cls.
 */
#include "kernels/cuda/device.cuh"

#define ROWS_A_BLOCK 4

static __global__ void __launch_bounds__(ROWS_A_BLOCK *WARP)
    gather(const struct cuda_counts *counts, const int32_t *offsets, const f16 *in,
           f16 *out, int width) {
    grid_begin();
    int row = (int)(blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP);
    if (row >= counts->n_sequences)
        return;
    const f16 *from = in + (size_t)offsets[row] * (size_t)width;
    f16 *to = out + (size_t)row * (size_t)width;
    for (int i = (int)(threadIdx.x % WARP) * 8; i < width; i += WARP * 8)
        *(uint4 *)(to + i) = *(const uint4 *)(from + i);
}

#ifndef __CUDACC_RTC__
cudaError_t cuda_gather(const struct cuda_launch *launch,
                        const struct cuda_counts *counts, const int32_t *offsets,
                        const f16 *in, f16 *out, int32_t width, int32_t max_sequences) {
    dim3 grid((unsigned)((max_sequences + ROWS_A_BLOCK - 1) / ROWS_A_BLOCK));
    return launch_kernel(launch, gather, grid, ROWS_A_BLOCK * WARP, 0, counts, offsets,
                         in, out, (int)width);
}
#endif
