/* SPDX-License-Identifier: Apache-2.0
 *
 * source_push.c - posts that others send: POST /v1/posts on a small listener (listener.h),
 * the way in for every service that has no source of its own.
 *
 * Target: the address to listen on, 127.0.0.1:8090 when empty; one that others can reach
 * needs --push-keys. Bodies: push_body.h. Records: record.h.
 *
 *   200 {"accepted":N}  all N records are durable
 *   400, 413, 415       nothing was taken; the message tells the number of the bad record
 *   429                 the queue is full: nothing was taken, Retry-After
 *   503                 not durable in 10 s, or stopping: send it again (Retry-After). What
 *                       was taken nevertheless has the same ids then, and counts once.
 *
 * A request's records wait in a queue of QUEUE_BYTES until the pipeline takes them; its
 * handler waits until the last of them is committed. Not replayable: whoever is not told 200
 * sends again.
 *
 * Threads: the listener's put lines in, the reader's takes them out, the writer's tells what
 * is committed; one lock for all of it.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "client/net/listener.h"
#include "client/sources/push_body.h"
#include "client/sources/record.h"
#include "client/sources/source.h"
#include "client/sources/x_backoff.h"
#include "client/stream_options.h"

#define DEFAULT_ADDRESS "127.0.0.1:8090"
#define QUEUE_BYTES ((size_t)16 << 20) /* what a line costs beside its text included */
#define COMMIT_NS (10 * CLOCK_NS_PER_SECOND)
#define RETRY_AFTER_S 1

struct line {
    struct line *next;
    uint64_t number;
    int64_t received_ns;
    size_t n_bytes;
    char bytes[];
};

/* Lines in order. */
struct chain {
    struct line *first, **end; /* end: where the next one is hung */
    size_t n_bytes, n;
};

struct source {
    const struct source_settings *settings;
    int wake_fd, filled_fd; /* filled_fd is readable after a line was put in */
    int64_t commit_ns;
    struct listener *listener;
    struct listener_route route;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* committed or is_stopping */
    struct chain queue;
    uint64_t n_numbered, committed;
    bool is_stopping;

    struct line *current; /* the reader's: handed out by the last next */
    struct source_state state;
};

/* ---- Chains ------------------------------------------------------------------------------- */

static void chain_init(struct chain *c) {
    *c = (struct chain){.end = &c->first};
}

static void chain_free(struct chain *c) {
    while (c->first) {
        struct line *line = c->first;
        c->first = line->next;
        free(line);
    }
    chain_init(c);
}

static void chain_move(struct chain *to, struct chain *from) {
    *to->end = from->first;
    if (from->first)
        to->end = from->end;
    to->n_bytes += from->n_bytes;
    to->n += from->n;
    chain_init(from);
}

/* A record as a line of its own, tagged where its form does not show. */
static enum status chain_add(void *context, struct view record, struct error *err) {
    struct chain *c = context;
    char tag = record_tag(FORMAT_JSONL, record);
    size_t n_bytes = record.n_bytes + (tag != 0), n_all;
    struct line *line = size_add(sizeof *line, n_bytes, &n_all) ? malloc(n_all) : NULL;
    if (!line)
        return error_set(err, STATUS_NO_MEMORY, "no memory for pushed posts");
    *line = (struct line){.received_ns = clock_wall_ns(), .n_bytes = n_bytes};
    line->bytes[0] = tag;
    memcpy(line->bytes + (tag != 0), record.data, record.n_bytes);
    *c->end = line;
    c->end = &line->next;
    c->n_bytes += n_all;
    c->n++;
    return STATUS_OK;
}

/* ---- The request -------------------------------------------------------------------------- */

static void refuse(struct source *s, struct listener_answer *answer, enum status status,
                   const char *why) {
    enum fault_kind kind = status == STATUS_UNSUPPORTED ? FAULT_MEDIA_TYPE
                           : status == STATUS_LIMIT     ? FAULT_TOO_LARGE
                           : status == STATUS_NO_MEMORY ? FAULT_OVERLOADED
                                                        : FAULT_MALFORMED;
    s->state.n_errors++;
    listener_refuse(answer, kind, "%s", why);
    if (kind == FAULT_OVERLOADED)
        answer->retry_after_s = RETRY_AFTER_S;
}

/* Into the queue with all of it, or nothing. Returns the number of its last line; 0: full. */
static uint64_t enqueue(struct source *s, struct chain *lines) {
    uint64_t last = 0;
    pthread_mutex_lock(&s->lock);
    if (!s->is_stopping && s->queue.n_bytes + lines->n_bytes <= QUEUE_BYTES) {
        for (struct line *line = lines->first; line; line = line->next)
            line->number = ++s->n_numbered;
        last = s->n_numbered;
        chain_move(&s->queue, lines);
    }
    pthread_mutex_unlock(&s->lock);
    if (last && eventfd_write(s->filled_fd, 1) != 0)
        log_message(LOG_LEVEL_ERROR, "push", "cannot wake the reader");
    return last;
}

enum outcome { COMMITTED, LATE, STOPPING };

static enum outcome wait_committed(struct source *s, uint64_t number) {
    int64_t deadline = clock_now_ns() + s->commit_ns;
    struct timespec until = {.tv_sec = deadline / CLOCK_NS_PER_SECOND,
                             .tv_nsec = deadline % CLOCK_NS_PER_SECOND};
    int waited = 0;
    pthread_mutex_lock(&s->lock);
    while (s->committed < number && !s->is_stopping && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    enum outcome outcome = s->committed >= number ? COMMITTED
                           : s->is_stopping       ? STOPPING
                                                  : LATE;
    pthread_mutex_unlock(&s->lock);
    return outcome;
}

static void accept_lines(struct source *s, struct chain *lines,
                         struct listener_answer *answer) {
    size_t n = lines->n;
    uint64_t last = enqueue(s, lines);
    if (last == 0) {
        s->state.n_errors++;
        listener_refuse(answer, FAULT_OVERLOADED, "the queue of posts is full");
        answer->retry_after_s = RETRY_AFTER_S;
        return;
    }
    switch (wait_committed(s, last)) {
    case COMMITTED:
        if (buffer_printf(&answer->body, NULL, "{\"accepted\":%zu}", n) != STATUS_OK)
            buffer_clear(&answer->body); /* 200 says enough */
        break;
    case LATE:
        s->state.n_errors++;
        listener_refuse(answer, FAULT_TIMEOUT,
                        "the posts were not stored in time, send them again");
        answer->retry_after_s = RETRY_AFTER_S;
        break;
    case STOPPING:
        listener_refuse(answer, FAULT_NOT_READY, "stopping, send the posts again");
        answer->retry_after_s = RETRY_AFTER_S;
        break;
    }
}

static void handle_posts(void *context, const struct listener_request *request,
                         struct listener_answer *answer) {
    struct source *s = context;
    struct chain lines;
    struct error err = {0};
    enum push_form form = PUSH_DOCUMENT;
    size_t n = 0;
    chain_init(&lines);
    s->state.n_bytes += (int64_t)request->body.n_bytes;
    s->state.last_byte_ns = clock_now_ns();
    char *body = malloc(request->body.n_bytes + 1); /* the cutter writes in it */
    enum status status = push_body_form(request->content_type, &form, &err);
    if (!body)
        status = error_set(&err, STATUS_NO_MEMORY, "no memory for pushed posts");
    if (status == STATUS_OK) {
        if (request->body.n_bytes)
            memcpy(body, request->body.data, request->body.n_bytes);
        status = push_body_split(form, body, request->body.n_bytes, chain_add, &lines,
                                 &n, &err);
    }
    free(body);
    if (status == STATUS_OK && n == 0)
        status = error_set(&err, STATUS_INVALID, "there is no post in the body");
    if (status == STATUS_OK)
        accept_lines(s, &lines, answer);
    else
        refuse(s, answer, status, err.message);
    chain_free(&lines);
}

/* ---- The source --------------------------------------------------------------------------- */

static void push_close(struct source *s) {
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    listener_close(s->listener);
    if (s->filled_fd >= 0)
        close(s->filled_fd);
    chain_free(&s->queue);
    free(s->current);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Numbers go on behind those of the last run. */
static enum status read_cursor(struct source *s, const char *text, struct error *err) {
    size_t n = strspn(text, "0123456789");
    if (text[n] != '\0' || n > 18)
        return error_set(err, STATUS_INVALID, "push: a cursor is a count of posts");
    s->n_numbered = s->committed = strtoull(text, NULL, 10);
    return STATUS_OK;
}

static enum status push_open(const struct source_options *options, struct source **out,
                             struct error *err) {
    pthread_condattr_t attributes;
    *out = NULL;
    struct source *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a source");
    s->settings = options->settings;
    s->wake_fd = options->wake_fd;
    s->commit_ns = (int64_t)((double)COMMIT_NS * x_backoff_time_scale());
    chain_init(&s->queue);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    s->state.phase = SOURCE_STREAMING;
    s->route = (struct listener_route){.method = "POST",
                                       .path = "/v1/posts",
                                       .needs_key = true,
                                       .handle = handle_posts,
                                       .context = s};
    struct listener_options listening = {
        .address =
            options->target && options->target[0] ? options->target : DEFAULT_ADDRESS,
        .keys = s->settings ? s->settings->push_keys : NULL,
        .routes = &s->route,
        .n_routes = 1};
    enum status status = STATUS_OK;
    s->filled_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->filled_fd < 0)
        status = error_set(err, STATUS_IO, "no eventfd: %s", strerror(errno));
    if (status == STATUS_OK && options->cursor)
        status = read_cursor(s, options->cursor, err);
    if (status == STATUS_OK &&
        listener_open(&listening, &s->listener, err) != STATUS_OK)
        status = error_prefix(err, "push");
    if (status != STATUS_OK) {
        push_close(s);
        return status;
    }
    log_message(LOG_LEVEL_INFO, "push_listens", "posts are taken on port %d",
                listener_port(s->listener));
    *out = s;
    return STATUS_OK;
}

/* The next line out of the queue, into s->current. */
static bool dequeue(struct source *s) {
    free(s->current);
    s->current = NULL;
    pthread_mutex_lock(&s->lock);
    struct line *line = s->queue.first;
    if (line) {
        s->queue.first = line->next;
        if (!line->next)
            s->queue.end = &s->queue.first;
        s->queue.n_bytes -= sizeof *line + line->n_bytes;
        s->queue.n--;
    }
    pthread_mutex_unlock(&s->lock);
    s->current = line;
    return line != NULL;
}

static enum status wait_line(const struct source *s, int64_t deadline_ns,
                             struct error *err) {
    eventfd_t ignored;
    struct pollfd polled[2] = {{.fd = s->wake_fd, .events = POLLIN},
                               {.fd = s->filled_fd, .events = POLLIN}};
    int64_t left = deadline_ns - clock_now_ns();
    if (left < 0)
        left = 0;
    struct timespec timeout = {.tv_sec = left / CLOCK_NS_PER_SECOND,
                               .tv_nsec = left % CLOCK_NS_PER_SECOND};
    int n = ppoll(polled, 2, &timeout, NULL);
    if (n < 0 && errno != EINTR)
        return error_set(err, STATUS_IO, "cannot wait: %s", strerror(errno));
    if (n == 0)
        return STATUS_TIMEOUT;
    if (n > 0 && polled[0].revents)
        return STATUS_CANCELLED;
    if (n > 0 && eventfd_read(s->filled_fd, &ignored) != 0 && errno != EAGAIN)
        return error_set(err, STATUS_IO, "cannot wait: %s", strerror(errno));
    return STATUS_OK;
}

static enum status push_next(struct source *s, int64_t deadline_ns,
                             struct source_line *out, struct error *err) {
    struct pollfd woken = {.fd = s->wake_fd, .events = POLLIN};
    if (s->wake_fd >= 0 && poll(&woken, 1, 0) > 0)
        return STATUS_CANCELLED;
    while (!dequeue(s)) {
        enum status status = wait_line(s, deadline_ns, err);
        if (status != STATUS_OK)
            return status;
    }
    s->state.n_lines++;
    s->state.last_post_ns = clock_now_ns();
    *out =
        (struct source_line){.bytes = view_of(s->current->bytes, s->current->n_bytes),
                             .received_ns = s->current->received_ns,
                             .after = {.major = s->current->number}};
    return STATUS_OK;
}

static void push_committed(struct source *s, struct source_position upto) {
    pthread_mutex_lock(&s->lock);
    if (upto.major > s->committed) {
        s->committed = upto.major;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
}

static enum status push_cursor(const struct source *s, struct source_position at,
                               char out[SOURCE_CURSOR_BYTES], struct error *err) {
    (void)s;
    (void)err;
    snprintf(out, SOURCE_CURSOR_BYTES, "%" PRIu64, at.major);
    return STATUS_OK;
}

static enum status push_parse(const struct source *s, struct view line,
                              struct arena *arena, struct post *out,
                              struct error *err) {
    return record_parse(s ? s->settings : NULL, line, arena, out, err);
}

static struct source_state *push_state(struct source *s) {
    return &s->state;
}

const struct source_kind source_push = {
    .name = "push",
    .default_name = "push",
    .summary = "posts that others send to POST /v1/posts: push:[ADDRESS:PORT]",
    .is_replayable = false,
    .open = push_open,
    .next = push_next,
    .committed = push_committed,
    .cursor = push_cursor,
    .parse = push_parse,
    .state = push_state,
    .close = push_close,
};
