/* SPDX-License-Identifier: Apache-2.0
 *
 * product.h - arithmetic that the tensor cores and cublasLt share, with AVX2 where it is.
 */
#ifndef VIGIL_EMULATION_PRODUCT_H
#define VIGIL_EMULATION_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

/* Bits of halves to floats. */
void product_to_floats(const uint16_t *from, float *to, size_t n);

/* d[16][n] += a[16][16] b[16][n], the sums in the order of k. n is 8 or 16. */
void product_16x8(const float (&a)[16][16], const float (&b)[16][8], float (&d)[16][8]);
void product_16x16(const float (&a)[16][16], const float (&b)[16][16],
                   float (&d)[16][16]);

/* sums[i n + j] = dot(a + i k, b + j k); k a multiple of 8. */
void product_dots(const float *a, const float *b, float *sums, size_t m, size_t n,
                  size_t k);

#endif
