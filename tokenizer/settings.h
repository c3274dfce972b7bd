/* SPDX-License-Identifier: Apache-2.0
 *
 * settings.h - what the files of a model directory say of its tokenizer, before there is a
 * vocabulary; and the values of JSON that they say it with. For tokenizer/ only.
 *
 * Errors: a message names the key, what was expected and what was found; the caller puts the
 * file before it.
 */
#ifndef VIGIL_TOKENIZER_SETTINGS_H
#define VIGIL_TOKENIZER_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "tokenizer/wordpiece.h"

#define SETTINGS_NAME_BYTES 64

enum role { ROLE_UNK, ROLE_CLS, ROLE_SEP, ROLE_PAD, ROLE_MASK, N_ROLES };

/* What the files say before there is a vocabulary. */
struct settings {
    bool is_lower, is_stripped, is_cjk_spaced;
    int64_t max_word_chars;
    char prefix[SETTINGS_NAME_BYTES];
    char names[N_ROLES][SETTINGS_NAME_BYTES]; /* "": there is none */
    json_t *added; /* array or object of added tokens, or NULL */
};

/* Lower case, no accents, spaces round ideographs: what bert-base-uncased does. */
extern const struct settings SETTINGS_DEFAULT;

/* Reads a file that holds a JSON object; *out is the caller's. Messages hold the path. */
enum status settings_read(const char *path, json_t **out, struct error *err);

/* "key": expected what, found ... */
enum status settings_expected(struct error *err, const char *key, const char *what,
                              const json_t *found);

/* Members of an object. One that is absent or null leaves *out alone. */
enum status settings_bool(const json_t *object, const char *key, bool *out,
                          struct error *err);
enum status settings_max_chars(const json_t *object, int64_t *out, struct error *err);
/* A string, or an object with the string under "content". */
enum status settings_name(const json_t *object, const char *key,
                          char out[SETTINGS_NAME_BYTES], struct error *err);
/* A string; key is for the message. */
enum status settings_copy_name(const json_t *value, const char *key,
                               char out[SETTINGS_NAME_BYTES], struct error *err);
/* The object under key must have one of these types; the first stands in the message. */
enum status settings_type(const json_t *object, const char *key,
                          const char *const *types, struct error *err);

/* Adds the special tokens that the vocabulary has, as BertTokenizer does. */
void settings_add_roles(struct tokenizer *t, const struct settings *set);

/* Makes t, whose vocabulary is there, ready to encode. */
enum status settings_apply(struct tokenizer *t, const struct settings *set,
                           struct error *err);

/* load_json.c: reads tokenizer.json into a zeroed t. */
enum status load_tokenizer_json(struct tokenizer *t, const char *path,
                                struct error *err);

#endif
