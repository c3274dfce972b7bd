/* SPDX-License-Identifier: Apache-2.0
 *
 * engines.h - opens an engine by name.
 */
#ifndef VIGIL_KERNELS_ENGINES_H
#define VIGIL_KERNELS_ENGINES_H

#include "model/engine.h"

/* Opens the engine that options ask for and loads the checkpoint into it. The engine keeps
 * nothing of *c: the caller may close it afterwards. On success *out is owned by the caller
 * (engine_close). STATUS_UNSUPPORTED says which names this machine can run. */
enum status engine_open(const struct engine_options *options,
                        const struct checkpoint *c, struct engine **out,
                        struct error *err);

#endif
