/* SPDX-License-Identifier: Apache-2.0
 *
 * driver.h - what stands behind database.h: the functions of one kind of database.
 *
 * database.c checks what is common and calls these; sqlite.c and postgres.c implement them,
 * each with a struct that begins with struct database, and one that begins with struct
 * statement. No other file includes this.
 */
#ifndef VIGIL_STORE_DATABASE_DRIVER_H
#define VIGIL_STORE_DATABASE_DRIVER_H

#include "store/database/database.h"

#define DATABASE_WAIT_NS                                                               \
    INT64_C(30000000000) /* for the lock, or a row that is locked */

struct driver {
    enum database_kind kind;
    void (*close)(struct database *db);
    enum status (*begin)(struct database *db, struct error *err);
    /* On failure the transaction is still to be rolled back. */
    enum status (*commit)(struct database *db, struct error *err);
    void (*rollback)(struct database *db);
    enum status (*run)(struct database *db, const char *sql, struct error *err);
    /* With VACUUM before it when rewrites. */
    enum status (*checkpoint)(struct database *db, bool rewrites, struct error *err);
    enum status (*limit)(struct database *db, int64_t timeout_ns, int64_t max_bytes,
                         struct error *err);
    /* sql without @ words; it is the caller's. */
    enum status (*prepare)(struct database *db, const char *sql, struct statement **out,
                           struct error *err);
    void (*forget)(struct statement *st);
    /* False when there is no such parameter, or no memory. text is UTF-8 without NUL. */
    bool (*integer)(struct statement *st, int n, int64_t value);
    bool (*real)(struct statement *st, int n, double value);
    bool (*text)(struct statement *st, int n, struct view value);
    bool (*bytes)(struct statement *st, int n, struct view value);
    bool (*null)(struct statement *st, int n);
    enum status (*step)(struct statement *st, bool *has_row, struct error *err);
    enum status (*finish)(struct statement *st, int64_t *n_changed, struct error *err);
    enum status (*send)(struct statement *st, struct error *err);
    void (*reset)(struct statement *st);
    int64_t (*get_integer)(struct statement *st, int column);
    double (*get_real)(struct statement *st, int column);
    struct view (*get_text)(struct statement *st, int column);
    enum statement_type (*type)(struct statement *st, int column);
    int (*n_columns)(struct statement *st);
    const char *(*column_name)(struct statement *st, int column);
};

struct database {
    const struct driver *driver;
    enum database_mode mode;
    char *name; /* owned */
    bool is_begun;
    struct statement *statements; /* all that were prepared, the newest first */
};

struct text_copy; /* a text that had to be made valid */

struct statement {
    struct database *db;
    const char *sql; /* as database_prepare was given it: the address is the key */
    struct statement *next;
    struct text_copy *copies; /* until reset */
    bool is_bad;              /* a parameter could not be set */
};

/* Each gives the whole handle, not yet migrated, or nothing. */
enum status sqlite_open(const char *url, enum database_mode mode, struct database **out,
                        struct error *err);
enum status postgres_open(const char *url, enum database_mode mode,
                          struct database **out, struct error *err);
/* Called by both on close, before the connection goes: forgets all statements, frees the
 * name. */
void database_forget(struct database *db);

#endif
