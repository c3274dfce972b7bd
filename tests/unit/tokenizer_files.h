/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer_files.h - model directories with a tokenizer in them, for tests.
 */
#ifndef VIGIL_TESTS_TOKENIZER_FILES_H
#define VIGIL_TESTS_TOKENIZER_FILES_H

#include "base/file.h"
#include "tests/unit/model_files.h"
#include "tokenizer/tokenizer.h"

#define VOCAB "tests/data/models/vocab.txt"
#define GOLDEN "tests/data/tokenizer/golden.jsonl"
#define SMALL "tests/data/tokenizer/small"

/* A file that is there; free() it. */
static inline char *whole_file(const char *path, size_t *n_bytes) {
    char *text = NULL;
    struct error err;
    assert_int_equal(file_read(path, 64 << 20, &text, n_bytes, &err), STATUS_OK);
    return text;
}

/* A scratch directory with the vocabulary, and a tokenizer_config.json unless NULL. */
static inline char *vocab_directory(const char *config) {
    char *dir = scratch_make();
    size_t n;
    char *vocab = whole_file(VOCAB, &n);
    scratch_write(scratch_path(dir, "vocab.txt"), vocab, n);
    if (config)
        scratch_write(scratch_path(dir, "tokenizer_config.json"), config,
                      strlen(config));
    free(vocab);
    return dir;
}

static inline struct tokenizer *open_config(const char *config) {
    struct tokenizer *t;
    struct error err;
    char *dir = vocab_directory(config);
    enum status status = tokenizer_open(dir, &t, &err);
    scratch_remove(dir);
    if (status != STATUS_OK)
        fail_msg("%s", err.message);
    return t;
}

#endif
