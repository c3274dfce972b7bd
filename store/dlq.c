/* SPDX-License-Identifier: Apache-2.0
 *
 * dlq.c - vigil-dlq: posts that failed for good, and lines that could not be read: list them,
 * look at one, send them round again, or drop them.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/nearest.h"
#include "base/options.h"
#include "client/sources/record.h"
#include "store/actor.h"
#include "store/printer.h"
#include "store/store.h"

struct settings {
    const char *store, *format, *actor;
    int64_t limit;
};

#define AT(member) offsetof(struct settings, member)
static const struct option TABLE[] = {
    {"store", 's', OPTION_STRING, AT(store), "URL", "vigil.db", 0, 0, NULL,
     "the store: a file of SQLite, or postgres://…", NULL},
    {"format", 'f', OPTION_CHOICE, AT(format), NULL, "table", 0, 0,
     PRINTER_FORMAT_CHOICES, "shape of the list", NULL},
    {"limit", 'n', OPTION_INTEGER, AT(limit), "N", "100", 0, 1000000000, NULL,
     "list so many at most, the newest first; 0: all", NULL},
    {"actor", 0, OPTION_STRING, AT(actor), "NAME", NULL, 0, 0, NULL,
     "who does this, for the audit; default: the user's name", NULL},
};

static const char *const EXAMPLES[] = {"vigil dlq list",
                                       "what failed, where and why",
                                       "vigil dlq show 17",
                                       "one of them, its raw line on standard output",
                                       "vigil dlq retry all",
                                       "send all round again, as after a repair",
                                       "vigil dlq drop 17",
                                       "give one up; the audit remembers that",
                                       NULL};

static const struct program PROGRAM = {
    .name = "vigil-dlq",
    .summary = "look at, retry or drop posts that failed for good",
    .usage = "[options] list\n[options] show ID\n[options] retry ID|all\n"
             "[options] drop ID|all",
    .description =
        "A line that cannot be read, a post that the classifier refuses, or "
        "that failed "
        "too often, becomes a dead letter, with the reason, and holds up "
        "nothing else. A "
        "retried letter begins anew: a line is read again, a post is "
        "classified again. A "
        "letter of a line may hold what a person wrote: `show` prints it, "
        "`list` does not.\n\n"
        "Exit status: 0, 1 for a failure or an ID that is not there, 2 for a "
        "wrong "
        "command line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .min_arguments = 1,
    .max_arguments = 2,
};

/* ---- list ---- */

static enum status list_one(void *context, const struct store_dead *d,
                            struct error *err) {
    char when[CLOCK_UTC_BYTES];
    clock_format_utc(d->created_ns, when);
    const struct printer_value values[] = {
        {.type = STATEMENT_INTEGER, .integer = d->id},
        {.type = STATEMENT_TEXT, .text = view_of_string(when)},
        {.type = STATEMENT_TEXT, .text = d->stage},
        {.type = STATEMENT_TEXT, .text = d->source},
        {.type = STATEMENT_TEXT, .text = d->key},
        {.type = STATEMENT_INTEGER, .integer = d->tries},
        {.type = STATEMENT_INTEGER, .integer = d->n_bytes},
        {.type = STATEMENT_TEXT, .text = d->reason},
    };
    return printer_row(context, values, sizeof values / sizeof *values, err);
}

static enum status list(struct store *s, const struct settings *settings,
                        struct error *err) {
    static const char *const names[] = {"id",  "at",    "stage", "source",
                                        "key", "tries", "bytes", "reason"};
    struct printer printer = {.format = printer_format_of(settings->format),
                              .out = stdout,
                              .is_terminal = isatty(STDOUT_FILENO)};
    enum status status =
        printer_columns(&printer, names, sizeof names / sizeof *names, err);
    if (status == STATUS_OK)
        status = store_dead(s, 0, settings->limit, false, list_one, &printer, err);
    if (status == STATUS_OK)
        status = printer_end(&printer, err);
    printer_free(&printer);
    return status;
}

/* ---- show ---- */

/* A field of the letter, on one line. */
static void say(const char *name, struct view value) {
    char text[STORE_KEY_BYTES + 1];
    size_t n = value.n_bytes < sizeof text ? value.n_bytes : sizeof text - 1;
    if (n)
        memcpy(text, value.data, n);
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\n')
            text[i] = ' ';
    printer_disarm(text, n);
    fprintf(stderr, "%-7s %.*s\n", name, (int)n, text);
}

/* Without the mark that says how to read it (record.h). */
static struct view line_of(struct view body) {
    size_t n = body.n_bytes == 0                                                    ? 0
               : body.data[0] == RECORD_TAG_CSV                                     ? 2
               : body.data[0] == RECORD_TAG_JSON || body.data[0] == RECORD_TAG_TEXT ? 1
                                                                                    : 0;
    n = n < body.n_bytes ? n : body.n_bytes;
    return n ? view_of(body.data + n, body.n_bytes - n) : body;
}

/* What is known of it goes to standard error, so that its line stands alone on standard
 * output: byte by byte into a file or a pipe, without control characters onto a terminal. */
static enum status show_one(void *context, const struct store_dead *d,
                            struct error *err) {
    char when[CLOCK_UTC_BYTES];
    *(bool *)context = true;
    clock_format_utc(d->created_ns, when);
    fprintf(stderr, "id      %" PRId64 "\n", d->id);
    say("at", view_of_string(when));
    say("stage", d->stage);
    say("source", d->source);
    say("key", d->key);
    fprintf(stderr, "tries   %d\n", (int)d->tries);
    say("reason", d->reason);
    struct view line = line_of(d->body);
    if (line.n_bytes == 0)
        return STATUS_OK;
    struct buffer body = {.max_bytes = line.n_bytes + 2};
    enum status status = buffer_append(&body, line.data, line.n_bytes, err);
    if (status == STATUS_OK)
        status = buffer_append(&body, "\n", 1, err);
    if (status == STATUS_OK && isatty(STDOUT_FILENO))
        printer_disarm(body.data, body.n_bytes);
    if (status == STATUS_OK &&
        fwrite(body.data, 1, body.n_bytes, stdout) != body.n_bytes)
        status = error_set(err, STATUS_IO, "cannot write to standard output: %s",
                           strerror(errno));
    buffer_free(&body);
    return status;
}

static enum status show(struct store *s, int64_t id, struct error *err) {
    bool is_there = false;
    enum status status = store_dead(s, id, 1, true, show_one, &is_there, err);
    if (status == STATUS_OK && !is_there)
        return error_set(err, STATUS_NOT_FOUND, "no dead letter %" PRId64, id);
    return status;
}

/* ---- all ---- */

/* A number from 1, or 0 for "all" where that is allowed; -1 otherwise. */
static int64_t id_of(const char *text, bool allows_all) {
    char *end = NULL;
    if (strcmp(text, "all") == 0)
        return allows_all ? 0 : -1;
    errno = 0;
    long long id = strtoll(text, &end, 10);
    return errno || end == text || *end || id < 1 ? -1 : id;
}

static enum status run(const struct settings *settings, const char *verb, int64_t id,
                       struct error *err) {
    struct store *s = NULL;
    int64_t n = 0;
    char actor[ACTOR_BYTES];
    actor_name(settings->actor, actor);
    bool is_reading = strcmp(verb, "list") == 0 || strcmp(verb, "show") == 0;
    enum status status = store_open(
        settings->store, is_reading ? DATABASE_READ : DATABASE_WRITE, &s, err);
    if (status == STATUS_OK && strcmp(verb, "list") == 0)
        status = list(s, settings, err);
    else if (status == STATUS_OK && strcmp(verb, "show") == 0)
        status = show(s, id, err);
    else if (status == STATUS_OK && strcmp(verb, "retry") == 0)
        status = store_dead_retry(s, id, actor, &n, err);
    else if (status == STATUS_OK)
        status = store_dead_drop(s, id, actor, &n, err);
    if (status == STATUS_OK && !is_reading && id && n == 0)
        status = error_set(err, STATUS_NOT_FOUND, "no dead letter %" PRId64, id);
    if (status == STATUS_OK && !is_reading)
        fprintf(stderr, "vigil dlq: %" PRId64 " %s\n", n,
                strcmp(verb, "retry") == 0 ? "sent round again" : "dropped");
    store_close(s);
    return status;
}

static int usage(const char *verb) {
    static const char *const verbs[] = {"list", "show", "retry", "drop"};
    struct nearest best = {0};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        nearest_consider(&best, verb, verbs[i]);
    struct error err;
    if (best.name && strcmp(best.name, verb) == 0)
        error_set(&err, STATUS_INVALID, "%s takes %s", verb,
                  strcmp(verb, "list") == 0   ? "no ID"
                  : strcmp(verb, "show") == 0 ? "the ID of one letter"
                                              : "the ID of a letter, or \"all\"");
    else
        error_set(&err, STATUS_INVALID, "unknown command \"%.40s\"%s%s", verb,
                  best.name ? "; did you mean " : "; there are list, show, retry, drop",
                  best.name ? best.name : "");
    printer_complain("dlq", &err);
    fputs("Try 'vigil dlq --help'.\n", stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    struct settings settings = {0};
    struct error err = {0};
    int n_arguments = 0, exit_code = -1;
    options_parse(&PROGRAM, argc, argv, &settings, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    const char *verb = argv[1];
    bool is_list = strcmp(verb, "list") == 0, is_show = strcmp(verb, "show") == 0;
    bool is_known =
        is_list || is_show || strcmp(verb, "retry") == 0 || strcmp(verb, "drop") == 0;
    int64_t id = n_arguments == 2 ? id_of(argv[2], !is_show) : is_list ? 0 : -1;
    if (!is_known || id < 0 || (is_list && n_arguments == 2))
        return usage(verb);
    enum status status = run(&settings, verb, id, &err);
    if (status == STATUS_OK && fflush(stdout) != 0)
        status = error_set(&err, STATUS_IO, "cannot write to standard output: %s",
                           strerror(errno));
    if (status != STATUS_OK) {
        printer_complain("dlq", &err);
        return EXIT_FAILED;
    }
    return EXIT_OK;
}
