/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define QUANTILE_COUNT 4
static const double QUANTILES[QUANTILE_COUNT] = {0.5, 0.9, 0.99, 0.999};
static const char *const QUANTILE_KEYS[QUANTILE_COUNT] = {"p50", "p90", "p99", "p99.9"};

static double ms(double ns) {
    return ns * 1e-6;
}

static double quantile_ms(const struct histogram *h, double q) {
    return ms((double)histogram_quantile(h, q));
}

/* What each connection of a closed loop would have met if it had not waited. NULL when
 * there is nothing to correct; freed by the caller. */
static struct histogram *corrected(const struct load_options *options,
                                   const struct load_result *result) {
    struct histogram *h = NULL;
    if (options->rate <= 0 && result->answered.n > 0)
        h = calloc(1, sizeof *h);
    if (h)
        histogram_add_corrected(h, &result->answered,
                                histogram_quantile(&result->answered, 0.5));
    return h;
}

/* ---- the table -------------------------------------------------------------------- */

static void print_latencies(const char *title, const struct histogram *h, FILE *out) {
    if (h->n == 0)
        return;
    fprintf(out, "%-22s %9llu %9.3f", title, (unsigned long long)h->n,
            ms(histogram_mean(h)));
    for (size_t i = 0; i < QUANTILE_COUNT; i++)
        fprintf(out, " %9.3f", quantile_ms(h, QUANTILES[i]));
    fprintf(out, " %9.3f\n", ms((double)h->largest));
}

static void print_counts(const struct load_result *r, FILE *out) {
    fputs("codes     ", out);
    const char *separator = "";
    for (int code = 0; code < LOAD_CODES; code++)
        if (r->codes[code]) {
            fprintf(out, "%s%d: %llu", separator, code,
                    (unsigned long long)r->codes[code]);
            separator = ", ";
        }
    fprintf(out, "%s\n", *separator ? "" : "none");
    for (int i = HTTP_ANSWERED + 1; i < N_HTTP_OUTCOMES; i++)
        if (r->outcomes[i])
            fprintf(out, "no answer %s: %llu\n", http_outcome_name(i),
                    (unsigned long long)r->outcomes[i]);
    if (r->n_unsent)
        fprintf(out,
                "not sent  %llu that were due: no connection was free "
                "(--concurrency)\n",
                (unsigned long long)r->n_unsent);
}

void report_table(const struct load_options *options, const struct load_result *result,
                  FILE *out) {
    struct histogram *h = corrected(options, result);
    if (options->rate > 0)
        fprintf(out, "open loop: %g requests/s, %s intervals, up to %zu connections",
                options->rate, options->is_even ? "even" : "random",
                options->n_connections);
    else
        fprintf(out, "closed loop: %zu connections", options->n_connections);
    fprintf(out, "; %zu text%s a request; %.1f s\n", options->batch,
            options->batch == 1 ? "" : "s", result->seconds);
    fprintf(out, "answered  %.1f requests/s, %.1f texts/s\n",
            (double)result->n_requests_in_time / result->seconds,
            (double)result->n_texts_in_time / result->seconds);
    print_counts(result, out);
    fprintf(out, "%-22s %9s %9s %9s %9s %9s %9s %9s\n", "latency, ms", "n", "mean",
            "p50", "p90", "p99", "p99.9", "max");
    print_latencies("answered (200)", &result->answered, out);
    print_latencies("  the engine's part", &result->engine, out);
    print_latencies("  all else", &result->around, out);
    if (h)
        print_latencies("  if none had waited", h, out);
    print_latencies("refused (429, 503)", &result->refused, out);
    print_latencies("other codes", &result->failed, out);
    fprintf(out, "the load itself took %.2f of a processor\n", result->client_busy);
    free(h);
}

/* ---- JSON ------------------------------------------------------------------------- */

static json_t *latencies_json(const struct histogram *h) {
    json_t *o = json_pack("{s:I,s:f,s:f}", "n", (json_int_t)h->n, "mean",
                          ms(histogram_mean(h)), "min", ms((double)h->smallest));
    for (size_t i = 0; i < QUANTILE_COUNT; i++)
        json_object_set_new(o, QUANTILE_KEYS[i],
                            json_real(quantile_ms(h, QUANTILES[i])));
    json_object_set_new(o, "max", json_real(ms((double)h->largest)));
    return o;
}

static json_t *codes_json(const struct load_result *r) {
    json_t *o = json_object();
    char key[16];
    for (int code = 0; code < LOAD_CODES; code++)
        if (r->codes[code]) {
            snprintf(key, sizeof key, "%d", code);
            json_object_set_new(o, key, json_integer((json_int_t)r->codes[code]));
        }
    return o;
}

static json_t *failures_json(const struct load_result *r) {
    json_t *o = json_object();
    for (int i = HTTP_ANSWERED + 1; i < N_HTTP_OUTCOMES; i++)
        if (r->outcomes[i])
            json_object_set_new(o, http_outcome_name(i),
                                json_integer((json_int_t)r->outcomes[i]));
    return o;
}

static json_t *result_json(const struct load_options *options,
                           const struct load_result *r) {
    struct histogram *h = corrected(options, r);
    json_t *latency = json_object();
    json_object_set_new(latency, "answered", latencies_json(&r->answered));
    if (r->engine.n) {
        json_object_set_new(latency, "engine", latencies_json(&r->engine));
        json_object_set_new(latency, "around_engine", latencies_json(&r->around));
    }
    if (h)
        json_object_set_new(latency, "answered_corrected", latencies_json(h));
    json_object_set_new(latency, "refused", latencies_json(&r->refused));
    json_object_set_new(latency, "other", latencies_json(&r->failed));
    free(h);
    json_t *o = json_pack(
        "{s:f,s:f,s:f,s:I,s:I,s:o,s:o,s:o,s:f}", "seconds", r->seconds,
        "requests_per_s", (double)r->n_requests_in_time / r->seconds, "texts_per_s",
        (double)r->n_texts_in_time / r->seconds, "due", (json_int_t)r->n_due, "unsent",
        (json_int_t)r->n_unsent, "codes", codes_json(r), "no_answer", failures_json(r),
        "latency_ms", latency, "client_processors", r->client_busy);
    if (o && options->rate > 0)
        json_object_set_new(o, "rate", json_real(options->rate));
    return o;
}

static enum status put_json(const struct load_options *options, const char *key,
                            json_t *value, FILE *out, struct error *err) {
    json_t *root =
        json_pack("{s:s,s:s,s:s,s:I,s:I,s:o}", "version", VIGIL_VERSION, "url",
                  options->url, "loop", options->rate > 0 ? "open" : "closed",
                  "connections", (json_int_t)options->n_connections, "texts_a_request",
                  (json_int_t)options->batch, key, value);
    if (!root)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
    int rc = json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    fputc('\n', out);
    return rc ? error_set(err, STATUS_IO, "cannot write the figures") : STATUS_OK;
}

enum status report_json(const struct load_options *options,
                        const struct load_result *result, FILE *out,
                        struct error *err) {
    return put_json(options, "result", result_json(options, result), out, err);
}

/* ---- sweeps ----------------------------------------------------------------------- */

void report_sweep_header(FILE *out) {
    fprintf(out, "%12s %10s %10s %9s %9s %9s %9s %9s %8s\n", "requests/s", "answered/s",
            "texts/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "refused");
}

void report_sweep_line(double rate, const struct load_result *r, FILE *out) {
    fprintf(out, "%12.1f %10.1f %10.1f", rate,
            (double)r->n_requests_in_time / r->seconds,
            (double)r->n_texts_in_time / r->seconds);
    for (size_t i = 0; i < QUANTILE_COUNT; i++)
        fprintf(out, " %9.3f", quantile_ms(&r->answered, QUANTILES[i]));
    fprintf(out, " %9.3f %8llu\n", ms((double)r->answered.largest),
            (unsigned long long)r->refused.n);
    fflush(out);
}

enum status report_sweep_json(const struct load_options *options, const double *rates,
                              const struct load_result *const *results, size_t n,
                              FILE *out, struct error *err) {
    json_t *array = json_array();
    struct load_options one = *options;
    for (size_t i = 0; i < n; i++) {
        one.rate = rates[i];
        json_array_append_new(array, result_json(&one, results[i]));
    }
    return put_json(&one, "sweep", array, out, err);
}
