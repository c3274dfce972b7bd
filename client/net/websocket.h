/* SPDX-License-Identifier: Apache-2.0
 *
 * websocket.h - a client that listens to a WebSocket server (RFC 6455) and sends nothing but
 * what the protocol asks for: pongs and close frames. The one place that includes wslay, and
 * curl for sockets.
 *
 * curl connects (CURLOPT_CONNECT_ONLY: name, proxy, TLS 1.2 at least, always verified,
 * HTTP/1.1 by ALPN); the handshake is ours; wslay reads frames. Text messages alone: a binary
 * one is refused with 1003. What is against the protocol is refused with 1002, bad UTF-8 with
 * 1007, and the connection ends.
 *
 * Limits:     a handshake answer of 16 KiB; messages longer than max_message_bytes come cut,
 *             beyond sixteen times that they end the connection (1009).
 * Threads:    one a struct websocket.
 * Call order: open connect+ read* close
 */
#ifndef VIGIL_CLIENT_NET_WEBSOCKET_H
#define VIGIL_CLIENT_NET_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/view.h"

struct websocket;

struct websocket_options {
    const char *url;     /* wss://host[:port]/path?query */
    const char *ca_file; /* PEM instead of the system's; NULL */
    bool allows_plain;   /* ws:// to a loopback address */
    int wake_fd; /* a wait ends with STATUS_CANCELLED once this is readable; -1 */
    size_t max_message_bytes; /* 0: 1 MiB */
    int64_t connect_ns;       /* name, TCP, TLS, handshake in all; 0: 10 s */

    /* What stands in for curl and the generator where bytes are given (tests, fuzzing): a
     * connected socket, which is closed by close, and a handshake key. */
    bool has_fd;
    int fd;
    const char *key;
};

/* Checks the URL; nothing is sent yet. STATUS_INVALID, STATUS_NO_MEMORY. */
enum status websocket_open(const struct websocket_options *options,
                           struct websocket **out, struct error *err);

/* Connects and shakes hands.
 * STATUS_OK           the connection is open
 * STATUS_TIMEOUT      deadline_ns (clock_now_ns) came first: call again to go on
 * STATUS_CANCELLED    woken through wake_fd: call again, or close
 * STATUS_IO           no connection, or one that broke, or connect_ns is over
 * STATUS_UNSUPPORTED  the server answered with another code than 101: websocket_code
 * STATUS_INVALID      what answers is no WebSocket server */
enum status websocket_connect(struct websocket *w, int64_t deadline_ns,
                              struct error *err);
/* Of the server's answer; 0 without one. */
int websocket_code(const struct websocket *w);
int64_t websocket_retry_after_ns(const struct websocket *w); /* -1: none */

struct websocket_message {
    struct view bytes; /* UTF-8, good until the next call */
    bool is_cut;       /* was longer than max_message_bytes */
};

/* The next text message. Pings are answered on the way.
 * STATUS_OK
 * STATUS_TIMEOUT    none until deadline_ns
 * STATUS_CANCELLED  woken through wake_fd
 * STATUS_NOT_FOUND  the server has closed; the message tells its code
 * STATUS_IO         the connection broke
 * STATUS_INVALID    the server broke the protocol
 * After one of the last three the connection is over. */
enum status websocket_read(struct websocket *w, int64_t deadline_ns,
                           struct websocket_message *out, struct error *err);

/* Bytes that have come, of whatever kind, and when the last did (clock_now_ns; 0: never). */
int64_t websocket_n_bytes(const struct websocket *w);
int64_t websocket_last_byte_ns(const struct websocket *w);

/* Of an open connection: the close handshake, waited for half a second at most. */
void websocket_close(struct websocket *w);

#endif
