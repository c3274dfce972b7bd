/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_cls.cu - attention of each sequence's first token alone: the last layer when no
 * tags are asked for. No tensor cores: one query has nothing to tile.
 *
 * Design: a warp a head of a sequence. Scores of 32 keys at a time, a key a lane; then the
 *         lanes share out the head's columns and go over the same keys. Online softmax.
 * Limits: HEAD 16, 32, 64, 128.   Bound: L2.
 * CPU:    kernels/cpu/attention.inc.h with one query.
 */
#include "kernels/cuda/attention.cuh"

#define WARPS_A_BLOCK 4

template <int HEAD>
__global__ void __launch_bounds__(WARPS_A_BLOCK *WARP, HEAD == 128 ? 3 : 4)
    attention_cls(struct cuda_attention a, const int32_t *offsets) {
    constexpr int COLUMNS = HEAD < WARP ? 1 : HEAD / WARP; /* a lane's, of the output */
    SHARED_MEMORY(memory);
    grid_begin();
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int pair = (int)blockIdx.x * WARPS_A_BLOCK + warp;
    int b = pair / a.n_heads, head = pair % a.n_heads;
    if (b >= a.counts->n_sequences)
        return;
    int begin = offsets[b], n_tokens = offsets[b + 1] - begin;
    float *q = (float *)memory + warp * HEAD;
    const f16 *query =
        a.q + (size_t)(a.q_is_packed ? begin : b) * (size_t)a.q_stride + head * HEAD;
    for (int i = lane; i < HEAD / 8; i += WARP) {
        float eight[8];
        half8_to_float(query + 8 * i, eight);
#pragma unroll
        for (int e = 0; e < 8; e++)
            q[8 * i + e] = eight[e];
    }
    __syncwarp();
    const f16 *k = a.k + (size_t)begin * (size_t)a.kv_stride + head * HEAD;
    const f16 *v = a.v + (size_t)begin * (size_t)a.kv_stride + head * HEAD;
    int column = lane * COLUMNS < HEAD ? lane * COLUMNS : 0;
    float scale = a.scale * LOG2_E, largest = NO_SCORE, sum = 0, out[COLUMNS] = {};
    for (int first = 0; first < n_tokens; first += WARP) {
        float score = 0;
        int key = first + lane < n_tokens ? first + lane : n_tokens - 1;
#pragma unroll 8
        for (int i = 0; i < HEAD / 8; i++) {
            float eight[8];
            half8_to_float(k + (size_t)key * (size_t)a.kv_stride + 8 * i, eight);
#pragma unroll
            for (int e = 0; e < 8; e++)
                score += eight[e] * q[8 * i + e];
        }
        if (first + lane >= n_tokens)
            score = NO_SCORE;
        float most = fmaxf(largest, warp_max(score));
        float before = exp2f((largest - most) * scale);
        float p = exp2f((score - most) * scale);
        sum = sum * before + warp_sum(p);
        largest = most;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            out[c] *= before;
        int n_keys = n_tokens - first < WARP ? n_tokens - first : WARP;
        for (int j = 0; j < n_keys; j++) {
            float weight = __shfl_sync(ALL_LANES, p, j);
            const __half *row =
                (const __half *)v + (size_t)(first + j) * (size_t)a.kv_stride + column;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                out[c] += weight * __half2float(row[c]);
        }
    }
    if (lane * COLUMNS >= HEAD)
        return;
    __half *to =
        (__half *)a.out + (size_t)b * (size_t)a.out_stride + head * HEAD + column;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
        to[c] = __float2half_rn(out[c] / sum);
}

#define INSTANCE(HEAD)                                                                 \
    template __global__ void attention_cls<HEAD>(struct cuda_attention,                \
                                                 const int32_t *);
INSTANCE(16)
INSTANCE(32)
INSTANCE(64)
INSTANCE(128)

#ifndef __CUDACC_RTC__
cudaError_t cuda_attention_cls(const struct cuda_launch *launch,
                               const struct cuda_attention *a, const int32_t *offsets,
                               int32_t max_sequences) {
    int32_t n_pairs = max_sequences * a->n_heads;
    dim3 grid((unsigned)((n_pairs + WARPS_A_BLOCK - 1) / WARPS_A_BLOCK));
    size_t shared_bytes = (size_t)(WARPS_A_BLOCK * a->head_width) * sizeof(float);
#define LAUNCH(HEAD)                                                                   \
    launch_kernel(launch, attention_cls<HEAD>, grid, WARPS_A_BLOCK *WARP,              \
                  shared_bytes, *a, offsets)
    switch (a->head_width) {
    case 16:
        return LAUNCH(16);
    case 32:
        return LAUNCH(32);
    case 64:
        return LAUNCH(64);
    default:
        return LAUNCH(128);
    }
#undef LAUNCH
}
#endif
