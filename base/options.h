/* SPDX-License-Identifier: Apache-2.0
 *
 * options.h - one table a program: it parses the command line, the environment and the
 * config file, and prints --help, the man page and the shell completion.
 *
 * An option's value comes from, in this order: its flag, the environment variable
 * VIGIL_<NAME> (dashes become underscores, upper case), the config file (--config FILE or
 * VIGIL_CONFIG: `name = value` lines, `#` comments, sections `[serve]` that hold for one
 * program), the default. Every program also has --help, --version, --config and, for the
 * build, --help-man and --help-completion.
 */
#ifndef VIGIL_BASE_OPTIONS_H
#define VIGIL_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum option_type {
    OPTION_FLAG,    /* bool; --name, --no-name */
    OPTION_STRING,  /* const char *, points into argv, the environment or kept memory */
    OPTION_INTEGER, /* int64_t in [min, max] */
    OPTION_BYTES,   /* int64_t in [min, max]; suffixes K M G (powers of 1024) */
    OPTION_SECONDS, /* int64_t nanoseconds in [min, max] ns; "1.5", "1.5s", "250ms", "100us" */
    OPTION_NUMBER, /* double */
    OPTION_CHOICE  /* const char *, one of choices */
};

struct option {
    const char *name; /* "max-body" */
    char letter;      /* short form, or 0 */
    enum option_type type;
    size_t target;          /* offsetof() in the program's options struct */
    const char *value_name; /* "BYTES"; NULL for a flag */
    const char *fallback;   /* the default, as one would type it; NULL: zero or NULL */
    int64_t min, max;       /* of INTEGER, BYTES, SECONDS; max == 0: no bound */
    const char *choices;    /* "auto|cpu|reference" */
    const char *help;       /* one line, no full stop */
    const char *group;      /* heading in --help; NULL: "Options" */
};

struct program {
    const char *name;        /* "vigil-serve"; shown as `vigil serve` */
    const char *summary;     /* one line */
    const char *usage;       /* "[options] [FILE]", may hold several lines */
    const char *description; /* paragraphs for the man page; NULL */
    const struct option *options;
    size_t n_options;
    const char *const *examples; /* pairs: command, what it does; NULL-terminated */
    int min_arguments, max_arguments; /* positional; max -1: any number */
    const char *argument_kind;        /* for completion: "file", "directory", NULL */
};

#define EXIT_OK 0
#define EXIT_FAILED 1
#define EXIT_USAGE 2

/* Parses into *values (a zeroed struct that the table's offsets describe). Positional
 * arguments are left in argv[1 ..], their number in *n_arguments. Handles --help, --version
 * and their kin itself: *exit_code is then >= 0 and the caller returns it from main. A usage
 * error prints `vigil serve: what is wrong` and a hint on stderr and sets EXIT_USAGE. */
void options_parse(const struct program *program, int argc, char **argv, void *values,
                   int *n_arguments, int *exit_code);

#endif
