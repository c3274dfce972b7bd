/* SPDX-License-Identifier: Apache-2.0
 *
 * turns.c - see turns.h.
 *
 * All sequences lie in one array; a batch is a view of a part of it with its own offsets,
 * cut once before anything is timed.
 */
#include "bench/turns.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/memory.h"

enum {
    MAX_SEQUENCES = 1 << 20,
    MAX_RUNS = 100000,
    FIRST_WORD =
        1000 /* ids of a random sequence start here: BERT's specials are below */
};

/* Sequences end to end; starts [n + 1]. */
struct sequences {
    int32_t *ids;
    int32_t *starts;
    int32_t n, cap;
    size_t cap_ids;
};

struct turns {
    struct engine *engine;
    const struct model_config *config;
    struct sequences stream;
    struct batch *batches;
    int32_t *offsets; /* of all batches: at most 2 a sequence */
    int32_t n_batches;
    float *logits;      /* of the largest batch */
    int32_t *shape_ids; /* [max_positions] */
    struct buffer answer;
};

/* ---- sequences -------------------------------------------------------------------- */

static bool sequences_reserve(struct sequences *s, size_t n_ids) {
    if (s->n + 1 >= s->cap) {
        int32_t cap = s->cap ? 2 * s->cap : 1024;
        int32_t *grown = realloc(s->starts, ((size_t)cap + 1) * sizeof *grown);
        if (!grown)
            return false;
        s->starts = grown;
        s->cap = cap;
    }
    if (n_ids > s->cap_ids) {
        size_t cap = 2 * n_ids + 4096;
        int32_t *grown = realloc(s->ids, cap * sizeof *grown);
        if (!grown)
            return false;
        s->ids = grown;
        s->cap_ids = cap;
    }
    return true;
}

/* Appends the ids of one line as a sequence. */
static enum status sequence_parse(struct sequences *s, const char *line,
                                  const struct model_config *config, const char *path,
                                  struct error *err) {
    size_t n_ids = s->n ? (size_t)s->starts[s->n] : 0;
    size_t first = n_ids;
    int32_t limit = config->max_positions;
    for (char *end; *line; line = end) {
        if (*line == ' ' || *line == '\n' || *line == '\r' || *line == '\t') {
            end = (char *)line + 1;
            continue;
        }
        errno = 0;
        long id = strtol(line, &end, 10);
        if (end == line || errno || id < 0 || id >= config->vocab_size)
            return error_set(err, STATUS_INVALID,
                             "%s line %d: expected token ids from 0 to %d", path,
                             s->n + 1, config->vocab_size - 1);
        if (!sequences_reserve(s, n_ids + 1))
            return error_set(err, STATUS_NO_MEMORY, "no memory for the ids of %s",
                             path);
        s->ids[n_ids++] = (int32_t)id;
        if (n_ids - first > (size_t)limit)
            return error_set(err, STATUS_LIMIT, "%s line %d: more than %d tokens", path,
                             s->n + 1, limit);
    }
    if (n_ids == first)
        return error_set(err, STATUS_INVALID, "%s line %d: no token ids", path,
                         s->n + 1);
    s->starts[s->n] = (int32_t)first;
    s->starts[++s->n] = (int32_t)n_ids;
    return STATUS_OK;
}

static enum status sequences_read(struct sequences *s, const char *path,
                                  const struct model_config *config,
                                  struct error *err) {
    enum status status = STATUS_OK;
    char *line = NULL;
    size_t cap_bytes = 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return error_set(err, STATUS_IO, "cannot open %s: %s", path, strerror(errno));
    while (getline(&line, &cap_bytes, f) > 0) {
        if (s->n == MAX_SEQUENCES) {
            status = error_set(err, STATUS_LIMIT, "%s: more than %d lines", path,
                               MAX_SEQUENCES);
            goto out;
        }
        if ((status = sequence_parse(s, line, config, path, err)))
            goto out;
    }
    if (ferror(f))
        status = error_set(err, STATUS_IO, "cannot read %s: %s", path, strerror(errno));
    else if (!s->n)
        status = error_set(err, STATUS_INVALID, "%s: no sequences", path);
out:
    free(line);
    fclose(f);
    return status;
}

/* ---- batches ---------------------------------------------------------------------- */

/* How many sequences from first on fit into one batch of the engine; at least 1. */
static int32_t batch_size(const struct turns *t, int32_t first) {
    const struct engine_info *info = &t->engine->info;
    const int32_t *starts = t->stream.starts;
    int32_t n = 1;
    while (first + n < t->stream.n && n < info->max_sequences &&
           starts[first + n + 1] - starts[first] <= info->max_tokens)
        n++;
    return n;
}

static enum status batches_cut(struct turns *t, struct error *err) {
    const struct sequences *s = &t->stream;
    int32_t largest = 1;
    t->batches = calloc((size_t)s->n, sizeof *t->batches);
    t->offsets = calloc((size_t)s->n * 2, sizeof *t->offsets);
    if (!t->batches || !t->offsets)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %d sequences", s->n);
    int32_t *offsets = t->offsets;
    for (int32_t first = 0, n; first < s->n; first += n) {
        n = batch_size(t, first);
        for (int32_t i = 0; i <= n; i++)
            offsets[i] = s->starts[first + i] - s->starts[first];
        t->batches[t->n_batches++] = (struct batch){
            .ids = s->ids + s->starts[first], .offsets = offsets, .n_sequences = n};
        offsets += n + 1;
        if (n > largest)
            largest = n;
    }
    size_t n_logits;
    if (!size_multiply((size_t)largest, (size_t)t->config->n_labels, &n_logits) ||
        !(t->logits = calloc(n_logits, sizeof *t->logits)) ||
        !(t->shape_ids =
              calloc((size_t)t->config->max_positions, sizeof *t->shape_ids)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for the logits");
    return STATUS_OK;
}

/* ---- requests --------------------------------------------------------------------- */

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static enum status time_shape(struct turns *t, int32_t n_tokens, long n_runs,
                              struct error *err) {
    int32_t offsets[2] = {0, n_tokens};
    uint32_t random = 1;
    for (int32_t i = 0; i < n_tokens; i++) {
        random = random * 1664525u + 1013904223u;
        int32_t n_words = t->config->vocab_size - FIRST_WORD;
        t->shape_ids[i] =
            n_words > 0 ? FIRST_WORD + (int32_t)(random >> 8) % n_words : 0;
    }
    struct batch b = {.ids = t->shape_ids, .offsets = offsets, .n_sequences = 1};
    enum status status = buffer_printf(&t->answer, err, "{\"ms\":[");
    for (long i = 0; i < n_runs && !status; i++) {
        double start = now_ms();
        status = engine_run(t->engine, &b, t->logits, NULL, err);
        double ms = now_ms() - start;
        if (!status)
            status = buffer_printf(&t->answer, err, "%s%.4f", i ? "," : "", ms);
    }
    return status ? status : buffer_printf(&t->answer, err, "]}");
}

static enum status time_stream(struct turns *t, struct error *err) {
    double start = now_ms();
    for (int32_t i = 0; i < t->n_batches; i++) {
        enum status status =
            engine_run(t->engine, &t->batches[i], t->logits, NULL, err);
        if (status)
            return status;
    }
    return buffer_printf(&t->answer, err, "{\"ms\":[%.4f]}", now_ms() - start);
}

static enum status give_logits(struct turns *t, long n, struct error *err) {
    const struct sequences *s = &t->stream;
    enum status status = buffer_printf(&t->answer, err, "{\"logits\":[");
    for (int32_t i = 0; i < s->n && i < n && !status; i++) {
        int32_t offsets[2] = {0, s->starts[i + 1] - s->starts[i]};
        struct batch b = {
            .ids = s->ids + s->starts[i], .offsets = offsets, .n_sequences = 1};
        status = engine_run(t->engine, &b, t->logits, NULL, err);
        for (int32_t j = 0; j < t->config->n_labels && !status; j++)
            status = buffer_printf(&t->answer, err, "%s%.9g",
                                   j   ? ","
                                   : i ? "],["
                                       : "[",
                                   (double)t->logits[j]);
    }
    return status ? status : buffer_printf(&t->answer, err, "]]}");
}

/* "1x32 5": n_tokens 32, n 5. "logits 5": n 5. */
static bool request_number(const char *text, long *n) {
    char *end;
    errno = 0;
    *n = strtol(text, &end, 10);
    return end != text && (*end == '\0' || *end == '\n') && !errno && *n >= 1 &&
           *n <= MAX_RUNS;
}

static enum status answer(struct turns *t, const char *line, struct error *err) {
    long n;
    if (!strncmp(line, "stream", 6))
        return time_stream(t, err);
    if (!strncmp(line, "logits ", 7) && request_number(line + 7, &n))
        return give_logits(t, n, err);
    if (!strncmp(line, "1x", 2)) {
        char *end;
        long n_tokens = strtol(line + 2, &end, 10);
        if (n_tokens >= 1 && n_tokens <= t->config->max_positions &&
            n_tokens <= t->engine->info.max_tokens && *end == ' ' &&
            request_number(end + 1, &n))
            return time_shape(t, (int32_t)n_tokens, n, err);
    }
    return error_set(err, STATUS_INVALID,
                     "expected \"1x<tokens> <runs>\", \"stream\", \"logits <n>\" or "
                     "\"quit\"");
}

static enum status put_error(struct turns *t, const struct error *e,
                             struct error *err) {
    buffer_clear(&t->answer);
    enum status status = buffer_printf(&t->answer, err, "{\"error\":");
    if (!status)
        status = json_append_string(&t->answer, e->message, strlen(e->message), err);
    return status ? status : buffer_printf(&t->answer, err, "}");
}

static enum status serve_lines(struct turns *t, FILE *in, FILE *out,
                               struct error *err) {
    enum status status = STATUS_OK;
    char *line = NULL;
    size_t cap_bytes = 0;
    while (!status && getline(&line, &cap_bytes, in) > 0 && strncmp(line, "quit", 4)) {
        struct error failed;
        buffer_clear(&t->answer);
        if (answer(t, line, &failed))
            status = put_error(t, &failed, err);
        if (!status && (fprintf(out, "%s\n", t->answer.data) < 0 || fflush(out)))
            status = error_set(err, STATUS_IO, "cannot write: %s", strerror(errno));
    }
    free(line);
    return status;
}

enum status turns_serve(struct engine *engine, const struct model_config *config,
                        const char *ids_path, FILE *in, FILE *out, struct error *err) {
    struct turns t = {.engine = engine, .config = config};
    t.answer.max_bytes = (size_t)64 << 20;
    enum status status = sequences_read(&t.stream, ids_path, config, err);
    if (!status)
        status = batches_cut(&t, err);
    if (!status && (fprintf(out,
                            "{\"engine\":\"vigil\",\"version\":\"%s\","
                            "\"effective\":\"%s, %s\",\"batches\":%d}\n",
                            VIGIL_VERSION, engine->info.dtype, engine->info.isa,
                            t.n_batches) < 0 ||
                    fflush(out)))
        status = error_set(err, STATUS_IO, "cannot write: %s", strerror(errno));
    if (!status)
        status = serve_lines(&t, in, out, err);
    free(t.stream.ids);
    free(t.stream.starts);
    free(t.batches);
    free(t.offsets);
    free(t.logits);
    free(t.shape_ids);
    buffer_free(&t.answer);
    return status;
}
