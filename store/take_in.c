/* SPDX-License-Identifier: Apache-2.0
 *
 * take_in.c - what `vigil stream` brings: raw lines, and the items that were read from them.
 *
 * One transaction a batch. What can be done for the whole batch at once is: the ids of the
 * raw lines, the queue entries of the new posts, and taking away raw lines that lie side by
 * side. That needs a writer that is alone, so that all ids above the largest are the batch's.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "store/store_private.h"

/* ---- Raw lines ---- */

static enum status insert_raw(struct store *s, const struct store_take_in *what,
                              struct error *err) {
    static const char last[] = "SELECT COALESCE(max(id), 0) FROM raw";
    static const char insert[] =
        "INSERT INTO raw (source, received_ns, line) VALUES ($1, $2, $3)";
    static const char ids[] = "SELECT id FROM raw WHERE id > $1 ORDER BY id";
    int64_t last_id;
    struct statement *st;
    enum status status = store_integer(s, last, &last_id, err);
    for (size_t i = 0; status == STATUS_OK && i < what->n_raw; i++) {
        status = database_prepare(s->db, insert, &st, err);
        if (status != STATUS_OK)
            break;
        statement_text(st, 1, view_of_string(what->source));
        statement_integer(st, 2, what->raw[i].received_ns);
        statement_bytes(st, 3, what->raw[i].line);
        status = statement_send(st, err);
    }
    if (status == STATUS_OK)
        status = database_prepare(s->db, ids, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, last_id);
    bool has_row = true;
    size_t n = 0;
    while (status == STATUS_OK && has_row) {
        status = statement_step(st, &has_row, err);
        if (status == STATUS_OK && has_row && n < what->n_raw)
            what->raw[n].id = statement_get_integer(st, 0);
        n += status == STATUS_OK && has_row;
    }
    if (status == STATUS_OK && n != what->n_raw)
        return error_set(err, STATUS_INTERNAL, "wrote %zu raw lines, found %zu",
                         what->n_raw, n);
    return status;
}

static int by_id(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A statement for each run of ids without a gap: lines are mostly done in their order. */
static enum status delete_raw(struct store *s, const struct store_take_in *what,
                              struct error *err) {
    static const char sql[] = "DELETE FROM raw WHERE id BETWEEN $1 AND $2";
    size_t n_most, n_bytes, n = 0;
    int64_t *ids = size_add(what->n_items, what->n_done, &n_most) &&
                           size_multiply(n_most, sizeof *ids, &n_bytes)
                       ? arena_take(&s->arena, n_bytes)
                       : NULL;
    if (!ids)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the ids of raw lines");
    for (size_t i = 0; i < what->n_done; i++)
        ids[n++] = what->done[i];
    for (size_t i = 0; i < what->n_items; i++)
        if (what->items[i].raw_id > 0)
            ids[n++] = what->items[i].raw_id;
    qsort(ids, n, sizeof *ids, by_id);
    enum status status = STATUS_OK;
    for (size_t i = 0, first; status == STATUS_OK && i < n; i++) {
        for (first = i; i + 1 < n && ids[i + 1] <= ids[i] + 1; i++)
            ;
        struct statement *st;
        status = database_prepare(s->db, sql, &st, err);
        if (status != STATUS_OK)
            break;
        statement_integer(st, 1, ids[first]);
        statement_integer(st, 2, ids[i]);
        status = statement_send(st, err);
    }
    return status;
}

/* ---- Items ---- */

static void tell(struct store_taken *taken, enum store_change change) {
    taken->n_posts += change == STORE_NEW;
    taken->n_newer += change == STORE_NEWER;
    taken->n_again += change == STORE_AGAIN;
    taken->n_refused += change == STORE_REFUSED;
}

static enum status take_post(struct store *s, const struct store_item *item,
                             struct store_taken *taken, struct error *err) {
    enum store_change change, fold;
    enum status status;
    if (item->fold == STORE_NO_FOLD) {
        struct store_hash hash;
        status = store_hash_of(s, item->key, &hash, err);
        if (status == STATUS_OK)
            status = store_put(s, item, &hash, true, &change, err);
        if (status == STATUS_OK)
            tell(taken, change);
        return status;
    }
    status = store_put_fold(s, item, true, &change, &fold, err);
    if (status != STATUS_OK)
        return status;
    /* An item counts once, unless it made a post and was counted on it as well. */
    taken->n_folds += fold == STORE_NEW;
    if (change == STORE_NEW || change == STORE_NEWER)
        tell(taken, change);
    else if (fold != STORE_NEW)
        tell(taken, fold);
    return STATUS_OK;
}

static enum status take_delete(struct store *s, const struct store_item *item,
                               struct store_taken *taken, struct error *err) {
    struct store_erased n = {0};
    bool is_new;
    enum status status = store_delete(s, item->key, &n, &is_new, err);
    if (status != STATUS_OK)
        return status;
    taken->n_deleted += is_new;
    taken->n_again += !is_new;
    return STATUS_OK;
}

static enum status take_dead(struct store *s, const struct store_take_in *what,
                             const struct store_item *item, struct store_taken *taken,
                             struct error *err) {
    bool is_new;
    struct view source =
        item->source.n_bytes ? item->source : view_of_string(what->source);
    enum status status = store_bury_line(s, source, item, &is_new, err);
    if (status != STATUS_OK)
        return status;
    taken->n_dead += is_new;
    taken->n_again += !is_new;
    return STATUS_OK;
}

static enum status check_key(struct view key, size_t i, struct error *err) {
    if (key.n_bytes > 0 && key.n_bytes <= STORE_KEY_BYTES)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "item %zu has a key of %zu bytes, expected 1 to %d", i,
                     key.n_bytes, STORE_KEY_BYTES);
}

static enum status check(const struct store_take_in *what, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < what->n_items; i++) {
        const struct store_item *item = &what->items[i];
        if (item->kind == STORE_POST || item->kind == STORE_DELETE)
            status = check_key(item->key, i, err);
        if (status == STATUS_OK && item->kind == STORE_POST &&
            item->fold != STORE_NO_FOLD)
            status = check_key(item->fold_key, i, err);
    }
    return status;
}

static enum status take_items(struct store *s, const struct store_take_in *what,
                              struct store_taken *taken, struct error *err) {
    static const char last[] = "SELECT COALESCE(max(id), 0) FROM posts";
    static const char folds[] =
        "SELECT count(*) FROM (SELECT 1 FROM folds LIMIT 1) AS f";
    static const char queue[] =
        "INSERT INTO queue (post_id, version) SELECT id, version FROM posts "
        "WHERE id > $1 ORDER BY id ON CONFLICT (model, post_id) DO NOTHING";
    int64_t last_id = 0, n_folds = 0;
    enum status status = store_integer(s, last, &last_id, err);
    if (status == STATUS_OK)
        status = store_integer(s, folds, &n_folds, err);
    s->has_folds = n_folds > 0;
    for (size_t i = 0; status == STATUS_OK && i < what->n_items; i++) {
        const struct store_item *item = &what->items[i];
        if (item->kind == STORE_DELETE)
            status = take_delete(s, item, taken, err);
        else if (item->kind == STORE_DEAD)
            status = take_dead(s, what, item, taken, err);
        else if (item->kind == STORE_POST && what->is_remote)
            taken->n_posts++;
        else if (item->kind == STORE_POST)
            status = take_post(s, item, taken, err);
    }
    struct statement *st;
    if (status == STATUS_OK)
        status = database_prepare(s->db, queue, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, last_id);
    return statement_send(st, err);
}

static enum status set_cursor(struct store *s, const char *source, const char *cursor,
                              struct error *err) {
    static const char sql[] =
        "INSERT INTO cursors (source, cursor, updated_ns) VALUES ($1, $2, $3) "
        "ON CONFLICT (source) DO UPDATE SET cursor = excluded.cursor, "
        "updated_ns = excluded.updated_ns";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(source));
    statement_text(st, 2, view_of_string(cursor));
    statement_integer(st, 3, clock_wall_ns());
    return statement_send(st, err);
}

enum status store_take_in(struct store *s, const struct store_take_in *what,
                          struct store_taken *taken, struct error *err) {
    enum status status = check(what, err);
    if (status == STATUS_OK)
        status = store_begin(s, STORE_ALONE, err);
    if (status != STATUS_OK)
        return status;
    struct store_taken now = {0};
    if (what->n_raw > 0)
        status = insert_raw(s, what, err);
    if (status == STATUS_OK && what->n_items > 0)
        status = take_items(s, what, &now, err);
    if (status == STATUS_OK && (what->n_items > 0 || what->n_done > 0))
        status = delete_raw(s, what, err);
    if (status == STATUS_OK && what->cursor)
        status = set_cursor(s, what->source, what->cursor, err);
    status = store_end(s, status, err);
    if (status != STATUS_OK)
        return status;
    taken->n_posts += now.n_posts;
    taken->n_newer += now.n_newer;
    taken->n_again += now.n_again;
    taken->n_folds += now.n_folds;
    taken->n_deleted += now.n_deleted;
    taken->n_dead += now.n_dead;
    taken->n_refused += now.n_refused;
    return STATUS_OK;
}

/* ---- After a restart ---- */

static enum status read_spooled(struct store *s, const char *source, int64_t after,
                                struct arena *arena, struct store_raw *out, size_t cap,
                                size_t *n, struct error *err) {
    static const char sql[] = "SELECT id, received_ns, line FROM raw "
                              "WHERE id > $1 AND source = $2 ORDER BY id LIMIT $3";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, after);
    statement_text(st, 2, view_of_string(source));
    statement_integer(st, 3, (int64_t)cap);
    bool has_row = true;
    while (status == STATUS_OK) {
        status = statement_step(st, &has_row, err);
        if (status != STATUS_OK || !has_row || *n == cap)
            break;
        out[*n].id = statement_get_integer(st, 0);
        out[*n].received_ns = statement_get_integer(st, 1);
        status = arena_copy(arena, statement_get_text(st, 2), &out[*n].line, err);
        /* What the arena holds is enough for now. */
        if (status == STATUS_NO_MEMORY && *n > 0) {
            status = STATUS_OK;
            break;
        }
        *n += status == STATUS_OK;
    }
    statement_reset(st);
    return status;
}

enum status store_spooled(struct store *s, const char *source, int64_t after,
                          struct arena *arena, struct store_raw *out, size_t cap,
                          size_t *n, struct error *err) {
    *n = 0;
    store_lock(s);
    enum status status = read_spooled(s, source, after, arena, out, cap, n, err);
    store_unlock(s);
    return status;
}

enum status store_cursor(struct store *s, const char *source, char *out,
                         size_t cap_bytes, struct error *err) {
    static const char sql[] = "SELECT cursor FROM cursors WHERE source = $1";
    struct statement *st;
    bool has_row = false;
    store_lock(s);
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status == STATUS_OK) {
        statement_text(st, 1, view_of_string(source));
        status = statement_step(st, &has_row, err);
        if (status == STATUS_OK && has_row) {
            struct view cursor = statement_get_text(st, 0);
            if (cursor.n_bytes < cap_bytes) {
                memcpy(out, cursor.data, cursor.n_bytes);
                out[cursor.n_bytes] = 0;
            } else {
                status = error_set(err, STATUS_LIMIT,
                                   "the cursor of %s has %zu bytes, expected at most "
                                   "%zu",
                                   source, cursor.n_bytes, cap_bytes - 1);
            }
        }
        statement_reset(st);
    }
    store_unlock(s);
    if (status == STATUS_OK && !has_row)
        return error_set(err, STATUS_NOT_FOUND, "no cursor of %s", source);
    return status;
}

/* ---- What fold.h remembers ---- */

struct recent {
    int64_t id, posted_ns;
    uint64_t fingerprint;
    struct view key;
};

static enum status read_recent(struct store *s, int64_t after, struct arena *arena,
                               struct recent out[STORE_CHUNK_ROWS], size_t *n,
                               struct error *err) {
    static const char sql[] = "SELECT id, key, fingerprint, posted_ns FROM posts "
                              "WHERE id > $1 ORDER BY id LIMIT $2";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, after);
    statement_integer(st, 2, STORE_CHUNK_ROWS);
    bool has_row = true;
    for (*n = 0; status == STATUS_OK; *n += 1) {
        status = statement_step(st, &has_row, err);
        if (status != STATUS_OK || !has_row || *n == STORE_CHUNK_ROWS)
            break;
        struct recent *r = &out[*n];
        int64_t fingerprint = statement_get_integer(st, 2);
        r->id = statement_get_integer(st, 0);
        memcpy(&r->fingerprint, &fingerprint, sizeof fingerprint);
        r->posted_ns = statement_get_integer(st, 3);
        status = arena_copy(arena, statement_get_text(st, 1), &r->key, err);
    }
    statement_reset(st);
    return status;
}

/* The id behind which the newest n posts lie. */
static enum status find_recent(struct store *s, size_t n, int64_t *after,
                               struct error *err) {
    static const char sql[] =
        "SELECT COALESCE(min(id), 1) - 1 FROM "
        "(SELECT id FROM posts ORDER BY id DESC LIMIT $1) AS newest";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, n < INT64_MAX ? (int64_t)n : INT64_MAX);
    bool has_row;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row)
        *after = statement_get_integer(st, 0);
    statement_reset(st);
    return status;
}

enum status store_recent(struct store *s, size_t n,
                         enum status (*each)(void *context, struct view key,
                                             uint64_t fingerprint, int64_t posted_ns,
                                             struct error *err),
                         void *context, struct error *err) {
    struct arena arena = {.max_bytes = (size_t)STORE_CHUNK_ROWS * 4096};
    struct recent *rows = calloc(STORE_CHUNK_ROWS, sizeof *rows);
    if (!rows)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %d rows",
                         STORE_CHUNK_ROWS);
    int64_t after = 0;
    store_lock(s);
    enum status status = find_recent(s, n, &after, err);
    store_unlock(s);
    size_t n_rows = 1, n_told = 0;
    while (status == STATUS_OK && n_rows > 0 && n_told < n) {
        arena_clear(&arena);
        store_lock(s);
        status = read_recent(s, after, &arena, rows, &n_rows, err);
        store_unlock(s);
        for (size_t i = 0; status == STATUS_OK && i < n_rows && n_told < n; i++) {
            after = rows[i].id;
            n_told++;
            status =
                each(context, rows[i].key, rows[i].fingerprint, rows[i].posted_ns, err);
        }
    }
    arena_free(&arena);
    free(rows);
    return status;
}
