/* SPDX-License-Identifier: Apache-2.0
 *
 * record.c - from a line in any of the formats to its fields, and from these to a post.
 */
#include "client/sources/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/csv.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "client/sources/record_fields.h"

#define ID_HASH_DIGITS 32
#define MAX_URL_BYTES 2048
#define MAX_COLUMNS 65536

static const char *const DEFAULT_NAMES[RECORD_N_FIELDS] = {
    "text",    "id",  "author",    "author_name", "lang",    "time",    "place",
    "version", "url", "repost_of", "quote_of",    "deleted", "original"};

struct record_names record_names_of(const struct source_settings *settings) {
    struct record_names names;
    for (int i = 0; i < RECORD_N_FIELDS; i++)
        names.names[i] = view_of_string(DEFAULT_NAMES[i]);
    if (!settings)
        return names;
    const char *const chosen[RECORD_N_FIELDS] = {
        [RECORD_TEXT] = settings->text_field,
        [RECORD_ID] = settings->id_field,
        [RECORD_AUTHOR] = settings->author_field,
        [RECORD_LANG] = settings->lang_field,
        [RECORD_TIME] = settings->time_field,
        [RECORD_PLACE] = settings->place_field};
    for (int i = 0; i < RECORD_N_FIELDS; i++)
        if (chosen[i])
            names.names[i] = view_of_string(chosen[i]);
    return names;
}

/* ---- values ---- */

static struct view name_of(const struct record_names *names, enum record_field field) {
    return names->names[field];
}

#define SHOWN(view) (int)((view).n_bytes < 64 ? (view).n_bytes : 64), (view).data

/* A copy in the arena, U+FFFD for U+0000. */
static enum status keep_text(struct arena *arena, struct view from, struct view *out,
                             struct error *err) {
    size_t n_nul = 0, n = 0;
    for (size_t i = 0; i < from.n_bytes; i++)
        n_nul += from.data[i] == '\0';
    if (n_nul == 0)
        return arena_copy(arena, from, out, err);
    char *copy = arena_take(arena, from.n_bytes + 2 * n_nul + 1);
    if (!copy)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    for (size_t i = 0; i < from.n_bytes; i++) {
        if (from.data[i] != '\0') {
            copy[n++] = from.data[i];
        } else {
            memcpy(copy + n, "\xEF\xBF\xBD", 3);
            n += 3;
        }
    }
    copy[n] = '\0';
    *out = view_of(copy, n);
    return STATUS_OK;
}

/* An id or the like: a string or an integer; empty when there is none. */
static enum status take_id(const struct record_names *names,
                           const struct record_value *values, enum record_field field,
                           size_t max_bytes, struct arena *arena, struct view *out,
                           struct error *err) {
    const struct record_value *v = &values[field];
    struct view name = name_of(names, field);
    *out = view_of(NULL, 0);
    if (v->type == RECORD_NOTHING)
        return STATUS_OK;
    if (v->type != RECORD_STRING && v->type != RECORD_INTEGER)
        return error_set(err, STATUS_INVALID,
                         "field \"%.*s\" is neither a string nor an integer",
                         SHOWN(name));
    if (v->text.n_bytes > max_bytes)
        return error_set(err, STATUS_LIMIT,
                         "field \"%.*s\" has %zu bytes, more than %zu", SHOWN(name),
                         v->text.n_bytes, max_bytes);
    if (v->text.n_bytes && memchr(v->text.data, '\0', v->text.n_bytes))
        return error_set(err, STATUS_INVALID, "field \"%.*s\" holds U+0000",
                         SHOWN(name));
    return arena_copy(arena, v->text, out, err);
}

/* What may be left out or cut: never a reason to refuse the post. */
static enum status take_hint(const struct record_value *v, size_t max_bytes, bool cuts,
                             struct arena *arena, struct view *out, struct error *err) {
    struct view text = v->text;
    *out = view_of(NULL, 0);
    if (v->type != RECORD_STRING || (!cuts && text.n_bytes > max_bytes))
        return STATUS_OK;
    if (text.n_bytes > max_bytes) {
        text.n_bytes = max_bytes;
        while (text.n_bytes && ((uint8_t)text.data[text.n_bytes] & 0xC0) == 0x80)
            text.n_bytes--;
    }
    return keep_text(arena, text, out, err);
}

/* By its size: seconds reach 10^11 in the year 5138, ms in 1973. */
static int64_t time_of_integer(int64_t value) {
    static const int64_t bounds[] = {INT64_C(100000000000), INT64_C(100000000000000),
                                     INT64_C(100000000000000000)};
    int64_t scale = CLOCK_NS_PER_SECOND;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds && value >= bounds[i]; i++)
        scale /= 1000;
    return value <= 0 || value > INT64_MAX / scale ? 0 : value * scale;
}

static int64_t time_of(const struct record_value *v) {
    char text[32], *end;
    if (v->type == RECORD_INTEGER)
        return time_of_integer(v->integer);
    if ((v->type != RECORD_STRING && v->type != RECORD_REAL) || v->text.n_bytes == 0 ||
        v->text.n_bytes >= sizeof text)
        return record_time(v->text);
    memcpy(text, v->text.data, v->text.n_bytes);
    text[v->text.n_bytes] = '\0';
    if (v->type == RECORD_STRING) {
        long long number = strtoll(text, &end, 10);
        bool is_number = text[0] >= '0' && text[0] <= '9' && *end == '\0';
        return is_number ? time_of_integer(number) : record_time(v->text);
    }
    double number = strtod(text, &end);
    if (!(number > 0 && number < 9.2e18))
        return 0;
    if (number >= 1e11)
        return time_of_integer((int64_t)number);
    return number < 9.2e9 ? (int64_t)(number * 1e9) : 0;
}

static enum status take_version(const struct record_names *names,
                                const struct record_value *v, int64_t *out,
                                struct error *err) {
    struct view name = name_of(names, RECORD_VERSION);
    char text[24], *end;
    int64_t value = v->integer;
    *out = 1;
    if (v->type == RECORD_NOTHING)
        return STATUS_OK;
    if (v->type == RECORD_STRING && v->text.n_bytes && v->text.n_bytes < sizeof text) {
        memcpy(text, v->text.data, v->text.n_bytes);
        text[v->text.n_bytes] = '\0';
        errno = 0;
        value = strtoll(text, &end, 10);
        if (errno || *end != '\0' || end == text)
            value = 0;
    } else if (v->type != RECORD_INTEGER) {
        value = 0;
    }
    if (value < 1)
        return error_set(err, STATUS_INVALID, "field \"%.*s\" is no integer from 1 on",
                         SHOWN(name));
    *out = value;
    return STATUS_OK;
}

static enum status take_deleted(const struct record_names *names,
                                const struct record_value *v, bool *out,
                                struct error *err) {
    struct view name = name_of(names, RECORD_DELETED);
    *out = v->type == RECORD_TRUE ||
           (v->type == RECORD_STRING &&
            (view_equal(v->text, VIEW("true")) || view_equal(v->text, VIEW("1"))));
    bool is_false = v->type == RECORD_NOTHING || v->type == RECORD_FALSE ||
                    (v->type == RECORD_STRING && (view_equal(v->text, VIEW("false")) ||
                                                  view_equal(v->text, VIEW("0"))));
    return *out || is_false
               ? STATUS_OK
               : error_set(err, STATUS_INVALID,
                           "field \"%.*s\" is neither true nor false", SHOWN(name));
}

static enum status take_text(const struct record_names *names,
                             const struct record_value *v, bool is_needed,
                             struct arena *arena, struct view *out, struct error *err) {
    struct view name = name_of(names, RECORD_TEXT);
    *out = view_of(NULL, 0);
    if (v->type == RECORD_NOTHING)
        return is_needed ? error_set(err, STATUS_INVALID, "has no field \"%.*s\"",
                                     SHOWN(name))
                         : STATUS_OK;
    if (v->type != RECORD_STRING)
        return error_set(err, STATUS_INVALID, "field \"%.*s\" is not a string",
                         SHOWN(name));
    if (v->text.n_bytes > POST_MAX_TEXT_BYTES)
        return error_set(err, STATUS_LIMIT,
                         "too_long: the text has %zu bytes, more than %d",
                         v->text.n_bytes, POST_MAX_TEXT_BYTES);
    return keep_text(arena, v->text, out, err);
}

/* ---- the post ---- */

static enum status id_from_line(struct view line, struct arena *arena, struct view *out,
                                struct error *err) {
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    enum status status = sha256_of(line.data, line.n_bytes, digest, err);
    if (status != STATUS_OK)
        return status;
    sha256_hex(digest, hex);
    return arena_printf(arena, out, err, "sha256:%.*s", ID_HASH_DIGITS, hex);
}

/* What it reposts or quotes, and what is told of that. */
static enum status take_relation(const struct record_names *names,
                                 const struct record_fields *f, struct arena *arena,
                                 struct post *out, struct error *err) {
    const struct record_value *o = f->original;
    enum status status = take_id(names, f->values, RECORD_REPOST_OF, POST_MAX_ID_BYTES,
                                 arena, &out->original_id, err);
    out->relation = POST_REPOST;
    if (status == STATUS_OK && out->original_id.n_bytes == 0) {
        out->relation = POST_QUOTE;
        status = take_id(names, f->values, RECORD_QUOTE_OF, POST_MAX_ID_BYTES, arena,
                         &out->original_id, err);
    }
    if (status != STATUS_OK)
        return status;
    if (out->original_id.n_bytes == 0) {
        out->relation = POST_ORIGINAL;
        return STATUS_OK;
    }
    out->original_version = 1;
    if (!f->has_original)
        return STATUS_OK;
    status = take_version(names, &o[RECORD_VERSION], &out->original_version, err);
    if (status == STATUS_OK)
        status =
            take_text(names, &o[RECORD_TEXT], false, arena, &out->original_text, err);
    if (status == STATUS_OK)
        status = take_id(names, o, RECORD_AUTHOR, POST_MAX_NAME_BYTES, arena,
                         &out->original_author, err);
    if (status == STATUS_OK)
        status = take_hint(&o[RECORD_LANG], POST_MAX_NAME_BYTES, false, arena,
                           &out->original_lang, err);
    if (status == STATUS_OK)
        status = take_hint(&o[RECORD_PLACE], POST_MAX_NAME_BYTES, true, arena,
                           &out->original_place, err);
    out->original_posted_ns = time_of(&o[RECORD_TIME]);
    return status;
}

static enum status post_of(const struct record_names *names,
                           const struct record_fields *f, struct view line,
                           struct arena *arena, struct post *out, struct error *err) {
    const struct record_value *v = f->values;
    bool is_deleted;
    enum status status = take_deleted(names, &v[RECORD_DELETED], &is_deleted, err);
    if (status == STATUS_OK)
        status = take_id(names, v, RECORD_ID, POST_MAX_ID_BYTES, arena, &out->native_id,
                         err);
    if (status != STATUS_OK)
        return status;
    if (is_deleted) {
        out->action = POST_DELETE;
        return out->native_id.n_bytes
                   ? STATUS_OK
                   : error_set(err, STATUS_INVALID,
                               "is deleted, but has no field \"%.*s\"",
                               SHOWN(name_of(names, RECORD_ID)));
    }
    if (out->native_id.n_bytes == 0)
        status = id_from_line(line, arena, &out->native_id, err);
    if (status == STATUS_OK)
        status = take_version(names, &v[RECORD_VERSION], &out->version, err);
    if (status == STATUS_OK)
        status = take_relation(names, f, arena, out, err);
    if (status == STATUS_OK)
        status = take_text(names, &v[RECORD_TEXT], out->relation != POST_REPOST, arena,
                           &out->text, err);
    if (status == STATUS_OK)
        status = take_id(names, v, RECORD_AUTHOR, POST_MAX_NAME_BYTES, arena,
                         &out->author, err);
    if (status == STATUS_OK)
        status = take_hint(&v[RECORD_AUTHOR_NAME], POST_MAX_NAME_BYTES, false, arena,
                           &out->author_name, err);
    if (status == STATUS_OK)
        status = take_hint(&v[RECORD_LANG], POST_MAX_NAME_BYTES, false, arena,
                           &out->lang, err);
    if (status == STATUS_OK)
        status = take_hint(&v[RECORD_PLACE], POST_MAX_NAME_BYTES, true, arena,
                           &out->place, err);
    if (status == STATUS_OK)
        status = take_hint(&v[RECORD_URL], MAX_URL_BYTES, false, arena, &out->url, err);
    out->posted_ns = time_of(&v[RECORD_TIME]);
    return status;
}

/* ---- plain text and CSV ---- */

static enum status check_utf8(struct view text, struct error *err) {
    const uint8_t *p = (const uint8_t *)text.data;
    for (size_t at = 0, n; at < text.n_bytes; at += n)
        if (utf8_decode(p + at, text.n_bytes - at, &n) == UTF8_REPLACEMENT && n == 1)
            return error_set(err, STATUS_INVALID, "is not UTF-8 at byte %zu", at);
    return STATUS_OK;
}

/* A row of CSV as it is taken apart. */
struct row {
    struct csv csv;
    struct view left; /* what of the line was not read yet */
    char *at;         /* where the next byte of a field goes; there is room */
    size_t n_fields;
    bool is_done;
};

/* The next field of the row. */
static struct view next_field(struct row *row) {
    char *from = row->at;
    row->n_fields++;
    while (row->left.n_bytes) {
        char c = *row->left.data++;
        row->left.n_bytes--;
        enum csv_event event = csv_next(&row->csv, c);
        if (event == CSV_BYTE) {
            *row->at++ = c;
        } else if (event != CSV_NOTHING) {
            row->is_done = event == CSV_ROW;
            if (row->is_done && row->csv.ends_plain && row->at > from &&
                row->at[-1] == '\r')
                row->at--;
            return view_of(from, (size_t)(row->at - from));
        }
    }
    row->is_done = true;
    return view_of(from, (size_t)(row->at - from));
}

/* Header row, LF, row; the first of two columns of a name counts. */
static enum status read_csv(const struct record_names *names, struct view line,
                            struct arena *arena, struct record_fields *out,
                            struct error *err) {
    size_t columns[RECORD_N_FIELDS], n_columns;
    char separator = line.n_bytes ? line.data[0] : ',';
    char *memory = arena_take(arena, line.n_bytes + 1);
    if (!memory)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    struct row row = {.csv.separator = separator, .at = memory, .left = line};
    row.left.data += line.n_bytes > 0;
    row.left.n_bytes -= line.n_bytes > 0;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < RECORD_N_FIELDS; i++)
        columns[i] = SIZE_MAX;
    while (!row.is_done && row.n_fields < MAX_COLUMNS) {
        struct view name = next_field(&row);
        for (int i = 0; i < RECORD_N_FIELDS; i++)
            if (columns[i] == SIZE_MAX && view_equal(names->names[i], name))
                columns[i] = row.n_fields - 1;
    }
    n_columns = row.n_fields;
    row = (struct row){.csv.separator = separator, .at = row.at, .left = row.left};
    while (!row.is_done && row.n_fields < MAX_COLUMNS) {
        struct view field = next_field(&row);
        for (int i = 0; i < RECORD_N_FIELDS; i++)
            if (columns[i] == row.n_fields - 1 && (field.n_bytes || i == RECORD_TEXT))
                out->values[i] =
                    (struct record_value){.type = RECORD_STRING, .text = field};
    }
    if (row.csv.state == CSV_QUOTED)
        return error_set(err, STATUS_INVALID, "a quoted field never ends");
    if (row.csv.is_bad_quote)
        return error_set(err, STATUS_INVALID,
                         "a closing quote is followed by more of the field");
    if (row.n_fields != n_columns || !row.is_done)
        return error_set(err, STATUS_INVALID, "has %zu fields, the header %zu",
                         row.n_fields, n_columns);
    return STATUS_OK;
}

char record_tag(enum format format, struct view line) {
    char first = line.n_bytes ? line.data[0] : '\0';
    bool is_object = first == '{';
    if (format == FORMAT_JSONL)
        return is_object ? '\0' : RECORD_TAG_JSON;
    bool is_tag =
        first == RECORD_TAG_JSON || first == RECORD_TAG_TEXT || first == RECORD_TAG_CSV;
    return is_object || is_tag ? RECORD_TAG_TEXT : '\0';
}

enum status record_parse(const struct source_settings *settings, struct view line,
                         struct arena *arena, struct post *out, struct error *err) {
    struct record_names names = record_names_of(settings);
    struct record_fields fields;
    struct view content = line;
    enum status status = STATUS_OK;
    char tag = line.n_bytes ? line.data[0] : '\0';
    memset(out, 0, sizeof *out);
    if (tag == RECORD_TAG_JSON || tag == RECORD_TAG_TEXT || tag == RECORD_TAG_CSV) {
        content = view_of(line.data + 1, line.n_bytes - 1);
    } else {
        tag = tag == '{' ? RECORD_TAG_JSON : RECORD_TAG_TEXT;
    }
    if (tag == RECORD_TAG_JSON) {
        if (!record_read_quick(&names, content, arena, &fields))
            status = record_read_json(&names, content, arena, &fields, err);
        return status == STATUS_OK ? post_of(&names, &fields, content, arena, out, err)
                                   : status;
    }
    status = check_utf8(content, err);
    if (status != STATUS_OK)
        return status;
    if (tag == RECORD_TAG_CSV) {
        status = read_csv(&names, content, arena, &fields, err);
        /* The separator is no part of what is hashed. */
        if (content.n_bytes)
            content = view_of(content.data + 1, content.n_bytes - 1);
    } else {
        memset(&fields, 0, sizeof fields);
        fields.values[RECORD_TEXT] =
            (struct record_value){.type = RECORD_STRING, .text = content};
    }
    return status == STATUS_OK ? post_of(&names, &fields, content, arena, out, err)
                               : status;
}
