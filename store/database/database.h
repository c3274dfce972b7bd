/* SPDX-License-Identifier: Apache-2.0
 *
 * database.h - the seam below the store: one SQL database, SQLite or PostgreSQL.
 *
 * What the store says in SQL it says once. Statements are written in what both understand:
 * parameters $1, $2, … that first appear in this order, INSERT … ON CONFLICT … RETURNING,
 * integers of 64 bits, text, bytes. The little that differs stands in words between @ signs,
 * which each database replaces:
 *   @SKIP_LOCKED@  behind a SELECT: FOR UPDATE SKIP LOCKED, so that rows which another worker
 *                  is taking are passed over; nothing in SQLite, where a writer is alone
 *   @FOR_UPDATE@   the same, but waits for them
 *   @NOW@          the clock in ns that all workers share: PostgreSQL's, or in SQLite the
 *                  time since the machine started. It never goes back there, whatever is done
 *                  to the wall clock; when the machine was started anew, opening ends all
 *                  leases and waits of the queue.
 *   @ID@ @INTEGER@ @REAL@ @TEXT@ @BYTES@ @STRICT@ @KEYED@  of the schema: see there
 *
 * Text is UTF-8 without NUL in both: on its way in, U+0000 and each byte that is not UTF-8
 * become U+FFFD. Bytes are kept as they are. Reals must be finite.
 *
 * SQLite, and the write-ahead log: before 3.51.3 two connections that write or checkpoint at
 * the same moment can lose what was committed. So each transaction that writes and each
 * checkpoint happens under the store's lock file (PATH-lock, an open-file-description lock),
 * whichever process and thread it is; synchronous=FULL, secure_delete=ON, no mmap, no
 * checkpoint at closing.
 *
 * Threads: one at a time.
 */
#ifndef VIGIL_STORE_DATABASE_DATABASE_H
#define VIGIL_STORE_DATABASE_DATABASE_H

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

/* url: "postgres://…" or "postgresql://…" (libpq's), else SQLite: a path, or
 * "sqlite:PATH[?vfs=NAME][&checkpoint-pages=N][&dangerous-synchronous=off]" (for tests: another
 * file system; checkpoints at a log of N pages; what was committed is lost with the power). A store that a newer program made is
 * STATUS_UNSUPPORTED, some other database STATUS_INVALID. */
enum status database_open(const char *url, enum database_mode mode,
                          struct database **out, struct error *err);
void database_close(struct database *db);
enum database_kind database_kind(const struct database *db);
/* Without user and password: for logs and messages. */
const char *database_name(const struct database *db);

/* A transaction that writes: waits for the lock (at most 30 s, then STATUS_BUSY). When any
 * call in between fails, roll back. A lost connection is STATUS_IO: nothing of the
 * transaction happened unless it was lost within commit; the next begin connects anew. No
 * space left on the disk is STATUS_IO too, and says so; the handle stays usable.
 * With DATABASE_READ: a transaction that reads, all statements at the same moment. Outside a
 * transaction each statement is one of its own, and may only read. */
enum status database_begin(struct database *db, struct error *err);
/* Durable on return. */
enum status database_commit(struct database *db, struct error *err);
void database_rollback(struct database *db); /* no-op outside a transaction */

/* Several statements, without parameters or rows; within a transaction. */
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

/* For statements that the program does not know (query.c), on a DATABASE_READ handle: it
 * refuses what does more than read. */
enum statement_type {
    STATEMENT_NULL,
    STATEMENT_INTEGER,
    STATEMENT_REAL,
    STATEMENT_TEXT,
    STATEMENT_BYTES
};
int statement_n_columns(struct statement *st); /* 0: it gives no rows */
/* Good until the next call. */
const char *statement_column_name(struct statement *st, int column);
/* Of the value in the row that step gave. */
enum statement_type statement_type(struct statement *st, int column);
/* From now on a statement ends with STATUS_TIMEOUT timeout_ns after its first step. SQLite:
 * no value may be longer than max_bytes, and the whole process keeps no more than eight times
 * that for SQLite (then STATUS_NO_MEMORY); PostgreSQL has limits of its own. 0: no limit. */
enum status database_limit(struct database *db, int64_t timeout_ns, int64_t max_bytes,
                           struct error *err);

/* Moves what is in the write-ahead log into the database and empties the log (SQLite; a
 * no-op elsewhere). For erasing and before a backup. */
enum status database_checkpoint(struct database *db, struct error *err);
/* The same behind VACUUM (SQLite; a no-op elsewhere): all pages are written anew. For erasing:
 * with secure_delete=ON what is deleted is zeroed where it lies, but not the copies of it that
 * moving cells from page to page has left in what the pages do not use. Takes as long as
 * reading and writing the whole database, and as much space again. */
enum status database_rewrite(struct database *db, struct error *err);

#endif
