/* SPDX-License-Identifier: Apache-2.0
 *
 * database.h - the seam below the store: one SQL database, SQLite or PostgreSQL.
 *
 * What the store says in SQL it says once. Statements are written in what both understand:
 * parameters $1, $2, … that first appear in this order, INSERT … ON CONFLICT … RETURNING,
 * integers of 64 bits, text, bytes. The little that differs stands in words between @ signs,
 * which each database replaces: @ID@ (a key that numbers itself), @BYTES@ (the type),
 * @SKIP_LOCKED@ (rows that another worker has are passed over; nothing in SQLite, where a
 * writer is alone), @NOW@ (the database's clock in ns, that all workers share).
 *
 * SQLite, and the write-ahead log: before 3.51.3 two connections that write or checkpoint at
 * the same moment can lose what was committed. So each transaction that writes and each
 * checkpoint happens under the store's lock file (PATH-lock, an open-file-description lock),
 * whichever process and thread it is; synchronous=FULL, secure_delete=ON, no mmap, no
 * checkpoint at closing.
 *
 * Threads: one at a time.
 */
#ifndef VIGIL_STORE_DATABASE_H
#define VIGIL_STORE_DATABASE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/view.h"

enum database_mode {
    DATABASE_CREATE, /* read and write; made, and migrated, when needed */
    DATABASE_WRITE,  /* read and write what is there; STATUS_NOT_FOUND otherwise */
    DATABASE_READ,   /* read only, as safe for statements of strangers: see query.c */
};

enum database_kind { DATABASE_SQLITE, DATABASE_POSTGRES };

struct database;
struct statement;

/* url: "postgres://…" (libpq's), else SQLite: a path, or "sqlite:PATH". */
enum status database_open(const char *url, enum database_mode mode,
                          struct database **out, struct error *err);
void database_close(struct database *db);
enum database_kind database_kind(const struct database *db);
/* Without user and password: for logs and messages. */
const char *database_name(const struct database *db);

/* A transaction that writes: waits for the lock (at most 30 s, then STATUS_BUSY). When any
 * call in between fails, roll back. A lost connection is STATUS_IO: nothing of the
 * transaction happened unless it was lost within commit. */
enum status database_begin(struct database *db, struct error *err);
/* Durable on return. */
enum status database_commit(struct database *db, struct error *err);
void database_rollback(struct database *db); /* no-op outside a transaction */

/* Several statements, without parameters or rows. */
enum status database_run(struct database *db, const char *sql, struct error *err);

/* A statement with its parameters; kept by its text, so asking again is cheap. sql must be a
 * constant: it is known by its address. It belongs to db. */
enum status database_prepare(struct database *db, const char *sql,
                             struct statement **out, struct error *err);
/* Parameters are numbered from 1. Bytes must live until the statement is reset. */
void statement_integer(struct statement *st, int n, int64_t value);
void statement_real(struct statement *st, int n, double value);
void statement_text(struct statement *st, int n, struct view value);
void statement_bytes(struct statement *st, int n, struct view value);
void statement_null(struct statement *st, int n);
/* The next row. *has_row false: done, and reset. */
enum status statement_step(struct statement *st, bool *has_row, struct error *err);
/* Runs to the end, drops rows, resets. *n_changed (may be NULL): rows that it changed. */
enum status statement_finish(struct statement *st, int64_t *n_changed,
                             struct error *err);
/* The same for a statement whose rows and count nobody wants; PostgreSQL may put it off to
 * the next call that waits, so an error may show as late as commit. */
enum status statement_send(struct statement *st, struct error *err);
/* Forgets the rest of the rows and the parameters. */
void statement_reset(struct statement *st);
/* Columns from 0, of the row that step gave; views are good until the next step or reset. */
int64_t statement_get_integer(struct statement *st, int column);
double statement_get_real(struct statement *st, int column);
struct view statement_get_text(struct statement *st, int column);
bool statement_is_null(struct statement *st, int column);

/* Moves what is in the write-ahead log into the database and empties the log (SQLite; a
 * no-op elsewhere). For erasing and before a backup. */
enum status database_checkpoint(struct database *db, struct error *err);

#endif
