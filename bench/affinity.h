/* SPDX-License-Identifier: Apache-2.0
 *
 * affinity.h - holds the process to some processors, so that a server and its load, or two
 * engines, do not take each other's.
 */
#ifndef VIGIL_BENCH_AFFINITY_H
#define VIGIL_BENCH_AFFINITY_H

#include "base/status.h"

/* list is "0,2-3", as taskset -c has it. Threads that are started later inherit it. */
enum status affinity_set(const char *list, struct error *err);

#endif
