/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.c - the two clocks, and a date without the C library's time zones and locks.
 */
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define SECONDS_PER_DAY INT64_C(86400)
#define LAST_SECOND INT64_C(253402300799) /* 9999-12-31T23:59:59Z */

static int64_t read_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t); /* cannot fail for these ids */
    return (int64_t)t.tv_sec * CLOCK_NS_PER_SECOND + t.tv_nsec;
}

int64_t clock_now_ns(void) {
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_wall_ns(void) {
    return read_clock(CLOCK_REALTIME);
}

/* Days since 1970-01-01 to a date of the Gregorian calendar. A year begins in March here,
 * so that the leap day is its last one (H. Hinnant, "chrono-compatible date algorithms"). */
static void date_of_day(int64_t day, int64_t *year, int64_t *month,
                        int64_t *day_of_month) {
    int64_t shifted = day + 719468; /* days since 0000-03-01 */
    int64_t era = shifted / 146097; /* of 400 years */
    int64_t in_era = shifted % 146097;
    int64_t year_of_era =
        (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year =
        in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t from_march = (5 * in_year + 2) / 153;
    *day_of_month = in_year - (153 * from_march + 2) / 5 + 1;
    *month = from_march < 10 ? from_march + 3 : from_march - 9;
    *year = era * 400 + year_of_era + (*month <= 2);
}

void clock_format_utc(int64_t wall_ns, char out[CLOCK_UTC_BYTES]) {
    int64_t ms = wall_ns < 0 ? 0 : wall_ns / 1000000;
    int64_t second = ms / 1000;
    if (second > LAST_SECOND)
        second = LAST_SECOND;
    int64_t year, month, day;
    int64_t of_day = second % SECONDS_PER_DAY;
    date_of_day(second / SECONDS_PER_DAY, &year, &month, &day);
    snprintf(out, CLOCK_UTC_BYTES,
             "%04" PRId64 "-%02" PRId64 "-%02" PRId64 "T%02" PRId64 ":%02" PRId64
             ":%02" PRId64 ".%03" PRId64 "Z",
             year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60, ms % 1000);
}
