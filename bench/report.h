/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h - prints what a load run found: a table for people, or JSON.
 *
 * Refusals (429, 503) have latencies of their own, apart from answers. In a closed loop a
 * second line of latencies is corrected for coordinated omission, taking the median as the
 * interval at which each connection would have sent.
 */
#ifndef VIGIL_BENCH_REPORT_H
#define VIGIL_BENCH_REPORT_H

#include <stddef.h>
#include <stdio.h>

#include "bench/load.h"

void report_table(const struct load_options *options, const struct load_result *result,
                  FILE *out);
enum status report_json(const struct load_options *options,
                        const struct load_result *result, FILE *out, struct error *err);

/* A sweep: one run a rate, results [n] in the order of rates [n]. */
void report_sweep_header(FILE *out);
void report_sweep_line(double rate, const struct load_result *result, FILE *out);
enum status report_sweep_json(const struct load_options *options, const double *rates,
                              const struct load_result *const *results, size_t n,
                              FILE *out, struct error *err);

#endif
