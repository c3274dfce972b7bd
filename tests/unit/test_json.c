/* SPDX-License-Identifier: Apache-2.0
 *
 * test_json.c - base/json: what is refused and with which words, limits, escapes, floats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

static const struct json_limits LIMITS = {
    .max_bytes = 1 << 20, .max_depth = 4, .max_values = 100, .max_key_bytes = 8};

struct bad {
    const char *text;
    size_t n_bytes; /* 0: strlen */
    enum status status;
    const char *words;
};

#define INVALID STATUS_INVALID
static const struct bad BAD[] = {
    {"", 0, INVALID, "ends too early at byte 0"},
    {" \n", 0, INVALID, "ends too early at byte 2"},
    {"\xEF\xBB\xBF{}", 0, INVALID, "at byte 0: expected a value"},
    {"{", 0, INVALID, "ends too early at byte 1"},
    {"[", 0, INVALID, "ends too early"},
    {"[1", 0, INVALID, "expected a comma or the array's end"},
    {"{\"a\":1", 0, INVALID, "expected a comma or the object's end"},
    {"[1,]", 0, INVALID, "at byte 3: expected a value"},
    {"{\"a\":1,}", 0, INVALID, "at byte 7: expected a key"},
    {"{\"a\" 1}", 0, INVALID, "expected a colon"},
    {"{1:1}", 0, INVALID, "expected a key"},
    {"[1}", 0, INVALID, "at byte 2: expected a comma or the array's end"},
    {"{\"a\":1]", 0, INVALID, "object's end"},
    {"]", 0, INVALID, "expected a value"},
    {"[1] x", 0, INVALID, "at byte 4: bytes behind"},
    {"1\0", 2, INVALID, "at byte 1: bytes behind"},
    {"tru", 0, INVALID, "expected a value"},
    {"nul", 0, INVALID, "expected a value"},
    {"True", 0, INVALID, "expected a value"},
    {"NaN", 0, INVALID, "expected a value"},
    {"-Infinity", 0, INVALID, "expected a digit"},
    {"01", 0, INVALID, "at byte 1: bytes behind"},
    {"-", 0, INVALID, "ends too early"},
    {"1.", 0, INVALID, "after the point"},
    {".5", 0, INVALID, "expected a value"},
    {"1e", 0, INVALID, "exponent"},
    {"1e+", 0, INVALID, "exponent"},
    {"+1", 0, INVALID, "expected a value"},
    {"'a'", 0, INVALID, "expected a value"},
    {"\"a", 0, INVALID, "ends too early at byte 2: a string"},
    {"\"\n\"", 0, INVALID, "at byte 1: a control character"},
    {"\"\0\"", 3, INVALID, "a control character"},
    {"\"\x80\"", 0, INVALID, "at byte 1: not UTF-8"},
    {"\"\xC0\x80\"", 0, INVALID, "not UTF-8"},
    {"\"\xED\xA0\x80\"", 0, INVALID, "not UTF-8"},
    {"\"\xF4\x90\x80\x80\"", 0, INVALID, "not UTF-8"},
    {"\"\xE2\x82\"", 0, INVALID, "not UTF-8"},
    {"\"\\x\"", 0, INVALID, "not an escape"},
    {"\"\\u12G4\"", 0, INVALID, "four hex digits"},
    {"\"\\u12", 0, INVALID, "four hex digits"},
    {"\"\\", 0, INVALID, "not an escape"},
    {"{\"a\":1,\"a\":2}", 0, INVALID, "a key twice"},
    {"{\"\\u0000\":1}", 0, INVALID, "NUL in a key"},
    {"99999999999999999999", 0, INVALID, "out of range"},
    {"1e999", 0, INVALID, "out of range"},
    {"\"\\ud800\"", 0, STATUS_UNSUPPORTED, "lone surrogate at byte 1"},
    {"[\"\\udc00\", \"\\ud800\"]", 0, STATUS_UNSUPPORTED, "lone surrogate at byte 2"},
    {"\"\\ud800\\ud800\"", 0, STATUS_UNSUPPORTED, "lone surrogate"},
    {"\"\\ud800x\"", 0, STATUS_UNSUPPORTED, "lone surrogate"},
    {"[\"\\ud800\"", 0, INVALID, "ends too early"}, /* malformed wins */
    {"[[[[[1]]]]]", 0, STATUS_LIMIT, "nested more than 4 deep"},
    {"{\"123456789\":1}", 0, STATUS_LIMIT, "a key of more than 8 bytes"},
};

static enum status parse(const char *text, size_t n_bytes, json_t **out,
                         struct error *err) {
    /* A copy of the exact size, so that a read past the end is seen. */
    char *copy = malloc(n_bytes ? n_bytes : 1);
    assert_non_null(copy);
    memcpy(copy, text, n_bytes);
    enum status status = json_parse(copy, n_bytes, &LIMITS, out, err);
    free(copy);
    return status;
}

static void refuses(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        const struct bad *bad = &BAD[i];
        struct error err = {0};
        json_t *out = NULL;
        enum status status = parse(
            bad->text, bad->n_bytes ? bad->n_bytes : strlen(bad->text), &out, &err);
        if (status != bad->status || !strstr(err.message, bad->words))
            fail_msg("case %zu: %s \"%s\", expected \"%s\"", i, status_name(status),
                     err.message, bad->words);
        assert_null(out);
    }
}

static void accepts(void **state) {
    (void)state;
    static const char *const good[] = {"null",
                                       "true",
                                       "false",
                                       "0",
                                       "-0",
                                       "1e5",
                                       "-1.5E-3",
                                       "\"\"",
                                       "[]",
                                       "{}",
                                       " [ ] ",
                                       "{\"a\":{\"b\":[[1]]}}",
                                       "[1,2,{\"a\":[]}]",
                                       "\"\\u0000\"",
                                       "\"\\ud83d\\ude00\"",
                                       "\"\xF0\x9F\x98\x80\xC3\xA9\"",
                                       "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
                                       "\t\r\n[\"x\"]\n",
                                       "{\"12345678\":1}",
                                       "\"\x7F\""};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct error err = {0};
        json_t *out = NULL;
        if (parse(good[i], strlen(good[i]), &out, &err) != STATUS_OK)
            fail_msg("case %zu: %s", i, err.message);
        json_decref(out);
    }
    json_t *out = NULL;
    assert_int_equal(parse("\"a\\u0000b\"", 10, &out, NULL), STATUS_OK);
    assert_int_equal(json_string_length(out), 3);
    assert_memory_equal(json_string_value(out), "a\0b", 3);
    json_decref(out);
}

static void holds_limits(void **state) {
    (void)state;
    struct json_limits limits = LIMITS;
    struct error err;
    json_t *out;
    limits.max_bytes = 3;
    assert_int_equal(json_parse("[11]", 4, &limits, &out, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "limit of 3"));
    assert_int_equal(json_parse("[1]", 3, &limits, &out, &err), STATUS_OK);
    json_decref(out);
    limits = LIMITS;
    limits.max_values = 3;
    assert_int_equal(json_parse("[1,1]", 5, &limits, &out, &err), STATUS_OK);
    json_decref(out);
    assert_int_equal(json_parse("[1,1,1]", 7, &limits, &out, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "more than 3 values"));
    limits = LIMITS;
    limits.max_depth = 0;
    assert_int_equal(json_parse("\"x\"", 3, &limits, &out, &err), STATUS_OK);
    json_decref(out);
    assert_int_equal(json_parse("[]", 2, &limits, &out, &err), STATUS_LIMIT);

    /* A million brackets stop at the depth, also when the caller's limit is higher. */
    size_t n = 1000000;
    char *deep = malloc(n);
    assert_non_null(deep);
    memset(deep, '[', n);
    limits.max_depth = SIZE_MAX;
    limits.max_values = SIZE_MAX;
    assert_int_equal(json_parse(deep, n, &limits, &out, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "2048 deep"));
    free(deep);
}

static void appends_strings(void **state) {
    (void)state;
    static const struct {
        const char *in;
        size_t n_bytes;
        const char *out;
    } rows[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
        {"\b\t\n\f\r", 5, "\"\\b\\t\\n\\f\\r\""},
        {"\0\x01\x0B\x1F\x7F", 5, "\"\\u0000\\u0001\\u000b\\u001f\x7F\""},
        {"\xC3\xA9\xF0\x9F\x98\x80", 6, "\"\xC3\xA9\xF0\x9F\x98\x80\""},
        {"x\x80y", 3, "\"x\xEF\xBF\xBDy\""},
        {"\xE2\x82", 2, "\"\xEF\xBF\xBD\""},
        {"\xE2\x82x", 3, "\"\xEF\xBF\xBDx\""},
        {"\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {"\xF0\x9F", 2, "\"\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buffer b = {.max_bytes = 1000};
        assert_int_equal(json_append_string(&b, rows[i].in, rows[i].n_bytes, NULL),
                         STATUS_OK);
        assert_string_equal(b.data, rows[i].out);
        json_t *read = NULL;
        assert_int_equal(json_parse(b.data, b.n_bytes, &LIMITS, &read, NULL),
                         STATUS_OK);
        json_decref(read);
        buffer_free(&b);
    }
    struct buffer tight = {.max_bytes = 4};
    assert_int_equal(json_append_string(&tight, "abc", 3, NULL), STATUS_LIMIT);
    buffer_free(&tight);
}

static void appends_one(struct buffer *b, float value, const char *expected) {
    buffer_clear(b);
    assert_int_equal(json_append_float(b, value, NULL), STATUS_OK);
    assert_string_equal(b->data, expected);
}

/* The reference: the fewest digits of %g that read back. */
static int fewest_digits(float value) {
    char text[40];
    for (int n = 1;; n++) {
        snprintf(text, sizeof text, "%.*e", n - 1, (double)value);
        if (strtof(text, NULL) == value)
            return n;
    }
}

static int count_digits(const char *text) {
    int n = 0, n_zeros = 0;
    for (; *text && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (n == 0 && *text == '0'))
            continue;
        n_zeros = *text == '0' ? n_zeros + 1 : 0;
        n++;
    }
    return n - n_zeros;
}

static void appends_floats(void **state) {
    (void)state;
    struct buffer b = {.max_bytes = 100};
    appends_one(&b, 0.0f, "0");
    appends_one(&b, 1.0f, "1");
    appends_one(&b, 0.6f, "0.6");
    appends_one(&b, -0.6f, "-0.6");
    appends_one(&b, 0.99999994f, "0.99999994");
    appends_one(&b, 1e-7f, "1e-7");
    appends_one(&b, 1.5e-10f, "1.5e-10");
    appends_one(&b, 0.00012345f, "0.00012345");
    appends_one(&b, 123456.0f, "123456");
    appends_one(&b, 1e8f, "100000000");
    appends_one(&b, NAN, "null");
    appends_one(&b, -INFINITY, "null");
    /* Every 9,973rd float there is, both signs; each must read back, as short as can be. */
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 9973) {
        uint32_t word = (uint32_t)bits;
        float value;
        memcpy(&value, &word, sizeof value);
        if (!isfinite(value))
            continue;
        buffer_clear(&b);
        assert_int_equal(json_append_float(&b, value, NULL), STATUS_OK);
        if (strtof(b.data, NULL) != value)
            fail_msg("%.9g was written as %s", (double)value, b.data);
        if (value != 0.0f && count_digits(b.data) > fewest_digits(value))
            fail_msg("%.9g was written as %s: too long", (double)value, b.data);
        json_t *read = NULL;
        assert_int_equal(json_parse(b.data, b.n_bytes, &LIMITS, &read, NULL),
                         STATUS_OK);
        json_decref(read);
    }
    buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses),        cmocka_unit_test(accepts),
        cmocka_unit_test(holds_limits),   cmocka_unit_test(appends_strings),
        cmocka_unit_test(appends_floats),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
