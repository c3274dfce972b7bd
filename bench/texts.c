/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/texts.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#define MAX_FILE_BYTES ((size_t)1 << 30)

/* Words that are one token each in BERT's vocabulary. */
static const char *const WORDS[] = {
    "the",  "my",     "pain",  "doctor", "took", "this",  "after", "weeks", "again",
    "feel", "head",   "sleep", "drug",   "and",  "night", "days",  "made",  "sick",
    "was",  "better", "today", "with",   "dose", "never", "still", "help",  "since",
    "have", "bad",    "skin",  "heart",  "down", "all",   "from",  "not",   "more"};
#define N_WORDS (sizeof WORDS / sizeof *WORDS)
#define MAX_WORD_BYTES 8

/* Tokens at every 5 % of 512 tweets (mean 24.4), specials included. */
static const int QUANTILES[] = {5,  11, 14, 15, 17, 18, 20, 22, 23, 24, 25,
                                26, 27, 28, 29, 30, 31, 32, 34, 36, 46};
#define N_QUANTILES (sizeof QUANTILES / sizeof *QUANTILES)
#define MAX_MADE_UP_WORDS 48

/* ---- a file ----------------------------------------------------------------------- */

/* Replaces a line of JSON by its text, in place: a JSON string is never shorter than what
 * it stands for. */
static enum status take_json(struct text *t, char *line, const char *path,
                             size_t number, struct error *err) {
    const struct json_limits limits = {.max_bytes = MAX_FILE_BYTES,
                                       .max_depth = 32,
                                       .max_values = 100000,
                                       .max_key_bytes = 4096};
    json_t *root = NULL;
    enum status status = json_parse(line, t->n_bytes, &limits, &root, err);
    if (status)
        return error_prefix(err, "%s line %zu", path, number);
    const json_t *text = json_object_get(root, "text");
    if (!json_is_string(text)) {
        json_decref(root);
        return error_set(err, STATUS_INVALID,
                         "%s line %zu: expected an object with a string \"text\"", path,
                         number);
    }
    t->n_bytes = json_string_length(text);
    memcpy(line, json_string_value(text), t->n_bytes);
    json_decref(root);
    return STATUS_OK;
}

static enum status append(struct texts *t, size_t *cap, struct text item,
                          struct error *err) {
    if (t->n == *cap) {
        size_t n = *cap ? 2 * *cap : 1024, n_bytes;
        struct text *grown = size_multiply(n, sizeof *grown, &n_bytes)
                                 ? realloc(t->items, n_bytes)
                                 : NULL;
        if (!grown)
            return error_set(err, STATUS_NO_MEMORY, "no memory for %zu texts", n);
        t->items = grown;
        *cap = n;
    }
    t->items[t->n++] = item;
    return STATUS_OK;
}

static enum status split(struct texts *t, char *at, char *end, size_t max_texts,
                         struct error *err) {
    size_t cap = 0, number = 0;
    /* The first line tells: a post may begin with a brace too. */
    bool is_json = at < end && *at == '{';
    while (at < end && (!max_texts || t->n < max_texts)) {
        char *line_end = memchr(at, '\n', (size_t)(end - at));
        char *next = line_end ? line_end + 1 : end;
        if (!line_end)
            line_end = end;
        if (line_end > at && line_end[-1] == '\r')
            line_end--;
        struct text item = {.data = at, .n_bytes = (size_t)(line_end - at)};
        number++;
        enum status status = STATUS_OK;
        if (item.n_bytes && is_json)
            status = take_json(&item, at, t->source, number, err);
        if (!status && item.n_bytes)
            status = append(t, &cap, item, err);
        if (status)
            return status;
        at = next;
    }
    if (!t->n)
        return error_set(err, STATUS_INVALID, "%s: there is no text in it", t->source);
    return STATUS_OK;
}

enum status texts_read(const char *path, size_t max_texts, struct texts *out,
                       struct error *err) {
    size_t n_bytes;
    *out = (struct texts){.source = path};
    enum status status = file_read(path, MAX_FILE_BYTES, &out->memory, &n_bytes, err);
    if (!status)
        status = split(out, out->memory, out->memory + n_bytes, max_texts, err);
    if (status)
        texts_free(out);
    return status;
}

/* ---- made up ---------------------------------------------------------------------- */

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* A length by inverse transform over the quantiles. */
static int random_length(uint32_t *state) {
    uint32_t part = next_random(state) % ((N_QUANTILES - 1) * 1000);
    int below = QUANTILES[part / 1000], above = QUANTILES[part / 1000 + 1];
    return below + ((above - below) * (int)(part % 1000) + 500) / 1000 - 2;
}

enum status texts_make_up(size_t n, struct texts *out, struct error *err) {
    uint32_t state = 1;
    size_t n_bytes, items_bytes;
    *out = (struct texts){.source = "made-up texts"};
    if (!size_multiply(n, (size_t)MAX_MADE_UP_WORDS * MAX_WORD_BYTES, &n_bytes) ||
        !size_multiply(n, sizeof *out->items, &items_bytes) ||
        !(out->memory = malloc(n_bytes)) || !(out->items = malloc(items_bytes))) {
        texts_free(out);
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu texts", n);
    }
    char *at = out->memory;
    for (; out->n < n; out->n++) {
        struct text *t = &out->items[out->n];
        t->data = at;
        for (int left = random_length(&state); left > 0; left--) {
            const char *word = WORDS[next_random(&state) % N_WORDS];
            size_t word_bytes = strlen(word);
            memcpy(at, word, word_bytes);
            at += word_bytes;
            *at++ = left > 1 ? ' ' : '.';
        }
        at--; /* without the full stop, which would be a token */
        t->n_bytes = (size_t)(at - t->data);
    }
    return STATUS_OK;
}

void texts_free(struct texts *t) {
    if (!t)
        return;
    free(t->items);
    free(t->memory);
    *t = (struct texts){0};
}
