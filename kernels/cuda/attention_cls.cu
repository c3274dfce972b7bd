/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_cls.cu - attention of each sequence's first token alone: the last layer when no
 * tags are asked for. No tensor cores: one query has nothing to tile.
 *
 * Design: a warp a head of a sequence. Scores of 32 keys at a time, a key a lane; then
 *         HEAD / 8 lanes a row of values, several rows at a time, added up across the warp
 *         at the end. Online softmax.
 * Limits: HEAD 16, 32, 64, 128.   Bound: L2.
 * CPU:    kernels/cpu/attention.inc.h with one query.
 */
#include "kernels/cuda/attention.cuh"

#define WARPS_A_BLOCK 4

template <int HEAD>
__global__ void __launch_bounds__(WARPS_A_BLOCK *WARP, HEAD == 128 ? 3 : 4)
    attention_cls(struct cuda_attention a, const int32_t *offsets) {
    constexpr int LANES = HEAD / 8, ROWS = WARP / LANES; /* of a row; at a time */
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
    if (lane < LANES) {
        float eight[8];
        half8_to_float(query + 8 * lane, eight);
#pragma unroll
        for (int e = 0; e < 8; e++)
            q[8 * lane + e] = eight[e];
    }
    __syncwarp();
    const f16 *k = a.k + (size_t)begin * (size_t)a.kv_stride + head * HEAD;
    const f16 *v = a.v + (size_t)begin * (size_t)a.kv_stride + head * HEAD;
    float scale = a.scale * LOG2_E, largest = NO_SCORE, sum = 0, out[8] = {};
    for (int first = 0; first < n_tokens; first += WARP) {
        float score = 0;
        int n_keys = n_tokens - first < WARP ? n_tokens - first : WARP;
        int key = first + (lane < n_keys ? lane : n_keys - 1);
#pragma unroll 8
        for (int i = 0; i < HEAD / 8; i++) {
            float eight[8];
            half8_to_float(k + (size_t)key * (size_t)a.kv_stride + 8 * i, eight);
#pragma unroll
            for (int e = 0; e < 8; e++)
                score += eight[e] * q[8 * i + e];
        }
        if (lane >= n_keys)
            score = NO_SCORE;
        float most = fmaxf(largest, warp_max(score));
        float before = power_of_two((largest - most) * scale);
        float p = power_of_two((score - most) * scale);
        sum = sum * before + warp_sum(p);
        largest = most;
#pragma unroll
        for (int e = 0; e < 8; e++)
            out[e] *= before;
            /* A key that is not there has the weight 0; its row is the last one's. */
#pragma unroll 4
        for (int j = 0; j < n_keys; j += ROWS) {
            int row = j + lane / LANES;
            float weight = __shfl_sync(ALL_LANES, p, row % WARP), eight[8];
            key = first + (row < n_keys ? row : n_keys - 1);
            half8_to_float(v + (size_t)key * (size_t)a.kv_stride + lane % LANES * 8,
                           eight);
#pragma unroll
            for (int e = 0; e < 8; e++)
                out[e] += weight * eight[e];
        }
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
#pragma unroll
        for (int apart = LANES; apart < WARP; apart *= 2)
            out[e] += __shfl_xor_sync(ALL_LANES, out[e], apart);
        out[e] /= sum;
    }
    if (lane < LANES)
        half8_from_float(out, a.out + (size_t)b * (size_t)a.out_stride + head * HEAD +
                                  8 * lane);
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
