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

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8 };

/* A matrix [n_rows, n_cols] (a vector has n_rows == 1), row-major, in the file's own dtype.
 * Weights of linear layers are [out, in], as PyTorch stores them. */
struct tensor {
    const void *data;       /* NULL when the model does not have it */
    const float *row_scale; /* DTYPE_I8 only: [n_rows]; value = data * row_scale[row] */
    int32_t n_rows, n_cols;
    enum dtype dtype;
};

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

/* One row of a tensor as fp32 into out[n_cols]. Exact for every dtype (an int8 row times its
 * scale). */
void tensor_row_f32(const struct tensor *t, int32_t row, float *out);

const char *dtype_name(enum dtype dtype); /* "fp32", "fp16", "bf16", "int8" */

#endif
