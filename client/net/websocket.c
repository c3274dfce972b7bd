/* SPDX-License-Identifier: Apache-2.0
 *
 * websocket.c - a state machine that goes on where the last call stopped: connecting, sending
 * the handshake, reading its answer, open, over.
 *
 * wslay never touches the socket: it is fed from `input`, which is filled here, and what it
 * wants to send is collected in `output`. It runs without buffering of its own, since it
 * would allocate what a frame's header promises before the frame is there; messages are put
 * together in `inbox`: for each a struct entry, then its bytes.
 */
#include "client/net/websocket.h"

#include <curl/curl.h>
#include <wslay/wslay.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "client/net/websocket_handshake.h"

#define DEFAULT_MESSAGE_BYTES ((size_t)1 << 20)
#define MAX_TIMES 16 /* a message may be so many times max_message_bytes, cut */
#define CONNECT_NS (10 * CLOCK_NS_PER_SECOND)
#define CLOSE_NS (CLOCK_NS_PER_SECOND / 2)
#define INPUT_BYTES ((size_t)64 << 10)
#define INBOX_BYTES                                                                    \
    ((size_t)64 << 10) /* with so much of whole messages no more is decoded */
#define OUTPUT_BYTES ((size_t)64 << 10)
#define MAX_REQUEST_BYTES ((size_t)16 << 10)

enum state {
    STATE_NEW,
    STATE_CONNECTING,
    STATE_REQUEST, /* the handshake's request goes out */
    STATE_ANSWER,
    STATE_OPEN,
    STATE_OVER
};

struct entry {
    size_t n_bytes;
    bool is_cut;
};

struct websocket {
    enum state state;
    CURLU *url;
    char *ca_file;
    bool is_plain, is_loopback;
    int wake_fd;
    size_t max_message_bytes;
    int64_t connect_ns, connect_until_ns;

    bool has_fd; /* the socket is ours, not curl's */
    int fd;
    CURLM *multi;
    CURL *easy;
    bool is_added;
    char reason[CURL_ERROR_SIZE];

    char key[WEBSOCKET_KEY_BYTES];
    struct buffer output; /* what waits to be sent, from n_sent on */
    size_t n_sent;
    struct buffer head;
    struct websocket_answer answer;

    wslay_event_context_ptr frames;
    char input[INPUT_BYTES];
    size_t input_at, n_input; /* input[input_at..n_input) is not decoded yet */
    struct buffer inbox;
    size_t inbox_at;    /* of the first whole message's entry */
    size_t n_ready;     /* whole messages in the inbox */
    size_t open_at;     /* of the entry of the message that is coming */
    size_t open_bytes;  /* of that message, those cut off too */
    bool is_in_message; /* open_at is set */
    bool is_control;    /* the frame that is coming is no part of a message */
    bool is_too_large, is_binary, is_out_of_memory;
    struct error end; /* why the connection is over */

    int64_t n_bytes, last_byte_ns;
};

static CURLcode global_result;

static void init_curl(void) {
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- The socket ----------------------------------------------------------------------- */

enum io { IO_DONE, IO_AGAIN, IO_END, IO_BROKEN };

static enum io receive(struct websocket *w, char *out, size_t cap, size_t *n) {
    *n = 0;
    if (w->has_fd) {
        ssize_t got = recv(w->fd, out, cap, MSG_DONTWAIT);
        *n = got > 0 ? (size_t)got : 0;
        return got > 0                             ? IO_DONE
               : got == 0                          ? IO_END
               : errno == EAGAIN || errno == EINTR ? IO_AGAIN
                                                   : IO_BROKEN;
    }
    CURLcode code = curl_easy_recv(w->easy, out, cap, n);
    return code == CURLE_AGAIN ? IO_AGAIN
           : code != CURLE_OK  ? IO_BROKEN
           : *n == 0           ? IO_END
                               : IO_DONE;
}

static enum io transmit(struct websocket *w, const char *bytes, size_t n_bytes,
                        size_t *n) {
    *n = 0;
    if (w->has_fd) {
        ssize_t sent = send(w->fd, bytes, n_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        *n = sent > 0 ? (size_t)sent : 0;
        return sent >= 0                           ? IO_DONE
               : errno == EAGAIN || errno == EINTR ? IO_AGAIN
                                                   : IO_BROKEN;
    }
    CURLcode code = curl_easy_send(w->easy, bytes, n_bytes, n);
    return code == CURLE_OK ? IO_DONE : code == CURLE_AGAIN ? IO_AGAIN : IO_BROKEN;
}

/* Until the socket is ready (STATUS_OK), the deadline, or, unless wake_fd is -1, woken. */
static enum status wait_for(const struct websocket *w, short events, int wake_fd,
                            int64_t deadline_ns) {
    for (;;) {
        struct pollfd polled[2] = {{.fd = w->fd, .events = events},
                                   {.fd = wake_fd, .events = POLLIN}};
        int64_t left = deadline_ns - clock_now_ns();
        if (left < 0)
            left = 0;
        struct timespec timeout = {.tv_sec = left / CLOCK_NS_PER_SECOND,
                                   .tv_nsec = left % CLOCK_NS_PER_SECOND};
        int n = ppoll(polled, 2, &timeout, NULL);
        if (n < 0 && errno != EINTR)
            return STATUS_IO;
        if (n > 0)
            return polled[1].revents ? STATUS_CANCELLED : STATUS_OK;
        if (n == 0)
            return STATUS_TIMEOUT;
    }
}

static bool is_woken(const struct websocket *w) {
    struct pollfd polled = {.fd = w->wake_fd, .events = POLLIN};
    return w->wake_fd >= 0 && poll(&polled, 1, 0) > 0;
}

/* Sends of the output what can be sent without waiting. */
static enum io flush(struct websocket *w) {
    while (w->n_sent < w->output.n_bytes) {
        size_t n;
        enum io io =
            transmit(w, w->output.data + w->n_sent, w->output.n_bytes - w->n_sent, &n);
        if (io != IO_DONE)
            return io;
        w->n_sent += n;
    }
    buffer_clear(&w->output);
    w->n_sent = 0;
    return IO_DONE;
}

/* More input, if there is any now. Decoded input makes room first. */
static enum io fill(struct websocket *w) {
    size_t n;
    if (w->input_at == w->n_input)
        w->input_at = w->n_input = 0;
    if (w->n_input == sizeof w->input)
        return IO_DONE;
    enum io io = receive(w, w->input + w->n_input, sizeof w->input - w->n_input, &n);
    if (io == IO_DONE) {
        w->n_input += n;
        w->n_bytes += (int64_t)n;
        w->last_byte_ns = clock_now_ns();
    }
    return io;
}

/* ---- What wslay calls ------------------------------------------------------------------ */

static ssize_t on_receive(wslay_event_context_ptr frames, uint8_t *out, size_t cap,
                          int flags, void *context) {
    struct websocket *w = context;
    size_t n = w->n_input - w->input_at;
    (void)flags;
    if (n == 0 || (w->n_ready && w->inbox.n_bytes >= INBOX_BYTES)) {
        wslay_event_set_error(frames, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    if (n > cap)
        n = cap;
    memcpy(out, w->input + w->input_at, n);
    w->input_at += n;
    return (ssize_t)n;
}

static ssize_t on_send(wslay_event_context_ptr frames, const uint8_t *bytes,
                       size_t n_bytes, int flags, void *context) {
    struct websocket *w = context;
    (void)flags;
    if (buffer_append(&w->output, bytes, n_bytes, NULL) != STATUS_OK) {
        wslay_event_set_error(frames, WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
    }
    return (ssize_t)n_bytes;
}

static int on_mask(wslay_event_context_ptr frames, uint8_t *out, size_t n_bytes,
                   void *context) {
    (void)context;
    if (getrandom(out, n_bytes, 0) == (ssize_t)n_bytes)
        return 0;
    wslay_event_set_error(frames, WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static void on_frame(wslay_event_context_ptr frames,
                     const struct wslay_event_on_frame_recv_start_arg *frame,
                     void *context) {
    static const struct entry empty = {0};
    struct websocket *w = context;
    (void)frames;
    w->is_control = wslay_is_ctrl_frame(frame->opcode);
    w->is_binary |= frame->opcode == WSLAY_BINARY_FRAME;
    if (w->is_control || w->is_in_message || w->is_binary)
        return;
    w->open_at = w->inbox.n_bytes;
    w->open_bytes = 0;
    w->is_in_message = true;
    if (buffer_append(&w->inbox, &empty, sizeof empty, NULL) != STATUS_OK)
        w->is_out_of_memory = true;
}

static void on_chunk(wslay_event_context_ptr frames,
                     const struct wslay_event_on_frame_recv_chunk_arg *chunk,
                     void *context) {
    struct websocket *w = context;
    size_t n = chunk->data_length, room = 0;
    (void)frames;
    if (w->is_control || !w->is_in_message || w->is_out_of_memory)
        return;
    if (w->open_bytes < w->max_message_bytes)
        room = w->max_message_bytes - w->open_bytes;
    w->open_bytes += n;
    if (w->open_bytes > MAX_TIMES * w->max_message_bytes)
        w->is_too_large = true;
    if (n > room)
        n = room;
    if (n && buffer_append(&w->inbox, chunk->data, n, NULL) != STATUS_OK)
        w->is_out_of_memory = true;
}

static void on_message(wslay_event_context_ptr frames,
                       const struct wslay_event_on_msg_recv_arg *message,
                       void *context) {
    struct websocket *w = context;
    (void)frames;
    if (wslay_is_ctrl_frame(message->opcode) || !w->is_in_message ||
        w->is_out_of_memory)
        return;
    struct entry entry = {.n_bytes = w->inbox.n_bytes - w->open_at - sizeof entry,
                          .is_cut = w->open_bytes > w->max_message_bytes};
    memcpy(w->inbox.data + w->open_at, &entry, sizeof entry);
    w->is_in_message = false;
    w->n_ready++;
}

/* ---- Open and connect ------------------------------------------------------------------ */

static bool is_loopback_name(const char *host) {
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (strncmp(host, "127.", 4) == 0 && host[strspn(host, "0123456789.")] == '\0');
}

static enum status no_memory(struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "no memory for a WebSocket");
}

/* ws:// and wss:// are http:// and https:// to curl. */
static enum status read_url(struct websocket *w, const char *url, bool allows_plain,
                            struct error *err) {
    char text[MAX_REQUEST_BYTES / 2];
    char *host = NULL, *user = NULL;
    size_t n_scheme = strncasecmp(url, "wss://", 6) == 0  ? 6
                      : strncasecmp(url, "ws://", 5) == 0 ? 5
                                                          : 0;
    if (n_scheme == 0)
        return error_set(err, STATUS_INVALID,
                         "a WebSocket's address begins with wss://");
    w->is_plain = n_scheme == 5;
    int n = snprintf(text, sizeof text, "http%s://%s", w->is_plain ? "" : "s",
                     url + n_scheme);
    w->url = curl_url();
    if (!w->url)
        return no_memory(err);
    if (n < 0 || (size_t)n >= sizeof text ||
        curl_url_set(w->url, CURLUPART_URL, text, 0) != CURLUE_OK ||
        curl_url_get(w->url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
        return error_set(err, STATUS_INVALID, "not the address of a WebSocket server");
    w->is_loopback = is_loopback_name(host);
    curl_free(host);
    bool has_user = curl_url_get(w->url, CURLUPART_USER, &user, 0) == CURLUE_OK;
    curl_free(user);
    if (has_user)
        return error_set(err, STATUS_INVALID,
                         "the address of a WebSocket server holds no user name");
    if (w->is_plain && !(allows_plain && w->is_loopback))
        return error_set(err, STATUS_INVALID,
                         "ws:// is for loopback addresses in tests, expected wss://");
    return STATUS_OK;
}

enum status websocket_open(const struct websocket_options *options,
                           struct websocket **out, struct error *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct wslay_event_callbacks callbacks = {.recv_callback = on_receive,
                                              .send_callback = on_send,
                                              .genmask_callback = on_mask,
                                              .on_frame_recv_start_callback = on_frame,
                                              .on_frame_recv_chunk_callback = on_chunk,
                                              .on_msg_recv_callback = on_message};
    *out = NULL;
    pthread_once(&once, init_curl);
    if (global_result != CURLE_OK)
        return error_set(err, STATUS_INTERNAL, "curl does not start: %s",
                         curl_easy_strerror(global_result));
    struct websocket *w = calloc(1, sizeof *w);
    if (!w)
        return no_memory(err);
    w->has_fd = options->has_fd;
    w->fd = options->has_fd ? options->fd : -1;
    w->wake_fd = options->wake_fd;
    w->answer.retry_after_s = -1;
    w->max_message_bytes =
        options->max_message_bytes ? options->max_message_bytes : DEFAULT_MESSAGE_BYTES;
    w->connect_ns = options->connect_ns ? options->connect_ns : CONNECT_NS;
    w->output.max_bytes = OUTPUT_BYTES;
    w->head.max_bytes = WEBSOCKET_HEAD_BYTES;
    w->inbox.max_bytes = SIZE_MAX;
    enum status status = read_url(w, options->url, options->allows_plain, err);
    if (status == STATUS_OK && options->ca_file &&
        !(w->ca_file = strdup(options->ca_file)))
        status = no_memory(err);
    if (status == STATUS_OK && options->key)
        snprintf(w->key, sizeof w->key, "%s", options->key);
    else if (status == STATUS_OK)
        status = websocket_handshake_key(w->key, err);
    if (status == STATUS_OK &&
        wslay_event_context_client_init(&w->frames, &callbacks, w) != 0)
        status = no_memory(err);
    if (status == STATUS_OK) {
        wslay_event_config_set_no_buffering(w->frames, 1);
        wslay_event_config_set_max_recv_msg_length(w->frames,
                                                   MAX_TIMES * w->max_message_bytes);
        *out = w;
    } else {
        websocket_close(w);
    }
    return status;
}

static enum status start_connecting(struct websocket *w, struct error *err) {
    w->multi = curl_multi_init();
    w->easy = curl_easy_init();
    if (!w->multi || !w->easy)
        return no_memory(err);
    bool is_set =
        curl_easy_setopt(w->easy, CURLOPT_CURLU, w->url) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_CONNECT_ONLY, 1L) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_PROTOCOLS_STR,
                         w->is_plain ? "http" : "https") == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) ==
            CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2) ==
            CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_HTTPPROXYTUNNEL, 1L) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_ERRORBUFFER, w->reason) == CURLE_OK &&
        curl_easy_setopt(w->easy, CURLOPT_CONNECTTIMEOUT_MS,
                         (long)(w->connect_ns / 1000000 + 1)) == CURLE_OK &&
        (!w->is_loopback ||
         curl_easy_setopt(w->easy, CURLOPT_NOPROXY, "*") == CURLE_OK) &&
        (!w->ca_file ||
         (curl_easy_setopt(w->easy, CURLOPT_CAINFO, w->ca_file) == CURLE_OK &&
          curl_easy_setopt(w->easy, CURLOPT_CAPATH, NULL) == CURLE_OK));
    if (!is_set || curl_multi_add_handle(w->multi, w->easy) != CURLM_OK)
        return error_set(err, STATUS_INTERNAL, "curl refuses an option of a WebSocket");
    w->is_added = true;
    return STATUS_OK;
}

static enum status connection_failed(struct websocket *w, CURLcode code,
                                     struct error *err) {
    if (code == CURLE_OUT_OF_MEMORY)
        return no_memory(err);
    return error_set(err, STATUS_IO, "cannot connect: %s",
                     w->reason[0] ? w->reason : curl_easy_strerror(code));
}

/* Lets curl work until it is connected. */
static enum status go_on_connecting(struct websocket *w, int64_t deadline_ns,
                                    struct error *err) {
    for (;;) {
        int n_running = 0, n_left = 0;
        CURLMcode failed = curl_multi_perform(w->multi, &n_running);
        const CURLMsg *done = curl_multi_info_read(w->multi, &n_left);
        if (done && done->msg == CURLMSG_DONE) {
            curl_socket_t fd = CURL_SOCKET_BAD;
            if (done->data.result != CURLE_OK)
                return connection_failed(w, done->data.result, err);
            curl_easy_getinfo(w->easy, CURLINFO_ACTIVESOCKET, &fd);
            w->fd = fd;
            return fd == CURL_SOCKET_BAD
                       ? error_set(err, STATUS_IO, "cannot connect: no socket")
                       : STATUS_OK;
        }
        int64_t left_ms = (deadline_ns - clock_now_ns()) / 1000000;
        if (failed != CURLM_OK)
            return error_set(err, STATUS_IO, "cannot connect: %s",
                             curl_multi_strerror(failed));
        if (is_woken(w))
            return STATUS_CANCELLED;
        if (left_ms <= 0)
            return STATUS_TIMEOUT;
        struct curl_waitfd wake = {.fd = w->wake_fd, .events = CURL_WAIT_POLLIN};
        curl_multi_poll(w->multi, &wake, w->wake_fd >= 0 ? 1 : 0,
                        left_ms > 1000 ? 1000 : (int)left_ms, NULL);
    }
}

static enum status write_request(struct websocket *w, struct error *err) {
    char *host = NULL, *port = NULL, *path = NULL, *query = NULL;
    bool is_known = curl_url_get(w->url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                    curl_url_get(w->url, CURLUPART_PATH, &path, 0) == CURLUE_OK;
    bool has_port =
        is_known && curl_url_get(w->url, CURLUPART_PORT, &port, 0) == CURLUE_OK;
    bool has_query =
        is_known && curl_url_get(w->url, CURLUPART_QUERY, &query, 0) == CURLUE_OK;
    enum status status =
        is_known
            ? buffer_printf(&w->output, err,
                            "GET %s%s%s HTTP/1.1\r\nHost: %s%s%s\r\n"
                            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n"
                            "User-Agent: vigil/" VIGIL_VERSION "\r\n\r\n",
                            path, has_query ? "?" : "", has_query ? query : "", host,
                            has_port ? ":" : "", has_port ? port : "", w->key)
            : no_memory(err);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_free(query);
    return status;
}

/* Reads until the head is whole; what is behind it stays in the input. */
static enum status read_answer(struct websocket *w, int64_t deadline_ns,
                               struct error *err) {
    for (;;) {
        size_t n_before = w->head.n_bytes, n = w->n_input - w->input_at;
        if (n > WEBSOCKET_HEAD_BYTES - n_before)
            n = WEBSOCKET_HEAD_BYTES - n_before;
        if (buffer_append(&w->head, w->input + w->input_at, n, NULL) != STATUS_OK)
            return no_memory(err);
        size_t n_head = websocket_handshake_end(view_of(w->head.data, w->head.n_bytes));
        if (n_head) {
            w->input_at += n_head - n_before;
            return websocket_handshake_check(view_of(w->head.data, n_head), w->key,
                                             &w->answer, err);
        }
        if (w->head.n_bytes == WEBSOCKET_HEAD_BYTES)
            return error_set(err, STATUS_INVALID,
                             "the server's answer has more than %d bytes of headers",
                             WEBSOCKET_HEAD_BYTES);
        w->input_at = w->n_input = 0;
        enum io io = fill(w);
        if (io == IO_END || io == IO_BROKEN)
            return error_set(err, STATUS_IO,
                             "the connection ended within the server's answer");
        if (io == IO_AGAIN) {
            enum status status = wait_for(w, POLLIN, w->wake_fd, deadline_ns);
            if (status != STATUS_OK)
                return status;
        }
    }
}

/* One step of connecting; STATUS_OK moves on to the next. */
static enum status step(struct websocket *w, int64_t deadline_ns, struct error *err) {
    enum status status;
    switch (w->state) {
    case STATE_NEW:
        status = w->has_fd ? STATUS_OK : start_connecting(w, err);
        return status;
    case STATE_CONNECTING:
        status = w->has_fd ? STATUS_OK : go_on_connecting(w, deadline_ns, err);
        return status == STATUS_OK ? write_request(w, err) : status;
    case STATE_REQUEST: {
        enum io io;
        while ((io = flush(w)) == IO_AGAIN) {
            status = wait_for(w, POLLOUT, w->wake_fd, deadline_ns);
            if (status != STATUS_OK)
                return status;
        }
        return io == IO_DONE ? STATUS_OK
                             : error_set(err, STATUS_IO,
                                         "the connection broke within the handshake");
    }
    default:
        return read_answer(w, deadline_ns, err);
    }
}

enum status websocket_connect(struct websocket *w, int64_t deadline_ns,
                              struct error *err) {
    struct error unread = {0};
    err = err ? err : &unread;
    if (w->connect_until_ns == 0)
        w->connect_until_ns = clock_now_ns() + w->connect_ns;
    int64_t until = deadline_ns;
    if (w->connect_until_ns < until)
        until = w->connect_until_ns;
    while (w->state < STATE_OPEN) {
        enum status status = step(w, until, err);
        if (status == STATUS_TIMEOUT && until < deadline_ns)
            status = error_set(err, STATUS_IO, "cannot connect: no answer in time");
        if (status == STATUS_TIMEOUT || status == STATUS_CANCELLED)
            return status;
        if (status != STATUS_OK) {
            w->end = *err;
            w->state = STATE_OVER;
            return status;
        }
        w->state++;
    }
    return w->state == STATE_OPEN ? STATUS_OK
                                  : error_set(err, w->end.status, "%s", w->end.message);
}

int websocket_code(const struct websocket *w) {
    return w->answer.code;
}

int64_t websocket_retry_after_ns(const struct websocket *w) {
    return w->answer.retry_after_s < 0 ? -1
                                       : w->answer.retry_after_s * CLOCK_NS_PER_SECOND;
}

/* ---- Reading ----------------------------------------------------------------------------- */

/* Takes the message that was handed out last, and all before it, out of the inbox. */
static void drop_read(struct websocket *w) {
    size_t n_left = w->inbox.n_bytes - w->inbox_at;
    if (w->n_ready || w->inbox_at == 0)
        return;
    if (n_left)
        memmove(w->inbox.data, w->inbox.data + w->inbox_at, n_left);
    w->inbox.n_bytes = n_left;
    w->open_at -= w->is_in_message ? w->inbox_at : 0;
    w->inbox_at = 0;
}

static void take_message(struct websocket *w, struct websocket_message *out) {
    struct entry entry;
    memcpy(&entry, w->inbox.data + w->inbox_at, sizeof entry);
    out->bytes = view_of(w->inbox.data + w->inbox_at + sizeof entry, entry.n_bytes);
    out->is_cut = entry.is_cut;
    w->inbox_at += sizeof entry + entry.n_bytes;
    w->n_ready--;
}

/* The connection is over; the reason is kept for whoever reads the last messages first. */
static enum status end(struct websocket *w, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static enum status end(struct websocket *w, enum status status, const char *format,
                       ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(w->end.message, sizeof w->end.message, format, arguments);
    va_end(arguments);
    w->end.status = status;
    w->state = STATE_OVER;
    return status;
}

/* Says why with a close frame, as far as that can be sent now. */
static enum status refuse(struct websocket *w, uint16_t code, const char *why) {
    if (wslay_event_get_write_enabled(w->frames)) {
        wslay_event_queue_close(w->frames, code, NULL, 0);
        if (wslay_event_send(w->frames) == 0)
            flush(w);
    }
    return end(w, STATUS_INVALID, "%s", why);
}

/* What wslay has found in what it was given: STATUS_OK while the connection goes on. */
static enum status judge(struct websocket *w, int result) {
    if (result == WSLAY_ERR_NOMEM || w->is_out_of_memory)
        return end(w, STATUS_NO_MEMORY, "no memory for a WebSocket");
    if (w->is_binary)
        return refuse(w, WSLAY_CODE_UNSUPPORTED_DATA,
                      "the server sent a binary message");
    if (w->is_too_large)
        return refuse(w, WSLAY_CODE_MESSAGE_TOO_BIG,
                      "the server's message is too long");
    if (result != 0)
        return refuse(w, WSLAY_CODE_PROTOCOL_ERROR,
                      "the server sent a frame that is none");
    if (wslay_event_want_write(w->frames) && wslay_event_send(w->frames) != 0)
        return refuse(w, WSLAY_CODE_POLICY_VIOLATION,
                      "the server pings and does not read the answers");
    enum io io = flush(w);
    if (wslay_event_get_close_received(w->frames))
        return end(w, STATUS_NOT_FOUND, "the server closed, code %u",
                   (unsigned)wslay_event_get_status_code_received(w->frames));
    if (!wslay_event_get_read_enabled(w->frames))
        return end(w, STATUS_INVALID, "the server broke the protocol (%u)",
                   (unsigned)wslay_event_get_status_code_sent(w->frames));
    return io == IO_DONE || io == IO_AGAIN ? STATUS_OK
                                           : end(w, STATUS_IO, "the connection broke");
}

/* Fills the inbox from what can be had without waiting; IO_AGAIN: nothing can. */
static enum io work(struct websocket *w) {
    if (judge(w, wslay_event_recv(w->frames)) != STATUS_OK || w->n_ready)
        return IO_DONE;
    enum io io = fill(w);
    if (io == IO_END)
        end(w, STATUS_IO, "the connection ended without a close frame");
    else if (io == IO_BROKEN)
        end(w, STATUS_IO, "the connection broke");
    return io;
}

enum status websocket_read(struct websocket *w, int64_t deadline_ns,
                           struct websocket_message *out, struct error *err) {
    bool is_first = true;
    for (;; is_first = false) {
        if (w->n_ready) {
            take_message(w, out);
            return STATUS_OK;
        }
        drop_read(w);
        if (w->state != STATE_OPEN)
            return error_set(err, w->end.status, "%s", w->end.message);
        if (is_woken(w))
            return STATUS_CANCELLED;
        if (!is_first && clock_now_ns() >= deadline_ns)
            return STATUS_TIMEOUT;
        if (work(w) != IO_AGAIN)
            continue;
        short events = w->output.n_bytes ? POLLIN | POLLOUT : POLLIN;
        enum status status = wait_for(w, events, w->wake_fd, deadline_ns);
        if (status == STATUS_IO)
            return error_set(err, status, "cannot wait: %s", strerror(errno));
        if (status != STATUS_OK)
            return status;
    }
}

int64_t websocket_n_bytes(const struct websocket *w) {
    return w->n_bytes;
}

int64_t websocket_last_byte_ns(const struct websocket *w) {
    return w->last_byte_ns;
}

/* ---- Close ------------------------------------------------------------------------------- */

/* Sends our close frame and reads, whatever comes, until the server's. */
static void say_goodbye(struct websocket *w) {
    int64_t deadline = clock_now_ns() + CLOSE_NS;
    wslay_event_queue_close(w->frames, WSLAY_CODE_GOING_AWAY, NULL, 0);
    while (w->state == STATE_OPEN && clock_now_ns() < deadline) {
        buffer_clear(&w->inbox);
        w->n_ready = w->inbox_at = 0;
        w->is_in_message = false;
        short events = w->output.n_bytes ? POLLIN | POLLOUT : POLLIN;
        if (work(w) == IO_AGAIN && wait_for(w, events, -1, deadline) != STATUS_OK)
            break;
    }
}

void websocket_close(struct websocket *w) {
    if (!w)
        return;
    if (w->state == STATE_OPEN)
        say_goodbye(w);
    wslay_event_context_free(w->frames);
    if (w->is_added)
        curl_multi_remove_handle(w->multi, w->easy);
    curl_easy_cleanup(w->easy);
    curl_multi_cleanup(w->multi);
    curl_url_cleanup(w->url);
    if (w->has_fd)
        close(w->fd);
    buffer_free(&w->output);
    buffer_free(&w->head);
    buffer_free(&w->inbox);
    free(w->ca_file);
    free(w);
}
