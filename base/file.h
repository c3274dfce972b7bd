/* SPDX-License-Identifier: Apache-2.0
 *
 * file.h - regular files only: read whole with a limit, read in pieces, replaced atomically.
 *
 * Files are read, never mapped: a file that shrinks under a mapping kills the process. What
 * is opened must be a regular file, so that a FIFO cannot block, a device cannot act and a
 * directory cannot be read as text; and it must not change while it is read.
 *
 * Statuses: STATUS_NOT_FOUND  there is nothing under the path
 *           STATUS_INVALID    a directory, FIFO, socket or device; shorter than asked for
 *           STATUS_LIMIT      larger than max_bytes: nothing was read
 *           STATUS_IO         a system call failed, or the file changed while it was read
 * Every message holds the path.
 */
#ifndef VIGIL_BASE_FILE_H
#define VIGIL_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include <sys/stat.h>

#include "base/status.h"

#define FILE_PATH_BYTES                                                                \
    2048 /* longest path, its NUL included; paths live on the stack */

/* Reads a whole file into a private block, 64-byte aligned, with a NUL behind its last byte
 * that *n_bytes does not count. *out is owned by the caller, freed with free(). */
enum status file_read(const char *path, size_t max_bytes, char **out, size_t *n_bytes,
                      struct error *err);

/* A file that is read in pieces, front to back. Zero-initialise; file_close(NULL or zeroed)
 * is a no-op. Call order: open take* [finish] close. */
struct file {
    int fd;           /* 0 when closed: a file is never standard input */
    size_t n_bytes;   /* its size when it was opened */
    size_t at;        /* how much of it was taken */
    const char *path; /* the caller's: must outlive the struct */
    struct stat opened;
};

enum status file_open(const char *path, size_t max_bytes, struct file *out,
                      struct error *err);
/* Reads the next n_bytes, all of them, into out. STATUS_INVALID when fewer are left. */
enum status file_take(struct file *f, void *out, size_t n_bytes, struct error *err);
/* STATUS_IO when the file was written, cut or lengthened since it was opened. */
enum status file_finish(struct file *f, struct error *err);
void file_close(struct file *f);

/* A file that is written beside its final place and moved there when it is whole, so that a
 * reader sees the old file or the new one. Zero-initialise; file_abort after a commit, on a
 * zeroed struct or on NULL is a no-op. Call order: create write* (commit | abort). */
struct file_writer {
    int fd; /* 0 when closed */
    char path[FILE_PATH_BYTES];
    char temporary[FILE_PATH_BYTES];
};

enum status file_create(const char *path, struct file_writer *w, struct error *err);
enum status file_write(struct file_writer *w, const void *data, size_t n_bytes,
                       struct error *err);
/* Syncs the file, moves it to its path, syncs the directory. On failure nothing is left. */
enum status file_commit(struct file_writer *w, struct error *err);
void file_abort(struct file_writer *w);

/* All of the above in one call. */
enum status file_replace(const char *path, const void *data, size_t n_bytes,
                         struct error *err);

/* Makes a name last, a new folder's for instance: syncs the directory that it lies in. Some
 * file systems cannot. */
void file_sync_directory(const char *path);

/* Takes away what writers of this path have left beside it that were killed before they could
 * move it: of processes that are gone, and of this one, where nobody may be writing it; with
 * is_alone, when a lock says that nobody else does, of all. */
void file_remove_leftovers(const char *path, bool is_alone);

/* Writes "dir/name" into out[FILE_PATH_BYTES]; STATUS_LIMIT when that is too long. */
enum status file_path(char *out, const char *dir, const char *name, struct error *err);

/* True when there is something under the path, whatever it is. */
bool file_exists(const char *path);

#endif
