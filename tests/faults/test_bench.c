/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bench.c - every allocation of what vigil bench opens fails once, and once for ever:
 * no crash, no leak (LeakSanitizer, in the sanitizer build), and a status that says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/engine.h"
#include "bench/http_client.h"
#include "bench/load.h"
#include "bench/svg.h"
#include "bench/texts.h"
#include "model/random.h"
#include "tests/faults/faults.h"
#include "tests/unit/model_files.h"

#define MAX_ALLOCATIONS 2000 /* a scenario that needs more has run away */

static char *dir;
static char texts_path[512];
static struct texts texts;
static FILE *nowhere;
static int listener;
static char port[8];

static enum status run_read(struct error *err) {
    struct texts t;
    enum status status = texts_read(texts_path, 0, &t, err);
    if (!status)
        texts_free(&t);
    return status;
}

static enum status run_make_up(struct error *err) {
    struct texts t;
    enum status status = texts_make_up(100, &t, err);
    if (!status)
        texts_free(&t);
    return status;
}

static enum status run_requests(struct error *err) {
    const struct load_options options = {.url = "http://127.0.0.1:1/x",
                                         .route = ROUTE_TEI,
                                         .api_key = "key",
                                         .batch = 3};
    struct load_requests *r = NULL;
    enum status status = load_requests_make(&options, &texts, &r, err);
    load_requests_free(r);
    return status;
}

static enum status run_client(struct error *err) {
    const struct http_client_options options = {
        .host = "127.0.0.1", .port = port, .n_connections = 4, .timeout_ns = 1000000};
    struct http_client *c = NULL;
    enum status status = http_client_open(&options, &c, err);
    http_client_close(c);
    return status;
}

static enum status run_engine(struct error *err) {
    const struct engine_bench options = {
        .model_dir = dir, .engine = {.n_threads = 1}, .n_rounds = 1};
    return engine_bench(&options, &texts, nowhere, err);
}

static enum status run_svg(struct error *err) {
    const struct svg_point points[] = {{1, {1, 2, 3}}, {2, {2, 3, 40}}};
    const struct svg_chart chart = {.title = "t",
                                    .subtitle = "s",
                                    .x_title = "x",
                                    .y_title = "y",
                                    .names = {"a", "b", "c"},
                                    .points = points,
                                    .n_points = 2};
    struct buffer b = {.max_bytes = 1 << 20};
    enum status status = svg_draw(&chart, &b, err);
    buffer_free(&b);
    return status;
}

static size_t n_survived; /* a block that cannot be shrunk is good as it is */

/* The k-th allocation fails. False when the scenario ended before it. */
static bool try_one(enum status (*run)(struct error *err), size_t k, bool for_ever) {
    struct error err = {0};
    faults_arm(k, for_ever);
    enum status status = run(&err);
    size_t n_failed = faults_disarm();
    if (n_failed == 0) {
        assert_int_equal(status, STATUS_OK);
        return false;
    }
    if (status == STATUS_OK) {
        n_survived++;
        return true;
    }
    assert_int_equal(status, STATUS_NO_MEMORY);
    assert_true(strlen(err.message) > 0);
    return true;
}

static void fail_each(enum status (*run)(struct error *err), size_t max_survived) {
    size_t k = 1;
    n_survived = 0;
    while (try_one(run, k, false) && try_one(run, k, true))
        assert_true(++k < MAX_ALLOCATIONS);
    assert_true(k > 1);
    assert_in_range(n_survived, 0, max_survived);
}

static void fails_reading_texts(void **state) {
    (void)state;
    fail_each(run_read, 0);
}

static void fails_making_up_texts(void **state) {
    (void)state;
    fail_each(run_make_up, 0);
}

static void fails_requests(void **state) {
    (void)state;
    fail_each(run_requests, 0);
}

static void fails_client(void **state) {
    (void)state;
    fail_each(run_client, 0);
}

static void fails_engine(void **state) {
    (void)state;
    fail_each(run_engine, 3);
}

static void fails_svg(void **state) {
    (void)state;
    fail_each(run_svg, 0);
}

static int set_up(void **state) {
    (void)state;
    static const struct random_options small = {.dim = 12,
                                                .n_layers = 1,
                                                .n_heads = 3,
                                                .max_positions = 16,
                                                .n_labels = 2,
                                                .hidden_dim = 20,
                                                .vocab_size = 200,
                                                .seed = 7};
    static const char lines[] =
        "{\"text\":\"a rash\"}\n{\"text\":\"plain words\"}\n{\"text\":\"x\"}\n";
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    dir = scratch_make();
    snprintf(texts_path, sizeof texts_path, "%s/texts", dir);
    scratch_write(texts_path, lines, sizeof lines - 1);
    nowhere = fopen("/dev/null", "w");
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (!nowhere || bind(listener, (struct sockaddr *)&address, n) ||
        listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &n))
        return -1;
    snprintf(port, sizeof port, "%u", ntohs(address.sin_port));
    if (random_model_write(dir, &small, NULL) ||
        texts_read(texts_path, 0, &texts, NULL))
        return -1;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    texts_free(&texts);
    fclose(nowhere);
    close(listener);
    scratch_remove(dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_reading_texts), cmocka_unit_test(fails_making_up_texts),
        cmocka_unit_test(fails_requests),      cmocka_unit_test(fails_client),
        cmocka_unit_test(fails_engine),        cmocka_unit_test(fails_svg),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
