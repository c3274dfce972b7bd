/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_options.h - the options of single kinds of source, as `vigil stream` reads them from
 * its command line, environment and config file.
 */
#ifndef VIGIL_CLIENT_STREAM_OPTIONS_H
#define VIGIL_CLIENT_STREAM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct watch_list;

struct source_settings {
    /* file, directory, stdin, push */
    const char *format; /* auto, jsonl, csv, lines */
    const char *text_field, *id_field, *author_field, *lang_field, *time_field,
        *place_field;
    bool follows; /* tail -f: wait for more at the end of the file */

    /* x, mastodon, jetstream: where, and who we are. Secrets are read from files. */
    const char *token_file; /* bearer token (x), user token (mastodon) */
    const char *key_file;   /* x: "key:secret" of the app, to get a bearer token with */
    const char *ca_file;    /* PEM, instead of the system's; for tests and proxies */
    bool allows_plain;      /* http:// and ws:// to a loopback address, for tests */

    /* x */
    const char
        *rules_file; /* rule texts, a line each; NULL: made from the watch list */
    const struct watch_list *watch_list;
    const char *languages;    /* "en,es", for the rules */
    int64_t max_rule_bytes;   /* 1024 */
    int64_t max_rules;        /* 1000 */
    int64_t posts_a_day;      /* usage guard; 0: none */
    int64_t backfill_minutes; /* 0..5; 0: none */
    bool keeps_other_rules;   /* rules without our tag stay */

    /* mastodon: public, public:local, hashtag:NAME, … */
    const char *streams;

    /* push */
    const char *push_keys; /* file of API keys; NULL: loopback only */
};

#endif
