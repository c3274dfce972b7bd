/* SPDX-License-Identifier: Apache-2.0
 *
 * test_allocation.c - every allocation of every open and load path fails once, and once for
 * ever: no crash, no leak (LeakSanitizer, in the sanitizer build), a status that says no
 * memory, and the next try works.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/engines.h"
#include "model/answer.h"
#include "model/checkpoint.h"
#include "model/random.h"
#include "model/windows.h"
#include "server/bulk.h"
#include "server/bundle.h"
#include "server/records.h"
#include "tests/faults/faults.h"
#include "tests/unit/model_files.h"
#include "tokenizer/tokenizer.h"
#include "weights/quantize.h"
#include "weights/safetensors.h"

#define MAX_ALLOCATIONS 20000 /* a scenario that needs more has run away */

#define N_INPUTS 40

static char *model_dir, *int8_dir, *shards_dir, *out_dir, *input_dir;

static const struct random_options SMALL = {.dim = 12,
                                            .n_layers = 1,
                                            .n_heads = 3,
                                            .max_positions = 16,
                                            .n_labels = 2,
                                            .n_tags = 3,
                                            .hidden_dim = 20,
                                            .vocab_size = 200,
                                            .seed = 7};

static enum status run_json(struct error *err) {
    static const char text[] =
        "{\"texts\":[\"a text that is longer than the buffer that "
        "jansson begins with\",1.5,12345678901234567,null],"
        "\"more\":{\"a\":{},\"b\":[],\"c\":[1,2,3,4,5,6,7,8,9]}}";
    static const struct json_limits limits = {
        .max_bytes = 4096, .max_depth = 8, .max_values = 100, .max_key_bytes = 64};
    json_t *root;
    enum status status = json_parse(text, sizeof text - 1, &limits, &root, err);
    if (status != STATUS_OK)
        return status;
    const json_t *texts = json_object_get(root, "texts");
    const char *first = json_string_value(json_array_get(texts, 0));
    bool is_whole = json_array_size(texts) == 4 && first && strlen(first) == 62 &&
                    json_integer_value(json_array_get(texts, 2)) == 12345678901234567;
    json_decref(root);
    return is_whole ? STATUS_OK : error_set(err, STATUS_INTERNAL, "JSON lost a part");
}

static enum status run_buffer(struct error *err) {
    struct buffer b = {.max_bytes = 4096};
    enum status status = json_append_string(&b, "a \"text\"\n", 9, err);
    for (int i = 0; status == STATUS_OK && i < 100; i++)
        status = json_append_float(&b, 0.1f * (float)i, err);
    buffer_free(&b);
    return status;
}

static enum status run_config(struct error *err) {
    struct model_config config;
    enum status status = model_config_read(model_dir, &config, err);
    model_config_free(&config);
    return status;
}

static enum status open_checkpoint(const char *dir, struct error *err) {
    struct checkpoint *c;
    enum status status = checkpoint_open(dir, &c, err);
    checkpoint_close(c);
    return status;
}

static enum status run_checkpoint(struct error *err) {
    return open_checkpoint(model_dir, err);
}

static enum status run_int8(struct error *err) {
    return open_checkpoint(int8_dir, err);
}

static enum status run_shards(struct error *err) {
    return open_checkpoint(shards_dir, err);
}

static enum status run_quantize(struct error *err) {
    static const char *const keep[] = {"*.ffn.*"};
    struct quantize_report report;
    return quantize_model(model_dir, out_dir, keep, 1, &report, err);
}

static enum status run_random(struct error *err) {
    return random_model_write(out_dir, &SMALL, err);
}

static enum status run_tokenizer(struct error *err) {
    struct tokenizer *t = NULL;
    enum status status = tokenizer_open(model_dir, &t, err);
    tokenizer_close(t);
    return status;
}

static struct tokenizer *tokenizer;
static enum status run_windows(struct error *err) {
    static const char text[] = "a rash and a headache, and more words than sixteen "
                               "positions can hold, so that there are some windows";
    struct windows w;
    enum status status =
        windows_make(tokenizer, 16, text, sizeof text - 1, false, &w, err);
    windows_free(&w);
    return status;
}

static enum status open_bundle(const char *device, struct error *err) {
    const struct engine_options options = {.device = device, .n_threads = 2};
    struct bundle *b = NULL;
    enum status status = bundle_open(int8_dir, &options, &b, err);
    bundle_close(b);
    return status;
}

static enum status run_bundle_cpu(struct error *err) {
    return open_bundle("cpu", err);
}

static enum status run_bundle_reference(struct error *err) {
    return open_bundle("reference", err);
}

static struct checkpoint *checkpoint;
static struct engine_options engine_options;
static enum status run_engine(struct error *err) {
    struct engine *e = NULL;
    enum status status = engine_open(&engine_options, checkpoint, &e, err);
    engine_close(e);
    return status;
}

/* A few windows with evidence in each. */
static enum status run_answer(struct error *err) {
    static char labels[2][MODEL_MAX_LABEL_BYTES] = {"no", "yes"};
    static char tag_labels[3][MODEL_MAX_LABEL_BYTES] = {"O", "B-ADE", "I-ADE"};
    const struct model_config config = {.n_labels = 2,
                                        .n_tag_labels = 3,
                                        .problem_type = PROBLEM_SINGLE_LABEL,
                                        .max_positions = 8,
                                        .labels = labels,
                                        .tag_labels = tag_labels};
    static const char text[] = "rash itch pain ache sore burn";
    static const float logits[16] = {0, 1, 2, 3};
    float tags[64][3] = {{0}};
    struct windows w;
    struct answer a = {0};
    for (int i = 0; i < 64; i++)
        tags[i][i % 2 + 1] = 5;
    enum status status =
        windows_make(tokenizer, 8, text, sizeof text - 1, false, &w, err);
    if (status == STATUS_OK && w.n_ids <= 64 && w.n_windows <= 8)
        status = answer_make(&config, &w, 1, logits, &tags[0][0], text, sizeof text - 1,
                             &a, err);
    bool is_whole = status != STATUS_OK || a.n_entities > 0;
    answer_free(&a);
    windows_free(&w);
    return is_whole ? status : error_set(err, STATUS_INTERNAL, "no entity");
}

static const char *input_name;
static enum status open_records(struct records **r, struct error *err) {
    const char *path = scratch_path(input_dir, input_name);
    const struct records_options options = {.path = path,
                                            .text_field = "text",
                                            .id_field = "id",
                                            .max_record_bytes = 4096,
                                            .max_text_bytes = 2048,
                                            .wake_fd = -1};
    return records_open(&options, r, err);
}

static enum status run_records(struct error *err) {
    struct records *r = NULL;
    struct record record;
    int n = 0;
    enum status status = open_records(&r, err);
    while (status == STATUS_OK && n <= N_INPUTS) {
        status = records_next(r, &record, err);
        if (status == STATUS_OK && record.error.status != STATUS_OK)
            status = error_set(err, record.error.status, "%s", record.error.message);
        n += status == STATUS_OK;
    }
    records_close(r);
    if (status == STATUS_NOT_FOUND && n == N_INPUTS)
        return STATUS_OK;
    return status == STATUS_OK ? error_set(err, STATUS_INTERNAL, "records?") : status;
}

/* An answer that could not be had is a record with an error; nothing is left out. */
static struct bundle *bundle;
static enum status run_bulk(struct error *err) {
    struct bulk_summary summary;
    struct bulk_options options = {.bundle = bundle,
                                   .threshold = 0.5,
                                   .wants_entities = true,
                                   .out_fd = open("/dev/null", O_WRONLY)};
    enum status status = open_records(&options.records, err);
    if (status == STATUS_OK)
        status = bulk_run(&options, &summary, err);
    if (status == STATUS_OK && summary.n_records != N_INPUTS)
        status = error_set(err, STATUS_INTERNAL, "%llu records of %d",
                           (unsigned long long)summary.n_records, N_INPUTS);
    else if (status == STATUS_OK && summary.n_errors > 0)
        status = error_set(err, STATUS_NO_MEMORY, "records with an error");
    records_close(options.records);
    close(options.out_fd);
    return status;
}

/* One failing allocation. False when the scenario ended before the k-th. */
static bool try_one(const char *name, enum status (*run)(struct error *err), size_t k,
                    bool for_ever, size_t *n_survived) {
    struct error err = {0};
    faults_arm(k, for_ever);
    enum status status = run(&err);
    size_t n_failed = faults_disarm();
    if (n_failed == 0) {
        if (status != STATUS_OK)
            fail_msg("%s: %s", name, err.message);
        return false;
    }
    /* A block that cannot be shrunk, or a cache that cannot be had, may be survived. */
    if (status == STATUS_OK)
        ++*n_survived;
    else if (status != STATUS_NO_MEMORY || err.message[0] == '\0')
        fail_msg("%s, allocation %zu%s: %s \"%s\", expected no_memory", name, k,
                 for_ever ? " and all behind it" : "", status_name(status),
                 err.message);
    if (run(&err) != STATUS_OK)
        fail_msg("%s, after allocation %zu failed: %s", name, k, err.message);
    return true;
}

static void fail_each(const char *name, enum status (*run)(struct error *err),
                      size_t max_survived) {
    size_t n_survived = 0, k = 1;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (k = 1; try_one(name, run, k, for_ever != 0, &n_survived); k++)
            if (k > MAX_ALLOCATIONS)
                fail_msg("%s: over %d allocations", name, MAX_ALLOCATIONS);
    print_message("  %-18s %4zu allocations, %zu failures survived\n", name, k - 1,
                  n_survived);
    assert_true(k > 1);
    if (n_survived > max_survived)
        fail_msg("%s went well %zu times without the memory that it asked for", name,
                 n_survived);
}

#define SCENARIO(scenario, max_survived)                                               \
    static void fails_##scenario(void **state) {                                       \
        (void)state;                                                                   \
        fail_each(#scenario, run_##scenario, max_survived);                            \
    }
SCENARIO(json, 0)
SCENARIO(buffer, 0)
SCENARIO(config, 0)
SCENARIO(checkpoint, 0)
SCENARIO(int8, 0)
SCENARIO(shards, 0)
SCENARIO(quantize, 0)
SCENARIO(random, 0)
SCENARIO(tokenizer, 0)
SCENARIO(windows, 2) /* shrinking its block */
SCENARIO(bundle_cpu, 0)
SCENARIO(bundle_reference, 0)
SCENARIO(answer, 2) /* windows, shrinking its block */
SCENARIO(bulk, 0)

static void fails_engines(void **state) {
    (void)state;
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    static const char *const dtypes[] = {"fp32", "bf16", "int8"};
    for (size_t i = 0; i < 3; i++)
        for (size_t d = 0; d < 3; d++) {
            char name[32];
            engine_options = (struct engine_options){
                .device = "cpu", .isa = isas[i], .dtype = dtypes[d], .n_threads = 2};
            snprintf(name, sizeof name, "%s %s", isas[i], dtypes[d]);
            if (isa_gemm(isas[i], dtypes[d]))
                fail_each(name, run_engine, 0);
            else
                print_message("  %s: not on this machine\n", name);
        }
    engine_options = (struct engine_options){.device = "reference"};
    fail_each("reference", run_engine, 0);
}

static void fails_records(void **state) {
    (void)state;
    static const char *const names[] = {"in.jsonl", "in.csv", "in.txt"};
    for (size_t i = 0; i < 3; i++) {
        input_name = names[i];
        fail_each(names[i], run_records, 0);
    }
    input_name = names[0];
}

/* The harness itself: one that asks for memory and does not look is caught. */
static enum status run_careless(struct error *err) {
    (void)err;
    void *volatile block = malloc(1); /* volatile: or the pair is optimised away */
    free(block);
    return STATUS_OK;
}

static void counts_failures(void **state) {
    (void)state;
    size_t n_survived = 0;
    assert_true(try_one("careless", run_careless, 1, false, &n_survived));
    assert_int_equal(n_survived, 1);
    assert_false(try_one("careless", run_careless, 2, false, &n_survived));
    faults_arm(1, true);
    void *volatile block = malloc(1);
    char *volatile text = strdup("x");
    assert_int_equal(faults_disarm(), 2);
    assert_null(block);
    assert_null(text);
}

/* The small model as one shard with an index. */
static void write_shards(void) {
    static const char *const names[] = {"config.json", "vocab.txt",
                                        "tokenizer_config.json"};
    struct safetensors st;
    struct buffer index = {.max_bytes = 1 << 20};
    char *text;
    size_t n;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(
            file_read(scratch_path(model_dir, names[i]), 1 << 20, &text, &n, NULL), 0);
        scratch_write(scratch_path(shards_dir, names[i]), text, n);
        free(text);
    }
    assert_int_equal(
        file_read(scratch_path(model_dir, SAFETENSORS_FILE), 1 << 20, &text, &n, NULL),
        0);
    scratch_write(scratch_path(shards_dir, "1.safetensors"), text, n);
    free(text);
    assert_int_equal(safetensors_open(model_dir, false, &st, NULL), 0);
    for (size_t i = 0; i < st.n_tensors; i++)
        assert_int_equal(buffer_printf(&index, NULL, "%s\"%s\":\"1.safetensors\"",
                                       i ? "," : "{\"weight_map\":{",
                                       st.tensors[i].name),
                         0);
    assert_int_equal(buffer_append(&index, "}}", 2, NULL), 0);
    scratch_write(scratch_path(shards_dir, SAFETENSORS_INDEX_FILE), index.data,
                  index.n_bytes);
    buffer_free(&index);
    safetensors_close(&st);
}

/* The same texts in every format that is read, some longer than a first buffer. */
static void write_inputs(void) {
    struct buffer jsonl = {.max_bytes = 1 << 20}, csv = jsonl, lines = jsonl;
    char text[601];
    assert_int_equal(buffer_printf(&csv, NULL, "id,text\n"), 0);
    for (int i = 0; i < N_INPUTS; i++) {
        int n = i % 8 == 7 ? 600 : 20 + i;
        for (int k = 0; k < n; k++)
            text[k] = k % 5 == 4 ? ' ' : (char)('a' + (i + k) % 26);
        text[n] = '\0';
        assert_int_equal(buffer_printf(&jsonl, NULL,
                                       "{\"id\":\"post-%d\",\"text\":\"%s\"}\n", i,
                                       text),
                         0);
        assert_int_equal(buffer_printf(&csv, NULL, "%d,\"%s\"\n", i, text), 0);
        assert_int_equal(buffer_printf(&lines, NULL, "%s\n", text), 0);
    }
    scratch_write(scratch_path(input_dir, "in.jsonl"), jsonl.data, jsonl.n_bytes);
    scratch_write(scratch_path(input_dir, "in.csv"), csv.data, csv.n_bytes);
    scratch_write(scratch_path(input_dir, "in.txt"), lines.data, lines.n_bytes);
    buffer_free(&jsonl);
    buffer_free(&csv);
    buffer_free(&lines);
}

static int make_models(void **state) {
    (void)state;
    struct quantize_report report;
    struct error err;
    model_dir = scratch_make();
    int8_dir = scratch_make();
    shards_dir = scratch_make();
    out_dir = scratch_make();
    input_dir = scratch_make();
    const struct engine_options options = {.device = "cpu", .n_threads = 2};
    if (random_model_write(model_dir, &SMALL, &err) != STATUS_OK ||
        quantize_model(model_dir, int8_dir, NULL, 0, &report, &err) != STATUS_OK ||
        checkpoint_open(model_dir, &checkpoint, &err) != STATUS_OK ||
        bundle_open(int8_dir, &options, &bundle, &err) != STATUS_OK ||
        tokenizer_open(model_dir, &tokenizer, &err) != STATUS_OK) {
        print_message("%s\n", err.message);
        return -1;
    }
    write_shards();
    write_inputs();
    return 0;
}

static int remove_models(void **state) {
    (void)state;
    tokenizer_close(tokenizer);
    bundle_close(bundle);
    checkpoint_close(checkpoint);
    scratch_remove(model_dir);
    scratch_remove(int8_dir);
    scratch_remove(shards_dir);
    scratch_remove(out_dir);
    scratch_remove(input_dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_failures),
        cmocka_unit_test(fails_json),
        cmocka_unit_test(fails_buffer),
        cmocka_unit_test(fails_config),
        cmocka_unit_test(fails_checkpoint),
        cmocka_unit_test(fails_int8),
        cmocka_unit_test(fails_shards),
        cmocka_unit_test(fails_quantize),
        cmocka_unit_test(fails_random),
        cmocka_unit_test(fails_tokenizer),
        cmocka_unit_test(fails_windows),
        cmocka_unit_test(fails_bundle_cpu),
        cmocka_unit_test(fails_bundle_reference),
        cmocka_unit_test(fails_engines),
        cmocka_unit_test(fails_answer),
        cmocka_unit_test(fails_records),
        cmocka_unit_test(fails_bulk),
    };
    return cmocka_run_group_tests_name("allocation", tests, make_models, remove_models);
}
