/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/crash_vfs.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/faults/disk.h"

#define KEPT (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)

struct crash_file {
    sqlite3_file base;
    struct disk_file *disk; /* NULL: of a temporary file */
    bool syncs_folder;      /* with its next sync, as SQLite's own does */
    int64_t n_bytes;
    char folder[512];
    sqlite3_file *real; /* behind this struct */
};

static sqlite3_vfs *under;
static int64_t limit = -1, used;
static bool is_lying;

static struct crash_file *of(sqlite3_file *f) {
    return (struct crash_file *)f;
}

static sqlite3_file *real(sqlite3_file *f) {
    return of(f)->real;
}

/* ---- Space ---- */

void crash_vfs_limit(int64_t n_bytes, bool lies) {
    limit = n_bytes;
    is_lying = lies;
}

int64_t crash_vfs_used(void) {
    return used;
}

static void resize(struct crash_file *f, int64_t n_bytes) {
    used += n_bytes - f->n_bytes;
    f->n_bytes = n_bytes;
}

static bool has_room(const struct crash_file *f, int64_t end) {
    return limit < 0 || end <= f->n_bytes || used + end - f->n_bytes <= limit;
}

/* ---- A file ---- */

static int close_file(sqlite3_file *f) {
    resize(of(f), 0);
    return real(f)->pMethods->xClose(real(f));
}

static int read_file(sqlite3_file *f, void *out, int n, sqlite3_int64 offset) {
    if (!disk_has_power())
        return SQLITE_IOERR_READ;
    return real(f)->pMethods->xRead(real(f), out, n, offset);
}

static int write_file(sqlite3_file *f, const void *data, int n, sqlite3_int64 offset) {
    struct crash_file *c = of(f);
    if (!disk_has_power())
        return SQLITE_IOERR_WRITE;
    if (!has_room(c, offset + n)) {
        if (is_lying)
            return SQLITE_OK;
        errno = ENOSPC;
        return SQLITE_FULL;
    }
    if (c->disk) {
        bool has_power = disk_operation();
        disk_write(c->disk, offset, data, (size_t)n);
        if (!has_power)
            return SQLITE_IOERR_WRITE;
    }
    if (offset + n > c->n_bytes)
        resize(c, offset + n);
    return real(f)->pMethods->xWrite(real(f), data, n, offset);
}

static int truncate_file(sqlite3_file *f, sqlite3_int64 n_bytes) {
    struct crash_file *c = of(f);
    if (!disk_has_power())
        return SQLITE_IOERR_TRUNCATE;
    if (c->disk) {
        bool has_power = disk_operation();
        disk_truncate(c->disk, n_bytes);
        if (!has_power)
            return SQLITE_IOERR_TRUNCATE;
    }
    resize(c, n_bytes);
    return real(f)->pMethods->xTruncate(real(f), n_bytes);
}

/* The real file need not be synced: the disk is what stays. */
static int sync_file(sqlite3_file *f, int flags) {
    struct crash_file *c = of(f);
    (void)flags;
    if (!c->disk)
        return SQLITE_OK;
    if (!disk_operation())
        return SQLITE_IOERR_FSYNC;
    disk_sync(c->disk);
    if (c->syncs_folder) {
        if (!disk_operation())
            return SQLITE_IOERR_DIR_FSYNC;
        disk_sync_folder(c->folder);
    }
    c->syncs_folder = false;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *out) {
    return real(f)->pMethods->xFileSize(real(f), out);
}

static int lock_file(sqlite3_file *f, int level) {
    return real(f)->pMethods->xLock(real(f), level);
}

static int unlock_file(sqlite3_file *f, int level) {
    return real(f)->pMethods->xUnlock(real(f), level);
}

static int is_reserved(sqlite3_file *f, int *out) {
    return real(f)->pMethods->xCheckReservedLock(real(f), out);
}

static int control(sqlite3_file *f, int what, void *argument) {
    return real(f)->pMethods->xFileControl(real(f), what, argument);
}

static int sector_size(sqlite3_file *f) {
    return real(f)->pMethods->xSectorSize(real(f));
}

static int characteristics(sqlite3_file *f) {
    return real(f)->pMethods->xDeviceCharacteristics(real(f));
}

static int shm_map(sqlite3_file *f, int page, int n, int extends, void volatile **out) {
    return real(f)->pMethods->xShmMap(real(f), page, n, extends, out);
}

static int shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    return real(f)->pMethods->xShmLock(real(f), offset, n, flags);
}

static void shm_barrier(sqlite3_file *f) {
    real(f)->pMethods->xShmBarrier(real(f));
}

static int shm_unmap(sqlite3_file *f, int removes) {
    return real(f)->pMethods->xShmUnmap(real(f), removes);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* without memory mapping */
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = file_size,
    .xLock = lock_file,
    .xUnlock = unlock_file,
    .xCheckReservedLock = is_reserved,
    .xFileControl = control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

/* ---- The file system ---- */

static int open_file(sqlite3_vfs *vfs, const char *path, sqlite3_file *out, int flags,
                     int *got) {
    struct crash_file *f = of(out);
    (void)vfs;
    memset(f, 0, sizeof *f);
    f->real = (sqlite3_file *)(f + 1);
    bool is_kept = path && (flags & KEPT);
    bool makes = is_kept && (flags & SQLITE_OPEN_CREATE) && access(path, F_OK) != 0;
    if (!disk_has_power() || (makes && !disk_operation()))
        return SQLITE_CANTOPEN;
    if (is_kept)
        f->disk = disk_open(path, makes);
    int code = under->xOpen(under, path, f->real, flags, got);
    if (f->real->pMethods)
        out->pMethods = &methods;
    if (code)
        return code;
    if (is_kept) {
        const char *slash = strrchr(path, '/');
        snprintf(f->folder, sizeof f->folder, "%.*s", (int)(slash - path), path);
        f->syncs_folder = makes && !(flags & SQLITE_OPEN_MAIN_DB);
        sqlite3_int64 n_bytes = 0;
        file_size(out, &n_bytes);
        resize(f, n_bytes);
    }
    return SQLITE_OK;
}

static int delete_file(sqlite3_vfs *vfs, const char *path, int syncs_folder) {
    (void)vfs;
    if (!disk_operation())
        return SQLITE_IOERR_DELETE;
    int code = under->xDelete(under, path, 0);
    if (code)
        return code;
    disk_remove(path);
    if (!syncs_folder)
        return SQLITE_OK;
    if (!disk_operation())
        return SQLITE_IOERR_DIR_FSYNC;
    char folder[512];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    disk_sync_folder(folder);
    return SQLITE_OK;
}

void crash_vfs_register(void) {
    static sqlite3_vfs vfs;
    if (under)
        return;
    under = sqlite3_vfs_find("unix");
    vfs = *under;
    vfs.szOsFile = (int)sizeof(struct crash_file) + under->szOsFile;
    vfs.zName = CRASH_VFS;
    vfs.pNext = NULL;
    vfs.xOpen = open_file;
    vfs.xDelete = delete_file;
    /* Everything else works with the struct that it is given: paths, time, random bytes. */
    if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
        abort();
}
