/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.c - loops of nothing but the multiply instructions, on independent registers.
 *
 * Each loop has the mix of its kernel's inner loop without loads: fp32 and bf16-on-AVX2 are
 * FMAs; int8 on AVX2 is the five-instruction sequence of gemm_int8_avx2.c; AVX-512 int8 is
 * vpdpbusd, bf16 is vdpbf16ps. 12 accumulators (24 with AVX-512) hide the latency.
 */
#include "kernels/cpu/probe.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 9, ROUND_NS = 20000000, STEPS = 20000, MAX_PROBE_THREADS = 256 };

#if defined __x86_64__

#define TIMES_12(f)                                                                    \
    f("0") f("1") f("2") f("3") f("4") f("5") f("6") f("7") f("8") f("9") f("10")      \
        f("11")
#define TIMES_24(f)                                                                    \
    TIMES_12(f)                                                                        \
    f("12") f("13") f("14") f("15") f("16") f("17") f("18") f("19") f("20") f("21")    \
        f("22") f("23")

#define FMA_YMM(r) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" r "\n\t"
#define FMA_ZMM(r) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" r "\n\t"
#define DPBUSD(r) "vpdpbusd %%zmm30, %%zmm31, %%zmm" r "\n\t"
#define DPBF16(r) "vdpbf16ps %%zmm30, %%zmm31, %%zmm" r "\n\t"
#define QUAD(acc, t, u)                                                                \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm" t "\n\t"                                      \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm" u "\n\t"                                      \
    "vpaddw %%ymm" t ", %%ymm" u ", %%ymm" t "\n\t"                                    \
    "vpmaddwd %%ymm13, %%ymm" t ", %%ymm" t "\n\t"                                     \
    "vpaddd %%ymm" t ", %%ymm" acc ", %%ymm" acc "\n\t"
/* clang-format off */
#define QUADS                                                                          \
    QUAD("0", "9", "10") QUAD("1", "11", "12") QUAD("2", "9", "10")                    \
    QUAD("3", "11", "12") QUAD("4", "9", "10") QUAD("5", "11", "12")                   \
    QUAD("6", "9", "10") QUAD("7", "11", "12")
/* clang-format on */

/* Registers are cleared first: a NaN or a subnormal in one would cost time. */
#define CLEAR_YMM "vzeroall\n\t"
#define CLEAR_ZMM(r) "vpxord %%zmm" r ", %%zmm" r ", %%zmm" r "\n\t"
#define CLEAR_ALL_ZMM TIMES_24(CLEAR_ZMM) CLEAR_ZMM("30") CLEAR_ZMM("31")
#define LOOP(clear, body)                                                              \
    __asm__ volatile(clear "1:\n\t" body "dec %[n]\n\tjnz 1b\n\tvzeroupper\n\t"        \
                     : [n] "+r"(n)                                                     \
                     :                                                                 \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",   \
                       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",     \
                       "xmm14", "xmm15")

static void steps_fma_ymm(long n) {
    LOOP(CLEAR_YMM, TIMES_12(FMA_YMM));
}

static void steps_quad_ymm(long n) {
    LOOP(CLEAR_YMM, QUADS);
}

static void steps_fma_zmm(long n) {
    LOOP(CLEAR_ALL_ZMM, TIMES_24(FMA_ZMM));
}

static void steps_dpbusd_zmm(long n) {
    LOOP(CLEAR_ALL_ZMM, TIMES_24(DPBUSD));
}

static void steps_dpbf16_zmm(long n) {
    LOOP(CLEAR_ALL_ZMM, TIMES_24(DPBF16));
}

static const struct probe {
    const struct cpu_gemm *gemm;
    void (*steps)(long n);
    double macs_a_step;
} probes[] = {
    {&gemm_f32_avx2, steps_fma_ymm, 12 * 8},
    {&gemm_bf16_avx2, steps_fma_ymm, 12 * 8},
    {&gemm_int8_avx2, steps_quad_ymm, 8 * 64},
    {&gemm_f32_avx512, steps_fma_zmm, 24 * 16},
    {&gemm_int8_avx512, steps_dpbusd_zmm, 24 * 64},
    {&gemm_bf16_avx512, steps_dpbf16_zmm, 24 * 32},
};
enum { N_PROBES = sizeof probes / sizeof *probes };

static const struct probe *find_probe(const struct cpu_gemm *gemm) {
    for (int i = 0; i < N_PROBES; i++)
        if (probes[i].gemm == gemm)
            return &probes[i];
    return NULL;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

struct round {
    const struct probe *probe;
    _Atomic bool is_started;
    _Atomic int64_t n_steps;
};

static void *round_main(void *argument) {
    struct round *r = argument;
    while (!atomic_load(&r->is_started))
        ;
    int64_t end = now_ns() + ROUND_NS, done = 0;
    while (now_ns() < end) {
        r->probe->steps(STEPS);
        done += STEPS;
    }
    atomic_fetch_add(&r->n_steps, done);
    return NULL;
}

/* Steps a second of one round on n_threads threads. */
static enum status round_run(const struct probe *probe, int32_t n_threads, double *rate,
                             struct error *err) {
    struct round r = {.probe = probe};
    pthread_t threads[MAX_PROBE_THREADS];
    int32_t n_started = 0;
    while (n_started < n_threads - 1 &&
           pthread_create(&threads[n_started], NULL, round_main, &r) == 0)
        n_started++;
    int64_t begin = now_ns();
    atomic_store(&r.is_started, true);
    round_main(&r);
    for (int32_t i = 0; i < n_started; i++)
        pthread_join(threads[i], NULL);
    *rate = (double)atomic_load(&r.n_steps) / ((double)(now_ns() - begin) * 1e-9);
    if (n_started < n_threads - 1)
        return error_set(err, STATUS_IO, "could not start %d threads", n_threads);
    return STATUS_OK;
}

enum status probe_peak(const struct cpu_gemm *gemm, int32_t n_threads,
                       double *macs_per_second, struct error *err) {
    const struct probe *probe = find_probe(gemm);
    if (!probe)
        return error_set(err, STATUS_UNSUPPORTED,
                         "there is no instruction probe for %s", gemm->isa);
    if (n_threads < 1 || n_threads > MAX_PROBE_THREADS)
        return error_set(err, STATUS_INVALID, "the probe takes 1 to %d threads, not %d",
                         MAX_PROBE_THREADS, n_threads);
    *macs_per_second = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double rate;
        enum status status = round_run(probe, n_threads, &rate, err);
        if (status != STATUS_OK)
            return status;
        if (rate * probe->macs_a_step > *macs_per_second)
            *macs_per_second = rate * probe->macs_a_step;
    }
    return STATUS_OK;
}

#else

enum status probe_peak(const struct cpu_gemm *gemm, int32_t n_threads,
                       double *macs_per_second, struct error *err) {
    (void)n_threads;
    (void)macs_per_second;
    return error_set(err, STATUS_UNSUPPORTED, "there is no instruction probe for %s",
                     gemm->isa);
}

#endif
