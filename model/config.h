/* SPDX-License-Identifier: Apache-2.0
 *
 * config.h - the shape, the labels and the task of a DistilBERT classifier (config.json).
 *
 * The dimensions are named here once and used everywhere: B sequences in a batch, T tokens
 * in a packed batch, C width, H heads, D = C / H head width, F hidden width, L layers,
 * V vocabulary, P positions. Shapes are written [T,C], row-major.
 */
#ifndef VIGIL_MODEL_CONFIG_H
#define VIGIL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define MODEL_MAX_LABELS 1024
#define MODEL_MAX_LABEL_BYTES 64

enum problem_type {
    PROBLEM_SINGLE_LABEL, /* softmax over the labels, two or more */
    PROBLEM_MULTI_LABEL,  /* a sigmoid each */
    PROBLEM_REGRESSION    /* the raw outputs */
};

struct model_config {
    int32_t n_layers;      /* L: n_layers */
    int32_t n_heads;       /* H: n_heads */
    int32_t dim;           /* C: dim; n_heads * head_dim */
    int32_t head_dim;      /* D */
    int32_t hidden_dim;    /* F: hidden_dim */
    int32_t vocab_size;    /* V */
    int32_t max_positions; /* P: max_position_embeddings */
    int32_t n_labels;      /* from id2label, or num_labels, or 2 */
    int32_t n_tag_labels;  /* from token_id2label; 0 when the model has no tag head */
    enum problem_type
        problem_type; /* absent: 1 label is regression, else single label */
    bool
        is_quantized; /* the file holds int8 weights that `vigil model quantize` wrote */
    bool has_relu_activation; /* "activation": "relu" instead of "gelu" (erf form) */
    char (*labels)[MODEL_MAX_LABEL_BYTES];     /* [n_labels] */
    char (*tag_labels)[MODEL_MAX_LABEL_BYTES]; /* [n_tag_labels] */
};

/* Reads and checks DIR/config.json. On success *config is owned by the caller and freed
 * with model_config_free; on failure there is nothing to free. */
enum status model_config_read(const char *model_dir, struct model_config *config,
                              struct error *err);
/* The same from memory; name stands for the file in messages. */
enum status model_config_parse(const char *json, size_t n_bytes, const char *name,
                               struct model_config *config, struct error *err);
void model_config_free(struct model_config *config);

#endif
