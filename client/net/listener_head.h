/* SPDX-License-Identifier: Apache-2.0
 *
 * listener_head.h - what a request's head says, once the gate has let it through, and what an
 * address to listen on means. Pure functions.
 */
#ifndef VIGIL_CLIENT_NET_LISTENER_HEAD_H
#define VIGIL_CLIENT_NET_LISTENER_HEAD_H

#include <stdbool.h>
#include <stddef.h>

#include <sys/socket.h>

#include "base/status.h"
#include "base/view.h"

/* Views lie in the head. Of a field that came twice the first is taken; empty: none came. */
struct listener_head {
    struct view method, path, query;
    struct view content_type, authorization, api_key;
    bool keeps_alive;       /* the version's default and Connection, taken together */
    bool expects_continue;  /* Expect: 100-continue */
    bool expects_otherwise; /* any other Expect */
};

/* head: from the request line to the empty line, both included; an empty line before it is
 * forgiven, as by the gate. Whatever the bytes are, nothing outside of them is read; of bytes
 * that the gate has not passed the answer is any. */
void listener_head_read(struct view head, struct listener_head *out);

/* "127.0.0.1:9100", "[::1]:0", "localhost:1", ":9100" (the same as 127.0.0.1): numbers, no
 * names but localhost. STATUS_INVALID says what was expected. */
enum status listener_address(const char *text, struct sockaddr_storage *out,
                             socklen_t *n_bytes, bool *is_loopback, struct error *err);

#endif
