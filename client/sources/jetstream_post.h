/* SPDX-License-Identifier: Apache-2.0
 *
 * jetstream_post.h - what an event of Bluesky's Jetstream (v1) says. Pure functions.
 *
 *   {"did":…,"time_us":…,"kind":"commit","commit":{"operation":"create","collection":…,
 *    "rkey":…,"rev":…,"record":{"text":…,"langs":[…],"createdAt":…,"embed":…}}}
 *
 * A created or updated app.bsky.feed.post is a post, a deleted one a POST_DELETE. All other
 * kinds and collections, those to come too, are POST_NOTHING. Handles are not part of events,
 * and no URL is made: it would be the id over again.
 */
#ifndef VIGIL_CLIENT_SOURCES_JETSTREAM_POST_H
#define VIGIL_CLIENT_SOURCES_JETSTREAM_POST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"
#include "client/sources/post.h"

#define JETSTREAM_COLLECTION "app.bsky.feed.post"

/* The number behind "time_us" in the outermost object, without parsing the rest; false when
 * there is none that can be told in one pass. Never more than INT64_MAX. */
bool jetstream_time_us(struct view line, uint64_t *out);

/* A TID, 13 digits of the alphabet 234567a-z, as the 63-bit number that it is: microseconds
 * times 1024, and a clock's number. */
bool jetstream_tid(struct view text, int64_t *out);

/* Native id at://DID/app.bsky.feed.post/RKEY; version the TID of the revision, or of the same
 * scale time_us * 1024 where that is none; time the earlier of createdAt, which is the
 * client's word, and time_us. An embedded record that is a post makes it a quote.
 * *is_account_gone: an account was deleted, taken down, suspended or switched off. There is
 * no post action for that (POST_NOTHING): see source_jetstream.c.
 * STATUS_INVALID, _UNSUPPORTED, _LIMIT: a dead letter, with the message as the reason. */
enum status jetstream_parse(struct view line, struct arena *arena, struct post *out,
                            bool *is_account_gone, struct error *err);

#endif
