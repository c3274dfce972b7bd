/* SPDX-License-Identifier: Apache-2.0
 *
 * test_place.c - what free text of profiles says of places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/select/place.h"

static const struct {
    const char *text, *wanted; /* city|state|country */
} rows[] = {
    {"NYC", "New York|US-NY|US"},
    {"New York, NY", "New York|US-NY|US"},
    {"Brooklyn, New York", "New York|US-NY|US"},
    {"Austin, TX", "Austin|US-TX|US"},
    {"austin, tx", "Austin|US-TX|US"},
    {"Austin TX \xF0\x9F\xA4\xA0", "Austin|US-TX|US"},
    {"somewhere in Ohio", "|US-OH|US"},
    {"London, UK", "London||GB"},
    {"london", "London||GB"},
    {"London, Ontario", "London||CA"},
    {"Paris", "Paris||FR"},
    {"Paris, TX", "Paris|US-TX|US"},
    {"Paris, France", "Paris||FR"},
    {"Georgia", "||"},
    {"Georgia, USA", "|US-GA|US"},
    {"Atlanta, Georgia", "Atlanta|US-GA|US"},
    {"Tbilisi, Georgia", "Tbilisi||GE"},
    {"Georgia \xF0\x9F\x87\xBA\xF0\x9F\x87\xB8", "|US-GA|US"},
    {"Columbus, GA", "Columbus|US-GA|US"},
    {"Columbus", "Columbus|US-OH|US"},
    {"Springfield, IL", "Springfield|US-IL|US"},
    {"Portland, Maine", "Portland|US-ME|US"},
    {"Portland", "Portland|US-OR|US"},
    {"Kansas City", "Kansas City|US-MO|US"},
    {"Kansas City, Kansas", "Kansas City|US-KS|US"},
    {"Birmingham", "Birmingham||GB"},
    {"Birmingham, AL", "Birmingham|US-AL|US"},
    {"LA", "Los Angeles|US-CA|US"},
    {"L.A. / NYC", "Los Angeles|US-CA|US"},
    {"New Orleans, LA", "New Orleans|US-LA|US"},
    {"la la land", "||"},
    {"Washington, D.C.", "Washington|US-DC|US"},
    {"Seattle, Washington", "Seattle|US-WA|US"},
    {"Washington state", "|US-WA|US"},
    {"CA", "|US-CA|US"},
    {"Toronto, CA", "Toronto||CA"},
    {"Berlin, DE", "Berlin||DE"},
    {"California, USA", "|US-CA|US"},
    {"SoCal", "|US-CA|US"},
    {"Virginia", "|US-VA|US"},
    {"West Virginia", "|US-WV|US"},
    {"New Mexico", "|US-NM|US"},
    {"Mexico", "||MX"},
    {"m\xC3\xA9xico", "||MX"},
    {"M\xC3\xBCnchen", "Munich||DE"},
    {"\xE6\x9D\xB1\xE4\xBA\xAC", "Tokyo||JP"},
    {"\xF0\x9F\x87\xA9\xF0\x9F\x87\xAA", "||DE"},
    {"she/her \xF0\x9F\x87\xAC\xF0\x9F\x87\xA7 \xF0\x9F\x87", "||GB"},
    {"St. Louis", "St Louis|US-MO|US"},
    {"Winston-Salem, NC", "Winston-Salem|US-NC|US"},
    {"Orange", "||"},
    {"Orange, CA", "Orange|US-CA|US"},
    {"Phoenix, Arizona", "Phoenix|US-AZ|US"},
    {"in your head", "||"},
    {"HELP ME OR ELSE", "||"},
    {"I LIVE IN YOUR WALLS", "||"},
    {"Planet Earth", "||"},
    {"the moon, mom's house", "||"},
    {"", "||"},
    {"\xFF\xFE ,,,", "||"},
    {"Hollywood", "Los Angeles|US-CA|US"},
    {"Scotland", "||GB"},
    {"Lagos, Nigeria", "Lagos||NG"},
    {"Lima, Ohio", "Lima|US-OH|US"},
};

static void test_places(void **state) {
    (void)state;
    struct place_names *names;
    struct error err;
    size_t n_wrong = 0;
    if (place_open(&names, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char found[128];
        struct place place = place_find(names, view_of_string(rows[i].text));
        snprintf(found, sizeof found, "%.*s|%.*s|%.*s", (int)place.city.n_bytes,
                 place.city.data, (int)place.state.n_bytes, place.state.data,
                 (int)place.country.n_bytes, place.country.data);
        if (strcmp(found, rows[i].wanted) != 0) {
            print_error("'%s' is %s, not %s\n", rows[i].text, found, rows[i].wanted);
            n_wrong++;
        }
    }
    assert_int_equal(n_wrong, 0);
    static char large[100000];
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = "Paris, "[i % 7];
    assert_int_equal(place_find(names, view_of(large, sizeof large)).city.n_bytes, 5);
    memset(large, 'x', sizeof large);
    assert_int_equal(place_find(names, view_of(large, sizeof large)).city.n_bytes, 0);
    place_close(names);
    place_close(NULL);
}

static void test_list(void **state) {
    (void)state;
    static const char *const bad[] = {
        "USA: x",      "US: a b c d e f",     "US: ,",
        "US: x: City", "US: x: City 3 (x) y", "US-CAL: x"};
    struct place_names *names;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(place_read(view_of_string(bad[i]), &names, NULL),
                         STATUS_INVALID);
    assert_int_equal(
        place_read(VIEW("# nothing\n\nXX: Nowhere: Town 1 (?Village)"), &names, NULL),
        STATUS_OK);
    assert_string_equal(place_find(names, VIEW("town")).country.data, "XX");
    assert_null(place_find(names, VIEW("village")).country.data);
    assert_string_equal(place_find(names, VIEW("village, nowhere")).city.data, "Town");
    place_close(names);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_places),
                                       cmocka_unit_test(test_list)};
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
