/* SPDX-License-Identifier: Apache-2.0
 *
 * mastodon_missed.h - what was posted while a stream of Mastodon was down, by the timeline of
 * the same name over REST: GET /api/v1/timelines/…?min_id=ID, a page of 40 at a time, from the
 * oldest on.
 *
 * Ids of an instance grow with time: above 2^40 they are milliseconds, then 16 bits. It is
 * asked for what came after the last id that nothing before can be missing of, a minute
 * earlier: a connection can be dead for half a minute before that shows, and what other
 * instances send has an id of when it was written.
 *
 * Limits: MASTODON_MISSED_PAGES pages, so some 10,000 statuses, then it is given up and counted
 * as a gap. Edits and deletes of older statuses are not told by a timeline. Software whose ids
 * are no numbers (Pleroma, GoToSocial) is not asked.
 *
 * Threads: one.
 */
#ifndef VIGIL_CLIENT_SOURCES_MASTODON_MISSED_H
#define VIGIL_CLIENT_SOURCES_MASTODON_MISSED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"
#include "client/net/fetch.h"
#include "client/sources/x_api.h"

#define MASTODON_MISSED_PAGES 250

/* Zero-initialise. */
struct mastodon_missed {
    bool is_open;
    uint64_t since_id; /* the next page begins behind it */
    int n_pages, n_failures;
    int64_t not_before_ns;
};

/* safe_id: the last of which all before it was seen; 0: none, then nothing is missed. */
void mastodon_missed_open(struct mastodon_missed *m, uint64_t safe_id,
                          int64_t not_before_ns);

/* Asks for the next page of a timeline ("public?local=true&"). Its statuses are added to *lines
 * as lines of `update` events, each with '\n'. Closes *m behind the last page.
 * STATUS_OK when *outcome says what came of it, the reason in *err unless it is done;
 * STATUS_CANCELLED, STATUS_NO_MEMORY; STATUS_INVALID: an answer nobody can use. */
enum status mastodon_missed_page(struct mastodon_missed *m, struct fetch *fetch,
                                 const char *base, const char *timeline,
                                 const char *token, int64_t timeout_ns,
                                 struct buffer *lines, struct x_outcome *outcome,
                                 struct error *err);

#endif
