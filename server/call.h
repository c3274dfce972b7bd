/* SPDX-License-Identifier: Apache-2.0
 *
 * call.h - one API call: the texts that somebody wants classified, how, and what came out.
 *
 * A dialect (dialect.h) reads a body into a call and writes the answers; what lies between is
 * the same for all of them and lives here.
 *
 * Threads:    one at a time.
 * Call order: (dialect's read) prepare (the batcher runs call.job) answer (dialect's write)
 *             free
 */
#ifndef VIGIL_SERVER_CALL_H
#define VIGIL_SERVER_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fault.h"
#include "base/json.h"
#include "model/answer.h"
#include "model/windows.h"
#include "server/batcher.h"

#define CALL_MAX_ID_BYTES 256

struct call_limits {
    size_t max_text_bytes; /* --max-text */
    size_t max_inputs;     /* --max-inputs */
    struct json_limits json;
};

/* One text of a call. When fault.kind is set, this text alone is not answered. */
struct text {
    const char *bytes; /* [n_bytes], in the JSON value or the body */
    size_t n_bytes;
    const json_t *id; /* a string or an integer; NULL: none was given */
    struct fault fault;
    struct windows windows;
    int32_t first_sequence; /* of the job: windows.n_windows of them */
    struct answer answer;
};

enum scores {
    SCORES_OF_MODEL, /* what problem_type says */
    SCORES_RAW,
    SCORES_SOFTMAX,
    SCORES_SIGMOID
};

struct call {
    const struct call_limits *limits;
    struct text *texts;
    size_t n_texts, cap_texts;
    bool is_list;     /* a list was sent, so a list goes back */
    bool is_lines;    /* JSON lines */
    double threshold; /* NAN: the most probable label wins */
    bool wants_entities, truncate, omits_specials;
    enum scores scores;
    int64_t top_k; /* 0: all labels */
    json_t *root;  /* owns the strings */
    struct job job;
    float *logits, *tags; /* [n_sequences, n_labels], [n_ids, n_tag_labels] */
};

void call_open(struct call *c, const struct call_limits *limits);
void call_free(struct call *c);

/* ---- for the dialects: false, and *f says why, when the call as a whole cannot be used ---- */

/* Parses the body into c->root. */
bool call_parse(struct call *c, const char *body, size_t n_bytes, struct fault *f);
/* Fails on a key of object that is not among names (NULL-terminated). */
bool call_check_keys(const json_t *object, const char *const *names, struct fault *f);
/* Reads object[key] into *out if it is there. */
/* An integer, also one that is written as 3.0, which JSON does not tell from 3. */
bool call_read_integer(const json_t *value, long long *out);
bool call_read_flag(const json_t *object, const char *key, bool *out, struct fault *f);
/* Adds a text; one that is empty or too long has a fault of its own. Fails on a value that
 * is no string, and on an id that is neither string nor integer. */
bool call_add(struct call *c, const json_t *value, const json_t *id, struct fault *f);
bool call_add_bytes(struct call *c, const char *bytes, size_t n_bytes, struct fault *f);
/* Adds a text that is known to be bad. */
bool call_add_fault(struct call *c, const struct fault *why, struct fault *f);
/* Fails unless the list holds 1 to max_inputs values. */
bool call_check_count(const struct call *c, size_t n, struct fault *f);

/* Memory that is counted against --memory. False when there is none left. */
typedef bool reserve_bytes(void *context, size_t n_bytes);

/* Tokenizes the texts and makes the job. The fault of a single text becomes the call's.
 * What is taken through reserve, the caller gives back. */
bool call_prepare(struct call *c, struct bundle *bundle, reserve_bytes *reserve,
                  void *context, struct fault *f);
/* Makes the answers of a job that is done. */
bool call_answer(struct call *c, struct fault *f);

/* The scores that were asked for, of an answered text: [n_labels]. */
void call_scores(const struct call *c, const struct text *text, float *out);

#endif
