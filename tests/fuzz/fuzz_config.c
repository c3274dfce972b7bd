/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_config.c - config.json: what is accepted can be computed with.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static void check_labels(const char (*labels)[MODEL_MAX_LABEL_BYTES], int32_t n) {
    for (int32_t i = 0; i < n; i++)
        require(memchr(labels[i], '\0', MODEL_MAX_LABEL_BYTES) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    struct model_config c = {0};
    struct error err = {0};
    if (model_config_parse((const char *)data, n_bytes, "fuzz", &c, &err) !=
        STATUS_OK) {
        require(err.status != STATUS_OK && err.message[0] != '\0' && !c.labels &&
                !c.tag_labels);
        return 0;
    }
    require(c.n_layers > 0 && c.n_heads > 0 && c.head_dim > 0 && c.hidden_dim > 0 &&
            c.vocab_size > 0 && c.max_positions > 0);
    require((int64_t)c.n_heads * c.head_dim == c.dim);
    require(c.n_labels > 0 && c.n_labels <= MODEL_MAX_LABELS && c.labels);
    require(c.n_tag_labels >= 0 && c.n_tag_labels <= MODEL_MAX_LABELS);
    require((c.n_tag_labels > 0) == (c.tag_labels != NULL));
    require(c.problem_type != PROBLEM_SINGLE_LABEL || c.n_labels > 1);
    check_labels((const char(*)[MODEL_MAX_LABEL_BYTES])c.labels, c.n_labels);
    check_labels((const char(*)[MODEL_MAX_LABEL_BYTES])c.tag_labels, c.n_tag_labels);
    model_config_free(&c);
    return 0;
}
