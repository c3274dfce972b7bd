/* SPDX-License-Identifier: Apache-2.0
 *
 * test_privacy.c - the key file, hashes by mode, and what of a text is masked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "client/select/privacy.h"

static char folder[] = "/tmp/vigil-privacy-XXXXXX";
static struct arena arena = {.max_bytes = 1 << 20};

static int set_up(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    arena_free(&arena);
    return rmdir(folder);
}

static const char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

#define KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static void write_file(const char *path, const char *text, mode_t mode) {
    assert_int_equal(file_replace(path, text, strlen(text), NULL), STATUS_OK);
    assert_int_equal(chmod(path, mode), 0);
}

static struct privacy *open_mode(enum store_mode mode) {
    struct privacy *p = NULL;
    const char *path = path_of("known");
    write_file(path, KEY "\n", 0600);
    assert_int_equal(privacy_open(path, false, mode, &p, NULL), STATUS_OK);
    assert_int_equal(privacy_mode(p), mode);
    unlink(path);
    return p;
}

static void test_key_file(void **state) {
    (void)state;
    struct privacy *p = NULL, *again = NULL;
    struct stat about;
    char path[256], first[PRIVACY_HASH_BYTES], second[PRIVACY_HASH_BYTES];
    snprintf(path, sizeof path, "%s/a/b/store.key", folder);
    assert_int_equal(privacy_open(path, false, STORE_PSEUDONYMOUS, &p, NULL),
                     STATUS_NOT_FOUND);
    assert_null(p);
    assert_int_equal(privacy_open(path, true, STORE_PSEUDONYMOUS, &p, NULL), STATUS_OK);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    assert_int_equal(about.st_size, 65);
    assert_int_equal(privacy_open(path, true, STORE_PSEUDONYMOUS, &again, NULL),
                     STATUS_OK);
    assert_int_equal(privacy_hash(p, "x", VIEW("1"), first), STATUS_OK);
    assert_int_equal(privacy_hash(again, "x", VIEW("1"), second), STATUS_OK);
    assert_string_equal(first, second);
    privacy_close(p);
    privacy_close(again);
    privacy_close(NULL);
    unlink(path);
    /* Another file is another key. */
    assert_int_equal(privacy_open(path, true, STORE_PSEUDONYMOUS, &p, NULL), STATUS_OK);
    assert_int_equal(privacy_hash(p, "x", VIEW("1"), second), STATUS_OK);
    assert_string_not_equal(first, second);
    privacy_close(p);
    unlink(path);
    snprintf(path, sizeof path, "%s/a/b", folder);
    rmdir(path);
    rmdir(path_of("a"));
}

static void test_bad_key_files(void **state) {
    (void)state;
    static const struct {
        const char *text;
        mode_t mode;
    } rows[] = {{KEY "\n", 0640}, {KEY, 0604},       {"", 0600},
                {"\n", 0600},     {KEY "0\n", 0600}, {"x" KEY, 0600}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct privacy *p = NULL;
        const char *path = path_of("bad");
        struct error err = {0};
        write_file(path, rows[i].text, rows[i].mode);
        assert_int_equal(privacy_open(path, true, STORE_FULL, &p, &err),
                         STATUS_INVALID);
        assert_non_null(strstr(err.message, path));
        assert_null(strstr(err.message, "0001"));
        assert_null(p);
        unlink(path);
    }
    struct privacy *p = NULL;
    assert_int_equal(privacy_open(folder, true, STORE_FULL, &p, NULL), STATUS_INVALID);
}

static void test_key_path(void **state) {
    (void)state;
    char path[64];
    assert_int_equal(privacy_key_path("vigil.db", path, sizeof path, NULL), STATUS_OK);
    assert_string_equal(path, "vigil.db.key");
    assert_int_equal(privacy_key_path("sqlite:/a/b", path, sizeof path, NULL),
                     STATUS_OK);
    assert_string_equal(path, "/a/b.key");
    setenv("XDG_CONFIG_HOME", "/config", 1);
    assert_int_equal(privacy_key_path("postgres://h/d", path, sizeof path, NULL),
                     STATUS_OK);
    assert_string_equal(path, "/config/vigil/store.key");
    unsetenv("XDG_CONFIG_HOME");
    setenv("HOME", "/home/me", 1);
    assert_int_equal(privacy_key_path("postgresql://h/d", path, sizeof path, NULL),
                     STATUS_OK);
    assert_string_equal(path, "/home/me/.config/vigil/store.key");
    unsetenv("HOME");
    assert_int_equal(privacy_key_path("postgres://h/d", path, sizeof path, NULL),
                     STATUS_NOT_FOUND);
    assert_int_equal(privacy_key_path("vigil.db", path, 12, NULL), STATUS_LIMIT);
}

static void test_modes(void **state) {
    (void)state;
    static const struct {
        enum store_mode mode;
        const char *author, *key, *key_with_author;
    } rows[] = {
        {STORE_FULL, "did:plc:1", "bsky:at://1", "bsky:at://1"},
        /* HMAC under the key above of "bsky" NUL and the id, from Python's hmac */
        {STORE_PSEUDONYMOUS, "961d43d1ccd04fd735e69a15537d5699", "bsky:at://1",
         "bsky:~e1fa5c8202eb0cffba09192007c3a8f8"},
        {STORE_AGGREGATE, "", "bsky:~e1fa5c8202eb0cffba09192007c3a8f8",
         "bsky:~e1fa5c8202eb0cffba09192007c3a8f8"}};
    for (size_t i = 0; i < 3; i++) {
        struct privacy *p = open_mode(rows[i].mode);
        struct view out;
        assert_int_equal(
            privacy_author(p, "bsky", VIEW("did:plc:1"), &arena, &out, NULL),
            STATUS_OK);
        assert_int_equal(out.n_bytes, strlen(rows[i].author));
        if (out.n_bytes)
            assert_string_equal(out.data, rows[i].author);
        assert_int_equal(privacy_author(p, "bsky", VIEW(""), &arena, &out, NULL),
                         STATUS_OK);
        assert_int_equal(out.n_bytes, 0);
        assert_int_equal(
            privacy_key(p, "bsky", VIEW("at://1"), false, &arena, &out, NULL),
            STATUS_OK);
        assert_string_equal(out.data, rows[i].key);
        assert_int_equal(
            privacy_key(p, "bsky", VIEW("at://1"), true, &arena, &out, NULL),
            STATUS_OK);
        assert_string_equal(out.data, rows[i].key_with_author);
        privacy_close(p);
    }
    /* The source is hashed too, and cannot flow into the id. */
    struct privacy *p = open_mode(STORE_PSEUDONYMOUS);
    char a[PRIVACY_HASH_BYTES], b[PRIVACY_HASH_BYTES];
    assert_int_equal(privacy_hash(p, "ab", VIEW("c"), a), STATUS_OK);
    assert_int_equal(privacy_hash(p, "a", VIEW("bc"), b), STATUS_OK);
    assert_string_not_equal(a, b);
    privacy_close(p);
}

static void masks(struct privacy *p, const char *text, const char *wanted) {
    struct view out;
    assert_int_equal(privacy_mask(p, view_of_string(text), &arena, &out, NULL),
                     STATUS_OK);
    assert_string_equal(out.data, wanted);
    assert_int_equal(out.n_bytes, strlen(wanted));
    arena_clear(&arena);
}

static const struct {
    const char *text, *wanted;
} rows[] = {
    {"", ""},
    {"nothing to hide", "nothing to hide"},
    /* Handles */
    {"@jane hi", "@user hi"},
    {".@Jane_99: hi", ".@user: hi"},
    {"(@jane)@joe", "(@user)@user"},
    {"@alice.bsky.social said", "@user said"},
    {"thanks @doc.Zoloft helps", "thanks @user.Zoloft helps"},
    {"@jane@mastodon.social.", "@user."},
    {"ask @jane-doe@xn--abc.example now", "ask @user now"},
    {"me@home cc@jane", "me@user cc@user"},
    {"\xEF\xBC\xA0jane hi", "@user hi"},
    {"@ 5pm, @!, a @", "@ 5pm, @!, a @"},
    {"did:plc:z72i7hdynmk6r22z27h6tvur ok", "@user ok"},
    {"(did:web:example.com.)", "(@user.)"},
    {"I did: it", "I did: it"},
    {"candid:plc:abc", "candid:plc:abc"},
    /* Links */
    {"see https://t.co/AbC123.", "see http."},
    {"see HTTP://EXAMPLE.COM/a_(b)?c=d#e, ok", "see http, ok"},
    {"rash.https://t.co/x y", "rash.http y"},
    {"ftp://a.b/c at://did:plc:1/app.bsky/3k", "http http"},
    {"https://m.social/@jane/123", "http"},
    {"<a href=\"https://x.y/z\">", "<a href=\"http\">"},
    {"www.example.xx/q=1 WWW.A.B", "http http"},
    {"read webmd.com today", "read http today"},
    {"read webmd.com/drugs/zoloft?x=y.", "read http."},
    {"at drugs.com: or example.org:8080/x", "at http: or http"},
    {"bit.ly/2abc t.co/xyz youtu.be/x", "http http http"},
    {"it hurts.it was bad. so.no more.me", "it hurts.it was bad. so.no more.me"},
    {"e.g. 0.25 v1.2 a..b ...com", "e.g. 0.25 v1.2 a..b ...com"},
    {"http:// nothing, https://", "http:// nothing, https://"},
    {"https://t.co/abc\xE3\x81\xA7\xE3\x81\x99", "http\xE3\x81\xA7\xE3\x81\x99"},
    {"https://t.co/abc\xF0\x9F\x98\x82", "http\xF0\x9F\x98\x82"},
    {"https://de.wikipedia.org/wiki/\xC3\x9C"
     "bel",
     "http"},
    {"@jane://t.co/x", "@userhttp"},
    /* Mail */
    {"jane.doe+x@mail.example.com!", "<mail>!"},
    {"mailto:jane@example.com", "mailto:<mail>"},
    {"...j\xC3\xBCrgen@b\xC3\xBC"
     "cher.example",
     "...<mail>"},
    {"555-234-4567@example.com", "<mail>"},
    {"jane@example.com@joe", "<mail>@user"},
    /* Phones */
    {"call 555-234-4567 now", "call <phone> now"},
    {"(555) 234-4567", "<phone>"},
    {"call (555-234-4567", "call (<phone>"},
    {"1-800-555-1234, 1 (800) 555 1234", "<phone>, <phone>"},
    {"+1 555.234.4567", "<phone>"},
    {"5552344567 15552344567", "<phone> <phone>"},
    {"+44 20 7946 0958 or 0044 20 7946 0958", "<phone> or <phone>"},
    {"(+49) 151 2345678", "(<phone>"},
    {"020 7946 0958, 06 12 34 56 78, 0151-2345678", "<phone>, <phone>, <phone>"},
    {"call 555-1234", "call <phone>"},
    {"tel:+15552344567.", "tel:<phone>."},
    {"555\xC2\xA0"
     "234\xE2\x80\x91"
     "4567",
     "<phone>"},
    {"5552344567x12", "5552344567x12"},
    /* Doses, dates, counts */
    {"50 mg, 0.25-0.5 mg, 2x25", "50 mg, 0.25-0.5 mg, 2x25"},
    {"took 500-1000 mg or 150-300", "took 500-1000 mg or 150-300"},
    {"2500-1000", "2500-1000"},
    {"on 01.02.2020 12 and 2020-01-02 10:30", "on 01.02.2020 12 and 2020-01-02 10:30"},
    {"1/2/2020 - 12/31/2021, 2019-2020", "1/2/2020 - 12/31/2021, 2019-2020"},
    {"10 20 30 40 50", "10 20 30 40 50"},
    {"300 400 1000 mg", "300 400 1000 mg"},
    {"+50 mg, +5", "+50 mg, +5"},
    {"1,000,000 and 3.14159", "1,000,000 and 3.14159"},
    {"Zoloft 100mg@night", "Zoloft 100mg@user"},
    /* Not UTF-8 */
    {"a\xFFz \xC3", "a\xEF\xBF\xBDz \xEF\xBF\xBD"},
    {"\xED\xA0\x80@jane", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD@user"},
};

static void test_masks(void **state) {
    (void)state;
    struct privacy *p = open_mode(STORE_PSEUDONYMOUS);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        masks(p, rows[i].text, rows[i].wanted);
    struct view out;
    assert_int_equal(privacy_mask(p, VIEW("a\0@b"), &arena, &out, NULL), STATUS_OK);
    assert_string_equal(out.data, "a\xEF\xBF\xBD@user");
    privacy_close(p);
}

static void test_full(void **state) {
    (void)state;
    struct privacy *p = open_mode(STORE_FULL);
    masks(p, "@jane a@b.com https://t.co 555-234-4567",
          "@jane a@b.com https://t.co 555-234-4567");
    masks(p, "a\xFF\xC3\xA9", "a\xEF\xBF\xBD\xC3\xA9");
    privacy_close(p);
    p = open_mode(STORE_AGGREGATE);
    masks(p, "@jane", "@user");
    privacy_close(p);
}

/* Long texts of what could make a pass look at the same bytes again and again; with a test
 * that would take minutes if one did. */
static void test_linear(void **state) {
    (void)state;
    static const char *const parts[] = {
        "a.",     "a@",     "5",  "5-",  "555-234-4567.", "@a.",      "://",
        "did:a:", "a@b.",   "..", "(5",  "+5 ",           "\xCC\x81", "\xC3\xA9",
        "www.",   "1 800 ", "a:", "\xFF"};
    struct privacy *p = open_mode(STORE_PSEUDONYMOUS);
    size_t n = 1 << 20;
    char *text = malloc(n);
    assert_non_null(text);
    struct arena large = {.max_bytes = (size_t)64 << 20};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t n_part = strlen(parts[i]);
        for (size_t at = 0; at < n; at++)
            text[at] = parts[i][at % n_part];
        struct view out;
        assert_int_equal(privacy_mask(p, view_of(text, n), &large, &out, NULL),
                         STATUS_OK);
        arena_clear(&large);
    }
    struct arena small = {.max_bytes = 1 << 16};
    struct view out;
    memset(text, '@', n);
    text[n - 1] = 'a';
    assert_int_equal(privacy_mask(p, view_of(text, n), &small, &out, NULL),
                     STATUS_NO_MEMORY);
    arena_free(&small);
    arena_free(&large);
    free(text);
    privacy_close(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_file), cmocka_unit_test(test_bad_key_files),
        cmocka_unit_test(test_key_path), cmocka_unit_test(test_modes),
        cmocka_unit_test(test_masks),    cmocka_unit_test(test_full),
        cmocka_unit_test(test_linear)};
    return cmocka_run_group_tests_name("privacy", tests, set_up, tear_down);
}
