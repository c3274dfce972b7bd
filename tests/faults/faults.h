/* SPDX-License-Identifier: Apache-2.0
 *
 * faults.h - allocations that fail when the test says so.
 *
 * The linker sends every call of malloc, calloc, realloc, posix_memalign and strdup in our
 * objects through faults.c (-Wl,--wrap). Armed, the k-th of them fails, once or from then
 * on. One thread arms; calls of all threads count.
 */
#ifndef VIGIL_TESTS_FAULTS_H
#define VIGIL_TESTS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

/* Fails the k-th allocation from now on (1: the next); for_ever: and all behind it. */
void faults_arm(size_t k, bool for_ever);
/* Lets everything succeed again. Returns how many allocations failed since faults_arm. */
size_t faults_disarm(void);

#endif
