/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_safetensors.c - a file's image: what is accepted lies inside it and covers its data.
 *
 * Input: a byte of flags, then the image; or, with bit 1, a header that ends with NUL and
 * the data behind it, for which the length is written and the data padded.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool is_true) {
    if (!is_true)
        abort();
}

/* 8 bytes of length, the header, and as much data as flags >> 2 says, at least. */
static uint8_t *make_image(uint8_t flags, const uint8_t *data, size_t n_bytes,
                           size_t *n_image) {
    const uint8_t *end = memchr(data, 0, n_bytes);
    size_t n_header = end ? (size_t)(end - data) : n_bytes;
    size_t n_given = end ? n_bytes - n_header - 1 : 0;
    size_t n_data = n_given ? n_given : (size_t)(flags >> 2) * 4;
    uint8_t *image = calloc(1, 8 + n_header + n_data);
    require(image != NULL);
    for (size_t i = 0; i < 8; i++)
        image[i] = (uint8_t)(n_header >> 8 * i);
    memcpy(image + 8, data, n_header);
    if (n_given)
        memcpy(image + 8 + n_header, end + 1, n_given);
    *n_image = 8 + n_header + n_data;
    return image;
}

static void check(const struct safetensors *st, const uint8_t *image, size_t n_image,
                  bool allow_i8) {
    size_t n_data = 0;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < st->n_tensors; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        const uint8_t *p = t->data;
        size_t n = 1;
        char text[128];
        require(i == 0 || strcmp(st->tensors[i - 1].name, t->name) < 0);
        require(safetensors_find(st, t->name) == t);
        require(t->dtype != SAFETENSORS_I8 || allow_i8);
        require(t->n_dims >= 0 && t->n_dims <= SAFETENSORS_MAX_DIMS);
        for (int32_t d = 0; d < t->n_dims; d++)
            n *= (size_t)t->dims[d];
        require(n == t->n_elements && n > 0);
        require(n * safetensors_dtype_bytes(t->dtype) == t->n_bytes);
        require(p >= image && t->n_bytes <= (size_t)(image + n_image - p));
        for (size_t k = 0; k < t->n_bytes; k++)
            sum = (uint8_t)(sum + p[k]);
        safetensors_shape_text(t, text, sizeof text);
        n_data += t->n_bytes;
    }
    /* No byte in two tensors, none in none: lengths add up only then. */
    require(n_data == st->n_data_bytes && n_data < n_image);
    require(!safetensors_find(st, "no such tensor \x01"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 1)
        return 0;
    uint8_t flags = data[0];
    size_t n_image = n_bytes - 1;
    uint8_t *made = NULL;
    const uint8_t *image = data + 1;
    struct safetensors st;
    struct error err = {0};
    if (flags & 2)
        image = made = make_image(flags, data + 1, n_bytes - 1, &n_image);
    if (safetensors_parse(image, n_image, "fuzz", flags & 1, &st, &err) == STATUS_OK) {
        check(&st, image, n_image, flags & 1);
        safetensors_close(&st);
    } else {
        require(err.status != STATUS_OK && err.message[0] != '\0');
    }
    free(made);
    return 0;
}
