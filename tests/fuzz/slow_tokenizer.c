/* SPDX-License-Identifier: Apache-2.0
 *
 * slow_tokenizer.c - see slow_tokenizer.h. Each function is one step of the pipeline of
 * Hugging Face tokenizers: added tokens, clean text, ideographs, NFD, accents, lower case,
 * split at spaces, split at punctuation, longest pieces, [CLS] and [SEP].
 */
#include "tests/fuzz/slow_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/slow_unicode.h"

#define N_CODE_POINTS 0x110000
#define COUNT(rows) (sizeof(rows) / sizeof *(rows))

enum {
    IS_CONTROL = 1,
    IS_SPACE = 2,
    IS_PUNCTUATION = 4,
    IS_IDEOGRAPH = 8,
    IS_MARK = 16
};

/* A character and the place in the text that it came from. */
struct letter {
    uint32_t c, at;
    bool is_extra; /* NFD made it, beside another one, of one character */
};

struct letters {
    struct letter *all;
    size_t n, cap;
};

struct slow_tokenizer {
    uint8_t *flags;          /* by code point */
    uint8_t *classes;        /* combining class by code point */
    uint16_t *lower;         /* row of LOWER + 1, by code point */
    uint16_t *decomposition; /* row of DECOMPOSITIONS + 1 */
    int32_t *sorted;         /* ids in the order of their strings */
    const struct slow_settings *settings;
    struct letters text, step, other;
    struct slow_token *tokens;
    size_t n_tokens, cap_tokens;
    char *piece;
    size_t cap_piece;
};

static void *grown(void *block, size_t *cap, size_t needed, size_t size) {
    if (needed <= *cap)
        return block;
    *cap = needed * 2 + 64;
    block = realloc(block, *cap * size);
    if (!block)
        abort();
    return block;
}

static void *zeroed(size_t n, size_t size) {
    void *block = calloc(n, size);
    if (!block)
        abort();
    return block;
}

static void push(struct letters *to, struct letter letter) {
    to->all = grown(to->all, &to->cap, to->n + 1, sizeof *to->all);
    to->all[to->n++] = letter;
}

static void swap(struct letters *a, struct letters *b) {
    struct letters was = *a;
    *a = *b;
    *b = was;
}

/* ---- UTF-8 ---- */

/* By the table of well-formed sequences in the Unicode standard (3-7). */
static bool is_well_formed(const uint8_t *p, size_t n) {
    static const struct {
        uint8_t length, first, last, second_first, second_last;
    } ROWS[] = {{1, 0x00, 0x7F, 0, 0},       {2, 0xC2, 0xDF, 0x80, 0xBF},
                {3, 0xE0, 0xE0, 0xA0, 0xBF}, {3, 0xE1, 0xEC, 0x80, 0xBF},
                {3, 0xED, 0xED, 0x80, 0x9F}, {3, 0xEE, 0xEF, 0x80, 0xBF},
                {4, 0xF0, 0xF0, 0x90, 0xBF}, {4, 0xF1, 0xF3, 0x80, 0xBF},
                {4, 0xF4, 0xF4, 0x80, 0x8F}};
    for (size_t i = 0; i < COUNT(ROWS); i++) {
        if (ROWS[i].length != n || p[0] < ROWS[i].first || p[0] > ROWS[i].last)
            continue;
        if (n > 1 && (p[1] < ROWS[i].second_first || p[1] > ROWS[i].second_last))
            continue;
        bool is_good = true;
        for (size_t k = 2; k < n; k++)
            is_good = is_good && p[k] >= 0x80 && p[k] <= 0xBF;
        if (is_good)
            return true;
    }
    return false;
}

static void decode(struct letters *to, const uint8_t *text, size_t n_bytes) {
    static const uint8_t LEAD[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    to->n = 0;
    for (size_t i = 0; i < n_bytes;) {
        size_t n = 1;
        while (n <= 4 && (i + n > n_bytes || !is_well_formed(text + i, n)))
            n++;
        uint32_t c = 0xFFFD;
        if (n <= 4) {
            c = text[i] & LEAD[n];
            for (size_t k = 1; k < n; k++)
                c = c * 64 + text[i + k] % 64;
        } else {
            n = 1;
        }
        push(to, (struct letter){c, (uint32_t)to->n, false});
        i += n;
    }
}

static size_t encode(uint32_t c, char *out) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t k = n; k-- > 1; c /= 64)
        out[k] = (char)(0x80 + c % 64);
    out[0] = (char)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) + c);
    return n;
}

/* ---- normalizer: each step reads s->step and leaves its answer there ---- */

static void clean(struct slow_tokenizer *s) {
    s->other.n = 0;
    for (size_t i = 0; i < s->step.n; i++) {
        struct letter l = s->step.all[i];
        if (s->flags[l.c] & IS_CONTROL)
            continue;
        if (s->flags[l.c] & IS_SPACE)
            l.c = ' ';
        push(&s->other, l);
    }
    swap(&s->step, &s->other);
}

static void space_ideographs(struct slow_tokenizer *s) {
    s->other.n = 0;
    for (size_t i = 0; i < s->step.n; i++) {
        struct letter l = s->step.all[i];
        if (s->flags[l.c] & IS_IDEOGRAPH)
            push(&s->other, (struct letter){' ', l.at, false});
        push(&s->other, l);
        if (s->flags[l.c] & IS_IDEOGRAPH)
            push(&s->other, (struct letter){' ', l.at, false});
    }
    swap(&s->step, &s->other);
}

static void push_decomposed(struct slow_tokenizer *s, struct letter l) {
    if (l.c >= 0xAC00 && l.c < 0xAC00 + 19 * 21 * 28) {
        uint32_t index = l.c - 0xAC00;
        push(&s->other, (struct letter){0x1100 + index / (21 * 28), l.at, false});
        push(&s->other, (struct letter){0x1161 + index / 28 % 21, l.at, true});
        if (index % 28)
            push(&s->other, (struct letter){0x11A7 + index % 28, l.at, true});
        return;
    }
    if (!s->decomposition[l.c]) {
        push(&s->other, (struct letter){l.c, l.at, false});
        return;
    }
    const uint32_t *row = DECOMPOSITIONS[s->decomposition[l.c] - 1];
    for (size_t k = 1; k < COUNT(*DECOMPOSITIONS) && row[k]; k++)
        push(&s->other, (struct letter){row[k], l.at, k > 1});
}

/* Canonical order: within a run of marks, by class; those of one class keep their order. */
static void order_marks(struct slow_tokenizer *s, struct letters *in) {
    for (size_t i = 1; i < in->n; i++) {
        struct letter l = in->all[i];
        size_t k = i;
        while (k > 0 && s->classes[l.c] != 0 &&
               s->classes[in->all[k - 1].c] > s->classes[l.c]) {
            in->all[k] = in->all[k - 1];
            k--;
        }
        in->all[k] = l;
    }
}

/* NFD, with places as tokenizers deals them out: the result is walked through beside the
 * characters that were there, one of them to each that is not extra; extra ones share the
 * place of the one before, whichever it is by now. */
static void decompose(struct slow_tokenizer *s) {
    s->other.n = 0;
    for (size_t i = 0; i < s->step.n; i++)
        push_decomposed(s, s->step.all[i]);
    order_marks(s, &s->other);
    size_t dealt = 0;
    for (size_t i = 0; i < s->other.n; i++) {
        struct letter *l = &s->other.all[i];
        if (!l->is_extra)
            l->at = s->step.all[dealt++].at;
        else if (dealt > 0)
            l->at = s->step.all[dealt - 1].at;
    }
    swap(&s->step, &s->other);
}

static void strip_marks(struct slow_tokenizer *s) {
    s->other.n = 0;
    for (size_t i = 0; i < s->step.n; i++)
        if (!(s->flags[s->step.all[i].c] & IS_MARK))
            push(&s->other, s->step.all[i]);
    swap(&s->step, &s->other);
}

static void lower(struct slow_tokenizer *s) {
    s->other.n = 0;
    for (size_t i = 0; i < s->step.n; i++) {
        struct letter l = s->step.all[i];
        if (!s->lower[l.c]) {
            push(&s->other, l);
            continue;
        }
        const uint32_t *row = LOWER[s->lower[l.c] - 1];
        for (size_t k = 1; k < COUNT(*LOWER) && row[k]; k++)
            push(&s->other, (struct letter){row[k], l.at, false});
    }
    swap(&s->step, &s->other);
}

/* ---- words and pieces ---- */

static void add_token(struct slow_tokenizer *s, int32_t id, uint32_t begin,
                      uint32_t end) {
    s->tokens = grown(s->tokens, &s->cap_tokens, s->n_tokens + 1, sizeof *s->tokens);
    s->tokens[s->n_tokens++] = (struct slow_token){id, begin, end};
}

static int32_t find_token(const struct slow_tokenizer *s, const char *text) {
    int32_t low = 0, high = s->settings->n_tokens - 1;
    while (low <= high) {
        int32_t middle = low + (high - low) / 2;
        int order = strcmp(text, s->settings->tokens[s->sorted[middle]]);
        if (order == 0)
            return s->sorted[middle];
        if (order < 0)
            high = middle - 1;
        else
            low = middle + 1;
    }
    return -1;
}

/* The id of letters[from .. to) as a piece, -1 when it is none. */
static int32_t find_piece(struct slow_tokenizer *s, const struct letter *letters,
                          size_t from, size_t to) {
    size_t n = 0;
    s->piece = grown(s->piece, &s->cap_piece, (to - from) * 4 + 3, 1);
    if (from > 0) {
        s->piece[n++] = '#';
        s->piece[n++] = '#';
    }
    for (size_t i = from; i < to; i++)
        n += encode(letters[i].c, s->piece + n);
    s->piece[n] = 0;
    return find_token(s, s->piece);
}

static void add_word(struct slow_tokenizer *s, const struct letter *letters, size_t n) {
    size_t n_before = s->n_tokens;
    bool is_unknown = n > s->settings->max_word_chars;
    if (n == 0)
        return;
    for (size_t from = 0; from < n && !is_unknown;) {
        size_t to = n;
        int32_t id = -1;
        while (to > from && (id = find_piece(s, letters, from, to)) < 0)
            to--;
        if (id < 0)
            is_unknown = true;
        else
            add_token(s, id, letters[from].at, letters[to - 1].at + 1);
        from = to;
    }
    if (is_unknown) {
        s->n_tokens = n_before;
        add_token(s, find_token(s, s->settings->unk), letters[0].at,
                  letters[n - 1].at + 1);
    }
}

static void add_words(struct slow_tokenizer *s) {
    const struct letter *l = s->step.all;
    size_t begin = 0;
    for (size_t i = 0; i < s->step.n; i++) {
        if (!(s->flags[l[i].c] & (IS_SPACE | IS_PUNCTUATION)))
            continue;
        add_word(s, l + begin, i - begin);
        if (s->flags[l[i].c] & IS_PUNCTUATION)
            add_word(s, l + i, 1);
        begin = i + 1;
    }
    add_word(s, l + begin, s->step.n - begin);
}

/* The text between added tokens. */
static void add_segment(struct slow_tokenizer *s, size_t from, size_t to) {
    s->step.n = 0;
    for (size_t i = from; i < to; i++)
        push(&s->step, s->text.all[i]);
    clean(s);
    if (s->settings->is_cjk_spaced)
        space_ideographs(s);
    if (s->settings->is_stripped) {
        decompose(s);
        strip_marks(s);
    }
    if (s->settings->is_lower)
        lower(s);
    if (s->step.n > 0)
        add_words(s);
}

/* The length of the longest added token at text[i], all ASCII; 0: none. */
static size_t find_added(const struct slow_tokenizer *s, size_t i, const char **found) {
    size_t longest = 0;
    for (const char *const *a = s->settings->added; *a; a++) {
        size_t n = 0;
        while ((*a)[n] && i + n < s->text.n && s->text.all[i + n].c == (uint8_t)(*a)[n])
            n++;
        if (!(*a)[n] && n > longest) {
            longest = n;
            *found = *a;
        }
    }
    return longest;
}

size_t slow_encode(struct slow_tokenizer *s, const uint8_t *text, size_t n_bytes,
                   const struct slow_settings *settings,
                   const struct slow_token **out) {
    size_t begin = 0;
    s->settings = settings;
    s->n_tokens = 0;
    decode(&s->text, text, n_bytes);
    add_token(s, find_token(s, settings->cls), 0, 0);
    for (size_t i = 0; i < s->text.n;) {
        const char *added = NULL;
        size_t n = find_added(s, i, &added);
        if (n == 0) {
            i++;
            continue;
        }
        add_segment(s, begin, i);
        add_token(s, find_token(s, added), (uint32_t)i, (uint32_t)(i + n));
        begin = i += n;
    }
    add_segment(s, begin, s->text.n);
    add_token(s, find_token(s, settings->sep), 0, 0);
    *out = s->tokens;
    return s->n_tokens;
}

/* ---- tables ---- */

static void mark_spans(uint8_t *flags, const uint32_t (*spans)[2], size_t n,
                       uint8_t flag) {
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = spans[i][0]; c <= spans[i][1]; c++)
            flags[c] |= flag;
}

static const struct slow_settings *sort_settings;
static int compare_tokens(const void *a, const void *b) {
    return strcmp(sort_settings->tokens[*(const int32_t *)a],
                  sort_settings->tokens[*(const int32_t *)b]);
}

struct slow_tokenizer *slow_open(const struct slow_settings *settings) {
    struct slow_tokenizer *s = zeroed(1, sizeof *s);
    s->flags = zeroed(N_CODE_POINTS, sizeof *s->flags);
    s->classes = zeroed(N_CODE_POINTS, sizeof *s->classes);
    s->lower = zeroed(N_CODE_POINTS, sizeof *s->lower);
    s->decomposition = zeroed(N_CODE_POINTS, sizeof *s->decomposition);
    s->sorted = zeroed((size_t)settings->n_tokens, sizeof *s->sorted);
    mark_spans(s->flags, CONTROL, COUNT(CONTROL), IS_CONTROL);
    mark_spans(s->flags, SPACE, COUNT(SPACE), IS_SPACE);
    mark_spans(s->flags, PUNCTUATION, COUNT(PUNCTUATION), IS_PUNCTUATION);
    mark_spans(s->flags, IDEOGRAPH, COUNT(IDEOGRAPH), IS_IDEOGRAPH);
    mark_spans(s->flags, MARK, COUNT(MARK), IS_MARK);
    for (size_t i = 0; i < COUNT(COMBINING_CLASSES); i++)
        for (uint32_t c = COMBINING_CLASSES[i][0]; c <= COMBINING_CLASSES[i][1]; c++)
            s->classes[c] = (uint8_t)COMBINING_CLASSES[i][2];
    for (size_t i = 0; i < COUNT(LOWER); i++)
        s->lower[LOWER[i][0]] = (uint16_t)(i + 1);
    for (size_t i = 0; i < COUNT(DECOMPOSITIONS); i++)
        s->decomposition[DECOMPOSITIONS[i][0]] = (uint16_t)(i + 1);
    for (int32_t id = 0; id < settings->n_tokens; id++)
        s->sorted[id] = id;
    sort_settings = settings;
    qsort(s->sorted, (size_t)settings->n_tokens, sizeof *s->sorted, compare_tokens);
    return s;
}

void slow_close(struct slow_tokenizer *s) {
    if (!s)
        return;
    free(s->flags);
    free(s->classes);
    free(s->lower);
    free(s->decomposition);
    free(s->sorted);
    free(s->text.all);
    free(s->step.all);
    free(s->other.all);
    free(s->tokens);
    free(s->piece);
    free(s);
}
