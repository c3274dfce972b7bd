/* SPDX-License-Identifier: Apache-2.0
 *
 * lake.h - results as files for a data lake: DIR/dt=YYYY-MM-DD/source=…/part-….jsonl.gz, a
 * JSON object a line, with the columns of the AWS reference pipeline first and ours behind
 * them.
 *
 * A result is in one file, whatever fails when. First a transaction gives the results of a
 * day and a source to a file that has a number; then the file is written beside its place
 * and moved there; then it is marked as done. After a crash the same results go into the same
 * name: FIRST and LAST number of the posts, and a hash of what was in it at first. So a retry
 * writes over the same object, in a bucket too.
 *
 * The table lake_rows remembers which result is in which file. When a result is erased or
 * withdrawn, or its post has a newer version, its file is stale: lake_refresh writes it anew
 * without the row, or takes it away when nothing is left.
 *
 * Threads: one. Several programs may write to one lake, and erase from it: a lock file in
 * the folder lets one at a time at a file.
 */
#ifndef VIGIL_STORE_LAKE_LAKE_H
#define VIGIL_STORE_LAKE_LAKE_H

#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "store/database/database.h"

struct lake_options {
    const char *folder; /* exists, or is made */
    const char *source; /* NULL: all */
    int64_t max_rows;   /* of a file; 0: 50,000 */
};

struct lake_counts {
    int64_t n_files, n_rows, n_bytes, n_refreshed, n_removed;
};

/* Writes what is in no file yet. on_file is called behind each (NULL allowed). */
enum status lake_export(struct database *db, const struct lake_options *options,
                        struct lake_counts *counts,
                        void (*on_file)(void *context, const char *path,
                                        int64_t n_rows),
                        void *context, struct error *err);

/* Writes the stale files anew, wherever they lie, and ends what a crash has left. A folder
 * that is not there (another machine's) is STATUS_NOT_FOUND, and its files stay stale. */
enum status lake_refresh(struct database *db, struct lake_counts *counts,
                         struct error *err);

/* The statements that make the files a table: "athena", "duckdb", "trino", "clickhouse". */
#define LAKE_ENGINE_CHOICES "athena|duckdb|trino|clickhouse"
/* location: a folder, or s3://bucket/prefix. sources: names for the partition, from the
 * store. */
enum status lake_statements(const char *engine, const char *table, const char *location,
                            const char *const *sources, size_t n_sources,
                            struct buffer *out, struct error *err);

/* ---- lake_row.c: what a line holds, and what each engine calls it ---- */

struct lake_column {
    const char *name;
    const char *hive, *duckdb, *trino, *clickhouse;
    const char *comment;
};
extern const struct lake_column lake_columns[];
extern const size_t lake_n_columns;

/* A mention of a row, from the table of that name. */
struct lake_mention {
    struct view type, text, drug;
    int64_t begin, end;
    double score;
};
struct lake_row {
    struct view key, source, author, text, lang, city, state, country, place, drugs,
        url;
    struct view label, model_name, model_sha256, dtype, band;
    int64_t version, posted_ns, received_ns, created_ns;
    int64_t n_reposts, n_quotes, n_duplicates;
    double probability, threshold;
    const struct lake_mention *mentions;
    size_t n_mentions;
};
/* Appends the row as one JSON object and a line end. */
enum status lake_row_write(const struct lake_row *row, struct buffer *out,
                           struct error *err);

#endif
