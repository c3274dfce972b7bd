/* SPDX-License-Identifier: Apache-2.0
 *
 * intake_write.c - the writer: all that is ready in one transaction, again until it is in.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/intake/intake_batch.h"

/* Of one transaction: enough to make its fsync cheap, and a second's work at most. */
#define ROUND_BATCHES 16
#define ROUND_LINES (ROUND_BATCHES * INTAKE_MAX_LINES)
#define ROUND_ITEMS (ROUND_LINES * SELECT_MAX_ITEMS)
#define MAX_BACKOFFS 50
#define CURSOR_NS CLOCK_NS_PER_SECOND /* a cursor alone is written that often */

struct writer {
    struct intake *i;

    /* The round. */
    struct store_raw *raw;    /* [ROUND_LINES] */
    struct store_item *items; /* [ROUND_ITEMS] */
    struct view *bodies;      /* [ROUND_ITEMS] the line of each */
    int64_t *done;            /* [ROUND_LINES] */
    size_t n_raw, n_items, n_done;
    uint64_t from_kept, to_kept;     /* batches whose raw lines go in */
    uint64_t from_stored, to_stored; /* batches whose items do */
    bool is_published;

    /* The newest cursor that is not in the store; all before it is. */
    char cursor[SOURCE_CURSOR_BYTES];
    struct source_position after;
    bool has_cursor;
    int64_t cursor_ns; /* when the store had one last */
};

static struct intake_batch *batch_at(struct intake *i, uint64_t n) {
    return &i->batches[n % i->n_batches];
}

/* ---- gathering ---- */

/* What there is for a round. The lock is held. */
static bool find_work(struct writer *w) {
    struct intake *i = w->i;
    w->from_kept = w->to_kept = i->n_kept;
    w->from_stored = w->to_stored = i->n_stored;
    if (i->is_raw_first)
        while (w->to_kept < i->n_filled && w->to_kept - w->from_kept < ROUND_BATCHES)
            w->to_kept++;
    else
        w->from_kept = w->to_kept = i->n_filled;
    uint64_t last = i->is_raw_first ? i->n_kept : i->n_filled;
    while (w->to_stored < last && w->to_stored - w->from_stored < ROUND_BATCHES &&
           batch_at(i, w->to_stored)->is_parsed)
        w->to_stored++;
    return w->to_kept > w->from_kept || w->to_stored > w->from_stored;
}

static void take_cursor(struct writer *w, const struct intake_batch *b) {
    if (b->is_spooled || b->cursor[0] == '\0')
        return;
    memcpy(w->cursor, b->cursor, sizeof w->cursor);
    w->after = b->after;
    w->has_cursor = true;
}

static void gather_raw(struct writer *w) {
    w->n_raw = 0;
    for (uint64_t n = w->from_kept; n < w->to_kept; n++) {
        struct intake_batch *b = batch_at(w->i, n);
        if (!w->i->is_raw_first || b->is_spooled)
            continue;
        for (size_t k = 0; k < b->n_lines; k++)
            w->raw[w->n_raw++] = (struct store_raw){
                .received_ns = b->lines[k].received_ns, .line = b->lines[k].bytes};
        take_cursor(w, b);
    }
}

static void fold(struct intake *i, struct intake_batch *b) {
    struct stream_metrics *m = i->options.metrics;
    for (size_t k = 0; k < b->n_items; k++) {
        struct store_item *item = &b->items[k];
        /* Without memory the post stands for itself. */
        if (i->options.fold && item->kind == STORE_POST)
            fold_item(i->options.fold, item, &b->arena, NULL);
        else if (i->options.fold && item->kind == STORE_DELETE)
            fold_forget(i->options.fold, item->key);
        if (item->kind == STORE_POST)
            atomic_fetch_add_explicit(&m->n_folded[item->fold], 1,
                                      memory_order_relaxed);
    }
}

static void gather_items(struct writer *w) {
    w->n_items = w->n_done = 0;
    for (uint64_t n = w->from_stored; n < w->to_stored; n++) {
        struct intake_batch *b = batch_at(w->i, n);
        fold(w->i, b);
        for (size_t k = 0; k < b->n_items; k++) {
            const struct intake_line *line = &b->lines[b->item_lines[k]];
            w->items[w->n_items] = b->items[k];
            w->items[w->n_items].raw_id = line->raw_id;
            w->bodies[w->n_items++] = line->bytes;
        }
        for (size_t k = 0; k < b->n_empty; k++)
            if (b->lines[b->empty[k]].raw_id)
                w->done[w->n_done++] = b->lines[b->empty[k]].raw_id;
        if (!w->i->is_raw_first)
            take_cursor(w, b);
    }
}

/* ---- writing ---- */

/* Will the same be refused again, however often it is tried? */
static bool is_for_good(enum status status) {
    return status == STATUS_INVALID || status == STATUS_UNSUPPORTED ||
           status == STATUS_LIMIT;
}

static enum status write_once(struct writer *w, struct store_taken *taken,
                              bool *is_queue, struct error *err) {
    const struct intake_store *store = &w->i->options.store;
    *is_queue = false;
    if (store->publish && w->n_items > 0 && !w->is_published) {
        enum status status = store->publish(store->context, w->items, w->n_items, err);
        *is_queue = status != STATUS_OK;
        if (status != STATUS_OK)
            return status;
        w->is_published = true;
    }
    const struct store_take_in what = {.source = w->i->options.name,
                                       .raw = w->raw,
                                       .n_raw = w->n_raw,
                                       .items = w->items,
                                       .n_items = w->n_items,
                                       .done = w->done,
                                       .n_done = w->n_done,
                                       .cursor = w->has_cursor ? w->cursor : NULL,
                                       .is_remote = store->publish != NULL};
    return store->take_in(store->context, &what, taken, err);
}

/* The item as a dead letter that says that it was refused. */
static struct store_item as_dead(const struct writer *w, size_t n, enum status status) {
    const struct store_item *item = &w->items[n];
    return (struct store_item){
        .kind = STORE_DEAD,
        .raw_id = item->raw_id,
        .mode = item->mode,
        .source = item->source,
        .received_ns = item->received_ns,
        .stage = VIEW("parse"),
        .reason = status == STATUS_LIMIT ? VIEW("refused: over a limit")
                                         : VIEW("refused: not a valid post"),
        .body = item->mode == STORE_AGGREGATE ? view_of(NULL, 0) : w->bodies[n]};
}

/* By itself; its raw line stays until the round is in. */
static enum status write_item(const struct writer *w, struct store_item item) {
    const struct intake_store *store = &w->i->options.store;
    struct store_taken taken = {0};
    struct error err;
    item.raw_id = 0;
    const struct store_take_in what = {.source = w->i->options.name,
                                       .items = &item,
                                       .n_items = 1,
                                       .is_remote = store->publish != NULL};
    enum status status =
        store->publish ? store->publish(store->context, &item, 1, &err) : STATUS_OK;
    return status == STATUS_OK ? store->take_in(store->context, &what, &taken, &err)
                               : status;
}

/* Something of the round is refused for good: finds it, item by item. The others may be
 * stored meanwhile, which the round then says again. A store that refuses the dead letter
 * too takes nothing at all (it can only be read now, it is broken): the post is good.
 * Returns whether anything was found. */
static bool find_bad(struct writer *w) {
    bool has_found = false;
    for (size_t n = 0; n < w->n_items && !intake_batch_is_late(w->i); n++) {
        if (w->items[n].kind == STORE_DEAD)
            continue;
        enum status status = write_item(w, w->items[n]);
        if (!is_for_good(status))
            continue;
        const struct store_item dead = as_dead(w, n, status);
        if (write_item(w, dead) != STATUS_OK)
            break;
        w->items[n] = dead;
        atomic_fetch_add(&w->i->options.metrics->n_dead, 1);
        has_found = true;
    }
    w->is_published = w->is_published && !has_found;
    return has_found;
}

static void tell(struct writer *w, bool is_queue, bool is_down, int64_t since_ns,
                 const struct error *err) {
    struct stream_metrics *m = w->i->options.metrics;
    const char *what = is_queue ? "queue" : "store";
    struct log_line line;
    atomic_store(is_queue ? &m->queue_is_down : &m->store_is_down, is_down);
    log_begin(&line, is_down ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, what);
    log_string(&line, "state", is_down ? "down" : "up");
    if (is_down)
        log_string(&line, "error", err->message);
    else
        log_number(&line, "seconds", (double)(clock_now_ns() - since_ns) / 1e9);
    log_end(&line);
}

/* Waits before the next try. False: it has been stopping for too long. */
static bool back_off(struct intake *i, int n_tries) {
    int64_t wait = i->options.backoff_ns * (n_tries < 6 ? 1 << n_tries : MAX_BACKOFFS);
    int64_t until = clock_now_ns() + wait;
    pthread_mutex_lock(&i->lock);
    bool was_stopping = i->is_stopping;
    while (clock_now_ns() < until && i->is_stopping == was_stopping)
        intake_batch_wait(i, &i->changed_parsed, until);
    pthread_mutex_unlock(&i->lock);
    return !intake_batch_is_late(i);
}

static enum status write_round(struct writer *w, struct error *err) {
    struct stream_metrics *m = w->i->options.metrics;
    int64_t down_ns = 0;
    bool is_queue = false, was_queue = false;
    for (int n_tries = 0;; n_tries++) {
        struct store_taken taken = {0};
        int64_t start = clock_now_ns();
        enum status status = write_once(w, &taken, &is_queue, err);
        if (status == STATUS_OK) {
            stream_metrics_commit(m, clock_now_ns() - start, &taken);
            if (down_ns)
                tell(w, was_queue, false, down_ns, err);
            return STATUS_OK;
        }
        atomic_fetch_add(is_queue ? &m->n_queue_errors : &m->n_store_errors, 1);
        if (is_for_good(status) && find_bad(w))
            continue;
        if (down_ns && was_queue != is_queue) {
            tell(w, was_queue, false, down_ns, err);
            down_ns = 0;
        }
        if (!down_ns) {
            down_ns = start;
            tell(w, is_queue, true, 0, err);
        }
        was_queue = is_queue;
        if (!back_off(w->i, n_tries))
            return status;
    }
}

/* The round is in the store: raw lines have their ids, batches are free. */
static void finish_round(struct writer *w) {
    struct intake *i = w->i;
    struct stream_metrics *m = i->options.metrics;
    const struct source_handle *source = &i->options.source;
    size_t n_raw = 0, n_lines = 0, n_gone = 0;
    for (uint64_t n = w->from_kept; n < w->to_kept; n++) {
        struct intake_batch *b = batch_at(i, n);
        for (size_t k = 0; k < b->n_lines && i->is_raw_first && !b->is_spooled; k++)
            b->lines[k].raw_id = w->raw[n_raw++].id;
    }
    for (uint64_t n = w->from_stored; n < w->to_stored; n++) {
        struct intake_batch *b = batch_at(i, n);
        n_lines += b->n_lines;
        n_gone += i->is_raw_first || b->is_spooled ? b->n_lines : 0;
    }
    atomic_fetch_add(&m->n_spooled, (int64_t)n_raw - (int64_t)n_gone);
    atomic_fetch_sub(&m->n_buffered, (int64_t)n_lines);
    pthread_mutex_lock(&i->lock);
    i->n_kept = w->to_kept;
    i->n_stored = w->to_stored;
    pthread_cond_broadcast(&i->changed_free);
    pthread_mutex_unlock(&i->lock);
    /* Before this the cursor may be behind; never in front. */
    if (!w->has_cursor && w->cursor_ns && source->kind->committed && w->cursor[0]) {
        source->kind->committed(source->source, w->after);
        w->cursor[0] = '\0';
    }
}

/* Is there nothing but a cursor, and not yet time for it? */
static bool may_wait(const struct writer *w, bool is_end) {
    return w->n_raw == 0 && w->n_items == 0 && w->n_done == 0 && !is_end &&
           clock_now_ns() - w->cursor_ns < CURSOR_NS;
}

static enum status run_round(struct writer *w, bool is_end, struct error *err) {
    w->is_published = false;
    gather_raw(w);
    gather_items(w);
    if (may_wait(w, is_end) ||
        (w->n_raw == 0 && w->n_items == 0 && w->n_done == 0 && !w->has_cursor)) {
        finish_round(w);
        return STATUS_OK;
    }
    enum status status = write_round(w, err);
    if (status != STATUS_OK)
        return status;
    if (w->has_cursor) {
        w->has_cursor = false;
        w->cursor_ns = clock_now_ns();
    }
    finish_round(w);
    return STATUS_OK;
}

static enum status write_all(struct writer *w, struct error *err) {
    struct intake *i = w->i;
    enum status status = STATUS_OK;
    while (status == STATUS_OK) {
        pthread_mutex_lock(&i->lock);
        bool has_work, is_end = false;
        while (!(has_work = find_work(w))) {
            is_end = i->is_read && i->n_stored == i->n_filled;
            if (is_end || (w->has_cursor && clock_now_ns() - w->cursor_ns >= CURSOR_NS))
                break;
            intake_batch_wait(i, &i->changed_parsed, clock_now_ns() + CURSOR_NS / 2);
        }
        pthread_mutex_unlock(&i->lock);
        if (!has_work && is_end && !w->has_cursor)
            break;
        status = run_round(w, is_end, err);
    }
    return status;
}

void *intake_write(void *intake) {
    struct intake *i = intake;
    struct writer w = {.i = i};
    struct error err = {0};
    enum status status = STATUS_OK;
    w.raw = calloc(ROUND_LINES, sizeof *w.raw);
    w.items = calloc(ROUND_ITEMS, sizeof *w.items);
    w.bodies = calloc(ROUND_ITEMS, sizeof *w.bodies);
    w.done = calloc(ROUND_LINES, sizeof *w.done);
    if (!w.raw || !w.items || !w.bodies || !w.done)
        status = error_set(&err, STATUS_NO_MEMORY, "no memory for the writer");
    if (status == STATUS_OK)
        status = write_all(&w, &err);
    free(w.raw);
    free(w.items);
    free(w.bodies);
    free(w.done);
    pthread_mutex_lock(&i->lock);
    i->write_status = status;
    if (status != STATUS_OK) {
        error_set(&i->write_error, status, "%" PRId64 " lines are not stored: %s",
                  (int64_t)atomic_load(&i->options.metrics->n_buffered), err.message);
    }
    i->is_done = true;
    pthread_cond_broadcast(&i->changed_free);
    pthread_cond_broadcast(&i->changed_filled);
    pthread_cond_broadcast(&i->changed_end);
    pthread_mutex_unlock(&i->lock);
    return NULL;
}
