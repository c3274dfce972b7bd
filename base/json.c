/* SPDX-License-Identifier: Apache-2.0
 *
 * json.c - a validating pre-scan, then jansson; and the two appenders that write answers.
 *
 * The pre-scan is a whole JSON checker without recursion and without memory: one pass, a
 * bit a level (array or object). It knows more than jansson says: which limit was passed,
 * at which byte, and that a text is well-formed but for a lone surrogate. What is left for
 * jansson to refuse: duplicate keys, numbers out of range, NUL in a key, no memory.
 */
#include "base/json.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* jansson's own JSON_PARSER_MAX_DEPTH. */
#define DEPTH_CEILING 2048u
#define NOWHERE SIZE_MAX

struct scan {
    const uint8_t *text;
    size_t n_bytes;
    size_t at; /* the next byte */
    const struct json_limits *limits;
    size_t n_values;
    size_t depth;
    size_t surrogate_at;                  /* of the first lone one, or NOWHERE */
    uint8_t is_object[DEPTH_CEILING / 8]; /* a bit a level */
    struct error *err;
};

static enum status malformed(const struct scan *s, const char *what) {
    if (s->at >= s->n_bytes)
        return error_set(s->err, STATUS_INVALID, "JSON ends too early at byte %zu: %s",
                         s->n_bytes, what);
    return error_set(s->err, STATUS_INVALID, "malformed JSON at byte %zu: %s", s->at,
                     what);
}

/* How many bytes the code point at p takes, 2 to 4; 0 when that is not UTF-8, and *n_bad is
 * then the length of the longest start of a sequence (what becomes one U+FFFD). */
static size_t utf8_length(const uint8_t *p, size_t n_bytes, size_t *n_bad) {
    uint8_t lead = p[0], low = 0x80, high = 0xBF;
    size_t n;
    *n_bad = 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    if (lead < 0xE0) {
        n = 2;
    } else if (lead < 0xF0) {
        n = 3;
        low = lead == 0xE0 ? 0xA0 : 0x80;
        high = lead == 0xED ? 0x9F : 0xBF; /* no surrogates */
    } else {
        n = 4;
        low = lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xF4 ? 0x8F : 0xBF; /* up to U+10FFFF */
    }
    for (size_t i = 1; i < n; i++) {
        *n_bad = i;
        if (i >= n_bytes || p[i] < low || p[i] > high)
            return 0;
        low = 0x80;
        high = 0xBF;
    }
    return n;
}

/* Bytes that a string may hold as they are, and that need no second look. */
static inline bool is_plain(uint8_t c) {
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static void skip_space(struct scan *s) {
    while (s->at < s->n_bytes) {
        uint8_t c = s->text[s->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return;
        s->at++;
    }
}

/* Reads four hex digits at the given byte; -1 when they are not there. */
static int32_t hex4(const struct scan *s, size_t at) {
    int32_t value = 0;
    if (at > s->n_bytes || s->n_bytes - at < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        uint8_t c = s->text[at + i], lower = c | 0x20;
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + (lower - 'a' + 10);
        else
            return -1;
    }
    return value;
}

static inline bool is_high(int32_t unit) {
    return unit >= 0xD800 && unit <= 0xDBFF;
}

static inline bool is_low(int32_t unit) {
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

/* At a backslash: passes the escape, and both halves of a surrogate pair. */
static enum status scan_escape(struct scan *s) {
    uint8_t kind = s->n_bytes - s->at >= 2 ? s->text[s->at + 1] : 0;
    if (kind != 'u') {
        if (kind == 0 || !strchr("\"\\/bfnrt", kind))
            return malformed(s, "not an escape");
        s->at += 2;
        return STATUS_OK;
    }
    int32_t unit = hex4(s, s->at + 2);
    if (unit < 0)
        return malformed(s, "\\u needs four hex digits");
    size_t next = s->at + 6;
    bool is_pair = is_high(unit) && next < s->n_bytes && s->n_bytes - next >= 6 &&
                   s->text[next] == '\\' && s->text[next + 1] == 'u' &&
                   is_low(hex4(s, next + 2));
    if ((is_high(unit) || is_low(unit)) && !is_pair && s->surrogate_at == NOWHERE)
        s->surrogate_at = s->at;
    s->at = is_pair ? next + 6 : next;
    return STATUS_OK;
}

/* At an opening quote: passes the string. */
static enum status scan_string(struct scan *s) {
    const uint8_t *text = s->text;
    s->at++;
    for (;;) {
        while (s->at < s->n_bytes && is_plain(text[s->at]))
            s->at++;
        if (s->at >= s->n_bytes)
            return malformed(s, "a string without its end");
        uint8_t c = text[s->at];
        if (c == '"') {
            s->at++;
            return STATUS_OK;
        }
        if (c == '\\') {
            enum status status = scan_escape(s);
            if (status != STATUS_OK)
                return status;
        } else if (c < 0x20) {
            return malformed(s, "a control character in a string");
        } else {
            size_t n_bad, n = utf8_length(text + s->at, s->n_bytes - s->at, &n_bad);
            if (n == 0)
                return malformed(s, "not UTF-8");
            s->at += n;
        }
    }
}

static size_t scan_digits(struct scan *s) {
    size_t from = s->at;
    while (s->at < s->n_bytes && s->text[s->at] >= '0' && s->text[s->at] <= '9')
        s->at++;
    return s->at - from;
}

static inline bool scan_byte(struct scan *s, uint8_t c) {
    if (s->at >= s->n_bytes || s->text[s->at] != c)
        return false;
    s->at++;
    return true;
}

static enum status scan_number(struct scan *s) {
    if (!scan_byte(s, '-') && (s->text[s->at] < '0' || s->text[s->at] > '9'))
        return malformed(s, "expected a value");
    if (!scan_byte(s, '0') && scan_digits(s) == 0)
        return malformed(s, "expected a digit");
    if (scan_byte(s, '.') && scan_digits(s) == 0)
        return malformed(s, "expected a digit after the point");
    if (scan_byte(s, 'e') || scan_byte(s, 'E')) {
        if (!scan_byte(s, '+'))
            scan_byte(s, '-');
        if (scan_digits(s) == 0)
            return malformed(s, "expected a digit in the exponent");
    }
    return STATUS_OK;
}

static enum status scan_word(struct scan *s, const char *word) {
    size_t n = strlen(word);
    if (s->n_bytes - s->at < n || memcmp(s->text + s->at, word, n) != 0)
        return malformed(s, "expected a value");
    s->at += n;
    return STATUS_OK;
}

static inline bool in_object(const struct scan *s) {
    size_t level = s->depth - 1;
    return s->is_object[level / 8] >> level % 8 & 1;
}

/* At a bracket or brace. */
static enum status scan_open(struct scan *s) {
    size_t max =
        s->limits->max_depth < DEPTH_CEILING ? s->limits->max_depth : DEPTH_CEILING;
    if (s->depth >= max)
        return error_set(s->err, STATUS_LIMIT,
                         "JSON is nested more than %zu deep (at byte %zu)", max, s->at);
    uint8_t bit = (uint8_t)(1u << s->depth % 8);
    if (s->text[s->at] == '{')
        s->is_object[s->depth / 8] |= bit;
    else
        s->is_object[s->depth / 8] &= (uint8_t)~bit;
    s->depth++;
    s->at++;
    return STATUS_OK;
}

/* "key" : */
static enum status scan_key(struct scan *s) {
    if (s->at >= s->n_bytes || s->text[s->at] != '"')
        return malformed(s, "expected a key in quotes");
    size_t from = s->at;
    enum status status = scan_string(s);
    if (status != STATUS_OK)
        return status;
    if (s->at - from - 2 > s->limits->max_key_bytes)
        return error_set(s->err, STATUS_LIMIT,
                         "JSON has a key of more than %zu bytes (at byte %zu)",
                         s->limits->max_key_bytes, from);
    skip_space(s);
    if (!scan_byte(s, ':'))
        return malformed(s, "expected a colon");
    skip_space(s);
    return STATUS_OK;
}

/* Passes one value, or only its opening bracket: *is_open then. */
static enum status scan_value(struct scan *s, bool *is_open) {
    *is_open = false;
    if (s->at >= s->n_bytes)
        return malformed(s, "expected a value");
    if (++s->n_values > s->limits->max_values)
        return error_set(s->err, STATUS_LIMIT,
                         "JSON has more than %zu values (at byte %zu)",
                         s->limits->max_values, s->at);
    switch (s->text[s->at]) {
    case '{':
    case '[':
        *is_open = true;
        return scan_open(s);
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

/* Behind a value: closes what ends here. *is_done when the outermost value has ended; else
 * a comma was passed, and its key in an object. */
static enum status scan_after(struct scan *s, bool *is_done) {
    for (;;) {
        *is_done = s->depth == 0;
        if (*is_done)
            return STATUS_OK;
        skip_space(s);
        bool is_object = in_object(s);
        if (scan_byte(s, is_object ? '}' : ']')) {
            s->depth--;
            continue;
        }
        if (!scan_byte(s, ','))
            return malformed(s, is_object ? "expected a comma or the object's end"
                                          : "expected a comma or the array's end");
        skip_space(s);
        return is_object ? scan_key(s) : STATUS_OK;
    }
}

static enum status scan_document(struct scan *s) {
    bool is_done = false;
    enum status status;
    skip_space(s);
    while (!is_done) {
        bool is_open;
        if ((status = scan_value(s, &is_open)) != STATUS_OK)
            return status;
        if (is_open) {
            skip_space(s);
            bool is_object = in_object(s);
            bool is_empty =
                s->at < s->n_bytes && s->text[s->at] == (is_object ? '}' : ']');
            if (!is_empty) {
                if (is_object && (status = scan_key(s)) != STATUS_OK)
                    return status;
                continue;
            }
        }
        if ((status = scan_after(s, &is_done)) != STATUS_OK)
            return status;
    }
    skip_space(s);
    if (s->at < s->n_bytes)
        return malformed(s, "bytes behind the value");
    if (s->surrogate_at != NOWHERE)
        return error_set(s->err, STATUS_UNSUPPORTED,
                         "JSON holds a lone surrogate at byte %zu: not a character",
                         s->surrogate_at);
    return STATUS_OK;
}

/* jansson's message quotes the text, so only its code is used. */
static enum status refused(const json_error_t *e, struct error *err) {
    int at = e->position;
    switch (json_error_code(e)) {
    case json_error_duplicate_key:
        return error_set(err, STATUS_INVALID, "JSON has a key twice, before byte %d",
                         at);
    case json_error_numeric_overflow:
        return error_set(err, STATUS_INVALID,
                         "JSON has a number out of range, before byte %d", at);
    case json_error_null_byte_in_key:
        return error_set(err, STATUS_INVALID, "JSON has NUL in a key, before byte %d",
                         at);
    default:
        return error_set(err, STATUS_INVALID, "malformed JSON before byte %d", at);
    }
}

struct source {
    const char *text;
    size_t n_bytes;
    json_t **out;
};

static enum status load(void *context, struct error *err) {
    const struct source *source = context;
    json_error_t e;
    *source->out =
        json_loadb(source->text, source->n_bytes,
                   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    return *source->out ? STATUS_OK : refused(&e, err);
}

enum status json_parse(const char *text, size_t n_bytes,
                       const struct json_limits *limits, json_t **out,
                       struct error *err) {
    struct scan s = {.text = (const uint8_t *)text,
                     .n_bytes = n_bytes,
                     .limits = limits,
                     .surrogate_at = NOWHERE,
                     .err = err};
    struct source source = {text, n_bytes, out};
    *out = NULL;
    if (n_bytes > limits->max_bytes)
        return error_set(err, STATUS_LIMIT,
                         "JSON of %zu bytes is over the limit of %zu", n_bytes,
                         limits->max_bytes);
    enum status status = scan_document(&s);
    return status == STATUS_OK ? json_guard(load, &source, err) : status;
}

/* ---- appending ---- */

static enum status append_escape(struct buffer *b, uint8_t c, struct error *err) {
    static const char hex[] = "0123456789abcdef";
    static const char names[] = "btn\0fr"; /* 8, 9, 10, -, 12, 13 */
    char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    size_t n = 6;
    if (c == '"' || c == '\\' || (c >= 8 && c <= 13 && c != 11)) {
        escape[1] = c >= 8 && c <= 13 ? names[c - 8] : (char)c;
        n = 2;
    }
    return buffer_append(b, escape, n, err);
}

enum status json_append_string(struct buffer *b, const char *text, size_t n_bytes,
                               struct error *err) {
    const uint8_t *p = (const uint8_t *)text;
    enum status status = buffer_append(b, "\"", 1, err);
    size_t at = 0, from = 0; /* [from, at) is fine as it is and not yet appended */
    while (status == STATUS_OK && at < n_bytes) {
        if (is_plain(p[at])) {
            at++;
            continue;
        }
        size_t n_bad = 1;
        bool is_ascii = p[at] < 0x80;
        size_t n = is_ascii ? 0 : utf8_length(p + at, n_bytes - at, &n_bad);
        if (n > 0) {
            at += n;
            continue;
        }
        if (at > from)
            status = buffer_append(b, text + from, at - from, err);
        if (status == STATUS_OK)
            status = is_ascii ? append_escape(b, p[at], err)
                              : buffer_append(b, "\xEF\xBF\xBD", 3, err);
        at += n_bad;
        from = at;
    }
    if (status == STATUS_OK && at > from)
        status = buffer_append(b, text + from, at - from, err);
    return status == STATUS_OK ? buffer_append(b, "\"", 1, err) : status;
}

/* Powers of ten that a double holds exactly. */
static const double powers_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                       1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                       1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define MAX_EXACT_POWER 22
#define MAX_FLOAT_DIGITS 9
#define MIN_PLAIN_EXPONENT (-5) /* below: 1.5e-7, not 0.00000015 */
#define FLOAT_TEXT_BYTES 32

/* True when the decimal digits * power (or / power) reads as value. The quotient may be half
 * a unit off the decimal, so its neighbours must read the same: no double rounding. The
 * product is a whole number below 1e10: exact. */
static bool reads_as(double digits, double power, bool is_product, float value) {
    if (is_product)
        return (float)(digits * power) == value;
    double decimal = digits / power;
    return (float)decimal == value && (float)nextafter(decimal, 0.0) == value &&
           (float)nextafter(decimal, HUGE_VAL) == value;
}

/* Writes digits * 10^(exponent - n_digits + 1): the first digit stands at 10^exponent. */
static size_t write_decimal(char *out, uint64_t digits, int n_digits, int exponent) {
    char text[24];
    char *p = out;
    for (int i = n_digits - 1; i >= 0; i--, digits /= 10)
        text[i] = (char)('0' + digits % 10);
    while (n_digits > 1 && text[n_digits - 1] == '0')
        n_digits--;
    if (exponent < MIN_PLAIN_EXPONENT) {
        *p++ = text[0];
        if (n_digits > 1) {
            *p++ = '.';
            memcpy(p, text + 1, (size_t)n_digits - 1);
            p += n_digits - 1;
        }
        *p++ = 'e';
        *p++ = '-';
        int e = -exponent;
        if (e >= 10)
            *p++ = (char)('0' + e / 10);
        *p++ = (char)('0' + e % 10);
        return (size_t)(p - out);
    }
    if (exponent < 0) {
        *p++ = '0';
        *p++ = '.';
        for (int i = exponent + 1; i < 0; i++)
            *p++ = '0';
    }
    for (int i = 0; i < n_digits || i <= exponent; i++) {
        if (exponent >= 0 && i == exponent + 1)
            *p++ = '.';
        *p++ = i < n_digits ? text[i] : '0';
    }
    return (size_t)(p - out);
}

/* The shortest decimal by exact powers of ten: 1e-13 to 1e9. 0 when out of that range.
 * Some 40 ns, where printing and reading back takes 300 to 1,200. */
static size_t write_quick(char *out, float value) {
    double v = value;
    if (!(v >= 1e-13 && v < 1e9))
        return 0;
    int exponent = 0;
    while (exponent < 8 && v >= powers_of_ten[exponent + 1])
        exponent++;
    while (v < 1.0 && exponent > -13 && v * powers_of_ten[-exponent] < 1.0)
        exponent--;
    for (int n = 1; n <= MAX_FLOAT_DIGITS; n++) {
        int decimals = n - 1 - exponent;
        if (decimals > MAX_EXACT_POWER)
            return 0;
        double power = powers_of_ten[decimals < 0 ? -decimals : decimals];
        double digits = nearbyint(decimals < 0 ? v / power : v * power);
        if (!reads_as(digits, power, decimals <= 0, value))
            continue;
        if (digits >= powers_of_ten[n]) /* 9.99 rounded up to 10 */
            return write_decimal(out, (uint64_t)digits, n + 1, exponent + 1);
        return write_decimal(out, (uint64_t)digits, n, exponent);
    }
    return 0;
}

enum status json_append_float(struct buffer *b, float value, struct error *err) {
    char text[FLOAT_TEXT_BYTES];
    if (!isfinite(value))
        return buffer_append(b, "null", 4, err);
    if (value == 0.0f)
        return buffer_append(b, signbit(value) ? "-0.0" : "0", signbit(value) ? 4 : 1,
                             err);
    size_t n = value < 0 ? 1 : 0;
    text[0] = '-';
    size_t n_quick = write_quick(text + n, fabsf(value));
    if (n_quick > 0)
        return buffer_append(b, text, n + n_quick, err);
    int n_text = 0;
    for (int digits = 1; digits <= MAX_FLOAT_DIGITS; digits++) {
        n_text = snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return buffer_append(b, text, (size_t)n_text, err);
}
