/* SPDX-License-Identifier: Apache-2.0
 *
 * fibers.cc - making a fiber: its stack, its first frame, the switch itself.
 *
 * The lowest page of a stack is a guard. Stacks begin at different offsets from a page, or
 * the top frames of all threads of a block would fight for the same lines of the cache.
 */
#include "tests/cuda/emulation/fibers.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
enum { STACK_BYTES = 512 << 10 }; /* frames with red zones */
#else
enum { STACK_BYTES = 128 << 10 };
#endif
enum { GUARD_BYTES = 4096, COLOUR_BYTES = 192, N_COLOURS = 21 };

struct fiber *fiber_before;
static struct fiber *free_fibers;
static int n_fibers;

#if EMULATION_HAS_SWITCH
/* rdi: where to leave this stack pointer; rsi: the one to go on with. */
asm(".text\n"
    ".globl emulation_switch\n"
    ".hidden emulation_switch\n"
    ".type emulation_switch, @function\n"
    "emulation_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size emulation_switch, .-emulation_switch\n");

/* As if main had called emulation_switch: six registers, then main's address, at which the
 * stack is what a function expects: 8 bytes off a multiple of 16. */
static void prepare(struct fiber *fiber, char *top, void (*main)()) {
    void **frame = (void **)top - 8;
    for (int i = 0; i < 6; i++)
        frame[i] = nullptr;
    frame[6] = (void *)main;
    frame[7] = nullptr; /* main returns to nowhere */
    fiber->stack_pointer = frame;
}
#else
static void prepare(struct fiber *fiber, char *top, void (*main)()) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = (void *)fiber->stack;
    fiber->context.uc_stack.ss_size = (size_t)(top - (const char *)fiber->stack);
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, main, 0);
}
#endif

static struct fiber *fiber_new(void (*main)()) {
    char *map = (char *)mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct fiber *fiber = (struct fiber *)calloc(1, sizeof *fiber);
    if (map == MAP_FAILED || !fiber || mprotect(map, GUARD_BYTES, PROT_NONE) != 0) {
        perror("cuda emulation: no memory for a fiber's stack");
        abort();
    }
    fiber->stack = map + GUARD_BYTES;
    fiber->stack_bytes = STACK_BYTES;
    size_t colour = (size_t)(n_fibers++ % N_COLOURS) * COLOUR_BYTES;
    prepare(fiber, map + GUARD_BYTES + STACK_BYTES - colour, main);
    return fiber;
}

struct fiber *fiber_take(void (*main)()) {
    struct fiber *fiber = free_fibers;
    if (!fiber)
        return fiber_new(main);
    free_fibers = fiber->next_free;
    return fiber;
}

void fiber_give(struct fiber *fiber) {
    fiber->next_free = free_fibers;
    free_fibers = fiber;
}

void fiber_begin() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &fiber_before->stack,
                                    &fiber_before->stack_bytes);
#endif
}
