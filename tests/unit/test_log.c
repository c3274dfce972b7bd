/* SPDX-License-Identifier: Apache-2.0
 *
 * test_log.c - both formats, values that try to break out of their line, records that are
 * too long, and lines of several threads.
 */
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/log.h"

#define MAX_OUTPUT_BYTES (1 << 20)
static char output[MAX_OUTPUT_BYTES];
static int memory = -1;

static void begin(enum log_level level, enum log_format format) {
    memory = memfd_create("log", 0);
    assert_true(memory >= 0);
    log_configure(level, format, memory);
}

/* What was logged since begin. */
static const char *end(void) {
    ssize_t n = pread(memory, output, MAX_OUTPUT_BYTES - 1, 0);
    assert_true(n >= 0);
    output[n] = '\0';
    close(memory);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT, STDERR_FILENO);
    return output;
}

static void log_everything(void) {
    struct log_line line;
    log_begin(&line, LOG_LEVEL_INFO, "request");
    log_string(&line, "route", "/v1/classify");
    log_string(&line, "empty", "");
    log_string(&line, "none", NULL);
    log_string(&line, "quoted", "a \"b\" c\\d=e");
    log_bytes(&line, "bytes", "x\0y", 3);
    log_integer(&line, "code", INT64_MIN);
    log_number(&line, "ms", 0.25);
    log_number(&line, "nan", (double)NAN);
    log_boolean(&line, "ok", true);
    log_end(&line);
}

/* The time is the only part that changes. */
static const char *behind_time(const char *text, const char *before) {
    assert_memory_equal(text, before, strlen(before));
    return text + strlen(before) + strlen("2026-11-23T15:20:07.042Z");
}

static void test_logfmt(void **state) {
    (void)state;
    begin(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    log_everything();
    assert_string_equal(behind_time(end(), "time="),
                        " level=info event=request route=/v1/classify empty=\"\" "
                        "none=\"\" quoted=\"a \\\"b\\\" c\\\\d=e\" bytes=\"x\\u0000y\" "
                        "code=-9223372036854775808 ms=0.25 nan=null ok=true\n");
}

static void test_json(void **state) {
    (void)state;
    begin(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_everything();
    assert_string_equal(
        behind_time(end(), "{\"time\":\""),
        "\",\"level\":\"info\",\"event\":\"request\",\"route\":\"/v1/"
        "classify\",\"empty\":"
        "\"\",\"none\":\"\",\"quoted\":\"a \\\"b\\\" "
        "c\\\\d=e\",\"bytes\":\"x\\u0000y\","
        "\"code\":-9223372036854775808,\"ms\":0.25,\"nan\":null,\"ok\":true}\n");
}

/* No byte of a value ends the line, escapes the terminal, or turns the writing round. */
static void test_injection(void **state) {
    (void)state;
    static const char *const values[][2] = {
        {"a\nlevel=error", "\"a\\nlevel=error\""},
        {"\r", "\"\\u000d\""},
        {"\x1b[2J", "\"\\u001b[2J\""},
        {"\xc2\x9b"
         "2J",
         "\"\\u009b2J\""},
        {"\xe2\x80\xa8", "\"\\u2028\""},
        {"\xe2\x80\xae", "\"\\u202e\""},
        {"\xff\xfe", "\"\\ufffd\\ufffd\""},
        {"\xe2\x82", "\"\\ufffd\\ufffd\""},
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},
        {"\xc0\xaf", "\"\\ufffd\\ufffd\""},
        {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
        {"\x7f", "\"\\u007f\""},
        {"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80",
         "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\""},
    };
    for (int format = LOG_FORMAT_LOGFMT; format <= LOG_FORMAT_JSON; format++) {
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            struct log_line line;
            begin(LOG_LEVEL_INFO, (enum log_format)format);
            log_begin(&line, LOG_LEVEL_WARNING, "x");
            log_string(&line, "v", values[i][0]);
            log_end(&line);
            const char *text = end();
            assert_non_null(strstr(text, values[i][1]));
            assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        }
    }
}

static void test_levels(void **state) {
    (void)state;
    begin(LOG_LEVEL_WARNING, LOG_FORMAT_LOGFMT);
    log_message(LOG_LEVEL_INFO, "a", "no");
    log_message(LOG_LEVEL_WARNING, "b", "%d yes", 1);
    assert_false(log_is_on(LOG_LEVEL_DEBUG));
    assert_string_equal(behind_time(end(), "time="),
                        " level=warning event=b message=\"1 yes\"\n");
    assert_int_equal(log_level_of("debug"), LOG_LEVEL_DEBUG);
    assert_int_equal(log_level_of("info"), LOG_LEVEL_INFO);
    assert_int_equal(log_level_of("warning"), LOG_LEVEL_WARNING);
    assert_int_equal(log_level_of("error"), LOG_LEVEL_ERROR);
    assert_int_equal(log_format_of("json"), LOG_FORMAT_JSON);
    assert_int_equal(log_format_of("logfmt"), LOG_FORMAT_LOGFMT);
}

/* At every length round the limit the line is whole JSON, ends in one newline, and says
 * when a field was left out. Fields behind a long one still come. */
static void test_long_lines(void **state) {
    (void)state;
    static char value[2 * LOG_LINE_BYTES];
    static const struct json_limits limits = {
        .max_bytes = 8192, .max_depth = 4, .max_values = 32, .max_key_bytes = 64};
    bool was_cut = false, was_whole = false;
    memset(value, 'x', sizeof value);
    for (size_t n = LOG_LINE_BYTES - 250; n < LOG_LINE_BYTES + 10; n++) {
        struct log_line line;
        json_t *parsed = NULL;
        begin(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
        log_begin(&line, LOG_LEVEL_INFO, "x");
        log_bytes(&line, "long", value, n);
        log_integer(&line, "code", 200);
        log_end(&line);
        const char *text = end();
        size_t n_text = strlen(text);
        assert_true(n_text <= LOG_LINE_BYTES);
        assert_int_equal(text[n_text - 1], '\n');
        assert_int_equal(json_parse(text, n_text - 1, &limits, &parsed, NULL),
                         STATUS_OK);
        bool is_cut = json_is_true(json_object_get(parsed, "cut"));
        bool is_whole =
            json_object_get(parsed, "long") && json_object_get(parsed, "code");
        assert_true(is_cut != is_whole);
        was_cut |= is_cut;
        was_whole |= is_whole;
        json_decref(parsed);
    }
    assert_true(was_cut && was_whole);
}

static void test_journal(void **state) {
    (void)state;
    struct stat facts;
    char stream[64];
    memory = memfd_create("log", 0);
    fstat(memory, &facts);
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)facts.st_dev,
             (uintmax_t)facts.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT, memory);
    log_message(LOG_LEVEL_ERROR, "x", "y");
    unsetenv("JOURNAL_STREAM");
    assert_string_equal(behind_time(end(), "<3>time="),
                        " level=error event=x message=y\n");
}

#define N_THREADS 4
#define N_LINES 500

static void *log_many(void *letter) {
    char value[200];
    memset(value, *(const char *)letter, sizeof value);
    for (int i = 0; i < N_LINES; i++) {
        struct log_line line;
        log_begin(&line, LOG_LEVEL_INFO, "x");
        log_bytes(&line, "v", value, sizeof value);
        log_end(&line);
    }
    return NULL;
}

/* Reads a pipe until n_lines have come; what it read, in text. */
static void read_lines(int source, size_t n_lines) {
    size_t n_bytes = 0;
    while (n_lines > 0) {
        struct pollfd ready = {.fd = source, .events = POLLIN};
        if (poll(&ready, 1, 10000) != 1)
            fail_msg("%zu lines never came", n_lines);
        ssize_t n = read(source, output + n_bytes, MAX_OUTPUT_BYTES - 1 - n_bytes);
        assert_true(n > 0);
        for (ssize_t i = 0; i < n && n_lines > 0; i++)
            n_lines -= output[n_bytes + (size_t)i] == '\n';
        n_bytes += (size_t)n;
    }
    output[n_bytes] = '\0';
}

/* Into a pipe, which takes such a write whole; a memfd would lose lines, for its position
 * is not kept by a lock as that of a file on disk is. */
static void test_threads(void **state) {
    (void)state;
    static const char letters[N_THREADS] = {'a', 'b', 'c', 'd'};
    pthread_t threads[N_THREADS];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT, ends[1]);
    for (size_t i = 0; i < N_THREADS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, log_many, (void *)(uintptr_t)&letters[i]),
            0);
    read_lines(ends[0], N_THREADS * N_LINES);
    for (size_t i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT, STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    const char *text = output;
    size_t n_lines = 0;
    while (*text) {
        assert_memory_equal(text, "time=", 5);
        const char *value = strstr(text, " v=");
        assert_non_null(value);
        assert_int_equal(strspn(value + 3, (const char[]){value[3], '\0'}), 200);
        text = value + 203;
        assert_int_equal(*text++, '\n');
        n_lines++;
    }
    assert_int_equal(n_lines, N_THREADS * N_LINES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logfmt),     cmocka_unit_test(test_json),
        cmocka_unit_test(test_injection),  cmocka_unit_test(test_levels),
        cmocka_unit_test(test_long_lines), cmocka_unit_test(test_journal),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
