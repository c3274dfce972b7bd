/* SPDX-License-Identifier: Apache-2.0 */
#include "client/sources/jetstream_post.h"

#include <stddef.h>
#include <string.h>

#include "base/json.h"
#include "client/sources/record.h"
#include "client/sources/source.h"

#define MAX_DEPTH 32
#define MAX_VALUES 20000
#define MAX_KEY_BYTES 1024
#define TID_BYTES 13
#define NS_PER_US 1000

/* ---- Without a parser --------------------------------------------------------------- */

/* The string that begins at i (its opening quote): where it ends, the quote included. */
static size_t skip_string(struct view v, size_t i) {
    for (i++; i < v.n_bytes && v.data[i] != '"'; i++)
        if (v.data[i] == '\\')
            i++;
    return i < v.n_bytes ? i + 1 : v.n_bytes;
}

static size_t skip_space(struct view v, size_t i) {
    while (i < v.n_bytes && strchr(" \t\r\n", v.data[i]) && v.data[i])
        i++;
    return i;
}

static bool read_number(struct view v, size_t i, uint64_t *out) {
    uint64_t n = 0;
    size_t from = i;
    for (; i < v.n_bytes && v.data[i] >= '0' && v.data[i] <= '9'; i++) {
        uint64_t digit = (uint64_t)(v.data[i] - '0');
        if (n > (INT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return i > from && (i == v.n_bytes || !strchr(".eE", v.data[i]));
}

bool jetstream_time_us(struct view line, uint64_t *out) {
    static const char key[] = "\"time_us\"";
    size_t depth = 0;
    for (size_t i = 0; i < line.n_bytes;) {
        char c = line.data[i];
        if (c == '"') {
            size_t end = skip_string(line, i);
            bool is_key = depth == 1 && end - i == sizeof key - 1 &&
                          memcmp(line.data + i, key, sizeof key - 1) == 0;
            i = is_key ? skip_space(line, end) : end;
            if (is_key && i < line.n_bytes && line.data[i] == ':')
                return read_number(line, skip_space(line, i + 1), out);
            continue;
        }
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth-- == 0)
            return false;
        i++;
    }
    return false;
}

bool jetstream_tid(struct view text, int64_t *out) {
    static const char digits[] = "234567abcdefghijklmnopqrstuvwxyz";
    uint64_t n = 0;
    if (text.n_bytes != TID_BYTES)
        return false;
    for (size_t i = 0; i < TID_BYTES; i++) {
        const char *found = text.data[i] ? strchr(digits, text.data[i]) : NULL;
        size_t digit = found ? (size_t)(found - digits) : 32;
        if (digit == 32 || (i == 0 && digit >= 8)) /* 65 digits' bits, the top two 0 */
            return false;
        n = n << 5 | digit;
    }
    *out = (int64_t)n;
    return true;
}

/* ---- With it ------------------------------------------------------------------------- */

static struct view string_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_string(value)
               ? view_of(json_string_value(value), json_string_length(value))
               : view_of(NULL, 0);
}

static bool is_of(struct view v, const char *others) {
    for (size_t i = 0; i < v.n_bytes; i++) {
        char c = v.data[i];
        char lower = (char)(c | 0x20);
        if (!(c >= '0' && c <= '9') && !(lower >= 'a' && lower <= 'z') &&
            !(c && strchr(others, c)))
            return false;
    }
    return v.n_bytes > 0;
}

static bool is_did(struct view v) {
    return view_starts_with(v, VIEW("did:")) && v.n_bytes > 4 && is_of(v, ".:%_-");
}

static enum status invalid(struct error *err, const char *what) {
    return error_set(err, STATUS_INVALID, "not a Jetstream event: %s", what);
}

static bool is_account_gone(const json_t *event) {
    const json_t *account = json_object_get(event, "account");
    return json_is_false(json_object_get(account, "active"));
}

/* The record that is embedded, alone or beside media, if that is a post. */
static enum status read_quote(const json_t *record, struct arena *arena,
                              struct post *out, struct error *err) {
    const json_t *embed = json_object_get(record, "embed");
    const json_t *embedded = json_object_get(embed, "record");
    struct view uri = string_of(embedded, "uri");
    if (uri.n_bytes == 0)
        uri = string_of(json_object_get(embedded, "record"), "uri");
    static const char scheme[] = "at://", middle[] = "/" JETSTREAM_COLLECTION "/";
    if (!view_starts_with(uri, VIEW(scheme)) || uri.n_bytes > POST_MAX_ID_BYTES ||
        !is_of(uri, ".:%_~/-"))
        return STATUS_OK;
    const char *did = uri.data + sizeof scheme - 1;
    const char *end = memmem(uri.data, uri.n_bytes, middle, sizeof middle - 1);
    if (!end || end < did)
        return STATUS_OK;
    struct view author = view_of(did, (size_t)(end - did));
    out->relation = POST_QUOTE;
    enum status status = arena_copy(arena, uri, &out->original_id, err);
    if (status == STATUS_OK && is_did(author) && author.n_bytes <= POST_MAX_NAME_BYTES)
        status = arena_copy(arena, author, &out->original_author, err);
    return status;
}

static enum status read_record(const json_t *record, uint64_t time_us,
                               struct arena *arena, struct post *out,
                               struct error *err) {
    const json_t *text = json_object_get(record, "text");
    if (!json_is_string(text))
        return invalid(err, "a post without a text");
    if (json_string_length(text) > POST_MAX_TEXT_BYTES)
        return error_set(err, STATUS_LIMIT, "too_long: a text of %zu bytes, at most %d",
                         json_string_length(text), POST_MAX_TEXT_BYTES);
    const json_t *lang = json_array_get(json_object_get(record, "langs"), 0);
    struct view tag = json_is_string(lang)
                          ? view_of(json_string_value(lang), json_string_length(lang))
                          : view_of(NULL, 0);
    struct view created = string_of(record, "createdAt");
    int64_t said_ns = created.n_bytes ? record_time(created) : 0;
    int64_t seen_ns =
        time_us <= INT64_MAX / NS_PER_US ? (int64_t)time_us * NS_PER_US : 0;
    out->posted_ns = said_ns == 0 || (seen_ns && seen_ns < said_ns) ? seen_ns : said_ns;
    enum status status =
        arena_copy(arena, view_of(json_string_value(text), json_string_length(text)),
                   &out->text, err);
    if (status == STATUS_OK && tag.n_bytes <= POST_MAX_NAME_BYTES && is_of(tag, "-"))
        status = arena_copy(arena, tag, &out->lang, err);
    return status == STATUS_OK ? read_quote(record, arena, out, err) : status;
}

static enum status read_commit(const json_t *event, uint64_t time_us,
                               struct arena *arena, struct post *out,
                               struct error *err) {
    const json_t *commit = json_object_get(event, "commit");
    struct view did = string_of(event, "did");
    struct view rkey = string_of(commit, "rkey");
    struct view operation = string_of(commit, "operation");
    if (!json_is_object(commit))
        return invalid(err, "a commit without a commit");
    if (!view_equal(string_of(commit, "collection"), VIEW(JETSTREAM_COLLECTION)))
        return STATUS_OK;
    bool is_delete = view_equal(operation, VIEW("delete"));
    if (!is_delete && !view_equal(operation, VIEW("create")) &&
        !view_equal(operation, VIEW("update")))
        return STATUS_OK;
    if (!is_did(did) || !is_of(rkey, ".:_~-"))
        return invalid(err, "a commit whose did or rkey cannot be one");
    if (did.n_bytes > POST_MAX_NAME_BYTES ||
        did.n_bytes + rkey.n_bytes + sizeof "at:///" JETSTREAM_COLLECTION "/" >
            POST_MAX_ID_BYTES)
        return error_set(err, STATUS_LIMIT, "too_long: an id of more than %d bytes",
                         POST_MAX_ID_BYTES);
    if (!jetstream_tid(string_of(commit, "rev"), &out->version))
        out->version =
            time_us && time_us <= INT64_MAX >> 10 ? (int64_t)time_us << 10 : 1;
    out->id_has_author = true;
    enum status status = arena_printf(
        arena, &out->native_id, err, "at://%.*s/" JETSTREAM_COLLECTION "/%.*s",
        (int)did.n_bytes, did.data, (int)rkey.n_bytes, rkey.data);
    if (status == STATUS_OK && !is_delete)
        status = arena_copy(arena, did, &out->author, err);
    if (status == STATUS_OK && !is_delete)
        status =
            read_record(json_object_get(commit, "record"), time_us, arena, out, err);
    if (status == STATUS_OK)
        out->action = is_delete ? POST_DELETE : POST_PUT;
    return status;
}

enum status jetstream_parse(struct view line, struct arena *arena, struct post *out,
                            bool *is_gone, struct error *err) {
    static const struct json_limits limits = {.max_bytes = SOURCE_MAX_LINE_BYTES,
                                              .max_depth = MAX_DEPTH,
                                              .max_values = MAX_VALUES,
                                              .max_key_bytes = MAX_KEY_BYTES};
    json_t *event = NULL;
    *out = (struct post){.action = POST_NOTHING};
    *is_gone = false;
    enum status status =
        json_parse(line.data ? line.data : "", line.n_bytes, &limits, &event, err);
    if (status != STATUS_OK)
        return status;
    struct view kind = string_of(event, "kind");
    json_int_t time_us = json_integer_value(json_object_get(event, "time_us"));
    if (kind.n_bytes == 0)
        status = invalid(err, "no kind");
    else if (view_equal(kind, VIEW("commit")))
        status =
            read_commit(event, time_us > 0 ? (uint64_t)time_us : 0, arena, out, err);
    else if (view_equal(kind, VIEW("account")))
        *is_gone = is_account_gone(event);
    json_decref(event);
    return status;
}
