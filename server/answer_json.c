/* SPDX-License-Identifier: Apache-2.0 */
#include "server/answer_json.h"

#include <string.h>

#include "base/json.h"

static enum status write_string(struct buffer *out, const char *text,
                                struct error *err) {
    return json_append_string(out, text, strlen(text), err);
}

static enum status write_literal(struct buffer *out, const char *text,
                                 struct error *err) {
    return buffer_append(out, text, strlen(text), err);
}

static enum status write_probs(const struct model_config *config,
                               const struct answer *a, struct buffer *out,
                               struct error *err) {
    enum status status = write_literal(out, ",\"probs\":{", err);
    for (int32_t i = 0; i < config->n_labels && status == STATUS_OK; i++) {
        if (i)
            status = buffer_append(out, ",", 1, err);
        if (status == STATUS_OK)
            status = write_string(out, config->labels[i], err);
        if (status == STATUS_OK)
            status = buffer_append(out, ":", 1, err);
        if (status == STATUS_OK)
            status = json_append_float(out, a->probs[i], err);
    }
    return status == STATUS_OK ? buffer_append(out, "}", 1, err) : status;
}

static enum status write_entity(const struct entity *e, const char *text,
                                size_t text_bytes, struct buffer *out,
                                struct error *err) {
    /* A span is within its text; if ever not, nothing beside it is read. */
    size_t end = e->end_byte < text_bytes ? e->end_byte : text_bytes;
    size_t begin = e->begin_byte < end ? e->begin_byte : end;
    enum status status = write_literal(out, "{\"type\":", err);
    if (status == STATUS_OK)
        status = write_string(out, e->type, err);
    if (status == STATUS_OK)
        status = write_literal(out, ",\"text\":", err);
    if (status == STATUS_OK)
        status = json_append_string(out, text + begin, end - begin, err);
    if (status == STATUS_OK)
        status = buffer_printf(out, err, ",\"begin\":%u,\"end\":%u,\"score\":",
                               (unsigned)e->begin, (unsigned)e->end);
    if (status == STATUS_OK)
        status = json_append_float(out, e->score, err);
    return status == STATUS_OK ? buffer_append(out, "}", 1, err) : status;
}

static enum status write_entities(const struct answer *a, const char *text,
                                  size_t text_bytes, struct buffer *out,
                                  struct error *err) {
    enum status status = write_literal(out, ",\"entities\":[", err);
    for (int32_t i = 0; i < a->n_entities && status == STATUS_OK; i++) {
        if (i)
            status = buffer_append(out, ",", 1, err);
        if (status == STATUS_OK)
            status = write_entity(&a->entities[i], text, text_bytes, out, err);
    }
    return status == STATUS_OK ? buffer_append(out, "]", 1, err) : status;
}

enum status answer_json_write(const struct model_config *config, const struct answer *a,
                              const char *text, size_t text_bytes, bool wants_entities,
                              struct buffer *out, struct error *err) {
    enum status status = write_literal(out, "\"label\":", err);
    if (status == STATUS_OK)
        status = write_string(out, config->labels[a->label], err);
    if (status == STATUS_OK)
        status = write_literal(out, ",\"score\":", err);
    if (status == STATUS_OK)
        status = json_append_float(out, a->score, err);
    if (status == STATUS_OK)
        status = write_probs(config, a, out, err);
    if (status == STATUS_OK && wants_entities)
        status = write_entities(a, text, text_bytes, out, err);
    return status;
}
