/* SPDX-License-Identifier: Apache-2.0
 *
 * utf8.h - reads one code point, strictly, as the WHATWG does: of bytes that are not UTF-8,
 * each longest start of a sequence reads as one U+FFFD.
 */
#ifndef VIGIL_MODEL_UTF8_H
#define VIGIL_MODEL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT 0xFFFDu

/* Reads text [n_bytes >= 1] into *point and returns how many bytes it took, 1 to 4. */
static inline size_t utf8_read(const char *text, size_t n_bytes, uint32_t *point) {
    const uint8_t *p = (const uint8_t *)text;
    uint8_t low = 0x80, high = 0xBF, lead = p[0];
    uint32_t value;
    size_t n_tail;
    if (lead < 0x80) {
        *point = lead;
        return 1;
    }
    *point = UTF8_REPLACEMENT;
    if (lead < 0xC2 || lead > 0xF4)
        return 1;
    if (lead < 0xE0) {
        n_tail = 1;
        value = lead & 0x1F;
    } else if (lead < 0xF0) {
        n_tail = 2;
        value = lead & 0x0F;
        low = lead == 0xE0 ? 0xA0 : 0x80;
        high = lead == 0xED ? 0x9F : 0xBF; /* no surrogates */
    } else {
        n_tail = 3;
        value = lead & 0x07;
        low = lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xF4 ? 0x8F : 0xBF; /* up to U+10FFFF */
    }
    for (size_t i = 1; i <= n_tail; i++) {
        if (i >= n_bytes || p[i] < low || p[i] > high)
            return i;
        value = value << 6 | (p[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *point = value;
    return n_tail + 1;
}

static inline bool utf8_is_valid(const char *text, size_t n_bytes) {
    for (size_t at = 0; at < n_bytes;) {
        uint32_t point;
        size_t n = utf8_read(text + at, n_bytes - at, &point);
        /* U+FFFD itself is legal, and the only one of its three bytes. */
        if (point == UTF8_REPLACEMENT && (n != 3 || (uint8_t)text[at] != 0xEF))
            return false;
        at += n;
    }
    return true;
}

/* A place in a text, as code points and bytes, that goes forwards. Zero but for the text. */
struct utf8_cursor {
    const char *text;
    size_t n_bytes, byte;
    uint32_t point; /* code points before it */
};

static inline void utf8_cursor_to(struct utf8_cursor *c, uint32_t point) {
    while (c->point < point && c->byte < c->n_bytes) {
        uint32_t ignored;
        c->byte += utf8_read(c->text + c->byte, c->n_bytes - c->byte, &ignored);
        c->point++;
    }
}

#endif
