/* SPDX-License-Identifier: Apache-2.0
 *
 * fold.h - reposts and near-duplicates become counts on the post that was there first.
 *
 * What the source calls a repost is folded by its word. Of all else the words are looked at,
 * normalised, without handles, links and the marks of a repost ("RT", "via"): a SimHash of 63
 * bits (Charikar 2002) over shingles of three words; two posts within FOLD_DISTANCE bits are
 * the same (Manku et al. 2007 found 3 of 64 right for web pages). Texts of less than
 * FOLD_MIN_WORDS words must be equal; the top bit says which of the two a fingerprint is.
 * Posts that name other drugs are never the same, as far as that is known.
 *
 * The newest `n_remembered` posts not older than `window_ns` are known, in tables by 16-bit
 * bands of the fingerprint; of each band FOLD_MAX_TRIES posts at most are compared, the newest
 * first. Memory is taken when it opens and does not grow: 168 bytes a post, 46 MB by default.
 * Keys lie in a ring of 96 bytes a post; where they are longer, fewer posts are known.
 *
 * Threads: one.
 */
#ifndef VIGIL_CLIENT_SELECT_FOLD_H
#define VIGIL_CLIENT_SELECT_FOLD_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "store/store.h"

#define FOLD_DISTANCE 3
#define FOLD_MIN_WORDS 6
#define FOLD_MAX_TRIES 64

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
 * STORE_DUPLICATE of that one (its key; no text, author, place or drugs), else it is
 * remembered. An item with the key of a post that is known stays a post. An item that is a
 * repost or a quote and has a text is remembered; a STORE_DELETE is forgotten.
 * STATUS_NO_MEMORY: the arena's. */
enum status fold_item(struct fold *f, struct store_item *item, struct arena *arena,
                      struct error *err);
/* Erased or withdrawn: nothing is folded into it from now on. */
void fold_forget(struct fold *f, struct view key);

#endif
