/* SPDX-License-Identifier: Apache-2.0
 *
 * text_reader.h - lines out of a file descriptor, for the sources that read text: each with
 * its position, tagged where its form does not show (record.h), rows of CSV with the header
 * row before them.
 *
 * Of a regular file the end is only where it ends now: reading on later is fine. Lines without
 * a byte (and in JSONL of spaces alone) are passed over.
 *
 * Threads: one. Call order: init (begin (next | rest)*)* free
 */
#ifndef VIGIL_CLIENT_SOURCES_TEXT_READER_H
#define VIGIL_CLIENT_SOURCES_TEXT_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/format.h"
#include "base/lines.h"
#include "client/sources/source.h"

#define TEXT_READER_HEAD_BYTES 256

struct text_reader {
    const struct source_settings *settings;
    struct source_state *state; /* bytes and lines are counted there */
    const char *text_field;

    const char
        *path; /* of what is read now, for messages and the format; the caller's */
    int fd;    /* the caller's */
    char *input;
    size_t at, end;
    uint64_t offset;    /* of input[at] */
    uint64_t seek_to;   /* go on there, once the format is known */
    enum format format; /* AUTO: not known yet */
    struct lines lines;
    struct buffer header, out;
    int64_t read_ns; /* when the last bytes came, wall clock */
    bool is_regular; /* read never waits */
    bool is_end;     /* the last read found no more */
    bool has_header;

    /* The first bytes, by which the file is known again. */
    char head[TEXT_READER_HEAD_BYTES];
    size_t n_head;
};

enum status text_reader_init(struct text_reader *r,
                             const struct source_settings *settings,
                             struct source_state *state, struct error *err);
void text_reader_free(struct text_reader *r);

/* From the byte `offset` of fd, which stands at its start (and can seek when offset > 0). */
void text_reader_begin(struct text_reader *r, const char *path, int fd,
                       uint64_t offset);

/* The next line, good until the next call. out->after is left to the caller; the line ends
 * at r->offset.
 * STATUS_OK, STATUS_NOT_FOUND: no more now, STATUS_IO; STATUS_TIMEOUT, STATUS_CANCELLED by
 * wake_fd, both of what is no regular file; STATUS_UNSUPPORTED, STATUS_INVALID of the file
 * as a whole. */
enum status text_reader_next(struct text_reader *r, int wake_fd, int64_t deadline_ns,
                             struct source_line *out, struct error *err);
/* The file is over: what came without a line end is a line too. STATUS_NOT_FOUND: nothing
 * did. */
enum status text_reader_rest(struct text_reader *r, struct source_line *out,
                             struct error *err);

/* Does the file at fd still begin with the bytes that were read from it? */
bool text_reader_is_same(const struct text_reader *r, int fd);
/* A hash of the first bytes of a file, at most TEXT_READER_HEAD_BYTES and at most `offset` of
 * them: a file that only grows keeps it. */
uint64_t text_reader_hash(const char *head, size_t n_head, uint64_t offset);
/* The same of the file at fd. False when it is shorter. */
bool text_reader_hash_of(int fd, uint64_t offset, uint64_t *out);

/* Waits until wake_fd (STATUS_CANCELLED) or other_fd (STATUS_OK; -1: none) can be read, or
 * until_ns (STATUS_TIMEOUT). */
enum status text_reader_wait(int wake_fd, int other_fd, int64_t until_ns,
                             struct error *err);

#endif
