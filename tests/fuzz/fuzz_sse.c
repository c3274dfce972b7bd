/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_sse.c - server-sent events: however the bytes are split, the same events come out;
 * each makes a line that the parser of statuses can read or refuse.
 *
 * Input: a byte for the size of the pieces, then the stream.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/net/sse.h"
#include "client/sources/mastodon_post.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static void take_event(const struct sse *s, struct buffer *all, struct arena *arena) {
    struct buffer line = {.max_bytes = 1 << 20};
    struct post post;
    struct error err = {0};
    struct view data = view_of(s->data.data, s->data.n_bytes);
    require(strlen(s->event) < SSE_NAME_BYTES && strlen(s->id) < SSE_ID_BYTES);
    require(buffer_append(all, s->event, strlen(s->event) + 1, NULL) == STATUS_OK);
    require(buffer_append(all, s->id, strlen(s->id) + 1, NULL) == STATUS_OK);
    if (data.n_bytes > 0)
        require(buffer_append(all, data.data, data.n_bytes, NULL) == STATUS_OK);
    require(mastodon_line(s->event, data, &line, NULL) == STATUS_OK);
    require(!memchr(line.data, '\n', line.n_bytes));
    enum status status =
        mastodon_post_parse(view_of(line.data, line.n_bytes), arena, &post, &err);
    require((status == STATUS_OK) == (err.message[0] == 0));
    if (status == STATUS_OK && post.action != POST_NOTHING)
        require(post.native_id.n_bytes > 0 && post.version > 0);
    arena_clear(arena);
    buffer_free(&line);
}

static void read_events(struct view bytes, size_t piece, struct buffer *all) {
    struct sse s = {0};
    struct arena arena = {.max_bytes = 1 << 22};
    for (size_t at = 0; at < bytes.n_bytes; at += piece) {
        size_t n = bytes.n_bytes - at < piece ? bytes.n_bytes - at : piece, used = 0;
        char *copy = malloc(n);
        require(copy != NULL);
        memcpy(copy, bytes.data + at, n);
        while (used < n) {
            size_t n_used = 0;
            bool has_event = false;
            require(sse_feed(&s, view_of(copy + used, n - used), &n_used, &has_event,
                             NULL) == STATUS_OK);
            require(n_used > 0 && n_used <= n - used);
            used += n_used;
            require(has_event || used == n);
            if (has_event)
                take_event(&s, all, &arena);
        }
        free(copy);
    }
    arena_free(&arena);
    sse_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 2)
        return 0;
    struct view bytes = view_of((const char *)data + 1, n_bytes - 1);
    struct buffer whole = {.max_bytes = 1 << 20}, pieces = {.max_bytes = 1 << 20};
    read_events(bytes, bytes.n_bytes, &whole);
    read_events(bytes, data[0] % 17 + 1, &pieces);
    require(whole.n_bytes == pieces.n_bytes);
    require(whole.n_bytes == 0 || memcmp(whole.data, pieces.data, whole.n_bytes) == 0);
    buffer_free(&whole);
    buffer_free(&pieces);
    return 0;
}
