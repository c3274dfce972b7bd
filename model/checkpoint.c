/* SPDX-License-Identifier: Apache-2.0
 *
 * checkpoint.c - DistilBertForSequenceClassification's tensors, by name and shape.
 *
 * Design:  two tables of rows (name, shape, place in struct checkpoint), one for the model
 *          and one for each layer. Every row must be there, and nothing else; this is
 *          checked against the headers, before any data is read.
 * Owns:    the file's block, through struct safetensors; tensors point into it.
 */
#include "model/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "base/memory.h"
#include "weights/safetensors.h"

#define NAME_BYTES (SAFETENSORS_MAX_NAME_BYTES + 1)
#define SCALE_SUFFIX "_scale"
/* An old transformers wrote the indexes 0 to P - 1 as a tensor. */
#define POSITION_IDS "distilbert.embeddings.position_ids"

enum size {
    ONE, /* a vector's rows */
    VOCABULARY,
    POSITIONS,
    WIDTH,
    HIDDEN,
    LABELS,
    TAGS
};

struct row {
    const char *name; /* "%d" stands for the layer */
    enum size rows, cols;
    size_t offset; /* in struct checkpoint, or in struct layer_tensors */
    bool may_be_int8;
};

#define MODEL(member) offsetof(struct checkpoint, member)
#define LAYER(member) offsetof(struct layer_tensors, member)
#define IN_LAYER "distilbert.transformer.layer.%d."

static const struct row MODEL_ROWS[] = {
    {"distilbert.embeddings.word_embeddings.weight", VOCABULARY, WIDTH,
     MODEL(word_embeddings), true},
    {"distilbert.embeddings.position_embeddings.weight", POSITIONS, WIDTH,
     MODEL(position_embeddings), true},
    {"distilbert.embeddings.LayerNorm.weight", ONE, WIDTH, MODEL(embedding_norm.weight),
     false},
    {"distilbert.embeddings.LayerNorm.bias", ONE, WIDTH, MODEL(embedding_norm.bias),
     false},
    {"pre_classifier.weight", WIDTH, WIDTH, MODEL(pre_classifier.weight), true},
    {"pre_classifier.bias", ONE, WIDTH, MODEL(pre_classifier.bias), false},
    {"classifier.weight", LABELS, WIDTH, MODEL(classifier.weight), true},
    {"classifier.bias", ONE, LABELS, MODEL(classifier.bias), false},
};

static const struct row TAGGER_ROWS[] = {
    {"token_classifier.weight", TAGS, WIDTH, MODEL(tagger.weight), true},
    {"token_classifier.bias", ONE, TAGS, MODEL(tagger.bias), false},
};

static const struct row LAYER_ROWS[] = {
    {IN_LAYER "attention.q_lin.weight", WIDTH, WIDTH, LAYER(q.weight), true},
    {IN_LAYER "attention.q_lin.bias", ONE, WIDTH, LAYER(q.bias), false},
    {IN_LAYER "attention.k_lin.weight", WIDTH, WIDTH, LAYER(k.weight), true},
    {IN_LAYER "attention.k_lin.bias", ONE, WIDTH, LAYER(k.bias), false},
    {IN_LAYER "attention.v_lin.weight", WIDTH, WIDTH, LAYER(v.weight), true},
    {IN_LAYER "attention.v_lin.bias", ONE, WIDTH, LAYER(v.bias), false},
    {IN_LAYER "attention.out_lin.weight", WIDTH, WIDTH, LAYER(out.weight), true},
    {IN_LAYER "attention.out_lin.bias", ONE, WIDTH, LAYER(out.bias), false},
    {IN_LAYER "sa_layer_norm.weight", ONE, WIDTH, LAYER(attention_norm.weight), false},
    {IN_LAYER "sa_layer_norm.bias", ONE, WIDTH, LAYER(attention_norm.bias), false},
    {IN_LAYER "ffn.lin1.weight", HIDDEN, WIDTH, LAYER(up.weight), true},
    {IN_LAYER "ffn.lin1.bias", ONE, HIDDEN, LAYER(up.bias), false},
    {IN_LAYER "ffn.lin2.weight", WIDTH, HIDDEN, LAYER(down.weight), true},
    {IN_LAYER "ffn.lin2.bias", ONE, WIDTH, LAYER(down.bias), false},
    {IN_LAYER "output_layer_norm.weight", ONE, WIDTH, LAYER(output_norm.weight), false},
    {IN_LAYER "output_layer_norm.bias", ONE, WIDTH, LAYER(output_norm.bias), false},
};

#define N_ROWS(table) (sizeof(table) / sizeof *(table))

/* One opening: the tables are walked twice, for the shapes and, with data, for the places. */
struct opening {
    struct checkpoint *c;
    struct safetensors *file;
    const char *dir;
    size_t n_used; /* tensors that a row has asked for */
    struct error *err;
    void (*report)(void *user, const char *line); /* NULL: the first problem ends it */
    void *user;
    size_t n_problems; /* that were reported */
};

static int32_t size_of(const struct model_config *config, enum size size) {
    switch (size) {
    case VOCABULARY:
        return config->vocab_size;
    case POSITIONS:
        return config->max_positions;
    case WIDTH:
        return config->dim;
    case HIDDEN:
        return config->hidden_dim;
    case LABELS:
        return config->n_labels;
    case TAGS:
        return config->n_tag_labels;
    case ONE:
        break;
    }
    return 1;
}

static enum status missing(const struct opening *o, const char *name) {
    return error_set(o->err, STATUS_INVALID, "%s: tensor \"%s\" is missing", o->dir,
                     name);
}

static enum status check_shape(const struct opening *o,
                               const struct safetensors_tensor *t,
                               const struct row *row, int32_t n_rows, int32_t n_cols) {
    bool fits = row->rows == ONE
                    ? t->n_dims == 1 && t->dims[0] == n_cols
                    : t->n_dims == 2 && t->dims[0] == n_rows && t->dims[1] == n_cols;
    if (fits)
        return STATUS_OK;
    char found[128];
    safetensors_shape_text(t, found, sizeof found);
    if (row->rows == ONE)
        return error_set(o->err, STATUS_INVALID,
                         "%s: tensor \"%s\" has shape %s, expected [%d] by config.json",
                         o->dir, t->name, found, n_cols);
    return error_set(o->err, STATUS_INVALID,
                     "%s: tensor \"%s\" has shape %s, expected [%d, %d] by config.json",
                     o->dir, t->name, found, n_rows, n_cols);
}

static enum status check_dtype(const struct opening *o,
                               const struct safetensors_tensor *t,
                               const struct row *row) {
    bool is_int8 = t->dtype == SAFETENSORS_I8;
    if (t->dtype != SAFETENSORS_I64 && (row->may_be_int8 || !is_int8))
        return STATUS_OK;
    return error_set(
        o->err, STATUS_INVALID, "%s: tensor \"%s\" has dtype %s, expected %s", o->dir,
        t->name, safetensors_dtype_name(t->dtype),
        row->may_be_int8 && o->c->config.is_quantized ? "F32, F16, BF16 or I8"
                                                      : "F32, F16 or BF16");
}

/* An int8 matrix has one positive factor a row, as NAME_scale. */
static enum status take_scale(struct opening *o, const char *name, struct tensor *out) {
    char scale_name[NAME_BYTES + sizeof SCALE_SUFFIX];
    snprintf(scale_name, sizeof scale_name, "%s%s", name, SCALE_SUFFIX);
    const struct safetensors_tensor *t = safetensors_find(o->file, scale_name);
    if (!t)
        return missing(o, scale_name);
    o->n_used++;
    if (t->dtype != SAFETENSORS_F32 || t->n_dims != 1 || t->dims[0] != out->n_rows) {
        char found[128];
        safetensors_shape_text(t, found, sizeof found);
        return error_set(o->err, STATUS_INVALID,
                         "%s: tensor \"%s\" is %s of shape %s, expected F32 of [%d]",
                         o->dir, scale_name, safetensors_dtype_name(t->dtype), found,
                         out->n_rows);
    }
    out->row_scale = t->data;
    for (int32_t i = 0; out->row_scale && i < out->n_rows; i++)
        if (!(out->row_scale[i] > 0.0f))
            return error_set(o->err, STATUS_INVALID,
                             "%s: tensor \"%s\" has %g as element %d, expected more "
                             "than 0",
                             o->dir, scale_name, (double)out->row_scale[i], i);
    return STATUS_OK;
}

static enum dtype dtype_of(enum safetensors_dtype dtype) {
    switch (dtype) {
    case SAFETENSORS_F16:
        return DTYPE_F16;
    case SAFETENSORS_BF16:
        return DTYPE_BF16;
    case SAFETENSORS_I8:
        return DTYPE_I8;
    default:
        return DTYPE_F32;
    }
}

static void name_row(const struct row *row, int32_t layer, char out[NAME_BYTES]) {
    const char *mark = strstr(row->name, "%d");
    if (mark)
        snprintf(out, NAME_BYTES, "%.*s%d%s", (int)(mark - row->name), row->name, layer,
                 mark + 2);
    else
        snprintf(out, NAME_BYTES, "%s", row->name);
}

/* Finds one row's tensor, checks it, and puts it where the row says, behind base. */
static enum status take(struct opening *o, const struct row *row, int32_t layer,
                        void *base) {
    char name[NAME_BYTES];
    name_row(row, layer, name);
    const struct safetensors_tensor *t = safetensors_find(o->file, name);
    if (!t)
        return missing(o, name);
    o->n_used++;
    struct tensor *out = (struct tensor *)((char *)base + row->offset);
    *out = (struct tensor){.data = t->data,
                           .n_rows = size_of(&o->c->config, row->rows),
                           .n_cols = size_of(&o->c->config, row->cols),
                           .dtype = dtype_of(t->dtype)};
    enum status status = check_shape(o, t, row, out->n_rows, out->n_cols);
    if (status == STATUS_OK)
        status = check_dtype(o, t, row);
    if (status == STATUS_OK && out->dtype == DTYPE_I8)
        status = take_scale(o, name, out);
    o->c->n_parameters += t->n_elements;
    return status;
}

/* Passes a problem on, so that the search can go on; or lets it end the search. */
static enum status note(struct opening *o, enum status status) {
    if (status == STATUS_OK || !o->report)
        return status;
    o->report(o->user, o->err->message);
    o->n_problems++;
    return STATUS_OK;
}

static enum status take_rows(struct opening *o, const struct row *rows, size_t n_rows,
                             int32_t layer, void *base) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < n_rows; i++)
        status = note(o, take(o, &rows[i], layer, base));
    return status;
}

static enum status take_all(struct opening *o) {
    struct checkpoint *c = o->c;
    o->n_used = 0;
    c->n_parameters = 0;
    enum status status = take_rows(o, MODEL_ROWS, N_ROWS(MODEL_ROWS), 0, c);
    if (status == STATUS_OK && c->config.n_tag_labels > 0)
        status = take_rows(o, TAGGER_ROWS, N_ROWS(TAGGER_ROWS), 0, c);
    for (int32_t i = 0; status == STATUS_OK && i < c->config.n_layers; i++)
        status = take_rows(o, LAYER_ROWS, N_ROWS(LAYER_ROWS), i, &c->layers[i]);
    if (status == STATUS_OK && safetensors_find(o->file, POSITION_IDS))
        o->n_used++;
    return status;
}

/* True when some row asks for the name. */
static bool is_known(const struct opening *o, const char *name) {
    const struct checkpoint *c = o->c;
    char wanted[NAME_BYTES + sizeof SCALE_SUFFIX];
    size_t n = strlen(name), n_suffix = sizeof SCALE_SUFFIX - 1;
    bool is_scale = n > n_suffix && strcmp(name + n - n_suffix, SCALE_SUFFIX) == 0;
    if (strcmp(name, POSITION_IDS) == 0)
        return true;
    snprintf(wanted, sizeof wanted, "%.*s", (int)(is_scale ? n - n_suffix : n), name);
    if (is_scale) {
        const struct safetensors_tensor *t = safetensors_find(o->file, wanted);
        if (!t || t->dtype != SAFETENSORS_I8)
            return false;
    }
    for (size_t i = 0; i < N_ROWS(MODEL_ROWS); i++)
        if (strcmp(MODEL_ROWS[i].name, wanted) == 0)
            return true;
    for (size_t i = 0; c->config.n_tag_labels > 0 && i < N_ROWS(TAGGER_ROWS); i++)
        if (strcmp(TAGGER_ROWS[i].name, wanted) == 0)
            return true;
    for (int32_t layer = 0; layer < c->config.n_layers; layer++) {
        char prefix[64];
        int n_prefix =
            snprintf(prefix, sizeof prefix, "distilbert.transformer.layer.%d.", layer);
        if (strncmp(wanted, prefix, (size_t)n_prefix) != 0)
            continue;
        for (size_t i = 0; i < N_ROWS(LAYER_ROWS); i++)
            if (strcmp(LAYER_ROWS[i].name + sizeof IN_LAYER - 1, wanted + n_prefix) ==
                0)
                return true;
    }
    return false;
}

static enum status check_extra(struct opening *o) {
    if (o->n_used == o->file->n_tensors)
        return STATUS_OK;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < o->file->n_tensors; i++) {
        const char *name = o->file->tensors[i].name;
        if (is_known(o, name))
            continue;
        bool is_tagger = strncmp(name, "token_classifier.", 17) == 0;
        status = note(o, error_set(o->err, STATUS_INVALID,
                                   "%s: tensor \"%s\" is not part of the model that "
                                   "config.json describes%s",
                                   o->dir, name,
                                   is_tagger ? " (it has no \"token_id2label\")" : ""));
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* The directory's last component; the real one's of "." and "..". */
static void name_model(struct checkpoint *c, const char *model_dir) {
    char *real = NULL;
    size_t n = strlen(model_dir);
    while (n > 0 && model_dir[n - 1] == '/')
        n--;
    size_t from = n;
    while (from > 0 && model_dir[from - 1] != '/')
        from--;
    const char *name = model_dir + from;
    n -= from;
    if (n == 0 || (n <= 2 && name[0] == '.' && name[n - 1] == '.')) {
        real = realpath(model_dir, NULL);
        const char *slash = real ? strrchr(real, '/') : NULL;
        name = slash && slash[1] ? slash + 1 : "model";
        n = strlen(name);
    }
    snprintf(c->name, sizeof c->name, "%.*s", (int)(n < sizeof c->name ? n : 127),
             name);
    free(real);
}

static void summarise(struct checkpoint *c, const struct safetensors *file) {
    c->dtype = c->layers[0].q.weight.dtype;
    for (int32_t i = 0; i < c->config.n_layers; i++) {
        const struct layer_tensors *l = &c->layers[i];
        const struct linear_tensors *linear[] = {&l->q,   &l->k,  &l->v,
                                                 &l->out, &l->up, &l->down};
        for (size_t k = 0; k < N_ROWS(linear); k++)
            if (linear[k]->weight.dtype == DTYPE_I8)
                c->dtype = DTYPE_I8;
    }
    c->n_bytes = file->n_data_bytes;
    memcpy(c->sha256, file->sha256, sizeof c->sha256);
}

/* Names and shapes first: nothing large is read for a file that will be refused. */
static enum status open_weights(struct opening *o) {
    struct model_config *config = &o->c->config;
    size_t n_bytes;
    if (!size_multiply((size_t)config->n_layers, sizeof *o->c->layers, &n_bytes) ||
        !(o->c->layers = calloc(1, n_bytes)))
        return error_set(o->err, STATUS_NO_MEMORY, "no memory for %d layers",
                         config->n_layers);
    enum status status =
        safetensors_open(o->dir, config->is_quantized, o->file, o->err);
    if (status == STATUS_OK)
        status = take_all(o);
    if (status == STATUS_OK)
        status = check_extra(o);
    if (status != STATUS_OK || o->n_problems > 0)
        return status;
    status = safetensors_read(o->file, o->err);
    return status == STATUS_OK ? take_all(o) : status;
}

static enum status open_directory(struct opening *o) {
    enum status status = STATUS_NO_MEMORY;
    o->c = calloc(1, sizeof *o->c);
    o->file = calloc(1, sizeof *o->file);
    if (!o->c || !o->file) {
        free(o->file);
        free(o->c);
        o->c = NULL;
        return error_set(o->err, status, "no memory to open %s", o->dir);
    }
    o->c->memory = o->file;
    status = model_config_read(o->dir, &o->c->config, o->err);
    return status == STATUS_OK ? open_weights(o) : status;
}

enum status checkpoint_open(const char *model_dir, struct checkpoint **out,
                            struct error *err) {
    struct opening o = {.dir = model_dir, .err = err};
    enum status status = open_directory(&o);
    if (status != STATUS_OK) {
        checkpoint_close(o.c);
        o.c = NULL;
    } else {
        summarise(o.c, o.file);
        name_model(o.c, model_dir);
    }
    *out = o.c;
    return status;
}

size_t checkpoint_check(const char *model_dir,
                        void (*report)(void *user, const char *line), void *user) {
    struct error err;
    struct opening o = {.dir = model_dir, .err = &err, .report = report, .user = user};
    (void)note(&o, open_directory(&o));
    checkpoint_close(o.c);
    return o.n_problems;
}

size_t checkpoint_n_tensors(const struct model_config *config) {
    return N_ROWS(MODEL_ROWS) + (config->n_tag_labels > 0 ? N_ROWS(TAGGER_ROWS) : 0) +
           (size_t)config->n_layers * N_ROWS(LAYER_ROWS);
}

void checkpoint_shape(const struct model_config *config, size_t index,
                      struct tensor_shape *out) {
    size_t n_tagger = config->n_tag_labels > 0 ? N_ROWS(TAGGER_ROWS) : 0;
    const struct row *row;
    size_t layer = 0;
    if (index < N_ROWS(MODEL_ROWS)) {
        row = &MODEL_ROWS[index];
    } else if (index < N_ROWS(MODEL_ROWS) + n_tagger) {
        row = &TAGGER_ROWS[index - N_ROWS(MODEL_ROWS)];
    } else {
        index -= N_ROWS(MODEL_ROWS) + n_tagger;
        layer = index / N_ROWS(LAYER_ROWS);
        row = &LAYER_ROWS[index % N_ROWS(LAYER_ROWS)];
    }
    char name[NAME_BYTES];
    name_row(row, (int32_t)layer, name);
    snprintf(out->name, sizeof out->name, "%.127s", name);
    out->n_rows = size_of(config, row->rows);
    out->n_cols = size_of(config, row->cols);
    out->is_vector = row->rows == ONE;
}

void checkpoint_close(struct checkpoint *c) {
    if (!c)
        return;
    safetensors_close(c->memory);
    free(c->memory);
    free(c->layers);
    model_config_free(&c->config);
    free(c);
}
