/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_table.h - the command line of `vigil stream`: its options, and where they land.
 */
#ifndef VIGIL_CLIENT_STREAM_TABLE_H
#define VIGIL_CLIENT_STREAM_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/options.h"
#include "client/stream_options.h"

struct stream_table {
    const char *store, *queue, *name;
    bool from_start, is_dry_run, is_quiet, wants_json;
    int64_t retention_days;

    const char *watch_list, *languages, *mode, *key_file;
    bool matches_substrings, detects_language, folds;

    struct source_settings settings;

    const char *metrics, *metrics_keys;
    int64_t n_parsers, seed;
    const char *log_level, *log_format;
};

/* The program; its target is a zeroed struct stream_table. */
extern const struct program stream_table;

#endif
