/* SPDX-License-Identifier: Apache-2.0
 *
 * test_engine.c - what the CUDA engine says to options, models and batches that it cannot
 * take, the largest that it takes, and an overflow of fp16. On a GPU too.
 */
#include "tests/cuda/fixture.h"

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
    } tensors[] = {{&c->word_embeddings, "word"},
                   {&c->position_embeddings, "position"},
                   {&l->q.weight, "layer 1"},
                   {&l->k.bias, "layer 1"},
                   {&l->v.weight, "layer 1"},
                   {&l->out.weight, "layer 1"},
                   {&l->out.bias, "layer 1"},
                   {&l->up.weight, "layer 1"},
                   {&l->down.weight, "layer 1"},
                   {&l->down.bias, "layer 1"},
                   {&c->pre_classifier.weight, "pre"},
                   {&c->pre_classifier.bias, "pre"},
                   {&c->classifier.weight, "classifier"},
                   {&c->tagger.weight, "token"}};
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
    const struct tensor *tensors[] = {&c->embedding_norm.weight,
                                      &c->embedding_norm.bias,
                                      &c->layers[0].attention_norm.weight,
                                      &c->layers[1].output_norm.bias,
                                      &c->classifier.bias,
                                      &c->tagger.bias};
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
                  *tags =
                      need(malloc((size_t)(batch_n_tokens(&b) * shape.n_tag_labels) *
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
        expect_status(STATUS_OK, engine_submit(e, &fixture.batch, &err), &err,
                      "submit");
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

int main(int argc, char **argv) {
    static const struct check_case cases[] = {
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
    };
    int n_failed = check_main(cases, sizeof cases / sizeof *cases, argc, argv);
    fixture_free();
    return n_failed;
}
