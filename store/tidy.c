/* SPDX-License-Identifier: Apache-2.0
 *
 * tidy.c - what nobody waits for any more. A source's deletes and quotes are of all its posts;
 * nearly all of them never come in, and what was noted about them would grow for ever.
 *
 * A table is gone through in the order of its key, a stretch of rows at a time, each in a
 * transaction of its own, so that others do not wait.
 */
#include <string.h>

#include "store/store_private.h"

#define STRETCH_ROWS 5000

struct table {
    const char *end; /* the last key of a stretch behind $1 */
    const char *forget;
};

static const struct table tables[] = {
    {"SELECT key_hash FROM tombstones WHERE key_hash > $1 ORDER BY key_hash "
     "LIMIT 1 OFFSET $2",
     "DELETE FROM tombstones WHERE key_hash > $1 AND key_hash <= $2 "
     "AND is_kept = 0 AND created_ns < $3"},
    /* Of a post of aggregate mode that is counted: kept, so that it counts once. */
    {"SELECT key_hash FROM folds WHERE key_hash > $1 ORDER BY key_hash "
     "LIMIT 1 OFFSET $2",
     "DELETE FROM folds WHERE key_hash > $1 AND key_hash <= $2 "
     "AND post_id = 0 AND created_ns < $3 "
     "AND NOT EXISTS (SELECT 1 FROM seen WHERE seen.key_hash = folds.into_hash)"},
};

struct key {
    char bytes[STORE_HASH_BYTES + 1];
    size_t n_bytes;
};

static struct view view_of_key(const struct key *k) {
    return view_of(k->bytes, k->n_bytes);
}

/* *to: the last key of the stretch; one that is above all when no full stretch is left. */
static enum status find_end(struct store *s, const char *sql, const struct key *from,
                            struct key *to, bool *is_last, struct error *err) {
    struct statement *st;
    bool has_row;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_bytes(st, 1, view_of_key(from));
    statement_integer(st, 2, STRETCH_ROWS - 1);
    status = statement_step(st, &has_row, err);
    struct view key =
        status == STATUS_OK && has_row ? statement_get_text(st, 0) : view_of("", 0);
    *is_last = key.n_bytes == 0 || key.n_bytes > STORE_HASH_BYTES;
    memset(to->bytes, 0xff, sizeof to->bytes);
    to->n_bytes = sizeof to->bytes; /* longer than any hash */
    if (!*is_last) {
        memcpy(to->bytes, key.data, key.n_bytes);
        to->n_bytes = key.n_bytes;
    }
    statement_reset(st);
    return status;
}

static enum status forget_stretch(struct store *s, const struct table *t,
                                  struct key *from, int64_t before_ns, int64_t *n,
                                  bool *is_last, struct error *err) {
    struct key to;
    int64_t n_changed = 0;
    enum status status = store_begin(s, STORE_ALONE, err);
    if (status != STATUS_OK)
        return status;
    struct statement *st;
    status = find_end(s, t->end, from, &to, is_last, err);
    if (status == STATUS_OK)
        status = database_prepare(s->db, t->forget, &st, err);
    if (status == STATUS_OK) {
        statement_bytes(st, 1, view_of_key(from));
        statement_bytes(st, 2, view_of_key(&to));
        statement_integer(st, 3, before_ns);
        status = statement_finish(st, &n_changed, err);
    }
    status = store_end(s, status, err);
    if (status == STATUS_OK)
        *n += n_changed;
    *from = to;
    return status;
}

enum status store_tidy(struct store *s, int64_t before_ns, int64_t *n,
                       struct error *err) {
    enum status status = STATUS_OK;
    *n = 0;
    for (size_t i = 0; status == STATUS_OK && i < sizeof tables / sizeof *tables; i++) {
        struct key from = {.n_bytes = 0};
        bool is_last = false;
        while (status == STATUS_OK && !is_last)
            status = forget_stretch(s, &tables[i], &from, before_ns, n, &is_last, err);
    }
    return status;
}
