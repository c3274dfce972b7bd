/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

#define FIRST_BLOCK_BYTES ((size_t)64 << 10)
#define ALIGNMENT 16

struct arena_block {
    struct arena_block *next;
    size_t cap_bytes, n_used;
    max_align_t data[];
};

static struct arena_block *block_add(struct arena *a, size_t n_bytes) {
    size_t cap = a->blocks ? a->blocks->cap_bytes : FIRST_BLOCK_BYTES / 2, whole;
    size_t left = a->n_bytes < a->max_bytes ? a->max_bytes - a->n_bytes : 0;
    if (!size_multiply(cap, 2, &cap) || cap > left)
        cap = left;
    if (cap < n_bytes)
        cap = n_bytes;
    if (cap > left || !size_add(cap, sizeof(struct arena_block), &whole))
        return NULL;
    struct arena_block *block = malloc(whole);
    if (!block)
        return NULL;
    *block = (struct arena_block){.next = a->blocks, .cap_bytes = cap};
    a->blocks = block;
    a->n_bytes += cap;
    return block;
}

void *arena_take(struct arena *a, size_t n_bytes) {
    size_t rounded;
    if (!size_add(n_bytes, ALIGNMENT - 1, &rounded))
        return NULL;
    rounded &= ~(size_t)(ALIGNMENT - 1);
    struct arena_block *block = a->blocks;
    if (!block || block->cap_bytes - block->n_used < rounded)
        block = block_add(a, rounded);
    if (!block)
        return NULL;
    char *at = (char *)block->data + block->n_used;
    block->n_used += rounded;
    return at;
}

enum status arena_copy(struct arena *a, struct view from, struct view *out,
                       struct error *err) {
    size_t n_bytes;
    char *copy = size_add(from.n_bytes, 1, &n_bytes) ? arena_take(a, n_bytes) : NULL;
    if (!copy)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    if (from.n_bytes)
        memcpy(copy, from.data, from.n_bytes);
    copy[from.n_bytes] = '\0';
    *out = view_of(copy, from.n_bytes);
    return STATUS_OK;
}

enum status arena_printf(struct arena *a, struct view *out, struct error *err,
                         const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int n = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = n >= 0 ? arena_take(a, (size_t)n + 1) : NULL;
    if (text)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    if (!text)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    *out = view_of(text, (size_t)n);
    return STATUS_OK;
}

void arena_clear(struct arena *a) {
    struct arena_block *largest = NULL;
    for (struct arena_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        if (!largest || b->cap_bytes > largest->cap_bytes) {
            free(largest);
            largest = b;
        } else {
            free(b);
        }
    }
    if (largest) {
        largest->next = NULL;
        largest->n_used = 0;
    }
    a->blocks = largest;
    a->n_bytes = largest ? largest->cap_bytes : 0;
}

void arena_free(struct arena *a) {
    if (!a)
        return;
    for (struct arena_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    a->blocks = NULL;
    a->n_bytes = 0;
}
