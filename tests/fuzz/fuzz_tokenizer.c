/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tokenizer.c - the tokenizer against slow_tokenizer.c: the same ids, the same places,
 * whatever the text, the settings and the cap; and work that is linear in the text.
 *
 * Input: two bytes of settings, then the text. In palette mode a byte of the text over 127
 * stands for a character, so that few mutations reach what needs two rare ones side by side.
 */
#include <sanitizer/asan_interface.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t n_steps;
#define WORDPIECE_STEP() (n_steps++)
/* Compiled in, to count its steps: the library's own is not linked then. */
#include "tokenizer/wordpiece.c"

#include "base/utf8.h"
#include "tests/fuzz/slow_tokenizer.h"

#define MAX_TEXT 8192
#define N_VARIANTS 32

static const char *const TOKENS[] = {"[PAD]",
                                     "[UNK]",
                                     "[CLS]",
                                     "[SEP]",
                                     "[MASK]",
                                     "a",
                                     "b",
                                     "c",
                                     "e",
                                     "i",
                                     "o",
                                     "s",
                                     "x",
                                     "z",
                                     "0",
                                     "7",
                                     "A",
                                     "I",
                                     "Z",
                                     "##a",
                                     "##b",
                                     "##c",
                                     "##e",
                                     "##i",
                                     "##s",
                                     "##x",
                                     "##0",
                                     "##A",
                                     "##ab",
                                     "##abc",
                                     "ab",
                                     "abc",
                                     "abcab",
                                     "##bca",
                                     "##bcab",
                                     "aa",
                                     "aaaa",
                                     "##aaaa",
                                     "abcabcabcabcab",
                                     "abcabcabcabcabc",
                                     "abcabcabcabcabca",
                                     "aaaaaaaaaaaaaaaaaaaa",
                                     "the",
                                     "rash",
                                     "[",
                                     "]",
                                     "#",
                                     "##]",
                                     "!",
                                     "'",
                                     ".",
                                     "-",
                                     "_",
                                     "`",
                                     "~",
                                     "$",
                                     "\xC3\xA9",
                                     "##\xC3\xA9",
                                     "\xC3\xA9t\xC3\xA9",
                                     "e\xCC\x81",
                                     "##\xCC\x81",
                                     "\xCC\x81",
                                     "\xC3\x89",
                                     "i\xCC\x87",
                                     "##\xCC\x87",
                                     "\xC4\xB0",
                                     "\xCF\x83",
                                     "\xCF\x82",
                                     "##\xCF\x83",
                                     "\xC3\x9F",
                                     "\xC5\x93",
                                     "\xE4\xB8\xAD",
                                     "\xE6\x96\x87",
                                     "##\xE6\x96\x87",
                                     "\xF0\xA0\x80\x80",
                                     "\xE1\x84\x80\xE1\x85\xA1",
                                     "##\xE1\x86\xA8",
                                     "\xE1\x84\x80",
                                     "##\xE1\x85\xA1",
                                     "\xEA\xB0\x80",
                                     "\xEA\xB0\x81",
                                     "\xE3\x81\x8B",
                                     "##\xE3\x81\x8B",
                                     "\xE3\x82\x99",
                                     "\xF0\x9F\x98\x80",
                                     "##\xF0\x9F\x98\x80",
                                     "##\xF0\x9F\x8F\xBD",
                                     "\xE3\x80\xAE",
                                     "##\xE3\x80\xAE",
                                     "\xF0\x9D\x85\x97",
                                     "##\xF0\x9D\x85\xA5",
                                     "##\xF0\x9D\x85\xAE",
                                     "##\xF0\x9D\x85\xAD",
                                     "\xE2\x80\x94",
                                     "\xE3\x80\x82",
                                     "\xD7\x90",
                                     "##\xD6\xB7",
                                     ";",
                                     "\xE0\xA4\x95",
                                     "##\xE0\xA4\xBE",
                                     "##\xE0\xA5\x8D",
                                     "k",
                                     "\xCE\xB9",
                                     "##\xCE\xB9"};
#define N_TOKENS (sizeof TOKENS / sizeof *TOKENS)
#define MAX_TOKEN_BYTES 24

static const char *const ADDED[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", NULL};

/* What stands for the bytes from 128 on; more than once where the list is short. */
static const uint32_t PALETTE[] = {
    0xE9,    0xC9,    0xC5,    0x130,    0x131,   0x1C4,   0x3A3,   0x3C2,   0x390,
    0x1FB7,  0x300,   0x301,   0x307,    0x308,   0x316,   0x323,   0x327,   0x334,
    0x344,   0x345,   0x315,   0x35D,    0x302E,  0x302F,  0x1D165, 0x1D16D, 0x1D16E,
    0x1D15E, 0x1D160, 0x1D1BB, 0x5B7,    0x5BF,   0x64B,   0x651,   0x670,   0x711,
    0x93C,   0x94D,   0x93E,   0x9CB,    0xB57,   0xDDD,   0xE38,   0xF71,   0xF72,
    0xF73,   0xF74,   0xF75,   0xF81,    0x1133C, 0x3099,  0x304B,  0x304C,  0x1100,
    0x1161,  0x11A8,  0xAC00,  0xAC01,   0xD7A3,  0x115F,  0x4E2D,  0x6587,  0xF900,
    0xFA0E,  0x2F800, 0x20000, 0x2B820,  0x2B920, 0x3007,  0x3400,  0x0,     0x1,
    0x7F,    0x85,    0xA0,    0xAD,     0x200B,  0x200D,  0x200E,  0x202E,  0x2028,
    0x2029,  0x3000,  0x1680,  0x180E,   0x2000,  0x2060,  0xFEFF,  0xFFFD,  0xFFFE,
    0xFFFF,  0xE000,  0xE0001, 0x10FFFF, 0xFE0F,  0x1F600, 0x1F3FD, 0x1F1E6, 0x20E3,
    0x2014,  0x3002,  0xFF01,  0xFF21,   0xFF3B,  0x37E,   0x387,   0x1FEF,  0x2126,
    0x212A,  0x212B,  0xDF,    0x1E9E,   0x149,   0xFB00,  0x10400, 0x10A0,  0x13A0,
    0xAB70,  0x1C89,  0x2C2F,  0x16EA0,  0x94B,   0x915,   0x958,   0x1B06,  0x1134B,
    0x114BB, 0x111C9};
#define N_PALETTE (sizeof PALETTE / sizeof *PALETTE)

static struct tokenizer fast[N_VARIANTS];
static struct slow_settings settings[N_VARIANTS];
static struct slow_tokenizer *slow;

static struct vocab open_vocab(void) {
    static char text[N_TOKENS * MAX_TOKEN_BYTES];
    static uint32_t starts[N_TOKENS];
    struct vocab v;
    struct error err;
    char *text_copy = malloc(sizeof text);
    uint32_t *starts_copy = malloc(sizeof starts);
    size_t at = 0;
    for (size_t i = 0; i < N_TOKENS; i++) {
        starts[i] = (uint32_t)at;
        memcpy(text + at, TOKENS[i], strlen(TOKENS[i]) + 1);
        at += strlen(TOKENS[i]) + 1;
    }
    if (!text_copy || !starts_copy)
        abort();
    memcpy(text_copy, text, sizeof text);
    memcpy(starts_copy, starts, sizeof starts);
    if (vocab_open(&v, text_copy, starts_copy, N_TOKENS, N_TOKENS, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    return v;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static const uint32_t MAX_WORD_CHARS[4] = {100, 1, 6, 300};
    const struct vocab v = open_vocab();
    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < N_VARIANTS; i++) {
        bool is_lower = !(i & 1), is_stripped = !(i & 2), is_cjk_spaced = !(i & 4);
        fast[i] = (struct tokenizer){.vocab = v,
                                     .unk_id = 1,
                                     .cls_id = 2,
                                     .sep_id = 3,
                                     .is_lower = is_lower,
                                     .is_stripped = is_stripped,
                                     .is_cjk_spaced = is_cjk_spaced,
                                     .max_word_chars = MAX_WORD_CHARS[i >> 3]};
        for (int32_t id = 0; ADDED[id]; id++)
            fast[i].added[fast[i].n_added++] =
                (struct added_token){ADDED[id], strlen(ADDED[id]), id};
        wordpiece_prepare(&fast[i], "##");
        settings[i] = (struct slow_settings){
            TOKENS, N_TOKENS, "[UNK]",     "[CLS]",       "[SEP]",
            ADDED,  is_lower, is_stripped, is_cjk_spaced, MAX_WORD_CHARS[i >> 3]};
    }
    slow = slow_open(&settings[0]);
    return 0;
}

static size_t from_palette(const uint8_t *data, size_t n, uint8_t *out) {
    size_t at = 0;
    for (size_t i = 0; i < n && at + 4 <= MAX_TEXT; i++)
        if (data[i] < 128)
            out[at++] = data[i];
        else
            at += utf8_encode(PALETTE[(data[i] - 128) % N_PALETTE], out + at);
    return at;
}

static void expect(bool is_true, const char *what, size_t at) {
    if (is_true)
        return;
    fprintf(stderr, "%s differs at token %zu\n", what, at);
    abort();
}

/* Holds what tokenizer_encode gives with room for cap tokens against all the tokens. */
static void compare(const struct tokenizer *t, const uint8_t *text, size_t n_bytes,
                    size_t cap, const struct slow_token *all, size_t n_all) {
    static int32_t ids[MAX_TEXT + 2], plain_ids[MAX_TEXT + 2];
    static struct token_span spans[MAX_TEXT + 2];
    struct encoding e, plain;
    size_t n = n_all < cap ? n_all : cap, n_unknown = 0;
    ASAN_POISON_MEMORY_REGION(ids + cap, sizeof ids - cap * sizeof *ids);
    ASAN_POISON_MEMORY_REGION(spans + cap, sizeof spans - cap * sizeof *spans);
    tokenizer_encode(t, (const char *)text, n_bytes, ids, spans, cap, &e);
    tokenizer_encode(t, (const char *)text, n_bytes, plain_ids, NULL, cap, &plain);
    expect(e.n_tokens == n, "the number of tokens", n);
    expect(e.is_truncated == (n_all > cap), "is_truncated", n);
    for (size_t i = 0; i < n; i++) {
        const struct slow_token *want = i + 1 < n ? &all[i] : &all[n_all - 1];
        expect(ids[i] == want->id, "the id", i);
        expect(spans[i].begin == want->begin && spans[i].end == want->end, "the span",
               i);
        n_unknown += i > 0 && i + 1 < n && ids[i] == t->unk_id;
    }
    expect(e.n_unknown == n_unknown, "n_unknown", n);
    expect(memcmp(&e, &plain, offsetof(struct encoding, is_truncated)) == 0 &&
               e.is_truncated == plain.is_truncated &&
               memcmp(ids, plain_ids, n * sizeof *ids) == 0,
           "without spans, something", n);
    ASAN_UNPOISON_MEMORY_REGION(ids, sizeof ids);
    ASAN_UNPOISON_MEMORY_REGION(spans, sizeof spans);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t drawn[MAX_TEXT];
    const struct slow_token *all;
    if (size < 2 || size > MAX_TEXT)
        return 0;
    unsigned variant = data[0] % N_VARIANTS;
    bool is_drawn = data[0] & 0x80;
    size_t cap = 2 + data[1] % 32u, n_bytes = size - 2;
    const uint8_t *text = data + 2;
    if (is_drawn) {
        n_bytes = from_palette(text, n_bytes, drawn);
        text = drawn;
        ASAN_POISON_MEMORY_REGION(drawn + n_bytes, sizeof drawn - n_bytes);
    }
    size_t n_all = slow_encode(slow, text, n_bytes, &settings[variant], &all);
    expect(n_all <= tokenizer_max_tokens(n_bytes), "tokenizer_max_tokens", n_all);
    n_steps = 0;
    compare(&fast[variant], text, n_bytes, tokenizer_max_tokens(n_bytes), all, n_all);
    /* Encoded twice; a piece is at most MAX_TOKEN_BYTES long. */
    expect(n_steps <= 2 * (MAX_TOKEN_BYTES + 12) * (n_bytes + 1), "linear work",
           n_steps);
    compare(&fast[variant], text, n_bytes, cap < n_bytes + 2 ? cap : n_bytes + 2, all,
            n_all);
    ASAN_UNPOISON_MEMORY_REGION(drawn, sizeof drawn);
    return 0;
}
