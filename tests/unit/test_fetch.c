/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fetch.c - the HTTP client against a server in a thread of this test, which answers
 * each connection from a script: whole answers, streams in pieces, resets, silence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/net/fetch.h"

#define SECOND CLOCK_NS_PER_SECOND

/* ---- the server ------------------------------------------------------------------- */

enum after { KEEP, CLOSE, RESET, HOLD, VANISH };

struct answer {
    const char *text; /* "" : none */
    size_t n_repeats; /* of the last line of text, for large ones; 0: none */
    enum after after;
};

struct server {
    int fd, port, connection;
    const struct answer *answers;
    size_t n_answers;
    pthread_t thread;
    char requests[8192]; /* all of them, one after the other */
    size_t n_requests_bytes;
    size_t n_connections;
    bool has_seen_end; /* the client closed in an orderly way */
};

static void send_all(int fd, const char *data, size_t n) {
    while (n) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        data += sent;
        n -= (size_t)sent;
    }
}

/* Reads one request with its body; false at the end of the connection. */
static bool take_request(struct server *s, int fd) {
    char *begin = s->requests + s->n_requests_bytes;
    size_t n = 0;
    for (;;) {
        size_t room = sizeof(s->requests) - 1 - s->n_requests_bytes - n;
        ssize_t got = recv(fd, begin + n, room, 0);
        if (got <= 0) {
            s->has_seen_end = got == 0;
            return false;
        }
        n += (size_t)got;
        begin[n] = 0;
        char *end = strstr(begin, "\r\n\r\n");
        char *length = strstr(begin, "Content-Length: ");
        size_t n_body = length ? strtoul(length + 16, NULL, 10) : 0;
        if (end && n >= (size_t)(end + 4 - begin) + n_body)
            break;
    }
    s->n_requests_bytes += n;
    return true;
}

static void *serve(void *context) {
    struct server *s = context;
    int fd = -1;
    for (size_t i = 0; i < s->n_answers; i++) {
        const struct answer *a = &s->answers[i];
        if (fd < 0) {
            fd = accept(s->fd, NULL, NULL);
            s->n_connections++;
        }
        if (!take_request(s, fd)) { /* the client came on another connection */
            close(fd);
            fd = -1;
            i--;
            continue;
        }
        send_all(fd, a->text, strlen(a->text));
        char line[1000];
        memset(line, 'x', sizeof line);
        for (size_t n = 0; n < a->n_repeats; n++)
            send_all(fd, line, sizeof line);
        if (a->after == KEEP)
            continue;
        if (a->after == HOLD) {
            char rest[256];
            ssize_t got;
            while ((got = recv(fd, rest, sizeof rest, 0)) > 0)
                ;
            s->has_seen_end = got == 0;
        }
        if (a->after == VANISH) { /* nobody listens any more */
            close(s->fd);
            s->fd = -1;
        }
        if (a->after == RESET || a->after == VANISH) {
            struct linger hard = {.l_onoff = 1, .l_linger = 0};
            /* What was sent before has arrived: loopback. */
            usleep(20000);
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        }
        close(fd);
        fd = -1;
    }
    if (fd >= 0) {
        char rest[256];
        ssize_t got;
        while ((got = recv(fd, rest, sizeof rest, 0)) > 0)
            ;
        s->has_seen_end = got == 0;
        close(fd);
    }
    return NULL;
}

static void start(struct server *s, const struct answer *answers, size_t n) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n_at = sizeof at;
    memset(s, 0, sizeof *s);
    s->answers = answers;
    s->n_answers = n;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(s->fd, 8), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&at, &n_at), 0);
    s->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s) {
    pthread_join(s->thread, NULL);
    if (s->fd >= 0)
        close(s->fd);
}

/* ---- the client ------------------------------------------------------------------- */

static struct fetch *client(int wake_fd) {
    struct fetch_options options = {.plain_loopback_only = true, .wake_fd = wake_fd};
    struct fetch *f;
    assert_int_equal(fetch_open(&options, &f, NULL), STATUS_OK);
    return f;
}

static struct fetch_request get(const struct server *s, char url[64]) {
    (void)snprintf(url, 64, "http://127.0.0.1:%d/a/b?c=d", s->port);
    return (struct fetch_request){
        .method = "GET", .url = url, .timeout_ns = 5 * SECOND};
}

#define N(array) (sizeof(array) / sizeof(*(array)))

static void an_answer_comes_with_its_headers(void **state) {
    (void)state;
    static const struct answer script[] = {
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
         "content-type:  application/json; charset=utf-8 \r\n\r\nhello",
         0, KEEP},
        {"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nX-Rate-Limit-Reset: 1700000000\r\n"
         "Content-Length: 2\r\n\r\nno",
         0, KEEP},
        {"HTTP/1.1 503 X\r\nRetry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
         "Content-Length: 0\r\n\r\n",
         0, KEEP},
        {"HTTP/1.1 204 None\r\nRetry-After: soon\r\n\r\n", 0, KEEP},
        {"HTTP/1.1 302 Away\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: "
         "0\r\n\r\n",
         0, KEEP},
    };
    struct server s;
    struct fetch_answer a;
    char url[64];
    start(&s, script, N(script));
    struct fetch *f = client(-1);
    struct fetch_request r = get(&s, url);
    r.bearer = "TOKEN";
    r.accept = "text/event-stream";
    r.traceparent = "00-1-2-01";
    assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.failure, FETCH_ANSWERED);
    assert_int_equal(a.code, 200);
    assert_int_equal(a.retry_after_ns, -1);
    assert_int_equal(a.rate_reset_s, 0);
    assert_string_equal(a.body.data, "hello");
    assert_string_equal(a.content_type, "application/json; charset=utf-8");
    buffer_free(&a.body);

    r.method = "POST";
    r.bearer = NULL;
    r.basic = "key:se:cret";
    r.content_type = "application/json";
    r.body = VIEW("{\"a\":1}");
    assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 429);
    assert_int_equal(a.retry_after_ns, 7 * SECOND);
    assert_int_equal(a.rate_reset_s, 1700000000);
    buffer_free(&a.body);

    r.method = "DELETE";
    r.body = view_of(NULL, 0);
    assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 503);
    assert_int_equal(a.retry_after_ns, 0);
    buffer_free(&a.body);

    r.method = "POST"; /* without a body */
    assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 204);
    assert_int_equal(a.retry_after_ns, -1);
    buffer_free(&a.body);

    assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 302); /* not followed */
    buffer_free(&a.body);
    fetch_close(f);
    stop(&s);
    assert_int_equal(s.n_connections, 1);
    assert_true(s.has_seen_end);
    assert_non_null(strstr(s.requests, "GET /a/b?c=d HTTP/1.1\r\n"));
    assert_non_null(strstr(s.requests, "Authorization: Bearer TOKEN\r\n"));
    assert_non_null(strstr(s.requests, "Accept: text/event-stream\r\n"));
    assert_non_null(strstr(s.requests, "traceparent: 00-1-2-01\r\n"));
    assert_non_null(strstr(s.requests, "User-Agent: vigil/"));
    assert_non_null(strstr(s.requests, "POST /a/b?c=d HTTP/1.1\r\n"));
    assert_non_null(strstr(s.requests, "Authorization: Basic a2V5OnNlOmNyZXQ=\r\n"));
    assert_non_null(strstr(s.requests, "Content-Type: application/json\r\n"));
    assert_non_null(strstr(s.requests, "\r\n\r\n{\"a\":1}"));
    assert_non_null(strstr(s.requests, "DELETE /a/b?c=d HTTP/1.1\r\n"));
    assert_null(strstr(s.requests, "Expect:"));
}

/* On a connection that was used before: curl would send it again by itself. */
static void a_body_is_sent_once(void **state) {
    (void)state;
    static const struct answer script[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, KEEP}, {"", 0, RESET},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, KEEP}, {"", 0, CLOSE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, KEEP}, {"", 0, VANISH},
    };
    static const enum fetch_failure expected[] = {FETCH_ANSWERED, FETCH_BROKEN,
                                                  FETCH_ANSWERED, FETCH_BROKEN,
                                                  FETCH_ANSWERED, FETCH_BROKEN};
    struct server s;
    struct fetch_answer a;
    char url[64];
    start(&s, script, N(script));
    struct fetch *f = client(-1);
    struct fetch_request r = get(&s, url);
    r.method = "POST";
    r.body = VIEW("{\"a\":1}");
    for (size_t i = 0; i < N(script); i++) {
        assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_OK);
        assert_int_equal(a.failure, expected[i]);
        buffer_free(&a.body);
    }
    fetch_close(f);
    stop(&s);
    size_t n = 0;
    for (const char *at = s.requests; (at = strstr(at, "POST ")); at++)
        n++;
    assert_int_equal(n, N(script));
}

static void failures_say_how_far_it_went(void **state) {
    (void)state;
    static const struct answer script[] = {
        {"", 0, RESET},
        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", 0, CLOSE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n", 20, CLOSE},
        {"", 0, HOLD},
    };
    static const enum fetch_failure expected[] = {FETCH_BROKEN, FETCH_BROKEN,
                                                  FETCH_TOO_LARGE, FETCH_TIMED_OUT};
    struct server s;
    struct fetch_answer a;
    struct error err;
    char url[64];
    start(&s, script, N(script));
    struct fetch *f = client(-1);
    struct fetch_request r = get(&s, url);
    r.max_answer_bytes = 10000;
    r.bearer = "TOKEN";
    for (size_t i = 0; i < N(expected); i++) {
        if (i == 3)
            r.timeout_ns = SECOND / 10;
        err.message[0] = 0;
        assert_int_equal(fetch_run(f, &r, &a, &err), STATUS_OK);
        assert_int_equal(a.failure, expected[i]);
        assert_int_equal(a.code, 0);
        assert_false(a.is_certificate_bad);
        assert_non_null(strstr(err.message, "GET http://127.0.0.1"));
        assert_null(strstr(err.message, "TOKEN"));
        buffer_free(&a.body);
    }
    stop(&s);
    r.timeout_ns = SECOND;
    assert_int_equal(fetch_run(f, &r, &a, &err), STATUS_OK);
    assert_int_equal(a.failure, FETCH_NOT_CONNECTED);
    buffer_free(&a.body);
    fetch_close(f);
}

static void addresses_that_are_not_allowed(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "127.0.0.1",
                                      "ftp://h/",
                                      "file:///etc/passwd",
                                      "http://h/",
                                      "https://u:p@h/",
                                      "http://[fe80::1]/",
                                      "http://127.0.0.1.evil/",
                                      "http://h b/",
                                      "https://u@h/"};
    struct fetch *f = client(-1);
    struct fetch_answer a;
    struct error err;
    for (size_t i = 0; i < N(bad); i++) {
        struct fetch_request r = {.method = "GET", .url = bad[i], .timeout_ns = SECOND};
        assert_int_equal(fetch_run(f, &r, &a, &err), STATUS_INVALID);
        assert_null(strstr(err.message, "u:p"));
    }
    struct fetch_request r = {.method = "GET",
                              .url = "http://127.0.0.1:1/",
                              .accept = "a\r\nX: y",
                              .timeout_ns = SECOND};
    assert_int_equal(fetch_run(f, &r, &a, &err), STATUS_INVALID);
    fetch_close(f);
}

static void a_stream_comes_in_pieces(void **state) {
    (void)state;
    static const struct answer script[] = {
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
         "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
         0, CLOSE},
        {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhello", 0, RESET},
        {"HTTP/1.1 200 OK\r\n\r\n", 6000, CLOSE},
        {"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nwhy", 0, KEEP},
        {"HTTP/1.1 200 OK\r\n\r\n:", 0, HOLD},
    };
    struct server s;
    struct fetch_answer a;
    struct view v;
    char url[64], all[64];
    size_t n;
    enum status status;
    start(&s, script, N(script));
    struct fetch *f = client(-1);
    struct fetch_request r = get(&s, url);

    assert_int_equal(fetch_read(f, 0, &v, NULL), STATUS_IO); /* none is open */
    assert_int_equal(fetch_start(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 200);
    for (n = 0; (status = fetch_read(f, clock_now_ns() + 5 * SECOND, &v, NULL)) == 0;
         n += v.n_bytes)
        memcpy(all + n, v.data, v.n_bytes);
    assert_int_equal(status, STATUS_NOT_FOUND);
    assert_int_equal(n, 6);
    assert_memory_equal(all, "onetwo", 6);
    fetch_stop(f);

    /* What came before it broke is handed out. */
    assert_int_equal(fetch_start(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 200);
    assert_string_equal(a.content_type, "text/event-stream");
    for (n = 0; (status = fetch_read(f, clock_now_ns() + 5 * SECOND, &v, NULL)) == 0;
         n += v.n_bytes)
        memcpy(all + n, v.data, v.n_bytes);
    assert_int_equal(status, STATUS_IO);
    assert_int_equal(n, 5);

    /* More than is held at once. */
    assert_int_equal(fetch_start(f, &r, &a, NULL), STATUS_OK);
    usleep(100000);
    for (n = 0; (status = fetch_read(f, clock_now_ns() + 5 * SECOND, &v, NULL)) == 0;
         n += v.n_bytes)
        for (size_t i = 0; i < v.n_bytes; i++)
            assert_int_equal(v.data[i], 'x');
    assert_int_equal(status, STATUS_NOT_FOUND);
    assert_int_equal(n, 6000 * 1000);

    assert_int_equal(fetch_start(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 403);
    assert_string_equal(a.body.data, "why");
    buffer_free(&a.body);
    assert_int_equal(fetch_read(f, 0, &v, NULL), STATUS_IO);

    assert_int_equal(fetch_start(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(fetch_read(f, clock_now_ns() + SECOND, &v, NULL), STATUS_OK);
    assert_int_equal(fetch_read(f, clock_now_ns() + SECOND / 20, &v, NULL),
                     STATUS_TIMEOUT);
    assert_int_equal(fetch_read(f, clock_now_ns() - 1, &v, NULL), STATUS_TIMEOUT);
    fetch_stop(f);
    stop(&s);
    assert_true(s.has_seen_end);
    fetch_close(f);
}

static void a_wait_ends_when_woken(void **state) {
    (void)state;
    static const struct answer script[] = {
        {"", 0, HOLD},
        {"HTTP/1.1 200 OK\r\n\r\ndata", 0, HOLD},
    };
    struct server s;
    struct fetch_answer a;
    struct view v;
    char url[64];
    uint64_t one = 1;
    int wake_fd = eventfd(0, 0);
    start(&s, script, N(script));
    struct fetch *f = client(wake_fd);
    struct fetch_request r = get(&s, url);
    r.timeout_ns = 600 * SECOND;
    assert_int_equal(write(wake_fd, &one, 8), 8);
    assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_CANCELLED);
    assert_int_equal(read(wake_fd, &one, 8), 8);
    /* Now from another thread, by way of the server: it has the request, we wait. */
    r.timeout_ns = SECOND / 20;
    assert_int_equal(fetch_run(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.failure, FETCH_TIMED_OUT);
    buffer_free(&a.body);
    assert_int_equal(fetch_start(f, &r, &a, NULL), STATUS_OK);
    assert_int_equal(a.code, 200);
    one = 1;
    assert_int_equal(write(wake_fd, &one, 8), 8);
    assert_int_equal(fetch_read(f, clock_now_ns() + 600 * SECOND, &v, NULL),
                     STATUS_CANCELLED);
    assert_int_equal(read(wake_fd, &one, 8), 8);
    /* What came with the head was not lost. */
    assert_int_equal(fetch_read(f, clock_now_ns() + SECOND, &v, NULL), STATUS_OK);
    assert_int_equal(v.n_bytes, 4);
    fetch_close(f);
    stop(&s);
    close(wake_fd);
}

static void secrets_are_read_from_files_of_ours(void **state) {
    (void)state;
    char path[] = "/tmp/vigil-secret-XXXXXX", *secret = NULL;
    static const struct {
        const char *text, *expected;
    } cases[] = {{"s3cr3t\n", "s3cr3t"},
                 {"  a:b \r\n", "a:b"},
                 {"x", "x"},
                 {"", NULL},
                 {" \n", NULL},
                 {"two\nlines\n", NULL},
                 {"sp ace", NULL},
                 {"b\x01", NULL},
                 {"\xc3\xa4", NULL}};
    struct error err;
    int fd = mkstemp(path);
    for (size_t i = 0; i < N(cases); i++) {
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, cases[i].text, strlen(cases[i].text), 0),
                         (ssize_t)strlen(cases[i].text));
        enum status status = fetch_secret(path, &secret, &err);
        assert_int_equal(status, cases[i].expected ? STATUS_OK : STATUS_INVALID);
        if (cases[i].expected)
            assert_string_equal(secret, cases[i].expected);
        else
            assert_null(secret);
        fetch_secret_free(secret);
    }
    assert_int_equal(ftruncate(fd, 5000), 0);
    assert_int_equal(fetch_secret(path, &secret, &err), STATUS_LIMIT);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(fetch_secret(path, &secret, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "chmod 600"));
    close(fd);
    unlink(path);
    assert_int_equal(fetch_secret(path, &secret, &err), STATUS_NOT_FOUND);
    assert_int_equal(fetch_secret("/tmp", &secret, &err), STATUS_INVALID);
    fetch_secret_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_comes_with_its_headers),
        cmocka_unit_test(a_body_is_sent_once),
        cmocka_unit_test(failures_say_how_far_it_went),
        cmocka_unit_test(addresses_that_are_not_allowed),
        cmocka_unit_test(a_stream_comes_in_pieces),
        cmocka_unit_test(a_wait_ends_when_woken),
        cmocka_unit_test(secrets_are_read_from_files_of_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
