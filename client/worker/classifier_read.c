/* SPDX-License-Identifier: Apache-2.0
 *
 * classifier_read.c - the bodies of the server's answers, taken apart and held against what
 * was asked.
 *
 * jansson's values are freed before a function here returns; what is kept lies in the arena.
 * Messages name the place ("results[3].probs"), never what stands there.
 */
#include "client/worker/classifier.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

static const struct json_limits LIMITS = {.max_bytes = (size_t)16 << 20,
                                          .max_depth = 8,
                                          .max_values = 400000,
                                          .max_key_bytes = 256};

#define NAME_BYTES CLASSIFIER_LABEL_BYTES

static enum status broken(struct error *err, size_t i, const char *what) {
    return error_set(err, STATUS_INVALID, "results[%zu]: %s", i, what);
}

/* A string without NUL, of 1 to NAME_BYTES - 1 bytes; NULL when it is none. */
static const char *name_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    if (!text || json_string_length(value) != strlen(text) || !text[0] ||
        strlen(text) >= NAME_BYTES)
        return NULL;
    return text;
}

static bool is_share(const json_t *value, double *out) {
    if (!json_is_number(value))
        return false;
    *out = json_number_value(value);
    return *out >= 0 && *out <= 1;
}

static bool read_integer(const json_t *object, const char *key, int64_t min,
                         int64_t *out) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value))
        return false;
    *out = json_integer_value(value);
    return *out >= min;
}

static bool is_sha256(const char *text) {
    return text && strlen(text) == STORE_SHA256_HEX &&
           strspn(text, "0123456789abcdef") == STORE_SHA256_HEX;
}

static enum status keep(struct arena *arena, const char *text, const char **out,
                        struct error *err) {
    struct view copy;
    enum status status = arena_copy(arena, view_of_string(text), &copy, err);
    if (status == STATUS_OK)
        *out = copy.data;
    return status;
}

/* How many code points a text has at most: bytes that begin one, and, where bytes are no
 * UTF-8, all of them, since the server sees a U+FFFD in the place of each. */
static int64_t count_points(struct view text) {
    int64_t n = 0;
    int owed = 0;
    for (size_t i = 0; i < text.n_bytes; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        bool continues = (byte & 0xC0) == 0x80;
        if (continues && owed > 0) {
            owed--;
            continue;
        }
        if (continues || owed > 0 || byte >= 0xF8)
            return (int64_t)text.n_bytes;
        owed = byte < 0x80 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
        n++;
    }
    return n;
}

static enum status read_entity(const json_t *entity, struct arena *arena,
                               int64_t n_points, size_t i, struct store_mention *out,
                               struct error *err) {
    const json_t *text = json_object_get(entity, "text");
    const char *type = name_of(entity, "type");
    if (!type || !json_is_string(text) ||
        !is_share(json_object_get(entity, "score"), &out->score))
        return broken(err, i, "an entity needs type, text and score");
    if (!read_integer(entity, "begin", 0, &out->begin) ||
        !read_integer(entity, "end", 1, &out->end) || out->begin >= out->end ||
        out->end > n_points)
        return broken(err, i, "an entity lies outside its text");
    enum status status = keep(arena, type, &out->type, err);
    if (status == STATUS_OK)
        status = arena_copy(arena,
                            view_of(json_string_value(text), json_string_length(text)),
                            &out->text, err);
    return status;
}

static enum status read_entities(const json_t *result, struct arena *arena,
                                 struct view text, size_t i,
                                 struct classifier_result *out, struct error *err) {
    const json_t *entities = json_object_get(result, "entities");
    if (!json_is_array(entities))
        return broken(err, i, "no list of entities");
    size_t n = json_array_size(entities), n_bytes;
    if (n == 0)
        return STATUS_OK;
    int64_t n_points = count_points(text);
    struct store_mention *mentions = size_multiply(n, sizeof *mentions, &n_bytes)
                                         ? arena_take(arena, n_bytes)
                                         : NULL;
    if (!mentions)
        return error_set(err, STATUS_NO_MEMORY, "no memory for entities");
    memset(mentions, 0, n_bytes);
    for (size_t k = 0; k < n; k++) {
        enum status status = read_entity(json_array_get(entities, k), arena, n_points,
                                         i, &mentions[k], err);
        if (status != STATUS_OK)
            return status;
    }
    out->mentions = mentions;
    out->n_mentions = n;
    return STATUS_OK;
}

/* The positive label's probability, and which other label is the most probable. */
static enum status read_probs(const json_t *result, const char *positive,
                              struct arena *arena, size_t i,
                              struct classifier_result *out, struct error *err) {
    json_t *probs = json_object_get(result, "probs"), *value;
    const char *label, *best = NULL;
    bool has_positive = false;
    double p;
    if (!json_is_object(probs) || !name_of(result, "label"))
        return broken(err, i, "no label, or no probabilities");
    out->label_probability = -1;
    json_object_foreach(probs, label, value) {
        if (!is_share(value, &p) || !label[0] || strlen(label) >= NAME_BYTES)
            return broken(err, i, "a probability is no number from 0 to 1");
        if (strcmp(label, positive) == 0) {
            has_positive = true;
            out->probability = p;
        } else if (p > out->label_probability) {
            out->label_probability = p;
            best = label;
        }
    }
    if (!has_positive || !best)
        return broken(err, i, "no probability of the positive label, or of no other");
    return keep(arena, best, &out->label, err);
}

static enum status read_result(const json_t *result, const char *positive,
                               bool wants_entities, struct view text,
                               struct arena *arena, size_t i,
                               struct classifier_result *out, struct error *err) {
    int64_t id = -1;
    if (!json_is_object(result) || !read_integer(result, "id", 0, &id) ||
        (uint64_t)id != i)
        return broken(err, i, "another one was asked for");
    if (json_object_get(result, "error")) {
        const char *type = name_of(result, "error_type");
        if (!type || type[strspn(type, "abcdefghijklmnopqrstuvwxyz_")])
            return broken(err, i, "an error without its type");
        return keep(arena, type, &out->error_type, err);
    }
    const json_t *truncated = json_object_get(result, "truncated");
    if (!read_integer(result, "tokens", 0, &out->n_tokens) ||
        !read_integer(result, "windows", 1, &out->n_windows) ||
        !json_is_boolean(truncated))
        return broken(err, i, "needs tokens, windows and truncated");
    out->is_truncated = json_is_true(truncated);
    enum status status = read_probs(result, positive, arena, i, out, err);
    if (status == STATUS_OK && wants_entities)
        status = read_entities(result, arena, text, i, out, err);
    return status;
}

static enum status read_model(const json_t *root, struct arena *arena,
                              struct classifier_answer *answer, struct error *err) {
    const json_t *model = json_object_get(root, "model");
    const char *name = name_of(model, "name"), *dtype = name_of(model, "dtype"),
               *sha256 = name_of(model, "sha256");
    if (!name || !dtype || !is_sha256(sha256))
        return error_set(err, STATUS_INVALID,
                         "the answer does not say which model gave it");
    enum status status = keep(arena, name, &answer->model, err);
    if (status == STATUS_OK)
        status = keep(arena, dtype, &answer->dtype, err);
    return status == STATUS_OK ? keep(arena, sha256, &answer->sha256, err) : status;
}

enum status classifier_read(const char *body, size_t n_bytes, const char *positive,
                            bool wants_entities, const struct view *texts, size_t n,
                            struct arena *arena, struct classifier_answer *answer,
                            struct error *err) {
    json_t *root = NULL;
    enum status status = json_parse(body ? body : "", n_bytes, &LIMITS, &root, err);
    if (status != STATUS_OK)
        return status;
    const json_t *results = json_object_get(root, "results");
    struct classifier_result *out = arena_take(arena, n * sizeof *out);
    if (!out) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for results");
        goto out;
    }
    memset(out, 0, n * sizeof *out);
    status = read_model(root, arena, answer, err);
    if (status == STATUS_OK &&
        (!json_is_array(results) || json_array_size(results) != n))
        status =
            error_set(err, STATUS_INVALID, "%zu texts were asked for, %zu answered", n,
                      json_array_size(results));
    for (size_t i = 0; i < n && status == STATUS_OK; i++)
        status = read_result(json_array_get(results, i), positive, wants_entities,
                             texts[i], arena, i, &out[i], err);
    answer->results = out;
out:
    json_decref(root);
    return status;
}

/* ---- GET /info ---- */

/* The server takes the probability of its second label for that of an adverse event, when
 * it chooses among a long text's windows. */
static enum status check_labels(const json_t *labels, const char *positive,
                                struct error *err) {
    size_t at = 0, n = json_array_size(labels);
    while (at < n) {
        const char *label = json_string_value(json_array_get(labels, at));
        if (!label)
            return error_set(err, STATUS_INVALID, "a label is no string");
        if (strcmp(label, positive) == 0)
            break;
        at++;
    }
    if (at == n)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the model of the server has no label \"%s\" "
                         "(--positive-label names another)",
                         positive);
    if (at != 1 || n < 2)
        return error_set(err, STATUS_UNSUPPORTED,
                         "\"%s\" is label %zu of the server's model, and has to be "
                         "label 1, which is the one that the server looks for",
                         positive, at);
    return STATUS_OK;
}

static enum status read_info(const json_t *root, const char *positive,
                             struct classifier_info *out, struct error *err) {
    const json_t *limits = json_object_get(root, "limits"),
                 *model = json_object_get(root, "model"),
                 *ready = json_object_get(root, "ready");
    const char *service = name_of(root, "service");
    if (!service || strcmp(service, "vigil") != 0 || !json_is_boolean(ready) ||
        !read_integer(limits, "body_bytes", 1, &out->max_body_bytes) ||
        !read_integer(limits, "inputs", 1, &out->max_texts) ||
        !read_integer(limits, "text_bytes", 1, &out->max_text_bytes))
        return error_set(err, STATUS_INVALID,
                         "GET /info is not answered as by vigil serve");
    if (!json_is_true(ready) || !model)
        return STATUS_OK;
    const char *name = name_of(model, "name"), *sha256 = name_of(model, "sha256"),
               *dtype = name_of(model, "dtype");
    const json_t *labels = json_object_get(model, "labels"),
                 *tags = json_object_get(model, "tag_labels");
    if (!name || !is_sha256(sha256) || !dtype || strlen(dtype) >= sizeof out->dtype ||
        !json_is_array(labels) || !json_is_array(tags))
        return error_set(err, STATUS_INVALID,
                         "GET /info does not say which model is served");
    out->is_ready = true;
    out->has_entities = json_array_size(tags) > 0;
    snprintf(out->model, sizeof out->model, "%s", name);
    snprintf(out->sha256, sizeof out->sha256, "%s", sha256);
    snprintf(out->dtype, sizeof out->dtype, "%s", dtype);
    return check_labels(labels, positive, err);
}

enum status classifier_read_info(const char *body, size_t n_bytes, const char *positive,
                                 struct classifier_info *out, struct error *err) {
    json_t *root = NULL;
    enum status status = json_parse(body ? body : "", n_bytes, &LIMITS, &root, err);
    if (status == STATUS_OK)
        status = read_info(root, positive, out, err);
    json_decref(root);
    return status;
}
