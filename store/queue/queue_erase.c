/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_erase.c - see queue.h: counts, and forgetting. */
#include "store/queue/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/queue/queue_item.h"
#include "store/queue/queue_nats.h"

#define ERASE_NS (30 * SECOND) /* without progress */
#define N_ERASED_AT_ONCE 1024
#define FINDER_BYTES 64

/* What a pass works with. */
struct finding {
    natsMsg *messages[N_ERASED_AT_ONCE];
    uint64_t sequences[N_ERASED_AT_ONCE];
};

/* ---- counts ---- */

enum status queue_lag(struct queue *q, struct queue_lag *out, struct error *err) {
    jsErrCode code = 0;
    jsConsumerInfo *consumer = NULL;
    jsStreamInfo *stream = NULL, *dead = NULL;
    *out = (struct queue_lag){0};
    natsStatus s =
        js_GetConsumerInfo(&consumer, q->js, q->url.stream, q->consumer, NULL, &code);
    if (s == NATS_OK) {
        out->n_waiting = (int64_t)consumer->NumPending;
        out->n_in_flight = consumer->NumAckPending;
    } else if (s == NATS_NOT_FOUND || code == JSConsumerNotFoundErr) {
        s = js_GetStreamInfo(&stream, q->js, q->url.stream, NULL, &code);
        out->n_waiting = s == NATS_OK ? (int64_t)stream->State.Msgs : 0;
    }
    if (s == NATS_OK)
        s = js_GetStreamInfo(&dead, q->js, q->dead_stream, NULL, &code);
    if (s == NATS_OK)
        out->n_dead = (int64_t)dead->State.Msgs;
    jsConsumerInfo_Destroy(consumer);
    jsStreamInfo_Destroy(stream);
    jsStreamInfo_Destroy(dead);
    return s == NATS_OK ? STATUS_OK : queue_nats_error(err, q, s, code, "cannot count");
}

/* ---- erasing ---- */

/* One message that matches; *sequence 0: there is none. */
static natsStatus find_one(struct queue *q, const char *stream, const char *filter,
                           uint64_t *sequence) {
    natsMsg *m = NULL;
    jsErrCode code = 0;
    *sequence = 0;
    natsStatus s = js_GetLastMsg(&m, q->js, stream, filter, NULL, &code);
    if (s == NATS_NOT_FOUND || code == JSNoMessageFoundErr)
        return NATS_OK;
    if (s == NATS_OK)
        *sequence = natsMsg_GetSequence(m);
    natsMsg_Destroy(m);
    return s;
}

/* A consumer of what matches, for as long as we look; its name into out. */
static natsStatus make_finder(struct queue *q, const char *stream, const char *filter,
                              char out[FINDER_BYTES]) {
    jsConsumerConfig c;
    jsConsumerInfo *info = NULL;
    jsErrCode code = 0;
    jsConsumerConfig_Init(&c);
    c.AckPolicy = js_AckExplicit; /* pull consumers must; nothing is acknowledged */
    c.AckWait = 3600 * SECOND;
    c.MaxAckPending = 1 << 20;
    c.FilterSubject = filter;
    c.HeadersOnly = true;
    c.MemoryStorage = true;
    c.Replicas = 1;
    c.InactiveThreshold = ERASE_NS;
    natsStatus s = js_AddConsumer(&info, q->js, stream, &c, NULL, &code);
    snprintf(out, FINDER_BYTES, "%s", s == NATS_OK ? info->Name : "");
    jsConsumerInfo_Destroy(info);
    return s;
}

static enum status erase_found(struct queue *q, const char *stream,
                               const uint64_t *sequences, size_t n, struct error *err) {
    char subject[128];
    struct request *requests = calloc(n, sizeof *requests);
    char(*bodies)[40] = calloc(n, sizeof *bodies);
    enum status status = requests && bodies ? STATUS_OK : queue_nats_no_memory(err, q);
    snprintf(subject, sizeof subject, QUEUE_NATS_API ".STREAM.MSG.DELETE.%s", stream);
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        /* Without no_erase the server overwrites. */
        int n_bytes = snprintf(bodies[i], sizeof bodies[i], "{\"seq\":%" PRIu64 "}",
                               sequences[i]);
        requests[i] = (struct request){
            .subject = subject, .data = bodies[i], .n_bytes = (size_t)n_bytes};
    }
    if (status == STATUS_OK) {
        struct exchange x = {.requests = requests, .n = n, .kind = REPLY_OR_ABSENT};
        status = queue_nats_exchange(q, &x, ERASE_NS, "erasing", err);
    }
    free(requests);
    free(bodies);
    return status;
}

enum status queue_erase_sequences(struct queue *q, const uint64_t *sequences, size_t n,
                                  struct error *err) {
    return n > 0 ? erase_found(q, q->url.stream, sequences, n, err) : STATUS_OK;
}

/* Finds and erases what matches, in one pass. */
static enum status erase_pass(struct queue *q, const char *stream, const char *filter,
                              struct finding *f, int64_t *n_erased, struct error *err) {
    char finder[FINDER_BYTES];
    struct lane *lane = NULL;
    jsErrCode code = 0;
    enum status status = queue_nats_lane_open(q, &lane, err);
    if (status != STATUS_OK)
        return status;
    natsStatus s = make_finder(q, stream, filter, finder);
    bool has_finder = s == NATS_OK;
    while (s == NATS_OK && status == STATUS_OK) {
        size_t n = 0, n_read = 0;
        s = queue_nats_pull(q, lane, stream, finder, 0, f->messages, N_ERASED_AT_ONCE,
                            &n);
        for (size_t i = 0; i < n; i++) {
            struct queue_item_delivery d;
            if (queue_item_delivery(natsMsg_GetReply(f->messages[i]), &d, NULL) ==
                STATUS_OK)
                f->sequences[n_read++] = d.sequence;
            natsMsg_Destroy(f->messages[i]);
        }
        if (n_read == 0)
            break;
        status = erase_found(q, stream, f->sequences, n_read, err);
        *n_erased += status == STATUS_OK ? (int64_t)n_read : 0;
    }
    if (has_finder)
        js_DeleteConsumer(q->js, stream, finder, NULL, &code);
    queue_nats_lane_close(lane);
    return status; /* where the pass ended early, the next look goes on */
}

/* Passes until there is nothing to be found. Each look erases what it found, so that each
 * turn gets on even where passes find nothing. */
static enum status erase_all(struct queue *q, const char *stream, const char *filter,
                             struct finding *f, int64_t *n_erased, struct error *err) {
    int64_t deadline_ns = clock_now_ns() + ERASE_NS;
    for (;;) {
        uint64_t sequence = 0;
        natsStatus s = find_one(q, stream, filter, &sequence);
        if (s != NATS_OK && (queue_nats_is_closed(q) || clock_now_ns() >= deadline_ns))
            return queue_nats_error(err, q, s, 0,
                                    "cannot look for what is to be erased");
        if (s != NATS_OK) {
            queue_nats_nap(200 * MS);
            continue;
        }
        if (sequence == 0)
            return STATUS_OK;
        enum status status = erase_found(q, stream, &sequence, 1, err);
        if (status != STATUS_OK)
            return status;
        ++*n_erased;
        status = erase_pass(q, stream, filter, f, n_erased, err);
        if (status != STATUS_OK)
            return status;
        deadline_ns = clock_now_ns() + ERASE_NS;
    }
}

enum status queue_erase(struct queue *q, const char *source, const char *author,
                        const char *key, int64_t *n, struct error *err) {
    const char *streams[] = {q->url.stream, q->dead_stream},
               *prefixes[] = {q->prefix, q->dead_prefix};
    struct finding *f = calloc(1, sizeof *f);
    enum status status = f ? STATUS_OK : queue_nats_no_memory(err, q);
    *n = 0;
    for (size_t i = 0; status == STATUS_OK && i < 2; i++) {
        char filters[2][QUEUE_ITEM_SUBJECT_BYTES];
        size_t n_filters = 0;
        status = queue_item_filters(prefixes[i], source, author, key, filters,
                                    &n_filters, err);
        for (size_t k = 0; status == STATUS_OK && k < n_filters; k++)
            status = erase_all(q, streams[i], filters[k], f, n, err);
    }
    free(f);
    return status;
}
