/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels.c - the kernels that work row by row, against plain loops in fp64: embed,
 * layer_norm, activation, gather, head. Attention and the products have files of their own.
 *
 * Tolerances: an fp16 output is rounded once (2^-11 of its size, 2^-25 near zero); what is
 * computed in fp32 before that has the error of its sums, which is stated where it is used.
 */
#include "tests/cuda/device.h"

/* ---- embed, layer_norm ------------------------------------------------------------ */

struct norm {
    float *weight, *bias;
    float *device_weight, *device_bias;
    int32_t dim, width;
};

static struct norm norm_make(int32_t dim, int32_t width) {
    size_t n_bytes = (size_t)width * sizeof(float);
    struct norm n = {host_make(n_bytes), host_make(n_bytes), NULL, NULL, dim, width};
    for (int32_t i = 0; i < width; i++) {
        n.weight[i] = i < dim ? 1.0f + random_normal(0.3f) : 0.0f;
        n.bias[i] = i < dim ? random_normal(0.3f) : 0.0f;
    }
    n.device_weight = device_copy(n.weight, n_bytes);
    n.device_bias = device_copy(n.bias, n_bytes);
    return n;
}

/* Holds a row against LayerNorm of x. Sums of dim values over 32 lanes or more: an error of
 * (8 + dim / 32) ulp of the largest value, as the deviation magnifies it. */
static void expect_norm(struct tally *t, const struct norm *n, const double *x,
                        int32_t row, const f16 *out) {
    double mean = 0, variance = 0, largest = 0;
    for (int32_t i = 0; i < n->dim; i++) {
        mean += x[i] / n->dim;
        largest = fmax(largest, fabs(x[i]));
    }
    for (int32_t i = 0; i < n->dim; i++)
        variance += (x[i] - mean) * (x[i] - mean) / n->dim;
    double deviation = sqrt(variance + 1e-12);
    double ulps = (8 + n->dim / 32) * SINGLE_ULP;
    for (int32_t i = 0; i < n->width; i++) {
        double weight = (double)n->weight[i], z = (x[i] - mean) / deviation;
        double want = i < n->dim ? z * weight + (double)n->bias[i] : 0.0;
        double single = ulps * fabs(weight) * (fabs(z) + largest / deviation) +
                        4 * SINGLE_ULP * fabs((double)n->bias[i]);
        tally_add(t, row, i, want, half_value(out[i]),
                  i < n->dim ? HALF_ULP * fabs(want) + HALF_UNDERFLOW + single : 0.0);
    }
}

struct embed_job {
    struct cuda_embed e;
    int32_t max_tokens;
};

static cudaError_t embed_start(const struct cuda_launch *launch,
                               const void *arguments) {
    const struct embed_job *j = arguments;
    return cuda_embed(launch, &j->e, j->max_tokens);
}

/* A table with zeros behind dim. */
static struct matrix table_make(int32_t n_rows, int32_t dim, int32_t width,
                                float deviation) {
    struct matrix m = matrix_random(n_rows, width, width, 0.0f, deviation, false);
    for (int32_t r = 0; r < n_rows; r++)
        for (int32_t i = dim; i < width; i++)
            matrix_set(&m, r, i, 0.0f);
    matrix_send(&m);
    return m;
}

static void check_embed(int32_t dim, int32_t n_tokens, int32_t n_behind) {
    enum { V = 50, P = 40 };
    blocks_free();
    struct cuda_launch launch = launch_on(CUDA_PATH_WMMA);
    char what[80];
    snprintf(what, sizeof what, "embed, dim %d, %d tokens", dim, n_tokens);
    int32_t width = (dim + 63) / 64 * 64, max_tokens = n_tokens + n_behind;
    struct matrix words = table_make(V, dim, width, 1.0f),
                  positions = table_make(P, dim, width, 0.5f);
    struct norm norm = norm_make(dim, width);
    int32_t *ids = host_make((size_t)n_tokens * sizeof *ids);
    int32_t *at = host_make((size_t)n_tokens * sizeof *at);
    for (int32_t i = 0; i < n_tokens; i++) {
        ids[i] = i ? (int32_t)(random_u32() % V) : V - 1;
        at[i] = i ? (int32_t)(random_u32() % P) : P - 1;
    }
    struct cuda_counts counts = {.n_tokens = n_tokens, .n_sequences = 1, .n_tiles = 1};
    size_t n_values = (size_t)max_tokens * (size_t)width;
    struct embed_job job = {
        .e = {.counts = device_copy(&counts, sizeof counts),
              .ids = device_copy(ids, (size_t)n_tokens * sizeof *ids),
              .positions = device_copy(at, (size_t)n_tokens * sizeof *at),
              .words = words.device,
              .position_rows = positions.device,
              .weight = norm.device_weight,
              .bias = norm.device_bias,
              .x = device_make(n_values * sizeof(f16)),
              .dim = dim,
              .width = width},
        .max_tokens = max_tokens};
    const f16 *x = job_run(launch, &(struct job){embed_start, &job, job.e.x,
                                                 n_values * sizeof(f16), NULL, what});
    double *row = host_make((size_t)width * sizeof *row);
    struct tally tally = {.what = what};
    for (int32_t t = 0; t < n_tokens; t++) {
        for (int32_t i = 0; i < dim; i++)
            row[i] = (double)matrix_row(&words, ids[t])[i] +
                     (double)matrix_row(&positions, at[t])[i];
        expect_norm(&tally, &norm, row, t, x + (size_t)t * (size_t)width);
    }
    tally_end(&tally, 1e-7);
    expect_untouched(what, x + (size_t)n_tokens * (size_t)width,
                     (size_t)n_behind * (size_t)width);
}

static void test_embed(int argument) {
    (void)argument;
    static const int32_t dims[] = {1, 36, 48, 64, 384, 768, 1000, CUDA_MAX_WIDTH};
    static const int32_t tokens[] = {1, 17, 64, 3};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        check_embed(dims[i], tokens[i % 4], i % 3 ? (int32_t)(13 * i) : 0);
    check_embed(64, 300, 84);
    if (!is_emulated)
        check_embed(768, 16384, 100);
}

struct norm_job {
    struct cuda_layer_norm n;
    int32_t n_rows;
};

static cudaError_t norm_start(const struct cuda_launch *launch, const void *arguments) {
    const struct norm_job *j = arguments;
    return cuda_layer_norm(launch, &j->n, j->n_rows);
}

/* Rows of all kinds: normal, far from zero, large, tiny, all alike, all zero. */
static struct matrix rows_make(int32_t n_rows, int32_t dim, int32_t width) {
    static const float kinds[][2] = {{0, 1},     {300, 2},   {-20, 0.5f}, {0, 15000},
                                     {0, 1e-6f}, {0.75f, 0}, {0, 0}};
    struct matrix m = matrix_make(n_rows, width, width);
    for (int32_t r = 0; r < n_rows; r++)
        for (int32_t i = 0; i < width; i++) {
            float value = kinds[r % 7][0] + random_normal(kinds[r % 7][1]);
            matrix_set(&m, r, i, i < dim ? value : 0.0f);
        }
    matrix_send(&m);
    return m;
}

static void check_layer_norm(int32_t dim, int32_t n_rows, bool is_in_place) {
    blocks_free();
    struct cuda_launch launch = launch_on(CUDA_PATH_WMMA);
    char what[80];
    snprintf(what, sizeof what, "layer_norm, dim %d, %d rows%s", dim, n_rows,
             is_in_place ? ", in place" : "");
    int32_t width = (dim + 63) / 64 * 64;
    struct matrix in = rows_make(n_rows, dim, width);
    struct norm norm = norm_make(dim, width);
    size_t n_bytes = (size_t)n_rows * (size_t)width * sizeof(f16);
    f16 *to = is_in_place ? in.device : device_make(n_bytes);
    struct norm_job job = {
        {in.device, to, norm.device_weight, norm.device_bias, dim, width}, n_rows};
    const f16 *out = job_run(launch, &(struct job){norm_start, &job, to, n_bytes,
                                                   is_in_place ? in.bits : NULL, what});
    double *row = host_make((size_t)width * sizeof *row);
    struct tally tally = {.what = what};
    for (int32_t r = 0; r < n_rows; r++) {
        for (int32_t i = 0; i < width; i++)
            row[i] = (double)matrix_row(&in, r)[i];
        expect_norm(&tally, &norm, row, r, out + (size_t)r * (size_t)width);
    }
    tally_end(&tally, 1e-7);
}

static void test_layer_norm(int argument) {
    (void)argument;
    static const int32_t dims[] = {1, 36, 48, 64, 384, 768, 1000, CUDA_MAX_WIDTH};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        check_layer_norm(dims[i], 9, false);
        check_layer_norm(dims[i], 1 + (int32_t)i, true);
    }
    check_layer_norm(64, 200, false);
    if (!is_emulated)
        check_layer_norm(768, 16384, true);
}

/* ---- activation ------------------------------------------------------------------- */

struct activation_job {
    f16 *x;
    int64_t n_values;
    bool is_relu;
};

static cudaError_t activation_start(const struct cuda_launch *launch,
                                    const void *arguments) {
    const struct activation_job *j = arguments;
    return cuda_activation(launch, j->x, j->n_values, j->is_relu);
}

/* Every half there is, over and over. 1 + erf cancels left of zero: an error of x ulp. */
static void check_activation(int64_t n_values, bool is_relu) {
    blocks_free();
    struct cuda_launch launch = launch_on(CUDA_PATH_WMMA);
    const char *what = is_relu ? "ReLU" : "GELU";
    size_t n_bytes = (size_t)n_values * sizeof(f16);
    f16 *in = host_make(n_bytes);
    for (int64_t i = 0; i < n_values; i++)
        in[i] = (f16)i;
    struct activation_job job = {device_copy(in, n_bytes), n_values, is_relu};
    const f16 *out = job_run(
        launch, &(struct job){activation_start, &job, job.x, n_bytes, in, what});
    struct tally tally = {.what = what};
    for (int64_t i = 0; i < n_values; i++) {
        double x = half_value(in[i]), got = half_value(out[i]);
        if (isnan(x))
            CHECK(isnan(got), "%s of a NaN is %g: nobody will see it", what, got);
        if (isnan(x) || isinf(x))
            continue;
        double want = is_relu ? fmax(x, 0.0) : 0.5 * x * (1.0 + erf(x * M_SQRT1_2));
        double tolerance =
            HALF_ULP * fabs(want) + HALF_UNDERFLOW + 2 * SINGLE_ULP * fabs(x);
        tally_add(&tally, (int32_t)(i / 65536), (int32_t)(i % 65536), want, got,
                  is_relu ? 0.0 : tolerance);
    }
    if (n_values >= 65536) /* the first ones are next to zero: all rounding */
        tally_end(&tally, 1e-7);
}

static void test_activation(int is_relu) {
    check_activation(65536, is_relu);
    check_activation(64, is_relu);
    check_activation(64 * 1001, is_relu);
    if (!is_emulated)
        check_activation(INT64_C(16384) * 3072, is_relu);
}

/* ---- gather ----------------------------------------------------------------------- */

struct gather_job {
    const struct cuda_counts *counts;
    const int32_t *offsets;
    const f16 *in;
    f16 *out;
    int32_t width, max_sequences;
};

static cudaError_t gather_start(const struct cuda_launch *launch,
                                const void *arguments) {
    const struct gather_job *j = arguments;
    return cuda_gather(launch, j->counts, j->offsets, j->in, j->out, j->width,
                       j->max_sequences);
}

static void check_gather(int32_t width, int32_t n_sequences, int32_t n_behind) {
    blocks_free();
    struct cuda_launch launch = launch_on(CUDA_PATH_WMMA);
    char what[80];
    snprintf(what, sizeof what, "gather, width %d, %d sequences", width, n_sequences);
    int32_t *offsets = host_make(((size_t)n_sequences + 1) * sizeof *offsets);
    offsets[0] = 0;
    for (int32_t b = 0; b < n_sequences; b++)
        offsets[b + 1] = offsets[b] + 1 + (int32_t)(random_u32() % 5);
    int32_t n_tokens = offsets[n_sequences];
    struct matrix in = matrix_random(n_tokens, width, width, 0, 1, false);
    matrix_send(&in);
    struct cuda_counts counts = {.n_tokens = n_tokens, .n_sequences = n_sequences};
    size_t row_bytes = (size_t)width * sizeof(f16),
           n_bytes = (size_t)(n_sequences + n_behind) * row_bytes;
    struct gather_job job = {
        device_copy(&counts, sizeof counts),
        device_copy(offsets, ((size_t)n_sequences + 1) * sizeof *offsets),
        in.device,
        device_make(n_bytes),
        width,
        n_sequences + n_behind};
    const f16 *out = job_run(
        launch, &(struct job){gather_start, &job, job.out, n_bytes, NULL, what});
    for (int32_t b = 0; b < n_sequences; b++)
        CHECK(memcmp(out + (size_t)b * (size_t)width,
                     in.bits + (size_t)offsets[b] * (size_t)width, row_bytes) == 0,
              "%s: row %d is not row %d", what, b, offsets[b]);
    expect_untouched(what, out + (size_t)n_sequences * (size_t)width,
                     (size_t)n_behind * (size_t)width);
}

static void test_gather(int argument) {
    (void)argument;
    static const int32_t widths[] = {64, 384, 768, 4096};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        check_gather(widths[i], 1, 0);
        check_gather(widths[i], 2, 5);
        check_gather(widths[i], 33, 31);
    }
    check_gather(64, 300, 0);
}

/* ---- head ------------------------------------------------------------------------- */

struct head_job {
    struct cuda_head h;
    int32_t n_rows;
};

static cudaError_t head_start(const struct cuda_launch *launch, const void *arguments) {
    const struct head_job *j = arguments;
    return cuda_head(launch, &j->h, j->n_rows);
}

static void check_head(int32_t width, int32_t n, int32_t n_rows) {
    blocks_free();
    struct cuda_launch launch = launch_on(CUDA_PATH_WMMA);
    char what[80];
    snprintf(what, sizeof what, "head, width %d, %d columns, %d rows", width, n,
             n_rows);
    struct matrix in = matrix_random(n_rows, width, width, 0, 1, false),
                  weights = matrix_random(n, width, width, 0, 0.3f, false);
    matrix_send(&in);
    matrix_send(&weights);
    float *bias = host_make((size_t)n * sizeof *bias);
    for (int32_t i = 0; i < n; i++)
        bias[i] = random_normal(1.0f);
    size_t n_bytes = (size_t)n_rows * (size_t)n * sizeof(float);
    struct head_job job = {{in.device, weights.device,
                            device_copy(bias, (size_t)n * sizeof *bias),
                            device_make(n_bytes), width, n},
                           n_rows};
    const float *out = job_run(
        launch, &(struct job){head_start, &job, job.h.out, n_bytes, NULL, what});
    struct tally tally = {.what = what};
    for (int32_t r = 0; r < n_rows; r++)
        for (int32_t c = 0; c < n; c++) {
            double want = (double)bias[c], sum = fabs(want);
            for (int32_t i = 0; i < width; i++) {
                double product =
                    (double)matrix_row(&in, r)[i] * (double)matrix_row(&weights, c)[i];
                want += product;
                sum += fabs(product);
            }
            tally_add(&tally, r, c, want,
                      (double)out[(size_t)r * (size_t)n + (size_t)c],
                      (8 + width / 32) * SINGLE_ULP * sum);
        }
    tally_end(&tally, 1e-11);
}

static void test_head(int argument) {
    (void)argument;
    static const int32_t widths[] = {64, 384, 768, 4096}, columns[] = {1, 2, 7, 33},
                         rows[] = {1, 5, 64, 200};
    for (size_t w = 0; w < 4; w++)
        for (size_t c = 0; c < 4; c++)
            check_head(widths[w], columns[c],
                       w == 3 || c == 3 ? rows[(w + c) % 2] : rows[(w + c) % 4]);
    check_head(64, 1024, 3);
    if (!is_emulated)
        check_head(768, 33, 4096);
}

int main(int argc, char **argv) {
    static const struct check_case cases[] = {
        {"embed", test_embed, 0},
        {"layer_norm", test_layer_norm, 0},
        {"activation GELU", test_activation, 0},
        {"activation ReLU", test_activation, 1},
        {"gather", test_gather, 0},
        {"head", test_head, 0},
    };
    return check_main(cases, sizeof cases / sizeof *cases, argc, argv);
}
