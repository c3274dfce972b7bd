/* SPDX-License-Identifier: Apache-2.0
 *
 * load.c - tokenizer_open: a tokenizer from the files of a model directory.
 *
 * Two forms: vocab.txt, one token a line, with tokenizer_config.json beside it or not; or
 * tokenizer.json alone. Whatever these files ask for and this tokenizer does not do is an
 * error here, never a difference of tokens later.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"
#include "tokenizer/settings.h"

/* ---- vocab.txt ---- */

static enum status check_line(const char *line, size_t n_bytes, size_t number,
                              struct error *err) {
    if (n_bytes == 0)
        return error_set(err, STATUS_INVALID, "line %zu is empty", number);
    for (size_t i = 0, length; i < n_bytes; i += length) {
        if (line[i] == 0)
            return error_set(err, STATUS_INVALID, "line %zu holds a NUL", number);
        utf8_decode((const uint8_t *)line + i, n_bytes - i, &length);
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
    static const char *const KNOWN[] = {
        "BertTokenizer",           "BertTokenizerFast",
        "DistilBertTokenizer",     "DistilBertTokenizerFast",
        "ElectraTokenizer",        "ElectraTokenizerFast",
        "PreTrainedTokenizerFast", NULL};
    const json_t *name = json_object_get(config, "tokenizer_class");
    if (!name || json_is_null(name))
        return STATUS_OK;
    if (!json_is_string(name))
        return settings_expected(err, "tokenizer_class", "a string", name);
    for (size_t i = 0; KNOWN[i]; i++)
        if (strcmp(json_string_value(name), KNOWN[i]) == 0)
            return STATUS_OK;
    return error_set(
        err, STATUS_UNSUPPORTED,
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
        status = settings_bool(config, "do_basic_tokenize", &is_basic, err);
    if (status == STATUS_OK && !is_basic)
        status = error_set(err, STATUS_UNSUPPORTED,
                           "only \"do_basic_tokenize\": true is supported");
    if (status == STATUS_OK && json_array_size(json_object_get(config, "never_split")))
        status = error_set(err, STATUS_UNSUPPORTED, "\"never_split\" is not supported");
    if (status == STATUS_OK)
        status = settings_bool(config, "do_lower_case", &set->is_lower, err);
    set->is_stripped = set->is_lower;
    if (status == STATUS_OK)
        status = settings_bool(config, "strip_accents", &set->is_stripped, err);
    if (status == STATUS_OK)
        status =
            settings_bool(config, "tokenize_chinese_chars", &set->is_cjk_spaced, err);
    if (status == STATUS_OK)
        status = settings_max_chars(config, &set->max_word_chars, err);
    for (int role = 0; role < N_ROLES && status == STATUS_OK; role++)
        status = settings_name(config, KEYS[role], set->names[role], err);
    set->added = json_object_get(config, "added_tokens_decoder");
    return status;
}

static enum status load_vocab_txt(struct tokenizer *t, const char *dir,
                                  const char *path, struct error *err) {
    struct settings set = SETTINGS_DEFAULT;
    char config_path[FILE_PATH_BYTES];
    json_t *config = NULL;
    enum status status = file_path(config_path, dir, "tokenizer_config.json", err);
    if (status == STATUS_OK && file_exists(config_path)) {
        status = settings_read(config_path, &config, err);
        if (status == STATUS_OK && read_config(config, &set, err) != STATUS_OK)
            status = error_prefix(err, "%s", config_path);
    }
    if (status == STATUS_OK)
        status = read_vocab(path, &t->vocab, err);
    if (status == STATUS_OK) {
        settings_add_roles(t, &set);
        if (settings_apply(t, &set, err) != STATUS_OK)
            status = error_prefix(err, "%s", path);
    }
    json_decref(config);
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
    else if (file_exists(model_dir))
        status =
            error_set(err, STATUS_NOT_FOUND,
                      "%s: neither vocab.txt nor tokenizer.json is there", model_dir);
    else
        status = error_set(err, STATUS_NOT_FOUND, "%s: no such directory", model_dir);
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
