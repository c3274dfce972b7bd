/* SPDX-License-Identifier: Apache-2.0
 *
 * epilogue.h - what follows a product before its values leave the registers. Included by
 * the gemm_*.c files, compiled for their instruction set.
 */
#ifndef VIGIL_KERNELS_CPU_EPILOGUE_H
#define VIGIL_KERNELS_CPU_EPILOGUE_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

/* v: VF_WIDTH values of row `row` from column `column` on, bias added. epilogue is
 * p->epilogue, or the constant that it is known to be. is_coarse: a GELU whose result
 * becomes int8 may be the cheap one. */
SIMD void epilogue_store(const struct product *p, int32_t row, int32_t column, vf v,
                         const enum epilogue epilogue, const bool is_coarse) {
    size_t at = (size_t)row * p->out_stride + (size_t)column;
    switch (epilogue) {
    case EPILOGUE_BIAS:
        break;
    case EPILOGUE_RELU:
        v = vf_max(v, vf_set1(0.0f));
        break;
    case EPILOGUE_GELU:
        v = is_coarse ? vf_gelu_coarse(v) : vf_gelu(v);
        break;
    case EPILOGUE_RESIDUAL:
        v = vf_add(v, vf_load(p->residual + at));
        break;
    }
    vf_store(p->out + at, v);
}

/* acc: sums of byte * weight. (acc - zero * column_sum) * scales + bias */
SIMD vf epilogue_dequantize(const struct packed_linear *w, int32_t column, vf acc,
                            struct row_quantum quantum) {
    vf centred = vf_fma(vf_set1(-quantum.zero), vf_load(w->column_sum + column), acc);
    vf scale = vf_mul(vf_set1(quantum.scale), vf_load(w->scale + column));
    return vf_fma(centred, scale, vf_load(w->bias + column));
}

#endif
