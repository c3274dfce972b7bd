/* SPDX-License-Identifier: Apache-2.0
 *
 * tei.c - POST /predict as Hugging Face's text-embeddings-inference has it.
 *
 * There, ["a","b"] is a pair of texts for one classification, and a batch is [["a"],["b"]].
 * Pairs are refused here: DistilBERT has no second segment, and to take them for a batch
 * would answer something else than what was asked.
 */
#include <string.h>
#include <strings.h>

#include "server/dialect.h"

static bool refuse_pair(struct fault *f) {
    return fault_set(
        f, FAULT_UNUSABLE,
        "two texts side by side are a pair, which this model cannot take; a "
        "batch is a list of lists: [[\"a\"],[\"b\"]]");
}

static bool read_direction(const struct call *c, struct fault *f) {
    const json_t *value = json_object_get(c->root, "truncation_direction");
    if (!value || json_is_null(value))
        return true;
    if (!json_is_string(value) || strcasecmp(json_string_value(value), "right") != 0)
        return fault_set(f, FAULT_UNUSABLE, "truncation_direction can only be Right");
    return true;
}

static bool read_batch(struct call *c, const json_t *inputs, struct fault *f) {
    size_t n = json_array_size(inputs);
    c->is_list = true;
    if (!call_check_count(c, n, f))
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *input = json_array_get(inputs, i);
        if ((json_is_string(input) && n > 1) || json_array_size(input) > 1)
            return refuse_pair(f);
        if (!json_is_array(input) || json_array_size(input) == 0)
            return fault_set(f, FAULT_UNUSABLE,
                             "input %zu (from 0) must be a list of one string", i);
        if (!call_add(c, json_array_get(input, 0), NULL, f))
            return false;
    }
    return true;
}

static bool tei_read(struct call *c, enum media_type type, const char *body,
                     size_t n_bytes, struct fault *f) {
    static const char *const KEYS[] = {"inputs", "truncate", "truncation_direction",
                                       "raw_scores", NULL};
    bool wants_raw = false;
    (void)type;
    if (!call_parse(c, body, n_bytes, f))
        return false;
    if (!json_is_object(c->root))
        return fault_set(f, FAULT_UNUSABLE, "expected an object with inputs");
    if (!call_check_keys(c->root, KEYS, f) || !read_direction(c, f) ||
        !call_read_flag(c->root, "truncate", &c->truncate, f) ||
        !call_read_flag(c->root, "raw_scores", &wants_raw, f))
        return false;
    c->scores = wants_raw ? SCORES_RAW : SCORES_OF_MODEL;
    const json_t *inputs = json_object_get(c->root, "inputs");
    if (json_is_string(inputs))
        return call_add(c, inputs, NULL, f);
    if (!json_is_array(inputs))
        return fault_set(f, FAULT_UNUSABLE,
                         inputs ? "inputs must be a string or a list of lists"
                                : "there are no inputs");
    return read_batch(c, inputs, f);
}

static enum status tei_write(const struct call *c, struct buffer *out,
                             struct error *err) {
    return dialect_write_list(c, c->is_list, dialect_write_labels, out, err);
}

const struct dialect dialect_tei = {
    .media_types = 1u << MEDIA_JSON, .read = tei_read, .write = tei_write};
