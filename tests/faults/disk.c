/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/faults/disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR_BYTES 512
#define PATH_BYTES 512
#define MAX_NAMES 512

struct change {
    int64_t offset;
    size_t n_bytes;
    char *data; /* NULL: the file was cut, or lengthened, to offset */
};

struct disk_file {
    struct disk_file *next;
    char *synced;
    size_t n_synced, cap_synced;
    struct change *changes;
    size_t n_changes, cap_changes;
    bool is_folder;
};

struct name {
    char path[PATH_BYTES];
    struct disk_file *now, *synced;
};

static struct {
    uint64_t random;
    int64_t n_operations, cut_at;
    bool is_cut;
    struct disk_file *files;
    struct name names[MAX_NAMES];
    size_t n_names;
} disk;

static void die(const char *what) {
    fprintf(stderr, "disk: %s\n", what);
    abort();
}

static void *grow(void *block, size_t n_bytes) {
    void *more = realloc(block, n_bytes ? n_bytes : 1);
    if (!more)
        die("no memory");
    return more;
}

uint64_t disk_random(uint64_t *state) {
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t disk_below(uint64_t *state, uint64_t n) {
    return n ? disk_random(state) % n : 0;
}

static bool one_of(uint64_t n) {
    return disk_below(&disk.random, n) == 0;
}

/* ---- Power ---- */

static void forget_changes(struct disk_file *f) {
    for (size_t i = 0; i < f->n_changes; i++)
        free(f->changes[i].data);
    f->n_changes = 0;
}

void disk_start(uint64_t seed, int64_t cut_at) {
    while (disk.files) {
        struct disk_file *f = disk.files;
        disk.files = f->next;
        forget_changes(f);
        free(f->changes);
        free(f->synced);
        free(f);
    }
    disk.random = seed;
    disk.n_names = 0;
    disk.n_operations = 0;
    disk.cut_at = cut_at;
    disk.is_cut = false;
}

bool disk_operation(void) {
    if (disk.is_cut)
        return false;
    disk.n_operations++;
    disk.is_cut = disk.n_operations == disk.cut_at;
    return !disk.is_cut;
}

bool disk_has_power(void) {
    return !disk.is_cut;
}

int64_t disk_n_operations(void) {
    return disk.n_operations;
}

void disk_cut(void) {
    disk.is_cut = true;
}

/* ---- Files ---- */

/* Sets what the bytes are, lengthened by zeros where something is written behind the end. */
static void put(struct disk_file *f, int64_t offset, const void *data, size_t n_bytes) {
    size_t from = (size_t)offset, end = from + n_bytes;
    if (end > f->cap_synced) {
        f->cap_synced = end * 2;
        f->synced = grow(f->synced, f->cap_synced);
    }
    if (from > f->n_synced)
        memset(f->synced + f->n_synced, 0, from - f->n_synced);
    if (n_bytes)
        memcpy(f->synced + from, data, n_bytes);
    if (end > f->n_synced)
        f->n_synced = end;
}

static void cut_to(struct disk_file *f, int64_t n_bytes) {
    if ((size_t)n_bytes > f->n_synced)
        put(f, n_bytes, NULL, 0);
    f->n_synced = (size_t)n_bytes;
}

static struct disk_file *add_file(void) {
    struct disk_file *f = grow(NULL, sizeof *f);
    *f = (struct disk_file){.next = disk.files};
    disk.files = f;
    return f;
}

static void load(struct disk_file *f, const char *path) {
    char piece[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    while (fd >= 0 && (n = pread(fd, piece, sizeof piece, (off_t)f->n_synced)) > 0)
        put(f, (int64_t)f->n_synced, piece, (size_t)n);
    if (fd < 0)
        die("cannot read a file");
    close(fd);
}

static struct name *find_name(const char *path) {
    for (size_t i = 0; i < disk.n_names; i++)
        if (strcmp(disk.names[i].path, path) == 0)
            return &disk.names[i];
    if (disk.n_names == MAX_NAMES || strlen(path) >= PATH_BYTES)
        die("too many names, or one that is too long");
    struct name *name = &disk.names[disk.n_names++];
    *name = (struct name){0};
    memcpy(name->path, path, strlen(path) + 1);
    struct stat st;
    if (stat(path, &st) == 0) {
        name->now = name->synced = add_file();
        name->now->is_folder = S_ISDIR(st.st_mode);
        if (!name->now->is_folder)
            load(name->now, path);
    }
    return name;
}

struct disk_file *disk_open(const char *path, bool makes) {
    struct name *name = find_name(path);
    if (!name->now && makes)
        name->now = add_file();
    return name->now;
}

static struct change *add_change(struct disk_file *f) {
    if (f->n_changes == f->cap_changes) {
        f->cap_changes = f->cap_changes ? f->cap_changes * 2 : 16;
        f->changes = grow(f->changes, f->cap_changes * sizeof *f->changes);
    }
    return &f->changes[f->n_changes++];
}

void disk_write(struct disk_file *f, int64_t offset, const void *data, size_t n_bytes) {
    struct change *c = add_change(f);
    *c = (struct change){offset, n_bytes, grow(NULL, n_bytes)};
    memcpy(c->data, data, n_bytes);
}

void disk_truncate(struct disk_file *f, int64_t n_bytes) {
    *add_change(f) = (struct change){n_bytes, 0, NULL};
}

static void apply(struct disk_file *f, const struct change *c) {
    if (c->data)
        put(f, c->offset, c->data, c->n_bytes);
    else
        cut_to(f, c->offset);
}

void disk_sync(struct disk_file *f) {
    for (size_t i = 0; i < f->n_changes; i++)
        apply(f, &f->changes[i]);
    forget_changes(f);
}

/* ---- Names ---- */

static bool is_in(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/' &&
           !strchr(path + n + 1, '/');
}

void disk_sync_folder(const char *path) {
    for (size_t i = 0; i < disk.n_names; i++)
        if (is_in(disk.names[i].path, path))
            disk.names[i].synced = disk.names[i].now;
}

void disk_rename(const char *from, const char *to) {
    struct name *a = find_name(from), *b = find_name(to);
    b->now = a->now;
    a->now = NULL;
}

void disk_remove(const char *path) {
    find_name(path)->now = NULL;
}

void disk_make_folder(const char *path) {
    struct name *name = find_name(path);
    if (!name->now) {
        name->now = add_file();
        name->now->is_folder = true;
    }
}

/* ---- After the power has failed ---- */

/* A part of a write: each sector there, not there, or garbage. */
static void tear(struct disk_file *f, const struct change *c) {
    char garbage[SECTOR_BYTES];
    bool has_garbage = one_of(2);
    for (size_t at = 0, n; at < c->n_bytes; at += n) {
        n = SECTOR_BYTES - (size_t)(c->offset + (int64_t)at) % SECTOR_BYTES;
        n = n < c->n_bytes - at ? n : c->n_bytes - at;
        if (one_of(2)) {
            put(f, c->offset + (int64_t)at, c->data + at, n);
        } else if (has_garbage && one_of(2)) {
            for (size_t i = 0; i < n; i++)
                garbage[i] = (char)disk_random(&disk.random);
            put(f, c->offset + (int64_t)at, garbage, n);
        }
    }
}

static void swap(struct change *a, struct change *b) {
    struct change c = *a;
    *a = *b;
    *b = c;
}

/* Some of the changes, in some order. */
static void leave_some(struct disk_file *f) {
    uint64_t way = disk_below(&disk.random, 8);
    if (way == 0) /* nothing of it */
        forget_changes(f);
    if (way <= 2) { /* up to one that was under way */
        size_t n =
            way == 1 ? f->n_changes : (size_t)disk_below(&disk.random, f->n_changes);
        for (size_t i = 0; i < n; i++)
            apply(f, &f->changes[i]);
        if (n < f->n_changes && f->changes[n].data)
            tear(f, &f->changes[n]);
        return;
    }
    for (size_t i = f->n_changes; i > 1; i--)
        swap(&f->changes[i - 1], &f->changes[disk_below(&disk.random, i)]);
    uint64_t kept = 1 + disk_below(&disk.random, 15); /* of 16 */
    for (size_t i = 0; i < f->n_changes; i++) {
        struct change *c = &f->changes[i];
        if (disk_below(&disk.random, 16) >= kept)
            continue;
        if (c->data && one_of(3))
            tear(f, c);
        else
            apply(f, c);
    }
}

static void save(const struct disk_file *f, const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return; /* its folder is gone */
    for (size_t at = 0; at < f->n_synced;) {
        ssize_t n = write(fd, f->synced + at, f->n_synced - at);
        if (n <= 0)
            die("cannot write a file");
        at += (size_t)n;
    }
    close(fd);
}

/* Folders are named before what is in them, since they were made before. */
void disk_restore(void) {
    disk.is_cut = true;
    for (struct disk_file *f = disk.files; f; f = f->next)
        if (f->n_changes)
            leave_some(f);
    for (size_t i = 0; i < disk.n_names; i++) {
        struct name *name = &disk.names[i];
        if (name->now != name->synced && one_of(2))
            name->now = name->synced;
        unlink(name->path);
    }
    for (size_t i = disk.n_names; i > 0; i--)
        rmdir(disk.names[i - 1]
                  .path); /* what is not empty stays; what is, is made again */
    for (size_t i = 0; i < disk.n_names; i++) {
        const struct name *name = &disk.names[i];
        if (name->now && name->now->is_folder)
            mkdir(name->path, 0700);
        else if (name->now)
            save(name->now, name->path);
    }
    disk_start(disk.random, 0);
}
