/* SPDX-License-Identifier: Apache-2.0
 *
 * json.h - JSON from outside, bounded before it is parsed. The one place that includes
 * jansson.h.
 *
 * jansson can take 79 times its input in memory ([{},{},…]) and refuses a whole document for
 * one lone surrogate; so a linear pre-scan counts depth, values and key lengths and looks at
 * every escape first, and only then jansson runs.
 */
#ifndef VIGIL_BASE_JSON_H
#define VIGIL_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "base/status.h"

struct json_limits {
    size_t max_bytes;
    size_t max_depth;  /* of arrays and objects; a scalar has depth 0 */
    size_t max_values; /* scalars, arrays and objects, keys not counted */
    size_t max_key_bytes;
};

/* Parses one JSON value of any type. Strings may hold NUL (json_string_length says how
 * long they are). Duplicate keys, trailing bytes, invalid UTF-8 and NaN are refused.
 * On success *out is a new reference owned by the caller (json_decref).
 * STATUS_INVALID      malformed: the message says what and at which byte, never the text
 * STATUS_UNSUPPORTED  well-formed, but holds a lone surrogate (\ud800)
 * STATUS_LIMIT        over a limit: which one, its value
 * STATUS_NO_MEMORY */
enum status json_parse(const char *text, size_t n_bytes,
                       const struct json_limits *limits, json_t **out,
                       struct error *err);

/* Runs work, in which jansson is safe when memory runs out: then work is left at once, all
 * that jansson allocated in it is freed, and the status is STATUS_NO_MEMORY. So whatever
 * else work owns while it calls jansson must hang on context, and a value from outside that
 * it changes is lost. Guards nest; the outermost serves. json_parse needs none.
 * What json_dumps returns is jansson's, not for free(): use json_dump_callback. */
enum status json_guard(enum status (*work)(void *context, struct error *err),
                       void *context, struct error *err);

struct buffer;
/* Appends text as a JSON string with its quotes; text is UTF-8 and may hold NUL; invalid
 * bytes become U+FFFD. */
enum status json_append_string(struct buffer *b, const char *text, size_t n_bytes,
                               struct error *err);
/* Appends a number in the shortest form that reads back as the same float ("0.6", not
 * "0.60000002"); NaN and infinities become null. */
enum status json_append_float(struct buffer *b, float value, struct error *err);

#endif
