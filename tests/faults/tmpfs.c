/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/tmpfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool is_whole = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return is_whole;
}

/* A mount namespace; with a user namespace where we are not root. */
static bool separate(void) {
    static bool is_done;
    char users[64], groups[64];
    if (is_done)
        return true;
    snprintf(users, sizeof users, "0 %ld 1", (long)geteuid());
    snprintf(groups, sizeof groups, "0 %ld 1", (long)getegid());
    if (unshare(CLONE_NEWNS) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
            return false;
        if (!put("/proc/self/setgroups", "deny") || !put("/proc/self/uid_map", users) ||
            !put("/proc/self/gid_map", groups))
            return false;
    }
    is_done = mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return is_done;
}

bool tmpfs_mount(const char *folder, int64_t n_bytes) {
    char options[64];
    snprintf(options, sizeof options, "size=%" PRId64, n_bytes);
    return separate() && mount("tmpfs", folder, "tmpfs", 0, options) == 0;
}

void tmpfs_unmount(const char *folder) {
    umount2(folder, MNT_DETACH);
}

bool tmpfs_leave(const char *folder, int64_t n_bytes) {
    static const char page[4096];
    char path[512];
    struct statvfs fs;
    struct stat st;
    snprintf(path, sizeof path, "%s/ballast", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool is_known = fd >= 0 && fstatvfs(fd, &fs) == 0 && fstat(fd, &st) == 0;
    int64_t has = 0, free_bytes = 0;
    if (is_known) {
        has = (int64_t)st.st_size;
        free_bytes = (int64_t)(fs.f_bavail * fs.f_bsize);
    }
    if (is_known && free_bytes < n_bytes) {
        int64_t less = has - (n_bytes - free_bytes);
        if (ftruncate(fd, (off_t)(less > 0 ? less : 0)) != 0 || less < 0)
            is_known = false;
    }
    for (; is_known && free_bytes - (int64_t)sizeof page >= n_bytes;
         free_bytes -= (int64_t)sizeof page, has += (int64_t)sizeof page)
        if (pwrite(fd, page, sizeof page, (off_t)has) != (ssize_t)sizeof page)
            break;
    if (fd >= 0)
        close(fd);
    return is_known;
}

void tmpfs_make_room(const char *folder, int64_t n_bytes) {
    char path[512], options[64];
    struct statvfs fs;
    snprintf(path, sizeof path, "%s/ballast", folder);
    unlink(path);
    if (statvfs(folder, &fs) != 0 || (int64_t)(fs.f_bavail * fs.f_bsize) >= n_bytes)
        return;
    snprintf(options, sizeof options, "size=%" PRId64,
             (int64_t)(fs.f_blocks * fs.f_bsize) + n_bytes);
    (void)mount(NULL, folder, NULL, MS_REMOUNT, options);
}
