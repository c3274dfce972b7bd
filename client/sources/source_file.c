/* SPDX-License-Identifier: Apache-2.0
 *
 * source_file.c - a file, to its end or, when it is followed, for ever.
 *
 * Followed, it is looked at every POLL_NS. When another file has taken its name (rotation),
 * the old one is read until it has been silent for LINGER_NS, since who writes may be slow to
 * change over. A file that is shorter than what was read, or begins with other bytes, was cut
 * and written anew: it is read from its start.
 *
 * The cursor, "OFFSET INODE HASH", holds a hash of the file's first bytes, so that another
 * file under the same name is not taken for this one. If it was rotated while nobody read, the
 * rest is looked for under PATH* by the inode: after one rotation, not after several or when
 * it was compressed; then a warning says so.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "client/sources/record.h"
#include "client/sources/source.h"
#include "client/sources/text_reader.h"

#define POLL_NS (CLOCK_NS_PER_SECOND / 10)
#define LINGER_NS CLOCK_NS_PER_SECOND
#define FIRST_GENERATIONS 8

/* A file that was read under the path: its number is the position's major. */
struct generation {
    uint64_t inode;
    char head[TEXT_READER_HEAD_BYTES];
    size_t n_head;
};

struct source {
    struct source_options options;
    struct source_state state;
    struct text_reader reader;
    int fd; /* -1: there is no file yet */
    struct generation *generations;
    size_t n_generations, cap_generations;
    bool is_old;         /* what is read has been rotated away */
    int64_t noticed_ns;  /* when the path was found to be another file; 0: it is not */
    int64_t n_kept_size; /* in n_total_bytes: of generations before */
    char found[FILE_PATH_BYTES]; /* where an old one was found */
};

struct place {
    uint64_t offset, inode, hash;
};

static void file_source_close(struct source *s) {
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    text_reader_free(&s->reader);
    free(s->generations);
    free(s);
}

static enum status add_generation(struct source *s, uint64_t inode, struct error *err) {
    if (s->n_generations == s->cap_generations) {
        size_t cap = s->cap_generations ? s->cap_generations * 2 : FIRST_GENERATIONS;
        struct generation *grown = realloc(s->generations, cap * sizeof *grown);
        if (!grown)
            return error_set(err, STATUS_NO_MEMORY, "no memory to read posts");
        s->generations = grown;
        s->cap_generations = cap;
    }
    s->generations[s->n_generations++] = (struct generation){.inode = inode};
    return STATUS_OK;
}

/* Reads fd from offset on, as the next generation; fd belongs to s from now on. */
static enum status begin(struct source *s, int fd, uint64_t offset, struct error *err) {
    struct stat facts;
    if (s->fd >= 0 && s->fd != fd)
        close(s->fd);
    s->fd = fd;
    s->noticed_ns = 0;
    if (fstat(fd, &facts) != 0)
        return error_set(err, STATUS_IO, "cannot look at %s: %s", s->options.target,
                         strerror(errno));
    if (!S_ISREG(facts.st_mode))
        return error_set(err, STATUS_INVALID, "%s is no regular file",
                         s->options.target);
    enum status status = add_generation(s, (uint64_t)facts.st_ino, err);
    if (status != STATUS_OK)
        return status;
    text_reader_begin(&s->reader, s->options.target, fd, offset);
    atomic_store(&s->state.n_total_bytes,
                 s->n_kept_size + (int64_t)facts.st_size - (int64_t)offset);
    atomic_store(&s->state.phase, SOURCE_STREAMING);
    return STATUS_OK;
}

static int open_path(const char *path) {
    return open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static bool has_inode(int fd, uint64_t inode) {
    struct stat facts;
    return fd >= 0 && fstat(fd, &facts) == 0 && (uint64_t)facts.st_ino == inode;
}

/* Does the file at fd begin with what the cursor has seen? */
static bool is_file_of(int fd, const struct place *place) {
    struct stat facts;
    uint64_t hash;
    return fd >= 0 && fstat(fd, &facts) == 0 &&
           (uint64_t)facts.st_size >= place->offset &&
           text_reader_hash_of(fd, place->offset, &hash) && hash == place->hash;
}

/* The file of the cursor under another name, PATH and more; -1: it is not there. */
static int find_rotated(struct source *s, const struct place *place) {
    const char *path = s->options.target;
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    int n_dir = slash ? (int)(slash - path) + 1 : 2;
    int found = -1;
    char dir[FILE_PATH_BYTES];
    snprintf(dir, sizeof dir, "%.*s", n_dir, slash ? path : "./");
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && found < 0 && (e = readdir(d));) {
        if (e->d_ino != place->inode || strncmp(e->d_name, base, strlen(base)) != 0 ||
            file_path(s->found, dir, e->d_name, NULL) != STATUS_OK)
            continue;
        found = open_path(s->found);
        if (found >= 0 && !is_file_of(found, place)) {
            close(found);
            found = -1;
        }
    }
    if (d)
        closedir(d);
    return found;
}

static bool read_cursor(const char *text, struct place *out) {
    char *end;
    if (!text)
        return false;
    out->offset = strtoull(text, &end, 10);
    if (*end != ' ')
        return false;
    out->inode = strtoull(end, &end, 10);
    if (*end != ' ')
        return false;
    out->hash = strtoull(end, &end, 16);
    return *end == '\0';
}

static enum status begin_at_cursor(struct source *s, struct error *err) {
    struct place place = {0};
    const char *path = s->options.target;
    int fd = open_path(path);
    int error = errno;
    if (s->options.cursor && !read_cursor(s->options.cursor, &place)) {
        log_message(LOG_LEVEL_WARNING, "cursor",
                    "the cursor is none of a file: reading %s from its start", path);
        place = (struct place){0};
    } else if (place.offset > 0 &&
               !(has_inode(fd, place.inode) && is_file_of(fd, &place))) {
        int rotated = find_rotated(s, &place);
        if (rotated >= 0) {
            if (fd >= 0)
                close(fd);
            s->is_old = true;
            log_message(LOG_LEVEL_INFO, "cursor", "%s was rotated: its rest is in %s",
                        path, s->found);
            return begin(s, rotated, place.offset, err);
        }
        if (!is_file_of(fd, &place)) { /* else a copy of it, put back */
            log_message(s->options.settings->follows ? LOG_LEVEL_WARNING
                                                     : LOG_LEVEL_INFO,
                        "cursor",
                        "%s is not the file that was read before, and that is not "
                        "beside it: reading from its start",
                        path);
            place = (struct place){0};
        }
    }
    if (fd >= 0)
        return begin(s, fd, place.offset, err);
    if (error == ENOENT && s->options.settings->follows) {
        atomic_store(&s->state.phase, SOURCE_WAITING);
        return STATUS_OK;
    }
    return error_set(err, error == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                     "cannot open %s: %s", path, strerror(error));
}

static enum status file_source_open(const struct source_options *options,
                                    struct source **out, struct error *err) {
    struct source *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return error_set(err, STATUS_NO_MEMORY, "no memory to read posts");
    s->options = *options;
    s->fd = -1;
    enum status status =
        text_reader_init(&s->reader, options->settings, &s->state, err);
    if (status == STATUS_OK)
        status = begin_at_cursor(s, err);
    if (status == STATUS_OK)
        *out = s;
    else
        file_source_close(s);
    return status;
}

/* What became of the file that was read to its end. */
enum change { SAME, MOVED, WRITTEN_ANEW };

static enum change look(struct source *s) {
    struct stat ours, theirs;
    if (fstat(s->fd, &ours) == 0 && ((uint64_t)ours.st_size < s->reader.offset ||
                                     !text_reader_is_same(&s->reader, s->fd)))
        return WRITTEN_ANEW;
    if (s->is_old)
        return MOVED;
    return stat(s->options.target, &theirs) == 0 && theirs.st_ino != ours.st_ino ? MOVED
                                                                                 : SAME;
}

/* Goes over to the file that has the path now, or back to the start of this one. */
static enum status change_over(struct source *s, enum change change,
                               struct error *err) {
    int fd = change == WRITTEN_ANEW ? s->fd : open_path(s->options.target);
    if (fd < 0)
        return errno == ENOENT ? STATUS_NOT_FOUND
                               : error_set(err, STATUS_IO, "cannot open %s: %s",
                                           s->options.target, strerror(errno));
    if (change == WRITTEN_ANEW && lseek(fd, 0, SEEK_SET) < 0)
        return error_set(err, STATUS_IO, "cannot read %s again: %s", s->options.target,
                         strerror(errno));
    log_message(LOG_LEVEL_INFO, "source",
                change == MOVED ? "%s is another file now" : "%s was written anew",
                s->options.target);
    s->n_kept_size += (int64_t)s->reader.offset;
    s->is_old = false;
    return begin(s, fd, 0, err);
}

static enum status number(struct source *s, struct source_line *out) {
    struct generation *g = &s->generations[s->n_generations - 1];
    if (g->n_head < s->reader.n_head) {
        memcpy(g->head, s->reader.head, s->reader.n_head);
        g->n_head = s->reader.n_head;
    }
    out->after = (struct source_position){s->n_generations - 1, s->reader.offset};
    return STATUS_OK;
}

/* At the end of a file that is not followed: what rotation left behind, then the file
 * itself, then the end. */
static enum status end_once(struct source *s, struct source_line *out,
                            struct error *err) {
    enum status status = text_reader_rest(&s->reader, out, err);
    if (status == STATUS_OK)
        return number(s, out);
    if (status == STATUS_NOT_FOUND && s->is_old) {
        status = change_over(s, MOVED, err);
        if (status == STATUS_OK)
            return STATUS_BUSY;
    }
    if (status == STATUS_NOT_FOUND)
        atomic_store(&s->state.phase, SOURCE_ENDED);
    return status;
}

/* At the end of a file that is followed: STATUS_BUSY: read on; STATUS_OK: a line. */
static enum status end_followed(struct source *s, int64_t deadline_ns,
                                struct source_line *out, struct error *err) {
    int64_t now = clock_now_ns();
    enum change change = look(s);
    bool is_over = change == WRITTEN_ANEW;
    if (change == MOVED) {
        s->noticed_ns = s->noticed_ns ? s->noticed_ns : now;
        int64_t last = atomic_load(&s->state.last_byte_ns);
        is_over = now - (last > s->noticed_ns ? last : s->noticed_ns) >= LINGER_NS;
    }
    if (is_over) {
        enum status status = text_reader_rest(&s->reader, out, err);
        if (status == STATUS_OK)
            return number(s, out);
        if (status == STATUS_NOT_FOUND)
            status = change_over(s, change, err);
        if (status != STATUS_NOT_FOUND)
            return status == STATUS_OK ? STATUS_BUSY : status;
    }
    int64_t until = now + POLL_NS < deadline_ns ? now + POLL_NS : deadline_ns;
    enum status status = text_reader_wait(s->options.wake_fd, -1, until, err);
    if (status != STATUS_TIMEOUT)
        return status;
    return until < deadline_ns ? STATUS_BUSY : STATUS_TIMEOUT;
}

/* Until there is a file. */
static enum status await_file(struct source *s, int64_t deadline_ns,
                              struct error *err) {
    for (;;) {
        int fd = open_path(s->options.target);
        if (fd >= 0)
            return begin(s, fd, 0, err);
        if (errno != ENOENT)
            return error_set(err, STATUS_IO, "cannot open %s: %s", s->options.target,
                             strerror(errno));
        int64_t until = clock_now_ns() + POLL_NS;
        until = until < deadline_ns ? until : deadline_ns;
        enum status status = text_reader_wait(s->options.wake_fd, -1, until, err);
        if (status != STATUS_TIMEOUT || until == deadline_ns)
            return status;
    }
}

static enum status file_source_next(struct source *s, int64_t deadline_ns,
                                    struct source_line *out, struct error *err) {
    enum status status = STATUS_OK;
    if (s->fd < 0)
        status = await_file(s, deadline_ns, err);
    else if (s->options.settings->follows && s->reader.is_end &&
             look(s) == WRITTEN_ANEW) {
        /* Looked at before what is there now is read. */
        status = end_followed(s, deadline_ns, out, err);
        if (status == STATUS_OK)
            return STATUS_OK;
    }
    while (status == STATUS_OK || status == STATUS_BUSY) {
        status =
            text_reader_next(&s->reader, s->options.wake_fd, deadline_ns, out, err);
        if (status == STATUS_OK)
            return number(s, out);
        if (status != STATUS_NOT_FOUND)
            return status;
        status = s->options.settings->follows ? end_followed(s, deadline_ns, out, err)
                                              : end_once(s, out, err);
        if (status == STATUS_OK)
            return STATUS_OK;
    }
    return status;
}

static enum status file_source_cursor(const struct source *s, struct source_position at,
                                      char out[SOURCE_CURSOR_BYTES],
                                      struct error *err) {
    if (at.major >= s->n_generations)
        return error_set(err, STATUS_INTERNAL, "no such position");
    const struct generation *g = &s->generations[at.major];
    snprintf(out, SOURCE_CURSOR_BYTES, "%" PRIu64 " %" PRIu64 " %016" PRIx64, at.minor,
             g->inode, text_reader_hash(g->head, g->n_head, at.minor));
    return STATUS_OK;
}

static enum status file_source_parse(const struct source *s, struct view line,
                                     struct arena *arena, struct post *out,
                                     struct error *err) {
    return record_parse(s ? s->options.settings : NULL, line, arena, out, err);
}

static struct source_state *file_source_state(struct source *s) {
    return &s->state;
}

const struct source_kind source_file = {
    .name = "file",
    .default_name = "file",
    .summary = "a file: JSONL, CSV or plain lines; --follow: and what is added to it",
    .is_replayable = true,
    .open = file_source_open,
    .next = file_source_next,
    .cursor = file_source_cursor,
    .parse = file_source_parse,
    .state = file_source_state,
    .close = file_source_close,
};
