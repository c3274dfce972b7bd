/* SPDX-License-Identifier: Apache-2.0
 *
 * canary.h - a fixed text with a known answer, for telling an engine that computes wrongly
 * from one that does not.
 *
 * When a model is loaded, what a device says to the text is held against the CPU engine's
 * fp32, of the same weights; an engine on the CPU is believed. What each engine said then is
 * what it has to say ever after: the text is always a batch by itself, and the same batch
 * gives the same bits. watch.h asks again and again.
 *
 * Threads: any; it is not changed after it was opened.
 */
#ifndef VIGIL_SERVER_CANARY_H
#define VIGIL_SERVER_CANARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/checkpoint.h"
#include "model/engine.h"
#include "tokenizer/tokenizer.h"

#define CANARY_MAX_TOKENS 64

struct canary {
    int32_t ids[CANARY_MAX_TOKENS];
    int32_t n_tokens;
    int32_t n_labels, n_tag_labels;
    size_t n_values; /* n_labels, then n_tokens * n_tag_labels */
    float *answers;  /* [n_engines, n_values] at load */
};

/* Asks the engines. STATUS_INTERNAL when a device is not near enough to the CPU: it has to be
 * said of this model on this device, and not of the device alone, since what another model
 * needs it may do. *out is owned by the caller (canary_close). */
enum status canary_open(const struct tokenizer *tokenizer, const struct checkpoint *c,
                        struct engine *const *engines, int32_t n_engines,
                        struct canary **out, struct error *err);
void canary_close(struct canary *canary);

/* STATUS_DEVICE when this is not what engine `index` said at load; values [n_values]. */
enum status canary_check(const struct canary *canary, int32_t index,
                         const float *values, struct error *err);

#endif
