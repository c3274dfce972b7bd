/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.c - opens and closes the CPU engine; owns its memory.
 */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/isa.h"

enum { DEFAULT_MAX_TOKENS = 1024, MAX_THREADS = 256 };

void *cpu_engine_block(struct cpu_engine *e, size_t n_bytes) {
    if (e->n_blocks == e->cap_blocks) {
        size_t cap = e->cap_blocks ? 2 * e->cap_blocks : 64;
        void **grown = realloc(e->blocks, cap * sizeof *grown);
        if (!grown)
            return NULL;
        e->blocks = grown;
        e->cap_blocks = cap;
    }
    void *block = memory_aligned(n_bytes);
    if (block) {
        e->blocks[e->n_blocks++] = block;
        e->engine.info.n_bytes += n_bytes;
    }
    return block;
}

static void cpu_engine_close(struct engine *engine) {
    struct cpu_engine *e = (struct cpu_engine *)engine;
    pool_close(e->pool);
    for (size_t i = 0; i < e->n_blocks; i++)
        free(e->blocks[i]);
    free(e->blocks);
    free(e->layers);
    free(e);
}

static size_t stride_of(int32_t n) {
    return ((size_t)n + ACTIVATION_ALIGN - 1) / ACTIVATION_ALIGN * ACTIVATION_ALIGN;
}

static int32_t larger(int32_t a, int32_t b) {
    return a > b ? a : b;
}

static bool scratch_make(struct cpu_engine *e) {
    const struct model_config *c = &e->config;
    size_t n_rows = (size_t)e->engine.info.max_tokens, f = sizeof(float);
    e->dim_stride = stride_of(c->dim);
    e->kv_stride = stride_of(2 * c->dim);
    e->hidden_stride = stride_of(c->hidden_dim);
    e->head_stride = stride_of(larger(c->n_labels, c->n_tag_labels));
    e->x = cpu_engine_block(e, n_rows * e->dim_stride * f);
    e->q = cpu_engine_block(e, n_rows * e->dim_stride * f);
    e->kv = cpu_engine_block(e, n_rows * e->kv_stride * f);
    e->context = cpu_engine_block(e, n_rows * e->dim_stride * f);
    e->hidden = cpu_engine_block(e, n_rows * e->hidden_stride * f);
    e->head_out = cpu_engine_block(e, n_rows * e->head_stride * f);
    if (e->gemm->format != ROWS_F32) {
        size_t value_bytes = e->gemm->format == ROWS_INT8 ? 1 : sizeof(uint16_t);
        e->encoded_stride =
            (e->hidden_stride > e->dim_stride ? e->hidden_stride : e->dim_stride) *
            value_bytes;
        e->encoded = cpu_engine_block(e, n_rows * e->encoded_stride);
        e->quanta = cpu_engine_block(e, n_rows * sizeof *e->quanta);
        if (!e->encoded || !e->quanta)
            return false;
    }
    size_t floats = attention_scratch(c->max_positions, c->head_dim);
    e->attention_scratch_floats = (floats + 15) / 16 * 16;
    e->attention_scratch = cpu_engine_block(e, (size_t)e->engine.info.n_threads *
                                                   e->attention_scratch_floats * f);
    return e->x && e->q && e->kv && e->context && e->hidden && e->head_out &&
           e->attention_scratch;
}

/* Chooses the kernels that options and checkpoint ask for. */
static enum status choose_kernels(struct cpu_engine *e,
                                  const struct engine_options *options,
                                  const struct checkpoint *c, struct error *err) {
    const char *dtype = options->dtype;
    char list[128];
    if (!dtype || strcmp(dtype, "auto") == 0)
        dtype = c->dtype == DTYPE_I8 ? "int8" : "fp32";
    if (strcmp(dtype, "int8") != 0 && strcmp(dtype, "bf16") != 0 &&
        strcmp(dtype, "fp32") != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the CPU engine computes in int8, bf16 or fp32, not in %s",
                         dtype);
    e->gemm = isa_gemm(options->isa, dtype);
    if (!e->gemm) {
        isa_list(dtype, list, sizeof list);
        return error_set(err, STATUS_UNSUPPORTED,
                         "this machine cannot run %s on %s; it has: %s", dtype,
                         options->isa ? options->isa : "auto", list);
    }
    e->float_gemm = isa_float_gemm(e->gemm);
    e->operators = isa_operators(e->gemm);
    return STATUS_OK;
}

static enum status engine_start(struct cpu_engine *e,
                                const struct engine_options *options,
                                const struct checkpoint *c, struct error *err) {
    enum status status = choose_kernels(e, options, c, err);
    if (status != STATUS_OK)
        return status;
    int32_t n_threads = options->n_threads ? options->n_threads : pool_n_processors();
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return error_set(err, STATUS_INVALID,
                         "the engine takes 1 to %d threads, %d were asked for",
                         MAX_THREADS, n_threads);
    int32_t max_tokens = options->max_tokens ? options->max_tokens : DEFAULT_MAX_TOKENS;
    max_tokens = larger(max_tokens, e->config.max_positions);
    e->engine.info = (struct engine_info){.device = "cpu",
                                          .isa = e->gemm->isa,
                                          .dtype = e->gemm->dtype,
                                          .n_threads = n_threads,
                                          .max_tokens = max_tokens,
                                          .max_sequences = max_tokens,
                                          .n_in_flight = 1,
                                          .n_bytes = e->engine.info.n_bytes};
    e->layers = calloc((size_t)e->config.n_layers, sizeof *e->layers);
    if (!e->layers || !scratch_make(e))
        return error_set(err, STATUS_NO_MEMORY,
                         "no memory for the engine's scratch of %d tokens", max_tokens);
    status = cpu_engine_pack(e, c, err);
    if (status != STATUS_OK)
        return status;
    return pool_open(n_threads, options->cpus, options->n_cpus, &e->pool, err);
}

enum status cpu_engine_open(const struct engine_options *options,
                            const struct checkpoint *c, struct engine **out,
                            struct error *err) {
    static const struct engine_ops ops = {.run = cpu_engine_run,
                                          .close = cpu_engine_close};
    struct cpu_engine *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the CPU engine");
    e->engine.ops = &ops;
    e->config = c->config;
    e->config.labels = e->config.tag_labels = NULL;
    enum status status = engine_start(e, options, c, err);
    if (status != STATUS_OK) {
        cpu_engine_close(&e->engine);
        return status;
    }
    *out = &e->engine;
    return STATUS_OK;
}
