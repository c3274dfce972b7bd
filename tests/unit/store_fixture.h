/* SPDX-License-Identifier: Apache-2.0
 *
 * store_fixture.h - a fresh place for each case, and a store in it: in SQLite, and once more in
 * PostgreSQL, in a schema of its own, when VIGIL_TEST_POSTGRES holds the URL of a database to
 * play with (tests/e2e/postgres.py).
 */
#ifndef VIGIL_TESTS_STORE_FIXTURE_H
#define VIGIL_TESTS_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/store.h"
#include "tests/unit/model_files.h"

#define SECOND_NS INT64_C(1000000000)
#define LONG_NS (600 * SECOND_NS)
/* 2026-11-26T12:00:00Z */
#define NOON_NS (INT64_C(1795694400) * SECOND_NS)

#define assert_ok(call) fixture_ok((call), &error, #call, __FILE__, __LINE__)

static struct error error;

static inline void fixture_ok(enum status status, const struct error *err,
                              const char *what, const char *file, int line) {
    if (status == STATUS_OK)
        return;
    print_error("%s: %s: %s\n", what, status_name(status), err->message);
    _fail(file, line);
}

/* ---- A place for a store ---- */

struct place {
    char *dir; /* SQLite: a scratch folder; NULL: PostgreSQL */
    char url[512];
    char schema[64]; /* PostgreSQL */
};

static inline const char *place_postgres(void) {
    const char *url = getenv("VIGIL_TEST_POSTGRES");
    return url && *url ? url : NULL;
}

static inline struct database *place_open(const struct place *at,
                                          enum database_mode mode) {
    struct database *db;
    assert_ok(database_open(at->url, mode, &db, &error));
    return db;
}

/* Runs statements in a transaction. */
static inline void place_run(struct database *db, const char *sql) {
    assert_ok(database_begin(db, &error));
    assert_ok(database_run(db, sql, &error));
    assert_ok(database_commit(db, &error));
}

/* The first column of the first row; -1: no row. sql is a constant. */
static inline int64_t place_ask(struct database *db, const char *sql) {
    struct statement *st;
    bool has_row;
    assert_ok(database_prepare(db, sql, &st, &error));
    assert_ok(statement_step(st, &has_row, &error));
    int64_t value = has_row ? statement_get_integer(st, 0) : -1;
    statement_reset(st);
    return value;
}

static inline void place_schema(const struct place *at, const char *verb,
                                const char *tail) {
    struct database *db;
    char sql[256];
    snprintf(sql, sizeof sql, "%s SCHEMA %s%s", verb, at->schema, tail);
    assert_ok(database_open(place_postgres(), DATABASE_CREATE, &db, &error));
    place_run(db, sql);
    database_close(db);
}

static inline void place_make_sqlite(struct place *at) {
    *at = (struct place){.dir = scratch_make()};
    snprintf(at->url, sizeof at->url, "%s", scratch_path(at->dir, "store.db"));
}

/* In a schema of its own. */
static inline void place_make_postgres(struct place *at) {
    static int n;
    const char *url = place_postgres();
    *at = (struct place){.dir = NULL};
    snprintf(at->schema, sizeof at->schema, "test_%d_%d", (int)getpid(), n++);
    snprintf(at->url, sizeof at->url, "%s%coptions=-csearch_path%%3D%s", url,
             strchr(url, '?') ? '&' : '?', at->schema);
    place_schema(at, "CREATE", "");
}

static inline void place_remove(struct place *at) {
    if (at->dir)
        scratch_remove(at->dir);
    else
        place_schema(at, "DROP", " CASCADE");
    at->dir = NULL;
}

static inline int place_sqlite_setup(void **state) {
    struct place *at = calloc(1, sizeof *at);
    if (!at)
        return -1;
    place_make_sqlite(at);
    *state = at;
    return 0;
}

static inline int place_postgres_setup(void **state) {
    struct place *at = calloc(1, sizeof *at);
    if (!at)
        return -1;
    place_make_postgres(at);
    *state = at;
    return 0;
}

static inline int place_teardown(void **state) {
    place_remove(*state);
    free(*state);
    return 0;
}

/* ---- A store ---- */

struct fixture {
    struct place at;
    bool is_postgres;
    struct store *store;
    struct arena arena;
};

static inline void fixture_run(struct store *s, const char *sql) {
    place_run(store_database(s), sql);
}

static inline void fixture_open(struct fixture *f) {
    assert_ok(store_open(f->at.url, DATABASE_CREATE, &f->store, &error));
}

static inline void fixture_reopen(struct fixture *f) {
    store_close(f->store);
    f->store = NULL;
    fixture_open(f);
}

static inline int fixture_setup(void **state, bool is_postgres) {
    struct fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    f->is_postgres = is_postgres;
    f->arena.max_bytes = (size_t)64 << 20;
    if (is_postgres)
        place_make_postgres(&f->at);
    else
        place_make_sqlite(&f->at);
    *state = f;
    fixture_open(f);
    return 0;
}

static inline int fixture_sqlite_setup(void **state) {
    return fixture_setup(state, false);
}

static inline int fixture_postgres_setup(void **state) {
    return fixture_setup(state, true);
}

static inline int fixture_teardown(void **state) {
    struct fixture *f = *state;
    store_close(f->store);
    place_remove(&f->at);
    arena_free(&f->arena);
    free(f);
    return 0;
}

struct fixture_case {
    const char *name;
    CMUnitTestFunction run;
    bool is_sqlite_only;
};
#define CASE(function)                                                                 \
    { .name = #function, .run = (function) }
#define SQLITE_CASE(function)                                                          \
    { .name = #function, .run = (function), .is_sqlite_only = true }

/* All cases in SQLite, then in PostgreSQL if there is one. */
static inline int fixture_main(const struct fixture_case *cases, size_t n) {
    enum { MOST = 64 };
    struct CMUnitTest tests[MOST];
    int n_failed = 0;
    if (n > MOST)
        return 1;
    memset(tests, 0, sizeof tests);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){.name = cases[i].name,
                                       .test_func = cases[i].run,
                                       .setup_func = fixture_sqlite_setup,
                                       .teardown_func = fixture_teardown};
    n_failed += _cmocka_run_group_tests("sqlite", tests, n, NULL, NULL);
    if (!place_postgres())
        return n_failed;
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!cases[i].is_sqlite_only)
            tests[n_kept++] = (struct CMUnitTest){.name = cases[i].name,
                                                  .test_func = cases[i].run,
                                                  .setup_func = fixture_postgres_setup,
                                                  .teardown_func = fixture_teardown};
    return n_failed + _cmocka_run_group_tests("postgres", tests, n_kept, NULL, NULL);
}

/* ---- What the cases are made of ---- */

static inline struct store_item an_item(const char *key, int64_t version,
                                        const char *text) {
    return (struct store_item){.kind = STORE_POST,
                               .mode = STORE_PSEUDONYMOUS,
                               .source = VIEW("file"),
                               .key = view_of_string(key),
                               .version = version,
                               .author = VIEW("author-hash"),
                               .text = view_of_string(text),
                               .lang = VIEW("en"),
                               .country = VIEW("US"),
                               .state = VIEW("US-CA"),
                               .drugs =
                                   VIEW("[{\"drug\":\"drugex\",\"name\":\"Drugex\","
                                        "\"begin\":3,\"end\":9}]"),
                               .posted_ns = NOON_NS,
                               .received_ns = NOON_NS + 5 * SECOND_NS,
                               .fingerprint = UINT64_C(0xfedcba9876543210)};
}

static inline struct store_item a_fold(enum store_fold fold, const char *fold_key,
                                       const char *key, int64_t version,
                                       const char *text) {
    struct store_item item = an_item(key, version, text);
    item.fold = fold;
    item.fold_key = view_of_string(fold_key);
    return item;
}

static inline struct store_item a_delete(const char *key) {
    return (struct store_item){
        .kind = STORE_DELETE, .source = VIEW("file"), .key = view_of_string(key)};
}

static inline struct store_item a_dead_line(const char *body, const char *reason) {
    return (struct store_item){.kind = STORE_DEAD,
                               .source = VIEW("file"),
                               .stage = VIEW("parse"),
                               .body = view_of_string(body),
                               .reason = view_of_string(reason),
                               .received_ns = NOON_NS};
}

static inline struct store_taken take(struct fixture *f, const struct store_item *items,
                                      size_t n) {
    struct store_take_in what = {.source = "file", .items = items, .n_items = n};
    struct store_taken taken = {0};
    assert_ok(store_take_in(f->store, &what, &taken, &error));
    return taken;
}

static inline struct store_taken take_one(struct fixture *f, struct store_item item) {
    return take(f, &item, 1);
}

/* The first column of the first row; -1: no row. sql is a constant. */
static inline int64_t number(struct fixture *f, const char *sql) {
    return place_ask(store_database(f->store), sql);
}

static inline bool is_text(struct fixture *f, const char *sql, const char *expected) {
    struct statement *st;
    bool has_row, is = false;
    assert_ok(database_prepare(store_database(f->store), sql, &st, &error));
    assert_ok(statement_step(st, &has_row, &error));
    if (has_row)
        is = view_equal(statement_get_text(st, 0), view_of_string(expected));
    if (has_row && !is)
        print_error("found: %.*s\n", (int)statement_get_text(st, 0).n_bytes,
                    statement_get_text(st, 0).data);
    statement_reset(st);
    return is;
}

static inline size_t claim(struct fixture *f, const char *worker, int64_t lease_ns,
                           struct store_claim *out, size_t cap) {
    size_t n;
    assert_ok(
        store_claim(f->store, worker, "", lease_ns, &f->arena, out, cap, &n, &error));
    return n;
}

static inline struct store_outcome an_outcome(const struct store_claim *c,
                                              enum store_outcome_kind kind) {
    return (struct store_outcome){.claim = c,
                                  .kind = kind,
                                  .reason = "server: 500",
                                  .model_name = "ade",
                                  .model_sha256 = "aa",
                                  .dtype = "int8",
                                  .label = "Adverse_Event",
                                  .score = 0.9,
                                  .probability = 0.9,
                                  .threshold = 0.6,
                                  .band = "positive",
                                  .n_tokens = 12,
                                  .n_windows = 1};
}

static inline size_t settle(struct fixture *f, const char *worker,
                            const struct store_outcome *o, size_t n) {
    size_t n_lost;
    assert_ok(store_settle(f->store, worker, o, n, &n_lost, &error));
    return n_lost;
}

static inline size_t settle_one(struct fixture *f, const char *worker,
                                const struct store_claim *c,
                                enum store_outcome_kind kind) {
    struct store_outcome o = an_outcome(c, kind);
    return settle(f, worker, &o, 1);
}

/* Classifies whatever waits. */
static inline size_t settle_all(struct fixture *f) {
    struct store_claim claims[16];
    size_t n, n_all = 0;
    while ((n = claim(f, "w", LONG_NS, claims, 16)) > 0) {
        for (size_t i = 0; i < n; i++)
            assert_int_equal(settle_one(f, "w", &claims[i], STORE_DONE), 0);
        n_all += n;
        arena_clear(&f->arena);
    }
    return n_all;
}

#endif
