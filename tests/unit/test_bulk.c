/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bulk.c - what the pipeline writes is what the same texts give one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "base/json.h"
#include "model/answer.h"
#include "server/answer_json.h"
#include "server/bulk.h"
#include "tests/unit/model_files.h"

#define MAX_TEXT_BYTES 8192

/* What a test sets; the rest is the same for all. */
struct setting {
    const char *model;
    int32_t batch_tokens, n_threads;
    double threshold;
    bool wants_entities, truncate;
};

struct rig {
    struct bundle *bundle;
    const struct setting *setting;
    char *dir;
    struct buffer input, expected;
    struct bulk_summary summary; /* expected */
};

static uint32_t state_of_chance;

static uint32_t chance(uint32_t n) {
    state_of_chance = state_of_chance * 1664525u + 1013904223u;
    return (state_of_chance >> 8) % n;
}

static void rig_open(struct rig *rig, const struct setting *setting) {
    struct error err = {0};
    struct engine_options engine = {.n_threads = setting->n_threads,
                                    .max_tokens = setting->batch_tokens};
    memset(rig, 0, sizeof *rig);
    rig->setting = setting;
    rig->dir = scratch_make();
    rig->input.max_bytes = rig->expected.max_bytes = 64 << 20;
    state_of_chance = 1;
    if (bundle_open(setting->model, &engine, &rig->bundle, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void rig_close(struct rig *rig) {
    bundle_close(rig->bundle);
    buffer_free(&rig->input);
    buffer_free(&rig->expected);
    scratch_remove(rig->dir);
}

/* The answer to one text, each of its windows computed alone. */
static void answer_alone(struct rig *rig, const char *text, size_t text_bytes,
                         struct answer *a, struct windows *w) {
    const struct model_config *config = &rig->bundle->config;
    size_t n_labels = (size_t)config->n_labels, n_tags = (size_t)config->n_tag_labels;
    bool wants_tags = rig->setting->wants_entities && n_tags;
    struct error err = {0};
    assert_int_equal(windows_make(rig->bundle->tokenizer, config->max_positions, text,
                                  text_bytes, rig->setting->truncate, w, &err),
                     STATUS_OK);
    float *logits = calloc((size_t)w->n_windows * n_labels, sizeof *logits);
    float *tags = calloc((size_t)w->n_ids * n_tags + 1, sizeof *tags);
    for (int32_t k = 0; k < w->n_windows; k++) {
        int32_t offsets[2] = {0, w->offsets[k + 1] - w->offsets[k]};
        struct batch batch = {w->ids + w->offsets[k], offsets, 1, wants_tags};
        assert_int_equal(engine_run(rig->bundle->engine, &batch,
                                    logits + (size_t)k * n_labels,
                                    tags + (size_t)w->offsets[k] * n_tags, &err),
                         STATUS_OK);
    }
    assert_int_equal(answer_make(config, w, rig->bundle->positive_label, logits,
                                 wants_tags ? tags : NULL, text, text_bytes, a, &err),
                     STATUS_OK);
    answer_apply_threshold(config, rig->bundle->positive_label, rig->setting->threshold,
                           a);
    free(logits);
    free(tags);
}

/* Puts a text into the input, and what has to come of it into what is expected. */
static void add_text(struct rig *rig, int id, const char *text) {
    struct answer a;
    struct windows w;
    struct buffer *out = &rig->expected;
    answer_alone(rig, text, strlen(text), &a, &w);
    buffer_printf(&rig->input, NULL, "{\"id\":\"t%d\",\"text\":", id);
    json_append_string(&rig->input, text, strlen(text), NULL);
    buffer_printf(&rig->input, NULL, "}\n");
    buffer_printf(out, NULL, "{\"id\":\"t%d\",", id);
    answer_json_write(&rig->bundle->config, &a, text, strlen(text),
                      rig->setting->wants_entities, out, NULL);
    if (w.n_windows > 1)
        buffer_printf(out, NULL, ",\"windows\":%d", w.n_windows);
    if (w.is_truncated)
        buffer_printf(out, NULL, ",\"truncated\":true");
    buffer_printf(out, NULL, "}\n");
    rig->summary.n_records++;
    rig->summary.n_positive += a.label == rig->bundle->positive_label;
    rig->summary.n_truncated += w.is_truncated;
    rig->summary.n_tokens += (uint64_t)w.n_ids;
    answer_free(&a);
    windows_free(&w);
}

static void add_error(struct rig *rig, int line) {
    buffer_printf(&rig->input, NULL, "{\"id\":-1}\n");
    buffer_printf(&rig->expected, NULL,
                  "{\"id\":-1,\"line\":%d,\"error\":\"has no field \\\"text\\\"\","
                  "\"error_type\":\"invalid\"}\n",
                  line);
    rig->summary.n_records++;
    if (rig->summary.n_errors++ == 0)
        rig->summary.first_error_number = (uint64_t)line;
}

/* Mostly short, some far over the model's positions, some without a word. */
static void write_text(char text[MAX_TEXT_BYTES]) {
    static const char *const words[] = {"the",      "drug", "gave", "me",    "a",
                                        "rash",     "and",  "so",   "tired", "Zoloft",
                                        "headache", "!",    "100",  "mg",    "never"};
    uint32_t n = chance(10) ? chance(30) : chance(1200);
    size_t at = 0;
    text[at++] = ' ';
    for (uint32_t i = 0; i < n && at + 16 < MAX_TEXT_BYTES; i++)
        at += (size_t)snprintf(text + at, MAX_TEXT_BYTES - at, "%s ",
                               words[chance(sizeof words / sizeof *words)]);
    text[at] = '\0';
}

static struct records_options records_options_of(const char *path, int wake_fd) {
    return (struct records_options){.path = path,
                                    .text_field = "text",
                                    .id_field = "id",
                                    .format = FORMAT_JSONL,
                                    .max_record_bytes = 1 << 20,
                                    .max_text_bytes = 1 << 20,
                                    .wake_fd = wake_fd};
}

static void run_and_compare(struct rig *rig) {
    const char *in_path = scratch_path(rig->dir, "in");
    struct error err = {0};
    struct bulk_summary s;
    struct records *records;
    scratch_write(in_path, rig->input.data, rig->input.n_bytes);
    int out_fd = open(scratch_path(rig->dir, "out"), O_RDWR | O_CREAT, 0600);
    struct records_options input = records_options_of(in_path, -1);
    assert_int_equal(records_open(&input, &records, &err), STATUS_OK);
    struct bulk_options bulk = {.records = records,
                                .bundle = rig->bundle,
                                .out_fd = out_fd,
                                .stop_fd = -1,
                                .batch_tokens = rig->setting->batch_tokens,
                                .threshold = rig->setting->threshold,
                                .wants_entities = rig->setting->wants_entities,
                                .truncate = rig->setting->truncate};
    if (bulk_run(&bulk, &s, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    records_close(records);
    off_t n_bytes = lseek(out_fd, 0, SEEK_END);
    assert_int_equal(n_bytes, rig->expected.n_bytes);
    char *found = calloc(1, (size_t)n_bytes + 1);
    assert_int_equal(pread(out_fd, found, (size_t)n_bytes, 0), n_bytes);
    assert_memory_equal(found, rig->expected.data, (size_t)n_bytes);
    free(found);
    close(out_fd);
    assert_int_equal(s.n_records, rig->summary.n_records);
    assert_int_equal(s.n_errors, rig->summary.n_errors);
    assert_int_equal(s.n_positive, rig->summary.n_positive);
    assert_int_equal(s.n_truncated, rig->summary.n_truncated);
    assert_int_equal(s.n_tokens, rig->summary.n_tokens);
    assert_int_equal(s.first_error_number, rig->summary.first_error_number);
    assert_int_equal(s.input_bytes, rig->input.n_bytes);
    assert_false(s.is_interrupted);
}

/* n records, of which every seventh is refused. */
static void compare(const struct setting *setting, int n) {
    struct rig rig;
    char text[MAX_TEXT_BYTES];
    rig_open(&rig, setting);
    for (int i = 1; i <= n; i++) {
        if (i % 7 == 3) {
            add_error(&rig, i);
            continue;
        }
        write_text(text);
        add_text(&rig, i, text);
    }
    run_and_compare(&rig);
    rig_close(&rig);
}

static void every_problem_type(void **state) {
    (void)state;
    static const struct setting settings[] = {
        {"tests/data/models/binary-f32", 256, 1, NAN, false, false},
        {"tests/data/models/binary-f32", 1024, 2, 0.5, false, true},
        {"tests/data/models/three-classes-f16", 512, 2, 0.4, true, false},
        {"tests/data/models/multi-label-bf16", 300, 1, 0.6, false, false},
        {"tests/data/models/odd-shape-f32", 64, 1, 0.5, false, false},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        compare(&settings[i], 120);
}

/* The default model: int8, and tags that have to come back to their texts. */
static void entities(void **state) {
    (void)state;
    static const struct setting setting = {"weights/ade", 700, 2, NAN, true, false};
    compare(&setting, 60);
}

/* Many times what the pipeline holds at once. */
static void more_than_there_are_chunks(void **state) {
    (void)state;
    static const struct setting setting = {
        "tests/data/models/odd-shape-f32", 64, 2, NAN, false, false};
    compare(&setting, 1500);
}

static void only_errors_and_nothing(void **state) {
    (void)state;
    static const struct setting setting = {
        "tests/data/models/binary-f32", 256, 1, NAN, false, false};
    struct rig rig;
    rig_open(&rig, &setting);
    buffer_append(&rig.input, "\n", 1, NULL);
    buffer_append(&rig.expected, "", 0, NULL);
    run_and_compare(&rig);
    unlink(scratch_path(rig.dir, "out"));
    for (int i = 2; i < 5000; i++)
        add_error(&rig, i);
    run_and_compare(&rig);
    rig_close(&rig);
}

/* bulk_run between two pipes, in a thread of its own. */
struct piped {
    struct bulk_options options;
    struct records_options input;
    struct bulk_summary summary;
    enum status status;
    int in[2], out[2], wake;
    char path[64];
    pthread_t thread;
};

static void *run_piped(void *argument) {
    struct piped *p = argument;
    struct error err = {0};
    p->status = records_open(&p->input, &p->options.records, &err);
    if (p->status == STATUS_OK)
        p->status = bulk_run(&p->options, &p->summary, &err);
    records_close(p->options.records);
    return NULL;
}

static void piped_start(struct piped *p, struct bundle *bundle) {
    memset(p, 0, sizeof *p);
    assert_int_equal(pipe(p->in), 0);
    assert_int_equal(pipe(p->out), 0);
    p->wake = eventfd(0, 0);
    snprintf(p->path, sizeof p->path, "/proc/self/fd/%d", p->in[0]);
    p->input = records_options_of(p->path, p->wake);
    p->options = (struct bulk_options){
        .bundle = bundle, .out_fd = p->out[1], .stop_fd = p->wake, .threshold = NAN};
    assert_int_equal(pthread_create(&p->thread, NULL, run_piped, p), 0);
}

static void piped_end(struct piped *p) {
    pthread_join(p->thread, NULL);
    close(p->in[0]);
    close(p->in[1]);
    if (p->out[0] >= 0)
        close(p->out[0]);
    close(p->out[1]);
    close(p->wake);
}

static void say(const struct piped *p, const char *line) {
    assert_int_equal(write(p->in[1], line, strlen(line)), strlen(line));
}

static size_t hear(const struct piped *p) {
    char heard[512];
    ssize_t n = read(p->out[0], heard, sizeof heard);
    assert_true(n > 0 && heard[n - 1] == '\n');
    size_t n_lines = 0;
    for (ssize_t i = 0; i < n; i++)
        n_lines += heard[i] == '\n';
    return n_lines;
}

/* A record is answered while its writer thinks about the next; woken, the run ends. */
static void answers_at_once_and_wakes(void **state) {
    struct piped p;
    piped_start(&p, *state);
    for (int i = 0; i < 3; i++) {
        say(&p, "\"one\"\n");
        assert_int_equal(hear(&p), 1);
    }
    assert_int_equal(eventfd_write(p.wake, 1), 0);
    piped_end(&p);
    assert_int_equal(p.status, STATUS_OK);
    assert_int_equal(p.summary.n_records, 3);
    assert_true(p.summary.is_interrupted);
}

/* Nobody reads, and the input never ends: it must not be waited for. */
static void ends_when_nobody_reads(void **state) {
    struct piped p;
    piped_start(&p, *state);
    close(p.out[0]);
    p.out[0] = -1;
    say(&p, "\"one\"\n");
    piped_end(&p);
    assert_int_equal(p.status, STATUS_CANCELLED);
    assert_false(p.summary.is_interrupted);
}

static int open_small(void **state) {
    struct engine_options engine = {.n_threads = 1};
    struct bundle *bundle;
    struct error err;
    signal(SIGPIPE, SIG_IGN);
    if (bundle_open("tests/data/models/binary-f32", &engine, &bundle, &err) !=
        STATUS_OK)
        return -1;
    *state = bundle;
    return 0;
}

static int close_small(void **state) {
    bundle_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_problem_type),
        cmocka_unit_test(entities),
        cmocka_unit_test(more_than_there_are_chunks),
        cmocka_unit_test(only_errors_and_nothing),
        cmocka_unit_test_setup_teardown(answers_at_once_and_wakes, open_small,
                                        close_small),
        cmocka_unit_test_setup_teardown(ends_when_nobody_reads, open_small,
                                        close_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
