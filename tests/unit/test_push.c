/* SPDX-License-Identifier: Apache-2.0
 *
 * test_push.c - bodies taken apart, good and bad; and the source: what is answered before and
 * after records are durable, when the queue is full, when it is late, when it stops.
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
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "client/sources/push_body.h"
#include "client/sources/source.h"
#include "client/stream_options.h"

#define LATER (clock_now_ns() + 10 * CLOCK_NS_PER_SECOND)

/* ---- Bodies --------------------------------------------------------------------------- */

static enum status collect(void *context, struct view record, struct error *err) {
    struct buffer *b = context;
    enum status status = buffer_append(b, record.data, record.n_bytes, err);
    return status == STATUS_OK ? buffer_append(b, "|", 1, err) : status;
}

/* The records with '|' behind each, or "STATUS: message". */
static const char *split(enum push_form form, const char *body, size_t n_bytes) {
    static char told[4096];
    struct buffer b = {.max_bytes = (size_t)32 << 20};
    struct error err = {0};
    char *copy = malloc(n_bytes + 1); /* exactly as long, for the sanitizers */
    size_t n = 0, n_seen = 0;
    memcpy(copy, body, n_bytes);
    enum status status = push_body_split(form, copy, n_bytes, collect, &b, &n, &err);
    for (size_t i = 0; i < b.n_bytes; i++)
        n_seen += b.data[i] == '|';
    assert_int_equal(n, n_seen);
    if (status == STATUS_OK)
        snprintf(told, sizeof told, "%s", b.n_bytes ? b.data : "");
    else
        snprintf(told, sizeof told, "%s: %s", status_name(status), err.message);
    buffer_free(&b);
    free(copy);
    return told;
}

static void documents(void **state) {
    (void)state;
    static const struct {
        const char *body, *expected;
    } cases[] = {
        {"{\"text\":\"a\"}", "{\"text\":\"a\"}|"},
        {" \n{\"text\":\n\"a\"}\r\n ", "{\"text\": \"a\"}|"},
        {"\"a text\"", "\"a text\"|"},
        {"{\"posts\":[]}", ""},
        {"{\"posts\":[{\"text\":\"a\"},\n\"b\" , {\"text\":\"]}\\\"\"}]}",
         "{\"text\":\"a\"}|\"b\"|{\"text\":\"]}\\\"\"}|"},
        {" { \"x\" : [1,{\"posts\":[]}] , \"posts\" : [ {} ] , \"y\" : null } ", "{}|"},
        {"{\"text\":\"\\ud800\"}",
         "{\"text\":\"\\ud800\"}|"}, /* a dead letter, later */
        {"{\"posts\":[{\"text\":\"\\ud800\"}]}", "{\"text\":\"\\ud800\"}|"},
        {"", "invalid: post 1 is not a record"},
        {"[]", "invalid: post 1 is not a record"},
        {"7", "invalid: post 1 is not a record"},
        {"{\"text\":\"a\"", "invalid: post 1 is not JSON"},
        {"{\"text\":\"a\"}{}", "invalid: post 1 is not JSON"},
        {"{\"text\":\"a\",\"text\":\"b\"}", "invalid: post 1 is not JSON"},
        {"{\"posts\":{}}", "invalid: \"posts\" must be an array"},
        {"{\"posts\":[{},7]}", "invalid: post 2 is not a record"},
        {"{\"posts\":[{},[]]}", "invalid: post 2 is not a record"},
        {"{\"posts\":[{},{\"a\"}]}", "invalid: post 2 is not JSON"},
        {"{\"posts\":[{},{}{}]}", "invalid: post 2 is not JSON"},
        {"{\"posts\":[{},]}", "invalid: post 2 is not a record"},
        {"{\"posts\":[{} {}]}", "invalid: the body is not JSON"},
        {"{\"posts\":[{}][{}]}", "invalid: the body is not JSON"},
        {"{\"posts\":[{}]", "invalid: the body is not JSON"},
        {"{\"posts\":[{}", "invalid: the body is not JSON"},
        {"{\"posts\":[{}]}{}", "invalid: the body is not JSON"},
        {"{\"posts\":[{}],\"posts\":[{}]}", "invalid: the body is not JSON"},
        {"{\"posts\":[{}],x}", "invalid: the body is not JSON"},
        {"{x:1,\"posts\":[{}]}", "invalid: the body is not JSON"},
        {"{\"posts\":", "invalid: \"posts\" must be an array"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *told = split(PUSH_DOCUMENT, cases[i].body, strlen(cases[i].body));
        if (strncmp(told, cases[i].expected, strlen(cases[i].expected)) != 0 ||
            (!strchr(cases[i].expected, ':') && strcmp(told, cases[i].expected) != 0))
            fail_msg("%s gives %s", cases[i].body, told);
    }
}

static void lines(void **state) {
    (void)state;
    static const struct {
        const char *body, *expected;
    } cases[] = {
        {"{\"text\":\"a\"}\n{\"text\":\"b\"}\n", "{\"text\":\"a\"}|{\"text\":\"b\"}|"},
        {"\n \r\n\t{\"text\":\"a\"} \r\n\n\"b\"", "{\"text\":\"a\"}|\"b\"|"},
        {"", ""},
        {"\n\n", ""},
        {"{}\n\n{\"a\n", "invalid: line 3 is not JSON"},
        {"{}\nsecret words\n", "invalid: line 2 is not a record"},
        {"{}\n{} {}\n", "invalid: line 2 is not JSON"},
        {"{}\n{\"a\":\"\xFF\"}\n", "invalid: line 2 is not JSON"},
        {"7", "invalid: line 1 is not a record"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(split(PUSH_LINES, cases[i].body, strlen(cases[i].body)),
                            cases[i].expected);
    /* Too long, too deep. */
    static char large[SOURCE_MAX_LINE_BYTES + 32];
    memset(large, 'x', sizeof large);
    large[0] = large[SOURCE_MAX_LINE_BYTES] = '"';
    assert_string_equal(split(PUSH_LINES, large, SOURCE_MAX_LINE_BYTES + 1),
                        "limit: line 1 is too long, too deep or too full");
    memcpy(large, "{\"a\":", 5);
    memset(large + 5, '[', 40);
    memset(large + 45, ']', 40);
    large[85] = '}';
    assert_string_equal(split(PUSH_LINES, large, 86),
                        "limit: line 1 is too long, too deep or too full");
}

static void forms(void **state) {
    (void)state;
    enum push_form form;
    struct error err;
    assert_int_equal(push_body_form(VIEW("application/json"), &form, &err), STATUS_OK);
    assert_int_equal(form, PUSH_DOCUMENT);
    assert_int_equal(
        push_body_form(VIEW("Application/JSONLines; charset=utf-8"), &form, &err),
        STATUS_OK);
    assert_int_equal(form, PUSH_LINES);
    assert_int_equal(push_body_form(VIEW("application/x-ndjson;"), &form, &err),
                     STATUS_OK);
    assert_int_equal(push_body_form(VIEW("application/jsonx"), &form, &err),
                     STATUS_UNSUPPORTED);
    assert_int_equal(push_body_form(VIEW(""), &form, &err), STATUS_UNSUPPORTED);
}

/* ---- The source ------------------------------------------------------------------------ */

struct fixture {
    struct source *source;
    int port, wake;
    int64_t n_committed; /* what the pipeline tells before it stops to; -1: all */
    pthread_t pipeline;
    bool has_pipeline;
    struct buffer seen; /* what came out, '|' behind each */
};

static int free_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, n), 0);
    getsockname(fd, (struct sockaddr *)&at, &n);
    close(fd);
    return ntohs(at.sin_port);
}

/* Takes lines and says that they are durable, until it is woken. */
static void *run_pipeline(void *context) {
    struct fixture *f = context;
    struct source_line line;
    struct error err;
    enum status status;
    while ((status = source_push.next(f->source, LATER, &line, &err)) !=
           STATUS_CANCELLED) {
        if (status != STATUS_OK)
            continue;
        collect(&f->seen, line.bytes, NULL);
        if (f->n_committed < 0 || (int64_t)line.after.major <= f->n_committed)
            source_push.committed(f->source, line.after);
    }
    return NULL;
}

static void open_source(struct fixture *f, const char *cursor) {
    static struct source_settings settings;
    char target[64];
    struct error err = {0};
    f->port = free_port();
    f->wake = eventfd(0, 0);
    f->n_committed = -1;
    f->seen.max_bytes = (size_t)64 << 20;
    snprintf(target, sizeof target, "127.0.0.1:%d", f->port);
    struct source_options options = {.name = "push",
                                     .target = target,
                                     .cursor = cursor,
                                     .wake_fd = f->wake,
                                     .settings = &settings};
    if (source_push.open(&options, &f->source, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void start_pipeline(struct fixture *f) {
    f->has_pipeline = pthread_create(&f->pipeline, NULL, run_pipeline, f) == 0;
    assert_true(f->has_pipeline);
}

static void stop_pipeline(struct fixture *f) {
    assert_int_equal(eventfd_write(f->wake, 1), 0);
    if (f->has_pipeline)
        pthread_join(f->pipeline, NULL);
    f->has_pipeline = false;
}

static void close_source(struct fixture *f) {
    stop_pipeline(f);
    source_push.close(f->source);
    close(f->wake);
    buffer_free(&f->seen);
}

static int send_post(const struct fixture *f, const char *type, const char *body,
                     size_t n_bytes) {
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)f->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    dprintf(fd,
            "POST /v1/posts HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: "
            "%s\r\nContent-Length: %zu\r\n\r\n",
            type, n_bytes);
    for (size_t at = 0; at < n_bytes;) {
        ssize_t n = send(fd, body + at, n_bytes - at, MSG_NOSIGNAL);
        assert_true(n > 0);
        at += (size_t)n;
    }
    return fd;
}

static const char *read_answer(int fd) {
    static char text[4096];
    size_t n = 0;
    ssize_t more;
    while (n < sizeof text - 1 &&
           (more = recv(fd, text + n, sizeof text - 1 - n, 0)) > 0)
        n += (size_t)more;
    text[n] = '\0';
    close(fd);
    return text;
}

static const char *post(const struct fixture *f, const char *type, const char *body) {
    return read_answer(send_post(f, type, body, strlen(body)));
}

#define HAS(text, what)                                                                \
    do {                                                                               \
        const char *had = text;                                                        \
        if (!strstr(had, what))                                                        \
            fail_msg("no \"%s\" in \"%s\"", what, had);                                \
    } while (0)

static void accepts(void **state) {
    (void)state;
    struct fixture f = {0};
    open_source(&f, NULL);
    start_pipeline(&f);
    const char *text =
        post(&f, "application/json", "{\"posts\":[{\"text\":\"a\"},{\"text\":\"b\"}]}");
    HAS(text, " 200 OK\r\n");
    HAS(text, "\r\n\r\n{\"accepted\":2}");
    HAS(post(&f, "application/jsonlines", "{\"text\":\"c\"}\n\"d\"\n"),
        "{\"accepted\":2}");
    HAS(post(&f, "application/x-ndjson", "{\"text\":\"e\"}"), "{\"accepted\":1}");
    HAS(post(&f, "application/json", "{\"text\":\"f\"}"), "{\"accepted\":1}");
    HAS(post(&f, "text/plain", "g"), " 415 ");
    HAS(post(&f, "application/json", ""), " 400 ");
    HAS(post(&f, "application/x-ndjson", "\n"), "there is no post");
    text = post(&f, "application/x-ndjson", "{\"text\":\"h\"}\nprivate\n");
    HAS(text, " 400 ");
    HAS(text, "{\"error\":\"line 2 is not a record\",\"error_type\":\"malformed\"}");
    stop_pipeline(&f);
    /* A string is tagged, so that it is read as JSON; nothing of a bad request came. */
    assert_string_equal(f.seen.data,
                        "{\"text\":\"a\"}|{\"text\":\"b\"}|{\"text\":\"c\"}|"
                        "\x1E\"d\"|{\"text\":\"e\"}|{\"text\":\"f\"}|");
    struct arena arena = {.max_bytes = 1 << 20};
    struct post p;
    assert_int_equal(source_push.parse(f.source, VIEW("\x1E\"d\""), &arena, &p, NULL),
                     STATUS_OK);
    assert_true(view_equal(p.text, VIEW("d")));
    assert_int_equal(source_push.parse(NULL, VIEW("{\"id\":\"1\",\"text\":\"c\"}"),
                                       &arena, &p, NULL),
                     STATUS_OK);
    assert_true(view_equal(p.native_id, VIEW("1")));
    arena_free(&arena);
    const struct source_state *seen = source_push.state(f.source);
    assert_true(seen->n_lines == 6 && seen->n_bytes > 0 && seen->n_errors == 4);
    close_source(&f);
}

/* Not a word before the last record of the request is durable. */
static void waits_for_the_commit(void **state) {
    (void)state;
    struct fixture f = {0};
    struct source_line line;
    struct error err;
    char byte, cursor[SOURCE_CURSOR_BYTES];
    setenv("VIGIL_TEST_TIME_SCALE", "1", 1);
    open_source(&f, "41");
    setenv("VIGIL_TEST_TIME_SCALE", "0.02", 1);
    const char *body =
        "{\"posts\":[{\"text\":\"a\"},{\"text\":\"b\"},{\"text\":\"c\"}]}";
    int fd = send_post(&f, "application/json", body, strlen(body));
    for (uint64_t i = 42; i <= 44; i++) {
        assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
        assert_int_equal(source_push.next(f.source, LATER, &line, &err), STATUS_OK);
        assert_int_equal(line.after.major, i);
        assert_true(line.received_ns > 0);
    }
    assert_int_equal(source_push.next(f.source, clock_now_ns(), &line, &err),
                     STATUS_TIMEOUT);
    source_push.committed(f.source, (struct source_position){.major = 43});
    usleep(20000);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    source_push.committed(f.source, (struct source_position){.major = 44});
    HAS(read_answer(fd), "{\"accepted\":3}");
    source_push.committed(f.source,
                          (struct source_position){.major = 7}); /* no way back */
    assert_int_equal(source_push.cursor(f.source, line.after, cursor, &err), STATUS_OK);
    assert_string_equal(cursor, "44");
    close_source(&f);
}

static void late_and_stopping(void **state) {
    (void)state;
    struct fixture f = {0};
    open_source(&f, NULL);
    f.n_committed = 1;
    start_pipeline(&f);
    const char *text = post(&f, "application/json", "{\"posts\":[\"a\",\"b\"]}");
    HAS(text, " 503 ");
    HAS(text, "\r\nRetry-After: 1\r\n");
    HAS(text, "send them again");
    close_source(&f);
    setenv("VIGIL_TEST_TIME_SCALE", "1", 1);
    f = (struct fixture){0};
    open_source(&f, NULL);
    setenv("VIGIL_TEST_TIME_SCALE", "0.02", 1);
    int fd = send_post(&f, "application/json", "\"a\"", 3);
    struct source_line line;
    struct error err;
    assert_int_equal(source_push.next(f.source, LATER, &line, &err), STATUS_OK);
    int64_t before = clock_now_ns();
    close_source(&f);
    assert_true(clock_now_ns() - before < 4 * CLOCK_NS_PER_SECOND);
    text = read_answer(fd);
    HAS(text, " 503 ");
    HAS(text, "\"not_ready\"");
}

/* Sixteen MiB wait, and then no more. */
static void full(void **state) {
    (void)state;
    enum { SENDERS = 3, EACH = 6000000 };
    struct fixture f = {0};
    static char body[EACH + 1];
    int fds[SENDERS];
    size_t n = 0;
    setenv("VIGIL_TEST_TIME_SCALE", "1", 1);
    open_source(&f, NULL);
    setenv("VIGIL_TEST_TIME_SCALE", "0.02", 1);
    memset(body, 'x', EACH);
    for (size_t at = 0; at < EACH; at += 1000000) {
        memcpy(body + at, "{\"text\":\"", 9);
        memcpy(body + at + 999997, "\"}\n", 3);
    }
    for (int i = 0; i < SENDERS; i++)
        fds[i] = send_post(&f, "application/x-ndjson", body, EACH);
    struct source_line line;
    struct error err;
    const char *text = NULL;
    for (int i = 0; !text; i = (i + 1) % SENDERS) { /* one of them is turned away */
        char byte;
        if (recv(fds[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
            text = read_answer(fds[i]);
            fds[i] = -1;
        }
        usleep(1000);
    }
    HAS(text, " 429 ");
    HAS(text, "\r\nRetry-After: 1\r\n");
    for (; n < 12; n++) {
        assert_int_equal(source_push.next(f.source, LATER, &line, &err), STATUS_OK);
        assert_int_equal(line.bytes.n_bytes, 999999);
        source_push.committed(f.source, line.after);
    }
    for (int i = 0; i < SENDERS; i++)
        if (fds[i] >= 0)
            HAS(read_answer(fds[i]), "{\"accepted\":6}");
    start_pipeline(&f);
    HAS(post(&f, "application/json", "\"again\""), "{\"accepted\":1}");
    close_source(&f);
}

static void refuses_to_open(void **state) {
    (void)state;
    struct source *source;
    struct error err;
    struct source_options options = {.target = "0.0.0.0:0", .wake_fd = -1};
    assert_int_equal(source_push.open(&options, &source, &err), STATUS_INVALID);
    options.target = "127.0.0.1:0";
    options.cursor = "x";
    assert_int_equal(source_push.open(&options, &source, &err), STATUS_INVALID);
    source_push.close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents),
        cmocka_unit_test(lines),
        cmocka_unit_test(forms),
        cmocka_unit_test(accepts),
        cmocka_unit_test(waits_for_the_commit),
        cmocka_unit_test(late_and_stopping),
        cmocka_unit_test(full),
        cmocka_unit_test(refuses_to_open),
    };
    setenv("VIGIL_TEST_TIME_SCALE", "0.02", 1);
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
