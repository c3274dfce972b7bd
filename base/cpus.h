/* SPDX-License-Identifier: Apache-2.0
 *
 * cpus.h - which processors do what, so that a server and its load, or the engine and all
 * else, do not take each other's.
 */
#ifndef VIGIL_BASE_CPUS_H
#define VIGIL_BASE_CPUS_H

#include <stdint.h>

#include "base/status.h"

#define CPUS_MAX 1024

/* Reads a list such as "0,2-3" into cpus [*n_cpus <= CPUS_MAX]. STATUS_INVALID when it is no
 * list, or names a processor that this process may not run on. */
enum status cpus_parse(const char *list, int32_t cpus[CPUS_MAX], int32_t *n_cpus,
                       struct error *err);
/* Moves the calling thread, and those that it starts, off these processors, if that leaves
 * any. */
void cpus_leave(const int32_t *cpus, int32_t n_cpus);
/* Holds the calling thread, and those that it starts, to these. */
enum status cpus_keep(const int32_t *cpus, int32_t n_cpus, struct error *err);
/* How many this process may run on. */
int32_t cpus_count(void);

#endif
