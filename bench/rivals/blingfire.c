/* SPDX-License-Identifier: Apache-2.0
 *
 * blingfire.c - times BlingFire's TextToIds over the lines of a file, called from C as Vigil
 * is, so that no Python is in its figure. Built and run by tokenizer.py.
 *
 * usage: blingfire LIBRARY MODEL TEXTS ROUNDS
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_IDS 4096
#define UNKNOWN 100

typedef void *load_model(const char *);
typedef int text_to_ids(void *, const char *, int, int32_t *, int, int);

static double processor_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static char *read_file(const char *path, size_t *n) {
    char *text = NULL;
    FILE *f = fopen(path, "rb");
    if (f && fseek(f, 0, SEEK_END) == 0) {
        *n = (size_t)ftell(f);
        rewind(f);
        text = malloc(*n + 1);
        if (text && fread(text, 1, *n, f) != *n) {
            free(text);
            text = NULL;
        }
    }
    if (f)
        fclose(f);
    return text;
}

static long encode_all(text_to_ids *encode, void *model, const char *text, size_t n) {
    static int32_t ids[MAX_IDS];
    long n_tokens = 0;
    for (const char *p = text, *end = text + n; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t length = (size_t)((newline ? newline : end) - p);
        n_tokens += encode(model, p, (int)length, ids, MAX_IDS, UNKNOWN);
        p += length + 1;
    }
    return n_tokens;
}

int main(int argc, char **argv) {
    size_t n = 0;
    void *library = argc == 5 ? dlopen(argv[1], RTLD_NOW) : NULL;
    load_model *load = library ? (load_model *)dlsym(library, "LoadModel") : NULL;
    text_to_ids *encode = library ? (text_to_ids *)dlsym(library, "TextToIds") : NULL;
    void *model = load ? load(argv[2]) : NULL;
    char *text = model ? read_file(argv[3], &n) : NULL;
    if (!encode || !text) {
        fprintf(stderr, "usage: blingfire LIBRARY MODEL TEXTS ROUNDS\n");
        return 1;
    }
    long n_tokens = encode_all(encode, model, text, n);
    printf("{\"engine\":\"blingfire\",\"tokens\":%ld,\"ids_ms\":[", n_tokens);
    for (long i = 0, rounds = strtol(argv[4], NULL, 10); i < rounds; i++) {
        double start = processor_ms();
        encode_all(encode, model, text, n);
        printf("%s%.3f", i ? "," : "", processor_ms() - start);
    }
    puts("]}");
    return 0;
}
