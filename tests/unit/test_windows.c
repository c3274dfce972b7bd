/* SPDX-License-Identifier: Apache-2.0
 *
 * test_windows.c - windows over texts of one-letter words: what covers what, and that no
 * token is lost.
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

#include "model/windows.h"

static char directory[] = "/tmp/vigil-windows-XXXXXX";
static char path[64];
static struct tokenizer *tokenizer;

static int open_tokenizer(void **state) {
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/vocab.txt", directory);
    FILE *f = fopen(path, "w");
    if (!f)
        return -1;
    fputs("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\xE7\x97\x85\n", f);
    for (char c = 'a'; c <= 'z'; c++)
        fprintf(f, "%c\n##%c\n", c, c);
    fclose(f);
    struct error err;
    return tokenizer_open(directory, &tokenizer, &err) == STATUS_OK ? 0 : -1;
}

static int close_tokenizer(void **state) {
    (void)state;
    tokenizer_close(tokenizer);
    unlink(path);
    return rmdir(directory);
}

/* n words of one letter. */
static char *words(int n) {
    char *text = malloc((size_t)n * 2 + 1);
    assert_non_null(text);
    for (int i = 0; i < n; i++) {
        text[2 * i] = (char)('a' + i % 26);
        text[2 * i + 1] = ' ';
    }
    text[2 * n] = '\0';
    return text;
}

static void short_texts_are_one_window(void **state) {
    (void)state;
    struct windows w;
    assert_int_equal(windows_make(tokenizer, 8, "a bc", 4, false, &w, NULL), STATUS_OK);
    assert_int_equal(w.n_windows, 1);
    assert_int_equal(w.n_ids, 5);
    assert_int_equal(w.n_tokens, 5);
    assert_int_equal(w.offsets[0], 0);
    assert_int_equal(w.offsets[1], 5);
    assert_int_equal(w.ids[0], tokenizer_cls_id(tokenizer));
    assert_int_equal(w.ids[4], tokenizer_sep_id(tokenizer));
    assert_int_equal(w.spans[1].begin, 0);
    assert_int_equal(w.spans[2].begin, 2);
    assert_int_equal(w.spans[3].begin, 3);
    assert_int_equal(w.spans[3].end, 4);
    assert_int_equal(w.spans[4].begin, w.spans[4].end);
    assert_false(w.is_truncated);
    windows_free(&w);
    windows_free(&w);
    windows_free(NULL);
}

static void empty_and_odd_texts(void **state) {
    (void)state;
    struct windows w;
    assert_int_equal(windows_make(tokenizer, 8, "", 0, false, &w, NULL), STATUS_OK);
    assert_int_equal(w.n_ids, 2);
    windows_free(&w);
    /* NUL is cleaned away, offsets go on counting it; an emoji is unknown */
    assert_int_equal(windows_make(tokenizer, 8, "\0\xF0\x9F\x98\x80 \xE7\x97\x85", 9,
                                  false, &w, NULL),
                     STATUS_OK);
    assert_int_equal(w.n_ids, 4);
    assert_int_equal(w.n_unknown, 1);
    assert_int_equal(w.spans[1].begin, 1);
    assert_int_equal(w.spans[1].end, 2);
    assert_int_equal(w.spans[2].begin, 3);
    windows_free(&w);
    struct error err;
    assert_int_equal(windows_make(tokenizer, 2, "a", 1, false, &w, &err),
                     STATUS_INVALID);
}

/* Every length round every border, for models of several sizes. */
static void windows_cover_every_token(void **state) {
    (void)state;
    static const int sizes[] = {3, 4, 5, 8, 13, 64};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int positions = sizes[s], room = positions - 2;
        for (int n = 0; n < 4 * positions; n++) {
            char *text = words(n);
            struct windows w;
            assert_int_equal(
                windows_make(tokenizer, positions, text, strlen(text), false, &w, NULL),
                STATUS_OK);
            assert_int_equal(w.n_tokens, n + 2);
            assert_int_equal(w.offsets[w.n_windows], w.n_ids);
            int covered = 0;
            for (int k = 0; k < w.n_windows; k++) {
                const int32_t *ids = w.ids + w.offsets[k];
                const struct token_span *spans = w.spans + w.offsets[k];
                int len = w.offsets[k + 1] - w.offsets[k];
                int first = windows_first(&w, k);
                if (n > room)
                    assert_int_equal(len, positions);
                assert_true(first <= covered);
                if (k > 0 && k + 1 < w.n_windows)
                    assert_int_equal(covered - first, positions / 4);
                assert_int_equal(ids[0], tokenizer_cls_id(tokenizer));
                assert_int_equal(ids[len - 1], tokenizer_sep_id(tokenizer));
                for (int i = 1; i + 1 < len; i++) {
                    int token = first + i - 1;
                    char letter[2] = {(char)('a' + token % 26), 0};
                    assert_string_equal(tokenizer_token(tokenizer, ids[i]), letter);
                    assert_int_equal(spans[i].begin, 2 * token);
                }
                assert_true(k == 0 || first + len - 2 > covered);
                covered = first + len - 2;
            }
            assert_int_equal(covered, n);
            windows_free(&w);
            free(text);
        }
    }
}

static void truncate_keeps_the_first_window(void **state) {
    (void)state;
    char *text = words(30);
    struct windows w;
    assert_int_equal(windows_make(tokenizer, 8, text, strlen(text), true, &w, NULL),
                     STATUS_OK);
    assert_true(w.is_truncated);
    assert_int_equal(w.n_windows, 1);
    assert_int_equal(w.n_ids, 8);
    assert_int_equal(w.n_tokens, 32);
    assert_int_equal(w.ids[7], tokenizer_sep_id(tokenizer));
    assert_int_equal(w.spans[6].begin, 10);
    assert_int_equal(w.spans[7].begin, w.spans[7].end);
    assert_int_equal(windows_first(&w, 0), 0);
    windows_free(&w);
    /* A text that fits exactly is not cut. */
    assert_int_equal(windows_make(tokenizer, 8, text, 12, true, &w, NULL), STATUS_OK);
    assert_false(w.is_truncated);
    assert_int_equal(w.n_ids, 8);
    windows_free(&w);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_texts_are_one_window),
        cmocka_unit_test(empty_and_odd_texts),
        cmocka_unit_test(windows_cover_every_token),
        cmocka_unit_test(truncate_keeps_the_first_window),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
