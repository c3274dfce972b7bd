/* SPDX-License-Identifier: Apache-2.0
 *
 * random.c - writes the files of a random model.
 *
 * The config is written first, as text, and read back by the same reader that every model
 * goes through; the tensors are then those that it implies.
 */
#include "model/random.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/half.h"
#include "base/memory.h"
#include "model/checkpoint.h"
#include "weights/safetensors.h"

#define DEVIATION 0.02f /* DistilBertConfig.initializer_range */
#define DEFAULT_VOCABULARY 30522
#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_VOCABULARY_BYTES ((size_t)16 << 20)

/* ---- numbers ---- */

/* splitmix64: small, and the same everywhere. */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* Normal enough, by sums of integers, so that no libm decides a bit of it: twelve uniform
 * numbers of 16 bits have the variance 1 in units of 2^16. */
static float next_normal(uint64_t *state) {
    int32_t sum = -6 * 65535;
    for (int i = 0; i < 3; i++)
        for (uint64_t word = next_random(state), k = 0; k < 4; k++, word >>= 16)
            sum += (int32_t)(word & 0xFFFF);
    return (float)sum * 0x1p-16f;
}

static void store(void *data, enum safetensors_dtype dtype, size_t i, float value) {
    if (dtype == SAFETENSORS_F32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] =
            dtype == SAFETENSORS_F16 ? half_from_float(value) : bf16_from_float(value);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* transformers' create_sinusoidal_embeddings: sines at even columns, cosines at odd. */
static float sinusoid(size_t row, size_t col, size_t n_cols) {
    double angle = (double)row / pow(10000.0, (double)(col / 2 * 2) / (double)n_cols);
    return (float)(col % 2 == 0 ? sin(angle) : cos(angle));
}

static void fill(const struct tensor_shape *shape, const struct random_options *o,
                 uint64_t *state, struct safetensors_tensor *t) {
    size_t n_cols = (size_t)shape->n_cols;
    void *data = (void *)(uintptr_t)t->data;
    bool is_norm = shape->is_vector && ends_with(shape->name, "orm.weight");
    bool is_sinusoid =
        o->is_sinusoidal && ends_with(shape->name, "position_embeddings.weight");
    size_t n_padding = ends_with(shape->name, "word_embeddings.weight") ? n_cols : 0;
    for (size_t i = 0; i < t->n_elements; i++) {
        float value = is_norm       ? 1.0f
                      : is_sinusoid ? sinusoid(i / n_cols, i % n_cols, n_cols)
                                    : next_normal(state) * DEVIATION;
        store(data, t->dtype, i, i < n_padding ? 0.0f : value);
    }
}

/* ---- files ---- */

static enum status append_labels(struct buffer *b, int64_t n, struct error *err) {
    enum status status = buffer_printf(b, err, "  \"id2label\": {");
    for (int64_t i = 0; status == STATUS_OK && i < n; i++)
        status = buffer_printf(b, err, "%s\"%lld\": \"LABEL_%lld\"", i ? ", " : "",
                               (long long)i, (long long)i);
    return status == STATUS_OK ? buffer_printf(b, err, "},\n") : status;
}

/* O, B-T0, I-T0, B-T1, …; ADE, DRUG and INDICATION are the first three types. */
static enum status append_tags(struct buffer *b, int64_t n, struct error *err) {
    static const char *const known[] = {"ADE", "DRUG", "INDICATION"};
    enum status status = buffer_printf(b, err, "  \"token_id2label\": {\"0\": \"O\"");
    for (int64_t i = 1; status == STATUS_OK && i < n; i++) {
        int64_t type = (i - 1) / 2;
        status =
            buffer_printf(b, err, ", \"%lld\": \"%s-", (long long)i, i % 2 ? "B" : "I");
        if (status == STATUS_OK)
            status = type < 3 ? buffer_printf(b, err, "%s\"", known[type])
                              : buffer_printf(b, err, "T%lld\"", (long long)type);
    }
    return status == STATUS_OK ? buffer_printf(b, err, "},\n") : status;
}

static enum status make_config(const struct random_options *o, int64_t vocab_size,
                               struct buffer *b, struct error *err) {
    static const char *const problems[][2] = {{"single", "single_label_classification"},
                                              {"multi", "multi_label_classification"},
                                              {"regression", "regression"}};
    static const char *const dtypes[][2] = {
        {"f32", "float32"}, {"f16", "float16"}, {"bf16", "bfloat16"}};
    const char *dtype = "float32", *problem = NULL;
    for (size_t i = 0; i < 3; i++) {
        if (o->problem && strcmp(o->problem, problems[i][0]) == 0)
            problem = problems[i][1];
        if (o->dtype && strcmp(o->dtype, dtypes[i][0]) == 0)
            dtype = dtypes[i][1];
    }
    enum status status = buffer_printf(
        b, err,
        "{\n  \"architectures\": [\"DistilBertForSequenceClassification\"],\n"
        "  \"model_type\": \"distilbert\",\n  \"activation\": \"%s\",\n"
        "  \"dim\": %lld,\n  \"hidden_dim\": %lld,\n  \"n_heads\": %lld,\n"
        "  \"n_layers\": %lld,\n  \"max_position_embeddings\": %lld,\n"
        "  \"vocab_size\": %lld,\n  \"sinusoidal_pos_embds\": %s,\n",
        o->activation ? o->activation : "gelu", (long long)o->dim,
        (long long)(o->hidden_dim ? o->hidden_dim : 4 * o->dim), (long long)o->n_heads,
        (long long)o->n_layers, (long long)o->max_positions, (long long)vocab_size,
        o->is_sinusoidal ? "true" : "false");
    if (status == STATUS_OK)
        status = append_labels(b, o->n_labels, err);
    if (status == STATUS_OK && o->n_tags > 0)
        status = append_tags(b, o->n_tags, err);
    if (status == STATUS_OK && problem)
        status = buffer_printf(b, err, "  \"problem_type\": \"%s\",\n", problem);
    if (status == STATUS_OK)
        status = buffer_printf(b, err, "  \"dtype\": \"%s\"\n}\n", dtype);
    return status;
}

static enum status append_line(struct buffer *b, int64_t *n_left, struct error *err,
                               const char *prefix, const char *text, size_t n_text) {
    if (*n_left == 0)
        return STATUS_OK;
    --*n_left;
    return buffer_printf(b, err, "%s%.*s\n", prefix, (int)n_text, text);
}

/* Special tokens, each printable character alone and as a piece, then words of two to four
 * letters, until there are enough. */
static enum status make_vocabulary(int64_t n, struct buffer *b, struct error *err) {
    static const char *const special[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < 5; i++)
        status = append_line(b, &n, err, "", special[i], strlen(special[i]));
    for (int piece = 0; piece < 2; piece++)
        for (char c = '!'; status == STATUS_OK && c <= '~'; c++) {
            bool is_word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
            if ((c < 'A' || c > 'Z') && (is_word || !piece))
                status = append_line(b, &n, err, piece ? "##" : "", &c, 1);
        }
    for (size_t n_letters = 2, n_words = 26 * 26; status == STATUS_OK && n > 0;
         n_letters++, n_words *= 26)
        for (size_t w = 0; status == STATUS_OK && n > 0 && w < n_words; w++) {
            char word[8];
            for (size_t i = 0, rest = w; i < n_letters; i++, rest /= 26)
                word[n_letters - 1 - i] = (char)('a' + rest % 26);
            status = append_line(b, &n, err, "", word, n_letters);
        }
    return status;
}

static int64_t count_lines(const char *text, size_t n_bytes) {
    int64_t n = n_bytes > 0 && text[n_bytes - 1] != '\n' ? 1 : 0;
    for (size_t i = 0; i < n_bytes; i++)
        n += text[i] == '\n';
    return n;
}

/* The vocabulary's text, and how many entries the model has for it. */
static enum status get_vocabulary(const struct random_options *o, struct buffer *b,
                                  int64_t *vocab_size, struct error *err) {
    char *text = NULL;
    size_t n_bytes;
    if (!o->vocab_file) {
        *vocab_size = o->vocab_size ? o->vocab_size : DEFAULT_VOCABULARY;
        if (*vocab_size < 5)
            return error_set(err, STATUS_INVALID,
                             "a vocabulary of %lld, expected 5 or more: there are five "
                             "special tokens",
                             (long long)*vocab_size);
        return make_vocabulary(*vocab_size, b, err);
    }
    enum status status =
        file_read(o->vocab_file, MAX_VOCABULARY_BYTES, &text, &n_bytes, err);
    if (status != STATUS_OK)
        return status;
    int64_t n_lines = count_lines(text, n_bytes);
    *vocab_size = o->vocab_size ? o->vocab_size : n_lines;
    if (n_lines > *vocab_size)
        status =
            error_set(err, STATUS_INVALID, "%s has %lld entries, the model only %lld",
                      o->vocab_file, (long long)n_lines, (long long)*vocab_size);
    else
        status = buffer_append(b, text, n_bytes, err);
    free(text);
    return status;
}

static enum status write_weights(const char *path, const struct model_config *config,
                                 const struct random_options *o, struct error *err) {
    static const char *const metadata[] = {"format", "pt", NULL};
    enum safetensors_dtype dtype = SAFETENSORS_F32;
    if (o->dtype && strcmp(o->dtype, "f32") != 0)
        dtype = strcmp(o->dtype, "f16") == 0 ? SAFETENSORS_F16 : SAFETENSORS_BF16;
    size_t n = checkpoint_n_tensors(config), n_bytes;
    struct safetensors_tensor *tensors = calloc(n, sizeof *tensors);
    struct tensor_shape *shapes = calloc(n, sizeof *shapes);
    struct file_writer writer = {0};
    char sha256[SHA256_HEX_BYTES];
    uint64_t state = (uint64_t)o->seed;
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && tensors && shapes && i < n; i++) {
        struct safetensors_tensor *t = &tensors[i];
        checkpoint_shape(config, i, &shapes[i]);
        t->name = shapes[i].name;
        t->dtype = dtype;
        t->n_dims = shapes[i].is_vector ? 1 : 2;
        t->dims[0] = shapes[i].is_vector ? shapes[i].n_cols : shapes[i].n_rows;
        t->dims[1] = shapes[i].n_cols;
        if (!size_multiply((size_t)shapes[i].n_rows, (size_t)shapes[i].n_cols,
                           &t->n_elements) ||
            !size_multiply(t->n_elements, safetensors_dtype_bytes(dtype), &n_bytes) ||
            !(t->data = malloc(n_bytes)))
            status = error_set(err, STATUS_NO_MEMORY, "no memory for \"%s\"", t->name);
        else
            fill(&shapes[i], o, &state, t);
    }
    if (!tensors || !shapes)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for %zu tensors", n);
    if (status == STATUS_OK)
        status = file_create(path, &writer, err);
    if (status == STATUS_OK)
        status = safetensors_write(&writer, tensors, n, metadata, sha256, err);
    if (status == STATUS_OK)
        status = file_commit(&writer, err);
    file_abort(&writer);
    for (size_t i = 0; tensors && i < n; i++)
        free((void *)(uintptr_t)tensors[i].data);
    free(shapes);
    free(tensors);
    return status;
}

static enum status write_text(const char *dir, const char *name, const char *text,
                              size_t n_bytes, struct error *err) {
    char path[FILE_PATH_BYTES];
    enum status status = file_path(path, dir, name, err);
    return status == STATUS_OK ? file_replace(path, text, n_bytes, err) : status;
}

enum status random_model_write(const char *dir, const struct random_options *options,
                               struct error *err) {
    static const char tokenizer_config[] =
        "{\"do_lower_case\": true, \"model_max_length\": 512}\n";
    struct buffer json = {.max_bytes = MAX_CONFIG_BYTES};
    struct buffer vocabulary = {.max_bytes = MAX_VOCABULARY_BYTES};
    struct model_config config = {0};
    char path[FILE_PATH_BYTES];
    int64_t vocab_size = 0;
    enum status status = get_vocabulary(options, &vocabulary, &vocab_size, err);
    if (status == STATUS_OK)
        status = make_config(options, vocab_size, &json, err);
    if (status == STATUS_OK)
        status =
            model_config_parse(json.data, json.n_bytes, "the options", &config, err);
    if (status == STATUS_OK && mkdir(dir, 0777) != 0 && errno != EEXIST)
        status = error_set(err, STATUS_IO, "cannot make %s: %s", dir, strerror(errno));
    if (status == STATUS_OK)
        status = file_path(path, dir, SAFETENSORS_FILE, err);
    if (status == STATUS_OK)
        status = write_weights(path, &config, options, err);
    if (status == STATUS_OK)
        status = write_text(dir, "vocab.txt", vocabulary.data, vocabulary.n_bytes, err);
    if (status == STATUS_OK)
        status = write_text(dir, "tokenizer_config.json", tokenizer_config,
                            sizeof tokenizer_config - 1, err);
    if (status == STATUS_OK)
        status = write_text(dir, "config.json", json.data, json.n_bytes, err);
    model_config_free(&config);
    buffer_free(&vocabulary);
    buffer_free(&json);
    return status;
}
