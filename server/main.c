/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - vigil-serve: options, wiring, signals, the order of stopping.
 *
 * Threads: this one waits for signals and sweeps; http's pool; a batcher's worker an engine;
 *          the CPU engine's pool; one that loads a model, while it does.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpus.h"
#include "base/file.h"
#include "base/log.h"
#include "base/options.h"
#include "base/paths.h"
#include "server/connections.h"
#include "server/http.h"
#include "server/service.h"
#include "server/watch.h"

#define SWEEP_NS (CLOCK_NS_PER_SECOND / 20)
#define HEAD_NS (5 * CLOCK_NS_PER_SECOND)
#define BODY_NS (60 * CLOCK_NS_PER_SECOND)
#define BODY_GRACE_NS (2 * CLOCK_NS_PER_SECOND)
#define MIN_BYTES_PER_S 1024
/* While draining, how long a connection may be silent before it is closed. */
#define DRAIN_IDLE_NS (CLOCK_NS_PER_SECOND)
/* After a device has failed, how long the answers that say so may take. */
#define DEATH_NS (CLOCK_NS_PER_SECOND / 2)
#define SPARE_FDS 64
#define MAX_PEM_BYTES (1u << 20)
/* Values that fit into a request: 512 inputs of {"id", "text"} and some more. */
#define JSON_VALUES_AN_INPUT 8
#define JSON_VALUES_ASIDE 64
#define JSON_MAX_DEPTH 32
#define JSON_MAX_KEY_BYTES 1024

struct settings {
    const char *model, *host, *isa, *dtype, *device, *cpus;
    int64_t port, n_threads, n_http_threads, batch_tokens, queue_requests;
    int64_t max_body, max_inputs, max_text, max_memory;
    int64_t max_connections, max_per_address;
    int64_t max_wait_ns, timeout_ns, idle_ns, drain_ns, canary_ns;
    const char *api_keys, *tls_certificate, *tls_key;
    bool allows_public, logs_requests;
    const char *log_level, *log_format;
};

#define AT(member) offsetof(struct settings, member)
static const struct option TABLE[] = {
    {"model", 'm', OPTION_STRING, AT(model), "DIR", NULL, 0, 0, NULL,
     "model directory; default: weights/ade of this installation", "Model"},
    {"device", 0, OPTION_STRING, AT(device), "NAME", "auto", 0, 0, NULL,
     "what computes: cpu, cuda, cuda:N, cuda:N,M, cuda:all (an engine each), "
     "reference; "
     "auto: the first GPU if it can, else the CPU",
     "Model"},
    {"isa", 0, OPTION_STRING, AT(isa), "NAME", "auto", 0, 0, NULL,
     "instruction set; `vigil doctor` lists those of this machine; of a GPU: mma, wmma",
     "Model"},
    {"dtype", 0, OPTION_CHOICE, AT(dtype), NULL, "auto", 0, 0, ENGINES_DTYPE_CHOICES,
     "precision; bf16: 16 bits; auto: fp16 on a GPU, else int8 for a quantised model, "
     "else fp32",
     "Model"},
    {"threads", 't', OPTION_INTEGER, AT(n_threads), "N", "0", 0, 1024, NULL,
     "threads of the CPU engine; 0: one a processor", "Model"},
    {"cpus", 0, OPTION_STRING, AT(cpus), "LIST", NULL, 0, 0, NULL,
     "pin the engine to these processors (0,2-3), all else to the others", "Model"},
    {"batch-tokens", 0, OPTION_INTEGER, AT(batch_tokens), "N", "0", 0, 1 << 20, NULL,
     "tokens of a batch at most; 0: as many as the engine takes", "Model"},
    {"canary", 0, OPTION_SECONDS, AT(canary_ns), "SECONDS", "60s", 0, 0, NULL,
     "ask each engine so often for a known answer; a wrong one ends the server with "
     "exit "
     "code 70; 0: never",
     "Model"},
    {"host", 0, OPTION_STRING, AT(host), "ADDRESS", "127.0.0.1", 0, 0, NULL,
     "address to listen on", "Network"},
    {"port", 'p', OPTION_INTEGER, AT(port), "N", "8080", 0, 65535, NULL,
     "port to listen on; 0: a free one, named in the log", "Network"},
    {"http-threads", 0, OPTION_INTEGER, AT(n_http_threads), "N", "0", 0, 256, NULL,
     "threads that read and answer requests; 0: two, or more on large machines and for "
     "a GPU",
     "Network"},
    {"tls-cert", 0, OPTION_STRING, AT(tls_certificate), "FILE", NULL, 0, 0, NULL,
     "PEM certificate chain: serve over TLS 1.2 and 1.3", "Network"},
    {"tls-key", 0, OPTION_STRING, AT(tls_key), "FILE", NULL, 0, 0, NULL,
     "PEM key of the certificate", "Network"},
    {"api-keys", 0, OPTION_STRING, AT(api_keys), "FILE", NULL, 0, 0, NULL,
     "file with an API key, or sha256:HEX of one, a line", "Network"},
    {"allow-public", 0, OPTION_FLAG, AT(allows_public), NULL, NULL, 0, 0, NULL,
     "listen on a public address without keys and TLS, as behind a proxy", "Network"},
    {"max-connections", 0, OPTION_INTEGER, AT(max_connections), "N", "10000", 1,
     1000000, NULL, "open connections", "Limits"},
    {"max-per-address", 0, OPTION_INTEGER, AT(max_per_address), "N", "256", 1, 1000000,
     NULL, "open connections of one address", "Limits"},
    {"max-body", 0, OPTION_BYTES, AT(max_body), "BYTES", "6M", 1024, 256 << 20, NULL,
     "bytes of a request's body", "Limits"},
    {"max-inputs", 0, OPTION_INTEGER, AT(max_inputs), "N", "512", 1, 100000, NULL,
     "texts of a request", "Limits"},
    {"max-text", 0, OPTION_BYTES, AT(max_text), "BYTES", "64K", 1, 64 << 20, NULL,
     "bytes of a text", "Limits"},
    {"memory", 0, OPTION_BYTES, AT(max_memory), "BYTES", "256M", 1 << 20,
     INT64_C(1) << 40, NULL, "memory of all requests in flight; above: 429", "Limits"},
    {"queue-requests", 0, OPTION_INTEGER, AT(queue_requests), "N", "1024", 1, 1000000,
     NULL, "requests that may wait; above: 429", "Limits"},
    {"max-wait", 0, OPTION_SECONDS, AT(max_wait_ns), "SECONDS", "250ms", 0, 0, NULL,
     "refuse what would wait longer, by the engine's speed, with 429; 0: do not",
     "Limits"},
    {"timeout", 0, OPTION_SECONDS, AT(timeout_ns), "SECONDS", "15s", 1000000, 0, NULL,
     "a request that is not answered by then gets 503", "Limits"},
    {"idle-timeout", 0, OPTION_SECONDS, AT(idle_ns), "SECONDS", "30s",
     CLOCK_NS_PER_SECOND, 3600 * CLOCK_NS_PER_SECOND, NULL,
     "close a connection that has no request for so long", "Limits"},
    {"drain-timeout", 0, OPTION_SECONDS, AT(drain_ns), "SECONDS", "25s", 0, 0, NULL,
     "after SIGTERM, let requests end for so long", "Limits"},
    {"log-level", 0, OPTION_CHOICE, AT(log_level), NULL, "info", 0, 0,
     LOG_LEVEL_CHOICES, "the least that is logged", "Log"},
    {"log-format", 0, OPTION_CHOICE, AT(log_format), NULL, "logfmt", 0, 0,
     LOG_FORMAT_CHOICES, "shape of a line on stderr", "Log"},
    {"log-requests", 0, OPTION_FLAG, AT(logs_requests), NULL, "on", 0, 0, NULL,
     "a line for each request", "Log"},
};

static const char *const EXAMPLES[] = {
    "vigil serve",
    "serve the default model on http://127.0.0.1:8080",
    "vigil serve --model models/mine --port 9000 --threads 4",
    "another model, port, size",
    "vigil serve --host 0.0.0.0 --api-keys keys --tls-cert cert.pem --tls-key key.pem",
    "serve others, with keys and TLS",
    "kill -HUP $(pidof vigil-serve)",
    "read the model's files again, without dropping a request",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-serve",
    .summary = "classify posts over HTTP",
    .usage = "[options]",
    .description =
        "Serves a DistilBERT classifier over HTTP: Vigil's own API, and those of "
        "SageMaker endpoints, text-embeddings-inference and Hugging Face's inference "
        "endpoints. GET / lists the routes, /openapi.json describes them.\n\n"
        "SIGTERM and SIGINT end it once all requests are answered; a second one at "
        "once. "
        "SIGHUP loads the model anew; if that fails, the old one goes on.\n\n"
        "Exit status: 0 after SIGTERM or SIGINT, 1 when it could not start, 2 for a "
        "wrong "
        "command line, 70 when a device failed or computed wrongly: nothing that this "
        "process says could be relied on, and it has to be started again.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .max_arguments = 0,
};

/* All that is open, so that it can be closed in order. */
struct server {
    struct settings settings;
    char model[FILE_PATH_BYTES];
    struct engine_options engine;
    struct engines_plan plan;
    char device[64]; /* what "auto" came to */
    int32_t cpus[CPUS_MAX];
    struct auth *auth;
    char *certificate, *key;
    struct service *service;
    struct watch *watch;
    struct http *http;
    int32_t port;
    int64_t start_ns;
    pthread_t loader;
    enum status load_status; /* the loader's */
    bool is_loading;
    atomic_bool has_loaded;
};

/* ---- model ---- */

static void log_loaded(const struct server *s, const char *event) {
    struct served *served = service_acquire(s->service);
    const struct bundle *b = served->bundle;
    char devices[ENGINES_MAX * 16];
    struct log_line line;
    bundle_devices(b, devices, sizeof devices);
    if (b->note[0])
        log_message(LOG_LEVEL_WARNING, "fallback",
                    "the CPU computes, since no GPU could be used: %s", b->note);
    log_begin(&line, LOG_LEVEL_INFO, event);
    log_string(&line, "model", b->name);
    log_string(&line, "sha256", b->sha256);
    log_string(&line, "device", devices);
    log_string(&line, "dtype", b->engine->info.dtype);
    log_string(&line, "isa", b->engine->info.isa);
    log_integer(&line, "threads", b->engine->info.n_threads);
    log_integer(&line, "engine_bytes", (int64_t)bundle_engine_bytes(b));
    log_number(&line, "load_ms", (double)b->load_ns * 1e-6);
    log_number(&line, "warm_ms", (double)b->warm_ns * 1e-6);
    log_end(&line);
    service_release(served);
}

/* On a thread of its own: its processors become the engine's (pool.h), and the sweep must go
 * on. */
static void *load(void *argument) {
    struct server *s = argument;
    struct error err = {0};
    bool is_first = s->start_ns != 0;
    enum status status = service_load(s->service, s->model, &s->engine, &err);
    if (!is_first)
        metrics_reload(service_metrics(s->service), status == STATUS_OK);
    if (status != STATUS_OK)
        log_message(LOG_LEVEL_ERROR, is_first ? "load_failed" : "reload_failed", "%s",
                    err.message);
    else
        log_loaded(s, is_first ? "loaded" : "reloaded");
    /* The old model is on the same device. */
    if (status == STATUS_DEVICE && !is_first)
        batcher_die(service_batcher(s->service), &err);
    s->load_status = status;
    atomic_store(&s->has_loaded, true);
    return NULL;
}

static enum status start_loading(struct server *s, struct error *err) {
    atomic_store(&s->has_loaded, false);
    if (pthread_create(&s->loader, NULL, load, s) != 0)
        return error_set(err, STATUS_IO, "cannot start a thread to load the model");
    s->is_loading = true;
    return STATUS_OK;
}

/* Waits for the loader. True when the model is there. */
static bool end_loading(struct server *s) {
    if (s->is_loading)
        pthread_join(s->loader, NULL);
    s->is_loading = false;
    return s->load_status == STATUS_OK;
}

/* "auto" is decided once: a reload for which the device has no room has to fail, and not to
 * go on at the speed of the CPU. */
static void keep_device(struct server *s) {
    struct served *served = service_acquire(s->service);
    snprintf(s->device, sizeof s->device, "%s", served->bundle->engine->info.device);
    service_release(served);
    if (strcmp(s->engine.device, "auto") == 0)
        s->engine.device = s->device;
}

/* ---- start ---- */

static enum status read_pem(const char *path, char **out, struct error *err) {
    size_t n_bytes;
    return path ? file_read(path, MAX_PEM_BYTES, out, &n_bytes, err) : STATUS_OK;
}

static enum status prepare(struct server *s, struct error *err) {
    struct settings *o = &s->settings;
    if (!o->tls_certificate != !o->tls_key)
        return error_set(err, STATUS_INVALID, "--tls-cert and --tls-key go together");
    enum status status = STATUS_OK;
    if (o->model)
        snprintf(s->model, sizeof s->model, "%s", o->model);
    else
        status = paths_default_model(s->model, sizeof s->model, err);
    s->engine = (struct engine_options){.device = o->device,
                                        .isa = o->isa,
                                        .dtype = o->dtype,
                                        .n_threads = (int32_t)o->n_threads,
                                        .max_tokens = (int32_t)o->batch_tokens};
    if (status == STATUS_OK && o->cpus) {
        status = cpus_parse(o->cpus, s->cpus, &s->engine.n_cpus, err);
        s->engine.cpus = s->cpus;
        if (status == STATUS_OK && !s->engine.n_threads)
            s->engine.n_threads = s->engine.n_cpus;
        if (status == STATUS_OK)
            cpus_leave(s->cpus, s->engine.n_cpus);
    }
    if (status == STATUS_OK)
        status = engines_plan(&s->engine, &s->plan, err);
    if (status == STATUS_OK && o->api_keys)
        status = auth_open(o->api_keys, &s->auth, err);
    if (status == STATUS_OK)
        status = read_pem(o->tls_certificate, &s->certificate, err);
    return status == STATUS_OK ? read_pem(o->tls_key, &s->key, err) : status;
}

static enum status open_service(struct server *s, struct error *err) {
    const struct settings *o = &s->settings;
    struct service_options options = {
        .limits = {.max_text_bytes = (size_t)o->max_text,
                   .max_inputs = (size_t)o->max_inputs,
                   .json = {.max_bytes = (size_t)o->max_body,
                            .max_depth = JSON_MAX_DEPTH,
                            .max_values = (size_t)o->max_inputs * JSON_VALUES_AN_INPUT +
                                          JSON_VALUES_ASIDE,
                            .max_key_bytes = JSON_MAX_KEY_BYTES}},
        .max_memory_bytes = (size_t)o->max_memory,
        .timeout_ns = o->timeout_ns,
        .auth = s->auth,
        .batcher = {.n_workers = s->plan.n,
                    .batch_tokens = (int32_t)o->batch_tokens,
                    .max_jobs = (int32_t)o->queue_requests,
                    .max_wait_ns = o->max_wait_ns},
        .logs_requests = o->logs_requests};
    enum status status = service_open(&options, &s->service, err);
    if (status == STATUS_OK)
        status = watch_open(s->service, o->canary_ns, &s->watch, err);
    if (status != STATUS_OK)
        return status;
    const struct connections_options watched = {.head_ns = HEAD_NS,
                                                .body_ns = BODY_NS,
                                                .body_grace_ns = BODY_GRACE_NS,
                                                .min_bytes_per_s = MIN_BYTES_PER_S,
                                                .batcher = service_batcher(s->service),
                                                .metrics = service_metrics(s->service)};
    return connections_open(&watched, err);
}

/* As many connections as the limit on file descriptors has room for. */
static int32_t fit_connections(int64_t wanted) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return (int32_t)wanted;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur > SPARE_FDS && (uint64_t)wanted > limit.rlim_cur - SPARE_FDS) {
        log_message(LOG_LEVEL_WARNING, "limits",
                    "--max-connections lowered to %llu, by the limit on open files",
                    (unsigned long long)(limit.rlim_cur - SPARE_FDS));
        return (int32_t)(limit.rlim_cur - SPARE_FDS);
    }
    return (int32_t)wanted;
}

/* The CPU engine wants every processor: two threads, or a quarter of many, keep it fed. A GPU
 * wants none and is fed by tokenizing and JSON alone, which is what then limits a stream of
 * large requests: half of the processors, the other half for its worker, the kernel's side
 * of the connections, and whatever else there is. */
static int32_t choose_http_threads(bool is_cuda) {
    int32_t n = cpus_count();
    if (is_cuda)
        return n > 4 ? n / 2 : 2;
    return n > 8 ? n / 4 : 2;
}

static enum status open_http(struct server *s, struct error *err) {
    const struct settings *o = &s->settings;
    struct http_options options = {.service = s->service,
                                   .n_threads = (int32_t)o->n_http_threads,
                                   .max_per_address = (int32_t)o->max_per_address,
                                   .idle_ns = o->idle_ns,
                                   .tls_certificate = s->certificate,
                                   .tls_key = s->key};
    bool is_public = false;
    options.max_connections = fit_connections(o->max_connections);
    if (!options.n_threads)
        options.n_threads = choose_http_threads(s->plan.is_cuda);
    s->port = (int32_t)o->port;
    enum status status =
        http_listen(o->host, &s->port, &options.listen_fd, &is_public, err);
    if (status != STATUS_OK)
        return status;
    if (is_public && !o->allows_public && !(s->auth && s->key))
        return error_set(
            err, STATUS_INVALID,
            "others can reach %s: give --api-keys, --tls-cert and --tls-key, "
            "or --allow-public when something in front has them",
            o->host);
    status = open_service(s, err);
    if (status != STATUS_OK)
        return status;
    options.service = s->service;
    return http_open(&options, &s->http, err);
}

/* ---- running ---- */

/* What a signal asks for; 0: nothing, time to sweep. */
static int wait_signal(const sigset_t *signals) {
    const struct timespec tick = {.tv_nsec = SWEEP_NS};
    int found = sigtimedwait(signals, NULL, &tick);
    return found > 0 ? found : 0;
}

/* Ends the process after a device has failed, when those who wait were told. Nothing is
 * closed: the device would be waited for. */
static _Noreturn void die(const struct server *s, const struct error *why) {
    const struct timespec moment = {.tv_nsec = 2000000};
    int64_t end_ns = clock_now_ns() + DEATH_NS;
    struct log_line line;
    log_begin(&line, LOG_LEVEL_ERROR, "device_failed");
    log_string(&line, "message", why->message);
    log_integer(&line, "exit_code", EX_SOFTWARE);
    log_end(&line);
    service_drain(s->service);
    while (connections_n_busy() > 0 && clock_now_ns() < end_ns) {
        connections_sweep(clock_now_ns(), DRAIN_IDLE_NS);
        (void)nanosleep(&moment, NULL);
    }
    _exit(EX_SOFTWARE);
}

static void die_if_dead(const struct server *s) {
    struct error why;
    if (batcher_has_died(service_batcher(s->service), &why))
        die(s, &why);
}

static void sweep(struct server *s, int64_t idle_ns) {
    static int64_t ticked_ns;
    int64_t now = clock_now_ns();
    connections_sweep(now, idle_ns);
    batcher_expire(service_batcher(s->service), now);
    watch_tick(s->watch, now);
    die_if_dead(s);
    if (now - ticked_ns >= CLOCK_NS_PER_SECOND) {
        ticked_ns = now;
        metrics_tick(service_metrics(s->service), now);
    }
}

static void log_ready(const struct server *s) {
    char url[FILE_PATH_BYTES];
    struct log_line line;
    bool is_ipv6 = strchr(s->settings.host, ':') != NULL;
    snprintf(url, sizeof url, is_ipv6 ? "%s://[%s]:%d" : "%s://%s:%d",
             s->key ? "https" : "http", s->settings.host, s->port);
    log_begin(&line, LOG_LEVEL_INFO, "ready");
    log_integer(&line, "port", s->port);
    log_string(&line, "url", url);
    log_number(&line, "ms", (double)(clock_now_ns() - s->start_ns) * 1e-6);
    log_end(&line);
}

/* Serves until a signal ends it. False when the first model could not be loaded. */
static bool serve(struct server *s, const sigset_t *signals) {
    struct error err = {0};
    bool wants_reload = false;
    for (;;) {
        int signal = wait_signal(signals);
        sweep(s, -1);
        if (s->is_loading && atomic_load(&s->has_loaded)) {
            bool is_loaded = end_loading(s);
            if (s->start_ns && !is_loaded)
                return false;
            if (s->start_ns) {
                log_ready(s);
                keep_device(s);
            }
            s->start_ns = 0;
        }
        if (signal == SIGTERM || signal == SIGINT)
            return true;
        wants_reload |= signal == SIGHUP;
        if (wants_reload && !s->is_loading) {
            wants_reload = false;
            if (start_loading(s, &err) != STATUS_OK)
                log_message(LOG_LEVEL_ERROR, "reload_failed", "%s", err.message);
        }
    }
}

/* Answers what has come, for as long as it may take. */
static void drain(struct server *s, const sigset_t *signals) {
    int64_t end_ns = clock_now_ns() + s->settings.drain_ns;
    log_message(LOG_LEVEL_INFO, "draining", "%d connections", connections_count());
    service_drain(s->service);
    http_drain(s->http);
    while (connections_count() > 0 && clock_now_ns() < end_ns) {
        int signal = wait_signal(signals);
        if (signal == SIGTERM || signal == SIGINT)
            break;
        sweep(s, DRAIN_IDLE_NS);
    }
}

/* Whatever is open, in the one order that works: no job in the queue, then no connection,
 * then nothing that they use. */
static void stop(struct server *s) {
    end_loading(s);
    if (s->service) {
        batcher_fail_all(service_batcher(s->service), FAULT_NOT_READY);
        while (batcher_state(service_batcher(s->service)).n_jobs > 0)
            (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        die_if_dead(s);
    }
    watch_close(s->watch);
    http_close(s->http);
    service_close(s->service);
    connections_close();
    auth_close(s->auth);
    if (s->key)
        explicit_bzero(s->key, strlen(s->key));
    free(s->key);
    free(s->certificate);
}

int main(int argc, char **argv) {
    static struct server server;
    struct server *s = &server;
    struct error err = {0};
    int n_arguments = 0, exit_code = -1;
    s->start_ns = clock_now_ns();
    options_parse(&PROGRAM, argc, argv, &s->settings, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    log_configure(log_level_of(s->settings.log_level),
                  log_format_of(s->settings.log_format), 2);
    /* Posts and keys are in memory: neither a core file nor a debugger shall have them. */
    (void)prctl(PR_SET_DUMPABLE, 0);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    enum status status = prepare(s, &err);
    if (status == STATUS_OK)
        status = open_http(s, &err);
    if (status == STATUS_OK)
        status = start_loading(s, &err);
    bool is_served = status == STATUS_OK && serve(s, &signals);
    if (is_served)
        drain(s, &signals);
    else if (status != STATUS_OK)
        fprintf(stderr, "vigil serve: %s\n", err.message);
    else if (s->load_status == STATUS_DEVICE)
        _exit(EXIT_FAILED); /* nobody was served; whatever waits for the device hangs */
    stop(s);
    if (is_served)
        log_message(LOG_LEVEL_INFO, "stopped", "all requests are answered");
    return is_served ? EXIT_OK : EXIT_FAILED;
}
