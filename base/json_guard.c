/* SPDX-License-Identifier: Apache-2.0
 *
 * json_guard.c - a way out of jansson when there is no memory.
 *
 * jansson 2.14 does not look at the result of every allocation: where its buffer cannot
 * grow, a byte is left out, even the quote that it later searches for, and it reads and
 * writes past the end; elsewhere it leaks. So under a guard an allocation does not fail:
 * it leaves for json_guard, which frees every block that was made meanwhile.
 */
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/memory.h"

/* In front of every block of jansson's; linked while the guard is open that it was made
 * under, else next is NULL. */
struct block {
    _Alignas(16) struct block *prev;
    struct block *next;
};

struct guard {
    jmp_buf out;
    struct block blocks; /* a ring */
};

static _Thread_local struct guard *guard;

static void *allocate(size_t n_bytes) {
    size_t padded;
    struct block *block =
        size_add(n_bytes, sizeof *block, &padded) ? malloc(padded) : NULL;
    if (!block) {
        if (guard)
            longjmp(guard->out, 1);
        return NULL;
    }
    block->prev = block->next = NULL;
    if (guard) {
        block->prev = &guard->blocks;
        block->next = guard->blocks.next;
        block->prev->next = block->next->prev = block;
    }
    return block + 1;
}

static void release(void *memory) {
    if (!memory)
        return;
    struct block *block = (struct block *)memory - 1;
    if (block->next) {
        block->prev->next = block->next;
        block->next->prev = block->prev;
    }
    free(block);
}

/* Before main: no block of jansson's may be without its header. */
__attribute__((constructor)) static void watch_jansson(void) {
    json_set_alloc_funcs(allocate, release);
}

/* Ends the guard: what was made under it stays (is_kept) or goes. */
static void leave(struct guard *g, bool is_kept) {
    guard = NULL;
    for (struct block *b = g->blocks.next, *next; b != &g->blocks; b = next) {
        next = b->next;
        b->next = NULL;
        if (!is_kept)
            free(b);
    }
}

/* A function of its own: *g is not among its automatic variables, so a longjmp finds it as
 * it was left. */
static enum status run_guarded(struct guard *g,
                               enum status (*work)(void *context, struct error *err),
                               void *context, struct error *err) {
    if (setjmp(g->out) != 0) {
        leave(g, false);
        return error_set(err, STATUS_NO_MEMORY, "no memory for JSON");
    }
    guard = g;
    enum status status = work(context, err);
    leave(g, true);
    return status;
}

enum status json_guard(enum status (*work)(void *context, struct error *err),
                       void *context, struct error *err) {
    if (guard) /* the outer one serves */
        return work(context, err);
    struct guard g;
    g.blocks.prev = g.blocks.next = &g.blocks;
    return run_guarded(&g, work, context, err);
}
