/* SPDX-License-Identifier: Apache-2.0
 *
 * reference.h - the plain forward pass, written to be read: the oracle of every engine.
 */
#ifndef VIGIL_MODEL_REFERENCE_H
#define VIGIL_MODEL_REFERENCE_H

#include "model/engine.h"

/* Opens the reference engine. options->dtype "fp32" (or NULL, "auto") accumulates in fp32,
 * "fp64" in fp64; weights are fp32, from a checkpoint of any dtype. One thread.
 * *out is owned by the caller; nothing of *c is kept. */
enum status reference_open(const struct engine_options *options,
                           const struct checkpoint *c, struct engine **out,
                           struct error *err);

#endif
