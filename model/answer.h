/* SPDX-License-Identifier: Apache-2.0
 *
 * answer.h - what an engine's numbers mean: label, probabilities, evidence spans.
 */
#ifndef VIGIL_MODEL_ANSWER_H
#define VIGIL_MODEL_ANSWER_H

#include <stdint.h>

#include "model/config.h"
#include "model/windows.h"

/* A span of the text that the token tags name. */
struct entity {
    const char *type;    /* "ADE", "DRUG", "INDICATION": tag label without B-/I-;
                                  points into the config */
    uint32_t begin, end; /* code points of the text as given */
    size_t begin_byte, end_byte; /* the same in bytes */
    float
        score; /* mean over its tokens of the probability of type, B- and I- together */
};

struct answer {
    int32_t label;  /* index of the best label */
    float score;    /* its probability (regression: the value) */
    int32_t window; /* the window that decided */
    float *probs;   /* [n_labels] of that window: softmax, sigmoids or raw values */
    float *logits;  /* [n_labels] of that window */
    struct entity *entities; /* [n_entities] in order of begin, not overlapping */
    int32_t n_entities;
};

/* Softmax, sigmoids or nothing, as problem_type says; stable for any finite logits. */
void answer_probabilities(const struct model_config *config, const float *logits,
                          float *probs);

/* Turns the engine's outputs for one text's windows into its answer. The window with the
 * highest probability of positive_label decides (bundle.h); with a negative positive_label
 * the window that is surest of its best label does.
 * logits [n_windows, n_labels]; tags [n_ids, n_tag_labels] or NULL: no entities
 * text [text_bytes] as given to windows_make.
 * *out is owned by the caller, freed with answer_free. STATUS_INTERNAL when a logit is not
 * finite. */
enum status answer_make(const struct model_config *config, const struct windows *w,
                        int32_t positive_label, const float *logits, const float *tags,
                        const char *text, size_t text_bytes, struct answer *out,
                        struct error *err);
void answer_free(struct answer *a);

/* Labels by a threshold: positive_label when its probability is at least threshold, else
 * the best of the others (regression and one-label models stay as they are, and so does
 * everything when threshold is NAN).
 * The score becomes the new label's probability. */
void answer_apply_threshold(const struct model_config *config, int32_t positive_label,
                            double threshold, struct answer *a);

#endif
