/* SPDX-License-Identifier: Apache-2.0
 *
 * stdbool.h - NVRTC has no C library. C++ has bool.
 */
#ifndef VIGIL_TESTS_CUDA_NVRTC_STDBOOL_H
#define VIGIL_TESTS_CUDA_NVRTC_STDBOOL_H
#endif
