/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_privacy.c - masked text is valid UTF-8, of bounded length, says what the text said
 * outside of addresses, and holds no address of a known shape: looked for by a slow reader of
 * its own. Selection on top of it: offsets of drugs are where the drugs are.
 *
 * Input: any text.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/file.h"
#include "base/utf8.h"
#include "client/select/normalise.h"
#include "client/select/privacy.h"
#include "client/select/select.h"
#include "client/select/watch_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static struct privacy *hides, *full;
static struct selection *selection;
static struct watch_list *list;

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static void open_all(void) {
    static const char key[] =
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    char path[] = "/tmp/vigil-fuzz-key-XXXXXX";
    int fd = mkstemp(path);
    require(fd >= 0 && write(fd, key, 64) == 64);
    close(fd);
    require(privacy_open(path, false, STORE_PSEUDONYMOUS, &hides, NULL) == STATUS_OK);
    require(privacy_open(path, false, STORE_FULL, &full, NULL) == STATUS_OK);
    unlink(path);
    require(watch_list_read(VIEW("sertraline: zoloft, -cat\nlithium: li, plan b"),
                            "list", false, &list, NULL) == STATUS_OK);
    struct select_options options = {
        .watch_list = list, .privacy = hides, .source = "fuzz"};
    require(select_open(&options, &selection, NULL) == STATUS_OK);
}

static bool is_alnum(char c) {
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static void require_valid(struct view v) {
    size_t length;
    for (size_t at = 0; at < v.n_bytes; at += length) {
        require(v.data[at] != 0);
        uint32_t c = utf8_decode((const uint8_t *)v.data + at, v.n_bytes - at, &length);
        require(c != UTF8_REPLACEMENT || length == 3);
    }
}

/* No neighbour that is a letter or digit of any script. */
static bool is_free(struct view v, size_t begin, size_t end) {
    const uint8_t *p = (const uint8_t *)v.data;
    if (begin > 0 && (is_alnum(v.data[begin - 1]) ||
                      normalise_class_before(v, begin) == NORMALISE_WORD ||
                      normalise_class_before(v, begin) == NORMALISE_UNSPACED ||
                      p[begin - 1] >= 0x80))
        return false;
    return end == v.n_bytes || (!is_alnum(v.data[end]) && p[end] < 0x80);
}

/* ddd-ddd-dddd of the North American plan, with no unit behind it. */
static bool is_american(struct view v, size_t at) {
    static const char shape[] = "NddSNddSdddd";
    if (v.n_bytes - at < 12)
        return false;
    for (size_t i = 0; i < 12; i++) {
        char c = v.data[at + i];
        if (shape[i] == 'S' ? c != '-' : !is_digit(c) || (shape[i] == 'N' && c < '2'))
            return false;
    }
    size_t end = at + 12;
    return is_free(v, at, end) &&
           (end == v.n_bytes || v.data[end] == '\n' || v.data[end] == '!');
}

static void require_masked(struct view v) {
    for (size_t at = 0; at < v.n_bytes; at++) {
        size_t left = v.n_bytes - at;
        const char *p = v.data + at;
        if (*p == '@' && left > 1 && (is_alnum(p[1]) || p[1] == '_'))
            require(left >= 5 && (memcmp(p, "@user", 5) == 0 || /* '@', then a link */
                                  memcmp(p, "@http", 5) == 0));
        if (left > 3 && memcmp(p, "://", 3) == 0 && is_alnum(p[3]) && at > 0)
            require(
                !((v.data[at - 1] | 0x20) >= 'a' && (v.data[at - 1] | 0x20) <= 'z'));
        require(!is_american(v, at));
        if (*p == '+' && is_free(v, at, at)) {
            size_t n = 1;
            while (n < left && is_digit(p[n]))
                n++;
            if (n > 8 && n <= 16 && (n == left || p[n] == '\n'))
                require(at > 0 && v.data[at - 1] != ' ' && v.data[at - 1] != '\n');
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (!selection)
        open_all();
    if (n_bytes > 4096)
        return 0;
    char *copy = malloc(n_bytes ? n_bytes : 1);
    if (!copy)
        return 0;
    if (n_bytes)
        memcpy(copy, data, n_bytes);
    struct view text = {copy, n_bytes}, masked, plain;
    struct arena arena = {.max_bytes = 1 << 20};
    require(privacy_mask(hides, text, &arena, &masked, NULL) == STATUS_OK);
    require(privacy_mask(full, text, &arena, &plain, NULL) == STATUS_OK);
    require(masked.n_bytes <= 3 * n_bytes && plain.n_bytes <= 3 * n_bytes);
    require_valid(masked);
    require_valid(plain);
    require_masked(masked);

    struct post post = {.native_id = VIEW("1"), .text = text, .place = text};
    struct store_item items[SELECT_MAX_ITEMS];
    enum select_drop drop;
    size_t n_items;
    require(select_post(selection, &post, &arena, items, &n_items, &drop, NULL) ==
            STATUS_OK);
    require((n_items == 1) == (drop == SELECT_KEPT));
    struct watch_match matches[32];
    if (n_items) {
        size_t n = watch_list_find(list, items[0].text, matches, 32);
        require(n > 0);
        require_valid(items[0].text);
        require_masked(items[0].text);
        require_masked(items[0].place);
    } else if (drop == SELECT_NO_DRUG) {
        require(!watch_list_is_in(list, masked));
    }
    arena_free(&arena);
    free(copy);
    return 0;
}
