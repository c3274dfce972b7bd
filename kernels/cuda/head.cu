/* SPDX-License-Identifier: Apache-2.0
 *
 * head.cu - the last product of a head: a few columns, answers in fp32.
 *
 * Used for the classifier (a row a sequence) and the tagger (a row a token). What follows,
 * softmax or sigmoid by the model's problem type, is model/answer.c's for every engine.
 * Design: a warp an answer.   Bound: launch, or L2.
 * CPU:    kernels/cpu/forward.c, heads_run.
 */
#include "kernels/cuda/device.cuh"

#define ANSWERS_A_BLOCK 4

static __global__ void __launch_bounds__(ANSWERS_A_BLOCK *WARP)
    head(struct cuda_head h, long long n_answers) {
    grid_begin();
    long long answer = (long long)blockIdx.x * ANSWERS_A_BLOCK + threadIdx.x / WARP;
    if (answer >= n_answers)
        return;
    const f16 *in = h.in + (size_t)(answer / h.n) * (size_t)h.width;
    int column = (int)(answer % h.n);
    const f16 *weights = h.weights + (size_t)column * (size_t)h.width;
    float sum = 0;
    for (int i = (int)(threadIdx.x % WARP) * 8; i < h.width; i += WARP * 8) {
        float x[8], w[8];
        half8_to_float(in + i, x);
        half8_to_float(weights + i, w);
#pragma unroll
        for (int k = 0; k < 8; k++)
            sum += x[k] * w[k];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        h.out[answer] = sum + h.bias[column];
}

#ifndef __CUDACC_RTC__
cudaError_t cuda_head(const struct cuda_launch *launch, const struct cuda_head *h,
                      int32_t n_rows) {
    long long n_answers = (long long)n_rows * h->n;
    dim3 grid((unsigned)((n_answers + ANSWERS_A_BLOCK - 1) / ANSWERS_A_BLOCK));
    return launch_kernel(launch, head, grid, ANSWERS_A_BLOCK * WARP, 0, *h, n_answers);
}
#endif
