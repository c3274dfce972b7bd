/* SPDX-License-Identifier: Apache-2.0
 *
 * html.c - HTML to text, leniently: what is no tag or entity is text.
 */
#include "client/net/html.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

struct text {
    char *data;
    size_t n;
    int n_breaks;   /* line breaks that are owed before the next word */
    bool has_space; /* … or a space */
};

static void put_bytes(struct text *t, const char *data, size_t n) {
    if (t->n > 0) {
        for (int i = 0; i < t->n_breaks && i < 2; i++)
            t->data[t->n++] = '\n';
        if (t->n_breaks == 0 && t->has_space)
            t->data[t->n++] = ' ';
    }
    t->n_breaks = 0;
    t->has_space = false;
    memcpy(t->data + t->n, data, n);
    t->n += n;
}

static void put_code(struct text *t, uint32_t c) {
    char utf8[4];
    size_t n = 0;
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == 0xa0) {
        t->has_space = true;
        return;
    }
    if (c < ' ' || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        c = 0xfffd;
    if (c < 0x80) {
        utf8[n++] = (char)c;
    } else if (c < 0x800) {
        utf8[n++] = (char)(0xc0 | c >> 6);
        utf8[n++] = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        utf8[n++] = (char)(0xe0 | c >> 12);
        utf8[n++] = (char)(0x80 | (c >> 6 & 63));
        utf8[n++] = (char)(0x80 | (c & 63));
    } else {
        utf8[n++] = (char)(0xf0 | c >> 18);
        utf8[n++] = (char)(0x80 | (c >> 12 & 63));
        utf8[n++] = (char)(0x80 | (c >> 6 & 63));
        utf8[n++] = (char)(0x80 | (c & 63));
    }
    put_bytes(t, utf8, n);
}

/* ---- Entities ---- */

static const struct {
    const char *name;
    uint32_t code;
} entities[] = {
    {"amp", '&'},      {"lt", '<'},        {"gt", '>'},       {"quot", '"'},
    {"apos", '\''},    {"nbsp", 0xa0},     {"copy", 0xa9},    {"reg", 0xae},
    {"trade", 0x2122}, {"deg", 0xb0},      {"micro", 0xb5},   {"middot", 0xb7},
    {"bull", 0x2022},  {"hellip", 0x2026}, {"ndash", 0x2013}, {"mdash", 0x2014},
    {"lsquo", 0x2018}, {"rsquo", 0x2019},  {"ldquo", 0x201c}, {"rdquo", 0x201d},
    {"laquo", 0xab},   {"raquo", 0xbb},    {"euro", 0x20ac},  {"pound", 0xa3},
    {"cent", 0xa2},    {"times", 0xd7},    {"divide", 0xf7},  {"plusmn", 0xb1},
    {"frac12", 0xbd},  {"sect", 0xa7},     {"para", 0xb6},    {"iexcl", 0xa1},
    {"iquest", 0xbf},  {"auml", 0xe4},     {"ouml", 0xf6},    {"uuml", 0xfc},
    {"Auml", 0xc4},    {"Ouml", 0xd6},     {"Uuml", 0xdc},    {"szlig", 0xdf},
    {"eacute", 0xe9},  {"egrave", 0xe8},   {"agrave", 0xe0},  {"aacute", 0xe1},
    {"iacute", 0xed},  {"oacute", 0xf3},   {"uacute", 0xfa},  {"ntilde", 0xf1},
    {"ccedil", 0xe7},  {"ecirc", 0xea},    {"rarr", 0x2192},  {"larr", 0x2190},
    {"le", 0x2264},    {"ge", 0x2265},     {"alpha", 0x3b1},  {"beta", 0x3b2},
    {"shy", 0xad},     {"zwnj", 0x200c},   {"zwj", 0x200d},
};

/* "&#39;", "&#x27;": its length, 0 if it is none. */
static size_t number_entity(struct view v, uint32_t *code) {
    size_t at = 2;
    bool is_hex = at < v.n_bytes && (v.data[at] | 32) == 'x';
    uint32_t value = 0;
    at += is_hex;
    size_t begin = at;
    for (; at < v.n_bytes; at++) {
        char c = v.data[at];
        uint32_t digit = 0;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if (is_hex && (c | 32) >= 'a' && (c | 32) <= 'f')
            digit = (uint32_t)((c | 32) - 'a') + 10;
        else
            break;
        if (value <= 0x10ffff)
            value = value * (is_hex ? 16 : 10) + digit;
    }
    if (at == begin)
        return 0;
    *code = value;
    /* The longest code of one digit less than its text: "&#9" is three bytes, as is U+FFFD. */
    return at + (at < v.n_bytes && v.data[at] == ';');
}

static size_t name_entity(struct view v, uint32_t *code) {
    for (size_t i = 0; i < sizeof(entities) / sizeof(*entities); i++) {
        size_t n = strlen(entities[i].name);
        if (v.n_bytes > n + 1 && v.data[n + 1] == ';' &&
            memcmp(v.data + 1, entities[i].name, n) == 0) {
            *code = entities[i].code;
            return n + 2;
        }
    }
    return 0;
}

/* v begins with '&'. How many bytes were read. */
static size_t put_entity(struct text *t, struct view v) {
    uint32_t code = 0;
    size_t n = v.n_bytes > 2 && v.data[1] == '#' ? number_entity(v, &code)
                                                 : name_entity(v, &code);
    if (n == 0) {
        put_bytes(t, "&", 1);
        return 1;
    }
    put_code(t, code);
    return n;
}

/* ---- Tags ---- */

struct tag {
    struct view name, inside; /* inside: all between < and > */
    bool is_end;
};

static bool is_letter(char c) {
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static bool is_named(const struct tag *tag, const char *name) {
    size_t n = strlen(name);
    return tag->name.n_bytes == n && strncasecmp(tag->name.data, name, n) == 0;
}

static bool is_any_of(const struct tag *tag, const char *const *names) {
    while (*names)
        if (is_named(tag, *names++))
            return true;
    return false;
}

/* v begins with '<'. The length of the tag, 0 if it is none. *no_end: there is no '>' any
 * more, so that nobody looks for one again and again. */
static size_t read_tag(struct view v, struct tag *out, bool *no_end) {
    size_t at = 1;
    char quote = 0;
    out->is_end = at < v.n_bytes && v.data[at] == '/';
    at += out->is_end;
    size_t begin = at;
    while (at < v.n_bytes &&
           (is_letter(v.data[at]) || (v.data[at] >= '0' && v.data[at] <= '9')))
        at++;
    out->name = view_of(v.data + begin, at - begin);
    if (begin < v.n_bytes && (v.data[begin] == '!' || v.data[begin] == '?')) {
        if (v.n_bytes > 4 && memcmp(v.data, "<!--", 4) == 0) {
            const char *end = memmem(v.data + 4, v.n_bytes - 4, "-->", 3);
            *no_end = !end;
            return end ? (size_t)(end + 3 - v.data) : 0;
        }
    } else if (at == begin || !is_letter(out->name.data[0])) {
        return 0;
    }
    for (; at < v.n_bytes; at++) {
        if (quote)
            quote = v.data[at] == quote ? 0 : quote;
        else if (v.data[at] == '"' || v.data[at] == '\'')
            quote = v.data[at];
        else if (v.data[at] == '>')
            break;
    }
    if (at == v.n_bytes) {
        *no_end = true;
        return 0;
    }
    out->inside = view_of(v.data + 1, at - 1);
    return at + 1;
}

/* How long the insides of <script> and its like are: up to "</script", or all that is left. */
static size_t raw_length(struct view v, struct view name) {
    for (size_t at = 0; at < v.n_bytes; at++) {
        const char *next = memchr(v.data + at, '<', v.n_bytes - at);
        if (!next)
            break;
        at = (size_t)(next - v.data);
        if (v.n_bytes - at >= name.n_bytes + 2 && next[1] == '/' &&
            strncasecmp(next + 2, name.data, name.n_bytes) == 0)
            return at;
    }
    return v.n_bytes;
}

static const char *const blocks[] = {"p",  "div", "blockquote", "ul", "ol", "pre", "h1",
                                     "h2", "h3",  "h4",         "h5", "h6", NULL};
static const char *const raw[] = {"script", "style",    "title", "textarea",
                                  "iframe", "noscript", NULL};

static void owe_breaks(struct text *t, int n) {
    if (t->n_breaks < n)
        t->n_breaks = n;
}

enum status html_to_text(struct view html, struct arena *arena, struct view *out,
                         struct error *err) {
    struct text t = {0};
    struct tag tag = {0};
    bool no_end = false, is_skipping = false; /* of a paragraph of class quote-inline */
    size_t room = 0;
    *out = view_of(NULL, 0);
    /* A break or a space that is put out was read before: the text is never longer. */
    t.data = size_add(html.n_bytes, 1, &room) ? arena_take(arena, room) : NULL;
    if (!t.data)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the text of a post");
    for (size_t at = 0; at < html.n_bytes;) {
        struct view rest = view_of(html.data + at, html.n_bytes - at);
        size_t n = 0;
        char c = rest.data[0];
        if (c == '<' && !no_end)
            n = read_tag(rest, &tag, &no_end);
        if (n > 0) {
            at += n;
            if (is_named(&tag, "br")) {
                t.n_breaks += t.n_breaks < 2;
            } else if (is_any_of(&tag, blocks)) {
                owe_breaks(&t, 2);
                is_skipping = !tag.is_end && is_named(&tag, "p") &&
                              memmem(tag.inside.data, tag.inside.n_bytes,
                                     "quote-inline", 12) != NULL;
            } else if (is_named(&tag, "li") || is_named(&tag, "tr")) {
                owe_breaks(&t, 1);
            } else if (!tag.is_end && is_any_of(&tag, raw)) {
                at += raw_length(view_of(html.data + at, html.n_bytes - at), tag.name);
            }
            continue;
        }
        if (is_skipping)
            at++;
        else if (c == '&')
            at += put_entity(&t, rest);
        else if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f')
            at++, t.has_space = true;
        else
            put_bytes(&t, html.data + at++, 1);
    }
    t.data[t.n] = 0;
    *out = view_of(t.data, t.n);
    return STATUS_OK;
}
