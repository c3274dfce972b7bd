/* SPDX-License-Identifier: Apache-2.0
 *
 * stdint.h - NVRTC has no C library: its types, as Linux on x86-64 has them.
 */
#ifndef VIGIL_TESTS_CUDA_NVRTC_STDINT_H
#define VIGIL_TESTS_CUDA_NVRTC_STDINT_H

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef long intptr_t;
typedef unsigned long uintptr_t;

#endif
