/* SPDX-License-Identifier: Apache-2.0
 *
 * watch.h - asks every engine for the canary (canary.h) again and again, as a job in the
 * queue that all posts go through. An answer that is not the one of the load is the end:
 * batcher_die, as if the device itself had failed. That an engine gave no answer, or not in
 * time, is counted and left to what holds for every job.
 *
 * Threads: one, and the workers that call on_done.
 */
#ifndef VIGIL_SERVER_WATCH_H
#define VIGIL_SERVER_WATCH_H

#include <stdint.h>

#include "server/service.h"

struct watch;

/* interval_ns 0: never. *out is owned by the caller. */
enum status watch_open(struct service *s, int64_t interval_ns, struct watch **out,
                       struct error *err);
/* Every job must be done. */
void watch_close(struct watch *w);
/* Now and then: begins a round when it is time, and puts one away that is over. */
void watch_tick(struct watch *w, int64_t now_ns);

#endif
