/* SPDX-License-Identifier: Apache-2.0
 *
 * record_time.c - ISO 8601 (its RFC 3339 part, loosely) to ns since 1970.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "client/sources/record.h"

#define SECONDS_PER_DAY 86400
#define MAX_YEAR 2261 /* the last whole one that ns since 1970 can tell */

struct cursor {
    const char *at, *end;
};

static bool take(struct cursor *c, const char *any_of) {
    for (; *any_of; any_of++)
        if (c->at < c->end && *c->at == *any_of) {
            c->at++;
            return true;
        }
    return false;
}

/* n digits with a value in [low, high]. */
static bool take_number(struct cursor *c, int n, int low, int high, int *out) {
    int value = 0;
    if (c->end - c->at < n)
        return false;
    for (int i = 0; i < n; i++) {
        char digit = c->at[i];
        if (digit < '0' || digit > '9')
            return false;
        value = value * 10 + (digit - '0');
    }
    c->at += n;
    *out = value;
    return value >= low && value <= high;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar: years are counted from March, so
 * that the leap day comes last. */
static int64_t days_of(int year, int month, int day) {
    int64_t y = year - (month <= 2);
    int64_t era = y / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool is_date(int year, int month, int day) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= days[month - 1] + (month == 2 && is_leap);
}

/* ".5" and ",123456789": nanoseconds; what is finer is cut. */
static bool take_fraction(struct cursor *c, int64_t *ns) {
    int64_t scale = CLOCK_NS_PER_SECOND;
    const char *from = c->at;
    for (*ns = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        scale /= 10;
        *ns += (*c->at - '0') * scale;
    }
    return c->at > from;
}

/* "Z", "+01:00", "+0100", "+01", or nothing. */
static bool take_zone(struct cursor *c, int64_t *seconds) {
    int hours, minutes = 0;
    *seconds = 0;
    if (c->at == c->end || take(c, "Zz"))
        return true;
    bool is_west = *c->at == '-';
    if (!take(c, "+-") || !take_number(c, 2, 0, 23, &hours))
        return false;
    if (c->at < c->end) {
        take(c, ":");
        if (!take_number(c, 2, 0, 59, &minutes))
            return false;
    }
    *seconds = (hours * 60 + minutes) * 60 * (is_west ? -1 : 1);
    return true;
}

int64_t record_time(struct view text) {
    if (text.n_bytes == 0)
        return 0;
    struct cursor c = {text.data, text.data + text.n_bytes};
    int year, month, day, hour = 0, minute = 0, second = 0;
    int64_t ns = 0, zone = 0;
    if (!take_number(&c, 4, 1970, MAX_YEAR, &year) || !take(&c, "-") ||
        !take_number(&c, 2, 1, 12, &month) || !take(&c, "-") ||
        !take_number(&c, 2, 1, 31, &day) || !is_date(year, month, day))
        return 0;
    if (c.at < c.end) {
        if (!take(&c, "Tt ") || !take_number(&c, 2, 0, 23, &hour) || !take(&c, ":") ||
            !take_number(&c, 2, 0, 59, &minute))
            return 0;
        if (take(&c, ":") && !take_number(&c, 2, 0, 60, &second))
            return 0;
        if (take(&c, ".,") && !take_fraction(&c, &ns))
            return 0;
        if (!take_zone(&c, &zone) || c.at != c.end)
            return 0;
    }
    int64_t seconds = days_of(year, month, day) * SECONDS_PER_DAY + hour * 3600 +
                      minute * 60 + second - zone;
    return seconds < 0 ? 0 : seconds * CLOCK_NS_PER_SECOND + ns;
}
