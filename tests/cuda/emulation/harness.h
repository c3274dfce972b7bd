/* SPDX-License-Identifier: Apache-2.0
 *
 * harness.h - tests of the emulation: each in a child of its own, whose end is looked at.
 *
 * What the emulation finds, it dies of; so a test either passes, or must die with certain
 * words on stderr. The parent never touches the emulation: every child begins afresh, and
 * may set the environment first. The last lines are cmocka's, which tests/run counts.
 */
#ifndef VIGIL_EMULATION_HARNESS_H
#define VIGIL_EMULATION_HARNESS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

struct test {
    const char *name;
    void (*run)();
    const char *dies_with; /* NULL: it does not */
};

#define TEST(function)                                                                 \
    { #function, function, nullptr }
#define DIES(function, words)                                                          \
    { #function, function, words }

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
            _exit(3);                                                                  \
        }                                                                              \
    } while (0)

#define CHECK_IS(expected, actual)                                                     \
    do {                                                                               \
        long long is = (long long)(actual), be = (long long)(expected);                \
        if (is != be) {                                                                \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__,       \
                    #actual, is, be);                                                  \
            _exit(3);                                                                  \
        }                                                                              \
    } while (0)

#ifdef __SANITIZE_ADDRESS__
static const bool has_asan = true;
#else
static const bool has_asan = false;
#endif

/* Runs it in a child; what the child said on stderr. */
static inline int harness_child(const struct test *test, std::string *said) {
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        alarm(120);
        test->run();
        fflush(stderr);
        _exit(0);
    }
    close(ends[1]);
    char text[4096];
    for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;)
        said->append(text, (size_t)n);
    close(ends[0]);
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

static inline int harness_main(const struct test *tests, size_t n_tests, int argc,
                               char **argv) {
    size_t n_passed = 0, n_failed = 0;
    for (size_t i = 0; i < n_tests; i++) {
        const struct test *t = &tests[i];
        std::string said;
        if (argc > 1 && !strstr(t->name, argv[1]))
            continue;
        int status = harness_child(t, &said);
        bool is_dead = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        bool is_good = t->dies_with
                           ? is_dead && said.find(t->dies_with) != std::string::npos
                           : !is_dead;
        printf("[ %s ] %s\n", is_good ? "      OK" : " FAILED ", t->name);
        (is_good ? n_passed : n_failed)++;
        if (is_good)
            continue;
        if (t->dies_with)
            printf("should have died with: %s\n", t->dies_with);
        printf("status %#x, stderr:\n%s\n", (unsigned)status, said.c_str());
    }
    printf("[  PASSED  ] %zu test(s).\n", n_passed);
    if (n_failed)
        printf("[  FAILED  ] %zu test(s).\n", n_failed);
    return n_failed > 255 ? 255 : (int)n_failed;
}

#endif
