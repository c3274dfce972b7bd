/* SPDX-License-Identifier: Apache-2.0
 *
 * request.h - one HTTP request, apart from HTTP: checked, read, queued, answered.
 *
 *   head ─► request_open ─► body ─► request_start ─┬─────────────────────► reply
 *                                                  └─► request_submit …
 *                                                        (batcher, on_done) ─► request_finish ─► reply
 *
 * A request that cannot be served is answered as soon as it is known why; its body is then
 * thrown away as it comes.
 *
 * Threads:    the one that has the connection; on_done is called by another.
 * Call order: open add_body* start [submit (on_done) finish] reply… close
 */
#ifndef VIGIL_SERVER_REQUEST_H
#define VIGIL_SERVER_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/call.h"
#include "server/dialect.h"
#include "server/routes.h"
#include "server/service.h"

#define REQUEST_ID_BYTES 65

/* What the head says. Strings are the connection's; NULL: no such header. */
struct request_head {
    const char *method, *path, *content_type, *authorization, *api_key, *request_id;
    uint64_t content_length;
    bool has_length;
};

struct request {
    struct service *service;
    enum route route;
    const char *method, *allow; /* constants */
    char id[REQUEST_ID_BYTES];
    struct fault fault;
    enum media_type media_type;
    uint64_t content_length;
    char *body;
    size_t n_body, n_reserved;
    bool has_call;
    struct call call; /* call.job is what the batcher knows */
    struct served *served;
    int64_t opened_ns, started_ns, replied_ns;
    void *context; /* of whoever suspends and resumes it */
    /* The reply. */
    int code;
    const char *content_type;
    struct buffer reply;
    bool is_replied;
};

/* An id that no other request of this process has. Any thread. */
void request_make_id(char out[REQUEST_ID_BYTES]);

/* *out is owned by the caller (request_close). NULL when there is no memory at all. */
struct request *request_open(struct service *service, const struct request_head *head);
void request_close(struct request *r);

void request_add_body(struct request *r, const char *data, size_t n_bytes);

/* The body is whole: reads it. True: r->call.job is ready for request_submit; false: the
 * reply is there. */
bool request_start(struct request *r);
/* Hands the job to the batcher, which calls on_done. False: it was refused, and
 * request_finish makes the reply. */
bool request_submit(struct request *r, void (*on_done)(struct job *job));
/* The job is done: makes the reply. */
void request_finish(struct request *r);

struct request *request_of_job(struct job *job);

/* "parse;dur=0.1, queue;dur=0.2, compute;dur=3.4", in milliseconds. */
void request_timing(const struct request *r, char *out, size_t cap_bytes);
/* Counts the request and writes its line of the log. code: what was sent. */
void request_log(const struct request *r, int code);

#endif
