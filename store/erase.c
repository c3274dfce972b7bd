/* SPDX-License-Identifier: Apache-2.0
 *
 * erase.c - vigil-erase: forgets a post, an author, a source, or what is old, wherever it
 * lies: the tables of the store and their log, lake files, the queue; with a receipt.
 *
 * The order is the way of a post: the queue first, so that nothing comes back from there,
 * then the store (which remembers the keys as tombstones), then the files.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/options.h"
#include "client/select/privacy.h"
#include "store/actor.h"
#include "store/lake/lake.h"
#include "store/printer.h"
#include "store/queue/queue.h"
#include "store/store.h"

#define NAME_BYTES 256
#define DAY_NS (INT64_C(86400) * CLOCK_NS_PER_SECOND)

struct settings {
    const char *store, *queue, *key_file, *actor;
    const char *author, *post, *source;
    int64_t older_than_days;
    bool is_dry_run, is_json, checks_audit;
};

#define AT(member) offsetof(struct settings, member)
static const struct option TABLE[] = {
    {"author", 0, OPTION_STRING, AT(author), "SOURCE:ID", NULL, 0, 0, NULL,
     "all of an author, by the id that the source gives him", "What"},
    {"post", 0, OPTION_STRING, AT(post), "SOURCE:ID", NULL, 0, 0, NULL,
     "a post, by the id that the source gives it, or by its key", "What"},
    {"source", 0, OPTION_STRING, AT(source), "NAME", NULL, 0, 0, NULL,
     "all of a source; with --older-than: what is old of it", "What"},
    {"older-than", 0, OPTION_INTEGER, AT(older_than_days), "DAYS", "0", 0, 36500, NULL,
     "what came in more than so many days ago", "What"},
    {"check-audit", 0, OPTION_FLAG, AT(checks_audit), NULL, NULL, 0, 0, NULL,
     "erase nothing: verify the chain of hashes that the receipts are in", "What"},
    {"store", 's', OPTION_STRING, AT(store), "URL", "vigil.db", 0, 0, NULL,
     "the store: a file of SQLite, or postgres://…", "Where"},
    {"queue", 0, OPTION_STRING, AT(queue), "URL", NULL, 0, 0, NULL,
     "the queue, where there is one: nats://…; not with --older-than: a queue forgets "
     "by "
     "its own age",
     "Where"},
    {"key-file", 0, OPTION_STRING, AT(key_file), "FILE", NULL, 0, 0, NULL,
     "key of the authors' hashes; default: beside the store", "Where"},
    {"actor", 0, OPTION_STRING, AT(actor), "NAME", NULL, 0, 0, NULL,
     "who does this, for the audit; default: the user's name", "How"},
    {"dry-run", 'n', OPTION_FLAG, AT(is_dry_run), NULL, NULL, 0, 0, NULL,
     "say what would go; change nothing", "How"},
    {"json", 0, OPTION_FLAG, AT(is_json), NULL, NULL, 0, 0, NULL, "the receipt as JSON",
     "How"},
};

static const char *const EXAMPLES[] = {
    "vigil erase --author bsky:did:plc:ewvi7nxzyoun6zhxrhs64oiz --dry-run",
    "what is kept of an author",
    "vigil erase --author bsky:did:plc:ewvi7nxzyoun6zhxrhs64oiz",
    "forget it",
    "vigil erase --post x:1849912345678901234",
    "forget a post",
    "vigil erase --older-than 365",
    "keep a year",
    "vigil erase --check-audit",
    "is every receipt still there, in its order and unchanged?",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-erase",
    .summary = "forget a post, an author, a source, or what is old",
    .usage = "[options] (--author SOURCE:ID | --post SOURCE:ID | --source NAME | "
             "--older-than DAYS)\n[options] --check-audit",
    .description =
        "Removes posts with their results, mentions, reviews, raw lines and dead "
        "letters "
        "from the store, overwrites what was in its pages and its log, writes the lake "
        "files anew that held them, and overwrites their messages in the queue. What "
        "is "
        "erased does not come back when a source sends it again. The receipt on "
        "standard "
        "output names what went and its entry in the audit.\n\n"
        "Logs hold neither texts nor authors. Backups, and copies of lake files "
        "elsewhere, are not reached from here. A worker that is classifying a post of "
        "a "
        "queue at this moment may still store it, and with a queue each store has to "
        "be "
        "erased from: end the workers first, or erase once more behind them.\n\n"
        "Whoever reads the store for long (an open vigil query) keeps the log from "
        "being "
        "emptied: this waits half a minute for it, then says so and fails.\n\n"
        "Exit status: 0 when nothing is left, 1 for a failure, 2 for a wrong command "
        "line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .max_arguments = 0,
};

/* Who or what, in the forms that it may be kept in. */
struct target {
    char source[NAME_BYTES];
    const char *id; /* as the source writes it */
    char hash[PRIVACY_HASH_BYTES];
    char key[STORE_KEY_BYTES], hashed_key[STORE_KEY_BYTES];
};

static enum status read_target(const char *text, struct target *out,
                               struct error *err) {
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    if (n == 0 || n >= NAME_BYTES || !colon[1])
        return error_set(err, STATUS_INVALID,
                         "\"%.80s\" is not of the form SOURCE:ID, such as x:12345",
                         text);
    memcpy(out->source, text, n);
    out->source[n] = '\0';
    out->id = colon + 1;
    if (strlen(out->id) + n + 2 > STORE_KEY_BYTES)
        return error_set(err, STATUS_LIMIT, "the id is longer than %d bytes",
                         STORE_KEY_BYTES);
    snprintf(out->key, sizeof out->key, "%s:%s", out->source, out->id);
    return STATUS_OK;
}

/* Without the key no hash can be made, and what is kept under one would not be found. */
static enum status hash_target(const struct settings *settings, struct target *t,
                               struct error *err) {
    char path[FILE_PATH_BYTES];
    struct privacy *privacy = NULL;
    enum status status = STATUS_OK;
    if (settings->key_file)
        snprintf(path, sizeof path, "%s", settings->key_file);
    else
        status = privacy_key_path(settings->store, path, sizeof path, err);
    if (status == STATUS_OK)
        status = privacy_open(path, false, STORE_PSEUDONYMOUS, &privacy, err);
    if (status != STATUS_OK)
        return status;
    if (t->id[0] == '~') /* a key as the store shows it */
        snprintf(t->hash, sizeof t->hash, "%s", t->id + 1);
    else
        privacy_hash(privacy, t->source, view_of_string(t->id), t->hash);
    snprintf(t->hashed_key, sizeof t->hashed_key, "%s:~%s", t->source, t->hash);
    privacy_close(privacy);
    return STATUS_OK;
}

struct receipt {
    struct store_erased store;
    struct lake_counts lake;
    int64_t n_messages;
};

static enum status erase_queue(const struct settings *settings, const struct target *t,
                               int64_t *n_messages, struct error *err) {
    const struct queue_options options = {.url = settings->queue};
    struct queue *q = NULL;
    int64_t n = 0;
    enum status status = queue_open(&options, &q, err);
    if (status == STATUS_OK && settings->author) {
        status = queue_erase(q, t->source, t->hash, NULL, n_messages, err);
        if (status == STATUS_OK)
            status = queue_erase(q, t->source, t->id, NULL, &n, err);
    } else if (status == STATUS_OK && settings->post) {
        status = queue_erase(q, t->source, NULL, t->key, n_messages, err);
        if (status == STATUS_OK)
            status = queue_erase(q, t->source, NULL, t->hashed_key, &n, err);
    } else if (status == STATUS_OK && settings->source) {
        status = queue_erase(q, settings->source, NULL, NULL, n_messages, err);
    }
    *n_messages += n;
    queue_close(q);
    return status;
}

static enum status erase_store(struct store *s, const struct settings *settings,
                               const struct target *t, struct store_erased *out,
                               struct error *err) {
    char actor[ACTOR_BYTES];
    actor_name(settings->actor, actor);
    struct store_erase what = {.actor = actor, .is_dry_run = settings->is_dry_run};
    if (settings->older_than_days > 0)
        what.older_than_ns = clock_wall_ns() - settings->older_than_days * DAY_NS;
    what.source = settings->author || settings->post ? t->source : settings->source;
    if (settings->author) {
        what.author = t->hash;
        what.author_raw = t->id;
    } else if (settings->post) {
        what.key = t->hashed_key;
        what.key_raw = t->id;
    }
    return store_erase(s, &what, out, err);
}

static enum status run(const struct settings *settings, const struct target *t,
                       struct receipt *receipt, struct error *err) {
    struct store *s = NULL;
    enum status refreshed = STATUS_OK;
    enum status status = store_open(settings->store, DATABASE_WRITE, &s, err);
    if (status == STATUS_OK && settings->queue && !settings->is_dry_run)
        status = erase_queue(settings, t, &receipt->n_messages, err);
    if (status == STATUS_OK)
        status = erase_store(s, settings, t, &receipt->store, err);
    /* The rows may be gone even when their bytes are not: then the files have to follow. */
    bool is_gone = status == STATUS_OK || receipt->store.audit_seq > 0;
    if (is_gone && !settings->is_dry_run)
        refreshed = lake_refresh(store_database(s), &receipt->lake,
                                 status == STATUS_OK ? err : NULL);
    status = status == STATUS_OK ? refreshed : status;
    store_close(s);
    return status;
}

/* The chain of the audit: who kept a receipt finds its entry and hash in the table. */
static enum status check_audit(const struct settings *settings, struct error *err) {
    struct store *s = NULL;
    int64_t n = 0;
    enum status status = store_open(settings->store, DATABASE_READ, &s, err);
    if (status == STATUS_OK)
        status = store_audit_check(s, &n, err);
    store_close(s);
    if (status == STATUS_OK && settings->is_json)
        printf("{\"audit_entries\": %" PRId64 ", \"chain_holds\": true}\n", n);
    else if (status == STATUS_OK)
        printf("%" PRId64 " audit entries; each follows from the one before\n", n);
    return status;
}

static void print_receipt(const struct settings *settings, const struct receipt *r) {
    const struct {
        const char *name;
        int64_t n;
    } lines[] = {
        {"posts", r->store.n_posts},
        {"results", r->store.n_results},
        {"mentions", r->store.n_mentions},
        {"reviews", r->store.n_reviews},
        {"waiting", r->store.n_queued},
        {"raw_lines", r->store.n_raw},
        {"dead_letters", r->store.n_dead},
        {"folds", r->store.n_folds},
        {"queue_messages", r->n_messages},
        {"lake_files_rewritten", r->lake.n_refreshed},
        {"lake_files_removed", r->lake.n_removed},
    };
    char now[CLOCK_UTC_BYTES];
    clock_format_utc(clock_wall_ns(), now);
    if (settings->is_json) {
        printf("{\"at\": \"%s\", \"dry_run\": %s", now,
               settings->is_dry_run ? "true" : "false");
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
            printf(", \"%s\": %" PRId64, lines[i].name, lines[i].n);
        printf(", \"audit_seq\": %" PRId64 ", \"audit_hash\": \"%s\"}\n",
               r->store.audit_seq, r->store.audit_hash);
        return;
    }
    printf("%s at %s\n", settings->is_dry_run ? "would erase" : "erased", now);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (lines[i].n || i == 0)
            printf("%10" PRId64 "  %s\n", lines[i].n, lines[i].name);
    if (!settings->is_dry_run)
        printf("audit entry %" PRId64 ", %s\n", r->store.audit_seq,
               r->store.audit_hash);
}

/* NULL, or what is wrong with the command line. */
static const char *mistake(const struct settings *settings) {
    bool has_age = settings->older_than_days > 0;
    int n_targets = (settings->author != NULL) + (settings->post != NULL) +
                    (settings->source != NULL || has_age) + settings->checks_audit;
    if (n_targets == 0)
        return "say what: --author, --post, --source or --older-than";
    if (n_targets > 1)
        return "only one of --author, --post, --source and --older-than (the last two "
               "go "
               "together), or --check-audit";
    if (has_age && settings->queue)
        return "--older-than does not go with --queue: a queue forgets by its own age "
               "(age= in its URL)";
    return NULL;
}

static int usage(const struct error *err) {
    printer_complain("erase", err);
    fputs("Try 'vigil erase --help'.\n", stderr);
    return EXIT_USAGE;
}

/* Behind an erasing that found nothing, or could not come to its end. */
static void advise(const struct settings *settings, const struct receipt *r,
                   enum status status) {
    const struct store_erased *n = &r->store;
    bool is_by_id = settings->author || settings->post;
    if (status == STATUS_BUSY && n->audit_seq)
        fputs(
            "vigil erase: end whoever reads the store (vigil query, a backup) and run "
            "this again: it empties the log even if nothing more is found\n",
            stderr);
    else if (status == STATUS_OK && is_by_id &&
             n->n_posts + n->n_raw + n->n_dead + n->n_folds + r->n_messages == 0)
        fputs("vigil erase: nothing was found; ids are as the source writes them, and "
              "--key-file must be the key that vigil stream hashed them with\n",
              stderr);
}

int main(int argc, char **argv) {
    struct settings settings = {0};
    struct receipt receipt = {0};
    struct target target = {0};
    struct error err = {0};
    int n_arguments = 0, exit_code = -1;
    options_parse(&PROGRAM, argc, argv, &settings, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    const char *wrong = mistake(&settings);
    const char *id = settings.author ? settings.author : settings.post;
    if (wrong)
        error_set(&err, STATUS_INVALID, "%s", wrong);
    else if (id)
        read_target(id, &target, &err);
    if (err.status != STATUS_OK)
        return usage(&err);
    enum status status = id ? hash_target(&settings, &target, &err) : STATUS_OK;
    if (status == STATUS_OK)
        status = settings.checks_audit ? check_audit(&settings, &err)
                                       : run(&settings, &target, &receipt, &err);
    /* What was erased was, whatever failed behind it. */
    if (!settings.checks_audit && (status == STATUS_OK || receipt.store.audit_seq))
        print_receipt(&settings, &receipt);
    if (fflush(stdout) != 0 && status == STATUS_OK)
        status =
            error_set(&err, STATUS_IO, "cannot write the receipt: %s", strerror(errno));
    if (status != STATUS_OK)
        printer_complain("erase", &err);
    advise(&settings, &receipt, status);
    return status == STATUS_OK ? EXIT_OK : EXIT_FAILED;
}
