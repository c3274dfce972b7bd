/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_nats.h - what the files behind queue.h share. The one place that includes nats.h.
 *
 * Design:  whatever must be confirmed (publishing, acknowledging, erasing) goes through one
 *          exchange: many requests under way at a time, each with a reply subject of its own
 *          in the inbox of a lane, those that got no good reply sent again. So it is known of
 *          each message whether the server has it, over leader changes and reconnects, which
 *          the library's own asynchronous publishing does not tell. Pull requests are our own
 *          for the same reason: the library's fetch waits for a full batch.
 *          AckWait is the consumer's only clock. JetStream's own BackOff is not used: its
 *          first step replaces AckWait, and a worker would have 1 s for a batch. The steps
 *          are the delays of queue_retry instead.
 * Owns:    a connection, its lanes, and the messages that are not settled.
 * Threads: any; a call takes a lane for itself. The lock holds lanes, messages and flags, and
 *          is never held while something is waited for.
 */
#ifndef VIGIL_STORE_QUEUE_QUEUE_NATS_H
#define VIGIL_STORE_QUEUE_QUEUE_NATS_H

#include <inttypes.h>
#include <nats/nats.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"
#include "store/queue/queue.h"
#include "store/queue/queue_item.h"
#include "store/queue/queue_url.h"

#define MS INT64_C(1000000)
#define SECOND CLOCK_NS_PER_SECOND

#define QUEUE_NATS_API "$JS.API"
#define QUEUE_NATS_ACK_WAIT_NS (30 * SECOND)
#define QUEUE_NATS_SETTLE_NS (10 * SECOND)
#define QUEUE_NATS_STREAM_BYTES (QUEUE_URL_STREAM_BYTES + 8)

/* What one call at a time needs. */
struct lane {
    natsSubscription *replies, *pulled;
    char inbox[96], pull_inbox[96];
    uint64_t
        round; /* of the newest exchange or pull: replies to older ones are ignored */
    struct lane *next;
};

struct queue_message {
    natsMsg *message; /* while it is held */
    struct queue_item_delivery delivery;
    bool is_held;
    struct queue_message *next;  /* that is free */
    struct queue_message *older; /* of all there are */
};

struct queue {
    struct queue_url url;
    char consumer[QUEUE_URL_STREAM_BYTES];
    char dead_stream[QUEUE_NATS_STREAM_BYTES], spent_stream[QUEUE_NATS_STREAM_BYTES];
    char prefix[QUEUE_ITEM_PREFIX_BYTES], dead_prefix[QUEUE_ITEM_PREFIX_BYTES];
    int64_t since_ns, ack_wait_ns, publish_wait_ns;
    int32_t n_replicas; /* 0: not said */
    natsConnection *connection;
    jsCtx *js;
    atomic_uint n_reconnects;
    atomic_bool is_closed; /* the last callback has run */
    atomic_bool has_consumer;

    pthread_mutex_t lock;
    struct lane *idle;
    struct queue_message *free_first, *free_last; /* the longest free first */
    struct queue_message *newest;                 /* of all */
    int64_t swept_ns;
    bool is_sweeping;
    struct lane *sweep_lane; /* of whoever is sweeping */
};

/* ---- queue_nats.c ---- */

void queue_nats_nap(int64_t ns);
static inline int64_t queue_nats_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
/* Milliseconds of a duration, rounded up, at least 1. */
static inline int64_t queue_nats_ms(int64_t ns) {
    return ns <= MS ? 1 : (ns + MS - 1) / MS;
}
/* "queue nats://…: what: the library's words"; code: JetStream's, or 0. */
enum status queue_nats_error(struct error *err, const struct queue *q, natsStatus s,
                             jsErrCode code, const char *what);
enum status queue_nats_no_memory(struct error *err, const struct queue *q);
/* For good: it does not come back. */
bool queue_nats_is_closed(const struct queue *q);

/* ---- queue_exchange.c ---- */

/* A lane that is idle, or a new one. It may hold what came late for its last consumer: a
 * lane that pulled from another than the workers' is closed, not given back. */
enum status queue_nats_lane_take(struct queue *q, struct lane **out, struct error *err);
void queue_nats_lane_give_back(struct queue *q, struct lane *lane);
void queue_nats_lane_close(struct lane *lane);
/* One that nobody has used. */
enum status queue_nats_lane_open(struct queue *q, struct lane **out, struct error *err);

enum reply_kind {
    REPLY_ANY,       /* whatever comes: to an acknowledgement */
    REPLY_STORED,    /* of a stream that took a message */
    REPLY_OR_ABSENT, /* of the API; that there is nothing is fine too */
};

struct request {
    const char *subject, *data;
    size_t n_bytes;
    const char *id;     /* of the message; NULL: none */
    const char *reason; /* of a dead letter; NULL: it is none */
    int32_t tries;
    bool is_done, is_sent;
};

struct exchange {
    struct request *requests;
    size_t n, n_done;
    enum reply_kind kind;
    int refusal; /* the newest: JetStream's code; 0: none */
};

/* Until all requests have a good reply, at most wait_ns. */
enum status queue_nats_exchange(struct queue *q, struct exchange *x, int64_t wait_ns,
                                const char *what, struct error *err);

/* Up to cap messages of a consumer into out: those that are there at once, or (wait_ns > 0)
 * the first that comes. Messages that came too late for an older request are taken first.
 * NATS_TIMEOUT, NATS_NO_RESPONDERS: nothing came, not even the server's word. */
natsStatus queue_nats_pull(struct queue *q, struct lane *lane, const char *stream,
                           const char *consumer, int64_t wait_ns, natsMsg **out,
                           size_t cap, size_t *n);

/* ---- queue_settle.c ---- */

/* Copies a message of STREAM to STREAM_DLQ, under its id behind "dlq:". */
enum status queue_nats_bury(struct queue *q, natsMsg *from, const char *reason,
                            int32_t tries, struct error *err);
void queue_nats_log(const struct error *err);

#endif
