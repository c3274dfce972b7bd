/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_service.c - what the programs need around them: files, port, libraries, a model
 * that answers.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/paths.h"
#include "kernels/check.h"
#include "kernels/cuda_library.h"
#include "kernels/engines.h"
#include "model/checkpoint.h"
#include "server/doctor.h"
#include "tokenizer/tokenizer.h"

#define DETAIL_BYTES 512
/* A connection each, and what the server itself has open. */
#define FEW_FILES 1024

void doctor_check_files(struct doctor *d) {
    char detail[DETAIL_BYTES];
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    /* The server raises the soft limit by itself. */
    if (limit.rlim_max == RLIM_INFINITY)
        snprintf(detail, sizeof detail, "no limit");
    else
        snprintf(detail, sizeof detail, "%llu at most",
                 (unsigned long long)limit.rlim_max);
    bool is_few = limit.rlim_max < FEW_FILES;
    d->report(d, is_few ? FINDING_WARN : FINDING_OK, "open files", detail,
              is_few ? "each connection is one: raise it (ulimit -Hn, LimitNOFILE=)"
                     : NULL);
}

void doctor_check_port(struct doctor *d) {
    char detail[DETAIL_BYTES], advice[128];
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)d->port),
                                  .sin_addr.s_addr = htonl(INADDR_ANY)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_free = false;
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        is_free = bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    }
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (is_free) {
        snprintf(detail, sizeof detail, "%d is free", (int)d->port);
        d->report(d, FINDING_OK, "port", detail, NULL);
        return;
    }
    snprintf(detail, sizeof detail, "%d: %s", (int)d->port, strerror(why));
    if (why == EADDRINUSE) {
        snprintf(advice, sizeof advice,
                 "fine if that is vigil serve (curl localhost:%d/ping); else take "
                 "another --port",
                 (int)d->port);
        d->report(d, FINDING_WARN, "port", detail, advice);
    } else {
        d->report(d, FINDING_FAIL, "port", detail,
                  why == EACCES ? "ports below 1024 need a right of their own: take "
                                  "another --port, or setcap cap_net_bind_service"
                                : "see why this machine gives no socket");
    }
}

/* Libraries by the names that they are loaded by, so that one that is missing is a finding
 * and does not keep this program from starting. */
struct library {
    const char *file, *function; /* const char *function(const char *or_nothing) */
    int least[3];                /* older: known to be bad */
    const char *why;
};

static const struct library LIBRARIES[] = {
    {"libmicrohttpd.so.12", "MHD_get_version", {0, 9, 71}, "CVE-2021-3466"},
    {"libjansson.so.4",
     "jansson_version_str",
     {2, 14, 0},
     "tested with 2.14 and later"},
    {"libgnutls.so.30", "gnutls_check_version", {3, 7, 7}, "CVE-2022-2509"},
};

static bool is_older(const char *version, const int least[3]) {
    const char *at = version;
    for (int i = 0; i < 3; i++) {
        char *end;
        long n = strtol(at, &end, 10);
        if (n != least[i])
            return n < least[i];
        at = *end == '.' ? end + 1 : end;
    }
    return false;
}

static void check_library(struct doctor *d, const struct library *l) {
    char detail[DETAIL_BYTES], advice[128];
    void *handle = dlopen(l->file, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(detail, sizeof detail, "%s cannot be loaded", l->file);
        d->report(d, FINDING_FAIL, "library", detail,
                  "install it: make deps, or apt install "
                  "libmicrohttpd12 libjansson4 libgnutls30");
        return;
    }
    const char *(*function)(const char *) = NULL;
    void *symbol = dlsym(handle, l->function);
    memcpy(&function, &symbol, sizeof function);
    /* One of the three has a parameter, for which NULL means: any version. */
    const char *version = function ? function(NULL) : NULL;
    snprintf(detail, sizeof detail, "%s %s", l->file, version ? version : "?");
    if (!version || is_older(version, l->least)) {
        snprintf(advice, sizeof advice, "older than %d.%d.%d (%s): update it",
                 l->least[0], l->least[1], l->least[2], l->why);
        d->report(d, FINDING_WARN, "library", detail, advice);
    } else {
        d->report(d, FINDING_OK, "library", detail, NULL);
    }
    dlclose(handle);
}

void doctor_check_libraries(struct doctor *d) {
    for (size_t i = 0; i < sizeof LIBRARIES / sizeof *LIBRARIES; i++)
        check_library(d, &LIBRARIES[i]);
}

void doctor_check_programs(struct doctor *d) {
    static const char *const names[] = {
        "vigil",       "vigil-serve",  "vigil-classify", "vigil-model",
        "vigil-bench", "vigil-stream", "vigil-enrich",   "vigil-tokenize",
        "vigil-query", "vigil-export", "vigil-erase",    "vigil-dlq"};
    char path[FILE_PATH_BYTES], detail[DETAIL_BYTES] = "";
    size_t at = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (paths_beside(names[i], path, sizeof path, NULL) == STATUS_OK &&
            access(path, X_OK) != 0 && at < sizeof detail) {
            int n = snprintf(detail + at, sizeof detail - at, "%s%s",
                             at ? ", " : "missing: ", names[i]);
            at += n > 0 ? (size_t)n : 0;
        }
    if (at)
        d->report(d, FINDING_FAIL, "programs", detail,
                  "build or install them again: make, make install");
    else
        d->report(d, FINDING_OK, "programs", "all are beside this one", NULL);
}

/* ---- the model ---- */

static const char SELF_TEST[] = "I took two of these and woke up with a terrible rash "
                                "and a headache, never again.";
#define SELF_TEST_TOKENS 64
#define N_TIMED 20

struct self_test {
    int32_t ids[SELF_TEST_TOKENS];
    int32_t n_tokens;
    float *logits; /* of a fast engine; the reference's lie behind */
};

static enum status run_once(struct engine *e, const struct self_test *t, float *logits,
                            struct error *err) {
    int32_t offsets[2] = {0, t->n_tokens};
    struct batch batch = {.ids = t->ids, .offsets = offsets, .n_sequences = 1};
    return engine_run(e, &batch, logits, NULL, err);
}

/* The text through one engine; *best_ns of several runs, when asked for. */
static enum status run_engine(const struct checkpoint *c, const struct self_test *t,
                              const struct engine_options *options, float *logits,
                              char said[96], struct error *err) {
    struct engine *e = NULL;
    int64_t best_ns = INT64_MAX;
    enum status status = engine_open(options, c, &e, err);
    bool is_timed = status == STATUS_OK && strcmp(e->info.device, "reference") != 0;
    for (int i = 0; status == STATUS_OK && i < (is_timed ? N_TIMED : 1); i++) {
        int64_t start = clock_now_ns();
        status = run_once(e, t, logits, err);
        int64_t ns = clock_now_ns() - start;
        best_ns = ns < best_ns ? ns : best_ns;
    }
    if (status == STATUS_OK && is_timed)
        snprintf(said, 96, "%s, %s, %d threads: %d tokens in %.2f ms", e->info.isa,
                 e->info.dtype, e->info.n_threads, t->n_tokens, (double)best_ns / 1e6);
    /* A dead device is not closed: that may never end. */
    if (status != STATUS_DEVICE)
        engine_close(e);
    return status;
}

/* Holds what a fast engine says against the reference's. */
static void compare(struct doctor *d, const struct checkpoint *c, struct self_test *t,
                    const char *device) {
    const struct engine_options fast = {.device = device,
                                        .n_threads = (int32_t)d->n_threads};
    bool is_cpu = strcmp(device, "cpu") == 0;
    size_t n = (size_t)c->config.n_labels;
    char said[96] = "", detail[DETAIL_BYTES];
    struct error err = {0};
    if (run_engine(c, t, &fast, t->logits, said, &err) != STATUS_OK) {
        d->report(d, FINDING_FAIL, "self-test", err.message,
                  is_cpu ? "see --isa and --dtype of vigil classify for another engine"
                         : "serve with --device cpu until that is mended");
        return;
    }
    /* The logits, not the probabilities, which are all alike where the model is sure. */
    double worst = 0, scale = 1;
    bool is_finite = true;
    for (size_t i = 0; i < n; i++) {
        double plain_logit = (double)t->logits[n + i];
        double off = fabs((double)t->logits[i] - plain_logit);
        is_finite = is_finite && isfinite(off);
        worst = off > worst ? off : worst;
        scale = fabs(plain_logit) > scale ? fabs(plain_logit) : scale;
    }
    /* int8 is coarse by design, fp16 less so; fp32 differs by the order of its sums. */
    double most = !is_cpu ? 0.02 : c->config.is_quantized ? 0.05 : 1e-3;
    snprintf(detail, sizeof detail,
             "%s: %s; logits within %.2g of the reference engine's", device, said,
             worst);
    if (is_finite && worst <= scale * most)
        d->report(d, FINDING_OK, "self-test", detail, NULL);
    else
        d->report(d, FINDING_FAIL, "self-test", detail,
                  is_cpu ? "the processor or this build computes wrongly: run make "
                           "test; until then serve with --isa portable"
                         : "the GPU or this build computes wrongly: until that is "
                           "known, serve with --device cpu");
}

/* The CPU and each GPU. */
static void compare_all(struct doctor *d, const struct checkpoint *c,
                        struct self_test *t) {
    const struct engine_options plain = {.device = "reference"};
    const struct cuda_plugin *plugin;
    char said[96], device[16];
    struct error err = {0};
    int32_t n_devices = 0;
    if (run_engine(c, t, &plain, t->logits + c->config.n_labels, said, &err) !=
        STATUS_OK) {
        d->report(d, FINDING_FAIL, "self-test", err.message,
                  "the model cannot be computed: try another --model");
        return;
    }
    compare(d, c, t, "cpu");
    (void)cuda_library_devices(&plugin, &n_devices, NULL);
    for (int32_t i = 0; i < n_devices && i < ENGINES_MAX; i++) {
        snprintf(device, sizeof device, "cuda:%d", i);
        compare(d, c, t, device);
    }
}

static void self_test(struct doctor *d) {
    struct checkpoint *c = NULL;
    struct tokenizer *tokenizer = NULL;
    struct self_test t = {0};
    struct encoding encoding;
    struct error err = {0};
    if (checkpoint_open(d->model, &c, &err) == STATUS_OK &&
        tokenizer_open(d->model, &tokenizer, &err) == STATUS_OK) {
        int32_t cap = c->config.max_positions < SELF_TEST_TOKENS
                          ? c->config.max_positions
                          : SELF_TEST_TOKENS;
        tokenizer_encode(tokenizer, SELF_TEST, sizeof SELF_TEST - 1, t.ids, NULL,
                         (size_t)cap, &encoding);
        t.n_tokens = (int32_t)encoding.n_tokens;
        t.logits = calloc((size_t)c->config.n_labels * 2, sizeof *t.logits);
        if (t.logits)
            compare_all(d, c, &t);
        else
            d->report(d, FINDING_FAIL, "self-test", "no memory", NULL);
    } else {
        d->report(d, FINDING_FAIL, "self-test", err.message, NULL);
    }
    free(t.logits);
    tokenizer_close(tokenizer);
    checkpoint_close(c);
}

static void report_problem(void *user, const char *line) {
    struct doctor *d = user;
    d->report(d, FINDING_FAIL, "model", line,
              "give another --model, or fetch the files again");
}

void doctor_check_model(struct doctor *d) {
    char found[FILE_PATH_BYTES], detail[FILE_PATH_BYTES + 64];
    struct error err = {0};
    struct check_result result;
    if (!d->model) {
        if (paths_default_model(found, sizeof found, &err) != STATUS_OK) {
            d->report(d, FINDING_FAIL, "model", err.message,
                      "name one by --model, or install again");
            return;
        }
        d->model = found;
    }
    check_model(d->model, report_problem, d, &result);
    if (result.n_problems == 0) {
        snprintf(detail, sizeof detail, "%s is whole", d->model);
        d->report(d, FINDING_OK, "model", detail, NULL);
        self_test(d);
    }
    if (d->model == found)
        d->model = NULL;
}
