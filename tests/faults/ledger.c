/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/ledger.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"

struct view ledger_text(int64_t n, int64_t version, char *out) {
    int length = snprintf(out, LEDGER_TEXT_BYTES, "post %" PRId64 " version %" PRId64,
                          n, version);
    int more = (int)((n * 2654435761 + version * 40503) % 97);
    more = more < 80 ? more * 3 : more * 25; /* some take a page of their own */
    for (int i = 0; i < more; i++)
        out[length++] = (char)('a' + (n + version + i) % 26);
    return view_of(out, (size_t)length);
}

__attribute__((format(printf, 3, 4))) static void
note(struct ledger_found *found, int64_t *count, const char *format, ...) {
    ++*count;
    if (found->first[0])
        return;
    va_list list;
    va_start(list, format);
    vsnprintf(found->first, sizeof found->first, format, list);
    va_end(list);
}

/* ---- What was acknowledged ---- */

static void hash_key(const char *key, char out[16]) {
    uint8_t digest[SHA256_BYTES];
    if (sha256_of(key, strlen(key), digest, NULL) != STATUS_OK)
        abort();
    memcpy(out, digest, 16);
}

/* Whether the statement, with a text or bytes as its parameter, gives a row. */
static enum status has(struct store *s, const char *sql, struct view value,
                       bool is_bytes, bool *is, struct error *err) {
    struct statement *st;
    *is = false;
    enum status status = database_prepare(store_database(s), sql, &st, err);
    if (status != STATUS_OK)
        return status;
    if (is_bytes)
        statement_bytes(st, 1, value);
    else
        statement_text(st, 1, value);
    status = statement_step(st, is, err);
    statement_reset(st);
    return status;
}

static enum status has_hash(struct store *s, const char *sql, const char *key, bool *is,
                            struct error *err) {
    char hash[16];
    hash_key(key, hash);
    return has(s, sql, view_of(hash, sizeof hash), true, is, err);
}

static enum status check_results(const struct ledger *l, struct store *s, int64_t n,
                                 int64_t post_id, struct ledger_found *found,
                                 struct error *err) {
    static const char sql[] =
        "SELECT 1 FROM results WHERE post_id = $1 AND version = $2 "
        "AND model_sha256 = $3";
    static const char *const models[] = {"m0", "m1"};
    for (int model = 0; model < 2; model++)
        for (int version = 1; version < LEDGER_VERSIONS; version++) {
            struct statement *st;
            bool is_there;
            if (!(l->posts[n].results[model] >> version & 1))
                continue;
            enum status status = database_prepare(store_database(s), sql, &st, err);
            if (status != STATUS_OK)
                return status;
            statement_integer(st, 1, post_id);
            statement_integer(st, 2, version);
            statement_text(st, 3, view_of_string(models[model]));
            status = statement_step(st, &is_there, err);
            statement_reset(st);
            if (status != STATUS_OK)
                return status;
            if (!is_there)
                note(found, &found->n_lost,
                     "no result of %s of post %" PRId64 " version %d", models[model], n,
                     version);
        }
    return STATUS_OK;
}

static enum status check_post(const struct ledger *l, struct store *s, int64_t n,
                              struct ledger_found *found, struct error *err) {
    static const char sql[] = "SELECT id, version, text FROM posts WHERE key = $1";
    static const char buried[] = "SELECT 1 FROM tombstones WHERE key_hash = $1";
    char key[32], text[LEDGER_TEXT_BYTES];
    struct statement *st;
    bool is_there, is_buried;
    int64_t id = 0;
    snprintf(key, sizeof key, "file:%" PRId64, n);
    enum status status = database_prepare(store_database(s), sql, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_text(st, 1, view_of_string(key));
    status = statement_step(st, &is_there, err);
    if (status == STATUS_OK && is_there) {
        int64_t version = statement_get_integer(st, 1);
        id = statement_get_integer(st, 0);
        if (!view_equal(statement_get_text(st, 2), ledger_text(n, version, text)))
            note(found, &found->n_corrupt, "post %" PRId64 " has another text", n);
        if (version < l->posts[n].version && l->posts[n].state == LEDGER_THERE)
            note(found, &found->n_lost, "post %" PRId64 " has an old version", n);
    }
    statement_reset(st);
    if (status != STATUS_OK)
        return status;
    if (!is_there && l->posts[n].state == LEDGER_THERE)
        note(found, &found->n_lost, "post %" PRId64 " is not there", n);
    if (is_there && l->posts[n].state == LEDGER_THERE)
        return check_results(l, s, n, id, found, err);
    if (l->posts[n].state != LEDGER_GONE)
        return STATUS_OK;
    if (is_there)
        note(found, &found->n_lost, "post %" PRId64 " is back", n);
    status = has_hash(s, buried, key, &is_buried, err);
    if (status == STATUS_OK && !is_buried)
        note(found, &found->n_lost, "post %" PRId64 " has no tombstone", n);
    return status;
}

static enum status check_lines(const struct ledger *l, struct store *s,
                               struct ledger_found *found, struct error *err) {
    static const char raw[] = "SELECT 1 FROM raw WHERE line = $1";
    static const char folds[] = "SELECT 1 FROM folds WHERE key_hash = $1";
    char text[32];
    bool is_there;
    enum status status = STATUS_OK;
    for (int64_t n = 0; status == STATUS_OK && n < LEDGER_RAW; n++) {
        if (l->raw[n] != LEDGER_THERE && l->raw[n] != LEDGER_GONE)
            continue;
        snprintf(text, sizeof text, "raw %" PRId64, n);
        status = has(s, raw, view_of_string(text), true, &is_there, err);
        if (status == STATUS_OK && is_there != (l->raw[n] == LEDGER_THERE))
            note(found, &found->n_lost, "raw line %" PRId64 " is %s", n,
                 is_there ? "back" : "not there");
    }
    for (int64_t n = 0; status == STATUS_OK && n < LEDGER_FOLDS; n++) {
        if (l->folds[n] != LEDGER_THERE)
            continue;
        snprintf(text, sizeof text, "file:r%" PRId64, n);
        status = has_hash(s, folds, text, &is_there, err);
        if (status == STATUS_OK && !is_there)
            note(found, &found->n_lost, "fold %" PRId64 " is not there", n);
    }
    return status;
}

static enum status check_cursor(const struct ledger *l, struct store *s,
                                struct ledger_found *found, struct error *err) {
    char text[64] = "0";
    enum status status = store_cursor(s, "file", text, sizeof text, err);
    if (status == STATUS_NOT_FOUND)
        status = STATUS_OK;
    int64_t cursor = strtoll(text, NULL, 10);
    if (status == STATUS_OK && (cursor < l->cursor || cursor > l->cursor_tried))
        note(found, &found->n_lost,
             "the cursor is %" PRId64 ", between %" PRId64 " and %" PRId64
             " is expected",
             cursor, l->cursor, l->cursor_tried);
    int64_t n_audit = 0;
    if (status != STATUS_OK)
        return status;
    struct error why;
    if (store_audit_check(s, &n_audit, &why) != STATUS_OK)
        note(found, &found->n_corrupt, "%s", why.message);
    else if (n_audit < l->n_audit)
        note(found, &found->n_lost, "%" PRId64 " entries of the audit of %" PRId64,
             n_audit, l->n_audit);
    return STATUS_OK;
}

/* ---- What must hold whatever was acknowledged ---- */

static const struct rule {
    const char *sql; /* counts what breaks it */
    const char *what;
} rules[] = {
    {"SELECT count(*) FROM (SELECT 1 FROM raw GROUP BY line HAVING count(*) > 1)",
     "a raw line is there twice"},
    {"SELECT count(*) FROM (SELECT 1 FROM posts NOT INDEXED GROUP BY key "
     "HAVING count(*) > 1)",
     "a post is there twice"},
    {"SELECT count(*) FROM (SELECT 1 FROM dead_letters NOT INDEXED "
     "WHERE stage = 'parse' GROUP BY source, body HAVING count(*) > 1)",
     "a dead letter is there twice"},
    {"SELECT count(*) FROM (SELECT 1 FROM results GROUP BY post_id, version, "
     "model_sha256 HAVING count(*) > 1)",
     "a result is there twice"},
    {"SELECT count(*) FROM (SELECT 1 FROM results r, queue q WHERE q.post_id = "
     "r.post_id "
     "AND q.version = r.version AND q.model IN ('', r.model_sha256) "
     "AND (q.model <> '' OR r.model_sha256 = 'm0'))",
     "a post with a result waits for it again"},
    {"SELECT count(*) FROM posts p WHERE "
     "n_reposts <> (SELECT count(*) FROM folds WHERE post_id = p.id AND kind = 1) OR "
     "n_quotes <> (SELECT count(*) FROM folds WHERE post_id = p.id AND kind = 2) OR "
     "n_duplicates <> (SELECT count(*) FROM folds WHERE post_id = p.id AND kind = 3)",
     "a post's counts are not those of its folds"},
    {"SELECT count(*) FROM posts p WHERE "
     "NOT EXISTS (SELECT 1 FROM queue WHERE post_id = p.id AND version = p.version) "
     "AND NOT EXISTS (SELECT 1 FROM results WHERE post_id = p.id "
     "AND version = p.version) "
     "AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE post_id = p.id) "
     "AND NOT EXISTS (SELECT 1 FROM audit WHERE action = 'dead_drop')",
     "nobody waits for a post that has no result"},
};

static enum status check_rules(struct store *s, struct ledger_found *found,
                               struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < sizeof rules / sizeof *rules; i++) {
        struct statement *st;
        bool has_row;
        status = database_prepare(store_database(s), rules[i].sql, &st, err);
        if (status == STATUS_OK)
            status = statement_step(st, &has_row, err);
        if (status != STATUS_OK)
            break;
        if (has_row && statement_get_integer(st, 0) > 0)
            note(found, &found->n_doubled, "%s", rules[i].what);
        statement_reset(st);
    }
    return status;
}

enum status ledger_check(const struct ledger *l, struct store *s,
                         struct ledger_found *found, struct error *err) {
    enum status status = check_rules(s, found, err);
    for (int64_t n = 0; status == STATUS_OK && n < LEDGER_POSTS; n++)
        if (l->posts[n].state != LEDGER_UNKNOWN)
            status = check_post(l, s, n, found, err);
    if (status == STATUS_OK)
        status = check_lines(l, s, found, err);
    return status == STATUS_OK ? check_cursor(l, s, found, err) : status;
}

/* ---- The file ---- */

static int see_problem(void *context, int n, char **values, char **names) {
    struct ledger_found *found = context;
    (void)names;
    if (n > 0 && values[0] && strcmp(values[0], "ok") != 0)
        note(found, &found->n_corrupt, "%s", values[0]);
    return 0;
}

void ledger_check_file(const char *path, struct ledger_found *found) {
    sqlite3 *handle = NULL;
    int code = sqlite3_open_v2(path, &handle, SQLITE_OPEN_READWRITE, NULL);
    if (!code)
        code =
            sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    if (!code)
        code = sqlite3_exec(handle, "PRAGMA integrity_check; PRAGMA foreign_key_check",
                            see_problem, found, NULL);
    if (code)
        note(found, &found->n_corrupt, "%s", sqlite3_errmsg(handle));
    sqlite3_close_v2(handle);
}

static const char *const tables[] = {
    "SELECT id, source, received_ns, line, tries FROM raw ORDER BY id",
    "SELECT id, key, version, source, mode, author, text, lang, place, city, state, "
    "country, drugs, url, posted_ns, received_ns, fingerprint, n_reposts, n_quotes, "
    "n_duplicates FROM posts ORDER BY id",
    "SELECT id, post_id, version, model, worker, lease_until_ns > 0, not_before_ns > "
    "0, "
    "tries FROM queue ORDER BY id",
    "SELECT post_id, version, model_sha256, label, n_tokens FROM results "
    "ORDER BY 1, 2, 3",
    "SELECT post_id, version, model_sha256, n, type, text, drug, begin_cp, end_cp "
    "FROM mentions ORDER BY 1, 2, 3, 4",
    "SELECT key_hash, into_hash, post_id, kind, source FROM folds ORDER BY 1",
    "SELECT key_hash FROM tombstones ORDER BY 1",
    "SELECT key_hash, version FROM seen ORDER BY 1",
    "SELECT * FROM aggregates ORDER BY 1, 2, 3, 4, 5, 6, 7",
    "SELECT source, cursor FROM cursors ORDER BY 1",
    "SELECT id, stage, source, key, post_id, version, model, tries, received_ns, "
    "reason, "
    "body FROM dead_letters ORDER BY id",
    "SELECT seq, actor, action, subject, details FROM audit ORDER BY seq",
    "SELECT id, folder, source, day, name, is_done, n_rows FROM lake_files ORDER BY id",
    "SELECT post_id, version, model_sha256, file_id FROM lake_rows ORDER BY 1, 2, 3",
    "SELECT name, seq FROM sqlite_sequence ORDER BY 1",
};

static void mix(uint64_t *digest, struct view v) {
    for (size_t i = 0; i < v.n_bytes; i++)
        *digest = (*digest ^ (unsigned char)v.data[i]) * UINT64_C(0x100000001b3);
    *digest = (*digest ^ 0x1ff) * UINT64_C(0x100000001b3);
}

enum status ledger_digest(struct store *s, uint64_t *out, struct error *err) {
    enum status status = STATUS_OK;
    *out = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; status == STATUS_OK && i < sizeof tables / sizeof *tables; i++) {
        struct statement *st;
        bool has_row = true;
        status = database_prepare(store_database(s), tables[i], &st, err);
        while (status == STATUS_OK &&
               (status = statement_step(st, &has_row, err)) == STATUS_OK && has_row)
            for (int column = 0; column < statement_n_columns(st); column++)
                mix(out, statement_get_text(st, column));
        mix(out, view_of_string(tables[i]));
    }
    return status;
}
