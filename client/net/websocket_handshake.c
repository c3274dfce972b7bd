/* SPDX-License-Identifier: Apache-2.0
 *
 * websocket_handshake.c - SHA-1 is what RFC 6455 asks for; it protects nothing here, it only
 * tells a WebSocket server from one that echoes.
 */
#include "client/net/websocket_handshake.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define SHA1_BYTES 20
#define SHA1_BLOCK_BYTES 64
#define MAX_ACCEPT_INPUT 128 /* key and GUID are 60 bytes */

/* ---- SHA-1 (FIPS 180-4) and base64 (RFC 4648) --------------------------------------- */

static uint32_t rotate(uint32_t x, unsigned n) {
    return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t h[5], const uint8_t *block) {
    uint32_t w[80];
    for (size_t t = 0; t < 16; t++)
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
               (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    for (size_t t = 16; t < 80; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (size_t t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20) {
            f = (b & c) | (~b & d);
            k = 0x5A827999;
        } else if (t < 40) {
            f = b ^ c ^ d;
            k = 0x6ED9EBA1;
        } else if (t < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8F1BBCDC;
        } else {
            f = b ^ c ^ d;
            k = 0xCA62C1D6;
        }
        uint32_t next = rotate(a, 5) + f + e + k + w[t];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

/* Of at most MAX_ACCEPT_INPUT bytes. */
static void sha1(const char *text, size_t n_bytes, uint8_t out[SHA1_BYTES]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t padded[MAX_ACCEPT_INPUT + 2 * SHA1_BLOCK_BYTES] = {0};
    size_t n = (n_bytes + 8) / SHA1_BLOCK_BYTES * SHA1_BLOCK_BYTES + SHA1_BLOCK_BYTES;
    memcpy(padded, text, n_bytes);
    padded[n_bytes] = 0x80;
    padded[n - 2] = (uint8_t)(n_bytes * 8 >> 8);
    padded[n - 1] = (uint8_t)(n_bytes * 8);
    for (size_t at = 0; at < n; at += SHA1_BLOCK_BYTES)
        sha1_block(h, padded + at);
    for (size_t i = 0; i < SHA1_BYTES; i++)
        out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *bytes, size_t n_bytes, char *out) {
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n_bytes; i += 3) {
        size_t n = n_bytes - i < 3 ? n_bytes - i : 3;
        uint32_t three = (uint32_t)bytes[i] << 16 |
                         (n > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (n > 2 ? bytes[i + 2] : 0);
        for (size_t k = 0; k < 4; k++)
            *out++ = k <= n ? digits[three >> (18 - 6 * k) & 63] : '=';
    }
    *out = '\0';
}

enum status websocket_handshake_key(char out[WEBSOCKET_KEY_BYTES], struct error *err) {
    uint8_t bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return error_set(err, STATUS_IO, "no random bytes: %s", strerror(errno));
    base64(bytes, sizeof bytes, out);
    return STATUS_OK;
}

void websocket_handshake_accept(const char *key, char out[WEBSOCKET_ACCEPT_BYTES]) {
    char text[MAX_ACCEPT_INPUT];
    uint8_t digest[SHA1_BYTES];
    snprintf(text, sizeof text, "%.60s%s", key, GUID);
    sha1(text, strlen(text), digest);
    base64(digest, sizeof digest, out);
}

/* ---- The answer --------------------------------------------------------------------- */

size_t websocket_handshake_end(struct view bytes) {
    static const char end[] = "\r\n\r\n";
    const char *at =
        bytes.n_bytes ? memmem(bytes.data, bytes.n_bytes, end, sizeof end - 1) : NULL;
    return at ? (size_t)(at - bytes.data) + sizeof end - 1 : 0;
}

/* The next line without its CR LF. */
static struct view take_line(struct view *rest) {
    const char *at = rest->n_bytes ? memchr(rest->data, '\n', rest->n_bytes) : NULL;
    size_t n = at ? (size_t)(at - rest->data) : rest->n_bytes;
    struct view line = view_of(rest->data, n);
    *rest = at ? view_of(at + 1, rest->n_bytes - n - 1) : view_of(NULL, 0);
    if (line.n_bytes && line.data[line.n_bytes - 1] == '\r')
        line.n_bytes--;
    return line;
}

static struct view trim(struct view v) {
    while (v.n_bytes && (*v.data == ' ' || *v.data == '\t'))
        v = view_of(v.data + 1, v.n_bytes - 1);
    while (v.n_bytes && (v.data[v.n_bytes - 1] == ' ' || v.data[v.n_bytes - 1] == '\t'))
        v.n_bytes--;
    return v;
}

static bool is_word(struct view v, const char *word) {
    return v.n_bytes == strlen(word) && strncasecmp(v.data, word, v.n_bytes) == 0;
}

/* A list of words with commas between them. */
static bool has_word(struct view list, const char *word) {
    size_t at = 0;
    for (size_t i = 0; i <= list.n_bytes; i++) {
        if (i < list.n_bytes && list.data[i] != ',')
            continue;
        if (is_word(trim(view_of(list.data + at, i - at)), word))
            return true;
        at = i + 1;
    }
    return false;
}

/* Digits alone, fewer than ten; -1 otherwise. */
static int64_t number_of(struct view v) {
    int64_t n = 0;
    if (v.n_bytes == 0 || v.n_bytes > 9)
        return -1;
    for (size_t i = 0; i < v.n_bytes; i++) {
        if (v.data[i] < '0' || v.data[i] > '9')
            return -1;
        n = n * 10 + (v.data[i] - '0');
    }
    return n;
}

struct seen {
    bool has_upgrade, has_connection, has_accept, has_extra;
};

static void read_field(struct view line, const char *accept, struct seen *seen,
                       struct websocket_answer *out) {
    const char *colon = line.n_bytes ? memchr(line.data, ':', line.n_bytes) : NULL;
    if (!colon)
        return;
    struct view name = view_of(line.data, (size_t)(colon - line.data));
    struct view value = trim(view_of(colon + 1, line.n_bytes - name.n_bytes - 1));
    if (is_word(name, "upgrade"))
        seen->has_upgrade |= is_word(value, "websocket");
    else if (is_word(name, "connection"))
        seen->has_connection |= has_word(value, "upgrade");
    else if (is_word(name, "sec-websocket-accept"))
        seen->has_accept |= view_equal(value, view_of_string(accept));
    else if (is_word(name, "sec-websocket-extensions") ||
             is_word(name, "sec-websocket-protocol"))
        seen->has_extra = true;
    else if (is_word(name, "retry-after"))
        out->retry_after_s = number_of(value);
}

enum status websocket_handshake_check(struct view head, const char *key,
                                      struct websocket_answer *out, struct error *err) {
    char accept[WEBSOCKET_ACCEPT_BYTES];
    struct seen seen = {0};
    *out = (struct websocket_answer){.retry_after_s = -1};
    websocket_handshake_accept(key, accept);
    struct view line = take_line(&head);
    if (!view_starts_with(line, VIEW("HTTP/1.")) || line.n_bytes < 12 ||
        line.data[8] != ' ' || (line.n_bytes > 12 && line.data[12] != ' '))
        return error_set(err, STATUS_INVALID, "the server does not speak HTTP/1.1");
    int64_t code = number_of(view_of(line.data + 9, 3));
    bool is_1_1 = line.data[7] == '1';
    out->code = code < 100 ? 0 : (int)code;
    while (head.n_bytes)
        read_field(take_line(&head), accept, &seen, out);
    if (out->code == 0)
        return error_set(err, STATUS_INVALID, "the server does not speak HTTP/1.1");
    if (out->code != 101)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the server answered %d, expected 101 Switching Protocols",
                         out->code);
    const char *missing = !is_1_1                ? "is not HTTP/1.1"
                          : !seen.has_upgrade    ? "lacks Upgrade: websocket"
                          : !seen.has_connection ? "lacks Connection: Upgrade"
                          : !seen.has_accept ? "has not the right Sec-WebSocket-Accept"
                          : seen.has_extra   ? "has an extension that was not asked for"
                                             : NULL;
    if (missing)
        return error_set(err, STATUS_INVALID, "the server's answer 101 %s", missing);
    return STATUS_OK;
}
