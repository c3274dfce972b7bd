/* SPDX-License-Identifier: Apache-2.0
 *
 * intake_read.c - the reader: lines of the store's spool and of the source, into batches.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/intake/intake_batch.h"

#define IDLE_NS (CLOCK_NS_PER_SECOND / 2)
#define MAX_BACKOFFS 50

struct reader {
    struct intake *i;
    struct intake_batch *batch; /* being filled; NULL: none is free */
    int64_t looked_ns;          /* into the spool */
    enum status status;         /* what ended the source */
    struct error err;
    bool is_over;
};

/* Waits for a free batch: here the source is held back. False: it is time to end. */
static bool take_batch(struct reader *r) {
    struct intake *i = r->i;
    pthread_mutex_lock(&i->lock);
    while (i->n_filled - i->n_stored == i->n_batches && !intake_batch_is_failed(i))
        pthread_cond_wait(&i->changed_free, &i->lock);
    bool is_free = !intake_batch_is_failed(i);
    r->batch = is_free ? &i->batches[i->n_filled % i->n_batches] : NULL;
    pthread_mutex_unlock(&i->lock);
    if (!is_free)
        return false;
    struct intake_batch *b = r->batch;
    arena_clear(&b->lines_arena);
    arena_clear(&b->arena);
    b->n_lines = b->n_bytes = b->n_items = b->n_empty = 0;
    b->is_spooled = b->is_parsed = false;
    b->cursor[0] = '\0';
    return true;
}

/* Hands the batch on. */
static void hand_on(struct reader *r) {
    struct intake *i = r->i;
    struct intake_batch *b = r->batch;
    atomic_fetch_add(&i->options.metrics->n_buffered, (int64_t)b->n_lines);
    pthread_mutex_lock(&i->lock);
    i->n_filled++;
    pthread_cond_signal(&i->changed_filled);
    pthread_cond_broadcast(&i->changed_parsed);
    pthread_mutex_unlock(&i->lock);
    r->batch = NULL;
}

static bool is_stopping(struct intake *i) {
    pthread_mutex_lock(&i->lock);
    bool is = i->is_stopping || intake_batch_is_failed(i);
    pthread_mutex_unlock(&i->lock);
    return is;
}

/* Sleeps unless it is time to end. */
static void back_off(struct intake *i, int n_tries) {
    int64_t wait = i->options.backoff_ns * (n_tries < 6 ? 1 << n_tries : MAX_BACKOFFS);
    int64_t until = clock_now_ns() + wait;
    pthread_mutex_lock(&i->lock);
    while (clock_now_ns() < until && !i->is_stopping && !intake_batch_is_failed(i))
        intake_batch_wait(i, &i->changed_free, until);
    pthread_mutex_unlock(&i->lock);
}

/* ---- the spool ---- */

static size_t bytes_of(const struct store_raw *raw, size_t n) {
    size_t n_bytes = 0;
    for (size_t k = 0; k < n; k++)
        n_bytes += raw[k].line.n_bytes;
    return n_bytes;
}

/* Raw lines that are in the store already, oldest first, a batch at a time. How many are
 * asked for goes by how long they are: a batch of the longest would not fit. */
static void read_spool(struct reader *r) {
    struct intake *i = r->i;
    struct store_raw raw[INTAKE_SLOW_LINES];
    int64_t after = 0;
    size_t most = 1;
    int n_tries = 0;
    while (!is_stopping(i) && take_batch(r)) {
        struct intake_batch *b = r->batch;
        struct error err = {0};
        size_t n = 0;
        enum status status =
            i->options.store.spooled(i->options.store.context, i->options.name, after,
                                     &b->lines_arena, raw, most, &n, &err);
        if (status != STATUS_OK) {
            atomic_fetch_add(&i->options.metrics->n_store_errors, 1);
            if (n_tries == 0)
                log_message(LOG_LEVEL_ERROR, "store", "cannot read raw lines: %s",
                            err.message);
            back_off(i, n_tries++);
            continue;
        }
        n_tries = 0;
        if (n == 0)
            return;
        size_t n_bytes = bytes_of(raw, n);
        if (n > 1 && n_bytes > 4 * INTAKE_MAX_BATCH_BYTES) {
            most = most > 4 ? most / 4 : 1;
            continue;
        }
        if (n_bytes < INTAKE_MAX_BATCH_BYTES / 4)
            most = most * 2 < INTAKE_SLOW_LINES ? most * 2 : INTAKE_SLOW_LINES;
        for (size_t k = 0; k < n; k++)
            b->lines[k] = (struct intake_line){.bytes = raw[k].line,
                                               .received_ns = raw[k].received_ns,
                                               .raw_id = raw[k].id};
        b->n_lines = n;
        b->is_spooled = true;
        after = raw[n - 1].id;
        atomic_fetch_add(&i->options.metrics->n_spooled, (int64_t)n);
        hand_on(r);
    }
}

/* While lines are under way, their raw lines are in the spool too: not to be taken twice. */
static void look_into_spool(struct reader *r) {
    struct intake *i = r->i;
    if (clock_now_ns() - r->looked_ns < i->options.look_ns)
        return;
    pthread_mutex_lock(&i->lock);
    bool is_empty = i->n_filled == i->n_stored;
    pthread_mutex_unlock(&i->lock);
    if (!is_empty)
        return;
    r->looked_ns = clock_now_ns();
    read_spool(r);
}

/* ---- the source ---- */

static enum status add_line(struct reader *r, const struct source_line *line,
                            struct error *err) {
    struct intake_batch *b = r->batch;
    struct intake_line *out = &b->lines[b->n_lines];
    struct view bytes = line->bytes;
    if (bytes.n_bytes > SOURCE_MAX_LINE_BYTES)
        bytes.n_bytes = SOURCE_MAX_LINE_BYTES;
    *out = (struct intake_line){.received_ns = line->received_ns,
                                .is_cut = line->is_cut ||
                                          bytes.n_bytes < line->bytes.n_bytes};
    enum status status = arena_copy(&b->lines_arena, bytes, &out->bytes, err);
    if (status != STATUS_OK)
        return status;
    b->n_lines++;
    b->n_bytes += bytes.n_bytes;
    b->after = line->after;
    atomic_fetch_add_explicit(&r->i->options.metrics->n_lines, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->i->options.metrics->n_bytes, (int64_t)bytes.n_bytes,
                              memory_order_relaxed);
    return STATUS_OK;
}

/* A line that is in hand cannot be had again from every source: so it is tried until there
 * is memory. */
static void keep_line(struct reader *r, const struct source_line *line) {
    int n_tries = 0;
    while (add_line(r, line, &r->err) != STATUS_OK) {
        if (n_tries++ == 0)
            log_message(LOG_LEVEL_ERROR, "memory", "%s", r->err.message);
        if (is_stopping(r->i)) {
            r->is_over = true;
            r->status = STATUS_NO_MEMORY;
            return;
        }
        back_off(r->i, n_tries);
    }
}

/* How many lines this batch may have: a deep queue asks for large ones. */
static size_t most_lines(struct intake *i) {
    if (!i->is_raw_first)
        return INTAKE_MAX_LINES;
    pthread_mutex_lock(&i->lock);
    bool is_deep = i->n_filled - i->n_stored > i->n_batches / 2;
    pthread_mutex_unlock(&i->lock);
    return is_deep ? INTAKE_MAX_LINES : INTAKE_SLOW_LINES;
}

/* Fills a batch: until it is full, or the linger after its first line has passed. Stopping,
 * it takes only what the source has in hand, without a wait. */
static void fill(struct reader *r, bool is_stopping) {
    struct intake *i = r->i;
    const struct source_handle *source = &i->options.source;
    struct intake_batch *b = r->batch;
    size_t most = most_lines(i);
    int64_t idle_ns = i->options.look_ns < IDLE_NS ? i->options.look_ns : IDLE_NS;
    int64_t deadline = clock_now_ns() + (is_stopping ? 0 : idle_ns);
    while (b->n_lines < most && b->n_bytes < INTAKE_MAX_BATCH_BYTES && !r->is_over) {
        struct source_line line;
        enum status status =
            source->kind->next(source->source, deadline, &line, &r->err);
        if (status == STATUS_OK) {
            if (b->n_lines == 0 && !is_stopping)
                deadline = clock_now_ns() + i->options.linger_ns;
            keep_line(r, &line);
        } else if (status == STATUS_TIMEOUT && !is_stopping) {
            break;
        } else if (status == STATUS_TIMEOUT) {
            r->is_over = true;
        } else {
            r->is_over = true;
            r->status = status;
        }
    }
    if (b->n_lines == 0)
        return;
    enum status status =
        source->kind->cursor(source->source, b->after, b->cursor, &r->err);
    if (status != STATUS_OK && !r->is_over) {
        r->is_over = true;
        r->status = status;
    }
    hand_on(r);
}

/* What has left a pipe, or a network, and is in the source's hands would be lost with it. */
static void drain(struct reader *r) {
    struct intake *i = r->i;
    while (i->is_raw_first && !r->is_over && !intake_batch_is_late(i) &&
           (r->batch || take_batch(r)))
        fill(r, true);
}

/* A transaction whose end nobody has seen may have left raw lines that were then written
 * again: they are in the spool, once all else is stored. */
static void clear_spool(struct reader *r) {
    struct intake *i = r->i;
    pthread_mutex_lock(&i->lock);
    while (i->is_raw_first && i->n_filled > i->n_stored && !intake_batch_is_failed(i))
        pthread_cond_wait(&i->changed_free, &i->lock);
    pthread_mutex_unlock(&i->lock);
    if (i->is_raw_first && atomic_load(&i->options.metrics->n_store_errors) > 0)
        read_spool(r);
}

void *intake_read(void *intake) {
    struct intake *i = intake;
    struct reader r = {.i = i, .status = STATUS_CANCELLED};
    r.looked_ns = clock_now_ns();
    read_spool(&r);
    while (!r.is_over && !is_stopping(i)) {
        look_into_spool(&r);
        if (!r.batch && !take_batch(&r))
            break;
        fill(&r, false);
    }
    drain(&r);
    clear_spool(&r);
    pthread_mutex_lock(&i->lock);
    bool has_ended = r.status == STATUS_NOT_FOUND || r.status == STATUS_CANCELLED;
    i->read_status = has_ended ? STATUS_OK : r.status;
    i->read_error = r.err;
    i->is_read = true;
    pthread_cond_broadcast(&i->changed_filled);
    pthread_cond_broadcast(&i->changed_parsed);
    pthread_mutex_unlock(&i->lock);
    return NULL;
}
