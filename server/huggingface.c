/* SPDX-License-Identifier: Apache-2.0
 *
 * huggingface.c - POST / as Hugging Face's inference endpoints have it for text
 * classification: what InferenceClient.text_classification sends and reads.
 */
#include <string.h>

#include "server/dialect.h"

static bool read_function(struct call *c, const json_t *parameters, struct fault *f) {
    const json_t *value = json_object_get(parameters, "function_to_apply");
    if (!value || json_is_null(value))
        return true;
    const char *name = json_is_string(value) ? json_string_value(value) : "";
    if (strcmp(name, "softmax") == 0)
        c->scores = SCORES_SOFTMAX;
    else if (strcmp(name, "sigmoid") == 0)
        c->scores = SCORES_SIGMOID;
    else if (strcmp(name, "none") == 0)
        c->scores = SCORES_RAW;
    else
        return fault_set(f, FAULT_UNUSABLE,
                         "function_to_apply must be softmax, sigmoid or none");
    return true;
}

static bool read_top_k(struct call *c, const json_t *parameters, struct fault *f) {
    const json_t *value = json_object_get(parameters, "top_k");
    if (!value || json_is_null(value))
        return true;
    long long top_k;
    if (!call_read_integer(value, &top_k) || top_k < 1)
        return fault_set(f, FAULT_UNUSABLE, "top_k must be an integer from 1 up");
    c->top_k = top_k;
    return true;
}

static bool read_parameters(struct call *c, struct fault *f) {
    static const char *const KEYS[] = {"top_k", "function_to_apply", "truncation",
                                       NULL};
    const json_t *parameters = json_object_get(c->root, "parameters");
    if (!parameters || json_is_null(parameters))
        return true;
    if (!json_is_object(parameters))
        return fault_set(f, FAULT_UNUSABLE, "parameters must be an object");
    return call_check_keys(parameters, KEYS, f) && read_function(c, parameters, f) &&
           read_top_k(c, parameters, f) &&
           call_read_flag(parameters, "truncation", &c->truncate, f);
}

static bool huggingface_read(struct call *c, enum media_type type, const char *body,
                             size_t n_bytes, struct fault *f) {
    static const char *const KEYS[] = {"inputs", "parameters", "options", NULL};
    (void)type;
    if (!call_parse(c, body, n_bytes, f))
        return false;
    if (!json_is_object(c->root))
        return fault_set(f, FAULT_UNUSABLE, "expected an object with inputs");
    const json_t *options = json_object_get(c->root, "options");
    if (options && !json_is_null(options) && !json_is_object(options))
        return fault_set(f, FAULT_UNUSABLE, "options must be an object");
    return call_check_keys(c->root, KEYS, f) && read_parameters(c, f) &&
           dialect_read_inputs(c, json_object_get(c->root, "inputs"), f);
}

/* One text or a list: a list of lists goes back either way. */
static enum status huggingface_write(const struct call *c, struct buffer *out,
                                     struct error *err) {
    return dialect_write_list(c, true, dialect_write_labels, out, err);
}

const struct dialect dialect_huggingface = {.media_types = 1u << MEDIA_JSON,
                                            .read = huggingface_read,
                                            .write = huggingface_write};
