/* SPDX-License-Identifier: Apache-2.0
 *
 * watch_list.h - the drugs that are looked for: a file of names, found in text on word
 * boundaries with one pass over it, however many they are.
 *
 * The file: a drug a line, `generic: brand, other name, misspelling, …`; the generic name is
 * looked for too. A name with spaces matches any run of white space; case, accents and fancy
 * letters do not count (normalise.h). `-word` on a drug's line is a stop word: where it stands
 * next to a name (within five words), that name is not meant. `#` begins a comment. A name
 * begins with a letter or digit, has two bytes at least, and belongs to one drug.
 *
 * Most posts name nothing, so what costs is to see that. 64 bytes at a time become bits: where
 * words begin, and how long they are. The first eight bytes of each word, in lower case, are
 * looked up in a set of all names' beginnings; what passes, and every word that is not plain
 * ASCII, walks down a trie over normalised bytes (watch_trie.h). Looking inside of words needs
 * the automaton of Aho and Corasick 1975 instead, a step a byte. Offsets lead back into the
 * text as given.
 *
 * Threads: open and close one; all else any.
 */
#ifndef VIGIL_CLIENT_SELECT_WATCH_LIST_H
#define VIGIL_CLIENT_SELECT_WATCH_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/view.h"

#define WATCH_MAX_NAMES 100000
#define WATCH_MAX_NAME_BYTES 128
#define WATCH_MAX_FILE_BYTES ((size_t)16 << 20)
#define WATCH_MAX_STOPS 64 /* of a drug */
#define WATCH_STOP_WORDS 5 /* so near to a name a stop word counts */

struct watch_list;

struct watch_drug {
    const char *drug;         /* the generic name, lower case */
    const char *const *names; /* [n_names], the generic name first, normalised */
    size_t n_names;
};

/* path: NULL is the list that comes with Vigil (watch_list.txt). matches_substrings: inside of
 * words too, as the AWS reference pipeline did. A line that cannot be used is STATUS_INVALID
 * with its number. */
enum status watch_list_open(const char *path, bool matches_substrings,
                            struct watch_list **out, struct error *err);
/* The same from memory; name stands for the path in messages. */
enum status watch_list_read(struct view file, const char *name, bool matches_substrings,
                            struct watch_list **out, struct error *err);
void watch_list_close(struct watch_list *w);
size_t watch_list_n_drugs(const struct watch_list *w);
const struct watch_drug *watch_list_drug(const struct watch_list *w, size_t n);

struct watch_match {
    uint32_t drug;                 /* number of the drug */
    uint32_t name;                 /* of its names */
    uint32_t begin_byte, end_byte; /* of the text */
    uint32_t begin, end;           /* in code points */
};

/* Finds all names in UTF-8 text (invalid bytes match nothing, and count one code point each),
 * from left to right; of names that begin at one place the longest, and the next one behind
 * it. Returns how many there are; the first cap are written. */
size_t watch_list_find(const struct watch_list *w, struct view text,
                       struct watch_match *out, size_t cap);
/* Is there any? Faster. */
bool watch_list_is_in(const struct watch_list *w, struct view text);
/* The same, whatever stop words stand beside it: never false where a part of the text, or the
 * text with its addresses masked, has a name. */
bool watch_list_may_be_in(const struct watch_list *w, struct view text);

#endif
