/* SPDX-License-Identifier: Apache-2.0
 *
 * source_jetstream.c - Bluesky's posts by Jetstream v1, over a WebSocket.
 *
 * Target: addresses with commas between them, "wss://HOST[/subscribe]", or HOST alone; empty:
 * the four public hosts. One serves until a connection to it brings nothing new; then the
 * next one does.
 *
 * Cursor: the largest time_us seen, in microseconds; one below 10^15, which a person may give,
 * is a sequence number to the server and sent as it is. A host delivers at least once and not
 * quite in order, and each host has a clock of its own: after a break the cursor is rewound
 * 3 s, at the start and when the host changes 15 s, and what comes twice is the store's to
 * drop. One event with a time far ahead does not move the cursor, as from there on the server
 * would only tell what is new. A cursor that is too old (36 h) is silently clamped: when the
 * first event is more than a minute behind the cursor, that gap is logged and counted.
 *
 * The server pings every 30 s; without a byte for 60 s the connection is dead.
 *
 * Accounts that are deleted or taken down come as events of the account, not as deletes of
 * its posts. The pipeline's deletes name posts, so these events are counted and logged as a
 * number, and nothing is removed: `vigil erase --author` does that.
 *
 * v1 is what the public hosts serve and keep; v2 has other parameters and frames and brings
 * nothing that this needs. Compression (zstd with a dictionary) is not asked for: posts alone
 * are some hundred KB a second.
 *
 * Limits: 16 hosts; a message beyond SOURCE_MAX_LINE_BYTES comes cut.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "client/net/websocket.h"
#include "client/sources/jetstream_post.h"
#include "client/sources/source.h"
#include "client/sources/x_backoff.h"
#include "client/stream_options.h"

#define MAX_HOSTS 16
#define URL_BYTES 2048
#define DEFAULT_HOSTS                                                                  \
    "jetstream2.us-east.bsky.network,jetstream1.us-west.bsky.network,"                 \
    "jetstream1.us-east.bsky.network,jetstream2.us-west.bsky.network"

#define US_PER_SECOND UINT64_C(1000000)
#define FIRST_US UINT64_C(1000000000000000) /* below it a cursor is a sequence number */
#define REWIND_US (3 * US_PER_SECOND)
#define REWIND_FAR_US (15 * US_PER_SECOND)
#define GAP_US (60 * US_PER_SECOND)
#define AHEAD_US (3600 * US_PER_SECOND)
#define MAX_STRANGE                                                                    \
    32 /* so many events ahead in a row, and it is our clock that is wrong */
#define SILENCE_NS (60 * CLOCK_NS_PER_SECOND)
#define RETRY_AFTER_MAX_NS (320 * CLOCK_NS_PER_SECOND)
#define KIND_BYTES 256 /* "kind" stands near the beginning */

struct source {
    char *hosts[MAX_HOSTS]; /* URLs without collection and cursor */
    size_t n_hosts, host;
    const char *ca_file;
    bool allows_plain;
    int wake_fd;

    uint64_t cursor;   /* as above; 0: none */
    uint64_t start_us; /* when the first connection opened, for want of a cursor */
    uint64_t n_lines;
    unsigned n_strange;

    struct websocket *socket;
    bool is_open;
    bool is_rewound_far; /* the next connection is to another host, or the first */
    bool has_moved;      /* the cursor has, by this connection */
    bool is_first;       /* no event of this connection had a time yet */
    int64_t opened_ns, seen_bytes;

    struct x_backoff backoff;
    double time_scale;
    int64_t wait_until_ns;
    atomic_llong n_gone, *gone; /* accounts; counted by parse through the pointer */
    struct source_state state;
};

static void jetstream_close(struct source *s);

/* ---- Open ------------------------------------------------------------------------------- */

/* "wss://HOST/subscribe" from what was written: scheme and path are filled in. */
static enum status add_host(struct source *s, struct view text, struct error *err) {
    char url[URL_BYTES];
    struct websocket *tried = NULL;
    while (text.n_bytes && *text.data == ' ')
        text = view_of(text.data + 1, text.n_bytes - 1);
    while (text.n_bytes && text.data[text.n_bytes - 1] == ' ')
        text.n_bytes--;
    if (s->n_hosts == MAX_HOSTS || text.n_bytes >= sizeof url / 2)
        return error_set(err, STATUS_LIMIT,
                         "jetstream: at most %d hosts of at most %d bytes", MAX_HOSTS,
                         URL_BYTES / 2);
    const char *scheme =
        text.n_bytes ? memmem(text.data, text.n_bytes, "://", 3) : NULL;
    size_t n_host = scheme ? (size_t)(scheme - text.data) + 3 : 0;
    size_t n_scheme = n_host;
    while (n_host < text.n_bytes && text.data[n_host] != '/' &&
           text.data[n_host] != '?')
        n_host++;
    if (n_host == n_scheme)
        return error_set(err, STATUS_INVALID,
                         "jetstream: host %zu of the list is empty", s->n_hosts + 1);
    bool has_path = n_host < text.n_bytes && text.data[n_host] == '/';
    snprintf(url, sizeof url, "%s%.*s%s%.*s", scheme ? "" : "wss://", (int)n_host,
             text.data, has_path ? "" : "/subscribe", (int)(text.n_bytes - n_host),
             text.data + n_host);
    struct websocket_options options = {
        .url = url, .allows_plain = s->allows_plain, .wake_fd = -1};
    enum status status = websocket_open(&options, &tried, err);
    websocket_close(tried);
    if (status != STATUS_OK) {
        return error_prefix(err, "jetstream, host %zu", s->n_hosts + 1);
    }
    s->hosts[s->n_hosts] = strdup(url);
    if (!s->hosts[s->n_hosts])
        return error_set(err, STATUS_NO_MEMORY, "no memory for a source");
    s->n_hosts++;
    return STATUS_OK;
}

static enum status add_hosts(struct source *s, const char *list, struct error *err) {
    enum status status = STATUS_OK;
    for (const char *at = list; status == STATUS_OK && *at;) {
        size_t n = strcspn(at, ",");
        status = add_host(s, view_of(at, n), err);
        at += n + (at[n] == ',');
    }
    return status;
}

static enum status read_cursor(struct source *s, const char *text, struct error *err) {
    size_t n = strspn(text, "0123456789");
    if (text[n] != '\0' || n > 18)
        return error_set(err, STATUS_INVALID,
                         "jetstream: a cursor is a number: microseconds since 1970, or "
                         "below 10^15 a sequence number");
    s->cursor = strtoull(text, NULL, 10);
    return STATUS_OK;
}

static enum status jetstream_open(const struct source_options *options,
                                  struct source **out, struct error *err) {
    const struct source_settings *settings = options->settings;
    *out = NULL;
    struct source *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a source");
    s->wake_fd = options->wake_fd;
    s->gone = &s->n_gone;
    s->is_rewound_far = true;
    s->backoff.seed = options->seed;
    s->time_scale = x_backoff_time_scale();
    if (settings) {
        s->ca_file = settings->ca_file;
        s->allows_plain = settings->allows_plain;
    }
    bool has_target = options->target && options->target[0];
    enum status status =
        add_hosts(s, has_target ? options->target : DEFAULT_HOSTS, err);
    if (status == STATUS_OK && options->cursor)
        status = read_cursor(s, options->cursor, err);
    if (status == STATUS_OK)
        *out = s;
    else
        jetstream_close(s);
    return status;
}

/* ---- Connecting and losing it ------------------------------------------------------------ */

static int64_t scaled(const struct source *s, int64_t ns) {
    return (int64_t)((double)ns * s->time_scale);
}

/* Where the next connection begins; 0: with what is new. */
static uint64_t cursor_to_ask(const struct source *s) {
    uint64_t cursor = s->cursor ? s->cursor : s->start_us;
    uint64_t rewind = s->is_rewound_far ? REWIND_FAR_US : REWIND_US;
    if (cursor < FIRST_US)
        return cursor;
    return cursor - FIRST_US > rewind ? cursor - rewind : FIRST_US;
}

static enum status begin(struct source *s, struct error *err) {
    char url[URL_BYTES], cursor[48] = "";
    const char *host = s->hosts[s->host];
    bool has_query = strchr(host, '?') != NULL;
    bool has_wanted = strstr(host, "wantedCollections=") != NULL;
    uint64_t from = cursor_to_ask(s);
    if (from)
        snprintf(cursor, sizeof cursor, "%ccursor=%" PRIu64,
                 has_query || !has_wanted ? '&' : '?', from);
    snprintf(url, sizeof url, "%s%s%s%s", host,
             has_wanted  ? ""
             : has_query ? "&"
                         : "?",
             has_wanted ? "" : "wantedCollections=" JETSTREAM_COLLECTION, cursor);
    struct websocket_options options = {.url = url,
                                        .ca_file = s->ca_file,
                                        .allows_plain = s->allows_plain,
                                        .wake_fd = s->wake_fd,
                                        .max_message_bytes = SOURCE_MAX_LINE_BYTES};
    s->state.phase = SOURCE_CONNECTING;
    s->is_open = s->has_moved = false;
    s->is_first = true;
    s->seen_bytes = 0;
    return websocket_open(&options, &s->socket, err);
}

static void opened(struct source *s) {
    s->is_open = true;
    s->is_rewound_far = false;
    s->opened_ns = clock_now_ns();
    if (s->start_us == 0)
        s->start_us = (uint64_t)clock_wall_ns() / 1000;
    s->state.phase = SOURCE_STREAMING;
    s->state.wait_until_ns = 0;
    s->state.n_connects++;
}

/* What the socket has counted, into the state. */
static void count_bytes(struct source *s) {
    int64_t n = websocket_n_bytes(s->socket);
    s->state.n_bytes += n - s->seen_bytes;
    s->seen_bytes = n;
    if (websocket_last_byte_ns(s->socket))
        s->state.last_byte_ns = websocket_last_byte_ns(s->socket);
}

static void tell_gone(struct source *s) {
    long long n = atomic_exchange(s->gone, 0);
    if (n)
        log_message(
            LOG_LEVEL_INFO, "jetstream_accounts_gone",
            "%lld accounts were deleted or taken down; posts of theirs that are "
            "stored stay until vigil erase --author",
            n);
}

/* The connection is gone, or never was: from which host next, and when. */
static void lost(struct source *s, const struct error *why) {
    struct log_line line;
    int64_t asked_ns = websocket_retry_after_ns(s->socket), now = clock_now_ns();
    count_bytes(s);
    if (s->is_open && now - s->opened_ns >= scaled(s, X_BACKOFF_STEADY_NS))
        x_backoff_steady(&s->backoff);
    int64_t wait_ns =
        scaled(s, x_backoff_next(&s->backoff, X_NETWORK, 0, -1, clock_wall_ns()));
    if (asked_ns > RETRY_AFTER_MAX_NS)
        asked_ns = RETRY_AFTER_MAX_NS;
    if (scaled(s, asked_ns) > wait_ns)
        wait_ns = scaled(s, asked_ns);
    log_begin(&line, LOG_LEVEL_WARNING, "jetstream_lost");
    log_bytes(&line, "host", s->hosts[s->host], strcspn(s->hosts[s->host], "?"));
    log_integer(&line, "code", websocket_code(s->socket));
    log_string(&line, "why", why->message);
    log_integer(&line, "wait_ms", wait_ns / 1000000);
    log_end(&line);
    tell_gone(s);
    if (s->is_open)
        s->state.n_disconnects++;
    else
        s->state.n_errors++;
    if (!s->has_moved && s->n_hosts > 1) {
        s->host = (s->host + 1) % s->n_hosts;
        s->is_rewound_far = true;
    }
    websocket_close(s->socket);
    s->socket = NULL;
    s->is_open = false;
    s->wait_until_ns = now + wait_ns;
    s->state.wait_until_ns = s->wait_until_ns;
    s->state.phase = SOURCE_WAITING;
}

/* Until the next try is due. */
static enum status wait_turn(struct source *s, int64_t deadline_ns) {
    for (;;) {
        int64_t now = clock_now_ns();
        int64_t left =
            (s->wait_until_ns < deadline_ns ? s->wait_until_ns : deadline_ns) - now;
        if (now >= s->wait_until_ns)
            return STATUS_OK;
        if (left <= 0)
            return STATUS_TIMEOUT;
        struct pollfd polled = {.fd = s->wake_fd, .events = POLLIN};
        struct timespec timeout = {.tv_sec = left / CLOCK_NS_PER_SECOND,
                                   .tv_nsec = left % CLOCK_NS_PER_SECOND};
        if (ppoll(&polled, 1, &timeout, NULL) > 0)
            return STATUS_CANCELLED;
    }
}

/* ---- Lines --------------------------------------------------------------------------------- */

static void tell_gap(struct source *s, uint64_t time_us) {
    struct log_line line;
    s->state.n_gaps++;
    log_begin(&line, LOG_LEVEL_WARNING, "jetstream_gap");
    log_integer(&line, "seconds", (int64_t)((time_us - s->cursor) / US_PER_SECOND));
    log_integer(&line, "cursor_us", (int64_t)s->cursor);
    log_integer(&line, "first_us", (int64_t)time_us);
    log_end(&line);
}

/* The time of an event that has come moves the cursor, if it can be believed. */
static void see_time(struct source *s, uint64_t time_us) {
    uint64_t wall_us = (uint64_t)clock_wall_ns() / 1000;
    bool is_known = s->cursor >= FIRST_US;
    if (time_us < FIRST_US)
        return;
    if (time_us > wall_us + AHEAD_US && (!is_known || time_us > s->cursor + AHEAD_US)) {
        if (++s->n_strange < MAX_STRANGE)
            return;
    }
    s->n_strange = 0;
    if (s->is_first && is_known && time_us > s->cursor + GAP_US)
        tell_gap(s, time_us);
    s->is_first = false;
    if (!is_known || time_us > s->cursor) {
        s->cursor = time_us;
        s->has_moved = true;
    }
}

static bool is_post(struct view line) {
    size_t n = line.n_bytes < KIND_BYTES ? line.n_bytes : KIND_BYTES;
    return n && !memmem(line.data, n, "\"kind\":\"identity\"", 17) &&
           !memmem(line.data, n, "\"kind\":\"account\"", 16);
}

static void take(struct source *s, const struct websocket_message *message,
                 struct source_line *out) {
    uint64_t time_us = 0;
    if (jetstream_time_us(message->bytes, &time_us))
        see_time(s, time_us);
    s->n_lines++;
    s->state.n_lines++;
    if (is_post(message->bytes))
        s->state.last_post_ns = websocket_last_byte_ns(s->socket);
    *out = (struct source_line){.bytes = message->bytes,
                                .received_ns = clock_wall_ns(),
                                .after = {.major = s->n_lines, .minor = s->cursor},
                                .is_cut = message->is_cut};
}

/* Reads until there is a line, or the connection is lost (STATUS_IO). */
static enum status read_line(struct source *s, int64_t deadline_ns,
                             struct source_line *out, struct error *err) {
    struct websocket_message message;
    int64_t last_ns = websocket_last_byte_ns(s->socket);
    int64_t dead_ns =
        (last_ns > s->opened_ns ? last_ns : s->opened_ns) + scaled(s, SILENCE_NS);
    enum status status = websocket_read(
        s->socket, dead_ns < deadline_ns ? dead_ns : deadline_ns, &message, err);
    count_bytes(s);
    if (status == STATUS_OK)
        take(s, &message, out);
    else if (status == STATUS_TIMEOUT && clock_now_ns() >= dead_ns &&
             websocket_last_byte_ns(s->socket) == last_ns)
        status = error_set(err, STATUS_IO, "no byte for %d s",
                           (int)(SILENCE_NS / CLOCK_NS_PER_SECOND));
    return status;
}

static bool is_final(enum status status) {
    return status == STATUS_OK || status == STATUS_CANCELLED ||
           status == STATUS_NO_MEMORY || status == STATUS_INTERNAL;
}

static enum status jetstream_next(struct source *s, int64_t deadline_ns,
                                  struct source_line *out, struct error *err) {
    struct error ignored = {0};
    err = err ? err : &ignored;
    for (;;) {
        enum status status = STATUS_OK;
        *err = (struct error){0};
        if (!s->socket) {
            status = wait_turn(s, deadline_ns);
            if (status == STATUS_OK)
                status = begin(s, err);
            if (status != STATUS_OK)
                return status;
        }
        if (!s->is_open) {
            status = websocket_connect(s->socket, deadline_ns, err);
            if (status == STATUS_OK)
                opened(s);
        }
        if (status == STATUS_OK) {
            status = read_line(s, deadline_ns, out, err);
            if (status == STATUS_OK)
                return STATUS_OK;
        }
        if (is_final(status))
            return status;
        if (status != STATUS_TIMEOUT)
            lost(s, err);
        else if (clock_now_ns() >= deadline_ns)
            return STATUS_TIMEOUT;
    }
}

static enum status jetstream_cursor(const struct source *s, struct source_position at,
                                    char out[SOURCE_CURSOR_BYTES], struct error *err) {
    (void)s;
    (void)err;
    snprintf(out, SOURCE_CURSOR_BYTES, "%" PRIu64, at.minor);
    return STATUS_OK;
}

static enum status jetstream_read(const struct source *s, struct view line,
                                  struct arena *arena, struct post *out,
                                  struct error *err) {
    bool is_gone = false;
    enum status status = jetstream_parse(line, arena, out, &is_gone, err);
    if (is_gone && s)
        atomic_fetch_add(s->gone, 1);
    return status;
}

static struct source_state *jetstream_state(struct source *s) {
    return &s->state;
}

static void jetstream_close(struct source *s) {
    if (!s)
        return;
    tell_gone(s);
    websocket_close(s->socket);
    for (size_t i = 0; i < s->n_hosts; i++)
        free(s->hosts[i]);
    free(s);
}

const struct source_kind source_jetstream = {
    .name = "jetstream",
    .default_name = "bsky",
    .summary = "posts of Bluesky: jetstream:[wss://HOST,…]",
    .is_replayable = true,
    .open = jetstream_open,
    .next = jetstream_next,
    .cursor = jetstream_cursor,
    .parse = jetstream_read,
    .state = jetstream_state,
    .close = jetstream_close,
};
