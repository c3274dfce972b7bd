/* SPDX-License-Identifier: Apache-2.0
 *
 * config.c - reads config.json as `transformers` writes it, with a bound on every number.
 *
 * A field that is absent has the default of transformers' DistilBertConfig, as it has there.
 * Fields that do not change the answers (dropout, initializer_range, token ids) are ignored.
 */
#include "model/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

/* A config.json has 1 to 3 KiB; one with 1,024 labels and both maps some 100 KiB. */
static const struct json_limits CONFIG_LIMITS = {
    .max_bytes = 1 << 20, .max_depth = 8, .max_values = 16384, .max_key_bytes = 256};

/* What one bound of each is for: 128 layers keep the file under the 4,096 tensors that
 * weights/safetensors reads; the rest keep every product of two sizes inside 2^31. */
#define MAX_LAYERS 128
#define MAX_HEADS 256
#define MAX_DIM 16384
#define MAX_HIDDEN 65536
#define MAX_VOCABULARY 131072
#define MIN_POSITIONS 3 /* [CLS], one token, [SEP] */
#define MAX_POSITIONS 65536

/* What `vigil model quantize` writes as quantization_config.quant_method. */
#define QUANT_METHOD "vigil-int8"

struct size_field {
    const char *name;
    size_t offset; /* in struct model_config */
    int32_t min, max, fallback;
};

#define FIELD(member) offsetof(struct model_config, member)
static const struct size_field SIZES[] = {
    {"n_layers", FIELD(n_layers), 1, MAX_LAYERS, 6},
    {"n_heads", FIELD(n_heads), 1, MAX_HEADS, 12},
    {"dim", FIELD(dim), 1, MAX_DIM, 768},
    {"hidden_dim", FIELD(hidden_dim), 1, MAX_HIDDEN, 3072},
    {"vocab_size", FIELD(vocab_size), 1, MAX_VOCABULARY, 30522},
    {"max_position_embeddings", FIELD(max_positions), MIN_POSITIONS, MAX_POSITIONS,
     512},
};

/* One reading of one file. */
struct reader {
    const json_t *root;
    const char *name; /* of the file, for messages */
    struct error *err;
};

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

static enum status wrong_type(const struct reader *r, const char *field,
                              const json_t *value, const char *expected) {
    return error_set(r->err, STATUS_INVALID, "%s: \"%s\" is %s, expected %s", r->name,
                     field, type_name(value), expected);
}

/* The field's value; NULL when it is absent or null, which mean the same here. */
static const json_t *get(const struct reader *r, const char *field) {
    const json_t *value = json_object_get(r->root, field);
    return value && json_is_null(value) ? NULL : value;
}

static enum status read_size(const struct reader *r, const char *field, int32_t min,
                             int32_t max, int32_t fallback, int32_t *out) {
    const json_t *value = get(r, field);
    *out = fallback;
    if (!value)
        return STATUS_OK;
    if (!json_is_integer(value)) {
        char expected[64];
        snprintf(expected, sizeof expected, "an integer from %d to %d", min, max);
        return wrong_type(r, field, value, expected);
    }
    json_int_t n = json_integer_value(value);
    if (n < min || n > max)
        return error_set(r->err, STATUS_INVALID,
                         "%s: \"%s\" is %" JSON_INTEGER_FORMAT
                         ", expected an integer from %d to %d",
                         r->name, field, n, min, max);
    *out = (int32_t)n;
    return STATUS_OK;
}

/* A string without control characters, so that it can stand in a message. */
static bool is_clean(const json_t *value) {
    const char *text = json_string_value(value);
    for (size_t i = 0; i < json_string_length(value); i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F)
            return false;
    return true;
}

struct choice {
    const char *text;
    int value;
};

/* A string that must be one of choices; *out stays as it is when the field is absent. */
static enum status read_choice(const struct reader *r, const char *field,
                               const struct choice *choices, size_t n_choices,
                               int *out) {
    const json_t *value = get(r, field);
    char expected[160] = "";
    size_t n = 0;
    if (!value)
        return STATUS_OK;
    for (size_t i = 0; i < n_choices; i++) {
        int more = snprintf(expected + n, sizeof expected - n, "%s\"%s\"",
                            i == 0               ? ""
                            : i + 1 == n_choices ? " or "
                                                 : ", ",
                            choices[i].text);
        n += more > 0 ? (size_t)more : 0;
    }
    if (!json_is_string(value))
        return wrong_type(r, field, value, expected);
    for (size_t i = 0; i < n_choices; i++) {
        if (strlen(choices[i].text) == json_string_length(value) &&
            strcmp(choices[i].text, json_string_value(value)) == 0) {
            *out = choices[i].value;
            return STATUS_OK;
        }
    }
    return error_set(r->err, STATUS_UNSUPPORTED, "%s: \"%s\" is \"%.40s\", expected %s",
                     r->name, field, is_clean(value) ? json_string_value(value) : "?",
                     expected);
}

/* Copies a label into out; it must be text that fits. */
static enum status copy_label(const struct reader *r, const char *field, size_t index,
                              const char *text, size_t n_bytes,
                              char out[MODEL_MAX_LABEL_BYTES]) {
    if (n_bytes == 0 || n_bytes >= MODEL_MAX_LABEL_BYTES)
        return error_set(r->err, STATUS_INVALID,
                         "%s: \"%s\": label %zu has %zu bytes, expected 1 to %d",
                         r->name, field, index, n_bytes, MODEL_MAX_LABEL_BYTES - 1);
    for (size_t i = 0; i < n_bytes; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F)
            return error_set(r->err, STATUS_INVALID,
                             "%s: \"%s\": label %zu holds a control character", r->name,
                             field, index);
    memcpy(out, text, n_bytes);
    out[n_bytes] = '\0';
    return STATUS_OK;
}

/* Reads "0", "12": a number below n without sign or leading zeros; -1 for anything else. */
static int32_t read_index(const char *key, size_t n) {
    size_t value = 0, n_bytes = strlen(key);
    if (n_bytes == 0 || n_bytes > 6 || (key[0] == '0' && n_bytes > 1))
        return -1;
    for (size_t i = 0; i < n_bytes; i++) {
        if (key[i] < '0' || key[i] > '9')
            return -1;
        value = value * 10 + (size_t)(key[i] - '0');
    }
    return value < n ? (int32_t)value : -1;
}

static enum status check_label_count(const struct reader *r, const char *field,
                                     const json_t *map) {
    if (!json_is_object(map))
        return wrong_type(r, field, map, "an object");
    size_t n = json_object_size(map);
    if (n < 1 || n > MODEL_MAX_LABELS)
        return error_set(r->err, STATUS_INVALID,
                         "%s: \"%s\" has %zu labels, expected 1 to %d", r->name, field,
                         n, MODEL_MAX_LABELS);
    return STATUS_OK;
}

/* No two labels may be the same. 1,024 labels make half a million comparisons at worst. */
static enum status check_unique(const struct reader *r, const char *field,
                                char (*labels)[MODEL_MAX_LABEL_BYTES], int32_t n) {
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < i; j++)
            if (strcmp(labels[i], labels[j]) == 0)
                return error_set(r->err, STATUS_INVALID,
                                 "%s: \"%s\": labels %d and %d are both \"%s\"",
                                 r->name, field, j, i, labels[i]);
    return STATUS_OK;
}

static enum status allocate_labels(const struct reader *r, size_t n,
                                   char (**out)[MODEL_MAX_LABEL_BYTES]) {
    *out = calloc(n, MODEL_MAX_LABEL_BYTES);
    if (!*out)
        return error_set(r->err, STATUS_NO_MEMORY, "no memory for %zu labels", n);
    return STATUS_OK;
}

/* {"0": "name", …}: every index from 0 on, once. */
static enum status read_id2label(const struct reader *r, const char *field,
                                 const json_t *map, char (**out)[MODEL_MAX_LABEL_BYTES],
                                 int32_t *n_out) {
    enum status status = check_label_count(r, field, map);
    if (status != STATUS_OK)
        return status;
    size_t n = json_object_size(map);
    if ((status = allocate_labels(r, n, out)) != STATUS_OK)
        return status;
    *n_out = (int32_t)n;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value) {
        int32_t index = read_index(key, n);
        if (index < 0)
            return error_set(
                r->err, STATUS_INVALID,
                "%s: \"%s\" has %zu labels, and a key that is not an index "
                "from 0 to %zu",
                r->name, field, n, n - 1);
        if (!json_is_string(value))
            return wrong_type(r, field, value, "an object of strings");
        status = copy_label(r, field, (size_t)index, json_string_value(value),
                            json_string_length(value), (*out)[index]);
        if (status != STATUS_OK)
            return status;
    }
    return check_unique(r, field, *out, *n_out);
}

/* {"name": 0, …}, when there is no id2label. */
static enum status read_label2id(const struct reader *r, const json_t *map,
                                 struct model_config *c) {
    enum status status = check_label_count(r, "label2id", map);
    if (status != STATUS_OK)
        return status;
    size_t n = json_object_size(map);
    if ((status = allocate_labels(r, n, &c->labels)) != STATUS_OK)
        return status;
    c->n_labels = (int32_t)n;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value) {
        json_int_t index = json_is_integer(value) ? json_integer_value(value) : -1;
        if (index < 0 || index >= (json_int_t)n)
            return error_set(r->err, STATUS_INVALID,
                             "%s: \"label2id\" has %zu labels, and a value that is not "
                             "an index from 0 to %zu",
                             r->name, n, n - 1);
        if (c->labels[index][0])
            return error_set(r->err, STATUS_INVALID,
                             "%s: \"label2id\" has index %d twice", r->name,
                             (int)index);
        status = copy_label(r, "label2id", (size_t)index, key, strlen(key),
                            c->labels[index]);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* A label2id beside an id2label may hold other names (transformers leaves its defaults
 * there), but not the same name with another index. */
static enum status check_label2id(const struct reader *r, const json_t *map,
                                  const struct model_config *c) {
    if (!json_is_object(map))
        return wrong_type(r, "label2id", map, "an object");
    for (int32_t i = 0; i < c->n_labels; i++) {
        const json_t *index = json_object_get(map, c->labels[i]);
        if (index && (!json_is_integer(index) || json_integer_value(index) != i))
            return error_set(r->err, STATUS_INVALID,
                             "%s: \"label2id\" contradicts \"id2label\" on label %d, "
                             "\"%s\"",
                             r->name, i, c->labels[i]);
    }
    return STATUS_OK;
}

/* LABEL_0, LABEL_1, … as transformers names them. */
static enum status default_labels(const struct reader *r, int32_t n,
                                  struct model_config *c) {
    enum status status = allocate_labels(r, (size_t)n, &c->labels);
    if (status != STATUS_OK)
        return status;
    c->n_labels = n;
    for (int32_t i = 0; i < n; i++)
        snprintf(c->labels[i], MODEL_MAX_LABEL_BYTES, "LABEL_%d", i);
    return STATUS_OK;
}

static enum status read_labels(const struct reader *r, struct model_config *c) {
    const json_t *id2label = get(r, "id2label"), *label2id = get(r, "label2id");
    int32_t n_labels;
    enum status status = read_size(r, "num_labels", 1, MODEL_MAX_LABELS, 0, &n_labels);
    if (status != STATUS_OK)
        return status;
    if (id2label)
        status = read_id2label(r, "id2label", id2label, &c->labels, &c->n_labels);
    else if (label2id)
        status = read_label2id(r, label2id, c);
    else
        status = default_labels(r, n_labels ? n_labels : 2, c);
    if (status == STATUS_OK && id2label && label2id)
        status = check_label2id(r, label2id, c);
    if (status == STATUS_OK && n_labels && n_labels != c->n_labels)
        status =
            error_set(r->err, STATUS_INVALID,
                      "%s: \"num_labels\" is %d, but \"%s\" has %d labels", r->name,
                      n_labels, id2label ? "id2label" : "label2id", c->n_labels);
    const json_t *tags = get(r, "token_id2label");
    if (status == STATUS_OK && tags)
        status =
            read_id2label(r, "token_id2label", tags, &c->tag_labels, &c->n_tag_labels);
    return status;
}

static enum status read_problem(const struct reader *r, struct model_config *c) {
    static const struct choice problems[] = {
        {"single_label_classification", PROBLEM_SINGLE_LABEL},
        {"multi_label_classification", PROBLEM_MULTI_LABEL},
        {"regression", PROBLEM_REGRESSION}};
    int problem = c->n_labels == 1 ? PROBLEM_REGRESSION : PROBLEM_SINGLE_LABEL;
    enum status status = read_choice(r, "problem_type", problems, 3, &problem);
    if (status != STATUS_OK)
        return status;
    c->problem_type = (enum problem_type)problem;
    if (c->problem_type == PROBLEM_SINGLE_LABEL && c->n_labels < 2)
        return error_set(r->err, STATUS_INVALID,
                         "%s: \"problem_type\" is single_label_classification with 1 "
                         "label, expected 2 or more",
                         r->name);
    return STATUS_OK;
}

/* Fields that must be right or absent, and that only choose between few things. */
static enum status read_kinds(const struct reader *r, struct model_config *c) {
    static const struct choice model_types[] = {{"distilbert", 0}};
    static const struct choice activations[] = {{"gelu", 0}, {"relu", 1}};
    static const struct choice dtypes[] = {
        {"float32", 0}, {"float16", 0}, {"bfloat16", 0}};
    int ignored = 0, is_relu = 0;
    enum status status = read_choice(r, "model_type", model_types, 1, &ignored);
    if (status == STATUS_OK)
        status = read_choice(r, "activation", activations, 2, &is_relu);
    if (status == STATUS_OK)
        status = read_choice(r, "torch_dtype", dtypes, 3, &ignored);
    if (status == STATUS_OK)
        status = read_choice(r, "dtype", dtypes, 3, &ignored);
    if (status != STATUS_OK)
        return status;
    c->has_relu_activation = is_relu != 0;
    const json_t *sinusoidal = get(r, "sinusoidal_pos_embds");
    if (sinusoidal && !json_is_boolean(sinusoidal))
        return wrong_type(r, "sinusoidal_pos_embds", sinusoidal, "a boolean");
    return STATUS_OK;
}

static enum status read_quantization(const struct reader *r, struct model_config *c) {
    const json_t *quantization = get(r, "quantization_config");
    if (!quantization)
        return STATUS_OK;
    if (!json_is_object(quantization))
        return wrong_type(r, "quantization_config", quantization, "an object");
    static const struct choice methods[] = {{QUANT_METHOD, 1}};
    struct reader inner = {.root = quantization, .name = r->name, .err = r->err};
    int is_ours = 0;
    enum status status = read_choice(&inner, "quant_method", methods, 1, &is_ours);
    if (status != STATUS_OK)
        return status;
    if (!is_ours)
        return error_set(r->err, STATUS_INVALID,
                         "%s: \"quantization_config\" has no \"quant_method\"",
                         r->name);
    c->is_quantized = true;
    return STATUS_OK;
}

static enum status read_config(const struct reader *r, struct model_config *c) {
    enum status status = STATUS_OK;
    if (!json_is_object(r->root))
        return error_set(r->err, STATUS_INVALID, "%s is %s, expected an object",
                         r->name, type_name(r->root));
    status = read_kinds(r, c);
    for (size_t i = 0; status == STATUS_OK && i < sizeof SIZES / sizeof *SIZES; i++) {
        const struct size_field *f = &SIZES[i];
        status = read_size(r, f->name, f->min, f->max, f->fallback,
                           (int32_t *)((char *)c + f->offset));
    }
    if (status != STATUS_OK)
        return status;
    if (c->dim % c->n_heads != 0)
        return error_set(r->err, STATUS_INVALID,
                         "%s: \"dim\" is %d, expected a multiple of \"n_heads\", %d",
                         r->name, c->dim, c->n_heads);
    c->head_dim = c->dim / c->n_heads;
    if ((status = read_labels(r, c)) != STATUS_OK ||
        (status = read_problem(r, c)) != STATUS_OK)
        return status;
    return read_quantization(r, c);
}

enum status model_config_parse(const char *json, size_t n_bytes, const char *name,
                               struct model_config *config, struct error *err) {
    json_t *root = NULL;
    memset(config, 0, sizeof *config);
    enum status status = json_parse(json, n_bytes, &CONFIG_LIMITS, &root, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s", name);
        return status;
    }
    struct reader r = {.root = root, .name = name, .err = err};
    status = read_config(&r, config);
    if (status != STATUS_OK)
        model_config_free(config);
    json_decref(root);
    return status;
}

enum status model_config_read(const char *model_dir, struct model_config *config,
                              struct error *err) {
    char path[FILE_PATH_BYTES];
    char *text = NULL;
    size_t n_bytes;
    memset(config, 0, sizeof *config);
    enum status status = file_path(path, model_dir, "config.json", err);
    if (status == STATUS_OK)
        status = file_read(path, CONFIG_LIMITS.max_bytes, &text, &n_bytes, err);
    if (status == STATUS_OK)
        status = model_config_parse(text, n_bytes, path, config, err);
    free(text);
    return status;
}

void model_config_free(struct model_config *config) {
    if (!config)
        return;
    free(config->labels);
    free(config->tag_labels);
    memset(config, 0, sizeof *config);
}
