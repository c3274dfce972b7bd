/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor_core.cuh - the PTX instructions of sm_80 and up that the mma kernels are made of.
 *
 * Layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix". Lane = 4 g + t:
 *   a  16x16  a[0] row g,   columns 2t 2t+1     a[1] row g+8, the same columns
 *             a[2] row g,   columns 2t+8 2t+9   a[3] row g+8, the same columns
 *   b  16x8   b[0] rows 2t 2t+1 of column g     b[1] rows 2t+8 2t+9 of column g
 *   d  16x8   d[0] d[1] row g, columns 2t 2t+1  d[2] d[3] row g+8
 * On older architectures these are never called: the body is a trap, so that the kernels
 * compile for every architecture of the list.
 */
#ifndef VIGIL_KERNELS_CUDA_TENSOR_CORE_CUH
#define VIGIL_KERNELS_CUDA_TENSOR_CORE_CUH

#include <cuda_fp16.h>

#ifdef VIGIL_CUDA_EMULATION

/* tests/cuda/emulation has them, lane by lane after the same tables. */
void ldmatrix_x4(uint32_t (&r)[4], const void *shared);
void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *shared);
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void copy_async(void *shared, const void *global);
void copy_async_commit();
template <int N> void copy_async_wait() {
    emulation_copy_async_wait(N);
}

#else

#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 800
#define VIGIL_HAS_MMA 1
#else
#define VIGIL_HAS_MMA 0
#endif

/* Lane i gives the address of row i % 8 (16 bytes) of matrix i / 8; r[j] is this lane's two
 * values of matrix j. All lanes. */
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void *shared) {
#if VIGIL_HAS_MMA
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#else
    __trap();
#endif
}

/* The same, each 8x8 matrix transposed on its way. */
__device__ __forceinline__ void ldmatrix_x4_transposed(unsigned (&r)[4],
                                                       const void *shared) {
#if VIGIL_HAS_MMA
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#else
    __trap();
#endif
}

/* d += a b. All lanes. */
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4],
                                             unsigned b0, unsigned b1) {
#if VIGIL_HAS_MMA
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    __trap();
#endif
}

/* 16 bytes from global to shared memory, both 16-byte aligned, on their way until a wait. */
__device__ __forceinline__ void copy_async(void *shared, const void *global) {
#if VIGIL_HAS_MMA
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global)
                 : "memory");
#else
    __trap();
#endif
}

/* Closes this thread's group of copies. */
__device__ __forceinline__ void copy_async_commit() {
#if VIGIL_HAS_MMA
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits until all but the newest N groups of this thread have arrived; a barrier then shows
 * them to the others. */
template <int N> __device__ __forceinline__ void copy_async_wait() {
#if VIGIL_HAS_MMA
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#endif

#endif
