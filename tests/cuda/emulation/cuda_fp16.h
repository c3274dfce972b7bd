/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_fp16.h - CUDA's half precision types for the emulation.
 *
 * A __half is its 16 bits; arithmetic goes through fp32 and rounds once, to nearest even,
 * which for + - * / is what the device gives. The conversions are F. Giesen's, in integers:
 * g++ without -mf16c would call libgcc for each. Both types are trivial, so that they can be
 * members of unions.
 * Checked: tests/cuda/test_emulation.cc, all 65536 halves, against _Float16.
 */
#ifndef VIGIL_EMULATION_CUDA_FP16_H
#define VIGIL_EMULATION_CUDA_FP16_H

#include <stdint.h>

#include "cuda_runtime.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

inline float emulation_half_to_float(uint16_t half) {
#ifdef __F16C__
    return _cvtsh_ss(half);
#else
    const uint32_t exponents = 0x7c00u << 13;
    uint32_t bits = (half & 0x7fffu) << 13;
    uint32_t exponent = bits & exponents;
    uint32_t sign = (half & 0x8000u) << 16;
    bits += (127u - 15u) << 23;
    if (exponent == exponents) { /* infinity, NaN: quiet, as the hardware makes it */
        bits += (128u - 16u) << 23;
        if (bits & 0x7fffffu)
            bits |= 0x400000u;
    } else if (exponent == 0) { /* zero, subnormal: 2^-14 is taken off again */
        bits += 1u << 23;
        bits = __float_as_uint(__uint_as_float(bits) - __uint_as_float(113u << 23));
    }
    return __uint_as_float(bits | sign);
#endif
}

/* To nearest, ties to even. */
inline uint16_t emulation_half_from_float(float value) {
#ifdef __F16C__
    return _cvtss_sh(value, 0);
#else
    uint32_t bits = __float_as_uint(value);
    uint32_t sign = bits & 0x80000000u;
    bits ^= sign;
    uint32_t half;
    if (bits >= (127u + 16u) << 23) { /* too large, infinity, NaN */
        half = bits > 255u << 23 ? 0x7e00u | ((bits >> 13) & 0x3ffu) : 0x7c00u;
    } else if (bits < 113u << 23) { /* subnormal: the addition aligns and rounds */
        const uint32_t magic = (127u - 15u + 23u - 10u + 1u) << 23;
        half = __float_as_uint(__uint_as_float(bits) + __uint_as_float(magic)) - magic;
    } else {
        uint32_t is_odd = (bits >> 13) & 1u;
        half = (bits + ((15u - 127u) << 23) + 0xfffu + is_odd) >> 13;
    }
    return (uint16_t)(half | sign >> 16);
#endif
}

struct __align__(2) __half {
    uint16_t bits;

    __half() = default;
    __half(float value) : bits(emulation_half_from_float(value)) {
    }
    operator float() const {
        return emulation_half_to_float(bits);
    }
};
typedef struct __half half;

struct __align__(4) __half2 {
    __half x, y;

    __half2() = default;
    __half2(__half low, __half high) : x(low), y(high) {
    }
};
typedef struct __half2 half2;

static_assert(sizeof(__half) == 2 && std::is_trivial<__half>::value, "as in unions");
static_assert(sizeof(__half2) == 4 && std::is_trivial<__half2>::value, "as in unions");

/* ---- conversions -------------------------------------------------------------------- */

inline float __half2float(__half h) {
    return h;
}
inline __half __float2half(float value) {
    return __half(value);
}
inline __half __float2half_rn(float value) {
    return __half(value);
}
inline __half2 __halves2half2(__half low, __half high) {
    return __half2(low, high);
}
inline __half2 __half2half2(__half h) {
    return __half2(h, h);
}
inline __half2 __floats2half2_rn(float low, float high) {
    return __half2(__half(low), __half(high));
}
inline __half2 __float2half2_rn(float value) {
    return __half2half2(__half(value));
}
inline __half2 __float22half2_rn(float2 pair) {
    return __floats2half2_rn(pair.x, pair.y);
}
inline float2 __half22float2(__half2 pair) {
    return make_float2(pair.x, pair.y);
}
inline __half __low2half(__half2 pair) {
    return pair.x;
}
inline __half __high2half(__half2 pair) {
    return pair.y;
}
inline float __low2float(__half2 pair) {
    return pair.x;
}
inline float __high2float(__half2 pair) {
    return pair.y;
}
inline unsigned short __half_as_ushort(__half h) {
    return h.bits;
}
inline __half __ushort_as_half(unsigned short bits) {
    __half h;
    h.bits = bits;
    return h;
}
inline __half2 make_half2(__half low, __half high) {
    return __half2(low, high);
}

/* ---- arithmetic --------------------------------------------------------------------- */

inline __half __hadd(__half a, __half b) {
    return __half((float)a + (float)b);
}
inline __half __hsub(__half a, __half b) {
    return __half((float)a - (float)b);
}
inline __half __hmul(__half a, __half b) {
    return __half((float)a * (float)b);
}
inline __half __hdiv(__half a, __half b) {
    return __half((float)a / (float)b);
}
/* The product of two halves is exact in fp32, the sum is exact in fp64. */
inline __half __hfma(__half a, __half b, __half c) {
    double sum = (double)((float)a * (float)b) + (double)(float)c;
    float rounded = (float)sum;
    /* Rounding twice goes wrong only where the first ends on a tie: break it. */
    uint32_t bits = __float_as_uint(rounded);
    if ((double)rounded != sum && (bits & 0x1fffu) == 0x1000u)
        bits += (fabs(sum) > fabs((double)rounded)) ? 1u : -1u;
    return __half(__uint_as_float(bits));
}
inline __half __hmax(__half a, __half b) {
    return __half(fmaxf(a, b));
}
inline __half __hmin(__half a, __half b) {
    return __half(fminf(a, b));
}
inline __half __hneg(__half a) {
    return __ushort_as_half((unsigned short)(a.bits ^ 0x8000u));
}

inline __half2 __hadd2(__half2 a, __half2 b) {
    return __half2(__hadd(a.x, b.x), __hadd(a.y, b.y));
}
inline __half2 __hsub2(__half2 a, __half2 b) {
    return __half2(__hsub(a.x, b.x), __hsub(a.y, b.y));
}
inline __half2 __hmul2(__half2 a, __half2 b) {
    return __half2(__hmul(a.x, b.x), __hmul(a.y, b.y));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return __half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
inline __half2 __hmax2(__half2 a, __half2 b) {
    return __half2(__hmax(a.x, b.x), __hmax(a.y, b.y));
}
inline __half2 __hmin2(__half2 a, __half2 b) {
    return __half2(__hmin(a.x, b.x), __hmin(a.y, b.y));
}

inline __half operator+(const __half &a, const __half &b) {
    return __hadd(a, b);
}
inline __half operator-(const __half &a, const __half &b) {
    return __hsub(a, b);
}
inline __half operator*(const __half &a, const __half &b) {
    return __hmul(a, b);
}
inline __half operator/(const __half &a, const __half &b) {
    return __hdiv(a, b);
}
inline __half operator-(const __half &a) {
    return __hneg(a);
}
inline __half &operator+=(__half &a, const __half &b) {
    return a = __hadd(a, b);
}
inline __half &operator*=(__half &a, const __half &b) {
    return a = __hmul(a, b);
}
inline __half2 operator+(const __half2 &a, const __half2 &b) {
    return __hadd2(a, b);
}
inline __half2 operator-(const __half2 &a, const __half2 &b) {
    return __hsub2(a, b);
}
inline __half2 operator*(const __half2 &a, const __half2 &b) {
    return __hmul2(a, b);
}

#endif
