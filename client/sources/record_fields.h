/* SPDX-License-Identifier: Apache-2.0
 *
 * record_fields.h - the fields of a generic record as they were found, whichever format they
 * came in, and the two readers of JSON. Private to record*.c and its tests.
 *
 * The quick one reads what nearly every record is, one flat object without anything unusual,
 * some ten times as fast as jansson; it accepts nothing that jansson would not, finds the
 * same in it, and leaves all else, errors too, to the other.
 */
#ifndef VIGIL_CLIENT_SOURCES_RECORD_FIELDS_H
#define VIGIL_CLIENT_SOURCES_RECORD_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"
#include "client/stream_options.h"

enum record_field {
    RECORD_TEXT,
    RECORD_ID,
    RECORD_AUTHOR,
    RECORD_AUTHOR_NAME,
    RECORD_LANG,
    RECORD_TIME,
    RECORD_PLACE,
    RECORD_VERSION,
    RECORD_URL,
    RECORD_REPOST_OF,
    RECORD_QUOTE_OF,
    RECORD_DELETED,
    RECORD_ORIGINAL,
    RECORD_N_FIELDS
};

enum record_type {
    RECORD_NOTHING, /* missing, null, an empty cell of CSV */
    RECORD_STRING,
    RECORD_INTEGER, /* text: its digits */
    RECORD_REAL,    /* text: as it stands */
    RECORD_TRUE,
    RECORD_FALSE,
    RECORD_OTHER /* an array or object that is not "original" */
};

struct record_value {
    enum record_type type;
    struct view text; /* in the arena, or in the line; NUL not yet replaced */
    int64_t integer;
};

struct record_fields {
    struct record_value values[RECORD_N_FIELDS];
    struct record_value original[RECORD_N_FIELDS];
    bool has_original;
};

struct record_names {
    struct view names[RECORD_N_FIELDS];
};
struct record_names record_names_of(const struct source_settings *settings);

/* False: ask the other one. */
bool record_read_quick(const struct record_names *names, struct view json,
                       struct arena *arena, struct record_fields *out);
enum status record_read_json(const struct record_names *names, struct view json,
                             struct arena *arena, struct record_fields *out,
                             struct error *err);

#endif
