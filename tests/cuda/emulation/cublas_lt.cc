/* SPDX-License-Identifier: Apache-2.0
 *
 * cublas_lt.cc - cuBLASLt's products: D = epilogue(alpha op(A) op(B) + beta C).
 *
 * Matrices are column-major, halves or floats; sums are fp32, rounded once, at the end. The
 * heuristic knows three algorithms that compute the same; the second wants a workspace, and
 * every product fills the workspace that it was given with rubbish. An algorithm remembers
 * the alignment that it was promised (256 bytes unless the preference says less), and
 * refuses pointers that break the promise, as cuBLASLt's do.
 */
#include <math.h>
#include <string.h>

#include "tests/cuda/emulation/cublasLt.h"
#include "tests/cuda/emulation/cuda_fp16.h"
#include "tests/cuda/emulation/internal.h"
#include "tests/cuda/emulation/product.h"

enum {
    VERSION = 130100,
    N_ALGORITHMS = 3,
    WANTS_WORKSPACE = 1, /* this algorithm */
    WORKSPACE_BYTES = 1 << 20,
    DEFAULT_ALIGNMENT = 256
};

struct cublasLtContext {
    int device;
};

struct cublasLtMatmulDescOpaque {
    cublasComputeType_t compute_type;
    cudaDataType_t scale_type, bias_type;
    bool has_bias_type;
    cublasOperation_t op_a, op_b;
    cublasLtEpilogue_t epilogue;
    cublasLtPointerMode_t pointer_mode;
    const void *bias;
};

struct cublasLtMatrixLayoutOpaque {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
    cublasLtOrder_t order;
    int32_t n_batches;
};

struct cublasLtMatmulPreferenceOpaque {
    uint64_t max_workspace_bytes;
    uint32_t alignment[4]; /* of A, B, C, D */
};

static size_t n_handles;

size_t blas_n_handles() {
    return n_handles;
}

/* A call: holds the mutex; status is what stands in its way. */
struct blas_call {
    std::unique_lock<std::mutex> lock;
    int device;
    cublasStatus_t status;

    blas_call() : lock(emulation_mutex), device(0), status(CUBLAS_STATUS_SUCCESS) {
        if (emulation_settings()->n_devices == 0) {
            status = CUBLAS_STATUS_NOT_INITIALIZED;
            return;
        }
        device = current_device();
        if (emulation_device(device)->is_dead)
            status = CUBLAS_STATUS_EXECUTION_FAILED;
        else
            status = (cublasStatus_t)fault_count(FAULT_BLAS, device, nullptr);
    }
};

/* ---- handles, descriptions ---------------------------------------------------------- */

template <typename T> static cublasStatus_t create(T **out, const T &value) {
    struct blas_call call;
    if (call.status)
        return call.status;
    if (!out)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = new T(value);
    n_handles++;
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> static cublasStatus_t destroy(T *handle) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    if (!handle)
        return CUBLAS_STATUS_INVALID_VALUE;
    delete handle;
    n_handles--;
    return CUBLAS_STATUS_SUCCESS;
}

/* An attribute of exactly T's size. */
template <typename T>
static cublasStatus_t set(T *field, const void *value, size_t value_bytes) {
    if (!value || value_bytes != sizeof *field)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy((void *)field, value, sizeof *field);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    int device = 0;
    cudaGetDevice(&device);
    return create(handle, cublasLtContext{device});
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    return destroy(handle);
}

size_t cublasLtGetVersion(void) {
    return VERSION;
}

size_t cublasLtGetCudartVersion(void) {
    return CUDART_VERSION;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc,
                                        cublasComputeType_t compute_type,
                                        cudaDataType_t scale_type) {
    cublasLtMatmulDescOpaque d = {};
    d.compute_type = compute_type;
    d.scale_type = scale_type;
    d.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return create(desc, d);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    return destroy(desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attr,
                                              const void *value, size_t value_bytes) {
    struct blas_call call;
    if (call.status)
        return call.status;
    if (!desc)
        return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        return set(&desc->compute_type, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        return set(&desc->scale_type, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return set(&desc->pointer_mode, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(&desc->op_a, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(&desc->op_b, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return set(&desc->epilogue, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return set(&desc->bias, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        desc->has_bias_type = true;
        return set(&desc->bias_type, value, value_bytes);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
        return CUBLAS_STATUS_SUCCESS;
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout,
                                          cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    return create(layout, cublasLtMatrixLayoutOpaque{type, rows, cols, ld,
                                                     CUBLASLT_ORDER_COL, 1});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    return destroy(layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attr,
                                                const void *value, size_t value_bytes) {
    struct blas_call call;
    if (call.status)
        return call.status;
    if (!layout)
        return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return set(&layout->type, value, value_bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return set(&layout->order, value, value_bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return set(&layout->rows, value, value_bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return set(&layout->cols, value, value_bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return set(&layout->ld, value, value_bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return set(&layout->n_batches, value, value_bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *pref) {
    const uint32_t a = DEFAULT_ALIGNMENT;
    return create(pref, cublasLtMatmulPreferenceOpaque{0, {a, a, a, a}});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref) {
    return destroy(pref);
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                     cublasLtMatmulPreferenceAttributes_t attr,
                                     const void *value, size_t value_bytes) {
    struct blas_call call;
    if (call.status)
        return call.status;
    if (!pref)
        return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(&pref->max_workspace_bytes, value, value_bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return set(&pref->alignment[attr - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                   value, value_bytes);
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
    case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT:
    case CUBLASLT_MATMUL_PREF_IMPL_MASK:
        return CUBLAS_STATUS_SUCCESS;
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

/* ---- what can be computed ----------------------------------------------------------- */

struct shape {
    cublasLtMatmulDescOpaque desc;
    cublasLtMatrixLayoutOpaque a, b, c, d;
    uint64_t m, n, k;
};

static bool is_layout(const cublasLtMatrixLayoutOpaque &l) {
    return l.rows > 0 && l.cols > 0 && l.ld >= (int64_t)l.rows &&
           l.order == CUBLASLT_ORDER_COL && l.n_batches == 1;
}

static bool is_value(cudaDataType_t type) {
    return type == CUDA_R_16F || type == CUDA_R_32F;
}

static bool has_bias(const struct shape *s) {
    return s->desc.epilogue & CUBLASLT_EPILOGUE_BIAS;
}

static cublasStatus_t check_shape(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                  cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                  cublasLtMatrixLayout_t d, struct shape *out) {
    if (!desc || !a || !b || !c || !d)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = {*desc, *a, *b, *c, *d, d->rows, d->cols, 0};
    bool is_ta = desc->op_a != CUBLAS_OP_N, is_tb = desc->op_b != CUBLAS_OP_N;
    out->k = is_ta ? a->rows : a->cols;
    if ((is_ta ? a->cols : a->rows) != out->m ||
        (is_tb ? b->rows : b->cols) != out->n ||
        (is_tb ? b->cols : b->rows) != out->k || c->rows != out->m || c->cols != out->n)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!is_layout(*a) || !is_layout(*b) || !is_layout(*c) || !is_layout(*d))
        return CUBLAS_STATUS_INVALID_VALUE;
    const int epilogues = CUBLASLT_EPILOGUE_DEFAULT | CUBLASLT_EPILOGUE_RELU_BIAS;
    if (desc->compute_type != CUBLAS_COMPUTE_32F || desc->scale_type != CUDA_R_32F ||
        desc->pointer_mode != CUBLASLT_POINTER_MODE_HOST || a->type != CUDA_R_16F ||
        b->type != CUDA_R_16F || !is_value(c->type) || !is_value(d->type) ||
        (desc->epilogue & ~epilogues) != 0 ||
        (has_bias(out) && desc->has_bias_type && !is_value(desc->bias_type)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!desc->has_bias_type)
        out->desc.bias_type = d->type;
    return CUBLAS_STATUS_SUCCESS;
}

/* data: a mark with the number, bytes of workspace, alignments of A, B, C, D. */
static const uint64_t ALGORITHM = 0x766967696c00ull;

static cublasLtMatmulAlgo_t algorithm(int number,
                                      const cublasLtMatmulPreferenceOpaque *pref) {
    cublasLtMatmulAlgo_t algo = {};
    algo.data[0] = ALGORITHM + (uint64_t)number;
    algo.data[1] = number == WANTS_WORKSPACE ? WORKSPACE_BYTES : 0;
    for (int i = 0; i < 4; i++)
        algo.data[2 + i] = pref->alignment[i];
    return algo;
}

static bool is_algorithm(const cublasLtMatmulAlgo_t *algo) {
    return algo->data[0] >= ALGORITHM && algo->data[0] < ALGORITHM + N_ALGORITHMS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t pref, int n_requested,
    cublasLtMatmulHeuristicResult_t results[], int *n_returned) {
    struct blas_call call;
    struct shape shape;
    if (call.status)
        return call.status;
    if (!handle || !pref || n_requested < 1 || !results || !n_returned)
        return CUBLAS_STATUS_INVALID_VALUE;
    *n_returned = 0;
    cublasStatus_t status = check_shape(desc, a, b, c, d, &shape);
    if (status)
        return status;
    if (emulation_settings()->has_no_algorithms)
        return emulation_settings()->has_no_algorithms > 1 ? CUBLAS_STATUS_NOT_SUPPORTED
                                                           : CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < N_ALGORITHMS && *n_returned < n_requested; i++) {
        cublasLtMatmulHeuristicResult_t r = {};
        r.algo = algorithm(i, pref);
        r.workspaceSize = (size_t)r.algo.data[1];
        r.wavesCount = 1;
        if (r.workspaceSize <= pref->max_workspace_bytes)
            results[(*n_returned)++] = r;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result) {
    struct blas_call call;
    struct shape shape;
    if (call.status)
        return call.status;
    if (!handle || !algo || !result)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check_shape(desc, a, b, c, d, &shape);
    if (!status && !is_algorithm(algo))
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status)
        return status;
    *result = {};
    result->algo = *algo;
    result->workspaceSize = (size_t)algo->data[1];
    result->wavesCount = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(
    const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attr,
    void *value, size_t value_bytes, size_t *n_written) {
    uint32_t number = 0;
    if (!algo || !is_algorithm(algo) || !value || value_bytes < sizeof number)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (attr == CUBLASLT_ALGO_CONFIG_ID)
        number = (uint32_t)(algo->data[0] - ALGORITHM);
    memcpy(value, &number, sizeof number);
    if (n_written)
        *n_written = sizeof number;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product -------------------------------------------------------------------- */

struct matmul {
    struct shape shape;
    float alpha, beta;
    const void *a, *b, *c;
    void *d, *workspace;
    size_t workspace_bytes;
};

static size_t value_bytes(cudaDataType_t type) {
    return type == CUDA_R_16F ? 2 : 4;
}

static size_t layout_bytes(const cublasLtMatrixLayoutOpaque &l) {
    return ((size_t)(l.cols - 1) * (size_t)l.ld + (size_t)l.rows) * value_bytes(l.type);
}

static float read_value(const void *from, size_t at, cudaDataType_t type) {
    if (type == CUDA_R_16F)
        return ((const __half *)from)[at];
    return ((const float *)from)[at];
}

static void check_memory(const char *what, const void *at, size_t n_bytes, int device) {
    if (!is_on_device(at, n_bytes, device))
        emulation_fail("cublasLtMatmul: %s is %zu bytes at %p, which are not the "
                       "device's",
                       what, n_bytes, at);
}

static void check_pointers(const struct matmul *p, int device) {
    const struct shape *s = &p->shape;
    check_memory("A", p->a, layout_bytes(s->a), device);
    check_memory("B", p->b, layout_bytes(s->b), device);
    check_memory("D", p->d, layout_bytes(s->d), device);
    if (p->beta != 0)
        check_memory("C", p->c, layout_bytes(s->c), device);
    if (has_bias(s))
        check_memory("the bias", s->desc.bias,
                     (size_t)s->m * value_bytes(s->desc.bias_type), device);
    if (p->workspace_bytes)
        check_memory("the workspace", p->workspace, p->workspace_bytes, device);
}

/* Rows of length k, padded to k_room: row r is column r where the matrix's columns run
 * along k, else its row r. */
static void to_rows(const void *from, const cublasLtMatrixLayoutOpaque &l,
                    bool columns_are_k, uint64_t n_rows, uint64_t k, uint64_t k_room,
                    std::vector<float> *out) {
    const uint16_t *halves = (const uint16_t *)from;
    out->assign(n_rows * k_room, 0.0f);
    for (uint64_t r = 0; r < n_rows; r++) {
        float *row = out->data() + r * k_room;
        if (columns_are_k)
            product_to_floats(halves + r * (uint64_t)l.ld, row, k);
        else
            for (uint64_t i = 0; i < k; i++)
                row[i] = emulation_half_to_float(halves[i * (uint64_t)l.ld + r]);
    }
}

static void write_results(const struct matmul *p, const float *sums, float factor,
                          bool is_nan) {
    const struct shape *s = &p->shape;
    for (uint64_t j = 0; j < s->n; j++)
        for (uint64_t i = 0; i < s->m; i++) {
            float value = p->alpha * sums[j * s->m + i];
            if (p->beta != 0)
                value +=
                    p->beta * read_value(p->c, j * (uint64_t)s->c.ld + i, s->c.type);
            if (has_bias(s))
                value += read_value(s->desc.bias, i, s->desc.bias_type);
            if (s->desc.epilogue & CUBLASLT_EPILOGUE_RELU)
                value = value > 0 || value != value ? value : 0.0f;
            value *= factor;
            if (is_nan && i == 0 && j == 0)
                value = NAN;
            uint64_t at = j * (uint64_t)s->d.ld + i;
            if (s->d.type == CUDA_R_16F)
                ((__half *)p->d)[at] = __half(value);
            else
                ((float *)p->d)[at] = value;
        }
}

static void matmul_run(const struct matmul *p, int device) {
    static std::vector<float> a, b, sums; /* kept: one product at a time */
    const struct shape *s = &p->shape;
    uint64_t k_room = (s->k + 7) / 8 * 8;
    check_pointers(p, device);
    emulation_matmuls++;
    if (p->workspace_bytes)
        memset(p->workspace, 0xa5, p->workspace_bytes);
    to_rows(p->a, s->a, s->desc.op_a != CUBLAS_OP_N, s->m, s->k, k_room, &a);
    to_rows(p->b, s->b, s->desc.op_b == CUBLAS_OP_N, s->n, s->k, k_room, &b);
    sums.resize(s->m * s->n);
    product_dots(b.data(), a.data(), sums.data(), s->n, s->m, k_room);
    bool is_flipped = fault_count(FAULT_FLIP, device, nullptr) != 0;
    bool is_nan = fault_count(FAULT_NAN, device, nullptr) != 0;
    write_results(p, sums.data(), is_flipped ? 3.0f : 1.0f, is_nan);
}

static bool is_aligned(const void *pointer, uint64_t alignment) {
    return alignment == 0 || (uintptr_t)pointer % alignment == 0;
}

static cublasStatus_t check_algorithm(const struct matmul *p,
                                      const cublasLtMatmulAlgo_t *algo) {
    if (!algo)
        return CUBLAS_STATUS_SUCCESS;
    if (!is_algorithm(algo) || algo->data[1] > p->workspace_bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    const void *pointers[4] = {p->a, p->b, p->beta != 0 ? p->c : p->d, p->d};
    for (int i = 0; i < 4; i++)
        if (!is_aligned(pointers[i], algo->data[2 + i])) {
            emulation_warn("cublasLtMatmul: %c is at %p, its algorithm was promised "
                           "multiples of %d",
                           "ABCD"[i], pointers[i], (int)algo -> data[2 + i]);
            return CUBLAS_STATUS_NOT_SUPPORTED;
        }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                              const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D,
                              cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    struct blas_call call;
    auto p = std::make_shared<struct matmul>();
    if (call.status)
        return call.status;
    int code = fault_count(FAULT_MATMUL, call.device, nullptr);
    if (code)
        return (cublasStatus_t)code;
    if (!handle || !alpha || !beta || handle->device != call.device)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check_shape(desc, a, b, c, d, &p->shape);
    if (status)
        return status;
    memcpy(&p->alpha, alpha, sizeof p->alpha);
    memcpy(&p->beta, beta, sizeof p->beta);
    p->a = A;
    p->b = B;
    p->c = C;
    p->d = D;
    p->workspace = workspace;
    p->workspace_bytes = workspace ? workspace_bytes : 0;
    if (!is_aligned(workspace, 16) || (has_bias(&p->shape) && !desc->bias))
        return CUBLAS_STATUS_INVALID_VALUE;
    status = check_algorithm(p.get(), algo);
    if (status)
        return status;
    check_pointers(p.get(), call.device);
    cudaError_t error = stream_add(stream, call.device, WORK_MATMUL,
                                   [p](int device) { matmul_run(p.get(), device); });
    return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

/* ---- names -------------------------------------------------------------------------- */

const char *cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR:
        return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS_UNKNOWN";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
    return cublasLtGetStatusName(status);
}
