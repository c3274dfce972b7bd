/* SPDX-License-Identifier: Apache-2.0
 *
 * test_engine.c - the CPU engine against the reference, on every instruction set that this
 * machine has; packing, threads and row counts change no bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "kernels/cpu/isa.h"
#include "kernels/engines.h"
#include "tests/unit/random_model.h"

static const struct model_config shapes[] = {
    {.n_layers = 2,
     .n_heads = 4,
     .dim = 64,
     .hidden_dim = 96,
     .vocab_size = 211,
     .max_positions = 130,
     .n_labels = 2,
     .n_tag_labels = 7},
    {.n_layers = 1,
     .n_heads = 3,
     .dim = 36,
     .hidden_dim = 50,
     .vocab_size = 97,
     .max_positions = 64,
     .n_labels = 1},
    {.n_layers = 3,
     .n_heads = 6,
     .dim = 48,
     .hidden_dim = 200,
     .vocab_size = 50,
     .max_positions = 40,
     .n_labels = 5,
     .n_tag_labels = 3,
     .has_relu_activation = true},
    {.n_layers = 1,
     .n_heads = 2,
     .dim = 128,
     .hidden_dim = 256,
     .vocab_size = 100,
     .max_positions = 512,
     .n_labels = 3},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_OUTPUTS = 16384 };

static const char *const isas[] = {"portable", "avx2", "avx512", "avx512-bf16"};
static const struct {
    const char *name;
    double tolerance; /* of logits, which are of the order of 1 here */
} dtypes[] = {{"fp32", 2e-5}, {"bf16", 5e-2}, {"int8", 1.5e-1}};

static struct engine *open_engine(const struct checkpoint *c, const char *device,
                                  const char *isa, const char *dtype,
                                  int32_t n_threads) {
    struct engine_options options = {
        .device = device, .isa = isa, .dtype = dtype, .n_threads = n_threads};
    struct engine *e = NULL;
    struct error err = {0};
    if (engine_open(&options, c, &e, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return e;
}

static void run(struct engine *e, const struct batch *b, float *logits, float *tags) {
    struct error err = {0};
    if (engine_run(e, b, logits, tags, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static double largest_difference(const float *a, const float *b, size_t n) {
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

/* Mixed lengths, from 1 token up to all positions. */
static int32_t mixed_lengths(int32_t max_positions, int32_t *lengths) {
    const int32_t wanted[] = {1, 17, 2, 33, 5, max_positions, 16, 31, 8};
    int32_t n = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (wanted[i] <= max_positions)
            lengths[n++] = wanted[i];
    return n;
}

static void test_every_kernel_family_agrees_with_the_reference(void **state) {
    (void)state;
    static float want[MAX_OUTPUTS], want_tags[MAX_OUTPUTS], got[MAX_OUTPUTS],
        got_tags[MAX_OUTPUTS];
    int n_checked = 0;
    for (size_t s = 0; s < N_SHAPES; s++) {
        struct checkpoint *c = random_model(shapes[s], 7 + s);
        struct engine *reference = open_engine(c, "reference", NULL, "fp64", 1);
        for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
            for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
                if (!isa_gemm(isas[i], dtypes[d].name))
                    continue;
                struct engine *e = open_engine(c, "cpu", isas[i], dtypes[d].name, 2);
                for (int with_tags = 0; with_tags < 2; with_tags++) {
                    int32_t lengths[16],
                        n = mixed_lengths(shapes[s].max_positions, lengths);
                    struct batch b =
                        random_batch(lengths, n, shapes[s].vocab_size, with_tags);
                    run(reference, &b, want, want_tags);
                    run(e, &b, got, got_tags);
                    double off = largest_difference(
                        want, got, (size_t)n * (size_t)shapes[s].n_labels);
                    if (with_tags)
                        off = fmax(off, largest_difference(
                                            want_tags, got_tags,
                                            (size_t)batch_n_tokens(&b) *
                                                (size_t)shapes[s].n_tag_labels));
                    if (!(off <= dtypes[d].tolerance))
                        fail_msg("shape %zu, %s, %s, tags %d: off by %g", s, isas[i],
                                 dtypes[d].name, with_tags, off);
                    n_checked++;
                    random_batch_free(&b);
                }
                engine_close(e);
            }
        engine_close(reference);
        random_model_free(c);
    }
    assert_true(n_checked >= 24);
}

static void test_packing_and_threads_change_no_bit(void **state) {
    (void)state;
    static float packed[MAX_OUTPUTS], packed_tags[MAX_OUTPUTS], single[MAX_OUTPUTS],
        single_tags[MAX_OUTPUTS];
    struct checkpoint *c = random_model(shapes[0], 3);
    const struct model_config *shape = &shapes[0];
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
            if (!isa_gemm(isas[i], dtypes[d].name))
                continue;
            struct engine *one = open_engine(c, "cpu", isas[i], dtypes[d].name, 1);
            for (int32_t n_threads = 1; n_threads <= 5; n_threads += 2)
                for (int with_tags = 0; with_tags < 2; with_tags++) {
                    struct engine *many =
                        open_engine(c, "cpu", isas[i], dtypes[d].name, n_threads);
                    int32_t lengths[16],
                        n = mixed_lengths(shape->max_positions, lengths);
                    struct batch b =
                        random_batch(lengths, n, shape->vocab_size, with_tags);
                    run(many, &b, packed, packed_tags);
                    for (int32_t k = 0; k < n; k++) {
                        int32_t offsets[2] = {0, lengths[k]};
                        struct batch alone = {b.ids + b.offsets[k], offsets, 1,
                                              with_tags};
                        run(one, &alone, single, single_tags);
                        assert_memory_equal(single, packed + k * shape->n_labels,
                                            (size_t)shape->n_labels * sizeof *single);
                        if (with_tags)
                            assert_memory_equal(
                                single_tags,
                                packed_tags + b.offsets[k] * shape->n_tag_labels,
                                (size_t)(lengths[k] * shape->n_tag_labels) *
                                    sizeof *single);
                    }
                    random_batch_free(&b);
                    engine_close(many);
                }
            engine_close(one);
        }
    random_model_free(c);
}

static void test_bad_batches_are_refused(void **state) {
    (void)state;
    struct checkpoint *c = random_model(shapes[1], 5);
    struct engine *e = open_engine(c, "cpu", NULL, NULL, 1);
    float logits[8];
    int32_t ids[80] = {0}, one[] = {0, 5}, empty[] = {0, 0}, too_long[] = {0, 65};
    struct error err = {0};
    ids[3] = 97;
    assert_int_equal(
        engine_run(e, &(struct batch){ids, one, 1, false}, logits, NULL, &err),
        STATUS_INVALID);
    ids[3] = -1;
    assert_int_equal(
        engine_run(e, &(struct batch){ids, one, 1, false}, logits, NULL, &err),
        STATUS_INVALID);
    ids[3] = 96;
    assert_int_equal(
        engine_run(e, &(struct batch){ids, one, 1, false}, logits, NULL, &err),
        STATUS_OK);
    assert_int_equal(
        engine_run(e, &(struct batch){ids, empty, 1, false}, logits, NULL, &err),
        STATUS_INVALID);
    assert_int_equal(
        engine_run(e, &(struct batch){ids, too_long, 1, false}, logits, NULL, &err),
        STATUS_INVALID);
    engine_close(e);
    random_model_free(c);
}

static void test_a_value_that_is_no_number_is_an_error(void **state) {
    (void)state;
    struct checkpoint *c = random_model(shapes[1], 5);
    ((float *)c->classifier.bias.data)[0] = NAN;
    struct engine *e = open_engine(c, "cpu", NULL, NULL, 1);
    float logits[8];
    int32_t ids[5] = {0}, offsets[] = {0, 5};
    struct error err = {0};
    assert_int_equal(
        engine_run(e, &(struct batch){ids, offsets, 1, false}, logits, NULL, &err),
        STATUS_INTERNAL);
    engine_close(e);
    random_model_free(c);
}

static void test_unknown_names_are_refused(void **state) {
    (void)state;
    struct checkpoint *c = random_model(shapes[1], 5);
    struct engine *e = NULL;
    struct error err = {0};
    const struct engine_options wrong[] = {{.device = "tpu"},
                                           {.dtype = "fp8"},
                                           {.isa = "sse9"},
                                           {.n_threads = 100000},
                                           {.device = "reference", .dtype = "int8"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err.message[0] = '\0';
        assert_int_not_equal(engine_open(&wrong[i], c, &e, &err), STATUS_OK);
        assert_true(err.message[0]);
    }
    random_model_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kernel_family_agrees_with_the_reference),
        cmocka_unit_test(test_packing_and_threads_change_no_bit),
        cmocka_unit_test(test_bad_batches_are_refused),
        cmocka_unit_test(test_a_value_that_is_no_number_is_an_error),
        cmocka_unit_test(test_unknown_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
