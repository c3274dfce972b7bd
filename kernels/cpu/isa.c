/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/isa.h"

#include <stdio.h>
#include <string.h>

/* Best first: the first that fits wins. */
static const struct {
    enum isa isa;
    const struct cpu_gemm *gemm;
} families[] = {
#if defined __x86_64__
    {ISA_AVX512_VNNI, &gemm_int8_avx512}, {ISA_AVX512_VNNI, &gemm_int16_avx512},
    {ISA_AVX512_BF16, &gemm_bf16_avx512}, {ISA_AVX512, &gemm_f32_avx512},
    {ISA_AVX2, &gemm_int8_avx2},          {ISA_AVX2, &gemm_bf16_avx2},
    {ISA_AVX2, &gemm_f32_avx2},
#endif
    {ISA_PORTABLE, &gemm_int8_portable},  {ISA_PORTABLE, &gemm_bf16_portable},
    {ISA_PORTABLE, &gemm_f32_portable},
};

enum { N_FAMILIES = sizeof families / sizeof *families };

bool isa_is_available(enum isa isa) {
#if defined __x86_64__
    bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
    bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
#ifdef VIGIL_EMULATE_AVX512
    if (isa >= ISA_AVX512 && isa < N_ISAS)
        return has_avx2; /* a test build: their kernels run on SIMDe */
#endif
    switch (isa) {
    case ISA_PORTABLE:
        return true;
    case ISA_AVX2:
        return has_avx2;
    case ISA_AVX512:
        return has_avx512;
    case ISA_AVX512_VNNI:
        return has_avx512 && __builtin_cpu_supports("avx512vnni");
    case ISA_AVX512_BF16:
        return has_avx512 && __builtin_cpu_supports("avx512bf16");
    case N_ISAS:
        break;
    }
    return false;
#else
    return isa == ISA_PORTABLE;
#endif
}

const char *isa_name(enum isa isa) {
    static const char *const names[N_ISAS] = {"portable", "avx2", "avx512",
                                              "avx512-vnni", "avx512-bf16"};
    return (unsigned)isa < N_ISAS ? names[isa] : "unknown";
}

/* "avx512" asks for the family: avx512-vnni is its int8 and, before avx512-bf16, its bf16. */
static bool name_matches(const char *asked, const char *name) {
    if (!asked || strcmp(asked, "auto") == 0 || strcmp(asked, name) == 0)
        return true;
    return strcmp(asked, "avx512") == 0 && strncmp(name, "avx512-", 7) == 0;
}

const struct cpu_gemm *isa_gemm(const char *isa, const char *dtype) {
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].gemm->dtype, dtype) == 0 &&
            name_matches(isa, families[i].gemm->isa) &&
            isa_is_available(families[i].isa))
            return families[i].gemm;
    return NULL;
}

const struct cpu_gemm *isa_float_gemm(const struct cpu_gemm *gemm) {
#if defined __x86_64__
    if (strncmp(gemm->isa, "avx512", 6) == 0)
        return &gemm_f32_avx512;
    if (strcmp(gemm->isa, "avx2") == 0)
        return &gemm_f32_avx2;
#endif
    (void)gemm;
    return &gemm_f32_portable;
}

const struct cpu_operators *isa_operators(const struct cpu_gemm *gemm) {
#if defined __x86_64__
    if (strncmp(gemm->isa, "avx512", 6) == 0)
        return &operators_avx512;
    if (strcmp(gemm->isa, "avx2") == 0)
        return &operators_avx2;
#endif
    (void)gemm;
    return &operators_portable;
}

void isa_list(const char *dtype, char *list, size_t cap_bytes) {
    size_t at = 0;
    list[0] = '\0';
    for (size_t i = 0; i < N_FAMILIES && at < cap_bytes; i++) {
        if (strcmp(families[i].gemm->dtype, dtype) != 0 ||
            !isa_is_available(families[i].isa))
            continue;
        int n = snprintf(list + at, cap_bytes - at, "%s%s", at ? ", " : "",
                         families[i].gemm->isa);
        at += n > 0 ? (size_t)n : 0;
    }
}
