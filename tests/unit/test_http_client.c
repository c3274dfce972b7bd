/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http_client.c - URLs, the parser of answers on every split, and the client against a
 * server in a thread of this test that answers from a script.
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
#include <unistd.h>

#include "base/clock.h"
#include "bench/http_client.h"

/* ---- URLs ------------------------------------------------------------------------- */

static void urls_come_apart(void **state) {
    (void)state;
    static const struct {
        const char *url, *host, *port, *path, *authority;
    } good[] = {
        {"http://localhost", "localhost", "80", "/", "localhost"},
        {"http://127.0.0.1:8080/", "127.0.0.1", "8080", "/", "127.0.0.1:8080"},
        {"HTTP://h:1/a/b?c=d", "h", "1", "/a/b?c=d", "h:1"},
        {"http://[::1]:65535", "::1", "65535", "/", "[::1]:65535"},
        {"http://[fe80::1]/x", "fe80::1", "80", "/x", "[fe80::1]"},
        {"http://h?q", "h", "80", "/?q", "h"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct http_url u;
        assert_int_equal(http_url_parse(good[i].url, &u, NULL), STATUS_OK);
        assert_string_equal(u.host, good[i].host);
        assert_string_equal(u.port, good[i].port);
        assert_string_equal(u.path, good[i].path);
        assert_string_equal(u.authority, good[i].authority);
    }
}

static void bad_urls_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "localhost:8080",
                                      "ftp://h",
                                      "http://",
                                      "http://:80",
                                      "http://h:",
                                      "http://h:0",
                                      "http://h:65536",
                                      "http://h:8x",
                                      "http://h:000080",
                                      "http://[::1",
                                      "http://[::1]x",
                                      "http://h/a b",
                                      "http://h/\r\nX: y",
                                      "http://h/#f",
                                      "http://user:pass@h/"};
    char longest[HTTP_PATH_BYTES + 32] = "http://h/";
    struct http_url u;
    struct error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(http_url_parse(bad[i], &u, &err), STATUS_INVALID);
    memset(longest + 9, 'a', sizeof longest - 10);
    assert_int_equal(http_url_parse(longest, &u, &err), STATUS_INVALID);
    assert_int_equal(http_url_parse("https://h", &u, &err), STATUS_UNSUPPORTED);
}

/* ---- the parser ------------------------------------------------------------------- */

#define OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#define CHUNKED                                                                        \
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"                            \
    "3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n"

/* Every prefix is incomplete, the whole is complete; nothing is read behind the end. */
static void check_splits(const char *answer, int code, const char *body,
                         bool is_closing) {
    size_t n_bytes = strlen(answer), n_used;
    struct http_answer a;
    for (size_t n = 0; n <= n_bytes; n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, answer, n);
        enum http_parse parse = http_answer_parse(copy, n, false, &a, &n_used);
        if (n < n_bytes) {
            assert_int_equal(parse, HTTP_INCOMPLETE);
        } else {
            assert_int_equal(parse, HTTP_COMPLETE);
            assert_int_equal(a.code, code);
            assert_int_equal(a.n_body, strlen(body));
            assert_memory_equal(a.body, body, a.n_body);
            assert_int_equal(n_used, n_bytes);
            assert_int_equal(a.is_closing, is_closing);
        }
        free(copy);
    }
}

static void answers_are_read_however_they_are_split(void **state) {
    (void)state;
    check_splits(OK_HELLO, 200, "hello", false);
    check_splits(CHUNKED, 200, "hello", false);
    check_splits("HTTP/1.1 429 Too Many Requests\r\ncontent-length:0\r\nRetry-After: "
                 "1\r\n\r\n",
                 429, "", false);
    check_splits("HTTP/1.1 100 Continue\r\n\r\n" OK_HELLO, 200, "hello", false);
    check_splits("HTTP/1.1 503 X\r\nConnection: Close\r\nContent-Length: 1\r\n\r\nx",
                 503, "x", true);
    check_splits("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", true);
    check_splits(
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", 200,
        "x", false);
    check_splits("HTTP/1.1 204 No Content\n\n", 204, "", false);
}

static void a_body_may_end_with_the_connection(void **state) {
    (void)state;
    char data[] = "HTTP/1.1 200 OK\r\n\r\nhello";
    struct http_answer a;
    size_t n_used;
    assert_int_equal(http_answer_parse(data, sizeof data - 1, false, &a, &n_used),
                     HTTP_INCOMPLETE);
    assert_int_equal(http_answer_parse(data, sizeof data - 1, true, &a, &n_used),
                     HTTP_COMPLETE);
    assert_int_equal(a.n_body, 5);
    assert_true(a.is_closing);
}

static void garbage_is_malformed(void **state) {
    (void)state;
    static const char *const bad[] = {
        "SSH-2.0-OpenSSH\r\n",
        "X",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 999 OK\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct http_answer a;
        size_t n_used;
        char *copy = strdup(bad[i]);
        assert_int_equal(http_answer_parse(copy, strlen(copy), false, &a, &n_used),
                         HTTP_MALFORMED);
        free(copy);
    }
    /* A head without end */
    size_t n_bytes = HTTP_MAX_HEAD_BYTES + 100, n_used;
    struct http_answer a;
    char *endless = malloc(n_bytes);
    memset(endless, 'a', n_bytes);
    memcpy(endless, "HTTP/1.1 200 ", 13);
    assert_int_equal(http_answer_parse(endless, n_bytes, false, &a, &n_used),
                     HTTP_MALFORMED);
    free(endless);
}

static void timings_are_found(void **state) {
    (void)state;
    char data[] =
        "HTTP/1.1 200 OK\r\nserver-timing:  parse;dur=0.1, compute;dur=2.5 \r\n"
        "Content-Length: 0\r\n\r\n";
    struct http_answer a;
    size_t n_used;
    assert_int_equal(http_answer_parse(data, sizeof data - 1, false, &a, &n_used),
                     HTTP_COMPLETE);
    assert_int_equal(a.n_timing, strlen("parse;dur=0.1, compute;dur=2.5"));
    assert_memory_equal(a.timing, "parse;dur=0.1, compute;dur=2.5", a.n_timing);
    char none[] = OK_HELLO;
    assert_int_equal(http_answer_parse(none, sizeof none - 1, false, &a, &n_used),
                     HTTP_COMPLETE);
    assert_null(a.timing);
}

/* ---- a server in a thread --------------------------------------------------------- */

#define REQUEST "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"

/* What it does with its n-th request: '|' between writes is a pause, "!" at the end closes
 * the connection. NULL answers nothing. */
struct server {
    const char *const *script;
    size_t n_script;
    int fd;
    char port[8];
    pthread_t thread;
    _Atomic size_t n_requests, n_connections;
    _Atomic bool is_over;
};

static bool read_request(int fd) {
    char data[sizeof REQUEST - 1];
    size_t n = 0;
    while (n < sizeof data) {
        ssize_t got = recv(fd, data + n, sizeof data - n, 0);
        if (got <= 0)
            return false;
        n += (size_t)got;
    }
    return memcmp(data, REQUEST, sizeof data) == 0;
}

/* True when the connection stays open. */
static bool write_answer(int fd, const char *script) {
    for (; script && *script; script++) {
        if (*script == '!')
            return false;
        if (*script == '|') {
            usleep(2000);
            continue;
        }
        size_t n = strcspn(script, "|!");
        if (send(fd, script, n, MSG_NOSIGNAL) != (ssize_t)n)
            return false;
        script += n - 1;
    }
    return true;
}

/* One connection at a time: the tests that need more have short ones. */
static void *server_main(void *argument) {
    struct server *s = argument;
    for (;;) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0 || atomic_load(&s->is_over)) {
            if (fd >= 0)
                close(fd);
            return NULL;
        }
        atomic_fetch_add(&s->n_connections, 1);
        while (read_request(fd)) {
            size_t i = atomic_fetch_add(&s->n_requests, 1);
            if (!write_answer(fd, s->script[i % s->n_script]))
                break;
        }
        close(fd);
    }
}

static void server_start(struct server *s, const char *const *script, size_t n_script) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    memset(s, 0, sizeof *s);
    s->script = script;
    s->n_script = n_script;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&address, n), 0);
    assert_int_equal(listen(s->fd, 16), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&address, &n), 0);
    snprintf(s->port, sizeof s->port, "%u", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void server_stop(struct server *s) {
    atomic_store(&s->is_over, true);
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
}

/* ---- the client ------------------------------------------------------------------- */

#define MAX_DONE 64

struct done {
    struct http_client *client;
    size_t n;
    enum http_outcome outcomes[MAX_DONE];
    int codes[MAX_DONE];
    char bodies[MAX_DONE][64];
    size_t n_again; /* requests to send from on_done */
};

static void on_done(void *user, size_t connection, enum http_outcome outcome,
                    const struct http_answer *answer) {
    struct done *d = user;
    assert_true(d->n < MAX_DONE);
    assert_int_equal(answer != NULL, outcome == HTTP_ANSWERED);
    d->outcomes[d->n] = outcome;
    if (answer) {
        d->codes[d->n] = answer->code;
        snprintf(d->bodies[d->n], sizeof d->bodies[0], "%.*s", (int)answer->n_body,
                 answer->body);
    }
    d->n++;
    if (d->n_again) {
        d->n_again--;
        http_client_send(d->client, connection, REQUEST, sizeof REQUEST - 1);
    }
}

static void client_open(struct done *d, const char *port, int64_t timeout_ns,
                        size_t max_answer_bytes) {
    memset(d, 0, sizeof *d);
    const struct http_client_options options = {.host = "127.0.0.1",
                                                .port = port,
                                                .n_connections = 3,
                                                .timeout_ns = timeout_ns,
                                                .max_answer_bytes = max_answer_bytes,
                                                .on_done = on_done,
                                                .user = d};
    assert_int_equal(http_client_open(&options, &d->client, NULL), STATUS_OK);
}

static void wait_all(struct done *d) {
    while (http_client_n_busy(d->client))
        assert_int_equal(http_client_wait(d->client, INT64_MAX, NULL), STATUS_OK);
}

/* Sends n requests on one connection, one after the other, against a script. */
static void play(struct server *s, struct done *d, const char *const *script,
                 size_t n_script, size_t n) {
    server_start(s, script, n_script);
    client_open(d, s->port, CLOCK_NS_PER_SECOND * 20, 20000);
    d->n_again = n - 1;
    http_client_send(d->client, 0, REQUEST, sizeof REQUEST - 1);
    wait_all(d);
    assert_int_equal(d->n, n);
    http_client_close(d->client);
    server_stop(s);
}

static void a_connection_is_kept(void **state) {
    (void)state;
    static const char *const script[] = {
        OK_HELLO, "HTTP/1.1 4|29 X\r\nContent-Le|ngth: 4\r\n\r|\nwai|t",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3|\r\nhel\r\n|2\r\nlo\r\n"
        "0|\r\n\r\n"};
    struct server s;
    struct done d;
    play(&s, &d, script, 3, 9);
    for (size_t i = 0; i < 9; i++) {
        assert_int_equal(d.outcomes[i], HTTP_ANSWERED);
        assert_int_equal(d.codes[i], i % 3 == 1 ? 429 : 200);
        assert_string_equal(d.bodies[i], i % 3 == 1 ? "wait" : "hello");
    }
    /* The first one only tried the address. */
    assert_int_equal(atomic_load(&s.n_connections), 2);
}

static void a_closed_connection_is_opened_again(void **state) {
    (void)state;
    static const char *const script[] = {
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\n\r\nuntil the end!"};
    struct server s;
    struct done d;
    play(&s, &d, script, 2, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(d.outcomes[i], HTTP_ANSWERED);
        assert_string_equal(d.bodies[i], i % 2 ? "until the end" : "ok");
    }
    assert_int_equal(atomic_load(&s.n_connections), 7);
}

static void failures_are_told_apart(void **state) {
    (void)state;
    static const char *const script[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort!", /* closed early */
        "!",                                                   /* without a byte */
        "220 mail.example ESMTP\r\n",                          /* not HTTP */
        OK_HELLO OK_HELLO /* two answers to one request */};
    static const enum http_outcome expected[] = {HTTP_CLOSED, HTTP_CLOSED, HTTP_GARBAGE,
                                                 HTTP_GARBAGE};
    struct server s;
    struct done d;
    play(&s, &d, script, 4, 8);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(d.outcomes[i], expected[i % 4]);
}

static void an_answer_that_is_too_large_is_dropped(void **state) {
    (void)state;
    char *large = malloc(60000);
    const char *script[] = {large};
    struct server s;
    struct done d;
    int n = snprintf(large, 60000, "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n");
    memset(large + n, 'a', 50000);
    large[n + 50000] = '\0';
    play(&s, &d, script, 1, 2);
    assert_int_equal(d.outcomes[0], HTTP_GARBAGE);
    assert_int_equal(d.outcomes[1], HTTP_GARBAGE);
    free(large);
}

static void silence_times_out(void **state) {
    (void)state;
    static const char *const script[] = {"HTTP/1.1 200", OK_HELLO};
    struct server s;
    struct done d;
    server_start(&s, script, 2);
    client_open(&d, s.port, CLOCK_NS_PER_SECOND / 10, 0);
    http_client_send(d.client, 1, REQUEST, sizeof REQUEST - 1);
    wait_all(&d);
    assert_int_equal(d.n, 1);
    assert_int_equal(d.outcomes[0], HTTP_TIMED_OUT);
    /* The connection is as good as new. */
    http_client_send(d.client, 1, REQUEST, sizeof REQUEST - 1);
    wait_all(&d);
    assert_int_equal(d.outcomes[1], HTTP_ANSWERED);
    http_client_close(d.client);
    server_stop(&s);
}

static void a_server_that_goes_is_told(void **state) {
    (void)state;
    static const char *const script[] = {
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok!"};
    struct server s;
    struct done d;
    server_start(&s, script, 1);
    client_open(&d, s.port, CLOCK_NS_PER_SECOND * 20, 0);
    http_client_send(d.client, 0, REQUEST, sizeof REQUEST - 1);
    wait_all(&d);
    server_stop(&s);
    d.n_again = 2; /* each fails from the on_done of the one before */
    for (size_t i = 0; i < 3; i++)
        http_client_send(d.client, i, REQUEST, sizeof REQUEST - 1);
    wait_all(&d);
    assert_int_equal(d.n, 6);
    for (size_t i = 1; i < 6; i++)
        assert_int_equal(d.outcomes[i], HTTP_NOT_CONNECTED);
    struct http_client *none;
    struct error err;
    const struct http_client_options options = {
        .host = "127.0.0.1", .port = s.port, .n_connections = 1, .on_done = on_done};
    assert_int_equal(http_client_open(&options, &none, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "cannot connect to 127.0.0.1 port "));
    http_client_close(d.client);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_come_apart),
        cmocka_unit_test(bad_urls_are_refused),
        cmocka_unit_test(answers_are_read_however_they_are_split),
        cmocka_unit_test(a_body_may_end_with_the_connection),
        cmocka_unit_test(garbage_is_malformed),
        cmocka_unit_test(timings_are_found),
        cmocka_unit_test(a_connection_is_kept),
        cmocka_unit_test(a_closed_connection_is_opened_again),
        cmocka_unit_test(failures_are_told_apart),
        cmocka_unit_test(an_answer_that_is_too_large_is_dropped),
        cmocka_unit_test(silence_times_out),
        cmocka_unit_test(a_server_that_goes_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
