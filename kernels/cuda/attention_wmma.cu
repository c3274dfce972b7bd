/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_wmma.cu - attention over packed sequences on wmma 16x16x16: sm_70 and 75.
 *
 * Design: as attention_mma.cu, but a fragment's layout is the compiler's own. So scores go
 *         through shared memory, where two lanes a row make them powers of two, in halves,
 *         on the same bytes; and a fragment of row numbers, loaded once as the output's
 *         fragments are laid out, tells each lane which row's factor scales which of its
 *         elements. The output stays in registers.
 * Limits: HEAD 16, 32, 64, 128. Queries past a sequence's end are read as they lie in
 *         memory (up to 15 rows behind the last) and not written; keys as its last.
 * CPU:    kernels/cpu/attention.inc.h.
 */
#include <mma.h>

#include "kernels/cuda/attention.cuh"

using namespace nvcuda;

typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> wmma_sums;
typedef wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> wmma_rows;

template <int HEAD_, int WARPS_> struct shape {
    static constexpr int HEAD = HEAD_, WARPS = WARPS_, THREADS = WARPS * WARP;
    static constexpr int BLOCK_KEYS = HEAD == 128 ? 32 : 64;
    /* On a multiprocessor at least: what its shared memory lets in, and ptxas has registers
     * for; unasked it may spill to make room for more. */
    static constexpr int CTAS = HEAD == 128 || (HEAD == 64 && WARPS == 8) ? 1 : 2;
    static constexpr int PITCH = HEAD + 8;             /* halves, of keys and values */
    static constexpr int SCORE_PITCH = BLOCK_KEYS + 4; /* floats */
    static constexpr int STRIP_FLOATS =
        16 * SCORE_PITCH + 16; /* a warp's; 16 factors */
    static constexpr int BLOCK_HALVES = 2 * BLOCK_KEYS * PITCH;
    static constexpr int SHARED_BYTES = BLOCK_HALVES * 2 + WARPS * STRIP_FLOATS * 4;
};

/* Keys and values of the block, rows past the end as the last. */
template <typename S>
__device__ __forceinline__ void
fetch_block(const struct cuda_attention &a, const struct cuda_tile &tile, int head,
            int first_key, __half *keys, __half *values) {
    constexpr int CHUNKS = S::HEAD / 8;
    for (int i = (int)threadIdx.x; i < S::BLOCK_KEYS * CHUNKS; i += S::THREADS) {
        int row = i / CHUNKS, chunk = i % CHUNKS, key = first_key + row;
        if (key >= tile.n_tokens)
            key = tile.n_tokens - 1;
        size_t at = (size_t)(tile.begin + key) * (size_t)a.kv_stride +
                    (size_t)(head * S::HEAD + chunk * 8);
        *(uint4 *)(keys + row * S::PITCH + chunk * 8) = *(const uint4 *)(a.k + at);
        *(uint4 *)(values + row * S::PITCH + chunk * 8) = *(const uint4 *)(a.v + at);
    }
}

/* scores[16, n_keys rounded up to 16] = q k^T */
template <typename S>
__device__ __forceinline__ void score(const wmma_rows (&q)[S::HEAD / 16],
                                      const __half *keys, int n_keys, float *scores) {
#pragma unroll
    for (int j = 0; j < S::BLOCK_KEYS / 16; j++) {
        if (16 * j >= n_keys)
            continue;
        wmma_sums sums;
        wmma::fill_fragment(sums, 0.0f);
#pragma unroll
        for (int d = 0; d < S::HEAD / 16; d++) {
            wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> k;
            wmma::load_matrix_sync(k, keys + 16 * j * S::PITCH + 16 * d, S::PITCH);
            wmma::mma_sync(sums, q[d], k, sums);
        }
        wmma::store_matrix_sync(scores + 16 * j, sums, S::SCORE_PITCH,
                                wmma::mem_row_major);
    }
    __syncwarp();
}

/* Rows of scores to powers of two in halves, on the first half of their own bytes. Lane
 * 2 r + h has the columns 2 i + h of row r. factors[r]: what scales the output so far. */
template <typename S>
__device__ __forceinline__ void soften(float *scores, float *factors, int n_keys,
                                       float scale, float &largest, float &sum) {
    int lane = (int)threadIdx.x % WARP, parity = lane % 2;
    const float *row = scores + lane / 2 * S::SCORE_PITCH;
    float values[S::BLOCK_KEYS / 2], most = largest, added = 0;
#pragma unroll
    for (int i = 0; i < S::BLOCK_KEYS / 2; i++) {
        values[i] = 2 * i + parity < n_keys ? row[2 * i + parity] : NO_SCORE;
        most = fmaxf(most, values[i]);
    }
    most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
    float shift = most * scale, before = power_of_two(largest * scale - shift);
    __half *out = (__half *)(scores + lane / 2 * S::SCORE_PITCH);
    __syncwarp(); /* both lanes have read the row */
#pragma unroll
    for (int i = 0; i < S::BLOCK_KEYS / 2; i++) {
        float p = power_of_two(fmaf(values[i], scale, -shift));
        added += p;
        out[2 * i + parity] = __float2half_rn(p);
    }
    added += __shfl_xor_sync(ALL_LANES, added, 1);
    sum = sum * before + added;
    largest = most;
    if (parity == 0)
        factors[lane / 2] = before;
    __syncwarp();
}

/* out = out * factor of the row + p v */
template <typename S>
__device__ __forceinline__ void
gather(const __half *p, const __half *values, int n_keys, const float *factors,
       const int (&row_of)[8], wmma_sums (&out)[S::HEAD / 16]) {
    float factor[8];
#pragma unroll
    for (int e = 0; e < 8; e++)
        factor[e] = factors[row_of[e]];
#pragma unroll
    for (int d = 0; d < S::HEAD / 16; d++)
#pragma unroll
        for (int e = 0; e < 8; e++)
            out[d].x[e] *= factor[e];
#pragma unroll
    for (int j = 0; j < S::BLOCK_KEYS / 16; j++) {
        if (16 * j >= n_keys)
            continue;
        wmma_rows pf;
        wmma::load_matrix_sync(pf, p + 16 * j, 2 * S::SCORE_PITCH);
#pragma unroll
        for (int d = 0; d < S::HEAD / 16; d++) {
            wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major> v;
            wmma::load_matrix_sync(v, values + 16 * j * S::PITCH + 16 * d, S::PITCH);
            wmma::mma_sync(out[d], pf, v, out[d]);
        }
    }
}

/* Which row of a 16x16 each of this lane's elements is in. patch: 16 x SCORE_PITCH. */
template <typename S>
__device__ __forceinline__ void find_rows(float *patch, int (&row_of)[8]) {
    int lane = (int)threadIdx.x % WARP;
    wmma_sums rows;
    for (int i = lane; i < 16 * 16; i += WARP)
        patch[i / 16 * S::SCORE_PITCH + i % 16] = (float)(i / 16);
    __syncwarp();
    wmma::load_matrix_sync(rows, patch, S::SCORE_PITCH, wmma::mem_row_major);
#pragma unroll
    for (int e = 0; e < 8; e++)
        row_of[e] = (int)rows.x[e];
    __syncwarp();
}

/* Divides by the sums and writes the queries that are there; lane 2 r + h, row r. */
template <typename S>
__device__ __forceinline__ void
write(const struct cuda_attention &a, const struct cuda_tile &tile, int head,
      int first_query, float sum, float *patch, const wmma_sums (&out)[S::HEAD / 16]) {
    int lane = (int)threadIdx.x % WARP, query = first_query + lane / 2;
    f16 *to = a.out + (size_t)(tile.begin + query) * (size_t)a.out_stride +
              head * S::HEAD + lane % 2 * 8;
#pragma unroll
    for (int d = 0; d < S::HEAD / 16; d++) {
        wmma::store_matrix_sync(patch, out[d], S::SCORE_PITCH, wmma::mem_row_major);
        __syncwarp();
        const float *from = patch + lane / 2 * S::SCORE_PITCH + lane % 2 * 8;
        float y[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            y[i] = from[i] / sum;
        if (query < tile.n_tokens)
            half8_from_float(y, to + 16 * d);
        __syncwarp();
    }
}

template <int HEAD, int WARPS>
__global__ void __launch_bounds__(WARPS *WARP, shape<HEAD, WARPS>::CTAS)
    attention_wmma(struct cuda_attention a, const struct cuda_tile *tiles) {
    typedef shape<HEAD, WARPS> S;
    SHARED_MEMORY(memory);
    grid_begin();
    if ((int)blockIdx.x >= a.counts->n_tiles)
        return;
    const struct cuda_tile tile = tiles[blockIdx.x];
    __half *keys = (__half *)memory, *values = keys + S::BLOCK_KEYS * S::PITCH;
    int head = (int)blockIdx.y, warp = (int)threadIdx.x / WARP;
    float *scores = (float *)(keys + S::BLOCK_HALVES) + warp * S::STRIP_FLOATS;
    float *factors = scores + 16 * S::SCORE_PITCH;
    int first_query = tile.first_query + 16 * warp;
    bool has_queries = first_query < tile.n_tokens;
    float largest = NO_SCORE, sum = 0, scale = a.scale * LOG2_E;
    wmma_rows q[HEAD / 16];
    wmma_sums out[HEAD / 16];
    int row_of[8];
    if (has_queries) {
        find_rows<S>(scores, row_of);
        const __half *from = (const __half *)a.q +
                             (size_t)(tile.begin + first_query) * (size_t)a.q_stride +
                             head * HEAD;
#pragma unroll
        for (int d = 0; d < HEAD / 16; d++) {
            wmma::load_matrix_sync(q[d], from + 16 * d, (unsigned)a.q_stride);
            wmma::fill_fragment(out[d], 0.0f);
        }
    }
    for (int first_key = 0; first_key < tile.n_tokens; first_key += S::BLOCK_KEYS) {
        int n_keys = tile.n_tokens - first_key;
        if (first_key > 0)
            __syncthreads(); /* the block before was read by all */
        fetch_block<S>(a, tile, head, first_key, keys, values);
        __syncthreads();
        if (!has_queries)
            continue;
        score<S>(q, keys, n_keys, scores);
        soften<S>(scores, factors, n_keys, scale, largest, sum);
        gather<S>((const __half *)scores, values, n_keys, factors, row_of, out);
        __syncwarp(); /* scores and factors were read by all lanes */
    }
    if (has_queries)
        write<S>(a, tile, head, first_query, sum, scores, out);
}

#define FOR_WARPS(DO, HEAD) DO(HEAD, 2) DO(HEAD, 4) DO(HEAD, 8)
#define INSTANCE(HEAD, WARPS)                                                          \
    template __global__ void attention_wmma<HEAD, WARPS>(struct cuda_attention,        \
                                                         const struct cuda_tile *);
FOR_WARPS(INSTANCE, 16)
FOR_WARPS(INSTANCE, 32)
FOR_WARPS(INSTANCE, 64)
FOR_WARPS(INSTANCE, 128)

#ifndef __CUDACC_RTC__
attention_kernel *attention_wmma_find(int head_width, int warps, size_t *shared_bytes) {
#define MATCH(HEAD, WARPS)                                                             \
    if (head_width == HEAD && warps == WARPS) {                                        \
        *shared_bytes = (size_t)shape<HEAD, WARPS>::SHARED_BYTES;                      \
        return attention_wmma<HEAD, WARPS>;                                            \
    }
    FOR_WARPS(MATCH, 16)
    FOR_WARPS(MATCH, 32)
    FOR_WARPS(MATCH, 64)
    FOR_WARPS(MATCH, 128)
#undef MATCH
    return NULL;
}
#endif
