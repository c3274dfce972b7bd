/* SPDX-License-Identifier: Apache-2.0 */
#include "server/canary.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/engines.h"

static const char TEXT[] =
    "I took ibuprofen for two days and got a terrible rash and stomach pain";

/* How far a device's fp16 may be from the CPU's fp32. The default model differs by some
 * thousandths; a wrong product, bias or offset by more than this. */
#define LOAD_TOLERANCE 0.05
/* Above this size fp16 itself is coarser, in proportion. */
#define LOAD_SCALE 8.0
/* Where the best two are nearer than this, either may be the best. */
#define LABEL_MARGIN 0.02
/* The same batch gives the same bits; this is what no text's label can hang on. */
#define RUN_TOLERANCE 1e-3

/* ---- comparing ---- */

struct difference {
    double worst;
    size_t at;
};

static struct difference compare(const float *expected, const float *found, size_t n) {
    struct difference d = {0};
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)found[i] - (double)expected[i]);
        if (!(off <= d.worst)) /* also when it is no number */
            d = (struct difference){off, i};
        if (!isfinite(off))
            break;
    }
    return d;
}

static int32_t best_of(const float *values, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* Whether each row of n values has its largest at the same place, or as good as. */
static bool has_same_labels(const float *expected, const float *found, size_t n_rows,
                            int32_t n) {
    for (size_t r = 0; r < n_rows; r++, expected += n, found += n) {
        int32_t was = best_of(expected, n), is = best_of(found, n);
        if (was != is && expected[was] - expected[is] >= LABEL_MARGIN)
            return false;
    }
    return true;
}

static enum status compare_with_cpu(const struct canary *y, const struct engine *e,
                                    const float *cpu, const float *device,
                                    struct error *err) {
    struct difference d = compare(cpu, device, y->n_values);
    double scale = fabs((double)cpu[d.at]) / LOAD_SCALE;
    size_t n_labels = (size_t)y->n_labels;
    bool is_near = d.worst <= LOAD_TOLERANCE * (scale > 1 ? scale : 1);
    if (is_near && has_same_labels(cpu, device, 1, y->n_labels) &&
        (!y->n_tag_labels || has_same_labels(cpu + n_labels, device + n_labels,
                                             (size_t)y->n_tokens, y->n_tag_labels)))
        return STATUS_OK;
    return error_set(err, STATUS_INTERNAL,
                     "%s computes this model wrongly: %.6g where the CPU has %.6g; use "
                     "--device cpu, and see `vigil doctor`",
                     e->info.device, (double)device[d.at], (double)cpu[d.at]);
}

enum status canary_check(const struct canary *canary, int32_t index,
                         const float *values, struct error *err) {
    const float *answer = canary->answers + (size_t)index * canary->n_values;
    struct difference d = compare(answer, values, canary->n_values);
    if (d.worst <= RUN_TOLERANCE)
        return STATUS_OK;
    return error_set(
        err, STATUS_DEVICE,
        "computes wrongly: the canary's value %zu is %.6g and was %.6g when "
        "the model was loaded",
        d.at, (double)values[d.at], (double)answer[d.at]);
}

/* ---- asking ---- */

static enum status ask(const struct canary *y, struct engine *e, float *values,
                       struct error *err) {
    int32_t offsets[2] = {0, y->n_tokens};
    const struct batch batch = {.ids = y->ids,
                                .offsets = offsets,
                                .n_sequences = 1,
                                .wants_tags = y->n_tag_labels > 0};
    return engine_run(e, &batch, values, y->n_tag_labels ? values + y->n_labels : NULL,
                      err);
}

/* What the CPU says, by an engine that lives no longer. One thread does: it is one text. */
static enum status ask_cpu(const struct canary *y, const struct checkpoint *c,
                           float *values, struct error *err) {
    const struct engine_options options = {.device = "cpu",
                                           .dtype = "fp32",
                                           .n_threads = 1,
                                           .max_tokens = CANARY_MAX_TOKENS};
    struct engine *cpu = NULL;
    enum status status = engine_open(&options, c, &cpu, err);
    if (status == STATUS_OK)
        status = ask(y, cpu, values, err);
    engine_close(cpu);
    return status;
}

static enum status ask_all(struct canary *y, const struct checkpoint *c,
                           struct engine *const *engines, int32_t n_engines,
                           struct error *err) {
    enum status status = STATUS_OK;
    float *cpu = NULL;
    if (engines_is_cuda(engines[0])) {
        cpu = calloc(y->n_values, sizeof *cpu);
        status = cpu ? ask_cpu(y, c, cpu, err)
                     : error_set(err, STATUS_NO_MEMORY, "no memory for the canary");
    }
    for (int32_t i = 0; i < n_engines && status == STATUS_OK; i++) {
        float *values = y->answers + (size_t)i * y->n_values;
        status = ask(y, engines[i], values, err);
        if (status == STATUS_OK && cpu)
            status = compare_with_cpu(y, engines[i], cpu, values, err);
    }
    free(cpu);
    return status;
}

enum status canary_open(const struct tokenizer *tokenizer, const struct checkpoint *c,
                        struct engine *const *engines, int32_t n_engines,
                        struct canary **out, struct error *err) {
    *out = NULL;
    struct canary *y = calloc(1, sizeof *y);
    if (!y)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the canary");
    struct encoding encoding;
    int32_t cap = c->config.max_positions;
    tokenizer_encode(tokenizer, TEXT, sizeof TEXT - 1, y->ids, NULL,
                     (size_t)(cap < CANARY_MAX_TOKENS ? cap : CANARY_MAX_TOKENS),
                     &encoding);
    y->n_tokens = (int32_t)encoding.n_tokens;
    y->n_labels = c->config.n_labels;
    y->n_tag_labels = c->config.n_tag_labels;
    y->n_values = (size_t)y->n_labels + (size_t)y->n_tokens * (size_t)y->n_tag_labels;
    y->answers = calloc((size_t)n_engines * y->n_values, sizeof *y->answers);
    enum status status =
        y->answers ? ask_all(y, c, engines, n_engines, err)
                   : error_set(err, STATUS_NO_MEMORY, "no memory for the canary");
    if (status == STATUS_OK)
        *out = y;
    else
        canary_close(y);
    return status;
}

void canary_close(struct canary *canary) {
    if (!canary)
        return;
    free(canary->answers);
    free(canary);
}
