/* SPDX-License-Identifier: Apache-2.0
 *
 * auth.h - API keys from a file: one a line, `key`, or `sha256:HEX` so that the file holds no
 * secret; after white space, a name for it that nothing reads. `#` begins a comment.
 *
 * Keys are kept and compared as hashes, all of them every time, so that the time of an
 * answer tells nothing of a key.
 *
 * Threads: any once opened.
 */
#ifndef VIGIL_BASE_AUTH_H
#define VIGIL_BASE_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

#define AUTH_MIN_KEY_BYTES 16
#define AUTH_MAX_KEYS 1024

struct auth;

/* STATUS_INVALID names the line. The file must not be open to others than its owner and
 * group. *out is owned by the caller (auth_close). */
enum status auth_open(const char *path, struct auth **out, struct error *err);
void auth_close(struct auth *a);
size_t auth_count(const struct auth *a);

/* Whether the value of an Authorization header (`Bearer KEY`) or of X-API-Key holds a key.
 * Either may be NULL. */
bool auth_allows(const struct auth *a, const char *authorization, const char *api_key);

#endif
