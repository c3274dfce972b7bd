/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - vigil-model: looks at model directories, checks, quantises and makes them.
 *
 * Each command is a program of its own to base/options.h, so that `vigil model quantize
 * --help` shows its options and no others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/nearest.h"
#include "base/options.h"
#include "kernels/check.h"
#include "model/checkpoint.h"
#include "model/random.h"
#include "weights/quantize.h"

#define MAX_KEEP 64

static int failed(const struct error *err) {
    fprintf(stderr, "vigil model: %s\n", err->message);
    return EXIT_FAILED;
}

/* ---- info ---- */

struct info_options {
    bool is_json;
};

static const struct option INFO_TABLE[] = {
    {"json", 'j', OPTION_FLAG, offsetof(struct info_options, is_json), NULL, NULL, 0, 0,
     NULL, "print one JSON object", NULL},
};

static const char *const INFO_EXAMPLES[] = {"vigil model info weights/ade",
                                            "show the default model", NULL};

static const struct program INFO = {
    .name = "vigil-model-info",
    .summary = "show what a model directory holds",
    .usage = "[--json] DIR",
    .options = INFO_TABLE,
    .n_options = sizeof INFO_TABLE / sizeof *INFO_TABLE,
    .examples = INFO_EXAMPLES,
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_kind = "directory",
};

static const char *problem_name(enum problem_type problem) {
    switch (problem) {
    case PROBLEM_MULTI_LABEL:
        return "multi_label_classification";
    case PROBLEM_REGRESSION:
        return "regression";
    default:
        return "single_label_classification";
    }
}

/* What info shows as numbers, in its order. */
struct figure {
    const char *title, *key;
    size_t value;
};

#define N_FIGURES 9
static void collect_figures(const struct checkpoint *c,
                            struct figure figures[N_FIGURES]) {
    const struct model_config *m = &c->config;
    const struct figure all[N_FIGURES] = {
        {"layers", "n_layers", (size_t)m->n_layers},
        {"heads", "n_heads", (size_t)m->n_heads},
        {"width", "dim", (size_t)m->dim},
        {"hidden width", "hidden_dim", (size_t)m->hidden_dim},
        {"vocabulary", "vocab_size", (size_t)m->vocab_size},
        {"positions", "max_positions", (size_t)m->max_positions},
        {"parameters", "parameters", c->n_parameters},
        {"weight bytes", "weight_bytes", c->n_bytes},
        {"tag labels", "n_tag_labels", (size_t)m->n_tag_labels}};
    memcpy(figures, all, sizeof all);
}

/* Long lists of labels are cut: the config has them all. */
#define MAX_SHOWN_LABELS 12
static void print_labels(const char *title, char (*labels)[MODEL_MAX_LABEL_BYTES],
                         int32_t n) {
    printf("%-13s", title);
    for (int32_t i = 0; i < n && i < MAX_SHOWN_LABELS; i++)
        printf("%s%s", i ? ", " : "", labels[i]);
    if (n > MAX_SHOWN_LABELS)
        printf(", ... (%d in all)", n);
    putchar('\n');
}

static void print_info(const struct checkpoint *c) {
    struct figure figures[N_FIGURES];
    collect_figures(c, figures);
    printf("%-13s%s\n", "model", c->name);
    printf("%-13s%s\n", "dtype", dtype_name(c->dtype));
    printf("%-13s%s\n", "problem", problem_name(c->config.problem_type));
    for (size_t i = 0; i + 1 < N_FIGURES; i++)
        printf("%-13s%zu\n", figures[i].title, figures[i].value);
    print_labels("labels", c->config.labels, c->config.n_labels);
    if (c->config.n_tag_labels > 0)
        print_labels("tags", c->config.tag_labels, c->config.n_tag_labels);
    else
        printf("%-13snone\n", "tags");
    printf("%-13s%s\n", "sha256", c->sha256);
}

static json_t *label_array(char (*labels)[MODEL_MAX_LABEL_BYTES], int32_t n) {
    json_t *array = json_array();
    for (int32_t i = 0; i < n; i++)
        json_array_append_new(array, json_string(labels[i]));
    return array;
}

static int print_info_json(const struct checkpoint *c) {
    struct figure figures[N_FIGURES];
    json_t *root = json_object();
    collect_figures(c, figures);
    json_object_set_new(root, "name", json_string(c->name));
    json_object_set_new(root, "dtype", json_string(dtype_name(c->dtype)));
    json_object_set_new(root, "problem_type",
                        json_string(problem_name(c->config.problem_type)));
    for (size_t i = 0; i < N_FIGURES; i++)
        json_object_set_new(root, figures[i].key,
                            json_integer((json_int_t)figures[i].value));
    json_object_set_new(root, "labels",
                        label_array(c->config.labels, c->config.n_labels));
    json_object_set_new(root, "tag_labels",
                        label_array(c->config.tag_labels, c->config.n_tag_labels));
    json_object_set_new(root, "is_quantized", json_boolean(c->config.is_quantized));
    json_object_set_new(root, "sha256", json_string(c->sha256));
    int rc = json_dumpf(root, stdout, JSON_INDENT(2));
    json_decref(root);
    putchar('\n');
    return rc == 0 ? EXIT_OK : EXIT_FAILED;
}

static int run_info(int argc, char **argv) {
    struct info_options o = {0};
    struct checkpoint *c = NULL;
    struct error err;
    int n, code;
    options_parse(&INFO, argc, argv, &o, &n, &code);
    if (code >= 0)
        return code;
    if (checkpoint_open(argv[1], &c, &err) != STATUS_OK)
        return failed(&err);
    code = EXIT_OK;
    if (o.is_json)
        code = print_info_json(c);
    else
        print_info(c);
    checkpoint_close(c);
    return code;
}

/* ---- check ---- */

struct check_options {
    const char *golden;
    double tolerance;
    const char *device;
};

static const struct option CHECK_TABLE[] = {
    {"golden", 'g', OPTION_STRING, offsetof(struct check_options, golden), "FILE", NULL,
     0, 0, NULL,
     "hold the model's answers against these: JSON lines with ids and logits", NULL},
    {"tolerance", 't', OPTION_NUMBER, offsetof(struct check_options, tolerance), "X",
     "1e-4", 0, 0, NULL, "largest difference of a logit that passes", NULL},
    {"device", 'd', OPTION_CHOICE, offsetof(struct check_options, device), "NAME",
     "reference", 0, 0, "reference|cpu|auto", "engine that computes the answers", NULL},
};

static const char *const CHECK_EXAMPLES[] = {
    "vigil model check weights/ade", "say whether the directory can be served",
    "vigil model check --golden golden.jsonl DIR", "and whether its answers are right",
    NULL};

static const struct program CHECK = {
    .name = "vigil-model-check",
    .summary = "find every problem in a model directory",
    .usage = "[--golden FILE] DIR",
    .description = "Prints one line for each problem and ends with status 1, or prints "
                   "one line that all is well.",
    .options = CHECK_TABLE,
    .n_options = sizeof CHECK_TABLE / sizeof *CHECK_TABLE,
    .examples = CHECK_EXAMPLES,
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_kind = "directory",
};

static void print_problem(void *user, const char *line) {
    (void)user;
    printf("%s\n", line);
}

static int run_check(int argc, char **argv) {
    struct check_options o = {0};
    int n, code;
    options_parse(&CHECK, argc, argv, &o, &n, &code);
    if (code >= 0)
        return code;
    struct check_result result;
    check_model(argv[1], print_problem, NULL, &result);
    if (result.n_problems == 0 && o.golden)
        check_golden(argv[1], o.golden, o.device, o.tolerance, print_problem, NULL,
                     &result);
    if (result.n_problems > 0)
        return EXIT_FAILED;
    if (o.golden)
        printf("%s: ok, %zu answers within %g (worst %.3g)\n", argv[1], result.n_rows,
               o.tolerance, result.worst);
    else
        printf("%s: ok\n", argv[1]);
    return EXIT_OK;
}

/* ---- quantize ---- */

struct quantize_options {
    const char *keep;
};

static const struct option QUANTIZE_TABLE[] = {
    {"keep", 'k', OPTION_STRING, offsetof(struct quantize_options, keep), "PATTERN",
     NULL, 0, 0, NULL,
     "leave tensors of these names as they are: shell patterns with commas between "
     "them",
     NULL},
};

static const char *const QUANTIZE_EXAMPLES[] = {
    "vigil model quantize models/ade weights/ade", "int8 weights for the CPU engine",
    "vigil model quantize --keep '*.layer.0.*' A B", "with the first layer as it is",
    NULL};

static const struct program QUANTIZE = {
    .name = "vigil-model-quantize",
    .summary = "write a model directory again with int8 weights",
    .usage = "[--keep PATTERN] SOURCE DESTINATION",
    .description =
        "The encoder's matrices get one factor for each output, the embeddings one for "
        "each row; the heads stay as they are. The same source gives the same bytes.",
    .options = QUANTIZE_TABLE,
    .n_options = sizeof QUANTIZE_TABLE / sizeof *QUANTIZE_TABLE,
    .examples = QUANTIZE_EXAMPLES,
    .min_arguments = 2,
    .max_arguments = 2,
    .argument_kind = "directory",
};

/* Cuts text at its commas, in place. */
static size_t split_patterns(char *text, const char *patterns[MAX_KEEP]) {
    size_t n = 0;
    while (text && n < MAX_KEEP) {
        char *comma = strchr(text, ',');
        if (comma)
            *comma++ = '\0';
        if (*text)
            patterns[n++] = text;
        text = comma;
    }
    return n;
}

static int run_quantize(int argc, char **argv) {
    struct quantize_options o = {0};
    struct checkpoint *source = NULL, *made = NULL;
    struct quantize_report report;
    struct error err;
    const char *patterns[MAX_KEEP];
    int n, code;
    options_parse(&QUANTIZE, argc, argv, &o, &n, &code);
    if (code >= 0)
        return code;
    char *keep = strdup(o.keep ? o.keep : "");
    if (!keep) {
        error_set(&err, STATUS_NO_MEMORY, "no memory");
        return failed(&err);
    }
    size_t n_keep = split_patterns(keep, patterns);
    /* Opened as the server would, before and after. */
    enum status status = checkpoint_open(argv[1], &source, &err);
    bool is_quantized = status == STATUS_OK && source->config.is_quantized;
    checkpoint_close(source);
    if (is_quantized)
        status = error_set(&err, STATUS_INVALID, "%s is quantised already", argv[1]);
    if (status == STATUS_OK)
        status = quantize_model(argv[1], argv[2], patterns, n_keep, &report, &err);
    if (status == STATUS_OK)
        status = checkpoint_open(argv[2], &made, &err);
    checkpoint_close(made);
    free(keep);
    if (status != STATUS_OK)
        return failed(&err);
    printf("%zu matrices to int8, %zu kept by pattern; %.1f MB to %.1f MB\n",
           report.n_int8, report.n_kept, (double)report.n_bytes_before / 1e6,
           (double)report.n_bytes_after / 1e6);
    printf("largest relative error %.4f in %s\n", report.worst_error,
           report.worst_name);
    printf("sha256 %s\n", report.sha256);
    return EXIT_OK;
}

/* ---- random ---- */

static const struct option RANDOM_TABLE[] = {
    {"dim", 0, OPTION_INTEGER, offsetof(struct random_options, dim), "C", "384", 1,
     16384, NULL, "width", NULL},
    {"layers", 0, OPTION_INTEGER, offsetof(struct random_options, n_layers), "L", "6",
     1, 128, NULL, "layers", NULL},
    {"heads", 0, OPTION_INTEGER, offsetof(struct random_options, n_heads), "H", "12", 1,
     256, NULL, "attention heads; must divide the width", NULL},
    {"hidden", 0, OPTION_INTEGER, offsetof(struct random_options, hidden_dim), "F",
     NULL, 0, 65536, NULL, "hidden width; 0: four times the width", NULL},
    {"vocab", 0, OPTION_INTEGER, offsetof(struct random_options, vocab_size), "V", NULL,
     0, 131072, NULL, "vocabulary; 0: 30522, or as many as the vocabulary file has",
     NULL},
    {"positions", 0, OPTION_INTEGER, offsetof(struct random_options, max_positions),
     "P", "512", 3, 65536, NULL, "longest sequence", NULL},
    {"labels", 0, OPTION_INTEGER, offsetof(struct random_options, n_labels), "N", "2",
     1, 1024, NULL, "class labels", NULL},
    {"tags", 0, OPTION_INTEGER, offsetof(struct random_options, n_tags), "N", "0", 0,
     1024, NULL, "token tags: an odd number (O, B-X, I-X, ...); 0: no tag head", NULL},
    {"problem", 0, OPTION_CHOICE, offsetof(struct random_options, problem), "TYPE",
     "auto", 0, 0, "auto|single|multi|regression", "what the labels mean", NULL},
    {"dtype", 0, OPTION_CHOICE, offsetof(struct random_options, dtype), "TYPE", "f32",
     0, 0, "f32|f16|bf16", "how weights are stored", NULL},
    {"activation", 0, OPTION_CHOICE, offsetof(struct random_options, activation),
     "NAME", "gelu", 0, 0, "gelu|relu", "between the two feed-forward layers", NULL},
    {"sinusoidal", 0, OPTION_FLAG, offsetof(struct random_options, is_sinusoidal), NULL,
     NULL, 0, 0, NULL, "sine and cosine positions instead of random ones", NULL},
    {"seed", 0, OPTION_INTEGER, offsetof(struct random_options, seed), "N", "1", 0, 0,
     NULL, "the same seed gives the same bytes", NULL},
    {"vocab-file", 0, OPTION_STRING, offsetof(struct random_options, vocab_file),
     "FILE", NULL, 0, 0, NULL, "vocab.txt to copy; without it one is made up", NULL},
};

static const char *const RANDOM_EXAMPLES[] = {
    "vigil model random --dim 768 --heads 12 /tmp/base", "the shape of distilbert-base",
    NULL};

static const struct program RANDOM = {
    .name = "vigil-model-random",
    .summary = "write a model of any shape with random weights",
    .usage = "[options] DIR",
    .description = "For tests and measurements: the answers mean nothing.",
    .options = RANDOM_TABLE,
    .n_options = sizeof RANDOM_TABLE / sizeof *RANDOM_TABLE,
    .examples = RANDOM_EXAMPLES,
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_kind = "directory",
};

static int run_random(int argc, char **argv) {
    struct random_options o = {0};
    struct error err;
    int n, code;
    options_parse(&RANDOM, argc, argv, &o, &n, &code);
    if (code >= 0)
        return code;
    if (random_model_write(argv[1], &o, &err) != STATUS_OK)
        return failed(&err);
    struct checkpoint *c = NULL;
    if (checkpoint_open(argv[1], &c, &err) != STATUS_OK)
        return failed(&err);
    print_info(c);
    checkpoint_close(c);
    return EXIT_OK;
}

/* ---- the commands ---- */

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const struct program *program;
} COMMANDS[] = {
    {"info", run_info, &INFO},
    {"check", run_check, &CHECK},
    {"quantize", run_quantize, &QUANTIZE},
    {"random", run_random, &RANDOM},
};
#define N_COMMANDS (sizeof COMMANDS / sizeof *COMMANDS)

static const char *const EXAMPLES[] = {
    "vigil model info weights/ade", "show the default model",
    "vigil model quantize --help", "show the options of one command", NULL};

static const struct program MODEL = {
    .name = "vigil-model",
    .summary = "look at, check, quantise or make model files",
    .usage = "info|check [options] DIR\nquantize [options] SOURCE DESTINATION\n"
             "random [options] DIR",
    .description =
        "info shows what a model directory holds. check finds every problem in it. "
        "quantize writes it again with int8 weights. random writes a model of any "
        "shape "
        "with random weights. Each has its own --help.",
    .examples = EXAMPLES,
    .max_arguments = -1,
    .argument_kind = "directory",
};

static int unknown_command(const char *name) {
    struct nearest best = {0};
    for (size_t i = 0; i < N_COMMANDS; i++)
        nearest_consider(&best, name, COMMANDS[i].name);
    fprintf(stderr, "vigil model: unknown command \"%.40s\"", name);
    if (best.name)
        fprintf(stderr, "; did you mean %s?", best.name);
    fputs("\nTry 'vigil model --help'.\n", stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    int n_arguments, exit_code;
    for (size_t i = 0; argc > 1 && i < N_COMMANDS; i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0)
            return COMMANDS[i].run(argc - 1, argv + 1);
    options_parse(&MODEL, argc, argv, NULL, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    if (n_arguments > 0)
        return unknown_command(argv[1]);
    fputs("vigil model: expected a command: info, check, quantize or random\n"
          "Try 'vigil model --help'.\n",
          stderr);
    return EXIT_USAGE;
}
