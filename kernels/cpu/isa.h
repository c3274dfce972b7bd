/* SPDX-License-Identifier: Apache-2.0
 *
 * isa.h - which instruction sets this processor and kernel offer, asked once at run time.
 */
#ifndef VIGIL_KERNELS_CPU_ISA_H
#define VIGIL_KERNELS_CPU_ISA_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/cpu/kernels.h"

enum isa {
    ISA_PORTABLE,
    ISA_AVX2,        /* with FMA and F16C */
    ISA_AVX512,      /* F, BW, VL, DQ */
    ISA_AVX512_VNNI, /* and VNNI: int8, bf16 */
    ISA_AVX512_BF16, /* and BF16: bf16 */
    N_ISAS
};

bool isa_is_available(enum isa isa);
const char *isa_name(enum isa isa); /* "portable", "avx2", … */

/* The kernels for a dtype ("fp32", "bf16", "int8") on an instruction set: its own name,
 * "avx512" for the best of that family, "auto" or NULL for the best that there is. NULL
 * when this machine or that set cannot: isa_list then says what can. */
const struct cpu_gemm *isa_gemm(const char *isa, const char *dtype);
/* fp32 products and operators of the same vector width as a gemm's. */
const struct cpu_gemm *isa_float_gemm(const struct cpu_gemm *gemm);
const struct cpu_operators *isa_operators(const struct cpu_gemm *gemm);

/* The instruction sets that can run dtype here, best first, "avx2, portable", in list. */
void isa_list(const char *dtype, char *list, size_t cap_bytes);

#endif
