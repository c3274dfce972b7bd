/* SPDX-License-Identifier: Apache-2.0
 *
 * random_model.h - a checkpoint of any shape made in memory, and random packed batches: for
 * tests that hold engines against each other.
 */
#ifndef VIGIL_TESTS_RANDOM_MODEL_H
#define VIGIL_TESTS_RANDOM_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "model/batch.h"
#include "model/checkpoint.h"

static uint64_t random_state = 1;

/* xorshift64*: the same numbers on every machine. */
static inline uint32_t random_u32(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * UINT64_C(2685821657736338717)) >> 32);
}

/* About normal: the sum of four uniforms, scaled to the deviation asked for. */
static inline float random_normal(float deviation) {
    float sum = 0.0f;
    for (int i = 0; i < 4; i++)
        sum += (float)(random_u32() >> 8) * 0x1p-24f - 0.5f;
    return sum * deviation * 1.7320508f;
}

static inline struct tensor random_tensor(int32_t n_rows, int32_t n_cols, float mean,
                                          float deviation) {
    size_t n = (size_t)n_rows * (size_t)n_cols;
    float *data = malloc(n * sizeof *data);
    for (size_t i = 0; i < n; i++)
        data[i] = mean + random_normal(deviation);
    return (struct tensor){
        .data = data, .n_rows = n_rows, .n_cols = n_cols, .dtype = DTYPE_F32};
}

static inline struct linear_tensors random_linear(int32_t n_out, int32_t n_in) {
    return (struct linear_tensors){random_tensor(n_out, n_in, 0.0f, 0.06f),
                                   random_tensor(1, n_out, 0.0f, 0.05f)};
}

static inline struct norm_tensors random_norm(int32_t dim) {
    return (struct norm_tensors){random_tensor(1, dim, 1.0f, 0.1f),
                                 random_tensor(1, dim, 0.0f, 0.1f)};
}

/* config: n_layers, n_heads, dim, hidden_dim, vocab_size, max_positions, n_labels,
 * n_tag_labels; the rest is filled in. */
static inline struct checkpoint *random_model(struct model_config config,
                                              uint64_t seed) {
    struct checkpoint *c = calloc(1, sizeof *c);
    random_state = seed;
    config.head_dim = config.dim / config.n_heads;
    c->config = config;
    c->dtype = DTYPE_F32;
    c->word_embeddings = random_tensor(config.vocab_size, config.dim, 0.0f, 0.05f);
    c->position_embeddings =
        random_tensor(config.max_positions, config.dim, 0.0f, 0.05f);
    c->embedding_norm = random_norm(config.dim);
    c->layers = calloc((size_t)config.n_layers, sizeof *c->layers);
    for (int32_t i = 0; i < config.n_layers; i++)
        c->layers[i] = (struct layer_tensors){
            .q = random_linear(config.dim, config.dim),
            .k = random_linear(config.dim, config.dim),
            .v = random_linear(config.dim, config.dim),
            .out = random_linear(config.dim, config.dim),
            .attention_norm = random_norm(config.dim),
            .up = random_linear(config.hidden_dim, config.dim),
            .down = random_linear(config.dim, config.hidden_dim),
            .output_norm = random_norm(config.dim),
        };
    c->pre_classifier = random_linear(config.dim, config.dim);
    c->classifier = random_linear(config.n_labels, config.dim);
    if (config.n_tag_labels)
        c->tagger = random_linear(config.n_tag_labels, config.dim);
    return c;
}

static inline void random_linear_free(struct linear_tensors *l) {
    free((void *)l->weight.data);
    free((void *)l->bias.data);
}

static inline void random_norm_free(struct norm_tensors *n) {
    free((void *)n->weight.data);
    free((void *)n->bias.data);
}

static inline void random_model_free(struct checkpoint *c) {
    for (int32_t i = 0; i < c->config.n_layers; i++) {
        struct layer_tensors *l = &c->layers[i];
        struct linear_tensors *linears[] = {&l->q,   &l->k,  &l->v,
                                            &l->out, &l->up, &l->down};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++)
            random_linear_free(linears[j]);
        random_norm_free(&l->attention_norm);
        random_norm_free(&l->output_norm);
    }
    random_linear_free(&c->pre_classifier);
    random_linear_free(&c->classifier);
    random_linear_free(&c->tagger);
    random_norm_free(&c->embedding_norm);
    free((void *)c->word_embeddings.data);
    free((void *)c->position_embeddings.data);
    free(c->layers);
    free(c);
}

/* A batch of the given lengths with random ids; free(batch_ids) and free(batch_offsets). */
static inline struct batch random_batch(const int32_t *lengths, int32_t n,
                                        int32_t vocab_size, bool wants_tags) {
    int32_t *offsets = malloc(((size_t)n + 1) * sizeof *offsets);
    offsets[0] = 0;
    for (int32_t i = 0; i < n; i++)
        offsets[i + 1] = offsets[i] + lengths[i];
    int32_t *ids = malloc((size_t)offsets[n] * sizeof *ids);
    for (int32_t i = 0; i < offsets[n]; i++)
        ids[i] = (int32_t)(random_u32() % (uint32_t)vocab_size);
    return (struct batch){ids, offsets, n, wants_tags};
}

static inline void random_batch_free(struct batch *b) {
    free((void *)b->ids);
    free((void *)b->offsets);
}

#endif
