/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_item.c - see queue_item.h. One table of fields serves both directions.
 */
#include "store/queue/queue_item.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"

#define FORMAT_VERSION 1
#define HASH_BYTES 16
#define TOKEN_BYTES (3 * QUEUE_ITEM_SOURCE_BYTES + 2)
#define NAME_BYTES 24 /* of a field, "64" included */

static const struct json_limits limits = {.max_bytes = QUEUE_ITEM_MAX_BYTES,
                                          .max_depth = 4,
                                          .max_values = 256,
                                          .max_key_bytes = 64};

static const char *const kinds[] = {"post", "delete", "dead"};
static const char *const modes[] = {"pseudonymous", "full", "aggregate"};
static const char *const folds[] = {"", "repost", "quote", "duplicate"};

static const struct {
    const char *name;
    size_t offset;
} strings[] = {
#define STRING(field)                                                                  \
    { #field, offsetof(struct store_item, field) }
    STRING(source), STRING(key),      STRING(author), STRING(text),    STRING(lang),
    STRING(place),  STRING(city),     STRING(state),  STRING(country), STRING(drugs),
    STRING(url),    STRING(fold_key), STRING(body),   STRING(reason),  STRING(stage),
#undef STRING
};
static const struct {
    const char *name;
    size_t offset;
} integers[] = {
    {"version", offsetof(struct store_item, version)},
    {"posted_ns", offsetof(struct store_item, posted_ns)},
    {"received_ns", offsetof(struct store_item, received_ns)},
};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- writing ---- */

/* How long the UTF-8 character at p is; 0 when it is none (overlong, a surrogate, …). */
static size_t character_bytes(const uint8_t *p, size_t n_bytes) {
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] < 0xC2   ? 0
               : p[0] < 0xE0 ? 2
               : p[0] < 0xF0 ? 3
               : p[0] < 0xF5 ? 4
                             : 0;
    if (n == 0 || n > n_bytes)
        return 0;
    uint8_t low = 0x80, high = 0xBF; /* of the second byte */
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

static bool is_utf8(struct view v) {
    const uint8_t *p = (const uint8_t *)v.data;
    for (size_t at = 0; at < v.n_bytes;) {
        size_t n = character_bytes(p + at, v.n_bytes - at);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static enum status append_base64(struct buffer *out, struct view v, struct error *err) {
    const uint8_t *p = (const uint8_t *)v.data;
    enum status status = buffer_append(out, "\"", 1, err);
    for (size_t at = 0; status == STATUS_OK && at < v.n_bytes; at += 3) {
        size_t n = v.n_bytes - at < 3 ? v.n_bytes - at : 3;
        uint32_t bits = (uint32_t)p[at] << 16;
        bits |= n > 1 ? (uint32_t)p[at + 1] << 8 : 0;
        bits |= n > 2 ? p[at + 2] : 0;
        char four[4] = {base64_digits[bits >> 18], base64_digits[bits >> 12 & 63],
                        n > 1 ? base64_digits[bits >> 6 & 63] : '=',
                        n > 2 ? base64_digits[bits & 63] : '='};
        status = buffer_append(out, four, sizeof four, err);
    }
    return status == STATUS_OK ? buffer_append(out, "\"", 1, err) : status;
}

static enum status write_string(struct buffer *out, const char *name, struct view v,
                                struct error *err) {
    bool is_text = is_utf8(v);
    enum status status =
        buffer_printf(out, err, ",\"%s%s\":", name, is_text ? "" : "64");
    if (status != STATUS_OK)
        return status;
    return is_text ? json_append_string(out, v.data, v.n_bytes, err)
                   : append_base64(out, v, err);
}

enum status queue_item_write(const struct store_item *item, struct buffer *out,
                             struct error *err) {
    const char *base = (const char *)item;
    enum status status = buffer_printf(out, err, "{\"v\":%d,\"kind\":\"%s\"",
                                       FORMAT_VERSION, kinds[item->kind]);
    if (status == STATUS_OK && item->mode != STORE_PSEUDONYMOUS)
        status = buffer_printf(out, err, ",\"mode\":\"%s\"", modes[item->mode]);
    if (status == STATUS_OK && item->fold != STORE_NO_FOLD)
        status = buffer_printf(out, err, ",\"fold\":\"%s\"", folds[item->fold]);
    if (status == STATUS_OK && item->fingerprint != 0)
        status = buffer_printf(out, err, ",\"fingerprint\":\"%016" PRIx64 "\"",
                               item->fingerprint);
    for (size_t i = 0; status == STATUS_OK && i < COUNT(integers); i++) {
        int64_t value;
        memcpy(&value, base + integers[i].offset, sizeof value);
        if (value != 0)
            status =
                buffer_printf(out, err, ",\"%s\":%" PRId64, integers[i].name, value);
    }
    for (size_t i = 0; status == STATUS_OK && i < COUNT(strings); i++) {
        struct view v;
        memcpy(&v, base + strings[i].offset, sizeof v);
        if (v.n_bytes > 0)
            status = write_string(out, strings[i].name, v, err);
    }
    return status == STATUS_OK ? buffer_append(out, "}", 1, err) : status;
}

/* ---- reading ---- */

static enum status wrong(struct error *err, const char *name, const char *expected) {
    return error_set(err, STATUS_INVALID, "message of the queue: \"%s\" must be %s",
                     name, expected);
}

/* The place of a name in a list; the fallback when there is none. */
static enum status read_choice(const json_t *object, const char *name,
                               const char *const *choices, size_t n_choices,
                               const char *fallback, size_t *out, struct error *err) {
    const json_t *value = json_object_get(object, name);
    const char *text = value ? json_string_value(value) : fallback;
    for (size_t i = 0; text && i < n_choices; i++)
        if (choices[i][0] != '\0' || !value) {
            if (strcmp(choices[i], text) == 0) {
                *out = i;
                return STATUS_OK;
            }
        }
    return wrong(err, name, "one of the names that are known");
}

static int digit_of(char c) {
    const char *at = c ? strchr(base64_digits, c) : NULL;
    return at ? (int)(at - base64_digits) : -1;
}

static enum status read_base64(const char *name, struct view from, struct arena *arena,
                               struct view *out, struct error *err) {
    size_t n_pad = 0;
    while (n_pad < 2 && n_pad < from.n_bytes &&
           from.data[from.n_bytes - 1 - n_pad] == '=')
        n_pad++;
    if (from.n_bytes == 0 || from.n_bytes % 4 != 0)
        return wrong(err, name, "base64");
    size_t n = from.n_bytes / 4 * 3 - n_pad;
    char *bytes = arena_take(arena, n + 3);
    if (!bytes)
        return error_set(err, STATUS_NO_MEMORY, "out of memory for a queue's message");
    uint32_t bits = 0;
    for (size_t i = 0; i < from.n_bytes; i++) {
        bool is_pad = i >= from.n_bytes - n_pad;
        int digit = is_pad ? 0 : digit_of(from.data[i]);
        if (digit < 0)
            return wrong(err, name, "base64");
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 == 3) {
            char *p = bytes + i / 4 * 3;
            p[0] = (char)(bits >> 16 & 0xFF);
            p[1] = (char)(bits >> 8 & 0xFF);
            p[2] = (char)(bits & 0xFF);
            bits = 0;
        }
    }
    bytes[n] = '\0';
    *out = view_of(bytes, n);
    return STATUS_OK;
}

static enum status read_string(const json_t *object, const char *name,
                               struct arena *arena, struct view *out,
                               struct error *err) {
    char coded_name[NAME_BYTES];
    snprintf(coded_name, sizeof coded_name, "%s64", name);
    const json_t *plain = json_object_get(object, name),
                 *coded = json_object_get(object, coded_name);
    *out = (struct view){0};
    if (!plain && !coded)
        return STATUS_OK;
    if (plain && coded)
        return wrong(err, coded_name, "absent beside the plain field");
    const json_t *value = plain ? plain : coded;
    if (!json_is_string(value))
        return wrong(err, plain ? name : coded_name, "a string");
    struct view text = view_of(json_string_value(value), json_string_length(value));
    if (coded)
        return read_base64(coded_name, text, arena, out, err);
    return text.n_bytes > 0 ? arena_copy(arena, text, out, err) : STATUS_OK;
}

static enum status read_fingerprint(const json_t *object, uint64_t *out,
                                    struct error *err) {
    const json_t *value = json_object_get(object, "fingerprint");
    *out = 0;
    if (!value)
        return STATUS_OK;
    const char *text = json_string_value(value);
    size_t n = text ? json_string_length(value) : 0;
    if (n != 16 || strspn(text, "0123456789abcdef") != n)
        return wrong(err, "fingerprint", "16 hex digits");
    *out = strtoull(text, NULL, 16);
    return STATUS_OK;
}

static enum status read_object(const json_t *object, struct arena *arena,
                               struct store_item *out, struct error *err) {
    struct store_item item = {0};
    char *base = (char *)&item;
    size_t kind = 0, mode = 0, fold = 0;
    const json_t *v = json_object_get(object, "v");
    if (!json_is_integer(v) || json_integer_value(v) != FORMAT_VERSION)
        return wrong(err, "v", "1: it was written by another version of this program");
    enum status status =
        read_choice(object, "kind", kinds, COUNT(kinds), NULL, &kind, err);
    if (status == STATUS_OK)
        status = read_choice(object, "mode", modes, COUNT(modes), modes[0], &mode, err);
    if (status == STATUS_OK)
        status = read_choice(object, "fold", folds, COUNT(folds), "", &fold, err);
    if (status == STATUS_OK)
        status = read_fingerprint(object, &item.fingerprint, err);
    item.kind = (enum store_item_kind)kind;
    item.mode = (enum store_mode)mode;
    item.fold = (enum store_fold)fold;
    for (size_t i = 0; status == STATUS_OK && i < COUNT(integers); i++) {
        const json_t *value = json_object_get(object, integers[i].name);
        int64_t number = value ? json_integer_value(value) : 0;
        if (value && !json_is_integer(value))
            return wrong(err, integers[i].name, "an integer");
        memcpy(base + integers[i].offset, &number, sizeof number);
    }
    for (size_t i = 0; status == STATUS_OK && i < COUNT(strings); i++) {
        struct view text;
        status = read_string(object, strings[i].name, arena, &text, err);
        memcpy(base + strings[i].offset, &text, sizeof text);
    }
    if (status != STATUS_OK)
        return status;
    if (item.key.n_bytes > STORE_KEY_BYTES || item.fold_key.n_bytes > STORE_KEY_BYTES)
        return wrong(err, "key", "at most 600 bytes");
    if (item.kind != STORE_DEAD && item.key.n_bytes == 0)
        return wrong(err, "key", "there");
    if ((item.fold != STORE_NO_FOLD) != (item.fold_key.n_bytes > 0))
        return wrong(err, "fold_key", "there with a fold, and only then");
    *out = item;
    return STATUS_OK;
}

enum status queue_item_read(const char *text, size_t n_bytes, struct arena *arena,
                            struct store_item *out, struct error *err) {
    json_t *object = NULL;
    enum status status = json_parse(text, n_bytes, &limits, &object, err);
    if (status == STATUS_OK)
        status = json_is_object(object)
                     ? read_object(object, arena, out, err)
                     : error_set(err, STATUS_INVALID,
                                 "message of the queue: expected a JSON object");
    else if (status != STATUS_NO_MEMORY) {
        error_prefix(err, "message of the queue");
        if (err)
            err->status = STATUS_INVALID;
        status = STATUS_INVALID;
    }
    json_decref(object);
    return status;
}

/* ---- subjects and ids ---- */

/* 128 bits of a string's SHA-256, in hex; "-" for the empty one. */
static enum status hash_token(struct view v, char *out, struct error *err) {
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    if (v.n_bytes == 0) {
        memcpy(out, "-", 2);
        return STATUS_OK;
    }
    enum status status = sha256_of(v.data, v.n_bytes, digest, err);
    if (status != STATUS_OK)
        return status;
    sha256_hex(digest, hex);
    hex[2 * HASH_BYTES] = '\0';
    memcpy(out, hex, 2 * HASH_BYTES + 1);
    return STATUS_OK;
}

static bool is_plain(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           c == '_' || c == '-';
}

/* Bytes that a subject cannot hold become =XX, so that two sources stay two. */
static enum status source_token(struct view v, char out[TOKEN_BYTES],
                                struct error *err) {
    size_t n = 0;
    if (v.n_bytes > QUEUE_ITEM_SOURCE_BYTES) {
        enum status status = hash_token(v, out + 1, err);
        out[0] = '=';
        return status;
    }
    for (size_t i = 0; i < v.n_bytes; i++) {
        /* A lone "-" says that there is none. */
        if (is_plain(v.data[i]) && !(v.n_bytes == 1 && v.data[i] == '-'))
            out[n++] = v.data[i];
        else
            n += (size_t)snprintf(out + n, 4, "=%02x", (unsigned char)v.data[i]);
    }
    if (n == 0)
        out[n++] = '-';
    out[n] = '\0';
    return STATUS_OK;
}

static enum status join(const char *prefix, char tokens[4][TOKEN_BYTES],
                        char out[QUEUE_ITEM_SUBJECT_BYTES], struct error *err) {
    int n = snprintf(out, QUEUE_ITEM_SUBJECT_BYTES, "%s.%s.%s.%s.%s", prefix, tokens[0],
                     tokens[1], tokens[2], tokens[3]);
    if (n < 0 || n >= QUEUE_ITEM_SUBJECT_BYTES)
        return error_set(err, STATUS_LIMIT, "queue: a subject of %d bytes, at most %d",
                         n, QUEUE_ITEM_SUBJECT_BYTES - 1);
    return STATUS_OK;
}

enum status queue_item_subject(const struct store_item *item, const char *prefix,
                               char out[QUEUE_ITEM_SUBJECT_BYTES], struct error *err) {
    char tokens[4][TOKEN_BYTES];
    enum status status = source_token(item->source, tokens[0], err);
    if (status == STATUS_OK)
        status = hash_token(item->author, tokens[1], err);
    if (status == STATUS_OK)
        status = hash_token(item->key, tokens[2], err);
    if (status == STATUS_OK)
        status = hash_token(item->fold_key, tokens[3], err);
    return status == STATUS_OK ? join(prefix, tokens, out, err) : status;
}

enum status queue_item_filters(const char *prefix, const char *source,
                               const char *author, const char *key,
                               char out[2][QUEUE_ITEM_SUBJECT_BYTES], size_t *n,
                               struct error *err) {
    enum status status = STATUS_OK;
    *n = key ? 2 : 1;
    for (size_t i = 0; status == STATUS_OK && i < *n; i++) {
        char tokens[4][TOKEN_BYTES] = {"*", "*", "*", "*"};
        if (source)
            status = source_token(view_of_string(source), tokens[0], err);
        if (status == STATUS_OK && author)
            status = hash_token(view_of_string(author), tokens[1], err);
        if (status == STATUS_OK && key)
            status = hash_token(view_of_string(key), tokens[2 + i], err);
        if (status == STATUS_OK)
            status = join(prefix, tokens, out[i], err);
    }
    return status;
}

/* Bytes that a header cannot hold become %XX, '%' itself and '>' too: '>' divides. */
static enum status append_escaped(struct buffer *out, struct view v,
                                  struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < v.n_bytes; i++) {
        char c = v.data[i];
        if (c > ' ' && c < 0x7F && c != '%' && c != '>')
            status = buffer_append(out, &c, 1, err);
        else
            status = buffer_printf(out, err, "%%%02x", (unsigned char)c);
    }
    return status;
}

enum status queue_item_id(const struct store_item *item, struct buffer *out,
                          struct error *err) {
    char hash[TOKEN_BYTES];
    enum status status = STATUS_OK;
    if (item->kind != STORE_POST)
        status = buffer_printf(out, err, "%s>", kinds[item->kind]);
    if (status == STATUS_OK)
        status = append_escaped(out, item->key, err);
    if (status == STATUS_OK)
        status = buffer_printf(out, err, "@%" PRId64, item->version);
    if (status == STATUS_OK && item->fold_key.n_bytes > 0)
        status = buffer_append(out, ">", 1, err);
    if (status == STATUS_OK)
        status = append_escaped(out, item->fold_key, err);
    if (status != STATUS_OK || item->kind != STORE_DEAD)
        return status;
    /* Lines that cannot be read have no key that tells them apart. */
    status = hash_token(item->body, hash, err);
    return status == STATUS_OK ? buffer_printf(out, err, ">%s", hash) : status;
}

/* $JS.ACK.STREAM.CONSUMER.tries.sequence.…: 9 tokens; servers that say domain and account
 * too put them before the stream: 11 and more. */
enum status queue_item_delivery(const char *reply, struct queue_item_delivery *out,
                                struct error *err) {
    const char *starts[13];
    size_t n = 0;
    starts[n++] = reply;
    for (const char *p = reply; *p && n < COUNT(starts); p++)
        if (*p == '.')
            starts[n++] = p + 1;
    size_t at = n == 9 ? 4 : n >= 11 ? 6 : 0;
    if (at > 0 && strncmp(reply, "$JS.ACK.", 8) == 0) {
        uint64_t numbers[5] = {
            0}; /* tries, sequence, the consumer's, time, what is left */
        bool are_numbers = true;
        for (size_t i = 0; i < COUNT(numbers) && are_numbers; i++) {
            char *end = NULL;
            are_numbers = starts[at + i][0] >= '0' && starts[at + i][0] <= '9';
            numbers[i] = are_numbers ? strtoull(starts[at + i], &end, 10) : 0;
            are_numbers = are_numbers && (*end == '.' || *end == '\0');
        }
        if (are_numbers && numbers[0] > 0 && numbers[0] < INT32_MAX) {
            *out = (struct queue_item_delivery){(int32_t)numbers[0], numbers[1],
                                                numbers[4]};
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_INVALID,
                     "queue: the subject to acknowledge on is not as expected");
}
