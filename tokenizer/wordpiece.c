/* SPDX-License-Identifier: Apache-2.0
 *
 * wordpiece.c - text to tokens.
 *
 * What:    BertNormalizer, BertPreTokenizer, WordPiece and BertProcessing of Hugging Face
 *          tokenizers, in one pass over the bytes of the text.
 * Design:  most words are short, ASCII and in the vocabulary. They are scanned, lowered and
 *          padded in registers and looked up whole. What is left goes one code point at a
 *          time through gather_word into a buffer of one word, and then through the trie.
 * Time:    linear. A byte is looked at a bounded number of times: a word over the limit is not
 *          searched, a piece is at most as long as the longest token, and a run of combining
 *          marks is read once for each combining class that outlives accent stripping.
 * Memory:  the caller's arrays and one word on the stack.
 *
 * Offsets follow tokenizers: every normalised character carries the index of a code point of
 * the text. Decomposition keeps it, with one quirk that is kept too: where marks are put into
 * canonical order, the indices stay in the order of the text (see add_marks).
 */
#include "tokenizer/wordpiece.h"

#include <string.h>

#include "base/utf8.h"
#include "tokenizer/unicode.h"
#include "tokenizer/word_scan.h"

/* A test that counts work defines it. */
#ifndef WORDPIECE_STEP
#define WORDPIECE_STEP() ((void)0)
#endif

/* A word that is being gathered, normalised. at[i] is where its i-th character was. */
struct word {
    uint32_t n_chars, n_bytes; /* n_chars stops at the limit + 1 */
    uint32_t last;             /* at of the last character, stored or not */
    uint32_t at[WORDPIECE_MAX_WORD_CHARS];
    uint8_t bytes[WORDPIECE_MAX_WORD_CHARS * 4];
};

/* One call of tokenizer_encode. */
struct scan {
    const struct tokenizer *t;
    const uint8_t *text, *end;
    uint32_t n_continuation; /* byte position - this = code points before it */
    int32_t *ids;
    struct token_span *spans;
    size_t n, limit; /* limit leaves room for [SEP] */
    bool is_truncated;
    struct word *word;
};

static inline uint32_t code_point_at(const struct scan *s, const uint8_t *p) {
    return (uint32_t)(p - s->text) - s->n_continuation;
}

static inline void emit(struct scan *s, int32_t id, uint32_t begin, uint32_t end) {
    if (s->n == s->limit) {
        s->is_truncated = true;
        return;
    }
    s->ids[s->n] = id;
    if (s->spans)
        s->spans[s->n] = (struct token_span){begin, end};
    s->n++;
}

/* The longest piece that bytes[from .. n) begin with: its id and end, or -1. */
static inline int32_t longest_piece(const struct tokenizer *t, const uint8_t *bytes,
                                    uint32_t from, uint32_t n, uint32_t *end) {
    uint32_t node = from == 0 ? 0 : t->continuation;
    int32_t id = -1;
    if (node == WORDPIECE_NO_NODE)
        return -1;
    for (uint32_t i = from; i < n;) {
        WORDPIECE_STEP();
        node = vocab_step(&t->vocab, node, bytes[i++]);
        if (node == 0)
            break;
        if (t->vocab.node_ids[node] >= 0) {
            id = t->vocab.node_ids[node];
            *end = i;
        }
    }
    return id;
}

/* A word's tokens, or [UNK]. at == NULL: all characters are ASCII, the first at base. */
static void emit_pieces(struct scan *s, const uint8_t *bytes, uint32_t n,
                        const uint32_t *at, uint32_t base) {
    const struct tokenizer *t = s->t;
    size_t n_before = s->n;
    bool was_truncated = s->is_truncated;
    uint32_t n_chars = 0; /* before this piece */
    for (uint32_t from = 0, end = 0; from < n; from = end) {
        int32_t id = longest_piece(t, bytes, from, n, &end);
        if (id < 0) {
            uint32_t last = at ? s->word->last : base + n - 1;
            s->n = n_before;
            s->is_truncated = was_truncated;
            emit(s, t->unk_id, at ? at[0] : base, last + 1);
            return;
        }
        uint32_t n_piece = 0;
        for (uint32_t i = from; i < end; i++)
            n_piece += (bytes[i] & 0xC0) != 0x80;
        if (at)
            emit(s, id, at[n_chars], at[n_chars + n_piece - 1] + 1);
        else
            emit(s, id, base + from, base + end);
        n_chars += n_piece;
    }
}

/* ---- one word, code point by code point ---- */

static inline void add_character(struct scan *s, uint32_t c, uint32_t at) {
    struct word *w = s->word;
    w->last = at;
    if (w->n_chars < s->t->max_word_chars) {
        w->at[w->n_chars++] = at;
        w->n_bytes += (uint32_t)utf8_encode(c, w->bytes + w->n_bytes);
    } else {
        w->n_chars = s->t->max_word_chars + 1;
    }
}

static void finish_word(struct scan *s) {
    struct word *w = s->word;
    if (w->n_chars > s->t->max_word_chars)
        emit(s, s->t->unk_id, w->at[0], w->last + 1);
    else if (w->n_chars > 0)
        emit_pieces(s, w->bytes, w->n_bytes, w->at, 0);
    w->n_chars = w->n_bytes = 0;
}

/* Adds a character that is decomposed already. Punctuation is a word of its own; true then. */
static bool add_element(struct scan *s, uint32_t c, const struct unicode_record *record,
                        uint32_t at) {
    if (record->flags & UNICODE_PUNCTUATION) {
        finish_word(s);
        add_character(s, c, at);
        finish_word(s);
        return true;
    }
    if (s->t->is_lower && record->lower) {
        add_character(s, (uint32_t)((int32_t)c + record->lower), at);
        if (record->flags & UNICODE_DOTTED)
            add_character(s, UNICODE_DOT_ABOVE, at);
        return false;
    }
    add_character(s, c, at);
    return false;
}

/* The canonical decomposition of a character, itself when it has none. */
static size_t decompose(uint32_t c, const struct unicode_record *record,
                        uint32_t out[UNICODE_MAX_DECOMPOSITION]) {
    if (record->flags & UNICODE_HANGUL)
        return unicode_decompose_hangul(c, out);
    if (record->n_decomposition == 0) {
        out[0] = c;
        return 1;
    }
    for (size_t i = 0; i < record->n_decomposition; i++)
        out[i] = unicode_decompositions[record->decomposition + i];
    return record->n_decomposition;
}

static const struct added_token *find_added(const struct scan *s, const uint8_t *p) {
    const struct tokenizer *t = s->t;
    const struct added_token *best = NULL;
    for (size_t i = 0; i < t->n_added; i++) {
        const struct added_token *a = &t->added[i];
        WORDPIECE_STEP();
        if ((!best || a->n_bytes > best->n_bytes) &&
            (size_t)(s->end - p) >= a->n_bytes && memcmp(p, a->text, a->n_bytes) == 0)
            best = a;
    }
    return best;
}

/* ---- runs of combining marks ---- */

/* Reads the elements of a run of marks: decomposed, not yet ordered. */
struct mark_reader {
    const uint8_t *p; /* the next character */
    uint32_t n_continuation;
    uint32_t at;     /* of the character that the elements are of */
    uint32_t n_read; /* characters read that are not cleaned away */
    uint32_t n_elements, next_element;
    uint32_t elements[UNICODE_MAX_DECOMPOSITION];
};

/* Reads the next character of the run; false at its end. The first character may begin with
 * starters, which are not of the run but skipped. */
static bool read_marked(const struct scan *s, struct mark_reader *r) {
    while (r->p < s->end) {
        size_t length;
        if (s->t->is_added_first[*r->p] && find_added(s, r->p))
            return false;
        uint32_t c = utf8_decode(r->p, (size_t)(s->end - r->p), &length);
        const struct unicode_record *record = unicode_find(c);
        WORDPIECE_STEP();
        if (!(record->flags & UNICODE_CONTROL)) {
            r->n_elements = (uint32_t)decompose(c, record, r->elements);
            r->next_element = 0;
            if (unicode_find(r->elements[0])->combining_class == 0 && r->n_read > 0)
                return false;
            r->at = (uint32_t)(r->p - s->text) - r->n_continuation;
            r->n_read++;
        }
        r->p += length;
        r->n_continuation += (uint32_t)length - 1;
        if (!(record->flags & UNICODE_CONTROL))
            return true;
    }
    return false;
}

/* The next element of the run and its record; is_first: it stands for its character. */
static bool next_mark(const struct scan *s, struct mark_reader *r, uint32_t *c,
                      const struct unicode_record **record, bool *is_first) {
    for (;;) {
        if (r->next_element == r->n_elements && !read_marked(s, r))
            return false;
        *is_first = r->next_element == 0;
        *c = r->elements[r->next_element++];
        *record = unicode_find(*c);
        if ((*record)->combining_class != 0)
            return true;
    }
}

/* Adds the marks that are kept of the run that begins at start, in canonical order; returns
 * the end of the run. All marks of lower classes come before a mark, and the earlier ones of
 * its own. tokenizers then deals out the run's places in the text in that order, one to each
 * mark that stands for a character; one that a decomposition added shares the place before. */
static const uint8_t *add_marks(struct scan *s, const uint8_t *start,
                                uint32_t n_continuation) {
    const struct mark_reader at_start = {.p = start, .n_continuation = n_continuation};
    struct mark_reader r = at_start, place = at_start;
    uint32_t n_firsts[256] = {0}; /* by class */
    bool has_kept[256] = {0};
    const struct unicode_record *record;
    uint32_t c, n_dealt = 0;
    bool is_first;
    while (next_mark(s, &r, &c, &record, &is_first)) {
        n_firsts[record->combining_class] += is_first;
        has_kept[record->combining_class] |= !(record->flags & UNICODE_MARK);
    }
    const uint8_t *end = r.p;
    uint32_t end_continuation = r.n_continuation;
    /* A first character that begins with starters has dealt out its place to those. */
    read_marked(s, &place);
    n_dealt = unicode_find(place.elements[0])->combining_class == 0;
    for (uint32_t rank = 1; rank < 256; rank++) {
        if (!has_kept[rank]) {
            n_dealt += n_firsts[rank];
            continue;
        }
        r = at_start;
        while (next_mark(s, &r, &c, &record, &is_first)) {
            if (record->combining_class != rank)
                continue;
            n_dealt += is_first;
            if (record->flags & UNICODE_MARK)
                continue;
            while (place.n_read < n_dealt && read_marked(s, &place))
                continue;
            add_element(s, c, record, place.at);
        }
    }
    s->n_continuation = end_continuation;
    return end;
}

/* ---- the general path ---- */

/* Where the marks before this character began. */
struct mark_run {
    const uint8_t *start; /* NULL: the last element was a starter */
    uint32_t n_continuation;
};

/* Adds one character, neither control nor space, and moves *p behind it, or behind the run
 * of marks that it belongs to. True when the word ended with it. */
static bool add_decomposed(struct scan *s, const uint8_t **p, size_t length, uint32_t c,
                           const struct unicode_record *record, struct mark_run *run) {
    uint32_t elements[UNICODE_MAX_DECOMPOSITION], at = code_point_at(s, *p);
    size_t n = decompose(c, record, elements);
    bool is_end = false;
    for (size_t i = 0; i < n; i++) {
        const struct unicode_record *element = unicode_find(elements[i]);
        if (element->combining_class == 0) {
            run->start = NULL;
        } else if (!run->start) {
            run->start = *p;
            run->n_continuation = s->n_continuation;
        }
        if (element->flags & UNICODE_MARK)
            continue;
        if (element->combining_class != 0) {
            *p = add_marks(s, run->start, run->n_continuation);
            run->start = NULL;
            return is_end;
        }
        is_end |= add_element(s, elements[i], element, at);
    }
    *p += length;
    s->n_continuation += (uint32_t)length - 1;
    return is_end;
}

/* Reads on from p until a word is finished and whatever ended it; returns where that was. */
static const uint8_t *gather_word(struct scan *s, const uint8_t *p) {
    const struct tokenizer *t = s->t;
    struct mark_run run = {0};
    bool is_end = false;
    s->word->n_chars = s->word->n_bytes = 0;
    while (p < s->end && !is_end) {
        size_t length;
        if (t->is_added_first[*p] && find_added(s, p))
            break;
        uint32_t c = utf8_decode(p, (size_t)(s->end - p), &length);
        const struct unicode_record *record = unicode_find(c);
        WORDPIECE_STEP();
        if (record->flags & (UNICODE_CONTROL | UNICODE_SPACE)) {
            is_end = record->flags & UNICODE_SPACE;
        } else if (record->flags & UNICODE_CJK && t->is_cjk_spaced) {
            finish_word(s);
            if (t->is_stripped) {
                add_decomposed(s, &p, length, c, record, &run);
                break;
            }
            add_element(s, c, record, code_point_at(s, p));
            is_end = true;
        } else if (t->is_stripped) {
            is_end = add_decomposed(s, &p, length, c, record, &run);
            continue;
        } else {
            is_end = add_element(s, c, record, code_point_at(s, p));
        }
        p += length;
        s->n_continuation += (uint32_t)length - 1;
    }
    finish_word(s);
    return p;
}

/* ---- the fast path ---- */

/* True when a word of letters and digits that ends before p is whole. */
static inline bool is_word_end(const struct scan *s, const uint8_t *p) {
    size_t length;
    if (p == s->end)
        return true;
    uint8_t class = s->t->classes[*p];
    if (class != BYTE_OTHER)
        return class != BYTE_WORD;
    if (*p < 0x80)
        return false;
    uint32_t c = utf8_decode(p, (size_t)(s->end - p), &length);
    const struct unicode_record *record = unicode_find(c);
    return record->flags & (UNICODE_SPACE | UNICODE_PUNCTUATION) ||
           (record->flags & UNICODE_CJK && s->t->is_cjk_spaced);
}

/* Encodes the word at p when it is short and ASCII, else hands it on. */
static inline const uint8_t *encode_word(struct scan *s, const uint8_t *p) {
    const struct tokenizer *t = s->t;
    uint8_t bytes[16] = {0};
    struct word_key key;
    const uint8_t *from = p;
    if (s->end - p < 16) {
        memcpy(bytes, p, (size_t)(s->end - p));
        from = bytes;
    }
    uint32_t n = word_scan(from, t->is_lower, &key);
    if (n > t->cap_fast_bytes || !is_word_end(s, p + n))
        return gather_word(s, p);
    uint32_t at = code_point_at(s, p);
    int32_t id = vocab_word(&t->vocab, key.low, key.high);
    WORDPIECE_STEP();
    if (id >= 0) {
        emit(s, id, at, at + n);
    } else {
        memcpy(bytes, &key, sizeof bytes);
        emit_pieces(s, bytes, n, NULL, at);
    }
    return p + n;
}

static const uint8_t *encode_added(struct scan *s, const uint8_t *p) {
    const struct added_token *a = find_added(s, p);
    if (!a)
        return NULL;
    uint32_t n_chars = 0, at = code_point_at(s, p);
    for (size_t i = 0; i < a->n_bytes; i++)
        n_chars += ((uint8_t)a->text[i] & 0xC0) != 0x80;
    emit(s, a->id, at, at + n_chars);
    s->n_continuation += (uint32_t)a->n_bytes - n_chars;
    return p + a->n_bytes;
}

static void encode_text(struct scan *s) {
    const struct tokenizer *t = s->t;
    const uint8_t *p = s->text, *after;
    while (p < s->end && !s->is_truncated) {
        switch (t->classes[*p]) {
        case BYTE_WORD:
            p = encode_word(s, p);
            break;
        case BYTE_SPACE:
            WORDPIECE_STEP();
            p++;
            break;
        case BYTE_ADDED:
            after = encode_added(s, p);
            if (after) {
                p = after;
                break;
            }
            /* fall through */
        case BYTE_PUNCTUATION:
            WORDPIECE_STEP();
            emit(s, t->ascii_ids[*p], code_point_at(s, p), code_point_at(s, p) + 1);
            p++;
            break;
        default:
            after = t->is_added_first[*p] ? encode_added(s, p) : NULL;
            p = after ? after : gather_word(s, p);
        }
    }
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t text_bytes,
                      int32_t *ids, struct token_span *spans, size_t cap_tokens,
                      struct encoding *out) {
    /* 8 KB that are written before they are read: clearing them would cost more than most
     * texts do. */
    struct word word __attribute__((uninitialized));
    struct scan s = {.t = t,
                     .text = (const uint8_t *)text,
                     .end = (const uint8_t *)text + text_bytes,
                     .ids = ids,
                     .spans = spans,
                     .n = 1,
                     .limit = cap_tokens - 1,
                     .word = &word};
    size_t n_unknown = 0;
    encode_text(&s);
    for (size_t i = 1; i < s.n; i++)
        n_unknown += ids[i] == t->unk_id;
    ids[0] = t->cls_id;
    ids[s.n] = t->sep_id;
    if (spans)
        spans[0] = spans[s.n] = (struct token_span){0, 0};
    *out = (struct encoding){s.n + 1, n_unknown, s.is_truncated};
}

size_t tokenizer_max_tokens(size_t text_bytes) {
    return text_bytes < SIZE_MAX - 2 ? text_bytes + 2 : SIZE_MAX;
}

/* ---- tables ---- */

static bool is_ascii_word(int c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void prepare_byte(struct tokenizer *t, int c) {
    char text[2] = {(char)c, 0};
    const struct unicode_record *record = unicode_find((uint32_t)c);
    t->ascii_ids[c] = t->unk_id;
    if (record->flags & UNICODE_SPACE)
        t->classes[c] = BYTE_SPACE;
    else if (is_ascii_word(c))
        t->classes[c] = BYTE_WORD;
    else if (record->flags & UNICODE_PUNCTUATION)
        t->classes[c] = BYTE_PUNCTUATION;
    if (c != 0 && vocab_find(&t->vocab, text) >= 0)
        t->ascii_ids[c] = vocab_find(&t->vocab, text);
}

void wordpiece_prepare(struct tokenizer *t, const char *continuation_prefix) {
    for (int c = 0; c < 128; c++)
        prepare_byte(t, c);
    t->continuation = 0;
    for (const char *c = continuation_prefix; *c; c++) {
        t->continuation = vocab_step(&t->vocab, t->continuation, (uint8_t)*c);
        if (t->continuation == 0) {
            t->continuation = WORDPIECE_NO_NODE;
            break;
        }
    }
    t->cap_fast_bytes = t->max_word_chars < 15 ? t->max_word_chars : 15;
    for (size_t i = 0; i < t->n_added; i++) {
        uint8_t first = (uint8_t)t->added[i].text[0];
        t->is_added_first[first] = 1;
        if (t->classes[first] == BYTE_PUNCTUATION)
            t->classes[first] = BYTE_ADDED;
        else if (t->classes[first] != BYTE_ADDED) {
            /* It may begin inside what the scanner takes for a word. */
            t->classes[first] = BYTE_OTHER;
            t->cap_fast_bytes = 0;
        }
    }
}
