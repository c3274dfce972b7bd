/* SPDX-License-Identifier: Apache-2.0
 *
 * stddef.h - NVRTC has no C library, and knows size_t by itself.
 */
#ifndef VIGIL_TESTS_CUDA_NVRTC_STDDEF_H
#define VIGIL_TESTS_CUDA_NVRTC_STDDEF_H
#endif
