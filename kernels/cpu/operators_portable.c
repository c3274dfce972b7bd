/* SPDX-License-Identifier: Apache-2.0
 *
 * operators_portable.c - the operators, compiled for any machine.
 */
#define OPERATORS operators_portable
#include "kernels/cpu/operators.inc.h"
