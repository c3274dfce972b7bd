/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch.c - HTTP as a client, over curl's multi interface: one easy handle at a time, driven
 * by curl_multi_poll, which also watches wake_fd, so that whoever stops the program waits for
 * no server.
 *
 * HTTP/1.1 throughout: a stream is then one connection that can be closed, and an answer is
 * never held up behind another. What curl would take from its surroundings (netrc, cookies,
 * a proxy for loopback addresses) is off; a proxy from the environment serves for the rest.
 *
 * Limits: a URL of 8 KiB, an answer of max_answer_bytes, 1 MiB of a stream at once.
 */
#include "client/net/fetch.h"

#include <curl/curl.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define MAX_URL_BYTES ((size_t)8192)
#define DEFAULT_ANSWER_BYTES ((size_t)8 << 20)
#define STREAM_BYTES ((size_t)1 << 20)
#define CONNECT_NS (2 * CLOCK_NS_PER_SECOND)
#define TLS_NS (3 * CLOCK_NS_PER_SECOND)
#define MAX_RETRY_AFTER_S INT64_C(86400)
#define PLACE_BYTES 128

struct fetch {
    CURLM *multi;
    CURL *easy;
    char *ca_file;
    bool allows_plain, plain_loopback_only;
    int wake_fd;
    int64_t connect_ns;

    /* Of the request that is under way. */
    struct curl_slist *headers;
    struct view body; /* what of it is not sent yet */
    bool is_added;    /* the easy handle is in the multi handle */
    bool is_stream;   /* begun with start */
    bool is_head_done, is_done, is_paused;
    bool is_too_large, is_out_of_memory;
    CURLcode result;
    struct fetch_answer
        *answer;             /* NULL once the head of a stream has been handed out */
    struct buffer received;  /* of a stream */
    char place[PLACE_BYTES]; /* "GET https://host": for messages */
    char reason[CURL_ERROR_SIZE];
};

static CURLcode global_result;

static void init_curl(void) {
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- What curl calls ---- */

static size_t on_send(char *out, size_t size, size_t n, void *context) {
    struct fetch *f = context;
    size_t n_bytes = size * n; /* size is 1 */
    if (n_bytes > f->body.n_bytes)
        n_bytes = f->body.n_bytes;
    if (n_bytes > 0)
        memcpy(out, f->body.data, n_bytes);
    f->body.data += n_bytes;
    f->body.n_bytes -= n_bytes;
    return n_bytes;
}

/* A body is sent once. Else curl, when a connection that it used before breaks, would send it
 * again by itself, on a new one: more than the caller's budget of retries allows, and when
 * that one is refused, it would look as if nothing had been sent at all. */
static int on_rewind(void *context, curl_off_t offset, int origin) {
    (void)context;
    (void)offset;
    (void)origin;
    return CURL_SEEKFUNC_FAIL;
}

static size_t on_body(char *data, size_t size, size_t n, void *context) {
    struct fetch *f = context;
    size_t n_bytes = size * n; /* size is 1 */
    struct buffer *into = f->is_stream && (!f->answer || f->answer->code == 200)
                              ? &f->received
                              : &f->answer->body;
    if (into == &f->received && into->n_bytes >= STREAM_BYTES) {
        f->is_paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    switch (buffer_append(into, data, n_bytes, NULL)) {
    case STATUS_OK:
        return n_bytes;
    case STATUS_LIMIT:
        f->is_too_large = true;
        return 0;
    default:
        f->is_out_of_memory = true;
        return 0;
    }
}

/* The value of a header line if it has this name; else an empty view. */
static struct view header_value(struct view line, const char *name) {
    size_t n_name = strlen(name);
    if (line.n_bytes <= n_name || line.data[n_name] != ':' ||
        strncasecmp(line.data, name, n_name) != 0)
        return view_of(NULL, 0);
    const char *at = line.data + n_name + 1, *end = line.data + line.n_bytes;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    while (end > at && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    return view_of(at, (size_t)(end - at));
}

/* Digits alone, at most 15 of them; -1 for anything else. */
static int64_t number_of(struct view v) {
    int64_t value = 0;
    if (v.n_bytes == 0 || v.n_bytes > 15)
        return -1;
    for (size_t i = 0; i < v.n_bytes; i++) {
        if (v.data[i] < '0' || v.data[i] > '9')
            return -1;
        value = value * 10 + (v.data[i] - '0');
    }
    return value;
}

static int64_t retry_after_ns(struct view v) {
    int64_t seconds = number_of(v);
    if (seconds < 0) {
        char text[64];
        if (v.n_bytes == 0 || v.n_bytes >= sizeof(text))
            return -1;
        memcpy(text, v.data, v.n_bytes);
        text[v.n_bytes] = 0;
        time_t at = curl_getdate(text, NULL);
        if (at == (time_t)-1)
            return -1;
        seconds = (int64_t)at - clock_wall_ns() / CLOCK_NS_PER_SECOND;
        if (seconds < 0)
            seconds = 0;
    }
    if (seconds > MAX_RETRY_AFTER_S)
        seconds = MAX_RETRY_AFTER_S;
    return seconds * CLOCK_NS_PER_SECOND;
}

static size_t on_header(char *data, size_t size, size_t n, void *context) {
    struct fetch *f = context;
    struct view line = view_of(data, size * n), value;
    struct fetch_answer *answer = f->answer;
    if (!answer) /* trailers of a stream */
        return line.n_bytes;
    if (view_starts_with(line, VIEW("HTTP/"))) { /* again after 100 Continue */
        const char *space = memchr(line.data, ' ', line.n_bytes);
        answer->code = 0;
        if (space && (size_t)(line.data + line.n_bytes - space) > 3)
            answer->code = (int)number_of(view_of(space + 1, 3));
        answer->retry_after_ns = -1;
        answer->rate_reset_s = 0;
        answer->content_type[0] = 0;
    } else if ((value = header_value(line, "retry-after")).n_bytes) {
        answer->retry_after_ns = retry_after_ns(value);
    } else if ((value = header_value(line, "x-rate-limit-reset")).n_bytes) {
        int64_t at = number_of(value);
        answer->rate_reset_s = at > 0 ? at : 0;
    } else if ((value = header_value(line, "content-type")).n_bytes) {
        if (value.n_bytes < sizeof(answer->content_type)) {
            memcpy(answer->content_type, value.data, value.n_bytes);
            answer->content_type[value.n_bytes] = 0;
        }
    } else if (line.n_bytes <= 2 && answer->code >= 200) {
        f->is_head_done = true;
    }
    return line.n_bytes;
}

/* What the server sent and nobody will read is taken out first: closing a socket with bytes
 * in it resets the connection, and the server could take that for an accident. */
static int on_close_socket(void *context, curl_socket_t fd) {
    char unread[4096];
    (void)context;
    (void)shutdown(fd, SHUT_WR);
    for (int i = 0; i < 256; i++)
        if (recv(fd, unread, sizeof(unread), MSG_DONTWAIT) <= 0)
            break;
    return close(fd);
}

/* ---- Open, close ---- */

enum status fetch_open(const struct fetch_options *options, struct fetch **out,
                       struct error *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    enum status status = STATUS_NO_MEMORY;
    *out = NULL;
    pthread_once(&once, init_curl);
    if (global_result != CURLE_OK)
        return error_set(err, STATUS_INTERNAL, "cannot start the HTTP client: %s",
                         curl_easy_strerror(global_result));
    struct fetch *f = calloc(1, sizeof(*f));
    if (!f)
        return error_set(err, STATUS_NO_MEMORY, "no memory for an HTTP client");
    f->wake_fd = options->wake_fd;
    f->allows_plain = options->allows_plain;
    f->plain_loopback_only = options->plain_loopback_only;
    f->connect_ns = options->connect_ns;
    f->received.max_bytes = 2 * STREAM_BYTES;
    if (options->ca_file && !(f->ca_file = strdup(options->ca_file)))
        goto out;
    if (!(f->multi = curl_multi_init()) || !(f->easy = curl_easy_init()))
        goto out;
    *out = f;
    f = NULL;
    status = STATUS_OK;
out:
    if (status != STATUS_OK)
        error_set(err, status, "no memory for an HTTP client");
    fetch_close(f);
    return status;
}

/* The request is over: its connection is kept when the answer was read to the end. */
static void leave(struct fetch *f) {
    if (f->is_added)
        curl_multi_remove_handle(f->multi, f->easy);
    f->is_added = f->is_stream = f->is_paused = false;
    f->answer = NULL;
    curl_easy_reset(f->easy);
    curl_slist_free_all(f->headers);
    f->headers = NULL;
}

void fetch_close(struct fetch *f) {
    if (!f)
        return;
    if (f->easy) {
        leave(f);
        curl_easy_cleanup(f->easy);
    }
    if (f->multi)
        curl_multi_cleanup(f->multi);
    buffer_free(&f->received);
    free(f->ca_file);
    free(f);
}

/* ---- The request ---- */

static bool is_loopback(const char *host) {
    struct in_addr v4;
    if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
        return true;
    return inet_pton(AF_INET, host, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

/* Is this a URL that may be asked? Sets the place for messages: without path and query, where
 * something private could stand. */
static enum status check_url(struct fetch *f, const char *method, const char *url,
                             bool *has_tls, bool *at_loopback, struct error *err) {
    char *scheme = NULL, *host = NULL, *user = NULL;
    enum status status = STATUS_OK;
    CURLU *parts = curl_url();
    if (!parts)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a URL");
    if (strlen(url) > MAX_URL_BYTES || curl_url_set(parts, CURLUPART_URL, url, 0) ||
        curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) ||
        curl_url_get(parts, CURLUPART_HOST, &host, 0)) {
        status = error_set(err, STATUS_INVALID, "not a URL of http:// or https://");
        goto out;
    }
    (void)snprintf(f->place, sizeof(f->place), "%s %s://%.80s", method, scheme, host);
    *has_tls = strcmp(scheme, "https") == 0;
    *at_loopback = is_loopback(host);
    if (!*has_tls && strcmp(scheme, "http") != 0)
        status = error_set(err, STATUS_INVALID, "%s: expected http:// or https://",
                           f->place);
    else if (!*has_tls && !f->allows_plain && !(f->plain_loopback_only && *at_loopback))
        status =
            error_set(err, STATUS_INVALID, "%s: only https:// is allowed", f->place);
    else if (curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_OK)
        status = error_set(err, STATUS_INVALID, "%s: a URL must hold no user name",
                           f->place);
out:
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_url_cleanup(parts);
    return status;
}

enum status fetch_check(struct fetch *f, const char *url, struct error *err) {
    bool has_tls, at_loopback;
    return check_url(f, "address", url, &has_tls, &at_loopback, err);
}

static enum status add_header(struct fetch *f, const char *name, const char *value,
                              struct error *err) {
    char line[512];
    if (strpbrk(value, "\r\n"))
        return error_set(err, STATUS_INVALID, "%s: a line end in header %s", f->place,
                         name);
    int n = snprintf(line, sizeof(line), "%s:%s%s", name, *value ? " " : "", value);
    if (n < 0 || (size_t)n >= sizeof(line))
        return error_set(err, STATUS_LIMIT, "%s: header %s is longer than %zu bytes",
                         f->place, name, sizeof(line));
    struct curl_slist *more = curl_slist_append(f->headers, line);
    if (!more)
        return error_set(err, STATUS_NO_MEMORY, "no memory for an HTTP header");
    f->headers = more;
    return STATUS_OK;
}

static enum status set_headers(struct fetch *f, const struct fetch_request *request,
                               struct error *err) {
    enum status status = STATUS_OK;
    if (request->content_type)
        status = add_header(f, "Content-Type", request->content_type, err);
    if (status == STATUS_OK && request->accept)
        status = add_header(f, "Accept", request->accept, err);
    if (status == STATUS_OK && request->traceparent)
        status = add_header(f, "traceparent", request->traceparent, err);
    /* Without this curl waits a second for "100 Continue" before larger bodies. */
    if (status == STATUS_OK)
        status = add_header(f, "Expect", "", err);
    return status;
}

static long milliseconds(int64_t ns) {
    int64_t ms = ns / 1000000;
    return ms < 1 ? 1 : ms > 86400000 ? 86400000L : (long)ms;
}

/* Body and method, and who we are. */
static bool set_request(struct fetch *f, const struct fetch_request *request) {
    CURL *e = f->easy;
    bool has_body = request->body.n_bytes > 0 || strcmp(request->method, "POST") == 0;
    bool ok = curl_easy_setopt(e, CURLOPT_URL, request->url) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_HTTPHEADER, f->headers) == CURLE_OK;
    f->body = request->body.data ? request->body : view_of("", 0);
    if (has_body)
        ok = ok && curl_easy_setopt(e, CURLOPT_POST, 1L) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_READDATA, f) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_rewind) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE,
                              (curl_off_t)request->body.n_bytes) == CURLE_OK;
    else
        ok = ok && curl_easy_setopt(e, CURLOPT_HTTPGET, 1L) == CURLE_OK;
    if (strcmp(request->method, has_body ? "POST" : "GET") != 0)
        ok = ok &&
             curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK;
    if (request->bearer)
        ok = ok && curl_easy_setopt(e, CURLOPT_HTTPAUTH, CURLAUTH_BEARER) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_XOAUTH2_BEARER, request->bearer) == CURLE_OK;
    else if (request->basic)
        ok = ok && curl_easy_setopt(e, CURLOPT_HTTPAUTH, CURLAUTH_BASIC) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_USERPWD, request->basic) == CURLE_OK;
    return ok;
}

static bool set_transport(struct fetch *f, bool has_tls, bool at_loopback) {
    CURL *e = f->easy;
    int64_t connect_ns = (f->connect_ns ? f->connect_ns : CONNECT_NS);
    connect_ns += has_tls ? TLS_NS : 0;
    bool ok =
        curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, has_tls ? "https" : "http") ==
            CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) ==
            CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) ==
            CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(connect_ns)) ==
            CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_USERAGENT, "vigil/" VIGIL_VERSION) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_ERRORBUFFER, f->reason) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_WRITEDATA, f) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_HEADERDATA, f) == CURLE_OK &&
        curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket) == CURLE_OK;
    /* A name that is being looked up does not hold up whoever stops. */
    ok = ok && curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK;
    if (at_loopback)
        ok = ok && curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK;
    if (f->ca_file)
        ok = ok && curl_easy_setopt(e, CURLOPT_CAINFO, f->ca_file) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_CAPATH, NULL) == CURLE_OK;
    return ok;
}

static enum status begin(struct fetch *f, const struct fetch_request *request,
                         bool is_stream, struct fetch_answer *answer,
                         struct error *err) {
    bool has_tls = false, at_loopback = false;
    leave(f);
    memset(answer, 0, sizeof(*answer));
    answer->retry_after_ns = -1;
    answer->body.max_bytes =
        request->max_answer_bytes ? request->max_answer_bytes : DEFAULT_ANSWER_BYTES;
    f->is_head_done = f->is_done = false;
    f->is_too_large = f->is_out_of_memory = false;
    f->result = CURLE_OK;
    f->reason[0] = 0;
    buffer_clear(&f->received);
    enum status status =
        check_url(f, request->method, request->url, &has_tls, &at_loopback, err);
    if (status == STATUS_OK)
        status = set_headers(f, request, err);
    if (status == STATUS_OK &&
        (!set_request(f, request) || !set_transport(f, has_tls, at_loopback)))
        status = error_set(err, STATUS_NO_MEMORY, "no memory for an HTTP request");
    if (status == STATUS_OK) {
        f->is_stream = is_stream;
        f->answer = answer;
        if (curl_multi_add_handle(f->multi, f->easy) != CURLM_OK)
            status = error_set(err, STATUS_NO_MEMORY, "no memory for an HTTP request");
        else
            f->is_added = true;
    }
    if (status != STATUS_OK)
        leave(f);
    return status;
}

/* ---- On its way ---- */

static bool is_woken(const struct fetch *f) {
    struct pollfd p = {.fd = f->wake_fd, .events = POLLIN};
    return f->wake_fd >= 0 && poll(&p, 1, 0) > 0;
}

/* Lets curl do what it can now. */
static enum status turn(struct fetch *f, struct error *err) {
    int n_running = 0, n_left = 0;
    CURLMcode code = curl_multi_perform(f->multi, &n_running);
    if (code != CURLM_OK)
        return error_set(
            err, code == CURLM_OUT_OF_MEMORY ? STATUS_NO_MEMORY : STATUS_INTERNAL,
            "%s: %s", f->place, curl_multi_strerror(code));
    for (CURLMsg *m; (m = curl_multi_info_read(f->multi, &n_left));)
        if (m->msg == CURLMSG_DONE) {
            f->is_done = true;
            f->result = m->data.result;
        }
    return STATUS_OK;
}

/* Waits for something to do, at most until the deadline. STATUS_TIMEOUT, STATUS_CANCELLED. */
static enum status wait(struct fetch *f, int64_t deadline_ns, struct error *err) {
    struct curl_waitfd wake = {.fd = f->wake_fd, .events = CURL_WAIT_POLLIN};
    int64_t left_ns = deadline_ns - clock_now_ns();
    if (left_ns <= 0)
        return error_set(err, STATUS_TIMEOUT, "%s: no answer in time", f->place);
    int64_t left_ms = left_ns / 1000000 + 1;
    CURLMcode code =
        curl_multi_poll(f->multi, f->wake_fd >= 0 ? &wake : NULL, f->wake_fd >= 0,
                        left_ms > 60000 ? 60000 : (int)left_ms, NULL);
    if (code != CURLM_OK && code != CURLM_UNRECOVERABLE_POLL)
        return error_set(err, STATUS_NO_MEMORY, "%s: %s", f->place,
                         curl_multi_strerror(code));
    if (is_woken(f))
        return error_set(err, STATUS_CANCELLED, "%s: stopped", f->place);
    return STATUS_OK;
}

/* Was anything sent? */
static bool is_connected(struct fetch *f) {
    curl_off_t pretransfer_us = 0;
    return curl_easy_getinfo(f->easy, CURLINFO_PRETRANSFER_TIME_T, &pretransfer_us) ==
               CURLE_OK &&
           pretransfer_us > 0;
}

static const char *reason_of(const struct fetch *f) {
    return f->reason[0] ? f->reason : curl_easy_strerror(f->result);
}

/* What became of a request that is done. */
static enum status judge(struct fetch *f, struct error *err) {
    struct fetch_answer *answer = f->answer;
    if (f->result == CURLE_OK) {
        answer->failure = FETCH_ANSWERED;
        return STATUS_OK;
    }
    if (f->is_out_of_memory || f->result == CURLE_OUT_OF_MEMORY)
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory for the answer",
                         f->place);
    if (f->result == CURLE_URL_MALFORMAT || f->result == CURLE_UNSUPPORTED_PROTOCOL)
        return error_set(err, STATUS_INVALID, "%s: %s", f->place, reason_of(f));
    answer->code = 0;
    if (f->is_too_large) {
        answer->failure = FETCH_TOO_LARGE;
        error_set(err, STATUS_LIMIT, "%s: the answer is longer than %zu bytes",
                  f->place, answer->body.max_bytes);
        return STATUS_OK;
    }
    answer->is_certificate_bad = f->result == CURLE_PEER_FAILED_VERIFICATION ||
                                 f->result == CURLE_SSL_CACERT_BADFILE;
    if (!is_connected(f))
        answer->failure = FETCH_NOT_CONNECTED;
    else
        answer->failure =
            f->result == CURLE_OPERATION_TIMEDOUT ? FETCH_TIMED_OUT : FETCH_BROKEN;
    error_set(err, STATUS_IO, "%s: %s", f->place, reason_of(f));
    return STATUS_OK;
}

/* Until the answer is whole, or the head of a stream is there. */
static enum status drive(struct fetch *f, int64_t timeout_ns, struct error *err) {
    int64_t deadline_ns = clock_now_ns() + timeout_ns;
    for (;;) {
        enum status status =
            is_woken(f) ? error_set(err, STATUS_CANCELLED, "%s: stopped", f->place)
                        : turn(f, err);
        if (status != STATUS_OK)
            return status;
        /* A stream that broke right behind its head is found out by read, which hands out
         * what had come until then. */
        if (f->is_stream && f->is_head_done && f->answer->code == 200)
            return STATUS_OK;
        if (f->is_done)
            return judge(f, err);
        status = wait(f, deadline_ns, err);
        if (status == STATUS_TIMEOUT) {
            f->answer->code = 0;
            f->answer->failure =
                is_connected(f) ? FETCH_TIMED_OUT : FETCH_NOT_CONNECTED;
            return STATUS_OK;
        }
        if (status != STATUS_OK)
            return status;
    }
}

static enum status ask(struct fetch *f, const struct fetch_request *request,
                       bool is_stream, struct fetch_answer *answer, struct error *err) {
    enum status status = begin(f, request, is_stream, answer, err);
    if (status != STATUS_OK)
        return status;
    status = drive(f, request->timeout_ns, err);
    if (status == STATUS_OK && is_stream && answer->failure == FETCH_ANSWERED &&
        answer->code == 200)
        f->answer = NULL; /* the caller's, who may move it */
    else
        leave(f);
    if (status != STATUS_OK)
        buffer_free(&answer->body);
    return status;
}

enum status fetch_run(struct fetch *f, const struct fetch_request *request,
                      struct fetch_answer *answer, struct error *err) {
    return ask(f, request, false, answer, err);
}

enum status fetch_start(struct fetch *f, const struct fetch_request *request,
                        struct fetch_answer *answer, struct error *err) {
    return ask(f, request, true, answer, err);
}

enum status fetch_read(struct fetch *f, int64_t deadline_ns, struct view *out,
                       struct error *err) {
    *out = view_of(NULL, 0);
    if (!f->is_added || !f->is_stream)
        return error_set(err, STATUS_IO, "no stream is open");
    if (is_woken(f))
        return error_set(err, STATUS_CANCELLED, "%s: stopped", f->place);
    /* What came with the head is still to be had; anything else was read in the last call. */
    if (f->is_head_done)
        f->is_head_done = false;
    else
        buffer_clear(&f->received);
    if (f->is_paused && f->received.n_bytes == 0) {
        f->is_paused = false;
        CURLcode code = curl_easy_pause(f->easy, CURLPAUSE_CONT);
        if (code != CURLE_OK) {
            f->is_done = true;
            f->result = code;
        }
    }
    for (;;) {
        enum status status = STATUS_OK;
        if (!f->is_done && f->received.n_bytes == 0)
            status = turn(f, err);
        if (status != STATUS_OK)
            return status;
        if (f->received.n_bytes > 0) {
            *out = view_of(f->received.data, f->received.n_bytes);
            return STATUS_OK;
        }
        if (f->is_done && f->is_out_of_memory)
            return error_set(err, STATUS_NO_MEMORY, "%s: no memory", f->place);
        if (f->is_done && f->result == CURLE_OK)
            return error_set(err, STATUS_NOT_FOUND, "%s: the server ended the stream",
                             f->place);
        if (f->is_done)
            return error_set(err, STATUS_IO, "%s: %s", f->place, reason_of(f));
        status = wait(f, deadline_ns, err);
        if (status != STATUS_OK)
            return status;
    }
}

void fetch_stop(struct fetch *f) {
    leave(f);
    buffer_clear(&f->received);
}
