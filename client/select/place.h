/* SPDX-License-Identifier: Apache-2.0
 *
 * place.h - where somebody is, from what a profile says in free text: "NYC", "Austin, TX",
 * "somewhere in Ohio", "London, UK", a flag.
 *
 * The names are the project's own list, place_names.txt, which lies in the program. Names
 * that stand beside each other decide what each of them means; a city alone is the most
 * populous of its name. Where nothing is clear, nothing is said.
 *
 * Threads: open and close one; all else any.
 */
#ifndef VIGIL_CLIENT_SELECT_PLACE_H
#define VIGIL_CLIENT_SELECT_PLACE_H

#include "base/status.h"
#include "base/view.h"

struct place_names;

struct place {           /* constants of the names; empty where not known */
    struct view city;    /* "Austin" */
    struct view state;   /* "US-TX"; of the United States alone */
    struct view country; /* "US" */
};

enum status place_open(struct place_names **out, struct error *err);
/* The same from memory, in the format that place_names.txt describes. */
enum status place_read(struct view file, struct place_names **out, struct error *err);
void place_close(struct place_names *names);

/* Linear in the text, of which the first 32 words are looked at. */
struct place place_find(const struct place_names *names, struct view text);

#endif
