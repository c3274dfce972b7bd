/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_exchange.c - see queue_nats.h: lanes, and requests that all get their reply. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "store/queue/queue_nats.h"

#define WINDOW 2048             /* requests under way in an exchange */
#define NO_WAIT_NS (500 * MS)   /* for the end of what is there at once */
#define SILENCE_NS (2 * SECOND) /* without any reply: the rest is sent again */

/* ---- lanes ---- */

void queue_nats_lane_close(struct lane *lane) {
    if (!lane)
        return;
    natsSubscription_Destroy(lane->replies);
    natsSubscription_Destroy(lane->pulled);
    free(lane);
}

/* Subscribes to an inbox and what lies below it. */
static natsStatus open_inbox(struct queue *q, char out[96], natsSubscription **sub) {
    natsInbox *inbox = NULL;
    char subject[104];
    natsStatus s = natsInbox_Create(&inbox);
    if (s != NATS_OK)
        return s;
    snprintf(out, 96, "%s", inbox);
    natsInbox_Destroy(inbox);
    snprintf(subject, sizeof subject, "%s.>", out);
    s = natsConnection_SubscribeSync(sub, q->connection, subject);
    return s == NATS_OK ? natsSubscription_SetPendingLimits(*sub, -1, -1) : s;
}

enum status queue_nats_lane_open(struct queue *q, struct lane **out,
                                 struct error *err) {
    struct lane *lane = calloc(1, sizeof *lane);
    *out = NULL;
    if (!lane)
        return queue_nats_no_memory(err, q);
    natsStatus s = open_inbox(q, lane->inbox, &lane->replies);
    if (s == NATS_OK)
        s = open_inbox(q, lane->pull_inbox, &lane->pulled);
    if (s != NATS_OK) {
        queue_nats_lane_close(lane);
        return queue_nats_error(err, q, s, 0, "cannot subscribe for replies");
    }
    *out = lane;
    return STATUS_OK;
}

enum status queue_nats_lane_take(struct queue *q, struct lane **out,
                                 struct error *err) {
    pthread_mutex_lock(&q->lock);
    struct lane *lane = q->idle;
    if (lane)
        q->idle = lane->next;
    pthread_mutex_unlock(&q->lock);
    *out = lane;
    return lane ? STATUS_OK : queue_nats_lane_open(q, out, err);
}

void queue_nats_lane_give_back(struct queue *q, struct lane *lane) {
    pthread_mutex_lock(&q->lock);
    lane->next = q->idle;
    q->idle = lane;
    pthread_mutex_unlock(&q->lock);
}

/* ---- an exchange ---- */

static natsStatus send_request(struct queue *q, struct lane *lane,
                               const struct request *r, size_t i) {
    char reply[160], tries[16];
    natsMsg *m = NULL;
    snprintf(reply, sizeof reply, "%s.%" PRIu64 ".%zu", lane->inbox, lane->round, i);
    natsStatus s = natsMsg_Create(&m, r->subject, reply, r->data, (int)r->n_bytes);
    if (s == NATS_OK && r->id)
        s = natsMsgHeader_Set(m, "Nats-Msg-Id", r->id);
    if (s == NATS_OK && r->reason) {
        snprintf(tries, sizeof tries, "%" PRId32, r->tries);
        s = natsMsgHeader_Set(m, "Vigil-Reason", r->reason);
        if (s == NATS_OK)
            s = natsMsgHeader_Set(m, "Vigil-Tries", tries);
    }
    if (s == NATS_OK)
        s = natsConnection_PublishMsg(q->connection, m);
    natsMsg_Destroy(m);
    return s;
}

/* JetStream's answer: whether it did as asked, else its code. */
static bool is_good(natsMsg *reply, enum reply_kind kind, int *refusal) {
    static const struct json_limits limits = {.max_bytes = 64 << 10,
                                              .max_depth = 8,
                                              .max_values = 1024,
                                              .max_key_bytes = 256};
    if (natsMsg_IsNoResponders(reply))
        return false;
    if (kind == REPLY_ANY)
        return true;
    json_t *object = NULL;
    if (json_parse(natsMsg_GetData(reply), (size_t)natsMsg_GetDataLength(reply),
                   &limits, &object, NULL) != STATUS_OK)
        return false;
    const json_t *error = json_object_get(object, "error");
    int code = (int)json_integer_value(json_object_get(error, "err_code"));
    bool is_absent = code == JSNoMessageFoundErr || code == JSSequenceNotFoundErr;
    /* Deleting what is gone fails in the store, with the store's own words. */
    const char *words = json_string_value(json_object_get(error, "description"));
    is_absent = is_absent || (code == JSStreamMsgDeleteFailed && words &&
                              (strstr(words, "not found") || strstr(words, "deleted")));
    bool is_it = error ? kind == REPLY_OR_ABSENT && is_absent
                       : kind == REPLY_OR_ABSENT || json_object_get(object, "seq");
    if (error && !is_it)
        *refusal = code ? code : -1;
    json_decref(object);
    return is_it;
}

/* Which request a reply belongs to; n when to none of this round. */
static size_t reply_index(const struct lane *lane, const char *subject, size_t n) {
    size_t n_inbox = strlen(lane->inbox);
    char *end = NULL;
    if (strncmp(subject, lane->inbox, n_inbox) != 0 || subject[n_inbox] != '.')
        return n;
    if (strtoull(subject + n_inbox + 1, &end, 10) != lane->round || *end != '.')
        return n;
    uint64_t i = strtoull(end + 1, &end, 10);
    return *end == '\0' && i < n ? (size_t)i : n;
}

/* Sends each request that is not done once, and takes replies until all came, nothing came
 * for a while, or the connection was lost between. */
static natsStatus exchange_round(struct queue *q, struct lane *lane, struct exchange *x,
                                 int64_t deadline_ns) {
    size_t next = 0, n_open = 0; /* under way */
    unsigned n_reconnects = atomic_load(&q->n_reconnects);
    int64_t heard_ns = clock_now_ns();
    natsStatus s = NATS_OK;
    lane->round++;
    while (s == NATS_OK) {
        for (; n_open < WINDOW && next < x->n && s == NATS_OK; next++) {
            struct request *r = &x->requests[next];
            r->is_sent = false;
            if (r->is_done)
                continue;
            s = send_request(q, lane, r, next);
            r->is_sent = s == NATS_OK;
            n_open += r->is_sent ? 1 : 0;
        }
        if (n_open == 0)
            return s;
        natsMsg *m = NULL;
        int64_t now_ns = clock_now_ns();
        int64_t wait_ns = queue_nats_least(
            queue_nats_least(heard_ns + SILENCE_NS, deadline_ns) - now_ns, 100 * MS);
        if (wait_ns <= 0 || atomic_load(&q->n_reconnects) != n_reconnects)
            return NATS_TIMEOUT;
        natsStatus got =
            natsSubscription_NextMsg(&m, lane->replies, queue_nats_ms(wait_ns));
        if (got == NATS_TIMEOUT)
            continue;
        if (got == NATS_NO_RESPONDERS) { /* of one, the library does not say of which */
            n_open--;
            continue;
        }
        if (got != NATS_OK)
            return got;
        size_t i = reply_index(lane, natsMsg_GetSubject(m), x->n);
        if (i < x->n && x->requests[i].is_sent) {
            x->requests[i].is_sent = false;
            x->requests[i].is_done = is_good(m, x->kind, &x->refusal);
            x->n_done += x->requests[i].is_done ? 1 : 0;
            n_open--;
            heard_ns = clock_now_ns();
        }
        natsMsg_Destroy(m);
    }
    return s;
}

enum status queue_nats_exchange(struct queue *q, struct exchange *x, int64_t wait_ns,
                                const char *what, struct error *err) {
    struct lane *lane = NULL;
    int64_t deadline_ns = clock_now_ns() + wait_ns, pause_ns = 50 * MS;
    natsStatus s = NATS_OK;
    enum status status = queue_nats_lane_take(q, &lane, err);
    if (status != STATUS_OK)
        return status;
    while (x->n_done < x->n && !queue_nats_is_closed(q)) {
        int64_t left_ns = deadline_ns - clock_now_ns();
        if (left_ns <= 0)
            break;
        size_t n_before = x->n_done;
        if (queue_is_connected(q)) {
            s = exchange_round(q, lane, x, deadline_ns);
            if (x->n_done == x->n || s == NATS_NO_MEMORY)
                break;
        }
        pause_ns =
            x->n_done > n_before ? 50 * MS : queue_nats_least(2 * pause_ns, 2 * SECOND);
        left_ns = deadline_ns - clock_now_ns();
        queue_nats_nap(
            queue_nats_least(left_ns, queue_is_connected(q) ? pause_ns : 50 * MS));
    }
    queue_nats_lane_give_back(q, lane);
    if (x->n_done == x->n)
        return STATUS_OK;
    if (s == NATS_NO_MEMORY)
        return queue_nats_no_memory(err, q);
    if (queue_nats_is_closed(q))
        return error_set(err, STATUS_IO, "queue %s: %s: the connection is closed",
                         q->url.name, what);
    if (x->refusal != 0)
        return error_set(err, STATUS_IO,
                         "queue %s: %s: %zu of %zu open; the server refuses (JetStream "
                         "error %d)",
                         q->url.name, what, x->n - x->n_done, x->n, x->refusal);
    return error_set(err, STATUS_TIMEOUT,
                     "queue %s: %s: %zu of %zu open; no answer within %" PRId64 " s",
                     q->url.name, what, x->n - x->n_done, x->n, wait_ns / SECOND);
}

/* ---- pull requests ---- */

/* What came for a pull request: a message, the server's word that no more will come, or
 * something of no account: a heartbeat, or the end of an older request. */
enum arrival { ARRIVAL_MESSAGE, ARRIVAL_END, ARRIVAL_OTHER };

static enum arrival look_at(const struct lane *lane, natsMsg *m) {
    const char *code = NULL, *reply = natsMsg_GetReply(m);
    size_t n_inbox = strlen(lane->pull_inbox);
    if (reply && strncmp(reply, "$JS.ACK.", 8) == 0)
        return ARRIVAL_MESSAGE;
    if (natsMsgHeader_Get(m, "Status", &code) != NATS_OK || strcmp(code, "100") == 0)
        return ARRIVAL_OTHER;
    const char *subject = natsMsg_GetSubject(m);
    bool is_newest = strncmp(subject, lane->pull_inbox, n_inbox) == 0 &&
                     strtoull(subject + n_inbox + 1, NULL, 10) == lane->round;
    return is_newest ? ARRIVAL_END : ARRIVAL_OTHER;
}

natsStatus queue_nats_pull(struct queue *q, struct lane *lane, const char *stream,
                           const char *consumer, int64_t wait_ns, natsMsg **out,
                           size_t cap, size_t *n) {
    char subject[160], reply[128], body[96];
    int n_late = 0;
    natsSubscription_GetPending(lane->pulled, &n_late, NULL);
    size_t wanted = wait_ns > 0 ? 1 : cap;
    size_t n_asked =
        n_late > 0 && (size_t)n_late >= wanted ? 0 : wanted - (size_t)n_late;
    natsStatus s = NATS_OK;
    if (n_asked > 0) {
        lane->round++;
        snprintf(subject, sizeof subject, QUEUE_NATS_API ".CONSUMER.MSG.NEXT.%s.%s",
                 stream, consumer);
        snprintf(reply, sizeof reply, "%s.%" PRIu64, lane->pull_inbox, lane->round);
        if (wait_ns > 0)
            snprintf(body, sizeof body, "{\"batch\":1,\"expires\":%" PRId64 "}",
                     wait_ns);
        else
            snprintf(body, sizeof body, "{\"batch\":%zu,\"no_wait\":true}", n_asked);
        s = natsConnection_PublishRequestString(q->connection, subject, reply, body);
    }
    int64_t silence_ns = wait_ns > 0 ? wait_ns + 200 * MS : NO_WAIT_NS;
    size_t n_got = 0;
    bool has_ended = false;
    while (s == NATS_OK && n_got < wanted && !has_ended) {
        natsMsg *m = NULL;
        s = natsSubscription_NextMsg(&m, lane->pulled, queue_nats_ms(silence_ns));
        if (s != NATS_OK)
            break;
        enum arrival arrival = look_at(lane, m);
        if (arrival == ARRIVAL_MESSAGE)
            out[n_got++] = m;
        else
            natsMsg_Destroy(m);
        has_ended = arrival == ARRIVAL_END;
    }
    *n += n_got;
    return n_got > 0 ? NATS_OK : s;
}
