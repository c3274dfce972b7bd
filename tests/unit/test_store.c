/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store.c - what comes in: raw lines, posts and their versions, folds, deletes, in any
 * order and more than once.
 */
#include <signal.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "tests/unit/store_fixture.h"

static void test_post(void **state) {
    struct fixture *f = *state;
    struct store_item item = an_item("file:1", 1, "my Drugex gave me a rash");
    item.place = VIEW("Fresno");
    item.city = VIEW("Fresno");
    item.url = VIEW("http://example.org/1");
    struct store_taken taken = take_one(f, item);
    assert_int_equal(taken.n_posts, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    assert_true(is_text(f, "SELECT text FROM posts", "my Drugex gave me a rash"));
    assert_true(
        is_text(f,
                "SELECT source || '|' || author || '|' || lang || '|' || place || "
                "'|' || city || '|' || state || '|' || country || '|' || url "
                "FROM posts",
                "file|author-hash|en|Fresno|Fresno|US-CA|US|"
                "http://example.org/1"));
    assert_int_equal(number(f, "SELECT fingerprint FROM posts"),
                     (int64_t)UINT64_C(0xfedcba9876543210));
    assert_int_equal(number(f, "SELECT posted_ns FROM posts"), NOON_NS);
    assert_int_equal(number(f, "SELECT count(*) FROM queue WHERE version = 1 AND "
                               "model = '' AND tries = 0"),
                     1);
    taken = take_one(f, item);
    assert_int_equal(taken.n_posts, 0);
    assert_int_equal(taken.n_again, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 1);
}

static void test_versions(void **state) {
    struct fixture *f = *state;
    take_one(f, an_item("file:1", 2, "second"));
    assert_int_equal(settle_all(f), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM mentions"), 1);
    /* An older one changes nothing, a newer one all. */
    assert_int_equal(take_one(f, an_item("file:1", 1, "first")).n_again, 1);
    assert_true(is_text(f, "SELECT text FROM posts", "second"));
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    assert_int_equal(take_one(f, an_item("file:1", 3, "third")).n_newer, 1);
    assert_true(is_text(f, "SELECT text FROM posts", "third"));
    assert_int_equal(number(f, "SELECT count(*) FROM mentions"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results WHERE version = 2"), 1);
    assert_int_equal(number(f, "SELECT version FROM queue"), 3);
    assert_int_equal(settle_all(f), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 2);
    assert_int_equal(number(f, "SELECT version FROM results_latest"), 3);
}

/* A batch says the same post in three versions, out of order. */
static void test_versions_in_a_batch(void **state) {
    struct fixture *f = *state;
    const struct store_item items[] = {
        an_item("file:1", 2, "b"), an_item("file:2", 1, "x"), an_item("file:1", 3, "c"),
        an_item("file:1", 1, "a"), an_item("file:2", 1, "x")};
    struct store_taken taken = take(f, items, 5);
    assert_int_equal(taken.n_posts, 2);
    assert_int_equal(taken.n_newer, 1);
    assert_int_equal(taken.n_again, 2);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 2);
    assert_int_equal(number(f, "SELECT max(version) FROM queue"), 3);
    assert_true(is_text(f, "SELECT text FROM posts WHERE key = 'file:1'", "c"));
}

static void test_delete(void **state) {
    struct fixture *f = *state;
    take_one(f, an_item("file:1", 1, "gone"));
    take_one(f, an_item("file:2", 1, "stays"));
    settle_all(f);
    fixture_run(f->store,
                "INSERT INTO reviews (post_id, version, model_sha256, created_ns, "
                "reviewer, decision, reason) SELECT post_id, version, model_sha256, 1, "
                "'r', 'confirmed', 'words of gone' FROM results");
    take_one(f, an_item("file:1", 2, "gone, newer"));
    assert_int_equal(take_one(f, a_delete("file:1")).n_deleted, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM mentions"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM reviews"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    /* Never again. */
    assert_int_equal(take_one(f, an_item("file:1", 9, "back")).n_refused, 1);
    assert_int_equal(take_one(f, a_delete("file:1")).n_again, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
}

static void test_delete_overtakes(void **state) {
    struct fixture *f = *state;
    assert_int_equal(take_one(f, a_delete("file:1")).n_deleted, 1);
    assert_int_equal(take_one(f, an_item("file:1", 1, "late")).n_refused, 1);
    const struct store_item batch[] = {an_item("file:2", 1, "a"), a_delete("file:2"),
                                       an_item("file:2", 2, "b")};
    struct store_taken taken = take(f, batch, 3);
    assert_int_equal(taken.n_posts, 1);
    assert_int_equal(taken.n_deleted, 1);
    assert_int_equal(taken.n_refused, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
}

#define COUNTS_OF_1                                                                    \
    "SELECT n_reposts * 100 + n_quotes * 10 + n_duplicates FROM posts "                \
    "WHERE key = 'file:1'"

static void test_folds(void **state) {
    struct fixture *f = *state;
    /* A repost brings the original in. */
    struct store_taken taken =
        take_one(f, a_fold(STORE_REPOST, "file:r1", "file:1", 1, "the original"));
    assert_int_equal(taken.n_posts, 1);
    assert_int_equal(taken.n_folds, 1);
    assert_int_equal(number(f, COUNTS_OF_1), 100);
    taken = take_one(f, a_fold(STORE_REPOST, "file:r1", "file:1", 1, "the original"));
    assert_int_equal(taken.n_folds, 0);
    assert_int_equal(taken.n_again, 1);
    take_one(f, a_fold(STORE_REPOST, "file:r2", "file:1", 1, "the original"));
    take_one(f, a_fold(STORE_QUOTE, "file:q1", "file:1", 1, ""));
    take_one(f, a_fold(STORE_DUPLICATE, "file:d1", "file:1", 0, ""));
    assert_int_equal(number(f, COUNTS_OF_1), 211);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 1);
    /* A duplicate that comes again as a post of its own would be a case too many. */
    assert_int_equal(take_one(f, an_item("file:d1", 1, "same words")).n_again, 1);
    /* A quote is a post of its own. */
    assert_int_equal(take_one(f, an_item("file:q1", 1, "own words")).n_posts, 1);
    /* And what is a post is no duplicate of another. */
    take_one(f, an_item("file:2", 1, "another"));
    taken = take_one(f, a_fold(STORE_DUPLICATE, "file:2", "file:1", 0, ""));
    assert_int_equal(taken.n_folds, 0);
    assert_int_equal(number(f, COUNTS_OF_1), 211);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 3);
    /* A repost of a duplicate counts where the duplicate does. */
    take_one(f, a_fold(STORE_REPOST, "file:r3", "file:d1", 1, "same words"));
    assert_int_equal(number(f, COUNTS_OF_1), 311);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 3);
}

static void test_fold_before_its_post(void **state) {
    struct fixture *f = *state;
    take_one(f, a_fold(STORE_QUOTE, "file:q1", "file:1", 1, ""));
    take_one(f, a_fold(STORE_DUPLICATE, "file:d1", "file:1", 1, ""));
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    take_one(f, an_item("file:1", 1, "late"));
    assert_int_equal(number(f, COUNTS_OF_1), 11);
    take_one(f, a_delete("file:q1"));
    assert_int_equal(number(f, COUNTS_OF_1), 1);
}

static void test_delete_of_a_fold(void **state) {
    struct fixture *f = *state;
    take_one(f, an_item("file:1", 1, "original"));
    take_one(f, a_fold(STORE_REPOST, "file:r1", "file:1", 1, "original"));
    take_one(f, a_fold(STORE_REPOST, "file:r2", "file:1", 1, "original"));
    take_one(f, a_delete("file:r1"));
    assert_int_equal(number(f, COUNTS_OF_1), 100);
    struct store_taken taken =
        take_one(f, a_fold(STORE_REPOST, "file:r1", "file:1", 1, "original"));
    assert_int_equal(taken.n_refused, 1);
    assert_int_equal(number(f, COUNTS_OF_1), 100);
    /* The delete came first: the original comes in, uncounted. */
    take_one(f, a_delete("file:r9"));
    take_one(f, a_fold(STORE_REPOST, "file:r9", "file:2", 1, "another original"));
    assert_int_equal(number(f, "SELECT n_reposts FROM posts WHERE key = 'file:2'"), 0);
    /* With the post its folds go. */
    take_one(f, a_delete("file:1"));
    assert_int_equal(number(f, "SELECT count(*) FROM folds"), 0);
    taken = take_one(f, a_fold(STORE_REPOST, "file:r3", "file:1", 1, "original"));
    assert_int_equal(taken.n_refused, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM folds"), 0);
}

/* Version 0: a repost's own words. */
static void test_words_of_a_repost(void **state) {
    struct fixture *f = *state;
    take_one(f, a_fold(STORE_REPOST, "file:r1", "file:1", 0, "RT some words"));
    take_one(f, a_fold(STORE_REPOST, "file:r2", "file:1", 0, "RT some wor…"));
    assert_true(is_text(f, "SELECT text FROM posts", "RT some words"));
    /* Both withdrawn: nobody says it any more. */
    take_one(f, a_delete("file:r1"));
    assert_int_equal(number(f, COUNTS_OF_1), 100);
    take_one(f, a_delete("file:r2"));
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    /* The delete overtook it. */
    assert_int_equal(
        take_one(f, a_fold(STORE_REPOST, "file:r2", "file:1", 0, "RT some")).n_refused,
        1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    /* The real one takes its place, and then stays. */
    take_one(f, a_fold(STORE_REPOST, "file:r3", "file:1", 0, "RT some words"));
    assert_int_equal(take_one(f, an_item("file:1", 1, "some words, all")).n_newer, 1);
    assert_true(is_text(f, "SELECT text FROM posts", "some words, all"));
    take_one(f, a_delete("file:r3"));
    assert_int_equal(number(f, COUNTS_OF_1), 0);
}

static void test_raw(void **state) {
    struct fixture *f = *state;
    struct store_raw lines[] = {{.received_ns = 1, .line = VIEW("one")},
                                {.received_ns = 2, .line = VIEW("two\0two")},
                                {.received_ns = 3, .line = VIEW("three")},
                                {.received_ns = 4, .line = VIEW("four")}};
    struct store_take_in what = {
        .source = "file", .raw = lines, .n_raw = 4, .cursor = "c1"};
    struct store_taken taken = {0};
    assert_ok(store_take_in(f->store, &what, &taken, &error));
    assert_true(lines[0].id > 0);
    for (size_t i = 1; i < 4; i++)
        assert_true(lines[i].id > lines[i - 1].id);
    struct store_raw out[8];
    size_t n;
    fixture_reopen(f);
    assert_ok(store_spooled(f->store, "file", 0, &f->arena, out, 8, &n, &error));
    assert_int_equal(n, 4);
    assert_true(view_equal(out[1].line, VIEW("two\0two")));
    assert_int_equal(out[3].received_ns, 4);
    assert_int_equal(out[3].id, lines[3].id);
    assert_ok(
        store_spooled(f->store, "file", out[1].id, &f->arena, out, 1, &n, &error));
    assert_int_equal(n, 1);
    assert_int_equal(out[0].id, lines[2].id);
    assert_ok(store_spooled(f->store, "other", 0, &f->arena, out, 8, &n, &error));
    assert_int_equal(n, 0);
    char cursor[16];
    assert_ok(store_cursor(f->store, "file", cursor, sizeof cursor, &error));
    assert_string_equal(cursor, "c1");
    assert_int_equal(store_cursor(f->store, "file", cursor, 2, &error), STATUS_LIMIT);
    assert_int_equal(store_cursor(f->store, "other", cursor, sizeof cursor, &error),
                     STATUS_NOT_FOUND);
    /* Items take theirs away, whatever becomes of them; done says there is nothing. */
    struct store_item items[] = {an_item("file:1", 1, "a"), an_item("file:1", 1, "a")};
    items[0].raw_id = lines[3].id;
    items[1].raw_id = lines[0].id;
    what = (struct store_take_in){.source = "file",
                                  .items = items,
                                  .n_items = 2,
                                  .done = &lines[1].id,
                                  .n_done = 1,
                                  .cursor = "c2"};
    assert_ok(store_take_in(f->store, &what, &taken, &error));
    assert_int_equal(number(f, "SELECT count(*) FROM raw"), 1);
    assert_ok(store_spooled(f->store, "file", 0, &f->arena, out, 8, &n, &error));
    assert_int_equal(out[0].id, lines[2].id);
    assert_ok(store_cursor(f->store, "file", cursor, sizeof cursor, &error));
    assert_string_equal(cursor, "c2");
}

/* With another queue, posts are not kept here; deletes and letters are. */
static void test_remote(void **state) {
    struct fixture *f = *state;
    struct store_raw line = {.received_ns = 1, .line = VIEW("one")};
    struct store_take_in what = {.source = "file", .raw = &line, .n_raw = 1};
    struct store_taken taken = {0};
    assert_ok(store_take_in(f->store, &what, &taken, &error));
    struct store_item items[] = {an_item("file:1", 1, "a"), a_delete("file:2"),
                                 a_dead_line("{", "JSON")};
    items[0].raw_id = line.id;
    what = (struct store_take_in){
        .source = "file", .items = items, .n_items = 3, .is_remote = true};
    assert_ok(store_take_in(f->store, &what, &taken, &error));
    assert_int_equal(taken.n_posts, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM raw"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 1);
}

static void test_bad_items(void **state) {
    struct fixture *f = *state;
    struct store_item items[] = {an_item("file:1", 1, "a"), an_item("", 1, "b")};
    struct store_take_in what = {.source = "file", .items = items, .n_items = 2};
    struct store_taken taken = {0};
    assert_int_equal(store_take_in(f->store, &what, &taken, &error), STATUS_INVALID);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    /* Text that no database takes as it is stops nothing. */
    items[0].text = VIEW("a\0b\xff"
                         "c");
    assert_int_equal(take(f, items, 1).n_posts, 1);
    assert_true(is_text(f, "SELECT text FROM posts",
                        "a\xef\xbf\xbd"
                        "b\xef\xbf\xbd"
                        "c"));
}

struct recent {
    size_t n;
    char keys[8][16];
};

static enum status add_recent(void *context, struct view key, uint64_t fingerprint,
                              int64_t posted_ns, struct error *err) {
    struct recent *r = context;
    (void)err;
    assert_true(fingerprint == UINT64_C(0xfedcba9876543210));
    assert_int_equal(posted_ns, NOON_NS);
    assert_true(r->n < 8);
    snprintf(r->keys[r->n++], 16, "%.*s", (int)key.n_bytes, key.data);
    return STATUS_OK;
}

static void test_recent(void **state) {
    struct fixture *f = *state;
    struct recent r = {0};
    assert_ok(store_recent(f->store, 3, add_recent, &r, &error));
    assert_int_equal(r.n, 0);
    char key[16];
    for (int i = 1; i <= 5; i++) {
        snprintf(key, sizeof key, "file:%d", i);
        take_one(f, an_item(key, 1, "x"));
    }
    take_one(f, a_delete("file:4"));
    assert_ok(store_recent(f->store, 3, add_recent, &r, &error));
    assert_int_equal(r.n, 3);
    assert_string_equal(r.keys[0], "file:2");
    assert_string_equal(r.keys[2], "file:5");
    r.n = 0;
    assert_ok(store_recent(f->store, 100, add_recent, &r, &error));
    assert_int_equal(r.n, 4);
}

/* ---- The same in any order ---- */

static uint64_t seed;
static uint32_t next_random(void) {
    seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z >> 32);
}

static void dump(struct fixture *f, char *out, size_t cap) {
    static const char posts[] =
        "SELECT p.key || ' ' || CAST(p.version AS TEXT) || ' ' || p.text || ' ' || "
        "CAST(p.n_reposts AS TEXT) || ' ' || CAST(p.n_quotes AS TEXT) || ' ' || "
        "CAST(p.n_duplicates AS TEXT) || ' ' || CAST(q.version AS TEXT) "
        "FROM posts p JOIN queue q ON q.post_id = p.id ORDER BY p.key";
    struct statement *st;
    bool has_row;
    size_t n = 0;
    assert_ok(database_prepare(store_database(f->store), posts, &st, &error));
    for (;;) {
        assert_ok(statement_step(st, &has_row, &error));
        if (!has_row)
            break;
        struct view row = statement_get_text(st, 0);
        int written = snprintf(out + n, cap - n, "%.*s\n", (int)row.n_bytes, row.data);
        assert_true(written > 0 && n + (size_t)written < cap);
        n += (size_t)written;
    }
    snprintf(out + n, cap - n, "%d folds, %d tombstones, %d queued",
             (int)number(f, "SELECT count(*) FROM folds"),
             (int)number(f, "SELECT count(*) FROM tombstones"),
             (int)number(f, "SELECT count(*) FROM queue"));
}

static void test_any_order(void **state) {
    struct fixture *f = *state;
    const struct store_item items[] = {
        an_item("file:1", 1, "one"),
        an_item("file:1", 2, "one, better"),
        an_item("file:2", 1, "two"),
        a_delete("file:2"),
        a_fold(STORE_REPOST, "file:r1", "file:1", 2, "one, better"),
        a_fold(STORE_REPOST, "file:r2", "file:1", 0, "RT one"),
        a_fold(STORE_QUOTE, "file:q1", "file:1", 1, ""),
        a_fold(STORE_DUPLICATE, "file:d1", "file:1", 1, ""),
        a_delete("file:r1"),
        a_fold(STORE_REPOST, "file:r3", "file:2", 1, "two"),
        a_fold(STORE_REPOST, "file:r4", "file:3", 0, "RT three"),
        a_delete("file:r4"),
        a_fold(STORE_REPOST, "file:r5", "file:4", 0, "RT four"),
        a_fold(STORE_QUOTE, "file:q2", "file:5", 3, "five"),
        an_item("file:q2", 1, "five, I quote"),
        a_delete("file:q9"),
        a_fold(STORE_QUOTE, "file:q9", "file:5", 3, "five")};
    enum { N = sizeof items / sizeof *items };
    static const char expected[] = "file:1 2 one, better 1 1 1 2\n"
                                   "file:4 0 RT four 1 0 0 0\n"
                                   "file:5 3 five 0 1 0 3\n"
                                   "file:q2 1 five, I quote 0 0 0 1\n"
                                   "5 folds, 4 tombstones, 4 queued";
    static const char wipe[] = "DELETE FROM queue; DELETE FROM posts; DELETE FROM "
                               "folds; DELETE FROM tombstones";
    seed = 20261126;
    for (int round = 0; round < 60; round++) {
        static struct store_item shuffled[2 * N];
        for (size_t i = 0; i < N; i++)
            shuffled[i] = items[i];
        /* Some of them come twice. */
        size_t n = N;
        for (size_t i = 0; i < N; i++)
            if (next_random() % 2)
                shuffled[n++] = items[i];
        for (size_t i = n; i > 1; i--) {
            size_t j = next_random() % i;
            struct store_item other = shuffled[j];
            shuffled[j] = shuffled[i - 1];
            shuffled[i - 1] = other;
        }
        for (size_t i = 0; i < n;) {
            size_t n_batch = 1 + next_random() % 8;
            n_batch = n_batch < n - i ? n_batch : n - i;
            take(f, shuffled + i, n_batch);
            i += n_batch;
        }
        static char found[1024];
        dump(f, found, sizeof found);
        assert_string_equal(found, expected);
        fixture_run(f->store, wipe);
    }
}

/* ---- Failures of the world ---- */

static void test_disk_full(void **state) {
    struct fixture *f = *state;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    static struct store_item items[400];
    static char keys[400][16];
    for (size_t i = 0; i < 400; i++) {
        snprintf(keys[i], sizeof keys[i], "file:%zu", i);
        items[i] = an_item(keys[i], 1, text);
    }
    take(f, items, 10);
    struct rlimit old, tight;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    tight = old;
    tight.rlim_cur = 300000;
    struct store_take_in what = {.source = "file", .items = items, .n_items = 400};
    struct store_taken taken = {0};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    enum status status = store_take_in(f->store, &what, &taken, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, STATUS_IO);
    assert_int_equal(taken.n_posts, 0);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 10);
    assert_int_equal(take(f, items, 400).n_posts, 390);
    fixture_reopen(f);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 400);
}

static void test_lost_connection(void **state) {
    struct fixture *f = *state;
    if (!f->is_postgres)
        return; /* there is none to lose */
    take_one(f, an_item("file:1", 1, "a"));
    struct store *other;
    assert_ok(store_open(place_postgres(), DATABASE_WRITE, &other, &error));
    char sql[256];
    snprintf(sql, sizeof sql,
             "DO $$ BEGIN PERFORM pg_terminate_backend(%d, 5000); END $$",
             (int)number(f, "SELECT pg_backend_pid()"));
    fixture_run(other, sql);
    store_close(other);
    struct store_item item = an_item("file:2", 1, "b");
    struct store_take_in what = {.source = "file", .items = &item, .n_items = 1};
    struct store_taken taken = {0};
    enum status status = store_take_in(f->store, &what, &taken, &error);
    if (status == STATUS_IO)
        status = store_take_in(f->store, &what, &taken, &error);
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 2);
}

/* ---- What grows for nothing ---- */

/* Deletes and quotes of posts that were never here are forgotten; what says something of one
 * that was, or that somebody came with since, is not. */
static void test_tidy(void **state) {
    struct fixture *f = *state;
    int64_t n, now = clock_wall_ns();
    take_one(f, an_item("file:1", 1, "here"));
    const struct store_item items[] = {
        a_delete("file:1"),
        a_delete("file:never"),
        a_delete("file:late"),
        a_fold(STORE_QUOTE, "file:q1", "file:elsewhere", 0, ""),
        an_item("file:2", 1, "here too"),
        a_fold(STORE_QUOTE, "file:q2", "file:2", 0, ""),
    };
    take(f, items, 6);
    assert_int_equal(take_one(f, an_item("file:late", 1, "x")).n_refused, 1);
    assert_ok(store_tidy(f->store, now - STORE_EARLY_NS, &n, &error));
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"), 3);
    assert_ok(store_tidy(f->store, INT64_MAX, &n, &error));
    assert_int_equal(n, 2);
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"), 2);
    assert_int_equal(number(f, "SELECT count(*) FROM folds WHERE post_id > 0"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM folds"), 1);
    assert_int_equal(take_one(f, an_item("file:1", 2, "x")).n_refused, 1);
    assert_int_equal(take_one(f, an_item("file:late", 2, "x")).n_refused, 1);
    assert_int_equal(take_one(f, an_item("file:never", 2, "x")).n_posts, 1);
    /* What somebody asked to have erased stays out, here or not. */
    struct store_erase what = {.key = "file:asked", .actor = "me"};
    struct store_erased erased;
    take_one(f, a_delete("file:asked"));
    assert_ok(store_erase(f->store, &what, &erased, &error));
    assert_ok(store_tidy(f->store, INT64_MAX, &n, &error));
    assert_int_equal(n, 0);
    assert_int_equal(take_one(f, an_item("file:asked", 2, "x")).n_refused, 1);
}

/* More than one stretch, and none of it twice. */
static void test_tidy_much(void **state) {
    enum { N = 12000, AT_ONCE = 3000 };
    struct fixture *f = *state;
    static char keys[AT_ONCE][24];
    static struct store_item items[AT_ONCE];
    int64_t n;
    for (int first = 0; first < N; first += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++) {
            snprintf(keys[i], sizeof keys[i], "file:%d", first + i);
            items[i] = a_delete(keys[i]);
        }
        take(f, items, AT_ONCE);
    }
    assert_ok(store_tidy(f->store, INT64_MAX, &n, &error));
    assert_int_equal(n, N);
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"), 0);
}

int main(void) {
    static const struct fixture_case cases[] = {
        CASE(test_post),
        CASE(test_versions),
        CASE(test_versions_in_a_batch),
        CASE(test_delete),
        CASE(test_delete_overtakes),
        CASE(test_folds),
        CASE(test_fold_before_its_post),
        CASE(test_delete_of_a_fold),
        CASE(test_words_of_a_repost),
        CASE(test_raw),
        CASE(test_remote),
        CASE(test_bad_items),
        CASE(test_recent),
        CASE(test_any_order),
        SQLITE_CASE(test_disk_full),
        CASE(test_lost_connection),
        CASE(test_tidy),
        CASE(test_tidy_much),
    };
    return fixture_main(cases, sizeof cases / sizeof *cases);
}
