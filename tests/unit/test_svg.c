/* SPDX-License-Identifier: Apache-2.0
 *
 * test_svg.c - the picture of a sweep: what is in it, where points lie, what cannot be drawn.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/svg.h"

static char *draw(const struct svg_point *points, size_t n, double limit) {
    struct buffer b = {.max_bytes = 1 << 20};
    const struct svg_chart chart = {.title = "a < b & c",
                                    .subtitle = "s",
                                    .x_title = "x",
                                    .y_title = "y",
                                    .names = {"p50", "p90", "p99"},
                                    .points = points,
                                    .n_points = n,
                                    .limit = limit,
                                    .limit_name = "limit"};
    assert_int_equal(svg_draw(&chart, &b, NULL), STATUS_OK);
    return b.data;
}

static size_t count(const char *text, const char *part) {
    size_t n = 0;
    while ((text = strstr(text, part))) {
        n++;
        text += strlen(part);
    }
    return n;
}

static void all_is_in_it(void **state) {
    (void)state;
    const struct svg_point points[] = {
        {100, {1, 2, 4}}, {200, {2, 3, 50}}, {150, {0, 0, 90}}};
    char *svg = draw(points, 3, 180);
    assert_int_equal(count(svg, "<polyline"), 3);
    assert_int_equal(count(svg, "<circle"), 7); /* two have no value */
    assert_int_equal(count(svg, "class=\"e\""), 1);
    assert_int_equal(count(svg, "a &lt; b &amp; c"), 2);
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    assert_non_null(strstr(svg, ">0</text>"));
    assert_non_null(strstr(svg, ">200</text>"));
    assert_non_null(strstr(svg, ">0.5</text>"));
    assert_non_null(strstr(svg, ">100</text>"));
    assert_string_equal(svg + strlen(svg) - 7, "</svg>\n");
    free(svg);
}

/* The ends of the axes: x 0 is at 72, its end at 760 - 84; y grows upwards, in decades of
 * equal height. */
static void points_lie_where_they_should(void **state) {
    (void)state;
    const struct svg_point points[] = {
        {0, {1, 0, 0}}, {500, {10, 0, 0}}, {1000, {100, 0, 0}}};
    char *svg = draw(points, 3, 0);
    double x[3], y[3];
    const char *line = strstr(svg, "points=\"");
    assert_non_null(line);
    char *at = (char *)line + 8;
    for (size_t i = 0; i < 3; i++) {
        x[i] = strtod(at, &at);
        assert_int_equal(*at++, ',');
        y[i] = strtod(at, &at);
    }
    assert_true(fabs(x[0] - 72) < 0.06 && fabs(x[2] - 676) < 0.06);
    assert_true(fabs(x[1] - (72 + 676) / 2.0) < 0.06);
    assert_true(y[0] > y[1] && y[1] > y[2]);
    assert_true(fabs((y[0] - y[1]) - (y[1] - y[2])) < 0.11);
    free(svg);
}

static void names_do_not_overlap(void **state) {
    (void)state;
    const struct svg_point point = {10, {5, 5, 5}};
    char *svg = draw(&point, 1, 0), *at = svg;
    double previous = 1e9;
    for (size_t i = 0; i < 3; i++) {
        char class[] = "class=\"n0\"";
        class[8] = (char)('0' + i);
        at = strstr(svg, class);
        assert_non_null(at);
        while (at[-1] != '<')
            at--;
        double y = strtod(strstr(at, "y=\"") + 3, NULL);
        assert_true(previous - y >= 15.9);
        previous = y;
    }
    free(svg);
}

static void nothing_answered_is_an_error(void **state) {
    (void)state;
    const struct svg_point points[] = {{0, {0, 0, 0}}, {0, {0, 0, 0}}};
    struct buffer b = {.max_bytes = 1 << 20};
    struct svg_chart chart = {.title = "", .points = points, .n_points = 2};
    struct error err;
    assert_int_equal(svg_draw(&chart, &b, &err), STATUS_INVALID);
    chart.n_points = 0;
    assert_int_equal(svg_draw(&chart, &b, &err), STATUS_INVALID);
    buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_in_it),
        cmocka_unit_test(points_lie_where_they_should),
        cmocka_unit_test(names_do_not_overlap),
        cmocka_unit_test(nothing_answered_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
