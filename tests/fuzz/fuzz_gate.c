/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_gate.c - the gate gives one verdict however the bytes are cut, and a second reader,
 * which sees whole heads and splits them into lines, gives the same.
 *
 * Input: a byte that seeds the cuts, then what a client sends.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define MAX_BYTES 12000

static void require(bool is_true) {
    if (!is_true)
        abort();
}

enum verdict { GOOD, BAD, INCOMPLETE };

struct head {
    size_t n_bytes; /* with an empty line before it and the one behind it */
    uint64_t n_body;
};

static bool is_word(const char *p, size_t n) {
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < n; i++) {
        unsigned lower = (uint8_t)p[i] | 0x20u;
        if (!(p[i] >= '0' && p[i] <= '9') && !(lower >= 'a' && lower <= 'z') &&
            !memchr(others, p[i], sizeof others - 1))
            return false;
    }
    return n > 0;
}

static bool is_request_line(const char *p, size_t n, bool *is_1_0) {
    const char *first = memchr(p, ' ', n);
    if (!first || !is_word(p, (size_t)(first - p)) || first - p > GATE_WORD_BYTES)
        return false;
    const char *target = first + 1, *end = p + n;
    const char *second = memchr(target, ' ', (size_t)(end - target));
    if (!second || second == target || (*target != '/' && *target != '*') ||
        second - target > GATE_MAX_TARGET_BYTES)
        return false;
    for (const char *c = target; c < second; c++)
        if (*c <= 0x20 || *c >= 0x7F)
            return false;
    if (end - second != 9 ||
        (memcmp(second, " HTTP/1.1", 9) != 0 && memcmp(second, " HTTP/1.0", 9) != 0))
        return false;
    *is_1_0 = second[8] == '0';
    return true;
}

static bool is_length(const char *p, size_t n, uint64_t *out) {
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || i >= 18)
            return false;
        *out = *out * 10 + (uint64_t)(p[i] - '0');
    }
    return n > 0;
}

struct counts {
    int headers, hosts, lengths, encodings;
};

static bool is_header(const char *p, size_t n, struct counts *counts, uint64_t *body) {
    const char *colon = memchr(p, ':', n);
    if (!colon || !is_word(p, (size_t)(colon - p)))
        return false;
    size_t n_name = (size_t)(colon - p);
    const char *value = colon + 1, *end = p + n;
    for (const char *c = value; c < end; c++)
        if (((uint8_t)*c < 0x20 && *c != '\t') || *c == 0x7F)
            return false;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (value < end && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    counts->headers++;
    if (n_name == 4 && strncasecmp(p, "host", 4) == 0) {
        counts->hosts++;
        return value < end;
    }
    if (n_name == 14 && strncasecmp(p, "content-length", 14) == 0) {
        counts->lengths++;
        return is_length(value, (size_t)(p + n - value), body);
    }
    if (n_name == 17 && strncasecmp(p, "transfer-encoding", 17) == 0)
        counts->encodings++;
    return true;
}

/* Reads the head at p by lines. */
static enum verdict read_head(const char *p, size_t n_bytes, struct head *head) {
    size_t at = n_bytes >= 2 && memcmp(p, "\r\n", 2) == 0 ? 2 : 0;
    const char *end = at < n_bytes ? memmem(p + at, n_bytes - at, "\r\n\r\n", 4) : NULL;
    struct counts counts = {0};
    bool is_first = true, is_1_0 = false;
    if (!end)
        return INCOMPLETE;
    *head = (struct head){.n_bytes = (size_t)(end - p) + 4};
    if (head->n_bytes - at > GATE_MAX_HEAD_BYTES)
        return BAD;
    for (const char *line = p + at; line <= end; is_first = false) {
        const char *stop = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        size_t n = (size_t)(stop - line);
        if (is_first ? !is_request_line(line, n, &is_1_0)
                     : !is_header(line, n, &counts, &head->n_body))
            return BAD;
        line = stop + 2;
    }
    bool is_good = counts.headers <= GATE_MAX_HEADERS && counts.hosts <= 1 &&
                   (counts.hosts == 1 || is_1_0) && counts.lengths <= 1 &&
                   counts.encodings == 0;
    return is_good ? GOOD : BAD;
}

/* The bytes up to the one that the gate refused, however they go on, are no head. */
static void require_hopeless(const char *p, size_t n_bytes) {
    static const char *const ends[] = {"\r\n\r\n",
                                       "\n\r\n",
                                       "\r\nHost: a\r\n\r\n",
                                       "\nHost: a\r\n\r\n",
                                       ":\r\n\r\n",
                                       ": a\r\nHost: a\r\n\r\n",
                                       " HTTP/1.1\r\nHost: a\r\n\r\n",
                                       "/ HTTP/1.1\r\nHost: a\r\n\r\n",
                                       "1\r\nHost: a\r\n\r\n"};
    static char whole[MAX_BYTES + 64];
    memcpy(whole, p, n_bytes);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct head head;
        size_t n_end = strlen(ends[i]);
        memcpy(whole + n_bytes, ends[i], n_end);
        require(read_head(whole, n_bytes + n_end, &head) != GOOD);
    }
}

/* Feeds in pieces of 1 to 16 bytes, until the gate closes. */
static void feed_pieces(struct gate *g, const char *p, size_t n_bytes, uint32_t seed) {
    size_t at = 0;
    while (at < n_bytes && g->fault == FAULT_NONE) {
        seed = seed * 1664525u + 1013904223u;
        size_t n = seed == 0 ? 1 : 1 + (seed >> 28);
        if (n > n_bytes - at)
            n = n_bytes - at;
        size_t n_passed = gate_feed(g, p + at, n);
        require(g->fault == FAULT_NONE ? n_passed == n : n_passed < n);
        at += n;
    }
}

static void require_same(const struct gate *a, const struct gate *b) {
    require(a->fault == b->fault && a->why == b->why && a->state == b->state &&
            a->n_messages == b->n_messages && a->n_body_left == b->n_body_left &&
            a->content_length == b->content_length);
}

/* Byte by byte, up to the one at which the gate closed, as it did before. */
static size_t feed_bytes(const struct gate *before, const char *p, size_t n_bytes) {
    struct gate g = {0};
    size_t at = 0;
    while (at < n_bytes && g.fault == FAULT_NONE)
        gate_feed(&g, p + at++, 1);
    require_same(&g, before);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 1 || n_bytes > MAX_BYTES)
        return 0;
    const char *p = (const char *)data + 1;
    size_t n = n_bytes - 1, at = 0;
    struct gate whole = {0}, pieces = {0};
    size_t n_passed = gate_feed(&whole, p, n);
    feed_pieces(&pieces, p, n, data[0]);
    require_same(&whole, &pieces);
    require((whole.fault == FAULT_NONE) == (whole.why == NULL));

    uint32_t n_messages = 0;
    enum verdict verdict = GOOD;
    uint64_t n_body_left = 0;
    while (at < n) {
        struct head head;
        verdict = read_head(p + at, n - at, &head);
        if (verdict != GOOD)
            break;
        n_messages++;
        at += head.n_bytes;
        n_body_left = head.n_body > n - at ? head.n_body - (n - at) : 0;
        at += (size_t)(head.n_body - n_body_left);
    }
    require(n_messages == whole.n_messages);
    if (verdict == GOOD) {
        require(whole.fault == FAULT_NONE && !gate_is_in_head(&whole));
        require(gate_is_in_body(&whole) == (n_body_left > 0));
        require(whole.n_body_left == n_body_left);
    }
    if (verdict == BAD)
        require(whole.fault != FAULT_NONE);
    if (whole.fault != FAULT_NONE) {
        require(n_passed == at);
        require(!gate_feed(&whole, "GET / HTTP/1.0\r\n\r\n", 18));
        if (verdict == INCOMPLETE)
            require_hopeless(p + at, feed_bytes(&whole, p, n) - at);
    } else {
        require(n_passed == n);
    }
    return 0;
}
