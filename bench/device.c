/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "bench/passes.h"
#include "bench/shapes.h"

enum {
    MAX_SHAPES = 16,
    MAX_ROUNDS = 100,
    RUNS = 50, /* of a shape in a round, in each of the two ways */
    MIN_RUNS = 2,
    WARM_NS = 100000000,
    ROUND_NS = 250000000 /* and no more runs after this */
};
/* Between two kernels of one CUDA graph on an H100: 2.4 of the reference, not our own. */
#define LAUNCH_MS 1.3e-3

/* Times of a kind, all rounds together. */
struct times {
    double *ms; /* [MAX_ROUNDS * RUNS] at most */
    size_t n;
};

enum kind { WALL, DEVICE, STREAM, STREAM_DEVICE, N_KINDS };

struct subject {
    struct shape shape;
    struct passes passes;
    struct shape_work work;
    struct times times[N_KINDS];
};

struct bench {
    const struct device_bench *options;
    struct checkpoint *checkpoint;
    struct engine *engine;
    double open_ms;
    struct subject subjects[MAX_SHAPES];
    size_t n;
};

/* ---- runs ------------------------------------------------------------------------- */

static void keep(struct times *t, double ms) {
    if (ms >= 0)
        t->ms[t->n++] = ms;
}

static enum status time_alone(struct subject *s, struct error *err) {
    int64_t end_ns = clock_now_ns() + ROUND_NS;
    enum status status = STATUS_OK;
    for (int i = 0; i < RUNS && !status; i++) {
        struct pass_time time;
        if (i >= MIN_RUNS && clock_now_ns() > end_ns)
            break;
        status = passes_run(&s->passes, NULL, &time, err);
        keep(&s->times[WALL], time.ms);
        keep(&s->times[DEVICE], time.device_ms);
    }
    return status;
}

/* As many passes as time_alone had time for. */
static enum status time_stream(struct subject *s, int32_t n, struct error *err) {
    double device_ms[RUNS];
    struct pass_time time;
    enum status status = passes_stream(&s->passes, n, device_ms, &time, err);
    keep(&s->times[STREAM], time.ms / n);
    for (int32_t i = 0; i < n && time.device_ms >= 0; i++)
        keep(&s->times[STREAM_DEVICE], device_ms[i]);
    return status;
}

static enum status warm_up(struct subject *s, struct error *err) {
    int64_t end_ns = clock_now_ns() + WARM_NS;
    struct pass_time time;
    enum status status = passes_stream(&s->passes, MIN_RUNS, NULL, &time, err);
    while (!status && clock_now_ns() < end_ns)
        status = passes_run(&s->passes, NULL, &time, err);
    return status;
}

static enum status play(struct bench *b, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < b->n && !status; i++)
        status = warm_up(&b->subjects[i], err);
    for (int64_t round = 0; round < b->options->engine.n_rounds; round++)
        for (size_t i = 0; i < b->n && !status; i++) {
            struct subject *s = &b->subjects[i];
            size_t before = s->times[WALL].n;
            status = time_alone(s, err);
            if (!status)
                status = time_stream(s, (int32_t)(s->times[WALL].n - before), err);
        }
    return status;
}

/* ---- figures ---------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of times that are sorted. */
static double quantile(const struct times *t, double q) {
    double at = q * (double)(t->n - 1);
    size_t below = (size_t)at, above = below + 1 < t->n ? below + 1 : below;
    return t->ms[below] + (at - (double)below) * (t->ms[above] - t->ms[below]);
}

static void sort_times(struct bench *b) {
    for (size_t i = 0; i < b->n; i++)
        for (int kind = 0; kind < N_KINDS; kind++)
            qsort(b->subjects[i].times[kind].ms, b->subjects[i].times[kind].n,
                  sizeof(double), by_value);
}

static double n_tokens(const struct subject *s) {
    return s->shape.starts[s->shape.n_sequences];
}

/* 0: the rates are not known. */
static double floor_ms(const struct bench *b, const struct subject *s) {
    const struct device_bench *o = b->options;
    const struct shape_work *w = &s->work;
    if (!(o->peak_tflops > 0) || !(o->peak_gb_s > 0))
        return 0;
    return fmax(w->flop / (o->peak_tflops * 1e9),
                w->weight_bytes / (o->peak_gb_s * 1e6)) +
           w->traffic_bytes / (o->peak_gb_s * 1e6) +
           LAUNCH_MS * w->n_launches * s->passes.n_batches;
}

/* What the floor is compared with: the device's own time where it has a clock. */
static const struct times *main_times(const struct subject *s) {
    return &s->times[s->times[DEVICE].n ? DEVICE : WALL];
}

static void print_ms(const struct times *t, double q, FILE *out) {
    if (t->n)
        fprintf(out, " %9.4f", quantile(t, q));
    else
        fprintf(out, " %9s", "-");
}

static void print_table(const struct bench *b, FILE *out) {
    const struct engine_info *info = &b->engine->info;
    const struct device_bench *o = b->options;
    bool has_floor = o->peak_tflops > 0 && o->peak_gb_s > 0;
    fprintf(out,
            "%s: %s on %s (%s); opened in %.0f ms; medians of %d rounds, ms; %d in "
            "flight\n",
            b->checkpoint->name, info->dtype, info->device, info->isa, b->open_ms,
            (int)o->engine.n_rounds, info->n_in_flight);
    fprintf(out, "%-8s %6s %9s %9s %9s %9s %9s %9s %10s %10s%s\n", "", "runs", "device",
            "p10", "p90", "host", "in flight", "device", "texts/s", "tokens/s",
            has_floor ? "  of floor" : "");
    for (size_t i = 0; i < b->n; i++) {
        const struct subject *s = &b->subjects[i];
        double stream_ms = quantile(&s->times[STREAM], 0.5);
        fprintf(out, "%-8s %6zu", s->shape.name, s->times[WALL].n);
        print_ms(&s->times[DEVICE], 0.5, out);
        print_ms(main_times(s), 0.1, out);
        print_ms(main_times(s), 0.9, out);
        print_ms(&s->times[WALL], 0.5, out);
        print_ms(&s->times[STREAM], 0.5, out);
        print_ms(&s->times[STREAM_DEVICE], 0.5, out);
        fprintf(out, " %10.0f %10.0f", 1e3 * s->shape.n_sequences / stream_ms,
                1e3 * n_tokens(s) / stream_ms);
        if (has_floor)
            fprintf(out, "   %5.1f %%",
                    100 * floor_ms(b, s) / quantile(main_times(s), 0.5));
        fputc('\n', out);
    }
    if (has_floor)
        fprintf(out, "floor: %g TFLOP/s, %g GB/s, %g us a launch\n", o->peak_tflops,
                o->peak_gb_s, LAUNCH_MS * 1e3);
}

static json_t *times_json(const struct times *t) {
    return json_pack("{s:f,s:f,s:f,s:f,s:I}", "median", quantile(t, 0.5), "p10",
                     quantile(t, 0.1), "p90", quantile(t, 0.9), "best", t->ms[0], "n",
                     (json_int_t)t->n);
}

static json_t *subject_json(const struct bench *b, const struct subject *s) {
    static const char *const keys[N_KINDS] = {"ms", "device_ms", "in_flight_ms",
                                              "in_flight_device_ms"};
    double stream_ms = quantile(&s->times[STREAM], 0.5), least = floor_ms(b, s);
    json_t *o = json_pack(
        "{s:i,s:I,s:i,s:i,s:f,s:f,s:f,s:f,s:f}", "sequences", (int)s->shape.n_sequences,
        "tokens", (json_int_t)n_tokens(s), "batches", (int)s->passes.n_batches,
        "launches", (int)s->work.n_launches, "sequences_per_s",
        1e3 * s->shape.n_sequences / stream_ms, "tokens_per_s",
        1e3 * n_tokens(s) / stream_ms, "gflop", s->work.flop * 1e-9, "weight_mb",
        s->work.weight_bytes * 1e-6, "traffic_mb", s->work.traffic_bytes * 1e-6);
    for (int kind = 0; kind < N_KINDS; kind++)
        if (s->times[kind].n)
            json_object_set_new(o, keys[kind], times_json(&s->times[kind]));
    if (least > 0) {
        json_object_set_new(o, "floor_ms", json_real(least));
        json_object_set_new(o, "floor_share",
                            json_real(least / quantile(main_times(s), 0.5)));
    }
    return o;
}

static enum status print_json(const struct bench *b, FILE *out, struct error *err) {
    const struct engine_info *info = &b->engine->info;
    json_t *shapes = json_object();
    for (size_t i = 0; i < b->n; i++)
        json_object_set_new(shapes, b->subjects[i].shape.name,
                            subject_json(b, &b->subjects[i]));
    json_t *root = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:I,s:I,s:f,s:f,s:f,s:o}", "version",
        VIGIL_VERSION, "model", b->checkpoint->name, "device", info->device, "isa",
        info->isa, "dtype", info->dtype, "in_flight", (int)info->n_in_flight,
        "max_tokens", (int)info->max_tokens, "engine_bytes", (json_int_t)info->n_bytes,
        "rounds", (json_int_t)b->options->engine.n_rounds, "open_ms", b->open_ms,
        "peak_tflops", b->options->peak_tflops, "peak_gb_s", b->options->peak_gb_s,
        "shapes", shapes);
    if (!root)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
    int rc = json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    fputc('\n', out);
    return rc ? error_set(err, STATUS_IO, "cannot write the figures") : STATUS_OK;
}

/* ---- all of it -------------------------------------------------------------------- */

static enum status subject_make(struct bench *b, const char *name, struct error *err) {
    const struct model_config *config = &b->checkpoint->config;
    struct subject *s = &b->subjects[b->n];
    enum status status = shape_make(name, config, &s->shape, err);
    if (status)
        return status;
    b->n++;
    s->work = shape_work_of(&s->shape, config);
    for (int kind = 0; kind < N_KINDS; kind++) {
        s->times[kind].ms = calloc((size_t)MAX_ROUNDS * RUNS, sizeof(double));
        if (!s->times[kind].ms)
            return error_set(err, STATUS_NO_MEMORY, "no memory for the times");
    }
    return passes_make(b->engine, config, s->shape.ids, s->shape.starts,
                       s->shape.n_sequences, 0, &s->passes, err);
}

/* One after the other, as they stand between commas. */
static enum status make_subjects(struct bench *b, struct error *err) {
    for (const char *at = b->options->shapes;; at++) {
        char name[SHAPE_NAME_BYTES];
        size_t n = strcspn(at, ",");
        if (n >= sizeof name || b->n == MAX_SHAPES)
            return error_set(err, STATUS_LIMIT,
                             "at most %d shapes, of %zu letters each", MAX_SHAPES,
                             sizeof name - 1);
        memcpy(name, at, n);
        name[n] = '\0';
        enum status status = subject_make(b, name, err);
        at += n;
        if (status || !*at)
            return status;
    }
}

static void bench_free(struct bench *b) {
    for (size_t i = 0; i < b->n; i++) {
        for (int kind = 0; kind < N_KINDS; kind++)
            free(b->subjects[i].times[kind].ms);
        passes_free(&b->subjects[i].passes);
        shape_free(&b->subjects[i].shape);
    }
    engine_close(b->engine);
    checkpoint_close(b->checkpoint);
    free(b);
}

enum status device_bench(const struct device_bench *options, FILE *out,
                         struct error *err) {
    if (options->engine.n_rounds < 1 || options->engine.n_rounds > MAX_ROUNDS)
        return error_set(err, STATUS_INVALID, "expected 1 to %d rounds", MAX_ROUNDS);
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
    b->options = options;
    int64_t start_ns = clock_now_ns();
    enum status status =
        engine_bench_open(&options->engine, &b->checkpoint, &b->engine, err);
    b->open_ms = 1e-6 * (double)(clock_now_ns() - start_ns);
    if (!status)
        status = make_subjects(b, err);
    if (!status)
        status = play(b, err);
    if (!status) {
        sort_times(b);
        if (options->engine.is_json)
            status = print_json(b, out, err);
        else
            print_table(b, out);
    }
    bench_free(b);
    return status;
}
