/* SPDX-License-Identifier: Apache-2.0
 *
 * check.h - runs a table of test cases, a line each: a machine with a GPU may lack cmocka.
 *
 * CHECK counts a failure and goes on; check_stop and check_skip leave the case. Arguments
 * of the program are parts of names: only cases that have one of them run. Returns how many
 * failed, and closes as cmocka does, for tests/run to count.
 */
#ifndef VIGIL_TESTS_CUDA_CHECK_H
#define VIGIL_TESTS_CUDA_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct check_case {
    const char *name;
    void (*run)(int argument);
    int argument;
};

enum { CHECK_MAX_SHOWN = 6 }; /* failures of one case that are told */
static int check_n_failures;
static bool check_is_skipped;
static jmp_buf check_end;

__attribute__((format(printf, 1, 2))) static inline void check_fail(const char *format,
                                                                    ...) {
    va_list arguments;
    if (check_n_failures++ >= CHECK_MAX_SHOWN)
        return;
    va_start(arguments, format);
    printf("        ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

#define CHECK(is_right, ...) ((is_right) ? (void)0 : check_fail(__VA_ARGS__))
#define check_stop(...) (check_fail(__VA_ARGS__), longjmp(check_end, 1))
#define check_skip(...)                                                                \
    (printf("        SKIPPED: " __VA_ARGS__), printf("\n"), check_is_skipped = true,   \
     longjmp(check_end, 1))

static inline void check_run(const struct check_case *c) {
    check_n_failures = 0;
    check_is_skipped = false;
    if (setjmp(check_end) == 0)
        c->run(c->argument);
}

static inline int check_main(const struct check_case *cases, size_t n, int argc,
                             char **argv) {
    static const char *const words[] = {"ok", "skip", "FAIL"};
    int counts[3] = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < n; i++) {
        bool is_wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            is_wanted = is_wanted || strstr(cases[i].name, argv[a]);
        if (!is_wanted)
            continue;
        clock_t start = clock();
        check_run(&cases[i]);
        int end = check_n_failures ? 2 : check_is_skipped ? 1 : 0;
        counts[end]++;
        if (check_n_failures > CHECK_MAX_SHOWN)
            printf("        and %d more\n", check_n_failures - CHECK_MAX_SHOWN);
        printf("  %-5s %s, %.1f s\n", words[end], cases[i].name,
               (double)(clock() - start) / CLOCKS_PER_SEC);
    }
    printf("[  PASSED  ] %d test(s).\n", counts[0]);
    if (counts[1])
        printf("[  SKIPPED ] %d test(s), told above.\n", counts[1]);
    if (counts[2])
        printf("[  FAILED  ] %d test(s), told above.\n", counts[2]);
    return counts[2] > 100 ? 100 : counts[2];
}

#endif
