/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_mma.cu - attention over packed sequences on mma.sync, sm_80 and up.
 *
 * Design: a CTA is one head of one tile of 16 * WARPS queries, a warp 16 of them. Keys and
 *         values come in blocks of 64 through shared memory (cp.async; two blocks deep where
 *         a tile is long enough that its sequence may have more than one), and a running
 *         maximum and sum make the softmax (online softmax, Milakov and Gimelshein 2018).
 *         Scores never leave registers: an accumulator of q k^T is laid out as an operand of
 *         p v. Chunks of rows are permuted in shared memory as in gemm_mma.cu.
 * Limits: HEAD 16, 32, 64, 128. Rows past the sequence's end are read as its last.
 * CPU:    kernels/cpu/attention.inc.h.
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tensor_core.cuh"

#define BLOCK_KEYS 64
#define KEY_TILES (BLOCK_KEYS / 8)

/* Shared memory of rows of HEAD halves whose 16-byte chunks are permuted so that the same
 * chunk of eight rows lies in different banks. */
template <int HEAD> __device__ __forceinline__ int swizzled(int row, int chunk) {
    constexpr int CHUNKS = HEAD / 8, ROWS_A_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1;
    constexpr int MASK = CHUNKS < 8 ? CHUNKS - 1 : 7;
    return row * HEAD + (chunk ^ (row / ROWS_A_LINE & MASK)) * 8;
}

template <int HEAD, int THREADS>
__device__ __forceinline__ void fetch_block(const struct cuda_attention &a,
                                            const struct cuda_tile &tile, int head,
                                            int first_key, f16 *keys, f16 *values) {
    constexpr int CHUNKS = HEAD / 8, N = BLOCK_KEYS * CHUNKS;
#pragma unroll(THREADS == 256 ? 1 : 4) /* beyond, registers run out */
    for (int c = 0; c < (N + THREADS - 1) / THREADS; c++) {
        int i = c * THREADS + (int)threadIdx.x;
        int row = i / CHUNKS, chunk = i % CHUNKS, key = first_key + row;
        if (N % THREADS != 0 && i >= N)
            break;
        if (key >= tile.n_tokens)
            key = tile.n_tokens - 1;
        size_t at = (size_t)(tile.begin + key) * (size_t)a.kv_stride +
                    (size_t)(head * HEAD + chunk * 8);
        copy_async(keys + swizzled<HEAD>(row, chunk), a.k + at);
        copy_async(values + swizzled<HEAD>(row, chunk), a.v + at);
    }
    copy_async_commit();
}

/* A warp's sixteen queries on their way: lane 4 g + t has rows g and g + 8. */
template <int HEAD> struct strip {
    uint32_t q[HEAD / 16][4];
    float out[HEAD / 8][4];
    float largest[2], sum[2];

    __device__ __forceinline__ void load(const struct cuda_attention &a,
                                         const struct cuda_tile &tile, int head,
                                         int first_query) {
        int lane = (int)threadIdx.x % WARP;
        int row = first_query + lane / 4, below = row + 8, last = tile.n_tokens - 1;
        const f16 *base =
            a.q + (size_t)tile.begin * (size_t)a.q_stride + head * HEAD + lane % 4 * 2;
        const f16 *upper =
            base + (size_t)(row < last ? row : last) * (size_t)a.q_stride;
        const f16 *lower =
            base + (size_t)(below < last ? below : last) * (size_t)a.q_stride;
#pragma unroll
        for (int d = 0; d < HEAD / 16; d++) {
            q[d][0] = *(const uint32_t *)(upper + 16 * d);
            q[d][1] = *(const uint32_t *)(lower + 16 * d);
            q[d][2] = *(const uint32_t *)(upper + 16 * d + 8);
            q[d][3] = *(const uint32_t *)(lower + 16 * d + 8);
        }
#pragma unroll
        for (int d = 0; d < HEAD / 8; d++)
            out[d][0] = out[d][1] = out[d][2] = out[d][3] = 0;
        largest[0] = largest[1] = NO_SCORE;
        sum[0] = sum[1] = 0;
    }

    /* scores = q k^T of the block's first n_keys keys; NO_SCORE behind them. */
    __device__ __forceinline__ void score(const f16 *keys, int n_keys,
                                          float (&scores)[KEY_TILES][4]) {
        int lane = (int)threadIdx.x % WARP;
#pragma unroll
        for (int j = 0; j < KEY_TILES; j++)
            scores[j][0] = scores[j][1] = scores[j][2] = scores[j][3] = 0;
#pragma unroll
        for (int j = 0; j < KEY_TILES / 2; j++) {
            if (16 * j >= n_keys)
                continue;
#pragma unroll
            for (int d = 0; d < HEAD / 16; d++) {
                uint32_t k[4];
                ldmatrix_x4(k, keys + swizzled<HEAD>(16 * j + lane % 8 + lane / 16 * 8,
                                                     2 * d + lane / 8 % 2));
                mma_m16n8k16(scores[2 * j], q[d], k[0], k[1]);
                mma_m16n8k16(scores[2 * j + 1], q[d], k[2], k[3]);
            }
        }
#pragma unroll
        for (int j = 0; j < KEY_TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (8 * j + lane % 4 * 2 + e % 2 >= n_keys)
                    scores[j][e] = NO_SCORE;
    }

    /* Scores to powers of two below the running maximum; what is there is scaled to it. */
    __device__ __forceinline__ void soften(float (&scores)[KEY_TILES][4], float scale) {
#pragma unroll
        for (int below = 0; below < 2; below++) {
            float most = largest[below], added = 0;
#pragma unroll
            for (int j = 0; j < KEY_TILES; j++)
                most =
                    fmaxf(most, fmaxf(scores[j][2 * below], scores[j][2 * below + 1]));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            float shift = most * scale,
                  before = power_of_two(largest[below] * scale - shift);
#pragma unroll
            for (int j = 0; j < KEY_TILES; j++)
#pragma unroll
                for (int e = 2 * below; e < 2 * below + 2; e++) {
                    scores[j][e] = power_of_two(fmaf(scores[j][e], scale, -shift));
                    added += scores[j][e];
                }
            largest[below] = most;
            sum[below] = sum[below] * before + added; /* of this lane's columns */
#pragma unroll
            for (int d = 0; d < HEAD / 8; d++) {
                out[d][2 * below] *= before;
                out[d][2 * below + 1] *= before;
            }
        }
    }

    /* out += scores v */
    __device__ __forceinline__ void gather(const f16 *values, int n_keys,
                                           const float (&scores)[KEY_TILES][4]) {
        int lane = (int)threadIdx.x % WARP;
#pragma unroll
        for (int j = 0; j < KEY_TILES / 2; j++) {
            if (16 * j >= n_keys)
                continue;
            uint32_t p[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                union {
                    __half2 pair;
                    uint32_t bits;
                } u;
                u.pair = __floats2half2_rn(scores[2 * j + i / 2][i % 2 * 2],
                                           scores[2 * j + i / 2][i % 2 * 2 + 1]);
                p[i] = u.bits;
            }
#pragma unroll
            for (int d = 0; d < HEAD / 16; d++) {
                uint32_t v[4];
                ldmatrix_x4_transposed(
                    v, values + swizzled<HEAD>(16 * j + lane % 16, 2 * d + lane / 16));
                mma_m16n8k16(out[2 * d], p, v[0], v[1]);
                mma_m16n8k16(out[2 * d + 1], p, v[2], v[3]);
            }
        }
    }

    __device__ __forceinline__ void write(const struct cuda_attention &a,
                                          const struct cuda_tile &tile, int head,
                                          int first_query) {
        int lane = (int)threadIdx.x % WARP;
#pragma unroll
        for (int below = 0; below < 2; below++) {
            float total = sum[below];
            total += __shfl_xor_sync(ALL_LANES, total, 1);
            total += __shfl_xor_sync(ALL_LANES, total, 2);
            float inverse = 1.0f / total;
            int query = first_query + lane / 4 + 8 * below;
            if (query >= tile.n_tokens)
                continue;
            f16 *to = a.out + (size_t)(tile.begin + query) * (size_t)a.out_stride +
                      head * HEAD + lane % 4 * 2;
#pragma unroll
            for (int d = 0; d < HEAD / 8; d++)
                *(__half2 *)(to + 8 * d) = __floats2half2_rn(
                    out[d][2 * below] * inverse, out[d][2 * below + 1] * inverse);
        }
    }
};

template <int HEAD, int WARPS>
__global__ void __launch_bounds__(WARPS *WARP, HEAD == 128 ? 1 : 2)
    attention_mma(struct cuda_attention a, const struct cuda_tile *tiles) {
    constexpr int STAGES = WARPS == 8 ? 2 : 1, BLOCK = BLOCK_KEYS * HEAD;
    SHARED_MEMORY(memory);
    grid_begin();
    if ((int)blockIdx.x >= a.counts->n_tiles)
        return;
    const struct cuda_tile tile = tiles[blockIdx.x];
    f16 *blocks = (f16 *)memory; /* [STAGES] keys, then values */
    int head = (int)blockIdx.y;
    int first_query = tile.first_query + (int)threadIdx.x / WARP * 16;
    bool has_queries = first_query < tile.n_tokens;
    float scale = a.scale * LOG2_E;
    struct strip<HEAD> s;
    fetch_block<HEAD, WARPS * WARP>(a, tile, head, 0, blocks, blocks + BLOCK);
    if (has_queries)
        s.load(a, tile, head, first_query);
    for (int first_key = 0, slot = 0; first_key < tile.n_tokens;
         first_key += BLOCK_KEYS) {
        const f16 *keys = blocks + slot * 2 * BLOCK;
        int next = first_key + BLOCK_KEYS;
        bool has_next = next < tile.n_tokens;
        if (STAGES == 2 && has_next) {
            slot ^= 1;
            f16 *to = blocks + slot * 2 * BLOCK;
            fetch_block<HEAD, WARPS * WARP>(a, tile, head, next, to, to + BLOCK);
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        __syncthreads();
        if (has_queries) {
            float scores[KEY_TILES][4];
            s.score(keys, tile.n_tokens - first_key, scores);
            s.soften(scores, scale);
            s.gather(keys + BLOCK, tile.n_tokens - first_key, scores);
        }
        if (has_next)
            __syncthreads(); /* the block was read by all */
        if (STAGES == 1 && has_next)
            fetch_block<HEAD, WARPS * WARP>(a, tile, head, next, blocks,
                                            blocks + BLOCK);
    }
    if (has_queries)
        s.write(a, tile, head, first_query);
}

#define FOR_WARPS(DO, HEAD) DO(HEAD, 2) DO(HEAD, 4) DO(HEAD, 8)
#define INSTANCE(HEAD, WARPS)                                                          \
    template __global__ void attention_mma<HEAD, WARPS>(struct cuda_attention,         \
                                                        const struct cuda_tile *);
FOR_WARPS(INSTANCE, 16)
FOR_WARPS(INSTANCE, 32)
FOR_WARPS(INSTANCE, 64)
FOR_WARPS(INSTANCE, 128)

#ifndef __CUDACC_RTC__
attention_kernel *attention_mma_find(int head_width, int warps, size_t *shared_bytes) {
    *shared_bytes = (size_t)(warps == 8 ? 2 : 1) * 2 * BLOCK_KEYS * (size_t)head_width *
                    sizeof(f16);
#define MATCH(HEAD, WARPS)                                                             \
    if (head_width == HEAD && warps == WARPS)                                          \
        return attention_mma<HEAD, WARPS>;
    FOR_WARPS(MATCH, 16)
    FOR_WARPS(MATCH, 32)
    FOR_WARPS(MATCH, 64)
    FOR_WARPS(MATCH, 128)
#undef MATCH
    return NULL;
}
#endif
