/* SPDX-License-Identifier: Apache-2.0
 *
 * crash_vfs.h - SQLite's file system on a disk whose power fails (disk.h) or that is full.
 *
 * Over SQLite's own for Unix: databases, logs and rollback journals are told to the disk, all
 * else (locks, shared memory, temporary files) goes through. Without power every operation
 * is an I/O error. Open a store with "sqlite:PATH?vfs=" CRASH_VFS.
 *
 * One thread.
 */
#ifndef VIGIL_TESTS_CRASH_VFS_H
#define VIGIL_TESTS_CRASH_VFS_H

#include <stdbool.h>
#include <stdint.h>

#define CRASH_VFS "crash"

/* Call before a store is opened with it; again is a no-op. */
void crash_vfs_register(void);
/* No file grows once those that are open hold so many bytes together; -1: no limit. A disk
 * that lies says that it has written what there was no room for: for controls. */
void crash_vfs_limit(int64_t n_bytes, bool lies);
/* Bytes of all open files. */
int64_t crash_vfs_used(void);

#endif
