/* SPDX-License-Identifier: Apache-2.0
 *
 * counts.c - what becomes of posts of aggregate mode: numbers by day, source, drug, label,
 * language and place, and a hash of the key so that none counts twice.
 *
 * A fold that comes while its post waits is counted with it. One that comes later counts
 * under the label '': which one its post had is not kept with anything of the post.
 */
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "store/store_private.h"

#define MAX_DRUGS_BYTES ((size_t)256 << 10)
#define MAX_DRUGS_VALUES 16384

enum status store_watched(struct store *s, struct view drugs, struct store_watch **out,
                          size_t *n, struct error *err) {
    static const struct json_limits limits = {.max_bytes = MAX_DRUGS_BYTES,
                                              .max_depth = 3,
                                              .max_values = MAX_DRUGS_VALUES,
                                              .max_key_bytes = 64};
    *out = NULL;
    *n = 0;
    json_t *root = NULL;
    if (drugs.n_bytes <= 2) /* "[]" */
        return STATUS_OK;
    enum status status = json_parse(drugs.data, drugs.n_bytes, &limits, &root, NULL);
    if (status == STATUS_NO_MEMORY)
        return error_set(err, status, "no memory for the drugs of a post");
    size_t n_bytes, n_all = status == STATUS_OK ? json_array_size(root) : 0;
    if (n_all > 0 && (!size_multiply(n_all, sizeof **out, &n_bytes) ||
                      !(*out = arena_take(&s->arena, n_bytes)))) {
        json_decref(root);
        return error_set(err, STATUS_NO_MEMORY, "no memory for the drugs of a post");
    }
    status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < n_all; i++) {
        const json_t *entry = json_array_get(root, i);
        const json_t *drug = json_object_get(entry, "drug");
        const json_t *name = json_object_get(entry, "name");
        if (!json_is_string(drug))
            continue;
        struct store_watch *w = &(*out)[*n];
        *w = (struct store_watch){
            .begin = json_integer_value(json_object_get(entry, "begin")),
            .end = json_integer_value(json_object_get(entry, "end"))};
        status = arena_copy(&s->arena,
                            view_of(json_string_value(drug), json_string_length(drug)),
                            &w->drug, err);
        if (status == STATUS_OK && json_is_string(name))
            status = arena_copy(
                &s->arena, view_of(json_string_value(name), json_string_length(name)),
                &w->name, err);
        *n += 1;
    }
    json_decref(root);
    return status;
}

static int by_drug(const void *a, const void *b) {
    const struct view *x = &((const struct store_watch *)a)->drug;
    const struct view *y = &((const struct store_watch *)b)->drug;
    size_t n = x->n_bytes < y->n_bytes ? x->n_bytes : y->n_bytes;
    int order = n > 0 ? memcmp(x->data, y->data, n) : 0;
    return order != 0 ? order : (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* "2026-11-26" */
static void day_of(int64_t at_ns, char out[11]) {
    char utc[CLOCK_UTC_BYTES];
    clock_format_utc(at_ns, utc);
    memcpy(out, utc, 10);
    out[10] = 0;
}

static enum status add(struct store *s, const struct store_cell *cell, struct view drug,
                       struct error *err) {
    static const char sql[] =
        "INSERT INTO aggregates AS a (day, source, drug, label, lang, country, state, "
        "n_posts, n_reposts, n_quotes, n_duplicates) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) "
        "ON CONFLICT (day, source, drug, label, lang, country, state) DO UPDATE SET "
        "n_posts = a.n_posts + excluded.n_posts, "
        "n_reposts = a.n_reposts + excluded.n_reposts, "
        "n_quotes = a.n_quotes + excluded.n_quotes, "
        "n_duplicates = a.n_duplicates + excluded.n_duplicates";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    char day[11];
    day_of(cell->at_ns, day);
    statement_text(st, 1, view_of_string(day));
    statement_text(st, 2, cell->source);
    statement_text(st, 3, drug);
    statement_text(st, 4, view_of_string(cell->label));
    statement_text(st, 5, cell->lang);
    statement_text(st, 6, cell->country);
    statement_text(st, 7, cell->state);
    statement_integer(st, 8, cell->n_posts);
    statement_integer(st, 9, cell->n_reposts);
    statement_integer(st, 10, cell->n_quotes);
    statement_integer(st, 11, cell->n_duplicates);
    return statement_send(st, err);
}

enum status store_count(struct store *s, const struct store_cell *cell,
                        struct error *err) {
    struct store_watch *watched;
    size_t n;
    enum status status = store_watched(s, cell->drugs, &watched, &n, err);
    if (status != STATUS_OK)
        return status;
    if (n == 0)
        return add(s, cell, VIEW(""), err);
    qsort(watched, n, sizeof *watched, by_drug);
    for (size_t i = 0; status == STATUS_OK && i < n; i++)
        if (i == 0 || !view_equal(watched[i].drug, watched[i - 1].drug))
            status = add(s, cell, watched[i].drug, err);
    return status;
}

enum status store_see(struct store *s, struct view key, int64_t version,
                      struct error *err) {
    static const char sql[] =
        "INSERT INTO seen (key_hash, version, created_ns) VALUES ($1, $2, $3) "
        "ON CONFLICT (key_hash) DO NOTHING";
    struct store_hash hash;
    struct statement *st;
    enum status status = store_hash_of(s, key, &hash, err);
    if (status == STATUS_OK)
        status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    store_hash(st, 1, &hash);
    statement_integer(st, 2, version);
    statement_integer(st, 3, clock_wall_ns());
    return statement_send(st, err);
}

enum status store_count_post(struct store *s, int64_t id, const char *label,
                             struct error *err) {
    static const char sql[] =
        "SELECT key, version, source, lang, country, state, drugs, posted_ns, "
        "received_ns, n_reposts, n_quotes, n_duplicates FROM posts WHERE id = $1";
    struct statement *st;
    enum status status = database_prepare(s->db, sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, id);
    bool has_row;
    struct store_cell cell = {.label = label, .n_posts = 1};
    struct view key;
    int64_t version = 0;
    status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row) {
        struct view *texts[] = {&cell.source, &cell.lang, &cell.country, &cell.state,
                                &cell.drugs};
        status = arena_copy(&s->arena, statement_get_text(st, 0), &key, err);
        for (int i = 0; status == STATUS_OK && i < 5; i++)
            status =
                arena_copy(&s->arena, statement_get_text(st, i + 2), texts[i], err);
        version = statement_get_integer(st, 1);
        int64_t posted_ns = statement_get_integer(st, 7);
        cell.at_ns = posted_ns ? posted_ns : statement_get_integer(st, 8);
        cell.n_reposts = statement_get_integer(st, 9);
        cell.n_quotes = statement_get_integer(st, 10);
        cell.n_duplicates = statement_get_integer(st, 11);
    }
    statement_reset(st);
    if (status != STATUS_OK || !has_row)
        return status;
    struct store_erased n = {0};
    status = store_count(s, &cell, err);
    if (status == STATUS_OK)
        status = store_see(s, key, version, err);
    if (status == STATUS_OK)
        status = store_remove_dead(s, key, &n.n_dead, err);
    return status == STATUS_OK ? store_remove(s, id, &n, err) : status;
}
