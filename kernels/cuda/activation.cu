/* SPDX-License-Identifier: Apache-2.0
 *
 * activation.cu - GELU, or ReLU, in place. The bias is in already.
 *
 * GELU is the erf form, as DistilBERT has it; cuBLASLt's epilogue is the tanh form, up to
 * 4.7e-4 off. gemm's own epilogue has this one too.
 * Design: eight values a thread.   Bound: memory.
 * CPU:    kernels/cpu/simd.h, gelu.
 */
#include "kernels/cuda/device.cuh"

#define THREADS 256

template <bool IS_RELU>
__global__ void __launch_bounds__(THREADS) activation(f16 *x, long long n_vectors) {
    grid_begin();
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n_vectors)
        return;
    float values[8];
    half8_to_float(x + i * 8, values);
#pragma unroll
    for (int k = 0; k < 8; k++)
        values[k] = IS_RELU ? relu(values[k]) : gelu(values[k]);
    half8_from_float(values, x + i * 8);
}

template __global__ void activation<false>(f16 *, long long);
template __global__ void activation<true>(f16 *, long long);

#ifndef __CUDACC_RTC__
cudaError_t cuda_activation(const struct cuda_launch *launch, f16 *x, int64_t n_values,
                            bool is_relu) {
    long long n_vectors = n_values / 8;
    dim3 grid((unsigned)((n_vectors + THREADS - 1) / THREADS));
    return launch_kernel(launch, is_relu ? activation<true> : activation<false>, grid,
                         THREADS, 0, x, n_vectors);
}
#endif
