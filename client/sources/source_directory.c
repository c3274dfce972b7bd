/* SPDX-License-Identifier: Apache-2.0
 *
 * source_directory.c - the files of a directory in the order of their names, each once.
 *
 * Names that begin with '.' or end with '~', ".tmp" or ".part" are left alone, and so is what
 * is no regular file. Followed, new files are taken as they come (inotify, and a look every
 * RESCAN_NS where that does not tell), and the last file is read on as it grows: a file is
 * whole once a later one is there, so move files in, or write them one after the other. A
 * file that cannot be read (compressed, no such column, not ours to open) is passed over with
 * a warning; one that can be opened later is read in the next run.
 *
 * The cursor, "OFFSET SUM NAME", stands in the last file by name that was begun; SUM adds up
 * hashes of the names of the other files that were read. When the names before NAME no longer
 * add up to that, because a file has come between them or was taken away, everything is read
 * anew: nothing is missed, and what was there before counts once.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "client/sources/record.h"
#include "client/sources/source.h"
#include "client/sources/text_reader.h"

#define GROWTH_NS (CLOCK_NS_PER_SECOND / 5)
#define RESCAN_NS (2 * CLOCK_NS_PER_SECOND)
#define MAX_FILE_NAME_BYTES 255

struct names {
    char **names; /* sorted */
    size_t n, cap;
};

/* A file that was begun: its number is the position's major. What the cursor says while it
 * is read; a late one, whose name is not the last, leaves the cursor where it was. */
struct entry {
    const char *anchor; /* a name in `done` */
    uint64_t sum;
    uint64_t end; /* of a late one: where the anchor ended */
    bool is_late;
};

struct source {
    struct source_options options;
    struct source_state state;
    struct text_reader reader;
    int fd, inotify_fd;   /* -1: none */
    struct names done;    /* begun, too */
    struct names waiting; /* found and not begun; [at_waiting ..) */
    size_t at_waiting;
    struct entry *entries;
    size_t n_entries, cap_entries;
    uint64_t done_sum;   /* of the names in done but the anchor */
    const char *anchor;  /* the last of the names in done; NULL: none */
    uint64_t anchor_end; /* how far it was read */
    bool is_anchor_open; /* it is what is being read */
    int64_t scanned_ns;
    char path[FILE_PATH_BYTES]; /* of what is read */
};

/* ---- names ---- */

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(struct names *n) {
    for (size_t i = 0; i < n->n; i++)
        free(n->names[i]);
    free(n->names);
    *n = (struct names){0};
}

static enum status names_add(struct names *n, size_t at, char *name,
                             struct error *err) {
    if (n->n == n->cap) {
        size_t cap = n->cap ? n->cap * 2 : 64;
        char **grown = realloc(n->names, cap * sizeof *grown);
        if (!grown) {
            free(name);
            return error_set(err, STATUS_NO_MEMORY, "no memory for names of files");
        }
        n->names = grown;
        n->cap = cap;
    }
    memmove(n->names + at + 1, n->names + at, (n->n - at) * sizeof *n->names);
    n->names[at] = name;
    n->n++;
    return STATUS_OK;
}

/* Where the name is, or would be. */
static size_t names_find(const struct names *n, const char *name, bool *is_there) {
    size_t low = 0, high = n->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(n->names[middle], name);
        if (order == 0) {
            *is_there = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *is_there = false;
    return low;
}

static uint64_t hash_of(const char *name) {
    uint64_t hash = text_reader_hash(name, strlen(name), UINT64_MAX);
    return hash * UINT64_C(0x9E3779B97F4A7C15) ^ hash >> 29;
}

static bool is_wanted(const char *name) {
    static const char *const endings[] = {"~", ".tmp", ".part"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);
        if (n >= m && strcmp(name + n - m, endings[i]) == 0)
            return false;
    }
    return name[0] != '.' && n <= MAX_FILE_NAME_BYTES;
}

static bool is_regular(const struct source *s, const struct dirent *e) {
    char path[FILE_PATH_BYTES];
    struct stat facts;
    if (e->d_type == DT_REG)
        return true;
    return (e->d_type == DT_UNKNOWN || e->d_type == DT_LNK) &&
           file_path(path, s->options.target, e->d_name, NULL) == STATUS_OK &&
           stat(path, &facts) == 0 && S_ISREG(facts.st_mode);
}

/* Looks which files there are that were not begun: into waiting. */
static enum status scan(struct source *s, struct error *err) {
    enum status status = STATUS_OK;
    DIR *d = opendir(s->options.target);
    names_free(&s->waiting);
    s->at_waiting = 0;
    s->scanned_ns = clock_now_ns();
    if (!d)
        return error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                         "cannot read directory %s: %s", s->options.target,
                         strerror(errno));
    for (const struct dirent *e; status == STATUS_OK && (e = readdir(d));) {
        bool is_done;
        if (!is_wanted(e->d_name))
            continue;
        names_find(&s->done, e->d_name, &is_done);
        if (is_done || !is_regular(s, e))
            continue;
        char *name = strdup(e->d_name);
        status = name
                     ? names_add(&s->waiting, s->waiting.n, name, err)
                     : error_set(err, STATUS_NO_MEMORY, "no memory for names of files");
    }
    closedir(d);
    if (s->waiting.n)
        qsort(s->waiting.names, s->waiting.n, sizeof *s->waiting.names, compare);
    return status;
}

/* ---- opening ---- */

static void directory_close(struct source *s) {
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    if (s->inotify_fd >= 0)
        close(s->inotify_fd);
    text_reader_free(&s->reader);
    names_free(&s->done);
    names_free(&s->waiting);
    free(s->entries);
    free(s);
}

static enum status add_entry(struct source *s, struct entry entry, struct error *err) {
    if (s->n_entries == s->cap_entries) {
        size_t cap = s->cap_entries ? s->cap_entries * 2 : 64;
        struct entry *grown = realloc(s->entries, cap * sizeof *grown);
        if (!grown)
            return error_set(err, STATUS_NO_MEMORY, "no memory for names of files");
        s->entries = grown;
        s->cap_entries = cap;
    }
    s->entries[s->n_entries++] = entry;
    return STATUS_OK;
}

/* Ends what is being read: its name counts as read. */
static void end_file(struct source *s) {
    if (s->fd < 0)
        return;
    if (s->is_anchor_open)
        s->anchor_end = s->reader.offset;
    s->is_anchor_open = false;
    close(s->fd);
    s->fd = -1;
}

/* The file that waits first is begun, or never will be: its name is not looked at again. */
static enum status add_done(struct source *s, char *name, struct error *err) {
    bool is_done;
    s->waiting.names[s->at_waiting++] = NULL;
    return names_add(&s->done, names_find(&s->done, name, &is_done), name, err);
}

/* Is it this file that cannot be opened, and not we who can open none? */
static bool is_its_fault(int error) {
    return error != EMFILE && error != ENFILE && error != ENOMEM;
}

/* Begins the file that waits first. STATUS_NOT_FOUND: it is gone, or cannot be opened; the
 * cursor then knows nothing of it. */
static enum status begin_file(struct source *s, uint64_t offset, struct error *err) {
    char *name = s->waiting.names[s->at_waiting];
    struct stat facts;
    end_file(s);
    enum status status = file_path(s->path, s->options.target, name, err);
    if (status != STATUS_OK)
        return status;
    s->fd = open(s->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &facts) != 0) {
        int error = errno;
        if (s->fd >= 0)
            close(s->fd);
        s->fd = -1;
        if (!is_its_fault(error))
            return error_set(err, STATUS_IO, "cannot open %s: %s", s->path,
                             strerror(error));
        if (error == ENOENT) { /* it may come back */
            s->at_waiting++;
            return STATUS_NOT_FOUND;
        }
        log_message(LOG_LEVEL_WARNING, "source", "passed over: cannot open %s: %s",
                    s->path, strerror(error));
        atomic_fetch_add(&s->state.n_errors, 1);
        status = add_done(s, name, err);
        return status == STATUS_OK ? STATUS_NOT_FOUND : status;
    }
    status = add_done(s, name, err);
    if (status != STATUS_OK)
        return status;
    bool is_late = s->anchor && strcmp(name, s->anchor) < 0;
    struct entry entry = {.anchor = s->anchor,
                          .sum = s->done_sum,
                          .end = s->anchor_end,
                          .is_late = is_late};
    if (is_late) {
        s->done_sum += hash_of(name); /* in cursors of the files behind it */
    } else {
        if (s->anchor)
            s->done_sum += hash_of(s->anchor);
        s->anchor = name;
        s->is_anchor_open = true;
        entry.anchor = name;
        entry.sum = s->done_sum;
    }
    status = add_entry(s, entry, err);
    if (status == STATUS_OK)
        text_reader_begin(&s->reader, s->path, s->fd, offset);
    atomic_fetch_add(&s->state.n_total_bytes, (int64_t)facts.st_size - (int64_t)offset);
    return status;
}

/* Goes to where the cursor stands, if the names before it are those that it has seen. */
static enum status begin_at_cursor(struct source *s, struct error *err) {
    uint64_t sum = 0;
    size_t n = 0;
    char *end;
    if (!s->options.cursor)
        return STATUS_OK;
    uint64_t offset = strtoull(s->options.cursor, &end, 10);
    uint64_t seen = *end == ' ' ? strtoull(end, &end, 16) : 0;
    const char *name = *end == ' ' ? end + 1 : "";
    while (n < s->waiting.n && strcmp(s->waiting.names[n], name) < 0)
        sum += hash_of(s->waiting.names[n++]);
    if (n == s->waiting.n || strcmp(s->waiting.names[n], name) != 0 || sum != seen) {
        log_message(LOG_LEVEL_WARNING, "cursor",
                    "the files of %s are not those that were read before: reading all "
                    "of them",
                    s->options.target);
        return STATUS_OK;
    }
    for (size_t i = 0; i < n; i++) {
        enum status status = names_add(&s->done, i, s->waiting.names[i], err);
        s->waiting.names[i] = NULL;
        if (status != STATUS_OK)
            return status;
    }
    s->at_waiting = n;
    s->done_sum = sum;
    enum status status = begin_file(s, offset, err);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status directory_open(const struct source_options *options,
                                  struct source **out, struct error *err) {
    struct source *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory to read posts");
    s->options = *options;
    s->fd = s->inotify_fd = -1;
    enum status status =
        text_reader_init(&s->reader, options->settings, &s->state, err);
    if (status == STATUS_OK && options->settings->follows) {
        /* Before the first look, so that nothing comes in between. */
        s->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (s->inotify_fd >= 0)
            inotify_add_watch(s->inotify_fd, options->target,
                              IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE);
    }
    if (status == STATUS_OK)
        status = scan(s, err);
    if (status == STATUS_OK)
        status = begin_at_cursor(s, err);
    if (status != STATUS_OK) {
        directory_close(s);
        return status;
    }
    atomic_store(&s->state.phase, SOURCE_STREAMING);
    *out = s;
    return STATUS_OK;
}

/* ---- reading ---- */

static enum status number(const struct source *s, struct source_line *out) {
    out->after = (struct source_position){s->n_entries - 1, s->reader.offset};
    return STATUS_OK;
}

/* Waits for a new file, or for the last one to grow. STATUS_BUSY: look again. */
static enum status wait_for_more(struct source *s, int64_t deadline_ns,
                                 struct error *err) {
    char events[4096];
    int64_t now = clock_now_ns();
    int64_t until = now + GROWTH_NS < deadline_ns ? now + GROWTH_NS : deadline_ns;
    enum status status =
        text_reader_wait(s->options.wake_fd, s->inotify_fd, until, err);
    if (status == STATUS_OK) {
        while (read(s->inotify_fd, events, sizeof events) > 0) {
            /* That something came is all that counts. */
        }
        s->scanned_ns = 0;
    }
    if (status == STATUS_TIMEOUT && until == deadline_ns)
        return STATUS_TIMEOUT;
    return status == STATUS_OK || status == STATUS_TIMEOUT ? STATUS_BUSY : status;
}

/* At the end of a file, or before the first. STATUS_BUSY: there is something to read;
 * STATUS_OK: a line; STATUS_NOT_FOUND: nothing more will come. */
static enum status go_on(struct source *s, int64_t deadline_ns, struct source_line *out,
                         struct error *err) {
    enum status status = STATUS_OK;
    bool follows = s->options.settings->follows;
    if (s->at_waiting == s->waiting.n &&
        (!follows || clock_now_ns() - s->scanned_ns >= RESCAN_NS || !s->scanned_ns)) {
        status = scan(s, err);
        if (status != STATUS_OK)
            return status;
    }
    if (s->at_waiting == s->waiting.n && follows)
        return wait_for_more(s, deadline_ns, err);
    if (s->fd >= 0) {
        status = text_reader_rest(&s->reader, out, err);
        if (status != STATUS_NOT_FOUND)
            return status == STATUS_OK ? number(s, out) : status;
    }
    if (s->at_waiting == s->waiting.n) {
        end_file(s);
        atomic_store(&s->state.phase, SOURCE_ENDED);
        return STATUS_NOT_FOUND;
    }
    status = begin_file(s, 0, err);
    return status == STATUS_OK || status == STATUS_NOT_FOUND ? STATUS_BUSY : status;
}

static enum status directory_next(struct source *s, int64_t deadline_ns,
                                  struct source_line *out, struct error *err) {
    for (;;) {
        enum status status = STATUS_NOT_FOUND;
        if (s->fd >= 0)
            status =
                text_reader_next(&s->reader, s->options.wake_fd, deadline_ns, out, err);
        if (status == STATUS_NOT_FOUND) {
            status = go_on(s, deadline_ns, out, err);
            if (status == STATUS_BUSY)
                continue;
            if (status == STATUS_OK)
                return STATUS_OK;
        } else if (status == STATUS_OK) {
            return number(s, out);
        }
        if (s->fd < 0 || (status != STATUS_UNSUPPORTED && status != STATUS_INVALID))
            return status;
        log_message(LOG_LEVEL_WARNING, "source", "passed over: %s",
                    err ? err->message : s->path);
        atomic_fetch_add(&s->state.n_errors, 1);
        end_file(s);
    }
}

static enum status directory_cursor(const struct source *s, struct source_position at,
                                    char out[SOURCE_CURSOR_BYTES], struct error *err) {
    if (at.major >= s->n_entries)
        return error_set(err, STATUS_INTERNAL, "no such position");
    const struct entry *e = &s->entries[at.major];
    snprintf(out, SOURCE_CURSOR_BYTES, "%" PRIu64 " %016" PRIx64 " %s",
             e->is_late ? e->end : at.minor, e->sum, e->anchor);
    return STATUS_OK;
}

static enum status directory_parse(const struct source *s, struct view line,
                                   struct arena *arena, struct post *out,
                                   struct error *err) {
    return record_parse(s ? s->options.settings : NULL, line, arena, out, err);
}

static struct source_state *directory_state(struct source *s) {
    return &s->state;
}

const struct source_kind source_directory = {
    .name = "directory",
    .default_name = "directory",
    .summary = "the files of a directory by name; --follow: and those that come",
    .is_replayable = true,
    .open = directory_open,
    .next = directory_next,
    .cursor = directory_cursor,
    .parse = directory_parse,
    .state = directory_state,
    .close = directory_close,
};
