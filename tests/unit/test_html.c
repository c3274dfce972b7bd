/* SPDX-License-Identifier: Apache-2.0
 *
 * test_html.c - HTML to text: what Mastodon sends, what nobody should, and how long it takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "client/net/html.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static void check(const char *html, const char *expected) {
    struct arena arena = {.max_bytes = 1 << 20};
    struct view out;
    size_t n = strlen(html);
    char *copy = malloc(n ? n : 1); /* without a NUL behind it */
    memcpy(copy, html, n);
    assert_int_equal(html_to_text(view_of(copy, n), &arena, &out, NULL), STATUS_OK);
    free(copy);
    assert_string_equal(out.data, expected);
    assert_int_equal(out.n_bytes, strlen(expected));
    assert_true(out.n_bytes <= n);
    arena_free(&arena);
}

static void words_stay(void **state) {
    (void)state;
    check("", "");
    check("plain", "plain");
    check("<p>one</p><p>two<br>three<br />four</p>", "one\n\ntwo\nthree\nfour");
    check("  <p> a \n\t b </p>  ", "a b");
    check("<p>a</p>\n\n\n<p></p><p></p><div>b</div>", "a\n\nb");
    check("a<br><br><br><br>b", "a\n\nb");
    check("<ul><li>a</li><li>b</li></ul>c", "a\nb\n\nc");
    check("in<b>si</b>de", "inside");
    check("<P CLASS=\"x\">up</P>", "up");
    check("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
    check("<span class='invisible'>https://</span><span class=\"ellipsis\">a.b/c</span>"
          "<span class=\"invisible\">d</span>",
          "https://a.b/cd");
    check("<p>mine</p><p class=\"quote-inline\">RE: <a href=\"x\">y</a></p><p>more</p>",
          "mine\n\nmore");
    check("<p class=\"h-card\"><a href=\"u\" class=\"u-url "
          "mention\">@<span>ann</span></a></p>",
          "@ann");
}

static void entities_are_read(void **state) {
    (void)state;
    check("&lt;b&gt; &amp;amp; &quot;&apos;&#39;&#x27;&#X27;", "<b> &amp; \"''''");
    check("a&nbsp;b&#160;c&#xa0;d", "a b c d");
    check("&hellip;&eacute;&#233;&#x1F600;",
          "\xe2\x80\xa6\xc3\xa9\xc3\xa9\xf0\x9f\x98\x80");
    check("&#0;&#xD800;&#x110000;&#99999999999999999999;",
          "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    check("&#65 &#x41z", "A Az");
    check("&nosuch; &; &# &#x; &#xg; AT&T &amp", "&nosuch; &; &# &#x; &#xg; AT&T &amp");
    check("&#0", "\xef\xbf\xbd");
    check("&", "&");
}

static void what_is_no_tag_is_text(void **state) {
    (void)state;
    check("1 < 2 > 0 <3 <", "1 < 2 > 0 <3 <");
    check("a <b", "a <b");
    check("a <b c='>' d=\">\">e", "a e");
    check("a<!-- <b> -- > -->b<!---->c", "abc");
    check("a<!-- open <b>b</b>", "a<!-- open <b>b</b>");
    check("<!DOCTYPE html><?xml x?>a", "a");
    check("</>a</ b>", "</>a</ b>");
}

static void nothing_is_run(void **state) {
    (void)state;
    check("a<script>alert('<b>x</b>')</script>b", "ab");
    check("a<SCRIPT src=x>if (a</b) </scriptx>c", "ac");
    check("a<style>p{}</style>b<title>t</title>c", "abc");
    check("a<script>never closed <p>b", "a");
    check("<img src=x onerror=alert(1)>a<a href=\"javascript:x\">b</a>", "ab");
}

/* Twice the text takes about twice as long: each of these would be quadratic for a reader
 * that looks ahead again and again. Loose: it only has to tell 2 from 4. */
static void time_is_linear(void **state) {
    (void)state;
    static const char *const units[] = {
        "<", "<a",  "<!--",        "<script>", "</",
        "&", "&#x", "<p class=\"", "<a '\"",   "<script></scrip",
        " ", "<p>", "<br>",        "&amp",     "<!"};
    const size_t n_bytes = 1 << 20;
    char *html = malloc(n_bytes);
    struct view out;
    for (size_t i = 0; i < N(units); i++) {
        size_t n_unit = strlen(units[i]);
        for (size_t at = 0; at < n_bytes; at++)
            html[at] = units[i][at % n_unit];
        struct arena arena = {.max_bytes = (size_t)8 << 20};
        int64_t begin_ns = clock_now_ns();
        assert_int_equal(html_to_text(view_of(html, n_bytes), &arena, &out, NULL),
                         STATUS_OK);
        /* Quadratic would be minutes; linear is some milliseconds, even with sanitizers. */
        assert_true(clock_now_ns() - begin_ns < 20 * CLOCK_NS_PER_SECOND);
        assert_true(out.n_bytes <= n_bytes);
        arena_free(&arena);
    }
    struct arena none = {.max_bytes = 16};
    assert_int_equal(html_to_text(view_of(html, n_bytes), &none, &out, NULL),
                     STATUS_NO_MEMORY);
    free(html);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_stay),
        cmocka_unit_test(entities_are_read),
        cmocka_unit_test(what_is_no_tag_is_text),
        cmocka_unit_test(nothing_is_run),
        cmocka_unit_test(time_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
