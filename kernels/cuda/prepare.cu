/* SPDX-License-Identifier: Apache-2.0
 *
 * prepare.cu - what is asked of the runtime once for each device (host code alone).
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/gemm.cuh"

#ifndef __CUDACC_RTC__
cudaError_t cuda_kernels_prepare(enum cuda_path path) {
    cudaError_t code = gemm_prepare(path);
    return code == cudaSuccess ? attention_prepare(path) : code;
}

/* Of any kernel: all are compiled for the same architectures. */
cudaError_t cuda_kernels_compiled_for(int32_t *architecture) {
    struct cudaFuncAttributes attributes = {};
    cudaError_t code =
        cudaFuncGetAttributes(&attributes, gemm_tiles_wmma[0].kernels[0]);
    *architecture = attributes.ptxVersion;
    return code;
}
#endif
