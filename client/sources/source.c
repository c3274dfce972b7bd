/* SPDX-License-Identifier: Apache-2.0
 *
 * source.c - which kinds of source there are, and which one a name on the command line means.
 */
#include "client/sources/source.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const struct source_kind *const KINDS[] = {
    &source_file,      &source_directory, &source_stdin, &source_x,
    &source_jetstream, &source_mastodon,  &source_push};
#define N_KINDS (sizeof KINDS / sizeof *KINDS)

/* "file, directory, …" */
static void list_kinds(char *out, size_t cap_bytes) {
    size_t n = 0;
    for (size_t i = 0; i < N_KINDS && n < cap_bytes; i++) {
        int used =
            snprintf(out + n, cap_bytes - n, "%s%s", i ? ", " : "", KINDS[i]->name);
        n += used > 0 ? (size_t)used : 0;
    }
}

/* A kind in front of a ':', if there is one. */
static const struct source_kind *kind_of(const char *spec, const char **target) {
    for (size_t i = 0; i < N_KINDS; i++) {
        size_t n = strlen(KINDS[i]->name);
        if (strncmp(spec, KINDS[i]->name, n) == 0 && spec[n] == ':') {
            *target = spec + n + 1;
            return KINDS[i];
        }
    }
    return NULL;
}

static bool is_like_a_kind(const char *spec) {
    const char *colon = strchr(spec, ':');
    return colon && colon > spec && !memchr(spec, '/', (size_t)(colon - spec)) &&
           !memchr(spec, '.', (size_t)(colon - spec));
}

enum status source_find(const char *spec, const struct source_kind **out,
                        const char **target, struct error *err) {
    char kinds[128];
    struct stat facts;
    *target = spec;
    *out = kind_of(spec, target);
    if (*out)
        return STATUS_OK;
    bool is_there = stat(spec, &facts) == 0;
    if (strcmp(spec, "-") == 0)
        *out = &source_stdin;
    else if (is_there && S_ISDIR(facts.st_mode))
        *out = &source_directory;
    else if (is_there && !S_ISREG(facts.st_mode))
        *out = &source_stdin; /* a FIFO, a terminal */
    else if (is_there || (*spec && !is_like_a_kind(spec)))
        *out = &source_file;
    if (*out)
        return STATUS_OK;
    list_kinds(kinds, sizeof kinds);
    return error_set(err, STATUS_NOT_FOUND,
                     "\"%.80s\" is neither a file nor a kind of source: %s", spec,
                     kinds);
}
