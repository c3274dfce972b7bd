/* SPDX-License-Identifier: Apache-2.0
 *
 * load.c - tokenizer_open: a tokenizer from the files of a model directory.
 *
 * Two forms: vocab.txt, one token a line, with tokenizer_config.json beside it or not; or
 * tokenizer.json alone. Whatever these files ask for and this tokenizer does not do is an
 * error here, never a difference of tokens later.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "tokenizer/unicode.h"
#include "tokenizer/wordpiece.h"

#define DEFAULT_MAX_WORD_CHARS 100 /* of tokenizers' WordPiece and BertTokenizer */
#define MAX_NAME_BYTES 64

/* tokenizer.json with a vocabulary of the full size, in values and bytes. */
static const struct json_limits LIMITS = {.max_bytes = 64u << 20,
                                          .max_depth = 16,
                                          .max_values = VOCAB_MAX_ENTRIES + 100000,
                                          .max_key_bytes = VOCAB_MAX_TOKEN_BYTES};

enum role { ROLE_UNK, ROLE_CLS, ROLE_SEP, ROLE_PAD, ROLE_MASK, N_ROLES };

/* What the files say before there is a vocabulary. */
struct settings {
    const char *file; /* for messages */
    bool is_lower, is_stripped, is_cjk_spaced;
    int64_t max_word_chars;
    char prefix[MAX_NAME_BYTES];
    char names[N_ROLES][MAX_NAME_BYTES]; /* "": there is none */
    json_t *added;                       /* array or object of added tokens, or NULL */
};

static const struct settings DEFAULTS = {
    .is_lower = true,
    .is_stripped = true,
    .is_cjk_spaced = true,
    .max_word_chars = DEFAULT_MAX_WORD_CHARS,
    .prefix = "##",
    .names = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"},
};

/* ---- values of JSON ---- */

static const char *kind_of(const json_t *value) {
    static const char *const KINDS[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return value ? KINDS[json_typeof(value)] : "nothing";
}

static enum status expected(struct error *err, const char *key, const char *what,
                            const json_t *found) {
    return error_set(err, STATUS_INVALID, "\"%s\": expected %s, found %s", key, what,
                     kind_of(found));
}

/* An absent or null member leaves *out alone. */
static enum status get_bool(const json_t *object, const char *key, bool *out,
                            struct error *err) {
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return STATUS_OK;
    if (!json_is_boolean(value))
        return expected(err, key, "true or false", value);
    *out = json_is_true(value);
    return STATUS_OK;
}

static enum status copy_name(const json_t *value, const char *key,
                             char out[MAX_NAME_BYTES], struct error *err) {
    if (!json_is_string(value))
        return expected(err, key, "a string", value);
    size_t n = json_string_length(value);
    if (n >= MAX_NAME_BYTES || strlen(json_string_value(value)) != n)
        return error_set(err, STATUS_INVALID,
                         "\"%s\": expected under %d bytes and no NUL, found %zu bytes",
                         key, MAX_NAME_BYTES, n);
    memcpy(out, json_string_value(value), n + 1);
    return STATUS_OK;
}

/* A string, or an object with the string under "content"; absent or null: left alone. */
static enum status get_name(const json_t *object, const char *key,
                            char out[MAX_NAME_BYTES], struct error *err) {
    const json_t *value = json_object_get(object, key);
    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (!value || json_is_null(value))
        return STATUS_OK;
    return copy_name(value, key, out, err);
}

static enum status get_max_chars(const json_t *object, int64_t *out, struct error *err) {
    const char *key = "max_input_chars_per_word";
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return STATUS_OK;
    if (!json_is_integer(value))
        return expected(err, key, "an integer", value);
    *out = json_integer_value(value);
    if (*out < 1 || *out > WORDPIECE_MAX_WORD_CHARS)
        return error_set(err, STATUS_UNSUPPORTED,
                         "\"%s\": expected 1 to %d, found %lld", key,
                         WORDPIECE_MAX_WORD_CHARS, (long long)*out);
    return STATUS_OK;
}

/* The object under key must be of one of these types; "" stands for null. */
static enum status check_type(const json_t *object, const char *key, const char *const *types,
                              struct error *err) {
    const json_t *part = json_object_get(object, key);
    const json_t *type = json_object_get(part, "type");
    if (!json_is_object(part) || !json_is_string(type))
        return error_set(err, STATUS_UNSUPPORTED, "\"%s\": expected %s, found %s", key,
                         types[0], kind_of(part));
    for (size_t i = 0; types[i]; i++)
        if (strcmp(json_string_value(type), types[i]) == 0)
            return STATUS_OK;
    return error_set(err, STATUS_UNSUPPORTED, "\"%s\": expected %s, found %.40s", key,
                     types[0], json_string_value(type));
}

static enum status read_json(const char *path, json_t **out, struct error *err) {
    char *text = NULL;
    size_t n_bytes;
    enum status status = file_read(path, LIMITS.max_bytes, &text, &n_bytes, err);
    if (status != STATUS_OK)
        return status;
    status = json_parse(text, n_bytes, &LIMITS, out, err);
    free(text);
    if (status == STATUS_OK && !json_is_object(*out)) {
        status = error_set(err, STATUS_INVALID, "expected an object, found %s",
                           kind_of(*out));
        json_decref(*out);
        *out = NULL;
    }
    if (status != STATUS_OK)
        return error_prefix(err, "%s", path);
    return STATUS_OK;
}

/* ---- added tokens ---- */

/* One entry of "added_tokens": {"id", "content", "single_word", …}. */
static enum status add_token(struct tokenizer *t, const json_t *entry, int64_t id,
                             struct error *err) {
    static const char *const MUST_BE_FALSE[] = {"single_word", "lstrip", "rstrip",
                                                "normalized"};
    const char *content = json_string_value(json_object_get(entry, "content"));
    if (!content || !*content)
        return error_set(err, STATUS_INVALID, "added token %lld has no content",
                         (long long)id);
    for (size_t i = 0; i < sizeof MUST_BE_FALSE / sizeof *MUST_BE_FALSE; i++)
        if (json_is_true(json_object_get(entry, MUST_BE_FALSE[i])))
            return error_set(err, STATUS_UNSUPPORTED,
                             "added token %lld: only \"%s\": false is supported",
                             (long long)id, MUST_BE_FALSE[i]);
    if (id < 0 || id >= t->vocab.n ||
        strcmp(tokenizer_token(t, (int32_t)id), content) != 0)
        return error_set(err, STATUS_INVALID,
                         "added token %lld is not what the vocabulary has there",
                         (long long)id);
    if (t->n_added == WORDPIECE_MAX_ADDED)
        return error_set(err, STATUS_LIMIT, "more than %d added tokens",
                         WORDPIECE_MAX_ADDED);
    t->added[t->n_added++] = (struct added_token){tokenizer_token(t, (int32_t)id),
                                                  strlen(content), (int32_t)id};
    return STATUS_OK;
}

/* The special tokens that the vocabulary has, as BertTokenizer adds them. */
static void add_roles(struct tokenizer *t, const struct settings *set) {
    for (int role = 0; role < N_ROLES; role++) {
        int32_t id = set->names[role][0] ? vocab_find(&t->vocab, set->names[role]) : -1;
        if (id >= 0)
            t->added[t->n_added++] = (struct added_token){tokenizer_token(t, id),
                                                          strlen(set->names[role]), id};
    }
}

static bool has_added(const struct tokenizer *t, int64_t id) {
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].id == id)
            return true;
    return false;
}

/* tokenizer.json has an array of them, with "id"; tokenizer_config.json an object by id. */
static enum status add_tokens(struct tokenizer *t, json_t *added, struct error *err) {
    enum status status = STATUS_OK;
    const char *key;
    json_t *entry;
    size_t i;
    if (added && !json_is_array(added) && !json_is_object(added))
        return expected(err, "added_tokens", "an array or an object", added);
    json_array_foreach(added, i, entry) {
        const json_t *id = json_object_get(entry, "id");
        if (!json_is_integer(id))
            return expected(err, "added_tokens", "integers under \"id\"", id);
        if (status == STATUS_OK && !has_added(t, json_integer_value(id)))
            status = add_token(t, entry, json_integer_value(id), err);
    }
    json_object_foreach(added, key, entry) {
        char *end;
        int64_t id = strtoll(key, &end, 10);
        if (*end || end == key)
            return error_set(err, STATUS_INVALID,
                             "\"added_tokens_decoder\": expected ids as keys");
        if (status == STATUS_OK && !has_added(t, id))
            status = add_token(t, entry, id, err);
    }
    return status;
}

/* ---- from settings and vocabulary to a tokenizer ---- */

static enum status find_role(const struct tokenizer *t, const struct settings *set,
                             enum role role, int32_t *id, struct error *err) {
    *id = vocab_find(&t->vocab, set->names[role]);
    if (*id < 0)
        return error_set(err, STATUS_INVALID, "the vocabulary has no %s",
                         set->names[role]);
    return STATUS_OK;
}

/* t->vocab is there. */
static enum status configure(struct tokenizer *t, const struct settings *set,
                             struct error *err) {
    t->is_lower = set->is_lower;
    t->is_stripped = set->is_stripped;
    t->is_cjk_spaced = set->is_cjk_spaced;
    t->max_word_chars = (uint32_t)set->max_word_chars;
    enum status status = find_role(t, set, ROLE_UNK, &t->unk_id, err);
    if (status == STATUS_OK)
        status = find_role(t, set, ROLE_CLS, &t->cls_id, err);
    if (status == STATUS_OK)
        status = find_role(t, set, ROLE_SEP, &t->sep_id, err);
    if (status == STATUS_OK)
        status = add_tokens(t, set->added, err);
    if (status == STATUS_OK)
        wordpiece_prepare(t, set->prefix);
    return status;
}

/* ---- vocab.txt ---- */

static enum status check_line(const char *line, size_t n_bytes, size_t number,
                              struct error *err) {
    if (n_bytes == 0)
        return error_set(err, STATUS_INVALID, "line %zu is empty", number);
    for (size_t i = 0, length; i < n_bytes; i += length) {
        if (line[i] == 0)
            return error_set(err, STATUS_INVALID, "line %zu holds a NUL", number);
        unicode_decode((const uint8_t *)line + i, n_bytes - i, &length);
        if (length == 1 && (uint8_t)line[i] >= 0x80)
            return error_set(err, STATUS_INVALID, "line %zu is not UTF-8", number);
    }
    return STATUS_OK;
}

static size_t count_lines(const char *text, size_t n_bytes) {
    size_t n = n_bytes > 0 && text[n_bytes - 1] != '\n';
    for (size_t i = 0; i < n_bytes; i++)
        n += text[i] == '\n';
    return n;
}

/* Cuts text into lines in place. */
static enum status cut_lines(char *text, size_t n_bytes, uint32_t *starts,
                             struct error *err) {
    size_t at = 0;
    for (size_t number = 1; at < n_bytes; number++) {
        char *end = memchr(text + at, '\n', n_bytes - at);
        size_t n_line = end ? (size_t)(end - text) - at : n_bytes - at, n = n_line;
        if (n > 0 && text[at + n - 1] == '\r')
            n--;
        enum status status = check_line(text + at, n, number, err);
        if (status != STATUS_OK)
            return status;
        text[at + n] = 0; /* a file_read block has a byte behind its end */
        starts[number - 1] = (uint32_t)at;
        at += n_line + 1;
    }
    return STATUS_OK;
}

static enum status read_vocab(const char *path, struct vocab *v, struct error *err) {
    char *text = NULL;
    uint32_t *starts = NULL;
    size_t n_bytes;
    enum status status = file_read(path, VOCAB_MAX_BYTES, &text, &n_bytes, err);
    if (status != STATUS_OK)
        return status;
    size_t n = count_lines(text, n_bytes);
    if (n == 0)
        status = error_set(err, STATUS_INVALID, "the file is empty");
    else if (n > VOCAB_MAX_ENTRIES)
        status = error_set(err, STATUS_LIMIT, "%zu tokens, over the limit of %d", n,
                           VOCAB_MAX_ENTRIES);
    else if (!(starts = calloc(n, sizeof *starts)))
        status = error_set(err, STATUS_NO_MEMORY, "out of memory for %zu tokens", n);
    else
        status = cut_lines(text, n_bytes, starts, err);
    if (status == STATUS_OK) {
        status = vocab_open(v, text, starts, (int32_t)n, (int32_t)n, err);
        text = NULL;
        starts = NULL;
    }
    free(text);
    free(starts);
    return status == STATUS_OK ? STATUS_OK : error_prefix(err, "%s", path);
}

/* Strings of "tokenizer_class" whose tokens are BertTokenizer's. */
static enum status check_class(const json_t *config, struct error *err) {
    static const char *const KNOWN[] = {"BertTokenizer",           "BertTokenizerFast",
                                        "DistilBertTokenizer",     "DistilBertTokenizerFast",
                                        "ElectraTokenizer",        "ElectraTokenizerFast",
                                        "PreTrainedTokenizerFast", NULL};
    const json_t *name = json_object_get(config, "tokenizer_class");
    if (!name || json_is_null(name))
        return STATUS_OK;
    if (!json_is_string(name))
        return expected(err, "tokenizer_class", "a string", name);
    for (size_t i = 0; KNOWN[i]; i++)
        if (strcmp(json_string_value(name), KNOWN[i]) == 0)
            return STATUS_OK;
    return error_set(err, STATUS_UNSUPPORTED,
                     "\"tokenizer_class\": expected BertTokenizer or DistilBertTokenizer, "
                     "found %.40s",
                     json_string_value(name));
}

static enum status read_config(const json_t *config, struct settings *set,
                               struct error *err) {
    static const char *const KEYS[N_ROLES] = {"unk_token", "cls_token", "sep_token",
                                              "pad_token", "mask_token"};
    bool is_basic = true;
    enum status status = check_class(config, err);
    if (status == STATUS_OK)
        status = get_bool(config, "do_basic_tokenize", &is_basic, err);
    if (status == STATUS_OK && !is_basic)
        status = error_set(err, STATUS_UNSUPPORTED,
                           "only \"do_basic_tokenize\": true is supported");
    if (status == STATUS_OK && json_array_size(json_object_get(config, "never_split")))
        status = error_set(err, STATUS_UNSUPPORTED, "\"never_split\" is not supported");
    if (status == STATUS_OK)
        status = get_bool(config, "do_lower_case", &set->is_lower, err);
    set->is_stripped = set->is_lower;
    if (status == STATUS_OK)
        status = get_bool(config, "strip_accents", &set->is_stripped, err);
    if (status == STATUS_OK)
        status = get_bool(config, "tokenize_chinese_chars", &set->is_cjk_spaced, err);
    if (status == STATUS_OK)
        status = get_max_chars(config, &set->max_word_chars, err);
    for (int role = 0; role < N_ROLES && status == STATUS_OK; role++)
        status = get_name(config, KEYS[role], set->names[role], err);
    set->added = json_object_get(config, "added_tokens_decoder");
    return status;
}

static enum status load_vocab_txt(struct tokenizer *t, const char *dir, const char *path,
                                  struct error *err) {
    struct settings set = DEFAULTS;
    char config_path[FILE_PATH_BYTES];
    json_t *config = NULL;
    enum status status = file_path(config_path, dir, "tokenizer_config.json", err);
    if (status == STATUS_OK && file_exists(config_path)) {
        status = read_json(config_path, &config, err);
        if (status == STATUS_OK && read_config(config, &set, err) != STATUS_OK)
            status = error_prefix(err, "%s", config_path);
    }
    if (status == STATUS_OK)
        status = read_vocab(path, &t->vocab, err);
    if (status == STATUS_OK) {
        add_roles(t, &set);
        if (configure(t, &set, err) != STATUS_OK)
            status = error_prefix(err, "%s", path);
    }
    json_decref(config);
    return status;
}

/* ---- tokenizer.json ---- */

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
        return error_set(err, STATUS_INVALID,
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
        return error_set(err, STATUS_LIMIT, "\"vocab\": %zu bytes, over the limit of %u",
                         g->n_bytes, VOCAB_MAX_BYTES);
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
    json_array_foreach(added, i, value)
        g.n += json_integer_value(json_object_get(value, "id")) >= (json_int_t)g.n_pieces;
    if (g.n_pieces == 0 || g.n > VOCAB_MAX_ENTRIES)
        return error_set(err, STATUS_INVALID, "\"vocab\": expected 1 to %d tokens, found %zu",
                         VOCAB_MAX_ENTRIES, g.n);
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
    enum status status = check_type(root, "normalizer", TYPES, err);
    const json_t *normalizer = json_object_get(root, "normalizer");
    if (status == STATUS_OK)
        status = get_bool(normalizer, "clean_text", &is_cleaned, err);
    if (status == STATUS_OK && !is_cleaned)
        status = error_set(err, STATUS_UNSUPPORTED,
                           "only \"clean_text\": true is supported");
    if (status == STATUS_OK)
        status = get_bool(normalizer, "lowercase", &set->is_lower, err);
    set->is_stripped = set->is_lower;
    if (status == STATUS_OK)
        status = get_bool(normalizer, "strip_accents", &set->is_stripped, err);
    if (status == STATUS_OK)
        status = get_bool(normalizer, "handle_chinese_chars", &set->is_cjk_spaced, err);
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
    enum status status = check_type(root, "post_processor", TYPES, err);
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
        return error_set(err, STATUS_UNSUPPORTED,
                         "\"post_processor\": expected one token before the text and one "
                         "behind it");
    status = copy_name(cls, "post_processor", set->names[ROLE_CLS], err);
    if (status == STATUS_OK)
        status = copy_name(sep, "post_processor", set->names[ROLE_SEP], err);
    return status;
}

static enum status load_parsed(struct tokenizer *t, const json_t *root, struct error *err) {
    static const char *const PRE_TOKENIZERS[] = {"BertPreTokenizer", NULL};
    static const char *const MODELS[] = {"WordPiece", NULL};
    struct settings set = DEFAULTS;
    json_t *model = json_object_get(root, "model");
    json_t *vocab = json_object_get(model, "vocab");
    enum status status = check_type(root, "model", MODELS, err);
    if (status == STATUS_OK)
        status = check_type(root, "pre_tokenizer", PRE_TOKENIZERS, err);
    if (status == STATUS_OK)
        status = read_normalizer(root, &set, err);
    if (status == STATUS_OK)
        status = read_post_processor(root, &set, err);
    if (status == STATUS_OK)
        status = get_name(model, "unk_token", set.names[ROLE_UNK], err);
    if (status == STATUS_OK)
        status = get_name(model, "continuing_subword_prefix", set.prefix, err);
    if (status == STATUS_OK)
        status = get_max_chars(model, &set.max_word_chars, err);
    if (status == STATUS_OK && !json_is_object(vocab))
        status = expected(err, "vocab", "an object", vocab);
    set.added = json_object_get(root, "added_tokens");
    if (status == STATUS_OK)
        status = make_vocab(&t->vocab, vocab, set.added, err);
    return status == STATUS_OK ? configure(t, &set, err) : status;
}

static enum status load_tokenizer_json(struct tokenizer *t, const char *path,
                                       struct error *err) {
    json_t *root = NULL;
    enum status status = read_json(path, &root, err);
    if (status == STATUS_OK && load_parsed(t, root, err) != STATUS_OK)
        status = error_prefix(err, "%s", path);
    json_decref(root);
    return status;
}

/* ---- tokenizer.h ---- */

enum status tokenizer_open(const char *model_dir, struct tokenizer **out,
                           struct error *err) {
    char vocab_path[FILE_PATH_BYTES], json_path[FILE_PATH_BYTES];
    struct tokenizer *t = NULL;
    *out = NULL;
    enum status status = file_path(vocab_path, model_dir, "vocab.txt", err);
    if (status == STATUS_OK)
        status = file_path(json_path, model_dir, "tokenizer.json", err);
    if (status != STATUS_OK)
        return status;
    t = calloc(1, sizeof *t);
    if (!t)
        return error_set(err, STATUS_NO_MEMORY, "out of memory for the tokenizer");
    if (file_exists(vocab_path))
        status = load_vocab_txt(t, model_dir, vocab_path, err);
    else if (file_exists(json_path))
        status = load_tokenizer_json(t, json_path, err);
    else
        status = error_set(err, STATUS_NOT_FOUND,
                           "%s: neither vocab.txt nor tokenizer.json is there", model_dir);
    if (status != STATUS_OK) {
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return STATUS_OK;
}

void tokenizer_close(struct tokenizer *t) {
    if (!t)
        return;
    vocab_close(&t->vocab);
    free(t);
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id) {
    return id >= 0 && id < t->vocab.n ? t->vocab.text + t->vocab.starts[id] : NULL;
}

int32_t tokenizer_vocab_size(const struct tokenizer *t) {
    return t->vocab.n;
}

int32_t tokenizer_cls_id(const struct tokenizer *t) {
    return t->cls_id;
}

int32_t tokenizer_sep_id(const struct tokenizer *t) {
    return t->sep_id;
}

int32_t tokenizer_unk_id(const struct tokenizer *t) {
    return t->unk_id;
}
