/* SPDX-License-Identifier: Apache-2.0
 *
 * test_listener.c - heads and addresses as pure functions; then a listener on a free port and
 * requests as they are on the wire, good, broken, slow and many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/net/listener.h"
#include "client/net/listener_head.h"

#define KEY "a-key-of-some-length"
#define PATIENCE_S 10

/* ---- Pure -------------------------------------------------------------------------- */

static void expect_view(struct view v, const char *text) {
    assert_true(view_equal(v, view_of_string(text)));
}

static void heads_are_read(void **state) {
    (void)state;
    struct listener_head h;
    listener_head_read(
        VIEW("\r\nPOST /v1/posts?a=b?c HTTP/1.1\r\nHost: x\r\n"
             "content-TYPE: \t application/json \r\nContent-Type: b\r\n"
             "Authorization: Bearer k:y\r\nx-api-key:\r\nX-Api-Key: z\r\n"
             "Connection: keep-alive\r\nExpect: 100-Continue\r\n\r\n"),
        &h);
    expect_view(h.method, "POST");
    expect_view(h.path, "/v1/posts");
    expect_view(h.query, "a=b?c");
    expect_view(h.content_type, "application/json");
    expect_view(h.authorization, "Bearer k:y");
    expect_view(h.api_key, "z");
    assert_true(h.keeps_alive && h.expects_continue && !h.expects_otherwise);
    listener_head_read(VIEW("GET / HTTP/1.1\r\nHost: x\r\nConnection: a, Close ,b\r\n"
                            "Expect: wonders\r\n\r\n"),
                       &h);
    expect_view(h.query, "");
    assert_true(!h.keeps_alive && !h.expects_continue && h.expects_otherwise);
    listener_head_read(VIEW("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), &h);
    assert_false(h.keeps_alive);
    listener_head_read(VIEW(""), &h);
    expect_view(h.path, "");
    listener_head_read(VIEW("GET"), &h);
    expect_view(h.method, "GET");
}

static void addresses_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool is_loopback;
    } good[] = {{":0", true},
                {"127.0.0.1:9100", true},
                {"127.9.9.9:1", true},
                {"[::1]:65535", true},
                {"localhost:80", true},
                {"0.0.0.0:80", false},
                {"[::]:80", false},
                {"10.0.0.1:80", false},
                {"[::ffff:127.0.0.1]:1", false}};
    static const char *const bad[] = {
        "",         "80",           "127.0.0.1", "127.0.0.1:", "a.b:80",  "::1:80x",
        "[::1]",    "[::1:80",      ":65536",    ":-1",        ":999999", "[]:80",
        "1.2.3:80", "[1.2.3.4]:80", ":8 0",      "::1:80"};
    struct sockaddr_storage address;
    struct error err;
    socklen_t n = 0;
    bool is_loopback = false;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(
            listener_address(good[i].text, &address, &n, &is_loopback, &err),
            STATUS_OK);
        assert_int_equal(is_loopback, good[i].is_loopback);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(listener_address(bad[i], &address, &n, &is_loopback, &err),
                         STATUS_INVALID);
}

/* ---- A listener --------------------------------------------------------------------- */

struct fixture {
    struct listener *listener;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool holds;    /* /hold waits while it is set */
    int n_holding; /* handlers that wait */
    char keys[64];
};

static void handle_echo(void *context, const struct listener_request *request,
                        struct listener_answer *answer) {
    (void)context;
    if (!view_equal(request->content_type, VIEW("text/plain"))) {
        listener_refuse(answer, FAULT_MEDIA_TYPE, "expected %s", "text/plain");
        return;
    }
    answer->content_type = "text/plain";
    assert_int_equal(
        buffer_append(&answer->body, request->body.data, request->body.n_bytes, NULL),
        STATUS_OK);
}

static void handle_get(void *context, const struct listener_request *request,
                       struct listener_answer *answer) {
    (void)context;
    assert_int_equal(buffer_printf(&answer->body, NULL, "{\"query\":\"%.*s\"}",
                                   (int)request->query.n_bytes, request->query.data),
                     STATUS_OK);
}

static void handle_busy(void *context, const struct listener_request *request,
                        struct listener_answer *answer) {
    (void)context;
    (void)request;
    listener_refuse(answer, FAULT_OVERLOADED, "later");
    answer->retry_after_s = 7;
}

static void handle_hold(void *context, const struct listener_request *request,
                        struct listener_answer *answer) {
    struct fixture *f = context;
    (void)request;
    (void)answer;
    pthread_mutex_lock(&f->lock);
    f->n_holding++;
    pthread_cond_broadcast(&f->changed);
    while (f->holds)
        pthread_cond_wait(&f->changed, &f->lock);
    f->n_holding--;
    pthread_mutex_unlock(&f->lock);
}

static void release(struct fixture *f) {
    pthread_mutex_lock(&f->lock);
    f->holds = false;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void wait_until_held(struct fixture *f, int n) {
    pthread_mutex_lock(&f->lock);
    while (f->n_holding < n)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

static void open_listener(struct fixture *f, bool has_keys) {
    struct error err = {0};
    struct listener_route routes[] = {
        {.method = "POST", .path = "/echo", .needs_key = true, .handle = handle_echo},
        {.method = "GET", .path = "/get", .handle = handle_get},
        {.method = "POST", .path = "/get", .handle = handle_busy},
        {.method = "GET", .path = "/hold", .handle = handle_hold, .context = f},
    };
    static struct listener_route kept[4]; /* the listener does not copy them */
    memcpy(kept, routes, sizeof kept);
    struct listener_options options = {.address = "127.0.0.1:0",
                                       .keys = has_keys ? f->keys : NULL,
                                       .max_body_bytes = 100000,
                                       .head_ns = CLOCK_NS_PER_SECOND / 5,
                                       .body_ns = CLOCK_NS_PER_SECOND / 5,
                                       .idle_ns = CLOCK_NS_PER_SECOND / 5,
                                       .routes = kept,
                                       .n_routes = 4};
    f->holds = true;
    if (listener_open(&options, &f->listener, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    snprintf(f->keys, sizeof f->keys, "/tmp/vigil-test-keys-XXXXXX");
    int fd = mkstemp(f->keys);
    dprintf(fd, "%s\n", KEY);
    close(fd);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    release(f);
    listener_close(f->listener);
    unlink(f->keys);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}

static int dial(const struct fixture *f) {
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)listener_port(f->listener)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void put(int fd, const char *bytes, size_t n) {
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* All that comes until the end, NUL-terminated. */
static const char *get_all(int fd) {
    static char text[200000];
    size_t n = 0;
    ssize_t more = 1;
    while (n < sizeof text - 1 &&
           (more = recv(fd, text + n, sizeof text - 1 - n, 0)) > 0)
        n += (size_t)more;
    assert_true(more == 0);
    text[n] = '\0';
    close(fd);
    return text;
}

static const char *ask(const struct fixture *f, const char *bytes) {
    int fd = dial(f);
    put(fd, bytes, strlen(bytes));
    return get_all(fd);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

#define HAS(text, what)                                                                \
    do {                                                                               \
        const char *had = text;                                                        \
        if (!strstr(had, what))                                                        \
            fail_msg("no \"%s\" in \"%s\"", what, had);                                \
    } while (0)
#define END "Host: a\r\nConnection: close\r\n\r\n"

static void answers(void **state) {
    struct fixture *f = *state;
    open_listener(f, false);
    const char *text = ask(f, "GET /get?x=1 HTTP/1.1\r\n" END);
    HAS(text, "HTTP/1.1 200 OK\r\nDate: ");
    HAS(text, " GMT\r\nContent-Type: application/json\r\nContent-Length: 15\r\n");
    HAS(text, "Connection: close\r\n\r\n{\"query\":\"x=1\"}");
    text = ask(f, "HEAD /get HTTP/1.1\r\n" END);
    HAS(text, "Content-Length: 12\r\n");
    assert_null(strstr(text, "query"));
    HAS(ask(f, "GET /none HTTP/1.1\r\n" END), " 404 Not Found\r\n");
    HAS(ask(f, "GET /none HTTP/1.1\r\n" END), "\"error_type\":\"not_found\"}");
    text = ask(f, "PUT /get HTTP/1.1\r\n" END);
    HAS(text, " 405 Method Not Allowed\r\n");
    HAS(text, "\r\nAllow: GET, HEAD, POST\r\n");
    text = ask(f, "POST /get HTTP/1.1\r\n" END);
    HAS(text, " 429 Too Many Requests\r\n");
    HAS(text, "\r\nRetry-After: 7\r\n");
    text = ask(f, "POST /echo HTTP/1.1\r\nContent-Type: a/b\r\n" END);
    HAS(text, " 415 Unsupported Media Type\r\n");
    HAS(text, "{\"error\":\"expected "
              "text/plain\",\"error_type\":\"unsupported_media_type\"}");
    HAS(ask(f, "GET /get HTTP/1.0\r\n\r\n"),
        "Connection: close\r\n\r\n{\"query\":\"\"}");
}

#define ECHO "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"

static void bad_framing(void **state) {
    struct fixture *f = *state;
    open_listener(f, false);
    static const struct {
        const char *bytes, *expected;
    } cases[] = {
        {"nonsense\r\n\r\n", " 400 "},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", " 400 "},
        {"GET /get HTTP/1.1\r\n\r\n", " 400 "},
        {"GET /get HTTP/1.1\nHost: a\n\n", " 400 "},
        {ECHO "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", " 400 "},
        {ECHO "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", " 400 "},
        {ECHO "Content-Length : 1\r\n\r\nx", " 400 "},
        {ECHO "Content-Length: -1\r\n\r\n", " 400 "},
        {ECHO "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", " 411 "},
        {ECHO "Content-Length: 100001\r\n\r\n", " 413 "},
        {ECHO "Content-Length: 99999999999999999999\r\n\r\n", " 413 "},
        {ECHO "Expect: wonders\r\nContent-Length: 1\r\n\r\nx", " 400 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = ask(f, cases[i].bytes);
        HAS(text, cases[i].expected);
        HAS(text, "Connection: close\r\n");
        HAS(text, "\"error_type\":\"");
        assert_int_equal(count(text, "\r\nDate: "), 1);
    }
    char longest[1100] = "GET /";
    memset(longest + 5, 'a', 1050);
    HAS(ask(f, longest), " 414 ");
    /* What was hidden behind a request that is refused is never answered. */
    const char *text =
        ask(f, ECHO
            "Content-Length: 1\r\nContent-Length: 9\r\n\r\nxGET /get HTTP/1.1\r\n" END);
    assert_int_equal(count(text, "HTTP/1.1 "), 1);
    text = ask(f, "POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\n\r\n"
                  "GET /get HTTP/1.1\r\n" END);
    assert_int_equal(count(text, "HTTP/1.1 "), 1);
}

static void keep_alive(void **state) {
    struct fixture *f = *state;
    open_listener(f, false);
    const char *text =
        ask(f, ECHO "Content-Length: 3\r\n\r\nabc" ECHO "Content-Length: 2\r\n\r\nde"
                    "GET /none HTTP/1.1\r\nHost: a\r\n\r\n"
                    "GET /get HTTP/1.1\r\n" END);
    assert_int_equal(count(text, "HTTP/1.1 200 OK"), 3);
    assert_int_equal(count(text, "HTTP/1.1 404"), 1);
    assert_int_equal(count(text, "Connection: close"), 1);
    HAS(text, "\r\n\r\nabcHTTP/1.1 200");
    HAS(text, "\r\n\r\ndeHTTP/1.1 404");
    /* The same, a byte at a time. */
    static const char one[] = ECHO "Content-Length: 3\r\n\r\nabc" ECHO
                                   "Connection: close\r\nContent-Length: 4\r\n\r\nwxyz";
    int fd = dial(f);
    for (size_t i = 0; i < sizeof one - 1; i++)
        put(fd, one + i, 1);
    text = get_all(fd);
    HAS(text, "\r\n\r\nabcHTTP/1.1 200");
    HAS(text, "\r\n\r\nwxyz");
    /* A body larger than any buffer. */
    static char large[100000 + 200];
    int n = snprintf(large, sizeof large,
                     ECHO "Connection: close\r\nContent-Length: 100000\r\n\r\n");
    memset(large + n, 'b', 100000);
    large[n + 100000] = '\0';
    text = ask(f, large);
    assert_int_equal(strlen(strstr(text, "\r\n\r\n") + 4), 100000);
}

static void expect_continue(void **state) {
    struct fixture *f = *state;
    char text[64] = "";
    open_listener(f, false);
    int fd = dial(f);
    static const char head[] = ECHO "Expect: 100-continue\r\nConnection: close\r\n"
                                    "Content-Length: 2\r\n\r\n";
    put(fd, head, sizeof head - 1);
    assert_int_equal(recv(fd, text, sizeof text - 1, 0), 25);
    assert_string_equal(text, "HTTP/1.1 100 Continue\r\n\r\n");
    put(fd, "hi", 2);
    HAS(get_all(fd), "\r\n\r\nhi");
}

static void keys(void **state) {
    struct fixture *f = *state;
    open_listener(f, true);
    const char *text = ask(f, ECHO "Connection: close\r\n\r\n");
    HAS(text, " 401 Unauthorized\r\n");
    HAS(text, "\r\nWWW-Authenticate: Bearer\r\n");
    HAS(ask(f, ECHO "Authorization: Bearer " KEY "x\r\nContent-Length: 1\r\n\r\nx"),
        " 401 ");
    HAS(ask(f, ECHO "Authorization: Bearer " KEY "\r\nConnection: close\r\n\r\n"),
        " 200 ");
    HAS(ask(f, ECHO "X-API-Key: " KEY "\r\nConnection: close\r\n\r\n"), " 200 ");
    HAS(ask(f, "GET /get HTTP/1.1\r\n" END), " 200 ");
}

static void slow_clients(void **state) {
    struct fixture *f = *state;
    open_listener(f, false);
    HAS(ask(f, "GET /get HTT"), " 408 ");
    HAS(ask(f, ECHO "Content-Length: 3\r\n\r\nab"), " 408 ");
    assert_string_equal(ask(f, ""), ""); /* idle: closed without a word */
}

static void too_many(void **state) {
    struct fixture *f = *state;
    int fds[LISTENER_CONNECTIONS];
    static const char hold[] = "GET /hold HTTP/1.1\r\n" END;
    open_listener(f, false);
    for (size_t i = 0; i < LISTENER_CONNECTIONS; i++) {
        fds[i] = dial(f);
        put(fds[i], hold, sizeof hold - 1);
    }
    wait_until_held(f, LISTENER_CONNECTIONS);
    const char *text = get_all(dial(f));
    HAS(text, " 503 Service Unavailable\r\n");
    HAS(text, "Retry-After: 1\r\n");
    HAS(text, "Content-Length: 68\r\n");
    assert_int_equal(strlen(strstr(text, "\r\n\r\n") + 4), 68);
    release(f);
    for (size_t i = 0; i < LISTENER_CONNECTIONS; i++)
        HAS(get_all(fds[i]), " 200 OK\r\n");
    HAS(ask(f, "GET /get HTTP/1.1\r\n" END), " 200 OK\r\n");
}

static void *close_listener(void *context) {
    listener_close(context);
    return NULL;
}

/* A connection that has had an answer, so that it is surely not just waiting for accept. */
static int dial_known(const struct fixture *f) {
    static const char get[] = "GET /get HTTP/1.1\r\nHost: a\r\n\r\n";
    char answer[512] = "";
    size_t n = 0;
    int fd = dial(f);
    put(fd, get, sizeof get - 1);
    while (!strstr(answer, "\"}")) {
        ssize_t more = recv(fd, answer + n, sizeof answer - 1 - n, 0);
        assert_true(more > 0);
        n += (size_t)more;
    }
    return fd;
}

static void stop(void **state) {
    struct fixture *f = *state;
    pthread_t closing;
    static const char hold[] = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n";
    open_listener(f, false);
    int held = dial(f), idle = dial_known(f), half = dial_known(f);
    put(half, "GET /h", 6);
    put(held, hold, sizeof hold - 1);
    wait_until_held(f, 1);
    struct listener *stopped = f->listener;
    f->listener = NULL; /* the thread's now, whatever fails here */
    pthread_create(&closing, NULL, close_listener, stopped);
    assert_string_equal(get_all(idle), "");
    char byte; /* an end, or a reset where bytes came too late to be read */
    while (recv(half, &byte, 1, 0) > 0)
        ;
    close(half);
    release(f); /* the answer still leaves */
    HAS(get_all(held), " 200 OK\r\n");
    pthread_join(closing, NULL);
}

static void refusals(void **state) {
    struct fixture *f = *state;
    struct error err = {0};
    struct listener *l = NULL;
    struct listener_options options = {.address = "0.0.0.0:0"};
    assert_int_equal(listener_open(&options, &l, &err), STATUS_INVALID);
    HAS(err.message, "API keys");
    assert_null(l);
    options.keys = "/nonexistent/keys";
    assert_int_equal(listener_open(&options, &l, &err), STATUS_NOT_FOUND);
    options.keys = f->keys;
    assert_int_equal(listener_open(&options, &l, &err), STATUS_OK);
    char taken[32];
    snprintf(taken, sizeof taken, "0.0.0.0:%d", listener_port(l));
    struct listener *other = NULL;
    options.address = taken;
    assert_int_equal(listener_open(&options, &other, &err), STATUS_IO);
    listener_close(l);
    options.address = "nowhere";
    assert_int_equal(listener_open(&options, &l, &err), STATUS_INVALID);
    listener_close(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_read),
        cmocka_unit_test(addresses_are_read),
        TEST(answers),
        TEST(bad_framing),
        TEST(keep_alive),
        TEST(expect_continue),
        TEST(keys),
        TEST(slow_clients),
        TEST(too_many),
        TEST(stop),
        TEST(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
