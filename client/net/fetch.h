/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch.h - HTTP as a client: one request with its answer, or a stream that does not end. The
 * one place of the client that includes curl for HTTP.
 *
 * TLS 1.2 at least, always verified; no redirects; http:// only where allows_plain says so;
 * secrets never in a message or a log.
 *
 * Threads: one a struct fetch. Call order: open (run | (start read* stop))* close
 */
#ifndef VIGIL_CLIENT_NET_FETCH_H
#define VIGIL_CLIENT_NET_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"

struct fetch;

struct fetch_options {
    const char *ca_file; /* PEM instead of the system's; NULL */
    bool
        allows_plain; /* http:// to any address (the classifier), not for tokens abroad */
    bool plain_loopback_only; /* http:// to a loopback address alone */
    int wake_fd; /* a wait ends with STATUS_CANCELLED once this is readable; -1 */
    int64_t connect_ns; /* 0: 2 s; with TLS 3 s more */
};

struct fetch_request {
    const char *method; /* "GET" */
    const char *url;
    const char *content_type; /* of the body; NULL without one */
    struct view body;
    const char *bearer;      /* token of `Authorization: Bearer`; NULL */
    const char *basic;       /* "user:password"; NULL */
    const char *accept;      /* NULL: any */
    const char *traceparent; /* NULL */
    int64_t timeout_ns;      /* of the whole (run), of the head (start) */
    size_t max_answer_bytes; /* 0: 8 MiB */
};

/* How far it went when there is no answer. */
enum fetch_failure {
    FETCH_ANSWERED,
    FETCH_NOT_CONNECTED, /* nothing was sent: refused, unreachable, no name, TLS failed */
    FETCH_BROKEN,        /* reset or ended within */
    FETCH_TIMED_OUT,
    FETCH_TOO_LARGE
};

struct fetch_answer {
    enum fetch_failure failure;
    int code;               /* 0 without an answer */
    struct buffer body;     /* max_bytes is set by run; the caller frees it */
    int64_t retry_after_ns; /* of Retry-After, seconds or a date; -1: none */
    int64_t rate_reset_s;   /* of x-rate-limit-reset: seconds since 1970; 0: none */
    char content_type[64];
    bool is_certificate_bad; /* NOT_CONNECTED because of it: no use in trying again */
};

enum status fetch_open(const struct fetch_options *options, struct fetch **out,
                       struct error *err);
void fetch_close(struct fetch *f);

/* May this be asked? STATUS_INVALID says why not, as a request would. */
enum status fetch_check(struct fetch *f, const char *url, struct error *err);

/* One request over a kept connection. STATUS_OK whenever *answer says what happened, be it a
 * 500 or no connection; STATUS_CANCELLED, STATUS_NO_MEMORY, STATUS_INVALID (of the URL). The
 * message of a failure (not of secrets) is in *err even when STATUS_OK is returned. */
enum status fetch_run(struct fetch *f, const struct fetch_request *request,
                      struct fetch_answer *answer, struct error *err);

/* Begins a stream: returns when the head has come. A code other than 200 is read to its end,
 * as by run. */
enum status fetch_start(struct fetch *f, const struct fetch_request *request,
                        struct fetch_answer *answer, struct error *err);
/* The next bytes, at least one; good until the next call.
 * STATUS_OK, STATUS_TIMEOUT at deadline_ns, STATUS_NOT_FOUND: the server has ended it,
 * STATUS_IO: the connection broke, STATUS_CANCELLED. */
enum status fetch_read(struct fetch *f, int64_t deadline_ns, struct view *out,
                       struct error *err);
/* Closes the connection in an orderly way (TLS close_notify, FIN). */
void fetch_stop(struct fetch *f);

/* Reads a secret: one line of a file that nobody else may read, into memory that is not
 * swapped or dumped. Freed with fetch_secret_free, which wipes it. */
enum status fetch_secret(const char *path, char **out, struct error *err);
/* The same of text that came otherwise; wipe that. */
enum status fetch_secret_of(struct view text, char **out, struct error *err);
void fetch_secret_free(char *secret);

#endif
