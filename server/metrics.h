/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics.h - what /metrics counts, in Prometheus' text format.
 *
 * Threads: any; every counter is an atomic of its own.
 */
#ifndef VIGIL_SERVER_METRICS_H
#define VIGIL_SERVER_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "server/bundle.h"

struct metrics;

enum status metrics_open(struct metrics **out, struct error *err);
void metrics_close(struct metrics *m);

/* A request that was answered (or given up): route is one of the constants of routes.h. */
void metrics_request(struct metrics *m, int32_t route, int code, int64_t spent_ns);
void metrics_queue_wait(struct metrics *m, int64_t waited_ns);
/* A batch of that engine of the bundle. busy_ns: by the device's own clock, or -1. */
void metrics_batch(struct metrics *m, int32_t engine, int32_t n_sequences,
                   int32_t n_tokens, int64_t spent_ns, int64_t busy_ns);
/* A text that was answered with this label of the model. */
void metrics_text(struct metrics *m, const char *label, bool is_truncated,
                  int32_t n_unknown);
/* A text that was refused alone, its neighbours not. */
void metrics_bad_text(struct metrics *m);
void metrics_reload(struct metrics *m, bool is_ok);
/* What became of a check of an engine (watch.h). */
enum metrics_canary { METRICS_CANARY_OK, METRICS_CANARY_FAILED, METRICS_CANARY_LATE };
void metrics_canary(struct metrics *m, enum metrics_canary result);
void metrics_connection(struct metrics *m, int32_t change);
/* A connection that was closed for breaking a rule, by HTTP code (400, 408, ...). */
void metrics_gate(struct metrics *m, int code);
/* Once a second or so: for the figures per second. */
void metrics_tick(struct metrics *m, int64_t now_ns);

/* What is not counted but looked up when /metrics is asked for. */
struct metrics_now {
    const struct bundle *bundle; /* NULL: none is loaded */
    bool is_ready, is_engine_up;
    int32_t n_jobs;
    int64_t n_tokens_waiting;
    size_t n_memory_bytes, max_memory_bytes; /* of requests in flight */
};
enum status metrics_write(struct metrics *m, const struct metrics_now *now,
                          struct buffer *out, struct error *err);

#endif
