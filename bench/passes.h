/* SPDX-License-Identifier: Apache-2.0
 *
 * passes.h - sequences cut into batches that an engine takes, and timed runs over them.
 *
 * A pass computes every sequence once. Run by run, each batch is waited for before the next
 * one is given, as a lone request is. In a stream as many batches are in flight as the
 * engine takes, as a busy server keeps them: while one is computed, the next one's inputs
 * go over.
 *
 * Threads: one at a time; the engine, the ids and the starts are the caller's.
 */
#ifndef VIGIL_BENCH_PASSES_H
#define VIGIL_BENCH_PASSES_H

#include "model/engine.h"

struct passes {
    struct engine *engine;
    struct batch *batches;
    int32_t *offsets; /* of all batches, end to end */
    int32_t n_batches, n_sequences, n_labels;
    float *logits; /* of the largest batch */
};

/* A pass took so long, or a stream of them. */
struct pass_time {
    double ms;        /* by the host's clock */
    double device_ms; /* by the device's, all batches together; below 0: it has none */
};

/* Sequence i is ids[starts[i] .. starts[i + 1]). Batches hold at most max_texts sequences
 * (0: as many as fit) and what the engine takes, in the order given.
 * STATUS_LIMIT when a sequence is over the engine's tokens. *out is the caller's
 * (passes_free), empty on failure. */
enum status passes_make(struct engine *engine, const struct model_config *config,
                        const int32_t *ids, const int32_t *starts, int32_t n,
                        int32_t max_texts, struct passes *out, struct error *err);
void passes_free(struct passes *p);

/* One pass, a batch at a time. logits [n_sequences, n_labels] out, or NULL. */
enum status passes_run(const struct passes *p, float *logits, struct pass_time *time,
                       struct error *err);

/* n passes without a break, batches in flight. device_ms [n] out: of each pass; or NULL. */
enum status passes_stream(const struct passes *p, int32_t n, double *device_ms,
                          struct pass_time *time, struct error *err);

#endif
