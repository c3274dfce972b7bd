/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/histogram.h"

#include <stddef.h>

#define SUB ((uint64_t)1 << HISTOGRAM_SUB_BITS)

static size_t bucket_of(uint64_t value) {
    if (value < 2 * SUB)
        return (size_t)value;
    int shift = 63 - __builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return ((size_t)shift << HISTOGRAM_SUB_BITS) + (size_t)(value >> shift);
}

/* The largest value of a bucket. */
static uint64_t bucket_end(size_t bucket) {
    if (bucket < 2 * SUB)
        return bucket;
    size_t shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t sub = bucket - (shift << HISTOGRAM_SUB_BITS);
    return ((sub + 1) << shift) - 1;
}

static void add_many(struct histogram *h, uint64_t value, uint64_t n) {
    if (value > HISTOGRAM_MAX)
        value = HISTOGRAM_MAX;
    h->counts[bucket_of(value)] += n;
    if (h->n == 0 || value < h->smallest)
        h->smallest = value;
    if (value > h->largest)
        h->largest = value;
    h->n += n;
    h->sum += (double)value * (double)n;
}

void histogram_add(struct histogram *h, uint64_t value) {
    add_many(h, value, 1);
}

void histogram_merge(struct histogram *to, const struct histogram *from) {
    if (from->n == 0)
        return;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        to->counts[i] += from->counts[i];
    if (to->n == 0 || from->smallest < to->smallest)
        to->smallest = from->smallest;
    if (from->largest > to->largest)
        to->largest = from->largest;
    to->n += from->n;
    to->sum += from->sum;
}

uint64_t histogram_quantile(const struct histogram *h, double q) {
    if (h->n == 0)
        return 0;
    double wanted = q * (double)h->n;
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (h->counts[i] && (double)seen >= wanted) {
            uint64_t end = bucket_end(i);
            return end < h->largest ? end : h->largest;
        }
    }
    return h->largest;
}

double histogram_mean(const struct histogram *h) {
    return h->n ? h->sum / (double)h->n : 0;
}

void histogram_add_corrected(struct histogram *to, const struct histogram *from,
                             uint64_t interval) {
    histogram_merge(to, from);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS && interval; i++) {
        if (!from->counts[i])
            continue;
        uint64_t value = bucket_end(i);
        if (value > from->largest)
            value = from->largest;
        while (value >= 2 * interval) {
            value -= interval;
            add_many(to, value, from->counts[i]);
        }
    }
}
