/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sweep.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "bench/report.h"
#include "bench/svg.h"

/* Shares of what the closed loop reached; the last ones are for a closed loop that a noisy
 * moment held back. */
static const double STEPS[] = {0.1, 0.2,  0.3, 0.4,  0.5, 0.6, 0.7,  0.8, 0.85,
                               0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 2.0};
#define N_STEPS (sizeof STEPS / sizeof *STEPS)
#define KEPT_UP 0.95          /* of what is due must be answered */
#define ENOUGH_BEHIND 2       /* in a row: one may be a noisy moment */
#define LEAST_CONNECTIONS 240 /* few requests wait for one; a server allows 256 */

struct sweep {
    struct load_result *results[N_STEPS];
    double rates[N_STEPS];
    size_t n;
    double capacity; /* requests a second of the closed loop */
    double capacity_texts;
};

static bool keeps_up(const struct load_result *r) {
    double wanted = KEPT_UP * (double)r->n_due;
    return (double)r->n_requests_in_time >= wanted && (double)r->answered.n >= wanted;
}

static enum status measure_capacity(struct sweep *s, const struct load_options *options,
                                    struct load_requests *requests, struct error *err) {
    struct load_options o = *options;
    struct load_result *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
    o.rate = 0;
    enum status status = load_run(&o, requests, r, err);
    s->capacity = status ? 0 : (double)r->n_requests_in_time / r->seconds;
    s->capacity_texts = status ? 0 : (double)r->n_texts_in_time / r->seconds;
    free(r);
    if (!status && !(s->capacity > 0))
        return error_set(err, STATUS_INVALID, "no request was answered in %.1f s",
                         1e-9 * (double)o.duration_ns);
    return status;
}

static enum status measure_steps(struct sweep *s, const struct load_options *options,
                                 struct load_requests *requests, FILE *out,
                                 struct error *err) {
    struct load_options o = *options;
    size_t n_behind = 0;
    if (o.n_connections < LEAST_CONNECTIONS)
        o.n_connections = LEAST_CONNECTIONS;
    for (size_t i = 0; i < N_STEPS; i++) {
        struct load_result *r = s->results[i] = calloc(1, sizeof *r);
        if (!r)
            return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
        o.rate = s->rates[i] = STEPS[i] * s->capacity;
        enum status status = load_run(&o, requests, r, err);
        if (status)
            return status;
        s->n++;
        if (out)
            report_sweep_line(o.rate, r, out);
        n_behind = keeps_up(r) ? 0 : n_behind + 1;
        if (n_behind == ENOUGH_BEHIND || (o.is_stopped && *o.is_stopped))
            break;
    }
    return STATUS_OK;
}

static enum status draw(const struct sweep *s, const struct load_options *options,
                        const char *path, struct error *err) {
    static const double quantiles[SVG_LINES] = {0.5, 0.9, 0.99};
    struct svg_point points[N_STEPS];
    char subtitle[256], limit[64];
    struct buffer picture = {.max_bytes = 1 << 20};
    for (size_t i = 0; i < s->n; i++) {
        const struct load_result *r = s->results[i];
        points[i].x = (double)r->n_texts_in_time / r->seconds;
        for (size_t j = 0; j < SVG_LINES; j++)
            points[i].y[j] =
                1e-6 * (double)histogram_quantile(&r->answered, quantiles[j]);
    }
    snprintf(subtitle, sizeof subtitle,
             "open loop, %s arrivals, %zu text%s a request, %g s a point",
             options->is_even ? "even" : "Poisson", options->batch,
             options->batch == 1 ? "" : "s", 1e-9 * (double)options->duration_ns);
    snprintf(limit, sizeof limit, "closed loop, %zu connections",
             options->n_connections);
    const struct svg_chart chart = {
        .title = "Latency by throughput",
        .subtitle = subtitle,
        .x_title = "texts answered a second",
        .y_title = "latency, ms",
        .names = {"p50", "p90", "p99"},
        .points = points,
        .n_points = s->n,
        .limit = s->capacity_texts,
        .limit_name = limit,
    };
    enum status status = svg_draw(&chart, &picture, err);
    if (!status)
        status = file_replace(path, picture.data, picture.n_bytes, err);
    buffer_free(&picture);
    return status;
}

enum status sweep_run(const struct load_options *options,
                      struct load_requests *requests, const char *svg_path,
                      bool is_json, FILE *out, struct error *err) {
    struct sweep s = {0};
    enum status status = measure_capacity(&s, options, requests, err);
    if (!status && !is_json) {
        fprintf(out, "closed loop, %zu connections: %.1f requests/s, %.1f texts/s\n",
                options->n_connections, s.capacity, s.capacity_texts);
        report_sweep_header(out);
    }
    if (!status)
        status = measure_steps(&s, options, requests, is_json ? NULL : out, err);
    if (!status && is_json)
        status = report_sweep_json(options, s.rates,
                                   (const struct load_result *const *)s.results, s.n,
                                   out, err);
    if (!status && svg_path)
        status = draw(&s, options, svg_path, err);
    for (size_t i = 0; i < N_STEPS; i++)
        free(s.results[i]);
    return status;
}
