/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sqlite.c - store/sqlite: its files, several processes that write, kills, a full disk,
 * a clock that began anew. What SQLite and PostgreSQL have in common is test_database.c's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/log.h"
#include "store/database/lock.h"
#include "tests/unit/store_fixture.h"

static int teardown(void **state) {
    const char *disk = scratch_path(((struct place *)*state)->dir, "disk");
    umount2(disk, MNT_DETACH);
    rmdir(disk);
    return place_teardown(state);
}

static const char make_things[] =
    "CREATE TABLE things (id @ID@, i @INTEGER@, t @TEXT@) @STRICT@";
static const char put_thing[] = "INSERT INTO things (i, t) VALUES ($1, $2)";
static const char count_things[] = "SELECT count(*) FROM things";

static long long size_of(const struct place *at, const char *suffix) {
    char path[600];
    struct stat st;
    snprintf(path, sizeof path, "%s%s", at->url, suffix);
    return stat(path, &st) == 0 ? (long long)st.st_size : -1;
}

static enum status put(struct database *db, int64_t i, struct view text,
                       struct error *err) {
    struct statement *st;
    enum status status = database_prepare(db, put_thing, &st, err);
    if (status)
        return status;
    statement_integer(st, 1, i);
    statement_text(st, 2, text);
    return statement_send(st, err);
}

static void files_are_private(void **state) {
    const struct place *at = *state;
    mode_t mask = umask(0);
    struct database *db = place_open(at, DATABASE_CREATE);
    umask(mask);
    static const char *const suffixes[] = {"", "-wal", "-shm", "-lock"};
    for (size_t i = 0; i < 4; i++) {
        char path[600];
        struct stat st;
        snprintf(path, sizeof path, "%s%s", at->url, suffixes[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    assert_int_equal(database_kind(db), DATABASE_SQLITE);
    assert_string_equal(database_name(db), at->url);
    database_close(db);
}

static int64_t pragma(struct database *db, const char *sql) {
    return place_ask(db, sql);
}

static void is_set_up(void **state) {
    struct database *db = place_open(*state, DATABASE_CREATE);
    assert_int_equal(pragma(db, "PRAGMA synchronous"), 2);
    assert_int_equal(pragma(db, "PRAGMA secure_delete"), 1);
    assert_int_equal(pragma(db, "PRAGMA foreign_keys"), 1);
    assert_int_equal(pragma(db, "PRAGMA trusted_schema"), 0);
    assert_int_equal(pragma(db, "PRAGMA wal_autocheckpoint"), 0);
    assert_int_equal(pragma(db, "PRAGMA cache_size"), -65536);
    struct statement *st;
    bool has_row;
    assert_ok(database_prepare(db, "PRAGMA mmap_size", &st, &error));
    assert_ok(statement_step(st, &has_row, &error));
    assert_true(!has_row || statement_get_integer(st, 0) == 0);
    statement_reset(st);
    database_close(db);
}

static void opens_what_is_there(void **state) {
    const struct place *at = *state;
    struct database *db;
    char url[700];
    assert_int_equal(database_open(at->url, DATABASE_WRITE, &db, &error),
                     STATUS_NOT_FOUND);
    assert_int_equal(database_open(at->url, DATABASE_READ, &db, &error),
                     STATUS_NOT_FOUND);
    assert_int_equal(size_of(at, ""), -1); /* nothing was made */
    assert_int_equal(size_of(at, "-lock"), -1);
    assert_int_equal(database_open(at->dir, DATABASE_CREATE, &db, &error),
                     STATUS_INVALID);
    snprintf(url, sizeof url, "%s/no/store.db", at->dir);
    assert_int_equal(database_open(url, DATABASE_CREATE, &db, &error),
                     STATUS_NOT_FOUND);
    assert_int_equal(database_open("", DATABASE_CREATE, &db, &error), STATUS_INVALID);
    scratch_write(at->url, "this is text, and not a database", 32);
    for (int mode = DATABASE_CREATE; mode <= DATABASE_READ; mode++)
        assert_int_equal(database_open(at->url, (enum database_mode)mode, &db, &error),
                         STATUS_INVALID);
    assert_int_equal(unlink(at->url), 0);

    /* Somebody else's database stays as it is. */
    sqlite3 *other;
    assert_int_equal(sqlite3_open(at->url, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "CREATE TABLE t (i)", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(other);
    for (int mode = DATABASE_CREATE; mode <= DATABASE_READ; mode++) {
        assert_int_equal(database_open(at->url, (enum database_mode)mode, &db, &error),
                         STATUS_INVALID);
        assert_non_null(strstr(error.message, "not a store of vigil"));
    }
    assert_int_equal(unlink(at->url), 0);

    snprintf(url, sizeof url, "sqlite:%s?vfs=unix&dangerous-synchronous=off", at->url);
    assert_ok(database_open(url, DATABASE_CREATE, &db, &error));
    assert_int_equal(pragma(db, "PRAGMA synchronous"), 0);
    database_close(db);
    snprintf(url, sizeof url, "sqlite:%s?vfs=nothing", at->url);
    assert_int_not_equal(database_open(url, DATABASE_CREATE, &db, &error), STATUS_OK);
    snprintf(url, sizeof url, "sqlite:%s?synchronous=off", at->url);
    assert_int_equal(database_open(url, DATABASE_CREATE, &db, &error), STATUS_INVALID);
}

/* By whatever name, there is one lock. */
static void follows_links(void **state) {
    const struct place *at = *state;
    database_close(place_open(at, DATABASE_CREATE));
    const char *link = scratch_path(at->dir, "link.db");
    assert_int_equal(symlink(at->url, link), 0);
    struct database *db;
    assert_ok(database_open(link, DATABASE_WRITE, &db, &error));
    database_close(db);
    assert_int_equal(access(scratch_path(at->dir, "link.db-lock"), F_OK), -1);
    assert_int_equal(access(scratch_path(at->dir, "link.db-wal"), F_OK), -1);
}

/* Whatever writes has the lock file: all transactions, and openings that make or recover. */
static void holds_the_lock(void **state) {
    const struct place *at = *state;
    struct database *db = place_open(at, DATABASE_CREATE);
    struct lock l;
    char path[600];
    snprintf(path, sizeof path, "%s-lock", at->url);
    place_run(db, make_things);
    assert_ok(lock_open(path, &l, &error));
    for (int commits = 0; commits < 3; commits++) {
        assert_ok(database_begin(db, &error));
        assert_int_equal(lock_take(&l, 0, &error), STATUS_BUSY);
        assert_ok(put(db, 1, VIEW("a"), &error));
        assert_int_equal(lock_take(&l, 0, &error), STATUS_BUSY);
        if (commits == 2) {
            assert_int_not_equal(
                database_run(db, "INSERT INTO things (id) VALUES ('a')", &error),
                STATUS_OK);
            assert_int_equal(lock_take(&l, 0, &error), STATUS_BUSY);
        }
        if (commits == 1)
            assert_ok(database_commit(db, &error));
        else
            database_rollback(db);
        assert_ok(lock_take(&l, 0, &error));
        lock_release(&l);
    }
    assert_ok(database_checkpoint(db, &error));
    assert_ok(lock_take(&l, 0, &error));
    /* A reader needs none. */
    struct database *reader = place_open(at, DATABASE_READ);
    assert_ok(database_begin(reader, &error));
    assert_int_equal(place_ask(reader, count_things), 1);
    assert_ok(database_commit(reader, &error));
    database_close(reader);
    /* A writer that opens waits for it. */
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool is_open =
            database_open(at->url, DATABASE_WRITE, &reader, NULL) == STATUS_OK;
        _exit(write(pipes[1], is_open ? "y" : "n", 1) == 1 ? 0 : 1);
    }
    struct pollfd answer = {.fd = pipes[0], .events = POLLIN};
    assert_int_equal(poll(&answer, 1, 100), 0);
    lock_close(&l);
    char said = 0;
    assert_int_equal(read(pipes[0], &said, 1), 1);
    assert_int_equal(said, 'y');
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(pipes[0]);
    close(pipes[1]);
    database_close(db);
}

static void reader_cannot_leave(void **state) {
    static const char *const forbidden[] = {
        "ATTACH 'x.db' AS x",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = 0",
        "SELECT load_extension('x')",
        "CREATE TEMP TABLE t (i)",
        "PRAGMA wal_checkpoint",
        "VACUUM INTO 'x.db'",
        "PRAGMA writable_schema = 1",
        "SELECT vigil_now_ns() FROM (SELECT 1); DETACH x"};
    database_close(place_open(*state, DATABASE_CREATE));
    struct database *db = place_open(*state, DATABASE_READ);
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        struct statement *st;
        enum status status = database_prepare(db, forbidden[i], &st, &error);
        if (!status)
            status = statement_finish(st, NULL, &error);
        if (status != STATUS_UNSUPPORTED && status != STATUS_INVALID)
            fail_msg("%s: %s", forbidden[i], status_name(status));
    }
    assert_int_equal(database_checkpoint(db, &error), STATUS_UNSUPPORTED);
    assert_ok(database_limit(db, INT64_C(5000000000), 1 << 20, &error));
    struct statement *st;
    bool has_row;
    assert_ok(database_prepare(db, "SELECT zeroblob(2000000)", &st, &error));
    assert_int_equal(statement_step(st, &has_row, &error), STATUS_LIMIT);
    assert_ok(database_limit(db, 0, 0, &error));
    assert_ok(database_prepare(db, "PRAGMA table_info(posts)", &st, &error));
    assert_ok(statement_step(st, &has_row, &error));
    assert_true(has_row && view_equal(statement_get_text(st, 1), VIEW("id")));
    statement_reset(st);
    database_close(db);
}

static bool holds(const struct place *at, const char *suffix, const char *what) {
    char path[600];
    snprintf(path, sizeof path, "%s%s", at->url, suffix);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    long long n = size_of(at, suffix);
    if (fd < 0)
        return false;
    char *data = malloc((size_t)n + 1);
    bool is_there = read(fd, data, (size_t)n) != (ssize_t)n ||
                    memmem(data, (size_t)n, what, strlen(what)) != NULL;
    free(data);
    close(fd);
    return is_there;
}

static void forgets(void **state) {
    const struct place *at = *state;
    struct database *db = place_open(at, DATABASE_CREATE);
    char text[9000]; /* pages of its own, too */
    memset(text, 'q', sizeof text);
    memcpy(text + 8000, "marked-text-7", 13);
    place_run(db, make_things);
    assert_ok(database_begin(db, &error));
    for (int i = 0; i < 20; i++) {
        assert_ok(put(db, i, view_of(text, sizeof text), &error));
        assert_ok(put(db, i, VIEW("marked-text-8"), &error));
    }
    assert_ok(database_commit(db, &error));
    assert_ok(database_checkpoint(db, &error));
    assert_true(holds(at, "", "marked-text-7") && holds(at, "", "marked-text-8"));
    place_run(db, "DELETE FROM things");
    assert_ok(database_checkpoint(db, &error));
    assert_int_equal(size_of(at, "-wal"), 0);
    assert_false(holds(at, "", "marked-text-7") || holds(at, "", "marked-text-8"));
    database_close(db);
}

static void log_stays_small(void **state) {
    const struct place *at = *state;
    struct database *db = place_open(at, DATABASE_CREATE);
    char text[4000];
    memset(text, 'q', sizeof text);
    place_run(db, make_things);
    long long most = 0;
    for (int round = 0; round < 40; round++) { /* 80 MB */
        assert_ok(database_begin(db, &error));
        for (int i = 0; i < 500; i++)
            assert_ok(put(db, i, view_of(text, sizeof text), &error));
        assert_ok(database_commit(db, &error));
        long long now = size_of(at, "-wal");
        most = now > most ? now : most;
    }
    assert_true(most > 1000000);
    assert_true(most < 32 << 20);
    assert_true(size_of(at, "") > 40 << 20);
    database_close(db);
    db = place_open(at, DATABASE_READ);
    assert_int_equal(place_ask(db, count_things), 40 * 500);
    database_close(db);
}

/* While somebody reads on and on, the log grows, and the writer goes on; then it shrinks. */
static void outgrows_a_reader(void **state) {
    const struct place *at = *state;
    struct database *db = place_open(at, DATABASE_CREATE);
    char text[4000];
    memset(text, 'q', sizeof text);
    place_run(db, make_things);
    struct database *reader = place_open(at, DATABASE_READ);
    assert_ok(database_begin(reader, &error));
    assert_int_equal(place_ask(reader, count_things), 0);
    for (int round = 0; round < 75; round++) { /* 150 MB */
        assert_ok(database_begin(db, &error));
        for (int i = 0; i < 500; i++)
            assert_ok(put(db, i, view_of(text, sizeof text), &error));
        assert_ok(database_commit(db, &error));
    }
    assert_true(size_of(at, "-wal") > 100 << 20);
    assert_int_equal(place_ask(reader, count_things), 0);
    assert_ok(database_commit(reader, &error));
    assert_int_equal(place_ask(reader, count_things), 75 * 500);
    database_close(reader);
    for (int i = 0; i < 3; i++)
        place_run(db, "INSERT INTO things (i) VALUES (1)");
    assert_ok(database_checkpoint(db, &error));
    assert_int_equal(size_of(at, "-wal"), 0);
    database_close(db);
}

/* Leases are by a clock that begins with the machine. */
static void frees_leases_after_a_boot(void **state) {
    static const char held[] =
        "SELECT count(*) FROM queue WHERE lease_until_ns > 0 OR worker <> ''";
    static const char waits[] = "SELECT count(*) FROM queue WHERE not_before_ns > 0";
    struct database *db = place_open(*state, DATABASE_CREATE);
    place_run(db, "INSERT INTO queue (post_id, version, worker, lease_until_ns, "
                  "not_before_ns) VALUES (1, 1, 'a:1', 99, 0), (2, 1, '', 0, 99)");
    database_close(db);
    db = place_open(*state, DATABASE_WRITE); /* the same boot */
    assert_int_equal(place_ask(db, held), 1);
    place_run(db, "UPDATE meta SET value = 'another' WHERE name = 'boot_id'");
    struct database *reader = place_open(*state, DATABASE_READ);
    assert_int_equal(place_ask(reader, held), 1);
    database_close(reader);
    database_close(db);
    db = place_open(*state, DATABASE_WRITE);
    assert_int_equal(place_ask(db, held), 0);
    assert_int_equal(place_ask(db, waits), 0);
    assert_int_equal(place_ask(db, "SELECT count(*) FROM meta WHERE value = 'another'"),
                     0);
    database_close(db);
}

/* ---- Processes that are killed ---- */

enum { N_WRITERS = 2, N_LIVES = 12, N_ROWS = 25 };

/* Commits batches of N_ROWS with the same i, telling each that is durable. */
static void write_batches(const struct place *at, int writer, int tells) {
    struct database *db;
    if (database_open(at->url, DATABASE_WRITE, &db, &error))
        _exit(2);
    for (int64_t i = getpid() * INT64_C(100000) + writer;; i++) {
        if (database_begin(db, &error))
            _exit(3);
        for (int k = 0; k < N_ROWS; k++) {
            if (put(db, i, VIEW("some text"), &error))
                _exit(4);
        }
        if (database_commit(db, &error))
            _exit(5);
        if (write(tells, &i, sizeof i) != sizeof i)
            _exit(6);
    }
}

static pid_t start_writer(const struct place *at, int writer, int tells) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        write_batches(at, writer, tells);
    return child;
}

static void loses_nothing_when_killed(void **state) {
    static const char of_batch[] = "SELECT count(*) FROM things WHERE i = $1";
    static const char halves[] =
        "SELECT count(*) FROM (SELECT i FROM things GROUP BY i HAVING count(*) <> 25)";
    const struct place *at = *state;
    struct database *db = place_open(at, DATABASE_CREATE);
    place_run(db, make_things);
    place_run(db, "CREATE INDEX by_i ON things (i)");
    database_close(db);
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid_t children[N_WRITERS];
    for (int w = 0; w < N_WRITERS; w++)
        children[w] = start_writer(at, w, pipes[1]);
    enum { MOST = 100000 };
    int64_t *told = calloc(MOST, sizeof *told);
    size_t n = 0;
    uint32_t seed = 20261126;
    for (int life = 0; life < N_LIVES; life++) {
        seed = seed * 1664525 + 1013904223;
        /* At a moment within the batch after so many. */
        for (size_t until = n + 1 + (seed >> 28); n < until; n++)
            assert_int_equal(read(pipes[0], &told[n], sizeof *told), sizeof *told);
        usleep((seed >> 16) & 1023);
        int w = life % N_WRITERS, how = 0;
        kill(children[w], SIGKILL);
        assert_int_equal(waitpid(children[w], &how, 0), children[w]);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
        children[w] = start_writer(at, w, pipes[1]);
    }
    for (int w = 0; w < N_WRITERS; w++) {
        kill(children[w], SIGKILL);
        assert_int_equal(waitpid(children[w], NULL, 0), children[w]);
    }
    close(pipes[1]);
    while (n < MOST && read(pipes[0], &told[n], sizeof *told) == sizeof *told)
        n++;
    close(pipes[0]);

    db = place_open(at, DATABASE_WRITE);
    struct database *reader = place_open(at, DATABASE_READ);
    struct statement *st;
    bool has_row;
    assert_int_equal(place_ask(reader, halves), 0);
    for (size_t i = 0; i < n; i++) {
        assert_ok(database_prepare(reader, of_batch, &st, &error));
        statement_integer(st, 1, told[i]);
        assert_ok(statement_step(st, &has_row, &error));
        assert_int_equal(statement_get_integer(st, 0), N_ROWS);
        statement_reset(st);
    }
    assert_ok(database_prepare(reader, "PRAGMA integrity_check", &st, &error));
    assert_ok(statement_step(st, &has_row, &error));
    assert_true(view_equal(statement_get_text(st, 0), VIEW("ok")));
    database_close(reader);
    database_close(db);
    free(told);
}

/* A process that opens for reading after one that died in the middle. */
static void reads_after_a_kill(void **state) {
    const struct place *at = *state;
    struct database *db = place_open(at, DATABASE_CREATE);
    place_run(db, make_things);
    database_close(db);
    int pipes[2];
    int64_t i;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid_t child = start_writer(at, 0, pipes[1]);
    assert_int_equal(read(pipes[0], &i, sizeof i), sizeof i);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    db = place_open(at, DATABASE_READ);
    assert_true(place_ask(db, count_things) >= N_ROWS);
    database_close(db);
    close(pipes[0]);
    close(pipes[1]);
}

/* One who may read, but not write, cannot bring the log in order; he is told who can. */
static void tells_who_can_recover(void **state) {
    enum { NOBODY = 65534 };
    const struct place *at = *state;
    if (geteuid() != 0)
        skip();
    database_close(place_open(at, DATABASE_CREATE));
    for (int has_log = 1; has_log >= 0; has_log--) {
        char path[600];
        snprintf(path, sizeof path, "%s-shm", at->url);
        unlink(path);
        snprintf(path, sizeof path, "%s-wal", at->url);
        assert_int_equal(has_log ? chmod(path, 0644) : unlink(path), 0);
        assert_int_equal(chmod(at->url, 0644), 0);
        assert_int_equal(chmod(at->dir, 0755), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct database *db;
            if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
                _exit(1);
            if (database_open(at->url, DATABASE_READ, &db, &error) != STATUS_IO)
                _exit(2);
            _exit(strstr(error.message, "must be recovered") ? 0 : 3);
        }
        int how = -1;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_int_equal(how, 0);
    }
}

/* ---- A full disk ---- */

static void fill(struct database *db, enum status *status, struct error *err) {
    char text[4000];
    memset(text, 'q', sizeof text);
    *status = database_begin(db, err);
    for (int i = 0; !*status && i < 2000; i++)
        *status = put(db, i, view_of(text, sizeof text), err);
    if (!*status)
        *status = database_commit(db, err);
    else
        database_rollback(db);
}

static void fills_and_goes_on(struct database *db) {
    enum status status;
    int64_t before = place_ask(db, count_things);
    fill(db, &status, &error);
    assert_int_equal(status, STATUS_IO);
    assert_non_null(strstr(error.message, "no space left"));
    assert_int_equal(place_ask(db, count_things), before);
    /* The handle can be used, and what is small still fits. */
    assert_ok(database_begin(db, &error));
    assert_ok(put(db, 1, VIEW("small"), &error));
    assert_ok(database_commit(db, &error));
    assert_int_equal(place_ask(db, count_things), before + 1);
}

static void survives_a_full_database(void **state) {
    struct database *db = place_open(*state, DATABASE_CREATE);
    place_run(db, make_things);
    place_ask(db, "PRAGMA max_page_count = 500");
    fills_and_goes_on(db);
    place_ask(db, "PRAGMA max_page_count = 100000");
    enum status status;
    fill(db, &status, &error);
    assert_int_equal(status, STATUS_OK);
    database_close(db);
}

/* A real disk, of 4 MB, where one may be mounted. */
static void survives_a_full_disk(void **state) {
    struct place at = *(const struct place *)*state;
    const char *disk = scratch_path(at.dir, "disk");
    assert_int_equal(mkdir(disk, 0700), 0);
    if (mount("tmpfs", disk, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m") != 0)
        skip();
    snprintf(at.url, sizeof at.url, "%s/store.db", disk);
    struct database *db = place_open(&at, DATABASE_CREATE);
    place_run(db, make_things);
    fills_and_goes_on(db);
    /* What the log takes of the disk is not there for the checkpoint. */
    assert_int_equal(database_checkpoint(db, &error), STATUS_IO);
    assert_non_null(strstr(error.message, "no space left"));
    assert_int_equal(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, "size=6m"), 0);
    assert_ok(database_checkpoint(db, &error));
    fills_and_goes_on(db);
    database_close(db);
    db = place_open(&at, DATABASE_WRITE);
    assert_int_equal(place_ask(db, count_things), 2);
    database_close(db);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, place_sqlite_setup, teardown)

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    const struct CMUnitTest tests[] = {
        TEST(files_are_private),
        TEST(is_set_up),
        TEST(opens_what_is_there),
        TEST(follows_links),
        TEST(holds_the_lock),
        TEST(reader_cannot_leave),
        TEST(forgets),
        TEST(log_stays_small),
        TEST(outgrows_a_reader),
        TEST(frees_leases_after_a_boot),
        TEST(loses_nothing_when_killed),
        TEST(reads_after_a_kill),
        TEST(tells_who_can_recover),
        TEST(survives_a_full_database),
        TEST(survives_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
