/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_push.c - bodies of POST /v1/posts taken apart: each record is JSON by itself, and a
 * document that jansson takes has as many as its tree says. Heads of requests, which the gate
 * alone has seen before, go through the listener's reader: no view leaves the head.
 *
 * Input: a byte (0: lines, 1: a document, else: a head or an address), then the bytes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/gate.h"
#include "base/json.h"
#include "client/net/listener_head.h"
#include "client/sources/push_body.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define MAX_BYTES 20000

static const struct json_limits LIMITS = {.max_bytes = (size_t)1 << 20,
                                          .max_depth = 32,
                                          .max_values = 20000,
                                          .max_key_bytes = 1024};

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static enum status look_at(void *context, struct view record, struct error *err) {
    size_t *n = context;
    json_t *value = NULL;
    enum status status = json_parse(record.data, record.n_bytes, &LIMITS, &value, err);
    require(status == STATUS_OK || status == STATUS_UNSUPPORTED);
    require(status != STATUS_OK || json_is_object(value) || json_is_string(value));
    require(!memchr(record.data, '\n', record.n_bytes));
    json_decref(value);
    (*n)++;
    return STATUS_OK;
}

/* How many records a document has, by its tree; -1: not to be told so. */
static long count_by_tree(const char *text, size_t n_bytes) {
    json_t *root = NULL;
    long n = -1;
    if (json_parse(text, n_bytes, &LIMITS, &root, NULL) != STATUS_OK)
        return -1;
    const json_t *posts = json_object_get(root, "posts");
    if (json_is_string(root) || (json_is_object(root) && !posts))
        n = 1;
    else if (json_is_array(posts)) {
        n = (long)json_array_size(posts);
        for (size_t i = 0; i < json_array_size(posts); i++)
            if (!json_is_object(json_array_get(posts, i)) &&
                !json_is_string(json_array_get(posts, i)))
                n = -1;
    }
    json_decref(root);
    return n;
}

static void split(enum push_form form, const char *text, size_t n_bytes) {
    char *body = malloc(n_bytes + 1);
    struct error err = {0};
    size_t n = 0, n_seen = 0;
    require(body != NULL);
    memcpy(body, text, n_bytes);
    enum status status =
        push_body_split(form, body, n_bytes, look_at, &n_seen, &n, &err);
    require(n == n_seen);
    require(status == STATUS_OK || err.message[0] != '\0');
    long expected = form == PUSH_DOCUMENT && !memchr(text, '\\', n_bytes)
                        ? count_by_tree(text, n_bytes)
                        : -1;
    require(expected < 0 || (status == STATUS_OK && n == (size_t)expected));
    free(body);
}

static void require_within(struct view v, struct view whole) {
    require(v.n_bytes == 0 ||
            (v.data >= whole.data && v.data + v.n_bytes <= whole.data + whole.n_bytes));
}

static void read_head(const char *text, size_t n_bytes) {
    struct listener_head head;
    struct gate gate = {0};
    struct view whole = view_of(text, n_bytes);
    listener_head_read(whole, &head);
    require_within(head.method, whole);
    require_within(head.path, whole);
    require_within(head.query, whole);
    require_within(head.content_type, whole);
    require_within(head.authorization, whole);
    require_within(head.api_key, whole);
    size_t n = 0;
    while (n < n_bytes && gate.n_messages == 0 && gate.fault == FAULT_NONE)
        gate_feed(&gate, text + n++, 1);
    if (gate.n_messages ==
        1) { /* one that the gate lets through: all of it is understood */
        listener_head_read(view_of(text, n), &head);
        require(head.method.n_bytes && head.path.n_bytes + head.query.n_bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 1 || n_bytes > MAX_BYTES)
        return 0;
    const char *text = (const char *)data + 1;
    size_t n = n_bytes - 1;
    if (data[0] < 2) {
        split(data[0] ? PUSH_DOCUMENT : PUSH_LINES, text, n);
        return 0;
    }
    read_head(text, n);
    char *address = strndup(text, n);
    struct sockaddr_storage out;
    socklen_t n_address = 0;
    bool is_loopback = false;
    struct error err = {0};
    require(address != NULL);
    enum status status =
        listener_address(address, &out, &n_address, &is_loopback, &err);
    require(status == STATUS_OK ? n_address > 0 : err.message[0] != '\0');
    free(address);
    return 0;
}
