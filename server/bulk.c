/* SPDX-License-Identifier: Apache-2.0 */
#include "server/bulk.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/json.h"
#include "base/memory.h"
#include "model/answer.h"
#include "model/windows.h"
#include "server/answer_json.h"

/* Reader, engine and writer hold one each, and one is on its way. */
#define N_CHUNKS 4
#define CHUNK_BATCHES 16 /* enough to sort by length, few enough for progress */
#define CHUNK_ITEMS 2048
#define CHUNK_TEXT_BYTES (4u << 20) /* ids and texts; one more record may go over */
#define CHUNK_TAG_VALUES (4u << 20)
#define MAX_ARENA_BYTES (256u << 20)
#define MAX_OUTPUT_BYTES (1u << 30)

struct item {
    struct windows windows;
    size_t id_at, id_bytes; /* in the chunk's arena */
    size_t text_at, text_bytes;
    size_t error_at; /* NUL-terminated; 0: none */
    enum status error_status;
    uint64_t number; /* of the line or row */
    size_t first_window, first_token;
};

/* One window on its way through the engine. */
struct sequence {
    int32_t item, window, n_tokens;
};

struct chunk {
    struct chunk *next;
    struct item items[CHUNK_ITEMS];
    size_t n_items, n_windows, n_tokens;
    uint64_t input_bytes; /* of the input, up to the end of this chunk */
    struct buffer arena;
    struct sequence *sequences; /* [n_windows] */
    float *logits;              /* [n_windows, n_labels] */
    float *tags;                /* [n_tokens, n_tag_labels] */
    size_t cap_windows, cap_tag_tokens;
};

/* Chunks from one thread to another. Closed: what is in it comes out, then NULL. */
struct channel {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct chunk *first, **last;
    bool is_closed;
};

struct bulk {
    const struct bulk_options *options;
    int32_t batch_tokens;
    bool wants_tags;
    struct channel empty, read, done;
    pthread_mutex_t lock;        /* of failure and is_interrupted */
    struct error failure;        /* the first */
    struct bulk_summary summary; /* the writer's; read by others when it has ended */
    uint64_t n_tokens;           /* the engine's */
    bool is_interrupted;
};

static void channel_init(struct channel *c) {
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->last = &c->first;
}

static void channel_destroy(struct channel *c) {
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
}

static void channel_put(struct channel *c, struct chunk *chunk) {
    pthread_mutex_lock(&c->lock);
    chunk->next = NULL;
    *c->last = chunk;
    c->last = &chunk->next;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static struct chunk *channel_take(struct channel *c) {
    pthread_mutex_lock(&c->lock);
    while (!c->first && !c->is_closed)
        pthread_cond_wait(&c->changed, &c->lock);
    struct chunk *chunk = c->first;
    if (chunk) {
        c->first = chunk->next;
        if (!c->first)
            c->last = &c->first;
    }
    pthread_mutex_unlock(&c->lock);
    return chunk;
}

static void channel_close(struct channel *c) {
    pthread_mutex_lock(&c->lock);
    c->is_closed = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* Notes the first failure and lets every thread come to its end, also a reader that waits
 * for input. */
static void fail(struct bulk *b, const struct error *err) {
    pthread_mutex_lock(&b->lock);
    if (b->failure.status == STATUS_OK)
        b->failure = *err;
    pthread_mutex_unlock(&b->lock);
    channel_close(&b->empty);
    if (b->options->stop_fd >= 0 && eventfd_write(b->options->stop_fd, 1) != 0) {
        /* The reader then ends with its next record. */
    }
}

static bool has_failed(struct bulk *b) {
    pthread_mutex_lock(&b->lock);
    bool failed = b->failure.status != STATUS_OK;
    pthread_mutex_unlock(&b->lock);
    return failed;
}

static void chunk_clear(struct chunk *c) {
    for (size_t i = 0; i < c->n_items; i++)
        windows_free(&c->items[i].windows);
    c->n_items = c->n_windows = c->n_tokens = 0;
    buffer_clear(&c->arena);
}

static void chunk_free(struct chunk *c) {
    if (!c)
        return;
    chunk_clear(c);
    buffer_free(&c->arena);
    free(c->sequences);
    free(c->logits);
    free(c->tags);
    free(c);
}

static bool chunk_is_full(const struct bulk *b, const struct chunk *c) {
    size_t n_tags = b->wants_tags ? (size_t)b->options->bundle->config.n_tag_labels : 0;
    return c->n_items == CHUNK_ITEMS || c->arena.n_bytes >= CHUNK_TEXT_BYTES ||
           c->n_tokens >= (size_t)b->batch_tokens * CHUNK_BATCHES ||
           (n_tags && c->n_tokens >= CHUNK_TAG_VALUES / n_tags);
}

/* Copies bytes into the arena. */
static enum status chunk_copy(struct chunk *c, const char *data, size_t n_bytes,
                              size_t *at, struct error *err) {
    *at = c->arena.n_bytes;
    return buffer_append(&c->arena, data, n_bytes, err);
}

static enum status item_refuse(struct chunk *c, struct item *item,
                               const struct error *why, struct error *err) {
    item->error_status = why->status;
    return chunk_copy(c, why->message, strlen(why->message) + 1, &item->error_at, err);
}

/* One record, tokenized, or why it could not be. */
static enum status item_fill(const struct bulk *b, struct chunk *c, struct item *item,
                             const struct record *record, struct error *err) {
    const struct bulk_options *o = b->options;
    enum status status = chunk_copy(c, record->id, record->id_bytes, &item->id_at, err);
    if (status != STATUS_OK)
        return status;
    item->id_bytes = record->id_bytes;
    item->number = record->number;
    if (record->error.status != STATUS_OK)
        return item_refuse(c, item, &record->error, err);
    status = windows_make(o->bundle->tokenizer, o->bundle->config.max_positions,
                          record->text, record->text_bytes, o->truncate, &item->windows,
                          err);
    if (status == STATUS_NO_MEMORY)
        return status;
    if (status != STATUS_OK) {
        struct error why = *err;
        return item_refuse(c, item, &why, err);
    }
    if (!b->wants_tags)
        return STATUS_OK;
    item->text_bytes = record->text_bytes;
    return chunk_copy(c, record->text, record->text_bytes, &item->text_at, err);
}

/* Puts one record into the chunk, whole or not at all. */
static enum status chunk_add(const struct bulk *b, struct chunk *c,
                             const struct record *record, struct error *err) {
    struct item *item = &c->items[c->n_items];
    memset(item, 0, sizeof *item);
    enum status status = item_fill(b, c, item, record, err);
    if (status != STATUS_OK) {
        windows_free(&item->windows);
        return status;
    }
    item->first_window = c->n_windows;
    item->first_token = c->n_tokens;
    c->n_windows += (size_t)item->windows.n_windows;
    c->n_tokens += (size_t)item->windows.n_ids;
    c->n_items++;
    return STATUS_OK;
}

/* Fills a chunk: *is_end when there is nothing behind it. */
static enum status read_chunk(struct bulk *b, struct chunk *c, bool *is_end,
                              struct error *err) {
    /* So that 0 can stand for no error. */
    enum status status = buffer_append(&c->arena, "", 1, err);
    while (status == STATUS_OK && !chunk_is_full(b, c)) {
        if (c->n_items && records_would_wait(b->options->records))
            break;
        struct record record;
        status = records_next(b->options->records, &record, err);
        if (status == STATUS_OK)
            status = chunk_add(b, c, &record, err);
    }
    c->input_bytes = records_bytes_read(b->options->records);
    *is_end = status == STATUS_NOT_FOUND || status == STATUS_CANCELLED;
    if (status == STATUS_CANCELLED) {
        pthread_mutex_lock(&b->lock);
        b->is_interrupted = true;
        pthread_mutex_unlock(&b->lock);
    }
    return *is_end ? STATUS_OK : status;
}

static void *reader(void *argument) {
    struct bulk *b = argument;
    struct chunk *c;
    bool is_end = false;
    while (!is_end && !has_failed(b) && (c = channel_take(&b->empty))) {
        struct error err = {0};
        if (read_chunk(b, c, &is_end, &err) != STATUS_OK) {
            /* What came before the fault is still written. */
            fail(b, &err);
            is_end = true;
        }
        channel_put(&b->read, c);
    }
    channel_close(&b->read);
    return NULL;
}

static int by_length(const void *a, const void *b) {
    const struct sequence *x = a, *y = b;
    if (x->n_tokens != y->n_tokens)
        return x->n_tokens < y->n_tokens ? 1 : -1;
    if (x->item != y->item)
        return x->item < y->item ? -1 : 1;
    return x->window < y->window ? -1 : 1;
}

/* Lists the chunk's windows, longest first, and makes room for what the engine says. */
static enum status chunk_prepare(const struct bulk *b, struct chunk *c,
                                 struct error *err) {
    size_t n_labels = (size_t)b->options->bundle->config.n_labels;
    size_t n_tags = b->wants_tags ? (size_t)b->options->bundle->config.n_tag_labels : 0;
    if (c->n_windows > c->cap_windows) {
        free(c->sequences);
        free(c->logits);
        c->sequences = calloc(c->n_windows, sizeof *c->sequences);
        c->logits = calloc(c->n_windows * n_labels, sizeof *c->logits);
        c->cap_windows = c->sequences && c->logits ? c->n_windows : 0;
    }
    if (n_tags && c->n_tokens > c->cap_tag_tokens) {
        free(c->tags);
        c->tags = calloc(c->n_tokens * n_tags, sizeof *c->tags);
        c->cap_tag_tokens = c->tags ? c->n_tokens : 0;
    }
    if (c->n_windows > c->cap_windows || (n_tags && c->n_tokens > c->cap_tag_tokens))
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu windows",
                         c->n_windows);
    size_t n = 0;
    for (size_t i = 0; i < c->n_items; i++) {
        const struct windows *w = &c->items[i].windows;
        for (int32_t k = 0; k < w->n_windows; k++)
            c->sequences[n++] =
                (struct sequence){(int32_t)i, k, w->offsets[k + 1] - w->offsets[k]};
    }
    if (n)
        qsort(c->sequences, n, sizeof *c->sequences, by_length);
    return STATUS_OK;
}

/* The engine's side: one batch and what comes out of it. */
struct stage {
    int32_t *ids, *offsets;
    float *logits, *tags;
    struct batch batch;
    const struct sequence *sequences; /* of the chunk, that are in the batch */
};

static void stage_free(struct stage *s) {
    free(s->ids);
    free(s->offsets);
    free(s->logits);
    free(s->tags);
}

static enum status stage_init(const struct bulk *b, struct stage *s,
                              struct error *err) {
    const struct bundle *bundle = b->options->bundle;
    size_t n_tokens = (size_t)bundle->engine->info.max_tokens;
    size_t n_sequences = (size_t)bundle->engine->info.max_sequences;
    size_t n_tags = b->wants_tags ? (size_t)bundle->config.n_tag_labels : 0;
    memset(s, 0, sizeof *s);
    s->ids = calloc(n_tokens, sizeof *s->ids);
    s->offsets = calloc(n_sequences + 1, sizeof *s->offsets);
    s->logits =
        calloc(n_sequences * (size_t)bundle->config.n_labels, sizeof *s->logits);
    s->tags = calloc(n_tokens * n_tags + 1, sizeof *s->tags);
    if (s->ids && s->offsets && s->logits && s->tags)
        return STATUS_OK;
    return error_set(err, STATUS_NO_MEMORY, "no memory for a batch of %zu tokens",
                     n_tokens);
}

/* Puts the outputs of a batch where their texts will look for them. */
static void scatter(const struct bulk *b, struct chunk *c, const struct stage *s) {
    size_t n_labels = (size_t)b->options->bundle->config.n_labels;
    size_t n_tags = (size_t)b->options->bundle->config.n_tag_labels;
    for (int32_t i = 0; i < s->batch.n_sequences; i++) {
        const struct sequence *sequence = &s->sequences[i];
        const struct item *item = &c->items[sequence->item];
        size_t window = item->first_window + (size_t)sequence->window;
        memcpy(c->logits + window * n_labels, s->logits + (size_t)i * n_labels,
               n_labels * sizeof *c->logits);
        if (!b->wants_tags)
            continue;
        size_t token =
            item->first_token + (size_t)item->windows.offsets[sequence->window];
        memcpy(c->tags + token * n_tags, s->tags + (size_t)s->offsets[i] * n_tags,
               (size_t)sequence->n_tokens * n_tags * sizeof *c->tags);
    }
}

/* Fills a batch with the sequences from *at on, as many as fit. */
static void fill_batch(const struct bulk *b, const struct chunk *c, struct stage *s,
                       size_t *at) {
    const struct engine *engine = b->options->bundle->engine;
    const struct sequence *sequences = c->sequences + *at;
    size_t n_left = c->n_windows - *at;
    int32_t n = 0, n_tokens = 0;
    while ((size_t)n < n_left && n < engine->info.max_sequences &&
           (n == 0 || n_tokens + sequences[n].n_tokens <= b->batch_tokens)) {
        const struct windows *w = &c->items[sequences[n].item].windows;
        memcpy(s->ids + n_tokens, w->ids + w->offsets[sequences[n].window],
               (size_t)sequences[n].n_tokens * sizeof *s->ids);
        n_tokens += sequences[n].n_tokens;
        s->offsets[++n] = n_tokens;
    }
    s->sequences = sequences;
    s->batch = (struct batch){.ids = s->ids,
                              .offsets = s->offsets,
                              .n_sequences = n,
                              .wants_tags = b->wants_tags};
    *at += (size_t)n;
}

/* Batches that the engine takes ahead of a wait. */
static int32_t n_stages(const struct bulk *b) {
    return b->options->bundle->engine->info.n_in_flight;
}

/* The batches of a chunk. A device has as many ahead as it takes. */
static enum status run_chunk(struct bulk *b, struct chunk *c, struct stage *stages,
                             struct error *err) {
    struct engine *engine = b->options->bundle->engine;
    int32_t first = 0, n = 0;
    size_t at = 0;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && (at < c->n_windows || n)) {
        if (at < c->n_windows && n < n_stages(b)) {
            struct stage *s = &stages[(first + n++) % n_stages(b)];
            fill_batch(b, c, s, &at);
            status = engine_submit(engine, &s->batch, err);
        } else {
            struct stage *s = &stages[first];
            status = engine_wait(engine, s->logits, s->tags, err);
            first = (first + 1) % n_stages(b);
            n--;
            if (status != STATUS_OK)
                break;
            scatter(b, c, s);
            b->n_tokens += (uint64_t)batch_n_tokens(&s->batch);
        }
    }
    /* An engine is closed with nothing in flight; one that is dead has nothing. */
    for (; status != STATUS_OK && status != STATUS_DEVICE && n > 0; n--) {
        (void)engine_wait(engine, stages[first].logits, stages[first].tags, NULL);
        first = (first + 1) % n_stages(b);
    }
    return status;
}

/* The caller's thread: every chunk through the engine. */
static enum status run_engine(struct bulk *b, struct error *err) {
    struct stage stages[ENGINE_MAX_IN_FLIGHT] = {0};
    struct chunk *c;
    enum status status = STATUS_OK;
    for (int32_t i = 0; i < n_stages(b) && status == STATUS_OK; i++)
        status = stage_init(b, &stages[i], err);
    while (status == STATUS_OK && (c = channel_take(&b->read))) {
        status = chunk_prepare(b, c, err);
        if (status == STATUS_OK)
            status = run_chunk(b, c, stages, err);
        channel_put(status == STATUS_OK ? &b->done : &b->empty, c);
    }
    for (int32_t i = 0; i < ENGINE_MAX_IN_FLIGHT; i++)
        stage_free(&stages[i]);
    return status;
}

/* The members behind the id of one answer. */
static enum status write_answer(struct bulk *b, const struct item *item,
                                const struct answer *a, const char *text,
                                struct buffer *out, struct error *err) {
    const struct bulk_options *o = b->options;
    const struct windows *w = &item->windows;
    enum status status = buffer_append(out, ",", 1, err);
    if (status == STATUS_OK)
        status = answer_json_write(&o->bundle->config, a, text, item->text_bytes,
                                   o->wants_entities, out, err);
    if (status == STATUS_OK && w->n_windows > 1)
        status = buffer_printf(out, err, ",\"windows\":%d", w->n_windows);
    if (status == STATUS_OK && w->is_truncated)
        status = buffer_printf(out, err, ",\"truncated\":true");
    b->summary.n_positive += a->label == o->bundle->positive_label;
    b->summary.n_truncated += w->is_truncated;
    return status;
}

static enum status write_error(struct bulk *b, const struct item *item,
                               enum status type, const char *why, struct buffer *out,
                               struct error *err) {
    bool is_csv = records_format(b->options->records) == FORMAT_CSV;
    struct bulk_summary *summary = &b->summary;
    if (summary->n_errors++ == 0) {
        summary->first_error_number = item->number;
        error_set(&summary->first_error, type, "%s", why);
    }
    enum status status =
        buffer_printf(out, err, ",\"%s\":%llu,\"error\":", is_csv ? "row" : "line",
                      (unsigned long long)item->number);
    if (status == STATUS_OK)
        status = json_append_string(out, why, strlen(why), err);
    return status == STATUS_OK
               ? buffer_printf(out, err, ",\"error_type\":\"%s\"", status_name(type))
               : status;
}

static enum status write_item(struct bulk *b, const struct chunk *c,
                              const struct item *item, struct buffer *out,
                              struct error *err) {
    const struct bundle *bundle = b->options->bundle;
    const char *arena = c->arena.data;
    enum status status = buffer_append(out, "{\"id\":", 6, err);
    if (status == STATUS_OK)
        status = buffer_append(out, arena + item->id_at, item->id_bytes, err);
    if (status != STATUS_OK)
        return status;
    b->summary.n_records++;
    if (item->error_at) {
        status =
            write_error(b, item, item->error_status, arena + item->error_at, out, err);
    } else {
        size_t n_labels = (size_t)bundle->config.n_labels;
        size_t n_tags = (size_t)bundle->config.n_tag_labels;
        struct answer a;
        struct error why;
        if (answer_make(&bundle->config, &item->windows, bundle->positive_label,
                        c->logits + item->first_window * n_labels,
                        b->wants_tags ? c->tags + item->first_token * n_tags : NULL,
                        arena + item->text_at, item->text_bytes, &a,
                        &why) == STATUS_OK) {
            answer_apply_threshold(&bundle->config, bundle->positive_label,
                                   b->options->threshold, &a);
            status = write_answer(b, item, &a, arena + item->text_at, out, err);
            answer_free(&a);
        } else {
            status = write_error(b, item, why.status, why.message, out, err);
        }
    }
    return status == STATUS_OK ? buffer_append(out, "}\n", 2, err) : status;
}

/* A reader that has gone is no fault of ours: STATUS_CANCELLED. */
static enum status write_all(int fd, const char *data, size_t n_bytes,
                             struct error *err) {
    while (n_bytes) {
        ssize_t n = write(fd, data, n_bytes);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            poll(&ready, 1, -1);
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EPIPE)
            return error_set(err, STATUS_CANCELLED, "nobody reads the answers");
        if (n < 0)
            return error_set(err, STATUS_IO, "cannot write the answers: %s",
                             strerror(errno));
        data += n;
        n_bytes -= (size_t)n;
    }
    return STATUS_OK;
}

static enum status write_chunk(struct bulk *b, const struct chunk *c,
                               struct buffer *out, struct error *err) {
    enum status status = STATUS_OK;
    buffer_clear(out);
    for (size_t i = 0; i < c->n_items && status == STATUS_OK; i++)
        status = write_item(b, c, &c->items[i], out, err);
    if (status == STATUS_OK)
        status = write_all(b->options->out_fd, out->data, out->n_bytes, err);
    b->summary.input_bytes = c->input_bytes;
    if (status == STATUS_OK && b->options->on_progress)
        b->options->on_progress(b->options->context, &b->summary);
    return status;
}

static void *writer(void *argument) {
    struct bulk *b = argument;
    struct buffer out = {.max_bytes = MAX_OUTPUT_BYTES};
    struct chunk *c;
    enum status status = STATUS_OK;
    while ((c = channel_take(&b->done))) {
        struct error err = {0};
        if (status == STATUS_OK) {
            status = write_chunk(b, c, &out, &err);
            if (status != STATUS_OK)
                fail(b, &err);
        }
        chunk_clear(c);
        channel_put(&b->empty, c);
    }
    buffer_free(&out);
    return NULL;
}

static enum status bulk_init(struct bulk *b, struct error *err) {
    channel_init(&b->empty);
    channel_init(&b->read);
    channel_init(&b->done);
    pthread_mutex_init(&b->lock, NULL);
    for (int i = 0; i < N_CHUNKS; i++) {
        struct chunk *c = calloc(1, sizeof *c);
        if (!c)
            return error_set(err, STATUS_NO_MEMORY, "no memory to read records");
        c->arena.max_bytes = MAX_ARENA_BYTES;
        channel_put(&b->empty, c);
    }
    return STATUS_OK;
}

static void bulk_free(struct bulk *b) {
    struct channel *channels[] = {&b->empty, &b->read, &b->done};
    for (size_t i = 0; i < 3; i++) {
        struct chunk *c;
        channel_close(channels[i]);
        while ((c = channel_take(channels[i])))
            chunk_free(c);
        channel_destroy(channels[i]);
    }
    pthread_mutex_destroy(&b->lock);
}

enum status bulk_run(const struct bulk_options *options, struct bulk_summary *summary,
                     struct error *err) {
    const struct engine_info *info = &options->bundle->engine->info;
    struct bulk b = {.options = options, .batch_tokens = info->max_tokens};
    if (options->batch_tokens > 0 && options->batch_tokens < info->max_tokens)
        b.batch_tokens = options->batch_tokens;
    b.wants_tags = options->wants_entities && options->bundle->config.n_tag_labels > 0;
    pthread_t reader_thread, writer_thread;
    bool is_reading = false, is_writing = false;
    enum status status = bulk_init(&b, err);
    if (status == STATUS_OK) {
        is_reading = pthread_create(&reader_thread, NULL, reader, &b) == 0;
        is_writing = pthread_create(&writer_thread, NULL, writer, &b) == 0;
        struct error why = {0};
        if (!is_reading || !is_writing)
            error_set(&why, STATUS_NO_MEMORY, "cannot start a thread");
        else
            run_engine(&b, &why);
        if (why.status != STATUS_OK)
            fail(&b, &why);
    }
    channel_close(&b.empty);
    channel_close(&b.done);
    if (is_reading)
        pthread_join(reader_thread, NULL);
    if (is_writing)
        pthread_join(writer_thread, NULL);
    b.summary.n_tokens = b.n_tokens;
    b.summary.is_interrupted = b.is_interrupted && b.failure.status == STATUS_OK;
    *summary = b.summary;
    if (status == STATUS_OK && b.failure.status != STATUS_OK) {
        *err = b.failure;
        status = b.failure.status;
    }
    bulk_free(&b);
    return status;
}
