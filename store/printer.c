/* SPDX-License-Identifier: Apache-2.0 */
#include "store/printer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define MAX_TABLE_BYTES ((size_t)256 << 20)
#define MAX_LINE_BYTES ((size_t)64 << 20)

enum printer_format printer_format_of(const char *name) {
    static const char *const names[] = {"table", "csv", "json", "jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum printer_format)i;
    return PRINTER_TABLE;
}

/* C0, DEL and, in UTF-8, C1: terminals take all of them for commands. */
void printer_disarm(char *text, size_t n_bytes) {
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        bool is_c1 = c == 0xc2 && i + 1 < n_bytes &&
                     (unsigned char)text[i + 1] >= 0x80 &&
                     (unsigned char)text[i + 1] < 0xa0;
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f || is_c1)
            text[i] = '?';
        if (is_c1)
            text[++i] = '?';
    }
}

void printer_complain(const char *name, const struct error *err) {
    char text[ERROR_MESSAGE_BYTES];
    size_t n = strnlen(err->message, sizeof text - 1);
    memcpy(text, err->message, n);
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\n' || text[i] == '\t')
            text[i] = ' ';
    printer_disarm(text, n);
    fprintf(stderr, "vigil %s: %.*s\n", name, (int)n, text);
}

static enum status put(struct printer *p, const char *data, size_t n_bytes,
                       struct error *err) {
    if (fwrite(data, 1, n_bytes, p->out) != n_bytes)
        return error_set(err, STATUS_IO, "cannot write: %s", strerror(errno));
    return STATUS_OK;
}

static enum status put_part(struct printer *p, struct error *err) {
    if (p->is_terminal)
        printer_disarm(p->line.data, p->line.n_bytes);
    enum status status = put(p, p->line.data, p->line.n_bytes, err);
    buffer_clear(&p->line);
    return status;
}

static enum status put_line(struct printer *p, struct error *err) {
    enum status status = buffer_append(&p->line, "\n", 1, err);
    if (status == STATUS_OK)
        status = put_part(p, err);
    return status;
}

/* ---- a table ---- */

/* Columns that UTF-8 takes on a terminal, as far as one can know: one a code point. */
static size_t width_of(struct view text) {
    size_t n = 0;
    for (size_t i = 0; i < text.n_bytes; i++)
        n += ((unsigned char)text.data[i] & 0xc0) != 0x80;
    return n;
}

/* What may be shown of a text, cut to max columns with an ellipsis. */
static enum status cell_of_text(struct printer *p, struct view text, struct view *out,
                                struct error *err) {
    size_t max = p->max_cell_columns, n_columns = 0, n = 0;
    char *cell = arena_take(&p->cells, text.n_bytes + 4);
    if (!cell)
        return error_set(err, STATUS_LIMIT,
                         "the table is larger than %zu MB; ask for fewer rows, or for "
                         "another --format",
                         MAX_TABLE_BYTES >> 20);
    bool is_long = max && width_of(text) > max;
    for (size_t i = 0; i < text.n_bytes; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if ((c & 0xc0) != 0x80) {
            if (is_long && n_columns == max - 1)
                break;
            n_columns++;
        }
        if (c == '\n' || c == '\r' || c == '\t')
            cell[n++] = ' ';
        else if (c < 0x20 || c == 0x7f)
            cell[n++] = '?';
        else if (c == 0xc2 && i + 1 < text.n_bytes &&
                 (unsigned char)text.data[i + 1] < 0xa0) /* C1 controls */
            cell[n++] = '?', i++;
        else
            cell[n++] = (char)c;
    }
    if (is_long) {
        memcpy(cell + n, "\xe2\x80\xa6", 3);
        n += 3;
    }
    *out = view_of(cell, n);
    return STATUS_OK;
}

static enum status cell_of(struct printer *p, const struct printer_value *value,
                           struct view *out, struct error *err) {
    switch (value->type) {
    case STATEMENT_NULL:
        *out = VIEW("");
        return STATUS_OK;
    case STATEMENT_INTEGER:
        return arena_printf(&p->cells, out, err, "%" PRId64, value->integer);
    case STATEMENT_REAL:
        return arena_printf(&p->cells, out, err, "%.6g", value->real);
    case STATEMENT_BYTES:
        return arena_printf(&p->cells, out, err, "%zu bytes", value->text.n_bytes);
    case STATEMENT_TEXT:
        break;
    }
    return cell_of_text(p, value->text, out, err);
}

static enum status table_row(struct printer *p, const struct printer_value *values,
                             struct error *err) {
    size_t n_cells = (p->n_rows + 1) * p->n_columns;
    if (n_cells > p->cap_cells) {
        size_t cap = p->cap_cells ? p->cap_cells * 2 : 1024;
        cap = cap < n_cells ? n_cells : cap;
        struct view *table = realloc(p->table, cap * sizeof *table);
        if (!table)
            return error_set(err, STATUS_NO_MEMORY, "no memory for a table of %zu rows",
                             p->n_rows);
        p->table = table;
        p->cap_cells = cap;
    }
    for (size_t i = 0; i < p->n_columns; i++) {
        struct view *cell = &p->table[p->n_rows * p->n_columns + i];
        enum status status = cell_of(p, &values[i], cell, err);
        if (status != STATUS_OK)
            return status;
        size_t width = width_of(*cell);
        p->widths[i] = width > p->widths[i] ? width : p->widths[i];
        if (values[i].type == STATEMENT_TEXT || values[i].type == STATEMENT_BYTES)
            p->is_right[i] = false;
    }
    p->n_rows++;
    return STATUS_OK;
}

static enum status table_line(struct printer *p, const struct view *cells,
                              struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < p->n_columns; i++) {
        size_t padding = p->widths[i] - width_of(cells[i]);
        bool is_last = i + 1 == p->n_columns;
        if (p->is_right[i])
            status = buffer_printf(&p->line, err, "%*s", (int)padding, "");
        if (status == STATUS_OK)
            status = buffer_append(&p->line, cells[i].data, cells[i].n_bytes, err);
        if (status == STATUS_OK && !is_last)
            status = buffer_printf(&p->line, err, "%*s",
                                   (int)(p->is_right[i] ? 2 : padding + 2), "");
    }
    return status == STATUS_OK ? put_line(p, err) : status;
}

static enum status table_end(struct printer *p, struct error *err) {
    struct view cells[PRINTER_MAX_COLUMNS];
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < p->n_columns; i++) {
        status = cell_of_text(p, view_of_string(p->names[i]), &cells[i], err);
        size_t width = p->has_no_header ? 0 : width_of(cells[i]);
        p->widths[i] = width > p->widths[i] ? width : p->widths[i];
    }
    if (status == STATUS_OK && !p->has_no_header && p->n_columns) {
        status = table_line(p, cells, err);
        for (size_t i = 0; status == STATUS_OK && i < p->n_columns; i++) {
            for (size_t k = 0; status == STATUS_OK && k < p->widths[i]; k++)
                status = buffer_append(&p->line, "-", 1, err);
            if (status == STATUS_OK && i + 1 < p->n_columns)
                status = buffer_append(&p->line, "  ", 2, err);
        }
        if (status == STATUS_OK)
            status = put_line(p, err);
    }
    for (size_t r = 0; status == STATUS_OK && r < p->n_rows; r++)
        status = table_line(p, p->table + r * p->n_columns, err);
    return status;
}

/* ---- CSV, by RFC 4180 ---- */

static enum status csv_text(struct buffer *line, struct view text, struct error *err) {
    bool is_quoted = text.n_bytes == 0;
    for (size_t i = 0; i < text.n_bytes && !is_quoted; i++)
        is_quoted = strchr(",\"\r\n", text.data[i]) != NULL;
    if (!is_quoted)
        return buffer_append(line, text.data, text.n_bytes, err);
    enum status status = buffer_append(line, "\"", 1, err);
    for (size_t i = 0; status == STATUS_OK && i < text.n_bytes; i++) {
        if (text.data[i] == '"')
            status = buffer_append(line, "\"", 1, err);
        if (status == STATUS_OK)
            status = buffer_append(line, &text.data[i], 1, err);
    }
    return status == STATUS_OK ? buffer_append(line, "\"", 1, err) : status;
}

static enum status hex(struct buffer *line, struct view bytes, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < bytes.n_bytes; i++)
        status = buffer_printf(line, err, "%02x", (unsigned char)bytes.data[i]);
    return status;
}

/* The shortest decimal that reads back as the same number. */
static enum status real(struct buffer *line, double value, struct error *err) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return buffer_append(line, text, strlen(text), err);
}

static enum status csv_row(struct printer *p, const struct printer_value *values,
                           struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < p->n_columns; i++) {
        if (i)
            status = buffer_append(&p->line, ",", 1, err);
        if (status != STATUS_OK)
            break;
        switch (values[i].type) {
        case STATEMENT_NULL:
            break;
        case STATEMENT_INTEGER:
            status = buffer_printf(&p->line, err, "%" PRId64, values[i].integer);
            break;
        case STATEMENT_REAL:
            status = real(&p->line, values[i].real, err);
            break;
        case STATEMENT_TEXT:
            status = csv_text(&p->line, values[i].text, err);
            break;
        case STATEMENT_BYTES:
            status = hex(&p->line, values[i].text, err);
            break;
        }
    }
    return status == STATUS_OK ? put_line(p, err) : status;
}

/* ---- JSON: an array of objects, or an object a line ---- */

static enum status json_value(struct buffer *line, const struct printer_value *value,
                              struct error *err) {
    enum status status = STATUS_OK;
    switch (value->type) {
    case STATEMENT_NULL:
        return buffer_append(line, "null", 4, err);
    case STATEMENT_INTEGER:
        return buffer_printf(line, err, "%" PRId64, value->integer);
    case STATEMENT_REAL:
        if (!isfinite(value->real))
            return buffer_append(line, "null", 4, err);
        return real(line, value->real, err);
    case STATEMENT_TEXT:
        return json_append_string(line, value->text.data, value->text.n_bytes, err);
    case STATEMENT_BYTES:
        break;
    }
    status = buffer_append(line, "\"", 1, err);
    if (status == STATUS_OK)
        status = hex(line, value->text, err);
    return status == STATUS_OK ? buffer_append(line, "\"", 1, err) : status;
}

static enum status json_row(struct printer *p, const struct printer_value *values,
                            struct error *err) {
    enum status status = STATUS_OK;
    if (p->format == PRINTER_JSON)
        status = buffer_printf(&p->line, err, p->n_rows ? ",\n  " : "[\n  ");
    for (size_t i = 0; status == STATUS_OK && i < p->n_columns; i++) {
        status = buffer_printf(&p->line, err, i ? ", " : "{");
        if (status == STATUS_OK)
            status =
                json_append_string(&p->line, p->names[i], strlen(p->names[i]), err);
        if (status == STATUS_OK)
            status = buffer_append(&p->line, ": ", 2, err);
        if (status == STATUS_OK)
            status = json_value(&p->line, &values[i], err);
    }
    if (status == STATUS_OK)
        status = buffer_append(&p->line, "}", 1, err);
    if (status == STATUS_OK && p->format == PRINTER_JSONL)
        return put_line(p, err);
    return status == STATUS_OK ? put_part(p, err) : status;
}

/* ---- all ---- */

enum status printer_columns(struct printer *p, const char *const *names, size_t n,
                            struct error *err) {
    p->line.max_bytes = MAX_LINE_BYTES;
    p->cells.max_bytes = MAX_TABLE_BYTES;
    if (n > PRINTER_MAX_COLUMNS)
        return error_set(err, STATUS_LIMIT, "%zu columns, at most %d", n,
                         PRINTER_MAX_COLUMNS);
    for (; p->n_columns < n; p->n_columns++) {
        p->names[p->n_columns] = strdup(names[p->n_columns]);
        if (!p->names[p->n_columns])
            return error_set(err, STATUS_NO_MEMORY, "no memory for the columns' names");
        p->is_right[p->n_columns] = true;
    }
    if (p->format != PRINTER_CSV || p->has_no_header)
        return STATUS_OK;
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        status = i ? buffer_append(&p->line, ",", 1, err) : STATUS_OK;
        if (status == STATUS_OK)
            status = csv_text(&p->line, view_of_string(p->names[i]), err);
    }
    return status == STATUS_OK ? put_line(p, err) : status;
}

enum status printer_row(struct printer *p, const struct printer_value *values, size_t n,
                        struct error *err) {
    enum status status;
    (void)n; /* as many as columns said */
    if (p->format == PRINTER_TABLE)
        return table_row(p, values, err);
    status =
        p->format == PRINTER_CSV ? csv_row(p, values, err) : json_row(p, values, err);
    p->n_rows++;
    return status;
}

enum status printer_end(struct printer *p, struct error *err) {
    enum status status = STATUS_OK;
    if (p->format == PRINTER_TABLE)
        status = table_end(p, err);
    else if (p->format == PRINTER_JSON)
        status = put(p, p->n_rows ? "\n]\n" : "[]\n", 3, err);
    if (status == STATUS_OK && fflush(p->out) != 0)
        return error_set(err, STATUS_IO, "cannot write: %s", strerror(errno));
    return status;
}

void printer_free(struct printer *p) {
    if (!p)
        return;
    for (size_t i = 0; i < p->n_columns; i++)
        free(p->names[i]);
    free(p->table);
    arena_free(&p->cells);
    buffer_free(&p->line);
}
