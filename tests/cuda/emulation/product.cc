/* SPDX-License-Identifier: Apache-2.0
 *
 * product.cc - conversions and products in fp32.
 *
 * One source, compiled twice: for the processor that the build is for, and for AVX2 with
 * FMA and F16C, which is chosen when the program runs on one. Sums come in one order on
 * each. All memory here is the emulation's own, so AddressSanitizer is left out.
 */
#include "tests/cuda/emulation/product.h"

#include "tests/cuda/emulation/cuda_fp16.h"

#if defined __x86_64__
#include <immintrin.h>
#define WIDE                                                                           \
    __attribute__((target("avx2,fma,f16c"), no_sanitize("address", "undefined")))
#else
#define WIDE
#endif
#define PLAIN __attribute__((no_sanitize("address", "undefined")))
#define INLINE                                                                         \
    static inline __attribute__((always_inline, no_sanitize("address", "undefined")))

typedef float float8 __attribute__((vector_size(32)));
typedef float packed8 __attribute__((vector_size(32), aligned(4), may_alias));

enum { STRIP = 4 }; /* rows of a, and of b, at a time: 16 sums in 16 registers */

static bool is_wide() {
#if defined __x86_64__
    static const bool is = __builtin_cpu_supports("avx2") &&
                           __builtin_cpu_supports("fma") &&
                           __builtin_cpu_supports("f16c");
    return is;
#else
    return false;
#endif
}

/* ---- conversions -------------------------------------------------------------------- */

#if defined __x86_64__
WIDE static void to_floats_wide(const uint16_t *from, float *to, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)(from + i))));
    for (; i < n; i++)
        to[i] = emulation_half_to_float(from[i]);
}
#endif

void product_to_floats(const uint16_t *from, float *to, size_t n) {
#if defined __x86_64__
    if (is_wide()) {
        to_floats_wide(from, to, n);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++)
        to[i] = emulation_half_to_float(from[i]);
}

/* ---- of fragments ------------------------------------------------------------------- */

template <int N>
INLINE void tile(const float (&a)[16][16], const float (&b)[16][N], float (&d)[16][N]) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < N; j += 8) {
            float8 sum = *(const packed8 *)&d[i][j];
            for (int k = 0; k < 16; k++)
                sum += a[i][k] * *(const packed8 *)&b[k][j];
            *(packed8 *)&d[i][j] = sum;
        }
}

WIDE static void tile_8_wide(const float (&a)[16][16], const float (&b)[16][8],
                             float (&d)[16][8]) {
    tile<8>(a, b, d);
}
PLAIN static void tile_8_plain(const float (&a)[16][16], const float (&b)[16][8],
                               float (&d)[16][8]) {
    tile<8>(a, b, d);
}
WIDE static void tile_16_wide(const float (&a)[16][16], const float (&b)[16][16],
                              float (&d)[16][16]) {
    tile<16>(a, b, d);
}
PLAIN static void tile_16_plain(const float (&a)[16][16], const float (&b)[16][16],
                                float (&d)[16][16]) {
    tile<16>(a, b, d);
}

void product_16x8(const float (&a)[16][16], const float (&b)[16][8],
                  float (&d)[16][8]) {
    if (is_wide())
        tile_8_wide(a, b, d);
    else
        tile_8_plain(a, b, d);
}

void product_16x16(const float (&a)[16][16], const float (&b)[16][16],
                   float (&d)[16][16]) {
    if (is_wide())
        tile_16_wide(a, b, d);
    else
        tile_16_plain(a, b, d);
}

/* ---- of matrices -------------------------------------------------------------------- */

/* Up to STRIP rows of a with up to STRIP rows of b. Where there are fewer, the last is
 * taken again, and its sums are not written. */
INLINE void strip(const float *const (&a)[STRIP], const float *const (&b)[STRIP],
                  size_t k, float (&sums)[STRIP][STRIP]) {
    float8 wide[STRIP][STRIP] = {};
    for (size_t i = 0; i < k; i += 8) {
        for (int c = 0; c < STRIP; c++) {
            float8 right = *(const packed8 *)(b[c] + i);
            for (int r = 0; r < STRIP; r++)
                wide[r][c] += *(const packed8 *)(a[r] + i) * right;
        }
    }
    for (int r = 0; r < STRIP; r++)
        for (int c = 0; c < STRIP; c++) {
            const float8 &w = wide[r][c];
            sums[r][c] =
                ((w[0] + w[4]) + (w[2] + w[6])) + ((w[1] + w[5]) + (w[3] + w[7]));
        }
}

INLINE void dots(const float *a, const float *b, float *sums, size_t m, size_t n,
                 size_t k) {
    for (size_t i = 0; i < m; i += STRIP)
        for (size_t j = 0; j < n; j += STRIP) {
            const float *left[STRIP], *right[STRIP];
            float some[STRIP][STRIP];
            for (size_t s = 0; s < STRIP; s++) {
                left[s] = a + (i + s < m ? i + s : m - 1) * k;
                right[s] = b + (j + s < n ? j + s : n - 1) * k;
            }
            strip(left, right, k, some);
            for (size_t r = 0; r < STRIP && i + r < m; r++)
                for (size_t c = 0; c < STRIP && j + c < n; c++)
                    sums[(i + r) * n + j + c] = some[r][c];
        }
}

WIDE static void dots_wide(const float *a, const float *b, float *sums, size_t m,
                           size_t n, size_t k) {
    dots(a, b, sums, m, n, k);
}
PLAIN static void dots_plain(const float *a, const float *b, float *sums, size_t m,
                             size_t n, size_t k) {
    dots(a, b, sums, m, n, k);
}

void product_dots(const float *a, const float *b, float *sums, size_t m, size_t n,
                  size_t k) {
    if (is_wide())
        dots_wide(a, b, sums, m, n, k);
    else
        dots_plain(a, b, sums, m, n, k);
}
