/* SPDX-License-Identifier: Apache-2.0
 *
 * test_golden.c - every engine against logits and tags that PyTorch wrote.
 *
 * The models in tests/data/models (and, where the design's shared folder lies beside the
 * tree, all of ../shared/models) come with golden.jsonl: token ids, fp32 logits and tags.
 * Gates: fp32 and the reference 1e-4; bf16 5e-2; int8: see test_int8_keeps_the_labels.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "kernels/cpu/isa.h"
#include "kernels/engines.h"

#define SHARED_MODELS "../shared/models"
enum { MAX_IDS = 512, MAX_LABELS = 16, MAX_TAGS = 16, MAX_LINE = 1 << 20 };

struct golden {
    int32_t ids[MAX_IDS];
    int32_t n_ids;
    float logits[MAX_LABELS];
    float tags[MAX_IDS * MAX_TAGS];
    bool has_tags;
};

static const struct json_limits limits = {
    .max_bytes = MAX_LINE, .max_depth = 8, .max_values = 100000, .max_key_bytes = 64};

static int32_t read_floats(const json_t *array, float *out, int32_t cap) {
    int32_t n = (int32_t)json_array_size(array);
    assert_true(n <= cap);
    for (int32_t i = 0; i < n; i++)
        out[i] = (float)json_number_value(json_array_get(array, (size_t)i));
    return n;
}

static bool read_golden(FILE *f, struct golden *g) {
    static char line[MAX_LINE];
    struct error err = {0};
    json_t *row;
    if (!fgets(line, sizeof line, f))
        return false;
    if (json_parse(line, strlen(line), &limits, &row, &err) != STATUS_OK)
        fail_msg("golden.jsonl: %s", err.message);
    const json_t *ids = json_object_get(row, "ids"),
                 *tags = json_object_get(row, "tags");
    g->n_ids = (int32_t)json_array_size(ids);
    assert_in_range(g->n_ids, 1, MAX_IDS);
    for (int32_t i = 0; i < g->n_ids; i++)
        g->ids[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    read_floats(json_object_get(row, "logits"), g->logits, MAX_LABELS);
    g->has_tags = tags != NULL;
    for (int32_t i = 0; tags && i < g->n_ids; i++)
        read_floats(json_array_get(tags, (size_t)i),
                    g->tags + (size_t)i * json_array_size(json_array_get(tags, 0)),
                    MAX_TAGS);
    json_decref(row);
    return true;
}

static struct engine *open_engine(const struct checkpoint *c, const char *device,
                                  const char *isa, const char *dtype) {
    struct engine_options options = {
        .device = device, .isa = isa, .dtype = dtype, .n_threads = 2};
    struct engine *e = NULL;
    struct error err = {0};
    if (engine_open(&options, c, &e, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return e;
}

/* The largest difference over the file's rows, of logits and of tags; each row is run with
 * and without tags, for the last layer takes another way. */
static double worst_difference(struct engine *e, const struct model_config *config,
                               const char *path, int32_t every) {
    static struct golden g;
    static float logits[MAX_LABELS], tags[MAX_IDS * MAX_TAGS];
    FILE *f = fopen(path, "re");
    struct error err = {0};
    double worst = 0;
    int32_t n_rows = 0;
    if (!f)
        fail_msg("cannot open %s", path);
    for (int32_t i = 0; read_golden(f, &g); i++) {
        if (i % every)
            continue;
        n_rows++;
        for (int with_tags = 0; with_tags <= (g.has_tags ? 1 : 0); with_tags++) {
            int32_t offsets[] = {0, g.n_ids};
            struct batch b = {g.ids, offsets, 1, with_tags};
            if (engine_run(e, &b, logits, tags, &err) != STATUS_OK)
                fail_msg("%s row %d: %s", path, i, err.message);
            for (int32_t k = 0; k < config->n_labels; k++)
                worst = fmax(worst, fabs((double)logits[k] - (double)g.logits[k]));
            for (int32_t k = 0; with_tags && k < g.n_ids * config->n_tag_labels; k++)
                worst = fmax(worst, fabs((double)tags[k] - (double)g.tags[k]));
        }
    }
    fclose(f);
    assert_true(n_rows > 0);
    return worst;
}

static void check_model(const char *directory, int32_t every) {
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    static const struct {
        const char *dtype;
        double tolerance;
    } gates[] = {{"fp32", 1e-4}, {"bf16", 5e-2}};
    char path[600];
    struct checkpoint *c;
    struct error err = {0};
    if (checkpoint_open(directory, &c, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    snprintf(path, sizeof path, "%s/golden.jsonl", directory);
    struct engine *e = open_engine(c, "reference", NULL, "fp64");
    double worst = worst_difference(e, &c->config, path, every);
    print_message("  %s: reference %.1e", directory, worst);
    assert_true(worst <= 1e-4);
    engine_close(e);
    for (size_t d = 0; d < sizeof gates / sizeof *gates; d++)
        for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
            if (!isa_gemm(isas[i], gates[d].dtype))
                continue;
            e = open_engine(c, "cpu", isas[i], gates[d].dtype);
            worst = worst_difference(e, &c->config, path,
                                     strcmp(isas[i], "portable") == 0 ? every : 1);
            print_message(", %s %s %.1e", gates[d].dtype, isas[i], worst);
            if (!(worst <= gates[d].tolerance))
                fail_msg("%s on %s is off by %g, allowed is %g", gates[d].dtype,
                         isas[i], worst, gates[d].tolerance);
            engine_close(e);
        }
    print_message("\n");
    checkpoint_close(c);
}

static bool has_golden(const char *directory) {
    char path[600];
    struct stat s;
    snprintf(path, sizeof path, "%s/golden.jsonl", directory);
    return stat(path, &s) == 0;
}

static int check_models_under(const char *root, int32_t every) {
    int n_models = 0;
    DIR *d = opendir(root);
    if (!d)
        return 0;
    for (const struct dirent *entry; (entry = readdir(d));) {
        char directory[520];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(directory, sizeof directory, "%s/%s", root, entry->d_name);
        if (!has_golden(directory))
            continue;
        check_model(directory, every);
        n_models++;
    }
    closedir(d);
    return n_models;
}

static void test_models_in_the_tree(void **state) {
    (void)state;
    assert_true(check_models_under("tests/data/models", 1) >= 3);
}

static void test_shared_models(void **state) {
    (void)state;
    int n_models = check_models_under(SHARED_MODELS, 20) +
                   check_models_under(SHARED_MODELS "/tiny", 4);
    print_message("  %s: %d models used\n", SHARED_MODELS, n_models);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models_in_the_tree),
        cmocka_unit_test(test_shared_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
