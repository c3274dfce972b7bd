/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_mma.cu - out = epilogue(in weights^T + bias) on mma.sync, sm_80 and up.
 *
 * Design: CTA tiles of ROWS x COLUMNS, 64 deep, through a ring of STAGES tiles in shared
 *         memory that cp.async fills; ldmatrix; warps of 16 MI x 8 NI. Rows of shared memory
 *         are 128 bytes, their eight 16-byte chunks permuted by the row's number, so that
 *         eight rows of one chunk lie in different banks (ldmatrix) and so do the eight
 *         chunks of one row (cp.async). The epilogue works in registers: each lane has pairs
 *         of neighbouring columns. Small m: cut k (gemm.cuh), or few rows a tile.
 * Limits: n % COLUMNS == 0, k % 64 == 0; any m. Rows past m are read as the last row.
 * CPU:    kernels/cpu/gemm_portable.c.
 */
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/tensor_core.cuh"

#define DEPTH 64 /* halves: 128 bytes, all banks once */
#define CHUNKS_A_ROW (DEPTH / 8)

/* A tile's shape; MI, NI: 16-row and 8-column fragments of a warp. CTAS: on a multiprocessor at
 * least, for which ptxas has registers; unasked it may spill to make room for more. */
template <int ROWS_, int COLUMNS_, int WARPS_DOWN, int WARPS_ACROSS, int STAGES_,
          int CTAS_>
struct mma_tile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, STAGES = STAGES_;
    static constexpr int CTAS = CTAS_;
    static constexpr int THREADS = WARPS_DOWN * WARPS_ACROSS * WARP;
    static constexpr int ACROSS = WARPS_ACROSS;
    static constexpr int MI = ROWS / WARPS_DOWN / 16, NI = COLUMNS / WARPS_ACROSS / 8;
    static constexpr int STAGE_HALVES = (ROWS + COLUMNS) * DEPTH;
    static constexpr int SHARED_BYTES = STAGES * STAGE_HALVES * 2;
    static_assert(NI % 2 == 0, "ldmatrix brings two column fragments at a time");
};

/* Where chunk (of eight halves) of a row lies in a tile of shared memory. */
__device__ __forceinline__ int swizzled(int row, int chunk) {
    return row * DEPTH + ((chunk ^ row) & (CHUNKS_A_ROW - 1)) * 8;
}

/* N_ROWS rows of 64 halves from global to shared memory; rows past the last as the last. A
 * thread's rows are a multiple of 8 apart, so that the same permutation holds for all. */
template <int N_ROWS, int THREADS>
__device__ __forceinline__ void fetch(const f16 *from, int stride, int last_row,
                                      f16 *to) {
    constexpr int STEP = THREADS / CHUNKS_A_ROW, N = N_ROWS / STEP;
    static_assert(STEP % 8 == 0 && N_ROWS % STEP == 0, "every thread has as many rows");
    int row = (int)threadIdx.x / CHUNKS_A_ROW, chunk = (int)threadIdx.x % CHUNKS_A_ROW;
    f16 *at = to + swizzled(row, chunk);
#pragma unroll
    for (int i = 0; i < N; i++, row += STEP) {
        int from_row = row < last_row ? row : last_row;
        copy_async(at + i * STEP * DEPTH,
                   from + (size_t)from_row * (size_t)stride + chunk * 8);
    }
}

/* One stage: 64 deep. */
template <typename TILE>
__device__ __forceinline__ void multiply(const f16 *a, const f16 *b, int warp_row,
                                         int warp_column,
                                         float (&sums)[TILE::MI * TILE::NI * 4]) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++) {
        uint32_t af[TILE::MI][4], bf[TILE::NI / 2][4];
#pragma unroll
        for (int i = 0; i < TILE::MI; i++)
            ldmatrix_x4(af[i],
                        a + swizzled(warp_row + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int j = 0; j < TILE::NI / 2; j++)
            ldmatrix_x4(bf[j],
                        b + swizzled(warp_column + 16 * j + lane % 8 + lane / 16 * 8,
                                     2 * k + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < TILE::MI; i++)
#pragma unroll
            for (int j = 0; j < TILE::NI; j++)
                mma_m16n8k16(*(float(*)[4])(sums + (i * TILE::NI + j) * 4), af[i],
                             bf[j / 2][j % 2 * 2], bf[j / 2][j % 2 * 2 + 1]);
    }
}

/* Adds bias and residual to sixteen rows of a warp's sums and writes them. All loads come
 * first: they may not pass the stores, so that one by one each would wait for the last. */
template <typename TILE, enum cuda_epilogue E>
__device__ __forceinline__ void write_rows(const struct cuda_gemm &g, int row,
                                           int column, const float *sums,
                                           const float2 (&bias)[TILE::NI]) {
    float2 residual[2][TILE::NI];
    if (E == CUDA_EPILOGUE_RESIDUAL) {
#pragma unroll
        for (int below = 0; below < 2; below++) {
            int from_row = row + 8 * below < g.m ? row + 8 * below : g.m - 1;
            const f16 *from =
                g.residual + (size_t)from_row * (size_t)g.out_stride + column;
#pragma unroll
            for (int j = 0; j < TILE::NI; j++)
                residual[below][j] = __half22float2(*(const __half2 *)(from + 8 * j));
        }
    }
#pragma unroll
    for (int below = 0; below < 2; below++) {
        if (row + 8 * below >= g.m)
            continue;
        f16 *to = g.out + (size_t)(row + 8 * below) * (size_t)g.out_stride + column;
#pragma unroll
        for (int j = 0; j < TILE::NI; j++) {
            float x = sums[4 * j + 2 * below] + bias[j].x;
            float y = sums[4 * j + 2 * below + 1] + bias[j].y;
            if (E == CUDA_EPILOGUE_RESIDUAL) {
                x += residual[below][j].x;
                y += residual[below][j].y;
            }
            *(__half2 *)(to + 8 * j) =
                __floats2half2_rn(gemm_activate<E>(x), gemm_activate<E>(y));
        }
    }
}

template <typename TILE, enum cuda_epilogue E>
__global__ void __launch_bounds__(TILE::THREADS, TILE::CTAS)
    gemm_mma(struct cuda_gemm g, struct gemm_split split) {
    SHARED_MEMORY(memory);
    grid_let_next();
    f16 *stages = (f16 *)memory;
    int row0 = (int)blockIdx.y * TILE::ROWS, column0 = (int)blockIdx.x * TILE::COLUMNS;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int warp_row = warp / TILE::ACROSS * 16 * TILE::MI;
    int warp_column = warp % TILE::ACROSS * 8 * TILE::NI;
    const f16 *in = g.in + (size_t)row0 * (size_t)g.in_stride;
    const f16 *weights = g.weights + (size_t)column0 * (size_t)g.k;
    int last_row = g.m - 1 - row0, step, end;
    gemm_steps(g.k / DEPTH, split.n_splits, step, end);

    auto fetch_in = [&](int s, int slot) {
        if (s < end)
            fetch<TILE::ROWS, TILE::THREADS>(in + s * DEPTH, g.in_stride, last_row,
                                             stages + slot * TILE::STAGE_HALVES);
    };
    auto fetch_weights = [&](int s, int slot) {
        if (s < end)
            fetch<TILE::COLUMNS, TILE::THREADS>(
                weights + s * DEPTH, g.k, TILE::COLUMNS - 1,
                stages + slot * TILE::STAGE_HALVES + TILE::ROWS * DEPTH);
    };
    float sums[TILE::MI * TILE::NI * 4] = {};
    /* Weights need not wait for the kernel before. */
#pragma unroll
    for (int i = 0; i < TILE::STAGES - 1; i++)
        fetch_weights(step + i, i);
    grid_await_last();
#pragma unroll
    for (int i = 0; i < TILE::STAGES - 1; i++) {
        fetch_in(step + i, i);
        copy_async_commit();
    }
    for (int slot = 0; step < end; step++) {
        copy_async_wait<TILE::STAGES - 2>();
        __syncthreads(); /* the step is here for all, and its predecessor was read by all */
        int ahead = (slot + TILE::STAGES - 1) % TILE::STAGES;
        fetch_in(step + TILE::STAGES - 1, ahead);
        fetch_weights(step + TILE::STAGES - 1, ahead);
        copy_async_commit();
        const f16 *a = stages + slot * TILE::STAGE_HALVES;
        multiply<TILE>(a, a + TILE::ROWS * DEPTH, warp_row, warp_column, sums);
        slot = slot + 1 == TILE::STAGES ? 0 : slot + 1;
    }
    if (split.n_splits > 1 && !gemm_add_parts<TILE::MI * TILE::NI * 4, TILE::THREADS>(
                                  split, sums, (int *)memory))
        return;
    int column = column0 + warp_column + lane % 4 * 2;
    float2 bias[TILE::NI];
#pragma unroll
    for (int j = 0; j < TILE::NI; j++)
        bias[j] = __half22float2(*(const __half2 *)(g.bias + column + 8 * j));
#pragma unroll
    for (int i = 0; i < TILE::MI; i++)
        write_rows<TILE, E>(g, row0 + warp_row + 16 * i + lane / 4, column,
                            sums + i * TILE::NI * 4, bias);
}

/* rows, columns, warps down, warps across, stages, CTAs: at most 99 KB, which sm_86 and 89 have.
 * The low ones are for the weights' bandwidth: many stages in flight. */
typedef mma_tile<16, 64, 1, 4, 6, 3> mma_16x64;
typedef mma_tile<32, 64, 1, 4, 6, 3> mma_32x64;
typedef mma_tile<64, 64, 2, 2, 4, 3> mma_64x64;
typedef mma_tile<128, 64, 4, 2, 3, 2> mma_128x64;
typedef mma_tile<128, 128, 2, 4, 3, 1> mma_128x128;

#define INSTANCE(TILE, E)                                                              \
    template __global__ void gemm_mma<TILE, E>(struct cuda_gemm, struct gemm_split);
GEMM_FOR_EPILOGUES(INSTANCE, mma_16x64)
GEMM_FOR_EPILOGUES(INSTANCE, mma_32x64)
GEMM_FOR_EPILOGUES(INSTANCE, mma_64x64)
GEMM_FOR_EPILOGUES(INSTANCE, mma_128x64)
GEMM_FOR_EPILOGUES(INSTANCE, mma_128x128)

#ifndef __CUDACC_RTC__
#define KERNEL(TILE, E) gemm_mma<TILE, E>,
const struct gemm_tile gemm_tiles_mma[] = {
    GEMM_TILE("16x64", mma_16x64),     GEMM_TILE("32x64", mma_32x64),
    GEMM_TILE("64x64", mma_64x64),     GEMM_TILE("128x64", mma_128x64),
    GEMM_TILE("128x128", mma_128x128),
};
const int gemm_n_tiles_mma = sizeof gemm_tiles_mma / sizeof *gemm_tiles_mma;
#endif
