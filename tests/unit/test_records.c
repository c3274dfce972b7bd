/* SPDX-License-Identifier: Apache-2.0
 *
 * test_records.c - every input is read from a file and from a pipe that gives it in pieces of
 * one byte and more; what comes out must be the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "base/memory.h"
#include "server/records.h"
#include "tests/unit/model_files.h"

#define TEXT(literal) literal, sizeof literal - 1
#define BOM "\xEF\xBB\xBF"

static struct records_options options_of(enum format format) {
    return (struct records_options){.format = format,
                                    .text_field = "text",
                                    .id_field = "id",
                                    .max_record_bytes = 64,
                                    .max_text_bytes = 32,
                                    .wake_fd = -1};
}

/* One line a record: `number id=text` or `number id!error`; NUL is shown as \0, the ends of
 * lines as \n and \r. */
static void render(struct buffer *out, const struct record *r) {
    assert_true(r->id_bytes > 0);
    buffer_printf(out, NULL, "%llu ", (unsigned long long)r->number);
    buffer_append(out, r->id, r->id_bytes, NULL);
    if (r->error.status != STATUS_OK) {
        assert_null(r->text);
        buffer_printf(out, NULL, "!%s\n", r->error.message);
        return;
    }
    buffer_append(out, "=", 1, NULL);
    for (size_t i = 0; i < r->text_bytes; i++) {
        char c = r->text[i];
        if (c == '\0' || c == '\n' || c == '\r')
            buffer_printf(out, NULL, c ? c == '\n' ? "\\n" : "\\r" : "\\0");
        else
            buffer_append(out, &c, 1, NULL);
    }
    buffer_append(out, "\n", 1, NULL);
}

/* All records of an input as one text; what ended them, if not the end, as a last line. */
static void read_all(const struct records_options *options, struct buffer *out) {
    struct records *r = NULL;
    struct error err = {0};
    struct record record;
    buffer_clear(out);
    enum status status = records_open(options, &r, &err);
    while (status == STATUS_OK) {
        status = records_next(r, &record, &err);
        if (status == STATUS_OK)
            render(out, &record);
    }
    if (status != STATUS_NOT_FOUND || !r) {
        /* Without the path, which differs. */
        size_t n = strlen(options->path);
        bool has_path = strncmp(err.message, options->path, n) == 0;
        buffer_printf(out, NULL, "%s%s\n", status_name(status),
                      has_path ? err.message + n : err.message);
    } else {
        assert_int_equal(records_next(r, &record, &err), STATUS_NOT_FOUND);
    }
    records_close(r);
}

struct pieces {
    int fd;
    const char *data;
    size_t n_bytes, piece;
    atomic_bool is_read; /* the reader may stop early */
};

/* Writes a piece when the one before was read. */
static void *write_pieces(void *argument) {
    struct pieces *p = argument;
    for (size_t at = 0; at < p->n_bytes; at += p->piece) {
        int waiting = 1;
        size_t n = p->n_bytes - at < p->piece ? p->n_bytes - at : p->piece;
        if (write(p->fd, p->data + at, n) != (ssize_t)n)
            break;
        while (!atomic_load(&p->is_read) && ioctl(p->fd, FIONREAD, &waiting) == 0 &&
               waiting)
            sched_yield();
    }
    close(p->fd);
    return NULL;
}

static void read_pieces(struct records_options options, const char *data,
                        size_t n_bytes, size_t piece, struct buffer *out) {
    int fds[2];
    char path[64];
    pthread_t thread;
    assert_int_equal(pipe(fds), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[0]);
    struct pieces p = {fds[1], data, n_bytes, piece, false};
    assert_int_equal(pthread_create(&thread, NULL, write_pieces, &p), 0);
    options.path = path;
    read_all(&options, out);
    atomic_store(&p.is_read, true);
    pthread_join(thread, NULL);
    close(fds[0]);
}

static void expect_as(struct records_options options, const char *name,
                      const char *data, size_t n_bytes, const char *expected) {
    char *dir = scratch_make();
    const char *path = scratch_path(dir, name);
    struct buffer out = {.max_bytes = 1 << 20};
    scratch_write(path, data, n_bytes);
    options.path = path;
    buffer_append(&out, "", 0, NULL);
    read_all(&options, &out);
    assert_string_equal(out.data ? out.data : "", expected);
    if (options.format == FORMAT_AUTO && strchr(name, '.'))
        goto out; /* a pipe has no name to go by */
    for (size_t piece = 1; piece < 6; piece++) {
        read_pieces(options, data, n_bytes, piece, &out);
        assert_string_equal(out.data ? out.data : "", expected);
    }
out:
    buffer_free(&out);
    scratch_remove(dir);
}

static void expect(enum format format, const char *data, size_t n_bytes,
                   const char *expected) {
    expect_as(options_of(format), "input", data, n_bytes, expected);
}

static void lines(void **state) {
    (void)state;
    expect(FORMAT_LINES, TEXT("one\ntwo\n"), "1 1=one\n2 2=two\n");
    expect(FORMAT_LINES, TEXT("one\r\ntwo"), "1 1=one\n2 2=two\n");
    /* Empty lines count, but are no records; a space is one. */
    expect(FORMAT_LINES, TEXT("\n\none\n\r\n \n"), "3 3=one\n5 5= \n");
    expect(FORMAT_LINES, TEXT(BOM "one\n" BOM "two\n"), "1 1=one\n2 2=" BOM "two\n");
    expect(FORMAT_LINES, TEXT("a\0b\nc\rd\n\xFF\xC3\n"),
           "1 1=a\\0b\n2 2=c\\rd\n3 3=\xFF\xC3\n");
    expect(FORMAT_LINES, TEXT(""), "");
    expect(FORMAT_LINES, TEXT("\n"), "");
    expect(FORMAT_LINES, TEXT(BOM), "");
}

static void limits(void **state) {
    (void)state;
    char data[200];
    memset(data, 'x', sizeof data);
    /* A text at its limit and one over it; a line at its limit and one over it. */
    data[32] = data[66] = data[131] = data[197] = '\n';
    expect(FORMAT_LINES, data, sizeof data,
           "1 1=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"
           "2 2!text has 33 bytes, more than 32\n"
           "3 3!text has 64 bytes, more than 32\n"
           "4 4!is longer than 64 bytes\n"
           "5 5=xx\n");
    expect(
        FORMAT_JSONL,
        TEXT("\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\n"
             "{\"other\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
             "xx\",\"text\":\"a\"}\n\"b\"\n"),
        "1 1!text has 33 bytes, more than 32\n2 2!is longer than 64 bytes\n3 3=b\n");
    /* Columns that nobody asked for do not count. */
    expect(FORMAT_CSV,
           TEXT("other,text\n"
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,a\n"
                "x,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"),
           "1 1=a\n2 2!text has 33 bytes, more than 32\n");
    expect(
        FORMAT_CSV,
        TEXT("text\n"
             "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nb\n"),
        "1 1!is longer than 64 bytes\n2 2=b\n");
}

static void jsonl(void **state) {
    (void)state;
    expect(FORMAT_JSONL,
           TEXT("{\"id\":\"a\\\"\",\"text\":\"one\"}\r\n"
                "{\"text\":\"two\",\"id\":7}\n\"three\"\n"
                "\n \t\n{\"id\":null,\"text\":\"l\\u00e9\\n\\u0000!\"}\n"
                "{\"id\":1.5,\"text\":\"x\"}\n{\"id\":\"\",\"text\":\"y\"}"),
           "1 \"a\\\"\"=one\n2 7=two\n3 3=three\n6 6=l\xC3\xA9\\n\\0!\n7 1.5=x\n8 \"\"="
           "y\n");
    expect(FORMAT_JSONL, TEXT(BOM "{\"text\":\"a\"}"), "1 1=a\n");
}

static void jsonl_says_what_is_wrong(void **state) {
    (void)state;
    expect(
        FORMAT_JSONL,
        TEXT("{\"id\":1}\n{\"id\":2,\"text\":3}\n{\"id\":3,\"text\":null}\n"
             "{\"id\":[],\"text\":\"a\"}\n12\n[\"a\"]\n{\"id\":5,\"text\":\"\"}\n"
             "{\"text\":\"ok\"}\n"),
        "1 1!has no field \"text\"\n2 2!field \"text\" is not a string\n"
        "3 3!field \"text\" is not a string\n"
        "4 4!id is neither a string nor a number\n"
        "5 5!is neither a JSON object nor a JSON string\n"
        "6 6!is neither a JSON object nor a JSON string\n7 5!text is empty\n8 8=ok\n");
    /* What json.c refuses: its own words, then the next line. */
    static const struct {
        const char *line;
        enum status status;
    } rows[] = {{"{", STATUS_INVALID},
                {"{\"text\":\"a\"", STATUS_INVALID},
                {"{\"text\":\"secret\xFF\"}", STATUS_INVALID},
                {"{\"text\":\"secret\"} x", STATUS_INVALID},
                {"{\"text\":\"secret\\ud800\"}", STATUS_UNSUPPORTED},
                {"{\"text\":\"a\",\"text\":\"secret\"}", STATUS_INVALID},
                {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1", STATUS_LIMIT},
                {"secret", STATUS_INVALID}};
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "rows");
    struct records_options options = options_of(FORMAT_JSONL);
    options.path = path;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char data[128];
        struct records *r;
        struct record record;
        struct error err = {0};
        int n = snprintf(data, sizeof data, "%s\n\"next\"\n", rows[i].line);
        scratch_write(path, data, (size_t)n);
        assert_int_equal(records_open(&options, &r, &err), STATUS_OK);
        assert_int_equal(records_next(r, &record, &err), STATUS_OK);
        assert_int_equal(record.error.status, rows[i].status);
        assert_null(strstr(record.error.message, "secret"));
        assert_null(record.text);
        assert_int_equal(record.number, 1);
        assert_memory_equal(record.id, "1", 1);
        assert_int_equal(records_next(r, &record, &err), STATUS_OK);
        assert_memory_equal(record.text, "next", 4);
        records_close(r);
    }
    scratch_remove(dir);
}

static void csv(void **state) {
    (void)state;
    expect(FORMAT_CSV, TEXT("id,text\na,one\nb,two\n"), "1 \"a\"=one\n2 \"b\"=two\n");
    expect(FORMAT_CSV, TEXT("text,x,id\r\none,,a\r\ntwo,y,\"b\""),
           "1 \"a\"=one\n2 \"b\"=two\n");
    expect(FORMAT_CSV,
           TEXT(BOM "\"te\"\"xt\",\"text\"\r\n"
                    "x,\"a, \"\"b\"\"\r\nc\"\r\n\r\n\"\n\",\"\"\"\"\r\n"),
           "1 1=a, \"b\"\\r\\nc\n2 2=\"\n");
    expect(FORMAT_CSV, TEXT("text\n\n\none\n\"\"\n"), "1 1=one\n2 2!text is empty\n");
    /* An empty id is the row's number; the first of two columns of a name counts. */
    expect(FORMAT_CSV, TEXT("id,text,text\n,a,b\n"), "1 1=a\n");
    expect(FORMAT_CSV, TEXT("text\na\0b\n\"\xFF\"\n"), "1 1=a\\0b\n2 2=\xFF\n");
    /* A quote within a field is a byte like others. */
    expect(FORMAT_CSV, TEXT("text\n5\" long\n"), "1 1=5\" long\n");
    expect(FORMAT_CSV, TEXT("id,text\n"), "");
    expect(FORMAT_CSV, TEXT(""), "");
}

static void csv_says_what_is_wrong(void **state) {
    (void)state;
    expect(FORMAT_CSV, TEXT("id,text\na\nb,c,d\ne,f\n\"g\"h,i\nj,\"k\"l\nm,n\n"),
           "1 \"a\"!has 1 fields, the header 2\n2 \"b\"!has 3 fields, the header 2\n"
           "3 \"e\"=f\n4 \"gh\"!a closing quote is followed by more of the field\n"
           "5 \"j\"!a closing quote is followed by more of the field\n6 \"m\"=n\n");
    expect(FORMAT_CSV, TEXT("id,text\na,b\nc,\"d\ne,f\n"),
           "1 \"a\"=b\n2 \"c\"!a quoted field never ends\n");
    expect(FORMAT_CSV, TEXT("id,body\na,b\n"),
           "invalid: none of the 2 columns of the first row is named \"text\"\n");
    expect(FORMAT_CSV, TEXT("\"id,text\na,b\n"), "invalid: the first row never ends\n");
}

static void separators(void **state) {
    (void)state;
    struct records_options options = options_of(FORMAT_AUTO);
    expect_as(options, "a.tsv", TEXT("id\ttext\na,b\tc\n"), "1 \"a,b\"=c\n");
    options = options_of(FORMAT_CSV);
    options.separator = ';';
    options.text_field = "t";
    options.id_field = "i";
    expect_as(options, "input", TEXT("i;t\na,b;c\n"), "1 \"a,b\"=c\n");
}

/* Told by the name, else by the first bytes, also when they come one by one. */
static void formats(void **state) {
    (void)state;
    struct records_options options = options_of(FORMAT_AUTO);
    expect(FORMAT_AUTO, TEXT(" {\"text\":\"a\"}\n"), "1 1=a\n");
    expect(FORMAT_AUTO, TEXT(BOM "{\"text\":\"a\"}"), "1 1=a\n");
    expect(FORMAT_AUTO, TEXT("id,\"text\"\r\n1,b\n"), "1 \"1\"=b\n");
    expect(FORMAT_AUTO, TEXT("text,a\nb,c\n"), "1 1=b\n");
    expect(FORMAT_AUTO, TEXT("id,context\n1,b\n"), "1 1=id,context\n2 2=1,b\n");
    expect(FORMAT_AUTO, TEXT("text\nb\n"), "1 1=text\n2 2=b\n");
    expect(FORMAT_AUTO, TEXT(""), "");
    expect_as(options, "a.csv", TEXT("text\nb\n"), "1 1=b\n");
    expect_as(options, "a.CSV", TEXT("text\nb\n"), "1 1=b\n");
    expect_as(options, "a.jsonl", TEXT("\"b\"\n"), "1 1=b\n");
    expect_as(options, "a.ndjson", TEXT("\"b\"\n"), "1 1=b\n");
    expect_as(options, "a.txt", TEXT("{\"text\":\"a\"}\n"), "1 1={\"text\":\"a\"}\n");
    expect(FORMAT_AUTO,
           TEXT("\xFF\xFE"
                "a\0\n\0"),
           "unsupported is UTF-16; expected UTF-8 (iconv)\n");
    expect(FORMAT_AUTO, TEXT("\x1F\x8B\x08\n"),
           "unsupported is compressed; pipe it in (zcat)\n");
}

/* Lines of every length around the reader's own buffer of 256 KiB. */
static void buffer_boundaries(void **state) {
    (void)state;
    enum { BUFFER = 256 << 10 };
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "input");
    char *data = malloc(BUFFER + 64);
    struct records_options options = options_of(FORMAT_LINES);
    options.path = path;
    options.max_record_bytes = options.max_text_bytes = BUFFER + 8;
    assert_non_null(data);
    for (size_t n = BUFFER - 4; n <= BUFFER + 4; n++) {
        struct records *r;
        struct record record;
        struct error err;
        memset(data, 'x', n);
        memcpy(data + n, "\r\nsecond\r\n\"third\"", 17);
        scratch_write(path, data, n + 17);
        assert_int_equal(records_open(&options, &r, &err), STATUS_OK);
        assert_int_equal(records_size(r), n + 17);
        assert_int_equal(records_next(r, &record, &err), STATUS_OK);
        assert_int_equal(record.text_bytes, n);
        assert_int_equal(records_bytes_read(r), n + 2);
        assert_int_equal(records_next(r, &record, &err), STATUS_OK);
        assert_int_equal(record.text_bytes, 6);
        assert_memory_equal(record.text, "second", 6);
        assert_int_equal(records_next(r, &record, &err), STATUS_OK);
        assert_int_equal(record.text_bytes, 7);
        assert_int_equal(records_bytes_read(r), n + 17);
        assert_int_equal(records_next(r, &record, &err), STATUS_NOT_FOUND);
        assert_false(records_would_wait(r));
        records_close(r);
    }
    free(data);
    scratch_remove(dir);
}

static void woken(void **state) {
    (void)state;
    int fds[2], wake = eventfd(0, 0);
    char path[64];
    struct records *r;
    struct record record;
    struct error err;
    assert_int_equal(pipe(fds), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[0]);
    struct records_options options = options_of(FORMAT_LINES);
    options.path = path;
    options.wake_fd = wake;
    assert_int_equal(write(fds[1], "one\ntwo\nhalf", 12), 12);
    assert_int_equal(records_open(&options, &r, &err), STATUS_OK);
    assert_int_equal(records_next(r, &record, &err), STATUS_OK);
    assert_false(records_would_wait(r));
    assert_int_equal(eventfd_write(wake, 1), 0);
    assert_int_equal(records_next(r, &record, &err), STATUS_CANCELLED);
    eventfd_t count;
    assert_int_equal(eventfd_read(wake, &count), 0);
    assert_int_equal(records_next(r, &record, &err), STATUS_OK);
    assert_memory_equal(record.text, "two", 3);
    records_close(r);
    /* Before anything came. */
    assert_int_equal(eventfd_write(wake, 1), 0);
    assert_int_equal(records_open(&options, &r, &err), STATUS_CANCELLED);
    close(fds[0]);
    close(fds[1]);
    close(wake);
}

static void what_cannot_be_opened(void **state) {
    (void)state;
    struct records_options options = options_of(FORMAT_AUTO);
    struct records *r;
    struct error err;
    options.path = "/no/such/file";
    assert_int_equal(records_open(&options, &r, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/no/such/file"));
    assert_null(r);
    options.path = "/";
    assert_int_equal(records_open(&options, &r, &err), STATUS_IO);
    records_close(NULL);
}

static void long_ids(void **state) {
    (void)state;
    struct records_options options = options_of(FORMAT_JSONL);
    options.max_record_bytes = 8192;
    static char data[8192], expected[8192];
    for (size_t n = 4096; n <= 4097; n++) {
        char id[4098];
        memset(id, 'x', n);
        id[n] = '\0';
        int length = snprintf(data, sizeof data, "{\"id\":\"%s\",\"text\":\"a\"}", id);
        if (n == 4096)
            snprintf(expected, sizeof expected, "1 \"%s\"=a\n", id);
        else
            snprintf(expected, sizeof expected, "1 1!id is longer than 4096 bytes\n");
        expect_as(options, "input", data, (size_t)length, expected);
        length = snprintf(data, sizeof data, "id,text\n%s,a\n", id);
        options.format = FORMAT_CSV;
        expect_as(options, "input", data, (size_t)length, expected);
        options.format = FORMAT_JSONL;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(limits),
        cmocka_unit_test(jsonl),
        cmocka_unit_test(jsonl_says_what_is_wrong),
        cmocka_unit_test(csv),
        cmocka_unit_test(csv_says_what_is_wrong),
        cmocka_unit_test(separators),
        cmocka_unit_test(formats),
        cmocka_unit_test(buffer_boundaries),
        cmocka_unit_test(woken),
        cmocka_unit_test(what_cannot_be_opened),
        cmocka_unit_test(long_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
