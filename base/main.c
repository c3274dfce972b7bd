/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - `vigil COMMAND …` runs the program vigil-COMMAND, as git does. The program is
 * looked for beside this one, then in ../libexec/vigil, then along PATH, and takes over the
 * process, so that signals and exit codes are its own.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/nearest.h"
#include "base/options.h"
#include "base/paths.h"

static const struct {
    const char *name;
    const char *summary;
} commands[] = {
    {"serve", "answer classification requests over HTTP"},
    {"classify", "classify a file or stdin: JSONL, CSV or plain lines"},
    {"tokenize", "turn lines of text into token ids"},
    {"model", "look at, check, quantise or make model files"},
    {"stream", "bring posts in: files, X, Bluesky, Mastodon, HTTP"},
    {"enrich", "have stored posts classified, and keep the results"},
    {"query", "ask the store in SQL"},
    {"export", "write results as files for a data lake"},
    {"erase", "forget a post, an author, a source, or what is old"},
    {"dlq", "look at, retry or drop posts that failed for good"},
    {"bench", "measure a server, or the engine alone"},
    {"doctor", "say what is wrong with this installation"},
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static const char *const examples[] = {"vigil serve --model weights/ade --port 8080",
                                       "serve the default model",
                                       "echo 'this gave me a rash' | vigil classify",
                                       "classify one line",
                                       "vigil help serve",
                                       "show the options of a command",
                                       NULL};

static const struct program program = {
    .name = "vigil",
    .summary = "find adverse drug events in what people write",
    .usage = "COMMAND [arguments]\nhelp COMMAND",
    .description =
        "Vigil reads what people write about their medicines and finds the adverse "
        "events in it. This program runs one of its commands, each a program of its "
        "own: "
        "vigil-serve(1), vigil-classify(1), vigil-tokenize(1), vigil-model(1), "
        "vigil-stream(1), vigil-enrich(1), vigil-query(1), vigil-export(1), "
        "vigil-erase(1), vigil-dlq(1), vigil-bench(1) and vigil-doctor(1).",
    .examples = examples,
    .max_arguments = -1,
};

static void print_help(FILE *out) {
    fputs("Usage: vigil COMMAND [arguments]\n"
          "       vigil help COMMAND\n\n"
          "Vigil finds adverse drug events in what people write.\n\nCommands:\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\nGeneral:\n"
          "  -h, --help     show this help\n"
          "  -V, --version  show the version\n\nExamples:\n",
          out);
    for (size_t i = 0; examples[i]; i += 2)
        fprintf(out, "  %s\n      %s\n", examples[i], examples[i + 1]);
}

/* Becomes vigil-NAME; comes back only when there is no such program. */
static void run(const char *name, char **argv) {
    char file[NAME_MAX], path[PATH_MAX];
    static const char *const places[] = {"", "../libexec/vigil/"};
    int n = snprintf(file, sizeof file, "vigil-%s", name);
    if (n < 0 || (size_t)n >= sizeof file || strchr(name, '/'))
        return;
    argv[0] = file;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char relative[NAME_MAX + 32];
        snprintf(relative, sizeof relative, "%s%s", places[i], file);
        if (paths_beside(relative, path, sizeof path, NULL) == STATUS_OK)
            execv(path, argv);
        if (errno != ENOENT && errno != ENOTDIR) {
            fprintf(stderr, "vigil: cannot run %s: %s\n", path, strerror(errno));
            exit(EXIT_FAILED);
        }
    }
    execvp(file, argv);
}

static int unknown_command(const char *name) {
    struct nearest best = {0};
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            fprintf(stderr,
                    "vigil: vigil-%s is neither beside this program nor on PATH; "
                    "reinstall, or build it with make\n",
                    name);
            return EXIT_FAILED;
        }
        nearest_consider(&best, name, commands[i].name);
    }
    fprintf(stderr, "vigil: unknown command \"%.40s\"", name);
    if (best.name)
        fprintf(stderr, "; did you mean %s?", best.name);
    fputs("\nTry 'vigil --help'.\n", stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        (argc == 2 && strcmp(argv[1], "help") == 0)) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_OK;
    }
    if (argv[1][0] == '-') {
        int n_arguments, exit_code;
        options_parse(&program, argc, argv, NULL, &n_arguments, &exit_code);
        return exit_code >= 0 ? exit_code : EXIT_USAGE;
    }
    if (strcmp(argv[1], "help") == 0) {
        char flag[] = "--help";
        char *help[] = {NULL, flag, NULL};
        run(argv[2], help);
        return unknown_command(argv[2]);
    }
    const char *name = argv[1];
    run(name, argv + 1);
    return unknown_command(name);
}
