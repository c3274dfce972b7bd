/* SPDX-License-Identifier: Apache-2.0 */
#include "client/worker/schedule.h"

#include <stdlib.h>

#include "base/clock.h"

#define PART_ARENA_BYTES ((size_t)64 << 20)
/* A part that was refused so often for want of room is halved: it may be too large for the
 * server's memory at any time. */
#define BUSY_TO_SPLIT 8
#define THROTTLED_NS CLOCK_NS_PER_SECOND /* at a time, at most */
#define RESTART_NS (5 * CLOCK_NS_PER_SECOND)
/* Answers in a row, for each call in flight, until one more may be. */
#define CREDITS_A_CALL 8
#define MAX_DOUBTS 2
#define NEVER INT64_MAX

/* ---- parts ---- */

struct part *part_new(struct load *load, size_t first, size_t n) {
    struct part *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->load = load;
    p->first = first;
    p->n = n;
    p->arena.max_bytes = PART_ARENA_BYTES;
    return p;
}

void part_free(struct part *p) {
    if (!p)
        return;
    arena_free(&p->arena);
    free(p);
}

static void list_add(struct part_list *list, struct part *p) {
    p->next = NULL;
    if (list->last)
        list->last->next = p;
    else
        list->first = p;
    list->last = p;
}

static void list_remove(struct part_list *list, struct part *before, struct part *p) {
    if (before)
        before->next = p->next;
    else
        list->first = p->next;
    if (list->last == p)
        list->last = before;
    p->next = NULL;
}

static void list_free(struct part_list *list) {
    for (struct part *p = list->first, *next; p; p = next) {
        next = p->next;
        part_free(p);
    }
    *list = (struct part_list){NULL, NULL};
}

void schedule_init(struct schedule *s, int32_t max_in_flight, int64_t release_ns,
                   uint64_t seed) {
    *s = (struct schedule){.max_in_flight = max_in_flight,
                           .release_ns = release_ns,
                           .limit = max_in_flight,
                           .known_limit = max_in_flight,
                           .random.state = seed};
    breaker_init(&s->breaker, max_in_flight, retry_random_next(&s->random));
}

void schedule_free(struct schedule *s) {
    list_free(&s->waiting);
    list_free(&s->done);
}

void schedule_add(struct schedule *s, struct part *p) {
    list_add(&s->waiting, p);
}

struct part *schedule_take_done(struct schedule *s) {
    struct part *first = s->done.first;
    s->done = (struct part_list){NULL, NULL};
    return first;
}

static void finish(struct schedule *s, struct part *p, enum part_end end) {
    p->end = end;
    list_add(&s->done, p);
}

/* ---- how many at once ---- */

static void lower_limit(struct schedule *s, const struct part *p) {
    /* What was sent before the last lowering says nothing about it. */
    if (p->sent_mark <= s->n_lowered)
        return;
    s->n_lowered = s->n_sent;
    s->limit = s->limit > 1 ? s->limit - 1 : 1;
    s->known_limit = s->limit;
    s->n_credits = 0;
}

/* Quickly up to what went well before, slowly beyond. */
static void raise_limit(struct schedule *s) {
    int32_t wanted = s->limit < s->known_limit ? 1 : CREDITS_A_CALL * s->limit;
    if (s->limit >= s->max_in_flight || ++s->n_credits < wanted)
        return;
    s->n_credits = 0;
    s->limit++;
}

/* ---- what is known of the server ---- */

static void note_well(struct schedule *s) {
    s->n_good++;
    s->unwell_since_ns = 0;
    s->n_bad_probes = 0;
}

static void plan_probe(struct schedule *s, int64_t now_ns, int64_t retry_after_ns) {
    if (s->probe_ns <= now_ns)
        s->probe_ns = now_ns + retry_wait_ns(&s->random, s->n_bad_probes);
    if (s->probe_ns < now_ns + retry_after_ns)
        s->probe_ns = now_ns + retry_after_ns;
}

static void note_unwell(struct schedule *s, int64_t now_ns) {
    if (!s->unwell_since_ns)
        s->unwell_since_ns = now_ns > 0 ? now_ns : 1;
}

bool schedule_is_well(const struct schedule *s) {
    return s->breaker.state == BREAKER_CLOSED && !s->unwell_since_ns && !s->is_stopping;
}

/* ---- failures ---- */

static int64_t clamp_wait(int64_t retry_after_ns) {
    return retry_after_ns < SCHEDULE_MAX_RETRY_AFTER_NS ? retry_after_ns
                                                        : SCHEDULE_MAX_RETRY_AFTER_NS;
}

static void park(struct schedule *s, struct part *p, int64_t now_ns,
                 int64_t retry_after_ns) {
    p->is_parked = true;
    p->good_mark = s->n_good;
    p->n_attempts = 0;
    plan_probe(s, now_ns, retry_after_ns);
    list_add(&s->waiting, p);
}

/* The same part again, soon or when the server is known to be well. To one that says itself
 * that it is away, a retry would tell nothing: a probe will. */
static void try_again(struct schedule *s, struct part *p, int64_t now_ns) {
    int64_t asked = clamp_wait(p->answer.retry_after_ns);
    bool is_away =
        p->answer.kind == CLASSIFIER_UNREACHABLE || p->answer.kind == CLASSIFIER_UNWELL;
    p->not_before_ns =
        now_ns + (asked >= 0 ? asked : retry_wait_ns(&s->random, p->n_rounds));
    p->n_rounds++;
    if (s->is_stopping) {
        finish(s, p, PART_RELEASE);
    } else if (!is_away && p->n_attempts < RETRY_MAX_ATTEMPTS &&
               retry_budget_take(&s->budget)) {
        list_add(&s->waiting, p);
    } else {
        park(s, p, now_ns, asked);
    }
}

static void halve(struct schedule *s, struct part *p, int64_t now_ns) {
    struct part *other =
        s->is_stopping ? NULL : part_new(p->load, p->first + p->n / 2, p->n - p->n / 2);
    if (!other) {
        try_again(s, p, now_ns);
        return;
    }
    s->n_splits++;
    other->goes_alone = p->goes_alone;
    other->was_blamed = p->was_blamed;
    p->n /= 2;
    p->n_failures = p->n_rounds = p->n_busy = 0;
    p->not_before_ns = 0;
    park(s, p, now_ns, -1);
    park(s, other, now_ns, -1);
}

static void suspect(struct schedule *s, struct part *p, enum part_end verdict,
                    int64_t now_ns) {
    p->verdict = verdict;
    p->bad_mark = s->n_bad;
    p->not_before_ns = 0;
    if (s->is_stopping)
        finish(s, p, PART_RELEASE);
    else
        park(s, p, now_ns, -1);
}

/* The part may be to blame. */
static void blame(struct schedule *s, struct part *p, int64_t now_ns) {
    enum classifier_kind kind = p->answer.kind;
    bool is_refused = kind == CLASSIFIER_REFUSED;
    /* It was well for others since this one failed before: nothing new about the server. */
    bool is_known = p->was_blamed && s->n_good > p->good_mark;
    p->n_failures++;
    p->was_blamed = true;
    p->goes_alone = kind == CLASSIFIER_BROKEN;
    if (is_refused)
        breaker_ended(&s->breaker, BREAKER_TAKEN, now_ns);
    else if (!is_known)
        breaker_ended(&s->breaker, BREAKER_FAILED, now_ns);
    if (!is_known)
        note_unwell(s, now_ns);
    if (kind == CLASSIFIER_LATE)
        lower_limit(s, p);
    /* A deadline is long: not twice for the same, unless it is a post's verdict. */
    int32_t needed = is_refused || (kind == CLASSIFIER_LATE && p->n > 1) ? 1 : 2;
    p->good_mark = s->n_good;
    if (p->n_failures < needed)
        try_again(s, p, now_ns);
    else if (p->n > 1)
        halve(s, p, now_ns);
    else
        suspect(s, p, is_refused ? PART_GIVE_UP : PART_RETRY, now_ns);
}

void schedule_answered(struct schedule *s, struct part *p, int64_t now_ns) {
    s->n_in_flight--;
    s->is_alone = false;
    p->is_in_flight = false;
    switch (p->answer.kind) {
    case CLASSIFIER_OK:
        note_well(s);
        breaker_ended(&s->breaker, BREAKER_TAKEN, now_ns);
        raise_limit(s);
        finish(s, p, PART_ANSWERED);
        break;
    case CLASSIFIER_BUSY:
        breaker_ended(&s->breaker, BREAKER_BUSY, now_ns);
        lower_limit(s, p);
        if (++p->n_busy % BUSY_TO_SPLIT == 0 && p->n > 1)
            halve(s, p, now_ns);
        else
            try_again(s, p, now_ns);
        break;
    case CLASSIFIER_UNREACHABLE:
    case CLASSIFIER_UNWELL:
        breaker_ended(&s->breaker, BREAKER_FAILED, now_ns);
        note_unwell(s, now_ns);
        s->limit = 1;
        try_again(s, p, now_ns);
        break;
    case CLASSIFIER_DENIED:
        s->is_denied = true;
        s->denied = p->answer.error;
        finish(s, p, PART_RELEASE);
        schedule_stop(s);
        break;
    case CLASSIFIER_STOPPED:
        finish(s, p, PART_RELEASE);
        break;
    default:
        blame(s, p, now_ns);
    }
}

void schedule_probed(struct schedule *s, const struct classifier_answer *answer,
                     int64_t now_ns) {
    bool is_good = answer->kind == CLASSIFIER_OK;
    s->is_probing = false;
    /* With the breaker closed, probes have waits of their own that grow. In the first seconds
     * they do not count: a server that is started anew shall not cost half a minute. */
    if (s->breaker.state == BREAKER_HALF_OPEN)
        breaker_probed(&s->breaker, is_good || answer->kind == CLASSIFIER_BUSY, now_ns);
    else if (is_good)
        breaker_ended(&s->breaker, BREAKER_TAKEN, now_ns);
    else if (answer->kind != CLASSIFIER_BUSY && s->unwell_since_ns &&
             now_ns - s->unwell_since_ns > RESTART_NS)
        breaker_ended(&s->breaker, BREAKER_FAILED, now_ns);
    if (answer->kind == CLASSIFIER_DENIED) {
        s->is_denied = true;
        s->denied = answer->error;
        schedule_stop(s);
    }
    if (is_good) {
        note_well(s);
        return;
    }
    s->n_bad_probes++;
    if (answer->kind != CLASSIFIER_BUSY) {
        s->n_bad++;
        note_unwell(s, now_ns);
    }
    plan_probe(s, now_ns, clamp_wait(answer->retry_after_ns));
}

/* ---- what next ---- */

static void release_waiting(struct schedule *s) {
    while (s->waiting.first) {
        struct part *p = s->waiting.first;
        list_remove(&s->waiting, NULL, p);
        finish(s, p, PART_RELEASE);
    }
}

void schedule_stop(struct schedule *s) {
    s->is_stopping = true;
    release_waiting(s);
}

static bool lacks_sign(const struct schedule *s, const struct part *p) {
    return p->is_parked && p->good_mark >= s->n_good;
}

/* Whether a probe is wanted; *at_ns: from when on. */
static bool wants_probe(const struct schedule *s, int64_t *at_ns) {
    bool is_wanted = s->unwell_since_ns || s->breaker.state != BREAKER_CLOSED;
    for (const struct part *p = s->waiting.first; p && !is_wanted; p = p->next)
        is_wanted = lacks_sign(s, p);
    /* Beside a part that breaks connections it would tell nothing. */
    if (!is_wanted || s->is_probing || s->is_alone)
        return false;
    *at_ns = s->breaker.state == BREAKER_OPEN ? s->breaker.probe_ns : s->probe_ns;
    return true;
}

static void send_part(struct schedule *s, struct part *p) {
    p->is_in_flight = true;
    p->is_parked = false;
    p->sent_mark = ++s->n_sent;
    if (p->n_attempts++ == 0)
        retry_budget_request(&s->budget);
    s->is_alone = p->goes_alone;
    s->n_in_flight++;
}

/* One decision for all that wait: asking for each would count each as a request. */
static bool is_throttled(struct schedule *s, int64_t now_ns) {
    if (now_ns < s->throttled_ns)
        return true;
    if (breaker_admits(&s->breaker, now_ns)) {
        s->n_throttled_in_a_row = 0;
        return false;
    }
    int64_t wait = retry_wait_ns(&s->random, s->n_throttled_in_a_row++);
    s->throttled_ns = now_ns + 1 + (wait < THROTTLED_NS ? wait : THROTTLED_NS);
    s->n_throttled++;
    return true;
}

/* A verdict from a time when the server failed at everything. That it breaks connections is
 * believed nevertheless, and anything when it was said often: a post may be what makes the
 * server unwell. */
static bool is_doubtful(const struct schedule *s, const struct part *p) {
    return p->verdict != PART_OPEN && p->bad_mark != s->n_bad && !p->goes_alone &&
           p->n_doubts < MAX_DOUBTS;
}

/* The first part that may go; ends those that can be judged. *until_ns: when the next may. */
static struct part *pick(struct schedule *s, int64_t now_ns, int64_t *until_ns) {
    struct part *before = NULL;
    for (struct part *p = s->waiting.first, *next; p; p = next) {
        next = p->next;
        if (lacks_sign(s, p)) {
            before = p;
            continue;
        }
        if (is_doubtful(s, p)) {
            p->verdict = PART_OPEN;
            p->n_doubts++;
            p->n_failures = p->n_rounds = 0;
        }
        if (p->verdict != PART_OPEN) {
            list_remove(&s->waiting, before, p);
            finish(s, p, p->verdict);
            continue;
        }
        if (s->breaker.state != BREAKER_CLOSED || s->is_alone ||
            s->n_in_flight >= s->limit) {
            before = p;
            continue;
        }
        if (p->not_before_ns > now_ns) {
            *until_ns = p->not_before_ns < *until_ns ? p->not_before_ns : *until_ns;
            before = p;
            continue;
        }
        if (p->goes_alone && (s->n_in_flight > 0 || s->is_probing))
            return NULL; /* the others end first, and no new one overtakes it */
        if (is_throttled(s, now_ns)) {
            *until_ns = s->throttled_ns < *until_ns ? s->throttled_ns : *until_ns;
            return NULL;
        }
        list_remove(&s->waiting, before, p);
        return p;
    }
    return NULL;
}

enum schedule_step schedule_next(struct schedule *s, int64_t now_ns, struct part **part,
                                 int64_t *until_ns) {
    int64_t at_ns = NEVER;
    *part = NULL;
    *until_ns = NEVER;
    if (s->is_stopping)
        return SCHEDULE_END;
    if (s->release_ns && s->unwell_since_ns && s->waiting.first &&
        now_ns - s->unwell_since_ns >= s->release_ns)
        release_waiting(s);
    *part = pick(s, now_ns, until_ns);
    if (*part) {
        send_part(s, *part);
        return SCHEDULE_CALL;
    }
    if (wants_probe(s, &at_ns)) {
        if (at_ns <= now_ns && (s->breaker.state == BREAKER_CLOSED ||
                                breaker_probes(&s->breaker, now_ns))) {
            s->is_probing = true;
            s->n_probes++;
            return SCHEDULE_PROBE;
        }
        *until_ns = at_ns < *until_ns ? at_ns : *until_ns;
    }
    if (s->release_ns && s->unwell_since_ns && s->waiting.first) {
        at_ns = s->unwell_since_ns + s->release_ns;
        *until_ns = at_ns < *until_ns ? at_ns : *until_ns;
    }
    return SCHEDULE_WAIT;
}
