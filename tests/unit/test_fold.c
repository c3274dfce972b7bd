/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fold.c - fingerprints, and which posts become counts on others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/select/fold.h"

#define DAY INT64_C(86400000000000)

static struct arena arena = {.max_bytes = 1 << 22};

static uint64_t print(const char *text) {
    return fold_fingerprint(view_of_string(text));
}

static void test_fingerprints(void **state) {
    (void)state;
    assert_int_equal(print(""), 0);
    assert_int_equal(print(" @jane https://t.co/x !!! \xF0\x9F\x98\x82 RT"), 0);
    static const char *const same[][2] = {
        {"zoloft gave me a rash", "ZOLOFT gave me   a rash!!! \xF0\x9F\x98\x82"},
        {"zoloft gave me a rash",
         "RT @jane_doe: zoloft gave me a rash https://t.co/abc"},
        {"zoloft gave me a rash", "@user zoloft gave me a rash http via @joe"},
        {"zoloft gave me a rash", "zoloft g\xC3\xA1ve me \xE2\x80\x9C"
                                  "a\xE2\x80\x9D rash www.example.com/a?b"},
        {"one two three four five six seven eight",
         "One, two, three, four, five, six, "
         "seven, eight! @joe https://x.y/z"}};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        assert_int_equal(print(same[i][0]), print(same[i][1]));
        assert_true(print(same[i][0]) != 0);
    }
    assert_true(print("zoloft gave me a rash") != print("zoloft gave me a rush"));
    assert_true(print("a b") != print("b a"));
    assert_true(print("a a") != print("a"));
    /* The top bit: short texts are compared as a whole. */
    assert_true(print("one two three four five") >> 63);
    assert_false(print("one two three four five six") >> 63);
    /* Letters of scripts without spaces are words. */
    assert_false(print("\xE3\x81\x82\xE3\x81\x84\xE3\x81\x86\xE3\x81\x88\xE3\x81\x8A"
                       "\xE3\x81\x8B\xE3\x81\x8D") >>
                 63);
}

/* A long text with a word of its own at the place that is asked for. */
static uint64_t print_long(size_t n_words, size_t place, const char *word) {
    static char text[8192];
    size_t n = 0;
    for (size_t i = 0; i < n_words; i++)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              i == place ? "%s " : "%sword%zu ", i == place ? word : "",
                              i);
    return print(text);
}

static void test_distances(void **state) {
    (void)state;
    /* One word of many changes few bits, other texts have nothing in common. */
    size_t n_bits = 0, n_far = 0;
    for (size_t i = 0; i < 50; i++) {
        uint64_t a = print_long(150, 200, ""), b = print_long(150, 3 * i, "changed");
        n_bits += (size_t)__builtin_popcountll(a ^ b);
        char word[32];
        snprintf(word, sizeof word, "other%zu", i);
        uint64_t c = print_long(12, 6, word), d = print_long(12, 6, "yet");
        n_far += __builtin_popcountll(c ^ d) > FOLD_DISTANCE;
    }
    assert_true(n_bits < 50 * 8);
    assert_true(n_far >= 48);
}

static struct fold *open_fold(size_t n, int64_t window_ns) {
    struct fold *f = NULL;
    struct fold_options options = {.n_remembered = n, .window_ns = window_ns};
    assert_int_equal(fold_open(&options, &f, NULL), STATUS_OK);
    return f;
}

/* Returns the key of the post that it became a count on, "" when it stays a post. */
static const char *take(struct fold *f, const char *key, uint64_t fingerprint,
                        int64_t posted_ns, const char *drugs) {
    struct store_item item = {.kind = STORE_POST,
                              .raw_id = 5,
                              .source = VIEW("x"),
                              .key = view_of_string(key),
                              .text = VIEW("text"),
                              .author = VIEW("author"),
                              .version = 3,
                              .drugs = view_of_string(drugs),
                              .posted_ns = posted_ns,
                              .received_ns = 9,
                              .fingerprint = fingerprint};
    assert_int_equal(fold_item(f, &item, &arena, NULL), STATUS_OK);
    if (item.fold == STORE_NO_FOLD) {
        assert_string_equal(item.key.data, key);
        assert_int_equal(item.text.n_bytes, 4);
        return "";
    }
    assert_int_equal(item.kind, STORE_POST);
    assert_int_equal(item.fold, STORE_DUPLICATE);
    assert_string_equal(item.fold_key.data, key);
    assert_int_equal(item.text.n_bytes + item.author.n_bytes + item.drugs.n_bytes, 0);
    assert_int_equal(item.fingerprint, 0);
    assert_int_equal(item.raw_id, 5);
    assert_int_equal(item.received_ns, 9);
    assert_string_equal(item.source.data, "x");
    return item.key.data;
}

static void test_folds(void **state) {
    (void)state;
    struct fold *f = open_fold(100, 7 * DAY);
    const uint64_t long_one = 0x0123456789ABCDEF, short_one = long_one | UINT64_C(1)
                                                                             << 63;
    assert_string_equal(take(f, "x:1", long_one, DAY, ""), "");
    assert_string_equal(take(f, "x:2", long_one, DAY, ""), "x:1");
    /* Any three bits, in any bands; not four. */
    for (unsigned i = 0; i < 63; i++)
        for (unsigned j = 0; j < 63; j += 5)
            assert_string_equal(take(f, "x:3",
                                     long_one ^ UINT64_C(1) << i ^ UINT64_C(1) << j ^
                                         UINT64_C(1) << (i + j) % 63,
                                     DAY, ""),
                                "x:1");
    assert_string_equal(take(f, "x:4", long_one ^ 0x1001000100010000, DAY, ""), "");
    /* Short ones are equal or not. */
    assert_string_equal(take(f, "x:5", short_one, DAY, ""), "");
    assert_string_equal(take(f, "x:6", short_one ^ 1, DAY, ""), "");
    assert_string_equal(take(f, "x:7", short_one, DAY, ""), "x:5");
    /* Without words nothing is folded. */
    assert_string_equal(take(f, "x:8", 0, DAY, ""), "");
    assert_string_equal(take(f, "x:9", 0, DAY, ""), "");
    fold_close(f);
    fold_close(NULL);
}

static void test_own_key(void **state) {
    (void)state;
    struct fold *f = open_fold(100, 0);
    assert_string_equal(take(f, "x:1", 111, DAY, ""), "");
    assert_string_equal(take(f, "x:1", 111, DAY, ""), "");
    assert_string_equal(take(f, "x:2", 0xFFFF0000, DAY, ""), "");
    /* Edited: it stays a post though it now says what another does, and is found under its
     * new words alone. */
    assert_string_equal(take(f, "x:1", 0xFFFF0000, DAY, ""), "");
    assert_string_equal(take(f, "x:3", 111, DAY, ""), "");
    assert_string_equal(take(f, "x:4", 111, DAY, ""), "x:3");
    fold_close(f);
}

static void test_window(void **state) {
    (void)state;
    struct fold *f = open_fold(100, 7 * DAY);
    assert_string_equal(take(f, "x:1", 111, 100 * DAY, ""), "");
    assert_string_equal(take(f, "x:2", 111, 107 * DAY, ""), "x:1");
    assert_string_equal(take(f, "x:3", 111, 93 * DAY, ""), "x:1");
    assert_string_equal(take(f, "x:4", 111, 0, ""), "x:1"); /* not known when */
    assert_string_equal(take(f, "x:5", 111, INT64_MIN, ""), "");
    assert_string_equal(take(f, "x:6", 111, 107 * DAY + 1, ""), "");
    assert_string_equal(take(f, "x:7", 111, 110 * DAY, ""), "x:6");
    fold_close(f);
}

static void test_drugs(void **state) {
    (void)state;
    static const char a[] =
        "[{\"drug\":\"sertraline\",\"name\":\"zoloft\",\"begin\":0}]",
                      b[] = "[{\"drug\":\"lithium\",\"name\":\"lithium\",\"begin\":0}]",
                      ab[] = "[{\"drug\":\"lithium\"},{\"drug\":\"sertraline\"},"
                             "{\"drug\":\"lithium\"}]",
                      ba[] = "[{\"drug\":\"sertraline\"},{\"drug\":\"lithium\"}]";
    struct fold *f = open_fold(100, 0);
    assert_string_equal(take(f, "x:1", 111, DAY, a), "");
    assert_string_equal(take(f, "x:2", 111, DAY, b), "");
    assert_string_equal(take(f, "x:3", 111, DAY, ab), "");
    assert_string_equal(take(f, "x:4", 111, DAY, ba), "x:3");
    assert_string_equal(take(f, "x:5", 111, DAY, b), "x:2");
    assert_string_equal(take(f, "x:6", 111, DAY, a), "x:1");
    /* What a store remembers has no drugs. */
    assert_int_equal(fold_remember(f, VIEW("x:7"), 999, DAY, NULL), STATUS_OK);
    assert_string_equal(take(f, "x:8", 999, DAY, b), "x:7");
    fold_close(f);
}

static void test_forgets(void **state) {
    (void)state;
    struct fold *f = open_fold(100, 0);
    assert_string_equal(take(f, "x:1", 111, DAY, ""), "");
    fold_forget(f, VIEW("x:2"));
    fold_forget(f, VIEW("x:1"));
    assert_string_equal(take(f, "x:3", 111, DAY, ""), "");
    struct store_item gone = {.kind = STORE_DELETE, .key = VIEW("x:3")};
    assert_int_equal(fold_item(f, &gone, &arena, NULL), STATUS_OK);
    assert_string_equal(take(f, "x:4", 111, DAY, ""), "");
    /* Reposts: as they are, and remembered if they bring the text. */
    struct store_item repost = {.kind = STORE_POST,
                                .key = VIEW("x:5"),
                                .text = VIEW("text"),
                                .fingerprint = 0x7777,
                                .fold = STORE_REPOST,
                                .fold_key = VIEW("x:6")};
    assert_int_equal(fold_item(f, &repost, &arena, NULL), STATUS_OK);
    assert_int_equal(repost.fold, STORE_REPOST);
    assert_string_equal(repost.key.data, "x:5");
    assert_string_equal(take(f, "x:7", 0x7777, 0, ""), "x:5");
    fold_close(f);
}

static uint32_t random_state = 99;
static uint32_t draw(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* The newest n are known, whatever the length of their keys, and no others: against a list. */
static void test_memory(void **state) {
    (void)state;
    enum { N = 50, ALL = 5000 };
    static uint64_t prints[ALL];
    static char key[STORE_KEY_BYTES + 1];
    struct fold *f = open_fold(N, 0);
    for (size_t i = 0; i < ALL; i++) {
        prints[i] = ((uint64_t)draw() << 40 ^ (uint64_t)draw() << 20 ^ draw()) | 1;
        bool is_long = i > 2000 && draw() % 3 == 0;
        memset(key, 'k', sizeof key);
        int n = snprintf(key, sizeof key, "%zu", i);
        size_t n_key = is_long ? STORE_KEY_BYTES : (size_t)n;
        key[n] = is_long ? 'k' : '\0';
        assert_int_equal(fold_remember(f, view_of(key, n_key), prints[i], 0, NULL),
                         STATUS_OK);
        struct store_item item = {
            .kind = STORE_POST, .key = VIEW("?"), .fingerprint = prints[i]};
        assert_int_equal(fold_item(f, &item, &arena, NULL), STATUS_OK);
        assert_int_equal(item.fold, STORE_DUPLICATE);
        assert_int_equal(strtol(item.key.data, NULL, 10), i);
        assert_int_equal(item.key.n_bytes, n_key);
        if (i % 100 != 99)
            continue;
        for (size_t back = 1; back < 2 * N; back++) {
            uint64_t fingerprint = prints[i - back];
            item = (struct store_item){.kind = STORE_POST,
                                       .key = VIEW("?"),
                                       .fold = STORE_NO_FOLD,
                                       .fingerprint = fingerprint};
            assert_int_equal(fold_item(f, &item, &arena, NULL), STATUS_OK);
            bool is_known = item.fold == STORE_DUPLICATE;
            fold_forget(f, VIEW("?"));
            if (back >= N)
                assert_false(is_known);
            else if (i < 2000 && back < N - N / 10)
                assert_true(is_known);
            if (is_known)
                assert_int_equal(strtol(item.key.data, NULL, 10), i - back);
            if (!is_known)
                break; /* what was asked for took a place */
            arena_clear(&arena);
        }
    }
    fold_close(f);
    struct fold_options options = {.n_remembered = SIZE_MAX};
    assert_int_equal(fold_open(&options, &f, NULL), STATUS_LIMIT);
    assert_null(f);
}

static int tear_down(void **state) {
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fingerprints), cmocka_unit_test(test_distances),
        cmocka_unit_test(test_folds),        cmocka_unit_test(test_own_key),
        cmocka_unit_test(test_window),       cmocka_unit_test(test_drugs),
        cmocka_unit_test(test_forgets),      cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests_name("fold", tests, NULL, tear_down);
}
