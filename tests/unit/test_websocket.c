/* SPDX-License-Identifier: Apache-2.0
 *
 * test_websocket.c - the handshake's answer, good and bad; frames as a server may send and may
 * not, whole and byte by byte, over a socket pair; and the way through curl to a listening
 * socket.
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
#include "client/net/websocket.h"
#include "client/net/websocket_handshake.h"

/* The example of RFC 6455, 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define SWITCH                                                                         \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "           \
    "Upgrade\r\n"
#define GOOD SWITCH "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n"
#define LATER (clock_now_ns() + 10 * CLOCK_NS_PER_SECOND)

/* ---- The handshake -------------------------------------------------------------------- */

static void accept_keys(void **state) {
    (void)state;
    char accept[WEBSOCKET_ACCEPT_BYTES], a[WEBSOCKET_KEY_BYTES], b[WEBSOCKET_KEY_BYTES];
    websocket_handshake_accept(KEY, accept);
    assert_string_equal(accept, ACCEPT);
    assert_int_equal(websocket_handshake_key(a, NULL), STATUS_OK);
    assert_int_equal(websocket_handshake_key(b, NULL), STATUS_OK);
    assert_int_equal(strlen(a), 24);
    assert_string_equal(a + 22, "==");
    assert_string_not_equal(a, b);
}

static enum status check(const char *head, struct websocket_answer *answer) {
    struct error err;
    return websocket_handshake_check(view_of_string(head), KEY, answer, &err);
}

static void answers(void **state) {
    (void)state;
    static const char *const good[] = {
        GOOD,
        "HTTP/1.1 101\r\nupgrade: WebSocket\r\nCONNECTION: keep-alive , upgrade\r\n"
        "sec-websocket-accept:\t" ACCEPT " \r\nServer: x\r\n\r\n",
    };
    static const char *const bad[] = {
        "",
        "nonsense",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 xyz abc\r\n\r\n",
        "HTTP/1.1 1011 abc\r\n\r\n",
        "HTTP/2 101 a\r\n\r\n",
        SWITCH "\r\n",
        SWITCH "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        SWITCH "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        SWITCH "Sec-WebSocket-Accept: " ACCEPT
               "\r\nSec-WebSocket-Extensions: x\r\n\r\n",
        SWITCH "Sec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: x\r\n\r\n",
        "HTTP/1.0 101 a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
        "HTTP/1.1 101 a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
        "HTTP/1.1 101 a\r\nUpgrade: websocket\r\nConnection: upgraded\r\n"
        "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
    };
    struct websocket_answer answer;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(check(good[i], &answer), STATUS_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(check(bad[i], &answer), STATUS_INVALID);
    assert_int_equal(check("HTTP/1.1 429 a\r\nRetry-After: 17\r\n\r\n", &answer),
                     STATUS_UNSUPPORTED);
    assert_int_equal(answer.code, 429);
    assert_int_equal(answer.retry_after_s, 17);
    assert_int_equal(check("HTTP/1.1 200 OK\r\n\r\n", &answer), STATUS_UNSUPPORTED);
    assert_int_equal(answer.retry_after_s, -1);
    assert_int_equal(websocket_handshake_end(VIEW("a\r\n\r\nb")), 5);
    assert_int_equal(websocket_handshake_end(VIEW("a\r\n\r")), 0);
}

static void urls(void **state) {
    (void)state;
    static const struct {
        const char *url;
        bool allows_plain, is_good;
    } cases[] = {
        {"wss://a.example/subscribe?x=y", false, true},
        {"WSS://a.example:8443", false, true},
        {"ws://127.0.0.1:80/", true, true},
        {"ws://[::1]:80/", true, true},
        {"ws://localhost/", true, true},
        {"ws://127.0.0.1:80/", false, false},
        {"ws://a.example/", true, false},
        {"ws://127.0.0.1.example/", true, false},
        {"https://a.example/", true, false},
        {"wss://user:pw@a.example/", true, false},
        {"wss://", true, false},
        {"", true, false},
        {"wss://a b/", true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct websocket *w;
        struct error err;
        struct websocket_options options = {
            .url = cases[i].url, .allows_plain = cases[i].allows_plain, .wake_fd = -1};
        assert_int_equal(websocket_open(&options, &w, &err),
                         cases[i].is_good ? STATUS_OK : STATUS_INVALID);
        websocket_close(w);
    }
}

/* ---- Over a socket pair ----------------------------------------------------------------- */

struct pair {
    struct websocket *w;
    int peer, wake;
};

static void open_pair(struct pair *p, size_t max_message_bytes) {
    int fds[2];
    struct error err;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    int size = 4 << 20;
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    p->peer = fds[1];
    p->wake = eventfd(0, 0);
    struct websocket_options options = {.url = "wss://a.example/subscribe?cursor=5",
                                        .wake_fd = p->wake,
                                        .max_message_bytes = max_message_bytes,
                                        .has_fd = true,
                                        .fd = fds[0],
                                        .key = KEY};
    assert_int_equal(websocket_open(&options, &p->w, &err), STATUS_OK);
}

static void close_pair(struct pair *p) {
    if (p->peer >= 0)
        close(p->peer);
    websocket_close(p->w);
    close(p->wake);
}

static void put(struct pair *p, const void *bytes, size_t n) {
    assert_int_equal(send(p->peer, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}
#define PUT(p, literal) put(p, literal, sizeof literal - 1)

static void open_connected(struct pair *p, size_t max_message_bytes) {
    char request[1024] = "";
    struct error err = {0};
    open_pair(p, max_message_bytes);
    PUT(p, GOOD);
    if (websocket_connect(p->w, LATER, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_true(recv(p->peer, request, sizeof request - 1, 0) > 0);
    static const char expected[] =
        "GET /subscribe?cursor=5 HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\n"
        "Sec-WebSocket-Version: 13\r\nUser-Agent: vigil/" VIGIL_VERSION "\r\n\r\n";
    assert_string_equal(request, expected);
}

static void expect_message(struct pair *p, const char *text) {
    struct websocket_message m;
    struct error err = {0};
    enum status status = websocket_read(p->w, LATER, &m, &err);
    if (status != STATUS_OK)
        fail_msg("no \"%s\" but %s: %s", text, status_name(status), err.message);
    if (!view_equal(m.bytes, view_of_string(text)))
        fail_msg("\"%.*s\" instead of \"%s\"", (int)m.bytes.n_bytes, m.bytes.data,
                 text);
    assert_false(m.is_cut);
}

static void expect_end(struct pair *p, enum status expected, const char *message) {
    struct websocket_message m;
    for (int i = 0; i < 2; i++) { /* it stays so */
        struct error err = {0};
        assert_int_equal(websocket_read(p->w, LATER, &m, &err), expected);
        if (!strstr(err.message, message))
            fail_msg("\"%s\" instead of \"%s\"", err.message, message);
    }
}

/* The frame that our side sent: opcode, and its payload unmasked. */
static uint8_t sent_frame(struct pair *p, char *payload, size_t *n) {
    uint8_t head[6];
    assert_int_equal(recv(p->peer, head, 6, MSG_WAITALL), 6);
    assert_true(head[1] & 0x80); /* a client masks */
    *n = head[1] & 0x7F;
    assert_true(*n <= 125);
    if (*n)
        assert_int_equal(recv(p->peer, payload, *n, MSG_WAITALL), (ssize_t)*n);
    for (size_t i = 0; i < *n; i++)
        payload[i] = (char)(payload[i] ^ (char)head[2 + i % 4]);
    payload[*n] = '\0';
    return head[0];
}

static void expect_close_code(struct pair *p, unsigned code) {
    char payload[126];
    size_t n;
    assert_int_equal(sent_frame(p, payload, &n), 0x88);
    unsigned sent =
        n < 2 ? 0 : (unsigned)(uint8_t)payload[0] << 8 | (uint8_t)payload[1];
    assert_int_equal(sent, code);
}

static void split_handshake(void **state) {
    (void)state;
    static const char bytes[] = GOOD "\x81\x02hi";
    struct pair p;
    struct error err = {0};
    open_pair(&p, 0);
    for (size_t i = 0; i < sizeof GOOD - 1; i++) {
        assert_int_equal(websocket_connect(p.w, clock_now_ns(), &err), STATUS_TIMEOUT);
        put(&p, bytes + i, 1);
    }
    assert_int_equal(websocket_connect(p.w, LATER, &err), STATUS_OK);
    put(&p, bytes + sizeof GOOD - 1, 4);
    expect_message(&p, "hi");
    close_pair(&p);
    open_pair(&p, 0); /* all at once */
    PUT(&p, GOOD "\x81\x02hi\x81\x00\x81\x01!");
    assert_int_equal(websocket_connect(p.w, LATER, &err), STATUS_OK);
    expect_message(&p, "hi");
    expect_message(&p, "");
    expect_message(&p, "!");
    close_pair(&p);
}

static void refused_handshakes(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        enum status expected;
        int code;
    } cases[] = {
        {"HTTP/1.1 503 no\r\nRetry-After: 3\r\n\r\n", STATUS_UNSUPPORTED, 503},
        {SWITCH "Sec-WebSocket-Accept: x\r\n\r\n", STATUS_INVALID, 101},
        {"\x81\x02hi\r\n\r\n", STATUS_INVALID, 0},
        {"HTTP/1.1 101 Swi", STATUS_IO, 0}, /* and then the end */
        {"", STATUS_IO, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair p;
        struct error err = {0};
        struct websocket_message m;
        open_pair(&p, 0);
        put(&p, cases[i].bytes, strlen(cases[i].bytes));
        shutdown(p.peer, SHUT_WR);
        assert_int_equal(websocket_connect(p.w, LATER, &err), cases[i].expected);
        assert_int_equal(websocket_code(p.w), cases[i].code);
        assert_int_equal(websocket_retry_after_ns(p.w),
                         i == 0 ? 3 * CLOCK_NS_PER_SECOND : -1);
        assert_int_equal(websocket_read(p.w, LATER, &m, &err), cases[i].expected);
        close_pair(&p);
    }
    struct pair p;
    struct error err = {0};
    static char endless[20000];
    memset(endless, 'a', sizeof endless);
    open_pair(&p, 0);
    PUT(&p, "HTTP/1.1 101 a\r\n");
    put(&p, endless, sizeof endless);
    assert_int_equal(websocket_connect(p.w, LATER, &err), STATUS_INVALID);
    close_pair(&p);
}

static void frames(void **state) {
    (void)state;
    static const char bytes[] = "\x81\x03one"
                                "\x01\x02tw\x80\x01o" /* fragments */
                                "\x01\x01t\x89\x04ping\x00\x02hr\x8A\x00\x80\x02"
                                "ee"
                                "\x81\x7E\x00\x7E" /* 126 bytes */
                                "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee"
                                "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee"
                                "aaaaaaaaaabbbbbbbbbbcccccc";
    for (int is_split = 0; is_split < 2; is_split++) {
        struct pair p;
        struct websocket_message m;
        struct error err;
        char payload[126];
        size_t n = 0;
        open_connected(&p, 0);
        int64_t before = websocket_n_bytes(p.w);
        for (size_t i = 0; is_split && i < sizeof bytes - 1; i++) {
            put(&p, bytes + i, 1);
            if (i < 4) /* nothing is whole yet */
                assert_int_equal(websocket_read(p.w, clock_now_ns(), &m, &err),
                                 STATUS_TIMEOUT);
        }
        if (!is_split)
            PUT(&p, bytes);
        expect_message(&p, "one");
        expect_message(&p, "two");
        expect_message(&p, "three");
        assert_int_equal(websocket_read(p.w, LATER, &m, &err), STATUS_OK);
        assert_int_equal(m.bytes.n_bytes, 126);
        assert_int_equal(sent_frame(&p, payload, &n), 0x8A); /* the pong */
        assert_string_equal(payload, "ping");
        assert_int_equal(websocket_n_bytes(p.w) - before, sizeof bytes - 1);
        assert_true(websocket_last_byte_ns(p.w) > 0);
        close_pair(&p);
    }
}

/* A message that is not whole yet behind ones that are. */
static void begun_messages(void **state) {
    (void)state;
    struct pair p;
    open_connected(&p, 0);
    for (int i = 0; i < 3; i++) {
        PUT(&p, "\x81\x03one\x81\x03two\x01\x03"
                "par");
        expect_message(&p, "one");
        expect_message(&p, "two");
        struct websocket_message m;
        assert_int_equal(websocket_read(p.w, clock_now_ns(), &m, NULL), STATUS_TIMEOUT);
        PUT(&p, "\x80\x04tial");
        expect_message(&p, "partial");
    }
    close_pair(&p);
}

static void large_messages(void **state) {
    (void)state;
    static char text[300000];
    struct pair p;
    struct websocket_message m;
    struct error err;
    memset(text, 'x', sizeof text);
    /* As long as allowed, larger than any buffer; twice, so that memory is used again. */
    open_connected(&p, sizeof text);
    for (int i = 0; i < 2; i++) {
        PUT(&p, "\x81\x7F\x00\x00\x00\x00\x00\x04\x93\xE0");
        size_t half = sizeof text / 2;
        put(&p, text, half);
        assert_int_equal(websocket_read(p.w, clock_now_ns(), &m, &err), STATUS_TIMEOUT);
        put(&p, text + half, sizeof text - half);
        PUT(&p, "\x81\x05small");
        assert_int_equal(websocket_read(p.w, LATER, &m, &err), STATUS_OK);
        assert_true(m.bytes.n_bytes == sizeof text && !m.is_cut);
        assert_memory_equal(m.bytes.data, text, sizeof text);
        expect_message(&p, "small");
    }
    close_pair(&p);
    /* A byte more comes cut, in one frame or two, and what follows is whole. */
    open_connected(&p, 10);
    PUT(&p, "\x81\x0Bxxxxxxxxxx!\x81\x02hi\x01\x09xxxxxxxxx\x80\x03xyz\x81\x03"
            "end");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(websocket_read(p.w, LATER, &m, &err), STATUS_OK);
        assert_true(m.is_cut);
        assert_true(view_equal(m.bytes, VIEW("xxxxxxxxxx")));
        expect_message(&p, i ? "end" : "hi");
    }
    close_pair(&p);
    /* Far too long: by its header, or by its fragments. */
    open_connected(&p, 10);
    PUT(&p, "\x81\x01"
            "a\x81\x7E\x00\xA1x");
    expect_message(&p, "a");
    expect_end(&p, STATUS_INVALID, "(1009)");
    expect_close_code(&p, 1009);
    close_pair(&p);
    open_connected(&p, 10);
    for (int i = 0; i < 5; i++) {
        uint8_t head[2] = {i ? 0x00 : 0x01, 50};
        put(&p, head, 2);
        put(&p, text, 50);
    }
    expect_end(&p, STATUS_INVALID, "too long");
    expect_close_code(&p, 1009);
    close_pair(&p);
}

static void broken_frames(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        unsigned code;
    } cases[] = {
#define CASE(literal, code) {literal, sizeof literal - 1, code}
        CASE("\x81\x82\x00\x00\x00\x00hi", 1002), /* masked, as no server may */
        CASE("\xC1\x02hi", 1002),                 /* a reserved bit */
        CASE("\x83\x02hi", 1002),                 /* an opcode without meaning */
        CASE("\x8B\x00", 1002),                   /* the same of a control frame */
        CASE("\x80\x02hi", 1002),                 /* goes on with nothing */
        CASE("\x01\x02hi\x81\x02hi", 1002),       /* begins within another */
        CASE("\x09\x02hi\x80\x00", 0),            /* a ping in fragments */
        CASE("\x89\x7E\x00\x7E", 0),              /* a long ping */
        CASE("\x81\x7E\x00\x05hello", 0),         /* a short length written long */
        CASE("\x81\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 0), /* 2^64 - 1 */
        CASE("\x81\x02\xC3\x28", 1007),                      /* no UTF-8 */
        CASE("\x81\x01\xC3", 1007),     /* a character that does not end */
        CASE("\x82\x02hi", 1003),       /* binary */
        CASE("\x88\x02\x03\xED", 1002), /* 1005 must not be sent */
        CASE("\x88\x01\x03", 1002),     /* half a code */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair p;
        open_connected(&p, 0);
        PUT(&p, "\x81\x05"
                "first");
        put(&p, cases[i].bytes, cases[i].n_bytes);
        expect_message(&p, "first");
        if (i == sizeof cases / sizeof *cases - 1) { /* wslay takes it as a close */
            expect_end(&p, STATUS_NOT_FOUND, "closed");
        } else {
            expect_end(&p, STATUS_INVALID, "the server");
            if (cases[i].code)
                expect_close_code(&p, cases[i].code);
        }
        close_pair(&p);
    }
}

static void ends(void **state) {
    (void)state;
    struct pair p;
    char payload[126];
    size_t n;
    open_connected(&p, 0); /* closed in order, behind a message */
    PUT(&p, "\x81\x04last\x88\x05\x03\xE9"
            "bye");
    expect_message(&p, "last");
    expect_end(&p, STATUS_NOT_FOUND, "code 1001");
    expect_close_code(&p, 1001);
    close_pair(&p);
    open_connected(&p, 0); /* no code */
    PUT(&p, "\x88\x00");
    expect_end(&p, STATUS_NOT_FOUND, "code 1005");
    close_pair(&p);
    open_connected(&p, 0); /* the end within a frame */
    PUT(&p, "\x81\x04last\x81\x04gone");
    shutdown(p.peer, SHUT_WR);
    expect_message(&p, "last");
    expect_message(&p, "gone");
    expect_end(&p, STATUS_IO, "ended without a close frame");
    close_pair(&p);
    open_connected(&p, 0);
    PUT(&p, "\x81\x04ha");
    close(p.peer);
    p.peer = -1;
    expect_end(&p, STATUS_IO, "the connection");
    close_pair(&p);
    /* Ours: a close frame, and the server's is waited for. */
    open_connected(&p, 0);
    PUT(&p, "\x81\x04late\x88\x02\x03\xE9");
    int peer = dup(p.peer);
    int64_t before = clock_now_ns();
    websocket_close(p.w);
    assert_true(clock_now_ns() - before < CLOCK_NS_PER_SECOND / 2);
    p.w = NULL;
    assert_int_equal(sent_frame(&p, payload, &n), 0x88);
    assert_int_equal((uint8_t)payload[1], 0xE9);
    close(peer);
    close_pair(&p);
    /* A server that says nothing keeps nobody for long. */
    open_connected(&p, 0);
    websocket_close(p.w);
    p.w = NULL;
    close_pair(&p);
}

static void wakes(void **state) {
    (void)state;
    struct pair p;
    struct websocket_message m;
    struct error err;
    open_pair(&p, 0);
    assert_int_equal(eventfd_write(p.wake, 1), 0);
    assert_int_equal(websocket_connect(p.w, LATER, &err), STATUS_CANCELLED);
    eventfd_t value;
    assert_int_equal(eventfd_read(p.wake, &value), 0);
    PUT(&p, GOOD);
    assert_int_equal(websocket_connect(p.w, LATER, &err), STATUS_OK);
    assert_int_equal(websocket_read(p.w, clock_now_ns() + 1000000, &m, &err),
                     STATUS_TIMEOUT);
    assert_int_equal(eventfd_write(p.wake, 1), 0);
    assert_int_equal(websocket_read(p.w, LATER, &m, &err), STATUS_CANCELLED);
    PUT(&p, "\x81\x02hi");
    assert_int_equal(websocket_read(p.w, LATER, &m, &err), STATUS_CANCELLED);
    assert_int_equal(eventfd_read(p.wake, &value), 0);
    expect_message(&p, "hi");
    /* Pings alone are no reason to stay. */
    for (int i = 0; i < 2000; i++)
        PUT(&p, "\x89\x00");
    assert_int_equal(websocket_read(p.w, clock_now_ns(), &m, &err), STATUS_TIMEOUT);
    close_pair(&p);
}

/* ---- Through curl ------------------------------------------------------------------------ */

struct server {
    int fd, port;
    pthread_t thread;
    char request[2048];
};

/* Answers one handshake and sends one message, then the close frame. */
static void *serve(void *context) {
    struct server *s = context;
    size_t n = 0;
    int fd = accept(s->fd, NULL, NULL);
    while (!strstr(s->request, "\r\n\r\n")) {
        ssize_t got = recv(fd, s->request + n, sizeof s->request - 1 - n, 0);
        if (got <= 0)
            return NULL;
        n += (size_t)got;
    }
    const char *key = strstr(s->request, "Sec-WebSocket-Key: ");
    char accepted[WEBSOCKET_ACCEPT_BYTES], own[WEBSOCKET_KEY_BYTES];
    snprintf(own, sizeof own, "%.24s", key ? key + 19 : "");
    websocket_handshake_accept(own, accepted);
    dprintf(fd, SWITCH "Sec-WebSocket-Accept: %s\r\n\r\n\x81\x05hello", accepted);
    while (recv(fd, accepted, sizeof accepted, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void through_curl(void **state) {
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    struct server s = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(bind(s.fd, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(s.fd, 1), 0);
    getsockname(s.fd, (struct sockaddr *)&at, &n);
    char url[64], host[64];
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/a?b=c%%20d", ntohs(at.sin_port));
    snprintf(host, sizeof host, "\r\nHost: 127.0.0.1:%d\r\n", ntohs(at.sin_port));
    struct websocket *w;
    struct websocket_message m;
    struct error err = {0};
    struct websocket_options options = {
        .url = url, .allows_plain = true, .wake_fd = -1};
    assert_int_equal(pthread_create(&s.thread, NULL, serve, &s), 0);
    assert_int_equal(websocket_open(&options, &w, &err), STATUS_OK);
    if (websocket_connect(w, LATER, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_int_equal(websocket_read(w, LATER, &m, &err), STATUS_OK);
    assert_true(view_equal(m.bytes, VIEW("hello")));
    assert_int_equal(websocket_read(w, clock_now_ns(), &m, &err), STATUS_TIMEOUT);
    websocket_close(w);
    pthread_join(s.thread, NULL);
    assert_non_null(strstr(s.request, "GET /a?b=c%20d HTTP/1.1\r\n"));
    assert_non_null(strstr(s.request, host));
    close(s.fd); /* nobody listens any more */
    assert_int_equal(websocket_open(&options, &w, &err), STATUS_OK);
    assert_int_equal(websocket_connect(w, LATER, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "cannot connect"));
    websocket_close(w);
}

/* A server that takes the connection and never answers. */
static void no_answer(void **state) {
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(fd, 1), 0);
    getsockname(fd, (struct sockaddr *)&at, &n);
    char url[64];
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", ntohs(at.sin_port));
    struct websocket *w;
    struct error err = {0};
    struct websocket_options options = {.url = url,
                                        .allows_plain = true,
                                        .wake_fd = -1,
                                        .connect_ns = CLOCK_NS_PER_SECOND / 10};
    assert_int_equal(websocket_open(&options, &w, &err), STATUS_OK);
    assert_int_equal(websocket_connect(w, LATER, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "no answer in time"));
    websocket_close(w);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accept_keys),
        cmocka_unit_test(answers),
        cmocka_unit_test(urls),
        cmocka_unit_test(split_handshake),
        cmocka_unit_test(refused_handshakes),
        cmocka_unit_test(frames),
        cmocka_unit_test(begun_messages),
        cmocka_unit_test(large_messages),
        cmocka_unit_test(broken_frames),
        cmocka_unit_test(ends),
        cmocka_unit_test(wakes),
        cmocka_unit_test(through_curl),
        cmocka_unit_test(no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
