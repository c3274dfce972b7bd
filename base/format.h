/* SPDX-License-Identifier: Apache-2.0
 *
 * format.h - the three forms in which posts come as text, and how to tell which it is.
 */
#ifndef VIGIL_BASE_FORMAT_H
#define VIGIL_BASE_FORMAT_H

#include <stddef.h>

#include "base/status.h"

enum format {
    FORMAT_AUTO,  /* by the file's name, else by its first bytes */
    FORMAT_JSONL, /* {"id":…,"text":"…"} or "…" a line */
    FORMAT_CSV,   /* RFC 4180, first row: names of the columns */
    FORMAT_LINES  /* a text a line */
};
#define FORMAT_CHOICES "auto|jsonl|csv|lines"

/* Of one of FORMAT_CHOICES; FORMAT_AUTO for NULL. */
enum format format_of(const char *name);

/* Of CSV columns: tab for .tsv, else comma. path may be NULL. */
char format_separator(const char *path);

/* Looks at the first bytes: how many of them are a byte-order mark. STATUS_UNSUPPORTED for
 * what is no UTF-8 at all: UTF-16, gzip. name: for the message. */
enum status format_check(const char *name, const char *data, size_t n_bytes,
                         size_t *n_mark, struct error *err);

/* By the name's ending, else by the first line (behind the byte-order mark): an object is
 * JSONL, a row with a column named text_field CSV, all else lines. path may be NULL. */
enum format format_guess(const char *path, const char *data, size_t n_bytes,
                         const char *text_field, char separator);

#endif
