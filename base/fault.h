/* SPDX-License-Identifier: Apache-2.0
 *
 * fault.h - why a request or one of its texts is not answered: the one table from kinds to
 * HTTP codes and error types.
 *
 * The message names what was wrong, the limit, its value and its flag; it never holds text
 * of the request, a path or an address.
 */
#ifndef VIGIL_BASE_FAULT_H
#define VIGIL_BASE_FAULT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "base/status.h"

enum fault_kind {
    FAULT_NONE,
    FAULT_MALFORMED,
    FAULT_UNAUTHORIZED,
    FAULT_NOT_FOUND,
    FAULT_METHOD,
    FAULT_SLOW_CLIENT,
    FAULT_LENGTH_REQUIRED,
    FAULT_TOO_LARGE,
    FAULT_URI_TOO_LONG,
    FAULT_MEDIA_TYPE,
    FAULT_UNUSABLE,
    FAULT_OVERLOADED,
    FAULT_HEADERS_TOO_LARGE,
    FAULT_NOT_READY,
    FAULT_TIMEOUT,
    FAULT_ENGINE,
    FAULT_CLIENT_GONE, /* nobody is left to read it: for the log alone */
    FAULT_INTERNAL,
    FAULT_KINDS
};

#define FAULT_MESSAGE_BYTES 232

struct fault {
    enum fault_kind kind;
    char message[FAULT_MESSAGE_BYTES];
};

/* Fills *f; a message that is too long is cut. Returns false, so that a reader can write
 * `return fault_set(f, FAULT_UNUSABLE, "...");`. */
bool fault_set(struct fault *f, enum fault_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

int fault_code(enum fault_kind kind);
/* "malformed", "unauthorized", ...: the error_type. */
const char *fault_type(enum fault_kind kind);
/* "Bad Request", ...: the reason phrase of its code. */
const char *fault_reason(enum fault_kind kind);

/* "error":"...","error_type":"..." */
enum status fault_write_members(const struct fault *f, struct buffer *out,
                                struct error *err);
/* The same as an object. */
enum status fault_write(const struct fault *f, struct buffer *out, struct error *err);

#endif
