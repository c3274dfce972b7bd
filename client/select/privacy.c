/* SPDX-License-Identifier: Apache-2.0
 *
 * privacy.c - the key file, and what is hashed under it. Masking is privacy_mask.c.
 */
#include "client/select/privacy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "client/select/privacy_data.h"

#define KEY_HEX_BYTES (2 * SHA256_BYTES)

/* Reads the key; STATUS_NOT_FOUND when there is no file. */
static enum status read_key(const char *path, uint8_t key[SHA256_BYTES],
                            struct error *err) {
    char text[KEY_HEX_BYTES + 8];
    enum status status = STATUS_OK;
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                         "cannot open the key file %s: %s", path, strerror(errno));
    ssize_t n = 0;
    if (fstat(fd, &about) != 0)
        status = error_set(err, STATUS_IO, "cannot look at the key file %s: %s", path,
                           strerror(errno));
    else if (!S_ISREG(about.st_mode))
        status =
            error_set(err, STATUS_INVALID, "the key file %s is no regular file", path);
    else if (about.st_mode & 077)
        status =
            error_set(err, STATUS_INVALID,
                      "the key file %s can be read by others (mode %03o): chmod 600",
                      path, about.st_mode & 0777u);
    else if ((n = read(fd, text, sizeof text)) < 0)
        status = error_set(err, STATUS_IO, "cannot read the key file %s: %s", path,
                           strerror(errno));
    close(fd);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    if (status == STATUS_OK && !sha256_from_hex(text, (size_t)n, key))
        status = error_set(err, STATUS_INVALID,
                           "the key file %s does not hold %d hex digits", path,
                           KEY_HEX_BYTES);
    explicit_bzero(text, sizeof text);
    return status;
}

static enum status failed(const char *path, struct error *err) {
    return error_set(err, STATUS_IO, "cannot make the key file %s: %s", path,
                     strerror(errno));
}

/* Makes the folders above a file, readable by the owner alone, where they are missing. */
static enum status make_folders(const char *path, struct error *err) {
    char folder[FILE_PATH_BYTES];
    size_t n = strlen(path);
    if (n >= sizeof folder)
        return error_set(err, STATUS_LIMIT, "the path of the key file is too long");
    memcpy(folder, path, n + 1);
    for (char *at = folder; (at = strchr(at + 1, '/'));) {
        *at = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST && errno != EROFS &&
            errno != EACCES)
            return failed(path, err);
        *at = '/';
    }
    return STATUS_OK;
}

static bool write_all(int fd, const char *data, size_t n_bytes) {
    while (n_bytes > 0) {
        ssize_t n = write(fd, data, n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        n_bytes -= (size_t)n;
    }
    return true;
}

/* The new key is written beside its place and then linked there, so that of two programs that
 * start at once one makes it and both read the same, whole. */
static enum status make_key(const char *path, struct error *err) {
    uint8_t key[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES + 1], temporary[FILE_PATH_BYTES];
    int n = snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary)
        return error_set(err, STATUS_LIMIT, "the path of the key file is too long");
    enum status status = make_folders(path, err);
    if (status != STATUS_OK)
        return status;
    if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
        return failed(path, err);
    sha256_hex(key, hex);
    hex[KEY_HEX_BYTES] = '\n';
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, 0600) != 0 || !write_all(fd, hex, KEY_HEX_BYTES + 1) ||
        fsync(fd) != 0 || (link(temporary, path) != 0 && errno != EEXIST))
        status = failed(path, err);
    if (fd >= 0) {
        close(fd);
        unlink(temporary);
    }
    explicit_bzero(key, sizeof key);
    explicit_bzero(hex, sizeof hex);
    char *slash = strrchr(temporary, '/');
    if (slash)
        *slash = '\0';
    int folder = open(slash ? (slash == temporary ? "/" : temporary) : ".",
                      O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        if (status == STATUS_OK && fsync(folder) != 0)
            status = failed(path, err);
        close(folder);
    }
    return status;
}

enum status privacy_open(const char *key_file, bool creates, enum store_mode mode,
                         struct privacy **out, struct error *err) {
    *out = NULL;
    struct privacy *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the key");
    p->mode = mode;
    /* Where the limits do not allow it, the key may be swapped; nothing else is lost. */
    (void)mlock(p->key, sizeof p->key);
    enum status status = read_key(key_file, p->key, err);
    if (status == STATUS_NOT_FOUND && creates) {
        status = make_key(key_file, err);
        if (status == STATUS_OK)
            status = read_key(key_file, p->key, err);
    }
    if (status != STATUS_OK) {
        privacy_close(p);
        return status;
    }
    *out = p;
    return STATUS_OK;
}

void privacy_close(struct privacy *p) {
    if (!p)
        return;
    explicit_bzero(p->key, sizeof p->key);
    (void)munlock(p->key, sizeof p->key);
    free(p);
}

enum store_mode privacy_mode(const struct privacy *p) {
    return p->mode;
}

enum status privacy_key_path(const char *store_url, char *out, size_t cap_bytes,
                             struct error *err) {
    int n;
    if (strncmp(store_url, "postgres://", 11) == 0 ||
        strncmp(store_url, "postgresql://", 13) == 0) {
        const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
        bool has_config = config && *config == '/';
        if (!has_config && (!home || *home != '/'))
            return error_set(
                err, STATUS_NOT_FOUND,
                "no place for the key: neither XDG_CONFIG_HOME nor HOME is "
                "set; name a file");
        n = has_config ? snprintf(out, cap_bytes, "%s/vigil/store.key", config)
                       : snprintf(out, cap_bytes, "%s/.config/vigil/store.key", home);
    } else {
        bool has_scheme = strncmp(store_url, "sqlite:", 7) == 0;
        n = snprintf(out, cap_bytes, "%s.key", store_url + (has_scheme ? 7 : 0));
    }
    if (n < 0 || (size_t)n >= cap_bytes)
        return error_set(err, STATUS_LIMIT, "the path of the key file is too long");
    return STATUS_OK;
}

enum status privacy_hash(const struct privacy *p, const char *source, struct view value,
                         char out[PRIVACY_HASH_BYTES]) {
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    struct view parts[] = {view_of(source, strlen(source) + 1), value};
    enum status status = sha256_hmac(p->key, sizeof p->key, parts, 2, digest, NULL);
    out[0] = '\0';
    if (status != STATUS_OK)
        return status;
    sha256_hex(digest, hex);
    memcpy(out, hex, PRIVACY_HASH_BYTES - 1);
    out[PRIVACY_HASH_BYTES - 1] = '\0';
    return STATUS_OK;
}

static enum status hash_failed(enum status status, struct error *err) {
    return error_set(err, status, "cannot hash an id: %s", status_name(status));
}

enum status privacy_author(const struct privacy *p, const char *source,
                           struct view author, struct arena *arena, struct view *out,
                           struct error *err) {
    char hash[PRIVACY_HASH_BYTES];
    *out = view_of(NULL, 0);
    if (author.n_bytes == 0 || p->mode == STORE_AGGREGATE)
        return STATUS_OK;
    if (p->mode == STORE_FULL)
        return arena_copy(arena, author, out, err);
    enum status status = privacy_hash(p, source, author, hash);
    if (status != STATUS_OK)
        return hash_failed(status, err);
    return arena_copy(arena, view_of(hash, PRIVACY_HASH_BYTES - 1), out, err);
}

enum status privacy_key(const struct privacy *p, const char *source,
                        struct view native_id, bool has_author, struct arena *arena,
                        struct view *out, struct error *err) {
    bool is_hidden =
        p->mode == STORE_AGGREGATE || (p->mode == STORE_PSEUDONYMOUS && has_author);
    char hash[PRIVACY_HASH_BYTES];
    if (is_hidden) {
        enum status status = privacy_hash(p, source, native_id, hash);
        if (status != STATUS_OK)
            return hash_failed(status, err);
        native_id = view_of(hash, PRIVACY_HASH_BYTES - 1);
    }
    size_t n_source = strlen(source);
    size_t n_bytes;
    char *key = size_add(native_id.n_bytes, n_source + 3, &n_bytes)
                    ? arena_take(arena, n_bytes)
                    : NULL;
    if (!key)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    size_t n = 0;
    memcpy(key, source, n_source);
    n += n_source;
    key[n++] = ':';
    if (is_hidden)
        key[n++] = '~';
    if (native_id.n_bytes)
        memcpy(key + n, native_id.data, native_id.n_bytes);
    n += native_id.n_bytes;
    key[n] = '\0';
    *out = view_of(key, n);
    return STATUS_OK;
}
