/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.h - the instruction floor: how fast this machine multiplies when nothing else is in
 * the way. Benchmarks divide by it, so that a share means the same on every machine.
 */
#ifndef VIGIL_KERNELS_CPU_PROBE_H
#define VIGIL_KERNELS_CPU_PROBE_H

#include <stdint.h>

#include "base/status.h"
#include "kernels/cpu/kernels.h"

/* Multiply-accumulates a second of the instructions that `gemm` is made of, from registers,
 * on n_threads threads at once: the best of several short runs. It runs for about 0.2 s.
 * STATUS_UNSUPPORTED for the portable family, which has no instructions of its own. */
enum status probe_peak(const struct cpu_gemm *gemm, int32_t n_threads,
                       double *macs_per_second, struct error *err);

#endif
