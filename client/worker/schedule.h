/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.h - which batch is sent to the server when, and who is to blame when that fails.
 * A machine of states without threads, sockets or a clock of its own.
 *
 * A part is a run of posts that is sent as one request. It ends answered, given up, to be
 * tried again later, or released. The rules:
 *
 * - A failed part is sent again when it has had fewer than three attempts, the server does not
 *   say that it is away, and the budget of retries allows it (retry.h). Else it is parked until
 *   the server is known to be well: some other part, or a probe (a request with one harmless
 *   word), was answered after the failure. So a server that is away, or fails at everything,
 *   costs no post a try, however long that lasts.
 * - What the server says of itself (429, 503, not reachable) is never held against a part.
 *   429 lowers how many are in flight, answers raise it again.
 * - A part that makes the server fail (refused, 500, no answer in the answer, the connection
 *   broken or the deadline passed, most of these twice) is halved until the bad post is alone.
 *   A post alone is judged only after a sign that the server is well: what it refused is given
 *   up, what it failed at is tried again later and counts. If the server turned out to be
 *   unwell first, the post is asked about once more instead.
 * - After a connection broke, the part goes alone: others would be broken with it.
 * - A server that is unwell for longer than release_ns loses its parts: other workers may
 *   have a better one.
 *
 * Threads: one at a time (worker.c holds a lock).
 */
#ifndef VIGIL_CLIENT_WORKER_SCHEDULE_H
#define VIGIL_CLIENT_WORKER_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "client/worker/breaker.h"
#include "client/worker/classifier.h"
#include "client/worker/retry.h"

#define SCHEDULE_MAX_CALLERS 256
#define SCHEDULE_MAX_RETRY_AFTER_NS (600 * CLOCK_NS_PER_SECOND)

struct load; /* worker.c: the claims that a part is a run of */

enum part_end {
    PART_OPEN,
    PART_ANSWERED, /* answer has the results */
    PART_RETRY,    /* a post alone that the server failed at: the try counts */
    PART_GIVE_UP,  /* a post alone that the server refuses */
    PART_RELEASE   /* untried, as far as the store is concerned */
};

struct part {
    struct part *next;
    struct load *load;
    size_t first, n; /* of the load's claims */
    enum part_end end;
    struct arena arena; /* of the answer */
    struct classifier_answer answer;

    /* schedule.c's */
    bool is_in_flight, is_parked, goes_alone;
    bool was_blamed; /* it, or what it was halved from, may make the server fail */
    enum part_end verdict; /* on a post alone, once the server is known to be well */
    int64_t good_mark;     /* n_good when it failed last */
    int64_t sent_mark;     /* n_sent when it was sent */
    int64_t bad_mark;      /* n_bad at its verdict */
    int32_t n_doubts;      /* verdicts that were not believed */
    int32_t n_attempts;    /* of this request */
    int32_t n_failures;    /* of this very run of posts, that it may be to blame for */
    int32_t n_rounds, n_busy; /* failures in a row; refusals for being busy */
    int64_t not_before_ns;
};

struct part_list {
    struct part *first, *last;
};

struct schedule {
    struct breaker breaker;
    struct retry_budget budget;
    struct retry_random random;
    int32_t max_in_flight;
    int64_t release_ns; /* 0: never */

    struct part_list waiting, done;
    int32_t n_in_flight;
    bool is_probing, is_alone; /* the part in flight goes alone */
    bool is_stopping, is_denied;
    struct error denied; /* why */

    int32_t limit, known_limit, n_credits; /* in flight at most */
    int64_t n_lowered, n_sent;
    int64_t n_good;          /* answers that show that the server is well */
    int64_t unwell_since_ns; /* 0: it is well, as far as we know */
    int32_t n_bad_probes;    /* in a row */
    int64_t n_bad;           /* of all time */
    int64_t probe_ns;

    int64_t throttled_ns; /* held back by the throttle until then … */
    int32_t n_throttled_in_a_row;

    int64_t n_throttled, n_splits, n_probes; /* for metrics */
};

void schedule_init(struct schedule *s, int32_t max_in_flight, int64_t release_ns,
                   uint64_t seed);
/* Frees the parts that are left. */
void schedule_free(struct schedule *s);

/* A part of n posts from first on; NULL without memory. */
struct part *part_new(struct load *load, size_t first, size_t n);
void part_free(struct part *p);

void schedule_add(struct schedule *s, struct part *p);

enum schedule_step {
    SCHEDULE_CALL,  /* send *part, then schedule_answered */
    SCHEDULE_PROBE, /* send a probe, then schedule_probed */
    SCHEDULE_WAIT,  /* nothing until *until_ns, or until something is added or ends */
    SCHEDULE_END    /* stopped: nothing more */
};
enum schedule_step schedule_next(struct schedule *s, int64_t now_ns, struct part **part,
                                 int64_t *until_ns);
/* p->answer is set. */
void schedule_answered(struct schedule *s, struct part *p, int64_t now_ns);
void schedule_probed(struct schedule *s, const struct classifier_answer *answer,
                     int64_t now_ns);

/* All parts that have ended, the first first; they are the caller's. */
struct part *schedule_take_done(struct schedule *s);

/* No new requests: what waits is released, what is in flight ends as it does. */
void schedule_stop(struct schedule *s);

/* Whether new work would be sent now, as far as is known. */
bool schedule_is_well(const struct schedule *s);

#endif
