/* SPDX-License-Identifier: Apache-2.0 */
#include "server/connections.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/connections_table.h"
#include "server/request.h"

#define MAX_FDS (1 << 20)
/* What a refused client may still send without having its answer torn away by a reset. */
#define MAX_DRAINED_BYTES (64u << 10)

static struct {
    struct connections_options options;
    pthread_mutex_t lock;              /* of add, remove, watch and sweep */
    struct connection *_Atomic *by_fd; /* [n_fds] */
    int n_fds, highest;
    struct pollfd *polled; /* [n_fds], for the sweep */
    struct job **jobs;
    atomic_int n, n_busy;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

enum status connections_open(const struct connections_options *options,
                             struct error *err) {
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    table.n_fds = limit.rlim_cur < MAX_FDS ? (int)limit.rlim_cur : MAX_FDS;
    table.options = *options;
    table.highest = -1;
    table.by_fd = calloc((size_t)table.n_fds, sizeof *table.by_fd);
    table.polled = calloc((size_t)table.n_fds, sizeof *table.polled);
    table.jobs = calloc((size_t)table.n_fds, sizeof *table.jobs);
    if (table.by_fd && table.polled && table.jobs)
        return STATUS_OK;
    connections_close();
    return error_set(err, STATUS_NO_MEMORY, "no memory for a table of %d connections",
                     table.n_fds);
}

void connections_close(void) {
    for (int fd = 0; table.by_fd && fd <= table.highest; fd++)
        connections_remove(fd);
    free((void *)table.by_fd);
    free(table.polled);
    free(table.jobs);
    table.by_fd = NULL;
    table.polled = NULL;
    table.jobs = NULL;
}

enum status connections_add(int fd, bool is_tls, struct error *err) {
    if (!table.by_fd || fd < 0 || fd >= table.n_fds)
        return error_set(err, STATUS_LIMIT, "no place for file descriptor %d", fd);
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a connection");
    c->fd = fd;
    c->is_tls = is_tls;
    atomic_store(&c->read_ns, clock_now_ns());
    /* Nothing of the handshake comes by here: it has to be over in the time for a head. */
    if (is_tls)
        atomic_store(&c->began_ns, clock_now_ns());
    pthread_mutex_lock(&table.lock);
    free(atomic_exchange(&table.by_fd[fd], c));
    if (fd > table.highest)
        table.highest = fd;
    pthread_mutex_unlock(&table.lock);
    atomic_fetch_add(&table.n, 1);
    metrics_connection(table.options.metrics, 1);
    return STATUS_OK;
}

void connections_remove(int fd) {
    if (!connection_of(fd))
        return;
    connections_busy(fd, false);
    pthread_mutex_lock(&table.lock);
    free(atomic_exchange(&table.by_fd[fd], NULL));
    pthread_mutex_unlock(&table.lock);
    atomic_fetch_sub(&table.n, 1);
    metrics_connection(table.options.metrics, -1);
}

int32_t connections_count(void) {
    return atomic_load(&table.n);
}

int32_t connections_n_busy(void) {
    return atomic_load(&table.n_busy);
}

struct connection *connection_of(int fd) {
    if (!table.by_fd || fd < 0 || fd >= table.n_fds)
        return NULL;
    return atomic_load_explicit(&table.by_fd[fd], memory_order_acquire);
}

void connections_busy(int fd, bool is_busy) {
    struct connection *c = connection_of(fd);
    if (!c)
        return;
    atomic_store(&c->read_ns, clock_now_ns());
    bool was_busy = atomic_exchange(&c->is_busy, is_busy);
    atomic_fetch_add(&table.n_busy, is_busy - was_busy);
}

void connections_watch(int fd, struct job *job) {
    pthread_mutex_lock(&table.lock);
    struct connection *c = connection_of(fd);
    if (c)
        c->job = job;
    pthread_mutex_unlock(&table.lock);
}

/* ---- reading ---- */

/* Answers for the library, which knows nothing of it. */
static void refuse(struct connection *c, const struct channel *channel) {
    struct fault fault = {0};
    struct buffer body = {.max_bytes = 4096};
    struct error err = {0};
    char head[256], rest[4096], id[REQUEST_ID_BYTES];
    struct log_line line;
    if (c->is_refused)
        return;
    c->is_refused = true;
    if (c->gate.fault != FAULT_NONE)
        fault_set(&fault, c->gate.fault, "%s", c->gate.why);
    else if (atomic_load(&c->verdict) == VERDICT_SLOW)
        fault_set(&fault, FAULT_SLOW_CLIENT, "the request came too slowly");
    else
        return;
    int code = fault_code(fault.kind);
    metrics_gate(table.options.metrics, code);
    request_make_id(id);
    log_begin(&line, LOG_LEVEL_INFO, "refused");
    log_integer(&line, "code", code);
    log_string(&line, "error", fault_type(fault.kind));
    log_string(&line, "message", fault.message);
    log_string(&line, "request_id", id);
    log_end(&line);
    if (fault_write(&fault, &body, &err) == STATUS_OK) {
        int n = snprintf(head, sizeof head,
                         "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
                         "X-Request-Id: %s\r\nConnection: close\r\n"
                         "Content-Length: %zu\r\n\r\n",
                         code, fault_reason(fault.kind), id, body.n_bytes);
        struct buffer whole = {.max_bytes = 8192};
        if (buffer_append(&whole, head, (size_t)n, &err) == STATUS_OK &&
            buffer_append(&whole, body.data, body.n_bytes, &err) == STATUS_OK)
            channel->write(channel->context, whole.data, whole.n_bytes);
        buffer_free(&whole);
    }
    buffer_free(&body);
    for (size_t n = 0; n < MAX_DRAINED_BYTES;) {
        ssize_t got = channel->read(channel->context, rest, sizeof rest);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
}

/* Writes down, for the sweep, what is coming since when. */
static void note_progress(struct connection *c, size_t n_bytes) {
    int64_t now = clock_now_ns();
    bool is_in_body = gate_is_in_body(&c->gate);
    bool is_coming = is_in_body || gate_is_in_head(&c->gate);
    bool was_in_body = atomic_load(&c->is_in_body);
    atomic_store(&c->read_ns, now);
    if (!is_coming) {
        atomic_store(&c->began_ns, 0);
    } else if (is_in_body != was_in_body || !atomic_load(&c->began_ns)) {
        atomic_store(&c->n_body, 0);
        atomic_store(&c->began_ns, now);
    }
    atomic_store(&c->is_in_body, is_in_body);
    if (is_in_body)
        atomic_fetch_add(&c->n_body, n_bytes);
}

ssize_t connection_read(struct connection *c, const struct channel *channel, void *out,
                        size_t cap_bytes) {
    if (c->gate.fault != FAULT_NONE || atomic_load(&c->verdict) != VERDICT_NONE) {
        refuse(c, channel);
        return 0;
    }
    ssize_t n = channel->read(channel->context, out, cap_bytes);
    if (n <= 0)
        return n;
    size_t n_good = gate_feed(&c->gate, out, (size_t)n);
    note_progress(c, n_good);
    if (c->gate.fault == FAULT_NONE)
        return n;
    if (n_good == 0) {
        refuse(c, channel);
        return 0;
    }
    /* The requests before the bad one are answered first. That there is more to come the
     * library learns by the end of the stream. */
    shutdown(c->fd, SHUT_RD);
    return (ssize_t)n_good;
}

static ssize_t plain_read(void *context, void *out, size_t cap_bytes) {
    return recvfrom(*(int *)context, out, cap_bytes, MSG_DONTWAIT, NULL, NULL);
}

static void plain_write(void *context, const void *data, size_t n_bytes) {
    (void)!send(*(int *)context, data, n_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* In place of the C library's: see connections.h. */
__attribute__((visibility("default"))) ssize_t recv(int fd, void *out, size_t cap_bytes,
                                                    int flags) {
    struct connection *c = connection_of(fd);
    if (!c || c->is_tls)
        return recvfrom(fd, out, cap_bytes, flags, NULL, NULL);
    struct channel channel = {&fd, plain_read, plain_write};
    return connection_read(c, &channel, out, cap_bytes);
}

/* ---- sweeping ---- */

static bool is_slow(const struct connection *c, int64_t now) {
    const struct connections_options *o = &table.options;
    int64_t began = atomic_load((_Atomic int64_t *)&c->began_ns), spent = now - began;
    if (!began)
        return false;
    if (!atomic_load((atomic_bool *)&c->is_in_body))
        return spent > o->head_ns;
    int64_t silent = now - atomic_load((_Atomic int64_t *)&c->read_ns);
    if (spent > o->body_ns || silent > o->head_ns)
        return true;
    double expected =
        (double)(spent - o->body_grace_ns) * 1e-9 * (double)o->min_bytes_per_s;
    return (double)atomic_load((_Atomic uint64_t *)&c->n_body) < expected;
}

static bool is_idle(const struct connection *c, int64_t now, int64_t idle_ns) {
    return idle_ns >= 0 && !atomic_load((_Atomic int64_t *)&c->began_ns) &&
           !atomic_load((atomic_bool *)&c->is_busy) &&
           now - atomic_load((_Atomic int64_t *)&c->read_ns) > idle_ns;
}

/* The end of the stream wakes the library, whose next read then ends the connection. */
static void judge(struct connection *c, int64_t now, int64_t idle_ns) {
    int verdict = is_slow(c, now)            ? VERDICT_SLOW
                  : is_idle(c, now, idle_ns) ? VERDICT_IDLE
                                             : VERDICT_NONE;
    if (verdict == VERDICT_NONE || atomic_load(&c->verdict) != VERDICT_NONE)
        return;
    atomic_store(&c->verdict, verdict);
    shutdown(c->fd, SHUT_RD);
}

void connections_sweep(int64_t now_ns, int64_t idle_ns) {
    nfds_t n = 0;
    pthread_mutex_lock(&table.lock);
    for (int fd = 0; fd <= table.highest; fd++) {
        struct connection *c = connection_of(fd);
        if (!c)
            continue;
        judge(c, now_ns, idle_ns);
        if (!c->job || atomic_load(&c->verdict) != VERDICT_NONE)
            continue;
        table.jobs[n] = c->job;
        table.polled[n++] = (struct pollfd){.fd = fd, .events = POLLRDHUP};
    }
    /* Still under the lock: whoever is answered has to unwatch first. */
    if (n && poll(table.polled, n, 0) > 0)
        for (nfds_t i = 0; i < n; i++)
            if (table.polled[i].revents & (POLLRDHUP | POLLHUP | POLLERR))
                batcher_cancel(table.options.batcher, table.jobs[i], FAULT_CLIENT_GONE);
    pthread_mutex_unlock(&table.lock);
}
