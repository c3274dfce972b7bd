/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.h - a small HTTP server for the client's programs: /metrics, /health, and posts
 * that are pushed. Not for crowds: a thread a connection, at most LISTENER_CONNECTIONS.
 *
 * What comes goes through the same strict reader as the server's requests (the gate). An
 * address that is not loopback needs keys. Answers other than 2xx hold {"error","error_type"}
 * as the server's do.
 *
 * libmicrohttpd is not used here. A handler may block until posts are durable, which asks for
 * a thread a connection in any case; the gate must see every byte before anything else reads
 * it; and what is left of HTTP/1.1 after the gate is a line to split and headers to write.
 *
 * Limits: a head 5 s, a body 10 s, an answer 10 s, 30 s between requests; bodies under way 64
 * MiB in all, then 429; connections beyond LISTENER_CONNECTIONS are answered 503.
 * Threads: handlers are called on the connections' threads and may wait.
 */
#ifndef VIGIL_CLIENT_NET_LISTENER_H
#define VIGIL_CLIENT_NET_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fault.h"
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
    const char *method, *path; /* GET answers HEAD too */
    bool needs_key;            /* when there are keys */
    /* answer->body has its max_bytes set and is freed by the listener. */
    void (*handle)(void *context, const struct listener_request *request,
                   struct listener_answer *answer);
    void *context;
};

struct listener_options {
    const char *address;   /* "127.0.0.1:9100", "[::1]:0", ":9100" (loopback) */
    const char *keys;      /* file of API keys, as the server's --api-keys; NULL */
    size_t max_body_bytes; /* 0: 6 MiB */
    int64_t head_ns, body_ns, idle_ns; /* 0: the limits above */
    const struct listener_route *routes;
    size_t n_routes;
};

struct listener;
enum status listener_open(const struct listener_options *options, struct listener **out,
                          struct error *err);
int listener_port(const struct listener *l);

/* For handlers: the answer becomes that of the fault, {"error","error_type"}. */
void listener_refuse(struct listener_answer *answer, enum fault_kind kind,
                     const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Takes no more, lets handlers end and their answers leave for 5 s, then cuts connections.
 * A handler that waits for more must be woken by its owner before: its thread is waited for
 * as long as it runs, since it uses the owner's memory. */
void listener_close(struct listener *l);

#endif
