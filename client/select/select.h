/* SPDX-License-Identifier: Apache-2.0
 *
 * select.h - which posts are kept, and in which form: watch list, language, place, privacy.
 *
 * Pure: the same post gives the same answer, on any thread. Folding of reposts, which has to
 * remember, is fold.h.
 *
 * Threads: open and close one; post: any, at the same time.
 */
#ifndef VIGIL_CLIENT_SELECT_SELECT_H
#define VIGIL_CLIENT_SELECT_SELECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "client/sources/post.h"
#include "store/store.h"

struct watch_list;
struct privacy;

enum select_drop { /* why a post is not kept; a counter each */
                   SELECT_KEPT,
                   SELECT_NO_DRUG,  /* no name of the watch list */
                   SELECT_LANGUAGE, /* another language than those asked for */
                   SELECT_EMPTY,    /* no text */
                   SELECT_NOTHING,  /* no post: a keep-alive, another kind of event */
                   N_SELECT_DROPS
};
const char *select_drop_name(enum select_drop drop); /* "no_drug" */

struct select_options {
    const struct watch_list *watch_list; /* NULL: every post is kept */
    const char *languages;               /* "en,es"; NULL or "any": all */
    bool detects_language;         /* ask libexttextcat when the source is silent */
    const struct privacy *privacy; /* never NULL */
    const char *source;            /* name in the store */
};

struct selection;
enum status select_open(const struct select_options *options, struct selection **out,
                        struct error *err);
void select_close(struct selection *s);

/* At most so many items come of one post: itself, and what it reposts or quotes. */
#define SELECT_MAX_ITEMS 2

/* Turns a post into items for the store (STORE_POST or STORE_DELETE; raw_id and received_ns
 * are the caller's to set), strings in the arena.
 *   an original          one item, its fingerprint set, for fold.h to look at
 *   a repost             one item: the original (when the source tells its text, else the
 *                        repost's own words under the original's key, version 0), with
 *                        fold STORE_REPOST and the repost's key in fold_key; without any
 *                        words a count alone (no text: store.h)
 *   a quote              an item of its own if its own words are kept, and one for the
 *                        quoted post with fold STORE_QUOTE. A quote whose own words name no
 *                        drug is a count alone; one that does is somebody else's case.
 * The URL of a post is kept in mode full alone: it names the author nearly everywhere; of an
 * aggregate source neither the author nor the words of his place nor his city. Offsets in
 * drugs are of the text as stored; 32 mentions at most.
 * *n is 0 when nothing is kept, *drop says why. STATUS_NO_MEMORY alone. */
enum status select_post(const struct selection *s, const struct post *post,
                        struct arena *arena, struct store_item out[SELECT_MAX_ITEMS],
                        size_t *n, enum select_drop *drop, struct error *err);

#endif
