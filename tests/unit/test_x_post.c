/* SPDX-License-Identifier: Apache-2.0
 *
 * test_x_post.c - lines of X's stream: the framer on every split, the scan of the reading
 * thread, the parser on posts, withdrawals and what is neither; pages of a search as lines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sources/source.h"
#include "client/sources/x_api.h"
#include "client/sources/x_lines.h"
#include "client/sources/x_post.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static struct arena arena;

static enum status parse(const char *line, struct post *out, struct error *err) {
    arena_free(&arena);
    arena.max_bytes = 1 << 20;
    return x_post_parse(view_of_string(line), &arena, out, err);
}

static void is_text(struct view v, const char *expected) {
    assert_int_equal(v.n_bytes, strlen(expected));
    if (v.n_bytes)
        assert_memory_equal(v.data, expected, v.n_bytes);
}

#define WHOLE                                                                          \
    "{\"data\":{\"id\":\"100\",\"text\":\"a \\u00e9 \\\"b\\\"\",\"author_id\":\"7\","  \
    "\"created_at\":\"2026-01-02T03:04:05.678Z\",\"lang\":\"en\",\"geo\":{\"place_"    \
    "id\":"                                                                            \
    "\"p1\"},\"edit_history_tweet_ids\":[\"98\",\"99\",\"100\"]},\"includes\":{"       \
    "\"users\":["                                                                      \
    "{\"id\":\"8\",\"location\":\"no\"},{\"id\":\"7\",\"username\":\"ann\","           \
    "\"location\":"                                                                    \
    "\"Austin, TX\"}],\"places\":[{\"id\":\"p1\",\"full_name\":\"Paris, France\"}]},"  \
    "\"matching_rules\":[{\"id\":\"1\",\"tag\":\"t\"}]}"

static void a_post_is_read(void **state) {
    (void)state;
    struct post p;
    assert_int_equal(parse(WHOLE, &p, NULL), STATUS_OK);
    assert_int_equal(p.action, POST_PUT);
    assert_int_equal(p.relation, POST_ORIGINAL);
    is_text(p.native_id, "98");
    assert_int_equal(p.version, 3);
    is_text(p.text, "a \xc3\xa9 \"b\"");
    is_text(p.author, "7");
    is_text(p.author_name, "ann");
    is_text(p.lang, "en");
    is_text(p.place, "Austin, TX");
    is_text(p.url, "https://x.com/i/web/status/98");
    assert_false(p.id_has_author);
    assert_int_equal(p.posted_ns, INT64_C(1767323045678000000));
}

/* Any field may be missing, of another type, or in another order. */
static void fields_may_be_missing(void **state) {
    (void)state;
    static const char *const lines[] = {
        "{\"data\":{\"id\":\"1\"}}",
        "{\"includes\":null,\"data\":{\"text\":\"x\",\"id\":\"1\"}}",
        "{\"data\":{\"id\":\"1\",\"text\":7,\"author_id\":[],\"lang\":{},\"created_"
        "at\":1}}",
        "{\"data\":{\"id\":\"1\",\"edit_history_tweet_ids\":[]}}",
        "{\"data\":{\"id\":\"1\",\"edit_history_tweet_ids\":[7,{}],\"geo\":3}}",
        "{\"data\":{\"id\":\"1\",\"author_id\":\"7\"},\"includes\":{\"users\":{}}}",
        "{\"data\":{\"id\":\"1\",\"referenced_tweets\":[{\"type\":\"replied_to\","
        "\"id\":\"5\"},"
        "{\"type\":\"retweeted\"},{\"id\":\"6\"},7]}}",
        "{\"data\":{\"id\":\"1\",\"lang\":\"und\",\"created_at\":\"yesterday\"}}",
        "{\"data\":{\"id\":\"1\",\"lang\":\"qme\"}}",
    };
    struct post p;
    for (size_t i = 0; i < N(lines); i++) {
        assert_int_equal(parse(lines[i], &p, NULL), STATUS_OK);
        assert_int_equal(p.action, POST_PUT);
        is_text(p.native_id, "1");
        assert_int_equal(p.version, 1);
        assert_int_equal(p.posted_ns, 0);
        assert_int_equal(p.lang.n_bytes, 0);
        assert_int_equal(p.relation, POST_ORIGINAL);
    }
}

static void reposts_and_quotes_know_the_original(void **state) {
    (void)state;
    struct post p;
    assert_int_equal(
        parse(
            "{\"includes\":{\"tweets\":[{\"id\":\"5\",\"text\":\"cut\",\"note_tweet\":{"
            "\"text\":\"whole\"},\"author_id\":\"9\",\"lang\":\"es\",\"created_at\":"
            "\"2026-01-02T03:04:05Z\",\"edit_history_tweet_ids\":[\"4\",\"5\"]}],"
            "\"users\":"
            "[{\"id\":\"9\",\"location\":\"Leon\"}]},\"data\":{\"id\":\"6\",\"text\":"
            "\"RT\","
            "\"referenced_tweets\":[{\"id\":\"5\",\"type\":\"retweeted\"}]}}",
            &p, NULL),
        STATUS_OK);
    assert_int_equal(p.relation, POST_REPOST);
    is_text(p.original_id, "4");
    assert_int_equal(p.original_version, 2);
    is_text(p.original_text, "whole");
    is_text(p.original_author, "9");
    is_text(p.original_lang, "es");
    is_text(p.original_place, "Leon");
    assert_int_equal(p.original_posted_ns, INT64_C(1767323045000000000));
    /* Not told: the id alone. */
    assert_int_equal(
        parse("{\"data\":{\"id\":\"6\",\"text\":\"q\",\"referenced_tweets\":["
              "{\"type\":\"replied_to\",\"id\":\"3\"},{\"type\":\"quoted\","
              "\"id\":\"5\"}]}}",
              &p, NULL),
        STATUS_OK);
    assert_int_equal(p.relation, POST_QUOTE);
    is_text(p.original_id, "5");
    assert_int_equal(p.original_version, 0);
    assert_int_equal(p.original_text.n_bytes, 0);
}

static void withdrawals_are_deletes(void **state) {
    (void)state;
    static const char *const lines[] = {
        "{\"delete\":{\"status\":{\"id\":12,\"id_str\":\"12\",\"user_id\":3}}}",
        "{\"delete\":{\"tweet\":{\"id\":\"12\",\"author_id\":\"3\"},\"event_at\":\"…\"}"
        "}",
        "{\"data\":{\"delete\":{\"tweet\":{\"author_id\":\"3\",\"id\":\"12\"}}}}",
        "{\"data\":{\"drop\":{\"tweet\":{\"id\":\"12\"}}}}",
    };
    struct post p;
    for (size_t i = 0; i < N(lines); i++) {
        assert_int_equal(parse(lines[i], &p, NULL), STATUS_OK);
        assert_int_equal(p.action, POST_DELETE);
        is_text(p.native_id, "12");
    }
}

static void other_messages_are_nothing(void **state) {
    (void)state;
    static const char *const lines[] = {
        "{}",
        "[]",
        "7",
        "\"x\"",
        "null",
        "{\"data\":[]}",
        "{\"data\":{}}",
        "{\"errors\":[{\"title\":\"operational-disconnect\"}]}",
        "{\"limit\":{\"track\":5}}",
        "{\"delete\":{}}",
        "{\"delete\":{\"status\":{\"id\":1}}}",
        "{\"data\":{\"withheld\":{\"tweet\":{\"id\":\"1\"}}}}",
        "{\"what\":{\"id\":\"1\"}}"};
    struct post p;
    for (size_t i = 0; i < N(lines); i++) {
        assert_int_equal(parse(lines[i], &p, NULL), STATUS_OK);
        assert_int_equal(p.action, POST_NOTHING);
    }
}

static void what_cannot_be_used_says_why(void **state) {
    (void)state;
    struct post p;
    struct error err;
    assert_int_equal(parse("{\"data\":{\"text\":\"secret words\"}}", &p, &err),
                     STATUS_INVALID);
    assert_null(strstr(err.message, "secret"));
    assert_int_equal(parse("{\"data\":{\"id\":\"12x\",\"text\":\"\"}}", &p, &err),
                     STATUS_INVALID);
    assert_int_equal(parse("{\"data\":{\"id\":12,\"text\":\"\"}}", &p, &err),
                     STATUS_INVALID);
    assert_int_equal(parse("secret words", &p, &err), STATUS_INVALID);
    assert_null(strstr(err.message, "secret"));
    assert_int_equal(parse("{\"data\":{\"id\":\"1\",\"text\":\"\\ud800\"}}", &p, &err),
                     STATUS_UNSUPPORTED);
    size_t n = POST_MAX_TEXT_BYTES + 100;
    char *longest = malloc(n + 100);
    int begin = snprintf(longest, 100, "{\"data\":{\"id\":\"1\",\"text\":\"");
    memset(longest + begin, 'x', n);
    memcpy(longest + (size_t)begin + n, "\"}}", 4);
    assert_int_equal(parse(longest, &p, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "too_long"));
    free(longest);
    assert_int_equal(
        parse("{\"data\":{\"id\":\"1\",\"text\":\"a\\u0000b\"}}", &p, &err), STATUS_OK);
    assert_int_equal(p.text.n_bytes, 3);
}

static void the_scan_tells_posts_from_errors(void **state) {
    (void)state;
    static const struct {
        const char *line;
        bool has_data, has_errors, is_too_many, is_disconnect;
        uint64_t id;
    } cases[] = {
        {WHOLE, true, false, false, false, 100},
        {"{\"includes\":{\"data\":{\"id\":\"5\"}},\"data\":{\"x\":{\"id\":\"6\"},"
         "\"id\":\"7\"}}",
         true, false, false, false, 7},
        {"{\"data\":{\"text\":\"\\\"id\\\":\\\"9\\\" {[\",\"id\":\"8\"}}", true, false,
         false, false, 8},
        {"{ \"data\" : { \"id\" : \"18446744073709551615\" } }", true, false, false,
         false, 0},
        {"{\"data\":{\"id\":\"1234567890123456789\"}}", true, false, false, false,
         UINT64_C(1234567890123456789)},
        {"{\"errors\":[{\"title\":\"operational-disconnect\"}]}", false, true, false,
         true, 0},
        {"{\"errors\":[{\"title\":\"x\"}],\"data\":{\"id\":\"3\"}}", true, true, false,
         false, 3},
        {"{\"title\":\"ConnectionException\",\"connection_issue\":"
         "\"TooManyConnections\"}",
         false, true, true, true, 0},
        {"{\"errors\":[{\"type\":\"https://api.x.com/2/problems/"
         "streaming-connection\"}]}",
         false, true, true, true, 0},
        {"{\"data\":\"errors\"}", false, false, false, false, 0},
        {"{\"data\":[{\"id\":\"5\"}]}", false, false, false, false, 0},
        {"", false, false, false, false, 0},
        {"}}}]]]{{{", false, false, false, false, 0},
        {"{\"data", false, false, false, false, 0},
        {"{\"data\":{\"id\":\"\\", true, false, false, false, 0},
    };
    for (size_t i = 0; i < N(cases); i++) {
        struct x_scan s = x_scan(view_of_string(cases[i].line));
        assert_int_equal(s.has_data, cases[i].has_data);
        assert_int_equal(s.has_errors, cases[i].has_errors);
        assert_int_equal(s.is_too_many, cases[i].is_too_many);
        assert_int_equal(s.is_disconnect, cases[i].is_disconnect);
        assert_int_equal(s.id, cases[i].id);
    }
    char deep[300];
    memset(deep, '{', sizeof deep);
    assert_int_equal(x_scan(view_of(deep, sizeof deep)).id, 0);
}

static void lines_over_every_split(void **state) {
    (void)state;
    static const char text[] = "one\r\n\r\ntwo\n\r\n\nt\rhree\r\n\r\nhalf";
    for (size_t piece = 1; piece <= sizeof text; piece++) {
        struct x_lines l = {0};
        char all[64] = "";
        struct view line;
        bool is_cut;
        for (size_t at = 0; at < sizeof text - 1; at += piece) {
            size_t n = sizeof text - 1 - at < piece ? sizeof text - 1 - at : piece;
            char *copy = malloc(n);
            memcpy(copy, text + at, n);
            x_lines_feed(&l, view_of(copy, n));
            while (x_lines_next(&l, &line, &is_cut, NULL) == STATUS_OK) {
                size_t used = strlen(all);
                (void)snprintf(all + used, sizeof all - used, "%.*s|",
                               (int)line.n_bytes, line.data);
                assert_false(is_cut);
            }
            free(copy);
        }
        assert_string_equal(all, "one|two|t\rhree|");
        assert_int_equal(l.n_keep_alives, 4);
        x_lines_reset(&l);
        x_lines_feed(&l, VIEW("new\r\n"));
        assert_int_equal(x_lines_next(&l, &line, &is_cut, NULL), STATUS_OK);
        is_text(line, "new");
        x_lines_free(&l);
    }
}

static void lines_that_are_too_long_are_cut(void **state) {
    (void)state;
    static const size_t lengths[] = {SOURCE_MAX_LINE_BYTES - 1, SOURCE_MAX_LINE_BYTES,
                                     SOURCE_MAX_LINE_BYTES + 1,
                                     SOURCE_MAX_LINE_BYTES + 5000};
    char *text = malloc(SOURCE_MAX_LINE_BYTES + 6000);
    for (size_t i = 0; i < N(lengths) * 2; i++) {
        size_t n = lengths[i / 2], piece = i % 2 ? 100003 : n + 100;
        memset(text, 'x', n);
        memcpy(text + n, "\r\nnext\r\n", 8);
        struct x_lines l = {0};
        struct view line;
        bool is_cut;
        size_t n_lines = 0;
        for (size_t at = 0; at < n + 8; at += piece) {
            x_lines_feed(&l,
                         view_of(text + at, n + 8 - at < piece ? n + 8 - at : piece));
            while (x_lines_next(&l, &line, &is_cut, NULL) == STATUS_OK) {
                if (n_lines++ == 0) {
                    assert_int_equal(is_cut, n > SOURCE_MAX_LINE_BYTES);
                    assert_int_equal(line.n_bytes, is_cut ? SOURCE_MAX_LINE_BYTES : n);
                } else {
                    assert_false(is_cut);
                    is_text(line, "next");
                }
            }
        }
        assert_int_equal(n_lines, 2);
        x_lines_free(&l);
    }
    free(text);
}

static void a_page_becomes_lines(void **state) {
    (void)state;
    static const char page[] = "{\"data\":[{\"id\":\"2\",\"text\":\"a\",\"author_id\":"
                               "\"7\",\"referenced_tweets\":[{"
                               "\"type\":\"quoted\",\"id\":\"1\"}]},7,{\"id\":\"3\","
                               "\"text\":\"b\\n\",\"author_id\":"
                               "\"8\",\"geo\":{\"place_id\":\"p\"}}],\"includes\":{"
                               "\"users\":[{\"id\":\"7\"},{\"id\":"
                               "\"8\"},{\"id\":\"9\"},{\"id\":\"10\"}],\"tweets\":[{"
                               "\"id\":\"1\",\"author_id\":\"9\","
                               "\"text\":\"q\"},{\"id\":\"99\"}],\"places\":[{\"id\":"
                               "\"p\"}]},\"meta\":{\"next_token\":"
                               "\"n2\"}}";
    struct buffer b = {.max_bytes = 1 << 20};
    char *next = NULL;
    struct error err;
    assert_int_equal(x_search_split(VIEW(page), &b, &next, &err), STATUS_OK);
    assert_string_equal(next, "n2");
    assert_string_equal(
        b.data,
        "{\"data\":{\"id\":\"2\",\"text\":\"a\",\"author_id\":\"7\",\"referenced_"
        "tweets\":[{"
        "\"type\":\"quoted\",\"id\":\"1\"}]},\"includes\":{\"tweets\":[{\"id\":\"1\","
        "\"author_id\":\"9\",\"text\":\"q\"}],\"users\":[{\"id\":\"7\"},{\"id\":\"9\"}]"
        ","
        "\"places\":[]}}\n"
        "{\"data\":{\"id\":\"3\",\"text\":\"b\\n\",\"author_id\":\"8\",\"geo\":{"
        "\"place_id\":"
        "\"p\"}},\"includes\":{\"tweets\":[],\"users\":[{\"id\":\"8\"}],\"places\":[{"
        "\"id\":"
        "\"p\"}]}}\n");
    free(next);
    buffer_clear(&b);
    assert_int_equal(
        x_search_split(VIEW("{\"meta\":{\"result_count\":0}}"), &b, &next, &err),
        STATUS_OK);
    assert_null(next);
    assert_int_equal(b.n_bytes, 0);
    assert_int_equal(x_search_split(VIEW("["), &b, &next, &err), STATUS_INVALID);
    b.max_bytes = 20;
    assert_int_equal(x_search_split(VIEW(page), &b, &next, &err), STATUS_NO_MEMORY);
    free(next);
    buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_post_is_read),
        cmocka_unit_test(fields_may_be_missing),
        cmocka_unit_test(reposts_and_quotes_know_the_original),
        cmocka_unit_test(withdrawals_are_deletes),
        cmocka_unit_test(other_messages_are_nothing),
        cmocka_unit_test(what_cannot_be_used_says_why),
        cmocka_unit_test(the_scan_tells_posts_from_errors),
        cmocka_unit_test(lines_over_every_split),
        cmocka_unit_test(lines_that_are_too_long_are_cut),
        cmocka_unit_test(a_page_becomes_lines),
    };
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(&arena);
    return n_failed;
}
