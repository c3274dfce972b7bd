/* SPDX-License-Identifier: Apache-2.0
 *
 * connections.h - the sockets that libmicrohttpd serves, seen from below it: what they send
 * goes through a gate first, and who is too slow or has gone is found out.
 *
 * libmicrohttpd reads with recv(2), or gnutls_record_recv under TLS. This program has
 * functions of these names, which the dynamic linker finds first: they read, feed the gate of
 * the connection (gate.h), and pass on only what it lets through. A connection that breaks a
 * rule gets its error here and is then at its end for the library. Other sockets of the
 * process are read as ever.
 *
 * libmicrohttpd's own timeout is one of silence: a byte a second outlives it. And it does not
 * look at suspended connections: nobody would notice that their client has gone. Both is for
 * connections_sweep.
 *
 * Threads: add, remove, watch and reads by the thread that has the connection; sweep by one
 *          other thread.
 */
#ifndef VIGIL_SERVER_CONNECTIONS_H
#define VIGIL_SERVER_CONNECTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "server/batcher.h"
#include "server/metrics.h"

struct connections_options {
    int64_t head_ns; /* from the first byte of a head to its last; silence in a body */
    int64_t body_ns; /* for a body, whatever its size */
    int64_t body_grace_ns; /* from then on, a body must keep up min_body_bytes_per_s */
    int64_t min_bytes_per_s;
    struct batcher *batcher;
    struct metrics *metrics;
};

/* One for the process: the functions named recv have no other way to it. */
enum status connections_open(const struct connections_options *options,
                             struct error *err);
/* Before a server speaks TLS: finds GnuTLS's own reader, which ours then stands before. It
 * also is what brings connections_tls.c into the program. */
enum status connections_open_tls(struct error *err);
void connections_close(void);

enum status connections_add(int fd, bool is_tls, struct error *err);
void connections_remove(int fd);
int32_t connections_count(void);
/* Of these, how many have a request that is not answered to its last byte. */
int32_t connections_n_busy(void);

/* From the head of a request to the end of its answer. */
void connections_busy(int fd, bool is_busy);
/* Watches for the client to go while the job is queued; NULL: no more. */
void connections_watch(int fd, struct job *job);

/* Ends those that are too slow, and cancels the jobs of clients that have gone. When
 * idle_ns >= 0, connections that have been idle for longer are closed as well. */
void connections_sweep(int64_t now_ns, int64_t idle_ns);

#endif
