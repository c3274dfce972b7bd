/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime.cc - devices, settings, errors, and what every call goes through.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/emulation/internal.h"

std::mutex emulation_mutex;
uint64_t emulation_launches, emulation_matmuls;

static struct settings settings;
static struct device devices[EMULATION_MAX_DEVICES];
static thread_local int this_device;
static thread_local cudaError_t last_error;

/* ---- settings ----------------------------------------------------------------------- */

static long long from_environment(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoll(text, nullptr, 10) : otherwise;
}

static void read_order(const char *text) {
    settings.order = EMULATION_FORWARD;
    if (!text || !*text || strcmp(text, "forward") == 0)
        return;
    if (strcmp(text, "reverse") == 0)
        settings.order = EMULATION_REVERSE;
    else if (strncmp(text, "random:", 7) == 0) {
        settings.order = EMULATION_RANDOM;
        settings.seed = strtoull(text + 7, nullptr, 10);
    } else
        emulation_fail("VIGIL_EMULATION_ORDER=%s: forward, reverse or random:SEED",
                       text);
}

struct settings *emulation_settings() {
    static bool is_read;
    if (is_read)
        return &settings;
    is_read = true;
    settings.n_devices = (int)from_environment("VIGIL_EMULATION_DEVICES", 1);
    settings.capability = (int)from_environment("VIGIL_EMULATION_CAPABILITY", 80);
    settings.memory_bytes =
        (size_t)from_environment("VIGIL_EMULATION_MEMORY", 2ll << 30);
    settings.is_lazy = from_environment("VIGIL_EMULATION_LAZY", 0) != 0;
    settings.is_protected = from_environment("VIGIL_EMULATION_PROTECT", 0) != 0;
    settings.has_no_algorithms =
        (int)from_environment("VIGIL_EMULATION_NO_ALGORITHMS", 0);
    read_order(getenv("VIGIL_EMULATION_ORDER"));
    if (settings.n_devices < 0 || settings.n_devices > EMULATION_MAX_DEVICES)
        emulation_fail("VIGIL_EMULATION_DEVICES=%d: 0 to %d", settings.n_devices,
                       EMULATION_MAX_DEVICES);
    if (settings.capability < 70 || settings.capability > 90)
        emulation_fail("VIGIL_EMULATION_CAPABILITY=%d: 70 to 90", settings.capability);
    return &settings;
}

void emulation_set_order(enum emulation_order order, uint64_t seed) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    emulation_settings()->order = order;
    emulation_settings()->seed = seed;
}

void emulation_set_lazy(int is_lazy) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    for (int i = 0; i < emulation_settings()->n_devices; i++)
        device_drain(i, false);
    emulation_settings()->is_lazy = is_lazy != 0;
}

void emulation_set_capability(int capability) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    emulation_settings()->capability = capability;
}

/* ---- errors ------------------------------------------------------------------------- */

static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError",
     "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable",
     "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction",
     "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable",
     "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle",
     "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout",
     "the launch timed out and was terminated"},
    {cudaErrorIllegalInstruction, "cudaErrorIllegalInstruction",
     "an illegal instruction was encountered"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorName(cudaError_t error) {
    for (const auto &e : errors)
        if (e.code == error)
            return e.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
    for (const auto &e : errors)
        if (e.code == error)
            return e.text;
    return "unrecognized error code";
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    std::lock_guard<std::mutex> guard(emulation_mutex);
    struct device *d = &devices[this_device];
    return d->is_dead ? d->error : error;
}

cudaError_t cudaPeekAtLastError(void) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    struct device *d = &devices[this_device];
    return d->is_dead ? d->error : last_error;
}

cudaError_t device_take_error(int device) {
    struct device *d = &devices[device];
    cudaError_t error = d->error;
    if (d->is_sticky)
        d->is_dead = true;
    else
        d->error = cudaSuccess;
    return error;
}

int current_device() {
    return this_device;
}

struct device *emulation_device(int device) {
    return &devices[device];
}

/* ---- calls -------------------------------------------------------------------------- */

api_call::api_call(unsigned flags, enum fault_call call)
    : lock(emulation_mutex), device(this_device), error(cudaSuccess) {
    if (emulation_settings()->n_devices == 0) {
        result(cudaErrorNoDevice);
        return;
    }
    if (flags & API_UNSAFE && result(capture_forbids()))
        return;
    struct device *d = &devices[device];
    if (d->is_dead && result(d->error))
        return;
    if (flags & API_ALWAYS)
        return;
    bool is_sticky = false;
    int code = fault_count(FAULT_CALL, device, &is_sticky);
    if (!code && call != FAULT_NONE)
        code = fault_count(call, device, &is_sticky);
    if (!code)
        return;
    if (is_sticky) {
        d->error = (cudaError_t)code;
        d->is_sticky = d->is_dead = true;
    }
    result((cudaError_t)code);
}

cudaError_t api_call::result(cudaError_t code) {
    error = code;
    if (code != cudaSuccess && code != cudaErrorNotReady)
        last_error = code;
    return code;
}

void emulation_reset(void) {
    emulation_fault(nullptr);
    std::lock_guard<std::mutex> guard(emulation_mutex);
    for (struct device &d : devices) {
        d.error = cudaSuccess;
        d.is_sticky = d.is_dead = false;
    }
    emulation_launches = emulation_matmuls = 0;
    last_error = cudaSuccess;
}

uint64_t emulation_n_launches(void) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    return emulation_launches;
}

uint64_t emulation_n_matmuls(void) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    return emulation_matmuls;
}

size_t emulation_n_handles(void) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    return stream_n_handles() + graph_n_handles() + blas_n_handles();
}

int emulation_is_clean(void) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    memory_print();
    if (stream_n_handles())
        emulation_warn("left: %zu streams and events", stream_n_handles());
    if (graph_n_handles())
        emulation_warn("left: %zu graphs", graph_n_handles());
    if (blas_n_handles())
        emulation_warn("left: %zu objects of cublasLt", blas_n_handles());
    return memory_n_allocations() + stream_n_handles() + graph_n_handles() +
               blas_n_handles() ==
           0;
}

/* ---- devices ------------------------------------------------------------------------ */

struct model {
    int capability;
    int n_multiprocessors, max_threads;
    size_t shared_bytes,
        shared_bytes_all; /* of a block that asks, of a multiprocessor */
    int l2_bytes;
};

/* The data centre's device of each capability. */
static const struct model *device_model() {
    static const struct model models[] = {
        {90, 132, 2048, 232448, 233472, 50 << 20},
        {89, 58, 1536, 101376, 102400, 48 << 20},
        {86, 84, 1536, 101376, 102400, 6 << 20},
        {80, 108, 2048, 166912, 167936, 40 << 20},
        {75, 40, 1024, 65536, 65536, 4 << 20},
        {0, 80, 2048, 98304, 98304, 6 << 20},
    };
    const struct model *m = models;
    while (emulation_settings()->capability < m->capability)
        m++;
    return m;
}

size_t emulation_max_shared_bytes() {
    return device_model()->shared_bytes;
}

static cudaError_t check_device(struct api_call *call, int device) {
    if (device < 0 || device >= emulation_settings()->n_devices)
        return call->result(cudaErrorInvalidDevice);
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

/* 0, as CUDA has it, where there is no driver. */
cudaError_t cudaDriverGetVersion(int *version) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    *version = emulation_settings()->n_devices ? CUDART_VERSION : 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    struct api_call call(API_ALWAYS);
    *count = emulation_settings()->n_devices;
    return *count ? cudaSuccess : call.result(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *device) {
    struct api_call call(API_ALWAYS);
    *device = this_device;
    return call.error;
}

cudaError_t cudaSetDevice(int device) {
    struct api_call call(API_ALWAYS);
    if (call.error == cudaErrorNoDevice)
        return call.error;
    cudaError_t error = check_device(&call, device);
    if (error)
        return error;
    this_device = device;
    return devices[device].is_dead ? call.result(devices[device].error) : cudaSuccess;
}

cudaError_t cudaInitDevice(int device, unsigned int device_flags, unsigned int flags) {
    struct api_call call(API_PLAIN);
    (void)device_flags;
    (void)flags;
    return call.error ? call.error : check_device(&call, device);
}

cudaError_t cudaSetDeviceFlags(unsigned int flags) {
    struct api_call call(API_PLAIN);
    (void)flags;
    return call.error;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device) {
    struct api_call call(API_PLAIN);
    const struct model *m = device_model();
    if (call.error || check_device(&call, device))
        return call.error;
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 << 10;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
        *value = 1000000;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = m->n_multiprocessors;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 5120;
        break;
    case cudaDevAttrL2CacheSize:
        *value = m->l2_bytes;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = m->max_threads;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = emulation_settings()->capability / 10;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = emulation_settings()->capability % 10;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)m->shared_bytes_all;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)m->shared_bytes;
        break;
    default:
        return call.result(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device) {
    struct api_call call(API_PLAIN);
    const struct model *m = device_model();
    if (call.error || check_device(&call, device))
        return call.error;
    memset(prop, 0, sizeof *prop);
    int capability = emulation_settings()->capability;
    snprintf(prop->name, sizeof prop->name, "Emulated sm_%d", capability);
    prop->totalGlobalMem = emulation_settings()->memory_bytes;
    prop->sharedMemPerBlock = 48 << 10;
    prop->sharedMemPerBlockOptin = m->shared_bytes;
    prop->sharedMemPerMultiprocessor = m->shared_bytes_all;
    prop->regsPerBlock = 65536;
    prop->warpSize = 32;
    prop->maxThreadsPerBlock = 1024;
    prop->maxThreadsPerMultiProcessor = m->max_threads;
    prop->maxThreadsDim[0] = prop->maxThreadsDim[1] = 1024;
    prop->maxThreadsDim[2] = 64;
    prop->maxGridSize[0] = 0x7fffffff;
    prop->maxGridSize[1] = prop->maxGridSize[2] = 65535;
    prop->major = capability / 10;
    prop->minor = capability % 10;
    prop->multiProcessorCount = m->n_multiprocessors;
    prop->pciBusID = device;
    prop->asyncEngineCount = 3;
    prop->unifiedAddressing = 1;
    prop->memoryBusWidth = 5120;
    prop->l2CacheSize = m->l2_bytes;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int len, int device) {
    struct api_call call(API_PLAIN);
    if (call.error || check_device(&call, device))
        return call.error;
    snprintf(id, (size_t)len, "0000:%02x:00.0", device);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    struct api_call call(API_UNSAFE, FAULT_SYNC);
    if (call.error)
        return call.error;
    device_drain(call.device, false);
    return call.result(device_take_error(call.device));
}
