/* SPDX-License-Identifier: Apache-2.0
 *
 * launch.cc - what a launch may ask for, and its blocks, one after another.
 */
#include <string.h>

#include <map>
#include <utility>

#include "tests/cuda/emulation/block.h"

enum {
    PLAIN_SHARED_BYTES = 48 << 10, /* without asking for more */
    MAX_GRID_YZ = 65535
};

/* Dynamic shared memory that each kernel was promised, by device and function. */
static std::map<std::pair<int, const void *>, int> max_shared_bytes;

/* ---- running ------------------------------------------------------------------------ */

bool is_in_shared_memory(const void *address, size_t n_bytes) {
    uintptr_t begin = (uintptr_t)block.shared, at = (uintptr_t)address;
    return at >= begin && at + n_bytes <= begin + block.launch->shared_bytes;
}

/* Pointers that a kernel gets are into the memory of its device, to the end of it, or to
 * pinned memory. */
static void check_pointers(const struct launch *launch, int device) {
    for (const void *pointer : launch->pointers) {
        const struct allocation *a = pointer ? allocation_find(pointer) : nullptr;
        if (!a && pointer)
            a = allocation_find((const char *)pointer - 1);
        if (pointer && (!a || (a->device >= 0 && a->device != device)))
            emulation_fail(
                "an argument, or a member of one, is %p, which is not memory "
                "of this device, or no more",
                pointer);
    }
}

static dim3 block_index(const struct launch *launch, uint64_t i) {
    uint64_t x = launch->grid.x, y = launch->grid.y;
    return dim3((unsigned)(i % x), (unsigned)(i / x % y), (unsigned)(i / x / y));
}

void launch_run(const struct launch *launch, int device) {
    const struct settings *settings = emulation_settings();
    uint64_t n_blocks =
        (uint64_t)launch->grid.x * launch->grid.y * (uint64_t)launch->grid.z;
    block.launch = launch;
    block.device = device;
    block.number = ++emulation_launches;
    gridDim = launch->grid;
    blockDim = launch->block;
    blockIdx = {0, 0, 0};
    check_pointers(launch, device);
    order_begin(settings, block.number);
    std::vector<uint32_t> shuffled;
    if (settings->order == EMULATION_RANDOM) {
        for (uint64_t i = 0; i < n_blocks; i++)
            shuffled.push_back((uint32_t)i);
        for (uint64_t i = n_blocks; i > 1; i--)
            std::swap(shuffled[i - 1], shuffled[order_random() % i]);
    }
    block_prepare();
    block.shared = guarded_alloc(launch->shared_bytes, 128);
    for (uint64_t i = 0; i < n_blocks; i++) {
        uint64_t at = settings->order == EMULATION_FORWARD   ? i
                      : settings->order == EMULATION_REVERSE ? n_blocks - 1 - i
                                                             : shuffled[i];
        if (i > 0)
            memset(block.shared, 0xcd, launch->shared_bytes);
        block_run(block_index(launch, at));
        if (!guarded_is_whole(block.shared, launch->shared_bytes))
            emulation_fail("something wrote past the end of the %zu bytes of shared "
                           "memory",
                           launch->shared_bytes);
    }
    guarded_free(block.shared, launch->shared_bytes);
    block.shared = nullptr;
    block.launch = nullptr;
}

/* ---- launching ---------------------------------------------------------------------- */

static cudaError_t check_attributes(const cudaLaunchConfig_t *config) {
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const cudaLaunchAttribute *a = &config->attrs[i];
        switch (a->id) {
        case cudaLaunchAttributeIgnore:
        case cudaLaunchAttributePriority:
            break;
        case cudaLaunchAttributeProgrammaticStreamSerialization:
            if (a->val.programmaticStreamSerializationAllowed &&
                emulation_settings()->capability < 90)
                return cudaErrorNotSupported;
            break;
        default:
            return cudaErrorNotSupported;
        }
    }
    return cudaSuccess;
}

static cudaError_t check_config(const cudaLaunchConfig_t *config, const void *kernel,
                                int device) {
    dim3 grid = config->gridDim, size = config->blockDim;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu ||
        grid.y > MAX_GRID_YZ || grid.z > MAX_GRID_YZ)
        return cudaErrorInvalidConfiguration;
    if (size.x == 0 || size.y == 0 || size.z == 0 || size.x > MAX_THREADS ||
        size.y > MAX_THREADS || size.z > 64 || size.x * size.y * size.z > MAX_THREADS)
        return cudaErrorInvalidConfiguration;
    auto promised = max_shared_bytes.find({device, kernel});
    size_t limit = promised == max_shared_bytes.end() ? (size_t)PLAIN_SHARED_BYTES
                                                      : (size_t)promised->second;
    if (limit < PLAIN_SHARED_BYTES)
        limit = PLAIN_SHARED_BYTES;
    if (config->dynamicSmemBytes > limit)
        return cudaErrorInvalidValue;
    return check_attributes(config);
}

cudaError_t emulation_launch(const cudaLaunchConfig_t *config, const void *kernel,
                             std::vector<const void *> pointers,
                             std::function<void()> body) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    cudaError_t error = check_config(config, kernel, call.device);
    if (error) {
        char name[200];
        emulation_symbol(kernel, name, sizeof name);
        emulation_warn("launch of %s with grid (%u,%u,%u) of (%u,%u,%u), %zu bytes of "
                       "shared memory: %s",
                       name, config->gridDim.x, config->gridDim.y, config->gridDim.z,
                       config->blockDim.x, config->blockDim.y, config->blockDim.z,
                       config->dynamicSmemBytes, cudaGetErrorName(error));
        return call.result(error);
    }
    struct launch launch = {kernel,
                            config->gridDim,
                            config->blockDim,
                            config->dynamicSmemBytes,
                            std::move(pointers),
                            std::move(body)};
    auto shared = std::make_shared<const struct launch>(std::move(launch));
    return call.result(
        stream_add(config->stream, call.device, WORK_KERNEL,
                   [shared](int device) { launch_run(shared.get(), device); }));
}

/* ---- what kernels are promised ------------------------------------------------------ */

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attr,
                                 int value) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    if (attr == cudaFuncAttributePreferredSharedMemoryCarveout)
        return cudaSuccess;
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        (size_t)value > emulation_max_shared_bytes())
        return call.result(cudaErrorInvalidValue);
    max_shared_bytes[{call.device, kernel}] = value;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attr, const void *kernel) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    auto promised = max_shared_bytes.find({call.device, kernel});
    memset(attr, 0, sizeof *attr);
    attr->maxThreadsPerBlock = MAX_THREADS;
    attr->numRegs = 64;
    attr->ptxVersion = attr->binaryVersion = emulation_settings()->capability;
    attr->maxDynamicSharedSizeBytes =
        promised == max_shared_bytes.end() ? PLAIN_SHARED_BYTES : promised->second;
    return cudaSuccess;
}

/* As shared memory and threads allow; registers are not counted. */
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n_blocks,
                                                          const void *kernel,
                                                          int block_size,
                                                          size_t shared_bytes) {
    struct api_call call(API_PLAIN);
    (void)kernel;
    if (call.error)
        return call.error;
    if (block_size < 1 || block_size > MAX_THREADS)
        return call.result(cudaErrorInvalidValue);
    size_t by_memory = emulation_max_shared_bytes() / (shared_bytes + 1024);
    size_t by_threads =
        (emulation_settings()->capability == 75 ? 1024u : 2048u) / (size_t)block_size;
    *n_blocks = (int)(by_memory < by_threads ? by_memory : by_threads);
    return cudaSuccess;
}
