/* SPDX-License-Identifier: Apache-2.0
 *
 * windows.c - tokenizes a text once and cuts its tokens into windows.
 *
 * The text is encoded whole, also when it will be cut: the count of its tokens is part of
 * the answer. The usual text fits one window and is then used where it was encoded; the
 * block is only shrunk to what it holds.
 */
#include "model/windows.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define MIN_POSITIONS 3 /* [CLS], one token, [SEP] */
/* So that offsets over all windows, which repeat up to half of the tokens, fit int32. */
#define MAX_TEXT_TOKENS ((size_t)1 << 29)

/* One block: ids, spans, offsets. They are all made of 32-bit numbers, so that they can
 * follow one another without padding. */
static bool block_bytes(size_t n_ids, size_t n_windows, size_t *out) {
    size_t ids, offsets;
    return size_multiply(n_ids, sizeof(int32_t) + sizeof(struct token_span), &ids) &&
           size_multiply(n_windows + 1, sizeof(int32_t), &offsets) &&
           size_add(ids, offsets, out);
}

static void carve(struct windows *w, int32_t *block, size_t n_ids) {
    w->ids = block;
    w->spans = (struct token_span *)(block + n_ids);
    w->offsets = (int32_t *)(w->spans + n_ids);
}

/* Keeps n_keep of the n_encoded tokens as the only window, [SEP] last. */
static void keep_one(struct windows *w, size_t n_encoded, size_t n_keep) {
    struct token_span *spans = w->spans;
    w->ids[n_keep - 1] = w->ids[n_encoded - 1];
    spans[n_keep - 1].begin = spans[n_keep - 1].end =
        n_keep < n_encoded ? spans[n_keep - 2].end : spans[n_encoded - 1].end;
    int32_t *block = w->ids;
    memmove(block + n_keep, spans, n_keep * sizeof *spans);
    size_t n_bytes;
    if (block_bytes(n_keep, 1, &n_bytes)) {
        int32_t *shrunk = realloc(block, n_bytes);
        if (shrunk)
            block = shrunk;
    }
    carve(w, block, n_keep);
    w->n_windows = 1;
    w->n_ids = (int32_t)n_keep;
    w->offsets[0] = 0;
    w->offsets[1] = w->n_ids;
}

/* Copies content tokens [first, first + n) with the special ones round them. */
static void copy_window(const struct windows *from, size_t n_from, size_t first,
                        size_t n, int32_t *ids, struct token_span *spans) {
    const struct token_span *content = from->spans + 1 + first;
    ids[0] = from->ids[0];
    memcpy(ids + 1, from->ids + 1 + first, n * sizeof *ids);
    ids[n + 1] = from->ids[n_from - 1];
    spans[0].begin = spans[0].end = content[0].begin;
    memcpy(spans + 1, content, n * sizeof *spans);
    spans[n + 1].begin = spans[n + 1].end = content[n - 1].end;
}

static enum status cut(struct windows *w, size_t n_encoded, size_t positions,
                       struct error *err) {
    size_t n_content = n_encoded - 2, room = positions - 2;
    size_t stride = room - positions / WINDOW_OVERLAP_PART;
    size_t n_windows = 1 + (n_content - room + stride - 1) / stride;
    size_t n_ids, n_bytes;
    if (!size_multiply(n_windows, positions, &n_ids) || n_ids > INT32_MAX ||
        !block_bytes(n_ids, n_windows, &n_bytes))
        return error_set(err, STATUS_LIMIT, "a text of %zu tokens has too many windows",
                         n_encoded);
    int32_t *block = malloc(n_bytes);
    if (!block)
        return error_set(err, STATUS_NO_MEMORY,
                         "no memory for %zu windows of %zu tokens", n_windows,
                         positions);
    struct windows whole = *w;
    carve(w, block, n_ids);
    for (size_t i = 0; i < n_windows; i++) {
        size_t first = i + 1 < n_windows ? i * stride : n_content - room;
        w->offsets[i] = (int32_t)(i * positions);
        copy_window(&whole, n_encoded, first, room, w->ids + i * positions,
                    w->spans + i * positions);
    }
    w->offsets[n_windows] = (int32_t)n_ids;
    w->n_windows = (int32_t)n_windows;
    w->n_ids = (int32_t)n_ids;
    free(whole.ids);
    return STATUS_OK;
}

enum status windows_make(const struct tokenizer *tokenizer, int32_t max_positions,
                         const char *text, size_t text_bytes, bool truncate,
                         struct windows *out, struct error *err) {
    memset(out, 0, sizeof *out);
    if (max_positions < MIN_POSITIONS)
        return error_set(err, STATUS_INVALID,
                         "a model with %d positions has no room for text",
                         max_positions);
    size_t cap = tokenizer_max_tokens(text_bytes), n_bytes;
    if (cap > MAX_TEXT_TOKENS || !block_bytes(cap, 1, &n_bytes))
        return error_set(err, STATUS_LIMIT, "a text of %zu bytes is too long",
                         text_bytes);
    int32_t *block = malloc(n_bytes);
    if (!block)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a text of %zu bytes",
                         text_bytes);
    carve(out, block, cap);
    struct encoding encoding;
    tokenizer_encode(tokenizer, text, text_bytes, out->ids, out->spans, cap, &encoding);
    out->n_tokens = (int32_t)encoding.n_tokens;
    out->n_unknown = (int32_t)encoding.n_unknown;

    size_t positions = (size_t)max_positions;
    if (encoding.n_tokens <= positions) {
        keep_one(out, encoding.n_tokens, encoding.n_tokens);
        return STATUS_OK;
    }
    if (truncate) {
        keep_one(out, encoding.n_tokens, positions);
        out->is_truncated = true;
        return STATUS_OK;
    }
    enum status status = cut(out, encoding.n_tokens, positions, err);
    if (status != STATUS_OK)
        windows_free(out);
    return status;
}

int32_t windows_first(const struct windows *w, int32_t window) {
    if (window + 1 < w->n_windows) {
        int32_t positions = w->offsets[1];
        return window * (positions - 2 - positions / WINDOW_OVERLAP_PART);
    }
    int32_t n_content = w->is_truncated ? w->n_ids - 2 : w->n_tokens - 2;
    return n_content - (w->offsets[window + 1] - w->offsets[window] - 2);
}

void windows_free(struct windows *w) {
    if (!w)
        return;
    free(w->ids);
    memset(w, 0, sizeof *w);
}
