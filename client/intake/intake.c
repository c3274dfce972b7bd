/* SPDX-License-Identifier: Apache-2.0
 *
 * intake.c - opens the pipeline, waits for its end, takes it down.
 */
#include "client/intake/intake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/cpus.h"
#include "client/intake/intake_batch.h"

#define MAX_PARSERS 64
#define DEFAULT_PARSERS 4
#define LINES_ARENA_BYTES ((size_t)256 << 20) /* INTAKE_SLOW_LINES of the longest fit */
#define ITEMS_ARENA_BYTES ((size_t)64 << 20)

void intake_batch_wait(struct intake *i, pthread_cond_t *condition, int64_t until_ns) {
    struct timespec then;
    /* The condition's clock is CLOCK_MONOTONIC, which need not be that of clock_now_ns. */
    int64_t left = until_ns - clock_now_ns();
    if (left <= 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &then);
    then.tv_sec += (time_t)(left / CLOCK_NS_PER_SECOND);
    then.tv_nsec += (long)(left % CLOCK_NS_PER_SECOND);
    if (then.tv_nsec >= CLOCK_NS_PER_SECOND) {
        then.tv_nsec -= CLOCK_NS_PER_SECOND;
        then.tv_sec++;
    }
    pthread_cond_timedwait(condition, &i->lock, &then);
}

bool intake_batch_is_failed(const struct intake *i) {
    return i->is_done && i->write_status != STATUS_OK;
}

bool intake_batch_is_late(struct intake *i) {
    pthread_mutex_lock(&i->lock);
    bool is = i->is_stopping && clock_now_ns() - i->stop_ns >= i->options.drain_ns;
    pthread_mutex_unlock(&i->lock);
    return is;
}

static enum status make_batches(struct intake *i, struct error *err) {
    i->batches = calloc(i->n_batches, sizeof *i->batches);
    for (size_t n = 0; i->batches && n < i->n_batches; n++) {
        struct intake_batch *b = &i->batches[n];
        b->lines = calloc(INTAKE_MAX_LINES, sizeof *b->lines);
        b->empty = calloc(INTAKE_MAX_LINES, sizeof *b->empty);
        if (!b->lines || !b->empty)
            return error_set(err, STATUS_NO_MEMORY, "no memory for batches of posts");
        b->lines_arena.max_bytes = LINES_ARENA_BYTES;
        b->arena.max_bytes = ITEMS_ARENA_BYTES;
    }
    return i->batches
               ? STATUS_OK
               : error_set(err, STATUS_NO_MEMORY, "no memory for batches of posts");
}

static enum status start_threads(struct intake *i, int32_t n_parsers,
                                 struct error *err) {
    int code = 0;
    i->parsers = calloc((size_t)n_parsers, sizeof *i->parsers);
    if (!i->parsers)
        return error_set(err, STATUS_NO_MEMORY, "no memory for threads");
    code = pthread_create(&i->writer, NULL, intake_write, i);
    i->has_writer = code == 0;
    while (code == 0 && i->n_parsers < n_parsers) {
        code = pthread_create(&i->parsers[i->n_parsers], NULL, intake_parse, i);
        i->n_parsers += code == 0;
    }
    if (code == 0) {
        code = pthread_create(&i->reader, NULL, intake_read, i);
        i->has_reader = code == 0;
    }
    return code == 0
               ? STATUS_OK
               : error_set(err, STATUS_IO, "cannot start a thread: %s", strerror(code));
}

enum status intake_open(const struct intake_options *options, struct intake **out,
                        struct error *err) {
    pthread_condattr_t monotonic;
    *out = NULL;
    struct intake *i = calloc(1, sizeof *i);
    if (!i)
        return error_set(err, STATUS_NO_MEMORY, "no memory for batches of posts");
    i->options = *options;
    struct intake_options *o = &i->options;
    o->linger_ns = o->linger_ns ? o->linger_ns : CLOCK_NS_PER_SECOND / 20;
    o->backoff_ns = o->backoff_ns ? o->backoff_ns : CLOCK_NS_PER_SECOND / 10;
    o->drain_ns = o->drain_ns ? o->drain_ns : 10 * CLOCK_NS_PER_SECOND;
    o->look_ns = o->look_ns ? o->look_ns : 10 * CLOCK_NS_PER_SECOND;
    int32_t n_parsers = o->n_parsers;
    if (n_parsers <= 0)
        n_parsers = cpus_count() < DEFAULT_PARSERS ? cpus_count() : DEFAULT_PARSERS;
    if (n_parsers < 1)
        n_parsers = 1;
    i->is_raw_first = !o->source.kind->is_replayable;
    i->n_batches = i->is_raw_first ? INTAKE_MAX_RING : INTAKE_FILE_RING;
    pthread_mutex_init(&i->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&i->changed_free, &monotonic);
    pthread_cond_init(&i->changed_filled, &monotonic);
    pthread_cond_init(&i->changed_parsed, &monotonic);
    pthread_cond_init(&i->changed_end, &monotonic);
    pthread_condattr_destroy(&monotonic);
    enum status status = make_batches(i, err);
    if (status == STATUS_OK)
        status =
            start_threads(i, n_parsers < MAX_PARSERS ? n_parsers : MAX_PARSERS, err);
    if (status == STATUS_OK)
        *out = i;
    else
        intake_close(i);
    return status;
}

void intake_stop(struct intake *i) {
    pthread_mutex_lock(&i->lock);
    if (!i->is_stopping) {
        i->is_stopping = true;
        i->stop_ns = clock_now_ns();
    }
    pthread_cond_broadcast(&i->changed_free);
    pthread_cond_broadcast(&i->changed_parsed);
    pthread_mutex_unlock(&i->lock);
}

enum status intake_wait(struct intake *i, int64_t until_ns, struct error *err) {
    enum status status = STATUS_TIMEOUT;
    pthread_mutex_lock(&i->lock);
    while (!i->is_done && clock_now_ns() < until_ns)
        intake_batch_wait(i, &i->changed_end, until_ns);
    if (i->is_done) {
        const struct error *from =
            i->write_status != STATUS_OK ? &i->write_error : &i->read_error;
        status = i->write_status != STATUS_OK ? i->write_status : i->read_status;
        if (status != STATUS_OK)
            error_set(err, status, "%s", from->message);
    }
    pthread_mutex_unlock(&i->lock);
    return status == STATUS_TIMEOUT
               ? error_set(err, STATUS_TIMEOUT, "the source has not ended")
               : status;
}

void intake_close(struct intake *i) {
    if (!i)
        return;
    intake_stop(i);
    if (i->has_reader) {
        pthread_join(i->reader, NULL);
    } else {
        pthread_mutex_lock(&i->lock);
        i->is_read = true;
        pthread_cond_broadcast(&i->changed_filled);
        pthread_cond_broadcast(&i->changed_parsed);
        pthread_mutex_unlock(&i->lock);
    }
    for (int32_t n = 0; n < i->n_parsers; n++)
        pthread_join(i->parsers[n], NULL);
    if (i->has_writer)
        pthread_join(i->writer, NULL);
    for (size_t n = 0; i->batches && n < i->n_batches; n++) {
        arena_free(&i->batches[n].lines_arena);
        arena_free(&i->batches[n].arena);
        free(i->batches[n].lines);
        free(i->batches[n].empty);
        free(i->batches[n].items);
        free(i->batches[n].item_lines);
    }
    pthread_cond_destroy(&i->changed_free);
    pthread_cond_destroy(&i->changed_filled);
    pthread_cond_destroy(&i->changed_parsed);
    pthread_cond_destroy(&i->changed_end);
    pthread_mutex_destroy(&i->lock);
    free(i->batches);
    free(i->parsers);
    free(i);
}
