/* SPDX-License-Identifier: Apache-2.0
 *
 * export.c - vigil-export: results into the files of a data lake, and the statements that
 * make these a table. Options and wiring; the work is lake.c's.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "store/database/database.h"
#include "store/lake/lake.h"
#include "store/printer.h"

#define MAX_SOURCES 256
#define MAX_STATEMENT_BYTES ((size_t)1 << 20)

struct settings {
    const char *store, *source, *engine, *table, *location;
    int64_t max_rows;
    bool is_quiet;
};

#define AT(member) offsetof(struct settings, member)
static const struct option TABLE[] = {
    {"store", 's', OPTION_STRING, AT(store), "URL", "vigil.db", 0, 0, NULL,
     "the store: a file of SQLite, or postgres://…", NULL},
    {"source", 0, OPTION_STRING, AT(source), "NAME", NULL, 0, 0, NULL,
     "posts of this source alone", NULL},
    {"max-rows", 'n', OPTION_INTEGER, AT(max_rows), "N", "50000", 1, 100000000, NULL,
     "rows of a file", NULL},
    {"quiet", 'q', OPTION_FLAG, AT(is_quiet), NULL, NULL, 0, 0, NULL,
     "do not name the files on standard output", NULL},
    {"statements", 0, OPTION_CHOICE, AT(engine), NULL, NULL, 0, 0, LAKE_ENGINE_CHOICES,
     "write no files: print the statements that make them a table", "Statements"},
    {"table", 0, OPTION_STRING, AT(table), "NAME", "vigil_events", 0, 0, NULL,
     "name of the table or view", "Statements"},
    {"location", 0, OPTION_STRING, AT(location), "URL", NULL, 0, 0, NULL,
     "where the engine finds the files: s3://bucket/prefix, which athena and trino "
     "need; default: DIR",
     "Statements"},
};

static const char *const EXAMPLES[] = {
    "vigil export lake",
    "write what is new as lake/dt=…/source=…/part-….jsonl.gz",
    "vigil export --statements duckdb lake | duckdb lake.duckdb",
    "make the files a view in DuckDB",
    "vigil export --statements athena --location s3://safety/events lake",
    "the table for Athena, with partition projection",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-export",
    .summary = "write results as files for a data lake",
    .usage = "[options] DIR",
    .description =
        "Writes the results that are in no file yet to DIR/dt=YYYY-MM-DD/source=NAME/, "
        "JSON lines compressed with gzip, and names each file on standard output. The "
        "first columns are those of the AWS reference pipeline. Runs may be cut off "
        "and "
        "repeated: a result is in one file, and a file keeps its name.\n\n"
        "Files that hold something that was erased or withdrawn since are written "
        "anew.\n\n"
        "Exit status: 0, 1 for a failure, 2 for a wrong command line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_kind = "directory",
};

static void on_file(void *context, const char *path, int64_t n_rows) {
    const struct settings *settings = context;
    (void)n_rows;
    if (!settings->is_quiet)
        printf("%s\n", path);
}

static enum status write_files(struct database *db, const struct settings *settings,
                               const char *folder, struct error *err) {
    const struct lake_options options = {
        .folder = folder, .source = settings->source, .max_rows = settings->max_rows};
    struct lake_counts counts = {0};
    enum status status =
        lake_export(db, &options, &counts, on_file, (void *)(uintptr_t)settings, err);
    if (status != STATUS_OK &&
        counts.n_files + counts.n_refreshed + counts.n_removed == 0)
        return status;
    fprintf(stderr, "vigil export: %lld results in %lld files, %lld bytes",
            (long long)counts.n_rows, (long long)counts.n_files,
            (long long)counts.n_bytes);
    if (counts.n_refreshed || counts.n_removed)
        fprintf(stderr, "; %lld files written anew, %lld removed",
                (long long)counts.n_refreshed, (long long)counts.n_removed);
    fputc('\n', stderr);
    return status;
}

/* Names of all sources that have posts. */
static enum status find_sources(struct database *db, char **names, size_t *n,
                                struct error *err) {
    struct statement *st = NULL;
    bool has_row = true;
    enum status status = database_prepare(
        db, "SELECT DISTINCT source FROM lake_files UNION SELECT source FROM cursors",
        &st, err);
    while (status == STATUS_OK && *n < MAX_SOURCES &&
           (status = statement_step(st, &has_row, err)) == STATUS_OK && has_row) {
        struct view name = statement_get_text(st, 0);
        names[*n] = strndup(name.data ? name.data : "", name.n_bytes);
        if (!names[*n])
            status = error_set(err, STATUS_NO_MEMORY, "no memory for a name");
        *n += status == STATUS_OK;
    }
    if (st)
        statement_reset(st);
    return status;
}

static enum status print_statements(struct database *db,
                                    const struct settings *settings, const char *folder,
                                    struct error *err) {
    struct buffer out = {.max_bytes = MAX_STATEMENT_BYTES};
    char *names[MAX_SOURCES], whole[PATH_MAX];
    size_t n = 0;
    enum status status = find_sources(db, names, &n, err);
    /* A view outlives the folder that it was made in. */
    const char *location = settings->location;
    if (!location)
        location = realpath(folder, whole) ? whole : folder;
    if (status == STATUS_OK)
        status = lake_statements(settings->engine, settings->table, location,
                                 (const char *const *)names, n, &out, err);
    if (status == STATUS_OK)
        fwrite(out.data, 1, out.n_bytes, stdout);
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    buffer_free(&out);
    return status;
}

/* Names of tables as all engines take them without quotes: "events", "lake.events". */
static bool is_table(const char *name) {
    bool is_first = true;
    for (; *name; name++) {
        bool is_dot = *name == '.' && !is_first && name[1];
        if (!isalpha((unsigned char)*name) && *name != '_' && !is_dot &&
            (is_first || !isdigit((unsigned char)*name)))
            return false;
        is_first = is_dot;
    }
    return !is_first;
}

/* NULL, or what is wrong with the command line. */
static const char *mistake(const struct settings *settings) {
    const char *engine = settings->engine;
    if (!is_table(settings->table))
        return "--table: expected a name of letters, digits and '_', with or without a "
               "schema and a dot before it";
    if (!engine)
        return settings->location ? "--location goes with --statements" : NULL;
    bool is_remote = strcmp(engine, "athena") == 0 || strcmp(engine, "trino") == 0;
    if (is_remote && (!settings->location || !strstr(settings->location, "://")))
        return "--statements athena and trino need --location, such as "
               "s3://bucket/prefix";
    return NULL;
}

int main(int argc, char **argv) {
    struct settings settings = {0};
    struct error err = {0};
    struct database *db = NULL;
    int n_arguments = 0, exit_code = -1;
    options_parse(&PROGRAM, argc, argv, &settings, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    const char *wrong = mistake(&settings);
    if (wrong) {
        fprintf(stderr, "vigil export: %s\nTry 'vigil export --help'.\n", wrong);
        return EXIT_USAGE;
    }
    enum status status = database_open(
        settings.store, settings.engine ? DATABASE_READ : DATABASE_WRITE, &db, &err);
    if (status == STATUS_OK)
        status = settings.engine ? print_statements(db, &settings, argv[1], &err)
                                 : write_files(db, &settings, argv[1], &err);
    database_close(db);
    if (status == STATUS_OK && fflush(stdout) != 0)
        status = error_set(&err, STATUS_IO, "cannot write to standard output: %s",
                           strerror(errno));
    if (status != STATUS_OK) {
        printer_complain("export", &err);
        return EXIT_FAILED;
    }
    return EXIT_OK;
}
