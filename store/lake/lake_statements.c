/* SPDX-License-Identifier: Apache-2.0
 *
 * lake_statements.c - the statements that make lake files a table in Athena, DuckDB, Trino
 * and ClickHouse, out of the one list of columns.
 *
 * Athena: Hive's JSON SerDe, since the OpenX one can count rows wrongly by AWS's own word,
 * and partition projection, so that no crawler runs. docs/PIPELINE.md says which of these
 * statements are run in tests.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/lake/lake.h"

#define FILES "/dt=*/source=*/*.jsonl.gz"
#define FIRST_DAY "2020-01-01"

struct writer {
    struct buffer *out;
    struct error *err;
    enum status status;
};

static void put(struct writer *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct writer *w, const char *format, ...) {
    char text[2048];
    va_list arguments;
    if (w->status != STATUS_OK)
        return;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n < 0 || (size_t)n >= sizeof text)
        w->status = error_set(w->err, STATUS_LIMIT, "a name or a location is too long");
    else
        w->status = buffer_append(w->out, text, (size_t)n, w->err);
}

/* A literal of SQL, quotes doubled: the location, and what is below it. */
static void put_place(struct writer *w, const char *location, const char *below) {
    put(w, "'");
    for (; *location; location++)
        put(w, *location == '\'' ? "''" : "%c", *location);
    put(w, "%s'", below);
}

static void athena(struct writer *w, const char *table, const char *location,
                   const char *const *sources, size_t n_sources) {
    put(w, "CREATE EXTERNAL TABLE IF NOT EXISTS %s (\n", table);
    for (size_t i = 0; i < lake_n_columns; i++)
        put(w, "  `%s` %s%s\n", lake_columns[i].name, lake_columns[i].hive,
            i + 1 < lake_n_columns ? "," : "");
    put(w, ")\nPARTITIONED BY (`dt` string, `source` string)\n"
           "ROW FORMAT SERDE 'org.apache.hive.hcatalog.data.JsonSerDe'\n"
           "LOCATION ");
    put_place(w, location, "");
    put(w, "\nTBLPROPERTIES (\n"
           "  'projection.enabled' = 'true',\n"
           "  'projection.dt.type' = 'date',\n"
           "  'projection.dt.format' = 'yyyy-MM-dd',\n"
           "  'projection.dt.range' = '" FIRST_DAY ",NOW+1DAY',\n"
           "  'projection.source.type' = 'enum',\n"
           "  'projection.source.values' = '");
    for (size_t i = 0; i < n_sources; i++)
        put(w, "%s%s", i ? "," : "", sources[i]);
    put(w, "',\n  'storage.location.template' = ");
    put_place(w, location, "/dt=${dt}/source=${source}/");
    put(w, "\n);\n");
}

static void duckdb(struct writer *w, const char *table, const char *location) {
    put(w, "CREATE OR REPLACE VIEW %s AS\nSELECT * FROM read_json(", table);
    put_place(w, location, FILES);
    put(w, ",\n  format = 'newline_delimited', compression = 'gzip', "
           "hive_partitioning = true,\n"
           "  hive_types = {'dt': DATE, 'source': VARCHAR}, columns = {\n");
    for (size_t i = 0; i < lake_n_columns; i++)
        put(w, "  '%s': '%s'%s\n", lake_columns[i].name, lake_columns[i].duckdb,
            i + 1 < lake_n_columns ? "," : "");
    put(w, "});\n");
}

static void trino(struct writer *w, const char *table, const char *location) {
    put(w, "CREATE TABLE IF NOT EXISTS %s (\n", table);
    for (size_t i = 0; i < lake_n_columns; i++)
        put(w, "  \"%s\" %s,\n", lake_columns[i].name, lake_columns[i].trino);
    put(w, "  dt varchar,\n  source varchar\n)\nWITH (\n  format = 'JSON',\n"
           "  external_location = ");
    put_place(w, location, "");
    put(w, ",\n  partitioned_by = ARRAY['dt', 'source']\n);\n"
           "-- new partitions, after each export:\n");
    /* [catalog.][schema.]table */
    const char *last = strrchr(table, '.');
    const char *name = last ? last + 1 : table;
    const char *first = last ? memchr(table, '.', (size_t)(last - table)) : NULL;
    const char *schema = first ? first + 1 : table;
    put(w, "CALL %.*ssystem.sync_partition_metadata(schema_name => ",
        first ? (int)(first + 1 - table) : 0, table);
    if (last)
        put(w, "'%.*s'", (int)(last - schema), schema);
    else
        put(w, "CURRENT_SCHEMA");
    put(w, ", table_name => '%s', mode => 'FULL');\n", name);
}

static void clickhouse(struct writer *w, const char *table, const char *location) {
    bool is_remote = strncmp(location, "s3://", 5) == 0;
    put(w,
        "CREATE OR REPLACE VIEW %s AS\nSELECT *,\n"
        "  toDate(extract(_path, 'dt=([^/]+)')) AS dt,\n"
        "  extract(_path, 'source=([^/]+)') AS source\n"
        "FROM %s(",
        table, is_remote ? "s3" : "file");
    put_place(w, location, FILES);
    put(w, ", 'JSONEachRow', '");
    for (size_t i = 0; i < lake_n_columns; i++)
        put(w, "%s`%s` %s", i ? ", " : "", lake_columns[i].name,
            lake_columns[i].clickhouse);
    put(w, "', 'gzip');\n");
}

enum status lake_statements(const char *engine, const char *table, const char *location,
                            const char *const *sources, size_t n_sources,
                            struct buffer *out, struct error *err) {
    struct writer w = {out, err, STATUS_OK};
    char place[1024];
    size_t n = strlen(location);
    while (n > 1 && location[n - 1] == '/')
        n--;
    if (n >= sizeof place)
        return error_set(err, STATUS_LIMIT, "the location is longer than %zu bytes",
                         sizeof place - 1);
    memcpy(place, location, n);
    place[n] = '\0';
    if (strcmp(engine, "athena") == 0)
        athena(&w, table, place, sources, n_sources);
    else if (strcmp(engine, "duckdb") == 0)
        duckdb(&w, table, place);
    else if (strcmp(engine, "trino") == 0)
        trino(&w, table, place);
    else if (strcmp(engine, "clickhouse") == 0)
        clickhouse(&w, table, place);
    else
        return error_set(err, STATUS_NOT_FOUND,
                         "no engine called \"%.40s\"; there are athena, duckdb, trino, "
                         "clickhouse",
                         engine);
    return w.status;
}
