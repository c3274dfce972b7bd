/* SPDX-License-Identifier: Apache-2.0
 *
 * dialect.h - an API's way to ask and to answer. One file a dialect.
 *
 * read   fills the call from a body; false and *f: the call as a whole cannot be used
 * write  appends the answers to out; called when every text has an answer or a fault
 *
 * Threads: any; a dialect has no state.
 */
#ifndef VIGIL_SERVER_DIALECT_H
#define VIGIL_SERVER_DIALECT_H

#include "base/memory.h"
#include "server/call.h"

enum media_type {
    MEDIA_JSON,  /* application/json, or no Content-Type at all */
    MEDIA_LINES, /* application/jsonlines, application/x-ndjson */
    MEDIA_TEXT,  /* text/plain */
    MEDIA_OTHER
};

struct dialect {
    unsigned media_types; /* bits 1 << MEDIA_x that read takes */
    bool (*read)(struct call *c, enum media_type type, const char *body, size_t n_bytes,
                 struct fault *f);
    enum status (*write)(const struct call *c, struct buffer *out, struct error *err);
};

extern const struct dialect dialect_native;      /* POST /v1/classify */
extern const struct dialect dialect_sagemaker;   /* POST /invocations */
extern const struct dialect dialect_tei;         /* POST /predict */
extern const struct dialect dialect_huggingface; /* POST / */
extern const struct dialect dialect_tokenize;    /* POST /tokenize: needs no engine */

/* ---- what several of them share (dialect.c) ---- */

/* Reads "inputs", a string or a list of strings. */
bool dialect_read_inputs(struct call *c, const json_t *inputs, struct fault *f);
/* [{"label":…,"score":…},…], highest score first, top_k of them. */
enum status dialect_write_labels(const struct call *c, const struct text *text,
                                 struct buffer *out, struct error *err);
/* write_one for each text, with brackets and commas round them when it was a list. */
enum status dialect_write_list(const struct call *c, bool is_list,
                               enum status (*write_one)(const struct call *c,
                                                        const struct text *text,
                                                        struct buffer *out,
                                                        struct error *err),
                               struct buffer *out, struct error *err);

#endif
