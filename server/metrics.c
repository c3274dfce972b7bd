/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics.c - names end with their unit, counters with _total; a histogram's buckets are
 * counted apart and added up when they are written.
 */
#include "server/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/routes.h"

#define MAX_BUCKETS 20
#define MAX_LABELS 64
#define N_CODES 20
#define TICK_SECONDS 10 /* the figures per second look back this far */
#define N_CANARY_RESULTS (METRICS_CANARY_LATE + 1)

struct histogram {
    const double *bounds; /* [n_bounds] upper bounds, ascending */
    int n_bounds;
    double scale; /* what is observed, an integer, times scale is what is shown */
    _Atomic uint64_t counts[MAX_BUCKETS + 1];
    _Atomic uint64_t sum;
};

static const double SECONDS[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                 0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                 1,      2.5,     5,      10,    30};
static const double TOKENS[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};

/* Codes that the server answers with; the last stands for all others. */
static const int CODES[N_CODES] = {200, 400, 401, 404, 405, 408, 411, 413, 414, 415,
                                   417, 422, 429, 431, 499, 500, 501, 503, 505, 0};

struct label_count {
    char name[MODEL_MAX_LABEL_BYTES];
    uint64_t n;
};

struct sample {
    int64_t at_ns;
    uint64_t n_tokens, n_texts;
};

/* What one engine of the bundle did. */
struct work {
    _Atomic uint64_t n_batches, n_tokens, busy_ns;
};

struct metrics {
    _Atomic uint64_t requests[ROUTE_COUNT][N_CODES];
    _Atomic uint64_t gated[N_CODES];
    struct histogram latency[ROUTE_COUNT], queue_wait, batch_tokens, batch_time;
    _Atomic uint64_t n_texts, n_bad_texts, n_tokens, n_sequences, n_truncated,
        n_unknown;
    _Atomic uint64_t n_reloads, n_bad_reloads, n_connections_total;
    _Atomic int64_t n_connections;
    _Atomic uint64_t n_canaries[N_CANARY_RESULTS];
    struct work work[ENGINES_MAX];
    pthread_mutex_t lock; /* of what follows */
    struct label_count labels[MAX_LABELS];
    size_t n_labels;
    struct sample samples[TICK_SECONDS + 1];
    uint64_t n_samples;
};

static void set_up(struct histogram *h, const double *bounds, size_t n_bounds,
                   double scale) {
    h->bounds = bounds;
    h->n_bounds = (int)n_bounds;
    h->scale = scale;
}

enum status metrics_open(struct metrics **out, struct error *err) {
    struct metrics *m = calloc(1, sizeof *m);
    *out = m;
    if (!m)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the metrics");
    pthread_mutex_init(&m->lock, NULL);
    for (int i = 0; i < ROUTE_COUNT; i++)
        set_up(&m->latency[i], SECONDS, sizeof SECONDS / sizeof *SECONDS, 1e-9);
    set_up(&m->queue_wait, SECONDS, sizeof SECONDS / sizeof *SECONDS, 1e-9);
    set_up(&m->batch_time, SECONDS, sizeof SECONDS / sizeof *SECONDS, 1e-9);
    set_up(&m->batch_tokens, TOKENS, sizeof TOKENS / sizeof *TOKENS, 1);
    return STATUS_OK;
}

void metrics_close(struct metrics *m) {
    if (!m)
        return;
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void add(_Atomic uint64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t value(const _Atomic uint64_t *counter) {
    return atomic_load_explicit((_Atomic uint64_t *)counter, memory_order_relaxed);
}

static void observe(struct histogram *h, int64_t what) {
    double shown = (double)what * h->scale;
    int i = 0;
    while (i < h->n_bounds && shown > h->bounds[i])
        i++;
    add(&h->counts[i], 1);
    add(&h->sum, (uint64_t)(what > 0 ? what : 0));
}

static int code_index(int code) {
    int i = 0;
    while (i < N_CODES - 1 && CODES[i] != code)
        i++;
    return i;
}

void metrics_request(struct metrics *m, int32_t route, int code, int64_t spent_ns) {
    add(&m->requests[route][code_index(code)], 1);
    observe(&m->latency[route], spent_ns);
}

void metrics_queue_wait(struct metrics *m, int64_t waited_ns) {
    observe(&m->queue_wait, waited_ns);
}

void metrics_batch(struct metrics *m, int32_t engine, int32_t n_sequences,
                   int32_t n_tokens, int64_t spent_ns, int64_t busy_ns) {
    struct work *work = &m->work[engine];
    add(&work->n_batches, 1);
    add(&work->n_tokens, (uint64_t)n_tokens);
    add(&work->busy_ns, (uint64_t)(busy_ns >= 0 ? busy_ns : spent_ns));
    add(&m->n_sequences, (uint64_t)n_sequences);
    add(&m->n_tokens, (uint64_t)n_tokens);
    observe(&m->batch_tokens, n_tokens);
    observe(&m->batch_time, spent_ns);
}

void metrics_text(struct metrics *m, const char *label, bool is_truncated,
                  int32_t n_unknown) {
    add(&m->n_texts, 1);
    add(&m->n_truncated, is_truncated);
    add(&m->n_unknown, (uint64_t)n_unknown);
    pthread_mutex_lock(&m->lock);
    size_t i = 0;
    while (i < m->n_labels && strcmp(m->labels[i].name, label) != 0)
        i++;
    if (i == m->n_labels && i < MAX_LABELS) {
        snprintf(m->labels[i].name, sizeof m->labels[i].name, "%s", label);
        m->n_labels++;
    }
    if (i < m->n_labels)
        m->labels[i].n++;
    pthread_mutex_unlock(&m->lock);
}

void metrics_bad_text(struct metrics *m) {
    add(&m->n_bad_texts, 1);
}

void metrics_reload(struct metrics *m, bool is_ok) {
    add(is_ok ? &m->n_reloads : &m->n_bad_reloads, 1);
}

void metrics_canary(struct metrics *m, enum metrics_canary result) {
    add(&m->n_canaries[result], 1);
}

void metrics_connection(struct metrics *m, int32_t change) {
    atomic_fetch_add_explicit(&m->n_connections, change, memory_order_relaxed);
    if (change > 0)
        add(&m->n_connections_total, 1);
}

void metrics_gate(struct metrics *m, int code) {
    add(&m->gated[code_index(code)], 1);
}

void metrics_tick(struct metrics *m, int64_t now_ns) {
    pthread_mutex_lock(&m->lock);
    m->samples[m->n_samples++ % (TICK_SECONDS + 1)] =
        (struct sample){.at_ns = now_ns,
                        .n_tokens = value(&m->n_tokens),
                        .n_texts = value(&m->n_texts)};
    pthread_mutex_unlock(&m->lock);
}

/* ---- writing ---- */

/* Collects the first failure, so that a line is a line of code. */
struct page {
    struct buffer *out;
    struct error *err;
    enum status status;
};

#define PUT(page, ...)                                                                 \
    ((page)->status == STATUS_OK ? (void)((page)->status = buffer_printf(              \
                                              (page)->out, (page)->err, __VA_ARGS__))  \
                                 : (void)0)

static void put_head(struct page *p, const char *name, const char *type,
                     const char *help) {
    PUT(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_counter(struct page *p, const char *name, uint64_t n,
                        const char *help) {
    put_head(p, name, "counter", help);
    PUT(p, "%s %llu\n", name, (unsigned long long)n);
}

static void put_gauge(struct page *p, const char *name, double n, const char *help) {
    put_head(p, name, "gauge", help);
    PUT(p, "%s %.9g\n", name, n);
}

/* label: `route="...",` or "". */
static void put_histogram(struct page *p, const char *name, const char *label,
                          const struct histogram *h) {
    uint64_t n = 0;
    for (int i = 0; i < h->n_bounds; i++) {
        n += value(&h->counts[i]);
        PUT(p, "%s_bucket{%sle=\"%g\"} %llu\n", name, label, h->bounds[i],
            (unsigned long long)n);
    }
    n += value(&h->counts[h->n_bounds]);
    PUT(p, "%s_bucket{%sle=\"+Inf\"} %llu\n", name, label, (unsigned long long)n);
    size_t n_label = strlen(label);
    char braces[100] = "";
    if (n_label)
        snprintf(braces, sizeof braces, "{%.*s}", (int)n_label - 1, label);
    PUT(p, "%s_sum%s %.9g\n", name, braces, (double)value(&h->sum) * h->scale);
    PUT(p, "%s_count%s %llu\n", name, braces, (unsigned long long)n);
}

/* A label's value, with what Prometheus wants escaped. */
static void put_escaped(struct page *p, const char *text) {
    for (; *text; text++) {
        if (*text == '\n')
            PUT(p, "\\n");
        else
            PUT(p, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    }
}

static void put_requests(struct page *p, const struct metrics *m) {
    put_head(p, "vigil_requests_total", "counter",
             "Requests by route, method and HTTP code.");
    for (int r = 0; r < ROUTE_COUNT; r++)
        for (int c = 0; c < N_CODES; c++) {
            uint64_t n = value(&m->requests[r][c]);
            if (n)
                PUT(p,
                    "vigil_requests_total{route=\"%s\",method=\"%s\",code=\"%d\"} "
                    "%llu\n",
                    route_name(r), route_method(r), CODES[c], (unsigned long long)n);
        }
    put_head(
        p, "vigil_refused_connections_total", "counter",
        "Connections closed by the gate before a request was whole, by HTTP code.");
    for (int c = 0; c < N_CODES; c++) {
        uint64_t n = value(&m->gated[c]);
        if (n)
            PUT(p, "vigil_refused_connections_total{code=\"%d\"} %llu\n", CODES[c],
                (unsigned long long)n);
    }
    put_head(p, "vigil_request_duration_seconds", "histogram",
             "From the request's head to the last byte of its answer, by route.");
    for (int r = 0; r < ROUTE_COUNT; r++) {
        char label[96];
        snprintf(label, sizeof label, "route=\"%s\",method=\"%s\",", route_name(r),
                 route_method(r));
        uint64_t n = 0;
        for (int c = 0; c < N_CODES; c++)
            n += value(&m->requests[r][c]);
        if (n)
            put_histogram(p, "vigil_request_duration_seconds", label, &m->latency[r]);
    }
}

static void put_work(struct page *p, struct metrics *m) {
    put_counter(p, "vigil_texts_total", value(&m->n_texts), "Texts classified.");
    put_counter(p, "vigil_bad_texts_total", value(&m->n_bad_texts),
                "Texts of a list that could not be classified; the rest of it was.");
    put_counter(p, "vigil_tokens_total", value(&m->n_tokens), "Tokens computed.");
    put_counter(p, "vigil_sequences_total", value(&m->n_sequences),
                "Sequences computed: a long text is several windows.");
    put_counter(p, "vigil_truncated_texts_total", value(&m->n_truncated),
                "Texts cut to the model's window on request.");
    put_counter(p, "vigil_unknown_tokens_total", value(&m->n_unknown),
                "[UNK] tokens: words that the vocabulary cannot spell.");
    put_head(p, "vigil_labels_total", "counter", "Texts by the label they got.");
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_labels; i++) {
        PUT(p, "vigil_labels_total{label=\"");
        put_escaped(p, m->labels[i].name);
        PUT(p, "\"} %llu\n", (unsigned long long)m->labels[i].n);
    }
    struct sample first = {0}, last = {0};
    if (m->n_samples) {
        uint64_t n_kept = TICK_SECONDS + 1, oldest = 0;
        if (m->n_samples > n_kept)
            oldest = m->n_samples % n_kept;
        first = m->samples[oldest];
        last = m->samples[(m->n_samples - 1) % n_kept];
    }
    pthread_mutex_unlock(&m->lock);
    double seconds = (double)(last.at_ns - first.at_ns) * 1e-9;
    bool is_known = seconds > 0;
    put_gauge(p, "vigil_tokens_per_second",
              is_known ? (double)(last.n_tokens - first.n_tokens) / seconds : 0,
              "Tokens computed a second, over the last 10 seconds.");
    put_gauge(p, "vigil_texts_per_second",
              is_known ? (double)(last.n_texts - first.n_texts) / seconds : 0,
              "Texts classified a second, over the last 10 seconds.");
    put_head(p, "vigil_queue_wait_seconds", "histogram",
             "From a request's entry into the queue to its first batch.");
    put_histogram(p, "vigil_queue_wait_seconds", "", &m->queue_wait);
    put_head(p, "vigil_batch_tokens", "histogram", "Tokens of a batch.");
    put_histogram(p, "vigil_batch_tokens", "", &m->batch_tokens);
    put_head(p, "vigil_batch_duration_seconds", "histogram",
             "The engine's time for a batch.");
    put_histogram(p, "vigil_batch_duration_seconds", "", &m->batch_time);
}

static void put_state(struct page *p, const struct metrics *m,
                      const struct metrics_now *now) {
    put_gauge(p, "vigil_ready", now->is_ready, "1 while /ready answers 200.");
    put_gauge(p, "vigil_engine_up", now->is_engine_up,
              "0 when an engine's last batch failed, or no model is loaded.");
    put_gauge(p, "vigil_queue_jobs", now->n_jobs,
              "Requests that wait or are computed.");
    put_gauge(p, "vigil_queue_tokens", (double)now->n_tokens_waiting,
              "Tokens that wait for a batch.");
    put_gauge(p, "vigil_connections",
              (double)atomic_load(&((struct metrics *)m)->n_connections),
              "Open connections.");
    put_counter(p, "vigil_connections_total", value(&m->n_connections_total),
                "Connections accepted.");
    put_gauge(p, "vigil_request_memory_bytes", (double)now->n_memory_bytes,
              "Memory reserved for requests in flight.");
    put_gauge(p, "vigil_request_memory_limit_bytes", (double)now->max_memory_bytes,
              "What --memory allows.");
    put_head(p, "vigil_reloads_total", "counter",
             "Models loaded on SIGHUP, by outcome.");
    PUT(p, "vigil_reloads_total{outcome=\"ok\"} %llu\n",
        (unsigned long long)value(&m->n_reloads));
    PUT(p, "vigil_reloads_total{outcome=\"failed\"} %llu\n",
        (unsigned long long)value(&m->n_bad_reloads));
    static const char *const results[N_CANARY_RESULTS] = {"ok", "failed", "late"};
    put_head(p, "vigil_canary_total", "counter",
             "Checks of an engine against what it said when it was loaded, by result.");
    for (int i = 0; i < N_CANARY_RESULTS; i++)
        PUT(p, "vigil_canary_total{result=\"%s\"} %llu\n", results[i],
            (unsigned long long)value(&m->n_canaries[i]));
}

/* A series for each engine of the bundle. */
static void put_devices(struct page *p, const struct metrics *m,
                        const struct bundle *bundle) {
    static const struct {
        const char *name, *type, *help;
    } heads[] = {
        {"vigil_device_batches_total", "counter", "Batches that a device computed."},
        {"vigil_device_tokens_total", "counter", "Tokens that a device computed."},
        {"vigil_device_busy_seconds_total", "counter",
         "Time that a device spent on batches, by its own clock if it has one."},
        {"vigil_engine_memory_bytes", "gauge",
         "Weights and scratch memory of an engine."},
    };
    for (size_t k = 0; k < sizeof heads / sizeof *heads; k++) {
        put_head(p, heads[k].name, heads[k].type, heads[k].help);
        for (int32_t i = 0; i < bundle->n_engines; i++) {
            const struct engine_info *e = &bundle->engines[i]->info;
            const double values[] = {(double)value(&m->work[i].n_batches),
                                     (double)value(&m->work[i].n_tokens),
                                     (double)value(&m->work[i].busy_ns) * 1e-9,
                                     (double)e->n_bytes};
            PUT(p, "%s{device=\"%s\"} %.15g\n", heads[k].name, e->device, values[k]);
        }
    }
}

/* Resident pages of this process; 0 when /proc is not there. */
static double resident_bytes(void) {
    unsigned long long resident = 0;
    char text[128] = "";
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fgets(text, sizeof text, file)) {
        char *at = NULL;
        (void)strtoull(text, &at, 10);
        resident = strtoull(at, NULL, 10);
    }
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void put_process(struct page *p, const struct metrics *m,
                        const struct metrics_now *now) {
    put_gauge(p, "process_resident_memory_bytes", resident_bytes(),
              "Resident memory of the process.");
    put_head(p, "vigil_build_info", "gauge", "Version of the server.");
    PUT(p, "vigil_build_info{version=\"%s\"} 1\n", VIGIL_VERSION);
    const struct bundle *bundle = now->bundle;
    if (!bundle)
        return;
    put_head(p, "vigil_model_info", "gauge", "The model and the engines that run it.");
    for (int32_t i = 0; i < bundle->n_engines; i++) {
        const struct engine_info *e = &bundle->engines[i]->info;
        PUT(p, "vigil_model_info{name=\"");
        put_escaped(p, bundle->name);
        PUT(p, "\",sha256=\"%s\",dtype=\"%s\",device=\"%s\",isa=\"%s\"} 1\n",
            bundle->sha256, e->dtype, e->device, e->isa);
    }
    put_gauge(p, "vigil_engine_threads", bundle->engine->info.n_threads,
              "Threads that compute.");
    put_devices(p, m, bundle);
    put_gauge(p, "vigil_model_load_seconds", (double)bundle->load_ns * 1e-9,
              "Time that reading the model took.");
}

enum status metrics_write(struct metrics *m, const struct metrics_now *now,
                          struct buffer *out, struct error *err) {
    struct page page = {.out = out, .err = err, .status = STATUS_OK};
    put_requests(&page, m);
    put_work(&page, m);
    put_state(&page, m, now);
    put_process(&page, m, now);
    return page.status;
}
