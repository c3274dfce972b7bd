/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/engines.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cuda_library.h"
#include "model/reference.h"

#define MAX_DEVICE_NUMBER 999

enum kind { KIND_AUTO, KIND_CPU, KIND_REFERENCE, KIND_CUDA };

/* What the options ask for, and what this machine has of it. */
struct wanted {
    enum kind kind;
    bool is_all, may_fall_back;
    int32_t devices[ENGINES_MAX], n;
    const struct cuda_plugin *plugin;
};

/* ---- names ---- */

static bool is_auto(const char *name) {
    return !name || strcmp(name, "auto") == 0;
}

static bool is_one_of(const char *name, const char *a, const char *b) {
    return name && (strcmp(name, a) == 0 || strcmp(name, b) == 0);
}

static enum status unknown(const char *name, struct error *err) {
    return error_set(err, STATUS_UNSUPPORTED,
                     "no device is called %.60s; there are: auto, cpu, cuda, cuda:N, "
                     "cuda:N,M, cuda:all, reference",
                     name);
}

/* "0", "0,2,3" */
static enum status parse_numbers(const char *name, const char *list, struct wanted *w,
                                 struct error *err) {
    for (const char *at = list;; at++) {
        char *end;
        long number = isdigit((unsigned char)*at) ? strtol(at, &end, 10) : -1;
        if (number < 0 || number > MAX_DEVICE_NUMBER || (*end && *end != ','))
            return unknown(name, err);
        for (int32_t i = 0; i < w->n; i++)
            if (w->devices[i] == number)
                return error_set(err, STATUS_INVALID, "%.60s names device %ld twice",
                                 name, number);
        if (w->n == ENGINES_MAX)
            return error_set(err, STATUS_LIMIT, "%.60s names over %d devices", name,
                             ENGINES_MAX);
        w->devices[w->n++] = (int32_t)number;
        at = end;
        if (!*at)
            return STATUS_OK;
    }
}

static enum status parse(const char *name, struct wanted *w, struct error *err) {
    *w = (struct wanted){.n = 1};
    if (!name || strcmp(name, "cpu") == 0)
        w->kind = KIND_CPU;
    else if (strcmp(name, "auto") == 0)
        w->kind = KIND_AUTO;
    else if (strcmp(name, "reference") == 0)
        w->kind = KIND_REFERENCE;
    else if (strcmp(name, "cuda") == 0)
        w->kind = KIND_CUDA;
    else if (is_one_of(name, "cuda:all", "all"))
        *w = (struct wanted){.kind = KIND_CUDA, .is_all = true};
    else if (strncmp(name, "cuda:", 5) == 0) {
        *w = (struct wanted){.kind = KIND_CUDA};
        return parse_numbers(name, name + 5, w, err);
    } else
        return unknown(name, err);
    return STATUS_OK;
}

/* What dtype and isa say of the device, and whether they go with it. */
static enum status weigh(const struct engine_options *o, struct wanted *w,
                         struct error *err) {
    bool is_gpu_dtype = o->dtype && strcmp(o->dtype, "fp16") == 0;
    bool is_gpu_isa = is_one_of(o->isa, "mma", "wmma");
    if (w->kind == KIND_AUTO && (is_gpu_dtype || is_gpu_isa))
        w->kind = KIND_CUDA;
    else if (w->kind == KIND_AUTO && !(is_auto(o->dtype) && is_auto(o->isa)))
        w->kind = KIND_CPU;
    if (w->kind != KIND_CUDA && (is_gpu_dtype || is_gpu_isa))
        return error_set(err, STATUS_UNSUPPORTED,
                         "%.40s is for a CUDA device (--device cuda), not for %.60s",
                         is_gpu_dtype ? o->dtype : o->isa,
                         o->device ? o->device : "cpu");
    if (w->kind != KIND_CUDA)
        return STATUS_OK;
    if (!is_auto(o->dtype) && !is_gpu_dtype)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "a CUDA device computes in fp16 (--dtype fp16 or auto), not in "
            "%.40s",
            o->dtype);
    if (!is_auto(o->isa) && !is_gpu_isa)
        return error_set(err, STATUS_UNSUPPORTED,
                         "a CUDA device has --isa auto, mma or wmma, not %.40s",
                         o->isa);
    return STATUS_OK;
}

/* ---- devices ---- */

static enum status find_devices(struct wanted *w, struct error *err) {
    int32_t n;
    enum status status = cuda_library_devices(&w->plugin, &n, err);
    if (status != STATUS_OK)
        return status;
    if (w->is_all) {
        w->n = n < ENGINES_MAX ? n : ENGINES_MAX;
        for (int32_t i = 0; i < w->n; i++)
            w->devices[i] = i;
    }
    for (int32_t i = 0; i < w->n; i++)
        if (w->devices[i] >= n)
            return error_set(err, STATUS_UNSUPPORTED,
                             "there is no device cuda:%d: this process sees %d, from "
                             "cuda:0 on",
                             w->devices[i], n);
    return STATUS_OK;
}

/* Decides where to compute. note: as in struct engines. */
static enum status resolve(const struct engine_options *o, struct wanted *w,
                           char note[ERROR_MESSAGE_BYTES], struct error *err) {
    struct error why = {0};
    note[0] = '\0';
    enum status status = parse(o->device, w, err);
    if (status == STATUS_OK)
        status = weigh(o, w, err);
    if (status != STATUS_OK || w->kind == KIND_CPU || w->kind == KIND_REFERENCE)
        return status;
    if (w->kind == KIND_CUDA)
        return find_devices(w, err);
    /* auto: that nothing is there is nothing to speak of; that it does not work is. */
    w->may_fall_back = find_devices(w, &why) == STATUS_OK;
    w->kind = w->may_fall_back ? KIND_CUDA : KIND_CPU;
    if (!w->may_fall_back && why.status != STATUS_NOT_FOUND)
        memcpy(note, why.message, sizeof why.message);
    return STATUS_OK;
}

enum status engines_plan(const struct engine_options *options,
                         struct engines_plan *plan, struct error *err) {
    struct wanted w;
    char note[ERROR_MESSAGE_BYTES];
    enum status status = resolve(options, &w, note, err);
    if (status == STATUS_OK)
        *plan = (struct engines_plan){.n = w.n, .is_cuda = w.kind == KIND_CUDA};
    return status;
}

/* ---- engines ---- */

static enum status open_one(const struct engine_options *options,
                            const struct checkpoint *c, struct engines *out,
                            enum status (*opener)(const struct engine_options *,
                                                  const struct checkpoint *,
                                                  struct engine **, struct error *),
                            struct error *err) {
    enum status status = opener(options, c, &out->engines[0], err);
    out->n = status == STATUS_OK;
    return status;
}

static enum status open_devices(const struct engine_options *options,
                                const struct wanted *w, const struct checkpoint *c,
                                struct engines *out, struct error *err) {
    for (int32_t i = 0; i < w->n; i++) {
        enum status status =
            w->plugin->open(w->devices[i], options, c, &out->engines[i], err);
        if (status != STATUS_OK) {
            engines_close(out);
            return status;
        }
        out->n = i + 1;
    }
    return STATUS_OK;
}

enum status engines_open(const struct engine_options *options,
                         const struct checkpoint *c, struct engines *out,
                         struct error *err) {
    struct wanted w;
    struct error why = {0};
    *out = (struct engines){0};
    enum status status = resolve(options, &w, out->note, err);
    if (status != STATUS_OK)
        return status;
    if (w.kind == KIND_REFERENCE)
        return open_one(options, c, out, reference_open, err);
    if (w.kind == KIND_CPU)
        return open_one(options, c, out, cpu_engine_open, err);
    status = open_devices(options, &w, c, out, w.may_fall_back ? &why : err);
    if (status == STATUS_OK || !w.may_fall_back)
        return status;
    memcpy(out->note, why.message, sizeof why.message);
    return open_one(options, c, out, cpu_engine_open, err);
}

void engines_close(struct engines *e) {
    for (int32_t i = 0; i < e->n; i++)
        engine_close(e->engines[i]);
    *e = (struct engines){0};
}

bool engines_is_auto(const struct engine_options *options) {
    struct wanted w;
    return parse(options->device, &w, NULL) == STATUS_OK && w.kind == KIND_AUTO &&
           is_auto(options->dtype) && is_auto(options->isa);
}

bool engines_is_cuda(const struct engine *e) {
    return strncmp(e->info.device, "cuda", 4) == 0;
}

enum status engine_open(const struct engine_options *options,
                        const struct checkpoint *c, struct engine **out,
                        struct error *err) {
    struct engines opened;
    struct wanted w;
    char first[32];
    struct engine_options one = *options;
    *out = NULL;
    enum status status = parse(options->device, &w, err);
    if (status != STATUS_OK)
        return status;
    if (w.kind == KIND_CUDA) {
        snprintf(first, sizeof first, "cuda:%d", w.devices[0]);
        one.device = first;
    }
    status = engines_open(&one, c, &opened, err);
    if (status == STATUS_OK)
        *out = opened.engines[0];
    return status;
}
