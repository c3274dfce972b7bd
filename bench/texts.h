/* SPDX-License-Identifier: Apache-2.0
 *
 * texts.h - the texts that a benchmark sends, all in memory: from a file, or made up.
 *
 * Threads: read-only after it is made.
 */
#ifndef VIGIL_BENCH_TEXTS_H
#define VIGIL_BENCH_TEXTS_H

#include <stddef.h>

#include "base/status.h"

struct text {
    const char *data; /* [n_bytes], may hold NUL, maybe not UTF-8; not NUL-terminated */
    size_t n_bytes;
};

struct texts {
    struct text *items;
    size_t n;
    char *memory;       /* that the items point into */
    const char *source; /* the file's path, or "made-up texts" */
};

/* A text a line, or {"text":"…"} a line; empty ones are skipped; at most max_texts of them
 * (0: all). STATUS_INVALID when there is none, or for a line of JSON without a text: the
 * message says which line. *out is owned by the caller, freed by texts_free; path must
 * outlive it. */
enum status texts_read(const char *path, size_t max_texts, struct texts *out,
                       struct error *err);

/* n texts of plain English words whose lengths are distributed as those of tweets, always
 * the same ones. */
enum status texts_make_up(size_t n, struct texts *out, struct error *err);

void texts_free(struct texts *t);

#endif
