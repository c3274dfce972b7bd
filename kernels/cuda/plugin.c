/* SPDX-License-Identifier: Apache-2.0
 *
 * plugin.c - the one public symbol of libvigil_cuda.so.
 */
#include "kernels/cuda/plugin.h"

#include <stdio.h>

#include "kernels/cuda/cuda.h"

#ifndef VIGIL_CUDA_BUILT_FOR
#define VIGIL_CUDA_BUILT_FOR "unknown"
#endif

__attribute__((visibility("default"))) const struct cuda_plugin *
vigil_cuda_plugin(void);

static int32_t n_devices(struct error *err) {
    int n = 0;
    cudaError_t code = cudaGetDeviceCount(&n);
    if (code == cudaSuccess && n > 0)
        return n;
    (void)cudaGetLastError();
    bool is_none = code == cudaSuccess || code == cudaErrorNoDevice;
    (void)error_set(err, is_none ? STATUS_NOT_FOUND : STATUS_UNSUPPORTED,
                    "no CUDA device: %s",
                    is_none ? "none is there" : cudaGetErrorString(code));
    return 0;
}

static enum status describe(int32_t device, struct cuda_device *out,
                            struct error *err) {
    struct cudaDeviceProp properties;
    int driver = 0, runtime = 0;
    cudaError_t code = cudaGetDeviceProperties(&properties, device);
    if (code == cudaSuccess)
        code = cudaSetDevice(device);
    if (code == cudaSuccess)
        code = cudaMemGetInfo(&out->n_free_bytes, &out->n_bytes);
    if (code == cudaSuccess)
        code = cudaDriverGetVersion(&driver);
    if (code == cudaSuccess)
        code = cudaRuntimeGetVersion(&runtime);
    if (code != cudaSuccess)
        return error_set(err, STATUS_DEVICE, "cuda:%d: %s (%s)", device,
                         cudaGetErrorString(code), cudaGetErrorName(code));
    snprintf(out->name, sizeof out->name, "%s", properties.name);
    out->major = properties.major;
    out->minor = properties.minor;
    out->n_multiprocessors = properties.multiProcessorCount;
    out->driver = driver;
    out->runtime = runtime;
    out->blas = cublasLtGetVersion();
    return STATUS_OK;
}

const struct cuda_plugin *vigil_cuda_plugin(void) {
    static const struct cuda_plugin plugin = {.abi = CUDA_PLUGIN_ABI,
                                              .version = VIGIL_VERSION,
                                              .built_for = VIGIL_CUDA_BUILT_FOR,
                                              .n_devices = n_devices,
                                              .describe = describe,
                                              .open = cuda_engine_open};
    return &plugin;
}
