/* SPDX-License-Identifier: Apache-2.0
 *
 * privacy_mask.c - addresses in text, found in one pass and replaced.
 *
 * Letters, digits and . _ % + - stand together in a run. What an address is made of is known
 * when the sign comes that ends its run: '@' (a mail address or a handle), ':' (a scheme, a
 * DID), any other behind a run with a dot (a domain). Phone numbers are tried where digits
 * begin. Each looks ahead over its own bytes alone, or over a bounded number, so that all
 * together are linear.
 */
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "client/select/normalise.h"
#include "client/select/privacy_data.h"

#define MAX_GROUPS 8  /* of digits, in a phone number */
#define MAX_DIGITS 17 /* the country's and the exchange's prefix with it */

struct masker {
    const uint8_t *p;
    size_t n;
    char *out;            /* NULL: nothing was replaced so far */
    size_t n_out, n_done; /* bytes written, bytes of the text that they stand for */
    struct arena *arena;
    bool has_failed; /* no memory */

    size_t run; /* where the run at hand begins */
    bool has_dot;
    size_t
        known_end; /* of the last run that was looked through, and whether '@' ends it */
    bool is_mail;
};

/* ---- Signs ---- */

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(uint8_t c) {
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

static bool is_alnum(uint8_t c) {
    return is_digit(c) || is_letter(c);
}

static bool is_in(uint8_t c, const char *signs) {
    return c != 0 && strchr(signs, c) != NULL;
}

/* Is there a letter, digit or mark at text[at]? *length is its code point's. */
static bool is_word(const struct masker *m, size_t at, size_t *length) {
    *length = 1;
    if (m->p[at] < 0x80)
        return is_alnum(m->p[at]);
    struct normalised c = normalise_next(m->p + at, m->n - at);
    *length = c.n_source;
    return c.class == NORMALISE_WORD;
}

static bool is_word_at(const struct masker *m, size_t at) {
    size_t length;
    return at < m->n && is_word(m, at, &length);
}

/* Behind the run of letters, digits and the signs that begins at text[at]. */
static size_t run_end(const struct masker *m, size_t at, const char *signs) {
    size_t length;
    while (at < m->n && (is_word(m, at, &length) || is_in(m->p[at], signs)))
        at += length;
    return at;
}

/* '@', or its fullwidth form: its length, or 0. */
static size_t at_sign(const struct masker *m, size_t at) {
    if (at < m->n && m->p[at] == '@')
        return 1;
    return m->n - at >= 3 && memcmp(m->p + at, "\xEF\xBC\xA0", 3) == 0 ? 3 : 0;
}

/* ---- Output ---- */

/* What is written is at most three times the text: the shortest of what is replaced, with
 * its replacement, are "@a" "@user", a stray byte and U+FFFD. */
static bool write_up_to(struct masker *m, size_t begin) {
    size_t cap;
    if (!m->out) {
        if (!size_multiply(m->n, 3, &cap) ||
            !(m->out = arena_take(m->arena, cap + 1))) {
            m->has_failed = true;
            return false;
        }
    }
    memcpy(m->out + m->n_out, m->p + m->n_done, begin - m->n_done);
    m->n_out += begin - m->n_done;
    m->n_done = begin;
    return true;
}

/* text[begin, end) becomes the literal; a new run begins behind it. */
static size_t replace(struct masker *m, size_t begin, size_t end, struct view by) {
    if (write_up_to(m, begin)) {
        memcpy(m->out + m->n_out, by.data, by.n_bytes);
        m->n_out += by.n_bytes;
        m->n_done = end;
    }
    m->run = end;
    m->has_dot = false;
    return end;
}

/* ---- Links ---- */

/* Top levels that are no words in texts of European languages. */
static const char *const top_levels[] = {
    "com",  "net",  "org",    "edu",  "gov",  "mil", "info",  "biz",  "io",
    "uk",   "ru",   "jp",     "cn",   "au",   "br",  "pl",    "nl",   "fr",
    "dk",   "fi",   "cz",     "gr",   "kr",   "mx",  "nz",    "za",   "tv",
    "gg",   "ly",   "gl",     "fm",   "app",  "dev", "xyz",   "shop", "site",
    "club", "blog", "online", "tech", "wiki", "eu",  "social"};
/* Those that are: only with a path behind them. */
static const char *const word_levels[] = {
    "co",   "de",   "es",   "se", "no", "it", "is", "in", "me", "so",
    "to",   "at",   "us",   "be", "am", "my", "la", "ai", "ca", "ch",
    "news", "link", "page", "id", "as", "st", "pt", "ie"};

static bool is_one_of(const uint8_t *p, size_t n, const char *const *words,
                      size_t n_words) {
    char lower[16];
    if (n >= sizeof lower)
        return false;
    for (size_t i = 0; i < n; i++)
        lower[i] = (char)(p[i] >= 'A' && p[i] <= 'Z' ? p[i] | 0x20 : p[i]);
    lower[n] = '\0';
    for (size_t i = 0; i < n_words; i++)
        if (strcmp(lower, words[i]) == 0)
            return true;
    return false;
}

/* Where a link ends that goes on at text[at]: at white space, brackets, signs that are not
 * ASCII; without the signs that end a sentence. */
static size_t link_end(const struct masker *m, size_t at) {
    size_t start = at, length;
    while (at < m->n) {
        uint8_t c = m->p[at];
        if (c < 0x80 ? c <= 0x20 || c == 0x7F || is_in(c, "<>\"")
                     : !is_word(m, at, &length))
            break;
        at += c < 0x80 ? 1 : length;
    }
    while (at > start && is_in(m->p[at - 1], ".,;:!?'\")]}|*~"))
        at--;
    return at;
}

/* Domains: labels of letters, digits and '-' between dots; *last is the last one's begin. */
static bool is_domain(const struct masker *m, size_t begin, size_t end, size_t *last) {
    size_t n_labels = 1, length;
    *last = begin;
    for (size_t at = begin; at < end; at += length) {
        length = 1;
        if (m->p[at] == '.') {
            if (at == begin || m->p[at - 1] == '.' || at + 1 == end)
                return false;
            n_labels++;
            *last = at + 1;
        } else if (m->p[at] != '-' && !is_word(m, at, &length)) {
            return false;
        }
    }
    return n_labels >= 2;
}

/* A run with a dot has ended at text[end]: is it a link without a scheme? Returns where to
 * go on. */
static size_t end_run(struct masker *m, size_t end) {
    size_t begin = m->run, stop = end, last;
    while (begin < stop && is_in(m->p[begin], "._%+-"))
        begin++;
    while (stop > begin && is_in(m->p[stop - 1], "._%+-"))
        stop--;
    bool goes_on = stop == end && end < m->n &&
                   (is_in(m->p[end], "/?#") ||
                    (m->p[end] == ':' && end + 1 < m->n && is_digit(m->p[end + 1])));
    bool is_www =
        stop - begin > 4 && strncasecmp((const char *)m->p + begin, "www.", 4) == 0;
    bool is_link = is_www;
    if (!is_link && is_domain(m, begin, stop, &last)) {
        const uint8_t *level = m->p + last;
        is_link = is_one_of(level, stop - last, top_levels,
                            sizeof top_levels / sizeof top_levels[0]) ||
                  (goes_on && m->p[end] == '/' &&
                   is_one_of(level, stop - last, word_levels,
                             sizeof word_levels / sizeof word_levels[0]));
    }
    if (!is_link)
        return end;
    size_t link = goes_on ? link_end(m, end) : stop;
    return replace(m, begin, link > stop ? link : stop, VIEW("http"));
}

/* Where the scheme begins that ends at text[at]; at itself when there is none. A word that
 * stands right before "http" is not part of it. */
static size_t scheme_begin(const struct masker *m, size_t at) {
    static const char *const usual[] = {"https", "http"};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(usual[i]);
        if (at - m->run >= n &&
            strncasecmp((const char *)m->p + at - n, usual[i], n) == 0)
            return at - n;
    }
    size_t begin = at;
    while (begin > m->run &&
           (is_alnum(m->p[begin - 1]) || is_in(m->p[begin - 1], "+-")))
        begin--;
    while (begin < at && !is_letter(m->p[begin]))
        begin++;
    return begin;
}

/* ':' behind a run: a scheme, or a decentralised id. 0: neither. */
static size_t colon_found(struct masker *m, size_t at) {
    if (m->n - at > 3 && m->p[at + 1] == '/' && m->p[at + 2] == '/') {
        /* Without a scheme too: what stood there may have been masked. */
        size_t begin = scheme_begin(m, at), end = link_end(m, at + 3);
        if (end > at + 3)
            return replace(m, begin, end, VIEW("http"));
    }
    if (at - m->run != 3 || memcmp(m->p + m->run, "did", 3) != 0)
        return 0;
    size_t method = at + 1, end = method;
    while (end < m->n &&
           (is_digit(m->p[end]) || (m->p[end] >= 'a' && m->p[end] <= 'z')))
        end++;
    if (end == method || end == m->n || m->p[end] != ':' || !is_word_at(m, end + 1))
        return 0;
    end = run_end(m, end + 1, ".:_%-");
    while (is_in(m->p[end - 1], ".:"))
        end--;
    return replace(m, m->run, end, VIEW("@user"));
}

/* ---- Mail addresses, handles ---- */

/* Behind the domain that begins at text[at]; at itself when there is none with a dot and a
 * top level of letters. */
static size_t domain_end(const struct masker *m, size_t at) {
    size_t end = run_end(m, at, ".-"), last;
    while (end > at && is_in(m->p[end - 1], ".-"))
        end--;
    while (at < end && !is_domain(m, at, end, &last)) {
        /* "a@b.c..d": up to the first place where it is none any more */
        const uint8_t *dots = memmem(m->p + at, end - at, "..", 2);
        if (!dots)
            return at;
        end = (size_t)(dots - m->p);
    }
    if (at == end || end - last < 2 || is_digit(m->p[last]))
        return at;
    return end;
}

/* Behind a handle whose first sign is at text[at]; at itself when none is there. */
static size_t handle_end(const struct masker *m, size_t at) {
    size_t end = at;
    while (end < m->n && (is_alnum(m->p[end]) || m->p[end] == '_'))
        end++;
    if (end == at)
        return at;
    /* Dots as in names of Bluesky, unless the next sentence begins there. */
    while (end + 1 < m->n && is_in(m->p[end], ".-") &&
           (is_digit(m->p[end + 1]) || (m->p[end + 1] >= 'a' && m->p[end + 1] <= 'z')))
        for (end++; end < m->n && (is_alnum(m->p[end]) || m->p[end] == '_');)
            end++;
    size_t sign = at_sign(m, end);
    size_t domain = sign ? domain_end(m, end + sign) : 0;
    return domain > end + sign ? domain : end;
}

/* '@' at text[at]. 0: no address. */
static size_t at_found(struct masker *m, size_t at, size_t n_sign) {
    size_t begin = m->run, next = at + n_sign;
    while (begin < at && is_in(m->p[begin], ".%+-"))
        begin++;
    size_t domain = begin < at ? domain_end(m, next) : next;
    if (domain > next)
        return replace(m, begin, domain, VIEW("<mail>"));
    size_t handle = handle_end(m, next);
    if (handle > next)
        return replace(m, at, handle, VIEW("@user"));
    return 0;
}

/* ---- Phone numbers ---- */

struct number {
    bool has_plus;
    size_t n_groups, n_digits;
    size_t sizes[MAX_GROUPS], begins[MAX_GROUPS], ends[MAX_GROUPS]; /* ends: with ')' */
};

/* The length of what may stand between groups of digits, at most three signs. */
static size_t separator(const struct masker *m, size_t at) {
    size_t start = at;
    for (int i = 0; i < 3 && at < m->n; i++) {
        size_t left = m->n - at;
        if (is_in(m->p[at], " -./("))
            at++;
        else if (left >= 2 && memcmp(m->p + at, "\xC2\xA0", 2) == 0)
            at += 2;
        else if (left >= 3 && memcmp(m->p + at, "\xE2\x80", 2) == 0 &&
                 m->p[at + 2] >= 0x90 && m->p[at + 2] <= 0x93)
            at += 3;
        else
            break;
    }
    return at - start;
}

static struct number read_number(const struct masker *m, size_t at) {
    struct number n = {.has_plus = m->p[at] == '+'};
    if (m->p[at] == '+' || m->p[at] == '(')
        at++;
    while (n.n_groups < MAX_GROUPS && at < m->n && is_digit(m->p[at])) {
        size_t begin = at;
        while (at < m->n && is_digit(m->p[at]) && at - begin <= MAX_DIGITS)
            at++;
        if (n.n_digits + (at - begin) > MAX_DIGITS)
            break;
        n.n_digits += at - begin;
        n.begins[n.n_groups] = begin;
        n.sizes[n.n_groups] = at - begin;
        if (at < m->n && m->p[at] == ')')
            at++;
        n.ends[n.n_groups++] = at;
        at += separator(m, at);
    }
    return n;
}

/* Groups as the North American plan has them: neither area nor exchange begins with 0, 1. */
static bool is_american(const struct masker *m, const struct number *n, size_t first) {
    static const size_t shapes[][3] = {{3, 3, 4}, {10}, {3, 7}, {6, 4}};
    char digits[MAX_DIGITS + 1] = {0};
    size_t n_digits = 0, skipped = 0;
    if (first < n->n_groups && n->sizes[first] == 11 && m->p[n->begins[first]] == '1')
        skipped = 1;
    for (size_t i = first; i < n->n_groups; i++)
        for (size_t j = 0; j < n->sizes[i]; j++)
            digits[n_digits++] = (char)m->p[n->begins[i] + j];
    if (n_digits != 10 + skipped || digits[skipped] < '2' || digits[skipped + 3] < '2')
        return false;
    size_t n_groups = n->n_groups - first;
    if (skipped)
        return n_groups == 1;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        bool fits = n_groups <= 3;
        for (size_t i = 0; i < 3 && fits; i++)
            fits = shapes[s][i] == (i < n_groups ? n->sizes[first + i] : 0);
        if (fits)
            return true;
    }
    return false;
}

static bool is_phone(const struct masker *m, const struct number *n, bool is_whole) {
    const uint8_t *first = m->p + n->begins[0];
    if (n->has_plus)
        return n->n_digits >= 7 && n->n_digits <= 15;
    if (n->sizes[0] >= 4 && first[0] == '0' && first[1] == '0')
        return n->n_digits >= 9;
    if (is_american(m, n, 0) ||
        (n->sizes[0] == 1 && first[0] == '1' && is_american(m, n, 1)))
        return true;
    if (n->n_groups == 1)
        return n->n_digits >= 11 && n->n_digits <= 15;
    if (n->n_groups == 2 && n->sizes[0] == 3 && n->sizes[1] == 4) {
        /* 555-1234, but not 500-1000 */
        const uint8_t *second = m->p + n->begins[1];
        return is_whole && is_in(second[-1], "-.") && second - first == 4 &&
               first[0] >= '2' && !(second[2] == '0' && second[3] == '0');
    }
    if (first[0] != '0' || n->sizes[0] < 2 || n->n_digits < 10 || n->n_digits > 11)
        return false;
    /* 01.02.2020 12 is a date */
    return !(n->n_groups >= 3 && n->sizes[0] == 2 && n->sizes[1] == 2 &&
             n->sizes[2] == 4);
}

/* Is a unit behind the number? Then it was a dose. */
static bool has_unit(const struct masker *m, size_t at) {
    static const char *const units[] = {"mg",   "mgs",     "mcg",   "ug",
                                        "g",    "kg",      "ml",    "units",
                                        "tabs", "tablets", "pills", "iu"};
    if (at < m->n && m->p[at] == ' ')
        at++;
    if (at < m->n && m->p[at] == '%')
        return true;
    size_t end = at;
    while (end < m->n && is_letter(m->p[end]) && end - at < 16)
        end++;
    return is_one_of(m->p + at, end - at, units, sizeof units / sizeof units[0]);
}

/* A run that ends in '@' is a mail address, whatever numbers are in it. */
static bool is_in_mail(struct masker *m) {
    if (m->run >= m->known_end) {
        size_t end = run_end(m, m->run, "._%+-"), sign = at_sign(m, end);
        m->known_end = end;
        m->is_mail = sign && domain_end(m, end + sign) > end + sign;
    }
    return m->is_mail;
}

/* A number begins at text[at]. 0: it is none of a phone. */
static size_t number_found(struct masker *m, size_t at) {
    size_t first = at + (is_digit(m->p[at]) ? 0 : 1);
    if (first >= m->n || !is_digit(m->p[first]))
        return 0;
    struct number n = read_number(m, at);
    bool is_whole = true;
    for (; n.n_groups > 0; n.n_groups--, is_whole = false) {
        size_t last = n.n_groups - 1, end = n.ends[last];
        if (!is_word_at(m, end) && is_phone(m, &n, is_whole) && !has_unit(m, end)) {
            /* '(' without ')' stays where it is. */
            const uint8_t *closed = memchr(m->p + at, ')', end - at);
            if (m->p[at] == '(' && !closed)
                at = first;
            return is_in_mail(m) ? 0 : replace(m, at, end, VIEW("<phone>"));
        }
        n.n_digits -= n.sizes[last];
    }
    return 0;
}

/* ---- The pass ---- */

static bool follows_word(const struct masker *m, size_t at) {
    return at > 0 && (m->p[at - 1] < 0x80
                          ? is_alnum(m->p[at - 1])
                          : normalise_class_before(view_of((const char *)m->p, m->n),
                                                   at) == NORMALISE_WORD);
}

/* Takes the code point at text[at]; returns where to go on. */
static size_t take(struct masker *m, size_t at) {
    uint8_t c = m->p[at];
    size_t next = 0, length = 1, n_sign;
    if (is_in(c, "_%-"))
        return at + 1;
    if ((is_digit(c) || is_in(c, "+(")) && !follows_word(m, at) &&
        (next = number_found(m, at)))
        return next;
    if (is_digit(c) || c == '+')
        return at + 1;
    if (c == '.') {
        m->has_dot = true;
        return at + 1;
    }
    if (c >= 0x80) {
        struct normalised one = normalise_next(m->p + at, m->n - at);
        length = one.n_source;
        if (length > 1 && one.class == NORMALISE_WORD)
            return at + length;
    }
    n_sign = at_sign(m, at);
    if ((n_sign && (next = at_found(m, at, n_sign))) ||
        (c == ':' && (next = colon_found(m, at))))
        return next;
    if (m->has_dot && (next = end_run(m, at)) > at)
        return next;
    if (c == 0 || (c >= 0x80 && length == 1))
        return replace(m, at, at + 1, VIEW("\xEF\xBF\xBD"));
    m->run = at + length;
    m->has_dot = false;
    return at + length;
}

/* Valid UTF-8 without NUL, and no more. */
static size_t take_plain(struct masker *m, size_t at) {
    size_t length = 1;
    if (m->p[at] >= 0x80)
        utf8_decode(m->p + at, m->n - at, &length);
    if (m->p[at] == 0 || (m->p[at] >= 0x80 && length == 1))
        return replace(m, at, at + 1, VIEW("\xEF\xBF\xBD"));
    return at + length;
}

enum status privacy_mask(const struct privacy *p, struct view text, struct arena *arena,
                         struct view *out, struct error *err) {
    struct masker m = {
        .p = (const uint8_t *)text.data, .n = text.n_bytes, .arena = arena};
    bool masks = p->mode != STORE_FULL;
    for (size_t at = 0; at < m.n && !m.has_failed;) {
        if (is_letter(m.p[at])) {
            at++;
        } else if (m.p[at] == ' ' && !m.has_dot) {
            m.run = ++at;
        } else {
            at = masks ? take(&m, at) : take_plain(&m, at);
        }
    }
    if (masks && m.has_dot && !m.has_failed)
        end_run(&m, m.n);
    if (!m.out && !m.has_failed)
        return arena_copy(arena, text, out, err);
    if (m.has_failed || !write_up_to(&m, m.n))
        return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
    m.out[m.n_out] = '\0';
    *out = view_of(m.out, m.n_out);
    return STATUS_OK;
}
