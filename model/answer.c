/* SPDX-License-Identifier: Apache-2.0
 *
 * answer.c - reads an engine's logits and tags.
 *
 * Spans are read word by word: a word piece takes the tag of its word's first piece, so
 * that no span begins or ends inside a word. Where windows overlap, a token's tags come
 * from the window in which it is nearest the middle, where it sees most on both sides.
 */
#include "model/answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/utf8.h"

static float sigmoid(float x) {
    /* exp of a negative number cannot overflow. */
    double e = exp(-fabs((double)x));
    return (float)(x >= 0 ? 1 / (1 + e) : e / (1 + e));
}

static void softmax(const float *logits, int32_t n, float *probs) {
    float max = logits[0];
    for (int32_t i = 1; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        double e = exp((double)logits[i] - (double)max);
        probs[i] = (float)e;
        sum += e;
    }
    for (int32_t i = 0; i < n; i++)
        probs[i] = (float)((double)probs[i] / sum);
}

void answer_probabilities(const struct model_config *config, const float *logits,
                          float *probs) {
    switch (config->problem_type) {
    case PROBLEM_SINGLE_LABEL:
        softmax(logits, config->n_labels, probs);
        break;
    case PROBLEM_MULTI_LABEL:
        for (int32_t i = 0; i < config->n_labels; i++)
            probs[i] = sigmoid(logits[i]);
        break;
    case PROBLEM_REGRESSION:
        memcpy(probs, logits, (size_t)config->n_labels * sizeof *probs);
        break;
    }
}

static int32_t largest(const float *values, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

static bool all_finite(const float *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* What the window with the most of the positive label says; out->probs is used to try
 * each. */
static void decide(const struct model_config *config, int32_t n_windows,
                   int32_t positive_label, const float *logits, struct answer *out) {
    int32_t n = config->n_labels;
    float best = 0;
    for (int32_t w = 0; w < n_windows; w++) {
        const float *row = logits + (size_t)w * (size_t)n;
        answer_probabilities(config, row, out->probs);
        int32_t label = positive_label >= 0 && positive_label < n ? positive_label
                                                                  : largest(row, n);
        if (w == 0 || out->probs[label] > best) {
            best = out->probs[label];
            out->window = w;
        }
    }
    memcpy(out->logits, logits + (size_t)out->window * (size_t)n,
           (size_t)n * sizeof *out->logits);
    answer_probabilities(config, out->logits, out->probs);
    out->label = largest(out->logits, n);
    out->score = out->probs[out->label];
}

static uint32_t point_at(const struct utf8_cursor *c) {
    uint32_t value = 0;
    if (c->byte < c->n_bytes)
        utf8_read(c->text + c->byte, c->n_bytes - c->byte, &value);
    return value;
}

/* Splits words: what the tokenizer makes a word of its own although no space is there. */
static bool stands_alone(uint32_t c) {
    if (c < 0x80)
        return c > ' ' && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') &&
               !(c >= '0' && c <= '9');
    return c == 0xA1 || c == 0xA7 || c == 0xAB || c == 0xB6 || c == 0xB7 || c == 0xBB ||
           c == 0xBF || (c >= 0x2010 && c <= 0x205E) || (c >= 0x3001 && c <= 0x3030) ||
           (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFF01 && c <= 0xFF0F) ||
           (c >= 0x20000 && c <= 0x2CEAF);
}

/* Punctuation that says nothing at the end of a span. */
static bool is_edge_punctuation(uint32_t c) {
    if (c < 0x80)
        return c && strchr(".,;:!?'\"-()[]/*_&", (int)c) != NULL;
    return c == 0xAB || c == 0xBB || (c >= 0x2010 && c <= 0x203A) ||
           (c >= 0x3001 && c <= 0x3011) || (c >= 0xFF01 && c <= 0xFF0F);
}

/* A tag label taken apart: "B-ADE" is 'B' and "ADE"; a label without prefix counts as I. */
static char tag_prefix(const char *label) {
    if (strcmp(label, "O") == 0)
        return 'O';
    return label[0] == 'B' && label[1] == '-' ? 'B' : 'I';
}

static const char *tag_type(const char *label) {
    bool has_prefix = (label[0] == 'B' || label[0] == 'I') && label[1] == '-';
    return has_prefix ? label + 2 : label;
}

/* The probability that a token with these logits is in a span of this type, begun or
 * continued. */
static double type_probability(const struct model_config *config, const float *tags,
                               const char *type) {
    double sum = 0, of_type = 0, max = tags[0];
    for (int32_t i = 1; i < config->n_tag_labels; i++)
        max = tags[i] > max ? tags[i] : max;
    for (int32_t i = 0; i < config->n_tag_labels; i++) {
        double e = exp((double)tags[i] - max);
        const char *label = config->tag_labels[i];
        sum += e;
        if (tag_prefix(label) != 'O' && strcmp(tag_type(label), type) == 0)
            of_type += e;
    }
    return of_type / sum;
}

/* The span that is being read. */
struct open_span {
    const char *type;     /* NULL: none is open */
    struct entity entity; /* up to the last token that is not punctuation */
    double sum;           /* of its tokens' probabilities */
    int32_t n_tokens;
    double tail_sum; /* of the punctuation behind it, which may yet turn out inside */
    int32_t n_tail;
};

struct reader {
    const struct model_config *config;
    struct utf8_cursor cursor;
    struct open_span span;
    struct answer *out;
    int32_t cap_entities;
};

static enum status close_span(struct reader *r, struct error *err) {
    struct open_span *s = &r->span;
    if (s->type && s->n_tokens > 0) {
        struct answer *out = r->out;
        if (out->n_entities == r->cap_entities) {
            int32_t cap = r->cap_entities ? 2 * r->cap_entities : 8;
            struct entity *grown =
                realloc(out->entities, (size_t)cap * sizeof *out->entities);
            if (!grown)
                return error_set(err, STATUS_NO_MEMORY, "no memory for %d entities",
                                 cap);
            out->entities = grown;
            r->cap_entities = cap;
        }
        s->entity.score = (float)(s->sum / s->n_tokens);
        s->entity.type = s->type;
        out->entities[out->n_entities++] = s->entity;
    }
    memset(s, 0, sizeof *s);
    return STATUS_OK;
}

/* Puts one token into the open span; the cursor stands at the token's begin. */
static void extend_span(struct reader *r, struct token_span span, double probability) {
    struct open_span *s = &r->span;
    bool is_edge =
        span.end - span.begin == 1 && is_edge_punctuation(point_at(&r->cursor));
    if (is_edge) {
        if (s->n_tokens > 0) {
            s->tail_sum += probability;
            s->n_tail++;
        }
        return;
    }
    if (s->n_tokens == 0) {
        s->entity.begin = span.begin;
        s->entity.begin_byte = r->cursor.byte;
    }
    s->sum += s->tail_sum + probability;
    s->n_tokens += s->n_tail + 1;
    s->tail_sum = 0;
    s->n_tail = 0;
    utf8_cursor_to(&r->cursor, span.end);
    s->entity.end = span.end;
    s->entity.end_byte = r->cursor.byte;
}

/* One token of the text: its span, its tag logits, and whether it continues a word. */
static enum status read_token(struct reader *r, struct token_span span,
                              const float *tags, bool is_piece, struct error *err) {
    struct open_span *s = &r->span;
    if (!is_piece) {
        const char *label =
            r->config->tag_labels[largest(tags, r->config->n_tag_labels)];
        char prefix = tag_prefix(label);
        bool goes_on =
            prefix == 'I' && s->type && strcmp(s->type, tag_type(label)) == 0;
        if (!goes_on) {
            enum status status = close_span(r, err);
            if (status != STATUS_OK)
                return status;
            if (prefix != 'O')
                s->type = tag_type(label);
        }
    }
    if (s->type)
        extend_span(r, span, type_probability(r->config, tags, s->type));
    return STATUS_OK;
}

/* Twice the distance of a content token from the middle of a window. */
static int32_t off_centre(const struct windows *w, int32_t window, int32_t token) {
    int32_t n = w->offsets[window + 1] - w->offsets[window] - 2;
    return abs(2 * (token - windows_first(w, window)) - (n - 1));
}

static enum status read_entities(const struct model_config *config,
                                 const struct windows *w, const float *tags,
                                 const char *text, size_t text_bytes,
                                 struct answer *out, struct error *err) {
    struct reader r = {.config = config, .out = out};
    r.cursor = (struct utf8_cursor){.text = text, .n_bytes = text_bytes};
    int32_t n_content = w->is_truncated ? w->n_ids - 2 : w->n_tokens - 2;
    int32_t window = 0;
    uint32_t previous_end = 0;
    bool previous_alone = true;
    for (int32_t token = 0; token < n_content; token++) {
        while (window + 1 < w->n_windows && token >= windows_first(w, window + 1) &&
               off_centre(w, window + 1, token) < off_centre(w, window, token))
            window++;
        int32_t at = w->offsets[window] + 1 + token - windows_first(w, window);
        struct token_span span = w->spans[at];
        utf8_cursor_to(&r.cursor, span.begin);
        bool alone = stands_alone(point_at(&r.cursor));
        /* Pieces of one code point (a Hangul syllable) share its span. */
        bool is_piece =
            token > 0 && (span.begin < previous_end ||
                          (span.begin == previous_end && !alone && !previous_alone));
        const float *row = tags + (size_t)at * (size_t)config->n_tag_labels;
        enum status status = read_token(&r, span, row, is_piece, err);
        if (status != STATUS_OK)
            return status;
        previous_end = span.end;
        previous_alone = alone;
    }
    return close_span(&r, err);
}

enum status answer_make(const struct model_config *config, const struct windows *w,
                        int32_t positive_label, const float *logits, const float *tags,
                        const char *text, size_t text_bytes, struct answer *out,
                        struct error *err) {
    memset(out, 0, sizeof *out);
    size_t n_labels = (size_t)config->n_labels, n_tags = (size_t)config->n_tag_labels;
    if (!all_finite(logits, (size_t)w->n_windows * n_labels) ||
        (tags && !all_finite(tags, (size_t)w->n_ids * n_tags)))
        return error_set(err, STATUS_INTERNAL,
                         "the engine gave a number that is not finite");
    out->probs = calloc(2 * n_labels, sizeof *out->probs);
    if (!out->probs)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu labels", n_labels);
    out->logits = out->probs + n_labels;
    decide(config, w->n_windows, positive_label, logits, out);
    if (!tags || n_tags == 0)
        return STATUS_OK;
    enum status status = read_entities(config, w, tags, text, text_bytes, out, err);
    if (status != STATUS_OK)
        answer_free(out);
    return status;
}

void answer_apply_threshold(const struct model_config *config, int32_t positive_label,
                            double threshold, struct answer *a) {
    int32_t n = config->n_labels;
    if (config->problem_type == PROBLEM_REGRESSION || n < 2 || positive_label < 0 ||
        positive_label >= n || isnan(threshold))
        return;
    a->label = positive_label;
    /* A threshold that was typed in is not lost to the rounding of a probability to float:
     * what prints as 0.6 passes 0.6. */
    if (a->probs[positive_label] < (float)threshold) {
        /* By the logits, which tell apart what rounds to the same probability. */
        a->label = positive_label == 0 ? 1 : 0;
        for (int32_t i = a->label + 1; i < n; i++)
            if (i != positive_label && a->logits[i] > a->logits[a->label])
                a->label = i;
    }
    a->score = a->probs[a->label];
}

void answer_free(struct answer *a) {
    if (!a)
        return;
    free(a->probs); /* and the logits behind them */
    free(a->entities);
    memset(a, 0, sizeof *a);
}
