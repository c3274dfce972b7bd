/* SPDX-License-Identifier: Apache-2.0
 *
 * csv.h - the rules of CSV (RFC 4180) as a machine that is fed byte by byte: where fields and
 * rows end, and which bytes are of a field. It keeps no bytes; whoever feeds it does.
 *
 * A quote counts at the start of a field alone; `""` within quotes is one quote; rows end with
 * LF or CR LF. More bytes behind a closing quote are taken into the field, and is_bad_quote is
 * set.
 */
#ifndef VIGIL_BASE_CSV_H
#define VIGIL_BASE_CSV_H

#include <stdbool.h>

enum csv_state { CSV_START, CSV_PLAIN, CSV_QUOTED, CSV_QUOTE_SEEN };

/* Zeroed but for the separator at the start of a row. At the end of the input, a state of
 * CSV_QUOTED means that a quote was never closed. */
struct csv {
    char separator;
    enum csv_state state;
    bool is_bad_quote;
    bool ends_plain; /* of a CSV_ROW: a CR that came last belongs to the line end */
};

enum csv_event {
    CSV_NOTHING, /* a quote, a CR behind one */
    CSV_BYTE,    /* the byte belongs to the field */
    CSV_FIELD,   /* the field has ended */
    CSV_ROW      /* so has the row */
};

static inline enum csv_event csv_next(struct csv *c, char byte) {
    if (c->state == CSV_QUOTED) {
        if (byte != '"')
            return CSV_BYTE;
        c->state = CSV_QUOTE_SEEN;
        return CSV_NOTHING;
    }
    if (byte == '"' && c->state != CSV_PLAIN) {
        enum csv_event event = c->state == CSV_START ? CSV_NOTHING : CSV_BYTE;
        c->state = CSV_QUOTED;
        return event;
    }
    if (byte == '\n') {
        c->ends_plain = c->state == CSV_PLAIN;
        c->state = CSV_START;
        return CSV_ROW;
    }
    if (byte == c->separator) {
        c->state = CSV_START;
        return CSV_FIELD;
    }
    if (c->state == CSV_QUOTE_SEEN) {
        if (byte == '\r')
            return CSV_NOTHING;
        c->is_bad_quote = true;
    }
    c->state = CSV_PLAIN;
    return CSV_BYTE;
}

#endif
