/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_settle.c - see queue.h: what becomes of a delivery. */
#include "store/queue/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "store/queue/queue_nats.h"

static const int64_t retry_steps_ns[] = {SECOND, 5 * SECOND, 30 * SECOND, 120 * SECOND};

/* Whether it was held until now: who gets true settles it. */
static bool let_go(struct queue *q, struct queue_message *m) {
    pthread_mutex_lock(&q->lock);
    bool was_held = m->is_held;
    m->is_held = false;
    pthread_mutex_unlock(&q->lock);
    return was_held;
}

static enum status settled_twice(const struct queue *q, struct error *err) {
    return error_set(err, STATUS_INTERNAL,
                     "queue %s: a message was settled that is settled already",
                     q->url.name);
}

/* Settled messages are used again as late as may be, so that a second settling is seen. */
static void message_free(struct queue *q, struct queue_message *m) {
    natsMsg_Destroy(m->message);
    m->message = NULL;
    m->next = NULL;
    pthread_mutex_lock(&q->lock);
    if (q->free_last)
        q->free_last->next = m;
    else
        q->free_first = m;
    q->free_last = m;
    pthread_mutex_unlock(&q->lock);
}

uint64_t queue_sequence(const struct queue_message *m) {
    return m->delivery.sequence;
}

/* Confirms one word for several messages. */
static enum status say(struct queue *q, struct queue_message *const *m, size_t n,
                       const char *word, struct error *err) {
    struct request *requests = calloc(n, sizeof *requests);
    if (!requests)
        return queue_nats_no_memory(err, q);
    for (size_t i = 0; i < n; i++)
        requests[i] = (struct request){.subject = natsMsg_GetReply(m[i]->message),
                                       .data = word,
                                       .n_bytes = strlen(word)};
    struct exchange x = {.requests = requests, .n = n, .kind = REPLY_ANY};
    enum status status =
        queue_nats_exchange(q, &x, QUEUE_NATS_SETTLE_NS, "acknowledging", err);
    free(requests);
    return status;
}

enum status queue_ack_all(struct queue *q, struct queue_message *const *m, size_t n,
                          struct error *err) {
    size_t n_held = 0;
    if (n == 0)
        return STATUS_OK;
    struct queue_message **held = calloc(n, sizeof *held);
    for (size_t i = 0; i < n; i++)
        if (let_go(q, m[i])) {
            if (held)
                held[n_held] = m[i];
            else
                message_free(q, m[i]);
            n_held++;
        }
    if (!held)
        return queue_nats_no_memory(err, q);
    enum status status = n_held > 0 ? say(q, held, n_held, "+ACK", err) : STATUS_OK;
    for (size_t i = 0; i < n_held; i++)
        message_free(q, held[i]);
    free(held);
    return status == STATUS_OK && n_held < n ? settled_twice(q, err) : status;
}

enum status queue_ack(struct queue *q, struct queue_message *m, struct error *err) {
    return queue_ack_all(q, &m, 1, err);
}

/* Publishes a message of STREAM anew, to `subject`, with what makes its id another. */
static enum status copy_message(struct queue *q, natsMsg *from, const char *subject,
                                const char *id_prefix, uint64_t sequence,
                                const char *reason, int32_t tries, struct error *err) {
    const char *id = NULL;
    char safe_reason[STORE_REASON_BYTES];
    struct buffer new_id = {.max_bytes = 64 << 10};
    if (natsMsgHeader_Get(from, "Nats-Msg-Id", &id) != NATS_OK || !id)
        id = "?";
    size_t n = 0;
    for (; reason && reason[n] && n + 1 < sizeof safe_reason; n++)
        safe_reason[n] = reason[n] < ' ' || reason[n] == 0x7F ? ' ' : reason[n];
    safe_reason[n] = '\0';
    enum status status = buffer_printf(&new_id, err, "%s:%s", id_prefix, id);
    if (status == STATUS_OK && sequence > 0)
        status = buffer_printf(&new_id, err, ":%" PRIu64, sequence);
    if (status == STATUS_OK) {
        struct request r = {.subject = subject,
                            .data = natsMsg_GetData(from),
                            .n_bytes = (size_t)natsMsg_GetDataLength(from),
                            .id = new_id.data,
                            .reason = reason ? safe_reason : NULL,
                            .tries = tries};
        struct exchange x = {.requests = &r, .n = 1, .kind = REPLY_STORED};
        status =
            queue_nats_exchange(q, &x, QUEUE_NATS_SETTLE_NS, "copying a message", err);
    }
    buffer_free(&new_id);
    return status;
}

enum status queue_nats_bury(struct queue *q, natsMsg *from, const char *reason,
                            int32_t tries, struct error *err) {
    char subject[QUEUE_ITEM_SUBJECT_BYTES + 8];
    const char *old = natsMsg_GetSubject(from);
    size_t n_prefix = strlen(q->prefix);
    if (strncmp(old, q->prefix, n_prefix) != 0)
        return error_set(err, STATUS_INTERNAL, "queue %s: a message of another stream",
                         q->url.name);
    snprintf(subject, sizeof subject, "%s%s", q->dead_prefix, old + n_prefix);
    return copy_message(q, from, subject, "dlq", 0, reason, tries, err);
}

/* Of a message that is let go. */
static enum status give_up(struct queue *q, struct queue_message *m, const char *reason,
                           struct error *err) {
    enum status status = queue_nats_bury(q, m->message, reason, m->delivery.tries, err);
    return status == STATUS_OK ? say(q, &m, 1, "+TERM", err) : status;
}

enum status queue_give_up(struct queue *q, struct queue_message *m, const char *reason,
                          struct error *err) {
    if (!let_go(q, m))
        return settled_twice(q, err);
    enum status status = give_up(q, m, reason ? reason : "", err);
    message_free(q, m);
    return status;
}

void queue_nats_log(const struct error *err) {
    log_message(LOG_LEVEL_ERROR, "queue", "%s", err->message);
}

static void publish_word(struct queue *q, const struct queue_message *m,
                         const char *word) {
    natsConnection_PublishString(q->connection, natsMsg_GetReply(m->message), word);
}

/* Not confirmed: if the word is lost, AckWait does the same. */
void queue_retry(struct queue *q, struct queue_message *m, int64_t delay_ns) {
    struct error err = {0};
    char word[64];
    if (!let_go(q, m)) {
        settled_twice(q, &err);
        queue_nats_log(&err);
        return;
    }
    int32_t tries = m->delivery.tries;
    if (tries < QUEUE_MAX_TRIES) {
        int64_t step_ns = retry_steps_ns[tries - 1];
        snprintf(word, sizeof word, "-NAK {\"delay\":%" PRId64 "}",
                 delay_ns > step_ns ? delay_ns : step_ns);
        publish_word(q, m, word);
    } else if (give_up(q, m, "the last try failed", &err) != STATUS_OK) {
        queue_nats_log(&err); /* AckWait ends it, and STREAM_SPENT has it then */
    }
    message_free(q, m);
}

void queue_release(struct queue *q, struct queue_message *m) {
    struct error err = {0};
    if (!let_go(q, m)) {
        settled_twice(q, &err);
        queue_nats_log(&err);
        return;
    }
    if (m->delivery.tries < QUEUE_MAX_TRIES) {
        publish_word(q, m, "-NAK");
    } else {
        enum status status = copy_message(q, m->message, natsMsg_GetSubject(m->message),
                                          "again", m->delivery.sequence, NULL, 0, &err);
        if (status == STATUS_OK)
            status = say(q, &m, 1, "+TERM", &err);
        /* The copy is the message now: whoever erases that shall not leave this. */
        if (status == STATUS_OK)
            status = queue_erase_sequences(q, &m->delivery.sequence, 1, &err);
        if (status != STATUS_OK)
            queue_nats_log(&err);
    }
    message_free(q, m);
}

void queue_extend(struct queue *q, struct queue_message *m) {
    struct error err = {0};
    pthread_mutex_lock(&q->lock);
    bool is_held = m->is_held;
    if (is_held)
        publish_word(q, m, "+WPI");
    pthread_mutex_unlock(&q->lock);
    if (!is_held) {
        settled_twice(q, &err);
        queue_nats_log(&err);
    }
}
