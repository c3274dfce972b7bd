/* SPDX-License-Identifier: Apache-2.0
 *
 * http.h - the service over HTTP/1.1. http.c is the one place that includes microhttpd.h.
 *
 * A pool of threads, each with an epoll of its own, reads requests and writes answers. A
 * request that waits for the engine is suspended: it takes no thread. The batcher resumes it.
 *
 * Call order: listen open (sweep) drain… close
 */
#ifndef VIGIL_SERVER_HTTP_H
#define VIGIL_SERVER_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "server/service.h"

struct http_options {
    struct service *service;
    int listen_fd; /* from http_listen; http takes it over */
    int32_t n_threads;
    int32_t max_connections, max_per_address;
    int64_t idle_ns; /* a connection without a request is closed after it */
    const char *tls_certificate, *tls_key; /* PEM text; NULL: no TLS */
};

struct http;

/* Binds and listens. host is an address or a name; port 0 takes a free one; *port is the one
 * that it is. is_public: others than this machine can reach it. */
enum status http_listen(const char *host, int32_t *port, int *fd, bool *is_public,
                        struct error *err);

enum status http_open(const struct http_options *options, struct http **out,
                      struct error *err);
/* Stops to accept. What is connected already is served on, each answer with Connection:
 * close. */
void http_drain(struct http *h);
/* No request may be suspended: the batcher has failed or answered all of them. */
void http_close(struct http *h);

#endif
