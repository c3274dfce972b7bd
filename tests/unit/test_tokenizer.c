/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tokenizer.c - ids, places and cuts against the reference.
 *
 * tests/data/tokenizer has golden rows of its own; where ../shared is there, all of its gold is
 * held against too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/json.h"
#include "tests/unit/tokenizer_files.h"

#define SHARED_WORDPIECE "../shared/data/bert-wordpiece"
#define SHARED_TWEETS "../shared/data/tweets-tweeteval"
#define MAX_LINE (1 << 20)
#define MAX_TOKENS 8192

static const struct json_limits LIMITS = {
    .max_bytes = MAX_LINE, .max_depth = 8, .max_values = 1 << 16, .max_key_bytes = 64};

static char line[MAX_LINE];
static int32_t ids[MAX_TOKENS];
static struct token_span spans[MAX_TOKENS];

/* ---- golden rows ---- */

static size_t n_checked;

/* Holds one text against its ids; from: where the gold begins in ours (1: it has no [CLS]). */
static void check_text(const struct tokenizer *t, const char *text, size_t n_bytes,
                       const json_t *gold, const json_t *offsets, size_t from) {
    struct encoding e;
    size_t n_gold = json_array_size(gold);
    assert_true(tokenizer_max_tokens(n_bytes) <= MAX_TOKENS);
    tokenizer_encode(t, text, n_bytes, ids, spans, tokenizer_max_tokens(n_bytes), &e);
    if (e.n_tokens != n_gold + 2 * from)
        fail_msg("text %zu: %zu tokens, expected %zu", n_checked, e.n_tokens,
                 n_gold + 2 * from);
    assert_false(e.is_truncated);
    for (size_t i = 0; i < n_gold; i++) {
        json_int_t id = json_integer_value(json_array_get(gold, i));
        if (ids[i + from] != id)
            fail_msg("text %zu: token %zu is %d, expected %lld", n_checked, i,
                     ids[i + from], (long long)id);
    }
    for (size_t i = 0; i < json_array_size(offsets); i++) {
        const json_t *pair = json_array_get(offsets, i);
        json_int_t begin = json_integer_value(json_array_get(pair, 0));
        json_int_t end = json_integer_value(json_array_get(pair, 1));
        if (spans[i + from].begin != begin || spans[i + from].end != end)
            fail_msg("text %zu: token %zu is at %u to %u, expected %lld to %lld",
                     n_checked, i, spans[i + from].begin, spans[i + from].end,
                     (long long)begin, (long long)end);
    }
    n_checked++;
}

static json_t *parse_line(size_t n) {
    json_t *row = NULL;
    struct error err;
    if (json_parse(line, n, &LIMITS, &row, &err) != STATUS_OK)
        fail_msg("row %zu: %s", n_checked, err.message);
    return row;
}

static void check_row(const struct tokenizer *t, const json_t *row, size_t from) {
    const json_t *text = json_object_get(row, "text");
    check_text(t, json_string_value(text), json_string_length(text),
               json_object_get(row, "ids"), json_object_get(row, "offsets"), from);
}

/* "true", "false" or "null" */
static const char *word_of(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    return json_is_null(value) ? "null" : json_is_true(value) ? "true" : "false";
}

static void test_golden(void **state) {
    struct tokenizer *t = NULL;
    char config[256] = "", next[256];
    FILE *f = fopen(GOLDEN, "r");
    (void)state;
    assert_non_null(f);
    n_checked = 0;
    while (fgets(line, sizeof line, f)) {
        json_t *row = parse_line(strlen(line) - 1);
        snprintf(next, sizeof next,
                 "{\"do_lower_case\":%s,\"strip_accents\":%s,"
                 "\"tokenize_chinese_chars\":%s}",
                 word_of(row, "lower"), word_of(row, "strip"), word_of(row, "cjk"));
        if (strcmp(config, next) != 0) {
            tokenizer_close(t);
            t = open_config(next);
            memcpy(config, next, sizeof config);
        }
        check_row(t, row, 0);
        json_decref(row);
    }
    fclose(f);
    tokenizer_close(t);
    assert_true(n_checked > 500);
}

/* ---- ../shared ---- */

static gzFile open_shared(const char *folder, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!file_exists(path))
        return NULL;
    gzFile f = gzopen(path, "rb");
    assert_non_null(f);
    return f;
}

/* Reads a line without its newline; false at the end. */
static bool next_line(gzFile f, size_t *n) {
    if (!gzgets(f, line, sizeof line))
        return false;
    *n = strlen(line); /* gold has no NUL in its lines */
    if (*n > 0 && line[*n - 1] == '\n')
        line[--*n] = 0;
    return true;
}

static void check_shared_rows(const struct tokenizer *t, const char *name) {
    gzFile f = open_shared(SHARED_WORDPIECE, name);
    size_t n;
    while (f && next_line(f, &n)) {
        json_t *row = parse_line(n);
        check_row(t, row, 1);
        json_decref(row);
    }
    if (f)
        gzclose(f);
}

static size_t utf8(uint32_t c, char *out) {
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t LEAD[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(LEAD[n] | c);
    return n;
}

static void check_code_points(const struct tokenizer *t) {
    gzFile f = open_shared(SHARED_WORDPIECE, "unicode-code-points.jsonl.gz");
    size_t n;
    while (f && next_line(f, &n)) {
        json_t *run = parse_line(n);
        uint32_t first = (uint32_t)json_integer_value(json_array_get(run, 0));
        uint32_t last = (uint32_t)json_integer_value(json_array_get(run, 1));
        for (uint32_t c = first; c <= last; c++) {
            char text[8] = "a";
            size_t n_text = 1 + utf8(c, text + 1);
            text[n_text++] = 'b';
            if (c < 0xD800 || c > 0xDFFF)
                check_text(t, text, n_text, json_array_get(run, 2), NULL, 1);
        }
        json_decref(run);
    }
    if (f)
        gzclose(f);
}

static void check_tweets(const struct tokenizer *t, const char *texts,
                         const char *gold) {
    gzFile f = open_shared(SHARED_TWEETS, texts), g = open_shared(SHARED_TWEETS, gold);
    char text[4096];
    size_t n, n_text;
    while (f && g && next_line(f, &n_text)) {
        assert_true(n_text < sizeof text);
        memcpy(text, line, n_text);
        assert_true(next_line(g, &n));
        json_t *row = json_array();
        for (char *p = line, *end; *p; p = end)
            json_array_append_new(row, json_integer(strtol(p, &end, 10)));
        check_text(t, text, n_text, row, NULL, 0);
        json_decref(row);
    }
    if (f)
        gzclose(f);
    if (g)
        gzclose(g);
}

static void test_shared(void **state) {
    struct tokenizer *t;
    (void)state;
    if (!file_exists(SHARED_WORDPIECE)) {
        print_message("no ../shared: golden rows of tests/data/tokenizer alone\n");
        skip();
    }
    n_checked = 0;
    t = open_config("{\"do_lower_case\":true}");
    check_shared_rows(t, "questions.jsonl.gz");
    check_shared_rows(t, "unicode-strings.jsonl.gz");
    check_code_points(t);
    check_tweets(t, "sentiment-test.txt.gz", "sentiment-test.ids.gz");
    check_tweets(t, "emotion-train.txt.gz", "emotion-train.ids.gz");
    check_tweets(t, "irony-train.txt.gz", "irony-train.ids.gz");
    tokenizer_close(t);
    print_message("../shared is there: %zu more texts agree\n", n_checked);
    assert_true(n_checked > 1100000);
}

/* ---- cuts, arguments ---- */

/* Every cap gives what the uncut text begins with, and [SEP]. */
static void test_caps(void **state) {
    static const char TEXT[] = "unaffable caf\xC3\xA9 antidisestablishmentarianism!! "
                               "\xE4\xB8\xAD\xE6\x96\x87 [MASK] zzzxqj \x01 end  ";
    struct tokenizer *t = open_config(NULL);
    int32_t cut[64];
    struct token_span cut_spans[64];
    struct encoding all, e;
    (void)state;
    tokenizer_encode(t, TEXT, sizeof TEXT - 1, ids, spans, MAX_TOKENS, &all);
    assert_true(all.n_tokens > 15 && all.n_tokens < 64);
    for (size_t cap = 2; cap < 64; cap++) {
        size_t n = cap < all.n_tokens ? cap : all.n_tokens;
        memset(cut, 0x55, sizeof cut);
        tokenizer_encode(t, TEXT, sizeof TEXT - 1, cut, cut_spans, cap, &e);
        assert_int_equal(e.n_tokens, n);
        assert_int_equal(e.is_truncated, cap < all.n_tokens);
        assert_memory_equal(cut, ids, (n - 1) * sizeof *ids);
        assert_memory_equal(cut_spans, spans, (n - 1) * sizeof *spans);
        assert_int_equal(cut[n - 1], tokenizer_sep_id(t));
        if (cap < 64)
            assert_int_equal(cut[cap], 0x55555555);
    }
    tokenizer_close(t);
}

/* A word that turns out unknown behind the cut is [UNK], not its first pieces; and a word
 * that just fits is no truncation. */
static void test_cut_in_unknown_word(void **state) {
    struct tokenizer *t;
    struct error err;
    struct encoding e;
    (void)state;
    assert_int_equal(tokenizer_open(SMALL, &t, &err), STATUS_OK);
    tokenizer_encode(t, "abc\xC3\xB1", 5, ids, NULL, 3, &e);
    assert_int_equal(e.n_tokens, 3);
    assert_int_equal(ids[1], tokenizer_unk_id(t));
    assert_int_equal(e.n_unknown, 1);
    assert_false(e.is_truncated);
    tokenizer_encode(t, "abc", 3, ids, NULL, 5, &e);
    assert_false(e.is_truncated);
    tokenizer_encode(t, "abc  \x01\xCC\x81", 8, ids, NULL, 4, &e);
    assert_true(e.is_truncated);
    tokenizer_close(t);
}

static void test_arguments(void **state) {
    struct tokenizer *t = open_config(NULL);
    struct encoding e;
    (void)state;
    assert_int_equal(tokenizer_vocab_size(t), 30522);
    assert_int_equal(tokenizer_cls_id(t), 101);
    assert_int_equal(tokenizer_sep_id(t), 102);
    assert_int_equal(tokenizer_unk_id(t), 100);
    assert_string_equal(tokenizer_token(t, 101), "[CLS]");
    assert_string_equal(tokenizer_token(t, 30521), "##\xEF\xBD\x9E");
    assert_null(tokenizer_token(t, -1));
    assert_null(tokenizer_token(t, 30522));
    assert_int_equal(tokenizer_max_tokens(0), 2);
    assert_int_equal(tokenizer_max_tokens(SIZE_MAX), SIZE_MAX);
    tokenizer_encode(t, "", 0, ids, NULL, 2, &e);
    assert_int_equal(e.n_tokens, 2);
    assert_false(e.is_truncated);
    tokenizer_encode(t, "a\0b", 3, ids, spans, 8, &e);
    assert_int_equal(e.n_tokens, 3);
    assert_int_equal(spans[1].end, 3);
    tokenizer_encode(t, "caf\xC3", 4, ids, spans, 8, &e); /* cut inside a character */
    assert_int_equal(e.n_tokens, 3);
    assert_string_equal(tokenizer_token(t, ids[1]), "caf");
    tokenizer_close(t);
    tokenizer_close(NULL);
}

/* ---- one tokenizer, two forms ---- */

static void test_json_alone_is_the_same(void **state) {
    struct tokenizer *a, *b;
    struct error err;
    struct encoding of_a, of_b;
    char *dir = scratch_make();
    size_t n;
    char *json = whole_file(SMALL "/tokenizer.json", &n);
    FILE *f = fopen(GOLDEN, "r");
    (void)state;
    scratch_write(scratch_path(dir, "tokenizer.json"), json, n);
    assert_int_equal(tokenizer_open(SMALL, &a, &err), STATUS_OK);
    if (tokenizer_open(dir, &b, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_int_equal(tokenizer_vocab_size(a), tokenizer_vocab_size(b));
    for (int32_t id = 0; id < tokenizer_vocab_size(a); id++)
        assert_string_equal(tokenizer_token(a, id), tokenizer_token(b, id));
    while (fgets(line, sizeof line, f)) {
        static int32_t other_ids[MAX_TOKENS];
        static struct token_span other_spans[MAX_TOKENS];
        size_t n_line = strlen(line);
        tokenizer_encode(a, line, n_line, ids, spans, MAX_TOKENS, &of_a);
        tokenizer_encode(b, line, n_line, other_ids, other_spans, MAX_TOKENS, &of_b);
        assert_int_equal(of_a.n_tokens, of_b.n_tokens);
        assert_int_equal(of_a.n_unknown, of_b.n_unknown);
        assert_memory_equal(ids, other_ids, of_a.n_tokens * sizeof *ids);
        assert_memory_equal(spans, other_spans, of_a.n_tokens * sizeof *spans);
    }
    fclose(f);
    tokenizer_close(a);
    tokenizer_close(b);
    scratch_remove(dir);
    free(json);
}

/* max_input_chars_per_word: 50 in the small one. */
static void test_word_limit(void **state) {
    char text[64];
    struct tokenizer *t;
    struct error err;
    struct encoding e;
    (void)state;
    memset(text, 'a', sizeof text);
    assert_int_equal(tokenizer_open(SMALL, &t, &err), STATUS_OK);
    tokenizer_encode(t, text, 50, ids, spans, MAX_TOKENS, &e);
    assert_int_equal(e.n_tokens, 52);
    tokenizer_encode(t, text, 51, ids, spans, MAX_TOKENS, &e);
    assert_int_equal(e.n_tokens, 3);
    assert_int_equal(ids[1], tokenizer_unk_id(t));
    assert_int_equal(spans[1].end, 51);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_cut_in_unknown_word),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_json_alone_is_the_same),
        cmocka_unit_test(test_word_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
