/* SPDX-License-Identifier: Apache-2.0
 *
 * fold.h - reposts and near-duplicates become counts on the post that was there first.
 *
 * What the source calls a repost is folded by its word. Of all else the words are looked at:
 * a 64-bit SimHash (Charikar 2002) over shingles of the normalised text, without handles,
 * links and numbers of reposts; two posts within FOLD_DISTANCE bits are the same (Manku et
 * al. 2007 found 3 of 64 right for web pages). Short texts must be equal. The newest
 * `n_remembered` posts not older than `window_ns` are known, in tables by 16-bit bands.
 *
 * Threads: one.
 */
#ifndef VIGIL_CLIENT_FOLD_H
#define VIGIL_CLIENT_FOLD_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "store/store.h"

struct fold;
struct fold_options {
    size_t n_remembered; /* 0: 262,144 */
    int64_t window_ns;   /* 0: seven days */
};

/* Of the words of a text, whatever its case, links and handles; never 0 for a text with
 * words, 0 without. Pure: any thread. */
uint64_t fold_fingerprint(struct view text);

enum status fold_open(const struct fold_options *options, struct fold **out,
                      struct error *err);
void fold_close(struct fold *f);

/* A post that the store has; also from store_recent at the start. */
enum status fold_remember(struct fold *f, struct view key, uint64_t fingerprint,
                          int64_t posted_ns, struct error *err);

/* Looks at a STORE_POST item without a fold: when another post says the same, it becomes a
 * STORE_DUPLICATE of that one (its key, no text), else it is remembered. An item with the key
 * of a post that is known is never its own duplicate. */
enum status fold_item(struct fold *f, struct store_item *item, struct arena *arena,
                      struct error *err);
/* Erased or withdrawn: nothing is folded into it from now on. */
void fold_forget(struct fold *f, struct view key);

#endif
