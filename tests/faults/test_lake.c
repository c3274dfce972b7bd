/* SPDX-License-Identifier: Apache-2.0
 *
 * test_lake.c - the power fails at each operation of an export, in the store or in the lake,
 * or one operation on a file fails: after the next export each result is in exactly one file,
 * none that was withdrawn is in any, and nothing else lies there.
 *
 * Prints a line "VIGIL_LAKE_CUT {JSON}" for reports. VIGIL_FAULT_SEED.
 */
#include <errno.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "store/lake/lake.h"
#include "tests/faults/crash_files.h"
#include "tests/faults/crash_vfs.h"
#include "tests/faults/disk.h"
#include "tests/unit/store_fixture.h"

#define N_POSTS 11
#define MAX_CUTS 5000
#define DEFAULT_SEED 20261126

struct rig {
    uint64_t random;
    char *dir; /* of the store; the lake lies in it */
    char path[300], url[400], plain_url[400], lake[300];
    struct store *store;
    int n_seen[N_POSTS + 1];
    int64_t n_cuts, n_errors, n_missing, n_twice, n_other;
    char first[900];
};

static uint64_t seed(void) {
    const char *text = getenv("VIGIL_FAULT_SEED");
    uint64_t value = text ? strtoull(text, NULL, 10) : 0;
    return value ? value : DEFAULT_SEED;
}

/* ---- The lake, as a reader finds it ---- */

static void note(struct rig *r, int64_t *count, const char *what, const char *where) {
    ++*count;
    if (!r->first[0])
        snprintf(r->first, sizeof r->first, "%s: %s", what, where);
}

static void see_lines(struct rig *r, const char *path) {
    static const char mark[] = "\"key\":\"file:";
    struct buffer b = {.max_bytes = 1 << 20};
    char piece[4096];
    gzFile file = gzopen(path, "rb");
    int n = 0;
    while (file && (n = gzread(file, piece, sizeof piece)) > 0)
        assert_ok(buffer_append(&b, piece, (size_t)n, &error));
    if (!file || n < 0 || gzclose(file) != Z_OK || b.n_bytes == 0)
        note(r, &r->n_other, "a file that cannot be read", path);
    for (const char *p = b.data; p && (p = strstr(p, mark)); p++) {
        long number = strtol(p + sizeof mark - 1, NULL, 10);
        if (number < 1 || number > N_POSTS)
            note(r, &r->n_other, "a row of nobody", path);
        else
            r->n_seen[number]++;
    }
    buffer_free(&b);
}

static void see_folder(struct rig *r, const char *folder, int depth) {
    char path[768];
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        size_t n = strlen(e->d_name);
        if (depth < 2)
            see_folder(r, path, depth + 1);
        else if (n > 9 && strcmp(e->d_name + n - 9, ".jsonl.gz") == 0)
            see_lines(r, path);
        else
            note(r, &r->n_other, "what is no file of the lake was left", path);
    }
    if (d)
        closedir(d);
}

/* withdrawn: a post that must be in no file; 0: none. */
static void check(struct rig *r, int withdrawn, const char *when) {
    memset(r->n_seen, 0, sizeof r->n_seen);
    see_folder(r, r->lake, 0);
    for (int n = 1; n <= N_POSTS; n++) {
        char where[64];
        snprintf(where, sizeof where, "post %d, %s", n, when);
        if (n == withdrawn ? r->n_seen[n] > 0 : r->n_seen[n] > 1)
            note(r, &r->n_twice, "a result more than it should be", where);
        else if (n != withdrawn && r->n_seen[n] == 0)
            note(r, &r->n_missing, "a result is in no file", where);
    }
}

/* ---- A store with results ---- */

static void open_store(struct rig *r, const char *url) {
    assert_ok(store_open(url, DATABASE_CREATE, &r->store, &error));
}

static void close_store(struct rig *r) {
    store_close(r->store);
    r->store = NULL;
}

static void begin(struct rig *r) {
    struct fixture f = {0};
    char keys[N_POSTS][16];
    r->dir = scratch_make();
    snprintf(r->path, sizeof r->path, "%s/store.db", r->dir);
    snprintf(r->lake, sizeof r->lake, "%s/lake", r->dir);
    snprintf(r->url, sizeof r->url, "sqlite:%s?vfs=" CRASH_VFS, r->path);
    snprintf(r->plain_url, sizeof r->plain_url, "sqlite:%s", r->path);
    open_store(r, r->plain_url);
    f.store = r->store;
    f.arena.max_bytes = (size_t)16 << 20;
    for (int n = 1; n <= N_POSTS; n++) {
        snprintf(keys[n - 1], sizeof keys[0], "file:%d", n);
        struct store_item item = an_item(keys[n - 1], 1, "text");
        item.posted_ns -= n % 2 * 86400 * SECOND_NS;
        take_one(&f, item);
    }
    assert_int_equal(settle_all(&f), N_POSTS);
    arena_free(&f.arena);
    close_store(r);
}

static void end(struct rig *r) {
    scratch_remove(r->dir);
    r->dir = NULL;
}

static enum status export(struct rig *r, struct error *err) {
    const struct lake_options options = {.folder = r->lake, .max_rows = 3};
    struct lake_counts counts = {0};
    return lake_export(store_database(r->store), &options, &counts, NULL, NULL, err);
}

static void withdraw(struct rig *r, int n) {
    char key[16];
    struct fixture f = {.store = r->store};
    snprintf(key, sizeof key, "file:%d", n);
    take_one(&f, a_delete(key));
}

/* ---- The power fails ---- */

/* Exports until the cut_at-th operation; false: it came to its end before. */
static bool is_cut(struct rig *r, int64_t cut_at) {
    struct error err;
    disk_start(disk_random(&r->random), cut_at);
    crash_files_fail(0, 0);
    crash_files_watch(r->dir);
    enum status status = store_open(r->url, DATABASE_WRITE, &r->store, &err);
    if (status == STATUS_OK)
        status = export(r, &err);
    bool had_power = disk_has_power();
    if (status != STATUS_OK && had_power)
        fail_msg("%s", err.message);
    disk_cut();
    close_store(r);
    crash_files_watch(NULL);
    char shm[320];
    snprintf(shm, sizeof shm, "%s-shm", r->path);
    unlink(shm);
    disk_restore();
    r->n_cuts++;
    return !had_power;
}

/* What an export without faults makes of it. */
static void finish(struct rig *r, int withdrawn, const char *when) {
    open_store(r, r->plain_url);
    if (withdrawn)
        withdraw(r, withdrawn);
    assert_ok(export(r, &error));
    check(r, withdrawn, when);
    close_store(r);
}

/* Something is withdrawn from a lake that is whole, and the power fails while its file is
 * written anew. */
static void cut_refresh(struct rig *r, int n, const char *when) {
    open_store(r, r->plain_url);
    withdraw(r, n);
    close_store(r);
    (void)is_cut(r, 1 + (int64_t)disk_below(&r->random, 40));
    open_store(r, r->plain_url);
    assert_ok(export(r, &error));
    memset(r->n_seen, 0, sizeof r->n_seen);
    see_folder(r, r->lake, 0);
    if (r->n_seen[n])
        note(r, &r->n_twice, "what was withdrawn is in a file", when);
    close_store(r);
}

/* At each operation in turn. */
static void cut_each(struct rig *r, bool stops_early) {
    char when[64];
    bool goes_on = true;
    crash_vfs_register();
    for (int64_t cut_at = 1; goes_on && cut_at < MAX_CUTS; cut_at++) {
        int withdrawn = (int)disk_below(&r->random, N_POSTS + 1);
        snprintf(when, sizeof when, "cut at %d", (int)cut_at);
        begin(r);
        goes_on = is_cut(r, cut_at);
        if (disk_below(&r->random, 2)) /* and when it is tried again */
            (void)is_cut(r, 1 + (int64_t)disk_below(&r->random, 60));
        finish(r, withdrawn, when);
        if (withdrawn)
            cut_refresh(r, withdrawn % N_POSTS + 1, when);
        end(r);
        if (stops_early && r->first[0])
            break;
    }
}

static void test_power(void **state) {
    (void)state;
    static struct rig r;
    r = (struct rig){.random = seed()};
    int64_t start_ns = clock_now_ns();
    cut_each(&r, false);
    printf("VIGIL_LAKE_CUT {\"points\":%d,\"lost\":%d,\"doubled\":%d,\"corrupt\":%d,"
           "\"seed\":%llu,\"seconds\":%.1f}\n",
           (int)r.n_cuts, (int)r.n_missing, (int)r.n_twice, (int)r.n_other,
           (unsigned long long)seed(), (double)(clock_now_ns() - start_ns) / 1e9);
    if (r.first[0])
        fail_msg("%s", r.first);
    assert_true(r.n_cuts > 50);
}

static void test_control(void **state) {
    (void)state;
    static struct rig r;
    r = (struct rig){.random = seed()};
    crash_files_lie(true);
    cut_each(&r, true);
    crash_files_lie(false);
    if (!r.first[0])
        fail_msg("without syncs nothing was found: the test is blind");
    print_message("control: %s\n", r.first);
}

/* ---- One operation fails, the program goes on ---- */

static void test_errors(void **state) {
    (void)state;
    static const int codes[] = {ENOSPC, EIO};
    static struct rig r;
    struct error err;
    r = (struct rig){.random = seed()};
    disk_start(r.random, 0);
    for (int64_t k = 1, goes_on = 1; goes_on && k < MAX_CUTS; k++) {
        char when[64];
        snprintf(when, sizeof when, "operation %d fails", (int)k);
        begin(&r);
        open_store(&r, r.plain_url);
        crash_files_watch(r.lake);
        crash_files_fail(k, codes[k % 2]);
        enum status status = export(&r, &err);
        goes_on = crash_files_n_operations() >= k;
        if (status != STATUS_OK && (status != STATUS_IO || !err.message[0]))
            fail_msg("%s: %s", when, err.message);
        r.n_errors += status != STATUS_OK;
        crash_files_fail(0, 0);
        assert_ok(export(&r, &error));
        crash_files_watch(NULL);
        check(&r, 0, when);
        close_store(&r);
        disk_start(r.random, 0);
        end(&r);
    }
    if (r.first[0])
        fail_msg("%s", r.first);
    assert_true(r.n_errors > 20);
}

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power),
                                       cmocka_unit_test(test_control),
                                       cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
