/* SPDX-License-Identifier: Apache-2.0
 *
 * vector_types.h - CUDA's small vectors and dim3, for the emulation. Valid C11 and C++17.
 *
 * Sizes and alignments are CUDA's, so that a misaligned vector load is one here too: UBSan
 * names it, and without UBSan the compiler's aligned moves fault.
 */
#ifndef VIGIL_EMULATION_VECTOR_TYPES_H
#define VIGIL_EMULATION_VECTOR_TYPES_H

#define EMULATION_ALIGNED(n) __attribute__((aligned(n)))

#define EMULATION_VECTORS(type, name, align2, align4)                                  \
    struct name##1 {                                                                   \
        type x;                                                                        \
    };                                                                                 \
    struct EMULATION_ALIGNED(align2) name##2 {                                         \
        type x, y;                                                                     \
    };                                                                                 \
    struct name##3 {                                                                   \
        type x, y, z;                                                                  \
    };                                                                                 \
    struct EMULATION_ALIGNED(align4) name##4 {                                         \
        type x, y, z, w;                                                               \
    };                                                                                 \
    typedef struct name##1 name##1;                                                    \
    typedef struct name##2 name##2;                                                    \
    typedef struct name##3 name##3;                                                    \
    typedef struct name##4 name##4;

EMULATION_VECTORS(signed char, char, 2, 4)
EMULATION_VECTORS(unsigned char, uchar, 2, 4)
EMULATION_VECTORS(short, short, 4, 8)
EMULATION_VECTORS(unsigned short, ushort, 4, 8)
EMULATION_VECTORS(int, int, 8, 16)
EMULATION_VECTORS(unsigned int, uint, 8, 16)
EMULATION_VECTORS(long long, longlong, 16, 16)
EMULATION_VECTORS(unsigned long long, ulonglong, 16, 16)
EMULATION_VECTORS(float, float, 8, 16)
EMULATION_VECTORS(double, double, 16, 16)

struct dim3 {
    unsigned int x, y, z;
#ifdef __cplusplus
    constexpr dim3(unsigned int width = 1, unsigned int height = 1,
                   unsigned int depth = 1)
        : x(width), y(height), z(depth) {
    }
#endif
};
typedef struct dim3 dim3;

#endif
