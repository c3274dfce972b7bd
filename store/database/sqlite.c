/* SPDX-License-Identifier: Apache-2.0
 *
 * sqlite.c - database.h over SQLite. The one file that includes sqlite3.h.
 *
 * Design:  write-ahead log; before 3.51.3 two connections that write or checkpoint at the same
 *          moment can lose what was committed, so all that writes happens under PATH-lock:
 *          opening (which recovers the log), transactions, checkpoints. SQLite itself never
 *          checkpoints: not at a size, not on close. We do, after a commit that leaves more
 *          than CHECKPOINT_PAGES in the log.
 * Durable: synchronous=FULL, the log is synced by each commit. secure_delete=ON: what is
 *          deleted is zeroed. No mmap. Sorting happens in memory: no text in temporary files
 *          (but VACUUM's, which holds what stays).
 * Limits:  cache of 64 MiB for a writer, 16 for a reader. Local file systems.
 * Files:   PATH, PATH-wal, PATH-shm, PATH-lock, all 0600.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "store/database/driver.h"
#include "store/database/lock.h"

#define CHECKPOINT_PAGES 4096 /* 16 MiB of log */
#define WAITS_FOR_READERS 8   /* times that, and a checkpoint waits for readers */
#define READERS_MS 100        /* so long, while others wait for the lock */
#define BUSY_MS 5000          /* for programs that do not know the lock file */
#define MAX_NAME_BYTES 64
#define APPLICATION_ID 0x5649474C /* "VIGL" */
#define OPERATIONS_A_LOOK 2000 /* of the virtual machine, between looks at the clock */

struct sqlite {
    struct database base;
    sqlite3 *handle;
    struct lock lock;
    int n_log_pages; /* after the last commit */
    int usual_pages; /* a checkpoint at so many: CHECKPOINT_PAGES, unless a test says */
    int checkpoint_pages; /* at so many the next one */
    bool is_open;         /* opening came to its end */
    int64_t timeout_ns;
    int64_t deadline_ns; /* of the statement that runs; 0: none */
};

struct sqlite_statement {
    struct statement base;
    sqlite3_stmt *handle;
    bool is_running;
};

static const struct driver driver;

static struct sqlite *of(struct database *db) {
    return (struct sqlite *)db;
}

static struct sqlite_statement *stmt(struct statement *st) {
    return (struct sqlite_statement *)st;
}

/* ---- Errors ---- */

static enum status needs_writer(const struct sqlite *s, struct error *err) {
    return error_set(err, STATUS_IO,
                     "%s: its log must be recovered by a program that may write to its "
                     "folder: start vigil stream, or vigil enrich, once",
                     s->base.name);
}

/* Messages of SQLite name tables and columns. What functions say of their arguments while a
 * statement runs, which may be what a post says, stands in quotes: see fail_running. */
static enum status fail(const struct sqlite *s, int code, const char *doing,
                        struct error *err) {
    const char *name = s->base.name;
    int reason = s->handle ? sqlite3_system_errno(s->handle) : 0;
    const char *says = s->handle ? sqlite3_errmsg(s->handle) : sqlite3_errstr(code);
    switch (code & 0xFF) {
    case SQLITE_FULL:
        return error_set(err, STATUS_IO, "%s: no space left %s", name, doing);
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_NOMEM)
            break;
        if (reason == ENOSPC || reason == EDQUOT || reason == EFBIG)
            return error_set(err, STATUS_IO, "%s: no space left %s (%s)", name, doing,
                             strerror(reason));
        return error_set(err, STATUS_IO, "%s: %s %s%s%s%s", name, says, doing,
                         reason ? " (" : "", reason ? strerror(reason) : "",
                         reason ? ")" : "");
    case SQLITE_NOMEM:
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return error_set(err, STATUS_BUSY, "%s: another program has it locked, %s",
                         name, doing);
    case SQLITE_INTERRUPT:
        return error_set(err, STATUS_TIMEOUT,
                         "%s: the statement took longer than %.1f s", name,
                         (double)s->timeout_ns / 1e9);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return error_set(err, STATUS_INVALID, "%s: %s", name, says);
    case SQLITE_READONLY:
        if (!s->is_open || code == SQLITE_READONLY_RECOVERY ||
            code == SQLITE_READONLY_CANTINIT)
            return needs_writer(s, err);
        return error_set(err, STATUS_UNSUPPORTED, "%s: only reading is possible here",
                         name);
    case SQLITE_AUTH:
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: only reading is possible here (%s)", name, says);
    case SQLITE_TOOBIG:
        return error_set(err, STATUS_LIMIT, "%s: a value is too long", name);
    case SQLITE_CANTOPEN:
        if (s->base.mode == DATABASE_READ && reason == ENOENT)
            return needs_writer(s,
                                err); /* the database is there, its log's index not */
        return error_set(err, STATUS_IO, "cannot open %s: %s", name,
                         reason ? strerror(reason) : says);
    default:
        return error_set(err, STATUS_INVALID, "%s: %s", name, says);
    }
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory %s", name, doing);
}

static enum status fail_running(const struct sqlite *s, int code, struct error *err) {
    const char *says = sqlite3_errmsg(s->handle);
    size_t n = strcspn(says, "'\"");
    if ((code & 0xFF) != SQLITE_ERROR || !says[n])
        return fail(s, code, "to run a statement", err);
    while (n > 0 && says[n - 1] == ' ')
        n--;
    return error_set(err, STATUS_INVALID, "%s: %.*s a value (not shown)", s->base.name,
                     (int)n, says);
}

static enum status run_now(struct sqlite *s, const char *sql, const char *doing,
                           struct error *err) {
    int code = sqlite3_exec(s->handle, sql, NULL, NULL, NULL);
    return code ? fail(s, code, doing, err) : STATUS_OK;
}

/* The first column of the only row; out gets its start. */
static enum status ask(struct sqlite *s, const char *sql, char *out, size_t cap_bytes,
                       struct error *err) {
    sqlite3_stmt *st = NULL;
    out[0] = 0;
    int code = sqlite3_prepare_v2(s->handle, sql, -1, &st, NULL);
    if (!code)
        code = sqlite3_step(st);
    if (code == SQLITE_ROW) {
        const char *value = (const char *)sqlite3_column_text(st, 0);
        size_t n = value ? strlen(value) : 0;
        n = n < cap_bytes ? n : cap_bytes - 1;
        if (n > 0)
            memcpy(out, value, n);
        out[n] = 0;
        code = SQLITE_DONE;
    }
    enum status status =
        code == SQLITE_DONE ? STATUS_OK : fail(s, code, "on opening", err);
    sqlite3_finalize(st);
    return status;
}

/* ---- The log ---- */

static int count_pages(void *context, sqlite3 *handle, const char *name, int n_pages) {
    struct sqlite *s = context;
    (void)handle;
    (void)name;
    if (n_pages < s->n_log_pages)
        s->checkpoint_pages = s->usual_pages; /* it began anew */
    s->n_log_pages = n_pages;
    return SQLITE_OK;
}

/* Under the lock. What was committed is safe already, so a failure is told to the log. */
static void checkpoint_by_size(struct sqlite *s) {
    if (s->n_log_pages < s->checkpoint_pages)
        return;
    int n_log = 0, n_moved = 0;
    int mode = s->n_log_pages < WAITS_FOR_READERS * s->usual_pages
                   ? SQLITE_CHECKPOINT_PASSIVE
                   : SQLITE_CHECKPOINT_RESTART;
    sqlite3_busy_timeout(s->handle, READERS_MS);
    int code = sqlite3_wal_checkpoint_v2(s->handle, "main", mode, &n_log, &n_moved);
    sqlite3_busy_timeout(s->handle, BUSY_MS);
    /* Readers hold some of it back: not with every commit from now on. */
    s->checkpoint_pages =
        code || n_moved < n_log ? s->n_log_pages + s->usual_pages / 4 : s->usual_pages;
    if (code && code != SQLITE_BUSY) {
        struct error err;
        fail(s, code, "at a checkpoint", &err);
        log_message(LOG_LEVEL_WARNING, "checkpoint_failed", "%s", err.message);
    }
}

static enum status checkpoint(struct database *db, bool rewrites, struct error *err) {
    struct sqlite *s = of(db);
    if (db->mode == DATABASE_READ)
        return error_set(err, STATUS_UNSUPPORTED, "%s is open for reading", db->name);
    int64_t deadline_ns = clock_now_ns() + DATABASE_WAIT_NS;
    enum status status = lock_take(&s->lock, DATABASE_WAIT_NS, err);
    if (status)
        return status;
    if (rewrites) { /* the copy may be larger than memory */
        run_now(s, "PRAGMA temp_store = FILE", "to rewrite the pages", NULL);
        status = run_now(s, "VACUUM", "to rewrite the pages", err);
        run_now(s, "PRAGMA temp_store = MEMORY", "to rewrite the pages", NULL);
    }
    if (status) {
        lock_release(&s->lock);
        return status;
    }
    int code;
    do {
        code = sqlite3_wal_checkpoint_v2(s->handle, "main", SQLITE_CHECKPOINT_TRUNCATE,
                                         NULL, NULL);
    } while (code == SQLITE_BUSY && clock_now_ns() < deadline_ns);
    lock_release(&s->lock);
    if (code == SQLITE_BUSY)
        return error_set(err, STATUS_BUSY,
                         "%s: a reader keeps what is in the log from being removed",
                         db->name);
    if (code)
        return fail(s, code, "at a checkpoint", err);
    s->n_log_pages = 0;
    s->checkpoint_pages = s->usual_pages;
    return STATUS_OK;
}

/* ---- Transactions ---- */

static enum status begin(struct database *db, struct error *err) {
    struct sqlite *s = of(db);
    if (db->mode == DATABASE_READ)
        return run_now(s, "BEGIN", "to begin", err);
    enum status status = lock_take(&s->lock, DATABASE_WAIT_NS, err);
    if (status)
        return status;
    status = run_now(s, "BEGIN IMMEDIATE", "to begin", err);
    if (status)
        lock_release(&s->lock);
    return status;
}

static enum status commit(struct database *db, struct error *err) {
    struct sqlite *s = of(db);
    enum status status = run_now(s, "COMMIT", "to commit", err);
    if (!status && db->mode != DATABASE_READ) {
        checkpoint_by_size(s);
        lock_release(&s->lock);
    }
    return status;
}

static void rollback(struct database *db) {
    struct sqlite *s = of(db);
    if (!sqlite3_get_autocommit(s->handle)) /* else SQLite did it, on a full disk */
        sqlite3_exec(s->handle, "ROLLBACK", NULL, NULL, NULL);
    lock_release(&s->lock);
}

static enum status run(struct database *db, const char *sql, struct error *err) {
    struct sqlite *s = of(db);
    if (sqlite3_get_autocommit(s->handle))
        return error_set(err, STATUS_IO, "%s: the transaction was rolled back",
                         db->name);
    return run_now(s, sql, "to write", err);
}

static int look_at_clock(void *context) {
    const struct sqlite *s = context;
    return s->deadline_ns && clock_now_ns() > s->deadline_ns;
}

static enum status limit(struct database *db, int64_t timeout_ns, int64_t max_bytes,
                         struct error *err) {
    struct sqlite *s = of(db);
    (void)err;
    s->timeout_ns = timeout_ns;
    sqlite3_progress_handler(s->handle, timeout_ns ? OPERATIONS_A_LOOK : 0,
                             timeout_ns ? look_at_clock : NULL, s);
    int64_t most = max_bytes > 0 && max_bytes < INT_MAX ? max_bytes : INT_MAX;
    sqlite3_limit(s->handle, SQLITE_LIMIT_LENGTH, (int)most);
    sqlite3_hard_heap_limit64(max_bytes > 0 ? most * 8 : 0);
    return STATUS_OK;
}

/* ---- Statements ---- */

static bool is_empty(struct sqlite *s, const char *sql) {
    sqlite3_stmt *more = NULL;
    int code = sqlite3_prepare_v2(s->handle, sql, -1, &more, NULL);
    bool is_more = code != SQLITE_OK || more;
    sqlite3_finalize(more);
    return !is_more;
}

static enum status prepare(struct database *db, const char *sql, struct statement **out,
                           struct error *err) {
    struct sqlite *s = of(db);
    struct sqlite_statement *st = calloc(1, sizeof *st);
    if (!st)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a statement");
    const char *rest = "";
    int code = sqlite3_prepare_v3(s->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                  &st->handle, &rest);
    enum status status = STATUS_OK;
    if (code)
        status = fail(s, code, "to prepare a statement", err);
    else if (!st->handle || !is_empty(s, rest))
        status =
            error_set(err, STATUS_INVALID, "%s: expected one SQL statement", db->name);
    if (status) {
        sqlite3_finalize(st->handle);
        free(st);
        return status;
    }
    *out = &st->base;
    return STATUS_OK;
}

static void forget(struct statement *st) {
    sqlite3_finalize(stmt(st)->handle);
    free(st);
}

static bool bind_integer(struct statement *st, int n, int64_t value) {
    return sqlite3_bind_int64(stmt(st)->handle, n, value) == SQLITE_OK;
}

static bool bind_real(struct statement *st, int n, double value) {
    return isfinite(value) &&
           sqlite3_bind_double(stmt(st)->handle, n, value) == SQLITE_OK;
}

static bool bind_text(struct statement *st, int n, struct view value) {
    return sqlite3_bind_text64(stmt(st)->handle, n, value.data, value.n_bytes,
                               SQLITE_STATIC, SQLITE_UTF8) == SQLITE_OK;
}

static bool bind_bytes(struct statement *st, int n, struct view value) {
    return sqlite3_bind_blob64(stmt(st)->handle, n, value.n_bytes ? value.data : "",
                               value.n_bytes, SQLITE_STATIC) == SQLITE_OK;
}

static bool bind_null(struct statement *st, int n) {
    return sqlite3_bind_null(stmt(st)->handle, n) == SQLITE_OK;
}

/* The first step of a run: may it be made now? */
static enum status start(struct statement *st, struct error *err) {
    struct sqlite *s = of(st->db);
    struct sqlite_statement *q = stmt(st);
    if (!sqlite3_stmt_readonly(q->handle) && sqlite3_get_autocommit(s->handle)) {
        if (s->base.mode == DATABASE_READ)
            return error_set(err, STATUS_UNSUPPORTED,
                             "%s: only reading is possible here", s->base.name);
        return st->db->is_begun
                   ? error_set(err, STATUS_IO, "%s: the transaction was rolled back",
                               s->base.name)
                   : error_set(err, STATUS_INTERNAL,
                               "%s: a statement that writes, outside a transaction",
                               s->base.name);
    }
    s->deadline_ns = s->timeout_ns ? clock_now_ns() + s->timeout_ns : 0;
    q->is_running = true;
    return STATUS_OK;
}

static enum status step(struct statement *st, bool *has_row, struct error *err) {
    struct sqlite_statement *q = stmt(st);
    enum status status = q->is_running ? STATUS_OK : start(st, err);
    if (status)
        return status;
    int code = sqlite3_step(q->handle);
    *has_row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE
               ? STATUS_OK
               : fail_running(of(st->db), code, err);
}

static enum status finish(struct statement *st, int64_t *n_changed, struct error *err) {
    bool has_row = true;
    enum status status = STATUS_OK;
    while (!status && has_row)
        status = step(st, &has_row, err);
    if (!status && !sqlite3_stmt_readonly(stmt(st)->handle))
        *n_changed = sqlite3_changes64(of(st->db)->handle);
    return status;
}

static enum status send_now(struct statement *st, struct error *err) {
    int64_t n;
    return finish(st, &n, err);
}

static void reset(struct statement *st) {
    sqlite3_reset(
        stmt(st)->handle); /* its code is that of the last step, told already */
    sqlite3_clear_bindings(stmt(st)->handle);
    stmt(st)->is_running = false;
}

static int64_t get_integer(struct statement *st, int column) {
    return sqlite3_column_int64(stmt(st)->handle, column);
}

static double get_real(struct statement *st, int column) {
    return sqlite3_column_double(stmt(st)->handle, column);
}

static struct view get_text(struct statement *st, int column) {
    sqlite3_stmt *q = stmt(st)->handle;
    const void *data = sqlite3_column_type(q, column) == SQLITE_BLOB
                           ? sqlite3_column_blob(q, column)
                           : sqlite3_column_text(q, column);
    int n = sqlite3_column_bytes(q, column);
    return data ? view_of(data, (size_t)n) : VIEW("");
}

static enum statement_type type(struct statement *st, int column) {
    switch (sqlite3_column_type(stmt(st)->handle, column)) {
    case SQLITE_INTEGER:
        return STATEMENT_INTEGER;
    case SQLITE_FLOAT:
        return STATEMENT_REAL;
    case SQLITE_TEXT:
        return STATEMENT_TEXT;
    case SQLITE_BLOB:
        return STATEMENT_BYTES;
    default:
        return STATEMENT_NULL;
    }
}

static int n_columns(struct statement *st) {
    return sqlite3_column_count(stmt(st)->handle);
}

static const char *column_name(struct statement *st, int column) {
    const char *name = sqlite3_column_name(stmt(st)->handle, column);
    return name ? name : "";
}

/* ---- Opening ---- */

static void now(sqlite3_context *context, int n, sqlite3_value **values) {
    (void)n;
    (void)values;
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    sqlite3_result_int64(context, (sqlite3_int64)t.tv_sec * CLOCK_NS_PER_SECOND +
                                      (sqlite3_int64)t.tv_nsec);
}

static bool is_among(const char *name, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (sqlite3_stricmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

/* What a stranger's statement may do on a handle for reading. */
static int authorize(void *context, int action, const char *first, const char *second,
                     const char *base, const char *trigger) {
    static const char *const pragmas[] = {
        "table_info",       "table_xinfo", "table_list", "index_list",     "index_info",
        "foreign_key_list", "quick_check", "page_count", "integrity_check"};
    static const char *const functions[] = {"load_extension", "fts3_tokenizer"};
    (void)context;
    (void)base;
    (void)trigger;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
    case SQLITE_TRANSACTION:
        return SQLITE_OK;
    case SQLITE_UPDATE: /* how json_each and its like declare their columns; nothing runs */
        return sqlite3_stricmp(first, "sqlite_master") == 0 ? SQLITE_OK : SQLITE_DENY;
    case SQLITE_FUNCTION:
        return is_among(second, functions, sizeof functions / sizeof *functions)
                   ? SQLITE_DENY
                   : SQLITE_OK;
    case SQLITE_PRAGMA:
        return is_among(first, pragmas, sizeof pragmas / sizeof *pragmas) ? SQLITE_OK
                                                                          : SQLITE_DENY;
    default:
        return SQLITE_DENY;
    }
}

struct place {
    char path[PATH_MAX];
    char vfs[MAX_NAME_BYTES]; /* "": the usual one */
    bool is_unsafe;
    int checkpoint_pages; /* 0: as usual */
};

static enum status option(struct place *out, const char *text, size_t n,
                          struct error *err) {
    static const char vfs[] = "vfs=", off[] = "dangerous-synchronous=off";
    static const char pages[] = "checkpoint-pages=";
    size_t n_vfs = sizeof vfs - 1;
    if (n > n_vfs && n - n_vfs < sizeof out->vfs && strncmp(text, vfs, n_vfs) == 0) {
        memcpy(out->vfs, text + n_vfs, n - n_vfs);
        return STATUS_OK;
    }
    if (n == sizeof off - 1 && strncmp(text, off, n) == 0) {
        out->is_unsafe = true;
        return STATUS_OK;
    }
    if (n > sizeof pages - 1 && strncmp(text, pages, sizeof pages - 1) == 0) {
        char *end;
        long value = strtol(text + sizeof pages - 1, &end, 10);
        if (end == text + n && value > 0 && value <= CHECKPOINT_PAGES) {
            out->checkpoint_pages = (int)value;
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_INVALID,
                     "the store's URL has an option that is none of vfs=NAME, "
                     "%s1 to %d and %s",
                     pages, CHECKPOINT_PAGES, off);
}

/* "sqlite:PATH[?options]", or a path that is taken as it is. */
static enum status parse(const char *url, struct place *out, struct error *err) {
    bool is_url = strncmp(url, "sqlite:", 7) == 0;
    const char *path = is_url ? url + 7 : url;
    size_t n = is_url ? strcspn(path, "?") : strlen(path);
    if (n == 0 || n >= sizeof out->path - 16)
        return error_set(err, STATUS_INVALID, "the store's path is %s",
                         n ? "too long" : "empty");
    memcpy(out->path, path, n);
    const char *options = path + n + (path[n] == '?');
    while (*options) {
        size_t length = strcspn(options, "&");
        enum status status = option(out, options, length, err);
        if (status)
            return status;
        options += length + (options[length] == '&');
    }
    return STATUS_OK;
}

/* Makes the path the one that all programs find, whatever links lead there. */
static enum status resolve(struct place *at, enum database_mode mode, bool *is_there,
                           struct error *err) {
    char *whole = realpath(at->path, NULL);
    *is_there = whole != NULL;
    if (!whole && errno != ENOENT)
        return error_set(err, STATUS_IO, "cannot open %s: %s", at->path,
                         strerror(errno));
    if (!whole && !at->vfs[0] && mode != DATABASE_CREATE)
        return error_set(err, STATUS_NOT_FOUND, "there is no store %s", at->path);
    const char *last = strrchr(at->path, '/');
    last = last ? last + 1 : at->path;
    struct buffer text = {.max_bytes = sizeof at->path - 16};
    enum status status;
    if (whole) {
        status = buffer_append(&text, whole, strlen(whole), err);
    } else {
        size_t n_folder = (size_t)(last - at->path);
        char folder[PATH_MAX] = ".";
        if (n_folder) {
            memcpy(folder, at->path, n_folder);
            folder[n_folder] = 0;
        }
        whole = realpath(folder, NULL);
        status = !whole ? error_set(err, STATUS_NOT_FOUND,
                                    "cannot make %s: there is no folder %s", at->path,
                                    folder)
                        : buffer_printf(&text, err, "%s/%s",
                                        strcmp(whole, "/") == 0 ? "" : whole, last);
    }
    if (!status)
        memcpy(at->path, text.data, text.n_bytes + 1);
    struct stat st;
    if (!status && *is_there && (stat(at->path, &st) != 0 || !S_ISREG(st.st_mode)))
        status = error_set(err, STATUS_INVALID, "%s is not a regular file", at->path);
    buffer_free(&text);
    free(whole);
    return status;
}

/* An empty file that only we can read. To close another one would drop SQLite's own locks on
 * it, in this process: so it must be new. */
static enum status make_file(const struct place *at, struct error *err) {
    int fd = open(at->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? STATUS_OK
                               : error_set(err, STATUS_IO, "cannot make %s: %s",
                                           at->path, strerror(errno));
    close(fd);
    return STATUS_OK;
}

static enum status lock_place(struct sqlite *s, const struct place *at,
                              struct error *err) {
    char path[PATH_MAX + 8];
    size_t n = strlen(at->path);
    memcpy(path, at->path, n);
    memcpy(path + n, "-lock", sizeof "-lock");
    enum status status = lock_open(path, &s->lock, err);
    return status ? status : lock_take(&s->lock, DATABASE_WAIT_NS, err);
}

/* An empty database, one of ours, or somebody else's? */
static enum status check_owner(struct sqlite *s, bool *is_new, struct error *err) {
    char n_tables[24], id[24];
    enum status status =
        ask(s, "SELECT count(*) FROM sqlite_schema", n_tables, sizeof n_tables, err);
    if (!status)
        status = ask(s, "PRAGMA application_id", id, sizeof id, err);
    if (status)
        return status;
    bool is_ours = strtoll(id, NULL, 10) == APPLICATION_ID;
    *is_new = !is_ours && strcmp(n_tables, "0") == 0;
    if (!is_ours && (!*is_new || s->base.mode != DATABASE_CREATE))
        return error_set(err, STATUS_INVALID,
                         "%s is a SQLite database, but not a store of vigil",
                         s->base.name);
    return STATUS_OK;
}

/* Under the lock, since the first look at a database recovers its log. */
static enum status configure_writer(struct sqlite *s, const struct place *at,
                                    struct error *err) {
    char mode[16];
    bool is_new;
    if (sqlite3_db_readonly(s->handle, "main") == 1)
        return error_set(err, STATUS_IO, "%s may not be written", s->base.name);
    enum status status = check_owner(s, &is_new, err);
    if (!status)
        status = ask(s, "PRAGMA journal_mode = WAL", mode, sizeof mode, err);
    if (!status && strcmp(mode, "wal") != 0)
        status = error_set(err, STATUS_UNSUPPORTED,
                           "%s: its file system has no write-ahead log", s->base.name);
    if (!status)
        status = run_now(
            s, at->is_unsafe ? "PRAGMA synchronous = OFF" : "PRAGMA synchronous = FULL",
            "on opening", err);
    if (!status && is_new)
        status = run_now(s, "PRAGMA application_id = 0x5649474C", "on opening", err);
    return status;
}

static enum status configure(struct sqlite *s, const struct place *at,
                             struct error *err) {
    static const char common[] = "PRAGMA trusted_schema = 0;"
                                 "PRAGMA mmap_size = 0;"
                                 "PRAGMA temp_store = MEMORY;"
                                 "PRAGMA cell_size_check = 1;"
                                 "PRAGMA foreign_keys = 1;"
                                 "PRAGMA secure_delete = 1;"
                                 "PRAGMA journal_size_limit = 67108864;";
    sqlite3_extended_result_codes(s->handle, 1);
    sqlite3_busy_timeout(s->handle, BUSY_MS);
    sqlite3_wal_hook(s->handle, count_pages,
                     s); /* in place of SQLite's own checkpoints */
    static const int on[] = {SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
                             SQLITE_DBCONFIG_DEFENSIVE};
    static const int off[] = {SQLITE_DBCONFIG_DQS_DML, SQLITE_DBCONFIG_DQS_DDL,
                              SQLITE_DBCONFIG_TRUSTED_SCHEMA,
                              SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION};
    int code = 0;
    for (size_t i = 0; !code && i < sizeof on / sizeof *on; i++)
        code = sqlite3_db_config(s->handle, on[i], 1, (int *)NULL);
    for (size_t i = 0; !code && i < sizeof off / sizeof *off; i++)
        code = sqlite3_db_config(s->handle, off[i], 0, (int *)NULL);
    if (!code)
        code = sqlite3_create_function_v2(s->handle, "vigil_now_ns", 0,
                                          SQLITE_UTF8 | SQLITE_DIRECTONLY, NULL, now,
                                          NULL, NULL, NULL);
    if (code)
        return fail(s, code, "on opening", err);
    enum status status = run_now(s, common, "on opening", err);
    if (status)
        return status;
    if (s->base.mode != DATABASE_READ) {
        status = run_now(s, "PRAGMA cache_size = -65536", "on opening", err);
        return status ? status : configure_writer(s, at, err);
    }
    bool is_new;
    status = run_now(s, "PRAGMA cache_size = -16384; PRAGMA query_only = 1",
                     "on opening", err);
    if (!status)
        status = check_owner(s, &is_new, err);
    if (!status && sqlite3_set_authorizer(s->handle, authorize, s))
        status = error_set(err, STATUS_INTERNAL, "SQLite takes no authorizer");
    return status;
}

static void close_sqlite(struct database *db) {
    struct sqlite *s = of(db);
    database_forget(db);
    sqlite3_close_v2(s->handle);
    lock_close(&s->lock);
    free(s);
}

enum status sqlite_open(const char *url, enum database_mode mode, struct database **out,
                        struct error *err) {
    struct place at = {.path = ""};
    bool is_there;
    enum status status = parse(url, &at, err);
    if (status)
        return status;
    struct sqlite *s = calloc(1, sizeof *s);
    if (s)
        s->base =
            (struct database){.driver = &driver, .mode = mode, .name = strdup(at.path)};
    if (!s || !s->base.name) {
        free(s);
        return error_set(err, STATUS_NO_MEMORY, "no memory for a database");
    }
    s->usual_pages = at.checkpoint_pages ? at.checkpoint_pages : CHECKPOINT_PAGES;
    s->checkpoint_pages = s->usual_pages;
    status = resolve(&at, mode, &is_there, err);
    if (!status && mode != DATABASE_READ)
        status = lock_place(s, &at, err);
    bool makes = mode == DATABASE_CREATE && !is_there;
    if (!status && makes && !at.vfs[0])
        status = make_file(&at, err);
    if (!status) {
        int flags =
            SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE |
            (mode == DATABASE_READ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
            (mode == DATABASE_CREATE && at.vfs[0] ? SQLITE_OPEN_CREATE : 0);
        int code =
            sqlite3_open_v2(at.path, &s->handle, flags, at.vfs[0] ? at.vfs : NULL);
        status = code ? fail(s, code, "on opening", err) : configure(s, &at, err);
    }
    lock_release(&s->lock);
    s->is_open = true;
    if (status) {
        close_sqlite(&s->base);
        return status;
    }
    *out = &s->base;
    return STATUS_OK;
}

static const struct driver driver = {
    .kind = DATABASE_SQLITE,
    .close = close_sqlite,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .run = run,
    .checkpoint = checkpoint,
    .limit = limit,
    .prepare = prepare,
    .forget = forget,
    .integer = bind_integer,
    .real = bind_real,
    .text = bind_text,
    .bytes = bind_bytes,
    .null = bind_null,
    .step = step,
    .finish = finish,
    .send = send_now,
    .reset = reset,
    .get_integer = get_integer,
    .get_real = get_real,
    .get_text = get_text,
    .type = type,
    .n_columns = n_columns,
    .column_name = column_name,
};
