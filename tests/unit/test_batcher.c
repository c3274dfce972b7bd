/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batcher.c - the queue in front of an engine that the test opens and shuts like a gate.
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

#include "base/clock.h"
#include "server/batcher.h"

#define MAX_TOKENS 64
#define MAX_SEQUENCES 16
#define FAR_AWAY INT64_MAX

/* Answers a sequence with the sum of its ids and its length, a token with its id. */
struct fake {
    struct engine engine;
    bool is_gated;
    sem_t gate, arrived; /* a batch waits at the gate, having said that it is there */
    atomic_int n_batches, most_tokens;
    atomic_bool fails, mixes;
    bool last_wants_tags;
};

static enum status fake_run(struct engine *e, const struct batch *batch, float *logits,
                            float *tags, struct error *err) {
    struct fake *fake = (struct fake *)e;
    if (fake->is_gated) {
        sem_post(&fake->arrived);
        sem_wait(&fake->gate);
    }
    atomic_fetch_add(&fake->n_batches, 1);
    if (batch_n_tokens(batch) > atomic_load(&fake->most_tokens))
        atomic_store(&fake->most_tokens, batch_n_tokens(batch));
    if (batch->n_sequences > MAX_SEQUENCES)
        atomic_store(&fake->mixes, true);
    fake->last_wants_tags = batch->wants_tags;
    for (int32_t b = 0; b < batch->n_sequences; b++) {
        float sum = 0;
        for (int32_t i = batch->offsets[b]; i < batch->offsets[b + 1]; i++) {
            sum += (float)batch->ids[i];
            if (batch->wants_tags)
                tags[i] = (float)batch->ids[i];
        }
        logits[2 * b] = sum;
        logits[2 * b + 1] = (float)(batch->offsets[b + 1] - batch->offsets[b]);
    }
    return atomic_load(&fake->fails) ? error_set(err, STATUS_INTERNAL, "broken")
                                     : STATUS_OK;
}

static void fake_close(struct engine *e) {
    (void)e;
}

static const struct engine_ops FAKE_OPS = {fake_run, fake_close};

struct world {
    struct fake fake;
    struct bundle bundle;
    struct metrics *metrics;
    struct batcher *batcher;
};

static void open_world(struct world *w, struct batcher_options options, bool is_gated) {
    memset(w, 0, sizeof *w);
    w->fake.engine.ops = &FAKE_OPS;
    w->fake.engine.info.max_tokens = MAX_TOKENS;
    w->fake.engine.info.max_sequences = MAX_SEQUENCES;
    w->fake.is_gated = is_gated;
    sem_init(&w->fake.gate, 0, 0);
    sem_init(&w->fake.arrived, 0, 0);
    w->bundle.engine = &w->fake.engine;
    w->bundle.config.n_labels = 2;
    w->bundle.config.n_tag_labels = 1;
    w->bundle.config.max_positions = 32;
    assert_int_equal(metrics_open(&w->metrics, NULL), STATUS_OK);
    options.metrics = w->metrics;
    if (!options.max_jobs)
        options.max_jobs = 1000;
    assert_int_equal(batcher_open(&options, &w->batcher, NULL), STATUS_OK);
}

static void close_world(struct world *w) {
    batcher_close(w->batcher);
    metrics_close(w->metrics);
    sem_destroy(&w->fake.gate);
    sem_destroy(&w->fake.arrived);
}

/* A job of sequences with lengths 1, 2, ... up to longest, again and again. */
struct work {
    struct job job;
    sem_t done;
    atomic_int n_done;
    int order; /* when it ended, among all */
    int32_t ids[4096];
    float logits[512][2], tags[4096];
    struct sequence sequences[512];
};

static atomic_int n_ended;

static void note_done(struct job *job) {
    struct work *work = (struct work *)job;
    work->order = atomic_fetch_add(&n_ended, 1);
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
    work->job = (struct job){.bundle = &w->bundle,
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
        float sum = 0;
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

static void let(struct world *w, int n_batches) {
    for (int i = 0; i < n_batches; i++)
        sem_post(&w->fake.gate);
}

/* A batch is in the engine, and stays there. */
static struct work *occupy(struct world *w) {
    struct work *work = make_work(w, 1, 1, false);
    assert_true(batcher_submit(w->batcher, &work->job));
    sem_wait(&w->fake.arrived);
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
    assert_true(atomic_load(&w.fake.most_tokens) <= MAX_TOKENS);
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
    assert_int_equal(atomic_load(&w.fake.n_batches), 3);
    assert_true(w.fake.last_wants_tags);
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
    assert_in_range(atomic_load(&w.fake.n_batches), 19, 21);
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
    sem_wait(&w.fake.arrived);
    batcher_cancel(w.batcher, &large->job, FAULT_TIMEOUT);
    assert_int_equal(atomic_load(&large->n_done), 0);
    let(&w, 1);
    end_work(large, FAULT_TIMEOUT);
    assert_int_equal(atomic_load(&w.fake.n_batches), 1);
    assert_int_equal(batcher_state(w.batcher).n_tokens, 0);
    close_world(&w);
}

static void test_engine_failure(void **state) {
    (void)state;
    struct world w;
    open_world(&w, (struct batcher_options){0}, false);
    struct work *work = make_work(&w, 40, 1, false);
    atomic_store(&w.fake.fails, true);
    assert_true(batcher_submit(w.batcher, &work->job));
    end_work(work, FAULT_ENGINE);
    assert_true(batcher_state(w.batcher).has_failed);
    atomic_store(&w.fake.fails, false);
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
    assert_false(batcher_submit(w.batcher, &late->job));
    let(&w, 1);
    end_work(first, FAULT_NONE);
    sem_destroy(&late->done);
    free(late);
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

static void test_threads(void **state) {
    (void)state;
    struct world w;
    pthread_t threads[N_THREADS];
    open_world(&w, (struct batcher_options){0}, false);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_many, &w), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(atomic_load(&w.fake.most_tokens) <= MAX_TOKENS);
    assert_false(atomic_load(&w.fake.mixes));
    assert_int_equal(batcher_state(w.batcher).n_tokens, 0);
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_batching),
        cmocka_unit_test(test_fairness),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_max_wait),
        cmocka_unit_test(test_deadline_and_cancel),
        cmocka_unit_test(test_cancel_in_part),
        cmocka_unit_test(test_engine_failure),
        cmocka_unit_test(test_stopping),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
