/* SPDX-License-Identifier: Apache-2.0
 *
 * test_options.c - every source of a value, every type, every mistake, and what is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/options.h"

#define MAX_OUTPUT_BYTES 16384
#define MAX_ARGUMENTS 16

struct values {
    int64_t port, depth, body, timeout;
    const char *model;
    const char *engine;
    double threshold;
    bool warm, json;
};

#define AT(field) offsetof(struct values, field)
static const struct option table[] = {
    {"port", 'p', OPTION_INTEGER, AT(port), "PORT", "8080", 0, 65535, NULL,
     "the port to listen on; 0 takes any that is free, and says which", "Network"},
    {"json-depth", 0, OPTION_INTEGER, AT(depth), "N", NULL, 1, 0, NULL, "levels", NULL},
    {"max-body", 0, OPTION_BYTES, AT(body), "BYTES", "6M", 1, 1 << 30, NULL,
     "the largest body", "Network"},
    {"timeout", 't', OPTION_SECONDS, AT(timeout), "SECONDS", "1.5s", 1000000,
     60000000000, NULL, "deadline", "Network"},
    {"model", 'm', OPTION_STRING, AT(model), "DIR", "weights/ade", 0, 0, NULL,
     ".a line that begins with a dot and has a \\ in it", NULL},
    {"engine", 0, OPTION_CHOICE, AT(engine), "NAME", "auto", 0, 0, "auto|cpu|reference",
     "which engine", NULL},
    {"threshold", 0, OPTION_NUMBER, AT(threshold), "P", "0.5", 0, 0, NULL, "cut", NULL},
    {"warm", 0, OPTION_FLAG, AT(warm), NULL, "true", 0, 0, NULL, "warm up", NULL},
    {"json", 'j', OPTION_FLAG, AT(json), NULL, NULL, 0, 0, NULL, "print JSON", NULL},
};
static const char *const examples[] = {"vigil try it --port 1", "does it", NULL};
static const struct program program = {
    .name = "vigil-try-it",
    .summary = "try options",
    .usage = "[options] [FILE]",
    .options = table,
    .n_options = sizeof table / sizeof table[0],
    .examples = examples,
    .max_arguments = 2,
    .argument_kind = "file",
};

struct outcome {
    struct values values;
    int exit_code, n_arguments;
    char *argv[MAX_ARGUMENTS];
    char out[MAX_OUTPUT_BYTES], err[MAX_OUTPUT_BYTES];
};

/* Sends a stream to a file in memory; returns what leads back. */
static int redirect(FILE *stream, int *memory) {
    fflush(stream);
    int saved = dup(fileno(stream));
    *memory = memfd_create("output", 0);
    assert_true(saved >= 0 && *memory >= 0);
    dup2(*memory, fileno(stream));
    return saved;
}

static void restore(FILE *stream, int saved, int memory, char *text) {
    fflush(stream);
    dup2(saved, fileno(stream));
    close(saved);
    ssize_t n = pread(memory, text, MAX_OUTPUT_BYTES - 1, 0);
    assert_true(n >= 0 && n < MAX_OUTPUT_BYTES - 1);
    text[n] = '\0';
    close(memory);
}

/* Parses a command line, given as one string that is cut at blanks. */
static struct outcome *parse_as(const struct program *as, const char *line) {
    static struct outcome o;
    static char words[1024];
    memset(&o, 0, sizeof o);
    snprintf(words, sizeof words, "vigil-try-it %s", line);
    int argc = 0;
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) && argc < MAX_ARGUMENTS - 1;)
        if (*word)
            o.argv[argc++] = word;
    int out, err;
    int saved_out = redirect(stdout, &out);
    int saved_err = redirect(stderr, &err);
    options_parse(as, argc, o.argv, &o.values, &o.n_arguments, &o.exit_code);
    restore(stderr, saved_err, err, o.err);
    restore(stdout, saved_out, out, o.out);
    return &o;
}

static struct outcome *parse(const char *line) {
    return parse_as(&program, line);
}

static void expect_error(const char *line, const char *message) {
    char whole[1024];
    struct outcome *o = parse(line);
    snprintf(whole, sizeof whole, "vigil try it: %s\nTry 'vigil try it --help'.\n",
             message);
    assert_string_equal(o->err, whole);
    assert_string_equal(o->out, "");
    assert_int_equal(o->exit_code, EXIT_USAGE);
}

/* Writes a config file, parses `--config` with it. */
static struct outcome *parse_config(const char *text, const char *path) {
    char line[256];
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    snprintf(line, sizeof line, "--config %s", path);
    return parse(line);
}

static void test_defaults(void **state) {
    (void)state;
    struct outcome *o = parse("");
    assert_int_equal(o->exit_code, -1);
    assert_int_equal(o->values.port, 8080);
    assert_int_equal(o->values.depth, 0);
    assert_int_equal(o->values.body, 6 << 20);
    assert_int_equal(o->values.timeout, 1500000000);
    assert_string_equal(o->values.model, "weights/ade");
    assert_string_equal(o->values.engine, "auto");
    assert_true(o->values.threshold == 0.5);
    assert_true(o->values.warm);
    assert_false(o->values.json);
}

static void test_flags(void **state) {
    (void)state;
    struct outcome *o = parse("--port 1 --model=a=b a --engine cpu --no-warm b");
    assert_int_equal(o->exit_code, -1);
    assert_int_equal(o->values.port, 1);
    assert_string_equal(o->values.model, "a=b");
    assert_string_equal(o->values.engine, "cpu");
    assert_false(o->values.warm);
    assert_int_equal(o->n_arguments, 2);
    assert_string_equal(o->argv[1], "a");
    assert_string_equal(o->argv[2], "b");
    o = parse("-jp7 -m x --no-json --warm=off -- --json -p");
    assert_int_equal(o->exit_code, -1);
    assert_int_equal(o->values.port, 7);
    assert_string_equal(o->values.model, "x");
    assert_false(o->values.json);
    assert_false(o->values.warm);
    assert_string_equal(o->argv[1], "--json");
    assert_string_equal(o->argv[2], "-p");
    assert_int_equal(parse("--port 1 --port 2")->values.port, 2);
    assert_int_equal(parse("-")->n_arguments, 1);
}

static void test_types(void **state) {
    (void)state;
    assert_int_equal(parse("--max-body 2k")->values.body, 2048);
    assert_int_equal(parse("--max-body 1G")->values.body, 1 << 30);
    assert_int_equal(parse("--max-body 77")->values.body, 77);
    assert_int_equal(parse("-t 250ms")->values.timeout, 250000000);
    assert_int_equal(parse("-t 2000us")->values.timeout, 2000000);
    assert_int_equal(parse("-t 1m")->values.timeout, 60000000000);
    assert_int_equal(parse("-t .25")->values.timeout, 250000000);
    assert_true(parse("--threshold 1e-3")->values.threshold == 1e-3);
    assert_int_equal(parse("--json-depth 9000000000")->values.depth, 9000000000);
}

static void test_bad_values(void **state) {
    (void)state;
    expect_error("--port abc",
                 "--port: expected an integer from 0 to 65535, found \"abc\"");
    expect_error("--port 65536",
                 "--port: expected an integer from 0 to 65535, found \"65536\"");
    expect_error("-p -1", "--port: expected an integer from 0 to 65535, found \"-1\"");
    expect_error("-p 1x", "--port: expected an integer from 0 to 65535, found \"1x\"");
    expect_error("--port=", "--port: expected an integer from 0 to 65535, found \"\"");
    expect_error("--json-depth 0",
                 "--json-depth: expected an integer of 1 or more, found \"0\"");
    expect_error("--json-depth 99999999999999999999",
                 "--json-depth: expected an integer of 1 or more, found "
                 "\"99999999999999999999\"");
    const char *size =
        "--max-body: expected a size from 1 to 1G (as 512K or 6M), found";
    static const char *const sizes[] = {"2G", "1T", "1KB", "-5", "9999999999999G", "0"};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char line[128], message[256];
        snprintf(line, sizeof line, "--max-body %s", sizes[i]);
        snprintf(message, sizeof message, "%s \"%s\"", size, sizes[i]);
        expect_error(line, message);
    }
    expect_error("-t 61s", "--timeout: expected a time from 1ms to 60s (as 1.5s or "
                           "250ms), found \"61s\"");
    expect_error("-t 1e300h", "--timeout: expected a time from 1ms to 60s (as 1.5s or "
                              "250ms), found \"1e300h\"");
    expect_error("--engine au", "--engine: expected one of auto, cpu, reference, found "
                                "\"au\"");
    static const char *const numbers[] = {"nan", "inf", "0x1p3", "1e999", "", "1,5"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char line[128], message[256];
        snprintf(line, sizeof line, "--threshold=%s", numbers[i]);
        snprintf(message, sizeof message,
                 "--threshold: expected a number, found \"%s\"", numbers[i]);
        expect_error(line, message);
    }
    expect_error("--json=maybe", "--json: expected true or false, found \"maybe\"");
    expect_error("-p \x1b[31m\nx", "--port: expected an integer from 0 to 65535, found "
                                   "\"?[31m?x\"");
}

static void test_bad_options(void **state) {
    (void)state;
    expect_error("--prot 1", "unknown option \"--prot\"; did you mean --port?");
    expect_error("--max_body 1",
                 "unknown option \"--max_body\"; did you mean --max-body?");
    expect_error("--thresh", "unknown option \"--thresh\"; did you mean --threshold?");
    expect_error("--versoin", "unknown option \"--versoin\"; did you mean --version?");
    expect_error("--zebra", "unknown option \"--zebra\"");
    expect_error("-z", "unknown option \"-z\"");
    expect_error("--no-port", "unknown option \"--no-port\"; did you mean --port?");
    expect_error("--model", "--model: expected DIR behind it, found nothing");
    expect_error("--model --port 1",
                 "--model: expected DIR behind it, found the option --port");
    expect_error("-m", "-m: expected DIR behind it, found nothing");
    expect_error("a b c", "unexpected argument \"c\"");
    struct program strict = program;
    strict.min_arguments = 1;
    assert_non_null(
        strstr(parse_as(&strict, "")->err, "expected at least 1 argument, found 0\n"));
}

static void test_environment(void **state) {
    (void)state;
    setenv("VIGIL_PORT", "99", 1);
    setenv("VIGIL_MAX_BODY", "1K", 1);
    setenv("VIGIL_JSON", "yes", 1);
    struct outcome *o = parse("");
    assert_int_equal(o->values.port, 99);
    assert_int_equal(o->values.body, 1024);
    assert_true(o->values.json);
    assert_int_equal(parse("--port 5")->values.port, 5);
    assert_false(parse("--no-json")->values.json);
    setenv("VIGIL_PORT", "x", 1);
    expect_error("", "VIGIL_PORT: expected an integer from 0 to 65535, found \"x\"");
    assert_int_equal(parse("--port 5")->exit_code, -1);
    setenv("VIGIL_PORT", "tcp://10.0.0.7:80", 1); /* from Kubernetes */
    assert_int_equal(parse("")->values.port, 8080);
    setenv("VIGIL_PORT", "", 1);
    assert_int_equal(parse("")->values.port, 8080);
    unsetenv("VIGIL_PORT");
    unsetenv("VIGIL_MAX_BODY");
    unsetenv("VIGIL_JSON");
}

static void test_config(void **state) {
    (void)state;
    char path[] = "/tmp/vigil-options-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct outcome *o = parse_config("# all\nport = 7 # seven\nno-such = 1\n\n[bench]\n"
                                     "zork = 1\nport = 9\n[try-it]\r\n"
                                     "model = \"a # b\"\nwarm=no\n",
                                     path);
    assert_int_equal(o->exit_code, -1);
    assert_int_equal(o->values.port, 7);
    assert_string_equal(o->values.model, "a # b");
    assert_false(o->values.warm);
    /* its own section wins over the head of the file, wherever it stands */
    o = parse_config("[try-it]\nport = 8\n", path);
    assert_int_equal(o->values.port, 8);
    setenv("VIGIL_PORT", "99", 1);
    assert_int_equal(parse_config("port=8\n", path)->values.port, 99);
    unsetenv("VIGIL_PORT");
    setenv("VIGIL_CONFIG", path, 1);
    assert_int_equal(parse("")->values.port, 8);
    unsetenv("VIGIL_CONFIG");
    o = parse_config("[try-it]\nportt = 8\n", path);
    assert_non_null(
        strstr(o->err, ":2: unknown option \"portt\"; did you mean port?\n"));
    o = parse_config("\nport = 8x\n", path);
    assert_non_null(strstr(o->err, ":2: port: expected an integer from 0 to 65535, "
                                   "found \"8x\"\n"));
    o = parse_config("port 8\n", path);
    assert_non_null(strstr(o->err, ":1: expected \"name = value\" or \"[section]\"\n"));
    assert_int_equal(o->exit_code, EXIT_USAGE);
    unlink(path);
    o = parse("--config /nonexistent/file");
    assert_non_null(strstr(o->err, "cannot open the config file /nonexistent/file: "));
    o = parse("--config /tmp");
    assert_non_null(strstr(o->err, "cannot read the config file /tmp: "));
}

/* 80 columns, every option with its default, exit code 0, nothing on stderr. */
static void test_help(void **state) {
    (void)state;
    struct outcome *o = parse("--port 1 --help");
    assert_int_equal(o->exit_code, EXIT_OK);
    assert_string_equal(o->err, "");
    for (size_t i = 0; i < program.n_options; i++)
        assert_non_null(strstr(o->out, table[i].name));
    assert_non_null(strstr(o->out, "Usage: vigil try it [options] [FILE]\n"));
    assert_non_null(strstr(o->out, "  -p, --port PORT"));
    assert_non_null(strstr(o->out, "      --[no-]warm"));
    assert_non_null(strstr(o->out, "(one of auto, cpu, reference; default:"));
    assert_non_null(strstr(o->out, "VIGIL_PORT"));
    for (const char *line = o->out; *line;) {
        size_t n = strcspn(line, "\n");
        assert_true(n <= 80);
        line += n + (line[n] == '\n');
    }
    assert_string_equal(parse("-h")->out, parse("--help")->out);
    assert_string_equal(parse("--version")->out, "vigil try it " VIGIL_VERSION "\n");
    assert_string_equal(parse("-V")->out, "vigil try it " VIGIL_VERSION "\n");
}

static void test_man_and_completion(void **state) {
    (void)state;
    struct outcome *o = parse("--help-man");
    assert_int_equal(o->exit_code, EXIT_OK);
    static const char *const parts[] = {
        ".TH VIGIL-TRY-IT 1",
        ".SH NAME\nvigil\\-try\\-it \\- try options\n",
        ".SH SYNOPSIS",
        ".SH DESCRIPTION",
        ".SH OPTIONS",
        ".B \\-p, \\-\\-port PORT\n",
        ".SH ENVIRONMENT",
        ".B VIGIL_MAX_BODY\n",
        ".SH EXIT STATUS",
        ".SH EXAMPLES",
        "\n\\&.a line that begins with a dot and has a \\e in it"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        assert_non_null(strstr(o->out, parts[i]));
    o = parse("--help-completion");
    assert_non_null(strstr(o->out, "try-it --port any\n"));
    assert_non_null(strstr(o->out, "try-it --engine auto|cpu|reference\n"));
    assert_non_null(strstr(o->out, "try-it --model directory\n"));
    assert_non_null(strstr(o->out, "try-it --no-warm -\n"));
    assert_non_null(strstr(o->out, "try-it * file\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_man_and_completion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
