/* SPDX-License-Identifier: Apache-2.0
 *
 * intake_batch.h - what the reader, the parsers and the writer of intake.h share: a ring of
 * batches. Private to intake*.c.
 *
 * Four counts say who has which batch, each moved by one thread, under the lock:
 *   n_stored <= n_kept <= n_filled, n_stored <= n_taken <= n_filled
 *   [n_stored, n_filled)  in use; batch n is batches[n % n_batches]
 *   [n_kept, n_filled)    their raw lines are not yet in the store (not of replayable sources)
 *   [n_taken, n_filled)   no parser has them yet
 * A batch belongs to the reader before n_filled, then its lines are read alone; its items are
 * the parser's until is_parsed, then the writer's.
 */
#ifndef VIGIL_CLIENT_INTAKE_INTAKE_BATCH_H
#define VIGIL_CLIENT_INTAKE_INTAKE_BATCH_H

#include <pthread.h>

#include "client/intake/intake.h"

#define INTAKE_MAX_LINES 512
#define INTAKE_SLOW_LINES                                                              \
    100 /* of a source whose raw lines are kept, while it is slow */
#define INTAKE_MAX_BATCH_BYTES                                                         \
    ((size_t)256 << 10) /* the line that passes it included */
#define INTAKE_MAX_RING 128
#define INTAKE_FILE_RING 24 /* what can be read again need not be buffered deeply */

struct intake_line {
    struct view bytes;
    int64_t received_ns;
    int64_t raw_id; /* 0: not in the store */
    bool is_cut;
};

struct intake_batch {
    struct arena lines_arena;
    struct intake_line *lines; /* [INTAKE_MAX_LINES] */
    size_t n_lines, n_bytes;
    bool is_spooled; /* from the store, not from the source: ids are set */
    struct source_position after;
    char cursor[SOURCE_CURSOR_BYTES];

    struct arena arena; /* of the items */
    struct store_item *items;
    uint32_t *item_lines; /* which line each came from */
    size_t n_items, cap_items;
    uint32_t *empty; /* [n_empty] lines that gave no item */
    size_t n_empty;
    bool is_parsed;
};

struct intake {
    struct intake_options options;
    bool is_raw_first;
    size_t n_batches;
    struct intake_batch *batches;

    pthread_mutex_t lock;
    pthread_cond_t changed_free, changed_filled, changed_parsed, changed_end;
    uint64_t n_filled, n_taken, n_kept, n_stored;
    bool is_stopping, is_read, is_done;
    int64_t stop_ns;         /* when stop was called */
    enum status read_status; /* STATUS_OK at the end of the source */
    struct error read_error;
    enum status write_status;
    struct error write_error;

    pthread_t reader, writer;
    pthread_t *parsers;
    int32_t n_parsers; /* that run */
    bool has_reader, has_writer;
};

/* Waits on a condition until then (clock_now_ns). The lock is held. */
void intake_batch_wait(struct intake *i, pthread_cond_t *condition, int64_t until_ns);
bool intake_batch_is_failed(const struct intake *i); /* the writer gave up */
/* It has been stopping for longer than drain_ns. Takes the lock. */
bool intake_batch_is_late(struct intake *i);

/* The threads. */
void *intake_read(void *intake);
void *intake_parse(void *intake);
void *intake_write(void *intake);

#endif
