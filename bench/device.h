/* SPDX-License-Identifier: Apache-2.0
 *
 * device.h - times an engine by shapes (shapes.h): each run by the host's clock and by the
 * device's own, and a stream of runs with batches in flight.
 *
 * Shapes take turns, round by round, so that a slow moment hits all of them. Where the rates
 * of the chip are given, the share of the floor is shown:
 *   floor = max(flop / rate, weights / bandwidth) + traffic / bandwidth + launches x gap
 */
#ifndef VIGIL_BENCH_DEVICE_H
#define VIGIL_BENCH_DEVICE_H

#include <stdio.h>

#include "bench/engine.h"

struct device_bench {
    struct engine_bench engine;
    const char *shapes;            /* with commas between them */
    double peak_tflops, peak_gb_s; /* of the chip, in fp16; 0: not known */
};

enum status device_bench(const struct device_bench *options, FILE *out,
                         struct error *err);

#endif
