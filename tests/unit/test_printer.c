/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store/printer.h"

static const char *const NAMES[] = {"id", "text", "p"};

struct row {
    int64_t id;
    const char *text; /* NULL: null */
    double p;
};

/* What is printed of rows; the caller frees. */
static char *print(struct printer *p, const struct row *rows, size_t n) {
    char *text = NULL;
    size_t n_bytes = 0;
    struct error err;
    p->out = open_memstream(&text, &n_bytes);
    assert_non_null(p->out);
    assert_int_equal(printer_columns(p, NAMES, 3, &err), STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        const struct printer_value values[] = {
            {.type = STATEMENT_INTEGER, .integer = rows[i].id},
            {.type = rows[i].text ? STATEMENT_TEXT : STATEMENT_NULL,
             .text = view_of_string(rows[i].text)},
            {.type = STATEMENT_REAL, .real = rows[i].p}};
        assert_int_equal(printer_row(p, values, 3, &err), STATUS_OK);
    }
    assert_int_equal(printer_end(p, &err), STATUS_OK);
    fclose(p->out);
    printer_free(p);
    return text;
}

static void check(enum printer_format format, bool has_no_header, size_t max_columns,
                  const struct row *rows, size_t n, const char *expected) {
    struct printer p = {.format = format,
                        .has_no_header = has_no_header,
                        .max_cell_columns = max_columns};
    char *text = print(&p, rows, n);
    assert_string_equal(text, expected);
    free(text);
}

static const struct row ROWS[] = {
    {1, "rash", 0.5}, {20, "na\xc3\xafve, \"so\"\nso", 0.1}, {-3, NULL, 1e-9}};

static void test_table(void **state) {
    (void)state;
    check(PRINTER_TABLE, false, 0, ROWS, 3,
          "id  text                p\n"
          "--  --------------  -----\n"
          " 1  rash              0.5\n"
          "20  na\xc3\xafve, \"so\" so    0.1\n"
          "-3                  1e-09\n");
    check(PRINTER_TABLE, true, 0, ROWS, 1, "1  rash  0.5\n");
    check(PRINTER_TABLE, false, 0, NULL, 0, "id  text  p\n--  ----  -\n");
}

/* What a post says must not reach the terminal. */
static void test_controls(void **state) {
    static const struct row rows[] = {{1,
                                       "\x1b[31mred\x07\x7f\xc2\x9b"
                                       "2J\ttab",
                                       0}};
    (void)state;
    check(PRINTER_TABLE, true, 0, rows, 1, "1  ?[31mred???2J tab  0\n");
}

static void test_long_cells(void **state) {
    static const struct row rows[] = {{1, "12345678\xc3\xa9", 0},
                                      {2, "123456789\xc3\xa9", 0}};
    (void)state;
    check(PRINTER_TABLE, true, 9, rows, 2,
          "1  12345678\xc3\xa9  0\n2  12345678\xe2\x80\xa6  0\n");
}

static void test_csv(void **state) {
    (void)state;
    check(
        PRINTER_CSV, false, 0, ROWS, 3,
        "id,text,p\n1,rash,0.5\n20,\"na\xc3\xafve, \"\"so\"\"\nso\",0.1\n-3,,1e-09\n");
    static const struct row empty[] = {{1, "", 0.25}};
    check(PRINTER_CSV, true, 0, empty, 1, "1,\"\",0.25\n");
}

static void test_json(void **state) {
    (void)state;
    check(PRINTER_JSON, false, 0, ROWS, 3,
          "[\n  {\"id\": 1, \"text\": \"rash\", \"p\": 0.5},\n"
          "  {\"id\": 20, \"text\": \"na\xc3\xafve, \\\"so\\\"\\nso\", \"p\": 0.1},\n"
          "  {\"id\": -3, \"text\": null, \"p\": 1e-09}\n]\n");
    check(PRINTER_JSON, false, 0, NULL, 0, "[]\n");
    check(PRINTER_JSONL, false, 0, ROWS, 1,
          "{\"id\": 1, \"text\": \"rash\", \"p\": 0.5}\n");
}

static void test_numbers(void **state) {
    static const struct row rows[] = {{INT64_MIN, "x", 1.0 / 3},
                                      {INT64_MAX, "y", 1e300 * 1e300}};
    (void)state;
    check(PRINTER_JSONL, false, 0, rows, 2,
          "{\"id\": -9223372036854775808, \"text\": \"x\", \"p\": 0.3333333333333333}\n"
          "{\"id\": 9223372036854775807, \"text\": \"y\", \"p\": null}\n");
}

/* A full disk is an error, not half a file. */
static void test_no_space(void **state) {
    struct printer p = {.format = PRINTER_CSV, .out = fopen("/dev/full", "w")};
    struct error err;
    (void)state;
    assert_non_null(p.out);
    assert_int_equal(printer_columns(&p, NAMES, 3, &err), STATUS_OK);
    assert_int_equal(printer_end(&p, &err), STATUS_IO);
    fclose(p.out);
    printer_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),      cmocka_unit_test(test_controls),
        cmocka_unit_test(test_long_cells), cmocka_unit_test(test_csv),
        cmocka_unit_test(test_json),       cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_no_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
