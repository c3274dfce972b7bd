/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.h - time to measure with, and time to write down.
 */
#ifndef VIGIL_BASE_CLOCK_H
#define VIGIL_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_NS_PER_SECOND INT64_C(1000000000)
#define CLOCK_UTC_BYTES 40

/* Nanoseconds since some moment before the start: never goes back, stops for nothing.
 * For durations and deadlines. */
int64_t clock_now_ns(void);

/* Nanoseconds since 1970-01-01 UTC, as far as the machine knows. For people. */
int64_t clock_wall_ns(void);

/* "2026-11-23T15:20:07.042Z"; times before 1970 and after 9999 are shown as those ends. */
void clock_format_utc(int64_t wall_ns, char out[CLOCK_UTC_BYTES]);

#endif
