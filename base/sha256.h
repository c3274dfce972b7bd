/* SPDX-License-Identifier: Apache-2.0
 *
 * sha256.h - SHA-256 of blocks and streams (GnuTLS, with the CPU's SHA instructions), and a
 * comparison that takes the same time whatever differs. The one place that includes gnutls.
 */
#ifndef VIGIL_BASE_SHA256_H
#define VIGIL_BASE_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/view.h"

#define SHA256_BYTES 32
#define SHA256_HEX_BYTES 65 /* 64 digits and a NUL */

/* A hash under way. Zero-initialise; sha256_close(NULL or zeroed) is a no-op.
 * Call order: open add* [finish] close; a finished hash can be added to anew. */
struct sha256 {
    void *state;
};

enum status sha256_open(struct sha256 *h, struct error *err);
enum status sha256_add(struct sha256 *h, const void *data, size_t n_bytes,
                       struct error *err);
void sha256_finish(struct sha256 *h, uint8_t digest[SHA256_BYTES]);
void sha256_close(struct sha256 *h);

/* The hash of one block. */
enum status sha256_of(const void *data, size_t n_bytes, uint8_t digest[SHA256_BYTES],
                      struct error *err);

/* HMAC-SHA-256 of the parts, one behind the other. Any thread. */
enum status sha256_hmac(const void *key, size_t n_key_bytes, const struct view *parts,
                        size_t n_parts, uint8_t digest[SHA256_BYTES],
                        struct error *err);

/* Lower-case hex with a NUL. */
void sha256_hex(const uint8_t digest[SHA256_BYTES], char out[SHA256_HEX_BYTES]);
/* The reverse, of exactly 64 digits in either case; false when text is anything else. */
bool sha256_from_hex(const char *text, size_t n_bytes, uint8_t digest[SHA256_BYTES]);

/* Whether n_bytes are the same, in a time that does not depend on where they differ. For
 * secrets: compare their hashes, so that the length does not show either. */
bool sha256_equal(const void *a, const void *b, size_t n_bytes);

#endif
