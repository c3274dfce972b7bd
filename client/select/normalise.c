/* SPDX-License-Identifier: Apache-2.0 */
#include "client/select/normalise.h"

const uint8_t normalise_replacement[3] = {0xEF, 0xBF, 0xBD};

enum normalise_class normalise_class_before(struct view text, size_t at) {
    const uint8_t *p = (const uint8_t *)text.data;
    while (at > 0) {
        size_t start = at - 1, length;
        while (start > 0 && at - start < 4 && (p[start] & 0xC0) == 0x80)
            start--;
        utf8_decode(p + start, at - start, &length);
        if (length != at - start)
            return NORMALISE_OTHER; /* no valid sequence */
        enum normalise_class class = normalise_next(p + start, at - start).class;
        if (class != NORMALISE_DROPPED)
            return class;
        at = start;
    }
    return NORMALISE_SPACE;
}

size_t normalise_text(struct view text, char *out, uint32_t *map, size_t cap) {
    const uint8_t *p = (const uint8_t *)text.data;
    size_t n = 0, space_at = 0;
    bool has_space = false;
    for (size_t at = 0; at < text.n_bytes;) {
        struct normalised next = normalise_next(p + at, text.n_bytes - at);
        if (next.class == NORMALISE_SPACE) {
            if (!has_space)
                space_at = at;
            has_space = n > 0;
        } else if (next.n_bytes > 0) {
            if (n + has_space + next.n_bytes > cap)
                break;
            if (has_space) {
                if (map)
                    map[n] = (uint32_t)space_at;
                out[n++] = ' ';
                has_space = false;
            }
            for (size_t i = 0; i < next.n_bytes; i++) {
                if (map)
                    map[n] = (uint32_t)at;
                out[n++] = (char)next.bytes[i];
            }
        }
        at += next.n_source;
    }
    return n;
}
