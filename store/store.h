/* SPDX-License-Identifier: Apache-2.0
 *
 * store.h - what is kept: raw lines until they are read, posts, the queue of those that wait
 * for a result, results, counts, dead letters, cursors, the audit. One schema (schema/), in
 * SQLite or PostgreSQL.
 *
 * Nothing is lost and nothing doubled: each function below that writes is one transaction,
 * durable when it returns STATUS_OK, and does nothing otherwise. Everything that comes in has
 * a key that is unique for ever, so whatever is said twice counts once.
 *
 * Owns:    a database (database.h).
 * Threads: any; calls are served one after the other.
 */
#ifndef VIGIL_STORE_STORE_H
#define VIGIL_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"
#include "store/database/database.h"

#define STORE_KEY_BYTES 600    /* "source:native id" */
#define STORE_MAX_TRIES 5      /* then a post is a dead letter */
#define STORE_ALONE_LAPSES 3   /* claims without a word, then it is given out alone */
#define STORE_MAX_LAPSES 5     /* then it is a dead letter too */
#define STORE_REASON_BYTES 200 /* of a dead letter, without the post's text */
#define STORE_SHA256_HEX 64

struct store;

enum status store_open(const char *url, enum database_mode mode, struct store **out,
                       struct error *err);
void store_close(struct store *s);
struct database *store_database(struct store *s);

/* ---- Coming in: `vigil stream` ---- */

/* How much of a post may be kept. */
enum store_mode {
    STORE_PSEUDONYMOUS, /* authors as keyed hashes, contact data masked */
    STORE_FULL,
    STORE_AGGREGATE /* the post until its result is there, then counts alone */
};

enum store_item_kind {
    STORE_POST,
    STORE_DELETE, /* the post `key` (or the repost of that key) is withdrawn */
    STORE_DEAD    /* a raw line that cannot be used: body, reason */
};

enum store_fold {
    STORE_NO_FOLD,
    STORE_REPOST,   /* fold_key says the same as key, by the source's word */
    STORE_QUOTE,    /* fold_key quotes key */
    STORE_DUPLICATE /* fold_key has nearly the same text as key */
};

struct store_item {
    enum store_item_kind kind;
    int64_t
        raw_id; /* of the spooled line that this came from, which is then done; or 0 */
    enum store_mode mode;
    struct view source;
    struct view key;
    int64_t version; /* the larger wins; the same again changes nothing */
    struct view author;
    struct view text; /* empty with a fold: key is counted if it is there, not made */
    struct view lang, place, city, state, country; /* state: "US-CA"; country: "US" */
    struct view drugs; /* JSON: [{"drug","name","begin","end"}], code points of text */
    struct view url;
    int64_t posted_ns, received_ns;
    uint64_t fingerprint; /* of the words: fold.h; 0: none */

    /* Counted once for each fold_key, whatever comes again. */
    enum store_fold fold;
    struct view fold_key;

    /* STORE_DEAD */
    struct view body;   /* the line, as far as it may be kept */
    struct view reason; /* without the post's text */
    struct view stage;  /* "parse", "classify" */
};

/* A raw line that waits to be read. */
struct store_raw {
    int64_t id;
    int64_t received_ns;
    struct view line;
};

struct store_taken { /* what store_take_in did; added to, not set */
    int64_t n_posts, n_newer, n_again, n_folds, n_deleted, n_dead, n_refused;
};

/* One transaction: writes the raw lines (ids are set in them), applies the items in their
 * order, takes the items' raw lines away and those of `done`, and moves the source's cursor.
 * Any part may be empty; cursor NULL: it stays. The queue gets an entry for each new version of a post,
 * unless is_remote: then posts go to another queue (queue.h), and only bookkeeping is done
 * here. A post whose key was erased is refused (n_refused). */
struct store_take_in {
    const char *source;
    struct store_raw *raw;
    size_t n_raw;
    const struct store_item *items;
    size_t n_items;
    const int64_t *done; /* raw lines that say nothing that is kept */
    size_t n_done;
    const char *cursor;
    bool is_remote;
};
enum status store_take_in(struct store *s, const struct store_take_in *what,
                          struct store_taken *taken, struct error *err);

/* is_gone[i]: item i is a post that was erased or withdrawn, or counts one that was: what
 * store_take_in would refuse. Asked before posts are handed to another queue. */
enum status store_gone(struct store *s, const struct store_item *items, size_t n,
                       bool *is_gone, struct error *err);

/* Raw lines of a source with id > after, the oldest first, in the arena; at most cap. */
enum status store_spooled(struct store *s, const char *source, int64_t after,
                          struct arena *arena, struct store_raw *out, size_t cap,
                          size_t *n, struct error *err);

/* The cursor of a source; STATUS_NOT_FOUND when it has none. */
enum status store_cursor(struct store *s, const char *source, char *out,
                         size_t cap_bytes, struct error *err);

/* Keys and fingerprints of the newest posts of all sources, the oldest of them first: what
 * fold.h remembers after a restart. */
enum status store_recent(struct store *s, size_t n,
                         enum status (*each)(void *context, struct view key,
                                             uint64_t fingerprint, int64_t posted_ns,
                                             struct error *err),
                         void *context, struct error *err);

/* ---- Work: `vigil enrich` ---- */

struct store_claim {
    int64_t queue_id; /* 0: from a remote queue; item is set, post_id unknown */
    int64_t post_id, version;
    int64_t number; /* of the claim: with the worker, the proof that it holds */
    int32_t tries;  /* that failed, this one included */
    bool is_alone;  /* claim nothing beside it until it is settled */
    enum store_mode mode;
    struct view key, text, lang, drugs;
    const struct store_item *item; /* remote: the whole post, stored with its result */
};

/* Takes up to cap entries that nobody has, the oldest first, for lease_ns. worker names who
 * (host:pid). model: "" for new posts, else those put into the queue for that model
 * (store_enqueue). Strings are in the arena.
 * A claim whose lease ends although nobody settled it has lapsed: its worker was killed, and
 * nobody knows which of the posts it had is to blame, if any. So lapses are no tries: after
 * STORE_ALONE_LAPSES of them an entry comes last, and alone (n is 1, is_alone), to a worker
 * that has nothing else; so only what kills by itself gets to STORE_MAX_LAPSES. */
enum status store_claim(struct store *s, const char *worker, const char *model,
                        int64_t lease_ns, struct arena *arena, struct store_claim *out,
                        size_t cap, size_t *n, struct error *err);

struct store_mention { /* of the text, in code points, end exclusive */
    const char *type;  /* "DRUG", "ADE": the model's; "WATCH": the watch list's */
    struct view text, drug;
    int64_t begin, end;
    double score;
};

enum store_outcome_kind {
    STORE_DONE,
    STORE_RETRY,   /* back into the queue, not before delay_ns from now */
    STORE_GIVE_UP, /* a dead letter; also a STORE_RETRY whose tries are used up */
    STORE_RELEASE /* back into the queue at once, the try not counted: we are stopping */
};

struct store_outcome {
    const struct store_claim *claim;
    enum store_outcome_kind kind;
    int64_t delay_ns;
    const char *reason; /* of RETRY and GIVE_UP: "server: 422 too_long" */

    /* STORE_DONE */
    const char *model_name, *model_sha256, *dtype;
    const char *label;
    double score, probability; /* probability: of Adverse_Event */
    double threshold;
    const char *band; /* "positive", "review", "negative" */
    int64_t n_tokens, n_windows;
    bool is_truncated;
    const struct store_mention *mentions;
    size_t n_mentions;
};

/* Writes results, takes their entries out of the queue (only while the claim still holds and
 * the post still has that version: else the result is left out, somebody newer has the
 * work), turns aggregate posts into counts, all in one transaction. *n_lost (may be NULL):
 * outcomes whose claim no longer held. */
enum status store_settle(struct store *s, const char *worker,
                         const struct store_outcome *outcomes, size_t n, size_t *n_lost,
                         struct error *err);

/* Makes claims last lease_ns from now. */
enum status store_extend(struct store *s, const char *worker, const int64_t *queue_ids,
                         size_t n, int64_t lease_ns, struct error *err);

/* Puts all posts since a moment that have no result of the model into the queue for it. */
enum status store_enqueue(struct store *s, const char *model_sha256, int64_t since_ns,
                          int64_t *n, struct error *err);

struct store_lag {
    int64_t n_waiting, n_claimed, n_raw, n_dead;
    int64_t oldest_ns; /* received_ns of the oldest that waits; 0: none */
};
enum status store_lag(struct store *s, struct store_lag *out, struct error *err);

/* ---- Dead letters: `vigil dlq` ---- */

struct store_dead {
    int64_t id, created_ns, post_id, n_bytes;
    struct view source, key, stage, reason, body;
    int32_t tries;
};
/* Calls each, newest first, at most limit (0: all) times; id != 0: that one alone. body is
 * empty unless with_body. */
enum status store_dead(struct store *s, int64_t id, int64_t limit, bool with_body,
                       enum status (*each)(void *context, const struct store_dead *d,
                                           struct error *err),
                       void *context, struct error *err);
/* id 0: all. A letter of stage "parse" goes back to the raw lines of its source, one of
 * "classify" into the queue, its tries at 0. */
enum status store_dead_retry(struct store *s, int64_t id, const char *actor, int64_t *n,
                             struct error *err);
enum status store_dead_drop(struct store *s, int64_t id, const char *actor, int64_t *n,
                            struct error *err);

/* ---- Forgetting: `vigil erase` (erase.c has what lies outside the database) ---- */

struct store_erase {
    const char *source; /* all of a source, or of these two one: */
    const char *author; /* as stored (a keyed hash) … */
    const char
        *author_raw; /* … and as the source writes it, which is how it is stored in
                               full mode, and stands in raw lines and dead letters */
    const char *key; /* as stored … */
    const char *key_raw; /* … and the native id; with source: "source:id" as well */
    int64_t
        older_than_ns; /* > 0: all that came before, whichever source (or `source`) */
    const char *actor;
    bool is_dry_run;
    bool
        is_quick; /* of retention, each hour: the log is emptied, pages are not rewritten */
};
struct store_erased {
    int64_t n_posts, n_results, n_mentions, n_reviews, n_raw, n_dead, n_folds, n_queued;
    int64_t audit_seq; /* of the receipt */
    char audit_hash[STORE_SHA256_HEX + 1];
};
/* One transaction; then, in SQLite, all pages are written anew and the log is emptied, so that
 * no byte is left in the files: that takes as long as copying the database, and others wait.
 * When that fails, what was to be erased is, but bytes may be left: erase again, even though
 * nothing is found any more. A dry run counts, and changes nothing. Keys stay as tombstones
 * (hashes), so that what is erased does not come back. */
enum status store_erase(struct store *s, const struct store_erase *what,
                        struct store_erased *out, struct error *err);

#define STORE_EARLY_NS (INT64_C(7) * 24 * 3600 * 1000000000)
/* Forgets deletes and folds of posts that were never here and that came before a moment: a
 * source tells of all its posts, not of those alone that are kept. They are kept so long since
 * the post may come yet: give the time STORE_EARLY_NS ago, once a day. Many short
 * transactions; *n: how many went. */
enum status store_tidy(struct store *s, int64_t before_ns, int64_t *n,
                       struct error *err);

/* ---- Audit: who did what, in a chain of hashes ---- */

/* Appends within its own transaction. subject: a key or a hash; details: a JSON object. */
enum status store_audit(struct store *s, const char *actor, const char *action,
                        const char *subject, const char *details, struct error *err);
/* Walks the chain; STATUS_INVALID names the first link that does not hold. */
enum status store_audit_check(struct store *s, int64_t *n, struct error *err);

#endif
