/* SPDX-License-Identifier: Apache-2.0
 *
 * crash_files.h - files that our code writes by itself, on a disk whose power fails (disk.h),
 * or whose operations fail one by one.
 *
 * The linker sends open, write, fsync, rename, unlink, mkdir and close of our objects through
 * crash_files.c (-Wl,--wrap). What lies below the watched folder is told to the disk and
 * counted; all else goes through. Every third write is a short one.
 *
 * One thread.
 */
#ifndef VIGIL_TESTS_CRASH_FILES_H
#define VIGIL_TESTS_CRASH_FILES_H

#include <stdbool.h>
#include <stdint.h>

/* NULL: nothing, as before disk_restore. The folder must live as long as it is watched. */
void crash_files_watch(const char *folder);
/* The k-th operation from now on fails once, with the error; 0: none. */
void crash_files_fail(int64_t k, int code);
/* From now on a sync says that it was done, and does nothing: for controls. */
void crash_files_lie(bool lies);
/* How many operations there were since crash_files_fail. */
int64_t crash_files_n_operations(void);

#endif
