/* SPDX-License-Identifier: Apache-2.0
 *
 * histogram.h - latencies in little memory: log-linear buckets, as HdrHistogram has them.
 *
 * A value falls into one of 128 buckets of its power of two, so that a quantile is at most
 * 1/128 (0.8 %) above the value that it stands for; values below 256 are exact. Values are
 * nanoseconds here, but any unit does. Values above HISTOGRAM_MAX are counted as that.
 *
 * Threads: one at a time; each thread fills its own, and histogram_merge adds them up.
 */
#ifndef VIGIL_BENCH_HISTOGRAM_H
#define VIGIL_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 7
#define HISTOGRAM_MAX_BITS 42 /* 73 minutes of nanoseconds */
#define HISTOGRAM_MAX ((UINT64_C(1) << HISTOGRAM_MAX_BITS) - 1)
#define HISTOGRAM_BUCKETS                                                              \
    ((HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

/* Zero-initialise. */
struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t n;
    uint64_t smallest, largest; /* exact; 0 while n == 0 */
    double sum;
};

void histogram_add(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *to, const struct histogram *from);

/* The value that a share q of all values does not exceed: the upper end of its bucket, but
 * never more than the largest value. 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *h, double q);
double histogram_mean(const struct histogram *h);

/* Coordinated omission: who waits for an answer before sending again sends nothing while
 * the server stalls, and the requests that would have met the stall are missing. Adds to
 * *to every value of *from and, for each that is longer than the interval at which one
 * would have sent, those missing ones: value - interval, value - 2 * interval, ... An
 * interval of 0 corrects nothing. */
void histogram_add_corrected(struct histogram *to, const struct histogram *from,
                             uint64_t interval);

#endif
