/* SPDX-License-Identifier: Apache-2.0 */
#include "client/sources/text_reader.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/sources/record.h"

#define INPUT_BYTES ((size_t)256 << 10)
/* A row with its header before it, and the tag. */
#define MAX_OUT_BYTES (2 * SOURCE_MAX_LINE_BYTES + 16)
#define MAX_HEADER_BYTES ((size_t)64 << 10)

enum status text_reader_init(struct text_reader *r,
                             const struct source_settings *settings,
                             struct source_state *state, struct error *err) {
    memset(r, 0, sizeof *r);
    r->settings = settings;
    r->state = state;
    r->text_field = settings->text_field ? settings->text_field : "text";
    r->fd = -1;
    r->header.max_bytes = MAX_HEADER_BYTES;
    r->out.max_bytes = MAX_OUT_BYTES;
    r->lines.line.max_bytes = SOURCE_MAX_LINE_BYTES;
    r->input = malloc(INPUT_BYTES);
    return r->input ? STATUS_OK
                    : error_set(err, STATUS_NO_MEMORY, "no memory to read posts");
}

void text_reader_free(struct text_reader *r) {
    lines_free(&r->lines);
    buffer_free(&r->header);
    buffer_free(&r->out);
    free(r->input);
    r->input = NULL;
}

void text_reader_begin(struct text_reader *r, const char *path, int fd,
                       uint64_t offset) {
    r->path = path;
    r->fd = fd;
    r->at = r->end = 0;
    r->offset = 0;
    r->seek_to = offset;
    r->format = FORMAT_AUTO;
    struct stat facts;
    r->is_regular = fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode);
    r->is_end = r->has_header = false;
    r->n_head = 0;
    lines_clear(&r->lines);
    r->lines.is_csv = false;
}

enum status text_reader_wait(int wake_fd, int other_fd, int64_t until_ns,
                             struct error *err) {
    for (;;) {
        struct pollfd fds[2] = {{.fd = wake_fd, .events = POLLIN},
                                {.fd = other_fd, .events = POLLIN}};
        int64_t left = until_ns - clock_now_ns();
        int64_t left_ms = left <= 0 ? 0 : left / 1000000 + 1;
        int n = poll(fds, 2, left_ms > 60000 ? 60000 : (int)left_ms);
        if (n < 0 && errno != EINTR)
            return error_set(err, STATUS_IO, "cannot wait: %s", strerror(errno));
        if (n > 0 && fds[0].revents)
            return error_set(err, STATUS_CANCELLED, "interrupted");
        if (n > 0 && fds[1].revents)
            return STATUS_OK;
        if (left <= 0)
            return error_set(err, STATUS_TIMEOUT, "nothing came");
    }
}

/* Reads once, behind what is there. */
static enum status read_more(struct text_reader *r, int wake_fd, int64_t deadline_ns,
                             struct error *err) {
    if (r->at > 0 && r->at == r->end)
        r->at = r->end = 0;
    for (;;) {
        if (!r->is_regular) {
            enum status status = text_reader_wait(wake_fd, r->fd, deadline_ns, err);
            if (status != STATUS_OK)
                return status;
        }
        ssize_t n = read(r->fd, r->input + r->end, INPUT_BYTES - r->end);
        if (n >= 0) {
            size_t n_bytes = (size_t)n;
            if (r->n_head < sizeof r->head &&
                r->offset + (r->end - r->at) == r->n_head) {
                size_t n_new = sizeof r->head - r->n_head;
                n_new = n_new < n_bytes ? n_new : n_bytes;
                memcpy(r->head + r->n_head, r->input + r->end, n_new);
                r->n_head += n_new;
            }
            r->end += n_bytes;
            r->is_end = n == 0;
            if (n > 0) {
                r->read_ns = clock_wall_ns();
                int64_t now = clock_now_ns();
                atomic_store(&r->state->last_byte_ns, now);
                atomic_fetch_add(&r->state->n_bytes, (int64_t)n);
            }
            return STATUS_OK;
        }
        if (errno != EINTR && errno != EAGAIN)
            return error_set(err, STATUS_IO, "cannot read %s: %s", r->path,
                             strerror(errno));
    }
}

/* Takes bytes of the input up to the end of a line. */
static enum status take_line(struct text_reader *r, bool *is_whole, struct view *line,
                             struct error *err) {
    size_t n;
    enum status status = lines_take(&r->lines, r->input + r->at, r->end - r->at, &n,
                                    is_whole, line, err);
    if (status == STATUS_OK) {
        r->at += n;
        r->offset += n;
    }
    return status;
}

/* The first line is there, or as much as there will be: which format is it? */
static enum status look(struct text_reader *r, struct error *err) {
    size_t n_mark;
    char separator = format_separator(r->path);
    enum status status =
        format_check(r->path, r->input + r->at, r->end - r->at, &n_mark, err);
    if (status != STATUS_OK)
        return status;
    r->at += n_mark;
    r->offset += n_mark;
    r->format = format_of(r->settings->format);
    if (r->format == FORMAT_AUTO)
        r->format = format_guess(r->path, r->input + r->at, r->end - r->at,
                                 r->text_field, separator);
    r->lines.is_csv = r->format == FORMAT_CSV;
    r->lines.csv.separator = separator;
    buffer_clear(&r->header);
    if (r->format != FORMAT_CSV)
        return STATUS_OK;
    const char start[2] = {RECORD_TAG_CSV, separator};
    return buffer_append(&r->header, start, sizeof start, err);
}

static enum status take_header(struct text_reader *r, struct view row,
                               struct error *err) {
    /* The first row may be a post where there is no header: it is not quoted here. */
    if (r->lines.is_cut || row.n_bytes > MAX_HEADER_BYTES / 2)
        return error_set(err, STATUS_INVALID, "%s: the first row never ends", r->path);
    struct view name = view_of_string(r->text_field);
    bool has_text = false;
    struct csv csv = {.separator = r->lines.csv.separator};
    size_t from = 0, n = 0;
    for (size_t i = 0; i <= row.n_bytes && !has_text; i++) {
        enum csv_event event = i < row.n_bytes ? csv_next(&csv, row.data[i]) : CSV_ROW;
        if (event == CSV_BYTE && n == 0)
            from = i;
        n += event == CSV_BYTE;
        if (event == CSV_FIELD || event == CSV_ROW) {
            has_text =
                n == name.n_bytes && view_equal(view_of(row.data + from, n), name);
            n = 0;
        }
    }
    if (!has_text)
        return error_set(err, STATUS_INVALID,
                         "%s: no column of the first row is named \"%.64s\"", r->path,
                         r->text_field);
    enum status status = buffer_append(&r->header, row.data, row.n_bytes, err);
    return status == STATUS_OK ? buffer_append(&r->header, "\n", 1, err) : status;
}

/* To where an earlier run left off. */
static enum status skip_ahead(struct text_reader *r, struct error *err) {
    if (r->seek_to > r->offset) {
        if (lseek(r->fd, (off_t)r->seek_to, SEEK_SET) < 0)
            return error_set(err, STATUS_IO, "cannot go to byte %llu of %s: %s",
                             (unsigned long long)r->seek_to, r->path, strerror(errno));
        r->offset = r->seek_to;
        r->at = r->end = 0;
        lines_clear(&r->lines);
    }
    r->seek_to = 0;
    return STATUS_OK;
}

static bool is_blank(const struct text_reader *r, struct view line) {
    for (size_t i = 0; r->format == FORMAT_JSONL && i < line.n_bytes; i++)
        if (line.data[i] != ' ' && line.data[i] != '\t')
            return false;
    return r->format == FORMAT_JSONL || line.n_bytes == 0;
}

/* A line as it is handed out: as it is, or with what it needs in front. */
static enum status decorate(struct text_reader *r, struct view line,
                            struct source_line *out, struct error *err) {
    char tag = r->format == FORMAT_CSV ? '\0' : record_tag(r->format, line);
    *out = (struct source_line){
        .bytes = line, .received_ns = r->read_ns, .is_cut = r->lines.is_cut};
    atomic_fetch_add_explicit(&r->state->n_lines, 1, memory_order_relaxed);
    atomic_store_explicit(
        &r->state->last_post_ns,
        atomic_load_explicit(&r->state->last_byte_ns, memory_order_relaxed),
        memory_order_relaxed);
    if (r->format != FORMAT_CSV && !tag)
        return STATUS_OK;
    buffer_clear(&r->out);
    enum status status =
        r->format == FORMAT_CSV
            ? buffer_append(&r->out, r->header.data, r->header.n_bytes, err)
            : buffer_append(&r->out, &tag, 1, err);
    if (status == STATUS_OK)
        status = buffer_append(&r->out, line.data, line.n_bytes, err);
    if (r->out.n_bytes > SOURCE_MAX_LINE_BYTES) {
        r->out.n_bytes = SOURCE_MAX_LINE_BYTES;
        out->is_cut = true;
    }
    out->bytes = view_of(r->out.data, r->out.n_bytes);
    return status;
}

/* Knows the format, and of CSV the header: then *is_ready. */
static enum status prepare(struct text_reader *r, bool *is_ready, struct error *err) {
    size_t n = r->end - r->at;
    enum status status = STATUS_OK;
    *is_ready = false;
    if (r->format == FORMAT_AUTO) {
        if (!r->is_end && n < INPUT_BYTES && !memchr(r->input + r->at, '\n', n))
            return STATUS_OK;
        if (n == 0)
            return STATUS_OK;
        status = look(r, err);
    }
    while (status == STATUS_OK && r->format == FORMAT_CSV && !r->has_header &&
           r->at < r->end) {
        struct view row;
        bool is_whole;
        status = take_line(r, &is_whole, &row, err);
        if (status == STATUS_OK && is_whole && (row.n_bytes || r->lines.is_cut)) {
            status = take_header(r, row, err);
            r->has_header = status == STATUS_OK;
        }
    }
    if (status != STATUS_OK || (r->format == FORMAT_CSV && !r->has_header))
        return status;
    *is_ready = true;
    return r->seek_to ? skip_ahead(r, err) : STATUS_OK;
}

enum status text_reader_next(struct text_reader *r, int wake_fd, int64_t deadline_ns,
                             struct source_line *out, struct error *err) {
    struct view line;
    bool is_whole, is_ready = r->format != FORMAT_AUTO &&
                              (r->format != FORMAT_CSV || r->has_header) &&
                              r->seek_to == 0;
    for (;;) {
        enum status status = STATUS_OK;
        if (!is_ready)
            status = prepare(r, &is_ready, err);
        if (status != STATUS_OK)
            return status;
        if (is_ready && r->at < r->end) {
            status = take_line(r, &is_whole, &line, err);
            if (status != STATUS_OK)
                return status;
            if (is_whole && (r->lines.is_cut || !is_blank(r, line)))
                return decorate(r, line, out, err);
            if (is_whole)
                continue;
        }
        bool was_end = r->is_end;
        status = read_more(r, wake_fd, deadline_ns, err);
        if (status != STATUS_OK)
            return status;
        if (r->is_end && was_end)
            return STATUS_NOT_FOUND;
    }
}

enum status text_reader_rest(struct text_reader *r, struct source_line *out,
                             struct error *err) {
    struct view line;
    if (r->format == FORMAT_CSV && !r->has_header) {
        enum status status =
            lines_rest(&r->lines, &line) ? take_header(r, line, err) : STATUS_OK;
        return status == STATUS_OK ? STATUS_NOT_FOUND : status;
    }
    if (!lines_rest(&r->lines, &line) || (!r->lines.is_cut && is_blank(r, line)))
        return STATUS_NOT_FOUND;
    return decorate(r, line, out, err);
}

uint64_t text_reader_hash(const char *head, size_t n_head, uint64_t offset) {
    uint64_t hash = UINT64_C(0xCBF29CE484222325); /* FNV-1a */
    for (size_t i = 0; i < n_head && i < offset; i++)
        hash = (hash ^ (uint8_t)head[i]) * UINT64_C(0x100000001B3);
    return hash;
}

bool text_reader_hash_of(int fd, uint64_t offset, uint64_t *out) {
    char head[TEXT_READER_HEAD_BYTES];
    size_t wanted = offset < sizeof head ? (size_t)offset : sizeof head;
    if (pread(fd, head, wanted, 0) != (ssize_t)wanted)
        return false;
    *out = text_reader_hash(head, wanted, offset);
    return true;
}

bool text_reader_is_same(const struct text_reader *r, int fd) {
    char head[TEXT_READER_HEAD_BYTES];
    return pread(fd, head, r->n_head, 0) == (ssize_t)r->n_head &&
           memcmp(head, r->head, r->n_head) == 0;
}
