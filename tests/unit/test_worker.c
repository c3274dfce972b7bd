/* SPDX-License-Identifier: Apache-2.0
 *
 * test_worker.c - the worker on a real store, with a classifier that is made up: each post
 * gets its one result, whatever fails, whoever stops, whoever is killed.
 *
 * As a program of its own it puts texts into a store, for the tests of the whole:
 *   test_worker fill URL FIRST MODE < TEXTS    a text a line, keys test:FIRST, test:FIRST+1, …
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/worker/worker.h"
#include "tests/unit/store_fixture.h"

#define MS (CLOCK_NS_PER_SECOND / 1000)
enum { MAX_POSTS = 1024, MAX_CALLERS = 8, DEADLY = 9 };
#define SHA_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SHA_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* ---- a classifier ---- */

static struct brain {
    int64_t spent_ns;
    int32_t poison;            /* the post that it fails at; -1: none */
    enum classifier_kind kind; /* how it fails there */
    const char *error_type;    /* of a post alone, at the poison */
    bool is_deadly;            /* the worker that reads the poison dies of it */
    struct store *beside; /* gets a new post while the poison is read; NULL: none */
    int32_t n_beside;     /* how often that one was read a while later */
    int32_t n_away;       /* that many calls fail first */
    enum classifier_kind away; /* so */
    int32_t changes_at; /* the call from which on it has another model; 0: none */
    const char *sha256;
    atomic_int n_calls, n_posts;
    atomic_int n_asked[MAX_POSTS];
} brain;

/* "post 17" -> 17; a probe's text: -1 */
static int32_t number_of(struct view text) {
    return text.n_bytes > 5 ? (int32_t)strtol(text.data + 5, NULL, 10) : -1;
}

static double probability_of(int32_t number) {
    return (double)(number % 10) / 10;
}

static void answer_one(int32_t number, struct arena *arena,
                       struct classifier_result *r) {
    struct store_mention *m = arena_take(arena, sizeof *m);
    assert_non_null(m);
    *m = (struct store_mention){.type = number % 2 ? "DRUG" : "ADE",
                                .text = VIEW("post"),
                                .begin = 0,
                                .end = 4,
                                .score = 0.5};
    *r = (struct classifier_result){.label = "Not_AE",
                                    .label_probability = 1 - probability_of(number),
                                    .probability = probability_of(number),
                                    .n_tokens = 7,
                                    .n_windows = 1,
                                    .mentions = m,
                                    .n_mentions = 1};
    if (number == brain.poison && brain.error_type)
        r->error_type = brain.error_type;
}

static void look_beside(void) {
    struct store_item item = an_item("file:1000", 1, "post 1000");
    const struct store_take_in what = {.source = "file", .items = &item, .n_items = 1};
    struct store_taken taken = {0};
    struct error err;
    assert_int_equal(store_take_in(brain.beside, &what, &taken, &err), STATUS_OK);
    nanosleep(&(struct timespec){.tv_nsec = 200 * MS}, NULL);
    brain.n_beside = atomic_load(&brain.n_asked[1000]);
}

static void ask_brain(void *context, const struct view *texts, size_t n,
                      int64_t timeout_ns, struct arena *arena,
                      struct classifier_answer *out) {
    int32_t call = atomic_fetch_add(&brain.n_calls, 1);
    bool is_bad = call < brain.n_away;
    (void)context;
    assert_true(timeout_ns > 0);
    if (brain.spent_ns)
        nanosleep(&(struct timespec){.tv_sec = brain.spent_ns / CLOCK_NS_PER_SECOND,
                                     .tv_nsec = brain.spent_ns % CLOCK_NS_PER_SECOND},
                  NULL);
    *out = (struct classifier_answer){.retry_after_ns = -1};
    snprintf(out->reason, sizeof out->reason, "server: made up");
    struct classifier_result *results = arena_take(arena, n * sizeof *results);
    assert_non_null(results);
    for (size_t i = 0; i < n; i++) {
        int32_t number = number_of(texts[i]);
        bool is_poison = number == brain.poison && number >= 0 && !brain.error_type;
        if (is_poison && brain.is_deadly)
            _exit(DEADLY);
        if (is_poison && brain.beside)
            look_beside();
        out->kind = is_poison ? brain.kind : out->kind;
        answer_one(number, arena, &results[i]);
        if (number >= 0 && number < MAX_POSTS)
            atomic_fetch_add(&brain.n_asked[number], 1);
        atomic_fetch_add(&brain.n_posts, number >= 0);
    }
    if (is_bad)
        out->kind = brain.away;
    out->results = results;
    out->model = "ade";
    out->dtype = "int8";
    out->sha256 = brain.changes_at && call >= brain.changes_at ? SHA_B : brain.sha256;
}

/* ---- a worker ---- */

struct rig {
    struct work *work;
    struct worker_caller callers[MAX_CALLERS];
    struct enrich_metrics metrics;
    struct worker_options options;
    struct worker_summary summary;
    int stop_fd;
    int64_t stop_at; /* settled posts at which it is stopped; 0: never */
};

static void stop_when_done(void *context, int64_t n_settled) {
    struct rig *r = context;
    if (r->stop_at && n_settled >= r->stop_at)
        (void)eventfd_write(r->stop_fd, 1);
}

static void rig_open(struct rig *r, const char *url, const char *name,
                     const char *model, int64_t lease_ns) {
    memset(r, 0, sizeof *r);
    const struct work_options work = {
        .store_url = url, .worker = name, .model = model, .lease_ns = lease_ns};
    struct error err = {0};
    enum status status = work_open(&work, &r->work, NULL, &err);
    if (status != STATUS_OK)
        print_error("%s\n", err.message);
    assert_int_equal(status, STATUS_OK);
    enrich_metrics_init(&r->metrics);
    for (int i = 0; i < MAX_CALLERS; i++)
        r->callers[i].ask = ask_brain;
    r->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->options = (struct worker_options){.work = r->work,
                                         .callers = r->callers,
                                         .n_callers = 3,
                                         .batch = 16,
                                         .batch_bytes = 1 << 18,
                                         .timeout_ns = 20 * CLOCK_NS_PER_SECOND,
                                         .lease_ns = lease_ns,
                                         .rules = {"Adverse_Event", 0.6, 0.4},
                                         .is_once = true,
                                         .stop_fd = r->stop_fd,
                                         .seed = 5,
                                         .metrics = &r->metrics,
                                         .on_progress = stop_when_done,
                                         .progress_context = r};
}

static enum status rig_run(struct rig *r) {
    struct error err = {0};
    enum status status = worker_run(&r->options, &r->summary, &err);
    if (status != STATUS_OK)
        print_message("          %s\n", err.message);
    return status;
}

static void rig_close(struct rig *r) {
    work_close(r->work);
    close(r->stop_fd);
}

static void fill(struct fixture *f, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        char key[32], text[32];
        snprintf(key, sizeof key, "file:%d", (int)i);
        snprintf(text, sizeof text, "post %d", (int)i);
        struct store_item item = an_item(key, 1, text);
        item.mode = STORE_FULL;
        item.drugs =
            VIEW("[{\"drug\":\"postex\",\"name\":\"post\",\"begin\":0,\"end\":4}]");
        take_one(f, item);
    }
}

static void forget(void) {
    memset(&brain, 0, sizeof brain);
    brain.poison = -1;
    brain.sha256 = SHA_A;
}

static void store_run(struct fixture *f, int32_t n) {
    struct rig r;
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    assert_int_equal(rig_run(&r), STATUS_OK);
    assert_int_equal(r.summary.n_done, n);
    rig_close(&r);
}

static void *run_thread(void *argument) {
    return rig_run(argument) == STATUS_OK ? argument : NULL;
}

/* Each of the posts has one result, and that is its own. */
static void check_results(struct fixture *f, int32_t n) {
    assert_int_equal(number(f, "SELECT count(*) FROM results"), n);
    assert_int_equal(number(f, "SELECT count(DISTINCT post_id) FROM results"), n);
    assert_int_equal(
        number(f,
               "SELECT count(*) FROM results r JOIN posts p ON p.id = r.post_id WHERE "
               "abs(r.probability - (CAST(substr(p.text, 6) AS INTEGER) % 10) / 10.0) "
               "> 0.0001"),
        0);
}

/* ---- tests ---- */

static void every_post_gets_its_result(void **state) {
    struct fixture *f = *state;
    forget();
    fill(f, 500);
    struct rig r;
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    assert_int_equal(rig_run(&r), STATUS_OK);
    check_results(f, 500);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    assert_int_equal(brain.n_posts, 500);
    assert_int_equal(r.summary.n_done, 500);
    assert_int_equal(r.summary.n_positive, 200); /* 0.6 and more */
    assert_int_equal(r.summary.n_review, 100);   /* 0.4, 0.5 */
    assert_int_equal(r.summary.n_negative, 200);
    assert_int_equal(r.summary.n_lost, 0);
    assert_int_equal(
        number(f, "SELECT count(*) FROM results WHERE label = 'Adverse_Event' AND "
                  "band = 'positive' AND probability >= 0.6 AND score = probability"),
        200);
    assert_int_equal(number(f,
                            "SELECT count(*) FROM results WHERE label = 'Not_AE' AND "
                            "band = 'review' AND probability < 0.6 AND "
                            "abs(score + probability - 1) < 0.0001"),
                     100);
    assert_int_equal(number(f,
                            "SELECT count(*) FROM results WHERE model_sha256 = '" SHA_A
                            "' AND model_name = 'ade' AND dtype = 'int8' AND "
                            "n_tokens = 7 AND n_windows = 1 AND threshold = 0.6"),
                     500);
    /* The model's drugs have the watch list's name, its events have none. */
    assert_int_equal(number(f, "SELECT count(*) FROM mentions WHERE type = 'DRUG' AND "
                               "drug = 'postex' AND text = 'post' AND begin_cp = 0 AND "
                               "end_cp = 4"),
                     250);
    assert_int_equal(
        number(f, "SELECT count(*) FROM mentions WHERE type = 'ADE' AND drug = ''"),
        250);
    assert_int_equal(r.metrics.n_claimed, 500);
    assert_int_equal(enrich_metrics_band(&r.metrics, "review"), 100);
    rig_close(&r);
}

/* The page is whole, and says what was counted. */
static void metrics_are_written(void **state) {
    struct fixture *f = *state;
    forget();
    fill(f, 20);
    struct rig r;
    struct store_lag lag;
    struct buffer page = {.max_bytes = 1 << 20};
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    assert_int_equal(rig_run(&r), STATUS_OK);
    assert_int_equal(r.work->calls->lag(r.work, &lag, NULL), STATUS_OK);
    assert_int_equal(
        enrich_metrics_write(&r.metrics, &lag, clock_wall_ns(), &page, NULL),
        STATUS_OK);
    static const char *const lines[] = {
        "vigil_enrich_claimed_total 20\n",
        "vigil_enrich_results_total{label=\"Adverse_Event\",band=\"positive\"} 8\n",
        "vigil_enrich_breaker_state{state=\"closed\"} 1\n",
        "vigil_enrich_call_duration_seconds_count",
        "vigil_enrich_calls_total{outcome=\"ok\"}",
        "vigil_enrich_queue_waiting 0\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_non_null(strstr(page.data, lines[i]));
    buffer_free(&page);
    rig_close(&r);
}

/* Refused for good, alone or in a list: a dead letter at once, and nobody else's matter. */
static void what_is_refused_becomes_a_dead_letter(void **state) {
    struct fixture *f = *state;
    const char *const types[] = {NULL, "too_large"};
    fill(f, 500);
    for (int i = 0; i < 2; i++) {
        forget();
        brain.poison = 100 + i;
        brain.kind = CLASSIFIER_REFUSED;
        brain.error_type = types[i];
        if (i)
            fixture_run(f->store, "DELETE FROM results;"
                                  "DELETE FROM dead_letters;"
                                  "INSERT INTO queue (post_id, version) "
                                  "SELECT id, version FROM posts");
        struct rig r;
        rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
        assert_int_equal(rig_run(&r), STATUS_OK);
        check_results(f, 499);
        assert_int_equal(r.summary.n_given_up, 1);
        assert_int_equal(number(f, "SELECT count(*) FROM dead_letters WHERE stage = "
                                   "'classify' AND tries = 1"),
                         1);
        assert_true(is_text(f, "SELECT reason FROM dead_letters",
                            i ? "server: this text: too_large" : "server: made up"));
        assert_true(
            is_text(f, "SELECT key FROM dead_letters", i ? "file:101" : "file:100"));
        rig_close(&r);
    }
}

/* What the server fails at waits for its next try, and all others are done. */
static void what_fails_is_tried_again_later(void **state) {
    struct fixture *f = *state;
    const enum classifier_kind kinds[] = {CLASSIFIER_FAILED, CLASSIFIER_BROKEN,
                                          CLASSIFIER_LATE};
    for (size_t k = 0; k < 3; k++) {
        forget();
        brain.poison = 77;
        brain.kind = kinds[k];
        fixture_run(f->store,
                    "DELETE FROM results; DELETE FROM posts; DELETE FROM queue");
        fill(f, 500);
        struct rig r;
        rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
        fixture_run(f->store, "UPDATE queue SET tries = 1");
        r.options.is_once = false;
        r.stop_at = 499;
        struct error err = {0};
        assert_int_equal(worker_run(&r.options, &r.summary, &err), STATUS_OK);
        check_results(f, 499);
        /* It was judged before or released by the end: a try more or not, but not lost. */
        assert_int_equal(number(f, "SELECT count(*) FROM queue"), 1);
        assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 0);
        rig_close(&r);
        /* By itself: it is judged. Its fifth try is the last. */
        fixture_run(f->store, "UPDATE queue SET tries = 4, not_before_ns = 0");
        rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
        assert_int_equal(rig_run(&r), STATUS_OK);
        assert_int_equal(r.summary.n_given_up, 1);
        assert_int_equal(number(f, "SELECT count(*) FROM dead_letters WHERE tries = 5"),
                         1);
        fixture_run(f->store, "DELETE FROM dead_letters");
        rig_close(&r);
    }
}

static void a_try_that_fails_waits_for_its_time(void **state) {
    struct fixture *f = *state;
    forget();
    brain.poison = 1;
    brain.kind = CLASSIFIER_FAILED;
    fill(f, 2);
    fixture_run(f->store, "UPDATE queue SET tries = 2");
    struct rig r;
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    r.options.is_once = false;
    pthread_t thread;
    /* Until it was put back, by the store's word. */
    assert_int_equal(pthread_create(&thread, NULL, run_thread, &r), 0);
    while (
        number(f,
               "SELECT count(*) FROM queue WHERE not_before_ns > 0 AND worker = ''") <
        1)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    (void)eventfd_write(r.stop_fd, 1);
    pthread_join(thread, NULL);
    assert_int_equal(number(f, "SELECT tries FROM queue"), 3);
    assert_int_equal(r.summary.n_retried, 1);
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 1);
    rig_close(&r);
}

static void a_server_that_is_away_is_waited_for(void **state) {
    struct fixture *f = *state;
    for (int kind = CLASSIFIER_UNREACHABLE; kind <= CLASSIFIER_UNWELL; kind++) {
        forget();
        brain.n_away = 4; /* then a breaker would wait for seconds */
        brain.away = (enum classifier_kind)kind;
        fixture_run(f->store,
                    "DELETE FROM results; DELETE FROM posts; DELETE FROM queue");
        fill(f, 100);
        fixture_run(f->store, "UPDATE queue SET tries = 4");
        store_run(f, 100); /* the fifth try of each; none is lost */
        check_results(f, 100);
    }
}

static void who_is_denied_ends_and_gives_back(void **state) {
    struct fixture *f = *state;
    forget();
    brain.n_away = 1000;
    brain.away = CLASSIFIER_DENIED;
    fill(f, 100);
    struct rig r;
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    assert_int_equal(rig_run(&r), STATUS_INVALID);
    assert_int_equal(
        number(f, "SELECT count(*) FROM queue WHERE worker = '' AND tries = 0"), 100);
    rig_close(&r);
}

static void a_stop_lets_calls_end_and_gives_the_rest_back(void **state) {
    struct fixture *f = *state;
    forget();
    brain.spent_ns = 100 * MS;
    fill(f, 500);
    struct rig r;
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    r.options.is_once = false;
    r.stop_at = 32;
    assert_int_equal(rig_run(&r), STATUS_OK);
    int64_t n = number(f, "SELECT count(*) FROM results");
    assert_in_range(n, 32, 499);
    assert_int_equal(r.summary.n_done, n);
    assert_int_equal(brain.n_posts, n); /* whatever was asked is written */
    assert_true(r.summary.n_released > 0);
    assert_int_equal(
        number(f, "SELECT count(*) FROM queue WHERE worker = '' AND tries = 0 "
                  "AND lease_until_ns = 0"),
        500 - n);
    rig_close(&r);
    forget();
    store_run(f, (int32_t)(500 - n));
    check_results(f, 500);
}

static void a_new_model_is_written_as_it_is(void **state) {
    struct fixture *f = *state;
    forget();
    brain.changes_at = 10;
    fill(f, 500);
    store_run(f, 500);
    check_results(f, 500);
    int64_t n_old =
        number(f, "SELECT count(*) FROM results WHERE model_sha256 = '" SHA_A "'");
    assert_in_range(n_old, 16, 160);
    assert_int_equal(
        number(f, "SELECT count(*) FROM results WHERE model_sha256 = '" SHA_B "'"),
        500 - n_old);
}

static void a_rerun_stands_beside_the_old_results(void **state) {
    struct fixture *f = *state;
    forget();
    fill(f, 100);
    store_run(f, 100);
    brain.sha256 = SHA_B;
    struct rig r;
    for (int i = 0; i < 2; i++) { /* the second time there is nothing to do */
        rig_open(&r, f->at.url, "me:1", SHA_B, 60 * CLOCK_NS_PER_SECOND);
        assert_int_equal(rig_run(&r), STATUS_OK);
        assert_int_equal(r.summary.n_done, i ? 0 : 100);
        rig_close(&r);
    }
    assert_int_equal(number(f, "SELECT count(*) FROM results"), 200);
    assert_int_equal(
        number(
            f,
            "SELECT count(DISTINCT post_id) FROM results WHERE model_sha256 = '" SHA_B
            "'"),
        100);
    /* New posts are no business of a re-run. */
    take_one(f, an_item("file:new", 1, "post 999"));
    rig_open(&r, f->at.url, "me:1", SHA_A, 60 * CLOCK_NS_PER_SECOND);
    r.options.stop_fd = -1;
    assert_int_equal(rig_run(&r), STATUS_OK);
    assert_int_equal(number(f, "SELECT count(*) FROM queue WHERE model = ''"), 1);
    rig_close(&r);
}

/* ---- several workers ---- */

/* Calls that take twice the lease: nobody else takes the posts meanwhile. */
static void claims_are_extended(void **state) {
    struct fixture *f = *state;
    struct rig a, b;
    pthread_t threads[2];
    void *ok[2];
    forget();
    brain.spent_ns = 1200 * MS;
    fill(f, 60);
    rig_open(&a, f->at.url, "a:1", "", 600 * MS);
    rig_open(&b, f->at.url, "b:1", "", 600 * MS);
    assert_int_equal(pthread_create(&threads[0], NULL, run_thread, &a), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, run_thread, &b), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], &ok[i]), 0);
    assert_true(ok[0] && ok[1]);
    check_results(f, 60);
    assert_int_equal(brain.n_posts, 60);
    assert_int_equal(a.summary.n_lost + b.summary.n_lost, 0);
    rig_close(&a);
    rig_close(&b);
}

static void two_workers_share(void **state) {
    struct fixture *f = *state;
    struct rig a, b;
    pthread_t threads[2];
    void *ok[2];
    forget();
    brain.spent_ns = 5 * MS;
    fill(f, 600);
    rig_open(&a, f->at.url, "a:1", "", 60 * CLOCK_NS_PER_SECOND);
    rig_open(&b, f->at.url, "b:1", "", 60 * CLOCK_NS_PER_SECOND);
    assert_int_equal(pthread_create(&threads[0], NULL, run_thread, &a), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, run_thread, &b), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], &ok[i]), 0);
    assert_true(ok[0] && ok[1]);
    check_results(f, 600);
    assert_int_equal(brain.n_posts, 600);
    assert_int_equal(a.summary.n_done + b.summary.n_done, 600);
    rig_close(&a);
    rig_close(&b);
}

/* ---- a store that fails ---- */

static struct {
    struct work work;
    struct work_calls calls;
    struct work *real;
    int32_t n_failing; /* calls that fail first */
    enum status status;
    int32_t refused; /* the post whose result it refuses; -1 */
    int32_t n_settles;
} sick;

static bool fails(struct error *err) {
    if (sick.n_failing <= 0)
        return false;
    sick.n_failing--;
    error_set(err, sick.status, "made up");
    return true;
}

static enum status sick_claim(struct work *w, int64_t wait_ns, struct arena *arena,
                              struct work_item *out, size_t cap, size_t *n,
                              struct error *err) {
    (void)w;
    return fails(err)
               ? sick.status
               : sick.real->calls->claim(sick.real, wait_ns, arena, out, cap, n, err);
}

static enum status sick_settle(struct work *w, const struct store_outcome *outcomes,
                               size_t n, size_t *n_lost, struct error *err) {
    (void)w;
    sick.n_settles++;
    if (fails(err))
        return sick.status;
    for (size_t i = 0; i < n; i++)
        if (outcomes[i].kind == STORE_DONE &&
            number_of(outcomes[i].claim->text) == sick.refused)
            return error_set(err, STATUS_INVALID, "made up");
    return sick.real->calls->settle(sick.real, outcomes, n, n_lost, err);
}

static enum status sick_extend(struct work *w, struct work_item *const *items, size_t n,
                               struct error *err) {
    (void)w;
    return fails(err) ? sick.status
                      : sick.real->calls->extend(sick.real, items, n, err);
}

static enum status sick_left(struct work *w, int64_t *n, struct error *err) {
    (void)w;
    return fails(err) ? sick.status : sick.real->calls->left(sick.real, n, err);
}

static void sicken(struct rig *r, int32_t n_failing, enum status status,
                   int32_t refused) {
    memset(&sick, 0, sizeof sick);
    sick.real = r->work;
    sick.calls = (struct work_calls){.claim = sick_claim,
                                     .settle = sick_settle,
                                     .extend = sick_extend,
                                     .left = sick_left};
    sick.work.calls = &sick.calls;
    sick.n_failing = n_failing;
    sick.status = status;
    sick.refused = refused;
    r->options.work = &sick.work;
}

static void a_store_that_fails_for_a_while_is_waited_for(void **state) {
    struct fixture *f = *state;
    const enum status statuses[] = {STATUS_IO, STATUS_BUSY};
    forget();
    for (int i = 0; i < 2; i++) {
        fixture_run(f->store,
                    "DELETE FROM results; DELETE FROM posts; DELETE FROM queue");
        fill(f, 200);
        struct rig r;
        rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
        sicken(&r, 4, statuses[i], -1);
        assert_int_equal(rig_run(&r), STATUS_OK);
        check_results(f, 200);
        assert_int_equal(r.metrics.n_store_failures, 4);
        rig_close(&r);
    }
}

static void a_store_that_is_broken_ends_it(void **state) {
    struct fixture *f = *state;
    forget();
    fill(f, 20);
    struct rig r;
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    sicken(&r, 1000, STATUS_UNSUPPORTED, -1);
    assert_int_equal(rig_run(&r), STATUS_UNSUPPORTED);
    rig_close(&r);
}

static void a_result_that_the_store_refuses_harms_no_other(void **state) {
    struct fixture *f = *state;
    forget();
    fill(f, 200);
    struct rig r;
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    sicken(&r, 0, STATUS_OK, 42);
    assert_int_equal(rig_run(&r), STATUS_OK);
    check_results(f, 199);
    assert_true(
        is_text(f, "SELECT reason FROM dead_letters", "store: refuses the result"));
    assert_true(is_text(f, "SELECT key FROM dead_letters", "file:42"));
    rig_close(&r);
}

/* ---- kill -9 ---- */

enum { KILL_POSTS = 300, KILLS = 24 };

static pid_t start_worker(const char *url, int32_t n) {
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char name[32];
    struct rig r;
    snprintf(name, sizeof name, "k:%d", (int)n);
    rig_open(&r, url, name, "", 300 * MS);
    r.options.n_callers = 2;
    r.options.batch = 4;
    r.options.seed = (uint64_t)n;
    _exit(rig_run(&r) == STATUS_OK ? 0 : 1);
}

/* Two workers on one store, killed and started anew, again and again. */
static void kills_lose_and_double_nothing(void **state) {
    struct fixture *f = *state;
    struct retry_random random = {.state = 77};
    pid_t pids[2];
    int32_t n_started = 0;
    forget();
    brain.spent_ns = 4 * MS;
    fill(f, KILL_POSTS);
    store_close(f->store); /* nothing is open while processes are copied */
    f->store = NULL;
    for (int i = 0; i < 2; i++)
        pids[i] = start_worker(f->at.url, n_started++);
    for (int k = 0; k < KILLS; k++) {
        int i = k % 2;
        int64_t wait = retry_random_between(&random, 10 * MS, 90 * MS);
        nanosleep(&(struct timespec){.tv_nsec = wait}, NULL);
        kill(pids[i], SIGKILL);
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        pids[i] = start_worker(f->at.url, n_started++);
    }
    for (int i = 0; i < 2; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    fixture_open(f);
    /* Who was killed five times with the same post in hand, at last with nothing else, has
     * buried it: it comes back. */
    int64_t n_back = 0;
    assert_ok(store_dead_retry(f->store, 0, "test", &n_back, &error));
    if (n_back)
        store_run(f, (int32_t)n_back);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    check_results(f, KILL_POSTS);
}

/* A post that kills whoever reads it is found, although its workers took many others down with
 * them, and buries none of those. */
static void a_post_that_kills_its_workers_is_found(void **state) {
    struct fixture *f = *state;
    int32_t n_deaths = 0;
    forget();
    brain.poison = 17;
    brain.is_deadly = true;
    fill(f, 60);
    for (bool is_done = false; !is_done;) {
        int status = -1;
        store_close(f->store);
        f->store = NULL;
        pid_t pid =
            start_worker(f->at.url, 100); /* as one in a container: the same name */
        assert_int_equal(waitpid(pid, &status, 0), pid);
        fixture_open(f);
        fixture_run(f->store, "UPDATE queue SET lease_until_ns = 0");
        assert_true(WIFEXITED(status));
        is_done = WEXITSTATUS(status) == 0;
        n_deaths += !is_done;
        assert_true(n_deaths <= STORE_MAX_LAPSES);
    }
    assert_int_equal(n_deaths, STORE_MAX_LAPSES);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    check_results(f, 59);
    assert_int_equal(number(f, "SELECT count(*) FROM dead_letters"), 1);
    assert_true(is_text(f, "SELECT key FROM dead_letters", "file:17"));
}

/* What is given out alone stays alone, also when other posts come meanwhile. */
static void what_must_be_alone_is(void **state) {
    struct fixture *f = *state;
    struct rig r;
    forget();
    brain.poison = 1;
    brain.beside = f->store;
    fill(f, 3);
    fixture_run(f->store, "UPDATE queue SET lapses = 3 WHERE post_id < 3");
    rig_open(&r, f->at.url, "me:1", "", 60 * CLOCK_NS_PER_SECOND);
    assert_int_equal(rig_run(&r), STATUS_OK);
    assert_int_equal(r.summary.n_done, 4);
    assert_int_equal(brain.n_beside, 0);
    assert_int_equal(brain.n_asked[1000], 1);
    assert_int_equal(number(f, "SELECT count(*) FROM queue"), 0);
    rig_close(&r);
}

/* ---- the filler ---- */

static int fill_from_stdin(const char *url, const char *first, const char *mode) {
    enum { AT_ONCE = 500 };
    static struct store_item items[AT_ONCE];
    struct arena arena = {.max_bytes = (size_t)64 << 20};
    struct store *store = NULL;
    struct error err = {0};
    struct store_taken taken = {0};
    char *line = NULL;
    size_t cap = 0, n = 0;
    long number = strtol(first, NULL, 10);
    ssize_t n_bytes = 0;
    enum status status = store_open(url, DATABASE_CREATE, &store, &err);
    while (status == STATUS_OK && n_bytes >= 0) {
        struct view key, text;
        n_bytes = getline(&line, &cap, stdin);
        if (n_bytes > 0) {
            size_t n_text = (size_t)n_bytes - (line[n_bytes - 1] == '\n');
            status = arena_printf(&arena, &key, &err, "test:%ld", number++);
            if (status == STATUS_OK)
                status = arena_copy(&arena, view_of(line, n_text), &text, &err);
            items[n++] =
                (struct store_item){.kind = STORE_POST,
                                    .mode = (enum store_mode)strtol(mode, NULL, 10),
                                    .source = VIEW("test"),
                                    .key = key,
                                    .version = 1,
                                    .text = text,
                                    .received_ns = clock_wall_ns()};
        }
        if (status == STATUS_OK && (n == AT_ONCE || (n_bytes < 0 && n > 0))) {
            const struct store_take_in what = {
                .source = "test", .items = items, .n_items = n};
            status = store_take_in(store, &what, &taken, &err);
            arena_clear(&arena);
            n = 0;
        }
    }
    if (status != STATUS_OK)
        fprintf(stderr, "test_worker: %s\n", err.message);
    free(line);
    arena_free(&arena);
    store_close(store);
    return status == STATUS_OK ? 0 : 1;
}

int main(int argc, char **argv) {
    static const struct fixture_case cases[] = {
        SQLITE_CASE(kills_lose_and_double_nothing),
        SQLITE_CASE(a_post_that_kills_its_workers_is_found),
        CASE(what_must_be_alone_is),
        CASE(every_post_gets_its_result),
        CASE(metrics_are_written),
        CASE(what_is_refused_becomes_a_dead_letter),
        CASE(what_fails_is_tried_again_later),
        CASE(a_try_that_fails_waits_for_its_time),
        CASE(a_server_that_is_away_is_waited_for),
        CASE(who_is_denied_ends_and_gives_back),
        CASE(a_stop_lets_calls_end_and_gives_the_rest_back),
        CASE(a_new_model_is_written_as_it_is),
        CASE(a_rerun_stands_beside_the_old_results),
        CASE(claims_are_extended),
        CASE(two_workers_share),
        CASE(a_store_that_fails_for_a_while_is_waited_for),
        CASE(a_store_that_is_broken_ends_it),
        CASE(a_result_that_the_store_refuses_harms_no_other),
    };
    if (argc == 5 && strcmp(argv[1], "fill") == 0)
        return fill_from_stdin(argv[2], argv[3], argv[4]);
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    return fixture_main(cases, sizeof cases / sizeof *cases);
}
