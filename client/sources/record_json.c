/* SPDX-License-Identifier: Apache-2.0
 *
 * record_json.c - the two readers of a JSON record, of which record_fields.h tells.
 */
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "client/sources/record_fields.h"
#include "client/sources/source.h"

#define MAX_JSON_DEPTH 32
#define MAX_JSON_VALUES 20000
#define MAX_JSON_KEY_BYTES 1024
#define MAX_QUICK_KEYS 32
#define MAX_QUICK_DIGITS 18 /* fit an int64_t */

/* ---- the quick one ---- */

struct quick {
    const uint8_t *at, *end;
    struct arena *arena;
    struct view keys[MAX_QUICK_KEYS];
    size_t n_keys;
};

static void skip_space(struct quick *q) {
    while (q->at < q->end &&
           (*q->at == ' ' || *q->at == '\t' || *q->at == '\n' || *q->at == '\r'))
        q->at++;
}

static bool take(struct quick *q, uint8_t c) {
    skip_space(q);
    if (q->at == q->end || *q->at != c)
        return false;
    q->at++;
    return true;
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Not 0 when one of eight bytes is a control character, a quote, a backslash or not ASCII;
 * maybe also when none is. */
static uint64_t is_special(uint64_t eight) {
    uint64_t quote = eight ^ EACH('"'), slash = eight ^ EACH('\\');
    return (eight | ((eight - EACH(0x20)) & ~eight) | ((quote - EACH(1)) & ~quote) |
            ((slash - EACH(1)) & ~slash)) &
           EACH(0x80);
}

static int32_t hex4(const uint8_t *p, const uint8_t *end) {
    int32_t value = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], lower = c | 0x20;
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + (lower - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* The code point of an escape at p (behind its backslash), and how long it is; 0 when it is
 * one to be looked at with care: U+0000, a lone surrogate, no escape at all. */
static uint32_t escape(const uint8_t *p, const uint8_t *end, size_t *n) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    *n = 1;
    if (p == end)
        return 0;
    const char *found = *p ? strchr(from, *p) : NULL;
    if (found)
        return (uint8_t)to[found - from];
    int32_t unit = *p == 'u' ? hex4(p + 1, end) : 0;
    *n = 5;
    if (unit <= 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return 0;
    if (unit < 0xD800 || unit > 0xDBFF)
        return (uint32_t)unit;
    int32_t low = end - p >= 11 && p[5] == '\\' && p[6] == 'u' ? hex4(p + 7, end) : 0;
    *n = 11;
    if (low < 0xDC00 || low > 0xDFFF)
        return 0;
    return 0x10000u + ((uint32_t)(unit - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
}

/* Passes a string, its opening quote taken already. */
static bool pass_string(struct quick *q, struct view *raw, bool *has_escapes) {
    const uint8_t *from = q->at, *p = q->at;
    *has_escapes = false;
    for (;;) {
        uint64_t eight;
        while (q->end - p >= 8 && (memcpy(&eight, p, 8), is_special(eight) == 0))
            p += 8;
        if (p == q->end || *p < 0x20)
            return false;
        if (*p == '"')
            break;
        size_t n = 1;
        if (*p == '\\') {
            if (!escape(p + 1, q->end, &n))
                return false;
            n++;
            *has_escapes = true;
        } else if (*p >= 0x80 &&
                   utf8_decode(p, (size_t)(q->end - p), &n) == UTF8_REPLACEMENT &&
                   n == 1) {
            return false;
        }
        p += n;
    }
    *raw = view_of((const char *)from, (size_t)(p - from));
    q->at = p + 1;
    return true;
}

static bool unescape(struct quick *q, struct view raw, struct view *out) {
    char *copy = arena_take(q->arena, raw.n_bytes + 1);
    const uint8_t *p = (const uint8_t *)raw.data, *end = p + raw.n_bytes;
    size_t n = 0, length;
    if (!copy)
        return false;
    while (p < end) {
        const uint8_t *slash = memchr(p, '\\', (size_t)(end - p));
        size_t n_plain = (size_t)((slash ? slash : end) - p);
        memcpy(copy + n, p, n_plain);
        n += n_plain;
        p += n_plain;
        if (!slash)
            break;
        uint8_t utf8[4];
        size_t n_utf8 = utf8_encode(escape(p + 1, end, &length), utf8);
        memcpy(copy + n, utf8, n_utf8);
        n += n_utf8;
        p += 1 + length;
    }
    copy[n] = '\0';
    *out = view_of(copy, n);
    return true;
}

static bool take_word(struct quick *q, const char *word, enum record_type type,
                      struct record_value *out) {
    size_t n = strlen(word);
    if ((size_t)(q->end - q->at) < n || memcmp(q->at, word, n) != 0)
        return false;
    q->at += n;
    out->type = type;
    return true;
}

static bool take_integer(struct quick *q, struct record_value *out) {
    const uint8_t *from = q->at, *p = q->at;
    bool is_negative = *p == '-';
    int64_t value = 0;
    p += is_negative;
    const uint8_t *digits = p;
    for (; p < q->end && *p >= '0' && *p <= '9'; p++) {
        if (p - digits == MAX_QUICK_DIGITS)
            return false;
        value = value * 10 + (*p - '0');
    }
    if (p == digits || (*digits == '0' && (p - digits > 1 || is_negative)) ||
        (p < q->end && (*p == '.' || *p == 'e' || *p == 'E')))
        return false;
    *out = (struct record_value){RECORD_INTEGER,
                                 view_of((const char *)from, (size_t)(p - from)),
                                 is_negative ? -value : value};
    q->at = p;
    return true;
}

/* A string, an integer, a word; wants: its value, not only where it ends. */
static bool take_value(struct quick *q, bool wants, struct record_value *out) {
    skip_space(q);
    *out = (struct record_value){.type = RECORD_NOTHING};
    if (q->at == q->end)
        return false;
    switch (*q->at) {
    case '"': {
        struct view raw;
        bool has_escapes;
        q->at++;
        if (!pass_string(q, &raw, &has_escapes))
            return false;
        out->type = RECORD_STRING;
        out->text = raw;
        return !wants || !has_escapes || unescape(q, raw, &out->text);
    }
    case 't':
        return take_word(q, "true", RECORD_TRUE, out);
    case 'f':
        return take_word(q, "false", RECORD_FALSE, out);
    case 'n':
        return take_word(q, "null", RECORD_NOTHING, out);
    default:
        return take_integer(q, out);
    }
}

static bool is_new_key(struct quick *q, struct view key) {
    for (size_t i = 0; i < q->n_keys; i++)
        if (view_equal(q->keys[i], key))
            return false;
    if (q->n_keys == MAX_QUICK_KEYS)
        return false;
    q->keys[q->n_keys++] = key;
    return true;
}

static bool take_member(struct quick *q, const struct record_names *names,
                        struct record_fields *out) {
    struct view key;
    struct record_value value;
    bool has_escapes, is_wanted = false;
    if (!take(q, '"') || !pass_string(q, &key, &has_escapes) || has_escapes ||
        key.n_bytes > MAX_JSON_KEY_BYTES || !is_new_key(q, key) || !take(q, ':'))
        return false;
    for (int i = 0; i < RECORD_N_FIELDS && !is_wanted; i++)
        is_wanted = view_equal(names->names[i], key);
    if (!take_value(q, is_wanted, &value))
        return false;
    for (int i = 0; i < RECORD_N_FIELDS && is_wanted; i++)
        if (view_equal(names->names[i], key))
            out->values[i] = value;
    return true;
}

bool record_read_quick(const struct record_names *names, struct view json,
                       struct arena *arena, struct record_fields *out) {
    struct quick q = {.arena = arena};
    memset(out, 0, sizeof *out);
    if (json.n_bytes == 0 || json.n_bytes > SOURCE_MAX_LINE_BYTES)
        return false;
    q.at = (const uint8_t *)json.data;
    q.end = q.at + json.n_bytes;
    if (!take(&q, '{'))
        return false;
    if (!take(&q, '}')) {
        do {
            if (!take_member(&q, names, out))
                return false;
        } while (take(&q, ','));
        if (!take(&q, '}'))
            return false;
    }
    skip_space(&q);
    return q.at == q.end;
}

/* ---- jansson ---- */

static enum status value_of(json_t *json, struct arena *arena, struct record_value *out,
                            struct error *err) {
    *out = (struct record_value){.type = RECORD_NOTHING};
    if (!json)
        return STATUS_OK;
    switch (json_typeof(json)) {
    case JSON_STRING:
        out->type = RECORD_STRING;
        return arena_copy(arena,
                          view_of(json_string_value(json), json_string_length(json)),
                          &out->text, err);
    case JSON_INTEGER:
        out->type = RECORD_INTEGER;
        out->integer = json_integer_value(json);
        return arena_printf(arena, &out->text, err, "%lld", (long long)out->integer);
    case JSON_REAL:
        out->type = RECORD_REAL;
        return arena_printf(arena, &out->text, err, "%.17g", json_real_value(json));
    case JSON_TRUE:
        out->type = RECORD_TRUE;
        break;
    case JSON_FALSE:
        out->type = RECORD_FALSE;
        break;
    case JSON_NULL:
        break;
    default:
        out->type = RECORD_OTHER;
    }
    return STATUS_OK;
}

static enum status values_of(json_t *object, const struct record_names *names,
                             struct arena *arena, struct record_value *out,
                             struct error *err) {
    enum status status = STATUS_OK;
    for (int i = 0; i < RECORD_N_FIELDS && status == STATUS_OK; i++)
        status = value_of(
            json_object_getn(object, names->names[i].data, names->names[i].n_bytes),
            arena, &out[i], err);
    return status;
}

enum status record_read_json(const struct record_names *names, struct view json,
                             struct arena *arena, struct record_fields *out,
                             struct error *err) {
    static const struct json_limits limits = {.max_bytes = SOURCE_MAX_LINE_BYTES,
                                              .max_depth = MAX_JSON_DEPTH,
                                              .max_values = MAX_JSON_VALUES,
                                              .max_key_bytes = MAX_JSON_KEY_BYTES};
    json_t *root = NULL;
    memset(out, 0, sizeof *out);
    enum status status = json_parse(json.data, json.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    if (json_is_string(root)) {
        status = value_of(root, arena, &out->values[RECORD_TEXT], err);
    } else if (!json_is_object(root)) {
        status = error_set(err, STATUS_INVALID,
                           "is neither a JSON object nor a JSON string");
    } else {
        json_t *original = json_object_getn(root, names->names[RECORD_ORIGINAL].data,
                                            names->names[RECORD_ORIGINAL].n_bytes);
        status = values_of(root, names, arena, out->values, err);
        out->has_original = json_is_object(original);
        if (status == STATUS_OK && out->has_original)
            status = values_of(original, names, arena, out->original, err);
    }
    json_decref(root);
    return status;
}
