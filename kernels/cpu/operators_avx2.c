/* SPDX-License-Identifier: Apache-2.0
 *
 * operators_avx2.c - the operators, compiled for AVX2 and FMA.
 */
#define OPERATORS operators_avx2
#include "kernels/cpu/operators.inc.h"
