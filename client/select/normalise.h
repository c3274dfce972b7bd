/* SPDX-License-Identifier: Apache-2.0
 *
 * normalise.h - text as it is compared: lower case, without accents, letters in fancy forms
 * (fullwidth, mathematical, circled) as plain ones, one space for any white space, without
 * what cannot be seen. Every place that compares words of posts does it through this.
 *
 * A table leads from each code point to what it becomes (gen_normalise.py says how); at most
 * three times as many bytes, so the result of a text has a bound. Kana and Indic marks, which
 * make other letters, stay; Hangul stays composed.
 *
 * Threads: any.
 */
#ifndef VIGIL_CLIENT_SELECT_NORMALISE_H
#define VIGIL_CLIENT_SELECT_NORMALISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/utf8.h"
#include "base/view.h"

#define NORMALISE_BLOCK_SHIFT 7
#define NORMALISE_MAX_BYTES 12 /* that one code point becomes */
#define NORMALISE_GROWTH 3

enum normalise_class {
    NORMALISE_OTHER,    /* signs, emoji, what is not assigned */
    NORMALISE_WORD,     /* a letter, a digit, a mark that belongs to one */
    NORMALISE_UNSPACED, /* a letter of a script that writes no spaces between words */
    NORMALISE_SPACE,
    NORMALISE_DROPPED /* becomes nothing: accents, what joins or directs, selectors */
};

struct normalise_record {
    uint16_t offset; /* in normalise_bytes */
    uint8_t n_bytes; /* 0: the code point itself, unless it is dropped */
    uint8_t class;
};

extern const uint8_t normalise_blocks[];
extern const uint16_t normalise_entries[];
extern const struct normalise_record normalise_records[];
extern const uint8_t normalise_bytes[];
extern const uint8_t normalise_replacement[3];

/* One code point of a text. */
struct normalised {
    const uint8_t *bytes; /* n_bytes; 0 when dropped */
    size_t n_bytes;
    size_t n_source; /* bytes of the text that it was */
    enum normalise_class class;
};

/* code_point <= 0x10FFFF */
static inline const struct normalise_record *normalise_find(uint32_t code_point) {
    uint32_t block = normalise_blocks[code_point >> NORMALISE_BLOCK_SHIFT];
    uint32_t within = code_point & ((1u << NORMALISE_BLOCK_SHIFT) - 1);
    return &normalise_records[normalise_entries[block << NORMALISE_BLOCK_SHIFT |
                                                within]];
}

/* Reads the code point at text[0 .. n_bytes), n_bytes > 0. A byte of no valid sequence
 * becomes U+FFFD, so that no neighbours make a letter of it. */
static inline struct normalised normalise_next(const uint8_t *text, size_t n_bytes) {
    struct normalised out = {.n_source = 1};
    const struct normalise_record *record;
    if (text[0] < 0x80) /* the first block is the first */
        record = &normalise_records[normalise_entries[text[0]]];
    else
        record = normalise_find(utf8_decode(text, n_bytes, &out.n_source));
    out.class = (enum normalise_class)record->class;
    out.bytes = record->n_bytes ? normalise_bytes + record->offset : text;
    out.n_bytes = record->n_bytes;
    if (record->n_bytes == 0 && out.class != NORMALISE_DROPPED)
        out.n_bytes = out.n_source;
    if (text[0] >= 0x80 && out.n_source == 1) {
        out.bytes = normalise_replacement;
        out.n_bytes = 3;
    }
    return out;
}

/* Is there a border between two neighbours? Dropped ones are nobody's neighbours. */
static inline bool normalise_is_border(enum normalise_class left,
                                       enum normalise_class right) {
    return left != NORMALISE_WORD || right != NORMALISE_WORD;
}

/* The class of what stands before text[at], dropped ones left out; SPACE at the start. */
enum normalise_class normalise_class_before(struct view text, size_t at);

/* A whole text, white space folded, none at its ends. out has room for cap bytes;
 * NORMALISE_GROWTH * text.n_bytes are always enough, and what has no room is cut at a code
 * point. map (may be NULL) gets for each byte where in the text its code point begins.
 * Returns the length. */
size_t normalise_text(struct view text, char *out, uint32_t *map, size_t cap);

#endif
