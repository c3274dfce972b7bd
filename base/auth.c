/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auth.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/sha256.h"

#define MAX_FILE_BYTES (256u << 10)
#define HASH_PREFIX "sha256:"
#define BEARER "bearer "

struct auth {
    size_t n_keys;
    uint8_t hashes[AUTH_MAX_KEYS][SHA256_BYTES];
};

/* One line without its end: [key][white space][name]. */
static enum status add_line(struct auth *a, const char *path, size_t number,
                            const char *line, size_t n_bytes, struct error *err) {
    size_t n = strcspn(line, " \t\r#");
    if (n > n_bytes)
        n = n_bytes;
    if (n == 0)
        return STATUS_OK;
    if (a->n_keys == AUTH_MAX_KEYS)
        return error_set(err, STATUS_LIMIT, "%s: more than %d keys", path,
                         AUTH_MAX_KEYS);
    uint8_t *hash = a->hashes[a->n_keys];
    size_t n_prefix = sizeof HASH_PREFIX - 1;
    if (n > n_prefix && memcmp(line, HASH_PREFIX, n_prefix) == 0) {
        if (!sha256_from_hex(line + n_prefix, n - n_prefix, hash))
            return error_set(err, STATUS_INVALID,
                             "%s, line %zu: expected 64 hex digits after sha256:", path,
                             number);
    } else {
        if (n < AUTH_MIN_KEY_BYTES)
            return error_set(err, STATUS_INVALID,
                             "%s, line %zu: a key of %zu bytes, expected %d or more",
                             path, number, n, AUTH_MIN_KEY_BYTES);
        enum status status = sha256_of(line, n, hash, err);
        if (status != STATUS_OK)
            return status;
    }
    a->n_keys++;
    return STATUS_OK;
}

enum status auth_open(const char *path, struct auth **out, struct error *err) {
    char *text = NULL;
    size_t n_bytes = 0;
    struct stat info;
    *out = NULL;
    enum status status = file_read(path, MAX_FILE_BYTES, &text, &n_bytes, err);
    if (status != STATUS_OK)
        return status;
    struct auth *a = calloc(1, sizeof *a);
    if (!a)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for API keys");
    else if (stat(path, &info) == 0 && (info.st_mode & S_IRWXO))
        status = error_set(err, STATUS_INVALID,
                           "%s: others may read it, expected mode 640 or less", path);
    size_t number = 1;
    for (char *line = text; status == STATUS_OK && line < text + n_bytes; number++) {
        size_t n = strcspn(line, "\n");
        line[n] = '\0';
        status = add_line(a, path, number, line, n, err);
        line += n + 1;
    }
    if (status == STATUS_OK && a->n_keys == 0)
        status = error_set(err, STATUS_INVALID, "%s: there is no key in it", path);
    explicit_bzero(text, n_bytes);
    free(text);
    if (status == STATUS_OK)
        *out = a;
    else
        auth_close(a);
    return status;
}

void auth_close(struct auth *a) {
    if (a)
        explicit_bzero(a, sizeof *a);
    free(a);
}

size_t auth_count(const struct auth *a) {
    return a ? a->n_keys : 0;
}

static bool is_known(const struct auth *a, const char *key) {
    uint8_t hash[SHA256_BYTES];
    bool is_found = false;
    if (sha256_of(key, strlen(key), hash, NULL) != STATUS_OK)
        return false;
    for (size_t i = 0; i < a->n_keys; i++)
        is_found |= sha256_equal(hash, a->hashes[i], sizeof hash);
    return is_found;
}

bool auth_allows(const struct auth *a, const char *authorization, const char *api_key) {
    size_t n_bearer = sizeof BEARER - 1;
    if (authorization && strncasecmp(authorization, BEARER, n_bearer) == 0 &&
        is_known(a, authorization + n_bearer))
        return true;
    return api_key && is_known(a, api_key);
}
