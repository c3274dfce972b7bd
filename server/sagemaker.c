/* SPDX-License-Identifier: Apache-2.0
 *
 * sagemaker.c - the endpoint of the pipeline that Vigil replaces: POST /invocations takes a
 * bare JSON string and gives the bare list of its probabilities, [p_not_ae, p_ae].
 */
#include <string.h>

#include "model/utf8.h"
#include "server/dialect.h"

static bool read_line(struct call *c, const char *line, size_t n_bytes,
                      struct fault *f) {
    static const char *const KEYS[] = {"inputs", "text", NULL};
    struct call one;
    struct fault why = {0};
    call_open(&one, c->limits);
    bool is_read = call_parse(&one, line, n_bytes, &why);
    const json_t *value = one.root;
    if (is_read && json_is_object(value)) {
        is_read = call_check_keys(value, KEYS, &why);
        const json_t *inputs = json_object_get(value, "inputs");
        value = inputs ? inputs : json_object_get(value, "text");
    }
    bool is_ok = true;
    if (is_read)
        is_read = call_add(c, value, NULL, &why);
    if (!is_read)
        is_ok = call_add_fault(c, &why, f);
    else if (json_array_append(c->root, one.root) != 0) /* owns the strings */
        is_ok = fault_set(f, FAULT_OVERLOADED, "no memory for the texts");
    call_free(&one);
    return is_ok;
}

static bool read_lines(struct call *c, const char *body, size_t n_bytes,
                       struct fault *f) {
    c->is_list = c->is_lines = true;
    c->root = json_array();
    if (!c->root)
        return fault_set(f, FAULT_OVERLOADED, "no memory for the texts");
    const char *end = body + n_bytes;
    while (body < end) {
        const char *line_end = memchr(body, '\n', (size_t)(end - body));
        const char *next = line_end ? line_end + 1 : end;
        size_t n = (size_t)((line_end ? line_end : end) - body);
        if (n && body[n - 1] == '\r')
            n--;
        if (n) {
            if (!call_check_count(c, c->n_texts + 1, f) || !read_line(c, body, n, f))
                return false;
        }
        body = next;
    }
    return call_check_count(c, c->n_texts, f);
}

static bool sagemaker_read(struct call *c, enum media_type type, const char *body,
                           size_t n_bytes, struct fault *f) {
    static const char *const KEYS[] = {"inputs", NULL};
    if (type == MEDIA_TEXT) {
        if (!utf8_is_valid(body, n_bytes))
            return fault_set(f, FAULT_MALFORMED, "the text is not UTF-8");
        return call_add_bytes(c, body, n_bytes, f);
    }
    if (type == MEDIA_LINES)
        return read_lines(c, body, n_bytes, f);
    if (!call_parse(c, body, n_bytes, f))
        return false;
    if (!json_is_object(c->root)) {
        if (!json_is_string(c->root) && !json_is_array(c->root))
            return fault_set(f, FAULT_UNUSABLE,
                             "expected a string, a list of strings, or an object with "
                             "inputs");
        return dialect_read_inputs(c, c->root, f);
    }
    return call_check_keys(c->root, KEYS, f) &&
           dialect_read_inputs(c, json_object_get(c->root, "inputs"), f);
}

static enum status write_scores(const struct call *c, const struct text *text,
                                struct buffer *out, struct error *err) {
    const struct model_config *config = &c->job.bundle->config;
    enum status status = buffer_append(out, "[", 1, err);
    for (int32_t i = 0; i < config->n_labels && status == STATUS_OK; i++) {
        if (i)
            status = buffer_append(out, ",", 1, err);
        if (status == STATUS_OK)
            status = json_append_float(out, text->answer.probs[i], err);
    }
    return status == STATUS_OK ? buffer_append(out, "]", 1, err) : status;
}

static enum status sagemaker_write(const struct call *c, struct buffer *out,
                                   struct error *err) {
    if (!c->is_lines)
        return dialect_write_list(c, c->is_list, write_scores, out, err);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < c->n_texts && status == STATUS_OK; i++) {
        const struct text *text = &c->texts[i];
        status = text->fault.kind == FAULT_NONE ? write_scores(c, text, out, err)
                                                : fault_write(&text->fault, out, err);
        if (status == STATUS_OK)
            status = buffer_append(out, "\n", 1, err);
    }
    return status;
}

const struct dialect dialect_sagemaker = {
    .media_types = 1u << MEDIA_JSON | 1u << MEDIA_LINES | 1u << MEDIA_TEXT,
    .read = sagemaker_read,
    .write = sagemaker_write};
