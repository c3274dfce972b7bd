/* SPDX-License-Identifier: Apache-2.0
 *
 * slow_tokenizer.h - BERT WordPiece a second time, as plainly as the description goes: the
 * text becomes an array of characters, each step makes it over, and the last one looks pieces
 * up in a sorted list. Shares no code and no table with tokenizer/, to hold that against it.
 *
 * Owns nothing of its settings. Not for two threads at once. Aborts when memory runs out.
 */
#ifndef VIGIL_TESTS_SLOW_TOKENIZER_H
#define VIGIL_TESTS_SLOW_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slow_settings {
    const char *const *tokens; /* [n_tokens], by id */
    int32_t n_tokens;
    const char *unk, *cls, *sep;
    const char *const *added; /* NULL-terminated: one token each, wherever they stand */
    bool is_lower, is_stripped, is_cjk_spaced;
    size_t max_word_chars;
};

struct slow_token {
    int32_t id;
    uint32_t begin, end;
};

struct slow_tokenizer;
struct slow_tokenizer *slow_open(const struct slow_settings *settings);
void slow_close(struct slow_tokenizer *s);

/* Encodes all of text, specials included. *out is valid until the next call. */
size_t slow_encode(struct slow_tokenizer *s, const uint8_t *text, size_t n_bytes,
                   const struct slow_settings *settings, const struct slow_token **out);

#endif
