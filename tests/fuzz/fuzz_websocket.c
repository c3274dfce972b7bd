/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_websocket.c - what a WebSocket server may send, over a socket pair, in pieces. Whatever
 * it is, the client ends, gives the same messages however the bytes are cut, and hands out no
 * message that is longer than allowed.
 *
 * Input: a byte that seeds the cuts; its lowest bit set: a good handshake goes in front.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/net/websocket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define MAX_BYTES 8000
#define MAX_MESSAGE_BYTES 100
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define GOOD                                                                           \
    "HTTP/1.1 101 a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                  \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

static void require(bool is_true) {
    if (!is_true)
        abort();
}

/* What came of it: messages are only counted and summed up. */
struct result {
    enum status connected, end;
    size_t n_messages;
    uint64_t sum;
};

static uint64_t mix(uint64_t sum, struct view bytes, bool is_cut) {
    for (size_t i = 0; i < bytes.n_bytes; i++)
        sum = (sum ^ (uint8_t)bytes.data[i]) * UINT64_C(0x100000001B3);
    return (sum ^ (is_cut ? 0x200 : 0x100)) * UINT64_C(0x100000001B3);
}

/* Connects, or reads what there is; false when it is over. */
static bool go_on(struct websocket *w, struct result *r) {
    struct websocket_message m;
    struct error err = {0};
    if (r->connected != STATUS_OK) {
        r->connected = websocket_connect(w, clock_now_ns(), &err);
        if (r->connected == STATUS_TIMEOUT)
            return true;
        if (r->connected != STATUS_OK) {
            require(err.message[0] != '\0');
            return false;
        }
    }
    while ((r->end = websocket_read(w, clock_now_ns(), &m, &err)) == STATUS_OK) {
        require(m.bytes.n_bytes <= MAX_MESSAGE_BYTES);
        require(!m.is_cut || m.bytes.n_bytes == MAX_MESSAGE_BYTES);
        r->n_messages++;
        r->sum = mix(r->sum, m.bytes, m.is_cut);
    }
    require(r->end == STATUS_TIMEOUT || err.message[0] != '\0');
    return r->end == STATUS_TIMEOUT;
}

/* seed 0: all at once. */
static struct result run(const char *bytes, size_t n_bytes, uint32_t seed) {
    struct result r = {.connected = STATUS_TIMEOUT, .end = STATUS_TIMEOUT};
    struct websocket *w = NULL;
    int fds[2];
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    struct websocket_options options = {.url = "wss://a/",
                                        .wake_fd = -1,
                                        .max_message_bytes = MAX_MESSAGE_BYTES,
                                        .has_fd = true,
                                        .fd = fds[0],
                                        .key = KEY};
    require(websocket_open(&options, &w, NULL) == STATUS_OK);
    bool is_going = true;
    for (size_t at = 0; at < n_bytes && is_going;) {
        seed = seed * 1664525u + (seed ? 1013904223u : 0);
        size_t n = seed ? 1 + (seed >> 26) : n_bytes;
        if (n > n_bytes - at)
            n = n_bytes - at;
        require(send(fds[1], bytes + at, n, MSG_NOSIGNAL) == (ssize_t)n);
        at += n;
        is_going = go_on(w, &r);
    }
    close(fds[1]);
    for (int i = 0; i < 3 && is_going; i++)
        is_going = go_on(w, &r);
    require(!is_going); /* an end is an end */
    websocket_close(w);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    static char bytes[MAX_BYTES + sizeof GOOD];
    if (n_bytes < 1 || n_bytes > MAX_BYTES)
        return 0;
    size_t n_head = data[0] & 1 ? sizeof GOOD - 1 : 0;
    memcpy(bytes, GOOD, n_head);
    memcpy(bytes + n_head, data + 1, n_bytes - 1);
    struct result whole = run(bytes, n_head + n_bytes - 1, 0);
    struct result pieces = run(bytes, n_head + n_bytes - 1, data[0] | 0x100u);
    require(whole.connected == pieces.connected);
    require(whole.n_messages == pieces.n_messages && whole.sum == pieces.sum);
    return 0;
}
