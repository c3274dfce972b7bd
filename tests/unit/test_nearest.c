/* SPDX-License-Identifier: Apache-2.0
 *
 * test_nearest.c - what counts as a typo of what.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/nearest.h"

static const char *nearest_to(const char *word) {
    static const char *const names[] = {"serve", "classify", "tokenize", "model",
                                        "bench", "doctor",   "max-body"};
    struct nearest best = {0};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        nearest_consider(&best, word, names[i]);
    return best.name ? best.name : "";
}

static void test_typos(void **state) {
    (void)state;
    assert_string_equal(nearest_to("serve"), "serve");
    assert_string_equal(nearest_to("srve"), "serve");
    assert_string_equal(nearest_to("sevre"), "serve");
    assert_string_equal(nearest_to("servee"), "serve");
    assert_string_equal(nearest_to("tok"), "tokenize");
    assert_string_equal(nearest_to("clasify"), "classify");
    assert_string_equal(nearest_to("max_body"), "max-body");
    assert_string_equal(nearest_to("dcotor"), "doctor");
    assert_string_equal(nearest_to("train"), "");
    assert_string_equal(nearest_to("x"), "");
    assert_string_equal(nearest_to(""), "");
    char word[200];
    memset(word, 's', sizeof word);
    word[199] = '\0';
    assert_string_equal(nearest_to(word), "");
    word[47] = '\0';
    assert_string_equal(nearest_to(word), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_typos)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
