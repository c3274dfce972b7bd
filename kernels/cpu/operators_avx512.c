/* SPDX-License-Identifier: Apache-2.0
 *
 * operators_avx512.c - the operators, compiled for AVX-512.
 */
#define OPERATORS operators_avx512
#include "kernels/cpu/operators.inc.h"
