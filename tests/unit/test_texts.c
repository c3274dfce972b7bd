/* SPDX-License-Identifier: Apache-2.0
 *
 * test_texts.c - the texts of a benchmark: lines, JSON lines, made-up ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/texts.h"

static char path[] = "/tmp/vigil-texts-XXXXXX";

static int make_file(void **state) {
    (void)state;
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    return close(fd);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path);
}

static enum status read_bytes(const char *data, size_t n_bytes, size_t max_texts,
                              struct texts *out, struct error *err) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n_bytes, f), n_bytes);
    fclose(f);
    return texts_read(path, max_texts, out, err);
}

#define READ(literal, max, out) read_bytes(literal, sizeof(literal) - 1, max, out, NULL)

static void expect(const struct texts *t, size_t i, const char *data, size_t n_bytes) {
    assert_true(i < t->n);
    assert_int_equal(t->items[i].n_bytes, n_bytes);
    assert_memory_equal(t->items[i].data, data, n_bytes);
}

static void lines_are_texts(void **state) {
    (void)state;
    struct texts t;
    assert_int_equal(READ("one\r\n\n two \n\r\nla\0st", 0, &t), STATUS_OK);
    assert_int_equal(t.n, 3);
    expect(&t, 0, "one", 3);
    expect(&t, 1, " two ", 5);
    expect(&t, 2, "la\0st", 5);
    texts_free(&t);
    assert_int_equal(READ("one\n{wo\n{", 2, &t), STATUS_OK);
    assert_int_equal(t.n, 2);
    expect(&t, 1, "{wo", 3);
    texts_free(&t);
}

#define OK_LINE "{\"text\":\"ok\"}\n"

static void json_lines_have_a_text(void **state) {
    (void)state;
    struct texts t;
    assert_int_equal(
        READ("{\"id\":1,\"text\":\"a\\n\\u00e9\\u0000z\"}\n{\"text\":\"{\"}\n"
             "{\"text\":\"\"}\n{\"text\":\"z\"}",
             0, &t),
        STATUS_OK);
    assert_int_equal(t.n, 3);
    expect(&t, 0, "a\n\xc3\xa9\0z", 6);
    expect(&t, 1, "{", 1);
    expect(&t, 2, "z", 1); /* empty ones are no texts */
    texts_free(&t);
}

static void what_is_wrong_is_said_by_line(void **state) {
    (void)state;
    static const char *const bad[] = {
        OK_LINE "{\"text\":5}\n", OK_LINE "{\"txt\":\"secret\"}\n",
        OK_LINE "{\"text\":\"secret\n", OK_LINE "secret\n"};
    struct texts t;
    struct error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(read_bytes(bad[i], strlen(bad[i]), 0, &t, &err),
                         STATUS_INVALID);
        assert_non_null(strstr(err.message, " line 2"));
        assert_null(strstr(err.message, "secret"));
        assert_null(t.items);
    }
    assert_int_equal(read_bytes("\n\r\n", 3, 0, &t, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "no text"));
    assert_int_equal(texts_read("/nowhere/at all", 0, &t, &err), STATUS_NOT_FOUND);
}

static void made_up_texts_are_always_the_same(void **state) {
    (void)state;
    struct texts a, b;
    size_t n_words = 0;
    assert_int_equal(texts_make_up(512, &a, NULL), STATUS_OK);
    assert_int_equal(texts_make_up(1000, &b, NULL), STATUS_OK);
    assert_int_equal(a.n, 512);
    for (size_t i = 0; i < a.n; i++) {
        expect(&b, i, a.items[i].data, a.items[i].n_bytes);
        assert_true(a.items[i].n_bytes > 0);
        n_words++;
        for (size_t j = 0; j < a.items[i].n_bytes; j++)
            n_words += a.items[i].data[j] == ' ';
    }
    /* with two specials each: as tweets have */
    assert_in_range(n_words + 2 * a.n, 24 * a.n, 26 * a.n);
    texts_free(&a);
    texts_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_texts),
        cmocka_unit_test(json_lines_have_a_text),
        cmocka_unit_test(what_is_wrong_is_said_by_line),
        cmocka_unit_test(made_up_texts_are_always_the_same),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
