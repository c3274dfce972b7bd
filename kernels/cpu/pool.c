/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.c - spin-then-park thread pool with one word of shared state.
 *
 * Design: `claim` holds the phase number, its number of tasks and the next task, so that one
 *         fetch_add claims a task and says whose it is; a late claim of a finished phase sees
 *         next >= n_tasks and does nothing. The phase's function lies in one of two slots,
 *         and is not overwritten before every task of its phase is done.
 *
 *            63      40 39          20 19           0
 *           [  phase   |   n_tasks    |  next task   ]
 *
 * Waiting: SPINS looks (about 20 us), then a futex. The caller, waiting for the last tasks,
 *          spins and then yields: their threads may be without a core.
 */
#include "kernels/cpu/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TASK_BITS = 20, SPINS = 2000, SPINS_BEFORE_YIELD = 4000 };
#define TASK_MASK ((UINT64_C(1) << TASK_BITS) - 1)

struct phase {
    pool_task *task;
    void *context;
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    int32_t index;
};

struct pool {
    _Alignas(64) _Atomic uint64_t claim;
    _Alignas(64) _Atomic uint32_t n_done;
    _Alignas(64) _Atomic uint32_t wake; /* futex: counts phases */
    _Atomic uint32_t n_parked;
    _Atomic bool is_closing;
    struct phase phases[2];
    uint32_t phase;
    int32_t n_threads, n_started;
    int32_t *cpus;
    int32_t n_cpus;
    pthread_t pinned_caller; /* of the last pool_run, when cpus is set */
    bool has_caller;
    struct worker *workers; /* [n_threads - 1] */
};

static void relax(void) {
#if defined __x86_64__
    __builtin_ia32_pause();
#else
    __asm__ volatile("" ::: "memory");
#endif
}

static void pin(const struct pool *p, int32_t index) {
    if (!p->cpus)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)p->cpus[index % p->n_cpus], &set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

/* Claims and runs tasks until the current phase has none left. */
static void work(struct pool *p, int32_t thread) {
    for (;;) {
        uint64_t claim = atomic_load_explicit(&p->claim, memory_order_relaxed);
        if ((claim & TASK_MASK) >= ((claim >> TASK_BITS) & TASK_MASK))
            return;
        claim = atomic_fetch_add_explicit(&p->claim, 1, memory_order_acq_rel);
        uint32_t next = (uint32_t)(claim & TASK_MASK);
        if (next >= ((claim >> TASK_BITS) & TASK_MASK))
            return;
        const struct phase *phase = &p->phases[(claim >> (2 * TASK_BITS)) & 1];
        phase->task(phase->context, (int32_t)next, thread);
        atomic_fetch_add_explicit(&p->n_done, 1, memory_order_release);
    }
}

static bool has_tasks(struct pool *p) {
    uint64_t claim = atomic_load_explicit(&p->claim, memory_order_acquire);
    return (claim & TASK_MASK) < ((claim >> TASK_BITS) & TASK_MASK);
}

/* Returns when there may be tasks, or the pool closes. */
static void wait_for_phase(struct pool *p, uint32_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (has_tasks(p) ||
            atomic_load_explicit(&p->wake, memory_order_acquire) != seen)
            return;
        relax();
    }
    atomic_fetch_add(&p->n_parked, 1);
    /* A phase posted since `seen` was read has changed wake: the kernel then returns. */
    syscall(SYS_futex, &p->wake, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&p->n_parked, 1);
}

static void *worker_main(void *argument) {
    struct worker *w = argument;
    struct pool *p = w->pool;
    pin(p, w->index);
    while (!atomic_load(&p->is_closing)) {
        uint32_t seen = atomic_load_explicit(&p->wake, memory_order_acquire);
        work(p, w->index);
        if (!has_tasks(p) && !atomic_load(&p->is_closing))
            wait_for_phase(p, seen);
    }
    return NULL;
}

static void post(struct pool *p) {
    atomic_fetch_add(&p->wake, 1);
    if (atomic_load(&p->n_parked) > 0)
        syscall(SYS_futex, &p->wake, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pool_run(struct pool *p, pool_task *task, void *context, int32_t n_tasks) {
    if (p->cpus &&
        !(p->has_caller && pthread_equal(p->pinned_caller, pthread_self()))) {
        pin(p, 0);
        p->pinned_caller = pthread_self();
        p->has_caller = true;
    }
    if (p->n_threads == 1 || n_tasks == 1) {
        for (int32_t i = 0; i < n_tasks; i++)
            task(context, i, 0);
        return;
    }
    p->phase++;
    p->phases[p->phase & 1] = (struct phase){task, context};
    atomic_store_explicit(&p->n_done, 0, memory_order_relaxed);
    atomic_store_explicit(&p->claim,
                          ((uint64_t)p->phase << (2 * TASK_BITS)) |
                              ((uint64_t)(uint32_t)n_tasks << TASK_BITS),
                          memory_order_release);
    post(p);
    work(p, 0);
    int spins = 0;
    while (atomic_load_explicit(&p->n_done, memory_order_acquire) < (uint32_t)n_tasks)
        if (++spins < SPINS_BEFORE_YIELD)
            relax();
        else
            sched_yield();
}

int32_t pool_n_threads(const struct pool *p) {
    return p->n_threads;
}

void pool_close(struct pool *p) {
    if (!p)
        return;
    atomic_store(&p->is_closing, true);
    post(p);
    for (int32_t i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    free(p->workers);
    free(p->cpus);
    free(p);
}

static enum status pool_start(struct pool *p, struct error *err) {
    for (int32_t i = 0; i < p->n_threads - 1; i++) {
        p->workers[i] = (struct worker){.pool = p, .index = i + 1};
        int code =
            pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (code != 0)
            return error_set(err, STATUS_IO, "cannot start compute thread %d of %d: %s",
                             i + 2, p->n_threads, strerror(code));
        p->n_started++;
    }
    return STATUS_OK;
}

enum status pool_open(int32_t n_threads, const int32_t *cpus, int32_t n_cpus,
                      struct pool **out, struct error *err) {
    struct pool *p = aligned_alloc(_Alignof(struct pool), sizeof *p);
    if (!p)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the thread pool");
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    p->workers = calloc((size_t)n_threads, sizeof *p->workers);
    if (cpus && n_cpus > 0) {
        p->n_cpus = n_cpus;
        p->cpus = calloc((size_t)n_cpus, sizeof *p->cpus);
        if (p->cpus)
            memcpy(p->cpus, cpus, (size_t)n_cpus * sizeof *cpus);
    }
    enum status status = STATUS_OK;
    if (!p->workers || (cpus && n_cpus > 0 && !p->cpus))
        status = error_set(err, STATUS_NO_MEMORY, "no memory for the thread pool");
    if (status == STATUS_OK)
        status = pool_start(p, err);
    if (status != STATUS_OK) {
        pool_close(p);
        return status;
    }
    *out = p;
    return STATUS_OK;
}

/* The cgroup's CPU quota in whole processors, rounded up; 0: none. */
static int32_t cgroup_quota(void) {
    long long quota = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (f) {
        if (fscanf(f, "%lld %lld", &quota, &period) != 2)
            quota = -1;
        fclose(f);
    }
    if (quota <= 0 || period <= 0)
        return 0;
    return (int32_t)((quota + period - 1) / period);
}

int32_t pool_n_processors(void) {
    cpu_set_t set;
    int32_t n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    int32_t quota = cgroup_quota();
    return quota > 0 && quota < n ? quota : n;
}
