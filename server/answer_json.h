/* SPDX-License-Identifier: Apache-2.0
 *
 * answer_json.h - an answer as JSON: the members that the HTTP API and `vigil classify` share.
 *
 *   "label":"Adverse_Event","score":0.98,"probs":{"Not_AE":0.02,"Adverse_Event":0.98},
 *   "entities":[{"type":"ADE","text":"rash","begin":10,"end":14,"score":0.97}]
 *
 * Threads: any.
 */
#ifndef VIGIL_SERVER_ANSWER_JSON_H
#define VIGIL_SERVER_ANSWER_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "model/answer.h"

/* Appends the members without braces, the first without a comma before it. text
 * [text_bytes] is what answer_make read; it may be NULL unless wants_entities. On failure
 * (STATUS_LIMIT, STATUS_NO_MEMORY) out may end with a part of them. */
enum status answer_json_write(const struct model_config *config, const struct answer *a,
                              const char *text, size_t text_bytes, bool wants_entities,
                              struct buffer *out, struct error *err);

#endif
