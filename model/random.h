/* SPDX-License-Identifier: Apache-2.0
 *
 * random.h - model directories of any shape with random weights, for tests and benches.
 */
#ifndef VIGIL_MODEL_RANDOM_H
#define VIGIL_MODEL_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct random_options {
    int64_t dim, n_layers, n_heads, max_positions, n_labels, n_tags;
    int64_t hidden_dim; /* 0: 4 * dim */
    int64_t vocab_size; /* 0: the lines of vocab_file, or 30522 */
    int64_t seed;
    const char *problem;    /* "auto", "single", "multi", "regression" */
    const char *dtype;      /* "f32", "f16", "bf16" */
    const char *activation; /* "gelu", "relu" */
    const char *vocab_file; /* NULL: a vocabulary is made up */
    bool is_sinusoidal;
};

/* Writes config.json, model.safetensors, vocab.txt and tokenizer_config.json into dir (made
 * when missing). As transformers initialises a DistilBERT: normal with deviation 0.02, norms
 * 1, the padding's embedding 0; but biases are small numbers instead of 0, so that a kernel
 * that forgets one is seen. The same options give the same bytes. */
enum status random_model_write(const char *dir, const struct random_options *options,
                               struct error *err);

#endif
