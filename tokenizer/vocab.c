/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab.c - builds the trie and the word table of vocab.h.
 */
#include "tokenizer/vocab.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define FIRST_EDGE_BITS 10
#define FIRST_NODES 1024

static enum status no_memory(struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "out of memory for the vocabulary");
}

/* ---- trie ---- */

static void put_edge(struct vocab *v, struct vocab_edge edge) {
    uint32_t i = edge.key * UINT32_C(0x9E3779B1) >> v->edge_shift;
    while (v->edges[i].key != 0)
        i = (i + 1) & v->edge_mask;
    v->edges[i] = edge;
}

static enum status resize_edges(struct vocab *v, uint32_t bits, struct error *err) {
    struct vocab_edge *old = v->edges;
    size_t n_old = old ? (size_t)v->edge_mask + 1 : 0;
    v->edges = memory_aligned(((size_t)1 << bits) * sizeof *v->edges);
    if (!v->edges) {
        v->edges = old;
        return no_memory(err);
    }
    v->edge_shift = 32 - bits;
    v->edge_mask = (UINT32_C(1) << bits) - 1;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].key != 0)
            put_edge(v, old[i]);
    free(old);
    return STATUS_OK;
}

static enum status resize_nodes(struct vocab *v, uint32_t cap, struct error *err) {
    int32_t *ids = realloc(v->node_ids, cap * sizeof *ids);
    if (!ids)
        return no_memory(err);
    v->node_ids = ids;
    v->cap_nodes = cap;
    return STATUS_OK;
}

static enum status add_node(struct vocab *v, uint32_t parent, uint8_t byte,
                            struct error *err) {
    enum status status = STATUS_OK;
    if (v->n_nodes == v->cap_nodes)
        status = resize_nodes(v, v->cap_nodes * 2, err);
    /* At most 5/8 full: probes stay short, and a vocabulary of 30,000 fits in 1 MiB. */
    if (status == STATUS_OK && (uint64_t)v->n_nodes * 8 > (uint64_t)v->edge_mask * 5)
        status = resize_edges(v, 33 - v->edge_shift, err);
    if (status != STATUS_OK)
        return status;
    v->node_ids[v->n_nodes] = -1;
    put_edge(v, (struct vocab_edge){parent << 8 | byte, v->n_nodes});
    v->n_nodes++;
    return STATUS_OK;
}

static enum status add_piece(struct vocab *v, int32_t id, struct error *err) {
    const char *text = v->text + v->starts[id];
    uint32_t node = 0;
    size_t n = strlen(text);
    if (n == 0)
        return error_set(err, STATUS_INVALID, "entry %d is empty", id + 1);
    if (n > VOCAB_MAX_TOKEN_BYTES)
        return error_set(err, STATUS_LIMIT,
                         "entry %d has %zu bytes, over the limit of %d", id + 1, n,
                         VOCAB_MAX_TOKEN_BYTES);
    for (size_t i = 0; i < n; i++) {
        uint32_t next = vocab_step(v, node, (uint8_t)text[i]);
        if (next == 0) {
            next = v->n_nodes;
            enum status status = add_node(v, node, (uint8_t)text[i], err);
            if (status != STATUS_OK)
                return status;
        }
        node = next;
    }
    if (v->node_ids[node] >= 0)
        return error_set(err, STATUS_INVALID, "entry %d is the same as entry %d",
                         id + 1, v->node_ids[node] + 1);
    v->node_ids[node] = id;
    return STATUS_OK;
}

static enum status build_trie(struct vocab *v, struct error *err) {
    enum status status = resize_edges(v, FIRST_EDGE_BITS, err);
    if (status == STATUS_OK)
        status = resize_nodes(v, FIRST_NODES, err);
    if (status != STATUS_OK)
        return status;
    v->node_ids[0] = -1;
    v->n_nodes = 1;
    for (int32_t id = 0; id < v->n_pieces && status == STATUS_OK; id++)
        status = add_piece(v, id, err);
    return status;
}

/* ---- words ---- */

/* Pads text to a key; false when it is no word for the table. */
static bool word_key(const char *text, uint64_t key[2]) {
    char padded[16] = {0};
    size_t n = 0;
    for (; text[n]; n++) {
        char c = text[n];
        bool is_word_char =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (n == 15 || !is_word_char)
            return false;
        padded[n] = c;
    }
    memcpy(key, padded, 16);
    return true;
}

static void add_word(struct vocab *v, const uint64_t key[2], int32_t id) {
    uint32_t at = vocab_word_hash(v, key[0], key[1]);
    while (v->buckets[at].n >= VOCAB_BUCKET_WORDS) {
        v->buckets[at].n = VOCAB_BUCKET_OVERFLOWS;
        at = (at + 1) & v->bucket_mask;
    }
    struct vocab_bucket *b = &v->buckets[at];
    b->low[b->n] = key[0];
    b->high[b->n] = key[1];
    b->ids[b->n++] = id;
}

static enum status build_words(struct vocab *v, struct error *err) {
    uint64_t key[2];
    uint32_t n = 0, bits = 4;
    for (int32_t id = 0; id < v->n_pieces; id++)
        n += word_key(v->text + v->starts[id], key);
    /* Half full at most: 3 words a bucket. */
    while (((uint64_t)VOCAB_BUCKET_WORDS << bits) < (uint64_t)n * 2)
        bits++;
    v->buckets = memory_aligned(((size_t)1 << bits) * sizeof *v->buckets);
    if (!v->buckets)
        return no_memory(err);
    v->bucket_shift = 64 - bits;
    v->bucket_mask = (UINT32_C(1) << bits) - 1;
    for (int32_t id = 0; id < v->n_pieces; id++)
        if (word_key(v->text + v->starts[id], key))
            add_word(v, key, id);
    return STATUS_OK;
}

/* ---- vocabulary ---- */

enum status vocab_open(struct vocab *v, char *text, uint32_t *starts, int32_t n,
                       int32_t n_pieces, struct error *err) {
    *v = (struct vocab){.text = text, .starts = starts, .n = n, .n_pieces = n_pieces};
    enum status status = build_trie(v, err);
    if (status == STATUS_OK)
        status = build_words(v, err);
    if (status != STATUS_OK)
        vocab_close(v);
    return status;
}

void vocab_close(struct vocab *v) {
    if (!v)
        return;
    free(v->text);
    free(v->starts);
    free(v->edges);
    free(v->node_ids);
    free(v->buckets);
    *v = (struct vocab){0};
}

int32_t vocab_find(const struct vocab *v, const char *text) {
    uint32_t node = 0;
    for (; *text; text++) {
        node = vocab_step(v, node, (uint8_t)*text);
        if (node == 0)
            return -1;
    }
    return v->node_ids[node];
}
