/* SPDX-License-Identifier: Apache-2.0
 *
 * device.cuh - what the kernels share: vectors of halves, sums over a warp, the launch.
 *
 * Three compilers read the kernels as they are: nvcc (11.8 to 13), NVRTC, which compiles the
 * device code alone (__CUDACC_RTC__: no launchers), and g++ with the emulation of
 * tests/cuda/emulation in place of CUDA's headers (VIGIL_CUDA_EMULATION).
 */
#ifndef VIGIL_KERNELS_CUDA_DEVICE_CUH
#define VIGIL_KERNELS_CUDA_DEVICE_CUH

#include <cuda_fp16.h>
#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>
#endif

#include "kernels/cuda/kernels.h"

/* The CTA's shared memory, as many bytes as the launch asked for, 128-byte aligned. Kernels
 * have no other, so that the emulation can put red zones round it. */
#ifdef VIGIL_CUDA_EMULATION
#define SHARED_MEMORY(name)                                                            \
    unsigned char *name = (unsigned char *)emulation_shared_memory()
#else
#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#endif

#define WARP 32
#define ALL_LANES 0xffffffffu

/* Eight halves: what one thread loads or stores at once. */
union half8 {
    uint4 bits;
    __half2 pairs[4];
};

__device__ __forceinline__ void half8_to_float(const void *from, float (&values)[8]) {
    union half8 h;
    h.bits = *(const uint4 *)from;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = __half22float2(h.pairs[i]);
        values[2 * i] = pair.x;
        values[2 * i + 1] = pair.y;
    }
}

__device__ __forceinline__ void half8_from_float(const float (&values)[8], void *to) {
    union half8 h;
#pragma unroll
    for (int i = 0; i < 4; i++)
        h.pairs[i] = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
    *(uint4 *)to = h.bits;
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, lane);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, lane));
    return value;
}

/* GELU as DistilBERT has it: x times the normal distribution's integral up to x. */
__device__ __forceinline__ float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752440f));
}

/* 2^x, as the special function unit has it: 2 ulp, subnormals as 0. */
__device__ __forceinline__ float power_of_two(float x) {
#ifdef VIGIL_CUDA_EMULATION
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* Lets a NaN through, which fmaxf would make 0: the check of the logits must see it. */
__device__ __forceinline__ float relu(float x) {
    return x < 0.0f ? 0.0f : x;
}

/* Under programmatic dependent launch (sm_90): the next kernel may be put on multiprocessors
 * that are free. */
__device__ __forceinline__ void grid_let_next() {
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* Waits until all that the kernels before wrote can be read. Every kernel calls it ahead of
 * its first access to anything but weights. */
__device__ __forceinline__ void grid_await_last() {
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void grid_begin() {
    grid_let_next();
    grid_await_last();
}

#ifndef __CUDACC_RTC__
template <typename... Parameters, typename... Arguments>
static cudaError_t launch_kernel(const struct cuda_launch *launch,
                                 void (*kernel)(Parameters...), dim3 grid, int threads,
                                 size_t shared_bytes, Arguments... arguments) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = launch->stream;
    config.attrs = &attribute;
    config.numAttrs = launch->overlaps ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}
#endif

#endif
