/* SPDX-License-Identifier: Apache-2.0
 *
 * watch_list_data.h - what watch_list.c makes of the file and watch_list_find.c searches with.
 */
#ifndef VIGIL_CLIENT_SELECT_WATCH_LIST_DATA_H
#define VIGIL_CLIENT_SELECT_WATCH_LIST_DATA_H

#include "base/arena.h"
#include "client/select/watch_list.h"
#include "client/select/watch_trie.h"

/* A set of the beginnings of all names, up to eight bytes of the first word, by one hash.
 * 32 KB: stays in the first-level cache. With the 7,630 names of Drugs@FDA 2 of 100 words
 * pass it that begin no name. */
#define WATCH_FILTER_BITS 18

struct watch_reference { /* of a value of the trie */
    uint32_t drug, name;
};

struct watch_stops {
    struct view *words;
    size_t n_words;
};

struct watch_list {
    struct arena arena; /* names, stop words, their tables */
    struct watch_drug *drugs;
    struct watch_stops *stops; /* [n_drugs] */
    size_t n_drugs, cap_drugs;
    struct watch_reference *references;
    struct watch_trie trie;
    bool matches_substrings;
    uint8_t plain[128]; /* ASCII, normalised; ' ' for all white space */
    uint64_t filter[((size_t)1 << WATCH_FILTER_BITS) / 64];
};

/* key: bytes of a word's beginning, lower case, the first lowest, zeroes behind them. */
static inline uint32_t watch_list_hash(uint64_t key) {
    return (uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> (64 - WATCH_FILTER_BITS));
}

#endif
