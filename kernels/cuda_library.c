/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/paths.h"

#define LIBRARY "libvigil_cuda.so"
#define DRIVER "libcuda.so.1"
#define PATH_VARIABLE "VIGIL_CUDA_LIBRARY"

/* What the first call found. The library is never closed: its threads and its contexts do
 * not survive that. */
static struct {
    pthread_once_t once;
    void *handle;
    const struct cuda_plugin *plugin; /* NULL: why says why */
    struct error why;
} library = {.once = PTHREAD_ONCE_INIT};

/* The variable's value; NULL: the library is looked for where it is installed. */
static const char *given_path(void) {
    const char *given = secure_getenv(PATH_VARIABLE);
    return given && *given ? given : NULL;
}

enum status cuda_library_path(char *out, size_t cap_bytes, struct error *err) {
    const char *given = given_path();
    if (!given)
        return paths_beside("../lib/vigil/" LIBRARY, out, cap_bytes, err);
    /* Without a slash the loader would look elsewhere. */
    int n = snprintf(out, cap_bytes, "%s%s", strchr(given, '/') ? "" : "./", given);
    if (n < 0 || (size_t)n >= cap_bytes)
        return error_set(err, STATUS_LIMIT, PATH_VARIABLE " is over %zu bytes",
                         cap_bytes);
    return STATUS_OK;
}

static enum status check_build(const struct cuda_plugin *plugin, const char *path,
                               struct error *err) {
    if (plugin->abi != CUDA_PLUGIN_ABI)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the CUDA engine has interface %u, this program needs %u: "
                         "build both together (make all cuda); it is %s",
                         plugin->abi, CUDA_PLUGIN_ABI, path);
    if (strcmp(plugin->version, VIGIL_VERSION) != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the CUDA engine is of version %.40s, this program of %s: "
                         "build both together (make all cuda); it is %s",
                         plugin->version, VIGIL_VERSION, path);
    return STATUS_OK;
}

static enum status load(const char *path, struct error *err) {
    if (access(path, F_OK) != 0)
        return error_set(err, STATUS_NOT_FOUND,
                         "there is no CUDA engine (`make cuda` builds it, "
                         "$" PATH_VARIABLE " names another): no file %s",
                         path);
    library.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library.handle) {
        const char *why = dlerror();
        if (strstr(why, DRIVER))
            return error_set(err, STATUS_NOT_FOUND,
                             "there is no NVIDIA driver here, so no GPU (%s)", why);
        return error_set(err, STATUS_UNSUPPORTED, "cannot load the CUDA engine: %s",
                         why);
    }
    cuda_plugin_get *get = NULL;
    void *symbol = dlsym(library.handle, CUDA_PLUGIN_SYMBOL);
    memcpy(&get, &symbol, sizeof get);
    const struct cuda_plugin *plugin = get ? get() : NULL;
    enum status status = plugin ? check_build(plugin, path, err)
                                : error_set(err, STATUS_UNSUPPORTED,
                                            "no CUDA engine: there is no "
                                            "function " CUDA_PLUGIN_SYMBOL " in %s",
                                            path);
    if (status == STATUS_OK)
        library.plugin = plugin;
    return status;
}

static void load_once(void) {
    char path[FILE_PATH_BYTES];
    if (cuda_library_path(path, sizeof path, &library.why) == STATUS_OK)
        (void)load(path, &library.why);
}

enum status cuda_library_open(const struct cuda_plugin **out, struct error *err) {
    pthread_once(&library.once, load_once);
    *out = library.plugin;
    if (library.plugin)
        return STATUS_OK;
    return error_set(err, library.why.status, "%s", library.why.message);
}

static bool has_driver(void) {
    void *handle = dlopen(DRIVER, RTLD_LAZY | RTLD_LOCAL);
    if (handle)
        dlclose(handle);
    return handle != NULL;
}

static enum status no_driver(struct error *err) {
    return error_set(err, STATUS_NOT_FOUND,
                     "there is no NVIDIA driver here (" DRIVER "), so no GPU");
}

/* Whether loading the library would be for nothing: it brings cuBLASLt, 150 MB of memory. A
 * library that was named may do without a driver: the tests' does. */
static bool is_in_vain(void) {
    char path[FILE_PATH_BYTES];
    return !given_path() && cuda_library_path(path, sizeof path, NULL) == STATUS_OK &&
           access(path, F_OK) == 0 && !has_driver();
}

enum status cuda_library_devices(const struct cuda_plugin **out, int32_t *n,
                                 struct error *err) {
    struct error why = {0};
    *n = 0;
    if (is_in_vain())
        return no_driver(err);
    enum status status = cuda_library_open(out, err);
    if (status != STATUS_OK)
        return status;
    *n = (*out)->n_devices(&why);
    if (*n > 0)
        return STATUS_OK;
    *n = 0;
    /* CUDA says the same of a driver that is too old and of none at all. */
    if (!has_driver())
        return no_driver(err);
    return error_set(err, why.status == STATUS_OK ? STATUS_NOT_FOUND : why.status, "%s",
                     why.message[0] ? why.message : "there is no CUDA device");
}
