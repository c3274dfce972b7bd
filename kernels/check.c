/* SPDX-License-Identifier: Apache-2.0
 *
 * check.c - walks a model directory, and a file of golden answers.
 */
#include "kernels/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "kernels/engines.h"
#include "model/batch.h"
#include "model/checkpoint.h"
#include "tokenizer/tokenizer.h"

#define MAX_GOLDEN_BYTES ((size_t)256 << 20)
#define MAX_BAD_ROWS 10 /* more lines would say nothing new */

/* A row has some hundred ids, and tags for each of them. */
static const struct json_limits ROW_LIMITS = {
    .max_bytes = 16 << 20, .max_depth = 4, .max_values = 1 << 20, .max_key_bytes = 64};

struct golden {
    const struct checkpoint *c;
    struct engine *engine;
    const char *path;
    size_t line;
    double tolerance;
    struct check_result *result;
    void (*report)(void *user, const char *line);
    void *user;
};

void check_model(const char *model_dir, void (*report)(void *user, const char *line),
                 void *user, struct check_result *result) {
    struct model_config config = {0};
    struct tokenizer *tokenizer = NULL;
    struct error err;
    memset(result, 0, sizeof *result);
    result->n_problems = checkpoint_check(model_dir, report, user);
    if (tokenizer_open(model_dir, &tokenizer, &err) != STATUS_OK) {
        report(user, err.message);
        result->n_problems++;
    } else if (model_config_read(model_dir, &config, NULL) == STATUS_OK &&
               tokenizer_vocab_size(tokenizer) > config.vocab_size) {
        error_set(&err, STATUS_INVALID,
                  "%s: the vocabulary has %d entries, config.json says %d", model_dir,
                  tokenizer_vocab_size(tokenizer), config.vocab_size);
        report(user, err.message);
        result->n_problems++;
    }
    model_config_free(&config);
    tokenizer_close(tokenizer);
}

static enum status bad_row(const struct golden *g, const char *what,
                           struct error *err) {
    return error_set(err, STATUS_INVALID, "%s:%zu: %s", g->path, g->line, what);
}

static enum status read_ids(const struct golden *g, const json_t *row, int32_t **out,
                            int32_t *n_out, struct error *err) {
    const json_t *ids = json_object_get(row, "ids");
    size_t n = json_array_size(ids), n_bytes;
    if (n < 1 || n > (size_t)g->c->config.max_positions)
        return bad_row(
            g, "expected \"ids\", an array as long as the model has positions", err);
    if (!size_multiply(n, sizeof **out, &n_bytes) || !(*out = malloc(n_bytes)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu ids", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value >= g->c->config.vocab_size)
            return bad_row(g, "an id is outside of the vocabulary", err);
        (*out)[i] = (int32_t)value;
    }
    *n_out = (int32_t)n;
    return STATUS_OK;
}

/* The largest difference of n numbers to a JSON array of as many; -1 when it is not one. */
static double compare(const json_t *expected, const float *found, size_t n) {
    double worst = 0;
    if (json_array_size(expected) != n)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const json_t *number = json_array_get(expected, i);
        double difference = fabs(json_number_value(number) - (double)found[i]);
        if (!json_is_number(number))
            return -1;
        if (!(difference <= worst)) /* NaN is the worst */
            worst = difference;
    }
    return worst;
}

/* Of tags, [tokens][labels]; those of [CLS] and [SEP] mean nothing but are computed too. */
static double compare_tags(const json_t *expected, const float *found, size_t n_tokens,
                           size_t n_labels) {
    double worst = 0;
    if (json_array_size(expected) != n_tokens)
        return -1;
    for (size_t i = 0; i < n_tokens; i++) {
        double d = compare(json_array_get(expected, i), found + i * n_labels, n_labels);
        if (d < 0)
            return -1;
        if (!(d <= worst))
            worst = d;
    }
    return worst;
}

static enum status run_row(struct golden *g, const json_t *row, double *worst,
                           struct error *err) {
    const struct model_config *config = &g->c->config;
    const json_t *tags = json_object_get(row, "tags");
    int32_t *ids = NULL, offsets[2] = {0, 0};
    float *out = NULL;
    size_t n_tags, n_out, n_bytes;
    enum status status = read_ids(g, row, &ids, &offsets[1], err);
    if (status != STATUS_OK)
        goto out;
    size_t n_labels = (size_t)config->n_labels, n_tokens = (size_t)offsets[1];
    if (!size_multiply(n_tokens, (size_t)config->n_tag_labels, &n_tags) ||
        !size_add(n_labels, n_tags, &n_out) ||
        !size_multiply(n_out, sizeof *out, &n_bytes) || !(out = calloc(1, n_bytes))) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for %zu logits", n_labels);
        goto out;
    }
    struct batch batch = {.ids = ids,
                          .offsets = offsets,
                          .n_sequences = 1,
                          .wants_tags = tags && n_tags > 0};
    status = engine_run(g->engine, &batch, out, n_tags ? out + n_labels : NULL, err);
    if (status != STATUS_OK)
        goto out;
    *worst = compare(json_object_get(row, "logits"), out, n_labels);
    if (*worst >= 0 && batch.wants_tags) {
        double tag_worst =
            compare_tags(tags, out + n_labels, n_tokens, (size_t)config->n_tag_labels);
        if (tag_worst < 0 || !(tag_worst <= *worst))
            *worst = tag_worst;
    }
    if (*worst < 0)
        status = bad_row(
            g, "expected \"logits\" (and \"tags\") as many as the model has", err);
out:
    free(out);
    free(ids);
    return status;
}

static void problem(struct golden *g, const char *line) {
    if (++g->result->n_problems <= MAX_BAD_ROWS)
        g->report(g->user, line);
}

static void check_line(struct golden *g, const char *text, size_t n_bytes) {
    struct error err;
    json_t *row = NULL;
    double worst = 0;
    enum status status = json_parse(text, n_bytes, &ROW_LIMITS, &row, &err);
    if (status != STATUS_OK)
        error_prefix(&err, "%s:%zu", g->path, g->line);
    else
        status = run_row(g, row, &worst, &err);
    json_decref(row);
    if (status == STATUS_OK) {
        g->result->n_rows++;
        if (!(worst <= g->result->worst))
            g->result->worst = worst;
        if (worst <= g->tolerance)
            return;
        error_set(&err, STATUS_INVALID,
                  "%s:%zu: an answer is off by %.3g, expected at most %.3g", g->path,
                  g->line, worst, g->tolerance);
    }
    problem(g, err.message);
}

void check_golden(const char *model_dir, const char *golden_path, const char *device,
                  double tolerance, void (*report)(void *user, const char *line),
                  void *user, struct check_result *result) {
    struct checkpoint *c = NULL;
    struct golden g = {.path = golden_path,
                       .tolerance = tolerance,
                       .result = result,
                       .report = report,
                       .user = user};
    struct engine_options options = {.device = device};
    struct error err;
    char *text = NULL;
    size_t n_bytes = 0;
    if (file_read(golden_path, MAX_GOLDEN_BYTES, &text, &n_bytes, &err) != STATUS_OK ||
        checkpoint_open(model_dir, &c, &err) != STATUS_OK ||
        engine_open(&options, c, &g.engine, &err) != STATUS_OK) {
        problem(&g, err.message);
        goto out;
    }
    g.c = c;
    for (size_t at = 0; at < n_bytes;) {
        const char *end = memchr(text + at, '\n', n_bytes - at);
        size_t n = end ? (size_t)(end - text) - at : n_bytes - at;
        g.line++;
        if (n > 0)
            check_line(&g, text + at, n);
        at += n + 1;
    }
    if (result->n_rows == 0 && result->n_problems == 0) {
        error_set(&err, STATUS_INVALID, "%s has no rows", golden_path);
        problem(&g, err.message);
    }
out:
    engine_close(g.engine);
    checkpoint_close(c);
    free(text);
}
