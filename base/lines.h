/* SPDX-License-Identifier: Apache-2.0
 *
 * lines.h - cuts bytes that come in pieces into lines, or into the rows of CSV, which may hold
 * line ends between quotes. No I/O; memory for the part of a line that has come, alone.
 *
 * Call order: set line.max_bytes (is_csv, csv.separator), (take | rest)* free
 */
#ifndef VIGIL_BASE_LINES_H
#define VIGIL_BASE_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/csv.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"

/* Zero-initialise, then set the three. */
struct lines {
    struct buffer
        line; /* what has come of a line; max_bytes: the longest there may be */
    bool is_csv;
    struct csv csv;

    bool is_begun; /* there is a line that has not ended */
    bool is_cut;   /* the line handed out last was longer, and is its first max_bytes */
    bool is_over;  /* the one that has begun is, so far */
    bool is_done;  /* the line in `line` was handed out */
};

/* Takes bytes up to the end of the line, or all of them. Then either *is_whole is set and
 * *out is the line without its LF or CR LF (in data or in l, good until the next call), or
 * all n_bytes were taken. A row of CSV that is too long ends with its first line end behind
 * max_bytes, quoted or not, so that one open quote does not take the rest with it. */
enum status lines_take(struct lines *l, const char *data, size_t n_bytes,
                       size_t *n_taken, bool *is_whole, struct view *out,
                       struct error *err);
/* At the end of the input: the line that has no end, if there is one. */
bool lines_rest(struct lines *l, struct view *out);
/* Forgets what has begun. */
void lines_clear(struct lines *l);
void lines_free(struct lines *l);

#endif
