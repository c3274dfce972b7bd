/* SPDX-License-Identifier: Apache-2.0
 *
 * x_lines.c - lines out of chunks. A line that lies within a chunk is not copied.
 */
#include "client/sources/x_lines.h"

#include <string.h>

#include "client/sources/source.h"

void x_lines_feed(struct x_lines *l, struct view bytes) {
    l->chunk = bytes;
}

/* Keeps the beginning of a line whose end has not come. */
static enum status keep(struct x_lines *l, struct view part, struct error *err) {
    size_t room = SOURCE_MAX_LINE_BYTES + 1 - l->line.n_bytes; /* one more for \r */
    l->line.max_bytes = SOURCE_MAX_LINE_BYTES + 1;
    if (part.n_bytes > room) {
        part.n_bytes = room;
        l->is_cut = true;
    }
    if (part.n_bytes == 0)
        return STATUS_OK;
    return buffer_append(&l->line, part.data, part.n_bytes, err);
}

enum status x_lines_next(struct x_lines *l, struct view *out, bool *is_cut,
                         struct error *err) {
    *out = view_of(NULL, 0);
    *is_cut = false;
    if (l->is_handed_out) {
        buffer_clear(&l->line);
        l->is_handed_out = l->is_cut = false;
    }
    while (l->chunk.n_bytes > 0) {
        const char *end = memchr(l->chunk.data, '\n', l->chunk.n_bytes);
        size_t n = end ? (size_t)(end - l->chunk.data) : l->chunk.n_bytes;
        struct view part = view_of(l->chunk.data, n);
        size_t n_used = end ? n + 1 : n;
        if (!end || l->line.n_bytes > 0) {
            enum status status = keep(l, part, err);
            if (status != STATUS_OK)
                return status;
            if (l->line.n_bytes > 0)
                part = view_of(l->line.data, l->line.n_bytes);
        }
        l->chunk = view_of(l->chunk.data + n_used, l->chunk.n_bytes - n_used);
        if (!end)
            continue;
        if (part.n_bytes > 0 && part.data[part.n_bytes - 1] == '\r' && !l->is_cut)
            part.n_bytes--;
        if (part.n_bytes == 0) {
            l->n_keep_alives++;
            buffer_clear(&l->line);
            continue;
        }
        if (part.n_bytes > SOURCE_MAX_LINE_BYTES) {
            part.n_bytes = SOURCE_MAX_LINE_BYTES;
            l->is_cut = true;
        }
        *is_cut = l->is_cut;
        *out = part;
        l->is_handed_out = true;
        return STATUS_OK;
    }
    return error_set(err, STATUS_NOT_FOUND, "no whole line yet");
}

void x_lines_reset(struct x_lines *l) {
    l->chunk = view_of(NULL, 0);
    buffer_clear(&l->line);
    l->is_handed_out = l->is_cut = false;
}

void x_lines_free(struct x_lines *l) {
    x_lines_reset(l);
    buffer_free(&l->line);
}
