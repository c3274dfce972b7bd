/* SPDX-License-Identifier: Apache-2.0
 *
 * bulk.h - classifies a stream of records: the pipeline of `vigil classify`.
 *
 *   reader thread            caller's thread              writer thread
 *   records, tokenizer  ──►  engine, batches full of  ──►  answers as JSON lines,
 *                            texts of like length          in the order of the input
 *          ▲                                                     │
 *          └──────────────── empty chunks ◄──────────────────────┘
 *
 * A fixed number of chunks goes round, so that memory does not depend on the input's size.
 * A chunk is handed on when it is full, or when the input makes the reader wait.
 */
#ifndef VIGIL_SERVER_BULK_H
#define VIGIL_SERVER_BULK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "server/bundle.h"
#include "server/records.h"

struct bulk_summary {
    uint64_t n_records; /* written, those with an error included */
    uint64_t n_errors;
    uint64_t n_positive; /* labelled bundle.positive_label */
    uint64_t n_tokens;   /* the engine's, overlap of windows included */
    uint64_t n_truncated;
    uint64_t input_bytes;     /* of the input, that were read for what is written */
    struct error first_error; /* of a record; its line or row: */
    uint64_t first_error_number;
    bool is_interrupted; /* the records were woken: what was read is written */
};

struct bulk_options {
    struct records *records;
    struct bundle *bundle;
    int out_fd;
    int stop_fd; /* an eventfd, the wake_fd of the records: written to on failure, so that
                    the reader stops waiting for input; -1: none */
    int32_t batch_tokens; /* 0: as many as the engine takes */
    double threshold;     /* NAN: the most probable label wins */
    bool wants_entities;
    bool truncate;
    /* Called by the writer thread after each chunk; NULL: not. */
    void (*on_progress)(void *context, const struct bulk_summary *so_far);
    void *context;
};

/* Runs until the input ends. *summary is filled also on failure. STATUS_CANCELLED when
 * whoever read the answers has gone (SIGPIPE has to be ignored). */
enum status bulk_run(const struct bulk_options *options, struct bulk_summary *summary,
                     struct error *err);

#endif
