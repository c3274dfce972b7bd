/* SPDX-License-Identifier: Apache-2.0
 *
 * query.c - vigil-query: a statement in SQL, the rows on stdout. The store is opened to be
 * read, so that workers and streams go on beside it, and nothing can be changed.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/options.h"
#include "store/printer.h"
#include "store/store.h"

#define MAX_STATEMENT_BYTES ((size_t)1 << 20)
#define MAX_VALUE_BYTES ((int64_t)64 << 20)
#define TERMINAL_CELL_COLUMNS 60

struct settings {
    const char *store, *format;
    int64_t timeout_ns, max_rows;
    bool has_header, lists_tables;
};

#define AT(member) offsetof(struct settings, member)
static const struct option TABLE[] = {
    {"store", 's', OPTION_STRING, AT(store), "URL", "vigil.db", 0, 0, NULL,
     "the store: a file of SQLite, or postgres://…", NULL},
    {"format", 'f', OPTION_CHOICE, AT(format), NULL, "table", 0, 0,
     PRINTER_FORMAT_CHOICES, "shape of the rows", NULL},
    {"header", 0, OPTION_FLAG, AT(has_header), NULL, "on", 0, 0, NULL,
     "names of the columns first, in a table and in CSV", NULL},
    {"max-rows", 'n', OPTION_INTEGER, AT(max_rows), "N", "10000", 0, 1000000000, NULL,
     "rows at most; more end with exit code 1; 0: all", NULL},
    {"timeout", 't', OPTION_SECONDS, AT(timeout_ns), "SECONDS", "30s", 0, 0, NULL,
     "give up after so long; 0: never", NULL},
    {"tables", 0, OPTION_FLAG, AT(lists_tables), NULL, NULL, 0, 0, NULL,
     "list tables and views with their columns instead", NULL},
};

static const char *const EXAMPLES[] = {
    "vigil query \"SELECT drug, label, n FROM drug_labels ORDER BY n DESC\"",
    "posts by drug and label",
    "vigil query --format csv \"SELECT key, probability, text FROM cases\" > cases.csv",
    "cases for a spreadsheet",
    "vigil query --tables",
    "what can be asked for",
    "vigil query --store postgres://safety@db/vigil - < report.sql",
    "a statement from standard input, on PostgreSQL",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-query",
    .summary = "ask the store in SQL",
    .usage = "[options] \"SQL\"\n[options] -",
    .description =
        "Runs one SELECT on the store and prints its rows. Nothing can be changed by "
        "it, "
        "and whoever writes to the store is not held up.\n\n"
        "The views cases (posts that seem to report an adverse event) and "
        "drug_labels (posts by drug and label) are made for reading; --tables lists "
        "all "
        "there is. On PostgreSQL what may be read and run is also what the role of the "
        "URL may: give a role that reads.\n\n"
        "Exit status: 0; 1 when the statement fails, takes too long or has more rows "
        "than "
        "--max-rows (those up to there are printed); 2 for a wrong command line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .max_arguments = 1,
};

static const char TABLES_SQLITE[] =
    "SELECT m.type AS kind, m.name AS name, "
    "(SELECT group_concat(i.name, ', ') FROM pragma_table_info(m.name) i) AS columns "
    "FROM sqlite_master m WHERE m.type IN ('table', 'view') AND m.name NOT LIKE "
    "'sqlite_%' "
    "ORDER BY m.type DESC, m.name";
static const char TABLES_POSTGRES[] =
    "SELECT CASE t.table_type WHEN 'VIEW' THEN 'view' ELSE 'table' END AS kind, "
    "t.table_name::text AS name, "
    "string_agg(c.column_name::text, ', ' ORDER BY c.ordinal_position) AS columns "
    "FROM information_schema.tables t JOIN information_schema.columns c "
    "USING (table_schema, table_name) WHERE t.table_schema = current_schema() "
    "GROUP BY 1, 2 ORDER BY 1 DESC, 2";

/* Standard input whole; *out is the caller's. */
static enum status read_statement(char **out, struct error *err) {
    struct buffer b = {.max_bytes = MAX_STATEMENT_BYTES};
    char piece[4096];
    enum status status = STATUS_OK;
    size_t n;
    while (status == STATUS_OK && (n = fread(piece, 1, sizeof piece, stdin)) > 0)
        status = buffer_append(&b, piece, n, err);
    if (status == STATUS_OK && ferror(stdin))
        status = error_set(err, STATUS_IO, "cannot read standard input: %s",
                           strerror(errno));
    if (status == STATUS_OK && b.n_bytes == 0)
        status = error_set(err, STATUS_INVALID, "standard input holds no statement");
    if (status == STATUS_OK)
        *out = b.data;
    else
        buffer_free(&b);
    return status;
}

/* The names are known once the first step was made, rows or none. */
static enum status print_names(struct printer *printer, struct statement *st,
                               struct error *err) {
    const char *names[PRINTER_MAX_COLUMNS];
    int n = statement_n_columns(st);
    if (n == 0)
        return error_set(err, STATUS_INVALID,
                         "expected a statement that gives rows, such as SELECT");
    if (n > PRINTER_MAX_COLUMNS)
        return error_set(err, STATUS_LIMIT, "%d columns, at most %d", n,
                         PRINTER_MAX_COLUMNS);
    for (int i = 0; i < n; i++)
        names[i] = statement_column_name(st, i);
    return printer_columns(printer, names, (size_t)n, err);
}

static enum status print_row(struct printer *printer, struct statement *st,
                             struct error *err) {
    struct printer_value values[PRINTER_MAX_COLUMNS];
    int n = statement_n_columns(st);
    for (int i = 0; i < n; i++) {
        struct printer_value *v = &values[i];
        v->type = statement_type(st, i);
        if (v->type == STATEMENT_INTEGER)
            v->integer = statement_get_integer(st, i);
        else if (v->type == STATEMENT_REAL)
            v->real = statement_get_real(st, i);
        else if (v->type != STATEMENT_NULL)
            v->text = statement_get_text(st, i);
    }
    return printer_row(printer, values, (size_t)n, err);
}

static enum status print_rows(struct database *db, const char *sql, int64_t max_rows,
                              struct printer *printer, bool *is_cut,
                              struct error *err) {
    struct statement *st = NULL;
    bool has_row = false;
    int64_t n = 0;
    enum status status = database_prepare(db, sql, &st, err);
    if (status == STATUS_OK)
        status = statement_step(st, &has_row, err);
    if (status == STATUS_OK)
        status = print_names(printer, st, err);
    while (status == STATUS_OK && has_row && !*is_cut) {
        status = print_row(printer, st, err);
        if (status == STATUS_OK)
            status = statement_step(st, &has_row, err);
        *is_cut = has_row && ++n == max_rows;
    }
    return status;
}

/* In a transaction that closing takes back, with the rows that nobody asked for: there are
 * functions that write in a transaction which reads (PostgreSQL's large objects, before 16). */
static enum status run(const struct settings *settings, const char *sql, bool *is_cut,
                       struct error *err) {
    struct database *db = NULL;
    struct printer printer = {.format = printer_format_of(settings->format),
                              .out = stdout,
                              .has_no_header = !settings->has_header,
                              .is_terminal = isatty(STDOUT_FILENO),
                              .max_cell_columns =
                                  isatty(STDOUT_FILENO) && !settings->lists_tables
                                      ? TERMINAL_CELL_COLUMNS
                                      : 0};
    enum status status = database_open(settings->store, DATABASE_READ, &db, err);
    if (status == STATUS_OK)
        status = database_limit(db, settings->timeout_ns, MAX_VALUE_BYTES, err);
    if (status == STATUS_OK)
        status = database_begin(db, err);
    if (status == STATUS_OK && settings->lists_tables)
        sql = database_kind(db) == DATABASE_SQLITE ? TABLES_SQLITE : TABLES_POSTGRES;
    if (status == STATUS_OK)
        status = print_rows(db, sql, settings->max_rows, &printer, is_cut, err);
    if (status == STATUS_OK)
        status = printer_end(&printer, err);
    printer_free(&printer);
    database_close(db);
    return status;
}

int main(int argc, char **argv) {
    struct settings settings = {0};
    struct error err = {0};
    char *from_stdin = NULL;
    bool is_cut = false;
    int n_arguments = 0, exit_code = -1;
    options_parse(&PROGRAM, argc, argv, &settings, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    if ((n_arguments == 1) == settings.lists_tables) {
        fprintf(stderr, "vigil query: %s\nTry 'vigil query --help'.\n",
                n_arguments ? "--tables takes no statement" : "no statement to run");
        return EXIT_USAGE;
    }
    const char *sql = n_arguments ? argv[1] : NULL;
    enum status status = STATUS_OK;
    if (sql && strcmp(sql, "-") == 0) {
        status = read_statement(&from_stdin, &err);
        sql = from_stdin;
    }
    if (status == STATUS_OK)
        status = run(&settings, sql, &is_cut, &err);
    free(from_stdin);
    if (status != STATUS_OK) {
        printer_complain("query", &err);
        return EXIT_FAILED;
    }
    if (is_cut) {
        fprintf(stderr,
                "vigil query: there are more than %lld rows; --max-rows 0 prints all\n",
                (long long)settings.max_rows);
        return EXIT_FAILED;
    }
    return EXIT_OK;
}
