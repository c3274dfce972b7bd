/* SPDX-License-Identifier: Apache-2.0
 *
 * simd_emulated.h - AVX-512 intrinsics on SIMDe, for tests on machines that lack them
 * (VIGIL_EMULATE_AVX512; never in a product). What SIMDe 0.7.4 does not have is below.
 */
#ifndef VIGIL_KERNELS_CPU_SIMD_EMULATED_H
#define VIGIL_KERNELS_CPU_SIMD_EMULATED_H

#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
static inline simde__m512 emulate_cvtepi32_ps(simde__m512i v) {
    int32_t in[16];
    float out[16];
    simde_mm512_storeu_si512(in, v);
    for (int i = 0; i < 16; i++)
        out[i] = (float)in[i];
    return simde_mm512_loadu_ps(out);
}
static inline simde__m512i emulate_cvtps_epi32(simde__m512 v) {
    float in[16];
    int32_t out[16];
    simde_mm512_storeu_ps(in, v);
    for (int i = 0; i < 16; i++)
        out[i] = (int32_t)__builtin_nearbyintf(in[i]);
    return simde_mm512_loadu_si512(out);
}
static inline simde__m512i emulate_cvtepi8_epi32(simde__m128i v) {
    int8_t in[16];
    int32_t out[16];
    memcpy(in, &v, sizeof in);
    for (int i = 0; i < 16; i++)
        out[i] = in[i];
    return simde_mm512_loadu_si512(out);
}
static inline simde__m512 emulate_cvtph_ps(__m256i v) {
    float out[16];
    _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm256_castsi256_si128(v)));
    _mm256_storeu_ps(out + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
    return simde_mm512_loadu_ps(out);
}
static inline simde__m512i emulate_cvtepu16_epi32(__m256i v) {
    uint16_t in[16];
    int32_t out[16];
    memcpy(in, &v, sizeof in);
    for (int i = 0; i < 16; i++)
        out[i] = in[i];
    return simde_mm512_loadu_si512(out);
}
static inline __m128i emulate_cvtepi32_epi8(simde__m512i v) {
    int32_t in[16];
    int8_t out[16];
    simde_mm512_storeu_si512(in, v);
    for (int i = 0; i < 16; i++)
        out[i] = (int8_t)in[i];
    return _mm_loadu_si128((const __m128i *)(const void *)out);
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emulate_cvtepi32_epi8
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 emulate_cvtepu16_epi32
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emulate_cvtph_ps
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtps_epi32
#define _mm512_cvtepi8_epi32 emulate_cvtepi8_epi32
#define _mm512_cvtepi32_ps emulate_cvtepi32_ps
#define _mm512_cvtps_epi32 emulate_cvtps_epi32
/* SIMDe's own alias takes the arguments of the masked form. */
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)

#endif
