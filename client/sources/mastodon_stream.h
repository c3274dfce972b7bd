/* SPDX-License-Identifier: Apache-2.0
 *
 * mastodon_stream.h - the streams of Mastodon by their names: where each is, and where the
 * timeline is that has the same statuses.
 */
#ifndef VIGIL_CLIENT_SOURCES_MASTODON_STREAM_H
#define VIGIL_CLIENT_SOURCES_MASTODON_STREAM_H

#include "base/status.h"
#include "base/view.h"

#define MASTODON_STREAM_BYTES 512

struct mastodon_stream {
    char path[MASTODON_STREAM_BYTES];     /* "/api/v1/streaming/public/local" */
    char timeline[MASTODON_STREAM_BYTES]; /* "public?local=true&" */
};

/* public, public:local, public:remote, hashtag:NAME, hashtag:local:NAME, list:ID.
 * STATUS_INVALID names them; STATUS_LIMIT. */
enum status mastodon_stream_find(struct view name, struct mastodon_stream *out,
                                 struct error *err);

#endif
