/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors.h - reads and writes safetensors files, strictly.
 *
 *   8 bytes   N, little-endian
 *   N bytes   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
 *   the data  every byte of it belongs to exactly one tensor
 *
 * Reading is in two steps, so that nothing large is read before the caller has looked at the
 * names and shapes: safetensors_open reads the headers only, safetensors_read the data.
 * Stricter than the format: a header of at most 1 MiB and 4,096 tensors; no duplicate keys;
 * exactly the three fields; no tensor without elements; data aligned to its element;
 * printable names of 1 to 256 bytes; F32, F16, BF16, I64 and, where it is asked for, I8; no
 * value that is not finite.
 *
 * Threads:    a struct safetensors belongs to one thread; once read it may be shared.
 * Call order: (open [read] | parse) find* close
 */
#ifndef VIGIL_WEIGHTS_SAFETENSORS_H
#define VIGIL_WEIGHTS_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "base/sha256.h"
#include "base/status.h"

#define SAFETENSORS_FILE "model.safetensors"
#define SAFETENSORS_INDEX_FILE "model.safetensors.index.json"
#define SAFETENSORS_MAX_NAME_BYTES 256
#define SAFETENSORS_MAX_DIMS 8

enum safetensors_dtype {
    SAFETENSORS_F32,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_I64,
    SAFETENSORS_I8
};

struct safetensors_tensor {
    const char *name;
    const void *data; /* NULL before safetensors_read */
    size_t offset;    /* in its file's data */
    size_t n_bytes;
    size_t n_elements;
    int32_t dims[SAFETENSORS_MAX_DIMS];
    int32_t n_dims; /* 0: a scalar */
    int32_t shard;  /* index of its file */
    enum safetensors_dtype dtype;
};

struct safetensors_shard; /* one file */

struct safetensors {
    struct safetensors_tensor *tensors; /* [n_tensors], by name */
    size_t n_tensors;
    size_t n_data_bytes; /* of all files */
    size_t n_shards;
    struct safetensors_shard *shards;
    char sha256[SHA256_HEX_BYTES]; /* after read: of the file; of many files: of their
                                      hashes (32 bytes each), in order of their names */
};

/* Opens DIR/model.safetensors or, when there is none, the files that
 * DIR/model.safetensors.index.json names, and reads their headers. The files stay open.
 * allow_i8: the model's config says that it is quantised.
 * On success *out is owned by the caller and freed with safetensors_close; on failure there
 * is nothing to free. */
enum status safetensors_open(const char *model_dir, bool allow_i8,
                             struct safetensors *out, struct error *err);
/* One file by its path. */
enum status safetensors_open_file(const char *path, bool allow_i8,
                                  struct safetensors *out, struct error *err);
/* Reads the data, one 64-byte aligned block a file, hashes the files, refuses what is not
 * finite, closes the files. On failure *st is still to be closed. */
enum status safetensors_read(struct safetensors *st, struct error *err);
/* Reads a file's bytes from memory; tensors point into image, which must outlive *out and
 * need not be aligned. No hash is taken. */
enum status safetensors_parse(const void *image, size_t n_bytes, const char *name,
                              bool allow_i8, struct safetensors *out,
                              struct error *err);
/* NULL when there is none. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *st,
                                                  const char *name);
/* A file's name without its directory. */
const char *safetensors_shard_name(const struct safetensors *st, size_t shard);
void safetensors_close(struct safetensors *st);

const char *safetensors_dtype_name(enum safetensors_dtype dtype); /* "F32" */
size_t safetensors_dtype_bytes(enum safetensors_dtype dtype);
/* "[30522, 384]" */
void safetensors_shape_text(const struct safetensors_tensor *t, char *out,
                            size_t cap_bytes);

/* Writes a file from tensors (name, data, dtype, dims are read; the rest is computed) and
 * metadata, pairs of strings that end with NULL. Larger elements come first, then names in
 * order, as the reference writer has it, so that the same input gives the same bytes.
 * sha256 out: of all that was written. The caller commits *w. */
enum status safetensors_write(struct file_writer *w,
                              const struct safetensors_tensor *tensors,
                              size_t n_tensors, const char *const *metadata,
                              char sha256[SHA256_HEX_BYTES], struct error *err);

#endif
