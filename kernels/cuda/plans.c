/* SPDX-License-Identifier: Apache-2.0
 *
 * plans.c - what tuning found, kept for the process and in a file: the next engine of the
 * same shape on the same kind of GPU need not time again, and a reload does not time a
 * device that serves meanwhile.
 *
 * The file's first line is all that the choice depends on; then a line a plan.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"

enum { PATH_BYTES = 512, KEY_BYTES = 640 };

/* The last plans of this process. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char key[KEY_BYTES];
    struct cuda_plan *plans;
} kept;

/* What the choice depends on, in one line. */
static void write_key(const struct cuda_engine *e, char key[KEY_BYTES]) {
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    snprintf(key, KEY_BYTES,
             "vigil %s cuda products 3, %s, sm_%d%d, %d processors, driver %d, "
             "runtime %d, cublas %zu, path %d, own %d, overlap %d, shape %d %d %d, "
             "relu %d, rows %d %d, layers %d",
             VIGIL_VERSION, e->model_name, e->major, e->minor, e->n_multiprocessors,
             driver, runtime, e->has_no_blas ? 0 : cublasLtGetVersion(),
             (int)e->launch.path, !e->has_no_own, e->launch.overlaps, e->width,
             e->inner, e->hidden, e->config.has_relu_activation,
             e->engine.info.max_tokens, e->engine.info.max_sequences,
             e->config.n_layers);
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
        char letter = *at;
        *at = '\0';
        (void)mkdir(folder, 0755);
        *at = letter;
        if (!letter)
            break;
    }
    snprintf(path, PATH_BYTES, "%s/cuda-%016" PRIx64, folder, hash(key));
    return true;
}

/* A line a plan: product, rows, then "own NAME SPLITS", the tile by its name, or "blas" and the algorithm's words. */
static void write_plan(const struct cuda_engine *e, FILE *f, int product, int32_t rows,
                       const struct cuda_plan *plan) {
    uint64_t words[sizeof plan->algorithm / sizeof(uint64_t)];
    memcpy(words, &plan->algorithm, sizeof words);
    if (plan->is_own) {
        fprintf(f, "%d %d own %s %d\n", product, rows,
                cuda_gemm_tile_name(e->launch.path, plan->variant.tile),
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

/* Takes the name of a tile; -1: it is none of this path's. */
static int32_t read_tile(const struct cuda_engine *e, char **at) {
    for (int32_t i = 0; i < cuda_gemm_n_tiles(e->launch.path); i++) {
        char *end = *at;
        if (skip(&end, cuda_gemm_tile_name(e->launch.path, i)) && *end == ' ') {
            *at = end;
            return i;
        }
    }
    return -1;
}

static bool read_plan(struct cuda_engine *e, char *line, int product, int32_t rows,
                      struct cuda_plan *plan) {
    uint64_t found_product, found_rows, splits;
    char *at = line;
    memset(plan, 0, sizeof *plan);
    if (!next(&at, 10, &found_product) || !next(&at, 10, &found_rows) ||
        found_product != (uint64_t)product || found_rows != (uint64_t)rows)
        return false;
    const struct cuda_product_shape *s = &e->shapes[product];
    if (skip(&at, "own")) {
        int32_t tile = read_tile(e, &at);
        if (tile < 0 || !next(&at, 10, &splits) || splits > 64)
            return false;
        plan->is_own = true;
        plan->variant = (struct cuda_gemm_variant){tile, (int32_t)splits};
        return cuda_is_candidate(e, plan->variant, rows, s);
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
        for (int32_t bucket = 0;
             bucket < cuda_n_buckets(e, (enum cuda_product)p) && is_good; bucket++)
            is_good = fgets(line, sizeof line, f) &&
                      read_plan(e, line, p, e->buckets.rows[bucket],
                                cuda_plan_at(e, p, bucket));
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
        for (int32_t bucket = 0; bucket < cuda_n_buckets(e, (enum cuda_product)p);
             bucket++)
            write_plan(e, f, p, e->buckets.rows[bucket], cuda_plan_at(e, p, bucket));
    bool is_whole = !ferror(f);
    if (fclose(f) != 0 || !is_whole || rename(scratch, path) != 0)
        (void)unlink(scratch);
}

bool cuda_plans_find(struct cuda_engine *e) {
    char key[KEY_BYTES];
    if (e->has_no_cache)
        return false;
    write_key(e, key);
    (void)pthread_mutex_lock(&lock);
    bool is_kept = kept.plans && strcmp(kept.key, key) == 0;
    if (is_kept)
        memcpy(e->plans, kept.plans, cuda_plans_bytes(e));
    (void)pthread_mutex_unlock(&lock);
    return is_kept || read_cache(e, key);
}

void cuda_plans_keep(struct cuda_engine *e) {
    char key[KEY_BYTES];
    if (e->has_no_cache)
        return;
    write_key(e, key);
    struct cuda_plan *copy = malloc(cuda_plans_bytes(e));
    if (copy) {
        memcpy(copy, e->plans, cuda_plans_bytes(e));
        (void)pthread_mutex_lock(&lock);
        free(kept.plans);
        kept.plans = copy;
        snprintf(kept.key, sizeof kept.key, "%s", key);
        (void)pthread_mutex_unlock(&lock);
    }
    write_cache(e, key);
}
