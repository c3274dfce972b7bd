/* SPDX-License-Identifier: Apache-2.0
 *
 * status.h - what a fallible function returns, and the one line that says why.
 *
 * Every function that can fail returns enum status (STATUS_OK is 0, and there is no other
 * convention) and takes a struct error * last. The message says what failed, where, what was
 * expected and what was found; it never holds the text of a post, and no function names.
 */
#ifndef VIGIL_BASE_STATUS_H
#define VIGIL_BASE_STATUS_H

enum status {
    STATUS_OK = 0,
    STATUS_INVALID,     /* the input is malformed or unusable */
    STATUS_NOT_FOUND,   /* a file, a key or a route is missing */
    STATUS_UNSUPPORTED, /* well-formed, but not something this build or machine can do */
    STATUS_LIMIT,       /* over a stated limit */
    STATUS_NO_MEMORY,
    STATUS_IO,        /* a system call failed; the message holds strerror() */
    STATUS_BUSY,      /* a queue is full: try again later */
    STATUS_TIMEOUT,   /* a deadline passed */
    STATUS_CANCELLED, /* whoever asked has gone, or the program is stopping */
    STATUS_INTERNAL,  /* a bug or broken hardware */
    STATUS_DEVICE     /* a device failed: nothing in this process can use it again */
};

#define ERROR_MESSAGE_BYTES 320

struct error {
    enum status status;
    char message[ERROR_MESSAGE_BYTES];
};

/* Fills *err (NULL allowed) and returns status, so that a caller can write
 * `return error_set(err, STATUS_IO, "cannot open %s: %s", path, strerror(errno));`.
 * A message that is too long is cut. */
enum status error_set(struct error *err, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts `prefix: ` before the message that *err holds already. Returns err->status. */
enum status error_prefix(struct error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "invalid", "no_memory", ...: a constant, for logs and exit messages. */
const char *status_name(enum status status);

#endif
