/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels.c - every operator and every product, on every instruction set that this
 * machine has, against plain loops in double or in integers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "base/memory.h"
#include "kernels/cpu/isa.h"
#include "tests/unit/random_model.h"

static const char *const isas[] = {"portable", "avx2", "avx512", "avx512-bf16"};
static const char *const dtypes[] = {"fp32", "bf16", "int8"};
static const int32_t odd_sizes[] = {1, 3, 8, 16, 17, 36, 48, 50, 64, 100, 129};

enum { N_ISAS_NAMED = 4, N_SIZES = sizeof odd_sizes / sizeof *odd_sizes };

static size_t stride_of(int32_t n) {
    return ((size_t)n + ACTIVATION_ALIGN - 1) / ACTIVATION_ALIGN * ACTIVATION_ALIGN;
}

static const struct cpu_operators *operators_of(const char *isa) {
    const struct cpu_gemm *gemm = isa_gemm(isa, "fp32");
    return gemm ? isa_operators(gemm) : NULL;
}

/* n_rows rows of n values, zeros up to the stride. */
static float *random_rows(int32_t n_rows, int32_t n, float mean, float deviation) {
    size_t stride = stride_of(n);
    float *rows = memory_aligned((size_t)n_rows * stride * sizeof *rows);
    for (size_t r = 0; r < (size_t)n_rows; r++)
        for (int32_t i = 0; i < n; i++)
            rows[r * stride + (size_t)i] = mean + random_normal(deviation);
    return rows;
}

static void expect_near(double want, double got, double tolerance, const char *what,
                        const char *isa, int32_t n) {
    if (!(fabs(want - got) <= tolerance))
        fail_msg("%s on %s, size %d: expected %.9g, found %.9g", what, isa, n, want,
                 got);
}

/* ---- operators -------------------------------------------------------------------- */

static void check_layer_norm(const struct cpu_operators *ops, const char *isa,
                             int32_t n) {
    size_t stride = stride_of(n);
    float *in = random_rows(3, n, 300.0f, 2.0f), *out = random_rows(3, n, 0, 0);
    float *weight = random_rows(1, n, 1.0f, 0.2f),
          *bias = random_rows(1, n, 0.0f, 0.2f);
    ops->layer_norm(in, out, stride, 3, n, weight, bias);
    for (size_t r = 0; r < 3; r++) {
        double mean = 0, variance = 0;
        for (int32_t i = 0; i < n; i++)
            mean += (double)in[r * stride + (size_t)i] / n;
        for (int32_t i = 0; i < n; i++)
            variance += pow((double)in[r * stride + (size_t)i] - mean, 2) / n;
        for (int32_t i = 0; i < n; i++) {
            double want = ((double)in[r * stride + (size_t)i] - mean) /
                              sqrt(variance + 1e-12) * (double)weight[i] +
                          (double)bias[i];
            expect_near(want, (double)out[r * stride + (size_t)i], n > 1 ? 2e-4 : 1.0,
                        "LayerNorm", isa, n);
        }
        for (size_t i = (size_t)n; i < stride; i++)
            assert_true(out[r * stride + i] == 0.0f);
    }
    free(in);
    free(out);
    free(weight);
    free(bias);
}

/* Bytes decode to within half a step, zero decodes to zero, padding too. */
static void check_quantize(const struct cpu_operators *ops, const char *isa, int32_t n,
                           int32_t levels, float mean) {
    size_t stride = stride_of(n);
    float *in = random_rows(4, n, mean, 1.0f);
    memset(in + 2 * stride, 0, stride * sizeof *in); /* a row of zeros */
    uint8_t *bytes = memory_aligned(4 * stride);
    struct row_quantum quanta[4];
    ops->quantize(in, stride, bytes, stride, quanta, 4, (int32_t)stride, levels);
    for (size_t r = 0; r < 4; r++)
        for (size_t i = 0; i < stride; i++) {
            float value =
                quanta[r].scale * ((float)bytes[r * stride + i] - quanta[r].zero);
            assert_true(bytes[r * stride + i] <= levels);
            expect_near((double)in[r * stride + i], (double)value,
                        (double)quanta[r].scale * 1.01, "quantize", isa, n);
            if (in[r * stride + i] == 0.0f)
                assert_true(value == 0.0f);
        }
    free(in);
    free(bytes);
}

static void check_embed(const struct cpu_operators *ops, const char *isa, int32_t n,
                        enum dtype dtype) {
    static const size_t value_bytes[] = {4, 2, 2, 1};
    enum { V = 5 };
    unsigned char *data = memory_aligned((size_t)(V * n) * 4 + VECTOR_SLACK);
    float scale[V], row[256], position[256];
    for (int i = 0; i < V * n; i++) { /* any bit pattern that is a modest number */
        uint32_t random = random_u32();
        float f = random_normal(1.0f);
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        uint16_t half = (uint16_t)((random & 0x83ffu) | 0x3800u);
        uint16_t bfloat = (uint16_t)(bits >> 16);
        size_t at = (size_t)i * value_bytes[dtype];
        if (i % 7 == 0)
            half &= 0x83ffu; /* a subnormal */
        if (dtype == DTYPE_F32)
            memcpy(data + at, &f, 4);
        else if (dtype == DTYPE_I8)
            data[at] = (unsigned char)random;
        else
            memcpy(data + at, dtype == DTYPE_F16 ? &half : &bfloat, 2);
    }
    for (int i = 0; i < V; i++)
        scale[i] = 0.01f * (float)(i + 1);
    float *weight = random_rows(1, n, 1.0f, 0.2f),
          *bias = random_rows(1, n, 0.0f, 0.2f);
    float *x = random_rows(1, n, 0, 0), *want = random_rows(1, n, 0, 0);
    struct tensor table = {.data = data,
                           .row_scale = dtype == DTYPE_I8 ? scale : NULL,
                           .n_rows = V,
                           .n_cols = n,
                           .dtype = dtype};
    struct embedding_tables tables = {table, table, weight, bias};
    for (int32_t id = 0; id < V; id++) {
        ops->embed(&tables, id, V - 1 - id, x);
        tensor_row_f32(&table, id, row);
        tensor_row_f32(&table, V - 1 - id, position);
        for (int32_t i = 0; i < n; i++)
            want[i] = row[i] + position[i];
        ops->layer_norm(want, want, stride_of(n), 1, n, weight, bias);
        for (int32_t i = 0; i < n; i++)
            expect_near((double)want[i], (double)x[i], 1e-5, "embed", isa, n);
        for (size_t i = (size_t)n; i < stride_of(n); i++)
            assert_true(x[i] == 0.0f);
    }
    free(data);
    free(weight);
    free(bias);
    free(x);
    free(want);
}

static void check_attention(void (*attend)(const struct attention *), double tolerance,
                            const char *isa, int32_t n_keys, int32_t n_queries,
                            int32_t width, bool is_extreme) {
    size_t stride = stride_of(2 * width);
    float *q = random_rows(n_queries, 2 * width, 0, 2.0f);
    float *kv = random_rows(n_keys, 2 * width, 0, 1.0f);
    if (is_extreme) { /* one direction, one length: sums as large as they get */
        for (size_t i = 0; i < (size_t)n_queries * stride; i++)
            q[i] = i % stride < (size_t)width ? 3.0f : 0.0f;
        for (size_t i = 0; i < (size_t)n_keys * stride; i++)
            kv[i] = i % stride < (size_t)(2 * width) ? -5.0f : 0.0f;
    }
    float *out = random_rows(n_queries, 2 * width, 0, 0);
    float *scratch = memory_aligned(attention_scratch(n_keys, width) * sizeof *scratch);
    struct attention a = {.q = q,
                          .k = kv,
                          .v = kv + width,
                          .out = out,
                          .q_stride = stride,
                          .kv_stride = stride,
                          .out_stride = stride,
                          .n_queries = n_queries,
                          .n_keys = n_keys,
                          .head_dim = width,
                          .scale = 1.0f / sqrtf((float)width),
                          .scratch = scratch};
    attend(&a);
    for (size_t i = 0; i < (size_t)n_queries; i++) {
        double scores[512], sum = 0, top = -INFINITY;
        for (size_t j = 0; j < (size_t)n_keys; j++) {
            scores[j] = 0;
            for (size_t d = 0; d < (size_t)width; d++)
                scores[j] += (double)q[i * stride + d] * (double)kv[j * stride + d];
            top = fmax(top, scores[j]);
        }
        for (size_t j = 0; j < (size_t)n_keys; j++)
            sum += scores[j] = exp((scores[j] - top) * (double)a.scale);
        for (size_t d = 0; d < (size_t)width; d++) {
            double want = 0;
            for (size_t j = 0; j < (size_t)n_keys; j++)
                want += scores[j] / sum * (double)kv[j * stride + (size_t)width + d];
            expect_near(want, (double)out[i * stride + d], tolerance, "attention", isa,
                        n_keys);
        }
        for (size_t d = (size_t)width; d < 2 * (size_t)width; d++)
            assert_true(out[i * stride + d] == 0.0f); /* the neighbouring head's */
    }
    free(q);
    free(kv);
    free(out);
    free(scratch);
}

static void test_operators(void **state) {
    (void)state;
    static const int32_t widths[] = {12, 16, 32, 64, 80};
    static const int32_t keys[] = {1, 2, 7, 8, 9, 16, 25, 33, 130, 512};
    for (size_t i = 0; i < N_ISAS_NAMED; i++) {
        const struct cpu_operators *ops = operators_of(isas[i]);
        if (!ops)
            continue;
        for (size_t s = 0; s < N_SIZES; s++) {
            check_layer_norm(ops, isas[i], odd_sizes[s]);
            for (int levels = 127; levels <= 255; levels += 128) {
                check_quantize(ops, isas[i], odd_sizes[s], levels, 0.0f);
                check_quantize(ops, isas[i], odd_sizes[s], levels, 50.0f);
                check_quantize(ops, isas[i], odd_sizes[s], levels, -50.0f);
            }
            for (int dtype = DTYPE_F32; dtype <= DTYPE_I8; dtype++)
                check_embed(ops, isas[i], odd_sizes[s], (enum dtype)dtype);
        }
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
                const struct cpu_gemm *int8 = isa_gemm(isas[i], "int8");
                for (int32_t n = 1; n <= keys[k]; n += keys[k] > 1 ? keys[k] - 1 : 1) {
                    check_attention(ops->attend, 2e-5, isas[i], keys[k], n, widths[w],
                                    false);
                    if (!int8 || !int8->attend)
                        continue;
                    check_attention(int8->attend, 2e-3, isas[i], keys[k], n, widths[w],
                                    false);
                    check_attention(int8->attend, 2e-3, isas[i], keys[k], n, widths[w],
                                    true);
                }
            }
    }
}

/* ---- products --------------------------------------------------------------------- */

struct problem {
    struct packed_linear w;
    float *weights; /* [n_padded, k_padded], int8: whole numbers */
    float *in;      /* [rows, stride of k]; what the encoded rows stand for */
    void *encoded;
    struct row_quantum *quanta;
    float *residual, *out;
    int32_t n_rows;
    struct product product;
};

static void problem_weights(struct problem *p, const struct cpu_gemm *g) {
    size_t k_padded = (size_t)p->w.k_padded;
    p->weights = memory_aligned((size_t)p->w.n_padded * k_padded * sizeof(float));
    p->w.bias = random_rows(1, p->w.n_padded, 0, 0.5f);
    p->w.scale = random_rows(1, p->w.n_padded, 0.02f, 0.001f);
    p->w.column_sum = random_rows(1, p->w.n_padded, 0, 0);
    for (size_t c = 0; c < (size_t)p->w.n; c++)
        for (size_t k = 0; k < (size_t)p->w.k; k++) {
            int32_t levels = g->weight_levels;
            if (g->format == ROWS_INT16) /* a column of these has the largest norm */
                levels = (int32_t)(int16_norm_limit(p->w.k) / sqrtf((float)p->w.k));
            if (levels > g->weight_levels)
                levels = g->weight_levels;
            float v =
                levels ? (float)((int32_t)(random_u32() % (uint32_t)(2 * levels + 1)) -
                                 levels)
                       : random_normal(0.2f);
            if (levels && c % 5 == 1)
                v = v > 0 ? (float)levels : -(float)levels;
            if (levels && c % 5 == 2) /* with a constant row: the largest sum */
                v = (float)levels;
            p->weights[c * k_padded + k] = v;
            p->w.column_sum[c] += v;
        }
    size_t value_bytes = g->format == ROWS_INT8 ? 1 : strcmp(g->dtype, "bf16") ? 4 : 2;
    p->w.panel_bytes = (size_t)g->panel_width * k_padded * value_bytes;
    p->w.panels =
        memory_aligned((size_t)(p->w.n_padded / g->panel_width) * p->w.panel_bytes);
    for (int32_t i = 0; i < p->w.n_padded / g->panel_width; i++)
        g->pack_panel(p->weights + (size_t)(i * g->panel_width) * k_padded,
                      p->w.k_padded,
                      (char *)p->w.panels + (size_t)i * p->w.panel_bytes);
}

/* Checks the integers against the floats, and puts them in their place. */
static void problem_decode_int16(struct problem *p, size_t stride) {
    for (size_t r = 0; r < (size_t)p->n_rows; r++)
        for (size_t k = 0; k < stride; k++) {
            float integer = (float)((const int16_t *)p->encoded)[r * stride + k];
            expect_near((double)p->in[r * stride + k],
                        (double)(integer * p->quanta[r].scale),
                        0.51 * (double)p->quanta[r].scale, "encode", "int16", p->w.k);
            p->in[r * stride + k] = integer;
        }
}

/* Extreme bytes in every third row: what would saturate, saturates there. */
static void problem_rows(struct problem *p, const struct cpu_gemm *g) {
    size_t stride = stride_of(p->w.k);
    p->in = random_rows(p->n_rows, p->w.k, 0, 1.0f);
    p->product.in = (struct rows){.data = p->in, .stride = stride * sizeof(float)};
    if (g->format == ROWS_F32)
        return;
    size_t value_bytes = g->format == ROWS_INT8 ? 1 : 2;
    p->encoded = memory_aligned((size_t)p->n_rows * stride * value_bytes);
    p->product.in = (struct rows){.data = p->encoded, .stride = stride * value_bytes};
    p->quanta = calloc((size_t)p->n_rows, sizeof *p->quanta);
    p->product.in.quanta = p->quanta;
    if (g->format == ROWS_BF16 || g->format == ROWS_INT16) {
        for (size_t k = 0; k < (size_t)p->w.k; k++)
            for (size_t r = 2; r < (size_t)p->n_rows; r += 3)
                p->in[r * stride + k] = g->format == ROWS_INT16 ? 7.7f : p->in[k];
        g->encode(p->in, stride, p->encoded, stride, p->quanta, p->n_rows,
                  (int32_t)stride);
        if (g->format == ROWS_INT16)
            problem_decode_int16(p, stride);
        return;
    }
    for (size_t r = 0; r < (size_t)p->n_rows; r++) {
        p->quanta[r] = (struct row_quantum){0.03f, (float)(random_u32() % 100)};
        for (size_t k = 0; k < (size_t)p->w.k; k++) {
            uint32_t byte = random_u32() % (uint32_t)(g->row_levels + 1);
            if (r % 3 == 2)
                byte = (uint32_t)g->row_levels;
            ((uint8_t *)p->encoded)[r * stride + k] = (uint8_t)byte;
            p->in[r * stride + k] = (float)byte;
        }
    }
}

static double as_bfloat(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    memcpy(&v, &bits, sizeof bits);
    return (double)v;
}

static double problem_value(const struct problem *p, const struct cpu_gemm *g,
                            size_t row, size_t column, double *magnitude) {
    double sum = 0, size = 0;
    bool is_bf16 = g->format != ROWS_INT16 && strcmp(g->dtype, "bf16") == 0;
    for (size_t k = 0; k < (size_t)p->w.k; k++) {
        float a = p->in[row * stride_of(p->w.k) + k];
        float b = p->weights[column * (size_t)p->w.k_padded + k];
        double term = (g->format == ROWS_BF16 ? as_bfloat(a) : (double)a) *
                      (is_bf16 ? as_bfloat(b) : (double)b);
        sum += term;
        size += fabs(term);
    }
    if (p->quanta && g->format != ROWS_BF16) {
        double scale = (double)p->quanta[row].scale * (double)p->w.scale[column];
        sum = (sum - (double)p->quanta[row].zero * (double)p->w.column_sum[column]) *
              scale;
        size *= scale;
    }
    *magnitude = size;
    return sum + (double)p->w.bias[column];
}

static double apply(enum epilogue epilogue, double v, double residual) {
    switch (epilogue) {
    case EPILOGUE_BIAS:
        return v;
    case EPILOGUE_RELU:
        return v > 0 ? v : 0;
    case EPILOGUE_GELU:
        return 0.5 * v * erfc(-v / sqrt(2));
    case EPILOGUE_RESIDUAL:
        return v + residual;
    }
    return NAN;
}

static void problem_check(const struct problem *p, const struct cpu_gemm *g) {
    size_t stride = p->product.out_stride;
    for (size_t r = 0; r < (size_t)p->n_rows; r++)
        for (size_t c = 0; c < (size_t)p->w.n_padded; c++) {
            double magnitude, v = problem_value(p, g, r, c, &magnitude);
            double want =
                apply(p->product.epilogue, v, (double)p->residual[r * stride + c]);
            double tolerance = 1e-6 * magnitude + 2e-6 * fabs(want) + 2e-6;
            if (p->product.epilogue == EPILOGUE_GELU && g->format == ROWS_INT8)
                tolerance += 3e-4 + 3.5e-4 * fabs(v); /* the coarse form */
            if (!(fabs(want - (double)p->out[r * stride + c]) <= tolerance))
                fail_msg("%s %s, %d rows, n %d, k %d, epilogue %d: [%zu,%zu] expected "
                         "%.9g, found %.9g",
                         g->dtype, g->isa, p->n_rows, p->w.n, p->w.k,
                         p->product.epilogue, r, c, want,
                         (double)p->out[r * stride + c]);
        }
}

static void check_product(const struct cpu_gemm *g, int32_t n_rows, int32_t n,
                          int32_t k, enum epilogue epilogue) {
    int32_t width = g->panel_width;
    struct problem p = {.n_rows = n_rows};
    p.w = (struct packed_linear){.n = n,
                                 .k = k,
                                 .panel_width = width,
                                 .n_padded = (n + width - 1) / width * width,
                                 .k_padded =
                                     (k + g->k_group - 1) / g->k_group * g->k_group};
    problem_weights(&p, g);
    problem_rows(&p, g);
    p.residual = random_rows(n_rows, p.w.n_padded, 0, 1.0f);
    p.out = random_rows(n_rows, p.w.n_padded, 0, 0);
    p.product.weights = &p.w;
    p.product.out = p.out;
    p.product.residual = p.residual;
    p.product.out_stride = stride_of(p.w.n_padded);
    p.product.epilogue = epilogue;
    g->run(&p.product, 0, n_rows, 0, p.w.n_padded / width);
    problem_check(&p, g);
    void *blocks[] = {p.weights, p.in,     p.encoded, p.quanta,       p.residual,
                      p.out,     p.w.bias, p.w.scale, p.w.column_sum, p.w.panels};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

static void test_products(void **state) {
    (void)state;
    static const int32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 17};
    int n_families = 0;
    for (size_t i = 0; i < N_ISAS_NAMED; i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
            const struct cpu_gemm *g = isa_gemm(isas[i], dtypes[d]);
            if (!g)
                continue;
            n_families++;
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                enum epilogue epilogue = (enum epilogue)(r % 4);
                check_product(g, rows[r], 48, 64, epilogue);
                check_product(g, rows[r], 50, 37, (enum epilogue)((r + 1) % 4));
                check_product(g, rows[r], 7, 129, (enum epilogue)((r + 2) % 4));
            }
            check_product(g, 10, 96, 768, EPILOGUE_BIAS);
            check_product(g, 6, 48, 3072, EPILOGUE_BIAS);
        }
    assert_true(n_families >= 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operators),
        cmocka_unit_test(test_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
