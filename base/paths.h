/* SPDX-License-Identifier: Apache-2.0
 *
 * paths.h - where this installation lies, seen from the running executable, so that a tree
 * that was built, installed or unpacked anywhere finds its own parts.
 */
#ifndef VIGIL_BASE_PATHS_H
#define VIGIL_BASE_PATHS_H

#include <stddef.h>

#include "base/status.h"

/* The file called name in the directory of the running executable, whether it exists or
 * not. STATUS_LIMIT when out is too small. */
enum status paths_beside(const char *name, char *out, size_t cap_bytes,
                         struct error *err);

/* The directory of the default model: weights/ade where the program was started or in the
 * tree that it was built in, else share/vigil/weights/ade of its installation.
 * STATUS_NOT_FOUND when there is none. */
enum status paths_default_model(char *out, size_t cap_bytes, struct error *err);

#endif
