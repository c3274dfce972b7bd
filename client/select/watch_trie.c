/* SPDX-License-Identifier: Apache-2.0 */
#include "client/select/watch_trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Rows of next states, 160 bytes each with names of letters and digits: what is hot of them
 * stays in a second-level cache of 1 MiB. */
#define MAX_ROWS 4096

static size_t common_prefix(struct view a, struct view b) {
    size_t n = a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes, i = 0;
    while (i < n && a.data[i] == b.data[i])
        i++;
    return i;
}

static bool allocate(struct watch_trie *t, bool has_failures) {
    size_t n = t->n_nodes;
    t->first_child = calloc(n + 1, sizeof *t->first_child);
    t->value = calloc(n, sizeof *t->value);
    t->label = calloc(n, 1);
    if (!t->first_child || !t->value || !t->label)
        return false;
    if (!has_failures)
        return true;
    t->fail = calloc(n, sizeof *t->fail);
    t->output = calloc(n, sizeof *t->output);
    t->depth = calloc(n, 1);
    t->n_rows = n < MAX_ROWS ? (uint32_t)n : MAX_ROWS;
    t->rows = calloc((size_t)t->n_rows * t->n_classes, sizeof *t->rows);
    return t->fail && t->output && t->depth && t->rows;
}

/* The names that pass through a node: a range of the sorted ones. */
struct range {
    uint32_t first, end, depth;
};

/* Nodes in breadth-first order: each is taken in turn, its children are put at the end. */
static void fill_nodes(struct watch_trie *t, const struct view *names,
                       struct range *ranges) {
    uint32_t n = 1;
    for (uint32_t node = 0; node < t->n_nodes; node++) {
        struct range r = ranges[node];
        t->first_child[node] = n;
        t->value[node] = WATCH_TRIE_NONE;
        if (t->depth)
            t->depth[node] = (uint8_t)r.depth;
        if (r.first < r.end && names[r.first].n_bytes == r.depth)
            t->value[node] = r.first++;
        while (r.first < r.end) {
            uint8_t byte = (uint8_t)names[r.first].data[r.depth];
            uint32_t end = r.first + 1;
            while (end < r.end && (uint8_t)names[end].data[r.depth] == byte)
                end++;
            ranges[n] = (struct range){r.first, end, r.depth + 1};
            t->label[n] = byte;
            if (node == 0)
                t->root_child[byte] = n;
            n++;
            r.first = end;
        }
    }
    t->first_child[t->n_nodes] = n;
}

/* Parents come first, so what a node's suffix leads to is known. */
static void fill_failures(struct watch_trie *t) {
    for (uint32_t node = 0; node < t->n_nodes; node++)
        for (uint32_t c = t->first_child[node]; c < t->first_child[node + 1]; c++) {
            uint32_t suffix = node ? t->fail[node] : 0, found = 0;
            if (node != 0) {
                while (!(found = watch_trie_child(t, suffix, t->label[c])) && suffix)
                    suffix = t->fail[suffix];
            }
            t->fail[c] = found;
            t->output[c] =
                t->value[found] != WATCH_TRIE_NONE ? found : t->output[found];
        }
    for (uint32_t node = 0; node < t->n_rows; node++) {
        uint32_t *row = t->rows + (size_t)node * t->n_classes;
        if (node)
            memcpy(row, t->rows + (size_t)t->fail[node] * t->n_classes,
                   t->n_classes * sizeof *row);
        for (uint32_t c = t->first_child[node]; c < t->first_child[node + 1]; c++)
            row[t->class[t->label[c]]] = c;
    }
}

enum status watch_trie_build(const struct view *names, size_t n_names,
                             bool has_failures, struct watch_trie *out,
                             struct error *err) {
    *out = (struct watch_trie){.n_nodes = 1, .n_classes = 1};
    for (size_t i = 0; i < n_names; i++) {
        size_t n_shared = i ? common_prefix(names[i - 1], names[i]) : 0;
        out->n_nodes += (uint32_t)(names[i].n_bytes - n_shared);
        for (size_t j = 0; j < names[i].n_bytes; j++) {
            uint8_t *class = &out->class[(uint8_t)names[i].data[j]];
            if (*class == 0)
                *class = (uint8_t)out->n_classes++;
        }
    }
    struct range *ranges = calloc(out->n_nodes, sizeof *ranges);
    if (!ranges || !allocate(out, has_failures)) {
        free(ranges);
        watch_trie_free(out);
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu names", n_names);
    }
    ranges[0] = (struct range){0, (uint32_t)n_names, 0};
    fill_nodes(out, names, ranges);
    if (has_failures)
        fill_failures(out);
    free(ranges);
    return STATUS_OK;
}

void watch_trie_free(struct watch_trie *t) {
    free(t->first_child);
    free(t->value);
    free(t->label);
    free(t->fail);
    free(t->output);
    free(t->depth);
    free(t->rows);
    *t = (struct watch_trie){0};
}
