/* SPDX-License-Identifier: Apache-2.0
 *
 * model.h - a model directory read with no library: a machine with a GPU may have none.
 *
 * Sizes come from the tensors' shapes; of config.json the number of heads, the activation
 * and the problem type. model_open ends the case where something is not as it should be:
 * these are the tests' own models. checkpoint_open, which trusts nothing, has its own tests.
 */
#ifndef VIGIL_TESTS_CUDA_MODEL_H
#define VIGIL_TESTS_CUDA_MODEL_H

#include <stdlib.h>

#include "model/checkpoint.h"
#include "tests/cuda/check.h"

#define MODEL_PREFIX "distilbert.transformer.layer.%d."

struct model_file {
    char *text;   /* the header, or a whole file of text */
    char *values; /* what lies behind the header */
    size_t n_values;
};

static inline void *need(void *p) {
    if (!p)
        check_stop("no memory");
    return p;
}

static inline FILE *model_file_open(const char *directory, const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "re");
    if (!f)
        check_stop("cannot open %s", path);
    return f;
}

/* n_bytes of the file, with a 0 behind them. */
static inline char *model_file_take(FILE *f, size_t n_bytes) {
    char *bytes = need(malloc(n_bytes + 1));
    if (fread(bytes, 1, n_bytes, f) != n_bytes)
        check_stop("a model's file is too short");
    bytes[n_bytes] = '\0';
    return bytes;
}

static inline size_t model_file_left(FILE *f) {
    long here = ftell(f);
    fseek(f, 0, SEEK_END);
    long end = ftell(f);
    fseek(f, here, SEEK_SET);
    return (size_t)(end - here);
}

/* What follows "key": in a text, or NULL. */
static inline const char *json_after(const char *text, const char *key) {
    char quoted[160];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(text, quoted);
    if (!at)
        return NULL;
    at += strlen(quoted);
    return at + strspn(at, " \n");
}

/* The numbers of an array, of arrays too, up to cap; how many. */
static inline int32_t json_numbers(const char *at, double *out, int32_t cap) {
    int32_t n = 0, depth = 0;
    do {
        at += strspn(at, ", \n");
        char *end;
        if (*at == '[' || *at == ']') {
            depth += *at == '[' ? 1 : -1;
            at++;
            continue;
        }
        double value = strtod(at, &end);
        if (end == at || n == cap)
            check_stop("not an array of up to %d numbers: %.20s", cap, at);
        out[n++] = value;
        at = end;
    } while (depth > 0);
    return n;
}

static inline bool tensor_find(const struct model_file *f, const char *name,
                               struct tensor *out) {
    static const char *const dtypes[] = {"\"F32\"", "\"F16\"", "\"BF16\"", "\"I8\""};
    char scale_name[160];
    double shape[2] = {1, 1}, range[2];
    struct tensor scale;
    const char *at = json_after(f->text, name);
    if (!at)
        return false;
    const char *dtype = json_after(at, "dtype");
    int32_t n_dims = json_numbers(json_after(at, "shape"), shape, 2);
    json_numbers(json_after(at, "data_offsets"), range, 2);
    if (range[1] > (double)f->n_values)
        check_stop("%s lies behind the file's end", name);
    *out = (struct tensor){.data = f->values + (size_t)range[0],
                           .n_rows = n_dims == 2 ? (int32_t)shape[0] : 1,
                           .n_cols = (int32_t)shape[n_dims - 1]};
    for (int i = 0; i < 4; i++)
        if (strncmp(dtype, dtypes[i], strlen(dtypes[i])) == 0)
            out->dtype = (enum dtype)i;
    snprintf(scale_name, sizeof scale_name, "%s_scale", name);
    if (out->dtype == DTYPE_I8 && tensor_find(f, scale_name, &scale))
        out->row_scale = scale.data;
    return true;
}

static inline struct tensor tensor_of(const struct model_file *f, int32_t layer,
                                      const char *name) {
    char full[160];
    struct tensor t;
    int n = layer < 0 ? 0 : snprintf(full, sizeof full, MODEL_PREFIX, layer);
    snprintf(full + n, sizeof full - (size_t)n, "%s", name);
    if (!tensor_find(f, full, &t))
        check_stop("no tensor %s", full);
    return t;
}

#define MODEL_PAIR(layer, name)                                                        \
    { tensor_of(f, layer, name ".weight"), tensor_of(f, layer, name ".bias") }

static inline struct layer_tensors layer_of(const struct model_file *f, int32_t i) {
    return (struct layer_tensors){.q = MODEL_PAIR(i, "attention.q_lin"),
                                  .k = MODEL_PAIR(i, "attention.k_lin"),
                                  .v = MODEL_PAIR(i, "attention.v_lin"),
                                  .out = MODEL_PAIR(i, "attention.out_lin"),
                                  .attention_norm = MODEL_PAIR(i, "sa_layer_norm"),
                                  .up = MODEL_PAIR(i, "ffn.lin1"),
                                  .down = MODEL_PAIR(i, "ffn.lin2"),
                                  .output_norm = MODEL_PAIR(i, "output_layer_norm")};
}

static inline void model_take_layers(struct checkpoint *c, const struct model_file *f) {
    char name[160];
    struct tensor ignored;
    int32_t n = 0;
    do
        snprintf(name, sizeof name, MODEL_PREFIX "ffn.lin1.weight", ++n);
    while (tensor_find(f, name, &ignored));
    c->layers = need(calloc((size_t)n, sizeof *c->layers));
    c->config.n_layers = n;
    for (int32_t i = 0; i < n; i++)
        c->layers[i] = layer_of(f, i);
    c->config.hidden_dim = c->layers[0].up.weight.n_rows;
    c->dtype = c->layers[0].q.weight.dtype;
}

static inline void model_take_config(struct checkpoint *c, const char *text) {
    const char *problem = json_after(text, "problem_type"),
               *activation = json_after(text, "activation");
    struct model_config *config = &c->config;
    config->n_heads = (int32_t)strtol(json_after(text, "n_heads"), NULL, 10);
    config->dim = c->word_embeddings.n_cols;
    config->head_dim = config->dim / config->n_heads;
    config->vocab_size = c->word_embeddings.n_rows;
    config->max_positions = c->position_embeddings.n_rows;
    config->n_labels = c->classifier.weight.n_rows;
    config->n_tag_labels = c->tagger.weight.data ? c->tagger.weight.n_rows : 0;
    config->has_relu_activation = activation && strncmp(activation, "\"relu\"", 6) == 0;
    config->problem_type = config->n_labels == 1 ? PROBLEM_REGRESSION
                           : problem && strncmp(problem, "\"multi_label", 12) == 0
                               ? PROBLEM_MULTI_LABEL
                               : PROBLEM_SINGLE_LABEL;
}

/* model_close it. */
static inline struct checkpoint *model_open(const char *directory) {
    struct checkpoint *c = need(calloc(1, sizeof *c));
    struct model_file read = {0}, *f = &read;
    uint64_t n_header = 0;
    FILE *file = model_file_open(directory, "model.safetensors");
    if (fread(&n_header, sizeof n_header, 1, file) != 1 || n_header > 1 << 20)
        check_stop("%s: no safetensors file", directory);
    read.text = model_file_take(file, (size_t)n_header);
    read.n_values = model_file_left(file);
    read.values = model_file_take(file, read.n_values);
    fclose(file);
    c->memory = read.values;
    c->word_embeddings =
        tensor_of(f, -1, "distilbert.embeddings.word_embeddings.weight");
    c->position_embeddings =
        tensor_of(f, -1, "distilbert.embeddings.position_embeddings.weight");
    c->embedding_norm =
        (struct norm_tensors)MODEL_PAIR(-1, "distilbert.embeddings.LayerNorm");
    c->pre_classifier = (struct linear_tensors)MODEL_PAIR(-1, "pre_classifier");
    c->classifier = (struct linear_tensors)MODEL_PAIR(-1, "classifier");
    if (json_after(f->text, "token_classifier.weight"))
        c->tagger = (struct linear_tensors)MODEL_PAIR(-1, "token_classifier");
    model_take_layers(c, f);
    free(read.text);
    file = model_file_open(directory, "config.json");
    read.text = model_file_take(file, model_file_left(file));
    fclose(file);
    model_take_config(c, read.text);
    free(read.text);
    return c;
}

static inline void model_close(struct checkpoint *c) {
    free(c->memory);
    free(c->layers);
    free(c);
}

#endif
