/* SPDX-License-Identifier: Apache-2.0
 *
 * classifier.h - asks `vigil serve` what texts say: POST /v1/classify and GET /info.
 *
 * A request holds any number of texts with their places as ids. An answer is read strictly:
 * it counts only when it is whole, has a result for each text in its order, every number is
 * one and in its range, and the offsets lie within the text; anything else is a failure of
 * the server, and nothing of it is kept.
 *
 * Threads: one a struct classifier.
 */
#ifndef VIGIL_CLIENT_WORKER_CLASSIFIER_H
#define VIGIL_CLIENT_WORKER_CLASSIFIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/view.h"
#include "client/net/fetch.h"
#include "store/store.h"

#define CLASSIFIER_LABEL_BYTES 128
#define CLASSIFIER_MAX_TEXTS 512
#define CLASSIFIER_REASON_BYTES 160

struct classifier;

struct classifier_options {
    const char *url;      /* "http://127.0.0.1:8080", "https://host/path" */
    const char *api_key;  /* NULL: none */
    const char *ca_file;  /* PEM instead of the system's; NULL */
    const char *positive; /* the label whose probability counts */
    int wake_fd;          /* see fetch.h; -1 */
};

/* What became of a request, by who is to blame. */
enum classifier_kind {
    CLASSIFIER_OK,
    CLASSIFIER_UNREACHABLE, /* nothing was sent */
    CLASSIFIER_BUSY,        /* 429: the server has too much to do */
    CLASSIFIER_UNWELL, /* 502, 503, 504, 404, …: it cannot answer anybody at present */
    CLASSIFIER_REFUSED, /* 400, 413, 422: it does not want this request */
    CLASSIFIER_FAILED,  /* 500, or a 200 that is not an answer */
    CLASSIFIER_BROKEN,  /* the connection ended within */
    CLASSIFIER_LATE,    /* our deadline, or the server's (503 timeout) */
    CLASSIFIER_DENIED,  /* 401, 403, a certificate that is not trusted */
    CLASSIFIER_STOPPED  /* wake_fd, or no memory: nobody's fault */
};
#define CLASSIFIER_KINDS (CLASSIFIER_STOPPED + 1)
/* "ok", "unreachable", …: for metrics. */
const char *classifier_kind_name(enum classifier_kind kind);

struct classifier_result {
    const char *error_type; /* of a text that was refused alone; NULL: it was not */
    const char *label;      /* the most probable label other than the positive one */
    double label_probability, probability; /* of that, and of the positive one */
    int64_t n_tokens, n_windows;
    bool is_truncated;
    const struct store_mention *mentions; /* drug is empty */
    size_t n_mentions;
};

struct classifier_answer {
    enum classifier_kind kind;
    int code;                                /* HTTP; 0: no answer */
    int64_t retry_after_ns;                  /* -1: none */
    char reason[CLASSIFIER_REASON_BYTES];    /* "server: 422 unusable"; no post text */
    struct error error;                      /* more words, for the log; no post text */
    const char *model, *sha256, *dtype;      /* with CLASSIFIER_OK: */
    const struct classifier_result *results; /* [n] as asked */
};

/* What the server says of itself. */
struct classifier_info {
    bool is_ready, has_entities;
    char model[CLASSIFIER_LABEL_BYTES], sha256[STORE_SHA256_HEX + 1], dtype[32];
    int64_t max_body_bytes, max_texts, max_text_bytes;
};

enum status classifier_open(const struct classifier_options *options,
                            struct classifier **out, struct error *err);
void classifier_close(struct classifier *c);

/* Whether evidence is asked for from now on (true at first). */
void classifier_want_entities(struct classifier *c, bool wants);

/* Asks about n texts (1 to CLASSIFIER_MAX_TEXTS). What the answer points to lies in the
 * arena. Always fills *answer. */
void classifier_ask(struct classifier *c, const struct view *texts, size_t n,
                    int64_t timeout_ns, struct arena *arena,
                    struct classifier_answer *answer);

/* GET /info. CLASSIFIER_OK also when it is not ready: see out->is_ready. CLASSIFIER_REFUSED
 * when it serves a model that has not the positive label, where the server looks for it. */
void classifier_ask_info(struct classifier *c, int64_t timeout_ns,
                         struct classifier_info *out, struct classifier_answer *answer);

/* Bytes of a text in a request, at most. */
size_t classifier_text_cost(struct view text);

/* Reads the body of an answer: for classifier.c, its tests and the fuzzer. */
enum status classifier_read(const char *body, size_t n_bytes, const char *positive,
                            bool wants_entities, const struct view *texts, size_t n,
                            struct arena *arena, struct classifier_answer *answer,
                            struct error *err);
enum status classifier_read_info(const char *body, size_t n_bytes, const char *positive,
                                 struct classifier_info *out, struct error *err);

#endif
