/* SPDX-License-Identifier: Apache-2.0
 *
 * turns.h - times an engine a turn at a time, as another program asks for it.
 *
 * bench/rivals/cpu.py interleaves Vigil with other engines, round by round, each in a
 * process that is stopped between its turns. So the engine is opened once and then answers
 * lines; every answer is one line of JSON:
 *
 *   (start)     {"engine":"vigil","version":…,"device":"cpu","effective":"int8, avx2",…}
 *   1x32 N      N timed runs of one sequence of 32 tokens (any length): {"ms":[…]}
 *   stream …    one timed pass over the sequences of the file, packed in the order that they
 *               have there into batches as large as the engine takes: {"ms":[…]}; what
 *               follows the word (the order that rivals are asked for) changes nothing
 *   logits N    of the first N sequences, one at a time: {"logits":[[…],…]}
 *   shape S N   N timed runs of the shape S (shapes.h), one at a time: {"ms":[…],
 *               "device_ms":[…]}; device_ms is empty where the device has no clock
 *   flight S N  N runs of it without a break, batches in flight: {"ms":all of it,
 *               "device_ms":[…]}
 *   answers S   {"logits":[[…],…]} of a run of the shape
 *   ids S       {"ids":[[…],…]} that the shape has
 *   quit        or the end of the input
 * A request that fails is answered with {"error":"…"}; the next one is served.
 */
#ifndef VIGIL_BENCH_TURNS_H
#define VIGIL_BENCH_TURNS_H

#include <stdio.h>

#include "model/engine.h"

/* Serves lines from in until it ends. ids_path names a file with a sequence a line: token
 * ids separated by spaces, specials included, as `vigil tokenize` prints them. The engine is
 * the caller's and is used by this thread alone. */
enum status turns_serve(struct engine *engine, const struct model_config *config,
                        const char *ids_path, FILE *in, FILE *out, struct error *err);

#endif
