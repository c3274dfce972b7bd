/* SPDX-License-Identifier: Apache-2.0 */
#include "client/enrich_metrics.h"

#include <stdio.h>
#include <string.h>

#include "client/worker/breaker.h"

static const double BOUNDS[ENRICH_CALL_BOUNDS] = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};

void enrich_metrics_init(struct enrich_metrics *m) {
    pthread_mutex_init(&m->lock, NULL);
}

void enrich_metrics_done(struct enrich_metrics *m, const char *label,
                         const char *band) {
    pthread_mutex_lock(&m->lock);
    size_t i = 0;
    while (i < m->n_labels && (strcmp(m->labels[i].label, label) != 0 ||
                               strcmp(m->labels[i].band, band) != 0))
        i++;
    if (i == m->n_labels && i < ENRICH_LABELS) {
        snprintf(m->labels[i].label, sizeof m->labels[i].label, "%s", label);
        snprintf(m->labels[i].band, sizeof m->labels[i].band, "%s", band);
        m->n_labels++;
    }
    if (i < m->n_labels)
        m->labels[i].n++;
    pthread_mutex_unlock(&m->lock);
}

uint64_t enrich_metrics_band(struct enrich_metrics *m, const char *band) {
    uint64_t n = 0;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_labels; i++)
        if (strcmp(m->labels[i].band, band) == 0)
            n += m->labels[i].n;
    pthread_mutex_unlock(&m->lock);
    return n;
}

void enrich_metrics_call(struct enrich_metrics *m, enum classifier_kind kind,
                         int64_t spent_ns) {
    int i = 0;
    while (i < ENRICH_CALL_BOUNDS && (double)spent_ns * 1e-9 > BOUNDS[i])
        i++;
    atomic_fetch_add(&m->calls[kind], 1);
    atomic_fetch_add(&m->call_counts[i], 1);
    atomic_fetch_add(&m->call_ns, (uint64_t)(spent_ns > 0 ? spent_ns : 0));
}

/* ---- the page ---- */

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
    PUT(p, "# HELP vigil_enrich_%s %s\n# TYPE vigil_enrich_%s %s\n", name, help, name,
        type);
}

static void put(struct page *p, const char *name, const char *type, double n,
                const char *help) {
    put_head(p, name, type, help);
    PUT(p, "vigil_enrich_%s %.17g\n", name, n);
}

static void put_label(struct page *p, const char *text) {
    for (; *text; text++)
        PUT(p, *text == '"' || *text == '\\' ? "\\%c" : "%c",
            (unsigned char)*text < 0x20 ? ' ' : *text);
}

static void put_results(struct page *p, struct enrich_metrics *m) {
    put_head(p, "results_total", "counter", "Posts with a result, by label and band.");
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_labels; i++) {
        PUT(p, "vigil_enrich_results_total{label=\"");
        put_label(p, m->labels[i].label);
        PUT(p, "\",band=\"%s\"} %llu\n", m->labels[i].band,
            (unsigned long long)m->labels[i].n);
    }
    pthread_mutex_unlock(&m->lock);
}

static void put_calls(struct page *p, struct enrich_metrics *m) {
    uint64_t n = 0;
    put_head(p, "calls_total", "counter",
             "Requests to the server, by what became of them.");
    for (int i = 0; i < CLASSIFIER_KINDS; i++)
        PUT(p, "vigil_enrich_calls_total{outcome=\"%s\"} %llu\n",
            classifier_kind_name((enum classifier_kind)i),
            (unsigned long long)m->calls[i]);
    put_head(p, "call_duration_seconds", "histogram",
             "From sending a request to the end of its answer.");
    for (int i = 0; i < ENRICH_CALL_BOUNDS; i++) {
        n += m->call_counts[i];
        PUT(p, "vigil_enrich_call_duration_seconds_bucket{le=\"%g\"} %llu\n", BOUNDS[i],
            (unsigned long long)n);
    }
    n += m->call_counts[ENRICH_CALL_BOUNDS];
    PUT(p,
        "vigil_enrich_call_duration_seconds_bucket{le=\"+Inf\"} %llu\n"
        "vigil_enrich_call_duration_seconds_sum %.9g\n"
        "vigil_enrich_call_duration_seconds_count %llu\n",
        (unsigned long long)n, (double)m->call_ns * 1e-9, (unsigned long long)n);
}

static void put_breaker(struct page *p, struct enrich_metrics *m) {
    put_head(p, "breaker_state", "gauge", "1 for the state that the breaker is in.");
    for (int i = BREAKER_CLOSED; i <= BREAKER_HALF_OPEN; i++)
        PUT(p, "vigil_enrich_breaker_state{state=\"%s\"} %d\n",
            breaker_state_name((enum breaker_state)i), m->breaker == i);
    put(p, "breaker_opened_total", "counter", (double)m->n_opened,
        "How often the breaker opened.");
}

enum status enrich_metrics_write(struct enrich_metrics *m, const struct store_lag *lag,
                                 int64_t now_ns, struct buffer *out,
                                 struct error *err) {
    struct page p = {.out = out, .err = err};
    const struct {
        const char *name, *type;
        double n;
        const char *help;
    } plain[] = {
        {"claimed_total", "counter", (double)m->n_claimed, "Posts that were claimed."},
        {"retried_total", "counter", (double)m->n_retried,
         "Posts put back to be tried again, the try counted."},
        {"given_up_total", "counter", (double)m->n_given_up,
         "Posts that became dead letters by the server's word."},
        {"released_total", "counter", (double)m->n_released,
         "Posts given back untried, when stopping or with a server that is away."},
        {"lost_total", "counter", (double)m->n_lost,
         "Results dropped, since another worker had the post or it had changed."},
        {"batches_total", "counter", (double)m->n_batches,
         "Requests with posts that were answered."},
        {"probes_total", "counter", (double)m->n_probes,
         "Requests without posts, to see whether the server is well."},
        {"retries_total", "counter", (double)m->n_retries,
         "Requests sent again; at most a tenth of all."},
        {"throttled_total", "counter", (double)m->n_throttled,
         "Requests held back, since the server refuses most."},
        {"splits_total", "counter", (double)m->n_splits,
         "Batches halved in search of a post that makes the server fail."},
        {"store_failures_total", "counter", (double)m->n_store_failures,
         "Calls of the store or the queue that failed and were made again."},
        {"in_flight", "gauge", (double)m->n_in_flight, "Requests under way."},
        {"in_flight_limit", "gauge", (double)m->limit,
         "Requests that may be under way: fewer when the server is busy."},
        {"held", "gauge", (double)m->n_held, "Posts that are claimed and not settled."},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        put(&p, plain[i].name, plain[i].type, plain[i].n, plain[i].help);
    put_results(&p, m);
    put_calls(&p, m);
    put_breaker(&p, m);
    if (!lag)
        return p.status;
    double age = lag->oldest_ns ? (double)(now_ns - lag->oldest_ns) * 1e-9 : 0;
    put(&p, "queue_waiting", "gauge", (double)lag->n_waiting, "Posts that wait.");
    put(&p, "queue_claimed", "gauge", (double)lag->n_claimed,
        "Posts that some worker has.");
    put(&p, "queue_dead", "gauge", (double)lag->n_dead, "Dead letters.");
    put(&p, "queue_oldest_seconds", "gauge", age > 0 ? age : 0,
        "How long ago the oldest post that waits was received.");
    return p.status;
}
