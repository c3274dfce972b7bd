/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_metrics.h - what `vigil stream` counts, and how /metrics says it (Prometheus' text
 * format).
 *
 * Threads: any; every counter is an atomic of its own.
 */
#ifndef VIGIL_CLIENT_STREAM_METRICS_H
#define VIGIL_CLIENT_STREAM_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/memory.h"
#include "client/select/select.h"
#include "client/sources/source.h"
#include "store/store.h"

#define STREAM_METRICS_BUCKETS 13 /* of the commits' times; the last has no bound */
#define STREAM_METRICS_FOLDS (STORE_DUPLICATE + 1)

/* Zero-initialise. */
struct stream_metrics {
    _Atomic int64_t n_lines, n_bytes; /* handed over by the source */
    _Atomic int64_t n_kept;           /* lines of which something is kept */
    _Atomic int64_t n_dropped[N_SELECT_DROPS];
    _Atomic int64_t n_deletes; /* withdrawn posts, as the source says */
    _Atomic int64_t n_dead;
    _Atomic int64_t n_folded[STREAM_METRICS_FOLDS]; /* by enum store_fold */

    /* What the store says of them. */
    _Atomic int64_t n_stored, n_newer, n_again, n_refused;

    _Atomic int64_t n_spooled;  /* raw lines in the store now, of this source */
    _Atomic int64_t n_buffered; /* lines read and not yet stored */
    _Atomic int64_t n_batches;  /* transactions */
    _Atomic int64_t commit_ns;
    _Atomic int64_t commits[STREAM_METRICS_BUCKETS];
    _Atomic int64_t n_store_errors, n_queue_errors;
    _Atomic int store_is_down, queue_is_down;
};

/* A transaction was committed, or the store did not take it. */
void stream_metrics_commit(struct stream_metrics *m, int64_t spent_ns,
                           const struct store_taken *taken);

/* All of it. state may be NULL. */
enum status stream_metrics_write(const struct stream_metrics *m,
                                 const struct source_state *state, const char *kind,
                                 const char *name, struct buffer *out,
                                 struct error *err);

#endif
