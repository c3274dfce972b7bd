/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store.c - each of our allocations on the way of a post through the store fails once,
 * and once for ever: a status that says no memory, and the call that failed has done nothing.
 */
#include "base/log.h"
#include "tests/faults/faults.h"
#include "tests/unit/store_fixture.h"

static enum status take_all(struct store *s, struct error *err) {
    struct store_raw line = {.received_ns = 1, .line = VIEW("{}")};
    struct store_item items[] = {an_item("file:1", 1, "a text with a \xff byte"),
                                 a_fold(STORE_REPOST, "file:r1", "file:1", 0, "RT"),
                                 a_fold(STORE_REPOST, "file:r2", "file:2", 0, "RT two"),
                                 an_item("file:3", 1, "counted"),
                                 an_item("file:4", 1, "in vain"),
                                 a_delete("file:r2"),
                                 a_dead_line("{", "JSON")};
    items[3].mode = STORE_AGGREGATE;
    struct store_take_in what = {.source = "file",
                                 .raw = &line,
                                 .n_raw = 1,
                                 .items = items,
                                 .n_items = sizeof items / sizeof *items,
                                 .cursor = "c"};
    struct store_taken taken = {0};
    return store_take_in(s, &what, &taken, err);
}

static enum status work(struct store *s, struct arena *arena, struct error *err) {
    const struct store_mention mention = {
        .type = "ADE", .text = VIEW("rash"), .begin = 1, .end = 5, .score = 0.5};
    struct store_claim claims[4];
    struct store_outcome outcomes[4];
    size_t n, n_lost;
    enum status status = store_claim(s, "w", "", LONG_NS, arena, claims, 4, &n, err);
    for (size_t i = 0; i < n; i++) {
        bool is_vain = view_equal(claims[i].key, VIEW("file:4"));
        outcomes[i] = an_outcome(&claims[i], is_vain ? STORE_GIVE_UP : STORE_DONE);
        outcomes[i].mentions = &mention;
        outcomes[i].n_mentions = 1;
    }
    return status == STATUS_OK ? store_settle(s, "w", outcomes, n, &n_lost, err)
                               : status;
}

static enum status see_key(void *context, struct view key, uint64_t fingerprint,
                           int64_t posted_ns, struct error *err) {
    (void)key, (void)fingerprint, (void)posted_ns, (void)err;
    ++*(int *)context;
    return STATUS_OK;
}

static enum status see_letter(void *context, const struct store_dead *d,
                              struct error *err) {
    (void)d, (void)err;
    ++*(int *)context;
    return STATUS_OK;
}

static enum status look(struct store *s, struct arena *arena, struct error *err) {
    int n_seen = 0;
    size_t n;
    struct store_raw raw[2];
    struct store_lag lag;
    enum status status = store_recent(s, 10, see_key, &n_seen, err);
    if (status == STATUS_OK)
        status = store_dead(s, 0, 0, true, see_letter, &n_seen, err);
    if (status == STATUS_OK)
        status = store_spooled(s, "file", 0, arena, raw, 2, &n, err);
    if (status == STATUS_OK)
        status = store_lag(s, &lag, err);
    return status;
}

static enum status forget(struct store *s, struct error *err) {
    int64_t n;
    struct store_erased erased;
    struct store_erase what = {
        .author = "author-hash", .author_raw = "a", .actor = "t", .is_quick = true};
    enum status status = store_dead_retry(s, 0, "t", &n, err);
    if (status == STATUS_OK)
        status = store_audit(s, "t", "x", "y", "{}", err);
    if (status == STATUS_OK)
        status = store_audit_check(s, &n, err);
    return status == STATUS_OK ? store_erase(s, &what, &erased, err) : status;
}

/* The whole way of some posts, with a store that is opened for it. */
static enum status run(const char *url, struct error *err) {
    struct store *s;
    struct arena arena = {.max_bytes = (size_t)1 << 20};
    enum status status = store_open(url, DATABASE_CREATE, &s, err);
    if (status != STATUS_OK)
        return status;
    status = take_all(s, err);
    if (status == STATUS_OK)
        status = work(s, &arena, err);
    if (status == STATUS_OK)
        status = look(s, &arena, err);
    if (status == STATUS_OK)
        status = forget(s, err);
    arena_free(&arena);
    store_close(s);
    return status;
}

static void check_whole(struct fixture *f) {
    static const char wipe[] =
        "DELETE FROM mentions; DELETE FROM results; DELETE FROM queue; "
        "DELETE FROM posts; DELETE FROM folds; DELETE FROM tombstones; "
        "DELETE FROM seen; DELETE FROM dead_letters; DELETE FROM raw";
    int64_t n;
    /* Each post waits, or has a result or a letter; all of a batch came in, or nothing. */
    assert_int_equal(number(f,
                            "SELECT count(*) FROM posts p WHERE "
                            "(SELECT count(*) FROM queue q WHERE q.post_id = p.id) + "
                            "(SELECT count(*) FROM results r WHERE r.post_id = p.id) + "
                            "(SELECT count(*) FROM dead_letters d "
                            "WHERE d.post_id = p.id) <> 1"),
                     0);
    n = number(f, "SELECT count(*) FROM tombstones WHERE created_ns > 0");
    assert_true(n == 0 || n == 1 || n == 3);
    assert_int_equal(number(f, "SELECT count(*) FROM mentions m WHERE NOT EXISTS "
                               "(SELECT 1 FROM results r WHERE r.post_id = m.post_id)"),
                     0);
    assert_ok(store_audit_check(f->store, &n, &error));
    fixture_run(f->store, wipe);
}

static void test_each(void **state) {
    struct fixture *f = *state;
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        size_t k = 1;
        for (;; k++) {
            struct error err = {0};
            faults_arm(k, for_ever);
            enum status status = run(f->at.url, &err);
            size_t n_failed = faults_disarm();
            check_whole(f);
            if (n_failed == 0) {
                fixture_ok(status, &err, "without a fault", __FILE__, __LINE__);
                break;
            }
            if (status != STATUS_NO_MEMORY || !err.message[0])
                fail_msg("allocation %zu: %s \"%s\"", k, status_name(status),
                         err.message);
            assert_true(k < 10000);
        }
        assert_true(k > 20);
    }
}

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    static const struct fixture_case cases[] = {CASE(test_each)};
    return fixture_main(cases, sizeof cases / sizeof *cases);
}
