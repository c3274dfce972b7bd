/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_runtime.h - CUDA's C++ side for the emulation: what kernels are written in.
 *
 * A kernel is a plain function here. One thread of one block runs at a time, as a fiber
 * (fibers.h) that leaves off at barriers and warp collectives only (launch.cc); therefore
 * threadIdx and its like are globals, set at each switch, and atomics are plain.
 *
 * Barriers and collectives take the caller's file and line as default arguments: threads
 * that meet must have come from the same line, and a failure names it.
 * There is no __shared__: kernels have the launch's dynamic shared memory alone
 * (device.cuh, SHARED_MEMORY).
 */
#ifndef VIGIL_EMULATION_CUDA_RUNTIME_H
#define VIGIL_EMULATION_CUDA_RUNTIME_H

#ifndef __cplusplus
#error "cuda_runtime.h is for kernels; C includes cuda_runtime_api.h"
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define EMULATION_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

/* ---- what launch.cc has ------------------------------------------------------------- */

enum emulation_op {
    EMULATION_SYNCWARP,
    EMULATION_SHFL,
    EMULATION_SHFL_XOR,
    EMULATION_SHFL_UP,
    EMULATION_SHFL_DOWN,
    EMULATION_VOTE,
    EMULATION_LDMATRIX,
    EMULATION_LDMATRIX_TRANSPOSED,
    EMULATION_MMA,
    EMULATION_WMMA_LOAD,
    EMULATION_WMMA_STORE,
    EMULATION_WMMA_MMA
};

/* The CTA's dynamic shared memory. */
void *emulation_shared_memory();
void emulation_syncthreads(const char *file, int line);
/* Blocks until all lanes of mask have come to the same op; the last of them calls compute
 * once for all, args[lane] being what each gave. */
void emulation_collective(enum emulation_op op, unsigned mask, void *args,
                          void (*compute)(void *const *args, unsigned mask),
                          const char *file, int line);
int emulation_lane();
void emulation_copy_async_wait(int n_groups);
[[noreturn]] void emulation_trap();
cudaError_t emulation_launch(const cudaLaunchConfig_t *config, const void *kernel,
                             std::vector<const void *> pointers,
                             std::function<void()> body);

/* ---- launches ----------------------------------------------------------------------- */

/* All pointers among a kernel's arguments, in structs too: each is looked at when the
 * kernel runs. A struct's members are counted by how many values can initialise it. */
struct emulation_any {
    template <typename T> operator T() const;
};
template <typename T, typename... Values>
constexpr auto emulation_takes(int) -> decltype(T{Values{}...}, true) {
    return true;
}
template <typename T, typename... Values> constexpr bool emulation_takes(...) {
    return false;
}
template <typename T, typename... Values> constexpr int emulation_n_members() {
    if constexpr (emulation_takes<T, Values..., emulation_any>(0))
        return emulation_n_members<T, Values..., emulation_any>();
    else
        return (int)sizeof...(Values);
}

template <typename T>
inline void emulation_pointers(const T &value, std::vector<const void *> *out);

#define EMULATION_MEMBERS(n, ...)                                                      \
    if constexpr (emulation_n_members<T>() == n) {                                     \
        const auto &[__VA_ARGS__] = value;                                             \
        emulation_pointers_of(out, __VA_ARGS__);                                       \
    }

template <typename... Members>
inline void emulation_pointers_of(std::vector<const void *> *out,
                                  const Members &...members) {
    (emulation_pointers(members, out), ...);
}

template <typename T>
inline void emulation_pointers(const T &value, std::vector<const void *> *out) {
    if constexpr (std::is_pointer<T>::value) {
        out->push_back((const void *)value);
    } else if constexpr (std::is_class<T>::value && std::is_aggregate<T>::value) {
        static_assert(emulation_n_members<T>() <= 14, "one line more below");
        EMULATION_MEMBERS(1, a)
        EMULATION_MEMBERS(2, a, b)
        EMULATION_MEMBERS(3, a, b, c)
        EMULATION_MEMBERS(4, a, b, c, d)
        EMULATION_MEMBERS(5, a, b, c, d, e)
        EMULATION_MEMBERS(6, a, b, c, d, e, f)
        EMULATION_MEMBERS(7, a, b, c, d, e, f, g)
        EMULATION_MEMBERS(8, a, b, c, d, e, f, g, h)
        EMULATION_MEMBERS(9, a, b, c, d, e, f, g, h, i)
        EMULATION_MEMBERS(10, a, b, c, d, e, f, g, h, i, j)
        EMULATION_MEMBERS(11, a, b, c, d, e, f, g, h, i, j, k)
        EMULATION_MEMBERS(12, a, b, c, d, e, f, g, h, i, j, k, l)
        EMULATION_MEMBERS(13, a, b, c, d, e, f, g, h, i, j, k, l, m)
        EMULATION_MEMBERS(14, a, b, c, d, e, f, g, h, i, j, k, l, m, n)
    }
}

template <typename... Parameters, typename... Arguments>
inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config,
                                      void (*kernel)(Parameters...),
                                      Arguments &&...arguments) {
    std::tuple<std::decay_t<Parameters>...> values(
        std::forward<Arguments>(arguments)...);
    std::vector<const void *> pointers;
    std::apply([&](const auto &...all) { (emulation_pointers(all, &pointers), ...); },
               values);
    return emulation_launch(config, (const void *)kernel, std::move(pointers),
                            [kernel, values] { std::apply(kernel, values); });
}

template <typename... Parameters>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...),
                                        enum cudaFuncAttribute attr, int value) {
    return cudaFuncSetAttribute((const void *)kernel, attr, value);
}

template <typename... Parameters>
inline cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attr,
                                         void (*kernel)(Parameters...)) {
    return cudaFuncGetAttributes(attr, (const void *)kernel);
}

template <typename T> inline cudaError_t cudaMalloc(T **pointer, size_t size) {
    return cudaMalloc((void **)pointer, size);
}

template <typename T> inline cudaError_t cudaMallocHost(T **pointer, size_t size) {
    return cudaMallocHost((void **)pointer, size);
}

/* ---- barriers, shuffles, votes ------------------------------------------------------ */

inline void __syncthreads(EMULATION_HERE) {
    emulation_syncthreads(file, line);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATION_HERE) {
    emulation_collective(EMULATION_SYNCWARP, mask, nullptr, nullptr, file, line);
}

/* operand: a lane, or a distance, or a mask, after op. */
uint64_t emulation_shuffle(enum emulation_op op, unsigned mask, uint64_t value,
                           int operand, int width, const char *file, int line);

template <typename T>
inline T emulation_shuffle_any(enum emulation_op op, unsigned mask, T value,
                               int operand, int width, const char *file, int line) {
    static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable<T>::value,
                  "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulation_shuffle(op, mask, bits, operand, width, file, line);
    memcpy((void *)&value, &bits, sizeof value);
    return value;
}

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMULATION_HERE) {
    return emulation_shuffle_any(EMULATION_SHFL, mask, value, lane, width, file, line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                         EMULATION_HERE) {
    return emulation_shuffle_any(EMULATION_SHFL_XOR, mask, value, lanes, width, file,
                                 line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        EMULATION_HERE) {
    return emulation_shuffle_any(EMULATION_SHFL_UP, mask, value, (int)delta, width,
                                 file, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          EMULATION_HERE) {
    return emulation_shuffle_any(EMULATION_SHFL_DOWN, mask, value, (int)delta, width,
                                 file, line);
}

/* Which of mask's lanes have a predicate that is not 0. */
unsigned emulation_vote(unsigned mask, int predicate, const char *file, int line);
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATION_HERE) {
    return emulation_vote(mask, predicate, file, line);
}
inline int __any_sync(unsigned mask, int predicate, EMULATION_HERE) {
    return emulation_vote(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATION_HERE) {
    return emulation_vote(mask, predicate, file, line) == mask;
}

[[noreturn]] inline void __trap() {
    emulation_trap();
}

/* ---- memory ------------------------------------------------------------------------- */

inline void __threadfence() {
}
inline void __threadfence_block() {
}
template <typename T> inline T __ldg(const T *from) {
    return *from;
}
template <typename T> inline T __ldcg(const T *from) {
    return *from;
}
template <typename T> inline T __ldcs(const T *from) {
    return *from;
}
template <typename T> inline void __stcg(T *to, T value) {
    *to = value;
}
template <typename T> inline void __stcs(T *to, T value) {
    *to = value;
}

#define EMULATION_ATOMIC(name, type, expression)                                       \
    inline type name(type *address, type value) {                                      \
        type old = *address;                                                           \
        *address = expression;                                                         \
        return old;                                                                    \
    }
EMULATION_ATOMIC(atomicAdd, int, (int)((unsigned)old + (unsigned)value))
EMULATION_ATOMIC(atomicAdd, unsigned, old + value)
EMULATION_ATOMIC(atomicAdd, unsigned long long, old + value)
EMULATION_ATOMIC(atomicAdd, float, old + value)
EMULATION_ATOMIC(atomicMax, int, old > value ? old : value)
EMULATION_ATOMIC(atomicMax, unsigned, old > value ? old : value)
EMULATION_ATOMIC(atomicMin, int, old < value ? old : value)
EMULATION_ATOMIC(atomicMin, unsigned, old < value ? old : value)
EMULATION_ATOMIC(atomicExch, int, value)
EMULATION_ATOMIC(atomicExch, unsigned, value)
EMULATION_ATOMIC(atomicExch, float, value)
EMULATION_ATOMIC(atomicOr, unsigned, old | value)
EMULATION_ATOMIC(atomicAnd, unsigned, old &value)
EMULATION_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)

template <typename T> inline T atomicCAS(T *address, T compare, T value) {
    T old = *address;
    if (old == compare)
        *address = value;
    return old;
}

/* ---- vectors ------------------------------------------------------------------------ */

#define EMULATION_MAKE(type, name)                                                     \
    inline name##2 make_##name##2(type x, type y) {                                    \
        name##2 v = {x, y};                                                            \
        return v;                                                                      \
    }                                                                                  \
    inline name##3 make_##name##3(type x, type y, type z) {                            \
        name##3 v = {x, y, z};                                                         \
        return v;                                                                      \
    }                                                                                  \
    inline name##4 make_##name##4(type x, type y, type z, type w) {                    \
        name##4 v = {x, y, z, w};                                                      \
        return v;                                                                      \
    }
EMULATION_MAKE(int, int)
EMULATION_MAKE(unsigned, uint)
EMULATION_MAKE(float, float)
EMULATION_MAKE(short, short)
EMULATION_MAKE(unsigned short, ushort)
EMULATION_MAKE(unsigned char, uchar)

/* ---- arithmetic --------------------------------------------------------------------- */

#define EMULATION_MIN_MAX(type)                                                        \
    inline type min(type a, type b) {                                                  \
        return a < b ? a : b;                                                          \
    }                                                                                  \
    inline type max(type a, type b) {                                                  \
        return a > b ? a : b;                                                          \
    }
EMULATION_MIN_MAX(int)
EMULATION_MIN_MAX(unsigned)
EMULATION_MIN_MAX(long)
EMULATION_MIN_MAX(unsigned long)
EMULATION_MIN_MAX(long long)
EMULATION_MIN_MAX(unsigned long long)
inline float min(float a, float b) {
    return fminf(a, b);
}
inline float max(float a, float b) {
    return fmaxf(a, b);
}

inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __expf(float x) {
    return expf(x);
}
inline float __logf(float x) {
    return logf(x);
}
inline float __frcp_rn(float x) {
    return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
    return sqrtf(x);
}
inline float __fadd_rn(float a, float b) {
    return a + b;
}
inline float __fmul_rn(float a, float b) {
    return a * b;
}
inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}

template <typename To, typename From> inline To emulation_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int bits) {
    return emulation_bits<float>(bits);
}
inline int __float_as_int(float value) {
    return emulation_bits<int>(value);
}
inline float __uint_as_float(unsigned bits) {
    return emulation_bits<float>(bits);
}
inline unsigned __float_as_uint(float value) {
    return emulation_bits<unsigned>(value);
}
inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
inline int __clz(int bits) {
    return bits ? __builtin_clz((unsigned)bits) : 32;
}
inline int __ffs(int bits) {
    return __builtin_ffs(bits);
}

#endif
