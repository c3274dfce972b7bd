/* SPDX-License-Identifier: Apache-2.0
 *
 * x_scan.c - what the reading thread has to know of a line, in one pass without memory.
 */
#include <string.h>

#include "client/sources/x_post.h"

#define MAX_DEPTH 63

static uint64_t number_of(struct view digits) {
    uint64_t value = 0;
    if (digits.n_bytes == 0 || digits.n_bytes > 19)
        return 0;
    for (size_t i = 0; i < digits.n_bytes; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return 0;
        value = value * 10 + (uint64_t)(digits.data[i] - '0');
    }
    return value;
}

/* What begins behind a quote: its length without the closing one. */
static size_t string_length(struct view rest) {
    size_t at = 0;
    while (at < rest.n_bytes && rest.data[at] != '"')
        at += rest.data[at] == '\\' && at + 1 < rest.n_bytes ? 2 : 1;
    return at;
}

static void read_problem(struct view line, struct x_scan *out) {
    out->is_too_many =
        memmem(line.data, line.n_bytes, "TooManyConnections", 18) != NULL ||
        memmem(line.data, line.n_bytes, "problems/streaming-connection", 29) != NULL;
    out->is_disconnect =
        out->is_too_many ||
        memmem(line.data, line.n_bytes, "operational-disconnect", 22) != NULL;
}

static struct x_scan scan(struct view line, struct view holder) {
    struct x_scan out = {0};
    struct view keys[3] = {{0}}; /* the newest key at this depth */
    uint64_t is_object = 0;      /* a bit for each depth */
    int depth = 0;
    bool expects_key = false;
    for (size_t at = 0; at < line.n_bytes; at++) {
        char c = line.data[at];
        if (c == '"') {
            struct view text = view_of(line.data + at + 1, line.n_bytes - at - 1);
            text.n_bytes = string_length(text);
            at += text.n_bytes + 1;
            if (expects_key && depth <= 2)
                keys[depth] = text;
            else if (depth == 2 && is_object & 4 && view_equal(keys[1], holder) &&
                     view_equal(keys[2], VIEW("id")))
                out.id = number_of(text);
            if (depth == 1 && expects_key &&
                (view_equal(text, VIEW("errors")) || view_equal(text, VIEW("title"))))
                out.has_errors = true;
            expects_key = false;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH)
                break;
            is_object &= ~(UINT64_C(1) << depth);
            is_object |= (uint64_t)(c == '{') << depth;
            expects_key = c == '{';
            if (depth == 2) {
                keys[2] = view_of(NULL, 0);
                out.has_data |= c == '{' && view_equal(keys[1], holder);
            }
        } else if (c == '}' || c == ']') {
            if (--depth <= 0)
                break;
            expects_key = false;
        } else if (c == ',') {
            expects_key = (is_object >> depth & 1) != 0;
        }
    }
    if (out.has_errors && !out.has_data)
        read_problem(line, &out);
    return out;
}

struct x_scan x_scan(struct view line) {
    return scan(line, VIEW("data"));
}

uint64_t x_scan_id(struct view line, struct view holder) {
    return scan(line, holder).id;
}
