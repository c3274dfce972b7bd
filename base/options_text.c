/* SPDX-License-Identifier: Apache-2.0
 *
 * options_text.c - --help, the man page and the completion table, printed from the same
 * option table that the parser reads, so that none of them can go stale.
 *
 * The help is 80 columns wide: names on the left, up to LEFT_COLUMNS, their text wrapped on
 * the right. The man page is plain man(7) without a date, so that a build is reproducible.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#include "base/memory.h"
#include "base/options_table.h"

#define HELP_COLUMNS 80
#define LEFT_COLUMNS 28
#define MAX_HELP_BYTES 2048

static const struct option standard_options[] = {
    {.name = "config",
     .type = OPTION_STRING,
     .value_name = "FILE",
     .help = "read options from FILE, lines of name = value"},
    {.name = "help", .letter = 'h', .help = "show this help"},
    {.name = "version", .letter = 'V', .help = "show the version"},
};
#define N_STANDARD (sizeof standard_options / sizeof standard_options[0])

void options_title(const struct program *program, char out[OPTION_TEXT_BYTES]) {
    snprintf(out, OPTION_TEXT_BYTES, "%s", program->name);
    if (strncmp(out, "vigil-", 6) != 0)
        return;
    for (char *c = out; *c; c++)
        if (*c == '-')
            *c = ' ';
}

void options_variable(const char *name, char out[OPTION_TEXT_BYTES]) {
    int n = snprintf(out, OPTION_TEXT_BYTES, "VIGIL_%s", name);
    for (int i = 0; i < n && i < OPTION_TEXT_BYTES; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* A bound as one would type it: 65535, 64M, 250ms. */
static void show_bound(const struct option *option, int64_t value, char out[32]) {
    static const char sizes[] = "KMG";
    static const char *const times[] = {"ns", "us", "ms", "s"};
    size_t unit = 0;
    if (option->type == OPTION_BYTES) {
        while (unit < 3 && value != 0 && value % 1024 == 0) {
            value /= 1024;
            unit++;
        }
        snprintf(out, 32, "%" PRId64 "%.1s", value, unit ? sizes + unit - 1 : "");
    } else if (option->type == OPTION_SECONDS) {
        while (unit < 3 && value % 1000 == 0) {
            value /= 1000;
            unit++;
        }
        snprintf(out, 32, "%" PRId64 "%s", value, times[unit]);
    } else {
        snprintf(out, 32, "%" PRId64, value);
    }
}

void options_expected(const struct option *option, char out[OPTION_TEXT_BYTES]) {
    static const char *const kinds[] = {
        [OPTION_FLAG] = "true or false", [OPTION_STRING] = "text",
        [OPTION_INTEGER] = "an integer", [OPTION_BYTES] = "a size",
        [OPTION_SECONDS] = "a time",     [OPTION_NUMBER] = "a number",
        [OPTION_CHOICE] = "one of ",
    };
    int n = snprintf(out, OPTION_TEXT_BYTES, "%s", kinds[option->type]);
    char *rest = out + n;
    size_t n_rest = OPTION_TEXT_BYTES - (size_t)n;
    char low[32], high[32];
    const char *hint = option->type == OPTION_BYTES     ? " (as 512K or 6M)"
                       : option->type == OPTION_SECONDS ? " (as 1.5s or 250ms)"
                                                        : "";
    show_bound(option, option->min, low);
    show_bound(option, option->max, high);
    if (option->type == OPTION_CHOICE) {
        for (const char *c = option->choices; c && *c && n_rest > 3; c++) {
            int used = snprintf(rest, n_rest, *c == '|' ? ", " : "%c", *c);
            rest += used;
            n_rest -= (size_t)used;
        }
    } else if (option->type == OPTION_INTEGER || option->type == OPTION_BYTES ||
               option->type == OPTION_SECONDS) {
        if (option->max != 0)
            snprintf(rest, n_rest, " from %s to %s%s", low, high, hint);
        else if (option->min != 0)
            snprintf(rest, n_rest, " of %s or more%s", low, hint);
        else
            snprintf(rest, n_rest, "%s", hint);
    }
}

/* "-p, --port PORT" */
static void left_side(const struct option *option, bool has_letters, char *out,
                      size_t n_out) {
    char letter[8] = "";
    if (has_letters)
        snprintf(letter, sizeof letter, option->letter ? "-%c, " : "    ",
                 option->letter);
    const char *value = option->value_name;
    if (!value && option->type != OPTION_FLAG)
        value = option->type == OPTION_CHOICE ? "NAME" : "VALUE";
    snprintf(out, n_out, "%s--%s%s%s%s", letter, options_is_on(option) ? "[no-]" : "",
             option->name, option->type == OPTION_FLAG ? "" : " ",
             option->type == OPTION_FLAG ? "" : value);
}

/* The help line with the choices and the default behind it. */
static void right_side(const struct option *option, char out[MAX_HELP_BYTES]) {
    char choices[OPTION_TEXT_BYTES] = "";
    const char *fallback = option->fallback;
    if (option->type == OPTION_FLAG)
        fallback = options_is_on(option) ? "on" : NULL;
    if (option->type == OPTION_CHOICE)
        options_expected(option, choices);
    if (fallback && *fallback == '\0')
        fallback = NULL;
    snprintf(out, MAX_HELP_BYTES, "%s%s%s%s%s%s%s", option->help ? option->help : "",
             *choices || fallback ? " (" : "", choices,
             *choices && fallback ? "; " : "", fallback ? "default: " : "",
             fallback ? fallback : "", *choices || fallback ? ")" : "");
}

/* Prints text wrapped at HELP_COLUMNS; the cursor is at column `at`, and lines that follow
 * start at `indent`. */
static void print_wrapped(FILE *out, const char *text, int at, int indent) {
    bool is_first = true;
    while (*text) {
        int n = (int)strcspn(text, " \n");
        if (!is_first && at + 1 + n > HELP_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
            is_first = true;
        }
        fprintf(out, "%s%.*s", is_first ? "" : " ", n, text);
        at += n + !is_first;
        is_first = false;
        text += n;
        while (*text == ' ' || *text == '\n')
            text++;
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const struct option *option, bool has_letters,
                         int column) {
    char left[OPTION_TEXT_BYTES], right[MAX_HELP_BYTES];
    left_side(option, has_letters, left, sizeof left);
    right_side(option, right);
    if ((int)strlen(left) + 4 > column)
        fprintf(out, "  %s\n%*s", left, column, "");
    else
        fprintf(out, "  %-*s", column - 2, left);
    print_wrapped(out, right, column, column);
}

static const char *group_of(const struct option *option) {
    return option->group ? option->group : "Options";
}

/* True when an option before this one has its group already. */
static bool is_group_seen(const struct program *program, size_t i) {
    for (size_t j = 0; j < i; j++)
        if (strcmp(group_of(&program->options[j]), group_of(&program->options[i])) == 0)
            return true;
    return false;
}

static void print_options(const struct program *program, FILE *out) {
    char left[OPTION_TEXT_BYTES];
    int column = 0;
    for (size_t i = 0; i < program->n_options; i++) {
        left_side(&program->options[i], true, left, sizeof left);
        int wanted = (int)strlen(left) + 4;
        if (wanted > column && wanted <= LEFT_COLUMNS + 4)
            column = wanted;
    }
    left_side(&standard_options[0], true, left, sizeof left);
    if (column < (int)strlen(left) + 4)
        column = (int)strlen(left) + 4;
    for (size_t i = 0; i < program->n_options; i++) {
        if (is_group_seen(program, i))
            continue;
        const char *group = group_of(&program->options[i]);
        fprintf(out, "\n%s:\n", group);
        for (size_t j = i; j < program->n_options; j++)
            if (strcmp(group_of(&program->options[j]), group) == 0)
                print_option(out, &program->options[j], true, column);
    }
    fputs("\nGeneral:\n", out);
    for (size_t i = 0; i < N_STANDARD; i++)
        print_option(out, &standard_options[i], true, column);
}

/* Each line of the usage text behind the program's name. */
static void print_usage(const struct program *program, const char *title, FILE *out) {
    const char *usage = program->usage ? program->usage : "[options]";
    const char *lead = "Usage: ";
    while (*usage) {
        int n = (int)strcspn(usage, "\n");
        fprintf(out, "%s%s %.*s\n", lead, title, n, usage);
        lead = "       ";
        usage += n;
        usage += *usage == '\n';
    }
}

void options_print_help(const struct program *program, FILE *out) {
    char title[OPTION_TEXT_BYTES], variable[OPTION_TEXT_BYTES];
    options_title(program, title);
    print_usage(program, title, out);
    fputc('\n', out);
    print_wrapped(out, program->summary, 0, 0);
    print_options(program, out);
    if (program->n_options > 0) {
        char line[512];
        options_variable(program->options[0].name, variable);
        snprintf(line, sizeof line,
                 "Every option can also be set by an environment variable (%s for "
                 "--%s) or in the config file; the flag wins, then the variable, then "
                 "the file.",
                 variable, program->options[0].name);
        fputc('\n', out);
        print_wrapped(out, line, 0, 0);
    }
    if (program->examples && program->examples[0])
        fputs("\nExamples:\n", out);
    for (const char *const *e = program->examples; e && e[0] && e[1]; e += 2) {
        fprintf(out, "  %s\n      ", e[0]);
        print_wrapped(out, e[1], 6, 6);
    }
}

/* Text for roff: no escapes, no requests, and dashes that stay dashes. */
static void print_roff(FILE *out, const char *text) {
    bool is_line_start = true;
    for (; *text; text++) {
        if (is_line_start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        is_line_start = *text == '\n';
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
    }
}

static void print_roff_option(FILE *out, const struct option *option) {
    char text[MAX_HELP_BYTES];
    left_side(option, false, text, sizeof text);
    fputs(".TP\n.B ", out);
    if (option->letter)
        fprintf(out, "\\-%c, ", option->letter);
    print_roff(out, text);
    fputc('\n', out);
    right_side(option, text);
    print_roff(out, text);
    fputs(".\n", out);
}

static void print_roff_options(const struct program *program, FILE *out) {
    fputs(".SH OPTIONS\n", out);
    for (size_t i = 0; i < program->n_options; i++) {
        if (is_group_seen(program, i))
            continue;
        const char *group = group_of(&program->options[i]);
        fputs(".SS ", out);
        print_roff(out, group);
        fputc('\n', out);
        for (size_t j = i; j < program->n_options; j++)
            if (strcmp(group_of(&program->options[j]), group) == 0)
                print_roff_option(out, &program->options[j]);
    }
    fputs(".SS General\n", out);
    for (size_t i = 0; i < N_STANDARD; i++)
        print_roff_option(out, &standard_options[i]);
}

static void print_roff_environment(const struct program *program, FILE *out) {
    char variable[OPTION_TEXT_BYTES];
    fputs(".SH ENVIRONMENT\n", out);
    fputs("A flag wins over its variable, a variable over the config file. An empty "
          "variable counts as unset.\n",
          out);
    for (size_t i = 0; i < program->n_options; i++) {
        options_variable(program->options[i].name, variable);
        fprintf(out, ".TP\n.B %s\nas ", variable);
        fputs("\\-\\-", out);
        print_roff(out, program->options[i].name);
        fputc('\n', out);
    }
    fputs(".TP\n.B VIGIL_CONFIG\nas \\-\\-config\n.TP\n.B NO_COLOR\nwhen set, plain "
          "output without colours and progress bars\n",
          out);
}

static void print_roff_files(const struct program *program, FILE *out) {
    const char *section = program->name;
    if (strncmp(section, "vigil-", 6) == 0)
        section += 6;
    fputs(".SH FILES\nA config file has lines of\n.B name = value\nand comments behind "
          "#. Lines ahead of all sections hold for every program that has such an "
          "option, lines behind\n.B [",
          out);
    print_roff(out, section);
    fputs("]\nfor this one alone.\n", out);
}

void options_print_man(const struct program *program, FILE *out) {
    char title[OPTION_TEXT_BYTES], upper[OPTION_TEXT_BYTES];
    options_title(program, title);
    snprintf(upper, sizeof upper, "%s", program->name);
    for (char *c = upper; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    fprintf(out, ".TH %s 1 \"\" \"vigil %s\" \"Vigil manual\"\n.SH NAME\n", upper,
            VIGIL_VERSION);
    print_roff(out, program->name);
    fputs(" \\- ", out);
    print_roff(out, program->summary);
    fputs("\n.SH SYNOPSIS\n", out);
    const char *usage = program->usage ? program->usage : "[options]";
    while (*usage) {
        char line[512];
        int n = (int)strcspn(usage, "\n");
        snprintf(line, sizeof line, "%.*s", n, usage);
        fprintf(out, ".B %s\n", title);
        print_roff(out, line);
        fputs("\n.br\n", out);
        usage += n;
        usage += *usage == '\n';
    }
    fputs(".SH DESCRIPTION\n", out);
    print_roff(out, program->description ? program->description : program->summary);
    fputc('\n', out);
    print_roff_options(program, out);
    print_roff_environment(program, out);
    print_roff_files(program, out);
    fputs(".SH EXIT STATUS\n.TP\n.B 0\nall went well\n.TP\n.B 1\nthe work failed\n.TP\n"
          ".B 2\nthe command line, the environment or the config file is wrong\n",
          out);
    if (program->examples && program->examples[0])
        fputs(".SH EXAMPLES\n", out);
    for (const char *const *e = program->examples; e && e[0] && e[1]; e += 2) {
        fputs(".TP\n.B ", out);
        print_roff(out, e[0]);
        fputc('\n', out);
        print_roff(out, e[1]);
        fputc('\n', out);
    }
    fputs(".SH SEE ALSO\n.BR vigil (1)\n", out);
}

/* What may stand behind an option: "-" nothing, "file", "directory", "any", or choices. */
static const char *completion_kind(const struct option *option) {
    if (option->type == OPTION_FLAG)
        return "-";
    if (option->type == OPTION_CHOICE)
        return option->choices;
    if (option->value_name && strstr(option->value_name, "FILE"))
        return "file";
    if (option->value_name && strstr(option->value_name, "DIR"))
        return "directory";
    return "any";
}

/* Lines of `COMMAND WORD KIND`; the word of positional arguments is `*`. */
void options_print_completion(const struct program *program, FILE *out) {
    const char *command = program->name;
    if (strncmp(command, "vigil-", 6) == 0)
        command += 6;
    for (size_t i = 0; i < program->n_options; i++) {
        const struct option *option = &program->options[i];
        fprintf(out, "%s --%s%s %s\n", command, options_is_on(option) ? "no-" : "",
                option->name, completion_kind(option));
    }
    for (size_t i = 0; i < N_STANDARD; i++)
        fprintf(out, "%s --%s %s\n", command, standard_options[i].name,
                completion_kind(&standard_options[i]));
    if (program->argument_kind)
        fprintf(out, "%s * %s\n", command, program->argument_kind);
}
