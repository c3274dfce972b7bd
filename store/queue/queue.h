/* SPDX-License-Identifier: Apache-2.0
 *
 * queue.h - posts on their way to a worker, on several machines: NATS JetStream.
 *
 * Within one machine, or with PostgreSQL, the queue is a table of the store (store_claim).
 * With a queue, `vigil stream` publishes and needs the store for its own bookkeeping alone;
 * `vigil enrich` fetches, and stores post and result together before it acknowledges.
 *
 * url: queue_url.h. Three streams: STREAM has the posts, on subjects
 * STREAM.posts.SOURCE.AUTHOR.KEY.FOLD (queue_item.h), so that all of an author or a post can
 * be erased; STREAM_DLQ the dead letters; STREAM_SPENT the server's own notes about messages
 * that were delivered as often as may be and never settled (a worker died with each of
 * them), until queue_fetch has copied them to STREAM_DLQ. They are made when they are
 * missing and left as they are otherwise. Retention is by age, not by acknowledgement:
 * another consumer can go over the same posts with another model; but what is of aggregate
 * mode the worker erases when it is counted (queue_erase_sequences). A stream that is full
 * (max_bytes, or the server's disk) refuses what comes rather than drop what waits.
 *
 * Promise: what queue_publish acknowledged is delivered at least once to each consumer, and
 * again until it is settled or QUEUE_MAX_TRIES are used up; then it is a dead letter. It
 * holds while a majority of the stream's nodes keep their disks; the server acknowledges
 * before it flushes unless sync_interval says otherwise (queue_check).
 *
 * A lost connection comes back by itself, for as long as it takes. Meanwhile queue_fetch
 * finds nothing (STATUS_OK, *n == 0, queue_is_connected says why) and all else waits and
 * tries again until its own deadline. Only a connection that was closed for good (the
 * credentials are refused) makes queue_fetch fail.
 *
 * Threads: any, also several in one function.
 */
#ifndef VIGIL_STORE_QUEUE_QUEUE_H
#define VIGIL_STORE_QUEUE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "store/store.h"

#define QUEUE_MAX_TRIES STORE_MAX_TRIES
#define QUEUE_BODY_BYTES ((size_t)256 << 10) /* of a dead letter: longer ones are cut */
#define QUEUE_STATE_BYTES 200

struct queue;
struct queue_message; /* one delivery, to be settled once */

struct queue_options {
    const char *url;
    const char *consumer; /* durable name of the workers; NULL: "enrich" */
    int64_t since_ns;     /* a new consumer begins with posts from then on; 0: all */
    int64_t ack_wait_ns;  /* of a consumer that is made; 0: 30 s */
    /* Of streams that are made; 0: the URL's, else 3 in a cluster and 1 on a lone server. A
     * cluster in which fewer than that many nodes are up is waited for, and then refused:
     * never fewer copies than asked for. */
    int32_t n_replicas;
    int64_t publish_wait_ns; /* how long queue_publish tries; 0: 60 s */
};

/* Connects, and sees to it that the streams are there: waits up to 30 s for a cluster that
 * is starting. STATUS_INVALID the URL; STATUS_UNSUPPORTED no JetStream there, or too few
 * nodes; STATUS_IO, STATUS_TIMEOUT. */
enum status queue_open(const struct queue_options *options, struct queue **out,
                       struct error *err);
/* Messages that are not settled come again after ack_wait. */
void queue_close(struct queue *q);
const char *queue_name(const struct queue *q); /* without secrets */
bool queue_is_connected(const struct queue *q);

/* Posts, deletes and dead letters; durable in the stream on return (all acknowledged), as far
 * as the server's sync_interval goes. Message ids are key@version: what is sent again within
 * the duplicate window is dropped there, later in the store. What is not acknowledged is
 * sent again until publish_wait_ns is over: STATUS_TIMEOUT, or STATUS_IO when the server
 * refused, says how many are open; the same batch can then be published again as a whole.
 * STATUS_LIMIT: a post is larger than the server takes; nothing was sent. */
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

/* Which of the stream's messages it is; before it is settled. */
uint64_t queue_sequence(const struct queue_message *m);

/* Settling. Each message once: a second time is a bug of the caller's, which does nothing
 * and is reported (STATUS_INTERNAL, or a line in the log). When it fails the message is
 * settled here all the same, and comes again after ack_wait: whoever works on it then finds
 * the result in the store. */

/* Confirmed by the server. queue_ack_all: many in one exchange, some 50 times as fast. */
enum status queue_ack(struct queue *q, struct queue_message *m, struct error *err);
enum status queue_ack_all(struct queue *q, struct queue_message *const *m, size_t n,
                          struct error *err);
/* Again, not before delay_ns, nor before 1 s, 5 s, 30 s, 2 min after the first, second, …
 * try. After the last try this gives up, so that nothing ends silently. */
void queue_retry(struct queue *q, struct queue_message *m, int64_t delay_ns);
/* Again at once, to whoever asks: this worker is stopping. The try counts, but never as the
 * last one. */
void queue_release(struct queue *q, struct queue_message *m);
/* Never again; a copy goes to the dead-letter stream first. */
enum status queue_give_up(struct queue *q, struct queue_message *m, const char *reason,
                          struct error *err);
/* Still at it: ack_wait begins anew. Not a settling. */
void queue_extend(struct queue *q, struct queue_message *m);

struct queue_lag {
    int64_t n_waiting; /* never delivered to this consumer */
    int64_t n_in_flight, n_dead;
};
enum status queue_lag(struct queue *q, struct queue_lag *out, struct error *err);

/* Overwrites every message of a source, an author or a key (as stored; reposts of the key
 * and the repost that has the key too), dead letters as well; NULL: any. *n counts them, also
 * on failure. With replicas the nodes' replication logs hold what was written until the
 * server compacts them, 2 to 3 minutes later. */
enum status queue_erase(struct queue *q, const char *source, const char *author,
                        const char *key, int64_t *n, struct error *err);

/* Overwrites messages of the stream whatever their age, for consumers that have not read them
 * yet too: of aggregate mode, when they are counted. */
enum status queue_erase_sequences(struct queue *q, const uint64_t *sequences, size_t n,
                                  struct error *err);

/* What `vigil doctor` says about the server: one that acknowledges what a power failure can
 * still take back is older than 2.10.23, or has no `sync_interval: always`. The latter can
 * be seen only on the monitoring port (`monitor=` in the URL). Needs no open queue. */
struct queue_facts {
    char version[32];
    bool has_jetstream, is_cluster;
    bool is_old;                     /* < 2.10.23 */
    bool is_sync_known;              /* the monitoring port answered */
    bool is_sync_always;             /* and says so */
    char warning[QUEUE_STATE_BYTES]; /* empty: all is well */
};
enum status queue_check(const char *url, struct queue_facts *out, struct error *err);

#endif
