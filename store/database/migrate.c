/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate.c - steps of the schema, and what the table `meta` remembers of them.
 */
#include "store/database/migrate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define BOOT_ID_BYTES 64
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

/* schema.c */
extern const char migrate_001[];

static const char *const all[] = {migrate_001};

int64_t migrate_latest(void) {
    return (int64_t)(sizeof all / sizeof *all);
}

static const char meta_exists[] =
    "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'";
static const char meta_exists_postgres[] =
    "SELECT count(*) FROM pg_catalog.pg_class WHERE oid = to_regclass('meta')";
static const char advisory_lock[] = "SELECT pg_advisory_xact_lock(6217965347163)";
static const char get_integer[] =
    "SELECT CAST(value AS @INTEGER@) FROM meta WHERE name = $1";
static const char get_text[] = "SELECT value FROM meta WHERE name = $1";
static const char put[] = "INSERT INTO meta (name, value) VALUES ($1, $2) "
                          "ON CONFLICT (name) DO UPDATE SET value = excluded.value";
static const char make_meta[] =
    "CREATE TABLE IF NOT EXISTS meta (\n"
    "  name  @TEXT@ NOT NULL PRIMARY KEY, -- schema_version, boot_id\n"
    "  value @TEXT@ NOT NULL\n"
    ") @KEYED@";
/* Nobody has anything any more, and that is nobody's fault. */
static const char free_all[] =
    "UPDATE queue SET worker = '', lease_until_ns = 0, not_before_ns = 0 "
    "WHERE worker <> '' OR lease_until_ns <> 0 OR not_before_ns <> 0";

/* *out: the first column of the only row; 0 when there is none. */
static enum status ask(struct database *db, const char *sql, const char *name,
                       int64_t *out, struct error *err) {
    struct statement *st;
    bool has_row;
    *out = 0;
    enum status status = database_prepare(db, sql, &st, err);
    if (status)
        return status;
    if (name)
        statement_text(st, 1, view_of_string(name));
    status = statement_step(st, &has_row, err);
    if (!status && has_row) {
        *out = statement_get_integer(st, 0);
        statement_reset(st);
    }
    return status;
}

/* 0: there are no tables of ours. */
static enum status version(struct database *db, int64_t *out, struct error *err) {
    bool is_sqlite = database_kind(db) == DATABASE_SQLITE;
    enum status status =
        ask(db, is_sqlite ? meta_exists : meta_exists_postgres, NULL, out, err);
    if (status || *out == 0)
        return status;
    return ask(db, get_integer, "schema_version", out, err);
}

static enum status set(struct database *db, const char *name, struct view value,
                       struct error *err) {
    struct statement *st;
    enum status status = database_prepare(db, put, &st, err);
    if (status)
        return status;
    statement_text(st, 1, view_of_string(name));
    statement_text(st, 2, value);
    return statement_finish(st, NULL, err);
}

static enum status set_version(struct database *db, int64_t value, struct error *err) {
    char digits[24];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    return set(db, "schema_version", view_of(digits + at, sizeof digits - at), err);
}

static enum status is_newer(struct database *db, int64_t has, int64_t knows,
                            struct error *err) {
    return error_set(err, STATUS_UNSUPPORTED,
                     "%s has schema %" PRId64 ", this program knows %" PRId64
                     ": use a newer program",
                     database_name(db), has, knows);
}

/* Within a transaction. */
static enum status climb(struct database *db, const char *const *steps, int64_t n,
                         struct error *err) {
    int64_t has;
    enum status status = STATUS_OK;
    if (database_kind(db) == DATABASE_POSTGRES)
        status = ask(db, advisory_lock, NULL, &has, err);
    if (!status)
        status = database_run(db, make_meta, err);
    if (!status)
        status = version(db, &has, err); /* another process may have been here */
    if (status)
        return status;
    if (has > n)
        return is_newer(db, has, n, err);
    for (; has < n; has++) {
        status = database_run(db, steps[has], err);
        if (status) {
            error_prefix(err, "schema %03" PRId64, has + 1);
            return status;
        }
    }
    return set_version(db, n, err);
}

enum status migrate_to(struct database *db, const char *const *steps, size_t n_steps,
                       struct error *err) {
    int64_t has, n = (int64_t)n_steps;
    enum status status = version(db, &has, err);
    if (status || has == n)
        return status;
    if (has > n)
        return is_newer(db, has, n, err);
    status = database_begin(db, err);
    if (status)
        return status;
    status = climb(db, steps, n, err);
    if (!status)
        return database_commit(db, err);
    database_rollback(db);
    return status;
}

enum status migrate_database(struct database *db, struct error *err) {
    return migrate_to(db, all, sizeof all / sizeof *all, err);
}

enum status migrate_check(struct database *db, struct error *err) {
    int64_t has;
    enum status status = version(db, &has, err);
    if (status)
        return status;
    if (has == 0)
        return error_set(err, STATUS_INVALID, "%s has no tables of vigil",
                         database_name(db));
    if (has > migrate_latest())
        return is_newer(db, has, migrate_latest(), err);
    if (has < migrate_latest())
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s has schema %" PRId64 ", this program needs %" PRId64
                         ": a start of vigil stream brings it there",
                         database_name(db), has, migrate_latest());
    return STATUS_OK;
}

/* ---- Boots ---- */

static enum status boot_id(char out[BOOT_ID_BYTES], size_t *n_bytes,
                           struct error *err) {
    int fd = open(BOOT_ID_FILE, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, BOOT_ID_BYTES);
    int reason = errno;
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return error_set(err, STATUS_IO, "cannot read %s: %s", BOOT_ID_FILE,
                         n < 0 ? strerror(reason) : "it is empty");
    while (n > 0 && out[n - 1] == '\n')
        n--;
    *n_bytes = (size_t)n;
    return STATUS_OK;
}

static enum status is_same_boot(struct database *db, struct view id, bool *is_same,
                                struct error *err) {
    struct statement *st;
    bool has_row;
    *is_same = false;
    enum status status = database_prepare(db, get_text, &st, err);
    if (status)
        return status;
    statement_text(st, 1, VIEW("boot_id"));
    status = statement_step(st, &has_row, err);
    if (!status && has_row) {
        *is_same = view_equal(statement_get_text(st, 0), id);
        statement_reset(st);
    }
    return status;
}

enum status migrate_boot(struct database *db, struct error *err) {
    if (database_kind(db) != DATABASE_SQLITE)
        return STATUS_OK;
    char text[BOOT_ID_BYTES];
    size_t n_bytes = 0;
    bool is_same;
    enum status status = boot_id(text, &n_bytes, err);
    if (status)
        return status;
    struct view id = view_of(text, n_bytes);
    status = is_same_boot(db, id, &is_same, err);
    if (status || is_same)
        return status;
    status = database_begin(db, err);
    if (status)
        return status;
    status = is_same_boot(db, id, &is_same, err);
    struct statement *st;
    if (!status && !is_same)
        status = database_prepare(db, free_all, &st, err);
    if (!status && !is_same)
        status = statement_finish(st, NULL, err);
    if (!status && !is_same)
        status = set(db, "boot_id", id, err);
    if (!status)
        return database_commit(db, err);
    database_rollback(db);
    return status;
}
