/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.h - the seam: an engine loads a checkpoint, runs packed batches, closes.
 *
 * Implementations: kernels/cpu, kernels/cuda (a shared object of its own, loaded when there
 * is a GPU), model/reference (the oracle). Nothing above this header sees a tensor, nothing
 * below it sees HTTP or JSON. kernels/engines.h opens them by name.
 *
 * A device of its own works while its host does other things, so a batch is given to it and
 * fetched later: engine_submit and engine_wait, up to info.n_in_flight batches at a time, in
 * their order. On an engine that computes on the calling thread, wait does the work.
 *
 * Threads:    one thread at a time (a worker of the batcher owns the engine). close is
 *             called when no batch is in flight.
 * Call order: open (submit+ wait+ | run)* close
 */
#ifndef VIGIL_MODEL_ENGINE_H
#define VIGIL_MODEL_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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
    int32_t n_in_flight; /* batches that may be submitted ahead of a wait, at most 2 */
    size_t n_bytes;      /* memory held: weights and scratch */
};

#define ENGINE_MAX_IN_FLIGHT 2

/* Failures: STATUS_DEVICE says that the engine can compute no more in this process; after
 * any other the next batch may succeed. The outputs then mean nothing. No allocation. */
struct engine_ops {
    /* logits [B, n_labels] out; tags [T, n_tag_labels] out, used when wants_tags. */
    enum status (*run)(struct engine *e, const struct batch *batch, float *logits,
                       float *tags, struct error *err);
    /* NULL both, where run computes on the calling thread. The batch and its arrays stay as
     * they are until its wait; wait is for the oldest batch. */
    enum status (*submit)(struct engine *e, const struct batch *batch,
                          struct error *err);
    enum status (*wait)(struct engine *e, float *logits, float *tags,
                        struct error *err);
    /* Nanoseconds that the batch of the last wait or run spent on the device, by the
     * device's own clock; NULL where there is none. */
    int64_t (*device_ns)(struct engine *e);
    void (*close)(struct engine *e);
};

/* First member of every implementation's own struct. */
struct engine {
    const struct engine_ops *ops;
    struct engine_info info;
    const struct batch *submitted; /* waits for engine_wait, where run does the work */
};

struct engine_options {
    /* "auto", "cpu", "cuda", "cuda:1", "cuda:0,1", "cuda:all", "reference"; NULL: "cpu" */
    const char *device;
    /* NULL or "auto": the best that the machine has. On CUDA the products' instructions:
     * "mma" or "wmma". */
    const char *isa;
    /* NULL or "auto": int8 for a quantised checkpoint, else fp32; fp16 on CUDA. */
    const char *dtype;
    int32_t n_threads;  /* 0: as many as the process may run on */
    int32_t max_tokens; /* 0: 1024 (CUDA: 16384), and at least P */
    const int32_t
        *cpus; /* pin compute thread i to cpus[i % n_cpus]; NULL: do not pin */
    int32_t n_cpus;
};

static inline enum status engine_run(struct engine *e, const struct batch *batch,
                                     float *logits, float *tags, struct error *err) {
    return e->ops->run(e, batch, logits, tags, err);
}

/* Starts a batch; it and its arrays stay as they are until its wait. */
static inline enum status engine_submit(struct engine *e, const struct batch *batch,
                                        struct error *err) {
    if (e->ops->submit)
        return e->ops->submit(e, batch, err);
    e->submitted = batch;
    return STATUS_OK;
}

/* False when one of an engine's values is a NaN or an infinity: then the others mean nothing
 * either. No branch in the loop, so that the compiler makes vectors of it. */
static inline bool engine_is_finite(const float *values, size_t n) {
    uint32_t found = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        found |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !found;
}

/* The oldest batch that was submitted and not waited for. */
static inline enum status engine_wait(struct engine *e, float *logits, float *tags,
                                      struct error *err) {
    if (e->ops->wait)
        return e->ops->wait(e, logits, tags, err);
    return e->ops->run(e, e->submitted, logits, tags, err);
}

/* -1 where the device has no clock of its own. */
static inline int64_t engine_device_ns(struct engine *e) {
    return e->ops->device_ns ? e->ops->device_ns(e) : -1;
}

static inline void engine_close(struct engine *e) {
    if (e)
        e->ops->close(e);
}

#endif
