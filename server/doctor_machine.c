/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_machine.c - the machine, as far as it makes Vigil slow or keeps it from starting.
 */
#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cpu/isa.h"
#include "server/doctor.h"

#define DETAIL_BYTES 256
#define MEBIBYTE 1048576.0
/* The default model, its scratch and the server's buffers. */
#define NEEDED_BYTES (INT64_C(128) << 20)

/* The first bytes of a file of /proc or /sys, without the last end of line. */
static bool read_text(const struct doctor *d, const char *path, char *out,
                      size_t cap_bytes) {
    char full[512];
    int n = snprintf(full, sizeof full, "%s%s", d->root, path);
    if (n < 0 || (size_t)n >= sizeof full)
        return false;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    size_t at = 0;
    ssize_t got;
    while (at < cap_bytes - 1 && (got = read(fd, out + at, cap_bytes - 1 - at)) > 0)
        at += (size_t)got;
    close(fd);
    while (at && out[at - 1] == '\n')
        at--;
    out[at] = '\0';
    return at > 0;
}

/* The number behind `name:` in a file of such lines; -1: none. */
static int64_t number_behind(const char *text, const char *name) {
    const char *at = strstr(text, name);
    if (!at)
        return -1;
    at += strlen(name);
    while (*at == ':' || isspace((unsigned char)*at))
        at++;
    return isdigit((unsigned char)*at) ? strtoll(at, NULL, 10) : -1;
}

static int64_t read_number(const struct doctor *d, const char *path) {
    char text[64];
    if (!read_text(d, path, text, sizeof text) || !isdigit((unsigned char)text[0]))
        return -1;
    return strtoll(text, NULL, 10);
}

void doctor_check_processor(struct doctor *d) {
    char info[4096], name[96] = "unknown", detail[DETAIL_BYTES], list[128];
    if (read_text(d, "/proc/cpuinfo", info, sizeof info)) {
        const char *at = strstr(info, "model name");
        const char *colon = at ? strchr(at, ':') : NULL;
        if (colon)
            snprintf(name, sizeof name, "%.*s", (int)strcspn(colon + 2, "\n"),
                     colon + 2);
    }
    const struct cpu_gemm *int8 = isa_gemm("auto", "int8");
    const struct cpu_gemm *fp32 = isa_gemm("auto", "fp32");
    isa_list("int8", list, sizeof list);
    snprintf(detail, sizeof detail, "%s; int8 on %s, fp32 on %s (int8 has: %s)", name,
             int8->isa, fp32->isa, list);
    if (strcmp(int8->isa, "portable") == 0)
        d->report(d, FINDING_WARN, "processor", detail,
                  "answers are right but slow: use a machine with AVX2 or AVX-512, or "
                  "let the virtual machine see the host's processor");
    else
        d->report(d, FINDING_OK, "processor", detail, NULL);
}

/* Processors that a cgroup allows, version 2 or 1; 0: as many as there are. */
static double cgroup_processors(const struct doctor *d, const char **path) {
    char text[64], *end;
    int64_t quota, period;
    *path = "/sys/fs/cgroup/cpu.max"; /* "50000 100000" or "max 100000" */
    if (read_text(d, *path, text, sizeof text) && isdigit((unsigned char)text[0])) {
        quota = strtoll(text, &end, 10);
        period = strtoll(end, NULL, 10);
        return quota > 0 && period > 0 ? (double)quota / (double)period : 0;
    }
    *path = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    quota = read_number(d, *path);
    period = read_number(d, "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    return quota > 0 && period > 0 ? (double)quota / (double)period : 0;
}

void doctor_check_threads(struct doctor *d) {
    char detail[DETAIL_BYTES], limit[96] = "", advice[128];
    const char *path;
    cpu_set_t set;
    int n_cores = (int)sysconf(_SC_NPROCESSORS_ONLN), n_allowed = n_cores;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n_allowed = CPU_COUNT(&set);
    double quota = cgroup_processors(d, &path), usable = n_allowed;
    if (quota > 0) {
        snprintf(limit, sizeof limit, ", of which %s allows %.1f", path, quota);
        usable = quota < usable ? quota : usable;
    }
    int n_fit = usable < 1 ? 1 : (int)(usable + 0.999);
    int n_threads = d->n_threads ? (int)d->n_threads : n_fit;
    snprintf(detail, sizeof detail,
             "%d processors, %d for this process%s; %d to compute with", n_cores,
             n_allowed, limit, n_threads);
    if (n_threads > n_fit) {
        snprintf(advice, sizeof advice, "set --threads %d: more wait for each other",
                 n_fit);
        d->report(d, FINDING_WARN, "threads", detail, advice);
    } else if (quota > 0 && quota < n_allowed && !strstr(path, "cpu.max")) {
        /* The engine reads the limits of version 2 alone. */
        snprintf(advice, sizeof advice,
                 "set --threads %d: a limit of cgroup version 1 is not seen by itself",
                 n_fit);
        d->report(d, d->n_threads ? FINDING_OK : FINDING_WARN, "threads", detail,
                  d->n_threads ? NULL : advice);
    } else {
        d->report(d, FINDING_OK, "threads", detail, NULL);
    }
}

void doctor_check_memory(struct doctor *d) {
    char text[4096], detail[DETAIL_BYTES];
    int64_t total = -1, available = -1;
    if (read_text(d, "/proc/meminfo", text, sizeof text)) {
        total = number_behind(text, "MemTotal") * 1024;
        available = number_behind(text, "MemAvailable") * 1024;
    }
    if (total < 0 || available < 0) {
        d->report(d, FINDING_OK, "memory", "not known: /proc/meminfo says nothing",
                  NULL);
        return;
    }
    int64_t limit = read_number(d, "/sys/fs/cgroup/memory.max");
    if (limit < 0)
        limit = read_number(d, "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    bool is_limited = limit >= 0 && limit < total;
    if (is_limited)
        snprintf(detail, sizeof detail,
                 "%.0f MiB, %.0f available, this process may have %.0f",
                 (double)total / MEBIBYTE, (double)available / MEBIBYTE,
                 (double)limit / MEBIBYTE);
    else
        snprintf(detail, sizeof detail, "%.0f MiB, %.0f available",
                 (double)total / MEBIBYTE, (double)available / MEBIBYTE);
    int64_t usable = is_limited && limit < available ? limit : available;
    if (usable < NEEDED_BYTES)
        d->report(d, FINDING_FAIL, "memory", detail,
                  "the default model and a server need about 128 MiB: raise the limit "
                  "or end other programs");
    else if (usable < 2 * NEEDED_BYTES)
        d->report(d, FINDING_WARN, "memory", detail,
                  "that is little: lower --memory of vigil serve");
    else
        d->report(d, FINDING_OK, "memory", detail, NULL);
}

void doctor_check_huge_pages(struct doctor *d) {
    char text[128];
    if (!read_text(d, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text))
        d->report(d, FINDING_OK, "huge pages", "this kernel says nothing of them",
                  NULL);
    else if (strstr(text, "[never]"))
        d->report(d, FINDING_WARN, "huge pages", text,
                  "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: large "
                  "models then compute some percent faster");
    else
        d->report(d, FINDING_OK, "huge pages", text, NULL);
}

void doctor_check_frequency(struct doctor *d) {
    char governor[64], driver[64], detail[DETAIL_BYTES];
    if (!read_text(d, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", governor,
                   sizeof governor)) {
        d->report(d, FINDING_OK, "frequency", "not ours to set (a virtual machine?)",
                  NULL);
        return;
    }
    if (!read_text(d, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", driver,
                   sizeof driver))
        snprintf(driver, sizeof driver, "unknown driver");
    snprintf(detail, sizeof detail, "governor %s (%s)", governor, driver);
    /* The pstate drivers' powersave goes up to the full frequency under load. */
    bool is_slow = strcmp(governor, "powersave") == 0 && !strstr(driver, "pstate");
    bool is_late =
        strcmp(governor, "ondemand") == 0 || strcmp(governor, "conservative") == 0;
    if (is_slow || is_late)
        d->report(d, FINDING_WARN, "frequency", detail,
                  "set the governor to performance (cpupower frequency-set -g "
                  "performance): single posts come back sooner");
    else
        d->report(d, FINDING_OK, "frequency", detail, NULL);
}

void doctor_check_clock(struct doctor *d) {
    char text[64];
    if (!read_text(d,
                   "/sys/devices/system/clocksource/clocksource0/current_clocksource",
                   text, sizeof text))
        d->report(d, FINDING_OK, "clock", "this kernel does not say which", NULL);
    else if (strcmp(text, "hpet") == 0 || strcmp(text, "acpi_pm") == 0)
        d->report(d, FINDING_WARN, "clock", text,
                  "each look at this clock is a system call: see why the kernel gave "
                  "up the tsc (dmesg)");
    else
        d->report(d, FINDING_OK, "clock", text, NULL);
}
