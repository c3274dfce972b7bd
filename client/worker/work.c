/* SPDX-License-Identifier: Apache-2.0
 *
 * work.c - the two kinds of work: work_store (the queue is a table of the store) and
 * work_queue (NATS; the store gets post and result in one transaction, and only then the
 * message is acknowledged, so that a worker that dies in between leaves a message that comes
 * again and changes nothing).
 */
#include "client/worker/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define SHA256_START 12 /* digits of a model's hash in the name of its consumer */

/* Posts that need no classifier, taken in at most at once. */
#define ASIDE_ITEMS 32

struct work_base {
    struct work work; /* first */
    struct store *store;
    struct database *reader; /* for counting, beside the store */
    struct queue *queue;
    char *worker, *model;
    int64_t lease_ns;
};

static struct work_base *base_of(struct work *w) {
    return (struct work_base *)(void *)w;
}

static struct work_item *item_of(const struct store_outcome *outcome) {
    return (struct work_item *)(void *)(uintptr_t)outcome->claim;
}

/* ---- the store's own queue ---- */

static enum status store_work_claim(struct work *w, int64_t wait_ns,
                                    struct arena *arena, struct work_item *out,
                                    size_t cap, size_t *n, struct error *err) {
    struct work_base *b = base_of(w);
    (void)wait_ns;
    *n = 0;
    cap = cap < WORK_MAX_CLAIM ? cap : WORK_MAX_CLAIM;
    struct store_claim *claims = arena_take(arena, cap * sizeof *claims);
    if (!claims)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    enum status status = store_claim(b->store, b->worker, b->model, b->lease_ns, arena,
                                     claims, cap, n, err);
    for (size_t i = 0; i < *n; i++)
        out[i] = (struct work_item){.claim = claims[i]};
    return status;
}

static enum status store_work_settle(struct work *w,
                                     const struct store_outcome *outcomes, size_t n,
                                     size_t *n_lost, struct error *err) {
    return store_settle(base_of(w)->store, base_of(w)->worker, outcomes, n, n_lost,
                        err);
}

static enum status store_work_extend(struct work *w, struct work_item *const *items,
                                     size_t n, struct error *err) {
    struct work_base *b = base_of(w);
    int64_t *ids = malloc((n ? n : 1) * sizeof *ids);
    if (!ids)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a list of claims");
    for (size_t i = 0; i < n; i++)
        ids[i] = items[i]->claim.queue_id;
    enum status status = store_extend(b->store, b->worker, ids, n, b->lease_ns, err);
    free(ids);
    return status;
}

static enum status store_work_left(struct work *w, int64_t *n, struct error *err) {
    struct work_base *b = base_of(w);
    struct statement *st;
    bool has_row = false;
    *n = 0;
    enum status status = database_prepare(
        b->reader, "SELECT COUNT(*) FROM queue WHERE model = $1", &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(b->model));
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row)
        *n = statement_get_integer(st, 0);
    statement_reset(st);
    return status;
}

static enum status store_work_lag(struct work *w, struct store_lag *out,
                                  struct error *err) {
    return store_lag(base_of(w)->store, out, err);
}

static void base_close(struct work *w) {
    struct work_base *b = base_of(w);
    queue_close(b->queue);
    database_close(b->reader);
    store_close(b->store);
    free(b->worker);
    free(b->model);
    free(b);
}

static const struct work_calls STORE_CALLS = {.claim = store_work_claim,
                                              .settle = store_work_settle,
                                              .extend = store_work_extend,
                                              .left = store_work_left,
                                              .lag = store_work_lag,
                                              .close = base_close};

/* ---- NATS ---- */

/* What is published but not classified: withdrawals, reposts of what is known, lines that
 * could not be read. It goes into the store as it is. */
static bool is_aside(const struct store_item *item) {
    return item->kind != STORE_POST || item->text.n_bytes == 0;
}

static enum status take_aside(struct work_base *b,
                              const struct queue_delivery *deliveries, size_t n,
                              struct error *err) {
    struct store_item items[ASIDE_ITEMS];
    struct queue_message *messages[ASIDE_ITEMS];
    enum status status = STATUS_OK;
    size_t n_items = 0;
    for (size_t i = 0; i <= n && status == STATUS_OK; i++) {
        if (i < n && is_aside(&deliveries[i].item)) {
            items[n_items] = deliveries[i].item;
            items[n_items].raw_id = 0;
            messages[n_items++] = deliveries[i].message;
        }
        if (n_items == 0 || (i < n && n_items < ASIDE_ITEMS))
            continue;
        struct store_taken taken = {0};
        const struct store_take_in what = {
            .source = "queue", .items = items, .n_items = n_items};
        status = store_take_in(b->store, &what, &taken, err);
        if (status == STATUS_OK)
            status = queue_ack_all(b->queue, messages, n_items, err);
        n_items = 0;
    }
    return status;
}

static enum status queue_work_claim(struct work *w, int64_t wait_ns,
                                    struct arena *arena, struct work_item *out,
                                    size_t cap, size_t *n, struct error *err) {
    struct work_base *b = base_of(w);
    size_t n_fetched = 0;
    *n = 0;
    cap = cap < WORK_MAX_CLAIM ? cap : WORK_MAX_CLAIM;
    struct queue_delivery *deliveries = arena_take(arena, cap * sizeof *deliveries);
    if (!deliveries)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    enum status status =
        queue_fetch(b->queue, wait_ns, arena, deliveries, cap, &n_fetched, err);
    if (status != STATUS_OK)
        return status;
    /* A failure leaves their messages unsettled: they come again. The posts beside them are
     * worked on nevertheless. */
    struct error aside = {0};
    if (take_aside(b, deliveries, n_fetched, &aside) != STATUS_OK)
        log_message(LOG_LEVEL_WARNING, "store_failed", "%s", aside.message);
    for (size_t i = 0; i < n_fetched; i++) {
        const struct store_item *item = &deliveries[i].item;
        if (is_aside(item))
            continue;
        out[(*n)++] = (struct work_item){.claim = {.version = item->version,
                                                   .tries = deliveries[i].tries,
                                                   .mode = item->mode,
                                                   .key = item->key,
                                                   .text = item->text,
                                                   .lang = item->lang,
                                                   .drugs = item->drugs,
                                                   .item = item},
                                         .message = deliveries[i].message};
    }
    return STATUS_OK;
}

static bool is_last(const struct store_outcome *outcome) {
    return outcome->kind == STORE_GIVE_UP ||
           (outcome->kind == STORE_RETRY && outcome->claim->tries >= QUEUE_MAX_TRIES);
}

static bool is_for_store(struct store_outcome *outcome) {
    if (is_last(outcome))
        outcome->kind = STORE_GIVE_UP;
    return outcome->kind == STORE_DONE || outcome->kind == STORE_GIVE_UP;
}

/* All but results. A message is settled once, also when the whole is called again. */
static enum status settle_message(struct work_base *b,
                                  const struct store_outcome *outcome,
                                  struct error *err) {
    struct work_item *item = item_of(outcome);
    struct queue_message *message = item->message;
    item->message = NULL;
    if (!message)
        return STATUS_OK;
    if (is_last(outcome))
        return queue_give_up(b->queue, message, outcome->reason, err);
    if (outcome->kind == STORE_RETRY)
        queue_retry(b->queue, message, outcome->delay_ns);
    else
        queue_release(b->queue, message);
    return STATUS_OK;
}

/* The messages of posts of aggregate mode that are done with, which shall not wait for the
 * stream's age: into out. */
static size_t list_counted(const struct store_outcome *outcomes, size_t n,
                           enum store_outcome_kind kind, uint64_t *out) {
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) {
        const struct work_item *item = item_of(&outcomes[i]);
        if (item->message && item->claim.mode == STORE_AGGREGATE &&
            outcomes[i].kind == kind)
            out[n_out++] = queue_sequence(item->message);
    }
    return n_out;
}

static void erase_counted(struct work_base *b, const uint64_t *sequences, size_t n) {
    struct error err = {0};
    if (queue_erase_sequences(b->queue, sequences, n, &err) != STATUS_OK)
        log_message(LOG_LEVEL_ERROR, "queue_failed",
                    "posts of aggregate mode stay in the queue until its age: %s",
                    err.message);
}

static enum status queue_work_settle(struct work *w,
                                     const struct store_outcome *outcomes, size_t n,
                                     size_t *n_lost, struct error *err) {
    struct work_base *b = base_of(w);
    size_t n_kept = 0, n_done = 0, n_counted, n_bytes;
    if (n_lost)
        *n_lost = 0;
    if (n == 0)
        return STATUS_OK;
    struct store_outcome *kept =
        size_multiply(n, sizeof *kept, &n_bytes) ? malloc(n_bytes) : NULL;
    struct queue_message **messages = calloc(n, sizeof(struct queue_message *));
    uint64_t *counted = calloc(n, sizeof *counted);
    enum status status = STATUS_OK;
    if (!kept || !messages || !counted) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for results");
        goto out;
    }
    /* Results, and dead letters too, which the stream of dead letters keeps with the whole
     * post. */
    for (size_t i = 0; i < n; i++)
        if (item_of(&outcomes[i])->message) {
            kept[n_kept] = outcomes[i];
            n_kept += is_for_store(&kept[n_kept]);
        }
    if (n_kept > 0)
        status = store_settle(b->store, b->worker, kept, n_kept, n_lost, err);
    if (status != STATUS_OK)
        goto out;
    /* From here on all is in the store: a message whose settling fails comes again, and
     * changes nothing there. */
    struct error lost = {0};
    erase_counted(b, counted, list_counted(kept, n_kept, STORE_DONE, counted));
    n_counted = list_counted(kept, n_kept, STORE_GIVE_UP, counted);
    for (size_t i = 0; i < n_kept; i++)
        if (kept[i].kind == STORE_DONE) {
            messages[n_done++] = item_of(&kept[i])->message;
            item_of(&kept[i])->message = NULL;
        }
    if (n_done > 0 && queue_ack_all(b->queue, messages, n_done, &lost) != STATUS_OK)
        log_message(LOG_LEVEL_WARNING, "queue_failed", "%s", lost.message);
    for (size_t i = 0; i < n; i++)
        if (settle_message(b, &outcomes[i], &lost) != STATUS_OK)
            log_message(LOG_LEVEL_WARNING, "queue_failed", "%s", lost.message);
    erase_counted(b, counted, n_counted); /* their copies are dead letters */
out:
    free(counted);
    free(messages);
    free(kept);
    return status;
}

static enum status queue_work_extend(struct work *w, struct work_item *const *items,
                                     size_t n, struct error *err) {
    (void)err;
    for (size_t i = 0; i < n; i++)
        if (items[i]->message)
            queue_extend(base_of(w)->queue, items[i]->message);
    return STATUS_OK;
}

static enum status queue_work_left(struct work *w, int64_t *n, struct error *err) {
    struct queue_lag lag = {0};
    enum status status = queue_lag(base_of(w)->queue, &lag, err);
    *n = lag.n_waiting + lag.n_in_flight;
    return status;
}

static enum status queue_work_lag(struct work *w, struct store_lag *out,
                                  struct error *err) {
    struct queue_lag lag = {0};
    enum status status = queue_lag(base_of(w)->queue, &lag, err);
    *out = (struct store_lag){
        .n_waiting = lag.n_waiting, .n_claimed = lag.n_in_flight, .n_dead = lag.n_dead};
    return status;
}

static const struct work_calls QUEUE_CALLS = {.claim = queue_work_claim,
                                              .settle = queue_work_settle,
                                              .extend = queue_work_extend,
                                              .left = queue_work_left,
                                              .lag = queue_work_lag,
                                              .close = base_close};

/* ---- opening ---- */

static enum status open_queue(struct work_base *b, const struct work_options *options,
                              struct error *err) {
    char consumer[32] = "enrich";
    if (options->model[0])
        snprintf(consumer, sizeof consumer, "enrich-%.*s", SHA256_START,
                 options->model);
    const struct queue_options how = {.url = options->queue_url,
                                      .consumer = consumer,
                                      .since_ns = options->since_ns,
                                      .ack_wait_ns = options->lease_ns};
    b->work.calls = &QUEUE_CALLS;
    b->work.counts_releases = true;
    b->work.waits = true;
    return queue_open(&how, &b->queue, err);
}

enum status work_open(const struct work_options *options, struct work **out,
                      int64_t *n_enqueued, struct error *err) {
    int64_t n = 0;
    struct work_base *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the worker");
    b->work.calls = &STORE_CALLS;
    b->lease_ns = options->lease_ns;
    b->worker = strdup(options->worker);
    b->model = strdup(options->queue_url ? "" : options->model);
    enum status status =
        b->worker && b->model
            ? store_open(options->store_url, DATABASE_CREATE, &b->store, err)
            : error_set(err, STATUS_NO_MEMORY, "no memory for the worker");
    if (status == STATUS_OK && options->queue_url)
        status = open_queue(b, options, err);
    else if (status == STATUS_OK)
        status = database_open(options->store_url, DATABASE_READ, &b->reader, err);
    if (status == STATUS_OK && !options->queue_url && options->model[0])
        status = store_enqueue(b->store, options->model, options->since_ns, &n, err);
    if (status != STATUS_OK) {
        base_close(&b->work);
        return status;
    }
    if (n_enqueued)
        *n_enqueued = n;
    *out = &b->work;
    return STATUS_OK;
}

void work_close(struct work *w) {
    if (w)
        w->calls->close(w);
}
