/* SPDX-License-Identifier: Apache-2.0
 *
 * record.h - the generic record: a post as anybody can write it, in JSON, CSV or plain text.
 *
 *   {"id":"7","text":"…","author":"…","author_name":"…","lang":"en",
 *    "time":"2026-11-26T10:00:00Z","place":"Austin, TX","version":2,"url":"…",
 *    "repost_of":"3","quote_of":"3","original":{"text":"…","author":"…","time":…},
 *    "deleted":true}
 *
 * Only the text is needed; with "deleted" only the id. id, author, repost_of and quote_of
 * are strings or integers; time is ISO 8601, or a number: seconds, ms, us or ns since 1970 by
 * its size; a time that cannot be read is unknown; version is an integer. null is as good as
 * nothing. "original" holds what is known of the post that repost_of or quote_of names. A
 * JSON string alone is a text. Columns of CSV have the names of the fields, an empty one says
 * nothing; a plain line is a text. U+0000 in a text becomes U+FFFD.
 *
 * A record without an id has "sha256:" and the first 32 hex digits of the SHA-256 of its line
 * (of a CSV row: the header row, LF, the row), so that reading it again gives the same id.
 *
 * Each line says by itself what it is, wherever it was kept in between: what begins with '{'
 * is JSON, all else plain text; where that would be wrong, a tag stands before it.
 *
 * Threads: any.
 */
#ifndef VIGIL_CLIENT_SOURCES_RECORD_H
#define VIGIL_CLIENT_SOURCES_RECORD_H

#include "base/arena.h"
#include "base/format.h"
#include "base/status.h"
#include "base/view.h"
#include "client/sources/post.h"
#include "client/stream_options.h"

/* First byte of a line whose form does not show. */
#define RECORD_TAG_JSON '\x1E' /* RFC 7464's */
#define RECORD_TAG_TEXT '\x1F'
#define RECORD_TAG_CSV                                                                 \
    '\x1D' /* the separator, the header row, LF, and the row follow */

/* Reads a line that may begin with a tag. settings: the names of the fields; NULL, or NULL
 * in it: the names above. Views lie in the arena.
 * STATUS_INVALID, _UNSUPPORTED, _LIMIT: the message says why, without the text. */
enum status record_parse(const struct source_settings *settings, struct view line,
                         struct arena *arena, struct post *out, struct error *err);

/* Does the line need a tag to be read as this format (JSONL or LINES)? The tag, or 0. */
char record_tag(enum format format, struct view line);

/* A moment in ISO 8601 ("2026-11-26T10:00:00.5+01:00", with ' ' for 'T', without a zone UTC,
 * or a date alone) as ns since 1970; 0 when it is none, or lies before 1970 or after 2261. */
int64_t record_time(struct view text);

#endif
