/* SPDX-License-Identifier: Apache-2.0
 *
 * work.h - where a worker's posts come from, and where they are settled: the store's own
 * queue, or NATS with the store behind it. worker.c sees only what is here.
 *
 * Claims last for the lease that the work was opened with, until they are extended or
 * settled; those of a worker that died are taken by others afterwards.
 *
 * Threads: one, except work_lag: any.
 */
#ifndef VIGIL_CLIENT_WORKER_WORK_H
#define VIGIL_CLIENT_WORKER_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "store/queue/queue.h"
#include "store/store.h"

#define WORK_MAX_CLAIM 4096 /* in one call */

struct work;

/* A claim, and what settles it. An outcome's claim must be the one in here. */
struct work_item {
    struct store_claim claim;      /* first */
    struct queue_message *message; /* of a remote queue; NULL */
};

struct work_calls {
    /* Takes up to cap posts; *n may be 0. May wait, at most wait_ns. */
    enum status (*claim)(struct work *w, int64_t wait_ns, struct arena *arena,
                         struct work_item *out, size_t cap, size_t *n,
                         struct error *err);
    /* All or nothing in the store; the outcomes may come from any claims. Calling it again
     * after a failure does no harm. */
    enum status (*settle)(struct work *w, const struct store_outcome *outcomes,
                          size_t n, size_t *n_lost, struct error *err);
    enum status (*extend)(struct work *w, struct work_item *const *items, size_t n,
                          struct error *err);
    /* How many posts are not settled yet, whoever has them. */
    enum status (*left)(struct work *w, int64_t *n, struct error *err);
    enum status (*lag)(struct work *w, struct store_lag *out, struct error *err);
    void (*close)(struct work *w);
};

struct work {
    const struct work_calls *calls;
    bool counts_releases; /* a claim that is given back has cost the post a try */
    bool waits;           /* claiming waits by itself until there is something */
};

struct work_options {
    const char *store_url, *queue_url; /* queue_url NULL: the store's own queue */
    const char *worker;                /* who claims, "host:pid" */
    const char *model; /* "": new posts; a SHA-256: a re-run with that model */
    int64_t since_ns;  /* of a re-run: posts from then on */
    int64_t lease_ns;
};

/* Opens the store (made if it is not there), the queue, and for a re-run puts the posts in
 * line. *n_enqueued (may be NULL): how many, as far as known. */
enum status work_open(const struct work_options *options, struct work **out,
                      int64_t *n_enqueued, struct error *err);
void work_close(struct work *w);

#endif
