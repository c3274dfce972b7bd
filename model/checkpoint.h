/* SPDX-License-Identifier: Apache-2.0
 *
 * checkpoint.h - a model directory in memory: config, and every tensor checked once.
 *
 * Reads model.safetensors, or the shards that model.safetensors.index.json names, into
 * private memory (never mapped: a file that shrinks under a mapping kills the process). The
 * set of names and each shape must be what config.json implies. Engines read a checkpoint,
 * convert what they need, and the caller closes it.
 */
#ifndef VIGIL_MODEL_CHECKPOINT_H
#define VIGIL_MODEL_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "model/config.h"
#include "model/tensor.h"

struct linear_tensors {
    struct tensor weight; /* [out, in] */
    struct tensor bias;   /* [1, out]  */
};

struct norm_tensors {
    struct tensor weight, bias; /* [1, C] */
};

struct layer_tensors {
    struct linear_tensors q, k, v, out; /* [C,C] each */
    struct norm_tensors attention_norm; /* sa_layer_norm */
    struct linear_tensors up;           /* ffn.lin1 [F,C] */
    struct linear_tensors down;         /* ffn.lin2 [C,F] */
    struct norm_tensors output_norm;
};

struct checkpoint {
    struct model_config config;
    struct tensor word_embeddings;     /* [V,C] */
    struct tensor position_embeddings; /* [P,C] */
    struct norm_tensors embedding_norm;
    struct layer_tensors *layers;         /* [L] */
    struct linear_tensors pre_classifier; /* [C,C], then ReLU */
    struct linear_tensors classifier;     /* [n_labels,C] */
    struct linear_tensors tagger; /* token_classifier [n_tag_labels,C], or no data */
    enum dtype dtype; /* of the encoder's linear weights; DTYPE_I8 when quantised */
    char name[128];   /* the directory's last component */
    char sha256[65]; /* hex, of the weight file; of the shards' hashes in index order */
    size_t n_parameters;
    size_t n_bytes; /* memory that holds the tensors */
    void *memory;   /* private to checkpoint.c */
};

/* Opens a model directory. On success *out is owned by the caller. Any thread. */
enum status checkpoint_open(const char *model_dir, struct checkpoint **out,
                            struct error *err);
void checkpoint_close(struct checkpoint *c);

/* Every problem of a model directory's config and weights, one line each to report, where
 * checkpoint_open gives the first one. Returns how many there were. */
size_t checkpoint_check(const char *model_dir,
                        void (*report)(void *user, const char *line), void *user);

/* A tensor that a config asks for: what checkpoint_open expects, in the order of its tables.
 * Heads that the config does not have are not counted. */
struct tensor_shape {
    char name[128];
    int32_t n_rows, n_cols;
    bool is_vector; /* shape [n_cols] */
};
size_t checkpoint_n_tensors(const struct model_config *config);
void checkpoint_shape(const struct model_config *config, size_t index,
                      struct tensor_shape *out);

#endif
