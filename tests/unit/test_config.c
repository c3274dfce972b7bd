/* SPDX-License-Identifier: Apache-2.0
 *
 * test_config.c - config.json: what is refused and with which words, defaults, batches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/batch.h"
#include "model/config.h"

#define INVALID STATUS_INVALID
#define UNSUPPORTED STATUS_UNSUPPORTED

struct bad {
    const char *json;
    enum status status;
    const char *words;
};

static const struct bad BAD[] = {
    {"", INVALID, "ends too early"},
    {"[]", INVALID, "c.json is an array, expected an object"},
    {"null", INVALID, "c.json is null"},
    {"{\"dim\":1,\"dim\":2}", INVALID, "a key twice"},
    {"{\"dropout\":NaN}", INVALID, "expected a value"},
    {"[[[[[[[[[[1]]]]]]]]]]", STATUS_LIMIT, "nested more than 8"},
    {"{\"n_layers\":1000000000}", INVALID, "\"n_layers\" is 1000000000, expected"},
    {"{\"n_layers\":0}", INVALID, "\"n_layers\" is 0"},
    {"{\"n_layers\":-1}", INVALID, "\"n_layers\" is -1"},
    {"{\"n_layers\":6.0}", INVALID,
     "\"n_layers\" is a fraction, expected an integer from 1"},
    {"{\"n_layers\":\"6\"}", INVALID, "\"n_layers\" is a string"},
    {"{\"n_layers\":true}", INVALID, "\"n_layers\" is a boolean"},
    {"{\"n_layers\":[6]}", INVALID, "\"n_layers\" is an array"},
    {"{\"n_layers\":99999999999999999999}", INVALID, "out of range"},
    {"{\"n_heads\":0}", INVALID, "\"n_heads\" is 0"},
    {"{\"n_heads\":7}", INVALID,
     "\"dim\" is 768, expected a multiple of \"n_heads\", 7"},
    {"{\"dim\":0}", INVALID, "\"dim\" is 0"},
    {"{\"dim\":-768}", INVALID, "\"dim\" is -768"},
    {"{\"dim\":2147483648}", INVALID, "\"dim\" is 2147483648"},
    {"{\"hidden_dim\":0}", INVALID, "\"hidden_dim\" is 0"},
    {"{\"vocab_size\":0}", INVALID, "\"vocab_size\" is 0"},
    {"{\"vocab_size\":1e5}", INVALID, "\"vocab_size\" is a fraction"},
    {"{\"max_position_embeddings\":2}", INVALID, "\"max_position_embeddings\" is 2"},
    {"{\"model_type\":\"bert\"}", UNSUPPORTED, "\"bert\", expected \"distilbert\""},
    {"{\"model_type\":1}", INVALID, "\"model_type\" is an integer"},
    {"{\"model_type\":\"\\u0007\"}", UNSUPPORTED, "\"model_type\" is \"?\""},
    {"{\"activation\":\"gelu_new\"}", UNSUPPORTED, "expected \"gelu\" or \"relu\""},
    {"{\"torch_dtype\":\"float64\"}", UNSUPPORTED, "\"torch_dtype\" is \"float64\""},
    {"{\"dtype\":\"int8\"}", UNSUPPORTED,
     "\"dtype\" is \"int8\", expected \"float32\""},
    {"{\"sinusoidal_pos_embds\":1}", INVALID, "is an integer, expected a boolean"},
    {"{\"problem_type\":\"ranking\"}", UNSUPPORTED, "\"problem_type\" is \"ranking\""},
    {"{\"problem_type\":\"single_label_classification\",\"num_labels\":1}", INVALID,
     "with 1 label, expected 2"},
    {"{\"num_labels\":0}", INVALID, "\"num_labels\" is 0"},
    {"{\"num_labels\":1025}", INVALID, "\"num_labels\" is 1025"},
    {"{\"id2label\":[]}", INVALID, "\"id2label\" is an array"},
    {"{\"id2label\":{}}", INVALID, "0 labels, expected 1 to 1024"},
    {"{\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", INVALID, "not an index from 0 to 1"},
    {"{\"id2label\":{\"1\":\"a\",\"2\":\"b\"}}", INVALID, "not an index from 0 to 1"},
    {"{\"id2label\":{\"0\":\"a\",\"01\":\"b\"}}", INVALID, "not an index"},
    {"{\"id2label\":{\"0\":\"a\",\"-1\":\"b\"}}", INVALID, "not an index"},
    {"{\"id2label\":{\"0\":\"a\",\"\":\"b\"}}", INVALID, "not an index"},
    {"{\"id2label\":{\"0\":\"a\",\"x\":\"b\"}}", INVALID, "not an index"},
    {"{\"id2label\":{\"0\":\"a\",\"99999999999999999999\":\"b\"}}", INVALID,
     "not an index"},
    {"{\"id2label\":{\"0\":\"a\",\"0\":\"b\"}}", INVALID, "a key twice"},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"a\"}}", INVALID,
     "labels 0 and 1 are both \"a\""},
    {"{\"id2label\":{\"0\":\"a\",\"1\":2}}", INVALID, "an object of strings"},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"\"}}", INVALID, "label 1 has 0 bytes"},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\\n\"}}", INVALID, "label 1 holds a control"},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\\u0000\"}}", INVALID,
     "label 1 holds a control"},
    {"{\"id2label\":{\"0\":"
     "\"1234567890123456789012345678901234567890123456789012345678901234"
     "\"}}",
     INVALID, "label 0 has 64 bytes, expected 1 to 63"},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"num_labels\":3}", INVALID,
     "\"num_labels\" is 3, but \"id2label\" has 2"},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"label2id\":{\"a\":1,\"b\":0}}", INVALID,
     "\"label2id\" contradicts \"id2label\" on label 0"},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"label2id\":[]}", INVALID,
     "\"label2id\" is an array"},
    {"{\"label2id\":{\"a\":0,\"b\":0}}", INVALID, "index 0 twice"},
    {"{\"label2id\":{\"a\":0,\"b\":2}}", INVALID, "not an index from 0 to 1"},
    {"{\"label2id\":{\"a\":0,\"b\":\"1\"}}", INVALID, "not an index from 0 to 1"},
    {"{\"token_id2label\":{\"1\":\"O\"}}", INVALID, "\"token_id2label\" has 1 labels"},
    {"{\"token_id2label\":{\"0\":\"O\",\"1\":\"O\"}}", INVALID, "are both \"O\""},
    {"{\"quantization_config\":1}", INVALID, "\"quantization_config\" is an integer"},
    {"{\"quantization_config\":{}}", INVALID, "no \"quant_method\""},
    {"{\"quantization_config\":{\"quant_method\":\"gptq\"}}", UNSUPPORTED,
     "\"quant_method\" is \"gptq\", expected \"vigil-int8\""},
};

static enum status parse(const char *json, size_t n_bytes, struct model_config *c,
                         struct error *err) {
    return model_config_parse(json, n_bytes, "c.json", c, err);
}

static void refuses(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        struct model_config c;
        struct error err = {0};
        enum status status = parse(BAD[i].json, strlen(BAD[i].json), &c, &err);
        if (status != BAD[i].status || !strstr(err.message, BAD[i].words) ||
            !strstr(err.message, "c.json"))
            fail_msg("%s: %s \"%s\", expected \"%s\"", BAD[i].json, status_name(status),
                     err.message, BAD[i].words);
    }
}

static void refuses_many_labels(void **state) {
    (void)state;
    static const struct {
        int n;
        enum status status;
        const char *words;
    } rows[] = {{1025, INVALID, "1025 labels, expected 1 to 1024"},
                {50000, STATUS_LIMIT, "more than 16384 values"},
                {1000000, STATUS_LIMIT, "over the limit of 1048576"}};
    for (size_t r = 0; r < 3; r++) {
        struct buffer b = {.max_bytes = 64 << 20};
        struct model_config c;
        struct error err;
        buffer_append(&b, "{\"id2label\":{", 13, NULL);
        for (int i = 0; i < rows[r].n; i++)
            buffer_printf(&b, NULL, "%s\"%d\":\"l%d\"", i ? "," : "", i, i);
        buffer_append(&b, "}}", 2, NULL);
        assert_int_equal(parse(b.data, b.n_bytes, &c, &err), rows[r].status);
        assert_non_null(strstr(err.message, rows[r].words));
        buffer_free(&b);
    }
}

static void read_good(const char *json, struct model_config *c) {
    struct error err = {0};
    if (parse(json, strlen(json), c, &err) != STATUS_OK)
        fail_msg("%s: %s", json, err.message);
}

static void accepts(void **state) {
    (void)state;
    struct model_config c;
    read_good("{}", &c); /* transformers' defaults */
    assert_int_equal(c.n_layers, 6);
    assert_int_equal(c.n_heads, 12);
    assert_int_equal(c.dim, 768);
    assert_int_equal(c.head_dim, 64);
    assert_int_equal(c.hidden_dim, 3072);
    assert_int_equal(c.vocab_size, 30522);
    assert_int_equal(c.max_positions, 512);
    assert_int_equal(c.n_labels, 2);
    assert_string_equal(c.labels[1], "LABEL_1");
    assert_int_equal(c.problem_type, PROBLEM_SINGLE_LABEL);
    assert_int_equal(c.n_tag_labels, 0);
    assert_false(c.is_quantized || c.has_relu_activation);
    model_config_free(&c);
    model_config_free(&c);

    read_good("{\"num_labels\":1,\"problem_type\":null,\"id2label\":null}", &c);
    assert_int_equal(c.problem_type, PROBLEM_REGRESSION);
    model_config_free(&c);

    read_good(
        "{\"label2id\":{\"no\":1,\"yes\":0,\"may be\":2},\"activation\":\"relu\","
        "\"problem_type\":\"multi_label_classification\",\"torch_dtype\":\"float16\"}",
        &c);
    assert_int_equal(c.n_labels, 3);
    assert_string_equal(c.labels[0], "yes");
    assert_string_equal(c.labels[2], "may be");
    assert_int_equal(c.problem_type, PROBLEM_MULTI_LABEL);
    assert_true(c.has_relu_activation);
    model_config_free(&c);

    /* transformers leaves its default label2id beside names of one's own. */
    read_good("{\"id2label\":{\"1\":\"b\xC3\xA9\",\"0\":\"a\"},\"num_labels\":2,"
              "\"label2id\":{\"LABEL_0\":0,\"LABEL_1\":1},\"dtype\":\"bfloat16\","
              "\"token_id2label\":{\"0\":\"O\",\"1\":\"B-ADE\"},"
              "\"quantization_config\":{\"quant_method\":\"vigil-int8\"}}",
              &c);
    assert_string_equal(c.labels[1], "b\xC3\xA9");
    assert_int_equal(c.n_tag_labels, 2);
    assert_string_equal(c.tag_labels[1], "B-ADE");
    assert_true(c.is_quantized);
    model_config_free(&c);
    model_config_free(NULL);
}

static void checks_batches(void **state) {
    (void)state;
    const struct model_config config = {.vocab_size = 10, .max_positions = 4};
    static const struct {
        int32_t n, offsets[4], ids[8];
        const char *words; /* NULL: good */
    } rows[] = {
        {1, {0, 4}, {0, 9, 0, 0}, NULL},
        {2, {0, 1, 2}, {9, 9}, NULL},
        {0, {0}, {0}, "0 sequences"},
        {-1, {0}, {0}, "-1 sequences"},
        {1, {1, 2}, {0, 0}, "offset 1, expected 0"},
        {1, {0, 0}, {0}, "sequence 0 of a batch has 0 tokens"},
        {1, {0, 5}, {0}, "sequence 0 of a batch has 5 tokens, expected 1 to 4"},
        {2, {0, 2, 1}, {0}, "sequence 1 of a batch has -1 tokens"},
        {2, {0, 2, INT32_MIN}, {0}, "sequence 1 of a batch has -2147483650"},
        {1, {0, 2}, {0, 10}, "the id 10, expected 0 to 9"},
        {2, {0, 1, 2}, {0, -1}, "sequence 1 of a batch has the id -1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct batch b = {rows[i].ids, rows[i].offsets, rows[i].n, false};
        struct error err = {0};
        enum status status = batch_check(&b, &config, &err);
        if (rows[i].words ? status != INVALID || !strstr(err.message, rows[i].words)
                          : status != STATUS_OK)
            fail_msg("batch %zu: \"%s\"", i, err.message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses),
        cmocka_unit_test(refuses_many_labels),
        cmocka_unit_test(accepts),
        cmocka_unit_test(checks_batches),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
