/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpus.h"

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static void own_cpus(cpu_set_t *set) {
    CPU_ZERO(set);
    if (sched_getaffinity(0, sizeof *set, set) != 0)
        CPU_SET(0, set);
}

int32_t cpus_count(void) {
    cpu_set_t set;
    own_cpus(&set);
    return (int32_t)CPU_COUNT(&set);
}

/* Reads digits; -1 when there are none, or too many. */
static long read_number(const char **at) {
    char *end = NULL;
    if (!isdigit((unsigned char)**at))
        return -1;
    long value = strtol(*at, &end, 10);
    *at = end;
    return value < CPUS_MAX ? value : -1;
}

enum status cpus_parse(const char *list, int32_t cpus[CPUS_MAX], int32_t *n_cpus,
                       struct error *err) {
    cpu_set_t own;
    const char *at = list;
    own_cpus(&own);
    *n_cpus = 0;
    for (;;) {
        long first = read_number(&at), last = first;
        if (first >= 0 && *at == '-') {
            at++;
            last = read_number(&at);
        }
        if (first < 0 || last < first || (*at && *at != ','))
            return error_set(err, STATUS_INVALID,
                             "--cpus: expected a list such as 0,2-3, found \"%s\"",
                             list);
        for (long cpu = first; cpu <= last; cpu++) {
            if (!CPU_ISSET((size_t)cpu, &own))
                return error_set(err, STATUS_INVALID,
                                 "--cpus: this process may not run on processor %ld",
                                 cpu);
            if (*n_cpus < CPUS_MAX)
                cpus[(*n_cpus)++] = (int32_t)cpu;
        }
        if (!*at)
            return STATUS_OK;
        at++;
    }
}

enum status cpus_keep(const int32_t *cpus, int32_t n_cpus, struct error *err) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int32_t i = 0; i < n_cpus; i++)
        CPU_SET((size_t)cpus[i], &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        return error_set(err, STATUS_IO, "--cpus: %s", strerror(errno));
    return STATUS_OK;
}

void cpus_leave(const int32_t *cpus, int32_t n_cpus) {
    cpu_set_t set;
    own_cpus(&set);
    for (int32_t i = 0; i < n_cpus; i++)
        CPU_CLR((size_t)cpus[i], &set);
    if (CPU_COUNT(&set) > 0)
        (void)sched_setaffinity(0, sizeof set, &set);
}
