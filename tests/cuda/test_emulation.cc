/* SPDX-License-Identifier: Apache-2.0
 *
 * test_emulation.cc - the emulation's device: what kernels do wrong shows, what they do
 * right comes out right. test_emulation_host.cc has the other side, CUDA's interface.
 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/tensor_core.cuh"

#include "tests/cuda/emulation/emulation.h"
#include "tests/cuda/emulation/harness.h"
#include "tests/cuda/emulation/mma.h"

using namespace nvcuda;

/* ---- helpers ------------------------------------------------------------------------ */

static uint32_t random_state = 1;

static float random_float() {
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) * 0x1p-23f - 1.0f;
}

template <typename T> static T *device_array(size_t n) {
    T *p = nullptr;
    CHECK_IS(cudaSuccess, cudaMalloc(&p, n * sizeof(T)));
    return p;
}

/* Device memory is the host's here, and tests know it. */
template <typename... Parameters, typename... Arguments>
static void run(void (*kernel)(Parameters...), dim3 grid, int threads,
                size_t shared_bytes, Arguments... arguments) {
    struct cuda_launch launch = {};
    CHECK_IS(cudaSuccess,
             launch_kernel(&launch, kernel, grid, threads, shared_bytes, arguments...));
    CHECK_IS(cudaSuccess, cudaDeviceSynchronize());
}

/* ---- halves ------------------------------------------------------------------------- */

static void halves_to_floats() {
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t bits = (uint16_t)i;
        _Float16 half;
        memcpy(&half, &bits, 2);
        float expected = (float)half, actual = __half2float(__ushort_as_half(bits));
        CHECK(expected != expected
                  ? actual != actual
                  : __float_as_uint(actual) == __float_as_uint(expected));
    }
}

static void floats_to_halves() {
    for (uint64_t i = 0; i < (1ull << 32); i += 4093) {
        float value = __uint_as_float((uint32_t)i);
        _Float16 half = (_Float16)value;
        uint16_t expected;
        memcpy(&expected, &half, 2);
        uint16_t actual = __half_as_ushort(__float2half_rn(value));
        CHECK(value != value ? (actual & 0x7fff) > 0x7c00 : actual == expected);
    }
    for (uint32_t i = 0; i < 0x7c00; i++) { /* ties, and what lies beside them */
        float low = __half2float(__ushort_as_half((uint16_t)i));
        float high =
            i < 0x7bff ? __half2float(__ushort_as_half((uint16_t)(i + 1))) : 65536.0f;
        float middle = (low + high) / 2;
        CHECK_IS(i + (i & 1), __half_as_ushort(__float2half_rn(middle)));
        CHECK_IS(i, __half_as_ushort(__float2half_rn(nextafterf(middle, 0))));
        CHECK_IS(i + 1, __half_as_ushort(__float2half_rn(nextafterf(middle, 1e6f))));
    }
}

/* ---- launches, order ---------------------------------------------------------------- */

static __global__ void count_visits(int *visits) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x;
    thread += threadIdx.x;
    atomicAdd(&visits[block * (blockDim.x * blockDim.y * blockDim.z) + thread], 1);
}

static void every_thread_runs_once() {
    for (int order = EMULATION_FORWARD; order <= EMULATION_RANDOM; order++) {
        emulation_set_order((enum emulation_order)order, 7);
        int *visits = device_array<int>(2 * 3 * 4 * 5 * 6 * 7);
        cudaMemset(visits, 0, 2 * 3 * 4 * 5 * 6 * 7 * sizeof(int));
        cudaLaunchConfig_t config = {};
        config.gridDim = dim3(2, 3, 4);
        config.blockDim = dim3(5, 6, 7);
        CHECK_IS(cudaSuccess, cudaLaunchKernelEx(&config, count_visits, visits));
        for (int i = 0; i < 2 * 3 * 4 * 5 * 6 * 7; i++)
            CHECK_IS(1, visits[i]);
        cudaFree(visits);
    }
}

static __global__ void note_order(int *order, int *n) {
    int i = atomicAdd(n, 1);
    order[i] = (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

static void threads_keep_the_order() {
    enum { N = 3 * 70 };
    int *order = device_array<int>(N), *n = device_array<int>(1);
    *n = 0;
    run(note_order, 3, 70, 0, order, n);
    for (int i = 0; i < N; i++)
        CHECK_IS(i, order[i]);
    *n = 0;
    emulation_set_order(EMULATION_REVERSE, 0);
    run(note_order, 3, 70, 0, order, n);
    for (int i = 0; i < N; i++)
        CHECK_IS(N - 1 - i, order[i]);
    *n = 0;
    emulation_set_order(EMULATION_RANDOM, 1);
    run(note_order, 3, 70, 0, order, n);
    int n_in_place = 0;
    for (int i = 0; i < N; i++)
        n_in_place += order[i] == i;
    CHECK(n_in_place < N / 4);
}

/* ---- barriers ----------------------------------------------------------------------- */

/* Sums the block's values through shared memory; the barrier can be left out. */
static __global__ void neighbour(const int *in, int *out, bool has_barrier) {
    SHARED_MEMORY(memory);
    int *values = (int *)memory, i = (int)threadIdx.x, n = (int)blockDim.x;
    values[i] = in[i];
    if (has_barrier)
        __syncthreads();
    out[i] = values[(i + 1) % n] + values[(i + n - 1) % n];
}

static void check_neighbours(bool has_barrier, int *n_wrong) {
    enum { N = 256 };
    int *in = device_array<int>(N), *out = device_array<int>(N);
    for (int i = 0; i < N; i++)
        in[i] = i * i;
    run(neighbour, 1, N, N * sizeof(int), (const int *)in, out, has_barrier);
    *n_wrong = 0;
    for (int i = 0; i < N; i++)
        *n_wrong += out[i] != in[(i + 1) % N] + in[(i + N - 1) % N];
    cudaFree(in);
    cudaFree(out);
}

static void barriers_hold() {
    for (int order = EMULATION_FORWARD; order <= EMULATION_RANDOM; order++) {
        int n_wrong;
        emulation_set_order((enum emulation_order)order, 3);
        check_neighbours(true, &n_wrong);
        CHECK_IS(0, n_wrong);
    }
}

static void a_missing_barrier_shows() {
    for (int order = EMULATION_FORWARD; order <= EMULATION_RANDOM; order++) {
        int n_wrong;
        emulation_set_order((enum emulation_order)order, 3);
        check_neighbours(false, &n_wrong);
        CHECK(n_wrong > 0);
    }
}

static __global__ void two_barriers() {
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __syncthreads();
}

static void divergent_barriers_show() {
    run(two_barriers, 1, 64, 0);
}

static __global__ void some_leave(int *out) {
    if (threadIdx.x >= 40)
        return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

static void ended_threads_count_at_barriers() {
    int *out = device_array<int>(64), sum = 0;
    cudaMemset(out, 0, 64 * sizeof(int));
    run(some_leave, 1, 64, 0, out);
    for (int i = 0; i < 64; i++)
        sum += out[i];
    CHECK_IS(40, sum);
}

static __global__ void barrier_against_warp() {
    if (threadIdx.x == 5)
        __syncthreads();
    else
        __syncwarp();
}

static void a_barrier_against_a_warp_is_a_deadlock() {
    run(barrier_against_warp, 1, 64, 0);
}

/* ---- memory ------------------------------------------------------------------------- */

static __global__ void write_at(char *p, int at) {
    p[at] = 1;
}

static void one_byte_past_the_end() {
    char *p = device_array<char>(1001);
    run(write_at, 1, 1, 0, p, 1001);
    cudaFree(p); /* without AddressSanitizer it shows here */
}

static __global__ void read_at(const char *p, int at, char *out) {
    *out = p[at];
}

static void one_byte_before_the_begin() {
    char *p = device_array<char>(1001), *out = device_array<char>(1);
    if (!has_asan) {
        fprintf(stderr, "AddressSanitizer finds it\n");
        abort();
    }
    run(read_at, 1, 1, 0, (const char *)p, -1, out);
}

static __global__ void write_shared(int at) {
    SHARED_MEMORY(memory);
    memory[at] = 1;
}

static void one_byte_past_shared_memory() {
    run(write_shared, 1, 1, 999, 999);
}

static __global__ void copy_shared(unsigned char *out) {
    SHARED_MEMORY(memory);
    out[blockIdx.x] = memory[7];
    memory[7] = 1;
}

static void new_memory_is_rubbish() {
    unsigned char *p = device_array<unsigned char>(2);
    CHECK_IS(0xcd, p[1]);
    run(copy_shared, 2, 1, 8, p);
    CHECK_IS(0xcd, p[0]);
    CHECK_IS(0xcd, p[1]);
}

static void a_host_pointer_as_argument() {
    static char host[16];
    run(write_at, 1, 1, 0, host, 1);
}

struct inner {
    int n;
    const char *p;
};
struct outer {
    int a, b;
    float c;
    struct inner inner;
    uint4 bits;
    char *out;
};

static __global__ void take_struct(struct outer o) {
    *o.out = o.inner.p[o.inner.n];
}

static void a_freed_pointer_in_a_struct() {
    char *p = device_array<char>(8), *q = device_array<char>(8);
    struct outer o = {1, 2, 3, {7, p}, {4, 5, 6, 7}, q};
    p[7] = 'x';
    run(take_struct, 1, 1, 0, o);
    CHECK_IS('x', *q);
    o.out = q + 8; /* the end is no other memory */
    o.inner.p = nullptr;
    CHECK_IS(cudaSuccess, cudaFree(p));
    o.inner.p = p;
    run(take_struct, 1, 1, 0, o);
}

/* ---- warps -------------------------------------------------------------------------- */

static __global__ void shuffle_all(int *out) {
    int lane = (int)threadIdx.x, *o = out + lane * 6;
    o[0] = __shfl_sync(ALL_LANES, lane, 9);
    o[1] = __shfl_xor_sync(ALL_LANES, lane, 5);
    o[2] = __shfl_up_sync(ALL_LANES, lane, 3);
    o[3] = __shfl_down_sync(ALL_LANES, lane, 3, 8);
    o[4] = __shfl_sync(ALL_LANES, lane, lane + 1, 16);
    o[5] = (int)__ballot_sync(ALL_LANES, lane % 3 == 0);
}

static void shuffles_move_values() {
    int *out = device_array<int>(32 * 6);
    run(shuffle_all, 1, 32, 0, out);
    for (int lane = 0; lane < 32; lane++) {
        const int *o = out + lane * 6;
        CHECK_IS(9, o[0]);
        CHECK_IS(lane ^ 5, o[1]);
        CHECK_IS(lane >= 3 ? lane - 3 : lane, o[2]);
        CHECK_IS(lane % 8 < 5 ? lane + 3 : lane, o[3]);
        CHECK_IS(lane / 16 * 16 + (lane + 1) % 16, o[4]);
        CHECK_IS(0x49249249, o[5]);
    }
}

static __global__ void halves_of_warp(float *out) {
    unsigned mask = threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u;
    float value = (float)threadIdx.x;
    for (int i = 8; i > 0; i /= 2)
        value += __shfl_xor_sync(mask, value, i);
    out[threadIdx.x] = value;
}

static void masks_may_part_a_warp() {
    float *out = device_array<float>(64);
    run(halves_of_warp, 1, 64, 0, out);
    for (int i = 0; i < 64; i++)
        CHECK_IS(i / 16 * 256 + 120, out[i]);
}

static __global__ void lane_leaves(int which) {
    if ((int)threadIdx.x == which)
        return;
    __shfl_sync(ALL_LANES, 1, 0);
}

static void a_lane_left_before() {
    run(lane_leaves, 1, 32, 0, 0);
}

static void a_lane_leaves_later() {
    run(lane_leaves, 1, 32, 0, 31);
}

static __global__ void lanes_part() {
    if (threadIdx.x < 16)
        __shfl_sync(ALL_LANES, 1, 0);
    else
        __shfl_sync(ALL_LANES, 1, 0);
}

static void lanes_come_from_two_lines() {
    run(lanes_part, 1, 32, 0);
}

static __global__ void reads_outside() {
    if (threadIdx.x < 16)
        __shfl_sync(0xffffu, 1, 20);
}

static void a_shuffle_reads_outside_its_mask() {
    run(reads_outside, 1, 32, 0);
}

static __global__ void shuffles_in_part() {
    __shfl_sync(ALL_LANES, 1, 0);
}

static void a_mask_names_lanes_that_are_not() {
    run(shuffles_in_part, 1, 48, 0);
}

/* ---- cp.async ----------------------------------------------------------------------- */

/* stages: how many of three groups are waited for before reading. */
static __global__ void copy_stages(const int *in, int *out, int n_left) {
    SHARED_MEMORY(memory);
    int *to = (int *)memory + threadIdx.x * 4, stride = (int)blockDim.x * 4;
    for (int i = 0; i < 4; i++)
        to[i] = to[i + stride] = to[i + 2 * stride] = -1;
    for (int stage = 0; stage < 3; stage++) {
        copy_async(to + stage * stride, in + threadIdx.x * 4 + stage * stride);
        copy_async_commit();
    }
    if (n_left == 2)
        copy_async_wait<2>();
    if (n_left == 1)
        copy_async_wait<1>();
    for (int stage = 0; stage < 3; stage++)
        for (int i = 0; i < 4; i++)
            out[threadIdx.x * 4 + stage * stride + i] = to[stage * stride + i];
    copy_async_wait<0>();
}

static void copies_land_at_their_wait() {
    enum { N = 3 * 4 * 32 };
    int *in = device_array<int>(N), *out = device_array<int>(N);
    for (int i = 0; i < N; i++)
        in[i] = i;
    for (int n_left = 3; n_left > 0; n_left--) {
        run(copy_stages, 1, 32, N * sizeof(int), (const int *)in, out, n_left);
        for (int i = 0; i < N; i++)
            CHECK_IS(i / 128 < 3 - n_left ? i : -1, out[i]);
    }
}

static __global__ void copy_once(const char *in, bool waits, int shift) {
    SHARED_MEMORY(memory);
    copy_async(memory + shift, in);
    copy_async_commit();
    if (waits)
        copy_async_wait<0>();
}

static void a_copy_nobody_waits_for() {
    run(copy_once, 1, 1, 32, (const char *)device_array<char>(16), false, 0);
}

static void a_copy_to_an_odd_place() {
    run(copy_once, 1, 1, 32, (const char *)device_array<char>(16), true, 8);
}

static void a_copy_past_shared_memory() {
    run(copy_once, 1, 1, 24, (const char *)device_array<char>(16), true, 16);
}

static void a_copy_past_the_end() {
    run(copy_once, 1, 1, 32, (const char *)device_array<char>(24) + 16, true, 0);
}

/* ---- tensor cores ------------------------------------------------------------------- */

/* c[16,8] = a[16,16] b: the canonical way, as kernels do it. b is [16,8], or, is_nk,
 * [8,16]; the first needs its matrices transposed on their way. */
static __global__ void multiply_mma(const __half *a, const __half *b, bool is_nk,
                                    float *c) {
    SHARED_MEMORY(memory);
    __half *sa = (__half *)memory, *sb = sa + 16 * 16;
    int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += 32)
        sa[i] = a[i];
    for (int i = lane; i < 128; i += 32)
        sb[i] = b[i];
    __syncwarp();
    uint32_t af[4], bf[4];
    ldmatrix_x4(af, sa + lane % 16 * 16 + lane / 16 * 8);
    if (is_nk)
        ldmatrix_x4(bf, sb + lane % 8 * 16 + lane / 8 % 2 * 8);
    else
        ldmatrix_x4_transposed(bf, sb + lane % 16 * 8);
    float d[4] = {0, 0, 0, 0};
    mma_m16n8k16(d, af, bf[0], bf[1]);
    c[g * 8 + 2 * t] = d[0];
    c[g * 8 + 2 * t + 1] = d[1];
    c[(g + 8) * 8 + 2 * t] = d[2];
    c[(g + 8) * 8 + 2 * t + 1] = d[3];
}

static void check_mma(bool is_nk) {
    __half *a = device_array<__half>(256), *b = device_array<__half>(128);
    float *c = device_array<float>(128);
    for (int i = 0; i < 256; i++)
        a[i] = __half(random_float());
    for (int i = 0; i < 128; i++)
        b[i] = __half(random_float());
    run(multiply_mma, 1, 32, 768, (const __half *)a, (const __half *)b, is_nk, c);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double sum = 0;
            for (int k = 0; k < 16; k++)
                sum += (double)(float)a[i * 16 + k] *
                       (double)(float)b[is_nk ? j * 16 + k : k * 8 + j];
            CHECK(fabs((double)c[i * 8 + j] - sum) < 1e-5);
        }
}

static void mma_multiplies() {
    check_mma(true);
    check_mma(false);
}

static void mma_traps_before_sm_80() {
    emulation_set_capability(75);
    check_mma(true);
}

static __global__ void ldmatrix_at(int shift) {
    SHARED_MEMORY(memory);
    uint32_t r[4];
    ldmatrix_x4(r, memory + threadIdx.x * 16 + shift);
}

static void ldmatrix_at_an_odd_place() {
    run(ldmatrix_at, 1, 32, 1024, 8);
}

static void ldmatrix_past_shared_memory() {
    run(ldmatrix_at, 1, 32, 512, 16);
}

template <typename LayoutA, typename LayoutB, typename Sum>
static __global__ void multiply_wmma(const __half *a, const __half *b, Sum *c,
                                     wmma::layout_t layout) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, LayoutA> af;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, LayoutB> bf;
    wmma::fragment<wmma::accumulator, 16, 16, 16, Sum> sums;
    wmma::load_matrix_sync(af, a, 24);
    wmma::load_matrix_sync(bf, b, 16);
    wmma::load_matrix_sync(sums, c, 16, layout);
    for (int i = 0; i < af.num_elements; i++)
        af.x[i] = af.x[i] * __half(2.0f);
    wmma::mma_sync(sums, af, bf, sums);
    wmma::store_matrix_sync(c, sums, 16, layout);
}

template <typename LayoutA, typename LayoutB, typename Sum>
static void check_wmma(wmma::layout_t layout, double tolerance) {
    bool a_rows = std::is_same<LayoutA, wmma::row_major>::value;
    bool b_rows = std::is_same<LayoutB, wmma::row_major>::value;
    bool c_rows = layout == wmma::mem_row_major;
    __half *a = device_array<__half>(24 * 16), *b = device_array<__half>(256);
    Sum *c = device_array<Sum>(256);
    double before[256];
    for (int i = 0; i < 24 * 16; i++)
        a[i] = __half(random_float());
    for (int i = 0; i < 256; i++) {
        b[i] = __half(random_float());
        c[i] = Sum(random_float());
        before[i] = (double)(float)c[i];
    }
    run(multiply_wmma<LayoutA, LayoutB, Sum>, 1, 32, 0, (const __half *)a,
        (const __half *)b, c, layout);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) {
            int at = c_rows ? i * 16 + j : j * 16 + i;
            double sum = before[at];
            for (int k = 0; k < 16; k++)
                sum += 2.0 * (double)(float)a[a_rows ? i * 24 + k : k * 24 + i] *
                       (double)(float)b[b_rows ? k * 16 + j : j * 16 + k];
            CHECK(fabs((double)(float)c[at] - sum) < tolerance);
        }
}

static void wmma_multiplies() {
    check_wmma<wmma::row_major, wmma::col_major, float>(wmma::mem_row_major, 1e-5);
    check_wmma<wmma::row_major, wmma::row_major, float>(wmma::mem_col_major, 1e-5);
    check_wmma<wmma::col_major, wmma::col_major, float>(wmma::mem_row_major, 1e-5);
    check_wmma<wmma::col_major, wmma::row_major, __half>(wmma::mem_row_major, 2e-2);
}

static __global__ void wmma_load(const __half *a, int lane_shift, unsigned ldm) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> af;
    wmma::load_matrix_sync(af, a + (int)threadIdx.x * lane_shift, ldm);
}

static void wmma_at_an_odd_place() {
    run(wmma_load, 1, 32, 0, (const __half *)device_array<__half>(512) + 8, 0, 16u);
}

static void wmma_with_an_odd_stride() {
    run(wmma_load, 1, 32, 0, (const __half *)device_array<__half>(512), 0, 20u);
}

static void wmma_of_a_different_matrix_in_each_lane() {
    run(wmma_load, 1, 32, 0, (const __half *)device_array<__half>(1024), 16, 16u);
}

static __global__ void wmma_by_half(const __half *a) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> af;
    if (threadIdx.x < 16)
        wmma::load_matrix_sync(af, a, 16);
}

static void wmma_by_half_a_warp() {
    run(wmma_by_half, 1, 32, 0, (const __half *)device_array<__half>(512));
}

/* ---- */

static const struct test tests[] = {
    TEST(halves_to_floats),
    TEST(floats_to_halves),
    TEST(every_thread_runs_once),
    TEST(threads_keep_the_order),
    TEST(barriers_hold),
    TEST(a_missing_barrier_shows),
    DIES(divergent_barriers_show, "divergent barrier: 40 of 64 threads"),
    TEST(ended_threads_count_at_barriers),
    DIES(a_barrier_against_a_warp_is_a_deadlock, "deadlock, divergent threads"),
    DIES(one_byte_past_the_end, has_asan ? "AddressSanitizer" : "past the end"),
    DIES(one_byte_before_the_begin, "AddressSanitizer"),
    DIES(one_byte_past_shared_memory, has_asan ? "AddressSanitizer" : "past the end"),
    TEST(new_memory_is_rubbish),
    DIES(a_host_pointer_as_argument, "not memory of this device"),
    DIES(a_freed_pointer_in_a_struct, "not memory of this device"),
    TEST(shuffles_move_values),
    TEST(masks_may_part_a_warp),
    DIES(a_lane_left_before, "lanes 0x00000001 have ended"),
    DIES(a_lane_leaves_later, "lane 31 ends, but others of its warp wait"),
    DIES(lanes_come_from_two_lines, "divergent warp"),
    DIES(a_shuffle_reads_outside_its_mask, "lane 0 reads lane 20"),
    DIES(a_mask_names_lanes_that_are_not, "the warp has lanes 0x0000ffff only"),
    TEST(copies_land_at_their_wait),
    DIES(a_copy_nobody_waits_for, "copies never waited for"),
    DIES(a_copy_to_an_odd_place, "not 16-byte aligned"),
    DIES(a_copy_past_shared_memory, "outside the block's shared memory"),
    DIES(a_copy_past_the_end, "are not the device's"),
    TEST(mma_multiplies),
    DIES(mma_traps_before_sm_80, "ldmatrix on a device of sm_75"),
    DIES(ldmatrix_at_an_odd_place, "not 16-byte aligned"),
    DIES(ldmatrix_past_shared_memory, "outside the block's shared memory"),
    TEST(wmma_multiplies),
    DIES(wmma_at_an_odd_place, "not 32-byte aligned"),
    DIES(wmma_with_an_odd_stride, "ldm 20 is no multiple of 8"),
    DIES(wmma_of_a_different_matrix_in_each_lane, "different matrices"),
    DIES(wmma_by_half_a_warp, "ends, but others of its warp wait"),
};

int main(int argc, char **argv) {
    return harness_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
