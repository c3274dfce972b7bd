/* SPDX-License-Identifier: Apache-2.0
 *
 * test_normalise.c - what text becomes when it is compared, and where that came from.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/select/normalise.h"

static void becomes(const char *text, const char *wanted) {
    char out[256];
    struct view view = view_of_string(text);
    size_t n = normalise_text(view, out, NULL, sizeof out - 1);
    out[n] = '\0';
    assert_string_equal(out, wanted);
    assert_true(n <= NORMALISE_GROWTH * view.n_bytes);
}

static void test_texts(void **state) {
    (void)state;
    becomes("", "");
    becomes("Zoloft", "zoloft");
    becomes("  A \t\r\n B  ", "a b");
    becomes("\xC3\x89lavil \xC3\xA0 midi", "elavil a midi");
    becomes("E\xCC\x81lavil", "elavil"); /* a mark of its own */
    becomes("Stra\xC3\x9F"
            "e \xC3\x98l \xC5\x81\xC3\xB3"
            "d\xC5\xBA \xC3\x86",
            "strasse ol lodz ae");
    becomes("\xEF\xBC\xBA\xEF\xBD\x8F", "zo");               /* fullwidth */
    becomes("\xF0\x9D\x97\xAD\xF0\x9D\x97\xBC", "zo");       /* mathematical, bold */
    becomes("\xE2\x93\x8F\xE2\x93\x9E", "zo");               /* circled */
    becomes("zo\xE2\x80\x8Bl\xC2\xADo\xEF\xB8\x8F", "zolo"); /* nothing to be seen */
    becomes("a\xC2\xA0\xE3\x80\x80\xE2\x80\xA8z", "a z");    /* other white space */
    becomes("it\xE2\x80\x99s co\xE2\x80\x91q",
            "it's co-q"); /* signs typed for others */
    becomes("Zoloft\xE2\x84\xA2 x\xC2\xB2", "zoloft\xE2\x84\xA2 x\xC2\xB2");
    becomes("\xD0\x99\xD0\x9E\xD0\x94", "\xD0\xB8\xD0\xBE\xD0\xB4");
    becomes("\xE3\x82\xAC", "\xE3\x82\xAC"); /* the kana ga is not ka */
    becomes("\xED\x95\x9C", "\xED\x95\x9C");
    becomes("\xEF\xB7\xBA", "\xEF\xB7\xBA"); /* would be 18 letters */
    becomes("\xFF z\x80\xE2\x82", "\xEF\xBF\xBD z\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    becomes("\xC4\xB0", "i");
}

static void test_map(void **state) {
    (void)state;
    static const char text[] = " \xC3\x86 \n\xEF\xBC\xBAz";
    char out[32];
    uint32_t map[32];
    size_t n = normalise_text(VIEW(text), out, map, sizeof out);
    assert_int_equal(n, 5);
    assert_memory_equal(out, "ae zz", 5);
    static const uint32_t wanted[] = {1, 1, 3, 5, 8};
    assert_memory_equal(map, wanted, sizeof wanted);
    /* What has no room is cut where a code point ends, with no space behind it. */
    assert_int_equal(normalise_text(VIEW(text), out, map, 1), 0);
    assert_int_equal(normalise_text(VIEW(text), out, map, 3), 2);
    assert_int_equal(normalise_text(VIEW(text), out, map, 4), 4);
}

/* Every code point: stable, within bounds, of one class. */
static void test_all(void **state) {
    (void)state;
    size_t n_words = 0;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        uint8_t text[4];
        size_t n_text = utf8_encode(c, text);
        struct normalised one = normalise_next(text, n_text);
        if (c >= 0xD800 && c < 0xE000)
            continue;
        assert_int_equal(one.n_source, n_text);
        assert_true(one.n_bytes <= NORMALISE_GROWTH * n_text);
        assert_true(one.n_bytes <= NORMALISE_MAX_BYTES);
        assert_int_equal(one.n_bytes == 0, one.class == NORMALISE_DROPPED);
        n_words += one.class == NORMALISE_WORD;
        for (size_t at = 0; at < one.n_bytes;) {
            struct normalised again = normalise_next(one.bytes + at, one.n_bytes - at);
            assert_int_equal(again.class, one.class);
            assert_int_equal(again.n_bytes, again.n_source);
            assert_memory_equal(again.bytes, one.bytes + at, again.n_bytes);
            at += again.n_source;
        }
    }
    assert_true(n_words > 20000);
}

static void test_before(void **state) {
    (void)state;
    assert_int_equal(normalise_class_before(VIEW("ab"), 0), NORMALISE_SPACE);
    assert_int_equal(normalise_class_before(VIEW("ab"), 1), NORMALISE_WORD);
    assert_int_equal(normalise_class_before(VIEW("-b"), 1), NORMALISE_OTHER);
    assert_int_equal(normalise_class_before(VIEW("e\xCC\x81\xE2\x80\x8Dz"), 6),
                     NORMALISE_WORD);
    assert_int_equal(normalise_class_before(VIEW("\xCC\x81z"), 2), NORMALISE_SPACE);
    assert_int_equal(normalise_class_before(VIEW("\xE3\x82\xACz"), 3),
                     NORMALISE_UNSPACED);
    assert_int_equal(normalise_class_before(VIEW("a\x80z"), 2), NORMALISE_OTHER);
    assert_int_equal(normalise_class_before(VIEW("\xC3\xA9\x80z"), 3), NORMALISE_OTHER);
    assert_int_equal(normalise_class_before(VIEW("\xF0\x9D\x97\xADz"), 4),
                     NORMALISE_WORD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts), cmocka_unit_test(test_map),
        cmocka_unit_test(test_all), cmocka_unit_test(test_before)};
    return cmocka_run_group_tests_name("normalise", tests, NULL, NULL);
}
