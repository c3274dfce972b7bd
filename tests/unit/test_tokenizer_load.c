/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tokenizer_load.c - files of a tokenizer: what is refused and with which words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/tokenizer_files.h"

#define SPECIAL "[UNK]\n[CLS]\n[SEP]\n"
#define INVALID STATUS_INVALID
#define UNSUPPORTED STATUS_UNSUPPORTED

static int32_t ids[64];
static struct token_span spans[64];

static void expect_refused(const char *dir, size_t row, enum status status,
                           const char *words) {
    struct tokenizer *t = (struct tokenizer *)1;
    struct error err = {0};
    if (tokenizer_open(dir, &t, &err) != status || !strstr(err.message, words))
        fail_msg("row %zu: status %s, \"%s\"; expected %s, \"%s\"", row,
                 status_name(err.status), err.message, status_name(status), words);
    assert_null(t);
    assert_non_null(strstr(err.message, dir));
}

struct bad {
    const char *text;
    size_t n_bytes; /* 0: strlen(text) */
    enum status status;
    const char *words;
};

static const struct bad BAD_VOCAB[] = {
    {"", 0, INVALID, "the file is empty"},
    {"\n", 0, INVALID, "line 1 is empty"},
    {SPECIAL "a\n\nb\n", 0, INVALID, "line 5 is empty"},
    {SPECIAL "a\r\n\r\n", 0, INVALID, "line 5 is empty"},
    {SPECIAL "a\nb\na\n", 0, INVALID, "entry 6 is the same as entry 4"},
    {SPECIAL "a\nb\r\nb\n", 0, INVALID, "entry 6 is the same as entry 5"},
    {SPECIAL "a\0b\n", sizeof SPECIAL + 3, INVALID, "line 4 holds a NUL"},
    {SPECIAL "\xFF\n", 0, INVALID, "line 4 is not UTF-8"},
    {SPECIAL "a\xC3", 0, INVALID, "line 4 is not UTF-8"},
    {SPECIAL "\xED\xA0\x80\n", 0, INVALID, "line 4 is not UTF-8"},
    {"[CLS]\n[SEP]\na\n", 0, INVALID, "the vocabulary has no [UNK]"},
    {"[UNK]\n[SEP]\na\n", 0, INVALID, "the vocabulary has no [CLS]"},
    {"[UNK]\n[CLS]\na\n", 0, INVALID, "the vocabulary has no [SEP]"},
    {"[unk]\n[CLS]\n[SEP]\n", 0, INVALID, "the vocabulary has no [UNK]"},
};

static void test_bad_vocab(void **state) {
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "vocab.txt");
    (void)state;
    expect_refused(dir, 0, STATUS_NOT_FOUND, "neither vocab.txt nor tokenizer.json");
    expect_refused("/nonexistent-directory", 0, STATUS_NOT_FOUND, "no such directory");
    for (size_t i = 0; i < sizeof BAD_VOCAB / sizeof *BAD_VOCAB; i++) {
        const struct bad *b = &BAD_VOCAB[i];
        scratch_write(path, b->text, b->n_bytes ? b->n_bytes : strlen(b->text));
        expect_refused(dir, i, b->status, b->words);
    }
    char *text = calloc(1, 3u << 20);
    size_t n = sizeof SPECIAL - 1;
    memcpy(text, SPECIAL, n);
    memset(text + n, 'a', 1001);
    scratch_write(path, text, n + 1001);
    expect_refused(dir, 100, STATUS_LIMIT,
                   "entry 4 has 1001 bytes, over the limit of 1000");
    for (size_t i = 0; i < 1 << 20; i++)
        memcpy(text + n + 2 * i, "a\n", 2);
    scratch_write(path, text, n + (2u << 20));
    expect_refused(dir, 101, STATUS_LIMIT, "tokens, over the limit of 1048576");
    assert_int_equal(truncate(path, (16 << 20) + 1), 0);
    expect_refused(dir, 102, STATUS_LIMIT, "the limit is 16777216");
    free(text);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_refused(dir, 103, STATUS_INVALID, "directory");
    scratch_remove(dir);
}

/* Line ends of either kind, the last one or not. */
static void test_good_vocab(void **state) {
    static const char *const GOOD[] = {SPECIAL "a\n##b\n", SPECIAL "a\n##b",
                                       "[UNK]\r\n[CLS]\r\n[SEP]\r\na\r\n##b\r\n"};
    char *dir = scratch_make();
    (void)state;
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        struct tokenizer *t;
        struct error err;
        struct encoding e;
        scratch_write(scratch_path(dir, "vocab.txt"), GOOD[i], strlen(GOOD[i]));
        assert_int_equal(tokenizer_open(dir, &t, &err), STATUS_OK);
        assert_int_equal(tokenizer_vocab_size(t), 5);
        tokenizer_encode(t, "AB ba", 5, ids, NULL, 16, &e);
        assert_int_equal(e.n_tokens, 5);
        assert_int_equal(ids[1], 3);
        assert_int_equal(ids[2], 4);
        assert_int_equal(ids[3], 0);
        tokenizer_close(t);
    }
    scratch_remove(dir);
}

static const struct bad BAD_CONFIG[] = {
    {"", 0, INVALID, "ends too early"},
    {"[]", 0, INVALID, "expected an object, found an array"},
    {"{\"do_lower_case\":tru", 0, INVALID, "tokenizer_config.json"},
    {"{\"do_lower_case\":1}", 0, INVALID,
     "\"do_lower_case\": expected true or false, found an integer"},
    {"{\"do_lower_case\":true,\"do_lower_case\":false}", 0, INVALID, "a key twice"},
    {"{\"strip_accents\":\"no\"}", 0, INVALID, "\"strip_accents\": expected true"},
    {"{\"tokenize_chinese_chars\":[]}", 0, INVALID, "found an array"},
    {"{\"tokenizer_class\":\"RobertaTokenizer\"}", 0, UNSUPPORTED,
     "found RobertaTokenizer"},
    {"{\"tokenizer_class\":3}", 0, INVALID, "expected a string, found an integer"},
    {"{\"do_basic_tokenize\":false}", 0, UNSUPPORTED, "do_basic_tokenize"},
    {"{\"never_split\":[\"x\"]}", 0, UNSUPPORTED, "never_split"},
    {"{\"max_input_chars_per_word\":0}", 0, UNSUPPORTED, "expected 1 to 1000, found 0"},
    {"{\"max_input_chars_per_word\":1001}", 0, UNSUPPORTED, "found 1001"},
    {"{\"max_input_chars_per_word\":-1}", 0, UNSUPPORTED, "found -1"},
    {"{\"max_input_chars_per_word\":1.5}", 0, INVALID, "found a number"},
    {"{\"unk_token\":7}", 0, INVALID, "\"unk_token\": expected a string"},
    {"{\"unk_token\":\"<unk>\"}", 0, INVALID, "the vocabulary has no <unk>"},
    {"{\"cls_token\":\"a\\u0000b\"}", 0, INVALID, "no NUL"},
    {"{\"sep_token\":\"0123456789012345678901234567890123456789012345678901234567890123"
     "\"}",
     0, INVALID, "expected under 64 bytes"},
    {"{\"mask_token\":{\"content\":\"[MASK]\",\"lstrip\":true}}", 0, UNSUPPORTED,
     "\"mask_token\": only \"lstrip\": false"},
    {"{\"added_tokens_decoder\":{\"x\":{}}}", 0, INVALID, "expected ids as keys"},
    {"{\"added_tokens_decoder\":3}", 0, INVALID, "expected an array or an object"},
    {"{\"added_tokens_decoder\":{\"0\":{}}}", 0, INVALID, "has no content"},
    {"{\"added_tokens_decoder\":{\"0\":{\"content\":\"[UNK]\"}}}", 0, INVALID,
     "added token 0 is not what the vocabulary has there"},
    {"{\"added_tokens_decoder\":{\"30522\":{\"content\":\"<new>\"}}}", 0, INVALID,
     "added token 30522 is not"},
    {"{\"added_tokens_decoder\":{\"-1\":{\"content\":\"<new>\"}}}", 0, INVALID,
     "added token -1 is not"},
    {"{\"added_tokens_decoder\":{\"1\":{\"content\":\"[unused0]\",\"normalized\":true}}"
     "}",
     0, UNSUPPORTED, "added token 1: only \"normalized\": false"},
    {"{\"added_tokens_decoder\":{\"103\":{\"content\":\"[MASK]\",\"lstrip\":true}}}", 0,
     UNSUPPORTED, "added token 103: only \"lstrip\": false"},
};

static void test_bad_config(void **state) {
    char *dir = vocab_directory(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof BAD_CONFIG / sizeof *BAD_CONFIG; i++) {
        const struct bad *b = &BAD_CONFIG[i];
        scratch_write(scratch_path(dir, "tokenizer_config.json"), b->text,
                      strlen(b->text));
        expect_refused(dir, i, b->status, b->words);
    }
    scratch_remove(dir);
}

/* An added token beside the special ones is one token wherever it stands. */
static void test_added_token(void **state) {
    struct tokenizer *t = open_config(
        "{\"added_tokens_decoder\":{\"1\":{\"content\":\"[unused0]\",\"normalized\":"
        "false,\"special\":true}},\"unk_token\":{\"content\":\"[UNK]\"}}");
    struct encoding e;
    (void)state;
    tokenizer_encode(t, "x[unused0]y[UNUSED0]", 20, ids, spans, 64, &e);
    assert_int_equal(ids[2], 1);
    assert_int_equal(spans[2].begin, 1);
    assert_int_equal(spans[2].end, 10);
    for (size_t i = 3; i < e.n_tokens; i++)
        assert_int_not_equal(ids[i], 1);
    tokenizer_close(t);
}

/* ---- tokenizer.json ---- */

/* SMALL's with the first from replaced by to; "": from begins the file and all is replaced */
struct edit {
    const char *from, *to;
    enum status status;
    const char *words;
};

static const struct edit BAD_EDITS[] = {
    {"", "{}", UNSUPPORTED, "\"model\": expected WordPiece, found nothing"},
    {"", "[]", INVALID, "expected an object, found an array"},
    {"", "{\"model\":", INVALID, "ends too early"},
    {"", "{\"model\":{\"type\":\"WordPiece\"}}", UNSUPPORTED, "\"pre_tokenizer\""},
    {"\"WordPiece\"", "\"BPE\"", UNSUPPORTED,
     "\"model\": expected WordPiece, found BPE"},
    {"\"BertPreTokenizer\"", "\"Whitespace\"", UNSUPPORTED, "\"pre_tokenizer\""},
    {"\"BertNormalizer\"", "\"Lowercase\"", UNSUPPORTED, "\"normalizer\""},
    {"\"clean_text\":true", "\"clean_text\":false", UNSUPPORTED, "clean_text"},
    {"\"lowercase\":false", "\"lowercase\":0", INVALID, "\"lowercase\": expected true"},
    {"\"TemplateProcessing\"", "\"ByteLevel\"", UNSUPPORTED, "\"post_processor\""},
    {"\"single\":[{\"SpecialToken\"", "\"single\":[{\"Sequence\"", UNSUPPORTED,
     "one token before the text and one behind it"},
    {"\"unk_token\":\"[UNK]\"", "\"unk_token\":\"<unk>\"", INVALID, "has no <unk>"},
    {"\"unk_token\":\"[UNK]\"", "\"unk_token\":1", INVALID, "\"unk_token\": expected"},
    {"\"max_input_chars_per_word\":50", "\"max_input_chars_per_word\":\"50\"", INVALID,
     "expected an integer, found a string"},
    {"\"max_input_chars_per_word\":50", "\"max_input_chars_per_word\":5000",
     UNSUPPORTED, "expected 1 to 1000, found 5000"},
    {"\"vocab\":{", "\"vocab\":[],\"was\":{", INVALID, "\"vocab\": expected an object"},
    {"\"vocab\":{", "\"vocab\":{},\"was\":{", INVALID,
     "expected 1 to 1048576 tokens, found 0"},
    {"\"the\":85", "\"the\":86", INVALID, "two tokens have id 86"},
    {"\"the\":85", "\"the\":95", INVALID, "expected ids 0 to 94"},
    {"\"the\":85", "\"the\":-1", INVALID, "expected ids 0 to 94"},
    {"\"the\":85", "\"the\":\"85\"", INVALID, "expected ids 0 to 94"},
    {"\"the\":85", "\"\":85", INVALID, "entry 86 is empty"},
    {"\"the\":85", "\"t\\u0000e\":85", INVALID, "NUL"},
    {"\"the\":85", "\"the\":85,\"the\":85", INVALID, "a key twice"},
    {"\"id\":4,\"content\":\"[MASK]\"", "\"id\":4,\"content\":\"[mask]\"", INVALID,
     "added token 4 is not what the vocabulary has there"},
    {"\"id\":4,\"content\"", "\"id\":95,\"content\"", INVALID,
     "added token 95 is token 4 already"},
    {"\"id\":4,\"content\"", "\"id\":99,\"content\"", INVALID, "expected ids 95 to 95"},
    {"\"id\":4,\"content\"", "\"id\":\"4\",\"content\"", INVALID,
     "integers under \"id\""},
    {"\"single_word\":false", "\"single_word\":true", UNSUPPORTED, "single_word"},
    {"\"added_tokens\":[", "\"added_tokens\":7,\"was\":[", INVALID,
     "expected an array or an object"},
};

static char *edited(const char *text, const struct edit *e) {
    if (!*e->from)
        return strdup(e->to);
    size_t at = 0, n = strlen(text) + strlen(e->to) + 1;
    while (text[at] && strncmp(text + at, e->from, strlen(e->from)) != 0)
        at++;
    assert_int_not_equal(text[at], 0); /* else the row looks for what is not there */
    char *out = calloc(1, n);
    snprintf(out, n, "%.*s%s%s", (int)at, text, e->to, text + at + strlen(e->from));
    return out;
}

static void test_bad_json(void **state) {
    char *dir = scratch_make();
    size_t n;
    char *json = whole_file(SMALL "/tokenizer.json", &n);
    (void)state;
    for (size_t i = 0; i < sizeof BAD_EDITS / sizeof *BAD_EDITS; i++) {
        char *text = edited(json, &BAD_EDITS[i]);
        scratch_write(scratch_path(dir, "tokenizer.json"), text, strlen(text));
        expect_refused(dir, i, BAD_EDITS[i].status, BAD_EDITS[i].words);
        free(text);
    }
    /* Cut anywhere, it is refused or, in its last white space, whole. */
    for (size_t cut = 0; cut + 1 < n; cut++) {
        struct tokenizer *t;
        struct error err;
        scratch_write(scratch_path(dir, "tokenizer.json"), json, cut);
        assert_int_not_equal(tokenizer_open(dir, &t, &err), STATUS_OK);
    }
    free(json);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_vocab),  cmocka_unit_test(test_good_vocab),
        cmocka_unit_test(test_bad_config), cmocka_unit_test(test_added_token),
        cmocka_unit_test(test_bad_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
