/* SPDX-License-Identifier: Apache-2.0
 *
 * utf8.h - code points out of UTF-8 and back.
 */
#ifndef VIGIL_BASE_UTF8_H
#define VIGIL_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT 0xFFFD

/* Reads the code point at text[0 .. n_bytes), n_bytes > 0, and says how long it is. A byte
 * that begins no valid sequence is a U+FFFD of its own. */
static inline uint32_t utf8_decode(const uint8_t *text, size_t n_bytes,
                                   size_t *length) {
    uint32_t c = text[0];
    *length = 1;
    if (c < 0x80)
        return c;
    if (c < 0xC2 || n_bytes < 2 || (text[1] & 0xC0) != 0x80)
        return UTF8_REPLACEMENT;
    if (c < 0xE0) {
        *length = 2;
        return (c & 0x1F) << 6 | (text[1] & 0x3Fu);
    }
    if (n_bytes < 3 || (text[2] & 0xC0) != 0x80)
        return UTF8_REPLACEMENT;
    if (c < 0xF0) {
        c = (c & 0xF) << 12 | (text[1] & 0x3Fu) << 6 | (text[2] & 0x3Fu);
        if (c < 0x800 || (c >= 0xD800 && c < 0xE000))
            return UTF8_REPLACEMENT;
        *length = 3;
        return c;
    }
    if (c >= 0xF5 || n_bytes < 4 || (text[3] & 0xC0) != 0x80)
        return UTF8_REPLACEMENT;
    c = (c & 7) << 18 | (text[1] & 0x3Fu) << 12 | (text[2] & 0x3Fu) << 6 |
        (text[3] & 0x3Fu);
    if (c < 0x10000 || c > 0x10FFFF)
        return UTF8_REPLACEMENT;
    *length = 4;
    return c;
}

/* Writes a code point as UTF-8; returns its length. */
static inline size_t utf8_encode(uint32_t c, uint8_t out[4]) {
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

#endif
