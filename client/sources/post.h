/* SPDX-License-Identifier: Apache-2.0
 *
 * post.h - what a source's raw line says, before anything was decided about it.
 */
#ifndef VIGIL_CLIENT_SOURCES_POST_H
#define VIGIL_CLIENT_SOURCES_POST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"

/* Of a post's text; what is longer is a dead letter ("too_long"). */
#define POST_MAX_TEXT_BYTES 65536
#define POST_MAX_ID_BYTES 512
#define POST_MAX_NAME_BYTES 256 /* author ids, places, languages */

enum post_action {
    POST_PUT,    /* a post, or a newer version of one */
    POST_DELETE, /* its author or the source has withdrawn it: native_id alone is set */
    POST_NOTHING /* a keep-alive, an event of another kind: nothing to keep */
};

enum post_relation { POST_ORIGINAL, POST_REPOST, POST_QUOTE };

/* All views lie in the arena that the parser was given, or in constants; empty when the
 * source says nothing. Text is UTF-8 and plain (no HTML). */
struct post {
    enum post_action action;
    struct view native_id; /* unique within the source */
    int64_t version;       /* of the same id: the larger is the newer; 1 when unknown */
    struct view text;
    struct view author;      /* the source's permanent id of the author */
    struct view author_name; /* handle, as a reader sees it; never stored */
    struct view lang;        /* BCP 47 as the source tells it */
    struct view place;       /* what the author's profile or the post says: free text */
    struct view url;
    int64_t posted_ns;  /* wall clock, since 1970; 0: unknown */
    bool id_has_author; /* native_id tells who the author is (at://DID/…) */

    /* A repost or a quote of another post. What the source tells of that one too is set in
     * original_*: a repost brings in the original when it is not known yet. */
    enum post_relation relation;
    struct view original_id; /* native id of the other post */
    int64_t original_version;
    struct view original_text, original_author;
    struct view original_lang, original_place;
    int64_t original_posted_ns;
};

#endif
