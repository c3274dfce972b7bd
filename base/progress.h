/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.h - a bar on stderr with the rate and the time left, for long work.
 *
 *   classify [=========>          ]  45 %  12,345 / 27,000 posts  1,234/s  12 s left
 *
 * Drawn only when stderr is a terminal that can move its cursor, at most ten times a second;
 * with NO_COLOR set, without colours. Otherwise all calls do nothing.
 *
 * Call order: progress_begin progress_update* progress_end. One thread.
 */
#ifndef VIGIL_BASE_PROGRESS_H
#define VIGIL_BASE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    const char *what; /* "classify" */
    const char *unit; /* "posts" */
    int64_t total;    /* 0: not known */
    int64_t done;
    int64_t start_ns, drawn_ns;
    int64_t drawn_done;
    double rate; /* units a second, smoothed; 0 until there is one */
    bool is_shown, has_colour;
};

/* what and unit must outlive *p. */
void progress_begin(struct progress *p, const char *what, const char *unit,
                    int64_t total);
/* done so far; total may have become known meanwhile (0: leave it as it is). */
void progress_update(struct progress *p, int64_t done, int64_t total);
/* Wipes the line, so that what is printed next starts on an empty one. */
void progress_end(struct progress *p);

/* The line for `columns` columns at a moment, without its carriage return. Returns its
 * length in columns. For progress.c and its test. */
size_t progress_render(const struct progress *p, int64_t now_ns, size_t columns,
                       char *out, size_t cap_bytes);

#endif
