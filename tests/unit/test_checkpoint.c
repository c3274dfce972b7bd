/* SPDX-License-Identifier: Apache-2.0
 *
 * test_checkpoint.c - model directories: what must be in them, what must not.
 *
 * A small random model is written, its tensors are changed one way at a time and written
 * again; each change must be refused with the tensor's name and both shapes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/half.h"
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
                                            .seed = 7};

static char *make_model(const struct random_options *options) {
    char *dir = scratch_make();
    struct error err = {0};
    if (random_model_write(dir, options, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return dir;
}

static void write_tensors(const char *dir, const char *name,
                          const struct safetensors_tensor *tensors, size_t n) {
    struct file_writer w;
    char sha256[SHA256_HEX_BYTES];
    assert_int_equal(file_create(scratch_path(dir, name), &w, NULL), STATUS_OK);
    assert_int_equal(safetensors_write(&w, tensors, n, NULL, sha256, NULL), STATUS_OK);
    assert_int_equal(file_commit(&w, NULL), STATUS_OK);
}

static void write_file(const char *dir, const char *name, const char *text) {
    scratch_write(scratch_path(dir, name), text, strlen(text));
}

static void expect_refused(const char *dir, const char *words, const char *more) {
    struct checkpoint *c;
    struct error err = {0};
    enum status status = checkpoint_open(dir, &c, &err);
    if (status != STATUS_INVALID || !strstr(err.message, words) ||
        !strstr(err.message, more))
        fail_msg("%s \"%s\", expected \"%s\" and \"%s\"", status_name(status),
                 err.message, words, more);
    assert_null(c);
}

#define LAYER "distilbert.transformer.layer."
#define WORDS "distilbert.embeddings.word_embeddings.weight"

/* One change of one tensor. */
struct change {
    const char *tensor;
    const char *renamed; /* NULL: removed, unless dims or dtype say otherwise */
    int32_t n_dims, dims[3];
    enum safetensors_dtype dtype;
    const char *words, *more;
};

static const struct change CHANGES[] = {
    {WORDS, NULL, 0, {0}, 0, "tensor \"" WORDS "\" is missing", ""},
    {"classifier.bias", NULL, 0, {0}, 0, "tensor \"classifier.bias\" is missing", ""},
    {"token_classifier.weight",
     NULL,
     0,
     {0},
     0,
     "\"token_classifier.weight\" is missing",
     ""},
    {LAYER "1.attention.k_lin.bias",
     NULL,
     0,
     {0},
     0,
     "\"" LAYER "1.attention.k_lin.bias\" is missing",
     ""},
    {LAYER "1.ffn.lin1.bias",
     LAYER "2.ffn.lin1.bias",
     1,
     {20},
     0,
     "\"" LAYER "1.ffn.lin1.bias\" is missing",
     ""},
    {LAYER "1.ffn.lin1.bias", LAYER "01.ffn.lin1.bias", 1, {20}, 0, "is missing", ""},
    {WORDS,
     WORDS,
     2,
     {12, 40},
     0,
     "\"" WORDS "\" has shape [12, 40]",
     "expected [40, 12]"},
    {WORDS, WORDS, 1, {480}, 0, "has shape [480]", "expected [40, 12]"},
    {WORDS, WORDS, 3, {1, 40, 12}, 0, "has shape [1, 40, 12]", "expected [40, 12]"},
    {LAYER "0.ffn.lin1.weight",
     LAYER "0.ffn.lin1.weight",
     2,
     {12, 20},
     0,
     "has shape [12, 20]",
     "expected [20, 12] by config.json"},
    {"classifier.weight",
     "classifier.weight",
     2,
     {1, 12},
     0,
     "\"classifier.weight\" has shape [1, 12]",
     "expected [3, 12]"},
    {"classifier.bias",
     "classifier.bias",
     2,
     {1, 3},
     0,
     "has shape [1, 3]",
     "expected [3] by config.json"},
    {"classifier.bias", "classifier.bias", 0, {0}, 0, "has shape []", "expected [3]"},
    {"pre_classifier.bias",
     "pre_classifier.bias",
     1,
     {3},
     SAFETENSORS_I64,
     "has shape [3]",
     "expected [12]"},
    {"classifier.bias",
     "classifier.bias",
     1,
     {3},
     SAFETENSORS_I64,
     "has dtype I64",
     "expected F32, F16 or BF16"},
};

static void refuses_changes(void **state) {
    (void)state;
    static const char zeros[4096];
    char *dir = make_model(&SMALL);
    struct safetensors st;
    assert_int_equal(safetensors_open(dir, false, &st, NULL), STATUS_OK);
    assert_int_equal(safetensors_read(&st, NULL), STATUS_OK);
    struct safetensors_tensor tensors[64];
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        const struct change *change = &CHANGES[i];
        size_t n = 0;
        for (size_t k = 0; k < st.n_tensors; k++) {
            tensors[n] = st.tensors[k];
            if (strcmp(change->tensor, st.tensors[k].name) == 0) {
                if (!change->renamed)
                    continue;
                tensors[n].name = change->renamed;
                tensors[n].n_dims = change->n_dims;
                memcpy(tensors[n].dims, change->dims, sizeof change->dims);
                tensors[n].dtype = change->dtype;
                tensors[n].data = zeros;
            }
            n++;
        }
        write_tensors(dir, "model.safetensors", tensors, n);
        expect_refused(dir, change->words, change->more);
    }
    /* One more than there should be. */
    static const char *const extra[] = {"lm_head.weight", LAYER "2.ffn.lin1.bias",
                                        "classifier.weight_scale",
                                        "token_classifier.x"};
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        memcpy(tensors, st.tensors, st.n_tensors * sizeof *tensors);
        tensors[st.n_tensors] = (struct safetensors_tensor){
            .name = extra[i], .data = zeros, .n_dims = 1, .dims = {20}};
        write_tensors(dir, "model.safetensors", tensors, st.n_tensors + 1);
        expect_refused(dir, extra[i], "is not part of the model");
    }
    /* Position ids are passed over. */
    tensors[st.n_tensors] =
        (struct safetensors_tensor){.name = "distilbert.embeddings.position_ids",
                                    .data = zeros,
                                    .dtype = SAFETENSORS_I64,
                                    .n_dims = 2,
                                    .dims = {1, 8}};
    write_tensors(dir, "model.safetensors", tensors, st.n_tensors + 1);
    struct checkpoint *c;
    assert_int_equal(checkpoint_open(dir, &c, NULL), STATUS_OK);
    checkpoint_close(c);
    safetensors_close(&st);
    scratch_remove(dir);
}

static void refuses_other_config(void **state) {
    (void)state;
    static const char head[] = "{\"dim\":12,\"n_heads\":3,\"hidden_dim\":20,"
                               "\"max_position_embeddings\":8,\"vocab_size\":40,";
    static const struct {
        const char *tail, *words;
    } rows[] = {
        {"\"num_labels\":3,\"n_layers\":2}", "it has no \"token_id2label\""},
        {"\"num_labels\":3,\"n_layers\":1,\"token_id2label\":{\"0\":\"O\",\"1\":\"B-"
         "A\","
         "\"2\":\"I-A\"}}",
         "\"" LAYER "1."},
        {"\"num_labels\":3,\"n_layers\":3,\"token_id2label\":{\"0\":\"O\",\"1\":\"B-"
         "A\","
         "\"2\":\"I-A\"}}",
         "\"" LAYER "2.attention.q_lin.weight\" is missing"},
        {"\"num_labels\":2,\"n_layers\":2}", "has shape [3, 12], expected [2, 12]"},
        {"\"num_labels\":3,\"n_layers\":2,\"token_id2label\":{\"0\":\"O\"}}",
         "\"token_classifier.weight\" has shape [3, 12], expected [1, 12]"},
    };
    char *dir = make_model(&SMALL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char json[512];
        snprintf(json, sizeof json, "%s%s", head, rows[i].tail);
        write_file(dir, "config.json", json);
        expect_refused(dir, rows[i].words, dir);
    }
    write_file(dir, "config.json", "{");
    expect_refused(dir, "ends too early", "config.json");
    scratch_remove(dir);
}

struct lines {
    size_t n;
    char last[400];
};

static void count_line(void *user, const char *line) {
    struct lines *lines = user;
    lines->n++;
    snprintf(lines->last, sizeof lines->last, "%s", line);
}

static void finds_every_problem(void **state) {
    (void)state;
    char *dir = make_model(&SMALL);
    struct lines lines = {0};
    assert_int_equal(checkpoint_check(dir, count_line, &lines), 0);
    struct safetensors st;
    assert_int_equal(safetensors_open(dir, false, &st, NULL), STATUS_OK);
    assert_int_equal(safetensors_read(&st, NULL), STATUS_OK);
    st.tensors[0].name = "one.more";
    st.tensors[1].name = "two.more";
    write_tensors(dir, "model.safetensors", st.tensors, st.n_tensors);
    safetensors_close(&st);
    assert_int_equal(checkpoint_check(dir, count_line, &lines), 4);
    assert_int_equal(lines.n, 4);
    assert_non_null(strstr(lines.last, "two.more"));
    write_file(dir, "config.json", "[");
    assert_int_equal(checkpoint_check(dir, count_line, &lines), 1);
    scratch_remove(dir);
}

static void opens(void **state) {
    (void)state;
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    static const enum dtype expected[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (size_t i = 0; i < 3; i++) {
        struct random_options options = SMALL;
        options.dtype = dtypes[i];
        options.is_sinusoidal = i == 1;
        char *dir = make_model(&options);
        struct checkpoint *c;
        struct error err = {0};
        if (checkpoint_open(dir, &c, &err) != STATUS_OK)
            fail_msg("%s", err.message);
        assert_int_equal(c->dtype, expected[i]);
        assert_string_equal(c->name, strrchr(dir, '/') + 1);
        assert_int_equal(strlen(c->sha256), 64);
        assert_int_equal(c->layers[1].down.weight.n_cols, 20);
        assert_int_equal(c->layers[1].down.weight.n_rows, 12);
        assert_int_equal(c->tagger.bias.n_cols, 3);
        assert_int_equal(c->n_parameters,
                         40 * 12 + 8 * 12 + 24 + 12 * 12 + 12 + 2 * (3 * 12 + 3) +
                             2 * (4 * (144 + 12) + 2 * 20 * 12 + 20 + 12 + 4 * 12));
        float row[20];
        tensor_row_f32(&c->embedding_norm.weight, 0, row);
        assert_true(row[0] == 1.0f && row[11] == 1.0f);
        tensor_row_f32(&c->word_embeddings, 0, row); /* padding */
        assert_true(row[0] == 0.0f && row[11] == 0.0f);
        tensor_row_f32(&c->position_embeddings, 0, row);
        if (options.is_sinusoidal)
            assert_true(row[0] == 0.0f && row[1] == 1.0f);
        tensor_row_f32(&c->layers[0].q.weight, 3, row);
        assert_true(row[0] != 0.0f && row[0] > -0.2f && row[0] < 0.2f);
        checkpoint_close(c);
        scratch_remove(dir);
    }
    checkpoint_close(NULL);
}

static void names_models(void **state) {
    (void)state;
    char *dir = make_model(&SMALL);
    const char *last = strrchr(dir, '/') + 1;
    static const char *const tails[] = {"", "/", "///", "/."};
    for (size_t i = 0; i < 4; i++) {
        char path[512];
        struct checkpoint *c;
        snprintf(path, sizeof path, "%s%s", dir, tails[i]);
        assert_int_equal(checkpoint_open(path, &c, NULL), STATUS_OK);
        assert_string_equal(c->name, last);
        checkpoint_close(c);
    }
    scratch_remove(dir);
}

/* The same model in two files gives the same tensors. */
static void opens_shards(void **state) {
    (void)state;
    char *dir = make_model(&SMALL);
    struct checkpoint *one, *two;
    struct safetensors st;
    char index[8192] = "{\"metadata\":{},\"weight_map\":{";
    assert_int_equal(checkpoint_open(dir, &one, NULL), STATUS_OK);
    assert_int_equal(safetensors_open(dir, false, &st, NULL), STATUS_OK);
    assert_int_equal(safetensors_read(&st, NULL), STATUS_OK);
    size_t n_first = 13;
    write_tensors(dir, "model-1.safetensors", st.tensors, n_first);
    write_tensors(dir, "model-2.safetensors", st.tensors + n_first,
                  st.n_tensors - n_first);
    for (size_t i = 0; i < st.n_tensors; i++) {
        size_t n = strlen(index);
        snprintf(index + n, sizeof index - n, "%s\"%s\":\"model-%d.safetensors\"",
                 i ? "," : "", st.tensors[i].name, i < n_first ? 1 : 2);
    }
    strncat(index, "}}", sizeof index - strlen(index) - 1);
    write_file(dir, SAFETENSORS_INDEX_FILE, index);
    unlink(scratch_path(dir, "model.safetensors"));
    assert_int_equal(checkpoint_open(dir, &two, NULL), STATUS_OK);
    assert_string_not_equal(one->sha256, two->sha256);
    assert_int_equal(one->n_parameters, two->n_parameters);
    const struct tensor *a = &one->layers[1].up.weight, *b = &two->layers[1].up.weight;
    assert_memory_equal(a->data, b->data, 12 * 20 * sizeof(float));
    a = &one->classifier.weight;
    b = &two->classifier.weight;
    assert_memory_equal(a->data, b->data, 12 * 3 * sizeof(float));
    checkpoint_close(one);
    checkpoint_close(two);
    safetensors_close(&st);
    scratch_remove(dir);
}

static void refuses_bad_scales(void **state) {
    (void)state;
    char *dir = make_model(&SMALL), *int8 = scratch_make();
    struct quantize_report report;
    struct safetensors st;
    struct checkpoint *c;
    assert_int_equal(quantize_model(dir, int8, NULL, 0, &report, NULL), STATUS_OK);
    assert_int_equal(checkpoint_open(int8, &c, NULL), STATUS_OK);
    assert_int_equal(c->dtype, DTYPE_I8);
    checkpoint_close(c);
    assert_int_equal(safetensors_open(int8, true, &st, NULL), STATUS_OK);
    assert_int_equal(safetensors_read(&st, NULL), STATUS_OK);
    struct safetensors_tensor *scale =
        (struct safetensors_tensor *)(uintptr_t)safetensors_find(
            &st, LAYER "1.ffn.lin2.weight_scale");
    float good[12], bad[12];
    memcpy(good, scale->data, sizeof good);
    static const float values[] = {0.0f, -1.0f};
    for (size_t i = 0; i < 2; i++) {
        memcpy(bad, good, sizeof bad);
        bad[11] = values[i];
        scale->data = bad;
        write_tensors(int8, "model.safetensors", st.tensors, st.n_tensors);
        expect_refused(int8, "lin2.weight_scale",
                       "as element 11, expected more than 0");
    }
    scale->data = good;
    scale->dims[0] = 11;
    write_tensors(int8, "model.safetensors", st.tensors, st.n_tensors);
    expect_refused(int8, "F32 of shape [11], expected F32 of [12]",
                   "lin2.weight_scale");
    scale->dims[0] = 12;
    scale->name = "x";
    write_tensors(int8, "model.safetensors", st.tensors, st.n_tensors);
    expect_refused(int8, "lin2.weight_scale\" is missing", "");
    /* int8 weights with a config that does not say so */
    char *text;
    size_t n;
    assert_int_equal(
        file_read(scratch_path(dir, "config.json"), 1 << 20, &text, &n, NULL),
        STATUS_OK);
    scratch_write(scratch_path(int8, "config.json"), text, n);
    free(text);
    expect_refused(int8, "dtype I8 in a model that is not quantised", "");
    safetensors_close(&st);
    scratch_remove(dir);
    scratch_remove(int8);
}

/* half.h against every half there is, by the definition of the format. */
static void converts_halves(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3FF;
        if (exponent == 31)
            continue;
        double value =
            exponent ? (1024 + (double)fraction) * 0x1p-25 : fraction * 0x1p-24;
        for (uint32_t i = exponent; i > 0; i--)
            value *= 2;
        if (bits & 0x8000)
            value = -value;
        float found = half_to_float((uint16_t)bits);
        if ((double)found != value || half_from_float(found) != bits)
            fail_msg("half %04x reads as %g, expected %g, and is written as %04x", bits,
                     (double)found, value, half_from_float(found));
        uint16_t brain = bf16_from_float(found);
        float back = bf16_to_float(brain);
        assert_true(fabsf(back - found) <= fabsf(found) * 0x1p-8f + 1e-38f);
    }
    assert_int_equal(half_from_float(65519.0f), 0x7BFF);
    assert_int_equal(half_from_float(65520.0f), 0x7C00);
    assert_int_equal(half_from_float(1.0f + 0x1p-11f), 0x3C00); /* ties to even */
    assert_int_equal(half_from_float(1.0f + 0x3p-11f), 0x3C02);
    assert_int_equal(half_from_float(0x1p-25f), 0);
    assert_int_equal(half_from_float(0x1.8p-25f), 1);
    assert_int_equal(bf16_from_float(1.0f + 0x1p-8f), 0x3F80);
    assert_int_equal(bf16_from_float(1.0f + 0x3p-8f), 0x3F82);
}

/* The models in the tree, and the real one where it is. */
static void opens_models_of_the_tree(void **state) {
    (void)state;
    static const struct {
        const char *dir;
        int32_t n_labels, n_tags;
        enum dtype dtype;
        bool is_shared;
    } rows[] = {
        {"tests/data/models/binary-f32", 2, 0, DTYPE_F32, false},
        {"tests/data/models/three-classes-f16", 3, 0, DTYPE_F16, false},
        {"tests/data/models/multi-label-bf16", 5, 0, DTYPE_BF16, false},
        {"tests/data/models/odd-shape-f32", 1, 0, DTYPE_F32, false},
        {"weights/ade", 2, 7, DTYPE_I8, false},
        {"../shared/models/ade-minilm", 2, 7, DTYPE_F16, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct checkpoint *c;
        struct error err = {0};
        if (rows[i].is_shared && !file_exists(rows[i].dir)) {
            print_message("  %s is not there: passed over\n", rows[i].dir);
            continue;
        }
        if (checkpoint_open(rows[i].dir, &c, &err) != STATUS_OK)
            fail_msg("%s", err.message);
        assert_int_equal(c->config.n_labels, rows[i].n_labels);
        assert_int_equal(c->config.n_tag_labels, rows[i].n_tags);
        assert_int_equal(c->dtype, rows[i].dtype);
        checkpoint_close(c);
        if (rows[i].is_shared)
            print_message("  %s used too\n", rows[i].dir);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_changes),
        cmocka_unit_test(refuses_other_config),
        cmocka_unit_test(finds_every_problem),
        cmocka_unit_test(opens),
        cmocka_unit_test(names_models),
        cmocka_unit_test(opens_shards),
        cmocka_unit_test(refuses_bad_scales),
        cmocka_unit_test(converts_halves),
        cmocka_unit_test(opens_models_of_the_tree),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
