/* SPDX-License-Identifier: Apache-2.0
 *
 * device.h - what the tests of the kernels share: memory of a case, matrices of halves, a
 * launch repeated in every order of threads, and values held against fp64.
 *
 * Blocks have exactly the size that a kernel may touch, so that the emulation's red zones
 * end where the contract does; outputs are filled with a NaN before each launch. A case
 * frees nothing: blocks_free, first thing in every check, takes what was left.
 */
#ifndef VIGIL_TESTS_CUDA_DEVICE_H
#define VIGIL_TESTS_CUDA_DEVICE_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>

#include "base/half.h"
#include "kernels/cuda/kernels.h"
#include "tests/cuda/check.h"
#include "tests/unit/random_model.h"
#ifdef VIGIL_CUDA_EMULATION
#include "tests/cuda/emulation/emulation.h"
#endif

/* Threads in their order, from the last to the first, shuffled; on a GPU three runs. */
enum { N_RUNS = 3, MAX_BLOCKS = 256, POISON = 0xFF };
#define POISON_F16 0xFFFFu /* a NaN */

#ifdef VIGIL_CUDA_EMULATION
static const bool is_emulated = true;
#else
static const bool is_emulated = false;
#endif

#define HALF_ULP 0x1p-11       /* relative error of rounding to fp16 */
#define HALF_UNDERFLOW 0x1p-25 /* absolute, below the normal numbers */
#define SINGLE_ULP 0x1p-23     /* relative, an fp32 operation that may truncate */

#define CUDA(call) cuda_must((call), #call)
static inline void cuda_must(cudaError_t e, const char *what) {
    if (e != cudaSuccess)
        check_stop("%s: %s", what, cudaGetErrorString(e));
}

/* ---- memory ----------------------------------------------------------------------- */

static struct { void *host, *device; } blocks[MAX_BLOCKS];
static int n_blocks;

static inline void blocks_free(void) {
    while (n_blocks > 0) {
        n_blocks--;
        free(blocks[n_blocks].host);
        cudaFree(blocks[n_blocks].device);
    }
}

static inline void *host_make(size_t n_bytes) {
    void *p = n_blocks < MAX_BLOCKS ? malloc(n_bytes ? n_bytes : 1) : NULL;
    if (!p)
        check_stop("no memory for %zu bytes", n_bytes);
    blocks[n_blocks].device = NULL;
    blocks[n_blocks++].host = p;
    return p;
}

static inline void *device_make(size_t n_bytes) {
    void *p = NULL;
    if (n_blocks == MAX_BLOCKS)
        check_stop("over %d blocks", MAX_BLOCKS);
    CUDA(cudaMalloc(&p, n_bytes));
    blocks[n_blocks].host = NULL;
    blocks[n_blocks++].device = p;
    CUDA(cudaMemset(p, POISON, n_bytes));
    return p;
}

static inline void *device_copy(const void *host, size_t n_bytes) {
    void *p = device_make(n_bytes);
    CUDA(cudaMemcpy(p, host, n_bytes, cudaMemcpyHostToDevice));
    return p;
}

/* ---- inputs ----------------------------------------------------------------------- */

/* [n_rows, stride] halves, here as bits and as the numbers that they are, and there. Between
 * n_cols and the stride lie NaNs. */
struct matrix {
    int32_t n_rows, n_cols, stride;
    f16 *bits, *device;
    float *values;
};

static inline double half_value(f16 bits) {
    if ((bits & 0x7C00) == 0x7C00)
        return bits & 0x3FF ? (double)NAN : (double)(bits >> 15 ? -INFINITY : INFINITY);
    return (double)half_to_float(bits);
}

static inline struct matrix matrix_make(int32_t n_rows, int32_t n_cols,
                                        int32_t stride) {
    size_t n = (size_t)n_rows * (size_t)stride;
    struct matrix m = {n_rows, n_cols,
                       stride, host_make(n * sizeof(f16)),
                       NULL,   host_make(n * sizeof(float))};
    memset(m.bits, POISON, n * sizeof(f16));
    for (size_t i = 0; i < n; i++)
        m.values[i] = NAN;
    return m;
}

static inline void matrix_set(struct matrix *m, int32_t row, int32_t col, float value) {
    size_t at = (size_t)row * (size_t)m->stride + (size_t)col;
    m->bits[at] = half_from_float(value);
    m->values[at] = (float)half_value(m->bits[at]);
}

static inline void matrix_send(struct matrix *m) {
    m->device =
        device_copy(m->bits, (size_t)m->n_rows * (size_t)m->stride * sizeof(f16));
}

static inline const float *matrix_row(const struct matrix *m, int32_t row) {
    return m->values + (size_t)row * (size_t)m->stride;
}

/* About normal; whole: rounded to whole numbers. Not sent yet. */
static inline struct matrix matrix_random(int32_t n_rows, int32_t n_cols,
                                          int32_t stride, float mean, float deviation,
                                          bool is_whole) {
    struct matrix m = matrix_make(n_rows, n_cols, stride);
    for (int32_t r = 0; r < n_rows; r++)
        for (int32_t c = 0; c < n_cols; c++) {
            float value = mean + random_normal(deviation);
            matrix_set(&m, r, c, is_whole ? rintf(value) : value);
        }
    return m;
}

/* ---- launches --------------------------------------------------------------------- */

static cudaStream_t stream;
static int32_t capability, architecture; /* of the device, of the code: 80 is sm_80 */

/* Skips the case where there is no device, or none with the path's instructions. */
static inline struct cuda_launch launch_on(enum cuda_path path) {
    static bool is_prepared[2];
    if (!stream) {
        struct cudaDeviceProp device;
        int n_devices = 0;
        cudaError_t code = cudaGetDeviceCount(&n_devices);
        if (code != cudaSuccess || n_devices < 1)
            check_skip("no device: %s", cudaGetErrorString(code));
        CUDA(cudaSetDevice(0));
        CUDA(cudaGetDeviceProperties(&device, 0));
        capability = 10 * device.major + device.minor;
        CUDA(cuda_kernels_compiled_for(&architecture));
        CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        printf("  device %s, sm_%d, code for sm_%d\n", device.name, capability,
               architecture);
    }
    if (path == CUDA_PATH_MMA && capability < 80)
        check_skip("mma needs sm_80, this device is sm_%d", capability);
    if (!is_prepared[path])
        CUDA(cuda_kernels_prepare(path));
    is_prepared[path] = true;
    return (struct cuda_launch){.stream = stream, .path = path};
}

static inline const char *path_name(enum cuda_path path) {
    return path == CUDA_PATH_MMA ? "mma" : "wmma";
}

/* What a launch needs and where it writes. */
struct job {
    cudaError_t (*start)(const struct cuda_launch *launch, const void *arguments);
    const void *arguments;
    void *out; /* on the device */
    size_t n_bytes;
    const void *before; /* what out holds at the start; NULL: NaNs */
    const char *what;
};

/* Launches once for each order of threads; the bits must be the same every time. Returns
 * what the first left in out, on the host. */
static inline void *job_run(struct cuda_launch launch, const struct job *job) {
    void *first = host_make(job->n_bytes), *again = host_make(job->n_bytes);
    for (int run = 0; run < N_RUNS; run++) {
        void *to = run ? again : first;
#ifdef VIGIL_CUDA_EMULATION
        emulation_set_order((enum emulation_order)run, 77u + (unsigned)run);
#endif
        launch.overlaps = run == 1 && architecture >= 90;
        if (job->before)
            CUDA(cudaMemcpy(job->out, job->before, job->n_bytes,
                            cudaMemcpyHostToDevice));
        else
            CUDA(cudaMemset(job->out, POISON, job->n_bytes));
        CUDA(cudaDeviceSynchronize());
        cudaError_t status = job->start(&launch, job->arguments);
        if (status != cudaSuccess)
            check_stop("%s: %s", job->what, cudaGetErrorString(status));
        CUDA(cudaStreamSynchronize(stream));
        CUDA(cudaMemcpy(to, job->out, job->n_bytes, cudaMemcpyDeviceToHost));
        CHECK(run == 0 || memcmp(first, again, job->n_bytes) == 0,
              "%s: run %d gives other bits than the first", job->what, run);
    }
    return first;
}

/* ---- values ----------------------------------------------------------------------- */

/* Holds one output after the other against what it should be. */
struct tally {
    const char *what;
    double error, power; /* sums of squares */
    double worst;        /* of error / tolerance */
    int64_t n;
};

static inline void tally_add(struct tally *t, int32_t row, int32_t col, double want,
                             double got, double tolerance) {
    double off = fabs(got - want);
    CHECK(off <= tolerance, "%s [%d,%d]: expected %.7g +- %.2g, got %.7g", t->what, row,
          col, want, tolerance, got);
    t->error += off * off;
    t->power += want * want;
    t->worst = tolerance > 0 ? fmax(t->worst, off / tolerance) : t->worst;
    t->n++;
}

/* The error's energy against the values': rounding to nearest fp16 leaves about 5e-8. */
static inline void tally_end(const struct tally *t, double most) {
    CHECK(t->error <= most * t->power, "%s: the errors' share is %.2g, at most %.2g",
          t->what, t->error / t->power, most);
}

/* Halves that no kernel may write. */
static inline void expect_untouched(const char *what, const f16 *bits, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (bits[i] != POISON_F16) {
            check_fail("%s: wrote %zu values behind the end", what, i);
            return;
        }
}

#endif
