/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda.h - the CUDA engine: what its files share. Private to kernels/cuda.
 *
 *   plugin.c    what libvigil_cuda.so offers           engine.c   opens and closes, memory
 *   weights.c   checkpoint -> padded fp16 on a device  buckets.c  sizes that work is rounded to
 *   products.c  one product: cuBLASLt or our kernels   tuning.c   which of them, by timing
 *   plans.c     what tuning found, kept                forward.c  a batch's launches, in order
 *   run.c       submit, wait, graphs
 *   *.cu        the kernels, kernels.h their launches
 *
 * Widths are padded with zeros: C to `width`, F to `hidden`, a head of D to `head` (16, 32,
 * 64 or 128), all heads together to `inner`. width, hidden and inner are multiples of 64.
 * LayerNorm counts C alone. So any DistilBERT has the same kernels, with no tails in them.
 *
 * Threads: one at a time for an engine. Every call makes the engine's device current first.
 */
#ifndef VIGIL_KERNELS_CUDA_CUDA_H
#define VIGIL_KERNELS_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/buckets.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/plugin.h"
#include "model/engine.h"

struct cuda_linear {
    f16 *weights; /* [n, k] */
    f16 *bias;    /* [n] */
    int32_t n, k;
};

struct cuda_norm {
    float *weight, *bias; /* [width] */
};

struct cuda_layer {
    struct cuda_linear qkv; /* [3 inner, width]: queries, keys, values */
    struct cuda_linear out, up, down;
    struct cuda_norm attention_norm, output_norm;
};

struct cuda_weights {
    f16 *words, *positions; /* [V, width], [P, width] */
    struct cuda_norm embedding_norm;
    struct cuda_layer *layers; /* [L] on the host */
    struct cuda_linear pre_classifier;
    f16 *classifier, *tagger; /* [n_labels, width], [n_tag_labels, width] */
    float *classifier_bias, *tagger_bias;
};

/* The products of a forward pass, by their shape. */
enum cuda_product {
    PRODUCT_QKV,
    PRODUCT_KV, /* of the last layer, when only the [CLS] rows go on */
    PRODUCT_Q,  /* and their queries */
    PRODUCT_OUT,
    PRODUCT_UP,
    PRODUCT_DOWN,
    PRODUCT_POOL, /* pre_classifier and its ReLU */
    PRODUCT_COUNT
};

/* How a product of one shape and number of rows is computed. */
struct cuda_plan {
    bool is_own; /* our kernels; else cuBLASLt */
    struct cuda_gemm_variant variant;
    cublasLtMatmulAlgo_t algorithm;
};

/* A product's operands and shape, but for the number of rows. */
struct cuda_operation {
    enum cuda_product product;
    const struct cuda_linear *linear; /* weights and bias from row `first` on */
    int32_t first;
    const f16 *in, *residual;
    f16 *out;
};

/* What is fixed for all operations of one product. */
struct cuda_product_shape {
    int32_t n, k, in_stride, out_stride;
    enum cuda_epilogue epilogue;
    cublasLtMatmulDesc_t description;
    cublasLtMatrixLayout_t weights, in,
        out; /* columns of in and out are set before use */
};

struct cuda_buffers {
    f16 *x;            /* [T, width] the residual stream */
    f16 *y;            /* [T, width] what goes into a LayerNorm */
    f16 *qkv;          /* [T, 3 inner] */
    f16 *context;      /* [T, inner] */
    f16 *hidden;       /* [T, hidden] */
    f16 *first;        /* [B, width] the [CLS] rows of x */
    float *partials;   /* sums of parts of k */
    int32_t *counters; /* zeros */
    char *outputs;     /* logits, then tags */
};

/* A batch on its way. Pinned memory and the device's, laid out alike (run.c). */
struct cuda_slot {
    char *host_inputs, *host_outputs; /* pinned */
    char *inputs;                     /* on the device */
    cudaEvent_t started, copied, done;
    int32_t n_sequences, n_tokens;
    struct cuda_layout *layout; /* of the batch in flight */
};

/* Where the parts of a batch's inputs and outputs lie, for its buckets of rows. */
struct cuda_layout {
    int32_t tokens, sequences; /* rounded up to buckets */
    int32_t warps, max_tiles;  /* of the attention */
    bool wants_tags;
    size_t offsets, ids, positions, tiles, n_inputs; /* bytes; counts come first */
    size_t tags, n_outputs;                          /* bytes; logits come first */
};

struct cuda_graph {
    struct cuda_layout layout;
    cudaGraphExec_t runs[ENGINE_MAX_IN_FLIGHT]; /* for each slot */
};

struct cuda_engine {
    struct engine engine;
    struct model_config config; /* sizes only: its labels are NULL */
    int32_t device, major, minor, n_multiprocessors;
    char device_name[16]; /* "cuda:0" */
    char model_name[256]; /* of the GPU */
    int32_t width, inner, head, hidden;
    struct cuda_launch launch; /* our path and the compute stream */
    cudaStream_t copies;
    cublasLtHandle_t blas;
    void *workspace;
    struct cuda_weights weights;
    struct cuda_buffers buffers;
    size_t n_partial_bytes;
    int32_t n_counters;
    void *weight_block, *buffer_block; /* on the device */
    struct cuda_product_shape shapes[PRODUCT_COUNT];
    struct cuda_plan *plans; /* [PRODUCT_COUNT, n_buckets] */
    struct buckets buckets;
    struct cuda_slot slots[ENGINE_MAX_IN_FLIGHT];
    struct cuda_layout eager[ENGINE_MAX_IN_FLIGHT];
    int32_t first_slot, n_in_flight;
    struct cuda_graph *graphs;
    int32_t n_graphs;
    int64_t deadline_ns, device_ns;
    size_t l2_bytes;
    bool is_open; /* running out of memory is a failure of the device from now on */
    bool is_dead; /* a batch failed: no more of them */
    bool is_hung; /* and may never answer again: not even freed */
    /* VIGIL_CUDA_DISABLE */
    bool has_no_graphs, has_no_cache, has_no_blas, has_no_own, has_no_tuning;
};

enum { CUDA_WORKSPACE_BYTES = 32 << 20 };

/* error_set(STATUS_DEVICE) with what failed and CUDA's own words, unless code is success. */
enum status cuda_check(const struct cuda_engine *e, cudaError_t code, const char *what,
                       struct error *err);

/* weights.c: pads, converts and uploads. STATUS_INVALID names a value that fp16 cannot hold. */
enum status cuda_weights_load(struct cuda_engine *e, const struct checkpoint *c,
                              struct error *err);
/* Bytes that cuda_weights_load takes on the device. */
size_t cuda_weights_bytes(struct cuda_engine *e, const struct checkpoint *c);

/* products.c */
enum status cuda_products_open(struct cuda_engine *e, struct error *err);
void cuda_products_close(struct cuda_engine *e);
/* Launches the product for n_rows (a bucket's) rows, as its plan says. */
cudaError_t cuda_product_run(struct cuda_engine *e, const struct cuda_operation *o,
                             int32_t bucket);
/* The same as this plan says; cudaErrorNotSupported when it cannot be. */
cudaError_t cuda_product_run_plan(struct cuda_engine *e, const struct cuda_operation *o,
                                  int32_t n_rows, const struct cuda_plan *plan);
/* Whether cuBLASLt takes this algorithm for so many rows. */
bool cuda_product_takes(struct cuda_engine *e, enum cuda_product product,
                        int32_t n_rows, const cublasLtMatmulAlgo_t *algorithm);
/* cuBLASLt's proposals, best first; how many. */
int32_t cuda_product_proposals(struct cuda_engine *e, enum cuda_product product,
                               int32_t n_rows, cublasLtMatmulAlgo_t *out, int32_t cap);

/* tuning.c: fills e->plans, with what is kept or by timing. */
enum status cuda_tune(struct cuda_engine *e, struct error *err);
/* Buckets of rows that a product may be asked for, from the smallest on. */
int32_t cuda_n_buckets(const struct cuda_engine *e, enum cuda_product product);
struct cuda_plan *cuda_plan_at(struct cuda_engine *e, enum cuda_product product,
                               int32_t bucket);
size_t cuda_plans_bytes(const struct cuda_engine *e);
/* Whether one of our variants can compute a product, and is worth a try. */
bool cuda_is_candidate(const struct cuda_engine *e, struct cuda_gemm_variant v,
                       int32_t m, const struct cuda_product_shape *s);

/* plans.c: true when all plans were kept, and can be used. Any thread. */
bool cuda_plans_find(struct cuda_engine *e);
void cuda_plans_keep(struct cuda_engine *e);

/* forward.c */
/* The operation of a product in a layer: which weights, which buffers. */
struct cuda_operation cuda_operation_of(struct cuda_engine *e,
                                        enum cuda_product product, int32_t layer);
/* All launches of a batch whose inputs are on the device, on the compute stream. */
cudaError_t cuda_forward(struct cuda_engine *e, const struct cuda_layout *l,
                         const char *inputs);

/* run.c */
/* Until the event has come, or the device says that it failed; cudaErrorTimeout when the
 * deadline has passed, and the engine is hung then. */
cudaError_t cuda_await(struct cuda_engine *e, cudaEvent_t event);
/* Until all that was launched is done. No batch may be in flight. */
cudaError_t cuda_finish(struct cuda_engine *e);
enum status cuda_slots_open(struct cuda_engine *e, struct error *err);
/* What is launched between these goes into a graph. end takes what the launches returned. */
cudaError_t cuda_capture_begin(struct cuda_engine *e);
cudaError_t cuda_capture_end(struct cuda_engine *e, cudaError_t code,
                             cudaGraphExec_t *out);
/* Captures the graphs; when the plans are made. */
enum status cuda_graphs_open(struct cuda_engine *e, struct error *err);
/* Slots and graphs. */
void cuda_slots_close(struct cuda_engine *e);
/* The layout of a batch of so many rows, its longest sequence as given. */
struct cuda_layout cuda_layout_of(const struct cuda_engine *e, int32_t n_tokens,
                                  int32_t n_sequences, int32_t longest,
                                  bool wants_tags);
enum status cuda_submit(struct engine *engine, const struct batch *batch,
                        struct error *err);
enum status cuda_wait(struct engine *engine, float *logits, float *tags,
                      struct error *err);

/* engine.c */
enum status cuda_engine_open(int32_t device, const struct engine_options *options,
                             const struct checkpoint *c, struct engine **out,
                             struct error *err);

#endif
