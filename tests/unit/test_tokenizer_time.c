/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tokenizer_time.c - linear work on hostile text, by counting steps, never by a clock.
 *
 * wordpiece.c is compiled in with its hook filled: every character read, every byte looked up
 * in the trie is a step. A family of texts may take at most so many steps for each byte,
 * whatever its length, and no more of them for each byte when it gets longer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static size_t n_steps;
#define WORDPIECE_STEP() (n_steps++)
#include "tokenizer/wordpiece.c"

#include "tests/unit/tokenizer_files.h"

#define MAX_BYTES (1 << 20)

/* unit, repeated to fill the text */
struct family {
    const char *name, *unit;
    size_t n_unit; /* 0: strlen(unit) */
};

static const struct family FAMILIES[] = {
    {"words", "this drug gave me a rash ", 0},
    {"invalid UTF-8", "\xFF\xC0\x80\xE0\x80", 0},
    {"overlong", "\xC0\xAF\xE0\x80\xAF\xF0\x80\x80\xAF", 0},
    {"cut sequences", "\xE4\xB8\xF0\x9F\x98", 0},
    {"surrogates", "\xED\xA0\x80\xED\xBF\xBF", 0},
    {"over U+10FFFF", "\xF4\x90\x80\x80\xF7\xBF\xBF\xBF", 0},
    {"noncharacters", "\xEF\xBF\xBE\xEF\xBF\xBF", 0},
    {"NUL", "\0", 1},
    {"bidi, joiners", "\xE2\x80\xAE\xE2\x80\x8D\xE2\x80\x8F", 0},
    {"joiners in words", "a\xE2\x80\x8D", 0},
    {"variation selectors", "\xEF\xB8\x8F\xEF\xB8\x8E", 0},
    {"emoji", "\xF0\x9F\x91\xA9\xF0\x9F\x8F\xBD\xE2\x80\x8D\xF0\x9F\x9A\x80", 0},
    {"CJK B to F", "\xF0\xA0\x80\x80\xF0\xAC\xBA\xB0\xF0\xAB\xA0\xA0", 0},
    {"CJK", "\xE4\xB8\xAD", 0},
    {"Hangul jamo", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", 0},
    {"Hangul syllables", "\xEA\xB0\x81", 0},
    {"one word", "a", 0},
    {"one word, two bytes", "\xC3\xB8", 0},
    {"words of 15", "aaaaaaaaaaaaaaa ", 0},
    {"words of 16", "aaaaaaaaaaaaaaaa ", 0},
    {"words of 100",
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaaaaaaaaaaaaaaaaa ",
     0},
    {"long pieces", "telecommunicationsrepresentativesencyclopedia ", 0},
    {"punctuation", "!", 0},
    {"brackets", "[", 0},
    {"almost [MASK]", "[MAS", 0},
    {"[MASK]", "[MASK]", 0},
    {"spaces", " ", 0},
    {"all spaces", "\xC2\xA0\xE2\x80\xA8\xE2\x80\xA9\xE3\x80\x80\t", 0},
    {"marks", "\xCC\x81", 0},
    {"alternating marks", "\xCC\x81\xCC\x96", 0},
    {"marks in descending classes", "\xCD\x85\xCC\x81\xCC\x96\xCC\xA7\xCC\xB4", 0},
    {"marks that stay", "\xE3\x80\xAE\xE3\x80\xAF", 0},
    {"marks, two stay", "\xCC\x81\xCC\x96\xE3\x80\xAE\xF0\x9D\x85\xA5", 0},
    {"marks, all classes that stay",
     "\xF0\x9D\x85\xAD\xE3\x80\xAE\xCC\x81\xF0\x9D\x85\xA5\xCC\x96\xF0\x9D\x85\xAE", 0},
    {"marks, the last stays", "a\xCC\x81\xCC\x81\xCC\x81\xE3\x80\xAE", 0},
    {"growing", "\xCE\x90\xC4\xB0", 0},
    {"decomposed marks", "\xCD\x84\xE0\xBD\xB3", 0},
};
#define N_FAMILIES (sizeof FAMILIES / sizeof *FAMILIES)

static char text[MAX_BYTES];
static int32_t ids[MAX_BYTES + 2];
static struct token_span spans[MAX_BYTES + 2];

static size_t steps_of(const struct tokenizer *t, const struct family *f,
                       size_t n_bytes, size_t cap) {
    struct encoding e;
    size_t n_unit = f->n_unit ? f->n_unit : strlen(f->unit);
    for (size_t i = 0; i < n_bytes; i++)
        text[i] = f->unit[i % n_unit];
    n_steps = 0;
    tokenizer_encode(t, text, n_bytes, ids, spans, cap, &e);
    return n_steps;
}

/* The longest piece of the vocabulary has 18 bytes, so a byte costs at most that many steps in
 * the trie, and a few for reading it as often as there are classes of marks. */
#define MAX_STEPS_PER_BYTE 26

static void check_families(const char *config) {
    struct tokenizer *t = open_config(config);
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const struct family *f = &FAMILIES[i];
        size_t small = steps_of(t, f, 10000, 10002), big;
        big = steps_of(t, f, 1000000, 1000002);
        if (big > 1000000u * MAX_STEPS_PER_BYTE)
            fail_msg("%s: %zu steps for 1,000,000 bytes", f->name, big);
        /* 1,000 for the word that a text may begin or end in the middle of */
        if (big > 110 * (small + 1000))
            fail_msg("%s: %zu steps for 10,000 bytes, %zu for 1,000,000", f->name,
                     small, big);
        if (small == 0)
            fail_msg("%s: no steps are counted", f->name);
    }
    tokenizer_close(t);
}

static void test_linear(void **state) {
    (void)state;
    check_families("{\"do_lower_case\":true}");
}

static void test_linear_cased(void **state) {
    (void)state;
    check_families("{\"do_lower_case\":false,\"tokenize_chinese_chars\":false}");
}

/* With room for 128 tokens, work stops soon behind them, unless they are in one endless word
 * or there are none. */
static void test_stops_at_the_cap(void **state) {
    static const struct family SHORT[] = {{"words", "this drug gave me a rash ", 0},
                                          {"punctuation", "!", 0},
                                          {"CJK", "\xE4\xB8\xAD", 0},
                                          {"caf\xC3\xA9", "caf\xC3\xA9 ", 0},
                                          {"[MASK]", "[MASK]", 0}};
    struct tokenizer *t = open_config(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof SHORT / sizeof *SHORT; i++) {
        size_t n = steps_of(t, &SHORT[i], 1000000, 128);
        if (n > 128 * 20)
            fail_msg("%s: %zu steps for 128 tokens", SHORT[i].name, n);
    }
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_cased),
        cmocka_unit_test(test_stops_at_the_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
