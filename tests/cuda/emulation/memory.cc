/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.cc - memory of exactly the size asked for, and the table of what is allocated.
 *
 * Behind the last byte lies a red zone of at least RED_BYTES: poisoned under
 * AddressSanitizer, so that one byte past the end is reported where it happens; else a
 * pattern, which is looked at when the memory is freed. New memory is 0xCD throughout: as
 * halves -24, as floats -4e8, as integers large and negative.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>

#include "tests/cuda/emulation/internal.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

enum { RED_BYTES = 256, RED = 0xa5, FILL = 0xcd, DEVICE_ALIGNMENT = 256 };

/* ---- red zones ---------------------------------------------------------------------- */

void *guarded_alloc(size_t n_bytes, size_t alignment) {
    size_t room = (n_bytes + RED_BYTES + alignment - 1) / alignment * alignment;
    char *memory = (char *)aligned_alloc(alignment, room);
    if (!memory)
        return nullptr;
    memset(memory, FILL, n_bytes);
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(memory + n_bytes, room - n_bytes);
#else
    memset(memory + n_bytes, RED, RED_BYTES);
#endif
    return memory;
}

bool guarded_is_whole(const void *memory, size_t n_bytes) {
#ifndef __SANITIZE_ADDRESS__
    const unsigned char *red = (const unsigned char *)memory + n_bytes;
    for (int i = 0; i < RED_BYTES; i++)
        if (red[i] != RED)
            return false;
#else
    (void)memory;
    (void)n_bytes;
#endif
    return true;
}

void guarded_free(void *memory, size_t n_bytes) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region((char *)memory + n_bytes, RED_BYTES);
#else
    (void)n_bytes;
#endif
    free(memory);
}

/* ---- the table ---------------------------------------------------------------------- */

static std::map<const char *, struct allocation> allocations;
static const struct allocation *last_found; /* most look-ups hit the same again */

static bool contains(const struct allocation *a, const void *address) {
    return (const char *)address >= a->begin &&
           (size_t)((const char *)address - a->begin) < a->n_bytes;
}

const struct allocation *allocation_find(const void *address) {
    if (last_found && contains(last_found, address))
        return last_found;
    auto next = allocations.upper_bound((const char *)address);
    if (next == allocations.begin())
        return nullptr;
    const struct allocation *a = &std::prev(next)->second;
    if (!contains(a, address))
        return nullptr;
    return last_found = a;
}

bool is_on_device(const void *address, size_t n_bytes, int device) {
    const struct allocation *a = allocation_find(address);
    return a && a->device == device &&
           n_bytes <= a->n_bytes - (size_t)((const char *)address - a->begin);
}

/* The device's memory, for the host: poisoned unless work runs. */
static int n_accesses;

static void set_reachable(const struct allocation *a, bool is_reachable) {
#ifdef __SANITIZE_ADDRESS__
    if (a->device < 0 || !emulation_settings()->is_protected)
        return;
    if (is_reachable)
        __asan_unpoison_memory_region(a->begin, a->n_bytes);
    else
        __asan_poison_memory_region(a->begin, a->n_bytes);
#else
    (void)a;
    (void)is_reachable;
#endif
}

memory_access::memory_access() {
    if (n_accesses++ == 0)
        for (const auto &entry : allocations)
            set_reachable(&entry.second, true);
}

memory_access::~memory_access() {
    if (--n_accesses == 0)
        for (const auto &entry : allocations)
            set_reachable(&entry.second, false);
}

static void *allocate(size_t n_bytes, int device) {
    char *memory = (char *)guarded_alloc(n_bytes, DEVICE_ALIGNMENT);
    if (!memory)
        return nullptr;
    allocations[memory] = {memory, n_bytes, device};
    set_reachable(&allocations[memory], n_accesses > 0);
    return memory;
}

/* false: address is not the begin of an allocation of that kind. */
static bool release(void *address, bool is_pinned) {
    auto found = allocations.find((const char *)address);
    if (found == allocations.end() || (found->second.device < 0) != is_pinned)
        return false;
    struct allocation a = found->second;
    if (!guarded_is_whole(a.begin, a.n_bytes))
        emulation_fail("something wrote past the end of the %zu bytes at %p", a.n_bytes,
                       (void *)a.begin);
    if (!is_pinned)
        emulation_device(a.device)->n_bytes_allocated -= a.n_bytes;
    set_reachable(&a, true);
    last_found = nullptr;
    allocations.erase(found);
    guarded_free(a.begin, a.n_bytes);
    return true;
}

size_t memory_n_allocations() {
    return allocations.size();
}

size_t emulation_n_allocations(void) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    return allocations.size();
}

size_t emulation_bytes_allocated(void) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    size_t n_bytes = 0;
    for (const auto &entry : allocations)
        n_bytes += entry.second.n_bytes;
    return n_bytes;
}

void memory_print() {
    for (const auto &entry : allocations)
        emulation_warn("left: %zu bytes at %p, %s", entry.second.n_bytes,
                       (void *)entry.second.begin,
                       entry.second.device < 0 ? "pinned" : "on a device");
}

/* ---- CUDA's calls ------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **pointer, size_t size) {
    struct api_call call(API_UNSAFE, FAULT_MALLOC);
    if (call.error)
        return call.error;
    if (!pointer)
        return call.result(cudaErrorInvalidValue);
    *pointer = nullptr;
    if (size == 0)
        return cudaSuccess;
    struct device *device = emulation_device(call.device);
    size_t left = emulation_settings()->memory_bytes - device->n_bytes_allocated;
    if (size > left || !(*pointer = allocate(size, call.device)))
        return call.result(cudaErrorMemoryAllocation);
    device->n_bytes_allocated += size;
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    struct api_call call(API_UNSAFE | API_ALWAYS);
    if (call.error == cudaErrorStreamCaptureUnsupported)
        return call.error;
    if (!pointer)
        return call.error;
    device_drain(call.device, false);
    if (!release(pointer, false)) {
        emulation_warn("cudaFree of %p, which is no device memory", pointer);
        return call.result(cudaErrorInvalidValue);
    }
    return call.error;
}

cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned int flags) {
    (void)flags;
    struct api_call call(API_UNSAFE, FAULT_HOSTALLOC);
    if (call.error)
        return call.error;
    if (!pointer)
        return call.result(cudaErrorInvalidValue);
    *pointer = nullptr;
    if (size && !(*pointer = allocate(size, -1)))
        return call.result(cudaErrorMemoryAllocation);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **pointer, size_t size) {
    return cudaHostAlloc(pointer, size, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *pointer) {
    struct api_call call(API_UNSAFE | API_ALWAYS);
    if (call.error == cudaErrorStreamCaptureUnsupported)
        return call.error;
    if (!pointer)
        return call.error;
    device_drain(call.device, false);
    if (!release(pointer, true)) {
        emulation_warn("cudaFreeHost of %p, which is no pinned memory", pointer);
        return call.result(cudaErrorInvalidValue);
    }
    return call.error;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    size_t total = emulation_settings()->memory_bytes;
    *free_bytes = total - emulation_device(call.device)->n_bytes_allocated;
    *total_bytes = total;
    return cudaSuccess;
}

/* ---- copies ------------------------------------------------------------------------- */

/* What is wrong with a copy, or NULL. */
static const char *copy_fault(const void *to, const void *from, size_t n_bytes,
                              enum cudaMemcpyKind kind, int device) {
    const struct allocation *t = allocation_find(to), *f = allocation_find(from);
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device =
        kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault) {
        to_device = t && t->device >= 0;
        from_device = f && f->device >= 0;
    }
    if (to_device && !is_on_device(to, n_bytes, device))
        return "the target is not that much memory of this device";
    if (from_device && !is_on_device(from, n_bytes, device))
        return "the source is not that much memory of this device";
    if (!to_device && t && !is_on_device(to, n_bytes, -1))
        return "the target is not that much memory of the host";
    if (!from_device && f && !is_on_device(from, n_bytes, -1))
        return "the source is not that much memory of the host";
    return nullptr;
}

static cudaError_t copy_check(struct api_call *call, const void *to, const void *from,
                              size_t n_bytes, enum cudaMemcpyKind kind) {
    if (!to || !from || (unsigned)kind > cudaMemcpyDefault)
        return call->result(cudaErrorInvalidValue);
    const char *fault = copy_fault(to, from, n_bytes, kind, call->device);
    if (!fault)
        return cudaSuccess;
    emulation_warn("a copy of %zu bytes from %p to %p: %s", n_bytes, from, to, fault);
    return call->result(cudaErrorInvalidValue);
}

static void copy_now(void *to, const void *from, size_t n_bytes,
                     enum cudaMemcpyKind kind, int device) {
    const char *fault = copy_fault(to, from, n_bytes, kind, device);
    if (fault)
        emulation_fail("a copy of %zu bytes from %p to %p comes to run, but by now %s",
                       n_bytes, from, to, fault);
    struct memory_access access;
    memmove(to, from, n_bytes);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t count,
                       enum cudaMemcpyKind kind) {
    struct api_call call(API_UNSAFE, FAULT_MEMCPY);
    if (call.error || count == 0)
        return call.error;
    cudaError_t error = copy_check(&call, to, from, count, kind);
    if (error)
        return error;
    device_drain(call.device, true);
    error = device_take_error(call.device);
    if (!error)
        copy_now(to, from, count, kind, call.device);
    return call.result(error);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t count,
                            enum cudaMemcpyKind kind, cudaStream_t stream) {
    struct api_call call(API_PLAIN, FAULT_MEMCPY);
    if (call.error || count == 0)
        return call.error;
    cudaError_t error = copy_check(&call, to, from, count, kind);
    if (error)
        return error;
    return call.result(stream_add(stream, call.device, WORK_COPY, [=](int device) {
        copy_now(to, from, count, kind, device);
    }));
}

static void set_now(void *to, int value, size_t n_bytes, int device) {
    if (!is_on_device(to, n_bytes, device))
        emulation_fail("a memset of %zu bytes at %p comes to run, but by now that is "
                       "not memory of this device",
                       n_bytes, to);
    memset(to, value, n_bytes);
}

cudaError_t cudaMemset(void *to, int value, size_t count) {
    return cudaMemsetAsync(to, value, count, nullptr);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t count, cudaStream_t stream) {
    struct api_call call(API_PLAIN, FAULT_MEMCPY);
    if (call.error || count == 0)
        return call.error;
    if (!is_on_device(to, count, call.device)) {
        emulation_warn("a memset of %zu bytes at %p: not that much memory of this "
                       "device",
                       count, to);
        return call.result(cudaErrorInvalidValue);
    }
    return call.result(stream_add(stream, call.device, WORK_SET, [=](int device) {
        set_now(to, value, count, device);
    }));
}
