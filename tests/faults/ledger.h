/* SPDX-License-Identifier: Apache-2.0
 *
 * ledger.h - what a store was told and has acknowledged, kept outside of it, and whether the
 * store still has it.
 *
 * Posts are numbers: the post n has the key "file:n", the texts of ledger_text, and three
 * reposts, quotes or duplicates "file:rM" with M = 3n, 3n + 1, 3n + 2. Raw lines are "raw n".
 * What was tried and not acknowledged may be there or not; so may what is left of a post that
 * somebody tried to take away, and a post of aggregate mode.
 */
#ifndef VIGIL_TESTS_LEDGER_H
#define VIGIL_TESTS_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

#define LEDGER_POSTS 2048
#define LEDGER_RAW 2048
#define LEDGER_FOLDS (3 * LEDGER_POSTS)
#define LEDGER_VERSIONS 8 /* 1 to 7 */

enum ledger_state { LEDGER_UNKNOWN, LEDGER_THERE, LEDGER_MAYBE, LEDGER_GONE };

struct ledger {
    struct {
        enum ledger_state state;
        int64_t version;    /* at least */
        uint8_t results[2]; /* a bit for each version, by model */
    } posts[LEDGER_POSTS];
    enum ledger_state raw[LEDGER_RAW], folds[LEDGER_FOLDS];
    int64_t cursor, cursor_tried;
    int64_t n_audit;
};

struct ledger_found {
    int64_t n_lost;    /* acknowledged, and not there */
    int64_t n_doubled; /* there twice, or counted twice */
    int64_t
        n_corrupt;   /* not a sound database, or a post that is not what was written */
    char first[360]; /* what was found first */
};

/* Of version v of post n, into out[LEDGER_TEXT_BYTES]. */
#define LEDGER_TEXT_BYTES 3000
struct view ledger_text(int64_t n, int64_t version, char *out);
/* Looks whether the store agrees; adds to *found. STATUS_OK unless it cannot even be read. */
enum status ledger_check(const struct ledger *l, struct store *s,
                         struct ledger_found *found, struct error *err);
/* The file itself: integrity, foreign keys. */
void ledger_check_file(const char *path, struct ledger_found *found);
/* A number that depends on all that the store holds, but for what the clock wrote. */
enum status ledger_digest(struct store *s, uint64_t *out, struct error *err);

#endif
