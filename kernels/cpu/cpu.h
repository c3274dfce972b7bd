/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu.h - the CPU engine: opens on a checkpoint, runs packed batches.
 *
 * pack.c makes the weights ready, forward.c runs the layers, engine.c owns the memory.
 */
#ifndef VIGIL_KERNELS_CPU_CPU_H
#define VIGIL_KERNELS_CPU_CPU_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pool.h"
#include "model/engine.h"

/* Opens the CPU engine; see kernels/engines.h. */
enum status cpu_engine_open(const struct engine_options *options,
                            const struct checkpoint *c, struct engine **out,
                            struct error *err);

/* ---- private to pack.c, forward.c and engine.c ------------------------------------ */

struct cpu_norm {
    float *weight, *bias;
};

struct cpu_layer {
    struct packed_linear q, kv, out, up, down; /* kv: keys, then values */
    struct cpu_norm attention_norm, output_norm;
};

struct cpu_engine {
    struct engine engine;
    struct model_config config;        /* sizes only: its labels are NULL */
    const struct cpu_gemm *gemm;       /* of the encoder's products */
    const struct cpu_gemm *float_gemm; /* of the heads' */
    const struct cpu_operators *operators;
    struct pool *pool;

    struct embedding_tables embeddings;
    struct cpu_layer *layers; /* [L] */
    struct packed_linear pre_classifier, classifier, tagger;

    /* Scratch for max_tokens rows; strides are multiples of ACTIVATION_ALIGN. */
    size_t dim_stride, kv_stride, hidden_stride; /* floats */
    size_t encoded_stride;                       /* bytes */
    float *x;                                    /* [T,C] the residual stream */
    float *q;                   /* [T,C] queries, then what goes into a LayerNorm */
    float *kv;                  /* [T,2C] */
    float *context;             /* [T,C] */
    float *hidden;              /* [T,F] */
    void *encoded;              /* [T, max(C,F)] rows as products read them, or NULL */
    struct row_quantum *quanta; /* [T] */
    float *head_out;            /* [T, widest head] */
    size_t head_stride;         /* floats */
    float *attention_scratch;   /* [threads] blocks of attention_scratch_floats */
    size_t attention_scratch_floats;

    void **blocks; /* everything allocated, freed by close */
    size_t n_blocks, cap_blocks;
};

/* memory_aligned(n_bytes) that the engine owns and counts; NULL when there is none. */
void *cpu_engine_block(struct cpu_engine *e, size_t n_bytes);

/* Packs every weight of the checkpoint. STATUS_NO_MEMORY. */
enum status cpu_engine_pack(struct cpu_engine *e, const struct checkpoint *c,
                            struct error *err);

/* engine_ops.run */
enum status cpu_engine_run(struct engine *engine, const struct batch *batch,
                           float *logits, float *tags, struct error *err);

#endif
