/* SPDX-License-Identifier: Apache-2.0
 *
 * test_database.c - store/database over SQLite, and over PostgreSQL where there is one: what
 * both must do in the same way. Files and crashes of SQLite are test_sqlite.c's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "store/database/migrate.h"
#include "tests/unit/store_fixture.h"

static const char make_things[] = "CREATE TABLE things (id @ID@, i @INTEGER@, r "
                                  "@REAL@, t @TEXT@, b @BYTES@) @STRICT@";
static const char put_thing[] =
    "INSERT INTO things (i, r, t, b) VALUES ($1, $2, $3, $4)";
static const char put_id[] = "INSERT INTO things (id, i) VALUES ($1, 1)";
static const char get_things[] = "SELECT i, r, t, b FROM things ORDER BY id";
static const char count_things[] = "SELECT count(*) FROM things";

static struct database *open_with_things(const struct place *at) {
    struct database *db = place_open(at, DATABASE_CREATE);
    place_run(db, make_things);
    return db;
}

static struct statement *prepare(struct database *db, const char *sql) {
    struct statement *st;
    assert_ok(database_prepare(db, sql, &st, &error));
    return st;
}

static void put(struct database *db, int64_t i, double r, struct view t,
                struct view b) {
    struct statement *st = prepare(db, put_thing);
    int64_t n;
    statement_integer(st, 1, i);
    statement_real(st, 2, r);
    statement_text(st, 3, t);
    statement_bytes(st, 4, b);
    assert_ok(statement_finish(st, &n, &error));
    assert_int_equal(n, 1);
}

static void send_id(struct database *db, int64_t id) {
    struct statement *st = prepare(db, put_id);
    statement_integer(st, 1, id);
    assert_ok(statement_send(st, &error));
}

static bool step(struct statement *st) {
    bool has_row;
    assert_ok(statement_step(st, &has_row, &error));
    return has_row;
}

static void expect_text(struct statement *st, int column, struct view wanted) {
    struct view got = statement_get_text(st, column);
    assert_int_equal(got.n_bytes, wanted.n_bytes);
    assert_memory_equal(got.data, wanted.data, wanted.n_bytes);
}

#define BAD "\xEF\xBF\xBD"

static void keeps_every_value(void **state) {
    struct database *db = open_with_things(*state);
    char all[256];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)i;
    assert_ok(database_begin(db, &error));
    struct statement *st = prepare(db, put_thing);
    for (int i = 1; i <= 4; i++)
        statement_null(st, i);
    assert_ok(statement_finish(st, NULL, &error));
    put(db, INT64_MIN, -DBL_MAX, VIEW(""), VIEW(""));
    put(db, INT64_MAX, 5e-324, VIEW("a\0b"), view_of(all, sizeof all));
    put(db, -1, 0.1, VIEW("ok \xF0\x9F\x92\x8A \xC3\xA9"), VIEW("\0"));
    /* A surrogate, an overlong NUL, what is cut off, what is above the last, a lone byte. */
    put(db, 0, 1e308,
        VIEW("x\xED\xA0\x80y\xC0\x80z\xF0\x9F\x92|\xF4\x90\x80\x80 12345678\xFF"),
        VIEW("\xFF\xFE"));
    statement_integer(st, 1, 7); /* what is not set is NULL */
    assert_ok(statement_finish(st, NULL, &error));
    assert_ok(database_commit(db, &error));

    struct statement *get = prepare(db, get_things);
    assert_true(step(get));
    for (int i = 0; i < 4; i++)
        assert_true(statement_is_null(get, i));
    assert_int_equal(statement_get_integer(get, 0), 0);
    expect_text(get, 2, VIEW(""));
    assert_true(step(get));
    assert_true(statement_get_integer(get, 0) == INT64_MIN);
    assert_true(statement_get_real(get, 1) == -DBL_MAX);
    assert_int_equal(statement_type(get, 2), STATEMENT_TEXT);
    expect_text(get, 2, VIEW(""));
    assert_int_equal(statement_type(get, 3), STATEMENT_BYTES);
    expect_text(get, 3, VIEW(""));
    assert_true(step(get));
    assert_true(statement_get_integer(get, 0) == INT64_MAX);
    assert_true(statement_get_real(get, 1) == 5e-324);
    expect_text(get, 2, VIEW("a" BAD "b"));
    expect_text(get, 3, view_of(all, sizeof all));
    expect_text(get, 3, view_of(all, sizeof all)); /* again */
    assert_true(step(get));
    assert_int_equal(statement_type(get, 0), STATEMENT_INTEGER);
    assert_int_equal(statement_type(get, 1), STATEMENT_REAL);
    assert_true(statement_get_real(get, 1) == 0.1);
    expect_text(get, 2, VIEW("ok \xF0\x9F\x92\x8A \xC3\xA9"));
    expect_text(get, 3, VIEW("\0"));
    assert_true(step(get));
    expect_text(get, 2,
                VIEW("x" BAD BAD BAD "y" BAD BAD "z" BAD BAD BAD "|" BAD BAD BAD BAD
                     " 12345678" BAD));
    expect_text(get, 3, VIEW("\xFF\xFE"));
    assert_true(step(get));
    assert_int_equal(statement_get_integer(get, 0), 7);
    assert_true(statement_is_null(get, 2));
    assert_false(step(get));
    database_close(db);
}

/* The type of a parameter is that of its value, whatever it was the last time. */
static void takes_any_type(void **state) {
    static const char same[] = "SELECT $1";
    struct database *db = open_with_things(*state);
    for (int i = 0; i < 6; i++) {
        struct statement *st = prepare(db, same);
        if (i == 1 || i == 3)
            statement_integer(st, 1, -7);
        else if (i == 2 || i == 5)
            statement_text(st, 1, VIEW("text"));
        else
            statement_null(st, 1);
        assert_true(step(st));
        assert_int_equal(statement_type(st, 0), i == 1 || i == 3   ? STATEMENT_INTEGER
                                                : i == 2 || i == 5 ? STATEMENT_TEXT
                                                                   : STATEMENT_NULL);
        if (i == 1 || i == 3)
            assert_int_equal(statement_get_integer(st, 0), -7);
        assert_false(step(st));
    }
    database_close(db);
}

static void refuses_bad_parameters(void **state) {
    struct database *db = open_with_things(*state);
    assert_ok(database_begin(db, &error));
    struct statement *st = prepare(db, put_thing);
    statement_real(st, 2, (double)NAN);
    assert_int_not_equal(statement_finish(st, NULL, &error), STATUS_OK);
    statement_integer(st, 5, 1);
    assert_int_not_equal(statement_finish(st, NULL, &error), STATUS_OK);
    statement_integer(st, 0, 1);
    assert_int_not_equal(statement_send(st, &error), STATUS_OK);
    statement_integer(st, 1, 1); /* the next is not touched by it */
    assert_ok(statement_finish(st, NULL, &error));
    assert_ok(database_commit(db, &error));
    assert_int_equal(place_ask(db, count_things), 1);
    database_close(db);
}

static void commits_and_rolls_back(void **state) {
    struct database *db = open_with_things(*state);
    struct database *other = place_open(*state, DATABASE_WRITE);
    assert_int_equal(database_commit(db, &error), STATUS_INTERNAL);
    database_rollback(db);
    assert_ok(database_begin(db, &error));
    assert_int_equal(database_begin(db, &error), STATUS_INTERNAL);
    put(db, 1, 1, VIEW("a"), VIEW("a"));
    send_id(db, 100);
    assert_int_equal(place_ask(other, count_things), 0);
    database_rollback(db);
    assert_int_equal(place_ask(db, count_things), 0);
    assert_ok(database_begin(db, &error));
    put(db, 1, 1, VIEW("a"), VIEW("a"));
    assert_ok(database_commit(db, &error));
    assert_int_equal(place_ask(other, count_things), 1);
    /* What writes outside a transaction would not have the lock. */
    struct statement *st = prepare(db, put_id);
    statement_integer(st, 1, 5);
    assert_int_equal(statement_finish(st, NULL, &error), STATUS_INTERNAL);
    assert_int_equal(database_run(db, "DELETE FROM things", &error), STATUS_INTERNAL);
    assert_int_equal(place_ask(other, count_things), 1);
    /* Closing rolls back. */
    assert_ok(database_begin(db, &error));
    put(db, 1, 1, VIEW("a"), VIEW("a"));
    database_close(db);
    assert_int_equal(place_ask(other, count_things), 1);
    database_close(other);
}

static void sends_many(void **state) {
    struct database *db = open_with_things(*state);
    assert_ok(database_begin(db, &error));
    for (int64_t i = 0; i < 2500; i++)
        send_id(db, 1000 + i);
    assert_int_equal(place_ask(db, count_things), 2500); /* in between */
    for (int64_t i = 0; i < 10; i++)
        send_id(db, 5000 + i);
    assert_ok(database_commit(db, &error));
    assert_int_equal(place_ask(db, count_things), 2510);
    database_close(db);
}

/* An error of a statement that was sent shows by commit, and nothing is kept. */
static void tells_errors_by_commit(void **state) {
    struct database *db = open_with_things(*state);
    for (int asks = 0; asks < 2; asks++) {
        assert_ok(database_begin(db, &error));
        enum status status = STATUS_OK;
        for (int i = 0; !status && i < 5; i++) {
            struct statement *st = prepare(db, put_id);
            statement_integer(st, 1, i == 3 ? 11 : 10 + i);
            status = statement_send(st, &error);
        }
        if (!status && asks) {
            bool has_row;
            assert_int_equal(
                statement_step(prepare(db, count_things), &has_row, &error),
                STATUS_INVALID);
            /* The server would say yes to a commit, and roll back. */
            assert_int_equal(database_commit(db, &error), STATUS_INTERNAL);
        } else {
            assert_int_equal(status ? status : database_commit(db, &error),
                             STATUS_INVALID);
            assert_non_null(strstr(error.message, "things"));
        }
        database_rollback(db);
        assert_int_equal(place_ask(db, count_things), 0);
    }
    assert_ok(database_begin(db, &error));
    send_id(db, 10);
    assert_ok(database_commit(db, &error));
    assert_int_equal(place_ask(db, count_things), 1);
    database_close(db);
}

static void counts_changes(void **state) {
    static const char upsert[] = "INSERT INTO things (id, i) VALUES ($1, $2) "
                                 "ON CONFLICT (id) DO UPDATE SET i = excluded.i "
                                 "WHERE things.i < excluded.i RETURNING id, i";
    static const char again[] =
        "INSERT INTO things (id) VALUES ($1) ON CONFLICT (id) DO NOTHING";
    static const char all[] = "UPDATE things SET i = i + 1 WHERE id >= $1";
    struct database *db = open_with_things(*state);
    int64_t n;
    assert_ok(database_begin(db, &error));
    struct statement *st = prepare(db, upsert);
    for (int64_t i = 1; i <= 3; i++) {
        statement_integer(st, 1, i == 3 ? 1 : i);
        statement_integer(st, 2, i);
        assert_true(step(st));
        assert_int_equal(statement_get_integer(st, 1), i);
        assert_false(step(st));
    }
    statement_integer(st, 1, 1);
    statement_integer(st, 2, 3); /* not larger */
    assert_false(step(st));
    statement_integer(st, 1, 9);
    statement_integer(st, 2, 9);
    assert_ok(statement_finish(st, &n, &error)); /* rows dropped, but counted */
    assert_int_equal(n, 1);
    st = prepare(db, again);
    statement_integer(st, 1, 1);
    assert_ok(statement_finish(st, &n, &error));
    assert_int_equal(n, 0);
    st = prepare(db, all);
    statement_integer(st, 1, 0);
    assert_ok(statement_finish(st, &n, &error));
    assert_int_equal(n, 3);
    assert_ok(statement_finish(prepare(db, count_things), &n, &error));
    assert_int_equal(n, 0);
    assert_ok(database_commit(db, &error));
    database_close(db);
}

/* Statements within the rows of another, and rows that nobody takes. */
static void nests(void **state) {
    static const char ids[] = "SELECT id FROM things ORDER BY id";
    static const char after[] = "SELECT id FROM things WHERE id > $1 ORDER BY id";
    struct database *db = open_with_things(*state);
    for (int is_begun = 0; is_begun < 2; is_begun++) {
        assert_ok(database_begin(db, &error));
        for (int64_t i = 1; i <= 300 && !is_begun; i++)
            send_id(db, i);
        if (!is_begun)
            assert_ok(database_commit(db, &error));
        struct statement *outer = prepare(db, ids), *inner = prepare(db, after);
        for (int64_t i = 1; i <= 300; i++) {
            assert_true(step(outer));
            assert_int_equal(statement_get_integer(outer, 0), i);
            statement_integer(inner, 1, i);
            if (i < 300) {
                assert_true(step(inner));
                assert_int_equal(statement_get_integer(inner, 0), i + 1);
            }
            statement_reset(inner);
        }
        assert_false(step(outer));
        assert_true(step(outer)); /* from the start */
        assert_int_equal(statement_get_integer(outer, 0), 1);
        statement_reset(outer);
        assert_int_equal(place_ask(db, count_things), 300);
        if (is_begun)
            assert_ok(database_commit(db, &error));
    }
    database_close(db);
}

static void keeps_statements(void **state) {
    struct database *db = open_with_things(*state);
    struct statement *st = prepare(db, count_things), *bad;
    assert_ptr_equal(prepare(db, count_things), st);
    assert_ptr_not_equal(prepare(db, put_id), st);
    assert_int_equal(
        place_ask(db, "SELECT count(*) FROM things WHERE t = 'a@b @x @I@ $9'"), 0);
    static const char *const wrong[] = {"SELEC 1", "SELECT * FROM nothing",
                                        "SELECT 1; SELECT 2"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(database_prepare(db, wrong[i], &bad, &error), STATUS_INVALID);
        assert_null(bad);
    }
    database_close(db);
}

static void has_a_clock(void **state) {
    static const char now[] = "SELECT @NOW@";
    struct database *db = open_with_things(*state);
    int64_t last = 0;
    for (int i = 0; i < 20; i++) {
        int64_t next = place_ask(db, now);
        assert_true(next > 0 && next >= last);
        last = next;
    }
    database_close(db);
}

static void migrates(void **state) {
    static const char version[] =
        "SELECT CAST(value AS @INTEGER@) FROM meta WHERE name = 'schema_version'";
    const struct place *at = *state;
    struct database *db = place_open(at, DATABASE_CREATE);
    assert_int_equal(place_ask(db, version), migrate_latest());
    place_run(db,
              "INSERT INTO cursors (source, cursor, updated_ns) VALUES ('x', 'c', 1)");
    assert_ok(migrate_database(db, &error)); /* again: nothing */
    /* Steps of a later program: what fails leaves nothing behind. */
    static const char *const bad[] = {
        "", "CREATE TABLE two (id @ID@) @STRICT@",
        "CREATE TABLE three (id @ID@) @STRICT@; nonsense"};
    static const char *const good[] = {"", "CREATE TABLE two (id @ID@) @STRICT@",
                                       "CREATE TABLE three (id @ID@) @STRICT@"};
    assert_int_equal(migrate_to(db, bad, 3, &error), STATUS_INVALID);
    assert_non_null(strstr(error.message, "schema 003"));
    assert_int_equal(place_ask(db, version), migrate_latest());
    assert_ok(migrate_to(db, good, 3, &error));
    assert_int_equal(place_ask(db, version), 3);
    assert_int_equal(place_ask(db, "SELECT count(*) FROM three"), 0);
    assert_int_equal(place_ask(db, "SELECT count(*) FROM cursors"), 1);
    /* This program does not know version 3. */
    struct database *newer;
    for (int mode = DATABASE_CREATE; mode <= DATABASE_READ; mode++) {
        assert_int_equal(
            database_open(at->url, (enum database_mode)mode, &newer, &error),
            STATUS_UNSUPPORTED);
        assert_non_null(strstr(error.message, "has schema 3, this program knows 1"));
        assert_null(newer);
    }
    place_run(db, "UPDATE meta SET value = '1' WHERE name = 'schema_version'");
    database_close(db);
}

static void refuses_older_unless_creating(void **state) {
    const struct place *at = *state;
    struct database *keeper = place_open(at, DATABASE_CREATE), *db;
    place_run(keeper, "UPDATE meta SET value = '0' WHERE name = 'schema_version'");
    assert_int_equal(database_open(at->url, DATABASE_READ, &db, &error),
                     STATUS_INVALID);
    assert_int_equal(database_open(at->url, DATABASE_WRITE, &db, &error),
                     STATUS_INVALID);
    assert_int_not_equal(database_open(at->url, DATABASE_CREATE, &db, &error),
                         STATUS_OK);
    assert_non_null(strstr(error.message, "schema 001")); /* its tables are there */
    place_run(keeper, "UPDATE meta SET value = '1' WHERE name = 'schema_version'");
    database_close(keeper);
}

/* What a stranger's statement may do: read, not for long. */
static void reads_only(void **state) {
    static const char *const forbidden[] = {
        "DELETE FROM things",
        "INSERT INTO things (i) VALUES (1)",
        "UPDATE things SET i = 2",
        "DROP TABLE things",
        "CREATE TABLE more (i integer)",
        "SELECT 1; DELETE FROM things",
        "WITH x AS (SELECT 1) DELETE FROM things",
    };
    const struct place *at = *state;
    struct database *db = open_with_things(at), *reader;
    place_run(db, "INSERT INTO things (i, r, t, b) VALUES (1, 0.5, 'a', NULL)");
    reader = place_open(at, DATABASE_READ);
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        struct statement *st;
        enum status status = database_prepare(reader, forbidden[i], &st, &error);
        if (!status)
            status = statement_finish(st, NULL, &error);
        if (status != STATUS_UNSUPPORTED && status != STATUS_INVALID)
            fail_msg("%s: %s", forbidden[i], status_name(status));
    }
    struct statement *st =
        prepare(reader, "SELECT i AS one, r, t AS \"a b\", b FROM things");
    assert_int_equal(statement_n_columns(st), 4);
    assert_string_equal(statement_column_name(st, 0), "one");
    assert_string_equal(statement_column_name(st, 2), "a b");
    assert_true(step(st));
    assert_int_equal(statement_get_integer(st, 0), 1);
    assert_int_equal(statement_type(st, 3), STATEMENT_NULL);
    statement_reset(st);
    /* In a transaction all statements see the same. */
    assert_ok(database_begin(reader, &error));
    assert_int_equal(place_ask(reader, count_things), 1);
    place_run(db, "INSERT INTO things (i) VALUES (2)");
    assert_int_equal(place_ask(reader, count_things), 1);
    assert_ok(database_commit(reader, &error));
    assert_int_equal(place_ask(reader, count_things), 2);

    assert_ok(database_limit(reader, INT64_C(50000000), 1 << 20, &error));
    st = prepare(reader,
                 "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                 "WHERE i < 2000000000) SELECT count(*) FROM n WHERE i < 0");
    bool has_row;
    assert_int_equal(statement_step(st, &has_row, &error), STATUS_TIMEOUT);
    assert_int_equal(place_ask(reader, count_things), 2);
    assert_ok(database_limit(reader, 0, 0, &error));
    assert_int_equal(place_ask(reader, count_things), 2);
    database_close(reader);
    database_close(db);
}

static void counts_drugs(void **state) {
    static const char rows[] =
        "INSERT INTO posts (id, key, version, source, mode, text, received_ns, "
        "n_reposts) "
        "VALUES (1, 'x:1', 2, 'x', 0, 'a', 1, 3), (2, 'x:2', 1, 'x', 0, 'b', 1, 0),"
        " (3, 'x:3', 1, 'x', 0, 'c', 1, 0);"
        "INSERT INTO results (post_id, version, model_sha256, model_name, dtype, "
        "label, "
        "score, probability, threshold, band, n_tokens, n_windows, is_truncated, "
        "created_ns) "
        "VALUES (1, 1, 'aa', 'm', 'int8', 'other', 1, 0, 0.6, 'negative', 1, 1, 0, 9),"
        " (1, 2, 'aa', 'm', 'int8', 'other', 1, 0, 0.6, 'negative', 1, 1, 0, 10),"
        " (1, 2, 'bb', 'm', 'int8', 'event', 1, 1, 0.6, 'positive', 1, 1, 0, 11),"
        " (2, 1, 'aa', 'm', 'int8', 'event', 1, 1, 0.6, 'positive', 1, 1, 0, 10);"
        "INSERT INTO mentions (post_id, version, model_sha256, n, type, text, drug, "
        "begin_cp,"
        " end_cp, score) VALUES (1, 2, 'aa', 0, 'WATCH', 'a', 'aspirin', 0, 1, 1),"
        " (1, 2, 'bb', 0, 'WATCH', 'a', 'aspirin', 0, 1, 1),"
        " (1, 2, 'bb', 1, 'WATCH', 'a', 'aspirin', 2, 3, 1),"
        " (1, 2, 'bb', 2, 'DRUG', 'z', 'zoloft', 2, 3, 1),"
        " (2, 1, 'aa', 0, 'WATCH', 'a', 'aspirin', 0, 1, 1),"
        " (2, 1, 'aa', 1, 'WATCH', 'z', 'zoloft', 0, 1, 1);"
        "INSERT INTO aggregates (day, source, drug, label, lang, country, state, "
        "n_posts,"
        " n_reposts) VALUES ('2026-11-26', 'x', 'aspirin', 'event', 'en', 'US', '', "
        "40, 5),"
        " ('2026-11-27', 'x', 'aspirin', 'event', 'en', 'US', '', 2, 0),"
        " ('2026-11-27', 'x', '', 'other', 'en', 'US', '', 2, 0)";
    struct database *db = place_open(*state, DATABASE_CREATE);
    place_run(db, rows);
    assert_int_equal(place_ask(db, "SELECT count(*) FROM cases"), 2);
    assert_int_equal(place_ask(db, "SELECT count(*) FROM drug_labels"), 2);
    assert_int_equal(
        place_ask(
            db, "SELECT n FROM drug_labels WHERE drug = 'aspirin' AND label = 'event'"),
        44);
    assert_int_equal(
        place_ask(db, "SELECT n_folded FROM drug_labels WHERE drug = 'aspirin'"), 8);
    assert_int_equal(place_ask(db, "SELECT n FROM drug_labels WHERE drug = 'zoloft'"),
                     1);
    /* Nothing is left without what it belongs to. */
    place_run(db, "DELETE FROM posts WHERE id = 1");
    assert_int_equal(place_ask(db, "SELECT count(*) FROM results WHERE post_id = 1"),
                     0);
    assert_int_equal(place_ask(db, "SELECT count(*) FROM mentions WHERE post_id = 1"),
                     0);
    assert_ok(database_begin(db, &error));
    enum status status = database_run(
        db,
        "INSERT INTO mentions (post_id, version, model_sha256, n, type, text, begin_cp,"
        " end_cp, score) VALUES (77, 1, 'aa', 0, 'ADE', 'a', 0, 1, 1)",
        &error);
    assert_int_equal(status, STATUS_INVALID);
    database_rollback(db);
    database_close(db);
}

/* ---- PostgreSQL alone ---- */

static void recovers_connections(void **state) {
    static const char pid[] = "SELECT pg_backend_pid()";
    static const char end[] = "SELECT pg_terminate_backend(CAST($1 AS integer), 5000)";
    struct database *db = open_with_things(*state);
    struct database *other = place_open(*state, DATABASE_WRITE);
    for (int in_transaction = 0; in_transaction < 3; in_transaction++) {
        int64_t before = place_ask(db, pid);
        if (in_transaction) {
            assert_ok(database_begin(db, &error));
            send_id(db, 1);
        }
        if (in_transaction == 2) /* it is sent */
            assert_int_equal(place_ask(db, count_things), 1);
        struct statement *st = prepare(other, end);
        statement_integer(st, 1, before);
        if (in_transaction == 0) {
            assert_true(step(st));
            statement_reset(st);
            assert_int_equal(place_ask(db, count_things), 0); /* connects anew */
        } else {
            assert_true(step(st));
            statement_reset(st);
            assert_int_equal(database_commit(db, &error), STATUS_IO);
            assert_int_equal(place_ask(other, count_things), 0);
        }
        assert_int_not_equal(place_ask(db, pid), before);
    }
    /* Found dead by begin. */
    struct statement *st = prepare(other, end);
    statement_integer(st, 1, place_ask(db, pid));
    assert_true(step(st));
    statement_reset(st);
    assert_ok(database_begin(db, &error));
    send_id(db, 1);
    assert_ok(database_commit(db, &error));
    assert_int_equal(place_ask(db, count_things), 1);
    database_close(db);
    database_close(other);
}

static void forbids_more(void **state) {
    static const char *const forbidden[] = {"SET transaction_read_only = off",
                                            "COMMIT",
                                            "DO $$BEGIN END$$",
                                            "COPY things TO '/tmp/vigil-things'",
                                            "-- SELECT\nBEGIN",
                                            "SELECTED",
                                            "SELECT nextval('things_id_seq')",
                                            "EXPLAIN ANALYZE DELETE FROM things"};
    struct database *db = open_with_things(*state);
    struct database *reader = place_open(*state, DATABASE_READ);
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        struct statement *st;
        enum status status = database_prepare(reader, forbidden[i], &st, &error);
        if (!status)
            status = statement_finish(st, NULL, &error);
        if (status != STATUS_UNSUPPORTED)
            fail_msg("%s: %s %s", forbidden[i], status_name(status), error.message);
    }
    assert_int_equal(place_ask(reader, " -- a\n (SELECT 3)"), 3);
    database_close(reader);
    database_close(db);
}

static void hides_the_password(void **state) {
    (void)state;
    const char *url = place_postgres();
    const char *colon = strchr(strstr(url, "://") + 3, ':'), *at = strchr(url, '@');
    assert_true(colon && at && colon < at);
    char password[100], wrong[512];
    snprintf(password, sizeof password, "%.*s", (int)(at - colon - 1), colon + 1);
    struct database *db;
    assert_ok(database_open(url, DATABASE_CREATE, &db, &error));
    assert_null(strstr(database_name(db), password));
    assert_non_null(strstr(database_name(db), "postgres://127.0.0.1:"));
    database_close(db);
    static const char *const urls[] = {
        "postgres://vigil:sesame77%s", "postgres://vigil:sesame77%%zz%s",
        "postgres://vigil:sesame77@127.0.0.1:port/x",
        "postgres://vigil:sesame77@[::1/x",
        "postgres://vigil:sesame77@127.0.0.1:1/sesame77"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        const char *from = strstr(urls[i], "%s");
        size_t n = from ? (size_t)(from - urls[i]) : strlen(urls[i]);
        snprintf(wrong, sizeof wrong, "%.*s%s", (int)n, urls[i], from ? at : "");
        assert_int_not_equal(database_open(wrong, DATABASE_CREATE, &db, &error),
                             STATUS_OK);
        if (i < 4)
            assert_null(strstr(error.message, "sesame77"));
        assert_true(error.message[0] != 0);
    }
}

/* Nothing of a value is in a message. */
static void hides_values(void **state) {
    static const char cast[] = "SELECT CAST($1 AS bigint)";
    struct database *db = open_with_things(*state);
    struct statement *st = prepare(db, cast);
    bool has_row;
    statement_text(st, 1, VIEW("sesame77"));
    assert_int_equal(statement_step(st, &has_row, &error), STATUS_INVALID);
    assert_null(strstr(error.message, "sesame77"));
    assert_non_null(strstr(error.message, "22P02"));
    database_close(db);
}

#define ON_SQLITE(f)                                                                   \
    cmocka_unit_test_setup_teardown(f, place_sqlite_setup, place_teardown)
#define ON_POSTGRES(f)                                                                 \
    cmocka_unit_test_setup_teardown(f, place_postgres_setup, place_teardown)
#define COMMON(on)                                                                     \
    on(keeps_every_value), on(takes_any_type), on(refuses_bad_parameters),             \
        on(commits_and_rolls_back), on(sends_many), on(tells_errors_by_commit),        \
        on(counts_changes), on(nests), on(keeps_statements), on(has_a_clock),          \
        on(migrates), on(refuses_older_unless_creating), on(reads_only),               \
        on(counts_drugs)

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    const struct CMUnitTest on_sqlite[] = {COMMON(ON_SQLITE)};
    const struct CMUnitTest on_postgres[] = {
        COMMON(ON_POSTGRES),       ON_POSTGRES(recovers_connections),
        ON_POSTGRES(forbids_more), ON_POSTGRES(hides_the_password),
        ON_POSTGRES(hides_values),
    };
    int n = cmocka_run_group_tests_name("sqlite", on_sqlite, NULL, NULL);
    if (place_postgres())
        n += cmocka_run_group_tests_name("postgres", on_postgres, NULL, NULL);
    return n;
}
