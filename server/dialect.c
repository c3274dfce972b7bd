/* SPDX-License-Identifier: Apache-2.0 */
#include "server/dialect.h"

#include <string.h>

bool dialect_read_inputs(struct call *c, const json_t *inputs, struct fault *f) {
    if (json_is_string(inputs))
        return call_add(c, inputs, NULL, f);
    if (!json_is_array(inputs))
        return fault_set(f, FAULT_UNUSABLE,
                         inputs ? "inputs must be a string or a list of strings"
                                : "there are no inputs");
    c->is_list = true;
    size_t n = json_array_size(inputs);
    if (!call_check_count(c, n, f))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!call_add(c, json_array_get(inputs, i), NULL, f))
            return false;
    return true;
}

enum status dialect_write_labels(const struct call *c, const struct text *text,
                                 struct buffer *out, struct error *err) {
    const struct model_config *config = &c->job.bundle->config;
    float scores[MODEL_MAX_LABELS];
    int32_t n = config->n_labels, n_shown = n;
    if (c->top_k > 0 && c->top_k < n)
        n_shown = (int32_t)c->top_k;
    call_scores(c, text, scores);
    bool is_written[MODEL_MAX_LABELS] = {false};
    enum status status = buffer_append(out, "[", 1, err);
    for (int32_t k = 0; k < n_shown && status == STATUS_OK; k++) {
        int32_t best = -1;
        for (int32_t i = 0; i < n; i++)
            if (!is_written[i] && (best < 0 || scores[i] > scores[best]))
                best = i;
        is_written[best] = true;
        const char *label = config->labels[best];
        status = buffer_printf(out, err, "%s{\"label\":", k ? "," : "");
        if (status == STATUS_OK)
            status = json_append_string(out, label, strlen(label), err);
        if (status == STATUS_OK)
            status = buffer_printf(out, err, ",\"score\":");
        if (status == STATUS_OK)
            status = json_append_float(out, scores[best], err);
        if (status == STATUS_OK)
            status = buffer_append(out, "}", 1, err);
    }
    return status == STATUS_OK ? buffer_append(out, "]", 1, err) : status;
}

enum status dialect_write_list(const struct call *c, bool is_list,
                               enum status (*write_one)(const struct call *c,
                                                        const struct text *text,
                                                        struct buffer *out,
                                                        struct error *err),
                               struct buffer *out, struct error *err) {
    enum status status = STATUS_OK;
    if (is_list)
        status = buffer_append(out, "[", 1, err);
    for (size_t i = 0; i < c->n_texts && status == STATUS_OK; i++) {
        const struct text *text = &c->texts[i];
        if (i)
            status = buffer_append(out, ",", 1, err);
        if (status == STATUS_OK)
            status = text->fault.kind == FAULT_NONE
                         ? write_one(c, text, out, err)
                         : fault_write(&text->fault, out, err);
    }
    if (is_list && status == STATUS_OK)
        status = buffer_append(out, "]", 1, err);
    return status;
}
