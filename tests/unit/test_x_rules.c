/* SPDX-License-Identifier: Apache-2.0
 *
 * test_x_rules.c - rules made from names, linted, read, compared, and their JSON.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sources/x_rules.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static enum status make(const char *const *names, size_t n, const char *languages,
                        size_t max_bytes, size_t max_rules, struct x_rules *out,
                        struct error *err) {
    struct x_rules_maker m;
    *out = (struct x_rules){0};
    enum status status = x_rules_begin(&m, languages, max_bytes, max_rules, out, err);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; status == STATUS_OK && i < n; i++)
        status = x_rules_name(&m, names[i], err);
    enum status ended = x_rules_end(&m, err);
    return status == STATUS_OK ? ended : status;
}

static void names_become_a_rule_with_parentheses(void **state) {
    (void)state;
    static const char *const names[] = {"aspirin",     "co codamol", "l-dopa", "or",
                                        "caf\xc3\xa9", "",           "lang:en"};
    static const struct {
        const char *languages, *behind;
    } cases[] = {{"en", " lang:en -is:retweet"},
                 {"en,es", " (lang:en OR lang:es) -is:retweet"},
                 {",pt-br,", " (lang:pt-br) -is:retweet"},
                 {"any", " -is:retweet"},
                 {"", " -is:retweet"},
                 {NULL, " -is:retweet"}};
    struct x_rules rules;
    for (size_t i = 0; i < N(cases); i++) {
        char expected[256];
        (void)snprintf(
            expected, sizeof expected,
            "(aspirin OR \"co codamol\" OR \"l-dopa\" OR \"or\" OR caf\xc3\xa9 OR "
            "\"lang:en\")%s",
            cases[i].behind);
        assert_int_equal(
            make(names, N(names), cases[i].languages, 1024, 9, &rules, NULL),
            STATUS_OK);
        assert_int_equal(rules.n, 1);
        assert_string_equal(rules.all[0].value, expected);
        assert_int_equal(strlen(rules.all[0].tag), X_RULES_TAG_BYTES - 1);
        assert_memory_equal(rules.all[0].tag, "vigil:", 6);
        assert_int_equal(x_rule_lint(view_of_string(rules.all[0].value), 1024, NULL),
                         STATUS_OK);
        x_rules_free(&rules);
    }
}

/* However short rules have to be, each name is in one, whole, and none is too long. */
static void rules_are_filled_to_their_length(void **state) {
    (void)state;
    static char names[200][12];
    const char *pointers[200];
    struct x_rules rules;
    for (size_t i = 0; i < 200; i++) {
        (void)snprintf(names[i], sizeof names[i], i % 3 ? "drug%zu" : "two %zu", i);
        pointers[i] = names[i];
    }
    for (size_t max_bytes = 40; max_bytes < 300; max_bytes += 7) {
        size_t n_terms = 0, n_longest = 0;
        assert_int_equal(make(pointers, 200, "en", max_bytes, 200, &rules, NULL),
                         STATUS_OK);
        for (size_t i = 0; i < rules.n; i++) {
            size_t n = strlen(rules.all[i].value);
            assert_true(n <= max_bytes);
            n_longest = n > n_longest ? n : n_longest;
            assert_int_equal(
                x_rule_lint(view_of_string(rules.all[i].value), max_bytes, NULL),
                STATUS_OK);
            n_terms++;
            for (const char *at = rules.all[i].value; (at = strstr(at, " OR "));
                 at += 4)
                n_terms++;
        }
        assert_int_equal(n_terms, 200);
        assert_true(n_longest + 14 > max_bytes); /* another name would not fit */
        x_rules_free(&rules);
    }
}

static void names_that_cannot_be_rules(void **state) {
    (void)state;
    static const char *const quote[] = {"a\"b"}, *const two[] = {"aaaaaaaaaa",
                                                                 "bbbbbbbbbb"};
    struct x_rules rules;
    struct error err;
    assert_int_equal(make(quote, 1, "en", 1024, 9, &rules, &err), STATUS_INVALID);
    x_rules_free(&rules);
    assert_int_equal(make(two, 2, "en", 30, 9, &rules, &err), STATUS_LIMIT);
    x_rules_free(&rules);
    assert_int_equal(make(two, 2, "en", 34, 1, &rules, &err), STATUS_LIMIT);
    x_rules_free(&rules);
    assert_int_equal(make(two, 2, "en", 34, 2, &rules, &err), STATUS_OK);
    assert_int_equal(rules.n, 2);
    x_rules_free(&rules);
    assert_int_equal(make(two, 2, "EN", 1024, 2, &rules, &err), STATUS_INVALID);
    assert_int_equal(make(two, 2, "en)", 1024, 2, &rules, &err), STATUS_INVALID);
    assert_int_equal(make(two, 2, ",", 1024, 2, &rules, &err), STATUS_INVALID);
    x_rules_free(&rules);
}

static void the_lint_takes_good_rules(void **state) {
    (void)state;
    static const char *const good[] = {"aspirin",
                                       "a b",
                                       "a OR b",
                                       "(a OR b) lang:en -is:retweet",
                                       "\"two words\" #tag @you $x",
                                       "a -b",
                                       "a (b OR c) -d",
                                       "((a))",
                                       "from:somebody -has:links",
                                       "a OR \"b OR c\"",
                                       "(a lang:en) OR (b lang:es)",
                                       "url:\"https://x.com/a b\"",
                                       "a -is:nullcast",
                                       "point_radius:[2.3 48.8 16km] a",
                                       "a\tb",
                                       "\"or\"",
                                       "co-op",
                                       "\"say \\\"hi\\\"\"",
                                       "place_country:US",
                                       "a OR (b -c)"};
    struct error err;
    for (size_t i = 0; i < N(good); i++) {
        if (x_rule_lint(view_of_string(good[i]), 1024, &err) != STATUS_OK)
            fail_msg("%s: %s", good[i], err.message);
    }
}

static void the_lint_finds_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *rule, *message;
    } bad[] = {
        {"", "nothing to look for"},
        {"-a", "nothing to look for"},
        {"-a -b", "nothing to look for"},
        {"lang:en", "nothing to look for"},
        {"has:links OR is:retweet", "nothing to look for"},
        {"a OR b lang:en", "AND binds first"},
        {"a lang:en OR b", "AND binds first"},
        {"a OR b OR c -is:retweet", "AND binds first"},
        {"(a b OR c)", "AND binds first"},
        {"(a OR b", "'(' is not closed"},
        {"a)", "')' without '('"},
        {"()", "empty parentheses"},
        {"a ()", "empty parentheses"},
        {"OR a", "OR without a term before"},
        {"a OR", "OR without a term behind"},
        {"a OR OR b", "OR without a term before"},
        {"(a OR) b", "OR without a term behind"},
        {"\"a", "quote is not closed"},
        {"\"a\\\"", "quote is not closed"},
        {"\"\"", "nothing between quotes"},
        {"a\"b\"", "quote inside a word"},
        {"a -", "'-' without a term"},
        {"a - b", "'-' without a term"},
        {"(a -)", "'-' without a term"},
        {"a -(b OR c)", "group cannot be negated"},
        {"a OR -b", "negated term cannot be an alternative"},
        {"-a OR b", "negated term cannot be an alternative"},
        {"a nosuch:thing", "operator that X does not have"},
        {"a from:", "operator without a value"},
        {"a is:cat", "is: with something"},
        {"a has:cats", "has: with something"},
        {"a is:nullcast", "must be negated"},
        {"a AND b", "AND is a space"},
        {"a and b", "AND is a space"},
        {"a or b", "AND is a space"},
        {"a point_radius:[1 2", "'[' is not closed"},
        {"a\x01", "control character"},
    };
    struct error err;
    for (size_t i = 0; i < N(bad); i++) {
        err.message[0] = 0;
        if (x_rule_lint(view_of_string(bad[i].rule), 1024, &err) != STATUS_INVALID ||
            !strstr(err.message, bad[i].message))
            fail_msg("%s: %s", bad[i].rule, err.message);
    }
    assert_int_equal(x_rule_lint(VIEW("aspirin"), 6, &err), STATUS_INVALID);
    char deep[100];
    memset(deep, '(', sizeof deep);
    assert_int_equal(x_rule_lint(view_of(deep, sizeof deep), 1024, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.message, "too deep"));
}

static void rules_are_read_from_a_file(void **state) {
    (void)state;
    char path[] = "/tmp/vigil-rules-XXXXXX";
    static const char text[] = "# comment\r\n\n  aspirin lang:en  \r\n#hashtag\n#\nb";
    struct x_rules rules = {0};
    struct error err;
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    assert_int_equal(x_rules_read(path, 1024, 9, &rules, &err), STATUS_OK);
    assert_int_equal(rules.n, 3);
    assert_string_equal(rules.all[0].value, "aspirin lang:en");
    assert_string_equal(rules.all[1].value, "#hashtag");
    assert_string_equal(rules.all[2].value, "b");
    x_rules_free(&rules);
    assert_int_equal(x_rules_read(path, 1024, 2, &rules, &err), STATUS_LIMIT);
    x_rules_free(&rules);
    assert_int_equal(x_rules_read(path, 10, 9, &rules, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, ":3: "));
    x_rules_free(&rules);
    assert_int_equal(ftruncate(fd, 11), 0);
    assert_int_equal(x_rules_read(path, 1024, 9, &rules, &err), STATUS_INVALID);
    close(fd);
    unlink(path);
    assert_int_equal(x_rules_read(path, 1024, 9, &rules, &err), STATUS_NOT_FOUND);
}

static void add(struct x_rules *r, const char *value, const char *tag, const char *id) {
    assert_int_equal(x_rules_add(r, view_of_string(value), view_of_string(tag),
                                 view_of_string(id), NULL),
                     STATUS_OK);
}

static void rules_are_compared_by_text_and_tag(void **state) {
    (void)state;
    struct x_rules want = {0}, have = {0}, missing = {0}, surplus = {0};
    add(&want, "a", "vigil:1", NULL);
    add(&want, "b", "vigil:2", NULL);
    add(&want, "c", "vigil:3", NULL);
    add(&want, "c", "vigil:3", NULL); /* twice in the file */
    add(&have, "a", "vigil:1", "10");
    add(&have, "b", "vigil:other", "11"); /* ours, of another tag */
    add(&have, "old", "vigil:4", "12");
    add(&have, "theirs", "cats", "13");
    add(&have, "untagged", NULL, "14");
    assert_int_equal(x_rules_compare(&want, &have, false, &missing, &surplus, NULL),
                     STATUS_OK);
    assert_int_equal(missing.n, 2);
    assert_string_equal(missing.all[0].value, "b");
    assert_string_equal(missing.all[1].value, "c");
    assert_int_equal(surplus.n, 4);
    assert_string_equal(surplus.all[0].id, "11");
    x_rules_free(&missing);
    x_rules_free(&surplus);
    add(&have, "c", "cats", "15"); /* theirs says what ours would */
    assert_int_equal(x_rules_compare(&want, &have, true, &missing, &surplus, NULL),
                     STATUS_OK);
    assert_int_equal(surplus.n, 2);
    assert_string_equal(surplus.all[0].id, "11");
    assert_string_equal(surplus.all[1].id, "12");
    x_rules_free(&missing);
    x_rules_free(&surplus);
    x_rules_free(&want);
    x_rules_free(&have);
}

static void the_json_of_rules(void **state) {
    (void)state;
    struct x_rules rules = {0};
    struct buffer b = {.max_bytes = 4096};
    char *next = NULL;
    struct error err;
    assert_int_equal(
        x_rules_parse(
            VIEW("{\"meta\":{\"next_token\":\"p2\",\"x\":1},\"data\":[{\"tag\":\"t\","
                 "\"id\":\"1\",\"value\":\"say \\\"a\\\"\"},{\"id\":\"2\",\"value\":"
                 "\"b\"},{\"no\":1},7]}"),
            &rules, &next, &err),
        STATUS_OK);
    assert_int_equal(rules.n, 2);
    assert_string_equal(rules.all[0].value, "say \"a\"");
    assert_string_equal(next, "p2");
    assert_null(rules.all[1].tag);
    free(next);
    assert_int_equal(x_rules_body(&rules, true, 0, 9, &b, NULL), STATUS_OK);
    assert_string_equal(b.data, "{\"add\":[{\"value\":\"say \\\"a\\\"\",\"tag\":\"t\"},"
                                "{\"value\":\"b\",\"tag\":\"\"}]}");
    buffer_clear(&b);
    assert_int_equal(x_rules_body(&rules, false, 1, 9, &b, NULL), STATUS_OK);
    assert_string_equal(b.data, "{\"delete\":{\"ids\":[\"2\"]}}");
    buffer_free(&b);
    assert_int_equal(x_rules_parse(VIEW("{\"meta\":{}}"), &rules, &next, &err),
                     STATUS_OK);
    assert_null(next);
    assert_int_equal(x_rules_parse(VIEW("[]"), &rules, &next, &err), STATUS_INVALID);
    assert_int_equal(x_rules_parse(VIEW("{\"data\":3}"), &rules, &next, &err),
                     STATUS_INVALID);
    assert_int_equal(x_rules_parse(VIEW("{"), &rules, &next, &err), STATUS_INVALID);
    x_rules_free(&rules);

    assert_int_equal(x_rules_check(VIEW("{\"data\":[]}"), &err), STATUS_OK);
    assert_int_equal(
        x_rules_check(VIEW("{\"errors\":[{\"title\":\"DuplicateRule\"}]}"), &err),
        STATUS_OK);
    assert_int_equal(
        x_rules_check(VIEW("{\"errors\":[{\"title\":\"DuplicateRule\"},{\"title\":"
                           "\"Bad\",\"details\":[\"because\"]}]}"),
                      &err),
        STATUS_INVALID);
    assert_non_null(strstr(err.message, "Bad because"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_a_rule_with_parentheses),
        cmocka_unit_test(rules_are_filled_to_their_length),
        cmocka_unit_test(names_that_cannot_be_rules),
        cmocka_unit_test(the_lint_takes_good_rules),
        cmocka_unit_test(the_lint_finds_what_is_wrong),
        cmocka_unit_test(rules_are_read_from_a_file),
        cmocka_unit_test(rules_are_compared_by_text_and_tag),
        cmocka_unit_test(the_json_of_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
