/* SPDX-License-Identifier: Apache-2.0
 *
 * dead.c - what could not be used. A letter of stage "parse" is the raw line itself: as far
 * as the source's mode lets it be kept, it stays until it is retried or dropped or too old,
 * since it is all that there is of a post. That holds for aggregate mode too: a letter without
 * its body would be a post lost. A letter of stage "classify" is about a post of the store, and
 * holds no text.
 *
 * A letter about a post of a remote queue has no post here: the queue keeps it, and a retry
 * is the queue's.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "store/store_private.h"

#define MAX_LISTED_BYTES ((size_t)128 << 20) /* of a chunk's bodies */
#define CHUNK_ROWS 32

/* At most STORE_REASON_BYTES, not within a character. */
static struct view cut_reason(struct view reason) {
    if (reason.n_bytes <= STORE_REASON_BYTES)
        return reason;
    size_t n = STORE_REASON_BYTES;
    while (n > 0 && ((unsigned char)reason.data[n] & 0xc0) == 0x80)
        n--;
    return view_of(reason.data, n);
}

/* ---- Writing ---- */

enum status store_bury(struct store *s, const struct store_failed *failed,
                       struct error *err) {
    static const char again[] = "DELETE FROM dead_letters WHERE key = $1 AND key <> '' "
                                "AND stage = 'classify' AND model = $2";
    static const char sql[] =
        "INSERT INTO dead_letters (created_ns, stage, source, key, post_id, version, "
        "model, tries, received_ns, reason, body, body_hash) "
        "VALUES ($1, 'classify', $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)";
    struct statement *st;
    enum status status = database_prepare(s->db, again, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, failed->key);
    statement_text(st, 2, failed->model);
    status = statement_send(st, err);
    if (status == STATUS_OK)
        status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, clock_wall_ns());
    statement_text(st, 2, failed->source);
    statement_text(st, 3, failed->key);
    statement_integer(st, 4, failed->post_id);
    statement_integer(st, 5, failed->version);
    statement_text(st, 6, failed->model);
    statement_integer(st, 7, failed->tries);
    statement_integer(st, 8, failed->received_ns);
    statement_text(st, 9, cut_reason(view_of_string(failed->reason)));
    statement_bytes(st, 10, VIEW(""));
    return statement_send(st, err);
}

static enum status hash_line(struct store *s, struct view source, struct view body,
                             struct store_hash *out, struct error *err) {
    enum status status = sha256_add(&s->hash, source.data, source.n_bytes, err);
    if (status == STATUS_OK)
        status = sha256_add(&s->hash, "", 1, err);
    /* Whatever happened: it also finishes the hash. */
    enum status finished =
        store_hash_of(s, body, out, status == STATUS_OK ? err : NULL);
    return status == STATUS_OK ? finished : status;
}

enum status store_bury_line(struct store *s, struct view source,
                            const struct store_item *item, bool *is_new,
                            struct error *err) {
    static const char again[] = "SELECT 1 FROM dead_letters WHERE body_hash = $1 "
                                "AND stage = 'parse'";
    static const char sql[] =
        "INSERT INTO dead_letters (created_ns, stage, source, key, tries, received_ns, "
        "reason, body, body_hash) "
        "VALUES ($1, 'parse', $2, $3, "
        "1 + COALESCE((SELECT tries FROM raw WHERE id = $4), 0), $5, $6, $7, $8)";
    struct store_hash hash;
    bool is_again = false;
    *is_new = false;
    enum status status = hash_line(s, source, item->body, &hash, err);
    /* Where lines may not be kept they all look alike: each is a letter of its own. */
    if (status == STATUS_OK && item->body.n_bytes > 0)
        status = store_has(s, again, &hash, &is_again, err);
    if (status != STATUS_OK || is_again)
        return status;
    /* A letter about a post that is not to come back does not come back either. */
    if (item->key.n_bytes > 0) {
        struct store_hash key;
        status = store_hash_of(s, item->key, &key, err);
        if (status == STATUS_OK)
            status = store_is_tombstone(s, &key, &is_again, err);
        if (status != STATUS_OK || is_again)
            return status;
    }
    struct statement *st;
    status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    *is_new = true;
    statement_integer(st, 1, clock_wall_ns());
    statement_text(st, 2, source);
    statement_text(st, 3, item->key);
    statement_integer(st, 4, item->raw_id);
    statement_integer(st, 5, item->received_ns);
    statement_text(st, 6, cut_reason(item->reason));
    statement_bytes(st, 7, item->body);
    store_hash(st, 8, &hash);
    return statement_send(st, err);
}

/* ---- Listing ---- */

static enum status read_letter(struct statement *st, bool with_body,
                               struct arena *arena, struct store_dead *d,
                               struct error *err) {
    *d = (struct store_dead){.id = statement_get_integer(st, 0),
                             .created_ns = statement_get_integer(st, 1),
                             .post_id = statement_get_integer(st, 2),
                             .tries = (int32_t)statement_get_integer(st, 3),
                             .n_bytes = statement_get_integer(st, 4)};
    struct view *texts[] = {&d->source, &d->key, &d->stage, &d->reason, &d->body};
    enum status status = STATUS_OK;
    for (int i = 0; status == STATUS_OK && i < (with_body ? 5 : 4); i++)
        status = arena_copy(arena, statement_get_text(st, 5 + i), texts[i], err);
    return status;
}

/* Letters with an id below `before`, of ids from `least` on, the newest first. */
static enum status read_letters(struct store *s, int64_t before, int64_t least,
                                bool with_body, struct arena *arena,
                                struct store_dead *out, size_t *n, struct error *err) {
#define LETTER                                                                         \
    "SELECT id, created_ns, post_id, tries, length(body), source, key, stage, reason"
#define WHICH " FROM dead_letters WHERE id < $1 AND id >= $2 ORDER BY id DESC LIMIT $3"
    static const char heads[] = LETTER WHICH;
    static const char wholes[] = LETTER ", body" WHICH;
    struct statement *st;
    enum status status = database_prepare(s->db, with_body ? wholes : heads, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, before);
    statement_integer(st, 2, least);
    statement_integer(st, 3, CHUNK_ROWS);
    bool has_row = true;
    *n = 0;
    while (status == STATUS_OK) {
        status = statement_step(st, &has_row, err);
        if (status != STATUS_OK || !has_row || *n == CHUNK_ROWS)
            break;
        status = read_letter(st, with_body, arena, &out[*n], err);
        *n += status == STATUS_OK;
    }
    statement_reset(st);
    /* The bodies that there was room for; the rest is the next chunk. */
    return status == STATUS_NO_MEMORY && *n > 0 ? STATUS_OK : status;
}

enum status store_dead(struct store *s, int64_t id, int64_t limit, bool with_body,
                       enum status (*each)(void *context, const struct store_dead *d,
                                           struct error *err),
                       void *context, struct error *err) {
    struct arena arena = {.max_bytes = MAX_LISTED_BYTES};
    struct store_dead letters[CHUNK_ROWS];
    int64_t before = id > 0 && id < INT64_MAX ? id + 1 : INT64_MAX;
    int64_t left = limit > 0 ? limit : INT64_MAX;
    enum status status = STATUS_OK;
    size_t n = 1;
    while (status == STATUS_OK && n > 0 && left > 0) {
        arena_clear(&arena);
        store_lock(s);
        status = read_letters(s, before, id, with_body, &arena, letters, &n, err);
        store_unlock(s);
        for (size_t i = 0; status == STATUS_OK && i < n && left > 0; i++, left--) {
            before = letters[i].id;
            status = each(context, &letters[i], err);
        }
    }
    arena_free(&arena);
    return status;
}

/* ---- Retry and drop ---- */

struct letter {
    int64_t id, post_id, version;
    bool is_of_post; /* stage "classify" */
    struct view key;
};

static enum status next_letter(struct store *s, int64_t after, int64_t most,
                               struct letter *out, bool *has_row, struct error *err) {
    static const char sql[] =
        "SELECT id, post_id, version, stage, key FROM dead_letters "
        "WHERE id > $1 AND id <= $2 ORDER BY id LIMIT 1";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, after);
    statement_integer(st, 2, most);
    status = statement_step(st, has_row, err);
    if (status == STATUS_OK && *has_row) {
        arena_clear(&s->arena); /* of the letter before */
        *out = (struct letter){
            .id = statement_get_integer(st, 0),
            .post_id = statement_get_integer(st, 1),
            .version = statement_get_integer(st, 2),
            .is_of_post = view_equal(statement_get_text(st, 3), VIEW("classify"))};
        status = arena_copy(&s->arena, statement_get_text(st, 4), &out->key, err);
    }
    statement_reset(st);
    return status;
}

static enum status run_with_id(struct store *s, const char *sql, int64_t id,
                               struct error *err) {
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, id);
    return statement_send(st, err);
}

static const char delete_letter[] = "DELETE FROM dead_letters WHERE id = $1";

static enum status retry_letter(struct store *s, const struct letter *l, bool *is_done,
                                struct error *err) {
    static const char respool[] =
        "INSERT INTO raw (source, received_ns, line, tries) "
        "SELECT source, received_ns, body, tries FROM dead_letters WHERE id = $1";
    /* Nobody waits for what a later try has given already. */
    static const char requeue[] =
        "INSERT INTO queue (post_id, version, model) "
        "SELECT p.id, p.version, d.model FROM dead_letters d, posts p "
        "WHERE d.id = $1 AND p.id = d.post_id "
        "AND NOT EXISTS (SELECT 1 FROM results r WHERE r.post_id = p.id "
        "AND r.version = p.version AND r.model_sha256 = d.model) "
        "ON CONFLICT (model, post_id) DO NOTHING";
    *is_done = !l->is_of_post || l->post_id > 0;
    if (!*is_done)
        return STATUS_OK;
    enum status status = run_with_id(s, l->is_of_post ? requeue : respool, l->id, err);
    return status == STATUS_OK ? run_with_id(s, delete_letter, l->id, err) : status;
}

/* A post of aggregate mode that nobody will count has no reason to stay. */
static enum status drop_post(struct store *s, const struct letter *l,
                             struct error *err) {
    static const char sql[] = "SELECT 1 FROM posts WHERE id = $1 AND mode = 2";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, l->post_id);
    bool has_row;
    status = statement_step(st, &has_row, err);
    statement_reset(st);
    if (status != STATUS_OK || !has_row)
        return status;
    struct store_erased n = {0};
    status = store_see(s, l->key, l->version, err);
    return status == STATUS_OK ? store_remove(s, l->post_id, &n, err) : status;
}

static enum status drop_letter(struct store *s, const struct letter *l, bool *is_done,
                               struct error *err) {
    *is_done = true;
    enum status status = STATUS_OK;
    if (l->is_of_post && l->post_id > 0)
        status = drop_post(s, l, err);
    return status == STATUS_OK ? run_with_id(s, delete_letter, l->id, err) : status;
}

static enum status each_letter(struct store *s, int64_t id, const char *action,
                               enum status (*act)(struct store *s,
                                                  const struct letter *l, bool *is_done,
                                                  struct error *err),
                               const char *actor, int64_t *n, struct error *err) {
    int64_t n_done = 0, after = id > 0 ? id - 1 : 0, most = id > 0 ? id : INT64_MAX;
    char subject[48] = "letters:all", details[48];
    *n = 0;
    enum status status = store_begin(s, STORE_ALONE, err);
    if (status != STATUS_OK)
        return status;
    for (bool has_row = true; has_row;) {
        struct letter l;
        bool is_done = false;
        status = next_letter(s, after, most, &l, &has_row, err);
        if (status == STATUS_OK && has_row)
            status = act(s, &l, &is_done, err);
        if (status != STATUS_OK)
            break;
        after = has_row ? l.id : after;
        n_done += is_done;
    }
    if (id > 0)
        snprintf(subject, sizeof subject, "letter:%" PRId64, id);
    snprintf(details, sizeof details, "{\"letters\":%" PRId64 "}", n_done);
    if (status == STATUS_OK && n_done > 0)
        status = store_audit_add(s, actor, action, subject, details, NULL, err);
    status = store_end(s, status, err);
    if (status == STATUS_OK)
        *n = n_done;
    return status;
}

enum status store_dead_retry(struct store *s, int64_t id, const char *actor, int64_t *n,
                             struct error *err) {
    return each_letter(s, id, "dead_retry", retry_letter, actor, n, err);
}

enum status store_dead_drop(struct store *s, int64_t id, const char *actor, int64_t *n,
                            struct error *err) {
    return each_letter(s, id, "dead_drop", drop_letter, actor, n, err);
}
