/* SPDX-License-Identifier: Apache-2.0
 *
 * shapes.h - work of a known size: so many sequences of so many tokens, always the same ids.
 *
 *   BxL     B sequences of L tokens each: 1x32, 32x128
 *   mixed   256 sequences of 16 to 64 tokens, every length as often, 10,240 tokens in all
 *
 * Ids are random words between [CLS] and [SEP], where the vocabulary has BERT's.
 */
#ifndef VIGIL_BENCH_SHAPES_H
#define VIGIL_BENCH_SHAPES_H

#include "model/config.h"

enum { SHAPE_NAME_BYTES = 32 };

struct shape {
    char name[SHAPE_NAME_BYTES];
    int32_t n_sequences;
    int32_t *ids;
    int32_t *starts; /* [n_sequences + 1] into ids */
};

/* What a forward pass has to do for a shape, in fp16, whoever computes it: the arithmetic of
 * a floor. The last layer is counted for [CLS] rows alone, but for keys and values. */
struct shape_work {
    double flop;          /* products, attention, the head */
    double weight_bytes;  /* the encoder's and the head's matrices, once */
    double traffic_bytes; /* attention and LayerNorm, in and out */
    int32_t n_launches;   /* of one batch */
};

/* STATUS_INVALID for another name, STATUS_LIMIT where the model has too few positions.
 * *out is the caller's (shape_free), empty on failure. */
enum status shape_make(const char *name, const struct model_config *config,
                       struct shape *out, struct error *err);
void shape_free(struct shape *s);

struct shape_work shape_work_of(const struct shape *s,
                                const struct model_config *config);

#endif
