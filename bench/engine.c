/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "bench/passes.h"
#include "bench/turns.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"
#include "kernels/cpu/probe.h"
#include "kernels/engines.h"
#include "model/windows.h"
#include "tokenizer/tokenizer.h"

enum {
    MAX_ROUNDS = 100,
    RUNS_32 = 15, /* of a round */
    RUNS_128 = 9,
    FIRST_WORD = 999, /* ids below are specials, unused entries and letters */
    WARM_NS = 200000000
};

enum measure { ONE_32, ONE_128, PACKED, SINGLE, N_MEASURES };

static const char *const TITLES[N_MEASURES] = {"1 x 32 tokens", "1 x 128 tokens",
                                               "texts, packed", "texts, one by one"};
static const char *const KEYS[N_MEASURES] = {"1x32", "1x128", "packed", "single"};

struct figure {
    double ms[MAX_ROUNDS]; /* of a round: its median run */
    double
        device[MAX_ROUNDS]; /* the same by the device's clock; below 0: it has none */
    double median_ms, best_ms, device_ms;
    double n_texts, n_tokens;
    double macs; /* multiply-adds of the encoder's products */
    bool is_measured;
};

struct run {
    const struct engine_bench *options;
    const struct texts *texts;
    struct checkpoint *checkpoint;
    struct engine *engine;
    int32_t *ids;    /* every text's windows, end to end */
    int32_t *starts; /* [n_sequences + 1] into ids */
    size_t n_sequences, n_ids;
    struct passes packed, single;
    struct figure figures[N_MEASURES];
    double peak; /* multiply-adds a second; 0: not probed */
};

/* ---- the model and its work ------------------------------------------------------- */

enum status engine_bench_open(const struct engine_bench *options,
                              struct checkpoint **checkpoint, struct engine **engine,
                              struct error *err) {
    enum status status = checkpoint_open(options->model_dir, checkpoint, err);
    if (!status)
        status = engine_open(&options->engine, *checkpoint, engine, err);
    return status;
}

static enum status add_windows(struct run *r, const struct windows *w, size_t *cap_ids,
                               size_t *cap_sequences, struct error *err) {
    size_t n_ids = r->n_ids + (size_t)w->n_ids;
    size_t n_sequences = r->n_sequences + (size_t)w->n_windows;
    if (n_ids > INT32_MAX)
        return error_set(err, STATUS_LIMIT,
                         "too many tokens: take fewer texts with --limit");
    if (n_ids > *cap_ids) {
        int32_t *grown = realloc(r->ids, 2 * n_ids * sizeof *grown);
        if (!grown)
            return error_set(err, STATUS_NO_MEMORY, "no memory for the tokens");
        r->ids = grown;
        *cap_ids = 2 * n_ids;
    }
    if (n_sequences + 1 > *cap_sequences) {
        int32_t *grown = realloc(r->starts, 2 * (n_sequences + 1) * sizeof *grown);
        if (!grown)
            return error_set(err, STATUS_NO_MEMORY, "no memory for the sequences");
        r->starts = grown;
        *cap_sequences = 2 * (n_sequences + 1);
    }
    memcpy(r->ids + r->n_ids, w->ids, (size_t)w->n_ids * sizeof *r->ids);
    for (int32_t i = 0; i < w->n_windows; i++)
        r->starts[r->n_sequences++] = (int32_t)r->n_ids + w->offsets[i];
    r->starts[r->n_sequences] = (int32_t)n_ids;
    r->n_ids = n_ids;
    return STATUS_OK;
}

static enum status tokenize(struct run *r, struct error *err) {
    struct tokenizer *tokenizer = NULL;
    size_t cap_ids = 0, cap_sequences = 0;
    enum status status = tokenizer_open(r->options->model_dir, &tokenizer, err);
    for (size_t i = 0; i < r->texts->n && !status; i++) {
        struct windows w = {0};
        status = windows_make(tokenizer, r->checkpoint->config.max_positions,
                              r->texts->items[i].data, r->texts->items[i].n_bytes,
                              false, &w, err);
        if (!status)
            status = add_windows(r, &w, &cap_ids, &cap_sequences, err);
        windows_free(&w);
    }
    tokenizer_close(tokenizer);
    return status;
}

static enum status cut_batches(struct run *r, struct error *err) {
    const struct model_config *config = &r->checkpoint->config;
    int32_t n = (int32_t)r->n_sequences;
    enum status status = passes_make(r->engine, config, r->ids, r->starts, n,
                                     (int32_t)r->options->batch_texts, &r->packed, err);
    return status ? status
                  : passes_make(r->engine, config, r->ids, r->starts, n, 1, &r->single,
                                err);
}

/* Multiply-adds of the encoder's products: keys and values of every token in every layer,
 * all else of the last layer for one row a sequence. No attention, norms or GELU. */
static double encoder_macs(const struct model_config *c, double n_tokens,
                           double n_sequences) {
    double dim = c->dim, kv = 2 * dim * dim;
    double rest = 2 * dim * dim + 2 * dim * (double)c->hidden_dim;
    return n_tokens * (c->n_layers * kv + (c->n_layers - 1) * rest) +
           n_sequences * rest;
}

static void describe_work(struct run *r) {
    const struct model_config *c = &r->checkpoint->config;
    const int32_t lengths[] = {[ONE_32] = 32, [ONE_128] = 128};
    for (int m = 0; m < N_MEASURES; m++) {
        struct figure *f = &r->figures[m];
        bool is_shape = m == ONE_32 || m == ONE_128;
        f->n_texts = is_shape ? 1 : (double)r->texts->n;
        f->n_tokens = is_shape ? lengths[m] : (double)r->n_ids;
        f->macs = encoder_macs(c, f->n_tokens, is_shape ? 1 : (double)r->n_sequences);
        f->is_measured = !is_shape || (lengths[m] <= c->max_positions &&
                                       lengths[m] <= r->engine->info.max_tokens);
    }
}

/* ---- timing ----------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts values. */
static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static enum status time_shape(struct run *r, int32_t n_tokens, size_t n_runs,
                              struct pass_time *time, struct error *err) {
    int32_t ids[128], starts[] = {0, n_tokens};
    double ms[RUNS_32], device_ms[RUNS_32];
    struct passes passes;
    uint32_t random = 1;
    int32_t n_words = r->checkpoint->config.vocab_size - FIRST_WORD;
    for (int32_t i = 0; i < n_tokens; i++) {
        random = random * 1664525u + 1013904223u;
        ids[i] = n_words > 0 ? FIRST_WORD + (int32_t)(random >> 8) % n_words : 0;
    }
    enum status status =
        passes_make(r->engine, &r->checkpoint->config, ids, starts, 1, 0, &passes, err);
    if (!status)
        status = passes_run(&passes, NULL, time, err);
    for (size_t i = 0; i < n_runs && !status; i++) {
        status = passes_run(&passes, NULL, time, err);
        ms[i] = time->ms;
        device_ms[i] = time->device_ms;
    }
    if (!status)
        *time = (struct pass_time){median(ms, n_runs), median(device_ms, n_runs)};
    passes_free(&passes);
    return status;
}

static enum status time_measure(struct run *r, enum measure m, struct pass_time *time,
                                struct error *err) {
    if (m == ONE_32)
        return time_shape(r, 32, RUNS_32, time, err);
    if (m == ONE_128)
        return time_shape(r, 128, RUNS_128, time, err);
    return m == PACKED ? passes_stream(&r->packed, 1, NULL, time, err)
                       : passes_run(&r->single, NULL, time, err);
}

static enum status warm_up(struct run *r, struct error *err) {
    struct pass_time time;
    struct passes first = r->packed;
    enum status status = STATUS_OK;
    int64_t end = clock_now_ns() + WARM_NS;
    first.n_batches = 1;
    for (int32_t i = 0; clock_now_ns() < end && !status;
         i = (i + 1) % r->packed.n_batches) {
        first.batches = r->packed.batches + i;
        status = passes_run(&first, NULL, &time, err);
    }
    return status;
}

/* The best of all rounds: what the machine could do at some moment, it can do. */
static enum status probe_engine(struct run *r, struct error *err) {
    const struct engine_info *info = &r->engine->info;
    const struct cpu_gemm *gemm = isa_gemm(info->isa, info->dtype);
    double peak;
    if (!gemm)
        return error_set(err, STATUS_UNSUPPORTED,
                         "there is no instruction probe for the engine %s",
                         info->device);
    enum status status = probe_peak(gemm, info->n_threads, &peak, err);
    if (!status && peak > r->peak)
        r->peak = peak;
    return status;
}

static enum status play_rounds(struct run *r, struct error *err) {
    size_t n = (size_t)r->options->n_rounds;
    enum status status = warm_up(r, err);
    for (size_t round = 0; round < n && !status; round++) {
        for (int m = 0; m < N_MEASURES && !status; m++) {
            struct pass_time time = {0};
            if (r->figures[m].is_measured)
                status = time_measure(r, m, &time, err);
            r->figures[m].ms[round] = time.ms;
            r->figures[m].device[round] = time.device_ms;
        }
        if (!status && r->options->with_probe)
            status = probe_engine(r, err);
    }
    for (int m = 0; m < N_MEASURES && !status; m++) {
        struct figure *f = &r->figures[m];
        f->median_ms = median(f->ms, n);
        f->best_ms = f->ms[0]; /* sorted now */
        f->device_ms = median(f->device, n);
    }
    return status;
}

/* ---- the figures ------------------------------------------------------------------ */

static void print_table(const struct run *r, FILE *out) {
    const struct engine_info *info = &r->engine->info;
    bool has_clock = r->figures[PACKED].device_ms >= 0;
    fprintf(out,
            "%s: %s on %s (%s), %d thread%s; %zu texts, mean %.1f tokens, %d batches; "
            "median of %d rounds\n",
            r->checkpoint->name, info->dtype, info->device, info->isa, info->n_threads,
            info->n_threads == 1 ? "" : "s", r->texts->n,
            (double)r->n_ids / (double)r->texts->n, r->packed.n_batches,
            (int)r->options->n_rounds);
    fprintf(out, "%-18s %10s %10s%s %10s %10s%s\n", "", "ms", "best ms",
            has_clock ? "  device ms" : "", "texts/s", "tokens/s",
            r->peak > 0 ? "   of floor" : "");
    for (int m = 0; m < N_MEASURES; m++) {
        const struct figure *f = &r->figures[m];
        if (!f->is_measured)
            continue;
        fprintf(out, "%-18s %10.3f %10.3f", TITLES[m], f->median_ms, f->best_ms);
        if (has_clock)
            fprintf(out, " %10.3f", f->device_ms);
        fprintf(out, " %10.1f %10.0f", 1e3 * f->n_texts / f->median_ms,
                1e3 * f->n_tokens / f->median_ms);
        if (r->peak > 0)
            fprintf(out, "  %7.1f %%", 100 * f->macs / r->peak / f->median_ms * 1e3);
        fputc('\n', out);
    }
    if (r->peak > 0)
        fprintf(out, "floor: %.1f G multiply-adds/s from registers\n", r->peak * 1e-9);
}

static enum status print_json(const struct run *r, FILE *out, struct error *err) {
    const struct engine_info *info = &r->engine->info;
    json_t *figures = json_object();
    for (int m = 0; m < N_MEASURES; m++) {
        const struct figure *f = &r->figures[m];
        if (!f->is_measured)
            continue;
        json_t *o =
            json_pack("{s:f,s:f,s:f,s:f}", "ms", f->median_ms, "best_ms", f->best_ms,
                      "texts_per_s", 1e3 * f->n_texts / f->median_ms, "tokens_per_s",
                      1e3 * f->n_tokens / f->median_ms);
        if (f->device_ms >= 0)
            json_object_set_new(o, "device_ms", json_real(f->device_ms));
        if (r->peak > 0)
            json_object_set_new(o, "floor_share",
                                json_real(f->macs / r->peak / f->median_ms * 1e3));
        json_object_set_new(figures, KEYS[m], o);
    }
    json_t *root = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:i,s:I,s:I,s:I,s:I,s:o}", "version", VIGIL_VERSION,
        "model", r->checkpoint->name, "device", info->device, "isa", info->isa, "dtype",
        info->dtype, "threads", (int)info->n_threads, "texts", (json_int_t)r->texts->n,
        "tokens", (json_int_t)r->n_ids, "batches", (json_int_t)r->packed.n_batches,
        "rounds", (json_int_t)r->options->n_rounds, "figures", figures);
    if (root && r->peak > 0)
        json_object_set_new(root, "peak_gmac_s", json_real(r->peak * 1e-9));
    if (!root)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
    int rc = json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    fputc('\n', out);
    return rc ? error_set(err, STATUS_IO, "cannot write the figures") : STATUS_OK;
}

/* ---- the three ways in ------------------------------------------------------------ */

enum status engine_bench(const struct engine_bench *options, const struct texts *texts,
                         FILE *out, struct error *err) {
    if (options->n_rounds < 1 || options->n_rounds > MAX_ROUNDS)
        return error_set(err, STATUS_INVALID, "expected 1 to %d rounds", MAX_ROUNDS);
    struct run *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
    r->options = options;
    r->texts = texts;
    enum status status = engine_bench_open(options, &r->checkpoint, &r->engine, err);
    if (!status)
        status = tokenize(r, err);
    if (!status)
        status = cut_batches(r, err);
    if (!status) {
        describe_work(r);
        status = play_rounds(r, err);
    }
    if (!status && options->is_json)
        status = print_json(r, out, err);
    else if (!status)
        print_table(r, out);
    passes_free(&r->packed);
    passes_free(&r->single);
    engine_close(r->engine);
    checkpoint_close(r->checkpoint);
    free(r->ids);
    free(r->starts);
    free(r);
    return status;
}

enum status engine_bench_turns(const struct engine_bench *options, const char *ids_path,
                               FILE *in, FILE *out, struct error *err) {
    struct checkpoint *checkpoint = NULL;
    struct engine *engine = NULL;
    enum status status = engine_bench_open(options, &checkpoint, &engine, err);
    if (!status)
        status = turns_serve(engine, &checkpoint->config, ids_path, in, out, err);
    engine_close(engine);
    checkpoint_close(checkpoint);
    return status;
}

enum status engine_bench_probe(const char *isa, int32_t n_threads, bool is_json,
                               FILE *out, struct error *err) {
    static const char *const dtypes[] = {"int8", "bf16", "fp32"};
    const struct cpu_gemm *found[3];
    double peaks[3];
    size_t n_found = 0;
    n_threads = n_threads ? n_threads : pool_n_processors();
    for (size_t i = 0; i < 3; i++) {
        const struct cpu_gemm *gemm = isa_gemm(isa, dtypes[i]);
        enum status status = gemm ? probe_peak(gemm, n_threads, &peaks[n_found], err)
                                  : STATUS_UNSUPPORTED;
        if (!status)
            found[n_found++] = gemm;
        else if (status != STATUS_UNSUPPORTED)
            return status;
    }
    if (!n_found)
        return error_set(err, STATUS_UNSUPPORTED,
                         "there is no instruction probe for %s here",
                         isa ? isa : "the kernels");
    if (is_json)
        fprintf(out, "{\"threads\": %d", n_threads);
    else
        fprintf(out, "multiply-adds from registers, %d thread%s\n", n_threads,
                n_threads == 1 ? "" : "s");
    for (size_t i = 0; i < n_found; i++)
        if (is_json)
            fprintf(out, ", \"%s_gmac_s\": %.2f, \"%s_isa\": \"%s\"", found[i]->dtype,
                    peaks[i] * 1e-9, found[i]->dtype, found[i]->isa);
        else
            fprintf(out, "%s %10.2f G/s  %s\n", found[i]->dtype, peaks[i] * 1e-9,
                    found[i]->isa);
    if (is_json)
        fputs("}\n", out);
    return STATUS_OK;
}
