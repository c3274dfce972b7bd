/* SPDX-License-Identifier: Apache-2.0
 *
 * mma.h - CUDA's nvcuda::wmma for the emulation: 16x16x16, halves in, float or half sums.
 *
 * A fragment is what one lane holds, as on the device: 16 elements of a or b (each element
 * of the matrix is held by two lanes), 8 of an accumulator. Which lane holds which is
 * CUDA's secret, so here it is a layout that is no device's (tensor_core.cc): code that
 * counts on a layout, or lets lanes go different ways, comes out wrong or fails.
 * Pointers must be 32-byte aligned, ldm a multiple of 16 bytes, both the same on all lanes.
 */
#ifndef VIGIL_EMULATION_MMA_H
#define VIGIL_EMULATION_MMA_H

#include "cuda_fp16.h"

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;

enum layout_t { mem_row_major, mem_col_major };

template <typename T, int N> struct emulation_elements {
    enum { num_elements = N, num_storage_elements = N };
    typedef T element_type;
    T x[N];
};

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment;
template <typename Layout>
struct fragment<matrix_a, 16, 16, 16, __half, Layout> : emulation_elements<__half, 16> {
};
template <typename Layout>
struct fragment<matrix_b, 16, 16, 16, __half, Layout> : emulation_elements<__half, 16> {
};
template <>
struct fragment<accumulator, 16, 16, 16, float> : emulation_elements<float, 8> {};
template <>
struct fragment<accumulator, 16, 16, 16, __half> : emulation_elements<__half, 8> {};

/* x: the lane's 16 halves. transposed: element (i, j) is at j ldm + i. */
void emulation_load_ab(__half *x, const __half *from, unsigned ldm, bool transposed,
                       const char *file, int line);
void emulation_load_sums(void *x, bool is_half, const void *from, unsigned ldm,
                         bool transposed, const char *file, int line);
void emulation_store_sums(void *to, const void *x, bool is_half, unsigned ldm,
                          bool transposed, const char *file, int line);
/* d = a b + c; sums in floats or halves. */
void emulation_wmma(void *d, const __half *a, const __half *b, const void *c,
                    bool d_is_half, bool c_is_half, const char *file, int line);

template <typename Use, typename T, typename Layout, typename Value>
inline void fill_fragment(fragment<Use, 16, 16, 16, T, Layout> &f, const Value &value) {
    for (T &x : f.x)
        x = T(value);
}

template <typename Use, typename Layout>
inline void load_matrix_sync(fragment<Use, 16, 16, 16, __half, Layout> &f,
                             const __half *from, unsigned ldm, EMULATION_HERE) {
    static_assert(!std::is_same<Use, accumulator>::value, "its layout is an argument");
    emulation_load_ab(f.x, from, ldm, std::is_same<Layout, col_major>::value, file,
                      line);
}

template <typename T>
inline void load_matrix_sync(fragment<accumulator, 16, 16, 16, T> &f, const T *from,
                             unsigned ldm, layout_t layout, EMULATION_HERE) {
    emulation_load_sums(f.x, std::is_same<T, __half>::value, from, ldm,
                        layout == mem_col_major, file, line);
}

template <typename T>
inline void store_matrix_sync(T *to, const fragment<accumulator, 16, 16, 16, T> &f,
                              unsigned ldm, layout_t layout, EMULATION_HERE) {
    emulation_store_sums(to, f.x, std::is_same<T, __half>::value, ldm,
                         layout == mem_col_major, file, line);
}

template <typename D, typename LayoutA, typename LayoutB, typename C>
inline void mma_sync(fragment<accumulator, 16, 16, 16, D> &d,
                     const fragment<matrix_a, 16, 16, 16, __half, LayoutA> &a,
                     const fragment<matrix_b, 16, 16, 16, __half, LayoutB> &b,
                     const fragment<accumulator, 16, 16, 16, C> &c, EMULATION_HERE) {
    emulation_wmma(d.x, a.x, b.x, c.x, std::is_same<D, __half>::value,
                   std::is_same<C, __half>::value, file, line);
}

} // namespace wmma
} // namespace nvcuda

#endif
