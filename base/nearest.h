/* SPDX-License-Identifier: Apache-2.0
 *
 * nearest.h - which known name was probably meant. For hints behind "unknown option".
 */
#ifndef VIGIL_BASE_NEAREST_H
#define VIGIL_BASE_NEAREST_H

#include <stddef.h>

struct nearest {
    const char *name; /* NULL: nothing is near enough to be worth a hint */
    size_t distance;
};

/* Compares word with one candidate more and keeps the better. Zero-initialise *best.
 * Near enough: at most a third of the word's letters changed, or a prefix of three or
 * more letters. Names of 48 bytes and more are never near. */
void nearest_consider(struct nearest *best, const char *word, const char *candidate);

#endif
