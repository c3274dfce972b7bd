/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sha256.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

static enum status refused(int code, struct error *err) {
    enum status status =
        code == GNUTLS_E_MEMORY_ERROR ? STATUS_NO_MEMORY : STATUS_INTERNAL;
    return error_set(err, status, "cannot hash: %s", gnutls_strerror(code));
}

enum status sha256_open(struct sha256 *h, struct error *err) {
    gnutls_hash_hd_t handle = NULL;
    h->state = NULL;
    int code = gnutls_hash_init(&handle, GNUTLS_DIG_SHA256);
    if (code < 0)
        return refused(code, err);
    h->state = handle;
    return STATUS_OK;
}

enum status sha256_add(struct sha256 *h, const void *data, size_t n_bytes,
                       struct error *err) {
    int code = n_bytes ? gnutls_hash(h->state, data, n_bytes) : 0;
    return code < 0 ? refused(code, err) : STATUS_OK;
}

void sha256_finish(struct sha256 *h, uint8_t digest[SHA256_BYTES]) {
    gnutls_hash_output(h->state, digest);
}

void sha256_close(struct sha256 *h) {
    if (!h || !h->state)
        return;
    gnutls_hash_deinit(h->state, NULL);
    h->state = NULL;
}

enum status sha256_of(const void *data, size_t n_bytes, uint8_t digest[SHA256_BYTES],
                      struct error *err) {
    struct sha256 h;
    enum status status = sha256_open(&h, err);
    if (status != STATUS_OK)
        return status;
    status = sha256_add(&h, data, n_bytes, err);
    if (status == STATUS_OK)
        sha256_finish(&h, digest);
    sha256_close(&h);
    return status;
}

enum status sha256_hmac(const void *key, size_t n_key_bytes, const struct view *parts,
                        size_t n_parts, uint8_t digest[SHA256_BYTES],
                        struct error *err) {
    gnutls_hmac_hd_t handle = NULL;
    int code = gnutls_hmac_init(&handle, GNUTLS_MAC_SHA256, key, n_key_bytes);
    for (size_t i = 0; i < n_parts && code >= 0; i++)
        if (parts[i].n_bytes)
            code = gnutls_hmac(handle, parts[i].data, parts[i].n_bytes);
    if (handle)
        gnutls_hmac_deinit(handle, digest);
    return code < 0 ? refused(code, err) : STATUS_OK;
}

void sha256_hex(const uint8_t digest[SHA256_BYTES], char out[SHA256_HEX_BYTES]) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * SHA256_BYTES] = '\0';
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool sha256_from_hex(const char *text, size_t n_bytes, uint8_t digest[SHA256_BYTES]) {
    if (n_bytes != 2 * (size_t)SHA256_BYTES)
        return false;
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        digest[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool sha256_equal(const void *a, const void *b, size_t n_bytes) {
    return gnutls_memcmp(a, b, n_bytes) == 0;
}
