/* SPDX-License-Identifier: Apache-2.0
 *
 * half.h - IEEE half precision and bfloat16, to and from float, in plain integer steps.
 */
#ifndef VIGIL_BASE_HALF_H
#define VIGIL_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Exact for every finite half. The exponent is re-biased by a multiplication, which makes
 * subnormals come out right without a branch; infinities and NaN read as large numbers. */
static inline float half_to_float(uint16_t half) {
    float magnitude = float_from_bits((uint32_t)(half & 0x7FFF) << 13) * 0x1p112f;
    return float_from_bits(float_bits(magnitude) | (uint32_t)(half & 0x8000) << 16);
}

/* To the nearest half, ties to even; what is too large becomes infinity. */
static inline uint16_t half_from_float(float value) {
    uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000)
        return (uint16_t)(sign | 0x7E00); /* NaN */
    if (bits >= 0x477FF000)               /* 65,520: rounds to 2^16 */
        return (uint16_t)(sign | 0x7C00);
    if (bits < 0x38800000) { /* under 2^-14: the FPU rounds at the last bit of 0.5 */
        float magnitude = float_from_bits(bits) + 0.5f;
        return (uint16_t)(sign | (float_bits(magnitude) - 0x3F000000));
    }
    uint32_t odd = bits >> 13 & 1;
    return (uint16_t)(sign | (bits - 0x38000000 + 0xFFF + odd) >> 13);
}

static inline float bf16_to_float(uint16_t value) {
    return float_from_bits((uint32_t)value << 16);
}

/* To the nearest, ties to even. */
static inline uint16_t bf16_from_float(float value) {
    uint32_t bits = float_bits(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

#endif
