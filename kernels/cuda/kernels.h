/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.h - what each CUDA kernel computes, and how the host launches it.
 *
 * Matrices are row-major fp16 (`f16`, the bits of an IEEE half) unless said otherwise, on
 * the device, their rows 16-byte aligned. Sums, statistics and exponentials are fp32.
 * Widths are padded with zeros when weights are loaded (cuda.h), so that every width is a
 * multiple of 64 and no kernel has a tail but at the end of the rows. Rows past the batch's
 * last token hold what an earlier batch left: finite, and read by nobody.
 *
 * A function launches on launch->stream, waits for nothing, allocates nothing, and returns
 * what the runtime said of the launch. Valid C11 and C++17.
 * Checked: tests/cuda/test_{kernels,attention,gemm}.c, against plain loops in fp64.
 */
#ifndef VIGIL_KERNELS_CUDA_KERNELS_H
#define VIGIL_KERNELS_CUDA_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC_RTC__ /* NVRTC compiles the device code alone */
typedef struct CUstream_st *cudaStream_t;
#else
#include <cuda_runtime_api.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef uint16_t f16;

/* Which tensor core instructions the products and the attention use. */
enum cuda_path {
    CUDA_PATH_WMMA, /* sm_70 and up: wmma 16x16x16, registers to shared memory */
    CUDA_PATH_MMA   /* sm_80 and up: mma.sync m16n8k16, ldmatrix, cp.async */
};

/* How to launch. */
struct cuda_launch {
    cudaStream_t stream;
    enum cuda_path path;
    /* Code for sm_90 and up alone: a kernel may start while the one before it drains, and
     * waits for its end ahead of its first access to anything but weights (device.cuh). */
    bool overlaps;
};

/* Sizes that differ from batch to batch, on the device: a captured graph must not have them
 * among its arguments. */
struct cuda_counts {
    int32_t n_tokens, n_sequences, n_tiles, unused;
};

/* One CTA's share of attention: queries first_query .. of a sequence. */
struct cuda_tile {
    int32_t begin;       /* the sequence's first row */
    int32_t n_tokens;    /* of the sequence */
    int32_t first_query; /* a multiple of 16 * warps */
    int32_t unused;
};

/* ---- embed.cu: x[t] = LayerNorm(words[ids[t]] + positions[position[t]]) ------------- */

struct cuda_embed {
    const struct cuda_counts *counts;
    const int32_t *ids, *positions; /* [T] */
    const f16 *words;               /* [V, width] */
    const f16 *position_rows;       /* [P, width] */
    const float *weight, *bias;     /* [width] of the LayerNorm, zeros behind dim */
    f16 *x;                         /* [T, width] */
    int32_t dim, width;             /* C, and C padded: at most CUDA_MAX_WIDTH */
};
cudaError_t cuda_embed(const struct cuda_launch *launch, const struct cuda_embed *e,
                       int32_t max_tokens);

/* ---- layer_norm.cu: out[r] = LayerNorm(in[r]) over dim of width values -------------- */

enum { CUDA_MAX_WIDTH = 4096 };

struct cuda_layer_norm {
    const f16 *in; /* [n_rows, width] */
    f16 *out;      /* [n_rows, width]; may be in */
    const float *weight, *bias;
    int32_t dim, width;
};
cudaError_t cuda_layer_norm(const struct cuda_launch *launch,
                            const struct cuda_layer_norm *n, int32_t n_rows);

/* ---- activation.cu: x = GELU(x) in its erf form, in place, or ReLU ------------------ */

cudaError_t cuda_activation(const struct cuda_launch *launch, f16 *x, int64_t n_values,
                            bool is_relu);

/* ---- gather.cu: out[b] = in[offsets[b]] for each sequence --------------------------- */

cudaError_t cuda_gather(const struct cuda_launch *launch,
                        const struct cuda_counts *counts, const int32_t *offsets,
                        const f16 *in, f16 *out, int32_t width, int32_t max_sequences);

/* ---- attention_mma.cu, attention_wmma.cu, attention_cls.cu -------------------------- */

/* softmax(q k^T / sqrt(D)) v for every head. The scale goes into the exponent, in fp32:
 * folding it into the weights would round them again where it is no power of two. */
struct cuda_attention {
    const struct cuda_counts *counts;
    const f16 *q, *k, *v; /* of row 0, head 0; a head's columns are head_width apart */
    f16 *out;
    int32_t q_stride, kv_stride, out_stride; /* values from row to row */
    int32_t n_heads;
    int32_t head_width; /* D padded: 16, 32, 64 or 128 */
    float scale;        /* 1 / sqrt(D) */
    bool q_is_packed;   /* cuda_attention_cls alone */
};

/* All queries of all sequences. q, k, v need 64 readable rows behind the last.
 * warps: 2, 4 or 8: a tile is 16 * warps queries, so that a sequence of up to 128 tokens is
 * one CTA a head. The grid is max_tiles x n_heads; tiles from counts->n_tiles on do nothing. */
cudaError_t cuda_attention(const struct cuda_launch *launch,
                           const struct cuda_attention *a,
                           const struct cuda_tile *tiles, int32_t max_tiles,
                           int32_t warps);

/* The first query of each sequence alone, to row b of out. Query b is row b of q, or, when
 * q_is_packed, row offsets[b], as keys and values are. */
cudaError_t cuda_attention_cls(const struct cuda_launch *launch,
                               const struct cuda_attention *a, const int32_t *offsets,
                               int32_t max_sequences);

/* ---- gemm_mma.cu, gemm_wmma.cu: out = epilogue(in weights^T + bias) ----------------- */

enum cuda_epilogue {
    CUDA_EPILOGUE_BIAS,
    CUDA_EPILOGUE_RELU,
    CUDA_EPILOGUE_GELU,    /* erf */
    CUDA_EPILOGUE_RESIDUAL /* adds residual's row */
};

struct cuda_gemm {
    const f16 *in;       /* [m, k], rows in_stride apart */
    const f16 *weights;  /* [n, k] */
    const f16 *bias;     /* [n] */
    const f16 *residual; /* [m, n], rows out_stride apart; not out */
    f16 *out;            /* [m, n], rows out_stride apart */
    int32_t m, n, k;     /* n and k multiples of 64 */
    int32_t in_stride, out_stride;
    enum cuda_epilogue epilogue;
};

/* A tile shape and in how many parts k is cut. The parts' sums are added in their order by
 * whichever CTA comes last: the same bits every time. */
struct cuda_gemm_variant {
    int32_t tile;     /* index below cuda_gemm_n_tiles(path) */
    int32_t n_splits; /* 1: k is not cut */
};

int32_t cuda_gemm_n_tiles(enum cuda_path path);
/* "64x64x64": rows, columns, depth. */
const char *cuda_gemm_tile_name(enum cuda_path path, int32_t tile);
/* Whether the variant can compute this product: tile divides n, splits divide k's steps. */
bool cuda_gemm_fits(enum cuda_path path, struct cuda_gemm_variant v, int32_t m,
                    int32_t n, int32_t k);
/* Bytes of partial sums, and int32 counters (zero before the first launch, zero again
 * after each), that a variant needs. */
size_t cuda_gemm_partial_bytes(enum cuda_path path, struct cuda_gemm_variant v,
                               int32_t m, int32_t n);
int32_t cuda_gemm_n_counters(enum cuda_path path, struct cuda_gemm_variant v, int32_t m,
                             int32_t n);
cudaError_t cuda_gemm(const struct cuda_launch *launch, const struct cuda_gemm *g,
                      struct cuda_gemm_variant v, float *partials, int32_t *counters);

/* ---- head.cu: out[r] = in[r] weights^T + bias, a few columns, in fp32 --------------- */

struct cuda_head {
    const f16 *in;      /* [n_rows, width] */
    const f16 *weights; /* [n, width] */
    const float *bias;  /* [n] */
    float *out;         /* [n_rows, n] */
    int32_t width, n;
};
cudaError_t cuda_head(const struct cuda_launch *launch, const struct cuda_head *h,
                      int32_t n_rows);

/* Once for each device that is current, before its first launch: shared memory above 48 KB
 * is asked for here. */
cudaError_t cuda_kernels_prepare(enum cuda_path path);

/* For which architecture (80: sm_80) the code was written that runs on the current device:
 * an older one than the device's own where the library was built without that. */
cudaError_t cuda_kernels_compiled_for(int32_t *architecture);

#ifdef __cplusplus
}
#endif

#endif
