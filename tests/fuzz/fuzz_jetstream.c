/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_jetstream.c - a line of Jetstream through the quick look for its time and through the
 * parser: what they agree on, and what a post that came of it must be.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "client/sources/jetstream_post.h"
#include "client/sources/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define MAX_BYTES 20000

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static void require_post(const struct post *p) {
    require(p->version >= 0 && p->id_has_author);
    require(view_starts_with(p->native_id, VIEW("at://did:")));
    require(p->native_id.n_bytes <= POST_MAX_ID_BYTES);
    require(memmem(p->native_id.data, p->native_id.n_bytes,
                   "/" JETSTREAM_COLLECTION "/",
                   sizeof JETSTREAM_COLLECTION + 1) != NULL);
    require(p->text.n_bytes <= POST_MAX_TEXT_BYTES);
    require(p->lang.n_bytes <= POST_MAX_NAME_BYTES);
    require(p->author.n_bytes <= POST_MAX_NAME_BYTES);
    require((p->relation == POST_QUOTE) == (p->original_id.n_bytes > 0));
    require(p->original_id.n_bytes <= POST_MAX_ID_BYTES);
    require(p->posted_ns >= 0);
    require(p->action == POST_DELETE || p->author.n_bytes > 0);
}

/* The time that the parser finds, if the line is an object. */
static bool parsed_time(struct view line, json_int_t *out) {
    static const struct json_limits limits = {.max_bytes = SOURCE_MAX_LINE_BYTES,
                                              .max_depth = 32,
                                              .max_values = 20000,
                                              .max_key_bytes = 1024};
    json_t *event = NULL;
    if (json_parse(line.data, line.n_bytes, &limits, &event, NULL) != STATUS_OK)
        return false;
    const json_t *value = json_object_get(event, "time_us");
    bool is_time = json_is_integer(value) && json_integer_value(value) >= 0;
    *out = json_integer_value(value);
    json_decref(event);
    return is_time;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    static struct arena arena = {.max_bytes = (size_t)4 << 20};
    struct post post;
    struct error err = {0};
    bool is_gone = false;
    uint64_t time_us = 0;
    json_int_t expected = 0;
    if (n_bytes > MAX_BYTES)
        return 0;
    struct view line = view_of((const char *)data, n_bytes);
    bool has_time = jetstream_time_us(line, &time_us);
    require(!has_time || time_us <= INT64_MAX);
    /* An escape in the key ("time_\u0075s") is the one thing that the quick look passes by;
     * "-0" the one number. */
    if (n_bytes && !memchr(data, '\\', n_bytes) && parsed_time(line, &expected) &&
        !memmem(data, n_bytes, "-0", 2))
        require(has_time && time_us == (uint64_t)expected);
    arena_clear(&arena);
    enum status status = jetstream_parse(line, &arena, &post, &is_gone, &err);
    require(status == STATUS_OK || err.message[0] != '\0');
    if (status == STATUS_OK && post.action != POST_NOTHING)
        require_post(&post);
    int64_t tid = -1;
    require(!jetstream_tid(line, &tid) || (tid >= 0 && n_bytes == 13));
    return 0;
}
