/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_x.c - bytes of X's stream: however they are split, the same lines come out; the scan
 * and the parser agree on ids and never say what a text says. The same bytes as an answer of
 * the rules, as a page of a search and as a rule.
 *
 * Input: a byte for the size of the pieces, then the stream.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/sources/x_api.h"
#include "client/sources/x_lines.h"
#include "client/sources/x_post.h"
#include "client/sources/x_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool is_true) {
    if (!is_true)
        abort();
}

/* All lines, each with '\n', of the bytes in pieces. */
static void read_lines(struct view bytes, size_t piece, struct buffer *out) {
    struct x_lines l = {0};
    struct view line;
    bool is_cut;
    for (size_t at = 0; at < bytes.n_bytes; at += piece) {
        size_t n = bytes.n_bytes - at < piece ? bytes.n_bytes - at : piece;
        char *copy = malloc(n);
        require(copy != NULL);
        memcpy(copy, bytes.data + at, n);
        x_lines_feed(&l, view_of(copy, n));
        while (x_lines_next(&l, &line, &is_cut, NULL) == STATUS_OK) {
            require(line.n_bytes > 0 && !is_cut &&
                    !memchr(line.data, '\n', line.n_bytes));
            require(buffer_append(out, line.data, line.n_bytes, NULL) == STATUS_OK &&
                    buffer_append(out, "\n", 1, NULL) == STATUS_OK);
        }
        free(copy);
    }
    x_lines_free(&l);
}

static void read_post(struct view line, struct arena *arena) {
    struct x_scan scan = x_scan(line);
    struct error err = {0};
    struct post post;
    enum status status = x_post_parse(line, arena, &post, &err);
    require(status == STATUS_OK || status == STATUS_INVALID || status == STATUS_LIMIT ||
            status == STATUS_UNSUPPORTED);
    require((status == STATUS_OK) == (err.message[0] == 0));
    if (status == STATUS_OK && post.action == POST_PUT) {
        require(scan.has_data && post.native_id.n_bytes > 0 && post.version > 0);
        require(post.text.n_bytes <= POST_MAX_TEXT_BYTES);
    }
    if (status == STATUS_OK && post.action == POST_DELETE)
        require(post.native_id.n_bytes > 0);
    arena_clear(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 2)
        return 0;
    struct view bytes = view_of((const char *)data + 1, n_bytes - 1);
    struct buffer whole = {.max_bytes = 1 << 20}, pieces = {.max_bytes = 1 << 20};
    struct arena arena = {.max_bytes = 1 << 22};
    struct x_rules rules = {0};
    struct error err;
    char *next = NULL;
    read_lines(bytes, bytes.n_bytes, &whole);
    read_lines(bytes, data[0] % 17 + 1, &pieces);
    require(whole.n_bytes == pieces.n_bytes);
    require(whole.n_bytes == 0 || memcmp(whole.data, pieces.data, whole.n_bytes) == 0);
    for (size_t at = 0; at < whole.n_bytes;) {
        const char *begin = whole.data + at;
        const char *end = memchr(begin, '\n', whole.n_bytes - at);
        size_t n = (size_t)(end - begin);
        char *copy = malloc(n ? n : 1);
        require(copy != NULL);
        memcpy(copy, begin, n);
        read_post(view_of(copy, n), &arena);
        (void)x_rule_lint(view_of(copy, n), 1024, &err);
        free(copy);
        at += n + 1;
    }
    if (x_rules_parse(bytes, &rules, &next, &err) == STATUS_OK && rules.n > 0) {
        buffer_clear(&pieces);
        require(x_rules_body(&rules, true, 0, rules.n, &pieces, NULL) == STATUS_OK);
        require(x_rules_check(view_of(pieces.data, pieces.n_bytes), &err) == STATUS_OK);
    }
    free(next);
    buffer_clear(&pieces);
    if (x_search_split(bytes, &pieces, &next, &err) == STATUS_OK)
        for (size_t at = 0; at < pieces.n_bytes;) {
            size_t n =
                (size_t)((char *)memchr(pieces.data + at, '\n', pieces.n_bytes - at) -
                         (pieces.data + at));
            require(x_scan(view_of(pieces.data + at, n)).has_data);
            read_post(view_of(pieces.data + at, n), &arena);
            at += n + 1;
        }
    free(next);
    x_rules_free(&rules);
    buffer_free(&whole);
    buffer_free(&pieces);
    arena_free(&arena);
    return 0;
}
