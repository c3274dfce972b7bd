/* SPDX-License-Identifier: Apache-2.0
 *
 * x_search.c - a page of the recent search becomes lines like those of the stream, so that
 * the same parser reads both. This is the one JSON that is read on the reader's thread: a
 * page comes once in a gap, not with each post.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "client/sources/x_api.h"

static const struct json_limits limits = {.max_bytes = (size_t)8 << 20,
                                          .max_depth = 32,
                                          .max_values = 262144,
                                          .max_key_bytes = 256};

struct split {
    const json_t *root;
    struct buffer *lines;
};

static int append(const char *data, size_t n_bytes, void *context) {
    return buffer_append(context, data, n_bytes, NULL) == STATUS_OK ? 0 : -1;
}

static bool dump(const json_t *value, struct buffer *out) {
    return json_dump_callback(value, append, out, JSON_COMPACT | JSON_ENCODE_ANY) == 0;
}

static bool put(struct buffer *out, const char *text) {
    return buffer_append(out, text, strlen(text), NULL) == STATUS_OK;
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* Does a post of these (the first one, and what it refers to) need this object? */
static bool is_needed(const json_t *const *posts, size_t n_posts, const char *kind,
                      const char *id) {
    for (size_t i = 0; i < n_posts; i++) {
        const json_t *all = json_object_get(posts[i], "referenced_tweets");
        if (strcmp(kind, "users") == 0 &&
            strcmp(text_of(posts[i], "author_id"), id) == 0)
            return true;
        if (strcmp(kind, "places") == 0 &&
            strcmp(text_of(json_object_get(posts[i], "geo"), "place_id"), id) == 0)
            return true;
        for (size_t k = 0; strcmp(kind, "tweets") == 0 && k < json_array_size(all); k++)
            if (strcmp(text_of(json_array_get(all, k), "id"), id) == 0)
                return true;
    }
    return false;
}

static bool put_line(const struct split *s, const json_t *post) {
    static const char *const kinds[] = {"tweets", "users", "places"};
    const json_t *includes = json_object_get(s->root, "includes");
    const json_t *posts[5] = {post};
    size_t n_posts = 1;
    bool ok = put(s->lines, "{\"data\":") && dump(post, s->lines) &&
              put(s->lines, ",\"includes\":{");
    for (size_t k = 0; ok && k < sizeof(kinds) / sizeof(*kinds); k++) {
        const json_t *all = json_object_get(includes, kinds[k]);
        size_t n_put = 0;
        ok = put(s->lines, k ? ",\"" : "\"") && put(s->lines, kinds[k]) &&
             put(s->lines, "\":[");
        for (size_t i = 0; ok && i < json_array_size(all); i++) {
            const json_t *one = json_array_get(all, i);
            /* Of what a post refers to, authors are needed, but not what that refers to. */
            if (!is_needed(posts, k == 0 ? 1 : n_posts, kinds[k], text_of(one, "id")))
                continue;
            if (k == 0 && n_posts < sizeof(posts) / sizeof(*posts))
                posts[n_posts++] = one;
            ok = (n_put++ == 0 || put(s->lines, ",")) && dump(one, s->lines);
        }
        ok = ok && put(s->lines, "]");
    }
    return ok && put(s->lines, "}}\n");
}

static enum status put_lines(void *context, struct error *err) {
    const struct split *s = context;
    const json_t *data = json_object_get(s->root, "data");
    for (size_t i = 0; i < json_array_size(data); i++)
        if (json_is_object(json_array_get(data, i)) &&
            !put_line(s, json_array_get(data, i)))
            return error_set(err, STATUS_NO_MEMORY, "no memory for a page of a search");
    return STATUS_OK;
}

enum status x_search_split(struct view body, struct buffer *lines, char **next,
                           struct error *err) {
    json_t *root = NULL;
    *next = NULL;
    enum status status = json_parse(body.data, body.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    struct split s = {.root = root, .lines = lines};
    status = json_guard(put_lines, &s, err);
    const char *token = text_of(json_object_get(root, "meta"), "next_token");
    if (status == STATUS_OK && *token && !(*next = strdup(token)))
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a page of a search");
    json_decref(root);
    return status;
}
