/* SPDX-License-Identifier: Apache-2.0 */
#include "client/select/place.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/memory.h"
#include "client/select/normalise.h"

#define MAX_ARENA_BYTES ((size_t)4 << 20)
#define MAX_WORDS 32
#define MAX_NAME_WORDS 5
#define MAX_WORD_BYTES 48
#define MAX_MENTIONS 16
#define N_BUCKETS 4096

extern const char place_names_text[];
__asm__(".section .rodata\n"
        ".global place_names_text\n"
        "place_names_text:\n"
        ".incbin \"client/select/place_names.txt\"\n"
        ".byte 0\n"
        ".previous\n");

enum kind { COUNTRY, STATE, CITY };

/* What a name may mean. */
struct meaning {
    struct meaning *next;
    struct view name; /* words, normalised, one space between them */
    enum kind kind;
    struct place place;
    uint32_t thousands;
    bool needs_evidence;
};

struct place_names {
    struct arena arena;
    struct meaning *buckets[N_BUCKETS];
};

/* ---- Words ---- */

struct word {
    size_t begin, end; /* in struct words' text */
    bool is_upper;     /* all of it, in the text */
    bool has_comma;    /* before it */
};

struct words {
    char text[MAX_WORDS * (MAX_WORD_BYTES + 1)]; /* words with one space between them */
    struct word words[MAX_WORDS];
    size_t n_words;
    bool has_comma; /* behind the last */
};

/* Letters and digits are words; a full stop between single letters is none ("D.C."). */
static void split(struct view text, struct words *out) {
    const uint8_t *p = (const uint8_t *)text.data;
    size_t n = 0;
    bool is_in_word = false, has_comma = false;
    out->n_words = 0;
    for (size_t at = 0; at < text.n_bytes;) {
        struct normalised c = normalise_next(p + at, text.n_bytes - at);
        bool is_word = c.class == NORMALISE_WORD || c.class == NORMALISE_UNSPACED;
        if (is_word) {
            if (!is_in_word) {
                if (out->n_words == MAX_WORDS)
                    return;
                if (out->n_words > 0)
                    out->text[n++] = ' ';
                out->words[out->n_words++] = (struct word){n, n, true, has_comma};
                has_comma = false;
            }
            struct word *word = &out->words[out->n_words - 1];
            if (n - word->begin + c.n_bytes <= MAX_WORD_BYTES) {
                memcpy(out->text + n, c.bytes, c.n_bytes);
                n += c.n_bytes;
            }
            word->is_upper = word->is_upper && p[at] >= 'A' && p[at] <= 'Z';
            word->end = n;
        } else if (c.class != NORMALISE_DROPPED) {
            has_comma =
                has_comma || *c.bytes == ',' || *c.bytes == '/' || *c.bytes == '|';
        }
        if (c.class != NORMALISE_DROPPED)
            is_in_word = is_word;
        at += c.n_source;
    }
    out->has_comma = has_comma;
}

static struct meaning **bucket_of(const struct place_names *names, struct view name) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < name.n_bytes; i++)
        hash = (hash ^ (uint8_t)name.data[i]) * 16777619u;
    return (struct meaning **)&names->buckets[(hash ^ hash >> 16) % N_BUCKETS];
}

/* ---- The list ---- */

static struct view trim(struct view v) {
    while (v.n_bytes && *v.data == ' ')
        v = view_of(v.data + 1, v.n_bytes - 1);
    while (v.n_bytes && v.data[v.n_bytes - 1] == ' ')
        v.n_bytes--;
    return v;
}

static struct view cut(struct view v, char sign, struct view *rest) {
    const char *at = v.n_bytes ? memchr(v.data, sign, v.n_bytes) : NULL;
    size_t n = at ? (size_t)(at - v.data) : v.n_bytes;
    *rest = at ? view_of(at + 1, v.n_bytes - n - 1) : view_of(NULL, 0);
    return view_of(v.data, n);
}

static bool take_mark(struct view *name) {
    *name = trim(*name);
    if (name->n_bytes == 0 || *name->data != '?')
        return false;
    *name = view_of(name->data + 1, name->n_bytes - 1);
    return true;
}

static enum status add(struct place_names *names, struct view name,
                       const struct meaning *what, struct error *err) {
    struct words words;
    split(name, &words);
    if (words.n_words == 0 || words.n_words > MAX_NAME_WORDS)
        return error_set(err, STATUS_INVALID, "the place names have one of %zu words",
                         words.n_words);
    struct meaning *meaning = arena_take(&names->arena, sizeof *meaning);
    if (!meaning)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the place names");
    *meaning = *what;
    enum status status = arena_copy(
        &names->arena, view_of(words.text, words.words[words.n_words - 1].end),
        &meaning->name, err);
    if (status != STATUS_OK)
        return status;
    struct meaning **bucket = bucket_of(names, meaning->name);
    meaning->next = *bucket;
    *bucket = meaning;
    return STATUS_OK;
}

/* "?Los Angeles 3899 (LA/L.A.)" */
static enum status add_city(struct place_names *names, struct view text,
                            const struct place *place, struct error *err) {
    struct view others, rest;
    struct meaning city = {.kind = CITY, .place = *place};
    struct view name = cut(text, '(', &others);
    others = cut(others, ')', &rest);
    city.needs_evidence = take_mark(&name);
    size_t n = name.n_bytes;
    for (uint32_t unit = 1; n > 0 && name.data[n - 1] >= '0' && name.data[n - 1] <= '9';
         unit *= 10)
        city.thousands += unit * (uint32_t)(name.data[--n] - '0');
    if (city.thousands == 0 || trim(rest).n_bytes)
        return error_set(err, STATUS_INVALID,
                         "the place names have a city without its inhabitants");
    name = trim(view_of(name.data, n));
    enum status status = arena_copy(&names->arena, name, &city.place.city, err);
    if (status == STATUS_OK)
        status = add(names, name, &city, err);
    while (status == STATUS_OK && others.n_bytes > 0) {
        name = cut(others, '/', &others);
        city.needs_evidence = take_mark(&name);
        status = add(names, name, &city, err);
    }
    return status;
}

static enum status read_line(struct place_names *names, struct view line,
                             struct error *err) {
    struct view code, others, cities;
    code = trim(cut(line, ':', &others));
    others = cut(others, ':', &cities);
    bool is_state = view_starts_with(code, VIEW("US-"));
    if (code.n_bytes != (is_state ? 5 : 2))
        return error_set(err, STATUS_INVALID,
                         "the place names have a code of %zu bytes", code.n_bytes);
    struct meaning region = {.kind = is_state ? STATE : COUNTRY};
    enum status status = arena_copy(&names->arena, code, &code, err);
    if (status != STATUS_OK)
        return status;
    if (is_state)
        region.place.state = code;
    region.place.country = is_state ? VIEW("US") : code;
    status = add(names, view_of(code.data + (is_state ? 3 : 0), 2), &region, err);
    while (status == STATUS_OK && others.n_bytes > 0) {
        struct view name = cut(others, ',', &others);
        region.needs_evidence = take_mark(&name);
        status = add(names, name, &region, err);
    }
    for (cities = trim(cities); status == STATUS_OK && cities.n_bytes > 0;)
        status = add_city(names, cut(cities, ',', &cities), &region.place, err);
    return status;
}

enum status place_read(struct view file, struct place_names **out, struct error *err) {
    *out = NULL;
    struct place_names *names = calloc(1, sizeof *names);
    if (!names)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the place names");
    names->arena.max_bytes = MAX_ARENA_BYTES;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && file.n_bytes > 0) {
        struct view line = cut(file, '\n', &file);
        if (line.n_bytes > 0 && *line.data != '#')
            status = read_line(names, line, err);
    }
    if (status != STATUS_OK) {
        place_close(names);
        return status;
    }
    *out = names;
    return STATUS_OK;
}

enum status place_open(struct place_names **out, struct error *err) {
    return place_read(view_of_string(place_names_text), out, err);
}

void place_close(struct place_names *names) {
    if (!names)
        return;
    arena_free(&names->arena);
    free(names);
}

/* ---- Names in a text ---- */

struct mention {
    const struct meaning *first; /* of a bucket: others of it have other names */
    struct view name;
    size_t begin, end; /* words; of a flag none */
    bool is_flag;      /* the first meaning alone */
};

static const struct meaning *next_meaning(const struct meaning *meaning,
                                          struct view name) {
    while (meaning && !view_equal(meaning->name, name))
        meaning = meaning->next;
    return meaning;
}

#define EACH_MEANING(m, mention)                                                       \
    const struct meaning *m = (mention)->first;                                        \
    m;                                                                                 \
    m = (mention)->is_flag ? NULL : next_meaning(m->next, (mention)->name)

/* Two letters are a name in capitals, unless they are an English word as well; anything in
 * its own place between commas is, and what stands right behind another name. */
static bool is_code_meant(const struct words *w, size_t at, bool follows_name) {
    static const char words[] =
        "in or me hi ok oh la pa ma de co id al as it is no so to us "
        "be am my at an do go he if by on we";
    const struct word *word = &w->words[at];
    bool is_alone = (at == 0 || word->has_comma) &&
                    (at + 1 == w->n_words ? true : w->words[at + 1].has_comma);
    if (is_alone)
        return at > 0 || word->is_upper || w->n_words == 1;
    if (!word->is_upper)
        return false;
    if (follows_name)
        return true;
    for (const char *at_word = words; *at_word; at_word += at_word[2] ? 3 : 2)
        if (memcmp(at_word, w->text + word->begin, 2) == 0)
            return false;
    return true;
}

static size_t find_names(const struct place_names *names, const struct words *w,
                         struct mention *out) {
    size_t n = 0;
    for (size_t at = 0; at < w->n_words && n < MAX_MENTIONS;) {
        size_t n_words =
            w->n_words - at < MAX_NAME_WORDS ? w->n_words - at : MAX_NAME_WORDS;
        const struct meaning *found = NULL;
        struct view name = {NULL, 0};
        bool follows_name = n > 0 && out[n - 1].end == at;
        for (; n_words > 0; n_words--) {
            size_t begin = w->words[at].begin;
            name = view_of(w->text + begin, w->words[at + n_words - 1].end - begin);
            if (name.n_bytes != 2 || is_code_meant(w, at, follows_name))
                found = next_meaning(*bucket_of(names, name), name);
            if (found)
                break;
        }
        if (found)
            out[n++] = (struct mention){found, found->name, at, at + n_words, false};
        at += n_words > 0 ? n_words : 1;
    }
    return n;
}

/* Flags: two regional indicators each. */
static size_t find_flags(const struct place_names *names, struct view text,
                         struct mention *out, size_t n) {
    const char *p = text.data, *end = p + text.n_bytes;
    while (n < MAX_MENTIONS && p &&
           (p = memmem(p, (size_t)(end - p), "\xF0\x9F\x87", 3)) && end - p >= 8) {
        char code[2] = {(char)(p[3] - '\xA6' + 'a'), (char)(p[7] - '\xA6' + 'a')};
        if (memcmp(p + 4, "\xF0\x9F\x87", 3) == 0) {
            const struct meaning *m =
                next_meaning(*bucket_of(names, view_of(code, 2)), view_of(code, 2));
            while (m && m->kind != COUNTRY)
                m = next_meaning(m->next, view_of(code, 2));
            if (m)
                out[n++] = (struct mention){m, m->name, SIZE_MAX, SIZE_MAX, true};
            p += 4;
        }
        p += 4;
    }
    return n;
}

/* ---- What they mean together ---- */

/* Does another mention say the state or country of a meaning? 2: its state, 1: its country. */
static int evidence_for(const struct mention *mentions, size_t n, size_t self,
                        const struct meaning *what) {
    int best = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == self)
            continue;
        for (EACH_MEANING(m, &mentions[i])) {
            if (m->kind == STATE && what->kind == CITY && m->place.state.n_bytes &&
                view_equal(m->place.state, what->place.state))
                best = 2;
            bool names_country =
                m->kind == COUNTRY || (m->kind == CITY && what->kind != CITY);
            if (names_country && best == 0 &&
                view_equal(m->place.country, what->place.country) &&
                (m->kind == COUNTRY || what->kind != STATE ||
                 view_equal(m->place.state, what->place.state)))
                best = 1;
        }
    }
    return best;
}

struct choice {
    const struct meaning *meaning;
    size_t mention;
    int evidence;
};

/* The best city: with more evidence, named first, the larger. */
static struct choice choose_city(const struct mention *mentions, size_t n) {
    struct choice best = {NULL, 0, 0};
    for (size_t i = 0; i < n; i++)
        for (EACH_MEANING(m, &mentions[i])) {
            if (m->kind != CITY)
                continue;
            int evidence = evidence_for(mentions, n, i, m);
            if (m->needs_evidence && evidence == 0)
                continue;
            if (!best.meaning || evidence > best.evidence ||
                (evidence == best.evidence && i == best.mention &&
                 m->thousands > best.meaning->thousands))
                best = (struct choice){m, i, evidence};
        }
    return best;
}

/* The best state or country, of all mentions but one (SIZE_MAX: none is left out). */
static struct choice choose_region(const struct mention *mentions, size_t n,
                                   size_t except) {
    struct choice best = {NULL, 0, 0};
    for (size_t i = 0; i < n; i++)
        for (EACH_MEANING(m, &mentions[i])) {
            if (m->kind == CITY || i == except)
                continue;
            int evidence = evidence_for(mentions, n, i, m);
            if (m->needs_evidence && evidence == 0)
                continue;
            bool is_better =
                !best.meaning || evidence > best.evidence ||
                (evidence == best.evidence && m->kind > best.meaning->kind);
            if (is_better)
                best = (struct choice){m, i, evidence};
        }
    return best;
}

struct place place_find(const struct place_names *names, struct view text) {
    struct words words;
    struct mention mentions[MAX_MENTIONS];
    struct place none = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    split(text, &words);
    size_t n = find_flags(names, text, mentions, find_names(names, &words, mentions));
    struct choice city = choose_city(mentions, n);
    struct choice region =
        choose_region(mentions, n, city.meaning ? city.mention : SIZE_MAX);
    if (!city.meaning || (region.meaning && city.evidence == 0)) {
        if (!region.meaning)
            return none;
        struct place place = region.meaning->place;
        /* "Paris, TX": a city of which the list has only others */
        if (city.meaning &&
            mentions[region.mention].begin == mentions[city.mention].end)
            place.city = city.meaning->place.city;
        return place;
    }
    return city.meaning->place;
}
