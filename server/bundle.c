/* SPDX-License-Identifier: Apache-2.0 */
#include "server/bundle.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/engines.h"
#include "model/checkpoint.h"

/* Long enough that every kernel and every thread runs once. */
#define WARM_TOKENS 64

/* Runs one sequence, so that the first post does not pay for first touches. */
static enum status warm(struct bundle *b, struct error *err) {
    int32_t ids[WARM_TOKENS], n = WARM_TOKENS;
    if (n > b->config.max_positions)
        n = b->config.max_positions;
    for (int32_t i = 0; i < n; i++)
        ids[i] = tokenizer_unk_id(b->tokenizer);
    int32_t offsets[2] = {0, n};
    struct batch batch = {.ids = ids,
                          .offsets = offsets,
                          .n_sequences = 1,
                          .wants_tags = b->config.n_tag_labels > 0};
    size_t n_tags = (size_t)n * (size_t)b->config.n_tag_labels;
    float *logits = calloc((size_t)b->config.n_labels + n_tags, sizeof *logits);
    if (!logits)
        return error_set(err, STATUS_NO_MEMORY, "no memory to warm the engine");
    int64_t start = clock_now_ns();
    enum status status = engine_run(b->engine, &batch, logits,
                                    n_tags ? logits + b->config.n_labels : NULL, err);
    b->warm_ns = clock_now_ns() - start;
    free(logits);
    return status;
}

enum status bundle_open(const char *model_dir, const struct engine_options *options,
                        struct bundle **out, struct error *err) {
    struct checkpoint *checkpoint = NULL;
    enum status status;
    int64_t start = clock_now_ns();
    *out = NULL;
    struct bundle *b = calloc(1, sizeof *b);
    if (!b)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a model");
    status = tokenizer_open(model_dir, &b->tokenizer, err);
    if (status != STATUS_OK)
        goto out;
    status = checkpoint_open(model_dir, &checkpoint, err);
    if (status != STATUS_OK)
        goto out;
    int32_t vocab_size = tokenizer_vocab_size(b->tokenizer);
    if (vocab_size > checkpoint->config.vocab_size) {
        status = error_set(err, STATUS_INVALID,
                           "%s: the vocabulary has %d entries, the model only %d",
                           model_dir, vocab_size, checkpoint->config.vocab_size);
        goto out;
    }
    status = engine_open(options, checkpoint, &b->engine, err);
    if (status != STATUS_OK)
        goto out;
    memcpy(b->name, checkpoint->name, sizeof b->name);
    memcpy(b->sha256, checkpoint->sha256, sizeof b->sha256);
    b->n_parameters = checkpoint->n_parameters;
    /* The labels move over; what is left behind has nothing to free. */
    b->config = checkpoint->config;
    memset(&checkpoint->config, 0, sizeof checkpoint->config);
    b->positive_label = b->config.n_labels > 1 ? 1 : 0;
    b->load_ns = clock_now_ns() - start;
    status = warm(b, err);

out:
    checkpoint_close(checkpoint);
    if (status == STATUS_OK)
        *out = b;
    else
        bundle_close(b);
    return status;
}

void bundle_close(struct bundle *b) {
    if (!b)
        return;
    engine_close(b->engine);
    tokenizer_close(b->tokenizer);
    model_config_free(&b->config);
    free(b);
}
