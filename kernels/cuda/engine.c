/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.c - opens and closes the CUDA engine on one device; owns its memory.
 *
 * Three blocks on the device: weights, activations and what else a batch needs, cuBLASLt's
 * workspace. What they need is compared with what is free before any of them is taken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cuda/cuda.h"

enum {
    DEFAULT_MAX_TOKENS = 16384,
    MAX_MAX_TOKENS = 1 << 20,
    TOKENS_A_SEQUENCE = 4, /* at least, of a batch of the most sequences */
    MAX_SPLIT_TILES = 1024,
    SPARE_ROWS = 64, /* behind the last: tiles read over the end */
    DEFAULT_DEADLINE_MS = 10000,
    ALIGN = 256
};
/* Parts of k: variants that need more are not candidates. */
#define PARTIAL_BYTES ((size_t)32 << 20)

enum status cuda_check(const struct cuda_engine *e, cudaError_t code, const char *what,
                       struct error *err) {
    if (code == cudaSuccess)
        return STATUS_OK;
    /* While opening, the device goes on, and so does who uses it already. */
    if (code == cudaErrorMemoryAllocation && !e->is_open) {
        (void)cudaGetLastError();
        return error_set(err, STATUS_NO_MEMORY, "%s (%s): %s: out of memory",
                         e->device_name, e->model_name, what);
    }
    if (code == cudaErrorTimeout)
        return error_set(err, STATUS_DEVICE, "%s: %s: no end in %lld ms",
                         e->device_name, what, (long long)(e->deadline_ns / 1000000));
    if (code == cudaErrorNoKernelImageForDevice)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "%s (%s) is sm_%d%d, and libvigil_cuda.so was not built for that: "
            "docs/BUILD.md says which CUDA can",
            e->device_name, e->model_name, e->major, e->minor);
    return error_set(err, STATUS_DEVICE, "%s: %s: %s (%s)", e->device_name, what,
                     cudaGetErrorString(code), cudaGetErrorName(code));
}

/* ---- sizes ------------------------------------------------------------------------ */

static int32_t up_to(int32_t n, int32_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

static enum status set_widths(struct cuda_engine *e, struct error *err) {
    const struct model_config *c = &e->config;
    static const int32_t heads[] = {16, 32, 64, 128};
    for (size_t i = 0; i < sizeof heads / sizeof *heads && !e->head; i++)
        if (c->head_dim <= heads[i])
            e->head = heads[i];
    e->width = up_to(c->dim, 64);
    e->hidden = up_to(c->hidden_dim, 64);
    if (!e->head || e->width > CUDA_MAX_WIDTH)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "the CUDA engine takes heads of up to 128 and a width of up to "
            "%d, this model has %d and %d",
            CUDA_MAX_WIDTH, c->head_dim, c->dim);
    e->inner = up_to(c->n_heads * e->head, 64);
    return STATUS_OK;
}

struct carver {
    char *base; /* NULL: measures */
    size_t used;
};

static void *carve(struct carver *c, size_t n_bytes) {
    void *at = c->base ? c->base + c->used : NULL;
    c->used += (n_bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

/* All that is not weights, in one block. */
static size_t carve_buffers(struct cuda_engine *e, char *base) {
    const struct engine_info *info = &e->engine.info;
    struct carver c = {.base = base};
    struct cuda_buffers *b = &e->buffers;
    size_t t = (size_t)e->buckets.rows[e->buckets.n - 1] + SPARE_ROWS;
    size_t s = (size_t)e->buckets.rows[buckets_find(&e->buckets, info->max_sequences)];
    size_t width = (size_t)e->width, inner = (size_t)e->inner;
    size_t hidden = (size_t)(e->hidden > e->inner ? e->hidden : e->inner);
    struct cuda_layout most = cuda_layout_of(e, info->max_tokens, info->max_sequences,
                                             1, e->config.n_tag_labels > 0);
    b->x = carve(&c, t * width * sizeof(f16));
    b->y = carve(&c, t * width * sizeof(f16));
    b->qkv = carve(&c, t * 3 * inner * sizeof(f16));
    b->context = carve(&c, t * inner * sizeof(f16));
    b->hidden = carve(&c, t * hidden * sizeof(f16));
    b->first = carve(&c, s * width * sizeof(f16));
    b->partials = carve(&c, e->n_partial_bytes);
    b->counters = carve(&c, (size_t)e->n_counters * sizeof(int32_t));
    b->outputs = carve(&c, most.n_outputs);
    for (int32_t i = 0; i < ENGINE_MAX_IN_FLIGHT; i++)
        e->slots[i].inputs = carve(&c, most.n_inputs);
    return c.used;
}

/* ---- options ---------------------------------------------------------------------- */

/* VIGIL_CUDA_DISABLE: some of graphs,overlap,cublas,own,tuning,cache; to find out what each
 * is worth (docs/BUILD.md). */
static void read_switches(struct cuda_engine *e) {
    const char *off = getenv("VIGIL_CUDA_DISABLE");
    const char *deadline = getenv("VIGIL_CUDA_DEADLINE_MS");
    e->has_no_graphs = off && strstr(off, "graphs");
    e->has_no_tuning = off && strstr(off, "tuning");
    e->has_no_cache = e->has_no_tuning || (off && strstr(off, "cache"));
    e->has_no_blas = off && strstr(off, "cublas");
    e->has_no_own = off && strstr(off, "own") && !e->has_no_blas;
    e->launch.overlaps = e->launch.overlaps && !(off && strstr(off, "overlap"));
    long ms = deadline ? strtol(deadline, NULL, 10) : 0;
    e->deadline_ns = (ms > 0 ? ms : DEFAULT_DEADLINE_MS) * INT64_C(1000000);
}

static enum status choose_path(struct cuda_engine *e,
                               const struct engine_options *options,
                               struct error *err) {
    const char *isa = options->isa ? options->isa : "auto";
    const char *dtype = options->dtype ? options->dtype : "auto";
    if (strcmp(dtype, "auto") != 0 && strcmp(dtype, "fp16") != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the CUDA engine computes in fp16, not in %s", dtype);
    if (e->major < 7)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s (%s) is sm_%d%d; the CUDA engine needs sm_70 or newer",
                         e->device_name, e->model_name, e->major, e->minor);
    int32_t built = 0;
    enum status status =
        cuda_check(e, cuda_kernels_compiled_for(&built), "looking at the kernels", err);
    if (status != STATUS_OK)
        return status;
    e->launch.overlaps = e->launch.overlaps && built >= 90;
    bool wants_mma = strcmp(isa, "mma") == 0, wants_wmma = strcmp(isa, "wmma") == 0;
    if (!wants_mma && !wants_wmma && strcmp(isa, "auto") != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the CUDA engine has the paths auto, mma and wmma, not %s",
                         isa);
    if (wants_mma && built < 80)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the path mma needs sm_80 or newer, and a library built for "
                         "that; %s is sm_%d%d, the library's code for it is for sm_%d",
                         e->device_name, e->major, e->minor, built);
    e->launch.path = built < 80 || wants_wmma ? CUDA_PATH_WMMA : CUDA_PATH_MMA;
    return STATUS_OK;
}

/* ---- opening ---------------------------------------------------------------------- */

static enum status look_at_device(struct cuda_engine *e, struct error *err) {
    int runtime = 0, driver = 0;
    struct cudaDeviceProp properties;
    cudaError_t code = cudaSetDevice(e->device);
    if (code == cudaSuccess)
        code = cudaGetDeviceProperties(&properties, e->device);
    if (code == cudaSuccess)
        code = cudaRuntimeGetVersion(&runtime);
    if (code == cudaSuccess)
        code = cudaDriverGetVersion(&driver);
    if (code != cudaSuccess)
        return cuda_check(e, code, "looking at the device", err);
    e->major = properties.major;
    e->minor = properties.minor;
    e->n_multiprocessors = properties.multiProcessorCount;
    snprintf(e->model_name, sizeof e->model_name, "%s", properties.name);
    e->l2_bytes = (size_t)properties.l2CacheSize;
    /* Programmatic dependent launch; graphs capture it since 12.3. */
    e->launch.overlaps = runtime >= 12030 && driver >= 12030;
    return STATUS_OK;
}

static enum status take(struct cuda_engine *e, void **out, size_t n_bytes,
                        const char *what, struct error *err) {
    cudaError_t code = cudaMalloc(out, n_bytes);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        *out = NULL;
        return error_set(err, STATUS_NO_MEMORY, "%s (%s) has no %zu MB for %s",
                         e->device_name, e->model_name, (n_bytes >> 20) + 1, what);
    }
    if (code == cudaSuccess)
        e->engine.info.n_bytes += n_bytes;
    return cuda_check(e, code, "allocating memory", err);
}

static enum status take_memory(struct cuda_engine *e, const struct checkpoint *c,
                               struct error *err) {
    size_t n_free = 0, n_total = 0, n_weights = cuda_weights_bytes(e, c);
    size_t n_buffers = carve_buffers(e, NULL);
    size_t n_workspace = e->has_no_blas ? 0 : CUDA_WORKSPACE_BYTES;
    size_t n_needed = n_weights + n_buffers + n_workspace;
    enum status status =
        cuda_check(e, cudaMemGetInfo(&n_free, &n_total), "asking for free memory", err);
    if (status != STATUS_OK)
        return status;
    if (n_needed > n_free)
        return error_set(err, STATUS_NO_MEMORY,
                         "%s (%s) has %zu MB free of %zu MB, the engine needs %zu MB: "
                         "%zu for weights, %zu for batches of %d tokens "
                         "(--batch-tokens), %zu for cuBLASLt",
                         e->device_name, e->model_name, n_free >> 20, n_total >> 20,
                         (n_needed >> 20) + 1, n_weights >> 20, n_buffers >> 20,
                         e->engine.info.max_tokens, n_workspace >> 20);
    status = take(e, &e->weight_block, n_weights, "weights", err);
    if (status == STATUS_OK)
        status = take(e, &e->buffer_block, n_buffers, "batches", err);
    if (status == STATUS_OK && n_workspace)
        status = take(e, &e->workspace, n_workspace, "cuBLASLt", err);
    if (status != STATUS_OK)
        return status;
    carve_buffers(e, e->buffer_block);
    /* What no kernel wrote must be finite: rows behind the batch are computed too. */
    return cuda_check(e,
                      cudaMemsetAsync(e->buffer_block, 0, n_buffers, e->launch.stream),
                      "clearing memory", err);
}

static enum status set_sizes(struct cuda_engine *e,
                             const struct engine_options *options, struct error *err) {
    int32_t max_tokens = options->max_tokens ? options->max_tokens : DEFAULT_MAX_TOKENS;
    if (max_tokens < e->config.max_positions)
        max_tokens = e->config.max_positions;
    if (max_tokens > MAX_MAX_TOKENS)
        return error_set(err, STATUS_LIMIT,
                         "batches of %d tokens are too large, %d at most", max_tokens,
                         MAX_MAX_TOKENS);
    buckets_init(&e->buckets, max_tokens);
    if (e->buckets.rows[e->buckets.n - 1] < max_tokens)
        return error_set(err, STATUS_INTERNAL, "no bucket holds %d tokens", max_tokens);
    int32_t max_sequences = max_tokens / TOKENS_A_SEQUENCE;
    e->n_partial_bytes = PARTIAL_BYTES;
    e->n_counters = MAX_SPLIT_TILES;
    e->engine.info =
        (struct engine_info){.device = e->device_name,
                             .isa = e->launch.path == CUDA_PATH_MMA ? "mma" : "wmma",
                             .dtype = "fp16",
                             .n_threads = 1,
                             .max_tokens = max_tokens,
                             .max_sequences = max_sequences < 1 ? 1 : max_sequences,
                             .n_in_flight = ENGINE_MAX_IN_FLIGHT};
    return set_widths(e, err);
}

static enum status start(struct cuda_engine *e, const struct engine_options *options,
                         const struct checkpoint *c, struct error *err) {
    enum status status = look_at_device(e, err);
    if (status == STATUS_OK)
        status = choose_path(e, options, err);
    if (status != STATUS_OK)
        return status;
    read_switches(e);
    status = set_sizes(e, options, err);
    if (status == STATUS_OK)
        status = cuda_check(
            e, cudaStreamCreateWithFlags(&e->launch.stream, cudaStreamNonBlocking),
            "making a stream", err);
    if (status == STATUS_OK)
        status =
            cuda_check(e, cudaStreamCreateWithFlags(&e->copies, cudaStreamNonBlocking),
                       "making a stream", err);
    e->weights.layers = calloc((size_t)e->config.n_layers, sizeof *e->weights.layers);
    if (status == STATUS_OK && !e->weights.layers)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for the CUDA engine");
    if (status == STATUS_OK)
        status = cuda_check(e, cuda_kernels_prepare(e->launch.path),
                            "preparing the kernels", err);
    if (status == STATUS_OK)
        status = take_memory(e, c, err);
    if (status == STATUS_OK)
        status = cuda_weights_load(e, c, err);
    if (status == STATUS_OK)
        status = cuda_products_open(e, err);
    if (status == STATUS_OK)
        status = cuda_slots_open(e, err);
    if (status == STATUS_OK)
        status = cuda_tune(e, err);
    if (status == STATUS_OK)
        status = cuda_graphs_open(e, err);
    if (status == STATUS_OK)
        status = cuda_check(e, cuda_finish(e), "opening", err);
    e->is_open = status == STATUS_OK;
    return status;
}

/* ---- the engine ------------------------------------------------------------------- */

static enum status cuda_run(struct engine *engine, const struct batch *batch,
                            float *logits, float *tags, struct error *err) {
    enum status status = cuda_submit(engine, batch, err);
    return status == STATUS_OK ? cuda_wait(engine, logits, tags, err) : status;
}

static int64_t cuda_device_ns(struct engine *engine) {
    return ((struct cuda_engine *)engine)->device_ns;
}

/* A device that hangs may never answer: what is on it is left to the end of the process. */
static void cuda_close(struct engine *engine) {
    struct cuda_engine *e = (struct cuda_engine *)engine;
    if (e->is_hung) {
        free(e->weights.layers);
        free(e->plans);
        free(e->graphs);
        free(e);
        return;
    }
    (void)cudaSetDevice(e->device);
    /* First: a capture that a failure left open would forbid the rest. */
    if (e->copies)
        (void)cudaStreamDestroy(e->copies);
    if (e->launch.stream)
        (void)cudaStreamDestroy(e->launch.stream);
    cuda_slots_close(e);
    cuda_products_close(e);
    (void)cudaFree(e->workspace);
    (void)cudaFree(e->buffer_block);
    (void)cudaFree(e->weight_block);
    free(e->weights.layers);
    free(e->plans);
    free(e);
}

enum status cuda_engine_open(int32_t device, const struct engine_options *options,
                             const struct checkpoint *c, struct engine **out,
                             struct error *err) {
    static const struct engine_ops ops = {.run = cuda_run,
                                          .submit = cuda_submit,
                                          .wait = cuda_wait,
                                          .device_ns = cuda_device_ns,
                                          .close = cuda_close};
    struct cuda_engine *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the CUDA engine");
    e->engine.ops = &ops;
    e->device = device;
    snprintf(e->device_name, sizeof e->device_name, "cuda:%d", device);
    e->config = c->config;
    e->config.labels = e->config.tag_labels = NULL;
    enum status status = start(e, options, c, err);
    if (status != STATUS_OK) {
        cuda_close(&e->engine);
        return status;
    }
    *out = &e->engine;
    return STATUS_OK;
}
