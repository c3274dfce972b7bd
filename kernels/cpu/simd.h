/* SPDX-License-Identifier: Apache-2.0
 *
 * simd.h - one vector of floats, as wide as the file that includes it may use.
 *
 * The operators (operators.inc.h, attention.inc.h) are written once over these few
 * functions and compiled once for each instruction set: by what the compiler says of the
 * file's flags (__AVX512F__, __AVX2__), else over GCC's generic vectors of four floats,
 * which become SSE2 on x86-64 and NEON on ARM.
 *
 * With VIGIL_EMULATE_AVX512 the AVX-512 forms run on SIMDe, so that their code is tested on
 * machines that lack them.
 */
#ifndef VIGIL_KERNELS_CPU_SIMD_H
#define VIGIL_KERNELS_CPU_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef VIGIL_EMULATE_AVX512
#include "kernels/cpu/simd_emulated.h"
#define VIGIL_AVX512
#elif defined __AVX512F__
#include <immintrin.h>
#define VIGIL_AVX512
#elif defined __AVX2__
#include <immintrin.h>
#define VIGIL_AVX2
#endif

#define SIMD static inline __attribute__((always_inline, unused))

#if defined VIGIL_AVX512

#define VF_WIDTH 16
typedef __m512 vf;

SIMD vf vf_set1(float v) {
    return _mm512_set1_ps(v);
}
SIMD vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
SIMD void vf_store(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}
SIMD vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
SIMD vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
SIMD vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
SIMD vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
SIMD vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
SIMD vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
SIMD vf vf_divide(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
/* 2^n for vectors of whole numbers n in [-126, 127]. */
SIMD vf vf_power_of_two(vf n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
/* Rounds to the nearest whole number, ties to even; |v| < 2^22. */
SIMD vf vf_round(vf v) {
    vf magic = _mm512_set1_ps(12582912.0f);
    return _mm512_sub_ps(_mm512_add_ps(v, magic), magic);
}
SIMD vf vf_from_int32(const int32_t *p) {
    return _mm512_cvtepi32_ps(_mm512_loadu_si512((const void *)p));
}
SIMD vf vf_from_int8(const int8_t *p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
SIMD vf vf_from_half(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SIMD vf vf_from_bfloat(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)),
        16));
}
/* Stores whole numbers in [0, 255] as bytes. */
SIMD void vf_store_bytes(uint8_t *p, vf v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

/* Stores v rounded to the nearest integers, ties to even, saturated to int16. */
SIMD void vf_store_int16(int16_t *p, vf v) {
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
}

#elif defined VIGIL_AVX2

#define VF_WIDTH 8
typedef __m256 vf;

SIMD vf vf_set1(float v) {
    return _mm256_set1_ps(v);
}
SIMD vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
SIMD void vf_store(float *p, vf v) {
    _mm256_storeu_ps(p, v);
}
SIMD vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
SIMD vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
SIMD vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
SIMD vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
SIMD vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
SIMD vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
SIMD vf vf_power_of_two(vf n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
SIMD vf vf_round(vf v) {
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SIMD vf vf_from_int32(const int32_t *p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SIMD vf vf_from_int8(const int8_t *p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
SIMD vf vf_from_half(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
SIMD vf vf_from_bfloat(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)), 16));
}
SIMD void vf_store_bytes(uint8_t *p, vf v) {
    __m256i words = _mm256_cvtps_epi32(v);
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(words),
                                   _mm256_extracti128_si256(words, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(half, half));
}

#else

#define VF_WIDTH 4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vf_int __attribute__((vector_size(16)));

SIMD vf vf_set1(float v) {
    return (vf){v, v, v, v};
}
SIMD vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
SIMD void vf_store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}
SIMD vf vf_add(vf a, vf b) {
    return a + b;
}
SIMD vf vf_sub(vf a, vf b) {
    return a - b;
}
SIMD vf vf_mul(vf a, vf b) {
    return a * b;
}
SIMD vf vf_fma(vf a, vf b, vf c) {
    return a * b + c;
}
SIMD vf vf_select(vf_int mask, vf a, vf b) {
    return (vf)((mask & (vf_int)a) | (~mask & (vf_int)b));
}
SIMD vf vf_max(vf a, vf b) {
    return vf_select(a > b, a, b);
}
SIMD vf vf_min(vf a, vf b) {
    return vf_select(a < b, a, b);
}
SIMD vf vf_round(vf v) {
    vf magic = vf_set1(12582912.0f);
    vf moved = v + magic;
    __asm__("" : "+m"(moved)); /* the sum is rounded here; it may not be folded away */
    return moved - magic;
}
SIMD vf vf_power_of_two(vf n) {
    return (vf)((__builtin_convertvector(n, vf_int) + 127) << 23);
}
SIMD vf vf_from_int32(const int32_t *p) {
    vf_int v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vf);
}
SIMD vf vf_from_int8(const int8_t *p) {
    return (vf){(float)p[0], (float)p[1], (float)p[2], (float)p[3]};
}
SIMD float float_from_half(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu, bits;
    float value;
    if (rest < 0x0400u) { /* zero and subnormals: an exact multiple of 2^-24 */
        value = (float)rest * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
    } else {
        bits = (rest << 13) + (112u << 23);
    }
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}
SIMD vf vf_from_half(const uint16_t *p) {
    return (vf){float_from_half(p[0]), float_from_half(p[1]), float_from_half(p[2]),
                float_from_half(p[3])};
}
SIMD vf vf_from_bfloat(const uint16_t *p) {
    vf_int bits = {(int32_t)((uint32_t)p[0] << 16), (int32_t)((uint32_t)p[1] << 16),
                   (int32_t)((uint32_t)p[2] << 16), (int32_t)((uint32_t)p[3] << 16)};
    return (vf)bits;
}
SIMD void vf_store_bytes(uint8_t *p, vf v) {
    for (int i = 0; i < VF_WIDTH; i++)
        p[i] = (uint8_t)v[i];
}

#endif

/* The nearest bf16, ties to even; for finite values. */
SIMD uint16_t bfloat_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#if defined VIGIL_AVX512 || defined VIGIL_AVX2

SIMD __m128 quarter_sum(__m128 v) {
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_add_ss(v, _mm_movehdup_ps(v));
}

SIMD __m128 quarter_max(__m128 v) {
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_max_ss(v, _mm_movehdup_ps(v));
}

#ifdef VIGIL_AVX512
SIMD __m256 upper_half(vf v) {
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
}
#endif

SIMD float vf_sum(vf v) {
#ifdef VIGIL_AVX512
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), upper_half(v));
#else
    __m256 half = v;
#endif
    __m128 low = _mm256_castps256_ps128(half), high = _mm256_extractf128_ps(half, 1);
    return _mm_cvtss_f32(quarter_sum(_mm_add_ps(low, high)));
}

SIMD float vf_largest(vf v) {
#ifdef VIGIL_AVX512
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), upper_half(v));
#else
    __m256 half = v;
#endif
    __m128 low = _mm256_castps256_ps128(half), high = _mm256_extractf128_ps(half, 1);
    return _mm_cvtss_f32(quarter_max(_mm_max_ps(low, high)));
}

/* out[c][r] = in[r][c] for 8 rows and 8 columns. */
SIMD void transpose_8x8(const float *in, size_t in_stride, float *out,
                        size_t out_stride) {
    __m256 half[8], pair[8];
    for (int r = 0; r < 4;
         r++) { /* rows r and r + 4 side by side, 4 columns at a time */
        const float *upper = in + (size_t)r * in_stride, *lower = upper + 4 * in_stride;
        half[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(upper)),
                                       _mm_loadu_ps(lower), 1);
        half[r + 4] =
            _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(upper + 4)),
                                 _mm_loadu_ps(lower + 4), 1);
    }
    for (int i = 0; i < 8; i += 4) {
        pair[i] = _mm256_unpacklo_ps(half[i], half[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(half[i], half[i + 1]);
        pair[i + 2] = _mm256_unpacklo_ps(half[i + 2], half[i + 3]);
        pair[i + 3] = _mm256_unpackhi_ps(half[i + 2], half[i + 3]);
    }
    for (int i = 0; i < 8; i += 4) {
        float *to = out + (size_t)i * out_stride;
        _mm256_storeu_ps(to, _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44));
        _mm256_storeu_ps(to + out_stride,
                         _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee));
        _mm256_storeu_ps(to + 2 * out_stride,
                         _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44));
        _mm256_storeu_ps(to + 3 * out_stride,
                         _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xee));
    }
}

#else

SIMD float vf_sum(vf v) {
    return (v[0] + v[2]) + (v[1] + v[3]);
}

SIMD float vf_largest(vf v) {
    float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}

SIMD void transpose_8x8(const float *in, size_t in_stride, float *out,
                        size_t out_stride) {
    for (size_t r = 0; r < 8; r++)
        for (size_t c = 0; c < 8; c++)
            out[c * out_stride + r] = in[r * in_stride + c];
}

#endif

/* e^v for v <= 0, relative error 2e-7; below -87 it is e^-87. 2^f on [-1/2, 1/2] is a
 * minimax polynomial of degree 5 (Lawson's iteration, relative error 7.5e-8). */
SIMD vf vf_exp(vf v) {
    vf scaled = vf_mul(vf_max(v, vf_set1(-87.0f)), vf_set1(1.44269504f));
    vf whole = vf_round(scaled);
    vf f = vf_sub(scaled, whole);
    vf p = vf_set1(1.327647178e-03f);
    p = vf_fma(p, f, vf_set1(9.675541333e-03f));
    p = vf_fma(p, f, vf_set1(5.550713274e-02f));
    p = vf_fma(p, f, vf_set1(2.402211972e-01f));
    p = vf_fma(p, f, vf_set1(6.931469671e-01f));
    p = vf_fma(p, f, vf_set1(1.000000072e+00f));
    return vf_mul(p, vf_power_of_two(whole));
}

/* GELU in its erf form: v * (1/2 + g(v)), where g(v) = erf(v / sqrt 2) / 2 is v times a
 * minimax polynomial in v^2, mapped to [-1, 1] so that fp32 keeps its digits, on [-c, c];
 * beyond c, g is 1/2 to within the error. Fitted by Lawson's iteration on |v| * error. */
SIMD vf vf_gelu(vf v) /* absolute error 1.2e-6 everywhere; c = 5.2 */
{
    static const float c[] = {1.359499325e-01f,  -6.774340234e-02f, 5.003016743e-02f,
                              -3.994130071e-02f, 3.190726557e-02f,  -2.459340268e-02f,
                              1.838715035e-02f,  -1.310335403e-02f, 7.557863932e-03f,
                              -3.505700409e-03f, 2.853575496e-03f,  -2.503724001e-03f,
                              8.587807517e-04f};
    vf x = vf_min(vf_max(v, vf_set1(-5.2f)), vf_set1(5.2f));
    vf t = vf_fma(vf_mul(x, x), vf_set1(2.0f / (5.2f * 5.2f)), vf_set1(-1.0f));
    vf p = vf_set1(c[12]);
    for (int i = 11; i >= 0; i--)
        p = vf_fma(p, t, vf_set1(c[i]));
    return vf_mul(v, vf_fma(p, x, vf_set1(0.5f)));
}

SIMD vf vf_gelu_coarse(vf v) /* for int8: error 2.6e-4, beyond 3.5 3.1e-4 |v| */
{
    static const float c[] = {1.993554810e-01f,  -9.010072034e-02f, 5.280810416e-02f,
                              -3.126938994e-02f, 1.797117775e-02f,  -5.994618718e-03f};
    vf x = vf_min(vf_max(v, vf_set1(-3.5f)), vf_set1(3.5f));
    vf t = vf_fma(vf_mul(x, x), vf_set1(2.0f / (3.5f * 3.5f)), vf_set1(-1.0f));
    vf p = vf_set1(c[5]);
    for (int i = 4; i >= 0; i--)
        p = vf_fma(p, t, vf_set1(c[i]));
    return vf_mul(v, vf_fma(p, x, vf_set1(0.5f)));
}

#endif
