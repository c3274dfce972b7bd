/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_queue_item.c - any bytes are an item or STATUS_INVALID; an item that was read is
 * written and read as the same; its subject and id are safe; any subject to acknowledge on
 * is read or refused.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/queue/queue_item.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static const size_t views[] = {
    offsetof(struct store_item, source),  offsetof(struct store_item, key),
    offsetof(struct store_item, author),  offsetof(struct store_item, text),
    offsetof(struct store_item, lang),    offsetof(struct store_item, place),
    offsetof(struct store_item, city),    offsetof(struct store_item, state),
    offsetof(struct store_item, country), offsetof(struct store_item, drugs),
    offsetof(struct store_item, url),     offsetof(struct store_item, fold_key),
    offsetof(struct store_item, body),    offsetof(struct store_item, reason),
    offsetof(struct store_item, stage)};

static void require_same(const struct store_item *a, const struct store_item *b) {
    require(a->kind == b->kind && a->mode == b->mode && a->fold == b->fold &&
            a->version == b->version && a->posted_ns == b->posted_ns &&
            a->received_ns == b->received_ns && a->fingerprint == b->fingerprint &&
            a->raw_id == 0 && b->raw_id == 0);
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        struct view x, y;
        memcpy(&x, (const char *)a + views[i], sizeof x);
        memcpy(&y, (const char *)b + views[i], sizeof y);
        require(view_equal(x, y));
    }
}

static void require_names(const struct store_item *item) {
    char subject[QUEUE_ITEM_SUBJECT_BYTES];
    struct buffer id = {.max_bytes = 1 << 20};
    size_t n_dots = 0;
    require(queue_item_subject(item, "S.posts", subject, NULL) == STATUS_OK);
    for (const char *p = subject; *p; p++) {
        require(*p > ' ' && *p < 0x7F && *p != '*' && *p != '>');
        n_dots += *p == '.' ? 1 : 0;
        require(*p != '.' || (p[1] != '.' && p[1] != '\0'));
    }
    require(n_dots == 5);
    require(queue_item_id(item, &id, NULL) == STATUS_OK);
    for (const char *p = id.data; *p; p++)
        require(*p > ' ' && *p < 0x7F);
    buffer_free(&id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    struct arena arena = {.max_bytes = 16 << 20};
    struct buffer text = {.max_bytes = 16 << 20};
    struct store_item item, again;
    struct error err = {0};
    enum status status =
        queue_item_read((const char *)data, n_bytes, &arena, &item, &err);
    require(status == STATUS_OK || status == STATUS_INVALID);
    require((status == STATUS_OK) == (err.message[0] == '\0'));
    if (status == STATUS_OK) {
        require(queue_item_write(&item, &text, NULL) == STATUS_OK);
        require(queue_item_read(text.data, text.n_bytes, &arena, &again, NULL) ==
                STATUS_OK);
        require_same(&item, &again);
        require_names(&item);
    }
    char *reply = calloc(1, n_bytes + 1);
    struct queue_item_delivery d;
    require(reply != NULL);
    memcpy(reply, data, n_bytes);
    if (queue_item_delivery(reply, &d, NULL) == STATUS_OK)
        require(d.tries > 0);
    free(reply);
    buffer_free(&text);
    arena_free(&arena);
    return 0;
}
