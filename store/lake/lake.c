/* SPDX-License-Identifier: Apache-2.0 */
#include "store/lake/lake.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "store/database/lock.h"
#include "store/lake/lake_file.h"

#define FILE_ROWS 50000
#define MAX_GROUPS 100000

/* The partition of a post: its day by its own word, else when it came. */
#define DAY_OF                                                                         \
    "(CASE WHEN p.posted_ns > 0 THEN p.posted_ns ELSE p.received_ns END / "            \
    "86400000000000)"
#define IS_IN_NO_FILE                                                                  \
    "NOT EXISTS (SELECT 1 FROM lake_rows l WHERE l.post_id = r.post_id AND "           \
    "l.version = r.version AND l.model_sha256 = r.model_sha256)"

/* ---- the lock ----
 *
 * A file is given its rows, written and marked by one program at a time. Otherwise one that
 * read the rows before something was erased could put its file over that of another which
 * read them afterwards, and nothing would say so. */

#define LOCK_NAME ".vigil-lock" /* engines pass over names that begin with a dot */
#define LOCK_WAIT_NS (600 * CLOCK_NS_PER_SECOND) /* of one file's time and more */

static enum status lock_lake(const char *folder, struct lock *lock, struct error *err) {
    char path[FILE_PATH_BYTES];
    enum status status = file_path(path, folder, LOCK_NAME, err);
    if (status == STATUS_OK)
        status = lock_open(path, lock, err);
    if (status == STATUS_OK)
        status = lock_take(lock, LOCK_WAIT_NS, err);
    return status;
}

/* ---- what the tables say of a file ---- */

static const char FORGET_ROWS[] =
    "DELETE FROM lake_rows WHERE file_id = $1 AND NOT EXISTS (SELECT 1 FROM results r "
    "JOIN posts p ON p.id = r.post_id AND p.version = r.version WHERE r.post_id = "
    "lake_rows.post_id AND r.version = lake_rows.version AND r.model_sha256 = "
    "lake_rows.model_sha256)";

static enum status run_for(struct database *db, const char *sql, int64_t file_id,
                           struct error *err) {
    struct statement *st = NULL;
    enum status status = database_prepare(db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, file_id);
    return statement_finish(st, NULL, err);
}

/* Before a stale file is written: takes out of it what is gone. What is erased from now on is
 * missing in the file or still said to be in it; either way the next look puts it right. */
static enum status record_begun(struct database *db, const struct lake_file *f,
                                struct error *err) {
    static const char BEGUN[] = "UPDATE lake_files SET is_done = 0 WHERE id = $1";
    enum status status = database_begin(db, err);
    if (status == STATUS_OK)
        status = run_for(db, FORGET_ROWS, f->id, err);
    if (status == STATUS_OK)
        status = run_for(db, BEGUN, f->id, err);
    if (status == STATUS_OK)
        status = database_commit(db, err);
    if (status != STATUS_OK)
        database_rollback(db);
    return status;
}

static enum status record_done(struct database *db, const struct lake_file *f,
                               const struct lake_written *written, struct error *err) {
    static const char DONE[] =
        "UPDATE lake_files SET n_rows = $1, n_bytes = $2, sha256 = $3, is_done = 1 "
        "WHERE id = $4";
    struct statement *st = NULL;
    enum status status = database_begin(db, err);
    if (status == STATUS_OK)
        status = database_prepare(db, DONE, &st, err);
    if (status == STATUS_OK) {
        statement_integer(st, 1, written->n_rows);
        statement_integer(st, 2, written->n_bytes);
        statement_text(st, 3, view_of_string(written->sha256));
        statement_integer(st, 4, f->id);
        status = statement_finish(st, NULL, err);
    }
    if (status == STATUS_OK)
        status = database_commit(db, err);
    if (status != STATUS_OK)
        database_rollback(db);
    return status;
}

/* Nothing of it is left: the file goes, and what is known of it. */
static enum status remove_file(struct database *db, const struct lake_file *f,
                               const char *path, struct error *err) {
    static const char GONE[] =
        "DELETE FROM lake_files WHERE id = $1 AND NOT EXISTS "
        "(SELECT 1 FROM lake_rows WHERE file_id = lake_files.id)";
    if (unlink(path) != 0 && errno != ENOENT)
        return error_set(err, STATUS_IO, "cannot remove %s: %s", path, strerror(errno));
    enum status status = database_begin(db, err);
    if (status == STATUS_OK)
        status = run_for(db, GONE, f->id, err);
    if (status == STATUS_OK)
        status = database_commit(db, err);
    if (status != STATUS_OK)
        database_rollback(db);
    return status;
}

/* Writes what belongs into a file, whether for the first time or anew. */
static enum status write_file(struct database *db, const struct lake_file *f,
                              struct lake_written *written, struct error *err) {
    enum status status = lake_file_write(db, f, written, err);
    if (status != STATUS_OK)
        return status;
    return written->n_rows ? record_done(db, f, written, err)
                           : remove_file(db, f, written->path, err);
}

/* ---- which results go where ---- */

/* Gives up to max_rows results of a day and a source to a new file. f->id == 0: there was
 * none. The name is fixed with it: whatever is erased before the file is there, it is written
 * and found under this one. */
static enum status assign(struct database *db, struct lake_file *f, int64_t max_rows,
                          struct error *err) {
    static const char FILE_ROW[] = "INSERT INTO lake_files (folder, source, day, "
                                   "created_ns) VALUES ($1, $2, $3, $4) "
                                   "RETURNING id";
    static const char GIVE[] =
        "INSERT INTO lake_rows (post_id, version, model_sha256, file_id) "
        "SELECT r.post_id, r.version, r.model_sha256, CAST($1 AS BIGINT) FROM results "
        "r "
        "JOIN posts p ON p.id = r.post_id AND p.version = r.version "
        "WHERE r.post_id BETWEEN $2 AND $3 AND p.source = $4 AND " DAY_OF
        " = $5 AND " IS_IN_NO_FILE
        " ORDER BY r.post_id, r.version, r.model_sha256 LIMIT $6 "
        "ON CONFLICT DO NOTHING"; /* another lake's export was first */
    static const char NAME[] = "UPDATE lake_files SET name = $1 WHERE id = $2";
    struct statement *st = NULL;
    int64_t n = 0;
    bool has_row = false;
    f->id = 0;
    f->name[0] = '\0';
    enum status status = database_begin(db, err);
    if (status == STATUS_OK)
        status = database_prepare(db, FILE_ROW, &st, err);
    if (status == STATUS_OK) {
        statement_text(st, 1, view_of_string(f->folder));
        statement_text(st, 2, view_of_string(f->source));
        statement_integer(st, 3, f->day);
        statement_integer(st, 4, clock_wall_ns());
        status = statement_step(st, &has_row, err);
        f->id = status == STATUS_OK && has_row ? statement_get_integer(st, 0) : 0;
        statement_reset(st);
    }
    if (status == STATUS_OK)
        status = database_prepare(db, GIVE, &st, err);
    if (status == STATUS_OK) {
        statement_integer(st, 1, f->id);
        statement_integer(st, 2, f->first_post);
        statement_integer(st, 3, f->last_post);
        statement_text(st, 4, view_of_string(f->source));
        statement_integer(st, 5, f->day);
        statement_integer(st, 6, max_rows);
        status = statement_finish(st, &n, err);
    }
    f->is_last = n < max_rows;
    if (status == STATUS_OK && n > 0)
        status = lake_file_name(db, f, err);
    if (status == STATUS_OK && n > 0)
        status = database_prepare(db, NAME, &st, err);
    if (status == STATUS_OK && n > 0) {
        statement_text(st, 1, view_of_string(f->name));
        statement_integer(st, 2, f->id);
        status = statement_finish(st, NULL, err);
    }
    if (status == STATUS_OK && n > 0)
        return database_commit(db, err);
    database_rollback(db);
    f->id = 0;
    return status;
}

struct groups {
    struct lake_file *list;
    size_t n, cap;
};

/* One entry more, all zero. */
static struct lake_file *groups_add(struct groups *g, struct error *err) {
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 16;
        struct lake_file *more =
            cap <= MAX_GROUPS ? realloc(g->list, cap * sizeof *more) : NULL;
        if (!more) {
            error_set(err, STATUS_NO_MEMORY, "no memory for %zu lake files", cap);
            return NULL;
        }
        g->list = more;
        g->cap = cap;
    }
    struct lake_file *f = &g->list[g->n++];
    memset(f, 0, sizeof *f);
    return f;
}

static void copy_string(char *out, size_t cap_bytes, struct view from) {
    snprintf(out, cap_bytes, "%.*s", (int)from.n_bytes, from.data ? from.data : "");
}

static enum status find_groups(struct database *db, const struct lake_options *options,
                               struct groups *out, struct error *err) {
    static const char GROUPS[] =
        "SELECT p.source, " DAY_OF " AS day, min(r.post_id), max(r.post_id) "
        "FROM results r JOIN posts p ON p.id = r.post_id AND p.version = r.version "
        "WHERE " IS_IN_NO_FILE " GROUP BY 1, 2 ORDER BY 2, 1";
    struct statement *st = NULL;
    bool has_row = true;
    enum status status = database_prepare(db, GROUPS, &st, err);
    while (status == STATUS_OK &&
           (status = statement_step(st, &has_row, err)) == STATUS_OK && has_row) {
        struct view source = statement_get_text(st, 0);
        if (options->source && !view_equal(source, view_of_string(options->source)))
            continue;
        struct lake_file *f = groups_add(out, err);
        if (!f) {
            status = STATUS_NO_MEMORY;
            break;
        }
        copy_string(f->source, sizeof f->source, source);
        f->day = statement_get_integer(st, 1);
        f->first_post = statement_get_integer(st, 2);
        f->last_post = statement_get_integer(st, 3);
    }
    if (st)
        statement_reset(st);
    return status;
}

/* One file more of a day and a source. f->id == 0: nothing was left for one. */
static enum status export_file(struct database *db, struct lake_file *f,
                               int64_t max_rows, struct lake_written *written,
                               struct error *err) {
    struct lock lock = {0};
    enum status status = lock_lake(f->folder, &lock, err);
    if (status == STATUS_OK)
        status = assign(db, f, max_rows, err);
    if (status == STATUS_OK && f->id)
        status = write_file(db, f, written, err);
    lock_close(&lock);
    return status;
}

enum status lake_export(struct database *db, const struct lake_options *options,
                        struct lake_counts *counts,
                        void (*on_file)(void *context, const char *path,
                                        int64_t n_rows),
                        void *context, struct error *err) {
    struct groups groups = {0};
    struct stat st;
    char folder[PATH_MAX];
    int64_t max_rows = options->max_rows > 0 ? options->max_rows : FILE_ROWS;
    if (mkdir(options->folder, 0750) != 0 && errno != EEXIST)
        return error_set(err, STATUS_IO, "cannot make %s: %s", options->folder,
                         strerror(errno));
    if (!realpath(options->folder, folder))
        return error_set(err, STATUS_IO, "cannot use %s: %s", options->folder,
                         strerror(errno));
    if (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode))
        return error_set(err, STATUS_INVALID, "%s is not a directory", folder);
    enum status status = lake_refresh(db, counts, err);
    if (status == STATUS_OK)
        status = find_groups(db, options, &groups, err);
    for (size_t i = 0; status == STATUS_OK && i < groups.n; i++) {
        struct lake_file *f = &groups.list[i];
        copy_string(f->folder, sizeof f->folder, view_of_string(folder));
        do {
            struct lake_written written = {.n_rows = 0};
            status = export_file(db, f, max_rows, &written, err);
            if (status != STATUS_OK || written.n_rows == 0)
                continue;
            counts->n_files++;
            counts->n_rows += written.n_rows;
            counts->n_bytes += written.n_bytes;
            if (on_file)
                on_file(context, written.path, written.n_rows);
        } while (status == STATUS_OK && f->id && !f->is_last);
    }
    free(groups.list);
    return status;
}

/* Files that were begun, and those that hold a row whose result is gone or old. */
static enum status find_stale(struct database *db, struct groups *out,
                              struct error *err) {
    static const char STALE[] =
        "SELECT f.id, f.folder, f.source, f.day, f.name FROM lake_files f "
        "WHERE f.is_done = 0 OR EXISTS (SELECT 1 FROM lake_rows l WHERE l.file_id = "
        "f.id "
        "AND NOT EXISTS (SELECT 1 FROM results r JOIN posts p ON p.id = r.post_id AND "
        "p.version = r.version WHERE r.post_id = l.post_id AND r.version = l.version "
        "AND "
        "r.model_sha256 = l.model_sha256)) ORDER BY f.id";
    struct statement *st = NULL;
    bool has_row = true;
    enum status status = database_prepare(db, STALE, &st, err);
    while (status == STATUS_OK &&
           (status = statement_step(st, &has_row, err)) == STATUS_OK && has_row) {
        struct lake_file *f = groups_add(out, err);
        if (!f) {
            status = STATUS_NO_MEMORY;
            break;
        }
        f->id = statement_get_integer(st, 0);
        copy_string(f->folder, sizeof f->folder, statement_get_text(st, 1));
        copy_string(f->source, sizeof f->source, statement_get_text(st, 2));
        f->day = statement_get_integer(st, 3);
        copy_string(f->name, sizeof f->name, statement_get_text(st, 4));
    }
    if (st)
        statement_reset(st);
    return status;
}

static enum status refresh_file(struct database *db, const struct lake_file *f,
                                struct lake_written *written, struct error *err) {
    struct lock lock = {0};
    enum status status = lock_lake(f->folder, &lock, err);
    if (status == STATUS_OK)
        status = record_begun(db, f, err);
    if (status == STATUS_OK)
        status = write_file(db, f, written, err);
    lock_close(&lock);
    return status;
}

enum status lake_refresh(struct database *db, struct lake_counts *counts,
                         struct error *err) {
    struct groups stale = {0};
    char missing[FILE_PATH_BYTES] = "";
    enum status status = find_stale(db, &stale, err);
    for (size_t i = 0; status == STATUS_OK && i < stale.n; i++) {
        struct lake_written written = {.n_rows = 0};
        if (!file_exists(stale.list[i].folder)) {
            copy_string(missing, sizeof missing, view_of_string(stale.list[i].folder));
            continue;
        }
        status = refresh_file(db, &stale.list[i], &written, err);
        counts->n_refreshed += status == STATUS_OK && written.n_rows > 0;
        counts->n_removed += status == STATUS_OK && written.n_rows == 0;
    }
    free(stale.list);
    if (status == STATUS_OK && missing[0])
        return error_set(
            err, STATUS_NOT_FOUND,
            "lake files in %s have to be written anew, but it is not there: "
            "run this where it is",
            missing);
    return status;
}
