/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_gpu.c - the library of the CUDA engine, and the devices that it finds.
 */
#include <stdio.h>

#include "base/file.h"
#include "kernels/cuda_library.h"
#include "server/doctor.h"

#define DETAIL_BYTES 768
#define GIBIBYTE 1073741824.0

/* That there is nothing is well: the CPU computes. That something cannot be used is not. */
static void report_none(struct doctor *d, const struct error *why) {
    char detail[DETAIL_BYTES];
    if (why->status == STATUS_NOT_FOUND) {
        snprintf(detail, sizeof detail,
                 "none, which is no error: the CPU computes (%s)", why->message);
        d->report(d, FINDING_OK, "gpu", detail, NULL);
    } else {
        d->report(d, FINDING_WARN, "gpu", why->message,
                  "the CPU computes until that is mended: see docs/BUILD.md");
    }
}

static void check_device(struct doctor *d, const struct cuda_plugin *plugin,
                         int32_t index) {
    char detail[DETAIL_BYTES];
    struct cuda_device device = {0};
    struct error err = {0};
    if (plugin->describe(index, &device, &err) != STATUS_OK) {
        d->report(d, FINDING_FAIL, "gpu", err.message,
                  "look at nvidia-smi and dmesg; until then serve with --device cpu");
        return;
    }
    snprintf(detail, sizeof detail,
             "cuda:%d is %s, sm_%d%d, %d multiprocessors, %.1f of %.1f GiB free; CUDA "
             "%d.%d in the driver, %d.%d here, cuBLASLt %zu.%zu.%zu",
             index, device.name, device.major, device.minor, device.n_multiprocessors,
             (double)device.n_free_bytes / GIBIBYTE, (double)device.n_bytes / GIBIBYTE,
             device.driver / 1000, device.driver % 1000 / 10, device.runtime / 1000,
             device.runtime % 1000 / 10, device.blas / 10000, device.blas / 100 % 100,
             device.blas % 100);
    d->report(d, FINDING_OK, "gpu", detail, NULL);
}

void doctor_check_gpus(struct doctor *d) {
    char path[FILE_PATH_BYTES], detail[FILE_PATH_BYTES + DETAIL_BYTES];
    const struct cuda_plugin *plugin;
    struct error err = {0};
    int32_t n = 0;
    if (cuda_library_open(&plugin, &err) == STATUS_OK &&
        cuda_library_path(path, sizeof path, &err) == STATUS_OK) {
        snprintf(detail, sizeof detail, "%s, built for %.300s", path,
                 plugin->built_for);
        d->report(d, FINDING_OK, "cuda engine", detail, NULL);
    }
    if (cuda_library_devices(&plugin, &n, &err) != STATUS_OK)
        report_none(d, &err);
    for (int32_t i = 0; i < n; i++)
        check_device(d, plugin, i);
}
