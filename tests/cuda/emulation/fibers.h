/* SPDX-License-Identifier: Apache-2.0
 *
 * fibers.h - stacks that a thread of the host runs by turns: one a blocked CUDA thread.
 *
 * A switch saves the registers that the ABI says a callee keeps, and the stack pointer: a
 * few nanoseconds. Fibers that ended their work are kept and used again, the last first
 * (its stack is in the cache). AddressSanitizer is told of every switch.
 * One thread at a time: callers hold emulation_mutex.
 */
#ifndef VIGIL_EMULATION_FIBERS_H
#define VIGIL_EMULATION_FIBERS_H

#include <stddef.h>

#if defined __x86_64__ && !defined VIGIL_EMULATION_UCONTEXT
#define EMULATION_HAS_SWITCH 1
#else
#define EMULATION_HAS_SWITCH 0
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

struct fiber {
#if EMULATION_HAS_SWITCH
    void *stack_pointer;
#else
    ucontext_t context;
#endif
    const void
        *stack; /* its lowest byte; the host's own after the first switch from it */
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
    struct fiber *next_free;
};

/* An idle fiber, or a new one that starts in main, which never returns. */
struct fiber *fiber_take(void (*main)());

/* The running fiber says that it is idle, ahead of its last fiber_switch; taken again it
 * goes on behind that. */
void fiber_give(struct fiber *fiber);

/* First thing in a new fiber, before any local. */
void fiber_begin();

#if EMULATION_HAS_SWITCH
extern "C" void emulation_switch(void **from, void *to);
#endif
extern struct fiber *fiber_before; /* who switched to the one that runs */

/* is_idle: from was given back. */
__attribute__((no_sanitize("address", "undefined"))) static inline void
fiber_switch(struct fiber *from, struct fiber *to, bool is_idle) {
#ifdef __SANITIZE_ADDRESS__
    fiber_before = from;
    __sanitizer_start_switch_fiber(is_idle ? nullptr : &from->fake_stack, to->stack,
                                   to->stack_bytes);
    if (is_idle)
        from->fake_stack = nullptr;
#else
    (void)is_idle;
#endif
#if EMULATION_HAS_SWITCH
    emulation_switch(&from->stack_pointer, to->stack_pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from->fake_stack, &fiber_before->stack,
                                    &fiber_before->stack_bytes);
#endif
}

#endif
