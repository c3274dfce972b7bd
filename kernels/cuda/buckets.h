/* SPDX-License-Identifier: Apache-2.0
 *
 * buckets.h - the numbers of rows that work is rounded up to, so that a product's algorithm
 * is chosen and a graph captured for few sizes. Steps of 16 to 128 rows up to 2,048, where a
 * product's tile has as many; above, of 256 or a sixteenth.
 */
#ifndef VIGIL_KERNELS_CUDA_BUCKETS_H
#define VIGIL_KERNELS_CUDA_BUCKETS_H

#include <stdint.h>

#define BUCKETS_MAX 192 /* enough for 2^20 rows */

struct buckets {
    int32_t rows[BUCKETS_MAX]; /* ascending */
    int32_t n;
};

/* Buckets up to one that holds max_rows. */
void buckets_init(struct buckets *b, int32_t max_rows);
/* The smallest bucket that holds n_rows (1 to the largest). */
int32_t buckets_find(const struct buckets *b, int32_t n_rows);

#endif
