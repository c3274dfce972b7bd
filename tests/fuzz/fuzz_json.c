/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_json.c - the pre-scan and jansson agree on what is JSON; limits are kept; what is
 * written reads back.
 *
 * Input: a byte that chooses the limits, then the text.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool is_true) {
    if (!is_true)
        abort();
}

struct measure {
    size_t depth, n_values, key_bytes;
};

/* An escape in a key is shorter once it is read: key_bytes is a lower bound. */
static void measure_value(json_t *value, size_t depth, struct measure *m) {
    const char *key;
    size_t i, n_key;
    json_t *child;
    m->n_values++;
    if (json_is_array(value) || json_is_object(value))
        depth++;
    if (depth > m->depth)
        m->depth = depth;
    json_array_foreach(value, i, child) measure_value(child, depth, m);
    json_object_keylen_foreach(value, key, n_key, child) {
        if (n_key > m->key_bytes)
            m->key_bytes = n_key;
        measure_value(child, depth, m);
    }
}

/* A string that is written and read is the same string; a number the same float. */
static void write_and_read(json_t *value, struct buffer *b) {
    static const struct json_limits limits = {
        .max_bytes = 1 << 20, .max_depth = 1, .max_values = 1, .max_key_bytes = 1};
    json_t *again = NULL;
    if (json_is_string(value))
        require(json_append_string(b, json_string_value(value),
                                   json_string_length(value), NULL) == STATUS_OK);
    else if (json_is_number(value))
        require(json_append_float(b, (float)json_number_value(value), NULL) ==
                STATUS_OK);
    else
        return;
    require(json_parse(b->data, b->n_bytes, &limits, &again, NULL) == STATUS_OK);
    if (json_is_string(value))
        require(json_equal(value, again));
    else if (isfinite((float)json_number_value(value)))
        require((float)json_number_value(again) == (float)json_number_value(value));
    else
        require(json_is_null(again));
    json_decref(again);
    buffer_clear(b);
}

static void write_and_read_all(json_t *value, struct buffer *b) {
    const char *key;
    size_t i;
    json_t *child;
    write_and_read(value, b);
    json_array_foreach(value, i, child) write_and_read_all(child, b);
    json_object_foreach(value, key, child) write_and_read_all(child, b);
}

/* Any bytes can be written as a string. */
static void write_bytes(const char *text, size_t n_bytes, struct buffer *b) {
    static const struct json_limits limits = {
        .max_bytes = 1 << 20, .max_depth = 1, .max_values = 1, .max_key_bytes = 1};
    json_t *again = NULL;
    require(json_append_string(b, text, n_bytes, NULL) == STATUS_OK);
    require(json_parse(b->data, b->n_bytes, &limits, &again, NULL) == STATUS_OK);
    json_decref(again);
    buffer_clear(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 1)
        return 0;
    const struct json_limits wide = {.max_bytes = 1 << 16,
                                     .max_depth = 64,
                                     .max_values = 1 << 16,
                                     .max_key_bytes = 1 << 16},
                             narrow = {.max_bytes = 1 << 16,
                                       .max_depth = 3,
                                       .max_values = 8,
                                       .max_key_bytes = 6};
    const struct json_limits *limits = data[0] & 1 ? &narrow : &wide;
    const char *text = (const char *)data + 1;
    struct buffer b = {.max_bytes = 1 << 20};
    struct error err = {0};
    struct measure m = {0};
    json_t *ours = NULL;
    json_error_t e;
    size_t n = n_bytes - 1;
    enum status status = json_parse(text, n, limits, &ours, &err);
    json_t *theirs = json_loadb(
        text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);

    require((status == STATUS_OK) == (ours != NULL));
    require((status == STATUS_OK) == (err.message[0] == '\0'));
    if (theirs)
        measure_value(theirs, 0, &m);
    bool is_within = m.depth <= limits->max_depth && m.n_values <= limits->max_values &&
                     m.key_bytes <= limits->max_key_bytes;
    switch (status) {
    case STATUS_OK:
        require(theirs && is_within && json_equal(ours, theirs));
        write_and_read_all(ours, &b);
        break;
    case STATUS_LIMIT: /* also of a text that goes wrong behind the limit */
        require(!theirs || !is_within || limits == &narrow || memchr(text, '\0', n));
        break;
    default:
        /* jansson takes NUL behind the value for the end, whatever follows. */
        require(!theirs || memchr(text, '\0', n));
        /* Only three things are left for jansson to find. */
        require(!strstr(err.message, "malformed JSON before byte"));
    }
    write_bytes(text, n, &b);
    json_decref(ours);
    json_decref(theirs);
    buffer_free(&b);
    return 0;
}
