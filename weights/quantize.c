/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize.c - which tensors become int8, and the directory that they go to.
 */
#include "weights/quantize.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "base/memory.h"
#include "weights/safetensors.h"

#define INT8_MAX_VALUE 127 /* symmetric: -128 is not used */
#define SCALE_SUFFIX "_scale"
#define MAX_COPIED_BYTES ((size_t)64 << 20)
#define MAX_CONFIG_BYTES ((size_t)1 << 20)

enum treatment { TO_INT8, TO_F32, AS_IT_IS, DROPPED };

/* The first pattern that fits decides. The heads are small, and the last to round. */
static const struct {
    const char *pattern;
    enum treatment treatment;
} RULES[] = {
    {"distilbert.embeddings.word_embeddings.weight", TO_INT8},
    {"distilbert.embeddings.position_embeddings.weight", TO_INT8},
    {"distilbert.embeddings.position_ids", DROPPED},
    {"distilbert.transformer.layer.*.attention.*_lin.weight", TO_INT8},
    {"distilbert.transformer.layer.*.ffn.lin?.weight", TO_INT8},
    {"pre_classifier.weight", AS_IT_IS},
    {"classifier.weight", AS_IT_IS},
    {"token_classifier.weight", AS_IT_IS},
    {"*", TO_F32}, /* biases and norms */
};

/* Copied when they are there; config.json is written anew. */
static const char *const COPIED[] = {"vocab.txt", "tokenizer_config.json",
                                     "tokenizer.json"};
#define N_COPIED (sizeof COPIED / sizeof *COPIED)

/* One quantisation: what was read, what was made of it. */
struct work {
    struct safetensors source;
    struct safetensors_tensor *out; /* [cap], data owned */
    char **names;                   /* [cap] of the factors, NULL for others */
    size_t n_out, cap;
    const char *const *keep;
    size_t n_keep;
    struct quantize_report *report;
    struct error *err;
};

float quantize_row(const float *row, size_t n, signed char *out) {
    float largest = 0.0f;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(row[i]));
    float scale = largest / INT8_MAX_VALUE;
    if (!(scale > 0.0f)) /* all zeros, or so small that the quotient is zero */
        scale = 1.0f;
    for (size_t i = 0; i < n; i++) {
        float q = rintf(row[i] / scale);
        out[i] = (signed char)fminf(fmaxf(q, -INT8_MAX_VALUE), INT8_MAX_VALUE);
    }
    return scale;
}

static void read_floats(const struct safetensors_tensor *t, size_t from, size_t n,
                        float *out) {
    const uint16_t *halves = t->data;
    switch (t->dtype) {
    case SAFETENSORS_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = half_to_float(halves[from + i]);
        return;
    case SAFETENSORS_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_to_float(halves[from + i]);
        return;
    default:
        memcpy(out, (const float *)t->data + from, n * sizeof *out);
    }
}

static enum treatment treatment_of(const struct work *w, const char *name) {
    size_t i = 0;
    while (fnmatch(RULES[i].pattern, name, 0) != 0)
        i++;
    if (RULES[i].treatment != TO_INT8)
        return RULES[i].treatment;
    for (size_t k = 0; k < w->n_keep; k++)
        if (fnmatch(w->keep[k], name, 0) == 0) {
            w->report->n_kept++;
            return AS_IT_IS;
        }
    return TO_INT8;
}

static enum status no_memory(const struct work *w, const char *name) {
    return error_set(w->err, STATUS_NO_MEMORY, "no memory to quantise \"%s\"", name);
}

/* A copy of a tensor's description with room for its elements as dtype, appended to out. */
static struct safetensors_tensor *add_tensor(struct work *w, const char *name,
                                             enum safetensors_dtype dtype,
                                             const int32_t *dims, int32_t n_dims) {
    struct safetensors_tensor *t = &w->out[w->n_out];
    size_t n = 1, n_bytes;
    *t = (struct safetensors_tensor){.name = name, .dtype = dtype, .n_dims = n_dims};
    for (int32_t i = 0; i < n_dims; i++) {
        t->dims[i] = dims[i];
        if (!size_multiply(n, (size_t)dims[i], &n))
            return NULL;
    }
    if (!size_multiply(n, safetensors_dtype_bytes(dtype), &n_bytes))
        return NULL;
    void *data = malloc(n_bytes);
    if (!data)
        return NULL;
    t->data = data;
    t->n_elements = n;
    t->n_bytes = n_bytes;
    w->n_out++;
    w->report->n_bytes_after += n_bytes;
    return t;
}

/* Remembers the matrix that int8 serves worst. */
static void note_error(struct work *w, const char *name, double error, double power) {
    double relative = power > 0 ? sqrt(error / power) : 0;
    if (relative <= w->report->worst_error)
        return;
    w->report->worst_error = relative;
    snprintf(w->report->worst_name, sizeof w->report->worst_name, "%s", name);
}

static enum status to_int8(struct work *w, const struct safetensors_tensor *t) {
    if (t->n_dims != 2)
        return error_set(w->err, STATUS_INVALID,
                         "tensor \"%s\" has %d dimensions, expected 2", t->name,
                         t->n_dims);
    size_t n_rows = (size_t)t->dims[0], n_cols = (size_t)t->dims[1], n_bytes;
    size_t n_name = strlen(t->name) + sizeof SCALE_SUFFIX;
    float *row = size_multiply(n_cols, sizeof *row, &n_bytes) ? malloc(n_bytes) : NULL;
    char *name = malloc(n_name);
    w->names[w->n_out] = name;
    struct safetensors_tensor *weight = NULL, *scale = NULL;
    if (row && name) {
        snprintf(name, n_name, "%s%s", t->name, SCALE_SUFFIX);
        weight = add_tensor(w, t->name, SAFETENSORS_I8, t->dims, 2);
        scale = weight ? add_tensor(w, name, SAFETENSORS_F32, t->dims, 1) : NULL;
    }
    if (!scale) {
        free(row);
        return no_memory(w, t->name);
    }
    double error = 0, power = 0;
    for (size_t r = 0; r < n_rows; r++) {
        signed char *q = (signed char *)(uintptr_t)weight->data + r * n_cols;
        float *factor = (float *)(uintptr_t)scale->data + r;
        read_floats(t, r * n_cols, n_cols, row);
        *factor = quantize_row(row, n_cols, q);
        for (size_t i = 0; i < n_cols; i++) {
            double d = (double)row[i] - (double)q[i] * (double)*factor;
            error += d * d;
            power += (double)row[i] * (double)row[i];
        }
    }
    w->report->n_int8++;
    note_error(w, t->name, error, power);
    free(row);
    return STATUS_OK;
}

static enum status convert(struct work *w, const struct safetensors_tensor *t) {
    struct safetensors_tensor *copy;
    switch (treatment_of(w, t->name)) {
    case DROPPED:
        return STATUS_OK;
    case TO_INT8:
        return to_int8(w, t);
    case TO_F32:
        copy = add_tensor(w, t->name, SAFETENSORS_F32, t->dims, t->n_dims);
        if (!copy)
            return no_memory(w, t->name);
        read_floats(t, 0, t->n_elements, (float *)(uintptr_t)copy->data);
        return STATUS_OK;
    case AS_IT_IS:
        copy = add_tensor(w, t->name, t->dtype, t->dims, t->n_dims);
        if (!copy)
            return no_memory(w, t->name);
        memcpy((void *)(uintptr_t)copy->data, t->data, t->n_bytes);
        return STATUS_OK;
    }
    return STATUS_OK;
}

static enum status convert_all(struct work *w) {
    size_t n_bytes;
    w->cap = 2 * w->source.n_tensors;
    if (!size_multiply(w->cap, sizeof *w->out, &n_bytes) ||
        !(w->out = calloc(1, n_bytes)) ||
        !(w->names = calloc(w->cap, sizeof *w->names)))
        return no_memory(w, "model");
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < w->source.n_tensors; i++) {
        w->report->n_bytes_before += w->source.tensors[i].n_bytes;
        status = convert(w, &w->source.tensors[i]);
    }
    return status;
}

static void work_free(struct work *w) {
    for (size_t i = 0; w->out && i < w->n_out; i++)
        free((void *)(uintptr_t)w->out[i].data);
    for (size_t i = 0; w->names && i < w->cap; i++)
        free(w->names[i]);
    free(w->out);
    free(w->names);
    safetensors_close(&w->source);
}

struct config_work {
    const char *src_dir;
    const struct work *w;
    char *text;            /* of the source's config.json */
    struct buffer written; /* the new one */
    enum status status;    /* of writing it */
    struct error *err;
};

/* jansson does not look at every result of it either, so the first failure is kept. */
static int append_written(const char *text, size_t n_bytes, void *context) {
    struct config_work *c = context;
    if (c->status == STATUS_OK)
        c->status = buffer_append(&c->written, text, n_bytes, c->err);
    return c->status == STATUS_OK ? 0 : -1;
}

/* The source's config.json with what was done to the weights added. Under json_guard. */
static enum status make_config(void *context, struct error *err) {
    static const struct json_limits limits = {.max_bytes = MAX_CONFIG_BYTES,
                                              .max_depth = 8,
                                              .max_values = 16384,
                                              .max_key_bytes = 256};
    struct config_work *c = context;
    char path[FILE_PATH_BYTES];
    json_t *root = NULL;
    size_t n_bytes;
    enum status status = file_path(path, c->src_dir, "config.json", err);
    if (status != STATUS_OK ||
        (status = file_read(path, limits.max_bytes, &c->text, &n_bytes, err)) !=
            STATUS_OK ||
        (status = json_parse(c->text, n_bytes, &limits, &root, err)) != STATUS_OK)
        return status;
    if (json_object_get(root, "quantization_config")) {
        json_decref(root);
        return error_set(err, STATUS_INVALID, "%s is quantised already", c->src_dir);
    }
    json_t *kept = json_array();
    for (size_t i = 0; i < c->w->n_keep; i++)
        json_array_append_new(kept, json_string(c->w->keep[i]));
    json_object_set_new(root, "quantization_config",
                        json_pack("{s:s, s:i, s:b, s:s, s:s, s:o}", "quant_method",
                                  "vigil-int8", "bits", 8, "symmetric", 1,
                                  "granularity", "row", "scale_suffix", SCALE_SUFFIX,
                                  "kept", kept));
    int rc = json_dump_callback(root, append_written, c,
                                JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    status = append_written("\n", 1, c) == 0 ? STATUS_OK : c->status;
    if (rc != 0 && status == STATUS_OK)
        status = error_set(err, STATUS_INTERNAL, "cannot write config.json");
    json_decref(root);
    return status;
}

static enum status write_config(const char *src_dir, struct file_writer *out,
                                const struct work *w, struct error *err) {
    struct config_work c = {.src_dir = src_dir,
                            .w = w,
                            .err = err,
                            .written = {.max_bytes = 2 * MAX_CONFIG_BYTES}};
    enum status status = json_guard(make_config, &c, err);
    if (status == STATUS_OK)
        status = file_write(out, c.written.data, c.written.n_bytes, err);
    free(c.text);
    buffer_free(&c.written);
    return status;
}

static enum status copy_file(const char *src_dir, const char *dst_dir, const char *name,
                             struct file_writer *out, struct error *err) {
    char from[FILE_PATH_BYTES], to[FILE_PATH_BYTES];
    char *text = NULL;
    size_t n_bytes;
    enum status status = file_path(from, src_dir, name, err);
    if (status == STATUS_OK)
        status = file_path(to, dst_dir, name, err);
    if (status != STATUS_OK || !file_exists(from))
        return status;
    status = file_read(from, MAX_COPIED_BYTES, &text, &n_bytes, err);
    if (status == STATUS_OK)
        status = file_create(to, out, err);
    if (status == STATUS_OK)
        status = file_write(out, text, n_bytes, err);
    free(text);
    return status;
}

/* Writes every file beside its place, then moves all of them there, the config last: a
 * directory that was cut off half way does not open. */
static enum status write_directory(const char *src_dir, const char *dst_dir,
                                   struct work *w, struct error *err) {
    static const char *const metadata[] = {"format", "pt", NULL};
    struct file_writer *files = calloc(N_COPIED + 2, sizeof *files);
    char path[FILE_PATH_BYTES];
    if (!files)
        return error_set(err, STATUS_NO_MEMORY, "no memory to write %s", dst_dir);
    struct file_writer *weights = files + N_COPIED, *config = weights + 1;
    enum status status = STATUS_OK;
    bool is_new = mkdir(dst_dir, 0777) == 0;
    if (!is_new && errno != EEXIST)
        status =
            error_set(err, STATUS_IO, "cannot make %s: %s", dst_dir, strerror(errno));
    for (size_t i = 0; status == STATUS_OK && i < N_COPIED; i++)
        status = copy_file(src_dir, dst_dir, COPIED[i], &files[i], err);
    if (status == STATUS_OK &&
        (status = file_path(path, dst_dir, SAFETENSORS_FILE, err)) == STATUS_OK &&
        (status = file_create(path, weights, err)) == STATUS_OK)
        status = safetensors_write(weights, w->out, w->n_out, metadata,
                                   w->report->sha256, err);
    if (status == STATUS_OK &&
        (status = file_path(path, dst_dir, "config.json", err)) == STATUS_OK &&
        (status = file_create(path, config, err)) == STATUS_OK)
        status = write_config(src_dir, config, w, err);
    for (size_t i = 0; status == STATUS_OK && i < N_COPIED + 2; i++)
        if (files[i].fd)
            status = file_commit(&files[i], err);
    for (size_t i = 0; i < N_COPIED + 2; i++)
        file_abort(&files[i]);
    if (status != STATUS_OK && is_new)
        (void)remove(dst_dir); /* only when nothing was moved into it */
    free(files);
    return status;
}

enum status quantize_model(const char *src_dir, const char *dst_dir,
                           const char *const *keep, size_t n_keep,
                           struct quantize_report *report, struct error *err) {
    struct work w = {.keep = keep, .n_keep = n_keep, .report = report, .err = err};
    struct stat src, dst;
    memset(report, 0, sizeof *report);
    if (stat(src_dir, &src) == 0 && stat(dst_dir, &dst) == 0 &&
        src.st_dev == dst.st_dev && src.st_ino == dst.st_ino)
        return error_set(err, STATUS_INVALID, "%s and %s are the same directory",
                         src_dir, dst_dir);
    enum status status = safetensors_open(src_dir, false, &w.source, err);
    if (status == STATUS_OK)
        status = safetensors_read(&w.source, err);
    if (status == STATUS_OK)
        status = convert_all(&w);
    if (status == STATUS_OK)
        status = write_directory(src_dir, dst_dir, &w, err);
    work_free(&w);
    return status;
}
