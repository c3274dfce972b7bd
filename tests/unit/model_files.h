/* SPDX-License-Identifier: Apache-2.0
 *
 * model_files.h - scratch directories and small safetensors files, for tests.
 */
#ifndef VIGIL_TESTS_MODEL_FILES_H
#define VIGIL_TESTS_MODEL_FILES_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A fresh directory, in memory where there is such a place: what writes a model syncs it.
 * free() it. */
static inline char *scratch_make(void) {
    static const char *const places[] = {"/dev/shm/vigil-test-XXXXXX",
                                         "/tmp/vigil-test-XXXXXX"};
    for (size_t i = 0; i < 2; i++) {
        char *dir = strdup(places[i]);
        if (dir && mkdtemp(dir))
            return dir;
        free(dir);
    }
    exit(1);
}

/* Removes a directory of files, and one level of directories in it. */
static inline void scratch_remove(char *dir) {
    char path[512];
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (unlink(path) != 0 && rmdir(path) != 0)
            scratch_remove(strdup(path));
    }
    if (d)
        closedir(d);
    rmdir(dir);
    free(dir);
}

static inline const char *scratch_path(const char *dir, const char *name) {
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static inline void scratch_write(const char *path, const void *data, size_t n_bytes) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n_bytes, f) != n_bytes || fclose(f) != 0)
        exit(1);
}

/* The bytes of a safetensors file: length, header, n_data bytes of data; free() it. */
static inline char *image_make(const char *header, size_t n_header, const void *data,
                               size_t n_data, size_t *n_bytes) {
    char *image = calloc(1, 8 + n_header + n_data + 1);
    if (!image)
        exit(1);
    for (size_t i = 0; i < 8; i++)
        image[i] = (char)(n_header >> 8 * i & 0xFF);
    memcpy(image + 8, header, n_header);
    if (data && n_data)
        memcpy(image + 8 + n_header, data, n_data);
    *n_bytes = 8 + n_header + n_data;
    return image;
}

#endif
