/* SPDX-License-Identifier: Apache-2.0
 *
 * watch_list_find.c - the search of watch_list.h.
 */
#include <string.h>

#include "client/select/normalise.h"
#include "client/select/watch_list_data.h"

#define BLOCK 64
/* How far a stop word is looked for, in bytes, so that no text costs more than its length. */
#define STOP_WINDOW 512

struct search {
    const struct watch_list *list;
    struct view text;
    const uint8_t *p;
    struct watch_match *out;
    size_t cap, n_found;
    bool wants_one, ignores_stops;
    size_t counted_bytes; /* of the text, up to which counted_points were counted */
    uint32_t counted_points;
};

static uint32_t points_up_to(struct search *s, size_t at) {
    while (s->counted_bytes < at) {
        size_t length;
        utf8_decode(s->p + s->counted_bytes, s->text.n_bytes - s->counted_bytes,
                    &length);
        s->counted_bytes += length;
        s->counted_points++;
    }
    return s->counted_points;
}

/* ---- Stop words ---- */

/* Looks at the words of [at, end) in turn: bit 0 of the result is the last one's, set for a
 * stop word of the drug. Stops behind max_words. */
static uint32_t stop_bits(const struct search *s, const struct watch_stops *stops,
                          size_t at, size_t end, unsigned max_words) {
    uint8_t word[WATCH_MAX_NAME_BYTES];
    uint32_t bits = 0;
    for (unsigned n = 0; n < max_words && at < end; n++) {
        size_t n_word = 0, n_skipped = 0;
        while (at < end) {
            struct normalised c = normalise_next(s->p + at, end - at);
            bool is_word = c.class == NORMALISE_WORD || c.class == NORMALISE_UNSPACED;
            if (!is_word && c.class != NORMALISE_DROPPED && n_word + n_skipped > 0)
                break;
            at += c.n_source;
            if (!is_word)
                continue;
            if (c.n_bytes <= sizeof word - n_word && n_skipped == 0) {
                memcpy(word + n_word, c.bytes, c.n_bytes);
                n_word += c.n_bytes;
            } else {
                n_skipped++; /* too long for any stop word */
            }
        }
        if (n_word + n_skipped == 0)
            break;
        bool is_stop = false;
        for (size_t i = 0; i < stops->n_words && n_skipped == 0; i++)
            is_stop |= view_equal(stops->words[i], view_of((const char *)word, n_word));
        bits = bits << 1 | is_stop;
    }
    return bits;
}

static bool is_stopped(const struct search *s, uint32_t drug, size_t begin,
                       size_t end) {
    const struct watch_stops *stops = &s->list->stops[drug];
    if (stops->n_words == 0 || s->ignores_stops)
        return false;
    size_t from = begin > STOP_WINDOW ? begin - STOP_WINDOW : 0;
    size_t to =
        s->text.n_bytes - end > STOP_WINDOW ? end + STOP_WINDOW : s->text.n_bytes;
    uint32_t before = stop_bits(s, stops, from, begin, STOP_WINDOW);
    return (before & ((1u << WATCH_STOP_WORDS) - 1)) != 0 ||
           stop_bits(s, stops, end, to, WATCH_STOP_WORDS) != 0;
}

/* Returns whether the search is over. */
static bool found(struct search *s, uint32_t value, size_t begin, size_t end) {
    struct watch_reference to = s->list->references[value];
    if (is_stopped(s, to.drug, begin, end))
        return false;
    if (s->n_found < s->cap) {
        uint32_t first = points_up_to(s, begin);
        s->out[s->n_found] =
            (struct watch_match){to.drug,       to.name, (uint32_t)begin,
                                 (uint32_t)end, first,   points_up_to(s, end)};
    }
    s->n_found++;
    return s->wants_one;
}

/* ---- Names on word boundaries ---- */

/* The class of what stands at text[at], dropped ones left out; SPACE at the end. */
static enum normalise_class class_at(const struct search *s, size_t at) {
    while (at < s->text.n_bytes) {
        struct normalised c = normalise_next(s->p + at, s->text.n_bytes - at);
        if (c.class != NORMALISE_DROPPED)
            return c.class;
        at += c.n_source;
    }
    return NORMALISE_SPACE;
}

/* The longest name that begins at text[at] and ends where a word does. */
static uint32_t walk(const struct search *s, size_t at, size_t *end) {
    const struct watch_trie *t = &s->list->trie;
    uint32_t node = 0, best = WATCH_TRIE_NONE;
    bool was_space = false;
    while (at < s->text.n_bytes) {
        struct normalised c = normalise_next(s->p + at, s->text.n_bytes - at);
        at += c.n_source;
        bool is_space = c.class == NORMALISE_SPACE;
        if (c.class == NORMALISE_DROPPED || (is_space && was_space))
            continue;
        was_space = is_space;
        for (size_t i = 0; i < c.n_bytes; i++)
            if (!(node = watch_trie_child(t, node, c.bytes[i])))
                return best;
        if (t->value[node] != WATCH_TRIE_NONE &&
            normalise_is_border(c.class, class_at(s, at))) {
            best = t->value[node];
            *end = at;
        }
    }
    return best;
}

/* 64 bytes as bits, the first byte the lowest. */
struct block {
    uint64_t word; /* ASCII letters and digits, all that is not ASCII */
    uint64_t high; /* not ASCII */
    uint64_t lead; /* may begin a code point that is not ASCII */
};

static uint64_t load(const uint8_t *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* The top bits of eight bytes as eight bits. */
static inline uint64_t gather(uint64_t x) {
    return (x >> 7 & EACH(1)) * UINT64_C(0x0102040810204080) >> 56;
}

/* Eight bytes at a time: adding 0x80 - x to a byte without its top bit sets that if the byte
 * is x or more, and carries nowhere. */
static struct block classify(const uint8_t *p) {
    struct block b = {0, 0, 0};
    for (unsigned i = 0; i < BLOCK; i += 8) {
        uint64_t x = load(p + i), low = x & EACH(0x7F), lower = low | EACH(0x20);
        uint64_t letter =
            (lower + EACH(0x80 - 'a')) & ~(lower + EACH(0x80 - ('z' + 1)));
        uint64_t digit = (low + EACH(0x80 - '0')) & ~(low + EACH(0x80 - ('9' + 1)));
        b.word |= gather(letter | digit | x) << i;
        b.high |= gather(x) << i;
        b.lead |= gather(x & x << 1) << i;
    }
    return b;
}

static struct block classify_at(const struct search *s, size_t at) {
    if (at + BLOCK <= s->text.n_bytes)
        return classify(s->p + at);
    uint8_t rest[BLOCK] = {0};
    if (at < s->text.n_bytes)
        memcpy(rest, s->p + at, s->text.n_bytes - at);
    return classify(rest);
}

static uint64_t load_at(const struct search *s, size_t at) {
    if (at + 8 <= s->text.n_bytes)
        return load(s->p + at);
    uint8_t rest[8] = {0};
    memcpy(rest, s->p + at, s->text.n_bytes - at);
    return load(rest);
}

/* Eight bits from bit n on. */
static inline unsigned bits_at(uint64_t here, uint64_t next, unsigned n) {
    return (unsigned)((here >> n | next << 1 << (63 - n)) & 0xFF);
}

/* May a name begin with the word at text[at]? word, high: bits of its first eight bytes. */
static inline bool may_begin(const struct search *s, size_t at, unsigned word,
                             unsigned high) {
    unsigned n = (unsigned)__builtin_ctz(~word);
    if (high & ((1u << n) - 1))
        return true;
    uint64_t key = load_at(s, at) | EACH(0x20);
    if (n < 8)
        key &= (UINT64_C(1) << 8 * n) - 1;
    uint32_t hash = watch_list_hash(key);
    return s->list->filter[hash / 64] >> hash % 64 & 1;
}

static void find_words(struct search *s) {
    size_t resume = 0;
    struct block here, next = classify_at(s, 0);
    uint64_t last_word = 0, last_high = 0; /* of the byte before */
    for (size_t base = 0; base < s->text.n_bytes; base += BLOCK) {
        here = next;
        next = classify_at(s, base + BLOCK);
        /* A word begins behind what is none. In bytes that are not ASCII it may begin with
         * each code point, and behind them. */
        uint64_t starts = (here.word & ~(here.word << 1 | last_word)) | here.lead |
                          (here.word & ~here.high & (here.high << 1 | last_high));
        last_word = here.word >> 63;
        last_high = here.high >> 63;
        for (; starts; starts &= starts - 1) {
            unsigned n = (unsigned)__builtin_ctzll(starts);
            size_t at = base + n, end = 0;
            if (at < resume || !may_begin(s, at, bits_at(here.word, next.word, n),
                                          bits_at(here.high, next.high, n)))
                continue;
            enum normalise_class first =
                normalise_next(s->p + at, s->text.n_bytes - at).class;
            if (first != NORMALISE_WORD && first != NORMALISE_UNSPACED)
                continue;
            uint32_t value = walk(s, at, &end);
            if (value == WATCH_TRIE_NONE ||
                !normalise_is_border(normalise_class_before(s->text, at), first))
                continue;
            if (found(s, value, at, end))
                return;
            resume = end;
        }
    }
}

/* ---- Names anywhere ---- */

#define RING 256 /* more than the longest name */

/* The scan of the automaton: where it is, in the text and in normalised bytes. */
struct scan {
    size_t at, n_bytes;
    uint32_t node;
    bool was_space;
    size_t
        from[RING]; /* of normalised byte n (mod RING): where its code point begins */
};

/* The candidate: leftmost, then longest, of what the automaton has seen so far. */
struct candidate {
    uint32_t value; /* NONE: there is none */
    size_t begin_at, begin, end;
};

/* Names that end at the scan's place. */
static void take_outputs(const struct watch_trie *t, const struct scan *scan,
                         struct candidate *best) {
    uint32_t node =
        t->value[scan->node] != WATCH_TRIE_NONE ? scan->node : t->output[scan->node];
    for (; node; node = t->output[node]) {
        size_t begin_at = scan->n_bytes - t->depth[node];
        size_t begin = scan->from[begin_at % RING];
        if (begin_at > 0 && scan->from[(begin_at - 1) % RING] == begin)
            continue; /* within what one code point became */
        if (best->value == WATCH_TRIE_NONE || begin_at <= best->begin_at)
            *best = (struct candidate){t->value[node], begin_at, begin, scan->at};
    }
}

static void find_anywhere(struct search *s) {
    const struct watch_trie *t = &s->list->trie;
    struct scan scan = {.from = {SIZE_MAX}};
    struct candidate best = {.value = WATCH_TRIE_NONE};
    for (;;) {
        bool is_at_end = scan.at == s->text.n_bytes;
        /* Nothing that begins as far left, or farther, can still come. */
        if (best.value != WATCH_TRIE_NONE &&
            (is_at_end || scan.n_bytes - t->depth[scan.node] > best.begin_at)) {
            if (found(s, best.value, best.begin, best.end))
                return;
            scan = (struct scan){.at = best.end, .from = {SIZE_MAX}};
            best.value = WATCH_TRIE_NONE;
            continue;
        }
        if (is_at_end)
            return;
        size_t begin = scan.at;
        struct normalised c = {.n_bytes = 1, .n_source = 1};
        uint8_t plain = s->p[begin];
        if (plain < 0x80) {
            plain = s->list->plain[plain];
            c.bytes = &plain;
            c.class = plain == ' ' ? NORMALISE_SPACE : NORMALISE_OTHER;
        } else {
            c = normalise_next(s->p + begin, s->text.n_bytes - begin);
        }
        scan.at += c.n_source;
        bool is_space = c.class == NORMALISE_SPACE;
        if (c.class == NORMALISE_DROPPED || (is_space && scan.was_space))
            continue;
        scan.was_space = is_space;
        for (size_t i = 0; i < c.n_bytes; i++) {
            scan.from[scan.n_bytes++ % RING] = begin;
            scan.node = watch_trie_step(t, scan.node, c.bytes[i]);
        }
        take_outputs(t, &scan, &best);
    }
}

static size_t run(struct search *s) {
    s->p = (const uint8_t *)s->text.data;
    if (s->text.n_bytes == 0)
        return 0;
    if (s->list->matches_substrings)
        find_anywhere(s);
    else
        find_words(s);
    return s->n_found;
}

size_t watch_list_find(const struct watch_list *w, struct view text,
                       struct watch_match *out, size_t cap) {
    struct search s = {.list = w, .text = text, .out = out, .cap = cap};
    return run(&s);
}

bool watch_list_is_in(const struct watch_list *w, struct view text) {
    struct search s = {.list = w, .text = text, .wants_one = true};
    return run(&s) > 0;
}

bool watch_list_may_be_in(const struct watch_list *w, struct view text) {
    struct search s = {
        .list = w, .text = text, .wants_one = true, .ignores_stops = true};
    return run(&s) > 0;
}
