/* SPDX-License-Identifier: Apache-2.0
 *
 * classifier.c - the requests, and what the codes of their answers mean. The reading of the
 * bodies is in classifier_read.c.
 */
#include "client/worker/classifier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define ANSWER_BYTES ((size_t)16 << 20)
#define REQUEST_BYTES ((size_t)256 << 20)
#define URL_BYTES 2048
#define ERROR_TYPE_BYTES 64
/* Of a text in a request beside its bytes: {"id":511,"text":""}, */
#define TEXT_ASIDE_BYTES 24

struct classifier {
    struct fetch *fetch;
    char classify_url[URL_BYTES], info_url[URL_BYTES];
    char *api_key;
    char positive[CLASSIFIER_LABEL_BYTES];
    bool wants_entities;
    struct buffer request; /* kept from call to call */
};

const char *classifier_kind_name(enum classifier_kind kind) {
    static const char *const NAMES[] = {"ok",      "unreachable", "busy",   "unwell",
                                        "refused", "failed",      "broken", "late",
                                        "denied",  "stopped"};
    return NAMES[kind];
}

static enum status set_urls(struct classifier *c, const char *url, struct error *err) {
    size_t n = strlen(url);
    const char *host = strstr(url, "://");
    if (!host || !host[3] || host[3] == '/' || strpbrk(url, "?# "))
        return error_set(err, STATUS_INVALID,
                         "the server's URL: expected http://host:port or https://host, "
                         "with or without a path");
    while (n > 0 && url[n - 1] == '/')
        n--;
    int a = snprintf(c->classify_url, URL_BYTES, "%.*s/v1/classify", (int)n, url);
    int b = snprintf(c->info_url, URL_BYTES, "%.*s/info", (int)n, url);
    if (n >= URL_BYTES || a < 0 || a >= URL_BYTES || b < 0 || b >= URL_BYTES)
        return error_set(err, STATUS_LIMIT, "the server's URL is too long");
    return STATUS_OK;
}

enum status classifier_open(const struct classifier_options *options,
                            struct classifier **out, struct error *err) {
    struct classifier *c = calloc(1, sizeof *c);
    enum status status = STATUS_OK;
    *out = NULL;
    if (!c)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a connection");
    c->wants_entities = true;
    c->request.max_bytes = REQUEST_BYTES;
    int n = snprintf(c->positive, sizeof c->positive, "%s", options->positive);
    if (n <= 0 || (size_t)n >= sizeof c->positive)
        status = error_set(err, STATUS_INVALID, "a label has 1 to %zu bytes",
                           sizeof c->positive - 1);
    if (status == STATUS_OK)
        status = set_urls(c, options->url, err);
    if (status == STATUS_OK && options->api_key &&
        !(c->api_key = strdup(options->api_key)))
        status = error_set(err, STATUS_NO_MEMORY, "no memory for the API key");
    /* A key does not go over a network in the clear. */
    struct fetch_options how = {.ca_file = options->ca_file,
                                .allows_plain = !options->api_key,
                                .plain_loopback_only = options->api_key != NULL,
                                .wake_fd = options->wake_fd};
    if (status == STATUS_OK)
        status = fetch_open(&how, &c->fetch, err);
    if (status != STATUS_OK) {
        classifier_close(c);
        return status;
    }
    *out = c;
    return STATUS_OK;
}

void classifier_close(struct classifier *c) {
    if (!c)
        return;
    fetch_close(c->fetch);
    if (c->api_key)
        explicit_bzero(c->api_key, strlen(c->api_key));
    free(c->api_key);
    buffer_free(&c->request);
    free(c);
}

void classifier_want_entities(struct classifier *c, bool wants) {
    c->wants_entities = wants;
}

/* Controls are written as \u00XX: six bytes for one. */
size_t classifier_text_cost(struct view text) {
    size_t n = text.n_bytes + TEXT_ASIDE_BYTES;
    for (size_t i = 0; i < text.n_bytes; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        n += byte < 0x20 ? 5 : byte == '"' || byte == '\\' ? 1 : 0;
    }
    return n;
}

static enum status write_request(struct classifier *c, const struct view *texts,
                                 size_t n, struct error *err) {
    struct buffer *b = &c->request;
    buffer_clear(b);
    enum status status = buffer_append(b, "{\"inputs\":[", 11, err);
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = buffer_printf(b, err, "%s{\"id\":%zu,\"text\":", i ? "," : "", i);
        if (status == STATUS_OK)
            status = json_append_string(b, texts[i].data, texts[i].n_bytes, err);
        if (status == STATUS_OK)
            status = buffer_append(b, "}", 1, err);
    }
    if (status == STATUS_OK)
        status = buffer_printf(b, err, "],\"entities\":%s}",
                               c->wants_entities ? "true" : "false");
    return status;
}

/* "error_type" of an error's body, if it is one: letters and '_', so that nothing else gets
 * into a reason. */
static void read_error_type(const struct buffer *body, char out[ERROR_TYPE_BYTES]) {
    static const struct json_limits LIMITS = {
        .max_bytes = 4096, .max_depth = 2, .max_values = 16, .max_key_bytes = 64};
    json_t *root = NULL;
    out[0] = '\0';
    if (!body->data ||
        json_parse(body->data, body->n_bytes, &LIMITS, &root, NULL) != STATUS_OK)
        return;
    const char *type = json_string_value(json_object_get(root, "error_type"));
    size_t n = type ? strspn(type, "abcdefghijklmnopqrstuvwxyz_") : 0;
    if (n > 0 && n < ERROR_TYPE_BYTES && type[n] == '\0')
        memcpy(out, type, n + 1);
    json_decref(root);
}

static enum classifier_kind kind_of_code(int code, const char *error_type) {
    switch (code) {
    case 200:
        return CLASSIFIER_OK;
    case 400:
    case 413:
    case 422:
        return CLASSIFIER_REFUSED;
    case 401:
    case 403:
        return CLASSIFIER_DENIED;
    case 429:
        return CLASSIFIER_BUSY;
    case 500:
        return CLASSIFIER_FAILED;
    default:
        /* 503 and its kin; and 404, 415 and the like come from something that is not our
         * server, which no post can help. */
        return code == 503 && strcmp(error_type, "timeout") == 0 ? CLASSIFIER_LATE
                                                                 : CLASSIFIER_UNWELL;
    }
}

static enum classifier_kind kind_of_failure(const struct fetch_answer *got) {
    switch (got->failure) {
    case FETCH_NOT_CONNECTED:
        return got->is_certificate_bad ? CLASSIFIER_DENIED : CLASSIFIER_UNREACHABLE;
    case FETCH_BROKEN:
        return CLASSIFIER_BROKEN;
    case FETCH_TIMED_OUT:
        return CLASSIFIER_LATE;
    default:
        return CLASSIFIER_FAILED;
    }
}

/* Sends one request; fills kind, code, reason and error, as far as the code tells. */
static void send_request(struct classifier *c, const struct fetch_request *request,
                         struct fetch_answer *got, struct classifier_answer *answer) {
    char type[ERROR_TYPE_BYTES];
    *answer = (struct classifier_answer){.retry_after_ns = -1};
    enum status status = fetch_run(c->fetch, request, got, &answer->error);
    if (status != STATUS_OK) {
        /* Of the URL: it will not get better. */
        answer->kind =
            status == STATUS_INVALID ? CLASSIFIER_DENIED : CLASSIFIER_STOPPED;
        snprintf(answer->reason, sizeof answer->reason, "client: %s",
                 status_name(status));
        return;
    }
    answer->retry_after_ns = got->retry_after_ns;
    if (got->failure != FETCH_ANSWERED) {
        answer->kind = kind_of_failure(got);
        snprintf(answer->reason, sizeof answer->reason, "server: %s",
                 got->failure == FETCH_TOO_LARGE ? "the answer is too large"
                                                 : classifier_kind_name(answer->kind));
        return;
    }
    answer->code = got->code;
    read_error_type(&got->body, type);
    answer->kind = kind_of_code(got->code, type);
    if (answer->kind == CLASSIFIER_OK)
        return;
    snprintf(answer->reason, sizeof answer->reason, "server: %d%s%s", got->code,
             type[0] ? " " : "", type);
    error_set(&answer->error, STATUS_IO, "the server answered %d%s%s", got->code,
              type[0] ? " " : "", type);
}

void classifier_ask(struct classifier *c, const struct view *texts, size_t n,
                    int64_t timeout_ns, struct arena *arena,
                    struct classifier_answer *answer) {
    struct fetch_answer got = {.retry_after_ns = -1};
    *answer = (struct classifier_answer){.retry_after_ns = -1};
    if (write_request(c, texts, n, &answer->error) != STATUS_OK) {
        answer->kind = CLASSIFIER_STOPPED;
        snprintf(answer->reason, sizeof answer->reason, "client: no memory");
        return;
    }
    struct fetch_request request = {.method = "POST",
                                    .url = c->classify_url,
                                    .content_type = "application/json",
                                    .body =
                                        view_of(c->request.data, c->request.n_bytes),
                                    .bearer = c->api_key,
                                    .accept = "application/json",
                                    .timeout_ns = timeout_ns,
                                    .max_answer_bytes = ANSWER_BYTES};
    send_request(c, &request, &got, answer);
    if (answer->kind == CLASSIFIER_OK) {
        enum status status =
            classifier_read(got.body.data, got.body.n_bytes, c->positive,
                            c->wants_entities, texts, n, arena, answer, &answer->error);
        if (status == STATUS_NO_MEMORY) {
            answer->kind = CLASSIFIER_STOPPED;
            snprintf(answer->reason, sizeof answer->reason, "client: no memory");
        } else if (status != STATUS_OK) {
            answer->kind = CLASSIFIER_FAILED;
            snprintf(answer->reason, sizeof answer->reason,
                     "server: 200 that is no answer");
        }
    }
    buffer_free(&got.body);
}

void classifier_ask_info(struct classifier *c, int64_t timeout_ns,
                         struct classifier_info *out,
                         struct classifier_answer *answer) {
    struct fetch_answer got = {.retry_after_ns = -1};
    struct fetch_request request = {.method = "GET",
                                    .url = c->info_url,
                                    .bearer = c->api_key,
                                    .accept = "application/json",
                                    .timeout_ns = timeout_ns};
    memset(out, 0, sizeof *out);
    send_request(c, &request, &got, answer);
    if (answer->kind == CLASSIFIER_OK) {
        enum status status = classifier_read_info(got.body.data, got.body.n_bytes,
                                                  c->positive, out, &answer->error);
        if (status != STATUS_OK) {
            answer->kind = status == STATUS_NO_MEMORY     ? CLASSIFIER_STOPPED
                           : status == STATUS_UNSUPPORTED ? CLASSIFIER_REFUSED
                                                          : CLASSIFIER_FAILED;
            snprintf(answer->reason, sizeof answer->reason,
                     "server: 200 that is no answer");
        }
    }
    buffer_free(&got.body);
}
