/* SPDX-License-Identifier: Apache-2.0
 *
 * internal.h - what the parts of the emulation know of each other.
 *
 * One mutex is over all: every call of CUDA's interface takes it (struct api_call), and
 * kernels run under it, on the thread that launched them or that waits for them. So what
 * is here needs no locks, and says "locked" nowhere.
 */
#ifndef VIGIL_EMULATION_INTERNAL_H
#define VIGIL_EMULATION_INTERNAL_H

#include <stdint.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/cuda/emulation/cuda_runtime_api.h"
#include "tests/cuda/emulation/emulation.h"

enum { EMULATION_MAX_DEVICES = 8 };

/* ---- failures: fail.cc -------------------------------------------------------------- */

/* One line to stderr, with the kernel, block and thread that run; then abort. */
[[noreturn]] void emulation_fail(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
/* One line to stderr. */
void emulation_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A function's name, demangled, from its object's symbols; or its address. */
void emulation_symbol(const void *function, char *name, size_t name_bytes);
/* launch.cc: where the running thread is; empty where none runs. */
void emulation_where(char *text, size_t text_bytes);

/* ---- memory: memory.cc -------------------------------------------------------------- */

struct allocation {
    char *begin;
    size_t n_bytes;
    int device; /* -1: pinned memory of the host */
};

/* Exactly n bytes with red zones behind and before them, filled with 0xCD. */
void *guarded_alloc(size_t n_bytes, size_t alignment);
/* false: somebody wrote behind the end. AddressSanitizer says so itself. */
bool guarded_is_whole(const void *memory, size_t n_bytes);
void guarded_free(void *memory, size_t n_bytes);
/* The allocation that address lies in, or NULL. */
const struct allocation *allocation_find(const void *address);
/* n bytes from address on lie in one allocation of the device. */
bool is_on_device(const void *address, size_t n_bytes, int device);
/* While one exists device memory can be touched: work runs. VIGIL_EMULATION_PROTECT. */
struct memory_access {
    memory_access();
    ~memory_access();
};
void memory_print();
size_t memory_n_allocations();

/* ---- faults: faults.cc -------------------------------------------------------------- */

enum fault_call {
    FAULT_LAUNCH,
    FAULT_MALLOC,
    FAULT_HOSTALLOC,
    FAULT_MEMCPY,
    FAULT_SYNC,
    FAULT_MATMUL,
    FAULT_EVENT,
    FAULT_HANG,
    FAULT_NAN,
    FAULT_FLIP,
    FAULT_CALL, /* any call of the runtime that may fail */
    FAULT_BLAS, /* any of cublasLt's */
    N_FAULT_CALLS,
    FAULT_NONE = N_FAULT_CALLS
};

/* Counts one such call on the device; 0, or the code it is to fail with. Of FAULT_HANG,
 * FAULT_NAN and FAULT_FLIP: 1 from the one they begin with. */
int fault_count(enum fault_call call, int device, bool *is_sticky);

/* ---- devices: runtime.cc ------------------------------------------------------------ */

struct device {
    cudaError_t error; /* came about asynchronously */
    bool is_sticky;
    bool is_dead; /* sticky, and reported */
    size_t n_bytes_allocated;
};

struct settings {
    int n_devices;
    int capability; /* 80 */
    size_t memory_bytes;
    bool is_lazy;
    bool is_protected;
    int has_no_algorithms; /* 1: the heuristic finds none, 2: and says so */
    enum emulation_order order;
    uint64_t seed;
};
struct settings *emulation_settings();
struct device *emulation_device(int device);
int current_device();                /* the calling thread's */
size_t emulation_max_shared_bytes(); /* that a kernel can ask for */
extern std::mutex emulation_mutex;
extern uint64_t emulation_launches, emulation_matmuls; /* executed */

enum api_flags {
    API_PLAIN = 0,
    API_UNSAFE = 1, /* not while a stream is being captured */
    API_ALWAYS = 2  /* cannot be made to fail: frees */
};

/* A call of the runtime: holds the mutex; error is what stands in its way. */
struct api_call {
    std::unique_lock<std::mutex> lock;
    int device; /* the calling thread's */
    cudaError_t error;

    api_call(unsigned flags, enum fault_call call = FAULT_NONE);
    /* Remembers an error for cudaGetLastError. */
    cudaError_t result(cudaError_t code);
};
/* What a synchronisation reports; clears what is not sticky. */
cudaError_t device_take_error(int device);

/* ---- streams, graphs: stream.cc, graph.cc ------------------------------------------- */

enum work_kind {
    WORK_KERNEL,
    WORK_MATMUL,
    WORK_COPY,
    WORK_SET,
    WORK_GRAPH,
    WORK_RECORD,
    WORK_WAIT
};

struct work {
    enum work_kind kind;
    std::function<void(int device)> run;
};
typedef std::vector<std::shared_ptr<const struct work>> work_list;

struct stream_state;

/* A capture under way. */
struct capture {
    enum cudaStreamCaptureMode mode;
    std::thread::id thread;
    struct stream_state *origin;
    std::vector<std::shared_ptr<struct stream_state>> streams; /* origin, and forked */
    bool is_valid;
    work_list nodes;
};

struct stream_state {
    int device;
    bool is_default, is_blocking;
    std::deque<std::shared_ptr<const struct work>> queue;
    uint64_t n_queued, n_done;
    std::shared_ptr<struct capture> capture; /* while it is captured into */
    bool is_unjoined; /* in a capture that another stream began */
    uint64_t n_captured;
};

/* NULL where the handle is none of this device's, or none at all. */
std::shared_ptr<struct stream_state> stream_find(cudaStream_t stream, int device);
/* To the stream's queue, or to the graph that it is captured into. */
cudaError_t stream_add(cudaStream_t stream, int device, enum work_kind kind,
                       std::function<void(int)> run);
void stream_drain(struct stream_state *stream, uint64_t until);
void device_drain(int device, bool blocking_only);
size_t stream_n_handles();
size_t graph_n_handles();
size_t blas_n_handles();

/* cudaErrorStreamCaptureUnsupported, where a capture forbids this thread what is not safe
 * during one; the capture is then invalid. */
cudaError_t capture_forbids();
void capture_invalidate(struct capture *capture);
void capture_end(struct capture *capture);
void capture_add(struct stream_state *stream, std::shared_ptr<const struct work> work);
/* Runs one node or launch, unless the device has failed or fails now. */
void work_run(const struct work *work, int device);

/* ---- launches: launch.cc ------------------------------------------------------------ */

struct launch {
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    std::vector<const void *> pointers; /* among its arguments */
    std::function<void()> body;
};
void launch_run(const struct launch *launch, int device);
/* The shared memory of the block that runs. */
bool is_in_shared_memory(const void *address, size_t n_bytes);

#endif
