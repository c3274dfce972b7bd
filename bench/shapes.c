/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/shapes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIXED "mixed"

enum {
    MAX_SEQUENCES = 1 << 16,
    MAX_TOKENS = 1 << 24,
    MIXED_SEQUENCES = 256,
    MIXED_SHORTEST = 16,
    MIXED_LONGEST = 64,
    CLS = 101, /* in BERT's vocabulary */
    SEP = 102,
    FIRST_WORD = 1000 /* ids below are specials, unused entries and letters */
};

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* "8x128"; false: it is none. */
static bool parse(const char *name, int32_t *n_sequences, int32_t *n_tokens) {
    char *end;
    long b = strtol(name, &end, 10);
    if (end == name || *end != 'x' || b < 1 || b > MAX_SEQUENCES)
        return false;
    const char *second = end + 1;
    long l = strtol(second, &end, 10);
    if (end == second || *end || l < 1 || l > MAX_TOKENS / b)
        return false;
    *n_sequences = (int32_t)b;
    *n_tokens = (int32_t)l;
    return true;
}

/* Evenly spread lengths, symmetric about their mean of 40, in random order. */
static void mix_lengths(int32_t lengths[MIXED_SEQUENCES]) {
    enum { SPREAD = MIXED_LONGEST - MIXED_SHORTEST, LAST = MIXED_SEQUENCES - 1 };
    uint32_t state = 1;
    for (int32_t i = 0; i < MIXED_SEQUENCES; i++)
        lengths[i] = MIXED_SHORTEST + (2 * SPREAD * i + LAST) / (2 * LAST);
    for (int32_t i = LAST; i > 0; i--) {
        int32_t other = (int32_t)(next_random(&state) % (uint32_t)(i + 1));
        int32_t kept = lengths[i];
        lengths[i] = lengths[other];
        lengths[other] = kept;
    }
}

static void fill_ids(struct shape *s, int32_t vocab_size) {
    uint32_t state = 2;
    bool is_bert = vocab_size > FIRST_WORD;
    uint32_t first = is_bert ? FIRST_WORD : 0;
    uint32_t n_words = (uint32_t)vocab_size - first;
    for (int32_t b = 0; b < s->n_sequences; b++) {
        for (int32_t i = s->starts[b]; i < s->starts[b + 1]; i++)
            s->ids[i] = (int32_t)(first + next_random(&state) % n_words);
        if (!is_bert)
            continue;
        s->ids[s->starts[b + 1] - 1] = SEP;
        s->ids[s->starts[b]] = CLS;
    }
}

enum status shape_make(const char *name, const struct model_config *config,
                       struct shape *out, struct error *err) {
    int32_t n = MIXED_SEQUENCES, n_tokens = 0, longest = MIXED_LONGEST;
    int32_t lengths[MIXED_SEQUENCES];
    bool is_mixed = strcmp(name, MIXED) == 0;
    *out = (struct shape){0};
    if (!is_mixed && !parse(name, &n, &longest))
        return error_set(err, STATUS_INVALID,
                         "a shape is SEQUENCESxTOKENS, such as 8x128, or mixed; not "
                         "\"%.40s\"",
                         name);
    if (longest > config->max_positions)
        return error_set(err, STATUS_LIMIT,
                         "%.40s has sequences of %d tokens, this model takes %d", name,
                         longest, config->max_positions);
    if (is_mixed)
        mix_lengths(lengths);
    snprintf(out->name, sizeof out->name, "%s", name);
    out->n_sequences = n;
    out->starts = calloc((size_t)n + 1, sizeof *out->starts);
    out->ids = calloc((size_t)n * (size_t)longest, sizeof *out->ids);
    if (!out->starts || !out->ids) {
        shape_free(out);
        return error_set(err, STATUS_NO_MEMORY, "no memory for %s", name);
    }
    for (int32_t b = 0; b < n; b++) {
        n_tokens += is_mixed ? lengths[b] : longest;
        out->starts[b + 1] = n_tokens;
    }
    fill_ids(out, config->vocab_size);
    return STATUS_OK;
}

void shape_free(struct shape *s) {
    free(s->ids);
    free(s->starts);
    *s = (struct shape){0};
}

struct shape_work shape_work_of(const struct shape *s,
                                const struct model_config *config) {
    double c = config->dim, f = config->hidden_dim, layers = config->n_layers;
    double n = s->n_sequences, tokens = s->starts[s->n_sequences], squares = 0;
    double kv = 2 * c * c, rest = 2 * c * c + 2 * c * f, head = c * c;
    for (int32_t b = 0; b < s->n_sequences; b++) {
        double length = s->starts[b + 1] - s->starts[b];
        squares += length * length;
    }
    double products = tokens * (layers * kv + (layers - 1) * rest) + n * rest;
    double attention = 2 * c * ((layers - 1) * squares + tokens);
    return (struct shape_work){
        .flop = 2 * (products + attention + n * (head + c * config->n_labels)),
        .weight_bytes = 2 * (layers * (kv + rest) + head),
        /* Of a token in a layer: queries, keys, values in, context out; two LayerNorms with
         * what they add. 92 KB a token for DistilBERT-base. */
        .traffic_bytes = 2 * tokens * layers * 10 * c,
        /* Embeddings, seven a layer, the head, and the copies. */
        .n_launches = 7 * config->n_layers + 3};
}
