/* SPDX-License-Identifier: Apache-2.0 */
#include "store/lake/lake_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "store/lake/lake.h"

#define HASH_DIGITS 12
#define DAY_NS (INT64_C(86400) * CLOCK_NS_PER_SECOND)
#define MAX_LINE_BYTES ((size_t)16 << 20)
#define MAX_ROW_BYTES ((size_t)64 << 20)
#define MAX_MENTIONS 65536

struct gzip {
    z_stream z;
    struct file_writer *to;
    struct sha256 hash;
    int64_t n_bytes;
    unsigned char out[16384];
};

static enum status gzip_feed(struct gzip *g, const void *data, size_t n_bytes,
                             int flush, struct error *err) {
    g->z.next_in = (z_const Bytef *)(uintptr_t)data;
    g->z.avail_in = (uInt)n_bytes; /* a line at most */
    for (;;) {
        g->z.next_out = g->out;
        g->z.avail_out = sizeof g->out;
        int code = deflate(&g->z, flush);
        if (code == Z_STREAM_ERROR)
            return error_set(err, STATUS_INTERNAL, "zlib refused its input");
        size_t n = sizeof g->out - g->z.avail_out;
        enum status status = n ? file_write(g->to, g->out, n, err) : STATUS_OK;
        if (status == STATUS_OK && n)
            status = sha256_add(&g->hash, g->out, n, err);
        if (status != STATUS_OK)
            return status;
        g->n_bytes += (int64_t)n;
        if (g->z.avail_out != 0)
            return STATUS_OK;
    }
}

/* What one pass over a file's rows gathers. */
struct pass {
    struct arena arena;
    struct buffer line;
    struct lake_mention *mentions;
    size_t n_mentions, cap_mentions;
    struct lake_row row;
    bool has_row;
    int64_t first_id, last_id, n_rows, post_id;
    struct sha256 keys; /* of what is in it: part of its name */
    struct gzip *gzip;  /* NULL: only the name is wanted */
};

static enum status pass_flush(struct pass *p, struct error *err) {
    if (!p->has_row)
        return STATUS_OK;
    p->row.mentions = p->mentions;
    p->row.n_mentions = p->n_mentions;
    buffer_clear(&p->line);
    enum status status =
        buffer_printf(&p->line, err, "%.*s@%" PRId64 "@%.*s\n", (int)p->row.key.n_bytes,
                      p->row.key.data, p->row.version, (int)p->row.model_sha256.n_bytes,
                      p->row.model_sha256.data);
    if (status == STATUS_OK)
        status = sha256_add(&p->keys, p->line.data, p->line.n_bytes, err);
    buffer_clear(&p->line);
    if (status == STATUS_OK && p->gzip)
        status = lake_row_write(&p->row, &p->line, err);
    if (status == STATUS_OK && p->gzip)
        status = gzip_feed(p->gzip, p->line.data, p->line.n_bytes, Z_NO_FLUSH, err);
    p->first_id = p->n_rows ? p->first_id : p->post_id;
    p->last_id = p->post_id;
    p->n_rows++;
    p->has_row = false;
    p->n_mentions = 0;
    arena_clear(&p->arena);
    return status;
}

static const char ROWS[] =
    "SELECT p.id, p.key, p.source, p.author, p.text, p.lang, p.city, p.state, "
    "p.country, "
    "p.place, p.drugs, p.url, r.label, r.model_name, r.model_sha256, r.dtype, r.band, "
    "p.version, p.posted_ns, p.received_ns, r.created_ns, p.n_reposts, p.n_quotes, "
    "p.n_duplicates, r.probability, r.threshold, "
    "m.type, m.text, m.drug, m.begin_cp, m.end_cp, m.score "
    "FROM lake_rows l "
    "JOIN results r ON r.post_id = l.post_id AND r.version = l.version AND "
    "r.model_sha256 = l.model_sha256 "
    "JOIN posts p ON p.id = r.post_id AND p.version = r.version "
    "LEFT JOIN mentions m ON m.post_id = r.post_id AND m.version = r.version AND "
    "m.model_sha256 = r.model_sha256 "
    "WHERE l.file_id = $1 ORDER BY l.post_id, l.version, l.model_sha256, m.n";
#define MENTION_COLUMN 26

static enum status copy_text(struct pass *p, struct statement *st, int column,
                             struct view *out, struct error *err) {
    return arena_copy(&p->arena, statement_get_text(st, column), out, err);
}

static enum status pass_begin_row(struct pass *p, struct statement *st,
                                  struct error *err) {
    struct lake_row *row = &p->row;
    struct view *const texts[] = {
        &row->key,        &row->source,       &row->author, &row->text,
        &row->lang,       &row->city,         &row->state,  &row->country,
        &row->place,      &row->drugs,        &row->url,    &row->label,
        &row->model_name, &row->model_sha256, &row->dtype,  &row->band};
    enum status status = STATUS_OK;
    int column = 1;
    p->post_id = statement_get_integer(st, 0);
    for (size_t i = 0; status == STATUS_OK && i < sizeof texts / sizeof *texts; i++)
        status = copy_text(p, st, column++, texts[i], err);
    row->version = statement_get_integer(st, column++);
    row->posted_ns = statement_get_integer(st, column++);
    row->received_ns = statement_get_integer(st, column++);
    row->created_ns = statement_get_integer(st, column++);
    row->n_reposts = statement_get_integer(st, column++);
    row->n_quotes = statement_get_integer(st, column++);
    row->n_duplicates = statement_get_integer(st, column++);
    row->probability = statement_get_real(st, column++);
    row->threshold = statement_get_real(st, column);
    p->has_row = status == STATUS_OK;
    return status;
}

static enum status pass_add_mention(struct pass *p, struct statement *st,
                                    struct error *err) {
    if (p->n_mentions == p->cap_mentions) {
        size_t cap = p->cap_mentions ? p->cap_mentions * 2 : 64;
        struct lake_mention *more =
            cap <= MAX_MENTIONS ? realloc(p->mentions, cap * sizeof *more) : NULL;
        if (!more)
            return error_set(err, STATUS_NO_MEMORY, "no memory for a post's mentions");
        p->mentions = more;
        p->cap_mentions = cap;
    }
    struct lake_mention *m = &p->mentions[p->n_mentions];
    enum status status = copy_text(p, st, MENTION_COLUMN, &m->type, err);
    if (status == STATUS_OK)
        status = copy_text(p, st, MENTION_COLUMN + 1, &m->text, err);
    if (status == STATUS_OK)
        status = copy_text(p, st, MENTION_COLUMN + 2, &m->drug, err);
    m->begin = statement_get_integer(st, MENTION_COLUMN + 3);
    m->end = statement_get_integer(st, MENTION_COLUMN + 4);
    m->score = statement_get_real(st, MENTION_COLUMN + 5);
    p->n_mentions += status == STATUS_OK;
    return status;
}

static bool is_same_row(const struct pass *p, struct statement *st) {
    return p->has_row && p->post_id == statement_get_integer(st, 0) &&
           view_equal(p->row.model_sha256, statement_get_text(st, 14));
}

/* Goes over the rows of a file once. */
static enum status pass_run(struct database *db, int64_t file_id, struct pass *p,
                            struct error *err) {
    struct statement *st = NULL;
    bool has_row = true;
    p->arena.max_bytes = MAX_ROW_BYTES;
    p->line.max_bytes = MAX_LINE_BYTES;
    enum status status = sha256_open(&p->keys, err);
    if (status == STATUS_OK)
        status = database_prepare(db, ROWS, &st, err);
    if (status != STATUS_OK)
        return status;
    statement_integer(st, 1, file_id);
    while (status == STATUS_OK &&
           (status = statement_step(st, &has_row, err)) == STATUS_OK && has_row) {
        if (!is_same_row(p, st)) {
            status = pass_flush(p, err);
            if (status == STATUS_OK)
                status = pass_begin_row(p, st, err);
        }
        if (status == STATUS_OK && !statement_is_null(st, MENTION_COLUMN))
            status = pass_add_mention(p, st, err);
    }
    statement_reset(st);
    return status == STATUS_OK ? pass_flush(p, err) : status;
}

static void pass_free(struct pass *p) {
    arena_free(&p->arena);
    buffer_free(&p->line);
    free(p->mentions);
    sha256_close(&p->keys);
}

enum status lake_file_name(struct database *db, struct lake_file *f,
                           struct error *err) {
    struct pass p = {0};
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    enum status status = pass_run(db, f->id, &p, err);
    if (status == STATUS_OK) {
        sha256_finish(&p.keys, digest);
        sha256_hex(digest, hex);
        snprintf(f->name, sizeof f->name,
                 "part-%012" PRId64 "-%012" PRId64 "-%.*s.jsonl.gz", p.first_id,
                 p.last_id, HASH_DIGITS, hex);
    }
    pass_free(&p);
    return status;
}

/* FOLDER/dt=…/source=…; makes it. A name of a source holds no '/' (stream.c). */
static enum status partition_path(const struct lake_file *f, char out[FILE_PATH_BYTES],
                                  struct error *err) {
    char day[CLOCK_UTC_BYTES];
    clock_format_utc(f->day * DAY_NS, day);
    for (int depth = 0; depth < 3; depth++) {
        int n = depth == 0 ? snprintf(out, FILE_PATH_BYTES, "%s", f->folder)
                : depth == 1
                    ? snprintf(out, FILE_PATH_BYTES, "%s/dt=%.10s", f->folder, day)
                    : snprintf(out, FILE_PATH_BYTES, "%s/dt=%.10s/source=%s", f->folder,
                               day, f->source);
        if (n < 0 || n >= FILE_PATH_BYTES)
            return error_set(err, STATUS_LIMIT, "the path of a lake file is too long");
        if (depth > 0 && mkdir(out, 0750) != 0 && errno != EEXIST)
            return error_set(err, STATUS_IO, "cannot make %s: %s", out,
                             strerror(errno));
        /* Also one that is there: who made it may have come no further. */
        file_sync_directory(out);
    }
    return STATUS_OK;
}

/* Writes the rows into the open file; the same rows give the same bytes. */
static enum status write_rows(struct database *db, const struct lake_file *f,
                              struct file_writer *to, int64_t *n_rows, int64_t *n_bytes,
                              char hex[SHA256_HEX_BYTES], struct error *err) {
    struct gzip *g = calloc(1, sizeof *g);
    struct pass p = {.gzip = g};
    uint8_t digest[SHA256_BYTES];
    if (!g)
        return error_set(err, STATUS_NO_MEMORY, "no memory for compressing");
    g->to = to;
    enum status status = sha256_open(&g->hash, err);
    /* 16 on top of the window's bits: gzip, with an empty header. */
    if (status == STATUS_OK && deflateInit2(&g->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                                            15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        status = error_set(err, STATUS_NO_MEMORY, "no memory for compressing");
    if (status == STATUS_OK)
        status = pass_run(db, f->id, &p, err);
    if (status == STATUS_OK)
        status = gzip_feed(g, "", 0, Z_FINISH, err);
    if (status == STATUS_OK) {
        sha256_finish(&g->hash, digest);
        sha256_hex(digest, hex);
    }
    *n_rows = p.n_rows;
    *n_bytes = g->n_bytes;
    deflateEnd(&g->z);
    sha256_close(&g->hash);
    pass_free(&p);
    free(g);
    return status;
}

enum status lake_file_write(struct database *db, const struct lake_file *f,
                            struct lake_written *out, struct error *err) {
    struct file_writer to = {0};
    char folder[FILE_PATH_BYTES];
    out->n_rows = out->n_bytes = 0;
    enum status status = partition_path(f, folder, err);
    if (status == STATUS_OK)
        status = file_path(out->path, folder, f->name, err);
    if (status == STATUS_OK) {
        /* They may hold what is erased now. */
        file_remove_leftovers(out->path, true);
        status = file_create(out->path, &to, err);
    }
    if (status == STATUS_OK)
        status = write_rows(db, f, &to, &out->n_rows, &out->n_bytes, out->sha256, err);
    if (status == STATUS_OK && out->n_rows)
        status = file_commit(&to, err);
    file_abort(&to);
    return status;
}
