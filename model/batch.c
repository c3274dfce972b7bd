/* SPDX-License-Identifier: Apache-2.0 */
#include "model/batch.h"

enum status batch_check(const struct batch *b, const struct model_config *config,
                        struct error *err) {
    if (b->n_sequences < 1)
        return error_set(err, STATUS_INVALID,
                         "a batch of %d sequences, expected 1 or more", b->n_sequences);
    if (b->offsets[0] != 0)
        return error_set(err, STATUS_INVALID, "a batch starts at offset %d, expected 0",
                         b->offsets[0]);
    for (int32_t i = 0; i < b->n_sequences; i++) {
        int64_t length = (int64_t)b->offsets[i + 1] - b->offsets[i];
        if (length < 1 || length > config->max_positions)
            return error_set(err, STATUS_INVALID,
                             "sequence %d of a batch has %lld tokens, expected 1 to %d",
                             i, (long long)length, config->max_positions);
        for (int32_t t = b->offsets[i]; t < b->offsets[i + 1]; t++)
            if (b->ids[t] < 0 || b->ids[t] >= config->vocab_size)
                return error_set(
                    err, STATUS_INVALID,
                    "sequence %d of a batch has the id %d, expected 0 to %d", i,
                    b->ids[t], config->vocab_size - 1);
    }
    return STATUS_OK;
}
