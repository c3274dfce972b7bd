/* SPDX-License-Identifier: Apache-2.0
 *
 * source_x.c - X's filtered stream (API v2) as a source.
 *
 * Steps: token, rules, connect, stream; behind a failure a wait by X's table (x_backoff.h),
 * then the step again. X cannot be asked for a line again, so this source is not replayable:
 * its position is the newest id that nothing before can be missing of, and the count of lines
 * of the UTC day, which the usage guard needs after a restart.
 *
 * A gap (a reconnect, or a restart with a cursor) is closed with backfill_minutes where that
 * is on and long enough, else by the recent search of each rule since that id, a minute
 * earlier for overlap. The stream is connected first, the search begins ten seconds later and
 * the stream is read between its pages. Until all pages are in, the position stays, so that a crash meanwhile begins the search again.
 * Whatever comes twice is the store's to know.
 *
 * Limits: connecting, a rule or a page may outlast `next`'s deadline by its own time-out (20
 * s); the search reaches back seven days, its queries are cut to 512 bytes (rules from a file
 * that are longer are not searched for; a warning says so).
 *
 * Threads: see source.h; committed is nobody's business, cursor and parse touch nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/net/fetch.h"
#include "client/select/watch_list.h"
#include "client/sources/source.h"
#include "client/sources/x_api.h"
#include "client/sources/x_lines.h"
#include "client/sources/x_post.h"
#include "client/stream_options.h"

#define DEFAULT_BASE "https://api.x.com"
#define STALL_NS (22 * CLOCK_NS_PER_SECOND) /* a keep-alive every 20 s, and a margin */
#define ASK_NS (20 * CLOCK_NS_PER_SECOND)
#define MIN_ASK_NS (CLOCK_NS_PER_SECOND / 2)
#define BACKFILL_HOLD_NS (60 * CLOCK_NS_PER_SECOND)
#define PAUSE_LOOK_NS (60 * CLOCK_NS_PER_SECOND)
#define SECONDS_PER_DAY INT64_C(86400)
#define COUNT_BITS 40
#define FOUND_BYTES ((size_t)64 << 20)
/* A post can be searched for some seconds after it was posted: what came right before the
 * stream was up would be missed by both. */
#define SEARCH_DELAY_NS (10 * CLOCK_NS_PER_SECOND)
/* X's ids: milliseconds since this moment, then 22 bits. */
#define ID_EPOCH_MS INT64_C(1288834974657)
#define ID_SHIFT 22
#define OVERLAP_MS INT64_C(60000)
#define SEARCH_REACH_MS INT64_C(604740000) /* seven days less a minute */

enum step { STEP_TOKEN, STEP_RULES, STEP_CONNECT, STEP_STREAM, STEP_PAUSE };

/* A search for what was missed. */
struct gap {
    bool is_open;
    uint64_t since_id;
    size_t query; /* of source.queries */
    char *next;   /* token of the next page */
    int n_failures;
    int64_t not_before_ns;
    bool stream_is_next; /* a page was handed out: now what the stream has */
};

struct source {
    struct source_state state;
    const struct source_settings *settings;
    char *base, *token;
    int wake_fd;
    double scale;
    struct fetch *fetch; /* of the stream */
    struct x_api api;
    struct x_rules want, queries;
    struct x_lines lines;
    struct buffer found; /* of a search, lines ended by \n */
    size_t found_at;
    struct x_backoff backoff;
    enum step step;
    int64_t wait_until_ns; /* before the step; 0: at once */
    bool has_streamed, is_steady, backfills;
    int64_t connected_ns, last_byte_ns, hold_until_ns;
    uint64_t newest_id, safe_id;
    int64_t day, n_today;
    struct gap gap;
    bool skips_gap; /* the guard was on: what was missed is not paid for */
};

/* ---- Time ---- */

static int64_t scaled(const struct source *s, int64_t ns) {
    return (int64_t)((double)ns * s->scale);
}

/* A day may be over; it never comes again, whatever the clock says. */
static void look_at_day(struct source *s) {
    int64_t today = clock_wall_ns() / CLOCK_NS_PER_SECOND / SECONDS_PER_DAY;
    if (today > s->day) {
        s->day = today;
        s->n_today = 0;
    }
}

static int64_t id_of_ms(int64_t wall_ms) {
    return wall_ms > ID_EPOCH_MS ? (wall_ms - ID_EPOCH_MS) << ID_SHIFT : 0;
}

static int64_t ms_of_id(uint64_t id) {
    return (int64_t)(id >> ID_SHIFT) + ID_EPOCH_MS;
}

/* Waits for the moment; STATUS_OK when it has come. */
static enum status wait_until(struct source *s, int64_t until_ns, int64_t deadline_ns,
                              struct error *err) {
    for (;;) {
        int64_t now_ns = clock_now_ns();
        int64_t left_ns = (until_ns < deadline_ns ? until_ns : deadline_ns) - now_ns;
        struct pollfd p = {.fd = s->wake_fd, .events = POLLIN};
        struct timespec left = {.tv_sec = left_ns / CLOCK_NS_PER_SECOND,
                                .tv_nsec = left_ns % CLOCK_NS_PER_SECOND};
        if (left_ns < 0)
            left = (struct timespec){0};
        if (ppoll(&p, s->wake_fd >= 0, &left, NULL) > 0)
            return error_set(err, STATUS_CANCELLED, "x: stopped");
        now_ns = clock_now_ns();
        if (now_ns >= until_ns)
            return STATUS_OK;
        if (now_ns >= deadline_ns)
            return error_set(err, STATUS_TIMEOUT, "x: no line yet");
    }
}

/* ---- Open and close ---- */

static enum status make_rules(const struct source_settings *settings, size_t max_bytes,
                              size_t max_rules, struct x_rules *out,
                              struct error *err) {
    struct x_rules_maker maker;
    enum status status =
        x_rules_begin(&maker, settings->languages, max_bytes, max_rules, out, err);
    if (status != STATUS_OK)
        return status;
    for (size_t d = 0; d < watch_list_n_drugs(settings->watch_list); d++) {
        const struct watch_drug *drug = watch_list_drug(settings->watch_list, d);
        for (size_t i = 0; status == STATUS_OK && i < drug->n_names; i++)
            status = x_rules_name(&maker, drug->names[i], err);
    }
    enum status ended = x_rules_end(&maker, err);
    return status == STATUS_OK ? ended : status;
}

/* Rules, and the queries of the search that ask for the same. */
static enum status read_rules(struct source *s, struct error *err) {
    const struct source_settings *o = s->settings;
    size_t max_bytes =
        o->max_rule_bytes > 0 ? (size_t)o->max_rule_bytes : X_RULES_DEFAULT_BYTES;
    size_t max_rules = o->max_rules > 0 ? (size_t)o->max_rules : X_RULES_DEFAULT_COUNT,
           n_long = 0;
    enum status status = STATUS_OK;
    if (!o->rules_file && !o->watch_list)
        return error_set(err, STATUS_INVALID,
                         "x: expected a file of rules or a watch list to make them of");
    if (!o->rules_file) {
        status = make_rules(o, max_bytes, max_rules, &s->want, err);
        for (size_t i = 0; status == STATUS_OK && i < s->want.n; i++)
            status = x_rule_lint(view_of_string(s->want.all[i].value), max_bytes, err);
        if (status == STATUS_OK && s->want.n == 0)
            status = error_set(err, STATUS_INVALID, "x: the watch list is empty");
        if (status == STATUS_OK)
            status = make_rules(o, X_API_SEARCH_BYTES, SIZE_MAX, &s->queries, err);
        return status;
    }
    status = x_rules_read(o->rules_file, max_bytes, max_rules, &s->want, err);
    for (size_t i = 0; status == STATUS_OK && i < s->want.n; i++) {
        struct view value = view_of_string(s->want.all[i].value);
        if (value.n_bytes > X_API_SEARCH_BYTES)
            n_long++;
        else
            status = x_rules_add(&s->queries, value, view_of(NULL, 0), view_of(NULL, 0),
                                 err);
    }
    if (n_long > 0)
        log_message(LOG_LEVEL_WARNING, "x_rules",
                    "%zu rules are longer than %d bytes: after a gap, what they missed "
                    "cannot be searched for",
                    n_long, X_API_SEARCH_BYTES);
    return status;
}

/* "1:ID:DAY:COUNT" */
static enum status read_cursor(struct source *s, const char *cursor,
                               struct error *err) {
    uint64_t values[3] = {0};
    const char *at = cursor;
    bool ok = strncmp(at, "1:", 2) == 0;
    at += ok ? 2 : 0;
    for (size_t i = 0; ok && i < 3; i++) {
        char *end = NULL;
        errno = 0;
        values[i] = strtoull(at, &end, 10);
        ok = end != at && *at >= '0' && *at <= '9' && errno == 0 &&
             *end == (i < 2 ? ':' : 0);
        at = end + (i < 2);
    }
    if (!ok || values[1] >= 1 << 20 || values[2] >= UINT64_C(1) << COUNT_BITS)
        return error_set(err, STATUS_INVALID,
                         "x: the cursor in the store is not one of this source");
    s->newest_id = s->safe_id = values[0];
    s->day = (int64_t)values[1];
    s->n_today = (int64_t)values[2];
    return STATUS_OK;
}

static void x_close(struct source *s) {
    if (!s)
        return;
    fetch_close(s->fetch);
    fetch_close(s->api.fetch);
    fetch_secret_free(s->token);
    x_rules_free(&s->want);
    x_rules_free(&s->queries);
    x_lines_free(&s->lines);
    buffer_free(&s->found);
    free(s->gap.next);
    free(s->base);
    free(s);
}

static enum status open_target(struct source *s, const char *target,
                               struct error *err) {
    const char *base = target && *target ? target : DEFAULT_BASE;
    size_t n = strlen(base);
    while (n > 0 && base[n - 1] == '/')
        n--;
    if (!(s->base = strndup(base, n)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for a source");
    if (strncmp(s->base, "https://", 8) != 0 && strncmp(s->base, "http://", 7) != 0)
        return error_set(err, STATUS_INVALID, "x: expected https://… behind \"x:\"");
    return STATUS_OK;
}

static enum status x_open(const struct source_options *options, struct source **out,
                          struct error *err) {
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
    s->found.max_bytes = FOUND_BYTES;
    enum status status = open_target(s, options->target, err);
    if (status == STATUS_OK && settings->token_file)
        status = fetch_secret(settings->token_file, &s->token, err);
    else if (status == STATUS_OK && !settings->key_file)
        status = error_set(err, STATUS_INVALID,
                           "x: expected --token-file with a bearer token, or "
                           "--app-key-file with the app's key:secret");
    if (status == STATUS_OK && options->cursor)
        status = read_cursor(s, options->cursor, err);
    if (status == STATUS_OK)
        status = read_rules(s, err);
    if (status == STATUS_OK)
        status = fetch_open(&fetching, &s->fetch, err);
    if (status == STATUS_OK)
        status = fetch_open(&fetching, &s->api.fetch, err);
    if (status == STATUS_OK && fetch_check(s->fetch, s->base, err) != STATUS_OK)
        status = error_prefix(err, "x");
    if (status != STATUS_OK) {
        x_close(s);
        return status;
    }
    s->api.base = s->base;
    s->api.token = s->token;
    s->api.timeout_ns = scaled(s, ASK_NS) > MIN_ASK_NS ? scaled(s, ASK_NS) : MIN_ASK_NS;
    s->step = s->token ? STEP_RULES : STEP_TOKEN;
    look_at_day(s);
    *out = s;
    return STATUS_OK;
}

/* ---- What goes wrong ---- */

static void leave_stream(struct source *s) {
    if (s->step == STEP_STREAM)
        atomic_fetch_add(&s->state.n_disconnects, 1);
    fetch_stop(s->fetch);
    x_lines_reset(&s->lines);
}

/* Waits by the table, then goes to the step. */
static void fail(struct source *s, const struct x_outcome *outcome, enum step then,
                 const struct error *why) {
    struct log_line line;
    int64_t wait_ns = x_backoff_next(&s->backoff, outcome->failure, outcome->reset_s,
                                     outcome->retry_after_ns, clock_wall_ns());
    leave_stream(s);
    atomic_fetch_add(&s->state.n_errors, 1);
    s->step = then;
    s->wait_until_ns = clock_now_ns() + scaled(s, wait_ns);
    atomic_store(&s->state.wait_until_ns, s->wait_until_ns);
    atomic_store(&s->state.phase, outcome->failure == X_TOO_MANY_CONNECTIONS
                                      ? SOURCE_TOO_MANY_CONNECTIONS
                                      : SOURCE_WAITING);
    log_begin(&line, LOG_LEVEL_WARNING, "x_wait");
    log_string(&line, "reason", why->message);
    log_number(&line, "seconds", (double)wait_ns / (double)CLOCK_NS_PER_SECOND);
    log_boolean(&line, "too_many_connections",
                outcome->failure == X_TOO_MANY_CONNECTIONS);
    log_end(&line);
}

/* A request that was not done: the end if it is the first and was refused, else a wait. */
static enum status not_done(struct source *s, const struct x_outcome *outcome,
                            enum step then, struct error *err) {
    if (outcome->is_refused && !s->has_streamed) {
        err->status = STATUS_INVALID; /* a certificate too */
        return error_prefix(err, "x");
    }
    if (outcome->code == 401 && s->settings->key_file && !s->settings->token_file)
        then = STEP_TOKEN; /* it may have been revoked: get another */
    fail(s, outcome, then, err);
    return STATUS_OK;
}

/* ---- The steps ---- */

static enum status get_token(struct source *s, struct error *err) {
    char *key = NULL, *token = NULL;
    struct x_outcome outcome = {0};
    enum status status = fetch_secret(s->settings->key_file, &key, err);
    if (status == STATUS_OK && !strchr(key, ':'))
        status = error_set(err, STATUS_INVALID, "%s: expected key:secret",
                           s->settings->key_file);
    if (status == STATUS_OK)
        status = x_api_token(&s->api, key, &token, &outcome, err);
    fetch_secret_free(key);
    if (status != STATUS_OK)
        return status;
    if (!outcome.is_done)
        return not_done(s, &outcome, STEP_TOKEN, err);
    fetch_secret_free(s->token);
    s->token = token;
    s->api.token = token;
    s->step = s->has_streamed ? STEP_CONNECT : STEP_RULES;
    return STATUS_OK;
}

static enum status set_rules(struct source *s, struct error *err) {
    struct x_outcome outcome = {0};
    size_t n_changed = 0;
    size_t max_rules = s->settings->max_rules > 0 ? (size_t)s->settings->max_rules
                                                  : X_RULES_DEFAULT_COUNT;
    enum status status =
        x_api_reconcile(&s->api, &s->want, s->settings->keeps_other_rules, max_rules,
                        &n_changed, &outcome, err);
    if (status != STATUS_OK)
        return status == STATUS_CANCELLED ? status : error_prefix(err, "x");
    if (!outcome.is_done)
        return not_done(s, &outcome, STEP_RULES, err);
    log_message(LOG_LEVEL_INFO, "x_rules", "%zu rules, %zu changed", s->want.n,
                n_changed);
    s->step = STEP_CONNECT;
    return STATUS_OK;
}

/* How long nothing was heard, as far as we know. */
static int64_t gap_ns(const struct source *s) {
    if (s->last_byte_ns)
        return clock_now_ns() - s->last_byte_ns;
    return clock_wall_ns() - ms_of_id(s->safe_id) * 1000000;
}

/* The stream is there: what has to be found again? */
static void open_gap(struct source *s) {
    free(s->gap.next);
    s->gap = (struct gap){0};
    s->hold_until_ns = 0;
    buffer_clear(&s->found);
    s->found_at = 0;
    if (s->safe_id == 0 || s->skips_gap) {
        s->skips_gap = false;
        s->safe_id = s->newest_id;
        return;
    }
    if (s->backfills) {
        s->hold_until_ns = clock_now_ns() + scaled(s, BACKFILL_HOLD_NS);
        return;
    }
    if (s->queries.n == 0)
        return;
    int64_t since_ms = ms_of_id(s->safe_id) - OVERLAP_MS;
    int64_t reach_ms = clock_wall_ns() / 1000000 - SEARCH_REACH_MS;
    if (since_ms < reach_ms) {
        log_message(LOG_LEVEL_WARNING, "x_gap",
                    "the last post is older than seven days: what was posted before "
                    "that cannot be searched for");
        since_ms = reach_ms;
    }
    s->gap.is_open = true;
    s->gap.since_id = (uint64_t)id_of_ms(since_ms);
    s->gap.stream_is_next = true;
    s->gap.not_before_ns = clock_now_ns() + scaled(s, SEARCH_DELAY_NS);
}

static enum status connect_stream(struct source *s, struct error *err) {
    struct buffer url = {.max_bytes = 4096};
    struct fetch_answer answer = {0};
    struct x_outcome outcome = {0};
    int64_t minutes = s->settings->backfill_minutes;
    s->backfills = minutes > 0 && s->safe_id > 0 && !s->skips_gap &&
                   gap_ns(s) < minutes * 60 * CLOCK_NS_PER_SECOND;
    atomic_store(&s->state.phase, SOURCE_CONNECTING);
    enum status status =
        buffer_printf(&url, err, "%s/2/tweets/search/stream?%s", s->base, x_api_fields);
    if (status == STATUS_OK && s->backfills)
        status = buffer_printf(&url, err, "&backfill_minutes=%d", (int)minutes);
    struct fetch_request request = {.method = "GET",
                                    .url = url.data,
                                    .bearer = s->token,
                                    .timeout_ns = s->api.timeout_ns,
                                    .max_answer_bytes = 65536};
    if (status == STATUS_OK)
        status = fetch_start(s->fetch, &request, &answer, err);
    if (status == STATUS_OK)
        x_api_judge(&answer, "stream", &outcome, err);
    buffer_free(&answer.body);
    buffer_free(&url);
    if (status != STATUS_OK)
        return status;
    if (!outcome.is_done || answer.code != 200)
        return not_done(s, &outcome, STEP_CONNECT, err);
    open_gap(s);
    s->step = STEP_STREAM;
    s->has_streamed = true;
    s->is_steady = false;
    s->connected_ns = s->last_byte_ns = clock_now_ns();
    atomic_fetch_add(&s->state.n_connects, 1);
    atomic_store(&s->state.phase, SOURCE_STREAMING);
    atomic_store(&s->state.wait_until_ns, 0);
    log_message(LOG_LEVEL_INFO, "x_stream", "connected");
    return STATUS_OK;
}

/* ---- The usage guard ---- */

static bool is_used_up(struct source *s) {
    look_at_day(s);
    return s->settings->posts_a_day > 0 && s->n_today >= s->settings->posts_a_day;
}

static void pause_source(struct source *s) {
    int64_t left_ns =
        (s->day + 1) * SECONDS_PER_DAY * CLOCK_NS_PER_SECOND - clock_wall_ns();
    if (s->step != STEP_PAUSE)
        log_message(LOG_LEVEL_WARNING, "x_pause",
                    "%" PRId64 " posts a day are used up: paused until midnight UTC",
                    s->settings->posts_a_day);
    leave_stream(s);
    s->step = STEP_PAUSE;
    s->gap.is_open = false;
    s->skips_gap = true;
    atomic_store(&s->state.phase, SOURCE_PAUSED);
    atomic_store(&s->state.wait_until_ns, clock_now_ns() + left_ns);
    /* The clock on the wall may be set meanwhile: look again now and then. */
    s->wait_until_ns =
        clock_now_ns() + (left_ns < PAUSE_LOOK_NS ? left_ns : PAUSE_LOOK_NS);
}

/* ---- Lines ---- */

static void hand_out(struct source *s, struct view line, bool is_cut, uint64_t id,
                     struct source_line *out) {
    look_at_day(s);
    s->n_today++;
    if (id > s->newest_id)
        s->newest_id = id;
    if (!s->gap.is_open && clock_now_ns() >= s->hold_until_ns)
        s->safe_id = s->newest_id;
    *out = (struct source_line){
        .bytes = line,
        .received_ns = clock_wall_ns(),
        .after = {.major = s->safe_id,
                  .minor = (uint64_t)s->day << COUNT_BITS | (uint64_t)s->n_today},
        .is_cut = is_cut};
    atomic_fetch_add(&s->state.n_lines, 1);
    atomic_store(&s->state.last_post_ns, clock_now_ns());
}

/* The next line of a search. */
static bool take_found(struct source *s, struct source_line *out) {
    if (s->found_at >= s->found.n_bytes)
        return false;
    const char *begin = s->found.data + s->found_at;
    const char *end = memchr(begin, '\n', s->found.n_bytes - s->found_at);
    size_t n = end ? (size_t)(end - begin) : s->found.n_bytes - s->found_at;
    bool is_cut = n > SOURCE_MAX_LINE_BYTES;
    s->found_at += n + 1;
    hand_out(s, view_of(begin, is_cut ? SOURCE_MAX_LINE_BYTES : n), is_cut,
             x_scan(view_of(begin, n)).id, out);
    return true;
}

/* The next line of the stream that the pipeline is to have. STATUS_NOT_FOUND: none now. */
static enum status take_line(struct source *s, struct source_line *out,
                             struct error *err) {
    struct view line;
    bool is_cut = false;
    enum status status;
    while ((status = x_lines_next(&s->lines, &line, &is_cut, err)) == STATUS_OK) {
        struct x_scan scan = x_scan(line);
        if (!scan.has_errors || scan.has_data) {
            hand_out(s, line, is_cut, scan.id, out);
            return STATUS_OK;
        }
        struct x_outcome outcome = {.retry_after_ns = -1,
                                    .failure = scan.is_too_many ? X_TOO_MANY_CONNECTIONS
                                                                : X_NETWORK};
        if (!scan.is_disconnect) { /* a problem that is told while the stream goes on */
            atomic_fetch_add(&s->state.n_errors, 1);
            continue;
        }
        error_set(err, STATUS_IO, "x: %s, said the stream",
                  scan.is_too_many ? "too many connections" : "operational disconnect");
        fail(s, &outcome, STEP_CONNECT, err);
        return STATUS_NOT_FOUND;
    }
    return status;
}

/* ---- The search ---- */

static void close_gap(struct source *s, const char *how) {
    free(s->gap.next);
    s->gap = (struct gap){0};
    log_message(LOG_LEVEL_INFO, "x_gap", "%s", how);
}

/* A page. What is refused for good is given up; all else is tried again by X's table, for as
 * long as it takes: what was missed can be told for seven days. The stream goes on meanwhile. */
static enum status search_page(struct source *s, struct error *err) {
    struct x_outcome outcome = {0};
    buffer_clear(&s->found);
    s->found_at = 0;
    s->gap.stream_is_next = true;
    enum status status =
        x_api_search(&s->api, s->queries.all[s->gap.query].value, s->gap.since_id,
                     &s->gap.next, &s->found, &outcome, err);
    if (status == STATUS_CANCELLED || status == STATUS_NO_MEMORY)
        return status;
    if (status == STATUS_OK && outcome.is_done) {
        s->gap.n_failures = 0;
        if (!s->gap.next)
            s->gap.query++;
        return STATUS_OK;
    }
    atomic_fetch_add(&s->state.n_errors, 1);
    if (status != STATUS_OK || outcome.is_refused) {
        log_message(LOG_LEVEL_WARNING, "x_gap", "given up: %s", err->message);
        close_gap(s, "what was missed could not all be searched for");
        return STATUS_OK;
    }
    if (s->gap.n_failures < INT_MAX)
        s->gap.n_failures++;
    struct x_backoff waits = {.seed = s->backoff.seed + (uint64_t)s->gap.n_failures};
    waits.n_failures[outcome.failure] = (uint32_t)s->gap.n_failures - 1;
    s->gap.not_before_ns =
        clock_now_ns() +
        scaled(s, x_backoff_next(&waits, outcome.failure, outcome.reset_s,
                                 outcome.retry_after_ns, clock_wall_ns()));
    return STATUS_OK;
}

/* ---- The stream ---- */

/* Bytes from the stream into lines, or a page of the search. */
static enum status read_more(struct source *s, int64_t deadline_ns, struct error *err) {
    struct view bytes;
    int64_t now_ns = clock_now_ns();
    int64_t stall_ns = s->last_byte_ns + scaled(s, STALL_NS), until_ns = deadline_ns;
    if (!s->is_steady && now_ns - s->connected_ns >= scaled(s, X_BACKOFF_STEADY_NS)) {
        s->is_steady = true;
        x_backoff_steady(&s->backoff);
    }
    /* Only now is the last page handed out, and may the position go on. */
    if (s->gap.is_open && s->gap.query == s->queries.n)
        close_gap(s, "searched for all that was missed");
    if (s->gap.is_open && now_ns >= s->gap.not_before_ns && !s->gap.stream_is_next)
        return search_page(s, err);
    if (stall_ns < until_ns)
        until_ns = stall_ns;
    if (s->gap.is_open && s->gap.not_before_ns < until_ns)
        until_ns = s->gap.not_before_ns;
    enum status status = fetch_read(s->fetch, until_ns, &bytes, err);
    s->gap.stream_is_next = false;
    if (status == STATUS_OK) {
        s->last_byte_ns = clock_now_ns();
        atomic_store(&s->state.last_byte_ns, s->last_byte_ns);
        atomic_fetch_add(&s->state.n_bytes, (int64_t)bytes.n_bytes);
        x_lines_feed(&s->lines, bytes);
        return STATUS_OK;
    }
    now_ns = clock_now_ns();
    if (status == STATUS_CANCELLED || status == STATUS_NO_MEMORY)
        return status;
    if (status == STATUS_TIMEOUT && now_ns < stall_ns)
        return s->gap.is_open && now_ns < deadline_ns ? STATUS_OK : status;
    if (status == STATUS_TIMEOUT)
        error_set(err, STATUS_IO, "x: no byte for 20 s, not even a keep-alive");
    struct x_outcome outcome = {.failure = X_NETWORK, .retry_after_ns = -1};
    fail(s, &outcome, STEP_CONNECT, err);
    return STATUS_OK;
}

static enum status x_next(struct source *s, int64_t deadline_ns,
                          struct source_line *out, struct error *err) {
    struct error ours;
    if (!err)
        err = &ours; /* reasons are logged */
    for (;;) {
        enum status status = STATUS_OK;
        if (take_found(s, out))
            return STATUS_OK;
        status = take_line(s, out, err);
        if (status != STATUS_NOT_FOUND)
            return status;
        if (s->wait_until_ns) {
            status = wait_until(s, s->wait_until_ns, deadline_ns, err);
            if (status != STATUS_OK)
                return status;
            s->wait_until_ns = 0;
        }
        if (is_used_up(s)) {
            pause_source(s);
            continue;
        }
        switch (s->step) {
        case STEP_TOKEN:
            atomic_store(&s->state.phase, SOURCE_CONNECTING);
            status = get_token(s, err);
            break;
        case STEP_RULES:
            atomic_store(&s->state.phase, SOURCE_CONNECTING);
            status = set_rules(s, err);
            break;
        case STEP_PAUSE:
            s->step = s->has_streamed ? STEP_CONNECT
                      : s->token      ? STEP_RULES
                                      : STEP_TOKEN;
            break;
        case STEP_CONNECT:
            status = connect_stream(s, err);
            break;
        case STEP_STREAM:
            status = read_more(s, deadline_ns, err);
            break;
        }
        if (status != STATUS_OK)
            return status;
        if (clock_now_ns() >= deadline_ns && s->step != STEP_STREAM)
            return error_set(err, STATUS_TIMEOUT, "x: no line yet");
    }
}

static enum status x_cursor(const struct source *s, struct source_position at,
                            char out[SOURCE_CURSOR_BYTES], struct error *err) {
    (void)s;
    (void)err;
    (void)snprintf(out, SOURCE_CURSOR_BYTES, "1:%" PRIu64 ":%" PRIu64 ":%" PRIu64,
                   at.major, at.minor >> COUNT_BITS,
                   at.minor & ((UINT64_C(1) << COUNT_BITS) - 1));
    return STATUS_OK;
}

static enum status x_parse(const struct source *s, struct view line,
                           struct arena *arena, struct post *out, struct error *err) {
    (void)s;
    return x_post_parse(line, arena, out, err);
}

static struct source_state *x_state(struct source *s) {
    return &s->state;
}

const struct source_kind source_x = {
    .name = "x",
    .default_name = "x",
    .summary = "X's filtered stream (API v2)",
    .is_replayable = false,
    .open = x_open,
    .next = x_next,
    .cursor = x_cursor,
    .parse = x_parse,
    .state = x_state,
    .close = x_close,
};
