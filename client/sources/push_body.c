/* SPDX-License-Identifier: Apache-2.0
 *
 * push_body.c - a document is cut into its records before anything parses it: each is then
 * bounded by itself, where a whole body in jansson's tree could take 79 times its size.
 */
#include "client/sources/push_body.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/memory.h"
#include "client/sources/source.h"

#define MAX_DEPTH 32
#define MAX_VALUES 20000
#define MAX_KEY_BYTES 1024

struct cut {
    char *text;
    size_t n_bytes, at;
    enum status (*each)(void *context, struct view record, struct error *err);
    void *context;
    size_t n; /* records handed on */
};

enum status push_body_form(struct view content_type, enum push_form *out,
                           struct error *err) {
    static const struct {
        const char *type;
        enum push_form form;
    } known[] = {{"application/json", PUSH_DOCUMENT},
                 {"application/jsonlines", PUSH_LINES},
                 {"application/x-ndjson", PUSH_LINES}};
    size_t n = 0;
    while (n < content_type.n_bytes && !strchr("; \t", content_type.data[n]))
        n++;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (n == strlen(known[i].type) &&
            strncasecmp(content_type.data, known[i].type, n) == 0) {
            *out = known[i].form;
            return STATUS_OK;
        }
    return error_set(err, STATUS_UNSUPPORTED,
                     "expected application/json, application/jsonlines or "
                     "application/x-ndjson");
}

/* ---- Values --------------------------------------------------------------------------- */

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_space(struct cut *c) {
    while (c->at < c->n_bytes && is_space(c->text[c->at]))
        c->at++;
}

static bool take(struct cut *c, char wanted) {
    skip_space(c);
    if (c->at == c->n_bytes || c->text[c->at] != wanted)
        return false;
    c->at++;
    return true;
}

/* The value that begins here, as far as its brackets and quotes tell. */
static struct view take_value(struct cut *c) {
    size_t depth = 0, from;
    bool is_in_string = false;
    skip_space(c);
    for (from = c->at; c->at < c->n_bytes; c->at++) {
        char b = c->text[c->at];
        if (is_in_string) {
            is_in_string = b != '"';
            c->at += b == '\\' && c->at + 1 < c->n_bytes;
        } else if (b == '"') {
            is_in_string = true;
        } else if (b == '{' || b == '[') {
            depth++;
        } else if (depth > 0 && (b == '}' || b == ']')) {
            depth--;
        } else if (depth == 0 &&
                   (b == '}' || b == ']' || b == ',' || b == ':' || is_space(b))) {
            break;
        }
    }
    return view_of(c->text + from, c->at - from);
}

/* Whether it is one JSON value, within bounds. A lone surrogate is for the parser later. */
static enum status check(struct view value, struct error *err) {
    static const struct json_limits limits = {.max_bytes = SOURCE_MAX_LINE_BYTES,
                                              .max_depth = MAX_DEPTH,
                                              .max_values = MAX_VALUES,
                                              .max_key_bytes = MAX_KEY_BYTES};
    json_t *parsed = NULL;
    enum status status = json_parse(value.data, value.n_bytes, &limits, &parsed, err);
    json_decref(parsed);
    return status == STATUS_UNSUPPORTED ? STATUS_OK : status;
}

static enum status hand_on(struct cut *c, struct view record, const char *what,
                           size_t number, struct error *err) {
    enum status status;
    if (record.n_bytes == 0 || (record.data[0] != '{' && record.data[0] != '"'))
        return error_set(err, STATUS_INVALID, "%s %zu is not a record", what, number);
    status = check(record, err);
    if (status == STATUS_INVALID)
        return error_set(err, status, "%s %zu is not JSON", what, number);
    if (status == STATUS_LIMIT)
        return error_set(err, status, "%s %zu is too long, too deep or too full", what,
                         number);
    if (status != STATUS_OK)
        return status;
    for (char *at = c->text + (record.data - c->text), *end = at + record.n_bytes;
         at < end; at++)
        if (*at == '\n' || *at == '\r')
            *at = ' ';
    c->n++;
    return c->each(c->context, record, err);
}

/* ---- Bodies --------------------------------------------------------------------------- */

static enum status split_lines(struct cut *c, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t number = 1; status == STATUS_OK && c->at < c->n_bytes; number++) {
        const char *from = c->text + c->at;
        const char *end = memchr(from, '\n', c->n_bytes - c->at);
        size_t n = end ? (size_t)(end - from) : c->n_bytes - c->at;
        c->at += n + 1;
        while (n && is_space(from[n - 1]))
            n--;
        while (n && is_space(*from)) {
            from++;
            n--;
        }
        if (n)
            status = hand_on(c, view_of(from, n), "line", number, err);
    }
    return status;
}

static enum status not_a_document(struct error *err) {
    return error_set(err, STATUS_INVALID,
                     "the body is not JSON: expected {\"posts\":[…]} or one record");
}

static enum status split_posts(struct cut *c, struct error *err) {
    enum status status = STATUS_OK;
    if (take(c, ']'))
        return STATUS_OK;
    for (size_t number = 1; status == STATUS_OK; number++) {
        status = hand_on(c, take_value(c), "post", number, err);
        if (status != STATUS_OK || take(c, ']'))
            break;
        if (!take(c, ','))
            status = not_a_document(err);
    }
    return status;
}

/* Walks over the members of the outermost object up to "posts"; false when there is none. */
static bool find_posts(struct cut *c) {
    c->at = 0;
    if (!take(c, '{'))
        return false;
    do {
        struct view key = take_value(c);
        bool is_posts = view_equal(key, VIEW("\"posts\""));
        if (!take(c, ':'))
            return false;
        if (is_posts)
            return true;
        take_value(c);
    } while (take(c, ','));
    return false;
}

/* What stands around the posts has to be JSON too: what is left without them is looked at.
 * head: up to the '[', tail: from behind the ']'. */
static enum status check_around(struct view head, struct view tail, struct error *err) {
    struct buffer around = {.max_bytes = SOURCE_MAX_LINE_BYTES};
    enum status status = buffer_append(&around, head.data, head.n_bytes, err);
    if (status == STATUS_OK)
        status = buffer_append(&around, "[]", 2, err);
    if (status == STATUS_OK)
        status = buffer_append(&around, tail.data, tail.n_bytes, err);
    if (status == STATUS_OK)
        status = check(view_of(around.data, around.n_bytes), err);
    buffer_free(&around);
    return status == STATUS_INVALID ? not_a_document(err) : status;
}

static enum status split_document(struct cut *c, struct error *err) {
    if (!find_posts(c)) {
        c->at = 0;
        skip_space(c);
        struct view whole = view_of(c->text + c->at, c->n_bytes - c->at);
        while (whole.n_bytes && is_space(whole.data[whole.n_bytes - 1]))
            whole.n_bytes--;
        return hand_on(c, whole, "post", 1, err);
    }
    skip_space(c);
    struct view head = view_of(c->text, c->at);
    struct cut all = *c;
    struct view posts = take_value(&all);
    struct view tail = view_of(c->text + all.at, c->n_bytes - all.at);
    if (!take(c, '['))
        return error_set(err, STATUS_INVALID, "\"posts\" must be an array");
    enum status status = posts.n_bytes < 2 || posts.data[posts.n_bytes - 1] != ']'
                             ? not_a_document(err)
                             : check_around(head, tail, err);
    if (status == STATUS_OK)
        status = split_posts(c, err);
    return status == STATUS_OK && c->at != all.at ? not_a_document(err) : status;
}

enum status push_body_split(enum push_form form, char *body, size_t n_bytes,
                            enum status (*each)(void *context, struct view record,
                                                struct error *err),
                            void *context, size_t *n, struct error *err) {
    struct cut c = {.text = body, .n_bytes = n_bytes, .each = each, .context = context};
    enum status status =
        form == PUSH_LINES ? split_lines(&c, err) : split_document(&c, err);
    *n = c.n;
    return status;
}
