/* SPDX-License-Identifier: Apache-2.0
 *
 * queue.h - posts on their way to a worker, on several machines: NATS JetStream.
 *
 * Within one machine, or with PostgreSQL, the queue is a table of the store (store_claim).
 * With a queue, `vigil stream` publishes and needs the store for its own bookkeeping alone;
 * `vigil enrich` fetches, and stores post and result together before it acknowledges.
 *
 * url: nats://host:port[,host:port…][/STREAM]; user, password and token in the URL or
 * `creds=FILE`, `replicas=N` behind a '?'. Subjects are
 * STREAM.posts.SOURCE.AUTHOR.KEY (hashes), so that all of an author or a post can be erased;
 * dead letters lie in STREAM_DLQ. Retention is by age, not by acknowledgement: another
 * consumer can go over the same posts with another model.
 *
 * Threads: publish: one; fetch and settle: any.
 */
#ifndef VIGIL_STORE_QUEUE_H
#define VIGIL_STORE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "store/store.h"

struct queue;
struct queue_message; /* one delivery, to be settled once */

struct queue_options {
    const char *url;
    const char *consumer; /* durable name of the workers; NULL: "enrich" */
    int64_t since_ns;     /* a new consumer begins with posts from then on; 0: all */
    int64_t ack_wait_ns;  /* 0: 30 s */
    int32_t
        n_replicas; /* of streams that are made; 0: as many as there are nodes, ≤ 3 */
};

enum status queue_open(const struct queue_options *options, struct queue **out,
                       struct error *err);
void queue_close(struct queue *q);
const char *queue_name(const struct queue *q); /* without secrets */

/* Posts, deletes and dead letters; durable in the stream on return (all acknowledged), as far
 * as the server's sync_interval goes. Message ids are key@version: what is sent again within
 * the duplicate window is dropped there, later in the store. */
enum status queue_publish(struct queue *q, const struct store_item *items, size_t n,
                          struct error *err);

struct queue_delivery {
    struct queue_message *message;
    int32_t tries;          /* deliveries, this one included */
    struct store_item item; /* in the arena; kind STORE_DEAD when it cannot be read */
};
/* Waits until there is one, at most wait_ns; *n may be 0. */
enum status queue_fetch(struct queue *q, int64_t wait_ns, struct arena *arena,
                        struct queue_delivery *out, size_t cap, size_t *n,
                        struct error *err);
enum status queue_ack(struct queue *q, struct queue_message *m, struct error *err);
/* Again, not before delay_ns; the try counts. */
void queue_retry(struct queue *q, struct queue_message *m, int64_t delay_ns);
/* Never again; a copy goes to the dead-letter stream first. */
enum status queue_give_up(struct queue *q, struct queue_message *m, const char *reason,
                          struct error *err);
/* Still at it. */
void queue_extend(struct queue *q, struct queue_message *m);

struct queue_lag {
    int64_t n_waiting, n_in_flight, n_dead;
};
enum status queue_lag(struct queue *q, struct queue_lag *out, struct error *err);

/* Overwrites every message of a source, an author or a key (as stored); NULL: any. */
enum status queue_erase(struct queue *q, const char *source, const char *author,
                        const char *key, int64_t *n, struct error *err);

#endif
