/* SPDX-License-Identifier: Apache-2.0
 *
 * x_rules.h - the rules of X's filtered stream: made from the watch list or read from a file,
 * linted, and held against what the API has.
 *
 * A rule made here is `(a OR b OR "two words") lang:en -is:retweet`: in X's grammar AND (a
 * space) binds before OR, so that without the parentheses only the last name would be asked
 * for in English. As many names go into a rule as its length allows.
 *
 * A rule of ours has the tag `vigil:` and the first 16 digits of its text's SHA-256: what is
 * tagged so and no longer wanted is ours to delete.
 */
#ifndef VIGIL_CLIENT_SOURCES_X_RULES_H
#define VIGIL_CLIENT_SOURCES_X_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"

#define X_RULES_DEFAULT_BYTES 1024
#define X_RULES_DEFAULT_COUNT 1000
#define X_RULES_TAG "vigil:"
#define X_RULES_TAG_BYTES 23 /* with its NUL */

struct x_rule {
    char *value, *tag, *id; /* tag and id may be NULL */
};

/* Zero-initialise; x_rules_free(zeroed) is a no-op. */
struct x_rules {
    struct x_rule *all;
    size_t n, cap;
};
void x_rules_free(struct x_rules *r);

/* A copy of each; NULL where there is none. */
enum status x_rules_add(struct x_rules *r, struct view value, struct view tag,
                        struct view id, struct error *err);

/* Puts names into rules. Call order: begin name* end; end frees, and behind a name that
 * failed does nothing else. */
struct x_rules_maker {
    struct buffer names;  /* of the rule under way */
    struct buffer behind; /* ") lang:en -is:retweet" */
    size_t max_bytes, max_rules;
    struct x_rules *out;
    bool is_failed;
};
/* languages: "en,es", NULL or "any" for all. STATUS_INVALID. */
enum status x_rules_begin(struct x_rules_maker *m, const char *languages,
                          size_t max_bytes, size_t max_rules, struct x_rules *out,
                          struct error *err);
enum status x_rules_name(struct x_rules_maker *m, const char *name, struct error *err);
enum status x_rules_end(struct x_rules_maker *m, struct error *err);

/* From a file: a rule a line, '#' begins a comment line. Linted, with the line's number. */
enum status x_rules_read(const char *path, size_t max_bytes, size_t max_rules,
                         struct x_rules *out, struct error *err);

/* What the API would refuse, or would read otherwise than it looks: length, quotes and
 * parentheses, OR beside AND without parentheses, operators there are not, nothing to look
 * for. STATUS_INVALID with the reason and the byte. */
enum status x_rule_lint(struct view value, size_t max_bytes, struct error *err);

/* What of `have` is to go (ours alone when keeps_other) and what of `want` is missing. */
enum status x_rules_compare(const struct x_rules *want, const struct x_rules *have,
                            bool keeps_other, struct x_rules *missing,
                            struct x_rules *surplus, struct error *err);

/* Reads an answer of GET …/rules, adding to *have. *next: the token of the next page, in
 * free()able memory, or NULL. */
enum status x_rules_parse(struct view body, struct x_rules *have, char **next,
                          struct error *err);
/* The body of a POST that adds, or deletes, all of them from `from` on, at most n. */
enum status x_rules_body(const struct x_rules *rules, bool adds, size_t from, size_t n,
                         struct buffer *out, struct error *err);
/* Reads the answer to it. STATUS_INVALID: rules were not taken, the first reason is in the
 * message. Rules that are there already do not count. */
enum status x_rules_check(struct view body, struct error *err);

#endif
