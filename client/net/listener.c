/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.c - one thread accepts, one thread a connection reads, answers and writes.
 *
 * Sockets do not block; each wait has a deadline and ends when the listener stops. Bytes go
 * through the gate one request at a time: byte by byte while it is in a head, whole when it is
 * in a body. A request that is refused before its body came ends the connection, after what
 * the client still sends was read for a moment: a reset would take the answer with it.
 */
#include "client/net/listener.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/auth.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/gate.h"
#include "base/log.h"
#include "client/net/listener_head.h"

#define HEAD_NS (5 * CLOCK_NS_PER_SECOND)
#define BODY_NS (10 * CLOCK_NS_PER_SECOND)
#define WRITE_NS (10 * CLOCK_NS_PER_SECOND)
#define IDLE_NS (30 * CLOCK_NS_PER_SECOND)
#define LINGER_NS (2 * CLOCK_NS_PER_SECOND)
#define STOP_NS (5 * CLOCK_NS_PER_SECOND)
#define ACCEPT_PAUSE_NS (CLOCK_NS_PER_SECOND / 10)
#define LINGER_BYTES ((size_t)16 << 20)
#define INPUT_BYTES 16384
#define DEFAULT_BODY_BYTES ((size_t)6 << 20)
#define ALL_BODIES_BYTES ((size_t)64 << 20)
#define MAX_ANSWER_BYTES ((size_t)64 << 20)
#define CREDENTIAL_BYTES 1024

enum slot_use { SLOT_FREE, SLOT_RUNNING, SLOT_DONE };

struct connection {
    struct listener *listener;
    pthread_t thread;
    bool has_thread;   /* to be joined; the accepting thread's, then close's */
    enum slot_use use; /* under the listener's lock */
    int fd;
    struct gate gate;
    size_t n_input, at; /* input[at..n_input) came and was not looked at */
    char input[INPUT_BYTES];
    size_t n_head;
    char head[GATE_MAX_HEAD_BYTES + 4]; /* with an empty line before it */
};

struct listener {
    int fd, stop_fd; /* stop_fd is readable from the stop on */
    int port;
    struct listener_options options;
    struct auth *auth;
    pthread_t thread;
    bool has_thread;
    atomic_bool is_stopping;
    atomic_size_t n_body_bytes; /* reserved by the bodies under way */
    pthread_mutex_t lock;
    pthread_cond_t ended; /* a connection became SLOT_DONE */
    struct connection *connections;
};

/* ---- Waiting ---------------------------------------------------------------------- */

/* Until the socket is ready, the deadline (false) or, if stop_fd >= 0, the stop (false). */
static bool wait_for(int fd, short events, int stop_fd, int64_t deadline_ns) {
    for (;;) {
        struct pollfd polled[2] = {{.fd = fd, .events = events},
                                   {.fd = stop_fd, .events = POLLIN}};
        int64_t left = deadline_ns - clock_now_ns();
        if (left <= 0)
            return false;
        struct timespec timeout = {.tv_sec = left / CLOCK_NS_PER_SECOND,
                                   .tv_nsec = left % CLOCK_NS_PER_SECOND};
        int n = ppoll(polled, 2, &timeout, NULL);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            return polled[1].revents == 0;
    }
}

/* What comes next, at most cap: 0 when nothing more comes in time, or at all. */
static size_t receive(int fd, void *out, size_t cap, int stop_fd, int64_t deadline_ns) {
    for (;;) {
        ssize_t n = recv(fd, out, cap, 0);
        if (n >= 0)
            return (size_t)n;
        if (errno != EINTR && errno != EAGAIN)
            return 0;
        if (!wait_for(fd, POLLIN, stop_fd, deadline_ns))
            return 0;
    }
}

static bool send_all(int fd, const char *bytes, size_t n_bytes, int64_t deadline_ns) {
    size_t at = 0;
    while (at < n_bytes) {
        ssize_t n = send(fd, bytes + at, n_bytes - at, MSG_NOSIGNAL);
        if (n >= 0)
            at += (size_t)n;
        else if (errno != EINTR &&
                 (errno != EAGAIN || !wait_for(fd, POLLOUT, -1, deadline_ns)))
            return false;
    }
    return true;
}

/* Says that no more comes, and reads what the client still sends, for a moment. */
static void linger(struct connection *c) {
    char sink[4096];
    int64_t deadline = clock_now_ns() + LINGER_NS;
    size_t n_left = LINGER_BYTES, n = 1;
    shutdown(c->fd, SHUT_WR);
    while (n && n_left) {
        n = receive(c->fd, sink, sizeof sink < n_left ? sizeof sink : n_left,
                    c->listener->stop_fd, deadline);
        n_left -= n;
    }
}

/* ---- Answers ---------------------------------------------------------------------- */

static const char *reason_of(int code) {
    for (int kind = FAULT_NONE + 1; kind < FAULT_KINDS; kind++)
        if (fault_code((enum fault_kind)kind) == code)
            return fault_reason((enum fault_kind)kind);
    return code == 200 ? "OK" : code < 400 ? "Answer" : "Error";
}

void listener_refuse(struct listener_answer *answer, enum fault_kind kind,
                     const char *format, ...) {
    struct fault fault = {.kind = kind};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault.message, sizeof fault.message, format, arguments);
    va_end(arguments);
    answer->code = fault_code(kind);
    answer->content_type = NULL;
    buffer_clear(&answer->body);
    if (fault_write(&fault, &answer->body, NULL) != STATUS_OK)
        buffer_clear(&answer->body); /* without memory the code says enough */
}

static void date_of_now(char *out, size_t cap_bytes) {
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char utc[CLOCK_UTC_BYTES]; /* 2026-11-23T15:20:07.042Z */
    int64_t now = clock_wall_ns();
    clock_format_utc(now, utc);
    size_t day = (size_t)(now / CLOCK_NS_PER_SECOND / 86400 % 7);
    size_t month = (size_t)((utc[5] - '0') * 10 + utc[6] - '0' - 1);
    snprintf(out, cap_bytes, "%.3s, %.2s %.3s %.4s %.8s GMT", days + 3 * day, utc + 8,
             months + 3 * month, utc, utc + 11);
}

/* Writes head and body; whether the connection can go on. */
static bool write_answer(struct connection *c, const struct listener_answer *answer,
                         bool is_head_only, bool keeps_alive, const char *extra) {
    char date[40];
    struct buffer out = {.max_bytes = SIZE_MAX};
    date_of_now(date, sizeof date);
    enum status status = buffer_printf(
        &out, NULL,
        "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s",
        answer->code, reason_of(answer->code), date,
        answer->content_type ? answer->content_type : "application/json",
        answer->body.n_bytes, extra);
    if (status == STATUS_OK && answer->retry_after_s > 0)
        status = buffer_printf(&out, NULL, "Retry-After: %lld\r\n",
                               (long long)answer->retry_after_s);
    if (status == STATUS_OK)
        status = buffer_printf(&out, NULL, "%s\r\n",
                               keeps_alive ? "" : "Connection: close\r\n");
    if (status == STATUS_OK && !is_head_only && answer->body.n_bytes)
        status = buffer_append(&out, answer->body.data, answer->body.n_bytes, NULL);
    bool is_sent = status == STATUS_OK &&
                   send_all(c->fd, out.data, out.n_bytes, clock_now_ns() + WRITE_NS);
    buffer_free(&out);
    return is_sent && keeps_alive;
}

/* The answer to what is not a request, or one that no handler may see. */
static bool refuse(struct connection *c, enum fault_kind kind, const char *why,
                   bool is_head_only, bool keeps_alive, const char *extra) {
    struct listener_answer answer = {.body = {.max_bytes = MAX_ANSWER_BYTES}};
    listener_refuse(&answer, kind, "%s", why);
    if (kind == FAULT_OVERLOADED || kind == FAULT_NOT_READY)
        answer.retry_after_s = 1;
    bool goes_on = write_answer(c, &answer, is_head_only, keeps_alive, extra);
    buffer_free(&answer.body);
    return goes_on;
}

/* ---- Requests --------------------------------------------------------------------- */

/* The bytes of the next head. False: nothing came, or what came was refused. */
static bool read_head(struct connection *c) {
    int64_t deadline = clock_now_ns() + c->listener->options.idle_ns;
    uint32_t n_before = c->gate.n_messages;
    c->n_head = 0;
    while (c->gate.n_messages == n_before) {
        if (c->at == c->n_input) {
            c->at = 0;
            c->n_input = receive(c->fd, c->input, sizeof c->input, c->listener->stop_fd,
                                 deadline);
            if (c->n_input == 0) {
                bool is_late = c->n_head && !atomic_load(&c->listener->is_stopping) &&
                               clock_now_ns() >= deadline;
                if (is_late)
                    refuse(c, FAULT_SLOW_CLIENT, "the head did not come in time", false,
                           false, "");
                return false;
            }
        }
        if (c->n_head == 0)
            deadline = clock_now_ns() + c->listener->options.head_ns;
        gate_feed(&c->gate, c->input + c->at, 1);
        if (c->gate.fault != FAULT_NONE || c->n_head == sizeof c->head) {
            refuse(c, c->gate.fault ? c->gate.fault : FAULT_HEADERS_TOO_LARGE,
                   c->gate.fault ? c->gate.why : "the head is too long", false, false,
                   "");
            linger(c);
            return false;
        }
        c->head[c->n_head++] = c->input[c->at++];
    }
    return true;
}

static size_t body_bytes_of(const struct gate *g) {
    return gate_is_in_body(g) ? (size_t)g->n_body_left : 0;
}

/* The whole body, into *body. */
static bool read_body(struct connection *c, struct buffer *body) {
    int64_t deadline = clock_now_ns() + c->listener->options.body_ns;
    while (gate_is_in_body(&c->gate)) {
        if (c->at == c->n_input) {
            c->at = 0;
            c->n_input = receive(c->fd, c->input, sizeof c->input, c->listener->stop_fd,
                                 deadline);
            if (c->n_input == 0) {
                if (!atomic_load(&c->listener->is_stopping) &&
                    clock_now_ns() >= deadline)
                    refuse(c, FAULT_SLOW_CLIENT, "the body did not come in time", false,
                           false, "");
                return false;
            }
        }
        size_t n = c->n_input - c->at;
        if (n > c->gate.n_body_left)
            n = (size_t)c->gate.n_body_left;
        gate_feed(&c->gate, c->input + c->at, n);
        if (buffer_append(body, c->input + c->at, n, NULL) != STATUS_OK) {
            refuse(c, FAULT_OVERLOADED, "no memory for the body", false, false, "");
            return false;
        }
        c->at += n;
    }
    return true;
}

static bool is_allowed(const struct listener *l, const struct listener_head *head) {
    char authorization[CREDENTIAL_BYTES], api_key[CREDENTIAL_BYTES];
    bool is_good = head->authorization.n_bytes < sizeof authorization &&
                   head->api_key.n_bytes < sizeof api_key;
    if (is_good) {
        snprintf(authorization, sizeof authorization, "%.*s",
                 (int)head->authorization.n_bytes,
                 head->authorization.n_bytes ? head->authorization.data : "");
        snprintf(api_key, sizeof api_key, "%.*s", (int)head->api_key.n_bytes,
                 head->api_key.n_bytes ? head->api_key.data : "");
        is_good = auth_allows(l->auth, authorization, api_key);
    }
    explicit_bzero(authorization, sizeof authorization);
    explicit_bzero(api_key, sizeof api_key);
    return is_good;
}

static bool is_method(const struct listener_route *route, struct view method) {
    struct view own = view_of_string(route->method);
    return view_equal(own, method) ||
           (view_equal(own, VIEW("GET")) && view_equal(method, VIEW("HEAD")));
}

/* The route of a request; without one *why says so, and *allow which methods there are. */
static const struct listener_route *find_route(const struct listener *l,
                                               const struct listener_head *head,
                                               enum fault_kind *why, char *allow,
                                               size_t cap_allow) {
    size_t n = 0;
    *why = FAULT_NOT_FOUND;
    for (size_t i = 0; i < l->options.n_routes; i++) {
        const struct listener_route *route = &l->options.routes[i];
        if (!view_equal(view_of_string(route->path), head->path))
            continue;
        if (is_method(route, head->method))
            return route;
        *why = FAULT_METHOD;
        int more =
            snprintf(allow + n, cap_allow - n, "%s%s%s", n == 0 ? "Allow: " : ", ",
                     route->method, strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
        if (more > 0 && (size_t)more + 3 < cap_allow - n)
            n += (size_t)more;
        else
            break;
    }
    if (n)
        snprintf(allow + n, cap_allow - n, "\r\n");
    else
        allow[0] = '\0';
    return NULL;
}

/* Body, handler, answer. The body's memory is counted while it lives. */
static bool serve(struct connection *c, const struct listener_route *route,
                  const struct listener_head *head, bool is_head_only) {
    struct listener *l = c->listener;
    size_t n_body = body_bytes_of(&c->gate);
    if (atomic_fetch_add(&l->n_body_bytes, n_body) + n_body > ALL_BODIES_BYTES) {
        atomic_fetch_sub(&l->n_body_bytes, n_body);
        refuse(c, FAULT_OVERLOADED, "too many bodies at the same time", false, false,
               "");
        linger(c);
        return false;
    }
    bool goes_on = true;
    struct buffer body = {.max_bytes = n_body};
    if (n_body && head->expects_continue && c->at == c->n_input) {
        static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
        goes_on = send_all(c->fd, go, sizeof go - 1, clock_now_ns() + WRITE_NS);
    }
    if (goes_on && read_body(c, &body)) {
        struct listener_answer answer = {.code = 200,
                                         .body = {.max_bytes = MAX_ANSWER_BYTES}};
        route->handle(
            route->context,
            &(struct listener_request){.method = head->method,
                                       .path = head->path,
                                       .query = head->query,
                                       .content_type = head->content_type,
                                       .body = view_of(body.data, body.n_bytes)},
            &answer);
        goes_on = write_answer(c, &answer, is_head_only,
                               head->keeps_alive && !atomic_load(&l->is_stopping), "");
        buffer_free(&answer.body);
    } else {
        goes_on = false;
    }
    buffer_free(&body);
    atomic_fetch_sub(&l->n_body_bytes, n_body);
    return goes_on;
}

/* One request; whether there may be another. */
static bool serve_one(struct connection *c) {
    struct listener *l = c->listener;
    struct listener_head head;
    enum fault_kind why = FAULT_NONE;
    const char *message = "there is nothing under this path";
    char extra[160] = "";
    if (!read_head(c))
        return false;
    listener_head_read(view_of(c->head, c->n_head), &head);
    bool is_head_only = view_equal(head.method, VIEW("HEAD"));
    const struct listener_route *route =
        find_route(l, &head, &why, extra, sizeof extra);
    if (!route && why == FAULT_METHOD) {
        message = "this path has other methods";
    } else if (route && route->needs_key && l->auth && !is_allowed(l, &head)) {
        why = FAULT_UNAUTHORIZED;
        message = "an API key is needed";
        snprintf(extra, sizeof extra, "WWW-Authenticate: Bearer\r\n");
    } else if (route && body_bytes_of(&c->gate) > l->options.max_body_bytes) {
        why = FAULT_TOO_LARGE;
        message = "the body is longer than this listener takes";
    } else if (route && head.expects_otherwise) {
        why = FAULT_MALFORMED;
        message = "Expect must be 100-continue";
    } else if (route) {
        return serve(c, route, &head, is_head_only);
    }
    bool has_body = gate_is_in_body(&c->gate);
    bool goes_on =
        refuse(c, why, message, is_head_only, head.keeps_alive && !has_body, extra);
    if (has_body)
        linger(c);
    return goes_on;
}

static void *run_connection(void *context) {
    struct connection *c = context;
    struct listener *l = c->listener;
    while (!atomic_load(&l->is_stopping) && serve_one(c))
        ;
    pthread_mutex_lock(&l->lock);
    close(c->fd);
    c->fd = -1;
    c->use = SLOT_DONE;
    pthread_cond_signal(&l->ended);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- Accepting -------------------------------------------------------------------- */

/* A free place, whose last thread has been joined; NULL when all are taken. */
static struct connection *take_slot(struct listener *l) {
    struct connection *slot = NULL;
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < LISTENER_CONNECTIONS; i++) {
        struct connection *c = &l->connections[i];
        if (c->use == SLOT_DONE) {
            pthread_join(c->thread, NULL);
            c->has_thread = false;
            c->use = SLOT_FREE;
        }
        if (c->use == SLOT_FREE && !slot)
            slot = c;
    }
    pthread_mutex_unlock(&l->lock);
    return slot;
}

/* Its threads take no signals: those are the program's own threads' to handle. */
static int start_thread(pthread_t *thread, void *(*run)(void *), void *context) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static void turn_away(int fd) {
    static const char busy[] =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        "Content-Length: 68\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        "{\"error\":\"too many connections, try again\",\"error_type\":\"not_ready\"}";
    if (send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL) < 0)
        log_message(LOG_LEVEL_DEBUG, "listener", "a client left before its answer");
    shutdown(fd, SHUT_WR);
    close(fd);
}

static void admit(struct listener *l, int fd) {
    struct connection *c = take_slot(l);
    int on = 1;
    if (!c) {
        turn_away(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *c = (struct connection){.listener = l, .fd = fd, .use = SLOT_RUNNING};
    int failed = start_thread(&c->thread, run_connection, c);
    c->has_thread = failed == 0;
    if (failed) {
        c->use = SLOT_FREE;
        turn_away(fd);
    }
}

static void *run_listener(void *context) {
    struct listener *l = context;
    while (!atomic_load(&l->is_stopping)) {
        struct sockaddr_storage from;
        socklen_t n_from = sizeof from;
        int fd = accept4(l->fd, (struct sockaddr *)&from, &n_from,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            admit(l, fd);
        else if (errno == EAGAIN)
            wait_for(l->fd, POLLIN, l->stop_fd, INT64_MAX);
        else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
                 errno == ENOBUFS) /* nothing to do but wait until some are closed */
            wait_for(l->stop_fd, POLLIN, -1, clock_now_ns() + ACCEPT_PAUSE_NS);
    }
    return NULL;
}

static enum status bind_socket(struct listener *l, struct error *err) {
    struct sockaddr_storage address;
    socklen_t n_bytes = 0;
    bool is_loopback = false;
    int on = 1;
    const char *text = l->options.address;
    enum status status = listener_address(text, &address, &n_bytes, &is_loopback, err);
    if (status != STATUS_OK)
        return status;
    if (!is_loopback && !l->auth)
        return error_set(
            err, STATUS_INVALID,
            "cannot listen on %s: an address that others can reach needs a "
            "file of API keys (--help names the option)",
            text);
    l->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd >= 0)
        setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr *any = (struct sockaddr *)&address;
    if (l->fd < 0 || bind(l->fd, any, n_bytes) != 0 ||
        listen(l->fd, LISTENER_CONNECTIONS) != 0 ||
        getsockname(l->fd, any, &n_bytes) != 0)
        return error_set(err, STATUS_IO, "cannot listen on %s: %s", text,
                         strerror(errno));
    struct sockaddr_in v4; /* the port lies at the same place in both */
    memcpy(&v4, &address, sizeof v4);
    l->port = ntohs(v4.sin_port);
    return STATUS_OK;
}

enum status listener_open(const struct listener_options *options, struct listener **out,
                          struct error *err) {
    pthread_condattr_t attributes;
    *out = NULL;
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a listener");
    l->fd = l->stop_fd = -1;
    l->options = *options;
    if (l->options.max_body_bytes == 0)
        l->options.max_body_bytes = DEFAULT_BODY_BYTES;
    if (l->options.head_ns == 0)
        l->options.head_ns = HEAD_NS;
    if (l->options.body_ns == 0)
        l->options.body_ns = BODY_NS;
    if (l->options.idle_ns == 0)
        l->options.idle_ns = IDLE_NS;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&l->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    enum status status = STATUS_OK;
    l->connections = calloc(LISTENER_CONNECTIONS, sizeof *l->connections);
    if (!l->connections)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a listener");
    if (status == STATUS_OK && options->keys)
        status = auth_open(options->keys, &l->auth, err);
    if (status == STATUS_OK)
        status = bind_socket(l, err);
    if (status == STATUS_OK && (l->stop_fd = eventfd(0, EFD_CLOEXEC)) < 0)
        status = error_set(err, STATUS_IO, "no eventfd: %s", strerror(errno));
    if (status == STATUS_OK) {
        int failed = start_thread(&l->thread, run_listener, l);
        l->has_thread = failed == 0;
        if (failed)
            status = error_set(err, STATUS_IO, "no thread for a listener: %s",
                               strerror(failed));
    }
    if (status == STATUS_OK)
        *out = l;
    else
        listener_close(l);
    return status;
}

int listener_port(const struct listener *l) {
    return l->port;
}

static size_t count_running(const struct listener *l) {
    size_t n = 0;
    for (size_t i = 0; i < LISTENER_CONNECTIONS; i++)
        n += l->connections[i].use == SLOT_RUNNING;
    return n;
}

/* Joins every connection's thread; those that are not done in time are cut first. */
static void end_connections(struct listener *l) {
    int64_t deadline = clock_now_ns() + STOP_NS;
    struct timespec until = {.tv_sec = deadline / CLOCK_NS_PER_SECOND,
                             .tv_nsec = deadline % CLOCK_NS_PER_SECOND};
    pthread_mutex_lock(&l->lock);
    while (count_running(l) > 0 &&
           pthread_cond_timedwait(&l->ended, &l->lock, &until) != ETIMEDOUT)
        ;
    for (size_t i = 0; i < LISTENER_CONNECTIONS; i++)
        if (l->connections[i].use == SLOT_RUNNING)
            shutdown(l->connections[i].fd, SHUT_RDWR);
    pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < LISTENER_CONNECTIONS; i++)
        if (l->connections[i].has_thread)
            pthread_join(l->connections[i].thread, NULL);
}

void listener_close(struct listener *l) {
    if (!l)
        return;
    atomic_store(&l->is_stopping, true);
    if (l->stop_fd >= 0 && eventfd_write(l->stop_fd, 1) != 0)
        log_message(LOG_LEVEL_ERROR, "listener", "cannot wake the listener's threads");
    if (l->has_thread) {
        pthread_join(l->thread, NULL);
        end_connections(l);
    }
    if (l->fd >= 0)
        close(l->fd);
    if (l->stop_fd >= 0)
        close(l->stop_fd);
    auth_close(l->auth);
    pthread_cond_destroy(&l->ended);
    pthread_mutex_destroy(&l->lock);
    free(l->connections);
    free(l);
}
