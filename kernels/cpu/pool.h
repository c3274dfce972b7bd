/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.h - the threads that compute: persistent, spinning for a moment, then parked.
 *
 * Work comes in phases of many small tasks that any thread may claim, so a thread whose core
 * is taken away delays one task and not its share. Between phases of a forward pass
 * (microseconds) the threads spin; between batches they sleep in the kernel.
 *
 * Threads:    pool_run is called by one thread at a time, which computes too.
 * Call order: open run* close
 */
#ifndef VIGIL_KERNELS_CPU_POOL_H
#define VIGIL_KERNELS_CPU_POOL_H

#include <stdint.h>

#include "base/status.h"

struct pool;

/* task is in [0, n_tasks); thread is in [0, n_threads): whose scratch to use. */
typedef void pool_task(void *context, int32_t task, int32_t thread);

#define POOL_MAX_TASKS 1000000

/* n_threads >= 1, the caller's included; n_threads - 1 are started. cpus[i % n_cpus] pins
 * thread i (cpus NULL: no pinning; a caller is pinned when it first calls pool_run). */
enum status pool_open(int32_t n_threads, const int32_t *cpus, int32_t n_cpus,
                      struct pool **out, struct error *err);
/* Runs every task once and returns when all are done. n_tasks <= POOL_MAX_TASKS. */
void pool_run(struct pool *p, pool_task *task, void *context, int32_t n_tasks);
int32_t pool_n_threads(const struct pool *p);
void pool_close(struct pool *p);

/* Processors that this process may run on: affinity mask and cgroup quota considered. */
int32_t pool_n_processors(void);

#endif
