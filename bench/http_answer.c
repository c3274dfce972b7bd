/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/http_answer.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#define NO_LENGTH SIZE_MAX
#define MAX_LENGTH ((size_t)1 << 40)

struct head {
    int code;
    size_t n_bytes; /* its empty line included */
    size_t length;  /* of the body, or NO_LENGTH */
    const char *timing;
    size_t n_timing;
    bool is_chunked, is_closing;
};

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK" */
static bool parse_status_line(const char *line, size_t n, struct head *out) {
    if (n < 12 || memcmp(line, "HTTP/1.", 7) != 0 || !is_digit(line[7]) ||
        line[8] != ' ' || !is_digit(line[9]) || !is_digit(line[10]) ||
        !is_digit(line[11]) || (n > 12 && line[12] != ' '))
        return false;
    out->code = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    out->is_closing = line[7] == '0'; /* HTTP/1.0 closes unless it says otherwise */
    return out->code >= 100 && out->code <= 599;
}

static bool parse_length(const char *value, size_t n, size_t *out) {
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_digit(value[i]) || *out > MAX_LENGTH)
            return false;
        *out = *out * 10 + (size_t)(value[i] - '0');
    }
    return n > 0;
}

static bool is_word(const char *text, size_t n, const char *word) {
    return n == strlen(word) && strncasecmp(text, word, n) == 0;
}

static bool parse_field(const char *line, size_t n, struct head *out) {
    const char *colon = memchr(line, ':', n);
    if (!colon || colon == line)
        return false;
    size_t name_bytes = (size_t)(colon - line), value_bytes = n - name_bytes - 1;
    const char *value = colon + 1;
    while (value_bytes && (*value == ' ' || *value == '\t'))
        value++, value_bytes--;
    while (value_bytes &&
           (value[value_bytes - 1] == ' ' || value[value_bytes - 1] == '\t'))
        value_bytes--;
    if (is_word(line, name_bytes, "content-length"))
        return parse_length(value, value_bytes, &out->length);
    if (is_word(line, name_bytes, "server-timing")) {
        out->timing = value;
        out->n_timing = value_bytes;
    } else if (is_word(line, name_bytes, "transfer-encoding"))
        out->is_chunked = is_word(value, value_bytes, "chunked");
    else if (is_word(line, name_bytes, "connection"))
        out->is_closing =
            is_word(value, value_bytes, "close") ||
            (out->is_closing && !is_word(value, value_bytes, "keep-alive"));
    return true;
}

static enum http_parse parse_head(const char *data, size_t n_bytes, struct head *out) {
    *out = (struct head){.length = NO_LENGTH};
    size_t at = 0;
    for (;;) {
        const char *line = data + at, *end = memchr(line, '\n', n_bytes - at);
        if (!end) {
            size_t n = n_bytes < 7 ? n_bytes : 7;
            bool is_odd = n_bytes > HTTP_MAX_HEAD_BYTES || memcmp(data, "HTTP/1.", n);
            return is_odd ? HTTP_MALFORMED : HTTP_INCOMPLETE;
        }
        size_t n = (size_t)(end - line);
        if (n && line[n - 1] == '\r')
            n--;
        bool is_first = at == 0;
        at = (size_t)(end - data) + 1;
        if (!is_first && n == 0) {
            out->n_bytes = at;
            return HTTP_COMPLETE;
        }
        if (is_first ? !parse_status_line(line, n, out) : !parse_field(line, n, out))
            return HTTP_MALFORMED;
    }
}

static int hex_digit(char c) {
    if (is_digit(c))
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The size line of a chunk at data: its bytes in *n_line, the chunk's in *n_chunk. */
static enum http_parse parse_chunk_size(const char *data, size_t n_bytes,
                                        size_t *n_line, size_t *n_chunk) {
    const char *end = memchr(data, '\n', n_bytes);
    size_t n_digits = 0, size = 0;
    while (n_digits < n_bytes && n_digits < 10 && hex_digit(data[n_digits]) >= 0)
        size = size * 16 + (size_t)hex_digit(data[n_digits++]);
    if ((n_digits == 0 && n_bytes > 0) || n_digits == 10)
        return HTTP_MALFORMED;
    if (!end)
        return n_bytes > 1024 ? HTTP_MALFORMED : HTTP_INCOMPLETE;
    *n_line = (size_t)(end - data) + 1;
    *n_chunk = size;
    return HTTP_COMPLETE;
}

/* Walks the chunks at data; with join, moves them together. */
static enum http_parse walk_chunks(char *data, size_t n_bytes, bool join,
                                   size_t *n_body, size_t *n_used) {
    size_t at = 0, n_line, n_chunk;
    *n_body = 0;
    for (;;) {
        enum http_parse parse =
            parse_chunk_size(data + at, n_bytes - at, &n_line, &n_chunk);
        if (parse != HTTP_COMPLETE)
            return parse;
        at += n_line;
        if (n_chunk == 0)
            break;
        if (n_bytes - at < n_chunk + 2)
            return HTTP_INCOMPLETE;
        if (data[at + n_chunk] != '\r' || data[at + n_chunk + 1] != '\n')
            return HTTP_MALFORMED;
        if (join)
            memmove(data + *n_body, data + at, n_chunk);
        *n_body += n_chunk;
        at += n_chunk + 2;
    }
    for (;;) { /* trailers, then an empty line */
        char *end = memchr(data + at, '\n', n_bytes - at);
        if (!end)
            return HTTP_INCOMPLETE;
        size_t n = (size_t)(end - (data + at));
        bool is_empty = n == 0 || (n == 1 && data[at] == '\r');
        at += n + 1;
        if (is_empty) {
            *n_used = at;
            return HTTP_COMPLETE;
        }
    }
}

static enum http_parse parse_body(const struct head *head, char *data, size_t n_bytes,
                                  bool is_end, struct http_answer *out,
                                  size_t *n_used) {
    out->body = data;
    if (head->code == 204 || head->code == 304)
        return HTTP_COMPLETE;
    if (head->is_chunked) {
        enum http_parse parse = walk_chunks(data, n_bytes, false, &out->n_body, n_used);
        if (parse == HTTP_COMPLETE)
            walk_chunks(data, n_bytes, true, &out->n_body, n_used);
        return parse;
    }
    if (head->length == NO_LENGTH) { /* until the server closes */
        out->is_closing = true;
        out->n_body = *n_used = n_bytes;
        return is_end ? HTTP_COMPLETE : HTTP_INCOMPLETE;
    }
    out->n_body = *n_used = head->length;
    return n_bytes >= head->length ? HTTP_COMPLETE : HTTP_INCOMPLETE;
}

enum http_parse http_answer_parse(char *data, size_t n_bytes, bool is_end,
                                  struct http_answer *out, size_t *n_used) {
    struct head head;
    size_t at = 0, n_body_bytes = 0;
    for (;;) {
        enum http_parse parse = parse_head(data + at, n_bytes - at, &head);
        if (parse != HTTP_COMPLETE)
            return parse;
        at += head.n_bytes;
        if (head.code >= 200)
            break;
    }
    *out = (struct http_answer){.code = head.code,
                                .timing = head.timing,
                                .n_timing = head.n_timing,
                                .is_closing = head.is_closing};
    enum http_parse parse =
        parse_body(&head, data + at, n_bytes - at, is_end, out, &n_body_bytes);
    *n_used = at + n_body_bytes;
    return parse;
}
