/* SPDX-License-Identifier: Apache-2.0
 *
 * test_selection.c - every allocation of what the selection of posts opens, and of one post's
 * way through it, fails: STATUS_NO_MEMORY, nothing leaks, the next try works.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/select/fold.h"
#include "client/select/privacy.h"
#include "client/select/select.h"
#include "client/select/watch_list.h"
#include "tests/faults/faults.h"

static char key_file[] = "/tmp/vigil-selection-XXXXXX";

static enum status run(struct error *err) {
    struct watch_list *list = NULL;
    struct privacy *privacy = NULL;
    struct selection *selection = NULL;
    struct fold *fold = NULL;
    struct arena arena = {.max_bytes = 1 << 20};
    struct fold_options remembered = {.n_remembered = 100};
    enum status status = watch_list_open(NULL, true, &list, err);
    if (status == STATUS_OK)
        status = privacy_open(key_file, false, STORE_PSEUDONYMOUS, &privacy, err);
    struct select_options options = {.watch_list = list,
                                     .languages = "en",
                                     .detects_language = true,
                                     .privacy = privacy,
                                     .source = "x"};
    if (status == STATUS_OK)
        status = select_open(&options, &selection, err);
    if (status == STATUS_OK)
        status = fold_open(&remembered, &fold, err);
    for (int i = 0; i < 2 && status == STATUS_OK; i++) {
        struct post post = {.native_id = i ? VIEW("1") : VIEW("2"),
                            .text =
                                VIEW("@jane zoloft gave me headaches https://t.co/x"),
                            .author = VIEW("3"),
                            .place = VIEW("Austin, TX")};
        struct store_item items[SELECT_MAX_ITEMS];
        enum select_drop drop;
        size_t n;
        status = select_post(selection, &post, &arena, items, &n, &drop, err);
        if (status == STATUS_OK)
            status = fold_item(fold, &items[0], &arena, err);
        if (status == STATUS_OK && (n != 1 || (items[0].fold != STORE_NO_FOLD) != i))
            status = STATUS_INTERNAL;
    }
    arena_free(&arena);
    fold_close(fold);
    select_close(selection);
    privacy_close(privacy);
    watch_list_close(list);
    return status;
}

static void test_each(void **state) {
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        size_t k = 1;
        for (;; k++) {
            struct error err = {0};
            faults_arm(k, for_ever);
            enum status status = run(&err);
            if (faults_disarm() == 0) {
                assert_int_equal(status, STATUS_OK);
                break;
            }
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_true(strlen(err.message) > 0);
        }
        assert_true(k > 20);
    }
}

static int set_up(void **state) {
    (void)state;
    static const char key[] =
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    int fd = mkstemp(key_file);
    bool is_written = fd >= 0 && write(fd, key, 64) == 64;
    if (fd >= 0)
        close(fd);
    return is_written ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return unlink(key_file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each)};
    return cmocka_run_group_tests_name("selection", tests, set_up, tear_down);
}
