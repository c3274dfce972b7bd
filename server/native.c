/* SPDX-License-Identifier: Apache-2.0
 *
 * native.c - Vigil's own shape: POST /v1/classify.
 */
#include <math.h>
#include <string.h>

#include "server/answer_json.h"
#include "server/dialect.h"

static bool read_threshold(struct call *c, struct fault *f) {
    const json_t *value = json_object_get(c->root, "threshold");
    if (!value || json_is_null(value))
        return true;
    if (!json_is_number(value) || !(json_number_value(value) >= 0) ||
        !(json_number_value(value) <= 1))
        return fault_set(f, FAULT_UNUSABLE, "threshold must be a number from 0 to 1");
    c->threshold = json_number_value(value);
    return true;
}

/* "…" or {"id":…,"text":…} */
static bool read_input(struct call *c, const json_t *input, struct fault *f) {
    static const char *const KEYS[] = {"id", "text", NULL};
    if (!json_is_object(input))
        return call_add(c, input, NULL, f);
    if (!call_check_keys(input, KEYS, f))
        return false;
    const json_t *id = json_object_get(input, "id");
    if (id && json_is_null(id))
        id = NULL;
    return call_add(c, json_object_get(input, "text"), id, f);
}

static bool native_read(struct call *c, enum media_type type, const char *body,
                        size_t n_bytes, struct fault *f) {
    static const char *const KEYS[] = {"inputs", "threshold", "entities", "truncate",
                                       NULL};
    (void)type;
    if (!call_parse(c, body, n_bytes, f))
        return false;
    if (!json_is_object(c->root))
        return fault_set(f, FAULT_UNUSABLE, "expected an object with inputs");
    if (!call_check_keys(c->root, KEYS, f) || !read_threshold(c, f) ||
        !call_read_flag(c->root, "entities", &c->wants_entities, f) ||
        !call_read_flag(c->root, "truncate", &c->truncate, f))
        return false;
    const json_t *inputs = json_object_get(c->root, "inputs");
    if (json_is_string(inputs) || json_is_object(inputs))
        return read_input(c, inputs, f);
    if (!json_is_array(inputs))
        return fault_set(f, FAULT_UNUSABLE,
                         inputs
                             ? "inputs must be a string, an object with id and text, "
                               "or a list of these"
                             : "there are no inputs");
    c->is_list = true;
    size_t n = json_array_size(inputs);
    if (!call_check_count(c, n, f))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_input(c, json_array_get(inputs, i), f))
            return false;
    return true;
}

static enum status write_id(const json_t *id, struct buffer *out, struct error *err) {
    if (!id)
        return STATUS_OK;
    enum status status = buffer_append(out, "\"id\":", 5, err);
    if (status != STATUS_OK)
        return status;
    long long number;
    if (call_read_integer(id, &number))
        return buffer_printf(out, err, "%lld,", number);
    status =
        json_append_string(out, json_string_value(id), json_string_length(id), err);
    return status == STATUS_OK ? buffer_append(out, ",", 1, err) : status;
}

static enum status write_result(const struct call *c, const struct text *text,
                                struct buffer *out, struct error *err) {
    const struct model_config *config = &c->job.bundle->config;
    enum status status = buffer_append(out, "{", 1, err);
    if (status == STATUS_OK)
        status = write_id(text->id, out, err);
    if (status != STATUS_OK)
        return status;
    if (text->fault.kind != FAULT_NONE) {
        status = fault_write_members(&text->fault, out, err);
        return status == STATUS_OK ? buffer_append(out, "}", 1, err) : status;
    }
    status = answer_json_write(config, &text->answer, text->bytes, text->n_bytes,
                               c->wants_entities, out, err);
    if (status != STATUS_OK)
        return status;
    return buffer_printf(out, err, ",\"tokens\":%d,\"windows\":%d,\"truncated\":%s}",
                         text->windows.n_tokens, text->windows.n_windows,
                         text->windows.is_truncated ? "true" : "false");
}

static enum status native_write(const struct call *c, struct buffer *out,
                                struct error *err) {
    const struct bundle *bundle = c->job.bundle;
    enum status status = buffer_append(out, "{\"model\":{\"name\":", 17, err);
    if (status == STATUS_OK)
        status = json_append_string(out, bundle->name, strlen(bundle->name), err);
    if (status == STATUS_OK)
        status = buffer_printf(
            out, err,
            ",\"sha256\":\"%s\",\"dtype\":\"%s\",\"max_tokens\":%d},\"results\":[",
            bundle->sha256, bundle->engine->info.dtype, bundle->config.max_positions);
    for (size_t i = 0; i < c->n_texts && status == STATUS_OK; i++) {
        if (i)
            status = buffer_append(out, ",", 1, err);
        if (status == STATUS_OK)
            status = write_result(c, &c->texts[i], out, err);
    }
    return status == STATUS_OK ? buffer_append(out, "]}", 2, err) : status;
}

const struct dialect dialect_native = {
    .media_types = 1u << MEDIA_JSON, .read = native_read, .write = native_write};
