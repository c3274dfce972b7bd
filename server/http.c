/* SPDX-License-Identifier: Apache-2.0 */
#include "server/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/connections.h"
#include "server/request.h"

#define BACKLOG 1024
#define CONNECTION_MEMORY_BYTES (32u << 10)
/* A body of a refused request up to this size is read, so that the connection can go on; of
 * a larger one the client may see a reset in place of the answer. */
#define MAX_DISCARDED_BYTES (16u << 20)
#define RETRY_AFTER_SECONDS "1"

#if MHD_VERSION < 0x00097002
#error "libmicrohttpd 0.9.71 or newer is needed"
#endif

struct http {
    struct http_options options;
    struct MHD_Daemon *daemon;
    atomic_int
        n_suspended; /* connections; the library cannot stop while there are any */
};

/* What the library keeps for us from the first call of a request to its end. */
struct exchange {
    struct http *http;
    struct request *request;
    struct MHD_Connection *connection;
    int fd;
    bool is_suspended, is_answered;
    int code;
};

/* ---- listening ---- */

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        return (ntohl(in->sin_addr.s_addr) >> 24) == 127;
    }
    const struct sockaddr_in6 *in = (const void *)address;
    return IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
}

static int try_listen(const struct addrinfo *info) {
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int kept = errno;
    close(fd);
    errno = kept;
    return -1;
}

enum status http_listen(const char *host, int32_t *port, int *fd, bool *is_public,
                        struct error *err) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", *port);
    int code = getaddrinfo(host, service, &hints, &found);
    if (code != 0)
        return error_set(err, STATUS_INVALID, "--host: no such address: %s",
                         gai_strerror(code));
    enum status status = STATUS_OK;
    *fd = try_listen(found);
    if (*fd < 0) {
        status = error_set(err, STATUS_IO, "cannot listen on %s, port %d: %s%s", host,
                           *port, strerror(errno),
                           errno == EADDRINUSE ? " (is another server running? --port "
                                                 "takes another one)"
                                               : "");
    } else {
        struct sockaddr_storage bound = {0};
        socklen_t n = sizeof bound;
        (void)getsockname(*fd, (struct sockaddr *)&bound, &n);
        *port = ntohs(bound.ss_family == AF_INET6
                          ? ((struct sockaddr_in6 *)&bound)->sin6_port
                          : ((struct sockaddr_in *)&bound)->sin_port);
        *is_public = !is_loopback((struct sockaddr *)&bound);
    }
    freeaddrinfo(found);
    return status;
}

/* ---- answers ---- */

static void add_headers(struct MHD_Response *response, const struct http *h,
                        const struct request *r) {
    char timing[128];
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    MHD_add_response_header(response, "X-Request-Id", r->id);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (route_is_post(r->route)) {
        request_timing(r, timing, sizeof timing);
        MHD_add_response_header(response, "Server-Timing", timing);
    }
    if (r->code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->allow);
    if (r->code == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (r->fault.kind == FAULT_OVERLOADED || r->fault.kind == FAULT_NOT_READY)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER,
                                RETRY_AFTER_SECONDS);
    /* After a POST without a length nobody knows where the next request begins. */
    if (service_is_draining(h->options.service) ||
        r->fault.kind == FAULT_LENGTH_REQUIRED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
}

static enum MHD_Result answer(struct http *h, struct exchange *x) {
    struct request *r = x->request;
    /* The library frees the text when it is sent; the log still wants its size. */
    void *text = r->reply.data;
    size_t n_bytes = r->reply.n_bytes;
    r->reply.data = NULL;
    static char nothing[1];
    struct MHD_Response *response =
        n_bytes ? MHD_create_response_from_buffer(n_bytes, text, MHD_RESPMEM_MUST_FREE)
                : MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(text);
        return MHD_NO;
    }
    if (!n_bytes)
        free(text);
    add_headers(response, h, r);
    enum MHD_Result result =
        MHD_queue_response(x->connection, (unsigned)r->code, response);
    MHD_destroy_response(response);
    x->is_answered = result == MHD_YES;
    x->code = r->code;
    return result;
}

/* ---- requests ---- */

static int fd_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

static const char *header(struct MHD_Connection *connection, const char *name) {
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static struct exchange *begin(struct http *h, struct MHD_Connection *connection,
                              const char *method, const char *path) {
    const char *length = header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);
    struct request_head head = {
        .method = method,
        .path = path,
        .content_type = header(connection, MHD_HTTP_HEADER_CONTENT_TYPE),
        .authorization = header(connection, MHD_HTTP_HEADER_AUTHORIZATION),
        .api_key = header(connection, "X-API-Key"),
        .request_id = header(connection, "X-Request-Id"),
        .has_length = length != NULL,
        .content_length = length ? strtoull(length, NULL, 10) : 0,
    };
    struct exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->http = h;
    x->connection = connection;
    x->fd = fd_of(connection);
    x->request = request_open(h->options.service, &head);
    if (!x->request) {
        free(x);
        return NULL;
    }
    connections_busy(x->fd, true);
    return x;
}

/* By the batcher's thread, or whichever cancels: wakes the connection's own, which may free
 * the job before this function ends. */
static void resume(struct job *job) {
    const struct exchange *x = request_of_job(job)->context;
    struct http *h = x->http;
    MHD_resume_connection(x->connection);
    atomic_fetch_sub(&h->n_suspended, 1);
}

/* The body is whole. */
static enum MHD_Result start(struct http *h, struct exchange *x) {
    struct request *r = x->request;
    if (!request_start(r))
        return answer(h, x);
    /* Suspended first: the answer may be there before this function ends. */
    r->context = x;
    x->is_suspended = true;
    atomic_fetch_add(&h->n_suspended, 1);
    MHD_suspend_connection(x->connection);
    connections_watch(x->fd, &r->call.job);
    if (!request_submit(r, resume)) {
        connections_watch(x->fd, NULL);
        MHD_resume_connection(x->connection);
        atomic_fetch_sub(&h->n_suspended, 1);
    }
    return MHD_YES;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection,
                              const char *path, const char *method, const char *version,
                              const char *data, size_t *n_data, void **state) {
    struct http *h = context;
    struct exchange *x = *state;
    (void)version;
    if (!x) {
        x = begin(h, connection, method, path);
        *state = x;
        if (!x)
            return MHD_NO;
        struct request *r = x->request;
        bool is_waiting = header(connection, MHD_HTTP_HEADER_EXPECT) != NULL;
        if (r->fault.kind != FAULT_NONE &&
            (r->content_length > MAX_DISCARDED_BYTES || is_waiting) &&
            !request_start(r))
            return answer(h, x);
        return MHD_YES;
    }
    if (*n_data) {
        request_add_body(x->request, data, *n_data);
        *n_data = 0;
        return MHD_YES;
    }
    if (x->is_answered)
        return MHD_YES;
    if (!x->is_suspended)
        return start(h, x);
    connections_watch(x->fd, NULL);
    request_finish(x->request);
    return answer(h, x);
}

static void completed(void *context, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode how) {
    struct exchange *x = *state;
    (void)context;
    (void)connection;
    if (!x)
        return;
    *state = NULL;
    /* The library may end a request without having come back to handle. */
    connections_watch(x->fd, NULL);
    connections_busy(x->fd, false);
    bool is_sent = x->is_answered && how == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    request_log(x->request, is_sent ? x->code : fault_code(FAULT_CLIENT_GONE));
    request_close(x->request);
    free(x);
}

static void connected(void *context, struct MHD_Connection *connection, void **state,
                      enum MHD_ConnectionNotificationCode what) {
    struct http *h = context;
    struct error err = {0};
    int fd = fd_of(connection);
    (void)state;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED)
        connections_remove(fd);
    else if (connections_add(fd, h->options.tls_key != NULL, &err) != STATUS_OK)
        log_message(LOG_LEVEL_ERROR, "connection", "%s", err.message);
}

/* Paths are compared as they were sent: no route needs an escape. */
static size_t leave_escapes(void *context, struct MHD_Connection *connection,
                            char *text) {
    (void)context;
    (void)connection;
    return strlen(text);
}

static void log_library(void *context, const char *format, va_list arguments) {
    char message[256];
    (void)context;
    vsnprintf(message, sizeof message, format, arguments);
    message[strcspn(message, "\n")] = '\0';
    log_message(LOG_LEVEL_DEBUG, "http", "%s", message);
}

/* ---- the daemon ---- */

enum status http_open(const struct http_options *options, struct http **out,
                      struct error *err) {
    *out = NULL;
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the HTTP server");
    h->options = *options;
    if (options->tls_key && connections_open_tls(err) != STATUS_OK) {
        free(h);
        return err->status;
    }
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
                     MHD_USE_ITC | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)options->tls_certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)options->tls_key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0,
         (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL}};
    if (options->tls_key)
        flags |= MHD_USE_TLS;
    else
        tls[0].option = MHD_OPTION_END;
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, handle, h, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
        MHD_OPTION_LISTEN_SOCKET, options->listen_fd, MHD_OPTION_THREAD_POOL_SIZE,
        options->n_threads > 1 ? (unsigned)options->n_threads : 0u,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)options->max_connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)options->max_per_address,
        MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)(options->idle_ns / CLOCK_NS_PER_SECOND),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_NOTIFY_CONNECTION,
        connected, h, MHD_OPTION_UNESCAPE_CALLBACK, leave_escapes, NULL,
        MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (!h->daemon) {
        free(h);
        return error_set(err, STATUS_IO, "cannot start the HTTP server%s",
                         options->tls_key ? " (is the certificate one for the key?)"
                                          : "");
    }
    *out = h;
    return STATUS_OK;
}

void http_drain(struct http *h) {
    int fd = MHD_quiesce_daemon(h->daemon);
    if (fd < 0)
        return;
    /* Who is in the backlog was told that he is connected. */
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    int accepted;
    while ((accepted = accept4(fd, (struct sockaddr *)&address, &n,
                               SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        MHD_add_connection(h->daemon, accepted, (struct sockaddr *)&address, n);
        n = sizeof address;
    }
    close(fd);
}

void http_close(struct http *h) {
    if (!h)
        return;
    /* Their jobs are done, but whoever does them may not have come to say so yet. */
    while (atomic_load(&h->n_suspended) > 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    MHD_stop_daemon(h->daemon);
    free(h);
}
