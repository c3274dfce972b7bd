/* SPDX-License-Identifier: Apache-2.0 */
#include "base/lines.h"

#include <string.h>

/* Where the line ends within data: at its LF; n_bytes when it does not. */
static size_t find_end(struct lines *l, const char *data, size_t n_bytes) {
    if (!l->is_csv || l->is_over) {
        const char *newline = memchr(data, '\n', n_bytes);
        return newline ? (size_t)(newline - data) : n_bytes;
    }
    size_t room = l->line.max_bytes - l->line.n_bytes;
    for (size_t i = 0; i < n_bytes; i++) {
        if (csv_next(&l->csv, data[i]) == CSV_ROW)
            return i;
        if (i >= room) {
            const char *newline = memchr(data + i, '\n', n_bytes - i);
            return newline ? (size_t)(newline - data) : n_bytes;
        }
    }
    return n_bytes;
}

/* Keeps a part of a line, as far as there is room. */
static enum status keep(struct lines *l, const char *data, size_t n_bytes,
                        struct error *err) {
    size_t room = l->line.max_bytes - l->line.n_bytes;
    if (n_bytes > room) {
        l->is_over = true;
        n_bytes = room;
    }
    return n_bytes ? buffer_append(&l->line, data, n_bytes, err) : STATUS_OK;
}

static void without_cr(struct view *line) {
    if (line->n_bytes && line->data[line->n_bytes - 1] == '\r')
        line->n_bytes--;
}

/* The line that has come is handed out; the next call begins a new one. */
static void finish(struct lines *l, struct view *out) {
    l->is_cut = l->is_over;
    if (!l->is_cut)
        without_cr(out);
    l->is_begun = l->is_over = false;
    l->csv = (struct csv){.separator = l->csv.separator};
    l->is_done = true;
}

enum status lines_take(struct lines *l, const char *data, size_t n_bytes,
                       size_t *n_taken, bool *is_whole, struct view *out,
                       struct error *err) {
    if (l->is_done) {
        buffer_clear(&l->line);
        l->is_done = false;
    }
    *is_whole = false;
    *n_taken = 0;
    if (n_bytes == 0)
        return STATUS_OK;
    size_t n = find_end(l, data, n_bytes);
    bool has_end = n < n_bytes;
    if (has_end && l->line.n_bytes == 0 && !l->is_over && n <= l->line.max_bytes) {
        *out = view_of(data, n);
    } else {
        enum status status = keep(l, data, n, err);
        if (status != STATUS_OK)
            return status;
        *out = view_of(l->line.data, l->line.n_bytes);
    }
    *n_taken = n + has_end;
    l->is_begun = true;
    *is_whole = has_end;
    if (has_end)
        finish(l, out);
    return STATUS_OK;
}

bool lines_rest(struct lines *l, struct view *out) {
    if (l->is_done || !l->is_begun)
        return false;
    *out = view_of(l->line.data, l->line.n_bytes);
    finish(l, out);
    return true;
}

void lines_clear(struct lines *l) {
    buffer_clear(&l->line);
    l->csv = (struct csv){.separator = l->csv.separator};
    l->is_begun = l->is_cut = l->is_over = l->is_done = false;
}

void lines_free(struct lines *l) {
    buffer_free(&l->line);
    lines_clear(l);
}
