/* SPDX-License-Identifier: Apache-2.0
 *
 * x_api.c - requests to X's API: OAuth 2, rules, recent search.
 */
#include "client/sources/x_api.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/json.h"

#define MAX_URL_BYTES ((size_t)8192)
#define MAX_BODY_BYTES ((size_t)4 << 20)
#define RULES_AT_ONCE 100
#define MAX_PAGES 100

const char x_api_fields[] =
    "tweet.fields=author_id,created_at,edit_history_tweet_ids,geo,lang,note_tweet,"
    "referenced_tweets&expansions=author_id,geo.place_id,referenced_tweets.id,"
    "referenced_tweets.id.author_id&user.fields=location,username"
    "&place.fields=country_code,full_name";

static const struct json_limits limits = {.max_bytes = (size_t)1 << 20,
                                          .max_depth = 16,
                                          .max_values = 4096,
                                          .max_key_bytes = 256};

/* ---- Answers ---- */

/* A short word from the answer for people ("ConnectionException"); never more than a title. */
static void title_of(const struct fetch_answer *answer, char out[64]) {
    json_t *root = NULL;
    out[0] = 0;
    if (answer->body.n_bytes == 0 || json_parse(answer->body.data, answer->body.n_bytes,
                                                &limits, &root, NULL) != STATUS_OK)
        return;
    const json_t *title = json_object_get(root, "title");
    if (!title)
        title = json_object_get(json_array_get(json_object_get(root, "errors"), 0),
                                "title");
    const char *text = json_is_string(title) ? json_string_value(title) : "";
    size_t n = 0;
    for (; n < 63 && text[n] >= ' ' && text[n] <= '~'; n++)
        out[n] = text[n];
    out[n] = 0;
    json_decref(root);
}

void x_api_judge(const struct fetch_answer *answer, const char *what,
                 struct x_outcome *out, struct error *err) {
    char title[64];
    *out = (struct x_outcome){.code = answer->code,
                              .reset_s = answer->rate_reset_s,
                              .retry_after_ns = answer->retry_after_ns,
                              .failure = X_HTTP_ERROR};
    if (answer->failure != FETCH_ANSWERED) {
        if (answer->failure != FETCH_TOO_LARGE)
            out->failure = X_NETWORK;
        out->is_refused = answer->is_certificate_bad;
        error_prefix(err, "%s", what);
        return;
    }
    if (answer->code >= 200 && answer->code < 300) {
        out->is_done = true;
        return;
    }
    title_of(answer, title);
    if (answer->code == 429)
        out->failure = strstr(title, "ConnectionException") ||
                               (answer->body.data &&
                                strstr(answer->body.data, "TooManyConnections"))
                           ? X_TOO_MANY_CONNECTIONS
                           : X_RATE_LIMIT;
    else
        out->is_refused =
            answer->code >= 300 && answer->code < 500 && answer->code != 408;
    error_set(err, out->is_refused ? STATUS_INVALID : STATUS_IO,
              "%s: the server answered %d%s%s", what, answer->code, *title ? " " : "",
              title);
}

static enum status append_escaped(struct buffer *b, const char *text,
                                  struct error *err) {
    enum status status = STATUS_OK;
    for (; status == STATUS_OK && *text; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
            c == '-' || c == '_' || c == '.' || c == '~')
            status = buffer_append(b, text, 1, err);
        else
            status = buffer_printf(b, err, "%%%02X", c);
    }
    return status;
}

/* ---- The token ---- */

/* Reads the token out of the answer; the answer is wiped by the caller. */
static enum status read_token(const struct fetch_answer *answer, char **out,
                              struct error *err) {
    json_t *root = NULL;
    enum status status =
        json_parse(answer->body.data, answer->body.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return error_prefix(err, "token");
    const json_t *type = json_object_get(root, "token_type");
    json_t *token = json_object_get(root, "access_token");
    if (!json_is_string(token) ||
        (json_is_string(type) && strcasecmp(json_string_value(type), "bearer") != 0))
        status = error_set(err, STATUS_INVALID, "token: expected a bearer token");
    else
        status = fetch_secret_of(
            view_of(json_string_value(token), json_string_length(token)), out, err);
    if (json_is_string(token))
        explicit_bzero((char *)(uintptr_t)json_string_value(token),
                       json_string_length(token));
    json_decref(root);
    return status;
}

enum status x_api_token(struct x_api *api, const char *key, char **out,
                        struct x_outcome *outcome, struct error *err) {
    struct buffer url = {.max_bytes = MAX_URL_BYTES};
    struct fetch_answer answer = {0};
    *out = NULL;
    enum status status = buffer_printf(&url, err, "%s/oauth2/token", api->base);
    struct fetch_request request = {
        .method = "POST",
        .url = url.data,
        .content_type = "application/x-www-form-urlencoded;charset=UTF-8",
        .body = VIEW("grant_type=client_credentials"),
        .basic = key,
        .timeout_ns = api->timeout_ns,
        .max_answer_bytes = 65536};
    if (status == STATUS_OK)
        status = fetch_run(api->fetch, &request, &answer, err);
    if (status == STATUS_OK)
        x_api_judge(&answer, "token", outcome, err);
    if (status == STATUS_OK && outcome->is_done)
        status = read_token(&answer, out, err);
    if (answer.body.data)
        explicit_bzero(answer.body.data, answer.body.cap_bytes);
    buffer_free(&answer.body);
    buffer_free(&url);
    return status;
}

/* ---- Rules ---- */

static enum status ask_rules(struct x_api *api, const char *query, struct view body,
                             struct fetch_answer *answer, struct x_outcome *outcome,
                             struct error *err) {
    struct buffer url = {.max_bytes = MAX_URL_BYTES};
    enum status status =
        buffer_printf(&url, err, "%s/2/tweets/search/stream/rules%s", api->base, query);
    struct fetch_request request = {.method = body.n_bytes ? "POST" : "GET",
                                    .url = url.data,
                                    .content_type =
                                        body.n_bytes ? "application/json" : NULL,
                                    .body = body,
                                    .bearer = api->token,
                                    .timeout_ns = api->timeout_ns};
    if (status == STATUS_OK)
        status = fetch_run(api->fetch, &request, answer, err);
    if (status == STATUS_OK)
        x_api_judge(answer, "rules", outcome, err);
    buffer_free(&url);
    return status;
}

static enum status list_rules(struct x_api *api, struct x_rules *have,
                              struct x_outcome *outcome, struct error *err) {
    char *next = NULL;
    enum status status = STATUS_OK;
    for (int page = 0; status == STATUS_OK && page < MAX_PAGES; page++) {
        struct fetch_answer answer = {0};
        struct buffer query = {.max_bytes = MAX_URL_BYTES};
        status = buffer_printf(&query, err, next ? "?pagination_token=" : "");
        if (status == STATUS_OK && next)
            status = append_escaped(&query, next, err);
        if (status == STATUS_OK)
            status = ask_rules(api, query.data ? query.data : "", view_of(NULL, 0),
                               &answer, outcome, err);
        free(next);
        next = NULL;
        if (status == STATUS_OK && outcome->is_done) {
            status = x_rules_parse(view_of(answer.body.data, answer.body.n_bytes), have,
                                   &next, err);
            if (status != STATUS_OK)
                error_prefix(err, "rules");
        }
        buffer_free(&answer.body);
        buffer_free(&query);
        if (!next)
            break;
    }
    free(next);
    return status;
}

/* Adds or deletes all of them, a hundred at a time. */
static enum status change_rules(struct x_api *api, const struct x_rules *rules,
                                bool adds, bool is_dry_run, struct x_outcome *outcome,
                                struct error *err) {
    enum status status = STATUS_OK;
    outcome->is_done = true;
    for (size_t i = 0; status == STATUS_OK && outcome->is_done && i < rules->n;
         i += RULES_AT_ONCE) {
        struct fetch_answer answer = {0};
        struct buffer body = {.max_bytes = MAX_BODY_BYTES};
        status = x_rules_body(rules, adds, i, RULES_AT_ONCE, &body, err);
        if (status == STATUS_OK)
            status = ask_rules(api, is_dry_run ? "?dry_run=true" : "",
                               view_of(body.data, body.n_bytes), &answer, outcome, err);
        /* The reasons for a refusal come with 400, or with 200 and errors beside. */
        if (status == STATUS_OK && adds && answer.failure == FETCH_ANSWERED &&
            (outcome->is_done || answer.code == 400) && answer.body.n_bytes > 0)
            status = x_rules_check(view_of(answer.body.data, answer.body.n_bytes), err);
        buffer_free(&answer.body);
        buffer_free(&body);
    }
    return status;
}

enum status x_api_reconcile(struct x_api *api, const struct x_rules *want,
                            bool keeps_other, size_t max_rules, size_t *n_changed,
                            struct x_outcome *outcome, struct error *err) {
    struct x_rules have = {0}, missing = {0}, surplus = {0};
    *n_changed = 0;
    enum status status = list_rules(api, &have, outcome, err);
    if (status != STATUS_OK || !outcome->is_done)
        goto out;
    status = x_rules_compare(want, &have, keeps_other, &missing, &surplus, err);
    if (status == STATUS_OK && have.n - surplus.n + missing.n > max_rules)
        status = error_set(err, STATUS_LIMIT,
                           "rules: %zu of ours and %zu of others are more than %zu",
                           missing.n, have.n - surplus.n, max_rules);
    /* What would be refused is found out before anything is deleted. */
    if (status == STATUS_OK && missing.n > 0)
        status = change_rules(api, &missing, true, true, outcome, err);
    if (status == STATUS_OK && outcome->is_done && surplus.n > 0)
        status = change_rules(api, &surplus, false, false, outcome, err);
    if (status == STATUS_OK && outcome->is_done && missing.n > 0)
        status = change_rules(api, &missing, true, false, outcome, err);
    *n_changed = missing.n + surplus.n;
out:
    x_rules_free(&have);
    x_rules_free(&missing);
    x_rules_free(&surplus);
    return status;
}

/* ---- Search ---- */

enum status x_api_search(struct x_api *api, const char *query, uint64_t since_id,
                         char **next, struct buffer *lines, struct x_outcome *outcome,
                         struct error *err) {
    struct buffer url = {.max_bytes = MAX_URL_BYTES};
    struct fetch_answer answer = {0};
    enum status status =
        buffer_printf(&url, err,
                      "%s/2/tweets/search/recent?%s&max_results=100"
                      "&sort_order=recency&since_id=%llu&query=",
                      api->base, x_api_fields, (unsigned long long)since_id);
    if (status == STATUS_OK)
        status = append_escaped(&url, query, err);
    if (status == STATUS_OK && *next)
        status = buffer_printf(&url, err, "&next_token=");
    if (status == STATUS_OK && *next)
        status = append_escaped(&url, *next, err);
    struct fetch_request request = {.method = "GET",
                                    .url = url.data,
                                    .bearer = api->token,
                                    .timeout_ns = api->timeout_ns};
    if (status == STATUS_OK)
        status = fetch_run(api->fetch, &request, &answer, err);
    if (status == STATUS_OK)
        x_api_judge(&answer, "search", outcome, err);
    if (status == STATUS_OK && outcome->is_done) {
        free(*next);
        *next = NULL;
        status = x_search_split(view_of(answer.body.data, answer.body.n_bytes), lines,
                                next, err);
        if (status != STATUS_OK)
            error_prefix(err, "search");
    }
    buffer_free(&answer.body);
    buffer_free(&url);
    return status;
}
