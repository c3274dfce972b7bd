/* SPDX-License-Identifier: Apache-2.0
 *
 * turns.c - see turns.h.
 *
 * All sequences lie in one array; batches are views of it, cut once before anything is timed.
 * A shape is made anew for each request.
 */
#include "bench/turns.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "bench/passes.h"
#include "bench/shapes.h"

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
    struct passes passes; /* over the stream */
    int32_t *shape_ids;   /* [max_positions] */
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

static enum status batches_cut(struct turns *t, struct error *err) {
    const struct sequences *s = &t->stream;
    t->shape_ids = calloc((size_t)t->config->max_positions, sizeof *t->shape_ids);
    if (!t->shape_ids)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %d tokens",
                         t->config->max_positions);
    return passes_make(t->engine, t->config, s->ids, s->starts, s->n, 0, &t->passes,
                       err);
}

/* ---- requests --------------------------------------------------------------------- */

static enum status put_numbers(struct turns *t, const char *before,
                               const double *values, size_t n, const char *after,
                               struct error *err) {
    enum status status = buffer_printf(&t->answer, err, "%s", before);
    for (size_t i = 0; i < n && !status; i++)
        status = buffer_printf(&t->answer, err, "%s%.5f", i ? "," : "", values[i]);
    return status ? status : buffer_printf(&t->answer, err, "%s", after);
}

/* [n_rows, n_labels] as lists in a list. */
static enum status put_logits(struct turns *t, const float *logits, int32_t n_rows,
                              struct error *err) {
    int32_t n_labels = t->config->n_labels;
    enum status status = buffer_printf(&t->answer, err, "{\"logits\":[");
    for (int32_t i = 0; i < n_rows && !status; i++)
        for (int32_t j = 0; j < n_labels && !status; j++)
            status =
                buffer_printf(&t->answer, err, "%s%.9g",
                              j   ? ","
                              : i ? "],["
                                  : "[",
                              (double)logits[(size_t)i * (size_t)n_labels + (size_t)j]);
    return status ? status : buffer_printf(&t->answer, err, "]]}");
}

/* n runs, one at a time: {"ms":[…]}, and by the device's clock where that is asked for. */
static enum status time_runs(struct turns *t, const struct passes *p, long n,
                             bool wants_device, struct error *err) {
    double *ms = calloc(2 * (size_t)n, sizeof *ms);
    enum status status = STATUS_OK;
    struct pass_time time = {0};
    if (!ms)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %ld times", n);
    double *device_ms = ms + n;
    for (long i = 0; i < n && !status; i++) {
        status = passes_run(p, NULL, &time, err);
        ms[i] = time.ms;
        device_ms[i] = time.device_ms;
    }
    if (!status)
        status = put_numbers(t, "{\"ms\":[", ms, (size_t)n, "]", err);
    if (!status && wants_device)
        status = put_numbers(t, ",\"device_ms\":[", device_ms,
                             time.device_ms < 0 ? 0 : (size_t)n, "]", err);
    free(ms);
    return status ? status : buffer_printf(&t->answer, err, "}");
}

static enum status time_flight(struct turns *t, const struct passes *p, long n,
                               struct error *err) {
    double *device_ms = calloc((size_t)n, sizeof *device_ms);
    struct pass_time time;
    if (!device_ms)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %ld times", n);
    enum status status = passes_stream(p, (int32_t)n, device_ms, &time, err);
    if (!status)
        status = put_numbers(t, "{\"ms\":", &time.ms, 1, ",\"device_ms\":[", err);
    if (!status)
        status = put_numbers(t, "", device_ms, time.device_ms < 0 ? 0 : (size_t)n, "]}",
                             err);
    free(device_ms);
    return status;
}

static enum status time_sequence(struct turns *t, int32_t n_tokens, long n_runs,
                                 struct error *err) {
    int32_t starts[2] = {0, n_tokens};
    uint32_t random = 1;
    struct passes passes;
    for (int32_t i = 0; i < n_tokens; i++) {
        random = random * 1664525u + 1013904223u;
        int32_t n_words = t->config->vocab_size - FIRST_WORD;
        t->shape_ids[i] =
            n_words > 0 ? FIRST_WORD + (int32_t)(random >> 8) % n_words : 0;
    }
    enum status status =
        passes_make(t->engine, t->config, t->shape_ids, starts, 1, 0, &passes, err);
    if (!status)
        status = time_runs(t, &passes, n_runs, false, err);
    passes_free(&passes);
    return status;
}

static enum status time_stream(struct turns *t, struct error *err) {
    struct pass_time time;
    enum status status = passes_stream(&t->passes, 1, NULL, &time, err);
    return status ? status : put_numbers(t, "{\"ms\":[", &time.ms, 1, "]}", err);
}

static enum status give_logits(struct turns *t, long n, struct error *err) {
    const struct sequences *s = &t->stream;
    int32_t n_rows = n < s->n ? (int32_t)n : s->n;
    float *logits =
        calloc((size_t)n_rows * (size_t)t->config->n_labels, sizeof *logits);
    struct passes passes;
    struct pass_time time;
    if (!logits)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the logits");
    enum status status =
        passes_make(t->engine, t->config, s->ids, s->starts, n_rows, 1, &passes, err);
    if (!status)
        status = passes_run(&passes, logits, &time, err);
    if (!status)
        status = put_logits(t, logits, n_rows, err);
    passes_free(&passes);
    free(logits);
    return status;
}

/* ---- shapes ----------------------------------------------------------------------- */

static enum status give_answers(struct turns *t, const struct passes *p,
                                struct error *err) {
    float *logits =
        calloc((size_t)p->n_sequences * (size_t)p->n_labels, sizeof *logits);
    struct pass_time time;
    if (!logits)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the logits");
    enum status status = passes_run(p, logits, &time, err);
    if (!status)
        status = put_logits(t, logits, p->n_sequences, err);
    free(logits);
    return status;
}

static enum status give_ids(struct turns *t, const struct shape *s, struct error *err) {
    enum status status = buffer_printf(&t->answer, err, "{\"ids\":[");
    for (int32_t b = 0; b < s->n_sequences && !status; b++)
        for (int32_t i = s->starts[b]; i < s->starts[b + 1] && !status; i++)
            status = buffer_printf(&t->answer, err, "%s%d",
                                   i > s->starts[b] ? ","
                                   : b              ? "],["
                                                    : "[",
                                   s->ids[i]);
    return status ? status : buffer_printf(&t->answer, err, "]]}");
}

enum request { REQUEST_SHAPE, REQUEST_FLIGHT, REQUEST_ANSWERS, REQUEST_IDS };

static enum status answer_shape(struct turns *t, enum request request, const char *name,
                                long n, struct error *err) {
    struct shape shape;
    struct passes passes = {0};
    enum status status = shape_make(name, t->config, &shape, err);
    if (!status)
        status = passes_make(t->engine, t->config, shape.ids, shape.starts,
                             shape.n_sequences, 0, &passes, err);
    if (!status && request == REQUEST_SHAPE)
        status = time_runs(t, &passes, n, true, err);
    else if (!status && request == REQUEST_FLIGHT)
        status = time_flight(t, &passes, n, err);
    else if (!status && request == REQUEST_ANSWERS)
        status = give_answers(t, &passes, err);
    else if (!status)
        status = give_ids(t, &shape, err);
    passes_free(&passes);
    shape_free(&shape);
    return status;
}

/* "1x32 5": n_tokens 32, n 5. "logits 5": n 5. */
static bool request_number(const char *text, long *n) {
    char *end;
    errno = 0;
    *n = strtol(text, &end, 10);
    return end != text && (*end == '\0' || *end == '\n') && !errno && *n >= 1 &&
           *n <= MAX_RUNS;
}

/* "shape 8x128 50", "ids mixed"; false: it is none of these. */
static bool shape_request(const char *line, enum request *request,
                          char name[SHAPE_NAME_BYTES], long *n) {
    static const char *const words[] = {"shape ", "flight ", "answers ", "ids "};
    for (int i = 0; i < 4; i++) {
        size_t n_word = strlen(words[i]);
        if (strncmp(line, words[i], n_word) != 0)
            continue;
        const char *at = line + n_word;
        size_t n_name = strcspn(at, " \n");
        if (n_name >= SHAPE_NAME_BYTES)
            return false;
        memcpy(name, at, n_name);
        name[n_name] = '\0';
        *request = (enum request)i;
        *n = 0;
        return i >= REQUEST_ANSWERS ||
               (at[n_name] == ' ' && request_number(at + n_name, n));
    }
    return false;
}

static enum status answer(struct turns *t, const char *line, struct error *err) {
    long n;
    char name[SHAPE_NAME_BYTES];
    enum request request;
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
            return time_sequence(t, (int32_t)n_tokens, n, err);
    }
    if (shape_request(line, &request, name, &n))
        return answer_shape(t, request, name, n, err);
    return error_set(err, STATUS_INVALID,
                     "expected \"1x<tokens> <runs>\", \"stream\", \"logits <n>\", "
                     "\"shape <shape> <runs>\", \"flight <shape> <runs>\", \"answers "
                     "<shape>\", \"ids <shape>\" or \"quit\"");
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
                            "\"device\":\"%s\",\"effective\":\"%s, %s\","
                            "\"batches\":%d}\n",
                            VIGIL_VERSION, engine->info.device, engine->info.dtype,
                            engine->info.isa, t.passes.n_batches) < 0 ||
                    fflush(out)))
        status = error_set(err, STATUS_IO, "cannot write: %s", strerror(errno));
    if (!status)
        status = serve_lines(&t, in, out, err);
    free(t.stream.ids);
    free(t.stream.starts);
    passes_free(&t.passes);
    free(t.shape_ids);
    buffer_free(&t.answer);
    return status;
}
