/* SPDX-License-Identifier: Apache-2.0
 *
 * disk.h - a disk whose power fails: what was synced stays, the rest may be there or not.
 *
 * Programs go on using the real files; the disk keeps beside them what would be left of each:
 * its bytes at the last sync, and each write and cut since then. Names are kept apart from
 * files: that one was made, moved or removed is safe when its folder was synced. Operations
 * that change something are counted, and at the chosen one the power fails: from then on
 * nothing is done any more. disk_restore then makes the real files what a real disk might
 * hold: of what was not synced any part, in any order, sectors of 512 bytes missing or full
 * of garbage; each name as it was synced or as it was last. What was synced is never harmed,
 * and no byte beside those that were written (as SQLite takes for granted: powersafe
 * overwrite).
 *
 * One disk in a process, one thread. Running out of memory ends the program: it is a test.
 */
#ifndef VIGIL_TESTS_DISK_H
#define VIGIL_TESTS_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_file;

/* Forgets everything; whatever lies in real files is taken as synced. The power fails at the
 * cut_at-th operation, 0: only by disk_cut. */
void disk_start(uint64_t seed, int64_t cut_at);
/* Counts an operation. false: there is no power; the operation that the power failed at must
 * still be told (write, truncate), since a part of it may have happened. */
bool disk_operation(void);
bool disk_has_power(void);
int64_t disk_n_operations(void);
void disk_cut(void);

/* The file under a name, made if need be. Before it is made in truth. */
struct disk_file *disk_open(const char *path, bool makes);
void disk_write(struct disk_file *f, int64_t offset, const void *data, size_t n_bytes);
void disk_truncate(struct disk_file *f, int64_t n_bytes);
void disk_sync(struct disk_file *f);
/* Makes safe which names there are in a folder. */
void disk_sync_folder(const char *path);
void disk_rename(const char *from, const char *to);
void disk_remove(const char *path);
void disk_make_folder(const char *path);

/* Makes the real files what is left. Nobody may have them open. Then as disk_start(…, 0). */
void disk_restore(void);

/* Random numbers that depend on the seed alone. */
uint64_t disk_random(uint64_t *state);
/* From 0 to n - 1. */
uint64_t disk_below(uint64_t *state, uint64_t n);

#endif
