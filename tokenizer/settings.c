/* SPDX-License-Identifier: Apache-2.0
 *
 * settings.c - values of JSON, added tokens, and from settings to a tokenizer.
 */
#include "tokenizer/settings.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define DEFAULT_MAX_WORD_CHARS 100 /* of tokenizers' WordPiece and BertTokenizer */
/* tokenizer.json with a vocabulary of the full size, in values and bytes. */
static const struct json_limits LIMITS = {.max_bytes = 64u << 20,
                                          .max_depth = 16,
                                          .max_values = VOCAB_MAX_ENTRIES + 100000,
                                          .max_key_bytes = VOCAB_MAX_TOKEN_BYTES};

const struct settings SETTINGS_DEFAULT = {
    .is_lower = true,
    .is_stripped = true,
    .is_cjk_spaced = true,
    .max_word_chars = DEFAULT_MAX_WORD_CHARS,
    .prefix = "##",
    .names = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"},
};

/* ---- values of JSON ---- */

static const char *kind_of(const json_t *value) {
    static const char *const KINDS[] = {"an object",  "an array", "a string",
                                        "an integer", "a number", "true",
                                        "false",      "null"};
    return value ? KINDS[json_typeof(value)] : "nothing";
}

enum status settings_expected(struct error *err, const char *key, const char *what,
                              const json_t *found) {
    return error_set(err, STATUS_INVALID, "\"%s\": expected %s, found %s", key, what,
                     kind_of(found));
}

/* An absent or null member leaves *out alone. */
enum status settings_bool(const json_t *object, const char *key, bool *out,
                          struct error *err) {
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return STATUS_OK;
    if (!json_is_boolean(value))
        return settings_expected(err, key, "true or false", value);
    *out = json_is_true(value);
    return STATUS_OK;
}

enum status settings_copy_name(const json_t *value, const char *key,
                               char out[SETTINGS_NAME_BYTES], struct error *err) {
    if (!json_is_string(value))
        return settings_expected(err, key, "a string", value);
    size_t n = json_string_length(value);
    if (n >= SETTINGS_NAME_BYTES || strlen(json_string_value(value)) != n)
        return error_set(err, STATUS_INVALID,
                         "\"%s\": expected under %d bytes and no NUL, found %zu bytes",
                         key, SETTINGS_NAME_BYTES, n);
    memcpy(out, json_string_value(value), n + 1);
    return STATUS_OK;
}

/* How an added token is looked for in the text: as it stands, wherever it stands. */
static enum status check_added(const json_t *entry, struct error *err) {
    static const char *const MUST_BE_FALSE[] = {"single_word", "lstrip", "rstrip",
                                                "normalized"};
    for (size_t i = 0; i < sizeof MUST_BE_FALSE / sizeof *MUST_BE_FALSE; i++)
        if (json_is_true(json_object_get(entry, MUST_BE_FALSE[i])))
            return error_set(err, STATUS_UNSUPPORTED, "only \"%s\": false is supported",
                             MUST_BE_FALSE[i]);
    return STATUS_OK;
}

/* A string, or an object with the string under "content"; absent or null: left alone. */
enum status settings_name(const json_t *object, const char *key,
                          char out[SETTINGS_NAME_BYTES], struct error *err) {
    const json_t *value = json_object_get(object, key);
    if (json_is_object(value)) {
        if (check_added(value, err) != STATUS_OK)
            return error_prefix(err, "\"%s\"", key);
        value = json_object_get(value, "content");
    }
    if (!value || json_is_null(value))
        return STATUS_OK;
    return settings_copy_name(value, key, out, err);
}

enum status settings_max_chars(const json_t *object, int64_t *out, struct error *err) {
    const char *key = "max_input_chars_per_word";
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return STATUS_OK;
    if (!json_is_integer(value))
        return settings_expected(err, key, "an integer", value);
    *out = json_integer_value(value);
    if (*out < 1 || *out > WORDPIECE_MAX_WORD_CHARS)
        return error_set(err, STATUS_UNSUPPORTED,
                         "\"%s\": expected 1 to %d, found %lld", key,
                         WORDPIECE_MAX_WORD_CHARS, (long long)*out);
    return STATUS_OK;
}

/* The object under key must be of one of these types; "" stands for null. */
enum status settings_type(const json_t *object, const char *key,
                          const char *const *types, struct error *err) {
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

enum status settings_read(const char *path, json_t **out, struct error *err) {
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

/* The id that a string has as an added token or a piece; -1: none. */
static int32_t find_content(const struct tokenizer *t, const char *content) {
    for (size_t i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].text, content) == 0)
            return t->added[i].id;
    return vocab_find(&t->vocab, content);
}

static bool has_added(const struct tokenizer *t, int64_t id) {
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].id == id)
            return true;
    return false;
}

/* One entry of "added_tokens": {"id", "content", "single_word", …}. */
static enum status add_token(struct tokenizer *t, const json_t *entry, int64_t id,
                             struct error *err) {
    const char *content = json_string_value(json_object_get(entry, "content"));
    if (!content || !*content)
        return error_set(err, STATUS_INVALID, "added token %lld has no content",
                         (long long)id);
    if (check_added(entry, err) != STATUS_OK)
        return error_prefix(err, "added token %lld", (long long)id);
    if (id < 0 || id >= t->vocab.n ||
        strcmp(tokenizer_token(t, (int32_t)id), content) != 0)
        return error_set(err, STATUS_INVALID,
                         "added token %lld is not what the vocabulary has there",
                         (long long)id);
    int32_t known = find_content(t, content);
    if (known >= 0 && known != id)
        return error_set(err, STATUS_INVALID, "added token %lld is token %d already",
                         (long long)id, known);
    if (has_added(t, id))
        return STATUS_OK;
    if (t->n_added == WORDPIECE_MAX_ADDED)
        return error_set(err, STATUS_LIMIT, "more than %d added tokens",
                         WORDPIECE_MAX_ADDED);
    t->added[t->n_added++] = (struct added_token){tokenizer_token(t, (int32_t)id),
                                                  strlen(content), (int32_t)id};
    return STATUS_OK;
}

/* The special tokens that the vocabulary has, as BertTokenizer adds them. */
void settings_add_roles(struct tokenizer *t, const struct settings *set) {
    for (int role = 0; role < N_ROLES; role++) {
        int32_t id = set->names[role][0] ? vocab_find(&t->vocab, set->names[role]) : -1;
        if (id >= 0)
            t->added[t->n_added++] = (struct added_token){tokenizer_token(t, id),
                                                          strlen(set->names[role]), id};
    }
}

/* tokenizer.json has an array of them, with "id"; tokenizer_config.json an object by id. */
static enum status add_tokens(struct tokenizer *t, json_t *added, struct error *err) {
    enum status status = STATUS_OK;
    const char *key;
    json_t *entry;
    size_t i;
    if (added && !json_is_array(added) && !json_is_object(added))
        return settings_expected(err, "added_tokens", "an array or an object", added);
    json_array_foreach(added, i, entry) {
        const json_t *id = json_object_get(entry, "id");
        if (!json_is_integer(id))
            return settings_expected(err, "added_tokens", "integers under \"id\"", id);
        if (status == STATUS_OK)
            status = add_token(t, entry, json_integer_value(id), err);
    }
    json_object_foreach(added, key, entry) {
        char *end;
        int64_t id = strtoll(key, &end, 10);
        if (*end || end == key)
            return error_set(err, STATUS_INVALID,
                             "\"added_tokens_decoder\": expected ids as keys");
        if (status == STATUS_OK)
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
enum status settings_apply(struct tokenizer *t, const struct settings *set,
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
