/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors.c - one file: its header, checked field by field, and its data.
 *
 * Owns:    names and tensors, one block of data a file, the files between open and read.
 * Design:  the checks run in the order of the file: length, JSON, each tensor's fields, then
 *          the whole (no hole, no overlap, nothing left over). Only then is data read.
 */
#include "weights/safetensors.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "weights/safetensors_shard.h"

#define LENGTH_BYTES 8
#define MIN_HEADER_BYTES 2          /* {} */
#define MAX_HEADER_BYTES (1u << 20) /* a base model's has 15 KB */
#define MAX_TENSORS 4096u
#define MAX_METADATA_BYTES 65536u
/* Large enough for any classifier there is, small enough for a 64-bit file offset. */
#define MAX_FILE_BYTES ((size_t)64 << 30)
/* Read, then hashed while it is still in the cache. */
#define READ_PIECE_BYTES ((size_t)256 << 10)

static const struct json_limits HEADER_LIMITS = {.max_bytes = MAX_HEADER_BYTES,
                                                 .max_depth = 4,
                                                 .max_values = 65536,
                                                 .max_key_bytes =
                                                     SAFETENSORS_MAX_NAME_BYTES};

static const struct {
    const char *name;
    size_t n_bytes;
} DTYPES[] = {[SAFETENSORS_F32] = {"F32", 4},
              [SAFETENSORS_F16] = {"F16", 2},
              [SAFETENSORS_BF16] = {"BF16", 2},
              [SAFETENSORS_I64] = {"I64", 8},
              [SAFETENSORS_I8] = {"I8", 1}};
#define N_DTYPES (sizeof DTYPES / sizeof *DTYPES)

const char *safetensors_dtype_name(enum safetensors_dtype dtype) {
    return DTYPES[dtype].name;
}

size_t safetensors_dtype_bytes(enum safetensors_dtype dtype) {
    return DTYPES[dtype].n_bytes;
}

void safetensors_shape_text(const struct safetensors_tensor *t, char *out,
                            size_t cap_bytes) {
    size_t n = 0;
    for (int32_t i = 0; i <= t->n_dims && n < cap_bytes; i++) {
        int more =
            i < t->n_dims
                ? snprintf(out + n, cap_bytes - n, "%s%d", i ? ", " : "[", t->dims[i])
                : snprintf(out + n, cap_bytes - n, "%s]", i ? "" : "[");
        n += more > 0 ? (size_t)more : 0;
    }
}

/* ---- the header ---- */

/* What one header is read with. */
struct header {
    const char *file; /* for messages */
    size_t n_data_bytes;
    bool allow_i8;
    struct error *err;
};

static bool is_name(const char *key) {
    size_t n = strlen(key);
    if (n < 1 || n > SAFETENSORS_MAX_NAME_BYTES)
        return false;
    for (size_t i = 0; i < n; i++)
        if (key[i] < 0x20 || key[i] > 0x7E)
            return false;
    return true;
}

static enum status bad_tensor(const struct header *h, const char *name,
                              const char *found, const char *expected) {
    return error_set(h->err, STATUS_INVALID, "%s: tensor \"%s\" has %s, expected %s",
                     h->file, name, found, expected);
}

static enum status read_dtype(const struct header *h, const json_t *value,
                              struct safetensors_tensor *t) {
    const char *expected =
        h->allow_i8 ? "F32, F16, BF16, I64 or I8" : "F32, F16, BF16 or I64";
    char found[48];
    if (!json_is_string(value))
        return bad_tensor(h, t->name, "a dtype that is not a string", expected);
    for (size_t i = 0; i < N_DTYPES; i++) {
        if (strcmp(json_string_value(value), DTYPES[i].name) != 0 ||
            json_string_length(value) != strlen(DTYPES[i].name))
            continue;
        t->dtype = (enum safetensors_dtype)i;
        if (t->dtype != SAFETENSORS_I8 || h->allow_i8)
            return STATUS_OK;
        return bad_tensor(h, t->name, "dtype I8 in a model that is not quantised",
                          expected);
    }
    bool is_shown =
        json_string_length(value) <= 16 && is_name(json_string_value(value));
    snprintf(found, sizeof found, "dtype %s",
             is_shown ? json_string_value(value) : "with a strange name");
    return bad_tensor(h, t->name, found, expected);
}

static enum status read_shape(const struct header *h, const json_t *value,
                              struct safetensors_tensor *t) {
    char found[80];
    if (!json_is_array(value))
        return bad_tensor(h, t->name, "a shape that is not an array",
                          "an array of up to 8 integers");
    size_t n = json_array_size(value);
    if (n > SAFETENSORS_MAX_DIMS) {
        snprintf(found, sizeof found, "a shape of %zu dimensions", n);
        return bad_tensor(h, t->name, found, "up to 8");
    }
    t->n_dims = (int32_t)n;
    t->n_elements = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(value, i);
        json_int_t size = json_is_integer(dim) ? json_integer_value(dim) : -1;
        if (!json_is_integer(dim))
            snprintf(found, sizeof found, "a shape whose dimension %zu is no integer",
                     i);
        else
            snprintf(found, sizeof found, "%" JSON_INTEGER_FORMAT " as dimension %zu",
                     size, i);
        if (size < 1 || size > INT32_MAX)
            return bad_tensor(h, t->name, found, "an integer from 1 to 2147483647");
        t->dims[i] = (int32_t)size;
        if (!size_multiply(t->n_elements, (size_t)size, &t->n_elements))
            return bad_tensor(h, t->name, "a shape with too many elements",
                              "a product under 2^64");
    }
    return STATUS_OK;
}

static enum status read_offsets(const struct header *h, const json_t *value,
                                struct safetensors_tensor *t) {
    static const char expected[] = "data_offsets [begin, end]";
    char found[112], wanted[112];
    if (!json_is_array(value) || json_array_size(value) != 2)
        return bad_tensor(h, t->name, "data_offsets that are not two numbers",
                          expected);
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    if (!json_is_integer(first) || !json_is_integer(last))
        return bad_tensor(h, t->name, "data_offsets that are not integers", expected);
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    snprintf(found, sizeof found,
             "data_offsets [%" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT "]", begin,
             end);
    if (begin < 0 || end < begin)
        return bad_tensor(h, t->name, found, "0 <= begin <= end");
    if ((uint64_t)end > h->n_data_bytes) {
        snprintf(wanted, sizeof wanted, "an end within the %zu bytes of data",
                 h->n_data_bytes);
        return bad_tensor(h, t->name, found, wanted);
    }
    t->offset = (size_t)begin;
    t->n_bytes = (size_t)(end - begin);
    return STATUS_OK;
}

/* Exactly dtype, shape and data_offsets, and these fit one another. */
static enum status read_tensor(const struct header *h, const json_t *value,
                               struct safetensors_tensor *t) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    char found[96], expected[160], shape[96];
    if (!json_is_object(value))
        return bad_tensor(h, t->name, "a description that is not an object",
                          "dtype, shape and data_offsets");
    for (size_t i = 0; i < 3; i++) {
        if (json_object_get(value, fields[i]))
            continue;
        snprintf(found, sizeof found, "no %s", fields[i]);
        return bad_tensor(h, t->name, found, "dtype, shape and data_offsets");
    }
    if (json_object_size(value) != 3)
        return bad_tensor(h, t->name, "an unknown field",
                          "dtype, shape and data_offsets");
    enum status status = read_dtype(h, json_object_get(value, "dtype"), t);
    if (status == STATUS_OK)
        status = read_shape(h, json_object_get(value, "shape"), t);
    if (status == STATUS_OK)
        status = read_offsets(h, json_object_get(value, "data_offsets"), t);
    if (status != STATUS_OK)
        return status;

    size_t n_element = DTYPES[t->dtype].n_bytes, n_expected;
    if (!size_multiply(t->n_elements, n_element, &n_expected))
        return bad_tensor(h, t->name, "a shape with too many bytes",
                          "a product under 2^64");
    if (t->n_bytes != n_expected) {
        safetensors_shape_text(t, shape, sizeof shape);
        snprintf(found, sizeof found, "%zu bytes of data", t->n_bytes);
        snprintf(expected, sizeof expected, "%zu for %s of %s", n_expected,
                 DTYPES[t->dtype].name, shape);
        return bad_tensor(h, t->name, found, expected);
    }
    if (t->offset % n_element != 0) {
        snprintf(found, sizeof found, "its data at offset %zu", t->offset);
        snprintf(expected, sizeof expected, "a multiple of %zu", n_element);
        return bad_tensor(h, t->name, found, expected);
    }
    return STATUS_OK;
}

static enum status check_metadata(const struct header *h, const json_t *value) {
    size_t n_bytes = 0;
    const char *key;
    json_t *text;
    if (!json_is_object(value))
        return error_set(h->err, STATUS_INVALID,
                         "%s: __metadata__ is not an object, expected one of strings",
                         h->file);
    json_object_foreach((json_t *)value, key, text) {
        if (!json_is_string(text))
            return error_set(h->err, STATUS_INVALID,
                             "%s: __metadata__ holds what is not a string", h->file);
        n_bytes += strlen(key) + json_string_length(text);
    }
    if (n_bytes > MAX_METADATA_BYTES)
        return error_set(h->err, STATUS_LIMIT,
                         "%s: __metadata__ has %zu bytes, the limit is %u", h->file,
                         n_bytes, MAX_METADATA_BYTES);
    return STATUS_OK;
}

static int by_offset(const void *a, const void *b) {
    const struct safetensors_tensor *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int by_name(const void *a, const void *b) {
    const struct safetensors_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Every byte of the data belongs to exactly one tensor. */
static enum status check_cover(const struct header *h,
                               struct safetensors_tensor *tensors, size_t n_tensors) {
    size_t at = 0;
    qsort(tensors, n_tensors, sizeof *tensors, by_offset);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct safetensors_tensor *t = &tensors[i];
        if (t->offset < at)
            return error_set(h->err, STATUS_INVALID,
                             "%s: tensor \"%s\" overlaps another: it begins at %zu, "
                             "expected %zu",
                             h->file, t->name, t->offset, at);
        if (t->offset > at)
            return error_set(
                h->err, STATUS_INVALID,
                "%s: a hole in the data before tensor \"%s\": it begins at "
                "%zu, expected %zu",
                h->file, t->name, t->offset, at);
        at += t->n_bytes;
    }
    if (at != h->n_data_bytes)
        return error_set(h->err, STATUS_INVALID,
                         "%s: %zu bytes behind the last tensor, expected none", h->file,
                         h->n_data_bytes - at);
    qsort(tensors, n_tensors, sizeof *tensors, by_name);
    return STATUS_OK;
}

/* A header has no negative number, so a minus outside of strings can only be -0, which
 * reads as 0 but is not how an offset is written. */
static bool has_minus(const char *text, size_t n_bytes) {
    bool in_string = false;
    for (size_t i = 0; i < n_bytes; i++) {
        if (text[i] == '"')
            in_string = !in_string;
        else if (text[i] == '\\' && in_string)
            i++;
        else if (text[i] == '-' && !in_string)
            return true;
    }
    return false;
}

static enum status read_tensors(const struct header *h, const json_t *root,
                                struct safetensors_shard *shard) {
    const char *key;
    json_t *value;
    size_t n_entries = json_object_size(root), n_names = 0, n_bytes;
    enum status status = STATUS_OK;
    if (n_entries > (size_t)MAX_TENSORS + 1)
        return error_set(h->err, STATUS_LIMIT, "%s has %zu tensors, the limit is %u",
                         h->file, n_entries, MAX_TENSORS);
    json_object_foreach((json_t *)root, key, value) n_names += strlen(key) + 1;
    if (!size_multiply(n_entries + 1, sizeof *shard->tensors, &n_bytes) ||
        !(shard->tensors = calloc(1, n_bytes)) || !(shard->names = malloc(n_names + 1)))
        return error_set(h->err, STATUS_NO_MEMORY, "no memory for %zu tensors of %s",
                         n_entries, h->file);
    char *name = shard->names;
    json_object_foreach((json_t *)root, key, value) {
        if (strcmp(key, "__metadata__") == 0) {
            if ((status = check_metadata(h, value)) != STATUS_OK)
                return status;
            continue;
        }
        if (!is_name(key))
            return error_set(h->err, STATUS_INVALID,
                             "%s: tensor %zu has a name of %zu bytes, expected 1 to %d "
                             "printable ASCII characters",
                             h->file, shard->n_tensors, strlen(key),
                             SAFETENSORS_MAX_NAME_BYTES);
        struct safetensors_tensor *t = &shard->tensors[shard->n_tensors++];
        memcpy(name, key, strlen(key) + 1);
        t->name = name;
        name += strlen(key) + 1;
        if ((status = read_tensor(h, value, t)) != STATUS_OK)
            return status;
    }
    if (shard->n_tensors > MAX_TENSORS)
        return error_set(h->err, STATUS_LIMIT, "%s has %zu tensors, the limit is %u",
                         h->file, shard->n_tensors, MAX_TENSORS);
    return check_cover(h, shard->tensors, shard->n_tensors);
}

static enum status parse_header(const struct header *h, const char *text,
                                size_t n_bytes, struct safetensors_shard *shard) {
    json_t *root = NULL;
    enum status status = json_parse(text, n_bytes, &HEADER_LIMITS, &root, h->err);
    if (status != STATUS_OK) {
        error_prefix(h->err, "%s: header", h->file);
        return status;
    }
    if (!json_is_object(root))
        status = error_set(h->err, STATUS_INVALID,
                           "%s: the header is not an object, expected one of tensors",
                           h->file);
    else
        status = read_tensors(h, root, shard);
    if (status == STATUS_OK && has_minus(text, n_bytes))
        status = error_set(h->err, STATUS_INVALID,
                           "%s: the header has a number with a minus, expected none",
                           h->file);
    json_decref(root);
    return status;
}

/* N from the first eight bytes, held against the file's size. */
static enum status read_length(const char *file, const uint8_t *bytes, size_t n_file,
                               size_t *n_header, struct error *err) {
    uint64_t n = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | bytes[i];
    if (n < MIN_HEADER_BYTES || n > MAX_HEADER_BYTES)
        return error_set(err, STATUS_INVALID,
                         "%s says its header has %llu bytes, expected %d to %u", file,
                         (unsigned long long)n, MIN_HEADER_BYTES, MAX_HEADER_BYTES);
    if (n > n_file - LENGTH_BYTES)
        return error_set(err, STATUS_INVALID,
                         "%s has %zu bytes, too few for its header of %llu", file,
                         n_file, (unsigned long long)n);
    *n_header = (size_t)n;
    return STATUS_OK;
}

static enum status check_size(const char *file, size_t n_bytes, struct error *err) {
    if (n_bytes >= LENGTH_BYTES + MIN_HEADER_BYTES)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "%s has %zu bytes, too few for a safetensors file", file, n_bytes);
}

enum status safetensors_shard_open(struct safetensors_shard *shard, bool allow_i8,
                                   struct error *err) {
    uint8_t length[LENGTH_BYTES];
    char *text = NULL;
    size_t n_header;
    enum status status = file_open(shard->path, MAX_FILE_BYTES, &shard->file, err);
    if (status != STATUS_OK)
        return status;
    if ((status = check_size(shard->path, shard->file.n_bytes, err)) != STATUS_OK ||
        (status = file_take(&shard->file, length, sizeof length, err)) != STATUS_OK ||
        (status = read_length(shard->path, length, shard->file.n_bytes, &n_header,
                              err)) != STATUS_OK)
        goto out;
    if (!(text = malloc(n_header))) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for the header of %s",
                           shard->path);
        goto out;
    }
    if ((status = file_take(&shard->file, text, n_header, err)) != STATUS_OK ||
        (status = sha256_open(&shard->hash, err)) != STATUS_OK ||
        (status = sha256_add(&shard->hash, length, sizeof length, err)) != STATUS_OK ||
        (status = sha256_add(&shard->hash, text, n_header, err)) != STATUS_OK)
        goto out;
    shard->n_data_bytes = shard->file.n_bytes - shard->file.at;
    struct header h = {.file = shard->path,
                       .n_data_bytes = shard->n_data_bytes,
                       .allow_i8 = allow_i8,
                       .err = err};
    status = parse_header(&h, text, n_header, shard);
out:
    free(text);
    return status;
}

/* ---- the data ---- */

/* All finite? Four halves or two floats at a time: an exponent of all ones carries into the
 * lane's top bit when its lowest bit is added. */
static bool is_finite(const uint8_t *data, size_t n_bytes, uint64_t exponent,
                      uint64_t one, uint64_t top) {
    uint64_t bad = 0, word;
    size_t at = 0;
    for (; n_bytes - at >= sizeof word; at += sizeof word) {
        memcpy(&word, data + at, sizeof word);
        bad |= (word & exponent) + one;
    }
    word = 0;
    memcpy(&word, data + at, n_bytes - at);
    bad |= (word & exponent) + one;
    return (bad & top) == 0;
}

static const struct {
    uint64_t exponent, one, top;
} LANES[] = {
    [SAFETENSORS_F32] = {0x7F8000007F800000, 0x0080000000800000, 0x8000000080000000},
    [SAFETENSORS_F16] = {0x7C007C007C007C00, 0x0400040004000400, 0x8000800080008000},
    [SAFETENSORS_BF16] = {0x7F807F807F807F80, 0x0080008000800080, 0x8000800080008000},
    [SAFETENSORS_I64] = {0, 0, 0},
    [SAFETENSORS_I8] = {0, 0, 0},
};

static enum status check_finite(const char *file, const struct safetensors_tensor *t,
                                struct error *err) {
    const uint8_t *data = t->data;
    uint64_t exponent = LANES[t->dtype].exponent, one = LANES[t->dtype].one,
             top = LANES[t->dtype].top;
    if (exponent == 0 || is_finite(data, t->n_bytes, exponent, one, top))
        return STATUS_OK;
    size_t n_element = DTYPES[t->dtype].n_bytes, i = 0;
    while (i + 1 < t->n_elements &&
           is_finite(data + i * n_element, n_element, exponent, one, top))
        i++;
    return error_set(err, STATUS_INVALID,
                     "%s: tensor \"%s\" has NaN or infinity as element %zu of %zu, "
                     "expected finite numbers",
                     file, t->name, i, t->n_elements);
}

enum status safetensors_shard_read(struct safetensors_shard *shard, struct error *err) {
    enum status status = STATUS_OK;
    size_t n = shard->n_data_bytes, at = 0;
    shard->block = memory_aligned(n);
    if (!shard->block)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the %zu bytes of %s", n,
                         shard->path);
    while (status == STATUS_OK && at < n) {
        size_t piece = n - at < READ_PIECE_BYTES ? n - at : READ_PIECE_BYTES;
        status = file_take(&shard->file, shard->block + at, piece, err);
        if (status == STATUS_OK)
            status = sha256_add(&shard->hash, shard->block + at, piece, err);
        at += piece;
    }
    if (status == STATUS_OK)
        status = file_finish(&shard->file, err);
    if (status != STATUS_OK)
        return status;
    sha256_finish(&shard->hash, shard->digest);
    sha256_close(&shard->hash);
    file_close(&shard->file);
    return STATUS_OK;
}

enum status safetensors_shard_attach(const struct safetensors_shard *shard,
                                     struct safetensors_tensor *t, const void *data,
                                     struct error *err) {
    t->data = (const uint8_t *)data + t->offset;
    return check_finite(shard->path, t, err);
}

void safetensors_shard_close(struct safetensors_shard *shard) {
    free(shard->tensors);
    free(shard->names);
    free(shard->block);
    sha256_close(&shard->hash);
    file_close(&shard->file);
}

enum status safetensors_parse(const void *image, size_t n_bytes, const char *name,
                              bool allow_i8, struct safetensors *out,
                              struct error *err) {
    const uint8_t *bytes = image;
    size_t n_header = 0;
    memset(out, 0, sizeof *out);
    enum status status = check_size(name, n_bytes, err);
    if (status == STATUS_OK)
        status = read_length(name, bytes, n_bytes, &n_header, err);
    if (status != STATUS_OK)
        return status;
    struct safetensors_shard *shard = calloc(1, sizeof *shard);
    if (!shard)
        return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", name);
    out->shards = shard;
    out->n_shards = 1;
    snprintf(shard->path, sizeof shard->path, "%s", name);
    const uint8_t *data = bytes + LENGTH_BYTES + n_header;
    shard->n_data_bytes = n_bytes - LENGTH_BYTES - n_header;
    struct header h = {.file = shard->path,
                       .n_data_bytes = shard->n_data_bytes,
                       .allow_i8 = allow_i8,
                       .err = err};
    status = parse_header(&h, (const char *)bytes + LENGTH_BYTES, n_header, shard);
    for (size_t i = 0; status == STATUS_OK && i < shard->n_tensors; i++)
        status = safetensors_shard_attach(shard, &shard->tensors[i], data, err);
    if (status != STATUS_OK) {
        safetensors_close(out);
        return status;
    }
    out->tensors = shard->tensors;
    out->n_tensors = shard->n_tensors;
    out->n_data_bytes = shard->n_data_bytes;
    shard->tensors = NULL;
    return STATUS_OK;
}
