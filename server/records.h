/* SPDX-License-Identifier: Apache-2.0
 *
 * records.h - reads texts with their ids from JSONL, CSV or plain lines of any size, one
 * record at a time in bounded memory.
 *
 * A record that cannot be used is still a record: it has its id and says why. Lines without
 * a byte are no records (but count as lines). A byte-order mark at the start is skipped,
 * lines end with LF or CR LF, the last one may end without.
 *
 * Threads: one. Call order: open next* close
 */
#ifndef VIGIL_SERVER_RECORDS_H
#define VIGIL_SERVER_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/format.h"
#include "base/status.h"

struct records_options {
    const char *path; /* NULL or "-": standard input */
    enum format format;
    char separator;         /* of CSV columns; 0: tab for .tsv, else comma */
    const char *text_field; /* name of the JSON field or CSV column */
    const char *id_field;
    size_t max_record_bytes; /* of a line or CSV row */
    size_t max_text_bytes;
    int wake_fd; /* next gives STATUS_CANCELLED once this is readable; -1: none */
};

struct record {
    uint64_t number; /* of the line; of the row below the header in CSV */
    const char *id;  /* [id_bytes] JSON: a string or a number */
    size_t id_bytes;
    const char *text; /* [text_bytes], may hold NUL; in CSV and lines maybe not UTF-8 */
    size_t text_bytes;
    struct error error; /* error.status != STATUS_OK: no text, message says why */
};

struct records;

enum status records_open(const struct records_options *options, struct records **out,
                         struct error *err);
void records_close(struct records *r);

/* The next record; its memory is good until the next call.
 * STATUS_NOT_FOUND at the end, STATUS_CANCELLED when woken, STATUS_IO, STATUS_NO_MEMORY;
 * STATUS_INVALID when the CSV header lacks the text column. */
enum status records_next(struct records *r, struct record *out, struct error *err);

/* Would the next call have to wait for whoever writes the input? */
bool records_would_wait(const struct records *r);

enum format records_format(const struct records *r);
uint64_t records_bytes_read(const struct records *r); /* up to the last record */
uint64_t records_size(const struct records *r);       /* of a regular file, else 0 */

#endif
