/* SPDX-License-Identifier: Apache-2.0
 *
 * shards.c - a model's tensors from one file, or from the files that an index names.
 *
 * The index is not believed: a file's name must be a plain one in the same directory, and
 * its weight_map must say exactly what the files hold.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "weights/safetensors.h"
#include "weights/safetensors_shard.h"

#define MAX_SHARDS 256u
#define MAX_FILE_NAME_BYTES 255u /* NAME_MAX */

static const struct json_limits INDEX_LIMITS = {.max_bytes = 1 << 20,
                                                .max_depth = 3,
                                                .max_values = 16384,
                                                .max_key_bytes =
                                                    SAFETENSORS_MAX_NAME_BYTES};

const char *safetensors_shard_name(const struct safetensors *st, size_t shard) {
    const char *path = st->shards[shard].path, *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int by_name(const void *a, const void *b) {
    const struct safetensors_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int by_text(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *st,
                                                  const char *name) {
    struct safetensors_tensor key = {.name = name};
    if (st->n_tensors == 0)
        return NULL;
    return bsearch(&key, st->tensors, st->n_tensors, sizeof key, by_name);
}

/* Opens every shard and puts their tensors into one table by name. */
static enum status open_all(struct safetensors *st, bool allow_i8, struct error *err) {
    size_t n = 0, n_bytes;
    for (size_t i = 0; i < st->n_shards; i++) {
        enum status status = safetensors_shard_open(&st->shards[i], allow_i8, err);
        if (status != STATUS_OK)
            return status;
        n += st->shards[i].n_tensors;
        st->n_data_bytes += st->shards[i].n_data_bytes;
    }
    if (!size_multiply(n + 1, sizeof *st->tensors, &n_bytes) ||
        !(st->tensors = malloc(n_bytes)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu tensors", n);
    for (size_t i = 0; i < st->n_shards; i++) {
        struct safetensors_shard *shard = &st->shards[i];
        for (size_t k = 0; k < shard->n_tensors; k++) {
            st->tensors[st->n_tensors] = shard->tensors[k];
            st->tensors[st->n_tensors++].shard = (int32_t)i;
        }
        free(shard->tensors);
        shard->tensors = NULL;
    }
    qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_name);
    for (size_t i = 1; i < st->n_tensors; i++)
        if (strcmp(st->tensors[i - 1].name, st->tensors[i].name) == 0)
            return error_set(
                err, STATUS_INVALID, "tensor \"%s\" is in %s and in %s, expected once",
                st->tensors[i].name,
                safetensors_shard_name(st, (size_t)st->tensors[i - 1].shard),
                safetensors_shard_name(st, (size_t)st->tensors[i].shard));
    return STATUS_OK;
}

static enum status make_shards(struct safetensors *st, size_t n, struct error *err) {
    st->shards = calloc(n, sizeof *st->shards);
    if (!st->shards)
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu files", n);
    st->n_shards = n;
    return STATUS_OK;
}

enum status safetensors_open_file(const char *path, bool allow_i8,
                                  struct safetensors *out, struct error *err) {
    memset(out, 0, sizeof *out);
    if (strlen(path) >= FILE_PATH_BYTES)
        return error_set(err, STATUS_LIMIT, "the path %.200s… is too long", path);
    enum status status = make_shards(out, 1, err);
    if (status == STATUS_OK) {
        memcpy(out->shards[0].path, path, strlen(path) + 1);
        status = open_all(out, allow_i8, err);
    }
    if (status != STATUS_OK)
        safetensors_close(out);
    return status;
}

/* "model-00001-of-00002.safetensors": a plain name, so that it cannot leave the directory. */
static bool is_shard_name(const char *name, size_t n_bytes) {
    static const char suffix[] = ".safetensors";
    size_t n_suffix = sizeof suffix - 1;
    if (n_bytes <= n_suffix || n_bytes > MAX_FILE_NAME_BYTES || name[0] == '.' ||
        strlen(name) != n_bytes || strcmp(name + n_bytes - n_suffix, suffix) != 0)
        return false;
    for (size_t i = 0; i < n_bytes; i++)
        if (name[i] <= 0x20 || name[i] > 0x7E || name[i] == '/' || name[i] == '\\')
            return false;
    return true;
}

/* The different file names of the map, in order. *names [size of the map] is the caller's;
 * the strings belong to the map. */
static enum status list_shards(const char *path, const json_t *map, const char ***names,
                               size_t *n_names, struct error *err) {
    const char *key;
    json_t *value;
    size_t n = 0, n_unique = 0, n_bytes;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return error_set(err, STATUS_INVALID,
                         "%s: no weight_map, expected an object of file names", path);
    if (!size_multiply(json_object_size(map), sizeof **names, &n_bytes) ||
        !(*names = malloc(n_bytes)))
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu names",
                         json_object_size(map));
    json_object_foreach((json_t *)map, key, value) {
        if (!json_is_string(value) ||
            !is_shard_name(json_string_value(value), json_string_length(value)))
            return error_set(err, STATUS_INVALID,
                             "%s: weight_map entry %zu is not a file name, expected a "
                             "plain one that ends in .safetensors",
                             path, n);
        (*names)[n++] = json_string_value(value);
    }
    qsort(*names, n, sizeof **names, by_text);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp((*names)[i], (*names)[n_unique - 1]) != 0)
            (*names)[n_unique++] = (*names)[i];
    if (n_unique > MAX_SHARDS)
        return error_set(err, STATUS_LIMIT, "%s names %zu files, the limit is %u", path,
                         n_unique, MAX_SHARDS);
    *n_names = n_unique;
    return STATUS_OK;
}

/* The map and the files must say the same. */
static enum status check_map(const char *path, const json_t *map,
                             const struct safetensors *st, struct error *err) {
    const char *key;
    json_t *value;
    for (size_t i = 0; i < st->n_tensors; i++) {
        const char *file = safetensors_shard_name(st, (size_t)st->tensors[i].shard);
        const json_t *named = json_object_get(map, st->tensors[i].name);
        if (!named)
            return error_set(err, STATUS_INVALID,
                             "%s: weight_map lacks tensor \"%s\", found in %s", path,
                             st->tensors[i].name, file);
        if (strcmp(json_string_value(named), file) != 0)
            return error_set(err, STATUS_INVALID,
                             "%s: weight_map has tensor \"%s\" in %s, found in %s",
                             path, st->tensors[i].name, json_string_value(named), file);
    }
    json_object_foreach((json_t *)map, key, value) {
        if (!safetensors_find(st, key))
            return error_set(err, STATUS_INVALID,
                             "%s: weight_map has a tensor in %s that is not there: "
                             "\"%.100s\"",
                             path, json_string_value(value), key);
    }
    return STATUS_OK;
}

static enum status open_index(const char *model_dir, const char *path, bool allow_i8,
                              struct safetensors *out, struct error *err) {
    char *text = NULL;
    const char **names = NULL;
    json_t *root = NULL;
    size_t n_bytes, n_names = 0;
    enum status status = file_read(path, INDEX_LIMITS.max_bytes, &text, &n_bytes, err);
    if (status != STATUS_OK)
        return status;
    if ((status = json_parse(text, n_bytes, &INDEX_LIMITS, &root, err)) != STATUS_OK) {
        error_prefix(err, "%s", path);
        goto out;
    }
    const json_t *map = json_object_get(root, "weight_map");
    if ((status = list_shards(path, map, &names, &n_names, err)) != STATUS_OK ||
        (status = make_shards(out, n_names, err)) != STATUS_OK)
        goto out;
    for (size_t i = 0; status == STATUS_OK && i < n_names; i++)
        status = file_path(out->shards[i].path, model_dir, names[i], err);
    if (status == STATUS_OK)
        status = open_all(out, allow_i8, err);
    if (status == STATUS_OK)
        status = check_map(path, map, out, err);
out:
    free(names);
    json_decref(root);
    free(text);
    return status;
}

enum status safetensors_open(const char *model_dir, bool allow_i8,
                             struct safetensors *out, struct error *err) {
    char path[FILE_PATH_BYTES], index[FILE_PATH_BYTES];
    memset(out, 0, sizeof *out);
    enum status status = file_path(path, model_dir, SAFETENSORS_FILE, err);
    if (status == STATUS_OK)
        status = file_path(index, model_dir, SAFETENSORS_INDEX_FILE, err);
    if (status != STATUS_OK)
        return status;
    if (file_exists(path) || !file_exists(index))
        return safetensors_open_file(path, allow_i8, out, err);
    status = open_index(model_dir, index, allow_i8, out, err);
    if (status != STATUS_OK)
        safetensors_close(out);
    return status;
}

enum status safetensors_read(struct safetensors *st, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < st->n_shards; i++)
        status = safetensors_shard_read(&st->shards[i], err);
    for (size_t i = 0; status == STATUS_OK && i < st->n_tensors; i++) {
        struct safetensors_tensor *t = &st->tensors[i];
        const struct safetensors_shard *shard = &st->shards[t->shard];
        status = safetensors_shard_attach(shard, t, shard->block, err);
    }
    if (status != STATUS_OK)
        return status;
    if (st->n_shards == 1) {
        sha256_hex(st->shards[0].digest, st->sha256);
        return STATUS_OK;
    }
    struct sha256 hash;
    uint8_t digest[SHA256_BYTES];
    if ((status = sha256_open(&hash, err)) != STATUS_OK)
        return status;
    for (size_t i = 0; status == STATUS_OK && i < st->n_shards; i++)
        status = sha256_add(&hash, st->shards[i].digest, SHA256_BYTES, err);
    if (status == STATUS_OK) {
        sha256_finish(&hash, digest);
        sha256_hex(digest, st->sha256);
    }
    sha256_close(&hash);
    return status;
}

void safetensors_close(struct safetensors *st) {
    if (!st)
        return;
    for (size_t i = 0; i < st->n_shards; i++)
        safetensors_shard_close(&st->shards[i]);
    free(st->shards);
    free(st->tensors);
    memset(st, 0, sizeof *st);
}
