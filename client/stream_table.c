/* SPDX-License-Identifier: Apache-2.0 */
#include "client/stream_table.h"

#include <stddef.h>

#include "base/format.h"
#include "base/log.h"

#define AT(member) offsetof(struct stream_table, member)
static const struct option TABLE[] = {
    {"store", 's', OPTION_STRING, AT(store), "URL", "vigil.db", 0, 0, NULL,
     "a file for SQLite, or postgres://…", NULL},
    {"name", 'n', OPTION_STRING, AT(name), "NAME", NULL, 0, 0, NULL,
     "of the source in the store; its cursor is kept under it (default: the kind's)",
     NULL},
    {"follow", 'f', OPTION_FLAG, AT(settings.follows), NULL, NULL, 0, 0, NULL,
     "wait for more at the end of a file, and for new files in a directory", NULL},
    {"from-start", 0, OPTION_FLAG, AT(from_start), NULL, NULL, 0, 0, NULL,
     "read from the start, not from where the last run left off; nothing counts twice",
     NULL},
    {"dry-run", 0, OPTION_FLAG, AT(is_dry_run), NULL, NULL, 0, 0, NULL,
     "read and select, print the counts, write nothing (not of x: and push:)", NULL},
    {"quiet", 'q', OPTION_FLAG, AT(is_quiet), NULL, NULL, 0, 0, NULL,
     "neither a progress bar nor a summary", NULL},
    {"json", 0, OPTION_FLAG, AT(wants_json), NULL, NULL, 0, 0, NULL,
     "the summary as a JSON object on standard output", NULL},

    {"watch-list", 'w', OPTION_STRING, AT(watch_list), "FILE", NULL, 0, 0, NULL,
     "names of drugs; without it the list that comes with Vigil; none: keep every post",
     "Selection"},
    {"substring", 0, OPTION_FLAG, AT(matches_substrings), NULL, NULL, 0, 0, NULL,
     "find the names inside of words too", "Selection"},
    {"languages", 'l', OPTION_STRING, AT(languages), "LIST", "en", 0, 0, NULL,
     "which to keep: \"en,es\"; any: all", "Selection"},
    {"detect-language", 0, OPTION_FLAG, AT(detects_language), NULL, "on", 0, 0, NULL,
     "guess the language where the source does not tell it", "Selection"},
    {"fold", 0, OPTION_FLAG, AT(folds), NULL, "on", 0, 0, NULL,
     "count posts with nearly the same words on the first of them", "Selection"},

    {"mode", 'm', OPTION_CHOICE, AT(mode), "MODE", NULL, 0, 0,
     "full|pseudonymous|aggregate",
     "what is kept of authors; without it pseudonymous, for X aggregate", "Privacy"},
    {"key-file", 0, OPTION_STRING, AT(key_file), "FILE", NULL, 0, 0, NULL,
     "key of the authors' hashes, made when it is missing (default: beside the store)",
     "Privacy"},
    {"retention", 0, OPTION_INTEGER, AT(retention_days), "DAYS", "0", 0, 36500, NULL,
     "erase what is older, at the start and every hour; 0: keep it", "Privacy"},

    {"format", 0, OPTION_CHOICE, AT(settings.format), "NAME", "auto", 0, 0,
     FORMAT_CHOICES, "of files; auto goes by their names and first bytes", "Records"},
    {"text-field", 0, OPTION_STRING, AT(settings.text_field), "NAME", "text", 0, 0,
     NULL, "JSON field or CSV column that holds the text", "Records"},
    {"id-field", 0, OPTION_STRING, AT(settings.id_field), "NAME", "id", 0, 0, NULL,
     "… the id; a record without it has the SHA-256 of its line", "Records"},
    {"author-field", 0, OPTION_STRING, AT(settings.author_field), "NAME", "author", 0,
     0, NULL, "… the author's id", "Records"},
    {"lang-field", 0, OPTION_STRING, AT(settings.lang_field), "NAME", "lang", 0, 0,
     NULL, "… the language (BCP 47)", "Records"},
    {"time-field", 0, OPTION_STRING, AT(settings.time_field), "NAME", "time", 0, 0,
     NULL, "… when it was posted: ISO 8601, or a number since 1970", "Records"},
    {"place-field", 0, OPTION_STRING, AT(settings.place_field), "NAME", "place", 0, 0,
     NULL, "… the author's place, in his words", "Records"},

    {"token-file", 0, OPTION_STRING, AT(settings.token_file), "FILE", NULL, 0, 0, NULL,
     "bearer token (X) or user token (Mastodon)", "Networks"},
    {"app-key-file", 0, OPTION_STRING, AT(settings.key_file), "FILE", NULL, 0, 0, NULL,
     "X: \"key:secret\" of the app, to get a token with", "Networks"},
    {"ca-file", 0, OPTION_STRING, AT(settings.ca_file), "FILE", NULL, 0, 0, NULL,
     "certificates to trust instead of the system's (PEM)", "Networks"},
    {"allow-plain", 0, OPTION_FLAG, AT(settings.allows_plain), NULL, NULL, 0, 0, NULL,
     "without TLS to a loopback address, for tests", "Networks"},
    {"rules-file", 0, OPTION_STRING, AT(settings.rules_file), "FILE", NULL, 0, 0, NULL,
     "X: rules, a line each; without it they are made from the watch list", "Networks"},
    {"max-rule-bytes", 0, OPTION_BYTES, AT(settings.max_rule_bytes), "BYTES", "1024", 1,
     1 << 20, NULL, "X: the longest rule that the account may have", "Networks"},
    {"max-rules", 0, OPTION_INTEGER, AT(settings.max_rules), "N", "1000", 1, 100000,
     NULL, "X: how many rules it may have", "Networks"},
    {"keep-other-rules", 0, OPTION_FLAG, AT(settings.keeps_other_rules), NULL, "on", 0,
     0, NULL, "X: rules without Vigil's tag stay", "Networks"},
    {"posts-a-day", 0, OPTION_INTEGER, AT(settings.posts_a_day), "N", "0", 0, INT64_MAX,
     NULL, "X: pause until the next day (UTC) after so many; 0: no bound", "Networks"},
    {"backfill-minutes", 0, OPTION_INTEGER, AT(settings.backfill_minutes), "N", "0", 0,
     5, NULL, "X: ask for what was missed, if the account may", "Networks"},
    {"streams", 0, OPTION_STRING, AT(settings.streams), "LIST", "public", 0, 0, NULL,
     "Mastodon: public, public:local, hashtag:NAME, …", "Networks"},
    {"push-keys", 0, OPTION_STRING, AT(settings.push_keys), "FILE", NULL, 0, 0, NULL,
     "push: API keys, needed beyond loopback", "Networks"},

    {"queue", 0, OPTION_STRING, AT(queue), "URL", NULL, 0, 0, NULL,
     "nats://host:port: posts go there, to workers on other machines", "Running"},
    {"metrics", 0, OPTION_STRING, AT(metrics), "ADDRESS", NULL, 0, 0, NULL,
     "serve /metrics and /health there: \":9101\"", "Running"},
    {"metrics-keys", 0, OPTION_STRING, AT(metrics_keys), "FILE", NULL, 0, 0, NULL,
     "API keys for them, needed beyond loopback", "Running"},
    {"parse-threads", 'j', OPTION_INTEGER, AT(n_parsers), "N", "0", 0, 64, NULL,
     "threads that parse and select; 0: one a processor, at most 4", "Running"},
    {"seed", 0, OPTION_INTEGER, AT(seed), "N", "0", 0, INT64_MAX, NULL,
     "of the jitter between tries; 0: another one each time", "Running"},
    {"log-level", 0, OPTION_CHOICE, AT(log_level), "LEVEL", "info", 0, 0,
     LOG_LEVEL_CHOICES, "the least that is logged", "Running"},
    {"log-format", 0, OPTION_CHOICE, AT(log_format), "FORMAT", "logfmt", 0, 0,
     LOG_FORMAT_CHOICES, "of the log on standard error", "Running"},
};

static const char *const EXAMPLES[] = {
    "vigil stream posts.jsonl",
    "a file into vigil.db; again later: only what is new in it",
    "vigil stream --follow --name inbox inbox/",
    "the files of a directory, and those that come",
    "zcat posts.csv.gz | vigil stream --format csv --text-field body -",
    "a pipe; each line is in the store before the next step",
    "vigil stream --dry-run --json --watch-list drugs.txt posts.jsonl",
    "how many posts a watch list keeps",
    "vigil stream --metrics :9101 jetstream:",
    "Bluesky, with figures for Prometheus",
    "vigil stream --token-file x.token x:",
    "X's filtered stream; only counts are kept",
    NULL};

const struct program stream_table = {
    .name = "vigil-stream",
    .summary = "bring posts in: files, X, Bluesky, Mastodon, HTTP",
    .usage = "[options] SOURCE",
    .description =
        "Reads posts from SOURCE, keeps those that name a drug of the watch list, and "
        "puts them into the store, where vigil-enrich(1) finds them.\n\n"
        "SOURCE is a file, a directory, - (standard input), x:, jetstream:[URL], "
        "mastodon:https://HOST or push:ADDRESS. A record is a line of JSON with the "
        "fields text, id, author, author_name, lang, time, place, version, url, "
        "repost_of, quote_of, original (an object) and deleted, of which the text "
        "alone "
        "is needed; or a row of CSV; or a line of text.\n\n"
        "Nothing is lost and nothing counts twice, whatever is killed, full or away: a "
        "line is in the store before its source is told so, each post has a key that "
        "is "
        "unique for ever, and the source goes on where it was. A line that cannot be "
        "read is a dead letter (vigil-dlq(1)). SIGTERM and Ctrl-C end the reading; "
        "what "
        "was read is stored first. A second one ends the program at once.\n\n"
        "Exit status: 0 at the end of the source or when interrupted, 1 for a failure, "
        "2 for a wrong command line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_kind = "file",
};
