/* SPDX-License-Identifier: Apache-2.0
 *
 * source.h - where posts come from: the seam between what speaks a protocol and the pipeline
 * of `vigil stream` (intake.h).
 *
 * A source hands out raw lines, whole and unparsed, each with the position behind it. The
 * pipeline makes lines durable, then tells the source with `committed`; only then may the
 * source acknowledge them to whoever sent them. After a crash it goes on at the last position
 * that was committed. Parsing is another function, which any thread may call, so that no
 * reader is ever held up by it.
 *
 * Two kinds: of a replayable source (a file, Jetstream) the lines can be had again from a
 * position, so its position is committed together with the posts; of any other (X, Mastodon,
 * push, a pipe) the raw lines are kept first, together with the position.
 *
 * Threads:    open, next, cursor, close: the reader's. committed: the writer's, beside next.
 *             parse: any. state: atomics, any.
 * Call order: open (next | cursor | committed)* close
 */
#ifndef VIGIL_CLIENT_SOURCES_SOURCE_H
#define VIGIL_CLIENT_SOURCES_SOURCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"
#include "client/sources/post.h"

#define SOURCE_MAX_LINE_BYTES ((size_t)1 << 20) /* a longer one is a dead letter, cut */
#define SOURCE_CURSOR_BYTES 512

/* Grows with every line of a source; what the two numbers mean is the source's own (a file's
 * number and offset; microseconds; a count). */
struct source_position {
    uint64_t major, minor;
};

struct source_line {
    struct view bytes;            /* without its line end; good until the next call */
    int64_t received_ns;          /* wall clock */
    struct source_position after; /* go on here once this line is durable */
    bool is_cut;                  /* was longer than SOURCE_MAX_LINE_BYTES */
};

/* What a source is doing, for /metrics and the progress line. */
enum source_phase {
    SOURCE_STARTING,
    SOURCE_CONNECTING,
    SOURCE_STREAMING,
    SOURCE_WAITING,              /* backs off, until wait_until_ns */
    SOURCE_TOO_MANY_CONNECTIONS, /* another connection of ours still counts: waits */
    SOURCE_PAUSED,               /* the usage guard: quota of the day is used up */
    SOURCE_ENDED,
    N_SOURCE_PHASES
};
const char *source_phase_name(enum source_phase phase); /* "too_many_connections" */

/* Written by the source, read by anyone. Times are of clock_now_ns; 0: never. */
struct source_state {
    _Atomic int phase; /* enum source_phase */
    _Atomic int64_t wait_until_ns;
    _Atomic int64_t last_byte_ns; /* any byte, a keep-alive too */
    _Atomic int64_t last_post_ns;
    _Atomic int64_t n_bytes, n_lines;
    _Atomic int64_t n_connects, n_disconnects, n_errors;
    _Atomic int64_t
        n_gaps; /* times that what was owed did not come: logged, with length */
    _Atomic int64_t
        n_total_bytes; /* of a file: its size, for the progress bar; else 0 */
};

struct source;

/* What every source is opened with. Strings outlive the source. */
struct source_options {
    const char *name;   /* in the store: "bsky"; keys are NAME:native_id */
    const char *target; /* behind the kind: a path, a URL */
    const char *cursor; /* the last one that was committed, or NULL: from the start */
    int wake_fd;        /* next gives STATUS_CANCELLED once this is readable */
    uint64_t seed;      /* of the jitter */
    const struct source_settings
        *settings; /* options of single kinds: stream_options.h */
};

/* A kind of source. */
struct source_kind {
    const char *name;         /* "file" */
    const char *default_name; /* in the store */
    const char *summary;      /* for --help */
    bool is_replayable;

    /* On success *out is closed by close. Must not wait for the network: connecting is part
     * of next. */
    enum status (*open)(const struct source_options *options, struct source **out,
                        struct error *err);

    /* The next line.
     * STATUS_OK         *out is set
     * STATUS_TIMEOUT    none until deadline_ns (clock_now_ns)
     * STATUS_NOT_FOUND  the end: there will be no more
     * STATUS_CANCELLED  woken through wake_fd
     * anything else     the source cannot go on (a wrong token, a missing file): the program
     *                   ends with the message. What can be tried again is not an error: the
     *                   source waits by its own rules and says so in its state. */
    enum status (*next)(struct source *s, int64_t deadline_ns, struct source_line *out,
                        struct error *err);

    /* All lines up to and with this position are durable. NULL: nobody has to be told. */
    void (*committed)(struct source *s, struct source_position upto);

    /* The position as text for the store, and back (inside open). */
    enum status (*cursor)(const struct source *s, struct source_position at,
                          char out[SOURCE_CURSOR_BYTES], struct error *err);

    /* Reads a raw line. Does not touch the connection; any thread, source may be NULL where
     * the kind needs nothing of it.
     * STATUS_INVALID, _UNSUPPORTED, _LIMIT: a dead letter, with the message as the reason. */
    enum status (*parse)(const struct source *s, struct view line, struct arena *arena,
                         struct post *out, struct error *err);

    struct source_state *(*state)(struct source *s);
    void (*close)(struct source *s);
};

/* A source and its kind. */
struct source_handle {
    const struct source_kind *kind;
    struct source *source;
};

/* By the word before the first ':' ("x:", "jetstream:wss://…", "file:posts.jsonl"); a path
 * without one is a file, a directory or, "-", standard input. *target is what follows.
 * STATUS_NOT_FOUND names the kinds there are. */
enum status source_find(const char *spec, const struct source_kind **out,
                        const char **target, struct error *err);

extern const struct source_kind source_file, source_directory, source_stdin, source_x,
    source_jetstream, source_mastodon, source_push;

#endif
