/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c - reads the command line, the environment and the config file into a struct.
 *
 * First the command line is walked and every option's text noted, nothing converted: only
 * then is it known which config file to read. Then, for each option, the text of the
 * strongest source (flag, environment, own section of the file, head of the file, default)
 * is converted. So a bad value is reported only where it would have been used.
 */
#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "base/options_table.h"

#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_SHOWN_BYTES 60
#define NS_PER_SECOND 1e9

/* Where an option's text came from, weakest first. */
enum source {
    SOURCE_DEFAULT,
    SOURCE_FILE,
    SOURCE_FILE_SECTION,
    SOURCE_ENVIRONMENT,
    SOURCE_FLAG
};

struct choice {
    const char *text; /* NULL: none yet */
    enum source source;
    int line; /* in the config file */
};

/* Config files stay in memory for the life of the process, since values point into them;
 * the chain keeps them reachable. Only main's thread parses options. */
struct config_text {
    struct config_text *next;
    char text[MAX_CONFIG_BYTES + 1];
};
static struct config_text *kept_configs;

struct parse {
    const struct program *program;
    struct choice *choices; /* [n_options] */
    const char *config_path;
    int exit_code; /* -1: go on */
};

/* Copies a value for a message: quoted, cut, control characters replaced. */
static void show_value(const char *text, char out[MAX_SHOWN_BYTES + 8]) {
    size_t n = 0;
    out[n++] = '"';
    for (size_t i = 0; text[i] && n <= MAX_SHOWN_BYTES; i++)
        out[n++] = iscntrl((unsigned char)text[i]) ? '?' : text[i];
    bool is_cut = text[n - 1] != '\0';
    memcpy(out + n, is_cut ? "...\"" : "\"", is_cut ? 5 : 2);
}

__attribute__((format(printf, 2, 3))) static void usage_error(struct parse *p,
                                                              const char *format, ...) {
    char title[OPTION_TEXT_BYTES];
    options_title(p->program, title);
    fprintf(stderr, "%s: ", title);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry '%s --help'.\n", title);
    p->exit_code = EXIT_USAGE;
}

static bool convert_flag(const char *text, bool *out) {
    static const char *const words[][2] = {
        {"true", "false"}, {"yes", "no"}, {"on", "off"}, {"1", "0"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        for (int is_false = 0; is_false < 2; is_false++) {
            if (strcmp(text, words[i][is_false]) == 0) {
                *out = !is_false;
                return true;
            }
        }
    }
    return false;
}

bool options_is_on(const struct option *option) {
    bool is_on = false;
    return option->type == OPTION_FLAG && option->fallback &&
           convert_flag(option->fallback, &is_on) && is_on;
}

static bool is_in_range(const struct option *option, int64_t value) {
    bool is_bounded_below = option->max != 0 || option->min != 0;
    if (option->type != OPTION_INTEGER && value < 0)
        return false;
    return (!is_bounded_below || value >= option->min) &&
           (option->max == 0 || value <= option->max);
}

/* Whole numbers; BYTES may end in K, M or G. */
static bool convert_integer(const struct option *option, const char *text,
                            int64_t *out) {
    if (!isdigit((unsigned char)text[0]) && text[0] != '-' && text[0] != '+')
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text)
        return false;
    if (option->type == OPTION_BYTES && *end) {
        const char *suffix = memchr("KMGkmg", *end, 6);
        if (!suffix)
            return false;
        int power =
            (int)((size_t)(strchr("KMG", toupper((unsigned char)*end)) - "KMG"));
        if (__builtin_mul_overflow(value, 1LL << (10 * (power + 1)), &value))
            return false;
        end++;
    }
    *out = value;
    return *end == '\0' && is_in_range(option, value);
}

static bool convert_number(const char *text, const char **end, double *out) {
    if (!isdigit((unsigned char)text[0]) && !strchr("+-.", text[0]))
        return false;
    if (text[0] == '\0' || strpbrk(text, "xX"))
        return false;
    char *stop;
    errno = 0;
    *out = strtod(text, &stop);
    *end = stop;
    return stop != text && isfinite(*out);
}

static bool convert_seconds(const struct option *option, const char *text,
                            int64_t *out) {
    static const struct {
        const char *suffix;
        double ns;
    } units[] = {{"", NS_PER_SECOND},
                 {"s", NS_PER_SECOND},
                 {"ms", 1e6},
                 {"us", 1e3},
                 {"ns", 1},
                 {"m", 60 * NS_PER_SECOND},
                 {"h", 3600 * NS_PER_SECOND}};
    const char *suffix;
    double value;
    if (!convert_number(text, &suffix, &value))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(suffix, units[i].suffix) != 0)
            continue;
        double ns = value * units[i].ns;
        if (!(ns >= 0 && ns < 9.2e18)) /* the range of int64_t */
            return false;
        *out = llround(ns);
        return is_in_range(option, *out);
    }
    return false;
}

static bool convert_choice(const struct option *option, const char *text) {
    size_t n_text = strlen(text);
    for (const char *choice = option->choices; choice;) {
        size_t n = strcspn(choice, "|");
        if (n == n_text && strncmp(choice, text, n) == 0)
            return true;
        choice = choice[n] ? choice + n + 1 : NULL;
    }
    return false;
}

/* Writes the converted text to the option's place in values; false: not such a value. */
static bool convert(const struct option *option, const char *text, void *values) {
    void *target = (char *)values + option->target;
    const char *end;
    switch (option->type) {
    case OPTION_FLAG:
        return convert_flag(text, target);
    case OPTION_STRING:
        memcpy(target, &text, sizeof text);
        return true;
    case OPTION_INTEGER:
    case OPTION_BYTES:
        return convert_integer(option, text, target);
    case OPTION_SECONDS:
        return convert_seconds(option, text, target);
    case OPTION_NUMBER:
        return convert_number(text, &end, target) && *end == '\0';
    case OPTION_CHOICE:
        memcpy(target, &text, sizeof text);
        return convert_choice(option, text);
    }
    return false;
}

static void choose(struct parse *p, size_t i, const char *text, enum source source,
                   int line) {
    if (p->choices[i].text && p->choices[i].source > source)
        return;
    p->choices[i] = (struct choice){.text = text, .source = source, .line = line};
}

/* The option called name[0..n), or n_options. */
static size_t find_option(const struct program *program, const char *name, size_t n) {
    size_t i = 0;
    while (i < program->n_options && (strlen(program->options[i].name) != n ||
                                      memcmp(program->options[i].name, name, n) != 0))
        i++;
    return i;
}

static void inform(struct parse *p, void (*print)(const struct program *, FILE *)) {
    print(p->program, stdout);
    p->exit_code = fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}

static void print_version(const struct program *program, FILE *out) {
    char title[OPTION_TEXT_BYTES];
    options_title(program, title);
    fprintf(out, "%s %s\n", title, VIGIL_VERSION);
}

/* --help and its kin. True when name was one of them. */
static bool answer_standard(struct parse *p, const char *name) {
    static const struct {
        const char *name;
        void (*print)(const struct program *, FILE *);
    } standard[] = {{"help", options_print_help},
                    {"version", print_version},
                    {"help-man", options_print_man},
                    {"help-completion", options_print_completion}};
    for (size_t i = 0; i < sizeof standard / sizeof standard[0]; i++) {
        if (strcmp(name, standard[i].name) == 0) {
            inform(p, standard[i].print);
            return true;
        }
    }
    return false;
}

static void unknown_option(struct parse *p, const char *shown, const char *name) {
    struct nearest best = {0};
    char value[MAX_SHOWN_BYTES + 8];
    for (size_t i = 0; i < p->program->n_options; i++)
        nearest_consider(&best, name, p->program->options[i].name);
    static const char *const standard[] = {"help", "version", "config"};
    for (size_t i = 0; i < sizeof standard / sizeof standard[0]; i++)
        nearest_consider(&best, name, standard[i]);
    show_value(shown, value);
    if (best.name)
        usage_error(p, "unknown option %s; did you mean --%s?", value, best.name);
    else
        usage_error(p, "unknown option %s", value);
}

/* The value behind an option, from `--name=value` or the next argument. NULL after an
 * error. */
static const char *take_value(struct parse *p, const char *shown,
                              const char *value_name, const char *attached, char **argv,
                              int *i) {
    if (attached)
        return attached;
    const char *next = argv[*i + 1];
    if (!next) {
        usage_error(p, "%s: expected %s behind it, found nothing", shown,
                    value_name ? value_name : "a value");
        return NULL;
    }
    if (strncmp(next, "--", 2) == 0 &&
        find_option(p->program, next + 2, strcspn(next + 2, "=")) <
            p->program->n_options) {
        usage_error(p, "%s: expected %s behind it, found the option %s", shown,
                    value_name ? value_name : "a value", next);
        return NULL;
    }
    ++*i;
    return next;
}

/* One `--name`, `--name=value` or `--no-name`. */
static void parse_long(struct parse *p, char **argv, int *i) {
    const struct program *program = p->program;
    const char *argument = argv[*i];
    const char *name = argument + 2;
    size_t n = strcspn(name, "=");
    const char *attached = name[n] == '=' ? name + n + 1 : NULL;
    size_t found = find_option(program, name, n);
    if (found < program->n_options) {
        const struct option *option = &program->options[found];
        char shown[OPTION_TEXT_BYTES];
        snprintf(shown, sizeof shown, "--%s", option->name);
        const char *text =
            option->type == OPTION_FLAG
                ? (attached ? attached : "true")
                : take_value(p, shown, option->value_name, attached, argv, i);
        if (text)
            choose(p, found, text, SOURCE_FLAG, 0);
        return;
    }
    if (n == 6 && memcmp(name, "config", n) == 0) {
        p->config_path = take_value(p, "--config", "FILE", attached, argv, i);
        return;
    }
    if (!attached && answer_standard(p, name))
        return;
    if (strncmp(name, "no-", 3) == 0 && !attached) {
        found = find_option(program, name + 3, n - 3);
        if (found < program->n_options && program->options[found].type == OPTION_FLAG) {
            choose(p, found, "false", SOURCE_FLAG, 0);
            return;
        }
    }
    char bare[OPTION_TEXT_BYTES];
    snprintf(bare, sizeof bare, "%.*s", (int)(n < 64 ? n : 64), name);
    unknown_option(p, argument, bare);
}

/* `-n value`, `-nvalue`, or several flags in one: `-qv`. */
static void parse_letters(struct parse *p, char **argv, int *i) {
    const struct program *program = p->program;
    const char *argument = argv[*i];
    for (const char *letter = argument + 1; *letter && p->exit_code < 0; letter++) {
        size_t found = 0;
        while (found < program->n_options && program->options[found].letter != *letter)
            found++;
        if (found == program->n_options) {
            if (*letter == 'h' || *letter == 'V') {
                (void)answer_standard(p, *letter == 'h' ? "help" : "version");
                return;
            }
            unknown_option(p, argument, "");
            return;
        }
        const struct option *option = &program->options[found];
        if (option->type == OPTION_FLAG) {
            choose(p, found, "true", SOURCE_FLAG, 0);
            continue;
        }
        const char shown[] = {'-', *letter, '\0'};
        const char *text = take_value(p, shown, option->value_name,
                                      letter[1] ? letter + 1 : NULL, argv, i);
        if (text)
            choose(p, found, text, SOURCE_FLAG, 0);
        return;
    }
}

/* Walks argv; positional arguments move to argv[1 ..]. Returns how many. */
static int parse_arguments(struct parse *p, int argc, char **argv) {
    int n_arguments = 0;
    bool is_after_dashes = false;
    for (int i = 1; i < argc && p->exit_code < 0; i++) {
        const char *argument = argv[i];
        if (is_after_dashes || argument[0] != '-' || argument[1] == '\0')
            argv[++n_arguments] = argv[i];
        else if (strcmp(argument, "--") == 0)
            is_after_dashes = true;
        else if (argument[1] == '-')
            parse_long(p, argv, &i);
        else
            parse_letters(p, argv, &i);
    }
    return n_arguments;
}

/* Kubernetes puts VIGIL_PORT=tcp://10.0.0.7:80 into every pod beside a service that is
 * called vigil. Such a value was not meant for us. */
static bool is_service_link(const struct option *option, const char *text) {
    return option->type != OPTION_STRING && strstr(text, "://") != NULL;
}

/* An empty variable counts as unset: compose files pass unset ones on like that. */
static void read_environment(struct parse *p) {
    char variable[OPTION_TEXT_BYTES];
    for (size_t i = 0; i < p->program->n_options; i++) {
        options_variable(p->program->options[i].name, variable);
        const char *text = getenv(variable);
        if (text && *text && !is_service_link(&p->program->options[i], text))
            choose(p, i, text, SOURCE_ENVIRONMENT, 0);
    }
    const char *path = getenv("VIGIL_CONFIG");
    if (!p->config_path && path && *path)
        p->config_path = path;
}

/* Reads the whole file, NUL-terminated; NULL after an error. */
static char *read_config(struct parse *p) {
    FILE *file = fopen(p->config_path, "re");
    if (!file) {
        usage_error(p, "cannot open the config file %s: %s", p->config_path,
                    strerror(errno));
        return NULL;
    }
    struct config_text *kept = malloc(sizeof *kept);
    if (!kept) {
        usage_error(p, "no memory to read the config file %s", p->config_path);
        fclose(file);
        return NULL;
    }
    kept->next = kept_configs;
    kept_configs = kept;
    size_t n = fread(kept->text, 1, MAX_CONFIG_BYTES, file);
    kept->text[n] = '\0';
    bool is_longer = n == MAX_CONFIG_BYTES && fgetc(file) != EOF;
    bool is_bad = ferror(file) != 0;
    int why = errno;
    fclose(file);
    if (is_bad)
        usage_error(p, "cannot read the config file %s: %s", p->config_path,
                    strerror(why));
    else if (is_longer)
        usage_error(p, "the config file %s is over %u bytes", p->config_path,
                    MAX_CONFIG_BYTES);
    else if (memchr(kept->text, '\0', n))
        usage_error(p, "the config file %s is not text: it holds a NUL",
                    p->config_path);
    return p->exit_code < 0 ? kept->text : NULL;
}

/* Cuts blanks off both ends, in place. */
static char *trim(char *text) {
    while (isspace((unsigned char)*text))
        text++;
    size_t n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    return text;
}

/* Cuts a comment: # at the start or behind a blank, outside quotes. */
static void cut_comment(char *line) {
    bool is_quoted = false;
    for (char *c = line; *c; c++) {
        if (*c == '"')
            is_quoted = !is_quoted;
        if (*c == '#' && !is_quoted && (c == line || isspace((unsigned char)c[-1]))) {
            *c = '\0';
            return;
        }
    }
}

/* One `name = value`. Lines ahead of all sections are for every program, so that one that
 * this program does not know is passed over there, and an error in its own section. */
static void parse_config_line(struct parse *p, char *line, bool is_own, int number) {
    char *equals = strchr(line, '=');
    if (!equals) {
        usage_error(p, "%s:%d: expected \"name = value\" or \"[section]\"",
                    p->config_path, number);
        return;
    }
    *equals = '\0';
    char *name = trim(line);
    char *value = trim(equals + 1);
    size_t n_value = strlen(value);
    if (n_value >= 2 && value[0] == '"' && value[n_value - 1] == '"') {
        value[n_value - 1] = '\0';
        value++;
    }
    size_t found = find_option(p->program, name, strlen(name));
    if (found < p->program->n_options) {
        choose(p, found, value, is_own ? SOURCE_FILE_SECTION : SOURCE_FILE, number);
        return;
    }
    if (!is_own)
        return;
    struct nearest best = {0};
    for (size_t i = 0; i < p->program->n_options; i++)
        nearest_consider(&best, name, p->program->options[i].name);
    char shown[MAX_SHOWN_BYTES + 8];
    show_value(name, shown);
    usage_error(p, "%s:%d: unknown option %s%s%s%s", p->config_path, number, shown,
                best.name ? "; did you mean " : "", best.name ? best.name : "",
                best.name ? "?" : "");
}

static void parse_config(struct parse *p) {
    char *text = read_config(p);
    if (!text)
        return;
    const char *own = p->program->name;
    if (strncmp(own, "vigil-", 6) == 0)
        own += 6;
    bool is_own = false, is_other = false;
    int number = 0;
    for (char *line = text; line && p->exit_code < 0;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        number++;
        cut_comment(line);
        line = trim(line);
        size_t n = strlen(line);
        if (n > 1 && line[0] == '[' && line[n - 1] == ']') {
            line[n - 1] = '\0';
            is_own = strcmp(trim(line + 1), own) == 0;
            is_other = !is_own;
        } else if (n > 0 && !is_other) {
            parse_config_line(p, line, is_own, number);
        }
        line = next;
    }
}

/* Says where a bad value came from and what was expected. */
static void bad_value(struct parse *p, const struct option *option,
                      const struct choice *choice) {
    char origin[OPTION_TEXT_BYTES + 32], expected[OPTION_TEXT_BYTES];
    char shown[MAX_SHOWN_BYTES + 8];
    options_expected(option, expected);
    show_value(choice->text, shown);
    switch (choice->source) {
    case SOURCE_FILE:
    case SOURCE_FILE_SECTION:
        usage_error(p, "%s:%d: %s: expected %s, found %s", p->config_path, choice->line,
                    option->name, expected, shown);
        return;
    case SOURCE_ENVIRONMENT:
        options_variable(option->name, origin);
        break;
    case SOURCE_FLAG:
        snprintf(origin, sizeof origin, "--%s", option->name);
        break;
    case SOURCE_DEFAULT:
        snprintf(origin, sizeof origin, "--%s (the default)", option->name);
        break;
    }
    usage_error(p, "%s: expected %s, found %s", origin, expected, shown);
}

static void convert_all(struct parse *p, void *values) {
    for (size_t i = 0; i < p->program->n_options && p->exit_code < 0; i++) {
        const struct option *option = &p->program->options[i];
        if (!p->choices[i].text && option->fallback)
            choose(p, i, option->fallback, SOURCE_DEFAULT, 0);
        if (p->choices[i].text && !convert(option, p->choices[i].text, values))
            bad_value(p, option, &p->choices[i]);
    }
}

static void check_arguments(struct parse *p, int n, char **argv) {
    const struct program *program = p->program;
    char shown[MAX_SHOWN_BYTES + 8];
    if (n < program->min_arguments)
        usage_error(p, "expected %s%d argument%s, found %d",
                    program->max_arguments == program->min_arguments ? "" : "at least ",
                    program->min_arguments, program->min_arguments == 1 ? "" : "s", n);
    else if (program->max_arguments >= 0 && n > program->max_arguments) {
        show_value(argv[program->max_arguments + 1], shown);
        usage_error(p, "unexpected argument %s", shown);
    }
}

void options_parse(const struct program *program, int argc, char **argv, void *values,
                   int *n_arguments, int *exit_code) {
    struct parse p = {.program = program, .exit_code = -1};
    *n_arguments = 0;
    p.choices = calloc(program->n_options + 1, sizeof *p.choices);
    if (!p.choices) {
        usage_error(&p, "no memory");
        *exit_code = EXIT_FAILED;
        return;
    }
    *n_arguments = parse_arguments(&p, argc, argv);
    if (p.exit_code < 0)
        read_environment(&p);
    if (p.exit_code < 0 && p.config_path)
        parse_config(&p);
    if (p.exit_code < 0)
        convert_all(&p, values);
    if (p.exit_code < 0)
        check_arguments(&p, *n_arguments, argv);
    free(p.choices);
    *exit_code = p.exit_code;
}
