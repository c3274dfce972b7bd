/* SPDX-License-Identifier: Apache-2.0
 *
 * test_record.c - what a line says, in each format; that the quick reader of JSON finds what
 * jansson finds; times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "base/lines.h"
#include "client/sources/record.h"
#include "client/sources/record_fields.h"
#include "client/sources/source.h"

#define TEXT(literal) literal, sizeof literal - 1
#define SECOND INT64_C(1000000000)

static struct arena arena = {.max_bytes = 64 << 20};
static struct post post;
static struct error err;

static enum status parse_as(const struct source_settings *settings, const char *line,
                            size_t n_bytes) {
    /* In a block of its own: a read past the end is seen. */
    char *copy = malloc(n_bytes ? n_bytes : 1);
    assert_non_null(copy);
    memcpy(copy, line, n_bytes);
    arena_clear(&arena);
    err = (struct error){0};
    enum status status =
        record_parse(settings, view_of(copy, n_bytes), &arena, &post, &err);
    /* What it found lies in the arena. */
    memset(copy, '?', n_bytes);
    free(copy);
    assert_true((status == STATUS_OK) == (err.message[0] == '\0'));
    return status;
}

static enum status parse(const char *line) {
    return parse_as(NULL, line, strlen(line));
}

#define expect_view(view, literal)                                                     \
    do {                                                                               \
        assert_int_equal((view).n_bytes, sizeof(literal) - 1);                         \
        assert_memory_equal((view).data ? (view).data : "", literal,                   \
                            sizeof(literal) - 1);                                      \
    } while (0)

static void every_field(void **state) {
    (void)state;
    assert_int_equal(
        parse(
            "{\"id\":\"7\",\"text\":\"Zoloft \\u00e9\\n\\ud83d\\ude2d\",\"author\":12,"
            "\"author_name\":\"@me\",\"lang\":\"en\",\"time\":\"2026-11-26T10:00:00Z\","
            "\"place\":\"Austin, "
            "TX\",\"version\":3,\"url\":\"https://x/7\",\"more\":1}"),
        STATUS_OK);
    assert_int_equal(post.action, POST_PUT);
    expect_view(post.native_id, "7");
    expect_view(post.text, "Zoloft \xC3\xA9\n\xF0\x9F\x98\xAD");
    expect_view(post.author, "12");
    expect_view(post.author_name, "@me");
    expect_view(post.lang, "en");
    expect_view(post.place, "Austin, TX");
    expect_view(post.url, "https://x/7");
    assert_int_equal(post.version, 3);
    assert_int_equal(post.posted_ns, 1795687200 * SECOND);
    assert_int_equal(post.relation, POST_ORIGINAL);
    /* null is nothing; so is a hint of another type. */
    assert_int_equal(
        parse("{\"id\":null,\"text\":\"a\",\"lang\":[\"en\"],\"place\":null}"),
        STATUS_OK);
    assert_int_equal(post.lang.n_bytes, 0);
    assert_int_equal(post.version, 1);
    assert_int_equal(post.posted_ns, 0);
}

static void reposts_and_quotes(void **state) {
    (void)state;
    assert_int_equal(
        parse("{\"id\":9,\"repost_of\":\"3\",\"original\":{\"text\":\"old\",\"author\":"
              "\"b\",\"lang\":\"es\",\"place\":\"Rome\",\"time\":5,\"version\":2}}"),
        STATUS_OK);
    assert_int_equal(post.relation, POST_REPOST);
    expect_view(post.native_id, "9");
    expect_view(post.text, "");
    expect_view(post.original_id, "3");
    expect_view(post.original_text, "old");
    expect_view(post.original_author, "b");
    expect_view(post.original_lang, "es");
    expect_view(post.original_place, "Rome");
    assert_int_equal(post.original_posted_ns, 5 * SECOND);
    assert_int_equal(post.original_version, 2);
    assert_int_equal(parse("{\"id\":9,\"text\":\"so\",\"quote_of\":3}"), STATUS_OK);
    assert_int_equal(post.relation, POST_QUOTE);
    expect_view(post.original_id, "3");
    assert_int_equal(post.original_text.n_bytes, 0);
    /* A quote has words of its own. */
    assert_int_equal(parse("{\"id\":9,\"quote_of\":3}"), STATUS_INVALID);
}

static void deletions(void **state) {
    (void)state;
    assert_int_equal(parse("{\"id\":\"7\",\"deleted\":true}"), STATUS_OK);
    assert_int_equal(post.action, POST_DELETE);
    expect_view(post.native_id, "7");
    assert_int_equal(parse("{\"id\":\"7\",\"text\":\"a\",\"deleted\":false}"),
                     STATUS_OK);
    assert_int_equal(post.action, POST_PUT);
    assert_int_equal(parse("{\"text\":\"a\",\"deleted\":true}"), STATUS_INVALID);
    assert_int_equal(parse("{\"id\":1,\"deleted\":\"maybe\"}"), STATUS_INVALID);
}

/* The same line has the same id, another has another; the tag does not count. */
static void ids_from_lines(void **state) {
    (void)state;
    /* printf %s '{"text":"a"}' | sha256sum */
    assert_int_equal(parse("{\"text\":\"a\"}"), STATUS_OK);
    expect_view(post.native_id, "sha256:6193c97585a0f731ce7b500bb69d2476");
    assert_int_equal(parse("plain"), STATUS_OK);
    char first[64];
    snprintf(first, sizeof first, "%s", post.native_id.data);
    assert_int_equal(parse("\x1Fplain"), STATUS_OK);
    assert_string_equal(post.native_id.data, first);
    assert_int_equal(parse("plain."), STATUS_OK);
    assert_string_not_equal(post.native_id.data, first);
}

static void names_of_fields(void **state) {
    (void)state;
    const struct source_settings settings = {.text_field = "body",
                                             .id_field = "key",
                                             .author_field = "who",
                                             .lang_field = "l",
                                             .time_field = "t",
                                             .place_field = "p"};
    const char *json =
        "{\"key\":\"k\",\"body\":\"b\",\"who\":\"w\",\"l\":\"en\",\"t\":1,"
        "\"p\":\"x\",\"text\":3,\"id\":[]}";
    assert_int_equal(parse_as(&settings, json, strlen(json)), STATUS_OK);
    expect_view(post.native_id, "k");
    expect_view(post.text, "b");
    expect_view(post.author, "w");
    expect_view(post.lang, "en");
    expect_view(post.place, "x");
    assert_int_equal(post.posted_ns, SECOND);
}

static void csv_rows(void **state) {
    (void)state;
    assert_int_equal(parse("\x1D,id,text,x,author\n7,\"a, \"\"b\"\"\nc\",,me"),
                     STATUS_OK);
    expect_view(post.native_id, "7");
    expect_view(post.text, "a, \"b\"\nc");
    expect_view(post.author, "me");
    assert_int_equal(parse("\x1D\ttext\tdeleted\r\na,b\t"), STATUS_OK);
    expect_view(post.text, "a,b");
    /* An empty cell says nothing; the first of two columns of a name counts. */
    assert_int_equal(parse("\x1D,id,text,text\n,a,b"), STATUS_OK);
    assert_int_equal(post.native_id.n_bytes, 7 + 32);
    expect_view(post.text, "a");
    assert_int_equal(parse("\x1D,text,version\na,4"), STATUS_OK);
    assert_int_equal(post.version, 4);
    assert_int_equal(parse("\x1D,id,deleted\n7,true"), STATUS_OK);
    assert_int_equal(post.action, POST_DELETE);
    static const char *const bad[] = {"\x1D",
                                      "\x1D,",
                                      "\x1D,id\n7",
                                      "\x1D,id,text\n7",
                                      "\x1D,id,text\n7,a,b",
                                      "\x1D,id,text\n7,\"a",
                                      "\x1D,id,text\n7,\"a\"b",
                                      "\x1D,text\n\xFF",
                                      "\x1D,text,version\na,x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse(bad[i]), STATUS_INVALID);
}

static void plain_lines(void **state) {
    (void)state;
    assert_int_equal(parse("I took \"x\""), STATUS_OK);
    expect_view(post.text, "I took \"x\"");
    assert_int_equal(parse("\"in quotes\""), STATUS_OK);
    expect_view(post.text, "\"in quotes\"");
    assert_int_equal(parse("\x1E\"in quotes\""), STATUS_OK);
    expect_view(post.text, "in quotes");
    assert_int_equal(parse("\x1F{not json"), STATUS_OK);
    expect_view(post.text, "{not json");
    assert_int_equal(parse("bad \xC3("), STATUS_INVALID);
    assert_int_equal(parse(""), STATUS_OK);
    /* What needs a tag gets one, and is then read as it was meant. */
    static const char *const lines[] = {"{\"a\"", "plain",    "\"s\"",
                                        "\x1E",   "\x1F\x1F", "\x1D"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char tagged[16];
        char tag = record_tag(FORMAT_LINES, view_of_string(lines[i]));
        snprintf(tagged, sizeof tagged, "%c%s", tag ? tag : '-', lines[i]);
        assert_int_equal(parse(tag ? tagged : lines[i]), STATUS_OK);
        assert_string_equal(post.text.data, lines[i]);
    }
    assert_int_equal(record_tag(FORMAT_JSONL, VIEW("{}")), 0);
    assert_int_equal(record_tag(FORMAT_JSONL, VIEW("\"a\"")), RECORD_TAG_JSON);
    assert_int_equal(record_tag(FORMAT_JSONL, VIEW("junk")), RECORD_TAG_JSON);
}

/* Poison: refused with a reason that does not hold the text, or read. */
static void poison(void **state) {
    (void)state;
    static const struct {
        const char *line;
        enum status status;
    } rows[] = {{"{", STATUS_INVALID},
                {"{\"text\":\"secret\"", STATUS_INVALID},
                {"{\"text\":\"secret\xFF\"}", STATUS_INVALID},
                {"{\"text\":\"secret\"}x", STATUS_INVALID},
                {"{\"text\":\"secret\\ud800\"}", STATUS_UNSUPPORTED},
                {"{\"text\":\"secret\\udc00\\ud800\"}", STATUS_UNSUPPORTED},
                {"{\"text\":\"secret\\ud83d\\u0041\"}", STATUS_UNSUPPORTED},
                {"{\"text\":\"secret\",\"text\":\"b\"}", STATUS_INVALID},
                {"{\"text\":\"secret\x01\"}", STATUS_INVALID},
                {"{\"text\":\"secret\",\"n\":01}", STATUS_INVALID},
                {"{\"text\":\"secret\",}", STATUS_INVALID},
                {"{\"text\":7}", STATUS_INVALID},
                {"{\"text\":null}", STATUS_INVALID},
                {"{\"secret\":\"x\"}", STATUS_INVALID},
                {"{\"text\":\"a\",\"id\":\"secret\\u0000\"}", STATUS_INVALID},
                {"{\"text\":\"a\",\"id\":1.5}", STATUS_INVALID},
                {"{\"text\":\"a\",\"author\":true}", STATUS_INVALID},
                {"{\"text\":\"a\",\"version\":0}", STATUS_INVALID},
                {"{\"text\":\"a\",\"version\":-1}", STATUS_INVALID},
                {"{\"text\":\"a\",\"version\":1.5}", STATUS_INVALID},
                {"\x1E[\"secret\"]", STATUS_INVALID},
                {"\x1E\"secret", STATUS_INVALID},
                {"\x1Esecret", STATUS_INVALID},
                {"\x1E", STATUS_INVALID}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(parse(rows[i].line), rows[i].status);
        assert_null(strstr(err.message, "secret"));
    }
    assert_int_equal(parse("{\"text\":\"a\\u0000b\"}"), STATUS_OK);
    expect_view(post.text, "a\xEF\xBF\xBD"
                           "b");
    assert_int_equal(parse_as(NULL, TEXT("a\0b")), STATUS_OK);
    expect_view(post.text, "a\xEF\xBF\xBD"
                           "b");
}

static void limits(void **state) {
    (void)state;
    static char line[POST_MAX_TEXT_BYTES + 64];
    int n = snprintf(line, sizeof line, "{\"text\":\"");
    memset(line + n, 'x', POST_MAX_TEXT_BYTES + 1);
    memcpy(line + n + POST_MAX_TEXT_BYTES, "\"}", 3);
    assert_int_equal(parse(line), STATUS_OK);
    memcpy(line + n + POST_MAX_TEXT_BYTES, "x\"}", 4);
    assert_int_equal(parse(line), STATUS_LIMIT);
    for (size_t id = POST_MAX_ID_BYTES; id <= POST_MAX_ID_BYTES + 1; id++) {
        n = snprintf(line, sizeof line, "{\"text\":\"a\",\"id\":\"");
        memset(line + n, 'i', id);
        memcpy(line + n + id, "\"}", 3);
        assert_int_equal(parse(line),
                         id > POST_MAX_ID_BYTES ? STATUS_LIMIT : STATUS_OK);
    }
    /* A place is cut between code points. */
    n = snprintf(line, sizeof line, "{\"text\":\"a\",\"place\":\"");
    for (size_t i = 0; i < 200; i++)
        memcpy(line + n + 2 * i, "\xC3\xA9", 2);
    memcpy(line + n, "x", 1);
    memcpy(line + n + 1, "y", 1);
    memcpy(line + n + 2, "z\xC3\xA9", 3);
    memcpy(line + n + 5, "\xC3\xA9", 2);
    for (size_t i = 0; i < 200; i++)
        memcpy(line + n + 7 + 2 * i, "\xC3\xA9", 2);
    memcpy(line + n + 407, "\"}", 3);
    assert_int_equal(parse(line), STATUS_OK);
    assert_int_equal(post.place.n_bytes, POST_MAX_NAME_BYTES - 1);
}

/* Whatever the quick reader takes, jansson takes, and finds the same. */
static void quick_is_right(void **state) {
    (void)state;
    static const char *const pieces[] = {"{",
                                         "}",
                                         "\"text\"",
                                         "\"id\"",
                                         ":",
                                         ",",
                                         "\"",
                                         "\\u00e9",
                                         "\\",
                                         "\\n",
                                         "\xC3\xA9",
                                         "\xFF",
                                         "12",
                                         "-3",
                                         "0",
                                         "01",
                                         "1e5",
                                         "true",
                                         "null",
                                         "[",
                                         "]",
                                         " ",
                                         "\\ud83d\\ude2d",
                                         "\\ud800",
                                         "\\u0000",
                                         "\"a\"",
                                         "\"text\":\"b\"",
                                         "\"id\":7",
                                         "\"lang\":\"en\"",
                                         "\x01",
                                         "longer words than eight bytes"};
    static const char *const records[] = {
        "{}",
        "{ }",
        " {\"text\" : \"a\" , \"id\":-0}",
        "{\"id\":999999999999999999}",
        "{\"id\":9999999999999999999}",
        "{\"text\":\"\\/\\b\\f\\r\\t\\\"\\\\\"}\n",
        "{\"id\":1,\"x\":{\"id\":2}}",
        "{\"id\":false,\"deleted\":true}",
        "{\"\":1,\"text\":\"\xE2\x82\xAC\xF0\x9F\x98\xAD\"}",
        "{\"t\\u0065xt\":\"a\"}"};
    const struct record_names names = record_names_of(NULL);
    uint64_t seed = 42;
    size_t n_quick = 0;
    for (size_t round = 0; round < 60000; round++) {
        char line[512];
        size_t n = 0;
        if (round < sizeof records / sizeof *records) {
            n = strlen(records[round]);
            memcpy(line, records[round], n);
        } else {
            line[n++] = '{';
            for (size_t k = 0; k < round % 12; k++) {
                seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
                const char *piece =
                    pieces[(seed >> 33) % (sizeof pieces / sizeof *pieces)];
                memcpy(line + n, piece, strlen(piece));
                n += strlen(piece);
                if (k % 2)
                    line[n++] = ',';
            }
            n -= line[n - 1] == ',';
            line[n++] = '}';
        }
        struct record_fields quick, slow;
        arena_clear(&arena);
        if (!record_read_quick(&names, view_of(line, n), &arena, &quick))
            continue;
        n_quick++;
        assert_int_equal(
            record_read_json(&names, view_of(line, n), &arena, &slow, NULL), STATUS_OK);
        assert_false(slow.has_original);
        for (int i = 0; i < RECORD_N_FIELDS; i++) {
            assert_int_equal(quick.values[i].type, slow.values[i].type);
            assert_int_equal(quick.values[i].integer, slow.values[i].integer);
            assert_true(view_equal(quick.values[i].text, slow.values[i].text));
        }
    }
    assert_in_range(n_quick, 500, 60000);
}

static void times(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } rows[] = {{"1970-01-01T00:00:01Z", SECOND},
                {"2026-11-26T10:00:00Z", 1795687200 * SECOND},
                {"2026-11-26T11:00:00+01:00", 1795687200 * SECOND},
                {"2026-11-26T04:30:00-0530", 1795687200 * SECOND},
                {"2026-11-26 10:00:00", 1795687200 * SECOND},
                {"2026-11-26t10:00z", 1795687200 * SECOND},
                {"2026-11-26", 1795651200 * SECOND},
                {"2026-11-26T10:00:00.5Z", 1795687200 * SECOND + SECOND / 2},
                {"2026-11-26T10:00:00.1234567891Z", 1795687200 * SECOND + 123456789},
                {"2024-02-29T00:00:00Z", 1709164800 * SECOND},
                {"2000-02-29T23:59:60Z", 951868800 * SECOND},
                {"2023-02-29T00:00:00Z", 0},
                {"2100-02-29", 0},
                {"2026-13-01", 0},
                {"2026-00-01", 0},
                {"2026-11-26T24:00:00Z", 0},
                {"2026-11-26T10:00:00Zx", 0},
                {"2026-11-26T10:00:00+1", 0},
                {"2026-11-26T10:00:00.", 0},
                {"1969-12-31T23:59:59Z", 0},
                {"1970-01-01T00:00:00+01:00", 0},
                {"2262-01-01", 0},
                {"26 Nov 2026", 0},
                {"", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(record_time(view_of_string(rows[i].text)), rows[i].ns);
    static const struct {
        const char *time;
        int64_t ns;
    } numbers[] = {{"1795687200", 1795687200 * SECOND},
                   {"1795687200000", 1795687200 * SECOND},
                   {"1795687200000000", 1795687200 * SECOND},
                   {"1795687200000000000", 1795687200 * SECOND},
                   {"1795687200.5", 1795687200 * SECOND + SECOND / 2},
                   {"\"1795687200\"", 1795687200 * SECOND},
                   {"-5", 0},
                   {"1e300", 0},
                   {"true", 0},
                   {"\"soon\"", 0}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char line[96];
        snprintf(line, sizeof line, "{\"text\":\"a\",\"time\":%s}", numbers[i].time);
        assert_int_equal(parse(line), STATUS_OK);
        assert_int_equal(post.posted_ns, numbers[i].ns);
    }
}

/* Lines and rows in pieces of every size. */
static void lines_in_pieces(void **state) {
    (void)state;
    static const char data[] = "a,\"b\nc\"\r\n\r\nlonger than eight\nx\n\"open,\n"
                               "quote that goes on\nlast";
    static const char *const as_lines[] = {"a,\"b", "c\"",     "",          "longer t|",
                                           "x",     "\"open,", "quote th|", "last"};
    static const char *const as_rows[] = {"a,\"b\nc\"",  "",    "longer t|", "x",
                                          "\"open,\nq|", "last"};
    for (size_t piece = 1; piece <= sizeof data; piece++) {
        for (int is_csv = 0; is_csv < 2; is_csv++) {
            struct lines l = {
                .line.max_bytes = 8, .is_csv = is_csv == 1, .csv.separator = ','};
            const char *const *expected = is_csv ? as_rows : as_lines;
            size_t n_expected = is_csv ? 6 : 8, n = 0;
            struct view line;
            bool is_whole;
            for (size_t at = 0; at < sizeof data - 1;) {
                size_t n_taken, left = sizeof data - 1 - at;
                assert_int_equal(lines_take(&l, data + at, left < piece ? left : piece,
                                            &n_taken, &is_whole, &line, NULL),
                                 STATUS_OK);
                at += n_taken;
                if (!is_whole)
                    continue;
                char shown[32];
                snprintf(shown, sizeof shown, "%.*s%s", (int)line.n_bytes,
                         line.n_bytes ? line.data : "", l.is_cut ? "|" : "");
                assert_true(n < n_expected);
                assert_string_equal(shown, expected[n++]);
            }
            assert_true(lines_rest(&l, &line));
            assert_int_equal(line.n_bytes, 4);
            assert_memory_equal(line.data, "last", 4);
            assert_int_equal(n, n_expected - 1);
            assert_false(lines_rest(&l, &line));
            lines_free(&l);
        }
    }
}

static int free_arena(void **state) {
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field),     cmocka_unit_test(reposts_and_quotes),
        cmocka_unit_test(deletions),       cmocka_unit_test(ids_from_lines),
        cmocka_unit_test(names_of_fields), cmocka_unit_test(csv_rows),
        cmocka_unit_test(plain_lines),     cmocka_unit_test(poison),
        cmocka_unit_test(limits),          cmocka_unit_test(quick_is_right),
        cmocka_unit_test(times),           cmocka_unit_test(lines_in_pieces)};
    return cmocka_run_group_tests(tests, NULL, free_arena);
}
