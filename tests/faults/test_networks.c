/* SPDX-License-Identifier: Apache-2.0
 *
 * test_networks.c - every allocation of the sources that read from networks fails once, and
 * once for ever: from opening them over the first line and what it says to closing them. A
 * server in a thread answers what they ask.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/net/html.h"
#include "client/net/sse.h"
#include "client/sources/source.h"
#include "client/sources/x_api.h"
#include "client/stream_options.h"
#include "tests/faults/faults.h"

#define MAX_ALLOCATIONS 2000 /* a scenario that needs more has run away */

/* ---- a server that allocates nothing -------------------------------------------------- */

static int listener;
static char base_url[64], token_path[64] = "/tmp/vigil-token-XXXXXX",
                          rules_path[64] = "/tmp/vigil-rules-XXXXXX";

#define POST "{\"data\":{\"id\":\"1\",\"text\":\"words\",\"author_id\":\"7\"}}\r\n"
#define EVENT "event: update\ndata: {\"id\":\"1\",\"content\":\"<p>words</p>\"}\n\n"

static void answer(int fd, const char *request) {
    static const struct {
        const char *start;
        int code;
        const char *body;
        bool is_stream;
    } answers[] = {
        {"POST /oauth2/token", 200,
         "{\"token_type\":\"bearer\",\"access_token\":\"ABCDEFGH\"}", false},
        {"GET /2/tweets/search/stream/rules", 200,
         "{\"data\":[{\"id\":\"1\",\"value\":\"old\",\"tag\":\"vigil:old\"}]}", false},
        {"POST /2/tweets/search/stream/rules", 201, "{\"data\":[]}", false},
        {"GET /2/tweets/search/stream?", 200, POST, true},
        {"GET /2/tweets/search/recent?", 200,
         "{\"data\":[{\"id\":\"2\",\"text\":\"words\"}]}", false},
        {"GET /api/v2/instance", 404, "", false},
        {"GET /api/v1/streaming/", 200, EVENT, true},
    };
    char text[1024];
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        const char *body = answers[i].body;
        if (strncmp(request, answers[i].start, strlen(answers[i].start)) != 0)
            continue;
        int n = answers[i].is_stream
                    ? snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n\r\n%s", body)
                    : snprintf(text, sizeof text,
                               "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n%s",
                               answers[i].code, strlen(body), body);
        (void)!send(fd, text, (size_t)n, MSG_NOSIGNAL);
    }
}

static void *serve_one(void *context) {
    int fd = (int)(intptr_t)context;
    char request[8192];
    size_t n = 0;
    ssize_t got;
    while ((got = recv(fd, request + n, sizeof request - 1 - n, 0)) > 0) {
        n += (size_t)got;
        request[n] = 0;
        const char *end = strstr(request, "\r\n\r\n");
        const char *length = strstr(request, "Content-Length: ");
        size_t n_body = length ? strtoul(length + 16, NULL, 10) : 0;
        if (!end || n < (size_t)(end + 4 - request) + n_body)
            continue;
        answer(fd, request);
        n = 0;
    }
    close(fd);
    return NULL;
}

static void *serve(void *context) {
    int fd;
    (void)context;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)fd) == 0)
            pthread_detach(thread);
    }
    return NULL;
}

/* ---- what is tried -------------------------------------------------------------------- */

static enum status run_source(const struct source_kind *kind,
                              const struct source_settings *settings,
                              const char *cursor, size_t n_lines, struct error *err) {
    const struct source_options options = {.name = "s",
                                           .target = base_url,
                                           .cursor = cursor,
                                           .wake_fd = -1,
                                           .settings = settings};
    struct arena arena = {.max_bytes = 1 << 20};
    struct source *s = NULL;
    struct source_line line;
    struct post post;
    enum status status = kind->open(&options, &s, err);
    for (size_t i = 0; status == STATUS_OK && i < n_lines; i++) {
        status = kind->next(s, clock_now_ns() + 10 * CLOCK_NS_PER_SECOND, &line, err);
        if (status == STATUS_OK)
            status = kind->parse(s, line.bytes, &arena, &post, err);
        if (status == STATUS_OK)
            assert_int_equal(post.action, POST_PUT);
    }
    kind->close(s);
    arena_free(&arena);
    return status;
}

static enum status run_x(struct error *err) {
    const struct source_settings settings = {
        .key_file = token_path, .rules_file = rules_path, .allows_plain = true};
    return run_source(&source_x, &settings, NULL, 1, err);
}

static enum status run_x_gap(struct error *err) {
    const struct source_settings settings = {
        .token_file = token_path, .rules_file = rules_path, .allows_plain = true};
    return run_source(&source_x, &settings, "1:1:1:1", 2, err);
}

static enum status run_mastodon(struct error *err) {
    const struct source_settings settings = {.token_file = token_path,
                                             .allows_plain = true};
    return run_source(&source_mastodon, &settings, "1:5", 1, err);
}

static enum status run_rules(struct error *err) {
    struct x_rules_maker m;
    struct x_rules want = {0}, have = {0}, missing = {0}, surplus = {0};
    struct buffer body = {.max_bytes = 4096};
    enum status status = x_rules_begin(&m, "en,es", 40, 9, &want, err);
    if (status == STATUS_OK) {
        status = x_rules_name(&m, "a b", err);
        if (status == STATUS_OK)
            status = x_rules_name(&m, "cd", err);
        enum status ended = x_rules_end(&m, err);
        status = status == STATUS_OK ? ended : status;
    }
    if (status == STATUS_OK)
        status = x_rules_add(&have, VIEW("old"), VIEW("vigil:x"), VIEW("1"), err);
    if (status == STATUS_OK)
        status = x_rules_compare(&want, &have, true, &missing, &surplus, err);
    if (status == STATUS_OK)
        status = x_rules_body(&missing, true, 0, 9, &body, err);
    buffer_free(&body);
    x_rules_free(&want);
    x_rules_free(&have);
    x_rules_free(&missing);
    x_rules_free(&surplus);
    return status;
}

static enum status run_page(struct error *err) {
    struct buffer lines = {.max_bytes = 1 << 16};
    char *next = NULL;
    enum status status = x_search_split(
        VIEW("{\"data\":[{\"id\":\"1\",\"text\":\"x\"}],\"includes\":{\"users\":[{"
             "\"id\":\"7\"}]},\"meta\":{\"next_token\":\"n\"}}"),
        &lines, &next, err);
    free(next);
    buffer_free(&lines);
    return status;
}

static enum status run_events(struct error *err) {
    struct sse s = {0};
    struct arena arena = {.max_bytes = 1 << 16};
    struct view text;
    size_t n_used;
    bool has_event;
    enum status status =
        sse_feed(&s, VIEW("id: 1\nevent: x\ndata: <p>a\n\n"), &n_used, &has_event, err);
    if (status == STATUS_OK)
        status = html_to_text(view_of(s.data.data, s.data.n_bytes), &arena, &text, err);
    sse_free(&s);
    arena_free(&arena);
    return status;
}

/* ---- how ------------------------------------------------------------------------------ */

static size_t n_survived;

/* The k-th allocation fails. False when the scenario ended before it. */
static bool try_one(enum status (*run)(struct error *err), size_t k, bool for_ever) {
    struct error err = {0};
    faults_arm(k, for_ever);
    enum status status = run(&err);
    size_t n_failed = faults_disarm();
    if (n_failed == 0) {
        if (status != STATUS_OK)
            fail_msg("%s", err.message);
        return false;
    }
    n_survived += status == STATUS_OK;
    if (status != STATUS_OK) {
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_true(strlen(err.message) > 0);
    }
    return true;
}

static void fail_each(enum status (*run)(struct error *err), size_t max_survived) {
    size_t k = 1;
    n_survived = 0;
    while (try_one(run, k, false) && try_one(run, k, true))
        assert_true(++k < MAX_ALLOCATIONS);
    assert_true(k > 1);
    assert_in_range(n_survived, 0, max_survived);
}

static void fails_x(void **state) {
    (void)state;
    fail_each(run_x, 0);
}

static void fails_x_gap(void **state) {
    (void)state;
    fail_each(run_x_gap, 0);
}

static void fails_mastodon(void **state) {
    (void)state;
    fail_each(run_mastodon, 0);
}

static void fails_rules(void **state) {
    (void)state;
    fail_each(run_rules, 0);
}

static void fails_page(void **state) {
    (void)state;
    fail_each(run_page, 0);
}

static void fails_events(void **state) {
    (void)state;
    fail_each(run_events, 0);
}

static void write_file(char *path, const char *text) {
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static int set_up(void **state) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    pthread_t thread;
    struct error err;
    (void)state;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 64), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &n), 0);
    (void)snprintf(base_url, sizeof base_url, "http://127.0.0.1:%d",
                   ntohs(at.sin_port));
    setenv("VIGIL_TEST_TIME_SCALE", "0.001", 1); /* waits of the source, not ours */
    write_file(token_path, "key:secret\n");
    write_file(rules_path, "(a OR b) lang:en\n");
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    pthread_detach(thread);
    /* What libraries set up once is not ours to fail. */
    if (run_x(&err) != STATUS_OK)
        fail_msg("%s", err.message);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(token_path);
    unlink(rules_path);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_x),        cmocka_unit_test(fails_x_gap),
        cmocka_unit_test(fails_mastodon), cmocka_unit_test(fails_rules),
        cmocka_unit_test(fails_page),     cmocka_unit_test(fails_events),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
