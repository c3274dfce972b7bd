/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sse.c - server-sent events on every split, with every end of line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/net/sse.h"
#include "client/sources/source.h"

/* Feeds the text in pieces of n bytes; writes "event|data|id;" for each event. */
static void read_all(const char *text, size_t n_text, size_t n, char *out, size_t cap,
                     int64_t *n_comments) {
    struct sse s = {0};
    size_t used = 0;
    out[0] = 0;
    for (size_t at = 0; at < n_text; at += n) {
        struct view piece = view_of(text + at, n_text - at < n ? n_text - at : n);
        while (piece.n_bytes > 0) {
            size_t n_used = 0;
            bool has_event = false;
            /* A copy of its own, so that ASan sees what is read behind it. */
            char *copy = malloc(piece.n_bytes);
            memcpy(copy, piece.data, piece.n_bytes);
            assert_int_equal(
                sse_feed(&s, view_of(copy, piece.n_bytes), &n_used, &has_event, NULL),
                STATUS_OK);
            free(copy);
            assert_true(n_used > 0 && n_used <= piece.n_bytes);
            piece = view_of(piece.data + n_used, piece.n_bytes - n_used);
            if (has_event)
                used += (size_t)snprintf(out + used, cap - used, "%s|%.*s|%s;", s.event,
                                         (int)s.data.n_bytes,
                                         s.data.data ? s.data.data : "", s.id);
            else
                assert_int_equal(piece.n_bytes, 0);
        }
    }
    *n_comments = s.n_comments;
    sse_free(&s);
}

static void check(const char *text, const char *expected, int64_t n_comments) {
    static const char *const ends[] = {"\n", "\r\n", "\r"};
    char with_ends[1024], out[1024];
    for (size_t e = 0; e < 3; e++) {
        size_t n = 0;
        for (const char *at = text; *at; at++)
            if (*at == '\n')
                n += (size_t)snprintf(with_ends + n, sizeof with_ends - n, "%s",
                                      ends[e]);
            else
                with_ends[n++] = *at;
        for (size_t piece = 1; piece <= n; piece++) {
            int64_t comments = 0;
            read_all(with_ends, n, piece, out, sizeof out, &comments);
            assert_string_equal(out, expected);
            assert_int_equal(comments, n_comments);
        }
    }
}

static void events_come_whole(void **state) {
    (void)state;
    check("event: update\ndata: {\"a\":1}\n\n", "update|{\"a\":1}|;", 0);
    check(":thump\n\n:)\nevent:delete\ndata:12\n\n", "delete|12|;", 2);
    check("data: one\n\ndata: two\n\n", "message|one|;message|two|;", 0);
    check("data: a\ndata:  b\ndata\ndata: c\n\n", "message|a\n b\n\nc|;", 0);
    check("data\n\n", "message||;", 0);
    check("event: nothing\n\ndata: x\n\n", "message|x|;", 0); /* names do not stay */
    check("id: 7\ndata: x\n\ndata: y\n\nid\ndata: z\n\n",
          "message|x|7;message|y|7;message|z|;", 0);
    check("retry: 10\nunknown: y\nevent : z\ndata : no\ndata: x\n\n", "message|x|;", 0);
    check("data: unfinished\n", "", 0);
    check("\xef\xbb\xbf"
          "data: x\n\n\xef\xbb\xbf"
          "data: y\n\n",
          "message|x|;", 0); /* the mark only counts at the start */
    check("data: a:b: c\n\n", "message|a:b: c|;", 0);
}

static void what_is_too_long_is_cut(void **state) {
    (void)state;
    struct sse s = {0};
    size_t n = SOURCE_MAX_LINE_BYTES + 1000, n_used;
    char *text = malloc(n + 100);
    bool has_event;
    memcpy(text, "data: ", 6);
    memset(text + 6, 'x', n);
    memcpy(text + 6 + n, "\n\ndata: y\n\n", 11);
    assert_int_equal(sse_feed(&s, view_of(text, n + 17), &n_used, &has_event, NULL),
                     STATUS_OK);
    assert_true(has_event && s.is_cut);
    assert_int_equal(s.data.n_bytes, SOURCE_MAX_LINE_BYTES);
    assert_int_equal(sse_feed(&s, view_of(text + n_used, n + 17 - n_used), &n_used,
                              &has_event, NULL),
                     STATUS_OK);
    assert_true(has_event && !s.is_cut);
    assert_int_equal(s.data.n_bytes, 1);
    free(text);
    /* A long name is cut, a long id or one with NUL is ignored. */
    char long_one[600];
    int m = snprintf(long_one, sizeof long_one,
                     "event: %0100d\nid: %0300d\ndata: x\n\n", 1, 1);
    assert_int_equal(
        sse_feed(&s, view_of(long_one, (size_t)m), &n_used, &has_event, NULL),
        STATUS_OK);
    assert_int_equal(strlen(s.event), SSE_NAME_BYTES - 1);
    assert_string_equal(s.id, "");
    sse_free(&s);
}

static void a_connection_that_breaks_takes_half_an_event(void **state) {
    (void)state;
    struct sse s = {0};
    size_t n_used;
    bool has_event;
    assert_int_equal(
        sse_feed(&s, VIEW("id: 4\nevent: x\ndata: ha"), &n_used, &has_event, NULL),
        STATUS_OK);
    assert_false(has_event);
    sse_reset(&s);
    assert_int_equal(sse_feed(&s, VIEW("data: new\n\n"), &n_used, &has_event, NULL),
                     STATUS_OK);
    assert_true(has_event);
    assert_string_equal(s.event, "message");
    assert_string_equal(s.data.data, "new");
    assert_string_equal(s.id, "4");
    sse_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_whole),
        cmocka_unit_test(what_is_too_long_is_cut),
        cmocka_unit_test(a_connection_that_breaks_takes_half_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
