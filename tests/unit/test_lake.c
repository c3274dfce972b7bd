/* SPDX-License-Identifier: Apache-2.0
 *
 * test_lake.c - lake files: what is in them, that a result is in one, whatever is cut off when,
 * and that what was erased is in none.
 */
#include <dirent.h>
#include <unistd.h>
#include <zlib.h>

#include "base/json.h"
#include "base/memory.h"
#include "store/lake/lake.h"
#include "tests/unit/store_fixture.h"

#define DAY "2026-11-26"

struct lake {
    char *dir;
    struct lake_counts counts;
    char files[16][512];
    size_t n_files;
};

static void on_file(void *context, const char *path, int64_t n_rows) {
    struct lake *l = context;
    assert_true(n_rows > 0);
    assert_true(l->n_files < 16);
    snprintf(l->files[l->n_files++], sizeof l->files[0], "%s", path);
}

static void export_all(struct fixture *f, struct lake *l, int64_t max_rows) {
    const struct lake_options options = {.folder = l->dir, .max_rows = max_rows};
    l->n_files = 0;
    memset(&l->counts, 0, sizeof l->counts);
    assert_ok(lake_export(store_database(f->store), &options, &l->counts, on_file, l,
                          &error));
}

/* A file's lines; the caller frees. */
static char *read_lines(const char *path, size_t *n_lines) {
    struct buffer b = {.max_bytes = 1 << 24};
    char piece[4096];
    gzFile file = gzopen(path, "rb");
    assert_non_null(file);
    int n;
    while ((n = gzread(file, piece, sizeof piece)) > 0)
        assert_ok(buffer_append(&b, piece, (size_t)n, &error));
    assert_int_equal(n, 0);
    gzclose(file);
    *n_lines = 0;
    for (size_t i = 0; i < b.n_bytes; i++)
        *n_lines += b.data[i] == '\n';
    return b.data;
}

static json_t *first_row(const char *path) {
    static const struct json_limits limits = {1 << 20, 8, 1000, 64};
    size_t n_lines;
    char *lines = read_lines(path, &n_lines);
    json_t *row = NULL;
    assert_true(n_lines > 0);
    assert_ok(json_parse(lines, (size_t)(strchr(lines, '\n') - lines), &limits, &row,
                         &error));
    free(lines);
    return row;
}

static int64_t rows_in_all(const struct lake *l) {
    int64_t n_rows = 0;
    for (size_t i = 0; i < l->n_files; i++) {
        size_t n;
        free(read_lines(l->files[i], &n));
        n_rows += (int64_t)n;
    }
    return n_rows;
}

static void post_and_settle(struct fixture *f, const char *key, const char *text) {
    take_one(f, an_item(key, 1, text));
    assert_int_equal(settle_all(f), 1);
}

static void test_row(void **state) {
    struct fixture *f = *state;
    struct lake l = {.dir = scratch_make()};
    struct store_item item = an_item("file:17", 1, "my Drugex gave me \"a\" rash\n");
    struct store_claim c;
    item.city = VIEW("Fresno");
    item.place = VIEW("Fresno, CA");
    take_one(f, item);
    assert_int_equal(claim(f, "w", LONG_NS, &c, 1), 1);
    const struct store_mention mentions[] = {
        {"ADE", VIEW("itch"), VIEW(""), 0, 4, 0.5},
        {"ADE", VIEW("rash"), VIEW(""), 21, 25, 0.75}};
    struct store_outcome o = an_outcome(&c, STORE_DONE);
    o.mentions = mentions;
    o.n_mentions = 2;
    settle(f, "w", &o, 1);
    export_all(f, &l, 0);
    assert_int_equal(l.counts.n_files, 1);
    assert_int_equal(l.counts.n_rows, 1);
    assert_non_null(strstr(l.files[0], "/dt=" DAY "/source=file/part-"));
    json_t *row = first_row(l.files[0]);
    static const struct {
        const char *name, *value;
    } texts[] = {{"id", "17"},
                 {"text", "my Drugex gave me \"a\" rash\n"},
                 {"pred_label", "Adverse_Event"},
                 {"user_id", "author-hash"},
                 {"timestamp", DAY " 12:00:00"},
                 {"user_city", "Fresno"},
                 {"user_state", "California"},
                 {"user_location", ""},
                 {"drug_mentions", "drugex"},
                 {"ae_type", "rash"},
                 {"key", "file:17"},
                 {"received_at", DAY " 12:00:05"},
                 {"state", "US-CA"},
                 {"band", "positive"},
                 {"model_sha256", "aa"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(json_string_value(json_object_get(row, texts[i].name)),
                            texts[i].value);
    assert_float_equal(json_real_value(json_object_get(row, "pred_prob")), 0.9, 1e-6);
    assert_int_equal(json_array_size(json_object_get(row, "icd_codes")), 0);
    /* The model's two and the watch list's one. */
    assert_int_equal(json_array_size(json_object_get(row, "mentions")), 3);
    /* Every column that the statements name is there, and no other. */
    assert_int_equal(json_object_size(row), lake_n_columns);
    for (size_t i = 0; i < lake_n_columns; i++)
        assert_non_null(json_object_get(row, lake_columns[i].name));
    json_decref(row);
    scratch_remove(l.dir);
}

static void test_each_once(void **state) {
    struct fixture *f = *state;
    struct lake l = {.dir = scratch_make()};
    char key[32];
    for (int i = 0; i < 7; i++) {
        snprintf(key, sizeof key, "file:%d", i);
        take_one(f, an_item(key, 1, "text"));
    }
    struct store_item old = an_item("file:old", 1, "text");
    old.posted_ns -= 86400 * SECOND_NS;
    take_one(f, old);
    assert_int_equal(settle_all(f), 8);
    export_all(f, &l, 3);
    assert_int_equal(l.counts.n_rows, 8);
    assert_int_equal(l.counts.n_files, 4); /* 3 + 3 + 1, and another day */
    assert_int_equal(rows_in_all(&l), 8);
    export_all(f, &l, 3);
    assert_int_equal(l.counts.n_rows, 0);
    post_and_settle(f, "file:new", "text");
    export_all(f, &l, 3);
    assert_int_equal(l.counts.n_rows, 1);
    scratch_remove(l.dir);
}

/* Cut off before the file was there, and behind that: the same name, nothing twice. */
static void test_cut_off(void **state) {
    struct fixture *f = *state;
    struct lake l = {.dir = scratch_make()};
    char path[512];
    size_t n;
    post_and_settle(f, "file:1", "text");
    export_all(f, &l, 0);
    snprintf(path, sizeof path, "%s", l.files[0]);
    char *before = read_lines(path, &n);
    fixture_run(f->store, "UPDATE lake_files SET is_done = 0");
    assert_int_equal(unlink(path), 0);
    export_all(f, &l, 0);
    assert_int_equal(l.counts.n_rows, 0);
    assert_int_equal(l.counts.n_refreshed, 1);
    char *after = read_lines(path, &n);
    assert_string_equal(before, after);
    assert_int_equal(number(f, "SELECT is_done FROM lake_files"), 1);
    free(before);
    free(after);
    scratch_remove(l.dir);
}

static void test_erased(void **state) {
    struct fixture *f = *state;
    struct lake l = {.dir = scratch_make()};
    struct lake_counts counts = {0};
    size_t n;
    post_and_settle(f, "file:1", "text of one");
    post_and_settle(f, "file:2", "text of two");
    export_all(f, &l, 0);
    take_one(f, a_delete("file:1"));
    assert_ok(lake_refresh(store_database(f->store), &counts, &error));
    assert_int_equal(counts.n_refreshed, 1);
    char *lines = read_lines(l.files[0], &n);
    assert_int_equal(n, 1);
    assert_null(strstr(lines, "text of one"));
    free(lines);
    take_one(f, a_delete("file:2"));
    assert_ok(lake_refresh(store_database(f->store), &counts, &error));
    assert_int_equal(counts.n_removed, 1);
    assert_int_not_equal(access(l.files[0], F_OK), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM lake_files"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM lake_rows"), 0);
    assert_ok(lake_refresh(store_database(f->store), &counts, &error));
    assert_int_equal(counts.n_refreshed + counts.n_removed, 2);
    scratch_remove(l.dir);
}

/* An edited post leaves its old file, and comes into a new one with its new result. */
static void test_newer_version(void **state) {
    struct fixture *f = *state;
    struct lake l = {.dir = scratch_make()};
    post_and_settle(f, "file:1", "first words");
    export_all(f, &l, 0);
    take_one(f, an_item("file:1", 2, "second words"));
    assert_int_equal(settle_all(f), 1);
    export_all(f, &l, 0);
    assert_int_equal(l.counts.n_removed, 1);
    assert_int_equal(l.counts.n_rows, 1);
    json_t *row = first_row(l.files[0]);
    assert_string_equal(json_string_value(json_object_get(row, "text")),
                        "second words");
    assert_int_equal(json_integer_value(json_object_get(row, "version")), 2);
    json_decref(row);
    scratch_remove(l.dir);
}

/* A folder on another machine: its files stay stale, and that is said. */
static void test_folder_is_away(void **state) {
    struct fixture *f = *state;
    struct lake l = {.dir = scratch_make()};
    struct lake_counts counts = {0};
    post_and_settle(f, "file:1", "text");
    export_all(f, &l, 0);
    scratch_remove(l.dir);
    take_one(f, a_delete("file:1"));
    assert_int_equal(lake_refresh(store_database(f->store), &counts, &error),
                     STATUS_NOT_FOUND);
    assert_int_equal(number(f, "SELECT count(*) FROM lake_rows"), 1);
}

static void test_statements(void **state) {
    static const char *const engines[] = {"athena", "duckdb", "trino", "clickhouse"};
    static const char *const sources[] = {"x", "bsky"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct buffer b = {.max_bytes = 1 << 20};
        assert_ok(lake_statements(engines[i], "events", "s3://bucket/it's/", sources, 2,
                                  &b, &error));
        for (size_t c = 0; c < lake_n_columns; c++)
            assert_non_null(strstr(b.data, lake_columns[c].name));
        assert_null(strstr(b.data, "it's/dt"));
        assert_non_null(strstr(b.data, "bucket/it''s"));
        buffer_free(&b);
    }
    assert_int_equal(lake_statements("oracle", "t", "d", NULL, 0, NULL, &error),
                     STATUS_NOT_FOUND);
}

int main(void) {
    static const struct fixture_case cases[] = {
        CASE(test_row),
        CASE(test_each_once),
        CASE(test_cut_off),
        CASE(test_erased),
        CASE(test_newer_version),
        CASE(test_folder_is_away),
        SQLITE_CASE(test_statements),
    };
    return fixture_main(cases, sizeof cases / sizeof *cases);
}
