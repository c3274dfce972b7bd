/* SPDX-License-Identifier: Apache-2.0
 *
 * test_classifier.c - answers are read strictly, offsets in code points; what each code and
 * each way of failing means, against a server in a thread that misbehaves by script.
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
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "client/worker/classifier.h"

#define SHA "2a03fc765c76d586f41f039e1bd655a447781abb0f4df3bd84bfbfcb5277699d"
#define MODEL                                                                          \
    "\"model\":{\"name\":\"ade\",\"sha256\":\"" SHA                                    \
    "\",\"dtype\":\"int8\",\"max_tokens\":512}"
#define PROBS "\"probs\":{\"Not_AE\":0.25,\"Adverse_Event\":0.75}"
#define REST "\"tokens\":9,\"windows\":2,\"truncated\":true"
#define ENTITIES                                                                       \
    "\"entities\":[{\"type\":\"DRUG\",\"text\":\"Z\xC3\xA9\",\"begin\":0,\"end\":2,"   \
    "\"score\":0.5},{\"type\":\"ADE\",\"text\":\"rash\",\"begin\":3,\"end\":7,"        \
    "\"score\":"                                                                       \
    "1}]"
#define RESULT(id)                                                                     \
    "{\"id\":" id ",\"label\":\"X\",\"score\":0.75," PROBS "," REST "," ENTITIES "}"
#define ANSWER(results) "{" MODEL ",\"results\":[" results "]}"
#define POSITIVE "Adverse_Event"
#define MARK "qzmark7731"

static const struct view TEXTS[] = {{"Z\xC3\xA9 rash", 8}, {"Z\xC3\xA9 rash", 8}};
static struct arena arena = {.max_bytes = 1 << 20};

static enum status read_answer(const char *body, size_t n,
                               struct classifier_answer *out, struct error *err) {
    /* A block of its own, so that reading behind its end is seen. */
    size_t n_bytes = strlen(body);
    char *copy = malloc(n_bytes ? n_bytes : 1);
    memcpy(copy, body, n_bytes);
    arena_clear(&arena);
    memset(out, 0, sizeof *out);
    enum status status =
        classifier_read(copy, n_bytes, POSITIVE, true, TEXTS, n, &arena, out, err);
    free(copy);
    return status;
}

/* ---- reading ---- */

static void a_good_answer_is_read_whole(void **state) {
    (void)state;
    struct classifier_answer a;
    assert_int_equal(
        read_answer(ANSWER(RESULT("0") ",{\"id\":1,\"error\":\"the text is empty\","
                                       "\"error_type\":\"unusable\"}"),
                    2, &a, NULL),
        STATUS_OK);
    assert_string_equal(a.model, "ade");
    assert_string_equal(a.sha256, SHA);
    assert_string_equal(a.dtype, "int8");
    const struct classifier_result *r = &a.results[0];
    assert_null(r->error_type);
    assert_string_equal(r->label, "Not_AE"); /* the best of the others */
    assert_true(r->probability == 0.75 && r->label_probability == 0.25);
    assert_int_equal(r->n_tokens, 9);
    assert_int_equal(r->n_windows, 2);
    assert_true(r->is_truncated);
    assert_int_equal(r->n_mentions, 2);
    assert_string_equal(r->mentions[0].type, "DRUG");
    assert_true(view_equal(r->mentions[0].text, VIEW("Z\xC3\xA9")));
    assert_int_equal(r->mentions[1].begin, 3);
    assert_int_equal(r->mentions[1].end, 7);
    assert_true(r->mentions[1].score == 1);
    assert_string_equal(a.results[1].error_type, "unusable");
}

static void whatever_is_not_an_answer_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "null",
        "{}",
        "{" MODEL "}",
        "{\"results\":[" RESULT("0") "]}",
        ANSWER(""),
        ANSWER(RESULT("0") "," RESULT("1")), /* one too many */
        ANSWER(RESULT("1")),                 /* another one's */
        ANSWER(RESULT("\"0\"")),
        ANSWER("7"),
        ANSWER("{}"),
        ANSWER("{\"id\":0}"),
        ANSWER("{\"id\":0,\"error\":\"x\"}"),
        ANSWER("{\"id\":0,\"error\":\"x\",\"error_type\":7}"),
        ANSWER("{\"id\":0,\"error\":\"x\",\"error_type\":\"a b\"}"),
        /* no label, probabilities, counts, entities */
        ANSWER("{\"id\":0,\"score\":0.75," PROBS "," REST "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\"," REST "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\"," PROBS "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\"," PROBS "," REST "}"),
        /* probabilities that are none */
        ANSWER("{\"id\":0,\"label\":\"X\",\"probs\":{\"Not_AE\":0.25,\"Adverse_Event\":"
               "null}," REST "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\",\"probs\":{\"Not_AE\":0.25,\"Adverse_Event\":"
               "NaN}," REST "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\",\"probs\":{\"Not_AE\":0.25,\"Adverse_Event\":"
               "1.01}," REST "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\",\"probs\":{\"Not_AE\":-0.1,\"Adverse_Event\":"
               "0.5}," REST "," ENTITIES "}"),
        ANSWER(
            "{\"id\":0,\"label\":\"X\",\"probs\":{\"Not_AE\":0.25,\"Other\":0.75}," REST
            "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\",\"probs\":{\"Adverse_Event\":0.75}," REST
               "," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\",\"probs\":[0.25,0.75]," REST "," ENTITIES
               "}"),
        /* counts that are none */
        ANSWER("{\"id\":0,\"label\":\"X\"," PROBS
               ",\"tokens\":9.5,\"windows\":1,\"truncated\":false," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\"," PROBS
               ",\"tokens\":9,\"windows\":0,\"truncated\":false," ENTITIES "}"),
        ANSWER("{\"id\":0,\"label\":\"X\"," PROBS
               ",\"tokens\":9,\"windows\":1,\"truncated\":0," ENTITIES "}"),
        "{\"model\":{\"name\":\"ade\",\"sha256\":\"2a03\",\"dtype\":\"int8\"},"
        "\"results\":[" RESULT("0") "]}",
        ANSWER(RESULT("0")) "x",
    };
    struct classifier_answer a;
    struct error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (struct error){0};
        assert_int_equal(read_answer(bad[i], 1, &a, &err), STATUS_INVALID);
        assert_true(err.message[0] != '\0');
    }
}

static void entities_lie_within_their_text(void **state) {
    (void)state;
    static const struct {
        const char *entity;
        bool is_good;
    } cases[] = {
        {"\"type\":\"ADE\",\"text\":\"x\",\"begin\":0,\"end\":7,\"score\":0", true},
        {"\"type\":\"ADE\",\"text\":\"x\",\"begin\":0,\"end\":8,\"score\":0", false},
        {"\"type\":\"ADE\",\"text\":\"x\",\"begin\":6,\"end\":7,\"score\":0", true},
        {"\"type\":\"ADE\",\"text\":\"x\",\"begin\":7,\"end\":7,\"score\":0", false},
        {"\"type\":\"ADE\",\"text\":\"x\",\"begin\":-1,\"end\":7,\"score\":0", false},
        {"\"type\":\"ADE\",\"text\":\"x\",\"begin\":0,\"end\":1e3,\"score\":0", false},
        {"\"type\":\"ADE\",\"text\":\"x\",\"begin\":0,\"end\":7,\"score\":2", false},
        {"\"type\":\"\",\"text\":\"x\",\"begin\":0,\"end\":7,\"score\":0", false},
        {"\"type\":\"ADE\",\"text\":3,\"begin\":0,\"end\":7,\"score\":0", false},
        {"\"text\":\"x\",\"begin\":0,\"end\":7,\"score\":0", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[1024];
        struct classifier_answer a;
        snprintf(
            body, sizeof body,
            ANSWER("{\"id\":0,\"label\":\"X\"," PROBS "," REST ",\"entities\":[{%s}]}"),
            cases[i].entity);
        assert_int_equal(read_answer(body, 1, &a, NULL),
                         cases[i].is_good ? STATUS_OK : STATUS_INVALID);
    }
}

static void every_cut_of_an_answer_is_refused(void **state) {
    (void)state;
    const char *whole = ANSWER(RESULT("0"));
    struct classifier_answer a;
    for (size_t n = 0; n < strlen(whole); n++) {
        char cut[1024] = "";
        memcpy(cut, whole, n);
        assert_int_not_equal(read_answer(cut, 1, &a, NULL), STATUS_OK);
    }
}

#define INFO(ready, labels)                                                            \
    "{\"service\":\"vigil\",\"version\":\"0.1.0\",\"ready\":" ready                    \
    ",\"model\":{\"name\":\"ade\",\"sha256\":\"" SHA                                   \
    "\",\"dtype\":\"int8\",\"labels\":" labels ",\"tag_labels\":[\"O\"]}"              \
    ",\"limits\":{\"body_bytes\":6291456,\"inputs\":512,\"text_bytes\":65536}}"

static void info_tells_model_and_limits(void **state) {
    (void)state;
    static const struct {
        const char *body;
        enum status status;
        bool is_ready;
    } cases[] = {
        {INFO("true", "[\"Not_AE\",\"Adverse_Event\"]"), STATUS_OK, true},
        {INFO("false", "[\"Not_AE\",\"Adverse_Event\"]"), STATUS_OK, false},
        {INFO("true", "[\"Not_AE\",\"Adverse_Event\",\"Third\"]"), STATUS_OK, true},
        {INFO("true", "[\"Adverse_Event\",\"Not_AE\"]"), STATUS_UNSUPPORTED, true},
        {INFO("true", "[\"No\",\"Yes\"]"), STATUS_UNSUPPORTED, true},
        {INFO("true", "[]"), STATUS_UNSUPPORTED, true},
        {INFO("true", "[1,2]"), STATUS_INVALID, true},
        {INFO("true", "7"), STATUS_INVALID, false},
        {INFO("1", "[\"Not_AE\",\"Adverse_Event\"]"), STATUS_INVALID, false},
        {"{\"service\":\"vigil\",\"ready\":false,\"limits\":{\"body_bytes\":1,"
         "\"inputs\":1,"
         "\"text_bytes\":1}}",
         STATUS_OK, false},
        {"{\"service\":\"other\"}", STATUS_INVALID, false},
        {"<html>", STATUS_INVALID, false},
        {"", STATUS_INVALID, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct classifier_info info = {0};
        struct error err = {0};
        assert_int_equal(classifier_read_info(cases[i].body, strlen(cases[i].body),
                                              POSITIVE, &info, &err),
                         cases[i].status);
        assert_int_equal(info.is_ready, cases[i].is_ready);
        if (cases[i].status == STATUS_OK) {
            assert_true(info.max_texts > 0);
        } else {
            assert_true(err.message[0] != '\0');
        }
        if (i == 0) {
            assert_string_equal(info.sha256, SHA);
            assert_int_equal(info.max_body_bytes, 6291456);
            assert_true(info.has_entities);
        }
    }
}

/* ---- a server in a thread ---- */

struct fake {
    int listen_fd;
    int port;
    pthread_t thread;
    const char *head, *body; /* of the answer; head NULL: none */
    size_t n_junk;           /* bytes of blanks behind the body */
    bool resets, hangs;
    int64_t gap_ns; /* between the bytes of the body */
    char request[2048];
    size_t n_request;
};

static bool send_all(int fd, const char *data, size_t n) {
    while (n > 0) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        data += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* Reads head and body of one request. */
static void take_request(struct fake *f, int fd) {
    size_t wanted = SIZE_MAX;
    f->n_request = 0;
    while (f->n_request < wanted && f->n_request + 1 < sizeof f->request) {
        ssize_t n = recv(fd, f->request + f->n_request,
                         sizeof f->request - 1 - f->n_request, 0);
        if (n <= 0)
            return;
        f->n_request += (size_t)n;
        f->request[f->n_request] = '\0';
        const char *end = strstr(f->request, "\r\n\r\n");
        const char *length = strcasestr(f->request, "content-length:");
        if (end)
            wanted = (size_t)(end + 4 - f->request) +
                     (length ? (size_t)strtoul(length + 15, NULL, 10) : 0);
    }
}

static void *serve_once(void *argument) {
    struct fake *f = argument;
    int fd = accept(f->listen_fd, NULL, NULL);
    if (fd < 0)
        return NULL;
    take_request(f, fd);
    if (f->head)
        send_all(fd, f->head, strlen(f->head));
    size_t n_body = f->body ? strlen(f->body) : 0, n_at_once = f->gap_ns ? 1 : n_body;
    for (size_t i = 0; i < n_body; i += n_at_once) {
        if (f->gap_ns)
            nanosleep(&(struct timespec){.tv_nsec = f->gap_ns}, NULL);
        if (!send_all(fd, f->body + i, n_at_once))
            break;
    }
    static const char blanks[4096] = {' '};
    for (size_t i = 0; i < f->n_junk; i += sizeof blanks)
        if (!send_all(fd, blanks, sizeof blanks))
            break;
    if (f->hangs) {
        char byte;
        (void)!recv(fd, &byte, 1, 0); /* until the client has gone */
    }
    if (f->resets) {
        const struct linger now = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(fd);
    return NULL;
}

static void fake_open(struct fake *f) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    f->listen_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&address, n), 0);
    assert_int_equal(listen(f->listen_fd, 4), 0);
    assert_int_equal(getsockname(f->listen_fd, (struct sockaddr *)&address, &n), 0);
    f->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&f->thread, NULL, serve_once, f), 0);
}

static void fake_close(struct fake *f) {
    shutdown(f->listen_fd, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->listen_fd);
}

static struct classifier *open_at(int port, const char *key) {
    char url[64];
    struct classifier *c = NULL;
    struct error err = {0};
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    const struct classifier_options options = {
        .url = url, .api_key = key, .positive = POSITIVE, .wake_fd = -1};
    assert_int_equal(classifier_open(&options, &c, &err), STATUS_OK);
    return c;
}

static void ask_fake(struct fake *f, int64_t timeout_ns,
                     struct classifier_answer *out) {
    const struct view texts[] = {{MARK " Z\xC3\xA9 rash", 19}};
    fake_open(f);
    struct classifier *c = open_at(f->port, "secret-key-1");
    arena_clear(&arena);
    classifier_ask(c, texts, 1, timeout_ns, &arena, out);
    classifier_close(c);
    fake_close(f);
    assert_null(strstr(out->reason, MARK));
    assert_null(strstr(out->error.message, MARK));
    assert_null(strstr(out->error.message, "secret-key"));
}

#define HEAD(code, more) "HTTP/1.1 " code " X\r\n" more "Connection: close\r\n\r\n"
#define TYPE "Content-Type: application/json\r\n"

static void each_answer_has_its_meaning(void **state) {
    (void)state;
    static const struct {
        const char *head, *body;
        enum classifier_kind kind;
        int64_t retry_after_s;
        const char *reason;
    } cases[] = {
        {HEAD("200", TYPE), ANSWER(RESULT("0")), CLASSIFIER_OK, -1, ""},
        {HEAD("200", TYPE), "{\"a\":1", CLASSIFIER_FAILED, -1,
         "server: 200 that is no answer"},
        {HEAD("200", TYPE), ANSWER(""), CLASSIFIER_FAILED, -1,
         "server: 200 that is no answer"},
        {HEAD("400", TYPE), "{\"error\":\"" MARK "\",\"error_type\":\"malformed\"}",
         CLASSIFIER_REFUSED, -1, "server: 400 malformed"},
        {HEAD("413", TYPE), "{\"error\":\"x\",\"error_type\":\"too_large\"}",
         CLASSIFIER_REFUSED, -1, "server: 413 too_large"},
        {HEAD("422", TYPE), "{\"error\":\"x\",\"error_type\":\"" MARK "\"}",
         CLASSIFIER_REFUSED, -1, "server: 422"},
        {HEAD("422", TYPE), "not JSON", CLASSIFIER_REFUSED, -1, "server: 422"},
        {HEAD("401", TYPE), "", CLASSIFIER_DENIED, -1, "server: 401"},
        {HEAD("403", ""), "", CLASSIFIER_DENIED, -1, "server: 403"},
        {HEAD("404", ""), "", CLASSIFIER_UNWELL, -1, "server: 404"},
        {HEAD("301", "Location: http://127.0.0.1:1/\r\n"), "", CLASSIFIER_UNWELL, -1,
         "server: 301"},
        {HEAD("429", "Retry-After: 7\r\n"),
         "{\"error\":\"x\",\"error_type\":\"overloaded\"}", CLASSIFIER_BUSY, 7,
         "server: 429 overloaded"},
        {HEAD("500", ""), "", CLASSIFIER_FAILED, -1, "server: 500"},
        {HEAD("502", ""), "", CLASSIFIER_UNWELL, -1, "server: 502"},
        {HEAD("503", "Retry-After: 3\r\n"),
         "{\"error\":\"x\",\"error_type\":\"not_ready\"}", CLASSIFIER_UNWELL, 3,
         "server: 503 not_ready"},
        {HEAD("503", TYPE), "{\"error\":\"x\",\"error_type\":\"timeout\"}",
         CLASSIFIER_LATE, -1, "server: 503 timeout"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", ANSWER(RESULT("0")),
         CLASSIFIER_BROKEN, -1, "server: broken"},
        {NULL, NULL, CLASSIFIER_BROKEN, -1, "server: broken"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake f = {.head = cases[i].head, .body = cases[i].body};
        struct classifier_answer a;
        ask_fake(&f, 10 * CLOCK_NS_PER_SECOND, &a);
        if (a.kind != cases[i].kind)
            print_error("case %zu: %s\n", i, a.error.message);
        assert_int_equal(a.kind, cases[i].kind);
        assert_string_equal(a.reason, cases[i].reason);
        assert_int_equal(a.retry_after_ns,
                         cases[i].retry_after_s < 0
                             ? -1
                             : cases[i].retry_after_s * CLOCK_NS_PER_SECOND);
    }
}

static void a_request_is_what_the_server_wants(void **state) {
    (void)state;
    struct fake f = {.head = HEAD("200", TYPE), .body = ANSWER(RESULT("0"))};
    struct classifier_answer a;
    ask_fake(&f, 10 * CLOCK_NS_PER_SECOND, &a);
    assert_int_equal(strncmp(f.request, "POST /v1/classify HTTP/1.1\r\n", 28), 0);
    assert_non_null(strstr(f.request, "\r\nAuthorization: Bearer secret-key-1\r\n"));
    assert_non_null(strstr(f.request, "\r\nContent-Type: application/json\r\n"));
    assert_null(strcasestr(f.request, "\r\nExpect:"));
    assert_null(strcasestr(f.request, "\r\nTransfer-Encoding:"));
    assert_string_equal(strstr(f.request, "\r\n\r\n") + 4,
                        "{\"inputs\":[{\"id\":0,\"text\":\"" MARK
                        " Z\xC3\xA9 rash\"}],\"entities\":true}");
}

static void a_server_that_hangs_drips_or_breaks(void **state) {
    (void)state;
    const int64_t soon = CLOCK_NS_PER_SECOND / 5;
    struct classifier_answer a;
    struct fake hangs = {.hangs = true};
    ask_fake(&hangs, soon, &a);
    assert_int_equal(a.kind, CLASSIFIER_LATE);
    struct fake half = {
        .head = HEAD("200", TYPE), .body = "{\"model\":", .hangs = true};
    ask_fake(&half, soon, &a);
    assert_int_equal(a.kind, CLASSIFIER_LATE);
    struct fake drips = {
        .head = HEAD("200", TYPE), .body = ANSWER(RESULT("0")), .gap_ns = 20000000};
    ask_fake(&drips, soon, &a);
    assert_int_equal(a.kind, CLASSIFIER_LATE);
    struct fake resets = {.head = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                          .body = "{\"model\"",
                          .resets = true};
    ask_fake(&resets, 10 * CLOCK_NS_PER_SECOND, &a);
    assert_int_equal(a.kind, CLASSIFIER_BROKEN);
    struct fake huge = {.head = HEAD("200", TYPE), .n_junk = (size_t)20 << 20};
    ask_fake(&huge, 30 * CLOCK_NS_PER_SECOND, &a);
    assert_int_equal(a.kind, CLASSIFIER_FAILED);
    assert_string_equal(a.reason, "server: the answer is too large");
}

static void nobody_there_is_unreachable(void **state) {
    (void)state;
    struct fake f = {.hangs = false};
    struct classifier_answer a;
    struct classifier_info info;
    const struct view text = VIEW("x");
    fake_open(&f);
    fake_close(&f); /* the port is free again */
    struct classifier *c = open_at(f.port, NULL);
    classifier_ask(c, &text, 1, CLOCK_NS_PER_SECOND, &arena, &a);
    assert_int_equal(a.kind, CLASSIFIER_UNREACHABLE);
    classifier_ask_info(c, CLOCK_NS_PER_SECOND, &info, &a);
    assert_int_equal(a.kind, CLASSIFIER_UNREACHABLE);
    classifier_close(c);
}

/* The cost of a text is never less than what it takes in a request. */
static void costs_cover_the_request(void **state) {
    (void)state;
    uint64_t x = 1;
    for (int round = 0; round < 2000; round++) {
        char text[64];
        size_t n = (size_t)(round % 64);
        for (size_t i = 0; i < n; i++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407U;
            text[i] = (char)((x >> 33) % 128);
        }
        struct buffer b = {.max_bytes = 4096};
        assert_int_equal(buffer_printf(&b, NULL, "{\"id\":511,\"text\":,}"), STATUS_OK);
        assert_int_equal(json_append_string(&b, text, n, NULL), STATUS_OK);
        assert_true(classifier_text_cost(view_of(text, n)) >= b.n_bytes);
        buffer_free(&b);
    }
}

static int tear_down(void **state) {
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_answer_is_read_whole),
        cmocka_unit_test(whatever_is_not_an_answer_is_refused),
        cmocka_unit_test(entities_lie_within_their_text),
        cmocka_unit_test(every_cut_of_an_answer_is_refused),
        cmocka_unit_test(info_tells_model_and_limits),
        cmocka_unit_test(each_answer_has_its_meaning),
        cmocka_unit_test(a_request_is_what_the_server_wants),
        cmocka_unit_test(a_server_that_hangs_drips_or_breaks),
        cmocka_unit_test(nobody_there_is_unreachable),
        cmocka_unit_test(costs_cover_the_request),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
