/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT_BYTES 64u
#define HUGE_PAGE_BYTES (2u << 20)
#define HUGE_FROM_BYTES (4u << 20)
#define BUFFER_FIRST_BYTES 256u

bool size_multiply(size_t a, size_t b, size_t *out) {
    if (!__builtin_mul_overflow(a, b, out))
        return true;
    *out = 0;
    return false;
}

bool size_add(size_t a, size_t b, size_t *out) {
    if (!__builtin_add_overflow(a, b, out))
        return true;
    *out = 0;
    return false;
}

void *memory_aligned(size_t n_bytes) {
    size_t padded;
    if (!size_add(n_bytes, ALIGNMENT_BYTES - 1, &padded))
        return NULL;
    padded &= ~(size_t)(ALIGNMENT_BYTES - 1);
    if (padded == 0)
        padded = ALIGNMENT_BYTES;
    size_t alignment = padded >= HUGE_FROM_BYTES ? HUGE_PAGE_BYTES : ALIGNMENT_BYTES;
    void *block = NULL;
    if (posix_memalign(&block, alignment, padded) != 0)
        return NULL;
    if (alignment == HUGE_PAGE_BYTES)
        (void)madvise(block, padded, MADV_HUGEPAGE);
    memset(block, 0, padded);
    return block;
}

/* Makes room for n_bytes more and the NUL behind them. */
static enum status buffer_reserve(struct buffer *b, size_t n_bytes, struct error *err) {
    size_t wanted;
    if (!size_add(b->n_bytes, n_bytes, &wanted) || wanted > b->max_bytes)
        return error_set(err, STATUS_LIMIT, "buffer is limited to %zu bytes",
                         b->max_bytes);
    if (wanted < b->cap_bytes)
        return STATUS_OK;
    size_t cap = b->cap_bytes ? b->cap_bytes : BUFFER_FIRST_BYTES;
    while (cap <= wanted)
        cap *= 2;
    char *grown = realloc(b->data, cap);
    if (!grown)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a buffer of %zu bytes",
                         cap);
    b->data = grown;
    b->cap_bytes = cap;
    return STATUS_OK;
}

enum status buffer_append(struct buffer *b, const void *data, size_t n_bytes,
                          struct error *err) {
    enum status status = buffer_reserve(b, n_bytes, err);
    if (status != STATUS_OK)
        return status;
    if (n_bytes)
        memcpy(b->data + b->n_bytes, data, n_bytes);
    b->n_bytes += n_bytes;
    b->data[b->n_bytes] = '\0';
    return STATUS_OK;
}

enum status buffer_printf(struct buffer *b, struct error *err, const char *format,
                          ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return error_set(err, STATUS_INTERNAL, "bad format");
    enum status status = buffer_reserve(b, (size_t)n, err);
    if (status != STATUS_OK)
        return status;
    va_start(args, format);
    vsnprintf(b->data + b->n_bytes, (size_t)n + 1, format, args);
    va_end(args);
    b->n_bytes += (size_t)n;
    return STATUS_OK;
}

void buffer_clear(struct buffer *b) {
    b->n_bytes = 0;
    if (b->data)
        b->data[0] = '\0';
}

void buffer_free(struct buffer *b) {
    free(b->data);
    b->data = NULL;
    b->n_bytes = b->cap_bytes = 0;
}
