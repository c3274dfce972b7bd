/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_item.h - a store item as a message of a queue: its text, subject and id.
 *
 * Text: one JSON object. "v" is 1; "kind" is "post", "delete" or "dead". The other fields
 * bear the names of struct store_item and are left out when they are empty or 0:
 *   mode "pseudonymous" (when left out), "full", "aggregate"; fold "repost", "quote",
 *   "duplicate"; version, posted_ns, received_ns: integers; fingerprint: hex digits;
 *   source, key, author, text, lang, place, city, state, country, drugs, url, fold_key,
 *   body, reason, stage: strings. A string that is no UTF-8 is written as base64 under its
 *   name and "64" ("body64"), so that whatever is written reads back the same.
 * raw_id does not travel: it counts lines of the publisher's own store. Fields that are not
 * known are ignored; a larger "v" is refused.
 *
 * Subject: PREFIX.SOURCE.AUTHOR.KEY.FOLD, one safe token each, so that a source, an author
 * or a post can be found by a filter. The source is escaped, the rest are 128-bit hashes in
 * hex of the strings as stored; "-" when there is none.
 *
 * Id: what makes two messages the same: key@version; for a delete and a dead letter with the
 * kind before it, for a fold with the fold's key behind it (two reposts of one post are two).
 *
 * Threads: any.
 */
#ifndef VIGIL_STORE_QUEUE_QUEUE_ITEM_H
#define VIGIL_STORE_QUEUE_QUEUE_ITEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/memory.h"
#include "base/status.h"
#include "store/store.h"

#define QUEUE_ITEM_MAX_BYTES ((size_t)8 << 20) /* of a text that is read */
#define QUEUE_ITEM_SUBJECT_BYTES 320
#define QUEUE_ITEM_PREFIX_BYTES 80
#define QUEUE_ITEM_SOURCE_BYTES 32 /* longer ones are hashed */

/* Appends the text. STATUS_LIMIT when the buffer's maximum is passed. */
enum status queue_item_write(const struct store_item *item, struct buffer *out,
                             struct error *err);
/* Strings are in the arena. STATUS_INVALID for whatever was not written by queue_item_write
 * or says more than it can mean; the message never holds any of it. */
enum status queue_item_read(const char *text, size_t n_bytes, struct arena *arena,
                            struct store_item *out, struct error *err);

/* prefix: "VIGIL.posts", shorter than QUEUE_ITEM_PREFIX_BYTES. STATUS_LIMIT. */
enum status queue_item_subject(const struct store_item *item, const char *prefix,
                               char out[QUEUE_ITEM_SUBJECT_BYTES], struct error *err);
/* The filters that match all messages of a source, an author or a key; NULL: any. A key has
 * two, as post and as fold; *n says how many. */
enum status queue_item_filters(const char *prefix, const char *source,
                               const char *author, const char *key,
                               char out[2][QUEUE_ITEM_SUBJECT_BYTES], size_t *n,
                               struct error *err);

/* Appends the id: printable ASCII without blanks. */
enum status queue_item_id(const struct store_item *item, struct buffer *out,
                          struct error *err);

/* What the server writes into the subject that a message is acknowledged on. */
struct queue_item_delivery {
    int32_t tries;      /* this one included */
    uint64_t sequence;  /* in the stream */
    uint64_t n_waiting; /* behind it, for the same consumer */
};
/* STATUS_INVALID when it is no such subject. */
enum status queue_item_delivery(const char *reply, struct queue_item_delivery *out,
                                struct error *err);

#endif
