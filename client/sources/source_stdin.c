/* SPDX-License-Identifier: Apache-2.0
 *
 * source_stdin.c - standard input, or a FIFO: what was read is gone, so the raw lines are kept
 * first. Its position is a count of lines, which nothing goes back to.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sources/record.h"
#include "client/sources/source.h"
#include "client/sources/text_reader.h"

struct source {
    struct source_options options;
    struct source_state state;
    struct text_reader reader;
    int fd;
    uint64_t n_lines;
    bool is_over;
};

static void stdin_close(struct source *s) {
    if (!s)
        return;
    if (s->fd > STDIN_FILENO)
        close(s->fd);
    text_reader_free(&s->reader);
    free(s);
}

static enum status stdin_open(const struct source_options *options, struct source **out,
                              struct error *err) {
    struct source *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory to read posts");
    const char *path = options->target;
    bool is_stdin = !path || path[0] == '\0' || strcmp(path, "-") == 0;
    s->options = *options;
    enum status status =
        text_reader_init(&s->reader, options->settings, &s->state, err);
    /* Without O_NONBLOCK, opening a FIFO would wait for who writes to it. */
    s->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (status == STATUS_OK && s->fd < 0)
        status = error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                           "cannot open %s: %s", path, strerror(errno));
    if (status != STATUS_OK) {
        stdin_close(s);
        return status;
    }
    text_reader_begin(&s->reader, is_stdin ? "standard input" : path, s->fd, 0);
    atomic_store(&s->state.phase, SOURCE_STREAMING);
    *out = s;
    return STATUS_OK;
}

static enum status stdin_next(struct source *s, int64_t deadline_ns,
                              struct source_line *out, struct error *err) {
    enum status status = STATUS_NOT_FOUND;
    if (!s->is_over)
        status =
            text_reader_next(&s->reader, s->options.wake_fd, deadline_ns, out, err);
    if (status == STATUS_NOT_FOUND && !s->is_over) {
        s->is_over = true;
        atomic_store(&s->state.phase, SOURCE_ENDED);
        status = text_reader_rest(&s->reader, out, err);
    }
    if (status == STATUS_OK)
        out->after = (struct source_position){0, ++s->n_lines};
    return status;
}

static enum status stdin_cursor(const struct source *s, struct source_position at,
                                char out[SOURCE_CURSOR_BYTES], struct error *err) {
    (void)s;
    (void)err;
    snprintf(out, SOURCE_CURSOR_BYTES, "%" PRIu64 " lines", at.minor);
    return STATUS_OK;
}

static enum status stdin_parse(const struct source *s, struct view line,
                               struct arena *arena, struct post *out,
                               struct error *err) {
    return record_parse(s ? s->options.settings : NULL, line, arena, out, err);
}

static struct source_state *stdin_state(struct source *s) {
    return &s->state;
}

const struct source_kind source_stdin = {
    .name = "stdin",
    .default_name = "stdin",
    .summary = "standard input or a FIFO: JSONL, CSV or plain lines",
    .open = stdin_open,
    .next = stdin_next,
    .cursor = stdin_cursor,
    .parse = stdin_parse,
    .state = stdin_state,
    .close = stdin_close,
};
