/* SPDX-License-Identifier: Apache-2.0
 *
 * lock.c - two bytes of a file, locked by open file description.
 */
#include "store/database/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { TURNSTILE = 0, HOLDER = 1 };

#define FIRST_WAIT_NS INT64_C(50000)
#define LONGEST_WAIT_NS INT64_C(2000000)

static enum status open_file(struct lock *l, struct error *err) {
    int fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd == 0) { /* a program without standard input */
        fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
        close(0);
    }
    if (fd < 0)
        return error_set(err, STATUS_IO, "cannot open the lock file %s: %s", l->path,
                         strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, STATUS_INVALID, "%s is not a regular file", l->path);
    }
    l->fd = fd;
    return STATUS_OK;
}

enum status lock_open(const char *path, struct lock *l, struct error *err) {
    *l = (struct lock){.path = strdup(path)};
    if (!l->path)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a lock");
    enum status status = open_file(l, err);
    if (status)
        lock_close(l);
    return status;
}

void lock_close(struct lock *l) {
    if (!l)
        return;
    lock_release(
        l); /* a child that was forked meanwhile may still have the file open */
    if (l->fd > 0)
        close(l->fd);
    free(l->path);
    *l = (struct lock){0};
}

/* type: F_WRLCK, F_UNLCK. Returns 0, or errno. */
static int change(const struct lock *l, int byte, short type) {
    struct flock what = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(l->fd, F_OFD_SETLK, &what) == 0 ? 0 : errno;
}

static enum status wait_for(const struct lock *l, int byte, int64_t deadline_ns,
                            struct error *err) {
    for (int64_t wait_ns = FIRST_WAIT_NS;; wait_ns += wait_ns / 2) {
        int reason = change(l, byte, F_WRLCK);
        if (reason == 0)
            return STATUS_OK;
        if (reason != EAGAIN && reason != EACCES && reason != EINTR)
            return error_set(err, STATUS_IO, "cannot lock %s: %s", l->path,
                             strerror(reason));
        int64_t left_ns = deadline_ns - clock_now_ns();
        if (left_ns <= 0)
            return error_set(err, STATUS_BUSY, "another process has %s locked",
                             l->path);
        if (wait_ns > LONGEST_WAIT_NS)
            wait_ns = LONGEST_WAIT_NS;
        int64_t now_ns = wait_ns < left_ns ? wait_ns : left_ns;
        nanosleep(&(struct timespec){.tv_nsec = (long)now_ns}, NULL);
    }
}

/* Does the path still lead to the file that is open? */
static bool is_there(const struct lock *l) {
    struct stat ours, found;
    return fstat(l->fd, &ours) == 0 && stat(l->path, &found) == 0 &&
           ours.st_ino == found.st_ino && ours.st_dev == found.st_dev;
}

enum status lock_take(struct lock *l, int64_t wait_ns, struct error *err) {
    if (l->is_held)
        return error_set(err, STATUS_INTERNAL, "%s is held by this handle", l->path);
    int64_t deadline_ns = clock_now_ns() + wait_ns;
    for (;;) {
        if (l->fd <= 0) {
            enum status status = open_file(l, err);
            if (status)
                return status;
        }
        enum status status = wait_for(l, TURNSTILE, deadline_ns, err);
        if (status)
            return status;
        status = wait_for(l, HOLDER, deadline_ns, err);
        change(l, TURNSTILE, F_UNLCK);
        if (status)
            return status;
        if (is_there(l))
            break;
        close(l->fd); /* and with it the lock on a file that nobody else can find */
        l->fd = 0;
    }
    l->is_held = true;
    return STATUS_OK;
}

void lock_release(struct lock *l) {
    if (!l->is_held)
        return;
    change(l, HOLDER, F_UNLCK);
    l->is_held = false;
}
