/* SPDX-License-Identifier: Apache-2.0
 *
 * http_client.h - many HTTP/1.1 keep-alive connections in one thread, for little CPU: what a
 * load generator spends, the server beside it lacks.
 *
 * Plain TCP, one request under way a connection, requests as ready-made bytes. A connection
 * is opened by its first request and opened again by the next one when it was closed.
 *
 * Threads:    one.
 * Call order: open (send | wait)* close
 */
#ifndef VIGIL_BENCH_HTTP_CLIENT_H
#define VIGIL_BENCH_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "bench/http_answer.h"

#define HTTP_HOST_BYTES 256
#define HTTP_PATH_BYTES 1024

struct http_url {
    char host[HTTP_HOST_BYTES]; /* without the brackets of an IPv6 address */
    char port[8];
    char path[HTTP_PATH_BYTES];           /* "/" at least, query included */
    char authority[HTTP_HOST_BYTES + 16]; /* what the Host header says */
};

/* Takes "http://host[:port][/path]" apart. STATUS_UNSUPPORTED for https. */
enum status http_url_parse(const char *text, struct http_url *out, struct error *err);

enum http_outcome {
    HTTP_ANSWERED,
    HTTP_NOT_CONNECTED, /* refused, reset or unreachable before a byte was sent */
    HTTP_CLOSED,        /* the connection ended before the answer did */
    HTTP_GARBAGE,       /* not an HTTP answer, or one too large */
    HTTP_TIMED_OUT,
    N_HTTP_OUTCOMES
};
const char *http_outcome_name(enum http_outcome outcome); /* "timed out" */

struct http_client_options {
    const char *host, *port;
    size_t n_connections;
    int64_t timeout_ns;      /* from send to the last byte of the answer */
    size_t max_answer_bytes; /* 0: 64 MiB */
    bool is_spinning;        /* wait without sleeping: takes a whole processor */
    /* A request is over; *answer (NULL unless HTTP_ANSWERED) is good until it returns. May
     * send on any idle connection, this one included. */
    void (*on_done)(void *user, size_t connection, enum http_outcome outcome,
                    const struct http_answer *answer);
    void *user;
};

struct http_client;

/* Resolves the name and connects once, so that an unreachable server is an error here.
 * *out is owned by the caller. */
enum status http_client_open(const struct http_client_options *options,
                             struct http_client **out, struct error *err);
void http_client_close(struct http_client *c);

/* Sends request [n_bytes] on an idle connection; the bytes must stay until it is over.
 * Whatever goes wrong is told by on_done, from a later http_client_wait. */
void http_client_send(struct http_client *c, size_t connection, const char *request,
                      size_t n_bytes);

/* Waits until until_ns (clock_now_ns) at most, serves what has arrived by then, calls
 * on_done. May return early. */
enum status http_client_wait(struct http_client *c, int64_t until_ns,
                             struct error *err);

size_t http_client_n_busy(const struct http_client *c);

#endif
