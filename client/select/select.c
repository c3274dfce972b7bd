/* SPDX-License-Identifier: Apache-2.0 */
#include "client/select/select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/select/fold.h"
#include "client/select/language.h"
#include "client/select/normalise.h"
#include "client/select/place.h"
#include "client/select/privacy.h"
#include "client/select/watch_list.h"

#define MAX_DRUGS 32 /* mentions of a post that are kept */

struct selection {
    const struct watch_list *watch_list;
    const struct privacy *privacy;
    const char *source;
    enum store_mode mode;
    struct language_set languages;
    struct language *language; /* NULL: nothing is guessed */
    struct place_names *places;
};

const char *select_drop_name(enum select_drop drop) {
    static const char *const names[N_SELECT_DROPS] = {"kept", "no_drug", "language",
                                                      "empty", "nothing"};
    return names[drop];
}

enum status select_open(const struct select_options *options, struct selection **out,
                        struct error *err) {
    *out = NULL;
    struct selection *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the selection");
    s->watch_list = options->watch_list;
    s->privacy = options->privacy;
    s->source = options->source;
    s->mode = privacy_mode(options->privacy);
    enum status status = language_set_read(options->languages, &s->languages, err);
    if (status == STATUS_OK && options->detects_language)
        status = language_open(&s->language, err);
    if (status == STATUS_OK)
        status = place_open(&s->places, err);
    if (status != STATUS_OK) {
        select_close(s);
        return status;
    }
    *out = s;
    return STATUS_OK;
}

void select_close(struct selection *s) {
    if (!s)
        return;
    language_close(s->language);
    place_close(s->places);
    free(s);
}

/* What is said, by whom, where: of a post or of the one that it repeats. */
struct words {
    struct view text, author, lang, place, native_id;
    int64_t version, posted_ns;
};

static enum status no_memory(struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of posts");
}

/* Writes what was found as JSON. Names of a watch list hold nothing that needs escaping. */
static enum status write_drugs(const struct watch_list *list,
                               const struct watch_match *matches, size_t n,
                               struct arena *arena, struct view *out,
                               struct error *err) {
    size_t cap = 3, at = 1; /* a name is short: the sum cannot wrap */
    for (size_t i = 0; i < n; i++) {
        const struct watch_drug *drug = watch_list_drug(list, matches[i].drug);
        cap += strlen(drug->drug) + strlen(drug->names[matches[i].name]) + 80;
    }
    char *json = arena_take(arena, cap);
    if (!json)
        return no_memory(err);
    json[0] = '[';
    for (size_t i = 0; i < n; i++) {
        const struct watch_drug *drug = watch_list_drug(list, matches[i].drug);
        at += (size_t)snprintf(
            json + at, cap - at,
            "%s{\"drug\":\"%s\",\"name\":\"%s\",\"begin\":%u,\"end\":%u}", i ? "," : "",
            drug->drug, drug->names[matches[i].name], matches[i].begin, matches[i].end);
    }
    json[at++] = ']';
    json[at] = '\0';
    *out = view_of(json, at);
    return STATUS_OK;
}

static struct view trim(struct view v) {
    while (v.n_bytes && *v.data > 0 && *v.data <= ' ')
        v = view_of(v.data + 1, v.n_bytes - 1);
    while (v.n_bytes && v.data[v.n_bytes - 1] > 0 && v.data[v.n_bytes - 1] <= ' ')
        v.n_bytes--;
    return v;
}

/* Nothing in it that could be seen. */
static bool is_blank(struct view v) {
    for (size_t at = 0; at < v.n_bytes;) {
        struct normalised c =
            normalise_next((const uint8_t *)v.data + at, v.n_bytes - at);
        if (c.class != NORMALISE_SPACE && c.class != NORMALISE_DROPPED)
            return false;
        at += c.n_source;
    }
    return true;
}

/* The words behind "RT @name: ", as X writes a repost. */
static struct view without_repost_mark(struct view text) {
    if (!view_starts_with(text, VIEW("RT @")))
        return text;
    size_t n = text.n_bytes < 80 ? text.n_bytes : 80;
    const char *colon = memchr(text.data, ':', n);
    if (!colon)
        return text;
    size_t at = (size_t)(colon - text.data) + 1;
    return trim(view_of(text.data + at, text.n_bytes - at));
}

/* Where somebody is, as far as the mode lets it be known. */
static enum status fill_place(const struct selection *s, struct view text,
                              struct arena *arena, struct store_item *item,
                              struct error *err) {
    if (text.n_bytes == 0)
        return STATUS_OK;
    struct place place = place_find(s->places, text);
    enum status status = STATUS_OK;
    if (s->mode != STORE_AGGREGATE) {
        status = privacy_mask(s->privacy, text, arena, &item->place, err);
        if (status == STATUS_OK)
            status = arena_copy(arena, place.city, &item->city, err);
    }
    if (status == STATUS_OK)
        status = arena_copy(arena, place.state, &item->state, err);
    if (status == STATUS_OK)
        status = arena_copy(arena, place.country, &item->country, err);
    return status;
}

/* Are these words to be kept? Then all of the item is set but what concerns folding. */
static enum status judge(const struct selection *s, const struct words *w,
                         bool has_author, struct arena *arena, struct store_item *item,
                         enum select_drop *drop, struct error *err) {
    struct watch_match matches[MAX_DRUGS];
    size_t n = 0;
    struct view raw = trim(w->text), text, lang = {NULL, 0};
    char primary[LANGUAGE_TAG_BYTES];
    *drop = SELECT_EMPTY;
    if (is_blank(raw))
        return STATUS_OK;
    /* Most posts name no drug, so that is asked first, before anything is changed: masking
     * takes names away at most. */
    *drop = SELECT_NO_DRUG;
    if (s->watch_list && !watch_list_may_be_in(s->watch_list, raw))
        return STATUS_OK;
    enum status status = privacy_mask(s->privacy, raw, arena, &text, err);
    if (status != STATUS_OK)
        return status;
    if (s->watch_list &&
        (n = watch_list_find(s->watch_list, text, matches, MAX_DRUGS)) == 0)
        return STATUS_OK;
    if (language_primary(w->lang, primary))
        lang = w->lang;
    else if (s->language)
        lang = view_of_string(language_detect(s->language, text));
    *drop = SELECT_LANGUAGE;
    if (!language_set_has(&s->languages, lang))
        return STATUS_OK;
    *drop = SELECT_KEPT;
    item->text = text;
    item->fingerprint = fold_fingerprint(text);
    item->version = w->version;
    item->posted_ns = w->posted_ns;
    status = arena_copy(arena, lang, &item->lang, err);
    if (status == STATUS_OK)
        status = write_drugs(s->watch_list, matches, n < MAX_DRUGS ? n : MAX_DRUGS,
                             arena, &item->drugs, err);
    if (status == STATUS_OK)
        status = privacy_key(s->privacy, s->source, w->native_id, has_author, arena,
                             &item->key, err);
    if (status == STATUS_OK)
        status =
            privacy_author(s->privacy, s->source, w->author, arena, &item->author, err);
    if (status == STATUS_OK)
        status = fill_place(s, w->place, arena, item, err);
    return status;
}

static struct words own_words(const struct post *post) {
    return (struct words){.text = post->text,
                          .author = post->author,
                          .lang = post->lang,
                          .place = post->place,
                          .native_id = post->native_id,
                          .version = post->version,
                          .posted_ns = post->posted_ns};
}

static struct words original_words(const struct post *post) {
    return (struct words){.text = post->original_text,
                          .author = post->original_author,
                          .lang = post->original_lang,
                          .place = post->original_place,
                          .native_id = post->original_id,
                          .version = post->original_version,
                          .posted_ns = post->original_posted_ns};
}

struct result {
    struct store_item *items;
    size_t n;
};

static struct store_item *new_item(const struct selection *s, struct result *r,
                                   enum store_item_kind kind) {
    struct store_item *item = &r->items[r->n];
    *item = (struct store_item){
        .kind = kind, .mode = s->mode, .source = view_of_string(s->source)};
    return item;
}

static enum status take_own(const struct selection *s, const struct post *post,
                            struct arena *arena, struct result *r,
                            enum select_drop *drop, struct error *err) {
    struct words words = own_words(post);
    struct store_item *item = new_item(s, r, STORE_POST);
    enum status status = judge(s, &words, post->id_has_author, arena, item, drop, err);
    /* A link to a post names its author nearly everywhere. */
    if (status == STATUS_OK && *drop == SELECT_KEPT && s->mode == STORE_FULL)
        status = arena_copy(arena, post->url, &item->url, err);
    if (status == STATUS_OK && *drop == SELECT_KEPT)
        r->n++;
    return status;
}

/* What is repeated without its words: counted, if the store knows it. */
static enum status name_original(const struct selection *s, const struct post *post,
                                 struct arena *arena, struct store_item *item,
                                 struct error *err) {
    item->posted_ns = post->original_posted_ns;
    return privacy_key(s->privacy, s->source, post->original_id, post->id_has_author,
                       arena, &item->key, err);
}

static enum status take_repost(const struct selection *s, const struct post *post,
                               struct arena *arena, struct result *r,
                               enum select_drop *drop, struct error *err) {
    struct words words = original_words(post);
    struct store_item *item = new_item(s, r, STORE_POST);
    if (words.text.n_bytes == 0) {
        words.text = without_repost_mark(post->text);
        words.lang = post->lang;
        words.version = 0;
    }
    *drop = SELECT_KEPT;
    enum status status = words.text.n_bytes ? judge(s, &words, post->id_has_author,
                                                    arena, item, drop, err)
                                            : name_original(s, post, arena, item, err);
    if (status != STATUS_OK || *drop != SELECT_KEPT)
        return status;
    item->fold = STORE_REPOST;
    r->n++;
    return privacy_key(s->privacy, s->source, post->native_id, post->id_has_author,
                       arena, &item->fold_key, err);
}

/* The quoted post: with its text where that is kept. */
static enum status take_quoted(const struct selection *s, const struct post *post,
                               struct arena *arena, struct result *r,
                               struct error *err) {
    struct words words = original_words(post);
    struct store_item *item = new_item(s, r, STORE_POST);
    enum select_drop drop = SELECT_KEPT;
    enum status status;
    if (words.text.n_bytes == 0) {
        status = name_original(s, post, arena, item, err);
    } else {
        status = judge(s, &words, post->id_has_author, arena, item, &drop, err);
    }
    if (status != STATUS_OK || drop != SELECT_KEPT)
        return status;
    item->fold = STORE_QUOTE;
    r->n++;
    return privacy_key(s->privacy, s->source, post->native_id, post->id_has_author,
                       arena, &item->fold_key, err);
}

enum status select_post(const struct selection *s, const struct post *post,
                        struct arena *arena, struct store_item out[SELECT_MAX_ITEMS],
                        size_t *n, enum select_drop *drop, struct error *err) {
    struct result r = {out, 0};
    enum status status = STATUS_OK;
    *n = 0;
    *drop = SELECT_KEPT;
    if (post->action == POST_NOTHING) {
        *drop = SELECT_NOTHING;
    } else if (post->action == POST_DELETE) {
        struct store_item *item = new_item(s, &r, STORE_DELETE);
        item->version = post->version;
        r.n = 1;
        status = privacy_key(s->privacy, s->source, post->native_id,
                             post->id_has_author, arena, &item->key, err);
    } else if (post->relation == POST_REPOST && post->original_id.n_bytes) {
        status = take_repost(s, post, arena, &r, drop, err);
    } else {
        status = take_own(s, post, arena, &r, drop, err);
        if (status == STATUS_OK && post->relation == POST_QUOTE &&
            post->original_id.n_bytes)
            status = take_quoted(s, post, arena, &r, err);
        if (r.n > 0)
            *drop = SELECT_KEPT;
    }
    *n = status == STATUS_OK ? r.n : 0;
    return status;
}
