/* SPDX-License-Identifier: Apache-2.0
 *
 * enrich.c - vigil-enrich: posts from the queue through a server into the store. Options,
 * wiring, signals; the loop is worker.c.
 *
 * Threads: this one has the work; one a caller; those of /metrics.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/options.h"
#include "base/progress.h"
#include "client/net/listener.h"
#include "client/sources/record.h"
#include "client/worker/classifier.h"
#include "client/worker/worker.h"

#define WORKER_NAME_BYTES 300
#define INFO_TIMEOUT_NS (5 * CLOCK_NS_PER_SECOND)
/* The bound of the wait between two looks at a server that is not ready: 3.2 s. */
#define START_ROUNDS 5
/* Texts of a request: what an engine on two cores reads in a second or two. */
#define BATCH_BYTES ((int64_t)256 << 10)
/* Of a request beside the texts. */
#define ASIDE_BYTES 1024
#define LAG_NS CLOCK_NS_PER_SECOND

struct settings {
    const char *server, *api_key_file, *ca_file, *store, *queue, *positive;
    const char *model, *since, *metrics, *metrics_keys, *log_level, *log_format;
    int64_t timeout_ns, lease_ns, n_parallel, batch;
    double threshold, review_from;
    bool is_once, is_json, is_quiet;
};

#define AT(member) offsetof(struct settings, member)
static const struct option TABLE[] = {
    {"store", 0, OPTION_STRING, AT(store), "URL", "vigil.db", 0, 0, NULL,
     "where posts and results are: a file of SQLite, or postgres://…", NULL},
    {"queue", 0, OPTION_STRING, AT(queue), "URL", NULL, 0, 0, NULL,
     "take posts from NATS, nats://host:port; without it from the store", NULL},
    {"once", 0, OPTION_FLAG, AT(is_once), NULL, NULL, 0, 0, NULL,
     "end when no post waits; without it wait for new ones", NULL},
    {"json", 'j', OPTION_FLAG, AT(is_json), NULL, NULL, 0, 0, NULL,
     "print the summary as one JSON object on standard output", NULL},
    {"quiet", 'q', OPTION_FLAG, AT(is_quiet), NULL, NULL, 0, 0, NULL,
     "neither a progress bar nor a summary", NULL},
    {"server", 's', OPTION_STRING, AT(server), "URL", "http://127.0.0.1:8080", 0, 0,
     NULL, "the vigil serve that is asked", "Server"},
    {"api-key-file", 0, OPTION_STRING, AT(api_key_file), "FILE", NULL, 0, 0, NULL,
     "file with the key for the server, which nobody else may read", "Server"},
    {"ca-file", 0, OPTION_STRING, AT(ca_file), "FILE", NULL, 0, 0, NULL,
     "PEM certificates that are trusted instead of the system's", "Server"},
    {"timeout", 0, OPTION_SECONDS, AT(timeout_ns), "SECONDS", "20s", 100000000,
     600 * CLOCK_NS_PER_SECOND, NULL,
     "of a request; longer than the server's own, which is 15 s", "Server"},
    {"parallel", 'p', OPTION_INTEGER, AT(n_parallel), "N", "4", 1, SCHEDULE_MAX_CALLERS,
     NULL, "requests under way; fewer while the server is busy", "Server"},
    {"batch", 'b', OPTION_INTEGER, AT(batch), "N", "64", 1, CLASSIFIER_MAX_TEXTS, NULL,
     "texts of a request", "Server"},
    {"lease", 0, OPTION_SECONDS, AT(lease_ns), "SECONDS", "60s", CLOCK_NS_PER_SECOND,
     3600 * CLOCK_NS_PER_SECOND, NULL,
     "how long posts stay with a worker that has died before others take them",
     "Server"},
    {"threshold", 't', OPTION_NUMBER, AT(threshold), "P", "0.6", 0, 0, NULL,
     "positive from this probability on", "Results"},
    {"review-band", 0, OPTION_NUMBER, AT(review_from), "P", "0.4", 0, 0, NULL,
     "from this probability up to the threshold a person shall look", "Results"},
    {"positive-label", 0, OPTION_STRING, AT(positive), "NAME", "Adverse_Event", 0, 0,
     NULL, "label 1 of the model, whose probability counts", "Results"},
    {"model", 0, OPTION_STRING, AT(model), "SHA256", NULL, 0, 0, NULL,
     "re-run: posts that have no result of this model yet; current: of the one served",
     "Re-run"},
    {"since", 0, OPTION_STRING, AT(since), "TIME", NULL, 0, 0, NULL,
     "with --model: posts since 2026-11-23, 2026-11-23T15:20:07Z, or the last 7d, 12h",
     "Re-run"},
    {"metrics", 0, OPTION_STRING, AT(metrics), "ADDRESS", NULL, 0, 0, NULL,
     "serve /metrics and /health there, as 127.0.0.1:9101", "Operation"},
    {"metrics-keys", 0, OPTION_STRING, AT(metrics_keys), "FILE", NULL, 0, 0, NULL,
     "API keys for /metrics; needed where others can reach the address", "Operation"},
    {"log-level", 0, OPTION_CHOICE, AT(log_level), NULL, "info", 0, 0,
     LOG_LEVEL_CHOICES, "the least that is logged", "Operation"},
    {"log-format", 0, OPTION_CHOICE, AT(log_format), NULL, "logfmt", 0, 0,
     LOG_FORMAT_CHOICES, "shape of a line on stderr", "Operation"},
};

static const char *const EXAMPLES[] = {
    "vigil enrich --store vigil.db",
    "classify what waits and what comes, with the server on this machine",
    "vigil enrich --store vigil.db --once --json",
    "classify what waits, and end",
    "vigil enrich --store postgres://db/vigil --queue nats://q:4222 --server "
    "https://ade",
    "one of many workers on many machines",
    "vigil enrich --model current --since 30d",
    "what the model that is served now says of the last month, beside the old results",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-enrich",
    .summary = "have stored posts classified, and keep the results",
    .usage = "[options]",
    .description =
        "Claims posts, asks a vigil serve what they say, and writes the results: label "
        "and band by the threshold, the evidence, and which model said so. Any number "
        "of "
        "workers may run on one store. Each post has one result for each model, "
        "whoever "
        "dies when.\n\n"
        "Bands: positive from --threshold on; review from --review-band up to the "
        "threshold; else negative.\n\n"
        "A server that is away or busy is waited for, however long, and costs no post "
        "anything; posts that are held meanwhile are given back after half a lease. A "
        "post "
        "that makes the server fail is found by halving its batch, tried again after 1 "
        "s, "
        "5 s, 30 s and 2 min, and becomes a dead letter after five tries; one that the "
        "server refuses becomes one at once (vigil-dlq(1)). The others go on. That a "
        "worker was killed costs a post nothing; what was with three that were is read "
        "alone, and is a dead letter when two more die of it.\n\n"
        "SIGTERM and SIGINT end it: requests under way are answered and written, all "
        "else "
        "is given back. A second signal ends it at once; then posts that it had are "
        "claimed by others when the lease is over.\n\n"
        "Exit status: 0 when stopped by a signal or, with --once or --model, when all "
        "is "
        "done; 1 when the server denies the key, its model has not the label, or the "
        "store "
        "is broken; 2 for a wrong command line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .max_arguments = 0,
};

/* A caller of the worker: its connection, and for which model it asks. */
struct asker {
    struct classifier *classifier;
    char sha256[STORE_SHA256_HEX + 1];
    bool wants_entities;
};

struct enrich {
    struct settings settings;
    char *api_key;
    char name[WORKER_NAME_BYTES]; /* host:pid */
    struct classifier_info info;
    struct work *work;
    struct asker askers[SCHEDULE_MAX_CALLERS];
    struct worker_caller callers[SCHEDULE_MAX_CALLERS];
    struct enrich_metrics metrics;
    struct listener *listener;
    struct progress progress;
    int64_t n_total; /* posts in line at the start */
    int64_t start_ns;
    /* The newest lag, so that /metrics asks the store once a second at most. */
    pthread_mutex_t lag_lock;
    struct store_lag lag;
    int64_t lag_ns;
    bool has_lag;
};

/* ---- signals ---- */

static volatile sig_atomic_t stop_fd = -1;

static void on_signal(int number) {
    int kept = errno;
    (void)number;
    if (eventfd_write((int)stop_fd, 1) != 0) {
        /* It is full: somebody was here before. */
    }
    errno = kept;
}

/* The first signal stops, the second has its usual effect. */
static enum status catch_signals(struct error *err) {
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0 || sigaction(SIGINT, &stop, NULL) != 0 ||
        sigaction(SIGTERM, &stop, NULL) != 0 || sigaction(SIGPIPE, &ignore, NULL) != 0)
        return error_set(err, STATUS_IO, "cannot prepare for signals: %s",
                         strerror(errno));
    return STATUS_OK;
}

/* False when a signal came meanwhile. */
static bool sleep_ns(int64_t wait_ns) {
    struct pollfd fd = {.fd = (int)stop_fd, .events = POLLIN};
    return poll(&fd, 1, (int)(wait_ns / 1000000) + 1) <= 0;
}

/* ---- options ---- */

/* "7d", "12h", "30m", "45s"; or a date, with or without a time, in UTC. */
static enum status parse_since(const char *text, int64_t *out, struct error *err) {
    static const struct {
        char unit;
        int64_t seconds;
    } UNITS[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++)
        if (end != text && errno == 0 && end[0] == UNITS[i].unit && !end[1] && n >= 0 &&
            n <= 36500 * (86400 / UNITS[i].seconds)) {
            *out = clock_wall_ns() - n * UNITS[i].seconds * CLOCK_NS_PER_SECOND;
            return STATUS_OK;
        }
    *out = record_time(view_of_string(text));
    if (*out > 0)
        return STATUS_OK;
    return error_set(
        err, STATUS_INVALID,
        "--since wants 2026-11-23, 2026-11-23T15:20:07Z, 7d, 12h, 30m or 45s");
}

static bool is_share(double p) {
    return p >= 0 && p <= 1;
}

static enum status check_settings(const struct settings *o, int64_t *since_ns,
                                  struct error *err) {
    *since_ns = 0;
    if (!is_share(o->threshold) || !is_share(o->review_from))
        return error_set(
            err, STATUS_INVALID,
            "--threshold and --review-band are probabilities, from 0 to 1");
    if (o->review_from > o->threshold)
        return error_set(err, STATUS_INVALID,
                         "--review-band is the lower edge, at most the threshold");
    if (!o->positive[0] || strlen(o->positive) >= CLASSIFIER_LABEL_BYTES)
        return error_set(err, STATUS_INVALID, "--positive-label names a label");
    if (o->since && !o->model)
        return error_set(err, STATUS_INVALID, "--since goes with --model");
    if (o->model && strcmp(o->model, "current") != 0 &&
        (strlen(o->model) != STORE_SHA256_HEX ||
         strspn(o->model, "0123456789abcdef") != STORE_SHA256_HEX))
        return error_set(err, STATUS_INVALID,
                         "--model wants the SHA-256 of a model, 64 digits, or current");
    return o->since ? parse_since(o->since, since_ns, err) : STATUS_OK;
}

/* ---- the server ---- */

static enum status open_classifier(const struct enrich *e, struct classifier **out,
                                   int wake_fd, struct error *err) {
    const struct classifier_options options = {.url = e->settings.server,
                                               .api_key = e->api_key,
                                               .ca_file = e->settings.ca_file,
                                               .positive = e->settings.positive,
                                               .wake_fd = wake_fd};
    return classifier_open(&options, out, err);
}

static void log_waiting(const struct enrich *e, const char *why) {
    struct log_line line;
    log_begin(&line, LOG_LEVEL_INFO, "waiting");
    log_string(&line, "server", e->settings.server);
    log_string(&line, "message", why);
    log_end(&line);
}

/* Waits until the server is ready and says which model it has. *is_stopped: a signal came. */
static enum status wait_server(struct enrich *e, bool *is_stopped, struct error *err) {
    struct classifier *c = NULL;
    struct classifier_answer answer;
    struct retry_random random;
    int64_t told_ns = 0;
    retry_random_seed(&random);
    enum status status = open_classifier(e, &c, (int)stop_fd, err);
    for (int32_t n = 0; status == STATUS_OK && !*is_stopped; n += n < START_ROUNDS) {
        classifier_ask_info(c, INFO_TIMEOUT_NS, &e->info, &answer);
        if (answer.kind == CLASSIFIER_OK && e->info.is_ready)
            break;
        if (answer.kind == CLASSIFIER_DENIED || answer.kind == CLASSIFIER_REFUSED ||
            (answer.kind == CLASSIFIER_FAILED && answer.code == 200) ||
            answer.code == 404) {
            /* What was said by whom; a URL that is wrong itself may hold a password. */
            bool is_answer = answer.code != 0;
            status = error_set(err, STATUS_INVALID, "%s%s%s",
                               is_answer ? e->settings.server : "",
                               is_answer ? ": " : "", answer.error.message);
            if (answer.code == 404)
                error_set(err, STATUS_INVALID,
                          "%s has no /info: expected a vigil serve there",
                          e->settings.server);
            break;
        }
        if (!told_ns || clock_now_ns() - told_ns > 30 * CLOCK_NS_PER_SECOND) {
            told_ns = clock_now_ns();
            log_waiting(e, answer.kind == CLASSIFIER_OK ? "it is not ready yet"
                                                        : answer.error.message);
        }
        int64_t wait = retry_wait_ns(&random, n);
        *is_stopped =
            !sleep_ns(answer.retry_after_ns > wait ? answer.retry_after_ns : wait);
    }
    classifier_close(c);
    return status;
}

/* The server may have read another model: whether that one gives evidence. True when that
 * is not as it was. */
static bool look_again(struct asker *a, const char *sha256) {
    struct classifier_info info;
    struct classifier_answer answer;
    classifier_ask_info(a->classifier, INFO_TIMEOUT_NS, &info, &answer);
    if (answer.kind != CLASSIFIER_OK || !info.is_ready)
        return false;
    bool is_changed = info.has_entities != a->wants_entities;
    snprintf(a->sha256, sizeof a->sha256, "%s", sha256 ? sha256 : info.sha256);
    a->wants_entities = info.has_entities;
    classifier_want_entities(a->classifier, a->wants_entities);
    return is_changed;
}

static void ask(void *context, const struct view *texts, size_t n, int64_t timeout_ns,
                struct arena *arena, struct classifier_answer *answer) {
    struct asker *a = context;
    classifier_ask(a->classifier, texts, n, timeout_ns, arena, answer);
    if (answer->kind == CLASSIFIER_OK && strcmp(answer->sha256, a->sha256) != 0)
        (void)look_again(a, answer->sha256);
    else if (answer->kind == CLASSIFIER_REFUSED && n == 1 && look_again(a, NULL))
        classifier_ask(a->classifier, texts, n, timeout_ns, arena, answer);
}

static enum status open_callers(struct enrich *e, struct error *err) {
    for (int64_t i = 0; i < e->settings.n_parallel; i++) {
        struct asker *a = &e->askers[i];
        enum status status = open_classifier(e, &a->classifier, -1, err);
        if (status != STATUS_OK)
            return status;
        memcpy(a->sha256, e->info.sha256, sizeof a->sha256);
        a->wants_entities = e->info.has_entities;
        classifier_want_entities(a->classifier, a->wants_entities);
        e->callers[i] = (struct worker_caller){.context = a, .ask = ask};
    }
    return STATUS_OK;
}

/* ---- work ---- */

static enum status open_work(struct enrich *e, int64_t since_ns, struct error *err) {
    const struct settings *o = &e->settings;
    char host[256];
    const char *model = o->model ? o->model : "";
    if (strcmp(model, "current") == 0)
        model = e->info.sha256;
    else if (model[0] && strcmp(model, e->info.sha256) != 0)
        return error_set(err, STATUS_INVALID, "the server has model %s, not %s",
                         e->info.sha256, model);
    if (gethostname(host, sizeof host) != 0)
        memcpy(host, "localhost", sizeof "localhost");
    host[sizeof host - 1] = '\0';
    snprintf(e->name, sizeof e->name, "%s:%ld", host, (long)getpid());
    const struct work_options options = {.store_url = o->store,
                                         .queue_url = o->queue,
                                         .worker = e->name,
                                         .model = model,
                                         .since_ns = since_ns,
                                         .lease_ns = o->lease_ns};
    enum status status = work_open(&options, &e->work, NULL, err);
    /* For the progress alone: a queue between two leaders may not know it now. */
    if (status == STATUS_OK &&
        e->work->calls->left(e->work, &e->n_total, NULL) != STATUS_OK)
        e->n_total = 0;
    return status;
}

/* ---- /metrics ---- */

static bool read_lag(struct enrich *e, struct store_lag *out) {
    pthread_mutex_lock(&e->lag_lock);
    int64_t now = clock_now_ns();
    if (!e->has_lag || now - e->lag_ns >= LAG_NS) {
        e->has_lag = e->work->calls->lag(e->work, &e->lag, NULL) == STATUS_OK;
        e->lag_ns = now;
    }
    *out = e->lag;
    bool has_lag = e->has_lag;
    pthread_mutex_unlock(&e->lag_lock);
    return has_lag;
}

static void handle_metrics(void *context, const struct listener_request *request,
                           struct listener_answer *answer) {
    struct enrich *e = context;
    struct store_lag lag;
    (void)request;
    bool has_lag = read_lag(e, &lag);
    answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
    if (enrich_metrics_write(&e->metrics, has_lag ? &lag : NULL, clock_wall_ns(),
                             &answer->body, NULL) != STATUS_OK)
        answer->code = 500;
}

static void handle_health(void *context, const struct listener_request *request,
                          struct listener_answer *answer) {
    struct enrich *e = context;
    (void)request;
    (void)buffer_printf(&answer->body, NULL, "{\"status\":\"ok\",\"breaker\":\"%s\"}",
                        breaker_state_name((enum breaker_state)e->metrics.breaker));
}

static enum status open_metrics(struct enrich *e, struct error *err) {
    static struct listener_route routes[] = {
        {.method = "GET",
         .path = "/metrics",
         .needs_key = true,
         .handle = handle_metrics},
        {.method = "GET", .path = "/health", .handle = handle_health}};
    if (!e->settings.metrics)
        return STATUS_OK;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        routes[i].context = e;
    const struct listener_options options = {.address = e->settings.metrics,
                                             .keys = e->settings.metrics_keys,
                                             .routes = routes,
                                             .n_routes =
                                                 sizeof routes / sizeof *routes};
    return listener_open(&options, &e->listener, err);
}

/* ---- running ---- */

static void log_started(const struct enrich *e) {
    struct log_line line;
    log_begin(&line, LOG_LEVEL_INFO, "ready");
    log_string(&line, "server", e->settings.server);
    log_string(&line, "model", e->info.model);
    log_string(&line, "sha256", e->info.sha256);
    log_string(&line, "dtype", e->info.dtype);
    log_string(&line, "worker", e->name);
    if (e->listener)
        log_integer(&line, "metrics_port", listener_port(e->listener));
    log_integer(&line, "waiting", e->n_total);
    log_end(&line);
}

static void on_progress(void *context, int64_t n_settled) {
    struct enrich *e = context;
    int64_t total = e->n_total > n_settled ? e->n_total : n_settled;
    progress_update(&e->progress, n_settled, total);
}

static enum status run(struct enrich *e, struct worker_summary *summary,
                       struct error *err) {
    const struct settings *o = &e->settings;
    struct retry_random seed;
    int64_t body = e->info.max_body_bytes - ASIDE_BYTES;
    retry_random_seed(&seed);
    bool is_once = o->is_once || o->model;
    bool has_bar = is_once && !o->is_quiet;
    struct worker_options options = {
        .work = e->work,
        .callers = e->callers,
        .n_callers = (int32_t)o->n_parallel,
        .batch = (size_t)(o->batch < e->info.max_texts ? o->batch : e->info.max_texts),
        .batch_bytes =
            (size_t)(body < BATCH_BYTES ? (body > 1 ? body : 1) : BATCH_BYTES),
        .timeout_ns = o->timeout_ns,
        .lease_ns = o->lease_ns,
        .rules = {.positive = o->positive,
                  .threshold = o->threshold,
                  .review_from = o->review_from},
        .is_once = is_once,
        .stop_fd = (int)stop_fd,
        .seed = seed.state,
        .metrics = &e->metrics,
        .on_progress = has_bar ? on_progress : NULL,
        .progress_context = e};
    if (has_bar)
        progress_begin(&e->progress, "enrich", "posts", e->n_total);
    enum status status = worker_run(&options, summary, err);
    if (has_bar)
        progress_end(&e->progress);
    return status;
}

static void print_summary(const struct enrich *e, const struct worker_summary *s) {
    double seconds = (double)(clock_now_ns() - e->start_ns) * 1e-9;
    double rate = seconds > 0 ? (double)s->n_done / seconds : 0;
    if (e->settings.is_json) {
        printf("{\"posts\":%" PRId64 ",\"positive\":%" PRId64 ",\"review\":%" PRId64
               ",\"negative\":%" PRId64 ",\"retried\":%" PRId64 ",\"given_up\":%" PRId64
               ",\"released\":%" PRId64 ",\"lost\":%" PRId64 ",\"requests\":%" PRId64
               ",\"retries\":%" PRId64 ",\"seconds\":%.3f,\"posts_per_second\":%.1f,"
               "\"model\":\"%s\"}\n",
               s->n_done, s->n_positive, s->n_review, s->n_negative, s->n_retried,
               s->n_given_up, s->n_released, s->n_lost, s->n_requests, s->n_retries,
               seconds, rate, e->info.sha256);
        return;
    }
    if (e->settings.is_quiet)
        return;
    fprintf(stderr,
            "%" PRId64 " posts: %" PRId64 " positive, %" PRId64 " to review, %" PRId64
            " negative; %" PRId64 " tried again, %" PRId64 " given up, %" PRId64
            " given back, %" PRId64 " lost; %.1f s, %.0f posts/s\n",
            s->n_done, s->n_positive, s->n_review, s->n_negative, s->n_retried,
            s->n_given_up, s->n_released, s->n_lost, seconds, rate);
}

static void stop(struct enrich *e) {
    listener_close(e->listener);
    for (int64_t i = 0; i < e->settings.n_parallel; i++)
        classifier_close(e->askers[i].classifier);
    work_close(e->work);
    fetch_secret_free(e->api_key);
}

int main(int argc, char **argv) {
    static struct enrich enrich = {.lag_lock = PTHREAD_MUTEX_INITIALIZER};
    struct enrich *e = &enrich;
    struct worker_summary summary = {0};
    struct error err = {0};
    int n_arguments = 0, exit_code = -1;
    int64_t since_ns = 0;
    bool is_stopped = false;
    options_parse(&PROGRAM, argc, argv, &e->settings, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    log_configure(log_level_of(e->settings.log_level),
                  log_format_of(e->settings.log_format), 2);
    /* Posts and keys are in memory: neither a core file nor a debugger shall have them. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (check_settings(&e->settings, &since_ns, &err) != STATUS_OK) {
        fprintf(stderr, "vigil enrich: %s\n", err.message);
        return EXIT_USAGE;
    }
    enrich_metrics_init(&e->metrics);
    enum status status = catch_signals(&err);
    if (status == STATUS_OK && e->settings.api_key_file)
        status = fetch_secret(e->settings.api_key_file, &e->api_key, &err);
    if (status == STATUS_OK)
        status = wait_server(e, &is_stopped, &err);
    if (status == STATUS_OK && !is_stopped)
        status = open_work(e, since_ns, &err);
    if (status == STATUS_OK && !is_stopped)
        status = open_callers(e, &err);
    if (status == STATUS_OK && !is_stopped)
        status = open_metrics(e, &err);
    if (status == STATUS_OK && !is_stopped) {
        log_started(e);
        e->start_ns = clock_now_ns();
        status = run(e, &summary, &err);
        print_summary(e, &summary);
    }
    stop(e);
    if (status != STATUS_OK)
        fprintf(stderr, "vigil enrich: %s\n", err.message);
    return status == STATUS_OK ? EXIT_OK : EXIT_FAILED;
}
