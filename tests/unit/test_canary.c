/* SPDX-License-Identifier: Apache-2.0
 *
 * test_canary.c - an engine that computes wrongly is told from one that does not: when it is
 * loaded, and while it serves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "model/random.h"
#include "server/canary.h"
#include "server/watch.h"
#include "tests/unit/model_files.h"

#define SERVED "tests/data/models/binary-f32"

/* The CPU's answers under a device's name, changed a little. */
struct fake {
    struct engine engine, *cpu;
    float logit_off, tag_off; /* of the first of each */
    enum status failure;
};

static enum status fake_run(struct engine *e, const struct batch *batch, float *logits,
                            float *tags, struct error *err) {
    struct fake *fake = (struct fake *)e;
    if (fake->failure != STATUS_OK)
        return error_set(err, fake->failure, "broken");
    enum status status = engine_run(fake->cpu, batch, logits, tags, err);
    logits[0] += fake->logit_off;
    if (tags)
        tags[2] += fake->tag_off;
    return status;
}

static void fake_close(struct engine *e) {
    (void)e;
}

static const struct engine_ops OPS = {.run = fake_run, .close = fake_close};

struct world {
    char *dir;
    struct checkpoint *c;
    struct tokenizer *tokenizer;
    struct fake fakes[2];
    struct engine *engines[2];
};

static void open_world(struct world *w, const char *device, int64_t seed) {
    const struct random_options small = {.dim = 12,
                                         .n_layers = 1,
                                         .n_heads = 3,
                                         .max_positions = 16,
                                         .n_labels = 2,
                                         .n_tags = 3,
                                         .hidden_dim = 20,
                                         .vocab_size = 200,
                                         .seed = seed};
    const struct engine_options options = {.device = "cpu", .n_threads = 1};
    memset(w, 0, sizeof *w);
    w->dir = scratch_make();
    assert_int_equal(random_model_write(w->dir, &small, NULL), STATUS_OK);
    assert_int_equal(checkpoint_open(w->dir, &w->c, NULL), STATUS_OK);
    assert_int_equal(tokenizer_open(w->dir, &w->tokenizer, NULL), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(engine_open(&options, w->c, &w->fakes[i].cpu, NULL),
                         STATUS_OK);
        w->fakes[i].engine.ops = &OPS;
        w->fakes[i].engine.info = w->fakes[i].cpu->info;
        w->fakes[i].engine.info.device = device;
        w->engines[i] = &w->fakes[i].engine;
    }
}

static void close_world(struct world *w) {
    for (int i = 0; i < 2; i++)
        engine_close(w->fakes[i].cpu);
    tokenizer_close(w->tokenizer);
    checkpoint_close(w->c);
    scratch_remove(w->dir);
}

static enum status load(struct world *w, struct error *err) {
    struct canary *canary = NULL;
    enum status status = canary_open(w->tokenizer, w->c, w->engines, 2, &canary, err);
    assert_int_equal(status == STATUS_OK, canary != NULL);
    canary_close(canary);
    return status;
}

/* What a device says at load is held against the CPU, on each engine. */
static void test_load(void **state) {
    (void)state;
    struct world w;
    struct error err = {0};
    open_world(&w, "cuda:3", 7);
    assert_true(w.c->config.n_tag_labels > 0 && w.c->config.n_labels > 1);
    for (int i = 0; i < 2; i++) {
        struct fake *fake = &w.fakes[i];
        assert_int_equal(load(&w, &err), STATUS_OK);
        fake->logit_off = 0.03F;
        fake->tag_off = -0.03F;
        assert_int_equal(load(&w, &err), STATUS_OK);
        fake->logit_off = 0.07F;
        assert_int_equal(load(&w, &err), STATUS_INTERNAL);
        assert_non_null(strstr(err.message, "cuda:3"));
        fake->logit_off = NAN;
        assert_int_equal(load(&w, &err), STATUS_INTERNAL);
        fake->logit_off = 0;
        fake->tag_off = 0.07F;
        assert_int_equal(load(&w, &err), STATUS_INTERNAL);
        fake->tag_off = -INFINITY;
        assert_int_equal(load(&w, &err), STATUS_INTERNAL);
        fake->tag_off = 0;
        fake->failure = STATUS_DEVICE;
        assert_int_equal(load(&w, &err), STATUS_DEVICE);
        fake->failure = STATUS_OK;
    }
    close_world(&w);
}

/* Within the tolerance a label may be another one only where two are nearly alike. */
static void test_labels(void **state) {
    (void)state;
    struct world w;
    open_world(&w, "cuda:0", 14); /* logits 0.019 and -0.013 */
    w.fakes[0].logit_off = -0.03F;
    assert_int_equal(load(&w, NULL), STATUS_OK);
    w.fakes[0].logit_off = -0.04F;
    assert_int_equal(load(&w, NULL), STATUS_INTERNAL);
    close_world(&w);
    open_world(&w, "cuda:0", 2); /* 0.004 and 0.017 */
    w.fakes[0].logit_off = 0.04F;
    assert_int_equal(load(&w, NULL), STATUS_OK);
    close_world(&w);
    open_world(&w, "cuda:0", 7); /* tags of the first token: -0.041, -0.030, -0.060 */
    w.fakes[0].tag_off = 0.04F;
    assert_int_equal(load(&w, NULL), STATUS_INTERNAL);
    close_world(&w);
}

/* An engine on the CPU is believed. */
static void test_cpu_is_believed(void **state) {
    (void)state;
    struct world w;
    open_world(&w, "cpu", 7);
    w.fakes[0].logit_off = 5;
    assert_int_equal(load(&w, NULL), STATUS_OK);
    close_world(&w);
}

/* Afterwards each engine is held against itself. */
static void test_check(void **state) {
    (void)state;
    struct world w;
    struct canary *canary = NULL;
    struct error err = {0};
    float values[512];
    open_world(&w, "cuda:0", 7);
    w.fakes[1].logit_off = 0.03F;
    assert_int_equal(canary_open(w.tokenizer, w.c, w.engines, 2, &canary, &err),
                     STATUS_OK);
    assert_true(canary->n_tokens > 2 && canary->n_values < 512);
    assert_int_equal(canary->n_values,
                     canary->n_labels + canary->n_tokens * canary->n_tag_labels);
    for (int32_t i = 0; i < 2; i++) {
        size_t last = canary->n_values - 1;
        memcpy(values, canary->answers + (size_t)i * canary->n_values,
               canary->n_values * sizeof *values);
        assert_int_equal(canary_check(canary, i, values, &err), STATUS_OK);
        assert_int_equal(canary_check(canary, 1 - i, values, &err), STATUS_DEVICE);
        values[last] += 5e-4F;
        assert_int_equal(canary_check(canary, i, values, &err), STATUS_OK);
        values[last] += 2e-3F;
        assert_int_equal(canary_check(canary, i, values, &err), STATUS_DEVICE);
        values[last] = NAN;
        assert_int_equal(canary_check(canary, i, values, &err), STATUS_DEVICE);
    }
    canary_close(canary);
    close_world(&w);
}

/* ---- while it serves ---- */

static const struct service_options SERVICE = {.timeout_ns = 60 * CLOCK_NS_PER_SECOND,
                                               .batcher = {.max_jobs = 1}};

static void wait_round(struct service *s) {
    while (batcher_state(service_batcher(s)).n_jobs > 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static double count(struct service *s, const char *series) {
    struct buffer page = {.max_bytes = 1 << 20};
    assert_int_equal(service_write_metrics(s, &page, NULL), STATUS_OK);
    const char *at = strstr(page.data, series);
    assert_non_null(at);
    double n = strtod(at + strlen(series), NULL);
    buffer_free(&page);
    return n;
}

static struct canary *canary_of(struct service *s) {
    struct served *served = service_acquire(s);
    struct canary *canary = served->bundle->canary;
    service_release(served);
    return canary;
}

static void test_watch(void **state) {
    (void)state;
    const struct engine_options engine = {.device = "cpu", .n_threads = 1};
    struct service *s = NULL;
    struct watch *w = NULL;
    struct error why = {0};
    int64_t second = CLOCK_NS_PER_SECOND, now = clock_now_ns();
    assert_int_equal(service_open(&SERVICE, &s, NULL), STATUS_OK);
    assert_int_equal(watch_open(s, 10 * second, &w, NULL), STATUS_OK);
    watch_tick(w, now); /* nothing is loaded yet */
    assert_int_equal(service_load(s, SERVED, &engine, NULL), STATUS_OK);
    for (int round = 0; round < 3; round++) {
        watch_tick(w, now);
        watch_tick(w, now + 9 * second);
        wait_round(s);
        assert_true(count(s, "vigil_canary_total{result=\"ok\"} ") == round);
        now += 10 * second;
        watch_tick(w, now);
        wait_round(s);
        assert_true(count(s, "vigil_canary_total{result=\"ok\"} ") == round + 1);
    }
    /* A model that took over is what is asked then. */
    assert_int_equal(service_load(s, SERVED, &engine, NULL), STATUS_OK);
    watch_tick(w, now);
    watch_tick(w, now += 10 * second);
    wait_round(s);
    assert_true(count(s, "vigil_canary_total{result=\"ok\"} ") == 4);
    assert_true(count(s, "vigil_batch_tokens_count ") == 0);
    assert_true(count(s, "vigil_queue_wait_seconds_count ") == 0);
    /* As if the engine said something else than at load. */
    assert_false(batcher_has_died(service_batcher(s), NULL));
    canary_of(s)->answers[0] += 0.01F;
    watch_tick(w, now);
    watch_tick(w, now += 10 * second);
    wait_round(s);
    assert_true(count(s, "vigil_canary_total{result=\"failed\"} ") == 1);
    assert_true(batcher_has_died(service_batcher(s), &why));
    assert_int_equal(why.status, STATUS_DEVICE);
    assert_ptr_equal(strstr(why.message, "cpu: "), why.message);
    assert_false(service_is_ready(s));
    watch_close(w);
    service_close(s);
}

static void test_never(void **state) {
    (void)state;
    const struct engine_options engine = {.device = "cpu", .n_threads = 1};
    struct service *s = NULL;
    struct watch *w = NULL;
    assert_int_equal(service_open(&SERVICE, &s, NULL), STATUS_OK);
    assert_int_equal(watch_open(s, 0, &w, NULL), STATUS_OK);
    assert_int_equal(service_load(s, SERVED, &engine, NULL), STATUS_OK);
    for (int64_t i = 0; i < 10; i++)
        watch_tick(w, i * CLOCK_NS_PER_SECOND);
    wait_round(s);
    assert_true(count(s, "vigil_canary_total{result=\"ok\"} ") == 0);
    watch_close(w);
    service_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_cpu_is_believed),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
