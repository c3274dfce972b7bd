/* SPDX-License-Identifier: Apache-2.0
 *
 * http_answer.h - reads one HTTP/1.1 answer from the bytes that have arrived so far.
 */
#ifndef VIGIL_BENCH_HTTP_ANSWER_H
#define VIGIL_BENCH_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#define HTTP_MAX_HEAD_BYTES 65536

struct http_answer {
    int code;         /* 100 to 599 */
    const char *body; /* [n_body], into the bytes that were given */
    size_t n_body;
    const char *timing; /* [n_timing] of the Server-Timing header; NULL: none */
    size_t n_timing;
    bool is_closing; /* the server closes the connection after this answer */
};

enum http_parse {
    HTTP_INCOMPLETE, /* more bytes are needed */
    HTTP_COMPLETE,
    HTTP_MALFORMED
};

/* data [n_bytes] begins with an answer; interim ones (1xx) are skipped. is_end: the server
 * has closed the connection, no byte follows. A chunked body is joined in place. *n_used is
 * how many bytes a complete answer takes. */
enum http_parse http_answer_parse(char *data, size_t n_bytes, bool is_end,
                                  struct http_answer *out, size_t *n_used);

#endif
