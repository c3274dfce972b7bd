/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.cu - chooses among the attention kernels and launches one (host code alone).
 */
#include "kernels/cuda/attention.cuh"

#ifndef __CUDACC_RTC__
static attention_kernel *find(enum cuda_path path, int head_width, int warps,
                              size_t *shared_bytes) {
    return path == CUDA_PATH_MMA ? attention_mma_find(head_width, warps, shared_bytes)
                                 : attention_wmma_find(head_width, warps, shared_bytes);
}

cudaError_t cuda_attention(const struct cuda_launch *launch,
                           const struct cuda_attention *a,
                           const struct cuda_tile *tiles, int32_t max_tiles,
                           int32_t warps) {
    size_t shared_bytes = 0;
    attention_kernel *kernel = find(launch->path, a->head_width, warps, &shared_bytes);
    if (!kernel)
        return cudaErrorInvalidValue;
    dim3 grid((unsigned)max_tiles, (unsigned)a->n_heads);
    return launch_kernel(launch, kernel, grid, warps * WARP, shared_bytes, *a, tiles);
}

cudaError_t attention_prepare(enum cuda_path path) {
    static const int widths[] = {16, 32, 64, 128}, warps[] = {2, 4, 8};
    cudaError_t code = cudaSuccess;
    for (int w = 0; w < 4; w++)
        for (int n = 0; n < 3 && code == cudaSuccess; n++) {
            size_t shared_bytes = 0;
            attention_kernel *kernel = find(path, widths[w], warps[n], &shared_bytes);
            code = cudaFuncSetAttribute(
                kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
        }
    return code;
}
#endif
