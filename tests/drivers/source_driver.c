/* SPDX-License-Identifier: Apache-2.0
 *
 * source_driver.c - a source by itself, for tests/e2e: opens it, prints what it hands out,
 * and closes it on SIGTERM.
 *
 * usage: source_driver KIND TARGET [NAME=VALUE]...
 *        names: the fields of struct source_settings, cursor, watch_list (a path), seed,
 *        deadline_ms (of next)
 *
 * On stdout, a line each:
 *   {"line": RAW, "cursor": …, "cut": bool, "post": {…} | null, "dead": reason}
 *   {"phase": NAME, "wait_ms": N}           whenever the phase changes
 *   {"end": STATUS, "message": …, "connects": N, "disconnects": N, "errors": N, "bytes": N,
 *    "gaps": N}
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "client/select/watch_list.h"
#include "client/sources/source.h"
#include "client/stream_options.h"

static int wake_fd;

static void on_signal(int number) {
    uint64_t one = 1;
    (void)number;
    if (write(wake_fd, &one, sizeof one) < 0)
        _exit(3);
}

static const char *phase_name(int phase) {
    static const char *const names[] = {"starting", "connecting",           "streaming",
                                        "waiting",  "too_many_connections", "paused",
                                        "ended"};
    return names[phase];
}

static void put(const char *key, struct view v) {
    struct buffer b = {.max_bytes = (size_t)16 << 20};
    if (json_append_string(&b, v.data, v.n_bytes, NULL) == STATUS_OK)
        printf("\"%s\":%.*s", key, (int)b.n_bytes, b.data);
    buffer_free(&b);
}

static void put_more(const char *key, struct view v) {
    printf(",");
    put(key, v);
}

static void put_post(const struct post *p) {
    static const char *const actions[] = {"put", "delete", "nothing"};
    static const char *const relations[] = {"original", "repost", "quote"};
    printf(",\"post\":{\"action\":\"%s\",\"relation\":\"%s\",\"version\":%" PRId64
           ",\"posted_ns\":%" PRId64 ",\"original_version\":%" PRId64 ",",
           actions[p->action], relations[p->relation], p->version, p->posted_ns,
           p->original_version);
    put("native_id", p->native_id);
    put_more("text", p->text);
    put_more("author", p->author);
    put_more("author_name", p->author_name);
    put_more("lang", p->lang);
    put_more("place", p->place);
    put_more("url", p->url);
    put_more("original_id", p->original_id);
    put_more("original_text", p->original_text);
    put_more("original_author", p->original_author);
    printf("}");
}

static void put_line(const struct source_kind *kind, const struct source *s,
                     const struct source_line *line, struct arena *arena) {
    char cursor[SOURCE_CURSOR_BYTES] = "";
    struct error err = {0};
    struct post post;
    kind->cursor(s, line->after, cursor, NULL);
    printf("{");
    put("line", line->bytes);
    put_more("cursor", view_of_string(cursor));
    printf(",\"cut\":%s", line->is_cut ? "true" : "false");
    if (kind->parse(s, line->bytes, arena, &post, &err) == STATUS_OK)
        put_post(&post);
    else
        put_more("dead", view_of_string(err.message));
    printf("}\n");
    arena_clear(arena);
}

static int run(const struct source_kind *kind, const struct source_options *options,
               int64_t deadline_ms) {
    struct error err = {0};
    struct source *s = NULL;
    struct source_line line;
    struct arena arena = {.max_bytes = (size_t)64 << 20};
    int phase = -1;
    enum status status = kind->open(options, &s, &err);
    struct source_state *state = s ? kind->state(s) : NULL;
    while (status == STATUS_OK || status == STATUS_TIMEOUT) {
        status = kind->next(s, clock_now_ns() + deadline_ms * 1000000, &line, &err);
        if (status == STATUS_OK)
            put_line(kind, s, &line, &arena);
        if (status == STATUS_OK && kind->committed)
            kind->committed(s, line.after);
        if (atomic_load(&state->phase) != phase) {
            phase = atomic_load(&state->phase);
            int64_t until_ns = atomic_load(&state->wait_until_ns);
            printf("{\"phase\":\"%s\",\"wait_ms\":%" PRId64 "}\n", phase_name(phase),
                   until_ns ? (until_ns - clock_now_ns()) / 1000000 : 0);
        }
        fflush(stdout);
    }
    printf("{\"end\":\"%s\",", status_name(status));
    put("message", view_of_string(err.message));
    if (state)
        printf(",\"connects\":%" PRId64 ",\"disconnects\":%" PRId64
               ",\"errors\":%" PRId64 ",\"bytes\":%" PRId64 ",\"gaps\":%" PRId64,
               atomic_load(&state->n_connects), atomic_load(&state->n_disconnects),
               atomic_load(&state->n_errors), atomic_load(&state->n_bytes),
               atomic_load(&state->n_gaps));
    printf("}\n");
    if (s)
        kind->close(s);
    arena_free(&arena);
    return status == STATUS_CANCELLED ? 0 : 1;
}

/* NAME=VALUE into the settings. */
static int set(struct source_settings *o, struct source_options *options,
               int64_t *deadline_ms, const char *name, const char *value) {
    const struct {
        const char *name;
        const char **text;
        int64_t *number;
        bool *flag;
    } names[] = {{"token_file", &o->token_file, NULL, NULL},
                 {"key_file", &o->key_file, NULL, NULL},
                 {"ca_file", &o->ca_file, NULL, NULL},
                 {"rules_file", &o->rules_file, NULL, NULL},
                 {"languages", &o->languages, NULL, NULL},
                 {"streams", &o->streams, NULL, NULL},
                 {"push_keys", &o->push_keys, NULL, NULL},
                 {"cursor", &options->cursor, NULL, NULL},
                 {"allows_plain", NULL, NULL, &o->allows_plain},
                 {"keeps_other_rules", NULL, NULL, &o->keeps_other_rules},
                 {"max_rule_bytes", NULL, &o->max_rule_bytes, NULL},
                 {"max_rules", NULL, &o->max_rules, NULL},
                 {"posts_a_day", NULL, &o->posts_a_day, NULL},
                 {"backfill_minutes", NULL, &o->backfill_minutes, NULL},
                 {"deadline_ms", NULL, deadline_ms, NULL}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].name, name) != 0)
            continue;
        if (names[i].text)
            *names[i].text = value;
        else if (names[i].number)
            *names[i].number = strtoll(value, NULL, 10);
        else
            *names[i].flag = strcmp(value, "true") == 0;
        return 0;
    }
    return -1;
}

static const struct source_kind *kind_of(const char *name) {
    static const struct source_kind *const kinds[] = {&source_x, &source_mastodon,
                                                      &source_jetstream, &source_push};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    return NULL;
}

int main(int n_arguments, char **arguments) {
    struct source_settings settings = {0};
    struct source_options options = {.settings = &settings, .seed = 1};
    struct watch_list *watch_list = NULL;
    struct error err;
    int64_t deadline_ms = 100;
    if (n_arguments < 3) {
        fprintf(stderr, "usage: source_driver KIND TARGET [NAME=VALUE]...\n");
        return 2;
    }
    const struct source_kind *kind = kind_of(arguments[1]);
    if (!kind) {
        fprintf(stderr, "no kind of source %s\n", arguments[1]);
        return 2;
    }
    options.name = kind->default_name;
    options.target = arguments[2];
    for (int i = 3; i < n_arguments; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value)
            return 2;
        *value++ = 0;
        if (strcmp(arguments[i], "watch_list") == 0) {
            if (watch_list_open(value, false, &watch_list, &err) != STATUS_OK) {
                fprintf(stderr, "%s\n", err.message);
                return 2;
            }
            settings.watch_list = watch_list;
        } else if (set(&settings, &options, &deadline_ms, arguments[i], value) != 0) {
            return 2;
        }
    }
    options.wake_fd = wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    int code = run(kind, &options, deadline_ms);
    watch_list_close(watch_list);
    return code;
}
