/* SPDX-License-Identifier: Apache-2.0
 *
 * settle.c - what became of claims: results are written and entries leave the queue in one
 * transaction, so that a post is classified once or waits.
 *
 * The first statement about an entry is also the question whether it is still the worker's.
 * An entry has the version of its post (a newer version changes both), so no look at the
 * post is needed.
 */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "store/store_private.h"

/* ---- The entry in the queue ---- */

/* Binds what proves that a claim holds, as parameters from n on. */
static void bind_proof(struct statement *st, int n, const char *worker,
                       const struct store_claim *c) {
    statement_integer(st, n, c->queue_id);
    statement_text(st, n + 1, view_of_string(worker));
    statement_integer(st, n + 2, c->version);
    statement_integer(st, n + 3, c->number);
}

/* *model: what the entry was for. */
static enum status take_out(struct store *s, const char *worker,
                            const struct store_claim *c, struct view *model,
                            bool *is_held, struct error *err) {
    static const char sql[] =
        "DELETE FROM queue WHERE id = $1 AND worker = $2 AND version = $3 "
        "AND claims = $4 RETURNING model";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    bind_proof(st, 1, worker, c);
    status = statement_step(st, is_held, err);
    if (status == STATUS_OK && *is_held && model)
        status = arena_copy(&s->arena, statement_get_text(st, 0), model, err);
    statement_reset(st);
    return status;
}

static enum status put_back(struct store *s, const char *worker,
                            const struct store_outcome *o, bool *is_held,
                            struct error *err) {
    static const char retry[] =
        "UPDATE queue SET worker = '', lease_until_ns = 0, not_before_ns = @NOW@ + $1, "
        "tries = tries + 1, lapses = 0 "
        "WHERE id = $2 AND worker = $3 AND version = $4 AND claims = $5";
    static const char release[] =
        "UPDATE queue SET worker = '', lease_until_ns = 0 "
        "WHERE id = $1 AND worker = $2 AND version = $3 AND claims = $4";
    bool is_retry = o->kind == STORE_RETRY;
    struct statement *st;
    enum status status = database_prepare(s->db, is_retry ? retry : release, &st, err);
    if (status != STATUS_OK)
        return status;
    if (is_retry)
        statement_integer(st, 1, o->delay_ns > 0 ? o->delay_ns : 0);
    bind_proof(st, is_retry ? 2 : 1, worker, o->claim);
    int64_t n_changed = 0;
    status = statement_finish(st, &n_changed, err);
    *is_held = n_changed > 0;
    return status;
}

/* ---- Results ---- */

static double real_of(double value) {
    return isfinite(value) ? value : 0;
}

static enum status add_result(struct store *s, const struct store_outcome *o,
                              int64_t post_id, int64_t now_ns, bool *is_new,
                              struct error *err) {
    static const char sql[] =
        "INSERT INTO results (post_id, version, model_sha256, model_name, dtype, "
        "label, "
        "score, probability, threshold, band, n_tokens, n_windows, is_truncated, "
        "created_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, "
        "$14) "
        "ON CONFLICT (post_id, version, model_sha256) DO NOTHING";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, post_id);
    statement_integer(st, 2, o->claim->version);
    statement_text(st, 3, view_of_string(o->model_sha256));
    statement_text(st, 4, view_of_string(o->model_name));
    statement_text(st, 5, view_of_string(o->dtype));
    statement_text(st, 6, view_of_string(o->label));
    statement_real(st, 7, real_of(o->score));
    statement_real(st, 8, real_of(o->probability));
    statement_real(st, 9, real_of(o->threshold));
    statement_text(st, 10, view_of_string(o->band));
    statement_integer(st, 11, o->n_tokens);
    statement_integer(st, 12, o->n_windows);
    statement_integer(st, 13, o->is_truncated);
    statement_integer(st, 14, now_ns);
    int64_t n_changed = 0;
    status = statement_finish(st, &n_changed, err);
    *is_new = n_changed > 0;
    return status;
}

static enum status add_mention(struct store *s, const struct store_outcome *o,
                               int64_t post_id, int64_t n,
                               const struct store_mention *m, struct error *err) {
    static const char sql[] =
        "INSERT INTO mentions (post_id, version, model_sha256, n, type, text, drug, "
        "begin_cp, end_cp, score) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, post_id);
    statement_integer(st, 2, o->claim->version);
    statement_text(st, 3, view_of_string(o->model_sha256));
    statement_integer(st, 4, n);
    statement_text(st, 5, view_of_string(m->type));
    statement_text(st, 6, m->text);
    statement_text(st, 7, m->drug);
    statement_integer(st, 8, m->begin);
    statement_integer(st, 9, m->end);
    statement_real(st, 10, real_of(m->score));
    return statement_send(st, err);
}

static enum status add_answer(struct store *s, const struct store_outcome *o,
                              int64_t post_id, int64_t now_ns, struct error *err) {
    bool is_new;
    struct store_watch *watched;
    size_t n_watched;
    enum status status = add_result(s, o, post_id, now_ns, &is_new, err);
    if (status != STATUS_OK || !is_new)
        return status;
    int64_t n = 0;
    for (size_t i = 0; status == STATUS_OK && i < o->n_mentions; i++)
        status = add_mention(s, o, post_id, n++, &o->mentions[i], err);
    if (status == STATUS_OK)
        status =
            store_watched(s, o->claim->item ? o->claim->item->drugs : o->claim->drugs,
                          &watched, &n_watched, err);
    for (size_t i = 0; status == STATUS_OK && i < n_watched; i++) {
        struct store_mention m = {.type = "WATCH",
                                  .text = watched[i].name,
                                  .drug = watched[i].drug,
                                  .begin = watched[i].begin,
                                  .end = watched[i].end,
                                  .score = 1};
        status = add_mention(s, o, post_id, n++, &m, err);
    }
    return status;
}

static enum status finish(struct store *s, const struct store_outcome *o,
                          int64_t post_id, enum store_mode mode, int64_t now_ns,
                          struct error *err) {
    return mode == STORE_AGGREGATE ? store_count_post(s, post_id, o->label, err)
                                   : add_answer(s, o, post_id, now_ns, err);
}

/* ---- Giving up ---- */

static enum status give_up(struct store *s, const struct store_outcome *o,
                           struct view model, struct error *err) {
    static const char sql[] = "SELECT source, received_ns FROM posts WHERE id = $1";
    struct store_failed failed = {.post_id = o->claim->post_id,
                                  .version = o->claim->version,
                                  .tries = o->claim->tries,
                                  .key = o->claim->key,
                                  .model = model,
                                  .reason = o->reason};
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, failed.post_id);
    bool has_row;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row) {
        failed.received_ns = statement_get_integer(st, 1);
        status = arena_copy(&s->arena, statement_get_text(st, 0), &failed.source, err);
    }
    statement_reset(st);
    return status == STATUS_OK ? store_bury(s, &failed, err) : status;
}

/* ---- From another queue: the whole post comes with its result ---- */

static enum status put_item(struct store *s, const struct store_item *item,
                            struct error *err) {
    enum store_change post, fold;
    struct store_hash hash;
    if (item->fold != STORE_NO_FOLD)
        return store_put_fold(s, item, false, &post, &fold, err);
    enum status status = store_hash_of(s, item->key, &hash, err);
    return status == STATUS_OK ? store_put(s, item, &hash, false, &post, err) : status;
}

static enum status settle_remote(struct store *s, const struct store_outcome *o,
                                 int64_t now_ns, bool *is_held, struct error *err) {
    const struct store_item *item = o->claim->item;
    *is_held = true;
    if (o->kind == STORE_GIVE_UP) {
        struct store_failed failed = {.version = o->claim->version,
                                      .tries = o->claim->tries,
                                      .source = item->source,
                                      .key = item->key,
                                      .received_ns = item->received_ns,
                                      .reason = o->reason};
        return store_bury(s, &failed, err);
    }
    if (o->kind != STORE_DONE)
        return STATUS_OK;
    int64_t id, version = 0;
    enum status status = put_item(s, item, err);
    if (status == STATUS_OK)
        status = store_find(s, item->key, &id, &version, err);
    if (status != STATUS_OK)
        return status;
    *is_held = id > 0 && version == item->version;
    return *is_held ? finish(s, o, id, item->mode, now_ns, err) : STATUS_OK;
}

static enum status settle_one(struct store *s, const char *worker,
                              const struct store_outcome *o, int64_t now_ns,
                              bool *is_held, struct error *err) {
    if (o->claim->queue_id == 0)
        return settle_remote(s, o, now_ns, is_held, err);
    bool is_last = o->claim->tries >= STORE_MAX_TRIES;
    if (o->kind == STORE_RELEASE || (o->kind == STORE_RETRY && !is_last))
        return put_back(s, worker, o, is_held, err);
    struct view model = {0};
    enum status status = take_out(s, worker, o->claim, &model, is_held, err);
    if (status != STATUS_OK || !*is_held)
        return status;
    return o->kind == STORE_DONE
               ? finish(s, o, o->claim->post_id, o->claim->mode, now_ns, err)
               : give_up(s, o, model, err);
}

enum status store_settle(struct store *s, const char *worker,
                         const struct store_outcome *outcomes, size_t n, size_t *n_lost,
                         struct error *err) {
    size_t n_not_held = 0;
    enum store_access access = STORE_TOGETHER;
    for (size_t i = 0; i < n; i++)
        if (outcomes[i].claim->queue_id == 0 ||
            outcomes[i].claim->mode == STORE_AGGREGATE)
            access = STORE_ALONE;
    enum status status = store_begin(s, access, err);
    if (status != STATUS_OK)
        return status;
    s->has_folds = true; /* not looked for: a post of a remote queue may have some */
    int64_t now_ns = clock_wall_ns();
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        bool is_held = false;
        status = settle_one(s, worker, &outcomes[i], now_ns, &is_held, err);
        n_not_held += !is_held;
    }
    status = store_end(s, status, err);
    if (n_lost)
        *n_lost = status == STATUS_OK ? n_not_held : 0;
    return status;
}
