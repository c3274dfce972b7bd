/* SPDX-License-Identifier: Apache-2.0
 *
 * intake.h - the pipeline of `vigil stream`: from a source to the store, nothing lost, nothing
 * twice, in order.
 *
 *   reader    next, copies lines into batches; stops when all batches are in use
 *   parsers   parse and select_post, several batches at a time
 *   writer    folds, then one transaction for all that is ready; then `committed`
 *
 * Of a source that can be read again (a file), items and cursor go into one transaction. Of
 * any other the raw lines go first, with the cursor, then the source is told; their items
 * follow with the next transaction, which takes the raw lines away. At the start the raw
 * lines that an earlier run left come before the source, and later those that `vigil dlq
 * retry` puts back, when nothing else is under way.
 *
 * With a queue, items are published before that transaction, which is then bookkeeping alone.
 *
 * A line that cannot be parsed, or is too long, becomes a dead letter; so does one that the
 * store refuses for good, while it takes others. What the store or the queue cannot take now
 * is tried again until it can: the buffers fill, and then the source is not read.
 *
 * Threads: open, stop, close: one; wait: the same. The source's own functions as source.h has
 *          them.
 * Call order: open (wait | stop)* close
 */
#ifndef VIGIL_CLIENT_INTAKE_INTAKE_H
#define VIGIL_CLIENT_INTAKE_INTAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/select/fold.h"
#include "client/select/select.h"
#include "client/sources/source.h"
#include "client/stream_metrics.h"
#include "store/store.h"

/* What is asked of the store, as store.h says; a seam for tests, and for a run that writes
 * nothing. */
struct intake_store {
    void *context;
    enum status (*take_in)(void *context, const struct store_take_in *what,
                           struct store_taken *taken, struct error *err);
    enum status (*spooled)(void *context, const char *source, int64_t after,
                           struct arena *arena, struct store_raw *out, size_t cap,
                           size_t *n, struct error *err);
    /* To a remote queue, durable on return; NULL: there is none. */
    enum status (*publish)(void *context, const struct store_item *items, size_t n,
                           struct error *err);
};

struct intake_options {
    struct source_handle source; /* opened; closed by whoever did, after intake_close */
    const char *name;            /* of the source in the store */
    struct intake_store store;
    const struct selection *selection;
    struct fold *fold; /* NULL: nothing is folded */
    enum store_mode mode;
    struct stream_metrics *metrics;
    int32_t n_parsers; /* 0: as many as there are processors, at most 4 */

    int64_t linger_ns;  /* a batch that is not full waits so long for more; 0: 50 ms */
    int64_t backoff_ns; /* the first; it doubles up to fifty of them; 0: 100 ms */
    int64_t drain_ns;   /* after stop, for a store that takes nothing; 0: 10 s */
    int64_t look_ns;    /* how often it looks for raw lines put back; 0: 10 s */
};

struct intake;
enum status intake_open(const struct intake_options *options, struct intake **out,
                        struct error *err);
/* Reads no more: call it beside waking the source through its wake_fd. What was read is
 * stored, and so is what a source that is not replayable has in hand. */
void intake_stop(struct intake *i);
/* STATUS_OK: the source has ended, or was stopped, and all is stored; STATUS_TIMEOUT at
 * until_ns (clock_now_ns); else what ended it: all that was read before is stored, unless the
 * message says how much is not. */
enum status intake_wait(struct intake *i, int64_t until_ns, struct error *err);
/* Stops, waits for the threads. */
void intake_close(struct intake *i);

#endif
