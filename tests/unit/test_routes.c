/* SPDX-License-Identifier: Apache-2.0
 *
 * test_routes.c - every path with every method.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "server/routes.h"

static void expect(const char *method, const char *path, enum route expected) {
    struct fault f = {0};
    const char *allow = NULL;
    assert_int_equal(route_find(method, path, &f, &allow), expected);
    assert_int_equal(f.kind == FAULT_NONE, expected != ROUTE_NONE);
}

static void test_found(void **state) {
    (void)state;
    expect("POST", "/v1/classify", ROUTE_CLASSIFY);
    expect("POST", "/invocations", ROUTE_INVOCATIONS);
    expect("POST", "/endpoints/ade/invocations", ROUTE_INVOCATIONS);
    expect("POST", "/endpoints/My-Endpoint-2/invocations", ROUTE_INVOCATIONS);
    expect("POST", "/", ROUTE_PIPELINE);
    expect("GET", "/", ROUTE_INDEX);
    expect("HEAD", "/", ROUTE_INDEX);
    expect("GET", "/metrics", ROUTE_METRICS);
    expect("HEAD", "/ready", ROUTE_READY);
}

static void test_not_found(void **state) {
    (void)state;
    static const char *const PATHS[] = {"/v1/classify/",
                                        "/V1/classify",
                                        "//",
                                        "/%2f",
                                        "/v1/classify%00",
                                        "/endpoints//invocations",
                                        "/endpoints/-a/invocations",
                                        "/endpoints/a/b/invocations",
                                        "/endpoints/a/invocations/",
                                        "/endpoints/a",
                                        "*",
                                        "other",
                                        ""};
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
        struct fault f = {0};
        const char *allow = NULL;
        assert_int_equal(route_find("POST", PATHS[i], &f, &allow), ROUTE_NONE);
        assert_int_equal(f.kind, FAULT_NOT_FOUND);
    }
    char path[128];
    for (int n = 63; n <= 64; n++) {
        snprintf(path, sizeof path, "/endpoints/%.*s/invocations", n,
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        expect("POST", path, n == 63 ? ROUTE_INVOCATIONS : ROUTE_NONE);
    }
}

static void test_methods(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *allow;
    } WRONG[] = {{"GET", "/v1/classify", "POST"},
                 {"POST", "/metrics", "GET, HEAD"},
                 {"DELETE", "/", "GET, HEAD, POST"},
                 {"get", "/metrics", "GET, HEAD"},
                 {"PUT", "/endpoints/a/invocations", "POST"}};
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        struct fault f = {0};
        const char *allow = NULL;
        assert_int_equal(route_find(WRONG[i].method, WRONG[i].path, &f, &allow),
                         ROUTE_NONE);
        assert_int_equal(f.kind, FAULT_METHOD);
        assert_string_equal(allow, WRONG[i].allow);
    }
}

/* Without a key one may learn whether the server lives, and nothing else. */
static void test_open(void **state) {
    (void)state;
    for (int i = 0; i < ROUTE_NONE; i++)
        assert_int_equal(route_is_open((enum route)i),
                         i == ROUTE_PING || i == ROUTE_HEALTH || i == ROUTE_READY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
