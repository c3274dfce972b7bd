/* SPDX-License-Identifier: Apache-2.0
 *
 * library_types.h - the types of matrix elements that cuBLAS names, for the emulation; with
 * CUDA's numbers. Valid C11 and C++17.
 */
#ifndef VIGIL_EMULATION_LIBRARY_TYPES_H
#define VIGIL_EMULATION_LIBRARY_TYPES_H

typedef enum cudaDataType_t {
    CUDA_R_32F = 0,
    CUDA_R_64F = 1,
    CUDA_R_16F = 2,
    CUDA_R_8I = 3,
    CUDA_R_8U = 8,
    CUDA_R_32I = 10,
    CUDA_R_32U = 12,
    CUDA_R_16BF = 14,
    CUDA_R_8F_E4M3 = 28,
    CUDA_R_8F_E5M2 = 29
} cudaDataType_t;
typedef cudaDataType_t cudaDataType;

#endif
