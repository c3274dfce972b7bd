/* SPDX-License-Identifier: Apache-2.0
 *
 * workload.h - calls of a store by a seed: all kinds that write, as stream, enrich, erase and
 * dlq make them. A call is made first and applied then, so that two stores can be told the
 * same; the ledger is told what was tried and what was acknowledged.
 */
#ifndef VIGIL_TESTS_WORKLOAD_H
#define VIGIL_TESTS_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "store/store.h"
#include "tests/faults/ledger.h"

#define WORKLOAD_ITEMS 16
#define WORKLOAD_CLAIMS 12
#define WORKLOAD_HELD 48

enum call_kind {
    CALL_TAKE_IN,
    CALL_CLAIM,
    CALL_SETTLE,
    CALL_EXTEND,
    CALL_ENQUEUE,
    CALL_ERASE,
    CALL_DEAD,
    CALL_AUDIT,
    CALL_CHECKPOINT
};

struct held { /* a claim that was not settled */
    struct store_claim claim;
    int model;
};

struct call {
    enum call_kind kind;
    struct arena arena; /* of its texts, and of the claims it gets */
    struct store_take_in take_in;
    struct store_raw raw[WORKLOAD_ITEMS];
    struct store_item items[WORKLOAD_ITEMS];
    int64_t numbers[WORKLOAD_ITEMS]; /* of an item: its post or its fold */
    int64_t raw_numbers[WORKLOAD_ITEMS], done[WORKLOAD_ITEMS],
        done_numbers[WORKLOAD_ITEMS];
    size_t n_done;
    int64_t cursor;
    int model;
    struct store_claim claims[WORKLOAD_CLAIMS];
    size_t n_claims;
    int models[WORKLOAD_CLAIMS];
    struct store_outcome outcomes[WORKLOAD_CLAIMS];
    size_t n_lost;
    struct store_erase erase;
    bool is_retry;
};

struct workload {
    uint64_t random;
    struct ledger ledger;
    int64_t n_posts, n_raw, n_letters, cursor; /* numbers given so far */
    struct held held[WORKLOAD_HELD];
    size_t n_held;
    struct arena held_arena;
    int64_t n_calls[CALL_CHECKPOINT + 1];
    bool is_large; /* long texts, many of them: to fill a disk */
};

void workload_start(struct workload *w, uint64_t seed);
void workload_free(struct workload *w);
/* There are no numbers left: better start anew. */
bool workload_is_full(const struct workload *w);
/* Makes the next call. It may look into the store, which must be whole. The ledger is told
 * that it is tried. */
void workload_next(struct workload *w, struct store *s, struct call *c);
/* It is tried once more, after other calls. */
void workload_again(struct workload *w, const struct call *c);
enum status workload_apply(struct call *c, struct store *s, struct error *err);
/* It returned STATUS_OK. */
void workload_acknowledge(struct workload *w, const struct call *c);
void workload_free_call(struct call *c);
/* All workers died: what they had claimed is free again, in both stores. */
enum status workload_forget_claims(struct workload *w, struct store *s,
                                   struct store *shadow, struct error *err);

#endif
