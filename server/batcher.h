/* SPDX-License-Identifier: Apache-2.0
 *
 * batcher.h - the one queue in front of the engines, and a worker for each of them.
 *
 *   HTTP threads ──batcher_submit──►  queue of jobs  ──►  worker i ──► engine i of the bundle
 *        ▲                                                      │
 *        └──────────────────── job->on_done ◄───────────────────┘
 *
 * A job is the sequences of one request. A batch is filled up to a budget of tokens from the
 * jobs in their order; what a job has left over goes behind the others, so that a request
 * with hundreds of texts delays its neighbours by one batch and not by all of its own.
 * Nothing is ever waited for: an idle engine takes what is there, and while it works the
 * queue grows. A device that works by itself is given the next batch before its last one is
 * fetched, where there is one.
 *
 * A job holds the model that it was tokenized for; after a reload, jobs of the old model are
 * still answered by it. A batch never mixes models, nor jobs that want tags with others. The
 * parts of one job may be in several engines at once.
 *
 * An engine that fails with STATUS_DEVICE is the end: every job ends with FAULT_ENGINE, now
 * and from then on, and batcher_has_died tells whoever can end the process.
 *
 * Threads: any, but for open and close. on_done is called by a worker, or by the thread that
 *          cancels, without a lock held; from then on the batcher knows the job no more.
 * Call order: open (submit | cancel | expire)* [fail_all] close
 */
#ifndef VIGIL_SERVER_BATCHER_H
#define VIGIL_SERVER_BATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fault.h"
#include "server/bundle.h"
#include "server/metrics.h"

struct sequence {
    const int32_t *ids; /* [n_tokens] */
    int32_t n_tokens;
    float *logits; /* [n_labels] out */
    float *tags;   /* [n_tokens, n_tag_labels] out; NULL unless the job wants tags */
};

struct job {
    /* The submitter's: */
    struct bundle *bundle; /* must stay open until on_done */
    struct sequence *sequences;
    int32_t n_sequences;
    int32_t n_tokens; /* of all sequences */
    bool wants_tags;
    /* Of the server's own (watch.h): in a batch by itself, whose shape is always the same;
     * taken however full the queue is; counted nowhere. */
    bool is_check;
    int32_t only_worker; /* 1 + the worker that has to take it; 0: any */
    int64_t deadline_ns; /* clock_now_ns() */
    void (*on_done)(struct job *job);
    /* Set when on_done is called: */
    enum fault_kind outcome; /* FAULT_NONE: every logit is there */
    int64_t submitted_ns, started_ns, finished_ns;
    /* The batcher's: */
    int32_t n_taken, n_left; /* sequences: given to batches; not computed yet */
    int32_t n_tokens_left;   /* of the sequences that no batch has taken */
    bool is_queued;
    struct job *next, *previous;
};

struct batcher;

struct batcher_options {
    int32_t n_workers;    /* engines of a bundle that can work at once; 0: 1 */
    int32_t batch_tokens; /* 0: as many as the engine takes */
    int32_t max_jobs;     /* that wait */
    int64_t max_wait_ns; /* a job that would wait longer is refused; 0: no such limit */
    struct metrics *metrics;
};

enum status batcher_open(const struct batcher_options *options, struct batcher **out,
                         struct error *err);
/* Every job must be done: see batcher_fail_all. */
void batcher_close(struct batcher *b);

/* Whether a job would be refused now: for refusing before a body is parsed. */
bool batcher_is_full(struct batcher *b);
/* Queues a job. False: it stays the caller's, and outcome says why: FAULT_OVERLOADED when
 * the queue is full, else what ended all jobs. */
bool batcher_submit(struct batcher *b, struct job *job);
/* Ends a job early with that outcome: on_done is called now, or after the batch that holds
 * some of it. No effect on a job that is done. The caller makes sure that it still exists. */
void batcher_cancel(struct batcher *b, struct job *job, enum fault_kind outcome);
/* Cancels the jobs whose deadline has passed with FAULT_TIMEOUT. */
void batcher_expire(struct batcher *b, int64_t now_ns);
/* Cancels every job, and refuses those to come. */
void batcher_fail_all(struct batcher *b, enum fault_kind outcome);

/* As after STATUS_DEVICE: an engine cannot be trusted any more. The first one says why. */
void batcher_die(struct batcher *b, const struct error *why);
/* Whether that was so; *why (NULL allowed) is then filled. */
bool batcher_has_died(struct batcher *b, struct error *why);

struct batcher_state {
    int32_t n_jobs;           /* that are not done */
    int64_t n_tokens;         /* that wait */
    double tokens_per_second; /* of all engines, while they work; 0: not known yet */
    bool has_failed;          /* an engine's last batch failed, or it died */
};
struct batcher_state batcher_state(struct batcher *b);

#endif
