/* SPDX-License-Identifier: Apache-2.0
 *
 * sse.c - server-sent events.
 */
#include "client/net/sse.h"

#include <string.h>

#include "client/sources/source.h"

#define MAX_LINE_BYTES (SOURCE_MAX_LINE_BYTES + 64) /* with the field's name */

static void clear_event(struct sse *s) {
    buffer_clear(&s->data);
    s->event[0] = 0;
    s->has_data = s->is_cut = s->is_handed_out = false;
}

static enum status add_data(struct sse *s, struct view value, struct error *err) {
    enum status status = STATUS_OK;
    s->data.max_bytes = SOURCE_MAX_LINE_BYTES;
    if (s->has_data && s->data.n_bytes < SOURCE_MAX_LINE_BYTES)
        status = buffer_append(&s->data, "\n", 1, err);
    s->has_data = true;
    size_t room = SOURCE_MAX_LINE_BYTES - s->data.n_bytes;
    if (value.n_bytes > room) {
        value.n_bytes = room;
        s->is_cut = true;
    }
    if (status == STATUS_OK && value.n_bytes > 0)
        status = buffer_append(&s->data, value.data, value.n_bytes, err);
    return status;
}

static void copy_name(char *out, size_t cap_bytes, struct view value) {
    size_t n = value.n_bytes < cap_bytes - 1 ? value.n_bytes : cap_bytes - 1;
    if (n > 0)
        memcpy(out, value.data, n);
    out[n] = 0;
}

/* A line is whole. *has_event: it was the empty one behind an event. */
static enum status take_line(struct sse *s, bool *has_event, struct error *err) {
    struct view line = view_of(s->line.data, s->line.n_bytes), value = {0};
    if (!s->has_begun && view_starts_with(line, VIEW("\xef\xbb\xbf")))
        line = view_of(line.data + 3, line.n_bytes - 3);
    s->has_begun = true;
    if (line.n_bytes == 0) {
        *has_event = s->has_data;
        if (!s->has_data)
            clear_event(s);
        else if (!s->event[0])
            copy_name(s->event, sizeof(s->event), VIEW("message"));
        s->is_handed_out = s->has_data;
        return STATUS_OK;
    }
    if (line.data[0] == ':') {
        s->n_comments++;
        return STATUS_OK;
    }
    const char *colon = memchr(line.data, ':', line.n_bytes);
    struct view field =
        view_of(line.data, colon ? (size_t)(colon - line.data) : line.n_bytes);
    if (colon) {
        value = view_of(colon + 1, line.n_bytes - field.n_bytes - 1);
        if (value.n_bytes > 0 && value.data[0] == ' ')
            value = view_of(value.data + 1, value.n_bytes - 1);
    }
    if (view_equal(field, VIEW("data")))
        return add_data(s, value, err);
    if (view_equal(field, VIEW("event")))
        copy_name(s->event, sizeof(s->event), value);
    else if (view_equal(field, VIEW("id")) && value.n_bytes < sizeof(s->id) &&
             (value.n_bytes == 0 || !memchr(value.data, 0, value.n_bytes)))
        copy_name(s->id, sizeof(s->id), value);
    return STATUS_OK;
}

/* How many bytes there are before the end of the line. */
static size_t line_length(struct view bytes) {
    size_t n = 0; /* one pass, whichever end is used: memchr for both would be two */
    while (n < bytes.n_bytes && bytes.data[n] != '\n' && bytes.data[n] != '\r')
        n++;
    return n;
}

enum status sse_feed(struct sse *s, struct view bytes, size_t *n_used, bool *has_event,
                     struct error *err) {
    size_t at = 0;
    enum status status = STATUS_OK;
    *has_event = false;
    *n_used = 0;
    if (s->is_handed_out)
        clear_event(s);
    s->line.max_bytes = MAX_LINE_BYTES;
    while (at < bytes.n_bytes && !*has_event && status == STATUS_OK) {
        if (s->is_behind_cr && bytes.data[at] == '\n') {
            s->is_behind_cr = false;
            at++;
            continue;
        }
        s->is_behind_cr = false;
        struct view rest = view_of(bytes.data + at, bytes.n_bytes - at);
        size_t n = line_length(rest), n_kept = n;
        if (n_kept > MAX_LINE_BYTES - s->line.n_bytes) {
            n_kept = MAX_LINE_BYTES - s->line.n_bytes;
            s->is_cut = true;
        }
        if (n_kept > 0)
            status = buffer_append(&s->line, rest.data, n_kept, err);
        if (status != STATUS_OK)
            break;
        at += n;
        if (n == rest.n_bytes)
            break;
        s->is_behind_cr = bytes.data[at] == '\r';
        at++;
        status = take_line(s, has_event, err);
        buffer_clear(&s->line);
    }
    *n_used = at;
    return status;
}

void sse_reset(struct sse *s) {
    clear_event(s);
    buffer_clear(&s->line);
    s->is_behind_cr = s->has_begun = false;
}

void sse_free(struct sse *s) {
    buffer_free(&s->data);
    buffer_free(&s->line);
}
