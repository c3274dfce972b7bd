/* SPDX-License-Identifier: Apache-2.0
 *
 * test_intake.c - the pipeline between a source and a store that are made of memory: the store
 * fails or dies at every call in turn, before or after the effect; the source hands out again
 * what it was not told is durable. In the end every line must be there once.
 *
 * What select.h and fold.h decide is decided here, by the first word of the text, so that
 * each line's fate is known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/intake/intake.h"

#define MS INT64_C(1000000)
#define MAX_LINES 4096
#define MAX_RAW 8192

/* ---- selection and folding ---- */

const char *select_drop_name(enum select_drop drop) {
    return drop == SELECT_NO_DRUG ? "no_drug" : "other";
}

/* "drop …": nothing; "two …": itself and an original; else itself. */
enum status select_post(const struct selection *s, const struct post *post,
                        struct arena *arena, struct store_item out[SELECT_MAX_ITEMS],
                        size_t *n, enum select_drop *drop, struct error *err) {
    (void)s;
    *n = 0;
    *drop = SELECT_NO_DRUG;
    if (view_starts_with(post->text, VIEW("drop")))
        return STATUS_OK;
    *drop = SELECT_KEPT;
    for (; *n < 1u + view_starts_with(post->text, VIEW("two")); ++*n) {
        out[*n] = (struct store_item){.kind = post->action == POST_DELETE ? STORE_DELETE
                                                                          : STORE_POST,
                                      .source = VIEW("test"),
                                      .version = 1,
                                      .text = post->text};
        enum status status = arena_printf(arena, &out[*n].key, err, "test:%.*s%s",
                                          (int)post->native_id.n_bytes,
                                          post->native_id.data, *n ? "-original" : "");
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static int n_forgotten;

enum status fold_item(struct fold *f, struct store_item *item, struct arena *arena,
                      struct error *err) {
    (void)f;
    (void)arena;
    (void)err;
    /* Twice would show: the key of a duplicate is another one's. */
    if (view_starts_with(item->text, VIEW("same"))) {
        assert_int_equal(item->fold, STORE_NO_FOLD);
        item->fold = STORE_DUPLICATE;
        item->fold_key = item->key;
    }
    return STATUS_OK;
}

void fold_forget(struct fold *f, struct view key) {
    (void)f;
    (void)key;
    n_forgotten++;
}

/* ---- the source ---- */

struct source {
    struct source_state state;
    const char *const *lines;
    size_t n_lines;
    _Atomic size_t at;          /* the next line */
    _Atomic size_t n_committed; /* lines that it was told are durable */
    size_t pause_at;            /* before this line it waits until is_going_on */
    atomic_bool is_going_on, is_woken, is_waiting;
    enum status at_end;
    size_t cut_at;
};

static enum status test_next(struct source *s, int64_t deadline_ns,
                             struct source_line *out, struct error *err) {
    while (s->at == s->pause_at && !atomic_load(&s->is_going_on)) {
        if (atomic_load(&s->is_woken))
            return error_set(err, STATUS_CANCELLED, "woken");
        if (clock_now_ns() >= deadline_ns)
            return error_set(err, STATUS_TIMEOUT, "nothing came");
        atomic_store(&s->is_waiting, true);
        usleep(500);
    }
    if (s->at == s->n_lines)
        return error_set(err, s->at_end, "the source is broken");
    out->bytes = view_of_string(s->lines[s->at]);
    out->is_cut = s->at == s->cut_at;
    out->received_ns = 1000 + (int64_t)s->at;
    out->after = (struct source_position){0, ++s->at};
    return STATUS_OK;
}

static void test_committed(struct source *s, struct source_position upto) {
    assert_true(upto.minor >= atomic_load(&s->n_committed) && upto.minor <= s->at);
    atomic_store(&s->n_committed, (size_t)upto.minor);
}

static enum status test_cursor(const struct source *s, struct source_position at,
                               char out[SOURCE_CURSOR_BYTES], struct error *err) {
    (void)s;
    (void)err;
    snprintf(out, SOURCE_CURSOR_BYTES, "%llu", (unsigned long long)at.minor);
    return STATUS_OK;
}

static void wait_until(bool (*is_so)(void)) {
    for (int n = 0; n < 60000 && !is_so(); n++)
        usleep(500);
    assert_true(is_so());
}

static bool is_all_buffered(void);
static bool is_first_round_over(void);

/* "id text"; "bad…" cannot be read. */
static enum status test_parse(const struct source *s, struct view line,
                              struct arena *arena, struct post *out,
                              struct error *err) {
    (void)s;
    memset(out, 0, sizeof *out);
    if (view_starts_with(line, VIEW("bad")))
        return error_set(err, STATUS_INVALID, "cannot be read");
    if (view_starts_with(line, VIEW("slow ")))
        wait_until(is_all_buffered);
    if (view_starts_with(line, VIEW("slower ")))
        wait_until(is_first_round_over);
    if (view_starts_with(line, VIEW("hungry")))
        return error_set(err, STATUS_NO_MEMORY, "no memory");
    const char *space = memchr(line.data, ' ', line.n_bytes);
    size_t n = space ? (size_t)(space - line.data) : line.n_bytes;
    enum status status = arena_copy(arena, view_of(line.data, n), &out->native_id, err);
    if (status != STATUS_OK)
        return status;
    n += space != NULL;
    out->action = view_starts_with(line, VIEW("delete")) ? POST_DELETE : POST_PUT;
    return arena_copy(arena, view_of(line.data + n, line.n_bytes - n), &out->text, err);
}

static struct source_state *test_state(struct source *s) {
    return &s->state;
}

static struct source_kind kind = {.name = "test",
                                  .next = test_next,
                                  .committed = test_committed,
                                  .cursor = test_cursor,
                                  .parse = test_parse,
                                  .state = test_state};

/* ---- the store ---- */

enum failure { FAIL_BEFORE, FAIL_AFTER, FAIL_ONCE_BEFORE, FAIL_ONCE_AFTER, N_FAILURES };

struct entry {
    char key[32];
    int n_posts, n_folds;
};

struct memory_store {
    pthread_mutex_t lock;
    struct entry entries[MAX_LINES * 2];
    size_t n_entries;
    char *raw[MAX_RAW];
    int64_t raw_ids[MAX_RAW];
    size_t n_raw, most_raw;
    int64_t last_raw_id;
    char *dead[64];
    size_t n_dead, n_deleted;
    char cursor[SOURCE_CURSOR_BYTES];

    long fail_at; /* the n-th call (from 0); -1: none */
    enum failure failure;
    long n_calls;
    const char *refused;      /* a key that is refused for good; NULL */
    _Atomic int n_refuse_all; /* so many calls with items are refused as if for good */
    size_t most_spool_bytes;  /* handed out at once */
    bool is_gone;             /* everything fails */

    char *published[MAX_LINES * 2];
    size_t n_published;
    long publish_fail_at, n_publishes;
};

static struct memory_store *store;

/* Does this call fail, and before or after its effect? */
static bool fails(bool is_after) {
    long n = store->n_calls;
    bool is_due =
        store->failure == FAIL_ONCE_BEFORE || store->failure == FAIL_ONCE_AFTER
            ? n == store->fail_at
            : n >= store->fail_at;
    bool is_kind_after = (store->failure == FAIL_AFTER && n == store->fail_at) ||
                         (store->failure == FAIL_ONCE_AFTER);
    return store->is_gone ||
           (store->fail_at >= 0 && is_due && is_kind_after == is_after);
}

static void remove_raw(int64_t id) {
    for (size_t i = 0; i < store->n_raw; i++)
        if (store->raw_ids[i] == id) {
            free(store->raw[i]);
            store->n_raw--;
            memmove(store->raw + i, store->raw + i + 1,
                    (store->n_raw - i) * sizeof *store->raw);
            memmove(store->raw_ids + i, store->raw_ids + i + 1,
                    (store->n_raw - i) * sizeof *store->raw_ids);
            return;
        }
}

static struct entry *entry_of(struct view key) {
    char text[32];
    snprintf(text, sizeof text, "%.*s", (int)key.n_bytes, key.data);
    for (size_t i = 0; i < store->n_entries; i++)
        if (strcmp(store->entries[i].key, text) == 0)
            return &store->entries[i];
    struct entry *e = &store->entries[store->n_entries++];
    memcpy(e->key, text, sizeof text);
    return e;
}

static void take_item(const struct store_item *item, struct store_taken *taken) {
    assert_true(item->received_ns >= 1000);
    if (item->kind == STORE_DEAD) {
        char body[64];
        assert_true(item->stage.n_bytes > 0 && item->reason.n_bytes > 0);
        snprintf(body, sizeof body, "%.*s: %.*s", (int)item->body.n_bytes,
                 item->body.n_bytes ? item->body.data : "", (int)item->reason.n_bytes,
                 item->reason.data);
        bool is_new = true;
        for (size_t i = 0; i < store->n_dead; i++)
            is_new &= strcmp(store->dead[i], body) != 0;
        if (is_new)
            store->dead[store->n_dead++] = strdup(body);
        taken->n_dead += is_new;
    } else if (item->kind == STORE_DELETE) {
        store->n_deleted++;
    } else {
        struct entry *e = entry_of(item->key);
        if (item->fold)
            e->n_folds = 1;
        else if (e->n_posts == 0)
            taken->n_posts += ++e->n_posts;
        else
            taken->n_again++;
    }
    if (item->raw_id)
        remove_raw(item->raw_id);
}

static enum status take_in(void *context, const struct store_take_in *what,
                           struct store_taken *taken, struct error *err) {
    (void)context;
    pthread_mutex_lock(&store->lock);
    bool fails_before = fails(false), fails_after = fails(true);
    bool is_refused = false;
    store->n_calls++;
    assert_string_equal(what->source, "test");
    assert_int_equal(what->is_remote, store->publish_fail_at >= -1);
    for (size_t i = 0; i < what->n_items && store->refused; i++)
        is_refused |= what->items[i].kind == STORE_POST &&
                      view_equal(what->items[i].key, view_of_string(store->refused));
    if (what->n_items > 0 && atomic_load(&store->n_refuse_all) > 0) {
        atomic_fetch_sub(&store->n_refuse_all, 1);
        is_refused = true;
    }
    if (!fails_before && !is_refused) {
        for (size_t i = 0; i < what->n_raw; i++) {
            assert_true(store->n_raw < MAX_RAW);
            store->raw[store->n_raw] =
                strndup(what->raw[i].line.data, what->raw[i].line.n_bytes);
            store->raw_ids[store->n_raw++] = what->raw[i].id = ++store->last_raw_id;
        }
        if (store->n_raw > store->most_raw)
            store->most_raw = store->n_raw;
        for (size_t i = 0; i < what->n_items; i++)
            take_item(&what->items[i], taken);
        for (size_t i = 0; i < what->n_done; i++)
            remove_raw(what->done[i]);
        if (what->cursor)
            snprintf(store->cursor, sizeof store->cursor, "%s", what->cursor);
    }
    pthread_mutex_unlock(&store->lock);
    if (is_refused)
        return error_set(err, STATUS_INVALID, "refused");
    return fails_before || fails_after ? error_set(err, STATUS_IO, "the disk is full")
                                       : STATUS_OK;
}

static enum status spooled(void *context, const char *source, int64_t after,
                           struct arena *arena, struct store_raw *out, size_t cap,
                           size_t *n, struct error *err) {
    enum status status = STATUS_OK;
    (void)context;
    (void)source;
    pthread_mutex_lock(&store->lock);
    *n = 0;
    bool is_failed = fails(false) || fails(true);
    store->n_calls++;
    for (size_t i = 0, n_bytes = 0; i < store->n_raw && *n < cap && !is_failed; i++)
        if (store->raw_ids[i] > after) {
            n_bytes += strlen(store->raw[i]);
            if (n_bytes > store->most_spool_bytes)
                store->most_spool_bytes = n_bytes;
            out[*n].id = store->raw_ids[i];
            out[*n].received_ns = 2000;
            status = arena_copy(arena, view_of_string(store->raw[i]), &out[(*n)++].line,
                                err);
        }
    pthread_mutex_unlock(&store->lock);
    return is_failed ? error_set(err, STATUS_IO, "the disk is full") : status;
}

static enum status publish(void *context, const struct store_item *items, size_t n,
                           struct error *err) {
    (void)context;
    if (store->n_publishes++ == store->publish_fail_at)
        return error_set(err, STATUS_TIMEOUT, "no queue");
    for (size_t i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "%.*s", (int)items[i].key.n_bytes,
                 items[i].key.n_bytes ? items[i].key.data : "");
        store->published[store->n_published++] = strdup(key);
    }
    return STATUS_OK;
}

static int open_store(void **state) {
    (void)state;
    store = calloc(1, sizeof *store);
    assert_non_null(store);
    pthread_mutex_init(&store->lock, NULL);
    store->fail_at = -1;
    store->publish_fail_at = -2; /* no queue */
    n_forgotten = 0;
    return 0;
}

static int close_store(void **state) {
    (void)state;
    for (size_t i = 0; i < store->n_raw; i++)
        free(store->raw[i]);
    for (size_t i = 0; i < store->n_dead; i++)
        free(store->dead[i]);
    for (size_t i = 0; i < store->n_published; i++)
        free(store->published[i]);
    pthread_mutex_destroy(&store->lock);
    free(store);
    return 0;
}

/* ---- runs ---- */

static struct stream_metrics metrics;
static enum store_mode mode;
static int64_t drain_ns = 20 * MS;

static bool is_all_buffered(void) {
    return atomic_load(&metrics.n_buffered) == MAX_LINES;
}

static bool is_first_round_over(void) {
    pthread_mutex_lock(&store->lock);
    bool is = store->n_calls >= 2; /* the first looks into the spool */
    pthread_mutex_unlock(&store->lock);
    return is;
}

static struct intake *open_intake(struct source *source) {
    struct intake *i = NULL;
    struct error err = {0};
    memset(&metrics, 0, sizeof metrics);
    const struct intake_options options = {
        .source = {&kind, source},
        .name = "test",
        .store = {.take_in = take_in,
                  .spooled = spooled,
                  .publish = store->publish_fail_at >= -1 ? publish : NULL},
        .fold = (struct fold *)(void *)store, /* never looked into */
        .mode = mode,
        .metrics = &metrics,
        .n_parsers = 3,
        .look_ns = 5 * MS,
        .linger_ns = 1 * MS,
        .backoff_ns = MS / 10,
        .drain_ns = drain_ns};
    assert_int_equal(intake_open(&options, &i, &err), STATUS_OK);
    return i;
}

static enum status wait_for_end(struct intake *i, struct error *err) {
    return intake_wait(i, clock_now_ns() + 60000 * MS, err);
}

static void run(struct source *source) {
    struct error err = {0};
    struct intake *i = open_intake(source);
    assert_int_equal(wait_for_end(i, &err), STATUS_OK);
    intake_close(i);
    assert_int_equal(atomic_load(&metrics.n_buffered), 0);
    assert_int_equal(atomic_load(&metrics.n_spooled), 0);
}

static int n_posts(const char *key) {
    for (size_t i = 0; i < store->n_entries; i++)
        if (strcmp(store->entries[i].key, key) == 0)
            return store->entries[i].n_posts;
    return 0;
}

static const char *const SEVEN[] = {"1 a",    "2 drop", "bad", "3 two",
                                    "4 same", "delete", "5 z"};

/* What SEVEN is to become. */
static void expect_seven(void) {
    static const char *const keys[] = {"test:1", "test:3", "test:3-original", "test:5"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(n_posts(keys[i]), 1);
    assert_int_equal(store->n_entries, 5);
    assert_int_equal(entry_of(VIEW("test:4"))->n_folds, 1);
    assert_int_equal(entry_of(VIEW("test:4"))->n_posts, 0);
    assert_int_equal(store->n_dead, 1);
    assert_string_equal(store->dead[0], "bad: cannot be read");
    assert_true(store->n_deleted >= 1);
    assert_int_equal(store->n_raw, 0);
    assert_string_equal(store->cursor, "7");
}

static struct source seven(void) {
    return (struct source){.lines = SEVEN,
                           .n_lines = 7,
                           .pause_at = SIZE_MAX,
                           .cut_at = SIZE_MAX,
                           .at_end = STATUS_NOT_FOUND};
}

static void both_kinds(void **state) {
    (void)state;
    for (int is_replayable = 0; is_replayable < 2; is_replayable++) {
        struct source source = seven();
        kind.is_replayable = is_replayable == 1;
        run(&source);
        expect_seven();
        assert_int_equal(store->most_raw, is_replayable ? 0 : 7);
        assert_int_equal(atomic_load(&source.n_committed), 7);
        assert_int_equal(atomic_load(&metrics.n_lines), 7);
        assert_int_equal(atomic_load(&metrics.n_kept), 4);
        assert_int_equal(atomic_load(&metrics.n_deletes), 1);
        assert_int_equal(atomic_load(&metrics.n_dead), 1);
        assert_int_equal(atomic_load(&metrics.n_dropped[SELECT_NO_DRUG]), 1);
        assert_int_equal(atomic_load(&metrics.n_folded[STORE_DUPLICATE]), 1);
        assert_int_equal(atomic_load(&metrics.n_stored), 4);
        assert_int_equal(n_forgotten, 1);
        close_store(NULL);
        open_store(NULL);
    }
}

/* The source has no end: a raw line is durable, and the source told, before anything else
 * comes; a stop then leaves nothing behind. */
static void raw_lines_first(void **state) {
    (void)state;
    struct error err = {0};
    struct source source = seven();
    kind.is_replayable = false;
    source.pause_at = 3;
    struct intake *i = open_intake(&source);
    for (int n = 0; n < 20000 && atomic_load(&source.n_committed) < 3; n++)
        usleep(500);
    assert_int_equal(atomic_load(&source.n_committed), 3);
    for (int n = 0; n < 20000 && atomic_load(&metrics.n_buffered); n++)
        usleep(500);
    pthread_mutex_lock(&store->lock);
    assert_int_equal(store->n_raw, 0);
    assert_int_equal(n_posts("test:1"), 1);
    assert_string_equal(store->cursor, "3");
    pthread_mutex_unlock(&store->lock);
    assert_int_equal(intake_wait(i, clock_now_ns() + MS, &err), STATUS_TIMEOUT);
    atomic_store(&source.is_woken, true);
    intake_stop(i);
    assert_int_equal(wait_for_end(i, &err), STATUS_OK);
    intake_close(i);
}

/* Runs until the source has ended; whenever the store dies, the process dies, and another
 * one goes on with what is there. */
static size_t survive(const struct source *from, long fail_at, enum failure failure) {
    size_t n_deaths = 0;
    store->fail_at = fail_at;
    store->failure = failure;
    size_t n_told = 0;
    for (;;) {
        struct error err = {0};
        struct source source = *from;
        /* From a file: where the cursor is. From a network: what nobody acknowledged. */
        source.at = kind.is_replayable ? strtoul(store->cursor, NULL, 10) : n_told;
        atomic_store(&source.n_committed, source.at);
        struct intake *i = open_intake(&source);
        enum status status = STATUS_TIMEOUT;
        bool is_dead = false;
        while (status == STATUS_TIMEOUT) {
            status = intake_wait(i, clock_now_ns() + MS, &err);
            pthread_mutex_lock(&store->lock);
            is_dead = failure <= FAIL_AFTER && store->fail_at >= 0 &&
                      store->n_calls > store->fail_at;
            pthread_mutex_unlock(&store->lock);
            if (is_dead) /* the power is gone: nothing reaches the store any more */
                intake_stop(i);
        }
        intake_close(i);
        n_told = atomic_load(&source.n_committed);
        if (!is_dead) {
            assert_int_equal(status, STATUS_OK);
            return n_deaths;
        }
        n_deaths++;
        store->fail_at = -1;
    }
}

static void a_store_that_dies(void **state) {
    (void)state;
    size_t n_deaths = 0;
    for (int is_replayable = 0; is_replayable < 2; is_replayable++)
        for (int failure = 0; failure < N_FAILURES; failure++)
            for (long n = 0; n < 6; n++) {
                const struct source source = seven();
                kind.is_replayable = is_replayable == 1;
                n_deaths += survive(&source, n, (enum failure)failure);
                expect_seven();
                close_store(NULL);
                open_store(NULL);
            }
    assert_in_range(n_deaths, 6, 48);
}

/* All is read before the first batch is parsed, the second is not parsed before the first is
 * stored, and then the store dies: the cursor must be that of the first. */
static void a_cursor_does_not_run_ahead(void **state) {
    (void)state;
    static char texts[MAX_LINES][16];
    static const char *lines[MAX_LINES];
    for (size_t n = 0; n < MAX_LINES; n++) {
        snprintf(texts[n], sizeof texts[n], "%zu x", n);
        lines[n] = texts[n];
    }
    lines[0] = "slow x";
    lines[600] = "slower x";
    struct source source = seven();
    source.lines = lines;
    source.n_lines = MAX_LINES;
    kind.is_replayable = true;
    assert_int_equal(survive(&source, 1, FAIL_AFTER), 1);
    assert_int_equal(store->n_entries, MAX_LINES);
    for (size_t n = 0; n < MAX_LINES; n++)
        assert_int_equal(store->entries[n].n_posts, 1);
}

/* Many lines, in order, through a store that fails now and then. */
static void many_lines(void **state) {
    (void)state;
    static char texts[MAX_LINES][16];
    static const char *lines[MAX_LINES];
    for (size_t n = 0; n < MAX_LINES; n++) {
        snprintf(texts[n], sizeof texts[n], "%zu %s", n, n % 3 ? "x" : "drop");
        lines[n] = texts[n];
    }
    for (int is_replayable = 0; is_replayable < 2; is_replayable++) {
        struct source source = seven();
        kind.is_replayable = is_replayable == 1;
        source.lines = lines;
        source.n_lines = MAX_LINES;
        store->fail_at = 3;
        store->failure = FAIL_ONCE_AFTER;
        run(&source);
        size_t n = 0;
        for (size_t e = 0; e < store->n_entries; e++) {
            n += n % 3 == 0;
            char key[32];
            snprintf(key, sizeof key, "test:%zu", n++);
            assert_string_equal(store->entries[e].key, key);
            assert_int_equal(store->entries[e].n_posts, 1);
        }
        assert_in_range(n, MAX_LINES - 1, MAX_LINES);
        assert_int_equal(store->n_raw, 0);
        close_store(NULL);
        open_store(NULL);
    }
}

/* While the store takes nothing the source is read as far as the buffers go, and no further;
 * a stop then ends it, saying how much is lost. */
static void a_store_that_is_gone(void **state) {
    (void)state;
    static const char *lines[1 << 18];
    struct error err = {0};
    for (size_t n = 0; n < 1 << 18; n++)
        lines[n] = "1 x";
    struct source source = seven();
    kind.is_replayable = false;
    source.lines = lines;
    source.n_lines = 1 << 18;
    store->fail_at = 1; /* behind the look into the spool */
    store->failure = FAIL_BEFORE;
    struct intake *i = open_intake(&source);
    int64_t buffered = -1;
    for (int n = 0; n < 2000 && atomic_load(&metrics.n_buffered) != buffered; n++) {
        buffered = atomic_load(&metrics.n_buffered);
        usleep(20000);
    }
    assert_in_range(buffered, 1000, 128 * 512);
    assert_true(atomic_load(&metrics.store_is_down));
    assert_int_equal(atomic_load(&source.n_committed), 0);
    atomic_store(&source.is_woken, true);
    intake_stop(i);
    assert_int_equal(wait_for_end(i, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "lines are not stored: the disk is full"));
    intake_close(i);
    assert_int_equal(store->n_entries, 0);
}

/* One that the store refuses for good is a dead letter, and the others are stored. */
static void a_post_that_is_refused(void **state) {
    (void)state;
    for (int is_replayable = 0; is_replayable < 2; is_replayable++) {
        struct source source = seven();
        kind.is_replayable = is_replayable == 1;
        store->refused = "test:3";
        run(&source);
        assert_int_equal(n_posts("test:3"), 0);
        assert_int_equal(n_posts("test:3-original"), 1);
        assert_int_equal(n_posts("test:1"), 1);
        assert_int_equal(n_posts("test:5"), 1);
        assert_int_equal(store->n_dead, 2);
        assert_int_equal(store->n_raw, 0);
        assert_string_equal(store->cursor, "7");
        close_store(NULL);
        open_store(NULL);
    }
}

/* A store that refuses everything, as a standby does that can only be read, says nothing of
 * the posts: none is a dead letter. */
static void a_store_that_refuses_all(void **state) {
    (void)state;
    for (int is_replayable = 0; is_replayable < 2; is_replayable++) {
        struct source source = seven();
        kind.is_replayable = is_replayable == 1;
        atomic_store(&store->n_refuse_all, 40);
        run(&source);
        expect_seven();
        assert_int_equal(atomic_load(&store->n_refuse_all), 0);
        close_store(NULL);
        open_store(NULL);
    }
}

/* What a pipe has given and nobody has taken when the stop comes. */
static void a_stop_takes_what_is_in_hand(void **state) {
    (void)state;
    static const char *lines[2000];
    struct error err = {0};
    for (size_t n = 0; n < 2000; n++)
        lines[n] = "1 x";
    struct source source = seven();
    kind.is_replayable = false;
    source.lines = lines;
    source.n_lines = 2000;
    source.pause_at = 3;
    drain_ns = 60000 * MS;
    struct intake *i = open_intake(&source);
    drain_ns = 20 * MS;
    for (int n = 0; n < 20000 && atomic_load(&source.n_committed) < 3; n++)
        usleep(500);
    intake_stop(i);
    atomic_store(&source.is_going_on, true);
    assert_int_equal(wait_for_end(i, &err), STATUS_OK);
    intake_close(i);
    assert_int_equal(source.n_committed, 2000);
}

/* Long lines are not taken out of the spool by the hundred. */
static void long_lines_that_were_left(void **state) {
    (void)state;
    enum { N = 60, LONG = 1 << 20 };
    struct source source = seven();
    kind.is_replayable = false;
    for (int n = 0; n < N; n++) {
        char *line = malloc(LONG);
        assert_non_null(line);
        memset(line, 'x', LONG);
        line[snprintf(line, LONG, "long%d", n)] = ' ';
        line[LONG - 1] = '\0';
        store->raw[store->n_raw] = line;
        store->raw_ids[store->n_raw++] = ++store->last_raw_id;
    }
    run(&source);
    assert_int_equal(store->n_entries, N + 5);
    assert_int_equal(store->n_dead, 1);
    assert_int_equal(store->n_raw, 0);
    assert_in_range(store->most_spool_bytes, 1, 4 << 20);
}

/* Too long, or too large to be read: dead letters. */
static void lines_that_are_too_much(void **state) {
    (void)state;
    static const char *const lines[] = {"1 a", "2 cut", "hungry", "3 b"};
    struct source source = seven();
    kind.is_replayable = true;
    source.lines = lines;
    source.n_lines = 4;
    source.cut_at = 1;
    run(&source);
    assert_int_equal(store->n_dead, 2);
    assert_non_null(strstr(store->dead[0], "2 cut: the line is longer than"));
    assert_string_equal(store->dead[1], "hungry: there was no memory to read it");
    assert_int_equal(n_posts("test:1") + n_posts("test:3"), 2);
    assert_int_equal(atomic_load(&metrics.n_dead), 2);
    /* Where only counts may be kept, the line is not. */
    close_store(NULL);
    open_store(NULL);
    source.at = 0;
    mode = STORE_AGGREGATE;
    run(&source);
    mode = STORE_PSEUDONYMOUS;
    assert_int_equal(store->n_dead, 2);
    assert_string_equal(store->dead[1], ": there was no memory to read it");
}

/* What an earlier run left in the spool comes first, whatever the kind. */
static void what_was_left(void **state) {
    (void)state;
    for (int is_replayable = 0; is_replayable < 2; is_replayable++) {
        struct source source = seven();
        kind.is_replayable = is_replayable == 1;
        for (int n = 0; n < 250; n++) {
            char line[32];
            snprintf(line, sizeof line, "old%d %s", n, n % 2 ? "x" : "drop");
            store->raw[store->n_raw] = strdup(line);
            store->raw_ids[store->n_raw++] = ++store->last_raw_id;
        }
        run(&source);
        assert_string_equal(store->entries[0].key, "test:old1");
        assert_string_equal(store->entries[124].key, "test:old249");
        assert_string_equal(store->entries[125].key, "test:1");
        assert_int_equal(store->n_entries, 130);
        assert_int_equal(store->n_raw, 0);
        assert_string_equal(store->cursor, "7");
        close_store(NULL);
        open_store(NULL);
    }
}

/* `vigil dlq retry` puts a raw line back while the source is silent, and the stream runs. */
static void what_is_put_back(void **state) {
    (void)state;
    struct error err = {0};
    for (int is_replayable = 0; is_replayable < 2; is_replayable++) {
        struct source source = seven();
        kind.is_replayable = is_replayable == 1;
        source.pause_at = 3;
        struct intake *i = open_intake(&source);
        for (int n = 0; n < 20000 && atomic_load(&source.n_committed) < 3; n++)
            usleep(500);
        pthread_mutex_lock(&store->lock);
        store->raw[store->n_raw] = strdup("again x");
        store->raw_ids[store->n_raw++] = ++store->last_raw_id;
        pthread_mutex_unlock(&store->lock);
        int is_there = 0;
        for (int n = 0; n < 20000 && !is_there; n++) {
            usleep(500);
            pthread_mutex_lock(&store->lock);
            is_there = n_posts("test:again") && store->n_raw == 0;
            pthread_mutex_unlock(&store->lock);
        }
        assert_true(is_there);
        atomic_store(&source.is_going_on, true);
        assert_int_equal(wait_for_end(i, &err), STATUS_OK);
        intake_close(i);
        assert_int_equal(n_posts("test:5"), 1);
        close_store(NULL);
        open_store(NULL);
    }
}

/* Published before the bookkeeping; again when the queue was away. */
static void a_queue(void **state) {
    (void)state;
    for (int is_replayable = 0; is_replayable < 2; is_replayable++) {
        struct source source = seven();
        kind.is_replayable = is_replayable == 1;
        store->publish_fail_at = 0;
        store->fail_at = 2;
        store->failure = FAIL_ONCE_BEFORE;
        run(&source);
        expect_seven();
        /* All seven items once: what was published is not published again for the store. */
        assert_int_equal(store->n_published, 7);
        assert_int_equal(atomic_load(&metrics.n_queue_errors), 1);
        assert_false(atomic_load(&metrics.queue_is_down));
        close_store(NULL);
        open_store(NULL);
    }
}

static void a_source_that_breaks(void **state) {
    (void)state;
    struct error err = {0};
    struct source source = seven();
    kind.is_replayable = false;
    source.at_end = STATUS_IO;
    struct intake *i = open_intake(&source);
    assert_int_equal(wait_for_end(i, &err), STATUS_IO);
    assert_string_equal(err.message, "the source is broken");
    intake_close(i);
    expect_seven();
}

static void figures(void **state) {
    (void)state;
    struct buffer page = {.max_bytes = 1 << 20};
    struct source source = seven();
    kind.is_replayable = false;
    run(&source);
    atomic_store(&source.state.phase, SOURCE_TOO_MANY_CONNECTIONS);
    atomic_store(&source.state.last_byte_ns, clock_now_ns());
    assert_int_equal(
        stream_metrics_write(&metrics, &source.state, "test", "t", &page, NULL),
        STATUS_OK);
    static const char *const expected[] = {
        "vigil_stream_lines_total 7\n",
        "vigil_stream_posts_kept_total 4\n",
        "vigil_stream_posts_dropped_total{reason=\"no_drug\"} 1\n",
        "vigil_stream_posts_folded_total{kind=\"duplicate\"} 1\n",
        "vigil_stream_dead_letters_total 1\n",
        "vigil_stream_spool_lines 0\n",
        "vigil_stream_source_phase{phase=\"too_many_connections\"} 1\n",
        "vigil_stream_source_phase{phase=\"streaming\"} 0\n",
        "vigil_stream_commit_seconds_bucket{le=\"+Inf\"} ",
        "vigil_stream_last_byte_age_seconds 0.0"};
    for (size_t n = 0; n < sizeof expected / sizeof *expected; n++)
        assert_non_null(strstr(page.data, expected[n]));
    assert_null(strstr(page.data, "last_post_age")); /* there was none */
    buffer_free(&page);
}

int main(void) {
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, -1);
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, open_store, close_store)
    const struct CMUnitTest tests[] = {WITH_STORE(both_kinds),
                                       WITH_STORE(raw_lines_first),
                                       WITH_STORE(a_store_that_dies),
                                       WITH_STORE(a_cursor_does_not_run_ahead),
                                       WITH_STORE(many_lines),
                                       WITH_STORE(a_store_that_is_gone),
                                       WITH_STORE(a_post_that_is_refused),
                                       WITH_STORE(a_store_that_refuses_all),
                                       WITH_STORE(a_stop_takes_what_is_in_hand),
                                       WITH_STORE(long_lines_that_were_left),
                                       WITH_STORE(lines_that_are_too_much),
                                       WITH_STORE(what_was_left),
                                       WITH_STORE(what_is_put_back),
                                       WITH_STORE(a_queue),
                                       WITH_STORE(a_source_that_breaks),
                                       WITH_STORE(figures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
