/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gemm.c - every tile of both product kernels, whole and split along k, with every
 * epilogue, against plain loops in fp64.
 *
 * Tolerances: whole numbers that fp16 can hold must come out exact. Otherwise the output is
 * rounded once (2^-11 of its size, 2^-25 near zero), and fp32 sums of k products are off by
 * at most k ulp of the sum of their sizes; 1 + erf cancels left of zero (x ulp).
 */
#include "tests/cuda/device.h"

enum { MAX_CHECKED = 200000 }; /* of a large product, values picked at random */

struct gemm_job {
    struct cuda_gemm g;
    struct cuda_gemm_variant v;
    float *partials;
    int32_t *counters;
    int32_t n_counters;
};

static cudaError_t gemm_start(const struct cuda_launch *launch, const void *arguments) {
    const struct gemm_job *j = arguments;
    return cuda_gemm(launch, &j->g, j->v, j->partials, j->counters);
}

struct shape {
    int32_t m, n, k, in_gap, out_gap;
    enum cuda_epilogue epilogue;
    bool is_whole;
};

struct problem {
    struct shape shape;
    struct matrix in, weights, bias, residual;
    const char *what;
};

static void problem_make(struct problem *p) {
    const struct shape *s = &p->shape;
    float weight = s->is_whole ? 0.7f : 2.0f / sqrtf((float)s->k);
    p->in = matrix_random(s->m, s->k, s->k + s->in_gap, 0, 1.0f, s->is_whole);
    p->weights = matrix_random(s->n, s->k, s->k, 0, weight, s->is_whole);
    p->bias = matrix_random(1, s->n, s->n, 0, 2.0f, s->is_whole);
    p->residual = matrix_random(s->m, s->n, s->n + s->out_gap, 0, 3.0f, s->is_whole);
    matrix_send(&p->in);
    matrix_send(&p->weights);
    matrix_send(&p->bias);
    matrix_send(&p->residual);
}

static void expect_value(struct tally *t, const struct problem *p, int32_t row,
                         int32_t col, f16 got) {
    const struct shape *s = &p->shape;
    const float *in = matrix_row(&p->in, row), *weights = matrix_row(&p->weights, col);
    double x = 0, size = 0;
    for (int32_t i = 0; i < s->k; i++) {
        x += (double)in[i] * (double)weights[i];
        size += fabs((double)in[i] * (double)weights[i]);
    }
    double bias = (double)p->bias.values[col];
    double residual = s->epilogue == CUDA_EPILOGUE_RESIDUAL
                          ? (double)matrix_row(&p->residual, row)[col]
                          : 0;
    x += bias + residual;
    double off = SINGLE_ULP * (s->k * size + 2 * fabs(bias) + 2 * fabs(residual));
    double want = x;
    if (s->epilogue == CUDA_EPILOGUE_RELU)
        want = fmax(x, 0.0);
    if (s->epilogue == CUDA_EPILOGUE_GELU) {
        want = 0.5 * x * (1.0 + erf(x * M_SQRT1_2));
        off = 1.13 * off + 2 * SINGLE_ULP * fabs(x); /* GELU's steepest slope */
    }
    bool is_exact = s->is_whole && s->epilogue != CUDA_EPILOGUE_GELU && fabs(x) <= 2048;
    tally_add(t, row, col, want, half_value(got),
              is_exact ? 0.0 : HALF_ULP * fabs(want) + HALF_UNDERFLOW + off);
}

static void expect_product(const struct problem *p, const f16 *out) {
    const struct shape *s = &p->shape;
    struct tally tally = {.what = p->what};
    size_t stride = (size_t)(s->n + s->out_gap);
    int64_t n_values = (int64_t)s->m * s->n;
    for (int64_t i = 0; i < n_values && i < MAX_CHECKED; i++) {
        int64_t at = n_values <= MAX_CHECKED
                         ? i
                         : (int64_t)((((uint64_t)random_u32() << 32) | random_u32()) %
                                     (uint64_t)n_values);
        int32_t row = (int32_t)(at / s->n), col = (int32_t)(at % s->n);
        expect_value(&tally, p, row, col, out[(size_t)row * stride + (size_t)col]);
    }
    tally_end(&tally, 1e-7);
    for (int32_t row = 0; row < s->m; row++) {
        const f16 *values = out + (size_t)row * stride;
        expect_untouched(p->what, values + s->n, (size_t)s->out_gap);
        for (int32_t col = 0; col < s->n; col++)
            if (values[col] == POISON_F16)
                check_fail("%s [%d,%d]: not written", p->what, row, col);
    }
}

static void expect_zero_counters(const struct gemm_job *job, const char *what) {
    if (!job->n_counters)
        return;
    size_t n_bytes = (size_t)job->n_counters * sizeof(int32_t);
    int32_t *counters = host_make(n_bytes);
    CUDA(cudaMemcpy(counters, job->counters, n_bytes, cudaMemcpyDeviceToHost));
    for (int32_t i = 0; i < job->n_counters; i++)
        CHECK(counters[i] == 0, "%s: counter %d is %d after the launch", what, i,
              counters[i]);
}

static void check_gemm(struct cuda_launch launch, struct cuda_gemm_variant v,
                       const struct shape *s) {
    static const char *const epilogues[] = {"bias", "relu", "gelu", "residual"};
    char what[160];
    struct problem p = {.shape = *s, .what = what};
    blocks_free();
    snprintf(what, sizeof what, "gemm %s %s / %d, %d x %d x %d, gaps %d %d, %s%s",
             path_name(launch.path), cuda_gemm_tile_name(launch.path, v.tile),
             v.n_splits, s->m, s->n, s->k, s->in_gap, s->out_gap,
             epilogues[s->epilogue], s->is_whole ? ", whole" : "");
    problem_make(&p);
    size_t n_bytes = (size_t)s->m * (size_t)(s->n + s->out_gap) * sizeof(f16),
           partial_bytes = cuda_gemm_partial_bytes(launch.path, v, s->m, s->n);
    struct gemm_job job = {
        .g = {.in = p.in.device,
              .weights = p.weights.device,
              .bias = p.bias.device,
              .residual =
                  s->epilogue == CUDA_EPILOGUE_RESIDUAL ? p.residual.device : NULL,
              .out = device_make(n_bytes),
              .m = s->m,
              .n = s->n,
              .k = s->k,
              .in_stride = s->k + s->in_gap,
              .out_stride = s->n + s->out_gap,
              .epilogue = s->epilogue},
        .v = v,
        .n_counters = cuda_gemm_n_counters(launch.path, v, s->m, s->n)};
    if (partial_bytes)
        job.partials = device_make(partial_bytes);
    if (job.n_counters) {
        job.counters = device_make((size_t)job.n_counters * sizeof(int32_t));
        CUDA(cudaMemset(job.counters, 0, (size_t)job.n_counters * sizeof(int32_t)));
    }
    const f16 *out = job_run(launch, &(struct job){gemm_start, &job, (void *)job.g.out,
                                                   n_bytes, NULL, what});
    expect_product(&p, out);
    expect_zero_counters(&job, what);
}

/* ---- which shapes ----------------------------------------------------------------- */

static const int32_t rows[] = {1, 17, 64, 127, 128, 129, 200, 16, 33};
static const int32_t columns_depths[][2] = {
    {64, 64}, {128, 192}, {192, 128}, {64, 512}, {256, 256}, {128, 512}, {384, 64}};
enum { N_ROWS = sizeof rows / sizeof *rows };

/* Gaps, epilogue and whole numbers take turns: over a case every value of each is met. */
static struct shape shape_of(int turn, int32_t m, const int32_t *columns_depth) {
    static const int32_t gaps[] = {0, 64, 8};
    return (struct shape){.m = m,
                          .n = columns_depth[0],
                          .k = columns_depth[1],
                          .in_gap = gaps[turn % 3],
                          .out_gap = gaps[turn / 2 % 3],
                          .epilogue = (enum cuda_epilogue)(turn % 4),
                          .is_whole = turn / 4 % 2};
}

/* One tile, in n parts: every number of rows, with one shape of weights or another. */
static int check_variant(struct cuda_launch launch, struct cuda_gemm_variant v) {
    enum { N_SHAPES = sizeof columns_depths / sizeof *columns_depths };
    int n_run = 0, stride = is_emulated ? 1 : N_SHAPES;
    for (int i = 0; i < N_ROWS * stride; i++)
        for (int offset = 0; offset < N_SHAPES; offset++) {
            const int32_t *shape = columns_depths[(i + v.tile + offset) % N_SHAPES];
            int32_t m = rows[i % N_ROWS];
            if (!cuda_gemm_fits(launch.path, v, m, shape[0], shape[1]))
                continue;
            struct shape s = shape_of(n_run + v.tile + v.n_splits, m, shape);
            check_gemm(launch, v, &s);
            n_run++;
            break;
        }
    return n_run;
}

static void test_tiles(int argument) {
    enum cuda_path path = argument % 2 ? CUDA_PATH_MMA : CUDA_PATH_WMMA;
    struct cuda_launch launch = launch_on(path);
    for (int32_t tile = 0; tile < cuda_gemm_n_tiles(path); tile++) {
        struct cuda_gemm_variant v = {tile, argument / 2};
        CHECK(check_variant(launch, v) >= N_ROWS, "tile %s in %d parts fits too little",
              cuda_gemm_tile_name(path, tile), v.n_splits);
    }
}

#ifndef VIGIL_CUDA_EMULATION
static void test_large(int argument) {
    enum cuda_path path = argument % 2 ? CUDA_PATH_MMA : CUDA_PATH_WMMA;
    struct cuda_launch launch = launch_on(path);
    static const int32_t sizes[][3] = {{4096, 3072, 768}, {1000, 768, 3072},
                                       {333, 2304, 768},  {40, 768, 768},
                                       {4096, 384, 1536}, {7, 1152, 384}};
    for (int32_t tile = 0; tile < cuda_gemm_n_tiles(path); tile++)
        for (int32_t n_splits = 1; n_splits <= 8; n_splits *= 2)
            for (int i = 0; i < 6; i++) {
                struct cuda_gemm_variant v = {tile, n_splits};
                struct shape s = shape_of(i + tile, sizes[i][0], sizes[i] + 1);
                s.is_whole = false;
                if (cuda_gemm_fits(path, v, s.m, s.n, s.k))
                    check_gemm(launch, v, &s);
            }
}
#endif

/* ---- promises of the table of tiles ------------------------------------------------ */

static void test_fits(int argument) {
    enum cuda_path path = argument ? CUDA_PATH_MMA : CUDA_PATH_WMMA;
    int32_t n_tiles = cuda_gemm_n_tiles(path);
    CHECK(n_tiles >= 1, "no tile");
    for (int32_t n = 64; n <= 4096; n += 64)
        for (int32_t k = 64; k <= 4096; k += 64) {
            int n_fit = 0;
            for (int32_t tile = 0; tile < n_tiles; tile++)
                n_fit +=
                    cuda_gemm_fits(path, (struct cuda_gemm_variant){tile, 1}, 77, n, k);
            CHECK(n_fit, "no tile for n %d, k %d", n, k);
        }
    for (int32_t tile = 0; tile < n_tiles; tile++) {
        struct cuda_gemm_variant whole = {tile, 1}, many = {tile, 64}, none = {tile, 0};
        CHECK(!cuda_gemm_fits(path, none, 64, 256, 256), "0 parts fit");
        CHECK(!cuda_gemm_fits(path, many, 64, 256, 256), "64 parts of k 256 fit");
        CHECK(!cuda_gemm_fits(path, whole, 64, 32, 256), "n 32 fits");
        CHECK(!cuda_gemm_fits(path, whole, 64, 256, 8), "k 8 fits");
        CHECK(cuda_gemm_partial_bytes(path, whole, 64, 256) == 0 &&
                  cuda_gemm_n_counters(path, whole, 64, 256) == 0,
              "an uncut product wants partial sums");
    }
}

/* A NaN in a row of in reaches every value of that row, and no other row. */
static void check_nan(struct cuda_launch launch, int32_t tile,
                      enum cuda_epilogue epilogue) {
    enum { M = 33, N = 128, K = 64, ROW = 17 };
    struct problem p = {.shape = {.m = M, .n = N, .k = K, .epilogue = epilogue},
                        .what = "gemm of a NaN"};
    blocks_free();
    problem_make(&p);
    p.in.bits[ROW * K + 5] = POISON_F16;
    matrix_send(&p.in);
    size_t n_bytes = (size_t)M * N * sizeof(f16);
    struct gemm_job job = {.g = {p.in.device, p.weights.device, p.bias.device,
                                 p.residual.device, device_make(n_bytes), M, N, K, K, N,
                                 epilogue},
                           .v = {tile, 1}};
    const f16 *out = job_run(launch, &(struct job){gemm_start, &job, (void *)job.g.out,
                                                   n_bytes, NULL, p.what});
    for (int32_t i = 0; i < M * N; i++)
        CHECK(!isnan(half_value(out[i])) == (i / N != ROW),
              "%s, tile %s, epilogue %d: [%d,%d] is %g", p.what,
              cuda_gemm_tile_name(launch.path, tile), epilogue, i / N, i % N,
              half_value(out[i]));
}

static void test_nan(int argument) {
    struct cuda_launch launch = launch_on(argument ? CUDA_PATH_MMA : CUDA_PATH_WMMA);
    for (int epilogue = 0; epilogue < 4; epilogue++)
        check_nan(launch, 0, (enum cuda_epilogue)epilogue);
}

int main(int argc, char **argv) {
    static const struct check_case cases[] = {
        {"gemm fits wmma", test_fits, 0},   {"gemm fits mma", test_fits, 1},
        {"gemm wmma whole", test_tiles, 2}, {"gemm mma whole", test_tiles, 3},
        {"gemm wmma in 2", test_tiles, 4},  {"gemm mma in 2", test_tiles, 5},
        {"gemm wmma in 3", test_tiles, 6},  {"gemm mma in 3", test_tiles, 7},
        {"gemm wmma in 4", test_tiles, 8},  {"gemm mma in 4", test_tiles, 9},
        {"gemm wmma in 6", test_tiles, 12}, {"gemm mma in 6", test_tiles, 13},
        {"gemm wmma in 8", test_tiles, 16}, {"gemm mma in 8", test_tiles, 17},
        {"gemm NaN wmma", test_nan, 0},     {"gemm NaN mma", test_nan, 1},
#ifndef VIGIL_CUDA_EMULATION
        {"gemm large wmma", test_large, 0}, {"gemm large mma", test_large, 1},
#endif
    };
    return check_main(cases, sizeof cases / sizeof *cases, argc, argv);
}
