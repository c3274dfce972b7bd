/* SPDX-License-Identifier: Apache-2.0
 *
 * test_emulation_host.cc - the emulation's other side: memory, streams, graphs, cublasLt,
 * and faults on order.
 */
#include "kernels/cuda/device.cuh"

#include "tests/cuda/emulation/cublasLt.h"
#include "tests/cuda/emulation/emulation.h"
#include "tests/cuda/emulation/harness.h"

#define OK(call) CHECK_IS(cudaSuccess, call)

static __global__ void add_one(int *p) {
    *p += 1;
}

static cudaError_t launch_add(int *p, cudaStream_t stream = nullptr) {
    struct cuda_launch launch = {};
    launch.stream = stream;
    return launch_kernel(&launch, add_one, 1, 1, 0, p);
}

static int *device_int(int value) {
    int *p = nullptr;
    OK(cudaMalloc(&p, sizeof *p));
    OK(cudaMemcpy(p, &value, sizeof value, cudaMemcpyHostToDevice));
    return p;
}

static cudaStream_t new_stream() {
    cudaStream_t stream = nullptr;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

/* ---- devices, memory ---------------------------------------------------------------- */

static void no_device() {
    int n = 1;
    setenv("VIGIL_EMULATION_DEVICES", "0", 1);
    CHECK_IS(cudaErrorNoDevice, cudaGetDeviceCount(&n));
    CHECK_IS(0, n);
    void *p;
    CHECK_IS(cudaErrorNoDevice, cudaMalloc(&p, 8));
    CHECK_IS(cudaErrorNoDevice, cudaGetLastError());
    cublasLtHandle_t blas;
    CHECK_IS(CUBLAS_STATUS_NOT_INITIALIZED, cublasLtCreate(&blas));
}

static void two_devices() {
    int n = 0, *there = nullptr, value = 7;
    setenv("VIGIL_EMULATION_DEVICES", "2", 1);
    setenv("VIGIL_EMULATION_CAPABILITY", "75", 1);
    OK(cudaGetDeviceCount(&n));
    CHECK_IS(2, n);
    struct cudaDeviceProp properties;
    OK(cudaGetDeviceProperties(&properties, 1));
    CHECK_IS(7, properties.major);
    CHECK_IS(65536, properties.sharedMemPerBlockOptin);
    CHECK(strcmp(properties.name, "Emulated sm_75") == 0);
    OK(cudaSetDevice(1));
    there = device_int(1);
    OK(cudaSetDevice(0));
    CHECK_IS(cudaErrorInvalidValue,
             cudaMemcpy(there, &value, sizeof value, cudaMemcpyHostToDevice));
    cudaStream_t stream = new_stream();
    OK(cudaSetDevice(1));
    CHECK_IS(cudaErrorInvalidResourceHandle, launch_add(there, stream));
    CHECK_IS(cudaErrorInvalidDevice, cudaSetDevice(2));
    OK(emulation_fault("launch@1:1:719:sticky"));
    OK(cudaSetDevice(0));
    OK(launch_add(device_int(0)));
    OK(cudaDeviceSynchronize());
    OK(cudaSetDevice(1));
    OK(launch_add(there));
    CHECK_IS(cudaErrorLaunchFailure, cudaDeviceSynchronize());
    OK(cudaSetDevice(0));
    OK(cudaDeviceSynchronize());
}

static void copies_are_checked() {
    char host[32], *p = nullptr;
    OK(cudaMalloc(&p, 20));
    OK(cudaMemcpy(p, host, 20, cudaMemcpyHostToDevice));
    CHECK_IS(cudaErrorInvalidValue, cudaMemcpy(p, host, 21, cudaMemcpyHostToDevice));
    CHECK_IS(cudaErrorInvalidValue, cudaMemcpy(p + 8, host, 13, cudaMemcpyDefault));
    CHECK_IS(cudaErrorInvalidValue, cudaMemcpy(host, p, 20, cudaMemcpyHostToDevice));
    CHECK_IS(cudaErrorInvalidValue, cudaMemcpy(p, host, 20, cudaMemcpyDeviceToHost));
    CHECK_IS(cudaErrorInvalidValue, cudaMemset(p, 0, 21));
    CHECK_IS(cudaErrorInvalidValue, cudaGetLastError());
    OK(cudaGetLastError());
}

static void memory_is_counted() {
    char *p = nullptr, *pinned = nullptr;
    size_t free_bytes, total_bytes;
    setenv("VIGIL_EMULATION_MEMORY", "1000000", 1);
    CHECK_IS(cudaErrorMemoryAllocation, cudaMalloc(&p, 1000001));
    CHECK(!p);
    OK(cudaMalloc(&p, 600000));
    OK(cudaMemGetInfo(&free_bytes, &total_bytes));
    CHECK_IS(400000, free_bytes);
    CHECK_IS(1000000, total_bytes);
    OK(cudaHostAlloc((void **)&pinned, 500, cudaHostAllocDefault));
    CHECK_IS(2, emulation_n_allocations());
    CHECK_IS(600500, emulation_bytes_allocated());
    CHECK(!emulation_is_clean());
    CHECK_IS(cudaErrorInvalidValue, cudaFree(pinned));
    CHECK_IS(cudaErrorInvalidValue, cudaFree(p + 1));
    CHECK_IS(cudaErrorInvalidValue, cudaFreeHost(p));
    OK(cudaFree(p));
    CHECK_IS(cudaErrorInvalidValue, cudaFree(p));
    OK(cudaFreeHost(pinned));
    OK(cudaFree(nullptr));
    cudaStream_t stream = new_stream();
    CHECK_IS(1, emulation_n_handles());
    OK(cudaStreamDestroy(stream));
    CHECK(emulation_is_clean());
}

static void the_host_reads_device_memory() {
    setenv("VIGIL_EMULATION_PROTECT", "1", 1);
    int *p = device_int(3), value = 0;
    OK(launch_add(p));
    OK(cudaMemcpy(&value, p, sizeof value, cudaMemcpyDeviceToHost));
    CHECK_IS(4, value);
    if (!has_asan) {
        fprintf(stderr, "AddressSanitizer finds it\n");
        abort();
    }
    CHECK_IS(4, *(volatile int *)p);
}

static cudaError_t launch_with(dim3 grid, dim3 block, size_t shared_bytes) {
    static int *p = device_int(0);
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    return cudaLaunchKernelEx(&config, add_one, p);
}

static void launches_have_limits() {
    OK(launch_with(1, 1024, 48 << 10));
    CHECK_IS(cudaErrorInvalidConfiguration, launch_with(1, 1025, 0));
    CHECK_IS(cudaErrorInvalidConfiguration, launch_with(1, dim3(32, 33), 0));
    CHECK_IS(cudaErrorInvalidConfiguration, launch_with(0, 32, 0));
    CHECK_IS(cudaErrorInvalidConfiguration, launch_with(dim3(1, 65536), 32, 0));
    CHECK_IS(cudaErrorInvalidValue, launch_with(1, 32, (48 << 10) + 1));
    const cudaFuncAttribute shared = cudaFuncAttributeMaxDynamicSharedMemorySize;
    CHECK_IS(cudaErrorInvalidValue, cudaFuncSetAttribute(add_one, shared, 166913));
    OK(cudaFuncSetAttribute(add_one, shared, 100 << 10));
    OK(launch_with(1, 32, 100 << 10));
    CHECK_IS(cudaErrorInvalidValue, launch_with(1, 32, (100 << 10) + 1));
}

/* ---- streams, events ---------------------------------------------------------------- */

static void lazy_streams_wait_to_be_waited_for() {
    cudaStream_t one = new_stream(), two = new_stream();
    cudaEvent_t event;
    int *p = device_int(0), seen = -1;
    emulation_set_lazy(1);
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    OK(launch_add(p, one));
    OK(cudaEventRecord(event, one));
    OK(launch_add(p, one));
    /* Nobody told stream two to wait: it sees what was. */
    OK(cudaMemcpyAsync(&seen, p, sizeof seen, cudaMemcpyDeviceToHost, two));
    CHECK_IS(-1, seen);
    OK(cudaStreamSynchronize(two));
    CHECK_IS(0, seen);
    OK(cudaStreamWaitEvent(two, event));
    OK(cudaMemcpyAsync(&seen, p, sizeof seen, cudaMemcpyDeviceToHost, two));
    OK(cudaStreamSynchronize(two));
    CHECK_IS(1, seen);
    OK(cudaEventRecord(event, one));
    CHECK_IS(cudaErrorNotReady, cudaEventQuery(event));
    OK(cudaEventQuery(event));
    CHECK_IS(2, *p);
    OK(cudaGetLastError()); /* not ready is no error that stays */
}

static void lazy_copies_read_late() {
    cudaStream_t stream = new_stream();
    int *p = device_int(0), value = 1;
    emulation_set_lazy(1);
    OK(cudaMemcpyAsync(p, &value, sizeof value, cudaMemcpyHostToDevice, stream));
    value = 2;
    OK(cudaStreamSynchronize(stream));
    CHECK_IS(2, *p);
}

static void a_copy_to_memory_freed_meanwhile() {
    static int value;
    cudaStream_t stream = new_stream();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    int *p = device_int(0);
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    OK(cudaMemcpyAsync(p, &value, sizeof value, cudaMemcpyHostToDevice, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaFree(p));
    cudaGraphLaunch(exec, stream);
}

static void events_have_times() {
    cudaEvent_t start, end, untimed;
    float ms = -1;
    OK(cudaEventCreate(&start));
    OK(cudaEventCreate(&end));
    OK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    OK(cudaEventQuery(start));
    CHECK_IS(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, end));
    OK(cudaEventRecord(start));
    OK(launch_add(device_int(0)));
    OK(cudaEventRecord(end));
    OK(cudaEventRecord(untimed));
    OK(cudaEventSynchronize(end));
    OK(cudaEventElapsedTime(&ms, start, end));
    CHECK(ms > 0 && ms < 1000);
    CHECK_IS(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, untimed));
}

static void threads_share_the_device() {
    int *p = device_int(0);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([p] {
            cudaStream_t stream = new_stream();
            for (int i = 0; i < 500; i++)
                OK(launch_add(p, stream));
            OK(cudaStreamSynchronize(stream));
            OK(cudaStreamDestroy(stream));
        });
    for (std::thread &t : threads)
        t.join();
    CHECK_IS(2000, *p);
    CHECK_IS(2000, emulation_n_launches());
}

/* ---- graphs ------------------------------------------------------------------------- */

static void graphs_replay() {
    cudaStream_t stream = new_stream();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    enum cudaStreamCaptureStatus status;
    size_t n_nodes;
    int *p = device_int(0), in = 10, out = -1;
    for (int round = 0; round < 2; round++) {
        emulation_set_lazy(round);
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        OK(cudaMemcpyAsync(p, &in, sizeof in, cudaMemcpyHostToDevice, stream));
        OK(launch_add(p, stream));
        OK(cudaMemcpyAsync(&out, p, sizeof out, cudaMemcpyDeviceToHost, stream));
        OK(cudaStreamIsCapturing(stream, &status));
        CHECK_IS(cudaStreamCaptureStatusActive, status);
        OK(cudaStreamEndCapture(stream, &graph));
        OK(cudaGraphGetNodes(graph, nullptr, &n_nodes));
        CHECK_IS(3, n_nodes);
        OK(cudaGraphInstantiateWithFlags(&exec, graph, 0));
        OK(cudaGraphDestroy(graph));
        OK(cudaGraphUpload(exec, stream));
        CHECK_IS(-1, out); /* nothing has run */
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaStreamSynchronize(stream));
        CHECK_IS(11, out);
        in = 20;
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaStreamSynchronize(stream));
        CHECK_IS(21, out);
        OK(cudaGraphExecDestroy(exec));
        in = 10, out = -1;
    }
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(p));
    CHECK(emulation_is_clean());
}

static void captures_forbid() {
    cudaStream_t stream = new_stream();
    cudaGraph_t graph;
    int *p = device_int(0), *q = nullptr;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CHECK_IS(cudaErrorStreamCaptureUnsupported, cudaMalloc(&q, 8));
    CHECK_IS(cudaErrorStreamCaptureInvalidated, launch_add(p, stream));
    CHECK_IS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));
    CHECK(!graph);
    OK(cudaMalloc(&q, 8));
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    std::thread([] {
        int *r = nullptr;
        OK(cudaMalloc(&r, 8)); /* this mode binds its own thread alone */
    }).join();
    OK(launch_add(p, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    CHECK_IS(0, *p);
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    CHECK_IS(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(stream));
    CHECK_IS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));
    OK(launch_add(p, stream));
    CHECK_IS(1, *p);
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    OK(emulation_fault("call:1:999"));
    CHECK_IS(cudaErrorUnknown, cudaStreamEndCapture(stream, &graph));
    OK(cudaMalloc(&q, 8)); /* that capture is over */
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    OK(cudaStreamDestroy(stream));
    OK(cudaMalloc(&q, 8));
}

static void captures_fork_and_join() {
    cudaStream_t stream = new_stream(), side = new_stream();
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    int *p = device_int(0);
    OK(cudaEventCreate(&fork));
    OK(cudaEventCreate(&join));
    for (int joins = 1; joins >= 0; joins--) {
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        OK(launch_add(p, stream));
        OK(cudaEventRecord(fork, stream));
        OK(cudaStreamWaitEvent(side, fork));
        OK(launch_add(p, side));
        OK(cudaEventRecord(join, side));
        if (joins)
            OK(cudaStreamWaitEvent(stream, join));
        CHECK_IS(joins ? cudaSuccess : cudaErrorStreamCaptureUnjoined,
                 cudaStreamEndCapture(stream, &graph));
        if (!joins)
            break;
        OK(cudaGraphInstantiate(&exec, graph, 0));
        OK(cudaGraphLaunch(exec, side));
        CHECK_IS(2, *p);
    }
    CHECK_IS(cudaErrorCapturedEvent, cudaEventQuery(fork));
}

/* ---- faults ------------------------------------------------------------------------- */

static void calls_fail_on_order() {
    int *p = device_int(0), value = 0;
    CHECK_IS(-1, emulation_fault("launch"));
    CHECK_IS(-1, emulation_fault("lunch:1:2"));
    CHECK_IS(-1, emulation_fault("hang:0"));
    CHECK_IS(-1, emulation_fault("malloc:1:2:stuck"));
    OK(emulation_fault("malloc:2:2,memcpy:1:1,sync:2:999,event:1:400"));
    int *q;
    cudaEvent_t event;
    OK(cudaMalloc(&q, 8));
    CHECK_IS(cudaErrorMemoryAllocation, cudaMalloc(&q, 8));
    OK(cudaMalloc(&q, 8));
    CHECK_IS(cudaErrorInvalidValue,
             cudaMemcpy(&value, p, sizeof value, cudaMemcpyDeviceToHost));
    OK(cudaMemcpy(&value, p, sizeof value, cudaMemcpyDeviceToHost));
    OK(cudaDeviceSynchronize());
    CHECK_IS(cudaErrorUnknown, cudaDeviceSynchronize());
    OK(cudaEventCreate(&event));
    CHECK_IS(cudaErrorInvalidResourceHandle, cudaEventRecord(event));
    OK(cudaEventRecord(event));
    OK(emulation_fault(nullptr));
    OK(emulation_fault("call:3:2"));
    OK(cudaMalloc(&q, 8));
    OK(cudaDeviceSynchronize());
    CHECK_IS(cudaErrorMemoryAllocation, launch_add(p));
}

static void launches_fail_later() {
    int *p = device_int(0);
    OK(emulation_fault("launch:2:700"));
    OK(launch_add(p));
    OK(launch_add(p)); /* fails, and says so at the next synchronisation */
    OK(launch_add(p)); /* is not run either */
    CHECK_IS(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    CHECK_IS(1, *p);
    OK(launch_add(p));
    OK(cudaDeviceSynchronize());
    CHECK_IS(2, *p);
}

static void sticky_errors_stay() {
    int *p = device_int(0), value;
    cudaStream_t stream = new_stream();
    OK(emulation_fault("launch:1:700:sticky"));
    OK(launch_add(p, stream));
    CHECK_IS(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
    CHECK_IS(cudaErrorIllegalAddress, cudaGetLastError());
    CHECK_IS(cudaErrorIllegalAddress, cudaGetLastError());
    CHECK_IS(cudaErrorIllegalAddress, launch_add(p, stream));
    CHECK_IS(cudaErrorIllegalAddress,
             cudaMemcpy(&value, p, sizeof value, cudaMemcpyDeviceToHost));
    CHECK_IS(cudaErrorIllegalAddress, cudaFree(p));
    CHECK_IS(cudaErrorIllegalAddress, cudaStreamDestroy(stream));
    CHECK(emulation_is_clean()); /* freed all the same */
    emulation_reset();
    p = device_int(0);
    OK(launch_add(p));
    CHECK_IS(1, *p);
}

static void devices_hang() {
    cudaEvent_t event;
    OK(cudaEventCreate(&event));
    OK(cudaEventRecord(event));
    OK(emulation_fault("hang:3"));
    OK(cudaEventQuery(event));
    OK(cudaEventQuery(event));
    for (int i = 0; i < 5; i++)
        CHECK_IS(cudaErrorNotReady, cudaEventQuery(event));
}

static void faults_come_by_file() {
    char path[] = "/tmp/vigil-emulation-XXXXXX";
    int fd = mkstemp(path), *p;
    CHECK(fd >= 0);
    unlink(path);
    setenv("VIGIL_EMULATION_FAULT_FILE", path, 1);
    setenv("VIGIL_EMULATION_FAULT", "launch:2:719", 1);
    p = device_int(0);
    OK(launch_add(p));
    OK(launch_add(p));
    CHECK_IS(cudaErrorLaunchFailure, cudaDeviceSynchronize());
    FILE *file = fopen(path, "w");
    CHECK(file && fputs("launch:1:700:sticky\n", file) >= 0);
    fclose(file);
    usleep(30000);
    OK(launch_add(p));
    CHECK_IS(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    unlink(path);
}

/* ---- cublasLt ----------------------------------------------------------------------- */

static uint32_t random_state = 1;

static float random_float() {
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) * 0x1p-23f - 1.0f;
}

static __half *random_halves(size_t n) {
    __half *p = nullptr;
    OK(cudaMalloc(&p, n * sizeof *p));
    for (size_t i = 0; i < n; i++)
        p[i] = __half(random_float());
    return p;
}

/* D[m,n] = epilogue(alpha op(A) op(B) + beta C). */
struct product {
    cublasOperation_t op_a, op_b;
    int m, n, k;
    cublasLtEpilogue_t epilogue;
    float alpha, beta;
    __half *a, *b, *c, *d, *bias;
    int lda, ldb, ldd;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t layout_a, layout_b, layout_d;
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulHeuristicResult_t algos[8];
    int n_algos;
    void *workspace;
};

enum { WORKSPACE_BYTES = 2 << 20 };

static void product_open(struct product *p) {
    bool is_ta = p->op_a == CUBLAS_OP_T, is_tb = p->op_b == CUBLAS_OP_T;
    int a_cols = is_ta ? p->m : p->k, b_cols = is_tb ? p->k : p->n;
    p->lda = (is_ta ? p->k : p->m) + 3;
    p->ldb = (is_tb ? p->n : p->k) + 5;
    p->ldd = p->m + 2;
    p->a = random_halves((size_t)(p->lda * a_cols - 3)); /* exactly to the last value */
    p->b = random_halves((size_t)(p->ldb * b_cols - 5));
    p->c = random_halves((size_t)(p->ldd * p->n - 2));
    p->d = random_halves((size_t)(p->ldd * p->n - 2));
    p->bias = random_halves((size_t)p->m);
    const uint64_t workspace_bytes = WORKSPACE_BYTES;
    OK(cudaMalloc(&p->workspace, workspace_bytes));
    OK(cublasLtCreate(&p->handle));
    OK(cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    OK(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &p->op_a,
                                      sizeof p->op_a));
    OK(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &p->op_b,
                                      sizeof p->op_b));
    OK(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                      &p->epilogue, sizeof p->epilogue));
    OK(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                      &p->bias, sizeof p->bias));
    OK(cublasLtMatrixLayoutCreate(&p->layout_a, CUDA_R_16F,
                                  (uint64_t)(is_ta ? p->k : p->m), (uint64_t)a_cols,
                                  p->lda));
    OK(cublasLtMatrixLayoutCreate(&p->layout_b, CUDA_R_16F,
                                  (uint64_t)(is_tb ? p->n : p->k), (uint64_t)b_cols,
                                  p->ldb));
    OK(cublasLtMatrixLayoutCreate(&p->layout_d, CUDA_R_16F, (uint64_t)p->m,
                                  (uint64_t)p->n, p->ldd));
    OK(cublasLtMatmulPreferenceCreate(&p->pref));
    OK(cublasLtMatmulPreferenceSetAttribute(p->pref,
                                            CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &workspace_bytes, sizeof workspace_bytes));
    OK(cublasLtMatmulAlgoGetHeuristic(p->handle, p->desc, p->layout_a, p->layout_b,
                                      p->layout_d, p->layout_d, p->pref, 8, p->algos,
                                      &p->n_algos));
}

static void product_close(struct product *p) {
    cudaFree(p->a);
    cudaFree(p->b);
    cudaFree(p->c);
    cudaFree(p->d);
    cudaFree(p->bias);
    cudaFree(p->workspace);
    cublasLtMatmulPreferenceDestroy(p->pref);
    cublasLtMatrixLayoutDestroy(p->layout_d);
    cublasLtMatrixLayoutDestroy(p->layout_b);
    cublasLtMatrixLayoutDestroy(p->layout_a);
    cublasLtMatmulDescDestroy(p->desc);
    cublasLtDestroy(p->handle);
    CHECK(emulation_is_clean());
}

static cublasStatus_t product_run(const struct product *p, int algo,
                                  cudaStream_t stream = nullptr) {
    return cublasLtMatmul(p->handle, p->desc, &p->alpha, p->a, p->layout_a, p->b,
                          p->layout_b, &p->beta, p->c, p->layout_d, p->d, p->layout_d,
                          &p->algos[algo].algo, p->workspace, WORKSPACE_BYTES, stream);
}

static void product_check(const struct product *p, float factor) {
    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            double sum = 0;
            for (int k = 0; k < p->k; k++)
                sum +=
                    (double)(float)
                        p->a[p->op_a == CUBLAS_OP_T ? i * p->lda + k : k * p->lda + i] *
                    (double)(float)
                        p->b[p->op_b == CUBLAS_OP_T ? k * p->ldb + j : j * p->ldb + k];
            sum = (double)p->alpha * sum +
                  (double)p->beta * (double)(float)p->c[j * p->ldd + i];
            if (p->epilogue & CUBLASLT_EPILOGUE_BIAS)
                sum += (double)(float)p->bias[i];
            if (p->epilogue & CUBLASLT_EPILOGUE_RELU && sum < 0)
                sum = 0;
            sum *= (double)factor;
            double is = (double)(float)p->d[j * p->ldd + i];
            CHECK(fabs(is - sum) <= 1e-5 + fabs(sum) * 0x1p-11 * 1.01);
        }
}

static void products_are_right() {
    const cublasLtEpilogue_t epilogues[] = {
        CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU,
        CUBLASLT_EPILOGUE_RELU_BIAS};
    for (int ops = 0; ops < 4; ops++)
        for (int e = 0; e < 4; e++) {
            struct product p = {};
            p.op_a = ops & 1 ? CUBLAS_OP_T : CUBLAS_OP_N;
            p.op_b = ops & 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
            p.m = 13 + e, p.n = 9, p.k = 33 + ops;
            p.epilogue = epilogues[e];
            p.alpha = 0.5f;
            p.beta = e & 1 ? 0.25f : 0;
            product_open(&p);
            CHECK_IS(3, p.n_algos);
            for (int algo = 0; algo < p.n_algos; algo++) {
                cudaMemset(p.d, 0xff, (size_t)(p.ldd * p.n - 2) * sizeof *p.d);
                CHECK_IS(CUBLAS_STATUS_SUCCESS, product_run(&p, algo));
                product_check(&p, 1);
            }
            product_close(&p);
        }
}

static struct product small_product() {
    struct product p = {};
    p.op_a = CUBLAS_OP_T;
    p.m = 8, p.n = 8, p.k = 64;
    p.epilogue = CUBLASLT_EPILOGUE_BIAS;
    p.alpha = 1;
    product_open(&p);
    return p;
}

static void products_are_captured() {
    struct product p = small_product();
    cudaStream_t stream = new_stream();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CHECK_IS(CUBLAS_STATUS_SUCCESS, product_run(&p, 0, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    CHECK_IS(0, emulation_n_matmuls());
    OK(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 2; i++) {
        p.a[5] = __half((float)i);
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaStreamSynchronize(stream));
        product_check(&p, 1);
    }
    CHECK_IS(2, emulation_n_matmuls());
}

static void products_go_wrong_on_order() {
    struct product p = small_product();
    OK(emulation_fault("matmul:2:13,nan:3,flip:2"));
    CHECK_IS(CUBLAS_STATUS_SUCCESS, product_run(&p, 0));
    product_check(&p, 1);
    CHECK_IS(CUBLAS_STATUS_EXECUTION_FAILED, product_run(&p, 0));
    CHECK_IS(CUBLAS_STATUS_SUCCESS, product_run(&p, 0));
    product_check(&p, 3);
    CHECK_IS(CUBLAS_STATUS_SUCCESS, product_run(&p, 0));
    float first = p.d[0];
    CHECK(first != first);
    OK(emulation_fault(nullptr));
    OK(emulation_fault("launch:1:700:sticky"));
    CHECK_IS(CUBLAS_STATUS_SUCCESS, product_run(&p, 0));
    CHECK_IS(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    CHECK_IS(CUBLAS_STATUS_EXECUTION_FAILED, product_run(&p, 0));
}

static void promises_of_alignment_count() {
    struct product p = small_product();
    __half *b = p.b;
    p.n--; /* the view begins a row later */
    OK(cublasLtMatrixLayoutDestroy(p.layout_b));
    OK(cublasLtMatrixLayoutCreate(&p.layout_b, CUDA_R_16F, (uint64_t)p.k, 7, p.ldb));
    OK(cublasLtMatrixLayoutDestroy(p.layout_d));
    OK(cublasLtMatrixLayoutCreate(&p.layout_d, CUDA_R_16F, (uint64_t)p.m, 7, p.ldd));
    p.b = b + 1;
    CHECK_IS(CUBLAS_STATUS_NOT_SUPPORTED, product_run(&p, 0));
    const uint32_t alignment = 2;
    OK(cublasLtMatmulPreferenceSetAttribute(p.pref,
                                            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                            &alignment, sizeof alignment));
    OK(cublasLtMatmulAlgoGetHeuristic(p.handle, p.desc, p.layout_a, p.layout_b,
                                      p.layout_d, p.layout_d, p.pref, 1, p.algos,
                                      &p.n_algos));
    CHECK_IS(CUBLAS_STATUS_SUCCESS, product_run(&p, 0));
}

static void no_algorithms() {
    setenv("VIGIL_EMULATION_NO_ALGORITHMS", "1", 1);
    struct product p = small_product();
    CHECK_IS(0, p.n_algos);
}

static void a_product_past_its_matrix() {
    struct product p = small_product();
    OK(cudaFree(p.bias));
    product_run(&p, 0);
}

/* ---- */

static const struct test tests[] = {
    TEST(no_device),
    TEST(two_devices),
    TEST(copies_are_checked),
    TEST(memory_is_counted),
    DIES(the_host_reads_device_memory, "AddressSanitizer"),
    TEST(launches_have_limits),
    TEST(lazy_streams_wait_to_be_waited_for),
    TEST(lazy_copies_read_late),
    DIES(a_copy_to_memory_freed_meanwhile, "comes to run, but by now"),
    TEST(events_have_times),
    TEST(threads_share_the_device),
    TEST(graphs_replay),
    TEST(captures_forbid),
    TEST(captures_fork_and_join),
    TEST(calls_fail_on_order),
    TEST(launches_fail_later),
    TEST(sticky_errors_stay),
    TEST(devices_hang),
    TEST(faults_come_by_file),
    TEST(products_are_right),
    TEST(products_are_captured),
    TEST(products_go_wrong_on_order),
    TEST(promises_of_alignment_count),
    TEST(no_algorithms),
    DIES(a_product_past_its_matrix, "the bias is 16 bytes at"),
};

int main(int argc, char **argv) {
    return harness_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
