/* SPDX-License-Identifier: Apache-2.0
 *
 * test_queue_item.c - store/queue_item: there and back, what is refused, subjects and ids.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/queue/queue_item.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const size_t views[] = {
    offsetof(struct store_item, source),  offsetof(struct store_item, key),
    offsetof(struct store_item, author),  offsetof(struct store_item, text),
    offsetof(struct store_item, lang),    offsetof(struct store_item, place),
    offsetof(struct store_item, city),    offsetof(struct store_item, state),
    offsetof(struct store_item, country), offsetof(struct store_item, drugs),
    offsetof(struct store_item, url),     offsetof(struct store_item, fold_key),
    offsetof(struct store_item, body),    offsetof(struct store_item, reason),
    offsetof(struct store_item, stage)};

static struct view *view_at(struct store_item *item, size_t i) {
    return (struct view *)(void *)((char *)item + views[i]);
}

static void assert_same(struct store_item *a, struct store_item *b) {
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->mode, b->mode);
    assert_int_equal(a->fold, b->fold);
    assert_true(a->version == b->version && a->posted_ns == b->posted_ns &&
                a->received_ns == b->received_ns && a->fingerprint == b->fingerprint);
    for (size_t i = 0; i < COUNT(views); i++)
        if (!view_equal(*view_at(a, i), *view_at(b, i)))
            fail_msg("string %zu differs", i);
}

static enum status there_and_back(struct store_item *item, struct store_item *out,
                                  struct arena *arena) {
    struct buffer text = {.max_bytes = 1 << 20};
    struct error err = {0};
    assert_int_equal(queue_item_write(item, &text, NULL), STATUS_OK);
    enum status status = queue_item_read(text.data, text.n_bytes, arena, out, &err);
    if (status != STATUS_OK)
        fail_msg("%s in %s", err.message, text.data);
    buffer_free(&text);
    return status;
}

static struct store_item full_item(void) {
    return (struct store_item){.kind = STORE_POST,
                               .raw_id = 77,
                               .mode = STORE_AGGREGATE,
                               .source = VIEW("bsky"),
                               .key = VIEW("bsky:at://did/1"),
                               .version = INT64_MIN,
                               .author = VIEW("a\0b"),
                               .text = VIEW("\"\\\n\x01 \xE2\x82\xAC \xF0\x9F\x98\x80"),
                               .lang = VIEW("en"),
                               .place = VIEW("Oslo"),
                               .city = VIEW("c"),
                               .state = VIEW("US-CA"),
                               .country = VIEW("US"),
                               .drugs = VIEW("[{\"drug\":\"x\",\"begin\":0}]"),
                               .url = VIEW("https://x/"),
                               .posted_ns = INT64_MAX,
                               .received_ns = -1,
                               .fingerprint = UINT64_MAX,
                               .fold = STORE_QUOTE,
                               .fold_key = VIEW("bsky:2"),
                               .body = VIEW("{\xFF\xFE"),
                               .reason = VIEW("why"),
                               .stage = VIEW("parse")};
}

static void goes_there_and_back(void **state) {
    (void)state;
    struct arena arena = {.max_bytes = 16 << 20};
    struct store_item item = full_item(), back;
    there_and_back(&item, &back, &arena);
    assert_same(&item, &back);
    assert_int_equal(back.raw_id, 0); /* another store's */
    item = (struct store_item){.kind = STORE_DEAD};
    there_and_back(&item, &back, &arena);
    assert_same(&item, &back);
    /* Any bytes in any string, of every length that base64 knows. */
    uint64_t seed = 1;
    for (int i = 0; i < 2000; i++) {
        char bytes[COUNT(views)][24];
        item = (struct store_item){.kind = (enum store_item_kind)(i % 3),
                                   .mode = (enum store_mode)(i / 3 % 3),
                                   .fold = i % 2 ? STORE_REPOST : STORE_NO_FOLD};
        for (size_t k = 0; k < COUNT(views); k++) {
            size_t n = 0;
            for (; n < sizeof bytes[k]; n++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                bytes[k][n] = (char)(seed >> 56 & (i % 5 == 0 ? 0x7F : 0xFF));
            }
            *view_at(&item, k) = view_of(bytes[k], (seed >> 40) % (n + 1));
        }
        if (item.key.n_bytes == 0)
            item.key = VIEW("k");
        item.fold_key = item.fold ? VIEW("f") : (struct view){0};
        item.version = (int64_t)seed;
        item.fingerprint = seed;
        arena_clear(&arena);
        there_and_back(&item, &back, &arena);
        assert_same(&item, &back);
    }
    arena_free(&arena);
}

/* Every character that is no UTF-8, at its borders. */
static void writes_only_utf8_as_text(void **state) {
    (void)state;
    static const char *const good[] = {
        "\xC2\x80",     "\xDF\xBF",     "\xE0\xA0\x80",     "\xED\x9F\xBF",
        "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"};
    static const char *const bad[] = {"\x80",
                                      "\xC1\xBF",
                                      "\xC2",
                                      "\xC2\x41",
                                      "\xE0\x9F\xBF",
                                      "\xED\xA0\x80",
                                      "\xE1\x80",
                                      "\xE1\x80\x41",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xF1\x80\x80",
                                      "\xFF"};
    struct arena arena = {.max_bytes = 1 << 20};
    for (size_t i = 0; i < COUNT(good) + COUNT(bad); i++) {
        bool is_good = i < COUNT(good);
        struct store_item item = {.kind = STORE_DEAD}, back;
        struct buffer text = {.max_bytes = 4096};
        item.body = view_of_string(is_good ? good[i] : bad[i - COUNT(good)]);
        assert_int_equal(queue_item_write(&item, &text, NULL), STATUS_OK);
        assert_int_equal(strstr(text.data, "\"body64\"") == NULL, is_good);
        assert_int_equal(queue_item_read(text.data, text.n_bytes, &arena, &back, NULL),
                         STATUS_OK);
        assert_same(&item, &back);
        buffer_free(&text);
    }
    arena_free(&arena);
}

static void refuses_what_it_cannot_mean(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "1",
        "{}",
        "{\"v\":1}",
        "{\"v\":2,\"kind\":\"post\",\"key\":\"SECRET\"}",
        "{\"v\":\"1\",\"kind\":\"post\",\"key\":\"SECRET\"}",
        "{\"v\":1,\"kind\":\"SECRET\",\"key\":\"SECRET\"}",
        "{\"v\":1,\"kind\":3,\"key\":\"SECRET\"}",
        "{\"v\":1,\"kind\":\"post\"}",
        "{\"v\":1,\"kind\":\"delete\",\"key\":\"\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"mode\":\"\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"fold\":\"\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"fold\":\"repost\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"fold_key\":\"SECRET\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"version\":1.5}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"version\":"
        "99999999999999999999}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"fingerprint\":12}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"fingerprint\":"
        "\"00000000000000G0\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text\":null}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text\":\"a\",\"text64\":\"YQ=="
        "\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text64\":\"\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text64\":\"YQ=\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text64\":\"Y===\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text64\":\"YQ=a\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text64\":\"Y\\u0000==\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"text\":\"\\ud800\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"key\":\"SECRET\"}",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\"} x",
        "{\"v\":1,\"kind\":\"post\",\"key\":\"SECRET\",\"more\":[[[[[1]]]]]}"};
    struct arena arena = {.max_bytes = 1 << 20};
    struct store_item item;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct error err = {0};
        if (queue_item_read(bad[i], strlen(bad[i]), &arena, &item, &err) !=
                STATUS_INVALID ||
            err.status != STATUS_INVALID)
            fail_msg("took %s", bad[i]);
        assert_null(strstr(err.message, "SECRET"));
    }
    char long_key[1000];
    snprintf(long_key, sizeof long_key,
             "{\"v\":1,\"kind\":\"post\",\"key\":\"%0700d\"}", 0);
    assert_int_equal(queue_item_read(long_key, strlen(long_key), &arena, &item, NULL),
                     STATUS_INVALID);
    static const char newer[] = "{\"v\":1,\"kind\":\"post\",\"key\":\"k\",\"mood\":{"
                                "\"a\":[1]},\"text64\":\"YQ==\"}";
    assert_int_equal(queue_item_read(newer, strlen(newer), &arena, &item, NULL),
                     STATUS_OK);
    assert_true(view_equal(item.text, VIEW("a")));
    struct arena none = {.max_bytes = 1};
    assert_int_equal(queue_item_read(newer, strlen(newer), &none, &item, NULL),
                     STATUS_NO_MEMORY);
    struct buffer small = {.max_bytes = 20};
    assert_int_equal(queue_item_write(&item, &small, NULL), STATUS_LIMIT);
    buffer_free(&small);
    arena_free(&none);
    arena_free(&arena);
}

static void names_subjects(void **state) {
    (void)state;
    char subject[QUEUE_ITEM_SUBJECT_BYTES], filters[2][QUEUE_ITEM_SUBJECT_BYTES];
    size_t n = 0;
    struct store_item item = {
        .source = VIEW("x"), .author = VIEW("abc"), .key = VIEW("abc")};
    assert_int_equal(queue_item_subject(&item, "S.posts", subject, NULL), STATUS_OK);
    assert_string_equal(subject, "S.posts.x.ba7816bf8f01cfea414140de5dae2223."
                                 "ba7816bf8f01cfea414140de5dae2223.-");
    item = (struct store_item){.source = VIEW("a.*>\0 "), .fold_key = VIEW("abc")};
    assert_int_equal(queue_item_subject(&item, "S.posts", subject, NULL), STATUS_OK);
    assert_string_equal(
        subject, "S.posts.a=2e=2a=3e=00=20.-.-.ba7816bf8f01cfea414140de5dae2223");
    item = (struct store_item){.source = VIEW("-")};
    assert_int_equal(queue_item_subject(&item, "S.posts", subject, NULL), STATUS_OK);
    assert_string_equal(subject, "S.posts.=2d.-.-.-");
    item = (struct store_item){
        .source = VIEW("a-source-whose-name-is-longer-than-any-name-should-be")};
    assert_int_equal(queue_item_subject(&item, "S.posts", subject, NULL), STATUS_OK);
    assert_int_equal(strlen(subject), strlen("S.posts.=.-.-.-") + 32);
    assert_int_equal(
        queue_item_filters("S.posts", NULL, NULL, "abc", filters, &n, NULL), STATUS_OK);
    assert_int_equal(n, 2);
    assert_string_equal(filters[0], "S.posts.*.*.ba7816bf8f01cfea414140de5dae2223.*");
    assert_string_equal(filters[1], "S.posts.*.*.*.ba7816bf8f01cfea414140de5dae2223");
    assert_int_equal(queue_item_filters("S.posts", "x", "abc", NULL, filters, &n, NULL),
                     STATUS_OK);
    assert_int_equal(n, 1);
    assert_string_equal(filters[0], "S.posts.x.ba7816bf8f01cfea414140de5dae2223.*.*");
}

static void check_id(struct store_item item, const char *expected) {
    struct buffer id = {.max_bytes = 4096};
    assert_int_equal(queue_item_id(&item, &id, NULL), STATUS_OK);
    assert_string_equal(id.data, expected);
    buffer_free(&id);
}

static void names_ids(void **state) {
    (void)state;
    struct store_item item = {.key = VIEW("x:1"), .version = -2};
    check_id(item, "x:1@-2");
    item.kind = STORE_DELETE;
    check_id(item, "delete>x:1@-2");
    item = (struct store_item){
        .key = VIEW("x\r\n:%>\xE2 1"), .fold = STORE_REPOST, .fold_key = VIEW("x:2")};
    check_id(item, "x%0d%0a:%25%3e%e2%201@0>x:2");
    item = (struct store_item){.kind = STORE_DEAD, .body = VIEW("abc")};
    check_id(item, "dead>@0>ba7816bf8f01cfea414140de5dae2223");
}

static void reads_deliveries(void **state) {
    (void)state;
    struct queue_item_delivery d;
    assert_int_equal(
        queue_item_delivery("$JS.ACK.S.c.3.17.18.1700000000000000000.42", &d, NULL),
        STATUS_OK);
    assert_true(d.tries == 3 && d.sequence == 17 && d.n_waiting == 42);
    assert_int_equal(queue_item_delivery(
                         "$JS.ACK.hub.hash.S.c.1.18446744073709551615.1.2.0", &d, NULL),
                     STATUS_OK);
    assert_true(d.tries == 1 && d.sequence == UINT64_MAX && d.n_waiting == 0);
    assert_int_equal(
        queue_item_delivery("$JS.ACK.hub.hash.S.c.1.2.3.4.5.rnd", &d, NULL), STATUS_OK);
    static const char *const bad[] = {"",
                                      "$JS.ACK.",
                                      "$JS.ACK.S.c.1.2.3.4",
                                      "$JS.ACK.S.c.0.2.3.4.5",
                                      "$JS.ACK.S.c.-1.2.3.4.5",
                                      "$JS.ACK.S.c.1x.2.3.4.5",
                                      "$JS.ACK.S.c.1..3.4.5",
                                      "$JS.ACK.S.c.1.2.3.4.5.6",
                                      "$JS.ACK.S.c.4294967297.2.3.4.5",
                                      "_INBOX.S.c.1.2.3.4.5.6.7"};
    for (size_t i = 0; i < COUNT(bad); i++)
        if (queue_item_delivery(bad[i], &d, NULL) != STATUS_INVALID)
            fail_msg("took %s", bad[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(goes_there_and_back),
                                       cmocka_unit_test(writes_only_utf8_as_text),
                                       cmocka_unit_test(refuses_what_it_cannot_mean),
                                       cmocka_unit_test(names_subjects),
                                       cmocka_unit_test(names_ids),
                                       cmocka_unit_test(reads_deliveries)};
    return cmocka_run_group_tests_name("queue_item", tests, NULL, NULL);
}
