/* SPDX-License-Identifier: Apache-2.0
 *
 * language.h - which language a post is in: what its source says, and a guess where it says
 * nothing.
 *
 * The guess is libexttextcat's (letter n-grams, Cavnar and Trenkle 1994) over 39 languages of
 * its data, and is made only when it is clear: 40 letters at least, one candidate alone. Of
 * English tweets of 60 bytes and more it then names another language for 3 in 1,000 and none
 * for 47 in 100. It takes 0.1 ms; the library's handles are for one thread each, so there is
 * a pool of them. The one file that includes it is language.c.
 *
 * Threads: open and close one; all else any.
 */
#ifndef VIGIL_CLIENT_SELECT_LANGUAGE_H
#define VIGIL_CLIENT_SELECT_LANGUAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/view.h"

#define LANGUAGE_TAG_BYTES 9 /* a primary subtag and a NUL */
#define LANGUAGE_MAX_SET 64

/* The primary subtag of a BCP 47 tag, lower case, in its present form ("iw" is "he"). False,
 * and out empty, when the tag names no language: empty, malformed, "und", "zxx", "qme". */
bool language_primary(struct view tag, char out[LANGUAGE_TAG_BYTES]);

/* Languages asked for: "en,es"; NULL, empty or "any": all. */
struct language_set {
    char tags[LANGUAGE_MAX_SET][LANGUAGE_TAG_BYTES];
    size_t n_tags; /* 0: all */
};
enum status language_set_read(const char *text, struct language_set *out,
                              struct error *err);
/* A tag that names no language is in every set. */
bool language_set_has(const struct language_set *set, struct view tag);

struct language;
/* STATUS_NOT_FOUND without the library's data. */
enum status language_open(struct language **out, struct error *err);
void language_close(struct language *l);
/* The tag, a constant; "" when it is not clear. */
const char *language_detect(struct language *l, struct view text);

#endif
