/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenize.c - POST /tokenize as Hugging Face's text-embeddings-inference has it.
 */
#include <stdlib.h>
#include <string.h>

#include "model/utf8.h"
#include "server/dialect.h"

static bool tokenize_read(struct call *c, enum media_type type, const char *body,
                          size_t n_bytes, struct fault *f) {
    static const char *const KEYS[] = {"inputs", "add_special_tokens", "prompt_name",
                                       NULL};
    bool wants_specials = true;
    (void)type;
    if (!call_parse(c, body, n_bytes, f))
        return false;
    if (!json_is_object(c->root))
        return fault_set(f, FAULT_UNUSABLE, "expected an object with inputs");
    if (!call_check_keys(c->root, KEYS, f) ||
        !call_read_flag(c->root, "add_special_tokens", &wants_specials, f))
        return false;
    const json_t *prompt = json_object_get(c->root, "prompt_name");
    if (prompt && !json_is_null(prompt))
        return fault_set(f, FAULT_UNUSABLE, "this model has no prompts");
    c->omits_specials = !wants_specials;
    return dialect_read_inputs(c, json_object_get(c->root, "inputs"), f);
}

static enum status write_special(const struct tokenizer *t, int32_t id,
                                 struct buffer *out, struct error *err) {
    const char *token = tokenizer_token(t, id);
    enum status status = buffer_printf(out, err, "{\"id\":%d,\"text\":", id);
    if (status == STATUS_OK)
        status = json_append_string(out, token, strlen(token), err);
    return status == STATUS_OK
               ? buffer_printf(out, err,
                               ",\"special\":true,\"start\":null,\"stop\":null}")
               : status;
}

static enum status write_token(int32_t id, struct token_span span,
                               struct utf8_cursor *c, struct buffer *out,
                               struct error *err) {
    if (span.begin < c->point) /* pieces of one character start where it starts */
        c->byte = c->point = 0;
    utf8_cursor_to(c, span.begin);
    struct utf8_cursor end = *c;
    utf8_cursor_to(&end, span.end);
    enum status status = buffer_printf(out, err, "{\"id\":%d,\"text\":", id);
    if (status == STATUS_OK)
        status = json_append_string(out, c->text + c->byte, end.byte - c->byte, err);
    return status == STATUS_OK
               ? buffer_printf(out, err, ",\"special\":false,\"start\":%u,\"stop\":%u}",
                               span.begin, span.end)
               : status;
}

static enum status write_tokens(const struct call *c, const struct text *text,
                                struct buffer *out, struct error *err) {
    const struct tokenizer *t = c->job.bundle->tokenizer;
    struct utf8_cursor cursor = {.text = text->bytes, .n_bytes = text->n_bytes};
    size_t cap = tokenizer_max_tokens(text->n_bytes);
    int32_t *ids = calloc(cap, sizeof *ids);
    struct token_span *spans = calloc(cap, sizeof *spans);
    struct encoding encoding = {0};
    enum status status = STATUS_OK;
    if (!ids || !spans) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for the tokens");
        goto out;
    }
    tokenizer_encode(t, text->bytes, text->n_bytes, ids, spans, cap, &encoding);
    size_t first = c->omits_specials ? 1 : 0;
    size_t last = encoding.n_tokens - (c->omits_specials ? 1 : 0);
    status = buffer_append(out, "[", 1, err);
    for (size_t i = first; i < last && status == STATUS_OK; i++) {
        bool is_special = i == 0 || i + 1 == encoding.n_tokens;
        if (i > first)
            status = buffer_append(out, ",", 1, err);
        if (status == STATUS_OK)
            status = is_special ? write_special(t, ids[i], out, err)
                                : write_token(ids[i], spans[i], &cursor, out, err);
    }
    if (status == STATUS_OK)
        status = buffer_append(out, "]", 1, err);
out:
    free(ids);
    free(spans);
    return status;
}

/* One text or a list: a list of lists goes back either way. */
static enum status tokenize_write(const struct call *c, struct buffer *out,
                                  struct error *err) {
    return dialect_write_list(c, true, write_tokens, out, err);
}

const struct dialect dialect_tokenize = {
    .media_types = 1u << MEDIA_JSON, .read = tokenize_read, .write = tokenize_write};
