/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/workload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/faults/disk.h"

#define LONG_NS (3600 * CLOCK_NS_PER_SECOND)
#define NOON_NS (INT64_C(1795694400) * CLOCK_NS_PER_SECOND)
#define N_AUTHORS 23
#define WORKER "host:1"

static const char *const model_names[] = {"m0", "m1"};

void workload_start(struct workload *w, uint64_t seed) {
    workload_free(w);
    *w = (struct workload){.random = seed};
    w->held_arena.max_bytes = (size_t)64 << 20;
}

void workload_free(struct workload *w) {
    arena_free(&w->held_arena);
}

bool workload_is_full(const struct workload *w) {
    return w->n_posts > LEDGER_POSTS - 2 * WORKLOAD_ITEMS ||
           w->n_raw > LEDGER_RAW - 2 * WORKLOAD_ITEMS;
}

static int64_t below(struct workload *w, int64_t n) {
    return (int64_t)disk_below(&w->random, (uint64_t)n);
}

static bool one_of(struct workload *w, int64_t n) {
    return below(w, n) == 0;
}

static void need(enum status status, const struct error *err) {
    if (status == STATUS_OK)
        return;
    fprintf(stderr, "workload: %s\n", err->message);
    abort();
}

static struct view text_of(struct call *c, const char *start, int64_t n) {
    struct view out;
    struct error err;
    need(arena_printf(&c->arena, &out, &err, "%s%" PRId64, start, n), &err);
    return out;
}

/* ---- What was tried, and what of it holds ---- */

/* Its parts may be there or not from now on. */
static void doubt_post(struct ledger *l, int64_t n) {
    if (l->posts[n].state == LEDGER_THERE || l->posts[n].state == LEDGER_UNKNOWN)
        l->posts[n].state = LEDGER_MAYBE;
    for (int64_t m = 3 * n; m < 3 * n + 3; m++)
        l->folds[m] = l->folds[m] == LEDGER_GONE ? LEDGER_GONE : LEDGER_MAYBE;
}

static void bury_post(struct ledger *l, int64_t n) {
    doubt_post(l, n);
    l->posts[n].state = LEDGER_GONE;
}

static void doubt_raw(struct ledger *l, int64_t n) {
    if (l->raw[n] == LEDGER_THERE)
        l->raw[n] = LEDGER_MAYBE;
}

/* A fold's key is taken back. */
static void doubt_fold(struct ledger *l, int64_t m) {
    l->folds[m] = LEDGER_GONE; /* or was never there: nothing is expected of it again */
}

static void try_item(struct workload *w, const struct store_item *item, int64_t n) {
    struct ledger *l = &w->ledger;
    bool is_fold_key = item->key.n_bytes > 5 && item->key.data[5] == 'r';
    if (item->kind == STORE_DELETE && is_fold_key)
        doubt_fold(l, n);
    else if (item->kind == STORE_DELETE ||
             (item->kind == STORE_POST && item->mode == STORE_AGGREGATE))
        doubt_post(l, n);
}

static void keep_item(struct workload *w, const struct store_item *item, int64_t n) {
    struct ledger *l = &w->ledger;
    bool is_fold_key = item->key.n_bytes > 5 && item->key.data[5] == 'r';
    if (item->kind == STORE_DELETE && !is_fold_key) {
        bury_post(l, n);
    } else if (item->kind == STORE_POST && item->fold != STORE_NO_FOLD) {
        enum ledger_state state = l->posts[n / 3].state;
        if (l->folds[n] == LEDGER_UNKNOWN && state <= LEDGER_THERE)
            l->folds[n] = LEDGER_THERE;
    } else if (item->kind == STORE_POST && l->posts[n].state <= LEDGER_THERE) {
        l->posts[n].state = LEDGER_THERE;
        if (item->version > l->posts[n].version)
            l->posts[n].version = item->version;
    }
}

static void try_erase(struct workload *w, const struct call *c) {
    struct ledger *l = &w->ledger;
    const struct store_erase *e = &c->erase;
    if (e->is_dry_run)
        return;
    for (int64_t n = 0; n <= w->n_posts; n++)
        if (e->key      ? n == c->numbers[0]
            : e->author ? n % N_AUTHORS == c->numbers[0]
                        : n < c->numbers[0])
            doubt_post(l, n);
    for (int64_t n = 0; !e->key && !e->author && n < c->numbers[0]; n++)
        doubt_raw(l, n);
}

void workload_again(struct workload *w, const struct call *c) {
    for (size_t i = 0; c->kind == CALL_TAKE_IN && i < c->take_in.n_items; i++)
        try_item(w, &c->items[i], c->numbers[i]);
    if (c->kind == CALL_ERASE)
        try_erase(w, c);
}

void workload_acknowledge(struct workload *w, const struct call *c) {
    struct ledger *l = &w->ledger;
    w->n_calls[c->kind]++;
    if (c->kind == CALL_TAKE_IN) {
        for (size_t i = 0; i < c->take_in.n_raw; i++)
            l->raw[c->raw_numbers[i]] = LEDGER_THERE;
        for (size_t i = 0; i < c->take_in.n_items; i++)
            keep_item(w, &c->items[i], c->numbers[i]);
        for (size_t i = 0; i < c->n_done; i++)
            l->raw[c->done_numbers[i]] = LEDGER_GONE;
        if (c->take_in.cursor)
            l->cursor = c->cursor;
    }
    for (size_t i = 0; c->kind == CALL_SETTLE && c->n_lost == 0 && i < c->n_claims;
         i++) {
        int64_t n = strtoll(c->claims[i].key.data + 5, NULL, 10);
        if (c->outcomes[i].kind == STORE_DONE)
            l->posts[n].results[c->models[i]] |= (uint8_t)(1u << c->claims[i].version);
    }
    for (size_t i = 0; c->kind == CALL_CLAIM && i < c->n_claims; i++) {
        if (w->n_held == WORKLOAD_HELD)
            break;
        struct held *h = &w->held[w->n_held++];
        struct error err;
        h->claim = c->claims[i];
        h->model = c->model;
        need(arena_copy(&w->held_arena, c->claims[i].key, &h->claim.key, &err), &err);
        need(arena_copy(&w->held_arena, c->claims[i].drugs, &h->claim.drugs, &err),
             &err);
    }
    if (c->kind == CALL_ERASE && !c->erase.is_dry_run && c->erase.key)
        bury_post(l, c->numbers[0]);
    l->n_audit +=
        (c->kind == CALL_ERASE && !c->erase.is_dry_run) || c->kind == CALL_AUDIT;
}

/* ---- Calls ---- */

static struct store_item a_post(struct workload *w, struct call *c, int64_t n,
                                int64_t version) {
    static const char drugs[] = "[{\"drug\":\"drugex\",\"name\":\"Drugex\",\"begin\":3,"
                                "\"end\":9}]";
    static const enum store_mode modes[] = {STORE_PSEUDONYMOUS, STORE_PSEUDONYMOUS,
                                            STORE_PSEUDONYMOUS, STORE_PSEUDONYMOUS,
                                            STORE_FULL,         STORE_AGGREGATE};
    char *text = arena_take(&c->arena, LEDGER_TEXT_BYTES);
    if (!text)
        abort();
    return (struct store_item){.kind = STORE_POST,
                               .mode = modes[below(w, 6)],
                               .source = VIEW("file"),
                               .key = text_of(c, "file:", n),
                               .version = version,
                               .author = text_of(c, "author", n % N_AUTHORS),
                               .text = ledger_text(n, version, text),
                               .lang = VIEW("en"),
                               .country = VIEW("US"),
                               .drugs = view_of_string(drugs),
                               .posted_ns = NOON_NS + n,
                               .received_ns = NOON_NS + n,
                               .fingerprint = (uint64_t)n + 1};
}

static void add_item(struct workload *w, struct call *c, struct store_item item,
                     int64_t n) {
    size_t i = c->take_in.n_items++;
    c->items[i] = item;
    c->numbers[i] = n;
    try_item(w, &item, n);
}

static void make_item(struct workload *w, struct call *c) {
    int64_t way = below(w, 20);
    int64_t old = below(w, w->n_posts + !workload_is_full(w)),
            fold = 3 * old + below(w, 3);
    struct store_item item;
    if ((way < 10 && !workload_is_full(w)) || w->n_posts == 0) {
        int64_t n = w->n_posts++;
        add_item(w, c, a_post(w, c, n, 1), n);
    } else if (way < 13) { /* again, or newer */
        add_item(w, c, a_post(w, c, old, 1 + below(w, LEDGER_VERSIONS - 1)), old);
    } else if (way < 17) {
        item = a_post(w, c, old, 0);
        item.mode = STORE_PSEUDONYMOUS;
        item.fold = (enum store_fold)(1 + fold % 3);
        item.fold_key = text_of(c, "file:r", fold);
        if (one_of(w, 2))
            item.text = VIEW("");
        add_item(w, c, item, fold);
    } else if (way == 17) {
        bool is_fold = one_of(w, 3);
        item = (struct store_item){.kind = STORE_DELETE,
                                   .source = VIEW("file"),
                                   .key = is_fold ? text_of(c, "file:r", fold)
                                                  : text_of(c, "file:", old)};
        add_item(w, c, item, is_fold ? fold : old);
    } else {
        item = (struct store_item){.kind = STORE_DEAD,
                                   .source = VIEW("file"),
                                   .stage = VIEW("parse"),
                                   .body = text_of(c, "letter ", w->n_letters++),
                                   .reason = VIEW("no JSON"),
                                   .received_ns = NOON_NS + INT64_C(1000000)};
        add_item(w, c, item, 0);
    }
}

static void make_take_in(struct workload *w, struct store *s, struct call *c) {
    struct store_raw spooled[WORKLOAD_ITEMS];
    struct error err;
    size_t n, most = w->is_large ? WORKLOAD_ITEMS : 8;
    int64_t way = below(w, 4);
    c->take_in = (struct store_take_in){
        .source = "file", .raw = c->raw, .items = c->items, .done = c->done};
    if (way != 1 && !workload_is_full(w)) {
        c->take_in.n_raw = 1 + (size_t)below(w, (int64_t)most);
        for (size_t i = 0; i < c->take_in.n_raw; i++) {
            c->raw_numbers[i] = w->n_raw;
            c->raw[i].received_ns = NOON_NS + w->n_raw;
            c->raw[i].line = text_of(c, "raw ", w->n_raw++);
        }
    }
    if (way != 2) {
        size_t n_items = 1 + (size_t)below(w, (int64_t)most);
        while (c->take_in.n_items < n_items)
            make_item(w, c);
        need(store_spooled(s, "file", 0, &c->arena, spooled,
                           (size_t)below(w, (int64_t)most + 1), &n, &err),
             &err);
        for (size_t i = 0; i < n; i++) {
            if (!view_starts_with(spooled[i].line, VIEW("raw ")))
                continue; /* a letter that was put back */
            int64_t number = strtoll(spooled[i].line.data + 4, NULL, 10);
            c->done_numbers[c->n_done++] = number;
            doubt_raw(&w->ledger, number);
            if (i < n_items && one_of(w, 2))
                c->items[i].raw_id = spooled[i].id;
            else
                c->done[c->take_in.n_done++] = spooled[i].id;
        }
    }
    if (!one_of(w, 5)) {
        c->cursor = ++w->cursor;
        w->ledger.cursor_tried = c->cursor;
        c->take_in.cursor = text_of(c, "", c->cursor).data;
    }
}

static void make_settle(struct workload *w, struct call *c) {
    static const enum store_outcome_kind kinds[] = {
        STORE_DONE, STORE_DONE,  STORE_DONE,    STORE_DONE,
        STORE_DONE, STORE_RETRY, STORE_GIVE_UP, STORE_RELEASE};
    static const struct store_mention mention = {
        .type = "ADE", .text = {"rash", 4}, .begin = 1, .end = 5, .score = 0.5};
    size_t n = 1 + (size_t)below(w, WORKLOAD_CLAIMS);
    for (; c->n_claims < n && w->n_held > 0; c->n_claims++) {
        size_t i = c->n_claims, at = (size_t)below(w, (int64_t)w->n_held);
        struct error err;
        c->claims[i] = w->held[at].claim;
        c->models[i] = w->held[at].model;
        need(arena_copy(&c->arena, w->held[at].claim.key, &c->claims[i].key, &err),
             &err);
        need(arena_copy(&c->arena, w->held[at].claim.drugs, &c->claims[i].drugs, &err),
             &err);
        w->held[at] = w->held[--w->n_held];
        c->outcomes[i] =
            (struct store_outcome){.claim = &c->claims[i],
                                   .kind = kinds[below(w, 8)],
                                   .reason = "server: 500",
                                   .model_name = "ade",
                                   .model_sha256 = model_names[c->models[i]],
                                   .dtype = "int8",
                                   .label = "Adverse_Event",
                                   .score = 0.9,
                                   .probability = 0.9,
                                   .threshold = 0.6,
                                   .band = "positive",
                                   .n_tokens = below(w, 500),
                                   .n_windows = 1,
                                   .mentions = &mention,
                                   .n_mentions = 1};
    }
    if (w->n_held == 0)
        arena_clear(&w->held_arena);
}

static void make_erase(struct workload *w, struct call *c) {
    int64_t way = below(w, 4);
    c->erase.actor = "test";
    c->erase.is_dry_run = one_of(w, 6);
    c->erase.is_quick = one_of(w, 2);
    if (way < 2) {
        c->numbers[0] = below(w, w->n_posts + 1);
        c->erase.key = text_of(c, "file:", c->numbers[0]).data;
    } else if (way == 2) {
        c->numbers[0] = below(w, N_AUTHORS);
        c->erase.author = text_of(c, "author", c->numbers[0]).data;
    } else {
        c->numbers[0] = below(w, 12);
        c->erase.older_than_ns = NOON_NS + c->numbers[0];
    }
    try_erase(w, c);
}

void workload_next(struct workload *w, struct store *s, struct call *c) {
    int64_t way = below(w, 100);
    *c = (struct call){.kind = CALL_TAKE_IN};
    c->arena.max_bytes = (size_t)16 << 20;
    if (w->is_large && !one_of(w, 4))
        way = 0;
    if (way < 40 || (way < 75 && w->n_posts == 0)) {
        make_take_in(w, s, c);
    } else if (way < 58) {
        c->kind = CALL_CLAIM;
        c->model = one_of(w, 4);
    } else if (way < 75) {
        c->kind = CALL_SETTLE;
        make_settle(w, c);
    } else if (way < 78) {
        c->kind = CALL_EXTEND;
    } else if (way < 81) {
        c->kind = CALL_ENQUEUE;
    } else if (way < 88) {
        c->kind = CALL_ERASE;
        make_erase(w, c);
    } else if (way < 91) {
        c->kind = CALL_DEAD;
        c->is_retry = one_of(w, 2);
    } else if (way < 94) {
        c->kind = CALL_AUDIT;
    } else {
        c->kind = CALL_CHECKPOINT;
    }
    for (size_t i = 0; c->kind == CALL_EXTEND && i < w->n_held && i < WORKLOAD_CLAIMS;
         i++)
        c->claims[c->n_claims++] = w->held[i].claim;
}

static enum status extend(struct call *c, struct store *s, struct error *err) {
    int64_t ids[WORKLOAD_CLAIMS];
    for (size_t i = 0; i < c->n_claims; i++)
        ids[i] = c->claims[i].queue_id;
    return store_extend(s, WORKER, ids, c->n_claims, LONG_NS, err);
}

enum status workload_apply(struct call *c, struct store *s, struct error *err) {
    struct store_taken taken = {0};
    struct store_erased erased;
    int64_t n;
    switch (c->kind) {
    case CALL_TAKE_IN:
        return store_take_in(s, &c->take_in, &taken, err);
    case CALL_CLAIM:
        return store_claim(s, WORKER, c->model ? model_names[c->model] : "", LONG_NS,
                           &c->arena, c->claims, WORKLOAD_CLAIMS, &c->n_claims, err);
    case CALL_SETTLE:
        return store_settle(s, WORKER, c->outcomes, c->n_claims, &c->n_lost, err);
    case CALL_EXTEND:
        return extend(c, s, err);
    case CALL_ENQUEUE:
        return store_enqueue(s, model_names[1], 0, &n, err);
    case CALL_ERASE:
        return store_erase(s, &c->erase, &erased, err);
    case CALL_DEAD:
        return c->is_retry ? store_dead_retry(s, 0, "test", &n, err)
                           : store_dead_drop(s, 0, "test", &n, err);
    case CALL_AUDIT:
        return store_audit(s, "test", "look", "all", "{}", err);
    default:
        return database_checkpoint(store_database(s), err);
    }
}

void workload_free_call(struct call *c) {
    arena_free(&c->arena);
}

static enum status free_claims(struct store *s, struct error *err) {
    static const char sql[] = "SELECT id FROM queue WHERE worker <> '' ORDER BY id";
    static int64_t ids[LEDGER_POSTS * 2];
    size_t n = 0;
    bool has_row = true;
    struct statement *st;
    enum status status = database_prepare(store_database(s), sql, &st, err);
    while (status == STATUS_OK &&
           (status = statement_step(st, &has_row, err)) == STATUS_OK && has_row)
        if (n < sizeof ids / sizeof *ids)
            ids[n++] = statement_get_integer(st, 0);
    return status == STATUS_OK ? store_extend(s, WORKER, ids, n, 0, err) : status;
}

enum status workload_forget_claims(struct workload *w, struct store *s,
                                   struct store *shadow, struct error *err) {
    w->n_held = 0;
    arena_clear(&w->held_arena);
    enum status status = free_claims(s, err);
    return status == STATUS_OK ? free_claims(shadow, err) : status;
}
