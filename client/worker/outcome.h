/* SPDX-License-Identifier: Apache-2.0
 *
 * outcome.h - what the store is told about a post: label and band by the threshold, evidence,
 * which model said so; or why there is none and when to try again.
 *
 * Threads: any.
 */
#ifndef VIGIL_CLIENT_WORKER_OUTCOME_H
#define VIGIL_CLIENT_WORKER_OUTCOME_H

#include "base/arena.h"
#include "client/worker/classifier.h"
#include "client/worker/schedule.h"
#include "store/store.h"

struct outcome_rules {
    const char *positive; /* label */
    double threshold;     /* from this probability on: positive */
    double review_from;   /* from this on, below the threshold: a person looks */
};

/* Of a text that was answered. Strings and mentions lie in the arena or where the answer's
 * lie. STATUS_NO_MEMORY. */
enum status outcome_of_result(const struct outcome_rules *rules,
                              const struct store_claim *claim,
                              const struct classifier_answer *answer,
                              const struct classifier_result *result,
                              struct arena *arena, struct store_outcome *out,
                              struct error *err);

/* Of a part that ended otherwise than answered. reason is the part's. */
void outcome_of_end(enum part_end end, const struct store_claim *claim,
                    const char *reason, struct store_outcome *out);

/* When a post is tried again after its n-th try (from 1). */
int64_t outcome_delay_ns(int32_t tries);

#endif
