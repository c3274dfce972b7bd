/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpfs.h - a file system of a few MiB that can be filled, in a mount namespace of this
 * process: whatever happens, it goes with it.
 */
#ifndef VIGIL_TESTS_TMPFS_H
#define VIGIL_TESTS_TMPFS_H

#include <stdbool.h>
#include <stdint.h>

/* Mounts one over a folder. false: this machine does not let us. */
bool tmpfs_mount(const char *folder, int64_t n_bytes);
void tmpfs_unmount(const char *folder);
/* Leaves about so much room, by a file of the right size. false: there is less. */
bool tmpfs_leave(const char *folder, int64_t n_bytes);
/* Takes that file away; where there are still less than n_bytes, the file system grows. */
void tmpfs_make_room(const char *folder, int64_t n_bytes);

#endif
