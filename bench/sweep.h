/* SPDX-License-Identifier: Apache-2.0
 *
 * sweep.h - latency against throughput: first what a closed loop reaches, then an open loop
 * at a tenth of that, two tenths, ... until the server no longer keeps up.
 */
#ifndef VIGIL_BENCH_SWEEP_H
#define VIGIL_BENCH_SWEEP_H

#include <stdbool.h>
#include <stdio.h>

#include "bench/load.h"

/* Prints each point to out as it is found (as JSON: all of them at the end) and writes the
 * picture to svg_path when there is one. The rate of *options is not used. */
enum status sweep_run(const struct load_options *options,
                      struct load_requests *requests, const char *svg_path,
                      bool is_json, FILE *out, struct error *err);

#endif
