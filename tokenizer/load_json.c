/* SPDX-License-Identifier: Apache-2.0
 *
 * load_json.c - a tokenizer from tokenizer.json alone.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/settings.h"

/* Collects id -> token of the model and of added tokens behind it. */
struct gathering {
    const char **tokens; /* [n], borrowed from the JSON */
    size_t n, n_pieces;
    size_t n_bytes; /* with NULs */
};

static enum status put_token(struct gathering *g, const char *token, size_t n_bytes,
                             const json_t *id, size_t first, struct error *err) {
    if (!json_is_integer(id) || json_integer_value(id) < (json_int_t)first ||
        json_integer_value(id) >= (json_int_t)g->n)
        return error_set(
            err, STATUS_INVALID,
            "\"vocab\": expected ids %zu to %zu, each once, found %lld", first,
            g->n - 1, json_is_integer(id) ? (long long)json_integer_value(id) : -1LL);
    size_t at = (size_t)json_integer_value(id);
    if (g->tokens[at])
        return error_set(err, STATUS_INVALID, "\"vocab\": two tokens have id %zu", at);
    if (strlen(token) != n_bytes)
        return error_set(err, STATUS_INVALID, "\"vocab\": token %zu holds a NUL", at);
    g->tokens[at] = token;
    g->n_bytes += n_bytes + 1;
    return STATUS_OK;
}

/* Every id from 0 to n - 1 is there, for as many are given and none twice. */
static enum status gather_tokens(struct gathering *g, json_t *vocab, json_t *added,
                                 struct error *err) {
    const char *token;
    json_t *value;
    size_t i, n_token;
    enum status status = STATUS_OK;
    json_object_keylen_foreach(vocab, token, n_token, value) {
        struct gathering pieces = *g;
        pieces.n = g->n_pieces;
        status = put_token(&pieces, token, n_token, value, 0, err);
        g->n_bytes = pieces.n_bytes;
        if (status != STATUS_OK)
            return status;
    }
    json_array_foreach(added, i, value) {
        const json_t *id = json_object_get(value, "id");
        const json_t *content = json_object_get(value, "content");
        if (json_is_integer(id) && json_is_string(content) &&
            json_integer_value(id) >= (json_int_t)g->n_pieces)
            status = put_token(g, json_string_value(content),
                               json_string_length(content), id, g->n_pieces, err);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status copy_tokens(const struct gathering *g, struct vocab *v,
                               struct error *err) {
    if (g->n_bytes > VOCAB_MAX_BYTES)
        return error_set(err, STATUS_LIMIT,
                         "\"vocab\": %zu bytes, over the limit of %u", g->n_bytes,
                         VOCAB_MAX_BYTES);
    char *text = malloc(g->n_bytes);
    uint32_t *starts = calloc(g->n, sizeof *starts);
    if (!text || !starts) {
        free(text);
        free(starts);
        return error_set(err, STATUS_NO_MEMORY, "out of memory for %zu tokens", g->n);
    }
    size_t at = 0;
    for (size_t i = 0; i < g->n; i++) {
        size_t n = strlen(g->tokens[i]) + 1;
        starts[i] = (uint32_t)at;
        memcpy(text + at, g->tokens[i], n);
        at += n;
    }
    return vocab_open(v, text, starts, (int32_t)g->n, (int32_t)g->n_pieces, err);
}

static enum status make_vocab(struct vocab *v, json_t *vocab, json_t *added,
                              struct error *err) {
    struct gathering g = {.n_pieces = json_object_size(vocab)};
    json_t *value;
    size_t i;
    g.n = g.n_pieces;
    json_array_foreach(added, i, value) g.n +=
        json_integer_value(json_object_get(value, "id")) >= (json_int_t)g.n_pieces;
    if (g.n_pieces == 0 || g.n > VOCAB_MAX_ENTRIES)
        return error_set(err, STATUS_INVALID,
                         "\"vocab\": expected 1 to %d tokens, found %zu",
                         VOCAB_MAX_ENTRIES, g.n_pieces ? g.n : 0);
    g.tokens = calloc(g.n, sizeof *g.tokens);
    if (!g.tokens)
        return error_set(err, STATUS_NO_MEMORY, "out of memory for %zu tokens", g.n);
    enum status status = gather_tokens(&g, vocab, added, err);
    if (status == STATUS_OK)
        status = copy_tokens(&g, v, err);
    free(g.tokens);
    return status;
}

static enum status read_normalizer(const json_t *root, struct settings *set,
                                   struct error *err) {
    static const char *const TYPES[] = {"BertNormalizer", NULL};
    bool is_cleaned = true;
    enum status status = settings_type(root, "normalizer", TYPES, err);
    const json_t *normalizer = json_object_get(root, "normalizer");
    if (status == STATUS_OK)
        status = settings_bool(normalizer, "clean_text", &is_cleaned, err);
    if (status == STATUS_OK && !is_cleaned)
        status = error_set(err, STATUS_UNSUPPORTED,
                           "only \"clean_text\": true is supported");
    if (status == STATUS_OK)
        status = settings_bool(normalizer, "lowercase", &set->is_lower, err);
    set->is_stripped = set->is_lower;
    if (status == STATUS_OK)
        status = settings_bool(normalizer, "strip_accents", &set->is_stripped, err);
    if (status == STATUS_OK)
        status =
            settings_bool(normalizer, "handle_chinese_chars", &set->is_cjk_spaced, err);
    return status;
}

/* One part of TemplateProcessing's "single": [{"SpecialToken":{"id":"[CLS]"}}, …]. */
static const json_t *template_part(const json_t *post, size_t i, const char *kind) {
    const json_t *single = json_object_get(post, "single");
    return json_object_get(json_object_get(json_array_get(single, i), kind), "id");
}

/* [CLS] and [SEP] are what the post-processor puts round a single text. */
static enum status read_post_processor(const json_t *root, struct settings *set,
                                       struct error *err) {
    static const char *const TYPES[] = {"BertProcessing", "TemplateProcessing", NULL};
    enum status status = settings_type(root, "post_processor", TYPES, err);
    if (status != STATUS_OK)
        return status;
    const json_t *post = json_object_get(root, "post_processor");
    const char *type = json_string_value(json_object_get(post, "type"));
    const json_t *cls = json_array_get(json_object_get(post, "cls"), 0);
    const json_t *sep = json_array_get(json_object_get(post, "sep"), 0);
    if (strcmp(type, "TemplateProcessing") == 0) {
        cls = template_part(post, 0, "SpecialToken");
        sep = template_part(post, 2, "SpecialToken");
        if (!template_part(post, 1, "Sequence") ||
            json_array_size(json_object_get(post, "single")) != 3)
            cls = sep = NULL;
    }
    if (!cls || !sep)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "\"post_processor\": expected one token before the text and one "
            "behind it");
    status = settings_copy_name(cls, "post_processor", set->names[ROLE_CLS], err);
    if (status == STATUS_OK)
        status = settings_copy_name(sep, "post_processor", set->names[ROLE_SEP], err);
    return status;
}

static enum status load_parsed(struct tokenizer *t, const json_t *root,
                               struct error *err) {
    static const char *const PRE_TOKENIZERS[] = {"BertPreTokenizer", NULL};
    static const char *const MODELS[] = {"WordPiece", NULL};
    struct settings set = SETTINGS_DEFAULT;
    json_t *model = json_object_get(root, "model");
    json_t *vocab = json_object_get(model, "vocab");
    enum status status = settings_type(root, "model", MODELS, err);
    if (status == STATUS_OK)
        status = settings_type(root, "pre_tokenizer", PRE_TOKENIZERS, err);
    if (status == STATUS_OK)
        status = read_normalizer(root, &set, err);
    if (status == STATUS_OK)
        status = read_post_processor(root, &set, err);
    if (status == STATUS_OK)
        status = settings_name(model, "unk_token", set.names[ROLE_UNK], err);
    if (status == STATUS_OK)
        status = settings_name(model, "continuing_subword_prefix", set.prefix, err);
    if (status == STATUS_OK)
        status = settings_max_chars(model, &set.max_word_chars, err);
    if (status == STATUS_OK && !json_is_object(vocab))
        status = settings_expected(err, "vocab", "an object", vocab);
    set.added = json_object_get(root, "added_tokens");
    if (status == STATUS_OK)
        status = make_vocab(&t->vocab, vocab, set.added, err);
    return status == STATUS_OK ? settings_apply(t, &set, err) : status;
}

enum status load_tokenizer_json(struct tokenizer *t, const char *path,
                                struct error *err) {
    json_t *root = NULL;
    enum status status = settings_read(path, &root, err);
    if (status == STATUS_OK && load_parsed(t, root, err) != STATUS_OK)
        status = error_prefix(err, "%s", path);
    json_decref(root);
    return status;
}
