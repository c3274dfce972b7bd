/* SPDX-License-Identifier: Apache-2.0
 *
 * block.h - the block that runs: its warps, its threads, what they wait for.
 */
#ifndef VIGIL_EMULATION_BLOCK_H
#define VIGIL_EMULATION_BLOCK_H

#include <stdint.h>

#include "tests/cuda/emulation/cuda_runtime.h"
#include "tests/cuda/emulation/fibers.h"
#include "tests/cuda/emulation/internal.h"

/* Of a function that touches memory of the emulation alone, or memory that it has checked:
 * the sanitizers leave it out, or they would take most of the time. */
#define UNCHECKED __attribute__((no_sanitize("address", "undefined")))

enum { MAX_THREADS = 1024, LANES = 32, MAX_WARPS = MAX_THREADS / LANES };

/* A thread of the block. */
struct cuda_thread {
    uint3 index;
    struct fiber *fiber; /* from its first run to its end */
    enum { READY, AT_BARRIER, AT_COLLECTIVE, DONE } state;
    /* What it waits for: */
    enum emulation_op op;
    unsigned mask;
    const char *file;
    int line;
};

/* Lanes of one mask that have come to one collective. */
struct meeting {
    enum emulation_op op;
    unsigned mask, arrived;
    const char *file;
    int line;
};

enum { MAX_MEETINGS = 8 };

struct warp {
    unsigned exists, ready, done; /* lanes */
    int n_meetings;
    struct meeting meetings[MAX_MEETINGS];
    void *arguments[LANES]; /* of the collective that each lane waits in */
};

struct block {
    const struct launch *launch;
    int device;
    uint64_t number; /* of the launch */
    int n_threads, n_warps, n_done;
    unsigned ready_warps;
    int current_warp; /* that goes on while it can; -1: none */
    int n_at_barrier;
    const char *barrier_file;
    int barrier_line;
    void *shared;
    struct warp warps[MAX_WARPS];
    struct cuda_thread threads[MAX_THREADS];
    struct fiber host;
};

extern struct block block;          /* the one that runs */
extern struct cuda_thread *running; /* its thread; NULL: none */

/* ---- block.cc ----------------------------------------------------------------------- */

/* Before the first block of a launch. */
void block_prepare();
/* Runs one block of the launch to its end. */
void block_run(dim3 index);
/* In which order things go: position i of n. */
void order_begin(const struct settings *settings, uint64_t number);
uint64_t order_random();
const char *op_name(enum emulation_op op);

/* ---- copy_async.cc ------------------------------------------------------------------ */

/* Copies that each thread has begun and not waited for, and groups. */
extern uint16_t copies_begun[MAX_THREADS], copies_grouped[MAX_THREADS];

UNCHECKED static inline int running_index() {
    return (int)(running - block.threads);
}

#endif
