/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - vigil-bench: measures a server over HTTP, or the engine alone.
 */
#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "base/paths.h"
#include "bench/affinity.h"
#include "bench/engine.h"
#include "bench/texts.h"

enum { PATH_BYTES = 4096, MADE_UP_TEXTS = 512 };

struct options {
    bool is_engine, is_probe, is_json;
    const char *interactive, *cpus;
    int64_t limit;
    const char *model, *isa, *dtype;
    int64_t n_threads, n_rounds, batch_tokens, batch_texts;
};

#define AT(field) offsetof(struct options, field)
#define ENGINE "Engine"

static const struct option TABLE[] = {
    {"json", 'j', OPTION_FLAG, AT(is_json), NULL, NULL, 0, 0, NULL,
     "print one JSON object", NULL},
    {"limit", 0, OPTION_INTEGER, AT(limit), "N", "0", 0, 100000000, NULL,
     "take no more texts of FILE than this; 0: all", NULL},
    {"cpus", 0, OPTION_STRING, AT(cpus), "LIST", NULL, 0, 0, NULL,
     "run on these processors only: 0,2-3", NULL},
    {"engine", 'e', OPTION_FLAG, AT(is_engine), NULL, NULL, 0, 0, NULL,
     "time the engine alone, without a server", ENGINE},
    {"model", 'm', OPTION_STRING, AT(model), "DIR", NULL, 0, 0, NULL,
     "model directory; without it weights/ade", ENGINE},
    {"threads", 't', OPTION_INTEGER, AT(n_threads), "N", "0", 0, 256, NULL,
     "compute threads; 0: one for each processor", ENGINE},
    {"isa", 0, OPTION_STRING, AT(isa), "NAME", "auto", 0, 0, NULL,
     "instruction set: avx512, avx2, portable", ENGINE},
    {"dtype", 0, OPTION_CHOICE, AT(dtype), "NAME", "auto", 0, 0, "auto|int8|bf16|fp32",
     "what to compute in", ENGINE},
    {"rounds", 0, OPTION_INTEGER, AT(n_rounds), "N", "5", 1, 100, NULL,
     "rounds in which the measures take turns", ENGINE},
    {"batch-tokens", 0, OPTION_INTEGER, AT(batch_tokens), "N", "0", 0, 1048576, NULL,
     "most tokens of a packed batch; 0: the engine's own", ENGINE},
    {"batch-texts", 0, OPTION_INTEGER, AT(batch_texts), "N", "0", 0, 1048576, NULL,
     "most texts of a packed batch; 0: as many as fit", ENGINE},
    {"probe", 0, OPTION_FLAG, AT(is_probe), NULL, NULL, 0, 0, NULL,
     "the rate of bare instructions; with --engine also the share of it that is "
     "reached",
     ENGINE},
    {"interactive", 0, OPTION_STRING, AT(interactive), "IDS", NULL, 0, 0, NULL,
     "answer lines of stdin over the token ids of this file (bench/rivals)", ENGINE},
};

static const char *const EXAMPLES[] = {
    "vigil bench --engine --threads 1 --probe texts.txt",
    "what the engine does with these texts on one core", "vigil bench --probe",
    "how fast this machine multiplies", NULL};

static const struct program PROGRAM = {
    .name = "vigil-bench",
    .summary = "measure a server, or the engine alone",
    .usage = "--engine [options] [FILE]\n--probe [--threads N] [--isa NAME]",
    .description =
        "FILE has a text a line, or {\"text\":\"...\"} a line. Without FILE the texts "
        "are made up, with the lengths of tweets.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .max_arguments = 1,
    .argument_kind = "file",
};

static enum status read_texts(const struct options *o, const char *path,
                              struct texts *texts, struct error *err) {
    if (path)
        return texts_read(path, (size_t)o->limit, texts, err);
    return texts_make_up(o->limit ? (size_t)o->limit : MADE_UP_TEXTS, texts, err);
}

static enum status run_engine(const struct options *o, const char *path,
                              struct error *err) {
    static char default_model[PATH_BYTES];
    struct texts texts = {0};
    struct engine_bench bench = {
        .model_dir = o->model,
        .engine = {.isa = o->isa,
                   .dtype = o->dtype,
                   .n_threads = (int32_t)o->n_threads,
                   .max_tokens = (int32_t)o->batch_tokens},
        .n_rounds = o->n_rounds,
        .batch_texts = o->batch_texts,
        .with_probe = o->is_probe,
        .is_json = o->is_json,
    };
    enum status status = STATUS_OK;
    if (!o->model) {
        status = paths_default_model(default_model, sizeof default_model, err);
        bench.model_dir = default_model;
    }
    if (!status && o->interactive)
        return engine_bench_turns(&bench, o->interactive, stdin, stdout, err);
    if (!status)
        status = read_texts(o, path, &texts, err);
    if (!status)
        status = engine_bench(&bench, &texts, stdout, err);
    texts_free(&texts);
    return status;
}

static enum status run(const struct options *o, const char *path, struct error *err) {
    if (o->cpus) {
        enum status status = affinity_set(o->cpus, err);
        if (status)
            return status;
    }
    if (o->is_engine || o->interactive)
        return run_engine(o, path, err);
    if (o->is_probe)
        return engine_bench_probe(o->isa, (int32_t)o->n_threads, o->is_json, stdout,
                                  err);
    return error_set(err, STATUS_INVALID, "expected --engine or --probe");
}

int main(int argc, char **argv) {
    struct options o = {0};
    struct error err;
    int n_arguments, exit_code;
    options_parse(&PROGRAM, argc, argv, &o, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    enum status status = run(&o, n_arguments ? argv[1] : NULL, &err);
    if (!status && fflush(stdout))
        status = error_set(&err, STATUS_IO, "cannot write the figures");
    if (status) {
        fprintf(stderr, "vigil bench: %s\n", err.message);
        return EXIT_FAILED;
    }
    return EXIT_OK;
}
