/* SPDX-License-Identifier: Apache-2.0 */
#include "server/bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "model/checkpoint.h"

/* Long enough that every kernel and every thread runs once. */
#define WARM_TOKENS 64
/* On a device batches then grow by this factor: its kernels differ with their size. */
#define WARM_GROWTH 8
/* Until one takes so long. */
#define WARM_ENOUGH_NS (CLOCK_NS_PER_SECOND / 20)

/* ---- warming ---- */

struct warming {
    int32_t *ids, *offsets;
    float *logits, *tags;
};

static void warming_free(struct warming *w) {
    free(w->ids);
    free(w->offsets);
    free(w->logits);
    free(w->tags);
}

static enum status warming_init(struct warming *w, const struct bundle *b,
                                const struct model_config *config, int32_t n_tokens,
                                struct error *err) {
    size_t n = (size_t)n_tokens;
    *w =
        (struct warming){calloc(n, sizeof *w->ids), calloc(n + 1, sizeof *w->offsets),
                         calloc(n * (size_t)config->n_labels, sizeof *w->logits),
                         calloc(n * (size_t)config->n_tag_labels + 1, sizeof *w->tags)};
    if (!w->ids || !w->offsets || !w->logits || !w->tags) {
        warming_free(w);
        return error_set(err, STATUS_NO_MEMORY, "no memory to warm the engine");
    }
    for (size_t i = 0; i < n; i++)
        w->ids[i] = tokenizer_unk_id(b->tokenizer);
    return STATUS_OK;
}

/* One batch of n_tokens in sequences of WARM_TOKENS, or of what the model takes. */
static enum status warm_once(const struct warming *w, struct engine *e,
                             const struct model_config *config, int32_t n_tokens,
                             int64_t *ns, struct error *err) {
    int32_t length =
        config->max_positions < WARM_TOKENS ? config->max_positions : WARM_TOKENS;
    struct batch batch = {
        .ids = w->ids, .offsets = w->offsets, .wants_tags = config->n_tag_labels > 0};
    while (batch.n_sequences < e->info.max_sequences &&
           batch_n_tokens(&batch) < n_tokens) {
        int32_t at = batch_n_tokens(&batch), left = n_tokens - at;
        w->offsets[++batch.n_sequences] = at + (left < length ? left : length);
    }
    int64_t start = clock_now_ns();
    enum status status =
        engine_run(e, &batch, w->logits, batch.wants_tags ? w->tags : NULL, err);
    *ns = clock_now_ns() - start;
    return status;
}

/* So that the first post does not pay for first touches, and that it is known from the start
 * how fast a device is: a small batch says nothing of that. */
static enum status warm(struct bundle *b, struct engine *e,
                        const struct model_config *config, struct error *err) {
    struct warming w;
    bool is_device = e->info.n_in_flight > 1;
    int32_t n =
        config->max_positions < WARM_TOKENS ? config->max_positions : WARM_TOKENS;
    int32_t most = is_device ? e->info.max_tokens : n;
    enum status status = warming_init(&w, b, config, most, err);
    if (status != STATUS_OK)
        return status;
    double speed = 0;
    bool is_enough = false;
    while (status == STATUS_OK && !is_enough) {
        int64_t ns = 0;
        status = warm_once(&w, e, config, n, &ns, err);
        double found = n / ((double)(ns + 1) * 1e-9);
        speed = found > speed ? found : speed;
        is_enough = n == most || ns > WARM_ENOUGH_NS;
        n = n < most / WARM_GROWTH ? n * WARM_GROWTH : most;
    }
    if (is_device && (b->tokens_per_second == 0 || speed < b->tokens_per_second))
        b->tokens_per_second = speed;
    warming_free(&w);
    return status;
}

/* ---- engines ---- */

static void close_engines(struct bundle *b) {
    for (int32_t i = 0; i < b->n_engines; i++)
        engine_close(b->engines[i]);
    b->n_engines = 0;
    b->engine = NULL;
}

/* Opens the engines and sees that they work. */
static enum status open_engines(struct bundle *b, const struct engine_options *options,
                                const struct checkpoint *c, struct error *err) {
    struct engines opened;
    int64_t start = clock_now_ns();
    enum status status = engines_open(options, c, &opened, err);
    if (status != STATUS_OK)
        return status;
    memcpy(b->engines, opened.engines, sizeof b->engines);
    b->n_engines = opened.n;
    b->engine = b->engines[0];
    if (opened.note[0])
        memcpy(b->note, opened.note, sizeof b->note);
    b->load_ns += clock_now_ns() - start;
    start = clock_now_ns();
    for (int32_t i = 0; i < b->n_engines && status == STATUS_OK; i++)
        status = warm(b, b->engines[i], &c->config, err);
    if (status == STATUS_OK)
        status =
            canary_open(b->tokenizer, c, b->engines, b->n_engines, &b->canary, err);
    b->warm_ns += clock_now_ns() - start;
    /* A dead device is not closed: that may never end. */
    if (status == STATUS_DEVICE)
        b->n_engines = 0;
    return status;
}

/* The same, on the CPU where whatever is best was asked for and a device is not good. */
static enum status find_engines(struct bundle *b, const struct engine_options *options,
                                const struct checkpoint *c, struct error *err) {
    enum status status = open_engines(b, options, c, err);
    if (status == STATUS_OK || !engines_is_auto(options) || !b->engine ||
        !engines_is_cuda(b->engine))
        return status;
    struct engine_options cpu = *options;
    cpu.device = "cpu";
    memcpy(b->note, err->message, sizeof b->note);
    close_engines(b);
    b->tokens_per_second = 0;
    return open_engines(b, &cpu, c, err);
}

/* ---- the whole ---- */

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
    b->load_ns = clock_now_ns() - start;
    status = find_engines(b, options, checkpoint, err);
    if (status != STATUS_OK)
        goto out;
    memcpy(b->name, checkpoint->name, sizeof b->name);
    memcpy(b->sha256, checkpoint->sha256, sizeof b->sha256);
    b->n_parameters = checkpoint->n_parameters;
    /* The labels move over; what is left behind has nothing to free. */
    b->config = checkpoint->config;
    memset(&checkpoint->config, 0, sizeof checkpoint->config);
    b->positive_label = b->config.n_labels > 1 ? 1 : 0;

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
    canary_close(b->canary);
    close_engines(b);
    tokenizer_close(b->tokenizer);
    model_config_free(&b->config);
    free(b);
}

void bundle_devices(const struct bundle *b, char *out, size_t cap_bytes) {
    size_t at = 0;
    out[0] = '\0';
    for (int32_t i = 0; i < b->n_engines && at < cap_bytes; i++) {
        int n = snprintf(out + at, cap_bytes - at, "%s%s", i ? ", " : "",
                         b->engines[i]->info.device);
        at += n > 0 ? (size_t)n : 0;
    }
}

size_t bundle_engine_bytes(const struct bundle *b) {
    size_t n = 0;
    for (int32_t i = 0; i < b->n_engines; i++)
        n += b->engines[i]->info.n_bytes;
    return n;
}
