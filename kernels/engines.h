/* SPDX-License-Identifier: Apache-2.0
 *
 * engines.h - opens engines by name: one, or one for each device.
 *
 *   NULL, "cpu"     the CPU
 *   "auto"          the first CUDA device, if there is one that works, else the CPU
 *   "cuda"          the first CUDA device; "cuda:1", "cuda:0,2", "cuda:all": those
 *   "reference"     the slow one that is right
 *
 * A CUDA device computes in fp16 and nothing else: with another dtype or a processor's isa,
 * "auto" is the CPU; with fp16, or a GPU's isa (mma, wmma), it has to be a GPU.
 *
 * Threads: any.
 */
#ifndef VIGIL_KERNELS_ENGINES_H
#define VIGIL_KERNELS_ENGINES_H

#include <stdbool.h>

#include "model/engine.h"

#define ENGINES_MAX 16

/* For option tables: the values that are refused by engines_plan come from engines.c alone. */
#define ENGINES_DTYPE_CHOICES "auto|int8|bf16|fp32|fp16"

struct engines {
    struct engine *engines[ENGINES_MAX];
    int32_t n;
    char note
        [ERROR_MESSAGE_BYTES]; /* why "auto" is the CPU although there is a device, or
                                     * a library for one; "" */
};

struct engines_plan {
    int32_t n;    /* engines that engines_open would open */
    bool is_cuda; /* they are on GPUs: the processors are free for other work */
};

/* What engines_open would do, so that a mistake is an error before anything else is done.
 * STATUS_UNSUPPORTED says which names there are, or why there is no such device. */
enum status engines_plan(const struct engine_options *options,
                         struct engines_plan *plan, struct error *err);

/* Opens an engine for each device that options ask for, and loads the checkpoint into it.
 * They keep nothing of *c: the caller may close it afterwards. On success *out is the
 * caller's (engines_close); on failure it is empty. */
enum status engines_open(const struct engine_options *options,
                         const struct checkpoint *c, struct engines *out,
                         struct error *err);
void engines_close(struct engines *e);

/* Whether a name asks for whatever is best, so that another engine may stand in. */
bool engines_is_auto(const struct engine_options *options);
/* Whether an engine is on a GPU. */
bool engines_is_cuda(const struct engine *e);

/* The first of them alone, owned by the caller (engine_close). */
enum status engine_open(const struct engine_options *options,
                        const struct checkpoint *c, struct engine **out,
                        struct error *err);

#endif
