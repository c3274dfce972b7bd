/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stream.c - every allocation of records, sources and the pipeline fails once, and where
 * nothing waits for memory to come back, once for ever: no crash, no leak, a status that says
 * no memory, and no line lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/intake/intake.h"
#include "client/select/privacy.h"
#include "client/sources/record.h"
#include "client/sources/source.h"
#include "tests/faults/faults.h"
#include "tests/unit/model_files.h"

#define MAX_ALLOCATIONS 5000 /* a scenario that needs more has run away */
#define N_LINES 40

static char *dir, *inbox;
static const struct source_settings settings;
static struct privacy *privacy;
static struct selection *selection;
static struct fold *fold;

static enum status run_records(struct error *err) {
    static const char *const lines[] = {
        "{\"text\":\"a \\u00e9\",\"id\":\"7\",\"author\":\"b\"}",
        "{\"text\":\"a\",\"quote_of\":3,\"original\":{\"text\":\"b\\u0000\"}}",
        "plain text", "\x1D,id,text\n7,\"a, \"\"b\"\"\nc\""};
    struct arena arena = {.max_bytes = 1 << 20};
    struct post post;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof lines / sizeof *lines && status == STATUS_OK; i++)
        status = record_parse(NULL, view_of_string(lines[i]), &arena, &post, err);
    arena_free(&arena);
    return status;
}

static enum status read_all(const struct source_kind *kind, const char *target,
                            struct error *err) {
    const struct source_options options = {
        .name = "test", .target = target, .wake_fd = -1, .settings = &settings};
    struct source *s = NULL;
    struct source_line line;
    char cursor[SOURCE_CURSOR_BYTES];
    size_t n = 0;
    enum status status = kind->open(&options, &s, err);
    while (status == STATUS_OK) {
        status = kind->next(s, 0, &line, err);
        if (status == STATUS_OK)
            status = kind->cursor(s, line.after, cursor, err);
        n += status == STATUS_OK;
    }
    kind->close(s);
    if (status != STATUS_NOT_FOUND)
        return status;
    return n == N_LINES
               ? STATUS_OK
               : error_set(err, STATUS_INTERNAL, "%zu of %d lines", n, N_LINES);
}

static enum status run_file(struct error *err) {
    return read_all(&source_file, scratch_path(dir, "file"), err);
}

static enum status run_directory(struct error *err) {
    return read_all(&source_directory, inbox, err);
}

/* ---- the pipeline ---- */

static _Atomic size_t n_items;

static enum status take_in(void *context, const struct store_take_in *what,
                           struct store_taken *taken, struct error *err) {
    (void)context;
    (void)err;
    n_items += what->n_items;
    taken->n_posts += (int64_t)what->n_items;
    return STATUS_OK;
}

static enum status spooled(void *context, const char *source, int64_t after,
                           struct arena *arena, struct store_raw *out, size_t cap,
                           size_t *n, struct error *err) {
    (void)context;
    (void)source;
    (void)after;
    (void)arena;
    (void)out;
    (void)cap;
    (void)err;
    *n = 0;
    return STATUS_OK;
}

static enum status run_intake(struct error *err) {
    static struct stream_metrics metrics;
    const struct source_options options = {.name = "test",
                                           .target = scratch_path(dir, "file"),
                                           .wake_fd = -1,
                                           .settings = &settings};
    struct source *s = NULL;
    struct intake *i = NULL;
    enum status status = source_file.open(&options, &s, err);
    const struct intake_options intake = {.source = {&source_file, s},
                                          .name = "test",
                                          .store = {NULL, take_in, spooled, NULL},
                                          .selection = selection,
                                          .fold = fold,
                                          .metrics = &metrics,
                                          .n_parsers = 1,
                                          .backoff_ns = 1000};
    memset(&metrics, 0, sizeof metrics);
    n_items = 0;
    if (status == STATUS_OK)
        status = intake_open(&intake, &i, err);
    if (status == STATUS_OK)
        status = intake_wait(i, INT64_MAX, err);
    intake_close(i);
    source_file.close(s);
    return status != STATUS_OK || n_items == N_LINES
               ? status
               : error_set(err, STATUS_INTERNAL, "%zu of %d items", n_items, N_LINES);
}

struct scenario {
    const char *name;
    enum status (*run)(struct error *err);
    bool waits; /* for memory to come back */
};

static const struct scenario SCENARIOS[] = {{"records", run_records, false},
                                            {"file", run_file, false},
                                            {"directory", run_directory, false},
                                            {"intake", run_intake, true}};

static void each_allocation_fails(void **state) {
    const struct scenario *s = *state;
    struct error err = {0};
    assert_int_equal(s->run(&err), STATUS_OK);
    for (int for_ever = 0; for_ever < 2 - s->waits; for_ever++) {
        size_t n_failed = 1;
        for (size_t k = 1; n_failed > 0; k++) {
            assert_true(k < MAX_ALLOCATIONS);
            err = (struct error){0};
            faults_arm(k, for_ever == 1);
            enum status status = s->run(&err);
            n_failed = faults_disarm();
            /* Some can be done without. */
            if (status != STATUS_OK)
                assert_int_equal(status, STATUS_NO_MEMORY);
            if (n_failed == 0)
                assert_int_equal(status, STATUS_OK);
        }
        assert_int_equal(s->run(&err), STATUS_OK);
    }
}

static int set_up(void **state) {
    struct error err;
    (void)state;
    dir = scratch_make();
    inbox = strdup(scratch_path(dir, "inbox"));
    if (!inbox || mkdir(inbox, 0700) != 0)
        return 1;
    char text[4096] = "";
    size_t n = 0;
    for (int i = 0; i < N_LINES; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "{\"text\":\"number %d\"}\n",
                              i);
    scratch_write(scratch_path(dir, "file"), text, n);
    size_t half = (size_t)(strchr(text + n / 2, '\n') - text) + 1;
    scratch_write(scratch_path(inbox, "a"), text, half);
    scratch_write(scratch_path(inbox, "b"), text + half, n - half);
    if (privacy_open(scratch_path(dir, "key"), true, STORE_FULL, &privacy, &err) !=
        STATUS_OK)
        return 1;
    const struct select_options options = {.privacy = privacy, .source = "test"};
    const struct fold_options folds = {.n_remembered = 1000};
    return select_open(&options, &selection, &err) != STATUS_OK ||
           fold_open(&folds, &fold, &err) != STATUS_OK;
}

static int tear_down(void **state) {
    (void)state;
    fold_close(fold);
    select_close(selection);
    privacy_close(privacy);
    free(inbox);
    scratch_remove(dir);
    return 0;
}

int main(void) {
    struct CMUnitTest tests[sizeof SCENARIOS / sizeof *SCENARIOS];
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, -1);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tests[i] = (struct CMUnitTest){.name = SCENARIOS[i].name,
                                       .test_func = each_allocation_fails,
                                       .initial_state = (void *)&SCENARIOS[i]};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
