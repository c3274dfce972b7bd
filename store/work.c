/* SPDX-License-Identifier: Apache-2.0
 *
 * work.c - who works on what: claims with a lease on the database's clock.
 *
 * An entry is free when its lease has ended; nobody has to be told that a worker died. An
 * entry that somebody had until then has lapsed (store.h): it becomes a dead letter when it
 * would be claimed after STORE_MAX_LAPSES. Worker, version and the number of the claim
 * together are the proof that a claim still holds.
 */
#include <stdlib.h>

#include "base/memory.h"
#include "store/store_private.h"

/* Who claims what. */
struct claimant {
    const char *worker, *model;
    int64_t lease_ns;
};

/* Posts whose entries one claim has taken, in their order. */
struct taken {
    int64_t *post_ids;
    size_t n;
};

static int by_id(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Of an entry that is free: a worker that stands there still has never settled it. */
#define LAPSES "lapses + CASE WHEN worker <> '' THEN 1 ELSE 0 END"
/* Picked once: a subquery with a LIMIT may be run again for each row of the table. */
#define LEASE(of_lapses)                                                               \
    "WITH picked AS MATERIALIZED (SELECT id FROM queue WHERE model = $1 "              \
    "AND lease_until_ns <= $2 AND not_before_ns <= $2 AND " LAPSES of_lapses           \
    " ORDER BY post_id LIMIT $4 @SKIP_LOCKED@) "                                       \
    "UPDATE queue SET lapses = " LAPSES ", worker = $5, lease_until_ns = $6, "         \
    "claims = claims + 1 WHERE id IN (SELECT id FROM picked) RETURNING post_id"

/* is_alone: one of those that have lapsed too often, else up to cap of the others. */
static enum status lease(struct store *s, const struct claimant *who, int64_t now_ns,
                         bool is_alone, size_t cap, struct taken *out,
                         struct error *err) {
    static const char usual[] = LEASE(" < $3");
    static const char alone[] = LEASE(" >= $3");
    struct statement *st;
    out->n = 0;
    enum status status = database_prepare(s->db, is_alone ? alone : usual, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(who->model));
    statement_integer(st, 2, now_ns);
    statement_integer(st, 3, STORE_ALONE_LAPSES);
    statement_integer(st, 4, is_alone ? 1 : (int64_t)cap);
    statement_text(st, 5, view_of_string(who->worker));
    statement_integer(st, 6, now_ns + who->lease_ns);
    bool has_row = true;
    while (status == STATUS_OK && has_row) {
        status = statement_step(st, &has_row, err);
        if (status == STATUS_OK && has_row && out->n < cap)
            out->post_ids[out->n++] = statement_get_integer(st, 0);
    }
    statement_reset(st);
    qsort(out->post_ids, out->n, sizeof *out->post_ids, by_id);
    return status;
}

static enum status has_other(struct store *s, const struct claimant *who,
                             int64_t now_ns, bool *has, struct error *err) {
    static const char sql[] = "SELECT 1 FROM queue WHERE model = $1 AND worker = $2 "
                              "AND lease_until_ns > $3 LIMIT 1";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(who->model));
    statement_text(st, 2, view_of_string(who->worker));
    statement_integer(st, 3, now_ns);
    status = statement_step(st, has, err);
    statement_reset(st);
    return status;
}

/* What everybody may have; when there is none, one of those that must be alone. */
static enum status take(struct store *s, const struct claimant *who, size_t cap,
                        struct taken *out, bool *is_alone, struct error *err) {
    static const char now[] = "SELECT @NOW@";
    int64_t now_ns;
    bool has = false;
    *is_alone = false;
    enum status status = store_integer(s, now, &now_ns, err);
    if (status == STATUS_OK)
        status = lease(s, who, now_ns, false, cap, out, err);
    if (status != STATUS_OK || out->n > 0)
        return status;
    status = has_other(s, who, now_ns, &has, err);
    if (status != STATUS_OK || has)
        return status;
    *is_alone = true;
    return lease(s, who, now_ns, true, cap, out, err);
}

/* An entry that must not be worked on: it has lapsed too often, or its post is not there. */
struct spent {
    int64_t queue_id;
    bool has_post;
    struct store_failed failed;
};

static enum status read_claim(struct statement *st, struct arena *arena,
                              struct store_claim *c, struct error *err) {
    struct view *texts[] = {&c->key, &c->text, &c->lang, &c->drugs};
    *c = (struct store_claim){.queue_id = statement_get_integer(st, 0),
                              .post_id = statement_get_integer(st, 1),
                              .version = statement_get_integer(st, 2),
                              .tries = (int32_t)statement_get_integer(st, 3) + 1,
                              .mode = (enum store_mode)statement_get_integer(st, 4),
                              .number = statement_get_integer(st, 11)};
    enum status status = STATUS_OK;
    for (int i = 0; status == STATUS_OK && i < 4; i++)
        status = arena_copy(arena, statement_get_text(st, 5 + i), texts[i], err);
    return status;
}

static enum status read_spent(struct store *s, struct statement *st, const char *model,
                              bool has_post, struct spent *out, struct error *err) {
    *out = (struct spent){
        .queue_id = statement_get_integer(st, 0),
        .has_post = has_post,
        .failed = {.post_id = statement_get_integer(st, 1),
                   .version = statement_get_integer(st, 2),
                   .tries = (int32_t)(statement_get_integer(st, 3) +
                                      statement_get_integer(st, 12)),
                   .model = view_of_string(model),
                   .reason = "claimed, at last alone, but never settled: each worker "
                             "died or took longer than its lease"}};
    if (!has_post)
        return STATUS_OK;
    out->failed.received_ns = statement_get_integer(st, 10);
    enum status status =
        arena_copy(&s->arena, statement_get_text(st, 5), &out->failed.key, err);
    if (status == STATUS_OK)
        status =
            arena_copy(&s->arena, statement_get_text(st, 9), &out->failed.source, err);
    return status;
}

/* Reads what lease took: claims into out, the rest into spent. Whatever was free between the
 * first and the last was taken too, so few rows of others lie in between. */
static enum status read_taken(struct store *s, const struct claimant *who,
                              const struct taken *taken, struct arena *arena,
                              struct store_claim *out, size_t *n, struct spent *spent,
                              size_t *n_spent, struct error *err) {
    static const char sql[] =
        "SELECT q.id, q.post_id, q.version, q.tries, p.mode, p.key, p.text, p.lang, "
        "p.drugs, p.source, p.received_ns, q.claims, q.lapses "
        "FROM queue q LEFT JOIN posts p "
        "ON p.id = q.post_id AND p.version = q.version "
        "WHERE q.model = $1 AND q.post_id BETWEEN $2 AND $3 AND q.worker = $4 "
        "ORDER BY q.post_id";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(who->model));
    statement_integer(st, 2, taken->post_ids[0]);
    statement_integer(st, 3, taken->post_ids[taken->n - 1]);
    statement_text(st, 4, view_of_string(who->worker));
    bool has_row = true;
    for (size_t i = 0; status == STATUS_OK && i < taken->n;) {
        status = statement_step(st, &has_row, err);
        if (status != STATUS_OK || !has_row)
            break;
        if (statement_get_integer(st, 1) != taken->post_ids[i])
            continue; /* this worker has had it before */
        i++;
        bool has_post = !statement_is_null(st, 5);
        if (has_post && statement_get_integer(st, 12) < STORE_MAX_LAPSES)
            status = read_claim(st, arena, &out[(*n)++], err);
        else
            status = read_spent(s, st, who->model, has_post, &spent[(*n_spent)++], err);
    }
    statement_reset(st);
    return status;
}

static enum status end_spent(struct store *s, const struct spent *spent, size_t n,
                             struct error *err) {
    static const char sql[] = "DELETE FROM queue WHERE id = $1";
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        struct statement *st;
        if (spent[i].has_post)
            status = store_bury(s, &spent[i].failed, err);
        if (status == STATUS_OK)
            status = database_prepare(s->db, sql, &st, err);
        if (status != STATUS_OK)
            break;
        statement_integer(st, 1, spent[i].queue_id);
        status = statement_send(st, err);
    }
    return status;
}

static enum status claim(struct store *s, const struct claimant *who,
                         struct arena *arena, struct store_claim *out, size_t cap,
                         size_t *n, struct error *err) {
    size_t n_ids_bytes, n_spent_bytes;
    struct taken taken = {0};
    struct spent *spent = NULL;
    if (size_multiply(cap, sizeof *taken.post_ids, &n_ids_bytes) &&
        size_multiply(cap, sizeof *spent, &n_spent_bytes)) {
        taken.post_ids = arena_take(&s->arena, n_ids_bytes);
        spent = arena_take(&s->arena, n_spent_bytes);
    }
    if (!taken.post_ids || !spent)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu claims", cap);
    enum status status;
    do { /* again when all that were taken were spent: there may be work behind them */
        size_t n_spent = 0;
        bool is_alone;
        status = take(s, who, cap, &taken, &is_alone, err);
        if (status != STATUS_OK || taken.n == 0)
            return status;
        status = read_taken(s, who, &taken, arena, out, n, spent, &n_spent, err);
        if (status == STATUS_OK && *n > 0)
            out[0].is_alone = is_alone;
        if (status == STATUS_OK)
            status = end_spent(s, spent, n_spent, err);
    } while (status == STATUS_OK && *n == 0);
    return status;
}

enum status store_claim(struct store *s, const char *worker, const char *model,
                        int64_t lease_ns, struct arena *arena, struct store_claim *out,
                        size_t cap, size_t *n, struct error *err) {
    *n = 0;
    if (cap == 0)
        return STATUS_OK;
    enum status status = store_begin(s, STORE_TOGETHER, err);
    if (status != STATUS_OK)
        return status;
    const struct claimant who = {worker, model, lease_ns};
    status = claim(s, &who, arena, out, cap, n, err);
    status = store_end(s, status, err);
    if (status != STATUS_OK)
        *n = 0;
    return status;
}

enum status store_extend(struct store *s, const char *worker, const int64_t *queue_ids,
                         size_t n, int64_t lease_ns, struct error *err) {
    static const char sql[] = "UPDATE queue SET lease_until_ns = @NOW@ + $1 "
                              "WHERE id = $2 AND worker = $3";
    enum status status = store_begin(s, STORE_TOGETHER, err);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        struct statement *st;
        status = database_prepare(s->db, sql, &st, err);
        if (status != STATUS_OK)
            break;
        statement_integer(st, 1, lease_ns);
        statement_integer(st, 2, queue_ids[i]);
        statement_text(st, 3, view_of_string(worker));
        status = statement_send(st, err);
    }
    return store_end(s, status, err);
}

enum status store_enqueue(struct store *s, const char *model_sha256, int64_t since_ns,
                          int64_t *n, struct error *err) {
    static const char sql[] =
        "INSERT INTO queue (post_id, version, model) "
        "SELECT p.id, p.version, CAST($1 AS TEXT) FROM posts p "
        "WHERE p.received_ns >= $2 AND p.mode <> 2 "
        "AND NOT EXISTS (SELECT 1 FROM results r WHERE r.post_id = p.id "
        "AND r.version = p.version AND r.model_sha256 = $1) "
        "ORDER BY p.id ON CONFLICT (model, post_id) DO NOTHING";
    *n = 0;
    if (!*model_sha256)
        return error_set(err, STATUS_INVALID,
                         "no model to put posts into the queue for");
    enum status status = store_begin(s, STORE_ALONE, err);
    if (status != STATUS_OK)
        return status;
    struct statement *st;
    status = database_prepare(s->db, sql, &st, err);
    if (status == STATUS_OK) {
        statement_text(st, 1, view_of_string(model_sha256));
        statement_integer(st, 2, since_ns);
        status = statement_finish(st, n, err);
    }
    return store_end(s, status, err);
}

enum status store_lag(struct store *s, struct store_lag *out, struct error *err) {
    static const char claimed[] =
        "SELECT count(*) FROM queue WHERE lease_until_ns > @NOW@";
    static const char all[] = "SELECT count(*) FROM queue";
    static const char raw[] = "SELECT count(*) FROM raw";
    static const char dead[] = "SELECT count(*) FROM dead_letters";
    /* Of the first that waits, in the order of work: new posts before reruns. */
    static const char oldest[] =
        "SELECT p.received_ns FROM queue q JOIN posts p ON p.id = q.post_id "
        "WHERE q.lease_until_ns <= @NOW@ ORDER BY q.model, q.post_id LIMIT 1";
    *out = (struct store_lag){0};
    int64_t n_all = 0;
    store_lock(s);
    enum status status = store_integer(s, claimed, &out->n_claimed, err);
    if (status == STATUS_OK)
        status = store_integer(s, all, &n_all, err);
    if (status == STATUS_OK)
        status = store_integer(s, raw, &out->n_raw, err);
    if (status == STATUS_OK)
        status = store_integer(s, dead, &out->n_dead, err);
    if (status == STATUS_OK)
        status = store_integer(s, oldest, &out->oldest_ns, err);
    store_unlock(s);
    out->n_waiting = n_all > out->n_claimed ? n_all - out->n_claimed : 0;
    return status;
}
