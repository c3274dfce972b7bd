/* SPDX-License-Identifier: Apache-2.0
 *
 * x_rules.c - rules made, read, compared, and their JSON. The lint is in x_rules_lint.c.
 */
#include "client/sources/x_rules.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"

#define MAX_FILE_BYTES ((size_t)4 << 20)

static const struct json_limits limits = {.max_bytes = (size_t)8 << 20,
                                          .max_depth = 16,
                                          .max_values = 65536,
                                          .max_key_bytes = 256};

/* ---- The list ---- */

void x_rules_free(struct x_rules *r) {
    for (size_t i = 0; i < r->n; i++) {
        free(r->all[i].value);
        free(r->all[i].tag);
        free(r->all[i].id);
    }
    free(r->all);
    *r = (struct x_rules){0};
}

static char *copy_of(struct view v) {
    char *copy = malloc(v.n_bytes + 1);
    if (copy) {
        if (v.n_bytes > 0)
            memcpy(copy, v.data, v.n_bytes);
        copy[v.n_bytes] = 0;
    }
    return copy;
}

enum status x_rules_add(struct x_rules *r, struct view value, struct view tag,
                        struct view id, struct error *err) {
    struct x_rule rule = {0};
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 16, n_bytes;
        struct x_rule *more = size_multiply(cap, sizeof(*more), &n_bytes)
                                  ? realloc(r->all, n_bytes)
                                  : NULL;
        if (!more)
            return error_set(err, STATUS_NO_MEMORY, "no memory for stream rules");
        r->all = more;
        r->cap = cap;
    }
    rule.value = copy_of(value);
    rule.tag = tag.data ? copy_of(tag) : NULL;
    rule.id = id.data ? copy_of(id) : NULL;
    if (!rule.value || (tag.data && !rule.tag) || (id.data && !rule.id)) {
        free(rule.value);
        free(rule.tag);
        free(rule.id);
        return error_set(err, STATUS_NO_MEMORY, "no memory for stream rules");
    }
    r->all[r->n++] = rule;
    return STATUS_OK;
}

static enum status add_ours(struct x_rules *r, struct view value, struct error *err) {
    uint8_t digest[SHA256_BYTES];
    char tag[sizeof(X_RULES_TAG) + SHA256_HEX_BYTES] = X_RULES_TAG;
    enum status status = sha256_of(value.data, value.n_bytes, digest, err);
    if (status != STATUS_OK)
        return status;
    sha256_hex(digest, tag + strlen(X_RULES_TAG));
    return x_rules_add(r, value, view_of(tag, X_RULES_TAG_BYTES - 1), view_of(NULL, 0),
                       err);
}

/* ---- Making ---- */

static enum status add_language(struct x_rules_maker *m, struct view code,
                                bool is_first, struct error *err) {
    for (size_t i = 0; i < code.n_bytes; i++)
        if (!((code.data[i] >= 'a' && code.data[i] <= 'z') || code.data[i] == '-'))
            return error_set(err, STATUS_INVALID,
                             "languages: expected codes like en,es in small letters");
    return buffer_printf(&m->behind, err, "%slang:%.*s", is_first ? "" : " OR ",
                         (int)code.n_bytes, code.data);
}

static enum status add_languages(struct x_rules_maker *m, const char *languages,
                                 struct error *err) {
    size_t n = 0;
    enum status status = buffer_printf(&m->behind, err, ")");
    if (languages && *languages && strcmp(languages, "any") != 0) {
        bool has_several = strchr(languages, ',') != NULL;
        if (status == STATUS_OK)
            status = buffer_printf(&m->behind, err, has_several ? " (" : " ");
        for (const char *at = languages; status == STATUS_OK && *at;) {
            size_t n_bytes = strcspn(at, ",");
            if (n_bytes > 0)
                status = add_language(m, view_of(at, n_bytes), n++ == 0, err);
            at += n_bytes + (at[n_bytes] == ',');
        }
        if (status == STATUS_OK && n == 0)
            status = error_set(err, STATUS_INVALID, "languages: expected a code");
        if (status == STATUS_OK && has_several)
            status = buffer_printf(&m->behind, err, ")");
    }
    return status == STATUS_OK ? buffer_printf(&m->behind, err, " -is:retweet")
                               : status;
}

enum status x_rules_begin(struct x_rules_maker *m, const char *languages,
                          size_t max_bytes, size_t max_rules, struct x_rules *out,
                          struct error *err) {
    *m = (struct x_rules_maker){
        .max_bytes = max_bytes, .max_rules = max_rules, .out = out};
    m->names.max_bytes = max_bytes + 1;
    m->behind.max_bytes = max_bytes + 1;
    enum status status = add_languages(m, languages, err);
    if (status != STATUS_OK) {
        m->is_failed = true;
        (void)x_rules_end(m, NULL);
    }
    return status;
}

/* Writes the rule that is under way. */
static enum status flush(struct x_rules_maker *m, struct error *err) {
    if (m->names.n_bytes == 0)
        return STATUS_OK;
    if (m->out->n >= m->max_rules)
        return error_set(err, STATUS_LIMIT,
                         "the watch list needs more than %zu rules of %zu bytes",
                         m->max_rules, m->max_bytes);
    enum status status =
        buffer_append(&m->names, m->behind.data, m->behind.n_bytes, err);
    if (status == STATUS_OK)
        status = add_ours(m->out, view_of(m->names.data, m->names.n_bytes), err);
    buffer_clear(&m->names);
    return status;
}

/* Can it stand without quotes? */
static bool is_plain(const char *name) {
    if (strcasecmp(name, "or") == 0 || strcasecmp(name, "and") == 0)
        return false;
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c >= '0' && c <= '9') || c >= 0x80))
            return false;
    }
    return true;
}

static enum status take_name(struct x_rules_maker *m, const char *name,
                             struct error *err) {
    size_t n_name = strlen(name), n_more = 0;
    bool is_quoted = !is_plain(name);
    if (n_name == 0)
        return STATUS_OK;
    if (strpbrk(name, "\"\\\r\n"))
        return error_set(
            err, STATUS_INVALID,
            "a name with a quote, a backslash or a line end in it cannot be "
            "a stream rule: %.64s",
            name);
    n_more = n_name + (is_quoted ? 2 : 0);
    if (1 + n_more + m->behind.n_bytes > m->max_bytes)
        return error_set(err, STATUS_LIMIT,
                         "no rule of %zu bytes can hold the name %.64s", m->max_bytes,
                         name);
    if (m->names.n_bytes > 0 &&
        m->names.n_bytes + 4 + n_more + m->behind.n_bytes > m->max_bytes) {
        enum status status = flush(m, err);
        if (status != STATUS_OK)
            return status;
    }
    const char *quote = is_quoted ? "\"" : "";
    return buffer_printf(&m->names, err, "%s%s%s%s", m->names.n_bytes ? " OR " : "(",
                         quote, name, quote);
}

enum status x_rules_name(struct x_rules_maker *m, const char *name, struct error *err) {
    enum status status = take_name(m, name, err);
    m->is_failed |= status != STATUS_OK;
    return status;
}

enum status x_rules_end(struct x_rules_maker *m, struct error *err) {
    enum status status = m->is_failed ? STATUS_OK : flush(m, err);
    buffer_free(&m->names);
    buffer_free(&m->behind);
    return status;
}

/* ---- Reading a file ---- */

enum status x_rules_read(const char *path, size_t max_bytes, size_t max_rules,
                         struct x_rules *out, struct error *err) {
    char *text = NULL;
    size_t n_bytes = 0, n_line = 0;
    enum status status = file_read(path, MAX_FILE_BYTES, &text, &n_bytes, err);
    if (status != STATUS_OK)
        return status;
    for (char *at = text; status == STATUS_OK && at < text + n_bytes;) {
        size_t left = (size_t)(text + n_bytes - at);
        char *end = memchr(at, '\n', left);
        struct view line = view_of(at, end ? (size_t)(end - at) : left);
        at += line.n_bytes + 1;
        n_line++;
        while (line.n_bytes > 0 && (line.data[line.n_bytes - 1] == '\r' ||
                                    line.data[line.n_bytes - 1] == ' '))
            line.n_bytes--;
        while (line.n_bytes > 0 && line.data[0] == ' ')
            line = view_of(line.data + 1, line.n_bytes - 1);
        if (line.n_bytes == 0 ||
            (line.data[0] == '#' && (line.n_bytes == 1 || line.data[1] == ' ')))
            continue; /* "# words" is a comment, "#tag" a rule */
        status = x_rule_lint(line, max_bytes, err);
        if (status == STATUS_OK && out->n >= max_rules)
            status = error_set(err, STATUS_LIMIT, "more than %zu rules", max_rules);
        if (status == STATUS_OK)
            status = add_ours(out, line, err);
        if (status != STATUS_OK)
            error_prefix(err, "%s:%zu", path, n_line);
    }
    free(text);
    if (status == STATUS_OK && out->n == 0)
        status =
            error_set(err, STATUS_INVALID, "%s: expected a rule, found none", path);
    return status;
}

/* ---- Comparing ---- */

static bool is_same_text(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool is_ours(const struct x_rule *rule) {
    return rule->tag && strncmp(rule->tag, X_RULES_TAG, strlen(X_RULES_TAG)) == 0;
}

/* Is it among them? With its tag, unless any_tag. */
static bool is_in(const struct x_rules *rules, const struct x_rule *rule,
                  bool any_tag) {
    for (size_t i = 0; i < rules->n; i++)
        if (strcmp(rules->all[i].value, rule->value) == 0 &&
            (any_tag || is_same_text(rules->all[i].tag, rule->tag)))
            return true;
    return false;
}

enum status x_rules_compare(const struct x_rules *want, const struct x_rules *have,
                            bool keeps_other, struct x_rules *missing,
                            struct x_rules *surplus, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < have->n; i++) {
        const struct x_rule *rule = &have->all[i];
        if (is_in(want, rule, false) || (keeps_other && !is_ours(rule)))
            continue;
        status = x_rules_add(surplus, view_of_string(rule->value),
                             view_of_string(rule->tag), view_of_string(rule->id), err);
    }
    for (size_t i = 0; status == STATUS_OK && i < want->n; i++) {
        const struct x_rule *rule = &want->all[i];
        /* The API has a text once: somebody else's rule with ours serves as well. */
        if (is_in(have, rule, keeps_other) || is_in(missing, rule, true))
            continue;
        status = x_rules_add(missing, view_of_string(rule->value),
                             view_of_string(rule->tag), view_of(NULL, 0), err);
    }
    return status;
}

/* ---- JSON ---- */

static struct view text_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_string(value)
               ? view_of(json_string_value(value), json_string_length(value))
               : view_of(NULL, 0);
}

enum status x_rules_parse(struct view body, struct x_rules *have, char **next,
                          struct error *err) {
    json_t *root = NULL;
    *next = NULL;
    enum status status = json_parse(body.data, body.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    const json_t *data = json_object_get(root, "data");
    if (!json_is_object(root) || (data && !json_is_array(data)))
        status = error_set(err, STATUS_INVALID, "expected a list of rules");
    for (size_t i = 0; status == STATUS_OK && i < json_array_size(data); i++) {
        const json_t *one = json_array_get(data, i);
        struct view value = text_of(one, "value"), id = text_of(one, "id");
        if (value.n_bytes == 0 || id.n_bytes == 0)
            continue;
        status = x_rules_add(have, value, text_of(one, "tag"), id, err);
    }
    struct view token = text_of(json_object_get(root, "meta"), "next_token");
    if (status == STATUS_OK && token.n_bytes > 0 && !(*next = copy_of(token)))
        status = error_set(err, STATUS_NO_MEMORY, "no memory for stream rules");
    json_decref(root);
    return status;
}

enum status x_rules_body(const struct x_rules *rules, bool adds, size_t from, size_t n,
                         struct buffer *out, struct error *err) {
    enum status status =
        buffer_printf(out, err, adds ? "{\"add\":[" : "{\"delete\":{\"ids\":[");
    for (size_t i = from; status == STATUS_OK && i < rules->n && i < from + n; i++) {
        const struct x_rule *rule = &rules->all[i];
        if (i > from)
            status = buffer_append(out, ",", 1, err);
        if (!adds) {
            if (status == STATUS_OK)
                status = json_append_string(out, rule->id, strlen(rule->id), err);
            continue;
        }
        if (status == STATUS_OK)
            status = buffer_printf(out, err, "{\"value\":");
        if (status == STATUS_OK)
            status = json_append_string(out, rule->value, strlen(rule->value), err);
        if (status == STATUS_OK)
            status = buffer_printf(out, err, ",\"tag\":");
        if (status == STATUS_OK)
            status = json_append_string(out, rule->tag ? rule->tag : "",
                                        rule->tag ? strlen(rule->tag) : 0, err);
        if (status == STATUS_OK)
            status = buffer_append(out, "}", 1, err);
    }
    return status == STATUS_OK ? buffer_printf(out, err, adds ? "]}" : "]}}") : status;
}

enum status x_rules_check(struct view body, struct error *err) {
    json_t *root = NULL;
    enum status status = json_parse(body.data, body.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    const json_t *errors = json_object_get(root, "errors");
    for (size_t i = 0; status == STATUS_OK && i < json_array_size(errors); i++) {
        const json_t *one = json_array_get(errors, i);
        struct view title = text_of(one, "title"), detail = {0};
        if (view_equal(title, VIEW("DuplicateRule")))
            continue;
        const json_t *details = json_object_get(one, "details");
        if (json_is_array(details) && json_is_string(json_array_get(details, 0)))
            detail = view_of_string(json_string_value(json_array_get(details, 0)));
        else
            detail = text_of(one, "detail");
        status = error_set(err, STATUS_INVALID, "the API refused a rule: %.*s %.*s",
                           (int)(title.n_bytes < 64 ? title.n_bytes : 64),
                           title.data ? title.data : "",
                           (int)(detail.n_bytes < 160 ? detail.n_bytes : 160),
                           detail.data ? detail.data : "");
    }
    json_decref(root);
    return status;
}
