/* SPDX-License-Identifier: Apache-2.0
 *
 * store_private.h - what the files of the store share: the handle, transactions, and the one
 * way to make, change and remove a post.
 *
 * The rules that every order of the same news comes to the same state by:
 *   a post       of the largest version stands; with its key erased or withdrawn, none ever
 *   a fold       counts once for its key, while that key is neither erased nor a post itself;
 *                a post's counts are those of the rows of `folds` that name it
 *   version 0    is a repost's own words for a post that nobody has seen: any other version
 *                takes its place, and it goes with the last repost that said it
 * Keys that are gone for good are tombstones: SHA-256 of the key, and no more. What came
 * before its post, a delete or a fold, is kept for STORE_EARLY_NS at least (tidy.c).
 *
 * Threads: the store's lock is held from store_begin to store_end, and around reading.
 */
#ifndef VIGIL_STORE_STORE_PRIVATE_H
#define VIGIL_STORE_STORE_PRIVATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/sha256.h"
#include "base/status.h"
#include "base/view.h"
#include "store/database/database.h"
#include "store/store.h"

/* Stages of dead letters. */
#define STORE_STAGE_PARSE "parse"
#define STORE_STAGE_CLASSIFY "classify"

/* How many rows are read at once where nobody knows how many there are. */
#define STORE_CHUNK_ROWS 500

struct store {
    struct database *db;
    pthread_mutex_t lock;
    struct sha256 hash;
    struct arena arena; /* of one transaction: texts made fit, keys to be worked on */
    bool has_folds;     /* there may be folds of a post that comes in */
};

/* What a transaction may do beside those of others. SQLite has one writer at a time in any
 * case; PostgreSQL runs several, and there two that bring the same post in, fold into it,
 * withdraw it or count it must not miss each other. */
enum store_access {
    STORE_ALONE,   /* posts, folds, counts and the audit are read and changed */
    STORE_TOGETHER /* work on entries of the queue that are this worker's alone */
};

/* Takes the store's lock and begins; after STATUS_OK, store_end must follow. */
enum status store_begin(struct store *s, enum store_access access, struct error *err);
/* Commits when status is STATUS_OK, else rolls back; releases the lock. Returns what went
 * wrong first. */
enum status store_end(struct store *s, enum status status, struct error *err);
/* The lock alone, for reading outside a transaction. */
void store_lock(struct store *s);
void store_unlock(struct store *s);

/* Runs a statement without parameters that gives one integer (the first column). */
enum status store_integer(struct store *s, const char *sql, int64_t *out,
                          struct error *err);

/* ---- posts.c ---- */

#define STORE_HASH_BYTES 16 /* of SHA-256 of a key */

struct store_hash {
    uint8_t bytes[STORE_HASH_BYTES];
};
enum status store_hash_of(struct store *s, struct view key, struct store_hash *out,
                          struct error *err);
void store_hash(struct statement *st, int n, const struct store_hash *hash);

/* Runs a statement whose one parameter is a hash, and says whether it gave a row. */
enum status store_has(struct store *s, const char *sql, const struct store_hash *hash,
                      bool *has, struct error *err);
enum status store_is_tombstone(struct store *s, const struct store_hash *hash, bool *is,
                               struct error *err);
enum status store_is_seen(struct store *s, const struct store_hash *hash, bool *is,
                          struct error *err);
/* *id 0: there is no such post. version may be NULL. */
enum status store_find(struct store *s, struct view key, int64_t *id, int64_t *version,
                       struct error *err);

enum store_change { STORE_NEW, STORE_NEWER, STORE_AGAIN, STORE_REFUSED };

/* Writes the post of an item, whatever its fold. A new post is not in the queue yet
 * (store_queue_new); a newer version is, when is_queued. */
enum status store_put(struct store *s, const struct store_item *item,
                      const struct store_hash *hash, bool is_queued,
                      enum store_change *change, struct error *err);
/* Writes the post of an item with a fold, when it has a text, and counts the fold on it.
 * *post: what became of the post; *fold: STORE_NEW, AGAIN or REFUSED. */
enum status store_put_fold(struct store *s, const struct store_item *item,
                           bool is_queued, enum store_change *post,
                           enum store_change *fold, struct error *err);

/* Makes a key a tombstone, removes its post and all that hangs on it, and takes it back
 * where it was folded. Adds to *n. *is_new: it was no tombstone before. */
enum status store_withdraw(struct store *s, struct view key, struct store_erased *n,
                           bool *is_new, struct error *err);
/* The same by the source's word, which tells of all its posts, not of those here alone: when
 * nothing of the key is here, store_tidy may forget the tombstone. */
enum status store_delete(struct store *s, struct view key, struct store_erased *n,
                         bool *is_new, struct error *err);
/* Takes a fold back, if there is one. */
enum status store_unfold(struct store *s, const struct store_hash *hash,
                         struct store_erased *n, struct error *err);
/* Removes a post with its results, mentions, reviews and queue entries. */
enum status store_remove(struct store *s, int64_t id, struct store_erased *n,
                         struct error *err);
/* Removes the dead letters of a key. */
enum status store_remove_dead(struct store *s, struct view key, int64_t *n,
                              struct error *err);

/* ---- counts.c ---- */

/* What the counts of aggregate mode are told by. */
struct store_cell {
    struct view source, lang, country, state;
    struct view drugs; /* JSON, as of a post */
    int64_t at_ns;     /* the day that it counts on */
    const char *label; /* "": unknown, a fold that came after its post had gone */
    int64_t n_posts, n_reposts, n_quotes, n_duplicates;
};
/* Adds the numbers to the cell of each drug. */
enum status store_count(struct store *s, const struct store_cell *cell,
                        struct error *err);
/* The post has its label: counts it and takes it away; its key is seen. */
enum status store_count_post(struct store *s, int64_t id, const char *label,
                             struct error *err);

/* The key is counted, or never will be: a post of it that comes again is the same again. */
enum status store_see(struct store *s, struct view key, int64_t version,
                      struct error *err);

/* The places of a post's drugs; views lie in the arena of the transaction. What is not of
 * the form that store.h tells is left out. */
struct store_watch {
    struct view drug, name;
    int64_t begin, end;
};
enum status store_watched(struct store *s, struct view drugs, struct store_watch **out,
                          size_t *n, struct error *err);

/* ---- dead.c ---- */

/* Writes a letter of stage "classify" about a post, or anew. post_id 0: not stored here. */
struct store_failed {
    int64_t post_id, version, received_ns;
    int32_t tries;
    struct view source, key, model;
    const char *reason;
};
enum status store_bury(struct store *s, const struct store_failed *failed,
                       struct error *err);
/* Writes a letter of an item STORE_DEAD, unless the same line lies there. */
enum status store_bury_line(struct store *s, struct view source,
                            const struct store_item *item, bool *is_new,
                            struct error *err);

/* ---- audit.c ---- */

struct store_receipt {
    int64_t seq;
    char hash[STORE_SHA256_HEX + 1];
};
/* store_audit within a transaction (STORE_ALONE); receipt may be NULL. */
enum status store_audit_add(struct store *s, const char *actor, const char *action,
                            const char *subject, const char *details,
                            struct store_receipt *receipt, struct error *err);
/* "kind:" and a hash, for what must not stand in the audit itself. */
enum status store_audit_subject(struct store *s, const char *kind, struct view value,
                                char *out, size_t cap_bytes, struct error *err);

#endif
