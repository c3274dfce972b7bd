/* SPDX-License-Identifier: Apache-2.0
 *
 * printer.h - rows as people and programs read them: a table, CSV, JSON.
 *
 * A table waits for all rows to know its widths; the other forms go out row by row. In a
 * table control characters are shown as '?' or a space, so that what was written in a post
 * cannot reach the terminal's escape sequences; on a terminal, in the other forms too. Into
 * files and pipes CSV and JSON go as they are.
 *
 * Threads: one. Call order: zero, set format and out, columns row* end
 */
#ifndef VIGIL_STORE_PRINTER_H
#define VIGIL_STORE_PRINTER_H

#include <stdbool.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/memory.h"
#include "base/status.h"
#include "store/database/database.h"

#define PRINTER_FORMAT_CHOICES "table|csv|json|jsonl"
#define PRINTER_MAX_COLUMNS 256

enum printer_format { PRINTER_TABLE, PRINTER_CSV, PRINTER_JSON, PRINTER_JSONL };
enum printer_format printer_format_of(const char *name);

struct printer_value {
    enum statement_type type;
    int64_t integer;
    double real;
    struct view text; /* of STATEMENT_TEXT and _BYTES */
};

struct printer {
    enum printer_format format;
    FILE *out;
    bool has_no_header;
    bool is_terminal;
    size_t max_cell_columns; /* of a table; 0: no limit */

    /* Private. */
    size_t n_columns, n_rows;
    char *names[PRINTER_MAX_COLUMNS];
    size_t widths[PRINTER_MAX_COLUMNS];
    bool is_right[PRINTER_MAX_COLUMNS];
    struct arena cells;
    struct view *table; /* [n_rows][n_columns] */
    size_t cap_cells;
    struct buffer line;
};

enum status printer_columns(struct printer *p, const char *const *names, size_t n,
                            struct error *err);
enum status printer_row(struct printer *p, const struct printer_value *values, size_t n,
                        struct error *err);
/* Ends what was begun: the table, the JSON array. STATUS_IO when out could not take it. */
enum status printer_end(struct printer *p, struct error *err);
void printer_free(struct printer *p);

/* Puts '?' in the place of control characters, but for tabs and line ends: for a terminal. */
void printer_disarm(char *text, size_t n_bytes);

/* "vigil NAME: message" on standard error, one line that is safe on a terminal: messages may
 * quote what somebody typed or a file is called. */
void printer_complain(const char *name, const struct error *err);

#endif
