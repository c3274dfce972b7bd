/* SPDX-License-Identifier: Apache-2.0
 *
 * emulation.h - what tests say to the emulated devices, beside CUDA's own interface.
 * Valid C11 and C++17. Any thread. README.md lists the environment variables.
 */
#ifndef VIGIL_EMULATION_EMULATION_H
#define VIGIL_EMULATION_EMULATION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum emulation_order {
    EMULATION_FORWARD, /* threads, warps and blocks by index */
    EMULATION_REVERSE,
    EMULATION_RANDOM
};

/* From the next launch on; instead of what VIGIL_EMULATION_ORDER says. */
void emulation_set_order(enum emulation_order order, uint64_t seed);
/* Streams queue their work until something waits for it (VIGIL_EMULATION_LAZY=1). */
void emulation_set_lazy(int is_lazy);
/* The devices' compute capability, 70 to 90 (VIGIL_EMULATION_CAPABILITY). */
void emulation_set_capability(int capability);

/* Arms a fault, after those armed before it; the syntax is README.md's. Returns 0, or -1
 * where spec is not understood. NULL disarms all. */
int emulation_fault(const char *spec);
/* Disarms all faults and clears all devices' errors, sticky ones too, and the counters of
 * launches and products. Memory, streams and graphs stay. */
void emulation_reset(void);

/* Held now: device and pinned memory together, all devices. */
size_t emulation_n_allocations(void);
size_t emulation_bytes_allocated(void);
/* Streams, events, graphs, executable graphs, and all of cuBLASLt's objects. */
size_t emulation_n_handles(void);
/* The above are zero: true. Else prints what is left, one line each, to stderr. */
int emulation_is_clean(void);

/* Executed, replays counted. */
uint64_t emulation_n_launches(void);
uint64_t emulation_n_matmuls(void);

#ifdef __cplusplus
}
#endif

#endif
