/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_check.c - see queue.h: what can be known of a server without using it.
 *
 * A server says its version in the first line of every connection, before TLS and before it
 * asks who we are; libnats keeps that to itself. Whether it flushes what it acknowledges is
 * told on the monitoring port alone (/varz), by servers that have the setting at all.
 */
#include "store/queue/queue.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "store/queue/queue_url.h"

#define ANSWER_NS (3 * CLOCK_NS_PER_SECOND)
#define INFO_MAX_BYTES ((size_t)64 << 10)
#define VARZ_MAX_BYTES ((size_t)1 << 20)

static bool wait_for(int fd, short events, int64_t deadline_ns) {
    int64_t left_ms = (deadline_ns - clock_now_ns()) / 1000000;
    struct pollfd p = {.fd = fd, .events = events};
    return left_ms > 0 && poll(&p, 1, (int)left_ms) == 1;
}

/* A socket, or -1. */
static int connect_to(const char *host, const char *port, int64_t deadline_ns) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int fd = -1;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -1;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        int error = 0;
        socklen_t n = sizeof error;
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    a->ai_protocol);
        if (fd < 0)
            continue;
        bool is_open =
            connect(fd, a->ai_addr, a->ai_addrlen) == 0 ||
            (errno == EINPROGRESS && wait_for(fd, POLLOUT, deadline_ns) &&
             getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0);
        if (!is_open) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

/* Reads until `end` was seen (NULL: until the peer closes). */
static enum status read_until(int fd, const char *end, struct buffer *b,
                              int64_t deadline_ns, struct error *err) {
    char block[4096];
    while (wait_for(fd, POLLIN, deadline_ns)) {
        ssize_t n = recv(fd, block, sizeof block, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return error_set(err, STATUS_IO, "cannot read: %s", strerror(errno));
        if (n == 0)
            return end ? error_set(err, STATUS_IO, "it closed the connection")
                       : STATUS_OK;
        enum status status = buffer_append(b, block, (size_t)n, err);
        if (status != STATUS_OK || (end && strstr(b->data, end)))
            return status;
    }
    return error_set(err, STATUS_TIMEOUT, "no answer within 3 s");
}

static enum status parse(const char *text, size_t n_bytes, json_t **out,
                         struct error *err) {
    static const struct json_limits limits = {.max_bytes = VARZ_MAX_BYTES,
                                              .max_depth = 32,
                                              .max_values = 1 << 16,
                                              .max_key_bytes = 1024};
    return json_parse(text, n_bytes, &limits, out, err);
}

/* "2.9.10" and the like: whether it is before 2.10.23. */
static bool is_old(const char *version) {
    static const long least[] = {2, 10, 23};
    const char *at = version;
    for (size_t i = 0; i < 3; i++) {
        char *end = NULL;
        long n = strtol(at, &end, 10);
        if (end == at || n != least[i])
            return end == at || n < least[i];
        at = *end == '.' ? end + 1 : end;
    }
    return false;
}

static enum status read_info(const struct queue_url *u, size_t i,
                             struct queue_facts *out, struct error *err) {
    struct buffer b = {.max_bytes = INFO_MAX_BYTES};
    json_t *info = NULL;
    int64_t deadline_ns = clock_now_ns() + ANSWER_NS;
    int fd = connect_to(u->servers[i].host, u->servers[i].port, deadline_ns);
    if (fd < 0)
        return error_set(err, STATUS_IO, "cannot connect");
    enum status status = read_until(fd, "\r\n", &b, deadline_ns, err);
    close(fd);
    if (status == STATUS_OK && strncmp(b.data, "INFO ", 5) != 0)
        status = error_set(err, STATUS_INVALID, "it is no nats-server");
    if (status == STATUS_OK)
        status = parse(b.data + 5, strcspn(b.data + 5, "\r"), &info, err);
    if (status == STATUS_OK) {
        const char *version = json_string_value(json_object_get(info, "version"));
        snprintf(out->version, sizeof out->version, "%s", version ? version : "?");
        out->has_jetstream = json_is_true(json_object_get(info, "jetstream"));
        out->is_cluster = json_object_get(info, "cluster") != NULL;
        out->is_old = is_old(out->version);
    }
    json_decref(info);
    buffer_free(&b);
    return status;
}

/* What does not answer stays unknown. */
static void read_monitor(const struct queue_url *u, struct queue_facts *out) {
    static const char request[] = "GET /varz HTTP/1.0\r\nHost: monitor\r\n\r\n";
    struct buffer b = {.max_bytes = VARZ_MAX_BYTES};
    json_t *varz = NULL;
    int64_t deadline_ns = clock_now_ns() + ANSWER_NS;
    int fd = connect_to(u->monitor_host, u->monitor_port, deadline_ns);
    if (fd < 0)
        return;
    const char *body = NULL;
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) ==
            (ssize_t)sizeof request - 1 &&
        read_until(fd, NULL, &b, deadline_ns, NULL) == STATUS_OK && b.data)
        body = strstr(b.data, "\r\n\r\n");
    close(fd);
    size_t n_head = body ? (size_t)(body + 4 - b.data) : 0;
    if (body && parse(body + 4, b.n_bytes - n_head, &varz, NULL) == STATUS_OK) {
        const json_t *jetstream = json_object_get(varz, "jetstream");
        const json_t *config = json_object_get(jetstream, "config");
        out->is_sync_known = config != NULL;
        out->is_sync_always = json_is_true(json_object_get(config, "sync_always"));
    }
    json_decref(varz);
    buffer_free(&b);
}

enum status queue_check(const char *url, struct queue_facts *out, struct error *err) {
    struct queue_url u;
    *out = (struct queue_facts){0};
    enum status status = queue_url_parse(url, &u, err);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < u.n_servers; i++) {
        status = read_info(&u, i, out, err);
        if (status == STATUS_OK)
            break;
        error_prefix(err, "queue %s", u.servers[i].url);
    }
    if (status != STATUS_OK)
        return status;
    if (u.monitor_host[0])
        read_monitor(&u, out);
    const char *warning = "";
    if (!out->has_jetstream)
        warning = "it has no JetStream: a queue needs it";
    else if (out->is_old)
        warning =
            "it acknowledges before it flushes, and cannot be told not to: power loss "
            "can take back what it acknowledged; use 2.10.23 or newer with "
            "sync_interval: always";
    else if (!out->is_sync_known)
        warning = "whether it flushes before it acknowledges is not known: set "
                  "sync_interval: always, and monitor=HOST:PORT in the URL shows it";
    else if (!out->is_sync_always)
        warning = "it acknowledges before it flushes: power loss can take back what it "
                  "acknowledged; set sync_interval: always";
    snprintf(out->warning, sizeof out->warning, "%s", warning);
    return STATUS_OK;
}
