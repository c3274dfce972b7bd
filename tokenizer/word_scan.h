/* SPDX-License-Identifier: Apache-2.0
 *
 * word_scan.h - how long is the ASCII word at the start of these 16 bytes, and its key in the
 * word table. Twice: with SSE2, which every x86-64 has, and in plain C.
 */
#ifndef VIGIL_TOKENIZER_WORD_SCAN_H
#define VIGIL_TOKENIZER_WORD_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
#include <emmintrin.h>
#endif

/* A word's bytes, in lower case when asked for, padded with zeros. */
struct word_key {
    uint64_t low, high;
};

/* Returns how many of bytes[0 .. 16) are letters and digits before the first that is not. */
static inline uint32_t word_scan_plain(const uint8_t *bytes, bool is_lower,
                                       struct word_key *key) {
    uint8_t padded[16] = {0};
    uint32_t n = 0;
    for (; n < 16; n++) {
        uint8_t folded = bytes[n] | 0x20;
        if ((uint8_t)(folded - 'a') > 25 && (uint8_t)(bytes[n] - '0') > 9)
            break;
        padded[n] = is_lower ? folded : bytes[n]; /* digits have that bit already */
    }
    memcpy(&key->low, padded, 8);
    memcpy(&key->high, padded + 8, 8);
    return n;
}

#ifdef __x86_64__
static inline uint32_t word_scan(const uint8_t *bytes, bool is_lower,
                                 struct word_key *key) {
    static const uint8_t MASKS[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                      255, 255, 255, 255, 255, 255, 255, 255};
    __m128i given = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    __m128i folded = _mm_or_si128(given, _mm_set1_epi8(0x20));
    __m128i letter = _mm_sub_epi8(folded, _mm_set1_epi8('a'));
    __m128i digit = _mm_sub_epi8(given, _mm_set1_epi8('0'));
    /* x <= limit, unsigned: min(x, limit) == x */
    __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
    __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
    uint32_t bits = (uint32_t)_mm_movemask_epi8(_mm_or_si128(is_letter, is_digit));
    uint32_t n = (uint32_t)__builtin_ctz(~bits);
    __m128i mask = _mm_loadu_si128((const __m128i *)(const void *)(MASKS + 16 - n));
    __m128i word = _mm_and_si128(is_lower ? folded : given, mask);
    key->low = (uint64_t)_mm_cvtsi128_si64(word);
    key->high = (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(word, word));
    return n;
}
#else
static inline uint32_t word_scan(const uint8_t *bytes, bool is_lower,
                                 struct word_key *key) {
    return word_scan_plain(bytes, is_lower, key);
}
#endif

#endif
