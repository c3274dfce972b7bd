/* SPDX-License-Identifier: Apache-2.0
 *
 * windows.h - a text made ready for an engine: its tokens, cut into windows that overlap.
 *
 * A text that is longer than the model's positions P is classified by windows of P tokens
 * (each with its own [CLS] and [SEP]) that overlap by a quarter of P; the last window ends
 * with the text. With truncate it is cut to the first window instead.
 */
#ifndef VIGIL_MODEL_WINDOWS_H
#define VIGIL_MODEL_WINDOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/config.h"
#include "tokenizer/tokenizer.h"

#define WINDOW_OVERLAP_PART 4 /* windows overlap by P / 4 tokens */

struct windows {
    int32_t *ids; /* [n_ids] windows end to end: copied as they are to a batch */
    struct token_span *spans; /* [n_ids] code points in the text as given */
    int32_t *offsets;         /* [n_windows + 1] into ids; offsets[0] == 0 */
    int32_t n_windows;
    int32_t n_ids;    /* what the engine computes: offsets[n_windows] */
    int32_t n_tokens; /* of the text, [CLS] and [SEP] included, before any cut */
    int32_t n_unknown;
    bool is_truncated;
};

/* Tokenizes text [text_bytes] and cuts windows. One allocation, owned by the caller, freed
 * with windows_free (a zeroed struct is fine). Any thread. */
enum status windows_make(const struct tokenizer *tokenizer, int32_t max_positions,
                         const char *text, size_t text_bytes, bool truncate,
                         struct windows *out, struct error *err);
void windows_free(struct windows *w);

/* Which of the text's tokens ([CLS] not counted) is the first of a window. */
int32_t windows_first(const struct windows *w, int32_t window);

#endif
