/* SPDX-License-Identifier: Apache-2.0
 *
 * plugin.h - what libvigil_cuda.so offers: the CUDA engine, loaded when it is asked for, so
 * that one program serves machines with and without a GPU.
 *
 * The object has one public symbol, CUDA_PLUGIN_SYMBOL. It is of the same build as the
 * program or it is refused: the structs of model/ cross the border as they are.
 */
#ifndef VIGIL_KERNELS_CUDA_PLUGIN_H
#define VIGIL_KERNELS_CUDA_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#include "model/engine.h"

#define CUDA_PLUGIN_SYMBOL "vigil_cuda_plugin"
/* Raised with any change of a struct that crosses. */
#define CUDA_PLUGIN_ABI 1

/* A device, for `vigil doctor`, logs and reports. */
struct cuda_device {
    char name[256];
    int32_t major, minor; /* compute capability */
    int32_t n_multiprocessors;
    size_t n_bytes, n_free_bytes; /* of its memory */
    int32_t driver, runtime;      /* CUDA versions: 13000 is 13.0 */
    size_t blas;                  /* cuBLASLt's version: 130100 is 13.1.0 */
};

struct cuda_plugin {
    uint32_t abi;          /* CUDA_PLUGIN_ABI */
    const char *version;   /* VIGIL_VERSION */
    const char *built_for; /* "sm_75 sm_80 … (CUDA 13.0)" */
    /* How many devices there are; 0, and *err says why, where there is none
     * (STATUS_NOT_FOUND) or the driver cannot be used (STATUS_UNSUPPORTED). */
    int32_t (*n_devices)(struct error *err);
    enum status (*describe)(int32_t device, struct cuda_device *out, struct error *err);
    /* Opens the engine on one device. As kernels/engines.h has it; options->device is not
     * read. STATUS_NO_MEMORY names what is needed and what is free. */
    enum status (*open)(int32_t device, const struct engine_options *options,
                        const struct checkpoint *c, struct engine **out,
                        struct error *err);
};

typedef const struct cuda_plugin *cuda_plugin_get(void);

#endif
