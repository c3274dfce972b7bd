/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_library.h - finds libvigil_cuda.so and loads it, once for the process's life.
 *
 * It is $VIGIL_CUDA_LIBRARY, else lib/vigil/libvigil_cuda.so of this installation or of the
 * tree that it was built in. A program without a GPU never needs it.
 *
 * Threads: any.
 */
#ifndef VIGIL_KERNELS_CUDA_LIBRARY_H
#define VIGIL_KERNELS_CUDA_LIBRARY_H

#include "kernels/cuda/plugin.h"

/* Where the library is looked for, whether it is there or not. */
enum status cuda_library_path(char *out, size_t cap_bytes, struct error *err);

/* What the library offers. STATUS_NOT_FOUND: there is no such file, or no NVIDIA driver.
 * STATUS_UNSUPPORTED: a file is there, but it is another build's, or needs something that
 * this machine does not have. The first call decides for all that follow. */
enum status cuda_library_open(const struct cuda_plugin **out, struct error *err);

/* The same, and how many devices there are, 1 or more. STATUS_NOT_FOUND: none. */
enum status cuda_library_devices(const struct cuda_plugin **out, int32_t *n,
                                 struct error *err);

#endif
