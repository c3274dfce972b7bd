/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store_work.c - claims, leases, results, counts of aggregate mode, reruns, dead letters.
 */
#include "base/clock.h"
#include "tests/unit/store_fixture.h"

static void take_posts(struct fixture *f, int n) {
    char key[32];
    for (int i = 1; i <= n; i++) {
        snprintf(key, sizeof key, "file:%d", i);
        take_one(f, an_item(key, 1, "my Drugex gave me a rash"));
    }
}

static void test_claim(void **state) {
    struct fixture *f = *state;
    struct store_claim a[4], b[4];
    assert_int_equal(claim(f, "a", LONG_NS, a, 4), 0);
    take_posts(f, 5);
    assert_int_equal(claim(f, "a", LONG_NS, a, 2), 2);
    assert_true(view_equal(a[0].key, VIEW("file:1")));
    assert_true(view_equal(a[1].key, VIEW("file:2")));
    assert_true(view_equal(a[0].text, VIEW("my Drugex gave me a rash")));
    assert_true(view_equal(a[0].lang, VIEW("en")));
    assert_true(view_starts_with(a[0].drugs, VIEW("[{\"drug\":\"drugex\"")));
    assert_int_equal(a[0].version, 1);
    assert_int_equal(a[0].tries, 1);
    assert_int_equal(a[0].mode, STORE_PSEUDONYMOUS);
    assert_null(a[0].item);
    /* Nobody else gets them. */
    assert_int_equal(claim(f, "b", LONG_NS, b, 4), 3);
    assert_true(view_equal(b[0].key, VIEW("file:3")));
    assert_int_equal(claim(f, "b", LONG_NS, b + 3, 1), 0);
    assert_int_equal(settle_one(f, "a", &a[1], STORE_DONE), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 4);
    /* The same twice, or somebody else's: lost. */
    assert_int_equal(settle_one(f, "a", &a[1], STORE_DONE), 1);
    assert_int_equal(settle_one(f, "a", &b[0], STORE_DONE), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 1);
}

/* PostgreSQL may run a subquery again for each row, whatever its LIMIT says. */
static void test_claim_by_any_plan(void **state) {
    struct fixture *f = *state;
    struct store_claim c[2];
    take_posts(f, 6);
    fixture_run(f->store, "ANALYZE queue");
    if (f->is_postgres)
        fixture_run(f->store, "SET enable_hashjoin = off; SET enable_mergejoin = off; "
                              "SET enable_hashagg = off; SET enable_material = off; "
                              "SET enable_sort = off");
    assert_int_equal(claim(f, "a", LONG_NS, c, 2), 2);
    assert_int_equal(number(f, "SELECT count(*) FROM queue WHERE claims > 0"), 2);
}

/* Where the caller's arena is too small nothing has happened. */
static void test_claim_without_memory(void **state) {
    struct fixture *f = *state;
    struct store_claim c[4];
    struct arena small = {.max_bytes = 100};
    size_t n;
    take_posts(f, 4);
    assert_int_equal(store_claim(f->store, "a", "", LONG_NS, &small, c, 4, &n, &error),
                     STATUS_NO_MEMORY);
    assert_int_equal(n, 0);
    arena_free(&small);
    assert_int_equal(claim(f, "b", LONG_NS, c, 4), 4);
    assert_int_equal(c[0].tries, 1);
}

static void test_result(void **state) {
    struct fixture *f = *state;
    take_posts(f, 1);
    struct store_claim c;
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    const struct store_mention mentions[] = {
        {.type = "DRUG", .text = VIEW("Drugex"), .begin = 3, .end = 9, .score = 0.75},
        {.type = "ADE", .text = VIEW("rash"), .begin = 20, .end = 24, .score = 0.5}};
    struct store_outcome o = an_outcome(&c, STORE_DONE);
    o.is_truncated = true;
    o.mentions = mentions;
    o.n_mentions = 2;
    o.score = 0.0 / 0.0; /* no database takes it, and nothing waits for it */
    assert_int_equal(settle(f, "a", &o, 1), 0);
    assert_true(is_text(f,
                        "SELECT label || '|' || band || '|' || model_name || '|' || "
                        "model_sha256 || '|' || dtype || '|' || CAST(n_tokens AS TEXT) "
                        "|| '|' || CAST(is_truncated AS TEXT) FROM results",
                        "Adverse_Event|positive|ade|aa|int8|12|1"));
    assert_int_equal(number(f, "SELECT count(*) FROM mentions"), 3);
    assert_true(is_text(f, "SELECT text FROM mentions WHERE type = 'ADE'", "rash"));
    assert_int_equal(number(f, "SELECT begin_cp * 100 + end_cp FROM mentions "
                               "WHERE type = 'WATCH' AND drug = 'drugex' AND "
                               "text = 'Drugex'"),
                     309);
    assert_int_equal(number(f, "SELECT n FROM drug_labels WHERE drug = 'drugex' AND "
                               "label = 'Adverse_Event'"),
                     1);
}

static void test_expired_lease(void **state) {
    struct fixture *f = *state;
    struct store_claim a, b;
    take_posts(f, 1);
    assert_int_equal(claim(f, "a", 1, &a, 1), 1);
    assert_int_equal(claim(f, "b", LONG_NS, &b, 1), 1);
    assert_int_equal(b.tries, 1); /* that a worker was killed is no failure */
    assert_int_equal(settle_one(f, "a", &a, STORE_DONE), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 0);
    assert_int_equal(settle_one(f, "b", &b, STORE_DONE), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 1);
    /* The same worker, on an earlier claim of its own. */
    take_one(f, an_item("file:2", 1, "x"));
    assert_int_equal(claim(f, "a", 1, &a, 1), 1);
    assert_int_equal(claim(f, "a", LONG_NS, &b, 1), 1);
    assert_int_equal(settle_one(f, "a", &a, STORE_RELEASE), 1);
    assert_int_equal(settle_one(f, "a", &b, STORE_DONE), 0);
}

static void test_extend(void **state) {
    struct fixture *f = *state;
    struct store_claim a, b;
    take_posts(f, 1);
    assert_int_equal(claim(f, "a", 1, &a, 1), 1);
    assert_ok(store_extend(f->store, "b", &a.queue_id, 1, LONG_NS, &error));
    assert_int_equal(number(f, "SELECT count(*) FROM queue WHERE lease_until_ns > "
                               "@NOW@"),
                     0);
    assert_ok(store_extend(f->store, "a", &a.queue_id, 1, LONG_NS, &error));
    assert_int_equal(claim(f, "b", LONG_NS, &b, 1), 0);
    assert_int_equal(settle_one(f, "a", &a, STORE_DONE), 0);
}

/* Whoever works on the old version works in vain. */
static void test_newer_version_while_claimed(void **state) {
    struct fixture *f = *state;
    struct store_claim a, b;
    take_posts(f, 1);
    assert_int_equal(claim(f, "a", LONG_NS, &a, 1), 1);
    take_one(f, an_item("file:1", 2, "second"));
    assert_int_equal(settle_one(f, "a", &a, STORE_DONE), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 0);
    assert_int_equal(claim(f, "b", LONG_NS, &b, 1), 1);
    assert_int_equal(b.version, 2);
    assert_int_equal(b.tries, 1);
    take_one(f, a_delete("file:1"));
    assert_int_equal(settle_one(f, "b", &b, STORE_DONE), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 0);
}

static void test_retry(void **state) {
    struct fixture *f = *state;
    struct store_claim c;
    take_posts(f, 1);
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    struct store_outcome o = an_outcome(&c, STORE_RETRY);
    o.delay_ns = LONG_NS;
    assert_int_equal(settle(f, "a", &o, 1), 0);
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM queue WHERE worker = '' AND "
                               "not_before_ns > @NOW@"),
                     1);
    fixture_run(f->store, "UPDATE queue SET not_before_ns = 0");
    /* Released: the try does not count. */
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    assert_int_equal(c.tries, 2);
    assert_int_equal(settle_one(f, "a", &c, STORE_RELEASE), 0);
    for (int tries = 2; tries <= STORE_MAX_TRIES; tries++) {
        assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
        assert_int_equal(c.tries, tries);
        assert_int_equal(settle_one(f, "a", &c, STORE_RETRY), 0);
    }
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters WHERE stage = "
                               "'classify' AND key = 'file:1' AND source = 'file' AND "
                               "tries = 5 AND reason = 'server: 500'"),
                     1);
}

/* Workers that are killed again and again bury nothing that did not kill them: of what such
 * workers had, each post is tried alone in the end. */
static void test_deadly_post(void **state) {
    struct fixture *f = *state;
    struct store_claim c[4], other;
    take_posts(f, 4);
    for (int i = 0; i < STORE_ALONE_LAPSES; i++)
        assert_int_equal(claim(f, "a", 1, c, 4), 4);
    /* What nobody died of comes before; and beside something else it is not given. */
    take_one(f, an_item("file:5", 1, "harmless"));
    assert_int_equal(claim(f, "b", LONG_NS, &other, 1), 1);
    assert_true(view_equal(other.key, VIEW("file:5")));
    assert_false(other.is_alone);
    assert_int_equal(claim(f, "b", LONG_NS, c, 4), 0);
    assert_int_equal(settle_one(f, "b", &other, STORE_DONE), 0);
    for (int i = STORE_ALONE_LAPSES; i < STORE_MAX_LAPSES; i++) {
        assert_int_equal(claim(f, "b", 1, c, 4), 1);
        assert_true(c[0].is_alone);
        assert_int_equal(c[0].tries, 1);
        assert_true(view_equal(c[0].key, VIEW("file:1")));
    }
    /* It did it, alone. The others are done, one after the other. */
    for (int i = 2; i <= 4; i++) {
        assert_int_equal(claim(f, "b", LONG_NS, c, 4), 1);
        assert_true(c[0].is_alone);
        assert_int_equal(settle_one(f, "b", &c[0], STORE_DONE), 0);
    }
    assert_int_equal(claim(f, "b", LONG_NS, c, 4), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 4);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 1);
    assert_int_equal(number(f, "SELECT tries FROM dead_letters WHERE key = 'file:1'"),
                     5);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
}

/* Each failure with a word is one of five, whatever comes between. */
static void test_lapses_are_no_tries(void **state) {
    struct fixture *f = *state;
    struct store_claim c;
    take_posts(f, 1);
    for (int tries = 1; tries <= STORE_MAX_TRIES; tries++) {
        for (int i = 0; i < STORE_MAX_LAPSES - 1; i++)
            assert_int_equal(claim(f, "a", 1, &c, 1), 1);
        assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
        assert_int_equal(c.tries, tries);
        assert_int_equal(settle_one(f, "a", &c, STORE_RETRY), 0);
    }
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    assert_int_equal(number(f, "SELECT tries FROM dead_letters WHERE reason = "
                               "'server: 500'"),
                     5);
}

static void test_rerun(void **state) {
    struct fixture *f = *state;
    struct store_claim c[4];
    size_t n;
    int64_t n_queued;
    take_posts(f, 3);
    assert_int_equal(settle_all(f), 3);
    assert_ok(store_enqueue(f->store, "bb", 0, &n_queued, &error));
    assert_int_equal(n_queued, 3);
    assert_ok(store_enqueue(f->store, "bb", 0, &n_queued, &error));
    assert_int_equal(n_queued, 0);
    assert_ok(store_enqueue(f->store, "aa", 0, &n_queued, &error));
    assert_int_equal(n_queued, 0); /* they have its result */
    assert_ok(store_enqueue(f->store, "cc", INT64_MAX, &n_queued, &error));
    assert_int_equal(n_queued, 0);
    assert_int_equal(claim(f, "a", LONG_NS, c, 4), 0); /* new posts alone */
    assert_ok(store_claim(f->store, "a", "bb", LONG_NS, &f->arena, c, 4, &n, &error));
    assert_int_equal(n, 3);
    struct store_outcome o = an_outcome(&c[0], STORE_DONE);
    o.model_sha256 = "bb";
    assert_int_equal(settle(f, "a", &o, 1), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 4);
    assert_int_equal(number(f, "SELECT count(*) FROM mentions WHERE type = 'WATCH'"),
                     4);
    /* A newer version and a delete reach reruns too. */
    take_one(f, an_item("file:2", 2, "second"));
    take_one(f, a_delete("file:3"));
    o = an_outcome(&c[1], STORE_DONE);
    assert_int_equal(settle(f, "a", &o, 1), 1);
    o = an_outcome(&c[2], STORE_DONE);
    assert_int_equal(settle(f, "a", &o, 1), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM queue WHERE version = 2"), 2);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 2);
    o = an_outcome(c, STORE_GIVE_UP);
    assert_ok(store_claim(f->store, "a", "bb", LONG_NS, &f->arena, c, 1, &n, &error));
    assert_int_equal(settle(f, "a", &o, 1), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters WHERE model = 'bb'"),
                     1);
    assert_ok(store_dead_retry(f->store, 0, "me", &n_queued, &error));
    assert_int_equal(number(f, "SELECT count(*) FROM queue WHERE model = 'bb'"), 1);
}

static void test_lag(void **state) {
    struct fixture *f = *state;
    struct store_lag lag;
    struct store_claim c;
    assert_ok(store_lag(f->store, &lag, &error));
    assert_int_equal(lag.n_waiting + lag.n_claimed + lag.n_raw + lag.n_dead, 0);
    assert_int_equal(lag.oldest_ns, 0);
    take_posts(f, 3);
    take_one(f, a_dead_line("{", "JSON"));
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    struct store_raw line = {.received_ns = 1, .line = VIEW("one")};
    struct store_take_in what = {.source = "file", .raw = &line, .n_raw = 1};
    struct store_taken taken = {0};
    assert_ok(store_take_in(f->store, &what, &taken, &error));
    assert_ok(store_lag(f->store, &lag, &error));
    assert_int_equal(lag.n_waiting, 2);
    assert_int_equal(lag.n_claimed, 1);
    assert_int_equal(lag.n_raw, 1);
    assert_int_equal(lag.n_dead, 1);
    assert_int_equal(lag.oldest_ns, NOON_NS + 5 * SECOND_NS);
}

/* ---- Aggregate mode ---- */

static struct store_item an_aggregate(const char *key) {
    struct store_item item = an_item(key, 1, "Marked-Text-Of-Aggregate");
    item.mode = STORE_AGGREGATE;
    item.source = VIEW("x");
    item.drugs = VIEW("[{\"drug\":\"a\",\"name\":\"A\",\"begin\":0,\"end\":1},"
                      "{\"drug\":\"b\",\"name\":\"B\",\"begin\":2,\"end\":3},"
                      "{\"drug\":\"a\",\"name\":\"A\",\"begin\":4,\"end\":5}]");
    return item;
}

#define CELL(what, label)                                                              \
    "SELECT " what " FROM aggregates WHERE day = '2026-11-26' AND source = 'x' AND "   \
    "drug = 'a' AND label = '" label "' AND lang = 'en' AND country = 'US' AND "       \
    "state = 'US-CA'"

static void test_aggregate(void **state) {
    struct fixture *f = *state;
    take_one(f, an_aggregate("x:1"));
    take_one(f, an_aggregate("x:2"));
    assert_int_equal(take_one(f, an_aggregate("x:1")).n_again, 1);
    struct store_item fold = an_aggregate("x:1");
    fold.fold = STORE_REPOST;
    fold.fold_key = VIEW("x:r1");
    assert_int_equal(take_one(f, fold).n_folds, 1);
    assert_int_equal(settle_all(f), 2);
    /* Nothing is left but numbers and hashes. */
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM aggregates"), 2);
    assert_int_equal(number(f, CELL("n_posts", "Adverse_Event")), 2);
    assert_int_equal(number(f, CELL("n_reposts", "Adverse_Event")), 1);
    /* Again, newer, folded again: counted already. */
    struct store_item newer = an_aggregate("x:1");
    newer.version = 2;
    assert_int_equal(take_one(f, newer).n_again, 1);
    assert_int_equal(take_one(f, fold).n_folds, 0);
    assert_int_equal(settle_all(f), 0);
    assert_int_equal(number(f, CELL("n_reposts", "Adverse_Event")), 1);
    /* A repost that comes late: its post's label is not known any more. */
    fold.fold_key = VIEW("x:r2");
    assert_int_equal(take_one(f, fold).n_folds, 1);
    assert_int_equal(take_one(f, fold).n_folds, 0);
    assert_int_equal(number(f, CELL("n_reposts", "")), 1);
    assert_int_equal(number(f, CELL("n_posts", "")), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    /* What is counted once is no duplicate of another. */
    take_one(f, an_item("file:1", 1, "words"));
    assert_int_equal(
        take_one(f, a_fold(STORE_DUPLICATE, "x:2", "file:1", 0, "")).n_again, 1);
    /* No drug, no time of posting. */
    struct store_item bare = an_aggregate("x:3");
    bare.drugs = VIEW("not JSON");
    bare.posted_ns = 0;
    bare.received_ns = NOON_NS + 86400 * SECOND_NS;
    take_one(f, bare);
    settle_all(f);
    assert_int_equal(number(f, "SELECT n_posts FROM aggregates WHERE drug = '' AND "
                               "day = '2026-11-27'"),
                     1);
}

static void test_aggregate_that_fails(void **state) {
    struct fixture *f = *state;
    struct store_claim c;
    int64_t n;
    take_one(f, an_aggregate("x:1"));
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    assert_int_equal(settle_one(f, "a", &c, STORE_GIVE_UP), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    assert_ok(store_dead_retry(f->store, 0, "me", &n, &error));
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    assert_int_equal(settle_one(f, "a", &c, STORE_GIVE_UP), 0);
    /* Dropped: nobody will ever count it. */
    assert_ok(store_dead_drop(f->store, 0, "me", &n, &error));
    assert_int_equal(n, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM aggregates"), 0);
    assert_int_equal(take_one(f, an_aggregate("x:1")).n_again, 1);
}

/* ---- From a remote queue ---- */

static size_t settle_remote(struct fixture *f, const struct store_item *item,
                            enum store_outcome_kind kind, int32_t tries) {
    struct store_claim c = {.key = item->key,
                            .version = item->version,
                            .mode = item->mode,
                            .text = item->text,
                            .drugs = item->drugs,
                            .tries = tries,
                            .item = item};
    return settle_one(f, "w", &c, kind);
}

static void test_remote(void **state) {
    struct fixture *f = *state;
    struct store_item item = an_item("file:1", 2, "text");
    assert_int_equal(settle_remote(f, &item, STORE_RETRY, 1), 0);
    assert_int_equal(settle_remote(f, &item, STORE_RELEASE, 1), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 0);
    assert_int_equal(settle_remote(f, &item, STORE_DONE, 2), 0);
    assert_int_equal(settle_remote(f, &item, STORE_DONE, 3), 0); /* delivered twice */
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM mentions WHERE type = 'WATCH'"),
                     1);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    struct store_item older = an_item("file:1", 1, "older");
    assert_int_equal(settle_remote(f, &older, STORE_DONE, 1), 1);
    struct store_item newer = an_item("file:1", 3, "newer");
    assert_int_equal(settle_remote(f, &newer, STORE_DONE, 1), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 2);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    struct store_item fold = a_fold(STORE_REPOST, "file:r1", "file:5", 1, "five");
    assert_int_equal(settle_remote(f, &fold, STORE_DONE, 1), 0);
    assert_int_equal(settle_remote(f, &fold, STORE_DONE, 1), 0);
    assert_int_equal(number(f, "SELECT n_reposts FROM posts WHERE key = 'file:5'"), 1);
    /* Erased meanwhile. */
    take_one(f, a_delete("file:1"));
    assert_int_equal(settle_remote(f, &newer, STORE_DONE, 1), 1);
    /* Aggregates leave only counts, once. */
    struct store_item aggregate = an_aggregate("x:1");
    assert_int_equal(settle_remote(f, &aggregate, STORE_DONE, 1), 0);
    assert_int_equal(settle_remote(f, &aggregate, STORE_DONE, 1), 1);
    assert_int_equal(number(f, CELL("n_posts", "Adverse_Event")), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    /* A letter, whatever is said twice; a retry of it is the queue's. */
    int64_t n;
    struct store_item bad = an_item("file:9", 1, "bad");
    assert_int_equal(settle_remote(f, &bad, STORE_GIVE_UP, 5), 0);
    assert_int_equal(settle_remote(f, &bad, STORE_GIVE_UP, 5), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 1);
    assert_ok(store_dead_retry(f->store, 0, "me", &n, &error));
    assert_int_equal(n, 0);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 1);
}

/* ---- Dead letters ---- */

struct listed {
    size_t n;
    int64_t ids[8];
    char bodies[8][16], reasons[8][STORE_REASON_BYTES + 1];
    struct store_dead last;
};

static enum status add_letter(void *context, const struct store_dead *d,
                              struct error *err) {
    struct listed *l = context;
    (void)err;
    assert_true(l->n < 8);
    l->ids[l->n] = d->id;
    snprintf(l->bodies[l->n], 16, "%.*s", (int)d->body.n_bytes, d->body.data);
    snprintf(l->reasons[l->n], STORE_REASON_BYTES + 1, "%.*s", (int)d->reason.n_bytes,
             d->reason.data);
    l->last = *d;
    l->n++;
    return STATUS_OK;
}

static void test_dead(void **state) {
    struct fixture *f = *state;
    char reason[400];
    memset(reason, 'r', sizeof reason);
    reason[sizeof reason - 1] = 0;
    take_one(f, a_dead_line("line 1", "JSON"));
    assert_int_equal(take_one(f, a_dead_line("line 1", "JSON")).n_again, 1);
    take_one(f, a_dead_line("line 2", reason));
    take_posts(f, 1);
    struct store_claim c;
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    assert_int_equal(settle_one(f, "a", &c, STORE_GIVE_UP), 0);
    struct listed l = {0};
    assert_ok(store_dead(f->store, 0, 0, true, add_letter, &l, &error));
    assert_int_equal(l.n, 3);
    assert_true(l.ids[0] > l.ids[1] && l.ids[1] > l.ids[2]);
    assert_string_equal(l.bodies[0], "");
    assert_string_equal(l.bodies[1], "line 2");
    assert_int_equal(strlen(l.reasons[1]), STORE_REASON_BYTES);
    assert_int_equal(l.last.n_bytes, 6);
    assert_int_equal(l.last.tries, 1);
    int64_t oldest = l.ids[2], newest = l.ids[0];
    l.n = 0;
    assert_ok(store_dead(f->store, oldest, 0, false, add_letter, &l, &error));
    assert_int_equal(l.n, 1);
    assert_string_equal(l.bodies[0], "");
    l.n = 0;
    assert_ok(store_dead(f->store, 0, 2, false, add_letter, &l, &error));
    assert_int_equal(l.n, 2);
    /* Back they go. */
    int64_t n;
    assert_ok(store_dead_retry(f->store, oldest, "me", &n, &error));
    assert_int_equal(n, 1);
    assert_ok(store_dead_retry(f->store, oldest, "me", &n, &error));
    assert_int_equal(n, 0);
    struct store_raw raw;
    size_t n_raw;
    assert_ok(store_spooled(f->store, "file", 0, &f->arena, &raw, 1, &n_raw, &error));
    assert_int_equal(n_raw, 1);
    assert_true(view_equal(raw.line, VIEW("line 1")));
    assert_int_equal(raw.received_ns, NOON_NS);
    struct store_item again = a_dead_line("line 1", "JSON");
    again.raw_id = raw.id;
    take_one(f, again);
    assert_int_equal(number(f, "SELECT count(*) FROM raw"), 0);
    assert_int_equal(number(f, "SELECT max(tries) FROM dead_letters WHERE stage = "
                               "'parse'"),
                     2);
    assert_ok(store_dead_retry(f->store, newest, "me", &n, &error));
    assert_int_equal(n, 1);
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    assert_int_equal(c.tries, 1);
    assert_int_equal(settle_one(f, "a", &c, STORE_DONE), 0);
    assert_ok(store_dead_drop(f->store, 0, "me", &n, &error));
    assert_int_equal(n, 2);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM posts"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM audit"), 3);
    assert_ok(store_audit_check(f->store, &n, &error));
    assert_int_equal(n, 3);
}

/* Letters of a post that is withdrawn or newer are withdrawn with it. */
static void test_dead_and_withdrawn(void **state) {
    struct fixture *f = *state;
    struct store_claim c;
    struct store_item line = a_dead_line("text of 2", "too long");
    line.key = VIEW("file:2");
    take_one(f, line);
    take_posts(f, 1);
    assert_int_equal(claim(f, "a", LONG_NS, &c, 1), 1);
    assert_int_equal(settle_one(f, "a", &c, STORE_GIVE_UP), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 2);
    take_one(f, an_item("file:1", 2, "second"));
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 1);
    take_one(f, a_delete("file:2"));
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 0);
    assert_int_equal(take_one(f, line).n_again, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 0);
}

int main(void) {
    static const struct fixture_case cases[] = {
        CASE(test_claim),
        CASE(test_claim_by_any_plan),
        CASE(test_claim_without_memory),
        CASE(test_result),
        CASE(test_expired_lease),
        CASE(test_extend),
        CASE(test_newer_version_while_claimed),
        CASE(test_retry),
        CASE(test_deadly_post),
        CASE(test_lapses_are_no_tries),
        CASE(test_rerun),
        CASE(test_lag),
        CASE(test_aggregate),
        CASE(test_aggregate_that_fails),
        CASE(test_remote),
        CASE(test_dead),
        CASE(test_dead_and_withdrawn),
    };
    return fixture_main(cases, sizeof cases / sizeof *cases);
}
