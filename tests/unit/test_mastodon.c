/* SPDX-License-Identifier: Apache-2.0
 *
 * test_mastodon.c - lines made of events, and the parser of statuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sources/mastodon_post.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static struct arena arena;

static enum status parse(const char *event, const char *payload, struct post *out,
                         struct error *err) {
    struct buffer line = {.max_bytes = 1 << 20};
    arena_free(&arena);
    arena.max_bytes = 1 << 20;
    assert_int_equal(mastodon_line(event, view_of_string(payload), &line, NULL),
                     STATUS_OK);
    enum status status =
        mastodon_post_parse(view_of(line.data, line.n_bytes), &arena, out, err);
    buffer_free(&line);
    return status;
}

static void is_text(struct view v, const char *expected) {
    assert_int_equal(v.n_bytes, strlen(expected));
    if (v.n_bytes)
        assert_memory_equal(v.data, expected, v.n_bytes);
}

static void an_event_becomes_a_line(void **state) {
    (void)state;
    static const struct {
        const char *event, *data, *line;
    } cases[] = {
        {"update", "{\"a\":\n1}", "{\"event\":\"update\",\"payload\":{\"a\": 1}}"},
        {"update", " \n{}", "{\"event\":\"update\",\"payload\":  {}}"},
        {"delete", "12", "{\"event\":\"delete\",\"payload\":\"12\"}"},
        {"a\"b", "", "{\"event\":\"a\\\"b\",\"payload\":\"\"}"},
        {"x", "[1]\n", "{\"event\":\"x\",\"payload\":\"[1]\\n\"}"},
    };
    struct buffer line = {.max_bytes = 1024};
    for (size_t i = 0; i < N(cases); i++) {
        assert_int_equal(
            mastodon_line(cases[i].event, view_of_string(cases[i].data), &line, NULL),
            STATUS_OK);
        assert_string_equal(line.data, cases[i].line);
    }
    buffer_free(&line);
}

static void a_status_is_read(void **state) {
    (void)state;
    struct post p;
    assert_int_equal(
        parse("update",
              "{\"id\":\"1\",\"created_at\":\"2026-01-02T03:04:05.678Z\",\"edited_at\":"
              "null,"
              "\"visibility\":\"unlisted\",\"language\":\"de\",\"spoiler_text\":\"cw\","
              "\"url\":\"https://m/@a/1\",\"uri\":\"https://m/u/a/"
              "1\",\"content\":\"<p>x&amp;y"
              "</p>\",\"account\":{\"id\":\"7\",\"acct\":\"a@m\",\"url\":\"https://m/"
              "@a\","
              "\"fields\":[{\"name\":\"Pronouns\",\"value\":\"x\"},{\"name\":"
              "\"LOCATION\","
              "\"value\":\"<i>Rome</i>\"}]},\"reblog\":null,\"quote\":null}",
              &p, NULL),
        STATUS_OK);
    assert_int_equal(p.action, POST_PUT);
    is_text(p.native_id, "1");
    assert_int_equal(p.version, 1);
    is_text(p.text, "cw\nx&y");
    is_text(p.author, "https://m/@a");
    is_text(p.author_name, "a@m");
    is_text(p.lang, "de");
    is_text(p.place, "Rome");
    is_text(p.url, "https://m/@a/1");
    assert_int_equal(p.posted_ns, INT64_C(1767323045678000000));
    assert_int_equal(p.relation, POST_ORIGINAL);
}

static void a_later_edit_is_a_later_version(void **state) {
    (void)state;
    static const char *const times[] = {"null", "\"2026-01-02T03:04:05.001Z\"",
                                        "\"2026-01-02T03:04:05.002Z\"",
                                        "\"2026-01-02T05:04:05+01:00\""};
    int64_t last = 0;
    for (size_t i = 0; i < N(times); i++) {
        char text[200];
        struct post p;
        (void)snprintf(text, sizeof text, "{\"edited_at\":%s,\"id\":\"1\"}", times[i]);
        assert_int_equal(parse("status.update", text, &p, NULL), STATUS_OK);
        assert_true(p.version > last);
        last = p.version;
    }
}

static void fields_may_be_missing(void **state) {
    (void)state;
    static const char *const statuses[] = {
        "{\"id\":\"1\"}",
        "{\"id\":\"1\",\"account\":[],\"content\":3,\"language\":null,\"reblog\":{}}",
        "{\"id\":\"1\",\"account\":{\"fields\":{\"name\":1}},\"quote\":{\"state\":"
        "\"pending\"}}",
        "{\"id\":\"1\",\"account\":{\"fields\":[1,{}]},\"quote\":{\"quoted_status\":"
        "null}}",
        "{\"id\":\"1\",\"edited_at\":\"never\",\"created_at\":5,\"reblog\":7}",
    };
    struct post p;
    for (size_t i = 0; i < N(statuses); i++) {
        assert_int_equal(parse("update", statuses[i], &p, NULL), STATUS_OK);
        assert_int_equal(p.action, POST_PUT);
        assert_int_equal(p.version, 1);
        assert_int_equal(p.relation, POST_ORIGINAL);
        assert_int_equal(p.text.n_bytes, 0);
    }
    /* Who wrote it, by what there is. */
    assert_int_equal(
        parse("update", "{\"id\":\"1\",\"account\":{\"id\":\"7\"}}", &p, NULL),
        STATUS_OK);
    is_text(p.author, "7");
}

static void boosts_and_quotes_know_the_original(void **state) {
    (void)state;
    struct post p;
    assert_int_equal(
        parse("update",
              "{\"id\":\"2\",\"content\":\"\",\"reblog\":{\"id\":\"1\",\"content\":"
              "\"<p>it</p>\",\"language\":\"en\",\"account\":{\"url\":\"u\"}}}",
              &p, NULL),
        STATUS_OK);
    assert_int_equal(p.relation, POST_REPOST);
    is_text(p.original_id, "1");
    is_text(p.original_text, "it");
    is_text(p.original_author, "u");
    is_text(p.original_lang, "en");
    assert_int_equal(p.original_version, 1);
    assert_int_equal(
        parse("update",
              "{\"id\":\"2\",\"quote\":{\"state\":\"accepted\",\"quoted_status\":{"
              "\"id\":\"1\",\"content\":\"q\"}}}",
              &p, NULL),
        STATUS_OK);
    assert_int_equal(p.relation, POST_QUOTE);
    is_text(p.original_text, "q");
    assert_int_equal(parse("update",
                           "{\"id\":\"2\",\"quote\":{\"id\":\"1\",\"content\":\"q\"}}",
                           &p, NULL),
                     STATUS_OK);
    assert_int_equal(p.relation, POST_QUOTE);
    /* A boost of what is not public is nothing. */
    assert_int_equal(
        parse("update",
              "{\"id\":\"2\",\"reblog\":{\"id\":\"1\",\"visibility\":\"direct\"}}", &p,
              NULL),
        STATUS_OK);
    assert_int_equal(p.action, POST_NOTHING);
    assert_int_equal(p.relation, POST_ORIGINAL);
}

static void deletes_and_other_events(void **state) {
    (void)state;
    static const char *const nothing[] = {"notification", "filters_changed",
                                          "conversation", "announcement",
                                          "message",      ""};
    struct post p;
    assert_int_equal(parse("delete", "113", &p, NULL), STATUS_OK);
    assert_int_equal(p.action, POST_DELETE);
    is_text(p.native_id, "113");
    for (size_t i = 0; i < N(nothing); i++) {
        assert_int_equal(parse(nothing[i], "{\"id\":\"1\"}", &p, NULL), STATUS_OK);
        assert_int_equal(p.action, POST_NOTHING);
    }
    assert_int_equal(
        parse("update", "{\"id\":\"1\",\"visibility\":\"private\",\"content\":\"x\"}",
              &p, NULL),
        STATUS_OK);
    assert_int_equal(p.action, POST_NOTHING);
    assert_int_equal(p.text.n_bytes, 0);
}

static void what_cannot_be_used_says_why(void **state) {
    (void)state;
    static const struct {
        const char *event, *payload;
        enum status status;
    } bad[] = {{"update", "secret", STATUS_INVALID},
               {"update", "{\"content\":\"secret\"}", STATUS_INVALID},
               {"update", "{secret", STATUS_INVALID},
               {"update", "{\"id\":\"\\ud800\"}", STATUS_UNSUPPORTED},
               {"delete", "", STATUS_INVALID},
               {"delete", "1 secret", STATUS_INVALID},
               {"delete", "{\"id\":\"secret\"}", STATUS_INVALID}};
    struct post p;
    struct error err;
    for (size_t i = 0; i < N(bad); i++) {
        assert_int_equal(parse(bad[i].event, bad[i].payload, &p, &err), bad[i].status);
        assert_null(strstr(err.message, "secret"));
    }
    char *text = malloc(POST_MAX_TEXT_BYTES + 200);
    memcpy(text, "{\"id\":\"1\",\"content\":\"", 21);
    memset(text + 21, 'x', POST_MAX_TEXT_BYTES + 1);
    memcpy(text + 22 + POST_MAX_TEXT_BYTES, "\"}", 3);
    assert_int_equal(parse("update", text, &p, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "too_long"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_becomes_a_line),
        cmocka_unit_test(a_status_is_read),
        cmocka_unit_test(a_later_edit_is_a_later_version),
        cmocka_unit_test(fields_may_be_missing),
        cmocka_unit_test(boosts_and_quotes_know_the_original),
        cmocka_unit_test(deletes_and_other_events),
        cmocka_unit_test(what_cannot_be_used_says_why),
    };
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(&arena);
    return n_failed;
}
