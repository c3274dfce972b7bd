/* SPDX-License-Identifier: Apache-2.0
 *
 * block.cc - runs the threads of one block, by turns, from barrier to barrier.
 *
 * A thread runs until it comes to a barrier or a collective, or ends; then the next that is
 * ready goes on: of the same warp first, then of the next warp, in the order that the
 * settings say. The last to arrive frees those who wait and takes its turn with them. A
 * thread that never waits costs a call: its fiber goes on with the next thread.
 * Threads that have ended count as arrived at a block's barrier, as they have on devices
 * since Volta; a collective that waits for one fails.
 */
#include "tests/cuda/emulation/block.h"

#include <stdio.h>
#include <string.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

struct block block;
struct cuda_thread *running;

/* ---- order -------------------------------------------------------------------------- */

static enum emulation_order order;
static uint64_t random_state = 1;

void order_begin(const struct settings *settings, uint64_t number) {
    order = settings->order;
    random_state = (settings->seed + 1) * 0x9e3779b97f4a7c15u ^ (number << 20);
    if (random_state == 0)
        random_state = 1;
}

UNCHECKED uint64_t order_random() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* One of the bits that are set. */
UNCHECKED static int pick_bit(unsigned bits) {
    if (order == EMULATION_FORWARD)
        return __builtin_ctz(bits);
    if (order == EMULATION_REVERSE)
        return 31 - __builtin_clz(bits);
    unsigned shift = (unsigned)(order_random() >> 40) & 31;
    unsigned turned = bits >> shift | bits << ((32 - shift) & 31);
    return (int)((unsigned)__builtin_ctz(turned) + shift) & 31;
}

/* ---- failures ----------------------------------------------------------------------- */

const char *op_name(enum emulation_op op) {
    static const char *const names[] = {
        "__syncwarp",
        "__shfl_sync",
        "__shfl_xor_sync",
        "__shfl_up_sync",
        "__shfl_down_sync",
        "a warp's vote",
        "ldmatrix",
        "ldmatrix.trans",
        "mma.m16n8k16",
        "wmma::load_matrix_sync",
        "wmma::store_matrix_sync",
        "wmma::mma_sync",
    };
    return names[op];
}

static void describe(const struct cuda_thread *t, char *text, size_t text_bytes) {
    char place[300] = "";
    if (t->file)
        snprintf(place, sizeof place, " at %s:%d", t->file, t->line);
    int x = (int)t->index.x, y = (int)t->index.y, z = (int)t->index.z;
    if (t->state == cuda_thread::AT_BARRIER)
        snprintf(text, text_bytes, "thread (%d,%d,%d) waits in __syncthreads%s", x, y,
                 z, place);
    else if (t->state == cuda_thread::AT_COLLECTIVE)
        snprintf(text, text_bytes, "thread (%d,%d,%d) waits in %s mask 0x%08x%s", x, y,
                 z, op_name(t->op), t->mask, place);
    else
        snprintf(text, text_bytes, "thread (%d,%d,%d) has ended", x, y, z);
}

/* Nobody can go on. Names a thread of each kind. */
[[noreturn]] static void fail_deadlock() {
    char text[3][400];
    const struct cuda_thread *said[3];
    int n = 0;
    for (int i = 0; i < block.n_threads && n < 3; i++) {
        const struct cuda_thread *t = &block.threads[i];
        bool is_new = true;
        for (int j = 0; j < n; j++)
            if (said[j]->state == t->state &&
                (t->state == cuda_thread::DONE ||
                 (said[j]->line == t->line && said[j]->op == t->op)))
                is_new = false;
        if (!is_new)
            continue;
        said[n] = t;
        describe(t, text[n++], sizeof text[0]);
    }
    running = nullptr;
    emulation_fail("deadlock, divergent threads: %s%s%s%s%s", text[0],
                   n > 1 ? "; " : "", n > 1 ? text[1] : "", n > 2 ? "; " : "",
                   n > 2 ? text[2] : "");
}

/* ---- turns -------------------------------------------------------------------------- */

UNCHECKED static inline void make_ready(int warp, unsigned lanes) {
    block.warps[warp].ready |= lanes;
    block.ready_warps |= 1u << warp;
}

/* Takes the next thread from those that are ready. NULL: none is. */
UNCHECKED static struct cuda_thread *take_next() {
    int warp = block.current_warp;
    if (block.ready_warps == 0)
        return nullptr;
    /* Random order changes warps in between; the others stay with one while they can. */
    bool stays = warp >= 0 && block.ready_warps >> warp & 1 &&
                 (order != EMULATION_RANDOM || order_random() >> 61 != 0);
    if (!stays)
        block.current_warp = warp = pick_bit(block.ready_warps);
    struct warp *w = &block.warps[warp];
    int lane = pick_bit(w->ready);
    w->ready &= ~(1u << lane);
    if (w->ready == 0)
        block.ready_warps &= ~(1u << warp);
    return &block.threads[warp * LANES + lane];
}

UNCHECKED static void free_barrier() {
    for (int i = 0; i < block.n_threads; i++)
        if (block.threads[i].state == cuda_thread::AT_BARRIER) {
            block.threads[i].state = cuda_thread::READY;
            make_ready(i / LANES, 1u << i % LANES);
        }
    block.n_at_barrier = 0;
    block.current_warp = -1;
}

/* The running thread has ended. */
UNCHECKED static void end_thread() {
    int index = running_index(), lane = index % LANES;
    struct warp *w = &block.warps[index / LANES];
    if (copies_begun[index])
        emulation_fail("the thread ends with %d copies never waited for",
                       copies_begun[index]);
    copies_grouped[index] = 0;
    for (int i = 0; i < w->n_meetings; i++)
        if (w->meetings[i].mask >> lane & 1)
            emulation_fail("lane %d ends, but others of its warp wait for it in %s "
                           "mask 0x%08x at %s:%d",
                           lane, op_name(w->meetings[i].op), w->meetings[i].mask,
                           w->meetings[i].file ? w->meetings[i].file : "?",
                           w->meetings[i].line);
    running->state = cuda_thread::DONE;
    running->file = nullptr;
    w->done |= 1u << lane;
    block.n_done++;
    if (block.n_at_barrier && block.n_at_barrier + block.n_done == block.n_threads)
        free_barrier();
}

UNCHECKED static inline void set_running(struct cuda_thread *thread) {
    running = thread;
    threadIdx = thread->index;
}

/* A fiber: runs threads to their ends, one after another. */
UNCHECKED static void fiber_main() {
    fiber_begin();
    for (;;) {
        struct fiber *self = running->fiber;
        block.launch->body();
        end_thread();
        struct cuda_thread *next = take_next();
        if (next && !next->fiber) {
            next->fiber = self;
            set_running(next);
            continue;
        }
        if (!next && block.n_done < block.n_threads)
            fail_deadlock();
        fiber_give(self);
        if (next)
            set_running(next);
        fiber_switch(self, next ? next->fiber : &block.host, true);
    }
}

/* The running thread waits; others go on. */
UNCHECKED static void leave_off() {
    struct cuda_thread *self = running, *next = take_next();
    if (!next)
        fail_deadlock();
    if (next == self)
        return;
    if (!next->fiber)
        next->fiber = fiber_take(fiber_main);
    set_running(next);
    fiber_switch(self->fiber, next->fiber, false);
}

/* ---- barriers, collectives ---------------------------------------------------------- */

UNCHECKED static inline bool is_same(const char *file, const char *other) {
    return file == other || (file && other && strcmp(file, other) == 0);
}

UNCHECKED void emulation_syncthreads(const char *file, int line) {
    if (block.n_at_barrier == 0) {
        block.barrier_file = file;
        block.barrier_line = line;
    } else if (line != block.barrier_line || !is_same(file, block.barrier_file)) {
        emulation_fail("divergent barrier: %d of %d threads wait in __syncthreads at "
                       "%s:%d, this one comes to %s:%d",
                       block.n_at_barrier, block.n_threads, block.barrier_file,
                       block.barrier_line, file, line);
    }
    running->state = cuda_thread::AT_BARRIER;
    running->file = file;
    running->line = line;
    block.n_at_barrier++;
    if (block.n_at_barrier + block.n_done == block.n_threads)
        free_barrier();
    leave_off();
}

/* The meeting that a lane with this mask joins. */
UNCHECKED static struct meeting *meeting_join(struct warp *w, int lane,
                                              enum emulation_op op, unsigned mask,
                                              const char *file, int line) {
    for (int i = 0; i < w->n_meetings; i++) {
        struct meeting *m = &w->meetings[i];
        if (m->mask != mask)
            continue;
        if (m->op != op ||
            (op != EMULATION_SYNCWARP && (m->line != line || !is_same(m->file, file))))
            emulation_fail("divergent warp: lanes 0x%08x wait in %s at %s:%d, lane %d "
                           "comes to %s at %s:%d",
                           m->arrived, op_name(m->op), m->file ? m->file : "?", m->line,
                           lane, op_name(op), file ? file : "?", line);
        return m;
    }
    if (!(mask >> lane & 1))
        emulation_fail("%s with mask 0x%08x on lane %d, which it does not name",
                       op_name(op), mask, lane);
    if (mask & ~w->exists)
        emulation_fail("%s with mask 0x%08x, but the warp has lanes 0x%08x only",
                       op_name(op), mask, w->exists);
    if (mask & w->done)
        emulation_fail("%s with mask 0x%08x, but lanes 0x%08x have ended", op_name(op),
                       mask, mask & w->done);
    if (w->n_meetings == MAX_MEETINGS)
        emulation_fail("%d collectives of one warp at once", MAX_MEETINGS + 1);
    struct meeting *m = &w->meetings[w->n_meetings++];
    *m = {op, mask, 0, file, line};
    return m;
}

UNCHECKED void
emulation_collective(enum emulation_op op, unsigned mask, void *arguments,
                     void (*compute)(void *const *arguments, unsigned mask),
                     const char *file, int line) {
    int index = running_index(), lane = index % LANES;
    struct warp *w = &block.warps[index / LANES];
    struct meeting *m = meeting_join(w, lane, op, mask, file, line);
    running->state = cuda_thread::AT_COLLECTIVE;
    running->op = op;
    running->mask = mask;
    running->file = file;
    running->line = line;
    w->arguments[lane] = arguments;
    m->arrived |= 1u << lane;
    if (m->arrived == mask) {
        *m = w->meetings[--w->n_meetings];
        if (compute)
            compute(w->arguments, mask);
        make_ready(index / LANES, mask);
    }
    leave_off();
}

UNCHECKED int emulation_lane() {
    return running_index() % LANES;
}

void *emulation_shared_memory() {
    return block.shared;
}

[[noreturn]] void emulation_trap() {
    emulation_fail("__trap()");
}

/* ---- the block ---------------------------------------------------------------------- */

void emulation_where(char *text, size_t text_bytes) {
    const struct launch *l = block.launch;
    text[0] = '\0';
    if (!l)
        return;
    char name[200], thread[64] = "";
    emulation_symbol(l->kernel, name, sizeof name);
    if (running)
        snprintf(thread, sizeof thread, " thread (%u,%u,%u)", threadIdx.x, threadIdx.y,
                 threadIdx.z);
    snprintf(text, text_bytes,
             "launch %llu of %s, grid (%u,%u,%u) of (%u,%u,%u), block (%u,%u,%u)%s: ",
             (unsigned long long)block.number, name, l->grid.x, l->grid.y, l->grid.z,
             l->block.x, l->block.y, l->block.z, blockIdx.x, blockIdx.y, blockIdx.z,
             thread);
}

UNCHECKED void block_prepare() {
    dim3 size = block.launch->block;
    block.n_threads = (int)(size.x * size.y * size.z);
    block.n_warps = (block.n_threads + LANES - 1) / LANES;
    struct cuda_thread *thread = block.threads;
    for (unsigned z = 0; z < size.z; z++)
        for (unsigned y = 0; y < size.y; y++)
            for (unsigned x = 0; x < size.x; x++)
                (thread++)->index = {x, y, z};
}

UNCHECKED void block_run(dim3 index) {
    blockIdx = {index.x, index.y, index.z};
    block.n_done = block.n_at_barrier = 0;
    block.ready_warps = 0;
    block.current_warp = -1;
    for (int i = 0; i < block.n_warps; i++) {
        int n_lanes = block.n_threads - i * LANES;
        struct warp *w = &block.warps[i];
        w->exists = n_lanes >= LANES ? ~0u : (1u << n_lanes) - 1;
        w->done = 0;
        w->n_meetings = 0;
        w->ready = 0;
        make_ready(i, w->exists);
    }
    for (int i = 0; i < block.n_threads; i++) {
        block.threads[i].fiber = nullptr;
        block.threads[i].state = cuda_thread::READY;
    }
    struct cuda_thread *first = take_next();
    first->fiber = fiber_take(fiber_main);
    set_running(first);
    fiber_switch(&block.host, first->fiber, false);
    running = nullptr;
}
