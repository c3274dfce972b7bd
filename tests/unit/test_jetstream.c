/* SPDX-License-Identifier: Apache-2.0
 *
 * test_jetstream.c - events as Jetstream writes them and as it should not, and the source
 * against servers in threads of this test: where it asks from, what it does when they break,
 * refuse, fall silent, skip or lie about the time.
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
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/net/websocket_handshake.h"
#include "client/sources/jetstream_post.h"
#include "client/sources/source.h"
#include "client/stream_options.h"

#define DID "did:plc:abcdefghijklmnopqrstuvwx"
#define REV "3l3qo2vutsw2b"
#define LATER (clock_now_ns() + 10 * CLOCK_NS_PER_SECOND)

static struct arena arena = {.max_bytes = (size_t)16 << 20};

static void expect_view(struct view v, const char *text) {
    if (!view_equal(v, view_of_string(text)))
        fail_msg("\"%.*s\" instead of \"%s\"", (int)v.n_bytes, v.data, text);
}

/* ---- Events --------------------------------------------------------------------------- */

static void tids(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "222222222222",
                                      "22222222222222",
                                      "c222222222222",
                                      "2222222222221",
                                      "222222222222A",
                                      "2222222222 22"};
    int64_t n = -1, m = -1;
    assert_true(jetstream_tid(VIEW("2222222222222"), &n));
    assert_int_equal(n, 0);
    assert_true(jetstream_tid(VIEW("222222222223z"), &n));
    assert_int_equal(n, 63);
    assert_true(jetstream_tid(VIEW("bzzzzzzzzzzzz"), &n));
    assert_true(n == INT64_MAX);
    /* Of 2024-09-09: microseconds above the clock's ten bits. */
    assert_true(jetstream_tid(VIEW(REV), &n));
    assert_true(n >> 10 > INT64_C(1725800000000000) &&
                n >> 10 < INT64_C(1726000000000000));
    assert_true(jetstream_tid(VIEW("3l3qo2vutsw2c"), &m) && m == n + 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(jetstream_tid(view_of_string(bad[i]), &n));
    assert_false(jetstream_tid(VIEW("222222\0"
                                    "222222"),
                               &n));
}

static void times(void **state) {
    (void)state;
    static const struct {
        const char *line;
        uint64_t expected; /* 0: none */
    } cases[] = {
        {"{\"did\":\"x\",\"time_us\":1725911162329308,\"kind\":\"commit\"}",
         UINT64_C(1725911162329308)},
        {"{ \"time_us\" : 17 }", 17},
        {"{\"commit\":{\"record\":{\"time_us\":5}},\"time_us\":7}", 7},
        {"{\"a\":[{\"time_us\":5}]}", 0},
        {"{\"text\":\"\\\"time_us\\\":5\",\"time_us\":8}", 8},
        {"{\"x\":\"time_us\",\"time_us\":9}", 9},
        {"{\"time_us\":-5}", 0},
        {"{\"time_us\":5.5}", 0},
        {"{\"time_us\":\"5\"}", 0},
        {"{\"time_us\":9223372036854775807}", UINT64_C(9223372036854775807)},
        {"{\"time_us\":9223372036854775808}", 0},
        {"{\"time_us\":99999999999999999999999}", 0},
        {"[\"time_us\":5]", 5}, /* no JSON: anything but a crash */
        {"}}}{\"time_us\":5}", 0},
        {"\"time_us\":5", 0},
        {"{\"time_us", 0},
        {"{\"time_us\"", 0},
        {"{\"time_us\":", 0},
        {"{\"a\\", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t got = 1;
        bool is_found = jetstream_time_us(view_of_string(cases[i].line), &got);
        assert_int_equal(is_found, cases[i].expected != 0);
        if (is_found)
            assert_true(got == cases[i].expected);
    }
}

#define EVENT(kind, rest)                                                              \
    "{\"did\":\"" DID "\",\"time_us\":1725911162329308,\"kind\":\"" kind "\"" rest "}"
#define COMMIT(operation, rest)                                                        \
    EVENT("commit",                                                                    \
          ",\"commit\":{\"rev\":\"" REV "\",\"operation\":\"" operation                \
          "\",\"collection\":\"app.bsky.feed.post\",\"rkey\":\"3l3qo2vuowo2b\"" rest   \
          "}")
#define CREATE(record) COMMIT("create", ",\"record\":{" record "},\"cid\":\"bafy\"")
#define ID "at://" DID "/app.bsky.feed.post/3l3qo2vuowo2b"

static enum status parse(const char *line, struct post *post, bool *is_gone) {
    struct error err;
    arena_clear(&arena);
    return jetstream_parse(view_of_string(line), &arena, post, is_gone, &err);
}

static void posts(void **state) {
    (void)state;
    struct post p;
    bool is_gone = true;
    int64_t rev = 0;
    jetstream_tid(VIEW(REV), &rev);
    assert_int_equal(
        parse(CREATE("\"$type\":\"app.bsky.feed.post\",\"text\":\"a \\u00e4\\u0000b\","
                     "\"langs\":[\"en-GB\",\"de\"],"
                     "\"createdAt\":\"2024-09-09T19:46:02.102Z\""),
              &p, &is_gone),
        STATUS_OK);
    assert_int_equal(p.action, POST_PUT);
    expect_view(p.native_id, ID);
    expect_view(p.author, DID);
    assert_true(p.id_has_author && p.version == rev && !is_gone);
    assert_true(view_equal(p.text, VIEW("a \xC3\xA4\0b")));
    expect_view(p.lang, "en-GB");
    assert_true(p.posted_ns == INT64_C(1725911162102000000));
    assert_int_equal(p.relation, POST_ORIGINAL);
    /* A time that lies behind the server's, or is none, is the server's. */
    assert_int_equal(
        parse(CREATE("\"text\":\"\",\"createdAt\":\"2034-09-09T19:46:02Z\""), &p,
              &is_gone),
        STATUS_OK);
    assert_true(p.posted_ns == INT64_C(1725911162329308000));
    expect_view(p.lang, "");
    assert_int_equal(
        parse(CREATE("\"text\":\"x\",\"createdAt\":7,\"langs\":[\"\\u0000\"]"), &p,
              &is_gone),
        STATUS_OK);
    assert_true(p.posted_ns == INT64_C(1725911162329308000));
    expect_view(p.lang, "");
    /* An update is a newer version of the same post. */
    assert_int_equal(
        parse(COMMIT("update", ",\"record\":{\"text\":\"new\"}"), &p, &is_gone),
        STATUS_OK);
    assert_int_equal(p.action, POST_PUT);
    expect_view(p.native_id, ID);
    assert_int_equal(parse(COMMIT("delete", ""), &p, &is_gone), STATUS_OK);
    assert_int_equal(p.action, POST_DELETE);
    expect_view(p.native_id, ID);
    assert_true(p.id_has_author);
    expect_view(p.author, "");
    /* Without a revision the server's time is of the same scale. */
    assert_int_equal(
        parse("{\"did\":\"" DID
              "\",\"time_us\":1725911162329308,\"kind\":\"commit\",\"commit\":{"
              "\"operation\":\"create\",\"collection\":\"app.bsky.feed.post\",\"rkey\":"
              "\"self\","
              "\"record\":{\"text\":\"x\"}}}",
              &p, &is_gone),
        STATUS_OK);
    assert_true(p.version == INT64_C(1725911162329308) << 10);
}

#define OTHER "at://did:plc:other/app.bsky.feed.post/3k"

static void quotes(void **state) {
    (void)state;
    static const struct {
        const char *embed;
        bool is_quote;
    } cases[] = {
        {"{\"$type\":\"app.bsky.embed.record\",\"record\":{\"cid\":\"c\",\"uri\":"
         "\"" OTHER "\"}}",
         true},
        {"{\"$type\":\"app.bsky.embed.recordWithMedia\",\"media\":{},\"record\":{\"$"
         "type\":\"x\","
         "\"record\":{\"cid\":\"c\",\"uri\":\"" OTHER "\"}}}",
         true},
        {"{\"record\":{\"uri\":\"at://did:plc:other/app.bsky.graph.list/3k\"}}", false},
        {"{\"record\":{\"uri\":\"https://a.example/app.bsky.feed.post/3k\"}}", false},
        {"{\"record\":{\"uri\":\"at://x y/app.bsky.feed.post/3k\"}}", false},
        {"{\"$type\":\"app.bsky.embed.images\",\"images\":[]}", false},
        {"{\"record\":7}", false},
        {"[]", false},
        {"null", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[1024];
        struct post p;
        bool is_gone;
        snprintf(line, sizeof line, CREATE("\"text\":\"see\",\"embed\":%s"),
                 cases[i].embed);
        assert_int_equal(parse(line, &p, &is_gone), STATUS_OK);
        assert_int_equal(p.relation, cases[i].is_quote ? POST_QUOTE : POST_ORIGINAL);
        expect_view(p.original_id, cases[i].is_quote ? OTHER : "");
        expect_view(p.original_author, cases[i].is_quote ? "did:plc:other" : "");
    }
}

static void other_events(void **state) {
    (void)state;
    static const struct {
        const char *line;
        bool is_gone;
    } nothing[] = {
        {EVENT("identity", ",\"identity\":{\"handle\":\"a.example\"}"), false},
        {EVENT("account", ",\"account\":{\"active\":true}"), false},
        {EVENT("account", ",\"account\":{\"active\":false,\"status\":\"deleted\"}"),
         true},
        {EVENT("account", ",\"account\":{\"active\":false,\"status\":\"takendown\"}"),
         true},
        {EVENT("account", ""), false},
        {EVENT("a kind to come", ""), false},
        {COMMIT("an operation to come", ""), false},
        {EVENT("commit", ",\"commit\":{\"operation\":\"create\",\"collection\":"
                         "\"app.bsky.feed.like\",\"rkey\":\"a\",\"record\":{}}"),
         false},
    };
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        struct post p;
        bool is_gone = false;
        assert_int_equal(parse(nothing[i].line, &p, &is_gone), STATUS_OK);
        assert_int_equal(p.action, POST_NOTHING);
        assert_int_equal(is_gone, nothing[i].is_gone);
    }
}

static void junk(void **state) {
    (void)state;
    static const struct {
        const char *line;
        enum status expected;
    } cases[] = {
        {"", STATUS_INVALID},
        {"junk", STATUS_INVALID},
        {"{\"kind\":\"commit\"", STATUS_INVALID},
        {"[]", STATUS_INVALID},
        {"{}", STATUS_INVALID},
        {"{\"kind\":7}", STATUS_INVALID},
        {EVENT("commit", ""), STATUS_INVALID},
        {EVENT("commit", ",\"commit\":[]"), STATUS_INVALID},
        {COMMIT("create", ""), STATUS_INVALID},
        {COMMIT("create", ",\"record\":7"), STATUS_INVALID},
        {CREATE("\"text\":7"), STATUS_INVALID},
        {CREATE("\"text\":\"\\ud800\""), STATUS_UNSUPPORTED},
        {CREATE("\"text\":\"\xFF\""), STATUS_INVALID},
        {CREATE("\"text\":\"x\",\"text\":\"y\""), STATUS_INVALID},
        {"{\"did\":\"no "
         "did\",\"kind\":\"commit\",\"commit\":{\"operation\":\"delete\","
         "\"collection\":"
         "\"app.bsky.feed.post\",\"rkey\":\"a\"}}",
         STATUS_INVALID},
        {"{\"did\":\"did:plc:a\",\"kind\":\"commit\",\"commit\":{\"operation\":"
         "\"delete\",\"collection\":"
         "\"app.bsky.feed.post\",\"rkey\":\"a/b\"}}",
         STATUS_INVALID},
        {"{\"did\":\"did:plc:a\\u0000b\",\"kind\":\"commit\",\"commit\":{\"operation\":"
         "\"delete\","
         "\"collection\":\"app.bsky.feed.post\",\"rkey\":\"a\"}}",
         STATUS_INVALID},
    };
    struct post p;
    bool is_gone;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (parse(cases[i].line, &p, &is_gone) != cases[i].expected)
            fail_msg("case %zu", i);
    static char large[100000];
    int n = snprintf(
        large, sizeof large, "%s",
        "{\"did\":\"did:plc:a\",\"kind\":\"commit\",\"commit\":{\"operation\":"
        "\"create\","
        "\"collection\":\"app.bsky.feed.post\",\"rkey\":\"a\",\"record\":{\"text\":\"");
    memset(large + n, 'x', POST_MAX_TEXT_BYTES);
    snprintf(large + n + POST_MAX_TEXT_BYTES, 10, "\"}}}");
    assert_int_equal(parse(large, &p, &is_gone), STATUS_OK);
    assert_int_equal(p.text.n_bytes, POST_MAX_TEXT_BYTES);
    snprintf(large + n + POST_MAX_TEXT_BYTES, 10, "x\"}}}");
    assert_int_equal(parse(large, &p, &is_gone), STATUS_LIMIT);
    char rkey[700];
    memset(rkey, 'k', sizeof rkey);
    snprintf(large, sizeof large,
             "{\"did\":\"did:plc:a\",\"kind\":\"commit\",\"commit\":{\"operation\":"
             "\"delete\","
             "\"collection\":\"app.bsky.feed.post\",\"rkey\":\"%.*s\"}}",
             600, rkey);
    assert_int_equal(parse(large, &p, &is_gone), STATUS_LIMIT);
}

/* ---- The source ------------------------------------------------------------------------ */

/* What a server does with one connection. */
struct step {
    int code;           /* 0: 101 */
    const char *events; /* each in a frame; '\n' between them */
    enum { HANG_UP, RESET, HOLD } then;
};

#define MAX_REQUESTS 16
struct server {
    int fd, port;
    pthread_t thread;
    const struct step *steps;
    size_t n_steps;
    pthread_mutex_t lock;
    char requests[MAX_REQUESTS][512];
    size_t n_requests;
    int held; /* a connection that is kept open; closed at the end */
};

static bool read_request(int fd, char *out, size_t cap) {
    size_t n = 0;
    while (!strstr(out, "\r\n\r\n")) {
        ssize_t got = recv(fd, out + n, cap - 1 - n, 0);
        if (got <= 0)
            return false;
        n += (size_t)got;
        out[n] = '\0';
    }
    return true;
}

static void send_events(int fd, const char *events) {
    while (*events) {
        size_t n = strcspn(events, "\n");
        uint8_t head[4] = {0x81, (uint8_t)n};
        if (n >= 126) {
            head[1] = 126;
            head[2] = (uint8_t)(n >> 8);
            head[3] = (uint8_t)n;
        }
        if (send(fd, head, n < 126 ? 2 : 4, MSG_NOSIGNAL) < 0 ||
            send(fd, events, n, MSG_NOSIGNAL) < 0)
            return;
        events += n + (events[n] == '\n');
    }
}

static void answer(struct server *s, int fd, const struct step *step) {
    char request[2048] = "", accept[WEBSOCKET_ACCEPT_BYTES], key[WEBSOCKET_KEY_BYTES];
    if (!read_request(fd, request, sizeof request))
        return;
    pthread_mutex_lock(&s->lock);
    snprintf(s->requests[s->n_requests % MAX_REQUESTS], sizeof s->requests[0], "%.*s",
             (int)strcspn(request, "\r"), request);
    s->n_requests++;
    pthread_mutex_unlock(&s->lock);
    const char *sent = strstr(request, "Sec-WebSocket-Key: ");
    snprintf(key, sizeof key, "%.24s", sent ? sent + 19 : "");
    websocket_handshake_accept(key, accept);
    if (step->code) {
        dprintf(fd, "HTTP/1.1 %d No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
                step->code);
        return;
    }
    dprintf(fd,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
            "Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
            accept);
    send_events(fd, step->events);
}

static void *serve(void *context) {
    struct server *s = context;
    for (size_t i = 0; i < s->n_steps; i++) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            break;
        answer(s, fd, &s->steps[i]);
        if (s->steps[i].then == HOLD) {
            s->held = fd;
            continue;
        }
        if (s->steps[i].then == RESET) {
            struct linger now = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            usleep(20000); /* what was sent is to be read first */
        }
        close(fd);
    }
    return NULL;
}

static void start(struct server *s, const struct step *steps, size_t n_steps) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    *s = (struct server){.steps = steps, .n_steps = n_steps, .held = -1};
    pthread_mutex_init(&s->lock, NULL);
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(s->fd, 8), 0);
    getsockname(s->fd, (struct sockaddr *)&at, &n);
    s->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s) {
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    if (s->held >= 0)
        close(s->held);
    pthread_mutex_destroy(&s->lock);
}

static struct source *open_source(const char *target, const char *cursor, int wake_fd) {
    static struct source_settings settings = {.allows_plain = true};
    struct source_options options = {.name = "bsky",
                                     .target = target,
                                     .cursor = cursor,
                                     .wake_fd = wake_fd,
                                     .seed = 1,
                                     .settings = &settings};
    struct source *source;
    struct error err = {0};
    if (source_jetstream.open(&options, &source, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return source;
}

static void expect_line(struct source *s, const char *text, const char *cursor) {
    struct source_line line;
    struct error err = {0};
    char at[SOURCE_CURSOR_BYTES];
    enum status status = source_jetstream.next(s, LATER, &line, &err);
    if (status != STATUS_OK)
        fail_msg("%s: %s", status_name(status), err.message);
    expect_view(line.bytes, text);
    assert_int_equal(source_jetstream.cursor(s, line.after, at, &err), STATUS_OK);
    assert_string_equal(at, cursor);
    assert_false(line.is_cut);
}

static bool asked(struct server *s, size_t i, const char *what) {
    pthread_mutex_lock(&s->lock);
    bool has = s->n_requests > i && strstr(s->requests[i], what);
    pthread_mutex_unlock(&s->lock);
    return has;
}

/* A moment of an hour ago, for events; and seconds behind it. */
static uint64_t base_us;
static const char *event(char out[128], int64_t seconds) {
    snprintf(out, 128, "{\"time_us\":%llu,\"kind\":\"commit\",\"n\":%lld}",
             (unsigned long long)base_us + (unsigned long long)(seconds * 1000000),
             (long long)seconds);
    return out;
}
static const char *micros(char out[32], int64_t seconds) {
    snprintf(out, 32, "%llu",
             (unsigned long long)base_us + (unsigned long long)(seconds * 1000000));
    return out;
}

static void resumes(void **state) {
    (void)state;
    char a[128], b[128], c[128], d[128], first[512], second[512], target[64], at[32],
        want[160];
    struct server s;
    event(a, 100);
    event(b, 101);
    event(c, 99); /* out of order: the cursor does not go back */
    event(d, 102);
    snprintf(first, sizeof first, "%s\n%s\n%s", a, b, c);
    snprintf(second, sizeof second, "%s\nnot json\n%s", c, d);
    const struct step steps[] = {{.events = first, .then = RESET},
                                 {.events = second, .then = HOLD}};
    start(&s, steps, 2);
    snprintf(target, sizeof target, "ws://127.0.0.1:%d", s.port);
    struct source *source = open_source(target, micros(at, 90), -1);
    const struct source_state *seen = source_jetstream.state(source);
    expect_line(source, a, micros(at, 100));
    assert_int_equal(seen->phase, SOURCE_STREAMING);
    expect_line(source, b, micros(at, 101));
    expect_line(source, c, micros(at, 101));
    expect_line(source, c, micros(at, 101));
    expect_line(source, "not json", micros(at, 101));
    expect_line(source, d, micros(at, 102));
    snprintf(want, sizeof want,
             "GET /subscribe?wantedCollections=app.bsky.feed.post&cursor=%s ",
             micros(at, 75)); /* fifteen seconds at the start */
    assert_true(asked(&s, 0, want));
    snprintf(want, sizeof want, "&cursor=%s ",
             micros(at, 98)); /* three after a break */
    assert_true(asked(&s, 1, want));
    assert_true(seen->n_lines == 6 && seen->n_connects == 2 &&
                seen->n_disconnects == 1);
    assert_true(seen->n_gaps == 0 && seen->n_bytes > 0 && seen->last_byte_ns > 0);
    assert_true(seen->last_post_ns > 0);
    stop(&s);
    source_jetstream.close(source);
}

static void cursors(void **state) {
    (void)state;
    static const struct {
        const char *cursor, *asked;
    } cases[] = {
        {NULL, "GET /subscribe?wantedCollections=app.bsky.feed.post HTTP/1.1"},
        {"0", "GET /subscribe?wantedCollections=app.bsky.feed.post HTTP/1.1"},
        {"123456", "&cursor=123456 HTTP"},
        {"999999999999999", "&cursor=999999999999999 HTTP"},
        {"1000000000000007", "&cursor=1000000000000000 HTTP"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct step steps[] = {{.events = "{}", .then = HOLD}};
        struct server s;
        char target[64];
        start(&s, steps, 1);
        snprintf(target, sizeof target, "ws://127.0.0.1:%d/subscribe", s.port);
        struct source *source = open_source(target, cases[i].cursor, -1);
        expect_line(source, "{}", cases[i].cursor ? cases[i].cursor : "0");
        assert_true(asked(&s, 0, cases[i].asked));
        stop(&s);
        source_jetstream.close(source);
    }
    struct source *source;
    struct error err;
    struct source_options options = {.cursor = "12x", .wake_fd = -1};
    assert_int_equal(source_jetstream.open(&options, &source, &err), STATUS_INVALID);
    options.cursor = "9999999999999999999";
    assert_int_equal(source_jetstream.open(&options, &source, &err), STATUS_INVALID);
    options.cursor = NULL;
    assert_int_equal(source_jetstream.open(&options, &source, &err), STATUS_OK);
    source_jetstream.close(source);
    options.target = "ws://127.0.0.1:1"; /* plain, and nobody allowed it */
    assert_int_equal(source_jetstream.open(&options, &source, &err), STATUS_INVALID);
    options.target = "a.example,wss://b.example/x?y=z, c.example:8443";
    assert_int_equal(source_jetstream.open(&options, &source, &err), STATUS_OK);
    source_jetstream.close(source);
    options.target = "a.example,,b.example";
    assert_int_equal(source_jetstream.open(&options, &source, &err), STATUS_INVALID);
}

static void fails_over(void **state) {
    (void)state;
    char a[128], b[128], target[128], at[32], want[160];
    static struct server first, second;
    event(a, 100);
    event(b, 101);
    const struct step one[] = {
        {.events = a, .then = HANG_UP}, {.code = 503}, {.code = 404}};
    const struct step two[] = {{.events = "", .then = HANG_UP},
                               {.events = b, .then = HOLD}};
    start(&first, one, 3);
    start(&second, two, 2);
    snprintf(target, sizeof target, "ws://127.0.0.1:%d,ws://127.0.0.1:%d/x?y=z",
             first.port, second.port);
    struct source *source = open_source(target, micros(at, 100), -1);
    expect_line(source, a, micros(at, 100));
    expect_line(source, b, micros(at, 101));
    /* first: nothing new, though an event; second: no event; first: 503; second: news */
    snprintf(want, sizeof want,
             "GET /x?y=z&wantedCollections=app.bsky.feed.post&cursor=%s ",
             micros(at, 85));
    assert_true(asked(&second, 0, want));
    assert_true(asked(&first, 1, micros(at, 85)));
    assert_true(asked(&second, 1, micros(at, 85)));
    assert_int_equal(source_jetstream.state(source)->n_errors, 1);
    stop(&first);
    stop(&second);
    source_jetstream.close(source);
}

static void gaps_and_lies(void **state) {
    (void)state;
    char a[128], b[128], far[128], events[512], target[64], at[32];
    struct server s;
    event(a, 161); /* a minute and a second behind the cursor */
    event(b, 162);
    snprintf(far, sizeof far,
             "{\"time_us\":4102444800000000,\"kind\":\"commit\"}"); /* 2100 */
    snprintf(events, sizeof events, "%s\n%s\n%s", far, a, b);
    const struct step steps[] = {{.events = events, .then = HOLD}};
    start(&s, steps, 1);
    snprintf(target, sizeof target, "ws://127.0.0.1:%d", s.port);
    struct source *source = open_source(target, micros(at, 100), -1);
    expect_line(source, far, micros(at, 100));
    expect_line(source, a, micros(at, 161));
    expect_line(source, b, micros(at, 162));
    assert_int_equal(source_jetstream.state(source)->n_gaps, 1);
    stop(&s);
    source_jetstream.close(source);
    /* Many of them in a row: then it is this machine's clock that is wrong. */
    static char many[MAX_REQUESTS * 256];
    size_t n = 0;
    for (int i = 0; i < 40; i++)
        n += (size_t)snprintf(many + n, sizeof many - n,
                              "{\"time_us\":41024448000000%02d}\n", i);
    const struct step ahead[] = {{.events = many, .then = HOLD}};
    start(&s, ahead, 1);
    snprintf(target, sizeof target, "ws://127.0.0.1:%d", s.port);
    source = open_source(target, NULL, -1);
    for (int i = 0; i < 40; i++) {
        char expected[64], cursor[32] = "0";
        snprintf(expected, sizeof expected, "{\"time_us\":41024448000000%02d}", i);
        if (i >= 31)
            snprintf(cursor, sizeof cursor, "41024448000000%02d", i);
        expect_line(source, expected, cursor);
    }
    stop(&s);
    source_jetstream.close(source);
}

static void silence_and_waking(void **state) {
    (void)state;
    char a[128], b[128], target[64], at[32];
    struct server s;
    struct source_line line;
    struct error err = {0};
    int wake = eventfd(0, 0);
    event(a, 100);
    event(b, 101);
    const struct step steps[] = {{.events = a, .then = HOLD},
                                 {.events = b, .then = HOLD}};
    start(&s, steps, 2);
    snprintf(target, sizeof target, "ws://127.0.0.1:%d", s.port);
    struct source *source = open_source(target, micros(at, 100), wake);
    expect_line(source, a, micros(at, 100));
    assert_int_equal(
        source_jetstream.next(source, clock_now_ns() + 1000000, &line, &err),
        STATUS_TIMEOUT);
    expect_line(source, b, micros(at, 101)); /* after 60 s, here 60 ms, of silence */
    assert_int_equal(source_jetstream.state(source)->n_disconnects, 1);
    assert_int_equal(eventfd_write(wake, 1), 0);
    assert_int_equal(source_jetstream.next(source, LATER, &line, &err),
                     STATUS_CANCELLED);
    source_jetstream.close(source);
    /* Woken while it waits for its next try, too. */
    stop(&s);
    source = open_source(target, NULL, wake);
    enum status status = STATUS_TIMEOUT;
    for (int i = 0; i < 100 && status == STATUS_TIMEOUT; i++)
        status = source_jetstream.next(source, clock_now_ns(), &line, &err);
    assert_int_equal(status, STATUS_CANCELLED);
    source_jetstream.close(source);
    close(wake);
}

/* What parse counts is told at the end, without a name. */
static void gone_accounts(void **state) {
    (void)state;
    struct source *source = open_source("a.example", NULL, -1);
    struct post p;
    int fds[2];
    char told[2000] = "";
    assert_int_equal(pipe(fds), 0);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT, fds[1]);
    for (int i = 0; i < 3; i++)
        assert_int_equal(source_jetstream.parse(
                             source,
                             VIEW(EVENT("account", ",\"account\":{\"active\":false}")),
                             &arena, &p, NULL),
                         STATUS_OK);
    source_jetstream.close(source);
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    assert_true(read(fds[0], told, sizeof told - 1) > 0);
    assert_non_null(strstr(told, "3 accounts"));
    assert_null(strstr(told, "plc"));
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(
        source_jetstream.parse(NULL, VIEW(EVENT("account", "")), &arena, &p, NULL),
        STATUS_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tids),
        cmocka_unit_test(times),
        cmocka_unit_test(posts),
        cmocka_unit_test(quotes),
        cmocka_unit_test(other_events),
        cmocka_unit_test(junk),
        cmocka_unit_test(resumes),
        cmocka_unit_test(cursors),
        cmocka_unit_test(fails_over),
        cmocka_unit_test(gaps_and_lies),
        cmocka_unit_test(silence_and_waking),
        cmocka_unit_test(gone_accounts),
    };
    setenv("VIGIL_TEST_TIME_SCALE", "0.001", 1);
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    base_us = (uint64_t)clock_wall_ns() / 1000 - UINT64_C(3600000000);
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(&arena);
    return n_failed;
}
