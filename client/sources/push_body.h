/* SPDX-License-Identifier: Apache-2.0
 *
 * push_body.h - the body of POST /v1/posts, taken apart into records. Pure functions.
 *
 *   application/json                            {"posts":[RECORD,…]}, or one RECORD
 *   application/jsonlines, application/x-ndjson a RECORD a line; empty lines are passed over
 *
 * A record is an object or a string (a text alone). Each is checked to be JSON, so that who
 * sends it hears of it, and is handed on as it was written, line ends in it made blanks;
 * what it means is for the parser later (record.h).
 */
#ifndef VIGIL_CLIENT_SOURCES_PUSH_BODY_H
#define VIGIL_CLIENT_SOURCES_PUSH_BODY_H

#include "base/status.h"
#include "base/view.h"

enum push_form { PUSH_DOCUMENT, PUSH_LINES };

/* By a Content-Type; STATUS_UNSUPPORTED says what is taken. */
enum status push_body_form(struct view content_type, enum push_form *out,
                           struct error *err);

/* Calls each with every record in turn; views lie in the body, which is changed (line ends).
 * *n: how many. Records before a bad one have been handed out by then.
 * STATUS_INVALID  names the record or line by its number, never by what is in it
 * STATUS_LIMIT    a record is longer than SOURCE_MAX_LINE_BYTES, too deep or too full
 * and what each returns. */
enum status push_body_split(enum push_form form, char *body, size_t n_bytes,
                            enum status (*each)(void *context, struct view record,
                                                struct error *err),
                            void *context, size_t *n, struct error *err);

#endif
