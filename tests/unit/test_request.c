/* SPDX-License-Identifier: Apache-2.0
 *
 * test_request.c - what a request is answered when a device fails before, while or after it
 * is computed: never with 200.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <semaphore.h>
#include <string.h>

#include "base/clock.h"
#include "server/request.h"

#define MODEL "tests/data/models/binary-f32"

static const char BODY[] = "{\"inputs\":\"this drug gave me a rash\"}";
static const struct error WHY = {STATUS_DEVICE, "cuda:0: it is broken"};
static const struct service_options OPTIONS = {
    .limits = {.max_text_bytes = 1000,
               .max_inputs = 8,
               .json = {.max_bytes = 10000,
                        .max_depth = 8,
                        .max_values = 100,
                        .max_key_bytes = 100}},
    .max_memory_bytes = 1 << 24,
    .timeout_ns = 60 * CLOCK_NS_PER_SECOND,
    .batcher = {.max_jobs = 8}};

static sem_t done;

static void on_done(struct job *job) {
    (void)job;
    sem_post(&done);
}

static struct service *open_service(void) {
    const struct engine_options engine = {.device = "cpu", .n_threads = 1};
    struct service *s = NULL;
    sem_init(&done, 0, 0);
    assert_int_equal(service_open(&OPTIONS, &s, NULL), STATUS_OK);
    assert_int_equal(service_load(s, MODEL, &engine, NULL), STATUS_OK);
    return s;
}

static void close_service(struct service *s) {
    service_close(s);
    sem_destroy(&done);
}

static struct request *open_post(struct service *s, const char *path) {
    const struct request_head head = {.method = "POST",
                                      .path = path,
                                      .content_type = "application/json",
                                      .has_length = true,
                                      .content_length = sizeof BODY - 1};
    struct request *r = request_open(s, &head);
    assert_non_null(r);
    request_add_body(r, BODY, sizeof BODY - 1);
    return r;
}

static void expect(struct request *r, int code, const char *words) {
    assert_true(r->is_replied);
    assert_int_equal(r->code, code);
    assert_true(buffer_append(&r->reply, "", 1, NULL) == STATUS_OK);
    if (!strstr(r->reply.data, words))
        fail_msg("%s lacks %s", r->reply.data, words);
    request_close(r);
}

static void expect_get(struct service *s, const char *path, int code,
                       const char *words) {
    const struct request_head head = {.method = "GET", .path = path};
    struct request *r = request_open(s, &head);
    assert_false(request_start(r));
    expect(r, code, words);
}

static void test_well(void **state) {
    (void)state;
    struct service *s = open_service();
    struct request *r = open_post(s, "/v1/classify");
    assert_true(request_start(r));
    assert_true(request_submit(r, on_done));
    sem_wait(&done);
    request_finish(r);
    expect(r, 200, "\"probs\"");
    expect_get(s, "/ready", 200, "ready");
    expect_get(s, "/health", 200, "");
    close_service(s);
}

/* The answer is there, but not yet written. */
static void test_device_fails_behind_it(void **state) {
    (void)state;
    struct service *s = open_service();
    struct request *r = open_post(s, "/v1/classify");
    assert_true(request_start(r));
    assert_true(request_submit(r, on_done));
    sem_wait(&done);
    assert_int_equal(r->call.job.outcome, FAULT_NONE);
    batcher_die(service_batcher(s), &WHY);
    request_finish(r);
    expect(r, 503, "engine_failed");
    close_service(s);
}

/* It is read, but not yet queued. */
static void test_device_fails_before_it(void **state) {
    (void)state;
    struct service *s = open_service();
    struct request *r = open_post(s, "/predict");
    assert_true(request_start(r));
    batcher_die(service_batcher(s), &WHY);
    assert_false(request_submit(r, on_done));
    request_finish(r);
    expect(r, 503, "engine_failed");
    close_service(s);
}

/* What comes afterwards is told from its head on; what says how things stand says so. */
static void test_device_has_failed(void **state) {
    (void)state;
    static const char *const paths[] = {"/v1/classify", "/invocations", "/predict", "/",
                                        "/tokenize"};
    struct service *s = open_service();
    batcher_die(service_batcher(s), &WHY);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct request *r = open_post(s, paths[i]);
        assert_int_equal(r->fault.kind, FAULT_ENGINE);
        assert_false(request_start(r));
        expect(r, 503, "engine_failed");
    }
    expect_get(s, "/health", 503, "engine_failed");
    expect_get(s, "/ready", 503, "not_ready");
    expect_get(s, "/ping", 503, "not_ready");
    expect_get(s, "/info", 200, "\"ready\":false");
    expect_get(s, "/metrics", 200, "vigil_engine_up 0");
    close_service(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well),
        cmocka_unit_test(test_device_fails_behind_it),
        cmocka_unit_test(test_device_fails_before_it),
        cmocka_unit_test(test_device_has_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
