/* SPDX-License-Identifier: Apache-2.0
 *
 * service.h - what all requests share: the model that serves, the queue, the counters, the
 * limits, and whether the server is ready.
 *
 * A model is served by reference: a request takes the one that serves when it is parsed and
 * keeps it until it is answered, so that a reload drops nothing. The last reference closes
 * the model.
 *
 * Threads: any, but for open and close. service_load is for one thread at a time.
 */
#ifndef VIGIL_SERVER_SERVICE_H
#define VIGIL_SERVER_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/auth.h"
#include "server/batcher.h"
#include "server/call.h"
#include "server/metrics.h"

struct service_options {
    struct call_limits limits;
    size_t max_memory_bytes; /* of requests in flight */
    int64_t timeout_ns;      /* of a request, from its head to its answer */
    struct auth *auth;       /* NULL: no keys; the caller's */
    struct batcher_options batcher;
    bool logs_requests;
};

/* A model and who uses it. */
struct served {
    struct bundle *bundle;
    _Atomic int32_t n_references;
};

struct service;

enum status service_open(const struct service_options *options, struct service **out,
                         struct error *err);
/* Every request must be done. */
void service_close(struct service *s);

const struct service_options *service_options(const struct service *s);
struct batcher *service_batcher(struct service *s);
struct metrics *service_metrics(struct service *s);

/* Opens the model and lets it serve in place of the one before. On failure the one before
 * goes on. */
enum status service_load(struct service *s, const char *model_dir,
                         const struct engine_options *engine, struct error *err);
/* The model that serves, or NULL before the first is loaded. Given back with release. */
struct served *service_acquire(struct service *s);
void service_release(struct served *served);

/* /ready: a model is loaded, its engine works, and the server is not draining. */
bool service_is_ready(struct service *s);
bool service_is_draining(struct service *s);
void service_drain(struct service *s);

/* Counts n_bytes against --memory; false, and nothing is counted, when there is no room. */
bool service_reserve(struct service *s, size_t n_bytes);
void service_give_back(struct service *s, size_t n_bytes);

/* ---- the answers of GET routes (info.c) ---- */

enum status service_write_index(struct service *s, struct buffer *out,
                                struct error *err);
enum status service_write_info(struct service *s, struct buffer *out,
                               struct error *err);
enum status service_write_metrics(struct service *s, struct buffer *out,
                                  struct error *err);

/* openapi.json, as it was built in (openapi.c). */
extern const char service_openapi[];
extern const char service_openapi_end[];

#endif
