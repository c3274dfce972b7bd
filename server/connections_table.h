/* SPDX-License-Identifier: Apache-2.0
 *
 * connections_table.h - what connections.c and connections_tls.c share. Private to these two.
 */
#ifndef VIGIL_SERVER_CONNECTIONS_TABLE_H
#define VIGIL_SERVER_CONNECTIONS_TABLE_H

#include <stdatomic.h>
#include <sys/types.h>

#include "base/gate.h"
#include "server/connections.h"

struct connection {
    int fd;
    bool is_tls, is_refused;
    struct gate gate;
    _Atomic int64_t began_ns; /* of the head or body that is coming; 0: none is */
    _Atomic int64_t read_ns;  /* when something came last */
    _Atomic uint64_t n_body;  /* bytes of the body that is coming */
    atomic_bool is_in_body, is_busy;
    atomic_int verdict; /* of the sweep: VERDICT_x */
    struct job *job;    /* watched */
};

enum { VERDICT_NONE, VERDICT_SLOW, VERDICT_IDLE };

/* Reads and writes the plain bytes of a connection, as recv and send do. */
struct channel {
    void *context;
    ssize_t (*read)(void *context, void *out, size_t cap_bytes);
    void (*write)(void *context, const void *data, size_t n_bytes);
};

/* The connection of fd, or NULL. For the thread that has it. */
struct connection *connection_of(int fd);
/* Reads through the gate: what recv(2) gives, for what may be passed on. */
ssize_t connection_read(struct connection *c, const struct channel *channel, void *out,
                        size_t cap_bytes);

#endif
