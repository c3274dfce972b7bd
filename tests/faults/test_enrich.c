/* SPDX-License-Identifier: Apache-2.0
 *
 * test_enrich.c - each allocation of a worker's run fails once: it goes on, or ends and says
 * so, and in the end every post has its one result.
 */
#include <stdatomic.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/worker/worker.h"
#include "tests/faults/faults.h"
#include "tests/unit/store_fixture.h"

#define SHA "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define RESULT                                                                         \
    "{\"id\":%zu,\"label\":\"Not_AE\",\"probs\":{\"Not_AE\":0.25,\"Adverse_Event\":"   \
    "0.75},\"tokens\":9,\"windows\":1,\"truncated\":false,\"entities\":[{\"type\":"    \
    "\"DRUG\",\"text\":\"post\",\"begin\":0,\"end\":4,\"score\":0.5}]}"
/* All of the first, then some: most of those are jansson's, one like the other. */
enum { POSTS = 6, MOST = 2000, ALL = 100, STEP = 7 };

/* The server's side of it allocates where no fault is counted. */
static void ask(void *context, const struct view *texts, size_t n, int64_t timeout_ns,
                struct arena *arena, struct classifier_answer *out) {
    static char body[1 << 16];
    size_t at;
    (void)context, (void)timeout_ns;
    at = (size_t)snprintf(body, sizeof body,
                          "{\"model\":{\"name\":\"ade\",\"sha256\":\"" SHA
                          "\",\"dtype\":\"int8\"},\"results\":[");
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(body + at, sizeof body - at, i ? "," RESULT : RESULT, i);
    snprintf(body + at, sizeof body - at, "]}");
    *out = (struct classifier_answer){.retry_after_ns = -1};
    snprintf(out->reason, sizeof out->reason, "made up");
    if (classifier_read(body, strlen(body), "Adverse_Event", true, texts, n, arena, out,
                        &out->error) != STATUS_OK)
        out->kind = CLASSIFIER_STOPPED;
}

static enum status run(const char *url, struct error *err) {
    const struct work_options how = {
        .store_url = url, .worker = "me:1", .model = "", .lease_ns = SECOND_NS / 5};
    const struct worker_caller caller = {.ask = ask};
    static struct enrich_metrics metrics;
    struct worker_summary summary;
    struct work *work = NULL;
    enrich_metrics_init(&metrics);
    enum status status = work_open(&how, &work, NULL, err);
    if (status != STATUS_OK)
        return status;
    struct worker_options options = {.work = work,
                                     .callers = &caller,
                                     .n_callers = 1,
                                     .batch = 3,
                                     .batch_bytes = 1 << 16,
                                     .timeout_ns = SECOND_NS,
                                     .lease_ns = SECOND_NS / 5,
                                     .rules = {"Adverse_Event", 0.6, 0.4},
                                     .is_once = true,
                                     .stop_fd = -1,
                                     .seed = 1,
                                     .metrics = &metrics};
    status = worker_run(&options, &summary, err);
    work_close(work);
    return status;
}

static void every_allocation_may_fail(void **state) {
    struct fixture *f = *state;
    size_t k = 1, n_failed = 1, n_ended = 0;
    for (; n_failed > 0 && k < MOST; k += k < ALL ? 1 : STEP) {
        struct error err = {0};
        fixture_run(f->store,
                    "DELETE FROM results; DELETE FROM posts; DELETE FROM queue");
        for (int i = 0; i < POSTS; i++) {
            char key[16];
            snprintf(key, sizeof key, "file:%d", i);
            struct store_item item = an_item(key, 1, "post");
            item.mode = STORE_FULL;
            take_one(f, item);
        }
        faults_arm(k, false);
        enum status status = run(f->at.url, &err);
        n_failed = faults_disarm();
        if (status != STATUS_OK) {
            n_ended++;
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_true(err.message[0] != '\0');
            assert_ok(run(f->at.url, &error)); /* what it had is free again */
        }
        assert_int_equal(number(f, "SELECT count(*) FROM results"), POSTS);
        assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
        assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 0);
    }
    assert_true(k > 20 && k < MOST);
    print_message("          up to %zu allocations, %zu ended the run\n", k, n_ended);
}

int main(void) {
    static const struct fixture_case cases[] = {SQLITE_CASE(every_allocation_may_fail)};
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    return fixture_main(cases, 1);
}
