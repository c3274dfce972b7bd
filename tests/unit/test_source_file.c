/* SPDX-License-Identifier: Apache-2.0
 *
 * test_source_file.c - files, directories and pipes: which lines come, and that reading on
 * from any cursor loses none and, but where it must, repeats none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "client/sources/record.h"
#include "client/sources/source.h"
#include "tests/unit/model_files.h"

#define TEXT(literal) literal, sizeof literal - 1
#define MS INT64_C(1000000)

static char *dir;
static struct source_settings settings;
static char cursor[SOURCE_CURSOR_BYTES];
static struct error err;
static int wake = -1;

static int set_up(void **state) {
    (void)state;
    dir = scratch_make();
    settings = (struct source_settings){0};
    cursor[0] = '\0';
    err = (struct error){0};
    wake = eventfd(0, EFD_NONBLOCK);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    scratch_remove(dir);
    close(wake);
    return 0;
}

static const char *in_dir(const char *name) {
    return scratch_path(dir, name);
}

static void put(const char *name, const char *text) {
    scratch_write(in_dir(name), text, strlen(text));
}

static void append(const char *name, const char *text) {
    FILE *f = fopen(in_dir(name), "ab");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* Opens at `cursor`, when there is one. */
static struct source *open_source(const struct source_kind *kind, const char *target) {
    static char kept[SOURCE_CURSOR_BYTES], path[512];
    struct source *s = NULL;
    memcpy(kept, cursor, sizeof kept);
    snprintf(path, sizeof path, "%s", target);
    const struct source_options options = {.name = "test",
                                           .target = path,
                                           .cursor = kept[0] ? kept : NULL,
                                           .wake_fd = wake,
                                           .settings = &settings};
    assert_int_equal(kind->open(&options, &s, &err), STATUS_OK);
    assert_non_null(s);
    return s;
}

static enum status next_within(const struct source_kind *kind, struct source *s,
                               int64_t wait_ns, struct buffer *out) {
    struct source_line line;
    enum status status = kind->next(s, clock_now_ns() + wait_ns, &line, &err);
    if (status == STATUS_OK) {
        buffer_append(out, line.bytes.data, line.bytes.n_bytes, NULL);
        buffer_append(out, "|", 1, NULL);
        assert_true(line.received_ns > 0);
        assert_int_equal(kind->cursor(s, line.after, cursor, &err), STATUS_OK);
    }
    return status;
}

/* The next lines as one text, "a|b|". */
static void expect_lines(const struct source_kind *kind, struct source *s,
                         const char *expected) {
    struct buffer out = {.max_bytes = 1 << 20};
    buffer_append(&out, "", 0, NULL);
    for (const char *p = expected; *p; p++)
        if (*p == '|')
            assert_int_equal(next_within(kind, s, 20000 * MS, &out), STATUS_OK);
    assert_string_equal(out.data, expected);
    buffer_free(&out);
}

static void expect_status(const struct source_kind *kind, struct source *s,
                          int64_t wait_ns, enum status expected) {
    struct buffer out = {.max_bytes = 1 << 20};
    assert_int_equal(next_within(kind, s, wait_ns, &out), expected);
    buffer_free(&out);
}

/* All of a source that ends. */
static void expect_all(const struct source_kind *kind, const char *target,
                       const char *expected) {
    struct source *s = open_source(kind, target);
    expect_lines(kind, s, expected);
    expect_status(kind, s, 0, STATUS_NOT_FOUND);
    expect_status(kind, s, 0, STATUS_NOT_FOUND);
    assert_int_equal(atomic_load(&kind->state(s)->phase), SOURCE_ENDED);
    kind->close(s);
}

static void a_file(void **state) {
    (void)state;
    put("a.txt", "one\n\ntwo\r\n{x\nlast");
    expect_all(&source_file, in_dir("a.txt"), "one|two|\x1F{x|last|");
    cursor[0] = '\0';
    put("a.jsonl", "{\"text\":1}\n  \n\"s\"\njunk\n");
    expect_all(&source_file, in_dir("a.jsonl"), "{\"text\":1}|\x1E\"s\"|\x1Ejunk|");
    cursor[0] = '\0';
    put("a.csv", "\xEF\xBB\xBFid,text\n1,\"a\nb\"\n\n2,c\n");
    expect_all(&source_file, in_dir("a.csv"),
               "\x1D,id,text\n1,\"a\nb\"|\x1D,id,text\n2,c|");
    cursor[0] = '\0';
    put("empty", "");
    expect_all(&source_file, in_dir("empty"), "");
    put("header.csv", "id,text");
    expect_all(&source_file, in_dir("header.csv"), "");
}

static void files_that_cannot_be(void **state) {
    (void)state;
    struct source *s = NULL;
    const struct source_options options = {
        .target = "/no/such/file", .wake_fd = wake, .settings = &settings};
    assert_int_equal(source_file.open(&options, &s, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/no/such/file"));
    put("b.csv", "id,body\n1,a\n");
    s = open_source(&source_file, in_dir("b.csv"));
    expect_status(&source_file, s, 0, STATUS_INVALID);
    source_file.close(s);
    put("z", "\x1F\x8B\x08\n");
    s = open_source(&source_file, in_dir("z"));
    expect_status(&source_file, s, 0, STATUS_UNSUPPORTED);
    source_file.close(s);
    source_file.close(NULL);
    source_directory.close(NULL);
    source_stdin.close(NULL);
}

/* From the cursor behind each line the rest comes, and nothing else; so it does after the
 * file has grown. */
static void reading_on(void **state) {
    (void)state;
    static const char *const names[] = {"a.jsonl", "a.csv", "a.txt"};
    static const char *const texts[] = {"{\"a\":0}\n{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n",
                                        "\"te\nxt\",text\n0,\"\n0\"\n1,1\n2,2\n3,3\n",
                                        "t0\nt1\n\nt2\nt3"};
    for (size_t f = 0; f < 3; f++) {
        char all[4][64];
        put(names[f], texts[f]);
        cursor[0] = '\0';
        for (size_t n = 0; n < 4; n++) {
            struct buffer out = {.max_bytes = 4096};
            struct source *s = open_source(&source_file, in_dir(names[f]));
            assert_int_equal(next_within(&source_file, s, 0, &out), STATUS_OK);
            snprintf(all[n], sizeof all[n], "%s", out.data);
            char digit = (char)('0' + n);
            assert_non_null(strchr(out.data, digit));
            for (size_t k = 0; k < n; k++)
                assert_string_not_equal(all[k], all[n]);
            source_file.close(s);
            buffer_free(&out);
        }
        expect_all(&source_file, in_dir(names[f]), "");
        append(names[f], f == 1 ? "4,4\n" : "\nt4\n");
        struct source *s = open_source(&source_file, in_dir(names[f]));
        expect_lines(&source_file, s,
                     f == 1   ? "\x1D,\"te\nxt\",text\n4,4|"
                     : f == 0 ? "\x1Et4|"
                              : "t4|");
        source_file.close(s);
    }
}

/* A cursor of another file does not count; the rest of one that was rotated is found. */
static void cursors_of_other_files(void **state) {
    (void)state;
    put("a", "one\ntwo\nthree\n");
    struct source *s = open_source(&source_file, in_dir("a"));
    expect_lines(&source_file, s, "one|two|");
    source_file.close(s);
    char kept[SOURCE_CURSOR_BYTES];
    memcpy(kept, cursor, sizeof kept);
    assert_int_equal(rename(in_dir("a"), in_dir("a.1")), 0);
    put("a", "new file, longer than the old one\n");
    expect_all(&source_file, in_dir("a"), "three|new file, longer than the old one|");
    /* And from behind both. */
    expect_all(&source_file, in_dir("a"), "");
    /* The old one is gone. */
    memcpy(cursor, kept, sizeof cursor);
    assert_int_equal(unlink(in_dir("a.1")), 0);
    expect_all(&source_file, in_dir("a"), "new file, longer than the old one|");
    /* Written anew in place, shorter. */
    memcpy(cursor, kept, sizeof cursor);
    put("a", "x\n");
    expect_all(&source_file, in_dir("a"), "x|");
    snprintf(cursor, sizeof cursor, "no cursor");
    expect_all(&source_file, in_dir("a"), "x|");
    /* A copy that was put back has another inode. */
    put("b", "one\ntwo\nthree\n");
    memcpy(cursor, kept, sizeof cursor);
    expect_all(&source_file, in_dir("b"), "three|");
}

static void long_lines(void **state) {
    (void)state;
    size_t n = SOURCE_MAX_LINE_BYTES + 100;
    char *data = malloc(2 * n + 16);
    assert_non_null(data);
    memset(data, 'x', 2 * n);
    data[n] = '\n';
    memcpy(data + 2 * n, "\nend\n", 5);
    scratch_write(in_dir("a.txt"), data, 2 * n + 5);
    struct source *s = open_source(&source_file, in_dir("a.txt"));
    struct source_line line;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(source_file.next(s, 0, &line, &err), STATUS_OK);
        assert_true(line.is_cut);
        assert_int_equal(line.bytes.n_bytes, SOURCE_MAX_LINE_BYTES);
        assert_int_equal(line.after.minor, i == 0 ? n + 1 : 2 * n + 1);
    }
    expect_lines(&source_file, s, "end|");
    expect_status(&source_file, s, 0, STATUS_NOT_FOUND);
    source_file.close(s);
    free(data);
}

/* ---- tail -f ---- */

static void following(void **state) {
    (void)state;
    settings.follows = true;
    struct source *s = open_source(&source_file, in_dir("a.txt"));
    expect_status(&source_file, s, 1 * MS, STATUS_TIMEOUT);
    put("a.txt", "one\nha");
    expect_lines(&source_file, s, "one|");
    expect_status(&source_file, s, 1 * MS, STATUS_TIMEOUT);
    append("a.txt", "lf\ntwo\n");
    expect_lines(&source_file, s, "half|two|");
    /* Woken. */
    assert_int_equal(eventfd_write(wake, 1), 0);
    expect_status(&source_file, s, 20000 * MS, STATUS_CANCELLED);
    eventfd_t count;
    assert_int_equal(eventfd_read(wake, &count), 0);
    append("a.txt", "three\n");
    expect_lines(&source_file, s, "three|");
    source_file.close(s);
}

/* Renamed, and made anew: what still comes into the old one is read too. */
static void rotation(void **state) {
    (void)state;
    settings.follows = true;
    put("a.txt", "one\n");
    struct source *s = open_source(&source_file, in_dir("a.txt"));
    expect_lines(&source_file, s, "one|");
    assert_int_equal(rename(in_dir("a.txt"), in_dir("a.txt.1")), 0);
    expect_status(&source_file, s, 1 * MS, STATUS_TIMEOUT);
    put("a.txt", "new\n");
    expect_status(&source_file, s, 1 * MS, STATUS_TIMEOUT);
    append("a.txt.1", "late\nunfinished");
    expect_lines(&source_file, s, "late|unfinished|");
    /* The cursor is still the old file's. */
    struct source *again = open_source(&source_file, in_dir("a.txt"));
    expect_lines(&source_file, again, "new|");
    source_file.close(again);
    expect_lines(&source_file, s, "new|");
    source_file.close(s);
    settings.follows = false;
    expect_all(&source_file, in_dir("a.txt"), "");
}

/* Cut in place (copytruncate), also when it has grown past the old length meanwhile. */
static void truncation(void **state) {
    (void)state;
    settings.follows = true;
    put("a.csv", "id,text\n1,one\n2,two\n");
    struct source *s = open_source(&source_file, in_dir("a.csv"));
    expect_lines(&source_file, s, "\x1D,id,text\n1,one|\x1D,id,text\n2,two|");
    expect_status(&source_file, s, 1 * MS, STATUS_TIMEOUT);
    put("a.csv", "text\n3\n");
    expect_lines(&source_file, s, "\x1D,text\n3|");
    expect_status(&source_file, s, 1 * MS, STATUS_TIMEOUT);
    put("a.csv", "text,id\nfour and more,4\nfive,5\n");
    expect_lines(&source_file, s,
                 "\x1D,text,id\nfour and more,4|\x1D,text,id\nfive,5|");
    source_file.close(s);
    settings.follows = false;
    expect_all(&source_file, in_dir("a.csv"), "");
}

/* ---- directories ---- */

static void a_directory(void **state) {
    (void)state;
    put("b.txt", "b1\nb2\n");
    put("a.jsonl", "{\"a\":1}\n{\"a\":2}");
    put("c.csv", "text\nc1\n");
    put(".hidden", "no\n");
    put("d.tmp", "no\n");
    put("e~", "no\n");
    put("f.csv", "id,body\nno,no\n"); /* passed over: no such column */
    put("g.txt", "g1\n");
    assert_int_equal(mkdir(in_dir("sub"), 0700), 0);
    const char *all = "{\"a\":1}|{\"a\":2}|b1|b2|\x1D,text\nc1|g1|";
    expect_all(&source_directory, dir, all);
    expect_all(&source_directory, dir, "");
    /* More behind; then one between, which could be found only by reading all again. */
    put("h.txt", "h1\nh2\n");
    expect_all(&source_directory, dir, "h1|h2|");
    append("h.txt", "h3\n");
    expect_all(&source_directory, dir, "h3|");
    put("bb.txt", "bb\n");
    expect_all(&source_directory, dir,
               "{\"a\":1}|{\"a\":2}|b1|b2|bb|\x1D,text\nc1|g1|h1|h2|h3|");
}

/* From the cursor behind every line the rest comes. */
/* A file that is not ours to open: passed over once, read when it can be. */
static void a_file_without_rights(void **state) {
    (void)state;
    put("a", "a1\n");
    put("b", "b1\n");
    put("c", "c1\n");
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(chmod(in_dir("b"), 0), 0);
    uid_t before = geteuid();
    if (before == 0)
        assert_int_equal(seteuid(65534), 0);
    expect_all(&source_directory, dir, "a1|c1|");
    if (before == 0)
        assert_int_equal(seteuid(before), 0);
    assert_int_equal(chmod(in_dir("b"), 0644), 0);
    expect_all(&source_directory, dir, "a1|b1|c1|");
    expect_all(&source_directory, dir, "");
}

static void reading_on_in_a_directory(void **state) {
    (void)state;
    static const char *const lines[] = {"a1|", "a2|", "b1|", "c1|", "c2|"};
    put("a", "a1\na2\n");
    put("b", "b1\n");
    put("c", "c1\nc2\n");
    for (size_t n = 0; n < 5; n++) {
        struct source *s = open_source(&source_directory, dir);
        expect_lines(&source_directory, s, lines[n]);
        source_directory.close(s);
    }
    expect_all(&source_directory, dir, "");
}

static void following_a_directory(void **state) {
    (void)state;
    settings.follows = true;
    struct source *s = open_source(&source_directory, dir);
    expect_status(&source_directory, s, 1 * MS, STATUS_TIMEOUT);
    put("b", "b1\nb");
    expect_lines(&source_directory, s, "b1|");
    append("b", "2\n");
    expect_lines(&source_directory, s, "b2|");
    append("b", "b3");
    expect_status(&source_directory, s, 300 * MS, STATUS_TIMEOUT);
    /* A later file: the one before is over. */
    put("c.part", "c1\n");
    assert_int_equal(rename(in_dir("c.part"), in_dir("c")), 0);
    expect_lines(&source_directory, s, "b3|c1|");
    /* One that sorts before: read, but the cursor stays, so a crash reads all again. */
    put("a", "a1\na2\n");
    expect_lines(&source_directory, s, "a1|");
    settings.follows = false;
    expect_all(&source_directory, dir, "a1|a2|b1|b2|b3|c1|");
    settings.follows = true;
    expect_lines(&source_directory, s, "a2|");
    put("d", "d1\n");
    expect_lines(&source_directory, s, "d1|");
    source_directory.close(s);
    /* Behind it everything is known again. */
    settings.follows = false;
    expect_all(&source_directory, dir, "");
}

/* ---- pipes ---- */

static void a_fifo(void **state) {
    (void)state;
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
    int keep = open(in_dir("fifo"), O_RDWR | O_CLOEXEC);
    int fd = open(in_dir("fifo"), O_WRONLY | O_CLOEXEC);
    const struct source_kind *kind = &source_stdin;
    struct source *s = open_source(kind, in_dir("fifo"));
    expect_status(kind, s, 1 * MS, STATUS_TIMEOUT);
    assert_int_equal(write(fd, "{\"text\":\"a\"}\n{\"te", 17), 17);
    expect_lines(kind, s, "{\"text\":\"a\"}|");
    expect_status(kind, s, 1 * MS, STATUS_TIMEOUT);
    assert_int_equal(eventfd_write(wake, 1), 0);
    expect_status(kind, s, 20000 * MS, STATUS_CANCELLED);
    eventfd_t count;
    assert_int_equal(eventfd_read(wake, &count), 0);
    assert_int_equal(write(fd, "xt\":\"b\"}", 8), 8);
    close(fd);
    close(keep);
    expect_lines(kind, s, "{\"text\":\"b\"}|");
    expect_status(kind, s, 0, STATUS_NOT_FOUND);
    assert_string_equal(cursor, "2 lines");
    kind->close(s);
}

/* ---- parsing: without the source, too ---- */

static void parsing(void **state) {
    (void)state;
    struct arena arena = {.max_bytes = 1 << 20};
    struct post post;
    assert_int_equal(
        source_file.parse(NULL, VIEW("{\"text\":\"a\"}"), &arena, &post, &err),
        STATUS_OK);
    settings.text_field = "body";
    put("a", "x\n");
    struct source *s = open_source(&source_file, in_dir("a"));
    assert_int_equal(
        source_file.parse(s, VIEW("{\"body\":\"b\"}"), &arena, &post, &err), STATUS_OK);
    assert_int_equal(post.text.data[0], 'b');
    source_file.close(s);
    arena_free(&arena);
}

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 2);
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {WITH_DIR(a_file),
                                       WITH_DIR(files_that_cannot_be),
                                       WITH_DIR(reading_on),
                                       WITH_DIR(cursors_of_other_files),
                                       WITH_DIR(long_lines),
                                       WITH_DIR(following),
                                       WITH_DIR(rotation),
                                       WITH_DIR(truncation),
                                       WITH_DIR(a_directory),
                                       WITH_DIR(a_file_without_rights),
                                       WITH_DIR(reading_on_in_a_directory),
                                       WITH_DIR(following_a_directory),
                                       WITH_DIR(a_fifo),
                                       WITH_DIR(parsing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
