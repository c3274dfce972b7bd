/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_fetch.c - see queue.h: messages out of the stream, and the sweep of those that ended
 * without a word. */
#include "store/queue/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "store/queue/queue_item.h"
#include "store/queue/queue_nats.h"

#define MAX_ACK_PENDING 8192
#define PULL_NS (2 * SECOND)  /* a request that a dead leader forgot ends by then */
#define SWEEP_NS (5 * SECOND) /* between looks at STREAM_SPENT */

/* ---- the consumer ---- */

static enum status make_consumer(struct queue *q, struct error *err) {
    jsErrCode code = 0;
    jsConsumerInfo *info = NULL;
    if (atomic_load(&q->has_consumer))
        return STATUS_OK;
    natsStatus s =
        js_GetConsumerInfo(&info, q->js, q->url.stream, q->consumer, NULL, &code);
    jsConsumerInfo_Destroy(info);
    if (s == NATS_NOT_FOUND || code == JSConsumerNotFoundErr) {
        jsConsumerConfig c;
        jsConsumerConfig_Init(&c);
        c.Durable = q->consumer;
        c.AckPolicy = js_AckExplicit;
        c.AckWait = q->ack_wait_ns;
        c.MaxDeliver = QUEUE_MAX_TRIES;
        c.MaxAckPending = MAX_ACK_PENDING;
        c.DeliverPolicy = q->since_ns > 0 ? js_DeliverByStartTime : js_DeliverAll;
        c.OptStartTime = q->since_ns > 0 ? q->since_ns : 0;
        code = 0;
        s = js_AddConsumer(NULL, q->js, q->url.stream, &c, NULL, &code);
        if (code == JSConsumerNameExistErr || code == JSConsumerExistingActiveErr)
            s = NATS_OK; /* another worker was first */
    }
    if (s != NATS_OK)
        return queue_nats_error(err, q, s, code, "cannot make the consumer");
    atomic_store(&q->has_consumer, true);
    return STATUS_OK;
}

/* ---- messages whose tries ended without a word ---- */

/* Copies the message that an advisory speaks of. Whether the advisory is done with. */
static bool bury(struct queue *q, natsMsg *advisory) {
    static const struct json_limits limits = {
        .max_bytes = 16 << 10, .max_depth = 4, .max_values = 256, .max_key_bytes = 256};
    json_t *object = NULL;
    natsMsg *m = NULL;
    jsErrCode code = 0;
    struct error err = {0};
    if (json_parse(natsMsg_GetData(advisory), (size_t)natsMsg_GetDataLength(advisory),
                   &limits, &object, NULL) != STATUS_OK)
        return true;
    int64_t sequence = json_integer_value(json_object_get(object, "stream_seq"));
    int64_t tries = json_integer_value(json_object_get(object, "deliveries"));
    json_decref(object);
    if (sequence <= 0)
        return true;
    natsStatus s = js_GetMsg(&m, q->js, q->url.stream, (uint64_t)sequence, NULL, &code);
    if (s != NATS_OK)
        return s == NATS_NOT_FOUND ||
               code == JSNoMessageFoundErr; /* aged out, erased */
    enum status status =
        queue_nats_bury(q, m, "tried as often as may be, without a word from a worker",
                        (int32_t)tries, &err);
    natsMsg_Destroy(m);
    if (status != STATUS_OK)
        queue_nats_log(&err);
    return status == STATUS_OK;
}

/* A lane of its own: what comes late for it must not be taken for a post. */
static natsStatus pull_spent(struct queue *q, natsMsg **out, size_t cap, size_t *n) {
    if (!q->sweep_lane) {
        jsConsumerConfig c;
        jsErrCode code = 0;
        jsConsumerConfig_Init(&c);
        c.Durable = "sweep";
        c.AckPolicy = js_AckExplicit;
        c.AckWait = QUEUE_NATS_ACK_WAIT_NS;
        natsStatus s = js_AddConsumer(NULL, q->js, q->spent_stream, &c, NULL, &code);
        if (s != NATS_OK)
            return s;
        if (queue_nats_lane_open(q, &q->sweep_lane, NULL) != STATUS_OK)
            return NATS_NO_MEMORY;
    }
    return queue_nats_pull(q, q->sweep_lane, q->spent_stream, "sweep", 0, out, cap, n);
}

/* Now and then, by one thread: STREAM_SPENT to STREAM_DLQ. What fails is tried again. */
static void sweep(struct queue *q) {
    natsMsg *advisories[64];
    size_t n = 0;
    int64_t now_ns = clock_now_ns();
    pthread_mutex_lock(&q->lock);
    bool is_due =
        !q->is_sweeping && (q->swept_ns == 0 || now_ns - q->swept_ns >= SWEEP_NS);
    if (is_due)
        q->is_sweeping = true;
    pthread_mutex_unlock(&q->lock);
    if (!is_due)
        return;
    pull_spent(q, advisories, 64, &n);
    for (size_t i = 0; i < n; i++) {
        if (bury(q, advisories[i]))
            natsConnection_PublishString(q->connection, natsMsg_GetReply(advisories[i]),
                                         "+ACK");
        natsMsg_Destroy(advisories[i]);
    }
    pthread_mutex_lock(&q->lock);
    q->is_sweeping = false;
    q->swept_ns = n == 64 ? 0 : clock_now_ns();
    pthread_mutex_unlock(&q->lock);
}

/* ---- fetching ---- */

static enum status hold(struct queue *q, natsMsg *from, struct queue_message **out,
                        struct error *err) {
    struct queue_item_delivery delivery;
    enum status status = queue_item_delivery(natsMsg_GetReply(from), &delivery, err);
    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&q->lock);
    struct queue_message *m = NULL;
    if (q->free_first != q->free_last) { /* the newest stays */
        m = q->free_first;
        q->free_first = m->next;
    }
    pthread_mutex_unlock(&q->lock);
    if (!m) {
        m = calloc(1, sizeof *m);
        if (!m)
            return queue_nats_no_memory(err, q);
        pthread_mutex_lock(&q->lock);
        m->older = q->newest;
        q->newest = m;
        pthread_mutex_unlock(&q->lock);
    }
    m->message = from;
    m->delivery = delivery;
    m->next = NULL;
    pthread_mutex_lock(&q->lock);
    m->is_held = true;
    pthread_mutex_unlock(&q->lock);
    *out = m;
    return STATUS_OK;
}

static enum status read_message(natsMsg *m, struct arena *arena, struct store_item *out,
                                struct error *err) {
    struct view data = view_of(natsMsg_GetData(m), (size_t)natsMsg_GetDataLength(m));
    struct error why = {0};
    enum status status = queue_item_read(data.data, data.n_bytes, arena, out, &why);
    if (status == STATUS_OK)
        return STATUS_OK;
    *out = (struct store_item){.kind = STORE_DEAD, .stage = VIEW("queue")};
    if (status == STATUS_NO_MEMORY)
        return error_set(err, status, "queue: no room for what was fetched");
    if (data.n_bytes > QUEUE_BODY_BYTES)
        data.n_bytes = QUEUE_BODY_BYTES;
    status = data.n_bytes > 0 ? arena_copy(arena, data, &out->body, err) : STATUS_OK;
    return status == STATUS_OK
               ? arena_copy(arena, view_of_string(why.message), &out->reason, err)
               : status;
}

/* Makes deliveries of what was pulled; what there is no room for goes back at once. */
static enum status deliver(struct queue *q, natsMsg **from, size_t n_from,
                           struct arena *arena, struct queue_delivery *out, size_t *n,
                           struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < n_from; i++) {
        struct queue_delivery *d = &out[*n];
        if (status == STATUS_OK)
            status = read_message(from[i], arena, &d->item, err);
        if (status == STATUS_OK)
            status = hold(q, from[i], &d->message, err);
        if (status != STATUS_OK) {
            natsConnection_PublishString(q->connection, natsMsg_GetReply(from[i]),
                                         "-NAK");
            natsMsg_Destroy(from[i]);
            continue;
        }
        d->tries = d->message->delivery.tries;
        (*n)++;
    }
    return *n > 0 ? STATUS_OK : status;
}

enum status queue_fetch(struct queue *q, int64_t wait_ns, struct arena *arena,
                        struct queue_delivery *out, size_t cap, size_t *n,
                        struct error *err) {
    struct lane *lane = NULL;
    int64_t deadline_ns = clock_now_ns() + wait_ns;
    size_t n_pulled = 0;
    *n = 0;
    if (cap > MAX_ACK_PENDING)
        cap = MAX_ACK_PENDING;
    natsMsg **pulled = calloc(cap > 0 ? cap : 1, sizeof(natsMsg *));
    if (!pulled)
        return queue_nats_no_memory(err, q);
    enum status status = queue_nats_lane_take(q, &lane, err);
    while (status == STATUS_OK && cap > 0) {
        natsStatus s = NATS_NO_RESPONDERS;
        if (queue_nats_is_closed(q)) {
            status = error_set(err, STATUS_IO, "queue %s: the connection is closed",
                               q->url.name);
            break;
        }
        if (queue_is_connected(q) && make_consumer(q, NULL) == STATUS_OK) {
            sweep(q);
            s = queue_nats_pull(q, lane, q->url.stream, q->consumer, 0, pulled, cap,
                                &n_pulled);
            int64_t left_ns = deadline_ns - clock_now_ns();
            if (s == NATS_OK && n_pulled == 0 && left_ns > 0)
                s = queue_nats_pull(q, lane, q->url.stream, q->consumer,
                                    queue_nats_least(left_ns, PULL_NS), pulled, 1,
                                    &n_pulled);
        }
        int64_t left_ns = deadline_ns - clock_now_ns();
        if (n_pulled > 0 || left_ns <= 0)
            break;
        if (s != NATS_OK)
            queue_nats_nap(queue_nats_least(left_ns, 100 * MS));
    }
    if (lane)
        queue_nats_lane_give_back(q, lane);
    if (n_pulled > 0)
        status = deliver(q, pulled, n_pulled, arena, out, n, err);
    free(pulled);
    return status;
}
