/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"

#define MAX_REQUEST_BYTES ((size_t)1 << 30)
#define MAX_ALL_BYTES ((size_t)4 << 30)
#define MAX_SHOWN_ERROR 200
#define FAILURE_PAUSE_NS 10000000

struct request {
    char *bytes;
    size_t n_bytes, n_texts;
};

struct load_requests {
    struct http_url url;
    struct request *items;
    size_t n;
};

/* ---- requests --------------------------------------------------------------------- */

static const char *const PATHS[] = {"/v1/classify", "/invocations", "/predict", "/"};

/* The JSON of texts [n]: one text is a string, several are a list. */
static enum status put_body(struct buffer *b, const struct load_options *o,
                            const struct text *texts, size_t n, struct error *err) {
    bool is_list = o->batch > 1, is_object = o->route != ROUTE_SAGEMAKER;
    bool is_nested = is_list && o->route == ROUTE_TEI;
    enum status status = buffer_printf(b, err, "%s%s", is_object ? "{\"inputs\":" : "",
                                       is_list ? "[" : "");
    for (size_t i = 0; i < n && !status; i++) {
        status = buffer_printf(b, err, "%s%s", i ? "," : "", is_nested ? "[" : "");
        if (!status)
            status = json_append_string(b, texts[i].data, texts[i].n_bytes, err);
        if (!status && is_nested)
            status = buffer_append(b, "]", 1, err);
    }
    if (!status && is_list)
        status = buffer_append(b, "]", 1, err);
    if (!status && o->wants_entities && o->route == ROUTE_NATIVE)
        status = buffer_printf(b, err, ",\"entities\":true");
    return !status && is_object ? buffer_append(b, "}", 1, err) : status;
}

static enum status make_request(struct load_requests *r, const struct load_options *o,
                                const struct text *texts, size_t n, struct error *err) {
    struct buffer body = {.max_bytes = MAX_REQUEST_BYTES};
    struct buffer all = {.max_bytes = MAX_REQUEST_BYTES};
    bool has_path = strcmp(r->url.path, "/") != 0;
    enum status status = put_body(&body, o, texts, n, err);
    if (!status)
        status = buffer_printf(&all, err,
                               "POST %s HTTP/1.1\r\nHost: %s\r\n"
                               "Content-Type: application/json\r\n"
                               "Content-Length: %zu\r\n",
                               has_path ? r->url.path : PATHS[o->route],
                               r->url.authority, body.n_bytes);
    if (!status && o->api_key)
        status = buffer_printf(&all, err, "Authorization: Bearer %s\r\n", o->api_key);
    if (!status)
        status = buffer_append(&all, "\r\n", 2, err);
    if (!status)
        status = buffer_append(&all, body.data, body.n_bytes, err);
    buffer_free(&body);
    if (status) {
        buffer_free(&all);
        return status;
    }
    r->items[r->n++] = (struct request){all.data, all.n_bytes, n};
    return STATUS_OK;
}

enum status load_requests_make(const struct load_options *options,
                               const struct texts *texts, struct load_requests **out,
                               struct error *err) {
    struct load_requests *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the requests");
    size_t batch = options->batch, n_all = 0;
    size_t n = texts->n / batch + (texts->n % batch != 0);
    enum status status = http_url_parse(options->url, &r->url, err);
    if (!status && options->api_key && strpbrk(options->api_key, "\r\n"))
        status = error_set(err, STATUS_INVALID, "the API key holds a line break");
    if (!status && !(r->items = calloc(n, sizeof *r->items)))
        status = error_set(err, STATUS_NO_MEMORY, "no memory for %zu requests", n);
    /* The last request begins again with the first texts, so that all are alike. */
    struct text *items = status ? NULL : calloc(batch, sizeof *items);
    if (!status && !items)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for %zu texts", batch);
    for (size_t i = 0; i < n && !status; i++) {
        for (size_t j = 0; j < batch; j++)
            items[j] = texts->items[(i * batch + j) % texts->n];
        status = make_request(r, options, items, batch, err);
        if (!status && (n_all += r->items[i].n_bytes) > MAX_ALL_BYTES)
            status = error_set(err, STATUS_LIMIT,
                               "more than %zu bytes of requests: take fewer texts with "
                               "--limit",
                               MAX_ALL_BYTES);
    }
    free(items);
    if (status) {
        load_requests_free(r);
        return status;
    }
    *out = r;
    return STATUS_OK;
}

void load_requests_free(struct load_requests *r) {
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        free(r->items[i].bytes);
    free(r->items);
    free(r);
}

/* ---- one run ---------------------------------------------------------------------- */

struct flight { /* what a connection is busy with */
    const struct request *request;
    int64_t due_ns;
};

struct load {
    const struct load_options *options;
    const struct load_requests *requests;
    struct load_result *result;
    struct http_client *client;
    struct flight *flights; /* [n_connections] */
    size_t *idle;           /* a stack of connections */
    size_t n_idle;
    size_t next;              /* request */
    int64_t begin_ns, end_ns; /* of the measured time */
    int64_t due_ns;           /* of the next request, open loop */
    uint64_t random;
    int64_t pause_ns; /* closed loop: nothing is sent before */
    bool is_sending;
};

static void send_next(struct load *l, size_t connection, int64_t due_ns) {
    const struct request *q = &l->requests->items[l->next];
    l->next = (l->next + 1) % l->requests->n;
    l->flights[connection] = (struct flight){q, due_ns};
    if (due_ns >= l->begin_ns && due_ns < l->end_ns)
        l->result->n_due++;
    http_client_send(l->client, connection, q->bytes, q->n_bytes);
}

/* Nanoseconds of "compute;dur=MS" in a Server-Timing header; -1: there is none. The text
 * ends with the line, so strtod does too. */
static int64_t engine_ns(const struct http_answer *answer) {
    static const char key[] = "compute;dur=";
    const char *at = answer->timing
                         ? memmem(answer->timing, answer->n_timing, key, sizeof key - 1)
                         : NULL;
    double ms = at ? strtod(at + sizeof key - 1, NULL) : -1;
    return ms >= 0 && ms < 1e7 ? (int64_t)(ms * 1e6) : -1;
}

static void count_parts(struct load_result *r, int64_t latency_ns,
                        const struct http_answer *answer) {
    int64_t engine = engine_ns(answer);
    if (engine < 0)
        return;
    histogram_add(&r->engine, (uint64_t)engine);
    histogram_add(&r->around,
                  latency_ns > engine ? (uint64_t)(latency_ns - engine) : 0);
}

static void count(struct load *l, const struct flight *f, enum http_outcome outcome,
                  const struct http_answer *answer, int64_t now) {
    struct load_result *r = l->result;
    bool is_good = outcome == HTTP_ANSWERED && answer->code == 200;
    if (is_good && now >= l->begin_ns && now < l->end_ns) {
        r->n_requests_in_time++;
        r->n_texts_in_time += f->request->n_texts;
    }
    if (f->due_ns < l->begin_ns || f->due_ns >= l->end_ns)
        return;
    r->outcomes[outcome]++;
    if (outcome != HTTP_ANSWERED)
        return;
    r->codes[answer->code]++;
    bool is_refusal = answer->code == 429 || answer->code == 503;
    histogram_add(is_good      ? &r->answered
                  : is_refusal ? &r->refused
                               : &r->failed,
                  (uint64_t)(now - f->due_ns));
    if (is_good)
        count_parts(r, now - f->due_ns, answer);
}

static void on_done(void *user, size_t connection, enum http_outcome outcome,
                    const struct http_answer *answer) {
    struct load *l = user;
    int64_t now = clock_now_ns();
    count(l, &l->flights[connection], outcome, answer, now);
    /* A server that is gone is not asked as fast as this can run. */
    if (outcome != HTTP_ANSWERED)
        l->pause_ns = now + FAILURE_PAUSE_NS;
    if (l->is_sending && l->options->rate <= 0 && outcome == HTTP_ANSWERED)
        send_next(l, connection, now);
    else
        l->idle[l->n_idle++] = connection;
}

static double random_unit(struct load *l) {
    l->random =
        l->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(l->random >> 11) + 1) / 9007199254740993.0; /* in (0, 1] */
}

static int64_t next_interval_ns(struct load *l) {
    double even = 1e9 / l->options->rate;
    return (int64_t)(l->options->is_even ? even : -even * log(random_unit(l)));
}

/* Sends what is due; gives the moment of the next look. */
static int64_t send_due(struct load *l, int64_t now) {
    if (l->options->rate <= 0) {
        if (now < l->pause_ns)
            return l->pause_ns;
        while (l->n_idle)
            send_next(l, l->idle[--l->n_idle], now);
        return l->end_ns;
    }
    while (l->n_idle && l->due_ns <= now && l->due_ns < l->end_ns) {
        send_next(l, l->idle[--l->n_idle], l->due_ns);
        l->due_ns += next_interval_ns(l);
    }
    return l->n_idle ? l->due_ns : l->end_ns;
}

/* Requests that were due and never found a connection. */
static void count_unsent(struct load *l) {
    while (l->options->rate > 0 && l->due_ns < l->end_ns) {
        if (l->due_ns >= l->begin_ns) {
            l->result->n_due++;
            l->result->n_unsent++;
        }
        l->due_ns += next_interval_ns(l);
    }
}

static enum status drive(struct load *l, struct error *err) {
    enum status status = STATUS_OK;
    int64_t now = clock_now_ns();
    const volatile sig_atomic_t *is_stopped = l->options->is_stopped;
    while (now < l->end_ns && !status) {
        int64_t until = send_due(l, now);
        status =
            http_client_wait(l->client, until < l->end_ns ? until : l->end_ns, err);
        now = clock_now_ns();
        if (is_stopped && *is_stopped)
            l->end_ns = now;
    }
    l->is_sending = false;
    if (l->end_ns <= l->begin_ns)
        return error_set(err, STATUS_CANCELLED, "stopped before the measured time");
    count_unsent(l);
    while (http_client_n_busy(l->client) && !status) /* ends by its timeout */
        status = http_client_wait(l->client, INT64_MAX, err);
    return status;
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* ---- the first request ------------------------------------------------------------ */

struct first {
    struct error *err;
    enum status status;
};

/* "error" of a JSON answer that says why. */
static void show_refusal(struct first *f, const struct http_answer *answer) {
    const struct json_limits limits = {1 << 20, 32, 10000, 1024};
    json_t *root = NULL;
    const char *why = NULL;
    if (json_parse(answer->body, answer->n_body, &limits, &root, NULL) == STATUS_OK)
        why = json_string_value(json_object_get(root, "error"));
    f->status =
        error_set(f->err, STATUS_INVALID, "the server answers %d%s%.*s", answer->code,
                  why ? ": " : "", MAX_SHOWN_ERROR, why ? why : "");
    json_decref(root);
}

static void on_first(void *user, size_t connection, enum http_outcome outcome,
                     const struct http_answer *answer) {
    struct first *f = user;
    (void)connection;
    if (outcome != HTTP_ANSWERED)
        f->status = error_set(f->err, STATUS_IO, "the first request failed: %s",
                              http_outcome_name(outcome));
    else if (answer->code != 200 && answer->code != 429 && answer->code != 503)
        show_refusal(f, answer);
}

static enum status try_one(const struct load_requests *requests,
                           struct http_client_options options, struct error *err) {
    struct first first = {.err = err};
    struct http_client *client = NULL;
    options.n_connections = 1;
    options.on_done = on_first;
    options.user = &first;
    enum status status = http_client_open(&options, &client, err);
    if (status)
        return status;
    http_client_send(client, 0, requests->items[0].bytes, requests->items[0].n_bytes);
    while (http_client_n_busy(client) && !status)
        status = http_client_wait(client, INT64_MAX, err);
    http_client_close(client);
    if (!status)
        status = first.status;
    if (status)
        error_prefix(err, "%s", requests->url.authority);
    return status;
}

enum status load_run(const struct load_options *options, struct load_requests *requests,
                     struct load_result *out, struct error *err) {
    memset(out, 0, sizeof *out);
    struct load l = {.options = options,
                     .requests = requests,
                     .result = out,
                     .random = 1,
                     .is_sending = true};
    const struct http_client_options client = {.host = requests->url.host,
                                               .port = requests->url.port,
                                               .n_connections = options->n_connections,
                                               .timeout_ns = options->timeout_ns,
                                               .is_spinning = options->is_spinning,
                                               .on_done = on_done,
                                               .user = &l};
    enum status status = try_one(requests, client, err);
    if (status)
        return status;
    l.flights = calloc(options->n_connections, sizeof *l.flights);
    l.idle = calloc(options->n_connections, sizeof *l.idle);
    if (!l.flights || !l.idle)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for %zu connections",
                           options->n_connections);
    if (!status)
        status = http_client_open(&client, &l.client, err);
    if (!status) {
        while (l.n_idle < options->n_connections) {
            l.idle[l.n_idle] = options->n_connections - 1 - l.n_idle;
            l.n_idle++;
        }
        double cpu = cpu_seconds();
        int64_t start = l.due_ns = clock_now_ns();
        l.begin_ns = start + options->warmup_ns;
        l.end_ns = l.begin_ns + options->duration_ns;
        status = drive(&l, err);
        out->seconds = 1e-9 * (double)(l.end_ns - l.begin_ns);
        out->client_busy =
            (cpu_seconds() - cpu) / (1e-9 * (double)(clock_now_ns() - start));
    }
    http_client_close(l.client);
    free(l.flights);
    free(l.idle);
    return status;
}
