/* SPDX-License-Identifier: Apache-2.0
 *
 * test_schedule.c - the schedule against made-up servers in made-up time: bad posts are found
 * and alone pay, a server that is away costs nobody anything, nothing storms.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "client/worker/schedule.h"

#define S CLOCK_NS_PER_SECOND
#define MS (S / 1000)
enum { MAX_POSTS = 1024, MAX_CALLS = 16 };

struct call {
    struct part *part; /* NULL: a probe */
    bool is_used;
    int64_t end_ns;
    struct classifier_answer answer;
};

struct sim;
/* What the server says to posts [first, first + n), to a probe when n is 0; and how long it
 * takes. */
struct server {
    void (*answer)(struct sim *sim, size_t first, size_t n,
                   struct classifier_answer *out, int64_t *spent_ns);
    enum classifier_kind kind; /* of failures */
    size_t poison;             /* the post at which it fails, from 1; 0: none */
    int64_t away_from_ns, away_until_ns;
    int64_t retry_after_ns;
    int32_t capacity; /* in flight; more are refused */
};

struct sim {
    struct schedule s;
    struct server server;
    int64_t now_ns;
    struct call calls[MAX_CALLS];
    int32_t n_callers;
    enum part_end ends[MAX_POSTS];
    int32_t n_ends[MAX_POSTS]; /* how often it ended */
    int64_t end_ns[MAX_POSTS];
    int64_t sent_ns[MAX_POSTS]; /* last */
    int64_t n_sent, n_probes;
    int64_t probe_ns; /* when the first probe was sent */
    int32_t n_in_flight;
};

static struct sim sim;

static void sim_init(int32_t n_callers, int64_t release_ns, struct server server,
                     uint64_t seed) {
    memset(&sim, 0, sizeof sim);
    sim.now_ns = 1000 * S;
    sim.n_callers = n_callers;
    sim.server = server;
    schedule_init(&sim.s, n_callers, release_ns, seed);
}

static void sim_add(size_t first, size_t n) {
    struct part *p = part_new(NULL, first, n);
    assert_non_null(p);
    schedule_add(&sim.s, p);
}

static bool collect(struct sim *m) {
    struct part *first = schedule_take_done(&m->s);
    for (struct part *p = first, *next; p; p = next) {
        next = p->next;
        for (size_t i = p->first; i < p->first + p->n; i++) {
            m->ends[i] = p->end;
            m->n_ends[i]++;
            m->end_ns[i] = m->now_ns;
        }
        part_free(p);
    }
    return first != NULL;
}

static bool start(struct sim *m, int64_t *until_ns) {
    struct part *p;
    int32_t i = 0;
    while (i < m->n_callers && m->calls[i].is_used)
        i++;
    if (i == m->n_callers)
        return false;
    enum schedule_step step = schedule_next(&m->s, m->now_ns, &p, until_ns);
    if (step != SCHEDULE_CALL && step != SCHEDULE_PROBE)
        return false;
    struct call *c = &m->calls[i];
    int64_t spent_ns = 10 * MS;
    *c = (struct call){.part = p, .is_used = true, .answer.retry_after_ns = -1};
    m->n_sent += p != NULL;
    if (!p && m->n_probes++ == 0)
        m->probe_ns = m->now_ns;
    m->n_in_flight++;
    for (size_t k = 0; p && k < p->n; k++)
        m->sent_ns[p->first + k] = m->now_ns;
    m->server.answer(m, p ? p->first : 0, p ? p->n : 0, &c->answer, &spent_ns);
    c->end_ns = m->now_ns + spent_ns;
    return true;
}

static void finish(struct sim *m, struct call *c) {
    c->is_used = false;
    m->n_in_flight--;
    if (c->part) {
        c->part->answer = c->answer;
        schedule_answered(&m->s, c->part, m->now_ns);
    } else {
        schedule_probed(&m->s, &c->answer, m->now_ns);
    }
}

/* One step of time, at most to end_ns; false at the end of it. */
static bool step(struct sim *m, int64_t end_ns) {
    int64_t until_ns = INT64_MAX, at_ns = end_ns;
    while (start(m, &until_ns)) {
    }
    if (collect(m))
        return true;
    at_ns = until_ns < at_ns ? until_ns : at_ns;
    for (int32_t i = 0; i < m->n_callers; i++)
        if (m->calls[i].is_used && m->calls[i].end_ns < at_ns)
            at_ns = m->calls[i].end_ns;
    if (at_ns >= end_ns) {
        m->now_ns = end_ns;
        return false;
    }
    m->now_ns = at_ns > m->now_ns ? at_ns : m->now_ns + 1;
    for (int32_t i = 0; i < m->n_callers; i++)
        if (m->calls[i].is_used && m->calls[i].end_ns <= m->now_ns)
            finish(m, &m->calls[i]);
    return true;
}

static bool has_ended(const struct sim *m, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!m->n_ends[i])
            return false;
    return true;
}

/* Until posts [0, n) have ended, or that long. */
static bool run(size_t n, int64_t ns) {
    int64_t end_ns = sim.now_ns + ns;
    while (!has_ended(&sim, n) && step(&sim, end_ns)) {
    }
    return has_ended(&sim, n);
}

static size_t count(enum part_end end, size_t n) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        found += sim.ends[i] == end;
        assert_in_range(sim.n_ends[i], 0, 1);
    }
    return found;
}

static int tear_down(void **state) {
    (void)state;
    for (int32_t i = 0; i < MAX_CALLS; i++)
        if (sim.calls[i].is_used)
            part_free(sim.calls[i].part);
    schedule_free(&sim.s);
    return 0;
}

/* ---- servers ---- */

static bool has_poison(struct sim *m, size_t first, size_t n) {
    return m->server.poison > first && m->server.poison <= first + n;
}

/* Fails at the poison, and at all while it is away. */
static void answer_plain(struct sim *m, size_t first, size_t n,
                         struct classifier_answer *out, int64_t *spent_ns) {
    bool is_away =
        m->now_ns >= m->server.away_from_ns && m->now_ns < m->server.away_until_ns;
    out->kind = is_away || has_poison(m, first, n) ? m->server.kind : CLASSIFIER_OK;
    if (out->kind == CLASSIFIER_LATE)
        *spent_ns = 20 * S;
    if (out->kind != CLASSIFIER_OK && m->server.retry_after_ns)
        out->retry_after_ns = m->server.retry_after_ns;
}

static void answer_by_room(struct sim *m, size_t first, size_t n,
                           struct classifier_answer *out, int64_t *spent_ns) {
    (void)first;
    out->kind = m->n_in_flight > m->server.capacity ? CLASSIFIER_BUSY : CLASSIFIER_OK;
    *spent_ns = out->kind == CLASSIFIER_OK ? 50 * MS * m->n_in_flight : MS;
    if (out->kind == CLASSIFIER_BUSY)
        out->retry_after_ns = S;
    (void)n;
}

/* At the poison the whole server falls, and with it every call that is under way; it is
 * started again at once. */
static void answer_and_fall(struct sim *m, size_t first, size_t n,
                            struct classifier_answer *out, int64_t *spent_ns) {
    *spent_ns = 50 * MS;
    out->kind = has_poison(m, first, n) ? CLASSIFIER_BROKEN : CLASSIFIER_OK;
    for (int32_t i = 0; i < m->n_callers && out->kind == CLASSIFIER_BROKEN; i++)
        if (m->calls[i].is_used && m->calls[i].end_ns > m->now_ns)
            m->calls[i].answer.kind = CLASSIFIER_BROKEN;
}

#define PLAIN(...) ((struct server){.answer = answer_plain, __VA_ARGS__})

/* ---- tests ---- */

static void what_goes_well_is_sent_once(void **state) {
    (void)state;
    sim_init(4, 0, PLAIN(.kind = CLASSIFIER_OK), 1);
    for (size_t i = 0; i < 512; i += 64)
        sim_add(i, 64);
    assert_true(run(512, 10 * S));
    assert_int_equal(count(PART_ANSWERED, 512), 512);
    assert_int_equal(sim.n_sent, 8);
    assert_int_equal(sim.n_probes, 0);
}

/* One bad post in 500, in every place and in every way of being bad. */
static void a_bad_post_is_found_and_harms_no_other(void **state) {
    (void)state;
    const struct {
        enum classifier_kind kind;
        enum part_end end;
        int64_t others_ns; /* until all others have their answers */
        int64_t max_sent;
    } cases[] = {{CLASSIFIER_REFUSED, PART_GIVE_UP, 5 * S, 40},
                 {CLASSIFIER_FAILED, PART_RETRY, 40 * S, 60},
                 {CLASSIFIER_BROKEN, PART_RETRY, 40 * S, 60},
                 {CLASSIFIER_LATE, PART_RETRY, 300 * S, 60}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int32_t n_callers = 1; n_callers <= 4; n_callers += 3)
            for (size_t poison = 0; poison < 500; poison += 7) {
                sim_init(n_callers, 0,
                         PLAIN(.kind = cases[c].kind, .poison = poison + 1), poison);
                for (size_t i = 0; i < 500; i += 50)
                    sim_add(i, 50);
                assert_true(run(500, 1000 * S));
                assert_int_equal(sim.ends[poison], cases[c].end);
                assert_int_equal(count(PART_ANSWERED, 500), 499);
                assert_in_range(sim.n_sent, 10, cases[c].max_sent);
                for (size_t i = 0; i < 500; i++)
                    if (i != poison)
                        assert_in_range(sim.end_ns[i] - 1000 * S, 0,
                                        cases[c].others_ns);
                tear_down(NULL);
            }
}

/* A post that fells the server takes all with it that is under way. They are not blamed. */
static void who_falls_with_a_bad_post_is_not_blamed(void **state) {
    (void)state;
    int64_t n_longest = 0;
    for (size_t poison = 0; poison < 240; poison++) {
        sim_init(8, 0, (struct server){.answer = answer_and_fall, .poison = poison + 1},
                 poison);
        for (size_t i = 0; i < 240; i += 3)
            sim_add(i, 3);
        assert_true(run(240, 1000 * S));
        assert_int_equal(sim.ends[poison], PART_RETRY);
        assert_int_equal(count(PART_ANSWERED, 240), 239);
        n_longest = sim.n_sent > n_longest ? sim.n_sent : n_longest;
        tear_down(NULL);
    }
    assert_in_range(n_longest, 80, 120);
}

/* However it is away, and however long: no post is judged. */
static void a_server_that_is_away_costs_nobody_a_try(void **state) {
    (void)state;
    for (int kind = CLASSIFIER_UNREACHABLE; kind <= CLASSIFIER_LATE; kind++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            int64_t until_ns = 1000 * S + 24 * 3600 * S;
            sim_init(
                4, 0,
                PLAIN(.kind = (enum classifier_kind)kind, .away_until_ns = until_ns),
                seed);
            for (size_t i = 0; i < 256; i += 32)
                sim_add(i, 32);
            assert_false(run(256, 24 * 3600 * S));
            assert_int_equal(count(PART_OPEN, 256), 256);
            /* A day of it: the first calls, and probes. */
            assert_in_range(sim.n_sent, 1, 40);
            assert_true(run(256, 600 * S));
            assert_int_equal(count(PART_ANSWERED, 256), 256);
            tear_down(NULL);
        }
}

/* With retries saved up, posts that come one by one reach their verdict at once: it has to
 * wait for a sign that the server is well. */
static void a_post_alone_is_not_judged_by_a_dead_server(void **state) {
    (void)state;
    for (int kind = CLASSIFIER_UNREACHABLE; kind <= CLASSIFIER_LATE; kind++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            sim_init(1, 0, PLAIN(.kind = (enum classifier_kind)kind), seed);
            for (size_t i = 0; i < 200; i++)
                sim_add(i, 1);
            assert_true(run(200, 60 * S));
            sim.server.away_from_ns = sim.now_ns;
            sim.server.away_until_ns = sim.now_ns + 3600 * S;
            for (size_t i = 200; i < 204; i++)
                sim_add(i, 1);
            assert_false(run(204, 3600 * S));
            assert_int_equal(count(PART_ANSWERED, 204), 200);
            assert_int_equal(count(PART_OPEN, 204), 4);
            assert_true(run(204, 600 * S));
            /* Who broke a connection is not believed, but that costs a try at most. */
            if (kind == CLASSIFIER_BROKEN)
                assert_int_equal(count(PART_ANSWERED, 204) + count(PART_RETRY, 204),
                                 204);
            else
                assert_int_equal(count(PART_ANSWERED, 204), 204);
            tear_down(NULL);
        }
}

static void posts_are_given_back_when_it_stays_away(void **state) {
    (void)state;
    int64_t until_ns = 1000 * S + 3600 * S;
    sim_init(4, 30 * S,
             PLAIN(.kind = CLASSIFIER_UNREACHABLE, .away_until_ns = until_ns), 3);
    for (size_t i = 0; i < 256; i += 64)
        sim_add(i, 64);
    assert_true(run(256, 40 * S));
    assert_int_equal(count(PART_RELEASE, 256), 256);
    assert_in_range(sim.end_ns[0] - 1000 * S, 30 * S, 35 * S);
    assert_false(schedule_is_well(&sim.s));
    /* It asks on without having any, and knows when it is back. */
    assert_false(run(257, 3700 * S));
    assert_true(schedule_is_well(&sim.s));
}

/* A bad post and a server that comes and goes: nobody pays for the server. */
static void flapping_is_not_held_against_posts(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        sim_init(4, 0, PLAIN(.kind = CLASSIFIER_FAILED, .poison = 78), seed);
        for (size_t i = 0; i < 256; i += 64)
            sim_add(i, 64);
        for (int k = 0; k < 200 && !has_ended(&sim, 256); k++) {
            sim.server.away_from_ns = sim.now_ns;
            sim.server.away_until_ns = sim.now_ns + 20 * S;
            run(256, 60 * S);
        }
        assert_int_equal(sim.ends[77], PART_RETRY);
        assert_int_equal(count(PART_ANSWERED, 256), 255);
        tear_down(NULL);
    }
}

/* Also where a retry is at hand. */
static void a_retry_obeys_retry_after(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        sim_init(1, 0, PLAIN(.kind = CLASSIFIER_BUSY, .retry_after_ns = 7 * S), seed);
        for (size_t i = 0; i < 200; i++)
            sim_add(i, 1);
        assert_true(run(200, 60 * S));
        int64_t from_ns = sim.now_ns;
        sim.server.away_from_ns = from_ns;
        sim.server.away_until_ns = from_ns + 1;
        sim_add(200, 1);
        assert_true(run(201, 100 * S));
        assert_int_equal(sim.s.budget.n_retries, 1);
        assert_in_range(sim.sent_ns[200] - from_ns, 7 * S + 10 * MS, 8 * S);
        tear_down(NULL);
    }
}

static void retry_after_is_obeyed(void **state) {
    (void)state;
    const enum classifier_kind kinds[] = {CLASSIFIER_BUSY, CLASSIFIER_UNWELL};
    for (size_t k = 0; k < 2; k++)
        for (uint64_t seed = 0; seed < 50; seed++) {
            sim_init(1, 0,
                     PLAIN(.kind = kinds[k], .away_until_ns = 1000 * S + 1,
                           .retry_after_ns = 7 * S),
                     seed);
            sim_add(0, 64);
            assert_true(run(64, 100 * S));
            assert_int_equal(sim.n_sent, 2);
            assert_true(sim.probe_ns >= 1007 * S); /* a probe is a request too */
            assert_in_range(sim.sent_ns[0], 1007 * S + 10 * MS, 1047 * S);
            tear_down(NULL);
        }
}

/* A server that takes three at a time: that many are sent, and it is never idle. */
static void a_busy_server_gets_what_it_can_take(void **state) {
    (void)state;
    sim_init(8, 0, (struct server){.answer = answer_by_room, .capacity = 3}, 9);
    for (size_t i = 0; i < 1000; i++)
        sim_add(i, 1);
    assert_true(run(1000, 120 * S));
    assert_int_equal(count(PART_ANSWERED, 1000), 1000);
    /* 50 s at best, at 20 a second. */
    assert_in_range(sim.now_ns - 1000 * S, 49 * S, 62 * S);
    assert_in_range(sim.n_sent, 1000, 1150);
    assert_in_range(sim.s.limit, 2, 5);
}

static void stopping_releases_what_waits(void **state) {
    (void)state;
    sim_init(2, 0, PLAIN(.kind = CLASSIFIER_FAILED, .poison = 70), 1);
    for (size_t i = 0; i < 256; i += 64)
        sim_add(i, 64);
    int64_t until_ns = INT64_MAX;
    assert_true(start(&sim, &until_ns));
    assert_true(start(&sim, &until_ns));
    schedule_stop(&sim.s);
    assert_true(run(256, S));
    assert_int_equal(count(PART_ANSWERED, 256), 64);
    assert_int_equal(count(PART_RELEASE, 256), 192);
    struct part *p;
    assert_int_equal(schedule_next(&sim.s, sim.now_ns, &p, &until_ns), SCHEDULE_END);
}

static void who_is_denied_stops(void **state) {
    (void)state;
    sim_init(2, 0, PLAIN(.kind = CLASSIFIER_DENIED, .poison = 130), 1);
    for (size_t i = 0; i < 256; i += 64)
        sim_add(i, 64);
    assert_true(run(256, S));
    assert_true(sim.s.is_denied);
    assert_true(sim.s.is_stopping);
    assert_int_equal(count(PART_GIVE_UP, 256) + count(PART_RETRY, 256), 0);
}

/* ---- many clients ---- */

enum { CLIENTS = 100 };
static struct sim clients[CLIENTS];

/* A second of all clients, each with two requests a second to send. Returns how many were
 * sent; a client claims no more while it has eight, as worker.c does. */
static int64_t second_of_all(int64_t now_ns) {
    int64_t n = 0;
    for (size_t c = 0; c < CLIENTS; c++) {
        struct sim *m = &clients[c];
        int64_t before = m->n_sent + m->n_probes;
        for (int half = 0; half < 2; half++) {
            int32_t n_held = m->s.n_in_flight;
            for (const struct part *p = m->s.waiting.first; p; p = p->next)
                n_held++;
            if (n_held < 8 && schedule_is_well(&m->s))
                schedule_add(&m->s, part_new(NULL, 0, 1));
            while (step(m, now_ns + (half + 1) * S / 2)) {
            }
        }
        n += m->n_sent + m->n_probes - before;
    }
    return n;
}

static void no_storm(void **state) {
    (void)state;
    const enum classifier_kind kinds[] = {CLASSIFIER_UNREACHABLE, CLASSIFIER_UNWELL,
                                          CLASSIFIER_BROKEN, CLASSIFIER_FAILED,
                                          CLASSIFIER_BUSY};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        int64_t n_steady = 0, n_dead = 0, peak = 0, n_retries = 0, n_requests = 0;
        for (size_t c = 0; c < CLIENTS; c++) {
            sim_init(4, 0,
                     PLAIN(.kind = kinds[k], .away_from_ns = 1060 * S,
                           .away_until_ns = 1120 * S),
                     k * CLIENTS + c);
            clients[c] = sim;
            clients[c].now_ns += (int64_t)c * S / 2 / CLIENTS;
        }
        for (int64_t t = 1000; t < 1240; t++) {
            int64_t n = second_of_all(t * S);
            n_steady += t < 1060 ? n : 0;
            n_dead += t >= 1060 && t < 1120 ? n : 0;
            peak = t >= 1120 && n > peak ? n : peak;
        }
        for (size_t c = 0; c < CLIENTS; c++) {
            n_retries += clients[c].s.budget.n_retries;
            n_requests += clients[c].s.budget.n_requests;
            sim = clients[c];
            tear_down(NULL);
        }
        memset(&sim, 0, sizeof sim);
        print_message(
            "          %s: %lld a minute, %lld while it was dead, peak %lld/s "
            "after; %lld retries of %lld\n",
            classifier_kind_name(kinds[k]), (long long)n_steady, (long long)n_dead,
            (long long)peak, (long long)n_retries, (long long)n_requests);
        assert_true(n_retries * 10 <= n_requests);
        assert_true(n_dead * 4 < n_steady);
        assert_true(peak * 60 * 2 <= n_steady * 3); /* 1.5 times the mean second */
    }
}

/* ---- a server out of its mind ---- */

static struct retry_random chance;

static void answer_madly(struct sim *m, size_t first, size_t n,
                         struct classifier_answer *out, int64_t *spent_ns) {
    bool is_bad = retry_random_share(&chance) < 0.3;
    out->kind = has_poison(m, first, n) ? m->server.kind : CLASSIFIER_OK;
    if (is_bad)
        out->kind = (enum classifier_kind)retry_random_between(
            &chance, CLASSIFIER_UNREACHABLE, CLASSIFIER_DENIED);
    if (out->kind == CLASSIFIER_REFUSED && n != 1 && is_bad)
        out->kind = CLASSIFIER_UNWELL; /* 400 to a good post alone is a verdict */
    if (out->kind == CLASSIFIER_REFUSED && is_bad)
        out->kind = CLASSIFIER_BUSY;
    *spent_ns = retry_random_between(&chance, MS,
                                     out->kind == CLASSIFIER_LATE ? 20 * S : 100 * MS);
    if (out->kind == CLASSIFIER_BUSY || out->kind == CLASSIFIER_UNWELL)
        out->retry_after_ns = retry_random_between(&chance, -1, 2) * S;
}

static void whatever_happens_every_post_ends_once(void **state) {
    (void)state;
    size_t n_unjust = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        chance.state = seed;
        sim_init(1 + (int32_t)(seed % 8), 0,
                 (struct server){.answer = answer_madly,
                                 .kind = CLASSIFIER_FAILED,
                                 .poison = seed % 256 + 1},
                 seed);
        for (size_t i = 0; i < 256; i += 32)
            sim_add(i, 32);
        assert_true(run(256, 24 * 3600 * S));
        assert_int_equal(sim.ends[seed % 256], PART_RETRY);
        assert_int_equal(count(PART_GIVE_UP, 256), 0);
        n_unjust += 255 - count(PART_ANSWERED, 256);
        assert_int_equal(sim.s.n_in_flight, 0);
        tear_down(NULL);
    }
    /* Bad luck may cost a neighbour a try, seldom: that is what tries are for. */
    assert_in_range(n_unjust, 0, 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_goes_well_is_sent_once, tear_down),
        cmocka_unit_test(a_bad_post_is_found_and_harms_no_other),
        cmocka_unit_test(who_falls_with_a_bad_post_is_not_blamed),
        cmocka_unit_test(a_server_that_is_away_costs_nobody_a_try),
        cmocka_unit_test(a_post_alone_is_not_judged_by_a_dead_server),
        cmocka_unit_test_teardown(posts_are_given_back_when_it_stays_away, tear_down),
        cmocka_unit_test(flapping_is_not_held_against_posts),
        cmocka_unit_test(a_retry_obeys_retry_after),
        cmocka_unit_test(retry_after_is_obeyed),
        cmocka_unit_test_teardown(a_busy_server_gets_what_it_can_take, tear_down),
        cmocka_unit_test_teardown(stopping_releases_what_waits, tear_down),
        cmocka_unit_test_teardown(who_is_denied_stops, tear_down),
        cmocka_unit_test(no_storm),
        cmocka_unit_test(whatever_happens_every_post_ends_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
