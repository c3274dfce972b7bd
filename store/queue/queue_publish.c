/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_publish.c - see queue.h: posts into the stream. */
#include "store/queue/queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "store/queue/queue_item.h"
#include "store/queue/queue_nats.h"

#define MESSAGE_OVERHEAD_BYTES                                                         \
    4096 /* subject and headers, of the server's max_payload */

struct batch {
    struct request *requests;
    char (*subjects)[QUEUE_ITEM_SUBJECT_BYTES];
    size_t *texts, *ids; /* where each begins in bytes */
    struct buffer bytes;
};

static void batch_free(struct batch *b) {
    free(b->requests);
    free(b->subjects);
    free(b->texts);
    free(b->ids);
    buffer_free(&b->bytes);
}

static enum status write_item(struct queue *q, struct batch *b, size_t i,
                              struct store_item item, struct error *err) {
    size_t max_bytes = (size_t)natsConnection_GetMaxPayload(q->connection);
    max_bytes -= max_bytes > MESSAGE_OVERHEAD_BYTES ? MESSAGE_OVERHEAD_BYTES : 0;
    if (item.kind == STORE_DEAD && item.body.n_bytes > QUEUE_BODY_BYTES)
        item.body.n_bytes = QUEUE_BODY_BYTES;
    enum status status = queue_item_subject(&item, q->prefix, b->subjects[i], err);
    b->ids[i] = b->bytes.n_bytes;
    if (status == STATUS_OK)
        status = queue_item_id(&item, &b->bytes, err);
    if (status == STATUS_OK)
        status = buffer_append(&b->bytes, "", 1, err);
    b->texts[i] = b->bytes.n_bytes;
    if (status == STATUS_OK)
        status = queue_item_write(&item, &b->bytes, err);
    if (status != STATUS_OK)
        return status;
    size_t n_bytes = b->bytes.n_bytes - b->texts[i];
    b->requests[i] = (struct request){.subject = b->subjects[i], .n_bytes = n_bytes};
    if (n_bytes > max_bytes)
        return error_set(err, STATUS_LIMIT,
                         "queue %s: a post of %zu bytes; the server takes %zu",
                         q->url.name, n_bytes, max_bytes);
    return buffer_append(&b->bytes, "", 1, err);
}

enum status queue_publish(struct queue *q, const struct store_item *items, size_t n,
                          struct error *err) {
    struct batch b = {.bytes = {.max_bytes = (size_t)1 << 30}};
    if (n == 0)
        return STATUS_OK;
    b.requests = calloc(n, sizeof *b.requests);
    b.subjects = calloc(n, sizeof *b.subjects);
    b.texts = calloc(n, sizeof *b.texts);
    b.ids = calloc(n, sizeof *b.ids);
    enum status status = b.requests && b.subjects && b.texts && b.ids
                             ? STATUS_OK
                             : queue_nats_no_memory(err, q);
    for (size_t i = 0; status == STATUS_OK && i < n; i++)
        status = write_item(q, &b, i, items[i], err);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < n; i++) {
            b.requests[i].data = b.bytes.data + b.texts[i];
            b.requests[i].id = b.bytes.data + b.ids[i];
        }
        struct exchange x = {.requests = b.requests, .n = n, .kind = REPLY_STORED};
        status = queue_nats_exchange(q, &x, q->publish_wait_ns, "publishing", err);
    }
    batch_free(&b);
    return status;
}
