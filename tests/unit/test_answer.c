/* SPDX-License-Identifier: Apache-2.0
 *
 * test_answer.c - probabilities of each problem type, and spans from made-up tags.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/answer.h"

static char LABELS[3][MODEL_MAX_LABEL_BYTES] = {"Not_AE", "Adverse_Event", "Other"};
static char TAG_LABELS[7][MODEL_MAX_LABEL_BYTES] = {
    "O", "B-ADE", "I-ADE", "B-DRUG", "I-DRUG", "B-INDICATION", "I-INDICATION"};
enum { O, B_ADE, I_ADE, B_DRUG, I_DRUG, N_TAGS = 7 };

static struct model_config config_of(enum problem_type type, int32_t n_labels) {
    return (struct model_config){.n_labels = n_labels,
                                 .n_tag_labels = N_TAGS,
                                 .problem_type = type,
                                 .max_positions = 8,
                                 .labels = LABELS,
                                 .tag_labels = TAG_LABELS};
}

/* A text of one window, given as its tokens' spans and tags. */
struct sample {
    const char *text;
    size_t text_bytes;
    struct token_span spans[16];
    int tags[16];
    int n;
};

static struct answer answer_of(const struct sample *s) {
    struct model_config config = config_of(PROBLEM_SINGLE_LABEL, 2);
    int32_t ids[18] = {0}, offsets[2] = {0, s->n + 2};
    struct token_span spans[18] = {{0, 0}};
    float logits[2] = {0, 1}, tags[18][N_TAGS] = {{0}};
    for (int i = 0; i < s->n; i++) {
        spans[i + 1] = s->spans[i];
        tags[i + 1][s->tags[i]] = 5;
    }
    /* What [CLS] and [SEP] are tagged means nothing. */
    tags[0][B_ADE] = tags[s->n + 1][B_DRUG] = 9;
    struct windows w = {.ids = ids,
                        .spans = spans,
                        .offsets = offsets,
                        .n_windows = 1,
                        .n_ids = s->n + 2,
                        .n_tokens = s->n + 2};
    struct answer a;
    struct error err = {0};
    assert_int_equal(answer_make(&config, &w, 1, logits, &tags[0][0], s->text,
                                 s->text_bytes, &a, &err),
                     STATUS_OK);
    return a;
}

static void assert_entity(const struct sample *s, const struct answer *a, int i,
                          const char *type, const char *text) {
    assert_true(i < a->n_entities);
    const struct entity *e = &a->entities[i];
    assert_string_equal(e->type, type);
    assert_int_equal(e->end_byte - e->begin_byte, strlen(text));
    assert_memory_equal(s->text + e->begin_byte, text, strlen(text));
    assert_true(e->score > 0 && e->score <= 1);
}

static void softmax_is_stable(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_SINGLE_LABEL, 3);
    float probs[3], logits[3] = {1, 2, 3};
    answer_probabilities(&config, logits, probs);
    assert_true(fabsf(probs[0] - 0.09003057f) < 1e-6f);
    assert_true(fabsf(probs[2] - 0.66524096f) < 1e-6f);
    float large[3] = {3e38f, -3e38f, 3e38f};
    answer_probabilities(&config, large, probs);
    assert_true(probs[0] == 0.5f && probs[1] == 0 && probs[2] == 0.5f);
}

static void sigmoids_are_stable(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_MULTI_LABEL, 3);
    float probs[3], logits[3] = {-1000, 0, 1000};
    answer_probabilities(&config, logits, probs);
    assert_true(probs[0] == 0 && probs[1] == 0.5f && probs[2] == 1);
    float small[3] = {-20, -1, 20};
    answer_probabilities(&config, small, probs);
    assert_true(fabsf(probs[0] - 2.0611537e-9f) < 1e-14f);
    assert_true(fabsf(probs[1] - 0.26894142f) < 1e-7f);
}

static void regression_is_raw(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_REGRESSION, 1);
    int32_t offsets[2] = {0, 2};
    struct windows w = {.offsets = offsets, .n_windows = 1, .n_ids = 2, .n_tokens = 2};
    float logits[1] = {-3.25f};
    struct answer a;
    assert_int_equal(answer_make(&config, &w, 0, logits, NULL, "", 0, &a, NULL),
                     STATUS_OK);
    assert_int_equal(a.label, 0);
    assert_true(a.score == -3.25f && a.probs[0] == -3.25f);
    assert_int_equal(a.n_entities, 0);
    answer_free(&a);
}

static void best_label_of_each_type(void **state) {
    (void)state;
    int32_t offsets[2] = {0, 2};
    struct windows w = {.offsets = offsets, .n_windows = 1, .n_ids = 2, .n_tokens = 2};
    float logits[3] = {-1, 0.5f, 2};
    static const enum problem_type types[] = {PROBLEM_SINGLE_LABEL,
                                              PROBLEM_MULTI_LABEL};
    for (size_t i = 0; i < 2; i++) {
        struct model_config config = config_of(types[i], 3);
        struct answer a;
        assert_int_equal(answer_make(&config, &w, 1, logits, NULL, "", 0, &a, NULL),
                         STATUS_OK);
        assert_int_equal(a.label, 2);
        assert_true(a.score == a.probs[2] && a.logits[0] == -1);
        answer_free(&a);
    }
}

static void the_most_positive_window_decides(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_SINGLE_LABEL, 2);
    int32_t offsets[4] = {0, 8, 16, 24};
    struct windows w = {
        .offsets = offsets, .n_windows = 3, .n_ids = 24, .n_tokens = 16};
    float logits[6] = {9, -9, 0, 0.5f, 2, 1};
    struct answer a;
    assert_int_equal(answer_make(&config, &w, 1, logits, NULL, "", 0, &a, NULL),
                     STATUS_OK);
    assert_int_equal(a.window, 1);
    assert_int_equal(a.label, 1);
    assert_true(a.logits[1] == 0.5f);
    answer_free(&a);
    /* Without a positive label the surest one decides. */
    assert_int_equal(answer_make(&config, &w, -1, logits, NULL, "", 0, &a, NULL),
                     STATUS_OK);
    assert_int_equal(a.window, 0);
    assert_int_equal(a.label, 0);
    answer_free(&a);
}

static void not_a_number_is_internal(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_SINGLE_LABEL, 2);
    int32_t offsets[2] = {0, 2};
    struct token_span spans[2] = {{0, 0}};
    struct windows w = {
        .offsets = offsets, .spans = spans, .n_windows = 1, .n_ids = 2, .n_tokens = 2};
    float bad[3] = {NAN, INFINITY, -INFINITY}, tags[2 * N_TAGS] = {0};
    struct answer a;
    struct error err;
    for (int i = 0; i < 3; i++) {
        float logits[2] = {0, bad[i]};
        assert_int_equal(answer_make(&config, &w, 1, logits, NULL, "", 0, &a, &err),
                         STATUS_INTERNAL);
        assert_null(a.probs);
    }
    float logits[2] = {0, 1};
    tags[2 * N_TAGS - 1] = NAN;
    assert_int_equal(answer_make(&config, &w, 1, logits, tags, "", 0, &a, &err),
                     STATUS_INTERNAL);
}

static void spans_are_read_word_by_word(void **state) {
    (void)state;
    /* z ##olo ##ft made me so sick ; the pieces' own tags are ignored */
    struct sample s = {"Zoloft made me so sick",
                       22,
                       {{0, 1}, {1, 4}, {4, 6}, {7, 11}, {12, 14}, {15, 17}, {18, 22}},
                       {B_DRUG, O, B_ADE, O, O, B_ADE, I_ADE},
                       7};
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 2);
    assert_entity(&s, &a, 0, "DRUG", "Zoloft");
    assert_entity(&s, &a, 1, "ADE", "so sick");
    assert_int_equal(a.entities[1].begin, 15);
    assert_true(a.entities[1].score > a.entities[0].score);
    answer_free(&a);
}

static void spans_begin_where_tags_say(void **state) {
    (void)state;
    /* I without B begins one; B after I begins another; another type begins another. */
    struct sample s = {"a b c d e",
                       9,
                       {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}},
                       {I_ADE, I_ADE, B_ADE, I_DRUG, O},
                       5};
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 3);
    assert_entity(&s, &a, 0, "ADE", "a b");
    assert_entity(&s, &a, 1, "ADE", "c");
    assert_entity(&s, &a, 2, "DRUG", "d");
    answer_free(&a);
}

static void punctuation_is_trimmed_at_the_ends(void **state) {
    (void)state;
    struct sample s = {
        "\"can't eat\". !",
        14,
        {{0, 1}, {1, 4}, {4, 5}, {5, 6}, {7, 10}, {10, 11}, {11, 12}, {13, 14}},
        {B_ADE, I_ADE, I_ADE, I_ADE, I_ADE, I_ADE, I_ADE, B_DRUG},
        8};
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 1);
    assert_entity(&s, &a, 0, "ADE", "can't eat");
    answer_free(&a);
}

static void punctuation_ends_a_word(void **state) {
    (void)state;
    /* "sick." : the full stop touches the word, but has a tag of its own */
    struct sample s = {"sick.ok", 7, {{0, 4}, {4, 5}, {5, 7}}, {B_ADE, O, O}, 3};
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 1);
    assert_entity(&s, &a, 0, "ADE", "sick");
    answer_free(&a);
}

static void offsets_are_code_points_and_bytes(void **state) {
    (void)state;
    /* emoji, accents, CJK, and a NUL that the tokenizer cleaned away */
    static const char text[] =
        "\xF0\x9F\x98\xB5 na\xC3\xBCsea \xE7\x97\x85\0\xE7\x97\x9B";
    struct sample s = {text,
                       sizeof text - 1,
                       {{0, 1}, {2, 4}, {4, 8}, {9, 10}, {11, 12}},
                       {O, B_ADE, O, B_ADE, I_ADE},
                       5};
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 2);
    assert_entity(&s, &a, 0, "ADE", "na\xC3\xBCsea");
    assert_int_equal(a.entities[0].begin, 2);
    assert_int_equal(a.entities[0].end, 8);
    assert_int_equal(a.entities[0].begin_byte, 5);
    assert_int_equal(a.entities[1].begin, 9);
    assert_int_equal(a.entities[1].end, 12);
    assert_int_equal(a.entities[1].begin_byte, 13);
    assert_int_equal(a.entities[1].end_byte, sizeof text - 1);
    answer_free(&a);
}

static void pieces_of_one_code_point(void **state) {
    (void)state;
    /* A Hangul syllable decomposes: its pieces share its span. */
    struct sample s = {"\xED\x95\x9C b",
                       5,
                       {{0, 1}, {0, 1}, {0, 1}, {2, 3}},
                       {B_ADE, O, B_DRUG, O},
                       4};
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 1);
    assert_entity(&s, &a, 0, "ADE", "\xED\x95\x9C");
    answer_free(&a);
}

static void broken_utf8_stays_inside(void **state) {
    (void)state;
    struct sample s = {"\xF0\x9F x\xE2\x82", 6, {{2, 3}}, {B_ADE}, 1};
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 1);
    assert_entity(&s, &a, 0, "ADE", "x");
    answer_free(&a);
    /* Spans past the end, as no tokenizer gives, still give bytes in the text. */
    struct sample far = {"ab", 2, {{1, 9}}, {B_ADE}, 1};
    a = answer_of(&far);
    assert_int_equal(a.entities[0].end_byte, 2);
    answer_free(&a);
}

/* Words "a b c …" of one letter; windows of 8 positions (6 tokens, 4 apart). Each window
 * tags its outermost tokens wrongly; the answer must take every token from the window in
 * which it is nearest the middle. */
static void overlapping_windows_give_no_doubles(void **state) {
    (void)state;
    enum { N = 15, P = 8, W = 4 };
    struct model_config config = config_of(PROBLEM_SINGLE_LABEL, 2);
    static const int first[W] = {0, 4, 8, 9};
    int32_t ids[W * P] = {0}, offsets[W + 1] = {0, P, 2 * P, 3 * P, 4 * P};
    struct token_span spans[W * P] = {{0, 0}};
    float logits[2 * W] = {0}, tags[W * P][N_TAGS] = {{0}};
    char text[2 * N];
    for (int i = 0; i < N; i++) {
        text[2 * i] = (char)('a' + i);
        text[2 * i + 1] = ' ';
    }
    for (int k = 0; k < W; k++)
        for (int i = 0; i < P - 2; i++) {
            int token = first[k] + i, at = k * P + 1 + i;
            bool outer = (i == 0 && k > 0) || (i == P - 3 && k + 1 < W);
            int right = token == 5 || token == 14 ? B_ADE : token == 6 ? I_ADE : O;
            spans[at].begin = (uint32_t)(2 * token);
            spans[at].end = (uint32_t)(2 * token + 1);
            tags[at][outer ? B_DRUG : right] = 4;
        }
    struct windows w = {.ids = ids,
                        .spans = spans,
                        .offsets = offsets,
                        .n_windows = W,
                        .n_ids = W * P,
                        .n_tokens = N + 2};
    struct answer a;
    struct error err;
    for (int k = 0; k < W; k++)
        assert_int_equal(windows_first(&w, k), first[k]);
    assert_int_equal(
        answer_make(&config, &w, 1, logits, &tags[0][0], text, sizeof text, &a, &err),
        STATUS_OK);
    assert_int_equal(a.n_entities, 2);
    assert_int_equal(a.entities[0].begin, 10);
    assert_int_equal(a.entities[0].end, 13);
    assert_int_equal(a.entities[1].begin, 28);
    assert_int_equal(a.entities[1].end, 29);
    answer_free(&a);
    answer_free(NULL);
}

static void many_entities(void **state) {
    (void)state;
    struct sample s = {"a b c d e f g h i j", 19, {{0, 0}}, {0}, 10};
    for (int i = 0; i < 10; i++) {
        s.spans[i].begin = (uint32_t)(2 * i);
        s.spans[i].end = (uint32_t)(2 * i + 1);
        s.tags[i] = B_ADE;
    }
    struct answer a = answer_of(&s);
    assert_int_equal(a.n_entities, 10);
    assert_entity(&s, &a, 9, "ADE", "j");
    answer_free(&a);
}

static struct answer answer_with(float *probs, float *logits, int32_t label) {
    return (struct answer){
        .label = label, .score = probs[label], .probs = probs, .logits = logits};
}

static void a_threshold_moves_the_label(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_SINGLE_LABEL, 3);
    float logits[3] = {1, 9, 3}, probs[3] = {0.1f, 0.6f, 0.3f};
    static const struct {
        double threshold;
        int32_t label;
    } rows[] = {{0, 1}, {0.59, 1}, {0.6, 1}, {0.6001, 2}, {1, 2}, {NAN, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct answer a = answer_with(probs, logits, 1);
        answer_apply_threshold(&config, 1, rows[i].threshold, &a);
        assert_int_equal(a.label, rows[i].label);
        assert_true(a.score == probs[rows[i].label]);
    }
    /* A label that was not the best becomes the answer. */
    struct answer a = answer_with(probs, logits, 2);
    answer_apply_threshold(&config, 0, 0.05, &a);
    assert_int_equal(a.label, 0);
    assert_true(a.score == 0.1f);
    answer_apply_threshold(&config, 0, 0.5, &a);
    assert_int_equal(a.label, 1);
}

/* Probabilities that round to the same float are told apart by their logits. */
static void a_threshold_leaves_the_best_of_the_others(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_MULTI_LABEL, 3);
    float logits[3] = {40, -1, 50}, probs[3] = {1, 0.27f, 1};
    struct answer a = answer_with(probs, logits, 1);
    answer_apply_threshold(&config, 1, 0.5, &a);
    assert_int_equal(a.label, 2);
}

static void a_threshold_needs_two_labels(void **state) {
    (void)state;
    struct model_config config = config_of(PROBLEM_REGRESSION, 1);
    float value = -2;
    struct answer a = answer_with(&value, &value, 0);
    answer_apply_threshold(&config, 0, 0.5, &a);
    assert_int_equal(a.label, 0);
    assert_true(a.score == -2);
    config = config_of(PROBLEM_SINGLE_LABEL, 2);
    float logits[2] = {2, 1}, probs[2] = {0.7f, 0.3f};
    a = answer_with(probs, logits, 0);
    answer_apply_threshold(&config, -1, 0.1, &a);
    answer_apply_threshold(&config, 2, 0.1, &a);
    assert_int_equal(a.label, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_is_stable),
        cmocka_unit_test(sigmoids_are_stable),
        cmocka_unit_test(regression_is_raw),
        cmocka_unit_test(best_label_of_each_type),
        cmocka_unit_test(the_most_positive_window_decides),
        cmocka_unit_test(not_a_number_is_internal),
        cmocka_unit_test(spans_are_read_word_by_word),
        cmocka_unit_test(spans_begin_where_tags_say),
        cmocka_unit_test(punctuation_is_trimmed_at_the_ends),
        cmocka_unit_test(punctuation_ends_a_word),
        cmocka_unit_test(offsets_are_code_points_and_bytes),
        cmocka_unit_test(pieces_of_one_code_point),
        cmocka_unit_test(broken_utf8_stays_inside),
        cmocka_unit_test(overlapping_windows_give_no_doubles),
        cmocka_unit_test(many_entities),
        cmocka_unit_test(a_threshold_moves_the_label),
        cmocka_unit_test(a_threshold_leaves_the_best_of_the_others),
        cmocka_unit_test(a_threshold_needs_two_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
