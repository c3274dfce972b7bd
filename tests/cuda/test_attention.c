/* SPDX-License-Identifier: Apache-2.0
 *
 * test_attention.c - attention on both paths, and that of the first queries alone, against
 * plain loops in fp64; q, k and v lie interleaved, as the engine has them.
 *
 * Tolerance of out = sum p v: the probabilities are rounded to fp16 where tensor cores take
 * them (2^-11 of sum p |v|, 2^-25 of sum |v| for the smallest), and out once more. Scores
 * are fp32: one that is off by e puts its probability off by a share of e, twice with the
 * sum's; e is HEAD_WIDTH ulp of the largest sum |q k| * scale, and the exponent's argument
 * adds an ulp or two of the scores.
 */
#include "tests/cuda/device.h"

enum { MAX_SEQUENCES = 16, READABLE_BEHIND = 64 };

struct problem {
    int32_t lengths[MAX_SEQUENCES], n_sequences, n_tokens;
    int32_t offsets[MAX_SEQUENCES + 1];
    int32_t n_heads, head_width, dim; /* dim: of head_width; zeros behind it */
    struct matrix qkv;                /* [T + n_behind, 3 A] */
    int32_t out_stride;
    const char *what;
};

/* spread 1: scores about normal; large: each query sees one key; 0: all keys alike. */
static void problem_fill(struct problem *p, float spread, int32_t n_behind) {
    int32_t a = p->n_heads * p->head_width;
    p->qkv = matrix_make(p->n_tokens + n_behind, 3 * a, 3 * a);
    for (int32_t r = 0; r < p->qkv.n_rows; r++)
        for (int32_t c = 0; c < 3 * a; c++) {
            bool is_zero = c % p->head_width >= p->dim;
            float value = random_normal(c < a ? spread : 1.0f);
            if (r >= p->n_tokens) /* what an earlier batch left: anything finite */
                value = c % 2 ? 3e4f : -3e4f;
            matrix_set(&p->qkv, r, c, is_zero ? 0.0f : value);
        }
    matrix_send(&p->qkv);
}

static void problem_lengths(struct problem *p, const int32_t *lengths, int32_t n) {
    p->n_sequences = n;
    p->offsets[0] = 0;
    for (int32_t b = 0; b < n; b++) {
        p->lengths[b] = lengths[b];
        p->offsets[b + 1] = p->offsets[b] + lengths[b];
    }
    p->n_tokens = p->offsets[n];
}

/* Query row r of sequence b, one head: want[dim] and tolerance[dim]. */
static void reference(const struct problem *p, int32_t b, const float *q, int32_t head,
                      double *want, double *tolerance) {
    static double scores[512];
    int32_t a = p->n_heads * p->head_width, n = p->lengths[b];
    double scale = 1.0 / sqrt((double)p->dim), top = -INFINITY, sum = 0, largest = 0;
    for (int32_t s = 0; s < n; s++) {
        const float *k =
            matrix_row(&p->qkv, p->offsets[b] + s) + a + head * p->head_width;
        double size = 0;
        scores[s] = 0;
        for (int32_t d = 0; d < p->dim; d++) {
            scores[s] += scale * (double)q[d] * (double)k[d];
            size += scale * fabs((double)q[d] * (double)k[d]);
        }
        top = fmax(top, scores[s]);
        largest = fmax(largest, size);
    }
    for (int32_t s = 0; s < n; s++)
        sum += scores[s] = exp(scores[s] - top);
    double off = 2 * (p->head_width + 4) * SINGLE_ULP * largest + n * SINGLE_ULP;
    for (int32_t d = 0; d < p->head_width; d++) {
        double share = 0, flat = 0;
        want[d] = 0;
        for (int32_t s = 0; s < n; s++) {
            double v = (double)matrix_row(
                &p->qkv, p->offsets[b] + s)[2 * a + head * p->head_width + d];
            want[d] += scores[s] / sum * v;
            share += scores[s] / sum * fabs(v);
            flat += fabs(v) / sum;
        }
        tolerance[d] = HALF_ULP * (fabs(want[d]) + share) + off * share +
                       HALF_UNDERFLOW * (1 + flat);
    }
}

/* Rows of out are the queries of sequence b from `first`, to `n` of them. */
static void expect_rows(struct tally *t, const struct problem *p, int32_t b,
                        int32_t first, int32_t n, const f16 *out, int32_t row0) {
    static double want[128], tolerance[128];
    for (int32_t r = first; r < first + n; r++)
        for (int32_t head = 0; head < p->n_heads; head++) {
            const float *q =
                matrix_row(&p->qkv, p->offsets[b] + r) + head * p->head_width;
            reference(p, b, q, head, want, tolerance);
            const f16 *got = out + (size_t)(row0 + r - first) * (size_t)p->out_stride +
                             head * p->head_width;
            for (int32_t d = 0; d < p->head_width; d++)
                tally_add(t, row0 + r - first, head * p->head_width + d, want[d],
                          half_value(got[d]), tolerance[d]);
        }
}

static void expect_gaps(const struct problem *p, const f16 *out, int32_t n_rows) {
    int32_t a = p->n_heads * p->head_width;
    for (int32_t r = 0; r < n_rows; r++)
        expect_untouched(p->what, out + (size_t)r * (size_t)p->out_stride + a,
                         (size_t)(p->out_stride - a));
}

static struct cuda_attention arguments_of(const struct problem *p,
                                          const struct cuda_counts *counts,
                                          int32_t n_rows) {
    int32_t a = p->n_heads * p->head_width;
    return (struct cuda_attention){
        .counts = device_copy(counts, sizeof *counts),
        .q = p->qkv.device,
        .k = p->qkv.device + a,
        .v = p->qkv.device + 2 * a,
        .out = device_make((size_t)n_rows * (size_t)p->out_stride * sizeof(f16)),
        .q_stride = 3 * a,
        .kv_stride = 3 * a,
        .out_stride = p->out_stride,
        .n_heads = p->n_heads,
        .head_width = p->head_width,
        .scale = (float)(1.0 / sqrt((double)p->dim))};
}

/* ---- all queries ------------------------------------------------------------------ */

struct attention_job {
    struct cuda_attention a;
    const struct cuda_tile *tiles;
    int32_t max_tiles, warps;
};

static cudaError_t attention_start(const struct cuda_launch *launch,
                                   const void *arguments) {
    const struct attention_job *j = arguments;
    return cuda_attention(launch, &j->a, j->tiles, j->max_tiles, j->warps);
}

/* The tiles of all sequences, and n_behind that must not be looked at. */
static int32_t tiles_make(const struct problem *p, int32_t warps, int32_t n_behind,
                          const struct cuda_tile **tiles) {
    int32_t n = 0, n_all = n_behind;
    for (int32_t b = 0; b < p->n_sequences; b++)
        n_all += (p->lengths[b] + 16 * warps - 1) / (16 * warps);
    struct cuda_tile *list = host_make((size_t)n_all * sizeof *list);
    memset(list, 0x7F, (size_t)n_all * sizeof *list);
    for (int32_t b = 0; b < p->n_sequences; b++)
        for (int32_t q = 0; q < p->lengths[b]; q += 16 * warps)
            list[n++] = (struct cuda_tile){p->offsets[b], p->lengths[b], q, 0};
    *tiles = device_copy(list, (size_t)n_all * sizeof *list);
    return n;
}

static void check_attention(enum cuda_path path, int32_t head_width, int32_t dim,
                            int32_t n_heads, int32_t warps, float spread,
                            const int32_t *lengths, int32_t n_sequences) {
    char what[120];
    struct problem p = {.n_heads = n_heads,
                        .head_width = head_width,
                        .dim = dim,
                        .out_stride = n_heads * head_width + (n_sequences % 2 ? 0 : 8),
                        .what = what};
    blocks_free();
    struct cuda_launch launch = launch_on(path);
    problem_lengths(&p, lengths, n_sequences);
    snprintf(what, sizeof what,
             "attention %s, %d heads of %d in %d, %d warps, %d sequences of %d .. %d "
             "tokens, spread %g",
             path_name(path), n_heads, dim, head_width, warps, n_sequences, lengths[0],
             lengths[n_sequences - 1], (double)spread);
    problem_fill(&p, spread, READABLE_BEHIND);
    struct attention_job job = {.warps = warps};
    int32_t n_behind = n_sequences;
    struct cuda_counts counts = {.n_tokens = p.n_tokens,
                                 .n_sequences = n_sequences,
                                 .n_tiles =
                                     tiles_make(&p, warps, n_behind, &job.tiles)};
    job.max_tiles = counts.n_tiles + n_behind;
    job.a = arguments_of(&p, &counts, p.n_tokens);
    const f16 *out = job_run(
        launch, &(struct job){attention_start, &job, job.a.out,
                              (size_t)p.n_tokens * (size_t)p.out_stride * sizeof(f16),
                              NULL, what});
    struct tally tally = {.what = what};
    for (int32_t b = 0; b < n_sequences; b++)
        expect_rows(&tally, &p, b, 0, p.lengths[b], out, p.offsets[b]);
    tally_end(&tally, 3e-7);
    expect_gaps(&p, out, p.n_tokens);
}

static const int32_t head_widths[] = {16, 32, 64, 128};
enum { N_WIDTHS = 4 };

/* path, and which head width. Every number of warps, every length, spreads of all kinds. */
static void test_attention(int argument) {
    enum cuda_path path = argument % 2 ? CUDA_PATH_MMA : CUDA_PATH_WMMA;
    int32_t width = head_widths[argument / 2];
    static const int32_t mixed[] = {1, 17, 64}, around[] = {127, 128, 129},
                         small[] = {1, 2, 15, 16, 33, 63, 65};
    for (int32_t warps = 2; warps <= 8; warps *= 2) {
        check_attention(path, width, width, 2, warps, 1.0f, mixed, 3);
        check_attention(path, width, width - 4, 3, warps, 4.0f, small, 7);
        check_attention(path, width, width, 1, warps, 1.0f, around, 3);
        check_attention(path, width, width / 2 + 1, 2, warps, 0.0f, around, 2);
        for (int i = 0; i < 3; i++) {
            check_attention(path, width, width, 1, warps, 16.0f, mixed + i, 1);
            check_attention(path, width, width, 1, warps, 0.01f, around + i, 1);
        }
    }
}

static void test_attention_long(int argument) {
    enum cuda_path path = argument % 2 ? CUDA_PATH_MMA : CUDA_PATH_WMMA;
    static const int32_t odd[] = {511}, full[] = {512}, all[] = {512, 1, 511, 300};
    int32_t width = head_widths[argument / 2];
    for (int32_t warps = 2; warps <= 8; warps *= 2) {
        check_attention(path, width, width, 1, warps, 1.0f, odd, 1);
        check_attention(path, width, width, 1, warps, 8.0f, full, 1);
    }
    check_attention(path, width, width, 2, 8, 1.0f, all, 3);
    if (is_emulated)
        return;
    for (int32_t warps = 2; warps <= 8; warps *= 2) {
        check_attention(path, width, width, 12, warps, 1.0f, all, 4);
        check_attention(path, width, width, 3, warps, 30.0f, all, 4);
        check_attention(path, width, width, 3, warps, 0.0f, all, 4);
    }
}

/* ---- first queries ---------------------------------------------------------------- */

struct cls_job {
    struct cuda_attention a;
    const int32_t *offsets;
    int32_t max_sequences;
};

static cudaError_t cls_start(const struct cuda_launch *launch, const void *arguments) {
    const struct cls_job *j = arguments;
    return cuda_attention_cls(launch, &j->a, j->offsets, j->max_sequences);
}

/* The queries in a matrix of their own, a row a sequence, as after cuda_gather. */
static struct matrix queries_make(const struct problem *p) {
    int32_t a = p->n_heads * p->head_width;
    struct matrix q = matrix_make(p->n_sequences, a, a + 8);
    for (int32_t b = 0; b < p->n_sequences; b++)
        for (int32_t c = 0; c < a; c++)
            matrix_set(&q, b, c, matrix_row(&p->qkv, p->offsets[b])[c]);
    matrix_send(&q);
    return q;
}

static void check_cls(int32_t head_width, int32_t dim, int32_t n_heads, float spread,
                      const int32_t *lengths, int32_t n_sequences, int32_t n_behind) {
    char what[120];
    struct problem p = {.n_heads = n_heads,
                        .head_width = head_width,
                        .dim = dim,
                        .out_stride = n_heads * head_width + (n_sequences % 2 ? 0 : 8),
                        .what = what};
    blocks_free();
    struct cuda_launch launch = launch_on(CUDA_PATH_WMMA);
    problem_lengths(&p, lengths, n_sequences);
    snprintf(what, sizeof what,
             "attention_cls, %d heads of %d in %d, %d sequences, spread %g", n_heads,
             dim, head_width, n_sequences, (double)spread);
    problem_fill(&p, spread, 0);
    struct matrix q = queries_make(&p);
    int32_t max_sequences = n_sequences + n_behind;
    struct cuda_counts counts = {.n_tokens = p.n_tokens, .n_sequences = n_sequences};
    struct cls_job job = {
        arguments_of(&p, &counts, max_sequences),
        device_copy(p.offsets, ((size_t)n_sequences + 1) * sizeof *p.offsets),
        max_sequences};
    job.a.q = q.device;
    job.a.q_stride = q.stride;
    size_t n_values = (size_t)max_sequences * (size_t)p.out_stride;
    const f16 *out = job_run(launch, &(struct job){cls_start, &job, job.a.out,
                                                   n_values * sizeof(f16), NULL, what});
    struct tally tally = {.what = what};
    for (int32_t b = 0; b < n_sequences; b++)
        expect_rows(&tally, &p, b, 0, 1, out, b);
    tally_end(&tally, 3e-7);
    expect_gaps(&p, out, n_sequences);
    expect_untouched(what, out + (size_t)n_sequences * (size_t)p.out_stride,
                     (size_t)n_behind * (size_t)p.out_stride);
}

static void test_cls(int argument) {
    int32_t width = head_widths[argument];
    static const int32_t all[] = {1, 17, 64, 127, 128, 129, 511, 512, 2, 31, 32, 33};
    for (int32_t n = 1; n <= 12; n += 11) {
        check_cls(width, width, 2, 1.0f, all, n, 0);
        check_cls(width, width - 4, 3, 8.0f, all, n, 5);
        check_cls(width, width, 1, 0.0f, all, n, 1);
    }
    check_cls(width, width, 12, 30.0f, all + 3, 3, 0);
}

int main(int argc, char **argv) {
    static const struct check_case cases[] = {
        {"attention wmma 16", test_attention, 0},
        {"attention mma 16", test_attention, 1},
        {"attention wmma 32", test_attention, 2},
        {"attention mma 32", test_attention, 3},
        {"attention wmma 64", test_attention, 4},
        {"attention mma 64", test_attention, 5},
        {"attention wmma 128", test_attention, 6},
        {"attention mma 128", test_attention, 7},
        {"attention long wmma 16", test_attention_long, 0},
        {"attention long mma 16", test_attention_long, 1},
        {"attention long wmma 32", test_attention_long, 2},
        {"attention long mma 32", test_attention_long, 3},
        {"attention long wmma 64", test_attention_long, 4},
        {"attention long mma 64", test_attention_long, 5},
        {"attention long wmma 128", test_attention_long, 6},
        {"attention long mma 128", test_attention_long, 7},
        {"attention_cls 16", test_cls, 0},
        {"attention_cls 32", test_cls, 1},
        {"attention_cls 64", test_cls, 2},
        {"attention_cls 128", test_cls, 3},
    };
    return check_main(cases, sizeof cases / sizeof *cases, argc, argv);
}
