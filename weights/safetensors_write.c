/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_write.c - writes a file so that the same tensors give the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "weights/safetensors.h"

#define MAX_HEADER_BYTES (1u << 20)
#define HEADER_ALIGNMENT 8

/* Larger elements first, so that every tensor is aligned to its element without holes;
 * then by name, as the reference writer has it. */
static int by_element_and_name(const void *a, const void *b) {
    const struct safetensors_tensor *const *x = a, *const *y = b;
    size_t n_x = safetensors_dtype_bytes((*x)->dtype);
    size_t n_y = safetensors_dtype_bytes((*y)->dtype);
    if (n_x != n_y)
        return n_x > n_y ? -1 : 1;
    if ((*x)->dtype != (*y)->dtype)
        return (*x)->dtype < (*y)->dtype ? -1 : 1;
    return strcmp((*x)->name, (*y)->name);
}

static enum status tensor_bytes(const struct safetensors_tensor *t, size_t *out,
                                struct error *err) {
    size_t n = safetensors_dtype_bytes(t->dtype);
    for (int32_t i = 0; i < t->n_dims; i++)
        if (t->dims[i] < 1 || !size_multiply(n, (size_t)t->dims[i], &n))
            return error_set(err, STATUS_INVALID,
                             "tensor \"%s\" cannot be written: dimension %d is %d",
                             t->name, i, t->dims[i]);
    *out = n;
    return STATUS_OK;
}

static enum status append_text(struct buffer *b, const char *text, struct error *err) {
    return json_append_string(b, text, strlen(text), err);
}

static enum status append_metadata(struct buffer *b, const char *const *metadata,
                                   struct error *err) {
    enum status status = buffer_printf(b, err, "\"__metadata__\":{");
    for (size_t i = 0; status == STATUS_OK && metadata[i]; i += 2) {
        if (i > 0)
            status = buffer_append(b, ",", 1, err);
        if (status == STATUS_OK)
            status = append_text(b, metadata[i], err);
        if (status == STATUS_OK)
            status = buffer_append(b, ":", 1, err);
        if (status == STATUS_OK)
            status = append_text(b, metadata[i + 1], err);
    }
    return status == STATUS_OK ? buffer_append(b, "}", 1, err) : status;
}

static enum status append_tensor(struct buffer *b, const struct safetensors_tensor *t,
                                 bool is_first, size_t *at, struct error *err) {
    size_t n_bytes;
    enum status status = tensor_bytes(t, &n_bytes, err);
    if (status == STATUS_OK && !is_first)
        status = buffer_append(b, ",", 1, err);
    if (status == STATUS_OK)
        status = append_text(b, t->name, err);
    if (status == STATUS_OK)
        status = buffer_printf(b, err, ":{\"dtype\":\"%s\",\"shape\":[",
                               safetensors_dtype_name(t->dtype));
    for (int32_t i = 0; status == STATUS_OK && i < t->n_dims; i++)
        status = buffer_printf(b, err, "%s%d", i ? "," : "", t->dims[i]);
    size_t end;
    if (!size_add(*at, n_bytes, &end))
        return error_set(err, STATUS_LIMIT, "tensors of more than 2^64 bytes");
    if (status == STATUS_OK)
        status = buffer_printf(b, err, "],\"data_offsets\":[%zu,%zu]}", *at, end);
    *at = end;
    return status;
}

static enum status make_header(struct buffer *b,
                               const struct safetensors_tensor *const *order, size_t n,
                               const char *const *metadata, struct error *err) {
    static const uint8_t no_length[8];
    size_t at = 0;
    bool has_metadata = metadata && metadata[0];
    enum status status = buffer_append(b, no_length, sizeof no_length, err);
    if (status == STATUS_OK)
        status = buffer_append(b, "{", 1, err);
    if (status == STATUS_OK && has_metadata)
        status = append_metadata(b, metadata, err);
    for (size_t i = 0; status == STATUS_OK && i < n; i++)
        status = append_tensor(b, order[i], i == 0 && !has_metadata, &at, err);
    if (status == STATUS_OK)
        status = buffer_append(b, "}", 1, err);
    while (status == STATUS_OK && b->n_bytes % HEADER_ALIGNMENT != 0)
        status = buffer_append(b, " ", 1, err);
    if (status != STATUS_OK)
        return status;
    uint64_t n_header = b->n_bytes - sizeof no_length;
    for (size_t i = 0; i < sizeof no_length; i++)
        b->data[i] = (char)(n_header >> 8 * i & 0xFF);
    return STATUS_OK;
}

static enum status write_hashed(struct file_writer *w, struct sha256 *hash,
                                const void *data, size_t n_bytes, struct error *err) {
    enum status status = sha256_add(hash, data, n_bytes, err);
    return status == STATUS_OK ? file_write(w, data, n_bytes, err) : status;
}

enum status safetensors_write(struct file_writer *w,
                              const struct safetensors_tensor *tensors,
                              size_t n_tensors, const char *const *metadata,
                              char sha256[SHA256_HEX_BYTES], struct error *err) {
    struct buffer header = {.max_bytes = MAX_HEADER_BYTES};
    struct sha256 hash = {0};
    uint8_t digest[SHA256_BYTES];
    size_t n_bytes;
    const struct safetensors_tensor **order = NULL;
    enum status status;
    if (!size_multiply(n_tensors + 1, sizeof *order, &n_bytes) ||
        !(order = malloc(n_bytes)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu tensors", n_tensors);
    for (size_t i = 0; i < n_tensors; i++)
        order[i] = &tensors[i];
    qsort(order, n_tensors, sizeof *order, by_element_and_name);
    if ((status = make_header(&header, order, n_tensors, metadata, err)) != STATUS_OK ||
        (status = sha256_open(&hash, err)) != STATUS_OK ||
        (status = write_hashed(w, &hash, header.data, header.n_bytes, err)) !=
            STATUS_OK)
        goto out;
    for (size_t i = 0; status == STATUS_OK && i < n_tensors; i++) {
        status = tensor_bytes(order[i], &n_bytes, err);
        if (status == STATUS_OK)
            status = write_hashed(w, &hash, order[i]->data, n_bytes, err);
    }
    if (status == STATUS_OK) {
        sha256_finish(&hash, digest);
        sha256_hex(digest, sha256);
    }
out:
    sha256_close(&hash);
    buffer_free(&header);
    free(order);
    return status;
}
