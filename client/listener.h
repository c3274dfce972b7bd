/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.h - a small HTTP server for the client's programs: /metrics, /health, and posts
 * that are pushed. Not for crowds: a thread a connection, at most LISTENER_CONNECTIONS.
 *
 * What comes goes through the same strict reader as the server's requests (the gate). An
 * address that is not loopback needs keys.
 *
 * Threads: handlers are called on the connections' threads and may wait.
 */
#ifndef VIGIL_CLIENT_LISTENER_H
#define VIGIL_CLIENT_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"

#define LISTENER_CONNECTIONS 64

struct listener_request {
    struct view method, path, query; /* path without the query */
    struct view content_type;        /* empty: none was sent */
    struct view body;
};

struct listener_answer {
    int code;                 /* 200 unless changed */
    const char *content_type; /* a constant; NULL: application/json */
    struct buffer body;
    int64_t retry_after_s; /* 0: none */
};

struct listener_route {
    const char *method, *path;
    bool needs_key; /* when there are keys */
    void (*handle)(void *context, const struct listener_request *request,
                   struct listener_answer *answer);
    void *context;
};

struct listener_options {
    const char *address;   /* "127.0.0.1:9100", "[::1]:0", ":9100" (loopback) */
    const char *keys;      /* file of API keys, as the server's --api-keys; NULL */
    size_t max_body_bytes; /* 0: 6 MiB */
    const struct listener_route *routes;
    size_t n_routes;
};

struct listener;
enum status listener_open(const struct listener_options *options, struct listener **out,
                          struct error *err);
int listener_port(const struct listener *l);
/* Takes no more, waits for handlers (at most 5 s), closes. */
void listener_close(struct listener *l);

#endif
