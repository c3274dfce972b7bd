/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_watch_list.c - any bytes as a watch list, and what it finds in any text against a
 * search that tries every name at every place, on word boundaries and anywhere.
 *
 * Input: a watch list, a byte 0xFE, a text.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/select/normalise.h"
#include "client/select/watch_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define MAX_TEXT 600
#define MAX_FOUND 64

static void require(bool is_true) {
    if (!is_true)
        abort();
}

struct plain {
    char text[MAX_TEXT * NORMALISE_GROWTH];
    uint32_t map[MAX_TEXT * NORMALISE_GROWTH];
    size_t n;
};

static bool is_at(const struct plain *p, size_t at, const char *name,
                  bool is_anywhere) {
    size_t n_name = strlen(name), end = at + n_name;
    if (end > p->n || memcmp(p->text + at, name, n_name) != 0 ||
        (at > 0 && p->map[at - 1] == p->map[at]) ||
        (end < p->n && p->map[end - 1] == p->map[end]))
        return false;
    if (is_anywhere)
        return true;
    const uint8_t *bytes = (const uint8_t *)p->text;
    struct view whole = {p->text, p->n};
    return normalise_is_border(normalise_class_before(whole, at),
                               normalise_next(bytes + at, p->n - at).class) &&
           normalise_is_border(normalise_class_before(whole, end),
                               end < p->n
                                   ? normalise_next(bytes + end, p->n - end).class
                                   : NORMALISE_SPACE);
}

/* Code points before a byte. */
static uint32_t points(struct view text, size_t byte) {
    uint32_t n = 0;
    size_t length;
    for (size_t at = 0; at < byte; at += length, n++)
        utf8_decode((const uint8_t *)text.data + at, text.n_bytes - at, &length);
    return n;
}

static void search(struct view list, struct view text, bool is_anywhere) {
    struct watch_list *w = NULL;
    struct watch_match found[MAX_FOUND];
    struct error err = {0};
    enum status status = watch_list_read(list, "list", is_anywhere, &w, &err);
    require((status == STATUS_OK) == (w != NULL));
    if (!w) {
        require(err.message[0] != '\0');
        return;
    }
    size_t n = watch_list_find(w, text, found, MAX_FOUND);
    require(watch_list_is_in(w, text) == (n > 0));
    require(n == 0 || watch_list_may_be_in(w, text));
    static struct plain plain;
    plain.n = normalise_text(text, plain.text, plain.map, sizeof plain.text);
    bool has_stops = list.n_bytes && memchr(list.data, '-', list.n_bytes);
    size_t n_slow = 0;
    for (size_t at = 0; at < plain.n;) {
        size_t n_best = 0;
        for (size_t d = 0; d < watch_list_n_drugs(w); d++) {
            const struct watch_drug *drug = watch_list_drug(w, d);
            for (size_t i = 0; i < drug->n_names; i++)
                if (strlen(drug->names[i]) > n_best &&
                    is_at(&plain, at, drug->names[i], is_anywhere))
                    n_best = strlen(drug->names[i]);
        }
        if (n_best && n_slow < n && n_slow < MAX_FOUND && !has_stops)
            require(found[n_slow].begin_byte == plain.map[at]);
        n_slow += n_best > 0;
        at += n_best ? n_best : 1;
    }
    require(has_stops ? n <= n_slow + plain.n : n == n_slow);
    require(watch_list_may_be_in(w, text) == (n_slow > 0));
    for (size_t i = 0; i < n && i < MAX_FOUND; i++) {
        const struct watch_match *m = &found[i];
        require(m->drug < watch_list_n_drugs(w));
        require(m->name < watch_list_drug(w, m->drug)->n_names);
        require(m->begin_byte < m->end_byte && m->end_byte <= text.n_bytes);
        require(i == 0 || found[i - 1].end_byte <= m->begin_byte);
        require(points(text, m->begin_byte) == m->begin);
        require(points(text, m->end_byte) == m->end);
        char name[MAX_TEXT * NORMALISE_GROWTH];
        size_t n_name = normalise_text(
            view_of(text.data + m->begin_byte, m->end_byte - m->begin_byte), name, NULL,
            sizeof name);
        require(
            view_equal(view_of(name, n_name),
                       view_of_string(watch_list_drug(w, m->drug)->names[m->name])));
    }
    watch_list_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    const uint8_t *mark = n_bytes ? memchr(data, 0xFE, n_bytes) : NULL;
    size_t n_list = mark ? (size_t)(mark - data) : n_bytes;
    struct view list = {(const char *)data, n_list}, text = {NULL, 0};
    if (mark)
        text = view_of((const char *)mark + 1, n_bytes - n_list - 1);
    if (text.n_bytes > MAX_TEXT)
        return 0;
    /* A copy that ends where the text does: a read behind it is seen. */
    char *copy = malloc(text.n_bytes ? text.n_bytes : 1);
    if (!copy)
        return 0;
    if (text.n_bytes)
        memcpy(copy, text.data, text.n_bytes);
    text.data = copy;
    search(list, text, false);
    search(list, text, true);
    free(copy);
    return 0;
}
