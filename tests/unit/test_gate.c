/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gate.c - requests as they are on the wire, whole and in pieces: which pass, which do
 * not, and how much of what came before is passed on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/gate.h"

#define POST "POST /v1/classify HTTP/1.1\r\nHost: a\r\n"
#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

/* Feeds the text in pieces of n bytes; how much was passed on in all. */
static size_t feed(struct gate *g, const char *text, size_t n_bytes, size_t n) {
    size_t passed = 0;
    memset(g, 0, sizeof *g);
    for (size_t at = 0; at < n_bytes && g->fault == FAULT_NONE; at += n) {
        size_t piece = n_bytes - at < n ? n_bytes - at : n;
        size_t n_good = gate_feed(g, text + at, piece);
        assert_true(n_good <= piece);
        assert_true(g->fault != FAULT_NONE || n_good == piece);
        passed += n_good;
    }
    return passed;
}

static void expect(const char *text, size_t n_bytes, enum fault_kind fault,
                   uint32_t n_messages) {
    struct gate g;
    for (size_t n = 1; n <= n_bytes; n = n < 40 ? n + 1 : 2 * n) {
        feed(&g, text, n_bytes, n);
        assert_int_equal(g.fault, fault);
        assert_int_equal(g.n_messages, n_messages);
    }
    feed(&g, text, n_bytes, n_bytes);
    assert_int_equal(g.fault, fault);
    assert_true((g.why != NULL) == (fault != FAULT_NONE));
}

#define GOOD(text, n) expect(text, sizeof text - 1, FAULT_NONE, n)
#define BAD(text, fault, n) expect(text, sizeof text - 1, fault, n)

static void test_good(void **state) {
    (void)state;
    GOOD(GET, 1);
    GOOD(GET GET GET, 3);
    GOOD("\r\n" GET, 1);
    GOOD("GET / HTTP/1.0\r\n\r\n", 1);
    GOOD(POST "Content-Length: 3\r\n\r\nabc" GET, 2);
    GOOD(POST "content-length:3\r\n\r\na\r\n" GET, 2);
    GOOD(POST "Content-Length: 0\r\n\r\n" GET, 2);
    GOOD(POST "X:\r\nY: \t a b\tc \x80\xFF\r\n\r\n", 1);
    GOOD("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 1);
    /* A body that looks like a request is a body. */
    GOOD(POST "Content-Length: 30\r\n\r\n" GET "12", 1);
}

static void test_smuggling(void **state) {
    (void)state;
    BAD(POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        FAULT_MALFORMED, 0);
    BAD(POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", FAULT_LENGTH_REQUIRED, 0);
    BAD(POST "Transfer-Encoding: x\r\nTransfer-Encoding: y\r\n\r\n", FAULT_MALFORMED,
        0);
    BAD(POST "Content-Length : 3\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST " Content-Length: 3\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: 3, 3\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: +3\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: -3\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: 0x3\r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: \r\n\r\nabc", FAULT_MALFORMED, 0);
    /* Legal, but the library has an answer of its own for it. */
    BAD(POST "Content-Length: 3 \r\n\r\nabc", FAULT_MALFORMED, 0);
    BAD(POST "Content-Length: 99999999999999999999\r\n\r\n", FAULT_TOO_LARGE, 0);
    BAD(POST "X: a\r\n b\r\n\r\n", FAULT_MALFORMED, 0);
    BAD(POST "X: a\nY: b\r\n\r\n", FAULT_MALFORMED, 0);
    BAD(POST "X: a\rb\r\n\r\n", FAULT_MALFORMED, 0);
    BAD(POST "X: a\0b\r\n\r\n", FAULT_MALFORMED, 0);
    BAD(POST "X\0: a\r\n\r\n", FAULT_MALFORMED, 0);
    BAD(POST ": a\r\n\r\n", FAULT_MALFORMED, 0);
    BAD(POST "no colon\r\n\r\n", FAULT_MALFORMED, 0);
    BAD(POST "\n", FAULT_MALFORMED, 0);
}

static void test_lines(void **state) {
    (void)state;
    BAD("GET / HTTP/1.1\nHost: a\n\n", FAULT_MALFORMED, 0);
    BAD("GET / HTTP/1.1\r\n\r\n", FAULT_MALFORMED, 0);
    BAD("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", FAULT_MALFORMED, 0);
    BAD("GET / HTTP/1.1\r\nHost:\r\n\r\n", FAULT_MALFORMED, 0);
    BAD("GET / HTTP/2.0\r\n", FAULT_MALFORMED, 0);
    BAD("GET / HTTP/1.2\r\n", FAULT_MALFORMED, 0);
    BAD("GET  / HTTP/1.1\r\n", FAULT_MALFORMED, 0);
    BAD("GET /a b HTTP/1.1\r\n", FAULT_MALFORMED, 0);
    BAD("GET http://a/ HTTP/1.1\r\n", FAULT_MALFORMED, 0);
    BAD("GET /\x80 HTTP/1.1\r\n", FAULT_MALFORMED, 0);
    BAD("\r\n\r\n" GET, FAULT_MALFORMED, 0);
    BAD("\x16\x03\x01", FAULT_MALFORMED, 0);
    BAD("VERYLONGMETHODTHATNOBODYKNOWS / HTTP/1.1\r\n", FAULT_MALFORMED, 0);
}

/* n bytes of filling between two texts. */
static void expect_filled(const char *before, size_t n, const char *after,
                          enum fault_kind fault) {
    static char text[20000];
    size_t n_before = strlen(before), n_after = strlen(after);
    assert_true(n_before + n + n_after < sizeof text);
    memcpy(text, before, n_before);
    memset(text + n_before, 'a', n);
    memcpy(text + n_before + n, after, n_after);
    struct gate g;
    feed(&g, text, n_before + n + n_after, 1000);
    assert_int_equal(g.fault, fault);
}

static void test_limits(void **state) {
    (void)state;
    const char *rest = " HTTP/1.1\r\nHost: a\r\n\r\n";
    expect_filled("GET /", GATE_MAX_TARGET_BYTES - 1, rest, FAULT_NONE);
    expect_filled("GET /", GATE_MAX_TARGET_BYTES, rest, FAULT_URI_TOO_LONG);
    size_t n_rest = strlen(POST "X: \r\n\r\n");
    expect_filled(POST "X: ", GATE_MAX_HEAD_BYTES - n_rest, "\r\n\r\n", FAULT_NONE);
    expect_filled(POST "X: ", GATE_MAX_HEAD_BYTES - n_rest + 1, "\r\n\r\n",
                  FAULT_HEADERS_TOO_LARGE);
    static const char line[] = "X: a\r\n";
    char many[4096] = POST;
    size_t n = strlen(many);
    struct gate g;
    for (int i = 0; i < GATE_MAX_HEADERS; i++) {
        memcpy(many + n, line, sizeof line);
        n += sizeof line - 1;
    }
    memcpy(many + n - strlen(line), "\r\n", 3); /* with Host, as many as there may be */
    feed(&g, many, strlen(many), 7);
    assert_int_equal(g.fault, FAULT_NONE);
    memcpy(many + n - strlen(line), line, sizeof line);
    memcpy(many + n, "\r\n", 3);
    feed(&g, many, strlen(many), 7);
    assert_int_equal(g.fault, FAULT_HEADERS_TOO_LARGE);
}

/* The requests before a bad one are passed on whole, and nothing of it. */
static void test_boundary(void **state) {
    (void)state;
    struct gate g;
    const char text[] = GET POST "Content-Length: 2\r\n\r\nab" POST "bad\r\n\r\n" GET;
    size_t n_good = strlen(GET POST "Content-Length: 2\r\n\r\nab");
    assert_int_equal(feed(&g, text, sizeof text - 1, sizeof text), n_good);
    assert_int_equal(g.n_messages, 2);
    assert_int_equal(gate_feed(&g, GET, strlen(GET)), 0);
}

static void test_progress(void **state) {
    (void)state;
    struct gate g = {0};
    assert_false(gate_is_in_head(&g) || gate_is_in_body(&g));
    gate_feed(&g, "P", 1);
    assert_true(gate_is_in_head(&g));
    gate_feed(&g, POST "Content-Length: 3\r\n\r\na" + 1,
              strlen(POST "Content-Length: 3\r\n\r\na") - 1);
    assert_true(gate_is_in_body(&g) && !gate_is_in_head(&g));
    gate_feed(&g, "bc", 2);
    assert_false(gate_is_in_head(&g) || gate_is_in_body(&g));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),     cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_lines),    cmocka_unit_test(test_limits),
        cmocka_unit_test(test_boundary), cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
