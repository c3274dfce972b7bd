/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/affinity.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static enum status take_range(const char **at, cpu_set_t *set) {
    char *end;
    if (**at < '0' || **at > '9')
        return STATUS_INVALID;
    long first = strtol(*at, &end, 10), last = first;
    if (*end == '-') {
        if (end[1] < '0' || end[1] > '9')
            return STATUS_INVALID;
        last = strtol(end + 1, &end, 10);
    }
    if (first > last || last >= CPU_SETSIZE)
        return STATUS_INVALID;
    for (; first <= last; first++)
        CPU_SET((size_t)first, set);
    *at = end;
    return STATUS_OK;
}

enum status affinity_set(const char *list, struct error *err) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const char *at = list;; at++) {
        if (take_range(&at, &set) || (*at && *at != ','))
            return error_set(err, STATUS_INVALID,
                             "expected processors as 0,2-3, found \"%.40s\"", list);
        if (!*at)
            break;
    }
    if (sched_setaffinity(0, sizeof set, &set))
        return error_set(err, STATUS_IO, "cannot run on the processors %.40s: %s", list,
                         strerror(errno));
    return STATUS_OK;
}
