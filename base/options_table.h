/* SPDX-License-Identifier: Apache-2.0
 *
 * options_table.h - what options.c (parsing) and options_text.c (--help, man page,
 * completion) share. Private to these two.
 */
#ifndef VIGIL_BASE_OPTIONS_TABLE_H
#define VIGIL_BASE_OPTIONS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/options.h"

#define OPTION_TEXT_BYTES 128

/* "vigil-model-quantize" -> "vigil model quantize". */
void options_title(const struct program *program, char out[OPTION_TEXT_BYTES]);
/* "max-body" -> "VIGIL_MAX_BODY". */
void options_variable(const char *name, char out[OPTION_TEXT_BYTES]);
/* "an integer from 0 to 65535": what the value of an option has to be. */
void options_expected(const struct option *option, char out[OPTION_TEXT_BYTES]);
/* True when a flag is on unless --no-name is given. */
bool options_is_on(const struct option *option);

void options_print_help(const struct program *program, FILE *out);
void options_print_man(const struct program *program, FILE *out);
void options_print_completion(const struct program *program, FILE *out);

#endif
