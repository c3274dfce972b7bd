/* SPDX-License-Identifier: Apache-2.0
 *
 * posts.c - one post: made, replaced by a newer version, folded into, withdrawn.
 *
 * A post comes in far more often than anything else, so its way is short: one INSERT that is
 * also the question whether the key may come in at all. Only when it did nothing is asked
 * why.
 */
#include <string.h>

#include "base/clock.h"
#include "store/store_private.h"

/* The models that somebody waits for, by jumping from one to the next: the queue has no
 * index by post alone. */
#define MODELS_WAITED_FOR                                                              \
    "WITH RECURSIVE waited (model) AS ("                                               \
    "SELECT min(model) FROM queue UNION ALL "                                          \
    "SELECT (SELECT min(q.model) FROM queue q WHERE q.model > waited.model) "          \
    "FROM waited WHERE waited.model IS NOT NULL) "

enum status store_hash_of(struct store *s, struct view key, struct store_hash *out,
                          struct error *err) {
    uint8_t digest[SHA256_BYTES];
    enum status status = sha256_add(&s->hash, key.data, key.n_bytes, err);
    sha256_finish(&s->hash, digest);
    memcpy(out->bytes, digest, sizeof out->bytes);
    return status;
}

void store_hash(struct statement *st, int n, const struct store_hash *hash) {
    statement_bytes(st, n, view_of((const char *)hash->bytes, sizeof hash->bytes));
}

enum status store_has(struct store *s, const char *sql, const struct store_hash *hash,
                      bool *has, struct error *err) {
    *has = false;
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, hash);
    status = statement_step(st, has, err);
    statement_reset(st);
    return status;
}

/* Somebody came with what it is for, or asked for it. */
static enum status keep_tombstone(struct store *s, const struct store_hash *hash,
                                  struct error *err) {
    static const char sql[] =
        "UPDATE tombstones SET is_kept = 1 WHERE key_hash = $1 AND is_kept = 0";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, hash);
    return statement_send(st, err);
}

enum status store_is_tombstone(struct store *s, const struct store_hash *hash, bool *is,
                               struct error *err) {
    static const char sql[] = "SELECT is_kept FROM tombstones WHERE key_hash = $1";
    *is = false;
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, hash);
    status = statement_step(st, is, err);
    bool is_kept = status == STATUS_OK && *is && statement_get_integer(st, 0) != 0;
    statement_reset(st);
    return status == STATUS_OK && *is && !is_kept ? keep_tombstone(s, hash, err)
                                                  : status;
}

enum status store_is_seen(struct store *s, const struct store_hash *hash, bool *is,
                          struct error *err) {
    static const char sql[] = "SELECT 1 FROM seen WHERE key_hash = $1";
    return store_has(s, sql, hash, is, err);
}

enum status store_find(struct store *s, struct view key, int64_t *id, int64_t *version,
                       struct error *err) {
    static const char sql[] = "SELECT id, version FROM posts WHERE key = $1";
    *id = 0;
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, key);
    bool has_row;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row) {
        *id = statement_get_integer(st, 0);
        if (version)
            *version = statement_get_integer(st, 1);
    }
    statement_reset(st);
    return status;
}

/* What INSERT and UPDATE of a post have in common: parameters 1 to 16. */
static void bind_post(struct statement *st, const struct store_item *item) {
    statement_integer(st, 1, item->version);
    statement_text(st, 2, item->source);
    statement_integer(st, 3, item->mode);
    statement_text(st, 4, item->author);
    statement_text(st, 5, item->text);
    statement_text(st, 6, item->lang);
    statement_text(st, 7, item->place);
    statement_text(st, 8, item->city);
    statement_text(st, 9, item->state);
    statement_text(st, 10, item->country);
    statement_text(st, 11, item->drugs.n_bytes ? item->drugs : VIEW("[]"));
    statement_text(st, 12, item->url);
    statement_integer(st, 13, item->posted_ns);
    statement_integer(st, 14, item->received_ns);
    int64_t fingerprint;
    memcpy(&fingerprint, &item->fingerprint, sizeof fingerprint);
    statement_integer(st, 15, fingerprint);
    statement_text(st, 16, item->key);
}

static enum status insert(struct store *s, const struct store_item *item,
                          const struct store_hash *hash, bool *is_new,
                          struct error *err) {
    static const char sql[] =
        "INSERT INTO posts (version, source, mode, author, text, lang, place, city, "
        "state, "
        "country, drugs, url, posted_ns, received_ns, fingerprint, key) "
        "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16 "
        "WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE key_hash = $17) "
        "AND NOT EXISTS (SELECT 1 FROM seen WHERE key_hash = $17) "
        "AND NOT EXISTS (SELECT 1 FROM folds WHERE key_hash = $17 AND kind <> 2) "
        "ON CONFLICT (key) DO NOTHING";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    bind_post(st, item);
    store_hash(st, 17, hash);
    int64_t n_changed = 0;
    status = statement_finish(st, &n_changed, err);
    *is_new = n_changed > 0;
    return status;
}

/* *id 0: nothing changed. */
static enum status update(struct store *s, const struct store_item *item, int64_t *id,
                          struct error *err) {
    static const char sql[] =
        "UPDATE posts SET version = $1, source = $2, mode = $3, author = $4, text = "
        "$5, "
        "lang = $6, place = $7, city = $8, state = $9, country = $10, drugs = $11, "
        "url = $12, posted_ns = $13, received_ns = $14, fingerprint = $15 "
        "WHERE key = $16 AND version < $1 RETURNING id";
    *id = 0;
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    bind_post(st, item);
    bool has_row;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row)
        *id = statement_get_integer(st, 0);
    statement_reset(st);
    return status;
}

static enum status run_with_id(struct store *s, const char *sql, int64_t id,
                               int64_t *n_changed, struct error *err) {
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, id);
    int64_t n = 0;
    status = statement_finish(st, &n, err);
    if (n_changed)
        *n_changed += n;
    return status;
}

/* A newer version stands: what was found in the old text goes, and whoever works on it works
 * in vain. */
static enum status renew(struct store *s, const struct store_item *item, int64_t id,
                         bool is_queued, struct error *err) {
    static const char unmention[] = "DELETE FROM mentions WHERE post_id = $1";
    static const char requeue[] = MODELS_WAITED_FOR
        "UPDATE queue SET version = $1, worker = '', lease_until_ns = 0, "
        "not_before_ns = 0, tries = 0, lapses = 0 WHERE post_id = $2 "
        "AND model IN (SELECT model FROM waited WHERE model IS NOT NULL)";
    static const char queue[] = "INSERT INTO queue (post_id, version) VALUES ($1, $2) "
                                "ON CONFLICT (model, post_id) DO NOTHING";
    enum status status = run_with_id(s, unmention, id, NULL, err);
    int64_t n_dead = 0;
    if (status == STATUS_OK)
        status = store_remove_dead(s, item->key, &n_dead, err);
    struct statement *st;
    if (status == STATUS_OK)
        status = database_prepare(s->db, requeue, &st, err);
    if (status == STATUS_OK) {
        statement_integer(st, 1, item->version);
        statement_integer(st, 2, id);
        status = statement_send(st, err);
    }
    if (status != STATUS_OK || !is_queued)
        return status;
    status = database_prepare(s->db, queue, &st, err);
    if (status == STATUS_OK) {
        statement_integer(st, 1, id);
        statement_integer(st, 2, item->version);
        status = statement_send(st, err);
    }
    return status;
}

/* Adds to a post's counts, which are those of the rows of folds. */
static enum status add_counts(struct store *s, int64_t id, const int64_t n[4],
                              int64_t *n_changed, struct error *err) {
    static const char sql[] = "UPDATE posts SET n_reposts = n_reposts + $1, "
                              "n_quotes = n_quotes + $2, "
                              "n_duplicates = n_duplicates + $3 WHERE id = $4";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    for (int kind = STORE_REPOST; kind <= STORE_DUPLICATE; kind++)
        statement_integer(st, kind, n[kind]);
    statement_integer(st, 4, id);
    return statement_finish(st, n_changed, err);
}

/* Folds that came before the post that they belong to. */
static enum status count_early_folds(struct store *s, struct view key,
                                     const struct store_hash *hash, struct error *err) {
    static const char count[] =
        "SELECT kind, count(*) FROM folds WHERE into_hash = $1 GROUP BY kind";
    static const char point[] = "UPDATE folds SET post_id = $1 WHERE into_hash = $2";
    struct statement *st;
    enum status status = database_prepare(s->db, count, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, hash);
    int64_t n[4] = {0}, id;
    bool has_row, has_any = false;
    while ((status = statement_step(st, &has_row, err)) == STATUS_OK && has_row) {
        int64_t kind = statement_get_integer(st, 0);
        has_any = true;
        if (kind >= STORE_REPOST && kind <= STORE_DUPLICATE)
            n[kind] = statement_get_integer(st, 1);
    }
    if (status != STATUS_OK || !has_any)
        return status;
    status = store_find(s, key, &id, NULL, err);
    if (status == STATUS_OK)
        status = add_counts(s, id, n, NULL, err);
    if (status == STATUS_OK)
        status = database_prepare(s->db, point, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, id);
    store_hash(st, 2, hash);
    return statement_finish(st, NULL, err);
}

enum status store_put(struct store *s, const struct store_item *item,
                      const struct store_hash *hash, bool is_queued,
                      enum store_change *change, struct error *err) {
    bool is_new, is_tombstone;
    *change = STORE_NEW;
    enum status status = insert(s, item, hash, &is_new, err);
    if (status != STATUS_OK)
        return status;
    if (is_new)
        return s->has_folds ? count_early_folds(s, item->key, hash, err) : STATUS_OK;
    int64_t id;
    status = update(s, item, &id, err);
    if (status == STATUS_OK && id > 0) {
        *change = STORE_NEWER;
        return renew(s, item, id, is_queued, err);
    }
    if (status == STATUS_OK)
        status = store_is_tombstone(s, hash, &is_tombstone, err);
    if (status == STATUS_OK)
        *change = is_tombstone ? STORE_REFUSED : STORE_AGAIN;
    return status;
}

/* ---- Folds ---- */

/* Where a fold is counted. */
struct target {
    struct store_hash hash;
    int64_t post_id; /* 0: nobody is there to count it, for now */
};

/* The post of the key; or, when that is a duplicate of another itself, the other. */
static enum status find_target(struct store *s, struct view key,
                               const struct store_hash *hash, struct target *out,
                               struct error *err) {
    static const char sql[] =
        "SELECT into_hash, post_id FROM folds WHERE key_hash = $1 AND kind <> 2";
    out->hash = *hash;
    enum status status = store_find(s, key, &out->post_id, NULL, err);
    if (status != STATUS_OK || out->post_id > 0)
        return status;
    struct statement *st;
    status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, hash);
    bool has_row;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row) {
        struct view into = statement_get_text(st, 0);
        if (into.n_bytes == sizeof out->hash.bytes)
            memcpy(out->hash.bytes, into.data, into.n_bytes);
        out->post_id = statement_get_integer(st, 1);
    }
    statement_reset(st);
    return status;
}

static enum status insert_fold(struct store *s, const struct store_item *item,
                               const struct store_hash *fold,
                               const struct target *target, int64_t *n_changed,
                               struct error *err) {
    static const char sql[] =
        "INSERT INTO folds (key_hash, into_hash, post_id, kind, source, created_ns) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key_hash) DO NOTHING";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, fold);
    store_hash(st, 2, &target->hash);
    statement_integer(st, 3, target->post_id);
    statement_integer(st, 4, item->fold);
    statement_text(st, 5, item->source);
    statement_integer(st, 6, item->received_ns);
    return statement_finish(st, n_changed, err);
}

/* Its post is counted and gone: which label it had nobody knows any more. */
static enum status count_late_fold(struct store *s, const struct store_item *item,
                                   const struct target *target, struct error *err) {
    bool is_seen;
    enum status status = store_is_seen(s, &target->hash, &is_seen, err);
    if (status != STATUS_OK || !is_seen)
        return status;
    struct store_cell cell = {.source = item->source,
                              .lang = item->lang,
                              .country = item->country,
                              .state = item->state,
                              .drugs = item->drugs,
                              .at_ns =
                                  item->posted_ns ? item->posted_ns : item->received_ns,
                              .label = "",
                              .n_reposts = item->fold == STORE_REPOST,
                              .n_quotes = item->fold == STORE_QUOTE,
                              .n_duplicates = item->fold == STORE_DUPLICATE};
    return store_count(s, &cell, err);
}

/* What is a post by itself is not counted on another as well. */
static enum status is_post_itself(struct store *s, const struct store_item *item,
                                  const struct store_hash *fold, bool *is,
                                  struct error *err) {
    int64_t id = 0;
    *is = false;
    if (item->fold == STORE_QUOTE)
        return STATUS_OK;
    enum status status = store_find(s, item->fold_key, &id, NULL, err);
    if (status == STATUS_OK && id == 0)
        return store_is_seen(s, fold, is, err);
    *is = id > 0;
    return status;
}

static enum status add_fold(struct store *s, const struct store_item *item,
                            const struct store_hash *hash,
                            const struct store_hash *fold, enum store_change *change,
                            struct error *err) {
    bool is_itself;
    struct target target;
    int64_t n[4] = {0}, n_changed = 0;
    *change = STORE_AGAIN;
    enum status status = is_post_itself(s, item, fold, &is_itself, err);
    if (status != STATUS_OK || is_itself)
        return status;
    status = find_target(s, item->key, hash, &target, err);
    if (status == STATUS_OK)
        status = insert_fold(s, item, fold, &target, &n_changed, err);
    if (status != STATUS_OK || n_changed == 0)
        return status;
    *change = STORE_NEW;
    s->has_folds = true;
    n[item->fold] = 1;
    n_changed = 0;
    if (target.post_id > 0)
        status = add_counts(s, target.post_id, n, &n_changed, err);
    if (status == STATUS_OK && n_changed == 0)
        status = count_late_fold(s, item, &target, err);
    return status;
}

enum status store_put_fold(struct store *s, const struct store_item *item,
                           bool is_queued, enum store_change *post,
                           enum store_change *fold, struct error *err) {
    struct store_hash hash, fold_hash;
    bool is_withdrawn;
    *post = *fold = STORE_AGAIN;
    if (view_equal(item->key, item->fold_key))
        return STATUS_OK;
    enum status status = store_hash_of(s, item->key, &hash, err);
    if (status == STATUS_OK)
        status = store_hash_of(s, item->fold_key, &fold_hash, err);
    if (status == STATUS_OK)
        status = store_is_tombstone(s, &fold_hash, &is_withdrawn, err);
    if (status != STATUS_OK)
        return status;
    /* Version 0 is the repost's own words: they are withdrawn with it. */
    if (item->text.n_bytes > 0 && !(is_withdrawn && item->version == 0)) {
        status = store_put(s, item, &hash, is_queued, post, err);
    } else {
        bool is_gone;
        status = store_is_tombstone(s, &hash, &is_gone, err);
        if (status == STATUS_OK && is_gone)
            *post = STORE_REFUSED;
    }
    if (status != STATUS_OK)
        return status;
    if (is_withdrawn || *post == STORE_REFUSED) {
        *fold = STORE_REFUSED;
        return STATUS_OK;
    }
    return add_fold(s, item, &hash, &fold_hash, fold, err);
}

/* ---- Going away ---- */

enum status store_remove(struct store *s, int64_t id, struct store_erased *n,
                         struct error *err) {
    static const char mentions[] = "DELETE FROM mentions WHERE post_id = $1";
    static const char reviews[] = "DELETE FROM reviews WHERE post_id = $1";
    static const char results[] = "DELETE FROM results WHERE post_id = $1";
    static const char queue[] = MODELS_WAITED_FOR
        "DELETE FROM queue WHERE post_id = $1 "
        "AND model IN (SELECT model FROM waited WHERE model IS NOT NULL)";
    static const char posts[] = "DELETE FROM posts WHERE id = $1";
    enum status status = run_with_id(s, mentions, id, &n->n_mentions, err);
    if (status == STATUS_OK)
        status = run_with_id(s, reviews, id, &n->n_reviews, err);
    if (status == STATUS_OK)
        status = run_with_id(s, results, id, &n->n_results, err);
    if (status == STATUS_OK)
        status = run_with_id(s, queue, id, &n->n_queued, err);
    if (status == STATUS_OK)
        status = run_with_id(s, posts, id, &n->n_posts, err);
    return status;
}

enum status store_remove_dead(struct store *s, struct view key, int64_t *n,
                              struct error *err) {
    /* The second condition is that of the index. */
    static const char sql[] = "DELETE FROM dead_letters WHERE key = $1 AND key <> ''";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, key);
    int64_t n_changed = 0;
    status = statement_finish(st, &n_changed, err);
    *n += n_changed;
    return status;
}

/* A fold less on a post. Its words at version 0 were those of its reposts: they go with the
 * last. */
static enum status uncount(struct store *s, int64_t kind, int64_t post_id,
                           struct store_erased *n, struct error *err) {
    static const char sql[] =
        "SELECT key FROM posts WHERE id = $1 AND version = 0 AND n_reposts = 0";
    int64_t less[4] = {0};
    if (kind < STORE_REPOST || kind > STORE_DUPLICATE || post_id == 0)
        return STATUS_OK;
    less[kind] = -1;
    enum status status = add_counts(s, post_id, less, NULL, err);
    if (status != STATUS_OK || kind != STORE_REPOST)
        return status;
    struct statement *st;
    status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, post_id);
    bool has_row;
    struct view key = {0};
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row)
        status = arena_copy(&s->arena, statement_get_text(st, 0), &key, err);
    statement_reset(st);
    if (status != STATUS_OK || !has_row)
        return status;
    status = store_remove_dead(s, key, &n->n_dead, err);
    return status == STATUS_OK ? store_remove(s, post_id, n, err) : status;
}

enum status store_unfold(struct store *s, const struct store_hash *hash,
                         struct store_erased *n, struct error *err) {
    static const char sql[] =
        "DELETE FROM folds WHERE key_hash = $1 RETURNING kind, post_id";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, hash);
    bool has_row;
    int64_t kind = 0, post_id = 0;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row) {
        kind = statement_get_integer(st, 0);
        post_id = statement_get_integer(st, 1);
    }
    statement_reset(st);
    if (status != STATUS_OK || !has_row)
        return status;
    n->n_folds++;
    return uncount(s, kind, post_id, n, err);
}

static enum status run_with_hash(struct store *s, const char *sql,
                                 const struct store_hash *hash, int64_t *n_changed,
                                 struct error *err) {
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, hash);
    int64_t n = 0;
    status = statement_finish(st, &n, err);
    *n_changed += n;
    return status;
}

static enum status remove_all(struct store *s, struct view key,
                              const struct store_hash *hash, struct store_erased *n,
                              struct error *err) {
    static const char folded[] = "DELETE FROM folds WHERE into_hash = $1";
    int64_t id;
    enum status status = store_find(s, key, &id, NULL, err);
    if (status == STATUS_OK && id > 0)
        status = store_remove(s, id, n, err);
    if (status == STATUS_OK)
        status = store_remove_dead(s, key, &n->n_dead, err);
    if (status == STATUS_OK)
        status = run_with_hash(s, folded, hash, &n->n_folds, err);
    if (status == STATUS_OK)
        status = store_unfold(s, hash, n, err);
    return status;
}

static enum status withdraw(struct store *s, struct view key, bool is_kept,
                            struct store_erased *n, bool *is_new, struct error *err) {
    static const char tombstone[] =
        "INSERT INTO tombstones (key_hash, created_ns, is_kept) VALUES ($1, $2, $3) "
        "ON CONFLICT (key_hash) DO NOTHING";
    struct store_hash hash;
    struct store_erased here = {0};
    int64_t n_changed = 0;
    bool is_seen = false;
    enum status status = store_hash_of(s, key, &hash, err);
    if (status == STATUS_OK)
        status = remove_all(s, key, &hash, &here, err);
    if (status == STATUS_OK && !is_kept)
        status = store_is_seen(s, &hash, &is_seen, err);
    is_kept |= is_seen || here.n_posts > 0 || here.n_dead > 0 || here.n_folds > 0;
    struct statement *st;
    if (status == STATUS_OK)
        status = database_prepare(s->db, tombstone, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, &hash);
    statement_integer(st, 2, clock_wall_ns());
    statement_integer(st, 3, is_kept);
    status = statement_finish(st, &n_changed, err);
    *is_new = n_changed > 0;
    if (status == STATUS_OK && is_kept && !*is_new)
        status = keep_tombstone(s, &hash, err);
    n->n_posts += here.n_posts;
    n->n_results += here.n_results;
    n->n_mentions += here.n_mentions;
    n->n_reviews += here.n_reviews;
    n->n_dead += here.n_dead;
    n->n_folds += here.n_folds;
    n->n_queued += here.n_queued;
    return status;
}

enum status store_withdraw(struct store *s, struct view key, struct store_erased *n,
                           bool *is_new, struct error *err) {
    return withdraw(s, key, true, n, is_new, err);
}

enum status store_delete(struct store *s, struct view key, struct store_erased *n,
                         bool *is_new, struct error *err) {
    return withdraw(s, key, false, n, is_new, err);
}
