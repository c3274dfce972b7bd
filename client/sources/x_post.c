/* SPDX-License-Identifier: Apache-2.0
 *
 * x_post.c - the parser of X's posts.
 *
 * A post of more than 280 characters has its whole text in note_tweet. What a repost repeats
 * is under includes.tweets; its own text is cut by X.
 */
#include "client/sources/x_post.h"

#include <string.h>

#include "base/json.h"
#include "client/sources/record.h"
#include "client/sources/source.h"

#define MAX_EDITS 64

static const struct json_limits limits = {.max_bytes = SOURCE_MAX_LINE_BYTES,
                                          .max_depth = 32,
                                          .max_values = 65536,
                                          .max_key_bytes = 256};

/* ---- Pieces ---- */

static struct view text_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_string(value)
               ? view_of(json_string_value(value), json_string_length(value))
               : VIEW("");
}

static bool is_id(struct view v) {
    if (v.n_bytes == 0 || v.n_bytes > 20)
        return false;
    for (size_t i = 0; i < v.n_bytes; i++)
        if (v.data[i] < '0' || v.data[i] > '9')
            return false;
    return true;
}

/* Of the objects of an array under includes the one whose "id" this is; or NULL. */
static const json_t *included(const json_t *root, const char *kind, struct view id) {
    const json_t *all = json_object_get(json_object_get(root, "includes"), kind);
    for (size_t i = 0; id.n_bytes > 0 && i < json_array_size(all); i++) {
        const json_t *one = json_array_get(all, i);
        if (view_equal(text_of(one, "id"), id))
            return one;
    }
    return NULL;
}

static enum status keep(struct arena *arena, struct view from, struct view *out,
                        struct error *err) {
    *out = view_of(NULL, 0);
    return from.n_bytes == 0 ? STATUS_OK : arena_copy(arena, from, out, err);
}

/* A name that is too long for us is one that we do not know. */
static enum status keep_name(struct arena *arena, struct view from, struct view *out,
                             struct error *err) {
    if (from.n_bytes > POST_MAX_NAME_BYTES)
        from.n_bytes = 0;
    return keep(arena, from, out, err);
}

/* What is the same of a post and of the one that it repeats. */
struct parts {
    struct view id, text, author, author_name, lang, place;
    int64_t version, posted_ns;
};

/* Where the author says he is, else where the post says it is. */
static struct view place_of(const json_t *root, const json_t *post,
                            const json_t *user) {
    struct view place = text_of(user, "location");
    if (place.n_bytes == 0)
        place = text_of(
            included(root, "places", text_of(json_object_get(post, "geo"), "place_id")),
            "full_name");
    return place;
}

/* The key and the version: the first id of the history, and the place in it. */
static void history_of(const json_t *post, struct view *id, int64_t *version) {
    const json_t *all = json_object_get(post, "edit_history_tweet_ids");
    struct view own = *id;
    *version = 1;
    for (size_t i = 0; i < json_array_size(all) && i < MAX_EDITS; i++) {
        const json_t *one = json_array_get(all, i);
        struct view edit = json_is_string(one) ? view_of(json_string_value(one),
                                                         json_string_length(one))
                                               : view_of(NULL, 0);
        if (i == 0 && is_id(edit))
            *id = edit;
        if (view_equal(edit, own))
            *version = (int64_t)i + 1;
    }
}

static struct parts parts_of(const json_t *root, const json_t *post) {
    struct parts p = {.id = text_of(post, "id")};
    history_of(post, &p.id, &p.version);
    p.text = text_of(json_object_get(post, "note_tweet"), "text");
    if (p.text.n_bytes == 0)
        p.text = text_of(post, "text");
    p.author = text_of(post, "author_id");
    const json_t *user = included(root, "users", p.author);
    p.author_name = text_of(user, "username");
    p.lang = text_of(post, "lang");
    /* X's own codes for "no words in it". */
    if (p.lang.n_bytes == 3 && memcmp(p.lang.data, "und", 3) != 0 &&
        p.lang.data[0] == 'q')
        p.lang.n_bytes = 0;
    if (view_equal(p.lang, VIEW("und")) || view_equal(p.lang, VIEW("zxx")))
        p.lang.n_bytes = 0;
    p.place = place_of(root, post, user);
    p.posted_ns = record_time(text_of(post, "created_at"));
    return p;
}

/* ---- A post ---- */

static enum status parse_original(const json_t *root, const json_t *post,
                                  struct arena *arena, struct post *out,
                                  struct error *err) {
    const json_t *all = json_object_get(post, "referenced_tweets");
    struct view id = {0};
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *one = json_array_get(all, i);
        struct view type = text_of(one, "type");
        bool is_repost = view_equal(type, VIEW("retweeted"));
        if ((!is_repost && !view_equal(type, VIEW("quoted"))) ||
            out->relation == POST_REPOST || !is_id(text_of(one, "id")))
            continue;
        out->relation = is_repost ? POST_REPOST : POST_QUOTE;
        id = text_of(one, "id");
    }
    if (out->relation == POST_ORIGINAL)
        return STATUS_OK;
    struct parts p = {.id = id};
    const json_t *original = included(root, "tweets", id);
    if (original)
        p = parts_of(root, original);
    if (!is_id(p.id) || p.text.n_bytes > POST_MAX_TEXT_BYTES)
        p = (struct parts){.id = id};
    enum status status = keep(arena, p.id, &out->original_id, err);
    if (status == STATUS_OK)
        status = keep(arena, p.text, &out->original_text, err);
    if (status == STATUS_OK)
        status = keep_name(arena, p.author, &out->original_author, err);
    if (status == STATUS_OK)
        status = keep_name(arena, p.lang, &out->original_lang, err);
    if (status == STATUS_OK)
        status = keep_name(arena, p.place, &out->original_place, err);
    out->original_version = original ? p.version : 0;
    out->original_posted_ns = p.posted_ns;
    return status;
}

static enum status parse_post(const json_t *root, const json_t *post,
                              struct arena *arena, struct post *out,
                              struct error *err) {
    struct parts p = parts_of(root, post);
    if (!is_id(p.id))
        return error_set(err, STATUS_INVALID, "a post without an id");
    if (p.text.n_bytes > POST_MAX_TEXT_BYTES)
        return error_set(err, STATUS_LIMIT, "too_long: a text of %zu bytes, at most %d",
                         p.text.n_bytes, POST_MAX_TEXT_BYTES);
    out->action = POST_PUT;
    out->version = p.version;
    out->posted_ns = p.posted_ns;
    enum status status = keep(arena, p.id, &out->native_id, err);
    if (status == STATUS_OK)
        status = keep(arena, p.text, &out->text, err);
    if (status == STATUS_OK)
        status = keep_name(arena, p.author, &out->author, err);
    if (status == STATUS_OK)
        status = keep_name(arena, p.author_name, &out->author_name, err);
    if (status == STATUS_OK)
        status = keep_name(arena, p.lang, &out->lang, err);
    if (status == STATUS_OK)
        status = keep_name(arena, p.place, &out->place, err);
    if (status == STATUS_OK)
        status = arena_printf(arena, &out->url, err, "https://x.com/i/web/status/%.*s",
                              (int)p.id.n_bytes, p.id.data);
    return status == STATUS_OK ? parse_original(root, post, arena, out, err) : status;
}

/* ---- A withdrawal ---- */

/* The messages of the compliance streams, under data or by themselves:
 * {"delete": {"tweet": {"id": …}}}, the same as "drop", and v1.1's {"status": {"id_str"}}. */
static struct view withdrawn_id(const json_t *holder) {
    static const char *const kinds[] = {"delete", "drop"}, *const posts[] = {"tweet",
                                                                             "post",
                                                                             "status"};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
        for (size_t p = 0; p < sizeof(posts) / sizeof(*posts); p++) {
            const json_t *post =
                json_object_get(json_object_get(holder, kinds[k]), posts[p]);
            struct view id = text_of(post, "id");
            if (!is_id(id))
                id = text_of(post, "id_str");
            if (is_id(id))
                return id;
        }
    return view_of(NULL, 0);
}

enum status x_post_parse(struct view line, struct arena *arena, struct post *out,
                         struct error *err) {
    json_t *root = NULL;
    memset(out, 0, sizeof(*out));
    out->action = POST_NOTHING;
    out->version = 1;
    enum status status = json_parse(line.data, line.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    const json_t *data = json_object_get(root, "data");
    struct view id = withdrawn_id(data);
    if (id.n_bytes == 0)
        id = withdrawn_id(root);
    if (id.n_bytes > 0) {
        out->action = POST_DELETE;
        status = keep(arena, id, &out->native_id, err);
    } else if (json_object_get(data, "id") || json_object_get(data, "text")) {
        status = parse_post(root, data, arena, out, err);
    }
    json_decref(root);
    return status;
}
