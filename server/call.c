/* SPDX-License-Identifier: Apache-2.0 */
#include "server/call.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void call_open(struct call *c, const struct call_limits *limits) {
    memset(c, 0, sizeof *c);
    c->limits = limits;
    c->threshold = NAN;
}

void call_free(struct call *c) {
    for (size_t i = 0; i < c->n_texts; i++) {
        windows_free(&c->texts[i].windows);
        answer_free(&c->texts[i].answer);
    }
    free(c->texts);
    free(c->job.sequences);
    free(c->logits);
    free(c->tags);
    json_decref(c->root);
    memset(c, 0, sizeof *c);
}

/* ---- reading ---- */

static enum fault_kind kind_of(enum status status) {
    switch (status) {
    case STATUS_INVALID:
        return FAULT_MALFORMED;
    case STATUS_UNSUPPORTED:
        return FAULT_UNUSABLE;
    case STATUS_LIMIT:
        return FAULT_TOO_LARGE;
    case STATUS_NO_MEMORY:
        return FAULT_OVERLOADED;
    default:
        return FAULT_INTERNAL;
    }
}

bool call_parse(struct call *c, const char *body, size_t n_bytes, struct fault *f) {
    struct error err = {0};
    if (n_bytes == 0)
        return fault_set(f, FAULT_MALFORMED, "the body is empty, expected JSON");
    enum status status = json_parse(body, n_bytes, &c->limits->json, &c->root, &err);
    if (status != STATUS_OK)
        return fault_set(f, kind_of(status), "%s", err.message);
    return true;
}

bool call_check_keys(const json_t *object, const char *const *names, struct fault *f) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        size_t i = 0;
        while (names[i] && strcmp(names[i], key) != 0)
            i++;
        if (names[i])
            continue;
        char known[160] = "";
        size_t n = 0;
        for (i = 0; names[i] && n + strlen(names[i]) + 3 < sizeof known; i++) {
            size_t n_name = strlen(names[i]);
            memcpy(known + n, i ? ", " : "", i ? 2 : 0);
            n += i ? 2 : 0;
            memcpy(known + n, names[i], n_name + 1);
            n += n_name;
        }
        return fault_set(f, FAULT_UNUSABLE, "an unknown key; known here: %s", known);
    }
    return true;
}

bool call_read_flag(const json_t *object, const char *key, bool *out, struct fault *f) {
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return true;
    if (!json_is_boolean(value))
        return fault_set(f, FAULT_UNUSABLE, "%s must be true or false", key);
    *out = json_is_true(value);
    return true;
}

bool call_read_integer(const json_t *value, long long *out) {
    static const double END = 9223372036854775808.0; /* 2^63 */
    double number = json_number_value(value);
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (!json_is_real(value) || !(number >= -END && number < END) ||
        number != floor(number))
        return false;
    *out = (long long)number;
    return true;
}

static struct text *add_text(struct call *c, struct fault *f) {
    if (c->n_texts == c->cap_texts) {
        size_t cap = c->cap_texts ? 2 * c->cap_texts : 1;
        struct text *texts = realloc(c->texts, cap * sizeof *texts);
        if (!texts) {
            fault_set(f, FAULT_OVERLOADED, "no memory for the texts");
            return NULL;
        }
        c->texts = texts;
        c->cap_texts = cap;
    }
    struct text *text = &c->texts[c->n_texts++];
    memset(text, 0, sizeof *text);
    return text;
}

static void check_length(const struct call *c, struct text *text) {
    if (text->n_bytes == 0)
        fault_set(&text->fault, FAULT_UNUSABLE, "the text is empty");
    else if (text->n_bytes > c->limits->max_text_bytes)
        fault_set(&text->fault, FAULT_TOO_LARGE,
                  "the text has %zu bytes, the limit is %zu (--max-text)",
                  text->n_bytes, c->limits->max_text_bytes);
}

bool call_add_bytes(struct call *c, const char *bytes, size_t n_bytes,
                    struct fault *f) {
    struct text *text = add_text(c, f);
    if (!text)
        return false;
    text->bytes = bytes;
    text->n_bytes = n_bytes;
    check_length(c, text);
    return true;
}

bool call_add(struct call *c, const json_t *value, const json_t *id, struct fault *f) {
    long long number;
    if (id && !json_is_string(id) && !call_read_integer(id, &number))
        return fault_set(f, FAULT_UNUSABLE,
                         "id of input %zu (from 0) must be a string or an integer",
                         c->n_texts);
    if (id && json_is_string(id) && json_string_length(id) > CALL_MAX_ID_BYTES)
        return fault_set(f, FAULT_UNUSABLE,
                         "id of input %zu (from 0) has more than %d bytes", c->n_texts,
                         CALL_MAX_ID_BYTES);
    if (!json_is_string(value))
        return fault_set(f, FAULT_UNUSABLE,
                         value ? "the text of input %zu (from 0) must be a string"
                               : "input %zu (from 0) has no text",
                         c->n_texts);
    struct text *text = add_text(c, f);
    if (!text)
        return false;
    text->id = id;
    text->bytes = json_string_value(value);
    text->n_bytes = json_string_length(value);
    check_length(c, text);
    return true;
}

bool call_add_fault(struct call *c, const struct fault *why, struct fault *f) {
    struct text *text = add_text(c, f);
    if (!text)
        return false;
    text->fault = *why;
    return true;
}

bool call_check_count(const struct call *c, size_t n, struct fault *f) {
    if (n == 0)
        return fault_set(f, FAULT_UNUSABLE, "the list of inputs is empty");
    if (n > c->limits->max_inputs)
        return fault_set(f, FAULT_TOO_LARGE,
                         "%zu inputs, the limit is %zu (--max-inputs)", n,
                         c->limits->max_inputs);
    return true;
}

/* ---- running ---- */

static bool take_memory(size_t n_bytes, reserve_bytes *reserve, void *context,
                        struct fault *f) {
    if (!reserve(context, n_bytes))
        return fault_set(f, FAULT_OVERLOADED,
                         "no memory left for requests in flight (--memory), try again");
    return true;
}

static bool tokenize(struct call *c, struct bundle *bundle, reserve_bytes *reserve,
                     void *context, struct fault *f) {
    for (size_t i = 0; i < c->n_texts; i++) {
        struct text *text = &c->texts[i];
        struct error err = {0};
        if (text->fault.kind == FAULT_NONE) {
            enum status status = windows_make(
                bundle->tokenizer, bundle->config.max_positions, text->bytes,
                text->n_bytes, c->truncate, &text->windows, &err);
            if (status != STATUS_OK)
                return fault_set(f, kind_of(status), "%s", err.message);
            size_t n_ids = (size_t)text->windows.n_ids;
            size_t n_bytes =
                n_ids * (sizeof *text->windows.ids + sizeof *text->windows.spans);
            if (c->wants_entities)
                n_bytes += n_ids * (size_t)bundle->config.n_tag_labels * sizeof(float);
            if (!take_memory(n_bytes, reserve, context, f))
                return false;
        }
        if (text->fault.kind != FAULT_NONE && !c->is_list) {
            *f = text->fault;
            if (f->kind == FAULT_TOO_LARGE)
                f->kind = FAULT_UNUSABLE; /* the text, not the request, is too large */
            return false;
        }
    }
    return true;
}

/* Points the job's sequences at the windows and at where their numbers go. */
static void make_sequences(struct call *c, const struct bundle *bundle) {
    size_t n_labels = (size_t)bundle->config.n_labels;
    size_t n_tag_labels = (size_t)bundle->config.n_tag_labels;
    size_t n_ids = 0;
    int32_t n = 0;
    for (size_t i = 0; i < c->n_texts; i++) {
        struct text *text = &c->texts[i];
        const struct windows *w = &text->windows;
        text->first_sequence = n;
        for (int32_t k = 0; k < w->n_windows; k++, n++) {
            struct sequence *s = &c->job.sequences[n];
            s->ids = w->ids + w->offsets[k];
            s->n_tokens = w->offsets[k + 1] - w->offsets[k];
            s->logits = c->logits + (size_t)n * n_labels;
            s->tags = c->tags ? c->tags + n_ids * n_tag_labels : NULL;
            n_ids += (size_t)s->n_tokens;
        }
    }
}

bool call_prepare(struct call *c, struct bundle *bundle, reserve_bytes *reserve,
                  void *context, struct fault *f) {
    struct job *job = &c->job;
    if (c->wants_entities && bundle->config.n_tag_labels == 0)
        return fault_set(f, FAULT_UNUSABLE,
                         "the model has no token tags, so there are no entities");
    if (!tokenize(c, bundle, reserve, context, f))
        return false;
    int64_t n_sequences = 0, n_ids = 0;
    for (size_t i = 0; i < c->n_texts; i++) {
        n_sequences += c->texts[i].windows.n_windows;
        n_ids += c->texts[i].windows.n_ids;
    }
    if (n_ids > INT32_MAX)
        return fault_set(f, FAULT_TOO_LARGE, "the request has too many tokens");
    job->bundle = bundle;
    job->n_sequences = (int32_t)n_sequences;
    job->n_tokens = (int32_t)n_ids;
    job->wants_tags = c->wants_entities;
    if (n_sequences == 0)
        return true;
    size_t n_logits = (size_t)n_sequences * (size_t)bundle->config.n_labels;
    size_t n_tags = (size_t)n_ids * (size_t)bundle->config.n_tag_labels;
    if (!take_memory(n_logits * sizeof(float) +
                         (size_t)n_sequences * sizeof *job->sequences,
                     reserve, context, f))
        return false;
    job->sequences = calloc((size_t)n_sequences, sizeof *job->sequences);
    c->logits = calloc(n_logits, sizeof *c->logits);
    if (c->wants_entities)
        c->tags = calloc(n_tags, sizeof *c->tags);
    if (!job->sequences || !c->logits || (c->wants_entities && !c->tags))
        return fault_set(f, FAULT_OVERLOADED, "no memory for the answers");
    make_sequences(c, bundle);
    return true;
}

bool call_answer(struct call *c, struct fault *f) {
    const struct bundle *bundle = c->job.bundle;
    const struct model_config *config = &bundle->config;
    for (size_t i = 0; i < c->n_texts; i++) {
        struct text *text = &c->texts[i];
        struct error err = {0};
        if (text->fault.kind != FAULT_NONE)
            continue;
        const struct sequence *first = &c->job.sequences[text->first_sequence];
        enum status status =
            answer_make(config, &text->windows, bundle->positive_label, first->logits,
                        first->tags, text->bytes, text->n_bytes, &text->answer, &err);
        if (status != STATUS_OK)
            return fault_set(f, kind_of(status), "%s", err.message);
        answer_apply_threshold(config, bundle->positive_label, c->threshold,
                               &text->answer);
    }
    return true;
}

void call_scores(const struct call *c, const struct text *text, float *out) {
    const struct model_config *config = &c->job.bundle->config;
    size_t n = (size_t)config->n_labels;
    struct model_config forced = *config;
    switch (c->scores) {
    case SCORES_OF_MODEL:
        memcpy(out, text->answer.probs, n * sizeof *out);
        return;
    case SCORES_RAW:
        memcpy(out, text->answer.logits, n * sizeof *out);
        return;
    case SCORES_SOFTMAX:
        forced.problem_type = PROBLEM_SINGLE_LABEL;
        break;
    case SCORES_SIGMOID:
        forced.problem_type = PROBLEM_MULTI_LABEL;
        break;
    }
    answer_probabilities(&forced, text->answer.logits, out);
}
