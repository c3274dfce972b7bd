/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store.h"

#include <stdlib.h>

#include "store/store_private.h"

/* Of one transaction. A batch of keys and texts; 10,000 posts of the longest text would not
 * fit, and their caller's arena would not either. */
#define MAX_ARENA_BYTES ((size_t)256 << 20)

enum status store_open(const char *url, enum database_mode mode, struct store **out,
                       struct error *err) {
    *out = NULL;
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a store");
    s->arena.max_bytes = MAX_ARENA_BYTES;
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return error_set(err, STATUS_NO_MEMORY, "no memory for a lock");
    }
    enum status status = sha256_open(&s->hash, err);
    if (status == STATUS_OK)
        status = database_open(url, mode, &s->db, err);
    if (status != STATUS_OK) {
        store_close(s);
        return status;
    }
    *out = s;
    return STATUS_OK;
}

void store_close(struct store *s) {
    if (!s)
        return;
    if (s->db)
        database_close(s->db);
    sha256_close(&s->hash);
    arena_free(&s->arena);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct database *store_database(struct store *s) {
    return s->db;
}

void store_lock(struct store *s) {
    pthread_mutex_lock(&s->lock);
    arena_clear(&s->arena);
}

void store_unlock(struct store *s) {
    pthread_mutex_unlock(&s->lock);
}

enum status store_begin(struct store *s, enum store_access access, struct error *err) {
    store_lock(s);
    enum status status = database_begin(s->db, err);
    /* Released by the end of the transaction, however it ends. */
    if (status == STATUS_OK && database_kind(s->db) == DATABASE_POSTGRES)
        status = database_run(s->db,
                              access == STORE_ALONE
                                  ? "SELECT pg_advisory_xact_lock(5640001)"
                                  : "SELECT pg_advisory_xact_lock_shared(5640001)",
                              err);
    if (status != STATUS_OK) {
        database_rollback(s->db);
        store_unlock(s);
    }
    return status;
}

enum status store_end(struct store *s, enum status status, struct error *err) {
    if (status == STATUS_OK)
        status = database_commit(s->db, err);
    if (status != STATUS_OK)
        database_rollback(s->db);
    store_unlock(s);
    return status;
}

enum status store_integer(struct store *s, const char *sql, int64_t *out,
                          struct error *err) {
    *out = 0;
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    bool has_row;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row) {
        *out = statement_get_integer(st, 0);
        status = statement_finish(st, NULL, err); /* cheaper than to break it off */
    }
    return status;
}
