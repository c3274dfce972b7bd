/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.h - memory for a batch: many small blocks, all given back at once.
 *
 * A list of blocks that grow with what is asked for, up to a maximum. arena_clear keeps the
 * largest, so that batch after batch allocates nothing.
 *
 * Threads: one at a time.
 */
#ifndef VIGIL_BASE_ARENA_H
#define VIGIL_BASE_ARENA_H

#include <stddef.h>

#include "base/status.h"
#include "base/view.h"

struct arena_block;

/* Zero-initialise, set max_bytes; arena_free on a zeroed one or NULL is a no-op. */
struct arena {
    struct arena_block *blocks; /* the newest first */
    size_t n_bytes;             /* held in all blocks */
    size_t max_bytes;
};

/* n_bytes aligned to 16, not zeroed; NULL when memory or max_bytes ran out. */
void *arena_take(struct arena *a, size_t n_bytes);
/* A copy with a NUL behind it. STATUS_NO_MEMORY. */
enum status arena_copy(struct arena *a, struct view from, struct view *out,
                       struct error *err);
/* printf into the arena, NUL-terminated. */
enum status arena_printf(struct arena *a, struct view *out, struct error *err,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Everything taken so far is gone; the largest block stays for the next batch. */
void arena_clear(struct arena *a);
void arena_free(struct arena *a);

#endif
