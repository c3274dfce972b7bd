/* SPDX-License-Identifier: Apache-2.0
 *
 * enrich_metrics.h - what a worker counts, and its page for Prometheus.
 *
 * Threads: any.
 */
#ifndef VIGIL_CLIENT_ENRICH_METRICS_H
#define VIGIL_CLIENT_ENRICH_METRICS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "client/worker/classifier.h"
#include "store/store.h"

#define ENRICH_LABELS 16 /* different labels and bands that are counted apart */
#define ENRICH_CALL_BOUNDS 14

struct enrich_label {
    char label[CLASSIFIER_LABEL_BYTES];
    char band[16];
    uint64_t n;
};

/* Zero-initialise, then enrich_metrics_init. */
struct enrich_metrics {
    _Atomic uint64_t n_claimed, n_retried, n_given_up, n_released, n_lost;
    _Atomic uint64_t n_batches, n_probes, n_store_failures;
    _Atomic uint64_t calls[CLASSIFIER_KINDS];
    _Atomic uint64_t call_counts[ENRICH_CALL_BOUNDS + 1], call_ns;
    /* Copies of what the schedule has. */
    _Atomic int64_t n_in_flight, limit, breaker, n_opened, n_retries, n_throttled,
        n_splits, n_held;
    pthread_mutex_t lock; /* of what follows */
    struct enrich_label labels[ENRICH_LABELS];
    size_t n_labels;
};

void enrich_metrics_init(struct enrich_metrics *m);
void enrich_metrics_done(struct enrich_metrics *m, const char *label, const char *band);
void enrich_metrics_call(struct enrich_metrics *m, enum classifier_kind kind,
                         int64_t spent_ns);
/* How many results have that band. */
uint64_t enrich_metrics_band(struct enrich_metrics *m, const char *band);

/* lag NULL: it could not be read. now_ns: wall clock. */
enum status enrich_metrics_write(struct enrich_metrics *m, const struct store_lag *lag,
                                 int64_t now_ns, struct buffer *out, struct error *err);

#endif
