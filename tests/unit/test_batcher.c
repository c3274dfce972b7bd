/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batcher.c - the queue in front of engines that the test opens and shuts like a gate:
 * one or two of them, that compute when they are called or work by themselves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/batcher.h"

#define MAX_TOKENS 64
#define MAX_SEQUENCES 16
#define FAR_AWAY INT64_MAX

/* Answers a sequence with the sum of its ids and its length, a token with its id. It has no
 * lock: that only one thread is in it at a time is for TSan to see. */
struct fake {
    struct engine engine;
    float base; /* added to each answer, to tell engines apart */
    bool is_gated;
    sem_t gate, arrived; /* a batch waits at the gate, having said that it is there */
    atomic_int n_batches, n_submitted, most_tokens, most_sequences;
    atomic_int failure, submit_failure; /* enum status */
    atomic_bool is_misused, is_closed;
    bool last_wants_tags;
    /* A device's: what was submitted, and the sum of its ids then. */
    const struct batch *pending[ENGINE_MAX_IN_FLIGHT];
    int64_t sums[ENGINE_MAX_IN_FLIGHT];
    int n_pending;
};

static void raise_to(atomic_int *most, int n) {
    if (n > atomic_load(most))
        atomic_store(most, n);
}

static void compute(struct fake *fake, const struct batch *batch, float *logits,
                    float *tags) {
    atomic_fetch_add(&fake->n_batches, 1);
    raise_to(&fake->most_tokens, batch_n_tokens(batch));
    raise_to(&fake->most_sequences, batch->n_sequences);
    fake->last_wants_tags = batch->wants_tags;
    for (int32_t b = 0; b < batch->n_sequences; b++) {
        float sum = fake->base;
        for (int32_t i = batch->offsets[b]; i < batch->offsets[b + 1]; i++) {
            sum += (float)batch->ids[i];
            if (batch->wants_tags)
                tags[i] = (float)batch->ids[i];
        }
        logits[2 * b] = sum;
        logits[2 * b + 1] = (float)(batch->offsets[b + 1] - batch->offsets[b]);
    }
}

static enum status fake_run(struct engine *e, const struct batch *batch, float *logits,
                            float *tags, struct error *err) {
    struct fake *fake = (struct fake *)e;
    if (atomic_load(&fake->is_closed))
        atomic_store(&fake->is_misused, true);
    if (fake->is_gated) {
        sem_post(&fake->arrived);
        sem_wait(&fake->gate);
    }
    compute(fake, batch, logits, tags);
    enum status status = (enum status)atomic_load(&fake->failure);
    return status == STATUS_OK ? STATUS_OK : error_set(err, status, "broken");
}

static int64_t sum_of(const struct batch *batch) {
    int64_t sum = batch->n_sequences;
    for (int32_t i = 0; i < batch_n_tokens(batch); i++)
        sum = 31 * sum + batch->ids[i];
    return sum;
}

static enum status fake_submit(struct engine *e, const struct batch *batch,
                               struct error *err) {
    struct fake *fake = (struct fake *)e;
    enum status status = (enum status)atomic_load(&fake->submit_failure);
    if (fake->n_pending == ENGINE_MAX_IN_FLIGHT || atomic_load(&fake->is_closed)) {
        atomic_store(&fake->is_misused, true);
        return STATUS_OK;
    }
    atomic_fetch_add(&fake->n_submitted, 1);
    if (status != STATUS_OK)
        return error_set(err, status, "broken");
    fake->sums[fake->n_pending] = sum_of(batch);
    fake->pending[fake->n_pending++] = batch;
    return STATUS_OK;
}

static enum status fake_wait(struct engine *e, float *logits, float *tags,
                             struct error *err) {
    struct fake *fake = (struct fake *)e;
    /* Nothing was submitted, or it was changed in the meantime. */
    if (fake->n_pending == 0 || sum_of(fake->pending[0]) != fake->sums[0]) {
        atomic_store(&fake->is_misused, true);
        return STATUS_OK;
    }
    const struct batch *batch = fake->pending[0];
    enum status status = fake_run(e, batch, logits, tags, err);
    if (sum_of(batch) != fake->sums[0])
        atomic_store(&fake->is_misused, true);
    fake->pending[0] = fake->pending[1];
    fake->sums[0] = fake->sums[1];
    fake->n_pending--;
    return status;
}

static void fake_close(struct engine *e) {
    (void)e;
}

static const struct engine_ops CPU_OPS = {.run = fake_run, .close = fake_close};
static const struct engine_ops DEVICE_OPS = {
    .run = fake_run, .submit = fake_submit, .wait = fake_wait, .close = fake_close};

#define N_BUNDLES 2
#define N_ENGINES 2

/* Two models, of which the first is used unless a test says otherwise. */
struct world {
    struct fake fakes[N_BUNDLES][N_ENGINES];
    struct bundle bundles[N_BUNDLES];
    struct metrics *metrics;
    struct batcher *batcher;
};

static void open_fake(struct fake *fake, int32_t n_in_flight, bool is_gated,
                      float base) {
    fake->engine.ops = n_in_flight > 1 ? &DEVICE_OPS : &CPU_OPS;
    fake->engine.info.max_tokens = MAX_TOKENS;
    fake->engine.info.max_sequences = MAX_SEQUENCES;
    fake->engine.info.n_in_flight = n_in_flight;
    fake->is_gated = is_gated;
    fake->base = base;
    sem_init(&fake->gate, 0, 0);
    sem_init(&fake->arrived, 0, 0);
}

/* options.n_workers engines for each model, each with that many batches in flight. */
static void open_engines(struct world *w, struct batcher_options options,
                         int32_t n_in_flight, bool is_gated) {
    memset(w, 0, sizeof *w);
    for (int32_t k = 0; k < N_BUNDLES; k++) {
        struct bundle *bundle = &w->bundles[k];
        for (int32_t i = 0; i < N_ENGINES; i++) {
            open_fake(&w->fakes[k][i], n_in_flight, is_gated, 10000.0F * (float)k);
            bundle->engines[i] = &w->fakes[k][i].engine;
        }
        bundle->engine = bundle->engines[0];
        bundle->n_engines = options.n_workers ? options.n_workers : 1;
        bundle->config.n_labels = 2;
        bundle->config.n_tag_labels = 1;
        bundle->config.max_positions = 32;
    }
    assert_int_equal(metrics_open(&w->metrics, NULL), STATUS_OK);
    options.metrics = w->metrics;
    if (!options.max_jobs)
        options.max_jobs = 1000;
    assert_int_equal(batcher_open(&options, &w->batcher, NULL), STATUS_OK);
}

/* One engine, that computes when it is called. */
static void open_world(struct world *w, struct batcher_options options, bool is_gated) {
    open_engines(w, options, 1, is_gated);
}

static void close_world(struct world *w) {
    batcher_close(w->batcher);
    metrics_close(w->metrics);
    for (int32_t k = 0; k < N_BUNDLES; k++)
        for (int32_t i = 0; i < N_ENGINES; i++) {
            struct fake *fake = &w->fakes[k][i];
            assert_false(atomic_load(&fake->is_misused));
            assert_true(atomic_load(&fake->most_tokens) <= MAX_TOKENS);
            assert_true(atomic_load(&fake->most_sequences) <= MAX_SEQUENCES);
            sem_destroy(&fake->gate);
            sem_destroy(&fake->arrived);
        }
}

/* A job of sequences with lengths 1, 2, ... up to longest, again and again. */
struct work {
    struct job job;
    sem_t done;
    atomic_int n_done;
    int order;       /* when it ended, among all */
    int n_submitted; /* by then, to the first engine */
    int32_t ids[4096];
    float logits[512][2], tags[4096];
    struct sequence sequences[512];
};

static atomic_int n_ended;

static void note_done(struct job *job) {
    struct work *work = (struct work *)job;
    const struct fake *fake = (const struct fake *)job->bundle->engine;
    work->order = atomic_fetch_add(&n_ended, 1);
    work->n_submitted = atomic_load(&fake->n_submitted);
    atomic_fetch_add(&work->n_done, 1);
    sem_post(&work->done);
}

static struct work *make_work(struct world *w, int32_t n, int32_t longest,
                              bool wants_tags) {
    struct work *work = calloc(1, sizeof *work);
    int32_t at = 0;
    assert_non_null(work);
    sem_init(&work->done, 0, 0);
    for (int32_t i = 0; i < n; i++) {
        struct sequence *s = &work->sequences[i];
        *s = (struct sequence){.ids = work->ids + at,
                               .n_tokens = 1 + i % longest,
                               .logits = work->logits[i],
                               .tags = wants_tags ? work->tags + at : NULL};
        for (int32_t k = 0; k < s->n_tokens; k++, at++)
            work->ids[at] = at % 97;
    }
    work->job = (struct job){.bundle = &w->bundles[0],
                             .sequences = work->sequences,
                             .n_sequences = n,
                             .n_tokens = at,
                             .wants_tags = wants_tags,
                             .deadline_ns = FAR_AWAY,
                             .on_done = note_done};
    return work;
}

static void check_answers(const struct work *work) {
    for (int32_t i = 0; i < work->job.n_sequences; i++) {
        const struct sequence *s = &work->sequences[i];
        float sum = ((const struct fake *)work->job.bundle->engine)->base;
        for (int32_t k = 0; k < s->n_tokens; k++) {
            sum += (float)s->ids[k];
            if (s->tags)
                assert_true(s->tags[k] == (float)s->ids[k]);
        }
        assert_true(s->logits[0] == sum);
        assert_true(s->logits[1] == (float)s->n_tokens);
    }
}

static void end_work(struct work *work, enum fault_kind expected) {
    sem_wait(&work->done);
    assert_int_equal(work->job.outcome, expected);
    if (expected == FAULT_NONE)
        check_answers(work);
    assert_int_equal(atomic_load(&work->n_done), 1);
    sem_destroy(&work->done);
    free(work);
}

static void let_engine(struct fake *fake, int n_batches) {
    for (int i = 0; i < n_batches; i++)
        sem_post(&fake->gate);
}

static void let(struct world *w, int n_batches) {
    let_engine(&w->fakes[0][0], n_batches);
}

static struct work *submit(struct world *w, struct work *work) {
    assert_true(batcher_submit(w->batcher, &work->job));
    return work;
}

static void refuse(struct world *w, struct work *work, enum fault_kind expected) {
    assert_false(batcher_submit(w->batcher, &work->job));
    assert_int_equal(work->job.outcome, expected);
    assert_int_equal(atomic_load(&work->n_done), 0);
    sem_destroy(&work->done);
    free(work);
}

/* A job is counted until its on_done has returned. */
static void wait_idle(struct world *w) {
    while (batcher_state(w->batcher).n_jobs > 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* A batch is in the engine, and stays there. */
static struct work *occupy(struct world *w) {
    struct work *work = make_work(w, 1, 1, false);
    assert_true(batcher_submit(w->batcher, &work->job));
    sem_wait(&w->fakes[0][0].arrived);
    return work;
}

/* ---- tests ---- */

static void test_one(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, false);
    struct work *work = make_work(&w, 40, 30, false);
    assert_true(batcher_submit(w.batcher, &work->job));
    end_work(work, FAULT_NONE);
    work = make_work(&w, 7, 5, true);
    assert_true(batcher_submit(w.batcher, &work->job));
    end_work(work, FAULT_NONE);
    assert_int_equal(batcher_state(w.batcher).n_tokens, 0);
    close_world(&w);
}

/* Whoever waits together is computed together, and tags only with tags. */
static void test_batching(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, true);
    struct work *first = occupy(&w), *plain[6], *tagged[3];
    for (int i = 0; i < 6; i++) {
        plain[i] = make_work(&w, 1, 1, false);
        assert_true(batcher_submit(w.batcher, &plain[i]->job));
        if (i % 2 == 0) {
            tagged[i / 2] = make_work(&w, 2, 2, true);
            assert_true(batcher_submit(w.batcher, &tagged[i / 2]->job));
        }
    }
    assert_int_equal(batcher_state(w.batcher).n_tokens, 6 + 3 * 3);
    let(&w, 3); /* the one that runs, the plain ones, the tagged ones */
    end_work(first, FAULT_NONE);
    for (int i = 0; i < 6; i++)
        end_work(plain[i], FAULT_NONE);
    for (int i = 0; i < 3; i++)
        end_work(tagged[i], FAULT_NONE);
    assert_int_equal(atomic_load(&w.fakes[0][0].n_batches), 3);
    assert_true(w.fakes[0][0].last_wants_tags);
    close_world(&w);
}

/* A long request delays a short one that comes later by one batch. */
static void test_fairness(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, true);
    struct work *first = occupy(&w);
    struct work *large = make_work(&w, 300, 1, false);
    struct work *small = make_work(&w, 1, 1, false);
    assert_true(batcher_submit(w.batcher, &large->job));
    assert_true(batcher_submit(w.batcher, &small->job));
    let(&w, 100);
    sem_wait(&small->done);
    sem_wait(&large->done);
    assert_true(small->order < large->order);
    sem_post(&small->done);
    sem_post(&large->done);
    end_work(first, FAULT_NONE);
    end_work(small, FAULT_NONE);
    end_work(large, FAULT_NONE);
    /* 1 + 300 / 16 and the rest: no batch went half empty for the small one. */
    assert_in_range(atomic_load(&w.fakes[0][0].n_batches), 19, 21);
    close_world(&w);
}

static void test_limits(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){.max_jobs = 3}, true);
    struct work *first = occupy(&w), *waiting[3], *refused = make_work(&w, 1, 1, false);
    for (int i = 0; i < 3; i++) {
        assert_false(batcher_is_full(w.batcher));
        waiting[i] = make_work(&w, 1, 1, false);
        assert_true(batcher_submit(w.batcher, &waiting[i]->job));
    }
    assert_true(batcher_is_full(w.batcher));
    assert_false(batcher_submit(w.batcher, &refused->job));
    assert_int_equal(refused->job.outcome, FAULT_OVERLOADED);
    let(&w, 2);
    end_work(first, FAULT_NONE);
    for (int i = 0; i < 3; i++)
        end_work(waiting[i], FAULT_NONE);
    assert_true(batcher_submit(w.batcher, &refused->job));
    let(&w, 1);
    end_work(refused, FAULT_NONE);
    close_world(&w);
}

/* An engine that takes long for a token: what would wait longer than max_wait is refused. */
static void test_max_wait(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){.max_wait_ns = 1000}, true);
    struct work *first = occupy(&w);
    (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    let(&w, 1);
    end_work(first, FAULT_NONE);
    first = occupy(&w); /* nothing waits, so it is taken */
    struct work *second = make_work(&w, 1, 1, false);
    assert_true(batcher_submit(w.batcher, &second->job));
    assert_true(batcher_is_full(w.batcher));
    let(&w, 2);
    end_work(first, FAULT_NONE);
    end_work(second, FAULT_NONE);
    assert_false(batcher_is_full(w.batcher));
    close_world(&w);
}

/* How fast a device is when it is full was measured when it was loaded; small batches, which
 * take it as long, hardly change that, and full ones do. */
static void test_speed(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){0}, 2, true);
    w.bundles[0].tokens_per_second = 1e6;
    assert_true(batcher_state(w.batcher).tokens_per_second == 0);
    for (int i = 0; i < 5; i++) {
        struct work *small = occupy(&w);
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        let(&w, 1);
        end_work(small, FAULT_NONE);
    }
    wait_idle(&w);
    assert_true(batcher_state(w.batcher).tokens_per_second > 0.99e6);
    struct work *full = submit(&w, make_work(&w, MAX_SEQUENCES, 7, false));
    sem_wait(&w.fakes[0][0].arrived);
    (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    let(&w, 1);
    end_work(full, FAULT_NONE);
    assert_true(batcher_state(w.batcher).tokens_per_second < 0.95e6);
    close_world(&w);
}

static void test_deadline_and_cancel(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, true);
    struct work *first = occupy(&w);
    struct work *late = make_work(&w, 3, 2, false), *gone = make_work(&w, 3, 2, false);
    struct work *good = make_work(&w, 3, 2, false);
    late->job.deadline_ns = 5;
    assert_true(batcher_submit(w.batcher, &late->job));
    assert_true(batcher_submit(w.batcher, &gone->job));
    assert_true(batcher_submit(w.batcher, &good->job));
    batcher_expire(w.batcher, 4);
    assert_int_equal(atomic_load(&late->n_done), 0);
    batcher_expire(w.batcher, 5);
    end_work(late, FAULT_TIMEOUT);
    batcher_cancel(w.batcher, &gone->job, FAULT_CLIENT_GONE);
    end_work(gone, FAULT_CLIENT_GONE);
    /* What the engine has already is computed to its end. */
    batcher_cancel(w.batcher, &first->job, FAULT_CLIENT_GONE);
    assert_int_equal(atomic_load(&first->n_done), 0);
    let(&w, 2);
    end_work(first, FAULT_NONE);
    end_work(good, FAULT_NONE);
    close_world(&w);
}

/* A part of the job is in the engine while the rest waits: done once the part is back. */
static void test_cancel_in_part(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, true);
    struct work *large = make_work(&w, 100, 1, false);
    assert_true(batcher_submit(w.batcher, &large->job));
    sem_wait(&w.fakes[0][0].arrived);
    batcher_cancel(w.batcher, &large->job, FAULT_TIMEOUT);
    assert_int_equal(atomic_load(&large->n_done), 0);
    let(&w, 1);
    end_work(large, FAULT_TIMEOUT);
    assert_int_equal(atomic_load(&w.fakes[0][0].n_batches), 1);
    assert_int_equal(batcher_state(w.batcher).n_tokens, 0);
    close_world(&w);
}

static void test_engine_failure(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, false);
    struct work *work = make_work(&w, 40, 1, false);
    atomic_store(&w.fakes[0][0].failure, STATUS_INTERNAL);
    assert_true(batcher_submit(w.batcher, &work->job));
    end_work(work, FAULT_ENGINE);
    assert_true(batcher_state(w.batcher).has_failed);
    atomic_store(&w.fakes[0][0].failure, STATUS_OK);
    work = make_work(&w, 40, 1, false);
    assert_true(batcher_submit(w.batcher, &work->job));
    end_work(work, FAULT_NONE);
    assert_false(batcher_state(w.batcher).has_failed);
    close_world(&w);
}

static void test_stopping(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, true);
    struct work *first = occupy(&w), *waiting[5], *late = make_work(&w, 1, 1, false);
    for (int i = 0; i < 5; i++) {
        waiting[i] = make_work(&w, 4, 4, i & 1);
        assert_true(batcher_submit(w.batcher, &waiting[i]->job));
    }
    batcher_fail_all(w.batcher, FAULT_NOT_READY);
    for (int i = 0; i < 5; i++)
        end_work(waiting[i], FAULT_NOT_READY);
    refuse(&w, late, FAULT_NOT_READY);
    let(&w, 1);
    end_work(first, FAULT_NONE);
    close_world(&w);
}

/* ---- devices: batches ahead ---- */

/* A device has its next batch before the answers of the last are handed out, and one more
 * before it is waited for; never three. */
static void test_ahead(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){0}, 2, true);
    struct fake *fake = &w.fakes[0][0];
    struct work *first = occupy(&w);
    assert_int_equal(atomic_load(&fake->n_submitted), 1);
    struct work *large = submit(&w, make_work(&w, 5 * MAX_SEQUENCES, 1, false));
    let(&w, 1);
    sem_wait(&first->done);
    assert_int_equal(first->n_submitted, 2);
    sem_post(&first->done);
    end_work(first, FAULT_NONE);
    for (int i = 0; i < 5; i++) {
        sem_wait(&fake->arrived);
        assert_int_equal(atomic_load(&fake->n_submitted), i < 4 ? 3 + i : 6);
        let(&w, 1);
    }
    end_work(large, FAULT_NONE);
    assert_int_equal(atomic_load(&fake->n_batches), 6);
    close_world(&w);
}

/* What is in flight is computed to its end, what waits is dropped. */
static void test_cancel_in_flight(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){0}, 2, true);
    struct fake *fake = &w.fakes[0][0];
    struct work *large = make_work(&w, 10 * MAX_SEQUENCES, 1, false);
    large->job.deadline_ns = 5;
    struct work *first = occupy(&w);
    submit(&w, large);
    let(&w, 1);
    end_work(first, FAULT_NONE);
    sem_wait(&fake->arrived); /* two batches of it are in flight */
    batcher_expire(w.batcher, 5);
    assert_int_equal(batcher_state(w.batcher).n_tokens, 0);
    assert_int_equal(atomic_load(&large->n_done), 0);
    let(&w, 1);
    sem_wait(&fake->arrived);
    assert_int_equal(atomic_load(&large->n_done), 0);
    let(&w, 1);
    end_work(large, FAULT_TIMEOUT);
    assert_int_equal(atomic_load(&fake->n_batches), 3);
    wait_idle(&w);
    close_world(&w);
}

/* Batches of the old model and of the new one are in flight at once: each is waited for at
 * its own engine, and the old one is not touched after its last job is done. */
static void test_reload_in_flight(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){0}, 2, true);
    struct fake *old = &w.fakes[0][0], *new = &w.fakes[1][0];
    struct work *first = occupy(&w);
    struct work *before = submit(&w, make_work(&w, 3, 3, false));
    struct work *after[3];
    for (int i = 0; i < 3; i++) {
        after[i] = make_work(&w, 2 + i, 2, i == 1);
        after[i]->job.bundle = &w.bundles[1];
        submit(&w, after[i]);
    }
    let_engine(old, 1);
    end_work(first, FAULT_NONE);
    sem_wait(&old->arrived);
    assert_int_equal(atomic_load(&old->n_submitted), 2);
    assert_int_equal(atomic_load(&new->n_submitted), 1);
    let_engine(old, 1);
    end_work(before, FAULT_NONE);
    atomic_store(&old->is_closed, true);
    let_engine(new, 3);
    for (int i = 0; i < 3; i++)
        end_work(after[i], FAULT_NONE);
    assert_int_equal(atomic_load(&new->n_batches), 2);
    close_world(&w);
}

/* ---- two workers ---- */

/* Both engines hold a part of the job; it is done once, with the last of them. */
static void test_two_engines(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){.n_workers = 2}, 1, true);
    struct fake *a = &w.fakes[0][0], *b = &w.fakes[0][1];
    struct work *large = submit(&w, make_work(&w, 2 * MAX_SEQUENCES, 1, true));
    sem_wait(&a->arrived);
    sem_wait(&b->arrived);
    assert_int_equal(batcher_state(w.batcher).n_tokens, 0);
    let_engine(b, 1);
    while (atomic_load(&b->n_batches) == 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    assert_int_equal(atomic_load(&large->n_done), 0);
    let_engine(a, 1);
    end_work(large, FAULT_NONE);
    wait_idle(&w);
    close_world(&w);
}

/* A job ends early when it is taken from the queue, but not before its parts are back. */
static void test_cancel_in_two_engines(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){.n_workers = 2}, 1, true);
    struct fake *a = &w.fakes[0][0], *b = &w.fakes[0][1];
    struct work *large = submit(&w, make_work(&w, 10 * MAX_SEQUENCES, 1, false));
    sem_wait(&a->arrived);
    sem_wait(&b->arrived);
    batcher_cancel(w.batcher, &large->job, FAULT_CLIENT_GONE);
    batcher_cancel(w.batcher, &large->job, FAULT_TIMEOUT);
    let_engine(a, 1);
    while (atomic_load(&a->n_batches) == 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    assert_int_equal(atomic_load(&large->n_done), 0);
    let_engine(b, 1);
    end_work(large, FAULT_CLIENT_GONE);
    assert_int_equal(atomic_load(&a->n_batches) + atomic_load(&b->n_batches), 2);
    close_world(&w);
}

/* One part fails, the other does not: the job has failed, and that engine until it can. */
static void test_one_engine_fails(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){.n_workers = 2}, 1, true);
    struct fake *a = &w.fakes[0][0], *b = &w.fakes[0][1];
    struct work *large = submit(&w, make_work(&w, 10 * MAX_SEQUENCES, 1, false));
    sem_wait(&a->arrived);
    sem_wait(&b->arrived);
    atomic_store(&b->failure, STATUS_INTERNAL);
    let_engine(b, 1);
    while (!batcher_state(w.batcher).has_failed)
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    assert_int_equal(atomic_load(&large->n_done), 0);
    let_engine(a, 1);
    end_work(large, FAULT_ENGINE);
    assert_false(batcher_has_died(w.batcher, NULL));
    atomic_store(&b->failure, STATUS_OK);
    for (int32_t i = 0; i < 2; i++) {
        struct work *work = make_work(&w, 3, 3, false);
        work->job.only_worker = 1 + i;
        submit(&w, work);
        let_engine(i ? b : a, 1);
        end_work(work, FAULT_NONE);
        assert_int_equal(batcher_state(w.batcher).has_failed, i == 0);
    }
    close_world(&w);
}

/* A job that is for one engine waits for that one, and holds nobody else up. */
static void test_only_worker(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){.n_workers = 2}, 1, true);
    struct fake *a = &w.fakes[0][0], *b = &w.fakes[0][1];
    struct work *busy = make_work(&w, 1, 1, false), *bound = make_work(&w, 2, 2, false);
    busy->job.only_worker = bound->job.only_worker = 2;
    submit(&w, busy);
    sem_wait(&b->arrived);
    submit(&w, bound);
    struct work *other = submit(&w, make_work(&w, 4, 4, false));
    sem_wait(&a->arrived);
    let_engine(a, 1);
    end_work(other, FAULT_NONE);
    assert_int_equal(atomic_load(&bound->n_done), 0);
    let_engine(b, 2);
    end_work(busy, FAULT_NONE);
    end_work(bound, FAULT_NONE);
    assert_int_equal(atomic_load(&a->n_batches), 1);
    /* A model with fewer engines leaves the others alone. */
    w.bundles[1].n_engines = 1;
    for (int i = 0; i < 4; i++) {
        struct work *work = make_work(&w, 2, 2, false);
        work->job.bundle = &w.bundles[1];
        submit(&w, work);
        let_engine(&w.fakes[1][0], 1);
        end_work(work, FAULT_NONE);
    }
    assert_int_equal(atomic_load(&w.fakes[1][1].n_batches), 0);
    close_world(&w);
}

/* The server's own: alone in its batch, taken by a full queue, counted nowhere. */
static void test_check(void **state) {
    (void)state;
    struct world w;
    struct buffer page = {.max_bytes = 1 << 20};
    open_world(&w, (struct batcher_options){.max_jobs = 2}, true);
    struct work *first = occupy(&w), *waiting[2];
    for (int i = 0; i < 2; i++)
        waiting[i] = submit(&w, make_work(&w, 1, 1, false));
    refuse(&w, make_work(&w, 1, 1, false), FAULT_OVERLOADED);
    struct work *check = make_work(&w, 1, 1, false);
    check->job.is_check = true;
    submit(&w, check);
    let(&w, 3);
    end_work(first, FAULT_NONE);
    for (int i = 0; i < 2; i++)
        end_work(waiting[i], FAULT_NONE);
    end_work(check, FAULT_NONE);
    assert_int_equal(atomic_load(&w.fakes[0][0].n_batches), 3);
    assert_int_equal(metrics_write(w.metrics, &(struct metrics_now){0}, &page, NULL),
                     STATUS_OK);
    assert_non_null(strstr(page.data, "\nvigil_batch_tokens_count 2\n"));
    assert_non_null(strstr(page.data, "\nvigil_queue_wait_seconds_count 3\n"));
    assert_non_null(strstr(page.data, "\nvigil_sequences_total 3\n"));
    buffer_free(&page);
    close_world(&w);
}

/* ---- a device that fails ---- */

/* Nobody is answered from then on: not who is in flight, waits or comes; on no engine. */
static void test_device_failure(void **state) {
    (void)state;
    struct world w;
    struct error why;
    open_engines(&w, (struct batcher_options){.n_workers = 2}, 2, true);
    struct fake *a = &w.fakes[0][0], *b = &w.fakes[0][1];
    struct work *on[2], *waiting[3];
    for (int32_t i = 0; i < 2; i++) {
        on[i] = make_work(&w, 1, 1, false);
        on[i]->job.only_worker = 1 + i;
        submit(&w, on[i]);
        sem_wait(i ? &b->arrived : &a->arrived);
    }
    struct work *large = submit(&w, make_work(&w, 10 * MAX_SEQUENCES, 1, false));
    for (int i = 0; i < 3; i++)
        waiting[i] = submit(&w, make_work(&w, 3, 3, i & 1));
    assert_false(batcher_has_died(w.batcher, NULL));
    let_engine(a, 1); /* the large one is then on it, twice */
    end_work(on[0], FAULT_NONE);
    sem_wait(&a->arrived);
    atomic_store(&a->failure, STATUS_DEVICE);
    let_engine(a, 1);
    end_work(large, FAULT_ENGINE);
    for (int i = 0; i < 3; i++)
        end_work(waiting[i], FAULT_ENGINE);
    assert_true(batcher_has_died(w.batcher, &why));
    assert_string_equal(why.message, "broken");
    assert_int_equal(why.status, STATUS_DEVICE);
    assert_true(batcher_state(w.batcher).has_failed);
    refuse(&w, make_work(&w, 1, 1, false), FAULT_ENGINE);
    /* The other engine's answer came too late to be believed. */
    let_engine(b, 1);
    end_work(on[1], FAULT_ENGINE);
    assert_true(batcher_state(w.batcher).has_failed);
    wait_idle(&w);
    /* Two submits and a wait that failed; the third batch was not asked for any more. */
    assert_int_equal(atomic_load(&a->n_submitted), 3);
    assert_int_equal(atomic_load(&a->n_batches), 2);
    a->n_pending = 0;
    close_world(&w);
}

static void test_submit_fails(void **state) {
    (void)state;
    struct world w;
    open_engines(&w, (struct batcher_options){0}, 2, true);
    struct fake *fake = &w.fakes[0][0];
    /* In the ordinary way: that batch alone. */
    struct work *first = occupy(&w);
    struct work *second = submit(&w, make_work(&w, 2, 2, false));
    atomic_store(&fake->submit_failure, STATUS_INTERNAL);
    let(&w, 1);
    end_work(first, FAULT_NONE);
    end_work(second, FAULT_ENGINE);
    assert_false(batcher_has_died(w.batcher, NULL));
    /* For good, with a batch before it that nobody waits for any more. */
    atomic_store(&fake->submit_failure, STATUS_OK);
    first = occupy(&w);
    struct work *large = submit(&w, make_work(&w, 2 * MAX_SEQUENCES, 1, false));
    let(&w, 1);
    end_work(first, FAULT_NONE);
    sem_wait(&fake->arrived);
    second = submit(&w, make_work(&w, 2, 2, false));
    struct work *third = submit(&w, make_work(&w, 2, 2, true));
    atomic_store(&fake->submit_failure, STATUS_DEVICE);
    let(&w, 1); /* one part of the large one; the submit behind it fails */
    end_work(large, FAULT_ENGINE);
    end_work(second, FAULT_ENGINE);
    end_work(third, FAULT_ENGINE);
    assert_true(batcher_has_died(w.batcher, NULL));
    refuse(&w, make_work(&w, 1, 1, false), FAULT_ENGINE);
    close_world(&w);
}

/* From outside, as when an engine's answers are found to be wrong. */
static void test_die(void **state) {
    (void)state;
    struct world w;
    struct error why = {STATUS_DEVICE, "wrong"}, other = {STATUS_DEVICE, "other"};
    open_world(&w, (struct batcher_options){0}, true);
    struct work *first = occupy(&w);
    struct work *waiting = submit(&w, make_work(&w, 2, 2, false));
    batcher_die(w.batcher, &why);
    batcher_die(w.batcher, &other);
    end_work(waiting, FAULT_ENGINE);
    let(&w, 1);
    end_work(first, FAULT_ENGINE);
    assert_true(batcher_has_died(w.batcher, &why));
    assert_string_equal(why.message, "wrong");
    close_world(&w);
}

/* ---- many threads ---- */

#define N_THREADS 8
#define N_ROUNDS 200

static void *submit_many(void *argument) {
    struct world *w = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < N_ROUNDS; i++) {
        struct work *work =
            make_work(w, 1 + rand_r(&seed) % 60, 1 + rand_r(&seed) % 32, i & 1);
        bool is_cancelled = rand_r(&seed) % 8 == 0;
        work->job.bundle = &w->bundles[rand_r(&seed) % 4 == 0];
        if (!batcher_submit(w->batcher, &work->job)) {
            sem_destroy(&work->done);
            free(work);
            continue;
        }
        if (is_cancelled)
            batcher_cancel(w->batcher, &work->job, FAULT_CLIENT_GONE);
        sem_wait(&work->done);
        sem_post(&work->done);
        end_work(work,
                 work->job.outcome == FAULT_NONE ? FAULT_NONE : FAULT_CLIENT_GONE);
    }
    return NULL;
}

static void check_threads(int32_t n_workers, int32_t n_in_flight) {
    struct world w;
    pthread_t threads[N_THREADS];
    open_engines(&w, (struct batcher_options){.n_workers = n_workers}, n_in_flight,
                 false);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_many, &w), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(batcher_state(w.batcher).n_tokens, 0);
    wait_idle(&w);
    close_world(&w);
}

static void test_threads(void **state) {
    (void)state;
    check_threads(1, 1);
}

static void test_threads_and_engines(void **state) {
    (void)state;
    check_threads(2, 1);
    check_threads(1, 2);
    check_threads(2, 2);
}

/* A device fails in the middle of it: everybody is told, once. */
static void *submit_until_refused(void *argument) {
    struct world *w = argument;
    for (int i = 0;; i++) {
        struct work *work = make_work(w, 1 + i % 40, 1 + i % 9, i & 1);
        if (!batcher_submit(w->batcher, &work->job)) {
            assert_int_equal(work->job.outcome, FAULT_ENGINE);
            sem_destroy(&work->done);
            free(work);
            return NULL;
        }
        sem_wait(&work->done);
        sem_post(&work->done);
        bool is_good = work->job.outcome == FAULT_NONE;
        end_work(work, is_good ? FAULT_NONE : FAULT_ENGINE);
        if (i == N_ROUNDS / 2)
            atomic_store(&w->fakes[0][1].failure, STATUS_DEVICE);
    }
}

static void test_failure_among_threads(void **state) {
    (void)state;
    struct world w;
    pthread_t threads[N_THREADS];
    open_engines(&w, (struct batcher_options){.n_workers = 2}, 2, false);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_until_refused, &w),
                         0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(batcher_has_died(w.batcher, NULL));
    wait_idle(&w);
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_batching),
        cmocka_unit_test(test_fairness),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_max_wait),
        cmocka_unit_test(test_speed),
        cmocka_unit_test(test_deadline_and_cancel),
        cmocka_unit_test(test_cancel_in_part),
        cmocka_unit_test(test_engine_failure),
        cmocka_unit_test(test_stopping),
        cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_cancel_in_flight),
        cmocka_unit_test(test_reload_in_flight),
        cmocka_unit_test(test_two_engines),
        cmocka_unit_test(test_cancel_in_two_engines),
        cmocka_unit_test(test_one_engine_fails),
        cmocka_unit_test(test_only_worker),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_device_failure),
        cmocka_unit_test(test_submit_fails),
        cmocka_unit_test(test_die),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_and_engines),
        cmocka_unit_test(test_failure_among_threads),
    };
    (void)alarm(300); /* most of what can be wrong here is a wait without end */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
