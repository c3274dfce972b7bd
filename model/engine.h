/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.h - the seam: an engine loads a checkpoint, runs packed batches, closes.
 *
 * Implementations: kernels/cpu (the fast one), model/reference (the oracle); later a CUDA
 * engine in a shared object of its own. Nothing above this header sees a tensor, nothing
 * below it sees HTTP or JSON. kernels/engines.h opens one by name.
 *
 * Threads:    run is called by one thread at a time (the batcher owns the engine). close is
 *             called when no run is under way.
 * Call order: open run* close
 */
#ifndef VIGIL_MODEL_ENGINE_H
#define VIGIL_MODEL_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/batch.h"
#include "model/checkpoint.h"

struct engine;

/* What /info, the logs and `vigil bench` say of an engine. */
struct engine_info {
    const char *device;    /* "cpu", "reference", "cuda:0" */
    const char *isa;       /* "avx512-vnni", "avx2", "portable", "" */
    const char *dtype;     /* "int8", "bf16", "fp32", "fp16" */
    int32_t n_threads;     /* that compute */
    int32_t max_tokens;    /* T of the largest batch that run takes */
    int32_t max_sequences; /* B of the largest batch that run takes */
    size_t n_bytes;        /* memory held: weights and scratch */
};

struct engine_ops {
    /* logits [B, n_labels] out; tags [T, n_tag_labels] out, used when wants_tags.
     * On failure the outputs mean nothing. No allocation. */
    enum status (*run)(struct engine *e, const struct batch *batch, float *logits,
                       float *tags, struct error *err);
    void (*close)(struct engine *e);
};

/* First member of every implementation's own struct. */
struct engine {
    const struct engine_ops *ops;
    struct engine_info info;
};

struct engine_options {
    const char *device; /* "auto", "cpu", "reference" */
    const char *isa;    /* NULL or "auto": the best that the machine has */
    const char *dtype;  /* NULL or "auto": int8 for a quantised checkpoint, else fp32 */
    int32_t n_threads;  /* 0: as many as the process may run on */
    int32_t max_tokens; /* 0: 1024, and at least P */
    const int32_t
        *cpus; /* pin compute thread i to cpus[i % n_cpus]; NULL: do not pin */
    int32_t n_cpus;
};

static inline enum status engine_run(struct engine *e, const struct batch *batch,
                                     float *logits, float *tags, struct error *err) {
    return e->ops->run(e, batch, logits, tags, err);
}

static inline void engine_close(struct engine *e) {
    if (e)
        e->ops->close(e);
}

#endif
