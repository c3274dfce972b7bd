/* SPDX-License-Identifier: Apache-2.0 */
#include "client/select/language.h"

#include <errno.h>
#include <libexttextcat/textcat.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/select/normalise.h"

#define DATA "/usr/share/libexttextcat/"
#define MAX_IDLE 16
#define MIN_LETTERS 40
#define MAX_TEXT_BYTES 512 /* a few hundred are enough, says the library */

/* The frequent ones, also of posts in the library's data. Of all 185 the rare relatives of
 * English (Scots, Frisian) win too often, and it takes five times as long. */
static const char *const languages[] = {
    "en", "es", "pt", "fr", "de", "it", "nl", "sv",      "da",     "nb",
    "fi", "pl", "cs", "sk", "hu", "ro", "bg", "ru",      "uk",     "el",
    "tr", "ar", "fa", "he", "hi", "bn", "ta", "ur",      "th",     "vi",
    "id", "ms", "tl", "ja", "ko", "ca", "hr", "zh-Hans", "zh-Hant"};
#define N_LANGUAGES (sizeof languages / sizeof languages[0])

/* ---- Tags ---- */

static char lower(char c) {
    return (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

bool language_primary(struct view tag, char out[LANGUAGE_TAG_BYTES]) {
    static const char *const none[] = {"und", "zxx", "mul", "mis", "art"};
    static const char *const renamed[][2] = {{"iw", "he"}, {"in", "id"}, {"ji", "yi"}};
    size_t n = 0;
    out[0] = '\0';
    while (n < tag.n_bytes && tag.data[n] != '-' && tag.data[n] != '_') {
        char c = lower(tag.data[n]);
        if (c < 'a' || c > 'z' || n + 1 >= LANGUAGE_TAG_BYTES) {
            out[0] = '\0';
            return false;
        }
        out[n++] = c;
    }
    out[n] = '\0';
    bool is_one = n >= 2 && !(n == 3 && out[0] == 'q' && out[1] <= 't');
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        is_one = is_one && strcmp(out, none[i]) != 0;
    if (!is_one)
        out[0] = '\0';
    for (size_t i = 0; i < sizeof renamed / sizeof renamed[0]; i++)
        if (strcmp(out, renamed[i][0]) == 0)
            memcpy(out, renamed[i][1], 3);
    return is_one;
}

enum status language_set_read(const char *text, struct language_set *out,
                              struct error *err) {
    out->n_tags = 0;
    if (!text || strcmp(text, "any") == 0)
        return STATUS_OK;
    while (*text) {
        size_t n = strcspn(text, ", ");
        if (n > 0) {
            if (out->n_tags == LANGUAGE_MAX_SET)
                return error_set(err, STATUS_LIMIT, "more than %d languages",
                                 LANGUAGE_MAX_SET);
            if (!language_primary(view_of(text, n), out->tags[out->n_tags]))
                return error_set(
                    err, STATUS_INVALID,
                    "no language is called '%.*s': expected tags such as en "
                    "or pt-BR, between commas, or any",
                    (int)(n < 32 ? n : 32), text);
            out->n_tags++;
        }
        text += n + (text[n] != '\0');
    }
    return STATUS_OK;
}

bool language_set_has(const struct language_set *set, struct view tag) {
    char primary[LANGUAGE_TAG_BYTES];
    if (set->n_tags == 0 || !language_primary(tag, primary))
        return true;
    for (size_t i = 0; i < set->n_tags; i++)
        if (strcmp(set->tags[i], primary) == 0)
            return true;
    return false;
}

/* ---- The guess ---- */

struct guesser {
    void *handle;
    candidate_t *candidates;
};

struct language {
    pthread_mutex_t lock;
    int conf_fd; /* the names of the data files, in memory */
    struct guesser idle[MAX_IDLE];
    size_t n_idle;
};

static void guesser_close(struct guesser *g) {
    if (g->candidates)
        textcat_ReleaseClassifyFullOutput(g->handle, g->candidates);
    if (g->handle)
        textcat_Done(g->handle);
    *g = (struct guesser){0};
}

static bool guesser_open(const struct language *l, struct guesser *out) {
    char conf[64];
    snprintf(conf, sizeof conf, "/proc/self/fd/%d", l->conf_fd);
    *out = (struct guesser){.handle = special_textcat_Init(conf, DATA)};
    if (out->handle)
        out->candidates = textcat_GetClassifyFullOutput(out->handle);
    if (!out->candidates) {
        guesser_close(out);
        return false;
    }
    return true;
}

enum status language_open(struct language **out, struct error *err) {
    *out = NULL;
    struct language *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(err, STATUS_NO_MEMORY, "no memory for the languages");
    pthread_mutex_init(&l->lock, NULL);
    enum status status = STATUS_OK;
    l->conf_fd = memfd_create("languages", MFD_CLOEXEC);
    if (l->conf_fd < 0)
        status = error_set(err, STATUS_IO, "cannot make a file in memory: %s",
                           strerror(errno));
    size_t n_found = 0;
    for (size_t i = 0; i < N_LANGUAGES && status == STATUS_OK; i++) {
        char path[sizeof DATA + 16];
        snprintf(path, sizeof path, DATA "%s.lm", languages[i]);
        if (access(path, R_OK) != 0)
            continue;
        if (dprintf(l->conf_fd, "%s.lm %s\n", languages[i], languages[i]) < 0)
            status = error_set(err, STATUS_IO, "cannot write a file in memory: %s",
                               strerror(errno));
        n_found++;
    }
    if (status == STATUS_OK && (n_found < 2 || !guesser_open(l, &l->idle[0])))
        status = error_set(err, STATUS_NOT_FOUND,
                           "cannot read the languages in " DATA
                           ": install libexttextcat-data");
    if (status != STATUS_OK) {
        language_close(l);
        return status;
    }
    l->n_idle = 1;
    *out = l;
    return STATUS_OK;
}

void language_close(struct language *l) {
    if (!l)
        return;
    for (size_t i = 0; i < l->n_idle; i++)
        guesser_close(&l->idle[i]);
    if (l->conf_fd >= 0)
        close(l->conf_fd);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static bool take_guesser(struct language *l, struct guesser *out) {
    bool has_one = false;
    pthread_mutex_lock(&l->lock);
    if (l->n_idle > 0) {
        *out = l->idle[--l->n_idle];
        has_one = true;
    }
    pthread_mutex_unlock(&l->lock);
    return has_one || guesser_open(l, out);
}

static void give_guesser(struct language *l, struct guesser *g) {
    pthread_mutex_lock(&l->lock);
    if (l->n_idle < MAX_IDLE) {
        l->idle[l->n_idle++] = *g;
        *g = (struct guesser){0};
    }
    pthread_mutex_unlock(&l->lock);
    guesser_close(g);
}

/* Text without words that begin with '@' or '#' or hold "http"; all of it in lower case when
 * most of it is in capitals. Returns its length, *n_letters how many letters it has. */
static size_t clean(struct view text, char out[MAX_TEXT_BYTES], size_t *n_letters) {
    const uint8_t *p = (const uint8_t *)text.data;
    size_t n = 0, n_upper = 0, word = 0, letters = 0, at = 0;
    bool is_noise = false, is_at_start = true;
    *n_letters = 0;
    while (at < text.n_bytes) {
        struct normalised c = normalise_next(p + at, text.n_bytes - at);
        if (c.class == NORMALISE_SPACE) {
            if (!is_noise && n < MAX_TEXT_BYTES) {
                *n_letters += letters;
                out[n++] = ' ';
            } else {
                n = word;
            }
            word = n;
            letters = 0;
            is_noise = false;
            is_at_start = true;
        } else {
            is_noise = is_noise || (is_at_start && (p[at] == '@' || p[at] == '#')) ||
                       (text.n_bytes - at >= 4 && memcmp(p + at, "http", 4) == 0);
            is_at_start = false;
            if (c.n_source > MAX_TEXT_BYTES - 1 - n)
                break;
            memcpy(out + n, p + at, c.n_source);
            n += c.n_source;
            letters += c.class == NORMALISE_WORD || c.class == NORMALISE_UNSPACED;
            n_upper += p[at] >= 'A' && p[at] <= 'Z';
        }
        at += c.n_source;
    }
    if (is_noise)
        n = word;
    else
        *n_letters += letters;
    for (size_t i = 0; i < n && n_upper * 2 > *n_letters; i++)
        out[i] = lower(out[i]);
    return n;
}

const char *language_detect(struct language *l, struct view text) {
    char plain[MAX_TEXT_BYTES];
    size_t n_letters, n = clean(text, plain, &n_letters);
    struct guesser g;
    if (n_letters < MIN_LETTERS || !take_guesser(l, &g))
        return "";
    int n_found = textcat_ClassifyFull(g.handle, plain, n, g.candidates);
    const char *tag = "";
    for (size_t i = 0; n_found == 1 && i < N_LANGUAGES; i++)
        if (strcmp(g.candidates[0].name, languages[i]) == 0)
            tag = languages[i];
    give_guesser(l, &g);
    return tag;
}
