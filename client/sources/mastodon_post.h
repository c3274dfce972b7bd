/* SPDX-License-Identifier: Apache-2.0
 *
 * mastodon_post.h - what a line of a Mastodon stream says. A line is what source_mastodon.c
 * makes of a server-sent event: {"event":"update","payload":…}, the payload as it was sent
 * (a status as an object, anything else as a string).
 *
 * The key of a post is its id on the instance, which is what a delete tells; the version is
 * the time of its last edit in milliseconds, 1 when there was none. The author is the
 * address of his profile, the same on every instance.
 */
#ifndef VIGIL_CLIENT_SOURCES_MASTODON_POST_H
#define VIGIL_CLIENT_SOURCES_MASTODON_POST_H

#include "base/arena.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"
#include "client/sources/post.h"

#define MASTODON_LINE_HOLDER VIEW("payload") /* the key that the status is under */

/* Writes the line of an event into *out, which is emptied first. */
enum status mastodon_line(const char *event, struct view data, struct buffer *out,
                          struct error *err);

/* See source.h. Statuses that are not public (a list may have them) are nothing. */
enum status mastodon_post_parse(struct view line, struct arena *arena, struct post *out,
                                struct error *err);

#endif
