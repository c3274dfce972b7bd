/* SPDX-License-Identifier: Apache-2.0
 *
 * worker.c - a load is what one claim gave: posts and the arena of their strings. It is cut
 * into parts (schedule.h), and freed when its last post is settled.
 *
 * Threads: the lock guards the schedule. Loads belong to worker_run's thread; a caller reads
 * the texts of the part that it has.
 */
#include "client/worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define LOAD_BYTES ((size_t)512 << 20)
#define SETTLE_BYTES ((size_t)512 << 20)
#define IDLE_MIN_NS (CLOCK_NS_PER_SECOND / 20)
#define IDLE_MAX_NS CLOCK_NS_PER_SECOND
/* After a claim that emptied the queue: so much may gather for the next one. */
#define GATHER_NS (CLOCK_NS_PER_SECOND / 200)
/* How long a queue that can be waited at is, when there is nothing else to do. */
#define WAIT_IDLE_NS (CLOCK_NS_PER_SECOND / 5)
#define PROGRESS_NS (CLOCK_NS_PER_SECOND / 10)
/* When stopping, how long a store that fails is tried again. */
#define LAST_SETTLE_NS (10 * CLOCK_NS_PER_SECOND)
#define EXTENSIONS_A_LEASE 3

struct load {
    struct load *next;
    struct arena arena;
    struct work_item *items;
    bool *is_settled;
    size_t n, n_settled;
};

struct caller {
    struct worker *worker;
    const struct worker_caller *calls;
    pthread_t thread;
    struct view texts[CLASSIFIER_MAX_TEXTS];
};

struct worker {
    const struct worker_options *o;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct schedule schedule;
    int event_fd; /* callers write when a part has ended */
    struct caller *callers;
    int32_t n_started;

    struct load *loads;
    size_t n_held;          /* posts that are claimed and not settled */
    struct part_list ended; /* taken from the schedule, not settled yet */
    struct arena arena;     /* of a settling */
    int64_t claim_ns, settle_ns, extend_ns, progress_ns; /* when next */
    int64_t idle_ns;
    int32_t n_failures;                /* of the store, in a row */
    bool is_empty;                     /* the last claim gave nothing */
    bool is_alone;                     /* what it gave must stay alone */
    char sha256[STORE_SHA256_HEX + 1]; /* of the newest answer */
    struct retry_random random;
    struct worker_summary summary;
};

/* ---- callers ---- */

static void copy_gauges(struct worker *w) {
    const struct schedule *s = &w->schedule;
    struct enrich_metrics *m = w->o->metrics;
    m->n_in_flight = s->n_in_flight;
    m->limit = s->limit;
    m->breaker = s->breaker.state;
    m->n_opened = s->breaker.n_opened;
    m->n_retries = s->budget.n_retries;
    m->n_throttled = s->n_throttled;
    m->n_splits = s->n_splits;
    m->n_probes = (uint64_t)s->n_probes;
}

static void wait_changed(struct worker *w, int64_t until_ns) {
    if (until_ns == INT64_MAX) {
        pthread_cond_wait(&w->changed, &w->lock);
        return;
    }
    struct timespec at = {.tv_sec = until_ns / CLOCK_NS_PER_SECOND,
                          .tv_nsec = until_ns % CLOCK_NS_PER_SECOND};
    pthread_cond_timedwait(&w->changed, &w->lock, &at);
}

static void log_breaker(enum breaker_state before, enum breaker_state after,
                        const struct classifier_answer *why) {
    if (before == BREAKER_CLOSED && after == BREAKER_OPEN)
        log_message(LOG_LEVEL_WARNING, "server_away", "%s; waiting for it: %s",
                    why->reason, why->error.message);
    else if (before != BREAKER_CLOSED && after == BREAKER_CLOSED)
        log_message(LOG_LEVEL_INFO, "server_back", "it answers again");
}

/* With the lock held, which is let go while the server is asked. */
static void call(struct caller *c, struct part *p) {
    struct worker *w = c->worker;
    enum breaker_state before;
    const struct work_item *items = p->load->items + p->first;
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < p->n; i++)
        c->texts[i] = items[i].claim.text;
    arena_clear(&p->arena);
    int64_t start_ns = clock_now_ns();
    c->calls->ask(c->calls->context, c->texts, p->n, w->o->timeout_ns, &p->arena,
                  &p->answer);
    int64_t now_ns = clock_now_ns();
    /* A copy: a part that has ended is no longer ours. */
    const struct classifier_answer answer = p->answer;
    enrich_metrics_call(w->o->metrics, answer.kind, now_ns - start_ns);
    w->o->metrics->n_batches += answer.kind == CLASSIFIER_OK;
    pthread_mutex_lock(&w->lock);
    before = w->schedule.breaker.state;
    schedule_answered(&w->schedule, p, now_ns);
    enum breaker_state after = w->schedule.breaker.state;
    if (before != after) {
        pthread_mutex_unlock(&w->lock);
        log_breaker(before, after, &answer);
        pthread_mutex_lock(&w->lock);
    }
}

static void probe(struct caller *c) {
    struct worker *w = c->worker;
    const struct view harmless = VIEW("well");
    struct arena arena = {.max_bytes = (size_t)1 << 20};
    struct classifier_answer answer;
    enum breaker_state before = w->schedule.breaker.state;
    pthread_mutex_unlock(&w->lock);
    int64_t start_ns = clock_now_ns();
    c->calls->ask(c->calls->context, &harmless, 1, w->o->timeout_ns / 2, &arena,
                  &answer);
    int64_t now_ns = clock_now_ns();
    enrich_metrics_call(w->o->metrics, answer.kind, now_ns - start_ns);
    arena_free(&arena);
    pthread_mutex_lock(&w->lock);
    schedule_probed(&w->schedule, &answer, now_ns);
    enum breaker_state after = w->schedule.breaker.state;
    if (before != after) {
        pthread_mutex_unlock(&w->lock);
        log_breaker(before, after, &answer);
        pthread_mutex_lock(&w->lock);
    }
}

static void *run_caller(void *argument) {
    struct caller *c = argument;
    struct worker *w = c->worker;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct part *p;
        int64_t until_ns;
        enum schedule_step step =
            schedule_next(&w->schedule, clock_now_ns(), &p, &until_ns);
        copy_gauges(w);
        /* Judging and releasing end parts too. */
        if (w->schedule.done.first)
            (void)eventfd_write(w->event_fd, 1);
        if (step == SCHEDULE_END)
            break;
        if (step == SCHEDULE_WAIT) {
            wait_changed(w, until_ns);
            continue;
        }
        if (step == SCHEDULE_CALL)
            call(c, p);
        else
            probe(c);
        copy_gauges(w);
        pthread_cond_broadcast(&w->changed);
        (void)eventfd_write(w->event_fd, 1);
    }
    pthread_mutex_unlock(&w->lock);
    (void)eventfd_write(w->event_fd, 1);
    return NULL;
}

/* ---- settling ---- */

static void free_load(struct worker *w, struct load *load) {
    struct load **at = &w->loads;
    while (*at && *at != load)
        at = &(*at)->next;
    if (*at)
        *at = load->next;
    arena_free(&load->arena);
    free(load);
}

static void count_outcome(struct worker *w, const struct store_outcome *o) {
    struct worker_summary *s = &w->summary;
    struct enrich_metrics *m = w->o->metrics;
    bool is_spent = o->kind == STORE_RETRY && o->claim->tries >= STORE_MAX_TRIES;
    if (o->kind == STORE_DONE) {
        s->n_done++;
        s->n_positive += strcmp(o->band, "positive") == 0;
        s->n_review += strcmp(o->band, "review") == 0;
        s->n_negative += strcmp(o->band, "negative") == 0;
        enrich_metrics_done(m, o->label, o->band);
    } else if (o->kind == STORE_GIVE_UP || is_spent) {
        s->n_given_up++;
        m->n_given_up++;
    } else if (o->kind == STORE_RETRY) {
        s->n_retried++;
        m->n_retried++;
    } else {
        s->n_released++;
        m->n_released++;
    }
    if (o->kind == STORE_GIVE_UP || o->kind == STORE_RETRY)
        log_message(LOG_LEVEL_WARNING,
                    is_spent || o->kind == STORE_GIVE_UP ? "given_up" : "retried",
                    "a post, after %d tries: %s", (int)o->claim->tries, o->reason);
}

static void note_model(struct worker *w, const struct part *p) {
    if (p->end != PART_ANSWERED || strcmp(w->sha256, p->answer.sha256) == 0)
        return;
    if (w->sha256[0])
        log_message(LOG_LEVEL_INFO, "model_changed",
                    "the server answers with model %s, %s", p->answer.model,
                    p->answer.sha256);
    memcpy(w->sha256, p->answer.sha256, sizeof w->sha256);
}

static enum status make_outcomes(struct worker *w, const struct part *p,
                                 struct store_outcome *out, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < p->n && status == STATUS_OK; i++) {
        const struct store_claim *claim = &p->load->items[p->first + i].claim;
        if (p->end == PART_ANSWERED)
            status = outcome_of_result(&w->o->rules, claim, &p->answer,
                                       &p->answer.results[i], &w->arena, &out[i], err);
        else
            outcome_of_end(p->end, claim, p->answer.reason, &out[i]);
    }
    return status;
}

static bool is_passing(enum status status) {
    return status == STATUS_IO || status == STATUS_BUSY || status == STATUS_TIMEOUT ||
           status == STATUS_NO_MEMORY || status == STATUS_CANCELLED;
}

/* One outcome that the store does not take must not hold up the others: they are settled one
 * by one, and that one becomes a dead letter. */
static enum status settle_singly(struct worker *w, struct store_outcome *outcomes,
                                 size_t n, size_t *n_lost, struct error *err) {
    const struct work_calls *calls = w->o->work->calls;
    *n_lost = 0;
    for (size_t i = 0; i < n; i++) {
        size_t lost = 0;
        enum status status = calls->settle(w->o->work, &outcomes[i], 1, &lost, err);
        if (status != STATUS_OK && !is_passing(status)) {
            outcomes[i] = (struct store_outcome){.claim = outcomes[i].claim,
                                                 .kind = STORE_GIVE_UP,
                                                 .reason = "store: refuses the result"};
            status = calls->settle(w->o->work, &outcomes[i], 1, &lost, err);
        }
        if (status != STATUS_OK)
            return status;
        *n_lost += lost;
    }
    return STATUS_OK;
}

static void forget_part(struct worker *w, struct part *p) {
    struct load *load = p->load;
    memset(load->is_settled + p->first, true, p->n);
    load->n_settled += p->n;
    w->n_held -= p->n;
    if (load->n_settled == load->n)
        free_load(w, load);
    part_free(p);
}

static void take_ended(struct worker *w) {
    pthread_mutex_lock(&w->lock);
    struct part *first = schedule_take_done(&w->schedule);
    pthread_mutex_unlock(&w->lock);
    for (struct part *p = first, *next; p; p = next) {
        next = p->next;
        p->next = NULL;
        if (w->ended.last)
            w->ended.last->next = p;
        else
            w->ended.first = p;
        w->ended.last = p;
    }
}

static void store_failed(struct worker *w, const char *what, const struct error *why,
                         int64_t now_ns, int64_t *next_ns) {
    w->o->metrics->n_store_failures++;
    *next_ns = now_ns + IDLE_MIN_NS + retry_wait_ns(&w->random, w->n_failures);
    if (w->n_failures++ == 0)
        log_message(LOG_LEVEL_WARNING, "store_failed", "cannot %s, trying again: %s",
                    what, why->message);
}

static void store_works(struct worker *w) {
    if (w->n_failures)
        log_message(LOG_LEVEL_INFO, "store_back", "after %d failures",
                    (int)w->n_failures);
    w->n_failures = 0;
}

/* Settles all that has ended, in one transaction. */
static enum status settle(struct worker *w, int64_t now_ns, struct error *err) {
    struct error why = {0};
    size_t n = 0, at = 0, n_lost = 0, n_bytes;
    take_ended(w);
    if (!w->ended.first || now_ns < w->settle_ns)
        return STATUS_OK;
    for (struct part *p = w->ended.first; p; p = p->next)
        n += p->n;
    arena_clear(&w->arena);
    struct store_outcome *outcomes = size_multiply(n, sizeof *outcomes, &n_bytes)
                                         ? arena_take(&w->arena, n_bytes)
                                         : NULL;
    enum status status =
        outcomes ? STATUS_OK
                 : error_set(&why, STATUS_NO_MEMORY, "no memory for %zu results", n);
    for (struct part *p = w->ended.first; p && status == STATUS_OK; p = p->next) {
        note_model(w, p);
        status = make_outcomes(w, p, outcomes + at, &why);
        at += p->n;
    }
    if (status == STATUS_OK)
        status = w->o->work->calls->settle(w->o->work, outcomes, n, &n_lost, &why);
    if (status != STATUS_OK && !is_passing(status))
        status = settle_singly(w, outcomes, n, &n_lost, &why);
    if (status != STATUS_OK) {
        store_failed(w, "write results", &why, now_ns, &w->settle_ns);
        return is_passing(status) ? STATUS_OK
                                  : error_set(err, status, "%s", why.message);
    }
    store_works(w);
    w->summary.n_lost += (int64_t)n_lost;
    w->o->metrics->n_lost += n_lost;
    for (size_t i = 0; i < n; i++)
        count_outcome(w, &outcomes[i]);
    for (struct part *p = w->ended.first, *next; p; p = next) {
        next = p->next;
        forget_part(w, p);
    }
    w->ended = (struct part_list){NULL, NULL};
    return STATUS_OK;
}

/* ---- claiming ---- */

static struct load *load_new(size_t cap) {
    struct load *load = calloc(1, sizeof *load);
    if (!load)
        return NULL;
    load->arena.max_bytes = LOAD_BYTES;
    load->items = arena_take(&load->arena, cap * sizeof *load->items);
    load->is_settled = arena_take(&load->arena, cap);
    if (load->items && load->is_settled) {
        memset(load->is_settled, 0, cap);
        return load;
    }
    arena_free(&load->arena);
    free(load);
    return NULL;
}

/* Cuts a load into parts of at most `batch` posts and batch_bytes. STATUS_NO_MEMORY leaves
 * the posts that are in no part to their lease. */
static enum status cut_load(struct worker *w, struct load *load, struct error *err) {
    size_t first = 0, n_bytes = 0;
    for (size_t i = 0; i <= load->n; i++) {
        size_t cost = i < load->n ? classifier_text_cost(load->items[i].claim.text) : 0;
        bool is_full = i - first >= w->o->batch ||
                       (i > first && n_bytes + cost > w->o->batch_bytes);
        if (i > first && (i == load->n || is_full)) {
            struct part *p = part_new(load, first, i - first);
            if (!p) {
                w->n_held -= load->n - first;
                load->n = first;
                return error_set(err, STATUS_NO_MEMORY,
                                 "no memory for a batch of posts");
            }
            schedule_add(&w->schedule, p);
            first = i;
            n_bytes = 0;
        }
        n_bytes += cost;
    }
    return STATUS_OK;
}

/* How many posts to claim now: none, or at least a batch. */
static size_t room(struct worker *w) {
    size_t target = 2 * (size_t)w->o->n_callers * w->o->batch;
    pthread_mutex_lock(&w->lock);
    bool is_well = schedule_is_well(&w->schedule);
    pthread_mutex_unlock(&w->lock);
    if (!is_well || w->n_held + w->o->batch > target || (w->is_alone && w->n_held))
        return 0;
    size_t n = target - w->n_held;
    return n < WORK_MAX_CLAIM ? n : WORK_MAX_CLAIM;
}

static enum status claim(struct worker *w, int64_t now_ns, struct error *err) {
    struct error why = {0};
    size_t cap = room(w);
    if (cap == 0 || now_ns < w->claim_ns || (w->n_failures > 0 && w->ended.first))
        return STATUS_OK;
    struct load *load = load_new(cap);
    enum status status =
        load ? w->o->work->calls->claim(w->o->work, w->n_held ? 0 : WAIT_IDLE_NS,
                                        &load->arena, load->items, cap, &load->n, &why)
             : error_set(&why, STATUS_NO_MEMORY, "no memory for a batch of posts");
    if (status != STATUS_OK) {
        if (load)
            arena_free(&load->arena);
        free(load);
        store_failed(w, "claim posts", &why, now_ns, &w->claim_ns);
        return is_passing(status) ? STATUS_OK
                                  : error_set(err, status, "%s", why.message);
    }
    store_works(w);
    w->is_empty = load->n == 0;
    if (w->is_empty) {
        arena_free(&load->arena);
        free(load);
        w->claim_ns = now_ns + (w->o->work->waits ? IDLE_MIN_NS : w->idle_ns);
        w->idle_ns = 2 * w->idle_ns < IDLE_MAX_NS ? 2 * w->idle_ns : IDLE_MAX_NS;
        return STATUS_OK;
    }
    w->idle_ns = IDLE_MIN_NS;
    w->is_alone = load->items[0].claim.is_alone;
    w->claim_ns = load->n < cap ? now_ns + GATHER_NS : now_ns;
    w->o->metrics->n_claimed += load->n;
    load->next = w->loads;
    w->loads = load;
    w->n_held += load->n;
    pthread_mutex_lock(&w->lock);
    status = cut_load(w, load, &why);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (status != STATUS_OK) {
        store_failed(w, "take posts", &why, now_ns, &w->claim_ns);
        if (load->n == 0)
            free_load(w, load);
    }
    return STATUS_OK;
}

static void extend(struct worker *w, int64_t now_ns) {
    struct error why = {0};
    size_t n = 0;
    if (now_ns < w->extend_ns || w->n_held == 0)
        return;
    w->extend_ns = now_ns + w->o->lease_ns / EXTENSIONS_A_LEASE;
    struct work_item **items = calloc(w->n_held, sizeof(struct work_item *));
    for (struct load *load = w->loads; load && items; load = load->next)
        for (size_t i = 0; i < load->n && n < w->n_held; i++)
            if (!load->is_settled[i])
                items[n++] = &load->items[i];
    if (items && n > 0 &&
        w->o->work->calls->extend(w->o->work, items, n, &why) != STATUS_OK)
        log_message(LOG_LEVEL_WARNING, "store_failed", "cannot extend claims: %s",
                    why.message);
    free(items);
}

/* ---- the loop ---- */

static bool is_stopped(struct worker *w, int64_t wait_ns) {
    struct pollfd fds[2] = {{.fd = w->event_fd, .events = POLLIN},
                            {.fd = w->o->stop_fd, .events = POLLIN}};
    eventfd_t count;
    int64_t ms = (wait_ns + 999999) / 1000000;
    if (poll(fds, 2, ms > 60000 ? 60000 : ms < 0 ? 0 : (int)ms) > 0 && fds[0].revents)
        (void)eventfd_read(w->event_fd, &count);
    return fds[1].revents != 0;
}

static int64_t until_next(struct worker *w, int64_t now_ns) {
    int64_t next = now_ns + IDLE_MAX_NS;
    if (w->ended.first && w->settle_ns < next)
        next = w->settle_ns;
    if (w->n_held && w->extend_ns < next)
        next = w->extend_ns;
    if (room(w) && w->claim_ns < next)
        next = w->claim_ns;
    if (w->o->on_progress && w->progress_ns < next)
        next = w->progress_ns;
    return next > now_ns ? next - now_ns : 0;
}

static void show_progress(struct worker *w, int64_t now_ns) {
    const struct worker_summary *s = &w->summary;
    if (!w->o->on_progress || now_ns < w->progress_ns)
        return;
    w->progress_ns = now_ns + PROGRESS_NS;
    w->o->on_progress(w->o->progress_context, s->n_done + s->n_given_up);
}

static bool is_at_end(struct worker *w) {
    int64_t n_left = 1;
    struct error why = {0};
    if (!w->o->is_once || !w->is_empty || w->n_held > 0)
        return false;
    if (w->o->work->calls->left(w->o->work, &n_left, &why) != STATUS_OK)
        log_message(LOG_LEVEL_WARNING, "store_failed", "cannot count what is left: %s",
                    why.message);
    w->is_empty = false; /* ask again only after the next claim */
    return n_left == 0;
}

static enum status loop(struct worker *w, struct error *err) {
    bool is_stopping = false;
    while (!is_stopping) {
        int64_t now_ns = clock_now_ns();
        enum status status = settle(w, now_ns, err);
        if (status == STATUS_OK)
            status = claim(w, now_ns, err);
        if (status != STATUS_OK)
            return status;
        extend(w, now_ns);
        show_progress(w, now_ns);
        w->o->metrics->n_held = (int64_t)w->n_held;
        if (is_at_end(w))
            return STATUS_OK;
        is_stopping = is_stopped(w, until_next(w, clock_now_ns()));
        pthread_mutex_lock(&w->lock);
        is_stopping |= w->schedule.is_stopping;
        pthread_mutex_unlock(&w->lock);
    }
    return STATUS_OK;
}

/* Lets calls end, and settles what they brought and what waited. */
static enum status drain(struct worker *w, struct error *err) {
    enum status status = STATUS_OK;
    pthread_mutex_lock(&w->lock);
    schedule_stop(&w->schedule);
    pthread_cond_broadcast(&w->changed);
    bool is_busy = w->schedule.n_in_flight > 0 || w->schedule.is_probing;
    pthread_mutex_unlock(&w->lock);
    /* What is released is free for others while the last calls end. */
    while (is_busy && status == STATUS_OK) {
        int64_t now_ns = clock_now_ns();
        status = settle(w, now_ns, err);
        extend(w, now_ns);
        struct pollfd fd = {.fd = w->event_fd, .events = POLLIN};
        eventfd_t count;
        if (poll(&fd, 1, 200) > 0)
            (void)eventfd_read(w->event_fd, &count);
        pthread_mutex_lock(&w->lock);
        is_busy = w->schedule.n_in_flight > 0 || w->schedule.is_probing;
        pthread_mutex_unlock(&w->lock);
    }
    for (int32_t i = 0; i < w->n_started; i++)
        pthread_join(w->callers[i].thread, NULL);
    w->n_started = 0;
    int64_t end_ns = clock_now_ns() + LAST_SETTLE_NS;
    for (w->settle_ns = 0; status == STATUS_OK;) {
        status = settle(w, clock_now_ns(), err);
        if (status != STATUS_OK || !w->ended.first)
            break;
        if (clock_now_ns() >= end_ns)
            return error_set(
                err, STATUS_IO,
                "the store does not take the last results; the posts will be "
                "claimed again");
        (void)poll(NULL, 0, (int)(IDLE_MIN_NS / 1000000));
    }
    return status;
}

static enum status start_callers(struct worker *w, struct error *err) {
    w->callers = calloc((size_t)w->o->n_callers, sizeof *w->callers);
    if (!w->callers)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %d callers",
                         (int)w->o->n_callers);
    for (int32_t i = 0; i < w->o->n_callers; i++) {
        w->callers[i].worker = w;
        w->callers[i].calls = &w->o->callers[i];
        if (pthread_create(&w->callers[i].thread, NULL, run_caller, &w->callers[i]) !=
            0)
            return error_set(err, STATUS_IO, "cannot start a thread");
        w->n_started++;
    }
    return STATUS_OK;
}

/* Freed whole, whatever is in it; the claims end by themselves. */
static void free_parts(struct part_list *list) {
    for (struct part *p = list->first, *next; p; p = next) {
        next = p->next;
        part_free(p);
    }
}

enum status worker_run(const struct worker_options *options, struct worker_summary *out,
                       struct error *err) {
    struct worker w = {.o = options,
                       .lock = PTHREAD_MUTEX_INITIALIZER,
                       .idle_ns = IDLE_MIN_NS,
                       .arena.max_bytes = SETTLE_BYTES,
                       .random.state = options->seed};
    pthread_condattr_t monotonic;
    struct error last = {0};
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w.changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    schedule_init(&w.schedule, options->n_callers,
                  options->work->counts_releases ? 0 : options->lease_ns / 2,
                  retry_random_next(&w.random));
    w.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w.extend_ns = clock_now_ns() + options->lease_ns / EXTENSIONS_A_LEASE;
    enum status status =
        w.event_fd < 0
            ? error_set(err, STATUS_IO, "cannot make an eventfd: %s", strerror(errno))
            : start_callers(&w, err);
    if (status == STATUS_OK)
        status = loop(&w, err);
    enum status drained = drain(&w, &last);
    if (status == STATUS_OK && drained != STATUS_OK)
        status = error_set(err, drained, "%s", last.message);
    if (status == STATUS_OK && w.schedule.is_denied)
        status = error_set(err, STATUS_INVALID, "%s", w.schedule.denied.message);
    w.summary.n_requests = w.schedule.budget.n_requests;
    w.summary.n_retries = w.schedule.budget.n_retries;
    *out = w.summary;
    free_parts(&w.ended);
    schedule_free(&w.schedule);
    while (w.loads)
        free_load(&w, w.loads);
    arena_free(&w.arena);
    free(w.callers);
    if (w.event_fd >= 0)
        close(w.event_fd);
    pthread_cond_destroy(&w.changed);
    pthread_mutex_destroy(&w.lock);
    return status;
}
