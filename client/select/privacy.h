/* SPDX-License-Identifier: Apache-2.0
 *
 * privacy.h - what of a person is kept: authors as keyed hashes, contact data masked.
 *
 * Modes (store.h): full keeps all; pseudonymous, the default, keeps HMAC-SHA-256 of author
 * ids (128 bits in hex, under the key file of the store), keys of posts hashed where the
 * native id tells the author, and text with handles, links, mail addresses and phone numbers
 * masked; aggregate is pseudonymous until the result is there, and then only counts.
 *
 * Threads: open and close one; all else any.
 */
#ifndef VIGIL_CLIENT_SELECT_PRIVACY_H
#define VIGIL_CLIENT_SELECT_PRIVACY_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"
#include "store/store.h"

#define PRIVACY_HASH_BYTES 33 /* 32 digits and a NUL */

struct privacy;

/* key_file: 32 bytes in hex; made (0600, from the kernel's generator) when it is missing and
 * creates is set. Refused when others can read it. */
enum status privacy_open(const char *key_file, bool creates, enum store_mode mode,
                         struct privacy **out, struct error *err);
void privacy_close(struct privacy *p);
enum store_mode privacy_mode(const struct privacy *p);

/* The default file: the store's path with ".key" behind it; for PostgreSQL
 * $XDG_CONFIG_HOME/vigil/store.key. */
enum status privacy_key_path(const char *store_url, char *out, size_t cap_bytes,
                             struct error *err);

/* HMAC of "source NUL value", as hex: of authors, and of keys that name one. Anything but
 * STATUS_OK (no memory in GnuTLS) leaves *out empty. */
enum status privacy_hash(const struct privacy *p, const char *source, struct view value,
                         char out[PRIVACY_HASH_BYTES]);

/* The author as stored in this mode; none when it is aggregate. Empty stays empty. */
enum status privacy_author(const struct privacy *p, const char *source,
                           struct view author, struct arena *arena, struct view *out,
                           struct error *err);
/* "source:native id", or "source:~HASH" when the id tells the author and the mode hides
 * him (of aggregate sources always). */
enum status privacy_key(const struct privacy *p, const char *source,
                        struct view native_id, bool has_author, struct arena *arena,
                        struct view *out, struct error *err);

/* Text with addresses replaced, in any language:
 *   "@user"    @name, @name@instance, decentralised ids (did:…)
 *   "http"     links with a scheme, www.…, domains of common top levels
 *   "<mail>"   mail addresses
 *   "<phone>"  +… and 00… with 7 to 15 digits, US and Canadian numbers, national ones with a
 *              leading 0 and 10 or 11 digits, 11 to 15 digits in a row; seven digits as
 *              555-1234 unless they look like a range. Numbers with a unit are doses.
 * All text, in every mode, comes out as valid UTF-8 without NUL (U+FFFD in their place). When
 * mode is full, nothing else changes. Offsets are counted in the result. Linear time. */
enum status privacy_mask(const struct privacy *p, struct view text, struct arena *arena,
                         struct view *out, struct error *err);

#endif
