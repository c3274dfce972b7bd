/* SPDX-License-Identifier: Apache-2.0
 *
 * test_language.c - tags, sets of them, and the guess where there is no tag.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "client/select/language.h"

static void test_primary(void **state) {
    (void)state;
    static const char *const rows[][2] = {{"en", "en"},
                                          {"EN-us", "en"},
                                          {"pt_BR", "pt"},
                                          {"zh-Hans-CN", "zh"},
                                          {"in", "id"},
                                          {"iw", "he"},
                                          {"fil", "fil"},
                                          {"und", ""},
                                          {"qme", ""},
                                          {"zxx", ""},
                                          {"", ""},
                                          {"e", ""},
                                          {"e1", ""},
                                          {"-en", ""},
                                          {"abcdefghi", ""},
                                          {"abcdefgh", "abcdefgh"},
                                          {"que-PE", "que"},
                                          {"qtz", ""},
                                          {"\xC3\xA9n-us", ""}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[LANGUAGE_TAG_BYTES];
        bool is_one = language_primary(view_of_string(rows[i][0]), out);
        assert_string_equal(out, rows[i][1]);
        assert_int_equal(is_one, rows[i][1][0] != '\0');
    }
}

static void test_sets(void **state) {
    (void)state;
    struct language_set set;
    struct error err;
    assert_int_equal(language_set_read("en, pt-BR,,iw", &set, &err), STATUS_OK);
    assert_int_equal(set.n_tags, 3);
    assert_true(language_set_has(&set, VIEW("en-GB")));
    assert_true(language_set_has(&set, VIEW("pt")));
    assert_true(language_set_has(&set, VIEW("he")));
    assert_false(language_set_has(&set, VIEW("es")));
    assert_true(language_set_has(&set, VIEW("")));
    assert_true(language_set_has(&set, VIEW("und")));
    static const char *const all[] = {NULL, "", "any"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(language_set_read(all[i], &set, &err), STATUS_OK);
        assert_true(language_set_has(&set, VIEW("tlh")));
    }
    assert_int_equal(language_set_read("en,1x", &set, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "'1x'"));
    char many[4 * LANGUAGE_MAX_SET + 8] = "en";
    for (int i = 0; i < LANGUAGE_MAX_SET; i++)
        memcpy(many + 2 + 3 * i, ",en", 4);
    assert_int_equal(language_set_read(many, &set, &err), STATUS_LIMIT);
}

static const char *const texts[][2] = {
    {"I started taking this last week and now I cannot sleep at night, my head hurts "
     "and I "
     "feel dizzy all the time",
     "en"},
    {"MY DOCTOR TOLD ME THAT I SHOULD STOP TAKING THIS MEDICINE BECAUSE OF THE "
     "HEADACHES",
     "en"},
    {"Empec\xC3\xA9 a tomar esta medicina la semana pasada y ahora no puedo dormir por "
     "la "
     "noche, me duele mucho la cabeza",
     "es"},
    {"Ich nehme das Medikament seit einer Woche und kann nachts nicht mehr schlafen, "
     "mir ist "
     "immer schwindelig",
     "de"},
    {"J'ai commenc\xC3\xA9 \xC3\xA0 prendre ce m\xC3\xA9"
     "dicament la semaine derni\xC3\xA8re et depuis je ne dors plus, j'ai mal \xC3\xA0 "
     "la "
     "t\xC3\xAAte",
     "fr"},
    {"\xD0\xAF \xD0\xBD\xD0\xB0\xD1\x87\xD0\xB0\xD0\xBB\xD0\xB0 "
     "\xD0\xBF\xD1\x80\xD0\xB8\xD0"
     "\xBD\xD0\xB8\xD0\xBC\xD0\xB0\xD1\x82\xD1\x8C \xD1\x8D\xD1\x82\xD0\xBE "
     "\xD0\xBB\xD0\xB5"
     "\xD0\xBA\xD0\xB0\xD1\x80\xD1\x81\xD1\x82\xD0\xB2\xD0\xBE \xD0\xBD\xD0\xB0 "
     "\xD0\xBF\xD1"
     "\x80\xD0\xBE\xD1\x88\xD0\xBB\xD0\xBE\xD0\xB9 "
     "\xD0\xBD\xD0\xB5\xD0\xB4\xD0\xB5\xD0\xBB"
     "\xD0\xB5",
     "ru"},
    {"the pero with la cabeza muy dizzy today entonces yes but que no sleep", ""},
    {"zoloft made me sick", ""},
    {"", ""},
    {"@user @user #thisisalongtagthatsaysnothing https://t.co/averylonglinkindeed "
     "@user ok "
     "#andanotherone",
     ""}};

static struct language *language;

static void *detect_all(void *failed) {
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
            if (strcmp(language_detect(language, view_of_string(texts[i][0])),
                       texts[i][1]) != 0)
                *(size_t *)failed = i + 1;
    return NULL;
}

static void test_detects(void **state) {
    (void)state;
    struct error err;
    if (language_open(&language, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_string_equal(language_detect(language, view_of_string(texts[i][0])),
                            texts[i][1]);
    static char large[200000];
    memset(large, 'x', sizeof large);
    language_detect(language, view_of(large, sizeof large));
    memset(large, ' ', sizeof large);
    assert_string_equal(language_detect(language, view_of(large, sizeof large)), "");
    pthread_t threads[4];
    size_t failed[4] = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, detect_all, &failed[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(failed[i], 0);
    }
    language_close(language);
    language_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_primary),
                                       cmocka_unit_test(test_sets),
                                       cmocka_unit_test(test_detects)};
    return cmocka_run_group_tests_name("language", tests, NULL, NULL);
}
