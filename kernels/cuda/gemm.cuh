/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm.cuh - what both kinds of product share: the epilogue, and adding up the parts of k.
 *
 * Split k: each CTA of a tile leaves its sums in `partials` and takes a ticket; the last one
 * adds all parts in their order and goes on to the epilogue. No float atomics: the same
 * bits every time. Each thread finds its own sums where the same thread of the other CTAs
 * put theirs, 16 bytes a lane beside its neighbours'.
 */
#ifndef VIGIL_KERNELS_CUDA_GEMM_CUH
#define VIGIL_KERNELS_CUDA_GEMM_CUH

#include "kernels/cuda/device.cuh"

struct gemm_split {
    float *partials;
    int32_t *counters; /* one a tile, 0 between launches */
    int n_splits;
};

template <enum cuda_epilogue E>
__device__ __forceinline__ float gemm_activate(float x) {
    if (E == CUDA_EPILOGUE_GELU)
        return gelu(x);
    if (E == CUDA_EPILOGUE_RELU)
        return relu(x);
    return x;
}

/* Adds the parts of all CTAs of this tile into sums[N] (N a multiple of 4) of the last CTA
 * that comes. False: another one will be the last, and this one is done. scratch: 4 bytes of
 * shared memory that no thread reads any more. */
template <int N, int THREADS>
__device__ __forceinline__ bool gemm_add_parts(const struct gemm_split &split,
                                               float (&sums)[N], int *scratch) {
    size_t tile = blockIdx.y * (size_t)gridDim.x + blockIdx.x;
    float4 *parts = (float4 *)split.partials +
                    tile * (size_t)split.n_splits * (size_t)(N / 4 * THREADS) +
                    threadIdx.x;
    float4 *mine = parts + (size_t)blockIdx.z * (size_t)(N / 4 * THREADS);
#pragma unroll
    for (int i = 0; i < N / 4; i++)
        mine[i * THREADS] =
            make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
    __syncthreads(); /* all of this CTA's are on their way, and scratch is free */
    if (threadIdx.x == 0) {
        __threadfence(); /* after the barrier: for what all threads wrote */
        int ticket = atomicAdd(&split.counters[tile], 1);
        if (ticket == split.n_splits - 1)
            split.counters[tile] = 0;
        __threadfence();
        *scratch = ticket;
    }
    __syncthreads();
    if (*scratch != split.n_splits - 1)
        return false;
#pragma unroll
    for (int i = 0; i < N; i++)
        sums[i] = 0;
    for (int s = 0; s < split.n_splits; s++)
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            float4 part = __ldcg(parts + (size_t)s * (size_t)(N / 4 * THREADS) +
                                 (size_t)(i * THREADS));
            sums[4 * i] += part.x;
            sums[4 * i + 1] += part.y;
            sums[4 * i + 2] += part.z;
            sums[4 * i + 3] += part.w;
        }
    return true;
}

/* Which steps of k this CTA takes. */
__device__ __forceinline__ void gemm_steps(int n_steps, int n_splits, int &begin,
                                           int &end) {
    begin = n_steps * (int)blockIdx.z / n_splits;
    end = n_steps * ((int)blockIdx.z + 1) / n_splits;
}

#define GEMM_FOR_EPILOGUES(DO, TILE)                                                   \
    DO(TILE, CUDA_EPILOGUE_BIAS)                                                       \
    DO(TILE, CUDA_EPILOGUE_RELU)                                                       \
    DO(TILE, CUDA_EPILOGUE_GELU)                                                       \
    DO(TILE, CUDA_EPILOGUE_RESIDUAL)

#ifndef __CUDACC_RTC__
/* A line of a table of tiles; KERNEL(TILE, E), the file's own, is a kernel and a comma. */
#define GEMM_TILE(NAME, TILE)                                                          \
    {                                                                                  \
        NAME, TILE::ROWS, TILE::COLUMNS, DEPTH, TILE::THREADS, TILE::SHARED_BYTES, {   \
            GEMM_FOR_EPILOGUES(KERNEL, TILE)                                           \
        }                                                                              \
    }

/* A tile shape and the kernels that have it, one an epilogue. */
struct gemm_tile {
    const char *name;
    int rows, columns, depth, threads;
    size_t shared_bytes;
    void (*kernels[4])(struct cuda_gemm, struct gemm_split);
};

extern const struct gemm_tile gemm_tiles_mma[], gemm_tiles_wmma[];
extern const int gemm_n_tiles_mma, gemm_n_tiles_wmma;

/* A part of cuda_kernels_prepare. */
cudaError_t gemm_prepare(enum cuda_path path);
#endif

#endif
