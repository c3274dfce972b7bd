/* SPDX-License-Identifier: Apache-2.0
 *
 * fixture.h - a small model, a batch, the answers that are right; and what the tests of the
 * engine's failures do again and again.
 */
#ifndef VIGIL_TESTS_CUDA_FIXTURE_H
#define VIGIL_TESTS_CUDA_FIXTURE_H

#include "tests/cuda/subject.h"
#ifdef VIGIL_CUDA_EMULATION
#include "tests/cuda/emulation/emulation.h"
#endif

enum { N_SEQUENCES = 5, OVERFLOWS = 7 /* an id that no good batch has */ };

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

static inline void fixture_make(void) {
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

static inline void fixture_free(void) {
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

static inline enum status try_open(const char *off,
                                   const struct engine_options *options,
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

static inline struct engine *must_open(const char *off, const struct checkpoint *c) {
    struct engine_options options = {.device = "cuda", .max_tokens = 96};
    struct engine *e;
    struct error err;
    if (try_open(off, &options, c, &e, &err) != STATUS_OK)
        check_stop("%s", err.message);
    return e;
}

/* Runs the fixture's batch; where that succeeds, its answers must be right. */
static inline enum status run_fixture(struct engine *e, struct error *err) {
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

static inline void expect_right(struct engine *e, const char *when) {
    struct error err = {0};
    CHECK(run_fixture(e, &err) == STATUS_OK, "%s: %s", when, err.message);
}

static inline void expect_status(enum status want, enum status got,
                                 const struct error *err, const char *when) {
    CHECK(want == got && (got == STATUS_OK || err->message[0]),
          "%s: expected %s, got %s: %s", when, status_name(want), status_name(got),
          err->message);
}

/* Nothing is held on the device; else every check after this one would fail. */
static inline void expect_clean(const char *when) {
#ifdef VIGIL_CUDA_EMULATION
    if (!emulation_is_clean())
        check_stop("%s: something is held still", when);
#else
    (void)when;
#endif
}

#endif
