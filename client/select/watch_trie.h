/* SPDX-License-Identifier: Apache-2.0
 *
 * watch_trie.h - many names as one automaton over bytes: for watch_list.c alone.
 *
 * A trie whose nodes are numbered breadth first, so that the children of a node are
 * neighbours and a node costs 9 bytes. For names inside of words it has the failure links of
 * Aho and Corasick 1975 as well; the nodes nearest to the root, where text keeps it nearly
 * all the time, then have whole rows of next states, over the bytes that names have at all.
 *
 * Threads: build and free one; all else any.
 */
#ifndef VIGIL_CLIENT_SELECT_WATCH_TRIE_H
#define VIGIL_CLIENT_SELECT_WATCH_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/view.h"

#define WATCH_TRIE_NONE UINT32_MAX

/* Zero-initialise; watch_trie_free on a zeroed one is a no-op. */
struct watch_trie {
    uint32_t n_nodes;
    uint32_t *first_child;    /* [n_nodes + 1] */
    uint32_t *value;          /* [n_nodes] number of the name that ends here, or NONE */
    uint8_t *label;           /* [n_nodes] */
    uint32_t root_child[256]; /* 0: none */

    /* With failure links */
    uint32_t *fail;   /* [n_nodes] the longest suffix that is a node */
    uint32_t *output; /* [n_nodes] the longest suffix where a name ends; 0: none */
    uint8_t *depth;   /* [n_nodes] */
    uint32_t *rows;   /* [n_rows, n_classes] */
    uint32_t n_rows, n_classes;
    uint8_t class[256]; /* of a byte; 0: in no name */
};

/* names are sorted by bytes, without equal ones, none empty or over 255 bytes; name n has
 * the value n. STATUS_NO_MEMORY. */
enum status watch_trie_build(const struct view *names, size_t n_names,
                             bool has_failures, struct watch_trie *out,
                             struct error *err);
void watch_trie_free(struct watch_trie *t);

/* The child under a byte; 0: none. */
static inline uint32_t watch_trie_child(const struct watch_trie *t, uint32_t node,
                                        uint8_t byte) {
    if (node == 0)
        return t->root_child[byte];
    for (uint32_t c = t->first_child[node]; c < t->first_child[node + 1]; c++)
        if (t->label[c] == byte)
            return c;
    return 0;
}

/* The next state of the automaton; needs failure links. */
static inline uint32_t watch_trie_step(const struct watch_trie *t, uint32_t node,
                                       uint8_t byte) {
    while (node >= t->n_rows) {
        uint32_t child = watch_trie_child(t, node, byte);
        if (child)
            return child;
        node = t->fail[node];
    }
    return t->rows[(size_t)node * t->n_classes + t->class[byte]];
}

#endif
