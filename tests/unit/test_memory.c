/* SPDX-License-Identifier: Apache-2.0
 *
 * test_memory.c - sizes at the edge of size_t, alignment, and a buffer's hard maximum.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

static void test_sizes(void **state) {
    (void)state;
    size_t out;
    assert_true(size_multiply(SIZE_MAX / 2, 2, &out));
    assert_int_equal(out, SIZE_MAX - 1);
    assert_true(size_multiply(SIZE_MAX, 0, &out));
    assert_int_equal(out, 0);
    assert_false(size_multiply(SIZE_MAX / 2 + 1, 2, &out));
    assert_int_equal(out, 0);
    assert_false(size_multiply((size_t)1 << 32, (size_t)1 << 32, &out));
    assert_true(size_add(SIZE_MAX - 1, 1, &out));
    assert_int_equal(out, SIZE_MAX);
    assert_false(size_add(SIZE_MAX, 1, &out));
    assert_int_equal(out, 0);
}

static void test_aligned(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 100000, 4 << 20, (4 << 20) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t alignment = sizes[i] >= 4 << 20 ? 2 << 20 : 64;
        unsigned char *block = memory_aligned(sizes[i]);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % alignment, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            if (block[j] != 0)
                fail_msg("byte %zu of %zu is not zero", j, sizes[i]);
        memset(block, 0xFF, sizes[i]);
        free(block);
    }
    assert_null(memory_aligned(SIZE_MAX));
    assert_null(memory_aligned(SIZE_MAX - 62));
    assert_null(memory_aligned(SIZE_MAX / 2));
}

static void test_buffer_grows(void **state) {
    (void)state;
    struct buffer b = {.max_bytes = 5000};
    struct error err;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(buffer_append(&b, "abcde", 5, &err), STATUS_OK);
    assert_int_equal(b.n_bytes, 5000);
    assert_int_equal(b.data[5000], '\0');
    assert_memory_equal(b.data + 4995, "abcde", 5);
    assert_int_equal(buffer_append(&b, "x", 1, &err), STATUS_LIMIT);
    assert_string_equal(err.message, "buffer is limited to 5000 bytes");
    assert_int_equal(b.n_bytes, 5000);
    assert_int_equal(buffer_append(&b, "x", SIZE_MAX, &err), STATUS_LIMIT);
    assert_int_equal(buffer_append(&b, "", 0, &err), STATUS_OK);
    buffer_clear(&b);
    assert_int_equal(b.n_bytes, 0);
    assert_string_equal(b.data, "");
    buffer_free(&b);
    assert_null(b.data);
    buffer_free(&b);
}

static void test_buffer_prints(void **state) {
    (void)state;
    struct buffer b = {.max_bytes = 300};
    struct error err;
    assert_int_equal(buffer_printf(&b, &err, "%s-%d", "a", 1), STATUS_OK);
    assert_int_equal(buffer_printf(&b, &err, "%0*d", 297, 2), STATUS_OK);
    assert_int_equal(b.n_bytes, 300);
    assert_int_equal(buffer_printf(&b, &err, "x"), STATUS_LIMIT);
    assert_int_equal(b.n_bytes, 300);
    assert_memory_equal(b.data, "a-1000", 6);
    buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_aligned),
        cmocka_unit_test(test_buffer_grows),
        cmocka_unit_test(test_buffer_prints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
