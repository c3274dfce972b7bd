/* SPDX-License-Identifier: Apache-2.0
 *
 * test_file.c - base/file: regular files only, whole files only, no half-written ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>

#include "base/file.h"
#include "tests/unit/model_files.h"

static void reads(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "f");
    char *text;
    size_t n;
    struct error err;
    scratch_write(path, "abc\0d", 5);
    assert_int_equal(file_read(path, 5, &text, &n, &err), STATUS_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(text, "abc\0d\0", 6);
    assert_int_equal((uintptr_t)text % 64, 0);
    free(text);
    assert_int_equal(file_read(path, 4, &text, &n, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "has 5 bytes, the limit is 4"));
    assert_null(text);
    scratch_write(path, "", 0);
    assert_int_equal(file_read(path, 0, &text, &n, &err), STATUS_OK);
    assert_int_equal(text[0], 0);
    free(text);
    scratch_remove(dir);
}

static void refuses(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "f");
    char *text;
    size_t n;
    struct error err;
    assert_int_equal(file_read(path, 9, &text, &n, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(file_read(dir, 9, &text, &n, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "a directory, expected a regular file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_read(path, 9, &text, &n, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "a FIFO"));
    assert_int_equal(file_read("/dev/zero", 9, &text, &n, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "a device"));
    scratch_remove(dir);
}

static void takes_pieces(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "f");
    struct file f;
    struct error err;
    char piece[8];
    scratch_write(path, "0123456789", 10);
    assert_int_equal(file_open(path, 10, &f, &err), STATUS_OK);
    assert_int_equal(f.n_bytes, 10);
    assert_int_equal(file_take(&f, piece, 4, &err), STATUS_OK);
    assert_memory_equal(piece, "0123", 4);
    assert_int_equal(f.at, 4);
    assert_int_equal(file_take(&f, piece, 7, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "ends at byte 10, expected 1 bytes more"));
    assert_int_equal(file_finish(&f, &err), STATUS_OK);
    assert_int_equal(truncate(path, 3), 0); /* under the reader's hands */
    assert_int_equal(file_finish(&f, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "changed while it was read"));
    file_close(&f);
    file_close(&f);
    file_close(NULL);
    scratch_remove(dir);
}

static int count_files(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void replaces(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "f");
    struct file_writer w;
    char *text;
    size_t n;
    assert_int_equal(file_replace(path, "one", 3, NULL), STATUS_OK);
    assert_int_equal(file_create(path, &w, NULL), STATUS_OK);
    assert_int_equal(file_write(&w, "tw", 2, NULL), STATUS_OK);
    assert_int_equal(count_files(dir), 2);
    assert_int_equal(file_read(path, 9, &text, &n, NULL), STATUS_OK);
    assert_memory_equal(text, "one", 4); /* the old one until the commit */
    free(text);
    file_abort(&w);
    file_abort(&w);
    assert_int_equal(count_files(dir), 1);
    assert_int_equal(file_create(path, &w, NULL), STATUS_OK);
    assert_int_equal(file_write(&w, "two", 3, NULL), STATUS_OK);
    assert_int_equal(file_commit(&w, NULL), STATUS_OK);
    file_abort(&w);
    assert_int_equal(count_files(dir), 1);
    assert_int_equal(file_read(path, 9, &text, &n, NULL), STATUS_OK);
    assert_memory_equal(text, "two", 4);
    free(text);
    struct error err;
    assert_int_equal(file_replace("/nonexistent/f", "x", 1, &err), STATUS_NOT_FOUND);
    mkdir(scratch_path(dir, "d"), 0700);
    assert_int_equal(file_replace(scratch_path(dir, "d"), "x", 1, &err), STATUS_IO);
    assert_int_equal(count_files(dir), 2); /* nothing is left behind */
    file_abort(NULL);
    scratch_remove(dir);
}

static void removes_leftovers(void **state) {
    (void)state;
    char *dir = scratch_make(), own[32];
    snprintf(own, sizeof own, "f.%ld-0.tmp", (long)getpid());
    const struct {
        const char *name;
        bool stays;
    } files[] = {{own, false},
                 {"f.99999999-12.tmp", false}, /* no process has such a number */
                 {"f.1-0.tmp", true},          /* a process that lives */
                 {"f", true},
                 {"f.tmp", true},
                 {"f.99999999-.tmp", true},
                 {"f.99999999-1.tmp.gz", true},
                 {"f.099999999-1.tmp", true},
                 {"ff.99999999-1.tmp", true}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        scratch_write(scratch_path(dir, files[i].name), "x", 1);
    file_remove_leftovers(scratch_path(dir, "f"), false);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        assert_int_equal(file_exists(scratch_path(dir, files[i].name)), files[i].stays);
    file_remove_leftovers(scratch_path(dir, "f"), true); /* nobody else is writing */
    assert_false(file_exists(scratch_path(dir, "f.1-0.tmp")));
    assert_true(file_exists(scratch_path(dir, "f.tmp")));
    scratch_remove(dir);
}

static void joins_paths(void **state) {
    (void)state;
    char out[FILE_PATH_BYTES], long_dir[FILE_PATH_BYTES];
    assert_int_equal(file_path(out, "a/b", "c", NULL), STATUS_OK);
    assert_string_equal(out, "a/b/c");
    assert_int_equal(file_path(out, "/", "c", NULL), STATUS_OK);
    assert_string_equal(out, "/c");
    memset(long_dir, 'x', sizeof long_dir - 1);
    long_dir[sizeof long_dir - 1] = '\0';
    assert_int_equal(file_path(out, long_dir, "c", NULL), STATUS_LIMIT);
    struct file_writer w;
    assert_int_equal(file_create(long_dir, &w, NULL), STATUS_LIMIT);
    file_abort(&w);
    assert_true(file_exists("/"));
    assert_false(file_exists("/nonexistent"));
}

/* A program that was started without standard input: descriptor 0 is not one of ours. */
static void works_without_stdin(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "f");
    int kept = dup(0);
    char *text;
    size_t n;
    close(0);
    assert_int_equal(file_replace(path, "x", 1, NULL), STATUS_OK);
    assert_int_equal(file_read(path, 9, &text, &n, NULL), STATUS_OK);
    free(text);
    assert_int_equal(fcntl(0, F_GETFD), -1);
    if (kept >= 0) {
        dup2(kept, 0);
        close(kept);
    }
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(refuses),
        cmocka_unit_test(takes_pieces),
        cmocka_unit_test(replaces),
        cmocka_unit_test(removes_leftovers),
        cmocka_unit_test(joins_paths),
        cmocka_unit_test(works_without_stdin),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
