/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.h - reads the bytes of a connection before the HTTP library does, and lets through
 * only requests whose framing nobody can read in two ways.
 *
 * libmicrohttpd 0.9.75 takes two Content-Lengths, Content-Length beside Transfer-Encoding,
 * a space before the colon, bare LF line ends, NUL in a value and folded headers; each of
 * them lets a request be smuggled past a proxy that reads it differently. The gate is a
 * strict RFC 9112 reader, a state a byte, without memory of its own: request line, header
 * fields, a body of exactly Content-Length bytes, then the next request.
 *
 * Threads: the one that reads the connection.
 */
#ifndef VIGIL_BASE_GATE_H
#define VIGIL_BASE_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fault.h"

#define GATE_MAX_TARGET_BYTES 1024
#define GATE_MAX_HEAD_BYTES 8192
#define GATE_MAX_HEADERS 64
#define GATE_WORD_BYTES 20

enum gate_state {
    GATE_START, /* between requests */
    GATE_START_LF,
    GATE_METHOD,
    GATE_TARGET,
    GATE_VERSION,
    GATE_LINE_LF, /* LF of the request line */
    GATE_FIELD,   /* first byte of a header line */
    GATE_NAME,
    GATE_SPACE, /* white space before a value */
    GATE_VALUE,
    GATE_VALUE_LF,
    GATE_END_LF, /* LF of the empty line */
    GATE_BODY
};

struct gate {
    enum gate_state state;
    enum fault_kind fault; /* what the gate found; it stays closed from then on */
    const char *why;       /* a constant */
    uint32_t n_messages;   /* heads that passed */
    uint64_t content_length, n_body_left;
    uint32_t n_target, n_head, n_headers, n_word, n_digits;
    uint32_t n_hosts, n_lengths, n_encodings;
    bool is_http_1_0, is_blank_seen, is_length_wide;
    uint8_t field; /* which header is being read */
    char word[GATE_WORD_BYTES];
};

/* Zero-initialise. Reads n_bytes; returns how many of them may be passed on: all of them,
 * or, when g->fault is set, those that belong to requests before the bad one. */
size_t gate_feed(struct gate *g, const char *bytes, size_t n_bytes);

/* Some but not all bytes of a request's head, of a body, have come. */
bool gate_is_in_head(const struct gate *g);
bool gate_is_in_body(const struct gate *g);

#endif
