/* SPDX-License-Identifier: Apache-2.0
 *
 * lock.h - a lock file: whoever holds it, process or thread, is the only one.
 *
 * An open-file-description lock (F_OFD_SETLK): the kernel lets go of it when its holder dies,
 * two handles of one process exclude each other as two processes do, and closing some other
 * descriptor of the file does not release it. The file is made 0600, stays empty, and is
 * never removed; should somebody remove it, the next take makes it anew and takes that.
 *
 * Fair: before the lock itself, on byte 1, a taker needs the turnstile, on byte 0, and keeps
 * it until he has the lock. So whoever lets go and comes back at once stands behind the one
 * who waited. A waiter looks again every 2 ms at least: the call that waits in the kernel has
 * no deadline.
 *
 * Limits: local file systems. Threads: one at a time for each handle.
 */
#ifndef VIGIL_STORE_DATABASE_LOCK_H
#define VIGIL_STORE_DATABASE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Zero-initialise; lock_close(NULL or zeroed) is a no-op.
 * Call order: open (take release)* close. */
struct lock {
    int fd; /* 0 when closed: never standard input */
    bool is_held;
    char *path;
};

/* STATUS_IO, STATUS_NO_MEMORY; STATUS_INVALID when it is not a regular file. */
enum status lock_open(const char *path, struct lock *l, struct error *err);
/* Waits at most wait_ns; then STATUS_BUSY. A handle that holds it already: STATUS_INTERNAL. */
enum status lock_take(struct lock *l, int64_t wait_ns, struct error *err);
void lock_release(struct lock *l); /* no-op when it is not held */
void lock_close(struct lock *l);

#endif
