/* SPDX-License-Identifier: Apache-2.0
 *
 * x_post.h - what a line of X's stream says.
 *
 * Two readers. The scan is for the thread that reads the stream: one pass over the bytes,
 * without memory, to tell posts from errors and to know the id to go on from. The parse is
 * for any thread, reads everything, and takes fields in any order or missing.
 *
 * An edited post comes with a new id each time. Its key is the first id of its history, its
 * version its place in it.
 */
#ifndef VIGIL_CLIENT_SOURCES_X_POST_H
#define VIGIL_CLIENT_SOURCES_X_POST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"
#include "client/sources/post.h"

struct x_scan {
    bool has_data;      /* an object under "data" */
    bool has_errors;    /* "errors", or "title": a problem on its own */
    bool is_too_many;   /* … which says that there are too many connections */
    bool is_disconnect; /* … which says that the stream ends now */
    uint64_t id;        /* data.id; 0: none */
};

/* Never fails: what is no JSON has none of it. */
struct x_scan x_scan(struct view line);
/* The number that is the "id" of the object under this key, as a string; 0: none. */
uint64_t x_scan_id(struct view line, struct view holder);

/* See source.h. STATUS_INVALID, _UNSUPPORTED, _LIMIT, _NO_MEMORY. */
enum status x_post_parse(struct view line, struct arena *arena, struct post *out,
                         struct error *err);

#endif
