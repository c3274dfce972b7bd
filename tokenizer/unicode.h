/* SPDX-License-Identifier: Apache-2.0
 *
 * unicode.h - what the tokenizer needs to know of a code point.
 *
 * The tables are those that Hugging Face tokenizers 0.23 works with, which are of several
 * versions of Unicode; gen_unicode.py says which and why. About 100 KB in all: a two-level
 * trie of 16-bit entries that lead to one of some 2,000 records.
 */
#ifndef VIGIL_TOKENIZER_UNICODE_H
#define VIGIL_TOKENIZER_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#define UNICODE_CONTROL 1     /* cleaned away: Cc Cf Co Cs, U+0000, U+FFFD */
#define UNICODE_SPACE 2       /* \t \n \r Zs Zl Zp */
#define UNICODE_PUNCTUATION 4 /* P*, and all ASCII signs */
#define UNICODE_CJK 8         /* an ideograph: gets spaces round it */
#define UNICODE_MARK 16       /* Mn: stripped with the accents */
#define UNICODE_HANGUL 32     /* a syllable: decomposed by arithmetic */
#define UNICODE_DOTTED 64     /* U+0130: its lower case is followed by U+0307 */

#define UNICODE_DOT_ABOVE 0x307
#define UNICODE_MAX_DECOMPOSITION 4
#define UNICODE_BLOCK_SHIFT 7

struct unicode_record {
    int32_t lower;           /* add it to get the lower case */
    uint16_t decomposition;  /* full canonical, in unicode_decompositions */
    uint8_t n_decomposition; /* 0: it is its own */
    uint8_t combining_class;
    uint8_t flags;
};

extern const uint8_t unicode_blocks[];
extern const uint16_t unicode_entries[];
extern const struct unicode_record unicode_records[];
extern const uint32_t unicode_decompositions[];

/* code_point <= 0x10FFFF */
static inline const struct unicode_record *unicode_find(uint32_t code_point) {
    uint32_t block = unicode_blocks[code_point >> UNICODE_BLOCK_SHIFT];
    uint32_t within = code_point & ((1u << UNICODE_BLOCK_SHIFT) - 1);
    return &unicode_records[unicode_entries[block << UNICODE_BLOCK_SHIFT | within]];
}

static inline size_t unicode_decompose_hangul(uint32_t syllable, uint32_t out[3]) {
    uint32_t index = syllable - 0xAC00;
    out[0] = 0x1100 + index / 588;
    out[1] = 0x1161 + index % 588 / 28;
    out[2] = 0x11A7 + index % 28;
    return index % 28 ? 3 : 2;
}

#endif
