/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_wmma.cu - out = epilogue(in weights^T + bias) on wmma 16x16x16: the products of sm_70
 * and 75, which have no cp.async, and there the only ones where cuBLASLt offers none.
 *
 * Design: CTA tiles of ROWS x COLUMNS, 32 deep, two of them in shared memory: while one is
 *         multiplied, the next is on its way through registers. Rows of shared memory are
 *         padded by 8 halves against bank conflicts. A fragment's layout is the compiler's
 *         own, so the epilogue goes through 16x16 floats of shared memory for each warp.
 * Limits: n % COLUMNS == 0, k % 32 == 0; any m. Rows past m are read as the last row.
 * CPU:    kernels/cpu/gemm_portable.c.
 */
#include <mma.h>

#include "kernels/cuda/gemm.cuh"

using namespace nvcuda;

#define DEPTH 32
#define PITCH (DEPTH + 8) /* halves from row to row in shared memory */
#define CHUNKS_A_ROW (DEPTH / 8)
#define PATCH_PITCH 20 /* floats from row to row of the epilogue's 16x16 */

/* A tile's shape; MI, NI: 16x16 fragments of a warp. CTAS: see gemm_mma.cu. */
template <int ROWS_, int COLUMNS_, int WARPS_DOWN, int WARPS_ACROSS, int CTAS_>
struct wmma_tile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, CTAS = CTAS_;
    static constexpr int WARPS = WARPS_DOWN * WARPS_ACROSS, THREADS = WARPS * WARP;
    static constexpr int ACROSS = WARPS_ACROSS;
    static constexpr int MI = ROWS / WARPS_DOWN / 16;
    static constexpr int NI = COLUMNS / WARPS_ACROSS / 16;
    static constexpr int STAGE_HALVES = (ROWS + COLUMNS) * PITCH;
    static constexpr int STAGE_CHUNKS = (ROWS + COLUMNS) * CHUNKS_A_ROW;
    static constexpr int CHUNKS_A_THREAD = STAGE_CHUNKS / THREADS;
    static constexpr int STAGES_BYTES = 2 * STAGE_HALVES * 2;
    static constexpr int PATCHES_BYTES = WARPS * 16 * PATCH_PITCH * 4;
    static constexpr int SHARED_BYTES =
        STAGES_BYTES > PATCHES_BYTES ? STAGES_BYTES : PATCHES_BYTES;
    static_assert(STAGE_CHUNKS % THREADS == 0, "every thread moves as many chunks");
};

typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> wmma_sums;

/* A stage's rows of `in`, then of `weights`, through registers. */
template <typename TILE> struct stage_mover {
    uint4 held[TILE::CHUNKS_A_THREAD];

    __device__ __forceinline__ void load(const struct cuda_gemm &g, int row0,
                                         int column0, int k) {
#pragma unroll
        for (int c = 0; c < TILE::CHUNKS_A_THREAD; c++) {
            int i = c * TILE::THREADS + (int)threadIdx.x;
            int row = i / CHUNKS_A_ROW, chunk = i % CHUNKS_A_ROW;
            const f16 *from;
            if (row < TILE::ROWS) {
                int in_row = row0 + row < g.m ? row0 + row : g.m - 1;
                from = g.in + (size_t)in_row * (size_t)g.in_stride;
            } else {
                from = g.weights + (size_t)(column0 + row - TILE::ROWS) * (size_t)g.k;
            }
            held[c] = *(const uint4 *)(from + k + chunk * 8);
        }
    }

    __device__ __forceinline__ void store(__half *stage) {
#pragma unroll
        for (int c = 0; c < TILE::CHUNKS_A_THREAD; c++) {
            int i = c * TILE::THREADS + (int)threadIdx.x;
            *(uint4 *)(stage + i / CHUNKS_A_ROW * PITCH + i % CHUNKS_A_ROW * 8) =
                held[c];
        }
    }
};

template <typename TILE>
__device__ __forceinline__ void multiply(const __half *a, const __half *b,
                                         wmma_sums (&sums)[TILE::MI][TILE::NI]) {
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major>
            af[TILE::MI];
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major>
            bf[TILE::NI];
#pragma unroll
        for (int i = 0; i < TILE::MI; i++)
            wmma::load_matrix_sync(af[i], a + 16 * i * PITCH + k, PITCH);
#pragma unroll
        for (int j = 0; j < TILE::NI; j++)
            wmma::load_matrix_sync(bf[j], b + 16 * j * PITCH + k, PITCH);
#pragma unroll
        for (int i = 0; i < TILE::MI; i++)
#pragma unroll
            for (int j = 0; j < TILE::NI; j++)
                wmma::mma_sync(sums[i][j], af[i], bf[j], sums[i][j]);
    }
}

/* Finishes sixteen rows of a warp's sums, a fragment at a time through its patch: lane
 * 2 r + h has eight columns of row r. Loads come first: they may not pass the stores. */
template <typename TILE, enum cuda_epilogue E>
__device__ __forceinline__ void
write_rows(const struct cuda_gemm &g, int row0, int column0,
           const wmma_sums (&sums)[TILE::NI], float *patch) {
    int lane = (int)threadIdx.x % WARP, row = row0 + lane / 2;
    int column = column0 + lane % 2 * 8, in_row = row < g.m ? row : g.m - 1;
    size_t at = (size_t)in_row * (size_t)g.out_stride + (size_t)column;
    uint4 bias[TILE::NI], residual[TILE::NI];
#pragma unroll
    for (int j = 0; j < TILE::NI; j++) {
        bias[j] = *(const uint4 *)(g.bias + column + 16 * j);
        if (E == CUDA_EPILOGUE_RESIDUAL)
            residual[j] = *(const uint4 *)(g.residual + at + 16 * j);
    }
#pragma unroll
    for (int j = 0; j < TILE::NI; j++) {
        float y[8], added[8];
        wmma::store_matrix_sync(patch, sums[j], PATCH_PITCH, wmma::mem_row_major);
        __syncwarp();
        half8_to_float(&bias[j], y);
#pragma unroll
        for (int i = 0; i < 8; i++)
            y[i] += patch[lane / 2 * PATCH_PITCH + lane % 2 * 8 + i];
        if (E == CUDA_EPILOGUE_RESIDUAL) {
            half8_to_float(&residual[j], added);
#pragma unroll
            for (int i = 0; i < 8; i++)
                y[i] += added[i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            y[i] = gemm_activate<E>(y[i]);
        if (row < g.m)
            half8_from_float(y, g.out + at + 16 * j);
        __syncwarp(); /* the patch was read */
    }
}

/* The parts of k, fragment by fragment: a fragment's element i is the same one in every CTA. */
template <typename TILE>
__device__ __forceinline__ bool add_parts(const struct gemm_split &split,
                                          wmma_sums (&sums)[TILE::MI][TILE::NI],
                                          int *scratch) {
    constexpr int N = 8; /* a lane's elements of a 16x16 accumulator */
    float values[TILE::MI * TILE::NI * N];
#pragma unroll
    for (int i = 0; i < TILE::MI * TILE::NI; i++)
#pragma unroll
        for (int e = 0; e < N; e++)
            values[i * N + e] = sums[i / TILE::NI][i % TILE::NI].x[e];
    if (!gemm_add_parts<TILE::MI * TILE::NI * N, TILE::THREADS>(split, values, scratch))
        return false;
#pragma unroll
    for (int i = 0; i < TILE::MI * TILE::NI; i++)
#pragma unroll
        for (int e = 0; e < N; e++)
            sums[i / TILE::NI][i % TILE::NI].x[e] = values[i * N + e];
    return true;
}

template <typename TILE, enum cuda_epilogue E>
__global__ void __launch_bounds__(TILE::THREADS, TILE::CTAS)
    gemm_wmma(struct cuda_gemm g, struct gemm_split split) {
    SHARED_MEMORY(memory);
    grid_begin();
    __half *stages = (__half *)memory;
    int row0 = (int)blockIdx.y * TILE::ROWS, column0 = (int)blockIdx.x * TILE::COLUMNS;
    int warp = (int)threadIdx.x / WARP;
    int warp_row = warp / TILE::ACROSS * 16 * TILE::MI;
    int warp_column = warp % TILE::ACROSS * 16 * TILE::NI;
    int step, end;
    gemm_steps(g.k / DEPTH, split.n_splits, step, end);

    wmma_sums sums[TILE::MI][TILE::NI];
#pragma unroll
    for (int i = 0; i < TILE::MI * TILE::NI; i++)
        wmma::fill_fragment(sums[i / TILE::NI][i % TILE::NI], 0.0f);
    stage_mover<TILE> mover;
    mover.load(g, row0, column0, step * DEPTH);
    mover.store(stages);
    __syncthreads();
    for (int slot = 0; step < end; step++, slot ^= 1) {
        const __half *stage = stages + slot * TILE::STAGE_HALVES;
        bool has_next = step + 1 < end;
        if (has_next)
            mover.load(g, row0, column0, (step + 1) * DEPTH);
        multiply<TILE>(stage + warp_row * PITCH,
                       stage + (TILE::ROWS + warp_column) * PITCH, sums);
        if (has_next)
            mover.store(stages + (slot ^ 1) * TILE::STAGE_HALVES);
        __syncthreads();
    }
    if (split.n_splits > 1 && !add_parts<TILE>(split, sums, (int *)memory))
        return;
    if (split.n_splits > 1)
        __syncthreads(); /* the ticket was read by all */
    float *patch = (float *)memory + warp * 16 * PATCH_PITCH;
#pragma unroll
    for (int i = 0; i < TILE::MI; i++)
        write_rows<TILE, E>(g, row0 + warp_row + 16 * i, column0 + warp_column, sums[i],
                            patch);
}

/* rows, columns, warps down, warps across, CTAs; at most 40 KB of shared memory. */
typedef wmma_tile<32, 64, 1, 4, 4> wmma_32x64;
typedef wmma_tile<64, 64, 2, 2, 4> wmma_64x64;
typedef wmma_tile<128, 64, 4, 2, 2> wmma_128x64;
typedef wmma_tile<128, 128, 2, 4, 1> wmma_128x128;

#define INSTANCE(TILE, E)                                                              \
    template __global__ void gemm_wmma<TILE, E>(struct cuda_gemm, struct gemm_split);
GEMM_FOR_EPILOGUES(INSTANCE, wmma_32x64)
GEMM_FOR_EPILOGUES(INSTANCE, wmma_64x64)
GEMM_FOR_EPILOGUES(INSTANCE, wmma_128x64)
GEMM_FOR_EPILOGUES(INSTANCE, wmma_128x128)

#ifndef __CUDACC_RTC__
#define KERNEL(TILE, E) gemm_wmma<TILE, E>,
const struct gemm_tile gemm_tiles_wmma[] = {
    GEMM_TILE("32x64", wmma_32x64),
    GEMM_TILE("64x64", wmma_64x64),
    GEMM_TILE("128x64", wmma_128x64),
    GEMM_TILE("128x128", wmma_128x128),
};
const int gemm_n_tiles_wmma = sizeof gemm_tiles_wmma / sizeof *gemm_tiles_wmma;
#endif
