/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm.cu - chooses among the product kernels and launches one (host code alone).
 */
#include "kernels/cuda/gemm.cuh"

#ifndef __CUDACC_RTC__
static const struct gemm_tile *tile_of(enum cuda_path path, int32_t tile) {
    return path == CUDA_PATH_MMA ? &gemm_tiles_mma[tile] : &gemm_tiles_wmma[tile];
}

static unsigned tiles_down(const struct gemm_tile *t, int32_t m) {
    return (unsigned)((m + t->rows - 1) / t->rows);
}

int32_t cuda_gemm_n_tiles(enum cuda_path path) {
    return path == CUDA_PATH_MMA ? gemm_n_tiles_mma : gemm_n_tiles_wmma;
}

const char *cuda_gemm_tile_name(enum cuda_path path, int32_t tile) {
    return tile_of(path, tile)->name;
}

bool cuda_gemm_fits(enum cuda_path path, struct cuda_gemm_variant v, int32_t m,
                    int32_t n, int32_t k) {
    const struct gemm_tile *t = tile_of(path, v.tile);
    return m > 0 && n % t->columns == 0 && k % t->depth == 0 && v.n_splits >= 1 &&
           v.n_splits <= k / t->depth && tiles_down(t, m) <= 65535;
}

int32_t cuda_gemm_n_counters(enum cuda_path path, struct cuda_gemm_variant v, int32_t m,
                             int32_t n) {
    const struct gemm_tile *t = tile_of(path, v.tile);
    return v.n_splits > 1 ? (int32_t)tiles_down(t, m) * (n / t->columns) : 0;
}

size_t cuda_gemm_partial_bytes(enum cuda_path path, struct cuda_gemm_variant v,
                               int32_t m, int32_t n) {
    const struct gemm_tile *t = tile_of(path, v.tile);
    return (size_t)cuda_gemm_n_counters(path, v, m, n) * (size_t)v.n_splits *
           (size_t)t->rows * (size_t)t->columns * sizeof(float);
}

cudaError_t cuda_gemm(const struct cuda_launch *launch, const struct cuda_gemm *g,
                      struct cuda_gemm_variant v, float *partials, int32_t *counters) {
    const struct gemm_tile *t = tile_of(launch->path, v.tile);
    struct gemm_split split = {partials, counters, v.n_splits};
    dim3 grid((unsigned)(g->n / t->columns), tiles_down(t, g->m), (unsigned)v.n_splits);
    return launch_kernel(launch, t->kernels[g->epilogue], grid, t->threads,
                         t->shared_bytes, *g, split);
}

cudaError_t gemm_prepare(enum cuda_path path) {
    cudaError_t code = cudaSuccess;
    for (int32_t i = 0; i < cuda_gemm_n_tiles(path); i++)
        for (int e = 0; e < 4 && code == cudaSuccess; e++) {
            const struct gemm_tile *t = tile_of(path, i);
            code = cudaFuncSetAttribute(t->kernels[e],
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (int)t->shared_bytes);
        }
    return code;
}
#endif
