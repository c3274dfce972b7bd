/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.c - one function a part of the message, one call a byte; bodies are skipped whole.
 */
#include "base/gate.h"

#include <string.h>
#include <strings.h>

enum field { FIELD_OTHER, FIELD_HOST, FIELD_LENGTH, FIELD_ENCODING };

/* RFC 9110 token characters. */
static bool is_token(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static void refuse(struct gate *g, enum fault_kind kind, const char *why) {
    g->fault = kind;
    g->why = why;
}

static void malformed(struct gate *g, const char *why) {
    refuse(g, FAULT_MALFORMED, why);
}

static void start_message(struct gate *g) {
    uint32_t n_messages = g->n_messages;
    memset(g, 0, sizeof *g);
    g->n_messages = n_messages;
}

/* The empty line has come: is the whole head one that has a single reading? */
static void finish_head(struct gate *g) {
    if (g->n_encodings && g->n_lengths) {
        malformed(g, "both Content-Length and Transfer-Encoding");
        return;
    }
    if (g->n_encodings > 1) {
        malformed(g, "more than one Transfer-Encoding");
        return;
    }
    if (g->n_lengths > 1) {
        malformed(g, "more than one Content-Length");
        return;
    }
    if (g->n_hosts > 1) {
        malformed(g, "more than one Host");
        return;
    }
    if (g->n_hosts == 0 && !g->is_http_1_0) {
        malformed(g, "no Host");
        return;
    }
    if (g->n_encodings) {
        refuse(g, FAULT_LENGTH_REQUIRED,
               "Transfer-Encoding is not accepted, send Content-Length");
        return;
    }
    if (g->is_length_wide) {
        refuse(g, FAULT_TOO_LARGE, "Content-Length has more than 18 digits");
        return;
    }
    g->n_messages++;
    if (g->content_length) {
        g->n_body_left = g->content_length;
        g->state = GATE_BODY;
    } else {
        start_message(g);
    }
}

static void read_start(struct gate *g, uint8_t c) {
    /* One empty line after a body is forgiven: old clients send it. */
    if (c == '\r' && !g->is_blank_seen) {
        g->is_blank_seen = true;
        g->state = GATE_START_LF;
    } else if (is_token(c)) {
        g->state = GATE_METHOD;
        g->n_word = 1;
        g->n_head = 1;
    } else {
        malformed(g, "not a request line");
    }
}

static void read_method(struct gate *g, uint8_t c) {
    if (c == ' ')
        g->state = GATE_TARGET;
    else if (!is_token(c) || ++g->n_word > GATE_WORD_BYTES)
        malformed(g, "not a method");
}

static void read_target(struct gate *g, uint8_t c) {
    if (c == ' ' && g->n_target) {
        g->state = GATE_VERSION;
        g->n_word = 0;
    } else if (c <= 0x20 || c >= 0x7F) {
        malformed(g, "a byte in the path that must be percent-encoded");
    } else if (g->n_target == 0 && c != '/' && c != '*') {
        malformed(g, "the request target must be a path");
    } else if (++g->n_target > GATE_MAX_TARGET_BYTES) {
        refuse(g, FAULT_URI_TOO_LONG, "the path has more than 1024 bytes");
    }
}

static void read_version(struct gate *g, uint8_t c) {
    static const char expected[] = "HTTP/1.";
    if (g->n_word < sizeof expected - 1) {
        if (c != (uint8_t)expected[g->n_word]) {
            malformed(g, "the version must be HTTP/1.1 or HTTP/1.0");
            return;
        }
        g->n_word++;
    } else if (g->n_word == sizeof expected - 1) {
        if (c != '0' && c != '1') {
            malformed(g, "the version must be HTTP/1.1 or HTTP/1.0");
            return;
        }
        g->is_http_1_0 = c == '0';
        g->n_word++;
    } else if (c == '\r') {
        g->state = GATE_LINE_LF;
    } else {
        malformed(g, "the request line must end with CR LF");
    }
}

static void read_lf(struct gate *g, uint8_t c, enum gate_state next) {
    if (c != '\n')
        malformed(g, "CR without LF");
    else
        g->state = next;
}

static void read_field(struct gate *g, uint8_t c) {
    if (c == '\r') {
        g->state = GATE_END_LF;
    } else if (c == ' ' || c == '\t') {
        malformed(g, "a folded header line");
    } else if (!is_token(c)) {
        malformed(g, "a header line without a name");
    } else if (++g->n_headers > GATE_MAX_HEADERS) {
        refuse(g, FAULT_HEADERS_TOO_LARGE, "more than 64 header lines");
    } else {
        g->word[0] = (char)c;
        g->n_word = 1;
        g->state = GATE_NAME;
    }
}

static bool is_named(const struct gate *g, const char *name) {
    return g->n_word == strlen(name) && strncasecmp(g->word, name, g->n_word) == 0;
}

static void read_name(struct gate *g, uint8_t c) {
    if (c == ':') {
        g->field = FIELD_OTHER;
        if (is_named(g, "host")) {
            g->field = FIELD_HOST;
            g->n_hosts++;
        } else if (is_named(g, "content-length")) {
            g->field = FIELD_LENGTH;
            g->n_lengths++;
            g->content_length = 0;
        } else if (is_named(g, "transfer-encoding")) {
            g->field = FIELD_ENCODING;
            g->n_encodings++;
        }
        g->n_digits = 0;
        g->state = GATE_SPACE;
    } else if (!is_token(c)) {
        malformed(g, c == ' ' || c == '\t' ? "white space before the colon of a header"
                                           : "a byte that no header name may hold");
    } else {
        if (g->n_word < GATE_WORD_BYTES)
            g->word[g->n_word] = (char)c;
        g->n_word++;
    }
}

/* A byte of Content-Length: digits alone. White space behind them is legal, but the library
 * would answer it in a way of its own. */
static void read_length(struct gate *g, uint8_t c) {
    if (c < '0' || c > '9') {
        malformed(g, "Content-Length must be a number");
    } else if (g->n_digits >= 18) {
        g->is_length_wide = true;
    } else {
        g->content_length = g->content_length * 10 + (uint64_t)(c - '0');
        g->n_digits++;
    }
}

static void read_value(struct gate *g, uint8_t c) {
    if (c == '\r') {
        if (g->field == FIELD_LENGTH && g->n_digits == 0) {
            malformed(g, "Content-Length must be a number");
            return;
        }
        if (g->field == FIELD_HOST && g->n_digits == 0) {
            malformed(g, "an empty Host");
            return;
        }
        g->state = GATE_VALUE_LF;
    } else if ((c < 0x20 && c != '\t') || c == 0x7F) {
        malformed(g, c == '\n' ? "LF without CR"
                               : "a control character in a header's value");
    } else if (g->state == GATE_SPACE && (c == ' ' || c == '\t')) {
        return;
    } else {
        g->state = GATE_VALUE;
        if (g->field == FIELD_LENGTH)
            read_length(g, c);
        else
            g->n_digits |= 1; /* only: that there is a value */
    }
}

static void read_byte(struct gate *g, uint8_t c) {
    if (g->state != GATE_START && ++g->n_head > GATE_MAX_HEAD_BYTES) {
        refuse(g, FAULT_HEADERS_TOO_LARGE, "the headers have more than 8192 bytes");
        return;
    }
    switch (g->state) {
    case GATE_START:
        read_start(g, c);
        break;
    case GATE_START_LF:
        read_lf(g, c, GATE_START);
        break;
    case GATE_METHOD:
        read_method(g, c);
        break;
    case GATE_TARGET:
        read_target(g, c);
        break;
    case GATE_VERSION:
        read_version(g, c);
        break;
    case GATE_LINE_LF:
    case GATE_VALUE_LF:
        read_lf(g, c, GATE_FIELD);
        break;
    case GATE_FIELD:
        read_field(g, c);
        break;
    case GATE_NAME:
        read_name(g, c);
        break;
    case GATE_SPACE:
    case GATE_VALUE:
        read_value(g, c);
        break;
    case GATE_END_LF:
        if (c != '\n') {
            malformed(g, "CR without LF");
            return;
        }
        finish_head(g);
        break;
    case GATE_BODY:
        break;
    }
}

size_t gate_feed(struct gate *g, const char *bytes, size_t n_bytes) {
    size_t at = 0, boundary = 0; /* boundary: where the last whole request ends */
    if (g->fault != FAULT_NONE)
        return 0;
    while (at < n_bytes) {
        if (g->state == GATE_BODY) {
            size_t n = n_bytes - at;
            if (n > g->n_body_left)
                n = (size_t)g->n_body_left;
            g->n_body_left -= n;
            at += n;
            boundary = at;
            if (g->n_body_left == 0)
                start_message(g);
            continue;
        }
        read_byte(g, (uint8_t)bytes[at++]);
        if (g->fault != FAULT_NONE)
            return boundary;
        if (g->state == GATE_BODY || (g->state == GATE_START && !g->is_blank_seen))
            boundary = at;
    }
    return n_bytes;
}

bool gate_is_in_head(const struct gate *g) {
    return g->state != GATE_START && g->state != GATE_BODY;
}

bool gate_is_in_body(const struct gate *g) {
    return g->state == GATE_BODY;
}
