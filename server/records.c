/* SPDX-License-Identifier: Apache-2.0 */
#include "server/records.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/csv.h"
#include "base/json.h"
#include "base/lines.h"
#include "base/memory.h"
#include "base/view.h"

#define INPUT_BYTES (256u << 10) /* read() at a time: past it the rate did not grow */
#define MAX_ID_BYTES 4096u
#define MAX_COLUMNS 65536u
#define MAX_JSON_DEPTH 32
#define MAX_JSON_VALUES 20000
#define MAX_JSON_KEY_BYTES 1024
#define NO_COLUMN SIZE_MAX

struct records {
    struct records_options options;
    const char *name; /* for messages */
    enum format format;
    char separator;
    int fd;
    uint64_t size, n_read, n_lines, n_rows;
    char *input; /* [INPUT_BYTES] */
    size_t at, end;
    bool is_end, has_header;
    struct lines lines; /* of JSONL and plain lines */
    struct buffer line; /* the wanted fields of the row */
    struct buffer id;
    json_t *json; /* holds the text of the record handed out */
    size_t text_column, id_column, n_columns;
};

static bool is_woken(const struct records *r) {
    struct pollfd fd = {.fd = r->options.wake_fd, .events = POLLIN};
    return fd.fd >= 0 && poll(&fd, 1, 0) > 0;
}

/* Reads once, behind what is there; is_end when there is no more. */
static enum status read_more(struct records *r, struct error *err) {
    for (;;) {
        struct pollfd fds[2] = {{.fd = r->fd, .events = POLLIN},
                                {.fd = r->options.wake_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return error_set(err, STATUS_IO, "cannot wait for %s: %s", r->name,
                             strerror(errno));
        if (fds[1].revents)
            return error_set(err, STATUS_CANCELLED, "interrupted");
        if (!fds[0].revents)
            continue;
        ssize_t n = read(r->fd, r->input + r->end, INPUT_BYTES - r->end);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return error_set(err, STATUS_IO, "cannot read %s: %s", r->name,
                             strerror(errno));
        r->end += (size_t)n;
        r->n_read += (uint64_t)n;
        r->is_end = n == 0;
        return STATUS_OK;
    }
}

/* Reads more input when there is none left; at the end of input at == end stays. */
static enum status fill(struct records *r, struct error *err) {
    if (r->at < r->end || r->is_end)
        return STATUS_OK;
    r->at = r->end = 0;
    return read_more(r, err);
}

bool records_would_wait(const struct records *r) {
    if (r->at < r->end || r->is_end)
        return false;
    struct pollfd fd = {.fd = r->fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 0;
}

/* Appends to the line as far as the limit allows; *too_long says that it did not. */
static enum status keep(struct records *r, const char *data, size_t n, bool *too_long,
                        struct error *err) {
    if (*too_long || n > r->options.max_record_bytes - r->line.n_bytes) {
        *too_long = true;
        return STATUS_OK;
    }
    return buffer_append(&r->line, data, n, err);
}

/* The next line without its end; what is too long is passed over. */
static enum status read_line(struct records *r, struct view *line, struct error *err) {
    bool is_whole = false;
    while (!is_whole) {
        size_t n;
        enum status status = fill(r, err);
        if (status != STATUS_OK)
            return status;
        if (r->at == r->end) {
            if (!lines_rest(&r->lines, line))
                return STATUS_NOT_FOUND;
            break;
        }
        status = lines_take(&r->lines, r->input + r->at, r->end - r->at, &n, &is_whole,
                            line, err);
        if (status != STATUS_OK)
            return status;
        r->at += n;
    }
    r->n_lines++;
    return STATUS_OK;
}

static void refuse(struct record *out, enum status status, const char *why) {
    error_set(&out->error, status, "%s", why);
    out->text = NULL;
    out->text_bytes = 0;
}

static void refuse_long(const struct records *r, struct record *out) {
    error_set(&out->error, STATUS_LIMIT, "is longer than %zu bytes",
              r->options.max_record_bytes);
}

/* The record's text, if it is within the limits. */
static void take_text(const struct records *r, struct record *out, const char *text,
                      size_t n_bytes) {
    out->text = text;
    out->text_bytes = n_bytes;
    if (n_bytes == 0)
        refuse(out, STATUS_INVALID, "text is empty");
    else if (n_bytes > r->options.max_text_bytes) {
        error_set(&out->error, STATUS_LIMIT, "text has %zu bytes, more than %zu",
                  n_bytes, r->options.max_text_bytes);
        out->text = NULL;
        out->text_bytes = 0;
    }
}

static enum status id_from_number(struct records *r, struct record *out,
                                  struct error *err) {
    buffer_clear(&r->id);
    enum status status =
        buffer_printf(&r->id, err, "%llu", (unsigned long long)out->number);
    out->id = r->id.data;
    out->id_bytes = r->id.n_bytes;
    return status;
}

static enum status id_from_text(struct records *r, struct record *out, const char *id,
                                size_t n_bytes, struct error *err) {
    if (n_bytes > MAX_ID_BYTES) {
        refuse(out, STATUS_LIMIT, "id is longer than 4096 bytes");
        return STATUS_OK;
    }
    buffer_clear(&r->id);
    enum status status = json_append_string(&r->id, id, n_bytes, err);
    out->id = r->id.data;
    out->id_bytes = r->id.n_bytes;
    return status;
}

static enum status next_line(struct records *r, struct record *out, struct error *err) {
    struct view line;
    do {
        enum status status = read_line(r, &line, err);
        if (status != STATUS_OK)
            return status;
    } while (line.n_bytes == 0 && !r->lines.is_cut);
    out->number = r->n_lines;
    if (r->lines.is_cut)
        refuse_long(r, out);
    else
        take_text(r, out, line.data, line.n_bytes);
    return id_from_number(r, out, err);
}

/* The id of a JSON record: strings and numbers are kept, null and none give the number of
 * the line. */
static enum status json_id(struct records *r, struct record *out, json_t *id,
                           struct error *err) {
    if (!id || json_is_null(id))
        return STATUS_OK;
    if (json_is_string(id))
        return id_from_text(r, out, json_string_value(id), json_string_length(id), err);
    if (!json_is_number(id)) {
        refuse(out, STATUS_INVALID, "id is neither a string nor a number");
        return STATUS_OK;
    }
    buffer_clear(&r->id);
    enum status status =
        json_is_integer(id)
            ? buffer_printf(&r->id, err, "%lld", (long long)json_integer_value(id))
            : buffer_printf(&r->id, err, "%.17g", json_real_value(id));
    out->id = r->id.data;
    out->id_bytes = r->id.n_bytes;
    return status;
}

static enum status parse_json(struct records *r, struct view line, struct record *out,
                              struct error *err) {
    const struct json_limits limits = {.max_bytes = r->options.max_record_bytes,
                                       .max_depth = MAX_JSON_DEPTH,
                                       .max_values = MAX_JSON_VALUES,
                                       .max_key_bytes = MAX_JSON_KEY_BYTES};
    if (json_parse(line.data, line.n_bytes, &limits, &r->json, &out->error) !=
        STATUS_OK)
        return STATUS_OK;
    json_t *text = r->json;
    if (json_is_object(r->json)) {
        text = json_object_get(r->json, r->options.text_field);
        enum status status =
            json_id(r, out, json_object_get(r->json, r->options.id_field), err);
        if (status != STATUS_OK || out->error.status != STATUS_OK)
            return status;
        if (!text)
            error_set(&out->error, STATUS_INVALID, "has no field \"%s\"",
                      r->options.text_field);
        else if (!json_is_string(text))
            error_set(&out->error, STATUS_INVALID, "field \"%s\" is not a string",
                      r->options.text_field);
    } else if (!json_is_string(r->json)) {
        refuse(out, STATUS_INVALID, "is neither a JSON object nor a JSON string");
    }
    if (out->error.status == STATUS_OK)
        take_text(r, out, json_string_value(text), json_string_length(text));
    return STATUS_OK;
}

static bool is_blank(struct view line) {
    for (size_t i = 0; i < line.n_bytes; i++)
        if (line.data[i] != ' ' && line.data[i] != '\t')
            return false;
    return true;
}

static enum status next_json(struct records *r, struct record *out, struct error *err) {
    struct view line;
    do {
        enum status status = read_line(r, &line, err);
        if (status != STATUS_OK)
            return status;
    } while (is_blank(line) && !r->lines.is_cut);
    out->number = r->n_lines;
    enum status status = id_from_number(r, out, err);
    if (status != STATUS_OK)
        return status;
    if (r->lines.is_cut) {
        refuse_long(r, out);
        return STATUS_OK;
    }
    return parse_json(r, line, out, err);
}

/* A field within r->line. */
struct field {
    size_t at, n_bytes;
    bool is_present;
};

/* One row as it is being read. */
struct row {
    struct field text, id;
    size_t n_fields, field_at;
    bool has_bytes; /* other than ends of line */
    bool too_long, is_open_quote, is_bad_quote, is_header;
};

static bool is_name(const struct records *r, size_t at, const char *name) {
    size_t n = strlen(name);
    return r->line.n_bytes - at == n && memcmp(r->line.data + at, name, n) == 0;
}

/* Ends a field. Of a header it is compared, of a row kept if it is wanted; the bytes of any
 * other field are given back, so that they do not count against the limit. */
static void end_field(struct records *r, struct row *row) {
    struct field field = {row->field_at, r->line.n_bytes - row->field_at, true};
    size_t column = row->n_fields++;
    bool is_kept = false;
    if (row->is_header && r->line.data) {
        if (r->text_column == NO_COLUMN && is_name(r, field.at, r->options.text_field))
            r->text_column = column;
        else if (r->id_column == NO_COLUMN && is_name(r, field.at, r->options.id_field))
            r->id_column = column;
    } else if (column == r->text_column) {
        row->text = field;
        is_kept = true;
    } else if (column == r->id_column) {
        row->id = field;
        is_kept = true;
    }
    if (!is_kept && r->line.data)
        r->line.data[r->line.n_bytes = row->field_at] = '\0';
    row->field_at = r->line.n_bytes;
}

/* The next row that is not an empty line. */
static enum status read_row(struct records *r, struct row *row, struct error *err) {
    struct csv csv = {.separator = r->separator};
    bool is_done = false;
    buffer_clear(&r->line);
    while (!is_done) {
        enum status status = fill(r, err);
        if (status != STATUS_OK)
            return status;
        if (r->at == r->end) {
            if (!row->has_bytes)
                return STATUS_NOT_FOUND;
            row->is_open_quote = csv.state == CSV_QUOTED;
            end_field(r, row);
            break;
        }
        char c = r->input[r->at++];
        row->has_bytes = row->has_bytes || (c != '\n' && c != '\r');
        enum csv_event event = csv_next(&csv, c);
        if (event == CSV_BYTE) {
            status = keep(r, &c, 1, &row->too_long, err);
            if (status != STATUS_OK)
                return status;
        } else if (event != CSV_NOTHING) {
            is_done = event == CSV_ROW;
            if (is_done && csv.ends_plain && r->line.n_bytes > row->field_at &&
                r->line.data[r->line.n_bytes - 1] == '\r')
                r->line.n_bytes--;
            end_field(r, row);
        }
        if (is_done && !row->has_bytes) {
            *row = (struct row){.is_header = row->is_header};
            buffer_clear(&r->line);
            is_done = false;
        }
    }
    row->is_bad_quote = csv.is_bad_quote;
    if (row->n_fields > MAX_COLUMNS)
        row->too_long = true;
    return STATUS_OK;
}

static enum status read_header(struct records *r, struct error *err) {
    struct row row = {.is_header = true};
    r->text_column = r->id_column = NO_COLUMN;
    enum status status = read_row(r, &row, err);
    if (status != STATUS_OK)
        return status;
    r->has_header = true;
    r->n_columns = row.n_fields;
    /* The first row may be a post where there is no header: it is not quoted here. */
    if (row.is_open_quote || row.too_long)
        return error_set(err, STATUS_INVALID, "%s: the first row never ends", r->name);
    if (r->text_column == NO_COLUMN)
        return error_set(err, STATUS_INVALID,
                         "%s: none of the %zu columns of the first row is named \"%s\"",
                         r->name, row.n_fields, r->options.text_field);
    return STATUS_OK;
}

static enum status next_row(struct records *r, struct record *out, struct error *err) {
    enum status status;
    if (!r->has_header) {
        status = read_header(r, err);
        if (status != STATUS_OK)
            return status;
    }
    struct row row = {.is_header = false};
    status = read_row(r, &row, err);
    if (status != STATUS_OK)
        return status;
    out->number = ++r->n_rows;
    status = row.id.is_present && row.id.n_bytes
                 ? id_from_text(r, out, r->line.data + row.id.at, row.id.n_bytes, err)
                 : id_from_number(r, out, err);
    if (status != STATUS_OK || out->error.status != STATUS_OK)
        return status == STATUS_OK && !out->id ? id_from_number(r, out, err) : status;
    if (row.is_open_quote)
        refuse(out, STATUS_INVALID, "a quoted field never ends");
    else if (row.too_long)
        refuse_long(r, out);
    else if (row.is_bad_quote)
        refuse(out, STATUS_INVALID, "a closing quote is followed by more of the field");
    else if (row.n_fields != r->n_columns)
        error_set(&out->error, STATUS_INVALID, "has %zu fields, the header %zu",
                  row.n_fields, r->n_columns);
    else
        take_text(r, out, r->line.data ? r->line.data + row.text.at : "",
                  row.text.n_bytes);
    return STATUS_OK;
}

enum status records_next(struct records *r, struct record *out, struct error *err) {
    memset(out, 0, sizeof *out);
    json_decref(r->json);
    r->json = NULL;
    if (is_woken(r))
        return error_set(err, STATUS_CANCELLED, "interrupted");
    switch (r->format) {
    case FORMAT_JSONL:
        return next_json(r, out, err);
    case FORMAT_CSV:
        return next_row(r, out, err);
    case FORMAT_AUTO:
    case FORMAT_LINES:
        break;
    }
    return next_line(r, out, err);
}

/* Looks at the first bytes: skips a byte-order mark, knows what is no text at all. */
static enum status look(struct records *r, struct error *err) {
    /* The first line whole, however small the pieces that it comes in. */
    while (!r->is_end && r->end < INPUT_BYTES && !memchr(r->input, '\n', r->end)) {
        enum status status = read_more(r, err);
        if (status != STATUS_OK)
            return status;
    }
    enum status status = format_check(r->name, r->input, r->end, &r->at, err);
    if (status != STATUS_OK)
        return status;
    r->format = r->options.format;
    if (r->format == FORMAT_AUTO)
        r->format = format_guess(r->options.path, r->input + r->at, r->end - r->at,
                                 r->options.text_field, r->separator);
    return STATUS_OK;
}

enum status records_open(const struct records_options *options, struct records **out,
                         struct error *err) {
    enum status status;
    *out = NULL;
    struct records *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, STATUS_NO_MEMORY, "no memory to read records");
    bool is_stdin = !options->path || strcmp(options->path, "-") == 0;
    r->options = *options;
    r->name = is_stdin ? "standard input" : options->path;
    r->separator = options->separator;
    if (!r->separator)
        r->separator = format_separator(options->path);
    size_t id_max;
    r->line.max_bytes = r->lines.line.max_bytes = options->max_record_bytes;
    /* Six bytes of JSON for a byte at most. */
    r->id.max_bytes = size_multiply(MAX_ID_BYTES, 6, &id_max) ? id_max + 2 : 0;
    r->input = malloc(INPUT_BYTES);
    if (!r->input) {
        free(r);
        return error_set(err, STATUS_NO_MEMORY, "no memory to read records");
    }
    r->fd = is_stdin ? STDIN_FILENO : open(options->path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (r->fd < 0 || fstat(r->fd, &st) != 0) {
        status = error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                           "cannot open %s: %s", r->name, strerror(errno));
        goto out;
    }
    r->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    status = look(r, err);

out:
    if (status == STATUS_OK)
        *out = r;
    else
        records_close(r);
    return status;
}

void records_close(struct records *r) {
    if (!r)
        return;
    if (r->fd > STDIN_FILENO)
        close(r->fd);
    json_decref(r->json);
    lines_free(&r->lines);
    buffer_free(&r->line);
    buffer_free(&r->id);
    free(r->input);
    free(r);
}

enum format records_format(const struct records *r) {
    return r->format;
}

uint64_t records_bytes_read(const struct records *r) {
    return r->n_read - (r->end - r->at);
}

uint64_t records_size(const struct records *r) {
    return r->size;
}
