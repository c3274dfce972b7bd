/* SPDX-License-Identifier: Apache-2.0
 *
 * test_progress.c - the line at every width, and silence where there is no terminal.
 */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/progress.h"

static const struct progress half = {
    .what = "classify", .unit = "posts", .total = 27000, .done = 13500, .rate = 1234.4};

static void test_line(void **state) {
    (void)state;
    char line[256];
    size_t n = progress_render(&half, 0, 100, line, sizeof line);
    assert_string_equal(line,
                        "classify [===============>              ]  50 %  13,500 / "
                        "27,000 posts  1,234/s  11 s left");
    assert_int_equal(n, strlen(line));
    struct progress p = half;
    p.total = 0;
    progress_render(&p, 75 * CLOCK_NS_PER_SECOND, 100, line, sizeof line);
    assert_string_equal(line, "classify 13,500 posts  1,234/s  1 min 15 s");
    p.rate = 0;
    progress_render(&p, 7265 * CLOCK_NS_PER_SECOND, 100, line, sizeof line);
    assert_string_equal(line, "classify 13,500 posts  2 h 1 min");
    p = half;
    p.done = p.total + 5; /* a file that grew */
    progress_render(&p, CLOCK_NS_PER_SECOND, 100, line, sizeof line);
    assert_non_null(strstr(line, "100 %"));
}

/* Never as wide as the terminal, whatever the numbers are: it would wrap. */
static void test_widths(void **state) {
    (void)state;
    static const int64_t values[] = {0, 1, 999, 1000, INT64_C(1) << 40, INT64_MAX};
    char line[512];
    for (size_t columns = 1; columns < 220; columns++) {
        for (size_t i = 0; i < 6; i++) {
            struct progress p = half;
            p.total = p.done = values[i];
            p.rate = (double)(values[i] / 2);
            size_t n = progress_render(&p, INT64_MAX, columns, line, sizeof line);
            assert_true(n < columns);
            assert_int_equal(n, strlen(line));
        }
    }
    char small[8];
    assert_int_equal(progress_render(&half, 0, 100, small, sizeof small), 7);
    assert_string_equal(small, "classif");
}

#define END_OF_BAR '\x04'

/* A terminal hands on what was written in pieces and late: reads up to the mark. */
static ssize_t read_to_mark(int source, char *text, size_t cap_bytes) {
    size_t n_bytes = 0;
    while (n_bytes < cap_bytes) {
        struct pollfd ready = {.fd = source, .events = POLLIN};
        if (poll(&ready, 1, 10000) != 1)
            return -1;
        ssize_t n = read(source, text + n_bytes, cap_bytes - n_bytes);
        if (n <= 0)
            return -1;
        n_bytes += (size_t)n;
        if (text[n_bytes - 1] == END_OF_BAR)
            return (ssize_t)n_bytes - 1;
    }
    return -1;
}

/* Runs a bar of 3 x 120 ms on a file or terminal; what it wrote, in text. */
static void run_bar(int fd, int source, char *text, size_t cap_bytes) {
    struct progress p;
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    progress_begin(&p, "classify", "posts", 300);
    for (int i = 1; i <= 3; i++) {
        usleep(120000);
        progress_update(&p, i * 100, 0);
        progress_update(&p, i * 100, 0);
    }
    progress_end(&p);
    if (source >= 0)
        fputc(END_OF_BAR, stderr);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    ssize_t n = source >= 0 ? read_to_mark(source, text, cap_bytes - 1)
                            : pread(fd, text, cap_bytes - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
}

static void test_no_terminal(void **state) {
    (void)state;
    char text[64];
    int memory = memfd_create("stderr", 0);
    run_bar(memory, -1, text, sizeof text);
    assert_string_equal(text, "");
    close(memory);
}

static void test_terminal(void **state) {
    (void)state;
    char text[4096];
    int source = posix_openpt(O_RDWR | O_NOCTTY);
    if (source < 0 || grantpt(source) != 0 || unlockpt(source) != 0)
        skip();
    int terminal = open(ptsname(source), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    const struct winsize size = {.ws_row = 24, .ws_col = 60};
    ioctl(terminal, TIOCSWINSZ, &size);
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    run_bar(terminal, source, text, sizeof text);
    assert_non_null(strstr(text, "\033[36mclassify "));
    assert_non_null(strstr(text, "100 / 300 posts"));
    setenv("NO_COLOR", "1", 1);
    run_bar(terminal, source, text, sizeof text);
    assert_null(strchr(text, '\033'));
    assert_non_null(strstr(text, "\rclassify "));
    setenv("TERM", "dumb", 1);
    struct progress p;
    int saved = dup(STDERR_FILENO);
    dup2(terminal, STDERR_FILENO);
    progress_begin(&p, "x", "y", 1);
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_false(p.is_shown);
    close(terminal);
    close(source);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_no_terminal),
        cmocka_unit_test(test_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
