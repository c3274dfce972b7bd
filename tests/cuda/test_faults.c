/* SPDX-License-Identifier: Apache-2.0
 *
 * test_faults.c - what the CUDA engine does when something is wrong: with the model, with a
 * batch, with memory, with the device, with cuBLASLt, with the file of choices.
 *
 * It says what is wrong, gives back all that it took, and either goes on right or says
 * STATUS_DEVICE from then on. Most of it needs devices that fail on order: the emulation's.
 * What concerns the model and the batch runs on a GPU too.
 */
#include <ctype.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/cuda/subject.h"
#include "tests/unit/model_files.h"
#ifdef VIGIL_CUDA_EMULATION
#include "tests/cuda/emulation/emulation.h"
#endif

enum { N_SEQUENCES = 5, OVERFLOWS = 7 /* an id whose row overflows fp16 */ };

static const struct model_config shape = {.n_layers = 2,
                                          .n_heads = 3,
                                          .dim = 36,
                                          .hidden_dim = 50,
                                          .vocab_size = 97,
                                          .max_positions = 64,
                                          .n_labels = 3,
                                          .n_tag_labels = 5};

/* A model, a batch, and what the batch's answers are. */
static struct {
    struct checkpoint *c;
    struct batch batch;
    float *logits, *tags;
    size_t n_logits, n_tags;
} fixture;

static void fixture_make(void) {
    static const int32_t lengths[N_SEQUENCES] = {9, 1, 33, 17, 2};
    struct engine_options options = {.device = "reference"};
    struct engine *e;
    struct error err = {0};
    if (fixture.c)
        return;
    fixture.c = random_model(shape, 3);
    fixture.batch = random_batch(lengths, N_SEQUENCES, OVERFLOWS, true);
    fixture.n_logits = (size_t)(N_SEQUENCES * shape.n_labels);
    fixture.n_tags = (size_t)(batch_n_tokens(&fixture.batch) * shape.n_tag_labels);
    fixture.logits = need(malloc(fixture.n_logits * sizeof(float)));
    fixture.tags = need(malloc(fixture.n_tags * sizeof(float)));
    if (reference_open(&options, fixture.c, &e, &err) != STATUS_OK ||
        engine_run(e, &fixture.batch, fixture.logits, fixture.tags, &err) != STATUS_OK)
        check_stop("%s", err.message);
    engine_close(e);
}

static void fixture_free(void) {
    if (!fixture.c)
        return;
    random_model_free(fixture.c);
    random_batch_free(&fixture.batch);
    free(fixture.logits);
    free(fixture.tags);
}

/* ---- steps ------------------------------------------------------------------------ */

/* Without timing, which the emulation has no clock for. */
#define QUICK "cache,tuning"

static enum status try_open(const char *off, const struct engine_options *options,
                            const struct checkpoint *c, struct engine **e,
                            struct error *err) {
    const struct cuda_plugin *plugin = vigil_cuda_plugin();
    if (plugin->n_devices(err) < 1)
        check_skip("no device: %s", err->message);
    setenv("VIGIL_CUDA_DISABLE", off, 1);
    *e = NULL;
    *err = (struct error){0};
    return plugin->open(0, options, c, e, err);
}

static struct engine *must_open(const char *off, const struct checkpoint *c) {
    struct engine_options options = {.device = "cuda", .max_tokens = 96};
    struct engine *e;
    struct error err;
    if (try_open(off, &options, c, &e, &err) != STATUS_OK)
        check_stop("%s", err.message);
    return e;
}

/* Runs the fixture's batch; where that succeeds, its answers must be right. */
static enum status run_fixture(struct engine *e, struct error *err) {
    float *logits = need(malloc(fixture.n_logits * sizeof *logits)),
          *tags = need(malloc(fixture.n_tags * sizeof *tags));
    enum status status = engine_run(e, &fixture.batch, logits, tags, err);
    double off = 0;
    for (size_t i = 0; status == STATUS_OK && i < fixture.n_logits; i++)
        off = fmax(off, fabs((double)logits[i] - (double)fixture.logits[i]));
    for (size_t i = 0; status == STATUS_OK && i < fixture.n_tags; i++)
        off = fmax(off, fabs((double)tags[i] - (double)fixture.tags[i]));
    CHECK(off <= 1e-2, "answers are off by %g", off);
    free(logits);
    free(tags);
    return status;
}

static void expect_right(struct engine *e, const char *when) {
    struct error err = {0};
    CHECK(run_fixture(e, &err) == STATUS_OK, "%s: %s", when, err.message);
}

static void expect_status(enum status want, enum status got, const struct error *err,
                          const char *when) {
    CHECK(want == got && (got == STATUS_OK || err->message[0]),
          "%s: expected %s, got %s: %s", when, status_name(want), status_name(got),
          err->message);
}

static bool has_digit(const char *text) {
    while (*text && !isdigit((unsigned char)*text))
        text++;
    return *text != '\0';
}

/* Nothing is held on the device; else every check after this one would fail. */
static void expect_clean(const char *when) {
#ifdef VIGIL_CUDA_EMULATION
    if (!emulation_is_clean())
        check_stop("%s: something is held still", when);
#else
    (void)when;
#endif
}

/* ---- the model -------------------------------------------------------------------- */

static void test_options(int argument) {
    (void)argument;
    struct error err;
    struct engine *e;
    const struct engine_options wrong[] = {{.isa = "avx2"},
                                           {.isa = "mma8"},
                                           {.dtype = "int8"},
                                           {.dtype = "fp32"},
                                           {.max_tokens = 1 << 30}};
    fixture_make();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        enum status status = try_open(QUICK, &wrong[i], fixture.c, &e, &err);
        expect_status(i < 4 ? STATUS_UNSUPPORTED : STATUS_LIMIT, status, &err,
                      "a wrong option");
        expect_clean("a wrong option");
    }
    struct model_config wide = shape;
    wide.n_heads = 1;
    wide.dim = 200; /* a head of 200 */
    struct checkpoint *c = random_model(wide, 4);
    struct engine_options options = {.device = "cuda"};
    expect_status(STATUS_UNSUPPORTED, try_open(QUICK, &options, c, &e, &err), &err,
                  "a head of 200");
    expect_clean("a head of 200");
    random_model_free(c);
}

/* Each kind of tensor with one value that fp16 does not have. */
static void test_weights_out_of_range(int argument) {
    (void)argument;
    static const float wrong[] = {65536.0f, -1e10f, INFINITY, NAN};
    struct engine_options options = {.device = "cuda"};
    struct checkpoint *c = random_model(shape, 5);
    struct layer_tensors *l = &c->layers[1];
    const struct {
        const struct tensor *t;
        const char *names; /* in the message */
    } tensors[] = {
        {&c->word_embeddings, "word"},     {&c->position_embeddings, "position"},
        {&l->q.weight, "layer 1"},         {&l->k.bias, "layer 1"},
        {&l->v.weight, "layer 1"},         {&l->out.weight, "layer 1"},
        {&l->out.bias, "layer 1"},         {&l->up.weight, "layer 1"},
        {&l->down.weight, "layer 1"},      {&l->down.bias, "layer 1"},
        {&c->pre_classifier.weight, "pre"}, {&c->pre_classifier.bias, "pre"},
        {&c->classifier.weight, "classifier"}, {&c->tagger.weight, "token"}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        float *values = (float *)(uintptr_t)tensors[i].t->data;
        size_t last = (size_t)tensors[i].t->n_rows * (size_t)tensors[i].t->n_cols - 1;
        float kept = values[last];
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            struct engine *e;
            struct error err;
            values[last] = wrong[k];
            enum status status = try_open(QUICK, &options, c, &e, &err);
            expect_status(STATUS_INVALID, status, &err, tensors[i].names);
            CHECK(strstr(err.message, tensors[i].names), "\"%s\" does not name %s",
                  err.message, tensors[i].names);
            engine_close(e);
            expect_clean("a weight that is out of range");
        }
        values[last] = kept;
    }
    random_model_free(c);
}

/* What stays fp32: refused, or every batch is an error. */
static void test_weights_that_are_no_numbers(int argument) {
    (void)argument;
    struct engine_options options = {.device = "cuda", .max_tokens = 96};
    struct checkpoint *c = random_model(shape, 5);
    const struct tensor *tensors[] = {
        &c->embedding_norm.weight,           &c->embedding_norm.bias,
        &c->layers[0].attention_norm.weight, &c->layers[1].output_norm.bias,
        &c->classifier.bias,                 &c->tagger.bias};
    fixture_make();
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        float *values = (float *)(uintptr_t)tensors[i]->data, kept = values[0];
        struct engine *e;
        struct error err;
        values[0] = NAN;
        enum status status = try_open(QUICK, &options, c, &e, &err);
        if (status == STATUS_OK) {
            float logits[N_SEQUENCES * 3], tags[64 * 5];
            expect_status(STATUS_INTERNAL,
                          engine_run(e, &fixture.batch, logits, tags, &err), &err,
                          "a NaN among the weights");
        } else {
            expect_status(STATUS_INVALID, status, &err, "a NaN among the weights");
        }
        engine_close(e);
        values[0] = kept;
    }
    random_model_free(c);
}

/* ---- the batch -------------------------------------------------------------------- */

static void test_batches_refused(int argument) {
    (void)argument;
    fixture_make();
    struct engine *e = must_open(QUICK, fixture.c);
    int32_t max_tokens = e->info.max_tokens, max_sequences = e->info.max_sequences;
    int32_t n_ids = max_tokens + max_sequences + 1;
    int32_t *ids = need(calloc((size_t)n_ids, sizeof *ids)),
            *offsets = need(calloc((size_t)n_ids + 1, sizeof *offsets));
    float *logits = need(malloc((size_t)n_ids * 3 * sizeof *logits));
    struct error err = {0};
    const struct {
        int32_t first, step, n; /* offsets, and how many sequences */
        int32_t id;
        enum status status;
    } wrong[] = {{0, 5, 1, 97, STATUS_INVALID},
                 {0, 5, 1, -1, STATUS_INVALID},
                 {0, 0, 1, 1, STATUS_INVALID},
                 {0, 65, 1, 1, STATUS_INVALID},
                 {0, 5, 0, 1, STATUS_INVALID},
                 {3, 5, 1, 1, STATUS_INVALID},
                 {0, -1, 2, 1, STATUS_INVALID},
                 {0, 1, max_sequences + 1, 1, STATUS_LIMIT},
                 {0, 60, max_tokens / 60 + 1, 1, STATUS_LIMIT}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char when[32];
        snprintf(when, sizeof when, "wrong batch %zu", i);
        for (int32_t b = 0; b <= wrong[i].n; b++)
            offsets[b] = wrong[i].first + b * wrong[i].step;
        ids[2] = wrong[i].id;
        struct batch batch = {ids, offsets, wrong[i].n, false};
        expect_status(wrong[i].status, engine_run(e, &batch, logits, NULL, &err), &err,
                      when);
        expect_right(e, when);
    }
    free(ids);
    free(offsets);
    free(logits);
    engine_close(e);
    expect_clean("refused batches");
}

/* The largest batches that are taken: of tokens, of sequences. */
static void test_largest_batches(int argument) {
    static const int32_t max_tokens[] = {64, 96, 200, 300, 513, 1000};
    fixture_make();
    for (size_t i = 0; i < sizeof max_tokens / sizeof *max_tokens; i++) {
        struct engine_options options = {.device = "cuda", .max_tokens = max_tokens[i]};
        struct engine *e;
        struct error err;
        if (try_open(argument ? QUICK ",graphs" : QUICK, &options, fixture.c, &e,
                     &err) != STATUS_OK)
            check_stop("%s", err.message);
        for (int many = 0; many < 2; many++) {
            int32_t most = many ? e->info.max_sequences : e->info.max_tokens;
            int32_t lengths[1000], n = 0, n_left = e->info.max_tokens;
            while (n_left > 0 && n < most) {
                int32_t length = !many ? 64 : n_left - (most - n) < 3 ? 1 : 4;
                lengths[n] = length < n_left ? length : n_left;
                n_left -= lengths[n++];
            }
            struct batch b = random_batch(lengths, n, OVERFLOWS, true);
            float *logits = need(malloc((size_t)(n * shape.n_labels) * sizeof(float))),
                  *tags = need(malloc((size_t)(batch_n_tokens(&b) * shape.n_tag_labels) *
                                      sizeof(float)));
            expect_status(STATUS_OK, engine_run(e, &b, logits, tags, &err), &err,
                          many ? "the most sequences" : "the most tokens");
            free(logits);
            free(tags);
            random_batch_free(&b);
            expect_right(e, "after a large batch");
        }
        engine_close(e);
        expect_clean("large batches");
    }
}

static void test_order_of_calls(int argument) {
    (void)argument;
    fixture_make();
    struct engine *e = must_open(QUICK, fixture.c);
    float logits[N_SEQUENCES * 3], tags[64 * 5];
    struct error err = {0};
    CHECK(engine_wait(e, logits, tags, &err) != STATUS_OK, "waited for no batch");
    expect_right(e, "after a wait for no batch");
    for (int i = 0; i < ENGINE_MAX_IN_FLIGHT; i++)
        expect_status(STATUS_OK, engine_submit(e, &fixture.batch, &err), &err, "submit");
    expect_status(STATUS_BUSY, engine_submit(e, &fixture.batch, &err), &err,
                  "one batch too many");
    for (int i = 0; i < ENGINE_MAX_IN_FLIGHT; i++)
        expect_status(STATUS_OK, engine_wait(e, logits, tags, &err), &err, "wait");
    expect_right(e, "after one batch too many");
    engine_close(e);
    expect_clean("calls out of order");
}

/* An id whose row of up is over 65504: its sequence is no number, and the batches after it
 * are as they were. */
static struct checkpoint *overflowing_model(bool has_relu) {
    struct model_config config = shape;
    config.has_relu_activation = has_relu;
    struct checkpoint *c = random_model(config, 3);
    float *row = (float *)(uintptr_t)c->word_embeddings.data + OVERFLOWS * shape.dim,
          *up = (float *)(uintptr_t)c->layers[1].up.weight.data,
          *down = (float *)(uintptr_t)c->layers[1].down.weight.data;
    memset(row, 0, (size_t)shape.dim * sizeof *row);
    row[0] = 500;
    for (int32_t i = 0; i < shape.dim; i++)
        down[i * shape.hidden_dim] = 1e-4f;
    up[0] = 20000;
    return c;
}

static void test_overflow(int argument) {
    static const char *const off[] = {QUICK ",cublas", QUICK ",own,graphs"};
    int32_t lengths[] = {40, 3}, short_lengths[] = {5, 2};
    fixture_make();
    struct checkpoint *c = overflowing_model(argument & 2);
    struct engine *e = must_open(off[argument & 1], c);
    random_state = 9;
    struct batch good = random_batch(short_lengths, 2, OVERFLOWS, false),
                 bad = random_batch(lengths, 2, OVERFLOWS, false);
    float before[2 * 3], after[2 * 3], tags[64 * 5];
    struct error err = {0};
    expect_status(STATUS_OK, engine_run(e, &good, before, tags, &err), &err, "before");
    for (int with_tags = 0; with_tags < 2; with_tags++) {
        bad.wants_tags = with_tags;
        ((int32_t *)(uintptr_t)bad.ids)[0] = OVERFLOWS;
        expect_status(STATUS_INTERNAL, engine_run(e, &bad, after, tags, &err), &err,
                      "an overflow");
        expect_status(STATUS_OK, engine_run(e, &good, after, tags, &err), &err,
                      "after an overflow");
        CHECK(memcmp(before, after, sizeof before) == 0,
              "an overflow changes the next batch's answers");
    }
    random_batch_free(&good);
    random_batch_free(&bad);
    engine_close(e);
    random_model_free(c);
}

#ifdef VIGIL_CUDA_EMULATION

/* ---- memory ----------------------------------------------------------------------- */

static void test_open_and_close(int argument) {
    (void)argument;
    fixture_make();
    for (int i = 0; i < 20; i++) {
        struct engine *e = must_open(i % 2 ? QUICK : QUICK ",graphs", fixture.c);
        expect_right(e, "opened again");
        engine_close(e);
        expect_clean("opened and closed");
    }
}

/* The k-th allocation fails, for every k: "malloc" or "hostalloc". */
static void test_allocations(int argument) {
    const char *call = argument ? "hostalloc" : "malloc";
    struct engine_options options = {.device = "cuda", .max_tokens = 96};
    fixture_make();
    for (int k = 1;; k++) {
        char fault[64];
        struct engine *e;
        struct error err;
        snprintf(fault, sizeof fault, "%s:%d:2", call, k);
        emulation_reset();
        emulation_fault(NULL);
        emulation_fault(fault);
        enum status status = try_open(QUICK, &options, fixture.c, &e, &err);
        emulation_fault(NULL);
        if (status == STATUS_OK) {
            expect_right(e, "no allocation failed");
            engine_close(e);
            CHECK(k > 2, "only %d allocations by %s", k - 1, call);
            break;
        }
        expect_status(STATUS_NO_MEMORY, status, &err, fault);
        CHECK(has_digit(strstr(err.message, "cuda:0") ? err.message + 6 : err.message),
              "\"%s\" has no numbers", err.message);
        expect_clean(fault);
    }
    expect_clean("all allocations succeeded");
}

/* ---- the device ------------------------------------------------------------------- */

/* The k-th call of a kind fails while the engine opens. It refuses, or does without. */
static void fail_opening(const char *call, const char *code, const char *off, int step) {
    struct engine_options options = {.device = "cuda", .max_tokens = 64};
    int n_opened = 0, n_refused = 0;
    for (int k = 1; n_opened < 12; k += step) {
        char fault[64];
        struct engine *e;
        struct error err;
        snprintf(fault, sizeof fault, "%s:%d:%s", call, k, code);
        emulation_reset();
        emulation_fault(fault);
        enum status status = try_open(off, &options, fixture.c, &e, &err);
        emulation_fault(NULL);
        CHECK(status == STATUS_OK || err.message[0], "%s: no message", fault);
        if (status == STATUS_OK) {
            expect_right(e, fault);
            n_opened++;
        } else {
            CHECK(status == STATUS_DEVICE || status == STATUS_NO_MEMORY ||
                      status == STATUS_UNSUPPORTED,
                  "%s: %s: %s", fault, status_name(status), err.message);
            n_opened = 0;
            n_refused++;
        }
        engine_close(e);
        expect_clean(fault);
    }
    emulation_reset();
    CHECK(n_refused > 0 || strcmp(call, "blas") == 0 || strcmp(call, "matmul") == 0,
          "%s never failed", call);
}

static void test_calls_while_opening(int argument) {
    fixture_make();
    switch (argument) {
    case 0:
        fail_opening("call", "999", QUICK ",graphs", 1);
        break;
    case 1:
        fail_opening("call", "719:sticky", QUICK, 41);
        break;
    case 2:
        fail_opening("blas", "14", QUICK ",graphs", 1);
        break;
    case 3:
        fail_opening("matmul", "13", "cache,graphs", 211);
        break;
    default:
        fail_opening("memcpy", "719:sticky", QUICK, 1);
    }
}

/* After a failure: nothing but STATUS_DEVICE, and a clean end. */
static void expect_dead(struct engine *e, const char *when) {
    struct error err = {0};
    float logits[N_SEQUENCES * 3], tags[64 * 5];
    emulation_fault(NULL);
    expect_status(STATUS_DEVICE, engine_submit(e, &fixture.batch, &err), &err, when);
    expect_status(STATUS_DEVICE, engine_wait(e, logits, tags, &err), &err, when);
    expect_status(STATUS_DEVICE, run_fixture(e, &err), &err, when);
}

/* The k-th call of a kind fails in a batch, with one batch in flight or two. */
static void fail_running(const char *call, const char *code, const char *off,
                         bool is_lazy) {
    int n_failed = 0;
    emulation_set_lazy(is_lazy);
    for (int k = 1;; k++) {
        char fault[64];
        float logits[N_SEQUENCES * 3], tags[64 * 5];
        struct error err = {0};
        emulation_reset();
        struct engine *e = must_open(off, fixture.c);
        snprintf(fault, sizeof fault, "%s:%d:%s", call, k, code);
        emulation_fault(fault);
        enum status status = engine_submit(e, &fixture.batch, &err);
        if (status == STATUS_OK)
            status = engine_submit(e, &fixture.batch, &err);
        if (status == STATUS_OK)
            status = engine_wait(e, logits, tags, &err);
        if (status == STATUS_OK)
            status = engine_wait(e, logits, tags, &err);
        if (status != STATUS_OK) {
            expect_status(STATUS_DEVICE, status, &err, fault);
            expect_dead(e, fault);
            n_failed++;
        }
        emulation_fault(NULL);
        engine_close(e);
        emulation_reset();
        expect_clean(fault);
        if (status == STATUS_OK)
            break;
    }
    emulation_set_lazy(0);
    CHECK(n_failed > 1, "%s failed only %d times", call, n_failed);
}

static void test_calls_while_running(int argument) {
    fixture_make();
    bool is_lazy = argument & 1;
    switch (argument >> 1) {
    case 0:
        fail_running("launch", "719:sticky", QUICK, is_lazy);
        break;
    case 1:
        fail_running("launch", "700:sticky", QUICK ",graphs", is_lazy);
        break;
    case 2:
        fail_running("call", "999", QUICK, is_lazy);
        break;
    default:
        fail_running("call", "999", QUICK ",graphs", is_lazy);
    }
}

static void test_hang(int argument) {
    enum { DEADLINE_MS = 150 };
    struct error err = {0};
    fixture_make();
    setenv("VIGIL_CUDA_DEADLINE_MS", "150", 1);
    struct engine *e = must_open(argument ? QUICK : QUICK ",graphs", fixture.c);
    unsetenv("VIGIL_CUDA_DEADLINE_MS");
    expect_right(e, "before the device hangs");
    emulation_fault("hang:1");
    int64_t start = clock_now_ns();
    expect_status(STATUS_DEVICE, run_fixture(e, &err), &err, "a device that hangs");
    int64_t ms = (clock_now_ns() - start) / 1000000;
    CHECK(ms >= DEADLINE_MS && ms < 20 * DEADLINE_MS, "it took %lld ms", (long long)ms);
    expect_dead(e, "a device that hung");
    engine_close(e);
    emulation_reset();
    expect_clean("a device that hung");
}

/* cuBLASLt's products are no numbers for a while. */
static void test_nan(int argument) {
    struct error err = {0};
    fixture_make();
    struct engine *e =
        must_open(argument ? QUICK ",own" : QUICK ",own,graphs", fixture.c);
    emulation_fault("nan:1");
    expect_status(STATUS_INTERNAL, run_fixture(e, &err), &err, "products of NaN");
    emulation_fault(NULL);
    expect_right(e, "after products of NaN");
    engine_close(e);
}

/* Every capability has its path, and the right answers. */
static void test_capabilities(int argument) {
    (void)argument;
    static const int capabilities[] = {70, 75, 80, 86, 89, 90};
    struct engine_options options = {.isa = "mma", .max_tokens = 96};
    struct error err;
    fixture_make();
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++) {
        struct engine *e;
        bool has_mma = capabilities[i] >= 80;
        emulation_set_capability(capabilities[i]);
        enum status status = try_open(QUICK, &options, fixture.c, &e, &err);
        expect_status(has_mma ? STATUS_OK : STATUS_UNSUPPORTED, status, &err, "mma");
        engine_close(e);
        for (int graphs = 0; graphs < 2; graphs++) {
            e = must_open(graphs ? QUICK : QUICK ",graphs", fixture.c);
            CHECK(strcmp(e->info.isa, has_mma ? "mma" : "wmma") == 0, "sm_%d has %s",
                  capabilities[i], e->info.isa);
            expect_right(e, "a capability");
            engine_close(e);
        }
        expect_clean("a capability");
    }
    emulation_set_capability(80);
}

/* Streams that run only when they are waited for, threads in other orders: the same. */
static void test_lazy_streams(int argument) {
    fixture_make();
    struct engine *e = must_open(argument ? QUICK : QUICK ",graphs", fixture.c);
    float want[N_SEQUENCES * 3], got[N_SEQUENCES * 3], tags[64 * 5];
    struct error err = {0};
    expect_status(STATUS_OK, engine_run(e, &fixture.batch, want, tags, &err), &err, "");
    emulation_set_lazy(1);
    for (int order = 0; order < 3; order++) {
        emulation_set_order((enum emulation_order)order, 5);
        for (int i = 0; i < 3; i++) {
            expect_status(STATUS_OK, engine_submit(e, &fixture.batch, &err), &err,
                          "submit");
            expect_status(STATUS_OK, engine_submit(e, &fixture.batch, &err), &err,
                          "submit");
            for (int k = 0; k < 2; k++) {
                memset(got, 0, sizeof got);
                expect_status(STATUS_OK, engine_wait(e, got, tags, &err), &err, "wait");
                CHECK(memcmp(want, got, sizeof want) == 0, "other answers");
            }
        }
    }
    emulation_set_order(EMULATION_FORWARD, 0);
    emulation_set_lazy(0);
    engine_close(e);
    expect_clean("lazy streams");
}

/* ---- devices of other kinds: in a child, which sets the environment first ------------- */

static void in_child(const char *variable, const char *value, void (*run)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setenv(variable, value, 1);
        if (setjmp(check_end) == 0)
            run();
        fflush(stdout);
        _exit(check_n_failures ? 1 : 0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0, "with %s=%s: the child ended with %d", variable, value, status);
}

static void run_without_algorithms(void) {
    fixture_make();
    struct engine *e = must_open(QUICK, fixture.c);
    expect_right(e, "without proposals of cuBLASLt");
    engine_close(e);
    e = must_open(QUICK ",own", fixture.c);
    expect_right(e, "without proposals, ours not wanted");
    engine_close(e);
    expect_clean("without proposals");
}

static void run_with_little_memory(void) {
    struct engine_options options = {.device = "cuda"};
    struct engine *e;
    struct error err;
    fixture_make();
    expect_status(STATUS_NO_MEMORY, try_open(QUICK, &options, fixture.c, &e, &err), &err,
                  "a small device");
    CHECK(strstr(err.message, " MB free of ") && has_digit(err.message + 6), "\"%s\"",
          err.message);
    expect_clean("a small device");
}

static void run_without_devices(void) {
    struct error err = {0};
    CHECK(vigil_cuda_plugin()->n_devices(&err) == 0 && err.message[0], "a device?");
}

static void run_on_two_devices(void) {
    const struct cuda_plugin *plugin = vigil_cuda_plugin();
    struct engine_options options = {.device = "cuda", .max_tokens = 96};
    struct engine *engines[2] = {NULL};
    struct cuda_device device;
    struct error err = {0};
    fixture_make();
    setenv("VIGIL_CUDA_DISABLE", QUICK, 1);
    CHECK(plugin->n_devices(&err) == 2, "not two devices");
    CHECK(plugin->describe(2, &device, &err) != STATUS_OK, "a third device");
    CHECK(plugin->open(2, &options, fixture.c, &engines[0], &err) != STATUS_OK,
          "opened a third device");
    expect_clean("a third device");
    for (int i = 0; i < 2; i++)
        if (plugin->open(i, &options, fixture.c, &engines[i], &err) != STATUS_OK)
            check_stop("%s", err.message);
    CHECK(strcmp(engines[1]->info.device, "cuda:1") == 0, "%s", engines[1]->info.device);
    for (int i = 0; i < 4; i++)
        expect_right(engines[i % 2], "two devices");
    emulation_fault("launch@1:1:719:sticky");
    expect_status(STATUS_DEVICE, run_fixture(engines[1], &err), &err, "the broken one");
    expect_right(engines[0], "beside a broken device");
    engine_close(engines[1]);
    expect_right(engines[0], "the other one is closed");
    engine_close(engines[0]);
    emulation_reset();
    expect_clean("two devices");
}

static void test_no_algorithms(int argument) {
    (void)argument;
    in_child("VIGIL_EMULATION_NO_ALGORITHMS", "1", run_without_algorithms);
}

static void test_little_memory(int argument) {
    (void)argument;
    in_child("VIGIL_EMULATION_MEMORY", "4000000", run_with_little_memory);
}

static void test_no_devices(int argument) {
    (void)argument;
    in_child("VIGIL_EMULATION_DEVICES", "0", run_without_devices);
}

static void test_two_devices(int argument) {
    (void)argument;
    in_child("VIGIL_EMULATION_DEVICES", "2", run_on_two_devices);
}

/* ---- the file of choices ----------------------------------------------------------- */

/* Launches that opening took. */
static uint64_t open_counted(const struct checkpoint *c) {
    uint64_t before = emulation_n_launches() + emulation_n_matmuls();
    struct engine *e = must_open("graphs", c);
    uint64_t n = emulation_n_launches() + emulation_n_matmuls() - before;
    expect_right(e, "with a file of choices");
    engine_close(e);
    return n;
}

static void find_file(const char *directory, char path[600]) {
    DIR *d = opendir(directory);
    path[0] = '\0';
    for (const struct dirent *entry; d && (entry = readdir(d));)
        if (entry->d_name[0] != '.')
            snprintf(path, 600, "%s/%s", directory, entry->d_name);
    if (d)
        closedir(d);
}

static void test_file_of_choices(int argument) {
    (void)argument;
    char *directory = scratch_make(), path[600], blocked[600];
    static char kept[1 << 20], text[1 << 20];
    fixture_make();
    setenv("VIGIL_CACHE_DIR", directory, 1);
    uint64_t n_timed = open_counted(fixture.c), n_read = open_counted(fixture.c);
    CHECK(n_read < n_timed / 4, "%llu launches with the file, %llu without",
          (unsigned long long)n_read, (unsigned long long)n_timed);
    find_file(directory, path);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(kept, 1, sizeof kept, f) : 0;
    if (f)
        fclose(f);
    CHECK(n > 0, "no file in %s", directory);
    for (size_t cut = 0; cut < 6 && n > 0; cut++) {
        memcpy(text, kept, n);
        if (cut % 2) /* a digit or letter that is not so */
            for (size_t i = n * cut / 6; i < n; i += 40)
                text[i] = text[i] == '\n' ? '\n' : '9';
        scratch_write(path, text, cut % 2 ? n : n * cut / 6);
        open_counted(fixture.c);
    }
    snprintf(blocked, sizeof blocked, "%s/not-a-directory", path);
    setenv("VIGIL_CACHE_DIR", blocked, 1);
    open_counted(fixture.c);
    unsetenv("VIGIL_CACHE_DIR");
    scratch_remove(directory);
    expect_clean("files of choices");
}

#endif

int main(int argc, char **argv) {
    static const struct check_case cases[] = {
#ifdef VIGIL_CUDA_EMULATION
        /* These first: their children must find the emulation untouched. */
        {"cuBLASLt proposes nothing", test_no_algorithms, 0},
        {"little memory", test_little_memory, 0},
        {"no devices", test_no_devices, 0},
        {"two devices", test_two_devices, 0},
#endif
        {"options", test_options, 0},
        {"weights out of range", test_weights_out_of_range, 0},
        {"weights that are no numbers", test_weights_that_are_no_numbers, 0},
        {"batches that are refused", test_batches_refused, 0},
        {"the largest batches", test_largest_batches, 0},
        {"the largest batches, no graphs", test_largest_batches, 1},
        {"the order of calls", test_order_of_calls, 0},
        {"overflow, our products", test_overflow, 0},
        {"overflow, cuBLASLt's", test_overflow, 1},
        {"overflow under ReLU, our products", test_overflow, 2},
        {"overflow under ReLU, cuBLASLt's", test_overflow, 3},
#ifdef VIGIL_CUDA_EMULATION
        {"open and close", test_open_and_close, 0},
        {"device memory runs out", test_allocations, 0},
        {"pinned memory runs out", test_allocations, 1},
        {"opening: any call fails", test_calls_while_opening, 0},
        {"opening: the device fails", test_calls_while_opening, 1},
        {"opening: cuBLASLt fails", test_calls_while_opening, 2},
        {"opening: a product fails while it is timed", test_calls_while_opening, 3},
        {"opening: a copy fails", test_calls_while_opening, 4},
        {"running: a launch of a graph fails", test_calls_while_running, 0},
        {"running: the same, lazily", test_calls_while_running, 1},
        {"running: a launch fails", test_calls_while_running, 2},
        {"running: the same, lazily, no graphs", test_calls_while_running, 3},
        {"running: any call fails", test_calls_while_running, 4},
        {"running: any call, lazily", test_calls_while_running, 5},
        {"running: any call, no graphs", test_calls_while_running, 6},
        {"running: any call, lazily, no graphs", test_calls_while_running, 7},
        {"the device hangs", test_hang, 0},
        {"the device hangs in a graph", test_hang, 1},
        {"products of NaN", test_nan, 0},
        {"products of NaN in a graph", test_nan, 1},
        {"every capability", test_capabilities, 0},
        {"lazy streams", test_lazy_streams, 0},
        {"lazy streams of graphs", test_lazy_streams, 1},
        {"the file of choices", test_file_of_choices, 0},
#endif
    };
    int n_failed = check_main(cases, sizeof cases / sizeof *cases, argc, argv);
    fixture_free();
    return n_failed;
}
