/* SPDX-License-Identifier: Apache-2.0
 *
 * lake_file.h - one file of the lake (lake.h): its name, and what is written into it. Which
 * results those are says the table lake_rows; the same rows give the same bytes.
 *
 * Threads: one.
 */
#ifndef VIGIL_STORE_LAKE_LAKE_FILE_H
#define VIGIL_STORE_LAKE_LAKE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "base/sha256.h"
#include "base/status.h"
#include "store/database/database.h"

#define LAKE_FILE_NAME_BYTES 80

/* A file as lake_files has it. */
struct lake_file {
    int64_t id, day;
    int64_t first_post, last_post; /* of those that are in no file yet: where to look */
    bool is_last;                  /* of its day and source, for now */
    char folder[FILE_PATH_BYTES];
    char source[256];
    char name[LAKE_FILE_NAME_BYTES];
};

/* Sets f->name: part-FIRST-LAST-HASH.jsonl.gz, of the posts it is to hold now. */
enum status lake_file_name(struct database *db, struct lake_file *f, struct error *err);

struct lake_written {
    char path[FILE_PATH_BYTES];
    int64_t n_rows, n_bytes;
    char sha256[SHA256_HEX_BYTES];
};
/* Writes the file, for the first time or anew, and makes its partition; a file that would
 * have no rows is not written (n_rows 0), and what is there stays. path is set either way.
 * Two programs must not do this with one file at the same time. */
enum status lake_file_write(struct database *db, const struct lake_file *f,
                            struct lake_written *out, struct error *err);

#endif
