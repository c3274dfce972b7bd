/* SPDX-License-Identifier: Apache-2.0
 *
 * bundle.h - a model ready to answer: tokenizer, config, engines, and who they are.
 */
#ifndef VIGIL_SERVER_BUNDLE_H
#define VIGIL_SERVER_BUNDLE_H

#include "kernels/engines.h"
#include "model/config.h"
#include "model/engine.h"
#include "server/canary.h"
#include "tokenizer/tokenizer.h"

struct bundle {
    struct tokenizer *tokenizer;
    struct model_config config;
    struct engine *engine; /* the first */
    struct engine *engines[ENGINES_MAX];
    int32_t n_engines;
    struct canary *canary;
    char name[128];
    char sha256[65];
    size_t n_parameters;
    int32_t positive_label; /* label 1; label 0 of a one-label model */
    int64_t load_ns, warm_ns;
    double tokens_per_second; /* of a device, when it is full; 0: not known */
    char note
        [ERROR_MESSAGE_BYTES]; /* struct engines, or why a device was given up; "" */
};

/* Opens DIR and the engines on it, runs batches to warm them, and the canary. The vocabulary
 * must fit the model's (STATUS_INVALID says both). Where "auto" is a device that computes
 * wrongly the CPU takes its place, and note says why. *out is owned by the caller, freed by
 * bundle_close. */
enum status bundle_open(const char *model_dir, const struct engine_options *options,
                        struct bundle **out, struct error *err);
void bundle_close(struct bundle *b);

/* "cuda:0, cuda:1" */
void bundle_devices(const struct bundle *b, char *out, size_t cap_bytes);
/* Memory of all its engines. */
size_t bundle_engine_bytes(const struct bundle *b);

#endif
