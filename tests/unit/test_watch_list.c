/* SPDX-License-Identifier: Apache-2.0
 *
 * test_watch_list.c - the file of names, and finding them: borders, accents, stop words,
 * offsets, inside of words; every answer against a search that tries all places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/select/normalise.h"
#include "client/select/watch_list.h"

#define LIST                                                                           \
    "# a comment\n"                                                                    \
    "\n"                                                                               \
    "sertraline: Zoloft, zolof, \xC3\x89lan Vital\r\n"                                 \
    "  lithium : lithium carbonate, -battery, -mines # and why\n"                      \
    "levonorgestrel: plan b, plan b one step\n"                                        \
    "co-codamol\n"                                                                     \
    "acetaminophen: tylenol 3, tylenol\n"                                              \
    "potassium: k 0.9%, \xD0\xBA\xD0\xB0\xD0\xBB\xD0\xB8\xD0\xB9, "                    \
    "\xE3\x82\xBE\xE3\x83\xAD\xE3\x83\x95\xE3\x83\x88"

static struct watch_list *open_list(const char *text, bool matches_substrings) {
    struct watch_list *w = NULL;
    struct error err = {0};
    enum status status =
        watch_list_read(view_of_string(text), "list", matches_substrings, &w, &err);
    if (status != STATUS_OK)
        fail_msg("%s", err.message);
    return w;
}

/* What is found, as "name@begin-end ", in code points. */
static const char *found(const struct watch_list *w, struct view text) {
    static char out[512];
    struct watch_match matches[16];
    size_t n = watch_list_find(w, text, matches, 16), at = 0;
    assert_int_equal(watch_list_is_in(w, text), n > 0);
    if (n)
        assert_true(watch_list_may_be_in(w, text));
    out[0] = '\0';
    for (size_t i = 0; i < n && i < 16; i++) {
        const struct watch_drug *drug = watch_list_drug(w, matches[i].drug);
        assert_true(matches[i].name < drug->n_names);
        at += (size_t)snprintf(out + at, sizeof out - at, "%s@%u-%u ",
                               drug->names[matches[i].name], matches[i].begin,
                               matches[i].end);
    }
    return out;
}

static void finds(const struct watch_list *w, const char *text, const char *wanted) {
    assert_string_equal(found(w, view_of_string(text)), wanted);
}

static void test_reads(void **state) {
    (void)state;
    struct watch_list *w = open_list("\xEF\xBB\xBF" LIST, false);
    assert_int_equal(watch_list_n_drugs(w), 6);
    const struct watch_drug *drug = watch_list_drug(w, 0);
    assert_string_equal(drug->drug, "sertraline");
    assert_int_equal(drug->n_names, 4);
    assert_string_equal(drug->names[1], "zoloft");
    assert_string_equal(drug->names[3], "elan vital");
    assert_int_equal(watch_list_drug(w, 1)->n_names, 2);
    assert_int_equal(watch_list_drug(w, 3)->n_names, 1);
    watch_list_close(w);
    watch_list_close(NULL);
}

static void test_refuses(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"", "list: no names in it"},
        {"# nothing\n\n", "list: no names in it"},
        {"a1: b1\nzoloft, prozac\n", "list:2: no ':' behind the generic name"},
        {": zoloft", "list:1: an empty name"},
        {"a1: b1,, c1", "list:1: an empty name"},
        {"a1: b1,", "list:1: an empty name"},
        {"a1: -", "list:1: an empty name"},
        {"a1: \xCC\x81", "list:1: an empty name"},
        {"a1: b", "list:1: a name of one letter"},
        {"a1: \xFFzoloft", "list:1: not UTF-8"},
        {"a1: zo\"loft", "list:1: a name with a quote, a backslash or a control"},
        {"a1: zo\x01loft", "list:1: a name with a quote, a backslash or a control"},
        {"a1: (zoloft)", "list:1: a name begins with a letter or a digit"},
        {"a1: -two words", "list:1: a stop word is one word"},
        {"a1: b1\na2: B1", "list:2: a name that another drug has"},
        {"a1\n\na1", "list:3: a name that another drug has"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct watch_list *w = NULL;
        struct error err = {0};
        assert_int_equal(
            watch_list_read(view_of_string(rows[i].text), "list", false, &w, &err),
            STATUS_INVALID);
        assert_null(w);
        assert_string_equal(err.message, rows[i].message);
    }
    char text[4096];
    struct watch_list *w = NULL;
    memset(text, 'x', sizeof text);
    assert_int_equal(
        watch_list_read(view_of(text, WATCH_MAX_NAME_BYTES), "list", false, &w, NULL),
        STATUS_OK);
    watch_list_close(w);
    assert_int_equal(watch_list_read(view_of(text, WATCH_MAX_NAME_BYTES + 1), "list",
                                     false, &w, NULL),
                     STATUS_INVALID);
    assert_int_equal(
        watch_list_read(view_of(text, sizeof text), "list", false, &w, NULL),
        STATUS_INVALID);
    size_t at = (size_t)snprintf(text, sizeof text, "a1:");
    for (int i = 0; i <= WATCH_MAX_STOPS; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s-w%d", i ? "," : "", i);
    assert_int_equal(watch_list_read(view_of(text, at), "list", false, &w, NULL),
                     STATUS_INVALID);
    assert_int_equal(watch_list_open("/nowhere/list", false, &w, NULL),
                     STATUS_NOT_FOUND);
}

static void test_borders(void **state) {
    (void)state;
    struct watch_list *w = open_list(LIST, false);
    finds(w, "Started Zoloft last week", "zoloft@8-14 ");
    finds(w, "zoloft", "zoloft@0-6 ");
    finds(w, "#ZOLOFT, zoloft's (zolof) zoloft-induced",
          "zoloft@1-7 zoloft@9-15 zolof@19-24 zoloft@26-32 ");
    finds(w, "zolofts xzoloft zoloft2 2zoloft zol oft", "");
    finds(w, "", "");
    finds(w, "zolo", "");
    finds(w, "_zoloft_", "zoloft@1-7 ");
    /* The longest, and from left to right. */
    finds(w, "plan b plan B  one\n step plan bee", "plan b@0-6 plan b one step@7-24 ");
    finds(w, "tylenol 3 tylenol 4 tylenol 30",
          "tylenol 3@0-9 tylenol@10-17 tylenol@20-27 ");
    finds(w, "co-codamol cocodamol co codamol", "co-codamol@0-10 ");
    finds(w, "k 0.9%x", "k 0.9%@0-6 ");
    watch_list_close(w);
}

static void test_unicode(void **state) {
    (void)state;
    struct watch_list *w = open_list(LIST, false);
    finds(w,
          "\xC3\xA9lan vital \xC3\x89LAN\xC2\xA0VITAL elan vital e\xCC\x81lan  vital",
          "elan vital@0-10 elan vital@11-21 elan vital@22-32 elan vital@33-45 ");
    finds(w, "\xC3\xA9zoloft zoloft\xC3\xA9 zoloft\xCC\x81s", "");
    finds(w,
          "zoloft\xE2\x80\x99s "
          "\xE2\x80\x9Czoloft\xE2\x80\x9D\xF0\x9F\x98\x82zoloft\xE2\x84\xA2",
          "zoloft@0-6 zoloft@10-16 zoloft@18-24 ");
    finds(w,
          "\xF0\x9D\x97\xAD\xF0\x9D\x97\xBC\xF0\x9D\x97\xB9\xF0\x9D\x97\xBC\xF0\x9D"
          "\x97\xB3\xF0\x9D\x98\x81 \xEF\xBC\xBAoloft",
          "zoloft@0-6 zoloft@7-13 ");
    finds(w, "zo\xE2\x80\x8Bloft \xE2\x80\x8Bzoloft", "zoloft@0-7 zoloft@9-15 ");
    finds(w,
          "\xD0\x9F\xD1\x80\xD0\xB8 \xD0\x9A\xD0\xB0\xD0\xBB\xD0\xB8\xD0\xB9 \xD0\xBA"
          "\xD0\xB0\xD0\xBB\xD0\xB8\xD0\xB9\xD0\xBD\xD1\x8B\xD0\xB9",
          "\xD0\xBA\xD0\xB0\xD0\xBB\xD0\xB8\xD0\xB8@4-9 ");
    /* Scripts without spaces: zoloft o nomu */
    finds(w,
          "\xE5\x83\x95\xE3\x81\xAF\xE3\x82\xBE\xE3\x83\xAD\xE3\x83\x95\xE3\x83\x88"
          "\xE3\x82\x92\xE9\xA3\xB2zoloft\xE3\x82\x80",
          "\xE3\x82\xBE\xE3\x83\xAD\xE3\x83\x95\xE3\x83\x88@2-6 zoloft@8-14 ");
    /* Bytes of no valid sequence: a border, one code point each. */
    finds(w, "\xFFzoloft\x80\xE2\x82 zol\x80oft", "zoloft@1-7 ");
    assert_string_equal(found(w, VIEW("a\0zoloft\0b")), "zoloft@2-8 ");
    watch_list_close(w);
}

static void test_stops(void **state) {
    (void)state;
    struct watch_list *w = open_list(LIST, false);
    finds(w, "started lithium today", "lithium@8-15 ");
    finds(w, "my lithium BATTERY died", "");
    finds(w, "battery one two three four lithium", "");
    finds(w, "battery one two three four five lithium", "lithium@32-39 ");
    finds(w, "lithium one two three four b\xC3\xA1ttery", "");
    finds(w, "lithium one two three four five battery", "lithium@0-7 ");
    finds(w, "batteryx lithium carbonate", "lithium carbonate@9-26 ");
    finds(w, "the \xE2\x80\x9Cmines\xE2\x80\x9D: lithium and zoloft", "zoloft@25-31 ");
    assert_true(watch_list_may_be_in(w, VIEW("lithium battery")));
    char text[4096];
    memset(text, 'y', sizeof text);
    memcpy(text, "battery ", 8);
    memcpy(text + sizeof text - 8, " lithium",
           8); /* a word that is too long to see over */
    assert_int_equal(watch_list_is_in(w, view_of(text, sizeof text)), true);
    watch_list_close(w);
}

static void test_anywhere(void **state) {
    (void)state;
    struct watch_list *w = open_list(LIST, true);
    finds(w, "xZoloftx", "zoloft@1-7 ");
    finds(w, "zolofzoloft", "zolof@0-5 zoloft@5-11 ");
    finds(w, "plan b one plan  b one step", "plan b@0-6 plan b one step@11-27 ");
    finds(w, "pl\xC3\xA1n bplan b", "plan b@0-6 plan b@6-12 ");
    finds(w, "zoloftlithium carbonates", "zoloft@0-6 lithium carbonate@6-23 ");
    watch_list_close(w);
    w = open_list("abcd\nbc\nbcdef\ncdx\nxyz\nyzab", true);
    finds(w, "abcdef", "abcd@0-4 ");
    finds(w, "bcdex", "bc@0-2 ");
    finds(w, "abcxyz", "bc@1-3 xyz@3-6 ");
    finds(w, "xbcdefcdx", "bcdef@1-6 cdx@6-9 ");
    finds(w, "xyzabcdef", "xyz@0-3 abcd@3-7 ");
    watch_list_close(w);
    /* Within what one code point becomes nothing begins and nothing ends. */
    w = open_list("ea\nxa\naex", true);
    finds(w, "\xC3\xA6 x\xC3\xA6 e\xC3\xA6 \xC3\xA6x", "aex@8-10 ");
    watch_list_close(w);
}

static void test_counts(void **state) {
    (void)state;
    struct watch_list *w = open_list(LIST, false);
    struct watch_match matches[2];
    struct view text = VIEW("\xF0\x9F\x98\x82 zoloft zolof zoloft");
    matches[1].drug = 77;
    assert_int_equal(watch_list_find(w, text, matches, 1), 3);
    assert_int_equal(matches[1].drug, 77);
    assert_int_equal(matches[0].begin, 2);
    assert_int_equal(matches[0].begin_byte, 5);
    assert_int_equal(matches[0].end_byte, 11);
    assert_int_equal(watch_list_find(w, text, NULL, 0), 3);
    watch_list_close(w);
}

/* ---- A search that tries all places ---- */

static uint32_t random_state = 12345;
static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

/* The longest name at a place, tried one by one over the normalised text. */
static size_t slow_find(const struct watch_list *w, struct view text, bool is_anywhere,
                        struct watch_match *out, size_t cap) {
    static char plain[4096];
    static uint32_t map[4096];
    size_t n = normalise_text(text, plain, map, sizeof plain), n_found = 0;
    for (size_t at = 0; at < n;) {
        size_t n_best = 0;
        for (uint32_t d = 0; d < watch_list_n_drugs(w); d++)
            for (uint32_t i = 0; i < watch_list_drug(w, d)->n_names; i++) {
                const char *name = watch_list_drug(w, d)->names[i];
                size_t n_name = strlen(name), end = at + n_name;
                if (n_name <= n_best || end > n ||
                    memcmp(plain + at, name, n_name) != 0)
                    continue;
                if ((at > 0 && map[at - 1] == map[at]) ||
                    (end < n && map[end - 1] == map[end]))
                    continue;
                struct view whole = view_of(plain, n);
                const uint8_t *p = (const uint8_t *)plain;
                enum normalise_class after =
                    end < n ? normalise_next(p + end, n - end).class : NORMALISE_SPACE;
                if (!is_anywhere &&
                    (!normalise_is_border(normalise_class_before(whole, at),
                                          normalise_next(p + at, n - at).class) ||
                     !normalise_is_border(normalise_class_before(whole, end), after)))
                    continue;
                n_best = n_name;
                if (n_found < cap)
                    out[n_found] = (struct watch_match){
                        .drug = d, .name = i, .begin_byte = map[at]};
            }
        n_found += n_best > 0;
        at += n_best ? n_best : 1;
    }
    return n_found;
}

static void test_against_slow(void **state) {
    (void)state;
    static const char *const pieces[] = {"zoloft",
                                         "ZOLO",
                                         "ft",
                                         " ",
                                         "  ",
                                         "\n",
                                         "plan",
                                         "b",
                                         "one step",
                                         "-",
                                         "\xC3\xA9",
                                         "\xC3\xA6",
                                         "\xE3\x82\xBE",
                                         "x",
                                         "7",
                                         "\xE2\x80\x8B",
                                         "\xCC\x81",
                                         "'",
                                         "\xF0\x9F\x98\x82",
                                         "sertraline",
                                         "a",
                                         "e",
                                         "ibuprofen",
                                         "\xEF\xAC\x81",
                                         "\xD0\xB0",
                                         ".",
                                         "\xC2\xA0"};
    static const char list[] = "sertraline: zoloft, zolo, ft\n"
                               "plan b: plan b one step, b one, b b\n"
                               "ibuprofen: ib, uprofen, ibuprofen plan b\n"
                               "\xC3\xA9"
                               "e: ae, aex, x7, a b, e zoloft\n"
                               "fi x: \xE3\x82\xBE, \xD0\xB0\xD0\xB0, x-x, fi";
    size_t n_all = 0;
    for (int anywhere = 0; anywhere < 2; anywhere++) {
        struct watch_list *w = open_list(list, anywhere);
        for (int round = 0; round < 20000; round++) {
            char text[1024];
            size_t n = 0, n_pieces = draw(30);
            for (size_t i = 0; i < n_pieces; i++) {
                const char *piece = pieces[draw(sizeof pieces / sizeof pieces[0])];
                memcpy(text + n, piece, strlen(piece));
                n += strlen(piece);
            }
            struct watch_match fast[64], slow[64];
            size_t n_fast = watch_list_find(w, view_of(text, n), fast, 64);
            size_t n_slow = slow_find(w, view_of(text, n), anywhere, slow, 64);
            assert_int_equal(n_fast, n_slow);
            for (size_t i = 0; i < n_fast && i < 64; i++) {
                assert_int_equal(fast[i].drug, slow[i].drug);
                assert_int_equal(fast[i].name, slow[i].name);
                assert_int_equal(fast[i].begin_byte, slow[i].begin_byte);
            }
            n_all += n_fast;
        }
        watch_list_close(w);
    }
    assert_true(n_all > 20000);
}

/* Words at every place around the borders of the blocks of 64 bytes. */
static void test_blocks(void **state) {
    (void)state;
    struct watch_list *w = open_list(LIST, false);
    for (size_t before = 0; before < 200; before++)
        for (size_t after = 0; after < 9; after++) {
            char text[256];
            memset(text, '.', sizeof text);
            memcpy(text + before, "co-codamol", 10);
            memset(text + before + 10, ' ', after);
            struct watch_match match;
            assert_int_equal(
                watch_list_find(w, view_of(text, before + 10 + after), &match, 1), 1);
            assert_int_equal(match.begin_byte, before);
            assert_int_equal(match.end, before + 10);
            if (before >= 3) {
                memcpy(text + before - 3, "\xE2\x80\x9C", 3);
                assert_true(watch_list_is_in(w, view_of(text, before + 10 + after)));
            }
            if (before) {
                text[before - 1] = 'x';
                assert_false(watch_list_is_in(w, view_of(text, before + 10 + after)));
            }
        }
    watch_list_close(w);
}

static void test_default(void **state) {
    (void)state;
    struct watch_list *w = NULL;
    struct error err = {0};
    if (watch_list_open(NULL, false, &w, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_true(watch_list_n_drugs(w) >= 150);
    finds(w, "Day 3 on zolfot and ibuprophen", "zolfot@9-15 ibuprophen@20-30 ");
    finds(w, "lithium-ion batteries are on fire", "");
    finds(w, "my plan b, a sonata by the silver sea, brilliant and natural", "");
    watch_list_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),   cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_borders), cmocka_unit_test(test_unicode),
        cmocka_unit_test(test_stops),   cmocka_unit_test(test_anywhere),
        cmocka_unit_test(test_counts),  cmocka_unit_test(test_against_slow),
        cmocka_unit_test(test_blocks),  cmocka_unit_test(test_default)};
    return cmocka_run_group_tests_name("watch_list", tests, NULL, NULL);
}
