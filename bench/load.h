/* SPDX-License-Identifier: Apache-2.0
 *
 * load.h - drives a server: closed loop (so many requests under way at all times) or open
 * loop (so many requests a second, whether it keeps up or not).
 *
 * In an open loop a latency counts from the moment at which the request was due, not from
 * the moment at which a connection was free to send it, so a server that stalls pays for
 * every request that came due meanwhile. Retry-After is ignored: users do not read it.
 *
 * Requests due during the warm-up are not counted. Throughput is what was answered within
 * the measured time; latencies are of every request due within it, whenever it ended.
 */
#ifndef VIGIL_BENCH_LOAD_H
#define VIGIL_BENCH_LOAD_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "bench/histogram.h"
#include "bench/http_client.h"
#include "bench/texts.h"

enum load_route { ROUTE_NATIVE, ROUTE_SAGEMAKER, ROUTE_TEI, ROUTE_HUGGINGFACE };

struct load_options {
    const char *url; /* a path in it takes the place of the route's */
    enum load_route route;
    const char *api_key;  /* NULL: none is sent */
    bool wants_entities;  /* native route only */
    size_t n_connections; /* closed loop: requests under way; open loop: at most */
    double rate;          /* requests a second, open loop; 0: closed loop */
    bool is_even; /* open loop at even intervals, not at random (Poisson) ones */
    size_t batch; /* texts a request */
    int64_t duration_ns, warmup_ns, timeout_ns;
    bool is_spinning;
    const volatile sig_atomic_t *is_stopped; /* ends the measured time early; or NULL */
};

#define LOAD_CODES 600

struct load_result {
    struct histogram answered; /* latencies of code 200 */
    struct histogram engine;   /* of these, what the server says its engine took */
    struct histogram around;   /* and the rest: queue, HTTP, JSON, tokens, the wire */
    struct histogram refused;  /* of 429 and 503 */
    struct histogram failed;   /* of all other codes */
    uint64_t codes[LOAD_CODES];
    uint64_t outcomes[N_HTTP_OUTCOMES]; /* requests that were sent */
    uint64_t n_due;                     /* within the measured time */
    uint64_t n_unsent; /* open loop: due, but no connection was free in time */
    uint64_t n_requests_in_time, n_texts_in_time; /* answered 200 within it */
    double seconds;                               /* measured */
    double client_busy; /* processors that the client itself used */
};

/* The requests of a run, made once: every text of texts in turn. */
struct load_requests;
enum status load_requests_make(const struct load_options *options,
                               const struct texts *texts, struct load_requests **out,
                               struct error *err);
void load_requests_free(struct load_requests *r);

/* Sends one request first and fails when it is not answered 200 (429 and 503 are fine): a
 * wrong path or key is an error here, not a count. STATUS_CANCELLED when it was stopped
 * before the measured time. */
enum status load_run(const struct load_options *options, struct load_requests *requests,
                     struct load_result *out, struct error *err);

#endif
