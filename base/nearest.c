/* SPDX-License-Identifier: Apache-2.0
 *
 * nearest.c - optimal string alignment distance (insert, delete, replace, swap two
 * neighbours) over short names.
 */
#include "base/nearest.h"

#include <string.h>

#define MAX_NAME_BYTES 48
#define MIN_PREFIX_BYTES 3

static size_t minimum(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Both words are shorter than MAX_NAME_BYTES. */
static size_t distance_between(const char *a, size_t n_a, const char *b, size_t n_b) {
    size_t row[3][MAX_NAME_BYTES];
    size_t *before = row[0], *last = row[1], *now = row[2];
    for (size_t j = 0; j <= n_b; j++)
        last[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        now[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t replace = last[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = minimum(minimum(last[j], now[j - 1]) + 1, replace);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = minimum(now[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[n_b];
}

void nearest_consider(struct nearest *best, const char *word, const char *candidate) {
    size_t n_word = strlen(word);
    size_t n_candidate = strlen(candidate);
    if (n_word >= MAX_NAME_BYTES || n_candidate >= MAX_NAME_BYTES || n_word == 0)
        return;
    size_t allowed = n_word < 3 ? 0 : (n_word + 2) / 3;
    size_t distance = distance_between(word, n_word, candidate, n_candidate);
    if (n_word >= MIN_PREFIX_BYTES && strncmp(word, candidate, n_word) == 0)
        distance = minimum(distance, 1);
    if (distance > allowed || (best->name && best->distance <= distance))
        return;
    best->name = candidate;
    best->distance = distance;
}
