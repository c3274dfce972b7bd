/* SPDX-License-Identifier: Apache-2.0
 *
 * test_select.c - which posts are kept, in which form, by mode; reposts, quotes, deletes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/select/fold.h"
#include "client/select/privacy.h"
#include "client/select/select.h"
#include "client/select/watch_list.h"

static struct arena arena = {.max_bytes = 1 << 22};
static struct watch_list *list;
static struct privacy *modes[3];
static struct selection *selections[3];

static int set_up(void **state) {
    (void)state;
    char folder[] = "/tmp/vigil-select-XXXXXX", path[64];
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/key", folder);
    int failed = watch_list_read(VIEW("sertraline: zoloft, -cat\nlithium"), "list",
                                 false, &list, NULL) != STATUS_OK;
    for (int i = 0; i < 3 && !failed; i++) {
        failed =
            privacy_open(path, true, (enum store_mode)i, &modes[i], NULL) != STATUS_OK;
        struct select_options options = {.watch_list = list,
                                         .languages = "en,es",
                                         .detects_language = i == STORE_PSEUDONYMOUS,
                                         .privacy = modes[i],
                                         .source = "test"};
        failed = failed || select_open(&options, &selections[i], NULL) != STATUS_OK;
    }
    unlink(path);
    rmdir(folder);
    return failed ? -1 : 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        select_close(selections[i]);
        privacy_close(modes[i]);
    }
    select_close(NULL);
    watch_list_close(list);
    arena_free(&arena);
    return 0;
}

static struct store_item items[SELECT_MAX_ITEMS];
static enum select_drop drop;

static size_t run(enum store_mode mode, const struct post *post) {
    size_t n = 99;
    assert_int_equal(
        select_post(selections[mode], post, &arena, items, &n, &drop, NULL), STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(items[i].mode, mode);
        assert_string_equal(items[i].source.data, "test");
    }
    return n;
}

static void is(struct view v, const char *wanted) {
    assert_int_equal(v.n_bytes, strlen(wanted));
    if (v.n_bytes)
        assert_memory_equal(v.data, wanted, v.n_bytes);
}

static const struct post example = {
    .action = POST_PUT,
    .native_id = {"did:1/7", 7},
    .version = 3,
    .text = {"  @jane Zoloft, zoloft \xF0\x9F\x98\x82 https://t.co/x lithium\n", 51},
    .author = {"did:1", 5},
    .author_name = {"jim", 3},
    .lang = {"en-US", 5},
    .place = {"@jim in Austin, TX", 18},
    .url = {"https://x.com/jim/7", 19},
    .posted_ns = 1234,
    .id_has_author = true};

static void test_full(void **state) {
    (void)state;
    assert_int_equal(run(STORE_FULL, &example), 1);
    assert_int_equal(drop, SELECT_KEPT);
    assert_int_equal(items[0].kind, STORE_POST);
    is(items[0].key, "test:did:1/7");
    is(items[0].author, "did:1");
    is(items[0].text, "@jane Zoloft, zoloft \xF0\x9F\x98\x82 https://t.co/x lithium");
    is(items[0].url, "https://x.com/jim/7");
    is(items[0].place, "@jim in Austin, TX");
    assert_int_equal(items[0].version, 3);
    assert_int_equal(items[0].posted_ns, 1234);
    assert_int_equal(items[0].fold, STORE_NO_FOLD);
}

static void test_pseudonymous(void **state) {
    (void)state;
    char hash[PRIVACY_HASH_BYTES], key[64];
    assert_int_equal(run(STORE_PSEUDONYMOUS, &example), 1);
    privacy_hash(modes[STORE_PSEUDONYMOUS], "test", VIEW("did:1"), hash);
    is(items[0].author, hash);
    privacy_hash(modes[STORE_PSEUDONYMOUS], "test", VIEW("did:1/7"), hash);
    snprintf(key, sizeof key, "test:~%s", hash);
    is(items[0].key, key);
    is(items[0].text, "@user Zoloft, zoloft \xF0\x9F\x98\x82 http lithium");
    is(items[0].drugs,
       "[{\"drug\":\"sertraline\",\"name\":\"zoloft\",\"begin\":6,\"end\":12},"
       "{\"drug\":\"sertraline\",\"name\":\"zoloft\",\"begin\":14,\"end\":20},"
       "{\"drug\":\"lithium\",\"name\":\"lithium\",\"begin\":28,\"end\":35}]");
    is(items[0].lang, "en-US");
    is(items[0].place, "@user in Austin, TX");
    is(items[0].city, "Austin");
    is(items[0].state, "US-TX");
    is(items[0].country, "US");
    is(items[0].url, "");
    assert_int_equal(items[0].fingerprint, fold_fingerprint(items[0].text));
    struct post post = example;
    post.id_has_author = false;
    assert_int_equal(run(STORE_PSEUDONYMOUS, &post), 1);
    is(items[0].key, "test:did:1/7");
}

static void test_aggregate(void **state) {
    (void)state;
    struct post post = example;
    post.id_has_author = false;
    assert_int_equal(run(STORE_AGGREGATE, &post), 1);
    assert_true(view_starts_with(items[0].key, VIEW("test:~")));
    is(items[0].author, "");
    is(items[0].text, "@user Zoloft, zoloft \xF0\x9F\x98\x82 http lithium");
    is(items[0].place, "");
    is(items[0].city, "");
    is(items[0].state, "US-TX");
    is(items[0].country, "US");
    is(items[0].url, "");
}

static void test_drops(void **state) {
    (void)state;
    static const struct {
        const char *text, *lang;
        enum select_drop drop;
    } rows[] = {
        {"zoloft", "en", SELECT_KEPT},
        {"zoloft", "ES-mx", SELECT_KEPT},
        {"zoloft", "de", SELECT_LANGUAGE},
        {"zoloft", "", SELECT_KEPT}, /* too short to tell */
        {"zoloft", "und", SELECT_KEPT},
        {"Ich nehme Zoloft seit einer Woche und kann nachts nicht mehr schlafen, mir "
         "ist "
         "immer schwindelig",
         "und", SELECT_LANGUAGE},
        {"zolofts", "en", SELECT_NO_DRUG},
        {"my cat ate zoloft", "en", SELECT_NO_DRUG},
        {"see zoloft@example.com or https://x.y/zoloft, @zoloft", "en", SELECT_NO_DRUG},
        {"@catwoman zoloft https://cat/", "en", SELECT_KEPT},
        {"", "en", SELECT_EMPTY},
        {" \n\t\xC2\xA0\xE2\x80\x8B", "en", SELECT_EMPTY},
        {"zoloft\xFF", "en", SELECT_KEPT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct post post = {.native_id = VIEW("1"),
                            .text = view_of_string(rows[i].text),
                            .lang = view_of_string(rows[i].lang)};
        size_t n = run(STORE_PSEUDONYMOUS, &post);
        if (drop != rows[i].drop)
            fail_msg("%s: %s", rows[i].text, select_drop_name(drop));
        assert_int_equal(n, rows[i].drop == SELECT_KEPT);
    }
    is(items[0].text, "zoloft\xEF\xBF\xBD");
    struct post post = {.action = POST_NOTHING, .text = VIEW("zoloft")};
    assert_int_equal(run(STORE_FULL, &post), 0);
    assert_int_equal(drop, SELECT_NOTHING);
    for (int i = 0; i < N_SELECT_DROPS; i++)
        assert_true(strlen(select_drop_name((enum select_drop)i)) > 3);
    assert_string_equal(select_drop_name(SELECT_NO_DRUG), "no_drug");
}

static void test_detected_language(void **state) {
    (void)state;
    struct post post = {.native_id = VIEW("1"),
                        .text =
                            VIEW("I started zoloft last week and now I cannot sleep at "
                                 "night, my head hurts and I feel dizzy all the time"),
                        .lang = VIEW("und")};
    assert_int_equal(run(STORE_PSEUDONYMOUS, &post), 1);
    is(items[0].lang, "en");
    assert_int_equal(run(STORE_AGGREGATE, &post), 1); /* which does not guess */
    is(items[0].lang, "");
}

static void test_deletes(void **state) {
    (void)state;
    struct post post = {.action = POST_DELETE,
                        .native_id = example.native_id,
                        .version = 9,
                        .id_has_author = true};
    assert_int_equal(run(STORE_PSEUDONYMOUS, &example), 1);
    struct view key = items[0].key;
    assert_int_equal(run(STORE_PSEUDONYMOUS, &post), 1);
    assert_int_equal(items[0].kind, STORE_DELETE);
    assert_true(view_equal(items[0].key, key));
    assert_int_equal(items[0].version, 9);
    is(items[0].text, "");
    assert_int_equal(run(STORE_FULL, &post), 1);
    is(items[0].key, "test:did:1/7");
}

static void test_reposts(void **state) {
    (void)state;
    struct post post = example;
    post.relation = POST_REPOST;
    post.original_id = VIEW("did:2/1");
    post.original_version = 5;
    post.original_text = VIEW("lithium is a salt");
    post.original_author = VIEW("did:2");
    post.original_lang = VIEW("es");
    post.original_posted_ns = 77;
    assert_int_equal(run(STORE_FULL, &post), 1);
    is(items[0].key, "test:did:2/1");
    is(items[0].fold_key, "test:did:1/7");
    assert_int_equal(items[0].fold, STORE_REPOST);
    assert_int_equal(items[0].version, 5);
    assert_int_equal(items[0].posted_ns, 77);
    is(items[0].text, "lithium is a salt");
    is(items[0].author, "did:2");
    is(items[0].lang, "es");
    is(items[0].place, "");
    is(items[0].url, "");

    post.original_text = VIEW("salt");
    assert_int_equal(run(STORE_FULL, &post), 0);
    assert_int_equal(drop, SELECT_NO_DRUG);

    post.original_text = VIEW("");
    post.text = VIEW("RT @joe: zoloft and so on");
    assert_int_equal(run(STORE_FULL, &post), 1);
    is(items[0].key, "test:did:2/1");
    is(items[0].text, "zoloft and so on");
    is(items[0].lang, "en-US");
    is(items[0].author, "did:2");
    assert_int_equal(items[0].version, 0);

    post.text = VIEW("");
    assert_int_equal(run(STORE_FULL, &post), 1);
    is(items[0].text, "");
    assert_int_equal(items[0].fold, STORE_REPOST);
    is(items[0].key, "test:did:2/1");

    post = example;
    post.relation = POST_REPOST; /* of nothing that is known */
    assert_int_equal(run(STORE_FULL, &post), 1);
    assert_int_equal(items[0].fold, STORE_NO_FOLD);
}

static void test_quotes(void **state) {
    (void)state;
    struct post post = example;
    post.relation = POST_QUOTE;
    post.original_id = VIEW("did:2/1");
    post.original_text = VIEW("lithium is a salt");
    post.original_version = 5;
    assert_int_equal(run(STORE_FULL, &post), 2);
    is(items[0].key, "test:did:1/7");
    assert_int_equal(items[0].fold, STORE_NO_FOLD);
    is(items[1].key, "test:did:2/1");
    is(items[1].fold_key, "test:did:1/7");
    assert_int_equal(items[1].fold, STORE_QUOTE);
    is(items[1].text, "lithium is a salt");

    post.text = VIEW("this!");
    assert_int_equal(run(STORE_FULL, &post), 1);
    assert_int_equal(items[0].fold, STORE_QUOTE);
    assert_int_equal(drop, SELECT_KEPT);

    post.original_text = VIEW("");
    assert_int_equal(run(STORE_FULL, &post), 1);
    is(items[0].text, "");
    is(items[0].key, "test:did:2/1");
    assert_int_equal(items[0].fingerprint, 0);

    post.original_text = VIEW("salt");
    assert_int_equal(run(STORE_FULL, &post), 0);
    assert_int_equal(drop, SELECT_NO_DRUG);
    post.text = VIEW("zoloft");
    assert_int_equal(run(STORE_FULL, &post), 1);
    assert_int_equal(items[0].fold, STORE_NO_FOLD);
}

static void test_many(void **state) {
    (void)state;
    char text[7 * 100];
    for (size_t i = 0; i < 100; i++)
        memcpy(text + 7 * i, "zoloft ", 7);
    struct post post = {.native_id = VIEW("1"), .text = view_of(text, sizeof text)};
    assert_int_equal(run(STORE_FULL, &post), 1);
    size_t n = 0;
    for (const char *at = items[0].drugs.data; (at = strstr(at, "{\"drug\"")); at++)
        n++;
    assert_int_equal(n, 32);
    /* All posts, without a list; and no memory for one. */
    struct select_options options = {.privacy = modes[STORE_FULL], .source = "test"};
    struct selection *all;
    assert_int_equal(select_open(&options, &all, NULL), STATUS_OK);
    post.text = VIEW("nothing");
    size_t n_items;
    assert_int_equal(select_post(all, &post, &arena, items, &n_items, &drop, NULL),
                     STATUS_OK);
    assert_int_equal(n_items, 1);
    is(items[0].drugs, "[]");
    for (size_t max = 0; max < 400; max += 16) {
        struct arena small = {.max_bytes = max};
        struct post large = example;
        enum status status = select_post(selections[STORE_PSEUDONYMOUS], &large, &small,
                                         items, &n_items, &drop, NULL);
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_int_equal(n_items, 0);
        arena_free(&small);
    }
    select_close(all);
    options.languages = "en;es";
    assert_int_equal(select_open(&options, &all, NULL), STATUS_INVALID);
    assert_null(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_full),
                                       cmocka_unit_test(test_pseudonymous),
                                       cmocka_unit_test(test_aggregate),
                                       cmocka_unit_test(test_drops),
                                       cmocka_unit_test(test_detected_language),
                                       cmocka_unit_test(test_deletes),
                                       cmocka_unit_test(test_reposts),
                                       cmocka_unit_test(test_quotes),
                                       cmocka_unit_test(test_many)};
    return cmocka_run_group_tests_name("select", tests, set_up, tear_down);
}
