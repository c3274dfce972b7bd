/* SPDX-License-Identifier: Apache-2.0
 *
 * audit.c - who did what. Each entry's hash is the SHA-256 of all its fields, each behind
 * its length, and of the hash before: nothing can be changed, taken out of the middle or put
 * in between without all that follows being wrong. What is cut off at the end shows only
 * against a receipt that somebody kept.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "store/store_private.h"

struct entry {
    int64_t seq, at_ns;
    struct view actor, action, subject, details, previous;
};

static enum status add_field(struct store *s, struct view field, struct error *err) {
    uint8_t length[8];
    for (size_t i = 0; i < sizeof length; i++)
        length[i] = (uint8_t)((uint64_t)field.n_bytes >> (8 * i));
    enum status status = sha256_add(&s->hash, length, sizeof length, err);
    if (status == STATUS_OK && field.n_bytes > 0)
        status = sha256_add(&s->hash, field.data, field.n_bytes, err);
    return status;
}

static enum status hash_of(struct store *s, const struct entry *e,
                           char out[SHA256_HEX_BYTES], struct error *err) {
    char seq[24], at[24];
    snprintf(seq, sizeof seq, "%" PRId64, e->seq);
    snprintf(at, sizeof at, "%" PRId64, e->at_ns);
    const struct view fields[] = {view_of_string(seq), view_of_string(at), e->actor,
                                  e->action,           e->subject,         e->details,
                                  e->previous};
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < sizeof fields / sizeof *fields; i++)
        status = add_field(s, fields[i], err);
    uint8_t digest[SHA256_BYTES];
    sha256_finish(&s->hash, digest);
    sha256_hex(digest, out);
    return status;
}

static enum status last_of_chain(struct store *s, struct entry *e, struct error *err) {
    static const char sql[] = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    bool has_row;
    status = statement_step(st, &has_row, err);
    e->seq = 1;
    if (status == STATUS_OK && has_row) {
        e->seq = statement_get_integer(st, 0) + 1;
        status = arena_copy(&s->arena, statement_get_text(st, 1), &e->previous, err);
    }
    statement_reset(st);
    return status;
}

/* The text as the database will give it back, for the hash to be the same. */
static enum status as_stored(struct store *s, const char *text, struct view *out,
                             struct error *err) {
    static const char sql[] = "SELECT CAST($1 AS TEXT)";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(text));
    bool has_row;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row)
        status = arena_copy(&s->arena, statement_get_text(st, 0), out, err);
    statement_reset(st);
    return status;
}

enum status store_audit_add(struct store *s, const char *actor, const char *action,
                            const char *subject, const char *details,
                            struct store_receipt *receipt, struct error *err) {
    static const char sql[] = "INSERT INTO audit (seq, at_ns, actor, action, subject, "
                              "details, previous, hash) "
                              "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    struct entry e = {.at_ns = clock_wall_ns()};
    enum status status = last_of_chain(s, &e, err);
    const char *texts[] = {actor, action, subject, details};
    struct view *views[] = {&e.actor, &e.action, &e.subject, &e.details};
    for (size_t i = 0; status == STATUS_OK && i < 4; i++)
        status = as_stored(s, texts[i], views[i], err);
    char hash[SHA256_HEX_BYTES];
    if (status == STATUS_OK)
        status = hash_of(s, &e, hash, err);
    struct statement *st;
    if (status == STATUS_OK)
        status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, e.seq);
    statement_integer(st, 2, e.at_ns);
    statement_text(st, 3, e.actor);
    statement_text(st, 4, e.action);
    statement_text(st, 5, e.subject);
    statement_text(st, 6, e.details);
    statement_text(st, 7, e.previous);
    statement_text(st, 8, view_of_string(hash));
    status = statement_finish(st, NULL, err);
    if (receipt) {
        receipt->seq = e.seq;
        memcpy(receipt->hash, hash, sizeof receipt->hash);
    }
    return status;
}

enum status store_audit_subject(struct store *s, const char *kind, struct view value,
                                char *out, size_t cap_bytes, struct error *err) {
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    enum status status = sha256_add(&s->hash, value.data, value.n_bytes, err);
    sha256_finish(&s->hash, digest);
    sha256_hex(digest, hex);
    snprintf(out, cap_bytes, "%s:%.*s", kind, 2 * STORE_HASH_BYTES, hex);
    return status;
}

enum status store_audit(struct store *s, const char *actor, const char *action,
                        const char *subject, const char *details, struct error *err) {
    enum status status = store_begin(s, STORE_ALONE, err);
    if (status != STATUS_OK)
        return status;
    status = store_audit_add(s, actor, action, subject, details, NULL, err);
    return store_end(s, status, err);
}

/* ---- Checking ---- */

struct link {
    int64_t seq; /* of the entry before */
    char hash[SHA256_HEX_BYTES];
};

static enum status check_entry(struct store *s, struct statement *st, struct link *link,
                               struct error *err) {
    struct entry e = {.seq = statement_get_integer(st, 0),
                      .at_ns = statement_get_integer(st, 1),
                      .actor = statement_get_text(st, 2),
                      .action = statement_get_text(st, 3),
                      .subject = statement_get_text(st, 4),
                      .details = statement_get_text(st, 5),
                      .previous = statement_get_text(st, 6)};
    char hash[SHA256_HEX_BYTES];
    if (e.seq != link->seq + 1)
        return error_set(err, STATUS_INVALID,
                         "audit entry %" PRId64 " is missing: %" PRId64 " follows",
                         link->seq + 1, e.seq);
    enum status status = hash_of(s, &e, hash, err);
    if (status != STATUS_OK)
        return status;
    if (!view_equal(e.previous, view_of_string(link->hash)))
        return error_set(err, STATUS_INVALID,
                         "audit entry %" PRId64 " does not follow the one before",
                         e.seq);
    if (!view_equal(statement_get_text(st, 7), view_of_string(hash)))
        return error_set(err, STATUS_INVALID,
                         "audit entry %" PRId64 " was changed: its hash is another",
                         e.seq);
    link->seq = e.seq;
    memcpy(link->hash, hash, sizeof link->hash);
    return STATUS_OK;
}

static enum status check_chunk(struct store *s, struct link *link, bool *has_more,
                               struct error *err) {
    static const char sql[] =
        "SELECT seq, at_ns, actor, action, subject, details, previous, hash FROM audit "
        "WHERE seq > $1 ORDER BY seq LIMIT $2";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, link->seq);
    statement_integer(st, 2, STORE_CHUNK_ROWS);
    bool has_row = true;
    *has_more = false;
    while (status == STATUS_OK && has_row) {
        status = statement_step(st, &has_row, err);
        if (status == STATUS_OK && has_row) {
            *has_more = true;
            status = check_entry(s, st, link, err);
        }
    }
    statement_reset(st);
    return status;
}

enum status store_audit_check(struct store *s, int64_t *n, struct error *err) {
    struct link link = {0};
    enum status status = STATUS_OK;
    bool has_more = true;
    while (status == STATUS_OK && has_more) {
        store_lock(s);
        status = check_chunk(s, &link, &has_more, err);
        store_unlock(s);
    }
    *n = link.seq;
    return status;
}
