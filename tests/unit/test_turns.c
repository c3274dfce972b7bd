/* SPDX-License-Identifier: Apache-2.0
 *
 * test_turns.c - the lines of bench/turns.h on a small random model: answers, refusals, and
 * that what is timed is the engine's own forward pass.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/turns.h"
#include "kernels/engines.h"
#include "tests/unit/random_model.h"

static const struct model_config shape = {.n_layers = 2,
                                          .n_heads = 2,
                                          .dim = 16,
                                          .hidden_dim = 32,
                                          .vocab_size = 1200,
                                          .max_positions = 40,
                                          .n_labels = 3};

static char ids_path[] = "/tmp/vigil-turns-XXXXXX";
static struct checkpoint *model;
static struct engine *engine;
static char output[1 << 16];

static int open_engine(void **state) {
    (void)state;
    struct engine_options options = {
        .device = "reference", .n_threads = 1, .max_tokens = 50};
    int fd = mkstemp(ids_path);
    if (fd < 0)
        return -1;
    close(fd);
    model = random_model(shape, 7);
    return engine_open(&options, model, &engine, NULL) == STATUS_OK ? 0 : -1;
}

static int close_engine(void **state) {
    (void)state;
    engine_close(engine);
    random_model_free(model);
    return unlink(ids_path);
}

/* Serves the requests over a file of these lines; the answers lie in output. */
static enum status serve(const char *ids, const char *requests, struct error *err) {
    FILE *f = fopen(ids_path, "w");
    assert_non_null(f);
    fputs(ids, f);
    fclose(f);
    FILE *in = fmemopen((void *)requests, strlen(requests), "r");
    memset(output, 0, sizeof output);
    FILE *out = fmemopen(output, sizeof output, "w");
    assert_non_null(in);
    assert_non_null(out);
    enum status status = turns_serve(engine, &model->config, ids_path, in, out, err);
    fclose(in);
    fclose(out);
    return status;
}

static int count(const char *text, char c) {
    int n = 0;
    for (; *text; text++)
        n += *text == c;
    return n;
}

/* The n-th line of the output, its end cut off. */
static char *line(int n) {
    char *p = output;
    for (; n; n--) {
        p = strchr(p, '\0') + 1;
    }
    return p;
}

static void cut_lines(void) {
    for (char *p = output; *p; p++)
        if (*p == '\n')
            *p = '\0';
}

static void answers(void **state) {
    (void)state;
    const char *ids = "101 7 102\n101 8 9 102\n5\n";
    assert_int_equal(
        serve(ids, "1x32 4\nstream arrival\nstream sorted\nquit\n1x32 1\n", NULL),
        STATUS_OK);
    assert_int_equal(count(output, '\n'), 4);
    cut_lines();
    assert_non_null(strstr(line(0), "\"effective\":\"fp32, "));
    assert_non_null(strstr(line(0), "\"batches\":1}"));
    assert_int_equal(count(line(1), ','), 3);
    assert_int_equal(strncmp(line(1), "{\"ms\":[", 7), 0);
    assert_int_equal(count(line(2), ','), 0);
    assert_int_equal(strncmp(line(3), "{\"ms\":[", 7), 0);
}

static void batches_are_as_large_as_the_engine_takes(void **state) {
    (void)state;
    char ids[4096] = "";
    for (size_t i = 0; i < 5 * 41; i++)
        ids[i] = i % 41 == 40 ? '\n' : i % 41 % 2 ? ' ' : '7';
    /* 50 tokens a batch: 2 + 2 + 1 texts */
    assert_int_equal(serve(ids, "stream\n", NULL), STATUS_OK);
    assert_non_null(strstr(output, "\"batches\":3}"));
}

static void logits_are_the_engines(void **state) {
    (void)state;
    const int32_t ids[] = {101, 8, 9, 102}, offsets[] = {0, 4};
    struct batch b = {.ids = ids, .offsets = offsets, .n_sequences = 1};
    float expected[3];
    assert_int_equal(engine_run(engine, &b, expected, NULL, NULL), STATUS_OK);
    assert_int_equal(
        serve("101 7 102\n 101  8 9 102 \r\n5\n", "logits 2\nlogits 9\n", NULL),
        STATUS_OK);
    cut_lines();
    const char *second = strstr(line(1), "],[");
    assert_non_null(second);
    for (int i = 0; i < 3; i++) {
        char *end;
        second += i == 0 ? 3 : 1;
        assert_true(expected[i] == strtof(second, &end));
        assert_int_equal(*end, i < 2 ? ',' : ']');
        second = end;
    }
    assert_int_equal(count(line(2), '['), 4);
}

static void odd_requests_are_refused(void **state) {
    (void)state;
    const char *requests[] = {"1x0 1\n",  "1x41 1\n", "1x-3 1\n",      "1x32\n",
                              "1x32 0\n", "1x32 x\n", "logits\n",      "logits 0\n",
                              "hello\n",  "\n",       "1x32 1000000\n"};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        assert_int_equal(serve("5\n", requests[i], NULL), STATUS_OK);
        assert_non_null(strstr(output, "{\"error\":\"expected "));
    }
}

static void bad_files_are_refused(void **state) {
    (void)state;
    const struct {
        const char *ids, *message;
    } cases[] = {
        {"", "no sequences"},
        {"5\n\n5\n", "line 2: no token ids"},
        {"5\n1200\n", "line 2: expected token ids from 0 to 1199"},
        {"-1\n", "line 1: expected token ids"},
        {"5 x\n", "line 1: expected token ids"},
        {"99999999999999999999\n", "line 1: expected token ids"},
        {"1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 "
         "1 1 1\n",
         "line 1: more than 40 tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err;
        assert_int_not_equal(serve(cases[i].ids, "stream\n", &err), STATUS_OK);
        assert_non_null(strstr(err.message, cases[i].message));
        assert_string_equal(output, "");
    }
    struct error err;
    assert_int_equal(
        turns_serve(engine, &model->config, "/nonexistent", stdin, stdout, &err),
        STATUS_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),
        cmocka_unit_test(batches_are_as_large_as_the_engine_takes),
        cmocka_unit_test(logits_are_the_engines),
        cmocka_unit_test(odd_requests_are_refused),
        cmocka_unit_test(bad_files_are_refused),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
