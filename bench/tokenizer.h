/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.h - times the tokenizer alone, on one thread.
 */
#ifndef VIGIL_BENCH_TOKENIZER_H
#define VIGIL_BENCH_TOKENIZER_H

#include <stdio.h>

#include "base/status.h"

/* Encodes every text of a file (a text a line, as it stands) to ids and offsets,
 * rounds times over and once before that, and writes one line of JSON:
 *   {"engine":"vigil","texts":N,"bytes":N,"tokens":N,"checksum":N,
 *    "ids_ms":[...],"offsets_ms":[...]}
 * "ids_ms" without offsets, which is what rivals are timed at; checksum: of the ids.
 * Times are of the processor, so that what else runs there does not count. */
enum status tokenizer_bench(const char *model_dir, const char *texts_path, int rounds,
                            FILE *out, struct error *err);

#endif
