/* SPDX-License-Identifier: Apache-2.0
 *
 * websocket_handshake.h - the HTTP/1.1 exchange that begins a WebSocket (RFC 6455, 4): keys,
 * and whether a server's answer is the one to ours. Pure functions, but for the random key.
 */
#ifndef VIGIL_CLIENT_NET_WEBSOCKET_HANDSHAKE_H
#define VIGIL_CLIENT_NET_WEBSOCKET_HANDSHAKE_H

#include <stdint.h>

#include "base/status.h"
#include "base/view.h"

#define WEBSOCKET_KEY_BYTES 25    /* 16 random bytes in base64, and a NUL */
#define WEBSOCKET_ACCEPT_BYTES 29 /* SHA-1 in base64, and a NUL */
#define WEBSOCKET_HEAD_BYTES 16384

enum status websocket_handshake_key(char out[WEBSOCKET_KEY_BYTES], struct error *err);

/* What a server must answer to a key: base64(SHA-1(key, RFC 6455's constant)). */
void websocket_handshake_accept(const char *key, char out[WEBSOCKET_ACCEPT_BYTES]);

/* How long the head is that bytes begin with, its empty line included; 0: not whole yet. */
size_t websocket_handshake_end(struct view bytes);

struct websocket_answer {
    int code;              /* of the status line; 0: there is none */
    int64_t retry_after_s; /* -1: none, or a date */
};

/* Checks the head of an answer: status 101, Upgrade, Connection, Sec-WebSocket-Accept, and no
 * extension or protocol, since we ask for none.
 * STATUS_UNSUPPORTED  another status than 101 (*out tells it)
 * STATUS_INVALID      not the answer of a WebSocket server to this key */
enum status websocket_handshake_check(struct view head, const char *key,
                                      struct websocket_answer *out, struct error *err);

#endif
