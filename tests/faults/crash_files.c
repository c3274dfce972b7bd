/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/crash_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/faults/disk.h"

#define MAX_FDS 1024

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t n_bytes);
int __real_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);
int __real_close(int fd);

int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *data, size_t n_bytes);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_close(int fd);

static const char *watched;
static int64_t fails_at, n_operations;
static int fails_with;
static bool is_lying;
static struct {
    struct disk_file *file; /* a file that is written, */
    int64_t offset;
    char folder[512]; /* or a folder that may be synced */
} open_files[MAX_FDS];

void crash_files_watch(const char *folder) {
    watched = folder;
}

void crash_files_fail(int64_t k, int code) {
    fails_at = k;
    fails_with = code;
    n_operations = 0;
}

void crash_files_lie(bool lies) {
    is_lying = lies;
}

int64_t crash_files_n_operations(void) {
    return n_operations;
}

static bool is_watched(const char *path) {
    size_t n = watched ? strlen(watched) : 0;
    return watched && strncmp(path, watched, n) == 0 && (path[n] == '/' || !path[n]);
}

/* Whether the operation has to fail before anything is done. */
static bool is_failing(void) {
    if (!disk_has_power()) {
        errno = EIO;
        return true;
    }
    if (++n_operations == fails_at) {
        errno = fails_with;
        return true;
    }
    return false;
}

/* Told to the disk; is the power still there? */
static bool is_done(void) {
    bool has_power = disk_operation();
    if (!has_power)
        errno = EIO;
    return has_power;
}

int __wrap_open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    int mode = flags & O_CREAT ? va_arg(list, int) : 0;
    va_end(list);
    if (!is_watched(path))
        return __real_open(path, flags, mode);
    bool makes = (flags & O_CREAT) && access(path, F_OK) != 0;
    if (makes && is_failing())
        return -1;
    struct disk_file *file = flags & O_CREAT ? disk_open(path, true) : NULL;
    if (makes && !is_done())
        return -1;
    int fd = __real_open(path, flags, mode);
    if (fd >= 0 && fd < MAX_FDS) {
        open_files[fd].file = file;
        open_files[fd].offset = 0;
        if (flags & O_DIRECTORY)
            snprintf(open_files[fd].folder, sizeof open_files[fd].folder, "%s", path);
    }
    return fd;
}

ssize_t __wrap_write(int fd, const void *data, size_t n_bytes) {
    struct disk_file *file = fd >= 0 && fd < MAX_FDS ? open_files[fd].file : NULL;
    if (!file)
        return __real_write(fd, data, n_bytes);
    if (is_failing())
        return -1;
    if (n_operations % 3 == 0 && n_bytes > 1)
        n_bytes /= 2;
    disk_write(file, open_files[fd].offset, data, n_bytes);
    if (!is_done())
        return -1;
    ssize_t n = __real_write(fd, data, n_bytes);
    open_files[fd].offset += n > 0 ? n : 0;
    return n;
}

int __wrap_fsync(int fd) {
    bool is_known = fd >= 0 && fd < MAX_FDS;
    struct disk_file *file = is_known ? open_files[fd].file : NULL;
    const char *folder = is_known ? open_files[fd].folder : "";
    if (!file && !folder[0])
        return __real_fsync(fd);
    if (is_failing() || !is_done())
        return -1;
    if (is_lying)
        return 0;
    if (file)
        disk_sync(file);
    else
        disk_sync_folder(folder);
    return 0;
}

int __wrap_rename(const char *from, const char *to) {
    if (!is_watched(to))
        return __real_rename(from, to);
    if (is_failing())
        return -1;
    disk_rename(from, to);
    return is_done() ? __real_rename(from, to) : -1;
}

int __wrap_unlink(const char *path) {
    if (!is_watched(path) || access(path, F_OK) != 0)
        return __real_unlink(path);
    if (is_failing())
        return -1;
    disk_remove(path);
    return is_done() ? __real_unlink(path) : -1;
}

int __wrap_mkdir(const char *path, mode_t mode) {
    if (!is_watched(path) || access(path, F_OK) == 0)
        return __real_mkdir(path, mode);
    if (is_failing())
        return -1;
    disk_make_folder(path);
    return is_done() ? __real_mkdir(path, mode) : -1;
}

int __wrap_close(int fd) {
    if (fd >= 0 && fd < MAX_FDS) {
        open_files[fd].file = NULL;
        open_files[fd].folder[0] = '\0';
    }
    return __real_close(fd);
}
