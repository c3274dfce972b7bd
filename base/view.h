/* SPDX-License-Identifier: Apache-2.0
 *
 * view.h - a run of bytes that somebody else owns: text with its length, NUL allowed in it.
 */
#ifndef VIGIL_BASE_VIEW_H
#define VIGIL_BASE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct view {
    const char *data; /* NULL only when n_bytes == 0 */
    size_t n_bytes;
};

#define VIEW(literal) ((struct view){(literal), sizeof(literal) - 1})

static inline struct view view_of(const char *data, size_t n_bytes) {
    return (struct view){data, n_bytes};
}

/* Of a C string; NULL gives the empty view. */
static inline struct view view_of_string(const char *text) {
    return (struct view){text, text ? strlen(text) : 0};
}

static inline bool view_equal(struct view a, struct view b) {
    return a.n_bytes == b.n_bytes &&
           (a.n_bytes == 0 || memcmp(a.data, b.data, a.n_bytes) == 0);
}

static inline bool view_starts_with(struct view v, struct view start) {
    return v.n_bytes >= start.n_bytes &&
           (start.n_bytes == 0 || memcmp(v.data, start.data, start.n_bytes) == 0);
}

#endif
