/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.cuh - what the attention kernels share.
 *
 * Math: out = softmax(q k^T scale) v, one head of one sequence at a time; exponentials to the
 *       base 2, so that scale * log2(e) is one factor of a fused multiply-add.
 */
#ifndef VIGIL_KERNELS_CUDA_ATTENTION_CUH
#define VIGIL_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/device.cuh"

#define LOG2_E 1.44269504088896340736f
#define NO_SCORE (-1e30f) /* of a key that is not there: 2^(this - any maximum) is 0 */

#ifndef __CUDACC_RTC__
/* The kernels of one path for a head width and a number of warps, or NULL. */
typedef void attention_kernel(struct cuda_attention, const struct cuda_tile *);
attention_kernel *attention_mma_find(int head_width, int warps, size_t *shared_bytes);
attention_kernel *attention_wmma_find(int head_width, int warps, size_t *shared_bytes);

/* A part of cuda_kernels_prepare. */
cudaError_t attention_prepare(enum cuda_path path);
#endif

#endif
