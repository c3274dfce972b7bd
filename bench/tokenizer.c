/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.c - rounds over all texts, each text into the same arrays.
 */
#include "bench/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "tokenizer/tokenizer.h"

#define MAX_FILE_BYTES ((size_t)1 << 30)

/* Lines as they stand: a tweet may begin with a brace, which texts_read takes for JSON. */
struct texts {
    char *memory;
    struct text {
        const char *data;
        size_t n_bytes;
    } * items;
    size_t n;
};

struct room {
    int32_t *ids;
    struct token_span *spans;
    size_t cap_tokens;
};

struct totals {
    size_t n_bytes, n_tokens;
    uint64_t checksum;
};

static enum status read_lines(const char *path, struct texts *t, struct error *err) {
    size_t n_bytes, n_lines = 0;
    enum status status = file_read(path, MAX_FILE_BYTES, &t->memory, &n_bytes, err);
    if (status)
        return status;
    for (size_t i = 0; i < n_bytes; i++)
        n_lines += t->memory[i] == '\n' || i + 1 == n_bytes;
    if (n_lines == 0)
        return error_set(err, STATUS_INVALID, "%s: no texts", path);
    t->items = calloc(n_lines, sizeof *t->items);
    if (!t->items)
        return error_set(err, STATUS_NO_MEMORY, "out of memory for %zu texts", n_lines);
    const char *end = t->memory + n_bytes;
    for (const char *p = t->memory; p < end; t->n++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((newline ? newline : end) - p);
        t->items[t->n] = (struct text){p, n};
        p += n + 1;
    }
    return STATUS_OK;
}

static enum status make_room(const struct texts *texts, struct room *room,
                             struct error *err) {
    size_t longest = 0;
    for (size_t i = 0; i < texts->n; i++)
        if (texts->items[i].n_bytes > longest)
            longest = texts->items[i].n_bytes;
    room->cap_tokens = tokenizer_max_tokens(longest);
    room->ids = calloc(room->cap_tokens, sizeof *room->ids);
    room->spans = calloc(room->cap_tokens, sizeof *room->spans);
    if (!room->ids || !room->spans)
        return error_set(err, STATUS_NO_MEMORY, "out of memory for %zu tokens",
                         room->cap_tokens);
    return STATUS_OK;
}

/* The checksum is of the ids in their order: a tokenizer that skips work gives another. */
static struct totals count(const struct tokenizer *t, const struct texts *texts,
                           const struct room *room) {
    struct totals sum = {0};
    struct encoding e;
    for (size_t i = 0; i < texts->n; i++) {
        tokenizer_encode(t, texts->items[i].data, texts->items[i].n_bytes, room->ids,
                         room->spans, room->cap_tokens, &e);
        sum.n_bytes += texts->items[i].n_bytes;
        sum.n_tokens += e.n_tokens;
        for (size_t k = 0; k < e.n_tokens; k++)
            sum.checksum = (sum.checksum * 31 + (uint32_t)room->ids[k]) % 4294967291;
    }
    return sum;
}

/* Of the processor, not of the wall: one thread that never waits, and others may be about. */
static double processor_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static double time_round(const struct tokenizer *t, const struct texts *texts,
                         const struct room *room, struct token_span *spans) {
    struct encoding e;
    double start = processor_ms();
    for (size_t i = 0; i < texts->n; i++)
        tokenizer_encode(t, texts->items[i].data, texts->items[i].n_bytes, room->ids,
                         spans, room->cap_tokens, &e);
    return processor_ms() - start;
}

static void print_times(FILE *out, const char *name, const double *ms, int n) {
    fprintf(out, ",\"%s\":[", name);
    for (int i = 0; i < n; i++)
        fprintf(out, "%s%.3f", i ? "," : "", ms[i]);
    fputc(']', out);
}

static enum status time_all(const struct tokenizer *t, const struct texts *texts,
                            int rounds, FILE *out, struct error *err) {
    struct room room = {0};
    double *ms = calloc(2, (size_t)rounds * sizeof *ms);
    enum status status = make_room(texts, &room, err);
    if (!status && !ms)
        status = error_set(err, STATUS_NO_MEMORY, "out of memory for the figures");
    if (!status) {
        struct totals sum = count(t, texts, &room);
        for (int i = 0; i < rounds; i++) {
            ms[i] = time_round(t, texts, &room, NULL);
            ms[rounds + i] = time_round(t, texts, &room, room.spans);
        }
        fprintf(out,
                "{\"engine\":\"vigil\",\"texts\":%zu,\"bytes\":%zu,\"tokens\":%zu,"
                "\"checksum\":%" PRIu64,
                texts->n, sum.n_bytes, sum.n_tokens, sum.checksum);
        print_times(out, "ids_ms", ms, rounds);
        print_times(out, "offsets_ms", ms + rounds, rounds);
        if (fputs("}\n", out) < 0)
            status = error_set(err, STATUS_IO, "cannot write the figures");
    }
    free(ms);
    free(room.ids);
    free(room.spans);
    return status;
}

enum status tokenizer_bench(const char *model_dir, const char *texts_path, int rounds,
                            FILE *out, struct error *err) {
    struct tokenizer *t = NULL;
    struct texts texts = {0};
    if (rounds < 1)
        return error_set(err, STATUS_INVALID, "expected at least one round");
    enum status status = tokenizer_open(model_dir, &t, err);
    if (!status)
        status = read_lines(texts_path, &texts, err);
    if (!status)
        status = time_all(t, &texts, rounds, out, err);
    free(texts.memory);
    free(texts.items);
    tokenizer_close(t);
    return status;
}
