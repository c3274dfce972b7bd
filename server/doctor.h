/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor.h - what `vigil doctor` looks at. Each check reports one finding or more.
 *
 * Threads: one.
 */
#ifndef VIGIL_SERVER_DOCTOR_H
#define VIGIL_SERVER_DOCTOR_H

#include <stdint.h>

enum finding { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct doctor {
    const char *root; /* before /proc and /sys: "" but in tests */
    const char *model;
    const char *store, *queue; /* NULL: not looked at */
    int64_t port;
    int64_t n_threads; /* 0: the engine's own choice */
    /* what: one word or two. detail: what was found. advice: what to do; NULL when there is
     * nothing to do. */
    void (*report)(struct doctor *d, enum finding finding, const char *what,
                   const char *detail, const char *advice);
    void *context;
};

void doctor_check_processor(struct doctor *d);
void doctor_check_threads(struct doctor *d);
void doctor_check_memory(struct doctor *d);
void doctor_check_huge_pages(struct doctor *d);
void doctor_check_frequency(struct doctor *d);
void doctor_check_clock(struct doctor *d);
void doctor_check_files(struct doctor *d); /* the limit on open files */
void doctor_check_port(struct doctor *d);
void doctor_check_gpus(struct doctor *d); /* and the library for them */
void doctor_check_libraries(struct doctor *d);
void doctor_check_programs(struct doctor *d);
void doctor_check_model(struct doctor *d); /* and its answers, on every engine */
void doctor_check_store(struct doctor *d); /* and the work in it, and the audit */
void doctor_check_queue(struct doctor *d);

#endif
