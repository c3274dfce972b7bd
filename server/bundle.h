/* SPDX-License-Identifier: Apache-2.0
 *
 * bundle.h - a model ready to answer: tokenizer, config, engine, and who they are.
 */
#ifndef VIGIL_SERVER_BUNDLE_H
#define VIGIL_SERVER_BUNDLE_H

#include "model/config.h"
#include "model/engine.h"
#include "tokenizer/tokenizer.h"

struct bundle {
    struct tokenizer *tokenizer;
    struct model_config config;
    struct engine *engine;
    char name[128];
    char sha256[65];
    size_t n_parameters;
    int32_t positive_label; /* label 1; label 0 of a one-label model */
    int64_t load_ns, warm_ns;
};

/* Opens DIR and an engine on it, runs one batch to warm it. The vocabulary must fit the
 * model's (STATUS_INVALID says both). *out is owned by the caller, freed by bundle_close. */
enum status bundle_open(const char *model_dir, const struct engine_options *options,
                        struct bundle **out, struct error *err);
void bundle_close(struct bundle *b);

#endif
