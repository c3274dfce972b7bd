/* SPDX-License-Identifier: Apache-2.0
 *
 * sse.h - server-sent events, however the bytes were split: lines ended by \n, \r or \r\n;
 * event, data (several lines are joined by \n), id; comments are counted.
 *
 * Data longer than SOURCE_MAX_LINE_BYTES is cut.
 */
#ifndef VIGIL_CLIENT_NET_SSE_H
#define VIGIL_CLIENT_NET_SSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"

#define SSE_NAME_BYTES 64 /* of an event's name; a longer one is cut */
#define SSE_ID_BYTES 256  /* a longer one is ignored */

/* Zero-initialise. sse_free(zeroed) is a no-op. */
struct sse {
    /* The event that sse_feed found: good until it is called again. */
    char event[SSE_NAME_BYTES]; /* "message" when none was named */
    struct buffer data;
    bool is_cut;
    char id[SSE_ID_BYTES]; /* the last one that was sent */
    int64_t n_comments;

    struct buffer line;
    bool is_behind_cr;  /* a \n that comes now belongs to the \r before it */
    bool has_data;      /* a data line has come */
    bool is_handed_out; /* the event is cleared with the next call */
    bool has_begun;     /* the mark at the start of the stream was looked at */
};

/* Reads bytes until an event is whole: *has_event says so, *n_used how far it got. Call it
 * again with the rest. STATUS_NO_MEMORY. */
enum status sse_feed(struct sse *s, struct view bytes, size_t *n_used, bool *has_event,
                     struct error *err);
/* The connection is gone: half an event with it; the id stays. */
void sse_reset(struct sse *s);
void sse_free(struct sse *s);

#endif
