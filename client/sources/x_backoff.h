/* SPDX-License-Identifier: Apache-2.0
 *
 * x_backoff.h - how long to wait before a stream is asked for again: X's documented table,
 * which serves for Mastodon too.
 *
 *   a stream that was steady has ended   at once, then as the network
 *   the network (no connection, reset,   250 ms more each time, up to 16 s
 *   silence)
 *   an HTTP error                        5 s, doubled each time, up to 320 s
 *   429, too many requests               60 s, doubled each time, up to 900 s (the length of
 *                                        X's windows); never before x-rate-limit-reset
 *   429, too many connections            as 429, but the window's end says nothing: the old
 *                                        connection has to go away first
 *
 * Each kind counts for itself, until the stream has been steady for a while: a server that
 * takes us and drops us again is not asked in a tight loop. Jitter (up to a tenth) is added
 * on top, never below; network waits stay within 16 s with it.
 *
 * Pure: the same sequence of calls gives the same waits.
 *
 * Tests do not sleep through this: VIGIL_TEST_TIME_SCALE=0.01 in the environment makes the
 * waits of x and mastodon (and the time of silence that counts as dead) a hundredth.
 */
#ifndef VIGIL_CLIENT_SOURCES_X_BACKOFF_H
#define VIGIL_CLIENT_SOURCES_X_BACKOFF_H

#include <stdint.h>

#define X_BACKOFF_STEADY_NS INT64_C(20000000000) /* a stream up for so long is steady */

enum x_failure {
    X_NETWORK,
    X_HTTP_ERROR,
    X_RATE_LIMIT,
    X_TOO_MANY_CONNECTIONS,
    N_X_FAILURES
};

/* Zero-initialise; seed may be anything. */
struct x_backoff {
    uint64_t seed;
    uint32_t n_failures[N_X_FAILURES]; /* since the stream was steady */
    int may_go_at_once;                /* the stream was steady */
};

/* The stream has been up for X_BACKOFF_STEADY_NS: the next failure is the first again. */
void x_backoff_steady(struct x_backoff *b);

/* The wait behind this failure.
 * reset_s         x-rate-limit-reset in seconds since 1970, 0: none
 * retry_after_ns  of Retry-After, -1: none
 * wall_ns         now, to compare with reset_s */
int64_t x_backoff_next(struct x_backoff *b, enum x_failure failure, int64_t reset_s,
                       int64_t retry_after_ns, int64_t wall_ns);

/* 1, or what VIGIL_TEST_TIME_SCALE says (above 0, at most 1). */
double x_backoff_time_scale(void);

#endif
