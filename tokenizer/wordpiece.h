/* SPDX-License-Identifier: Apache-2.0
 *
 * wordpiece.h - what a tokenizer consists of. For tokenizer/ and its tests only; everyone
 * else includes tokenizer.h.
 */
#ifndef VIGIL_TOKENIZER_WORDPIECE_H
#define VIGIL_TOKENIZER_WORDPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

#define WORDPIECE_MAX_WORD_CHARS 1000 /* the limit that a model may set */
#define WORDPIECE_MAX_ADDED 64
#define WORDPIECE_NO_NODE UINT32_MAX

/* What the byte at a word's start says. */
enum byte_class {
    BYTE_OTHER, /* not ASCII, or a control that is cleaned away */
    BYTE_SPACE,
    BYTE_WORD, /* ASCII letter or digit */
    BYTE_PUNCTUATION,
    BYTE_ADDED /* punctuation that an added token begins with, as in [MASK] */
};

/* A string that is one token wherever it stands in the text as given. */
struct added_token {
    const char *text; /* in the vocabulary */
    size_t n_bytes;
    int32_t id;
};

struct tokenizer {
    struct vocab vocab;
    int32_t cls_id, sep_id, unk_id;
    bool is_lower, is_stripped, is_cjk_spaced;
    uint32_t max_word_chars; /* a longer word is [UNK] */
    uint32_t cap_fast_bytes; /* the longest word that the scanner may finish; 0: none */
    uint32_t continuation; /* trie node behind "##"; WORDPIECE_NO_NODE: no such piece */
    uint8_t classes[256];  /* enum byte_class */
    uint8_t is_added_first[256];
    int32_t
        ascii_ids[128]; /* tokens of one ASCII character, unk_id where there is none */
    struct added_token added[WORDPIECE_MAX_ADDED];
    size_t n_added;
};

/* Fills classes, is_added_first, ascii_ids, continuation and cap_fast_bytes from the rest. */
void wordpiece_prepare(struct tokenizer *t, const char *continuation_prefix);

#endif
