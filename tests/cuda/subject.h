/* SPDX-License-Identifier: Apache-2.0
 *
 * subject.h - a model, token ids, and the answers that the CUDA engine must give: from
 * golden.jsonl (PyTorch), or from the reference engine; and the engine, opened and run.
 */
#ifndef VIGIL_TESTS_CUDA_SUBJECT_H
#define VIGIL_TESTS_CUDA_SUBJECT_H

#include <math.h>
#include <stdlib.h>

#include "kernels/cuda/plugin.h"
#include "model/reference.h"
#include "tests/cuda/model.h"
#include "tests/unit/random_model.h"

enum { MAX_LINE = 1 << 20, MAX_NUMBERS = 1 << 16, MAX_ROWS = 256 };

#ifdef VIGIL_CUDA_EMULATION
static const bool is_emulated = true;
#else
static const bool is_emulated = false;
#endif

struct row {
    int32_t *ids;
    int32_t n_ids;
    float *logits, *tags; /* [n_labels], [n_ids, n_tag_labels] */
};

struct subject {
    const char *name;
    const struct checkpoint *c;
    struct row rows[MAX_ROWS];
    int32_t n_rows;
    bool is_small; /* few layers of small sums: little rounding adds up */
};

/* ---- rows ------------------------------------------------------------------------- */

static inline struct row row_make(const struct model_config *config, int32_t n_ids) {
    return (struct row){
        .ids = need(malloc((size_t)n_ids * sizeof(int32_t))),
        .n_ids = n_ids,
        .logits = need(malloc((size_t)config->n_labels * sizeof(float))),
        .tags = config->n_tag_labels
                    ? need(malloc((size_t)n_ids * (size_t)config->n_tag_labels *
                                  sizeof(float)))
                    : NULL};
}

/* n numbers behind a key of a line of golden.jsonl. */
static inline void row_read(const char *line, const char *key, float *out, int32_t n) {
    static double numbers[MAX_NUMBERS];
    const char *at = json_after(line, key);
    if (!at || json_numbers(at, numbers, MAX_NUMBERS) != n)
        check_stop("golden.jsonl: not %d numbers in \"%s\": %.60s", n, key, line);
    for (int32_t i = 0; i < n; i++)
        out[i] = (float)numbers[i];
}

/* Every row of DIR/golden.jsonl up to max_ids tokens. */
static inline void subject_read(struct subject *s, const char *directory,
                                int32_t max_ids) {
    static char line[MAX_LINE];
    static double ids[MAX_NUMBERS];
    const struct model_config *config = &s->c->config;
    FILE *f = model_file_open(directory, "golden.jsonl");
    while (s->n_rows < MAX_ROWS && fgets(line, sizeof line, f)) {
        const char *at = json_after(line, "ids");
        int32_t n = at ? json_numbers(at, ids, MAX_NUMBERS) : 0;
        if (n < 1)
            check_stop("golden.jsonl: no ids in %.60s", line);
        if (n > max_ids)
            continue;
        struct row *r = &s->rows[s->n_rows++];
        *r = row_make(config, n);
        for (int32_t i = 0; i < n; i++)
            r->ids[i] = (int32_t)ids[i];
        row_read(line, "logits", r->logits, config->n_labels);
        if (r->tags)
            row_read(line, "tags", r->tags, n * config->n_tag_labels);
    }
    fclose(f);
}

/* Rows of random ids of these lengths, answered by the reference engine. */
static inline void subject_answer(struct subject *s, const int32_t *lengths,
                                  int32_t n) {
    struct engine_options options = {.device = "reference"};
    struct engine *e = NULL;
    struct error err = {0};
    if (reference_open(&options, s->c, &e, &err) != STATUS_OK)
        check_stop("%s", err.message);
    for (int32_t i = 0; i < n && s->n_rows < MAX_ROWS; i++) {
        struct row r = row_make(&s->c->config, lengths[i]);
        int32_t offsets[] = {0, lengths[i]};
        for (int32_t k = 0; k < lengths[i]; k++)
            r.ids[k] = (int32_t)(random_u32() % (uint32_t)s->c->config.vocab_size);
        struct batch b = {r.ids, offsets, 1, r.tags != NULL};
        if (engine_run(e, &b, r.logits, r.tags, &err) != STATUS_OK)
            check_stop("%s", err.message);
        s->rows[s->n_rows++] = r;
    }
    engine_close(e);
}

static inline void subject_free(struct subject *s) {
    for (int32_t i = 0; i < s->n_rows; i++) {
        free(s->rows[i].ids);
        free(s->rows[i].logits);
        free(s->rows[i].tags);
    }
    s->n_rows = 0;
}

/* ---- the engine ------------------------------------------------------------------- */

cuda_plugin_get vigil_cuda_plugin;

/* Skips the case where there is no device, or none for the path. off: VIGIL_CUDA_DISABLE. */
static inline struct engine *cuda_engine_open_on(const char *path, const char *off,
                                                 const struct checkpoint *c,
                                                 int32_t max_tokens) {
    const struct cuda_plugin *plugin = vigil_cuda_plugin();
    struct engine_options options = {
        .device = "cuda", .isa = path, .max_tokens = max_tokens};
    struct cuda_device device;
    struct engine *e = NULL;
    struct error err = {0};
    setenv("VIGIL_CUDA_DISABLE", off, 1);
    if (plugin->n_devices(&err) < 1)
        check_skip("no device: %s", err.message);
    if (plugin->describe(0, &device, &err) != STATUS_OK)
        check_stop("%s", err.message);
    if (path && strcmp(path, "mma") == 0 && device.major < 8)
        check_skip("mma needs sm_80, %s is sm_%d%d", device.name, device.major,
                   device.minor);
    if (plugin->open(0, &options, c, &e, &err) != STATUS_OK)
        check_stop("%s", err.message);
    return e;
}

/* ---- batches ---------------------------------------------------------------------- */

/* A batch, which row each sequence is, and answers in blocks of exactly their size. */
struct packed {
    struct batch batch;
    int32_t *ids, *offsets, *row_of;
    float *logits, *tags;
};

static inline size_t packed_n_logits(const struct packed *p,
                                     const struct model_config *config) {
    return (size_t)p->batch.n_sequences * (size_t)config->n_labels;
}

static inline size_t packed_n_tags(const struct packed *p,
                                   const struct model_config *config) {
    return p->batch.wants_tags
               ? (size_t)batch_n_tokens(&p->batch) * (size_t)config->n_tag_labels
               : 0;
}

/* n rows of the subject, one behind the other. */
static inline struct packed packed_make(const struct subject *s, const int32_t *row_of,
                                        int32_t n, bool wants_tags) {
    struct packed p = {.offsets = need(malloc(((size_t)n + 1) * sizeof(int32_t))),
                       .row_of = need(malloc((size_t)n * sizeof(int32_t)))};
    p.offsets[0] = 0;
    for (int32_t b = 0; b < n; b++) {
        p.row_of[b] = row_of[b];
        p.offsets[b + 1] = p.offsets[b] + s->rows[row_of[b]].n_ids;
    }
    p.ids = need(malloc((size_t)p.offsets[n] * sizeof(int32_t)));
    for (int32_t b = 0; b < n; b++)
        memcpy(p.ids + p.offsets[b], s->rows[row_of[b]].ids,
               (size_t)s->rows[row_of[b]].n_ids * sizeof(int32_t));
    p.batch = (struct batch){p.ids, p.offsets, n, wants_tags};
    size_t n_tags = packed_n_tags(&p, &s->c->config);
    p.logits = need(malloc(packed_n_logits(&p, &s->c->config) * sizeof(float)));
    p.tags = n_tags ? need(malloc(n_tags * sizeof(float))) : NULL;
    return p;
}

static inline void packed_free(struct packed *p) {
    free(p->ids);
    free(p->offsets);
    free(p->row_of);
    free(p->logits);
    free(p->tags);
}

/* As many batches in flight as the engine takes. */
static inline void run_in_flight(struct engine *e, struct packed *batches, int32_t n) {
    struct error err = {0};
    int32_t n_submitted = 0;
    for (int32_t n_done = 0; n_done < n; n_done++) {
        for (; n_submitted < n && n_submitted - n_done < e->info.n_in_flight;
             n_submitted++)
            if (engine_submit(e, &batches[n_submitted].batch, &err) != STATUS_OK)
                check_stop("submit: %s", err.message);
        struct packed *p = &batches[n_done];
        for (int32_t i = 0; i < p->batch.n_sequences; i++)
            p->logits[i] = NAN;
        if (engine_wait(e, p->logits, p->tags, &err) != STATUS_OK)
            check_stop("wait: %s", err.message);
    }
}

#endif
