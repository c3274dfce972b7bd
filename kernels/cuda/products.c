/* SPDX-License-Identifier: Apache-2.0
 *
 * products.c - out = epilogue(in weights^T + bias): cuBLASLt, or our own kernels where they
 * are faster or it has none.
 *
 * cuBLASLt is column-major: out^T [n, m] = weights [n, k] in^T [k, m], so that weights and
 * in are its A, transposed, and its B, and the bias runs along its rows. The residual is its
 * C with beta 1. It has no erf-GELU (its own is the tanh form), and what its ReLU makes of a
 * NaN is not said: behind it, activation.cu does both.
 */
#include <string.h>

#include "kernels/cuda/cuda.h"

static cudaError_t to_error(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return cudaSuccess;
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_ARCH_MISMATCH:
    case CUBLAS_STATUS_INVALID_VALUE:
        return cudaErrorNotSupported;
    case CUBLAS_STATUS_ALLOC_FAILED:
        return cudaErrorMemoryAllocation;
    default:
        return cudaErrorLaunchFailure;
    }
}

/* ---- descriptions ----------------------------------------------------------------- */

static struct cuda_product_shape shape_of(const struct cuda_engine *e,
                                          enum cuda_product product) {
    int32_t width = e->width, inner = e->inner, hidden = e->hidden;
    struct cuda_product_shape s = {.n = width, .k = width, .out_stride = width};
    switch (product) {
    case PRODUCT_QKV:
    case PRODUCT_KV: /* the last two thirds of its columns */
        s.n = product == PRODUCT_QKV ? 3 * inner : 2 * inner;
        s.out_stride = 3 * inner;
        break;
    case PRODUCT_Q:
        s.n = s.out_stride = inner;
        break;
    case PRODUCT_OUT:
        s.k = inner;
        s.epilogue = CUDA_EPILOGUE_RESIDUAL;
        break;
    case PRODUCT_UP:
        s.n = s.out_stride = hidden;
        s.epilogue =
            e->config.has_relu_activation ? CUDA_EPILOGUE_RELU : CUDA_EPILOGUE_GELU;
        break;
    case PRODUCT_DOWN:
        s.k = hidden;
        s.epilogue = CUDA_EPILOGUE_RESIDUAL;
        break;
    default: /* PRODUCT_POOL */
        s.epilogue = CUDA_EPILOGUE_RELU;
    }
    s.in_stride = s.k;
    return s;
}

static cublasStatus_t describe(struct cuda_product_shape *s) {
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t status =
        cublasLtMatmulDescCreate(&s->description, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            cublasLtMatmulDescSetAttribute(s->description, CUBLASLT_MATMUL_DESC_TRANSA,
                                           &transposed, sizeof transposed);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(
            s->description, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&s->weights, CUDA_R_16F, (uint64_t)s->k,
                                            (uint64_t)s->n, s->k);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&s->in, CUDA_R_16F, (uint64_t)s->k, 1,
                                            s->in_stride);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&s->out, CUDA_R_16F, (uint64_t)s->n, 1,
                                            s->out_stride);
    return status;
}

enum status cuda_products_open(struct cuda_engine *e, struct error *err) {
    for (int p = 0; p < PRODUCT_COUNT; p++)
        e->shapes[p] = shape_of(e, (enum cuda_product)p);
    if (e->has_no_blas)
        return STATUS_OK;
    cublasStatus_t status = cublasLtCreate(&e->blas);
    for (int p = 0; p < PRODUCT_COUNT && status == CUBLAS_STATUS_SUCCESS; p++)
        status = describe(&e->shapes[p]);
    if (status == CUBLAS_STATUS_SUCCESS)
        return STATUS_OK;
    /* Mostly for want of memory, and the device goes on. */
    bool is_memory =
        status == CUBLAS_STATUS_ALLOC_FAILED || status == CUBLAS_STATUS_NOT_INITIALIZED;
    return error_set(err, is_memory ? STATUS_NO_MEMORY : STATUS_DEVICE,
                     "%s: cuBLASLt cannot start (status %d)", e->device_name,
                     (int)status);
}

void cuda_products_close(struct cuda_engine *e) {
    for (int p = 0; p < PRODUCT_COUNT; p++) {
        struct cuda_product_shape *s = &e->shapes[p];
        if (s->description)
            (void)cublasLtMatmulDescDestroy(s->description);
        cublasLtMatrixLayout_t layouts[] = {s->weights, s->in, s->out};
        for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
            if (layouts[i])
                (void)cublasLtMatrixLayoutDestroy(layouts[i]);
    }
    if (e->blas)
        (void)cublasLtDestroy(e->blas);
}

/* The layouts of in and out get their rows, the description its bias, from whose address
 * cuBLASLt tells its alignment. Host memory alone: cheap. */
static cublasStatus_t set_operands(const struct cuda_product_shape *s, int32_t n_rows,
                                   const f16 *bias) {
    uint64_t columns = (uint64_t)n_rows;
    cublasStatus_t status = cublasLtMatrixLayoutSetAttribute(
        s->in, CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof columns);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutSetAttribute(s->out, CUBLASLT_MATRIX_LAYOUT_COLS,
                                                  &columns, sizeof columns);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(
            s->description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    return status;
}

/* The first layer's bias of a product: all layers' are aligned alike. */
static const f16 *bias_of(struct cuda_engine *e, enum cuda_product product) {
    struct cuda_operation o = cuda_operation_of(e, product, 0);
    return o.linear->bias + o.first;
}

/* ---- algorithms ------------------------------------------------------------------- */

/* What every operand's first byte is a multiple of: keys and values begin `inner` columns
 * into a row. Unless it is told, cuBLASLt counts on 256. */
#define OPERAND_ALIGN 128u

static cublasStatus_t prefer(cublasLtMatmulPreference_t preference) {
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint64_t workspace = CUDA_WORKSPACE_BYTES;
    /* Unasked, parts of k may be added up in fp16. */
    uint32_t align = OPERAND_ALIGN, reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
        sizeof workspace);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction,
            sizeof reduction);
    for (size_t i = 0;
         i < sizeof alignments / sizeof *alignments && status == CUBLAS_STATUS_SUCCESS;
         i++)
        status = cublasLtMatmulPreferenceSetAttribute(preference, alignments[i], &align,
                                                      sizeof align);
    return status;
}

int32_t cuda_product_proposals(struct cuda_engine *e, enum cuda_product product,
                               int32_t n_rows, cublasLtMatmulAlgo_t *out, int32_t cap) {
    enum { MOST = 16 };
    cublasLtMatmulHeuristicResult_t found[MOST];
    cublasLtMatmulPreference_t preference = NULL;
    const struct cuda_product_shape *s = &e->shapes[product];
    int n_found = 0, n = 0;
    if (!e->blas ||
        cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS)
        return 0;
    if (prefer(preference) != CUBLAS_STATUS_SUCCESS ||
        set_operands(s, n_rows, bias_of(e, product)) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulAlgoGetHeuristic(
            e->blas, s->description, s->weights, s->in, s->out, s->out, preference,
            cap < MOST ? cap : MOST, found, &n_found) != CUBLAS_STATUS_SUCCESS)
        n_found = 0;
    for (int i = 0; i < n_found; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS)
            out[n++] = found[i].algo;
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return n;
}

bool cuda_product_takes(struct cuda_engine *e, enum cuda_product product,
                        int32_t n_rows, const cublasLtMatmulAlgo_t *algorithm) {
    const struct cuda_product_shape *s = &e->shapes[product];
    cublasLtMatmulHeuristicResult_t result;
    return e->blas &&
           set_operands(s, n_rows, bias_of(e, product)) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulAlgoCheck(e->blas, s->description, s->weights, s->in, s->out,
                                   s->out, algorithm,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= CUDA_WORKSPACE_BYTES;
}

/* ---- running ---------------------------------------------------------------------- */

static cudaError_t run_blas(struct cuda_engine *e, const struct cuda_operation *o,
                            int32_t n_rows, const cublasLtMatmulAlgo_t *algorithm) {
    const struct cuda_product_shape *s = &e->shapes[o->product];
    const f16 *weights = o->linear->weights + (size_t)o->first * (size_t)o->linear->k;
    float alpha = 1, beta = s->epilogue == CUDA_EPILOGUE_RESIDUAL ? 1.0f : 0.0f;
    cublasStatus_t status = set_operands(s, n_rows, o->linear->bias + o->first);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmul(e->blas, s->description, &alpha, weights, s->weights,
                                o->in, s->in, &beta, beta != 0 ? o->residual : o->out,
                                s->out, o->out, s->out, algorithm, e->workspace,
                                CUDA_WORKSPACE_BYTES, e->launch.stream);
    if (status != CUBLAS_STATUS_SUCCESS)
        return to_error(status);
    if (s->epilogue != CUDA_EPILOGUE_GELU && s->epilogue != CUDA_EPILOGUE_RELU)
        return cudaSuccess;
    return cuda_activation(&e->launch, o->out, (int64_t)n_rows * s->n,
                           s->epilogue == CUDA_EPILOGUE_RELU);
}

cudaError_t cuda_product_run_plan(struct cuda_engine *e, const struct cuda_operation *o,
                                  int32_t n_rows, const struct cuda_plan *plan) {
    const struct cuda_product_shape *s = &e->shapes[o->product];
    if (!plan->is_own)
        return run_blas(e, o, n_rows, &plan->algorithm);
    struct cuda_gemm g = {.in = o->in,
                          .weights = o->linear->weights +
                                     (size_t)o->first * (size_t)o->linear->k,
                          .bias = o->linear->bias + o->first,
                          .residual = o->residual,
                          .out = o->out,
                          .m = n_rows,
                          .n = s->n,
                          .k = s->k,
                          .in_stride = s->in_stride,
                          .out_stride = s->out_stride,
                          .epilogue = s->epilogue};
    return cuda_gemm(&e->launch, &g, plan->variant, e->buffers.partials,
                     e->buffers.counters);
}

cudaError_t cuda_product_run(struct cuda_engine *e, const struct cuda_operation *o,
                             int32_t bucket) {
    return cuda_product_run_plan(e, o, e->buckets.rows[bucket],
                                 cuda_plan_at(e, o->product, bucket));
}
