/* SPDX-License-Identifier: Apache-2.0
 *
 * tuning.c - how each product is computed at each number of rows, found by timing.
 *
 * Candidates are cuBLASLt's proposals and our own tiles, with k cut or not. Each runs with
 * the weights of one layer after the other, so that they come from memory as they do in a
 * forward pass; the best of a few rounds counts. Numbers of rows above ANCHOR_FROM are
 * timed at powers of two, the others take the next one's choice. What was found is kept in
 * a file for this GPU, driver and cuBLASLt: the next start reads it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/half.h"
#include "kernels/cuda/cuda.h"

enum {
    ANCHOR_FROM = 512,
    ROUNDS = 3,
    MAX_PROPOSALS = 8,
    OWN_MAX_ROWS = 4096, /* above, cuBLASLt's larger tiles are ahead */
    PATH_BYTES = 512,
    KEY_BYTES = 512
};

/* Of tiles and splits; what the buffers for parts must hold. */
static const int32_t SPLITS[] = {1, 2, 3, 4, 6, 8};

static struct cuda_plan *plan_at(struct cuda_engine *e, int product, int32_t bucket) {
    return &e->plans[product * e->buckets.n + bucket];
}

/* ---- candidates ------------------------------------------------------------------- */

/* Whether an own variant is worth a try: splits only where tiles leave processors idle. */
static bool is_candidate(const struct cuda_engine *e, struct cuda_gemm_variant v,
                         int32_t m, const struct cuda_product_shape *s) {
    enum cuda_path path = e->launch.path;
    if (!cuda_gemm_fits(path, v, m, s->n, s->k))
        return false;
    if (v.n_splits == 1)
        return true;
    int32_t n_tiles = cuda_gemm_n_counters(path, v, m, s->n);
    return n_tiles <= e->n_counters && n_tiles < e->n_multiprocessors &&
           n_tiles * v.n_splits <= 4 * e->n_multiprocessors &&
           cuda_gemm_partial_bytes(path, v, m, s->n) <= e->n_partial_bytes;
}

/* The product with the weights of one layer after the other. */
static cudaError_t launch_layers(struct cuda_engine *e, enum cuda_product product,
                                 int32_t n_rows, const struct cuda_plan *plan) {
    cudaError_t code = cudaSuccess;
    for (int32_t i = 0; i < e->config.n_layers && code == cudaSuccess; i++) {
        struct cuda_operation o = cuda_operation_of(e, product, i);
        code = cuda_product_run_plan(e, &o, n_rows, plan);
    }
    return code;
}

/* The same as a graph: launches one by one would take longer than small products. */
static cudaError_t capture_layers(struct cuda_engine *e, enum cuda_product product,
                                  int32_t n_rows, const struct cuda_plan *plan,
                                  cudaGraphExec_t *out) {
    cudaGraph_t graph = NULL;
    cudaError_t code =
        cudaStreamBeginCapture(e->launch.stream, cudaStreamCaptureModeThreadLocal);
    if (code != cudaSuccess)
        return code;
    code = launch_layers(e, product, n_rows, plan);
    cudaError_t ended = cudaStreamEndCapture(e->launch.stream, &graph);
    if (code == cudaSuccess)
        code = ended;
    if (code == cudaSuccess)
        code = cudaGraphInstantiateWithFlags(out, graph, 0);
    if (graph)
        (void)cudaGraphDestroy(graph);
    return code;
}

static cudaError_t time_graph(struct cuda_engine *e, cudaGraphExec_t graph, float *ms) {
    cudaEvent_t begin = e->slots[0].started, end = e->slots[0].done;
    cudaError_t code = cudaEventRecord(begin, e->launch.stream);
    if (code == cudaSuccess)
        code = cudaGraphLaunch(graph, e->launch.stream);
    if (code == cudaSuccess)
        code = cudaEventRecord(end, e->launch.stream);
    if (code == cudaSuccess)
        code = cudaEventSynchronize(end);
    return code == cudaSuccess ? cudaEventElapsedTime(ms, begin, end) : code;
}

/* Milliseconds that the product takes in all layers: the best of a few. Not supported: there
 * is no such algorithm here after all; any other failure is the device's. */
static cudaError_t time_plan(struct cuda_engine *e, enum cuda_product product,
                             int32_t n_rows, const struct cuda_plan *plan,
                             float *best_ms) {
    cudaGraphExec_t graph = NULL;
    cudaError_t code = launch_layers(e, product, n_rows, plan); /* loads the kernels */
    if (code == cudaSuccess)
        code = capture_layers(e, product, n_rows, plan, &graph);
    *best_ms = -1;
    for (int round = 0; round <= ROUNDS && code == cudaSuccess; round++) {
        float ms = 0;
        code = time_graph(e, graph, &ms);
        if (round > 0 && (*best_ms < 0 || ms < *best_ms)) /* the first one warms up */
            *best_ms = ms;
    }
    if (graph)
        (void)cudaGraphExecDestroy(graph);
    return code;
}

struct contest {
    struct cuda_engine *e;
    enum cuda_product product;
    int32_t n_rows;
    struct cuda_plan *best;
    float best_ms;     /* below 0: none yet */
    cudaError_t fatal; /* of the device */
};

static void consider(struct contest *c, const struct cuda_plan *candidate) {
    float ms = 0;
    if (c->fatal != cudaSuccess || (c->e->has_no_tuning && c->best_ms >= 0))
        return;
    if (!c->e->has_no_tuning) {
        cudaError_t code = time_plan(c->e, c->product, c->n_rows, candidate, &ms);
        if (code == cudaErrorNotSupported)
            return;
        if (code != cudaSuccess) {
            c->fatal = code;
            return;
        }
    }
    if (c->best_ms < 0 || ms < c->best_ms) {
        *c->best = *candidate;
        c->best_ms = ms;
    }
}

/* Times all candidates for n_rows; or takes the first that can be. */
static enum status choose(struct cuda_engine *e, enum cuda_product product,
                          int32_t n_rows, struct cuda_plan *best, struct error *err) {
    const struct cuda_product_shape *s = &e->shapes[product];
    cublasLtMatmulAlgo_t proposals[MAX_PROPOSALS];
    struct contest c = {e, product, n_rows, best, -1, cudaSuccess};
    int32_t n = cuda_product_proposals(e, product, n_rows, proposals, MAX_PROPOSALS);
    for (int32_t i = 0; i < n; i++) {
        struct cuda_plan plan = {.algorithm = proposals[i]};
        consider(&c, &plan);
    }
    bool tries_own = !e->has_no_own && n_rows <= OWN_MAX_ROWS;
    for (int32_t tile = 0; tile < cuda_gemm_n_tiles(e->launch.path); tile++)
        for (size_t i = 0; i < sizeof SPLITS / sizeof *SPLITS; i++) {
            struct cuda_plan plan = {.is_own = true, .variant = {tile, SPLITS[i]}};
            if ((tries_own || c.best_ms < 0) &&
                is_candidate(e, plan.variant, n_rows, s))
                consider(&c, &plan);
        }
    if (c.fatal != cudaSuccess)
        return cuda_check(e, c.fatal, "timing products", err);
    if (c.best_ms < 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: no kernel computes a product of %d x %d x %d",
                         e->device_name, n_rows, s->n, s->k);
    return STATUS_OK;
}

/* ---- all numbers of rows ----------------------------------------------------------- */

static bool is_anchor(const struct cuda_engine *e, int32_t bucket) {
    int32_t rows = e->buckets.rows[bucket];
    return rows <= ANCHOR_FROM || bucket == e->buckets.n - 1 ||
           (rows & (rows - 1)) == 0;
}

/* A plan that was found for more rows, where it can compute fewer. */
static void adopt(struct cuda_engine *e, enum cuda_product product, int32_t bucket) {
    struct cuda_plan *plan = plan_at(e, product, bucket);
    int32_t n_rows = e->buckets.rows[bucket];
    *plan = *plan_at(e, product, bucket + 1);
    if (plan->is_own || cuda_product_takes(e, product, n_rows, &plan->algorithm))
        return;
    if (cuda_product_proposals(e, product, n_rows, &plan->algorithm, 1) > 0)
        return;
    *plan = (struct cuda_plan){.is_own = true, .variant = {0, 1}};
    for (int32_t tile = cuda_gemm_n_tiles(e->launch.path) - 1; tile >= 0; tile--) {
        struct cuda_gemm_variant v = {tile, 1};
        const struct cuda_product_shape *s = &e->shapes[product];
        if (cuda_gemm_fits(e->launch.path, v, n_rows, s->n, s->k)) {
            plan->variant = v;
            return;
        }
    }
}

/* Numbers as in a forward pass: products of zeros draw less power and run faster. */
static enum status fill_with_noise(struct cuda_engine *e, struct error *err) {
    enum { N = 1 << 18 };
    const struct cuda_buffers *b = &e->buffers;
    size_t n_rows = (size_t)e->buckets.rows[e->buckets.n - 1];
    const struct {
        f16 *to;
        size_t n;
    } targets[] = {{b->x, n_rows * (size_t)e->width},
                   {b->context, n_rows * (size_t)e->inner},
                   {b->hidden, n_rows * (size_t)e->hidden}};
    f16 *noise = malloc(N * sizeof *noise);
    if (!noise)
        return error_set(err, STATUS_NO_MEMORY, "no memory to time products");
    uint32_t state = 1;
    for (int i = 0; i < N; i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = half_from_float((float)(int32_t)state * 0x1p-31f);
    }
    cudaError_t code = cudaSuccess;
    for (size_t t = 0; t < sizeof targets / sizeof *targets; t++)
        for (size_t at = 0; at < targets[t].n && code == cudaSuccess; at += N) {
            size_t n = targets[t].n - at < N ? targets[t].n - at : N;
            code = cudaMemcpy(targets[t].to + at, noise, n * sizeof *noise,
                              cudaMemcpyHostToDevice);
        }
    free(noise);
    return cuda_check(e, code, "preparing to time products", err);
}

static enum status tune_all(struct cuda_engine *e, struct error *err) {
    enum status ready = fill_with_noise(e, err);
    if (ready != STATUS_OK)
        return ready;
    for (int32_t bucket = e->buckets.n - 1; bucket >= 0; bucket--)
        for (int p = 0; p < PRODUCT_COUNT; p++) {
            enum cuda_product product = (enum cuda_product)p;
            if (!is_anchor(e, bucket)) {
                adopt(e, product, bucket);
                continue;
            }
            enum status status =
                choose(e, product, e->buckets.rows[bucket], plan_at(e, p, bucket), err);
            if (status != STATUS_OK)
                return status;
        }
    return STATUS_OK;
}

/* ---- the file --------------------------------------------------------------------- */

/* What the choice depends on, in one line. */
static void write_key(const struct cuda_engine *e, char key[KEY_BYTES]) {
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    snprintf(
        key, KEY_BYTES,
        "vigil %s cuda products, %s, sm_%d%d, %d processors, driver %d, runtime %d, "
        "cublas %zu, path %d, own %d, shape %d %d %d, relu %d, rows %d, layers %d",
        VIGIL_VERSION, e->model_name, e->major, e->minor, e->n_multiprocessors, driver,
        runtime, e->has_no_blas ? 0 : cublasLtGetVersion(), (int)e->launch.path,
        !e->has_no_own, e->width, e->inner, e->hidden, e->config.has_relu_activation,
        e->buckets.rows[e->buckets.n - 1], e->config.n_layers);
}

/* FNV-1a: names the file; the key inside is compared whole. */
static uint64_t hash(const char *text) {
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return h;
}

/* $VIGIL_CACHE_DIR, $XDG_CACHE_HOME/vigil or ~/.cache/vigil; false: there is none. */
static bool cache_path(const char *key, bool makes, char path[PATH_BYTES]) {
    const char *own = getenv("VIGIL_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char folder[PATH_BYTES - 64];
    int n;
    if (own && *own)
        n = snprintf(folder, sizeof folder, "%s", own);
    else if (xdg && *xdg)
        n = snprintf(folder, sizeof folder, "%s/vigil", xdg);
    else if (home && *home)
        n = snprintf(folder, sizeof folder, "%s/.cache/vigil", home);
    else
        return false;
    if (n < 0 || (size_t)n >= sizeof folder)
        return false;
    for (char *at = folder + 1; makes; at++) {
        at += strcspn(at, "/");
        char kept = *at;
        *at = '\0';
        (void)mkdir(folder, 0755);
        *at = kept;
        if (!kept)
            break;
    }
    snprintf(path, PATH_BYTES, "%s/cuda-%016" PRIx64, folder, hash(key));
    return true;
}

/* A line a plan: product, rows, then "own TILE SPLITS" or "blas" and the algorithm's words. */
static void write_plan(FILE *f, int product, int32_t rows,
                       const struct cuda_plan *plan) {
    uint64_t words[sizeof plan->algorithm / sizeof(uint64_t)];
    memcpy(words, &plan->algorithm, sizeof words);
    if (plan->is_own) {
        fprintf(f, "%d %d own %d %d\n", product, rows, plan->variant.tile,
                plan->variant.n_splits);
        return;
    }
    fprintf(f, "%d %d blas", product, rows);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        fprintf(f, " %" PRIx64, words[i]);
    fputc('\n', f);
}

/* The next number of a line, or false. */
static bool next(char **at, int base, uint64_t *out) {
    char *end;
    *out = strtoull(*at, &end, base);
    bool is_there = end != *at;
    *at = end;
    return is_there;
}

/* Takes a word that is expected. */
static bool skip(char **at, const char *word) {
    *at += strspn(*at, " ");
    size_t n = strlen(word);
    if (strncmp(*at, word, n) != 0)
        return false;
    *at += n;
    return true;
}

static bool read_plan(struct cuda_engine *e, char *line, int product, int32_t rows,
                      struct cuda_plan *plan) {
    uint64_t found_product, found_rows, tile, splits;
    char *at = line;
    memset(plan, 0, sizeof *plan);
    if (!next(&at, 10, &found_product) || !next(&at, 10, &found_rows) ||
        found_product != (uint64_t)product || found_rows != (uint64_t)rows)
        return false;
    const struct cuda_product_shape *s = &e->shapes[product];
    if (skip(&at, "own")) {
        if (!next(&at, 10, &tile) || !next(&at, 10, &splits) ||
            tile >= (uint64_t)cuda_gemm_n_tiles(e->launch.path) || splits > 64)
            return false;
        plan->is_own = true;
        plan->variant = (struct cuda_gemm_variant){(int32_t)tile, (int32_t)splits};
        return is_candidate(e, plan->variant, rows, s);
    }
    uint64_t words[sizeof plan->algorithm / sizeof(uint64_t)];
    if (!skip(&at, "blas"))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!next(&at, 16, &words[i]))
            return false;
    memcpy(&plan->algorithm, words, sizeof words);
    return cuda_product_takes(e, (enum cuda_product)product, rows, &plan->algorithm);
}

/* True when the file is there, is for this key, and every plan in it can be used. */
static bool read_cache(struct cuda_engine *e, const char *key) {
    char path[PATH_BYTES], line[KEY_BYTES];
    if (e->has_no_cache || !cache_path(key, false, path))
        return false;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool is_good = fgets(line, sizeof line, f) && strlen(line) == strlen(key) + 1 &&
                   strncmp(line, key, strlen(key)) == 0;
    for (int p = 0; p < PRODUCT_COUNT; p++)
        for (int32_t bucket = 0; bucket < e->buckets.n && is_good; bucket++)
            is_good =
                fgets(line, sizeof line, f) &&
                read_plan(e, line, p, e->buckets.rows[bucket], plan_at(e, p, bucket));
    fclose(f);
    return is_good;
}

/* A cache that cannot be written is no failure. */
static void write_cache(struct cuda_engine *e, const char *key) {
    char path[PATH_BYTES], scratch[PATH_BYTES + 32];
    if (e->has_no_cache || !cache_path(key, true, path))
        return;
    snprintf(scratch, sizeof scratch, "%s.%ld", path, (long)getpid());
    FILE *f = fopen(scratch, "we");
    if (!f)
        return;
    fprintf(f, "%s\n", key);
    for (int p = 0; p < PRODUCT_COUNT; p++)
        for (int32_t bucket = 0; bucket < e->buckets.n; bucket++)
            write_plan(f, p, e->buckets.rows[bucket], plan_at(e, p, bucket));
    bool is_whole = !ferror(f);
    if (fclose(f) != 0 || !is_whole || rename(scratch, path) != 0)
        (void)unlink(scratch);
}

enum status cuda_tune(struct cuda_engine *e, struct error *err) {
    char key[KEY_BYTES];
    write_key(e, key);
    e->plans = calloc((size_t)(PRODUCT_COUNT * e->buckets.n), sizeof *e->plans);
    if (!e->plans)
        return error_set(err, STATUS_NO_MEMORY, "no memory for plans");
    if (read_cache(e, key))
        return STATUS_OK;
    enum status status = tune_all(e, err);
    if (status == STATUS_OK)
        write_cache(e, key);
    return status;
}
