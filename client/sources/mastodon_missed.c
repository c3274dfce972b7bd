/* SPDX-License-Identifier: Apache-2.0
 *
 * mastodon_missed.c - pages of a timeline. Their JSON is read on the reader's thread, as that
 * of X's search is: a page comes once in a gap, not with each post.
 */
#include "client/sources/mastodon_missed.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "client/sources/mastodon_post.h"
#include "client/sources/x_post.h"

#define MAX_URL_BYTES ((size_t)4096)
#define MAX_PAGE_BYTES ((size_t)8 << 20)
#define FIRST_DATED_ID (UINT64_C(1) << 40)
#define ID_SHIFT 16
#define OVERLAP_MS UINT64_C(60000)

static const struct json_limits limits = {.max_bytes = MAX_PAGE_BYTES,
                                          .max_depth = 32,
                                          .max_values = 262144,
                                          .max_key_bytes = 1024};

void mastodon_missed_open(struct mastodon_missed *m, uint64_t safe_id,
                          int64_t not_before_ns) {
    uint64_t overlap = safe_id >= FIRST_DATED_ID ? OVERLAP_MS << ID_SHIFT : 0;
    *m = (struct mastodon_missed){.is_open = safe_id > 0,
                                  .since_id = safe_id > overlap ? safe_id - overlap : 0,
                                  .not_before_ns = not_before_ns};
}

struct page {
    const json_t *root;
    struct buffer *lines;
    size_t n;
    uint64_t newest_id;
};

static int append(const char *data, size_t n_bytes, void *context) {
    return buffer_append(context, data, n_bytes, NULL) == STATUS_OK ? 0 : -1;
}

static bool put(struct buffer *out, const char *text) {
    return append(text, strlen(text), out) == 0;
}

/* A status as the line that mastodon_line makes of the stream's. */
static enum status put_status(struct page *p, const json_t *one, struct error *err) {
    size_t begin = p->lines->n_bytes;
    bool ok = put(p->lines, "{\"event\":\"update\",\"payload\":") &&
              json_dump_callback(one, append, p->lines, JSON_COMPACT) == 0 &&
              put(p->lines, "}\n");
    if (!ok)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a page of a timeline");
    uint64_t id = x_scan_id(view_of(p->lines->data + begin, p->lines->n_bytes - begin),
                            MASTODON_LINE_HOLDER);
    p->newest_id = id > p->newest_id ? id : p->newest_id;
    p->n++;
    return STATUS_OK;
}

/* The oldest first, as they came: a page has the newest first. */
static enum status put_all(void *context, struct error *err) {
    struct page *p = context;
    enum status status = STATUS_OK;
    for (size_t i = json_array_size(p->root); status == STATUS_OK && i-- > 0;)
        if (json_is_object(json_array_get(p->root, i)))
            status = put_status(p, json_array_get(p->root, i), err);
    return status;
}

static enum status read_page(struct mastodon_missed *m, struct view body,
                             struct buffer *lines, struct error *err) {
    json_t *root = NULL;
    enum status status = json_parse(body.data, body.n_bytes, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    struct page p = {.root = root, .lines = lines};
    status = json_is_array(root)
                 ? json_guard(put_all, &p, err)
                 : error_set(err, STATUS_INVALID, "expected a list of statuses");
    json_decref(root);
    m->n_pages++;
    m->is_open = p.n > 0 && p.newest_id > m->since_id;
    if (m->is_open)
        m->since_id = p.newest_id;
    return status;
}

enum status mastodon_missed_page(struct mastodon_missed *m, struct fetch *fetch,
                                 const char *base, const char *timeline,
                                 const char *token, int64_t timeout_ns,
                                 struct buffer *lines, struct x_outcome *outcome,
                                 struct error *err) {
    struct buffer url = {.max_bytes = MAX_URL_BYTES};
    struct fetch_answer answer = {0};
    enum status status =
        buffer_printf(&url, err, "%s/api/v1/timelines/%slimit=40&min_id=%" PRIu64, base,
                      timeline, m->since_id);
    struct fetch_request request = {.method = "GET",
                                    .url = url.data,
                                    .bearer = token,
                                    .accept = "application/json",
                                    .timeout_ns = timeout_ns,
                                    .max_answer_bytes = MAX_PAGE_BYTES};
    if (status == STATUS_OK)
        status = fetch_run(fetch, &request, &answer, err);
    if (status == STATUS_OK)
        x_api_judge(&answer, "mastodon: timeline", outcome, err);
    if (status == STATUS_OK && outcome->is_done)
        status =
            read_page(m, view_of(answer.body.data, answer.body.n_bytes), lines, err);
    buffer_free(&answer.body);
    buffer_free(&url);
    return status;
}
