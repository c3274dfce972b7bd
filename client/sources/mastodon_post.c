/* SPDX-License-Identifier: Apache-2.0
 *
 * mastodon_post.c - the parser of Mastodon's statuses. Fields come in any order or not at
 * all; software that speaks the same protocol leaves some out.
 */
#include "client/sources/mastodon_post.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "client/net/html.h"
#include "client/sources/record.h"
#include "client/sources/source.h"

static const struct json_limits limits = {.max_bytes = SOURCE_MAX_LINE_BYTES,
                                          .max_depth = 32,
                                          .max_values = 65536,
                                          .max_key_bytes = 256};

enum status mastodon_line(const char *event, struct view data, struct buffer *out,
                          struct error *err) {
    size_t at = 0;
    buffer_clear(out);
    enum status status = buffer_printf(out, err, "{\"event\":");
    if (status == STATUS_OK)
        status = json_append_string(out, event, strlen(event), err);
    if (status == STATUS_OK)
        status = buffer_printf(out, err, ",\"payload\":");
    while (at < data.n_bytes && (data.data[at] == ' ' || data.data[at] == '\n'))
        at++;
    if (status == STATUS_OK && (at == data.n_bytes || data.data[at] != '{'))
        status = json_append_string(out, data.data, data.n_bytes, err);
    else if (status == STATUS_OK) {
        size_t begin = out->n_bytes;
        status = buffer_append(out, data.data, data.n_bytes, err);
        /* Several data lines are one text: a line end is white space in JSON. */
        for (size_t i = begin; status == STATUS_OK && i < out->n_bytes; i++)
            if (out->data[i] == '\n')
                out->data[i] = ' ';
    }
    return status == STATUS_OK ? buffer_append(out, "}", 1, err) : status;
}

/* ---- Pieces ---- */

static struct view text_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_string(value)
               ? view_of(json_string_value(value), json_string_length(value))
               : VIEW("");
}

static enum status keep(struct arena *arena, struct view from, size_t max_bytes,
                        struct view *out, struct error *err) {
    *out = view_of(NULL, 0);
    if (from.n_bytes == 0 || from.n_bytes > max_bytes)
        return STATUS_OK;
    return arena_copy(arena, from, out, err);
}

/* The content warning, then the words. */
static enum status words_of(const json_t *status_object, struct arena *arena,
                            struct view *out, struct error *err) {
    struct view warning = text_of(status_object, "spoiler_text");
    struct view text = {0};
    enum status status =
        html_to_text(text_of(status_object, "content"), arena, &text, err);
    if (status != STATUS_OK || warning.n_bytes == 0) {
        *out = text;
        return status;
    }
    if (warning.n_bytes > POST_MAX_TEXT_BYTES)
        return error_set(err, STATUS_LIMIT, "too_long: a content warning of %zu bytes",
                         warning.n_bytes);
    size_t n_bytes = 0;
    char *both = size_add(warning.n_bytes, text.n_bytes, &n_bytes) &&
                         size_add(n_bytes, 2, &n_bytes)
                     ? arena_take(arena, n_bytes)
                     : NULL;
    if (!both)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the text of a post");
    memcpy(both, warning.data, warning.n_bytes);
    both[warning.n_bytes] = '\n';
    if (text.n_bytes > 0)
        memcpy(both + warning.n_bytes + 1, text.data, text.n_bytes);
    *out = view_of(both, warning.n_bytes + (text.n_bytes > 0) + text.n_bytes);
    return STATUS_OK;
}

static struct view author_of(const json_t *account) {
    static const char *const keys[] = {"url", "uri", "acct", "id"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        struct view v = text_of(account, keys[i]);
        if (v.n_bytes > 0 && v.n_bytes <= POST_MAX_NAME_BYTES)
            return v;
    }
    return view_of(NULL, 0);
}

/* A field of the profile that people call "Location". */
static enum status place_of(const json_t *account, struct arena *arena,
                            struct view *out, struct error *err) {
    const json_t *fields = json_object_get(account, "fields");
    *out = view_of(NULL, 0);
    for (size_t i = 0; i < json_array_size(fields); i++) {
        const json_t *field = json_array_get(fields, i);
        struct view name = text_of(field, "name"), value = text_of(field, "value");
        if (name.n_bytes != 8 || strncasecmp(name.data, "location", 8) != 0 ||
            value.n_bytes > 4096)
            continue;
        enum status status = html_to_text(value, arena, out, err);
        if (out->n_bytes > POST_MAX_NAME_BYTES)
            *out = view_of(NULL, 0);
        return status;
    }
    return STATUS_OK;
}

struct parts {
    struct view id, text, author, lang, place;
    int64_t version, posted_ns;
};

static enum status read_parts(const json_t *object, struct arena *arena,
                              struct parts *out, struct error *err) {
    const json_t *account = json_object_get(object, "account");
    int64_t edited_ns = record_time(text_of(object, "edited_at"));
    *out = (struct parts){.version = edited_ns > 0 ? edited_ns / 1000000 : 1,
                          .posted_ns = record_time(text_of(object, "created_at"))};
    if (json_string_length(json_object_get(object, "id")) > POST_MAX_ID_BYTES)
        return error_set(err, STATUS_INVALID, "a status with too long an id");
    enum status status =
        keep(arena, text_of(object, "id"), POST_MAX_ID_BYTES, &out->id, err);
    if (status == STATUS_OK)
        status = words_of(object, arena, &out->text, err);
    if (status == STATUS_OK)
        status =
            keep(arena, author_of(account), POST_MAX_NAME_BYTES, &out->author, err);
    if (status == STATUS_OK)
        status = keep(arena, text_of(object, "language"), POST_MAX_NAME_BYTES,
                      &out->lang, err);
    if (status == STATUS_OK)
        status = place_of(account, arena, &out->place, err);
    if (status == STATUS_OK && out->text.n_bytes > POST_MAX_TEXT_BYTES)
        status =
            error_set(err, STATUS_LIMIT, "too_long: a text of %zu bytes, at most %d",
                      out->text.n_bytes, POST_MAX_TEXT_BYTES);
    return status;
}

/* ---- A status ---- */

/* What it boosts or quotes: {"reblog": status}, {"quote": {"quoted_status": status}} or, of
 * some relatives of Mastodon, {"quote": status}. */
static const json_t *original_of(const json_t *object, enum post_relation *relation) {
    const json_t *original = json_object_get(object, "reblog");
    *relation = POST_REPOST;
    if (!json_is_object(original)) {
        original = json_object_get(object, "quote");
        *relation = POST_QUOTE;
        const json_t *quoted = json_object_get(original, "quoted_status");
        if (json_is_object(quoted))
            original = quoted;
    }
    if (json_is_object(original) && text_of(original, "id").n_bytes > 0)
        return original;
    *relation = POST_ORIGINAL;
    return NULL;
}

static bool is_public(const json_t *object) {
    struct view visibility = text_of(object, "visibility");
    return visibility.n_bytes == 0 || view_equal(visibility, VIEW("public")) ||
           view_equal(visibility, VIEW("unlisted"));
}

static enum status parse_status(const json_t *object, struct arena *arena,
                                struct post *out, struct error *err) {
    struct parts p, of;
    const json_t *original = original_of(object, &out->relation);
    struct view url = text_of(object, "url");
    if (!is_public(object) || (original && !is_public(original)))
        return STATUS_OK;
    enum status status = read_parts(object, arena, &p, err);
    if (status != STATUS_OK)
        return status;
    if (p.id.n_bytes == 0)
        return error_set(err, STATUS_INVALID, "a status without an id");
    out->action = POST_PUT;
    out->native_id = p.id;
    out->version = p.version;
    out->text = p.text;
    out->author = p.author;
    out->lang = p.lang;
    out->place = p.place;
    out->posted_ns = p.posted_ns;
    status = keep(arena, text_of(json_object_get(object, "account"), "acct"),
                  POST_MAX_NAME_BYTES, &out->author_name, err);
    if (status == STATUS_OK)
        status = keep(arena, url.n_bytes ? url : text_of(object, "uri"), 2048,
                      &out->url, err);
    if (status != STATUS_OK || !original)
        return status;
    status = read_parts(original, arena, &of, err);
    if (status == STATUS_LIMIT || status == STATUS_INVALID) {
        of = (struct parts){.version = 0}; /* the post itself is good */
        status = keep(arena, text_of(original, "id"), POST_MAX_ID_BYTES, &of.id, err);
    }
    out->original_id = of.id;
    out->original_version = of.version;
    out->original_text = of.text;
    out->original_author = of.author;
    out->original_lang = of.lang;
    out->original_place = of.place;
    out->original_posted_ns = of.posted_ns;
    if (of.id.n_bytes == 0)
        out->relation = POST_ORIGINAL;
    return status;
}

static bool is_id(struct view v) {
    if (v.n_bytes == 0 || v.n_bytes > POST_MAX_ID_BYTES)
        return false;
    for (size_t i = 0; i < v.n_bytes; i++)
        if ((unsigned char)v.data[i] <= ' ' || v.data[i] == '"')
            return false;
    return true;
}

enum status mastodon_post_parse(struct view line, struct arena *arena, struct post *out,
                                struct error *err) {
    json_t *root = NULL;
    memset(out, 0, sizeof(*out));
    out->action = POST_NOTHING;
    out->version = 1;
    enum status status = json_parse(line.data, line.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    struct view event = text_of(root, "event"), id = text_of(root, "payload");
    const json_t *payload = json_object_get(root, "payload");
    if (view_equal(event, VIEW("update")) || view_equal(event, VIEW("status.update"))) {
        if (json_is_object(payload))
            status = parse_status(payload, arena, out, err);
        else
            status = error_set(err, STATUS_INVALID, "a status that is no object");
        if (status == STATUS_OK && out->action == POST_NOTHING) {
            memset(out, 0, sizeof(*out));
            out->action = POST_NOTHING;
        }
    } else if (view_equal(event, VIEW("delete"))) {
        if (!is_id(id)) {
            status = error_set(err, STATUS_INVALID, "a delete without an id");
        } else {
            out->action = POST_DELETE;
            status = keep(arena, id, POST_MAX_ID_BYTES, &out->native_id, err);
        }
    }
    json_decref(root);
    return status;
}
