/* SPDX-License-Identifier: Apache-2.0 */
#include "server/request.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"

/* jansson's values beside the body itself: what call_parse may take. */
#define JSON_BYTES_A_VALUE 160
#define MAX_REPLY_BYTES (256u << 20)

static const char DEAD[] = "a device failed; this server ends";

/* ---- head ---- */

static const struct dialect *dialect_of(enum route route) {
    static const struct dialect *const DIALECTS[ROUTE_COUNT] = {
        [ROUTE_CLASSIFY] = &dialect_native,   [ROUTE_INVOCATIONS] = &dialect_sagemaker,
        [ROUTE_PREDICT] = &dialect_tei,       [ROUTE_PIPELINE] = &dialect_huggingface,
        [ROUTE_TOKENIZE] = &dialect_tokenize,
    };
    return DIALECTS[route];
}

static bool is_named(const char *value, size_t n, const char *name) {
    return n == strlen(name) && strncasecmp(value, name, n) == 0;
}

/* The type without its parameters; of these, a charset must be UTF-8. */
static enum media_type media_type_of(const char *value, bool *is_utf8) {
    *is_utf8 = true;
    if (!value)
        return MEDIA_JSON;
    size_t n = strcspn(value, "; \t");
    const char *charset = strcasestr(value + n, "charset=");
    if (charset) {
        charset += strlen("charset=");
        charset += *charset == '"';
        *is_utf8 = strncasecmp(charset, "utf-8", 5) == 0 ||
                   strncasecmp(charset, "utf8", 4) == 0 ||
                   strncasecmp(charset, "us-ascii", 8) == 0;
    }
    if (is_named(value, n, "application/json"))
        return MEDIA_JSON;
    if (is_named(value, n, "application/jsonlines") ||
        is_named(value, n, "application/x-ndjson"))
        return MEDIA_LINES;
    if (is_named(value, n, "text/plain"))
        return MEDIA_TEXT;
    return MEDIA_OTHER;
}

static void check_media_type(struct request *r, const char *value) {
    bool is_utf8;
    const struct dialect *dialect = dialect_of(r->route);
    r->media_type = media_type_of(value, &is_utf8);
    /* boto3 sends none or this one when it is not told. */
    if (r->route == ROUTE_INVOCATIONS && r->media_type == MEDIA_OTHER &&
        (strcasecmp(value, "application/octet-stream") == 0 ||
         strcasecmp(value, "binary/octet-stream") == 0))
        r->media_type = MEDIA_JSON;
    if (!(dialect->media_types & 1u << r->media_type) || r->media_type == MEDIA_OTHER)
        fault_set(
            &r->fault, FAULT_MEDIA_TYPE, "Content-Type must be application/json%s",
            r->route == ROUTE_INVOCATIONS ? ", application/jsonlines or text/plain"
                                          : "");
    else if (!is_utf8)
        fault_set(&r->fault, FAULT_MEDIA_TYPE, "the charset must be utf-8");
}

void request_make_id(char out[REQUEST_ID_BYTES]) {
    static atomic_uint_fast64_t n_made;
    snprintf(out, REQUEST_ID_BYTES, "%08llx-%06llx",
             (unsigned long long)(clock_wall_ns() / CLOCK_NS_PER_SECOND),
             (unsigned long long)atomic_fetch_add(&n_made, 1));
}

/* What a client sent, when it can go into a header and a log as it is; else one of our own. */
static void set_id(struct request *r, const char *sent) {
    size_t n = sent ? strlen(sent) : 0;
    size_t n_good =
        sent ? strspn(sent, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVW"
                            "XYZ0123456789-_.")
             : 0;
    if (n > 0 && n == n_good && n < sizeof r->id)
        memcpy(r->id, sent, n + 1);
    else
        request_make_id(r->id);
}

/* Everything that can be said before the body comes. */
static void check_head(struct request *r, const struct request_head *head) {
    const struct service_options *options = service_options(r->service);
    r->route = route_find(head->method, head->path, &r->fault, &r->allow);
    if (r->fault.kind != FAULT_NONE)
        return;
    if (options->auth && !route_is_open(r->route) &&
        !auth_allows(options->auth, head->authorization, head->api_key)) {
        fault_set(&r->fault, FAULT_UNAUTHORIZED, "a valid API key is needed");
        return;
    }
    if (!route_is_post(r->route))
        return;
    if (!head->has_length) {
        fault_set(&r->fault, FAULT_LENGTH_REQUIRED, "POST needs Content-Length");
        return;
    }
    if (head->content_length > options->limits.json.max_bytes) {
        fault_set(&r->fault, FAULT_TOO_LARGE,
                  "the body has %llu bytes, the limit is %zu (--max-body)",
                  (unsigned long long)head->content_length,
                  options->limits.json.max_bytes);
        return;
    }
    check_media_type(r, head->content_type);
    if (r->fault.kind != FAULT_NONE)
        return;
    if (batcher_has_died(service_batcher(r->service), NULL)) {
        fault_set(&r->fault, FAULT_ENGINE, "%s", DEAD);
        return;
    }
    r->served = service_acquire(r->service);
    if (!r->served)
        fault_set(&r->fault, FAULT_NOT_READY, "the model is not loaded yet");
    else if (r->route != ROUTE_TOKENIZE && batcher_is_full(service_batcher(r->service)))
        fault_set(&r->fault, FAULT_OVERLOADED, "the queue is full, try again");
}

static bool reserve(void *context, size_t n_bytes) {
    struct request *r = context;
    if (!service_reserve(r->service, n_bytes))
        return false;
    r->n_reserved += n_bytes;
    return true;
}

static void give_back(struct request *r) {
    service_give_back(r->service, r->n_reserved);
    r->n_reserved = 0;
}

struct request *request_open(struct service *service, const struct request_head *head) {
    struct request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->service = service;
    r->opened_ns = clock_now_ns();
    r->method = strcmp(head->method, "GET") == 0    ? "GET"
                : strcmp(head->method, "POST") == 0 ? "POST"
                : strcmp(head->method, "HEAD") == 0 ? "HEAD"
                                                    : "other";
    r->content_length = head->content_length;
    r->reply.max_bytes = MAX_REPLY_BYTES;
    set_id(r, head->request_id);
    check_head(r, head);
    if (r->fault.kind != FAULT_NONE || !route_is_post(r->route))
        return r;
    if (!reserve(r, (size_t)head->content_length)) {
        fault_set(&r->fault, FAULT_OVERLOADED,
                  "no memory left for requests in flight (--memory), try again");
        return r;
    }
    r->body = malloc((size_t)head->content_length + 1);
    if (!r->body)
        fault_set(&r->fault, FAULT_OVERLOADED, "no memory for the body");
    return r;
}

void request_close(struct request *r) {
    if (!r)
        return;
    if (r->has_call)
        call_free(&r->call);
    give_back(r);
    service_release(r->served);
    free(r->body);
    buffer_free(&r->reply);
    free(r);
}

void request_add_body(struct request *r, const char *data, size_t n_bytes) {
    if (r->fault.kind != FAULT_NONE || !r->body ||
        n_bytes > r->content_length - r->n_body)
        return;
    memcpy(r->body + r->n_body, data, n_bytes);
    r->n_body += n_bytes;
}

/* ---- reply ---- */

static void reply_fault(struct request *r) {
    struct error err = {0};
    buffer_clear(&r->reply);
    r->code = fault_code(r->fault.kind);
    r->content_type = "application/json";
    (void)fault_write(&r->fault, &r->reply, &err);
}

static void end_reply(struct request *r) {
    if (r->fault.kind != FAULT_NONE)
        reply_fault(r);
    r->is_replied = true;
    r->replied_ns = clock_now_ns();
}

static void reply_get(struct request *r) {
    struct error err = {0};
    enum status status = STATUS_OK;
    bool is_ready = service_is_ready(r->service);
    r->code = 200;
    r->content_type = "application/json";
    switch (r->route) {
    case ROUTE_INDEX:
        status = service_write_index(r->service, &r->reply, &err);
        break;
    case ROUTE_INFO:
        status = service_write_info(r->service, &r->reply, &err);
        break;
    case ROUTE_METRICS:
        r->content_type = "text/plain; version=0.0.4; charset=utf-8";
        status = service_write_metrics(r->service, &r->reply, &err);
        break;
    case ROUTE_OPENAPI:
        status = buffer_append(&r->reply, service_openapi,
                               (size_t)(service_openapi_end - service_openapi), &err);
        break;
    case ROUTE_READY:
        if (is_ready)
            status = buffer_printf(&r->reply, &err, "{\"status\":\"ready\"}");
        /* fall through */
    case ROUTE_PING:
        if (!is_ready)
            fault_set(&r->fault, FAULT_NOT_READY,
                      service_is_draining(r->service) ? "the server is draining"
                                                      : "the model is not ready");
        break;
    case ROUTE_HEALTH:
        if (batcher_state(service_batcher(r->service)).has_failed)
            fault_set(&r->fault, FAULT_ENGINE, "%s",
                      batcher_has_died(service_batcher(r->service), NULL)
                          ? DEAD
                          : "the engine's last batch failed");
        break;
    default:
        break;
    }
    if (status != STATUS_OK)
        fault_set(&r->fault, FAULT_INTERNAL, "no memory for the answer");
}

static void reply_call(struct request *r) {
    struct error err = {0};
    r->code = 200;
    r->content_type = r->call.is_lines ? "application/jsonlines" : "application/json";
    if (dialect_of(r->route)->write(&r->call, &r->reply, &err) != STATUS_OK)
        fault_set(&r->fault, FAULT_INTERNAL, "no memory for the answer");
}

static void count_texts(const struct request *r) {
    struct metrics *metrics = service_metrics(r->service);
    const struct model_config *config = &r->call.job.bundle->config;
    for (size_t i = 0; i < r->call.n_texts; i++) {
        const struct text *text = &r->call.texts[i];
        if (text->fault.kind != FAULT_NONE)
            metrics_bad_text(metrics);
        else
            metrics_text(metrics, config->labels[text->answer.label],
                         text->windows.is_truncated, text->windows.n_unknown);
    }
}

/* ---- way of a request ---- */

/* Reads the body; true when the texts are ready for the engine. */
static bool read_call(struct request *r) {
    const struct service_options *options = service_options(r->service);
    struct bundle *bundle = r->served->bundle;
    r->has_call = true;
    call_open(&r->call, &options->limits);
    size_t n_values = options->limits.json.max_values;
    if (r->n_body / 2 < n_values)
        n_values = r->n_body / 2;
    if (!reserve(r, r->n_body + n_values * JSON_BYTES_A_VALUE))
        return fault_set(&r->fault, FAULT_OVERLOADED,
                         "no memory left for requests in flight (--memory), try again");
    if (!dialect_of(r->route)->read(&r->call, r->media_type, r->body, r->n_body,
                                    &r->fault))
        return false;
    if (r->route == ROUTE_TOKENIZE) {
        r->call.job.bundle = bundle;
        for (size_t i = 0; i < r->call.n_texts && !r->call.is_list; i++)
            if (r->call.texts[i].fault.kind != FAULT_NONE) {
                r->fault = r->call.texts[i].fault;
                r->fault.kind = FAULT_UNUSABLE;
            }
        return r->fault.kind == FAULT_NONE;
    }
    return call_prepare(&r->call, bundle, reserve, r, &r->fault);
}

bool request_start(struct request *r) {
    r->started_ns = clock_now_ns();
    if (r->fault.kind == FAULT_NONE && !route_is_post(r->route))
        reply_get(r);
    else if (r->fault.kind == FAULT_NONE && r->n_body != r->content_length)
        fault_set(&r->fault, FAULT_MALFORMED,
                  "the body is shorter than Content-Length");
    else if (r->fault.kind == FAULT_NONE && read_call(r)) {
        if (r->route != ROUTE_TOKENIZE && r->call.job.n_sequences > 0)
            return true;
        if (r->route != ROUTE_TOKENIZE)
            count_texts(r);
        reply_call(r);
    }
    end_reply(r);
    return false;
}

bool request_submit(struct request *r, void (*on_done)(struct job *job)) {
    struct job *job = &r->call.job;
    job->on_done = on_done;
    job->deadline_ns = r->opened_ns + service_options(r->service)->timeout_ns;
    if (batcher_submit(service_batcher(r->service), job))
        return true;
    if (job->outcome == FAULT_OVERLOADED)
        fault_set(&r->fault, FAULT_OVERLOADED, "the queue is full, try again");
    return false;
}

/* How its job ended. What an engine said before it was found out is not passed on. */
static enum fault_kind outcome_of(const struct request *r) {
    if (r->fault.kind != FAULT_NONE)
        return FAULT_KINDS; /* it was never queued, and says why */
    return batcher_has_died(service_batcher(r->service), NULL) ? FAULT_ENGINE
                                                               : r->call.job.outcome;
}

void request_finish(struct request *r) {
    switch (outcome_of(r)) {
    case FAULT_NONE:
        if (call_answer(&r->call, &r->fault)) {
            count_texts(r);
            reply_call(r);
        }
        break;
    case FAULT_KINDS:
        break;
    case FAULT_TIMEOUT:
        fault_set(&r->fault, FAULT_TIMEOUT,
                  "no answer within %.3g s (--timeout), try again",
                  (double)service_options(r->service)->timeout_ns * 1e-9);
        break;
    case FAULT_ENGINE:
        fault_set(&r->fault, FAULT_ENGINE, "the engine failed");
        break;
    case FAULT_CLIENT_GONE:
        fault_set(&r->fault, FAULT_CLIENT_GONE, "the client has gone");
        break;
    default:
        fault_set(&r->fault, FAULT_NOT_READY, "the server is stopping");
        break;
    }
    end_reply(r);
}

struct request *request_of_job(struct job *job) {
    return (struct request *)((char *)job - offsetof(struct request, call.job));
}

static double ms(int64_t from_ns, int64_t to_ns) {
    return to_ns > from_ns && from_ns ? (double)(to_ns - from_ns) * 1e-6 : 0;
}

void request_timing(const struct request *r, char *out, size_t cap_bytes) {
    const struct job *job = &r->call.job;
    int64_t parsed_ns =
        r->has_call && job->submitted_ns ? job->submitted_ns : r->replied_ns;
    snprintf(out, cap_bytes, "parse;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f",
             ms(r->started_ns, parsed_ns), ms(job->submitted_ns, job->started_ns),
             ms(job->started_ns, job->finished_ns));
}

void request_log(const struct request *r, int code) {
    int64_t spent_ns = clock_now_ns() - r->opened_ns;
    metrics_request(service_metrics(r->service), (int32_t)r->route, code, spent_ns);
    if (!service_options(r->service)->logs_requests)
        return;
    struct log_line line;
    log_begin(&line, code >= 500 && code != 503 ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO,
              "request");
    log_string(&line, "method", r->method);
    log_string(&line, "route", route_name(r->route));
    log_integer(&line, "code", code);
    if (r->fault.kind != FAULT_NONE)
        log_string(&line, "error", fault_type(r->fault.kind));
    log_integer(&line, "bytes_in", (int64_t)r->n_body);
    log_integer(&line, "bytes_out", (int64_t)r->reply.n_bytes);
    if (r->has_call) {
        log_integer(&line, "texts", (int64_t)r->call.n_texts);
        log_integer(&line, "tokens", r->call.job.n_tokens);
        log_number(&line, "queue_ms",
                   ms(r->call.job.submitted_ns, r->call.job.started_ns));
        log_number(&line, "compute_ms",
                   ms(r->call.job.started_ns, r->call.job.finished_ns));
    }
    log_number(&line, "ms", (double)spent_ns * 1e-6);
    log_string(&line, "request_id", r->id);
    log_end(&line);
}
