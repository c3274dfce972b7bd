/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quantize.c - int8 weights: how near they are, which tensors, the same bytes twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "model/checkpoint.h"
#include "model/random.h"
#include "tests/unit/model_files.h"
#include "weights/quantize.h"
#include "weights/safetensors.h"

static const struct random_options SMALL = {.dim = 12,
                                            .n_layers = 2,
                                            .n_heads = 3,
                                            .max_positions = 8,
                                            .n_labels = 3,
                                            .n_tags = 3,
                                            .hidden_dim = 20,
                                            .vocab_size = 40,
                                            .seed = 7,
                                            .dtype = "f16"};

static void quantizes_rows(void **state) {
    (void)state;
    signed char q[4];
    static const float row[] = {1.27f, -0.63f, 0.004f, -1.27f};
    float scale = quantize_row(row, 4, q);
    assert_true(fabsf(scale - 0.01f) < 1e-7f);
    assert_int_equal(q[0], 127);
    assert_int_equal(q[1], -63);
    assert_int_equal(q[2], 0);
    assert_int_equal(q[3], -127);
    static const float zeros[4];
    assert_true(quantize_row(zeros, 4, q) == 1.0f);
    assert_int_equal(q[3], 0);
    static const float tiny[] = {1e-45f, 0, 0,
                                 -1e-45f}; /* the quotient would be zero */
    assert_true(quantize_row(tiny, 4, q) > 0.0f);
    static const float huge[] = {3.4e38f, -3.4e38f, 1.7e38f, 0};
    scale = quantize_row(huge, 4, q);
    assert_true(isfinite(scale) && q[0] == 127 && q[1] == -127);
    assert_true(q[2] == 63 || q[2] == 64);
}

static void is_near(const struct tensor *a, const struct tensor *b) {
    float x[64], y[64];
    for (int32_t r = 0; r < a->n_rows; r++) {
        float largest = 0;
        tensor_row_f32(a, r, x);
        tensor_row_f32(b, r, y);
        for (int32_t i = 0; i < a->n_cols; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        for (int32_t i = 0; i < a->n_cols; i++) {
            float allowed = b->dtype == DTYPE_I8 ? largest / 127 * 0.501f : 0;
            if (fabsf(x[i] - y[i]) > allowed)
                fail_msg("row %d column %d: %g and %g", r, i, (double)x[i],
                         (double)y[i]);
        }
    }
}

static void quantizes_models(void **state) {
    (void)state;
    char *dir = scratch_make(), *int8 = scratch_make();
    struct quantize_report report;
    struct error err = {0};
    struct checkpoint *a, *b;
    assert_int_equal(random_model_write(dir, &SMALL, NULL), STATUS_OK);
    static const char *const keep[] = {"*.layer.0.attention.*", "nothing"};
    if (quantize_model(dir, int8, keep, 2, &report, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_int_equal(report.n_int8, 2 + 2 * 6 - 4);
    assert_int_equal(report.n_kept, 4);
    assert_true(report.worst_error > 0.001 && report.worst_error < 0.02);
    assert_int_equal(checkpoint_open(dir, &a, NULL), STATUS_OK);
    if (checkpoint_open(int8, &b, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_string_equal(b->sha256, report.sha256);
    assert_int_equal(b->dtype, DTYPE_I8);
    assert_true(b->config.is_quantized);
    assert_int_equal(a->n_parameters, b->n_parameters);
    is_near(&a->word_embeddings, &b->word_embeddings);
    is_near(&a->position_embeddings, &b->position_embeddings);
    is_near(&a->layers[1].q.weight, &b->layers[1].q.weight);
    is_near(&a->layers[1].down.weight, &b->layers[1].down.weight);
    is_near(&a->layers[0].up.bias, &b->layers[0].up.bias);
    is_near(&a->layers[0].q.weight, &b->layers[0].q.weight);
    assert_int_equal(b->word_embeddings.dtype, DTYPE_I8);
    assert_int_equal(b->layers[1].down.weight.dtype, DTYPE_I8);
    assert_int_equal(b->layers[0].q.weight.dtype, DTYPE_F16); /* kept */
    assert_int_equal(b->layers[0].up.weight.dtype, DTYPE_I8);
    assert_int_equal(b->layers[0].up.bias.dtype, DTYPE_F32);
    assert_int_equal(b->classifier.weight.dtype, DTYPE_F16);
    assert_int_equal(b->tagger.weight.dtype, DTYPE_F16);
    checkpoint_close(a);
    checkpoint_close(b);
    assert_true(file_exists(scratch_path(int8, "vocab.txt")));
    assert_true(file_exists(scratch_path(int8, "tokenizer_config.json")));
    scratch_remove(dir);
    scratch_remove(int8);
}

static void is_reproducible(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors",
                                        "vocab.txt"};
    char *dirs[4];
    struct quantize_report report;
    for (int i = 0; i < 4; i++)
        dirs[i] = scratch_make();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(random_model_write(dirs[i], &SMALL, NULL), STATUS_OK);
        assert_int_equal(quantize_model(dirs[i], dirs[2 + i], NULL, 0, &report, NULL),
                         STATUS_OK);
    }
    for (int i = 0; i < 4; i += 2)
        for (size_t k = 0; k < 3; k++) {
            char *a, *b;
            size_t n_a, n_b;
            assert_int_equal(
                file_read(scratch_path(dirs[i], names[k]), 1 << 20, &a, &n_a, NULL), 0);
            assert_int_equal(
                file_read(scratch_path(dirs[i + 1], names[k]), 1 << 20, &b, &n_b, NULL),
                0);
            assert_int_equal(n_a, n_b);
            assert_memory_equal(a, b, n_a);
            free(a);
            free(b);
        }
    struct random_options other = SMALL;
    other.seed = 8;
    assert_int_equal(random_model_write(dirs[1], &other, NULL), STATUS_OK);
    struct checkpoint *a, *b;
    assert_int_equal(checkpoint_open(dirs[0], &a, NULL), STATUS_OK);
    assert_int_equal(checkpoint_open(dirs[1], &b, NULL), STATUS_OK);
    assert_string_not_equal(a->sha256, b->sha256);
    checkpoint_close(a);
    checkpoint_close(b);
    for (int i = 0; i < 4; i++)
        scratch_remove(dirs[i]);
}

static void refuses(void **state) {
    (void)state;
    char *dir = scratch_make(), *int8 = scratch_make();
    struct quantize_report report;
    struct error err;
    assert_int_equal(random_model_write(dir, &SMALL, NULL), STATUS_OK);
    assert_int_equal(quantize_model(dir, dir, NULL, 0, &report, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "the same directory"));
    assert_int_equal(quantize_model(dir, int8, NULL, 0, &report, &err), STATUS_OK);
    assert_int_equal(quantize_model(int8, dir, NULL, 0, &report, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "I8"));
    assert_int_equal(quantize_model("/nonexistent", dir, NULL, 0, &report, &err),
                     STATUS_NOT_FOUND);
    assert_int_equal(quantize_model(dir, "/dev/null/x", NULL, 0, &report, &err),
                     STATUS_IO);
    assert_non_null(strstr(err.message, "cannot make /dev/null/x"));
    scratch_remove(dir);
    scratch_remove(int8);

    static const struct {
        struct random_options options;
        const char *words;
    } rows[] = {
        {{.dim = 7, .n_heads = 2},
         "\"dim\" is 7, expected a multiple of \"n_heads\", 2"},
        {{.dim = 4, .n_heads = 2, .vocab_size = 4}, "expected 5 or more"},
        {{.dim = 4, .n_heads = 2, .vocab_file = "/nonexistent"}, "No such file"},
        {{.dim = 4, .n_heads = 2, .vocab_file = "LICENSE", .vocab_size = 9},
         "entries, the model only 9"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct random_options o = rows[i].options;
        o.n_layers = o.n_labels = 1;
        o.max_positions = 8;
        assert_int_not_equal(random_model_write("/nonexistent/x", &o, &err), STATUS_OK);
        if (!strstr(err.message, rows[i].words))
            fail_msg("\"%s\", expected \"%s\"", err.message, rows[i].words);
    }
}

/* The committed model is what the command makes of its source. */
static void default_model_is_reproducible(void **state) {
    (void)state;
    static const char source[] = "../shared/models/ade-minilm";
    if (!file_exists(source)) {
        print_message("  %s is not there: passed over\n", source);
        return;
    }
    char *dir = scratch_make();
    struct quantize_report report;
    struct checkpoint *c;
    assert_int_equal(quantize_model(source, dir, NULL, 0, &report, NULL), STATUS_OK);
    assert_int_equal(checkpoint_open("weights/ade", &c, NULL), STATUS_OK);
    assert_string_equal(c->sha256, report.sha256);
    checkpoint_close(c);
    print_message("  %s used too\n", source);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantizes_rows),
        cmocka_unit_test(quantizes_models),
        cmocka_unit_test(is_reproducible),
        cmocka_unit_test(refuses),
        cmocka_unit_test(default_model_is_reproducible),
    };
    return cmocka_run_group_tests_name("quantize", tests, NULL, NULL);
}
