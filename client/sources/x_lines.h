/* SPDX-License-Identifier: Apache-2.0
 *
 * x_lines.h - the lines of a stream, however its bytes were split: ended by \r\n (or \n
 * alone); empty ones, X's keep-alives, are counted and left out.
 *
 * A line longer than SOURCE_MAX_LINE_BYTES is handed out cut; the rest of it is dropped.
 */
#ifndef VIGIL_CLIENT_SOURCES_X_LINES_H
#define VIGIL_CLIENT_SOURCES_X_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"

/* Zero-initialise. x_lines_free(zeroed) is a no-op. */
struct x_lines {
    struct view chunk;  /* what was fed and not yet read; the caller's bytes */
    struct buffer line; /* the line that has begun in an earlier chunk */
    bool is_handed_out; /* `line` was handed out: cleared with the next call */
    bool is_cut;        /* the line is too long: its rest is dropped */
    int64_t n_keep_alives;
};

/* The next bytes; all lines of the last ones must have been taken. The bytes must stay until
 * then. */
void x_lines_feed(struct x_lines *l, struct view bytes);
/* The next line; good until the next call. STATUS_NOT_FOUND: none before the next bytes;
 * STATUS_NO_MEMORY. */
enum status x_lines_next(struct x_lines *l, struct view *out, bool *is_cut,
                         struct error *err);
/* The connection is gone: half a line with it. */
void x_lines_reset(struct x_lines *l);
void x_lines_free(struct x_lines *l);

#endif
