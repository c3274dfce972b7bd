/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor_core.cc - ldmatrix, mma.sync m16n8k16 and wmma, computed once for all lanes.
 *
 * ldmatrix and mma follow the tables of the PTX ISA, lane by lane (tensor_core.cuh has them
 * in words). wmma's layouts are made up (mma.h). Products are summed in fp32 in the order of
 * k; a device sums in an order of its own.
 */
#include "kernels/cuda/tensor_core.cuh"

#include <mma.h>
#include <string.h>

#include "tests/cuda/emulation/block.h"
#include "tests/cuda/emulation/product.h"

enum { MMA_CAPABILITY = 80 };

/* ---- ldmatrix ----------------------------------------------------------------------- */

struct ldmatrix {
    uint32_t *r;
    const void *address;
};

UNCHECKED static void check_capability(enum emulation_op op) {
    if (emulation_settings()->capability < MMA_CAPABILITY)
        emulation_fail("%s on a device of sm_%d: the kernel traps", op_name(op),
                       emulation_settings()->capability);
}

/* The four 8x8 matrices, from the rows that lanes 8 j .. 8 j + 7 point to. */
UNCHECKED static void ldmatrix_rows(void *const *arguments, uint16_t (&m)[4][8][8]) {
    for (int lane = 0; lane < LANES; lane++) {
        const void *row = ((const struct ldmatrix *)arguments[lane])->address;
        if ((uintptr_t)row % 16 != 0 || !is_in_shared_memory(row, 16))
            emulation_fail("ldmatrix: lane %d gives %p, which is %s", lane, row,
                           (uintptr_t)row % 16 ? "not 16-byte aligned"
                                               : "outside the block's shared memory");
        memcpy(m[lane / 8][lane % 8], row, 16);
    }
}

UNCHECKED static void ldmatrix_all(void *const *arguments, unsigned) {
    uint16_t m[4][8][8];
    ldmatrix_rows(arguments, m);
    for (int lane = 0; lane < LANES; lane++)
        for (int j = 0; j < 4; j++)
            memcpy(&((struct ldmatrix *)arguments[lane])->r[j],
                   &m[j][lane / 4][2 * (lane % 4)], 4);
}

UNCHECKED static void ldmatrix_all_transposed(void *const *arguments, unsigned) {
    uint16_t m[4][8][8];
    ldmatrix_rows(arguments, m);
    for (int lane = 0; lane < LANES; lane++)
        for (int j = 0; j < 4; j++) {
            int row = 2 * (lane % 4), column = lane / 4;
            ((struct ldmatrix *)arguments[lane])->r[j] =
                m[j][row][column] | (uint32_t)m[j][row + 1][column] << 16;
        }
}

void ldmatrix_x4(uint32_t (&r)[4], const void *shared) {
    struct ldmatrix l = {r, shared};
    check_capability(EMULATION_LDMATRIX);
    emulation_collective(EMULATION_LDMATRIX, ~0u, &l, ldmatrix_all, nullptr, 0);
}

void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *shared) {
    struct ldmatrix l = {r, shared};
    check_capability(EMULATION_LDMATRIX_TRANSPOSED);
    emulation_collective(EMULATION_LDMATRIX_TRANSPOSED, ~0u, &l,
                         ldmatrix_all_transposed, nullptr, 0);
}

/* ---- mma.sync ----------------------------------------------------------------------- */

struct mma {
    float *d;
    const uint32_t *a;
    uint32_t b[2];
};

UNCHECKED static void mma_all(void *const *arguments, unsigned) {
    uint16_t halves_a[16][16], halves_b[16][8];
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < LANES; lane++) {
        const struct mma *m = (const struct mma *)arguments[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            memcpy(&halves_a[g + 8 * (i & 1)][2 * t + 8 * (i >> 1)], &m->a[i], 4);
        for (int i = 0; i < 2; i++) {
            halves_b[2 * t + 8 * i][g] = (uint16_t)m->b[i];
            halves_b[2 * t + 8 * i + 1][g] = (uint16_t)(m->b[i] >> 16);
            memcpy(&d[g + 8 * i][2 * t], &m->d[2 * i], 2 * sizeof(float));
        }
    }
    product_to_floats(&halves_a[0][0], &a[0][0], 256);
    product_to_floats(&halves_b[0][0], &b[0][0], 128);
    product_16x8(a, b, d);
    for (int lane = 0; lane < LANES; lane++) {
        struct mma *m = (struct mma *)arguments[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 2; i++)
            memcpy(&m->d[2 * i], &d[g + 8 * i][2 * t], 2 * sizeof(float));
    }
}

void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct mma m = {d, a, {b0, b1}};
    check_capability(EMULATION_MMA);
    emulation_collective(EMULATION_MMA, ~0u, &m, mma_all, nullptr, 0);
}

/* ---- wmma --------------------------------------------------------------------------- */

/* Accumulators: lane 4 g + t, element e. Any one-to-one layout would do; this one is not
 * that of the devices. */
UNCHECKED static inline int sum_row(int lane, int e) {
    return (lane * 5 + e * 2) & 15;
}
UNCHECKED static inline int sum_column(int lane, int e) {
    return ((lane >> 4) * 8 + e + lane) & 15;
}

/* a and b: lanes l and l + 16 hold the same row or column, in different orders. */
UNCHECKED static inline int ab_row(int lane) {
    return (lane * 3) & 15;
}
UNCHECKED static inline int ab_column(int lane, int e) {
    return (e + lane + (lane >> 4) * 5) & 15;
}

struct wmma_memory {
    void *x;
    char *address;
    unsigned ldm;
    bool is_half, transposed;
    int lane; /* set when all lanes are there */
};

/* Once for all lanes. Each then moves its own elements when it goes on, as on a device: what
 * a lane does behind a store, without a barrier, does not wait for the others. */
static void check_memory(enum emulation_op op, void *const *arguments) {
    const struct wmma_memory *m = (const struct wmma_memory *)arguments[0];
    unsigned unit = m->is_half ? 8 : 4;
    for (int lane = 0; lane < LANES; lane++) {
        struct wmma_memory *other = (struct wmma_memory *)arguments[lane];
        other->lane = lane;
        if (other->address != m->address || other->ldm != m->ldm ||
            other->transposed != m->transposed)
            emulation_fail("%s: lanes 0 and %d give different matrices", op_name(op),
                           lane);
    }
    if ((uintptr_t)m->address % 32 != 0)
        emulation_fail("%s: %p is not 32-byte aligned", op_name(op),
                       (void *)m->address);
    if (m->ldm % unit != 0)
        emulation_fail("%s: ldm %u is no multiple of %u", op_name(op), m->ldm, unit);
}

static void check_load(void *const *arguments, unsigned) {
    check_memory(EMULATION_WMMA_LOAD, arguments);
}

static void check_store(void *const *arguments, unsigned) {
    check_memory(EMULATION_WMMA_STORE, arguments);
}

static inline size_t wmma_at(const struct wmma_memory *m, int row, int column) {
    size_t at = m->transposed ? (size_t)column * m->ldm + (size_t)row
                              : (size_t)row * m->ldm + (size_t)column;
    return at * (m->is_half ? 2 : 4);
}

struct wmma_product {
    void *d;
    const __half *a, *b;
    const void *c;
    bool d_is_half, c_is_half;
};

/* One operand from its lanes. */
UNCHECKED static void gather_ab(void *const *arguments, bool is_b,
                                uint16_t (&m)[16][16]) {
    for (int lane = 0; lane < LANES; lane++) {
        const struct wmma_product *p = (const struct wmma_product *)arguments[lane];
        const __half *x = is_b ? p->b : p->a;
        for (int e = 0; e < 16; e++) {
            uint16_t *to = &m[ab_row(lane)][ab_column(lane, e)];
            if (lane >= 16 && *to != x[e].bits)
                emulation_fail("wmma::mma_sync: lanes %d and %d hold the same element "
                               "of %s, with different values",
                               lane - 16, lane, is_b ? "b" : "a");
            *to = x[e].bits;
        }
    }
}

UNCHECKED static void wmma_all(void *const *arguments, unsigned) {
    uint16_t halves[2][16][16];
    float a[16][16], b[16][16], d[16][16];
    gather_ab(arguments, false, halves[0]);
    gather_ab(arguments, true, halves[1]);
    product_to_floats(&halves[0][0][0], &a[0][0], 256);
    product_to_floats(&halves[1][0][0], &b[0][0], 256);
    for (int lane = 0; lane < LANES; lane++) {
        const struct wmma_product *p = (const struct wmma_product *)arguments[lane];
        for (int e = 0; e < 8; e++)
            d[sum_row(lane, e)][sum_column(lane, e)] =
                p->c_is_half ? (float)((const __half *)p->c)[e]
                             : ((const float *)p->c)[e];
    }
    product_16x16(a, b, d);
    for (int lane = 0; lane < LANES; lane++) {
        struct wmma_product *p = (struct wmma_product *)arguments[lane];
        for (int e = 0; e < 8; e++) {
            float value = d[sum_row(lane, e)][sum_column(lane, e)];
            if (p->d_is_half)
                ((__half *)p->d)[e] = __half(value);
            else
                ((float *)p->d)[e] = value;
        }
    }
}

namespace nvcuda {
namespace wmma {

void emulation_load_ab(__half *x, const __half *from, unsigned ldm, bool transposed,
                       const char *file, int line) {
    struct wmma_memory m = {x, (char *)from, ldm, true, transposed, 0};
    emulation_collective(EMULATION_WMMA_LOAD, ~0u, &m, check_load, file, line);
    for (int e = 0; e < 16; e++)
        memcpy(x + e, m.address + wmma_at(&m, ab_row(m.lane), ab_column(m.lane, e)), 2);
}

void emulation_load_sums(void *x, bool is_half, const void *from, unsigned ldm,
                         bool transposed, const char *file, int line) {
    struct wmma_memory m = {x, (char *)from, ldm, is_half, transposed, 0};
    emulation_collective(EMULATION_WMMA_LOAD, ~0u, &m, check_load, file, line);
    size_t size = is_half ? 2 : 4;
    for (int e = 0; e < 8; e++)
        memcpy((char *)x + (size_t)e * size,
               m.address + wmma_at(&m, sum_row(m.lane, e), sum_column(m.lane, e)),
               size);
}

void emulation_store_sums(void *to, const void *x, bool is_half, unsigned ldm,
                          bool transposed, const char *file, int line) {
    struct wmma_memory m = {(void *)x, (char *)to, ldm, is_half, transposed, 0};
    emulation_collective(EMULATION_WMMA_STORE, ~0u, &m, check_store, file, line);
    size_t size = is_half ? 2 : 4;
    for (int e = 0; e < 8; e++)
        memcpy(m.address + wmma_at(&m, sum_row(m.lane, e), sum_column(m.lane, e)),
               (const char *)x + (size_t)e * size, size);
}

void emulation_wmma(void *d, const __half *a, const __half *b, const void *c,
                    bool d_is_half, bool c_is_half, const char *file, int line) {
    struct wmma_product p = {d, a, b, c, d_is_half, c_is_half};
    emulation_collective(EMULATION_WMMA_MMA, ~0u, &p, wmma_all, file, line);
}

} // namespace wmma
} // namespace nvcuda
