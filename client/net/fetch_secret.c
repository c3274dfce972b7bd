/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_secret.c - a token from a file into a page of its own, which is kept out of swap (as
 * far as RLIMIT_MEMLOCK lets us) and out of core dumps, and wiped before it is given back.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/net/fetch.h"

#define SECRET_PAGE_BYTES ((size_t)4096)

/* Reads the whole file into the page; what it holds is never part of a message. */
static enum status read_secret(int fd, const char *path, char *page, size_t *n_bytes,
                               struct error *err) {
    size_t n = 0;
    while (n < SECRET_PAGE_BYTES) {
        ssize_t got = read(fd, page + n, SECRET_PAGE_BYTES - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, STATUS_IO, "cannot read %s: %s", path,
                             strerror(errno));
        if (got == 0)
            break;
        n += (size_t)got;
    }
    if (n == SECRET_PAGE_BYTES)
        return error_set(err, STATUS_LIMIT,
                         "%s: expected a secret of at most %zu bytes", path,
                         SECRET_PAGE_BYTES - 1);
    *n_bytes = n;
    return STATUS_OK;
}

/* One line of what may stand in a header; spaces around it are cut off. */
static enum status check_secret(const char *path, char *page, size_t n,
                                struct error *err) {
    size_t begin = 0;
    while (n > 0 && (page[n - 1] == '\n' || page[n - 1] == '\r' || page[n - 1] == ' '))
        n--;
    while (begin < n && page[begin] == ' ')
        begin++;
    if (begin == n)
        return error_set(err, STATUS_INVALID, "%s: expected a secret, found none",
                         path);
    for (size_t i = begin; i < n; i++)
        if (page[i] <= ' ' || page[i] > '~')
            return error_set(err, STATUS_INVALID,
                             "%s: expected one line of printable ASCII without spaces",
                             path);
    memmove(page, page + begin, n - begin);
    explicit_bzero(page + n - begin, SECRET_PAGE_BYTES - (n - begin));
    return STATUS_OK;
}

static char *take_page(void) {
    char *page = mmap(NULL, SECRET_PAGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    (void)mlock(page, SECRET_PAGE_BYTES);
    (void)madvise(page, SECRET_PAGE_BYTES, MADV_DONTDUMP);
    return page;
}

enum status fetch_secret_of(struct view text, char **out, struct error *err) {
    *out = NULL;
    if (text.n_bytes >= SECRET_PAGE_BYTES)
        return error_set(err, STATUS_LIMIT, "a secret of more than %zu bytes",
                         SECRET_PAGE_BYTES - 1);
    char *page = take_page();
    if (!page)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a secret");
    if (text.n_bytes > 0)
        memcpy(page, text.data, text.n_bytes);
    enum status status =
        check_secret("a secret that was sent", page, text.n_bytes, err);
    if (status == STATUS_OK)
        *out = page;
    else
        fetch_secret_free(page);
    return status;
}

enum status fetch_secret(const char *path, char **out, struct error *err) {
    enum status status = STATUS_OK;
    struct stat info;
    size_t n_bytes = 0;
    char *page = NULL;
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                         "cannot open %s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0) {
        status =
            error_set(err, STATUS_IO, "cannot look at %s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(info.st_mode)) {
        status = error_set(err, STATUS_INVALID, "%s: expected a file", path);
        goto out;
    }
    if (info.st_mode & (S_IRWXG | S_IRWXO)) {
        status = error_set(err, STATUS_INVALID,
                           "%s: others can read this secret (mode %03o); chmod 600 it",
                           path, (unsigned)info.st_mode & 0777u);
        goto out;
    }
    page = take_page();
    if (!page) {
        status =
            error_set(err, STATUS_NO_MEMORY, "no memory for the secret in %s", path);
        goto out;
    }
    status = read_secret(fd, path, page, &n_bytes, err);
    if (status == STATUS_OK)
        status = check_secret(path, page, n_bytes, err);
    if (status == STATUS_OK) {
        *out = page;
        page = NULL;
    }
out:
    fetch_secret_free(page);
    (void)close(fd);
    return status;
}

void fetch_secret_free(char *secret) {
    if (!secret)
        return;
    explicit_bzero(secret, SECRET_PAGE_BYTES);
    (void)munmap(secret, SECRET_PAGE_BYTES);
}
