/* SPDX-License-Identifier: Apache-2.0
 *
 * forget.c - erasing: of a source, an author, a post, or of all that is too old.
 *
 * Posts are found by what is stored of them. Raw lines and letters of lines that could not be
 * read have not been taken apart yet: they are searched for the author's or the post's id as
 * the source writes it, as a word (12 is not found in 123). One that holds it is erased, even
 * if it only mentions the author.
 *
 * Counts of aggregate mode tell of nobody and stay, unless the whole source is erased. Cursors
 * stay in any case: what was erased is not to be fetched again.
 *
 * A dry run does all of it and rolls back.
 *
 * SQLite zeroes what is deleted where it lies, but when cells move to another page it leaves
 * copies in the space that a page does not use. So at the end the database is rewritten.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/memory.h"
#include "store/store_private.h"

#define MAX_DETAILS_BYTES 512

struct erasing {
    const struct store_erase *what;
    int64_t before_ns; /* INT64_MAX: of any age */
    struct view author_raw, key_raw;
    const char *author; /* whose posts are looked for now */
    struct store_erased n;
};

static enum status run_bound(struct statement *st, int64_t *n, struct error *err) {
    int64_t n_changed = 0;
    enum status status = statement_finish(st, &n_changed, err);
    *n += n_changed;
    return status;
}

/* ---- Posts ---- */

#define POSTS_BEHIND "SELECT id, key FROM posts WHERE id > $1 AND received_ns < $2"
#define CHUNK " ORDER BY id LIMIT 500"

/* The statement with its parameters, of the next chunk of posts. */
static enum status select_posts(struct store *s, const struct erasing *e, int64_t after,
                                struct statement **st, struct error *err) {
    static const char all[] = POSTS_BEHIND CHUNK;
    static const char of_source[] = POSTS_BEHIND " AND source = $3" CHUNK;
    static const char of_author[] = POSTS_BEHIND " AND author = $3" CHUNK;
    static const char of_both[] = POSTS_BEHIND " AND author = $3 AND source = $4" CHUNK;
    const struct store_erase *what = e->what;
    const char *sql = e->author && what->source ? of_both
                      : e->author               ? of_author
                      : what->source            ? of_source
                                                : all;
    enum status status = database_prepare(s->db, sql, st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(*st, 1, after);
    statement_integer(*st, 2, e->before_ns);
    if (e->author)
        statement_text(*st, 3, view_of_string(e->author));
    if (what->source)
        statement_text(*st, e->author ? 4 : 3, view_of_string(what->source));
    return STATUS_OK;
}

static enum status read_keys(struct store *s, struct statement *st, int64_t *after,
                             struct view keys[STORE_CHUNK_ROWS], size_t *n,
                             struct error *err) {
    bool has_row = true;
    enum status status = STATUS_OK;
    for (*n = 0; status == STATUS_OK && *n < STORE_CHUNK_ROWS; *n += 1) {
        status = statement_step(st, &has_row, err);
        if (status != STATUS_OK || !has_row)
            break;
        *after = statement_get_integer(st, 0);
        status = arena_copy(&s->arena, statement_get_text(st, 1), &keys[*n], err);
    }
    statement_reset(st);
    return status;
}

static enum status erase_posts(struct store *s, struct erasing *e, struct error *err) {
    int64_t after = 0;
    enum status status = STATUS_OK;
    size_t n = 1;
    while (status == STATUS_OK && n > 0) {
        arena_clear(&s->arena);
        struct view *keys = arena_take(&s->arena, STORE_CHUNK_ROWS * sizeof *keys);
        if (!keys)
            return error_set(err, STATUS_NO_MEMORY, "no memory for keys");
        struct statement *st;
        status = select_posts(s, e, after, &st, err);
        if (status == STATUS_OK)
            status = read_keys(s, st, &after, keys, &n, err);
        bool is_new;
        for (size_t i = 0; status == STATUS_OK && i < n; i++)
            status = store_withdraw(s, keys[i], &e->n, &is_new, err);
    }
    return status;
}

/* A store may have held an author in both forms, one mode after the other. */
static enum status erase_authors(struct store *s, struct erasing *e,
                                 struct error *err) {
    const char *const forms[] = {e->what->author, e->what->author_raw};
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < 2; i++) {
        e->author = forms[i];
        if (e->author)
            status = erase_posts(s, e, err);
    }
    return status;
}

/* The same of a post. */
static enum status erase_keys(struct store *s, struct erasing *e, struct error *err) {
    const struct store_erase *what = e->what;
    char plain[STORE_KEY_BYTES] = "";
    bool is_new;
    enum status status = STATUS_OK;
    if (what->key_raw && what->source)
        snprintf(plain, sizeof plain, "%s:%s", what->source, what->key_raw);
    if (what->key)
        status = store_withdraw(s, view_of_string(what->key), &e->n, &is_new, err);
    if (status == STATUS_OK && plain[0])
        status = store_withdraw(s, view_of_string(plain), &e->n, &is_new, err);
    return status;
}

/* ---- Lines ---- */

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           c == '_' || (unsigned char)c >= 0x80;
}

/* How many bytes of text are the word, as it stands or as JSON may write it (\/ for /); 0:
 * they are not. */
static size_t matches(const char *text, size_t n_left, struct view word) {
    size_t at = 0;
    for (size_t i = 0; i < word.n_bytes; i++, at++) {
        if (word.data[i] == '/' && at + 1 < n_left && text[at] == '\\')
            at++;
        if (at >= n_left || text[at] != word.data[i])
            return 0;
    }
    return at;
}

static bool holds(struct view line, struct view word) {
    const char *p = line.data, *end = line.data + line.n_bytes;
    if (word.n_bytes == 0 || line.n_bytes < word.n_bytes)
        return false;
    bool starts = is_word(word.data[0]), ends = is_word(word.data[word.n_bytes - 1]);
    for (; p < end && (p = memchr(p, word.data[0], (size_t)(end - p))) != NULL; p++) {
        size_t n = matches(p, (size_t)(end - p), word);
        if (n > 0 && !(starts && p > line.data && is_word(p[-1])) &&
            !(ends && p + n < end && is_word(p[n])))
            return true;
    }
    return false;
}

static bool is_meant(const struct erasing *e, struct view line) {
    return holds(line, e->author_raw) || holds(line, e->key_raw);
}

/* Ids of the rows behind `after` whose line is meant. *has_more: there were rows. */
static enum status find_lines(struct store *s, const struct erasing *e, const char *sql,
                              int64_t *after, int64_t ids[STORE_CHUNK_ROWS], size_t *n,
                              bool *has_more, struct error *err) {
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, *after);
    bool has_row = true;
    *n = 0;
    *has_more = false;
    while (status == STATUS_OK && has_row) {
        status = statement_step(st, &has_row, err);
        if (status != STATUS_OK || !has_row)
            break;
        *has_more = true;
        *after = statement_get_integer(st, 0);
        bool is_of_source =
            !e->what->source ||
            view_equal(statement_get_text(st, 1), view_of_string(e->what->source));
        if (is_of_source && statement_get_integer(st, 2) < e->before_ns &&
            is_meant(e, statement_get_text(st, 3)))
            ids[(*n)++] = *after;
    }
    statement_reset(st);
    return status;
}

static enum status erase_lines(struct store *s, const struct erasing *e,
                               const char *find, const char *erase, int64_t *n_erased,
                               struct error *err) {
    int64_t after = 0, ids[STORE_CHUNK_ROWS];
    size_t n;
    bool has_more = true;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && has_more) {
        status = find_lines(s, e, find, &after, ids, &n, &has_more, err);
        for (size_t i = 0; status == STATUS_OK && i < n; i++) {
            struct statement *st;
            status = database_prepare(s->db, erase, &st, err);
            if (status != STATUS_OK)
                break;
            statement_integer(st, 1, ids[i]);
            status = run_bound(st, n_erased, err);
        }
    }
    return status;
}

/* When a letter's line came; 0 was not known. */
#define LETTER_CAME "(CASE WHEN received_ns > 0 THEN received_ns ELSE created_ns END)"

static enum status erase_lines_by_word(struct store *s, struct erasing *e,
                                       struct error *err) {
    static const char find_raw[] = "SELECT id, source, received_ns, line FROM raw "
                                   "WHERE id > $1 ORDER BY id LIMIT 500";
    static const char erase_raw[] = "DELETE FROM raw WHERE id = $1";
    static const char find_dead[] =
        "SELECT id, source, " LETTER_CAME ", body "
        "FROM dead_letters WHERE id > $1 ORDER BY id LIMIT 500";
    static const char erase_dead[] = "DELETE FROM dead_letters WHERE id = $1";
    if (e->author_raw.n_bytes == 0 && e->key_raw.n_bytes == 0)
        return STATUS_OK;
    enum status status = erase_lines(s, e, find_raw, erase_raw, &e->n.n_raw, err);
    return status == STATUS_OK
               ? erase_lines(s, e, find_dead, erase_dead, &e->n.n_dead, err)
               : status;
}

/* All lines of a source or an age. */
static enum status erase_lines_of(struct store *s, struct erasing *e, bool of_source,
                                  const char *sql, int64_t *n, struct error *err) {
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, e->before_ns);
    if (of_source)
        statement_text(st, 2, view_of_string(e->what->source));
    return run_bound(st, n, err);
}

static enum status erase_all_lines(struct store *s, struct erasing *e,
                                   struct error *err) {
    static const char raw[] = "DELETE FROM raw WHERE received_ns < $1";
    static const char raw_of[] =
        "DELETE FROM raw WHERE received_ns < $1 AND source = $2";
    static const char dead[] = "DELETE FROM dead_letters WHERE " LETTER_CAME " < $1";
    static const char dead_of[] =
        "DELETE FROM dead_letters WHERE " LETTER_CAME " < $1 AND source = $2";
    bool of_source = e->what->source != NULL;
    enum status status =
        erase_lines_of(s, e, of_source, of_source ? raw_of : raw, &e->n.n_raw, err);
    return status == STATUS_OK
               ? erase_lines_of(s, e, of_source, of_source ? dead_of : dead,
                                &e->n.n_dead, err)
               : status;
}

/* ---- What else a source left ---- */

/* Folds that came from the source and were counted on posts of another. */
static enum status erase_folds(struct store *s, struct erasing *e, struct error *err) {
    static const char sql[] =
        "SELECT key_hash FROM folds WHERE key_hash > $1 AND source = $2 "
        "AND created_ns < $3 ORDER BY key_hash LIMIT 500";
    enum status status = STATUS_OK;
    struct store_hash last = {.bytes = {0}};
    bool has_row = true, has_any = true;
    while (status == STATUS_OK && has_any) {
        struct store_hash hashes[STORE_CHUNK_ROWS];
        size_t n = 0;
        struct statement *st;
        status = database_prepare(s->db, sql, &st, err);
        if (status != STATUS_OK)
            break;
        store_hash(st, 1, &last);
        statement_text(st, 2, view_of_string(e->what->source));
        statement_integer(st, 3, e->before_ns);
        while ((status = statement_step(st, &has_row, err)) == STATUS_OK && has_row) {
            struct view hash = statement_get_text(st, 0);
            if (hash.n_bytes == sizeof hashes->bytes && n < STORE_CHUNK_ROWS)
                memcpy(hashes[n++].bytes, hash.data, hash.n_bytes);
        }
        has_any = n > 0;
        if (has_any)
            last = hashes[n - 1];
        for (size_t i = 0; status == STATUS_OK && i < n; i++)
            status = store_unfold(s, &hashes[i], &e->n, err);
    }
    return status;
}

static enum status erase_counts(struct store *s, const char *source,
                                struct error *err) {
    static const char sql[] = "DELETE FROM aggregates WHERE source = $1";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(source));
    return statement_finish(st, NULL, err);
}

/* ---- All of it ---- */

static enum status erase_all(struct store *s, struct erasing *e, struct error *err) {
    const struct store_erase *what = e->what;
    enum status status = STATUS_OK;
    if (what->key || what->key_raw)
        status = erase_keys(s, e, err);
    else if (what->author || what->author_raw)
        status = erase_authors(s, e, err);
    else
        status = erase_posts(s, e, err);
    if (status != STATUS_OK)
        return status;
    if (what->key || what->author || what->author_raw || what->key_raw)
        return erase_lines_by_word(s, e, err);
    status = erase_all_lines(s, e, err);
    if (status == STATUS_OK && what->source)
        status = erase_folds(s, e, err);
    if (status == STATUS_OK && what->source && e->before_ns == INT64_MAX)
        status = erase_counts(s, what->source, err);
    return status;
}

/* What was erased, told so that the receipt does not hold it. */
static enum status write_subject(struct store *s, const struct store_erase *what,
                                 char *out, size_t cap_bytes, struct error *err) {
    const char *author = what->author ? what->author : what->author_raw;
    const char *key = what->key ? what->key : what->key_raw;
    if (key)
        return store_audit_subject(s, "post", view_of_string(key), out, cap_bytes, err);
    if (author)
        return store_audit_subject(s, "author", view_of_string(author), out, cap_bytes,
                                   err);
    if (what->source)
        snprintf(out, cap_bytes, "source:%s", what->source);
    else
        snprintf(out, cap_bytes, "before:%" PRId64, what->older_than_ns);
    return STATUS_OK;
}

static enum status write_receipt(struct store *s, struct erasing *e,
                                 struct error *err) {
    char subject[STORE_KEY_BYTES + 16], details[MAX_DETAILS_BYTES];
    struct store_receipt receipt = {0};
    const struct store_erased *n = &e->n;
    enum status status = write_subject(s, e->what, subject, sizeof subject, err);
    if (status != STATUS_OK)
        return status;
    snprintf(details, sizeof details,
             "{\"posts\":%" PRId64 ",\"results\":%" PRId64 ",\"mentions\":%" PRId64
             ",\"reviews\":%" PRId64 ",\"raw\":%" PRId64 ",\"dead\":%" PRId64
             ",\"folds\":%" PRId64 ",\"queued\":%" PRId64 ",\"older_than_ns\":%" PRId64
             "}",
             n->n_posts, n->n_results, n->n_mentions, n->n_reviews, n->n_raw, n->n_dead,
             n->n_folds, n->n_queued, e->what->older_than_ns);
    status = store_audit_add(s, e->what->actor ? e->what->actor : "", "erase", subject,
                             details, &receipt, err);
    e->n.audit_seq = receipt.seq;
    memcpy(e->n.audit_hash, receipt.hash, sizeof e->n.audit_hash);
    return status;
}

enum status store_erase(struct store *s, const struct store_erase *what,
                        struct store_erased *out, struct error *err) {
    struct erasing e = {.what = what,
                        .before_ns =
                            what->older_than_ns > 0 ? what->older_than_ns : INT64_MAX,
                        .author_raw = view_of_string(what->author_raw),
                        .key_raw = view_of_string(what->key_raw)};
    *out = (struct store_erased){0};
    if (!what->source && !what->author && !what->author_raw && !what->key &&
        !what->key_raw && what->older_than_ns <= 0)
        return error_set(err, STATUS_INVALID,
                         "nothing to erase: a source, an author, a post or an age is "
                         "expected");
    enum status status = store_begin(s, STORE_ALONE, err);
    if (status != STATUS_OK)
        return status;
    status = erase_all(s, &e, err);
    if (status == STATUS_OK && what->is_dry_run) {
        *out = e.n;
        database_rollback(s->db);
        store_unlock(s);
        return STATUS_OK;
    }
    if (status == STATUS_OK)
        status = write_receipt(s, &e, err);
    status = store_end(s, status, err);
    if (status != STATUS_OK)
        return status;
    *out = e.n;
    store_lock(s);
    status =
        what->is_quick ? database_checkpoint(s->db, err) : database_rewrite(s->db, err);
    store_unlock(s);
    return status == STATUS_OK
               ? STATUS_OK
               : error_prefix(err, "erased, but bytes may be left in the files, erase "
                                   "again");
}

/* ---- What is gone ---- */

#define ASKED_AT_ONCE 32

/* Of up to ASKED_AT_ONCE hashes, which are tombstones. */
static enum status ask_tombstones(struct store *s, const struct store_hash *hashes,
                                  size_t n, bool *is_gone, struct error *err) {
    static const char sql[] =
        "SELECT key_hash FROM tombstones WHERE key_hash IN ($1, $2, $3, $4, $5, $6, "
        "$7, "
        "$8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, "
        "$24, $25, $26, $27, $28, $29, $30, $31, $32)";
    struct statement *st;
    bool has_row = true;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < ASKED_AT_ONCE; i++)
        store_hash(st, (int)i + 1, &hashes[i < n ? i : 0]);
    while ((status = statement_step(st, &has_row, err)) == STATUS_OK && has_row) {
        struct view gone = statement_get_text(st, 0);
        for (size_t i = 0; i < n; i++)
            if (view_equal(gone,
                           view_of((const char *)hashes[i].bytes, STORE_HASH_BYTES)))
                is_gone[i] = true;
    }
    statement_reset(st);
    return status;
}

enum status store_gone(struct store *s, const struct store_item *items, size_t n,
                       bool *is_gone, struct error *err) {
    enum status status = STATUS_OK;
    store_lock(s);
    for (size_t at = 0; status == STATUS_OK && at < n; at += ASKED_AT_ONCE / 2) {
        struct store_hash hashes[ASKED_AT_ONCE];
        bool are_gone[ASKED_AT_ONCE] = {false};
        size_t n_items = n - at < ASKED_AT_ONCE / 2 ? n - at : ASKED_AT_ONCE / 2;
        for (size_t i = 0; status == STATUS_OK && i < n_items; i++) {
            const struct store_item *item = &items[at + i];
            struct view other = item->fold ? item->fold_key : item->key;
            status = store_hash_of(s, item->key, &hashes[2 * i], err);
            if (status == STATUS_OK)
                status = store_hash_of(s, other, &hashes[2 * i + 1], err);
        }
        if (status == STATUS_OK)
            status = ask_tombstones(s, hashes, 2 * n_items, are_gone, err);
        for (size_t i = 0; i < n_items; i++) {
            const struct store_item *item = &items[at + i];
            is_gone[at + i] =
                item->kind == STORE_POST &&
                (are_gone[2 * i] || (are_gone[2 * i + 1] && item->text.n_bytes == 0));
        }
    }
    store_unlock(s);
    return status;
}
