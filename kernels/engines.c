/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/engines.h"

#include <string.h>

#include "kernels/cpu/cpu.h"
#include "model/reference.h"

enum status engine_open(const struct engine_options *options,
                        const struct checkpoint *c, struct engine **out,
                        struct error *err) {
    const char *device = options->device ? options->device : "auto";
    if (strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0)
        return cpu_engine_open(options, c, out, err);
    if (strcmp(device, "reference") == 0)
        return reference_open(options, c, out, err);
    return error_set(err, STATUS_UNSUPPORTED,
                     "no engine is called %s; there are: auto, cpu, reference", device);
}
