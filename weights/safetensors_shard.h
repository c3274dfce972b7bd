/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_shard.h - what safetensors.c (one file) and shards.c (a directory) share.
 */
#ifndef VIGIL_WEIGHTS_SAFETENSORS_SHARD_H
#define VIGIL_WEIGHTS_SAFETENSORS_SHARD_H

#include "weights/safetensors.h"

struct safetensors_shard {
    char path[FILE_PATH_BYTES];
    struct file file;                   /* open between open and read */
    struct sha256 hash;                 /* the same; holds the header already */
    struct safetensors_tensor *tensors; /* [n_tensors], until they are merged */
    size_t n_tensors;
    char *names; /* that the tensors' names point into */
    size_t n_data_bytes;
    uint8_t *block; /* the data, after read */
    uint8_t digest[SHA256_BYTES];
};

/* Opens shard->path and reads its header. */
enum status safetensors_shard_open(struct safetensors_shard *shard, bool allow_i8,
                                   struct error *err);
/* Reads the data into shard->block and closes the file. */
enum status safetensors_shard_read(struct safetensors_shard *shard, struct error *err);
/* Points a tensor into its shard's data, and checks that its values are finite. */
enum status safetensors_shard_attach(const struct safetensors_shard *shard,
                                     struct safetensors_tensor *t, const void *data,
                                     struct error *err);
void safetensors_shard_close(struct safetensors_shard *shard);

#endif
