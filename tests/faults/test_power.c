/* SPDX-License-Identifier: Apache-2.0
 *
 * test_power.c - the power fails at a random operation of the disk while a store is written,
 * and again while it recovers: what was acknowledged is there, once; what was under way is
 * there as a whole or not at all.
 *
 * A second store, on a disk that never fails, is told the same calls once they are
 * acknowledged. After a cut the first one must hold exactly what the second does, or what
 * that holds when the call that was cut is made there too. The ledger (ledger.h) knows
 * nothing of either. The control is the same without syncs: there the test must find
 * something.
 *
 * VIGIL_FAULT_POINTS: cuts, 200 unless it says so. VIGIL_FAULT_SEED: of all random numbers.
 * Prints a line "VIGIL_POWER {JSON}" for reports.
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
#include "tests/faults/workload.h"
#include "tests/unit/model_files.h"

#define DEFAULT_POINTS 200
#define DEFAULT_SEED 20261126
#define MAX_CALLS 40
#define CONTROL_FINDS 10 /* enough of them */

struct counts {
    int64_t n_points, n_twice, n_lost, n_doubled, n_corrupt, n_torn;
    int64_t n_in_creation, n_whole,
        n_nothing; /* what became of the call that was cut */
    char first[400];
};

struct rig {
    bool is_control;
    uint64_t random;
    char *dir, *shadow_dir;
    char path[256], url[320], plain_url[320], shadow_url[320];
    struct workload work;
    struct store *shadow;
    struct counts counts;
    int64_t n_operations, n_calls; /* so far, for where to cut */
    bool is_broken;                /* begin anew */
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

/* ---- Chains: a store that is cut again and again ---- */

static void end_chain(struct rig *r) {
    store_close(r->shadow);
    r->shadow = NULL;
    if (r->dir)
        scratch_remove(r->dir);
    if (r->shadow_dir)
        scratch_remove(r->shadow_dir);
    r->dir = r->shadow_dir = NULL;
}

static void begin_chain(struct rig *r) {
    struct error err;
    struct store *s;
    /* Checkpoints of each size, the usual one included, which is never reached here. */
    static const int pages[] = {3, 10, 40, 4096};
    end_chain(r);
    r->is_broken = false;
    r->dir = scratch_make();
    r->shadow_dir = scratch_make();
    snprintf(r->path, sizeof r->path, "%s/store.db", r->dir);
    snprintf(r->plain_url, sizeof r->plain_url, "sqlite:%s", r->path);
    snprintf(r->url, sizeof r->url, "sqlite:%s?vfs=" CRASH_VFS "&checkpoint-pages=%d%s",
             r->path, pages[below(r, 4)],
             r->is_control ? "&dangerous-synchronous=off" : "");
    snprintf(r->shadow_url, sizeof r->shadow_url,
             "sqlite:%s/store.db?dangerous-synchronous=off", r->shadow_dir);
    must(store_open(r->shadow_url, DATABASE_CREATE, &r->shadow, &err), &err, "shadow");
    workload_start(&r->work, disk_random(&r->random));
    if (below(r, 4) == 0)
        return; /* it is made while the power fails */
    must(store_open(r->plain_url, DATABASE_CREATE, &s, &err), &err, "making");
    store_close(s);
}

/* ---- Until the power fails ---- */

/* What is left after the power failed: no shared memory. */
static void restore(struct rig *r) {
    char shm[300];
    snprintf(shm, sizeof shm, "%s-shm", r->path);
    unlink(shm);
    disk_restore();
}

/* Makes calls until one is cut; then c is that, and *is_cut. */
static void work(struct rig *r, struct call *c, bool *is_cut) {
    struct error err;
    struct store *s;
    int64_t n_calls = 1 + below(r, MAX_CALLS);
    int64_t a_call = r->n_calls ? r->n_operations / r->n_calls + 1 : 30;
    bool is_new = access(r->path, F_OK) != 0;
    int64_t cut_at = 1 + below(r, is_new ? 60 : a_call * n_calls);
    *is_cut = false;
    disk_start(disk_random(&r->random), cut_at);
    if (store_open(r->url, DATABASE_CREATE, &s, &err) != STATUS_OK) {
        if (disk_has_power())
            fail_msg("opening: %s", err.message);
        r->counts.n_in_creation += is_new;
        return;
    }
    int64_t n_before = disk_n_operations(), i;
    for (i = 0; i < n_calls && disk_has_power(); i++) {
        workload_next(&r->work, s, c);
        enum status status = workload_apply(c, s, &err);
        if (status != STATUS_OK && disk_has_power())
            fail_msg("call %d: %s: %s", c->kind, status_name(status), err.message);
        if (status != STATUS_OK) {
            *is_cut = true;
            break;
        }
        must(workload_apply(c, r->shadow, &err), &err, "shadow");
        workload_acknowledge(&r->work, c);
        workload_free_call(c);
    }
    r->n_operations += disk_n_operations() - n_before;
    r->n_calls += i + 1;
    disk_cut();
    store_close(s);
}

/* The power fails while what is left is recovered and checkpointed. */
static void fail_again(struct rig *r) {
    struct error err;
    struct store *s;
    disk_start(disk_random(&r->random), 1 + below(r, below(r, 4) ? 12 : 60));
    if (store_open(r->url, DATABASE_CREATE, &s, &err) == STATUS_OK) {
        (void)database_checkpoint(store_database(s), &err);
        disk_cut();
        store_close(s);
    }
    disk_cut();
    restore(r);
    r->counts.n_twice++;
}

/* ---- What is left ---- */

/* Remembers what was found first. */
static void find(struct rig *r, const char *what) {
    r->is_broken = true;
    if (r->counts.first[0])
        return;
    snprintf(r->counts.first, sizeof r->counts.first, "point %" PRId64 ": %s",
             r->counts.n_points, what);
    if (!r->is_control)
        print_error("%s\n", r->counts.first);
}

/* Is it the same as the shadow, which is told of the call that was cut if it has to be? */
static enum status compare(struct rig *r, struct store *s, struct call *c, bool is_cut,
                           struct error *err) {
    uint64_t is, before, after;
    enum status status = ledger_digest(s, &is, err);
    if (status != STATUS_OK)
        return status;
    must(ledger_digest(r->shadow, &before, err), err, "shadow");
    if (is == before) {
        r->counts.n_nothing += is_cut;
        return STATUS_OK;
    }
    if (is_cut) {
        must(workload_apply(c, r->shadow, err), err, "shadow");
        must(ledger_digest(r->shadow, &after, err), err, "shadow");
        if (is == after) {
            r->counts.n_whole++;
            return STATUS_OK;
        }
    }
    char what[128];
    snprintf(what, sizeof what,
             "neither all of a call of kind %d nor nothing of it is there",
             is_cut ? (int)c->kind : -1);
    r->counts.n_torn++;
    find(r, what);
    return STATUS_OK;
}

static void check(struct rig *r, struct call *c, bool is_cut) {
    struct ledger_found found = {0};
    struct error err;
    struct store *s;
    enum status status = store_open(r->plain_url, DATABASE_CREATE, &s, &err);
    if (status != STATUS_OK) {
        r->counts.n_corrupt++;
        find(r, err.message);
        return;
    }
    ledger_check_file(r->path, &found);
    status = ledger_check(&r->work.ledger, s, &found, &err);
    if (status == STATUS_OK)
        status = compare(r, s, c, is_cut, &err);
    if (status != STATUS_OK) {
        r->counts.n_corrupt++;
        find(r, err.message);
    }
    if (found.first[0])
        find(r, found.first);
    r->counts.n_lost += found.n_lost;
    r->counts.n_doubled += found.n_doubled;
    r->counts.n_corrupt += found.n_corrupt;
    if (!r->is_broken)
        must(workload_forget_claims(&r->work, s, r->shadow, &err), &err, "freeing");
    store_close(s);
}

static int64_t n_found(const struct counts *c) {
    return c->n_lost + c->n_doubled + c->n_corrupt + c->n_torn;
}

static void run(struct rig *r, int64_t n_points) {
    while (r->counts.n_points < n_points) {
        static struct call c;
        bool is_cut;
        if (!r->dir || r->is_broken || workload_is_full(&r->work) || below(r, 12) == 0)
            begin_chain(r);
        work(r, &c, &is_cut);
        restore(r);
        if (below(r, 2) == 0)
            fail_again(r);
        check(r, &c, is_cut);
        if (is_cut)
            workload_free_call(&c);
        r->counts.n_points++;
        if (r->is_control && n_found(&r->counts) >= CONTROL_FINDS)
            break;
    }
    end_chain(r);
    workload_free(&r->work);
}

/* ---- The test ---- */

static void test_power(void **state) {
    (void)state;
    int64_t n_points = setting("VIGIL_FAULT_POINTS", DEFAULT_POINTS);
    int64_t seed = setting("VIGIL_FAULT_SEED", DEFAULT_SEED);
    int64_t start_ns = clock_now_ns();
    static struct rig rig, control;
    rig.random = control.random = (uint64_t)seed;
    control.is_control = true;
    crash_vfs_register();
    run(&rig, n_points);
    run(&control, n_points);
    const struct counts *c = &rig.counts;
    printf("VIGIL_POWER {\"points\":%" PRId64 ",\"lost\":%" PRId64
           ",\"doubled\":%" PRId64 ",\"corrupt\":%" PRId64 ",\"torn\":%" PRId64
           ",\"seed\":%" PRId64 ",\"seconds\":%.1f,\"cut_twice\":%" PRId64
           ",\"cut_in_creation\":%" PRId64 ",\"call_whole\":%" PRId64
           ",\"call_not_there\":%" PRId64 ",\"control_points\":%" PRId64
           ",\"control_found\":%" PRId64 "}\n",
           c->n_points, c->n_lost, c->n_doubled, c->n_corrupt, c->n_torn, seed,
           (double)(clock_now_ns() - start_ns) / 1e9, c->n_twice, c->n_in_creation,
           c->n_whole, c->n_nothing, control.counts.n_points, n_found(&control.counts));
    if (control.counts.first[0])
        print_message("control, found first: %s\n", control.counts.first);
    if (n_found(c) > 0)
        fail_msg("seed %" PRId64 ": %s", seed, c->first);
    if (n_found(&control.counts) == 0)
        fail_msg("without syncs nothing was lost in %" PRId64
                 " cuts: the test is blind",
                 control.counts.n_points);
}

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
