/* SPDX-License-Identifier: Apache-2.0
 *
 * source_mastodon.c - the streams of a Mastodon instance as a source: server-sent events,
 * a connection a stream, at most eight.
 *
 * Target: the instance ("https://mastodon.social"). Where its streams are is asked of
 * /api/v2/instance; where that cannot tell, they are on the instance itself. Streams: public,
 * public:local, public:remote, hashtag:NAME, hashtag:local:NAME, list:ID, separated by
 * commas; public when none is named. A user's token with read:statuses is needed since 4.2.
 *
 * A stream that is silent for longer than its heartbeats (15 s) or breaks is asked for again
 * by the table of x_backoff.h, each for itself. What was posted meanwhile, or since the last
 * run, is asked of the timeline of the same name (mastodon_missed.h), the stream being read
 * between its pages. The position is a count of lines, and the newest id that nothing before
 * can be missing of: it stays while a stream is down or pages are outstanding, so that a crash
 * begins with them again. What comes twice is the store's to know.
 *
 * With several streams each is listened to for a tenth of a second in turn, so a post waits
 * for at most a second.
 *
 * Limits: connecting may outlast `next`'s deadline by its own time-out (20 s).
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "client/net/fetch.h"
#include "client/net/sse.h"
#include "client/sources/mastodon_missed.h"
#include "client/sources/mastodon_post.h"
#include "client/sources/mastodon_stream.h"
#include "client/sources/source.h"
#include "client/sources/x_api.h"
#include "client/sources/x_backoff.h"
#include "client/sources/x_post.h"
#include "client/stream_options.h"

#define MAX_STREAMS 8
#define STALL_NS (32 * CLOCK_NS_PER_SECOND) /* two heartbeats, and a margin */
#define ASK_NS (20 * CLOCK_NS_PER_SECOND)
#define MIN_ASK_NS (CLOCK_NS_PER_SECOND / 2)
#define TURN_NS (CLOCK_NS_PER_SECOND / 10)
/* A server says that a stream is there a moment before it is. */
#define MISSED_DELAY_NS (2 * CLOCK_NS_PER_SECOND)
#define MAX_MISSED_FAILURES 3
#define FOUND_BYTES ((size_t)16 << 20)

struct stream {
    struct mastodon_stream where;
    struct mastodon_missed missed;
    struct fetch *fetch;
    struct sse sse;
    struct x_backoff backoff;
    struct view bytes; /* read and not yet looked at */
    bool is_open, is_steady;
    int64_t wait_until_ns, connected_ns, last_byte_ns;
};

struct source {
    struct source_state state;
    const struct source_settings *settings;
    char *base, *host, *token; /* host: where the streams are; NULL until it is known */
    int wake_fd;
    double scale;
    struct fetch *fetch;
    struct x_backoff backoff; /* of asking for the host */
    int64_t wait_until_ns;
    struct stream streams[MAX_STREAMS];
    size_t n_streams, turn;
    struct buffer line;
    struct buffer found; /* a page of what was missed, lines ended by \n */
    size_t found_at;
    bool stream_is_next; /* a page was had: now what the streams have */
    uint64_t n_lines, newest_id, safe_id;
    bool has_streamed;
};

static const struct json_limits limits = {.max_bytes = (size_t)4 << 20,
                                          .max_depth = 32,
                                          .max_values = 65536,
                                          .max_key_bytes = 1024};

static int64_t scaled(const struct source *s, int64_t ns) {
    return (int64_t)((double)ns * s->scale);
}

static int64_t ask_ns(const struct source *s) {
    int64_t ns = scaled(s, ASK_NS);
    return ns > MIN_ASK_NS ? ns : MIN_ASK_NS;
}

/* ---- Open and close ---- */

static enum status add_streams(struct source *s, const char *names, struct error *err) {
    enum status status = STATUS_OK;
    if (!names || !*names)
        names = "public";
    while (status == STATUS_OK && *names) {
        size_t n = strcspn(names, ",");
        struct view name = view_of(names, n);
        while (name.n_bytes > 0 && name.data[0] == ' ')
            name = view_of(name.data + 1, name.n_bytes - 1);
        if (name.n_bytes > 0)
            status =
                s->n_streams == MAX_STREAMS
                    ? error_set(err, STATUS_LIMIT, "mastodon: at most %d streams",
                                MAX_STREAMS)
                    : mastodon_stream_find(name, &s->streams[s->n_streams].where, err);
        s->n_streams += name.n_bytes > 0 && status == STATUS_OK;
        names += n + (names[n] == ',');
    }
    if (status == STATUS_OK && s->n_streams == 0)
        status = error_set(err, STATUS_INVALID, "mastodon: no stream is named");
    return status;
}

static void mastodon_close(struct source *s) {
    if (!s)
        return;
    for (size_t i = 0; i < MAX_STREAMS; i++) {
        fetch_close(s->streams[i].fetch);
        sse_free(&s->streams[i].sse);
    }
    fetch_close(s->fetch);
    fetch_secret_free(s->token);
    buffer_free(&s->line);
    buffer_free(&s->found);
    free(s->base);
    free(s->host);
    free(s);
}

static enum status open_target(struct source *s, const char *target,
                               struct error *err) {
    size_t n = target ? strlen(target) : 0;
    while (n > 0 && target[n - 1] == '/')
        n--;
    if (n == 0)
        return error_set(err, STATUS_INVALID,
                         "mastodon: expected the instance, \"mastodon:https://…\"");
    bool has_scheme =
        strncmp(target, "https://", 8) == 0 || strncmp(target, "http://", 7) == 0;
    size_t n_bytes = n + 9;
    if (!(s->base = malloc(n_bytes)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for a source");
    (void)snprintf(s->base, n_bytes, "%s%.*s", has_scheme ? "" : "https://", (int)n,
                   target);
    return STATUS_OK;
}

/* "2:COUNT:ID"; "1:COUNT" of earlier versions. */
static enum status read_cursor(struct source *s, const char *cursor,
                               struct error *err) {
    uint64_t values[2] = {0};
    size_t n = cursor[0] == '1' ? 1 : 2;
    const char *at = cursor + 1;
    bool ok = (cursor[0] == '1' || cursor[0] == '2') && *at == ':';
    for (size_t i = 0; ok && i < n; i++) {
        char *end = NULL;
        at++;
        errno = 0;
        values[i] = strtoull(at, &end, 10);
        ok = *at >= '0' && *at <= '9' && errno == 0 && *end == (i + 1 < n ? ':' : 0);
        at = end;
    }
    if (!ok)
        return error_set(err, STATUS_INVALID,
                         "mastodon: the cursor in the store is not one of this source");
    s->n_lines = values[0];
    s->newest_id = s->safe_id = values[1];
    return STATUS_OK;
}

static enum status mastodon_open(const struct source_options *options,
                                 struct source **out, struct error *err) {
    const struct source_settings *settings = options->settings;
    struct fetch_options fetching = {.ca_file = settings->ca_file,
                                     .plain_loopback_only = settings->allows_plain,
                                     .wake_fd = options->wake_fd};
    *out = NULL;
    struct source *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a source");
    s->settings = settings;
    s->wake_fd = options->wake_fd;
    s->scale = x_backoff_time_scale();
    s->backoff.seed = options->seed;
    s->line.max_bytes = 2 * SOURCE_MAX_LINE_BYTES;
    s->found.max_bytes = FOUND_BYTES;
    enum status status = open_target(s, options->target, err);
    if (status == STATUS_OK && settings->token_file)
        status = fetch_secret(settings->token_file, &s->token, err);
    if (status == STATUS_OK && options->cursor)
        status = read_cursor(s, options->cursor, err);
    if (status == STATUS_OK)
        status = add_streams(s, settings->streams, err);
    if (status == STATUS_OK)
        status = fetch_open(&fetching, &s->fetch, err);
    if (status == STATUS_OK && fetch_check(s->fetch, s->base, err) != STATUS_OK)
        status = error_prefix(err, "mastodon");
    for (size_t i = 0; status == STATUS_OK && i < s->n_streams; i++) {
        s->streams[i].backoff.seed = options->seed + i + 1;
        status = fetch_open(&fetching, &s->streams[i].fetch, err);
    }
    if (status != STATUS_OK)
        mastodon_close(s);
    else
        *out = s;
    return status;
}

/* ---- What goes wrong ---- */

/* The state of all streams together: what is best of any. */
static void show_state(struct source *s) {
    int64_t until_ns = 0;
    bool is_any_open = false;
    for (size_t i = 0; i < s->n_streams; i++) {
        is_any_open |= s->streams[i].is_open;
        if (until_ns == 0 || s->streams[i].wait_until_ns < until_ns)
            until_ns = s->streams[i].wait_until_ns;
    }
    if (!s->host)
        until_ns = s->wait_until_ns;
    atomic_store(&s->state.wait_until_ns, is_any_open ? 0 : until_ns);
    atomic_store(&s->state.phase, is_any_open ? SOURCE_STREAMING
                                  : until_ns  ? SOURCE_WAITING
                                              : SOURCE_CONNECTING);
}

static int64_t wait_after(struct source *s, struct x_backoff *backoff,
                          const struct x_outcome *outcome, const struct error *why) {
    struct log_line line;
    int64_t wait_ns = x_backoff_next(backoff, outcome->failure, outcome->reset_s,
                                     outcome->retry_after_ns, clock_wall_ns());
    atomic_fetch_add(&s->state.n_errors, 1);
    log_begin(&line, LOG_LEVEL_WARNING, "mastodon_wait");
    log_string(&line, "reason", why->message);
    log_number(&line, "seconds", (double)wait_ns / (double)CLOCK_NS_PER_SECOND);
    log_end(&line);
    return clock_now_ns() + scaled(s, wait_ns);
}

static void drop_stream(struct source *s, struct stream *stream,
                        const struct x_outcome *outcome, const struct error *why) {
    fetch_stop(stream->fetch);
    sse_reset(&stream->sse);
    stream->bytes = view_of(NULL, 0);
    if (stream->is_open)
        atomic_fetch_add(&s->state.n_disconnects, 1);
    stream->is_open = false;
    stream->wait_until_ns = wait_after(s, &stream->backoff, outcome, why);
    show_state(s);
}

/* ---- Where the streams are ---- */

/* configuration.urls.streaming: "wss://streaming.example" as "https://…"; NULL: not told. */
static enum status read_host(const struct fetch_answer *answer, char **out,
                             struct error *err) {
    json_t *root = NULL;
    *out = NULL;
    if (json_parse(answer->body.data, answer->body.n_bytes, &limits, &root, err) !=
        STATUS_OK)
        return err->status == STATUS_NO_MEMORY ? STATUS_NO_MEMORY : STATUS_OK;
    const char *url = json_string_value(json_object_get(
        json_object_get(json_object_get(root, "configuration"), "urls"), "streaming"));
    enum status status = STATUS_OK;
    size_t n_scheme = !url                               ? 0
                      : strncmp(url, "wss://", 6) == 0   ? 6
                      : strncmp(url, "https://", 8) == 0 ? 8
                      : strncmp(url, "ws://", 5) == 0    ? 5
                      : strncmp(url, "http://", 7) == 0  ? 7
                                                         : 0;
    if (n_scheme > 0 && strlen(url) < 1024) {
        bool has_tls = n_scheme == 6 || n_scheme == 8;
        size_t n = strlen(url + n_scheme);
        while (n > 0 && url[n_scheme + n - 1] == '/')
            n--;
        if (!(*out = malloc(n + 9)))
            status = error_set(err, STATUS_NO_MEMORY, "no memory for a source");
        else
            (void)snprintf(*out, n + 9, "%s%.*s", has_tls ? "https://" : "http://",
                           (int)n, url + n_scheme);
    }
    json_decref(root);
    return status;
}

static enum status find_host(struct source *s, struct error *err) {
    struct buffer url = {.max_bytes = 4096};
    struct fetch_answer answer = {0};
    struct x_outcome outcome = {0};
    atomic_store(&s->state.phase, SOURCE_CONNECTING);
    enum status status = buffer_printf(&url, err, "%s/api/v2/instance", s->base);
    struct fetch_request request = {.method = "GET",
                                    .url = url.data,
                                    .accept = "application/json",
                                    .timeout_ns = ask_ns(s),
                                    .max_answer_bytes = (size_t)4 << 20};
    if (status == STATUS_OK)
        status = fetch_run(s->fetch, &request, &answer, err);
    if (status == STATUS_OK)
        x_api_judge(&answer, "mastodon: instance", &outcome, err);
    if (status == STATUS_OK && outcome.is_done)
        status = read_host(&answer, &s->host, err);
    buffer_free(&answer.body);
    buffer_free(&url);
    if (status != STATUS_OK)
        return status;
    if (!outcome.is_done && (!outcome.is_refused || answer.failure != FETCH_ANSWERED)) {
        if (outcome.is_refused)
            return error_set(err, STATUS_INVALID,
                             "mastodon: the certificate is not good");
        s->wait_until_ns = wait_after(s, &s->backoff, &outcome, err);
        show_state(s);
        return STATUS_OK;
    }
    /* Older than 4.0, or a relative: no such page, or nothing in it. */
    if (!s->host && !(s->host = strdup(s->base)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for a source");
    return STATUS_OK;
}

/* ---- Streams ---- */

static enum status connect_stream(struct source *s, struct stream *stream,
                                  struct error *err) {
    struct buffer url = {.max_bytes = 4096};
    struct fetch_answer answer = {0};
    struct x_outcome outcome = {0};
    enum status status = buffer_printf(&url, err, "%s%s", s->host, stream->where.path);
    struct fetch_request request = {.method = "GET",
                                    .url = url.data,
                                    .bearer = s->token,
                                    .accept = "text/event-stream",
                                    .timeout_ns = ask_ns(s),
                                    .max_answer_bytes = 65536};
    if (status == STATUS_OK)
        status = fetch_start(stream->fetch, &request, &answer, err);
    if (status == STATUS_OK)
        x_api_judge(&answer, "mastodon: stream", &outcome, err);
    buffer_free(&answer.body);
    buffer_free(&url);
    if (status != STATUS_OK)
        return status;
    if (!outcome.is_done || answer.code != 200) {
        if (outcome.is_refused && !s->has_streamed)
            return STATUS_INVALID; /* the message is there */
        drop_stream(s, stream, &outcome, err);
        return STATUS_OK;
    }
    stream->is_open = true;
    stream->is_steady = false;
    stream->wait_until_ns = 0;
    stream->connected_ns = stream->last_byte_ns = clock_now_ns();
    s->has_streamed = true;
    mastodon_missed_open(&stream->missed, s->safe_id,
                         clock_now_ns() + scaled(s, MISSED_DELAY_NS));
    atomic_fetch_add(&s->state.n_connects, 1);
    show_state(s);
    log_message(LOG_LEVEL_INFO, "mastodon_stream", "connected");
    return STATUS_OK;
}

/* Is all there, up to what came last? */
static bool is_whole(const struct source *s) {
    for (size_t i = 0; i < s->n_streams; i++)
        if (!s->streams[i].is_open || s->streams[i].missed.is_open)
            return false;
    return s->found_at >= s->found.n_bytes;
}

static void hand_out(struct source *s, struct view line, bool is_cut,
                     struct source_line *out) {
    uint64_t id = x_scan_id(line, MASTODON_LINE_HOLDER);
    if (line.n_bytes > SOURCE_MAX_LINE_BYTES) {
        line.n_bytes = SOURCE_MAX_LINE_BYTES;
        is_cut = true;
    }
    if (id > s->newest_id)
        s->newest_id = id;
    if (is_whole(s))
        s->safe_id = s->newest_id;
    *out = (struct source_line){.bytes = line,
                                .received_ns = clock_wall_ns(),
                                .after = {.major = ++s->n_lines, .minor = s->safe_id},
                                .is_cut = is_cut};
    atomic_fetch_add(&s->state.n_lines, 1);
    atomic_store(&s->state.last_post_ns, clock_now_ns());
}

/* The next event of what was read. STATUS_NOT_FOUND: none. */
static enum status take_event(struct source *s, struct stream *stream,
                              struct source_line *out, struct error *err) {
    size_t n_used = 0;
    bool has_event = false;
    while (stream->bytes.n_bytes > 0) {
        enum status status =
            sse_feed(&stream->sse, stream->bytes, &n_used, &has_event, err);
        stream->bytes =
            view_of(stream->bytes.data + n_used, stream->bytes.n_bytes - n_used);
        if (status != STATUS_OK)
            return status;
        if (!has_event)
            continue;
        status = mastodon_line(stream->sse.event,
                               view_of(stream->sse.data.data, stream->sse.data.n_bytes),
                               &s->line, err);
        if (status != STATUS_OK && status != STATUS_LIMIT)
            return status;
        hand_out(s, view_of(s->line.data, s->line.n_bytes),
                 status == STATUS_LIMIT || stream->sse.is_cut, out);
        return STATUS_OK;
    }
    return STATUS_NOT_FOUND;
}

/* ---- What was missed ---- */

/* The next line of a page. */
static bool take_found(struct source *s, struct source_line *out) {
    if (s->found_at >= s->found.n_bytes)
        return false;
    const char *begin = s->found.data + s->found_at;
    const char *end = memchr(begin, '\n', s->found.n_bytes - s->found_at);
    size_t n = end ? (size_t)(end - begin) : s->found.n_bytes - s->found_at;
    s->found_at += n + 1;
    hand_out(s, view_of(begin, n), false, out);
    return true;
}

static void give_up(struct source *s, struct stream *stream, const char *why) {
    stream->missed.is_open = false;
    atomic_fetch_add(&s->state.n_gaps, 1);
    log_message(LOG_LEVEL_WARNING, "mastodon_gap",
                "what was missed is not all asked for: %s", why);
}

/* A page. What fails for good, or too often, is given up: the stream goes on. */
static enum status fetch_missed(struct source *s, struct stream *stream,
                                struct error *err) {
    struct mastodon_missed *missed = &stream->missed;
    struct x_outcome outcome = {0};
    buffer_clear(&s->found);
    s->found_at = 0;
    s->stream_is_next = true;
    enum status status =
        mastodon_missed_page(missed, s->fetch, s->base, stream->where.timeline,
                             s->token, ask_ns(s), &s->found, &outcome, err);
    if (status == STATUS_CANCELLED || status == STATUS_NO_MEMORY)
        return status;
    if (status == STATUS_OK && outcome.is_done) {
        missed->n_failures = 0;
        if (missed->is_open && missed->n_pages == MASTODON_MISSED_PAGES)
            give_up(s, stream, "it is too much");
        return STATUS_OK;
    }
    atomic_fetch_add(&s->state.n_errors, 1);
    if (status != STATUS_OK || outcome.is_refused ||
        ++missed->n_failures > MAX_MISSED_FAILURES) {
        give_up(s, stream, err->message);
        return STATUS_OK;
    }
    struct x_backoff waits = {.seed = stream->backoff.seed};
    waits.n_failures[outcome.failure] = (uint32_t)missed->n_failures - 1;
    missed->not_before_ns =
        clock_now_ns() +
        scaled(s, x_backoff_next(&waits, outcome.failure, outcome.reset_s,
                                 outcome.retry_after_ns, clock_wall_ns()));
    return STATUS_OK;
}

/* The stream whose next page is due; NULL: none is. *until_ns: not after the next that is. */
static struct stream *find_missed(struct source *s, int64_t *until_ns) {
    int64_t now_ns = clock_now_ns();
    for (size_t i = 0; i < s->n_streams; i++) {
        struct stream *stream = &s->streams[i];
        if (!stream->is_open || !stream->missed.is_open)
            continue;
        int64_t due_ns = stream->missed.not_before_ns;
        if (due_ns <= now_ns && !s->stream_is_next)
            return stream;
        due_ns = due_ns > now_ns + TURN_NS ? due_ns : now_ns + TURN_NS;
        *until_ns = due_ns < *until_ns ? due_ns : *until_ns;
    }
    return NULL;
}

/* ---- Turns ---- */

/* Listens until the moment. */
static enum status read_stream(struct source *s, struct stream *stream,
                               int64_t until_ns, struct error *err) {
    int64_t now_ns = clock_now_ns();
    int64_t stall_ns = stream->last_byte_ns + scaled(s, STALL_NS);
    if (!stream->is_steady &&
        now_ns - stream->connected_ns >= scaled(s, X_BACKOFF_STEADY_NS)) {
        stream->is_steady = true;
        x_backoff_steady(&stream->backoff);
    }
    enum status status = fetch_read(
        stream->fetch, until_ns < stall_ns ? until_ns : stall_ns, &stream->bytes, err);
    if (status == STATUS_OK) {
        stream->last_byte_ns = clock_now_ns();
        atomic_store(&s->state.last_byte_ns, stream->last_byte_ns);
        atomic_fetch_add(&s->state.n_bytes, (int64_t)stream->bytes.n_bytes);
        return STATUS_OK;
    }
    if (status == STATUS_CANCELLED || status == STATUS_NO_MEMORY)
        return status;
    if (status == STATUS_TIMEOUT && clock_now_ns() < stall_ns)
        return STATUS_OK;
    if (status == STATUS_TIMEOUT)
        error_set(err, STATUS_IO, "mastodon: no byte for %d s, not even a heartbeat",
                  (int)(STALL_NS / CLOCK_NS_PER_SECOND));
    struct x_outcome outcome = {.failure = X_NETWORK, .retry_after_ns = -1};
    drop_stream(s, stream, &outcome, err);
    return STATUS_OK;
}

/* Nothing is open: until the first may be tried again. */
static enum status idle(struct source *s, int64_t until_ns, struct error *err) {
    int64_t left_ns = until_ns - clock_now_ns();
    struct pollfd p = {.fd = s->wake_fd, .events = POLLIN};
    if (left_ns < 0)
        left_ns = 0;
    struct timespec left = {.tv_sec = left_ns / CLOCK_NS_PER_SECOND,
                            .tv_nsec = left_ns % CLOCK_NS_PER_SECOND};
    if (ppoll(&p, s->wake_fd >= 0, &left, NULL) > 0)
        return error_set(err, STATUS_CANCELLED, "mastodon: stopped");
    return STATUS_OK;
}

/* One stream gets its turn. */
static enum status take_turn(struct source *s, int64_t deadline_ns, struct error *err) {
    struct stream *stream = &s->streams[s->turn];
    int64_t now_ns = clock_now_ns();
    if (!stream->is_open && now_ns >= stream->wait_until_ns)
        return connect_stream(s, stream, err);
    int64_t until_ns = deadline_ns;
    struct stream *behind = find_missed(s, &until_ns);
    s->stream_is_next = false;
    if (behind)
        return fetch_missed(s, behind, err);
    size_t n_open = 0;
    for (size_t i = 0; i < s->n_streams; i++) {
        n_open += s->streams[i].is_open;
        if (!s->streams[i].is_open && s->streams[i].wait_until_ns < until_ns)
            until_ns = s->streams[i].wait_until_ns;
    }
    s->turn = (s->turn + 1) % s->n_streams;
    if (n_open == 0)
        return idle(s, until_ns, err);
    if (!stream->is_open)
        return STATUS_OK;
    if (s->n_streams > 1 && until_ns > now_ns + TURN_NS)
        until_ns = now_ns + TURN_NS;
    return read_stream(s, stream, until_ns, err);
}

static enum status mastodon_next(struct source *s, int64_t deadline_ns,
                                 struct source_line *out, struct error *err) {
    struct error ours;
    if (!err)
        err = &ours; /* reasons are logged */
    for (;;) {
        enum status status = STATUS_OK;
        if (take_found(s, out))
            return STATUS_OK;
        for (size_t i = 0; i < s->n_streams; i++) {
            status = take_event(s, &s->streams[i], out, err);
            if (status != STATUS_NOT_FOUND)
                return status;
        }
        if (s->host)
            status = take_turn(s, deadline_ns, err);
        else if (clock_now_ns() >= s->wait_until_ns)
            status = find_host(s, err);
        else
            status =
                idle(s, s->wait_until_ns < deadline_ns ? s->wait_until_ns : deadline_ns,
                     err);
        if (status != STATUS_OK)
            return status;
        bool has_bytes = s->found_at < s->found.n_bytes;
        for (size_t i = 0; i < s->n_streams; i++)
            has_bytes |= s->streams[i].bytes.n_bytes > 0;
        if (!has_bytes && clock_now_ns() >= deadline_ns)
            return error_set(err, STATUS_TIMEOUT, "mastodon: no event yet");
    }
}

static enum status mastodon_cursor(const struct source *s, struct source_position at,
                                   char out[SOURCE_CURSOR_BYTES], struct error *err) {
    (void)s;
    (void)err;
    (void)snprintf(out, SOURCE_CURSOR_BYTES, "2:%" PRIu64 ":%" PRIu64, at.major,
                   at.minor);
    return STATUS_OK;
}

static enum status mastodon_parse(const struct source *s, struct view line,
                                  struct arena *arena, struct post *out,
                                  struct error *err) {
    (void)s;
    return mastodon_post_parse(line, arena, out, err);
}

static struct source_state *mastodon_state(struct source *s) {
    return &s->state;
}

const struct source_kind source_mastodon = {
    .name = "mastodon",
    .default_name = "mastodon",
    .summary = "the public, hashtag and list streams of a Mastodon instance",
    .is_replayable = false,
    .open = mastodon_open,
    .next = mastodon_next,
    .cursor = mastodon_cursor,
    .parse = mastodon_parse,
    .state = mastodon_state,
    .close = mastodon_close,
};
