/* SPDX-License-Identifier: Apache-2.0
 *
 * x_api.h - X's API beside the stream: the token, the rules, the search. Each call asks once
 * or a few times and says what came of it; when to try again is the caller's (x_backoff.h).
 *
 * Threads: one.
 */
#ifndef VIGIL_CLIENT_SOURCES_X_API_H
#define VIGIL_CLIENT_SOURCES_X_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "client/net/fetch.h"
#include "client/sources/x_backoff.h"
#include "client/sources/x_rules.h"

#define X_API_SEARCH_BYTES 512 /* longest query of the recent search */

struct x_api {
    struct fetch *fetch;
    const char *base;   /* "https://api.x.com" */
    const char *token;  /* NULL until there is one */
    int64_t timeout_ns; /* of a request */
};

struct x_outcome {
    bool is_done;
    bool is_refused; /* not done, and the same again would be no better: 400, 401, … */
    enum x_failure failure;
    int code;
    int64_t reset_s, retry_after_ns;
};

/* What an answer means; *err gets a reason when it is not done. Any API with X's codes. */
void x_api_judge(const struct fetch_answer *answer, const char *what,
                 struct x_outcome *out, struct error *err);

/* Of all below: STATUS_OK when *outcome says what came of it (the reason in *err unless it
 * is done); STATUS_CANCELLED, STATUS_NO_MEMORY, STATUS_INVALID: an answer nobody can use,
 * rules that were refused. */

/* A bearer token for "key:secret" (OAuth 2, client credentials), to be freed with
 * fetch_secret_free. */
enum status x_api_token(struct x_api *api, const char *key, char **out,
                        struct x_outcome *outcome, struct error *err);

/* Lists the rules, tries what is missing with dry_run, deletes and adds. *n_changed: how
 * many were deleted and added. */
enum status x_api_reconcile(struct x_api *api, const struct x_rules *want,
                            bool keeps_other, size_t max_rules, size_t *n_changed,
                            struct x_outcome *outcome, struct error *err);

/* A page of the recent search, as lines like the stream's, one a post, each with '\n', added
 * to *lines. *next (the page's token, NULL: the first) is freed and set anew. */
enum status x_api_search(struct x_api *api, const char *query, uint64_t since_id,
                         char **next, struct buffer *lines, struct x_outcome *outcome,
                         struct error *err);

/* Puts each post of a search's answer on a line of its own, with what it needs of
 * includes. */
enum status x_search_split(struct view body, struct buffer *lines, char **next,
                           struct error *err);

/* The fields and expansions that we ask for, as a part of a query. */
extern const char x_api_fields[];

#endif
