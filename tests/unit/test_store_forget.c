/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store_forget.c - erasing, down to the bytes of the files; and the audit.
 */
#include "tests/unit/store_fixture.h"

#define MARKED_TEXT "zq7-marked-text-of-a-post"
#define MARKED_AUTHOR "zq7-marked-author"
#define MARKED_KEY "file:zq7-marked-key"

static struct store_erased erase(struct fixture *f, struct store_erase what) {
    struct store_erased n;
    what.actor = "tester";
    assert_ok(store_erase(f->store, &what, &n, &error));
    return n;
}

static void spool(struct fixture *f, const char *source, struct view line,
                  int64_t received_ns) {
    struct store_raw raw = {.received_ns = received_ns, .line = line};
    struct store_take_in what = {.source = source, .raw = &raw, .n_raw = 1};
    struct store_taken taken = {0};
    assert_ok(store_take_in(f->store, &what, &taken, &error));
}

static void take_of(struct fixture *f, const char *source, const char *key,
                    const char *author, const char *text, int64_t received_ns) {
    struct store_item item = an_item(key, 1, text);
    item.source = view_of_string(source);
    item.author = view_of_string(author);
    item.received_ns = received_ns;
    take_one(f, item);
}

/* Two posts of the author, one of another; results, reviews, lines, letters. */
static void fill(struct fixture *f) {
    take_of(f, "file", MARKED_KEY, MARKED_AUTHOR, MARKED_TEXT, NOON_NS);
    take_of(f, "file", "file:2", MARKED_AUTHOR, MARKED_TEXT " again", NOON_NS + 1);
    take_of(f, "file", "file:3", "other", "other words", NOON_NS + 2);
    take_one(f, a_fold(STORE_REPOST, "file:r1", MARKED_KEY, 1, ""));
    take_one(f, a_fold(STORE_QUOTE, "file:2", "file:3", 1, ""));
    settle_all(f);
    fixture_run(f->store,
                "INSERT INTO reviews (post_id, version, model_sha256, created_ns, "
                "reviewer, decision, reason) SELECT post_id, version, model_sha256, 1, "
                "'r', 'confirmed', '" MARKED_TEXT "' FROM results WHERE post_id = 1");
    take_of(f, "file", "file:4", MARKED_AUTHOR, MARKED_TEXT " waits", NOON_NS + 3);
    spool(f, "file", VIEW("{\"author\":\"" MARKED_AUTHOR "-raw\",\"t\":1}"), NOON_NS);
    spool(f, "file", VIEW("{\"author\":\"" MARKED_AUTHOR "-raw7\",\"t\":1}"), NOON_NS);
    spool(f, "file", VIEW("{\"author\":\"other\"}"), NOON_NS);
    take_one(f, a_dead_line("{broken \"" MARKED_AUTHOR "-raw\"", "JSON"));
    take_one(f, a_dead_line("{broken \"other\"", "JSON"));
}

static const struct store_erase of_author = {.author = MARKED_AUTHOR,
                                             .author_raw = MARKED_AUTHOR "-raw"};

static void test_author(void **state) {
    struct fixture *f = *state;
    fill(f);
    struct store_erase dry = of_author;
    dry.is_dry_run = true;
    for (int round = 0; round < 2; round++) {
        struct store_erased n = erase(f, round == 0 ? dry : of_author);
        assert_int_equal(n.n_posts, 3);
        assert_int_equal(n.n_results, 2);
        assert_int_equal(n.n_mentions, 2);
        assert_int_equal(n.n_reviews, 1);
        assert_int_equal(n.n_raw, 1);
        assert_int_equal(n.n_dead, 1);
        assert_int_equal(n.n_folds, 2);
        assert_int_equal(n.n_queued, 1);
        assert_int_equal(n.audit_seq, round);
        assert_int_equal(strlen(n.audit_hash), round * STORE_SHA256_HEX);
        assert_int_equal(number(f, "SELECT count(*) FROM posts"), round == 0 ? 4 : 1);
        assert_int_equal(number(f, "SELECT n_quotes FROM posts WHERE key = 'file:3'"),
                         round == 0);
    }
    assert_int_equal(number(f, "SELECT count(*) FROM raw"), 2);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM tombstones"), 3);
    assert_true(is_text(f, "SELECT details FROM audit",
                        "{\"posts\":3,\"results\":2,\"mentions\":2,\"reviews\":1,"
                        "\"raw\":1,\"dead\":1,\"folds\":2,\"queued\":1,"
                        "\"older_than_ns\":0}"));
    assert_true(is_text(f, "SELECT actor || action FROM audit", "testererase"));
    /* It does not come back. */
    assert_int_equal(take_one(f, an_item(MARKED_KEY, 9, "back")).n_refused, 1);
    struct store_erased n = erase(f, of_author);
    assert_int_equal(n.n_posts + n.n_raw + n.n_dead, 0);
}

static bool holds(const char *path, const char *word) {
    char *data;
    size_t n_bytes, n = strlen(word);
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    n_bytes = (size_t)ftell(file);
    rewind(file);
    data = malloc(n_bytes + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, n_bytes, file), n_bytes);
    fclose(file);
    bool does = memmem(data, n_bytes, word, n) != NULL;
    free(data);
    return does;
}

static bool files_hold(struct fixture *f, const char *word) {
    return holds(scratch_path(f->at.dir, "store.db"), word) ||
           holds(scratch_path(f->at.dir, "store.db-wal"), word);
}

/* No byte is left, whatever it had been through. */
static void test_bytes(void **state) {
    struct fixture *f = *state;
    char key[32], text[600];
    fill(f);
    for (int i = 100; i < 400; i++) { /* so that pages split and move */
        snprintf(key, sizeof key, "file:%d", i);
        snprintf(text, sizeof text, "%0*d" MARKED_TEXT, 20 + 11 * (i % 50), i);
        take_of(f, "file", key, i % 3 ? MARKED_AUTHOR : "other",
                i % 3 ? text : "other words", NOON_NS);
        if (i % 50 == 0)
            settle_all(f);
    }
    take_of(f, "file", MARKED_KEY, MARKED_AUTHOR, MARKED_TEXT " edited", NOON_NS);
    assert_true(files_hold(f, MARKED_TEXT));
    assert_true(files_hold(f, MARKED_AUTHOR));
    struct store_erase what = of_author;
    erase(f, what);
    what.author_raw = MARKED_AUTHOR "-raw7"; /* another: who only looks like him */
    erase(f, what);
    assert_false(files_hold(f, MARKED_TEXT));
    assert_false(files_hold(f, MARKED_AUTHOR));
    assert_false(files_hold(f, MARKED_KEY));
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 101);
    assert_true(files_hold(f, "other words"));
}

/* Of aggregate mode nothing is left even without erasing, once the log is emptied. */
static void test_bytes_of_aggregates(void **state) {
    struct fixture *f = *state;
    struct store_item item = an_item(MARKED_KEY, 1, MARKED_TEXT);
    item.mode = STORE_AGGREGATE;
    item.author = VIEW(MARKED_AUTHOR);
    take_one(f, item);
    assert_true(files_hold(f, MARKED_TEXT));
    settle_all(f);
    assert_int_equal(number(f, "SELECT sum(n_posts) FROM aggregates"), 1);
    assert_ok(database_checkpoint(store_database(f->store), &error));
    assert_false(files_hold(f, MARKED_TEXT));
    assert_false(files_hold(f, MARKED_AUTHOR));
    assert_false(files_hold(f, MARKED_KEY));
}

static void test_post(void **state) {
    struct fixture *f = *state;
    fill(f);
    spool(f, "file", VIEW("{\"id\":\"at:\\/\\/did\\/1\"}"), NOON_NS);
    spool(f, "file", VIEW("{\"id\":\"at:\\/\\/did\\/12\"}"), NOON_NS);
    struct store_erased n =
        erase(f, (struct store_erase){.key = MARKED_KEY, .key_raw = "at://did/1"});
    assert_int_equal(n.n_posts, 1);
    assert_int_equal(n.n_folds, 1);
    assert_int_equal(n.n_raw, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 3);
    /* A key that was folded into another post, and one that nobody knows. */
    n = erase(f, (struct store_erase){.key = "file:2"});
    assert_int_equal(n.n_folds, 1);
    assert_int_equal(number(f, "SELECT n_quotes FROM posts WHERE key = 'file:3'"), 0);
    n = erase(f, (struct store_erase){.key = "file:unknown"});
    assert_int_equal(n.n_posts, 0);
    assert_int_equal(take_one(f, an_item("file:unknown", 1, "x")).n_refused, 1);
    assert_int_equal(
        store_erase(f->store, &(struct store_erase){.actor = "t"}, &n, &error),
        STATUS_INVALID);
}

/* What would be refused, told before it is handed to another queue; over several rounds. */
static void test_gone(void **state) {
    struct fixture *f = *state;
    struct store_item items[40];
    bool is_gone[40];
    char keys[40][32];
    for (int i = 0; i < 40; i++) {
        snprintf(keys[i], sizeof keys[i], "file:%d", i);
        items[i] = an_item(keys[i], 1, "text");
    }
    items[4] = a_fold(STORE_REPOST, "file:7", "file:4", 1, "");     /* a gone repost */
    items[5] = a_fold(STORE_REPOST, "file:7", "file:5", 1, "text"); /* brings its own */
    items[6] = a_fold(STORE_REPOST, "file:5", "file:39", 1, "");    /* of a gone post */
    items[20].kind = STORE_DELETE;
    assert_ok(store_gone(f->store, items, 40, is_gone, &error));
    for (int i = 0; i < 40; i++)
        assert_false(is_gone[i]);
    erase(f, (struct store_erase){.key = "file:7"});
    erase(f, (struct store_erase){.key = "file:20"});
    erase(f, (struct store_erase){.source = "file", .key_raw = "39"});
    assert_ok(store_gone(f->store, items, 40, is_gone, &error));
    for (int i = 0; i < 40; i++)
        assert_int_equal(is_gone[i], i == 4 || i == 6 || i == 7 || i == 39);
    assert_ok(store_gone(f->store, NULL, 0, NULL, &error));
}

static void test_source(void **state) {
    struct fixture *f = *state;
    fill(f);
    take_of(f, "other", "other:1", "a", "words", NOON_NS);
    spool(f, "other", VIEW("line"), NOON_NS);
    struct store_item fold = a_fold(STORE_DUPLICATE, "file:d9", "other:1", 1, "");
    take_one(f, fold);
    struct store_item aggregate = an_item("file:a", 1, "counted");
    aggregate.mode = STORE_AGGREGATE;
    take_one(f, aggregate);
    aggregate.key = VIEW("other:a");
    aggregate.source = VIEW("other");
    take_one(f, aggregate);
    settle_all(f);
    struct store_take_in cursor = {.source = "file", .cursor = "c"};
    struct store_taken taken = {0};
    assert_ok(store_take_in(f->store, &cursor, &taken, &error));
    struct store_erased n = erase(f, (struct store_erase){.source = "file"});
    assert_int_equal(n.n_posts, 4);
    assert_int_equal(n.n_raw, 3);
    assert_int_equal(n.n_dead, 2);
    assert_int_equal(n.n_folds, 3);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    assert_int_equal(number(f, "SELECT n_duplicates FROM posts"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM raw"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM folds"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM aggregates"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM cursors"), 1);
    assert_true(is_text(f, "SELECT subject FROM audit", "source:file"));
}

static void test_age(void **state) {
    struct fixture *f = *state;
    char key[32];
    for (int i = 0; i < 1200; i++) {
        snprintf(key, sizeof key, "file:%d", i);
        take_of(f, "file", key, "a", "words", NOON_NS + i);
    }
    take_of(f, "other", "other:1", "a", "words", NOON_NS);
    spool(f, "file", VIEW("old"), NOON_NS);
    spool(f, "file", VIEW("new"), NOON_NS + 1200);
    take_one(f, a_dead_line("old", "JSON")); /* NOON_NS */
    struct store_erased n =
        erase(f, (struct store_erase){.source = "file", .older_than_ns = NOON_NS + 1});
    assert_int_equal(n.n_posts, 1);
    assert_int_equal(n.n_raw, 1);
    assert_int_equal(n.n_dead, 1);
    n = erase(f, (struct store_erase){.older_than_ns = NOON_NS + 1150});
    assert_int_equal(n.n_posts, 1150);
    assert_int_equal(n.n_queued, 1150);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 50);
    assert_int_equal(number(f, "SELECT count(*) FROM raw"), 1);
    assert_int_equal(take_one(f, an_item("file:7", 1, "again")).n_refused, 1);
}

/* ---- Audit ---- */

static void expect_broken(struct fixture *f, const char *damage, const char *message) {
    int64_t n;
    fixture_run(f->store, damage);
    assert_int_equal(store_audit_check(f->store, &n, &error), STATUS_INVALID);
    if (!strstr(error.message, message))
        print_error("found: %s\n", error.message);
    assert_non_null(strstr(error.message, message));
}

static void test_audit(void **state) {
    struct fixture *f = *state;
    int64_t n;
    assert_ok(store_audit_check(f->store, &n, &error));
    assert_int_equal(n, 0);
    for (int i = 0; i < 600; i++)
        assert_ok(store_audit(f->store, "alice", "review", "post:1", "{}", &error));
    assert_ok(store_audit(f->store, "bad \xff name", "x", "", "{\"a\":1}", &error));
    fixture_reopen(f);
    assert_ok(store_audit(f->store, "bob", "export", "all", "{}", &error));
    assert_ok(store_audit_check(f->store, &n, &error));
    assert_int_equal(n, 602);
    assert_int_equal(number(f, "SELECT count(*) FROM audit WHERE previous = ''"), 1);
    expect_broken(f, "UPDATE audit SET actor = 'mallory' WHERE seq = 540",
                  "540 was changed");
    fixture_run(f->store, "UPDATE audit SET actor = 'alice' WHERE seq = 540");
    /* A byte from one field to its neighbour. */
    expect_broken(f,
                  "UPDATE audit SET actor = 'alicer', action = 'eview' WHERE seq = 3",
                  "3 was changed");
    fixture_run(f->store, "UPDATE audit SET actor = 'alice', action = 'review' "
                          "WHERE seq = 3");
    expect_broken(f, "UPDATE audit SET subject = 'post:2' WHERE seq = 3",
                  "3 was changed");
    fixture_run(f->store, "UPDATE audit SET subject = 'post:1' WHERE seq = 3");
    expect_broken(f, "UPDATE audit SET details = '{\"a\":2}' WHERE seq = 601",
                  "601 was changed");
    fixture_run(f->store, "UPDATE audit SET details = '{\"a\":1}' WHERE seq = 601");
    expect_broken(f, "UPDATE audit SET at_ns = at_ns + 1 WHERE seq = 1",
                  "1 was changed");
    fixture_run(f->store, "UPDATE audit SET at_ns = at_ns - 1 WHERE seq = 1");
    assert_ok(store_audit_check(f->store, &n, &error));
    expect_broken(f, "UPDATE audit SET previous = '' WHERE seq = 20",
                  "20 does not follow");
    expect_broken(f, "DELETE FROM audit WHERE seq = 10", "10 is missing");
}

int main(void) {
    static const struct fixture_case cases[] = {
        CASE(test_author),
        SQLITE_CASE(test_bytes),
        SQLITE_CASE(test_bytes_of_aggregates),
        CASE(test_post),
        CASE(test_gone),
        CASE(test_source),
        CASE(test_age),
        CASE(test_audit),
    };
    return fixture_main(cases, sizeof cases / sizeof *cases);
}
