/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - vigil-bench: measures a server over HTTP, or the engine alone.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus.h"
#include "base/options.h"
#include "base/paths.h"
#include "bench/device.h"
#include "bench/engine.h"
#include "bench/load.h"
#include "bench/report.h"
#include "bench/sweep.h"
#include "bench/texts.h"
#include "bench/tokenizer.h"
#include "kernels/engines.h"

enum { PATH_BYTES = 4096, MADE_UP_TEXTS = 512 };

struct options {
    bool is_engine, is_tokenizer, is_probe, is_json;
    const char *interactive, *cpus;
    int64_t limit;
    const char *model, *device, *isa, *dtype, *shapes;
    double peak_tflops, peak_gb_s;
    int64_t n_threads, n_rounds, batch_tokens, batch_texts;
    const char *url, *route, *api_key, *svg, *arrivals;
    int64_t n_connections, batch, duration_ns, warmup_ns, timeout_ns;
    double rate;
    bool is_spinning, wants_entities, is_sweep;
};

#define AT(field) offsetof(struct options, field)
#define ENGINE "Engine"
#define SERVER "Server"

static const struct option TABLE[] = {
    {"json", 'j', OPTION_FLAG, AT(is_json), NULL, NULL, 0, 0, NULL,
     "print one JSON object", NULL},
    {"limit", 0, OPTION_INTEGER, AT(limit), "N", "0", 0, 100000000, NULL,
     "take no more texts of FILE than this; 0: all", NULL},
    {"cpus", 0, OPTION_STRING, AT(cpus), "LIST", NULL, 0, 0, NULL,
     "run on these processors only: 0,2-3", NULL},
    {"url", 'u', OPTION_STRING, AT(url), "URL", "http://127.0.0.1:8080", 0, 0, NULL,
     "where the server is; a path in it takes the place of the route's", SERVER},
    {"route", 'r', OPTION_CHOICE, AT(route), "NAME", "native", 0, 0,
     "native|sagemaker|tei|huggingface", "which API to speak", SERVER},
    {"concurrency", 'c', OPTION_INTEGER, AT(n_connections), "N", "64", 1, 20000, NULL,
     "connections: requests under way at all times; with --rate at most", SERVER},
    {"rate", 0, OPTION_NUMBER, AT(rate), "N", "0", 0, 0, NULL,
     "open loop: requests a second, whether the server keeps up or not", SERVER},
    {"arrivals", 0, OPTION_CHOICE, AT(arrivals), "HOW", "random", 0, 0, "random|even",
     "intervals of the open loop: random ones are those of independent users", SERVER},
    {"batch", 'b', OPTION_INTEGER, AT(batch), "N", "1", 1, 100000, NULL,
     "texts a request", SERVER},
    {"entities", 0, OPTION_FLAG, AT(wants_entities), NULL, NULL, 0, 0, NULL,
     "ask for evidence spans (native route)", SERVER},
    {"duration", 'd', OPTION_SECONDS, AT(duration_ns), "TIME", "10s", 10000000,
     INT64_C(86400000000000), NULL, "measure for this long", SERVER},
    {"warmup", 'w', OPTION_SECONDS, AT(warmup_ns), "TIME", "2s", 0,
     INT64_C(3600000000000), NULL, "and first run this long without counting", SERVER},
    {"timeout", 0, OPTION_SECONDS, AT(timeout_ns), "TIME", "30s", 1000000,
     INT64_C(3600000000000), NULL, "give up on a request after this", SERVER},
    {"api-key", 0, OPTION_STRING, AT(api_key), "KEY", NULL, 0, 0, NULL,
     "sent as a bearer token; others can see it here, not in VIGIL_API_KEY", SERVER},
    {"spin", 0, OPTION_FLAG, AT(is_spinning), NULL, NULL, 0, 0, NULL,
     "wait without sleeping: finer latencies, but it takes a whole processor", SERVER},
    {"sweep", 0, OPTION_FLAG, AT(is_sweep), NULL, NULL, 0, 0, NULL,
     "rates from a tenth of what the server can do up to all of it", SERVER},
    {"svg", 0, OPTION_STRING, AT(svg), "FILE", NULL, 0, 0, NULL,
     "draw the sweep: latency by throughput", SERVER},
    {"engine", 'e', OPTION_FLAG, AT(is_engine), NULL, NULL, 0, 0, NULL,
     "time the engine alone, without a server", ENGINE},
    {"tokenizer", 0, OPTION_FLAG, AT(is_tokenizer), NULL, NULL, 0, 0, NULL,
     "time the tokenizer alone over FILE, on one thread; prints JSON", ENGINE},
    {"model", 'm', OPTION_STRING, AT(model), "DIR", NULL, 0, 0, NULL,
     "model directory; without it weights/ade", ENGINE},
    {"threads", 't', OPTION_INTEGER, AT(n_threads), "N", "0", 0, 256, NULL,
     "compute threads; 0: one for each processor", ENGINE},
    {"device", 0, OPTION_STRING, AT(device), "NAME", "cpu", 0, 0, NULL,
     "which engine: cpu, cuda, cuda:N, auto, reference", ENGINE},
    {"isa", 0, OPTION_STRING, AT(isa), "NAME", "auto", 0, 0, NULL,
     "instruction set: avx512, avx2, portable; of a GPU: mma, wmma", ENGINE},
    {"dtype", 0, OPTION_CHOICE, AT(dtype), "NAME", "auto", 0, 0, ENGINES_DTYPE_CHOICES,
     "what to compute in", ENGINE},
    {"shapes", 0, OPTION_STRING, AT(shapes), "LIST", NULL, 0, 0, NULL,
     "with --engine: time these and no texts: 1x32,8x128 (SEQUENCESxTOKENS), mixed "
     "(256 "
     "sequences, mean 40, longest 64)",
     ENGINE},
    {"peak-tflops", 0, OPTION_NUMBER, AT(peak_tflops), "X", "0", 0, 0, NULL,
     "with --shapes: what the chip multiplies in fp16, for the share of the floor",
     ENGINE},
    {"peak-gbps", 0, OPTION_NUMBER, AT(peak_gb_s), "X", "0", 0, 0, NULL,
     "with --shapes: what its memory moves, GB/s", ENGINE},
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
    "vigil bench --concurrency 64 texts.txt",
    "64 requests under way at all times, one text each",
    "vigil bench --rate 500 --duration 30s --json texts.jsonl",
    "500 requests a second; latencies count from when each was due",
    "vigil bench --sweep --svg sweep.svg --duration 5s",
    "latency by throughput, as a table and a picture",
    "vigil bench --engine --threads 1 --probe texts.txt",
    "what the engine does with these texts on one core",
    "vigil bench --engine --device cuda --shapes 1x32,32x128,mixed",
    "the same on a GPU, by its own clock, for work of these sizes",
    "vigil bench --probe",
    "how fast this machine multiplies",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-bench",
    .summary = "measure a server, or the engine alone",
    .usage = "[--url URL] [--rate N | --concurrency N] [options] [FILE]\n"
             "--sweep [--svg FILE] [options] [FILE]\n"
             "--engine [options] [FILE]\n"
             "--engine --shapes LIST [options]\n"
             "--tokenizer [--model DIR] [--rounds N] FILE\n"
             "--probe [--threads N] [--isa NAME]",
    .description =
        "FILE has a text a line, or {\"text\":\"...\"} a line. Without FILE the texts "
        "are made up, with the lengths of tweets. In an open loop (--rate) a latency "
        "counts from the moment at which the request was due, so a server that stalls "
        "pays for every request that came due meanwhile; refusals (429, 503) are shown "
        "apart from answers. Keep the load off the server's processors: --cpus.",
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
        .engine = {.device = o->device,
                   .isa = o->isa,
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
    if (!status && o->shapes) {
        const struct device_bench device = {.engine = bench,
                                            .shapes = o->shapes,
                                            .peak_tflops = o->peak_tflops,
                                            .peak_gb_s = o->peak_gb_s};
        return path ? error_set(err, STATUS_INVALID, "--shapes: takes no file of texts")
                    : device_bench(&device, stdout, err);
    }
    if (!status)
        status = read_texts(o, path, &texts, err);
    if (!status)
        status = engine_bench(&bench, &texts, stdout, err);
    texts_free(&texts);
    return status;
}

static enum status run_tokenizer(const struct options *o, const char *path,
                                 struct error *err) {
    char default_model[PATH_BYTES];
    const char *model = o->model;
    if (!path)
        return error_set(err, STATUS_INVALID, "--tokenizer: expected a file of texts");
    if (!model) {
        enum status status =
            paths_default_model(default_model, sizeof default_model, err);
        if (status)
            return status;
        model = default_model;
    }
    return tokenizer_bench(model, path, (int)o->n_rounds, stdout, err);
}

static volatile sig_atomic_t is_stopped;

static void on_interrupt(int number) {
    (void)number;
    is_stopped = 1;
}

/* Ctrl-C once: what was measured so far is shown; twice: the end. */
static void watch_interrupts(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
}

static enum load_route route_of(const char *name) {
    static const char *const names[] = {"native", "sagemaker", "tei", "huggingface"};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum load_route)i;
    return ROUTE_HUGGINGFACE;
}

static enum status run_one(const struct options *o, const struct load_options *load,
                           struct load_requests *requests, struct error *err) {
    struct load_result *result = calloc(1, sizeof *result);
    if (!result)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
    enum status status = load_run(load, requests, result, err);
    if (!status && o->is_json)
        status = report_json(load, result, stdout, err);
    else if (!status)
        report_table(load, result, stdout);
    free(result);
    return status;
}

static enum status run_load(const struct options *o, const char *path,
                            struct error *err) {
    struct texts texts = {0};
    struct load_requests *requests = NULL;
    const struct load_options load = {
        .url = o->url,
        .route = route_of(o->route),
        .api_key = o->api_key,
        .wants_entities = o->wants_entities,
        .n_connections = (size_t)o->n_connections,
        .rate = o->rate,
        .is_even = strcmp(o->arrivals, "even") == 0,
        .batch = (size_t)o->batch,
        .duration_ns = o->duration_ns,
        .warmup_ns = o->warmup_ns,
        .timeout_ns = o->timeout_ns,
        .is_spinning = o->is_spinning,
        .is_stopped = &is_stopped,
    };
    if (!(o->rate >= 0) || o->rate > 1e7)
        return error_set(err, STATUS_INVALID, "--rate: expected 0 to 10 million");
    if (o->wants_entities && load.route != ROUTE_NATIVE)
        return error_set(err, STATUS_INVALID,
                         "--entities: only the native route has evidence spans");
    if (o->svg && !o->is_sweep)
        return error_set(err, STATUS_INVALID, "--svg: only with --sweep");
    watch_interrupts();
    enum status status = read_texts(o, path, &texts, err);
    if (!status)
        status = load_requests_make(&load, &texts, &requests, err);
    if (!status && o->is_sweep)
        status = sweep_run(&load, requests, o->svg, o->is_json, stdout, err);
    else if (!status)
        status = run_one(o, &load, requests, err);
    load_requests_free(requests);
    texts_free(&texts);
    return status;
}

static enum status run(const struct options *o, const char *path, struct error *err) {
    if (o->cpus) {
        int32_t cpus[CPUS_MAX], n_cpus;
        enum status status = cpus_parse(o->cpus, cpus, &n_cpus, err);
        if (!status)
            status = cpus_keep(cpus, n_cpus, err);
        if (status)
            return status;
    }
    if (o->shapes && !o->is_engine)
        return error_set(err, STATUS_INVALID, "--shapes: only with --engine");
    if (o->is_engine || o->interactive)
        return run_engine(o, path, err);
    if (o->is_tokenizer)
        return run_tokenizer(o, path, err);
    if (o->is_probe)
        return engine_bench_probe(o->isa, (int32_t)o->n_threads, o->is_json, stdout,
                                  err);
    return run_load(o, path, err);
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
