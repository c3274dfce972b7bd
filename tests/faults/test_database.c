/* SPDX-License-Identifier: Apache-2.0
 *
 * test_database.c - each of our allocations between the store's database and its callers
 * fails once, and once for ever: a status that says no memory, nothing written by halves, and
 * the next try works. What SQLite and libpq allocate themselves is theirs to test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/faults/faults.h"
#include "tests/unit/store_fixture.h"

static struct place at;

static enum status add(struct database *db, struct error *err) {
    static const char put[] =
        "INSERT INTO cursors (source, cursor, updated_ns) VALUES ($1, $2, @NOW@)";
    struct statement *st;
    enum status status = database_prepare(db, put, &st, err);
    for (int i = 0; !status && i < 3; i++) {
        char source[] = {'a', (char)('0' + i), 0};
        statement_text(st, 1, view_of(source, 2));
        statement_text(st, 2, VIEW("x\0y\xFF")); /* a copy is made of it */
        status = statement_send(st, err);
    }
    return status;
}

static enum status look(struct database *db, int64_t *n, struct error *err) {
    static const char count[] = "SELECT count(*), $1 FROM cursors";
    struct statement *st;
    bool has_row;
    enum status status = database_prepare(db, count, &st, err);
    if (status)
        return status;
    statement_bytes(st, 1, VIEW("\0\1\2"));
    status = statement_step(st, &has_row, err);
    if (status)
        return status;
    *n = statement_get_integer(st, 0);
    bool is_whole = statement_get_text(st, 1).n_bytes == 3;
    statement_reset(st);
    return is_whole ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "bytes are missing");
}

static enum status run(struct error *err) {
    struct database *db;
    int64_t n = 0;
    enum status status = database_open(at.url, DATABASE_CREATE, &db, err);
    if (status)
        return status;
    status = database_begin(db, err);
    if (!status)
        status = database_run(db, "DELETE FROM cursors", err);
    if (!status)
        status = add(db, err);
    if (!status)
        status = database_commit(db, err);
    if (!status)
        status = look(db, &n, err);
    if (!status && n != 3)
        status = error_set(err, STATUS_INTERNAL, "rows are missing");
    database_close(db);
    return status;
}

static void fails_each(void) {
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        size_t k = 1;
        for (;; k++) {
            error = (struct error){0};
            faults_arm(k, for_ever);
            enum status status = run(&error);
            size_t n_failed = faults_disarm();
            if (n_failed == 0) {
                assert_ok(status);
                break;
            }
            if (status != STATUS_NO_MEMORY || !error.message[0])
                fail_msg("allocation %zu: %s \"%s\"", k, status_name(status),
                         error.message);
            if (k % 7 == 0)
                assert_ok(run(&error));
            assert_true(k < 10000);
        }
        assert_true(k > 5);
    }
}

static void fails_sqlite(void **state) {
    (void)state;
    place_make_sqlite(&at);
    fails_each(); /* the first of them make the store */
    place_remove(&at);
}

static void fails_postgres(void **state) {
    (void)state;
    if (!place_postgres())
        skip();
    place_make_postgres(&at);
    fails_each();
}

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_sqlite),
        cmocka_unit_test(fails_postgres),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
