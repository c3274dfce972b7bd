/* SPDX-License-Identifier: Apache-2.0
 *
 * dot16.h - 16-bit products of AVX-512 VNNI: acc += a.even * b.even + a.odd * b.odd in each
 * 32-bit lane. For files compiled for AVX-512 VNNI.
 */
#ifndef VIGIL_KERNELS_CPU_DOT16_H
#define VIGIL_KERNELS_CPU_DOT16_H

#include "kernels/cpu/simd.h"

#ifdef VIGIL_EMULATE_AVX512
SIMD __m512i dot16(__m512i acc, __m512i a, __m512i b) {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
}
#else
/* In assembly: through the intrinsic GCC 12 moves accumulators to the stack. */
SIMD __m512i dot16(__m512i acc, __m512i a, __m512i b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}
#endif

/* Two int16 in every lane. */
SIMD __m512i dot16_broadcast(const void *pair) {
    int32_t bits;
    memcpy(&bits, pair, sizeof bits);
    return _mm512_set1_epi32(bits);
}

/* Values in int16's range, rounded: lanes [even, odd]. */
SIMD void dot16_store_pairs(int32_t *p, vf even, vf odd) {
    __m512i low = _mm512_and_si512(_mm512_cvtps_epi32(even), _mm512_set1_epi32(0xffff));
    __m512i high = _mm512_slli_epi32(_mm512_cvtps_epi32(odd), 16);
    _mm512_storeu_si512((void *)p, _mm512_or_si512(low, high));
}

#endif
