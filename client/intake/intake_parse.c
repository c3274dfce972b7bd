/* SPDX-License-Identifier: Apache-2.0
 *
 * intake_parse.c - the parsers: lines become items, or dead letters.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "client/intake/intake_batch.h"

#define STAGE "parse"
#define NO_MEMORY_TRIES 3
#define NO_MEMORY_WAIT_US 50000

/* What it did, for the metrics. */
struct tally {
    int64_t n_kept, n_dead, n_deletes, n_dropped[N_SELECT_DROPS];
};

static enum status add_item(struct intake_batch *b, const struct store_item *item,
                            size_t line, struct error *err) {
    if (b->n_items == b->cap_items) {
        size_t cap = b->cap_items ? b->cap_items * 2 : 64;
        struct store_item *items = realloc(b->items, cap * sizeof *items);
        if (items)
            b->items = items;
        uint32_t *lines = items ? realloc(b->item_lines, cap * sizeof *lines) : NULL;
        if (!lines)
            return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
        b->item_lines = lines;
        b->cap_items = cap;
    }
    b->item_lines[b->n_items] = (uint32_t)line;
    b->items[b->n_items] = *item;
    b->items[b->n_items].received_ns = b->lines[line].received_ns;
    b->n_items++;
    return STATUS_OK;
}

/* The line as a dead letter. What only counts may be kept of loses its body. */
static enum status add_dead(const struct intake *i, struct intake_batch *b, size_t line,
                            const char *why, struct error *err) {
    struct view reason = view_of_string(why);
    if (reason.n_bytes > STORE_REASON_BYTES)
        reason.n_bytes = STORE_REASON_BYTES;
    struct store_item item = {.kind = STORE_DEAD,
                              .mode = i->options.mode,
                              .source = view_of_string(i->options.name),
                              .stage = VIEW(STAGE)};
    if (i->options.mode != STORE_AGGREGATE)
        item.body = b->lines[line].bytes;
    enum status status = arena_copy(&b->arena, reason, &item.reason, err);
    return status == STATUS_OK ? add_item(b, &item, line, err) : status;
}

/* What a line says. STATUS_NO_MEMORY alone is an error; nothing was added then. */
static enum status take_line(const struct intake *i, struct intake_batch *b,
                             size_t line, struct tally *tally, struct error *err) {
    const struct source_handle *source = &i->options.source;
    struct store_item items[SELECT_MAX_ITEMS];
    struct post post;
    size_t n = 0, n_before = b->n_items;
    enum select_drop drop = SELECT_KEPT;
    enum status status =
        b->lines[line].is_cut
            ? error_set(err, STATUS_LIMIT, "the line is longer than %zu bytes",
                        SOURCE_MAX_LINE_BYTES)
            : source->kind->parse(source->source, b->lines[line].bytes, &b->arena,
                                  &post, err);
    if (status == STATUS_NO_MEMORY)
        return status;
    if (status != STATUS_OK) {
        status = add_dead(i, b, line, err->message, err);
        tally->n_dead += status == STATUS_OK;
        return status;
    }
    status = select_post(i->options.selection, &post, &b->arena, items, &n, &drop, err);
    for (size_t k = 0; k < n && status == STATUS_OK; k++)
        status = add_item(b, &items[k], line, err);
    if (status != STATUS_OK) {
        b->n_items = n_before;
        return status;
    }
    if (n == 0)
        b->empty[b->n_empty++] = (uint32_t)line;
    if (post.action == POST_DELETE && n > 0)
        tally->n_deletes++;
    else if (n > 0)
        tally->n_kept++;
    else if (drop > SELECT_KEPT && drop < N_SELECT_DROPS)
        tally->n_dropped[drop]++;
    return STATUS_OK;
}

static void parse(const struct intake *i, struct intake_batch *b) {
    struct stream_metrics *m = i->options.metrics;
    struct tally tally = {0};
    for (size_t line = 0; line < b->n_lines; line++) {
        struct error err = {0};
        enum status status = take_line(i, b, line, &tally, &err);
        for (int n = 1; status != STATUS_OK; n++) {
            usleep(NO_MEMORY_WAIT_US);
            /* It may be the line itself that takes too much. */
            status = n < NO_MEMORY_TRIES
                         ? take_line(i, b, line, &tally, &err)
                         : add_dead(i, b, line, "there was no memory to read it", &err);
            tally.n_dead += status == STATUS_OK && n >= NO_MEMORY_TRIES;
        }
    }
    atomic_fetch_add(&m->n_kept, tally.n_kept);
    atomic_fetch_add(&m->n_dead, tally.n_dead);
    atomic_fetch_add(&m->n_deletes, tally.n_deletes);
    for (int k = 0; k < N_SELECT_DROPS; k++)
        atomic_fetch_add(&m->n_dropped[k], tally.n_dropped[k]);
}

void *intake_parse(void *intake) {
    struct intake *i = intake;
    pthread_mutex_lock(&i->lock);
    for (;;) {
        while (i->n_taken == i->n_filled && !i->is_read && !intake_batch_is_failed(i))
            pthread_cond_wait(&i->changed_filled, &i->lock);
        if (i->n_taken == i->n_filled || intake_batch_is_failed(i))
            break;
        struct intake_batch *b = &i->batches[i->n_taken++ % i->n_batches];
        pthread_mutex_unlock(&i->lock);
        parse(i, b);
        pthread_mutex_lock(&i->lock);
        b->is_parsed = true;
        pthread_cond_broadcast(&i->changed_parsed);
    }
    pthread_mutex_unlock(&i->lock);
    return NULL;
}
