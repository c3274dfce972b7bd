/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_record.c - any line is a post or is refused, within the limits; the quick reader of
 * JSON takes nothing that jansson refuses, and finds the same; lines and rows come out the
 * same in whatever pieces they come in, and CSV taken apart and read has no more than its
 * bytes.
 *
 * Input: a byte for the size of the pieces, then the text.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/lines.h"
#include "client/sources/record.h"
#include "client/sources/record_fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define MAX_LINE 64

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static bool is_within(struct view v, size_t max_bytes) {
    return v.n_bytes <= max_bytes &&
           (v.n_bytes == 0 || !memchr(v.data, '\0', v.n_bytes));
}

static void check_post(struct view line) {
    struct arena arena = {.max_bytes = 16 << 20};
    struct error err = {0};
    struct post post;
    enum status status = record_parse(NULL, line, &arena, &post, &err);
    require((status == STATUS_OK) == (err.message[0] == '\0'));
    if (status == STATUS_OK) {
        require(post.native_id.n_bytes > 0 || post.action == POST_NOTHING);
        require(is_within(post.native_id, POST_MAX_ID_BYTES));
        require(is_within(post.text, 3 * POST_MAX_TEXT_BYTES));
        require(is_within(post.author, POST_MAX_NAME_BYTES));
        require(is_within(post.lang, 3 * POST_MAX_NAME_BYTES));
        require(is_within(post.place, 3 * POST_MAX_NAME_BYTES));
        require(is_within(post.original_id, POST_MAX_ID_BYTES));
        require(post.posted_ns >= 0);
        require(post.action == POST_DELETE || post.version >= 1);
        require((post.relation == POST_ORIGINAL) == (post.original_id.n_bytes == 0));
    } else {
        require(status == STATUS_INVALID || status == STATUS_UNSUPPORTED ||
                status == STATUS_LIMIT);
    }
    arena_free(&arena);
}

static void compare_readers(struct view line) {
    struct arena arena = {.max_bytes = 16 << 20};
    const struct record_names names = record_names_of(NULL);
    struct record_fields quick, slow;
    if (record_read_quick(&names, line, &arena, &quick)) {
        require(record_read_json(&names, line, &arena, &slow, NULL) == STATUS_OK);
        for (int i = 0; i < RECORD_N_FIELDS; i++) {
            require(quick.values[i].type == slow.values[i].type);
            require(quick.values[i].integer == slow.values[i].integer);
            require(view_equal(quick.values[i].text, slow.values[i].text));
        }
    }
    arena_free(&arena);
}

/* All lines of the text, a length before each. */
static void cut(struct view text, size_t piece, bool is_csv, struct buffer *out) {
    struct lines l = {
        .line.max_bytes = MAX_LINE, .is_csv = is_csv, .csv.separator = ','};
    struct view line;
    size_t at = 0;
    while (at < text.n_bytes) {
        size_t n_taken, left = text.n_bytes - at;
        bool is_whole;
        require(lines_take(&l, text.data + at, left < piece ? left : piece, &n_taken,
                           &is_whole, &line, NULL) == STATUS_OK);
        require(n_taken > 0);
        at += n_taken;
        if (!is_whole)
            continue;
        require(line.n_bytes <= MAX_LINE);
        buffer_printf(out, NULL, "%zu%c", line.n_bytes, l.is_cut ? '|' : ' ');
        buffer_append(out, line.data, line.n_bytes, NULL);
    }
    if (lines_rest(&l, &line))
        buffer_append(out, line.data, line.n_bytes, NULL);
    lines_free(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 1)
        return 0;
    struct view text = view_of((const char *)data + 1, n_bytes - 1);
    check_post(text);
    compare_readers(text);
    for (int is_csv = 0; is_csv < 2; is_csv++) {
        struct buffer whole = {.max_bytes = 1 << 20}, pieces = {.max_bytes = 1 << 20};
        cut(text, SIZE_MAX, is_csv == 1, &whole);
        cut(text, 1u + data[0] % 32, is_csv == 1, &pieces);
        require(whole.n_bytes == pieces.n_bytes &&
                (whole.n_bytes == 0 ||
                 memcmp(whole.data, pieces.data, whole.n_bytes) == 0));
        buffer_free(&whole);
        buffer_free(&pieces);
    }
    return 0;
}
