/* SPDX-License-Identifier: Apache-2.0
 *
 * file.c - regular files: stat first, then open without blocking, then check again.
 *
 * Threads: none of this keeps state outside its arguments, but for a counter that makes the
 * names of temporary files unique in the process.
 */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

/* Linux moves at most 0x7ffff000 bytes a call; smaller pieces keep signals responsive. */
#define MAX_TRANSFER_BYTES ((size_t)64 << 20)
#define TEMPORARY_TRIES 100

static const char *kind_name(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFIFO:
        return "a FIFO";
    case S_IFSOCK:
        return "a socket";
    case S_IFCHR:
    case S_IFBLK:
        return "a device";
    default:
        return "not a regular file";
    }
}

static enum status check_regular(const char *path, const struct stat *st,
                                 struct error *err) {
    if (S_ISREG(st->st_mode))
        return STATUS_OK;
    return error_set(err, STATUS_INVALID, "%s is %s, expected a regular file", path,
                     kind_name(st->st_mode));
}

static enum status system_error(const char *what, const char *path, struct error *err) {
    int code = errno;
    bool is_missing = code == ENOENT || code == ENOTDIR;
    return error_set(err, is_missing ? STATUS_NOT_FOUND : STATUS_IO, "cannot %s %s: %s",
                     what, path, strerror(code));
}

enum status file_open(const char *path, size_t max_bytes, struct file *out,
                      struct error *err) {
    struct stat st;
    memset(out, 0, sizeof *out);
    /* Looked at before it is opened: to open a device or a FIFO can already do something. */
    if (stat(path, &st) != 0)
        return system_error("open", path, err);
    enum status status = check_regular(path, &st, err);
    if (status != STATUS_OK)
        return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return system_error("open", path, err);
    if (fd == 0) { /* standard input was closed: 0 means closed here */
        fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
        int code = errno;
        close(0);
        errno = code;
        if (fd < 0)
            return system_error("open", path, err);
    }
    out->fd = fd;
    out->path = path;
    if (fstat(fd, &out->opened) != 0)
        status = system_error("stat", path, err);
    else
        status = check_regular(path, &out->opened, err);
    if (status == STATUS_OK) {
        out->n_bytes = (size_t)out->opened.st_size;
        if (out->n_bytes > max_bytes)
            status = error_set(err, STATUS_LIMIT, "%s has %zu bytes, the limit is %zu",
                               path, out->n_bytes, max_bytes);
    }
    if (status != STATUS_OK)
        file_close(out);
    return status;
}

enum status file_take(struct file *f, void *out, size_t n_bytes, struct error *err) {
    char *to = out;
    size_t n_left = n_bytes;
    while (n_left > 0) {
        size_t n = n_left < MAX_TRANSFER_BYTES ? n_left : MAX_TRANSFER_BYTES;
        ssize_t got = read(f->fd, to, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return system_error("read", f->path, err);
        if (got == 0)
            return error_set(err, STATUS_INVALID,
                             "%s ends at byte %zu, expected %zu bytes more", f->path,
                             f->at, n_left);
        to += got;
        f->at += (size_t)got;
        n_left -= (size_t)got;
    }
    return STATUS_OK;
}

static bool is_same_time(struct timespec a, struct timespec b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

enum status file_finish(struct file *f, struct error *err) {
    struct stat now;
    if (fstat(f->fd, &now) != 0)
        return system_error("stat", f->path, err);
    if (now.st_size != f->opened.st_size ||
        !is_same_time(now.st_mtim, f->opened.st_mtim))
        return error_set(err, STATUS_IO, "%s changed while it was read", f->path);
    return STATUS_OK;
}

void file_close(struct file *f) {
    if (!f || f->fd == 0)
        return;
    close(f->fd);
    f->fd = 0;
}

enum status file_read(const char *path, size_t max_bytes, char **out, size_t *n_bytes,
                      struct error *err) {
    struct file f;
    char *block = NULL;
    size_t n_block;
    *out = NULL;
    *n_bytes = 0;
    enum status status = file_open(path, max_bytes, &f, err);
    if (status != STATUS_OK)
        return status;
    if (size_add(f.n_bytes, 1, &n_block))
        block = memory_aligned(n_block);
    if (!block) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for the %zu bytes of %s",
                           f.n_bytes, path);
        goto out;
    }
    if ((status = file_take(&f, block, f.n_bytes, err)) != STATUS_OK ||
        (status = file_finish(&f, err)) != STATUS_OK)
        goto out;
    *out = block;
    *n_bytes = f.n_bytes;
    block = NULL;
out:
    free(block);
    file_close(&f);
    return status;
}

enum status file_create(const char *path, struct file_writer *w, struct error *err) {
    static atomic_uint counter;
    memset(w, 0, sizeof *w);
    if (strlen(path) >= sizeof w->path)
        return error_set(err, STATUS_LIMIT, "a path has %zu bytes, the limit is %zu",
                         strlen(path), sizeof w->path - 1);
    memcpy(w->path, path, strlen(path) + 1);
    int fd = -1;
    for (int i = 0; i < TEMPORARY_TRIES && fd < 0; i++) {
        int n = snprintf(w->temporary, sizeof w->temporary, "%s.%ld-%u.tmp", path,
                         (long)getpid(), atomic_fetch_add(&counter, 1));
        if (n < 0 || (size_t)n >= sizeof w->temporary)
            return error_set(err, STATUS_LIMIT, "the path %.200s… is too long", path);
        fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0)
        return system_error("create", w->temporary, err);
    if (fd == 0) {
        fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
        int code = errno;
        close(0);
        errno = code;
        if (fd < 0) {
            enum status status = system_error("create", w->temporary, err);
            unlink(w->temporary);
            return status;
        }
    }
    w->fd = fd;
    return STATUS_OK;
}

/* The directory that a path lies in. */
static void directory_of(const char *path, char out[FILE_PATH_BYTES]) {
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    n = n < FILE_PATH_BYTES ? n : FILE_PATH_BYTES - 1;
    memcpy(out, n ? path : slash ? "/" : ".", n ? n : 1);
    out[n ? n : 1] = '\0';
}

/* The process of "NAME.PID-N.tmp"; 0: it is no such name. */
static pid_t writer_of(const char *entry, const char *name) {
    size_t n = strlen(name);
    char *end;
    if (strncmp(entry, name, n) != 0 || entry[n] != '.' || entry[n + 1] < '1' ||
        entry[n + 1] > '9')
        return 0;
    long pid = strtol(entry + n + 1, &end, 10);
    if (*end != '-' || end[1] < '0' || end[1] > '9')
        return 0;
    (void)strtoul(end + 1, &end, 10);
    return strcmp(end, ".tmp") == 0 && pid <= INT_MAX ? (pid_t)pid : 0;
}

void file_remove_leftovers(const char *path, bool is_alone) {
    char dir[FILE_PATH_BYTES], whole[FILE_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    directory_of(path, dir);
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        pid_t pid = writer_of(e->d_name, slash ? slash + 1 : path);
        bool is_gone = pid > 0 && (is_alone || pid == getpid() ||
                                   (kill(pid, 0) != 0 && errno == ESRCH));
        if (is_gone && file_path(whole, dir, e->d_name, NULL) == STATUS_OK)
            unlink(whole);
    }
    closedir(d);
}

enum status file_write(struct file_writer *w, const void *data, size_t n_bytes,
                       struct error *err) {
    const char *from = data;
    while (n_bytes > 0) {
        size_t n = n_bytes < MAX_TRANSFER_BYTES ? n_bytes : MAX_TRANSFER_BYTES;
        ssize_t put = write(w->fd, from, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return system_error("write", w->temporary, err);
        from += put;
        n_bytes -= (size_t)put;
    }
    return STATUS_OK;
}

void file_sync_directory(const char *path) {
    char dir[FILE_PATH_BYTES];
    directory_of(path, dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

enum status file_commit(struct file_writer *w, struct error *err) {
    enum status status = STATUS_OK;
    if (fsync(w->fd) != 0)
        status = system_error("sync", w->temporary, err);
    int fd = w->fd;
    w->fd = 0;
    if (close(fd) != 0 && status == STATUS_OK)
        status = system_error("close", w->temporary, err);
    if (status == STATUS_OK && rename(w->temporary, w->path) != 0)
        status = system_error("write", w->path, err);
    if (status != STATUS_OK) {
        unlink(w->temporary);
        return status;
    }
    file_sync_directory(w->path); /* the file is whole, whether it can or not */
    return STATUS_OK;
}

void file_abort(struct file_writer *w) {
    if (!w || w->fd == 0)
        return;
    close(w->fd);
    w->fd = 0;
    unlink(w->temporary);
}

enum status file_replace(const char *path, const void *data, size_t n_bytes,
                         struct error *err) {
    struct file_writer w;
    enum status status = file_create(path, &w, err);
    if (status == STATUS_OK)
        status = file_write(&w, data, n_bytes, err);
    if (status == STATUS_OK)
        status = file_commit(&w, err);
    file_abort(&w);
    return status;
}

enum status file_path(char *out, const char *dir, const char *name, struct error *err) {
    size_t n = strlen(dir);
    bool has_slash = n > 0 && dir[n - 1] == '/';
    int n_out =
        snprintf(out, FILE_PATH_BYTES, "%s%s%s", dir, has_slash ? "" : "/", name);
    if (n_out < 0 || n_out >= FILE_PATH_BYTES)
        return error_set(err, STATUS_LIMIT, "the path %.200s… is too long", dir);
    return STATUS_OK;
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}
