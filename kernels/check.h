/* SPDX-License-Identifier: Apache-2.0
 *
 * check.h - says everything that is wrong with a model directory, also with its answers.
 */
#ifndef VIGIL_KERNELS_CHECK_H
#define VIGIL_KERNELS_CHECK_H

#include <stddef.h>

struct check_result {
    size_t n_problems;
    size_t n_rows; /* golden answers that were held against the model's */
    double worst;  /* the largest difference of a logit or tag */
};

/* Checks config, weights and vocabulary; one call of report for each problem. */
void check_model(const char *model_dir, void (*report)(void *user, const char *line),
                 void *user, struct check_result *result);

/* Runs the rows of a golden file, {"ids":[…],"logits":[…][,"tags":[[…],…]]} a line, on an
 * engine ("reference", "cpu", "auto") and reports each row that is off by more than
 * tolerance, up to ten. Adds to *result. */
void check_golden(const char *model_dir, const char *golden_path, const char *device,
                  double tolerance, void (*report)(void *user, const char *line),
                  void *user, struct check_result *result);

#endif
