/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/http_client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    MAX_EVENTS = 256,
    FIRST_BUFFER_BYTES = 8192,
    CHECK_NS = 20000000 /* between looks for requests that take too long */
};
#define DEFAULT_MAX_ANSWER ((size_t)64 << 20)
#define CONNECT_TIMEOUT_MS 5000

enum connection_state {
    STATE_CLOSED,
    STATE_CONNECTING,
    STATE_IDLE,
    STATE_SENDING,
    STATE_RECEIVING,
    STATE_FAILED /* on_done is yet to be told */
};

struct connection {
    int fd;
    enum connection_state state;
    uint32_t events; /* that epoll watches */
    const char *request;
    size_t n_request, n_sent;
    int64_t deadline_ns;
    char *data; /* of the answer so far */
    size_t n_data, cap_data;
    enum http_outcome outcome; /* in STATE_FAILED */
};

struct http_client {
    struct http_client_options options;
    struct sockaddr_storage address;
    socklen_t n_address;
    int epoll_fd;
    struct connection *connections;
    size_t n_busy;
    size_t *failed; /* connections in STATE_FAILED */
    size_t n_failed;
    int64_t checked_ns;
};

const char *http_outcome_name(enum http_outcome outcome) {
    static const char *const names[N_HTTP_OUTCOMES] = {
        "answered", "not connected", "closed early", "not HTTP", "timed out"};
    return (unsigned)outcome < N_HTTP_OUTCOMES ? names[outcome] : "unknown";
}

/* ---- URLs ------------------------------------------------------------------------- */

static enum status bad_url(const char *text, struct error *err) {
    return error_set(err, STATUS_INVALID,
                     "expected a URL as http://127.0.0.1:8080, found \"%.100s\"", text);
}

static bool is_port(const char *text, size_t n) {
    unsigned value = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return n >= 1 && n <= 5 && value >= 1 && value <= 65535;
}

enum status http_url_parse(const char *text, struct http_url *out, struct error *err) {
    *out = (struct http_url){0};
    if (strncasecmp(text, "https://", 8) == 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the load generator speaks plain HTTP only: give the http:// "
                         "address of a server without TLS");
    if (strncasecmp(text, "http://", 7) != 0)
        return bad_url(text, err);
    const char *host = text + 7;
    size_t n_authority = strcspn(host, "/?#");
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '#' ||
            (*p == '@' && p < host + n_authority))
            return bad_url(text, err);
    const char *end = host + n_authority, *host_end, *port = "80";
    size_t n_port = 2;
    bool is_bracketed = *host == '[';
    host_end =
        is_bracketed ? memchr(host, ']', n_authority) : memchr(host, ':', n_authority);
    if (!host_end && is_bracketed)
        return bad_url(text, err);
    if (!host_end)
        host_end = end;
    const char *after = host_end + (is_bracketed ? 1 : 0);
    if (after < end) {
        port = after + 1;
        n_port = (size_t)(end - port);
        if (*after != ':' || !is_port(port, n_port))
            return bad_url(text, err);
    }
    host += is_bracketed;
    size_t n_host = (size_t)(host_end - host), n_path = strlen(end);
    if (n_host == 0 || n_host >= HTTP_HOST_BYTES || n_path + 2 > HTTP_PATH_BYTES)
        return bad_url(text, err);
    memcpy(out->host, host, n_host);
    memcpy(out->port, port, n_port);
    snprintf(out->path, sizeof out->path, "%s%s", *end == '/' ? "" : "/", end);
    snprintf(out->authority, sizeof out->authority, "%.*s", (int)n_authority, text + 7);
    return STATUS_OK;
}

/* ---- opening ---------------------------------------------------------------------- */

/* Connects within CONNECT_TIMEOUT_MS and closes again. */
static enum status try_address(const struct addrinfo *a, struct error *err) {
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int failure = 0;
    socklen_t n = sizeof failure;
    if (fd < 0)
        return error_set(err, STATUS_IO, "%s", strerror(errno));
    if (connect(fd, a->ai_addr, a->ai_addrlen)) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        failure = errno;
        if (failure == EINPROGRESS) {
            int rc = poll(&p, 1, CONNECT_TIMEOUT_MS);
            if (rc <= 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &n))
                failure = rc == 0 ? ETIMEDOUT : errno;
        }
    }
    close(fd);
    return failure ? error_set(err, STATUS_IO, "%s", strerror(failure)) : STATUS_OK;
}

static enum status find_address(struct http_client *c, struct error *err) {
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(c->options.host, c->options.port, &hints, &list);
    if (rc)
        return error_set(err, STATUS_IO, "cannot find %s: %s", c->options.host,
                         gai_strerror(rc));
    enum status status = STATUS_IO;
    for (const struct addrinfo *a = list; a && status; a = a->ai_next) {
        status = try_address(a, err);
        if (!status) {
            memcpy(&c->address, a->ai_addr, a->ai_addrlen);
            c->n_address = a->ai_addrlen;
        }
    }
    freeaddrinfo(list);
    if (status)
        return error_prefix(err, "cannot connect to %s port %s", c->options.host,
                            c->options.port);
    return STATUS_OK;
}

enum status http_client_open(const struct http_client_options *options,
                             struct http_client **out, struct error *err) {
    struct http_client *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the client");
    c->options = *options;
    if (!c->options.max_answer_bytes)
        c->options.max_answer_bytes = DEFAULT_MAX_ANSWER;
    c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    c->connections = calloc(options->n_connections, sizeof *c->connections);
    /* Twice: one that fails again while the first failure is told. */
    c->failed = calloc(2 * options->n_connections, sizeof *c->failed);
    enum status status = STATUS_OK;
    if (c->epoll_fd < 0)
        status = error_set(err, STATUS_IO, "cannot make an epoll: %s", strerror(errno));
    else if (!c->connections || !c->failed)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for %zu connections",
                           options->n_connections);
    for (size_t i = 0; i < options->n_connections && !status; i++)
        c->connections[i].fd = -1;
    if (!status)
        status = find_address(c, err);
    if (status) {
        http_client_close(c);
        return status;
    }
    *out = c;
    return STATUS_OK;
}

void http_client_close(struct http_client *c) {
    if (!c)
        return;
    for (size_t i = 0; c->connections && i < c->options.n_connections; i++) {
        if (c->connections[i].fd > 0)
            close(c->connections[i].fd);
        free(c->connections[i].data);
    }
    if (c->epoll_fd >= 0)
        close(c->epoll_fd);
    free(c->connections);
    free(c->failed);
    free(c);
}

size_t http_client_n_busy(const struct http_client *c) {
    return c->n_busy;
}

/* ---- one connection --------------------------------------------------------------- */

static void disconnect(struct connection *k) {
    if (k->fd >= 0)
        close(k->fd); /* leaves the epoll too */
    k->fd = -1;
    k->events = 0;
    k->n_data = 0;
    k->state = STATE_CLOSED;
}

/* The request is lost: on_done is told by the wait, which never runs inside a send. */
static void fail(struct http_client *c, size_t i, enum http_outcome outcome) {
    struct connection *k = &c->connections[i];
    disconnect(k);
    k->state = STATE_FAILED;
    k->outcome = outcome;
    c->failed[c->n_failed++] = i;
}

static bool watch(struct http_client *c, size_t i, uint32_t events) {
    struct connection *k = &c->connections[i];
    struct epoll_event event = {.events = events, .data.u64 = i};
    if (k->events == events)
        return true;
    int operation = k->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    k->events = events;
    return epoll_ctl(c->epoll_fd, operation, k->fd, &event) == 0;
}

static void start_connect(struct http_client *c, size_t i) {
    struct connection *k = &c->connections[i];
    int one = 1;
    k->fd = socket(c->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (k->fd < 0) {
        fail(c, i, HTTP_NOT_CONNECTED);
        return;
    }
    setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    k->state = STATE_CONNECTING;
    if ((connect(k->fd, (const struct sockaddr *)&c->address, c->n_address) &&
         errno != EINPROGRESS) ||
        !watch(c, i, EPOLLOUT))
        fail(c, i, HTTP_NOT_CONNECTED);
}

static void continue_send(struct http_client *c, size_t i) {
    struct connection *k = &c->connections[i];
    while (k->n_sent < k->n_request) {
        ssize_t n =
            send(k->fd, k->request + k->n_sent, k->n_request - k->n_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (!watch(c, i, EPOLLIN | EPOLLOUT))
                fail(c, i, HTTP_CLOSED);
            return;
        }
        if (n < 0) {
            /* It may have answered before it closed: 413 to a body that it did not read. */
            break; /* n_sent < n_request: closed after the answer */
        }
        k->n_sent += (size_t)n;
    }
    k->state = STATE_RECEIVING;
    if (!watch(c, i, EPOLLIN))
        fail(c, i, HTTP_CLOSED);
}

void http_client_send(struct http_client *c, size_t connection, const char *request,
                      size_t n_bytes) {
    struct connection *k = &c->connections[connection];
    k->request = request;
    k->n_request = n_bytes;
    k->n_sent = 0;
    k->deadline_ns = clock_now_ns() + c->options.timeout_ns;
    c->n_busy++;
    if (k->state == STATE_CLOSED) {
        start_connect(c, connection);
        return;
    }
    k->state = STATE_SENDING;
    continue_send(c, connection);
}

static void finish_connect(struct http_client *c, size_t i) {
    struct connection *k = &c->connections[i];
    int failure = 0;
    socklen_t n = sizeof failure;
    if (getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &failure, &n) || failure) {
        fail(c, i, HTTP_NOT_CONNECTED);
        return;
    }
    k->state = STATE_SENDING;
    continue_send(c, i);
}

static bool make_room(struct http_client *c, struct connection *k) {
    if (k->n_data < k->cap_data)
        return true;
    size_t cap = k->cap_data ? 2 * k->cap_data : FIRST_BUFFER_BYTES;
    char *grown =
        k->cap_data < c->options.max_answer_bytes ? realloc(k->data, cap) : NULL;
    if (!grown)
        return false;
    k->data = grown;
    k->cap_data = cap;
    return true;
}

/* Looks at what has arrived. */
static void consider(struct http_client *c, size_t i, bool is_end) {
    struct connection *k = &c->connections[i];
    struct http_answer answer;
    size_t n_used;
    enum http_parse parse =
        http_answer_parse(k->data, k->n_data, is_end, &answer, &n_used);
    if (parse == HTTP_MALFORMED ||
        (parse == HTTP_COMPLETE && n_used < k->n_data)) { /* more than was asked for */
        fail(c, i, HTTP_GARBAGE);
    } else if (parse == HTTP_INCOMPLETE) {
        if (is_end)
            fail(c, i, HTTP_CLOSED);
    } else {
        bool is_closing = answer.is_closing || is_end || k->n_sent < k->n_request;
        /* Idle before on_done, which may send again; its bytes last until then. */
        k->n_data = 0;
        if (is_closing)
            disconnect(k);
        else
            k->state = STATE_IDLE;
        c->n_busy--;
        c->options.on_done(c->options.user, i, HTTP_ANSWERED, &answer);
    }
}

static void receive(struct http_client *c, size_t i) {
    struct connection *k = &c->connections[i];
    bool is_request = k->state == STATE_SENDING || k->state == STATE_RECEIVING;
    for (;;) {
        if (!make_room(c, k)) {
            fail(c, i, HTTP_GARBAGE);
            return;
        }
        size_t n_room = k->cap_data - k->n_data;
        ssize_t n = recv(k->fd, k->data + k->n_data, n_room, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (!is_request) { /* closed while idle, or talking without being asked */
            disconnect(k);
            return;
        }
        if (n <= 0) {
            consider(c, i, true);
            return;
        }
        k->n_data += (size_t)n;
        if ((size_t)n < n_room)
            break;
    }
    if (k->n_data)
        consider(c, i, false);
}

static void serve(struct http_client *c, size_t i, uint32_t events) {
    struct connection *k = &c->connections[i];
    if (k->fd < 0)
        return; /* closed by an event before this one */
    if (k->state == STATE_CONNECTING) {
        finish_connect(c, i);
        return;
    }
    if (k->state == STATE_SENDING && (events & EPOLLOUT)) {
        continue_send(c, i);
        if (k->fd < 0)
            return;
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        receive(c, i);
}

/* ---- all of them ------------------------------------------------------------------ */

static void tell_failures(struct http_client *c) {
    /* on_done may send and fail again: those are told by the next wait. */
    size_t n = c->n_failed;
    for (size_t j = 0; j < n; j++) {
        size_t i = c->failed[j];
        struct connection *k = &c->connections[i];
        k->state = STATE_CLOSED;
        c->n_busy--;
        c->options.on_done(c->options.user, i, k->outcome, NULL);
    }
    memmove(c->failed, c->failed + n, (c->n_failed - n) * sizeof *c->failed);
    c->n_failed -= n;
}

static void check_deadlines(struct http_client *c, int64_t now) {
    c->checked_ns = now;
    for (size_t i = 0; i < c->options.n_connections; i++) {
        const struct connection *k = &c->connections[i];
        if ((k->state == STATE_CONNECTING || k->state == STATE_SENDING ||
             k->state == STATE_RECEIVING) &&
            now > k->deadline_ns)
            fail(c, i, HTTP_TIMED_OUT);
    }
}

/* epoll_wait knows milliseconds only; kernels before 5.11 have nothing else. */
static int wait_events(int fd, struct epoll_event *events, int64_t wait_ns) {
    const struct timespec t = {.tv_sec = wait_ns / CLOCK_NS_PER_SECOND,
                               .tv_nsec = wait_ns % CLOCK_NS_PER_SECOND};
    int n = epoll_pwait2(fd, events, MAX_EVENTS, &t, NULL);
    if (n < 0 && errno == ENOSYS)
        n = epoll_wait(fd, events, MAX_EVENTS, (int)(wait_ns / 1000000));
    return n;
}

enum status http_client_wait(struct http_client *c, int64_t until_ns,
                             struct error *err) {
    struct epoll_event events[MAX_EVENTS];
    int64_t now = clock_now_ns();
    int64_t wait_ns = until_ns - now;
    if (wait_ns > CHECK_NS)
        wait_ns = CHECK_NS;
    if (wait_ns < 0 || c->n_failed || c->options.is_spinning)
        wait_ns = 0;
    int n = wait_events(c->epoll_fd, events, wait_ns);
    if (n < 0 && errno != EINTR)
        return error_set(err, STATUS_IO, "cannot wait for answers: %s",
                         strerror(errno));
    for (int e = 0; e < n; e++)
        serve(c, (size_t)events[e].data.u64, events[e].events);
    now = clock_now_ns();
    if (now - c->checked_ns > CHECK_NS)
        check_deadlines(c, now);
    if (c->n_failed)
        tell_failures(c);
    return STATUS_OK;
}
