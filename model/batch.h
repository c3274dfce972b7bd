/* SPDX-License-Identifier: Apache-2.0
 *
 * batch.h - a packed batch: sequences laid end to end, with no padding and no mask.
 *
 *   ids      [101 2318 … 102 101 1045 … 102 …]   T tokens
 *   offsets  [0            23           41  …]   B + 1, offsets[0] == 0, offsets[B] == T
 *
 * Sequence b is ids[offsets[b] .. offsets[b+1]), 1 to P tokens; token i of it has position
 * i. The arrays belong to whoever made the batch.
 */
#ifndef VIGIL_MODEL_BATCH_H
#define VIGIL_MODEL_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "model/config.h"

struct batch {
    const int32_t *ids;     /* [T] */
    const int32_t *offsets; /* [B + 1] */
    int32_t n_sequences;    /* B */
    bool wants_tags;        /* token tags are asked for: the last layer runs in full */
};

static inline int32_t batch_n_tokens(const struct batch *b) {
    return b->offsets[b->n_sequences];
}

/* STATUS_INVALID, and which sequence, unless every id is in [0, V) and every length in
 * [1, P]. */
enum status batch_check(const struct batch *b, const struct model_config *config,
                        struct error *err);

#endif
