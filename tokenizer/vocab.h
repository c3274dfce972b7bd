/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab.h - the vocabulary, laid out for two questions.
 *
 * "Is this short ASCII word one token?" is answered by a table of buckets of one cache line,
 * keyed with the 16 bytes that the scanner has in registers anyway: most words of most texts
 * end here. "Which is the longest token that these bytes begin with?" is answered by a trie
 * over bytes whose edges lie in one open-addressed table: it is built in one pass without
 * sorting, in memory that is linear in the vocabulary, and a step is one multiplication and
 * one load.
 *
 * Owns:       all its arrays.
 * Threads:    read-only after vocab_open.
 * Call order: vocab_open (vocab_*)* vocab_close
 */
#ifndef VIGIL_TOKENIZER_VOCAB_H
#define VIGIL_TOKENIZER_VOCAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define VOCAB_MAX_ENTRIES (1 << 20)
#define VOCAB_MAX_BYTES (16u << 20) /* so that a node's number fits in 24 bits */
#define VOCAB_MAX_TOKEN_BYTES 1000

#define VOCAB_BUCKET_WORDS 3
#define VOCAB_BUCKET_OVERFLOWS (VOCAB_BUCKET_WORDS + 1)

struct vocab_bucket {
    uint64_t low[VOCAB_BUCKET_WORDS], high[VOCAB_BUCKET_WORDS];
    int32_t ids[VOCAB_BUCKET_WORDS];
    uint32_t n; /* VOCAB_BUCKET_OVERFLOWS: full, and the next bucket may hold more */
};

struct vocab_edge {
    uint32_t key; /* parent << 8 | byte; 0: free, for no token holds NUL */
    uint32_t child;
};

struct vocab {
    char *text;       /* the entries, each with its NUL */
    uint32_t *starts; /* [n] in text */
    int32_t n;
    int32_t n_pieces; /* the first of them are word pieces, the rest whole strings */
    struct vocab_edge *edges;
    uint32_t edge_shift, edge_mask;
    int32_t *node_ids; /* [n_nodes], -1: no token ends here; node 0 is the root */
    uint32_t n_nodes, cap_nodes;
    struct vocab_bucket *buckets;
    uint32_t bucket_shift, bucket_mask;
};

/* Takes text and starts, which are freed with the vocabulary, also on failure. Entries must
 * be valid UTF-8; an entry that is empty or there twice is STATUS_INVALID, and the message
 * counts entries from 1. v is zeroed. */
enum status vocab_open(struct vocab *v, char *text, uint32_t *starts, int32_t n,
                       int32_t n_pieces, struct error *err);
void vocab_close(struct vocab *v);

/* The id of a word piece, -1 when there is none. */
int32_t vocab_find(const struct vocab *v, const char *text);

/* Where one byte more leads from a node; 0: nowhere. */
static inline uint32_t vocab_step(const struct vocab *v, uint32_t node, uint8_t byte) {
    uint32_t key = node << 8 | byte;
    uint32_t i = key * UINT32_C(0x9E3779B1) >> v->edge_shift;
    while (v->edges[i].key != key) {
        if (v->edges[i].key == 0)
            return 0;
        i = (i + 1) & v->edge_mask;
    }
    return v->edges[i].child;
}

static inline uint32_t vocab_word_hash(const struct vocab *v, uint64_t low,
                                       uint64_t high) {
    uint64_t mixed =
        low * UINT64_C(0x9E3779B97F4A7C15) + high * UINT64_C(0xC2B2AE3D27D4EB4F);
    return (uint32_t)(mixed >> v->bucket_shift);
}

/* The id of a word of 1 to 15 ASCII letters and digits, padded with zeros; -1: none. */
static inline int32_t vocab_word(const struct vocab *v, uint64_t low, uint64_t high) {
    uint32_t at = vocab_word_hash(v, low, high);
    for (;;) {
        const struct vocab_bucket *b = &v->buckets[at];
        for (int i = 0; i < VOCAB_BUCKET_WORDS; i++)
            if (((b->low[i] ^ low) | (b->high[i] ^ high)) == 0)
                return b->ids[i];
        if (b->n != VOCAB_BUCKET_OVERFLOWS)
            return -1;
        at = (at + 1) & v->bucket_mask;
    }
}

#endif
