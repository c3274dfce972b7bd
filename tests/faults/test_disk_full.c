/* SPDX-License-Identifier: Apache-2.0
 *
 * test_disk_full.c - the disk is full at a random moment while a store is written: the call
 * that was refused says so and has done nothing, the store can be read and is what it was,
 * and once there is room the same call is made and nothing is missing. On a file system that
 * counts bytes, and on a tmpfs of 1 to 16 MiB where one can be mounted.
 *
 * As in test_power.c, a second store is told what was acknowledged. The control is a disk
 * that says it has written what it had no room for.
 *
 * VIGIL_FAULT_FILLS: on each of the two, 10 unless it says so. VIGIL_FAULT_SEED. Prints a
 * line "VIGIL_DISK_FULL {JSON}" for reports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/faults/crash_vfs.h"
#include "tests/faults/disk.h"
#include "tests/faults/tmpfs.h"
#include "tests/faults/workload.h"
#include "tests/unit/model_files.h"

#define DEFAULT_FILLS 10
#define DEFAULT_SEED 20261126
#define MAX_CALLS 400
#define CALLS_BEHIND 12 /* when there is room again */
#define MAX_ROOM (INT64_C(400) << 10)
#define ENOUGH (INT64_C(8) << 20) /* for all calls until it is to be full again */

enum disk_kind { DISK_COUNTED, DISK_TMPFS, DISK_LYING };

struct rig {
    enum disk_kind kind;
    uint64_t random;
    char *dir, *shadow_dir;
    char url[400], path[300], shadow_url[320];
    struct store *store, *shadow;
    struct workload work;
    int64_t n_fills, n_refused, n_torn;
    struct ledger_found found;
};

static int64_t setting(const char *name, int64_t otherwise) {
    const char *text = getenv(name);
    int64_t value = text ? strtoll(text, NULL, 10) : 0;
    return value > 0 ? value : otherwise;
}

static int64_t below(struct rig *r, int64_t n) {
    return (int64_t)disk_below(&r->random, (uint64_t)n);
}

static void must(enum status status, const struct error *err, const char *what) {
    if (status != STATUS_OK)
        fail_msg("%s: %s: %s", what, status_name(status), err->message);
}

/* From now on so many bytes may be written more; -1: as many as there are. */
static void leave(struct rig *r, int64_t n_bytes) {
    if (r->kind == DISK_TMPFS && n_bytes >= 0)
        (void)tmpfs_leave(r->dir, n_bytes);
    else if (r->kind == DISK_TMPFS)
        tmpfs_make_room(r->dir, ENOUGH);
    else
        crash_vfs_limit(n_bytes >= 0 ? crash_vfs_used() + n_bytes : -1,
                        r->kind == DISK_LYING);
}

static void see_torn(struct rig *r, const char *what) {
    r->n_torn++;
    if (!r->found.first[0])
        snprintf(r->found.first, sizeof r->found.first, "%s", what);
}

/* A call was refused. Is the store what it was, or, since an erasure may be made before the
 * pages are rewritten, what it should be? */
static void compare(struct rig *r, struct call *c) {
    struct error err;
    uint64_t is, expected;
    if (ledger_digest(r->store, &is, &err) != STATUS_OK) {
        see_torn(r, err.message);
        return;
    }
    must(ledger_digest(r->shadow, &expected, &err), &err, "shadow");
    if (is != expected && c) {
        must(workload_apply(c, r->shadow, &err), &err, "shadow");
        must(ledger_digest(r->shadow, &expected, &err), &err, "shadow");
    }
    if (is != expected)
        see_torn(r, "the store does not hold what was acknowledged");
}

/* Makes a call in both stores; true when it was refused for want of room. */
static bool is_refused(struct rig *r, struct call *c) {
    struct error err;
    enum status status = workload_apply(c, r->store, &err);
    if (status == STATUS_OK) {
        must(workload_apply(c, r->shadow, &err), &err, "shadow");
        workload_acknowledge(&r->work, c);
        return false;
    }
    if (r->kind == DISK_LYING)
        see_torn(r, err.message);
    else if (status != STATUS_IO || !strstr(err.message, "no space left"))
        fail_msg("call %d: %s: %s", c->kind, status_name(status), err.message);
    r->n_refused++;
    compare(r, c);
    return true;
}

/* Calls until one is refused. Then there is room, and it is made. */
static void fill(struct rig *r) {
    static struct call c, other;
    leave(r, below(r, MAX_ROOM));
    bool is_full = false;
    for (int i = 0; i < MAX_CALLS && !is_full && r->n_torn == 0; i++) {
        if (workload_is_full(&r->work))
            break;
        workload_next(&r->work, r->store, &c);
        is_full = is_refused(r, &c);
        if (!is_full)
            workload_free_call(&c);
    }
    /* Whatever is smaller may find room. */
    for (int64_t i = below(r, 4); is_full && i > 0 && r->n_torn == 0; i--) {
        workload_next(&r->work, r->store, &other);
        (void)is_refused(r, &other);
        workload_free_call(&other);
    }
    leave(r, -1);
    if (!is_full)
        return;
    workload_again(&r->work, &c);
    if (r->n_torn == 0 && is_refused(r, &c))
        fail_msg("refused, although there is room");
    workload_free_call(&c);
    r->n_fills++;
}

/* ---- A store and its disk ---- */

static bool begin(struct rig *r) {
    struct error err;
    r->dir = scratch_make();
    r->shadow_dir = scratch_make();
    snprintf(r->path, sizeof r->path, "%s/store.db", r->dir);
    snprintf(r->url, sizeof r->url, "sqlite:%s%s&checkpoint-pages=%d", r->path,
             r->kind == DISK_TMPFS ? "?vfs=unix" : "?vfs=" CRASH_VFS,
             below(r, 2) ? 16 : 256);
    snprintf(r->shadow_url, sizeof r->shadow_url,
             "sqlite:%s/store.db?dangerous-synchronous=off", r->shadow_dir);
    if (r->kind == DISK_TMPFS && !tmpfs_mount(r->dir, (1 + below(r, 16)) << 20))
        return false;
    disk_start(disk_random(&r->random), 0);
    workload_start(&r->work, disk_random(&r->random));
    r->work.is_large = true;
    must(store_open(r->shadow_url, DATABASE_CREATE, &r->shadow, &err), &err, "shadow");
    /* It may be full when the store is made. */
    leave(r, r->kind == DISK_LYING ? -1 : below(r, 80 << 10));
    enum status status = store_open(r->url, DATABASE_CREATE, &r->store, &err);
    if (status != STATUS_OK &&
        (status != STATUS_IO || !strstr(err.message, "no space left")))
        fail_msg("opening: %s: %s", status_name(status), err.message);
    leave(r, -1);
    if (status != STATUS_OK) {
        r->n_refused++;
        must(store_open(r->url, DATABASE_CREATE, &r->store, &err), &err, "opening");
    }
    return true;
}

static void end(struct rig *r) {
    store_close(r->store);
    store_close(r->shadow);
    r->store = r->shadow = NULL;
    if (r->kind == DISK_TMPFS)
        tmpfs_unmount(r->dir);
    scratch_remove(r->dir);
    scratch_remove(r->shadow_dir);
    workload_free(&r->work);
}

/* Opened again, it holds all of it. */
static void check(struct rig *r) {
    struct error err;
    store_close(r->store);
    r->store = NULL;
    enum status status = store_open(r->url, DATABASE_WRITE, &r->store, &err);
    if (status == STATUS_OK)
        status = ledger_check(&r->work.ledger, r->store, &r->found, &err);
    if (status != STATUS_OK) {
        see_torn(r, err.message);
        return;
    }
    compare(r, NULL);
    ledger_check_file(r->path, &r->found);
}

/* false: there is no such disk here. */
static bool run(struct rig *r, int64_t n_fills) {
    crash_vfs_register();
    while (r->n_fills < n_fills) {
        static struct call c;
        bool is_there = begin(r);
        for (int i = 0; is_there && i < 3 && r->n_torn == 0; i++)
            fill(r);
        for (int i = 0; is_there && i < CALLS_BEHIND && r->n_torn == 0; i++) {
            workload_next(&r->work, r->store, &c);
            if (is_refused(r, &c))
                fail_msg("refused, although there is room");
            workload_free_call(&c);
        }
        if (is_there)
            check(r);
        end(r);
        if (!is_there)
            return false;
        if (r->n_torn || r->found.first[0])
            break;
    }
    return true;
}

static void report(const struct rig *r, const char *name, int64_t seed,
                   double seconds) {
    printf("VIGIL_DISK_FULL {\"disk\":\"%s\",\"fills\":%" PRId64 ",\"refused\":%" PRId64
           ",\"lost\":%" PRId64 ",\"doubled\":%" PRId64 ",\"corrupt\":%" PRId64
           ",\"torn\":%" PRId64 ",\"seed\":%" PRId64 ",\"seconds\":%.1f}\n",
           name, r->n_fills, r->n_refused, r->found.n_lost, r->found.n_doubled,
           r->found.n_corrupt, r->n_torn, seed, seconds);
    if (r->n_torn || r->found.first[0])
        fail_msg("seed %" PRId64 ": %s", seed, r->found.first);
}

static void test_on(enum disk_kind kind, const char *name) {
    static struct rig r;
    int64_t seed = setting("VIGIL_FAULT_SEED", DEFAULT_SEED), start_ns = clock_now_ns();
    r = (struct rig){.kind = kind, .random = (uint64_t)seed};
    if (!run(&r, setting("VIGIL_FAULT_FILLS", DEFAULT_FILLS)))
        skip();
    report(&r, name, seed, (double)(clock_now_ns() - start_ns) / 1e9);
}

static void test_counted(void **state) {
    (void)state;
    test_on(DISK_COUNTED, "counted");
}

static void test_tmpfs(void **state) {
    (void)state;
    test_on(DISK_TMPFS, "tmpfs");
}

static void test_control(void **state) {
    (void)state;
    static struct rig r;
    r = (struct rig){.kind = DISK_LYING,
                     .random = (uint64_t)setting("VIGIL_FAULT_SEED", DEFAULT_SEED)};
    run(&r, setting("VIGIL_FAULT_FILLS", DEFAULT_FILLS));
    crash_vfs_limit(-1, false);
    if (!r.found.first[0])
        fail_msg("a disk that lies was not found out: the test is blind");
    print_message("control: %s\n", r.found.first);
}

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counted),
                                       cmocka_unit_test(test_tmpfs),
                                       cmocka_unit_test(test_control)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
