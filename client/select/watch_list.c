/* SPDX-License-Identifier: Apache-2.0 */
#include "client/select/watch_list.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "client/select/normalise.h"
#include "client/select/watch_list_data.h"

/* Names, each rounded up, and their tables: of the largest file less than this. */
#define MAX_ARENA_BYTES ((size_t)256 << 20)

extern const char watch_list_default[];
__asm__(".section .rodata\n"
        ".global watch_list_default\n"
        "watch_list_default:\n"
        ".incbin \"client/select/watch_list.txt\"\n"
        ".byte 0\n"
        ".previous\n");

/* A name while the file is read. */
struct entry {
    struct view text;
    struct watch_reference to;
    size_t line;
};

struct reader {
    struct watch_list *list;
    const char *path;
    size_t line;
    struct entry *names;
    size_t n_names, cap_names;
    struct view stops[WATCH_MAX_STOPS]; /* of the drug at hand */
    size_t n_stops;
};

static enum status refuse(const struct reader *r, struct error *err, const char *why) {
    return error_set(err, STATUS_INVALID, "%s:%zu: %s", r->path, r->line, why);
}

static enum status no_memory(const struct reader *r, struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory for the watch list",
                     r->path);
}

static bool is_valid_utf8(struct view v) {
    size_t length;
    for (size_t i = 0; i < v.n_bytes; i += length) {
        const uint8_t *p = (const uint8_t *)v.data + i;
        if (utf8_decode(p, v.n_bytes - i, &length) == UTF8_REPLACEMENT && length == 1)
            return false;
    }
    return true;
}

/* Normalises what stands between two commas into the arena. */
static enum status read_name(struct reader *r, struct view raw, struct view *out,
                             struct error *err) {
    char name[WATCH_MAX_NAME_BYTES + NORMALISE_MAX_BYTES + 1];
    if (!is_valid_utf8(raw))
        return refuse(r, err, "not UTF-8");
    size_t n = normalise_text(raw, name, NULL, sizeof name);
    if (n == 0)
        return refuse(r, err, "an empty name");
    if (n > WATCH_MAX_NAME_BYTES)
        return refuse(r, err, "a name is too long, at most 128 bytes");
    if (n == 1)
        return refuse(r, err, "a name of one letter");
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)name[i] < 0x20 || name[i] == '"' || name[i] == '\\' ||
            name[i] == 0x7F)
            return refuse(r, err, "a name with a quote, a backslash or a control");
    enum normalise_class first = normalise_next((const uint8_t *)name, n).class;
    if (first != NORMALISE_WORD && first != NORMALISE_UNSPACED)
        return refuse(r, err, "a name begins with a letter or a digit");
    return arena_copy(&r->list->arena, view_of(name, n), out, err);
}

static enum status add_name(struct reader *r, struct view raw, uint32_t name,
                            struct error *err) {
    if (r->n_names == WATCH_MAX_NAMES)
        return error_set(err, STATUS_LIMIT, "%s:%zu: more than %d names", r->path,
                         r->line, WATCH_MAX_NAMES);
    if (r->n_names == r->cap_names) {
        size_t cap = r->cap_names ? 2 * r->cap_names : 1024;
        struct entry *names = realloc(r->names, cap * sizeof *names);
        if (!names)
            return no_memory(r, err);
        r->names = names;
        r->cap_names = cap;
    }
    struct entry *entry = &r->names[r->n_names];
    enum status status = read_name(r, raw, &entry->text, err);
    if (status != STATUS_OK)
        return status;
    entry->to = (struct watch_reference){(uint32_t)r->list->n_drugs, name};
    entry->line = r->line;
    r->n_names++;
    return STATUS_OK;
}

static enum status add_stop(struct reader *r, struct view raw, struct error *err) {
    if (r->n_stops == WATCH_MAX_STOPS)
        return refuse(r, err, "too many stop words, at most 64");
    struct view *word = &r->stops[r->n_stops];
    enum status status = read_name(r, raw, word, err);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < word->n_bytes;) {
        struct normalised c =
            normalise_next((const uint8_t *)word->data + i, word->n_bytes - i);
        if (c.class != NORMALISE_WORD && c.class != NORMALISE_UNSPACED)
            return refuse(r, err, "a stop word is one word");
        i += c.n_source;
    }
    r->n_stops++;
    return STATUS_OK;
}

static struct view trim(struct view v) {
    while (v.n_bytes && (*v.data == ' ' || *v.data == '\t' || *v.data == '\r'))
        v = view_of(v.data + 1, v.n_bytes - 1);
    while (v.n_bytes &&
           (v.data[v.n_bytes - 1] == ' ' || v.data[v.n_bytes - 1] == '\t' ||
            v.data[v.n_bytes - 1] == '\r'))
        v.n_bytes--;
    return v;
}

/* What stands before the first of a sign; *rest is what follows. */
static struct view cut(struct view v, char sign, struct view *rest) {
    const char *at = v.n_bytes ? memchr(v.data, sign, v.n_bytes) : NULL;
    size_t n = at ? (size_t)(at - v.data) : v.n_bytes;
    *rest = at ? view_of(at + 1, v.n_bytes - n - 1) : view_of(NULL, 0);
    return view_of(v.data, n);
}

/* The drug of a line is whole: its tables move into the arena. */
static enum status add_drug(struct reader *r, size_t first_name, struct error *err) {
    struct watch_list *w = r->list;
    if (w->n_drugs == w->cap_drugs) {
        size_t cap = w->cap_drugs ? 2 * w->cap_drugs : 64;
        struct watch_drug *drugs = realloc(w->drugs, cap * sizeof *drugs);
        if (drugs)
            w->drugs = drugs;
        struct watch_stops *stops = realloc(w->stops, cap * sizeof *stops);
        if (stops)
            w->stops = stops;
        if (!drugs || !stops)
            return no_memory(r, err);
        w->cap_drugs = cap;
    }
    size_t n = r->n_names - first_name;
    const char **names = arena_take(&w->arena, n * sizeof *names);
    struct view *stops = arena_take(&w->arena, r->n_stops * sizeof *stops);
    if (!names || !stops)
        return no_memory(r, err);
    for (size_t i = 0; i < n; i++)
        names[i] = r->names[first_name + i].text.data;
    if (r->n_stops)
        memcpy(stops, r->stops, r->n_stops * sizeof *stops);
    w->drugs[w->n_drugs] = (struct watch_drug){names[0], names, n};
    w->stops[w->n_drugs] = (struct watch_stops){stops, r->n_stops};
    w->n_drugs++;
    return STATUS_OK;
}

static enum status read_line(struct reader *r, struct view line, struct error *err) {
    struct view rest, unused;
    line = trim(cut(line, '#', &unused));
    if (line.n_bytes == 0)
        return STATUS_OK;
    if (memchr(line.data, ',', line.n_bytes) && !memchr(line.data, ':', line.n_bytes))
        return refuse(r, err, "no ':' behind the generic name");
    size_t first = r->n_names;
    r->n_stops = 0;
    enum status status = add_name(r, cut(line, ':', &rest), 0, err);
    for (rest = trim(rest); status == STATUS_OK && rest.n_bytes > 0;) {
        bool is_last = !memchr(rest.data, ',', rest.n_bytes);
        struct view word = trim(cut(rest, ',', &rest));
        if (word.n_bytes && *word.data == '-')
            status = add_stop(r, view_of(word.data + 1, word.n_bytes - 1), err);
        else
            status = add_name(r, word, (uint32_t)(r->n_names - first), err);
        if (status == STATUS_OK && !is_last && rest.n_bytes == 0)
            status = refuse(r, err, "an empty name");
    }
    return status == STATUS_OK ? add_drug(r, first, err) : status;
}

static int compare(const void *left, const void *right) {
    const struct entry *a = left, *b = right;
    size_t n = a->text.n_bytes < b->text.n_bytes ? a->text.n_bytes : b->text.n_bytes;
    int order = memcmp(a->text.data, b->text.data, n);
    if (order == 0 && a->text.n_bytes != b->text.n_bytes)
        order = a->text.n_bytes < b->text.n_bytes ? -1 : 1;
    if (order == 0)
        order = a->to.drug < b->to.drug   ? -1
                : a->to.drug > b->to.drug ? 1
                : a->to.name < b->to.name ? -1
                                          : 1;
    return order;
}

/* The beginning of a name goes into the filter, unless it is not plain ASCII: then text that
 * has it is not either, and is not asked for. */
static void add_to_filter(struct watch_list *w, struct view name) {
    uint64_t key = 0;
    for (size_t i = 0; i < 8 && i < name.n_bytes; i++) {
        uint8_t c = (uint8_t)name.data[i];
        if (c >= 0x80)
            return;
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9'))
            break;
        key |= (uint64_t)c << 8 * i;
    }
    uint32_t hash = watch_list_hash(key);
    w->filter[hash / 64] |= UINT64_C(1) << hash % 64;
}

static enum status build(struct reader *r, struct error *err) {
    struct watch_list *w = r->list;
    enum status status = STATUS_OK;
    struct view *names = calloc(r->n_names ? r->n_names : 1, sizeof *names);
    w->references = calloc(r->n_names ? r->n_names : 1, sizeof *w->references);
    if (!names || !w->references) {
        free(names);
        return no_memory(r, err);
    }
    if (r->n_names)
        qsort(r->names, r->n_names, sizeof *r->names, compare);
    size_t n = 0;
    for (size_t i = 0; i < r->n_names && status == STATUS_OK; i++) {
        const struct entry *entry = &r->names[i];
        if (n > 0 && view_equal(names[n - 1], entry->text)) {
            if (w->references[n - 1].drug != entry->to.drug) {
                r->line = entry->line;
                status = refuse(r, err, "a name that another drug has");
            }
            continue;
        }
        names[n] = entry->text;
        w->references[n++] = entry->to;
        add_to_filter(w, entry->text);
    }
    if (status == STATUS_OK)
        status = watch_trie_build(names, n, w->matches_substrings, &w->trie, err);
    free(names);
    return status;
}

enum status watch_list_read(struct view file, const char *name, bool matches_substrings,
                            struct watch_list **out, struct error *err) {
    struct reader r = {.path = name, .list = calloc(1, sizeof *r.list)};
    *out = NULL;
    if (!r.list)
        return no_memory(&r, err);
    r.list->arena.max_bytes = MAX_ARENA_BYTES;
    r.list->matches_substrings = matches_substrings;
    for (uint8_t c = 0; c < 128; c++)
        r.list->plain[c] = *normalise_next(&c, 1).bytes;
    enum status status = STATUS_OK;
    if (view_starts_with(file, VIEW("\xEF\xBB\xBF")))
        file = view_of(file.data + 3, file.n_bytes - 3);
    while (status == STATUS_OK && file.n_bytes > 0) {
        r.line++;
        struct view line = cut(file, '\n', &file);
        status = read_line(&r, line, err);
    }
    if (status == STATUS_OK && r.list->n_drugs == 0)
        status = error_set(err, STATUS_INVALID, "%s: no names in it", name);
    if (status == STATUS_OK)
        status = build(&r, err);
    free(r.names);
    if (status == STATUS_OK)
        *out = r.list;
    else
        watch_list_close(r.list);
    return status;
}

enum status watch_list_open(const char *path, bool matches_substrings,
                            struct watch_list **out, struct error *err) {
    *out = NULL;
    if (!path) {
        struct view file = view_of_string(watch_list_default);
        return watch_list_read(file, "the watch list", matches_substrings, out, err);
    }
    char *data = NULL;
    size_t n_bytes = 0;
    enum status status = file_read(path, WATCH_MAX_FILE_BYTES, &data, &n_bytes, err);
    if (status == STATUS_OK)
        status =
            watch_list_read(view_of(data, n_bytes), path, matches_substrings, out, err);
    free(data);
    return status;
}

void watch_list_close(struct watch_list *w) {
    if (!w)
        return;
    watch_trie_free(&w->trie);
    free(w->drugs);
    free(w->stops);
    free(w->references);
    arena_free(&w->arena);
    free(w);
}

size_t watch_list_n_drugs(const struct watch_list *w) {
    return w->n_drugs;
}

const struct watch_drug *watch_list_drug(const struct watch_list *w, size_t n) {
    return &w->drugs[n];
}
