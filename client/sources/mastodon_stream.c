/* SPDX-License-Identifier: Apache-2.0 */
#include "client/sources/mastodon_stream.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static enum status add_escaped(char *path, struct view text, struct error *err) {
    size_t n = strlen(path);
    for (size_t i = 0; i < text.n_bytes; i++) {
        unsigned char c = (unsigned char)text.data[i];
        bool is_plain = (c >= '0' && c <= '9') ||
                        ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || c == '-';
        if (n + 4 > MASTODON_STREAM_BYTES)
            return error_set(err, STATUS_LIMIT,
                             "mastodon: the name of a stream is too long");
        n += (size_t)snprintf(path + n, MASTODON_STREAM_BYTES - n,
                              is_plain ? "%c" : "%%%02X", c);
    }
    return STATUS_OK;
}

enum status mastodon_stream_find(struct view name, struct mastodon_stream *out,
                                 struct error *err) {
    static const struct {
        const char *name, *path;
        bool has_value;
        const char *timeline, *query; /* around the value */
    } kinds[] = {{"public:local", "public/local", false, "public", "?local=true&"},
                 {"public:remote", "public/remote", false, "public", "?remote=true&"},
                 {"public", "public", false, "public", "?"},
                 {"hashtag:local:", "hashtag/local?tag=", true, "tag/", "?local=true&"},
                 {"hashtag:", "hashtag?tag=", true, "tag/", "?"},
                 {"list:", "list?list=", true, "list/", "?"}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        struct view kind = view_of_string(kinds[i].name);
        struct view value = view_of(NULL, 0);
        if (!view_starts_with(name, kind))
            continue;
        value = view_of(name.data + kind.n_bytes, name.n_bytes - kind.n_bytes);
        if (value.n_bytes > 0 && value.data[0] == '#' && kinds[i].has_value)
            value = view_of(value.data + 1, value.n_bytes - 1);
        if ((value.n_bytes > 0) != kinds[i].has_value)
            continue;
        (void)snprintf(out->path, MASTODON_STREAM_BYTES, "/api/v1/streaming/%s",
                       kinds[i].path);
        (void)snprintf(out->timeline, MASTODON_STREAM_BYTES, "%s", kinds[i].timeline);
        enum status status = add_escaped(out->path, value, err);
        if (status == STATUS_OK)
            status = add_escaped(out->timeline, value, err);
        size_t n = strlen(out->timeline); /* shorter than the path */
        (void)snprintf(out->timeline + n, MASTODON_STREAM_BYTES - n, "%s",
                       kinds[i].query);
        return status;
    }
    return error_set(
        err, STATUS_INVALID,
        "mastodon: no such stream: \"%.*s\"; there are public, public:local, "
        "public:remote, hashtag:NAME, hashtag:local:NAME, list:ID",
        (int)(name.n_bytes < 64 ? name.n_bytes : 64), name.data);
}
