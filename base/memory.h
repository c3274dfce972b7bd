/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.h - sizes that cannot wrap, blocks that are aligned, buffers that are capped.
 *
 * Every size that comes from a file or the wire is computed with size_multiply and size_add;
 * nowhere else in the tree is such a size multiplied or added with a bare * or +.
 */
#ifndef VIGIL_BASE_MEMORY_H
#define VIGIL_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* *out = a * b (a + b); false when that wraps, and *out is then 0. */
bool size_multiply(size_t a, size_t b, size_t *out);
bool size_add(size_t a, size_t b, size_t *out);

/* n_bytes (rounded up to a multiple of 64) of zeroed memory, 64-byte aligned, or NULL.
 * Freed with free(). Blocks of 4 MiB and more are aligned to 2 MiB and advised to use huge
 * pages. n_bytes == 0 gives a block that may not be read. */
void *memory_aligned(size_t n_bytes);

/* A growing byte buffer with a hard maximum. Zero-initialise, set max_bytes, append, free. */
struct buffer {
    char *data; /* NULL until the first append; always NUL-terminated after one */
    size_t n_bytes;
    size_t cap_bytes;
    size_t max_bytes; /* an append past this fails with STATUS_LIMIT */
};

enum status buffer_append(struct buffer *b, const void *data, size_t n_bytes,
                          struct error *err);
enum status buffer_printf(struct buffer *b, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Empties the buffer and keeps its memory. */
void buffer_clear(struct buffer *b);
void buffer_free(struct buffer *b);

#endif
