/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.h - times the engine alone: no tokenizer, no HTTP in the figures.
 *
 * Four measures take turns, round by round, so that a slow moment of the machine hits all
 * of them: one sequence of 32 tokens, one of 128, all texts packed into batches as large as
 * the engine takes, as many of them in flight as it takes, and all texts one at a time. A
 * figure is the median of the rounds. A device with a clock of its own is timed by that too.
 */
#ifndef VIGIL_BENCH_ENGINE_H
#define VIGIL_BENCH_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bench/texts.h"
#include "model/engine.h"

struct engine_bench {
    const char *model_dir;
    struct engine_options engine;
    int64_t n_rounds;
    int64_t batch_texts; /* most texts of a batch; 0: as many as fit */
    bool with_probe;     /* the instruction floor too, and the share that is reached */
    bool is_json;
};

/* Opens the model and the engine that options ask for; both are the caller's. */
enum status engine_bench_open(const struct engine_bench *options,
                              struct checkpoint **checkpoint, struct engine **engine,
                              struct error *err);

/* Times texts and prints the figures to out. */
enum status engine_bench(const struct engine_bench *options, const struct texts *texts,
                         FILE *out, struct error *err);

/* Opens the engine and answers bench/turns.h's lines from in over the sequences of the file
 * ids_path. */
enum status engine_bench_turns(const struct engine_bench *options, const char *ids_path,
                               FILE *in, FILE *out, struct error *err);

/* Multiply-adds a second that bare instructions reach, for each dtype that isa (NULL: the
 * best) has here. */
enum status engine_bench_probe(const char *isa, int32_t n_threads, bool is_json,
                               FILE *out, struct error *err);

#endif
